/**
 * serve: an nbdkit process that serves the disks of a point on a unix socket.
 *
 * It is detached and outlives the command that started it.  It ends by itself when its last client
 * is gone (nbdkit's exitlast filter), so that whoever stops the VM need not know of it.  Until it
 * has others the one who started it is its client: if that one dies, nothing is left behind.
 */
#ifndef LOCUM_SERVE_H
#define LOCUM_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

struct serve;

struct serve_opts {
	const char *nbdkit; /* program */
	const char *plugin; /* path of the plugin, or its name */
	const char *socket; /* made by nbdkit; at most 107 bytes */
	const char *log;    /* its stderr is appended here */
	const char *store;
	const char *key_dir; /* where the host's key and its replicas are, for a thin store */
	const char *point;   /* "web01@<id>" */
	uint64_t cache;      /* bytes */
	struct lc_span keys; /* store_key_image(): goes through a pipe, to be seen by nobody else */
	int64_t timeout_ms;  /* until it serves */
};

/**
 * serve_start(opts, out, e):
 * Start it and wait until it serves.  A failure has the last line of its stderr.
 */
int serve_start(const struct serve_opts *opts, struct serve **out, struct lc_err *e);
/** serve_release(s): leave it to its other clients; NULL is fine. */
void serve_release(struct serve *s);
/** serve_stop(s): end it and wait until it is gone; NULL is fine. */
void serve_stop(struct serve *s);

#endif

/**
 * server: the replica: lets paired hosts in and takes their points, any number of them at once.
 *
 * It holds no key of a store: what it writes it cannot read, and it logs VMs by their opaque ids.
 *
 * Thread: loop.
 */
#ifndef LOCUM_SERVER_H
#define LOCUM_SERVER_H

#include <stdint.h>
#include <stdio.h>

#include "replicator/identity.h"
#include "replicator/session.h"
#include "store/base/errors.h"

struct uv_loop_s;
struct workers;
struct server;

struct server_opts {
	struct uv_loop_s *loop;
	struct workers *workers;
	const char *dir;              /* of the replica (writers.h) */
	const struct address *listen; /* host: a number, or "*" for every address */
	const struct identity *identity;
	struct session_limits limits;
	uint64_t host_max; /* bytes that the store of one host may take; 0: any number */
};

/** server_start(o, out, e): listen.  LC_EBUSY where the address is taken. */
int server_start(const struct server_opts *o, struct server **out, struct lc_err *e);
/** server_port(s): the one it listens on. */
unsigned server_port(const struct server *s);
/** server_guests(s): connections that there are, strangers too. */
unsigned server_guests(const struct server *s);
/** server_status(s, f): hosts that were here since it began, and how they do, as JSON. */
void server_status(struct server *s, FILE *f);
/** server_stop(s, stopped, arg): end all sessions in order; stopped() comes when all is gone. */
void server_stop(struct server *s, void (*stopped)(void *arg), void *arg);

#endif

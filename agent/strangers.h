/**
 * strangers: VMs that run on this host and that no setting names: nobody protects them, so that is
 * told (alert.h, and the log).
 *
 * Thread: loop; processes are looked at on libuv's pool, as one that hangs may hold up who looks.
 */
#ifndef LOCUM_STRANGERS_H
#define LOCUM_STRANGERS_H

#include <stdint.h>
#include <stdio.h>

#include "store/base/errors.h"

struct alert;
struct settings;
struct strangers;
struct uv_loop_s;

#define STRANGERS_TICK_MS 10000

struct strangers_opts {
	struct uv_loop_s *loop;
	const char *proc;                /* NULL: /proc */
	const struct settings *settings; /* as they are at each look */
	struct alert **alert;            /* likewise; *alert NULL: none */
	unsigned tick_ms;                /* 0: STRANGERS_TICK_MS */
	int64_t rise_ns;                 /* how long one has to run until it is told */
};

int strangers_open(const struct strangers_opts *o, struct strangers **out, struct lc_err *e);
/** strangers_status(x, f): a member for the agent's status; x may be NULL. */
void strangers_status(const struct strangers *x, FILE *f);
/** strangers_close(x): it is gone when the loop has run; NULL is fine. */
void strangers_close(struct strangers *x);

#endif

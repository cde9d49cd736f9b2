/**
 * protect: continuous protection: restore points of every VM of the settings, as often as its goal
 * asks, and on to the replicas.
 *
 * The goal (rpo) is how old the newest state of a VM may get that is safe: durable at every
 * replica, or in the store here where there is none.  The next cycle of a VM begins so that it is
 * durable in time, by what the last ones took; VMs are spread over the time between.  A VM that
 * fails is tried again, less and less often.
 *
 * Thread: loop.
 */
#ifndef LOCUM_PROTECT_H
#define LOCUM_PROTECT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "store/base/errors.h"
#include "store/store.h"

struct capture_pool;
struct protect;
struct settings;
struct uv_loop_s;

struct protect_opts {
	struct uv_loop_s *loop;
	const struct settings *settings; /* borrowed until protect_stop() is done */
	struct store *store;
	struct capture_pool *pool;
};

/** protect_start(o, out, e): begin.  LC_ENOENT: the settings name no VM to protect. */
int protect_start(const struct protect_opts *o, struct protect **out, struct lc_err *e);
/** protect_status(p, f): how all is, as JSON. */
void protect_status(const struct protect *p, FILE *f);
/** protect_summary(p, dst, n): one line for people. */
void protect_summary(const struct protect *p, char *dst, size_t n);
/** protect_stop(p, stopped, arg): give back snapshots, hang up; stopped() comes when all is gone.
 */
void protect_stop(struct protect *p, void (*stopped)(void *arg), void *arg);

#endif

/**
 * delivery: points that a command makes, and what there is of large ones, to replicas.
 *
 * It connects when the first point is begun, and again where that is cut; when all are made a
 * replica that is away gets one more try.
 *
 * Thread: loop.
 */
#ifndef LOCUM_DELIVERY_H
#define LOCUM_DELIVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/store.h"

struct delivery;
struct settings;
struct throttle;
struct uv_loop_s;

struct delivery_opts { /* all of it is borrowed until over() */
	struct uv_loop_s *loop;
	const struct settings *settings;
	struct store *store;
	struct throttle *throttle;
	const char *const *names; /* [n] of replicas */
	size_t n;
	const char *const *vms; /* [nvms]: what else is in the store does not go */
	size_t nvms;
	void (*over)(void *arg); /* after delivery_finish(), from the loop; d is gone then */
	void *arg;
};

struct delivery_result {
	uint64_t points; /* that were sent */
	unsigned unsent; /* replicas that do not have everything */
};

/** delivery_start(o, result, out, e): result is valid when it is over. */
int delivery_start(const struct delivery_opts *o, struct delivery_result *result,
                   struct delivery **out, struct lc_err *e);
/** delivery_made(d, p): a point of a VM was made, or still holds. */
void delivery_made(struct delivery *d, const struct point *p);
/** delivery_finish(d): no more points are made; over() when all were sent or can't be. */
void delivery_finish(struct delivery *d);
/** delivery_cancel(d): the same, at once. */
void delivery_cancel(struct delivery *d);

#endif

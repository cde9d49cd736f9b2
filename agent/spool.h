/**
 * spool: keeps the store of a host within a budget, while replicas have what is in it.
 *
 * From three quarters of the budget on, contents that all replicas have are dropped from the store
 * (thin.h).  Where that does not help (a replica is away for long) the budget is spent: then no
 * points are to be made, until it does again.
 *
 * Thread: loop; it works on a thread of its own.
 */
#ifndef LOCUM_SPOOL_H
#define LOCUM_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"

struct spool;
struct store;
struct uv_loop_s;

#define SPOOL_MIN (UINT64_C(64) << 20) /* less counts as that */
/** spool_low(max): bytes from which on contents are dropped. */
static inline uint64_t
spool_low(uint64_t max)
{
	return max / 4 * 3;
}
/** spool_segment(max): how large segments of such a store may get, as what is not sealed can't be
 * dropped; 0: the usual. */
static inline uint64_t
spool_segment(uint64_t max)
{
	return max == 0 || max >= (UINT64_C(1) << 30) ? 0 : max / 16;
}

struct spool_opts {
	struct uv_loop_s *loop;
	struct store *store;
	const char *key_dir; /* who the replicas are */
	uint64_t max;        /* bytes; 0: without limit */
};

/** spool_start(o, out, e): where there is no replica, there is no limit. */
int spool_start(const struct spool_opts *o, struct spool **out, struct lc_err *e);

struct spool_status {
	uint64_t bytes, max;
	bool spent;        /* make no points */
	uint64_t dropped;  /* bytes, since it began */
	int64_t looked_ns; /* monotonic: bytes are as of then, or later */
	struct lc_err err; /* why nothing could be dropped when that was tried last */
};
void spool_status(struct spool *s, struct spool_status *out);
/**
 * spool_trim(o, out, e):
 * Once, where nobody stays to look after it: drop what the replicas have, if the store is near its
 * budget.  That nothing can be dropped is out->err, and no failure.  o->loop is not used.
 * Thread: any; blocks.
 */
int spool_trim(const struct spool_opts *o, struct spool_status *out, struct lc_err *e);
/** spool_stop(s, gone, arg): gone() comes on the loop when all is. */
void spool_stop(struct spool *s, void (*gone)(void *arg), void *arg);

#endif

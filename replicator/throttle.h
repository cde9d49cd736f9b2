/**
 * throttle: a limit of bytes a second that several connections share, in turn.
 *
 * A bucket of tokens that holds what 50 ms bring.  Who takes some and finds too few waits in line
 * for its turn, and gets a piece (what 10 ms bring) at a time, so that small things go between the
 * pieces of large ones.  The rate may be changed at any time.
 *
 * Thread: loop, but for throttle_rate().
 */
#ifndef LOCUM_THROTTLE_H
#define LOCUM_THROTTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "store/base/errors.h"

struct throttle;
struct uv_loop_s;

#define THROTTLE_MIN (UINT64_C(16) << 10) /* bytes a second: less carries no session */

struct throttle_place { /* in line; the members are the throttle's, but ready and arg */
	TAILQ_ENTRY(throttle_place) entry;
	bool waits;
	void (*ready)(void *arg);
	void *arg;
};

/** throttle_new(loop, bytes_ps, out, e): 0: no limit. */
int throttle_new(struct uv_loop_s *loop, uint64_t bytes_ps, struct throttle **out,
                 struct lc_err *e);
/** throttle_share(t): for one more owner, who closes it, too. */
struct throttle *throttle_share(struct throttle *t);
void throttle_set(struct throttle *t, uint64_t bytes_ps);
/** throttle_rate(t): bytes a second; 0, also where t is NULL: no limit.  Thread: any. */
uint64_t throttle_rate(const struct throttle *t);
/**
 * throttle_take(t, p, want):
 * How many of `want` bytes (over 0) may go now.  0: none; p waits, and p->ready() comes, once, when
 * it is worth asking again.
 */
size_t throttle_take(struct throttle *t, struct throttle_place *p, size_t want);
/**
 * throttle_spend(t, p, n):
 * So many bytes have come.  Where those were too many, p->waits is set: take no more until
 * p->ready().
 */
void throttle_spend(struct throttle *t, struct throttle_place *p, size_t n);
/** throttle_piece(t): what throttle_take() gives at most. */
size_t throttle_piece(const struct throttle *t);
/**
 * throttle_frame(t):
 * Bytes in a frame (channel.h): what is in one comes with its last byte, so at a limit it is what
 * an eighth of a second brings.  t may be NULL.
 */
size_t throttle_frame(const struct throttle *t);
/** throttle_give_back(t, n): so many of those that were taken did not go. */
void throttle_give_back(struct throttle *t, size_t n);
/** throttle_leave(t, p): wait no more. */
void throttle_leave(struct throttle *t, struct throttle_place *p);
/** throttle_close(t): when the last owner does nobody may wait; it is gone when the loop has run.
 * NULL is fine. */
void throttle_close(struct throttle *t);

#endif

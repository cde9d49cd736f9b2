/**
 * two: a replica and one host (twosites.h), and what tests of them begin and end with.
 */
#ifndef LOCUM_TESTS_TWO_H
#define LOCUM_TESTS_TWO_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "replicator/session.h"
#include "tests/lib/twosites.h"

struct two {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite h;
};

extern const struct session_limits two_quick; /* what takes seconds takes less than one */

/** two_make(t, limits): paired, not connected; limits NULL: the usual ones. */
void two_make(struct two *t, const struct session_limits *limits);
void two_done(struct two *t);
/** two_wait(t, condition, arg, what): run the loop until then; the test fails after 30 s. */
void two_wait(struct two *t, bool (*condition)(void *arg), void *arg, const char *what);
/** two_is_left(t): a condition: the replica has no connection. */
bool two_is_left(void *t);
/** two_disk(n): n windows that do not compress. */
struct vault_disk two_disk(size_t n);

#endif

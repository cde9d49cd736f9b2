/**
 * failpoint: named places where tests make the product fail or die.
 *
 * LOCUM_FAILPOINT="name:n:action[,name:n:action...]" acts on the n-th hit (1 = first) of `name`:
 * kill (SIGKILL to itself, at once), eio, enospc (the call fails with that), hang (sleeps for
 * ever), stop (SIGSTOP).  LOCUM_FAILPOINT_LOG=<file> appends each name when hit, so that a test can
 * assert that it was hit.  Without the variables a hit costs one predicted branch.  Names are
 * unique; tests/lint checks.
 */
#ifndef LOCUM_FAILPOINT_H
#define LOCUM_FAILPOINT_H

#include <stdbool.h>

extern bool failpoint_armed; /* set before main(), read only */

int failpoint_hit(const char *name);

/**
 * failpoint(name):
 * Pass the place called name.
 *
 * Returns  0, or the errno (EIO, ENOSPC) that the caller must act as if it had met.
 */
static inline int
failpoint(const char *name)
{
	return __builtin_expect(failpoint_armed, 0) ? failpoint_hit(name) : 0;
}

#endif

/**
 * guard: a process of its own that does what has to be done if we die or hang.
 *
 * It holds the monitor's connection as well, and says on it what it was given as soon as we are
 * gone, however suddenly, or when its time is up:
 *
 *   - while several VMs stand still, "cont";
 *   - while a snapshot lives, what takes it out of the guest's way, so that a filter of ours does
 * not stay there until the next run, and fill the host's disk meanwhile.
 */
#ifndef LOCUM_GUARD_H
#define LOCUM_GUARD_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct guard;

struct guard_duty {
	int monitor;      /* connection to QEMU; duplicated */
	const char *text; /* QMP commands, a line each; copied */
	size_t ncommands; /* in text */
	int64_t limit_ms; /* act after that although we live; 0 = no limit */
	const int *
	    scratch; /* files that must answer (a byte is written to them) or nothing is done ... */
	size_t nscratch;
	int64_t patience_ms; /* ... within this time */
};

/**
 * guard_start(duty, out, e):
 * From now on, until guard_free().
 *
 * Returns    0, or LC_ENOMEM where no process is to be had.
 */
int guard_start(const struct guard_duty *duty, struct guard **out, struct lc_err *e);
/** guard_free(g): the danger is over; nothing is done any more.  NULL is fine. */
void guard_free(struct guard *g);

#endif

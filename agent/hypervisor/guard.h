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

/* A filter that lies between `holder` (a node, or NULL: a device) and `node`.  Only where that is
 * so when the time has come is the command said that takes it out. */
struct guard_exchange {
	const char *holder, *filter, *node;
	const char *text; /* one QMP command, a line */
};

/* Strings are copied; commands are QMP, a line each. */
struct guard_duty {
	int monitor;      /* connection to QEMU; duplicated */
	const char *text; /* commands */
	int64_t limit_ms; /* act after that although we live; 0 = no limit */

	/* Where there is a prefix: only if image nodes are there whose names begin so.  `text`, the
	 * exchanges, `rest`; and `stop_server` where QEMU still listens on the socket. */
	const char *prefix;
	const struct guard_exchange *exchanges;
	size_t nexchanges;
	const char *rest;
	const char *stop_server;
	const char *socket;
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

/**
 * checkup: looks at this host, and at each VM on it, for what would keep Locum from protecting it.
 *
 * Nothing is changed: no folder made, no leftover removed.  What other kinds of VMs there are to be
 * found joins in checkup_vms().
 *
 *   checkup_host.c   privileges, folders, store, programs, clock
 *   checkup_vms.c    the VMs of the configuration, and those that run beside them
 *
 * Blocking.
 */
#ifndef LOCUM_CHECKUP_H
#define LOCUM_CHECKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct findings;
struct settings;
struct store;

struct checkup {
	const struct settings *settings;
	struct findings *findings;
	struct store *store; /* for reading; NULL: it can't be opened */
	bool agent;          /* an agent runs */
	const char *proc;    /* NULL = /proc */
	/* Look at these VMs only, only[nonly]; 0: at all. */
	const char *const *only;
	size_t nonly;
};

/** checkup_host(c): opens c->store, which the caller closes, and sets c->agent. */
void checkup_host(struct checkup *c);
/** checkup_vms(c): after it. */
void checkup_vms(struct checkup *c);

/* What the kernel says of the clock, apart so that a test can say otherwise. */
struct checkup_clock {
	bool known, synchronised;
	int64_t now_ns;
	int64_t newest_ns; /* commit of the newest restore point, 0 none */
};
/** checkup_clock(f, t): one finding. */
void checkup_clock(struct findings *f, const struct checkup_clock *t);
/** checkup_version(text, out): of the first number of the form 7.2[.22] in a program's words:
 * 70222. */
bool checkup_version(const char *text, unsigned *out);

#endif

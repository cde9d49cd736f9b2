/**
 * domains: the domains of a libvirt, asked for and made.
 *
 * Blocking, on a loop of its own, but never for longer than the time-outs (a relay does the work).
 */
#ifndef LOCUM_DOMAINS_H
#define LOCUM_DOMAINS_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct domains_at {
	const char *uri;
	int64_t connect_timeout_ms, command_timeout_ms;
};

struct domain {
	char *name; /* any text */
	char uuid[37];
	char state[12]; /* "running", "paused", "off", "crashed", "suspended" */
};

/**
 * domains_list(at, out, n, e):
 * All of them, those that are off too, in the order of their names.
 *
 * Returns    0; LC_ETIMEDOUT; LC_EPEER with libvirt's reason.
 * Ownership: *out is the caller's: domains_free().
 */
int domains_list(const struct domains_at *at, struct domain **out, size_t *n, struct lc_err *e);
void domains_free(struct domain *list, size_t n);
/** domains_define(at, xml, e): as `virsh define`. */
int domains_define(const struct domains_at *at, const char *xml, struct lc_err *e);

#endif

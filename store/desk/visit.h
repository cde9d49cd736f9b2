/**
 * visit: asks the owner of a store, at its desk (desk.h), for what only an owner may do.
 *
 * Blocks.  An owner that says nothing for a while is taken to hang: LC_ETIMEDOUT.
 */
#ifndef LOCUM_VISIT_H
#define LOCUM_VISIT_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct damage;
struct visit;

struct visit_opts {
	const char *dir;           /* of the store */
	const char *who;           /* "locum drop" */
	const struct lc_err *busy; /* what the lock said: who has the store */
	int64_t patience_ms;       /* 0: ten times as long as the desk is silent */
};

/** visit_open(o, out, e): LC_ENOENT: its owner has no desk. */
int visit_open(const struct visit_opts *o, struct visit **out, struct lc_err *e);
/** visit_drop(v, point, e): as store_drop(). */
int visit_drop(struct visit *v, const uint8_t *point, struct lc_err *e);
/** visit_condemn(v, list, n, condemned, e): as store_condemn(), in several commits where there is
 * much. */
int visit_condemn(struct visit *v, const struct damage *list, size_t n, uint64_t *condemned,
                  struct lc_err *e);
/** visit_lend(v, e): the store's lock is free for the asker, until visit_close(). */
int visit_lend(struct visit *v, struct lc_err *e);
/** visit_close(v): NULL is fine. */
void visit_close(struct visit *v);

#endif

/**
 * group: commits that are ready at the same moment share one COMMIT record, one pair of flushes and
 * one transaction.  Not for other rooms.
 */
#ifndef LOCUM_GROUP_H
#define LOCUM_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

struct store;

/* A point that is ready: what its COMMIT entries say, and what must still hold when they are
 * written. */
struct group_entry {
	struct group_entry *next; /* private while it is being committed */
	uint8_t line[16];
	uint8_t base[16]; /* must be the newest point or seed of the line; zeros: there is none */
	bool fork;        /* base is of another line instead, and must be there */
	bool sent;        /* by a writer (vouch.h): the VM must be its own, or nobody's yet */
	uint16_t writer;
	uint8_t vm[16];
	struct lc_buf entries; /* made with commit_add() */
	bool done;             /* private */
	int rc;                /* out: 0, durable; LC_ECONFLICT: another base;
				* LC_EACCES: another's VM */
	struct lc_err err;
};

/** GROUP_ENTRIES_MAX: how many COMMIT entries one group_entry may hold. */
#define GROUP_ENTRIES_MAX 5u

/**
 * group_commit(s, own, n):
 * Commit n entries, together with those of other threads.  Each gets its own rc; they are borrowed
 * until return.
 *
 * Durable: every entry whose rc is 0, on return.
 * Thread:  any; blocks.
 */
void group_commit(struct store *s, struct group_entry *const *own, size_t n);

/** group_is_newest(s, line, point, is, e): whether a point (zeros: none) is the newest point or
 * seed of a line. */
int group_is_newest(struct store *s, const uint8_t line[16], const uint8_t point[16], bool *is,
                    struct lc_err *e);

#endif

/**
 * commit: COMMIT records: all state of the store, as a list of entries.
 *
 * A COMMIT record is written only after everything before it in the log is durable, and it is whole
 * or not there (one checksum), so several restore points that are ready together become visible
 * together.
 */
#ifndef LOCUM_COMMIT_H
#define LOCUM_COMMIT_H

#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

/* Numbers are never used again.  Those with COMMIT_SKIPPABLE set may be skipped by a reader that
 * does not know them; any other unknown one means a newer format. */
#define COMMIT_SKIPPABLE 0x8000u
#define COMMIT_ENTRIES_MAX 4096u

enum commit_type {
	COMMIT_VM = 1,      /* a VM became known */
	COMMIT_LINE = 2,    /* a line of a VM began */
	COMMIT_POINT = 3,   /* a restore point (or seed) is complete */
	COMMIT_DROP = 4,    /* a restore point was dropped */
	COMMIT_DAMAGE = 8,  /* chunk records are bad: their content is to be stored again */
	COMMIT_RESTART = 9, /* state of these lines is bad: their next points stand by themselves */
	COMMIT_FOLDED = 12, /* the rows of a point of this record count from another base */
	COMMIT_THIN = 14,   /* contents may be missing here, and are at these replicas */
	COMMIT_OWNER = 0x800f, /* which writer's a VM is (vouch.h) */
			       /* 5 HOLD, 6 PIN, 7 EPOCH, 10 VERDICT, 11 POLICY are kept. */
};

/* A FOLDED entry: stands before the POINT entry that it is about. */
struct commit_folded {
	uint8_t point[16];
	uint8_t base[16]; /* zeros: none */
	uint64_t rows;
	uint8_t sum[32]; /* keyless sum of the rows */
};
/** commit_add_folded(out, x, e): append one. */
int commit_add_folded(struct lc_buf *out, const struct commit_folded *x, struct lc_err *e);
/** commit_folded_decode(body, x, e): LC_ECORRUPT where it is none. */
int commit_folded_decode(struct lc_span body, struct commit_folded *x, struct lc_err *e);

struct commit_entry {
	uint16_t type;
	struct lc_span body;
};

/** commit_start(out, wall_ns, e): begin a payload in an empty *out. */
int commit_start(struct lc_buf *out, int64_t wall_ns, struct lc_err *e);
/** commit_add(out, type, body, e): append an entry. */
int commit_add(struct lc_buf *out, uint16_t type, struct lc_span body, struct lc_err *e);
/**
 * commit_walk(payload, wall_ns, on_entry, arg, e):
 * Call on_entry for each entry; bodies borrow from payload.  LC_ECORRUPT where it is malformed or
 * has too many entries: then on_entry was never called.
 */
int commit_walk(struct lc_span payload, int64_t *wall_ns,
                int (*on_entry)(void *arg, const struct commit_entry *x, struct lc_err *e),
                void *arg, struct lc_err *e);

#endif

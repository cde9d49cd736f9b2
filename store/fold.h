/**
 * fold: what a record of the log does to the catalog.
 *
 * The same code runs when a record is written, when the tail of the log is taken up at open, and
 * when the catalog is made again from nothing; so all three give the same catalog.
 */
#ifndef LOCUM_FOLD_H
#define LOCUM_FOLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/catalog.h"
#include "store/idindex.h"
#include "store/maprec.h"
#include "store/segment.h"

struct fold {
	struct catalog *catalog;
	struct idindex *index;
	atomic_bool missing;       /* ids without bytes are known: look for them */
	atomic_bool vouched;       /* there are VOUCH records */
	atomic_bool thin;          /* there are chunks whose bytes were dropped (thin.h) */
	struct map_record scratch; /* one at a time */
	uint64_t next;             /* the chunk behind the one that a row named last; 0: none did */
};

/** fold_key(writer, id, key): what the index knows an id of a writer by. */
void fold_key(uint16_t writer, const uint8_t id[32], uint8_t key[32]);
/**
 * fold_find(f, writer, id, no, e):
 * Number of the chunk of that writer, or one that it vouched for (vouch.h), whose bytes are there;
 * LC_ENOENT.  fold_resolve(): of writer 0.
 */
int fold_find(struct fold *f, uint16_t writer, const uint8_t id[32], uint64_t *no,
              struct lc_err *e);
int fold_resolve(struct fold *f, const uint8_t id[32], uint64_t *no, struct lc_err *e);
/** fold_find_whole(f, writer, id, no, e), fold_whole(): the same of one whose bytes were not
 * dropped. */
int fold_find_whole(struct fold *f, uint16_t writer, const uint8_t id[32], uint64_t *no,
                    struct lc_err *e);
int fold_whole(struct fold *f, const uint8_t id[32], uint64_t *no, struct lc_err *e);
/** fold_vouch(f, r, payload, e): a VOUCH record.  Idempotent. */
int fold_vouch(struct fold *f, const struct record *r, struct lc_span payload, struct lc_err *e);
/** fold_stubs(f, r, payload, e): a STUBS record.  Idempotent. */
int fold_stubs(struct fold *f, const struct record *r, struct lc_span payload, struct lc_err *e);
/** fold_chunk(f, r, e): a CHUNK record with its id.  Idempotent.  fold_delta(f, r, bases, e): also
 * the ids of its bases; where one of those is missing it is, too. */
int fold_chunk(struct fold *f, const struct record *r, struct lc_err *e);
int fold_delta(struct fold *f, const struct record *r, struct lc_span bases, struct lc_err *e);
/** fold_map(f, m, e): a MAP record, decoded, with its writer; rows whose chunk number is 0 are
 * looked up. Idempotent: no. */
int fold_map(struct fold *f, struct map_record *m, struct lc_err *e);
/**
 * fold_commit(f, seq, payload, e):
 * A COMMIT record.  LC_EVERSION for an entry of a newer format; LC_ECORRUPT where an entry makes no
 * sense: the others count all the same.
 */
int fold_commit(struct fold *f, uint64_t seq, struct lc_span payload, struct lc_err *e);
/** fold_record(f, r, payload, e): whichever it is; unknown types are passed over. */
int fold_record(struct fold *f, const struct record *r, struct lc_span payload, struct lc_err *e);

#endif

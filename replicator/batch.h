/**
 * batch: some rows of a point that is being sent, from when they are read until they go.
 *
 * The chunks that the rows name, and the bases of those, are offered to the other side; what it
 * wants of them goes, bases first, and then the rows.
 *
 * Calls block in the store; none may run at the same time as another of the same point.
 */
#ifndef LOCUM_BATCH_H
#define LOCUM_BATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "replicator/message.h"
#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/maprec.h"
#include "store/seal.h"
#include "store/transfer.h"

/** The most rows of one: with four bases each they still fit an OFFER and its ROWS. */
#define BATCH_ROWS (OFFER_IDS_MAX / (1u + CHUNK_BASES_MAX))
#define BATCHES_MAX 4u    /* of a line on the way: 256 MiB of a full disk */
#define BATCHES_LINES 16u /* lines whose points are under way; what goes ahead comes on top */

enum batch_place {                  /* a further batch would be ... */
	           BATCH_FIRST = 0, /* the only one of a point */
	           BATCH_MORE,
	           BATCH_AHEAD /* of a point that is still being made */
};

struct batch {
	TAILQ_ENTRY(batch) entry; /* the owner's */
	struct lc_buf payload;    /* MAP payload */
	struct lc_buf ids;        /* [n] of CHUNK_ID_SIZE: what the OFFER names */
	uint64_t *chunks;         /* [n] their numbers here */
	uint32_t nbases;          /* the first of them, which go before what is made upon them */
	uint32_t n, next;         /* next: the first that was not looked at; the owner's */
	uint32_t expected;        /* up to there the store was told what comes */
	uint32_t open;  /* ids that may be wanted, or are and have not gone; the owner's */
	uint64_t asked; /* in which order answers come; the owner's */
	bool proved;    /* PROOF went; the owner's */
	bool answered;  /* bits is there, or n is 0 */
	uint8_t bits[(OFFER_IDS_MAX + 7) / 8]; /* what is wanted, as WANT says */
};

/**
 * batch_fits(open, place):
 * Whether a further one may be offered, with so many ids open of all that were: no more are than
 * the other side lets (ASKED_ALL_MAX).  There is always room for one of each point.
 */
bool batch_fits(uint32_t open, enum batch_place place);
/** batch_new(): an empty one; NULL: out of memory. */
struct batch *batch_new(void);
/**
 * batch_fill(b, o, rows, sum, bad, e):
 * Name what rows of the point o need, and keep them as they are sent; they are added to *sum. Once.
 *
 * Returns  0; *bad says whether the store failed, which is over for this point alone, and then b is
 *          only good for batch_free().  LC_ENOMEM in e.
 */
int batch_fill(struct batch *b, struct outgoing *o, struct map_record *rows, struct set_sum *sum,
               struct lc_err *bad, struct lc_err *e);
/** batch_answer(b, bits): the other side wants those, [n] bits.  Returns how many they are. */
uint32_t batch_answer(struct batch *b, const uint8_t *bits);
/** batch_wants(b, i): whether it wants the i-th of the ids; after the answer. */
bool batch_wants(const struct batch *b, uint32_t i);
/** batch_expect(b, o): before b->next goes: tell the store what comes next, where that is due. */
void batch_expect(struct batch *b, struct outgoing *o);
/** batch_free(b): NULL is fine. */
void batch_free(struct batch *b);

#endif

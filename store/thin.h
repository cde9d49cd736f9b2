/**
 * thin: a store that keeps the map of its points and the ids of their contents, but not all of the
 * contents: those that every replica has may be dropped here, and are fetched when they are read.
 *
 * Whole sealed segments become thin, the oldest first.  Who has a content is asked then, not
 * remembered; so a chunk that was never sent (of a point that was given up) is never dropped.  A
 * row is made only for a chunk whose bytes are here, or that the base has in that window: what is
 * dropped here may be gone over there once no point of there needs it any more.
 *
 * Law 3: the thin copy of a segment is durable before the whole one goes; a crash leaves the one,
 * or both, and the next owner finishes it (thin_settle).
 */
#ifndef LOCUM_THIN_H
#define LOCUM_THIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/seal.h"

struct store;

#define THIN_ASK_MAX 4096u   /* ids at once */
#define THIN_PEERS_MAX 1024u /* bytes of their names */

struct thin_opts {
	/**
	 * have(arg, ids, n, bits, e): set bit i % 8 of bits[i / 8] (zeros at first) where the i-th
	 * of n ids (CHUNK_ID_SIZE bytes each, at most THIN_ASK_MAX) is durable at every replica.
	 */
	int (*have)(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e);
	bool (*stop)(void *arg); /* whether to leave off; may be NULL */
	void *arg;
	const char *peers; /* who has the contents, for messages: "dr1, dr2" */
	uint64_t bytes;    /* to free; as soon as that is done it is over */
};
struct thin_stats {
	uint64_t segments, chunks; /* that became thin; that were dropped */
	uint64_t freed;            /* bytes */
};
/**
 * thin_run(s, o, st, e):
 * Drop contents, by whole segments.  Not enough to drop is no failure.  Others go on using the
 * store.
 *
 * Durable: what st says.  Thread: one at a time; blocks.
 */
int thin_run(struct store *s, const struct thin_opts *o, struct thin_stats *st, struct lc_err *e);

/** thin_name_peers(s, names, e): the log says where dropped contents are to be had; before any
 * are.  Durable. */
int thin_name_peers(struct store *s, const char *names, struct lc_err *e);

/** thin_bytes(s, all, droppable, e): bytes of the log on disk, and those in segments that could
 * still become thin. */
int thin_bytes(struct store *s, uint64_t *all, uint64_t *droppable, struct lc_err *e);

struct fetched { /* a chunk as it lies there */
	uint8_t encoding;
	uint32_t key;
	size_t n; /* bytes of its payload */
};
/**
 * thin_fetch(s, fetch, arg):
 * From now on contents that are not here are read through fetch(arg, ids, n, payload, out, e),
 * which fills payload[RECORD_PAYLOAD_MAX] with the CHUNK payload of the first of n ids (at most
 * THIN_AHEAD, of CHUNK_ID_SIZE bytes each); the others will probably be wanted next.  Called from
 * any thread, several at once; what it gives is believed no more than what lies here.  NULL: no
 * more.
 */
typedef int thin_fetch_cb(void *arg, const uint8_t *ids, size_t n, uint8_t *payload,
                          struct fetched *out, struct lc_err *e);
#define THIN_AHEAD 16u
void thin_fetch(struct store *s, thin_fetch_cb *fetch, void *arg);
struct thin_source { /* the same for who is to read so while others of the store are not */
	thin_fetch_cb *fetch;
	void *arg;
};
struct view;
/**
 * thin_elsewhere(s, v, budget_ns, chunk, e):
 * The number of a chunk of that point whose content is not here, to try whether it can be had; 0:
 * there is none, or none was found in that time.
 */
int thin_elsewhere(struct store *s, struct view *v, int64_t budget_ns, uint64_t *chunk,
                   struct lc_err *e);
/** thin_peers(s, dst): whose names the last thin_run() gave; "" where the store was never thin. */
void thin_peers(struct store *s, char dst[THIN_PEERS_MAX + 1]);

#endif

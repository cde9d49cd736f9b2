/**
 * transfer: restore points from store to store, as they lie there: sealed.
 *
 * No key is needed on either side, and nothing is decoded.  One store gives (struct outgoing): the
 * rows of a point, and the chunks that the other one lacks.  The other takes (struct incoming): it
 * believes nothing that a sum does not show, and the point is there when its commit is.
 *
 * The rows of a point count from the newest point of its line that the taker has.  Where the giver
 * dropped points in between, their rows are among its own already (FORMAT.md "FOLDED").  Where the
 * giver does not have that newest point any more, and the next one was not built on it, every
 * window of the disks is among the rows.
 */
#ifndef LOCUM_TRANSFER_H
#define LOCUM_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/keyring.h"
#include "store/maprec.h"
#include "store/point.h"
#include "store/store.h"

#define TRANSFER_ENTRY_MAX (256u << 10) /* bytes of a POINT entry */
#define TRANSFER_NAME_MAX 256u          /* bytes of a sealed VM name */
#define TRANSFER_LINES_MAX 4096u        /* of a writer: it begins no more */

/* ---- what a store has ---- */

struct transfer_line {
	uint8_t line[16], vm[16];
	uint16_t writer;     /* whose VM it is (vouch.h) */
	struct lc_span name; /* sealed name of the VM */
	struct lc_span head; /* POINT entry of its newest point (no seed); empty: it has none */
};
/** transfer_lines(s, on, arg, e): each line of each VM; spans are borrowed for the call. */
int transfer_lines(struct store *s,
                   int (*on)(void *arg, const struct transfer_line *l, struct lc_err *e), void *arg,
                   struct lc_err *e);
/** transfer_lines_of(s, writer, on, arg, e): those of one writer; heads of others, which may be
 * many and large, are not read. */
int transfer_lines_of(struct store *s, uint16_t writer,
                      int (*on)(void *arg, const struct transfer_line *l, struct lc_err *e),
                      void *arg, struct lc_err *e);
/** transfer_line_writer(s, line, writer, e): whose VM's a line is.  LC_ENOENT. */
int transfer_line_writer(struct store *s, const uint8_t line[16], uint16_t *writer,
                         struct lc_err *e);
/**
 * transfer_give(s, vm, writer, e):
 * From now on a VM is that writer's, and so is what the newest points of its lines have (slow:
 * their whole maps).  LC_ENOENT: there is no such VM; LC_EBUSY: points of it go on coming. Durable.
 */
int transfer_give(struct store *s, const uint8_t vm[16], uint16_t writer, struct lc_err *e);
/** transfer_bytes(s, writer, bytes, e): that its records take in the log; 0: those of all others.
 */
int transfer_bytes(struct store *s, uint16_t writer, uint64_t *bytes, struct lc_err *e);
/* What a row that says "all zero" counts for, as it takes its place in the catalog: as much as one
 * that names a content does in the log. */
#define TRANSFER_ZERO_COST CHUNK_ID_SIZE
/** transfer_zeros(s, writer, bytes, e): what such rows of its maps count for. */
int transfer_zeros(struct store *s, uint16_t writer, uint64_t *bytes, struct lc_err *e);
/** transfer_keys(s, keys, e): append the KEYS payload that a taker's segments begin with. */
int transfer_keys(struct store *s, struct lc_buf *keys, struct lc_err *e);
/**
 * transfer_take_keys(s, keys, change, e):
 * What a giver's segments begin with: whether it is what this store has, further data keys (then
 * the store's segments begin with them, too, from now on), or fewer (then nothing changes).  For an
 * owner, blind or not.
 *
 * Returns  as keyring_compare().
 * Durable: the further keys, on return of 0.
 */
int transfer_take_keys(struct store *s, struct lc_span keys, enum keys_change *change,
                       struct lc_err *e);
/**
 * transfer_join_keys(s, keys, max, added, e):
 * The same where several hosts of a domain share the store, and each may have data keys that others
 * lack: the store's segments begin with all of them.  *added: how many were new; more than max are
 * refused (LC_EKEY).  Not at the same time from two threads.
 *
 * Returns  as keyring_union().
 * Durable: the further keys, on return of 0.
 */
int transfer_join_keys(struct store *s, struct lc_span keys, unsigned max, unsigned *added,
                       struct lc_err *e);
/**
 * transfer_make(dir, keys, e):
 * Make an empty store in the key domain of a KEYS payload, blind: without any key.
 *
 * Returns  0; LC_EEXIST as store_init(); LC_ECORRUPT: that is no KEYS payload.
 * Durable: all of it, on return of 0.
 */
int transfer_make(const char *dir, struct lc_span keys, struct lc_err *e);
/** transfer_domain(s): 16 bytes, borrowed.  Only stores of one domain exchange points. */
const uint8_t *transfer_domain(const struct store *s);
/** transfer_open(s, entry, out, e): a POINT entry of this domain's; out->opened: with the key. Free
 * with point_done(). */
int transfer_open(const struct store *s, struct lc_span entry, struct point *out, struct lc_err *e);

struct transfer_chunk {
	uint8_t encoding;
	uint32_t key;
	struct lc_span payload;
};
#define TRANSFER_EXPECT_MAX 16u
#define TRANSFER_SUM_SIZE 32u
/** transfer_sum(c, sum): of a chunk as it lies there; the same only for the same bytes. */
void transfer_sum(const struct transfer_chunk *c, uint8_t sum[TRANSFER_SUM_SIZE]);

/* ---- giving ---- */

struct transfer_point { /* what is told of a point before its content; spans are borrowed */
	uint8_t id[16], vm[16], line[16];
	uint8_t base[16];    /* newest point of the line that the taker has; zeros: none */
	struct lc_span name; /* sealed name of the VM */
	struct lc_span entry;
};

struct outgoing;

/**
 * outgoing_next(s, line, head, out, e):
 * The oldest point of a line that is newer than `head`, the POINT entry of the newest one that the
 * taker has (empty: it has none).  Holds a lease on it.  Points whose map is damaged are passed
 * over.
 *
 * Returns  0; LC_ENOENT: there is none; LC_ECONFLICT: head is newer than all points here; LC_EKEY:
 *          head was dropped here, and without the key it cannot be told what is newer; LC_EBUSY: it
 *          is being dropped: what goes instead is to be seen in a moment.
 */
int outgoing_next(struct store *s, const uint8_t line[16], struct lc_span head,
                  struct outgoing **out, struct lc_err *e);
/**
 * outgoing_next_fresh(s, line, head, after, out, e):
 * The same of those that share nothing with their base, and come behind the point `after` (its id;
 * NULL: behind head).  For where contents that the taker lacks are not here any more (thin.h), of
 * that point's: what was left out comes in none of them.
 */
int outgoing_next_fresh(struct store *s, const uint8_t line[16], struct lc_span head,
                        const uint8_t *after, struct outgoing **out, struct lc_err *e);
/**
 * outgoing_restart(s, line, e):
 * Contents of a line that are wanted are nowhere: its next point is to stand by itself, and what it
 * names is to be stored again.  Durable.
 */
int outgoing_restart(struct store *s, const uint8_t line[16], struct lc_err *e);
/**
 * outgoing_newest(s, line, out, e):
 * The newest point of a line that can be trusted, with the whole of its map, zeros left out; as if
 * the taker had none.  LC_ENOENT: there is none; LC_EBUSY as outgoing_next().
 */
int outgoing_newest(struct store *s, const uint8_t line[16], struct outgoing **out,
                    struct lc_err *e);
#define TRANSFER_MAKING_MAX 16u
struct transfer_making { /* a point that is being made */
	uint8_t line[16], vm[16], point[16];
	uint8_t seed[16]; /* the pass before, whose contents count, too; zeros: none */
};
/**
 * transfer_making(s, list, n):
 * Which points are being made and are large by now: so much of them is stored that it pays to send
 * it ahead; also those of which a pass is over and the next one has not begun (the pass stands for
 * them then).  list[TRANSFER_MAKING_MAX].  Thread: any; does not block.
 */
void transfer_making(struct store *s, struct transfer_making *list, size_t *n);
/**
 * outgoing_made(s, m, head, out, e):
 * A point that is being made, for a taker whose newest point of the line is head: without entry and
 * name.  Its rows are those of the pass before and those that are durable so far, of each disk in
 * order, and no others: none (m->n = 0) may mean that there are more later.  What became of the
 * point is for the caller to see, and rows that come out of order are left out: all of them are
 * among those of the point.
 */
int outgoing_made(struct store *s, const struct transfer_making *m, struct lc_span head,
                  struct outgoing **out, struct lc_err *e);
const struct transfer_point *outgoing_point(const struct outgoing *o);
/**
 * outgoing_rows(o, m, max, e):
 * Up to `max` further rows, of one disk; none are left where m->n is 0.  Numbers of chunks are
 * those of this store.
 */
int outgoing_rows(struct outgoing *o, struct map_record *m, size_t max, struct lc_err *e);
/** outgoing_chunk(o, no, buf, out, e): a chunk as it lies here; buf[RECORD_PAYLOAD_MAX] holds it.
 */
int outgoing_chunk(struct outgoing *o, uint64_t no, uint8_t *buf, struct transfer_chunk *out,
                   struct lc_err *e);
/** outgoing_base(o, no, buf, out, e): as outgoing_chunk(), but whole, as others are made upon it.
 * LC_EKEY: it is none, and only the key could make it so. */
int outgoing_base(struct outgoing *o, uint64_t no, uint8_t *buf, struct transfer_chunk *out,
                  struct lc_err *e);
/** outgoing_expect(o, chunks, n): outgoing_chunk() is to give those next; it finds them faster
 * then. At most TRANSFER_EXPECT_MAX count. */
void outgoing_expect(struct outgoing *o, const uint64_t *chunks, size_t n);
/** outgoing_bases(o, chunks, n, out, e): the chunks that some of n are made upon, to append: struct
 * transfer_base each. */
int outgoing_bases(struct outgoing *o, const uint64_t *chunks, size_t n, struct lc_buf *out,
                   struct lc_err *e);
/** outgoing_id(o, no, id, e): the id of a chunk by its number. */
int outgoing_id(struct outgoing *o, uint64_t no, uint8_t id[CHUNK_ID_SIZE], struct lc_err *e);
/**
 * outgoing_sums(o, chunks, n, bits, buf, out, e):
 * Append transfer_sum() of each of n chunks whose bit is set (bit i % 8 of byte i / 8); zeros where
 * it is not whole here.  buf[RECORD_PAYLOAD_MAX].
 */
int outgoing_sums(struct outgoing *o, const uint64_t *chunks, uint32_t n, const uint8_t *bits,
                  uint8_t *buf, struct lc_buf *out, struct lc_err *e);
void outgoing_free(struct outgoing *o);

/* ---- mending: what was found damaged at the taker, once more ---- */

struct transfer_damage {   /* of one writer */
	uint64_t contents; /* that are damaged or gone: all, or those that are told of here */
	struct lc_buf ids; /* of these, [CHUNK_ID_SIZE] each, ascending */
	/* [16] each, of its VMs: of their log maps or commits are damaged, so that their next point
	 * has to stand by itself (FORMAT.md, RESTART). */
	struct lc_buf lines;
};
/**
 * transfer_damage(s, writer, above, max, out, e):
 * What is known to be damaged here of what a writer sent: at most max ids, above that one; all of
 * them are counted, and lines told, likewise, only where `above` is zeros.  What was appended is
 * durable and counts; a delta that was damaged with its base alone is good again with it.  Fills
 * an empty *out, for transfer_damage_free() in every case.  For an owner.
 */
int transfer_damage(struct store *s, uint16_t writer, const uint8_t above[CHUNK_ID_SIZE],
                    size_t max, struct transfer_damage *out, struct lc_err *e);
void transfer_damage_free(struct transfer_damage *d);
struct thin_source;
/** outgoing_contents(s, writer, out, e): of no point, but what that writer has sent;
 * outgoing_find() and outgoing_mend() are for it. */
int outgoing_contents(struct store *s, uint16_t writer, struct outgoing **out, struct lc_err *e);
/** outgoing_source(o, from): where contents that are elsewhere come from, from now on; copied.
 * Without a fetch(), as before the first call: as thin_fetch() said. */
void outgoing_source(struct outgoing *o, const struct thin_source *from);
/** outgoing_find(o, id, no, e): the chunk that stands for an id here.  LC_ENOENT; LC_ECORRUPT: it
 * is damaged here, too.  The first time in a store that is only read, slow: its newest chunks. */
int outgoing_find(struct outgoing *o, const uint8_t id[CHUNK_ID_SIZE], uint64_t *no,
                  struct lc_err *e);
/** outgoing_is_delta(o, no): it lies here as one. */
bool outgoing_is_delta(struct outgoing *o, uint64_t no);
/**
 * outgoing_mend(o, no, buf, out, e):
 * As outgoing_base(); but what is elsewhere is opened, and believed by its id alone: so that a
 * replica gets nothing that another one made up; and without a key it comes as it lies here.
 */
int outgoing_mend(struct outgoing *o, uint64_t no, uint8_t *buf, struct transfer_chunk *out,
                  struct lc_err *e);
#define TRANSFER_NEEDS_MAX 256u
/**
 * transfer_needs(s, no, restart, text, e):
 * Who needs that chunk: VM, disk and how many points, for people.  restart: it is nowhere any more;
 * lines whose newest point names it are restarted (outgoing_restart()).  Slow: the whole map.
 */
int transfer_needs(struct store *s, uint64_t no, bool restart, char text[TRANSFER_NEEDS_MAX],
                   struct lc_err *e);
/** transfer_owns(s): whether this is the store's owner, who may have what follows made. */
bool transfer_owns(const struct store *s);
/** transfer_goes_on(s, line, e): 0: the next points of its VM go there; LC_ENOENT: not here, or
 * the VM has gone on on another one.  transfer_restarts(s, line, is, e): whether the line's next
 * point stands by itself. */
int transfer_goes_on(struct store *s, const uint8_t line[16], struct lc_err *e);
int transfer_restarts(struct store *s, const uint8_t line[16], bool *is, struct lc_err *e);

/* ---- giving back (thin.h) ---- */

/** transfer_has(s, writer, id, e): 0: that content of a writer is here and durable; LC_ENOENT; or a
 * failure. */
int transfer_has(struct store *s, uint16_t writer, const uint8_t id[CHUNK_ID_SIZE],
                 struct lc_err *e);
/** transfer_read(s, writer, id, buf, out, e): it as it lies here; as outgoing_chunk().  LC_ENOENT.
 */
int transfer_read(struct store *s, uint16_t writer, const uint8_t id[CHUNK_ID_SIZE], uint8_t *buf,
                  struct transfer_chunk *out, struct lc_err *e);

/**
 * transfer_condemn(s, writer, id, e):
 * What was read and is bad counts as damaged from now on, if it still is: as store_condemn().
 * Slow: all chunks.
 */
int transfer_condemn(struct store *s, uint16_t writer, const uint8_t id[CHUNK_ID_SIZE],
                     struct lc_err *e);

/* ---- taking ---- */

struct incoming;

/**
 * incoming_begin(s, writer, p, out, e):
 * Take a point that a writer sends.  p is copied.  Without an entry: contents of one that is still
 * being made; then no incoming_rows() and incoming_commit(), but incoming_abort().
 *
 * Returns  0; LC_EEXIST: it is here already; LC_ECONFLICT: its base is not the newest point of its
 *          line here; LC_ECORRUPT: it is malformed; LC_EVERSION; LC_EBUSY: one of its line is being
 *          taken; LC_EACCES: its VM is another writer's,
 *          or it is the first one of a line, and the writer has TRANSFER_LINES_MAX.
 */
int incoming_begin(struct store *s, uint16_t writer, const struct transfer_point *p,
                   struct incoming **out, struct lc_err *e);
/**
 * incoming_mend(s, writer, out, e):
 * Take contents of a writer that are damaged here, and no others: for incoming_damaged(),
 * incoming_chunk() and incoming_abort().
 */
int incoming_mend(struct store *s, uint16_t writer, struct incoming **out, struct lc_err *e);
/** incoming_damaged(in, id, e): 0: it is; LC_ENOENT. */
int incoming_damaged(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e);
/** incoming_has(in, id): 0: the chunk is here, and the writer's; LC_ENOENT: send it; or a failure.
 */
int incoming_has(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e);
/** incoming_base(in, id, e): the same for one that deltas are made upon: 0: it is here, whole. */
int incoming_base(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e);
/**
 * incoming_shared(in, id, e): 0: another writer of the store has sent such a content, whole;
 * LC_ENOENT. incoming_prove(in, id, sum, e): 0: that one has this sum (transfer_sum()), and is from
 * now on this writer's, too; LC_ENOENT.
 */
int incoming_shared(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e);
int incoming_prove(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE],
                   const uint8_t sum[TRANSFER_SUM_SIZE], struct lc_err *e);
/** incoming_chunk(in, c, e): append it, unless it is here.  LC_ECORRUPT, LC_EVERSION: it is none
 * that this version can keep; LC_ENOENT: a delta, and one of its bases is not here whole. */
int incoming_chunk(struct incoming *in, const struct transfer_chunk *c, struct lc_err *e);
/**
 * incoming_rows(in, payload, e):
 * A MAP payload.  LC_ENOENT: it names a chunk that is not here; LC_ECORRUPT: it is malformed or not
 * of this point.
 */
int incoming_rows(struct incoming *in, struct lc_span payload, struct lc_err *e);
struct incoming_end { /* one point of incoming_commit() */
	struct incoming *in;
	uint64_t rows;      /* how many the giver sent ... */
	struct set_sum sum; /* ... and their keyless sum */
	int rc;             /* out: 0, durable; LC_ECORRUPT: not all rows came; LC_ECONFLICT */
	struct lc_err err;
};
/**
 * incoming_commit(ends, n, e):
 * Make n points durable, with one commit where that is possible.  Each `in` is gone afterwards.
 *
 * Durable: the points whose rc is 0, on return.  Thread: any; blocks.
 */
void incoming_commit(struct incoming_end *ends, size_t n);
/** incoming_abort(in): forget it; its chunks stay and need not be sent again.  NULL is fine. */
void incoming_abort(struct incoming *in);

#endif

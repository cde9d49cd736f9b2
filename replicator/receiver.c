#include <string.h>
#include <sys/queue.h>

/* Not the default: clang takes its switch for a slip. */
#define HASH_FUNCTION HASH_FNV
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "replicator/lender.h"
#include "replicator/message.h"
#include "replicator/receiver.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/memory.h"
#include "store/maprec.h"
#include "store/point.h"
#include "store/store.h"

#define STREAMS_MAX 64u
/* OFFERs of a stream whose PROOF has not come; with ASKED_MAX ids at most */
#define PROVING_MAX 8u
#define READY_MAX 64u
#define UNPROVED_MAX 256u /* proofs that were none, of a session: each costs reading a chunk */
#define POINT_COST 512u   /* bytes that a point takes beside its entry, about */

struct asked { /* a chunk that was asked for and has not come */
	uint8_t id[CHUNK_ID_SIZE];
	UT_hash_handle hh;
};

struct proving { /* an OFFER that awaits its PROOF */
	STAILQ_ENTRY(proving) entry;
	uint32_t n;
	uint8_t want[(OFFER_IDS_MAX + 7) / 8], prove[(OFFER_IDS_MAX + 7) / 8];
	struct lc_buf ids;
};

struct stream {
	TAILQ_ENTRY(stream) entry;
	uint32_t no;
	uint8_t vm[16], point[16];
	int64_t source_ns;
	struct incoming *in;
	struct asked *asked;
	uint32_t nasked;
	STAILQ_HEAD(, proving) proving;
	unsigned nproving;
	uint32_t proving_ids; /* of all of these */
	bool made;            /* its point is still being made: contents come, and nothing else */
	bool mends;           /* likewise, of no point: contents that are damaged here */
	bool ready;           /* COMMIT came */
	uint64_t rows;
	struct set_sum sum;
};

struct receiver {
	struct store *s;
	struct receiver_events ev;
	TAILQ_HEAD(, stream) streams;
	unsigned nstreams, nready;
	uint32_t last_stream;
	uint32_t nasked;      /* of all streams */
	uint64_t taken, told; /* bytes of chunks */
	uint64_t room;        /* bytes that may still be taken */
	bool full;
	unsigned unproved;
};

int
receiver_new(struct store *s, const struct receiver_events *events, struct receiver **out,
             struct lc_err *e)
{
	struct receiver *r = lc_alloc(sizeof *r);

	if (r == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	r->s = s;
	r->ev = *events;
	r->room = UINT64_MAX;
	TAILQ_INIT(&r->streams);
	*out = r;
	return 0;
}

static int
no_memory(struct lc_err *e)
{
	return lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* Sends a body that was encoded with rc, and frees it. */
static int
emit(struct receiver *r, uint16_t type, struct lc_buf *body, int rc, struct lc_err *e)
{
	struct lc_span span = {body->p, body->n};

	rc = rc != 0 ? no_memory(e) : r->ev.emit(r->ev.arg, type, &span, 1, e);
	lc_buf_free(body);
	return rc;
}

/* ---- streams ---- */

static void
forget_asked(struct receiver *r, struct stream *st, struct asked *a)
{
	HASH_DEL(st->asked, a);
	lc_free(a);
	st->nasked--;
	r->nasked--;
}

static void
forget_proving(struct stream *st)
{
	struct proving *p = STAILQ_FIRST(&st->proving);

	STAILQ_REMOVE_HEAD(&st->proving, entry);
	st->nproving--;
	st->proving_ids -= p->n;
	lc_buf_free(&p->ids);
	lc_free(p);
}

static void
end_stream(struct receiver *r, struct stream *st)
{
	struct asked *a, *next;

	HASH_ITER (hh, st->asked, a, next) {
		forget_asked(r, st, a);
	}
	while (!STAILQ_EMPTY(&st->proving))
		forget_proving(st);
	incoming_abort(st->in);
	TAILQ_REMOVE(&r->streams, st, entry);
	r->nstreams--;
	if (st->ready)
		r->nready--;
	lc_free(st);
}

static int
refuse(struct receiver *r, uint32_t stream, const uint8_t vm[16], const struct lc_err *why,
       struct lc_err *e)
{
	struct lc_buf body = {0};

	if (r->ev.refused != NULL)
		r->ev.refused(r->ev.arg, vm, why);
	return emit(r, MESSAGE_REFUSED, &body, message_put_refused(&body, stream, why), e);
}

/* The stream ends here; what the source has sent on it meanwhile is passed over. */
static int
refuse_stream(struct receiver *r, struct stream *st, const struct lc_err *why, struct lc_err *e)
{
	int rc = refuse(r, st->no, st->vm, why, e);

	end_stream(r, st);
	return rc;
}

/* NULL with 0: a stream that ended. */
static int
find_stream(struct receiver *r, uint32_t no, struct stream **out, struct lc_err *e)
{
	struct stream *st;

	*out = NULL;
	TAILQ_FOREACH (st, &r->streams, entry) {
		if (st->no == no)
			*out = st;
	}
	if (*out != NULL && (*out)->ready)
		return lc_fail(e, LC_EPEER, 0, "a message on stream %u after its COMMIT", no);
	return *out != NULL || (no > 0 && no <= r->last_stream)
	           ? 0
	           : lc_fail(e, LC_EPEER, 0, "a message on stream %u, which was not begun", no);
}

/* ---- messages ---- */

/* Whether n bytes may be taken. */
static int
take_room(struct receiver *r, uint64_t n, struct lc_err *why)
{
	if (r->room == UINT64_MAX)
		return 0;
	if (n > r->room) {
		r->full = true;
		return lc_fail(why, LC_ENOSPC, 0,
		               "what this host may keep at the replica is used up");
	}
	r->room -= n;
	return 0;
}

/* 0: not known. */
static int64_t
instant_of(struct lc_span entry)
{
	struct point *p = lc_alloc(sizeof *p);
	struct lc_span sealed;
	int64_t at = 0;

	if (p != NULL && entry.n > 0 && point_decode(entry, p, &sealed, NULL) == 0)
		at = p->source_ns;
	lc_free(p);
	return at;
}

static int
on_begin(struct receiver *r, struct lc_span body, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct transfer_point p;
	struct stream *st;
	uint32_t no;
	bool mends;
	int rc = message_get_begin(body, &no, &p, e);

	if (rc != 0)
		return rc;
	if (no != r->last_stream + 1)
		return lc_fail(e, LC_EPEER, 0, "stream %u begun after stream %u", no,
		               r->last_stream);
	r->last_stream = no;
	mends = p.entry.n == 0 && lc_is_zero(p.id, 16) && lc_is_zero(p.line, 16);
	if (r->nstreams >= STREAMS_MAX)
		(void)lc_fail(&why, LC_EBUSY, 0, "more than %u points at once", STREAMS_MAX);
	else if (!mends)
		(void)take_room(r, p.entry.n + POINT_COST, &why);
	if (why.code != LC_OK)
		return refuse(r, no, p.vm, &why, e);
	st = lc_alloc(sizeof *st);
	if (st == NULL)
		return no_memory(e);
	st->no = no;
	st->made = p.entry.n == 0;
	st->mends = mends;
	STAILQ_INIT(&st->proving);
	memcpy(st->vm, p.vm, 16);
	memcpy(st->point, p.id, 16);
	rc = mends ? incoming_mend(r->s, r->ev.writer, &st->in, &why)
	           : incoming_begin(r->s, r->ev.writer, &p, &st->in, &why);
	if (rc != 0) {
		lc_free(st);
		return refuse(r, no, p.vm, &why, e);
	}
	st->source_ns = instant_of(p.entry);
	TAILQ_INSERT_TAIL(&r->streams, st, entry);
	r->nstreams++;
	return 0;
}

/* 0: there is no need for it; LC_ENOENT. */
static int
find_id(const struct stream *st, const uint8_t *id, bool base, struct lc_err *why)
{
	int rc;

	if (!st->mends)
		return base ? incoming_base(st->in, id, why) : incoming_has(st->in, id, why);
	rc = incoming_damaged(st->in, id, why);
	return rc == 0 ? LC_ENOENT : rc == LC_ENOENT ? 0 : rc;
}

/* Whether to ask for an id: it is not here (a base: not whole), and not on its way on this
 * stream. */
static int
look_at_id(struct receiver *r, struct stream *st, const uint8_t *id, bool base, bool *want,
           struct lc_err *why)
{
	struct asked *a;
	int rc;

	*want = false;
	HASH_FIND(hh, st->asked, id, CHUNK_ID_SIZE, a);
	if (a != NULL)
		return 0;
	rc = find_id(st, id, base, why);
	if (rc != LC_ENOENT)
		return rc;
	a = lc_alloc(sizeof *a);
	if (a == NULL)
		return no_memory(why);
	memcpy(a->id, id, CHUNK_ID_SIZE);
	HASH_ADD(hh, st->asked, id, CHUNK_ID_SIZE, a);
	if (a->hh.tbl == NULL) {
		lc_free(a);
		return no_memory(why);
	}
	st->nasked++;
	r->nasked++;
	*want = true;
	return 0;
}

static bool
bit(const uint8_t *bits, uint32_t i)
{
	return (bits[i / 8] >> (i % 8) & 1) != 0;
}

static void
set_bit(uint8_t *bits, uint32_t i, bool on)
{
	bits[i / 8] = (uint8_t)((bits[i / 8] & ~(1u << (i % 8))) | (unsigned)on << (i % 8));
}

/* Which of what is wanted another host has sent.  Nothing of that is believed, but this one may
 * show that it is the same.  *out: then the OFFER waits for that; else NULL. */
static int
look_for_shared(struct receiver *r, struct stream *st, const struct offer *m, const uint8_t *want,
                struct proving **out, struct lc_err *why)
{
	struct proving *p;
	bool any = false;
	uint32_t i;
	int rc = 0;

	*out = NULL;
	if (r->unproved >= UNPROVED_MAX || (p = lc_alloc(sizeof *p)) == NULL)
		return 0;
	for (i = 0; rc == 0 && i < m->n; i++) {
		if (!bit(want, i))
			continue;
		rc = incoming_shared(st->in, m->ids + (size_t)i * CHUNK_ID_SIZE, why);
		set_bit(p->prove, i, rc == 0);
		any = any || rc == 0;
		rc = rc == LC_ENOENT ? 0 : rc;
	}
	if (rc == 0 && any && lc_buf_append(&p->ids, m->ids, (size_t)m->n * CHUNK_ID_SIZE) != 0)
		rc = no_memory(why);
	if (rc != 0 || !any) {
		lc_free(p);
		return rc;
	}
	p->n = m->n;
	memcpy(p->want, want, sizeof p->want);
	STAILQ_INSERT_TAIL(&st->proving, p, entry);
	st->nproving++;
	st->proving_ids += p->n;
	*out = p;
	return 0;
}

static int
say_want(struct receiver *r, uint16_t type, uint32_t stream, uint32_t n, const uint8_t *bits,
         struct lc_err *e)
{
	struct lc_buf out = {0};

	return emit(r, type, &out, message_put_want(&out, &(struct want){stream, n, bits}), e);
}

static int
on_offer(struct receiver *r, struct lc_span body, struct lc_err *e)
{
	uint8_t bits[(OFFER_IDS_MAX + 7) / 8] = {0};
	struct lc_err why = LC_ERR_INIT;
	struct stream *st = NULL;
	struct offer m;
	uint32_t i;
	struct proving *p = NULL;
	bool want;
	int rc = message_get_offer(body, &m, e);

	rc = rc != 0 ? rc : find_stream(r, m.stream, &st, e);
	if (rc != 0 || st == NULL)
		return rc;
	if (st->nasked + m.n > ASKED_MAX || r->nasked + m.n > ASKED_ALL_MAX)
		return lc_fail(e, LC_EPEER, 0, "offers of chunks that never come");
	if (st->nproving == PROVING_MAX || st->proving_ids + m.n > ASKED_MAX)
		return lc_fail(e, LC_EPEER, 0, "offers whose proofs never come");
	for (i = 0; rc == 0 && i < m.n; i++) {
		rc = look_at_id(r, st, m.ids + (size_t)i * CHUNK_ID_SIZE, i < m.bases, &want, &why);
		set_bit(bits, i, want);
	}
	if (rc == 0 && !st->mends) /* what is mended has to be this host's own */
		rc = look_for_shared(r, st, &m, bits, &p, &why);
	if (rc != 0)
		return refuse_stream(r, st, &why, e);
	return say_want(r, p != NULL ? MESSAGE_PROVE : MESSAGE_WANT, m.stream, m.n,
	                p != NULL ? p->prove : bits, e);
}

/* One that was to be shown. */
static int
take_proof(struct receiver *r, struct stream *st, struct proving *p, uint32_t i, const uint8_t *sum,
           struct lc_err *why)
{
	const uint8_t *id = p->ids.p + (size_t)i * CHUNK_ID_SIZE;
	struct asked *a;
	int rc;

	if (lc_is_zero(sum, TRANSFER_SUM_SIZE) || r->unproved >= UNPROVED_MAX)
		return 0;
	rc = incoming_prove(st->in, id, sum, why);
	if (rc == LC_ENOENT) {
		r->unproved++;
		return 0;
	}
	HASH_FIND(hh, st->asked, id, CHUNK_ID_SIZE, a);
	if (rc == 0 && a != NULL) {
		forget_asked(r, st, a);
		set_bit(p->want, i, false);
	}
	return rc;
}

static int
on_proof(struct receiver *r, struct lc_span body, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct stream *st = NULL;
	struct proving *p;
	struct proof m;
	uint32_t i, n = 0;
	int rc = message_get_proof(body, &m, e);

	rc = rc != 0 ? rc : find_stream(r, m.stream, &st, e);
	if (rc != 0 || st == NULL)
		return rc;
	p = STAILQ_FIRST(&st->proving);
	for (i = 0; p != NULL && i < p->n; i++)
		n += bit(p->prove, i);
	if (p == NULL || n != m.n)
		return lc_fail(e, LC_EPEER, 0, "PROOF that answers no PROVE");
	for (i = n = 0; rc == 0 && i < p->n; i++) {
		if (bit(p->prove, i))
			rc = take_proof(r, st, p, i, m.sums + (size_t)n++ * TRANSFER_SUM_SIZE,
			                &why);
	}
	if (rc != 0)
		return refuse_stream(r, st, &why, e);
	rc = say_want(r, MESSAGE_WANT, m.stream, p->n, p->want, e);
	forget_proving(st);
	return rc;
}

static int
on_chunk(struct receiver *r, struct lc_span body, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct stream *st = NULL;
	struct asked *a = NULL;
	struct sent_chunk m;
	const uint8_t *id;
	int rc = message_get_chunk(body, &m, e);

	if (rc != 0)
		return rc;
	r->taken += m.chunk.payload.n;
	rc = find_stream(r, m.stream, &st, e);
	if (rc != 0 || st == NULL)
		return rc;
	id = chunk_payload_id(m.chunk.payload);
	if (id != NULL)
		HASH_FIND(hh, st->asked, id, CHUNK_ID_SIZE, a);
	if (a == NULL)
		return lc_fail(e, LC_EPEER, 0, "a chunk that was not asked for");
	forget_asked(r, st, a);
	/* What is mended takes no more room than what it mends had, of a host that can't help it;
	 * but a delta may not mend all that was damaged, and come again. */
	rc = st->mends && !chunk_is_delta(m.chunk.encoding) ? 0
	                                                    : take_room(r, m.chunk.payload.n, &why);
	rc = rc != 0 ? rc : incoming_chunk(st->in, &m.chunk, &why);
	return rc == 0 ? 0 : refuse_stream(r, st, &why, e);
}

static int
on_rows(struct receiver *r, struct lc_span body, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct stream *st = NULL;
	struct sent_rows m;
	int rc = message_get_rows(body, &m, e);

	rc = rc != 0 ? rc : find_stream(r, m.stream, &st, e);
	if (rc != 0 || st == NULL)
		return rc;
	if (st->made)
		return lc_fail(e, LC_EPEER, 0, "ROWS of a point that is still being made");
	rc = take_room(r, m.payload.n + maprec_zeros(m.payload) * TRANSFER_ZERO_COST, &why);
	rc = rc != 0 ? rc : incoming_rows(st->in, m.payload, &why);
	return rc == 0 ? 0 : refuse_stream(r, st, &why, e);
}

static int
on_commit(struct receiver *r, struct lc_span body, struct lc_err *e)
{
	struct stream *st = NULL;
	struct commit m;
	int rc = message_get_commit(body, &m, e);

	rc = rc != 0 ? rc : find_stream(r, m.stream, &st, e);
	if (rc != 0 || st == NULL)
		return rc;
	if (st->made)
		return lc_fail(e, LC_EPEER, 0, "COMMIT of a point that is still being made");
	if (!STAILQ_EMPTY(&st->proving))
		return lc_fail(e, LC_EPEER, 0, "COMMIT before PROOF");
	st->ready = true;
	st->rows = m.rows;
	st->sum = m.sum;
	return ++r->nready < READY_MAX ? 0 : receiver_settle(r, e);
}

/* The source can't go on with a point, or has sent ahead what there is of it; what of it is here
 * stays for the next try. */
static int
on_given_up(struct receiver *r, struct lc_span body, struct lc_err *e)
{
	struct stream *st = NULL;
	struct refused m;
	int rc = message_get_refused(body, &m, e);

	rc = rc != 0 ? rc : find_stream(r, m.stream, &st, e);
	if (rc == 0 && st != NULL)
		end_stream(r, st);
	return rc;
}

static int
on_inspect(struct receiver *r, struct lc_span body, struct lc_err *e)
{
	struct transfer_damage d = {.contents = 0};
	struct lc_buf out = {0};
	const uint8_t *above = NULL;
	int rc = message_get_inspect(body, &above, e);

	rc = rc != 0 ? rc : transfer_damage(r->s, r->ev.writer, above, DAMAGED_IDS_MAX, &d, e);
	if (rc == 0) {
		struct damaged m = {.contents = d.contents,
		                    .n = (uint32_t)(d.ids.n / CHUNK_ID_SIZE),
		                    .nlines = (uint32_t)(d.lines.n / 16),
		                    .ids = d.ids.p,
		                    .lines = d.lines.p};

		if (r->ev.damaged != NULL && lc_is_zero(above, CHUNK_ID_SIZE))
			r->ev.damaged(r->ev.arg, d.contents, m.nlines);
		rc = emit(r, MESSAGE_DAMAGED, &out, message_put_damaged(&out, &m), e);
	}
	transfer_damage_free(&d);
	return rc;
}

int
receiver_message(struct receiver *r, uint16_t type, struct lc_span body, struct lc_err *e)
{
	switch (type) {
	case MESSAGE_HEADS:
		return lender_heads(r->s, r->ev.writer, body, r->ev.emit, r->ev.arg, e);
	case MESSAGE_BEGIN:
		return on_begin(r, body, e);
	case MESSAGE_OFFER:
		return on_offer(r, body, e);
	case MESSAGE_PROOF:
		return on_proof(r, body, e);
	case MESSAGE_CHUNK:
		return on_chunk(r, body, e);
	case MESSAGE_ROWS:
		return on_rows(r, body, e);
	case MESSAGE_COMMIT:
		return on_commit(r, body, e);
	case MESSAGE_INSPECT:
		return on_inspect(r, body, e);
	case MESSAGE_REFUSED:
		return on_given_up(r, body, e);
	default:
		return lc_fail(e, LC_EPEER, 0, "%s, which a replica does not get",
		               message_name(type));
	}
}

/* ---- commit ---- */

static int
tell_outcome(struct receiver *r, struct stream *st, const struct incoming_end *end,
             struct lc_err *e)
{
	struct committed m = {.stream = st->no, .wall_ns = clock_wall_ns()};
	struct lc_buf body = {0};

	st->in = NULL; /* gone with the commit */
	if (end->rc != 0)
		return refuse(r, st->no, st->vm, &end->err, e);
	if (r->ev.committed != NULL)
		r->ev.committed(r->ev.arg, st->vm, st->point, st->source_ns);
	return emit(r, MESSAGE_COMMITTED, &body, message_put_committed(&body, &m), e);
}

static int
commit_ready(struct receiver *r, struct lc_err *e)
{
	struct incoming_end *ends = lc_alloc_array(r->nready, sizeof *ends);
	struct stream *st, *next;
	size_t i = 0;
	int rc = 0;

	if (ends == NULL)
		return no_memory(e);
	TAILQ_FOREACH (st, &r->streams, entry) {
		if (st->ready)
			ends[i++] = (struct incoming_end){
			    .in = st->in, .rows = st->rows, .sum = st->sum};
	}
	incoming_commit(ends, i);
	/* After that: what went into files that no name leads to any more is not to be called safe.
	 */
	rc = store_check_there(r->s, e);
	i = 0;
	for (st = TAILQ_FIRST(&r->streams); st != NULL; st = next) {
		next = TAILQ_NEXT(st, entry);
		if (!st->ready)
			continue;
		rc = rc != 0 ? rc : tell_outcome(r, st, &ends[i], e);
		st->in = NULL;
		end_stream(r, st);
		i++;
	}
	lc_free(ends);
	return rc;
}

int
receiver_settle(struct receiver *r, struct lc_err *e)
{
	struct lc_buf body = {0};
	int rc = r->nready > 0 ? commit_ready(r, e) : 0;

	if (rc != 0 || r->taken == r->told)
		return rc;
	r->told = r->taken;
	return emit(r, MESSAGE_TAKEN, &body, message_put_number(&body, r->taken), e);
}

void
receiver_room(struct receiver *r, uint64_t bytes)
{
	r->room = bytes;
	r->full = false;
}

bool
receiver_full(const struct receiver *r)
{
	return r->full;
}

void
receiver_free(struct receiver *r)
{
	struct stream *st;

	if (r == NULL)
		return;
	while ((st = TAILQ_FIRST(&r->streams)) != NULL)
		end_stream(r, st);
	lc_free(r);
}

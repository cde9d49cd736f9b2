/*
 * A line:  (idle) ──► SENDING: rows are read and offered, chunks sent as they are wanted
 *             ▲            │ all rows went
 *             │            ▼
 *             └──────── COMMITTING ◄── the next point follows until there is none: (idle)
 *
 *          (idle) ──► AHEAD: contents of a large point that is being made go, and no rows
 *             ▲          │ it is made, or was given up; or this line is to be looked at
 *             └──────────┘
 */
#include <string.h>

#include "replicator/sender_internal.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/segment.h"

#define RESTARTS_MAX 3u
#define HEADS_GOOD_NS (2 * LC_NS_PER_S) /* what it said so long ago may be over */

void
sender_rate(struct sender *x, uint64_t bytes_ps)
{
	flight_rate(&x->flight, bytes_ps);
}

int
sender_new(struct store *s, uint64_t byte_window, const struct sender_events *events,
           struct sender **out, struct lc_err *e)
{
	struct sender *x = lc_alloc(sizeof *x);

	if (x != NULL) {
		x->s = s;
		x->ev = *events;
		flight_init(&x->flight, byte_window);
		TAILQ_INIT(&x->lines);
		x->rows = lc_alloc(sizeof *x->rows);
		x->buf = lc_alloc(RECORD_PAYLOAD_MAX);
	}
	if (x == NULL || x->rows == NULL || x->buf == NULL) {
		sender_free(x);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	*out = x;
	return 0;
}

int
sender_only(struct sender *x, const uint8_t vm[16], struct lc_err *e)
{
	x->look = x->heads_known;
	return lc_buf_append(&x->only, vm, 16) == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

int
sender_emit(struct sender *x, uint16_t type, const struct lc_buf *body, struct lc_span tail,
            struct lc_err *e)
{
	struct lc_span spans[2] = {{body->p, body->n}, tail};

	return x->ev.emit(x->ev.arg, type, spans, tail.n > 0 ? 2 : 1, e);
}

static int
no_memory(struct lc_err *e)
{
	return lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

int
sender_start(struct sender *x, struct lc_err *e)
{
	struct lc_buf empty = {0};

	x->started = true;
	return sender_emit(x, MESSAGE_HEADS, &empty, (struct lc_span){0}, e);
}

/* ---- lines ---- */

struct line *
sender_find_line(struct sender *x, const uint8_t id[16])
{
	struct line *l;

	TAILQ_FOREACH (l, &x->lines, entry) {
		if (memcmp(l->id, id, 16) == 0)
			return l;
	}
	return NULL;
}

struct line *
sender_add_line(struct sender *x, const uint8_t id[16])
{
	struct line *l = sender_find_line(x, id);

	if (l != NULL)
		return l;
	l = lc_alloc(sizeof *l);
	if (l == NULL)
		return NULL;
	memcpy(l->id, id, 16);
	TAILQ_INIT(&l->batches);
	TAILQ_INSERT_TAIL(&x->lines, l, entry);
	return l;
}

static void
forget_batch(struct sender *x, struct line *l, struct batch *b)
{
	TAILQ_REMOVE(&l->batches, b, entry);
	l->nbatches--;
	x->open -= b->open;
	batch_free(b);
}

void
sender_leave(struct sender *x, struct line *l, enum line_state state)
{
	struct batch *b;

	if (l->state == LINE_SENDING || l->state == LINE_COMMITTING)
		x->active--;
	while ((b = TAILQ_FIRST(&l->batches)) != NULL)
		forget_batch(x, l, b);
	outgoing_free(l->out);
	l->out = NULL;
	l->state = state;
	l->looked = false;
}

void
sender_fail(struct sender *x, struct line *l, const struct lc_err *why)
{
	sender_leave(x, l, LINE_FAILED);
	x->stats.failed++;
	if (x->ev.failed != NULL)
		x->ev.failed(x->ev.arg, l->vm, why);
}

bool
sender_wanted(const struct sender *x, const uint8_t vm[16])
{
	size_t i;

	for (i = 0; i < x->only.n; i += 16) {
		if (memcmp(x->only.p + i, vm, 16) == 0)
			return true;
	}
	return x->only.n == 0;
}

static int
see_line(void *arg, const struct transfer_line *t, struct lc_err *e)
{
	struct sender *x = arg;
	struct line *l;

	if (t->head.n == 0 || !sender_wanted(x, t->vm))
		return 0;
	l = sender_add_line(x, t->line);
	if (l == NULL)
		return no_memory(e);
	memcpy(l->vm, t->vm, 16);
	if (l->gone)
		l->looked = l->gone = false;
	return 0;
}

static void
wake_line(struct sender *x, struct line *l)
{
	l->looked = l->gone;
	if (l->state != LINE_FAILED)
		return;
	l->state = LINE_IDLE;
	l->restarts = 0;
	x->stats.failed--;
}

void
sender_wake(struct sender *x, const uint8_t *line)
{
	struct line *l = line == NULL ? NULL : sender_find_line(x, line);

	if (l != NULL && !l->gone) {
		wake_line(x, l);
		return;
	}
	x->look = true;
	if (line != NULL) /* a new one: the look finds it */
		return;
	TAILQ_FOREACH (l, &x->lines, entry) {
		wake_line(x, l);
	}
}

/* ---- what the other side owes ---- */

static bool
is_owed(const struct line *l)
{
	const struct batch *b;

	TAILQ_FOREACH (b, &l->batches, entry) {
		if (!b->answered)
			return true;
	}
	return l->state == LINE_COMMITTING;
}

/* A question, with none before it; or an answer, with others to come. */
static void
await(const struct sender *x, struct line *l)
{
	l->owed_at = x->flight.sent;
	l->owed_ns = 0;
}

static void
note_answer(struct sender *x, struct line *l)
{
	x->stats.answers++;
	await(x, l);
}

static void
look_at_debts(struct sender *x)
{
	int64_t now = clock_mono_ns();
	struct line *l;

	x->stats.owed_ns = 0;
	TAILQ_FOREACH (l, &x->lines, entry) {
		if (!is_owed(l) || x->flight.taken < l->owed_at)
			continue;
		if (l->owed_ns == 0)
			l->owed_ns = now;
		if (x->stats.owed_ns == 0 || l->owed_ns < x->stats.owed_ns)
			x->stats.owed_ns = l->owed_ns;
	}
}

/* ---- a point ---- */

static int
begin_point(struct sender *x, struct line *l, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct lc_buf body = {0};
	int rc;

	rc = l->anew ? anew_next(x, l, &err)
	             : outgoing_next(x->s, l->id, (struct lc_span){l->head.p, l->head.n}, &l->out,
	                             &err);
	l->looked = rc == LC_ENOENT;
	x->put_off = x->put_off || rc == LC_EBUSY;
	if (rc == LC_ENOENT || rc == LC_EBUSY)
		return 0;
	if (rc != 0) {
		sender_fail(x, l, &err);
		return 0;
	}
	l->state = LINE_SENDING;
	l->stream = ++x->last_stream;
	l->rows_over = false;
	l->commit = (struct commit){.stream = l->stream};
	x->active++;
	if (message_put_begin(&body, l->stream, outgoing_point(l->out)) != 0)
		rc = no_memory(e);
	rc = rc != 0 ? rc : sender_emit(x, MESSAGE_BEGIN, &body, (struct lc_span){0}, e);
	lc_buf_free(&body);
	return rc;
}

/* Read some rows and offer what they name.  *bad: a failure of this store, for this line alone. */
static int
offer(struct sender *x, struct line *l, struct lc_err *bad, struct lc_err *e)
{
	struct lc_buf body = {0};
	struct batch *b;
	int rc;

	if (outgoing_rows(l->out, x->rows, BATCH_ROWS, bad) != 0)
		return 0;
	if (x->rows->n == 0) {
		l->rows_over = true;
		return 0;
	}
	b = batch_new();
	if (b == NULL)
		return no_memory(e);
	b->asked = ++x->asked;
	if (!is_owed(l))
		await(x, l);
	TAILQ_INSERT_TAIL(&l->batches, b, entry);
	l->nbatches++;
	rc = batch_fill(b, l->out, x->rows, &l->commit.sum, bad, e);
	if (rc == 0 && bad->code == LC_OK)
		l->commit.rows += x->rows->n;
	if (rc == 0 && bad->code == LC_OK && b->n > 0) {
		struct offer m = {.stream = l->stream,
		                  .n = (uint16_t)b->n,
		                  .bases = (uint16_t)b->nbases,
		                  .ids = b->ids.p};

		b->open = b->n;
		x->open += b->open;
		rc = message_put_offer(&body, &m) != 0
		         ? no_memory(e)
		         : sender_emit(x, MESSAGE_OFFER, &body, (struct lc_span){0}, e);
	}
	lc_buf_free(&body);
	return rc;
}

int
sender_chunk(struct sender *x, uint32_t stream, const struct transfer_chunk *c, struct lc_err *e)
{
	struct lc_buf body = {0};
	int rc = message_put_chunk_head(&body, stream, c) != 0
	             ? no_memory(e)
	             : sender_emit(x, MESSAGE_CHUNK, &body, c->payload, e);

	lc_buf_free(&body);
	flight_sent(&x->flight, c->payload.n);
	x->stats.chunks++;
	x->stats.chunk_bytes += c->payload.n;
	return rc;
}

static int
send_chunk(struct sender *x, struct line *l, uint64_t no, bool base, struct lc_err *bad,
           struct lc_err *e)
{
	struct transfer_chunk c;
	int rc;

	rc = base ? outgoing_base(l->out, no, x->buf, &c, bad)
	          : outgoing_chunk(l->out, no, x->buf, &c, bad);
	if (rc != 0)
		return 0;
	return sender_chunk(x, l->stream, &c, e);
}

/* What was wanted of the oldest batch, as far as the window lets; then its rows, if they are to
 * go. */
static int
send_batch(struct sender *x, struct line *l, struct batch *b, struct lc_err *bad, struct lc_err *e)
{
	struct lc_buf body = {0};
	int rc = 0;

	for (; rc == 0 && bad->code == LC_OK && b->next < b->n; b->next++) {
		if (!batch_wants(b, b->next))
			continue;
		if (flight_full(&x->flight))
			return 0;
		batch_expect(b, l->out);
		rc = send_chunk(x, l, b->chunks[b->next], b->next < b->nbases, bad, e);
		b->open--;
		x->open--;
	}
	if (rc != 0 || bad->code != LC_OK)
		return rc;
	if (l->state == LINE_SENDING) {
		struct lc_span rows = {b->payload.p, b->payload.n};

		rc = message_put_rows_head(&body, l->stream) != 0
		         ? no_memory(e)
		         : sender_emit(x, MESSAGE_ROWS, &body, rows, e);
	}
	lc_buf_free(&body);
	forget_batch(x, l, b);
	return rc;
}

static int
send_commit(struct sender *x, struct line *l, struct lc_err *e)
{
	struct lc_buf body = {0};
	int rc = message_put_commit(&body, &l->commit) != 0
	             ? no_memory(e)
	             : sender_emit(x, MESSAGE_COMMIT, &body, (struct lc_span){0}, e);

	lc_buf_free(&body);
	await(x, l);
	l->state = LINE_COMMITTING;
	return rc;
}

/* A failure of this store.  The other side hears that the stream is over, not what lies where
 * here. */
static int
give_up(struct sender *x, struct line *l, const struct lc_err *bad, struct lc_err *e)
{
	struct lc_err told = {.code = bad->code, .msg = "the host can't go on with it"};
	struct lc_buf body = {0};
	int rc = message_put_refused(&body, l->stream, &told) != 0
	             ? no_memory(e)
	             : sender_emit(x, MESSAGE_REFUSED, &body, (struct lc_span){0}, e);

	lc_buf_free(&body);
	if (bad->code == LC_ENOENT)
		anew_begin(x, l, bad);
	else
		sender_fail(x, l, bad);
	return rc;
}

static bool
may_offer(const struct sender *x, const struct line *l)
{
	return !l->rows_over && l->nbatches < BATCHES_MAX &&
	       batch_fits(x->open, l->state == LINE_AHEAD ? BATCH_AHEAD
	                           : l->nbatches > 0      ? BATCH_MORE
	                                                  : BATCH_FIRST);
}

int
sender_batches(struct sender *x, struct line *l, struct lc_err *bad, struct lc_err *e)
{
	struct batch *b;
	int rc = 0;

	while (rc == 0 && bad->code == LC_OK) {
		unsigned before;

		while (rc == 0 && bad->code == LC_OK && may_offer(x, l))
			rc = offer(x, l, bad, e);
		before = l->nbatches;
		b = TAILQ_FIRST(&l->batches);
		if (rc == 0 && bad->code == LC_OK && b != NULL && b->answered)
			rc = send_batch(x, l, b, bad, e);
		if (l->nbatches == before)
			break;
	}
	return rc;
}

/* ---- a line ---- */

static int
pump_line(struct sender *x, struct line *l, struct lc_err *e)
{
	struct lc_err bad = LC_ERR_INIT;
	int rc = ahead_end_if_over(x, l, e);

	do {
		lc_err_clear(&bad);
		if (rc == 0 && l->state == LINE_IDLE && !l->looked && x->active < BATCHES_LINES)
			rc = begin_point(x, l, e);
		if (rc != 0 || l->state != LINE_SENDING)
			return rc;
		rc = sender_batches(x, l, &bad, e);
		if (rc == 0 && bad.code == LC_OK && l->rows_over && l->nbatches == 0)
			rc = send_commit(x, l, e);
		if (rc == 0 && bad.code != LC_OK)
			rc = give_up(x, l, &bad, e);
		/* Another point of it may go instead, and nobody would come for that. */
	} while (rc == 0 && bad.code != LC_OK && l->state == LINE_IDLE);
	return rc;
}

int
sender_pump(struct sender *x, struct lc_err *e)
{
	struct line_list todo = TAILQ_HEAD_INITIALIZER(todo);
	struct line *l;
	int rc = 0;

	if (!x->heads_known)
		return 0;
	if (x->look)
		rc = transfer_lines(x->s, see_line, x, e);
	x->look = x->put_off = false;
	rc = rc != 0 ? rc : ahead_look(x, e);
	TAILQ_CONCAT(&todo, &x->lines, entry);
	while ((l = TAILQ_FIRST(&todo)) != NULL) {
		TAILQ_REMOVE(&todo, l, entry);
		TAILQ_INSERT_TAIL(&x->lines, l, entry);
		if (rc == 0)
			rc = pump_line(x, l, e);
	}
	rc = rc != 0 ? rc : ahead_pump(x, e);
	rc = rc != 0 ? rc : mend_pump(x, e);
	/* The next round begins with another one, so that none has the window to itself. */
	l = TAILQ_FIRST(&x->lines);
	if (l != NULL) {
		TAILQ_REMOVE(&x->lines, l, entry);
		TAILQ_INSERT_TAIL(&x->lines, l, entry);
	}
	look_at_debts(x);
	return rc;
}

/* ---- answers ---- */

static int
on_head(struct sender *x, struct lc_span body, struct lc_err *e)
{
	struct head m;
	struct line *l;
	int rc = message_get_head(body, &m, e);

	if (rc != 0)
		return rc;
	if (x->heads_known || !x->started)
		return lc_fail(e, LC_EPEER, 0, "HEAD, which nobody asked for");
	rc = heads_count(&x->heads, &m, e);
	if (rc != 0)
		return rc;
	l = sender_add_line(x, m.line);
	if (l == NULL)
		return no_memory(e);
	x->stats.answers++;
	memcpy(l->vm, m.vm, 16);
	l->looked = l->gone = true; /* until it is seen here */
	l->head.n = 0;
	if (x->ev.head != NULL)
		x->ev.head(x->ev.arg, m.line, m.vm, m.entry);
	return lc_buf_append(&l->head, m.entry.p, m.entry.n) == 0 ? 0 : no_memory(e);
}

/* The line of a stream that is under way; NULL for one that is over, whose answers were late. */
static int
find_stream(struct sender *x, uint32_t stream, struct line **out, struct lc_err *e)
{
	struct line *l;

	*out = NULL;
	TAILQ_FOREACH (l, &x->lines, entry) {
		if (l->state != LINE_IDLE && l->state != LINE_FAILED && l->stream == stream)
			*out = l;
	}
	return *out != NULL || (stream > 0 && stream <= x->last_stream)
	           ? 0
	           : lc_fail(e, LC_EPEER, 0, "an answer on a stream that was never begun");
}

/* What a WANT or PROVE is the answer to: the oldest question.  NULL: the stream is over. */
static int
find_batch(struct sender *x, const struct want *m, struct line **l, struct batch **out,
           struct lc_err *e)
{
	struct batch *b;
	int rc = find_stream(x, m->stream, l, e);

	*out = NULL;
	if (rc != 0 || *l == NULL)
		return rc;
	TAILQ_FOREACH (b, &(*l)->batches, entry) {
		if (!b->answered && (*out == NULL || b->asked < (*out)->asked))
			*out = b;
	}
	if (*out == NULL || (*out)->n != m->n)
		return lc_fail(e, LC_EPEER, 0, "WANT that answers no OFFER");
	return 0;
}

/* Another host may have sent these; where it was the same, they need not be sent again. */
static int
on_prove(struct sender *x, struct lc_span body, struct lc_err *e)
{
	struct lc_buf sums = {0}, out = {0};
	struct line *l = NULL;
	struct batch *b = NULL;
	struct proof p;
	struct want m;
	int rc = message_get_want(body, &m, e);

	rc = rc != 0 ? rc : find_batch(x, &m, &l, &b, e);
	if (rc != 0 || b == NULL)
		return rc;
	if (b->proved)
		return lc_fail(e, LC_EPEER, 0, "PROVE for the second time");
	note_answer(x, l);
	b->proved = true;
	b->asked = ++x->asked;
	rc = outgoing_sums(l->out, b->chunks, b->n, m.bits, x->buf, &sums, e);
	p = (struct proof){m.stream, (uint32_t)(sums.n / TRANSFER_SUM_SIZE), sums.p};
	if (rc == 0 && message_put_proof(&out, &p) != 0)
		rc = no_memory(e);
	rc = rc != 0 ? rc : sender_emit(x, MESSAGE_PROOF, &out, (struct lc_span){0}, e);
	lc_buf_free(&sums);
	lc_buf_free(&out);
	return rc;
}

static int
on_want(struct sender *x, struct lc_span body, struct lc_err *e)
{
	struct line *l = NULL;
	struct batch *b = NULL;
	struct want m;
	int rc = message_get_want(body, &m, e);

	if (rc == 0 && mend_is(x, m.stream))
		return mend_want(x, &m, e);
	rc = rc != 0 ? rc : find_batch(x, &m, &l, &b, e);
	if (rc != 0 || b == NULL)
		return rc;
	note_answer(x, l);
	x->open -= b->open;
	b->open = batch_answer(b, m.bits);
	x->open += b->open;
	return 0;
}

static int
on_committed(struct sender *x, struct lc_span body, struct lc_err *e)
{
	const struct transfer_point *p;
	struct line *l = NULL;
	struct committed m;
	int rc = message_get_committed(body, &m, e);

	rc = rc != 0 ? rc : find_stream(x, m.stream, &l, e);
	if (rc != 0 || l == NULL)
		return rc;
	if (l->state != LINE_COMMITTING)
		return lc_fail(e, LC_EPEER, 0, "COMMITTED before COMMIT");
	p = outgoing_point(l->out);
	l->head.n = 0;
	if (lc_buf_append(&l->head, p->entry.p, p->entry.n) != 0)
		return no_memory(e);
	x->stats.points++;
	note_answer(x, l);
	l->anew = false;
	l->restarts = 0;
	if (x->ev.committed != NULL)
		x->ev.committed(x->ev.arg, p, m.wall_ns);
	sender_leave(x, l, LINE_IDLE);
	return 0;
}

static int
on_refused(struct sender *x, struct lc_span body, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct line *l = NULL;
	struct refused m;
	int rc = message_get_refused(body, &m, e);

	if (rc == 0 && m.stream == SESSION_STREAM)
		return refused_error(&m, e);
	if (rc == 0 && mend_is(x, m.stream)) {
		mend_refused(x, &m);
		return 0;
	}
	rc = rc != 0 ? rc : find_stream(x, m.stream, &l, e);
	if (rc != 0 || l == NULL)
		return rc;
	note_answer(x, l);
	if (l->state == LINE_AHEAD) {
		ahead_refused(x, l);
		return 0;
	}
	/* A chunk that it had when it was asked was condemned meanwhile. */
	if (m.code == LC_ENOENT && l->restarts++ < RESTARTS_MAX) {
		sender_leave(x, l, LINE_IDLE);
		return 0;
	}
	/* What it said when the session began is not so any more: somebody dropped points there.
	 * It says anew where it is when the next one begins; but not for ever. */
	if (m.code == LC_ECONFLICT && clock_mono_ns() - x->heads_ns > HEADS_GOOD_NS)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "its newest point of a VM is another one than it was (dropped "
		               "there?): asking again");
	(void)refused_error(&m, &why);
	sender_fail(x, l, &why);
	return 0;
}

static int
on_taken(struct sender *x, struct lc_span body, struct lc_err *e)
{
	uint64_t n;
	int rc = message_get_number(body, MESSAGE_TAKEN, &n, e);

	if (rc != 0)
		return rc;
	if (n < x->flight.taken || n > x->flight.sent)
		return lc_fail(e, LC_EPEER, 0, "TAKEN of bytes that were never sent");
	x->stats.answers += n > x->flight.taken;
	flight_taken(&x->flight, n);
	return 0;
}

int
sender_message(struct sender *x, uint16_t type, struct lc_span body, struct lc_err *e)
{
	switch (type) {
	case MESSAGE_HEAD:
		return on_head(x, body, e);
	case MESSAGE_HEADS_END:
		if (x->ev.head != NULL && x->started && !x->heads_known)
			x->ev.head(x->ev.arg, NULL, NULL, (struct lc_span){0});
		x->stats.answers += !x->heads_known;
		x->heads_known = x->look = x->started;
		x->heads_ns = clock_mono_ns();
		return 0;
	case MESSAGE_WANT:
		return on_want(x, body, e);
	case MESSAGE_PROVE:
		return on_prove(x, body, e);
	case MESSAGE_COMMITTED:
		return on_committed(x, body, e);
	case MESSAGE_REFUSED:
		return on_refused(x, body, e);
	case MESSAGE_TAKEN:
		return on_taken(x, body, e);
	case MESSAGE_DAMAGED:
		return mend_damaged(x, body, e);
	default:
		return lc_fail(e, LC_EPEER, 0, "%s, which a source does not get",
		               message_name(type));
	}
}

bool
sender_sent_all(const struct sender *x)
{
	const struct line *l;

	if (!x->heads_known)
		return false;
	TAILQ_FOREACH (l, &x->lines, entry) {
		if (l->state != LINE_FAILED &&
		    !((l->state == LINE_IDLE || l->state == LINE_AHEAD) && l->looked))
			return false;
	}
	return true;
}

bool
sender_idle(const struct sender *x)
{
	return sender_sent_all(x) && (!x->mend.o.first || x->mend.looked);
}

void
sender_stats(const struct sender *x, struct sender_stats *out)
{
	*out = x->stats;
	out->unacknowledged = flight_bytes(&x->flight);
	out->ready = x->heads_known;
	out->look_ns = x->mend.state == MEND_RESTING ? x->mend.o.care->due_ns : 0;
	out->more = x->mend.more_now || x->put_off;
}

void
sender_free(struct sender *x)
{
	struct line *l;

	if (x == NULL)
		return;
	while ((l = TAILQ_FIRST(&x->lines)) != NULL) {
		TAILQ_REMOVE(&x->lines, l, entry);
		sender_leave(x, l, LINE_IDLE);
		lc_buf_free(&l->head);
		lc_free(l);
	}
	mend_done(x);
	lc_buf_free(&x->only);
	lc_free(x->rows);
	lc_free(x->buf);
	lc_free(x);
}

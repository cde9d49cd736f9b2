/*
 * What was found damaged at the other side goes there again.
 *
 *     RESTING ──INSPECT──► ASKED ──DAMAGED──► OFFERED ──WANT──► SENDING ──► ASKED: the next ids
 *        ▲                   │ no more ids                                    │
 *        └───────────────────┴────── asked once more, where anything went ◄───┘
 *                                    or deltas were left for a second round
 *
 * Contents go on a stream of their own, whole, and it ends; nothing depends on it.  A map or commit
 * that is damaged there can't be sent again: the line's next point is made to stand by itself, and
 * what follows it is sound there.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "replicator/sender_internal.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/thin.h"

_Static_assert(DAMAGED_IDS_MAX <= OFFER_IDS_MAX, "what is told of fits one OFFER");

#define EVERY_MS 5000
#define PAUSE_MAX_NS (3600 * LC_NS_PER_S) /* where it does not get better */
/* Points go in between where contents come from another site, one by one. */
#define TURN_NS (200 * LC_NS_PER_MS)
#define DAY_NS (86400 * LC_NS_PER_S)
#define BYTES_MORE (UINT64_C(1) << 30)
#define IDS_MAX (UINT64_C(4) << 20) /* in one round; the rest in the next look */
#define EXAMINED_MAX 16u            /* in one look: each costs reading the map */

void
sender_care_done(struct sender_care *c)
{
	lc_buf_free(&c->lines);
}

void
sender_mend(struct sender *x, const struct sender_mending *o)
{
	if (outgoing_contents(x->s, o->writer, &x->mend.out, NULL) != 0)
		return;
	x->mend.o = *o;
	if (o->every_ms == 0)
		x->mend.o.every_ms = EVERY_MS;
	x->mend.state = MEND_RESTING;
	x->mend.looked = clock_mono_ns() < o->care->due_ns;
}

static int
no_memory(struct lc_err *e)
{
	return lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static void
forget_batch(struct mend *m)
{
	batch_free(m->batch);
	m->batch = NULL;
}

void
mend_done(struct sender *x)
{
	forget_batch(&x->mend);
	outgoing_free(x->mend.out);
}

/* ---- what may be done ---- */

static void
begin_day(struct sender *x)
{
	struct sender_care *c = x->mend.o.care;
	int64_t now = clock_mono_ns();
	uint64_t droppable;

	if (c->day_ns != 0 && now - c->day_ns < DAY_NS)
		return;
	c->day_ns = now;
	c->bytes = c->bytes_max = 0;
	c->lines.n = 0;
	(void)thin_bytes(x->s, &c->bytes_max, &droppable, NULL);
	c->bytes_max += BYTES_MORE;
}

static bool
is_spent(struct sender *x)
{
	struct sender_care *c = x->mend.o.care;

	if (c->bytes < c->bytes_max)
		return false;
	(void)snprintf(x->mend.now.text, sizeof x->mend.now.text,
	               "as much as this store holds was sent for that within a day: it goes on "
	               "tomorrow; is the disk there failing?");
	return true;
}

/* ---- a look ---- */

static void
tell(struct sender *x)
{
	if (x->ev.damaged != NULL)
		x->ev.damaged(x->ev.arg, &x->mend.now);
}

static int
ask(struct sender *x, struct lc_err *e)
{
	struct lc_buf body = {0};
	int rc = message_put_inspect(&body, x->mend.last) != 0
	             ? no_memory(e)
	             : sender_emit(x, MESSAGE_INSPECT, &body, (struct lc_span){0}, e);

	lc_buf_free(&body);
	x->mend.state = MEND_ASKED;
	return rc;
}

static void
rest(struct sender *x)
{
	struct mend *m = &x->mend;
	struct sender_care *c = m->o.care;
	int64_t every = m->o.every_ms * LC_NS_PER_MS;

	if (m->now.contents == 0 || c->pause_ns == 0)
		c->pause_ns = every;
	else
		c->pause_ns = c->pause_ns * 2 < PAUSE_MAX_NS ? c->pause_ns * 2 : PAUSE_MAX_NS;
	c->due_ns = clock_mono_ns() + c->pause_ns;
	m->state = MEND_RESTING;
	m->looked = true;
	m->round = 0;
	m->now.over = true;
	tell(x);
}

/* All ids were looked at.  Whether it is whole now, only it can say. */
static int
end_look(struct sender *x, struct lc_err *e)
{
	struct mend *m = &x->mend;

	if (m->round == 2 || (m->now.sent == 0 && !m->left)) {
		rest(x);
		return 0;
	}
	m->round = m->left ? 1 : 2;
	m->left = false;
	memset(m->last, 0, sizeof m->last);
	return ask(x, e);
}

static int
next_ids(struct sender *x, struct lc_err *e)
{
	forget_batch(&x->mend);
	return x->mend.more && !is_spent(x) ? ask(x, e) : end_look(x, e);
}

/* ---- what can't be sent ---- */

/* no 0: nothing here stands for it.  Where it is elsewhere and nobody has it any more, only the
 * disks may: they are read as a whole. */
static void
note_unable(struct sender *x, uint64_t no, const struct lc_err *why)
{
	struct mend *m = &x->mend;
	char needs[TRANSFER_NEEDS_MAX] = "restore points that were dropped here";

	m->now.unable++;
	if (m->examined >= EXAMINED_MAX)
		return;
	m->examined++;
	if (no != 0)
		(void)transfer_needs(x->s, no, why->code == LC_ENOENT, needs, NULL);
	if (m->now.text[0] == '\0') {
		(void)snprintf(m->now.text, sizeof m->now.text,
		               "not to be had from here: contents of %s%s%s; there, locum scrub "
		               "names the points that lack them, and the next backups store again "
		               "what the disks still have",
		               needs, no != 0 ? ": " : "", no != 0 ? why->msg : "");
	}
}

/* ---- contents ---- */

/* One of those that are damaged there. */
static int
name(struct sender *x, const uint8_t *id, struct lc_err *e)
{
	struct batch *b = x->mend.batch;
	struct lc_err why = LC_ERR_INIT;
	uint64_t no = 0;
	int rc = outgoing_find(x->mend.out, id, &no, &why);

	if (rc != 0) {
		note_unable(x, rc == LC_ENOENT ? 0 : no, &why);
		return 0;
	}
	if (x->mend.round == 0 && outgoing_is_delta(x->mend.out, no)) {
		x->mend.left = true;
		return 0;
	}
	if (lc_buf_append(&b->ids, id, CHUNK_ID_SIZE) != 0)
		return no_memory(e);
	b->chunks[b->n++] = no;
	return 0;
}

static int
begin(struct sender *x, struct lc_err *e)
{
	const struct transfer_point none = {.entry = {0}};
	struct mend *m = &x->mend;
	struct lc_buf body = {0};
	struct offer o = {.n = (uint16_t)m->batch->n,
	                  .bases = (uint16_t)m->batch->n, /* so they are wanted whole */
	                  .ids = m->batch->ids.p};
	int rc;

	m->stream = o.stream = ++x->last_stream;
	m->state = MEND_OFFERED;
	rc = message_put_begin(&body, m->stream, &none) != 0
	         ? no_memory(e)
	         : sender_emit(x, MESSAGE_BEGIN, &body, (struct lc_span){0}, e);
	lc_buf_free(&body);
	if (rc == 0)
		rc = message_put_offer(&body, &o) != 0
		         ? no_memory(e)
		         : sender_emit(x, MESSAGE_OFFER, &body, (struct lc_span){0}, e);
	lc_buf_free(&body);
	return rc;
}

static int
offer(struct sender *x, const struct damaged *d, struct lc_err *e)
{
	struct mend *m = &x->mend;
	uint32_t i;
	int rc = 0;

	m->batch = batch_new();
	if (m->batch == NULL)
		return no_memory(e);
	m->batch->chunks = lc_alloc_array(d->n, sizeof *m->batch->chunks);
	if (m->batch->chunks == NULL)
		return no_memory(e);
	for (i = 0; rc == 0 && i < d->n; i++)
		rc = name(x, d->ids + (size_t)i * CHUNK_ID_SIZE, e);
	memcpy(m->last, d->ids + (size_t)(d->n - 1) * CHUNK_ID_SIZE, sizeof m->last);
	m->more = d->n == DAMAGED_IDS_MAX;
	if (rc != 0)
		return rc;
	return m->batch->n > 0 ? begin(x, e) : next_ids(x, e);
}

bool
mend_is(const struct sender *x, uint32_t stream)
{
	const struct mend *m = &x->mend;

	return (m->state == MEND_OFFERED || m->state == MEND_SENDING) && m->stream == stream;
}

int
mend_want(struct sender *x, const struct want *m, struct lc_err *e)
{
	if (x->mend.state != MEND_OFFERED || m->n != x->mend.batch->n)
		return lc_fail(e, LC_EPEER, 0, "WANT that answers no OFFER");
	x->stats.answers++;
	(void)batch_answer(x->mend.batch, m->bits);
	x->mend.state = MEND_SENDING;
	return 0;
}

static int
send(struct sender *x, uint64_t no, struct lc_err *e)
{
	static const struct thin_source nobody = {.fetch = NULL};
	struct mend *m = &x->mend;
	struct lc_err why = LC_ERR_INIT;
	struct transfer_chunk c;

	if (outgoing_mend(m->out, no, x->buf, &c, &why) != 0) {
		/* Points are not to wait once more for who does not answer. */
		if (lc_code_retryable(why.code))
			outgoing_source(m->out, &nobody);
		note_unable(x, no, &why);
		return 0;
	}
	m->o.care->bytes += c.payload.n;
	m->now.sent++;
	return sender_chunk(x, m->stream, &c, e);
}

/* What was wanted and did not go is so no more. */
static int
end(struct sender *x, struct lc_err *e)
{
	const struct lc_err told = {.code = LC_ECANCELED, .msg = "that was all of it"};
	struct lc_buf body = {0};
	int rc = message_put_refused(&body, x->mend.stream, &told) != 0
	             ? no_memory(e)
	             : sender_emit(x, MESSAGE_REFUSED, &body, (struct lc_span){0}, e);

	lc_buf_free(&body);
	return rc != 0 ? rc : next_ids(x, e);
}

void
mend_refused(struct sender *x, const struct refused *m)
{
	struct lc_err why = LC_ERR_INIT;

	x->stats.answers++;
	(void)refused_error(m, &why);
	(void)snprintf(x->mend.now.text, sizeof x->mend.now.text, "%s", why.msg);
	forget_batch(&x->mend);
	rest(x);
}

/* ---- lines ---- */

bool
sender_has_all(struct sender *x, const uint8_t *id)
{
	struct line *l = sender_find_line(x, id);
	struct outgoing *next = NULL;
	int rc;

	if (l == NULL || l->state != LINE_IDLE)
		return false;
	rc = outgoing_next(x->s, id, (struct lc_span){l->head.p, l->head.n}, &next, NULL);
	outgoing_free(next);
	return rc == LC_ENOENT;
}

static bool
was_restarted(const struct sender_care *c, const uint8_t *line)
{
	size_t i;

	for (i = 0; i < c->lines.n; i += 16) {
		if (memcmp(c->lines.p + i, line, 16) == 0)
			return true;
	}
	return false;
}

static const char no_more[] =
    "the map of a VM that gets no more restore points is damaged there: only the catalog there "
    "still knows it (do not delete it; restore or copy what is needed, then locum drop)";
static const char no_owner[] =
    "maps are damaged there: only the catalog there still knows them (do not delete it); a copy "
    "into a new folder has them whole";

/* In this order: a point that stands by itself and that came in between is seen. */
static int
restart(struct sender *x, const uint8_t *line, struct lc_err *e)
{
	struct sender_care *c = x->mend.o.care;
	bool is = false;
	int rc = transfer_restarts(x->s, line, &is, e);

	/* Where points of it are still to go they may help it. */
	if (rc != 0 || is || !sender_has_all(x, line) || was_restarted(c, line))
		return rc;
	rc = outgoing_restart(x->s, line, e);
	return rc != 0 || lc_buf_append(&c->lines, line, 16) == 0 ? rc : no_memory(e);
}

static int
look_at_lines(struct sender *x, const struct damaged *d, struct lc_err *e)
{
	struct mend *m = &x->mend;
	struct lc_err why = LC_ERR_INIT;
	uint32_t i;
	int rc = 0;

	m->now.lines = d->nlines;
	if (d->nlines > 0 && !transfer_owns(x->s)) {
		(void)snprintf(m->now.text, sizeof m->now.text, "%s", no_owner);
		return 0;
	}
	for (i = 0; rc == 0 && i < d->nlines; i++) {
		const uint8_t *line = d->lines + (size_t)i * 16;

		rc = transfer_goes_on(x->s, line, e);
		if (rc == 0 && restart(x, line, &why) == 0)
			continue;
		if (rc == 0 || rc == LC_ENOENT) {
			(void)snprintf(m->now.text, sizeof m->now.text, "%s%s%s", no_more,
			               why.code != LC_OK ? ": " : "", why.msg);
		}
		rc = rc == LC_ENOENT ? 0 : rc;
	}
	return rc;
}

/* ---- messages ---- */

static int
first_of_look(struct sender *x, const struct damaged *d, struct lc_err *e)
{
	struct mend *m = &x->mend;
	bool any = d->contents > 0 || d->nlines > 0;
	int rc;

	m->now.contents = d->contents;
	/* More may be found while it is told. */
	m->more_ids = (d->contents < IDS_MAX ? d->contents : IDS_MAX) + (uint64_t)DAMAGED_IDS_MAX;
	if (m->round < 2) { /* all that can't be had is met in each of them */
		m->now.unable = 0;
		m->examined = 0;
	}
	if (m->round == 2 || !any) {
		m->now.lines = d->nlines;
		rest(x);
		return 0;
	}
	rc = m->round == 0 ? look_at_lines(x, d, e) : 0;
	if (rc == 0)
		tell(x);
	return rc;
}

int
mend_damaged(struct sender *x, struct lc_span body, struct lc_err *e)
{
	struct mend *m = &x->mend;
	struct damaged d;
	int rc = message_get_damaged(body, &d, e);

	if (rc != 0)
		return rc;
	if (m->state != MEND_ASKED)
		return lc_fail(e, LC_EPEER, 0, "DAMAGED, which nobody asked for");
	if (d.n > 0 && memcmp(d.ids, m->last, CHUNK_ID_SIZE) <= 0)
		return lc_fail(e, LC_EPEER, 0, "DAMAGED contents that were told before");
	x->stats.answers++;
	if (lc_is_zero(m->last, sizeof m->last))
		rc = first_of_look(x, &d, e);
	if (rc != 0 || m->state != MEND_ASKED)
		return rc;
	m->more = false;
	if (d.n == 0 || d.n > m->more_ids || is_spent(x))
		return end_look(x, e);
	m->more_ids -= d.n;
	return offer(x, &d, e);
}

/* ---- pump ---- */

static int
begin_look(struct sender *x, struct lc_err *e)
{
	struct mend *m = &x->mend;

	begin_day(x);
	m->now = (struct sender_damage){.contents = 0};
	m->left = false;
	outgoing_source(m->out, &m->o.from);
	memset(m->last, 0, sizeof m->last);
	return ask(x, e);
}

int
mend_pump(struct sender *x, struct lc_err *e)
{
	int64_t until = clock_mono_ns() + TURN_NS;
	struct mend *m = &x->mend;
	struct batch *b;
	int rc = 0;

	m->more_now = false;
	if (m->state == MEND_RESTING && clock_mono_ns() >= m->o.care->due_ns &&
	    (!m->o.first || sender_sent_all(x)))
		return begin_look(x, e);
	while (rc == 0 && m->state == MEND_SENDING) {
		b = m->batch;
		if (b->next == b->n || m->o.care->bytes >= m->o.care->bytes_max)
			return end(x, e);
		if (batch_wants(b, b->next) && flight_full(&x->flight))
			return 0;
		if (m->o.from.fetch != NULL && clock_mono_ns() >= until) {
			m->more_now = true;
			return 0;
		}
		if (batch_wants(b, b->next))
			rc = send(x, b->chunks[b->next], e);
		b->next++;
	}
	return rc;
}

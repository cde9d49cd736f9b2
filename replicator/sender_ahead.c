/*
 * What there is of a large point goes before the point: its contents, on a stream of its own, which
 * ends where the point is made or given up.  Nothing depends on it: the point goes as if nothing
 * had, and the other side says what it has by then.
 */
#include <string.h>

#include "replicator/sender_internal.h"

static const struct transfer_making *
making_of(const struct sender *x, const struct line *l)
{
	size_t i;

	for (i = 0; i < x->nmaking; i++) {
		if (memcmp(x->making[i].line, l->id, 16) == 0)
			return &x->making[i];
	}
	return NULL;
}

/* Its last stream was of that, and not of a pass that is over by now. */
static bool
is_same(const struct line *l, const struct transfer_making *m)
{
	return memcmp(m->point, l->made, 16) == 0 && memcmp(m->seed, l->made_seed, 16) == 0;
}

static bool
is_over(const struct sender *x, const struct line *l)
{
	const struct transfer_making *m = making_of(x, l);

	return !l->looked || m == NULL || !is_same(l, m);
}

/* What was offered and is still wanted is so no more: the point itself offers it again. */
static int
end(struct sender *x, struct line *l, struct lc_err *e)
{
	const struct lc_err told = {.code = LC_ECANCELED, .msg = "no more of it comes ahead"};
	struct lc_buf body = {0};
	int rc = message_put_refused(&body, l->stream, &told) != 0
	             ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	             : sender_emit(x, MESSAGE_REFUSED, &body, (struct lc_span){0}, e);

	lc_buf_free(&body);
	sender_leave(x, l, LINE_IDLE);
	return rc;
}

static int
begin(struct sender *x, struct line *l, const struct transfer_making *m, struct lc_err *e)
{
	struct lc_buf body = {0};
	int rc;

	memcpy(l->made, m->point, 16);
	memcpy(l->made_seed, m->seed, 16);
	l->made_was_ended = outgoing_made(x->s, m, (struct lc_span){l->head.p, l->head.n}, &l->out,
	                                  NULL) != 0;
	if (l->made_was_ended)
		return 0;
	l->state = LINE_AHEAD;
	l->stream = ++x->last_stream;
	rc = message_put_begin(&body, l->stream, outgoing_point(l->out)) != 0
	         ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	         : sender_emit(x, MESSAGE_BEGIN, &body, (struct lc_span){0}, e);
	lc_buf_free(&body);
	return rc;
}

/* Only with room that no point needs. */
static int
pump(struct sender *x, struct line *l, struct lc_err *e)
{
	const struct transfer_making *m = making_of(x, l);
	struct lc_err bad = LC_ERR_INIT;
	int rc = 0;

	if (m != NULL && l->state == LINE_IDLE && l->looked && !l->gone &&
	    !(l->made_was_ended && is_same(l, m)))
		rc = begin(x, l, m, e);
	if (rc != 0 || l->state != LINE_AHEAD)
		return rc;
	l->rows_over = false; /* there may be more by now */
	rc = sender_batches(x, l, &bad, e);
	if (rc != 0 || bad.code == LC_OK)
		return rc;
	l->made_was_ended = true; /* the point itself will say what is wrong */
	rc = end(x, l, e);
	l->looked = true;
	return rc;
}

int
ahead_look(struct sender *x, struct lc_err *e)
{
	size_t i;

	transfer_making(x->s, x->making, &x->nmaking);
	for (i = 0; i < x->nmaking; i++) {
		const struct transfer_making *m = &x->making[i];
		struct line *l;

		if (!sender_wanted(x, m->vm) || sender_find_line(x, m->line) != NULL)
			continue;
		l = sender_add_line(x, m->line);
		if (l == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "out of memory");
		memcpy(l->vm, m->vm, 16);
	}
	return 0;
}

int
ahead_end_if_over(struct sender *x, struct line *l, struct lc_err *e)
{
	return l->state == LINE_AHEAD && is_over(x, l) ? end(x, l, e) : 0;
}

int
ahead_pump(struct sender *x, struct lc_err *e)
{
	struct line *l;
	int rc = 0;

	TAILQ_FOREACH (l, &x->lines, entry) {
		if (rc == 0 && x->nmaking > 0 && !flight_full(&x->flight))
			rc = pump(x, l, e);
	}
	return rc;
}

/* The point itself will hear what is wrong. */
void
ahead_refused(struct sender *x, struct line *l)
{
	sender_leave(x, l, LINE_IDLE);
	l->looked = l->made_was_ended = true;
}

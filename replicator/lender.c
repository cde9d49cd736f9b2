#include <string.h>

#include "replicator/lender.h"
#include "replicator/message.h"
#include "store/maprec.h"
#include "store/segment.h"
#include "store/store.h"

#define MORE_ROWS 4096u
#define CONDEMNED_MAX 64u /* in one session, as each is slow; a scrub finds all of them */

struct lender {
	struct store *s;
	uint16_t writer;
	lender_emit *emit;
	void *arg;
	uint8_t *buf; /* [RECORD_PAYLOAD_MAX] */
	unsigned condemned;
	/* The point that is being recalled. */
	struct outgoing *point;
	struct commit end;
	struct map_record *rows;
};

int
lender_new(struct store *s, uint16_t writer, lender_emit *emit, void *arg, struct lender **out,
           struct lc_err *e)
{
	struct lender *x = lc_alloc(sizeof *x);

	if (x != NULL) {
		x->s = s;
		x->writer = writer;
		x->emit = emit;
		x->arg = arg;
		x->buf = lc_alloc(RECORD_PAYLOAD_MAX);
		x->rows = lc_alloc(sizeof *x->rows);
	}
	if (x == NULL || x->buf == NULL || x->rows == NULL) {
		lender_free(x);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	*out = x;
	return 0;
}

void
lender_free(struct lender *x)
{
	if (x == NULL)
		return;
	outgoing_free(x->point);
	lc_free(x->rows);
	lc_free(x->buf);
	lc_free(x);
}

/* Sends a body that was encoded with rc, and frees it. */
static int
emit(struct lender *x, uint16_t type, struct lc_buf *body, int rc, struct lc_span tail,
     struct lc_err *e)
{
	struct lc_span spans[2] = {{body->p, body->n}, tail};

	rc = rc != 0 ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	             : x->emit(x->arg, type, spans, tail.n > 0 ? 2 : 1, e);
	lc_buf_free(body);
	return rc;
}

/* ---- heads ---- */

struct telling {
	lender_emit *emit;
	void *arg;
	size_t bytes;
};

static int
tell_head(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct telling *t = arg;
	struct lc_buf body = {0};
	struct head m = {.entry = l->head};
	int rc;

	memcpy(m.line, l->line, 16);
	memcpy(m.vm, l->vm, 16);
	t->bytes += l->head.n + 64;
	if (t->bytes > HEADS_BYTES_MAX)
		return lc_fail(e, LC_ENOSPC, 0, "too many lines of VMs to tell about");
	rc = message_put_head(&body, &m) != 0
	         ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	         : t->emit(t->arg, MESSAGE_HEAD, &(struct lc_span){body.p, body.n}, 1, e);
	lc_buf_free(&body);
	return rc;
}

int
lender_heads(struct store *s, uint16_t writer, struct lc_span body, lender_emit *emit_head,
             void *arg, struct lc_err *e)
{
	struct telling t = {.emit = emit_head, .arg = arg};
	struct lc_span none = {0};
	int rc = message_get_nothing(body, MESSAGE_HEADS, e);

	rc = rc != 0 ? rc : transfer_lines_of(s, writer, tell_head, &t, e);
	return rc != 0 ? rc : emit_head(arg, MESSAGE_HEADS_END, &none, 1, e);
}

/* ---- chunks ---- */

static int
give(struct lender *x, const uint8_t *id, struct lc_err *e)
{
	struct transfer_chunk c = {.encoding = 0};
	struct lc_err why = LC_ERR_INIT;
	struct lc_buf body = {0};
	struct none none;
	int rc = transfer_read(x->s, x->writer, id, x->buf, &c, &why);

	if (rc == 0)
		return emit(x, MESSAGE_BODY, &body, message_put_body_head(&body, &c), c.payload, e);
	if (store_check_there(x->s, e) != 0) /* it tells nothing about a content */
		return LC_ENOENT;
	if ((rc == LC_ECORRUPT || rc == LC_EIO) && x->condemned++ < CONDEMNED_MAX)
		(void)transfer_condemn(x->s, x->writer, id, NULL); /* so it is sent again */
	memcpy(none.id, id, sizeof none.id);
	none.code = rc;
	return emit(x, MESSAGE_NONE, &body, message_put_none(&body, &none), (struct lc_span){0}, e);
}

static int
on_read(struct lender *x, struct lc_span body, struct lc_err *e)
{
	struct ids m;
	uint32_t i;
	int rc = message_get_ids(body, MESSAGE_READ, &m, e);

	for (i = 0; rc == 0 && i < m.n; i++)
		rc = give(x, m.ids + (size_t)i * CHUNK_ID_SIZE, e);
	return rc;
}

static int
on_ask(struct lender *x, struct lc_span body, struct lc_err *e)
{
	uint8_t bits[(OFFER_IDS_MAX + 7) / 8] = {0};
	struct lc_buf out = {0};
	struct ids m;
	uint32_t i;
	int rc = message_get_ids(body, MESSAGE_ASK, &m, e);

	rc = rc != 0 ? rc : store_check_there(x->s, e);
	for (i = 0; rc == 0 && i < m.n; i++) {
		rc = transfer_has(x->s, x->writer, m.ids + (size_t)i * CHUNK_ID_SIZE, e);
		if (rc == 0)
			bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << (i % 8));
		rc = rc == LC_ENOENT ? 0 : rc;
	}
	return rc != 0
	           ? rc
	           : emit(x, MESSAGE_HAVE, &out, message_put_have(&out, &(struct have){m.n, bits}),
	                  (struct lc_span){0}, e);
}

/* ---- a point ---- */

static int
refuse(struct lender *x, uint32_t stream, const struct lc_err *why, struct lc_err *e)
{
	struct lc_buf body = {0};

	return emit(x, MESSAGE_REFUSED, &body, message_put_refused(&body, stream, why),
	            (struct lc_span){0}, e);
}

static int
on_recall(struct lender *x, struct lc_span body, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct lc_buf out = {0};
	uint16_t writer = 0;
	struct recall m;
	int rc = message_get_recall(body, &m, e);

	if (rc != 0)
		return rc;
	outgoing_free(x->point);
	x->point = NULL;
	x->end = (struct commit){.stream = m.stream};
	rc = transfer_line_writer(x->s, m.line, &writer, &why);
	if (rc == 0 && writer != x->writer)
		rc = LC_ENOENT; /* there is none for who asks */
	rc = rc != 0 ? rc : outgoing_newest(x->s, m.line, &x->point, &why);
	if (rc == LC_ENOENT)
		(void)lc_fail(&why, LC_ENOENT, 0, "there is no point on that line");
	if (rc != 0)
		return refuse(x, m.stream, &why, e);
	return emit(x, MESSAGE_BEGIN, &out,
	            message_put_begin(&out, m.stream, outgoing_point(x->point)),
	            (struct lc_span){0}, e);
}

static int
end_point(struct lender *x, struct lc_err *e)
{
	struct lc_buf out = {0};

	outgoing_free(x->point);
	x->point = NULL;
	return emit(x, MESSAGE_COMMIT, &out, message_put_commit(&out, &x->end), (struct lc_span){0},
	            e);
}

static int
on_more(struct lender *x, struct lc_span body, struct lc_err *e)
{
	struct lc_buf payload = {0}, out = {0};
	struct lc_err why = LC_ERR_INIT;
	struct set_sum one;
	uint32_t stream;
	size_t i;
	int rc = message_get_more(body, &stream, e);

	if (rc == 0 && stream != x->end.stream)
		rc = lc_fail(e, LC_EPEER, 0, "MORE of a point that was not recalled");
	if (rc != 0 || x->point == NULL)
		return rc; /* its end crossed with this one */
	rc = outgoing_rows(x->point, x->rows, MORE_ROWS, &why);
	if (rc == 0 && x->rows->n == 0)
		return end_point(x, e);
	for (i = 0; rc == 0 && i < x->rows->n; i++) {
		set_row(NULL, x->rows->disk, x->rows->rows[i].window, x->rows->rows[i].id, &one);
		set_add(&x->end.sum, &one);
	}
	x->end.rows += rc == 0 ? x->rows->n : 0;
	rc = rc != 0 ? rc : maprec_encode(x->rows, &payload, &why);
	if (rc != 0) {
		outgoing_free(x->point);
		x->point = NULL;
		rc = refuse(x, stream, &why, e);
	} else {
		rc = emit(x, MESSAGE_ROWS, &out, message_put_rows_head(&out, stream),
		          (struct lc_span){payload.p, payload.n}, e);
	}
	lc_buf_free(&payload);
	return rc;
}

static int
on_keys(struct lender *x, struct lc_span body, struct lc_err *e)
{
	struct lc_buf keys = {0};
	int rc = message_get_nothing(body, MESSAGE_KEYS, e);

	rc = rc != 0 ? rc : transfer_keys(x->s, &keys, e);
	if (rc == 0)
		return emit(x, MESSAGE_KEYS, &keys, 0, (struct lc_span){0}, e);
	lc_buf_free(&keys);
	return rc;
}

int
lender_message(struct lender *x, uint16_t type, struct lc_span body, struct lc_err *e)
{
	switch (type) {
	case MESSAGE_HEADS:
		return lender_heads(x->s, x->writer, body, x->emit, x->arg, e);
	case MESSAGE_READ:
		return on_read(x, body, e);
	case MESSAGE_ASK:
		return on_ask(x, body, e);
	case MESSAGE_KEYS:
		return on_keys(x, body, e);
	case MESSAGE_RECALL:
		return on_recall(x, body, e);
	case MESSAGE_MORE:
		return on_more(x, body, e);
	default:
		return lc_fail(e, LC_EPEER, 0, "%s, which a session that reads does not have",
		               message_name(type));
	}
}

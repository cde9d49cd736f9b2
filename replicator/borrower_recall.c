/*
 * What a host that has lost its store asks for: its keys, its lines, the newest point of each.
 */
#include <string.h>

#include "replicator/borrower_internal.h"
#include "replicator/message.h"

/* ---- keys ---- */

static int
take_keys(struct request *r, uint16_t type, struct lc_span body, struct lc_err *e)
{
	if (type != MESSAGE_KEYS)
		return borrower_unexpected(type, e);
	return lc_buf_append(r->arg, body.p, body.n) == 0
	           ? 1
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

int
borrower_keys(struct borrower *b, struct lc_buf *keys, struct lc_err *e)
{
	struct request r = {.type = MESSAGE_KEYS, .answer = take_keys, .arg = keys};

	return borrower_ask(b, &r, e);
}

/* ---- lines ---- */

struct lining {
	int (*on)(void *arg, const struct transfer_line *l, struct lc_err *e);
	void *arg;
	int rc;
	struct lc_err err;
	struct heads heads;
};

static int
take_head(struct request *r, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct transfer_line l = {.name = {0}};
	struct lining *x = r->arg;
	struct head m;

	if (type == MESSAGE_HEADS_END)
		return 1;
	if (type != MESSAGE_HEAD)
		return borrower_unexpected(type, e);
	if (message_get_head(body, &m, e) != 0 || heads_count(&x->heads, &m, e) != 0)
		return LC_EPEER;
	memcpy(l.line, m.line, 16);
	memcpy(l.vm, m.vm, 16);
	l.head = m.entry;
	if (x->rc == 0)
		x->rc = x->on(x->arg, &l, &x->err);
	return 0;
}

int
borrower_lines(struct borrower *b,
               int (*on)(void *arg, const struct transfer_line *l, struct lc_err *e), void *arg,
               struct lc_err *e)
{
	struct lining x = {.on = on, .arg = arg, .err = LC_ERR_INIT};
	struct request r = {.type = MESSAGE_HEADS, .answer = take_head, .arg = &x};
	int rc = borrower_ask(b, &r, e);

	if (rc == 0 && x.rc != 0 && e != NULL)
		*e = x.err;
	return rc != 0 ? rc : x.rc;
}

/* ---- a point ---- */

struct recalling {
	const struct recall_events *ev;
	struct commit end;
	bool over;
};

/* BEGIN, ROWS and COMMIT; or REFUSED. */
static int
take_point(struct request *r, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct recalling *x = r->arg;
	struct transfer_point p;
	struct sent_rows rows;
	struct refused no;
	uint32_t stream;
	int rc;

	switch (type) {
	case MESSAGE_BEGIN:
		if (message_get_begin(body, &stream, &p, e) != 0)
			return LC_EPEER;
		rc = x->ev->begin(x->ev->arg, &p, e);
		return rc != 0 ? rc : 1;
	case MESSAGE_ROWS:
		if (message_get_rows(body, &rows, e) != 0)
			return LC_EPEER;
		rc = x->ev->rows(x->ev->arg, rows.payload, e);
		return rc != 0 ? rc : 1;
	case MESSAGE_COMMIT:
		if (message_get_commit(body, &x->end, e) != 0)
			return LC_EPEER;
		x->over = true;
		return 1;
	case MESSAGE_REFUSED:
		if (message_get_refused(body, &no, e) != 0)
			return LC_EPEER;
		rc = refused_error(&no, e);
		return rc == LC_EPEER ? LC_ECORRUPT : rc;
	default:
		return borrower_unexpected(type, e);
	}
}

int
borrower_recall(struct borrower *b, const uint8_t line[16], const struct recall_events *ev,
                uint64_t *rows, struct set_sum *sum, struct lc_err *e)
{
	struct recalling x = {.ev = ev};
	struct request r = {.type = MESSAGE_RECALL, .answer = take_point, .arg = &x};
	struct recall m = {.stream = 1};
	int rc;

	memcpy(m.line, line, sizeof m.line);
	rc = message_put_recall(&r.body, &m) != 0 ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                                          : borrower_ask(b, &r, e);
	while (rc == 0 && !x.over) {
		r = (struct request){.type = MESSAGE_MORE, .answer = take_point, .arg = &x};
		rc = message_put_more(&r.body, m.stream) != 0
		         ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
		         : borrower_ask(b, &r, e);
	}
	*rows = x.end.rows;
	*sum = x.end.sum;
	return rc;
}

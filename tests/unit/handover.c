#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/unit/handover.h"

static void
open_taker(struct handover *t)
{
	struct store_opts o = {.dir = t->dir, .mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;

	must(store_open(&o, &t->to, &e), &e);
	assert_false(store_has_key(t->to));
}

void
handover_make(struct handover *t)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};

	memset(t, 0, sizeof *t);
	vault_make(&t->v, true);
	vault_open(&t->v);
	(void)snprintf(t->dir, sizeof t->dir, "%s/replica", t->v.top);
	must(transfer_keys(t->v.s, &keys, &e), &e);
	must(transfer_make(t->dir, (struct lc_span){keys.p, keys.n}, &e), &e);
	assert_int_equal(transfer_make(t->dir, (struct lc_span){keys.p, keys.n}, NULL), LC_EEXIST);
	lc_buf_free(&keys);
	open_taker(t);
	assert_memory_equal(transfer_domain(t->to), transfer_domain(t->v.s), 16);
}

void
handover_free(struct handover *t)
{
	store_close(t->to);
	vault_free(&t->v);
}

/* ---- the way of one point, without a wire ---- */

static int
send_rows(struct handover *t, struct outgoing *out, struct incoming *in, struct incoming_end *end,
          struct lc_err *e)
{
	struct map_record *m = lc_alloc(sizeof *m);
	uint8_t *buf = lc_alloc(RECORD_PAYLOAD_MAX);
	struct transfer_chunk c;
	struct lc_buf b = {0};
	struct set_sum one;
	size_t i;
	int rc;

	do {
		rc = outgoing_rows(out, m, 2048, e);
		for (i = 0; rc == 0 && i < m->n; i++) {
			set_row(NULL, m->disk, m->rows[i].window, m->rows[i].id, &one);
			set_add(&end->sum, &one);
			if (maprec_zero(&m->rows[i]) || incoming_has(in, m->rows[i].id, e) == 0)
				continue;
			rc = outgoing_chunk(out, m->rows[i].chunk, buf, &c, e);
			rc = rc != 0 ? rc : incoming_chunk(in, &c, e);
			t->chunks++;
		}
		end->rows += m->n;
		b.n = 0;
		if (rc == 0 && m->n > 0) {
			rc = maprec_encode(m, &b, e);
			rc = rc != 0 ? rc : incoming_rows(in, (struct lc_span){b.p, b.n}, e);
		}
	} while (rc == 0 && m->n > 0);
	lc_buf_free(&b);
	lc_free(buf);
	lc_free(m);
	return rc;
}

static int
send_point(struct handover *t, struct outgoing *out, struct lc_err *e)
{
	struct incoming_end end = {.err = LC_ERR_INIT};
	int rc = incoming_begin(t->to, 0, outgoing_point(out), &end.in, e);

	if (rc != 0)
		return rc;
	rc = send_rows(t, out, end.in, &end, e);
	if (rc != 0) {
		incoming_abort(end.in);
		return rc;
	}
	incoming_commit(&end, 1);
	if (end.rc != 0 && e != NULL)
		*e = end.err;
	return end.rc;
}

struct sync {
	struct handover *t;
	const uint8_t *line;
	struct lc_buf head;
	unsigned sent;
};

static int
find_head(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct sync *x = arg;

	(void)e;
	if (memcmp(l->line, x->line, 16) != 0)
		return 0;
	x->head.n = 0;
	return lc_buf_append(&x->head, l->head.p, l->head.n);
}

static int
sync_line(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct sync *x = arg;
	struct outgoing *out;
	int rc;

	for (;;) {
		x->line = l->line;
		x->head.n = 0;
		rc = transfer_lines(x->t->to, find_head, x, e);
		rc = rc != 0 ? rc
		             : outgoing_next(x->t->v.s, l->line,
		                             (struct lc_span){x->head.p, x->head.n}, &out, e);
		if (rc != 0)
			return rc == LC_ENOENT ? 0 : rc;
		rc = send_point(x->t, out, e);
		outgoing_free(out);
		if (rc != 0)
			return rc;
		x->sent++;
	}
}

int
handover_try(struct handover *t, unsigned *sent, struct lc_err *e)
{
	struct sync x = {.t = t};
	int rc = transfer_lines(t->v.s, sync_line, &x, e);

	lc_buf_free(&x.head);
	*sent = x.sent;
	return rc;
}

unsigned
handover_all(struct handover *t)
{
	struct lc_err e = LC_ERR_INIT;
	unsigned sent;

	must(handover_try(t, &sent, &e), &e);
	return sent;
}

void
handover_has(struct handover *t, const struct point *p, const struct vault_disk *d, size_t n)
{
	struct store_opts o = {.dir = t->dir, .recovery_code = t->v.code};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	must(store_open(&o, &s, &e), &e);
	must(vault_compare(s, p->id, d, n, &e), &e);
	must(vault_verify(s, p->id, &e), &e);
	store_close(s);
}

struct point
handover_backup(struct handover *t, const char *vm, const struct vault_disk *d, size_t n)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(t->v.s, vm, d, n, &p, &e), &e);
	return p;
}

void
handover_rebuild(struct handover *t)
{
	struct store_opts o = {.dir = t->dir, .no_key = true};
	struct lc_err e = LC_ERR_INIT;

	store_close(t->to);
	must(store_rebuild(&o, &e), &e);
	open_taker(t);
}

struct outgoing *
handover_next(struct handover *t, const struct point *p)
{
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out;

	must(outgoing_next(t->v.s, p->line, (struct lc_span){0}, &out, &e), &e);
	return out;
}

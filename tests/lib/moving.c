#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/maprec.h"
#include "store/segment.h"
#include "store/transfer.h"
#include "tests/lib/moving.h"

#define SOME_ROWS 64u

static void
must(int rc, const struct lc_err *e)
{
	if (rc == 0)
		return;
	(void)fprintf(stderr, "moving: %s\n", e->msg);
	abort();
}

/* Unless it is there already, another host's too; junk comes with its last bytes changed. */
static void
move_chunk(struct outgoing *o, struct incoming *in, uint64_t no, enum moving_how how)
{
	static uint8_t payload[RECORD_PAYLOAD_MAX];
	uint8_t id[CHUNK_ID_SIZE], sum[TRANSFER_SUM_SIZE];
	struct lc_buf bases = {0};
	struct lc_err e = LC_ERR_INIT;
	struct map_base b;
	struct transfer_chunk c;
	size_t off;

	must(outgoing_bases(o, &no, 1, &bases, &e), &e);
	for (off = 0; off < bases.n; off += sizeof b) {
		memcpy(&b, bases.p + off, sizeof b);
		must(outgoing_base(o, b.no, payload, &c, &e), &e);
		if (incoming_base(in, payload, NULL) != 0)
			must(incoming_chunk(in, &c, &e), &e);
	}
	lc_buf_free(&bases);
	must(outgoing_id(o, no, id, &e), &e);
	if (incoming_has(in, id, NULL) == 0)
		return;
	must(outgoing_chunk(o, no, payload, &c, &e), &e);
	transfer_sum(&c, sum);
	if (how != MOVING_TRUE)
		payload[c.payload.n - 20] ^= 1;
	else if (incoming_shared(in, id, NULL) == 0 && incoming_prove(in, id, sum, NULL) == 0)
		return;
	must(incoming_chunk(in, &c, &e), &e);
}

static void
move_point(struct outgoing *o, struct store *to, uint16_t writer, enum moving_how how)
{
	struct map_record *m = lc_alloc(sizeof *m);
	struct incoming_end end = {.rows = 0};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf rows = {0};
	uint8_t id[CHUNK_ID_SIZE];
	struct set_sum one;
	size_t i;

	must(m == NULL ? -1 : incoming_begin(to, writer, outgoing_point(o), &end.in, &e), &e);
	for (;;) {
		must(outgoing_rows(o, m, SOME_ROWS, &e), &e);
		if (m->n == 0)
			break;
		for (i = 0; i < m->n; i++) {
			memset(id, 0, sizeof id);
			if (m->rows[i].chunk != 0) {
				move_chunk(o, end.in, m->rows[i].chunk, how);
				must(outgoing_id(o, m->rows[i].chunk, id, &e), &e);
			}
			memcpy(m->rows[i].id, id, sizeof id);
			set_row(NULL, m->disk, m->rows[i].window, id, &one);
			set_add(&end.sum, &one);
		}
		end.rows += m->n;
		rows.n = 0;
		must(maprec_encode(m, &rows, &e), &e);
		must(incoming_rows(end.in, (struct lc_span){rows.p, rows.n}, &e), &e);
	}
	if (how == MOVING_JUNK) /* it never says that this is all */
		incoming_abort(end.in);
	else
		incoming_commit(&end, 1);
	must(end.rc, &end.err);
	lc_buf_free(&rows);
	lc_free(m);
}

struct moving {
	struct store *from, *to;
	uint16_t writer;
	enum moving_how how;
	uint8_t line[16];
	struct lc_buf head; /* of that line at the other one */
};

static int
note_head(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct moving *m = arg;

	(void)e;
	if (memcmp(l->line, m->line, 16) != 0)
		return 0;
	m->head.n = 0;
	return lc_buf_append(&m->head, l->head.p, l->head.n);
}

static int
move_line(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct moving *m = arg;
	struct outgoing *o = NULL;
	int rc;

	memcpy(m->line, l->line, 16);
	for (;;) {
		m->head.n = 0;
		must(transfer_lines(m->to, note_head, m, e), e);
		rc = outgoing_next(m->from, l->line, (struct lc_span){m->head.p, m->head.n}, &o, e);
		if (rc != 0)
			break;
		move_point(o, m->to, m->writer, m->how);
		outgoing_free(o);
		if (m->how == MOVING_JUNK)
			return 0;
	}
	if (rc != LC_ENOENT && rc != LC_ECONFLICT && rc != LC_EKEY)
		return rc;
	lc_err_clear(e); /* there is none, or all that was there was dropped */
	return 0;
}

void
moving_all(struct store *from, struct store *to, uint16_t writer, enum moving_how how)
{
	struct moving m = {.from = from, .to = to, .writer = writer, .how = how};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};
	unsigned added;

	must(transfer_keys(from, &keys, &e), &e);
	must(transfer_join_keys(to, (struct lc_span){keys.p, keys.n}, 64, &added, &e), &e);
	must(transfer_lines(from, move_line, &m, &e), &e);
	lc_buf_free(&keys);
	lc_buf_free(&m.head);
}

/*
 * Points from store to store: the taker is blind, and has in the end what the giver has.
 */
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "store/transfer.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define WINDOWS 9000u /* more rows than one MAP record holds */

struct two { /* a giver with its key, and a blind taker */
	struct vault v;
	char dir[300];
	struct store *to;
	uint64_t chunks; /* sent so far */
};

static void
open_taker(struct two *t)
{
	struct store_opts o = {.dir = t->dir, .mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;

	must(store_open(&o, &t->to, &e), &e);
	assert_false(store_has_key(t->to));
}

static void
make_two(struct two *t)
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

static void
free_two(struct two *t)
{
	store_close(t->to);
	vault_free(&t->v);
}

/* ---- the way of one point, without a wire ---- */

static int
send_rows(struct two *t, struct outgoing *out, struct incoming *in, struct incoming_end *end,
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
send_point(struct two *t, struct outgoing *out, struct lc_err *e)
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
	struct two *t;
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

/* All that the taker lacks; how many points that were. */
static unsigned
sync_all(struct two *t)
{
	struct sync x = {.t = t};
	struct lc_err e = LC_ERR_INIT;

	must(transfer_lines(t->v.s, sync_line, &x, &e), &e);
	lc_buf_free(&x.head);
	return x.sent;
}

/* The taker's store, opened with the code, has the point with these disks. */
static void
taker_has(struct two *t, const struct point *p, const struct vault_disk *d, size_t n)
{
	struct store_opts o = {.dir = t->dir, .recovery_code = t->v.code};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	must(store_open(&o, &s, &e), &e);
	must(vault_compare(s, p->id, d, n, &e), &e);
	must(vault_verify(s, p->id, &e), &e);
	store_close(s);
}

static struct point
backup(struct two *t, const char *vm, const struct vault_disk *d, size_t n)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(t->v.s, vm, d, n, &p, &e), &e);
	return p;
}

static void
rebuild_taker(struct two *t)
{
	struct store_opts o = {.dir = t->dir, .no_key = true};
	struct lc_err e = LC_ERR_INIT;

	store_close(t->to);
	must(store_rebuild(&o, &e), &e);
	open_taker(t);
}

/* ---- tests ---- */

#define POINTS 6u

static void
a_history_arrives_whole(void **state)
{
	const size_t windows = UNDER_VALGRIND ? 200 : WINDOWS;
	struct vault_disk d[POINTS][2];
	struct point p[POINTS];
	struct two t;
	size_t i;

	(void)state;
	make_two(&t);
	for (i = 0; i < POINTS; i++) {
		d[i][0] = i == 0 ? vault_disk("vda", windows) : vault_disk_copy(&d[i - 1][0]);
		d[i][1] = i == 0 ? vault_disk("vdb", 3) : vault_disk_copy(&d[i - 1][1]);
		d[i][0].codes[i] = 100 + i;
		d[i][0].codes[windows - 1 - i] = 7; /* the same content: one chunk */
		d[i][1].codes[i % 3] = i == 4 ? 0 : 200 + i;
		if (i == 3)
			vault_disk_resize(&d[i][1], 2 * WINDOW_SIZE + 512);
		p[i] = backup(&t, "web01", d[i], 2);
		if (i == 2) /* so far in one go, then one by one */
			assert_int_equal(sync_all(&t), 3);
		if (i > 2)
			assert_int_equal(sync_all(&t), 1);
	}
	assert_int_equal(sync_all(&t), 0);
	for (i = 0; i < POINTS; i++)
		taker_has(&t, &p[i], d[i], 2);
	rebuild_taker(&t); /* the log says it all */
	for (i = 0; i < POINTS; i++) {
		taker_has(&t, &p[i], d[i], 2);
		vault_disk_free(&d[i][0]);
		vault_disk_free(&d[i][1]);
	}
	free_two(&t);
}

static void
many_rows_arrive(void **state)
{
	const size_t windows = UNDER_VALGRIND ? MAP_ROWS_MAX + 100 : WINDOWS;
	struct vault_disk d = vault_disk("vda", windows);
	struct two t;
	struct point p;
	size_t i;

	(void)state;
	make_two(&t);
	for (i = 0; i < windows; i++)
		d.codes[i] = 1 + i % 50;
	p = backup(&t, "big", &d, 1);
	assert_int_equal(sync_all(&t), 1);
	assert_int_equal(t.chunks, 50);
	taker_has(&t, &p, &d, 1);
	vault_disk_free(&d);
	free_two(&t);
}

/* Points that the giver dropped, before and after they were sent. */
static void
drops_at_the_giver_do_no_harm(void **state)
{
	struct vault_disk d[POINTS];
	struct lc_err e = LC_ERR_INIT;
	struct point p[POINTS];
	struct two t;
	size_t i;

	(void)state;
	make_two(&t);
	for (i = 0; i < POINTS; i++) {
		d[i] = i == 0 ? vault_disk("vda", 8) : vault_disk_copy(&d[i - 1]);
		d[i].codes[i] = 30 + i;
		d[i].codes[7] = 90 + i;
		p[i] = backup(&t, "db", &d[i], 1);
		if (i == 1)
			assert_int_equal(sync_all(&t), 2);
	}
	must(store_drop(t.v.s, p[0].id, &e), &e);
	must(store_drop(t.v.s, p[1].id, &e), &e); /* the newest that the taker has */
	must(store_drop(t.v.s, p[2].id, &e), &e);
	must(store_drop(t.v.s, p[4].id, &e), &e);
	assert_int_equal(sync_all(&t), 2);
	taker_has(&t, &p[0], &d[0], 1);
	taker_has(&t, &p[1], &d[1], 1);
	taker_has(&t, &p[3], &d[3], 1);
	taker_has(&t, &p[5], &d[5], 1);
	must(store_drop(t.to, p[1].id, &e), &e); /* what the taker drops folds as ever */
	must(store_drop(t.to, p[5].id, &e), &e);
	taker_has(&t, &p[3], &d[3], 1);
	rebuild_taker(&t);
	taker_has(&t, &p[0], &d[0], 1);
	taker_has(&t, &p[3], &d[3], 1);
	assert_int_equal(sync_all(&t), 1); /* and comes again */
	taker_has(&t, &p[5], &d[5], 1);
	for (i = 0; i < POINTS; i++)
		vault_disk_free(&d[i]);
	free_two(&t);
}

/* What the taker has as its newest point was dropped here when it was the newest here too: what
 * came after that does not build on it, neither the content of its windows nor its size. */
static void
a_newest_point_that_was_dropped_leaves_nothing(void **state)
{
	struct vault_disk d[4], extra = vault_disk("vdb", 3);
	struct lc_err e = LC_ERR_INIT;
	struct point p[4];
	struct two t;
	size_t i;

	(void)state;
	make_two(&t);
	d[0] = vault_disk("vda", 6);
	d[0].codes[0] = 10;
	d[0].codes[1] = 11;
	p[0] = backup(&t, "db", &d[0], 1);
	d[1] = vault_disk_copy(&d[0]);
	vault_disk_resize(&d[1], 9 * WINDOW_SIZE);
	d[1].codes[0] = 20;
	d[1].codes[2] = 22;
	d[1].codes[8] = 28;
	p[1] = backup(&t, "db", &d[1], 1);
	assert_int_equal(sync_all(&t), 2);
	must(store_drop(t.v.s, p[1].id, &e), &e);
	d[2] = vault_disk_copy(&d[0]);
	d[2].codes[3] = 33;
	p[2] = backup(&t, "db", &d[2], 1);
	assert_int_equal(sync_all(&t), 1);
	taker_has(&t, &p[1], &d[1], 1);
	taker_has(&t, &p[2], &d[2], 1);
	d[3] = vault_disk_copy(&d[2]); /* where there was something at the taker once */
	vault_disk_resize(&d[3], 9 * WINDOW_SIZE);
	extra.codes[1] = 40;
	{
		struct vault_disk both[2] = {d[3], extra};

		p[3] = backup(&t, "db", both, 2);
		assert_int_equal(sync_all(&t), 1);
		taker_has(&t, &p[3], both, 2);
		rebuild_taker(&t);
		taker_has(&t, &p[3], both, 2);
	}
	taker_has(&t, &p[2], &d[2], 1);
	for (i = 0; i < 4; i++)
		vault_disk_free(&d[i]);
	vault_disk_free(&extra);
	free_two(&t);
}

/* A pass that did not complete stays here; what it read goes with the point that completed it. */
static void
seeds_stay_at_home(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	uint64_t covered = 2;
	struct commit_opts seed = {.source_ns = 1, .seed = true, .covered = &covered};
	struct writer *w;
	struct two t;
	struct point p;

	(void)state;
	make_two(&t);
	d.codes[0] = 11;
	w = vault_begin(t.v.s, "seeded", &d, 1, &e);
	assert_non_null(w);
	must(vault_put(w, 0, &d, 0, &e), &e);
	must(writer_commit(w, &seed, NULL, &e), &e);
	assert_int_equal(sync_all(&t), 0);
	d.codes[3] = 12;
	p = backup(&t, "seeded", &d, 1);
	assert_int_equal(sync_all(&t), 1);
	taker_has(&t, &p, &d, 1);
	vault_disk_free(&d);
	free_two(&t);
}

/* A line that left another one: each arrives, and goes on by itself. */
static void
forks_arrive(void **state)
{
	struct vault_disk d[4];
	struct commit_opts o = {.source_ns = 9};
	struct lc_err e = LC_ERR_INIT;
	struct point p[4];
	struct writer *w;
	struct two t;
	size_t i, k;

	(void)state;
	make_two(&t);
	for (i = 0; i < 3; i++) {
		d[i] = i == 0 ? vault_disk("vda", 8) : vault_disk_copy(&d[i - 1]);
		d[i].codes[i] = 40 + i;
		p[i] = backup(&t, "db", &d[i], 1);
	}
	d[3] = vault_disk_copy(&d[1]);
	d[3].codes[7] = 77;
	w = vault_fork(t.v.s, "db", p[1].id, &d[3], 1, &e);
	assert_non_null(w);
	for (k = 0; k < 8; k++)
		must(vault_put(w, 0, &d[3], k, &e), &e);
	must(writer_commit(w, &o, &p[3], &e), &e);
	assert_int_equal(sync_all(&t), 4);
	for (i = 0; i < 4; i++)
		taker_has(&t, &p[i], &d[i], 1);
	must(store_drop(t.to, p[1].id, &e), &e);
	rebuild_taker(&t);
	taker_has(&t, &p[0], &d[0], 1);
	taker_has(&t, &p[2], &d[2], 1);
	taker_has(&t, &p[3], &d[3], 1);
	for (i = 0; i < 4; i++)
		vault_disk_free(&d[i]);
	free_two(&t);
}

static struct outgoing *
next_of(struct two *t, const struct point *p)
{
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out;

	must(outgoing_next(t->v.s, p->line, (struct lc_span){0}, &out, &e), &e);
	return out;
}

static void
what_is_not_whole_is_refused(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct incoming_end end = {.err = LC_ERR_INIT};
	struct map_record *m = lc_alloc(sizeof *m);
	struct lc_buf b = {0};
	struct transfer_point tp;
	struct outgoing *out;
	struct incoming *second;
	struct point p;
	struct two t;
	char *entry;

	(void)state;
	make_two(&t);
	d.codes[1] = 5;
	d.codes[2] = 6;
	p = backup(&t, "web01", &d, 1);
	out = next_of(&t, &p);
	must(outgoing_rows(out, m, 4, &e), &e);
	assert_int_equal(m->n, 2);
	must(maprec_encode(m, &b, &e), &e);

	/* rows whose chunks never came */
	must(incoming_begin(t.to, 0, outgoing_point(out), &end.in, &e), &e);
	assert_int_equal(incoming_begin(t.to, 0, outgoing_point(out), &second, NULL), LC_EBUSY);
	assert_int_equal(incoming_rows(end.in, (struct lc_span){b.p, b.n}, NULL), LC_ENOENT);
	/* fewer rows than said */
	end.rows = 2;
	incoming_commit(&end, 1);
	assert_int_equal(end.rc, LC_ECORRUPT);
	/* another sum than said */
	end = (struct incoming_end){.err = LC_ERR_INIT};
	must(incoming_begin(t.to, 0, outgoing_point(out), &end.in, &e), &e);
	end.sum.v[0] = 1;
	incoming_commit(&end, 1);
	assert_int_equal(end.rc, LC_ECORRUPT);
	/* rows of another point */
	end = (struct incoming_end){.err = LC_ERR_INIT};
	must(incoming_begin(t.to, 0, outgoing_point(out), &end.in, &e), &e);
	b.p[0] ^= 1;
	assert_int_equal(incoming_rows(end.in, (struct lc_span){b.p, b.n}, NULL), LC_ECORRUPT);
	incoming_abort(end.in);
	/* a base that is not there, an entry of another point, one cut short */
	tp = *outgoing_point(out);
	tp.base[3] = 9;
	assert_int_equal(incoming_begin(t.to, 0, &tp, &second, NULL), LC_ECONFLICT);
	tp = *outgoing_point(out);
	tp.id[0] ^= 1;
	assert_int_equal(incoming_begin(t.to, 0, &tp, &second, NULL), LC_ECORRUPT);
	tp = *outgoing_point(out);
	tp.entry.n--;
	assert_int_equal(incoming_begin(t.to, 0, &tp, &second, NULL), LC_ECORRUPT);
	/* a name or an entry beyond all measure */
	entry = lc_alloc(TRANSFER_ENTRY_MAX + 1);
	tp = *outgoing_point(out);
	tp.entry = (struct lc_span){(const uint8_t *)entry, TRANSFER_ENTRY_MAX + 1};
	assert_int_equal(incoming_begin(t.to, 0, &tp, &second, NULL), LC_ECORRUPT);
	tp = *outgoing_point(out);
	tp.name = (struct lc_span){(const uint8_t *)entry, TRANSFER_NAME_MAX + 1};
	assert_int_equal(incoming_begin(t.to, 0, &tp, &second, NULL), LC_ECORRUPT);
	lc_free(entry);

	outgoing_free(out);
	assert_int_equal(sync_all(&t), 1); /* nothing of that stands in the way */
	taker_has(&t, &p, &d, 1);
	out = next_of(&t, &p);
	assert_int_equal(incoming_begin(t.to, 0, outgoing_point(out), &second, NULL), LC_EEXIST);
	outgoing_free(out);
	lc_buf_free(&b);
	lc_free(m);
	vault_disk_free(&d);
	free_two(&t);
}

static void
a_chunk_that_is_none_is_refused(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	uint8_t *buf = lc_alloc(RECORD_PAYLOAD_MAX);
	struct map_record *m = lc_alloc(sizeof *m);
	struct transfer_chunk c, bad;
	struct outgoing *out;
	struct incoming *in;
	struct point p;
	struct two t;
	size_t i;

	(void)state;
	make_two(&t);
	d.codes[1] = 4; /* compresses */
	p = backup(&t, "web01", &d, 1);
	out = next_of(&t, &p);
	must(outgoing_rows(out, m, 4, &e), &e);
	must(outgoing_chunk(out, m->rows[0].chunk, buf, &c, &e), &e);
	must(incoming_begin(t.to, 0, outgoing_point(out), &in, &e), &e);
	assert_int_equal(c.encoding, CHUNK_ZSTD);
	bad = c;
	bad.encoding = 4;
	assert_int_equal(incoming_chunk(in, &bad, NULL), LC_EVERSION);
	bad.encoding = CHUNK_PREFIX; /* without a base */
	assert_int_equal(incoming_chunk(in, &bad, NULL), LC_ECORRUPT);
	for (i = 0; i < 81; i++) {
		bad = c;
		bad.payload.n = i;
		assert_int_equal(incoming_chunk(in, &bad, NULL), LC_ECORRUPT);
	}
	buf[CHUNK_ID_SIZE] ^= 1; /* the length of the window */
	assert_int_equal(incoming_chunk(in, &c, NULL), LC_ECORRUPT);
	buf[CHUNK_ID_SIZE] ^= 1;
	bad = c;
	bad.encoding = CHUNK_RAW; /* then it has to be as long as a window */
	assert_int_equal(incoming_chunk(in, &bad, NULL), LC_ECORRUPT);
	memset(buf, 0, CHUNK_ID_SIZE);
	assert_int_equal(incoming_chunk(in, &c, NULL), LC_ECORRUPT);
	incoming_abort(in);
	outgoing_free(out);
	lc_free(buf);
	lc_free(m);
	vault_disk_free(&d);
	free_two(&t);
}

/* A store that was put back from an older copy must not go on over the newer points elsewhere. */
static void
a_giver_that_is_behind_is_told(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct sync x = {0};
	struct lc_err e = LC_ERR_INIT;
	char copy[sizeof((struct vault *)0)->dir];
	struct two t;
	struct point p;

	(void)state;
	make_two(&t);
	d.codes[0] = 1;
	p = backup(&t, "web01", &d, 1);
	assert_int_equal(sync_all(&t), 1);
	vault_close(&t.v);
	(void)snprintf(copy, sizeof copy, "%s/older", t.v.top);
	vault_copy(t.v.dir, copy);
	vault_open(&t.v);
	d.codes[1] = 2;
	p = backup(&t, "web01", &d, 1);
	assert_int_equal(sync_all(&t), 1);
	vault_close(&t.v);
	(void)snprintf(t.v.dir, sizeof t.v.dir, "%s", copy);
	vault_open(&t.v);
	x.t = &t;
	assert_int_equal(transfer_lines(t.v.s, sync_line, &x, &e), LC_ECONFLICT);
	lc_buf_free(&x.head);
	taker_has(&t, &p, &d, 1);
	vault_disk_free(&d);
	free_two(&t);
}

static void
a_point_that_is_sent_is_not_dropped(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out;
	struct point p;
	struct two t;

	(void)state;
	make_two(&t);
	d.codes[0] = 1;
	p = backup(&t, "web01", &d, 1);
	out = next_of(&t, &p);
	assert_int_equal(store_drop(t.v.s, p.id, NULL), LC_EBUSY);
	outgoing_free(out);
	must(store_drop(t.v.s, p.id, &e), &e);
	vault_disk_free(&d);
	free_two(&t);
}

/* Others are made upon it, so it must not be a delta itself. */
static void
a_base_is_given_whole(void **state)
{
	struct vault_disk d = vault_disk("vda", 2);
	uint8_t *buf = lc_alloc(RECORD_PAYLOAD_MAX), id[CHUNK_ID_SIZE];
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	struct outgoing *out;
	struct point p;
	struct two t;
	uint64_t no;

	(void)state;
	make_two(&t);
	d.codes[0] = 5;
	p = backup(&t, "web01", &d, 1);
	d.codes[0] += VAULT_EDIT;
	p = backup(&t, "web01", &d, 1);
	out = next_of(&t, &p);
	must(catalog_next_delta(t.v.s->catalog, 0, &no, &e), &e);
	must(outgoing_chunk(out, no, buf, &c, &e), &e);
	assert_int_equal(c.encoding, CHUNK_PREFIX);
	memcpy(id, chunk_payload_id(c.payload), sizeof id);
	must(outgoing_base(out, no, buf, &c, &e), &e);
	assert_int_equal(c.encoding, CHUNK_RAW);
	assert_true(chunk_payload_ok(c.payload, c.encoding));
	assert_memory_equal(chunk_payload_id(c.payload), id, sizeof id);
	outgoing_free(out);
	lc_free(buf);
	vault_disk_free(&d);
	free_two(&t);
}

/* Its word for a content that another one has sent is lost with the power until it is durable: who
 * drops what it was told to be there has it nowhere then. */
static void
what_was_shown_counts_when_that_is_durable(void **state)
{
	static uint8_t buf[RECORD_PAYLOAD_MAX];
	uint8_t sum[TRANSFER_SUM_SIZE], id[CHUNK_ID_SIZE];
	struct map_record *m = lc_alloc(sizeof *m);
	struct vault_disk d = vault_disk("vda", 2);
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out = NULL;
	struct incoming *in = NULL;
	struct transfer_chunk c;
	struct point p;
	struct two t;

	(void)state;
	make_two(&t);
	d.codes[0] = 7;
	p = backup(&t, "web01", &d, 1);
	assert_int_equal(sync_all(&t), 1); /* of the first writer */
	point_done(&p);
	p = backup(&t, "db", &d, 1);
	must(outgoing_next(t.v.s, p.line, (struct lc_span){0}, &out, &e), &e);
	must(incoming_begin(t.to, 1, outgoing_point(out), &in, &e), &e);
	must(outgoing_rows(out, m, 2, &e), &e);
	memcpy(id, m->rows[0].id, sizeof id);
	must(outgoing_chunk(out, m->rows[0].chunk, buf, &c, &e), &e);
	transfer_sum(&c, sum);
	assert_int_equal(incoming_has(in, id, NULL), LC_ENOENT);
	must(incoming_prove(in, id, sum, &e), &e);
	must(incoming_has(in, id, &e), &e);
	assert_int_equal(transfer_has(t.to, 1, id, NULL), LC_ENOENT);
	must(store_flush(t.to, &e), &e);
	must(transfer_has(t.to, 1, id, &e), &e);
	must(transfer_read(t.to, 1, id, buf, &c, &e), &e);
	incoming_abort(in);
	outgoing_free(out);
	point_done(&p);
	lc_free(m);
	vault_disk_free(&d);
	free_two(&t);
}

static const struct point *drops_meanwhile; /* before the next lease; NULL: nobody */

int __real_lease_take(struct store *s, const uint8_t point[16], char **path, int *fd,
                      struct lc_err *e);
int __wrap_lease_take(struct store *s, const uint8_t point[16], char **path, int *fd,
                      struct lc_err *e);

int
__wrap_lease_take(struct store *s, const uint8_t point[16], char **path, int *fd, struct lc_err *e)
{
	const struct point *p = drops_meanwhile;

	drops_meanwhile = NULL;
	if (p != NULL)
		must(store_drop(s, p->id, e), e);
	return __real_lease_take(s, point, path, fd, e);
}

/* Its rows are the next one's then, which goes instead. */
static void
a_point_that_is_dropped_before_it_goes_is_passed_over(void **state)
{
	struct vault_disk d = vault_disk("vda", 3);
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out = NULL;
	struct point first, second;
	int bar = -1;
	char *path = NULL;
	struct two t;

	(void)state;
	make_two(&t);
	d.codes[0] = 7;
	first = backup(&t, "web01", &d, 1);
	d.codes[1] = 12;
	second = backup(&t, "web01", &d, 1);
	drops_meanwhile = &first;
	must(outgoing_next(t.v.s, second.line, (struct lc_span){0}, &out, &e), &e);
	assert_memory_equal(outgoing_point(out)->id, second.id, 16);
	outgoing_free(out);
	/* As long as it is not known whether it stays, nothing goes; that is no failure. */
	must(lease_bar(t.v.s, second.id, &path, &bar, &e), &e);
	assert_int_equal(outgoing_next(t.v.s, second.line, (struct lc_span){0}, &out, &e),
	                 LC_EBUSY);
	assert_non_null(strstr(e.msg, "is being dropped"));
	lc_err_clear(&e);
	lease_give(&path, &bar);
	assert_int_equal(sync_all(&t), 1);
	taker_has(&t, &second, &d, 1);
	/* The last one: there is none then. */
	d.codes[2] = 17;
	point_done(&first);
	first = backup(&t, "web01", &d, 1);
	drops_meanwhile = &first;
	assert_int_equal(sync_all(&t), 0);
	point_done(&first);
	point_done(&second);
	vault_disk_free(&d);
	free_two(&t);
}

static struct two *sends_meanwhile; /* before the next commit; NULL: nobody */

int __real_store_commit(struct store *s,
                        int (*build)(void *arg, struct lc_buf *payload, struct lc_err *e),
                        void *arg, struct lc_err *e);
int __wrap_store_commit(struct store *s,
                        int (*build)(void *arg, struct lc_buf *payload, struct lc_err *e),
                        void *arg, struct lc_err *e);

int
__wrap_store_commit(struct store *s,
                    int (*build)(void *arg, struct lc_buf *payload, struct lc_err *e), void *arg,
                    struct lc_err *e)
{
	struct two *t = sends_meanwhile;

	sends_meanwhile = NULL;
	if (t != NULL)
		assert_int_equal(sync_all(t), 1);
	return __real_store_commit(s, build, arg, e);
}

/* The host of before sends one more point while its VM, with a large map, is being given away: who
 * gets the VM can read all of what is its newest point by then. */
static void
a_vm_is_given_with_all_that_it_has(void **state)
{
	struct map_record *m = lc_alloc(sizeof *m);
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct outgoing *out = NULL;
	uint16_t writer = 0;
	struct point p;
	struct two t;
	size_t i;

	(void)state;
	make_two(&t);
	d.codes[0] = 7;
	p = backup(&t, "web01", &d, 1);
	assert_int_equal(sync_all(&t), 1);
	point_done(&p);
	d.codes[1] = 8;
	p = backup(&t, "web01", &d, 1);
	sends_meanwhile = &t;
	must(transfer_give(t.to, p.vm_id, 1, &e), &e);
	assert_null(sends_meanwhile);
	must(transfer_line_writer(t.to, p.line, &writer, &e), &e);
	assert_int_equal(writer, 1);
	must(outgoing_newest(t.to, p.line, &out, &e), &e);
	must(outgoing_rows(out, m, 4, &e), &e);
	assert_int_equal(m->n, 2);
	for (i = 0; i < m->n; i++)
		must(transfer_has(t.to, 1, m->rows[i].id, &e), &e);
	outgoing_free(out);
	point_done(&p);
	lc_free(m);
	vault_disk_free(&d);
	free_two(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_history_arrives_whole),
	    cmocka_unit_test(many_rows_arrive),
	    cmocka_unit_test(drops_at_the_giver_do_no_harm),
	    cmocka_unit_test(seeds_stay_at_home),
	    cmocka_unit_test(forks_arrive),
	    cmocka_unit_test(what_is_not_whole_is_refused),
	    cmocka_unit_test(a_chunk_that_is_none_is_refused),
	    cmocka_unit_test(a_giver_that_is_behind_is_told),
	    cmocka_unit_test(a_newest_point_that_was_dropped_leaves_nothing),
	    cmocka_unit_test(a_point_that_is_sent_is_not_dropped),
	    cmocka_unit_test(a_base_is_given_whole),
	    cmocka_unit_test(what_was_shown_counts_when_that_is_durable),
	    cmocka_unit_test(a_point_that_is_dropped_before_it_goes_is_passed_over),
	    cmocka_unit_test(a_vm_is_given_with_all_that_it_has),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

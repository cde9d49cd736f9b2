/*
 * Points from store to store: the taker is blind, and has in the end what the giver has.
 */
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/unit/handover.h"

#define WINDOWS 9000u /* more rows than one MAP record holds */
#define POINTS 6u

static void
a_history_arrives_whole(void **state)
{
	const size_t windows = UNDER_VALGRIND ? 200 : WINDOWS;
	struct vault_disk d[POINTS][2];
	struct point p[POINTS];
	struct handover t;
	size_t i;

	(void)state;
	handover_make(&t);
	for (i = 0; i < POINTS; i++) {
		d[i][0] = i == 0 ? vault_disk("vda", windows) : vault_disk_copy(&d[i - 1][0]);
		d[i][1] = i == 0 ? vault_disk("vdb", 3) : vault_disk_copy(&d[i - 1][1]);
		d[i][0].codes[i] = 100 + i;
		d[i][0].codes[windows - 1 - i] = 7; /* the same content: one chunk */
		d[i][1].codes[i % 3] = i == 4 ? 0 : 200 + i;
		if (i == 3)
			vault_disk_resize(&d[i][1], 2 * WINDOW_SIZE + 512);
		p[i] = handover_backup(&t, "web01", d[i], 2);
		if (i == 2) /* so far in one go, then one by one */
			assert_int_equal(handover_all(&t), 3);
		if (i > 2)
			assert_int_equal(handover_all(&t), 1);
	}
	assert_int_equal(handover_all(&t), 0);
	for (i = 0; i < POINTS; i++)
		handover_has(&t, &p[i], d[i], 2);
	handover_rebuild(&t); /* the log says it all */
	for (i = 0; i < POINTS; i++) {
		handover_has(&t, &p[i], d[i], 2);
		vault_disk_free(&d[i][0]);
		vault_disk_free(&d[i][1]);
	}
	handover_free(&t);
}

static void
many_rows_arrive(void **state)
{
	const size_t windows = UNDER_VALGRIND ? MAP_ROWS_MAX + 100 : WINDOWS;
	struct vault_disk d = vault_disk("vda", windows);
	struct handover t;
	struct point p;
	size_t i;

	(void)state;
	handover_make(&t);
	for (i = 0; i < windows; i++)
		d.codes[i] = 1 + i % 50;
	p = handover_backup(&t, "big", &d, 1);
	assert_int_equal(handover_all(&t), 1);
	assert_int_equal(t.chunks, 50);
	handover_has(&t, &p, &d, 1);
	vault_disk_free(&d);
	handover_free(&t);
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
	struct handover t;
	struct point p;

	(void)state;
	handover_make(&t);
	d.codes[0] = 11;
	w = vault_begin(t.v.s, "seeded", &d, 1, &e);
	assert_non_null(w);
	must(vault_put(w, 0, &d, 0, &e), &e);
	must(writer_commit(w, &seed, NULL, &e), &e);
	assert_int_equal(handover_all(&t), 0);
	d.codes[3] = 12;
	p = handover_backup(&t, "seeded", &d, 1);
	assert_int_equal(handover_all(&t), 1);
	handover_has(&t, &p, &d, 1);
	vault_disk_free(&d);
	handover_free(&t);
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
	struct handover t;
	size_t i, k;

	(void)state;
	handover_make(&t);
	for (i = 0; i < 3; i++) {
		d[i] = i == 0 ? vault_disk("vda", 8) : vault_disk_copy(&d[i - 1]);
		d[i].codes[i] = 40 + i;
		p[i] = handover_backup(&t, "db", &d[i], 1);
	}
	d[3] = vault_disk_copy(&d[1]);
	d[3].codes[7] = 77;
	w = vault_fork(t.v.s, "db", p[1].id, &d[3], 1, &e);
	assert_non_null(w);
	for (k = 0; k < 8; k++)
		must(vault_put(w, 0, &d[3], k, &e), &e);
	must(writer_commit(w, &o, &p[3], &e), &e);
	assert_int_equal(handover_all(&t), 4);
	for (i = 0; i < 4; i++)
		handover_has(&t, &p[i], &d[i], 1);
	must(store_drop(t.to, p[1].id, &e), &e);
	handover_rebuild(&t);
	handover_has(&t, &p[0], &d[0], 1);
	handover_has(&t, &p[2], &d[2], 1);
	handover_has(&t, &p[3], &d[3], 1);
	for (i = 0; i < 4; i++)
		vault_disk_free(&d[i]);
	handover_free(&t);
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
	struct handover t;
	char *entry;

	(void)state;
	handover_make(&t);
	d.codes[1] = 5;
	d.codes[2] = 6;
	p = handover_backup(&t, "web01", &d, 1);
	out = handover_next(&t, &p);
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
	assert_int_equal(handover_all(&t), 1); /* nothing of that stands in the way */
	handover_has(&t, &p, &d, 1);
	out = handover_next(&t, &p);
	assert_int_equal(incoming_begin(t.to, 0, outgoing_point(out), &second, NULL), LC_EEXIST);
	outgoing_free(out);
	lc_buf_free(&b);
	lc_free(m);
	vault_disk_free(&d);
	handover_free(&t);
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
	struct handover t;
	size_t i;

	(void)state;
	handover_make(&t);
	d.codes[1] = 4; /* compresses */
	p = handover_backup(&t, "web01", &d, 1);
	out = handover_next(&t, &p);
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
	handover_free(&t);
}

/* A store that was put back from an older copy must not go on over the newer points elsewhere. */
static void
a_giver_that_is_behind_is_told(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	char copy[sizeof((struct vault *)0)->dir];
	struct handover t;
	struct point p;
	unsigned sent;

	(void)state;
	handover_make(&t);
	d.codes[0] = 1;
	p = handover_backup(&t, "web01", &d, 1);
	assert_int_equal(handover_all(&t), 1);
	vault_close(&t.v);
	(void)snprintf(copy, sizeof copy, "%s/older", t.v.top);
	vault_copy(t.v.dir, copy);
	vault_open(&t.v);
	d.codes[1] = 2;
	p = handover_backup(&t, "web01", &d, 1);
	assert_int_equal(handover_all(&t), 1);
	vault_close(&t.v);
	(void)snprintf(t.v.dir, sizeof t.v.dir, "%s", copy);
	vault_open(&t.v);
	assert_int_equal(handover_try(&t, &sent, &e), LC_ECONFLICT);
	handover_has(&t, &p, &d, 1);
	vault_disk_free(&d);
	handover_free(&t);
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
	struct handover t;

	(void)state;
	handover_make(&t);
	d.codes[0] = 7;
	p = handover_backup(&t, "web01", &d, 1);
	assert_int_equal(handover_all(&t), 1); /* of the first writer */
	point_done(&p);
	p = handover_backup(&t, "db", &d, 1);
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
	handover_free(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_history_arrives_whole),
	    cmocka_unit_test(many_rows_arrive),
	    cmocka_unit_test(seeds_stay_at_home),
	    cmocka_unit_test(forks_arrive),
	    cmocka_unit_test(what_is_not_whole_is_refused),
	    cmocka_unit_test(a_chunk_that_is_none_is_refused),
	    cmocka_unit_test(a_giver_that_is_behind_is_told),
	    cmocka_unit_test(what_was_shown_counts_when_that_is_durable),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

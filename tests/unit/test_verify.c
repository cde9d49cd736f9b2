/*
 * Verifying points: every chunk once, whatever it is in, and nothing that is wrong passes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/catalog_internal.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define WINDOWS 300u

struct twins { /* two VMs: the second has the first one's content, and some of its own */
	struct vault v;
	struct vault_disk a, b;
	struct point pa, pb;
	struct verified *all;
	uint64_t last_done, last_total; /* of the last one that was verified */
};

static void
make_twins(struct twins *x)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t i;

	memset(x, 0, sizeof *x);
	vault_make(&x->v, true);
	x->v.segment_bytes = 1 << 20;
	vault_open(&x->v);
	x->a = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++) /* some are zero, some are the same */
		x->a.codes[i] = i % 7 == 0 ? 0 : i % 5 == 0 ? 10 : 100 + i;
	x->b = vault_disk_copy(&x->a);
	for (i = 0; i < 20; i++)
		x->b.codes[i * 3 + 1] = 1000 + i;
	x->b.codes[200] = x->a.codes[201] + VAULT_EDIT; /* of no predecessor: whole */
	must(vault_backup(x->v.s, "one", &x->a, 1, &x->pa, &e), &e);
	must(vault_backup(x->v.s, "two", &x->b, 1, &x->pb, &e), &e);
	must(verified_new(0, &x->all, &e), &e);
}

static void
free_twins(struct twins *x)
{
	verified_free(x->all);
	point_done(&x->pa);
	point_done(&x->pb);
	vault_disk_free(&x->a);
	vault_disk_free(&x->b);
	vault_free(&x->v);
}

static void
on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct twins *x = arg;

	x->last_done = done;
	x->last_total = total;
}

static int
verify(struct twins *x, const struct point *p, struct verified *all, struct lc_err *e)
{
	struct view *v;
	int rc;

	x->last_done = x->last_total = 0;
	must(store_view(x->v.s, p->id, &v, e), e);
	rc = view_verify(v, all, 2, on_progress, x, e);
	view_close(v);
	return rc;
}

static uint64_t
contents(const struct vault_disk *d, const struct vault_disk *but)
{
	uint64_t i, k, n = 0;

	for (i = 0; i < WINDOWS; i++) {
		bool again = d->codes[i] == 0;

		for (k = 0; !again && k < i; k++)
			again = d->codes[k] == d->codes[i];
		for (k = 0; !again && but != NULL && k < WINDOWS; k++)
			again = but->codes[k] == d->codes[i];
		n += !again;
	}
	return n;
}

static void
each_chunk_is_read_once(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct twins x;

	(void)state;
	make_twins(&x);
	must(verify(&x, &x.pa, x.all, &e), &e);
	assert_int_equal(x.last_total, contents(&x.a, NULL) * WINDOW_SIZE);
	assert_int_equal(x.last_done, x.last_total);
	must(verify(&x, &x.pb, x.all, &e), &e);
	assert_int_equal(x.last_total, contents(&x.b, &x.a) * WINDOW_SIZE);
	must(verify(&x, &x.pb, x.all, &e), &e);
	assert_int_equal(x.last_total, 0);
	/* By itself it is all read. */
	must(verify(&x, &x.pb, NULL, &e), &e);
	assert_int_equal(x.last_total, contents(&x.b, NULL) * WINDOW_SIZE);
	free_twins(&x);
}

/* The store is opened again with bits of the chunk of that window of the first VM changed. */
static void
damage(struct twins *x, uint64_t window)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece *all, *p = NULL;
	uint64_t chunk;
	struct view *v;
	size_t i, n;

	must(store_view(x->v.s, x->pa.id, &v, &e), &e);
	must(view_map(v, 0, window, 1, &chunk, &e), &e);
	view_close(v);
	vault_close(&x->v);
	vault_pieces(x->v.dir, &all, &n);
	for (i = 0; i < n; i++) {
		if (all[i].r.type == RECORD_CHUNK && all[i].r.seq == chunk)
			p = &all[i];
	}
	assert_non_null(p);
	vault_flip(x->v.dir, p, RECORD_HEADER_SIZE + CHUNK_HEAD_SIZE + 30, 4);
	free(all);
	vault_open(&x->v);
}

static void
what_is_bad_is_bad_in_every_point(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct twins x;
	int round;

	(void)state;
	make_twins(&x);
	damage(&x, 151);
	for (round = 0; round < 2; round++) {
		assert_int_equal(verify(&x, &x.pa, x.all, &e), LC_ECORRUPT);
		assert_non_null(strstr(e.msg, "one/vda at byte 9895936: "));
		assert_non_null(strstr(e.msg, "segments/"));
		assert_null(strstr(e.msg, "damaged windows"));
		lc_err_clear(&e);
		assert_int_equal(verify(&x, &x.pb, x.all, &e), LC_ECORRUPT);
		assert_non_null(strstr(e.msg, "two/vda at byte 9895936: "));
		lc_err_clear(&e);
	}
	free_twins(&x);
}

static void
every_window_that_is_damaged_counts(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct twins x;
	char want[64];
	uint64_t i, n = 2;

	(void)state;
	make_twins(&x);
	damage(&x, 50); /* a content of many windows, the first one is 5 */
	damage(&x, 3);
	damage(&x, 299);
	for (i = 0; i < WINDOWS; i++)
		n += x.a.codes[i] == 10;
	(void)snprintf(want, sizeof want, "%u damaged windows, the first: ", (unsigned)n);
	assert_int_equal(verify(&x, &x.pa, x.all, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, want));
	assert_non_null(strstr(e.msg, "one/vda at byte 196608: "));
	free_twins(&x);
}

/* A store of more chunks than fit is dealt with in turns. */
static void
in_turns_it_is_the_same(void **state)
{
	static const uint64_t ranges[] = {64, 128, 320};
	struct lc_err e = LC_ERR_INIT;
	struct twins x;
	size_t i;

	(void)state;
	make_twins(&x);
	for (i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
		verified_free(x.all);
		must(verified_new(ranges[i], &x.all, &e), &e);
		must(verify(&x, &x.pa, x.all, &e), &e);
		must(verify(&x, &x.pb, x.all, &e), &e);
	}
	damage(&x, 299); /* of the last turn */
	for (i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
		verified_free(x.all);
		must(verified_new(ranges[i], &x.all, &e), &e);
		assert_int_equal(verify(&x, &x.pa, x.all, &e), LC_ECORRUPT);
		assert_non_null(strstr(e.msg, "one/vda at byte 19595264: "));
		lc_err_clear(&e);
	}
	free_twins(&x);
}

static void
many_at_once_stop_at_the_bad_one(void **state)
{
	static const uint64_t from[] = {148, 149, 150, 151};
	static uint8_t windows[CHUNK_MANY * WINDOW_SIZE], want[WINDOW_SIZE];
	uint8_t ids[CHUNK_MANY][CHUNK_ID_SIZE];
	struct lc_err e = LC_ERR_INIT;
	struct chunk_reader *r = NULL;
	uint64_t chunks[CHUNK_MANY];
	struct view *v = NULL;
	struct twins x;
	size_t i, k, good;

	(void)state;
	make_twins(&x);
	damage(&x, 151);
	must(store_view(x.v.s, x.pa.id, &v, &e), &e);
	must(chunk_reader_new(x.v.s, &r, &e), &e);
	for (i = 0; i < sizeof from / sizeof from[0]; i++) {
		must(view_map(v, 0, from[i], CHUNK_MANY, chunks, &e), &e);
		for (k = 0; k < CHUNK_MANY; k++)
			chunks[k] = chunks[k] == 0 ? chunks[CHUNK_MANY - 1 - k] : chunks[k];
		assert_int_equal(chunk_read_many(r, chunks, CHUNK_MANY, windows, ids, &good, &e),
		                 LC_ECORRUPT);
		assert_true(good <= 151 - from[i]);
		assert_non_null(strstr(e.msg, "segments/"));
		assert_true(lc_is_zero(windows + good * WINDOW_SIZE, WINDOW_SIZE));
		for (k = 0; k < good; k++) {
			if (x.a.codes[from[i] + k] == 0)
				continue;
			vault_fill(x.a.codes[from[i] + k], want);
			assert_memory_equal(windows + k * WINDOW_SIZE, want, WINDOW_SIZE);
			seal_id(x.v.s->keyring, want, want);
			assert_memory_equal(ids[k], want, CHUNK_ID_SIZE);
		}
		lc_err_clear(&e);
	}
	chunk_reader_free(r);
	view_close(v);
	free_twins(&x);
}

/* Rows are looked up for more chunks than are read at once: what moves in between is found. */
static void
what_moves_after_the_look_up_is_read(void **state)
{
	static uint8_t windows[CHUNK_MANY * WINDOW_SIZE], want[WINDOW_SIZE];
	uint8_t ids[CHUNK_MANY][CHUNK_ID_SIZE];
	struct record there, before;
	struct lc_err e = LC_ERR_INIT;
	struct chunk_reader *r = NULL;
	uint64_t chunks[2 * CHUNK_MANY], window = 140;
	struct view *v = NULL;
	struct twins x;
	size_t i, n = 0, good;

	(void)state;
	make_twins(&x);
	must(store_view(x.v.s, x.pa.id, &v, &e), &e);
	must(chunk_reader_new(x.v.s, &r, &e), &e);
	for (i = 0; n < sizeof chunks / sizeof chunks[0]; i++) {
		must(view_map(v, 0, window + i, 1, chunks + n, &e), &e);
		n += chunks[n] != 0 && (n == 0 || chunks[n] > chunks[n - 1]);
	}
	must(catalog_chunk(x.v.s->catalog, chunks[n - 1], &there, &e), &e);
	before = there;
	before.off += 8;
	must(catalog_put_chunk(x.v.s->catalog, there.seq, &before, &e), &e);
	must(chunk_read_many(r, chunks, n, windows, ids, &good, &e), &e);
	assert_int_equal(good, CHUNK_MANY);
	must(catalog_put_chunk(x.v.s->catalog, there.seq, &there, &e), &e);
	must(chunk_read_many(r, chunks + good, n - good, windows, ids, &good, &e), &e);
	assert_int_equal(good, CHUNK_MANY);
	assert_memory_equal(ids[CHUNK_MANY - 1], there.id, CHUNK_ID_SIZE);
	seal_id(x.v.s->keyring, windows + (size_t)(CHUNK_MANY - 1) * WINDOW_SIZE, want);
	assert_memory_equal(want, there.id, CHUNK_ID_SIZE);
	chunk_reader_free(r);
	view_close(v);
	free_twins(&x);
}

static void
a_chunk_that_the_catalog_has_not_is_named(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct twins x;
	struct view *v;
	uint64_t chunk;
	char sql[64];

	(void)state;
	make_twins(&x);
	must(store_view(x.v.s, x.pa.id, &v, &e), &e);
	must(view_map(v, 0, 151, 1, &chunk, &e), &e);
	view_close(v);
	(void)snprintf(sql, sizeof sql, "DELETE FROM chunk WHERE no = %llu",
	               (unsigned long long)chunk);
	must(sql_exec(x.v.s->catalog, sql, &e), &e);
	assert_int_equal(verify(&x, &x.pa, x.all, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "one/vda at byte 9895936: "));
	assert_non_null(strstr(e.msg, "the catalog has no chunk"));
	free_twins(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_chunk_is_read_once),
	    cmocka_unit_test(what_is_bad_is_bad_in_every_point),
	    cmocka_unit_test(every_window_that_is_damaged_counts),
	    cmocka_unit_test(in_turns_it_is_the_same),
	    cmocka_unit_test(many_at_once_stop_at_the_bad_one),
	    cmocka_unit_test(what_moves_after_the_look_up_is_read),
	    cmocka_unit_test(a_chunk_that_the_catalog_has_not_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

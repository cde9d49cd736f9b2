/*
 * Layers: bases that hold what changed, so that it is paid for once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/log.h"
#include "store/layer.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define PAGE 4096u
#define VERSIONS 60u

/* ---- one window ---- */

static void
a_layer_is_what_no_base_has(void **state)
{
	static uint8_t bases[2 * WINDOW_SIZE], window[WINDOW_SIZE], layer[WINDOW_SIZE];
	size_t i;

	(void)state;
	vault_fill(5, bases);
	memcpy(window, bases, WINDOW_SIZE);
	assert_false(layer_make(window, bases, 1, layer));
	memset(window + 8000, 'a', 100);
	memset(window + 20000, 'b', 64);
	assert_true(layer_make(window, bases, 1, layer));
	for (i = 0; i < WINDOW_SIZE; i++) {
		bool in = (i >= 8000 && i < 8112) || (i >= 20000 && i < 20064);

		assert_int_equal(layer[i], in ? window[i] : 0);
	}
	memset(bases + WINDOW_SIZE + 8000, 'a', 100); /* the other one has most of that */
	assert_true(layer_make(window, bases, 2, layer));
	assert_int_equal(layer[8000], 0);
	assert_int_equal(layer[20000], 'b');
}

static void
the_same_place_again_is_told(void **state)
{
	static uint8_t bases[2 * WINDOW_SIZE], old[WINDOW_SIZE], window[WINDOW_SIZE];

	(void)state;
	vault_fill(5, bases);
	memcpy(old, bases, WINDOW_SIZE);
	memset(old + 4096, 'a', 4096);
	memcpy(window, old, WINDOW_SIZE);
	memset(window + 4096, 'b', 4096);
	assert_true(layer_repeats(window, old, bases, 1));
	memset(bases + WINDOW_SIZE + 4096, 'a', 4096); /* that is in a layer */
	assert_true(layer_repeats(window, old, bases, 2));
	memset(window + 40960, 'c', 8192); /* and two others */
	assert_false(layer_repeats(window, old, bases, 2));
	assert_false(layer_repeats(old, bases, bases, 1));
}

/* ---- in a store ---- */

struct history {
	struct vault v;
	uint8_t now[WINDOW_SIZE];
	struct version {
		uint64_t chunk;
		uint8_t *window;
	} versions[VERSIONS + 1];
	size_t n;
	uint64_t seed;
};

static void
keep_version(struct history *h)
{
	struct writer_disk disk = {.name = "vda", .size = WINDOW_SIZE};
	struct writer_opts o = {.vm = "web01", .workers = 1, .level = 2};
	struct version *x = &h->versions[h->n++];
	struct commit_opts c = {0};
	struct lc_err e = LC_ERR_INIT;
	struct point p = {0};
	struct writer *w;

	must(writer_begin(h->v.s, &o, &w, &e), &e);
	must(writer_disks(w, &disk, 1, &e), &e);
	must(writer_put(w, 0, 0, 0, h->now, NULL, &e), &e);
	must(writer_commit(w, &c, &p, &e), &e);
	must(catalog_map(h->v.s->catalog, p.id, p.disks[0].id, 0, 1, &x->chunk, &e), &e);
	x->window = lc_alloc(WINDOW_SIZE);
	assert_non_null(x->window);
	memcpy(x->window, h->now, WINDOW_SIZE);
	point_done(&p);
}

static void
begin(struct history *h)
{
	memset(h, 0, sizeof *h);
	h->seed = 7;
	vault_make(&h->v, true);
	vault_open(&h->v);
	vault_fill(5, h->now);
	keep_version(h);
}

static void
end(struct history *h)
{
	while (h->n > 0)
		lc_free(h->versions[--h->n].window);
	vault_free(&h->v);
}

/* Nobody asks for it any more. */
static void
drop_version(struct history *h, size_t i)
{
	lc_free(h->versions[i].window);
	memmove(&h->versions[i], &h->versions[i + 1], (h->n - i - 1) * sizeof h->versions[0]);
	h->n--;
}

/* A page becomes noise. */
static void
change(struct history *h, unsigned page)
{
	size_t i;

	for (i = 0; i < PAGE; i++)
		h->now[page * PAGE + i] = (uint8_t)vault_random(&h->seed, 256);
}

static void
check(struct history *h)
{
	static uint8_t window[WINDOW_SIZE];
	struct lc_err e = LC_ERR_INIT;
	struct chunk_reader *r;
	size_t i;

	must(chunk_reader_new(h->v.s, &r, &e), &e);
	for (i = 0; i < h->n; i++) {
		must(chunk_read(r, h->versions[i].chunk, window, NULL, &e), &e);
		assert_memory_equal(window, h->versions[i].window, WINDOW_SIZE);
	}
	chunk_reader_free(r);
}

struct counts {
	unsigned whole, deltas, most; /* most: bases */
	uint64_t bytes;
};

static struct counts
count(struct history *h)
{
	struct catalog *c = h->v.s->catalog;
	uint64_t bases[CHUNK_BASES_MAX], no;
	struct counts x = {0};
	struct record r, b;
	size_t i, n;

	for (no = 1; no < 2000; no++) {
		if (catalog_chunk(c, no, &r, NULL) != 0)
			continue;
		x.bytes += r.n;
		must(catalog_bases(c, no, bases, &n, NULL), &(struct lc_err){0});
		x.most = n > x.most ? (unsigned)n : x.most;
		x.whole += n == 0;
		x.deltas += n > 0;
		for (i = 0; i < n; i++) {
			must(catalog_chunk(c, bases[i], &b, NULL), &(struct lc_err){0});
			assert_false(chunk_is_delta(b.encoding));
		}
	}
	return x;
}

/* Four pages of a window, one after the other: each is paid for once. */
static void
a_page_is_paid_for_once(void **state)
{
	struct history h;
	struct counts x;
	uint64_t before;
	unsigned i;

	(void)state;
	begin(&h);
	before = count(&h).bytes;
	for (i = 0; i < 4; i++) {
		change(&h, 3 * i);
		keep_version(&h);
	}
	x = count(&h);
	assert_int_equal(x.whole, 4); /* the first, and three layers */
	assert_int_equal(x.deltas, 4);
	assert_int_equal(x.most, CHUNK_BASES_MAX);
	assert_in_range(x.bytes - before, 4 * PAGE, 4 * (PAGE + 400));
	check(&h);
	end(&h);
}

static void
any_history_reads_true(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct history h;
	struct counts x;
	unsigned i;

	(void)state;
	begin(&h);
	for (i = 0; i < VERSIONS; i++) {
		change(&h, (unsigned)vault_random(&h.seed, 16));
		if (i % 7 == 0) { /* and now and then a little */
			h.now[vault_random(&h.seed, WINDOW_SIZE)] ^= 1;
			h.now[vault_random(&h.seed, WINDOW_SIZE)] ^= 2;
		}
		keep_version(&h);
	}
	x = count(&h);
	/* 20000 without, 12456 where all layers are put together each time */
	assert_in_range(x.bytes / VERSIONS, PAGE, 12000);
	check(&h);
	vault_close(&h.v);
	must(store_rebuild(&(struct store_opts){.dir = h.v.dir, .key_dir = h.v.keys}, &e), &e);
	vault_open(&h.v);
	check(&h);
	must(store_scrub(h.v.s, NULL, NULL, NULL, NULL, &e), &e);
	end(&h);
}

/* Its versions are no bases for one another. */
static void
a_page_that_changes_again_and_again_stays_out_of_them(void **state)
{
	struct history h;
	struct counts x;
	unsigned i;

	(void)state;
	begin(&h);
	for (i = 0; i < VERSIONS; i++) {
		change(&h, 4);
		keep_version(&h);
	}
	x = count(&h);
	assert_in_range(x.whole, 1, 3);
	assert_in_range(x.bytes / VERSIONS, PAGE, PAGE * 6 / 5 + WINDOW_SIZE / VERSIONS);
	check(&h);
	end(&h);
}

/* A layer goes bad: what is made upon it is named, and comes again. */
static void
a_bad_layer_is_found_and_healed(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece piece;
	struct damage d = {0};
	struct history h;
	unsigned i;

	(void)state;
	begin(&h);
	for (i = 0; i < 3; i++) {
		change(&h, 2 * i);
		keep_version(&h);
	}
	vault_close(&h.v);
	assert_true(vault_piece_of(h.v.dir, RECORD_CHUNK, 1, &piece)); /* the first layer */
	vault_flip(h.v.dir, &piece, 2000, 1);
	vault_open(&h.v);
	assert_int_equal(store_scrub(h.v.s, vault_on_damage, &d, NULL, NULL, NULL), LC_ECORRUPT);
	assert_non_null(strstr(d.affects, "web01/vda in 3 restore points"));
	must(store_condemn(h.v.s, &d, 1, NULL, &e), &e);
	keep_version(&h); /* the same content, whole */
	change(&h, 9);
	keep_version(&h);       /* upon that */
	for (i = 1; i < 3; i++) /* what can't be made again */
		drop_version(&h, 1);
	check(&h);
	end(&h);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_layer_is_what_no_base_has),
	    cmocka_unit_test(the_same_place_again_is_told),
	    cmocka_unit_test(a_page_is_paid_for_once),
	    cmocka_unit_test(any_history_reads_true),
	    cmocka_unit_test(a_page_that_changes_again_and_again_stays_out_of_them),
	    cmocka_unit_test(a_bad_layer_is_found_and_healed),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * reader and cache: right bytes at every alignment, one decode for many askers, bounds that hold,
 * failures that are told and not kept.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>

#include "restore/cache.h"
#include "restore/reader.h"
#include "tests/unit/fake_store.h"

#define MIB (UINT64_C(1) << 20)
#define W ((uint64_t)WINDOW_SIZE)

static struct reader *
make(uint64_t cache_bytes)
{
	struct reader_opts opts = {.cache_bytes = cache_bytes};
	struct lc_err e = LC_ERR_INIT;
	struct reader *r = NULL;

	if (reader_new(NULL, NULL, &opts, &r, &e) != 0)
		fail_msg("%s", e.msg);
	return r;
}

/* No assertion inside, as it is called on other threads too. */
static bool
reads_right(struct reader *r, size_t disk, uint64_t off, size_t n)
{
	uint8_t *p = malloc(n + 2);
	struct lc_err e = LC_ERR_INIT;
	bool ok;
	size_t i;

	p[0] = p[n + 1] = 0xa5;
	ok = reader_read(r, disk, p + 1, n, off, &e) == 0 && p[0] == 0xa5 && p[n + 1] == 0xa5;
	for (i = 0; ok && i < n; i++)
		ok = p[i + 1] == fake_byte(disk, off + i);
	free(p);
	return ok;
}

static void
test_any_alignment(void **state)
{
	static const uint64_t sizes[] = {3 * MIB + 12345, 1, 300 * MIB};
	static const uint64_t offs[] = {0, 1, 511, 65535, 65536, 65537, 131071, 1000000};
	static const size_t lens[] = {0, 1, 2, 511, 4096, 65535, 65536, 65537, 200000};
	struct reader *r;
	size_t i, j;

	(void)state;
	fake_reset(sizes, 3);
	fake.zero_every = 3;
	r = make(MIB);
	for (i = 0; i < sizeof offs / sizeof offs[0]; i++) {
		for (j = 0; j < sizeof lens / sizeof lens[0]; j++)
			assert_true(reads_right(r, 0, offs[i], lens[j]));
	}
	assert_true(reads_right(r, 0, 0, (size_t)sizes[0]));
	assert_true(reads_right(r, 0, sizes[0] - 1, 1));
	assert_true(reads_right(r, 1, 0, 1));
	/* Across the end of a map page (4096 windows). */
	assert_true(reads_right(r, 2, 4096 * W - 70000, 140000));
	assert_true(reads_right(r, 2, 4096 * W, 10));
	reader_free(r);
	assert_int_equal(atomic_load(&fake.contexts), 0);
}

static void
test_range(void **state)
{
	static const uint64_t sizes[] = {MIB + 5};
	struct reader_extent x[4];
	struct lc_err e = LC_ERR_INIT;
	struct reader *r;
	uint8_t b[8];
	size_t n;

	(void)state;
	fake_reset(sizes, 1);
	r = make(MIB);
	assert_int_equal(reader_read(r, 0, b, 1, MIB + 5, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, "web01/d0"));
	assert_int_equal(reader_read(r, 0, b, 2, MIB + 4, NULL), LC_EINVAL);
	assert_int_equal(reader_read(r, 0, b, 8, UINT64_MAX - 3, NULL), LC_EINVAL);
	assert_int_equal(reader_read(r, 1, b, 1, 0, NULL), LC_EINVAL);
	assert_int_equal(reader_extents(r, 0, MIB, 6, x, 4, &n, NULL), LC_EINVAL);
	assert_int_equal(reader_extents(r, 7, 0, 1, x, 4, &n, NULL), LC_EINVAL);
	assert_int_equal(reader_read(r, 0, b, 0, MIB + 5, NULL), 0);
	reader_free(r);
}

static void
test_cached_and_bounded(void **state)
{
	static const uint64_t sizes[] = {64 * MIB};
	struct reader *r;
	unsigned before;

	(void)state;
	fake_reset(sizes, 1);
	r = make(16 * MIB);
	assert_true(reads_right(r, 0, 0, MIB));
	assert_int_equal(atomic_load(&fake.reads), 16);
	assert_true(reads_right(r, 0, 0, MIB));
	assert_int_equal(atomic_load(&fake.reads), 16); /* all from the cache */
	assert_int_equal(atomic_load(&fake.maps), 1);
	assert_true(reads_right(r, 0, 0, 64 * MIB)); /* four times the cache */
	before = atomic_load(&fake.reads);
	assert_int_equal(before, 1024);
	assert_true(
	    reads_right(r, 0, 63 * MIB, MIB)); /* the newest are still there, more or less: */
	assert_in_range(atomic_load(&fake.reads) - before, 0, 8); /* shards fill unevenly */
	assert_true(reads_right(r, 0, 0, MIB));                   /* the oldest are gone */
	assert_in_range(atomic_load(&fake.reads) - before, 16, 24);
	reader_free(r);
}

static void
test_same_chunk_decoded_once(void **state)
{
	static const uint64_t sizes[] = {8 * MIB};
	struct reader *r;

	(void)state;
	fake_reset(sizes, 1);
	fake.distinct = 4;
	r = make(MIB);
	assert_true(reads_right(r, 0, 0, 8 * MIB));
	assert_int_equal(atomic_load(&fake.reads), 4);
	reader_free(r);
}

static void
test_prefetch(void **state)
{
	static const uint64_t sizes[] = {4 * MIB};
	struct lc_err e = LC_ERR_INIT;
	struct reader *r;

	(void)state;
	fake_reset(sizes, 1);
	r = make(4 * MIB);
	assert_int_equal(reader_prefetch(r, 0, MIB + 1, 1, &e), 0);
	assert_int_equal(atomic_load(&fake.reads), 17);
	assert_true(reads_right(r, 0, 1, MIB + 1));
	assert_int_equal(atomic_load(&fake.reads), 17);
	reader_free(r);
}

static void
test_damage(void **state)
{
	static const uint64_t sizes[] = {4 * MIB};
	struct lc_err e = LC_ERR_INIT;
	struct reader *r;
	uint8_t *p = malloc(MIB);

	(void)state;
	fake_reset(sizes, 1);
	fake.bad_chunk = fake_chunk(0, 5);
	atomic_store(&fake.bad_times, 2);
	r = make(MIB);
	assert_int_equal(reader_read(r, 0, p, MIB, 0, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "web01/d0 at byte 327680: segment-7 at 4096"));
	assert_true(reads_right(r, 0, 0, 5 * W)); /* the others can be read */
	assert_true(reads_right(r, 0, 6 * W, 10 * W));
	assert_int_equal(reader_read(r, 0, p, 1, 5 * W, NULL), LC_ECORRUPT);
	assert_true(reads_right(r, 0, 5 * W, W)); /* healed meanwhile: a failure is not kept */
	atomic_store(&fake.map_fails, 1);
	assert_int_equal(reader_read(r, 0, p, 1, 0, NULL), 0); /* that page is cached */
	reader_free(r);

	r = make(MIB);
	lc_err_clear(&e);
	assert_int_equal(reader_read(r, 0, p, 1, 100, &e), LC_EIO);
	assert_non_null(strstr(e.msg, "web01/d0 at byte 100: catalog: broken"));
	assert_true(reads_right(r, 0, 0, MIB));
	reader_free(r);
	free(p);
}

static void
test_no_memory(void **state)
{
	static const uint64_t sizes[] = {4 * MIB};
	struct reader_opts opts = {.cache_bytes = MIB};
	struct reader *r = NULL;
	uint8_t p[100];
	long n;
	int rc = -1;

	(void)state;
	fake_reset(sizes, 1);
	for (n = 0; rc != 0 && n < 1000; n++) {
		struct lc_err e = LC_ERR_INIT;

		lc_alloc_fail_after(n);
		rc = reader_new(NULL, NULL, &opts, &r, &e);
		if (rc == 0) {
			rc = reader_read(r, 0, p, sizeof p, W - 50, &e);
			lc_alloc_fail_after(-1);
			if (rc != 0)
				assert_true(reads_right(r, 0, W - 50, 100)); /* later it works */
			reader_free(r);
		}
		lc_alloc_fail_after(-1);
		if (rc != 0)
			assert_int_equal(e.code, LC_ENOMEM);
	}
	assert_int_equal(rc, 0);
	assert_int_equal(atomic_load(&fake.contexts), 0);
}

/* ---- extents ---- */

static void
test_extents(void **state)
{
	static const uint64_t sizes[] = {MIB + 5, 8 * 1024 * MIB};
	struct reader_extent x[600];
	uint64_t at;
	struct reader *r;
	size_t i, n;

	(void)state;
	fake_reset(sizes, 2);
	fake.zero_every = 4;
	r = make(MIB);
	assert_int_equal(reader_extents(r, 0, 10, MIB - 5, x, 600, &n, NULL), 0);
	assert_int_equal(x[0].off, 10);
	for (at = 10, i = 0; i < n; i++) {
		uint64_t o;

		assert_int_equal(x[i].off, at);
		assert_true(x[i].len > 0);
		for (o = at; o < at + x[i].len; o += 4096)
			assert_int_equal(x[i].data, fake_chunk(0, o / W) != 0);
		if (i > 0)
			assert_true(x[i].data != x[i - 1].data);
		at += x[i].len;
	}
	assert_int_equal(at, MIB + 5);
	assert_int_equal(n, 9);
	/* A bound on what is given ... */
	assert_int_equal(reader_extents(r, 0, 0, MIB + 5, x, 1, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(x[0].len, W);
	assert_false(x[0].data);
	assert_int_equal(reader_extents(r, 0, W, MIB - W, x, 1, &n, NULL), 0);
	assert_int_equal(x[0].len, 3 * W);
	assert_int_equal(reader_extents(r, 0, 0, 0, x, 1, &n, NULL), 0);
	assert_int_equal(n, 0);
	reader_free(r);

	/* ... and on the work: an empty disk of 2 TiB in pages of 256 MiB. */
	fake_reset((const uint64_t[]){UINT64_C(2) << 40}, 1);
	fake.zero_every = 1;
	r = make(MIB);
	assert_int_equal(reader_extents(r, 0, 0, UINT64_C(2) << 40, x, 600, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(x[0].len, 64 * 256 * MIB);
	assert_int_equal(atomic_load(&fake.maps), 64);
	reader_free(r);
}

/* ---- threads ---- */

#define THREADS 8

struct job {
	pthread_t thread;
	pthread_barrier_t *start;
	struct reader *r;
	unsigned seed;
	unsigned wrong, failed;
};

static void *
read_one_window(void *arg)
{
	struct job *j = arg;

	(void)pthread_barrier_wait(j->start);
	j->wrong += !reads_right(j->r, 0, 7 * W + j->seed, 1000);
	return NULL;
}

static void
run_jobs(struct reader *r, void *(*fn)(void *), struct job jobs[THREADS])
{
	pthread_barrier_t start;
	unsigned i;

	assert_int_equal(pthread_barrier_init(&start, NULL, THREADS), 0);
	for (i = 0; i < THREADS; i++) {
		jobs[i] = (struct job){.start = &start, .r = r, .seed = i + 1};
		assert_int_equal(pthread_create(&jobs[i].thread, NULL, fn, &jobs[i]), 0);
	}
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(jobs[i].thread, NULL), 0);
	(void)pthread_barrier_destroy(&start);
}

static void
test_single_flight(void **state)
{
	static const uint64_t sizes[] = {4 * MIB};
	struct job jobs[THREADS];
	struct reader *r;
	unsigned i;

	(void)state;
	fake_reset(sizes, 1);
	fake.delay_us = 20000;
	r = make(MIB);
	run_jobs(r, read_one_window, jobs);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(jobs[i].wrong, 0);
	assert_int_equal(atomic_load(&fake.reads), 1);
	assert_int_equal(atomic_load(&fake.maps), 1);
	assert_int_equal(atomic_load(&fake.contexts), 1);

	/* All who wait for a decode that fails are told. */
	fake.bad_chunk = fake_chunk(0, 7);
	atomic_store(&fake.bad_times, -1);
	reader_free(r);
	r = make(MIB);
	run_jobs(r, read_one_window, jobs);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(jobs[i].wrong, 1);
	reader_free(r);
}

static void *
read_at_random(void *arg)
{
	struct job *j = arg;
	unsigned i;

	(void)pthread_barrier_wait(j->start);
	for (i = 0; i < 300; i++) {
		uint64_t off = (uint64_t)rand_r(&j->seed) % (40 * MIB);
		size_t n = (size_t)rand_r(&j->seed) % 150000;
		struct reader_extent x[8];
		size_t nx;

		if (i % 5 == 0)
			j->failed += reader_extents(j->r, 0, off, n + 1, x, 8, &nx, NULL) != 0;
		else if (fake.bad_chunk == 0)
			j->wrong += !reads_right(j->r, 0, off, n);
		else
			(void)reads_right(j->r, 0, off, n);
	}
	return NULL;
}

/* A cache far smaller than what is held at once: blocks come and go under everybody's hands. */
static void
test_many_threads(void **state)
{
	static const uint64_t sizes[] = {41 * MIB};
	struct job jobs[THREADS];
	struct reader *r;
	unsigned i;

	(void)state;
	fake_reset(sizes, 1);
	fake.zero_every = 7;
	r = make(W);
	run_jobs(r, read_at_random, jobs);
	for (i = 0; i < THREADS; i++) {
		assert_int_equal(jobs[i].wrong, 0);
		assert_int_equal(jobs[i].failed, 0);
	}
	assert_in_range(atomic_load(&fake.contexts), 1, THREADS);
	reader_free(r);
	/* Again while some decodes fail. */
	fake.bad_chunk = fake_chunk(0, 100);
	atomic_store(&fake.bad_times, -1);
	r = make(4 * MIB);
	run_jobs(r, read_at_random, jobs);
	reader_free(r);
	assert_int_equal(atomic_load(&fake.contexts), 0);
}

/* ---- the cache's own bound ---- */

static int
fill_with_key(void *arg, uint64_t key, void *block, struct lc_err *e)
{
	(void)arg;
	(void)e;
	memcpy(block, &key, sizeof key);
	return 0;
}

static void
test_cache_bound(void **state)
{
	struct cache_opts opts = {
	    .block_size = 64, .nblocks = 10, .nshards = 2, .fill = fill_with_key};
	struct cache_block *held[40];
	struct cache_stats st;
	struct cache *c = NULL;
	uint64_t i, key;

	(void)state;
	assert_int_equal(cache_new(&opts, &c, NULL), 0);
	for (i = 0; i < 40; i++)
		assert_int_equal(cache_get(c, i, &held[i], NULL), 0);
	cache_stats(c, &st);
	assert_int_equal(st.blocks, 40); /* nothing that is held goes */
	for (i = 0; i < 40; i++) {
		memcpy(&key, cache_data(held[i]), sizeof key);
		assert_int_equal(key, i);
		cache_put(c, held[i]);
	}
	cache_stats(c, &st);
	assert_int_equal(st.blocks, 10);
	for (i = 0; i < 1000; i++) {
		assert_int_equal(cache_get(c, i, &held[0], NULL), 0);
		memcpy(&key, cache_data(held[0]), sizeof key);
		assert_int_equal(key, i);
		cache_put(c, held[0]);
	}
	cache_stats(c, &st);
	assert_in_range(st.blocks, 1, 10);
	cache_free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_any_alignment),
	    cmocka_unit_test(test_range),
	    cmocka_unit_test(test_cached_and_bounded),
	    cmocka_unit_test(test_same_chunk_decoded_once),
	    cmocka_unit_test(test_prefetch),
	    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_no_memory),
	    cmocka_unit_test(test_extents),
	    cmocka_unit_test(test_single_flight),
	    cmocka_unit_test(test_many_threads),
	    cmocka_unit_test(test_cache_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

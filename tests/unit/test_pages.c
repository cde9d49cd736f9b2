/*
 * The index of pages: a hint that may forget, and never says what was not put.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/memory.h"
#include "store/pages.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/unit/vectors_keys.h"

#define KIB UINT64_C(1024)

static const uint8_t store_id[16] = "a store", other_id[16] = "another";
static struct keyring *keys;
static char *top;
static const char *path;

static struct pages *
open_pages(uint64_t bytes)
{
	struct lc_err e = LC_ERR_INIT;
	struct pages *x = NULL;

	must(pages_open(path, keys, store_id, bytes, &x, &e), &e);
	return x;
}

static uint64_t
size_of(const char *file)
{
	struct stat st;

	return stat(file, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* The nth window of random pages, by their tags. */
static struct page_tags
window_of(const struct pages *x, uint64_t n)
{
	static uint8_t window[WINDOW_SIZE];
	struct page_tags t;
	size_t i;

	for (i = 0; i < WINDOW_PAGES; i++) {
		uint64_t v = n * WINDOW_PAGES + i + 1;

		memcpy(window + i * PAGE_SIZE, &v, sizeof v);
	}
	pages_tags(x, window, &t);
	return t;
}

static void
put(struct pages *x, uint64_t n, uint64_t chunk)
{
	struct page_tags t = window_of(x, n);

	pages_put(x, &t, chunk);
}

/* Of its pages so many are known, and all of them by that chunk. */
static unsigned
known(struct pages *x, uint64_t n, uint64_t chunk)
{
	struct page_tags t = window_of(x, n);
	uint64_t chunks[WINDOW_PAGES];
	unsigned found = 0;
	size_t i;

	(void)pages_find(x, &t, chunks);
	for (i = 0; i < WINDOW_PAGES; i++) {
		if (chunks[i] == 0)
			continue;
		assert_int_equal(chunks[i], chunk);
		found++;
	}
	return found;
}

static void
pages_are_known_wherever_they_lie(void **state)
{
	static uint8_t window[WINDOW_SIZE], moved[WINDOW_SIZE];
	struct pages *x = open_pages(1024 * KIB);
	uint64_t chunks[WINDOW_PAGES];
	struct page_tags t;
	size_t i;

	(void)state;
	for (i = 0; i < WINDOW_SIZE / 2; i++)
		window[i] = (uint8_t)(i / PAGE_SIZE + i % 7 + 1);
	memcpy(moved + 5 * (size_t)PAGE_SIZE, window, WINDOW_SIZE / 2);
	pages_tags(x, window, &t);
	pages_put(x, &t, 77);
	pages_tags(x, moved, &t);
	assert_int_equal(pages_find(x, &t, chunks), 8); /* zeros are not looked up */
	for (i = 0; i < WINDOW_PAGES; i++)
		assert_int_equal(chunks[i], i >= 5 && i < 13 ? 77 : 0);
	pages_close(x);
}

/* Also when a page came again: the last one counts. */
static void
what_is_found_was_put(void **state)
{
	struct pages *x = open_pages(1024 * KIB);
	unsigned i, found = 0;

	(void)state;
	for (i = 0; i < 3000; i++)
		put(x, i, i + 1);
	for (i = 0; i < 1000; i++)
		put(x, i, i + 5000);
	for (i = 0; i < 3500; i++)
		found += known(x, i, i < 1000 ? i + 5000 : i + 1);
	assert_int_equal(pages_level(x), 0);
	assert_in_range(found, 3000 * WINDOW_PAGES * 95 / 100, 3000 * WINDOW_PAGES);
	pages_close(x);
	assert_in_range(size_of(path), 1, 3500 * WINDOW_PAGES * 10); /* ten bytes for each */
	x = open_pages(1024 * KIB);
	for (i = 0; i < 3500; i++)
		found -= known(x, i, i < 1000 ? i + 5000 : i + 1);
	assert_int_equal(found, 0); /* as many as before */
	pages_close(x);
}

static void
a_full_one_keeps_some_of_all(void **state)
{
	struct pages *x = open_pages(128 * KIB); /* 16384 entries */
	unsigned i, level, old = 0, young = 0;

	(void)state;
	for (i = 0; i < 5000; i++)
		put(x, i, i + 1);
	level = pages_level(x);
	assert_in_range(level, 2, 5);
	for (i = 0; i < 1000; i++) {
		old += known(x, i, i + 1);
		young += known(x, 4000 + i, 4001 + i);
	}
	/* As many of the first as of the last; and nearly all that it keeps. */
	assert_in_range(old, (1000 * WINDOW_PAGES >> level) * 8 / 10,
	                (1000 * WINDOW_PAGES >> level) * 12 / 10);
	assert_in_range(young, (1000 * WINDOW_PAGES >> level) * 8 / 10,
	                (1000 * WINDOW_PAGES >> level) * 12 / 10);
	pages_settle(x);
	pages_close(x);
	assert_in_range(size_of(path), 1, 132 * KIB);
	x = open_pages(128 * KIB);
	assert_int_equal(pages_level(x), level);
	pages_close(x);
}

static void
it_is_of_one_store_and_one_domain(void **state)
{
	char code[RECOVERY_CODE_MAX];
	struct keyring *other = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct page_tags a, b;
	struct pages *x = open_pages(64 * KIB), *y = NULL;

	(void)state;
	put(x, 1, 1);
	a = window_of(x, 1);
	pages_close(x);
	must(pages_open(path, keys, other_id, 64 * KIB, &y, &e), &e);
	assert_int_equal(known(y, 1, 1), 0);
	put(y, 1, 1);
	pages_close(y);
	must(keyring_new(code, &other, &e), &e);
	must(pages_open(path, other, other_id, 64 * KIB, &y, &e), &e);
	b = window_of(y, 1);
	assert_memory_not_equal(&a, &b, sizeof a);
	assert_int_equal(known(y, 1, 1), 0);
	pages_close(y);
	keyring_free(other);
	assert_int_equal(pages_open("/nowhere/pages", keys, store_id, 64 * KIB, &y, &e), LC_ENOENT);
}

/* Find and put on whatever lies there: nothing but wrong hints may come of it. */
static void
use(uint64_t bytes)
{
	struct pages *x = open_pages(bytes);
	uint64_t chunks[WINDOW_PAGES];
	struct page_tags t;
	uint64_t i;

	for (i = 0; i < 200; i++) {
		t = window_of(x, i);
		assert_in_range(pages_find(x, &t, chunks), 0, WINDOW_PAGES);
	}
	for (i = 300; i < 1500; i++)
		put(x, i, i + 1);
	pages_close(x);
}

static void
damage_costs_hints(void **state)
{
	struct pages *x;
	unsigned i, seed = 1;
	uint8_t byte;
	uint64_t n;
	int fd;

	(void)state;
	for (i = 0; i < 150; i++) {
		x = open_pages(256 * KIB);
		for (n = 0; n < 200; n++)
			put(x, n, n + 1);
		pages_close(x);
		n = size_of(path);
		fd = open(path, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
		if (i % 3 == 0) /* the head, anywhere, cut */
			n = (unsigned)rand_r(&seed) % 72;
		else
			n = (unsigned)rand_r(&seed) % n;
		byte = (uint8_t)rand_r(&seed);
		if (i % 3 == 2)
			assert_int_equal(ftruncate(fd, (off_t)n), 0);
		else
			assert_int_equal(pwrite(fd, &byte, 1, (off_t)n), 1);
		(void)close(fd);
		use(i % 2 == 0 ? 256 * KIB : 64 * KIB);
		(void)unlink(path);
	}
}

static void
no_memory_means_no_growth(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct pages *x = NULL;
	unsigned i, n, found = 0;

	(void)state;
	for (n = 0; n < 4; n++) {
		lc_alloc_fail_after((long)n);
		assert_int_equal(pages_open(path, keys, store_id, 256 * KIB, &x, &e), LC_ENOMEM);
		lc_alloc_fail_after(-1);
		lc_err_clear(&e);
	}
	x = open_pages(256 * KIB);
	for (n = 0; n < 3; n++) {
		lc_alloc_fail_after((long)n);
		for (i = 0; i < 300; i++)
			put(x, i, i + 1);
		lc_alloc_fail_after(-1);
	}
	for (i = 200; i < 300; i++) /* the youngest are there */
		found += known(x, i, i + 1);
	assert_in_range(found, 500, 1600);
	put(x, 1, 2); /* now it grows */
	for (i = 0; i < 300; i++)
		put(x, i, i + 1);
	for (i = 0, found = 0; i < 300; i++)
		found += known(x, i, i + 1);
	assert_in_range(found, 4600, 4800);
	pages_close(x);
}

/* The table is never there twice: what `similar_max` says is what a host has to have. */
static void
a_full_one_needs_no_memory(void **state)
{
	struct pages *x = open_pages(64 * KIB);
	unsigned i;

	(void)state;
	for (i = 0; i < 440; i++) /* 7040 of 8192: below nine in ten */
		put(x, i, i + 1);
	assert_int_equal(pages_level(x), 0);
	lc_alloc_fail_after(0);
	for (; i < 520; i++)
		put(x, i, i + 1);
	lc_alloc_fail_after(-1);
	assert_int_equal(pages_level(x), 1);
	pages_close(x);
}

static int
set_up(void **state)
{
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	top = tmpdir_new();
	path = tmpdir_path(top, "pages");
	must(keyring_open_code((struct lc_span){vector_keys, sizeof vector_keys}, VECTOR_CODE,
	                       &keys, &e),
	     &e);
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	keyring_free(keys);
	tmpdir_free(top);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(pages_are_known_wherever_they_lie, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(what_is_found_was_put, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_full_one_keeps_some_of_all, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(it_is_of_one_store_and_one_domain, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(damage_costs_hints, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(no_memory_means_no_growth, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_full_one_needs_no_memory, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

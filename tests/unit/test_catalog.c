/*
 * catalog: rows of several chunks at once are those that each has by itself, and bases are known.
 */
#include <string.h>

#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define N 12u /* chunks of the vault */

/* The number of the first chunk. */
static uint64_t
first_chunk(struct catalog *c)
{
	struct record r;
	uint64_t no = 1;

	while (catalog_find_chunk(c, no, &r, NULL) != 0)
		assert_true(++no < 100);
	return no;
}

/* chunks: 0 for the first one, N and above where there is none. */
static void
check_chunks(struct catalog *c, const uint64_t *chunks, size_t n)
{
	uint64_t first = first_chunk(c), numbers[N];
	struct record got[N], one;
	size_t i;

	assert_true(n <= N);
	for (i = 0; i < n; i++)
		numbers[i] = first + chunks[i];
	memset(got, 0xee, sizeof got);
	catalog_chunks(c, numbers, n, got);
	for (i = 0; i < n; i++) {
		memset(&one, 0, sizeof one);
		assert_int_equal(catalog_find_chunk(c, numbers[i], &one, NULL),
		                 chunks[i] < N ? 0 : LC_ENOENT);
		assert_int_equal(got[i].seq, chunks[i] < N ? numbers[i] : 0);
		assert_int_equal(got[i].segment, one.segment);
		assert_int_equal(got[i].off, one.off);
		assert_int_equal(got[i].n, one.n);
		assert_memory_equal(got[i].id, one.id, sizeof one.id);
	}
}

static void
several_chunks_are_found_as_each_is(void **state)
{
	static const struct {
		size_t n;
		uint64_t chunks[5];
	} cases[] = {
	    {4, {2, 3, 4, 5}},        /* a range, */
	    {5, {2, 3, 6, 7, 8}},     /* others in it, */
	    {5, {9, 10, 11, 12, 13}}, /* and an end that is not there */
	    {3, {0, 1, 11}},          /* far apart */
	    {3, {5, 4, 3}},           /* the other way */
	    {3, {3, 3, 4}},           /* twice */
	    {2, {20, 21}},            /* none */
	    {1, {7}},
	    {0, {0}},
	};
	struct vault_disk d = vault_disk("vda", N);
	struct lc_err e = LC_ERR_INIT;
	struct point p;
	struct vault v;
	size_t i;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	for (i = 0; i < N; i++)
		d.codes[i] = i + 1;
	must(vault_backup(v.s, "web01", &d, 1, &p, &e), &e);
	for (i = 0; i < sizeof cases / sizeof *cases; i++)
		check_chunks(v.s->catalog, cases[i].chunks, cases[i].n);
	vault_disk_free(&d);
	vault_free(&v);
}

static void
bases_are_told_from_others(void **state)
{
	static const uint64_t chunks[] = {3, 4, 6, 7, 9}, bases[] = {2, 4, 5, 9, 10};
	struct lc_err e = LC_ERR_INIT;
	bool is[5] = {true, true, true, true, true};
	struct vault v;
	size_t i;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	for (i = 0; i < 5; i++) {
		must(catalog_put_base(v.s->catalog, 20, bases[i], &e), &e);
		must(catalog_put_base(v.s->catalog, 21, bases[i], &e), &e);
	}
	catalog_which_are_bases(v.s->catalog, chunks, 5, is);
	for (i = 0; i < 5; i++)
		assert_int_equal(is[i], chunks[i] == 4 || chunks[i] == 9);
	catalog_which_are_bases(v.s->catalog, chunks, 0, is);
	vault_free(&v);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(several_chunks_are_found_as_each_is),
	                                   cmocka_unit_test(bases_are_told_from_others)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The contents that deltas were read with last.
 */
#include <string.h>

#include "store/bases.h"
#include "store/seal.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

static uint8_t window[WINDOW_SIZE], got[WINDOW_SIZE];

static const uint8_t *
id_of(uint64_t n)
{
	static uint8_t id[CHUNK_ID_SIZE];
	uint64_t seed = n;
	size_t i;

	for (i = 0; i < sizeof id; i++)
		id[i] = (uint8_t)vault_random(&seed, 256);
	return id;
}

static void
put(struct bases *b, uint64_t n, bool checked)
{
	vault_fill(n, window);
	bases_put(b, id_of(n), checked, window);
}

static bool
has(struct bases *b, uint64_t n, bool checked)
{
	if (!bases_get(b, id_of(n), checked, got))
		return false;
	vault_fill(n, window);
	assert_memory_equal(got, window, WINDOW_SIZE);
	return true;
}

static void
what_was_not_checked_is_not_given_for_checked(void **state)
{
	struct bases *b;

	(void)state;
	assert_int_equal(bases_new(&b, NULL), 0);
	assert_false(has(b, 7, false));
	put(b, 7, false);
	assert_true(has(b, 7, false));
	assert_false(has(b, 7, true));
	put(b, 7, true);
	assert_true(has(b, 7, true));
	assert_true(has(b, 7, false));
	/* What somebody has decoded without a look takes nothing back. */
	memset(window, 1, sizeof window);
	bases_put(b, id_of(7), false, window);
	assert_true(has(b, 7, true));
	bases_free(b);
	bases_free(NULL);
}

static void
there_are_so_many_and_no_more(void **state)
{
	struct bases *b;
	uint64_t i, n = 0;

	(void)state;
	assert_int_equal(bases_new(&b, NULL), 0);
	for (i = 1; i <= 1000; i++)
		put(b, i, true);
	for (i = 1; i <= 1000; i++)
		n += has(b, i, true);
	assert_in_range(n, 200, 256);
	assert_true(has(b, 1000, true)); /* the newest one stays */
	bases_free(b);
}

static void
without_memory_nothing_is_kept(void **state)
{
	struct bases *b;

	(void)state;
	assert_int_equal(bases_new(&b, NULL), 0);
	lc_alloc_fail_after(0);
	put(b, 3, true);
	lc_alloc_fail_after(-1);
	assert_false(has(b, 3, false));
	put(b, 3, true);
	assert_true(has(b, 3, true));
	bases_free(b);
	lc_alloc_fail_after(0);
	assert_int_equal(bases_new(&b, NULL), LC_ENOMEM);
	lc_alloc_fail_after(-1);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_was_not_checked_is_not_given_for_checked),
	    cmocka_unit_test(there_are_so_many_and_no_more),
	    cmocka_unit_test(without_memory_nothing_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

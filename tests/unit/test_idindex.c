/*
 * What is in memory and what an index answers; its files are in test_idrun.c.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/idindex.h"
#include "tests/lib/unit.h"
#include "tests/unit/numbered.h"

static uint64_t random_state = 1;

static uint64_t
any_below(uint64_t n)
{
	return numbered_mix(random_state++) % n;
}

static void
memory_does_what_a_table_does(void **state)
{
	static uint64_t model[4000]; /* the number of the id, or 0 */
	char *dir = tmpdir_new();
	uint64_t covered, number, n;
	struct idindex *x = numbered_open(dir, 100000, &covered);
	uint8_t id[32];
	int i;

	(void)state;
	assert_true(covered == 0);
	for (i = 0; i < 60000; i++) {
		n = any_below(4000);
		numbered_id(n, id);
		number = 1 + any_below(1000000);
		switch (any_below(4)) {
		case 0:
			idindex_add(x, id, number);
			if (model[n] == 0 || number < model[n])
				model[n] = number;
			break;
		case 1:
			assert_int_equal(idindex_claim(x, id, &number), model[n] == 0);
			if (model[n] == 0)
				model[n] = number;
			assert_true(number == model[n]);
			break;
		case 2:
			if (any_below(2) == 0) {
				idindex_forget(x, id);
				model[n] = 0;
			}
			break;
		default:
			assert_int_equal(idindex_find(x, id, &number),
			                 model[n] == 0 ? IDINDEX_NEW : IDINDEX_FOUND);
			assert_true(model[n] == 0 || number == model[n]);
			break;
		}
	}
	idindex_close(x);
	idindex_close(NULL);
	tmpdir_free(dir);
}

static void
flush_writes_only_what_is_durable(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered;
	struct idindex *x = numbered_open(dir, 100, &covered);

	(void)state;
	numbered_add(x, 1, 100);
	numbered_flush(x, 100); /* Not over the limit. */
	assert_int_equal(numbered_files(dir, NULL, 0), 0);
	numbered_add(x, 101, 300);
	numbered_flush(x, 0);
	numbered_flush(x, 40); /* Too few. */
	assert_int_equal(numbered_files(dir, NULL, 0), 0);
	numbered_flush(x, 150);
	assert_int_equal(numbered_files(dir, NULL, 0), 1);
	assert_int_equal(numbered_find(x, 1), IDINDEX_CANDIDATE);
	assert_int_equal(numbered_find(x, 150), IDINDEX_CANDIDATE);
	assert_int_equal(numbered_find(x, 151), IDINDEX_FOUND);
	assert_int_equal(numbered_find(x, 300), IDINDEX_FOUND);
	assert_int_equal(numbered_missed(x, 1, 300), 0);
	assert_int_equal(numbered_missed(x, 301, 2000), 1700);
	idindex_close(x);
	x = numbered_open(dir, 100, &covered);
	assert_true(covered == 150);
	assert_int_equal(numbered_missed(x, 1, 150), 0);
	assert_int_equal(numbered_missed(x, 151, 300), 150);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
ids_stay_found_over_flushes_and_reopening(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, n = 0, durable = 0;
	struct idindex *x = numbered_open(dir, 300, &covered);
	unsigned round, files, most = 0;

	(void)state;
	for (round = 0; round < 100; round++) {
		uint64_t more = any_below(200);

		numbered_add(x, n + 1, n + more);
		n += more;
		if (any_below(3) > 0)
			durable = any_below(2) == 0 || n < durable + 50 ? n : n - 50;
		numbered_flush(x, durable);
		files = numbered_files(dir, NULL, 0);
		most = files > most ? files : most;
		if (any_below(20) == 0) {
			idindex_close(x);
			x = numbered_open(dir, 300, &covered);
			assert_true(covered <= durable);
			numbered_add(x, covered + 1, n);
		}
		if (any_below(10) == 0)
			assert_int_equal(numbered_missed(x, 1, n), 0);
	}
	assert_int_equal(numbered_missed(x, 1, n), 0);
	assert_int_equal(numbered_missed(x, n + 1, n + 20000), 20000);
	assert_true(n > 8000);
	assert_in_range(most, 2, 6);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
the_newer_number_of_an_id_counts(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, number;
	struct idindex *x = numbered_open(dir, 100, &covered);
	uint8_t id[32];

	(void)state;
	numbered_add(x, 1, 2000);
	numbered_flush(x, 2000);
	numbered_id(7, id); /* Collected, and came again. */
	idindex_add(x, id, 2001);
	numbered_add(x, 2002, 2200);
	assert_int_equal(idindex_find(x, id, &number), IDINDEX_FOUND);
	numbered_flush(x, 2200);
	assert_int_equal(numbered_files(dir, NULL, 0), 2);
	assert_int_equal(idindex_find(x, id, &number), IDINDEX_CANDIDATE);
	assert_true(number == 2001);
	numbered_add(x, 2201, 6000);
	numbered_flush(x, 6000);
	assert_int_equal(numbered_files(dir, NULL, 0), 1);
	assert_int_equal(idindex_find(x, id, &number), IDINDEX_CANDIDATE);
	assert_true(number == 2001);
	/* Numbers that are covered already go into the run that covers them. */
	idindex_forget(x, id);
	numbered_add(x, 1, 150);
	numbered_flush(x, 6000);
	idindex_close(x);
	x = numbered_open(dir, 100, &covered);
	assert_true(covered == 6000);
	assert_int_equal(numbered_missed(x, 1, 6000), 1); /* The one that id 7 took. */
	idindex_close(x);
	tmpdir_free(dir);
}

static void
uneven_ids_are_found_too(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, number, n;
	struct idindex *x = numbered_open(dir, 100, &covered);
	uint8_t id[32] = {0};
	unsigned round;

	(void)state;
	for (round = 0; round < 2; round++) {
		for (n = 1; n <= 3000; n++) {
			memset(id, round == 0 ? 0 : 255, sizeof id);
			lc_put64(id + 8, n);
			idindex_add(x, id, n + 3000 * round);
		}
		numbered_flush(x, 6000);
	}
	for (n = 0; n <= 3001; n++) {
		memset(id, 0, sizeof id);
		lc_put64(id + 8, n);
		assert_int_equal(idindex_find(x, id, &number),
		                 n >= 1 && n <= 3000 ? IDINDEX_CANDIDATE : IDINDEX_NEW);
		assert_true(n < 1 || n > 3000 || number == n);
		memset(id, 255, sizeof id);
		lc_put64(id + 8, n);
		assert_int_equal(idindex_find(x, id, &number),
		                 n >= 1 && n <= 3000 ? IDINDEX_CANDIDATE : IDINDEX_NEW);
		assert_true(n < 1 || n > 3000 || number == n + 3000);
	}
	idindex_close(x);
	tmpdir_free(dir);
}

static void
reset_forgets_everything(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered;
	struct idindex *x = numbered_three_runs(dir);

	(void)state;
	numbered_add(x, 5201, 5250);
	idindex_reset(x);
	assert_int_equal(numbered_files(dir, NULL, 0), 0);
	assert_int_equal(numbered_missed(x, 1, 5250), 5250);
	assert_int_equal(idindex_memory(x), 0);
	numbered_add(x, 1, 300);
	numbered_flush(x, 300);
	idindex_close(x);
	x = numbered_open(dir, 100, &covered);
	assert_true(covered == 300);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
memory_stays_small(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered;
	struct idindex *x = numbered_open(dir, 200000, &covered);

	(void)state;
	numbered_add(x, 1, 200000);
	assert_true(idindex_memory(x) < 16u << 20);
	numbered_add(x, 200001, 200001);
	numbered_flush(x, 200001);
	assert_true(idindex_memory(x) < 1u << 20);
	assert_int_equal(numbered_missed(x, 199000, 200001), 0);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
running_out_of_memory_forgets_at_most(void **state)
{
	char *dir = tmpdir_new();
	struct lc_err e = LC_ERR_INIT;
	uint64_t covered, number = 1;
	struct idindex *x = NULL;
	uint8_t id[32];
	int rc = LC_ENOMEM;
	long n;

	(void)state;
	for (n = 0; rc != 0 && n < 50; n++) {
		lc_alloc_fail_after(n);
		rc = idindex_open(dir, numbered_store, 100, true, &x, &covered, NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
	}
	assert_int_equal(rc, 0);
	lc_alloc_fail_after(0);
	numbered_id(1, id);
	assert_true(idindex_claim(x, id, &number));
	assert_true(idindex_claim(x, id, &number));
	idindex_add(x, id, 1);
	idindex_forget(x, id);
	assert_int_equal(idindex_find(x, id, &number), IDINDEX_NEW);
	lc_alloc_fail_after(-1);
	numbered_add(x, 1, 4000);
	numbered_flush(x, 4000);
	numbered_add(x, 4001, 8000);
	for (n = 0, rc = LC_ENOMEM; rc != 0 && n < 50; n++) {
		lc_err_clear(&e);
		lc_alloc_fail_after(n);
		rc = idindex_flush(x, 8000, &e);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
		/* A merged run whose path there was no memory for is deleted at the next open. */
		assert_in_range(numbered_files(dir, NULL, 0), 1, rc == 0 ? 2 : 1);
		assert_int_equal(numbered_missed(x, 1, 8000), 0);
	}
	assert_int_equal(rc, 0);
	assert_true(n > 5);
	idindex_close(x);
	for (n = 0; n < 20; n++) { /* A run that could not be opened for want of memory is gone. */
		lc_alloc_fail_after(n);
		rc = idindex_open(dir, numbered_store, 100, true, &x, &covered, NULL);
		lc_alloc_fail_after(-1);
		if (rc == 0)
			idindex_close(x);
	}
	tmpdir_free(dir);
}

/* Threads. */

struct shared {
	struct idindex *x;
	_Atomic uint64_t added; /* ids up to it are in the index */
	atomic_bool stop;
	uint64_t wrong, looked;
};

static void *
look_up(void *arg)
{
	struct shared *s = arg;
	uint64_t n, number, i = 0;
	uint8_t id[32];

	while (!atomic_load(&s->stop)) {
		n = atomic_load(&s->added);
		if (n == 0)
			continue;
		n = 1 + numbered_mix(i++) % n;
		numbered_id(n, id);
		s->wrong += idindex_find(s->x, id, &number) == IDINDEX_NEW || number != n;
		s->looked++;
	}
	return NULL;
}

static void
lookups_go_on_while_flushing(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, n;
	struct shared s = {.x = numbered_open(dir, 200, &covered)};
	uint8_t id[32];
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, look_up, &s), 0);
	for (n = 1; n <= 12000; n++) {
		numbered_id(n, id);
		idindex_add(s.x, id, n);
		atomic_store(&s.added, n);
		if (n % 100 == 0)
			(void)idindex_flush(s.x, n, NULL);
	}
	atomic_store(&s.stop, true);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(s.wrong, 0);
	idindex_close(s.x);
	tmpdir_free(dir);
}

#define CLAIMS 20000u

struct claimer {
	struct idindex *x;
	uint64_t base;
	uint8_t won[CLAIMS];
	uint64_t got[CLAIMS];
};

static void *
claim_all(void *arg)
{
	struct claimer *c = arg;
	uint8_t id[32];
	unsigned i;

	for (i = 0; i < CLAIMS; i++) {
		numbered_id(i, id);
		c->got[i] = c->base + i;
		c->won[i] = idindex_claim(c->x, id, &c->got[i]);
	}
	return NULL;
}

static void
one_of_two_claims_wins(void **state)
{
	static struct claimer a, b;
	char *dir = tmpdir_new();
	uint64_t covered;
	pthread_t t;
	unsigned i;

	(void)state;
	a.x = b.x = numbered_open(dir, 1000000, &covered);
	a.base = 1;
	b.base = 1 + CLAIMS;
	assert_int_equal(pthread_create(&t, NULL, claim_all, &a), 0);
	(void)claim_all(&b);
	assert_int_equal(pthread_join(t, NULL), 0);
	for (i = 0; i < CLAIMS; i++) {
		assert_int_equal(a.won[i] + b.won[i], 1);
		assert_true(a.got[i] == b.got[i]);
	}
	idindex_close(a.x);
	tmpdir_free(dir);
}

struct replacing {
	struct idindex *x;
	atomic_bool over;
};

static void *
replace_it(void *arg)
{
	struct replacing *r = arg;
	const uint64_t times = UNDER_VALGRIND ? 2000 : 200000;
	uint8_t id[32];
	uint64_t n;

	numbered_id(7, id);
	for (n = 1; n <= times; n++)
		idindex_replace(r->x, id, n % 2 == 0 ? n : times + n);
	atomic_store(&r->over, true);
	return NULL;
}

/* Who meets it in between would take it for new, and what is made upon it for lost. */
static void
an_id_is_there_while_it_is_replaced(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, number = 0, missed = 0;
	struct replacing r = {.x = numbered_open(dir, 1000000, &covered)};
	uint8_t id[32];
	pthread_t t;

	(void)state;
	numbered_id(7, id);
	idindex_replace(r.x, id, 5);
	assert_int_equal(idindex_find(r.x, id, &number), IDINDEX_FOUND);
	assert_int_equal(number, 5);
	idindex_replace(r.x, id, 6); /* a higher one, too */
	assert_int_equal(idindex_find(r.x, id, &number), IDINDEX_FOUND);
	assert_int_equal(number, 6);
	assert_int_equal(pthread_create(&t, NULL, replace_it, &r), 0);
	while (!atomic_load(&r.over))
		missed += idindex_find(r.x, id, &number) != IDINDEX_FOUND;
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(missed, 0);
	idindex_close(r.x);
	tmpdir_free(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(memory_does_what_a_table_does),
	    cmocka_unit_test(flush_writes_only_what_is_durable),
	    cmocka_unit_test(ids_stay_found_over_flushes_and_reopening),
	    cmocka_unit_test(the_newer_number_of_an_id_counts),
	    cmocka_unit_test(uneven_ids_are_found_too),
	    cmocka_unit_test(reset_forgets_everything),
	    cmocka_unit_test(memory_stays_small),
	    cmocka_unit_test(running_out_of_memory_forgets_at_most),
	    cmocka_unit_test(lookups_go_on_while_flushing),
	    cmocka_unit_test(one_of_two_claims_wins),
	    cmocka_unit_test(an_id_is_there_while_it_is_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

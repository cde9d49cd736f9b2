/*
 * A host that comes by is idle in between, and late when it should have come again.
 */
#include <stdio.h>
#include <string.h>

#include "replicator/visits.h"
#include "store/base/clock.h"
#include "store/base/memory.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

#define HOUR (3600 * LC_NS_PER_S)
#define DAY (24 * HOUR)
#define BEGIN (1000 * DAY)

static void
once_a_day(void **state)
{
	struct visits v = {0};

	(void)state;
	assert_false(visits_by_command(&v, BEGIN)); /* it was never here */
	visits_command(&v, BEGIN);
	assert_true(visits_by_command(&v, BEGIN));
	assert_false(visits_late(&v, BEGIN + 25 * HOUR));
	assert_true(visits_late(&v, BEGIN + 27 * HOUR));
	visits_command(&v, BEGIN + DAY);
	assert_false(visits_late(&v, BEGIN + 3 * DAY));
	assert_true(visits_late(&v, BEGIN + 3 * DAY + HOUR));
}

static void
often(void **state)
{
	struct visits v = {0};
	int i;

	(void)state;
	for (i = 0; i < 100; i++)
		visits_command(&v, BEGIN + i * (LC_NS_PER_S * 900));
	assert_false(visits_late(&v, v.last_ns + 30 * 60 * LC_NS_PER_S));
	assert_true(visits_late(&v, v.last_ns + HOUR));
	/* What was usual long ago is forgotten. */
	v.usual_ns = 30 * DAY;
	for (i = 1; i <= 100; i++)
		visits_command(&v, v.last_ns + HOUR);
	assert_true(visits_late(&v, v.last_ns + 3 * HOUR));
}

static void
on_workdays(void **state)
{
	struct visits v = {0};
	int64_t at = BEGIN;
	int week, day;

	(void)state;
	visits_command(&v, at);
	for (week = 0; week < 20; week++) {
		for (day = 0; day < 4; day++)
			visits_command(&v, at += DAY);
		assert_true(week == 0 || !visits_late(&v, at + 3 * DAY));
		visits_command(&v, at += 3 * DAY);
	}
	assert_true(visits_late(&v, at + 7 * DAY));
}

/* A clock that was years ahead for one visit, or a host that was away for long, does not say what
 * is usual. */
static void
one_long_gap_is_not_usual(void **state)
{
	const int64_t year = 365 * DAY;
	struct visits v = {0};
	int i;

	(void)state;
	for (i = 0; i < 10; i++)
		visits_command(&v, BEGIN + i * DAY);
	visits_command(&v, BEGIN + 10 * year);
	for (i = 11; i < 25; i++)
		visits_command(&v, BEGIN + i * DAY);
	assert_true(visits_late(&v, v.last_ns + 4 * DAY));
	/* With its first two visits. */
	v = (struct visits){0};
	visits_command(&v, BEGIN);
	visits_command(&v, BEGIN + 10 * year);
	assert_true(visits_late(&v, v.last_ns + 70 * DAY));
	/* Who comes more seldom from now on is not late for long. */
	v = (struct visits){0};
	for (i = 0; i < 10; i++)
		visits_command(&v, BEGIN + i * DAY);
	for (i = 1; i < 4; i++)
		visits_command(&v, v.last_ns + 30 * DAY);
	assert_false(visits_late(&v, v.last_ns + 31 * DAY));
}

static void
an_agent_is_to_be_there(void **state)
{
	struct visits v = {0};

	(void)state;
	visits_command(&v, BEGIN);
	visits_agent(&v, BEGIN + HOUR);
	assert_false(visits_by_command(&v, BEGIN + HOUR));
	/* Somebody sends something by hand, and the agent is still not there. */
	visits_command(&v, BEGIN + DAY);
	assert_false(visits_by_command(&v, BEGIN + 2 * DAY));
	visits_command(&v, BEGIN + 9 * DAY);
	assert_true(visits_by_command(&v, BEGIN + 9 * DAY));
}

static void
it_is_remembered(void **state)
{
	struct visits v = {.last_ns = 5, .usual_ns = 6, .agent_ns = 7}, read;
	const uint8_t key[CHANNEL_KEY_SIZE] = {1, 2, 3};
	struct lc_err e = LC_ERR_INIT;
	char *dir = tmpdir_new(), path[400];
	FILE *f;

	(void)state;
	visits_load(dir, key, &read);
	assert_memory_equal(&read, &(struct visits){0}, sizeof read);
	must(visits_save(dir, key, &v, &e), &e);
	must(visits_save(dir, key, &v, &e), &e);
	visits_load(dir, key, &read);
	assert_memory_equal(&read, &v, sizeof v);
	(void)snprintf(path, sizeof path, "%s/visits/010203%058d", dir, 0);
	f = fopen(path, "we");
	assert_non_null(f);
	(void)fprintf(f, "last_ns = -3\nusual_ns = 99999999999999999999\nrubbish\n");
	assert_int_equal(fclose(f), 0);
	visits_load(dir, key, &read);
	assert_memory_equal(&read, &(struct visits){0}, sizeof read);
	tmpdir_free(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(once_a_day),
	    cmocka_unit_test(often),
	    cmocka_unit_test(on_workdays),
	    cmocka_unit_test(an_agent_is_to_be_there),
	    cmocka_unit_test(one_long_gap_is_not_usual),
	    cmocka_unit_test(it_is_remembered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

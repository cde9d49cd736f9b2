#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "store/base/clock.h"
#include "tests/lib/unit.h"

/* 2026-11-22T05:00:00Z */
#define NOV22 (INT64_C(1795323600) * LC_NS_PER_S)

static int
central_europe(void **state)
{
	(void)state;
	/* A POSIX rule, for tzdata may not be installed. */
	assert_int_equal(setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1), 0);
	tzset();
	return 0;
}

static void
formats_local_and_utc(void **state)
{
	char t[32];

	(void)state;
	assert_string_equal(clock_format_utc(t, sizeof t, NOV22), "2026-11-22T05:00:00Z");
	assert_string_equal(clock_format(t, sizeof t, NOV22), "2026-11-22T06:00:00");
	assert_string_equal(clock_format_utc(t, sizeof t, 0), "1970-01-01T00:00:00Z");
	assert_string_equal(clock_format(t, 5, NOV22), "?"); /* Too small, but a string. */
}

static void
a_time_means_its_end(void **state)
{
	int64_t at;

	(void)state;
	assert_true(clock_parse("2026-11-22T05:00:00Z", &at));
	assert_true(at == NOV22 + LC_NS_PER_S - 1);
	assert_true(clock_parse("2026-11-22T05:00Z", &at));
	assert_true(at == NOV22 + 60 * LC_NS_PER_S - 1);
	assert_true(clock_parse("2026-11-22Z", &at));
	assert_true(at == NOV22 + 19 * 3600 * LC_NS_PER_S - 1);
	assert_true(clock_parse("2026-11-22 06:00", &at)); /* Local. */
	assert_true(at == NOV22 + 60 * LC_NS_PER_S - 1);
	assert_true(clock_parse("2026-07-01T02:00:00", &at)); /* Summer time. */
	assert_true(clock_parse("2026-07-01T00:00:00Z", &(int64_t){0}));
	{
		int64_t utc;

		assert_true(clock_parse("2026-07-01T00:00:00Z", &utc));
		assert_true(at == utc);
	}
}

static void
a_local_day_has_23_hours_in_march(void **state)
{
	int64_t day, next;

	(void)state;
	assert_true(clock_parse("2026-03-29", &day));
	assert_true(clock_parse("2026-03-30T00:00:00", &next));
	/* The end of the 29th is the start of the 30th less a ns. */
	assert_true(day == next - LC_NS_PER_S);
}

static void
refuses_what_is_no_time(void **state)
{
	static const char *const bad[] = {
	    "",
	    "yesterday",
	    "2026",
	    "2026-13-01",
	    "2026-02-30",
	    "2026-11-31",
	    "22-11-2026",
	    "2026-11-22T25",
	    "2026-11-22T05:61",
	    "2026-11-22Tz",
	    "0026-11-22",
	    "2026-11-22x",
	    "2026-11-22T05:00:00ZZ",
	    "9999-01-01",
	    "1969-12-31Z",
	};
	int64_t at = 77;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (clock_parse(bad[i], &at))
			fail_msg("\"%s\" was taken for a time", bad[i]);
		assert_true(at == 77);
	}
}

static void
durations(void **state)
{
	static const struct {
		const char *text;
		int64_t ms; /* -1: refused */
	} rows[] = {
	    {"250ms", 250},
	    {"15m", 900000},
	    {"15min", 900000},
	    {"2h30m", 9000000},
	    {"90", 90000},
	    {"7d", 604800000},
	    {"2w", 1209600000},
	    {"0", 0},
	    {"1h 30m", 5400000},
	    {"2 h", 7200000},
	    {"", -1},
	    {"-5", -1},
	    {"m", -1},
	    {"5x", -1},
	    {"1.5h", -1},
	    {" 5", -1},
	    {"99999999999w", -1},
	    {"99999999999999999999", -1},
	    {"5m!", -1},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		int64_t ns = 1;
		bool ok = clock_parse_duration(rows[i].text, &ns);

		if (ok != (rows[i].ms >= 0) || (ok && ns != rows[i].ms * LC_NS_PER_MS))
			fail_msg("\"%s\": %d, %lld ns", rows[i].text, ok, (long long)ns);
	}
}

static void
durations_for_people(void **state)
{
	static const struct {
		int64_t ns;
		const char *text;
	} rows[] = {
	    {0, "0 ms"},
	    {999 * LC_NS_PER_MS, "999 ms"},
	    {1250 * LC_NS_PER_MS, "1.2 s"},
	    {200 * LC_NS_PER_S, "3 min 20 s"},
	    {15000 * LC_NS_PER_S, "4 h 10 min"},
	    {6 * 86400 * LC_NS_PER_S, "6 days"},
	};
	char t[32];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		assert_string_equal(clock_format_duration(t, sizeof t, rows[i].ns), rows[i].text);
}

static void
tests_can_shift_the_wall_clock(void **state)
{
	int64_t mono = clock_mono_ns(), before = clock_wall_ns(), after;

	(void)state;
	assert_int_equal(setenv("LOCUM_TEST_CLOCK_NS", "3600000000000", 1), 0);
	after = clock_wall_ns();
	assert_int_equal(unsetenv("LOCUM_TEST_CLOCK_NS"), 0);
	assert_true(after - before >= 3600 * LC_NS_PER_S);
	assert_true(after - before < 3660 * LC_NS_PER_S);
	assert_true(clock_mono_ns() >= mono); /* Not shifted, never back. */
	assert_true(clock_mono_ns() - mono < 60 * LC_NS_PER_S);
}

static void
a_wait_ends_by_the_monotonic_clock(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	int64_t began = clock_mono_ns(), until = began + 50 * LC_NS_PER_MS;

	(void)state;
	assert_int_equal(pthread_mutex_lock(&lock), 0);
	while (clock_wait(&cond, &lock, until)) /* may wake for no reason */
		assert_true(clock_mono_ns() - began < 60 * LC_NS_PER_S);
	assert_true(clock_mono_ns() >= until);
	while (clock_wait(&cond, &lock, began)) /* is over already */
		;
	assert_int_equal(pthread_mutex_unlock(&lock), 0);
}

static void
far_times_do_not_overflow(void **state)
{
	(void)state;
	assert_int_equal(clock_since(5, 3), 2);
	assert_int_equal(clock_since(3, 5), -2);
	assert_int_equal(clock_since(INT64_MAX, -1), INT64_MAX);
	assert_int_equal(clock_since(INT64_MAX, INT64_MIN), INT64_MAX);
	assert_int_equal(clock_since(-2, INT64_MAX), INT64_MIN);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(formats_local_and_utc),
	    cmocka_unit_test(a_time_means_its_end),
	    cmocka_unit_test(a_local_day_has_23_hours_in_march),
	    cmocka_unit_test(refuses_what_is_no_time),
	    cmocka_unit_test(durations),
	    cmocka_unit_test(durations_for_people),
	    cmocka_unit_test(a_wait_ends_by_the_monotonic_clock),
	    cmocka_unit_test(far_times_do_not_overflow),
	    cmocka_unit_test(tests_can_shift_the_wall_clock),
	};

	return cmocka_run_group_tests(tests, central_europe, NULL);
}

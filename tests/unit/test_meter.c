#include "replicator/meter.h"
#include "store/base/clock.h"
#include "tests/lib/unit.h"

static void
a_steady_rate_is_that(void **state)
{
	struct meter m = {.n = 0};
	int64_t i;

	(void)state;
	assert_int_equal(meter_rate(&m, 0), 0);
	for (i = 0; i < 100; i++) {
		meter_note(&m, i * LC_NS_PER_S, (uint64_t)i * 1000);
		assert_int_equal(meter_rate(&m, i * LC_NS_PER_S), i == 0 ? 0 : 1000);
	}
}

static void
what_was_long_ago_does_not_count(void **state)
{
	struct meter m = {.n = 0};
	int64_t i, now = 0;

	(void)state;
	for (i = 0; i < 20; i++, now += LC_NS_PER_S)
		meter_note(&m, now, (uint64_t)i * 1000000);
	for (i = 0; i < 12; i++, now += LC_NS_PER_S)
		meter_note(&m, now, 19000000);
	assert_int_equal(meter_rate(&m, now - LC_NS_PER_S), 0);
	/* Nobody has noted anything for a while. */
	meter_note(&m, now += LC_NS_PER_S, 29000000);
	assert_true(meter_rate(&m, now) > 0);
	assert_int_equal(meter_rate(&m, now + 60 * LC_NS_PER_S), 0);
}

static void
notes_in_quick_succession_are_one(void **state)
{
	struct meter m = {.n = 0};
	int64_t i;

	(void)state;
	for (i = 0; i < 1000; i++)
		meter_note(&m, i * LC_NS_PER_S / 100, (uint64_t)i * 10);
	assert_int_equal(m.n, METER_NOTES);
	assert_in_range(meter_rate(&m, 10 * LC_NS_PER_S), 990, 1010);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_steady_rate_is_that),
	    cmocka_unit_test(what_was_long_ago_does_not_count),
	    cmocka_unit_test(notes_in_quick_succession_are_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

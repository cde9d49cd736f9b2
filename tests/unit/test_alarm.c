/*
 * alarm: what is told, and when, with a clock that is only a number.
 */
#include "agent/alarm.h"
#include "store/base/clock.h"
#include "tests/lib/unit.h"

#define S LC_NS_PER_S

static void
test_holds(void **state)
{
	struct alarm a = {.is = ALARM_OK};

	(void)state;
	assert_false(alarm_observe(&a, ALARM_OK, 5, 5, 0));
	/* Gone before it was told. */
	assert_false(alarm_observe(&a, ALARM_BAD, 5, 5, 10));
	assert_false(alarm_observe(&a, ALARM_BAD, 5, 5, 14));
	assert_false(alarm_observe(&a, ALARM_OK, 5, 5, 15));
	assert_false(alarm_observe(&a, ALARM_BAD, 5, 5, 16));
	assert_false(alarm_observe(&a, ALARM_BAD, 5, 5, 20));
	assert_true(alarm_observe(&a, ALARM_BAD, 5, 5, 21));
	assert_int_equal(a.is, ALARM_BAD);
	/* Once. */
	assert_false(alarm_observe(&a, ALARM_BAD, 5, 5, 1000));
	/* Well for a moment is not well; unknown is neither. */
	assert_false(alarm_observe(&a, ALARM_OK, 5, 5, 1001));
	assert_false(alarm_observe(&a, ALARM_BAD, 5, 5, 1003));
	assert_false(alarm_observe(&a, ALARM_OK, 5, 5, 1004));
	assert_false(alarm_observe(&a, ALARM_UNKNOWN, 5, 5, 1008));
	assert_true(alarm_observe(&a, ALARM_OK, 5, 5, 1009));
	assert_int_equal(a.is, ALARM_OK);
	assert_false(alarm_observe(&a, ALARM_OK, 5, 5, 1010));
}

static void
test_levels(void **state)
{
	struct alarm a = {.is = ALARM_OK};

	(void)state;
	/* At once, where there is nothing to wait for. */
	assert_true(alarm_observe(&a, ALARM_NEAR, 0, 10, 1));
	assert_int_equal(a.is, ALARM_NEAR);
	assert_true(alarm_observe(&a, ALARM_BAD, 0, 10, 2));
	assert_int_equal(a.is, ALARM_BAD);
	/* From bad to near is not news, and not well either. */
	assert_false(alarm_observe(&a, ALARM_OK, 0, 10, 3));
	assert_false(alarm_observe(&a, ALARM_NEAR, 0, 10, 9));
	assert_int_equal(a.is, ALARM_BAD);
	assert_false(alarm_observe(&a, ALARM_OK, 0, 10, 13));
	assert_false(alarm_observe(&a, ALARM_OK, 0, 10, 22));
	assert_true(alarm_observe(&a, ALARM_OK, 0, 10, 23));
	/* Near, then well again. */
	assert_true(alarm_observe(&a, ALARM_NEAR, 0, 0, 30));
	assert_true(alarm_observe(&a, ALARM_OK, 0, 0, 31));
	/* An unknown one changes nothing. */
	assert_false(alarm_observe(&a, ALARM_UNKNOWN, 0, 0, 32));
	assert_int_equal(a.is, ALARM_OK);
}

static void
assert_rpo(int64_t lag_ms, int64_t age_ms, int64_t left_ms, enum alarm_level expected)
{
	struct alarm_rpo x = {.goal_ns = 10 * S,
	                      .lag_ns = lag_ms < 0 ? -1 : lag_ms * LC_NS_PER_MS,
	                      .age_ns = age_ms * LC_NS_PER_MS,
	                      .left_ns = left_ms < 0 ? INT64_MAX : left_ms * LC_NS_PER_MS};

	assert_int_equal(alarm_rpo(&x), expected);
}

static void
test_rpo(void **state)
{
	(void)state;
	assert_rpo(0, 100000, 0, ALARM_OK);
	assert_rpo(8000, 100000, -1, ALARM_OK);
	/* Over 80%: near only where the next one will not be in time. */
	assert_rpo(8001, 100000, -1, ALARM_NEAR);
	assert_rpo(8750, 100000, 1250, ALARM_OK);
	assert_rpo(8750, 100000, 1251, ALARM_NEAR);
	/* Overdue: what is due now may be there in a sixteenth of the goal, not later. */
	assert_rpo(9375, 100000, 0, ALARM_OK);
	assert_rpo(9376, 100000, 0, ALARM_NEAR);
	assert_rpo(10000, 100000, 0, ALARM_NEAR);
	assert_rpo(10001, 100000, 0, ALARM_BAD);
	assert_rpo(9000000, 100000, 0, ALARM_BAD);
	/* It has just begun: nothing bad is told yet, good is. */
	assert_rpo(9000000, 9999, -1, ALARM_UNKNOWN);
	assert_rpo(9000000, 10000, -1, ALARM_BAD);
	assert_rpo(100, 100, -1, ALARM_OK);
	{ /* A replica is away, and the agent begins anew: not once more as long as the goal. */
		struct alarm_rpo x = {.goal_ns = 3600 * S,
		                      .lag_ns = 9000 * S,
		                      .age_ns = 31 * S,
		                      .left_ns = INT64_MAX};

		assert_int_equal(alarm_rpo(&x), ALARM_UNKNOWN);
		x.behind = true;
		assert_int_equal(alarm_rpo(&x), ALARM_BAD);
		x.age_ns = 29 * S; /* it may just be connecting */
		assert_int_equal(alarm_rpo(&x), ALARM_UNKNOWN);
	}
	/* Nothing is safe: it counts from the beginning. */
	assert_rpo(-1, 0, -1, ALARM_OK);
	assert_rpo(-1, 9000, -1, ALARM_UNKNOWN);
	assert_rpo(-1, 10000, 0, ALARM_NEAR);
	assert_rpo(-1, 10001, 0, ALARM_BAD);
	assert_int_equal(alarm_rpo_fall_ns(2 * S), 2 * S);
	assert_int_equal(alarm_rpo_fall_ns(3600 * S), 60 * S);
}

struct told {
	unsigned near, missed, ok;
};

/* A VM whose cycles go as the schedule makes them: each state is replaced after 7/8 of the goal,
 * but for a time when none comes through. */
static struct told
live(int64_t goal, int64_t stuck_from, int64_t stuck_until, int64_t end)
{
	int64_t now, safe = 0, delay = goal / 5, next = goal / 8 * 7;
	struct told t = {.ok = 0};
	struct alarm a = {.is = ALARM_OK};

	for (now = 0; now < end; now += goal / 100) {
		bool stuck = now >= stuck_from && now < stuck_until;
		struct alarm_rpo x = {.goal_ns = goal, .age_ns = now + 10 * goal};

		if (now >= next && !stuck) {
			safe = now - delay;
			next = now + goal / 8 * 7 - delay;
		}
		x.lag_ns = now - safe;
		x.left_ns = stuck ? INT64_MAX : next > now ? next - now : 0;
		if (!alarm_observe(&a, alarm_rpo(&x), 0, alarm_rpo_fall_ns(goal), now))
			continue;
		t.ok += a.is == ALARM_OK ? 1 : 0;
		t.near += a.is == ALARM_NEAR ? 1 : 0;
		t.missed += a.is == ALARM_BAD ? 1 : 0;
	}
	return t;
}

static void
test_a_life(void **state)
{
	struct told t;

	(void)state;
	/* All is well: silence, though the lag is over 80% in each cycle. */
	t = live(4 * S, 0, 0, 1000 * S);
	assert_int_equal(t.near + t.missed + t.ok, 0);
	/* Away for a while: near, missed, well again, each once. */
	t = live(4 * S, 100 * S, 130 * S, 1000 * S);
	assert_int_equal(t.near, 1);
	assert_int_equal(t.missed, 1);
	assert_int_equal(t.ok, 1);
	/* Back in time: not missed. */
	t = live(900 * S, 10000 * S, 10001 * S, 20000 * S);
	assert_int_equal(t.missed, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_holds),
	    cmocka_unit_test(test_levels),
	    cmocka_unit_test(test_rpo),
	    cmocka_unit_test(test_a_life),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

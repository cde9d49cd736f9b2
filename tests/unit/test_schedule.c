#include <stdint.h>
#include <string.h>

#include "agent/schedule.h"
#include "store/base/clock.h"
#include "tests/lib/unit.h"

#define S LC_NS_PER_S
#define MS LC_NS_PER_MS
#define WALL (INT64_C(1700000000) * S)

static void
first_cycles_are_spread(void **state)
{
	struct schedule s;
	int64_t last = -1;
	unsigned i;

	(void)state;
	for (i = 0; i < 64; i++) {
		schedule_init(&s, 4 * S, 1000 * S, i, 64);
		assert_true(s.due_ns > last);
		assert_true(s.due_ns >= 1000 * S && s.due_ns <= 1002 * S);
		last = s.due_ns;
	}
	schedule_init(&s, 4 * S, 0, 0, 0);
	assert_int_equal(s.due_ns, 0);
}

/* Whatever a cycle and its way take: the goal is met as long as they fit into it. */
static void
the_goal_is_met_where_it_can_be(void **state)
{
	static const int64_t goals[] = {1 * S, 2 * S, 5 * S, 60 * S, 3600 * S};
	unsigned g, part, i;

	(void)state;
	for (g = 0; g < 5; g++) {
		for (part = 0; part <= 40; part += 5) { /* per cent of the goal until it is safe */
			struct schedule s;
			int64_t now = 0, goal = goals[g], delay = goal / 100 * part, worst = 0;

			schedule_init(&s, goal, now, 0, 1);
			for (i = 0; i < 50; i++) {
				int64_t lag;

				now = s.due_ns;
				schedule_begin(&s, now);
				lag = schedule_lag(&s, WALL + now + delay);
				if (i > 2 && lag > worst)
					worst = lag;
				schedule_safe(&s, WALL + now, WALL + now + delay);
				schedule_done(&s, now + delay, true);
				assert_true(s.due_ns > now + delay);
			}
			if (worst > goal)
				fail_msg("goal %lld s, %u%%: lag %lld ms", (long long)(goal / S),
				         part, (long long)(worst / MS));
			assert_true(worst > goal / 2 || goal < 2 * S); /* and not far too often */
		}
	}
}

static void
failures_back_off_and_come_back(void **state)
{
	struct schedule s;
	int64_t now = 0, wait = 0;
	unsigned i;

	(void)state;
	schedule_init(&s, 2 * S, 0, 0, 1);
	for (i = 0; i < 100; i++) {
		now = s.due_ns;
		schedule_begin(&s, now);
		schedule_done(&s, now, false);
		assert_true(s.due_ns - now >= wait);
		wait = s.due_ns - now;
		assert_true(wait <= 60 * S);
	}
	assert_int_equal(wait, 60 * S);
	now = s.due_ns;
	schedule_begin(&s, now);
	schedule_done(&s, now, true);
	assert_true(s.due_ns - now <= 2 * S);
	/* A goal of months: no number overflows. */
	schedule_init(&s, INT64_C(365) * 24 * 3600 * S, 0, 0, 1);
	for (i = 0; i < 20; i++)
		schedule_done(&s, now, false);
	assert_true(s.due_ns > now);
}

static void
worst_lag_is_of_the_last_day(void **state)
{
	struct schedule s;
	int64_t t = WALL;

	(void)state;
	schedule_init(&s, 5 * S, 0, 0, 1);
	assert_int_equal(schedule_lag(&s, t), -1);
	assert_true(schedule_watch(&s, t)); /* nothing is safe: late */
	assert_true(s.late);
	schedule_safe(&s, t, t + S);
	assert_true(schedule_watch(&s, t + S));
	assert_false(s.late);
	assert_int_equal(schedule_worst(&s, t + S), S);
	assert_true(schedule_watch(&s, t + 30 * S));
	assert_int_equal(schedule_worst(&s, t + 30 * S), 30 * S);
	schedule_safe(&s, t + 31 * S, t + 31 * S);
	(void)schedule_watch(&s, t + 32 * S);
	assert_int_equal(schedule_worst(&s, t + 12 * 3600 * S), 30 * S);
	assert_int_equal(schedule_worst(&s, t + INT64_C(25) * 3600 * S), 0);
	schedule_safe(&s, t + INT64_C(25) * 3600 * S, t + INT64_C(25) * 3600 * S);
	(void)schedule_watch(&s, t + INT64_C(25) * 3600 * S + S);
	assert_int_equal(schedule_worst(&s, t + INT64_C(25) * 3600 * S + S), S);
	/* A year asleep. */
	(void)schedule_watch(&s, t + INT64_C(400) * 86400 * S);
	assert_true(schedule_worst(&s, t + INT64_C(400) * 86400 * S) > 0);
}

/* The clock was wrong and is set back: points count again at once, and a VM that is not protected
 * any more is not shown with a lag of zero until the clock has come where it was. */
static void
a_clock_that_is_set_back_hides_nothing(void **state)
{
	struct schedule s;

	(void)state;
	schedule_init(&s, 5 * S, 0, 0, 1);
	schedule_safe(&s, WALL + 3600 * S, WALL + 3600 * S);
	(void)schedule_watch(&s, WALL + 3601 * S);
	assert_false(s.late);
	/* An hour back; no new point since. */
	(void)schedule_watch(&s, WALL);
	(void)schedule_watch(&s, WALL + 20 * S);
	assert_true(s.late);
	assert_true(schedule_lag(&s, WALL + 20 * S) >= 20 * S);
	schedule_safe(&s, WALL + 21 * S, WALL + 22 * S);
	assert_int_equal(schedule_lag(&s, WALL + 22 * S), S);
	assert_true(schedule_watch(&s, WALL + 22 * S));
	assert_false(s.late);
	assert_true(s.delay_ns < 5 * S);
}

/* The clock ran years ahead for a moment: that is not the worst of each day that follows. */
static void
a_clock_that_came_back_leaves_no_worst_lag(void **state)
{
	const int64_t year = INT64_C(365) * 86400 * S;
	struct schedule s;
	int64_t t = WALL;
	int i;

	(void)state;
	schedule_init(&s, 5 * S, 0, 0, 1);
	schedule_safe(&s, t, t);
	(void)schedule_watch(&s, t + 3 * S);
	assert_int_equal(schedule_worst(&s, t + 3 * S), 3 * S);
	(void)schedule_watch(&s, t + 10 * year);
	assert_true(schedule_worst(&s, t + 10 * year) > 9 * year);
	(void)schedule_watch(&s, t + 4 * S);
	/* It was seen, so it is told for a day, and not for longer. */
	for (i = 0; i < 25 * 60; i++) {
		t += 60 * S;
		schedule_safe(&s, t, t);
		(void)schedule_watch(&s, t + S);
		if (i == 23 * 60)
			assert_true(schedule_worst(&s, t + S) > 9 * year);
	}
	assert_true(schedule_worst(&s, t + S) <= 60 * S);
}

/* Nor does one that was set back by hours. */
static void
hours_go_on_after_the_clock_is_set_back(void **state)
{
	struct schedule s;
	int64_t t = WALL;
	int i;

	(void)state;
	schedule_init(&s, 5 * S, 0, 0, 1);
	for (i = 0; i < 3; i++) {
		schedule_safe(&s, t, t);
		(void)schedule_watch(&s, t + (i + 2) * S); /* 2, 3, 4 s in the hours that pass */
		t += INT64_C(3600) * S;
	}
	t -= INT64_C(5) * 3600 * S;
	(void)schedule_watch(&s, t);
	schedule_safe(&s, t + S, t + S);
	(void)schedule_watch(&s, t + 2 * S);
	assert_true(schedule_worst(&s, t + 2 * S) >= 4 * S);
	for (i = 0; i < 25 * 60; i++) {
		t += 60 * S;
		schedule_safe(&s, t, t);
		(void)schedule_watch(&s, t + S);
	}
	assert_int_equal(schedule_worst(&s, t + S), S);
}

/* What is older than what is safe already changes nothing. */
static void
late_news_do_no_harm(void **state)
{
	struct schedule s;

	(void)state;
	schedule_init(&s, 5 * S, 0, 0, 1);
	schedule_safe(&s, WALL + 10 * S, WALL + 10 * S);
	schedule_safe(&s, WALL, WALL + 11 * S);
	assert_int_equal(schedule_lag(&s, WALL + 11 * S), S);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(first_cycles_are_spread),
	    cmocka_unit_test(the_goal_is_met_where_it_can_be),
	    cmocka_unit_test(failures_back_off_and_come_back),
	    cmocka_unit_test(worst_lag_is_of_the_last_day),
	    cmocka_unit_test(a_clock_that_is_set_back_hides_nothing),
	    cmocka_unit_test(a_clock_that_came_back_leaves_no_worst_lag),
	    cmocka_unit_test(hours_go_on_after_the_clock_is_set_back),
	    cmocka_unit_test(late_news_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * qmp: commands, answers and events in order; whatever the other side does, every call ends once,
 * in time, with a message that says what to do.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"
#include "tests/unit/qmp_fixture.h"

static void
new_batch(struct fixture *f)
{
	f->b = qmp_batch_new(f->q);
	assert_non_null(f->b);
}

static void
run(struct fixture *f)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(qmp_batch_run(f->b, fixture_on_done, f, &e), 0);
	assert_int_equal(f->done, 0);
	fixture_await(f, &f->done);
	assert_int_equal(f->done, 1);
}

static void
test_answers(void **state)
{
	struct fixture *f = *state;
	uint64_t v = 0;

	fixture_must_open(f);
	fake_qmp_on(
	    f->fake, "two",
	    "{\"return\": {\"a\": {\"b\": [1, 9007199254740993]}, \"t\": true}, \"id\": @}\n");
	fake_qmp_on(
	    f->fake, "three",
	    "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no disk\"}, \"id\": @}\n");
	fake_qmp_on(f->fake, "four",
	            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"never\"}, \"id\": @}\n");
	fake_qmp_on(
	    f->fake, "five",
	    "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"what\"}, \"id\": @}\n");
	new_batch(f);
	assert_int_equal(qmp_batch_add(f->b, "one", qmp_none()), 0);
	assert_int_equal(qmp_batch_add(f->b, "two", qmp_pack("{s:s}", "x", "a \"quoted\"\n")), 1);
	(void)qmp_batch_add(f->b, "three", qmp_none());
	qmp_batch_may_fail(f->b);
	(void)qmp_batch_add(f->b, "four", qmp_none());
	(void)qmp_batch_add(f->b, "five", qmp_none());
	run(f);
	assert_int_equal(f->err.code, LC_EPEER);
	assert_string_equal(f->err.msg, "four: never");
	assert_string_equal(fake_qmp_order(f->fake), "qmp_capabilities one two three four five ");
	assert_int_equal(qmp_reply_err(f->b, 2)->code, LC_ENOENT);
	assert_int_equal(qmp_reply_err(f->b, 4)->code, LC_ENOTSUP);
	assert_null(qmp_reply(f->b, 2));
	assert_int_equal(qmp_count(qmp_get(qmp_reply(f->b, 1), "a.b")), 2);
	assert_true(qmp_u64(qmp_at(qmp_get(qmp_reply(f->b, 1), "a.b"), 1), "", &v));
	assert_true(v == UINT64_C(9007199254740993));
	assert_true(qmp_true(qmp_reply(f->b, 1), "t"));
	assert_false(qmp_true(qmp_reply(f->b, 1), "a"));
	assert_null(qmp_str(qmp_reply(f->b, 1), "a.nothing"));
	assert_true(qmp_reply_ns(f->b, 4) >= qmp_reply_ns(f->b, 0));
}

static void
test_all_may_fail(void **state)
{
	struct fixture *f = *state;

	fixture_must_open(f);
	fake_qmp_on(f->fake, "one",
	            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": @}\n");
	new_batch(f);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	qmp_batch_may_fail(f->b);
	run(f);
	assert_int_equal(f->err.code, LC_OK);
	assert_string_equal(qmp_reply_err(f->b, 0)->msg, "one: no");
}

/* What may be refused must still be answered. */
static void
test_may_fail_is_not_may_vanish(void **state)
{
	struct fixture *f = *state;

	fixture_must_open(f);
	fake_qmp_on(f->fake, "one", "");
	fake_qmp_hang_up(f->fake, 1);
	new_batch(f);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	qmp_batch_may_fail(f->b);
	run(f);
	assert_int_equal(f->err.code, LC_EPEER);
}

static void
test_events(void **state)
{
	static const char text[] = "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": "
				   "123}, \"event\": \"STOP\", \"data\": {\"n\": 7}}\r\n"
				   "{\"event\": \"RESUME\"}\r\n";
	struct fixture *f = *state;

	fixture_must_open(f);
	fake_qmp_say(f->fake, text, sizeof text - 1);
	fixture_await(f, &f->events);
	assert_int_equal(f->events, 2);
	assert_string_equal(f->event, "RESUME");
	assert_true(f->event_number == 7);
	assert_true(f->event_us == 0);
}

static void
test_events_before_the_answer(void **state)
{
	struct fixture *f = *state;

	fixture_must_open(f);
	fake_qmp_on(
	    f->fake, "cont",
	    "{\"event\": \"RESUME\", \"timestamp\": {\"seconds\": 5, \"microseconds\": 6}}\n"
	    "{\"return\": {}, \"id\": @}\n{\"event\": \"LATER\"}\n");
	new_batch(f);
	(void)qmp_batch_add(f->b, "cont", qmp_none());
	run(f);
	assert_int_equal(f->err.code, LC_OK);
	assert_true(f->events >= 1);
}

/* QEMU hands the next client what the last one did not wait for. */
static void
test_answers_to_nothing(void **state)
{
	struct fixture *f = *state;

	fake_qmp_greet(
	    f->fake,
	    "{\"return\": {}}\n{\"error\": {\"class\": \"GenericError\", \"desc\": "
	    "\"late\"}}\n" FAKE_QMP_GREETING "{\"return\": {}, \"id\": 1}\n{\"return\": {}, "
	    "\"id\": \"x\"}\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"x\"}}\n");
	fixture_must_open(f);
	fake_qmp_on(
	    f->fake, "one",
	    "{\"return\": 1, \"id\": 0}\n{\"return\": 2, \"id\": -5}\n{\"return\": 3, \"id\": @}\n"
	    "{\"return\": 4, \"id\": @}\n");
	new_batch(f);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	run(f);
	assert_int_equal(f->err.code, LC_OK);
	{
		uint64_t v = 0;

		assert_true(qmp_u64(qmp_reply(f->b, 0), "", &v));
		assert_true(v == 3);
	}
}

static void
broken_by(struct fixture *f, const char *answer, const char *text)
{
	fixture_must_open(f);
	fake_qmp_on(f->fake, "one", answer);
	new_batch(f);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	(void)qmp_batch_add(f->b, "two", qmp_none());
	run(f);
	assert_int_equal(f->err.code, LC_EPEER);
	if (strstr(f->err.msg, text) == NULL)
		fail_msg("'%s' is not in '%s'", text, f->err.msg);
	assert_int_equal(f->lost, 1);
	assert_false(qmp_usable(f->q));
	qmp_batch_free(f->b);
	new_batch(f);
	(void)qmp_batch_add(f->b, "three", qmp_none());
	assert_int_equal(qmp_batch_run(f->b, fixture_on_done, f, &f->err), LC_EPEER);
}

static void
test_garbage(void **state)
{
	broken_by(*state, "garbage\n", "bad message");
}

static void
test_no_object(void **state)
{
	broken_by(*state, "[1, 2]\n", "no greeting, event or answer");
}

static void
test_answer_without_substance(void **state)
{
	broken_by(*state, "{\"error\": {\"desc\": 5}, \"id\": @}\n",
	          "no greeting, event or answer");
}

static void
test_duplicate_key(void **state)
{
	broken_by(*state, "{\"return\": {\"a\": 1, \"a\": 2}, \"id\": @}\n",
	          "duplicate object key");
}

static void
test_return_and_error(void **state)
{
	broken_by(*state,
	          "{\"return\": {}, \"error\": {\"class\": \"x\", \"desc\": \"x\"}, \"id\": @}\n",
	          "no greeting, event or answer");
}

static void
test_closed_in_the_middle(void **state)
{
	struct fixture *f = *state;

	fake_qmp_on(f->fake, "qmp_capabilities", "{\"return\": {}, \"id\": @}\n");
	fixture_must_open(f);
	fake_qmp_on(f->fake, "one", "{\"return\": {}, \"i");
	fake_qmp_hang_up(f->fake, 1);
	new_batch(f);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	run(f);
	assert_int_equal(f->err.code, LC_EPEER);
	assert_non_null(strstr(f->err.msg, "in the middle of a message"));
	assert_int_equal(f->lost, 1);
}

static void
test_closed_while_idle(void **state)
{
	struct fixture *f = *state;

	fixture_must_open(f);
	fake_qmp_hang_up(f->fake, 0);
	fixture_await(f, &f->lost);
	assert_int_equal(f->lost, 1);
	assert_int_equal(f->lost_err.code, LC_EPEER);
}

static void
test_line_without_end(void **state)
{
	struct fixture *f = *state;
	char *p = malloc(65536);
	size_t said = 0;

	assert_non_null(p);
	memset(p, 'x', 65536);
	fixture_must_open(f);
	while (f->lost == 0 && said < 4 * (size_t)QMP_LINE_MAX) {
		fake_qmp_say(f->fake, p, 65536);
		said += 65536;
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	free(p);
	assert_int_equal(f->lost, 1);
	assert_non_null(strstr(f->lost_err.msg, "more than"));
	assert_true(said <= (size_t)QMP_LINE_MAX + (1u << 21));
}

static void
test_deep_nesting(void **state)
{
	struct fixture *f = *state;
	char *p = malloc(400002);

	assert_non_null(p);
	memset(p, '[', 400000);
	memcpy(p + 400000, "\n", 2);
	fixture_must_open(f);
	for (size_t at = 0; at < 400001 && f->lost == 0; at += 40000) {
		fake_qmp_say(f->fake, p + at, 400001 - at < 40000 ? 400001 - at : 40000);
		(void)uv_run(&f->loop, UV_RUN_NOWAIT);
	}
	free(p);
	if (f->lost == 0)
		fixture_await(f, &f->lost);
	assert_int_equal(f->lost, 1);
}

static void
test_timeout(void **state)
{
	struct fixture *f = *state;
	int64_t began;

	fixture_must_open(f);
	fake_qmp_on(f->fake, "one", "");
	new_batch(f);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	(void)qmp_batch_add(f->b, "two", qmp_none());
	fake_qmp_on(f->fake, "two", "");
	began = clock_mono_ns();
	run(f);
	assert_int_equal(f->err.code, LC_ETIMEDOUT);
	assert_non_null(strstr(f->err.msg, "one: QEMU did not answer within"));
	assert_true(clock_mono_ns() - began >= 100 * LC_NS_PER_MS);
	assert_true(clock_mono_ns() - began < 4 * LC_NS_PER_S);
	/* The connection is still good, and what comes late is not taken for something else. */
	assert_int_equal(f->lost, 0);
	fake_qmp_on(f->fake, "three",
	            "{\"return\": {\"late\": true}, \"id\": 77}\n{\"return\": 5, \"id\": @}\n");
	qmp_batch_free(f->b);
	new_batch(f);
	(void)qmp_batch_add(f->b, "three", qmp_none());
	f->done = 0;
	run(f);
	assert_int_equal(f->err.code, LC_OK);
}

static void
test_longer_timeout_of_a_batch(void **state)
{
	struct fixture *f = *state;
	int64_t began;

	fixture_must_open(f);
	fake_qmp_on(f->fake, "one", "");
	new_batch(f);
	qmp_batch_timeout(f->b, 300);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	began = clock_mono_ns();
	run(f);
	assert_true(clock_mono_ns() - began >= 300 * LC_NS_PER_MS);
}

static void
test_descriptor(void **state)
{
	struct fixture *f = *state;
	int ends[2];
	char c = 0;

	fixture_must_open(f);
	assert_int_equal(pipe(ends), 0);
	new_batch(f);
	(void)qmp_batch_add(f->b, "before", qmp_none());
	(void)qmp_batch_add_fd(f->b, "getfd", qmp_pack("{s:s}", "fdname", "x"), ends[1]);
	(void)close(ends[1]);
	(void)qmp_batch_add(f->b, "after", qmp_none());
	run(f);
	assert_int_equal(f->err.code, LC_OK);
	assert_string_equal(fake_qmp_order(f->fake), "qmp_capabilities before getfd after ");
	assert_true(fake_qmp_fd(f->fake) >= 0);
	assert_int_equal(write(fake_qmp_fd(f->fake), "!", 1), 1);
	assert_int_equal(read(ends[0], &c, 1), 1);
	assert_int_equal(c, '!');
	(void)close(ends[0]);
}

/* The other side holds our end of the connection until the last command is done. */
static void
test_survive(void **state)
{
	struct fixture *f = *state;

	fixture_must_open(f);
	new_batch(f);
	qmp_batch_survive(f->b);
	(void)qmp_batch_add(f->b, "stop", qmp_none());
	(void)qmp_batch_add(f->b, "cont", qmp_none());
	run(f);
	assert_string_equal(fake_qmp_order(f->fake), "qmp_capabilities getfd stop cont closefd ");
	assert_true(fake_qmp_fd(f->fake) >= 0);
}

static void
test_close_in_done(void **state)
{
	struct fixture *f = *state;

	fixture_must_open(f);
	new_batch(f);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	f->close_in_done = true;
	run(f);
	fixture_await(f, &f->closed);
	assert_int_equal(f->closed, 1);
}

static void
test_close_in_event(void **state)
{
	static const char text[] = "{\"event\": \"A\"}\n{\"event\": \"B\"}\n";
	struct fixture *f = *state;

	fixture_must_open(f);
	f->close_in_event = true;
	fake_qmp_say(f->fake, text, sizeof text - 1);
	fixture_await(f, &f->closed);
	assert_int_equal(f->events, 1);
	assert_int_equal(f->closed, 1);
}

static void
test_close_with_commands_in_flight(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	fixture_must_open(f);
	fake_qmp_on(f->fake, "one", "");
	new_batch(f);
	(void)qmp_batch_add(f->b, "one", qmp_none());
	assert_int_equal(qmp_batch_run(f->b, fixture_on_done, f, &e), 0);
	qmp_close(f->q, fixture_on_closed, f);
	assert_int_equal(f->done, 0);
	fixture_await(f, &f->closed);
	assert_int_equal(f->done, 1);
	assert_int_equal(f->err.code, LC_ECANCELED);
	assert_int_equal(f->lost, 0);
}

static void
test_many_commands(void **state)
{
	struct fixture *f = *state;
	size_t i;

	fixture_must_open(f);
	new_batch(f);
	for (i = 0; i < 1000; i++)
		assert_int_equal(qmp_batch_add(f->b, "x", qmp_pack("{s:i}", "n", (int)i)), i);
	run(f);
	assert_int_equal(f->err.code, LC_OK);
	assert_int_equal(fake_qmp_count(f->fake, "x"), 1000);
}

static void
test_bad_arguments_are_reported(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	fixture_must_open(f);
	new_batch(f);
	(void)qmp_batch_add(f->b, "x", NULL);
	(void)qmp_batch_add(f->b, "y", qmp_none());
	assert_int_equal(qmp_batch_run(f->b, fixture_on_done, f, &e), LC_ENOMEM);
	assert_int_equal(fake_qmp_count(f->fake, "y"), 0);
}

/* The n-th allocation fails, for every n: a clean error, nothing leaked (ASan), the loop ends. */
static void
test_out_of_memory(void **state)
{
	struct fixture *f = *state;
	bool through = false;
	long n;

	for (n = 0; n < 400 && !through; n++) {
		struct lc_err e = LC_ERR_INIT;

		f->opened = f->done = f->closed = 0;
		lc_alloc_fail_after(n);
		if (fixture_open(f, &e) == 0) {
			fixture_await(f, &f->opened);
			assert_int_equal(f->opened, 1);
			f->b = f->open_err.code == LC_OK ? qmp_batch_new(f->q) : NULL;
			if (f->b != NULL) {
				(void)qmp_batch_add(f->b, "one",
				                    qmp_pack("{s:[s, s]}", "a", "b", "c"));
				(void)qmp_batch_add(f->b, "two", qmp_none());
				if (qmp_batch_run(f->b, fixture_on_done, f, &e) == 0) {
					fixture_await(f, &f->done);
					assert_int_equal(f->done, 1);
					through = f->err.code == LC_OK;
				}
			}
			lc_alloc_fail_after(-1);
			qmp_close(f->q, fixture_on_closed, f);
			fixture_await(f, &f->closed);
			qmp_batch_free(f->b);
			f->b = NULL;
		}
		lc_alloc_fail_after(-1);
	}
	assert_true(through);
	assert_true(n > 10);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_set_up, fixture_tear_down)
	const struct CMUnitTest tests[] = {
	    T(test_answers),
	    T(test_all_may_fail),
	    T(test_may_fail_is_not_may_vanish),
	    T(test_events),
	    T(test_events_before_the_answer),
	    T(test_answers_to_nothing),
	    T(test_garbage),
	    T(test_no_object),
	    T(test_answer_without_substance),
	    T(test_duplicate_key),
	    T(test_return_and_error),
	    T(test_closed_in_the_middle),
	    T(test_closed_while_idle),
	    T(test_line_without_end),
	    T(test_deep_nesting),
	    T(test_timeout),
	    T(test_longer_timeout_of_a_batch),
	    T(test_descriptor),
	    T(test_survive),
	    T(test_close_in_done),
	    T(test_close_in_event),
	    T(test_close_with_commands_in_flight),
	    T(test_many_commands),
	    T(test_bad_arguments_are_reported),
	    T(test_out_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

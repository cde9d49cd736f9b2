/*
 * qmp_memo: what was asked is asked again, and the same answers are known without a look into them;
 * every other one is told, whatever it is.
 */
#include <stdlib.h>
#include <string.h>

#include "store/base/memory.h"
#include "agent/hypervisor/qmp_memo.h"
#include "tests/lib/unit.h"
#include "tests/unit/qmp_fixture.h"

#define NODES "{\"return\": [{\"node-name\": \"a\", \"count\": 0}], \"id\": @}\r\n"
#define REFUSED "{\"id\": @, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n"

static void
new_batch(struct fixture *f)
{
	qmp_batch_free(f->b);
	f->b = qmp_batch_new(f->q);
	assert_non_null(f->b);
	f->done = 0;
}

static void
run(struct fixture *f)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(qmp_batch_run(f->b, fixture_on_done, f, &e), 0);
	fixture_await(f, &f->done);
	assert_int_equal(f->done, 1);
}

static void
ask(struct fixture *f, const char *command)
{
	new_batch(f);
	(void)qmp_batch_add(f->b, command, qmp_none());
	qmp_batch_may_fail(f->b);
	run(f);
}

/* Three questions, one of them twice with another answer, and one that is refused. */
static struct qmp_memo *
record(struct fixture *f)
{
	struct qmp_memo *m = qmp_memo_new();

	assert_non_null(m);
	assert_false(qmp_memo_whole(m));
	fixture_must_open(f);
	fake_qmp_on(f->fake, "query-nodes", "{\"return\": [], \"id\": @}\n");
	fake_qmp_on(f->fake, "query-refused", REFUSED);
	qmp_record(f->q, m);
	new_batch(f);
	(void)qmp_batch_add(f->b, "query-nodes", qmp_pack("{s:b}", "flat", 1));
	(void)qmp_batch_add(f->b, "query-refused", qmp_none());
	qmp_batch_may_fail(f->b);
	(void)qmp_batch_add(f->b, "qom-get", qmp_pack("{s:s, s:s}", "path", "/a", "property", "b"));
	(void)qmp_batch_add(f->b, "qom-get", qmp_pack("{s:s, s:s}", "path", "/a", "property", "c"));
	qmp_batch_unnoted(f->b);
	run(f);
	fake_qmp_on(f->fake, "query-nodes", NODES);
	new_batch(f);
	(void)qmp_batch_add(f->b, "query-nodes", qmp_pack("{s:b}", "flat", 1));
	run(f);
	qmp_record(f->q, NULL);
	ask(f, "query-late");
	assert_true(qmp_memo_whole(m));
	assert_int_equal(qmp_memo_count(m), 3);
	return m;
}

static const char *
recall(struct fixture *f, const struct qmp_memo *m)
{
	new_batch(f);
	qmp_batch_recall(f->b, m);
	run(f);
	assert_int_equal(f->err.code, LC_OK);
	return qmp_batch_differs(f->b);
}

static void
test_same(void **state)
{
	struct fixture *f = *state;
	struct qmp_memo *m = record(f);
	size_t i;

	assert_null(recall(f, m));
	for (i = 0; i < 3; i++)
		assert_null(qmp_reply(f->b, i)); /* nobody looked into it */
	assert_null(recall(f, m));
	assert_int_equal(fake_qmp_count(f->fake, "query-late"), 1);
	assert_int_equal(fake_qmp_count(f->fake, "query-nodes"), 4);
	assert_int_equal(fake_qmp_count(f->fake, "query-refused"), 3);
	assert_int_equal(fake_qmp_count(f->fake, "qom-get"), 4);
	qmp_memo_free(m);
}

static void
differs(struct fixture *f, const char *command, const char *answer, const char *question)
{
	struct qmp_memo *m = record(f);

	fake_qmp_on(f->fake, command, answer);
	assert_string_equal(recall(f, m), question);
	qmp_memo_free(m);
}

#define NODES_ASKED "{\"execute\":\"query-nodes\",\"arguments\":{\"flat\":true},\"id\":"

static void
test_another_number(void **state)
{
	struct fixture *f = *state;
	uint64_t v = 0;

	differs(f, "query-nodes",
	        "{\"return\": [{\"node-name\": \"a\", \"count\": 1}], \"id\": @}\r\n", NODES_ASKED);
	assert_true(qmp_u64(qmp_at(qmp_reply(f->b, 0), 0), "count", &v)); /* it was looked into */
	assert_true(v == 1);
}

static void
test_more(void **state)
{
	differs(*state, "query-nodes",
	        "{\"return\": [{\"node-name\": \"a\", \"count\": 0}, {}], \"id\": @}\r\n",
	        NODES_ASKED);
}

static void
test_less(void **state)
{
	differs(*state, "query-nodes", "{\"return\": [], \"id\": @}\n", NODES_ASKED);
}

static void
test_refused_now(void **state)
{
	differs(*state, "query-nodes", REFUSED, NODES_ASKED);
}

static void
test_not_refused_now(void **state)
{
	differs(*state, "query-refused", "{\"return\": {}, \"id\": @}\n",
	        "{\"execute\":\"query-refused\",\"arguments\":{},\"id\":");
}

/* Events come in between; answers to nobody, of the same words, count for nothing. */
static void
test_between(void **state)
{
	struct fixture *f = *state;
	struct qmp_memo *m = record(f);

	fake_qmp_on(f->fake, "query-nodes",
	            "{\"event\": \"STOP\"}\n"
	            "{\"return\": [{\"node-name\": \"a\", \"count\": 0}], \"id\": 7}\r\n" NODES);
	assert_null(recall(f, m));
	assert_string_equal(f->event, "STOP");
	qmp_memo_free(m);
}

static void
test_breaks(void **state)
{
	struct fixture *f = *state;
	struct qmp_memo *m = record(f);

	fake_qmp_on(f->fake, "query-refused", "rubbish\n");
	new_batch(f);
	qmp_batch_recall(f->b, m);
	run(f);
	assert_int_equal(f->err.code, LC_EPEER);
	assert_non_null(qmp_batch_differs(f->b));
	qmp_memo_free(m);
}

static void
test_no_question(void **state)
{
	static const char *const deeds[] = {"remove-fd", "blockdev-del",
	                                    "qom-set",   "nbd-server-stop",
	                                    "stop",      "human-monitor-command"};
	struct fixture *f = *state;
	struct qmp_memo *m = record(f);
	size_t i;

	for (i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
		qmp_record(f->q, m);
		ask(f, "query-nodes");
		assert_true(qmp_memo_whole(m));
		ask(f, deeds[i]);
		assert_false(qmp_memo_whole(m));
		ask(f, "query-nodes");
		assert_false(qmp_memo_whole(m));
	}
	qmp_record(f->q, m);
	new_batch(f);
	(void)qmp_batch_add(f->b, "human-monitor-command",
	                    qmp_pack("{s:s}", "command-line", "info network"));
	run(f);
	assert_true(qmp_memo_whole(m));
	qmp_record(f->q, NULL);
	qmp_memo_free(m);
}

static void
test_too_much(void **state)
{
	struct fixture *f = *state;
	struct qmp_memo *m = record(f);
	char *answer = calloc(1, QMP_MEMO_MAX / 2 + 64);
	size_t n = (size_t)sprintf(answer, "{\"id\": @, \"return\": \"");

	memset(answer + n, 'x', QMP_MEMO_MAX / 2);
	(void)strcat(answer, "\"}\n");
	fake_qmp_on(f->fake, "query-much", answer);
	fake_qmp_on(f->fake, "query-more", answer);
	qmp_record(f->q, m);
	ask(f, "query-much");
	ask(f, "query-much");
	assert_true(qmp_memo_whole(m));
	ask(f, "query-more");
	assert_false(qmp_memo_whole(m));
	qmp_record(f->q, NULL);
	qmp_memo_free(m);
	free(answer);
}

/* An answer that has the id in it twice is not the same with another id. */
static void
test_id_twice(void **state)
{
	struct fixture *f = *state;
	struct qmp_memo *m = record(f);

	fake_qmp_on(f->fake, "query-twice", "{\"return\": @, \"id\": @}\n");
	qmp_record(f->q, m);
	ask(f, "query-twice");
	qmp_record(f->q, NULL);
	assert_true(qmp_memo_whole(m));
	assert_non_null(recall(f, m));
	qmp_memo_free(m);
}

static void
test_no_memory(void **state)
{
	struct fixture *f = *state;
	struct qmp_memo *m = record(f);
	struct lc_err e = LC_ERR_INIT;
	long n;
	int rc = LC_ENOMEM;

	for (n = 0; n < 200 && rc == LC_ENOMEM; n++) {
		new_batch(f);
		lc_alloc_fail_after(n);
		qmp_batch_recall(f->b, m);
		rc = qmp_batch_run(f->b, fixture_on_done, f, &e);
		lc_alloc_fail_after(-1);
		lc_err_clear(&e);
	}
	assert_int_equal(rc, 0);
	assert_true(n > 5);
	fixture_await(f, &f->done);
	assert_null(qmp_batch_differs(f->b));
	qmp_memo_free(m);
	lc_alloc_fail_after(0);
	m = qmp_memo_new();
	lc_alloc_fail_after(-1);
	assert_null(m);
	qmp_memo_free(m);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)
	const struct CMUnitTest tests[] = {
	    TEST(test_same),     TEST(test_another_number), TEST(test_more),
	    TEST(test_less),     TEST(test_refused_now),    TEST(test_not_refused_now),
	    TEST(test_between),  TEST(test_breaks),         TEST(test_no_question),
	    TEST(test_too_much), TEST(test_id_twice),       TEST(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

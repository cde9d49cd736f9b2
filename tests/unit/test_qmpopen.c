/*
 * qmp: whatever the other side of a monitor's socket is or does, opening it ends once, in time,
 * with a message that says what to do.
 */
#include <string.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "tests/lib/unit.h"
#include "tests/unit/qmp_fixture.h"

/* Opening fails with that code and that text in the message, within a second. */
static void
must_not_open(struct fixture *f, enum lc_code code, const char *text)
{
	struct lc_err e = LC_ERR_INIT;
	int64_t began = clock_mono_ns();

	assert_int_equal(fixture_open(f, &e), 0);
	fixture_await(f, &f->opened);
	assert_int_equal(f->opened, 1);
	assert_true(clock_mono_ns() - began < 4 * LC_NS_PER_S);
	assert_int_equal(f->open_err.code, code);
	if (strstr(f->open_err.msg, text) == NULL)
		fail_msg("'%s' is not in '%s'", text, f->open_err.msg);
	assert_int_equal(f->lost, 0);
	assert_false(qmp_usable(f->q));
}

static void
test_open(void **state)
{
	struct fixture *f = *state;

	fixture_must_open(f);
	assert_int_equal(qmp_version(f->q), 70222);
	assert_int_equal(fake_qmp_count(f->fake, "qmp_capabilities"), 1);
}

static void
test_no_socket(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(fixture_open(f, &e), LC_ENOENT);
	assert_null(f->q);
	assert_non_null(strstr(e.msg, "is the VM running?"));
	assert_non_null(strstr(e.msg, f->path));
}

static void
test_nobody_listens(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	fake_qmp_close(f->fake);
	f->fake = NULL;
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(fixture_open(f, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, "nobody listens"));
}

static void
test_name_too_long(void **state)
{
	struct fixture *f = *state;
	char path[200];
	struct qmp_opts o = {.socket = path};
	struct lc_err e = LC_ERR_INIT;

	memset(path, 'x', sizeof path - 1);
	path[sizeof path - 1] = '\0';
	assert_int_equal(qmp_open(&f->loop, &o, fixture_on_open, f, &f->q, &e), LC_EINVAL);
}

static void
test_held_by_another(void **state)
{
	struct fixture *f = *state;

	fake_qmp_greet(f->fake, "");
	must_not_open(f, LC_EBUSY, "another client holds the monitor socket");
	assert_non_null(strstr(f->open_err.msg, "-qmp unix:"));
}

static void
test_half_a_greeting(void **state)
{
	struct fixture *f = *state;

	fake_qmp_greet(f->fake, "NBDMAGICIHAVEOPT");
	must_not_open(f, LC_EINVAL, "no QMP monitor");
}

static void
test_no_qmp(void **state)
{
	struct fixture *f = *state;

	fake_qmp_greet(f->fake, "SSH-2.0-OpenSSH\r\n");
	must_not_open(f, LC_EINVAL, "SSH-2.0-OpenSSH");
}

static void
test_monitor_for_humans(void **state)
{
	struct fixture *f = *state;

	fake_qmp_greet(f->fake,
	               "QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ");
	must_not_open(f, LC_EINVAL, "monitor for humans");
}

static void
test_closed_at_once(void **state)
{
	struct fixture *f = *state;

	fake_qmp_on(f->fake, "qmp_capabilities", "");
	fake_qmp_hang_up(f->fake, 1);
	must_not_open(f, LC_EPEER, "closed by the other side");
}

static void
test_greets_and_is_silent(void **state)
{
	struct fixture *f = *state;

	fake_qmp_on(f->fake, "qmp_capabilities", "");
	must_not_open(f, LC_ETIMEDOUT, "did not answer");
}

static void
test_refuses_to_negotiate(void **state)
{
	struct fixture *f = *state;

	fake_qmp_on(f->fake, "qmp_capabilities",
	            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": @}\n");
	must_not_open(f, LC_EPEER, "qmp_capabilities: no");
}

static void
test_close_while_opening(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(fixture_open(f, &e), 0);
	qmp_close(f->q, fixture_on_closed, f);
	fixture_await(f, &f->closed);
	assert_int_equal(f->opened, 1);
	assert_int_equal(f->open_err.code, LC_ECANCELED);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fixture_set_up, fixture_tear_down)
	const struct CMUnitTest tests[] = {
	    T(test_open),
	    T(test_no_socket),
	    T(test_nobody_listens),
	    T(test_name_too_long),
	    T(test_held_by_another),
	    T(test_half_a_greeting),
	    T(test_no_qmp),
	    T(test_monitor_for_humans),
	    T(test_closed_at_once),
	    T(test_greets_and_is_silent),
	    T(test_refuses_to_negotiate),
	    T(test_close_while_opening),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

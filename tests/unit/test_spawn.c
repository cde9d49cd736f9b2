#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/spawn.h"
#include "tests/lib/unit.h"

/* sh -c text */
static int
run(const char *text, struct spawn *s, struct lc_buf *out, struct lc_buf *err, struct lc_err *e)
{
	char sh[] = "sh", c[] = "-c", copy[256];
	char *argv[] = {sh, c, copy, NULL};

	assert_true((size_t)snprintf(copy, sizeof copy, "%s", text) < sizeof copy);
	s->argv = argv;
	lc_err_clear(e);
	return spawn_run(s, out, err, e);
}

static void
tells_what_was_said(void **state)
{
	struct spawn s = {.nfds = 0};
	struct lc_buf out = {0}, err = {0};
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_int_equal(run("echo a; echo b >&2", &s, &out, &err, &e), 0);
	assert_string_equal((const char *)out.p, "a\n");
	assert_int_equal(out.n, 2);
	assert_string_equal((const char *)err.p, "b\n");
	assert_int_equal(run("true", &s, &out, &err, &e), 0);
	assert_int_equal(out.n, 0);
	assert_int_equal(run("echo; printf 'it\\nis broken\\n\\n' >&2; exit 3", &s, NULL, NULL, &e),
	                 LC_EIO);
	assert_string_equal(e.msg, "sh: it is broken");
	assert_int_equal(run("exit 1", &s, NULL, NULL, &e), LC_EIO);
	assert_string_equal(e.msg, "sh: failed without a word");
	assert_int_equal(run("kill -9 $$", &s, NULL, NULL, &e), LC_EIO);
	assert_string_equal(e.msg, "sh: killed by signal 9");
	/* More than is kept. */
	assert_int_equal(run("head -c 3000000 /dev/zero", &s, &out, NULL, &e), 0);
	assert_int_equal(out.n, SPAWN_TEXT_MAX);
	lc_buf_free(&out);
	lc_buf_free(&err);
}

static void
finds_no_program(void **state)
{
	char name[] = "/nowhere/program", *argv[] = {name, NULL};
	struct spawn s = {.argv = argv};
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_int_equal(spawn_run(&s, NULL, NULL, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, "/nowhere/program"));
}

/* Nothing but what is named, under the numbers that are promised, whatever they are here. */
static void
hands_over_descriptors(void **state)
{
	char *dir = tmpdir_new();
	const char *path = tmpdir_path(dir, "f");
	struct lc_buf out = {0};
	struct lc_err e = LC_ERR_INIT;
	int a = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600),
	    open_one = fcntl(a, F_DUPFD, 30); /* without CLOEXEC */
	int high = fcntl(a, F_DUPFD_CLOEXEC, 40);
	struct spawn s = {.fds = {high, a}, .nfds = 2};

	(void)state;
	assert_true(a >= 0 && open_one >= 0 && high >= 0);
	assert_int_equal(write(a, "hello", 5), 5);
	assert_int_equal(run("cat /proc/self/fd/3 /proc/self/fd/4", &s, &out, NULL, &e), 0);
	assert_string_equal((const char *)out.p, "hellohello");
	/* The one more is ls's own. */
	assert_int_equal(run("exec ls /proc/self/fd", &s, &out, NULL, &e), 0);
	assert_string_equal((const char *)out.p, "0\n1\n2\n3\n4\n5\n");
	(void)close(a);
	(void)close(open_one);
	(void)close(high);
	lc_buf_free(&out);
	tmpdir_free(dir);
}

static bool
at_once(void *arg)
{
	return ++*(int *)arg > 1;
}

static void
ends_what_takes_too_long(void **state)
{
	struct spawn s = {.timeout_ms = 300};
	struct lc_err e = LC_ERR_INIT;
	int64_t began = clock_mono_ns();
	int asked = 0;

	(void)state;
	/* With its children, which would hold what it was given. */
	assert_int_equal(run("sleep 60 & sleep 60", &s, NULL, NULL, &e), LC_ETIMEDOUT);
	s = (struct spawn){.stop = at_once, .arg = &asked};
	assert_int_equal(run("sleep 60", &s, NULL, NULL, &e), LC_ECANCELED);
	assert_int_equal(asked, 2);
	assert_true(clock_mono_ns() - began < 30 * LC_NS_PER_S);
}

static void
runs_out_of_memory(void **state)
{
	struct spawn s = {.nfds = 0};
	struct lc_buf out = {0};
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	lc_alloc_fail_after(0);
	assert_int_equal(run("echo a", &s, &out, NULL, &e), LC_EIO);
	lc_alloc_fail_after(-1);
	assert_int_equal(e.code, LC_ENOMEM);
	lc_buf_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(tells_what_was_said),    cmocka_unit_test(finds_no_program),
	    cmocka_unit_test(hands_over_descriptors), cmocka_unit_test(ends_what_takes_too_long),
	    cmocka_unit_test(runs_out_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The variables are read before main(), so each case runs this program again with its own.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "tests/lib/unit.h"

/* The child: pass each place named on the command line; exit 100 + the hit that failed with what
 * was asked for, or 0. */
static int
child_main(int argc, char **argv)
{
	int i;

	for (i = 2; i < argc; i++) {
		int rc;

		errno = 4711;
		rc = failpoint(argv[i]);
		if (errno != 4711)
			return 3;
		if (rc == EIO)
			return 100 + i - 1;
		if (rc == ENOSPC)
			return 200 + i - 1;
		if (rc != 0)
			return 4;
	}
	return failpoint_armed ? 0 : 50;
}

static pid_t
start(const char *spec, const char *log, const char *const *places, int hold_fd)
{
	char *argv[16] = {NULL};
	size_t n = 0;
	pid_t pid;

	argv[n++] = lc_strdup("test_failpoint");
	argv[n++] = lc_strdup("child");
	for (; *places != NULL; places++)
		argv[n++] = lc_strdup(*places);
	pid = fork();
	if (pid == 0) {
		(void)unsetenv("LOCUM_FAILPOINT");
		(void)unsetenv("LOCUM_FAILPOINT_LOG");
		if (spec != NULL)
			(void)setenv("LOCUM_FAILPOINT", spec, 1);
		if (log != NULL)
			(void)setenv("LOCUM_FAILPOINT_LOG", log, 1);
		if (hold_fd >= 0)
			(void)dup2(hold_fd, 9); /* Not close-on-exec: open while the child lives. */
		/* What a wrong specification says is not for the log of the tests. */
		if (freopen("/dev/null", "w", stderr) != NULL)
			(void)execv("/proc/self/exe", argv);
		_exit(99);
	}
	for (size_t i = 0; i < n; i++)
		lc_free(argv[i]);
	assert_true(pid > 0);
	return pid;
}

static int
run(const char *spec, const char *log, const char *const *places)
{
	pid_t pid = start(spec, log, places, -1);
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

#define PLACES(...) ((const char *const[]){__VA_ARGS__, NULL})
#define EXITED(code) ((code) << 8)

static void
unarmed_it_does_nothing(void **state)
{
	(void)state;
	assert_int_equal(run(NULL, NULL, PLACES("a", "b")), EXITED(50));
	assert_int_equal(run("", NULL, PLACES("a")), EXITED(50));
}

static void
fails_on_the_nth_hit_only(void **state)
{
	(void)state;
	assert_int_equal(run("a:1:eio", NULL, PLACES("a")), EXITED(101));
	assert_int_equal(run("a:2:eio", NULL, PLACES("a", "b", "a")), EXITED(103));
	assert_int_equal(run("a:2:enospc", NULL, PLACES("a", "a")), EXITED(202));
	assert_int_equal(run("a:3:eio", NULL, PLACES("a", "a", "b")), EXITED(0));
	assert_int_equal(run("a:1:eio", NULL, PLACES("ab", "")), EXITED(0));
	assert_int_equal(run("b:9:eio,a:1:enospc", NULL, PLACES("b", "a")), EXITED(202));
}

static void
kills_at_once(void **state)
{
	int status = run("a:2:kill,b:1:eio", NULL, PLACES("a", "a", "b"));

	(void)state;
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void
stops_and_goes_on(void **state)
{
	pid_t pid = start("a:1:stop", NULL, PLACES("a"), -1);
	int status;

	(void)state;
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(WSTOPSIG(status), SIGSTOP);
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, EXITED(0));
}

static void
hangs_for_ever(void **state)
{
	int fds[2], status;
	struct pollfd end;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	pid = start("a:1:hang", NULL, PLACES("a"), fds[1]);
	(void)close(fds[1]);
	end = (struct pollfd){.fd = fds[0], .events = POLLIN};
	assert_int_equal(poll(&end, 1, 100), 0); /* Not at its end. */
	/* A signal that is handled by nobody but does not kill either does not wake it. */
	assert_int_equal(kill(pid, SIGCHLD), 0);
	assert_int_equal(poll(&end, 1, 50), 0);
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	(void)close(fds[0]);
}

static void
wrong_specifications_end_the_process(void **state)
{
	static const char *const bad[] = {
	    "a",
	    "a:1",
	    "a:1:",
	    "a:x:eio",
	    "a:0:eio",
	    "a:-1:eio",
	    ":1:eio",
	    "a:1:nope",
	    "a:1:eio:2",
	    "a::eio",
	    "a:1eio",
	    "a:1:eio,b",
	    "a:99999999999999999999:eio",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (run(bad[i], NULL, PLACES("z")) != EXITED(2))
			fail_msg("\"%s\" was accepted", bad[i]);
	}
}

static void
names_every_hit_in_the_log(void **state)
{
	char *dir = tmpdir_new();
	const char *log = tmpdir_path(dir, "log");
	struct lc_buf b = {0};

	(void)state;
	assert_int_equal(run(NULL, log, PLACES("a", "b")), EXITED(0));
	/* Appended, and before the kill. */
	assert_true(WIFSIGNALED(run("c:1:kill", log, PLACES("a", "c"))));
	assert_int_equal(file_read_all(log, 1000, &b, NULL), 0);
	assert_int_equal(b.n, 8);
	assert_memory_equal(b.p, "a\nb\na\nc\n", 8);
	lc_buf_free(&b);
	/* A log that cannot be written would make a test assert nonsense. */
	assert_int_equal(run(NULL, tmpdir_path(dir, "no/log"), PLACES("a")), EXITED(2));
	tmpdir_free(dir);
}

int
main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(unarmed_it_does_nothing),
	    cmocka_unit_test(fails_on_the_nth_hit_only),
	    cmocka_unit_test(kills_at_once),
	    cmocka_unit_test(stops_and_goes_on),
	    cmocka_unit_test(hangs_for_ever),
	    cmocka_unit_test(wrong_specifications_end_the_process),
	    cmocka_unit_test(names_every_hit_in_the_log),
	};

	if (argc > 1)
		return child_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The guard, as it is in a program with threads: it says what it was given to say, after its parent
 * has died.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/hypervisor/guard.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

#define PIECE 65536u
#define PIECES 256u /* 16 MiB: more than is left alone where memory is given back */

static void *
use_memory(void *arg)
{
	char *pieces[PIECES];
	size_t i;

	(void)arg;
	for (i = 0; i < PIECES; i++) {
		pieces[i] = malloc(PIECE);
		if (pieces[i] != NULL)
			memset(pieces[i], 1, PIECE);
	}
	return pieces[0]; /* they stay, for the time of a child */
}

/* In a child, which ends without a word to its guard. */
static void
live_and_die(const struct guard_duty *duty)
{
	struct lc_err e = LC_ERR_INIT;
	struct guard *g = NULL;
	pthread_t thread;
	void *piece;

	if (pthread_create(&thread, NULL, use_memory, NULL) != 0 ||
	    pthread_join(thread, &piece) != 0 || guard_start(duty, &g, &e) != 0)
		_exit(1);
	_exit(0);
}

/* What is said up to that text; fails where the other side closes before. */
static void
expect(int fd, const char *text)
{
	char heard[8192] = "";
	size_t n = 0;

	while (strstr(heard, text) == NULL) {
		struct pollfd in = {.fd = fd, .events = POLLIN};
		ssize_t k;

		assert_int_equal(poll(&in, 1, 20000), 1);
		k = read(fd, heard + n, sizeof heard - 1 - n);
		if (k <= 0)
			fail_msg("the guard ended before it said %s", text);
		n += (size_t)k;
		heard[n] = '\0';
	}
}

static void
with_duty(bool scratch)
{
	char *top = tmpdir_new();
	const char *path = tmpdir_path(top, "scratch");
	FILE *f = fopen(path, "w");
	int ends[2], fds[1], status = 0;
	struct guard_duty duty = {.text = "{\"execute\":\"one\"}\n",
	                          .rest = "{\"execute\":\"two\"}\n",
	                          .prefix = "locum-",
	                          .scratch = fds,
	                          .nscratch = scratch ? 1 : 0,
	                          .patience_ms = 10000};
	pid_t pid;

	assert_non_null(f);
	fds[0] = fileno(f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	duty.monitor = ends[1];
	pid = fork();
	if (pid == 0)
		live_and_die(&duty);
	(void)close(ends[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	expect(ends[0], "x-debug-query-block-graph");
	(void)close(ends[0]);
	(void)fclose(f);
	tmpdir_free(top);
}

static void
it_looks_at_the_graph(void **state)
{
	(void)state;
	with_duty(false);
}

/* For which it makes a process of its own, when most of the memory has been given back. */
static void
it_asks_the_scratch_first(void **state)
{
	(void)state;
	with_duty(true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_looks_at_the_graph),
	    cmocka_unit_test(it_asks_the_scratch_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

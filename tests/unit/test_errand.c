/*
 * errand: what is done in time comes back with its descriptors, what hangs is left behind in time,
 * and no process, descriptor or handle remains.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uv.h>

#include "agent/hypervisor/errand.h"
#include "store/base/clock.h"
#include "tests/lib/unit.h"

struct fixture {
	uv_loop_t loop;
	char *dir;
	int done;
	struct errand_result result; /* descriptors taken over */
};

struct job {
	struct errand errand;
	char path[256];
	int fd;
};

static int
set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->dir = tmpdir_new();
	*state = f;
	return 0;
}

static int
tear_down(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(uv_loop_close(&f->loop), 0);
	for (size_t i = 0; i < f->result.nfds; i++)
		(void)close(f->result.fds[i]);
	tmpdir_free(f->dir);
	free(f);
	return 0;
}

static void
on_done(void *arg, struct errand_result *r)
{
	struct fixture *f = arg;

	f->done++;
	f->result = *r;
	r->nfds = 0; /* taken */
}

static void
run(struct fixture *f, const struct job *j)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(errand_start(&f->loop, &j->errand, on_done, f, &e), 0);
	assert_int_equal(f->done, 0);
	assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(f->done, 1);
}

static void
open_two(const struct errand *e, struct errand_result *out)
{
	const struct job *j = (const struct job *)e;
	int i;

	for (i = 0; i < 2; i++)
		out->fds[out->nfds++] = open(j->path, O_CREAT | O_RDWR, 0600);
}

static void
fail_at_three(const struct errand *e, struct errand_result *out)
{
	(void)e;
	out->sys = ENOSPC;
	out->at = 3;
}

static void
sleep_long(const struct errand *e, struct errand_result *out)
{
	(void)e;
	(void)out;
	(void)sleep(600);
}

static void
die(const struct errand *e, struct errand_result *out)
{
	(void)e;
	(void)out;
	(void)kill(getpid(), SIGKILL);
}

/* Which of the descriptors 0 to 99 are open, but for those of the answer. */
static void
count_open(const struct errand *e, struct errand_result *out)
{
	const struct job *j = (const struct job *)e;
	int fd;

	for (fd = 0; fd < 100; fd++)
		out->at += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
	out->sys = write(j->fd, "!", 1) == 1 ? 0 : errno;
}

static void
test_brings_descriptors(void **state)
{
	struct fixture *f = *state;
	struct job j = {.errand = {.run = open_two, .deadline_ms = 10000}};
	struct stat a, b;

	(void)strcpy(j.path, tmpdir_path(f->dir, "x"));
	run(f, &j);
	assert_false(f->result.late);
	assert_int_equal(f->result.sys, 0);
	assert_int_equal(f->result.nfds, 2);
	assert_int_equal(fstat(f->result.fds[0], &a), 0);
	assert_int_equal(stat(j.path, &b), 0);
	assert_true(a.st_ino == b.st_ino);
	assert_true((fcntl(f->result.fds[1], F_GETFD) & FD_CLOEXEC) != 0);
}

static void
test_tells_what_failed(void **state)
{
	struct fixture *f = *state;
	struct job j = {.errand = {.run = fail_at_three, .deadline_ms = 10000}};

	run(f, &j);
	assert_false(f->result.late);
	assert_int_equal(f->result.sys, ENOSPC);
	assert_int_equal(f->result.at, 3);
}

static void
test_late(void **state)
{
	struct fixture *f = *state;
	struct job j = {.errand = {.run = sleep_long, .deadline_ms = 100}};
	int64_t began = clock_mono_ns();

	run(f, &j);
	assert_true(f->result.late);
	assert_true(clock_mono_ns() - began < 5 * LC_NS_PER_S);
	/* Nobody is left, not as a zombie either. */
	while (waitpid(-1, NULL, 0) > 0)
		;
	assert_int_equal(errno, ECHILD);
}

static void
test_dies(void **state)
{
	struct fixture *f = *state;
	struct job j = {.errand = {.run = die, .deadline_ms = 10000}};
	int64_t began = clock_mono_ns();

	run(f, &j);
	assert_true(f->result.late);
	assert_true(clock_mono_ns() - began < 5 * LC_NS_PER_S);
}

static void
test_has_only_what_it_needs(void **state)
{
	struct fixture *f = *state;
	struct job j = {.errand = {.run = count_open, .deadline_ms = 10000}};
	int ends[2], keep[1];
	char c;

	assert_int_equal(pipe(ends), 0);
	j.fd = keep[0] = ends[1];
	j.errand.keep = keep;
	j.errand.nkeep = 1;
	run(f, &j);
	assert_int_equal(f->result.sys, 0);
	assert_int_equal(f->result.at, 2); /* that one, and the way back */
	assert_int_equal(read(ends[0], &c, 1), 1);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

/* Until somebody has the folder to himself. */
static void
wait_until_held(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), i;

	assert_true(fd >= 0);
	for (i = 0; i < 1000 && flock(fd, LOCK_EX | LOCK_NB) == 0; i++) {
		(void)flock(fd, LOCK_UN);
		(void)usleep(1000);
	}
	(void)close(fd);
	assert_true(i < 1000);
}

/* One that hangs on a folder makes the next one late, and not a second one hang. */
static void
test_one_at_a_time(void **state)
{
	struct fixture *f = *state;
	struct job hung = {.errand = {.run = sleep_long, .deadline_ms = 300}};
	struct job next = {.errand = {.run = fail_at_three, .deadline_ms = 100}};
	struct lc_err e = LC_ERR_INIT;
	uv_timer_t never;
	int spins;

	hung.errand.one_at_a_time = next.errand.one_at_a_time = f->dir;
	assert_int_equal(errand_start(&f->loop, &hung.errand, on_done, f, &e), 0);
	wait_until_held(f->dir);
	assert_int_equal(errand_start(&f->loop, &next.errand, on_done, f, &e), 0);
	(void)uv_timer_init(&f->loop, &never);
	for (spins = 0; f->done == 0 && spins < 1000; spins++)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	assert_true(f->result.late);
	uv_close((uv_handle_t *)&never, NULL);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->done, 2);
	/* The first was killed by then, so the folder is free. */
	f->done = 0;
	next.errand.deadline_ms = 10000;
	run(f, &next);
	assert_false(f->result.late);
	assert_int_equal(f->result.at, 3);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    T(test_brings_descriptors),     T(test_tells_what_failed), T(test_late), T(test_dies),
	    T(test_has_only_what_it_needs), T(test_one_at_a_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

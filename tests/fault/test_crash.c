/*
 * Laws 3 and 5: whatever is killed, wherever a write fails, acknowledged points stay and what was
 * not acknowledged is whole or not there, with the catalog and without.
 *
 * The default run takes a sample of the places; LOCUM_CRASH_ALL=1 takes every one and more random
 * moments.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "tests/fault/workload.h"
#include "tests/lib/places.h"
#include "tests/lib/unit.h"

#define STEPS 14u

static bool
every_one(void)
{
	return getenv("LOCUM_CRASH_ALL") != NULL;
}

/* The default run takes the first pass of each, and some of the others. */
static bool
taken(const struct place *p, size_t i)
{
	return every_one() || p->n == 1 || i % 37 == 0;
}

static void
fresh(struct vault *v)
{
	vault_make(v, true);
}

/* A vault that a workload has used for a while: what disasters strike. */
static void
used(struct vault *v)
{
	fresh(v);
	assert_int_equal(workload_run(v, "write", 0, STEPS, NULL, NULL), 0);
}

static size_t
learn(struct vault *v, const char *mode, unsigned from, unsigned steps, struct place *list,
      size_t max)
{
	char *log = lc_strdup(tmpdir_path(v->top, "log"));
	size_t n;

	assert_int_equal(workload_run(v, mode, from, steps, NULL, log), 0);
	n = places_read(log, list, max);
	lc_free(log);
	return n;
}

/* Kill at the place, look, and work on. */
static void
strike(struct vault *v, const char *mode, unsigned from, unsigned steps, const struct place *p,
       const char *action)
{
	char rule[160];
	int rc;

	(void)snprintf(rule, sizeof rule, "%s:%u:%s", p->name, p->n, action);
	rc = workload_run(v, mode, from, steps, rule, NULL);
	if (strcmp(action, "kill") == 0 && rc != 128 + SIGKILL)
		fail_msg("%s was not passed (%d)", rule, rc);
	workload_check(v, rule);
	rc = workload_run(v, "write", 100, 3, NULL, NULL);
	if (rc != 0)
		fail_msg("after %s: %d", rule, rc);
	workload_check(v, rule);
}

static void
strike_everywhere(const char *mode, unsigned from, unsigned steps, const char *action,
                  const char *const *only)
{
	static struct place list[4096];
	struct vault v;
	size_t n, i, k, done = 0;

	used(&v);
	n = learn(&v, mode, from, steps, list, 4096);
	vault_free(&v);
	assert_true(n > 0);
	for (i = 0; i < n; i++) {
		for (k = 0; only != NULL && only[k] != NULL && strcmp(only[k], list[i].name) != 0;
		     k++)
			;
		if (!taken(&list[i], i) || (only != NULL && only[k] == NULL))
			continue;
		used(&v);
		strike(&v, mode, from, steps, &list[i], action);
		vault_free(&v);
		done++;
	}
	print_message("%s, %s: %zu of %zu places\n", mode, action, done, n);
	assert_true(done > 0);
}

static void
killed_while_writing(void **state)
{
	(void)state;
	strike_everywhere("write", STEPS, STEPS, "kill", NULL);
}

static void
killed_while_rebuilding(void **state)
{
	(void)state;
	strike_everywhere("rebuild", 0, 0, "kill", NULL);
}

static const char *const may_fail[] = {
    "segment.write", "segment.sync",  "segment.begin", "segment.seal.index", "segment.rename",
    "store.apply",   "idindex.write", "files.fsync",   "segment.adopt.sync", NULL,
};

static void
input_output_errors(void **state)
{
	(void)state;
	strike_everywhere("write", STEPS, STEPS, "eio", may_fail);
}

static void
no_space(void **state)
{
	(void)state;
	strike_everywhere("write", STEPS, STEPS, "enospc", may_fail);
}

/* A store whose owner died, and then the one who takes it over dies, too. */
static void
killed_while_taking_over(void **state)
{
	static const char *const first[] = {"segment.seal.rename:1:kill", "commit.appended:9:kill",
	                                    "commit.durable:7:kill", "commit.data-durable:5:kill",
	                                    "segment.rename:1:kill"};
	static struct place list[512];
	struct vault v;
	size_t n, i, k, done = 0;

	(void)state;
	for (k = 0; k < sizeof first / sizeof first[0]; k++) {
		used(&v);
		(void)workload_run(&v, "write", STEPS, STEPS, first[k], NULL);
		n = learn(&v, "open", 0, 0, list, 512);
		vault_free(&v);
		for (i = 0; i < n; i++) {
			if (!taken(&list[i], i))
				continue;
			used(&v);
			(void)workload_run(&v, "write", STEPS, STEPS, first[k], NULL);
			strike(&v, "open", 0, 0, &list[i], "kill");
			vault_free(&v);
			done++;
		}
	}
	print_message("open after a crash, kill: %zu places\n", done);
}

static void
killed_while_making_it(void **state)
{
	static struct place list[256];
	struct vault v;
	size_t n, i;

	(void)state;
	fresh(&v);
	dir_remove(v.dir);
	dir_remove(v.keys);
	(void)unlink(v.kit);
	n = learn(&v, "init", 0, 0, list, 256);
	vault_free(&v);
	for (i = 0; i < n; i++) {
		char rule[160];
		struct store *s;

		fresh(&v);
		dir_remove(v.dir);
		dir_remove(v.keys);
		(void)unlink(v.kit);
		(void)snprintf(rule, sizeof rule, "%.63s:%u:kill", list[i].name, list[i].n);
		assert_int_equal(workload_run(&v, "init", 0, 0, rule, NULL), 128 + SIGKILL);
		/* Either it is a store, which the kit opens, or it can be made now. */
		if (vault_try(&v, STORE_WRITE, &s, NULL) == 0) {
			store_close(s);
			assert_int_equal(access(v.kit, F_OK), 0);
		} else {
			(void)unlink(v.kit);
			if (workload_run(&v, "init", 0, 0, NULL, NULL) != 0)
				fail_msg("after %s: init can't be repeated", rule);
		}
		assert_int_equal(workload_run(&v, "write", 0, 5, NULL, NULL), 0);
		workload_check(&v, rule);
		vault_free(&v);
	}
	print_message("init, kill: %zu places\n", n);
}

static void
killed_at_random_moments(void **state)
{
	unsigned rounds = every_one() ? 200 : 15, i;
	uint64_t seed = (uint64_t)clock_mono_ns();
	int64_t start, whole;
	struct vault v;
	int pid;

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	fresh(&v);
	start = clock_mono_ns();
	assert_int_equal(workload_run(&v, "write", 0, STEPS, NULL, NULL), 0);
	whole = clock_mono_ns() - start;
	/* One store, killed again and again. */
	for (i = 0; i < rounds; i++) {
		uint64_t ns = vault_random(&seed, (uint64_t)whole * 5 / 4);
		struct timespec pause = {.tv_sec = (time_t)(ns / 1000000000u),
		                         .tv_nsec = (long)(ns % 1000000000u)};
		const char *mode = i % 6 == 5 ? "rebuild" : "write";

		pid = workload_start(&v, mode, STEPS * (i + 1), STEPS, NULL, NULL);
		(void)nanosleep(&pause, NULL);
		(void)kill(pid, SIGKILL);
		(void)workload_wait(pid);
		if (i % 4 == 3 || i + 1 == rounds)
			workload_check(&v, "killed at a random moment");
	}
	vault_free(&v);
}

static unsigned
kib_of(const char *dir)
{
	char command[512];
	unsigned kib = 0;
	FILE *f;

	(void)snprintf(command, sizeof command, "du -sk '%s'", dir);
	f = popen(command, "r"); /* NOLINT(cert-env33-c) */
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%u", &kib), 1);
	(void)pclose(f);
	return kib;
}

/* Every file that grows fails at some size: segments, catalog, WAL, id index, temporary files. */
static void
files_that_can_not_grow(void **state)
{
	static const unsigned long limits[] = {1,      4096,   32768,  70000,  100000, 131072,
	                                       150000, 200000, 250000, 300000, 350000, 500000};
	struct vault v;
	char text[32];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof limits / sizeof limits[0]; i++) {
		used(&v);
		(void)snprintf(text, sizeof text, "%lu", limits[i]);
		(void)setenv("VAULT_FSIZE", text, 1);
		(void)workload_run(&v, i % 2 == 0 ? "write" : "rebuild", STEPS, STEPS, NULL, NULL);
		(void)workload_run(&v, "write", STEPS, STEPS, NULL, NULL);
		(void)unsetenv("VAULT_FSIZE");
		workload_check(&v, text);
		assert_int_equal(workload_run(&v, "write", 100, 3, NULL, NULL), 0);
		workload_check(&v, text);
		vault_free(&v);
	}
}

/* A filesystem that is really full, at some moment of the work: then it says so, keeps what it
 * acknowledged, and goes on when there is room. */
static void
a_full_filesystem(void **state)
{
	static const unsigned room_kib[] = {8, 40, 90, 150, 230, 340, 500, 700};
	char options[32], *was;
	struct vault v;
	size_t i;
	int rc;

	(void)state;
	for (i = 0; i < sizeof room_kib / sizeof room_kib[0]; i++) {
		used(&v);
		was = lc_strdup(tmpdir_path(v.top, "was"));
		assert_int_equal(rename(v.dir, was), 0);
		assert_int_equal(mkdir(v.dir, 0700), 0);
		(void)snprintf(options, sizeof options, "size=%uk", room_kib[i] + kib_of(was));
		if (mount("none", v.dir, "tmpfs", 0, options) != 0) {
			print_message("SKIP: no right to mount a tmpfs: the store was never on a "
			              "full filesystem\n");
			lc_free(was);
			vault_free(&v);
			skip();
		}
		vault_copy(tmpdir_path(was, "."), v.dir); /* what is in it */
		rc = workload_run(&v, "write", STEPS, 4 * STEPS, NULL, NULL);
		(void)workload_run(&v, "rebuild", 0, 0, NULL, NULL);
		assert_int_equal(rc, 3); /* it was full */
		assert_int_equal(mount("none", v.dir, "tmpfs", MS_REMOUNT, "size=64m"), 0);
		workload_check(&v, options);
		assert_int_equal(workload_run(&v, "write", 100, 3, NULL, NULL), 0);
		workload_check(&v, options);
		assert_int_equal(umount2(v.dir, MNT_DETACH), 0);
		lc_free(was);
		vault_free(&v);
	}
}

/* What is killed and filled up here is made of deltas, too. */
static void
some_of_it_are_deltas(void **state)
{
	uint64_t bases[CHUNK_BASES_MAX], no;
	size_t n, deltas = 0;
	struct vault v;

	(void)state;
	used(&v);
	vault_open(&v);
	for (no = 1; no < 1000; no++) {
		if (catalog_bases(v.s->catalog, no, bases, &n, NULL) == 0)
			deltas += n > 0;
	}
	vault_free(&v);
	assert_true(deltas >= 3);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(killed_while_writing),
	    cmocka_unit_test(killed_while_rebuilding),
	    cmocka_unit_test(killed_while_taking_over),
	    cmocka_unit_test(killed_while_making_it),
	    cmocka_unit_test(killed_at_random_moments),
	    cmocka_unit_test(input_output_errors),
	    cmocka_unit_test(no_space),
	    cmocka_unit_test(files_that_can_not_grow),
	    cmocka_unit_test(a_full_filesystem),
	    cmocka_unit_test(some_of_it_are_deltas),
	};

	if (strcmp(argv[0], "workload") == 0)
		return workload_main(argc, argv);
	log_set_level(LOG_LV_ERROR);
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Law 3 against the power: a store is used, every call that changes a file is written down, and
 * then it is opened as it may be found after a power failure at any of these calls: of what was not
 * synced nothing is there, all, or any part.
 *
 * The default run takes a sample of the moments; LOCUM_CRASH_ALL=1 takes every one, and more parts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "tests/fault/trace.h"
#include "tests/fault/workload.h"
#include "tests/lib/unit.h"

#define STEPS 14u
#define SAMPLE 15u /* of moments that are no sync */

static uint64_t seed;

static bool
every_one(void)
{
	return getenv("LOCUM_CRASH_ALL") != NULL;
}

/* Run the child with a trace; returns how many calls it made. */
static size_t
traced(const struct vault *v, struct crash *c, const char *mode, unsigned from, unsigned steps)
{
	char *file = lc_strdup(tmpdir_path(v->top, "journal.trace"));
	size_t n;
	int rc;

	(void)setenv("LOCUM_TRACE", file, 1);
	(void)setenv("LOCUM_TRACE_ROOT", v->top, 1);
	rc = workload_run(v, mode, from, steps, NULL, NULL);
	(void)unsetenv("LOCUM_TRACE");
	(void)unsetenv("LOCUM_TRACE_ROOT");
	assert_int_equal(rc, 0);
	n = crash_load(c, file);
	assert_true(n > 10);
	lc_free(file);
	return n;
}

/* A folder for what is there after the failure. */
static struct vault
found(const struct vault *v, struct crash *c, size_t at, enum crash_keeps keeps)
{
	struct vault f = {.top = lc_strdup(tmpdir_path(v->top, "journal.found")),
	                  .segment_bytes = v->segment_bytes};

	(void)snprintf(f.dir, sizeof f.dir, "%s/store", f.top);
	(void)snprintf(f.keys, sizeof f.keys, "%s/keys", f.top);
	(void)snprintf(f.kit, sizeof f.kit, "%s/kit", f.top);
	assert_int_equal(mkdir(f.top, 0700), 0);
	crash_make(c, at, keeps, vault_random(&seed, UINT64_MAX), f.top,
	           tmpdir_path(f.top, "journal"));
	return f;
}

/* Just before a sync tells most: nothing of it is sure. */
static bool
taken(const struct crash *c, size_t at, size_t n)
{
	if (every_one() || at == n)
		return true;
	if (crash_is_sync(c, at))
		return vault_random(&seed, 3) == 0;
	return vault_random(&seed, n) < SAMPLE;
}

static void
check(const struct vault *v, struct crash *c, size_t at, const char *mode)
{
	bool sync = crash_is_sync(c, at);
	unsigned k, ways = every_one() ? 8 : sync ? 4 : 2;

	/* Everything kept is what a kill leaves; others do that. */
	for (k = sync || every_one() ? 0 : 1; k < ways; k++) {
		uint64_t before = seed;
		enum crash_keeps keeps = k == 0 ? CRASH_NOTHING : CRASH_SOME;
		struct vault f = found(v, c, at, keeps);
		char what[120];

		(void)snprintf(what, sizeof what,
		               "%s, power lost before call %zu, way %u, seed %llu", mode, at, k,
		               (unsigned long long)before);
		workload_check(&f, what);
		if (k == 1) {
			if (workload_run(&f, "write", 100, 3, NULL, NULL) != 0)
				fail_msg("%s: no further work", what);
			workload_check(&f, what);
		}
		dir_remove(f.top);
		lc_free(f.top);
	}
}

static void
power_lost(const char *mode, unsigned from, unsigned steps)
{
	struct crash *c;
	struct vault v;
	size_t n, at, done = 0;

	vault_make(&v, true);
	assert_int_equal(workload_run(&v, "write", 0, STEPS, NULL, NULL), 0);
	c = crash_begin(v.top);
	n = traced(&v, c, mode, from, steps);
	for (at = 0; at <= n; at++) {
		if (!taken(c, at, n))
			continue;
		check(&v, c, at, mode);
		done++;
	}
	print_message("%s: %zu of %zu moments\n", mode, done, n);
	crash_free(c);
	vault_free(&v);
}

static void
while_writing(void **state)
{
	(void)state;
	power_lost("write", STEPS, STEPS);
}

static void
while_rebuilding(void **state)
{
	(void)state;
	power_lost("rebuild", 0, 0);
}

/* A store that init said was made is there, and opens with what init left. */
static void
while_making_it(void **state)
{
	struct crash *c;
	struct vault v;
	struct store *s;
	size_t n, at;
	unsigned k;

	(void)state;
	vault_make(&v, true);
	dir_remove(v.dir);
	dir_remove(v.keys);
	(void)unlink(v.kit);
	c = crash_begin(v.top);
	n = traced(&v, c, "init", 0, 0);
	for (at = 0; at <= n; at++) {
		for (k = 0; k < 3; k++) {
			struct vault f = found(&v, c, at, (enum crash_keeps)k);
			struct lc_err e = LC_ERR_INIT;

			if (vault_try(&f, STORE_WRITE, &s, &e) == 0) {
				store_close(s);
				assert_int_equal(access(f.kit, F_OK), 0);
			} else if (at == n) {
				fail_msg("made, and gone: way %u: %s", k, e.msg);
			} else {
				(void)unlink(f.kit);
				if (workload_run(&f, "init", 0, 0, NULL, NULL) != 0)
					fail_msg("before call %zu, way %u: init can't be repeated: "
					         "%s",
					         at, k, e.msg);
			}
			assert_int_equal(workload_run(&f, "write", 0, 3, NULL, NULL), 0);
			workload_check(&f, "power lost during init");
			dir_remove(f.top);
			lc_free(f.top);
		}
	}
	print_message("init: %zu moments\n", n);
	crash_free(c);
	vault_free(&v);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(while_writing),
	    cmocka_unit_test(while_rebuilding),
	    cmocka_unit_test(while_making_it),
	};
	const char *given = getenv("LOCUM_CRASH_SEED");

	if (strcmp(argv[0], "workload") == 0) {
		workload_on_note = trace_mark;
		return workload_main(argc, argv);
	}
	seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)clock_mono_ns();
	print_message("seed %llu\n", (unsigned long long)seed);
	log_set_level(LOG_LV_ERROR);
	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

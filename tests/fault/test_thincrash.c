/*
 * Law 3 where a store becomes thin: whatever is killed, fails or loses power on the way, every
 * point reads true, from here and the replica together, with the catalog and without; and it can be
 * done again.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "store/thin.h"
#include "tests/fault/trace.h"
#include "tests/lib/must.h"
#include "tests/lib/places.h"
#include "tests/lib/twin.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define SEGMENT_BYTES (512u << 10)
#define WINDOWS 60u
#define PLACES 400u

struct site {
	struct twin t;
	struct vault_disk d;
	struct point p;
};

static void
make_site(struct site *x)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t i;

	memset(x, 0, sizeof *x);
	twin_make(&x->t, SEGMENT_BYTES);
	x->d = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++)
		x->d.codes[i] = 5 * (i + 1); /* does not compress */
	must(vault_backup(x->t.v.s, "web01", &x->d, 1, &x->p, &e), &e);
	twin_replicate(&x->t);
	twin_close_peer(&x->t);
	vault_close(&x->t.v);
}

static void
free_site(struct site *x)
{
	point_done(&x->p);
	vault_disk_free(&x->d);
	twin_free(&x->t);
}

/* ---- the child ---- */

static int
child(const char *top)
{
	struct thin_opts o = {.have = twin_have, .peers = "dr1", .bytes = UINT64_MAX};
	struct lc_err e = LC_ERR_INIT;
	struct thin_stats st;
	struct twin t;
	int rc;

	log_set_level(LOG_LV_ERROR);
	twin_at(&t, top, SEGMENT_BYTES);
	o.arg = &t;
	rc = twin_open_peer(&t, &e);
	rc = rc != 0 ? rc : vault_try(&t.v, STORE_WRITE, &t.v.s, &e);
	rc = rc != 0 ? rc : thin_run(t.v.s, &o, &st, &e);
	vault_close(&t.v);
	twin_close_peer(&t);
	return rc == 0 ? 0 : 3;
}

static int
run_child(const struct site *x, const char *failpoint, const char *log)
{
	int status, pid = fork();

	if (pid == 0) {
		(void)unsetenv("LOCUM_FAILPOINT");
		(void)unsetenv("LOCUM_FAILPOINT_LOG");
		if (failpoint != NULL)
			(void)setenv("LOCUM_FAILPOINT", failpoint, 1);
		if (log != NULL)
			(void)setenv("LOCUM_FAILPOINT_LOG", log, 1);
		(void)execl("/proc/self/exe", "thin", x->t.v.top, (char *)NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- looking ---- */

static void
read_all(struct site *x, struct store *s, const char *what)
{
	struct lc_err e = LC_ERR_INIT;

	thin_fetch(s, twin_fetch, &x->t);
	if (vault_compare(s, x->p.id, &x->d, 1, &e) != 0 || vault_verify(s, x->p.id, &e) != 0 ||
	    store_scrub(s, NULL, NULL, NULL, NULL, &e) != 0)
		fail_msg("after %s: %s (kept in %s)", what, e.msg, x->t.v.top);
}

static void
look(struct site *x, const char *what)
{
	struct store_opts o = {.dir = x->t.v.dir, .key_dir = x->t.v.keys};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;
	unsigned round;

	for (round = 0; round < 3; round++) {
		if (round == 1)
			must(store_rebuild(&o, &e), &e);
		if (round == 2) {
			(void)unlink(vault_path(&x->t.v, "catalog.sqlite"));
			(void)unlink(vault_path(&x->t.v, "catalog.sqlite-wal"));
			(void)unlink(vault_path(&x->t.v, "catalog.sqlite-shm"));
		}
		must(vault_try(&x->t.v, round == 0 ? STORE_READ : STORE_WRITE, &s, &e), &e);
		read_all(x, s, what);
		store_close(s);
	}
}

static void
strike(const char *rule, bool kill)
{
	struct lc_err e = LC_ERR_INIT;
	struct site x;
	int rc;

	make_site(&x);
	rc = run_child(&x, rule, NULL);
	if (kill && rc != 128 + SIGKILL)
		fail_msg("%s was not passed (%d)", rule, rc);
	must(twin_open_peer(&x.t, &e), &e);
	look(&x, rule);
	twin_close_peer(&x.t);
	assert_int_equal(run_child(&x, NULL, NULL), 0);
	must(twin_open_peer(&x.t, &e), &e);
	look(&x, rule);
	free_site(&x);
}

static size_t
learn(struct place *list)
{
	char log[400];
	struct site x;
	size_t n;

	make_site(&x);
	(void)snprintf(log, sizeof log, "%s/log", x.t.v.top);
	assert_int_equal(run_child(&x, NULL, log), 0);
	n = places_read(log, list, PLACES);
	free_site(&x);
	return n;
}

static void
killed_anywhere(void **state)
{
	static struct place list[PLACES];
	bool all = getenv("LOCUM_CRASH_ALL") != NULL;
	size_t n = learn(list), i, done = 0, own = 0;
	char rule[160];

	(void)state;
	for (i = 0; i < n; i++) {
		if (!all && list[i].n > 2)
			continue;
		(void)snprintf(rule, sizeof rule, "%.63s:%u:kill", list[i].name, list[i].n);
		strike(rule, true);
		own += strstr(rule, "thin") != NULL;
		done++;
	}
	print_message("kill: %zu of %zu places\n", done, n);
	assert_true(own >= 8);
}

static void
writes_that_fail(void **state)
{
	static const char *const rules[] = {
	    "segment.thin.write:1:eio",   "segment.thin.write:3:enospc", "segment.thin.sync:1:eio",
	    "segment.thin.sync:2:enospc", "store.apply:1:eio",           "segment.sync:1:eio"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rules / sizeof rules[0]; i++)
		strike(rules[i], false);
}

/* ---- the power ---- */

/* What may be there after it was lost before that call: in a folder of its own, with the replica
 * and the keys as they are. */
static void
power_lost(struct site *x, struct crash *c, size_t at, enum crash_keeps keeps, uint64_t *seed)
{
	struct thin_opts o = {.have = twin_have, .peers = "dr1", .bytes = UINT64_MAX};
	struct lc_err e = LC_ERR_INIT;
	struct site f = *x;
	struct thin_stats st;
	char what[120], *top = lc_strdup(tmpdir_path(x->t.v.top, "found"));
	uint64_t before = *seed;

	assert_non_null(top);
	(void)snprintf(what, sizeof what, "power lost before call %zu, seed %llu", at,
	               (unsigned long long)before);
	(void)snprintf(f.t.v.dir, sizeof f.t.v.dir, "%s/store", top);
	f.t.v.top = top;
	f.t.v.s = NULL;
	assert_int_equal(mkdir(top, 0700), 0);
	assert_int_equal(mkdir(f.t.v.dir, 0700), 0);
	crash_make(c, at, keeps, vault_random(seed, UINT64_MAX), f.t.v.dir,
	           tmpdir_path(x->t.v.top, "marks"));
	must(twin_open_peer(&f.t, &e), &e);
	look(&f, what);
	/* And on. */
	o.arg = &f.t;
	vault_open(&f.t.v);
	must(thin_run(f.t.v.s, &o, &st, &e), &e);
	read_all(&f, f.t.v.s, what);
	vault_close(&f.t.v);
	twin_close_peer(&f.t);
	dir_remove(top);
	lc_free(top);
}

static void
the_power_is_lost_anywhere(void **state)
{
	bool all = getenv("LOCUM_CRASH_ALL") != NULL;
	uint64_t seed = (uint64_t)clock_wall_ns();
	struct crash *c;
	struct site x;
	size_t n, at, done = 0;
	unsigned k;
	char *trace;

	(void)state;
	make_site(&x);
	c = crash_begin(x.t.v.dir);
	trace = lc_strdup(tmpdir_path(x.t.v.top, "trace"));
	(void)setenv("LOCUM_TRACE", trace, 1);
	(void)setenv("LOCUM_TRACE_ROOT", x.t.v.dir, 1);
	assert_int_equal(run_child(&x, NULL, NULL), 0);
	(void)unsetenv("LOCUM_TRACE");
	(void)unsetenv("LOCUM_TRACE_ROOT");
	n = crash_load(c, trace);
	assert_true(n > 20);
	for (at = 0; at <= n; at++) {
		bool sync = at == n || crash_is_sync(c, at);

		if (!all && vault_random(&seed, sync ? 3 : 12) != 0)
			continue;
		for (k = 0; k < (all ? 6 : 2); k++)
			power_lost(&x, c, at, k == 0 ? CRASH_NOTHING : CRASH_SOME, &seed);
		done++;
	}
	print_message("power: %zu of %zu moments\n", done, n);
	lc_free(trace);
	crash_free(c);
	free_site(&x);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(killed_anywhere),
	    cmocka_unit_test(writes_that_fail),
	    cmocka_unit_test(the_power_is_lost_anywhere),
	};

	if (argc == 2 && strcmp(argv[0], "thin") == 0)
		return child(argv[1]);
	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

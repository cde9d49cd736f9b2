/*
 * Law 3 where a store becomes thin: whatever is killed or fails on the way, every point reads true,
 * from here and the replica together, with the catalog and without; and it can be done again.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "store/thin.h"
#include "store/transfer.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define WINDOWS 60u
#define PLACES 400u

struct site {
	struct vault v;
	char dir[300];
	struct store *peer;
	struct vault_disk d;
	struct point p;
};

static void
must(int rc, const struct lc_err *e)
{
	if (rc != 0)
		fail_msg("%d: %s", rc, e->msg);
}

static int
have(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	const struct site *x = arg;
	size_t i;

	for (i = 0; i < n; i++) {
		if (transfer_has(x->peer, 0, ids + i * CHUNK_ID_SIZE, e) == 0)
			bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << (i % 8));
	}
	return 0;
}

static int
fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
      struct lc_err *e)
{
	const struct site *x = arg;
	struct transfer_chunk c;
	int rc = n == 0 ? LC_EINVAL : transfer_read(x->peer, 0, ids, payload, &c, e);

	*out = (struct fetched){c.encoding, c.key, c.payload.n};
	return rc;
}

static int
open_peer(struct site *x, struct lc_err *e)
{
	struct store_opts o = {.dir = x->dir, .mode = STORE_WRITE, .no_key = true};

	return store_open(&o, &x->peer, e);
}

static void
make_site(struct site *x)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t i;

	memset(x, 0, sizeof *x);
	vault_make(&x->v, true);
	x->v.segment_bytes = 512u << 10;
	vault_open(&x->v);
	(void)snprintf(x->dir, sizeof x->dir, "%s/replica", x->v.top);
	x->d = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++)
		x->d.codes[i] = 5 * (i + 1); /* does not compress */
	must(vault_backup(x->v.s, "web01", &x->d, 1, &x->p, &e), &e);
	vault_close(&x->v);
	vault_copy(x->v.dir, x->dir);
}

static void
free_site(struct site *x)
{
	store_close(x->peer);
	point_done(&x->p);
	vault_disk_free(&x->d);
	vault_free(&x->v);
}

/* ---- the child ---- */

static int
child(const char *top)
{
	struct thin_opts o = {.have = have, .peers = "dr1", .bytes = UINT64_MAX};
	struct lc_err e = LC_ERR_INIT;
	struct thin_stats st;
	struct site x = {.peer = NULL};
	int rc;

	log_set_level(LOG_LV_ERROR);
	(void)snprintf(x.v.dir, sizeof x.v.dir, "%s/store", top);
	(void)snprintf(x.v.keys, sizeof x.v.keys, "%s/keys", top);
	(void)snprintf(x.dir, sizeof x.dir, "%s/replica", top);
	x.v.segment_bytes = 512u << 10;
	o.arg = &x;
	rc = open_peer(&x, &e);
	rc = rc != 0 ? rc : vault_try(&x.v, STORE_WRITE, &x.v.s, &e);
	rc = rc != 0 ? rc : thin_run(x.v.s, &o, &st, &e);
	store_close(x.v.s);
	store_close(x.peer);
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
		(void)execl("/proc/self/exe", "thin", x->v.top, (char *)NULL);
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

	thin_fetch(s, fetch, x);
	if (vault_compare(s, x->p.id, &x->d, 1, &e) != 0 || vault_verify(s, x->p.id, &e) != 0 ||
	    store_scrub(s, NULL, NULL, NULL, NULL, &e) != 0)
		fail_msg("after %s: %s (kept in %s)", what, e.msg, x->v.top);
}

static void
look(struct site *x, const char *what)
{
	struct store_opts o = {.dir = x->v.dir, .key_dir = x->v.keys};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;
	unsigned round;

	for (round = 0; round < 3; round++) {
		if (round == 1)
			must(store_rebuild(&o, &e), &e);
		if (round == 2) {
			(void)unlink(vault_path(&x->v, "catalog.sqlite"));
			(void)unlink(vault_path(&x->v, "catalog.sqlite-wal"));
			(void)unlink(vault_path(&x->v, "catalog.sqlite-shm"));
		}
		must(vault_try(&x->v, round == 0 ? STORE_READ : STORE_WRITE, &s, &e), &e);
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
	must(open_peer(&x, &e), &e);
	look(&x, rule);
	store_close(x.peer);
	x.peer = NULL;
	assert_int_equal(run_child(&x, NULL, NULL), 0);
	must(open_peer(&x, &e), &e);
	look(&x, rule);
	free_site(&x);
}

struct place {
	char name[64];
	unsigned n;
};

static size_t
learn(struct place *list)
{
	char log[400], line[64] = "";
	struct site x;
	size_t n = 0, i;
	FILE *f;

	make_site(&x);
	(void)snprintf(log, sizeof log, "%s/log", x.v.top);
	assert_int_equal(run_child(&x, NULL, log), 0);
	f = fopen(log, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f) != NULL && n < PLACES) {
		line[strcspn(line, "\n")] = '\0';
		list[n] = (struct place){.n = 1};
		memcpy(list[n].name, line, sizeof line);
		for (i = 0; i < n; i++)
			list[n].n += strcmp(list[i].name, line) == 0;
		n++;
	}
	(void)fclose(f);
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

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(killed_anywhere),
	    cmocka_unit_test(writes_that_fail),
	};

	if (argc == 2 && strcmp(argv[0], "thin") == 0)
		return child(argv[1]);
	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include "replicator/limits.h"
#include "replicator/writers.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "tests/lib/unit.h"

struct place {
	char *dir;
	uint8_t secret[32];
};

static void
make(struct place *p)
{
	p->dir = tmpdir_new();
	assert_int_equal(writers_token(p->dir, 3600 * LC_NS_PER_S, NULL, p->secret, NULL), 0);
}

static struct writer_entry
host(uint8_t key, uint8_t domain)
{
	struct writer_entry w = {.name = "host-a"};

	memset(w.key, key, sizeof w.key);
	memset(w.domain, domain, sizeof w.domain);
	return w;
}

static int
bind_it(struct place *p, uint8_t key, uint8_t domain)
{
	struct writer_entry w = host(key, domain);

	return writers_bind(p->dir, &w, p->secret, NULL);
}

static unsigned
files_in(const struct place *p, const char *sub)
{
	char command[400];
	unsigned n = 0;
	FILE *f;

	(void)snprintf(command, sizeof command, "ls -A %s/%s 2>/dev/null | wc -l", p->dir, sub);
	f = popen(command, "re"); /* NOLINT(cert-env33-c) */
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%u", &n), 1); /* NOLINT(cert-err34-c) */
	(void)pclose(f);
	return n;
}

static void
a_token_lets_one_host_in_once(void **state)
{
	struct writer_entry w, found;
	struct place p;

	(void)state;
	make(&p);
	w = host(1, 9);
	assert_int_equal(writers_find(p.dir, w.key, &found, NULL), LC_ENOENT);
	assert_int_equal(writers_bind(p.dir, &w, p.secret, NULL), 0);
	assert_int_equal(files_in(&p, "tokens"), 0);
	assert_int_equal(writers_find(p.dir, w.key, &found, NULL), 0);
	assert_string_equal(found.name, "host-a");
	assert_string_equal(found.store, w.store);
	assert_memory_equal(found.domain, w.domain, 16);
	assert_int_equal(bind_it(&p, 2, 9), LC_EACCES);
	assert_int_equal(bind_it(&p, 1, 9), LC_EACCES);
	p.secret[0] ^= 1;
	assert_int_equal(bind_it(&p, 3, 9), LC_EACCES);
	tmpdir_free(p.dir);
}

/* The entry that is asked for may be where the key comes from. */
static void
a_stranger_is_named_by_its_own_key(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct writer_entry w = host(0x5a, 1);
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(writers_find(p.dir, w.key, &w, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, "5a5a-5a5a"));
	assert_int_equal(w.key[31], 0x5a);
	tmpdir_free(p.dir);
}

/* Killed between the binding and the removal of the token: it is used all the same. */
static void
bind_in_child(const struct place *p, const char *action, int code)
{
	char *const argv[] = {(char *)(uintptr_t) "test_writers", (char *)(uintptr_t) "child",
	                      NULL};
	char hex[65] = "";
	int status, i;
	pid_t pid;

	for (i = 0; i < 32; i++)
		(void)snprintf(hex + 2 * (size_t)i, 3, "%02x", p->secret[i]);
	pid = fork();
	if (pid == 0) {
		(void)setenv("LOCUM_FAILPOINT", action, 1);
		(void)setenv("CHILD_DIR", p->dir, 1);
		(void)setenv("CHILD_SECRET", hex, 1);
		(void)execv("/proc/self/exe", argv);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(code < 0 ? WIFSIGNALED(status) : WIFEXITED(status));
}

static void
a_crash_does_not_make_a_token_good_twice(const char *action, int code)
{
	struct writer_entry found;
	struct place p;

	make(&p);
	bind_in_child(&p, action, code);
	assert_int_equal(files_in(&p, "tokens"), 1);
	assert_int_equal(writers_find(p.dir, host(1, 9).key, &found, NULL), 0);
	assert_int_equal(bind_it(&p, 2, 9), LC_EACCES);
	assert_int_equal(bind_it(&p, 1, 9), LC_EACCES);
	tmpdir_free(p.dir);
}

static void
killed_after_binding(void **state)
{
	(void)state;
	a_crash_does_not_make_a_token_good_twice("writers.bound:1:kill", -1);
}

/* The next token takes over that host's store. */
static void
token_that_replaces(struct place *p, uint8_t key)
{
	struct writer_entry w = host(key, 9);

	assert_int_equal(writers_token(p->dir, 3600 * LC_NS_PER_S, w.key, p->secret, NULL), 0);
}

static void
token_plain(struct place *p)
{
	assert_int_equal(writers_token(p->dir, 3600 * LC_NS_PER_S, NULL, p->secret, NULL), 0);
}

static void
a_host_takes_anothers_place(void **state)
{
	struct writer_entry before, now, found;
	struct writer_entry *list;
	struct place p;
	size_t n, at = 9;

	(void)state;
	make(&p);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	assert_int_equal(writers_find(p.dir, host(1, 9).key, &before, NULL), 0);
	/* Not a host of another domain; then nothing has changed, and the token is good yet. */
	token_that_replaces(&p, 1);
	assert_int_equal(bind_it(&p, 2, 8), LC_ECONFLICT);
	assert_int_equal(writers_find(p.dir, host(1, 9).key, &found, NULL), 0);
	assert_int_equal(bind_it(&p, 2, 9), 0);
	assert_int_equal(writers_find(p.dir, host(2, 9).key, &now, NULL), 0);
	assert_string_equal(now.store, before.store);
	assert_int_equal(writers_find(p.dir, host(1, 9).key, &found, NULL), LC_EACCES);
	assert_int_equal(bind_it(&p, 3, 9), LC_EACCES); /* once */
	/* Both are called so; the one that is let in is meant. */
	assert_int_equal(writers_list(p.dir, &list, &n, NULL), 0);
	assert_int_equal(writers_pick(list, n, "host-a", &at, NULL), 0);
	assert_memory_equal(list[at].key, now.key, sizeof now.key);
	lc_free(list);
	/* The old one does not come back to a store that is another's, but may replace it in turn.
	 */
	token_plain(&p);
	assert_int_equal(bind_it(&p, 1, 9), LC_ECONFLICT);
	token_that_replaces(&p, 2);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	assert_int_equal(writers_find(p.dir, host(2, 9).key, &found, NULL), LC_EACCES);
	/* One's own key: as with any token. */
	token_that_replaces(&p, 1);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	assert_int_equal(writers_find(p.dir, host(1, 9).key, &found, NULL), 0);
	token_that_replaces(&p, 7);
	assert_int_equal(bind_it(&p, 2, 9), LC_EACCES); /* nobody to replace */
	tmpdir_free(p.dir);
}

static void
killed_while_replacing(void **state)
{
	struct writer_entry found, before;
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(bind_it(&p, 3, 9), 0);
	assert_int_equal(writers_find(p.dir, host(3, 9).key, &before, NULL), 0);
	token_that_replaces(&p, 3);
	bind_in_child(&p, "writers.revoked:1:kill", -1);
	assert_int_equal(writers_find(p.dir, host(3, 9).key, &found, NULL), LC_EACCES);
	assert_int_equal(writers_find(p.dir, host(1, 9).key, &found, NULL), LC_ENOENT);
	assert_int_equal(bind_it(&p, 1, 9), 0); /* the token is good yet */
	assert_int_equal(writers_find(p.dir, host(1, 9).key, &found, NULL), 0);
	assert_string_equal(found.store, before.store);
	tmpdir_free(p.dir);
}

/* ---- what is set for a host holds for who takes its place ---- */

static void
set_limits(const struct place *p, uint8_t key, uint64_t rate, uint64_t max)
{
	struct limits l = {.rate = rate, .rate_set = rate > 0, .max = max, .max_set = max > 0};

	assert_int_equal(limits_write(p->dir, host(key, 9).key, &l, NULL), 0);
}

static void
limits_are(const struct place *p, uint8_t key, uint64_t rate, uint64_t max)
{
	struct limits l;

	assert_int_equal(limits_read(p->dir, host(key, 9).key, &l, NULL), 0);
	assert_int_equal(l.rate_set, rate > 0);
	assert_int_equal(l.max_set, max > 0);
	assert_int_equal(l.rate, rate);
	assert_int_equal(l.max, max);
}

static void
limits_go_with_the_place(void **state)
{
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	set_limits(&p, 1, 1 << 20, 500);
	token_that_replaces(&p, 1);
	assert_int_equal(bind_it(&p, 2, 8), LC_ECONFLICT);
	limits_are(&p, 2, 0, 0); /* who was not let in has none */
	assert_int_equal(bind_it(&p, 2, 9), 0);
	limits_are(&p, 2, 1 << 20, 500);
	/* Back to the first key, which had others: the place's hold. */
	set_limits(&p, 2, 0, 700);
	token_that_replaces(&p, 2);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	limits_are(&p, 1, 0, 700);
	/* None, too. */
	set_limits(&p, 1, 0, 0);
	token_that_replaces(&p, 1);
	assert_int_equal(bind_it(&p, 2, 9), 0);
	limits_are(&p, 2, 0, 0);
	/* One's own place: as it was. */
	set_limits(&p, 2, 1 << 20, 0);
	token_that_replaces(&p, 2);
	assert_int_equal(bind_it(&p, 2, 9), 0);
	limits_are(&p, 2, 1 << 20, 0);
	tmpdir_free(p.dir);
}

/* At no moment the new one is let in without them. */
static void
killed_while_limits_are_passed_on(void **state)
{
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(bind_it(&p, 3, 9), 0);
	set_limits(&p, 3, 1 << 20, 500);
	token_that_replaces(&p, 3);
	bind_in_child(&p, "writers.revoked:1:kill", -1);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	limits_are(&p, 1, 1 << 20, 500);
	token_that_replaces(&p, 1);
	set_limits(&p, 1, 0, 300);
	bind_in_child(&p, "writers.bound:1:kill", -1); /* as key 1, in its own place */
	limits_are(&p, 1, 0, 300);
	tmpdir_free(p.dir);
}

/* What nobody can read is not passed over: nobody would have said that there is no limit. */
static void
limits_that_are_not_understood(void **state)
{
	char path[200] = "limits/";
	struct place p;
	FILE *f;
	int i;

	(void)state;
	make(&p);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	set_limits(&p, 1, 1 << 20, 0);
	for (i = 0; i < 32; i++)
		(void)snprintf(path + strlen(path), 3, "01");
	f = fopen(tmpdir_path(p.dir, path), "we");
	assert_non_null(f);
	(void)fputs("rate fast\n", f);
	(void)fclose(f);
	token_that_replaces(&p, 1);
	assert_int_equal(bind_it(&p, 2, 9), LC_ECORRUPT);
	set_limits(&p, 1, 0, 0); /* the token is good yet */
	assert_int_equal(bind_it(&p, 2, 9), 0);
	tmpdir_free(p.dir);
}

/* Of a store that several share, each is held to the keys that it came with before. */
static void
keys_go_with_the_place(void **state)
{
	struct writer_entry w = host(1, 9);
	struct lc_buf b = {0};
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(writers_bind(p.dir, &w, p.secret, NULL), 0);
	assert_int_equal(
	    writers_put_keys(p.dir, &w, (struct lc_span){(const uint8_t *)"keys", 4}, 0, NULL), 0);
	token_that_replaces(&p, 1);
	assert_int_equal(bind_it(&p, 2, 9), 0);
	assert_int_equal(writers_keys(p.dir, host(2, 9).key, &b, NULL), 0);
	assert_int_equal(b.n, 4);
	assert_memory_equal(b.p, "keys", 4);
	lc_buf_free(&b);
	tmpdir_free(p.dir);
}

/* It has VMs there, under its own number; the next one that joins must not get that. */
static void
who_shares_a_store_takes_no_other_place_in_it(void **state)
{
	struct writer_entry a = host(1, 9), b = host(2, 9), c = host(3, 9), found;
	struct lc_err e = LC_ERR_INIT;
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(writers_bind(p.dir, &a, p.secret, NULL), 0);
	assert_int_equal(writers_join_token(p.dir, 60 * LC_NS_PER_S, a.key, p.secret, NULL), 0);
	assert_int_equal(writers_bind(p.dir, &b, p.secret, NULL), 0);
	assert_int_equal(b.writer, 1);
	token_that_replaces(&p, 1);
	b = host(2, 9);
	assert_int_equal(writers_bind(p.dir, &b, p.secret, &e), LC_ECONFLICT);
	assert_non_null(strstr(e.msg, "locum replica give"));
	assert_int_equal(writers_find(p.dir, a.key, &found, NULL), 0);
	assert_int_equal(writers_find(p.dir, b.key, &found, NULL), 0);
	assert_int_equal(found.writer, 1);
	assert_int_equal(writers_join_token(p.dir, 60 * LC_NS_PER_S, a.key, p.secret, NULL), 0);
	assert_int_equal(writers_bind(p.dir, &c, p.secret, NULL), 0);
	assert_int_equal(c.writer, 2);
	tmpdir_free(p.dir);
}

static pid_t
run_child(const struct place *p, const char *what, const char *action)
{
	char *const argv[] = {(char *)(uintptr_t) "test_writers", (char *)(uintptr_t)what, NULL};
	pid_t pid = fork();

	if (pid == 0) {
		if (action != NULL)
			(void)setenv("LOCUM_FAILPOINT", action, 1);
		(void)setenv("CHILD_DIR", p->dir, 1);
		(void)execv("/proc/self/exe", argv);
		_exit(99);
	}
	return pid;
}

/* Revoked just when the replica counts the keys that the host has brought. */
static void
a_host_that_is_revoked_stays_so(void **state)
{
	const struct timespec moment = {.tv_nsec = 200 * LC_NS_PER_MS};
	struct writer_entry w = host(1, 9), found;
	pid_t counts, revokes;
	struct place p;
	int status;

	(void)state;
	make(&p);
	assert_int_equal(writers_bind(p.dir, &w, p.secret, NULL), 0);
	counts = run_child(&p, "counts", "writers.counting:1:stop");
	assert_int_equal(waitpid(counts, &status, WUNTRACED), counts);
	assert_true(WIFSTOPPED(status));
	revokes = run_child(&p, "revokes", NULL);
	(void)nanosleep(&moment, NULL);
	assert_int_equal(kill(counts, SIGCONT), 0);
	assert_int_equal(waitpid(counts, &status, 0), counts);
	assert_int_equal(status, 0);
	assert_int_equal(waitpid(revokes, &status, 0), revokes);
	assert_int_equal(status, 0);
	assert_int_equal(writers_find(p.dir, w.key, &found, NULL), LC_EACCES);
	assert_int_equal(found.brought, 3);
	tmpdir_free(p.dir);
}

/* Of the test above. */
static int
other_child(const char *what)
{
	const char *dir = getenv("CHILD_DIR");
	struct writer_entry w = host(1, 9);

	if (strcmp(what, "revokes") == 0)
		return writers_revoke(dir, w.key, NULL) == 0 ? 0 : 97;
	return writers_put_keys(dir, &w, (struct lc_span){(const uint8_t *)"keys", 4}, 3, NULL) == 0
	           ? 0
	           : 97;
}

static int
child(void)
{
	const char *hex = getenv("CHILD_SECRET"), *dir = getenv("CHILD_DIR");
	struct writer_entry w = host(1, 9);
	uint8_t secret[32];
	unsigned byte, i;

	for (i = 0; i < 32; i++) {
		if (sscanf(hex + 2 * (size_t)i, "%2x", &byte) != 1) /* NOLINT(cert-err34-c) */
			return 98;
		secret[i] = (uint8_t)byte;
	}
	return writers_bind(dir, &w, secret, NULL) == 0 ? 0 : 97;
}

static void
a_token_gets_too_old(void **state)
{
	uint8_t other[32];
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(writers_token(p.dir, 1, NULL, other, NULL), 0);
	assert_int_equal(files_in(&p, "tokens"), 2);
	{
		struct writer_entry w = host(1, 9);

		assert_int_equal(writers_bind(p.dir, &w, other, NULL), LC_EACCES);
	}
	assert_int_equal(files_in(&p, "tokens"), 1); /* and goes */
	assert_int_equal(bind_it(&p, 1, 9), 0);
	tmpdir_free(p.dir);
}

static void
revoked_and_paired_again(void **state)
{
	struct writer_entry w = host(1, 9), found, *list;
	struct lc_err e = LC_ERR_INIT;
	char store[128];
	struct place p;
	size_t n;

	(void)state;
	make(&p);
	assert_int_equal(writers_revoke(p.dir, w.key, NULL), LC_ENOENT);
	assert_int_equal(writers_bind(p.dir, &w, p.secret, NULL), 0);
	(void)snprintf(store, sizeof store, "%s", w.store);
	assert_int_equal(writers_revoke(p.dir, w.key, NULL), 0);
	assert_int_equal(writers_find(p.dir, w.key, &found, &e), LC_EACCES);
	assert_non_null(strstr(e.msg, "host-a"));
	assert_int_equal(writers_list(p.dir, &list, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_true(list[0].revoked);
	lc_free(list);
	assert_int_equal(writers_token(p.dir, 60 * LC_NS_PER_S, NULL, p.secret, NULL), 0);
	assert_int_equal(bind_it(&p, 1, 8), LC_ECONFLICT); /* of another domain */
	w = host(1, 9);
	assert_int_equal(writers_bind(p.dir, &w, p.secret, NULL), 0); /* the token is still good */
	assert_string_equal(w.store, store);
	assert_int_equal(writers_find(p.dir, w.key, &found, NULL), 0);
	assert_false(found.revoked);
	tmpdir_free(p.dir);
}

/* Keys whose beginnings are the same can be made: they may not share a store. */
static void
no_two_hosts_share_a_store(void **state)
{
	struct writer_entry a = host(1, 9), b = host(1, 9);
	struct place p;

	(void)state;
	make(&p);
	b.key[12] ^= 1;
	assert_int_equal(writers_bind(p.dir, &a, p.secret, NULL), 0);
	assert_int_equal(writers_token(p.dir, 60 * LC_NS_PER_S, NULL, p.secret, NULL), 0);
	assert_int_equal(writers_bind(p.dir, &b, p.secret, NULL), 0);
	assert_string_not_equal(a.store, b.store);
	tmpdir_free(p.dir);
}

static const char *
file_of_host(const struct place *p, uint8_t key)
{
	static char path[400];
	size_t i, n;

	n = (size_t)snprintf(path, sizeof path, "%s/writers/", p->dir);
	for (i = 0; i < CHANNEL_KEY_SIZE; i++, n += 2)
		(void)snprintf(path + n, sizeof path - n, "%02x", key);
	return path;
}

/* It is no reason to keep the others out, and none to believe what it may say. */
static void
one_file_that_cannot_be_read_is_one_hosts(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct writer_entry *list, w;
	struct writer_file *files;
	struct lc_buf had = {0};
	struct place p;
	bool share = true;
	size_t n;

	(void)state;
	make(&p);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	token_plain(&p);
	assert_int_equal(bind_it(&p, 2, 9), 0);
	assert_int_equal(file_read_all(file_of_host(&p, 1), 1000, &had, NULL), 0);
	assert_int_equal(file_write_atomic(file_of_host(&p, 1), "name = x\n", 9, 0600, NULL), 0);
	assert_int_equal(writers_list(p.dir, &list, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(list[0].key[0], 2);
	assert_int_equal(writers_share(p.dir, &list[0], &share, NULL), 0);
	assert_false(share);
	lc_free(list);
	assert_int_equal(writers_files(p.dir, &files, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_int_equal(files[0].w.key[0], 1);
	assert_int_equal(files[0].err.code, LC_ECORRUPT);
	assert_string_equal(files[0].w.name, "");
	assert_int_equal(files[1].err.code, LC_OK);
	lc_free(files);
	assert_int_equal(writers_find(p.dir, host(1, 9).key, &w, &e), LC_ECORRUPT);
	assert_int_equal(writers_find(p.dir, host(2, 9).key, &w, NULL), 0);
	/* Its token, and its place in a store, may be those of the next one. */
	token_plain(&p);
	assert_int_equal(bind_it(&p, 3, 9), LC_ECORRUPT);
	assert_int_equal(writers_find(p.dir, host(3, 9).key, &w, NULL), LC_ENOENT);
	assert_int_equal(files_in(&p, "tokens"), 1);
	assert_int_equal(file_write_atomic(file_of_host(&p, 1), had.p, had.n, 0600, NULL), 0);
	assert_int_equal(bind_it(&p, 3, 9), 0);
	lc_buf_free(&had);
	tmpdir_free(p.dir);
}

/* A crash left the token, and what names it can't be read. */
static void
a_token_that_may_be_used_is_not_good(void **state)
{
	struct writer_entry w;
	struct place p;

	(void)state;
	make(&p);
	bind_in_child(&p, "writers.bound:1:kill", -1);
	assert_int_equal(files_in(&p, "tokens"), 1);
	assert_int_equal(file_write_atomic(file_of_host(&p, 1), "", 0, 0600, NULL), 0);
	assert_int_equal(bind_it(&p, 2, 9), LC_ECORRUPT);
	assert_int_equal(writers_find(p.dir, host(2, 9).key, &w, NULL), LC_ENOENT);
	tmpdir_free(p.dir);
}

/* A replica runs as root without root's rights. */
static int
find_without_rights(const struct place *p)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};
	struct writer_entry w;

	if (syscall(SYS_capset, &head, none) != 0)
		return 100;
	return writers_find(p->dir, host(1, 9).key, &w, NULL) == LC_EIO ? 0 : 1;
}

/* That is not what was decided about the host: who is revoked is not missed any more. */
static void
who_may_not_be_looked_up_is_not_revoked(void **state)
{
	struct place p;
	int status;
	pid_t pid;

	(void)state;
	make(&p);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	assert_int_equal(chmod(file_of_host(&p, 1), 0), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(find_without_rights(&p));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	tmpdir_free(p.dir);
}

/* As good as for ever. */
static void
a_token_may_be_good_for_long(void **state)
{
	struct place p;

	(void)state;
	make(&p);
	assert_int_equal(writers_token(p.dir, INT64_MAX, NULL, p.secret, NULL), 0);
	assert_int_equal(bind_it(&p, 1, 9), 0);
	tmpdir_free(p.dir);
}

static void
what_else_lies_there_does_no_harm(void **state)
{
	static const char *const files[] = {"tokens/0123456789abcdef", "tokens/note",
	                                    "writers/note", "tokens/.x"};
	struct writer_entry *list;
	struct place p;
	size_t i, n;
	FILE *f;

	(void)state;
	make(&p);
	assert_int_equal(dir_make(tmpdir_path(p.dir, "writers"), 0700, NULL), 0);
	for (i = 0; i < 4; i++) {
		f = fopen(tmpdir_path(p.dir, files[i]), "we");
		assert_non_null(f);
		(void)fputs("junk = \x1b[2J\nsecret = 00\n", f);
		(void)fclose(f);
	}
	assert_int_equal(bind_it(&p, 1, 9), 0);
	assert_int_equal(writers_list(p.dir, &list, &n, NULL), 0);
	assert_int_equal(n, 1);
	lc_free(list);
	tmpdir_free(p.dir);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_token_lets_one_host_in_once),
	    cmocka_unit_test(a_stranger_is_named_by_its_own_key),
	    cmocka_unit_test(killed_after_binding),
	    cmocka_unit_test(a_host_takes_anothers_place),
	    cmocka_unit_test(killed_while_replacing),
	    cmocka_unit_test(limits_go_with_the_place),
	    cmocka_unit_test(killed_while_limits_are_passed_on),
	    cmocka_unit_test(limits_that_are_not_understood),
	    cmocka_unit_test(keys_go_with_the_place),
	    cmocka_unit_test(who_shares_a_store_takes_no_other_place_in_it),
	    cmocka_unit_test(a_host_that_is_revoked_stays_so),
	    cmocka_unit_test(a_token_gets_too_old),
	    cmocka_unit_test(revoked_and_paired_again),
	    cmocka_unit_test(no_two_hosts_share_a_store),
	    cmocka_unit_test(one_file_that_cannot_be_read_is_one_hosts),
	    cmocka_unit_test(a_token_that_may_be_used_is_not_good),
	    cmocka_unit_test(who_may_not_be_looked_up_is_not_revoked),
	    cmocka_unit_test(a_token_may_be_good_for_long),
	    cmocka_unit_test(what_else_lies_there_does_no_harm),
	};

	if (argc > 1 && strcmp(argv[1], "child") == 0)
		return child();
	if (argc > 1)
		return other_child(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

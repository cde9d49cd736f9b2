/*
 * store: who may open one beside others, and what is done with a catalog or a log that is not as
 * this process left it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/commit.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/three.h"

/* ---- owners and readers ---- */

static void
a_second_owner_is_told_who_is_first(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct store *s;
	struct vault v;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	assert_int_equal(vault_try(&v, STORE_WRITE, &s, &e), LC_EBUSY);
	assert_non_null(strstr(e.msg, "a test"));
	vault_free(&v);
}

static void
a_reader_beside_the_owner_sees_every_commit(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct point_list l;
	struct three t;
	struct vault v;
	struct store *s, *owner;
	struct view *view;

	(void)state;
	begin_three(&v, &t);
	must(vault_try(&v, STORE_READ, &s, &e), &e);
	must(store_points(s, "web01", &l, &e), &e);
	assert_int_equal(l.n, 3);
	point_list_free(&l);
	must(vault_compare(s, t.p[1].id, &t.d[1], 1, &e), &e);
	/* A point that it reads is not dropped. */
	must(store_view(s, t.p[1].id, &view, &e), &e);
	assert_int_equal(store_drop(v.s, t.p[1].id, &e), LC_EBUSY);
	assert_non_null(strstr(e.msg, "is being read"));
	lc_err_clear(&e);
	must(store_drop(v.s, t.p[0].id, &e), &e); /* folds into the one that is read */
	owner = v.s;
	v.s = s;
	same(&v, &t.p[1], &t.d[1]);
	v.s = owner;
	view_close(view);
	must(store_drop(v.s, t.p[1].id, &e), &e);
	assert_int_equal(vault_compare(s, t.p[1].id, &t.d[1], 1, NULL), LC_ENOENT);
	store_close(s);
	end_three(&v, &t);
}

static void
a_dead_readers_lease_holds_nobody_up(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct three t;
	struct vault v;
	int status;
	pid_t pid;

	(void)state;
	begin_three(&v, &t);
	vault_close(&v);
	pid = fork();
	if (pid == 0) {
		struct store *s;
		struct view *view;

		if (vault_try(&v, STORE_READ, &s, NULL) != 0 ||
		    store_view(s, t.p[1].id, &view, NULL) != 0)
			_exit(1);
		_exit(0); /* and never says good-bye */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	vault_open(&v);
	must(store_drop(v.s, t.p[1].id, &e), &e);
	end_three(&v, &t);
}

/* Between the look at the leases and the drop nobody gets one. */
static void
a_point_that_is_being_dropped_is_not_read(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct view *view;
	struct three t;
	struct vault v;
	char *bar;
	int fd;

	(void)state;
	begin_three(&v, &t);
	must(lease_bar(v.s, t.p[0].id, &bar, &fd, &e), &e);
	assert_int_equal(store_view(v.s, t.p[0].id, &view, &e), LC_ENOENT);
	lc_err_clear(&e);
	same(&v, &t.p[1], &t.d[1]); /* another one is */
	must(store_leased(v.s, t.p[0].id, &e), &e);
	lease_give(&bar, &fd);
	same(&v, &t.p[0], &t.d[0]);
	/* What a dead owner left bars nobody. */
	must(lease_bar(v.s, t.p[0].id, &bar, &fd, &e), &e);
	fd_close(&fd);
	must(store_view(v.s, t.p[0].id, &view, &e), &e);
	assert_int_equal(access(bar, F_OK), -1);
	assert_int_equal(store_drop(v.s, t.p[0].id, &e), LC_EBUSY);
	view_close(view);
	lc_err_clear(&e);
	must(store_drop(v.s, t.p[0].id, &e), &e);
	assert_int_equal(access(bar, F_OK), -1);
	lc_free(bar);
	end_three(&v, &t);
}

/* What a boot wrote outlives every reader: its point stays as long as that is there. */
static void
a_point_that_writes_stand_on_is_not_dropped(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	char hex[33], text[48], *path;
	struct three t;
	struct vault v;

	(void)state;
	begin_three(&v, &t);
	path = path_join(v.dir, "stands");
	assert_non_null(path);
	(void)snprintf(text, sizeof text, "web01@%s\n", lc_hex(hex, t.p[1].id, 16));
	must(file_write_atomic(path, text, strlen(text), 0600, &e), &e);
	must(store_keep(v.s, t.p[1].id, path, "the VM 'again' goes on with it", &e), &e);
	must(store_keep(v.s, t.p[1].id, path, "the VM 'again' goes on with it", &e), &e);
	vault_close(&v);
	vault_open(&v);
	assert_int_equal(store_drop(v.s, t.p[1].id, &e), LC_EBUSY);
	assert_non_null(strstr(e.msg, "the VM 'again' goes on with it"));
	lc_err_clear(&e);
	must(store_drop(v.s, t.p[0].id, &e), &e);
	same(&v, &t.p[1], &t.d[1]);
	/* Another boot took its place, from another point. */
	(void)snprintf(text, sizeof text, "web01@%s\n", lc_hex(hex, t.p[2].id, 16));
	must(file_write_atomic(path, text, strlen(text), 0600, &e), &e);
	must(store_keep(v.s, t.p[2].id, path, "the VM 'again' goes on with it", &e), &e);
	must(store_drop(v.s, t.p[1].id, &e), &e);
	assert_int_equal(store_drop(v.s, t.p[2].id, &e), LC_EBUSY);
	lc_err_clear(&e);
	/* And is gone. */
	assert_int_equal(unlink(path), 0);
	must(store_drop(v.s, t.p[2].id, &e), &e);
	lc_free(path);
	end_three(&v, &t);
}

/* Where nothing can be written the log is read: whatever the catalog beside it is. */
static void
a_reader_without_rights_reads_the_log(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct three t;
	struct vault v;
	char *old;
	int status;
	pid_t pid;

	(void)state;
	begin_three(&v, &t);
	vault_close(&v);
	old = lc_strdup(tmpdir_path(v.top, "old"));
	vault_copy(vault_path(&v, "catalog.sqlite"), old);
	vault_open(&v);
	t.d[2].codes[0] = 77;
	t.p[2] = backup(&v, "web01", &t.d[2]);
	vault_close(&v);
	vault_copy(old, vault_path(&v, "catalog.sqlite")); /* stale */
	if (geteuid() == 0) { /* root writes anywhere: become somebody who owns nothing of it */
		pid = fork();
		if (pid == 0) {
			struct store_opts o = {.dir = v.dir, .recovery_code = v.code};
			struct store *s;
			char cmd[600];

			(void)snprintf(cmd, sizeof cmd, "chmod -R a+rX %s", v.top);
			if (system(cmd) != 0 || setgid(65534) != 0 || setuid(65534) != 0)
				_exit(2);
			if (store_open(&o, &s, &e) != 0 ||
			    vault_compare(s, t.p[2].id, &t.d[2], 1, &e) != 0 ||
			    vault_verify(s, t.p[0].id, &e) != 0) {
				(void)fprintf(stderr, "%s\n", e.msg);
				_exit(1);
			}
			store_close(s);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	lc_free(old);
	end_three(&v, &t);
}

/* ---- catalogs ---- */

static void
put_bytes(const char *path, const void *p, size_t n)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void
any_catalog_is_survived(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault v, other;
	struct lc_buf b = {0};
	struct three t, u;
	struct store *s;
	size_t i;

	(void)state;
	vault_make(&v, true);
	vault_make(&other, true);
	vault_open(&v);
	vault_open(&other);
	make_three(&v, "web01", 100, &t);
	make_three(&other, "web01", 200, &u);
	vault_close(&v);
	vault_close(&other);
	/* Of another store; garbage; empty. */
	catalog_away(&v);
	vault_copy(vault_path(&other, "catalog.sqlite"), vault_path(&v, "catalog.sqlite"));
	must(vault_try(&v, STORE_READ, &s, &e), &e);
	must(vault_compare(s, t.p[1].id, &t.d[1], 1, &e), &e);
	store_close(s);
	vault_open(&v);
	same(&v, &t.p[2], &t.d[2]);
	vault_close(&v);
	put_bytes(vault_path(&v, "catalog.sqlite"), "garbage, and more of it", 20);
	vault_open(&v);
	same(&v, &t.p[2], &t.d[2]);
	vault_close(&v);
	put_bytes(vault_path(&v, "catalog.sqlite"), "", 0);
	vault_open(&v);
	same(&v, &t.p[2], &t.d[2]);
	vault_close(&v);
	/* A damaged page. */
	assert_int_equal(file_read_all(vault_path(&v, "catalog.sqlite"), 1u << 24, &b, NULL), 0);
	for (i = 4096; i < b.n; i += 4096) {
		memset(b.p + i, 0xa5, 64);
		put_bytes(vault_path(&v, "catalog.sqlite"), b.p, b.n);
		memset(b.p + i, 0, 64);
		if (vault_try(&v, STORE_WRITE, &v.s, &e) != 0) /* seen, and made again by hand */
			fail_msg("%s", e.msg);
		if (vault_compare(v.s, t.p[2].id, &t.d[2], 1, &e) != 0) {
			assert_non_null(strstr(e.msg, "locum store rebuild"));
			rebuild(&v);
		}
		lc_err_clear(&e);
		same(&v, &t.p[0], &t.d[0]);
		vault_close(&v);
		lc_buf_free(&b);
		assert_int_equal(
		    file_read_all(vault_path(&v, "catalog.sqlite"), 1u << 24, &b, NULL), 0);
	}
	lc_buf_free(&b);
	free_three(&t);
	free_three(&u);
	vault_free(&v);
	vault_free(&other);
}

static void
a_lost_identity_comes_back(void **state)
{
	struct three t;
	struct vault v;

	(void)state;
	begin_three(&v, &t);
	vault_close(&v);
	assert_int_equal(unlink(vault_path(&v, "store")), 0);
	vault_open(&v);
	same(&v, &t.p[2], &t.d[2]);
	assert_int_equal(access(vault_path(&v, "store"), F_OK), 0);
	vault_close(&v);
	put_bytes(vault_path(&v, "store"), "locum store\nversion 1\nstore 12\n", 31);
	vault_open(&v);
	same(&v, &t.p[2], &t.d[2]);
	end_three(&v, &t);
}

/* ---- newer versions ---- */

/* A COMMIT record with one entry, appended as a newer locum would. */
static void
append_entry(struct vault *v, uint16_t type, const void *body, size_t n)
{
	struct segment_info *list;
	struct lc_buf b = {0};
	struct vault_piece last, c;
	struct record r = {.type = RECORD_COMMIT};
	uint8_t h[RECORD_HEADER_SIZE], zeros[8] = {0};
	uint64_t sum, size;

	(void)list;
	assert_int_equal(commit_start(&b, 1, NULL), 0);
	assert_int_equal(commit_add(&b, type, (struct lc_span){body, n}, NULL), 0);
	assert_true(vault_piece_of(v->dir, RECORD_COMMIT, -1, &c));
	last = c;
	r.segment = c.r.segment;
	r.seq = c.r.seq + 1;
	r.n = (uint32_t)b.n;
	sum = XXH3_64bits(b.p, b.n);
	record_header_encode(&r, sum, h);
	size = record_size(r.n);
	vault_write(v->dir, &last, last.n, h, sizeof h);
	vault_write(v->dir, &last, last.n + sizeof h, b.p, b.n);
	vault_write(v->dir, &last, last.n + sizeof h + b.n, zeros, size - sizeof h - b.n);
	lc_buf_free(&b);
}

static void
refused_and_untouched(struct vault *v)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t before = vault_sum(v->dir);
	struct store *s;

	assert_int_equal(vault_try(v, STORE_WRITE, &s, &e), LC_EVERSION);
	assert_non_null(strstr(e.msg, "use a newer"));
	assert_int_equal(vault_try(v, STORE_READ, &s, NULL), LC_EVERSION);
	catalog_away(v);
	assert_int_equal(vault_try(v, STORE_WRITE, &s, NULL), LC_EVERSION);
	assert_int_equal(vault_try(v, STORE_READ, &s, NULL), LC_EVERSION);
	assert_int_equal(vault_sum(v->dir), before);
}

static void
newer_things_are_refused_and_never_touched(void **state)
{
	uint8_t h[RECORD_HEADER_SIZE] = {0};
	struct vault_piece p;
	struct pair x;

	(void)state;
	make_pair(&x); /* a record of a newer version behind the last commit */
	assert_true(vault_piece_of(x.v.dir, RECORD_COMMIT, -1, &p));
	record_header_encode(&(struct record){.type = 4, .n = 9, .seq = 99, .segment = 1}, 1, h);
	h[4] = 2;
	lc_put64(h + 40, XXH3_64bits_withSeed(h, 40, 1));
	vault_write(x.v.dir, &p, p.n, h, sizeof h);
	refused_and_untouched(&x.v);
	free_pair(&x);

	make_pair(&x); /* an entry of a type that is not known */
	append_entry(&x.v, 77, "what?", 5);
	refused_and_untouched(&x.v);
	free_pair(&x);

	make_pair(&x); /* one that says itself that it may be skipped */
	append_entry(&x.v, 77 | COMMIT_SKIPPABLE, "what?", 5);
	vault_open(&x.v);
	all_of_db(&x);
	rebuild(&x.v);
	all_of_db(&x);
	free_pair(&x);

	make_pair(&x);
	put_bytes(vault_path(&x.v, "store"), "locum store\nversion 2\nsomething else\n", 37);
	refused_and_untouched(&x.v);
	free_pair(&x);
}

static void
an_entry_that_makes_no_sense_is_damage(void **state)
{
	struct pair x;

	(void)state;
	make_pair(&x);
	append_entry(&x.v, COMMIT_POINT, "what?", 5);
	vault_open(&x.v);
	all_of_db(&x);
	same(&x.v, &x.web.p[2], &x.web.d[2]);
	rebuild(&x.v);
	all_of_db(&x);
	free_pair(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_second_owner_is_told_who_is_first),
	    cmocka_unit_test(a_reader_beside_the_owner_sees_every_commit),
	    cmocka_unit_test(a_dead_readers_lease_holds_nobody_up),
	    cmocka_unit_test(a_point_that_writes_stand_on_is_not_dropped),
	    cmocka_unit_test(a_point_that_is_being_dropped_is_not_read),
	    cmocka_unit_test(a_reader_without_rights_reads_the_log),
	    cmocka_unit_test(any_catalog_is_survived),
	    cmocka_unit_test(a_lost_identity_comes_back),
	    cmocka_unit_test(newer_things_are_refused_and_never_touched),
	    cmocka_unit_test(an_entry_that_makes_no_sense_is_damage),
	};

	log_set_level(getenv("LOCUM_TEST_LOG") == NULL ? LOG_LV_ERROR : LOG_LV_DEBUG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

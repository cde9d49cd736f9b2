/*
 * store: stores are made, written to and read, and keep their keys.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/three.h"

/* ---- making one ---- */

static void
init_takes_back_what_it_made(void **state)
{
	char *top = tmpdir_new();
	struct store_made made;
	struct store_init_opts o = {.made = &made};
	struct lc_err e = LC_ERR_INIT;
	char *dir = path_join(top, "store"), *keys = path_join(top, "keys"),
	     *kit = path_join(top, "kit");
	char *inside = path_join(dir, "kit"), *pass = path_join(top, "nothing");
	char *nowhere = path_join(pass, "kit");
	struct store *s;

	(void)state;
	o.dir = dir;
	o.key_dir = keys;
	o.kit = inside;
	assert_int_equal(store_init(&o, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, "must not lie in the store"));
	assert_int_not_equal(access(dir, F_OK), 0);
	o.kit = nowhere;
	lc_err_clear(&e);
	assert_int_equal(store_init(&o, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, pass));
	assert_int_not_equal(access(dir, F_OK), 0);
	/* A passphrase file that is not there is found out after kit and key were written. */
	o.kit = kit;
	o.passphrase_file = pass;
	assert_int_equal(store_init(&o, NULL), LC_ENOENT);
	assert_int_not_equal(access(kit, F_OK), 0);
	assert_int_not_equal(access(dir, F_OK), 0);
	o.passphrase_file = NULL;
	lc_err_clear(&e);
	must(store_init(&o, &e), &e);
	assert_int_equal(access(made.kit, F_OK), 0);
	assert_int_equal(access(made.key, F_OK), 0);
	lc_err_clear(&e);
	assert_int_equal(store_init(&o, &e), LC_EEXIST);
	assert_non_null(strstr(e.msg, "is a store already"));
	must(store_open(&(struct store_opts){.dir = dir, .key_dir = keys}, &s, &e), &e);
	assert_memory_equal(store_tag(s), made.id, 16);
	store_close(s);
	/* The kit is never written over. */
	o.dir = tmpdir_path(top, "other");
	assert_int_equal(store_init(&o, NULL), LC_EEXIST);
	assert_int_not_equal(access(o.dir, F_OK), 0);
	/* A folder that was there stays, as empty as it was. */
	assert_int_equal(mkdir(o.dir, 0700), 0);
	assert_int_equal(store_init(&o, NULL), LC_EEXIST);
	assert_int_equal(rmdir(o.dir), 0);
	lc_free(dir);
	lc_free(keys);
	lc_free(kit);
	lc_free(nowhere);
	lc_free(inside);
	lc_free(pass);
	tmpdir_free(top);
}

static void
init_wants_a_folder_of_its_own(void **state)
{
	char *top = tmpdir_new();
	char *keys = path_join(top, "keys"), *kit = path_join(top, "kit");
	struct store_init_opts o = {.dir = top, .key_dir = keys, .kit = kit};
	struct lc_err e = LC_ERR_INIT;
	FILE *f = fopen(tmpdir_path(top, "mail"), "w");

	(void)state;
	assert_int_equal(fclose(f), 0);
	assert_int_equal(store_init(&o, &e), LC_EEXIST);
	assert_non_null(strstr(e.msg, "(mail)"));
	lc_free(keys);
	lc_free(kit);
	tmpdir_free(top);
}

/* ---- writing ---- */

static void
points_are_listed_found_and_dropped(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct point_list l;
	struct store_stats st;
	struct three a, b;
	struct point p;
	struct vault v;
	char spec[64], hex[33];
	const uint8_t none[16] = {0};
	uint64_t after;
	unsigned i;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &a);
	make_three(&v, "db", 200, &b);
	must(store_points(v.s, NULL, &l, &e), &e);
	assert_int_equal(l.n, 6);
	assert_string_equal(l.points[0].vm, "db");
	assert_memory_equal(l.points[3].id, a.p[0].id, 16);
	assert_int_equal(l.points[5].counter, 3);
	assert_int_equal(l.points[5].commit_ns, a.p[2].commit_ns);
	point_list_free(&l);
	assert_int_equal(store_points(v.s, "web1", &l, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, "did you mean web01?"));
	lc_err_clear(&e);
	must(store_find(v.s, "web01@latest", &p, &e), &e);
	assert_memory_equal(p.id, a.p[2].id, 16);
	point_done(&p);
	(void)snprintf(spec, sizeof spec, "web01@%.8s", lc_hex(hex, a.p[1].id, 16));
	must(store_find(v.s, spec, &p, &e), &e);
	assert_memory_equal(p.id, a.p[1].id, 16);
	point_done(&p);
	must(store_stats(v.s, &st, &e), &e);
	assert_int_equal(st.points, 6);
	assert_int_equal(st.vms, 2);
	assert_int_equal(st.logical, 6 * WINDOW_SIZE);
	for (i = 0; i < 3; i++) {
		must(store_points_after(v.s, a.p[i].line, a.p[i].id, &after, &e), &e);
		assert_int_equal(after, 2 - i);
	}
	must(store_points_after(v.s, a.p[0].line, none, &after, &e), &e);
	assert_int_equal(after, 3);
	must(store_points_after(v.s, none, none, &after, &e), &e);
	assert_int_equal(after, 0);
	assert_true(store_stands(v.s, &a.p[2]) && store_stands(v.s, &b.p[2]));
	assert_false(store_stands(v.s, &a.p[1]));
	must(store_drop(v.s, a.p[1].id, &e), &e);
	assert_true(store_stands(v.s, &a.p[2]));
	must(store_points_after(v.s, a.p[0].line, a.p[0].id, &after, &e), &e);
	assert_int_equal(after, 1);
	assert_int_equal(store_drop(v.s, a.p[1].id, NULL), LC_ENOENT);
	same(&v, &a.p[0], &a.d[0]);
	same(&v, &a.p[2], &a.d[2]);
	reopen(&v);
	must(store_points(v.s, "web01", &l, &e), &e);
	assert_int_equal(l.n, 2);
	point_list_free(&l);
	assert_int_equal(scrub(&v).n, 0);
	free_three(&a);
	free_three(&b);
	vault_free(&v);
}

static void
what_can_not_be_is_refused(void **state)
{
	static const char *const bad_names[] = {
	    "", "a@b",
	    "a name of a VM that is as long as sixty-four characters, which is too long."};
	struct writer_opts wo = {.vm = "web01", .workers = 1, .level = 2};
	struct commit_opts co = {0};
	struct writer_disk two[2] = {{.name = "vda", .size = WINDOW_SIZE},
	                             {.name = "vda", .size = WINDOW_SIZE}};
	struct writer_disk big = {.name = "vda", .size = UINT64_MAX};
	struct vault_disk d = vault_disk("vda", 2);
	char *text = calloc(1, POINT_DEFINITION_MAX + 2);
	struct lc_err e = LC_ERR_INIT;
	struct writer *w, *x;
	struct point_list l;
	struct vault v;
	size_t i;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	for (i = 0; i < 3; i++) {
		struct writer_opts o = {.vm = bad_names[i], .workers = 1, .level = 2};

		assert_int_equal(writer_begin(v.s, &o, &w, NULL), LC_EINVAL);
	}
	assert_int_equal(writer_begin(v.s, &wo, &w, NULL), 0);
	assert_int_equal(writer_begin(v.s, &wo, &x, NULL), LC_EBUSY);
	assert_int_equal(writer_disks(w, two, 2, NULL), LC_EINVAL);
	writer_abort(w);
	assert_int_equal(writer_begin(v.s, &wo, &w, NULL), 0);
	assert_int_equal(writer_disks(w, &big, 1, NULL), LC_EINVAL);
	writer_abort(w);
	assert_int_equal(writer_begin(v.s, &wo, &w, NULL), 0);
	assert_int_equal(writer_commit(w, &co, NULL, NULL), LC_EINVAL); /* no disks */
	/* A window beyond the end, and then nothing that pretends to be whole. */
	w = vault_begin(v.s, "web01", &d, 1, &e);
	d.size += WINDOW_SIZE;
	d.codes = realloc(d.codes, 4 * sizeof *d.codes);
	d.codes[2] = 5;
	assert_int_equal(vault_put(w, 0, &d, 2, NULL), LC_EINVAL);
	writer_abort(w);
	d.size -= WINDOW_SIZE;
	/* A definition that no reader would take. */
	memset(text, 'x', POINT_DEFINITION_MAX + 1);
	w = vault_begin(v.s, "web01", &d, 1, &e);
	co.definition = text;
	assert_int_equal(writer_commit(w, &co, NULL, NULL), LC_EINVAL);
	text[POINT_DEFINITION_MAX] = '\0';
	co.left_out = text;
	w = vault_begin(v.s, "web01", &d, 1, &e);
	assert_int_equal(writer_commit(w, &co, NULL, NULL), 0);
	must(store_points(v.s, NULL, &l, &e), &e);
	assert_int_equal(l.n, 1);
	assert_string_equal(l.points[0].definition, text);
	point_list_free(&l);
	free(text);
	vault_disk_free(&d);
	vault_free(&v);
}

static void
a_commit_on_a_base_that_is_gone_conflicts(void **state)
{
	struct commit_opts co = {0};
	struct lc_err e = LC_ERR_INIT;
	struct writer *w;
	struct three t;
	struct point p;
	struct vault v;

	(void)state;
	begin_three(&v, &t);
	w = vault_begin(v.s, "web01", &t.d[1], 1, &e);
	must(vault_put(w, 0, &t.d[1], 2, &e), &e);
	must(store_drop(v.s, t.p[2].id, &e), &e);
	assert_int_equal(writer_commit(w, &co, NULL, &e), LC_ECONFLICT);
	assert_non_null(strstr(e.msg, "run the backup again"));
	same(&v, &t.p[1], &t.d[1]);
	/* Dropping an older one does not disturb. */
	w = vault_begin(v.s, "web01", &t.d[2], 1, &e);
	must(vault_put(w, 0, &t.d[2], 2, &e), &e);
	lc_err_clear(&e);
	must(store_drop(v.s, t.p[0].id, &e), &e);
	must(writer_commit(w, &co, &p, &e), &e);
	same(&v, &p, &t.d[2]);
	rebuild(&v);
	same(&v, &p, &t.d[2]);
	same(&v, &t.p[1], &t.d[1]);
	end_three(&v, &t);
}

struct committer {
	struct vault *v;
	char vm[16];
	struct vault_disk d;
	struct point p;
	int rc;
	struct lc_err e;
};

static void *
commit_thread(void *arg)
{
	struct committer *c = arg;

	c->rc = vault_backup(c->v->s, c->vm, &c->d, 1, &c->p, &c->e);
	return NULL;
}

static void
many_writers_share_commits(void **state)
{
	enum { N = 12, ROUNDS = 5 };
	static struct committer c[N];
	struct vault_piece *pieces;
	size_t i, n, commits = 0;
	pthread_t t[N];
	struct vault v;
	unsigned round;

	(void)state;
	vault_make(&v, false);
	vault_open(&v);
	for (i = 0; i < N; i++) {
		memset(&c[i], 0, sizeof c[i]);
		c[i].v = &v;
		(void)snprintf(c[i].vm, sizeof c[i].vm, "vm%zu", i);
		c[i].d = vault_disk("vda", 4);
	}
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < N; i++) {
			c[i].d.codes[round % 4] = 1 + (i + round) % 7;
			assert_int_equal(pthread_create(&t[i], NULL, commit_thread, &c[i]), 0);
		}
		for (i = 0; i < N; i++)
			(void)pthread_join(t[i], NULL);
		for (i = 0; i < N; i++) {
			must(c[i].rc, &c[i].e);
			same(&v, &c[i].p, &c[i].d);
		}
	}
	rebuild(&v);
	for (i = 0; i < N; i++) {
		same(&v, &c[i].p, &c[i].d);
		vault_disk_free(&c[i].d);
	}
	vault_close(&v);
	vault_pieces(v.dir, &pieces, &n);
	for (i = 0; i < n; i++)
		commits += pieces[i].r.type == RECORD_COMMIT;
	free(pieces);
	assert_true(commits <= N * ROUNDS + 1);
	vault_free(&v);
}

static uint64_t
waiting(struct vault *v)
{
	const struct pending *p;
	uint64_t n = 0;

	(void)pthread_mutex_lock(&v->s->log_lock);
	for (p = v->s->pending.first; p != NULL; p = p->next)
		n += p->map == NULL ? 1u : 1000u;
	(void)pthread_mutex_unlock(&v->s->log_lock);
	return n;
}

/* Neither many small chunks, with segments that are sealed before much is in them, nor maps of what
 * is known already, nor zeros pile up in memory. */
static void
what_waits_for_the_commit_is_bounded(void **state)
{
	const uint64_t windows = UNDER_VALGRIND ? 4900 : 9000;
	struct vault_disk d = vault_disk("vda", windows);
	struct commit_opts o = {0};
	struct lc_err e = LC_ERR_INIT;
	struct writer *w;
	struct vault v;
	unsigned vm;
	uint64_t k;
	char name[16];

	(void)state;
	vault_make(&v, true);
	v.segment_bytes = 50000;
	vault_open(&v);
	v.s->flush_bytes = 700000;
	for (vm = 0; vm < 2; vm++) { /* the second one has only what the first one has */
		(void)snprintf(name, sizeof name, "web%02u", vm);
		w = vault_begin(v.s, name, &d, 1, &e);
		assert_non_null(w);
		for (k = 0; k < windows; k++) {
			d.codes[k] = 11 + 5 * (k % 600);
			must(vault_put(w, 0, &d, k, &e), &e);
			if (k % 100 == 0)
				assert_in_range(waiting(&v), 0, 4600);
		}
		must(writer_commit(w, &o, NULL, &e), &e);
	}
	w = vault_begin(v.s, "web00", &d, 1, &e);
	assert_non_null(w);
	must(writer_zeros(w, 0, 0, windows, &e), &e);
	assert_in_range(waiting(&v), 0, 4600);
	must(writer_commit(w, &o, NULL, &e), &e);
	vault_disk_free(&d);
	vault_free(&v);
}

static void
drop_in_any_order_keeps_the_rest(void **state)
{
	enum { N = 220, WINDOWS = 12 };
	static struct vault_disk d[N];
	static struct point p[N];
	static bool gone[N];
	const size_t n = UNDER_VALGRIND ? RECENT_KEEP + 26 : N;
	struct lc_err e = LC_ERR_INIT;
	uint64_t seed = 7;
	struct store_stats st;
	struct vault v;
	size_t i, k;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	/* Some change much, some little, so that both sides of a fold are met; more than are kept
	 * recent. */
	for (i = 0; i < n; i++) {
		d[i] = i == 0 ? vault_disk("vda", WINDOWS) : vault_disk_copy(&d[i - 1]);
		for (k = vault_random(&seed, i % 10 == 0 ? WINDOWS : 3) + 1; k > 0; k--)
			d[i].codes[vault_random(&seed, WINDOWS)] = vault_random(&seed, 9);
		p[i] = backup(&v, "web01", &d[i]);
	}
	for (k = 0; k < n; k++) {
		do
			i = (size_t)vault_random(&seed, n);
		while (gone[i]);
		must(store_drop(v.s, p[i].id, &e), &e);
		gone[i] = true;
		if (k % 40 != 39 && n - k > 5)
			continue;
		for (i = 0; i < n; i++) {
			if (!gone[i])
				same(&v, &p[i], &d[i]);
		}
	}
	must(store_stats(v.s, &st, &e), &e);
	assert_int_equal(st.points, 0);
	assert_int_equal(st.map_rows, 0);
	for (i = 0; i < n; i++)
		vault_disk_free(&d[i]);
	vault_free(&v);
}

static void
rows_of_a_disk_that_is_gone_do_not_stay(void **state)
{
	struct vault_disk two[2] = {vault_disk("vda", 2), vault_disk("vdb", 9)};
	struct lc_err e = LC_ERR_INIT;
	struct store_stats st;
	struct point p[3];
	struct vault v;
	size_t i;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	two[0].codes[0] = 3;
	for (i = 0; i < 9; i++)
		two[1].codes[i] = 10 + i;
	must(vault_backup(v.s, "web01", two, 2, &p[0], &e), &e);
	must(vault_backup(v.s, "web01", two, 1, &p[1], &e), &e); /* vdb was taken out */
	two[0].codes[1] = 4;
	must(vault_backup(v.s, "web01", two, 1, &p[2], &e), &e);
	must(vault_verify(v.s, p[1].id, &e), &e);
	must(store_drop(v.s, p[0].id, &e), &e);
	must(store_drop(v.s, p[1].id, &e), &e);
	must(vault_compare(v.s, p[2].id, two, 1, &e), &e);
	must(vault_verify(v.s, p[2].id, &e), &e);
	must(store_stats(v.s, &st, &e), &e);
	assert_int_equal(st.map_rows, 2);
	vault_disk_free(&two[0]);
	vault_disk_free(&two[1]);
	vault_free(&v);
}

/* ---- keys ---- */

static void
a_blind_owner_keeps_the_keys_in_every_segment(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct segment_info *list;
	struct lc_buf keys = {0};
	struct store_opts o = {.mode = STORE_WRITE, .no_key = true, .segment_bytes = 1};
	struct store *s;
	struct pair x;
	size_t n, i;

	(void)state;
	make_pair(&x);
	o.dir = x.v.dir;
	must(store_open(&o, &s, &e), &e);
	assert_false(store_has_key(s));
	must(store_drop(s, x.web.p[0].id, &e), &e);
	must(store_drop(s, x.web.p[1].id, &e), &e);
	must(segments_list(s->segments, &list, &n, &e), &e);
	assert_true(n > 1);
	for (i = 0; i < n; i++) {
		keys.n = 0;
		must(segment_keys(s->segments, &list[i], &keys, &e), &e);
		assert_true(keys.n > 200);
	}
	lc_free(list);
	lc_buf_free(&keys);
	store_close(s);
	o = (struct store_opts){.dir = x.v.dir, .recovery_code = x.v.code};
	must(store_open(&o, &s, &e), &e);
	assert_true(store_has_key(s));
	must(vault_compare(s, x.web.p[2].id, &x.web.d[2], 1, &e), &e);
	store_close(s);
	free_pair(&x);
}

/* A new data key must be in the segments before anything that is sealed with it. */
static void
a_new_data_key_begins_a_new_segment(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_opts o = {0};
	struct store_key key;
	struct keyring *k;
	struct vault_disk d;
	struct point p;
	struct store *s;
	struct pair x;

	(void)state;
	make_pair(&x);
	must(store_key(x.v.dir, x.v.keys, &key, &e), &e);
	assert_true(key.opens);
	assert_int_equal(key.data_key, 1);
	must(keyring_load(key.file, &k, &e), &e);
	must(keyring_rotate(k, &e), &e);
	must(keyring_save(k, key.file, &e), &e);
	keyring_free(k);
	vault_open(&x.v);
	d = vault_disk_copy(&x.web.d[2]);
	d.codes[0] = 321;
	p = backup(&x.v, "web01", &d);
	vault_close(&x.v);
	o.dir = x.v.dir;
	o.recovery_code = x.v.code;
	must(store_open(&o, &s, &e), &e);
	must(vault_compare(s, p.id, &d, 1, &e), &e);
	must(vault_compare(s, x.web.p[0].id, &x.web.d[0], 1, &e), &e);
	store_close(s);
	vault_disk_free(&d);
	free_pair(&x);
}

static void
damaged_keys_of_the_newest_segment_do_not_lock_out(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_opts o = {0};
	struct vault_piece p;
	struct store *s;
	struct pair x;

	(void)state;
	make_pair(&x);
	x.v.segment_bytes = 1;
	vault_open(&x.v); /* a segment for each record from here */
	must(store_drop(x.v.s, x.web.p[0].id, &e), &e);
	must(store_drop(x.v.s, x.web.p[1].id, &e), &e);
	vault_close(&x.v);
	assert_true(vault_piece_of(x.v.dir, RECORD_KEYS, -1, &p));
	vault_flip(x.v.dir, &p, RECORD_HEADER_SIZE + 99, 1);
	o.dir = x.v.dir;
	o.recovery_code = x.v.code;
	must(store_open(&o, &s, &e), &e);
	must(vault_compare(s, x.db.p[2].id, &x.db.d[2], 1, &e), &e);
	store_close(s);
	o.recovery_code = "0000-0000-0000-0000-0000-0000-0000-0000-0000";
	assert_int_equal(store_open(&o, &s, &e), LC_EKEY);
	free_pair(&x);
}

/* ---- */

static void
allocations_may_fail_while_opening(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct store *s;
	struct pair x;
	unsigned modes[] = {STORE_READ, STORE_WRITE, STORE_WRITE};
	size_t i;
	long n;
	int rc;

	(void)state;
	make_pair(&x);
	for (i = 0; i < 3; i++) {
		rc = -1;
		for (n = 0; rc != 0 && n < 5000; n += 1 + n / 40) {
			if (i == 2)
				catalog_away(&x.v);
			lc_err_clear(&e);
			lc_alloc_fail_after(n);
			rc = vault_try(&x.v, (enum store_mode)modes[i], &s, &e);
			lc_alloc_fail_after(-1);
			if (rc == 0)
				store_close(s);
		}
		assert_int_equal(rc, 0);
	}
	vault_open(&x.v);
	all_of_db(&x);
	assert_int_equal(scrub(&x.v).n, 0);
	free_pair(&x);
}

static void
allocations_may_fail_while_writing(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct point q = {0};
	struct pair x;
	long n;
	int rc = -1;

	(void)state;
	make_pair(&x);
	d = vault_disk_copy(&x.web.d[2]);
	for (n = 0; rc != 0 && n < 5000; n += 1 + n / 40) {
		vault_open(&x.v);
		d.codes[0] = 1000 + (uint64_t)n;
		lc_err_clear(&e);
		lc_alloc_fail_after(n);
		rc = vault_backup(x.v.s, "web01", &d, 1, &q, &e);
		lc_alloc_fail_after(-1);
		vault_close(&x.v);
	}
	assert_int_equal(rc, 0);
	vault_open(&x.v);
	same(&x.v, &q, &d);
	all_of_db(&x);
	assert_int_equal(scrub(&x.v).n, 0);
	vault_disk_free(&d);
	free_pair(&x);
}

/* Whether a writer of that disk, all of it put, has nothing new to say. */
static bool
nothing_new(struct vault *v, const struct vault_disk *d, size_t n, const struct commit_opts *o)
{
	struct lc_err e = LC_ERR_INIT;
	struct writer *w = vault_begin(v->s, "web01", d, n, &e);
	bool nothing;
	size_t i, k;

	assert_non_null(w);
	for (i = 0; i < n; i++) {
		for (k = 0; k < point_windows(d[i].size); k++)
			must(vault_put(w, i, &d[i], k, &e), &e);
	}
	nothing = writer_nothing_new(w, o);
	writer_abort(w);
	return nothing;
}

static void
a_point_that_would_say_the_same_is_seen(void **state)
{
	struct commit_opts o = {.consistency = POINT_CRASH}, x;
	struct vault_disk d[2] = {vault_disk("vda", 3), vault_disk("vdb", 2)};
	struct lc_err e = LC_ERR_INIT;
	uint64_t covered[2] = {3, 2};
	struct writer *w;
	struct point p;
	struct vault v;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	d[0].codes[1] = 4;
	assert_false(nothing_new(&v, d, 2, &o)); /* no base */
	w = vault_begin(v.s, "web01", d, 2, &e);
	assert_non_null(w);
	must(vault_put(w, 0, &d[0], 1, &e), &e);
	o.definition = "machine = q35";
	must(writer_commit(w, &o, &p, &e), &e);
	point_done(&p);

	assert_true(nothing_new(&v, d, 2, &o));
	assert_false(nothing_new(&v, d, 1, &o)); /* a disk is gone */
	d[1].codes[0] = 9;
	assert_false(nothing_new(&v, d, 2, &o));
	d[1].codes[0] = 0;
	d[0].codes[1] = 0; /* zero where something was */
	assert_false(nothing_new(&v, d, 2, &o));
	d[0].codes[1] = 4;
	vault_disk_resize(&d[1], 4 * (uint64_t)WINDOW_SIZE);
	assert_false(nothing_new(&v, d, 2, &o));
	vault_disk_resize(&d[1], 2 * (uint64_t)WINDOW_SIZE);
	(void)snprintf(d[1].name, sizeof d[1].name, "vdc");
	assert_false(nothing_new(&v, d, 2, &o)); /* another disk */
	(void)snprintf(d[1].name, sizeof d[1].name, "vdb");
	x = o;
	x.definition = NULL;
	assert_false(nothing_new(&v, d, 2, &x));
	x.definition = "machine = pc";
	assert_false(nothing_new(&v, d, 2, &x));
	x = o;
	x.left_out = "a disk";
	assert_false(nothing_new(&v, d, 2, &x));
	x = o;
	x.consistency = POINT_OFF;
	assert_false(nothing_new(&v, d, 2, &x));
	x = o;
	x.seed = true;
	x.covered = covered;
	assert_false(nothing_new(&v, d, 2, &x));
	assert_true(nothing_new(&v, d, 2, &o)); /* and nothing of this stayed */
	vault_disk_free(&d[0]);
	vault_disk_free(&d[1]);
	vault_free(&v);
}

struct one_by_one {
	struct store *s;
	uint8_t ids[8][POINT_ID_SIZE];
	size_t n;
	const uint8_t *drop; /* at the first one, or NULL */
};

static int
note_point(void *arg, struct point *p, struct lc_err *e)
{
	struct one_by_one *x = arg;

	if (x->n == 0 && x->drop != NULL)
		must(store_drop(x->s, x->drop, e), e);
	memcpy(x->ids[x->n++], p->id, POINT_ID_SIZE);
	assert_string_equal(p->vm, "web01");
	return 0;
}

/* A list is read point by point, with nothing locked, so that it may change meanwhile.  A VM is
 * also named by digits of its id. */
static void
points_one_by_one(void **state)
{
	struct vault_disk d = vault_disk("vda", 2);
	struct one_by_one x = {.n = 0};
	struct lc_err e = LC_ERR_INIT;
	struct point p[3], found;
	struct vault v = {.top = NULL};
	char hex[33];
	size_t i;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	for (i = 0; i < 3; i++) {
		d.codes[0] = i + 1;
		must(vault_backup(v.s, "web01", &d, 1, &p[i], &e), &e);
	}
	x.s = v.s;
	must(store_each_point(v.s, NULL, note_point, &x, &e), &e);
	assert_int_equal(x.n, 3);
	for (i = 0; i < 3; i++)
		assert_memory_equal(x.ids[i], p[i].id, POINT_ID_SIZE);
	x.n = 0;
	x.drop = p[2].id;
	assert_true(store_stands(v.s, &p[2]));
	must(store_each_point(v.s, "web01", note_point, &x, &e), &e);
	assert_int_equal(x.n, 2);
	assert_false(store_stands(v.s, &p[2]));
	assert_true(store_stands(v.s, &p[1]));
	(void)lc_hex(hex, p[0].vm_id, 16);
	hex[8] = '\0';
	must(store_find(v.s, hex, &found, &e), &e);
	assert_memory_equal(found.id, p[1].id, POINT_ID_SIZE);
	point_done(&found);
	hex[7] = '\0'; /* too few */
	assert_int_equal(store_find(v.s, hex, &found, &e), LC_ENOENT);
	for (i = 0; i < 3; i++)
		point_done(&p[i]);
	vault_disk_free(&d);
	vault_free(&v);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(points_one_by_one),
	    cmocka_unit_test(init_takes_back_what_it_made),
	    cmocka_unit_test(init_wants_a_folder_of_its_own),
	    cmocka_unit_test(points_are_listed_found_and_dropped),
	    cmocka_unit_test(what_can_not_be_is_refused),
	    cmocka_unit_test(a_commit_on_a_base_that_is_gone_conflicts),
	    cmocka_unit_test(many_writers_share_commits),
	    cmocka_unit_test(what_waits_for_the_commit_is_bounded),
	    cmocka_unit_test(drop_in_any_order_keeps_the_rest),
	    cmocka_unit_test(rows_of_a_disk_that_is_gone_do_not_stay),
	    cmocka_unit_test(a_blind_owner_keeps_the_keys_in_every_segment),
	    cmocka_unit_test(a_new_data_key_begins_a_new_segment),
	    cmocka_unit_test(damaged_keys_of_the_newest_segment_do_not_lock_out),
	    cmocka_unit_test(a_point_that_would_say_the_same_is_seen),
	    cmocka_unit_test(allocations_may_fail_while_opening),
	    cmocka_unit_test(allocations_may_fail_while_writing),
	};

	log_set_level(getenv("LOCUM_TEST_LOG") == NULL ? LOG_LV_ERROR : LOG_LV_DEBUG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

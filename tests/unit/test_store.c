#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/commit.h"
#include "store/store_internal.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

/* ---- helpers ---- */

static void
must(int rc, const struct lc_err *e)
{
	if (rc != 0)
		fail_msg("%d: %s", rc, e->msg);
}

static struct point
backup(struct vault *v, const char *vm, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(v->s, vm, d, 1, &p, &e), &e);
	return p;
}

static void
same(struct vault *v, const struct point *p, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;

	must(vault_compare(v->s, p->id, d, 1, &e), &e);
	must(vault_verify(v->s, p->id, &e), &e);
}

static void
reopen(struct vault *v)
{
	vault_close(v);
	vault_open(v);
}

static void
catalog_away(struct vault *v)
{
	(void)unlink(vault_path(v, "catalog.sqlite"));
	(void)unlink(vault_path(v, "catalog.sqlite-wal"));
	(void)unlink(vault_path(v, "catalog.sqlite-shm"));
}

static void
rebuild(struct vault *v)
{
	vault_close(v);
	catalog_away(v);
	vault_open(v);
}

struct three { /* points of a VM with a disk of three windows */
	struct vault_disk d[3];
	struct point p[3];
};

static void
make_three(struct vault *v, const char *vm, uint64_t code, struct three *t)
{
	size_t i;

	for (i = 0; i < 3; i++) {
		t->d[i] = i == 0 ? vault_disk("vda", 3) : vault_disk_copy(&t->d[i - 1]);
		t->d[i].codes[i] = code + i;
		t->p[i] = backup(v, vm, &t->d[i]);
	}
}

static void
free_three(struct three *t)
{
	size_t i;

	for (i = 0; i < 3; i++)
		vault_disk_free(&t->d[i]);
}

struct told { /* by a scrub */
	size_t n;
	struct damage first, last;
	char all[4096];
};

static void
on_damage(void *arg, const struct damage *d)
{
	struct told *t = arg;
	size_t at = strlen(t->all);

	if (t->n++ == 0)
		t->first = *d;
	t->last = *d;
	(void)snprintf(t->all + at, sizeof t->all - at, "%s|%s|%s\n", d->file, d->what, d->affects);
}

static struct told
scrub(struct vault *v)
{
	struct told t = {0};
	uint64_t records, bytes;
	int rc = store_scrub(v->s, on_damage, &t, &records, &bytes, NULL);

	assert_int_equal(rc, t.n == 0 ? 0 : LC_ECORRUPT);
	return t;
}

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
	struct store *s;

	(void)state;
	o.dir = dir;
	o.key_dir = keys;
	o.kit = inside;
	assert_int_equal(store_init(&o, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, "must not lie in the store"));
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
	must(store_drop(v.s, a.p[1].id, &e), &e);
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
	struct writer_opts wo = {.vm = "web01", .workers = 1, .level = 1};
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
		struct writer_opts o = {.vm = bad_names[i], .workers = 1, .level = 1};

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
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
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
	free_three(&t);
	vault_free(&v);
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
	for (p = v->s->pending; p != NULL; p = p->next)
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
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
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
	free_three(&t);
	vault_free(&v);
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
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
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
	free_three(&t);
	vault_free(&v);
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
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
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
	free_three(&t);
	vault_free(&v);
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
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
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
	free_three(&t);
	vault_free(&v);
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
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
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
	free_three(&t);
	vault_free(&v);
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
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
	vault_close(&v);
	assert_int_equal(unlink(vault_path(&v, "store")), 0);
	vault_open(&v);
	same(&v, &t.p[2], &t.d[2]);
	assert_int_equal(access(vault_path(&v, "store"), F_OK), 0);
	vault_close(&v);
	put_bytes(vault_path(&v, "store"), "locum store\nversion 1\nstore 12\n", 31);
	vault_open(&v);
	same(&v, &t.p[2], &t.d[2]);
	free_three(&t);
	vault_free(&v);
}

/* ---- damage ---- */

/* Two VMs, so that there is somebody who must not notice. */
struct pair {
	struct vault v;
	struct three web, db;
};

static void
make_pair(struct pair *x)
{
	vault_make(&x->v, true);
	vault_open(&x->v);
	make_three(&x->v, "web01", 100, &x->web);
	make_three(&x->v, "db", 200, &x->db);
	vault_close(&x->v);
}

static void
free_pair(struct pair *x)
{
	free_three(&x->web);
	free_three(&x->db);
	vault_free(&x->v);
}

static void
all_of_db(struct pair *x)
{
	size_t i;

	for (i = 0; i < 3; i++)
		same(&x->v, &x->db.p[i], &x->db.d[i]);
}

/* The nth record of a type that belongs to web01: its records come first. */
static struct vault_piece
piece(struct pair *x, int type, int nth)
{
	struct vault_piece p;

	assert_true(vault_piece_of(x->v.dir, type, nth, &p));
	return p;
}

static uint32_t
flags_of(struct pair *x, const struct point *p)
{
	struct lc_err e = LC_ERR_INIT;
	struct point_list l;
	uint32_t flags = UINT32_MAX;
	size_t i;

	must(store_points(x->v.s, NULL, &l, &e), &e);
	for (i = 0; i < l.n; i++) {
		if (memcmp(l.points[i].id, p->id, 16) == 0)
			flags = l.points[i].flags;
	}
	point_list_free(&l);
	return flags;
}

static bool
damaged(struct pair *x, const struct point *p)
{
	return (flags_of(x, p) & POINT_MAP_DAMAGED) != 0;
}

/* A backup on top of damage is whole again, for itself and for what comes after. */
static void
heals_by_backup(struct pair *x)
{
	struct vault_disk d = vault_disk_copy(&x->web.d[2]);
	struct lc_err e = LC_ERR_INIT;
	struct point p, q;
	struct writer *w;
	struct commit_opts co = {0};

	p = backup(&x->v, "web01", &d);
	assert_int_equal(p.flags & (POINT_FRESH | POINT_MAP_DAMAGED), POINT_FRESH);
	same(&x->v, &p, &d);
	d.codes[1] = 55;
	w = vault_begin(x->v.s, "web01", &d, 1, &e);
	assert_non_null(writer_base(w));
	assert_true(writer_known(w, 0));
	must(vault_put(w, 0, &d, 1, &e), &e);
	must(writer_commit(w, &co, &q, &e), &e);
	same(&x->v, &q, &d);
	rebuild(&x->v);
	assert_false(damaged(x, &p));
	assert_false(damaged(x, &q));
	same(&x->v, &q, &d);
	vault_disk_free(&d);
}

static void
a_damaged_map_marks_its_point_and_later_ones(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece p;
	struct pair x;
	struct told t;

	(void)state;
	make_pair(&x);
	p = piece(&x, RECORD_MAP, 1);
	vault_flip(x.v.dir, &p, RECORD_HEADER_SIZE + 60, 1);
	/* As long as the catalog is there nothing is lost, and scrub says what hangs by it. */
	vault_open(&x.v);
	t = scrub(&x.v);
	assert_int_equal(t.n, 1);
	assert_string_equal(t.first.what, "map");
	assert_non_null(strstr(t.first.affects, "web01 in 2 restore points"));
	assert_non_null(strstr(t.first.affects, "do not delete it"));
	same(&x.v, &x.web.p[1], &x.web.d[1]);
	rebuild(&x.v);
	assert_false(damaged(&x, &x.web.p[0]));
	assert_true(damaged(&x, &x.web.p[1]));
	assert_true(damaged(&x, &x.web.p[2]));
	same(&x.v, &x.web.p[0], &x.web.d[0]);
	assert_int_equal(vault_compare(x.v.s, x.web.p[1].id, &x.web.d[1], 1, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "part of its map was damaged"));
	all_of_db(&x);
	t = scrub(&x.v);
	assert_int_equal(t.n, 3); /* the record, two points */
	assert_non_null(strstr(t.all, "damaged map|web01"));
	heals_by_backup(&x);
	all_of_db(&x);
	free_pair(&x);
}

/* What scrub found is put down; the next point is whole by itself, and the one after that builds
 * upon it. */
static void
damaged_state_restarts_the_line_once(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct vault_piece piece_of;
	struct writer *w;
	struct point p;
	struct pair x;
	struct told t;
	unsigned i;

	(void)state;
	make_pair(&x);
	d = vault_disk_copy(&x.web.d[2]);
	piece_of = piece(&x, RECORD_MAP, 1);
	vault_flip(x.v.dir, &piece_of, RECORD_HEADER_SIZE + 60, 1);
	for (i = 0; i < 3; i++) {
		reopen(&x.v);
		t = scrub(&x.v);
		assert_int_equal(t.n, 1);
		must(store_condemn(x.v.s, &t.first, 1, NULL, &e), &e);
		w = vault_begin(x.v.s, "web01", &d, 1, &e);
		assert_int_equal(writer_base(w) == NULL, i == 0);
		writer_abort(w);
		w = vault_begin(x.v.s, "db", &x.db.d[2], 1, &e);
		assert_non_null(writer_base(w));
		writer_abort(w);
		d.codes[0] = 500 + i;
		p = backup(&x.v, "web01", &d);
		assert_int_equal((p.flags & POINT_FRESH) != 0, i == 0);
	}
	rebuild(&x.v);
	assert_true(damaged(&x, &x.web.p[1]));
	same(&x.v, &p, &d);
	all_of_db(&x);
	vault_disk_free(&d);
	free_pair(&x);
}

/* Where a record is in the log twice, one good copy is enough. */
static void
a_copy_stands_in_for_a_damaged_record(void **state)
{
	struct vault_piece map, last;
	struct lc_buf file = {0};
	struct lc_err e = LC_ERR_INIT;
	uint8_t *copy;
	struct three t;
	struct vault v;
	char name[64], seg[32];
	size_t i;

	(void)state;
	vault_make(&v, true);
	v.segment_bytes = 3000;
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
	vault_close(&v);
	assert_true(vault_piece_of(v.dir, RECORD_MAP, 1, &map));
	assert_true(map.sealed);
	assert_true(vault_piece_of(v.dir, RECORD_COMMIT, -1, &last));
	assert_false(last.sealed);
	(void)snprintf(name, sizeof name, "segments/%s", segment_name(seg, map.r.segment, true));
	must(file_read_all(vault_path(&v, name), 1u << 20, &file, &e), &e);
	copy = file.p + map.off;
	map.r.segment = last.r.segment;
	record_header_encode(&map.r, XXH3_64bits(copy + RECORD_HEADER_SIZE, map.r.n), copy);
	vault_write(v.dir, &last, last.n, copy, map.n);
	lc_buf_free(&file);
	assert_true(vault_piece_of(v.dir, RECORD_MAP, 1, &map));
	vault_flip(v.dir, &map, RECORD_HEADER_SIZE + 60, 1);
	catalog_away(&v);
	vault_open(&v);
	for (i = 0; i < 3; i++)
		same(&v, &t.p[i], &t.d[i]);
	free_three(&t);
	vault_free(&v);
}

static void
a_damaged_commit_marks_later_points(void **state)
{
	struct vault_piece p;
	struct pair x;
	struct told t;

	(void)state;
	make_pair(&x);
	/* 0: init, 1..3: web01 */
	p = piece(&x, RECORD_COMMIT, 2);
	vault_flip(x.v.dir, &p, RECORD_HEADER_SIZE + 100, 4);
	vault_open(&x.v);
	t = scrub(&x.v);
	assert_int_equal(t.n, 1);
	assert_string_equal(t.first.what, "commit");
	assert_non_null(strstr(t.first.affects, "web01 in 1 restore point"));
	rebuild(&x.v);
	assert_int_equal(flags_of(&x, &x.web.p[1]), UINT32_MAX); /* not known any more */
	assert_false(damaged(&x, &x.web.p[0]));
	assert_true(damaged(&x, &x.web.p[2]));
	same(&x.v, &x.web.p[0], &x.web.d[0]);
	all_of_db(&x);
	heals_by_backup(&x);
	same(&x.v, &x.web.p[0], &x.web.d[0]);
	all_of_db(&x);
	free_pair(&x);
}

static void
the_commit_that_made_a_vm_known_is_not_the_only_one(void **state)
{
	struct vault_piece p;
	struct pair x;

	(void)state;
	make_pair(&x);
	p = piece(&x, RECORD_COMMIT, 1);
	vault_flip(x.v.dir, &p, RECORD_HEADER_SIZE + 10, 1);
	vault_open(&x.v);
	rebuild(&x.v);
	/* web01 is known by name; its points hang by the lost one. */
	assert_int_equal(flags_of(&x, &x.web.p[0]), UINT32_MAX);
	assert_true(damaged(&x, &x.web.p[1]));
	assert_true(damaged(&x, &x.web.p[2]));
	all_of_db(&x);
	heals_by_backup(&x);
	free_pair(&x);
}

/* ---- lines ---- */

static struct point
fork_at(struct vault *v, const char *vm, const struct point *at, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct commit_opts o = {0};
	struct writer *w = vault_fork(v->s, vm, at->id, d, 1, &e);
	struct point p;
	uint64_t k;

	must(w == NULL ? e.code : 0, &e);
	assert_memory_equal(writer_base(w)->id, at->id, POINT_ID_SIZE);
	/* Only what differs from there, as a bitmap would say it. */
	for (k = 0; k < point_windows(d->size); k++)
		must(vault_put(w, 0, d, k, &e), &e);
	must(writer_commit(w, &o, &p, &e), &e);
	assert_int_equal(p.flags & (POINT_FORK | POINT_FRESH), POINT_FORK);
	assert_memory_not_equal(p.line, at->line, 16);
	return p;
}

static void
a_fork_leaves_the_other_line_alone(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d[3];
	struct point p[3];
	struct point_list l;
	struct three t;
	struct vault v;
	unsigned round;
	size_t i;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
	d[0] = vault_disk_copy(&t.d[1]);
	d[0].codes[2] = 300;
	p[0] = fork_at(&v, "web01", &t.p[1], &d[0]);
	assert_int_equal(p[0].changed, 1); /* not what the disk holds */
	/* What comes next follows it. */
	d[1] = vault_disk_copy(&d[0]);
	d[1].codes[0] = 0;
	p[1] = backup(&v, "web01", &d[1]);
	assert_memory_equal(p[1].base, p[0].id, POINT_ID_SIZE);
	assert_memory_equal(p[1].line, p[0].line, 16);
	d[2] = vault_disk_copy(&t.d[0]);
	vault_disk_resize(&d[2], 2 * WINDOW_SIZE);
	p[2] = fork_at(&v, "web01", &t.p[0], &d[2]);
	must(store_find(v.s, "web01", &p[2], &e), &e); /* latest */
	point_done(&p[2]);
	for (round = 0; round < 3; round++) {
		must(store_points(v.s, "web01", &l, &e), &e);
		assert_int_equal(l.n, 6 - 2 * round);
		point_list_free(&l);
		for (i = round == 0 ? 0 : 2; i < 3; i++)
			same(&v, &t.p[i], &t.d[i]);
		for (i = round < 2 ? 0 : 2; i < 3; i++)
			same(&v, &p[i], &d[i]);
		if (round == 0) { /* where the lines left it, and what is before */
			must(store_drop(v.s, t.p[1].id, &e), &e);
			must(store_drop(v.s, t.p[0].id, &e), &e);
		} else if (round == 1) { /* one of the lines is gone */
			must(store_drop(v.s, p[0].id, &e), &e);
			must(store_drop(v.s, p[1].id, &e), &e);
		}
		if (round < 2)
			rebuild(&v);
	}
	for (i = 0; i < 3; i++)
		vault_disk_free(&d[i]);
	free_three(&t);
	vault_free(&v);
}

static void
a_fork_from_nowhere_is_refused(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct commit_opts o = {.covered = (uint64_t[]){1}};
	struct writer *w;
	struct point p;
	struct pair x;

	(void)state;
	make_pair(&x);
	vault_open(&x.v);
	assert_null(vault_fork(x.v.s, "nobody", x.web.p[0].id, x.web.d, 1, &e));
	assert_int_equal(e.code, LC_ENOENT);
	lc_err_clear(&e);
	assert_null(vault_fork(x.v.s, "web01", x.db.p[0].id, x.web.d, 1, &e)); /* another VM's */
	assert_int_equal(e.code, LC_ENOENT);
	assert_non_null(strstr(e.msg, "web01 has no restore point"));
	lc_err_clear(&e);
	/* A seed is nothing to go on from. */
	w = vault_begin(x.v.s, "web01", x.web.d, 1, &e);
	o.seed = true;
	must(writer_commit(w, &o, &p, &e), &e);
	assert_null(vault_fork(x.v.s, "web01", p.id, x.web.d, 1, &e));
	assert_int_equal(e.code, LC_ENOENT);
	point_done(&p);
	lc_err_clear(&e);
	/* Dropped while it was being made. */
	o.seed = false;
	w = vault_fork(x.v.s, "web01", x.web.p[1].id, &x.web.d[1], 1, &e);
	assert_non_null(w);
	must(store_drop(x.v.s, x.web.p[1].id, &e), &e);
	assert_int_equal(writer_commit(w, &o, NULL, &e), LC_ECONFLICT);
	same(&x.v, &x.web.p[0], &x.web.d[0]);
	same(&x.v, &x.web.p[2], &x.web.d[2]);
	free_pair(&x);
}

/* What is bad in the log of one line is so for those that left it later, and for no others. */
static void
damage_reaches_the_lines_that_left_after_it(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece map;
	struct vault_disk d[2];
	struct point early, late, next;
	struct pair x;
	struct told t;

	(void)state;
	make_pair(&x);
	vault_open(&x.v);
	d[0] = vault_disk_copy(&x.web.d[0]);
	d[0].codes[2] = 301;
	early = fork_at(&x.v, "web01", &x.web.p[0], &d[0]);
	d[1] = vault_disk_copy(&x.web.d[2]);
	d[1].codes[0] = 302;
	late = fork_at(&x.v, "web01", &x.web.p[2], &d[1]);
	vault_close(&x.v);
	map = piece(&x, RECORD_MAP, 1); /* of web01's second point */
	vault_flip(x.v.dir, &map, RECORD_HEADER_SIZE + 60, 1);
	vault_open(&x.v);
	t = scrub(&x.v);
	assert_int_equal(t.n, 1);
	assert_non_null(strstr(t.first.affects, "web01 in 3 restore points"));
	/* Condemned, it makes the next point of the line that left stand by itself. */
	must(store_condemn(x.v.s, &t.first, 1, NULL, &e), &e);
	next = backup(&x.v, "web01", &d[1]);
	assert_int_equal(next.flags & POINT_FRESH, POINT_FRESH);
	rebuild(&x.v);
	assert_true(damaged(&x, &x.web.p[1]));
	assert_true(damaged(&x, &x.web.p[2]));
	assert_true(damaged(&x, &late));
	assert_false(damaged(&x, &next));
	same(&x.v, &x.web.p[0], &x.web.d[0]);
	same(&x.v, &early, &d[0]);
	same(&x.v, &next, &d[1]);
	all_of_db(&x);
	vault_disk_free(&d[0]);
	vault_disk_free(&d[1]);
	free_pair(&x);
}

static void
a_lost_drop_raises_nothing_that_matters(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct vault_piece p;
	struct point q;
	struct pair x;

	(void)state;
	make_pair(&x);
	vault_open(&x.v);
	must(store_drop(x.v.s, x.web.p[2].id, &e), &e);
	vault_close(&x.v);
	p = piece(&x, RECORD_COMMIT, -1);
	vault_open(&x.v);
	d = vault_disk_copy(&x.web.d[1]);
	d.codes[0] = 999;
	q = backup(&x.v, "web01", &d);
	vault_close(&x.v);
	vault_flip(x.v.dir, &p, RECORD_HEADER_SIZE + 3, 1);
	vault_open(&x.v);
	rebuild(&x.v);
	/* The next point says by its base that the dropped one was dropped. */
	assert_int_equal(flags_of(&x, &x.web.p[2]), UINT32_MAX);
	same(&x.v, &q, &d);
	same(&x.v, &x.web.p[1], &x.web.d[1]);
	all_of_db(&x);
	vault_disk_free(&d);
	free_pair(&x);
}

static void
a_lost_chunk_is_named_and_heals(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece p;
	struct vault_disk d;
	struct point q;
	struct pair x;
	struct told t;

	(void)state;
	make_pair(&x);
	p = piece(&x, RECORD_CHUNK, 1); /* window 1 of web01's second and third point */
	vault_flip(x.v.dir, &p, 100, 2);
	vault_open(&x.v);
	t = scrub(&x.v);
	assert_int_equal(t.n, 1);
	assert_string_equal(t.first.what, "chunk");
	assert_int_equal(t.first.offset, p.off);
	assert_non_null(strstr(t.first.affects, "web01/vda in 2 restore points"));
	assert_int_equal(vault_compare(x.v.s, x.web.p[1].id, &x.web.d[1], 1, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "segments/0000000000000001.seg, offset"));
	lc_err_clear(&e);
	assert_int_equal(vault_verify(x.v.s, x.web.p[2].id, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "web01/vda at byte 65536"));
	lc_err_clear(&e);
	same(&x.v, &x.web.p[0], &x.web.d[0]);
	all_of_db(&x);
	rebuild(&x.v);
	assert_int_equal(vault_compare(x.v.s, x.web.p[1].id, &x.web.d[1], 1, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "missing"));
	t = scrub(&x.v);
	assert_int_equal(t.n, 2);
	assert_non_null(strstr(t.all, "lost chunk|web01/vda in 2 restore points"));
	/* The same content again, of another VM even. */
	d = vault_disk("hda", 1);
	d.codes[0] = x.web.d[1].codes[1];
	q = backup(&x.v, "mail", &d);
	same(&x.v, &q, &d);
	same(&x.v, &x.web.p[1], &x.web.d[1]);
	same(&x.v, &x.web.p[2], &x.web.d[2]);
	reopen(&x.v);
	same(&x.v, &q, &d);
	same(&x.v, &x.web.p[2], &x.web.d[2]);
	rebuild(&x.v);
	same(&x.v, &q, &d);
	same(&x.v, &x.web.p[2], &x.web.d[2]);
	all_of_db(&x);
	vault_disk_free(&d);
	free_pair(&x);
}

static void
a_missing_segment_is_damage(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d = vault_disk("vda", 40);
	struct point p[6];
	struct store *s;
	struct vault v;
	struct told t;
	size_t i, k;

	(void)state;
	vault_make(&v, true);
	v.segment_bytes = 200000;
	vault_open(&v);
	for (i = 0; i < 6; i++) {
		for (k = 0; k < 8; k++)
			d.codes[k] = 5 * (1 + i * 8 + k); /* incompressible */
		p[i] = backup(&v, i % 2 == 0 ? "web01" : "db", &d);
	}
	vault_close(&v);
	assert_int_equal(unlink(vault_path(&v, "segments/0000000000000004.seg")), 0);
	vault_open(&v);
	t = scrub(&v);
	assert_int_equal(t.n, 1);
	assert_string_equal(t.first.file, "segments/0000000000000004.seg");
	assert_string_equal(t.first.what, "missing file");
	assert_non_null(strstr(t.first.affects, "restore point"));
	rebuild(&v);
	t = scrub(&v);
	assert_true(t.n >= 2);
	assert_non_null(strstr(t.all, "0000000000000004.seg|missing file"));
	same(&v, &p[5], &d); /* what lies behind the gap is not lost */
	must(vault_try(&v, STORE_READ, &s, &e), &e);
	store_close(s);
	/* The end of the log is missing: the old catalog says so. */
	vault_close(&v);
	{
		struct vault_piece last;

		assert_true(vault_piece_of(v.dir, RECORD_COMMIT, -1, &last));
		for (i = last.r.segment; i < last.r.segment + 3; i++) {
			char name[48];

			(void)snprintf(name, sizeof name, "segments/%016zx.seg", i);
			(void)unlink(vault_path(&v, name));
			(void)snprintf(name, sizeof name, "segments/%016zx.open", i);
			(void)unlink(vault_path(&v, name));
		}
	}
	{
		struct vault_piece *pieces;
		struct store_stats st;
		size_t n, chunks = 0;

		vault_open(&v);
		vault_close(&v);
		vault_pieces(v.dir, &pieces, &n);
		for (i = 0; i < n; i++)
			chunks += pieces[i].r.type == RECORD_CHUNK;
		free(pieces);
		vault_open(&v);
		must(store_stats(v.s, &st, &e), &e);
		assert_int_equal(st.damaged, 2);
		assert_int_equal(st.chunks, chunks); /* not what stands for those that are lost */
	}
	vault_disk_free(&d);
	vault_free(&v);
}

static void
no_segment_at_all_is_no_empty_store(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct store *s;
	struct three t;
	struct vault v;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	make_three(&v, "web01", 100, &t);
	vault_close(&v);
	catalog_away(&v);
	assert_int_equal(unlink(vault_path(&v, "segments/0000000000000001.open")), 0);
	assert_int_equal(vault_try(&v, STORE_WRITE, &s, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "data is gone"));
	assert_int_equal(vault_try(&v, STORE_READ, &s, NULL), LC_ECORRUPT);
	free_three(&t);
	vault_free(&v);
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
	must(store_each_point(v.s, "web01", note_point, &x, &e), &e);
	assert_int_equal(x.n, 2);
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
	    cmocka_unit_test(a_second_owner_is_told_who_is_first),
	    cmocka_unit_test(a_reader_beside_the_owner_sees_every_commit),
	    cmocka_unit_test(a_dead_readers_lease_holds_nobody_up),
	    cmocka_unit_test(a_point_that_writes_stand_on_is_not_dropped),
	    cmocka_unit_test(a_point_that_is_being_dropped_is_not_read),
	    cmocka_unit_test(a_reader_without_rights_reads_the_log),
	    cmocka_unit_test(any_catalog_is_survived),
	    cmocka_unit_test(a_lost_identity_comes_back),
	    cmocka_unit_test(a_damaged_map_marks_its_point_and_later_ones),
	    cmocka_unit_test(damaged_state_restarts_the_line_once),
	    cmocka_unit_test(a_copy_stands_in_for_a_damaged_record),
	    cmocka_unit_test(a_damaged_commit_marks_later_points),
	    cmocka_unit_test(the_commit_that_made_a_vm_known_is_not_the_only_one),
	    cmocka_unit_test(a_fork_leaves_the_other_line_alone),
	    cmocka_unit_test(a_fork_from_nowhere_is_refused),
	    cmocka_unit_test(damage_reaches_the_lines_that_left_after_it),
	    cmocka_unit_test(a_lost_drop_raises_nothing_that_matters),
	    cmocka_unit_test(a_lost_chunk_is_named_and_heals),
	    cmocka_unit_test(a_missing_segment_is_damage),
	    cmocka_unit_test(no_segment_at_all_is_no_empty_store),
	    cmocka_unit_test(newer_things_are_refused_and_never_touched),
	    cmocka_unit_test(an_entry_that_makes_no_sense_is_damage),
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

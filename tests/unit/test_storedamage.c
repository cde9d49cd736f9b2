/*
 * store: damage stays with the points that it hit, and so do forks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/files.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "store/transfer.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/three.h"

/* ---- damage ---- */

/* The nth record of a type that belongs to web01: its records come first. */
static struct vault_piece
piece(struct pair *x, int type, int nth)
{
	struct vault_piece p;

	assert_true(vault_piece_of(x->v.dir, type, nth, &p));
	return p;
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
	assert_false(store_stands(x.v.s, &x.web.p[2]));
	assert_true(store_stands(x.v.s, &x.db.p[2]));
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
		assert_int_equal(t.bad, i == 0 ? 1 : 0);
		must(store_condemn(x.v.s, &t.first, 1, NULL, &e), &e);
		w = vault_begin(x.v.s, "web01", &d, 1, &e);
		assert_int_equal(writer_base(w) == NULL, i == 0);
		assert_int_equal(store_stands(x.v.s, i == 0 ? &x.web.p[2] : &p), i != 0);
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
	end_three(&v, &t);
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
	begin_three(&v, &t);
	d[0] = vault_disk_copy(&t.d[1]);
	d[0].codes[2] = 300;
	assert_true(store_stands(v.s, &t.p[2]));
	p[0] = fork_at(&v, "web01", &t.p[1], &d[0]);
	assert_false(store_stands(v.s, &t.p[2])); /* the newest of a line that does not go on */
	assert_true(store_stands(v.s, &p[0]));
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
	end_three(&v, &t);
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
	assert_false(store_stands(x.v.s, &x.web.p[2]));
	assert_false(store_stands(x.v.s, &p));
	assert_true(store_stands(x.v.s, &x.db.p[2]));
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

/* Whether the next point of web01 would read what did not change, too; asked as by an agent that
 * runs, and by one that looked before. */
static void
wants_all(struct pair *x, bool all)
{
	static uint64_t seen;
	struct lc_err e = LC_ERR_INIT;
	uint64_t first = 0;
	struct writer *w;
	bool damaged;
	unsigned i;

	w = vault_begin(x->v.s, "web01", &x->web.d[2], 1, &e);
	assert_non_null(w);
	for (i = 0; i < 2; i++) {
		must(writer_base_damaged(w, &first, &damaged, &e), &e);
		assert_int_equal(damaged, all);
		must(writer_base_damaged(w, &seen, &damaged, &e), &e);
		assert_int_equal(damaged, all);
	}
	writer_abort(w);
}

/* A point that was made from all of the disks has them anew: it shares none with those before. */
static void
a_point_with_other_disks_is_not_named(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece p;
	struct point q;
	struct pair x;
	struct told t;

	(void)state;
	make_pair(&x);
	p = piece(&x, RECORD_CHUNK, 1); /* window 1 of web01's second and third point */
	vault_open(&x.v);
	must(outgoing_restart(x.v.s, x.web.p[0].line, &e), &e);
	q = backup(&x.v, "web01", &x.web.d[0]);
	assert_true((q.flags & POINT_FRESH) != 0);
	vault_close(&x.v);
	vault_flip(x.v.dir, &p, 100, 2);
	vault_open(&x.v);
	t = scrub(&x.v);
	assert_non_null(strstr(t.first.affects, "web01/vda in 2 restore points"));
	point_done(&q);
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
	wants_all(&x, true);
	assert_false(store_stands(x.v.s, &x.web.p[2]));
	/* The same content again, of another VM even. */
	d = vault_disk("hda", 1);
	d.codes[0] = x.web.d[1].codes[1];
	q = backup(&x.v, "mail", &d);
	wants_all(&x, false);
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
	bool restarts;
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
	must(store_condemn(v.s, &t.first, 1, NULL, &e), &e);
	must(transfer_restarts(v.s, p[0].line, &restarts, &e), &e);
	assert_true(restarts); /* maps may have been in it */
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
	begin_three(&v, &t);
	vault_close(&v);
	catalog_away(&v);
	assert_int_equal(unlink(vault_path(&v, "segments/0000000000000001.open")), 0);
	assert_int_equal(vault_try(&v, STORE_WRITE, &s, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "data is gone"));
	assert_int_equal(vault_try(&v, STORE_READ, &s, NULL), LC_ECORRUPT);
	end_three(&v, &t);
}

#define MANY 20000u /* as one record holds */

/* A disk that lost a region of itself: all of what was there is asked for again, and at once. */
static void
however_much_is_damaged_is_put_down(void **state)
{
	const size_t windows = UNDER_VALGRIND ? 100 : MANY + 1000;
	struct vault_disk d = vault_disk("vda", windows);
	struct lc_err e = LC_ERR_INIT;
	struct segment_info *list;
	uint64_t condemned = 0, missing = 0;
	struct damage *lost;
	struct vault v;
	struct point p;
	size_t i, n, k = 0;

	(void)state;
	vault_make(&v, true);
	v.segment_bytes = 100000;
	vault_open(&v);
	for (i = 0; i < windows; i++)
		d.codes[i] = 7 * (5 * i + 1); /* of a few bytes each */
	p = backup(&v, "web01", &d);
	must(segments_list(v.s->segments, &list, &n, &e), &e);
	lost = lc_alloc_array(n, sizeof *lost);
	assert_non_null(lost);
	for (i = 0; i < n; i++) {
		char name[32];

		if (!list[i].sealed)
			continue;
		(void)segment_name(name, list[i].no, true);
		assert_int_equal(truncate(tmpdir_path(v.s->segments_dir, name), 0), 0);
		lost[k].segment = list[i].no;
		lost[k++].length = list[i].bytes;
	}
	must(store_condemn(v.s, lost, k, &condemned, &e), &e);
	must(catalog_writer_missing(v.s->catalog, 0, &missing, &e), &e);
	assert_true(UNDER_VALGRIND || condemned > MANY);
	assert_int_equal(missing, condemned);
	lc_free(list);
	lc_free(lost);
	point_done(&p);
	vault_disk_free(&d);
	vault_free(&v);
}

#define PLACES 5000u /* more entries than one record may have */

static void
however_many_places_are_damaged_they_are_put_down(void **state)
{
	const size_t places = UNDER_VALGRIND ? 20 : PLACES;
	struct damage *lost = lc_alloc_array(places, sizeof *lost);
	struct vault_disk d = vault_disk("vda", 40);
	struct lc_err e = LC_ERR_INIT;
	struct vault v;
	struct point p;
	bool restarts;
	size_t i;

	(void)state;
	assert_non_null(lost);
	vault_make(&v, true);
	vault_open(&v);
	d.codes[0] = 5;
	p = backup(&v, "web01", &d);
	for (i = 0; i < places; i++) /* nobody knows of which line */
		lost[i] = (struct damage){
		    .type = RECORD_MAP, .segment = 1, .offset = 4096 + i, .length = 1};
	must(store_condemn(v.s, lost, places, NULL, &e), &e);
	must(transfer_restarts(v.s, p.line, &restarts, &e), &e);
	assert_true(restarts);
	point_done(&p);
	p = backup(&v, "web01", &d); /* which goes on */
	point_done(&p);
	lc_free(lost);
	vault_disk_free(&d);
	vault_free(&v);
}

#define LINES 70000u /* more than one record holds */

/* A host that shares the store can have made any number of lines, by points that it gave up: what
 * is damaged of others is put down all the same. */
static void
however_many_lines_there_are_damage_is_put_down(void **state)
{
	const unsigned lines = UNDER_VALGRIND ? 100 : LINES;
	struct vault_disk d = vault_disk("vda", 40);
	uint8_t line[16] = {1}, disk[16] = {2};
	struct damage lost = {.segment = 0};
	struct lc_err e = LC_ERR_INIT;
	struct segment_info *list;
	uint64_t no = 0;
	struct vault v;
	bool restarts;
	struct point p;
	size_t i, n;

	(void)state;
	vault_make(&v, true);
	v.segment_bytes = 200000;
	vault_open(&v);
	for (i = 0; i < 40; i++)
		d.codes[i] = 5 * (1 + i);
	p = backup(&v, "web01", &d);
	must(catalog_begin(v.s->catalog, &e), &e);
	for (i = 0; i < lines; i++) {
		memcpy(line + 4, &i, sizeof i);
		must(catalog_disk(v.s->catalog, line, disk, true, &no, &e), &e);
	}
	must(catalog_commit(v.s->catalog, &e), &e);
	must(segments_list(v.s->segments, &list, &n, &e), &e);
	lost.segment = list[1].no;
	lost.length = list[1].bytes;
	assert_int_equal(truncate(vault_path(&v, "segments/0000000000000002.seg"), 0), 0);
	lost.offset = 1; /* of a file that is there */
	must(store_condemn(v.s, &lost, 1, NULL, &e), &e);
	must(transfer_restarts(v.s, p.line, &restarts, &e), &e);
	assert_true(restarts);
	must(transfer_restarts(v.s, line, &restarts, &e), &e);
	assert_true(restarts);
	lc_free(list);
	point_done(&p);
	vault_disk_free(&d);
	vault_free(&v);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_damaged_map_marks_its_point_and_later_ones),
	    cmocka_unit_test(damaged_state_restarts_the_line_once),
	    cmocka_unit_test(a_copy_stands_in_for_a_damaged_record),
	    cmocka_unit_test(a_damaged_commit_marks_later_points),
	    cmocka_unit_test(the_commit_that_made_a_vm_known_is_not_the_only_one),
	    cmocka_unit_test(a_fork_leaves_the_other_line_alone),
	    cmocka_unit_test(a_fork_from_nowhere_is_refused),
	    cmocka_unit_test(damage_reaches_the_lines_that_left_after_it),
	    cmocka_unit_test(a_lost_drop_raises_nothing_that_matters),
	    cmocka_unit_test(a_point_with_other_disks_is_not_named),
	    cmocka_unit_test(a_lost_chunk_is_named_and_heals),
	    cmocka_unit_test(a_missing_segment_is_damage),
	    cmocka_unit_test(no_segment_at_all_is_no_empty_store),
	    cmocka_unit_test(however_much_is_damaged_is_put_down),
	    cmocka_unit_test(however_many_lines_there_are_damage_is_put_down),
	    cmocka_unit_test(however_many_places_are_damaged_they_are_put_down),
	};

	log_set_level(getenv("LOCUM_TEST_LOG") == NULL ? LOG_LV_ERROR : LOG_LV_DEBUG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Restore points: put, list, drop, age.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/catalog_internal.h"
#include "store/point.h"

/* ---- points ---- */

int
catalog_put_point(struct catalog *c, const struct catalog_point *p, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_POINT_PUT, e);
	if (st != NULL) {
		sql_int(st, 1, p->gen);
		sql_int(st, 2, p->order);
		sql_blob(st, 3, p->id, 16);
		sql_blob(st, 4, p->line, 16);
		sql_int(st, 5, p->flags);
		sql_int(st, 6, p->rows);
		sql_int(st, 7, (uint64_t)p->commit_ns);
		sql_blob(st, 8, p->entry.p, p->entry.n);
		rc = sql_run(c, st, e);
		if (rc == 0 && sqlite3_changes(c->db) != 1)
			rc = lc_fail(e, LC_ECORRUPT, 0, "catalog %s: a point of an unknown line",
			             c->path);
		if (rc == 0)
			rc = sql_run1(c, ST_GEN_DEL, p->gen, e);
	}
	sql_unlock(c);
	return rc;
}

static void
col_point(sqlite3_stmt *st, struct catalog_point *p)
{
	p->gen = col_int(st, 0);
	p->order = col_int(st, 1);
	col_copy(st, 2, p->id, 16);
	col_copy(st, 3, p->line, 16);
	col_copy(st, 4, p->vm, 16);
	p->flags = (uint32_t)col_int(st, 5);
	p->recent = col_int(st, 6) != 0;
	p->rows = col_int(st, 7);
	p->commit_ns = (int64_t)col_int(st, 8);
	p->entry.p = sqlite3_column_blob(st, 9);
	p->entry.n = (size_t)sqlite3_column_bytes(st, 9);
}

int
each_point(struct catalog *c, enum statement which, const uint8_t *key,
           int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
           uint64_t *found, struct lc_err *e)
{
	struct catalog_point p;
	sqlite3_stmt *st;
	int rc = sql_start(c, which, &st, e);

	*found = 0;
	if (rc == 0 && key != NULL)
		sql_blob(st, 1, key, 16);
	while (sql_next(c, st, &rc, e)) {
		col_point(st, &p);
		++*found;
		rc = on(arg, &p, e);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_vm_line(struct catalog *c, const uint8_t vm[16], uint8_t line[16], struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_VM_LINE, &st, e);

	if (rc == 0) {
		sql_blob(st, 1, vm, 16);
		rc = sql_first(c, st, e);
		if (rc == 0)
			col_copy(st, 0, line, 16);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_points_after(struct catalog *c, const uint8_t line[16], const uint8_t point[16],
                     uint64_t *n, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_POINTS_AFTER, &st, e);

	if (rc == 0) {
		sql_blob(st, 1, line, 16);
		sql_blob(st, 2, point, 16);
		rc = sql_first(c, st, e);
		if (rc == 0)
			*n = col_int(st, 0);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_each_point(struct catalog *c, const uint8_t *line,
                   int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
                   struct lc_err *e)
{
	uint64_t found;

	return each_point(c, line == NULL ? ST_POINT_ALL : ST_POINT_LINE, line, on, arg, &found, e);
}

int
catalog_each_point_of(struct catalog *c, const uint8_t vm[16],
                      int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e),
                      void *arg, struct lc_err *e)
{
	uint64_t found;

	return each_point(c, ST_POINT_VM, vm, on, arg, &found, e);
}

int
catalog_point(struct catalog *c, const uint8_t id[16],
              int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
              struct lc_err *e)
{
	uint64_t found;
	int rc = each_point(c, ST_POINT_GET, id, on, arg, &found, e);

	return rc == 0 && found == 0 ? LC_ENOENT : rc;
}

int
copy_point(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	struct catalog_point *dst = arg;

	(void)e;
	*dst = *p;
	dst->entry = (struct lc_span){0};
	return 0;
}

static const char *
table_of(bool recent)
{
	return recent ? "map_recent" : "map_long";
}

/* Copy the rows of generation `from` under `to`; replace or keep those that are there. */
static int
move_rows(struct catalog *c, bool from_recent, uint64_t from, bool to_recent, uint64_t to,
          bool replace, uint64_t *moved, struct lc_err *e)
{
	char sql[256];
	int rc;

	(void)snprintf(sql, sizeof sql,
	               "INSERT OR %s INTO %s(gen,disk,window,chunk) "
	               "SELECT %" PRIu64 ",disk,window,chunk FROM %s WHERE gen=%" PRIu64,
	               replace ? "REPLACE" : "IGNORE", table_of(to_recent), to,
	               table_of(from_recent), from);
	rc = sql_exec(c, sql, e);
	*moved = (uint64_t)sqlite3_changes64(c->db);
	return rc != 0 ? rc : delete_rows(c, from, e);
}

static int
count_rows(struct catalog *c, bool recent, uint64_t gen, uint64_t *n, struct lc_err *e)
{
	char sql[128];
	sqlite3_stmt *st;
	int rc;

	(void)snprintf(sql, sizeof sql, "SELECT count(*) FROM %s WHERE gen=%" PRIu64,
	               table_of(recent), gen);
	rc = sqlite3_prepare_v2(c->db, sql, -1, &st, NULL);
	if (rc != SQLITE_OK)
		return sql_fail(c, rc, e);
	rc = sql_first(c, st, e);
	if (rc == 0)
		*n = col_int(st, 0);
	(void)sqlite3_finalize(st);
	return rc;
}

/* ---- dropping ---- */

struct with_disks { /* a point, and the disks that it has */
	struct catalog_point p;
	size_t n;
	uint8_t ids[POINT_DISKS_MAX][16];
};

static int
copy_with_disks(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct with_disks *w = arg;
	struct point *p = lc_alloc(sizeof *p);
	struct lc_span sealed;
	int rc;

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "point: out of memory");
	(void)copy_point(&w->p, cp, e);
	rc = point_decode(cp->entry, p, &sealed, e);
	for (w->n = 0; rc == 0 && w->n < p->ndisks; w->n++)
		memcpy(w->ids[w->n], p->disks[w->n].id, 16);
	lc_free(p);
	return rc;
}

static bool
has_disk(const struct with_disks *w, const uint8_t id[16])
{
	size_t i;

	for (i = 0; i < w->n; i++) {
		if (memcmp(w->ids[i], id, 16) == 0)
			return true;
	}
	return false;
}

/* Rows of a disk that the next point does not have would belong to nobody. */
static int
delete_gone_disks(struct catalog *c, struct with_disks *p, const struct with_disks *next,
                  struct lc_err *e)
{
	sqlite3_stmt *st;
	uint64_t no;
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < p->n; i++) {
		if (has_disk(next, p->ids[i]))
			continue;
		rc = catalog_disk(c, p->p.line, p->ids[i], false, &no, e);
		if (rc == LC_ENOENT) { /* it never had a row */
			rc = 0;
			continue;
		}
		st = rc != 0 ? NULL
		             : sql_stmt(c, p->p.recent ? ST_RECENT_DISK_DEL : ST_LONG_DISK_DEL, e);
		if (st == NULL)
			return rc != 0 ? rc : LC_EIO;
		sql_int(st, 1, p->p.gen);
		sql_int(st, 2, no);
		rc = sql_run(c, st, e);
		if (rc == 0) {
			uint64_t gone = (uint64_t)sqlite3_changes64(c->db);

			p->p.rows -= gone < p->p.rows ? gone : p->p.rows;
		}
	}
	return rc;
}

static int
fold_into(struct catalog *c, const struct catalog_point *p, const struct catalog_point *next,
          struct lc_err *e)
{
	sqlite3_stmt *st;
	uint64_t moved, rows = 0;
	int rc;

	if (p->rows <= next->rows) {
		rc = move_rows(c, p->recent, p->gen, next->recent, next->gen, false, &moved, e);
		rc = rc != 0 ? rc : sql_run1(c, ST_POINT_DEL, p->gen, e);
		st = rc != 0 ? NULL : sql_stmt(c, ST_POINT_ROWS, e);
		if (st == NULL)
			return rc != 0 ? rc : LC_EIO;
		sql_int(st, 1, next->gen);
		sql_int(st, 2, next->rows + moved);
		return sql_run(c, st, e);
	}
	/* The next one is smaller: lay it over p's rows and let it take p's generation. */
	rc = move_rows(c, next->recent, next->gen, p->recent, p->gen, true, &moved, e);
	rc = rc != 0 ? rc : sql_run1(c, ST_POINT_DEL, p->gen, e);
	/* How many of them were new is not told; an exact count would cost a read of all of p's
	 * rows. */
	rows = p->rows + next->rows;
	if (rc == 0 && rows < 100000)
		rc = count_rows(c, p->recent, p->gen, &rows, e);
	st = rc != 0 ? NULL : sql_stmt(c, ST_POINT_GEN, e);
	if (st == NULL)
		return rc != 0 ? rc : LC_EIO;
	sql_int(st, 1, next->gen);
	sql_int(st, 2, p->gen);
	sql_int(st, 3, p->recent);
	sql_int(st, 4, rows);
	return sql_run(c, st, e);
}

int
catalog_drop(struct catalog *c, const uint8_t id[16], struct lc_err *e)
{
	struct with_disks p = {0}, next = {0};
	uint8_t next_id[16];
	sqlite3_stmt *st;
	int rc;

	sql_lock(c);
	rc = catalog_point(c, id, copy_with_disks, &p, e);
	st = rc != 0 ? NULL : sql_stmt(c, ST_POINT_NEXT, e);
	if (st == NULL) {
		sql_unlock(c);
		return rc != 0 ? rc : LC_EIO;
	}
	sql_int(st, 1, p.p.gen);
	rc = sql_first(c, st, e);
	if (rc == 0)
		col_copy(st, 0, next_id, sizeof next_id);
	sql_done(st);
	if (rc == LC_ENOENT) { /* the newest: nothing depends on its rows */
		rc = delete_rows(c, p.p.gen, e);
		rc = rc != 0 ? rc : sql_run1(c, ST_POINT_DEL, p.p.gen, e);
	} else if (rc == 0) {
		rc = catalog_point(c, next_id, copy_with_disks, &next, e);
		rc = rc != 0 ? rc : delete_gone_disks(c, &p, &next, e);
		rc = rc != 0 ? rc : fold_into(c, &p.p, &next.p, e);
	}
	sql_unlock(c);
	return rc;
}

#define AGE_BATCH 32u
#define AGE_ROWS_MAX 200000u /* larger points stay ordered by generation: they are few */

int
catalog_age(struct catalog *c, const uint8_t line[16], unsigned keep, struct lc_err *e)
{
	uint64_t gens[512] = {0};
	unsigned n = 0, i = 0;
	sqlite3_stmt *st;
	int rc;

	rc = catalog_begin(c, e);
	if (rc != 0)
		return rc;
	st = sql_stmt(c, ST_AGE_EACH, e);
	rc = st == NULL ? LC_EIO : 0;
	if (st != NULL) {
		sql_blob(st, 1, line, 16);
		sql_int(st, 2, AGE_ROWS_MAX);
		while (n < 512 && sql_next(c, st, &rc, e))
			gens[n++] = col_int(st, 0);
		sql_done(st);
	}
	/* In batches, so that rows of neighbouring windows land on the same pages. */
	for (; rc == 0 && n >= keep + AGE_BATCH && i < n - keep; i++) {
		rc = sql_run1(c, ST_AGE_MOVE, gens[i], e);
		rc = rc != 0 ? rc : sql_run1(c, ST_RECENT_DEL, gens[i], e);
		rc = rc != 0 ? rc : sql_run1(c, ST_POINT_RECENT, gens[i], e);
	}
	if (rc != 0) {
		catalog_rollback(c);
		return rc;
	}
	rc = catalog_commit(c, e);
	return rc != 0 ? rc : (int)i;
}

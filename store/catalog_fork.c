/*
 * A line that begins at a point of another one: it gets a copy of that point's map, so that from
 * then on each of the two lines can lose its points without a look at the other.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/catalog_internal.h"

#define PAGE 4096u /* windows */

/* Lower *window to what the statement says, if it says anything. */
static int
least(struct catalog *c, sqlite3_stmt *st, uint64_t *window, struct lc_err *e)
{
	int rc = sql_first(c, st, e);

	if (rc == 0 && sqlite3_column_type(st, 0) != SQLITE_NULL && col_int(st, 0) < *window)
		*window = col_int(st, 0);
	sql_done(st);
	return rc;
}

/* The first window from `from` on that has a row which the base may see: a disk may be large and
 * nearly empty. */
static int
next_row(struct catalog *c, const struct catalog_point *base, uint64_t disk, uint64_t from,
         uint64_t *window, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, ST_NEXT_LONG, e), *recent;
	int rc;

	*window = UINT64_MAX;
	if (st == NULL)
		return LC_EIO;
	sql_int(st, 1, disk);
	sql_int(st, 2, from);
	rc = least(c, st, window, e);
	st = rc != 0 ? NULL : sql_stmt(c, ST_RECENTS, e);
	if (st == NULL)
		return rc != 0 ? rc : LC_EIO;
	sql_blob(st, 1, base->line, 16);
	sql_int(st, 2, base->gen);
	while (sql_next(c, st, &rc, e)) {
		recent = sql_stmt(c, ST_NEXT_RECENT, e);
		if (recent == NULL) {
			rc = LC_EIO;
			break;
		}
		sql_int(recent, 1, col_int(st, 0));
		sql_int(recent, 2, disk);
		sql_int(recent, 3, from);
		rc = least(c, recent, window, e);
	}
	sql_done(st);
	return rc;
}

int
catalog_next_row(struct catalog *c, const uint8_t point[16], const uint8_t disk[16], uint64_t from,
                 uint64_t *window, struct lc_err *e)
{
	struct catalog_point p;
	uint64_t no = NO_DISK;
	bool own;
	int rc;

	*window = UINT64_MAX;
	sql_lock(c);
	rc = looks_begin(c, &own, e);
	rc = rc != 0 ? rc : map_find(c, point, disk, &p, &no, e);
	if (rc == 0 && no != NO_DISK)
		rc = next_row(c, &p, no, from, window, e);
	looks_end(c, own);
	sql_unlock(c);
	return rc;
}

struct copying {
	const struct catalog_fork *f;
	struct catalog_point base;
	uint64_t from, to; /* numbers of the disk in hand on the two lines */
	uint64_t copied;
	uint64_t chunks[PAGE];
};

static int
copy_page(struct catalog *c, struct copying *x, uint64_t first, uint32_t n, struct lc_err *e)
{
	sqlite3_stmt *st;
	uint32_t i;
	int rc = map_at(c, &x->base, x->from, first, n, x->chunks, e);

	st = rc != 0 ? NULL : sql_stmt(c, ST_ROW_KEEP, e);
	if (st == NULL)
		return rc != 0 ? rc : LC_EIO;
	for (i = 0; rc == 0 && i < n; i++) {
		if (x->chunks[i] == 0)
			continue;
		sql_int(st, 1, x->f->gen);
		sql_int(st, 2, x->to);
		sql_int(st, 3, first + i);
		sql_int(st, 4, x->chunks[i]);
		rc = sql_run(c, st, e);
		x->copied += rc == 0 ? (uint64_t)sqlite3_changes64(c->db) : 0;
	}
	return rc;
}

static int
copy_disk(struct catalog *c, struct copying *x, const struct catalog_fork_disk *d, struct lc_err *e)
{
	uint64_t window = 0;
	int rc = catalog_disk(c, x->base.line, d->id, false, &x->from, e);

	if (rc != 0) /* new, or it never had a row */
		return rc == LC_ENOENT ? 0 : rc;
	rc = catalog_disk(c, x->f->line, d->id, true, &x->to, e);
	while (rc == 0) {
		rc = next_row(c, &x->base, x->from, window, &window, e);
		if (rc != 0 || window >= d->windows)
			break;
		rc = copy_page(c, x, window,
		               d->windows - window < PAGE ? (uint32_t)(d->windows - window) : PAGE,
		               e);
		window += PAGE;
	}
	return rc;
}

int
catalog_fork(struct catalog *c, const struct catalog_fork *f, uint64_t *copied, struct lc_err *e)
{
	struct copying *x = lc_alloc(sizeof *x);
	sqlite3_stmt *st;
	size_t i;
	int rc;

	*copied = 0;
	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "map: out of memory");
	x->f = f;
	sql_lock(c);
	rc = catalog_point(c, f->base, copy_point, &x->base, e);
	for (i = 0; rc == 0 && i < f->ndisks; i++)
		rc = copy_disk(c, x, &f->disks[i], e);
	st = rc != 0 ? NULL : sql_stmt(c, ST_FORK_PUT, e);
	if (st != NULL) {
		sql_blob(st, 1, f->line, 16);
		sql_blob(st, 2, x->base.line, 16);
		sql_int(st, 3, x->base.order);
		rc = sql_run(c, st, e);
	} else if (rc == 0) {
		rc = LC_EIO;
	}
	sql_unlock(c);
	*copied = x->copied;
	lc_free(x);
	return rc;
}

struct one_fork {
	uint8_t line[16];
	uint64_t order;
};

int
catalog_each_fork(struct catalog *c, const uint8_t line[16],
                  int (*on)(void *arg, const uint8_t id[16], uint64_t order, struct lc_err *e),
                  void *arg, struct lc_err *e)
{
	struct lc_buf found = {0};
	struct one_fork f;
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_FORK_EACH, &st, e);
	size_t i;

	/* Copied first: a fork has forks. */
	if (rc == 0)
		sql_blob(st, 1, line, 16);
	while (sql_next(c, st, &rc, e)) {
		memset(&f, 0, sizeof f);
		col_copy(st, 0, f.line, sizeof f.line);
		f.order = col_int(st, 1);
		if (lc_buf_append(&found, &f, sizeof f) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	sql_finish(c, st);
	for (i = 0; rc == 0 && i < found.n / sizeof f; i++) {
		memcpy(&f, found.p + i * sizeof f, sizeof f);
		rc = on(arg, f.line, f.order, e);
	}
	lc_buf_free(&found);
	return rc;
}

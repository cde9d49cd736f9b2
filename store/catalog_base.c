/*
 * Which chunks deltas are made upon.
 */
#include <string.h>

#include "store/catalog_internal.h"

static int
run_two(struct catalog *c, enum statement which, uint64_t no, uint64_t base, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, which, e);

	if (st == NULL)
		return LC_EIO;
	sql_int(st, 1, no);
	sql_int(st, 2, base);
	return sql_run(c, st, e);
}

int
catalog_put_base(struct catalog *c, uint64_t no, uint64_t base, struct lc_err *e)
{
	int rc;

	sql_lock(c);
	rc = run_two(c, ST_BASE_PUT, no, base, e);
	sql_unlock(c);
	return rc;
}

int
catalog_missing_base(struct catalog *c, uint64_t no, bool *is, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_MISSING_BASE, &st, e);

	if (rc == 0) {
		sql_int(st, 1, no);
		rc = sql_first(c, st, e);
		*is = rc == 0;
	}
	sql_finish(c, st);
	return rc == LC_ENOENT ? 0 : rc;
}

int
catalog_next_delta(struct catalog *c, uint64_t above, uint64_t *no, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_DELTA_NEXT, e);
	if (st != NULL) {
		sql_int(st, 1, above);
		rc = sql_first(c, st, e);
		if (rc == 0)
			*no = col_int(st, 0);
		sql_done(st);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_bases(struct catalog *c, uint64_t no, uint64_t bases[CHUNK_BASES_MAX], size_t *n,
              struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	*n = 0;
	sql_lock(c);
	st = sql_stmt(c, ST_BASE_GET, e);
	if (st != NULL) {
		rc = 0;
		sql_int(st, 1, no);
		while (*n < CHUNK_BASES_MAX && sql_next(c, st, &rc, e))
			bases[(*n)++] = col_int(st, 0);
		sql_done(st);
	}
	sql_unlock(c);
	return rc;
}

void
catalog_which_are_bases(struct catalog *c, const uint64_t *chunks, size_t n, bool *is)
{
	sqlite3_stmt *st;
	size_t i = 0;
	int rc = n == 0 ? LC_ENOENT : sql_start(c, ST_BASE_RANGE, &st, NULL);

	memset(is, 0, n * sizeof *is);
	if (rc != 0)
		return;
	sql_int(st, 1, chunks[0]);
	sql_int(st, 2, chunks[n - 1]);
	while (sql_next(c, st, &rc, NULL)) {
		while (i < n && chunks[i] < col_int(st, 0))
			i++;
		if (i < n && chunks[i] == col_int(st, 0))
			is[i] = true;
	}
	sql_finish(c, st);
}

/* ---- what reading chunks will take ---- */

static void
on_place(sqlite3_stmt *st, void (*on)(void *arg, const struct record *r), void *arg)
{
	struct record r = {.type = RECORD_CHUNK,
	                   .segment = col_int(st, 0),
	                   .off = col_int(st, 1),
	                   .n = (uint32_t)col_int(st, 2)};

	if (r.segment != 0 && !record_is_stub(&r))
		on(arg, &r);
}

static int
places_of(struct catalog *c, uint64_t chunk, void (*on)(void *arg, const struct record *r),
          void *arg)
{
	sqlite3_stmt *st = sql_stmt(c, ST_CHUNK_PLACE, NULL), *bases = NULL;
	int rc = 0, found;

	if (st == NULL)
		return LC_EIO;
	sql_int(st, 1, chunk);
	found = sql_first(c, st, NULL);
	if (found == 0 && chunk_is_delta((uint8_t)col_int(st, 3)))
		bases = sql_stmt(c, ST_BASE_PLACES, NULL);
	if (bases != NULL)
		sql_int(bases, 1, chunk);
	while (bases != NULL && sql_next(c, bases, &rc, NULL))
		on_place(bases, on, arg);
	sql_done(bases);
	if (found == 0)
		on_place(st, on, arg);
	sql_done(st);
	return rc;
}

void
catalog_places(struct catalog *c, const uint64_t *chunks, uint32_t n,
               void (*on)(void *arg, const struct record *r), void *arg)
{
	uint32_t i;
	bool own;
	int rc;

	sql_lock(c);
	rc = looks_begin(c, &own, NULL);
	for (i = 0; rc == 0 && i < n; i++) {
		if (chunks[i] != 0)
			rc = places_of(c, chunks[i], on, arg);
	}
	looks_end(c, own);
	sql_unlock(c);
}

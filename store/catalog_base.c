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
catalog_put_missing(struct catalog *c, const uint8_t id[32], uint64_t no, struct lc_err *e)
{
	return sql_put_id(c, ST_MISSING_ADD, id, 32, no, e);
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

/*
 * Chunks whose bytes are not here: those that a point names before anybody has brought them, and
 * those that were found to be damaged, until they are brought again.
 */
#include <string.h>

#include "store/catalog_internal.h"

/* Of a record: its id, number and writer. */
static int
run_missing(struct catalog *c, enum statement which, const struct record *r, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, which, &st, e);

	if (rc == 0) {
		sql_blob(st, 1, r->id, sizeof r->id);
		sql_int(st, 2, r->seq);
		sql_int(st, 3, r->writer);
		rc = sql_run(c, st, e);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_put_missing(struct catalog *c, const struct record *r, struct lc_err *e)
{
	return run_missing(c, ST_MISSING_ADD, r, e);
}

int
catalog_missing_of(struct catalog *c, uint16_t writer, const uint8_t id[32], struct lc_buf *out,
                   struct lc_err *e)
{
	sqlite3_stmt *st;
	uint64_t no;
	int rc = sql_start(c, ST_MISSING_OF_ID, &st, e);

	if (rc == 0) {
		sql_blob(st, 1, id, 32);
		sql_int(st, 2, writer);
	}
	while (sql_next(c, st, &rc, e)) {
		no = col_int(st, 0);
		if (lc_buf_append(out, &no, sizeof no) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_found(struct catalog *c, const struct record *r, struct lc_err *e)
{
	return run_missing(c, ST_MISSING_OVER, r, e);
}

static int
missing_create(struct catalog *c, uint16_t writer, const uint8_t id[32], uint64_t *no,
               struct lc_err *e)
{
	struct record r = {.type = RECORD_CHUNK, .writer = writer};
	sqlite3_stmt *st = sql_stmt(c, ST_MISSING_NEXT, e);
	int rc;

	if (st == NULL)
		return LC_EIO;
	rc = sql_first(c, st, e);
	*no = rc == 0 ? col_int(st, 0) + 1 : 0;
	sql_done(st);
	if (rc != 0)
		return rc;
	if (*no < (uint64_t)MISSING_FIRST)
		*no = (uint64_t)MISSING_FIRST;
	memcpy(r.id, id, sizeof r.id);
	rc = catalog_put_chunk(c, *no, &r, e);
	st = sql_stmt(c, ST_MISSING_PUT, e);
	if (rc != 0 || st == NULL)
		return LC_EIO;
	sql_blob(st, 1, id, 32);
	sql_int(st, 2, *no);
	sql_int(st, 3, writer);
	return sql_run(c, st, e);
}

int
catalog_missing(struct catalog *c, uint16_t writer, const uint8_t id[32], bool create, uint64_t *no,
                struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_MISSING_GET, e);
	if (st != NULL) {
		sql_blob(st, 1, id, 32);
		sql_int(st, 2, writer);
		rc = sql_first(c, st, e);
		if (rc == 0)
			*no = col_int(st, 0);
		sql_done(st);
		if (rc == LC_ENOENT && create)
			rc = missing_create(c, writer, id, no, e);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_any_missing(struct catalog *c, bool *any, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_MISSING_ANY, e);
	if (st != NULL) {
		rc = sql_first(c, st, e);
		sql_done(st);
	}
	sql_unlock(c);
	*any = rc == 0;
	return rc == LC_ENOENT ? 0 : rc;
}

int
catalog_missing_numbers(struct catalog *c, struct lc_buf *out, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_MISSING_NUMBERS, &st, e);

	while (sql_next(c, st, &rc, e)) {
		uint64_t no = col_int(st, 0);

		if (lc_buf_append(out, &no, sizeof no) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "catalog %s: out of memory", c->path);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_each_missing(struct catalog *c, int (*on)(void *arg, uint64_t no, const uint8_t id[32]),
                     void *arg, struct lc_err *e)
{
	sqlite3_stmt *st;
	uint8_t id[32];
	int rc = sql_start(c, ST_MISSING_EACH, &st, e);

	while (sql_next(c, st, &rc, e)) {
		col_copy(st, 1, id, sizeof id);
		rc = on(arg, col_int(st, 0), id);
	}
	sql_finish(c, st);
	return rc;
}

static int
run_healing(struct catalog *c, enum statement which, const struct record *r, uint64_t v,
            struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, which, e);

	if (st == NULL)
		return LC_EIO;
	sql_blob(st, 1, r->id, sizeof r->id);
	sql_int(st, 2, v);
	sql_int(st, 3, r->writer);
	return sql_run(c, st, e);
}

int
catalog_heal(struct catalog *c, const struct record *r, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_HEAL, e);
	if (st != NULL) {
		sql_blob(st, 1, r->id, sizeof r->id);
		sql_int(st, 2, r->segment);
		sql_int(st, 3, r->off);
		sql_int(st, 4, r->n);
		sql_int(st, 5, r->encoding);
		sql_int(st, 6, r->key);
		sql_int(st, 7, r->writer);
		rc = sql_run(c, st, e);
	}
	rc = rc != 0 ? rc : run_healing(c, ST_BASE_DROP, r, r->seq, e);
	rc = rc != 0 ? rc : run_healing(c, ST_BASE_COPY, r, r->seq, e);
	rc = rc != 0 ? rc : run_healing(c, ST_MISSING_DEL, r, r->encoding, e);
	sql_unlock(c);
	return rc;
}

static int
collect_healable(struct catalog *c, struct lc_buf *found, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, ST_HEALABLE, e);
	struct record r;
	int rc = 0;

	if (st == NULL)
		return LC_EIO;
	while (sql_next(c, st, &rc, e)) {
		chunk_columns(st, col_int(st, 7), &r);
		if (lc_buf_append(found, &r, sizeof r) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	sql_done(st);
	return rc;
}

int
catalog_heal_all(struct catalog *c, struct lc_err *e)
{
	struct lc_buf found = {0};
	struct record r;
	size_t i;
	int rc;

	sql_lock(c);
	rc = collect_healable(c, &found, e);
	for (i = 0; rc == 0 && i < found.n / sizeof r; i++) {
		memcpy(&r, found.p + i * sizeof r, sizeof r);
		rc = catalog_heal(c, &r, e);
	}
	sql_unlock(c);
	lc_buf_free(&found);
	return rc;
}

int
catalog_condemn(struct catalog *c, const struct catalog_place *places, size_t n, struct lc_err *e)
{
	sqlite3_stmt *st;
	size_t i;
	int rc;

	sql_lock(c);
	rc = sql_exec(c,
	              "CREATE TEMP TABLE IF NOT EXISTS bad(seg INT,off INT,PRIMARY KEY(seg,off)) "
	              "WITHOUT ROWID;DELETE FROM temp.bad",
	              e);
	for (i = 0; rc == 0 && i < n; i++) {
		st = sql_stmt(c, ST_BAD_PUT, e);
		if (st == NULL) {
			rc = LC_EIO;
			break;
		}
		sql_int(st, 1, places[i].segment);
		sql_int(st, 2, places[i].off);
		rc = sql_run(c, st, e);
	}
	st = rc != 0 ? NULL : sql_stmt(c, ST_BAD_CONDEMN, e);
	rc = st == NULL ? (rc != 0 ? rc : LC_EIO) : sql_run(c, st, e);
	/* What is made upon them can't be read any more than they. */
	st = rc != 0 ? NULL : sql_stmt(c, ST_BAD_DELTAS, e);
	rc = st == NULL ? (rc != 0 ? rc : LC_EIO) : sql_run(c, st, e);
	sql_unlock(c);
	return rc != 0 ? rc : catalog_heal_all(c, e);
}

/*
 * Whose is what, where a store has several writers (vouch.h).
 */
#include <string.h>

#include "store/catalog_internal.h"

int
catalog_put_vouch(struct catalog *c, uint16_t writer, const uint8_t id[32], uint64_t no,
                  struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_VOUCH_PUT, &st, e);

	if (rc == 0) {
		sql_int(st, 1, writer);
		sql_blob(st, 2, id, 32);
		sql_int(st, 3, no);
		rc = sql_run(c, st, e);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_vouch(struct catalog *c, uint16_t writer, const uint8_t id[32], uint64_t *no,
              struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_VOUCH_GET, &st, e);

	if (rc == 0) {
		sql_int(st, 1, writer);
		sql_blob(st, 2, id, 32);
		rc = sql_first(c, st, e);
		if (rc == 0)
			*no = col_int(st, 0);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_any_vouch(struct catalog *c, bool *any, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_VOUCH_ANY, &st, e);

	if (rc == 0)
		rc = sql_first(c, st, e);
	*any = rc == 0;
	sql_finish(c, st);
	return rc == LC_ENOENT ? 0 : rc;
}

int
catalog_set_vm_writer(struct catalog *c, const uint8_t vm[16], uint16_t writer, struct lc_err *e)
{
	return sql_put_id(c, ST_VM_WRITER_PUT, vm, 16, writer, e);
}

/* The writer of the row that a 16-byte id names, and its VM. */
static int
writer_of(struct catalog *c, enum statement which, const uint8_t id[16], uint8_t vm[16],
          uint16_t *writer, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, which, &st, e);

	if (rc == 0) {
		sql_blob(st, 1, id, 16);
		rc = sql_first(c, st, e);
		if (rc == 0) {
			*writer = (uint16_t)col_int(st, 0);
			col_copy(st, 1, vm, 16);
		}
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_vm_writer(struct catalog *c, const uint8_t vm[16], uint16_t *writer, struct lc_err *e)
{
	uint8_t same[16];

	return writer_of(c, ST_VM_WRITER, vm, same, writer, e);
}

int
catalog_line_writer(struct catalog *c, const uint8_t line[16], uint8_t vm[16], uint16_t *writer,
                    struct lc_err *e)
{
	return writer_of(c, ST_LINE_WRITER, line, vm, writer, e);
}

int
catalog_writers(struct catalog *c, uint16_t *list, size_t max, size_t *n, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_WRITERS, &st, e);

	*n = 0;
	if (rc == 0)
		sql_int(st, 1, max);
	while (*n < max && sql_next(c, st, &rc, e))
		list[(*n)++] = (uint16_t)col_int(st, 0);
	sql_finish(c, st);
	return rc;
}

/* LC_ENOENT: there is none. */
static int
number_of(struct catalog *c, enum statement which, uint16_t writer, uint64_t *out, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, which, &st, e);

	if (rc == 0) {
		sql_int(st, 1, writer);
		rc = sql_first(c, st, e);
		if (rc == 0)
			*out = col_int(st, 0);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_writer_lines(struct catalog *c, uint16_t writer, uint64_t *n, struct lc_err *e)
{
	return number_of(c, ST_WRITER_LINES, writer, n, e);
}

static int
add_to(struct catalog *c, enum statement which, uint16_t writer, uint64_t n, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, which, &st, e);

	if (rc == 0) {
		sql_int(st, 1, writer);
		sql_int(st, 2, n);
		rc = sql_run(c, st, e);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_add_bytes(struct catalog *c, uint16_t writer, uint64_t bytes, struct lc_err *e)
{
	return writer == 0 ? 0 : add_to(c, ST_WRITER_ADD, writer, bytes, e);
}

int
catalog_add_zeros(struct catalog *c, uint16_t writer, uint64_t rows, struct lc_err *e)
{
	return rows == 0 ? 0 : add_to(c, ST_ZEROS_ADD, writer, rows, e);
}

int
catalog_writer_zeros(struct catalog *c, uint16_t writer, uint64_t *rows, struct lc_err *e)
{
	return number_of(c, ST_ZEROS_OF, writer, rows, e);
}

int
catalog_writer_bytes(struct catalog *c, uint16_t writer, uint64_t *bytes, struct lc_err *e)
{
	return number_of(c, ST_WRITER_BYTES, writer, bytes, e);
}

int
catalog_writer_missing(struct catalog *c, uint16_t writer, uint64_t *n, struct lc_err *e)
{
	return number_of(c, ST_MISSING_OF, writer, n, e);
}

/* What is bound is bound; each row is n bytes. */
static int
take_ids(struct catalog *c, sqlite3_stmt *st, size_t n, struct lc_buf *out, struct lc_err *e)
{
	uint8_t id[32];
	int rc = 0;

	while (sql_next(c, st, &rc, e)) {
		col_copy(st, 0, id, n);
		if (lc_buf_append(out, id, n) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "catalog %s: out of memory", c->path);
	}
	return rc;
}

int
catalog_missing_above(struct catalog *c, uint16_t writer, const uint8_t above[32], size_t max,
                      struct lc_buf *ids, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_MISSING_ABOVE, &st, e);

	if (rc == 0) {
		sql_int(st, 1, writer);
		sql_blob(st, 2, above, 32);
		sql_int(st, 3, max);
		rc = take_ids(c, st, 32, ids, e);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_writer_restarts(struct catalog *c, uint16_t writer, size_t max, struct lc_buf *lines,
                        struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_LINES_RESTART, &st, e);

	if (rc == 0) {
		sql_int(st, 1, writer);
		sql_int(st, 2, max);
		rc = take_ids(c, st, 16, lines, e);
	}
	sql_finish(c, st);
	return rc;
}

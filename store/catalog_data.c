/*
 * What exists: chunks, VMs, lines, disks, and rows of points in the making.
 */
#include <inttypes.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/catalog_internal.h"

/* ---- chunks ---- */

int
catalog_put_chunk(struct catalog *c, uint64_t no, const struct record *r, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_CHUNK_PUT, e);
	if (st != NULL) {
		sql_int(st, 1, no);
		sql_blob(st, 2, r->id, sizeof r->id);
		sql_int(st, 3, r->segment);
		sql_int(st, 4, r->off);
		sql_int(st, 5, r->n);
		sql_int(st, 6, r->encoding);
		sql_int(st, 7, r->key);
		sql_int(st, 8, r->writer);
		rc = sql_run(c, st, e);
	}
	sql_unlock(c);
	return rc;
}

void
chunk_columns(sqlite3_stmt *st, uint64_t no, struct record *r)
{
	*r = (struct record){.type = RECORD_CHUNK, .seq = no};
	col_copy(st, 0, r->id, sizeof r->id);
	r->segment = col_int(st, 1);
	r->off = col_int(st, 2);
	r->n = (uint32_t)col_int(st, 3);
	r->encoding = (uint8_t)col_int(st, 4);
	r->key = (uint32_t)col_int(st, 5);
	r->writer = (uint16_t)col_int(st, 6);
}

int
catalog_find_chunk(struct catalog *c, uint64_t no, struct record *r, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_CHUNK_GET, e);
	if (st != NULL) {
		sql_int(st, 1, no);
		rc = sql_first(c, st, e);
		if (rc == 0)
			chunk_columns(st, no, r);
		sql_done(st);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_chunk(struct catalog *c, uint64_t no, struct record *r, struct lc_err *e)
{
	int rc = catalog_find_chunk(c, no, r, e);

	return rc != LC_ENOENT
	           ? rc
	           : lc_fail(e, LC_ENOENT, 0, "catalog %s: no chunk %" PRIu64, c->path, no);
}

int
looks_begin(struct catalog *c, bool *own, struct lc_err *e)
{
	*own = sqlite3_get_autocommit(c->db) != 0;
	return *own ? sql_exec(c, "BEGIN", e) : 0;
}

void
looks_end(struct catalog *c, bool own)
{
	if (own)
		(void)sqlite3_exec(c->db, "COMMIT", NULL, NULL, NULL);
}

/* Ascending, and hardly another between them: they are read in one go. */
static bool
are_near(const uint64_t *chunks, size_t n)
{
	size_t i;

	for (i = 1; i < n; i++) {
		if (chunks[i] <= chunks[i - 1])
			return false;
	}
	return n > 1 && chunks[n - 1] - chunks[0] < 2 * n;
}

static int
get_range(struct catalog *c, const uint64_t *chunks, size_t n, struct record *records)
{
	sqlite3_stmt *st;
	uint64_t no;
	size_t i = 0;
	int rc = sql_start(c, ST_CHUNK_RANGE, &st, NULL);

	if (rc == 0) {
		sql_int(st, 1, chunks[0]);
		sql_int(st, 2, chunks[n - 1]);
	}
	while (sql_next(c, st, &rc, NULL)) {
		for (no = col_int(st, 7); i < n && chunks[i] < no; i++)
			;
		if (i < n && chunks[i] == no)
			chunk_columns(st, no, &records[i]);
	}
	sql_finish(c, st);
	return rc;
}

static int
get_each(struct catalog *c, const uint64_t *chunks, size_t n, struct record *records)
{
	sqlite3_stmt *st;
	size_t i;
	bool own = false;
	int rc = sql_start(c, ST_CHUNK_GET, &st, NULL);

	rc = rc != 0 ? rc : looks_begin(c, &own, NULL);
	for (i = 0; rc == 0 && i < n; i++) {
		sql_int(st, 1, chunks[i]);
		if (sql_first(c, st, NULL) == 0)
			chunk_columns(st, chunks[i], &records[i]);
		(void)sqlite3_reset(st);
	}
	looks_end(c, own);
	sql_finish(c, st);
	return rc;
}

void
catalog_chunks(struct catalog *c, const uint64_t *chunks, size_t n, struct record *records)
{
	memset(records, 0, n * sizeof *records);
	if (!are_near(chunks, n) || get_range(c, chunks, n, records) != 0)
		(void)get_each(c, chunks, n, records);
}

int
catalog_bases_of(struct catalog *c, const uint64_t *chunks, size_t n, struct lc_buf *out,
                 struct lc_err *e)
{
	struct map_base b;
	sqlite3_stmt *st;
	size_t i;
	bool own = false;
	int rc = sql_start(c, ST_BASE_IDS, &st, e);

	rc = rc != 0 ? rc : looks_begin(c, &own, e);
	for (i = 0; rc == 0 && i < n; i++) {
		sql_int(st, 1, chunks[i]);
		while (sql_next(c, st, &rc, e)) {
			b.no = col_int(st, 0);
			col_copy(st, 1, b.id, sizeof b.id);
			if (lc_buf_append(out, &b, sizeof b) != 0)
				rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
		}
		(void)sqlite3_reset(st);
	}
	looks_end(c, own);
	sql_finish(c, st);
	return rc;
}

int
catalog_chunk_ids(struct catalog *c, const uint64_t *chunks, uint32_t n, uint8_t (*ids)[32],
                  struct lc_err *e)
{
	sqlite3_stmt *st;
	uint32_t i;
	bool own = false;
	int rc = sql_start(c, ST_CHUNK_ID, &st, e);

	rc = rc != 0 ? rc : looks_begin(c, &own, e);
	for (i = 0; rc == 0 && i < n; i++) {
		if (chunks[i] == 0) {
			memset(ids[i], 0, 32);
			continue;
		}
		sql_int(st, 1, chunks[i]);
		rc = sql_first(c, st, e);
		if (rc == 0)
			col_copy(st, 0, ids[i], 32);
		else if (rc == LC_ENOENT)
			rc = lc_fail(e, LC_ENOENT, 0, "catalog %s: no chunk %" PRIu64, c->path,
			             chunks[i]);
		(void)sqlite3_reset(st);
	}
	looks_end(c, own);
	sql_finish(c, st);
	return rc;
}

int
catalog_last_chunks(struct catalog *c, unsigned n, void (*on)(void *arg, const struct record *r),
                    void *arg, struct lc_err *e)
{
	struct record r = {.type = RECORD_CHUNK};
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_CHUNK_LAST, &st, e);

	if (rc == 0) {
		sql_int(st, 1, (uint64_t)MISSING_FIRST);
		sql_int(st, 2, n);
	}
	while (sql_next(c, st, &rc, e)) {
		r.seq = col_int(st, 0);
		r.segment = col_int(st, 1);
		r.off = col_int(st, 2);
		r.n = (uint32_t)col_int(st, 3);
		on(arg, &r);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_each_chunk(struct catalog *c, uint64_t above,
                   int (*on)(void *arg, uint64_t no, uint16_t writer, const uint8_t id[32]),
                   void *arg, struct lc_err *e)
{
	sqlite3_stmt *st;
	uint8_t id[32];
	int rc = sql_start(c, ST_CHUNK_EACH, &st, e);

	if (rc == 0)
		sql_int(st, 1, above);
	while (sql_next(c, st, &rc, e)) {
		col_copy(st, 1, id, sizeof id);
		rc = on(arg, col_int(st, 0), (uint16_t)col_int(st, 2), id);
	}
	sql_finish(c, st);
	return rc;
}

/* ---- VMs, lines, disks ---- */

static int
put_two(struct catalog *c, enum statement which, struct lc_span a, struct lc_span b,
        struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, which, e);
	if (st != NULL) {
		sql_blob(st, 1, a.p, a.n);
		sql_blob(st, 2, b.p, b.n);
		rc = sql_run(c, st, e);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_put_vm(struct catalog *c, const uint8_t id[16], struct lc_span sealed, struct lc_err *e)
{
	return put_two(c, ST_VM_PUT, (struct lc_span){id, 16}, sealed, e);
}

int
catalog_put_line(struct catalog *c, const uint8_t id[16], const uint8_t vm[16], uint64_t order,
                 struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_LINE_PUT, e);
	if (st != NULL) {
		sql_blob(st, 1, id, 16);
		sql_blob(st, 2, vm, 16);
		sql_int(st, 3, order);
		rc = sql_run(c, st, e);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_each_vm(struct catalog *c,
                int (*on)(void *arg, const struct catalog_vm *vm, struct lc_err *e), void *arg,
                struct lc_err *e)
{
	sqlite3_stmt *st;
	struct catalog_vm vm;
	int rc = sql_start(c, ST_VM_EACH, &st, e);

	while (sql_next(c, st, &rc, e)) {
		col_copy(st, 0, vm.id, sizeof vm.id);
		vm.sealed = (struct lc_span){sqlite3_column_blob(st, 1),
		                             (size_t)sqlite3_column_bytes(st, 1)};
		col_copy(st, 2, vm.line, sizeof vm.line);
		rc = on(arg, &vm, e);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_each_line_vm(struct catalog *c,
                     int (*on)(void *arg, const uint8_t line[16], const uint8_t vm[16],
                               uint16_t writer, struct lc_span sealed, struct lc_err *e),
                     void *arg, struct lc_err *e)
{
	uint8_t line[16], vm[16];
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_LINE_VMS, &st, e);

	while (sql_next(c, st, &rc, e)) {
		col_copy(st, 0, line, sizeof line);
		col_copy(st, 1, vm, sizeof vm);
		rc = on(arg, line, vm, (uint16_t)col_int(st, 3),
		        (struct lc_span){sqlite3_column_blob(st, 2),
		                         (size_t)sqlite3_column_bytes(st, 2)},
		        e);
	}
	sql_finish(c, st);
	return rc;
}

int
catalog_restart(struct catalog *c, const uint8_t line[16], bool on, struct lc_err *e)
{
	return sql_put_id(c, ST_LINE_RESTART, line, 16, on, e);
}

int
catalog_put_restarted(struct catalog *c, const struct catalog_place *place, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_RESTARTED_PUT, e);
	if (st != NULL) {
		sql_int(st, 1, place->segment);
		sql_int(st, 2, place->off);
		rc = sql_run(c, st, e);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_restarted(struct catalog *c, const struct catalog_place *place, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_RESTARTED_GET, e);
	if (st != NULL) {
		sql_int(st, 1, place->segment);
		sql_int(st, 2, place->off);
		rc = sql_first(c, st, e);
		sql_done(st);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_restarts(struct catalog *c, const uint8_t line[16], bool *on, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	*on = false;
	sql_lock(c);
	st = sql_stmt(c, ST_LINE_RESTARTS, e);
	if (st != NULL) {
		sql_blob(st, 1, line, 16);
		rc = sql_first(c, st, e);
		*on = rc == 0 && col_int(st, 0) != 0;
		sql_done(st);
	}
	sql_unlock(c);
	return rc == LC_ENOENT ? 0 : rc;
}

int
catalog_each_line(struct catalog *c, int (*on)(void *arg, const uint8_t id[16], struct lc_err *e),
                  void *arg, struct lc_err *e)
{
	struct lc_buf ids = {0};
	sqlite3_stmt *st;
	uint8_t id[16];
	int rc = sql_start(c, ST_LINE_EACH, &st, e);
	size_t i;

	/* Copied first: what is done with a line may need the same tables. */
	while (sql_next(c, st, &rc, e)) {
		col_copy(st, 0, id, sizeof id);
		if (lc_buf_append(&ids, id, sizeof id) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	sql_finish(c, st);
	for (i = 0; rc == 0 && i < ids.n; i += sizeof id)
		rc = on(arg, ids.p + i, e);
	lc_buf_free(&ids);
	return rc;
}

int
catalog_disk(struct catalog *c, const uint8_t line[16], const uint8_t disk[16], bool create,
             uint64_t *no, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_DISK_GET, e);
	if (st != NULL) {
		sql_blob(st, 1, line, 16);
		sql_blob(st, 2, disk, 16);
		rc = sql_first(c, st, e);
		if (rc == 0)
			*no = col_int(st, 0);
		sql_done(st);
		if (rc == LC_ENOENT && create) {
			/* Its line may be known later, from a commit, or never, where that is
			 * lost. */
			st = sql_stmt(c, ST_LINE_ADD, e);
			if (st != NULL) {
				sql_blob(st, 1, line, 16);
				rc = sql_run(c, st, e);
			} else {
				rc = LC_EIO;
			}
			rc = rc != 0 ? rc
			             : put_two(c, ST_DISK_PUT, (struct lc_span){line, 16},
			                       (struct lc_span){disk, 16}, e);
			*no = (uint64_t)sqlite3_last_insert_rowid(c->db);
		}
	}
	sql_unlock(c);
	return rc;
}

/* ---- points in the making ---- */

int
catalog_gen(struct catalog *c, const uint8_t point[16], bool create, uint64_t *gen,
            struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_GEN_GET, e);
	if (st != NULL) {
		sql_blob(st, 1, point, 16);
		rc = sql_first(c, st, e);
		if (rc == 0)
			*gen = col_int(st, 0);
		sql_done(st);
	}
	if (rc == LC_ENOENT && create) {
		st = sql_stmt(c, ST_GEN_NEXT, e);
		rc = st == NULL ? LC_EIO : sql_first(c, st, e);
		if (rc == 0) {
			*gen = col_int(st, 0);
			sql_done(st);
			/* Never reuse a number, also when its point was dropped. */
			rc = meta_set_int(c, "max_gen", *gen, e);
		}
		st = rc != 0 ? NULL : sql_stmt(c, ST_GEN_PUT, e);
		rc = rc == 0 && st == NULL ? LC_EIO : rc;
		if (st != NULL) {
			sql_int(st, 1, *gen);
			sql_blob(st, 2, point, 16);
			rc = sql_run(c, st, e);
		}
	}
	sql_unlock(c);
	return rc;
}

int
catalog_gen_state(struct catalog *c, uint64_t gen, uint8_t sum[32], uint64_t *rows,
                  struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_GEN_STATE, e);
	if (st != NULL) {
		sql_int(st, 1, gen);
		rc = sql_first(c, st, e);
		if (rc == 0) {
			col_copy(st, 0, sum, 32);
			*rows = col_int(st, 1);
		}
		sql_done(st);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_set_gen_state(struct catalog *c, uint64_t gen, const uint8_t sum[32], uint64_t rows,
                      struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_GEN_SET, e);
	if (st != NULL) {
		sql_int(st, 1, gen);
		sql_blob(st, 2, sum, 32);
		sql_int(st, 3, rows);
		rc = sql_run(c, st, e);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_put_rows(struct catalog *c, uint64_t gen, uint64_t disk, const struct map_row *rows,
                 size_t n, struct lc_err *e)
{
	sqlite3_stmt *st;
	size_t i;
	int rc = 0;

	sql_lock(c);
	st = sql_stmt(c, ST_ROW_PUT, e);
	if (st == NULL)
		rc = LC_EIO;
	for (i = 0; rc == 0 && i < n; i++) {
		sql_int(st, 1, gen);
		sql_int(st, 2, disk);
		sql_int(st, 3, rows[i].window);
		sql_int(st, 4, rows[i].chunk);
		rc = sql_run(c, st, e);
	}
	sql_unlock(c);
	return rc;
}

int
delete_rows(struct catalog *c, uint64_t gen, struct lc_err *e)
{
	int rc = sql_run1(c, ST_RECENT_DEL, gen, e);

	return rc != 0 ? rc : sql_run1(c, ST_LONG_DEL, gen, e);
}

int
catalog_discard(struct catalog *c, const uint8_t point[16], struct lc_err *e)
{
	uint64_t gen;
	int rc;

	sql_lock(c);
	rc = catalog_gen(c, point, false, &gen, e);
	if (rc == LC_ENOENT)
		rc = 0;
	else if (rc == 0) {
		rc = delete_rows(c, gen, e);
		rc = rc != 0 ? rc : sql_run1(c, ST_GEN_DEL, gen, e);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_purge(struct catalog *c, struct lc_err *e)
{
	sqlite3_stmt *st;
	uint64_t gen;
	int rc = 0;

	sql_lock(c);
	while (rc == 0) {
		st = sql_stmt(c, ST_GEN_EACH, e);
		rc = st == NULL ? LC_EIO : sql_first(c, st, e);
		if (rc == 0) {
			gen = col_int(st, 0);
			sql_done(st);
			rc = delete_rows(c, gen, e);
			rc = rc != 0 ? rc : sql_run1(c, ST_GEN_DEL, gen, e);
		} else if (st != NULL) {
			sql_done(st);
		}
	}
	sql_unlock(c);
	return rc == LC_ENOENT ? 0 : rc;
}

/*
 * The map of a point; damage, who needs a chunk, and figures.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/catalog_internal.h"
#include "store/point.h"

/* ---- the map ---- */

static int
map_long(struct catalog *c, uint64_t gen, uint64_t disk, uint64_t first_window, uint32_t n,
         uint64_t *gens, uint64_t *chunks, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, ST_MAP_LONG, e);
	int rc = 0;

	if (st == NULL)
		return LC_EIO;
	sql_int(st, 1, disk);
	sql_int(st, 2, first_window);
	sql_int(st, 3, first_window + n);
	sql_int(st, 4, gen);
	while (sql_next(c, st, &rc, e)) {
		uint64_t i = col_int(st, 0) - first_window;

		gens[i] = col_int(st, 1);
		chunks[i] = col_int(st, 2);
	}
	sql_done(st);
	return rc;
}

/* Of all recent points up to p at once, the oldest first. */
static int
map_recent(struct catalog *c, const struct catalog_point *p, uint64_t disk, uint64_t first_window,
           uint32_t n, uint64_t *gens, uint64_t *chunks, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, ST_MAP_RECENT, e);
	int rc = 0;

	if (st == NULL)
		return LC_EIO;
	sql_blob(st, 1, p->line, 16);
	sql_int(st, 2, p->gen);
	sql_int(st, 3, disk);
	sql_int(st, 4, first_window);
	sql_int(st, 5, first_window + n);
	while (sql_next(c, st, &rc, e)) {
		uint64_t gen = col_int(st, 0), i = col_int(st, 1) - first_window;

		if (gen >= gens[i]) {
			gens[i] = gen;
			chunks[i] = col_int(st, 2);
		}
	}
	sql_done(st);
	return rc;
}

int
map_at(struct catalog *c, const struct catalog_point *p, uint64_t disk, uint64_t first_window,
       uint32_t n, uint64_t *chunks, struct lc_err *e)
{
	uint64_t *gens = lc_alloc_array(n, sizeof *gens);
	int rc;

	if (gens == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "map: out of memory");
	memset(chunks, 0, n * sizeof *chunks);
	rc = map_long(c, p->gen, disk, first_window, n, gens, chunks, e);
	rc = rc != 0 ? rc : map_recent(c, p, disk, first_window, n, gens, chunks, e);
	lc_free(gens);
	return rc;
}

int
map_find(struct catalog *c, const uint8_t point[16], const uint8_t disk[16],
         struct catalog_point *p, uint64_t *no, struct lc_err *e)
{
	int rc = catalog_point(c, point, copy_point, p, e);

	if (rc == LC_ENOENT)
		return lc_fail(e, LC_ENOENT, 0, "the restore point was dropped");
	rc = rc != 0 ? rc : catalog_disk(c, p->line, disk, false, no, e);
	if (rc == LC_ENOENT) {
		*no = NO_DISK;
		rc = 0;
	}
	return rc;
}

int
catalog_map(struct catalog *c, const uint8_t point[16], const uint8_t disk[16],
            uint64_t first_window, uint32_t n, uint64_t *chunks, struct lc_err *e)
{
	struct catalog_point p;
	uint64_t no = NO_DISK;
	bool own;
	int rc;

	sql_lock(c);
	rc = looks_begin(c, &own, e);
	rc = rc != 0 ? rc : map_find(c, point, disk, &p, &no, e);
	if (rc == 0 && no == NO_DISK)
		memset(chunks, 0, n * sizeof *chunks);
	else if (rc == 0)
		rc = map_at(c, &p, no, first_window, n, chunks, e);
	looks_end(c, own);
	sql_unlock(c);
	return rc;
}

/* ---- the rows of a point itself ---- */

static int
rows_behind(struct catalog *c, sqlite3_stmt *st, uint64_t gen, uint64_t *disk, uint64_t *window,
            size_t n, struct map_record *out, struct lc_err *e)
{
	int rc = 0;

	if (st == NULL)
		return LC_EIO;
	sql_int(st, 1, gen);
	sql_int(st, 2, *disk);
	sql_int(st, 3, *window);
	sql_int(st, 4, n);
	while (out->n < n && sql_next(c, st, &rc, e)) {
		struct map_row *row = &out->rows[out->n];

		if (out->n > 0 && col_int(st, 0) != *disk)
			break; /* the next call's */
		*disk = col_int(st, 0);
		*window = row->window = col_int(st, 1);
		row->chunk = col_int(st, 2);
		col_copy(st, 3, row->id, sizeof row->id);
		out->n++;
	}
	sql_done(st);
	st = rc != 0 || out->n == 0 ? NULL : sql_stmt(c, ST_DISK_NAME, e);
	if (st != NULL) {
		sql_int(st, 1, *disk);
		rc = sql_first(c, st, e);
		col_copy(st, 0, out->disk, 16);
		sql_done(st);
	}
	return rc;
}

int
catalog_rows(struct catalog *c, const uint8_t point[16], uint64_t *disk, uint64_t *window, size_t n,
             struct map_record *out, struct lc_err *e)
{
	struct catalog_point p;
	int rc;

	out->n = 0;
	if (n > MAP_ROWS_MAX)
		n = MAP_ROWS_MAX;
	sql_lock(c);
	rc = catalog_point(c, point, copy_point, &p, e);
	if (rc == LC_ENOENT)
		(void)lc_fail(e, LC_ENOENT, 0, "the restore point was dropped");
	if (rc == 0)
		rc = rows_behind(c, sql_stmt(c, p.recent ? ST_ROWS_RECENT : ST_ROWS_LONG, e), p.gen,
		                 disk, window, n, out, e);
	sql_unlock(c);
	return rc;
}

int
catalog_rows_made(struct catalog *c, const uint8_t point[16], uint64_t *disk, uint64_t *window,
                  size_t n, struct map_record *out, struct lc_err *e)
{
	uint64_t gen;
	int rc;

	out->n = 0;
	if (n > MAP_ROWS_MAX)
		n = MAP_ROWS_MAX;
	sql_lock(c);
	rc = catalog_gen(c, point, false, &gen, e);
	if (rc == 0)
		rc = rows_behind(c, sql_stmt(c, ST_ROWS_RECENT, e), gen, disk, window, n, out, e);
	sql_unlock(c);
	return rc == LC_ENOENT ? 0 : rc;
}

/* ---- damage, figures ---- */

int
catalog_put_damage(struct catalog *c, uint64_t segment, uint64_t off, uint64_t n, int type,
                   struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, ST_DAMAGE_PUT, e);
	if (st != NULL) {
		sql_int(st, 1, segment);
		sql_int(st, 2, off);
		sql_int(st, 3, n);
		sql_int(st, 4, (uint64_t)type);
		rc = sql_run(c, st, e);
	}
	sql_unlock(c);
	return rc;
}

int
catalog_chunks_at(struct catalog *c, uint64_t segment, uint64_t off, uint64_t n,
                  int (*on)(void *arg, uint64_t no, struct lc_err *e), void *arg, struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = sql_start(c, ST_CHUNK_AT, &st, e);

	if (rc == 0) {
		sql_int(st, 1, segment);
		sql_int(st, 2, off);
		sql_int(st, 3, off + n);
	}
	while (sql_next(c, st, &rc, e))
		rc = on(arg, col_int(st, 0), e);
	sql_finish(c, st);
	return rc;
}

/* A window of a disk in which a chunk is at some point. */
struct user {
	uint64_t disk, window, chunk;
};

static int
collect_users(struct catalog *c, uint64_t chunk, struct lc_buf *out, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, ST_USERS, e);
	int rc = 0;

	if (st == NULL)
		return LC_EIO;
	sql_int(st, 1, chunk);
	while (sql_next(c, st, &rc, e)) {
		struct user u = {col_int(st, 0), col_int(st, 1), col_int(st, 2)};

		if (lc_buf_append(out, &u, sizeof u) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	sql_done(st);
	return rc;
}

struct find_users {
	struct catalog *c;
	struct user u;
	uint8_t disk[16];
	int (*on)(void *arg, const uint8_t disk[16], const struct catalog_point *p,
	          struct lc_err *e);
	void *arg;
};

static int
user_point(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	struct find_users *f = arg;
	uint64_t chunk = 0;
	int rc;

	if ((p->flags & POINT_SEED) != 0)
		return 0;
	rc = map_at(f->c, p, f->u.disk, f->u.window, 1, &chunk, e);
	if (rc != 0 || chunk != f->u.chunk)
		return rc;
	return f->on(f->arg, f->disk, p, e);
}

int
catalog_users(struct catalog *c, uint64_t chunk,
              int (*on)(void *arg, const uint8_t disk[16], const struct catalog_point *p,
                        struct lc_err *e),
              void *arg, struct lc_err *e)
{
	struct find_users f = {.c = c, .on = on, .arg = arg};
	struct lc_buf users = {0};
	uint8_t line[16];
	sqlite3_stmt *st;
	size_t i;
	int rc;

	sql_lock(c);
	rc = collect_users(c, chunk, &users, e);
	for (i = 0; rc == 0 && i < users.n / sizeof f.u; i++) {
		memcpy(&f.u, users.p + i * sizeof f.u, sizeof f.u);
		st = sql_stmt(c, ST_DISK_NAME, e);
		if (st == NULL) {
			rc = LC_EIO;
			break;
		}
		sql_int(st, 1, f.u.disk);
		rc = sql_first(c, st, e);
		if (rc == 0) {
			col_copy(st, 0, f.disk, 16);
			col_copy(st, 1, line, 16);
		}
		sql_done(st);
		if (rc == 0)
			rc = catalog_each_point(c, line, user_point, &f, e);
	}
	sql_unlock(c);
	lc_buf_free(&users);
	return rc;
}

int
catalog_newest(struct catalog *c, const uint8_t line[16],
               int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
               struct lc_err *e)
{
	uint64_t found;
	int rc = each_point(c, ST_POINT_NEWEST, line, on, arg, &found, e);

	return rc == 0 && found == 0 ? LC_ENOENT : rc;
}

int
catalog_void_after(struct catalog *c, const uint8_t line[16], const uint8_t base[16], bool *known,
                   struct lc_err *e)
{
	static const uint8_t none[16];
	struct catalog_point p;
	int rc = 0;

	*known = true;
	sql_lock(c);
	if (memcmp(base, none, 16) != 0) {
		rc = catalog_point(c, base, copy_point, &p, e);
		*known = rc == 0 && memcmp(p.line, line, 16) == 0;
	}
	while (*known) {
		rc = catalog_newest(c, line, copy_point, &p, e);
		if (rc != 0 || memcmp(p.id, base, 16) == 0)
			break;
		rc = delete_rows(c, p.gen, e);
		rc = rc != 0 ? rc : sql_run1(c, ST_POINT_DEL, p.gen, e);
		if (rc != 0)
			break;
	}
	sql_unlock(c);
	return rc == LC_ENOENT ? 0 : rc;
}

int
catalog_counts(struct catalog *c, struct catalog_counts *out, struct lc_err *e)
{
	char peers[2] = "";
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	(void)catalog_peers(c, peers, sizeof peers, NULL);
	st = sql_stmt(c, ST_COUNTS, e);
	if (st != NULL) {
		/* Only where a replica has something can anything be dropped; to look for it reads
		 * every row. */
		sql_int(st, 1, peers[0] != '\0');
		rc = sql_first(c, st, e);
		if (rc == 0) {
			out->chunks = col_int(st, 0);
			out->points = col_int(st, 1);
			out->vms = col_int(st, 2);
			out->rows = col_int(st, 3);
			out->damaged = col_int(st, 4);
			out->dropped = col_int(st, 5);
		}
		sql_done(st);
	}
	sql_unlock(c);
	return rc;
}

/*
 * Tables (all of them a fold over the log):
 *
 *   chunk(no, id, seg, off, len, enc, key)   no = sequence of its record; seg 0: bytes missing;
 *                                            off 0: bytes dropped
 *   thin(seg)                                segments of which that was taken up
 *   base(no, base)                           bases of a chunk that is a delta
 *   missing(id, no)                          ids whose bytes are not there
 *   vm, line, disk                           what exists; disk numbers are per line; a line that
 *                                            is a fork has its parent, and the ord of its base
 *   point(gen, ord, id, line, flags, recent, rows, commit_ns, entry)
 *   gen(gen, id, rows, sum)                  points in the making
 *   map_recent(gen, disk, window, chunk)     ordered by generation
 *   map_long(disk, window, gen, chunk)       ordered by window, with an index by generation
 *   zeros(writer, rows)                      of its maps, that say "all zero", ever
 *   damage(seg, off, len, type)
 *
 * Dropping a point P whose next kept point is N: only one of the two sets of rows has to move,
 * since no kept point of the line lies between them.  Either P's rows that N lacks go under N's
 * generation, or, where N has fewer rows, N's go over P's and N takes P's generation.  So dropping
 * the oldest point of a large disk costs what the next one changed, not what the disk holds.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/catalog_internal.h"

#define LAYOUT "6"

static const char *const statement_sql[] = {
#define X(name, sql) [ST_##name] = (sql),
    STATEMENTS(X)
#undef X
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY,value) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS chunk(no INTEGER PRIMARY KEY,id BLOB,seg INT,off INT,len INT,"
    "enc INT,key INT,writer INT DEFAULT 0);"
    "CREATE TABLE IF NOT EXISTS writer(no INTEGER PRIMARY KEY,bytes INT);"
    "CREATE TABLE IF NOT EXISTS zeros(writer INTEGER PRIMARY KEY,rows INT);"
    "CREATE TABLE IF NOT EXISTS vouch(writer INT,id BLOB,no INT,PRIMARY KEY(writer,id)) "
    "WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS base(no INT,base INT,PRIMARY KEY(no,base)) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS base_base ON base(base);"
    "CREATE TABLE IF NOT EXISTS missing(id BLOB,writer INT,no INT,"
    "PRIMARY KEY(id,writer,no)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS vm(no INTEGER PRIMARY KEY,id BLOB UNIQUE,sealed BLOB,"
    "writer INT DEFAULT 0);"
    "CREATE TABLE IF NOT EXISTS line(no INTEGER PRIMARY KEY,id BLOB UNIQUE,vm INT,ord INT "
    "DEFAULT 0,parent INT,fork INT,restart INT DEFAULT 0);"
    "CREATE TABLE IF NOT EXISTS restarted(seg INT,off INT,PRIMARY KEY(seg,off)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS thin(seg INTEGER PRIMARY KEY);"
    "CREATE TABLE IF NOT EXISTS disk(no INTEGER PRIMARY KEY,line INT,id BLOB,UNIQUE(line,id));"
    "CREATE TABLE IF NOT EXISTS point(gen INTEGER PRIMARY KEY,ord INT,id BLOB UNIQUE,line INT,"
    "flags INT,recent INT,rows INT,commit_ns INT,entry BLOB);"
    "CREATE INDEX IF NOT EXISTS point_line ON point(line,gen);"
    "CREATE INDEX IF NOT EXISTS point_recent ON point(line,gen) WHERE recent=1;"
    "CREATE TABLE IF NOT EXISTS gen(gen INTEGER PRIMARY KEY,id BLOB UNIQUE,rows INT,sum BLOB);"
    "CREATE TABLE IF NOT EXISTS map_recent(gen INT,disk INT,window INT,chunk INT,"
    "PRIMARY KEY(gen,disk,window)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS map_long(disk INT,window INT,gen INT,chunk INT,"
    "PRIMARY KEY(disk,window,gen)) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS map_long_gen ON map_long(gen);"
    "CREATE TABLE IF NOT EXISTS damage(seg INT,off INT,len INT,type INT,PRIMARY KEY(seg,off))"
    " WITHOUT ROWID;";

/* ---- SQLite at arm's length ---- */

int
sql_fail(struct catalog *c, int rc, struct lc_err *e)
{
	enum lc_code code = LC_EIO;
	int sys = 0;

	switch (rc & 0xff) {
	case SQLITE_NOMEM:
		code = LC_ENOMEM;
		break;
	case SQLITE_FULL:
		code = LC_ENOSPC;
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		code = LC_EBUSY;
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		c->damaged = true;
		return lc_fail(e, LC_EIO, 0,
		               "catalog %s is damaged (make it again: locum store rebuild): %s",
		               c->path, sqlite3_errmsg(c->db));
	case SQLITE_CONSTRAINT: /* a record that contradicts what is there */
		code = LC_ECORRUPT;
		break;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		code = LC_EACCES;
		break;
	case SQLITE_IOERR: /* "disk I/O error" may be no more than a full disk */
	case SQLITE_CANTOPEN:
		sys = sqlite3_system_errno(c->db);
		if (sys == ENOSPC || sys == EDQUOT)
			code = LC_ENOSPC;
		break;
	default:
		break;
	}
	return lc_fail(e, code, sys, "catalog %s: %s", c->path, sqlite3_errmsg(c->db));
}

/* A statement ready for binding; prepared once.  The mutex is held. */
sqlite3_stmt *
sql_stmt(struct catalog *c, enum statement which, struct lc_err *e)
{
	if (c->st[which] == NULL) {
		int rc = sqlite3_prepare_v3(c->db, statement_sql[which], -1,
		                            SQLITE_PREPARE_PERSISTENT, &c->st[which], NULL);

		if (rc != SQLITE_OK) {
			(void)sql_fail(c, rc, e);
			return NULL;
		}
	}
	return c->st[which];
}

void
sql_int(sqlite3_stmt *st, int i, uint64_t v)
{
	(void)sqlite3_bind_int64(st, i, (sqlite3_int64)v);
}

void
sql_blob(sqlite3_stmt *st, int i, const void *p, size_t n)
{
	(void)sqlite3_bind_blob64(st, i, p == NULL ? "" : p, n, SQLITE_STATIC);
}

void
sql_done(sqlite3_stmt *st)
{
	if (st == NULL)
		return;
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
}

/* Run a statement that returns nothing. */
int
sql_run(struct catalog *c, sqlite3_stmt *st, struct lc_err *e)
{
	int rc = sqlite3_step(st);

	if (rc != SQLITE_DONE && rc != SQLITE_ROW)
		rc = sql_fail(c, rc, e);
	else
		rc = 0;
	sql_done(st);
	return rc;
}

int
sql_run1(struct catalog *c, enum statement which, uint64_t a, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, which, e);

	if (st == NULL)
		return LC_EIO;
	sql_int(st, 1, a);
	return sql_run(c, st, e);
}

int
sql_put_id(struct catalog *c, enum statement which, const void *id, size_t n, uint64_t v,
           struct lc_err *e)
{
	sqlite3_stmt *st;
	int rc = LC_EIO;

	sql_lock(c);
	st = sql_stmt(c, which, e);
	if (st != NULL) {
		sql_blob(st, 1, id, n);
		sql_int(st, 2, v);
		rc = sql_run(c, st, e);
	}
	sql_unlock(c);
	return rc;
}

/* First row: 0; no row: LC_ENOENT without a message; else the failure.  The caller ends with
 * sql_done(). */
int
sql_first(struct catalog *c, sqlite3_stmt *st, struct lc_err *e)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 0;
	return rc == SQLITE_DONE ? LC_ENOENT : sql_fail(c, rc, e);
}

void
sql_lock(struct catalog *c)
{
	(void)pthread_mutex_lock(&c->lock);
}

void
sql_unlock(struct catalog *c)
{
	(void)pthread_mutex_unlock(&c->lock);
}

int
sql_start(struct catalog *c, enum statement which, sqlite3_stmt **st, struct lc_err *e)
{
	sql_lock(c);
	*st = sql_stmt(c, which, e);
	return *st == NULL ? LC_EIO : 0;
}

void
sql_finish(struct catalog *c, sqlite3_stmt *st)
{
	sql_done(st);
	sql_unlock(c);
}

bool
sql_next(struct catalog *c, sqlite3_stmt *st, int *rc, struct lc_err *e)
{
	int step = *rc == 0 ? sqlite3_step(st) : SQLITE_DONE;

	if (step != SQLITE_ROW && step != SQLITE_DONE)
		*rc = sql_fail(c, step, e);
	return step == SQLITE_ROW;
}

uint64_t
col_int(sqlite3_stmt *st, int i)
{
	return (uint64_t)sqlite3_column_int64(st, i);
}

void
col_copy(sqlite3_stmt *st, int i, void *dst, size_t n)
{
	const void *p = sqlite3_column_blob(st, i);

	if (p != NULL && (size_t)sqlite3_column_bytes(st, i) == n)
		memcpy(dst, p, n);
	else
		memset(dst, 0, n);
}

int
sql_exec(struct catalog *c, const char *sql, struct lc_err *e)
{
	int rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? 0 : sql_fail(c, rc, e);
}

/* ---- opening ---- */

/* A path as a URI that SQLite takes: three characters mean something else there. */
static char *
as_uri(const char *path)
{
	struct lc_buf b = {0};
	const char *p;
	int rc = lc_buf_printf(&b, "file:");

	for (p = path; rc == 0 && *p != '\0'; p++)
		rc = lc_buf_printf(&b, strchr("%?#", *p) == NULL ? "%c" : "%%%02X", *p);
	rc = rc != 0 ? rc : lc_buf_printf(&b, "?immutable=1");
	if (rc != 0)
		lc_buf_free(&b);
	return (char *)b.p;
}

/* What stands in the WAL is not seen without it. */
static bool
wal_pending(const char *path)
{
	char *wal = lc_asprintf("%s-wal", path);
	struct stat st;
	bool pending = wal == NULL || (stat(wal, &st) == 0 && st.st_size > 0);

	lc_free(wal);
	return pending;
}

/* The file before SQLite makes it, with the mode that it then gives to its helpers. */
static int
make_file(const char *path, struct lc_err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return lc_fail_errno(e, "catalog %s", path);
	fd_close(&fd);
	return 0;
}

static int
open_db(struct catalog *c, const struct catalog_opts *o, struct lc_err *e)
{
	int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, rc;
	char *uri = NULL;

	if (o->path == NULL) { /* in memory, and in a file without a name where it is large */
		flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
		rc = sqlite3_open_v2("", &c->db, flags, NULL);
	} else if (o->writable) {
		rc = make_file(o->path, e);
		if (rc != 0)
			return rc;
		flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
		rc = sqlite3_open_v2(o->path, &c->db, flags, NULL);
	} else if (access(o->path, F_OK) != 0) {
		return lc_fail(e, LC_ENOENT, 0, "catalog %s is not there", o->path);
	} else if (access(o->path, W_OK) == 0) { /* a reader shares the WAL with the owner */
		rc = sqlite3_open_v2(o->path, &c->db, flags | SQLITE_OPEN_READWRITE, NULL);
	} else if (wal_pending(o->path)) {
		return lc_fail(e, LC_ENOENT, 0, "catalog %s was not closed, and can't be here",
		               o->path);
	} else {
		uri = as_uri(o->path);
		rc = uri == NULL ? SQLITE_NOMEM
		                 : sqlite3_open_v2(uri, &c->db, flags | SQLITE_OPEN_READONLY, NULL);
		lc_free(uri);
	}
	return rc == SQLITE_OK ? 0 : sql_fail(c, rc, e);
}

int
meta_text(struct catalog *c, const char *key, char *dst, size_t n, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, ST_META_GET, e);
	const char *v;
	int rc;

	if (st == NULL)
		return LC_EIO;
	(void)sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	rc = sql_first(c, st, e);
	v = rc == 0 ? (const char *)sqlite3_column_text(st, 0) : NULL;
	(void)snprintf(dst, n, "%s", v == NULL ? "" : v);
	sql_done(st);
	return rc;
}

int
meta_set_text(struct catalog *c, const char *key, const char *value, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, ST_META_SET, e);

	if (st == NULL)
		return LC_EIO;
	(void)sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(st, 2, value, -1, SQLITE_STATIC);
	return sql_run(c, st, e);
}

static int
check_identity(struct catalog *c, const struct catalog_opts *o, struct lc_err *e)
{
	char want[33], have[64];
	int rc;

	(void)lc_hex(want, o->store_id, 16);
	rc = meta_text(c, "store", have, sizeof have, e);
	if (rc == LC_ENOENT && (o->writable || o->path == NULL)) {
		rc = meta_set_text(c, "store", want, e);
		return rc != 0 ? rc : meta_set_text(c, "layout", LAYOUT, e);
	}
	if (rc == 0 && strcmp(want, have) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "catalog %s is of another store", c->path);
	if (rc == 0)
		rc = meta_text(c, "layout", have, sizeof have, e);
	if (rc == LC_ENOENT || (rc == 0 && strcmp(have, LAYOUT) != 0))
		return lc_fail(e, LC_ECORRUPT, 0, "catalog %s has another layout", c->path);
	return rc;
}

int
catalog_open(const struct catalog_opts *o, struct catalog **out, struct lc_err *e)
{
	struct catalog *c = lc_alloc(sizeof *c);
	pthread_mutexattr_t attr;
	char pragma[160];
	int rc;

	if (c == NULL || (c->path = lc_strdup(o->path == NULL ? "in memory" : o->path)) == NULL) {
		lc_free(c);
		return lc_fail(e, LC_ENOMEM, 0, "catalog: out of memory");
	}
	(void)pthread_mutexattr_init(&attr);
	(void)pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	(void)pthread_mutex_init(&c->lock, &attr);
	(void)pthread_mutexattr_destroy(&attr);
	rc = open_db(c, o, e);
	if (rc == 0) {
		(void)sqlite3_busy_timeout(c->db, 10000);
		(void)snprintf(pragma, sizeof pragma,
		               "PRAGMA cache_size=-%llu;PRAGMA temp_store=MEMORY;",
		               (unsigned long long)(o->cache_bytes / 1024));
		rc = sql_exec(c, pragma, e);
	}
	if (rc == 0 && o->path != NULL && o->build)
		rc = sql_exec(c, "PRAGMA journal_mode=OFF;PRAGMA synchronous=OFF;", e);
	else if (rc == 0 && o->path != NULL && o->writable)
		rc = sql_exec(c, "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;", e);
	if (rc == 0 && (o->writable || o->path == NULL))
		rc = sql_exec(c, schema, e);
	if (rc == 0 && !o->writable && o->path != NULL)
		rc = sql_exec(c, "PRAGMA query_only=1", e);
	if (rc == 0)
		rc = check_identity(c, o, e);
	if (rc != 0) {
		if (c->damaged) {
			rc = LC_ECORRUPT;
			if (e != NULL)
				e->code = LC_ECORRUPT;
		}
		catalog_close(c);
		return rc;
	}
	*out = c;
	return 0;
}

bool
catalog_damaged(const struct catalog *c)
{
	return c->damaged;
}

void
catalog_close(struct catalog *c)
{
	size_t i;

	if (c == NULL)
		return;
	for (i = 0; i < NSTATEMENTS; i++)
		(void)sqlite3_finalize(c->st[i]);
	(void)sqlite3_close(c->db);
	(void)pthread_mutex_destroy(&c->lock);
	lc_free(c->path);
	lc_free(c);
}

int
catalog_begin(struct catalog *c, struct lc_err *e)
{
	int rc;

	sql_lock(c);
	rc = sql_exec(c, "BEGIN IMMEDIATE", e);
	if (rc != 0)
		sql_unlock(c);
	return rc;
}

int
catalog_commit(struct catalog *c, struct lc_err *e)
{
	int rc = sql_exec(c, "COMMIT", e);

	if (rc != 0)
		(void)sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
	sql_unlock(c);
	return rc;
}

void
catalog_rollback(struct catalog *c)
{
	(void)sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
	sql_unlock(c);
}

void
catalog_checkpoint(struct catalog *c)
{
	sql_lock(c);
	(void)sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	sql_unlock(c);
}

/* ---- position ---- */

static int
meta_int(struct catalog *c, const char *key, uint64_t *v, struct lc_err *e)
{
	char text[64], *end;
	int rc = meta_text(c, key, text, sizeof text, e);

	*v = 0;
	if (rc == LC_ENOENT)
		return 0;
	if (rc != 0)
		return rc;
	*v = strtoull(text, &end, 10);
	if (end == text || *end != '\0')
		rc = lc_fail(e, LC_ECORRUPT, 0, "catalog %s: bad %s", c->path, key);
	return rc;
}

int
meta_set_int(struct catalog *c, const char *key, uint64_t v, struct lc_err *e)
{
	sqlite3_stmt *st = sql_stmt(c, ST_META_SET, e);

	if (st == NULL)
		return LC_EIO;
	(void)sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	sql_int(st, 2, v);
	return sql_run(c, st, e);
}

int
catalog_position(struct catalog *c, struct catalog_position *p, struct lc_err *e)
{
	int rc;

	sql_lock(c);
	rc = meta_int(c, "segment", &p->segment, e);
	rc = rc != 0 ? rc : meta_int(c, "offset", &p->off, e);
	rc = rc != 0 ? rc : meta_int(c, "last", &p->last_off, e);
	rc = rc != 0 ? rc : meta_int(c, "seq", &p->last_seq, e);
	sql_unlock(c);
	return rc;
}

int
catalog_set_position(struct catalog *c, const struct catalog_position *p, struct lc_err *e)
{
	int rc;

	sql_lock(c);
	rc = meta_set_int(c, "segment", p->segment, e);
	rc = rc != 0 ? rc : meta_set_int(c, "offset", p->off, e);
	rc = rc != 0 ? rc : meta_set_int(c, "last", p->last_off, e);
	rc = rc != 0 ? rc : meta_set_int(c, "seq", p->last_seq, e);
	sql_unlock(c);
	return rc;
}

/**
 * catalog_internal: what the files of the catalog share: the statements, and SQLite at arm's
 * length.  Not for others.
 *
 * The functions here are called with the catalog's mutex held.
 */
#ifndef LOCUM_CATALOG_INTERNAL_H
#define LOCUM_CATALOG_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/catalog.h"

#define MISSING_FIRST (INT64_C(1) << 62)

#define STATEMENTS(X)                                                                              \
	X(META_GET, "SELECT value FROM meta WHERE key=?1")                                         \
	X(META_SET, "INSERT OR REPLACE INTO meta(key,value) VALUES(?1,?2)")                        \
	X(CHUNK_PUT, "INSERT OR REPLACE INTO chunk(no,id,seg,off,len,enc,key,writer) "             \
	             "VALUES(?1,?2,?3,?4,?5,?6,?7,?8)")                                            \
	X(CHUNK_GET, "SELECT id,seg,off,len,enc,key,writer FROM chunk WHERE no=?1")                \
	X(CHUNK_RANGE, "SELECT id,seg,off,len,enc,key,writer,no FROM chunk "                       \
	               "WHERE no BETWEEN ?1 AND ?2 ORDER BY no")                                   \
	X(CHUNK_PLACE, "SELECT seg,off,len,enc FROM chunk WHERE no=?1")                            \
	X(BASE_PLACES, "SELECT seg,off,len FROM chunk WHERE no IN "                                \
	               "(SELECT base FROM base WHERE no=?1)")                                      \
	X(CHUNK_ID, "SELECT id FROM chunk WHERE no=?1")                                            \
	X(CHUNK_EACH, "SELECT no,id,writer FROM chunk WHERE no>?1 AND seg>0 ORDER BY no")          \
	X(MISSING_GET, "SELECT no FROM missing WHERE id=?1 AND writer=?2 LIMIT 1")                 \
	X(MISSING_ANY, "SELECT 1 FROM missing LIMIT 1")                                            \
	X(MISSING_NUMBERS, "SELECT no FROM missing ORDER BY no")                                   \
	X(MISSING_OF, "SELECT count(DISTINCT id) FROM missing WHERE writer=?1")                    \
	X(MISSING_ABOVE, "SELECT DISTINCT id FROM missing WHERE writer=?1 AND id>?2 "              \
	                 "ORDER BY id LIMIT ?3")                                                   \
	X(MISSING_OF_ID, "SELECT no FROM missing WHERE id=?1 AND writer=?2")                       \
	X(MISSING_BASE, "SELECT 1 FROM base LEFT JOIN chunk ON chunk.no=base.base WHERE "          \
	                "base.no=?1 AND (chunk.no IS NULL OR chunk.seg=0 OR base.base IN "         \
	                "(SELECT no FROM missing)) LIMIT 1")                                       \
	X(MISSING_OVER, "DELETE FROM missing WHERE id=?1 AND no=?2 AND writer=?3")                 \
	X(MISSING_NEXT, "SELECT max(no) FROM missing")                                             \
	X(MISSING_PUT, "INSERT INTO missing(id,no,writer) VALUES(?1,?2,?3)")                       \
	X(MISSING_DEL, "DELETE FROM missing WHERE id=?1 AND writer=?3 AND "                        \
	               "(?2<2 OR no NOT IN (SELECT base FROM base))")                              \
	X(BASE_PUT, "INSERT OR IGNORE INTO base(no,base) VALUES(?1,?2)")                           \
	X(BASE_IDS, "SELECT b.base,c.id FROM base b JOIN chunk c ON c.no=b.base "                  \
	            "WHERE b.no=?1 ORDER BY b.base LIMIT 8")                                       \
	X(BASE_GET, "SELECT base FROM base WHERE no=?1 ORDER BY base LIMIT 8")                     \
	X(BASE_RANGE, "SELECT DISTINCT base FROM base WHERE base BETWEEN ?1 AND ?2 ORDER BY base") \
	X(BASE_DROP, "DELETE FROM base WHERE no<>?2 AND no IN "                                    \
	             "(SELECT no FROM missing WHERE id=?1 AND writer=?3)")                         \
	X(BASE_COPY,                                                                               \
	  "INSERT OR IGNORE INTO base(no,base) SELECT missing.no,base.base "                       \
	  "FROM missing JOIN base ON base.no=?2 WHERE missing.id=?1 AND missing.writer=?3 "        \
	  "AND missing.no NOT IN (SELECT base FROM base)")                                         \
	X(MISSING_ADD, "INSERT OR IGNORE INTO missing(id,no,writer) VALUES(?1,?2,?3)")             \
	X(DELTA_NEXT, "SELECT no FROM chunk WHERE no>?1 AND enc>=2 AND seg>0 ORDER BY no LIMIT 1") \
	X(VM_PUT, "INSERT OR IGNORE INTO vm(id,sealed) VALUES(?1,?2)")                             \
	X(LINE_PUT, "INSERT INTO line(id,vm,ord) SELECT ?1,no,?3 FROM vm WHERE id=?2 "             \
	            "ON CONFLICT(id) DO UPDATE SET vm=excluded.vm,ord=excluded.ord "               \
	            "WHERE line.vm IS NULL")                                                       \
	X(LINE_ADD, "INSERT OR IGNORE INTO line(id,vm) VALUES(?1,NULL)")                           \
	X(VM_EACH, "SELECT vm.id,vm.sealed,(SELECT line.id FROM line WHERE line.vm=vm.no "         \
	           "ORDER BY line.ord DESC LIMIT 1) FROM vm ORDER BY vm.no")                       \
	X(VM_LINE, "SELECT id FROM line WHERE vm=(SELECT no FROM vm WHERE id=?1) "                 \
	           "ORDER BY ord DESC LIMIT 1")                                                    \
	X(FORK_PUT, "UPDATE line SET parent=(SELECT no FROM line WHERE id=?2),fork=?3 "            \
	            "WHERE id=?1")                                                                 \
	X(FORK_EACH, "SELECT id,fork FROM line WHERE parent=(SELECT no FROM line WHERE id=?1) "    \
	             "ORDER BY no")                                                                \
	X(ROW_KEEP, "INSERT OR IGNORE INTO map_recent(gen,disk,window,chunk) "                     \
	            "VALUES(?1,?2,?3,?4)")                                                         \
	X(NEXT_LONG, "SELECT min(window) FROM map_long WHERE disk=?1 AND window>=?2")              \
	X(NEXT_RECENT, "SELECT min(window) FROM map_recent WHERE gen=?1 AND disk=?2 "              \
	               "AND window>=?3")                                                           \
	X(DISK_GET, "SELECT disk.no FROM disk JOIN line ON line.no=disk.line "                     \
	            "WHERE line.id=?1 AND disk.id=?2")                                             \
	X(DISK_PUT, "INSERT INTO disk(line,id) SELECT no,?2 FROM line WHERE id=?1")                \
	X(GEN_GET, "SELECT gen,sum,rows FROM gen WHERE id=?1")                                     \
	X(GEN_NEXT, "SELECT max(coalesce((SELECT max(gen) FROM gen),0),"                           \
	            "coalesce((SELECT max(gen) FROM point),0),"                                    \
	            "coalesce((SELECT value FROM meta WHERE key='max_gen'),0))+1")                 \
	X(GEN_PUT, "INSERT INTO gen(gen,id,rows,sum) VALUES(?1,?2,0,zeroblob(32))")                \
	X(GEN_STATE, "SELECT sum,rows FROM gen WHERE gen=?1")                                      \
	X(GEN_SET, "UPDATE gen SET sum=?2,rows=?3 WHERE gen=?1")                                   \
	X(GEN_DEL, "DELETE FROM gen WHERE gen=?1")                                                 \
	X(GEN_EACH, "SELECT gen FROM gen")                                                         \
	X(ROW_PUT, "INSERT OR REPLACE INTO map_recent(gen,disk,window,chunk) VALUES(?1,?2,?3,?4)") \
	X(RECENT_DEL, "DELETE FROM map_recent WHERE gen=?1")                                       \
	X(LONG_DEL, "DELETE FROM map_long WHERE gen=?1")                                           \
	X(POINT_PUT, "INSERT INTO point(gen,ord,id,line,flags,recent,rows,commit_ns,entry) "       \
	             "SELECT ?1,?2,?3,line.no,?5,1,?6,?7,?8 FROM line WHERE line.id=?4")           \
	X(POINT_ALL, POINT_COLUMNS "ORDER BY point.ord")                                           \
	X(POINT_LINE, POINT_COLUMNS "WHERE line.id=?1 ORDER BY point.ord")                         \
	X(POINT_VM, POINT_COLUMNS "WHERE vm.id=?1 ORDER BY point.ord")                             \
	X(POINT_GET, POINT_COLUMNS "WHERE point.id=?1")                                            \
	X(POINT_NEXT, "SELECT id FROM point WHERE "                                                \
	              "line=(SELECT line FROM point WHERE gen=?1) AND gen>?1 "                     \
	              "ORDER BY gen LIMIT 1")                                                      \
	X(RECENT_DISK_DEL, "DELETE FROM map_recent WHERE gen=?1 AND disk=?2")                      \
	X(LONG_DISK_DEL, "DELETE FROM map_long WHERE gen=?1 AND disk=?2")                          \
	X(LINE_RESTART, "UPDATE line SET restart=?2 WHERE id=?1")                                  \
	X(LINE_RESTARTS, "SELECT restart FROM line WHERE id=?1")                                   \
	X(LINES_RESTART, "SELECT line.id FROM line JOIN vm ON vm.no=line.vm "                      \
	                 "WHERE line.restart<>0 AND vm.writer=?1 AND "                             \
	                 "EXISTS(SELECT 1 FROM point WHERE point.line=line.no) "                   \
	                 "ORDER BY line.no LIMIT ?2")                                              \
	X(RESTARTED_PUT, "INSERT OR IGNORE INTO restarted(seg,off) VALUES(?1,?2)")                 \
	X(RESTARTED_GET, "SELECT 1 FROM restarted WHERE seg=?1 AND off=?2")                        \
	X(LINE_EACH, "SELECT id FROM line ORDER BY no")                                            \
	X(MISSING_EACH, "SELECT missing.no,missing.id FROM missing JOIN chunk ON "                 \
	                "chunk.no=missing.no WHERE chunk.seg=0 ORDER BY missing.no")               \
	X(HEAL, "UPDATE chunk SET seg=?2,off=?3,len=?4,enc=?5,key=?6 "                             \
	        "WHERE no IN (SELECT no FROM missing WHERE id=?1 AND writer=?7) "                  \
	        "AND (?5<2 OR no NOT IN (SELECT base FROM base))")                                 \
	X(HEALABLE, "SELECT id,seg,off,len,enc,key,writer,no FROM chunk WHERE seg>0 "              \
	            "AND (id,writer) IN (SELECT id,writer FROM missing) "                          \
	            "AND no NOT IN (SELECT no FROM missing)")                                      \
	X(BAD_PUT, "INSERT OR REPLACE INTO temp.bad(seg,off) VALUES(?1,?2)")                       \
	X(BAD_CONDEMN, "INSERT OR IGNORE INTO missing(id,writer,no) SELECT "                       \
	               "chunk.id,chunk.writer,chunk.no FROM chunk "                                \
	               "JOIN temp.bad ON bad.seg=chunk.seg AND bad.off=chunk.off")                 \
	X(BAD_DELTAS, "INSERT OR IGNORE INTO missing(id,writer,no) SELECT "                        \
	              "chunk.id,chunk.writer,chunk.no FROM chunk "                                 \
	              "JOIN base ON base.no=chunk.no WHERE base.base IN "                          \
	              "(SELECT no FROM missing)")                                                  \
	X(THIN_PUT, "INSERT OR IGNORE INTO thin(seg) VALUES(?1)")                                  \
	X(THIN_GET, "SELECT 1 FROM thin WHERE seg=?1")                                             \
	X(DAMAGE_IN, "SELECT 1 FROM damage WHERE seg=?1 LIMIT 1")                                  \
	X(VOUCH_PUT, "INSERT OR REPLACE INTO vouch(writer,id,no) VALUES(?1,?2,?3)")                \
	X(VOUCH_GET, "SELECT no FROM vouch WHERE writer=?1 AND id=?2")                             \
	X(VOUCH_ANY, "SELECT 1 FROM vouch LIMIT 1")                                                \
	X(VM_WRITER_PUT, "UPDATE vm SET writer=?2 WHERE id=?1")                                    \
	X(VM_WRITER, "SELECT writer,id FROM vm WHERE id=?1")                                       \
	X(LINE_WRITER, "SELECT vm.writer,vm.id FROM line JOIN vm ON vm.no=line.vm "                \
	               "WHERE line.id=?1")                                                         \
	X(WRITERS, "SELECT DISTINCT writer FROM vm ORDER BY writer LIMIT ?1")                      \
	X(WRITER_LINES, "SELECT count(*) FROM line JOIN vm ON line.vm=vm.no WHERE vm.writer=?1")   \
	X(WRITER_ADD, "INSERT INTO writer(no,bytes) VALUES(?1,?2) "                                \
	              "ON CONFLICT(no) DO UPDATE SET bytes=bytes+?2")                              \
	X(WRITER_BYTES, "SELECT coalesce(sum(bytes),0) FROM writer WHERE ?1=0 OR no=?1")           \
	X(ZEROS_ADD, "INSERT INTO zeros(writer,rows) VALUES(?1,?2) "                               \
	             "ON CONFLICT(writer) DO UPDATE SET rows=rows+?2")                             \
	X(ZEROS_OF, "SELECT coalesce(sum(rows),0) FROM zeros WHERE writer=?1")                     \
	X(CHUNK_LAST, "SELECT no,seg,off,len FROM chunk WHERE seg>0 AND off>0 AND no<?1 "          \
	              "ORDER BY no DESC LIMIT ?2")                                                 \
	X(POINT_DEL, "DELETE FROM point WHERE gen=?1")                                             \
	X(POINT_ROWS, "UPDATE point SET rows=?2 WHERE gen=?1")                                     \
	X(POINT_GEN, "UPDATE point SET gen=?2,recent=?3,rows=?4 WHERE gen=?1")                     \
	X(POINT_RECENT, "UPDATE point SET recent=0 WHERE gen=?1")                                  \
	X(RECENTS, "SELECT gen FROM point WHERE line=(SELECT no FROM line WHERE id=?1) "           \
	           "AND recent=1 AND gen<=?2 ORDER BY gen")                                        \
	X(AGE_EACH, "SELECT gen FROM point WHERE line=(SELECT no FROM line WHERE id=?1) "          \
	            "AND recent=1 AND rows<=?2 ORDER BY gen")                                      \
	X(AGE_MOVE, "INSERT OR REPLACE INTO map_long(disk,window,gen,chunk) "                      \
	            "SELECT disk,window,gen,chunk FROM map_recent WHERE gen=?1")                   \
	X(MAP_LONG, "SELECT window,max(gen),chunk FROM map_long WHERE disk=?1 "                    \
	            "AND window>=?2 AND window<?3 AND gen<=?4 GROUP BY window")                    \
	X(MAP_RECENT, "SELECT map_recent.gen,window,chunk FROM point CROSS JOIN map_recent "       \
	              "ON map_recent.gen=point.gen AND disk=?3 AND window>=?4 AND window<?5 "      \
	              "WHERE line=(SELECT no FROM line WHERE id=?1) AND recent=1 "                 \
	              "AND point.gen<=?2 ORDER BY point.gen")                                      \
	X(ROWS_RECENT, "SELECT map_recent.disk,window,chunk,chunk.id FROM map_recent "             \
	               "LEFT JOIN chunk ON chunk.no=chunk WHERE gen=?1 "                           \
	               "AND (map_recent.disk,window)>(?2,?3) ORDER BY map_recent.disk,window "     \
	               "LIMIT ?4")                                                                 \
	X(ROWS_LONG, "SELECT map_long.disk,window,chunk,chunk.id FROM map_long "                   \
	             "LEFT JOIN chunk ON chunk.no=chunk WHERE gen=?1 "                             \
	             "AND (map_long.disk,window)>(?2,?3) ORDER BY map_long.disk,window LIMIT ?4")  \
	X(LINE_VMS, "SELECT line.id,vm.id,vm.sealed,vm.writer FROM line JOIN vm ON vm.no=line.vm " \
	            "ORDER BY line.no")                                                            \
	X(DAMAGE_PUT, "INSERT OR REPLACE INTO damage(seg,off,len,type) VALUES(?1,?2,?3,?4)")       \
	X(CHUNK_AT, "SELECT no FROM chunk WHERE seg=?1 AND off>=?2 AND off<?3")                    \
	X(POINT_NEWEST, POINT_COLUMNS "WHERE line.id=?1 ORDER BY point.gen DESC LIMIT 1")          \
	X(POINTS_AFTER, "SELECT count(*) FROM point WHERE line=(SELECT no FROM line WHERE id=?1) " \
	                "AND flags&1=0 AND "                                                       \
	                "gen>coalesce((SELECT gen FROM point WHERE id=?2),0)")                     \
	X(USERS, "SELECT DISTINCT disk,window,chunk FROM ("                                        \
	         "SELECT disk,window,chunk FROM map_recent "                                       \
	         "WHERE chunk=?1 OR chunk IN (SELECT no FROM base WHERE base=?1) "                 \
	         "UNION ALL SELECT disk,window,chunk FROM map_long "                               \
	         "WHERE chunk=?1 OR chunk IN (SELECT no FROM base WHERE base=?1))")                \
	X(DISK_NAME, "SELECT disk.id,line.id FROM disk JOIN line ON line.no=disk.line "            \
	             "WHERE disk.no=?1")                                                           \
	X(COUNTS, "SELECT (SELECT count(*) FROM chunk)-"                                           \
	          "(SELECT count(*) FROM chunk WHERE no>=4611686018427387904 AND seg=0),"          \
	          "(SELECT count(*) FROM point WHERE flags&1=0),(SELECT count(*) FROM vm),"        \
	          "(SELECT coalesce(sum(rows),0) FROM point),"                                     \
	          "(SELECT count(*) FROM damage),"                                                 \
	          "(SELECT count(*) FROM chunk WHERE seg>0 AND off=0 AND ?1)")

#define POINT_COLUMNS                                                                            \
	"SELECT point.gen,point.ord,point.id,line.id,vm.id,point.flags,point.recent,point.rows," \
	"point.commit_ns,point.entry FROM point JOIN line ON line.no=point.line "                \
	"JOIN vm ON vm.no=line.vm "

enum statement {
#define X(name, sql) ST_##name,
	STATEMENTS(X)
#undef X
	    ST_END
};

#define NSTATEMENTS ((unsigned)ST_END)

struct catalog {
	sqlite3 *db;
	pthread_mutex_t lock;
	char *path;
	bool damaged; /* SQLite found the file itself to be */
	sqlite3_stmt *st[NSTATEMENTS];
};

void sql_lock(struct catalog *c);
void sql_unlock(struct catalog *c);
/** sql_fail(c, rc, e): an SQLite code as ours; returns it. */
int sql_fail(struct catalog *c, int rc, struct lc_err *e);
/** sql_stmt(c, which, e): a statement ready for binding, prepared once; NULL on failure. */
sqlite3_stmt *sql_stmt(struct catalog *c, enum statement which, struct lc_err *e);
void sql_int(sqlite3_stmt *st, int i, uint64_t v);
void sql_blob(sqlite3_stmt *st, int i, const void *p, size_t n);
/** sql_done(st): ready for the next use; NULL: nothing. */
void sql_done(sqlite3_stmt *st);
/** sql_run(c, st, e): run a statement that returns nothing; sql_run1(): one that has one number. */
int sql_run(struct catalog *c, sqlite3_stmt *st, struct lc_err *e);
int sql_run1(struct catalog *c, enum statement which, uint64_t a, struct lc_err *e);
/** sql_put_id(c, which, id, n, v, e): one that has an id of n bytes and a number.  It takes the
 * lock. */
int sql_put_id(struct catalog *c, enum statement which, const void *id, size_t n, uint64_t v,
               struct lc_err *e);
/** sql_first(c, st, e): first row: 0; no row: LC_ENOENT, without a message.  The caller ends with
 * sql_done(). */
int sql_first(struct catalog *c, sqlite3_stmt *st, struct lc_err *e);
/**
 * sql_start(c, which, st, e):
 * Lock the catalog and get a statement ready for binding: 0, or a failure and *st NULL.  In every
 * case sql_finish(c, st) ends it.
 */
int sql_start(struct catalog *c, enum statement which, sqlite3_stmt **st, struct lc_err *e);
void sql_finish(struct catalog *c, sqlite3_stmt *st);
/**
 * sql_next(c, st, rc, e):
 * Step to the next row, for as long as *rc is 0: true, and the columns are there; false at the end,
 * with *rc set where the step failed.  The one loop over rows:
 * while (sql_next(c, st, &rc, e)) rc = ...;
 */
bool sql_next(struct catalog *c, sqlite3_stmt *st, int *rc, struct lc_err *e);
int sql_exec(struct catalog *c, const char *sql, struct lc_err *e);
uint64_t col_int(sqlite3_stmt *st, int i);
/** col_copy(st, i, dst, n): a blob of n bytes; zeros where it is none. */
void col_copy(sqlite3_stmt *st, int i, void *dst, size_t n);
/** chunk_columns(st, no, r): chunk `no` from a row that begins with id, seg, off, len, enc, key,
 * writer. */
void chunk_columns(sqlite3_stmt *st, uint64_t no, struct record *r);

/** meta_text(c, key, dst, n, e): a text by name; "" and LC_ENOENT where it is not there. */
int meta_text(struct catalog *c, const char *key, char *dst, size_t n, struct lc_err *e);
int meta_set_text(struct catalog *c, const char *key, const char *value, struct lc_err *e);
/** meta_set_int(c, key, v, e): a number by name. */
int meta_set_int(struct catalog *c, const char *key, uint64_t v, struct lc_err *e);
/** delete_rows(c, gen, e): all rows of a generation. */
int delete_rows(struct catalog *c, uint64_t gen, struct lc_err *e);
/** looks_begin(c, own, e): many looks in one transaction, as each statement by itself would lock
 * the file, and look for its WAL.  *own: it was begun here.  looks_end(c, own) in every case. */
int looks_begin(struct catalog *c, bool *own, struct lc_err *e);
void looks_end(struct catalog *c, bool own);
#define NO_DISK UINT64_MAX
/** map_find(c, point, disk, p, no, e): a point, and the number of a disk on its line, NO_DISK where
 * that never had a row.  LC_ENOENT: the point was dropped. */
int map_find(struct catalog *c, const uint8_t point[16], const uint8_t disk[16],
             struct catalog_point *p, uint64_t *no, struct lc_err *e);
/** map_at(c, p, disk, first_window, n, chunks, e): as catalog_map() with the disk's number. */
int map_at(struct catalog *c, const struct catalog_point *p, uint64_t disk, uint64_t first_window,
           uint32_t n, uint64_t *chunks, struct lc_err *e);
/** each_point(c, which, key, on, arg, found, e): points that a statement gives. */
int each_point(struct catalog *c, enum statement which, const uint8_t *key,
               int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
               uint64_t *found, struct lc_err *e);
/** copy_point(arg, p, e): callback that copies to a struct catalog_point, without the entry. */
int copy_point(void *arg, const struct catalog_point *p, struct lc_err *e);

#endif

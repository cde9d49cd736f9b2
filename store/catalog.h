/**
 * catalog: the index of the log, in SQLite.  A fold over records: it can always be made again.
 *
 * Only this module knows SQL.  A restore point's rows lie under a number (its generation); the
 * content of a window of a disk at a point is the newest row whose generation is not newer than the
 * point's.  Rows of recent points are ordered by generation (cheap small commits), the others by
 * window (cheap reads).
 *
 * Thread: any; one recursive mutex inside, held from catalog_begin() to catalog_commit() or
 * catalog_rollback().
 */
#ifndef LOCUM_CATALOG_H
#define LOCUM_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/maprec.h"
#include "store/seal.h"
#include "store/segment.h"

struct catalog;

struct catalog_opts {
	const char *path; /* NULL: a private one that nobody else sees */
	bool writable;
	bool build; /* made from nothing, in a file that is thrown away on any failure */
	uint64_t cache_bytes;
	const uint8_t *store_id; /* [16] */
};

/**
 * catalog_open(opts, out, e):
 * LC_ENOENT: there is none (a reader); LC_ECORRUPT: it is damaged, of another store or an older
 * layout: make it again.
 */
int catalog_open(const struct catalog_opts *opts, struct catalog **out, struct lc_err *e);
void catalog_close(struct catalog *c);
/** catalog_damaged(c): SQLite met damage in the file: it must be made again. */
bool catalog_damaged(const struct catalog *c);
int catalog_begin(struct catalog *c, struct lc_err *e);
int catalog_commit(struct catalog *c, struct lc_err *e);
void catalog_rollback(struct catalog *c);
/** catalog_checkpoint(c): write the WAL back; best effort. */
void catalog_checkpoint(struct catalog *c);

/* How far the log was folded in. */
struct catalog_position {
	uint64_t segment, off; /* where the next record is */
	uint64_t last_off;     /* where the last one folded in begins (same segment); 0: none */
	uint64_t last_seq;     /* its sequence */
};
int catalog_position(struct catalog *c, struct catalog_position *p, struct lc_err *e);
int catalog_set_position(struct catalog *c, const struct catalog_position *p, struct lc_err *e);

/* ---- chunks ---- */

/** catalog_put_chunk(c, no, r, e): where chunk `no` lies (r: id, segment, off, n, encoding, key,
 * writer).  Replaces. */
int catalog_put_chunk(struct catalog *c, uint64_t no, const struct record *r, struct lc_err *e);
/** catalog_chunk(c, no, r, e): LC_ENOENT.  A chunk whose bytes are missing has segment 0. */
int catalog_chunk(struct catalog *c, uint64_t no, struct record *r, struct lc_err *e);
/** catalog_find_chunk(c, no, r, e): the same, where LC_ENOENT is no failure: without a message. */
int catalog_find_chunk(struct catalog *c, uint64_t no, struct record *r, struct lc_err *e);
/** catalog_chunks(c, chunks, n, records): of a few, at a quarter of the price; one that can't be
 * had has seq 0. */
void catalog_chunks(struct catalog *c, const uint64_t *chunks, size_t n, struct record *records);
/** catalog_which_are_bases(c, chunks, n, is): whether a delta is made upon each of n chunks,
 * ascending; best effort. */
void catalog_which_are_bases(struct catalog *c, const uint64_t *chunks, size_t n, bool *is);
/** catalog_chunk_ids(c, chunks, n, ids, e): ids of n chunks, zeros for number 0; LC_ENOENT.  The
 * lock is held meanwhile: not for many thousands at once. */
int catalog_chunk_ids(struct catalog *c, const uint64_t *chunks, uint32_t n, uint8_t (*ids)[32],
                      struct lc_err *e);
/**
 * catalog_places(c, chunks, n, on, arg):
 * Where the bytes of n chunks lie, and those of their bases before: what is to be read for them, in
 * that order (r: segment, off, n).  Number 0 and what is not there is left out; best effort.
 */
void catalog_places(struct catalog *c, const uint64_t *chunks, uint32_t n,
                    void (*on)(void *arg, const struct record *r), void *arg);
/** catalog_missing(c, writer, id, create, no, e): number that stands for an id of a writer whose
 * bytes are not there; LC_ENOENT. */
int catalog_missing(struct catalog *c, uint16_t writer, const uint8_t id[32], bool create,
                    uint64_t *no, struct lc_err *e);
/** catalog_any_missing(c, any, e): whether there are such ids. */
int catalog_any_missing(struct catalog *c, bool *any, struct lc_err *e);
/** catalog_missing_numbers(c, out, e): the numbers of all of them, and of bad ones, ascending: u64
 * each, to append. */
int catalog_missing_numbers(struct catalog *c, struct lc_buf *out, struct lc_err *e);
/** catalog_put_missing(c, r, e): chunk r->seq can't be read, though its record is there: a base is
 * missing. */
int catalog_put_missing(struct catalog *c, const struct record *r, struct lc_err *e);
/** catalog_missing_of(c, writer, id, out, e): append the numbers, u64 each, that stand for an id
 * whose bytes are not there.  catalog_missing_base(c, no, is, e): whether a base of that delta is
 * missing.  catalog_found(c, r, e): chunk r->seq is not missing after all. */
int catalog_missing_of(struct catalog *c, uint16_t writer, const uint8_t id[32], struct lc_buf *out,
                       struct lc_err *e);
int catalog_missing_base(struct catalog *c, uint64_t no, bool *is, struct lc_err *e);
int catalog_found(struct catalog *c, const struct record *r, struct lc_err *e);
/** catalog_put_base(c, no, base, e): chunk `no` is a delta upon chunk `base`. */
int catalog_put_base(struct catalog *c, uint64_t no, uint64_t base, struct lc_err *e);
/** catalog_bases(c, no, bases, n, e): the numbers of those; in no order. */
int catalog_bases(struct catalog *c, uint64_t no, uint64_t bases[CHUNK_BASES_MAX], size_t *n,
                  struct lc_err *e);
/** catalog_bases_of(c, chunks, n, out, e): of n chunks together, as struct map_base, to append; at
 * a quarter of the price. */
int catalog_bases_of(struct catalog *c, const uint64_t *chunks, size_t n, struct lc_buf *out,
                     struct lc_err *e);
/** catalog_next_delta(c, above, no, e): the first delta with a number > above; LC_ENOENT (slow: no
 * index). */
int catalog_next_delta(struct catalog *c, uint64_t above, uint64_t *no, struct lc_err *e);
/** catalog_heal(c, r, e): the bytes of an id are at r now, for every number that stands for it; but
 * a delta does not stand in for one that others are made upon. */
int catalog_heal(struct catalog *c, const struct record *r, struct lc_err *e);
/** catalog_heal_all(c, e): the same for each id of which a good record is known (slow: all
 * chunks). */
int catalog_heal_all(struct catalog *c, struct lc_err *e);
struct catalog_place {
	uint64_t segment, off;
};
/**
 * catalog_condemn(c, places, n, e):
 * The chunk records at these places are bad: their ids count as missing, though reading them is
 * still tried (slow: all chunks).
 */
int catalog_condemn(struct catalog *c, const struct catalog_place *places, size_t n,
                    struct lc_err *e);
/** catalog_last_chunks(c, n, on, arg, e): the n newest chunks (r: segment, off, n, seq =
 * number). */
int catalog_last_chunks(struct catalog *c, unsigned n,
                        void (*on)(void *arg, const struct record *r), void *arg, struct lc_err *e);
/** catalog_each_chunk(c, above, on, arg, e): chunks with a number > above and bytes, ascending. */
int catalog_each_chunk(struct catalog *c, uint64_t above,
                       int (*on)(void *arg, uint64_t no, uint16_t writer, const uint8_t id[32]),
                       void *arg, struct lc_err *e);

/* ---- writers, where a store has several ---- */

/** catalog_put_vouch(c, writer, id, no, e): an id of that writer is chunk `no` of another one. */
int catalog_put_vouch(struct catalog *c, uint16_t writer, const uint8_t id[32], uint64_t no,
                      struct lc_err *e);
/** catalog_vouch(c, writer, id, no, e): LC_ENOENT. */
int catalog_vouch(struct catalog *c, uint16_t writer, const uint8_t id[32], uint64_t *no,
                  struct lc_err *e);
/** catalog_any_vouch(c, any, e): whether there is such an id. */
int catalog_any_vouch(struct catalog *c, bool *any, struct lc_err *e);
/** catalog_set_vm_writer(c, vm, writer, e): whose VM it is, where it is known. */
int catalog_set_vm_writer(struct catalog *c, const uint8_t vm[16], uint16_t writer,
                          struct lc_err *e);
/** catalog_vm_writer(c, vm, writer, e), catalog_line_writer(c, line, vm, writer, e): whose a VM is;
 * which VM's a line, and whose that is.  LC_ENOENT: not known. */
int catalog_vm_writer(struct catalog *c, const uint8_t vm[16], uint16_t *writer, struct lc_err *e);
int catalog_line_writer(struct catalog *c, const uint8_t line[16], uint8_t vm[16], uint16_t *writer,
                        struct lc_err *e);
/** catalog_writers(c, list, max, n, e): those that have a VM, ascending. */
int catalog_writers(struct catalog *c, uint16_t *list, size_t max, size_t *n, struct lc_err *e);
/** catalog_writer_lines(c, writer, n, e): how many lines its VMs have. */
int catalog_writer_lines(struct catalog *c, uint16_t writer, uint64_t *n, struct lc_err *e);
/** catalog_add_bytes(c, writer, bytes, e): the writer's records take so many more; not of 0, who
 * has the rest. */
int catalog_add_bytes(struct catalog *c, uint16_t writer, uint64_t bytes, struct lc_err *e);
/** catalog_writer_bytes(c, writer, bytes, e): what that came to; 0: of all others. */
int catalog_writer_bytes(struct catalog *c, uint16_t writer, uint64_t *bytes, struct lc_err *e);
/** catalog_add_zeros(c, writer, rows, e), catalog_writer_zeros(c, writer, rows, e): rows of a
 * writer's maps that say "all zero": next to nothing in the log, and not so here. */
int catalog_add_zeros(struct catalog *c, uint16_t writer, uint64_t rows, struct lc_err *e);
int catalog_writer_zeros(struct catalog *c, uint16_t writer, uint64_t *rows, struct lc_err *e);

/** catalog_writer_missing(c, writer, n, e): how many ids of a writer have no good bytes;
 * catalog_missing_above(c, writer, above, max, ids, e): append these, 32 bytes each, ascending from
 * above that one. */
int catalog_writer_missing(struct catalog *c, uint16_t writer, uint64_t *n, struct lc_err *e);
int catalog_missing_above(struct catalog *c, uint16_t writer, const uint8_t above[32], size_t max,
                          struct lc_buf *ids, struct lc_err *e);
/** catalog_writer_restarts(c, writer, max, lines, e): append its VMs' lines that must restart and
 * have points, 16 bytes each. */
int catalog_writer_restarts(struct catalog *c, uint16_t writer, size_t max, struct lc_buf *lines,
                            struct lc_err *e);

/* ---- thin segments ---- */

/** catalog_put_thin(c, segment, e): what that one dropped is taken up.  catalog_has_thin(): whether
 * it was. */
int catalog_put_thin(struct catalog *c, uint64_t segment, struct lc_err *e);
int catalog_has_thin(struct catalog *c, uint64_t segment, bool *has, struct lc_err *e);
/** catalog_set_peers(c, names, e): who has what was dropped; catalog_peers(): read it, "" for
 * nobody. */
int catalog_set_peers(struct catalog *c, struct lc_span names, struct lc_err *e);
int catalog_peers(struct catalog *c, char *dst, size_t n, struct lc_err *e);
/** catalog_damage_in(c, segment, any, e): whether damage of that segment is known. */
int catalog_damage_in(struct catalog *c, uint64_t segment, bool *any, struct lc_err *e);

/* ---- VMs, lines, disks ---- */

int catalog_put_vm(struct catalog *c, const uint8_t id[16], struct lc_span sealed,
                   struct lc_err *e);
/** catalog_put_line(c, id, vm, order, e): a line of a VM; order: of the entry that says so. */
int catalog_put_line(struct catalog *c, const uint8_t id[16], const uint8_t vm[16], uint64_t order,
                     struct lc_err *e);
/** catalog_restart(c, line, on, e): whether the line's next point must stand by itself. */
int catalog_restart(struct catalog *c, const uint8_t line[16], bool on, struct lc_err *e);
/** catalog_restarted(c, place, e): lines were restarted for the damage there; put it down, or look
 * (LC_ENOENT). */
int catalog_put_restarted(struct catalog *c, const struct catalog_place *place, struct lc_err *e);
int catalog_restarted(struct catalog *c, const struct catalog_place *place, struct lc_err *e);
/** catalog_restarts(c, line, on, e): read that; false for a line that is not known. */
int catalog_restarts(struct catalog *c, const uint8_t line[16], bool *on, struct lc_err *e);
/** catalog_each_line(c, on, arg, e): ids of all lines. */
int catalog_each_line(struct catalog *c,
                      int (*on)(void *arg, const uint8_t id[16], struct lc_err *e), void *arg,
                      struct lc_err *e);
/** catalog_each_line_vm(c, on, arg, e): lines whose VM is known, in the order in which they
 * began. */
int catalog_each_line_vm(struct catalog *c,
                         int (*on)(void *arg, const uint8_t line[16], const uint8_t vm[16],
                                   uint16_t writer, struct lc_span sealed, struct lc_err *e),
                         void *arg, struct lc_err *e);
struct catalog_vm {
	uint8_t id[16];
	uint8_t line[16];      /* the one that began last: next points go there */
	struct lc_span sealed; /* name; borrowed for the call */
};
int catalog_each_vm(struct catalog *c,
                    int (*on)(void *arg, const struct catalog_vm *vm, struct lc_err *e), void *arg,
                    struct lc_err *e);
/** catalog_vm_line(c, vm, line, e): that line of one VM; LC_ENOENT. */
int catalog_vm_line(struct catalog *c, const uint8_t vm[16], uint8_t line[16], struct lc_err *e);
/** catalog_disk(c, line, disk, create, no, e): number of a disk on a line (which is made, too);
 * LC_ENOENT. */
int catalog_disk(struct catalog *c, const uint8_t line[16], const uint8_t disk[16], bool create,
                 uint64_t *no, struct lc_err *e);

/* ---- points ---- */

struct catalog_point {
	uint64_t gen;   /* generation of its rows */
	uint64_t order; /* place among all points, ascending by commit */
	uint8_t id[16], line[16], vm[16];
	uint32_t flags; /* enum point_flags */
	bool recent;    /* rows are ordered by generation */
	uint64_t rows;
	int64_t commit_ns;
	struct lc_span entry; /* its POINT entry; borrowed for the call */
};
/** catalog_gen(c, point, create, gen, e): generation for a point in the making; LC_ENOENT. */
int catalog_gen(struct catalog *c, const uint8_t point[16], bool create, uint64_t *gen,
                struct lc_err *e);
/** catalog_put_rows(c, gen, disk, rows, n, e): rows of a point in the making; each has its chunk
 * number. */
int catalog_put_rows(struct catalog *c, uint64_t gen, uint64_t disk, const struct map_row *rows,
                     size_t n, struct lc_err *e);
/** catalog_gen_state(c, gen, sum, rows, e), catalog_set_gen_state(...): keyless sum and number of
 * its rows so far. */
int catalog_gen_state(struct catalog *c, uint64_t gen, uint8_t sum[32], uint64_t *rows,
                      struct lc_err *e);
int catalog_set_gen_state(struct catalog *c, uint64_t gen, const uint8_t sum[32], uint64_t rows,
                          struct lc_err *e);
/** catalog_put_point(c, p, e): a point is complete; its generation becomes visible. */
int catalog_put_point(struct catalog *c, const struct catalog_point *p, struct lc_err *e);
/** catalog_each_point(c, line, on, arg, e): of a line (NULL: all), oldest first. */
int catalog_each_point(struct catalog *c, const uint8_t *line,
                       int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e),
                       void *arg, struct lc_err *e);
/** catalog_each_point_of(c, vm, on, arg, e): of all lines of a VM, in order of commit. */
int catalog_each_point_of(struct catalog *c, const uint8_t vm[16],
                          int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e),
                          void *arg, struct lc_err *e);
/** catalog_point(c, id, on, arg, e): one point; LC_ENOENT. */
int catalog_point(struct catalog *c, const uint8_t id[16],
                  int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
                  struct lc_err *e);
/**
 * catalog_drop(c, id, e):
 * Fold a point into the next one of its line.  Cost: the smaller of the two's rows.  LC_ENOENT.
 */
int catalog_drop(struct catalog *c, const uint8_t id[16], struct lc_err *e);
struct catalog_fork {
	uint8_t base[16]; /* a point of another line */
	uint8_t line[16]; /* the one that begins */
	uint64_t gen;     /* of its first point, whose own rows are there */
	size_t ndisks;    /* of its first point */
	const struct catalog_fork_disk {
		uint8_t id[16];
		uint64_t windows;
	} * disks;
};
/**
 * catalog_fork(c, f, copied, e):
 * Copy the map of the base, as far as the disks go on, to under the first point of a new line.
 * Cost: the rows of the base's map.  LC_ENOENT: no such base.
 */
int catalog_fork(struct catalog *c, const struct catalog_fork *f, uint64_t *copied,
                 struct lc_err *e);
/** catalog_each_fork(c, line, on, arg, e): lines that began at a point of this one, and its
 * order. */
int catalog_each_fork(struct catalog *c, const uint8_t line[16],
                      int (*on)(void *arg, const uint8_t id[16], uint64_t order, struct lc_err *e),
                      void *arg, struct lc_err *e);
/**
 * catalog_void_after(c, line, base, known, e):
 * Delete the points of a line that are newer than `base` (zeros: all of them), with their rows:
 * they were dropped, and the record that says so is lost.  *known: base is a point of the line, or
 * zeros; else nothing is done.
 */
int catalog_void_after(struct catalog *c, const uint8_t line[16], const uint8_t base[16],
                       bool *known, struct lc_err *e);
/** catalog_purge(c, e): delete the rows of points in the making (their maker is dead). */
int catalog_purge(struct catalog *c, struct lc_err *e);
/** catalog_discard(c, point, e): the same for one of them. */
int catalog_discard(struct catalog *c, const uint8_t point[16], struct lc_err *e);
/**
 * catalog_age(c, line, keep, e):
 * Order the rows of all but the newest `keep` points by window, a few hundred points a call, in a
 * transaction of its own.  Returns how many points it moved, or a failure.
 */
int catalog_age(struct catalog *c, const uint8_t line[16], unsigned keep, struct lc_err *e);
/**
 * catalog_next_row(c, point, disk, from, window, e):
 * The first window from `from` on of which the map of that point has a row, be it of zeros;
 * UINT64_MAX: there is none.  LC_ENOENT: the point is gone.
 */
int catalog_next_row(struct catalog *c, const uint8_t point[16], const uint8_t disk[16],
                     uint64_t from, uint64_t *window, struct lc_err *e);
/**
 * catalog_map(c, point, disk, first, n, chunks, e):
 * Chunk numbers of n windows from `first` at that point, in one read transaction.  LC_ENOENT: the
 * point is gone.
 */
int catalog_map(struct catalog *c, const uint8_t point[16], const uint8_t disk[16], uint64_t first,
                uint32_t n, uint64_t *chunks, struct lc_err *e);

/**
 * catalog_rows(c, point, disk, window, n, out, e):
 * Rows of a point itself, at most n (and MAP_ROWS_MAX), of one disk, in order, behind (*disk,
 * *window); *disk = 0 begins.  out->n = 0: no further ones; out->line and out->point are not set.
 * LC_ENOENT: the point is gone.
 */
int catalog_rows(struct catalog *c, const uint8_t point[16], uint64_t *disk, uint64_t *window,
                 size_t n, struct map_record *out, struct lc_err *e);
/** catalog_rows_made(c, point, disk, window, n, out, e): the same of a point in the making, as far
 * as they are here; out->n = 0 also where there is no such point. */
int catalog_rows_made(struct catalog *c, const uint8_t point[16], uint64_t *disk, uint64_t *window,
                      size_t n, struct map_record *out, struct lc_err *e);

/* ---- damage, figures ---- */

int catalog_put_damage(struct catalog *c, uint64_t segment, uint64_t off, uint64_t n, int type,
                       struct lc_err *e);
/** catalog_chunks_at(c, segment, off, n, on, arg, e): chunks whose records begin in that range
 * (slow: no index). */
int catalog_chunks_at(struct catalog *c, uint64_t segment, uint64_t off, uint64_t n,
                      int (*on)(void *arg, uint64_t no, struct lc_err *e), void *arg,
                      struct lc_err *e);
/** catalog_each_missing(c, on, arg, e): chunks that maps name and whose bytes are not there. */
int catalog_each_missing(struct catalog *c, int (*on)(void *arg, uint64_t no, const uint8_t id[32]),
                         void *arg, struct lc_err *e);
/** catalog_points_after(c, line, point, n, e): points, no seeds, of a line that are newer than that
 * one of it; all, where it is not there. */
int catalog_points_after(struct catalog *c, const uint8_t line[16], const uint8_t point[16],
                         uint64_t *n, struct lc_err *e);
/** catalog_newest(c, line, on, arg, e): newest point or seed of a line; LC_ENOENT. */
int catalog_newest(struct catalog *c, const uint8_t line[16],
                   int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
                   struct lc_err *e);
/** catalog_users(c, chunk, on, arg, e): each disk and point in whose map the chunk is (slow: reads
 * the map). */
int catalog_users(struct catalog *c, uint64_t chunk,
                  int (*on)(void *arg, const uint8_t disk[16], const struct catalog_point *p,
                            struct lc_err *e),
                  void *arg, struct lc_err *e);

struct catalog_counts {
	uint64_t chunks, points, vms, rows, damaged;
	uint64_t dropped; /* of the chunks: their bytes */
};
/** catalog_counts(c, out, e): slow: reads all chunks. */
int catalog_counts(struct catalog *c, struct catalog_counts *out, struct lc_err *e);

#endif

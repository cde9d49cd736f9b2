/**
 * reader: the disks of one restore point as ranges of bytes.
 *
 * Needs the store alone: no agent, no network.  Any number of threads may read at
 * once; a window that several ask for is decoded once.  What was decoded stays in
 * a cache of bounded size, as do the parts of the map that were looked up.  A
 * failure names VM, disk and offset, and what the store says of it; wrong bytes
 * are never given.
 */
#ifndef LOCUM_READER_H
#define LOCUM_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct reader;
struct store;
struct view;

#define READER_CACHE_DEFAULT (UINT64_C(64) << 20)

struct reader_opts {
	uint64_t cache_bytes; /* decoded windows kept; 0 = READER_CACHE_DEFAULT */
};

/**
 * reader_new(s, v, opts, out, e):
 * Ownership: borrows s and v until reader_free().
 */
int reader_new(struct store *s, struct view *v, const struct reader_opts *opts, struct reader **out,
               struct lc_err *e);
/** reader_free(r): no call may be under way. */
void reader_free(struct reader *r);
/**
 * reader_read(r, disk, p, n, off, e):
 * n bytes from byte off of the disk with that index, to p.  LC_EINVAL beyond its end.
 *
 * Thread: any.
 */
int reader_read(struct reader *r, size_t disk, void *p, size_t n, uint64_t off, struct lc_err *e);
/** reader_prefetch(r, disk, n, off, e): decode into the cache what reader_read() would need. */
int reader_prefetch(struct reader *r, size_t disk, uint64_t n, uint64_t off, struct lc_err *e);

/**
 * reader_read_ahead(r, disk, windows, n):
 * These windows are read next: the system begins to read what they take.  Best effort; windows
 * beyond the disk's end are passed over.  Thread: any.
 */
void reader_read_ahead(struct reader *r, size_t disk, const uint64_t *windows, size_t n);

struct reader_extent {
	uint64_t off, len;
	bool data; /* false: reads as zeros */
};

/**
 * reader_extents(r, disk, off, len, x, max, n, e):
 * What of [off, off + len) is data.  Gives *n extents (1 <= *n <= max, none where len is 0) in x,
 * in order and without gaps from off on.  They may end before off + len, as the work of one call
 * is bounded.  LC_EINVAL beyond the disk's end.
 *
 * Thread: any.
 */
int reader_extents(struct reader *r, size_t disk, uint64_t off, uint64_t len,
                   struct reader_extent *x, size_t max, size_t *n, struct lc_err *e);

#endif

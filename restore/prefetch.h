/**
 * prefetch: read ahead what a VM read first the last time that it was booted, and note what it
 * reads first this time.
 *
 * One thread decodes into the reader's cache, in the order of the last time, never further ahead
 * than half of the cache holds; and has the system read what follows.  It notes the first windows
 * that are read, for some minutes, and keeps them for the next time (bootlist.h).  A boot that read
 * much less than the one before, as one that failed, takes nothing away.  Nothing here can fail: it
 * is all about time.
 */
#ifndef LOCUM_PREFETCH_H
#define LOCUM_PREFETCH_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct prefetch;
struct reader;
struct store;
struct view;

struct prefetch_opts {
	struct store *store; /* borrowed, as all of these */
	struct view *view;
	struct reader *reader;
	uint64_t cache_bytes; /* of the reader; 0 = its default */
	int64_t note_ns;      /* what is read so long after the first read is kept; 0 = 3 minutes */
};

/** prefetch_new(opts, out, e): LC_ENOMEM. */
int prefetch_new(const struct prefetch_opts *opts, struct prefetch **out, struct lc_err *e);
/** prefetch_note(p, disk, off, n): a client reads that.  NULL is fine.  Thread: any. */
void prefetch_note(struct prefetch *p, size_t disk, uint64_t off, uint64_t n);
/** prefetch_free(p): end, and keep what was noted; NULL is fine. */
void prefetch_free(struct prefetch *p);

#endif

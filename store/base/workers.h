/**
 * workers: a fixed pool of threads for heavy work (hash, compress, seal), free of any event loop.
 *
 * Each worker has an index 0..n-1, so that callers keep one context (zstd, scratch buffer) per
 * worker. Jobs are intrusive: the caller owns the struct until run() was called for it and
 * returned.
 */
#ifndef LOCUM_WORKERS_H
#define LOCUM_WORKERS_H

#include "store/base/errors.h"

struct workers;

struct work {
	/* On a worker thread; may free or requeue w. */
	void (*run)(struct work *w, unsigned worker);
	struct work *next; /* private to the pool */
};

/** workers_new(n, out, e): n threads, 0 for one more than there are cores (at most 64).
 * Signals are blocked in them. */
int workers_new(unsigned n, struct workers **out, struct lc_err *e);
/** workers_cores(): that this process may use. */
unsigned workers_cores(void);
/** workers_count(p): number of threads. */
unsigned workers_count(const struct workers *p);
/** workers_submit(p, w): queue w, first in first out.  Never fails, never blocks.  Thread: any. */
void workers_submit(struct workers *p, struct work *w);
/** workers_free(p): run what is queued, join the threads; NULL is fine. */
void workers_free(struct workers *p);

#endif

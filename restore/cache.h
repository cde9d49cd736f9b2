/**
 * cache: a bounded number of equal blocks, filled on demand and each filled once.
 *
 * Sharded, least recently used block goes first.  Two threads that ask for one
 * block make one fill; the second waits for it.  A block that is held by a
 * caller is never evicted, so there can be more blocks than the bound while more
 * callers than that hold one; they are released as soon as they are put back.
 */
#ifndef LOCUM_CACHE_H
#define LOCUM_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct cache;
struct cache_block; /* one block, held by the caller from cache_get() to cache_put() */

/** Fill block (block_size bytes) with what key names.  On the thread that asks; no lock is held. */
typedef int cache_fill_fn(void *arg, uint64_t key, void *block, struct lc_err *e);

struct cache_opts {
	size_t block_size; /* bytes */
	size_t nblocks;    /* bound; at least one a shard is kept */
	unsigned nshards;
	cache_fill_fn *fill;
	void *arg; /* for fill; borrowed until cache_free() */
};

/** cache_new(opts, out, e): LC_ENOMEM.  No block is allocated before it is asked for. */
int cache_new(const struct cache_opts *opts, struct cache **out, struct lc_err *e);
/** cache_free(c): nothing may be held. */
void cache_free(struct cache *c);
/**
 * cache_get(c, key, out, e):
 * Hold the block of that key, filled now if it is not there.  A failed fill is not kept: the next
 * call tries again; calls that waited for it get the same failure.
 *
 * Thread: any.
 */
int cache_get(struct cache *c, uint64_t key, struct cache_block **out, struct lc_err *e);
/** cache_data(b): what is in it; read only. */
const void *cache_data(const struct cache_block *b);
/** cache_put(c, b): let go of it.  Thread: any. */
void cache_put(struct cache *c, struct cache_block *b);

struct cache_stats {
	uint64_t hits, fills, blocks;
};
/** cache_stats(c, out): sums over all shards, for tests and the curious. */
void cache_stats(struct cache *c, struct cache_stats *out);

#endif

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "store/base/memory.h"
#include "restore/cache.h"

/*
 *   (absent) ──get──► FILLING ──► READY ◄──get/put──► READY on the LRU list ──evicted──► (absent)
 *                        └──────► FAILED (out of the table; freed by the last put)
 */
enum state { BLOCK_FILLING = 1, BLOCK_READY, BLOCK_FAILED };

struct cache_block {
	TAILQ_ENTRY(cache_block) lru; /* linked while READY and held by nobody */
	struct cache_block *next;     /* in its bucket */
	struct shard *shard;
	uint64_t key;
	unsigned holders; /* callers that have it, the filling one included */
	enum state state;
	struct lc_err err; /* of the fill */
	_Alignas(64) uint8_t data[];
};

TAILQ_HEAD(block_list, cache_block);

struct shard {
	pthread_mutex_t lock;
	pthread_cond_t filled; /* some FILLING block became READY or FAILED */
	struct cache_block **buckets;
	struct block_list lru; /* most recently used first */
	size_t nblocks, limit;
	uint64_t hits, fills;
};

struct cache {
	struct cache_opts opts;
	size_t nbuckets; /* per shard, a power of two */
	struct shard *shards;
	unsigned nready; /* shards whose lock was made */
};

/* Keys are chunk numbers and page numbers, dense and sequential: spread them. */
static uint64_t
mix(uint64_t key)
{
	key ^= key >> 31;
	key *= UINT64_C(0x9e3779b97f4a7c15);
	return key ^ key >> 32;
}

static struct shard *
shard_of(const struct cache *c, uint64_t key)
{
	return &c->shards[(mix(key) >> 40) % c->opts.nshards];
}

static struct cache_block **
bucket_of(const struct cache *c, struct shard *s, uint64_t key)
{
	return &s->buckets[mix(key) & (c->nbuckets - 1)];
}

int
cache_new(const struct cache_opts *opts, struct cache **out, struct lc_err *e)
{
	struct cache *c = lc_alloc(sizeof *c);
	size_t limit = (opts->nblocks + opts->nshards - 1) / opts->nshards;
	unsigned i;

	if (c == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "cache: out of memory");
	c->opts = *opts;
	if (limit == 0)
		limit = 1;
	c->nbuckets = 16;
	while (c->nbuckets < limit && c->nbuckets < (size_t)1 << 20)
		c->nbuckets *= 2;
	c->shards = lc_alloc_array(opts->nshards, sizeof *c->shards);
	if (c->shards == NULL)
		goto fail;
	for (i = 0; i < opts->nshards; i++) {
		struct shard *s = &c->shards[i];

		s->limit = limit;
		TAILQ_INIT(&s->lru);
		s->buckets = lc_alloc_array(c->nbuckets, sizeof(struct cache_block *));
		if (s->buckets == NULL)
			goto fail;
		(void)pthread_mutex_init(&s->lock, NULL);
		(void)pthread_cond_init(&s->filled, NULL);
		c->nready++;
	}
	*out = c;
	return 0;
fail:
	cache_free(c);
	return lc_fail(e, LC_ENOMEM, 0, "cache: out of memory");
}

void
cache_free(struct cache *c)
{
	unsigned i;

	if (c == NULL)
		return;
	for (i = 0; i < c->nready; i++) {
		struct shard *s = &c->shards[i];
		struct cache_block *b;

		while ((b = TAILQ_FIRST(&s->lru)) != NULL) {
			TAILQ_REMOVE(&s->lru, b, lru);
			lc_free(b);
			s->nblocks--;
		}
		assert(s->nblocks == 0); /* else somebody holds one */
		(void)pthread_cond_destroy(&s->filled);
		(void)pthread_mutex_destroy(&s->lock);
	}
	for (i = 0; c->shards != NULL && i < c->opts.nshards; i++)
		lc_free(c->shards[i].buckets);
	lc_free(c->shards);
	lc_free(c);
}

/* ---- under the lock of the shard ---- */

static void
leave_table(const struct cache *c, struct cache_block *b)
{
	struct cache_block **p = bucket_of(c, b->shard, b->key);

	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
	b->next = NULL;
}

static struct cache_block *
find(const struct cache *c, struct shard *s, uint64_t key)
{
	struct cache_block *b = *bucket_of(c, s, key);

	while (b != NULL && b->key != key)
		b = b->next;
	return b;
}

/* A block for a new key: the least recently used one where the bound is reached, else a new one. */
static struct cache_block *
block_for(const struct cache *c, struct shard *s)
{
	struct cache_block *b = s->nblocks < s->limit ? NULL : TAILQ_LAST(&s->lru, block_list);

	if (b != NULL) {
		TAILQ_REMOVE(&s->lru, b, lru);
		leave_table(c, b);
		return b;
	}
	/* Not lc_alloc(): zeroing 64 KiB that are filled next would cost a tenth of the fill. */
	b = lc_realloc(NULL, sizeof *b + c->opts.block_size);
	if (b != NULL) {
		s->nblocks++;
		b->shard = s;
	}
	return b;
}

static void
drop(struct cache_block *b)
{
	b->shard->nblocks--;
	lc_free(b);
}

static void
let_go(const struct cache *c, struct cache_block *b)
{
	struct shard *s = b->shard;

	if (--b->holders > 0)
		return;
	if (b->state == BLOCK_FAILED) {
		drop(b);
	} else if (s->nblocks > s->limit) {
		leave_table(c, b);
		drop(b);
	} else {
		TAILQ_INSERT_HEAD(&s->lru, b, lru);
	}
}

/* ---- */

static int
give_error(const struct cache_block *b, struct lc_err *e)
{
	if (e != NULL && e->code == LC_OK)
		*e = b->err;
	return b->err.code;
}

/* Somebody has or makes it: wait until it is made. */
static int
share(struct cache *c, struct cache_block *b, struct lc_err *e)
{
	struct shard *s = b->shard;
	int rc = 0;

	if (b->holders++ == 0)
		TAILQ_REMOVE(&s->lru, b, lru);
	s->hits++;
	while (b->state == BLOCK_FILLING)
		(void)pthread_cond_wait(&s->filled, &s->lock);
	if (b->state == BLOCK_FAILED) {
		rc = give_error(b, e);
		let_go(c, b);
	}
	return rc;
}

/* Nobody has it: fill it, without the lock. */
static int
fill(struct cache *c, struct shard *s, uint64_t key, struct cache_block *b, struct lc_err *e)
{
	struct cache_block **bucket = bucket_of(c, s, key);
	int rc;

	b->key = key;
	b->holders = 1;
	b->state = BLOCK_FILLING;
	lc_err_clear(&b->err);
	b->next = *bucket;
	*bucket = b;
	s->fills++;
	(void)pthread_mutex_unlock(&s->lock);

	rc = c->opts.fill(c->opts.arg, key, b->data, &b->err);

	(void)pthread_mutex_lock(&s->lock);
	b->state = rc == 0 ? BLOCK_READY : BLOCK_FAILED;
	(void)pthread_cond_broadcast(&s->filled);
	if (rc != 0) {
		rc = give_error(b, e);
		leave_table(c, b);
		let_go(c, b);
	}
	return rc;
}

int
cache_get(struct cache *c, uint64_t key, struct cache_block **out, struct lc_err *e)
{
	struct shard *s = shard_of(c, key);
	struct cache_block *b;
	int rc;

	(void)pthread_mutex_lock(&s->lock);
	b = find(c, s, key);
	if (b != NULL) {
		rc = share(c, b, e);
	} else {
		b = block_for(c, s);
		rc = b == NULL ? lc_fail(e, LC_ENOMEM, 0, "cache: out of memory")
		               : fill(c, s, key, b, e);
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (rc == 0)
		*out = b;
	return rc;
}

const void *
cache_data(const struct cache_block *b)
{
	return b->data;
}

void
cache_put(struct cache *c, struct cache_block *b)
{
	struct shard *s = b->shard;

	(void)pthread_mutex_lock(&s->lock);
	let_go(c, b);
	(void)pthread_mutex_unlock(&s->lock);
}

void
cache_stats(struct cache *c, struct cache_stats *out)
{
	unsigned i;

	*out = (struct cache_stats){0};
	for (i = 0; i < c->opts.nshards; i++) {
		struct shard *s = &c->shards[i];

		(void)pthread_mutex_lock(&s->lock);
		out->hits += s->hits;
		out->fills += s->fills;
		out->blocks += s->nblocks;
		(void)pthread_mutex_unlock(&s->lock);
	}
}

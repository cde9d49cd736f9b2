/*
 * A block of 4096 bytes that says what the file is, then buckets of 256 bytes: 32 entries of
 * 64 bits, a chunk number above and a part of a tag below.  A tag has 36 bits: the lowest ones are
 * the number of its bucket, of which the first seven need not be in the entry; the highest ones
 * tell whether it is kept.  The table doubles as it fills, up to its limit.
 *
 * One in some thousand pages that are not there is found by chance, which is as good as a hint that
 * is old: a chunk is read for nothing.
 *
 * Blocks are read when they are touched and written back when many have changed, in no order: after
 * a crash some are old and some new, and each entry is as good as any.
 */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/pages.h"

#define BLOCK_SIZE 4096u
#define SLOTS 32u
#define ENTRY_SIZE ((size_t)8)
#define BUCKET_SIZE (SLOTS * ENTRY_SIZE)
#define BUCKETS_MIN (1u << BUCKET_BITS) /* 32 KiB, 3686 pages */
#define BUCKETS_MAX (1u << 24)          /* 4 GiB; tags are too short for more */
/* Percent at which it grows or, where it can't, every second tag goes.  Up to there three entries
 * in a hundred find their bucket full, and take the place of others. */
#define FULL_NUM 90u
#define LEVEL_MAX 12u
#define SETTLE_BLOCKS 512u /* that have changed */
#define BUCKET_BITS 7u
#define TAG_BITS 36u
#define PART_BITS (TAG_BITS - BUCKET_BITS) /* of a tag, in an entry */
#define TAG_MASK ((UINT64_C(1) << TAG_BITS) - 1)
#define CHUNK_MAX ((UINT64_C(1) << (64 - PART_BITS)) - 1)
#define TAG_SET (UINT64_C(1) << TAG_BITS) /* of a page that has something: never 0 */
#define HEAD_SIZE 72u
#define VERSION 2u

static const uint8_t magic[8] = "LOCUMPGS";

struct table {
	uint64_t buckets, entries;
	size_t blocks;
	uint8_t *bytes; /* [blocks * BLOCK_SIZE] */
	bool *loaded, *dirty;
	size_t ndirty;
};

struct pages {
	uint8_t key[SEAL_TAG_KEY];
	uint8_t store_id[16];
	int fd;
	uint64_t buckets_max;

	pthread_mutex_t lock; /* what follows */
	struct table t;
	unsigned level, turn;
};

/* ---- tags ---- */

static uint64_t
tag_of(const struct pages *x, const uint8_t *page)
{
	XXH128_hash_t h = XXH3_128bits(page, PAGE_SIZE);
	uint8_t digest[16];

	lc_put64(digest, h.low64);
	lc_put64(digest + 8, h.high64);
	return (seal_tag(x->key, (struct lc_span){digest, sizeof digest}) & TAG_MASK) | TAG_SET;
}

void
pages_tags(const struct pages *x, const uint8_t *window, struct page_tags *out)
{
	size_t i;

	for (i = 0; i < WINDOW_PAGES; i++) {
		const uint8_t *page = window + i * PAGE_SIZE;

		out->v[i] = lc_is_zero(page, PAGE_SIZE) ? 0 : tag_of(x, page);
	}
}

static bool
is_kept(uint64_t tag, unsigned level)
{
	return tag != 0 && (tag & TAG_MASK) >> (TAG_BITS - level) == 0;
}

/* ---- entries ---- */

struct entry {
	uint64_t tag, chunk;
};

static struct entry
get_entry(const uint8_t *slot, uint64_t bucket)
{
	uint64_t v = lc_get64(slot), part = v & ((UINT64_C(1) << PART_BITS) - 1);

	return (struct entry){part << BUCKET_BITS | (bucket & (BUCKETS_MIN - 1)), v >> PART_BITS};
}

static void
put_entry(uint8_t *slot, const struct entry *n)
{
	lc_put64(slot, n->chunk << PART_BITS | n->tag >> BUCKET_BITS);
}

static off_t
block_at(size_t block)
{
	return (off_t)(block + 1) * BLOCK_SIZE;
}

/* What can't be read is empty. */
static uint8_t *
bucket_locked(const struct pages *x, struct table *t, uint64_t n)
{
	size_t block = (size_t)(n * BUCKET_SIZE / BLOCK_SIZE);
	uint8_t *p = t->bytes + block * BLOCK_SIZE;

	if (!t->loaded[block] && pread(x->fd, p, BLOCK_SIZE, block_at(block)) != BLOCK_SIZE)
		memset(p, 0, BLOCK_SIZE);
	t->loaded[block] = true;
	return t->bytes + n * BUCKET_SIZE;
}

static uint64_t
find_locked(struct pages *x, uint64_t tag)
{
	uint64_t at = tag & (x->t.buckets - 1);
	const uint8_t *b = bucket_locked(x, &x->t, at);
	unsigned i;

	for (i = 0; i < SLOTS; i++) {
		struct entry n = get_entry(b + i * ENTRY_SIZE, at);

		if (n.chunk != 0 && n.tag == (tag & TAG_MASK))
			return n.chunk;
	}
	return 0;
}

/* Where it is already, where nothing is, or whose turn it is. */
static void
put_locked(struct pages *x, const struct entry *n)
{
	uint64_t at = n->tag & (x->t.buckets - 1);
	size_t block = (size_t)(at * BUCKET_SIZE / BLOCK_SIZE);
	uint8_t *b = bucket_locked(x, &x->t, at);
	unsigned i, slot = SLOTS;
	struct entry had;

	for (i = 0; i < SLOTS; i++) {
		had = get_entry(b + i * ENTRY_SIZE, at);
		if (had.chunk != 0 && had.tag == n->tag) {
			slot = i;
			break;
		}
		if (had.chunk == 0 && slot == SLOTS)
			slot = i;
	}
	if (slot == SLOTS)
		slot = x->turn++ % SLOTS;
	had = get_entry(b + slot * ENTRY_SIZE, at);
	x->t.entries += had.chunk == 0;
	put_entry(b + slot * ENTRY_SIZE, n);
	x->t.ndirty += !x->t.dirty[block];
	x->t.dirty[block] = true;
}

/* ---- its size ---- */

static void
table_done(struct table *t)
{
	lc_free(t->bytes);
	lc_free(t->loaded);
	lc_free(t->dirty);
}

static bool
table_init(struct table *t, uint64_t buckets)
{
	*t = (struct table){.buckets = buckets,
	                    .blocks = (size_t)(buckets * BUCKET_SIZE / BLOCK_SIZE)};
	t->bytes = lc_alloc_array(t->blocks, BLOCK_SIZE);
	t->loaded = lc_alloc_array(t->blocks, sizeof *t->loaded);
	t->dirty = lc_alloc_array(t->blocks, sizeof *t->dirty);
	if (t->bytes != NULL && t->loaded != NULL && t->dirty != NULL)
		return true;
	table_done(t);
	*t = (struct table){0};
	return false;
}

/* Twice the buckets, in the same memory: what a bucket holds stays, or goes to the same slot of the
 * one that comes as many further as there were.  Where there is no memory for it all stays as it
 * is. */
static void
grow_locked(struct pages *x)
{
	struct table *t = &x->t;
	uint64_t had = t->buckets, i;
	uint8_t *bytes = lc_realloc(t->bytes, t->blocks * 2 * BLOCK_SIZE);
	bool *loaded = lc_realloc(t->loaded, t->blocks * 2 * sizeof *loaded);
	bool *dirty = lc_realloc(t->dirty, t->blocks * 2 * sizeof *dirty);
	unsigned slot;

	t->bytes = bytes != NULL ? bytes : t->bytes;
	t->loaded = loaded != NULL ? loaded : t->loaded;
	t->dirty = dirty != NULL ? dirty : t->dirty;
	if (bytes == NULL || loaded == NULL || dirty == NULL)
		return;
	/* What lies in the file is of the table of before. */
	for (i = 0; i < had; i += BLOCK_SIZE / BUCKET_SIZE)
		(void)bucket_locked(x, t, i);
	memset(t->bytes + t->blocks * BLOCK_SIZE, 0, t->blocks * BLOCK_SIZE);
	t->blocks *= 2;
	t->buckets *= 2;
	memset(t->loaded, 1, t->blocks * sizeof *t->loaded);
	memset(t->dirty, 1, t->blocks * sizeof *t->dirty);
	t->ndirty = t->blocks;
	for (i = 0; i < had; i++) {
		for (slot = 0; slot < SLOTS; slot++) {
			uint8_t *from = t->bytes + i * BUCKET_SIZE + slot * ENTRY_SIZE;
			struct entry n = get_entry(from, i);

			if ((n.tag & had) == 0)
				continue;
			put_entry(from + had * BUCKET_SIZE, &n);
			memset(from, 0, ENTRY_SIZE);
		}
	}
}

/* Every second tag goes. */
static void
thin_locked(struct pages *x)
{
	struct table *t = &x->t;
	uint64_t i;
	unsigned slot;

	x->level++;
	t->entries = 0;
	for (i = 0; i < t->buckets; i++) {
		uint8_t *b = bucket_locked(x, t, i);

		for (slot = 0; slot < SLOTS; slot++) {
			struct entry n = get_entry(b + slot * ENTRY_SIZE, i);

			if (n.chunk != 0 && is_kept(n.tag | TAG_SET, x->level))
				t->entries++;
			else
				memset(b + slot * ENTRY_SIZE, 0, ENTRY_SIZE);
		}
	}
	memset(t->dirty, 1, t->blocks * sizeof *t->dirty);
	t->ndirty = t->blocks;
}

static void
fit_locked(struct pages *x)
{
	uint64_t percent = x->t.entries * 100 / (x->t.buckets * SLOTS);

	if (percent <= FULL_NUM)
		return;
	if (x->t.buckets < x->buckets_max)
		grow_locked(x);
	else if (x->level < LEVEL_MAX)
		thin_locked(x);
}

/* ---- the file ---- */

/* The head: magic, version, level, buckets, entries, store, a tag under the key, checksum. */
static void
encode_head(const struct pages *x, uint8_t head[HEAD_SIZE])
{
	memset(head, 0, HEAD_SIZE);
	memcpy(head, magic, sizeof magic);
	lc_put32(head + 8, VERSION);
	lc_put32(head + 12, x->level);
	lc_put64(head + 16, x->t.buckets);
	lc_put64(head + 24, x->t.entries);
	memcpy(head + 32, x->store_id, 16);
	lc_put64(head + 48, seal_tag(x->key, (struct lc_span){x->store_id, sizeof x->store_id}));
	lc_put64(head + HEAD_SIZE - 8, XXH3_64bits(head, HEAD_SIZE - 8));
}

/* Whether the file holds a table of this store and key; its level and size, then. */
static bool
take_head(struct pages *x)
{
	uint8_t head[HEAD_SIZE], want[HEAD_SIZE];

	if (pread(x->fd, head, sizeof head, 0) != (ssize_t)sizeof head)
		return false;
	x->level = lc_get32(head + 12);
	x->t.buckets = lc_get64(head + 16);
	x->t.entries = lc_get64(head + 24);
	encode_head(x, want);
	return memcmp(head, want, sizeof head) == 0 && x->level <= LEVEL_MAX &&
	       x->t.buckets >= BUCKETS_MIN && x->t.buckets <= x->buckets_max &&
	       (x->t.buckets & (x->t.buckets - 1)) == 0 && x->t.entries <= x->t.buckets * SLOTS;
}

/* Best effort: what does not get there is forgotten. */
static void
write_locked(struct pages *x)
{
	uint8_t head[HEAD_SIZE];
	size_t i;

	if (x->t.ndirty == 0)
		return;
	for (i = 0; i < x->t.blocks; i++) {
		if (x->t.dirty[i])
			(void)!pwrite(x->fd, x->t.bytes + i * BLOCK_SIZE, BLOCK_SIZE, block_at(i));
		x->t.dirty[i] = false;
	}
	x->t.ndirty = 0;
	encode_head(x, head);
	(void)!pwrite(x->fd, head, sizeof head, 0);
}

static bool
load_table(struct pages *x)
{
	bool there = take_head(x);
	uint64_t entries = there ? x->t.entries : 0;

	if (!there) {
		(void)!ftruncate(x->fd, 0);
		x->level = 0;
	}
	if (!table_init(&x->t, there ? x->t.buckets : BUCKETS_MIN))
		return false;
	x->t.entries = entries;
	return true;
}

int
pages_open(const char *path, const struct keyring *k, const uint8_t store_id[16], uint64_t bytes,
           struct pages **out, struct lc_err *e)
{
	struct pages *x = lc_alloc(sizeof *x);
	int rc = 0;

	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	seal_tag_key(k, x->key);
	memcpy(x->store_id, store_id, sizeof x->store_id);
	(void)pthread_mutex_init(&x->lock, NULL);
	for (x->buckets_max = BUCKETS_MIN;
	     x->buckets_max < BUCKETS_MAX && x->buckets_max * 2 * BUCKET_SIZE <= bytes;)
		x->buckets_max *= 2;
	x->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (x->fd < 0)
		rc = lc_fail_errno(e, "%s", path);
	else if (!load_table(x))
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (rc != 0) {
		pages_close(x);
		return rc;
	}
	*out = x;
	return 0;
}

void
pages_close(struct pages *x)
{
	if (x == NULL)
		return;
	write_locked(x);
	table_done(&x->t);
	fd_close(&x->fd);
	(void)pthread_mutex_destroy(&x->lock);
	explicit_bzero(x->key, sizeof x->key);
	lc_free(x);
}

/* ---- use ---- */

unsigned
pages_find(struct pages *x, const struct page_tags *t, uint64_t chunks[WINDOW_PAGES])
{
	unsigned kept = 0;
	size_t i;

	(void)pthread_mutex_lock(&x->lock);
	for (i = 0; i < WINDOW_PAGES; i++) {
		chunks[i] = 0;
		if (!is_kept(t->v[i], x->level))
			continue;
		kept++;
		chunks[i] = find_locked(x, t->v[i]);
	}
	(void)pthread_mutex_unlock(&x->lock);
	return kept;
}

void
pages_put(struct pages *x, const struct page_tags *t, uint64_t chunk)
{
	size_t i;

	if (chunk == 0 || chunk > CHUNK_MAX)
		return;
	(void)pthread_mutex_lock(&x->lock);
	for (i = 0; i < WINDOW_PAGES; i++) {
		struct entry n = {t->v[i] & TAG_MASK, chunk};

		if (is_kept(t->v[i], x->level))
			put_locked(x, &n);
	}
	fit_locked(x);
	(void)pthread_mutex_unlock(&x->lock);
}

void
pages_settle(struct pages *x)
{
	(void)pthread_mutex_lock(&x->lock);
	if (x->t.ndirty >= SETTLE_BLOCKS)
		write_locked(x);
	(void)pthread_mutex_unlock(&x->lock);
}

unsigned
pages_level(struct pages *x)
{
	unsigned level;

	(void)pthread_mutex_lock(&x->lock);
	level = x->level;
	(void)pthread_mutex_unlock(&x->lock);
	return level;
}

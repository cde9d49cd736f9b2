#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/idrun.h"

/* <dir>/<n>.run: a header, blocks, entries.  Everything is little-endian.
 *
 * header   0 magic, 8 u16 version, 10 zeros, 16 store id, 32 u64 from, 40 u64 until, 48 u64 number
 *          of entries, 56 u64 number of blocks, 64 u64 hash of the blocks, 72 u64 hash of the
 *          entries, 80 zeros, 120 u64 XXH3 of the 120 bytes before
 * block    u64 index of its first entry, 56 bytes Bloom filter
 * entry    16 bytes of id, u64 chunk number; ascending by id
 *
 * Ids are hashes, so they are spread evenly: the upper 8 bytes of an id, as a fraction of all ids,
 * say which block is its own, and a block has about 44 entries.  A lookup looks into one block
 * and, where the filter does not rule the id out, reads the entries from the block's first to the
 * next block's first.  Ids that are not even (a hostile writer can choose them) cost a binary
 * search.
 *
 * Run files are read, not mapped: a bad sector or a truncated file under a mapping would be
 * SIGBUS, and this index is not worth a process. */
#define RUN_VERSION 1u
#define HEADER_SIZE 128u
#define BLOCK_SIZE 64u
#define BLOCK_FILTER (BLOCK_SIZE - 8u)
#define BLOCK_IDS 44u /* on average: 10 bits of filter each */
#define FILTER_HASHES 6u
#define NEAR 128u     /* entries that are read at once */
#define PIECE 196608u /* bytes read, written and hashed at once: whole blocks, whole entries */
#define BLOCKS_KEEP (16u << 20) /* blocks up to this size are kept in memory: 11 million ids */

static const char run_magic[8] = "LOCUMIDX";

_Static_assert(PIECE % BLOCK_SIZE == 0 && PIECE % IDRUN_ENTRY == 0, "pieces hold whole items");

static uint64_t
block_of(const uint8_t *id, uint64_t nblocks)
{
	uint64_t upper;

	memcpy(&upper, id, sizeof upper);
	upper = __builtin_bswap64(upper);
	return (uint64_t)(((unsigned __int128)upper * nblocks) >> 64);
}

static unsigned
filter_bit(const uint8_t *id, unsigned i)
{
	/* Nine bits at a time of the id's second 8 bytes, scaled to the filter's bits. */
	unsigned v = (unsigned)(lc_get64(id + 8) >> (9 * i)) & 511u;

	return v * (BLOCK_FILTER * 8u) >> 9;
}

static void
filter_set(uint8_t *filter, const uint8_t *id)
{
	unsigned i, bit;

	for (i = 0; i < FILTER_HASHES; i++) {
		bit = filter_bit(id, i);
		filter[bit / 8] = (uint8_t)(filter[bit / 8] | 1u << bit % 8);
	}
}

static bool
filter_has(const uint8_t *filter, const uint8_t *id)
{
	unsigned i, bit;

	for (i = 0; i < FILTER_HASHES; i++) {
		bit = filter_bit(id, i);
		if ((filter[bit / 8] >> bit % 8 & 1) == 0)
			return false;
	}
	return true;
}

static uint64_t
entries_at(const struct idrun *r)
{
	return HEADER_SIZE + r->nblocks * BLOCK_SIZE;
}

static char *
run_path(const char *dir, uint64_t file, const char *tail)
{
	return lc_asprintf("%s/%" PRIu64 ".run%s", dir, file, tail);
}

void
idrun_close(struct idrun *r)
{
	fd_close(&r->fd);
	lc_free(r->blocks);
	r->blocks = NULL;
}

void
idrun_delete(const char *dir, struct idrun *r)
{
	char *path = run_path(dir, r->file, "");

	idrun_close(r);
	if (path != NULL)
		(void)unlink(path);
	lc_free(path);
}

size_t
idrun_memory(const struct idrun *r)
{
	return r->blocks == NULL ? 0 : (size_t)r->nblocks * BLOCK_SIZE;
}

static bool
read_at(int fd, uint8_t *p, size_t n, uint64_t off)
{
	ssize_t got;

	while (n > 0) {
		got = pread(fd, p, n, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
		off += (uint64_t)got;
	}
	return true;
}

bool
idrun_find(const struct idrun *r, const uint8_t *id, uint64_t *number)
{
	uint64_t block = block_of(id, r->nblocks), lo, hi, mid;
	uint8_t read[BLOCK_SIZE + 8], near[NEAR * IDRUN_ENTRY];
	const uint8_t *b = read;
	bool last = block + 1 == r->nblocks;
	int order;

	if (r->blocks != NULL)
		b = r->blocks + block * BLOCK_SIZE;
	else if (!read_at(r->fd, read, last ? BLOCK_SIZE : BLOCK_SIZE + 8,
	                  HEADER_SIZE + block * BLOCK_SIZE))
		return false;
	if (!filter_has(b + 8, id))
		return false;
	lo = lc_get64(b);
	hi = last ? r->count : lc_get64(b + BLOCK_SIZE);
	if (lo >= hi || hi > r->count)
		return false;
	while (hi - lo > NEAR) { /* Only where ids are not even. */
		mid = lo + (hi - lo) / 2;
		if (!read_at(r->fd, near, IDRUN_PREFIX, entries_at(r) + mid * IDRUN_ENTRY))
			return false;
		if (memcmp(near, id, IDRUN_PREFIX) <= 0)
			lo = mid;
		else
			hi = mid;
	}
	if (!read_at(r->fd, near, (size_t)(hi - lo) * IDRUN_ENTRY,
	             entries_at(r) + lo * IDRUN_ENTRY))
		return false;
	hi -= lo;
	for (lo = 0; lo < hi;) {
		mid = lo + (hi - lo) / 2;
		order = memcmp(near + mid * IDRUN_ENTRY, id, IDRUN_PREFIX);
		if (order == 0) {
			*number = lc_get64(near + mid * IDRUN_ENTRY + IDRUN_PREFIX);
			return true;
		}
		if (order < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

static void
header_encode(uint8_t h[HEADER_SIZE], const uint8_t store_id[16], const struct idrun *r)
{
	memset(h, 0, HEADER_SIZE);
	memcpy(h, run_magic, sizeof run_magic);
	lc_put16(h + 8, RUN_VERSION);
	memcpy(h + 16, store_id, 16);
	lc_put64(h + 32, r->from);
	lc_put64(h + 40, r->until);
	lc_put64(h + 48, r->count);
	lc_put64(h + 56, r->nblocks);
	lc_put64(h + 64, r->blocks_hash);
	lc_put64(h + 72, r->entries_hash);
	lc_put64(h + 120, XXH3_64bits(h, 120));
}

static bool
header_decode(const uint8_t h[HEADER_SIZE], const uint8_t store_id[16], uint64_t size,
              struct idrun *r)
{
	if (memcmp(h, run_magic, sizeof run_magic) != 0 || lc_get16(h + 8) != RUN_VERSION ||
	    lc_get64(h + 120) != XXH3_64bits(h, 120) || memcmp(h + 16, store_id, 16) != 0)
		return false;
	r->from = lc_get64(h + 32);
	r->until = lc_get64(h + 40);
	r->count = lc_get64(h + 48);
	r->nblocks = lc_get64(h + 56);
	r->blocks_hash = lc_get64(h + 64);
	r->entries_hash = lc_get64(h + 72);
	/* Bounded by the file's size first, so that the sum does not wrap. */
	return r->from < r->until && r->nblocks > 0 && r->count <= size / IDRUN_ENTRY &&
	       r->nblocks <= size / BLOCK_SIZE && entries_at(r) + r->count * IDRUN_ENTRY == size;
}

/* The hash of a region: XXH3 of each piece, seeded with the hash of the piece before. */
static uint64_t
hash_more(uint64_t hash, const uint8_t *p, size_t n)
{
	size_t piece;

	for (; n > 0; n -= piece, p += piece) {
		piece = n < PIECE ? n : PIECE;
		hash = XXH3_64bits_withSeed(p, piece, hash);
	}
	return hash;
}

/* Keeps the blocks in memory where they are few, which spares a lookup of a new id every read.
 * False where they are damaged. */
static bool
blocks_load(struct idrun *r)
{
	size_t n = (size_t)r->nblocks * BLOCK_SIZE;

	if (r->nblocks > BLOCKS_KEEP / BLOCK_SIZE)
		return true;
	r->blocks = lc_alloc(n);
	if (r->blocks == NULL)
		return true; /* Works without. */
	return read_at(r->fd, r->blocks, n, HEADER_SIZE) &&
	       hash_more(0, r->blocks, n) == r->blocks_hash;
}

/* A run is not read whole at open: where its bytes are bad, its answers are ids missed or
 * candidates that the caller refutes.  Its entries are checked when it is merged. */
bool
idrun_open(const char *dir, const uint8_t store_id[16], uint64_t file, struct idrun *r)
{
	char *path = run_path(dir, file, "");
	uint8_t h[HEADER_SIZE];
	struct stat st;
	bool good;

	*r = (struct idrun){.fd = -1, .file = file};
	if (path != NULL)
		r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	lc_free(path);
	good = r->fd >= 0 && fstat(r->fd, &st) == 0 && S_ISREG(st.st_mode) &&
	       read_at(r->fd, h, sizeof h, 0) &&
	       header_decode(h, store_id, (uint64_t)st.st_size, r) && blocks_load(r);
	if (!good)
		idrun_close(r);
	else
		(void)posix_fadvise(r->fd, 0, 0, POSIX_FADV_RANDOM);
	return good;
}

/* Merging. */

struct source { /* sorted entries: of a run, or the ones from memory (then run is NULL) */
	const struct idrun *run;
	uint8_t *piece;
	const uint8_t *p;
	size_t n;      /* bytes left at p */
	uint64_t left; /* bytes not read yet */
	uint64_t hash;
};

struct region { /* a part of the file that is being written front to back */
	uint8_t *piece;
	size_t n;
	uint64_t off;
	uint64_t hash;
};

struct merge {
	const struct idrun_merge *what;
	struct idrun *run; /* the one being written */
	char *tmp;
	struct source sources[IDRUNS_MAX + 1]; /* as what->runs, then what->sorted */
	unsigned nsources;
	struct region blocks, entries;
	uint64_t nblock; /* the one being filled */
	uint8_t block[BLOCK_SIZE];
	uint8_t last[IDRUN_PREFIX];
	unsigned bad; /* the source that turned out damaged */
};

static int
source_refill(struct merge *m, struct source *s, struct lc_err *e)
{
	size_t n = s->left < PIECE ? (size_t)s->left : PIECE;
	uint64_t end = entries_at(s->run) + s->run->count * IDRUN_ENTRY;
	int rc;

	rc = file_pread_full(s->run->fd, s->piece, n, end - s->left, "run", e);
	if (rc == 0) {
		s->hash = hash_more(s->hash, s->piece, n);
		s->left -= n;
		s->p = s->piece;
		s->n = n;
		if (s->left == 0 && s->hash != s->run->entries_hash)
			rc = lc_fail(e, LC_ECORRUPT, 0, "entries failed their check");
	}
	if (rc != 0) {
		m->bad = (unsigned)(s - m->sources);
		lc_wrap(e, "id index %s/%" PRIu64 ".run", m->what->dir, s->run->file);
	}
	return rc;
}

/* The next entry, NULL in *entry at the end. */
static int
source_head(struct merge *m, struct source *s, const uint8_t **entry, struct lc_err *e)
{
	int rc;

	*entry = NULL;
	if (s->n == 0 && s->left > 0) {
		rc = source_refill(m, s, e);
		if (rc != 0)
			return rc;
	}
	if (s->n > 0)
		*entry = s->p;
	return 0;
}

static int
region_flush(struct merge *m, struct region *g, struct lc_err *e)
{
	int rc;

	if (g->n == 0)
		return 0;
	rc = failpoint("idindex.write");
	if (rc != 0)
		return lc_fail(e, rc == ENOSPC ? LC_ENOSPC : LC_EIO, rc, "%s: write", m->tmp);
	rc = file_pwrite_full(m->run->fd, g->piece, g->n, g->off, m->tmp, e);
	g->hash = hash_more(g->hash, g->piece, g->n);
	g->off += g->n;
	g->n = 0;
	return rc;
}

static int
region_put(struct merge *m, struct region *g, const uint8_t *p, size_t n, struct lc_err *e)
{
	memcpy(g->piece + g->n, p, n);
	g->n += n;
	return g->n == PIECE ? region_flush(m, g, e) : 0;
}

/* Writes out blocks until `block` is the one being filled. */
static int
merge_to_block(struct merge *m, uint64_t block, struct lc_err *e)
{
	int rc = 0;

	while (rc == 0 && m->nblock < block) {
		rc = region_put(m, &m->blocks, m->block, BLOCK_SIZE, e);
		m->nblock++;
		memset(m->block, 0, sizeof m->block);
		lc_put64(m->block, m->run->count);
	}
	return rc;
}

static int
merge_emit(struct merge *m, const uint8_t *entry, struct lc_err *e)
{
	int rc = merge_to_block(m, block_of(entry, m->run->nblocks), e);

	if (rc == 0)
		rc = region_put(m, &m->entries, entry, IDRUN_ENTRY, e);
	filter_set(m->block + 8, entry);
	memcpy(m->last, entry, IDRUN_PREFIX);
	m->run->count++;
	return rc;
}

/* Takes the lowest entry off the sources; *entry NULL at the end. */
static int
merge_next(struct merge *m, const uint8_t **entry, struct lc_err *e)
{
	const uint8_t *heads[IDRUNS_MAX + 1];
	struct source *lowest = NULL;
	unsigned i;
	int rc;

	*entry = NULL;
	for (i = 0; i < m->nsources; i++) {
		rc = source_head(m, &m->sources[i], &heads[i], e);
		if (rc != 0)
			return rc;
		if (heads[i] != NULL &&
		    (*entry == NULL || memcmp(heads[i], *entry, IDRUN_PREFIX) <= 0)) {
			*entry = heads[i];
			lowest = &m->sources[i];
		}
	}
	if (lowest == NULL)
		return 0;
	if (m->run->count > 0 && memcmp(*entry, m->last, IDRUN_PREFIX) <= 0) {
		m->bad = (unsigned)(lowest - m->sources);
		return lc_fail(e, LC_ECORRUPT, 0, "id index in %s: run is not in order",
		               m->what->dir);
	}
	for (i = 0; i < m->nsources; i++) {
		if (heads[i] != NULL && memcmp(heads[i], *entry, IDRUN_PREFIX) == 0) {
			m->sources[i].p += IDRUN_ENTRY;
			m->sources[i].n -= IDRUN_ENTRY;
		}
	}
	return 0;
}

static int
merge_write(struct merge *m, struct lc_err *e)
{
	uint8_t h[HEADER_SIZE];
	const uint8_t *entry;
	int rc;

	for (;;) {
		rc = merge_next(m, &entry, e);
		if (rc != 0)
			return rc;
		if (entry == NULL)
			break;
		rc = merge_emit(m, entry, e);
		if (rc != 0)
			return rc;
	}
	rc = merge_to_block(m, m->run->nblocks, e);
	if (rc == 0)
		rc = region_flush(m, &m->blocks, e);
	if (rc == 0)
		rc = region_flush(m, &m->entries, e);
	if (rc != 0)
		return rc;
	m->run->blocks_hash = m->blocks.hash;
	m->run->entries_hash = m->entries.hash;
	header_encode(h, m->what->store_id, m->run);
	rc = file_pwrite_full(m->run->fd, h, sizeof h, 0, m->tmp, e);
	if (rc == 0 && fsync(m->run->fd) != 0)
		rc = lc_fail_errno(e, "%s: fsync", m->tmp);
	return rc;
}

static int
merge_publish(struct merge *m, struct lc_err *e)
{
	char *path = run_path(m->what->dir, m->run->file, "");
	int rc = 0, fault;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "id index: out of memory");
	fault = failpoint("idindex.rename");
	if (fault != 0)
		rc = lc_fail(e, LC_EIO, fault, "%s: rename", m->tmp);
	else if (rename(m->tmp, path) != 0)
		rc = lc_fail_errno(e, "%s: rename", m->tmp);
	if (rc == 0) {
		rc = dir_sync(m->what->dir, e);
		if (rc != 0)
			(void)unlink(path);
	}
	lc_free(path);
	return rc;
}

static int
merge_start(struct merge *m, struct lc_err *e)
{
	uint64_t total = m->what->nsorted;
	struct source *s = m->sources;
	bool good = true;
	unsigned i;

	for (i = 0; i < m->what->nruns; i++, s++) {
		s->run = &m->what->runs[i];
		s->left = s->run->count * IDRUN_ENTRY;
		s->piece = lc_alloc(PIECE);
		good = good && s->piece != NULL;
		total += s->run->count;
	}
	s->p = m->what->sorted;
	s->n = m->what->nsorted * IDRUN_ENTRY;
	m->nsources = i + 1;
	m->run->count = 0;
	m->run->nblocks = (total + BLOCK_IDS - 1) / BLOCK_IDS;
	m->blocks.off = HEADER_SIZE;
	m->entries.off = entries_at(m->run);
	m->blocks.piece = lc_alloc(PIECE);
	m->entries.piece = lc_alloc(PIECE);
	m->tmp = run_path(m->what->dir, m->run->file, ".tmp");
	if (!good || m->blocks.piece == NULL || m->entries.piece == NULL || m->tmp == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "id index: out of memory");
	m->run->fd = open(m->tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (m->run->fd < 0)
		return lc_fail_errno(e, "%s: create", m->tmp);
	return 0;
}

static void
merge_free(struct merge *m)
{
	unsigned i;

	for (i = 0; i < m->nsources; i++)
		lc_free(m->sources[i].piece);
	lc_free(m->blocks.piece);
	lc_free(m->entries.piece);
	lc_free(m->tmp);
	lc_free(m);
}

int
idrun_write(const struct idrun_merge *what, struct idrun *r, unsigned *bad, struct lc_err *e)
{
	struct merge *m = lc_alloc(sizeof *m);
	int rc;

	assert(what->nruns <= IDRUNS_MAX && what->nsorted > 0);
	*bad = IDRUNS_MAX;
	r->fd = -1;
	r->blocks = NULL;
	if (m == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "id index: out of memory");
	m->what = what;
	m->run = r;
	m->bad = IDRUNS_MAX;
	rc = merge_start(m, e);
	if (rc == 0)
		rc = merge_write(m, e);
	if (rc == 0)
		rc = merge_publish(m, e);
	if (rc == 0) {
		(void)posix_fadvise(r->fd, 0, 0, POSIX_FADV_RANDOM);
		(void)blocks_load(r);
	} else {
		if (r->fd >= 0)
			(void)unlink(m->tmp);
		fd_close(&r->fd);
	}
	*bad = m->bad;
	merge_free(m);
	return rc;
}

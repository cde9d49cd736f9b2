/*
 * Verifying points with the key.
 *
 * A point's rows are looked up first, which gives the set hash of its map and the numbers of the
 * chunks that it takes; then each of those is read once, whatever number of windows and points it
 * is in, in the order of their numbers, which is that of the log.  Numbers are bits of a range; a
 * store of more than that takes several turns.  Only where a chunk is bad the map is looked through
 * again, to say which windows that are.
 *
 * A number names the same content for good, so what was found to be good once counts for all points
 * that are verified with it.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/workers.h"
#include "store/store_internal.h"

#define MAP_PART 1024u /* rows that a thread looks up at once */
#define IDS_PART 256u  /* the reads of others wait no longer for that than for a chunk */
#define READ_PART 64u  /* chunks that a thread takes at once ... */
#define AHEAD 512u     /* ... and of so many more the system knows that they come next */
#define RANGE (UINT64_C(1) << 28)
#define THREADS_MAX 64u

struct bits {
	uint64_t *word; /* owned */
};

struct verified {
	uint64_t range;          /* numbers in one turn */
	struct bits need, known; /* of this turn; known: good, in the first range of numbers */
};

struct verify {
	struct view *v;
	struct verified *all;
	void (*on_progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
	uint64_t base; /* the first number of this turn */
	void (*work)(struct verify *x, struct chunk_reader *r);
	atomic_bool over; /* somebody failed for good */

	pthread_mutex_t lock; /* what follows, and *all */
	size_t disk;          /* next rows */
	uint64_t window;
	struct set_sum sum;
	uint64_t end;         /* behind the last number of this turn, from base on */
	uint64_t beyond;      /* the first one of a turn to come, or UINT64_MAX */
	uint64_t next, ahead; /* next bits to look at: to be read, and to be known */
	uint64_t found, done; /* chunks of this turn */
	struct lc_buf bad;    /* uint64_t: numbers */
	uint64_t lost;        /* chunk that `err` is of, or 0 */
	struct lc_err err;
};

/* ---- numbers ---- */

static bool
bits_new(struct bits *b, uint64_t n)
{
	b->word = lc_alloc_array((size_t)(n / 64), sizeof *b->word);
	return b->word != NULL;
}

static bool
bit_get(const struct bits *b, uint64_t i)
{
	return (b->word[i / 64] >> i % 64 & 1) != 0;
}

static void
bit_set(struct bits *b, uint64_t i)
{
	b->word[i / 64] |= UINT64_C(1) << i % 64;
}

/* The next that are set, at most n of them, from *from on and below end. */
static uint32_t
bits_next(const struct bits *b, uint64_t *from, uint64_t end, uint64_t base, uint64_t *out,
          uint32_t n)
{
	uint32_t got = 0;

	while (got < n && *from < end) {
		if (b->word[*from / 64] == 0) {
			*from = (*from / 64 + 1) * 64;
			continue;
		}
		if (bit_get(b, *from))
			out[got++] = base + *from;
		++*from;
	}
	return got;
}

int
verified_new(uint64_t range, struct verified **out, struct lc_err *e)
{
	struct verified *a = lc_alloc(sizeof *a);

	if (a != NULL)
		a->range = range == 0 ? RANGE : (range + 63) / 64 * 64;
	/* Most of it is never touched, and takes nothing. */
	if (a == NULL || !bits_new(&a->need, a->range) || !bits_new(&a->known, a->range)) {
		verified_free(a);
		return lc_fail(e, LC_ENOMEM, 0, "verify: out of memory");
	}
	*out = a;
	return 0;
}

void
verified_free(struct verified *a)
{
	if (a == NULL)
		return;
	lc_free(a->need.word);
	lc_free(a->known.word);
	lc_free(a);
}

static void
give_up(struct verify *x, uint64_t chunk, const struct lc_err *err)
{
	(void)pthread_mutex_lock(&x->lock);
	if (x->err.code == LC_OK) {
		x->err = *err;
		x->lost = chunk;
	}
	(void)pthread_mutex_unlock(&x->lock);
	atomic_store(&x->over, true);
}

/* ---- the rows ---- */

/* The next rows to look up; false when there are none. */
static bool
next_rows(struct verify *x, size_t *disk, uint64_t *first, uint32_t *n)
{
	const struct point *p = &x->v->p;
	bool more = false;

	(void)pthread_mutex_lock(&x->lock);
	while (x->disk < p->ndisks && x->window >= point_windows(p->disks[x->disk].size)) {
		x->disk++;
		x->window = 0;
	}
	if (x->disk < p->ndisks && !atomic_load(&x->over)) {
		uint64_t left = point_windows(p->disks[x->disk].size) - x->window;

		*disk = x->disk;
		*first = x->window;
		*n = left < MAP_PART ? (uint32_t)left : MAP_PART;
		x->window += *n;
		more = true;
	}
	(void)pthread_mutex_unlock(&x->lock);
	return more;
}

/* A row names a chunk that the catalog has not: one by one, to leave out that. */
static int
add_singly(struct verify *x, size_t disk, uint64_t first, const uint64_t *chunks, uint32_t n,
           struct set_sum *sum)
{
	uint8_t id[1][CHUNK_ID_SIZE];
	uint32_t i;
	int rc = 0;

	for (i = 0; i < n && (rc == 0 || rc == LC_ENOENT); i++) {
		rc = chunks[i] == 0 ? 0
		                    : catalog_chunk_ids(x->v->s->catalog, chunks + i, 1, id, NULL);
		if (rc == 0 && chunks[i] != 0)
			view_add(x->v, disk, first + i, id[0], sum);
	}
	return rc == LC_ENOENT ? 0 : rc;
}

static int
add_rows(struct verify *x, size_t disk, uint64_t first, const uint64_t *chunks, uint32_t n,
         struct set_sum *sum, struct lc_err *e)
{
	uint8_t ids[IDS_PART][CHUNK_ID_SIZE];
	struct lc_err err = LC_ERR_INIT;
	uint32_t i, k, part;
	int rc = 0;

	for (i = 0; rc == 0 && i < n; i += part) {
		part = n - i < IDS_PART ? n - i : IDS_PART;
		rc = catalog_chunk_ids(x->v->s->catalog, chunks + i, part, ids, &err);
		for (k = 0; rc == 0 && k < part; k++) {
			if (chunks[i + k] != 0)
				view_add(x->v, disk, first + i + k, ids[k], sum);
		}
		if (rc == LC_ENOENT)
			rc = add_singly(x, disk, first + i, chunks + i, part, sum);
	}
	return rc == 0 ? 0 : lc_fail(e, (enum lc_code)rc, 0, "%s", err.msg);
}

/* Chunks of this turn that are not known to be good. */
static void
need_rows(struct verify *x, const uint64_t *chunks, uint32_t n)
{
	struct verified *all = x->all;
	uint32_t i;

	(void)pthread_mutex_lock(&x->lock);
	for (i = 0; i < n; i++) {
		uint64_t no = chunks[i] - x->base;

		if (chunks[i] == 0 || chunks[i] < x->base)
			continue;
		if (no >= all->range) {
			x->beyond = chunks[i] < x->beyond ? chunks[i] : x->beyond;
		} else if (!bit_get(&all->need, no) &&
		           (x->base != 0 || !bit_get(&all->known, no))) {
			bit_set(&all->need, no);
			x->end = no >= x->end ? no + 1 : x->end;
			x->found++;
		}
	}
	(void)pthread_mutex_unlock(&x->lock);
}

static void
look_up(struct verify *x, struct chunk_reader *r)
{
	uint64_t chunks[MAP_PART], first;
	struct lc_err err = LC_ERR_INIT;
	struct set_sum sum = {0};
	size_t disk;
	uint32_t n;
	int rc = 0;

	(void)r;
	while (rc == 0 && next_rows(x, &disk, &first, &n)) {
		rc = view_map(x->v, disk, first, n, chunks, &err);
		if (rc == 0 && x->base == 0)
			rc = add_rows(x, disk, first, chunks, n, &sum, &err);
		if (rc == 0)
			need_rows(x, chunks, n);
	}
	if (rc != 0)
		give_up(x, 0, &err);
	(void)pthread_mutex_lock(&x->lock);
	set_add(&x->sum, &sum);
	(void)pthread_mutex_unlock(&x->lock);
}

/* ---- the chunks ---- */

/* The next chunks to read, and those that come after them. */
static uint32_t
next_chunks(struct verify *x, uint64_t chunks[READ_PART], uint64_t ahead[AHEAD], uint32_t *nahead)
{
	uint32_t n;

	(void)pthread_mutex_lock(&x->lock);
	n = atomic_load(&x->over)
	        ? 0
	        : bits_next(&x->all->need, &x->next, x->end, x->base, chunks, READ_PART);
	x->ahead = x->ahead < x->next ? x->next : x->ahead;
	/* As far as the bits are dense, which is what it is for. */
	*nahead = x->ahead - x->next >= AHEAD
	              ? 0
	              : bits_next(&x->all->need, &x->ahead, x->end, x->base, ahead, AHEAD);
	(void)pthread_mutex_unlock(&x->lock);
	return n;
}

static void
chunks_are_good(struct verify *x, const uint64_t *chunks, size_t n)
{
	size_t i;

	if (x->base != 0)
		return;
	(void)pthread_mutex_lock(&x->lock);
	for (i = 0; i < n; i++)
		bit_set(&x->all->known, chunks[i]);
	(void)pthread_mutex_unlock(&x->lock);
}

static int
chunk_is_bad(struct verify *x, uint64_t chunk, struct lc_err *e)
{
	int rc;

	(void)pthread_mutex_lock(&x->lock);
	rc = lc_buf_append(&x->bad, &chunk, sizeof chunk);
	(void)pthread_mutex_unlock(&x->lock);
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "verify: out of memory");
}

/* Those that are bad are put down, and the others are looked at all the same. */
static int
read_part(struct verify *x, struct chunk_reader *r, uint8_t *windows, const uint64_t *chunks,
          uint32_t n)
{
	uint8_t ids[CHUNK_MANY][CHUNK_ID_SIZE];
	struct lc_err err = LC_ERR_INIT;
	size_t i, good = 0;
	int rc = 0;

	for (i = 0; rc == 0 && i < n && !atomic_load(&x->over); i += good) {
		rc = chunk_read_many(r, chunks + i, n - i, windows, ids, &good, &err);
		chunks_are_good(x, chunks + i, good);
		if (rc == LC_ECORRUPT || rc == LC_EIO) {
			lc_err_clear(&err);
			rc = chunk_is_bad(x, chunks[i + good], &err);
			good += rc == 0;
		}
	}
	if (rc != 0)
		give_up(x, chunks[i], &err);
	return rc;
}

static void
read_chunks(struct verify *x, struct chunk_reader *r)
{
	uint64_t chunks[READ_PART] = {0}, ahead[AHEAD];
	uint8_t *windows = lc_alloc_array(CHUNK_MANY, WINDOW_SIZE);
	struct lc_err err = LC_ERR_INIT;
	uint32_t n = 1, nahead;
	int rc = windows != NULL ? 0 : lc_fail(&err, LC_ENOMEM, 0, "verify: out of memory");

	if (rc != 0)
		give_up(x, 0, &err);
	while (rc == 0 && windows != NULL && (n = next_chunks(x, chunks, ahead, &nahead)) > 0) {
		view_read_ahead(x->v, ahead, nahead);
		rc = read_part(x, r, windows, chunks, n);
		(void)pthread_mutex_lock(&x->lock);
		x->done += n;
		if (x->on_progress != NULL)
			x->on_progress(x->arg, x->done * WINDOW_SIZE, x->found * WINDOW_SIZE);
		(void)pthread_mutex_unlock(&x->lock);
	}
	lc_free(windows);
}

/* ---- where they are ---- */

struct place {
	size_t disk;
	uint64_t window, n; /* the first one, and others with a content behind it */
	uint64_t chunk;
	uint64_t windows; /* of all */
};

static bool
is_bad(const struct verify *x, uint64_t chunk)
{
	const uint64_t *bad = (const uint64_t *)(const void *)x->bad.p;
	size_t lo = 0, hi = x->bad.n / sizeof *bad;

	if (x->lost != 0)
		return chunk == x->lost;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (bad[mid] == chunk)
			return true;
		if (bad[mid] < chunk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return false;
}

static int
by_number(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	return x < y ? -1 : x > y;
}

static void
note_places(const struct verify *x, size_t disk, uint64_t first, const uint64_t *chunks, uint32_t n,
            struct place *at)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		if (chunks[i] == 0 || !is_bad(x, chunks[i]))
			continue;
		if (at->windows++ > 0)
			continue;
		at->disk = disk;
		at->window = first + i;
		at->chunk = chunks[i];
		for (at->n = 1; i + at->n < n && chunks[i + at->n] != 0; at->n++)
			;
	}
}

/* The first window that names one of the chunks, and how many do. */
static int
find_places(const struct verify *x, struct place *at, struct lc_err *e)
{
	const struct point *p = &x->v->p;
	uint64_t chunks[MAP_PART], first, windows;
	uint32_t n;
	size_t k;
	int rc = 0;

	for (k = 0; rc == 0 && k < p->ndisks; k++) {
		windows = point_windows(p->disks[k].size);
		for (first = 0; rc == 0 && first < windows; first += n) {
			n = windows - first < MAP_PART ? (uint32_t)(windows - first) : MAP_PART;
			rc = view_map(x->v, k, first, n, chunks, e);
			if (rc == 0)
				note_places(x, k, first, chunks, n, at);
		}
	}
	return rc;
}

/* Contents are elsewhere, and can't be had: those around are mostly so, too. */
static void
say_lost(struct verify *x)
{
	const struct point *p = &x->v->p;
	struct place at = {0};

	if (find_places(x, &at, NULL) == 0 && at.windows > 0)
		lc_wrap(&x->err, "%s/%s, bytes %" PRIu64 " to %" PRIu64, p->vm,
		        p->disks[at.disk].name, at.window * WINDOW_SIZE,
		        (at.window + at.n) * WINDOW_SIZE);
}

static int
say_bad(struct verify *x, struct lc_err *e)
{
	const struct point *p = &x->v->p;
	struct chunk_reader *r = NULL;
	uint8_t *window = lc_alloc(WINDOW_SIZE);
	struct place at = {0};
	int rc;

	qsort(x->bad.p, x->bad.n / sizeof(uint64_t), sizeof(uint64_t), by_number);
	rc = window == NULL ? lc_fail(e, LC_ENOMEM, 0, "verify: out of memory")
	                    : find_places(x, &at, e);
	rc = rc != 0 ? rc : chunk_reader_new(x->v->s, &r, e);
	if (rc == 0) {
		rc = chunk_read(r, at.chunk, window, NULL, e);
		if (rc == 0) /* it was bad a moment ago */
			rc = lc_fail(e, LC_EIO, 0,
			             "could not be read, and then it could: look at the disk");
		lc_wrap(e, "%s/%s at byte %" PRIu64, p->vm, p->disks[at.disk].name,
		        at.window * WINDOW_SIZE);
	}
	if (rc != 0 && at.windows > 1)
		lc_wrap(e, "%" PRIu64 " damaged windows, the first: %s", at.windows, p->vm);
	chunk_reader_free(r);
	lc_free(window);
	return rc;
}

/* ---- all of it ---- */

static void *
thread_main(void *arg)
{
	struct verify *x = arg;
	struct chunk_reader *r = NULL;
	struct lc_err err = LC_ERR_INIT;

	if (chunk_reader_new(x->v->s, &r, &err) != 0)
		give_up(x, 0, &err);
	else
		x->work(x, r);
	chunk_reader_free(r);
	return NULL;
}

static void
run_threads(struct verify *x, unsigned n, void (*work)(struct verify *x, struct chunk_reader *r))
{
	pthread_t ids[THREADS_MAX];
	unsigned i, started = 0;

	x->work = work;
	for (i = 0; i < n && i < THREADS_MAX; i++)
		started += pthread_create(&ids[started], NULL, thread_main, x) == 0;
	if (started == 0)
		(void)thread_main(x);
	for (i = 0; i < started; i++)
		(void)pthread_join(ids[i], NULL);
}

static void
take_turn(struct verify *x, unsigned threads)
{
	x->disk = 0;
	x->window = 0;
	x->next = x->ahead = x->end = x->found = x->done = 0;
	x->beyond = UINT64_MAX;
	run_threads(x, threads, look_up);
	if (!atomic_load(&x->over) && x->found > 0)
		run_threads(x, threads, read_chunks);
	memset(x->all->need.word, 0, (size_t)(x->end + 63) / 64 * sizeof(uint64_t));
}

static int
verify_with(struct verify *x, unsigned threads, struct lc_err *e)
{
	int rc = 0;

	do {
		take_turn(x, threads);
		x->base = x->beyond / x->all->range * x->all->range;
	} while (!atomic_load(&x->over) && x->beyond != UINT64_MAX);
	if (atomic_load(&x->over) && x->lost != 0)
		say_lost(x);
	if (x->err.code != LC_OK) {
		if (e != NULL && e->code == LC_OK)
			*e = x->err;
		return x->err.code;
	}
	rc = x->bad.n > 0 ? say_bad(x, e) : 0;
	return rc != 0 ? rc : view_check(x->v, &x->sum, e);
}

int
view_verify(struct view *v, struct verified *all, unsigned threads,
            void (*on_progress)(void *arg, uint64_t done, uint64_t total), void *arg,
            struct lc_err *e)
{
	struct verify x = {.v = v, .all = all, .on_progress = on_progress, .arg = arg};
	int rc = 0;

	if (v->s->keyring == NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s: no key to verify with", v->s->dir);
	if (all == NULL)
		rc = verified_new(0, &x.all, e);
	if (rc != 0)
		return rc;
	(void)pthread_mutex_init(&x.lock, NULL);
	rc = verify_with(&x, threads == 0 ? workers_cores() : threads, e);
	(void)pthread_mutex_destroy(&x.lock);
	lc_buf_free(&x.bad);
	if (all == NULL)
		verified_free(x.all);
	return rc;
}

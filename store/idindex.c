#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/idindex.h"
#include "store/idrun.h"

#define ID_SIZE 32u
#define TABLE_MIN 2048u
/* A run is more than this many times as large as all later ones together.  With 200000 ids in
 * memory that makes at most 7 runs of 10^9 ids, each id written 10 times (simulated; of 10^7 ids 3
 * runs, and 5 times). */
#define MERGE_FACTOR 3u

struct entry {
	uint8_t id[ID_SIZE];
	uint64_t number;
};

struct idindex {
	char *dir;
	uint8_t store_id[16];
	size_t mem_max;
	bool writable;

	pthread_mutex_t mem_lock;
	struct entry *entries; /* dense, in no order */
	size_t n, cap;
	uint32_t *table; /* linear probing; 0 is free, else 1 + index into entries */
	size_t slots;    /* a power of two, at least 2 * cap */
	uint8_t secret[XXH3_SECRET_SIZE_MIN]; /* of the hash */
	atomic_size_t heap;

	/* Taken by lookups to read, by a flush to write, for the moment of the exchange.  Never
	 * held together with mem_lock. */
	pthread_rwlock_t runs_lock;
	struct idrun runs[IDRUNS_MAX]; /* ascending by what they cover */
	unsigned nruns;
	uint64_t until; /* what was written to runs so far, whether or not the run still stands */
	uint64_t next_file;
};

/* Memory.  All with mem_lock held. */

static size_t
mem_slot(const struct idindex *x, const uint8_t *id)
{
	/* With a random secret: the ids come from writers, and one of them may be hostile. */
	return (size_t)XXH3_64bits_withSecret(id, ID_SIZE, x->secret, sizeof x->secret) &
	       (x->slots - 1);
}

/* The slot that holds id, or the free one where it would go. */
static size_t
mem_probe(const struct idindex *x, const uint8_t *id)
{
	size_t at = mem_slot(x, id);

	while (x->table[at] != 0 && memcmp(x->entries[x->table[at] - 1].id, id, ID_SIZE) != 0)
		at = (at + 1) & (x->slots - 1);
	return at;
}

static struct entry *
mem_get(const struct idindex *x, const uint8_t *id)
{
	size_t at;

	if (x->n == 0)
		return NULL;
	at = mem_probe(x, id);
	return x->table[at] == 0 ? NULL : &x->entries[x->table[at] - 1];
}

static size_t
mem_bytes(const struct idindex *x)
{
	return x->cap * sizeof x->entries[0] + x->slots * sizeof x->table[0];
}

static void
mem_retable(struct idindex *x)
{
	size_t i;

	memset(x->table, 0, x->slots * sizeof x->table[0]);
	for (i = 0; i < x->n; i++)
		x->table[mem_probe(x, x->entries[i].id)] = (uint32_t)(i + 1);
}

static bool
mem_resize(struct idindex *x, size_t cap)
{
	size_t slots = TABLE_MIN, bytes;
	uint32_t *table;
	struct entry *entries;

	while (slots < 2 * cap)
		slots *= 2;
	if (cap >= UINT32_MAX / 2 || __builtin_mul_overflow(cap, sizeof *entries, &bytes))
		return false;
	table = lc_alloc_array(slots, sizeof *table);
	if (table == NULL)
		return false;
	entries = lc_realloc(x->entries, bytes);
	if (entries == NULL) {
		lc_free(table);
		return false;
	}
	lc_free(x->table);
	(void)atomic_fetch_sub(&x->heap, mem_bytes(x));
	x->table = table;
	x->entries = entries;
	x->cap = cap;
	x->slots = slots;
	(void)atomic_fetch_add(&x->heap, mem_bytes(x));
	mem_retable(x);
	return true;
}

static bool
mem_put(struct idindex *x, const uint8_t *id, uint64_t number)
{
	if (x->n == x->cap && !mem_resize(x, x->cap == 0 ? TABLE_MIN / 2 : x->cap * 2))
		return false;
	memcpy(x->entries[x->n].id, id, ID_SIZE);
	x->entries[x->n].number = number;
	x->table[mem_probe(x, id)] = (uint32_t)(x->n + 1);
	x->n++;
	return true;
}

static void
mem_drop(struct idindex *x, const uint8_t *id)
{
	size_t at, next, home, mask = x->slots - 1;
	uint32_t hole;

	if (mem_get(x, id) == NULL)
		return;
	at = mem_probe(x, id);
	hole = x->table[at];
	/* Close the gap, so that no probe ends early. */
	for (next = (at + 1) & mask; x->table[next] != 0; next = (next + 1) & mask) {
		home = mem_slot(x, x->entries[x->table[next] - 1].id);
		if (((next - home) & mask) >= ((next - at) & mask)) {
			x->table[at] = x->table[next];
			at = next;
		}
	}
	x->table[at] = 0;
	x->n--;
	if (hole - 1 != x->n) {
		x->table[mem_probe(x, x->entries[x->n].id)] = hole;
		x->entries[hole - 1] = x->entries[x->n];
	}
}

static void
mem_clear(struct idindex *x)
{
	(void)atomic_fetch_sub(&x->heap, mem_bytes(x));
	lc_free(x->entries);
	lc_free(x->table);
	x->entries = NULL;
	x->table = NULL;
	x->n = x->cap = x->slots = 0;
}

/* Replaces the runs from `first` on by one, or by none. */
static void
runs_replace(struct idindex *x, unsigned first, const struct idrun *by)
{
	struct idrun old[IDRUNS_MAX];
	unsigned i, nold;

	(void)pthread_rwlock_wrlock(&x->runs_lock);
	nold = x->nruns - first;
	memcpy(old, x->runs + first, nold * sizeof old[0]);
	x->nruns = first;
	if (by != NULL) {
		x->runs[x->nruns++] = *by;
		(void)atomic_fetch_add(&x->heap, idrun_memory(by));
	}
	(void)pthread_rwlock_unlock(&x->runs_lock);
	for (i = 0; i < nold; i++) {
		(void)atomic_fetch_sub(&x->heap, idrun_memory(&old[i]));
		idrun_delete(x->dir, &old[i]);
	}
}

static int
entry_order(const void *a, const void *b)
{
	return memcmp(a, b, IDRUN_PREFIX);
}

/* Ids in memory that may go to a run, encoded and sorted; NULL where there are too few. */
static uint8_t *
take_sorted(struct idindex *x, uint64_t durable_upto, size_t *n, uint64_t *until)
{
	uint8_t *sorted = NULL;
	size_t i, at = 0, durable = 0;

	*n = 0;
	*until = 0;
	(void)pthread_mutex_lock(&x->mem_lock);
	for (i = 0; i < x->n && x->n > x->mem_max; i++)
		durable += x->entries[i].number <= durable_upto;
	/* Not for a handful: a run costs two fsyncs. */
	if (durable > x->mem_max / 2)
		sorted = lc_alloc_array(durable, IDRUN_ENTRY);
	for (i = 0; sorted != NULL && i < x->n; i++) {
		const struct entry *t = &x->entries[i];

		if (t->number > durable_upto)
			continue;
		memcpy(sorted + at, t->id, IDRUN_PREFIX);
		lc_put64(sorted + at + IDRUN_PREFIX, t->number);
		at += IDRUN_ENTRY;
		if (t->number > *until)
			*until = t->number;
	}
	(void)pthread_mutex_unlock(&x->mem_lock);
	if (sorted != NULL)
		qsort(sorted, durable, IDRUN_ENTRY, entry_order);
	*n = durable;
	return sorted;
}

/* Two ids with the same first 16 bytes: the newer number stays. */
static size_t
squeeze(uint8_t *sorted, size_t n)
{
	size_t i, to = 0;

	for (i = 1; i < n; i++) {
		uint8_t *a = sorted + to * IDRUN_ENTRY, *b = sorted + i * IDRUN_ENTRY;

		if (memcmp(a, b, IDRUN_PREFIX) != 0)
			memmove(sorted + ++to * IDRUN_ENTRY, b, IDRUN_ENTRY);
		else if (lc_get64(b + IDRUN_PREFIX) > lc_get64(a + IDRUN_PREFIX))
			memcpy(a, b, IDRUN_ENTRY);
	}
	return to + 1;
}

static void
mem_drop_upto(struct idindex *x, uint64_t until)
{
	size_t i, n = 0, cap = TABLE_MIN / 2;

	(void)pthread_mutex_lock(&x->mem_lock);
	for (i = 0; i < x->n; i++) {
		if (x->entries[i].number > until)
			x->entries[n++] = x->entries[i];
	}
	x->n = n;
	while (cap < n)
		cap *= 2;
	/* It may fail to shrink; then it stays large. */
	if (x->cap > 0 && !mem_resize(x, cap))
		mem_retable(x);
	(void)pthread_mutex_unlock(&x->mem_lock);
}

/* The first run to merge, so that all runs from it on are together not much larger than what is
 * added.  Only across neighbours: a merged run says that it covers everything between its ends. */
static unsigned
merge_first(const struct idindex *x, uint64_t adding, uint64_t until)
{
	unsigned first = x->nruns;
	uint64_t next = x->until;

	while (first > 0 && x->runs[first - 1].until == next) {
		const struct idrun *r = &x->runs[first - 1];

		/* Numbers that the newest run covers, added again, must go into it. */
		if (r->count > MERGE_FACTOR * adding && until > x->until)
			break;
		first--;
		adding += r->count;
		next = r->from;
		if (until <= x->until)
			break;
	}
	return first;
}

int
idindex_flush(struct idindex *x, uint64_t durable_upto, struct lc_err *e)
{
	struct idrun_merge what = {.dir = x->dir, .store_id = x->store_id};
	uint8_t *sorted;
	struct idrun run = {.fd = -1};
	unsigned first, bad;
	uint64_t until;
	size_t n;
	int rc;

	if (!x->writable)
		return 0;
	sorted = take_sorted(x, durable_upto, &n, &until);
	if (sorted == NULL)
		return n <= x->mem_max / 2 ? 0
		                           : lc_fail(e, LC_ENOMEM, 0, "id index: out of memory");
	n = squeeze(sorted, n);
	first = merge_first(x, n, until);
	/* Never met, as sizes grow geometrically; starting over is always right. */
	if (first == IDRUNS_MAX) {
		runs_replace(x, 0, NULL);
		first = 0;
	}
	what.runs = x->runs + first;
	what.nruns = x->nruns - first;
	what.sorted = sorted;
	what.nsorted = n;
	run.file = x->next_file++;
	run.from = what.nruns > 0 ? what.runs[0].from : x->until;
	run.until = until > x->until ? until : x->until;
	rc = idrun_write(&what, &run, &bad, e);
	lc_free(sorted);
	if (rc != 0) {
		/* The runs behind a gap cover nothing: the next open makes all of them again. */
		if (bad < what.nruns)
			runs_replace(x, first + bad, NULL);
		return rc;
	}
	x->until = run.until;
	/* First visible in a run, then gone from memory: a lookup looks in the other order. */
	runs_replace(x, first, &run);
	mem_drop_upto(x, until);
	return 0;
}

/* Opening. */

/* Of the runs that are there, those that cover the numbers from 0 on without a gap; a larger one
 * replaces those that were merged into it.  The rest is closed and deleted. */
static void
runs_choose(struct idindex *x, struct idrun *found, size_t nfound)
{
	struct idrun *best;
	size_t i;

	do {
		best = NULL;
		for (i = 0; i < nfound; i++) {
			if (found[i].fd >= 0 && found[i].from == x->until &&
			    (best == NULL || found[i].until > best->until))
				best = &found[i];
		}
		if (best == NULL || x->nruns == IDRUNS_MAX)
			break;
		x->runs[x->nruns++] = *best;
		(void)atomic_fetch_add(&x->heap, idrun_memory(best));
		x->until = best->until;
		best->fd = -1;
		best->blocks = NULL;
	} while (true);
	for (i = 0; i < nfound; i++) {
		if (found[i].fd >= 0 && x->writable)
			idrun_delete(x->dir, &found[i]);
		idrun_close(&found[i]);
	}
}

/* "<number>.run" gives 1, "<number>.run.tmp" 2, anything else 0. */
static int
name_kind(const char *name, uint64_t *file)
{
	char *end;

	if (name[0] < '0' || name[0] > '9')
		return 0;
	errno = 0;
	*file = strtoull(name, &end, 10);
	if (errno != 0 || *file >= UINT64_MAX / 2)
		return 0;
	if (strcmp(end, ".run") == 0)
		return 1;
	return strcmp(end, ".run.tmp") == 0 ? 2 : 0;
}

static int
runs_scan(struct idindex *x, struct idrun **found, size_t *nfound, struct lc_err *e)
{
	struct lc_buf b = {0};
	struct dirent *de;
	uint64_t file;
	DIR *d = opendir(x->dir);
	struct idrun r;
	int kind, rc = 0;

	if (d == NULL)
		return errno == ENOENT ? 0 : lc_fail_errno(e, "id index: %s", x->dir);
	while (rc == 0 && (de = dir_next(d, x->dir, &rc, e)) != NULL) {
		kind = name_kind(de->d_name, &file);
		if (kind == 0)
			continue;
		if (file >= x->next_file)
			x->next_file = file + 1;
		if (kind == 1 && idrun_open(x->dir, x->store_id, file, &r)) {
			rc = lc_buf_append(&b, &r, sizeof r);
			if (rc != 0) {
				idrun_close(&r);
				(void)lc_fail(e, LC_ENOMEM, 0, "id index: out of memory");
			}
		} else if (x->writable) {
			(void)unlinkat(dirfd(d), de->d_name, 0);
		}
	}
	(void)closedir(d);
	*found = (struct idrun *)(void *)b.p;
	*nfound = b.n / sizeof r;
	return rc;
}

int
idindex_open(const char *dir, const uint8_t store_id[16], size_t mem_max, bool writable,
             struct idindex **out, uint64_t *covered, struct lc_err *e)
{
	struct idrun *found = NULL;
	struct idindex *x;
	size_t nfound = 0;
	int rc;

	*out = NULL;
	*covered = 0;
	x = lc_alloc(sizeof *x);
	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "id index: out of memory");
	(void)pthread_mutex_init(&x->mem_lock, NULL);
	(void)pthread_rwlock_init(&x->runs_lock, NULL);
	memcpy(x->store_id, store_id, sizeof x->store_id);
	x->mem_max = mem_max;
	x->writable = writable;
	x->next_file = 1;
	random_bytes(x->secret, sizeof x->secret);
	x->dir = lc_strdup(dir);
	if (x->dir == NULL) {
		(void)lc_fail(e, LC_ENOMEM, 0, "id index: out of memory");
		idindex_close(x);
		return LC_ENOMEM;
	}
	rc = writable ? dir_make(dir, 0700, e) : 0;
	if (rc == 0)
		rc = runs_scan(x, &found, &nfound, e);
	if (rc == 0) {
		runs_choose(x, found, nfound);
	} else {
		while (nfound > 0)
			idrun_close(&found[--nfound]);
	}
	lc_free(found);
	if (rc != 0) {
		idindex_close(x);
		return rc;
	}
	*out = x;
	*covered = x->until;
	return 0;
}

void
idindex_close(struct idindex *x)
{
	unsigned i;

	if (x == NULL)
		return;
	for (i = 0; i < x->nruns; i++)
		idrun_close(&x->runs[i]);
	mem_clear(x);
	(void)pthread_rwlock_destroy(&x->runs_lock);
	(void)pthread_mutex_destroy(&x->mem_lock);
	lc_free(x->dir);
	lc_free(x);
}

void
idindex_reset(struct idindex *x)
{
	(void)pthread_mutex_lock(&x->mem_lock);
	mem_clear(x);
	(void)pthread_mutex_unlock(&x->mem_lock);
	if (!x->writable)
		return;
	runs_replace(x, 0, NULL);
	x->until = 0;
}

enum idindex_hit
idindex_find(struct idindex *x, const uint8_t id[32], uint64_t *number)
{
	const struct entry *t;
	bool found = false;
	unsigned i;

	(void)pthread_mutex_lock(&x->mem_lock);
	t = mem_get(x, id);
	if (t != NULL)
		*number = t->number;
	(void)pthread_mutex_unlock(&x->mem_lock);
	if (t != NULL)
		return IDINDEX_FOUND;
	(void)pthread_rwlock_rdlock(&x->runs_lock);
	/* Newest first: of an id that was collected and came again, the newer number is live. */
	for (i = x->nruns; i > 0 && !found; i--)
		found = idrun_find(&x->runs[i - 1], id, number);
	(void)pthread_rwlock_unlock(&x->runs_lock);
	return found ? IDINDEX_CANDIDATE : IDINDEX_NEW;
}

bool
idindex_claim(struct idindex *x, const uint8_t id[32], uint64_t *number)
{
	const struct entry *t;

	(void)pthread_mutex_lock(&x->mem_lock);
	t = mem_get(x, id);
	if (t != NULL)
		*number = t->number;
	else
		(void)mem_put(x, id, *number);
	(void)pthread_mutex_unlock(&x->mem_lock);
	return t == NULL;
}

void
idindex_add(struct idindex *x, const uint8_t id[32], uint64_t number)
{
	struct entry *t;

	(void)pthread_mutex_lock(&x->mem_lock);
	t = mem_get(x, id);
	if (t == NULL)
		(void)mem_put(x, id, number);
	else if (number < t->number)
		t->number = number;
	(void)pthread_mutex_unlock(&x->mem_lock);
}

void
idindex_replace(struct idindex *x, const uint8_t id[32], uint64_t number)
{
	struct entry *t;

	(void)pthread_mutex_lock(&x->mem_lock);
	t = mem_get(x, id);
	if (t == NULL)
		(void)mem_put(x, id, number);
	else
		t->number = number;
	(void)pthread_mutex_unlock(&x->mem_lock);
}

void
idindex_forget(struct idindex *x, const uint8_t id[32])
{
	(void)pthread_mutex_lock(&x->mem_lock);
	mem_drop(x, id);
	(void)pthread_mutex_unlock(&x->mem_lock);
}

size_t
idindex_memory(const struct idindex *x)
{
	return atomic_load(&x->heap);
}

/*
 * Making a restore point.
 *
 * Windows come from any number of threads.  Each is compared with the base's map (page by page from
 * the catalog), looked up by id, and only if its content is new compressed, sealed and appended.
 * Its row waits in the disk's buffer and goes out as a MAP record when that is full.  The commit
 * flushes, and shares one COMMIT record with every other point that is ready at that moment: the
 * first in the queue works for all.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/commit.h"
#include "store/group.h"
#include "store/packer.h"
#include "store/store_internal.h"

#define PAGE_WINDOWS 4096u
#define PAGES 4u /* of the base's map kept per disk: workers are never far apart */
#define ZEROS_AT_ONCE (UINT64_C(8) * PAGE_WINDOWS)

struct page {
	uint64_t first; /* window; UINT64_MAX: empty */
	uint64_t used_at;
	uint64_t chunks[PAGE_WINDOWS];
};

struct writer_disk_state {
	struct point_disk d;
	bool known;       /* the base has it */
	size_t base_disk; /* its index there */
	uint64_t base_windows;
	struct page *pages;     /* [PAGES] */
	struct map_record *map; /* rows not yet in the log */
};

struct writer_worker {
	struct packer *packer;
	uint8_t *payload; /* [CHUNK_PAYLOAD_MAX] */
};

struct writer {
	struct store *s;
	struct writer *next; /* in the store's list */
	char vm[POINT_NAME_MAX];
	uint8_t vm_id[16], line[16], id[POINT_ID_SIZE];
	bool whole;                     /* no deltas */
	bool fork;                      /* base is a point of another line */
	struct point *base;             /* NULL: none that can be built upon */
	uint8_t base_id[POINT_ID_SIZE]; /* newest point or seed of the line, zeros if none */
	uint64_t counter;               /* its count */
	unsigned nworkers;
	struct writer_worker *workers;
	size_t ndisks;
	struct writer_disk_state *disks;

	pthread_mutex_t lock; /* what follows, pages and rows of the disks */
	uint64_t tick;
	bool failed; /* what follows is no longer the truth */
	struct set_sum set, rows_sum;
	uint64_t rows;
	struct writer_stats stats;
};

static const uint8_t zero_id[CHUNK_ID_SIZE];

/* ---- begin ---- */

struct find_vm {
	struct writer *w;
	bool found;
};

static int
match_vm(void *arg, const struct catalog_vm *vm, struct lc_err *e)
{
	struct find_vm *f = arg;
	char name[POINT_NAME_MAX];

	(void)e;
	store_vm_name(f->w->s, vm, name);
	if (strcmp(name, f->w->vm) == 0) {
		memcpy(f->w->vm_id, vm->id, 16);
		memcpy(f->w->line, vm->line, 16);
		f->found = true;
	}
	return 0;
}

/* A base whose map can't be trusted, or that this key does not open, is none: everything is read
 * again, into disks of their own, and the new point is whole. */
static int
take_base(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct writer *w = arg;
	bool restart;
	int rc;

	memcpy(w->base_id, cp->id, sizeof w->base_id);
	w->base = lc_alloc(sizeof *w->base);
	if (w->base == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = catalog_restarts(w->s->catalog, cp->line, &restart, e);
	if (rc != 0)
		return rc;
	rc = store_point_of(w->s, cp, w->base, &err);
	if (rc == 0)
		w->counter = w->base->counter;
	if (rc == 0 && !restart && (cp->flags & POINT_MAP_DAMAGED) == 0) {
		w->set = w->base->set;
		return 0;
	}
	if (rc == 0)
		point_done(w->base);
	lc_free(w->base);
	w->base = NULL;
	if (rc == 0 || rc == LC_ECORRUPT || rc == LC_EKEY) {
		log_warn("%s: its newest restore point can't be built upon (%s): reading all of it "
		         "again",
		         w->vm, rc == 0 ? "its map is damaged in the log" : err.msg);
		return 0;
	}
	if (e != NULL)
		*e = err;
	return rc;
}

struct forking {
	struct writer *w;
	bool known; /* it is a restore point of this VM */
};

static int
take_fork(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct forking *f = arg;

	f->known = (cp->flags & POINT_SEED) == 0 && memcmp(cp->vm, f->w->vm_id, 16) == 0;
	return f->known ? take_base(f->w, cp, e) : 0;
}

/* The base of a point on a line of its own. */
static int
begin_line(struct writer *w, const uint8_t *at, struct lc_err *e)
{
	struct forking f = {.w = w};
	char hex[33];
	int rc = catalog_point(w->s->catalog, at, take_fork, &f, e);

	if (rc == LC_ENOENT || (rc == 0 && !f.known))
		return lc_fail(e, LC_ENOENT, 0, "%s has no restore point %s to go on from", w->vm,
		               lc_hex(hex, at, POINT_ID_SIZE));
	w->fork = true;
	random_bytes(w->line, sizeof w->line);
	return rc;
}

static int
begin_workers(struct writer *w, int level, struct lc_err *e)
{
	unsigned i;
	int rc = 0;

	w->workers = lc_alloc_array(w->nworkers, sizeof *w->workers);
	if (w->workers == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; rc == 0 && i < w->nworkers; i++) {
		rc = packer_new(w->s, level, &w->workers[i].packer, e);
		w->workers[i].payload = lc_alloc(CHUNK_PAYLOAD_MAX);
		if (rc == 0 && w->workers[i].payload == NULL)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	return rc;
}

static void
writer_free(struct writer *w)
{
	struct writer **p;
	size_t i;

	(void)pthread_mutex_lock(&w->s->writers_lock);
	for (p = &w->s->writers; *p != NULL; p = &(*p)->next) {
		if (*p == w) {
			*p = w->next;
			break;
		}
	}
	(void)pthread_mutex_unlock(&w->s->writers_lock);
	for (i = 0; w->workers != NULL && i < w->nworkers; i++) {
		packer_free(w->workers[i].packer);
		lc_free(w->workers[i].payload);
	}
	for (i = 0; i < w->ndisks; i++) {
		lc_free(w->disks[i].pages);
		lc_free(w->disks[i].map);
	}
	if (w->base != NULL)
		point_done(w->base);
	lc_free(w->base);
	lc_free(w->disks);
	lc_free(w->workers);
	(void)pthread_mutex_destroy(&w->lock);
	lc_free(w);
}

/* One writer per VM, by name: two would overwrite each other's base. */
static int
enlist(struct writer *w, struct lc_err *e)
{
	struct writer *x;
	int rc = 0;

	(void)pthread_mutex_lock(&w->s->writers_lock);
	for (x = w->s->writers; x != NULL && rc == 0; x = x->next) {
		if (strcmp(x->vm, w->vm) == 0)
			rc = lc_fail(e, LC_EBUSY, 0, "%s: a restore point of it is being made",
			             w->vm);
	}
	if (rc == 0) {
		w->next = w->s->writers;
		w->s->writers = w;
	}
	(void)pthread_mutex_unlock(&w->s->writers_lock);
	return rc;
}

int
writer_begin(struct store *s, const struct writer_opts *o, struct writer **out, struct lc_err *e)
{
	struct find_vm f = {0};
	struct writer *w;
	int rc;

	assert(s->writable);
	if (s->keyring == NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s: no key to write with", s->dir);
	if (strlen(o->vm) >= POINT_NAME_MAX || o->vm[0] == '\0' || strchr(o->vm, '@') != NULL)
		return lc_fail(e, LC_EINVAL, 0, "\"%s\" is no name for a VM (1 to %u bytes, no @)",
		               o->vm, POINT_NAME_MAX - 1);
	w = lc_alloc(sizeof *w);
	if (w == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	w->s = s;
	w->nworkers = o->workers == 0 ? 1 : o->workers;
	w->whole = o->whole;
	(void)snprintf(w->vm, sizeof w->vm, "%s", o->vm);
	(void)pthread_mutex_init(&w->lock, NULL);
	random_bytes(w->id, sizeof w->id);
	f.w = w;
	rc = enlist(w, e);
	rc = rc != 0 ? rc : catalog_each_vm(s->catalog, match_vm, &f, e);
	if (rc == 0 && !f.found) { /* its first commit makes it known */
		random_bytes(w->vm_id, sizeof w->vm_id);
		random_bytes(w->line, sizeof w->line);
	}
	if (rc == 0 && o->fork != NULL) {
		rc = begin_line(w, o->fork, e);
	} else if (rc == 0) {
		rc = catalog_newest(s->catalog, w->line, take_base, w, e);
		rc = rc == LC_ENOENT ? 0 : rc;
	}
	rc = rc != 0 ? rc : begin_workers(w, o->level, e);
	if (rc != 0) {
		writer_free(w);
		return rc;
	}
	*out = w;
	return 0;
}

const struct point *
writer_base(const struct writer *w)
{
	return w->base;
}

const uint8_t *
writer_id(const struct writer *w)
{
	return w->id;
}

bool
writer_known(const struct writer *w, size_t disk)
{
	return w->disks[disk].known;
}

void
writer_stats(const struct writer *w, struct writer_stats *out)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&w->lock;

	(void)pthread_mutex_lock(lock);
	*out = w->stats;
	(void)pthread_mutex_unlock(lock);
}

/* ---- rows; w->lock is held ---- */

static int
write_rows_locked(struct writer *w, struct writer_disk_state *d, struct lc_err *e)
{
	struct record r = {.type = RECORD_MAP};
	struct map_record *full = d->map;
	struct lc_buf b = {0};
	int rc;

	if (full == NULL || full->n == 0)
		return 0;
	rc = maprec_encode(full, &b, e);
	if (rc == 0) {
		d->map = NULL; /* the log takes it */
		r.n = (uint32_t)b.n;
		w->stats.stored += record_size(r.n);
		rc = store_append(w->s, &r, b.p, full, e);
	}
	lc_buf_free(&b);
	return rc;
}

/* The id of what was there, to take it out of the set hash. */
static int
subtract_old(struct writer *w, const struct writer_disk_state *d, uint64_t window, uint64_t old,
             struct lc_err *e)
{
	struct set_sum one;
	struct record r;
	int rc;

	if (old == 0)
		return 0;
	rc = catalog_chunk(w->s->catalog, old, &r, e);
	if (rc != 0)
		return rc;
	set_row(keyring_set(w->s->keyring), d->d.id, window, r.id, &one);
	set_sub(&w->set, &one);
	return 0;
}

static int
add_row_locked(struct writer *w, struct writer_disk_state *d, uint64_t window, uint64_t old,
               const uint8_t id[CHUNK_ID_SIZE], uint64_t chunk, struct lc_err *e)
{
	struct set_sum one;
	struct map_row *row;
	int rc;

	if (d->map == NULL) {
		d->map = lc_alloc(sizeof *d->map);
		if (d->map == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", w->vm);
		memcpy(d->map->point, w->id, 16);
		memcpy(d->map->line, w->line, 16);
		memcpy(d->map->disk, d->d.id, 16);
	}
	rc = subtract_old(w, d, window, old, e);
	if (rc != 0) {
		w->failed = true;
		return rc;
	}
	row = &d->map->rows[d->map->n++];
	row->window = window;
	row->chunk = w->s->fold->missing ? 0 : chunk;
	memcpy(row->id, id, CHUNK_ID_SIZE);
	if (chunk != 0) {
		set_row(keyring_set(w->s->keyring), d->d.id, window, id, &one);
		set_add(&w->set, &one);
	}
	set_row(NULL, d->d.id, window, id, &one);
	set_add(&w->rows_sum, &one);
	w->rows++;
	if (d->map->n < MAP_ROWS_MAX / 2)
		return 0;
	rc = write_rows_locked(w, d, e);
	w->failed = w->failed || rc != 0;
	return rc;
}

/* The base's chunk in a window, through a few pages of its map. */
static int
old_chunk_locked(struct writer *w, struct writer_disk_state *d, uint64_t window, uint64_t *old,
                 struct lc_err *e)
{
	uint64_t first = window - window % PAGE_WINDOWS;
	struct page *best = NULL;
	size_t i;
	int rc;

	*old = 0;
	if (!d->known || window >= d->base_windows)
		return 0;
	w->tick++;
	for (i = 0; i < PAGES; i++) {
		struct page *p = &d->pages[i];

		if (p->first == first) {
			p->used_at = w->tick;
			*old = p->chunks[window - first];
			return 0;
		}
		if (best == NULL || p->used_at < best->used_at)
			best = p;
	}
	best->first = UINT64_MAX;
	rc = catalog_map(w->s->catalog, w->base->id, w->base->disks[d->base_disk].id, first,
	                 PAGE_WINDOWS, best->chunks, e);
	if (rc != 0)
		return rc;
	best->first = first;
	best->used_at = w->tick;
	*old = best->chunks[window - first];
	return 0;
}

static int
zeros_locked(struct writer *w, struct writer_disk_state *d, uint64_t first, uint64_t end,
             struct lc_err *e)
{
	uint64_t window, old;
	int rc = 0;

	for (window = first; rc == 0 && window < end; window++) {
		rc = old_chunk_locked(w, d, window, &old, e);
		if (rc == 0 && old != 0)
			rc = add_row_locked(w, d, window, old, zero_id, 0, e);
	}
	return rc;
}

/* Windows [first, end) become zero: rows only where something was.  w->lock is not held. */
static int
zeros(struct writer *w, struct writer_disk_state *d, uint64_t first, uint64_t end, struct lc_err *e)
{
	uint64_t upto;
	int rc = 0;

	if (end > d->base_windows)
		end = d->base_windows;
	for (; d->known && rc == 0 && first < end; first = upto) {
		upto = end - first < ZEROS_AT_ONCE ? end : first + ZEROS_AT_ONCE;
		(void)pthread_mutex_lock(&w->lock);
		rc = zeros_locked(w, d, first, upto, e);
		w->failed = w->failed || rc != 0;
		(void)pthread_mutex_unlock(&w->lock);
		rc = rc != 0 ? rc : store_relieve(w->s, e);
	}
	return rc;
}

/* ---- disks ---- */

static int
new_disk_state(struct writer *w, const struct writer_disk *src, struct writer_disk_state *d,
               struct lc_err *e)
{
	size_t i;

	if (strlen(src->name) >= POINT_NAME_MAX || src->name[0] == '\0')
		return lc_fail(e, LC_EINVAL, 0, "%s: \"%s\" is no name for a disk", w->vm,
		               src->name);
	if (src->size > POINT_DISK_SIZE_MAX)
		return lc_fail(e, LC_EINVAL, 0, "%s/%s: a disk of %" PRIu64 " bytes is too large",
		               w->vm, src->name, src->size);
	(void)snprintf(d->d.name, sizeof d->d.name, "%s", src->name);
	(void)snprintf(d->d.stamp, sizeof d->d.stamp, "%s", src->stamp == NULL ? "" : src->stamp);
	d->d.size = src->size;
	d->d.role = src->role;
	d->d.covered = point_windows(src->size);
	for (i = 0; w->base != NULL && i < w->base->ndisks; i++) {
		const struct point_disk *b = &w->base->disks[i];

		if (strcmp(b->name, src->name) == 0 && b->role == src->role) {
			d->known = true;
			d->base_disk = i;
			d->base_windows = point_windows(b->size);
			memcpy(d->d.id, b->id, 16);
		}
	}
	if (!d->known) {
		random_bytes(d->d.id, 16);
		return 0;
	}
	d->pages = lc_alloc_array(PAGES, sizeof *d->pages);
	if (d->pages == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", w->vm);
	for (i = 0; i < PAGES; i++)
		d->pages[i].first = UINT64_MAX;
	return 0;
}

/* A disk of the base that is gone leaves the map: take its windows out of the set hash. */
static int
subtract_disk(struct writer *w, const struct point_disk *b, struct lc_err *e)
{
	uint64_t *chunks = lc_alloc_array(PAGE_WINDOWS, sizeof *chunks);
	struct writer_disk_state gone = {.d = *b};
	uint64_t first, n = point_windows(b->size);
	size_t i;
	int rc = 0;

	if (chunks == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", w->vm);
	for (first = 0; rc == 0 && first < n; first += PAGE_WINDOWS) {
		rc = catalog_map(w->s->catalog, w->base->id, b->id, first, PAGE_WINDOWS, chunks, e);
		for (i = 0; rc == 0 && i < PAGE_WINDOWS; i++)
			rc = subtract_old(w, &gone, first + i, chunks[i], e);
	}
	lc_free(chunks);
	return rc;
}

int
writer_disks(struct writer *w, const struct writer_disk *disks, size_t n, struct lc_err *e)
{
	size_t i, k;
	int rc = 0;

	assert(w->disks == NULL);
	if (n == 0 || n > POINT_DISKS_MAX)
		return lc_fail(e, LC_EINVAL, 0, "%s: %zu disks (1 to %u are possible)", w->vm, n,
		               POINT_DISKS_MAX);
	w->disks = lc_alloc_array(n, sizeof *w->disks);
	if (w->disks == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", w->vm);
	w->ndisks = n;
	(void)pthread_mutex_lock(&w->lock);
	for (i = 0; rc == 0 && i < n; i++) {
		for (k = 0; k < i && rc == 0; k++) {
			if (strcmp(disks[k].name, disks[i].name) == 0)
				rc = lc_fail(e, LC_EINVAL, 0, "%s: two disks are called %s", w->vm,
				             disks[i].name);
		}
		rc = rc != 0 ? rc : new_disk_state(w, &disks[i], &w->disks[i], e);
	}
	for (i = 0; rc == 0 && w->base != NULL && i < w->base->ndisks; i++) {
		bool kept = false;

		for (k = 0; k < n; k++)
			kept = kept || (w->disks[k].known && w->disks[k].base_disk == i);
		if (!kept)
			rc = subtract_disk(w, &w->base->disks[i], e);
	}
	(void)pthread_mutex_unlock(&w->lock);
	/* What a shrunk disk lost reads as zeros, should it ever grow again. */
	for (i = 0; rc == 0 && i < n; i++)
		rc = zeros(w, &w->disks[i], point_windows(disks[i].size), UINT64_MAX, e);
	return rc;
}

/* ---- windows ---- */

static int
put_new(struct writer *w, struct writer_worker *k, const uint8_t *data,
        const uint8_t id[CHUNK_ID_SIZE], uint64_t old, uint64_t *no, uint64_t *stored,
        struct lc_err *e)
{
	struct record r = {.type = RECORD_CHUNK};
	uint64_t hole;
	size_t n;
	int rc;

	/* What takes the place of a bad one is whole: deltas may be made upon it. */
	if (w->whole ||
	    (w->s->fold->missing && catalog_missing(w->s->catalog, id, false, &hole, NULL) == 0))
		old = 0;
	rc = packer_seal(k->packer, data, id, old, k->payload, &n, &r.encoding, &r.key, e);
	if (rc != 0)
		return rc;
	r.n = (uint32_t)n;
	memcpy(r.id, id, CHUNK_ID_SIZE);
	*stored = record_size(r.n);
	return store_append_chunk(w->s, &r, k->payload, no, e);
}

static int
put_row(struct writer *w, struct writer_disk_state *d, uint64_t window, uint64_t old,
        const uint8_t *id, uint64_t chunk, struct lc_err *e)
{
	int rc;

	(void)pthread_mutex_lock(&w->lock);
	rc = add_row_locked(w, d, window, old, id, chunk, e);
	(void)pthread_mutex_unlock(&w->lock);
	return rc != 0 ? rc : store_relieve(w->s, e);
}

static void
count(struct writer *w, enum put_result r, uint64_t stored)
{
	(void)pthread_mutex_lock(&w->lock);
	switch (r) {
	case PUT_ZERO:
	case PUT_ZERO_SAME:
		w->stats.zero++;
		break;
	case PUT_SAME:
		w->stats.same++;
		break;
	case PUT_KNOWN:
		w->stats.known++;
		break;
	case PUT_NEW:
		w->stats.fresh++;
		w->stats.stored += stored;
		break;
	}
	(void)pthread_mutex_unlock(&w->lock);
}

/* The base's own chunk counts where its content is the same, also if its bytes are elsewhere; any
 * other one only where they are here (thin.h). */
static int
find_known(struct writer *w, const uint8_t id[CHUNK_ID_SIZE], uint64_t old, uint64_t *no,
           struct lc_err *e)
{
	struct fold *f = w->s->fold;
	struct record r;
	int rc = fold_resolve(f, id, no, e);

	if (rc != 0 || !f->thin || *no == old)
		return rc;
	if (old != 0 && catalog_chunk(w->s->catalog, old, &r, NULL) == 0 && r.segment != 0 &&
	    memcmp(r.id, id, sizeof r.id) == 0) {
		*no = old;
		return 0;
	}
	return fold_whole(f, id, no, e);
}

int
writer_put(struct writer *w, unsigned worker, size_t disk, uint64_t window, const uint8_t *data,
           enum put_result *result, struct lc_err *e)
{
	struct writer_disk_state *d = &w->disks[disk];
	uint8_t id[CHUNK_ID_SIZE];
	uint64_t old, no = 0, stored = 0;
	enum put_result what;
	int rc;

	assert(disk < w->ndisks && worker < w->nworkers);
	if (window >= point_windows(d->d.size))
		return lc_fail(e, LC_EINVAL, 0, "%s/%s: window %" PRIu64 " is beyond its end",
		               w->vm, d->d.name, window);
	(void)pthread_mutex_lock(&w->lock);
	rc = old_chunk_locked(w, d, window, &old, e);
	(void)pthread_mutex_unlock(&w->lock);
	if (rc != 0)
		return rc;
	if (lc_is_zero(data, WINDOW_SIZE)) {
		what = old == 0 ? PUT_ZERO_SAME : PUT_ZERO;
		if (old != 0)
			rc = put_row(w, d, window, old, zero_id, 0, e);
	} else {
		seal_id(w->s->keyring, data, id);
		rc = find_known(w, id, old, &no, e);
		if (rc == 0) {
			what = no == old ? PUT_SAME : PUT_KNOWN;
		} else if (rc == LC_ENOENT) {
			what = PUT_NEW;
			rc = put_new(w, &w->workers[worker], data, id, old, &no, &stored, e);
		}
		if (rc == 0 && what != PUT_SAME)
			rc = put_row(w, d, window, old, id, no, e);
	}
	if (rc != 0) { /* a window that was not taken: no commit may follow */
		(void)pthread_mutex_lock(&w->lock);
		w->failed = true;
		(void)pthread_mutex_unlock(&w->lock);
		return rc;
	}
	count(w, what, stored);
	if (result != NULL)
		*result = what;
	return 0;
}

int
writer_zeros(struct writer *w, size_t disk, uint64_t first, uint64_t n, struct lc_err *e)
{
	int rc;

	assert(disk < w->ndisks);
	if (n > UINT64_MAX - first)
		n = UINT64_MAX - first;
	rc = zeros(w, &w->disks[disk], first, first + n, e);
	(void)pthread_mutex_lock(&w->lock);
	w->failed = w->failed || rc != 0;
	w->stats.zero += n;
	(void)pthread_mutex_unlock(&w->lock);
	return rc;
}

/* ---- commit ---- */

static int
owned_copy(const char *src, char **dst, struct lc_err *e)
{
	if (src == NULL)
		return 0;
	*dst = lc_strdup(src);
	return *dst != NULL ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* What the header can't hold must not be found out by whoever wants to restore. */
static int
check_opts(const struct writer *w, const struct commit_opts *o, struct lc_err *e)
{
	if (w->ndisks == 0)
		return lc_fail(e, LC_EINVAL, 0, "no disks were named");
	if (w->failed)
		return lc_fail(e, LC_EIO, 0, "a part of it could not be stored");
	if ((o->definition != NULL && strlen(o->definition) > POINT_DEFINITION_MAX) ||
	    (o->left_out != NULL && strlen(o->left_out) > POINT_DEFINITION_MAX))
		return lc_fail(e, LC_EINVAL, 0, "its definition is longer than %u bytes",
		               POINT_DEFINITION_MAX);
	return 0;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
same_disk(const struct writer_disk_state *d, const struct point_disk *base, size_t i)
{
	return d->known && d->base_disk == i && d->d.size == base->size &&
	       d->d.role == base->role && strcmp(d->d.name, base->name) == 0 &&
	       strcmp(d->d.stamp, base->stamp) == 0;
}

bool
writer_nothing_new(const struct writer *w, const struct commit_opts *o)
{
	const struct point *base = w->base;
	size_t i;

	if (base == NULL || w->fork || w->failed || w->rows > 0 || o->seed ||
	    (base->flags & POINT_SEED) != 0 || w->ndisks != base->ndisks || w->ndisks == 0)
		return false;
	for (i = 0; i < w->ndisks; i++) {
		if (!same_disk(&w->disks[i], &base->disks[i], i))
			return false;
	}
	return o->consistency == base->consistency && same_text(o->definition, base->definition) &&
	       same_text(o->left_out, base->left_out);
}

/* Whether the point stands by itself, whatever its base is. */
static bool
is_fresh(const struct writer *w)
{
	size_t i;

	for (i = 0; i < w->ndisks; i++) {
		if (w->disks[i].known)
			return false;
	}
	return true;
}

static int
describe(struct writer *w, const struct commit_opts *o, struct point *p, struct lc_err *e)
{
	size_t i;
	int rc;

	memcpy(p->id, w->id, sizeof p->id);
	memcpy(p->vm_id, w->vm_id, sizeof p->vm_id);
	memcpy(p->line, w->line, sizeof p->line);
	memcpy(p->base, w->base_id, sizeof p->base);
	(void)snprintf(p->vm, sizeof p->vm, "%s", w->vm);
	p->flags = (o->seed ? POINT_SEED : 0u) | (is_fresh(w) ? POINT_FRESH : 0u) |
	           (w->fork ? POINT_FORK : 0u);
	p->source_ns = o->source_ns;
	p->pause_ns = o->pause_ns;
	p->consistency = o->consistency;
	p->counter = w->counter + 1;
	p->changed = w->rows;
	p->rows_sum = w->rows_sum;
	p->set = w->set;
	p->stored = w->stats.stored;
	p->ndisks = w->ndisks;
	for (i = 0; i < w->ndisks; i++) {
		p->disks[i] = w->disks[i].d;
		if (o->seed)
			p->disks[i].covered = o->covered[i];
	}
	rc = owned_copy(o->definition, &p->definition, e);
	return rc != 0 ? rc : owned_copy(o->left_out, &p->left_out, e);
}

static int
when_committed(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)e;
	*(int64_t *)arg = p->commit_ns;
	return 0;
}

/* VM and line go with every point: one damaged commit must not make a VM unknown. */
static int
add_entries(struct writer *w, const struct point *p, struct lc_span sealed, struct lc_buf *out,
            struct lc_err *e)
{
	struct lc_buf vm = {0}, entry = {0};
	struct lc_span name = {(const uint8_t *)w->vm, strlen(w->vm)};
	uint8_t line[32];
	int rc = 0;

	memcpy(line, w->line, 16);
	memcpy(line + 16, w->vm_id, 16);
	if (lc_buf_append(&vm, w->vm_id, 16) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc : seal_blob(w->s->keyring, (struct lc_span){w->vm_id, 16}, name, &vm, e);
	rc = rc != 0 ? rc : point_encode(p, sealed, &entry, e);
	rc = rc != 0 ? rc : commit_add(out, COMMIT_VM, (struct lc_span){vm.p, vm.n}, e);
	rc = rc != 0 ? rc : commit_add(out, COMMIT_LINE, (struct lc_span){line, 32}, e);
	rc = rc != 0 ? rc : commit_add(out, COMMIT_POINT, (struct lc_span){entry.p, entry.n}, e);
	lc_buf_free(&vm);
	lc_buf_free(&entry);
	return rc;
}

/* The entries of the point: all that is known of it now is in the log, or in them. */
static int
make_entries(struct writer *w, const struct commit_opts *o, struct point *p,
             struct group_entry *own, struct lc_err *e)
{
	struct lc_buf sealed = {0};
	size_t i;
	int rc;

	(void)pthread_mutex_lock(&w->lock);
	rc = check_opts(w, o, e);
	for (i = 0; rc == 0 && i < w->ndisks; i++)
		rc = write_rows_locked(w, &w->disks[i], e);
	(void)pthread_mutex_unlock(&w->lock);
	(void)failpoint("writer.rows");
	memcpy(own->line, w->line, sizeof own->line);
	memcpy(own->base, w->base_id, sizeof own->base);
	own->fork = w->fork;
	rc = rc != 0 ? rc : describe(w, o, p, e);
	rc = rc != 0 ? rc : point_seal_header(w->s->keyring, p, &sealed, e);
	rc = rc != 0 ? rc
	             : add_entries(w, p, (struct lc_span){sealed.p, sealed.n}, &own->entries, e);
	lc_buf_free(&sealed);
	return rc;
}

static int
commit_own(struct store *s, struct group_entry *own, struct lc_err *e)
{
	group_commit(s, &own, 1);
	if (own->rc != 0 && e != NULL && e->code == LC_OK)
		*e = own->err;
	return own->rc;
}

int
writer_commit(struct writer *w, const struct commit_opts *o, struct point *out, struct lc_err *e)
{
	struct group_entry own = {0};
	struct point *p = lc_alloc(sizeof *p);
	struct store *s = w->s;
	int rc;

	if (p == NULL) {
		writer_abort(w);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	rc = make_entries(w, o, p, &own, e);
	rc = rc != 0 ? rc : commit_own(s, &own, e);
	(void)lc_wrap(e, "%s", w->vm);
	lc_buf_free(&own.entries);
	if (rc == 0) {
		p->opened = true;
		(void)catalog_point(s->catalog, p->id, when_committed, &p->commit_ns, NULL);
		/* Not part of the promise: only how fast later reads are. */
		(void)catalog_age(s->catalog, w->line, RECENT_KEEP, NULL);
		if (out != NULL) {
			*out = *p;
			p->definition = NULL;
			p->left_out = NULL;
		}
		writer_free(w);
	} else {
		writer_abort(w);
	}
	point_done(p);
	lc_free(p);
	return rc;
}

void
writer_abort(struct writer *w)
{
	struct store *s;
	uint8_t id[POINT_ID_SIZE];

	if (w == NULL)
		return;
	s = w->s;
	memcpy(id, w->id, sizeof id);
	writer_free(w);
	store_discard(s, id);
}

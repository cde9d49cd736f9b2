/*
 * The map of a point in the making: what the base has, the rows that differ, and the disks they are
 * of.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "store/base/files.h"
#include "store/writer_internal.h"

/* Of a disk are written at once: what is sent ahead (transfer.h) is behind by so many at most. */
#define ROWS_AT_ONCE 512u
#define LOOK_PAGES 256u /* of windows that have rows, when content is looked for */
#define ZEROS_AT_ONCE (UINT64_C(8) * PAGE_WINDOWS)

static const uint8_t zero_id[CHUNK_ID_SIZE];

/* ---- rows; w->lock is held ---- */

int
writer_write_rows(struct writer *w, struct writer_disk_state *d, struct lc_err *e)
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

int
writer_add_row(struct writer *w, struct writer_disk_state *d, uint64_t window, uint64_t old,
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
	if (d->map->n < ROWS_AT_ONCE)
		return 0;
	rc = writer_write_rows(w, d, e);
	w->failed = w->failed || rc != 0;
	return rc;
}

static bool
page_has(const struct page *p, uint64_t window)
{
	return p->first <= window && window - p->first < p->n;
}

/* A page that begins with this window or shortly before.  Looking up many costs ten times as much
 * as a few, so many are only where a page before this one was used. */
static int
read_page(struct writer *w, const struct writer_disk_state *d, uint64_t window, struct page *p,
          struct lc_err *e)
{
	uint64_t first = window - window % PAGE_FIRST;
	uint32_t n = PAGE_FIRST;
	size_t i;
	int rc;

	for (i = 0; first > 0 && i < PAGES; i++) {
		if (page_has(&d->pages[i], first - 1))
			n = PAGE_WINDOWS;
	}
	p->n = 0;
	rc = catalog_map(w->s->catalog, w->base->id, w->base->disks[d->base_disk].id, first, n,
	                 p->chunks, e);
	if (rc != 0)
		return rc;
	p->first = first;
	p->n = n;
	return 0;
}

int
writer_old_chunk(struct writer *w, struct writer_disk_state *d, uint64_t window, uint64_t *old,
                 struct lc_err *e)
{
	struct page *best = NULL;
	size_t i;
	int rc;

	*old = 0;
	if (!d->known || window >= d->base_windows)
		return 0;
	w->tick++;
	for (i = 0; i < PAGES; i++) {
		struct page *p = &d->pages[i];

		if (page_has(p, window)) {
			p->used_at = w->tick;
			*old = p->chunks[window - p->first];
			return 0;
		}
		if (best == NULL || p->used_at < best->used_at)
			best = p;
	}
	rc = read_page(w, d, window, best, e);
	if (rc != 0)
		return rc;
	best->used_at = w->tick;
	*old = best->chunks[window - best->first];
	return 0;
}

static int
zeros_locked(struct writer *w, struct writer_disk_state *d, uint64_t first, uint64_t end,
             struct lc_err *e)
{
	uint64_t window, old;
	int rc = 0;

	for (window = first; rc == 0 && window < end; window++) {
		rc = writer_old_chunk(w, d, window, &old, e);
		if (rc == 0 && old != 0)
			rc = writer_add_row(w, d, window, old, zero_id, 0, e);
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

static int
by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Whether one of those chunks is what a disk of the base has. */
static int
names_any(struct writer *w, const struct point_disk *d, const struct lc_buf *bad, bool *any,
          struct lc_err *e)
{
	uint64_t *chunks = lc_alloc_array(PAGE_WINDOWS, sizeof *chunks);
	uint64_t first, n = point_windows(d->size);
	size_t i;
	int rc = 0;

	if (chunks == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", w->vm);
	for (first = 0; rc == 0 && !*any && first < n; first += PAGE_WINDOWS) {
		rc = catalog_map(w->s->catalog, w->base->id, d->id, first, PAGE_WINDOWS, chunks, e);
		for (i = 0; rc == 0 && !*any && i < PAGE_WINDOWS; i++)
			*any = chunks[i] != 0 &&
			       bsearch(&chunks[i], bad->p, bad->n / sizeof *chunks, sizeof *chunks,
			               by_number) != NULL;
	}
	lc_free(chunks);
	return rc;
}

int
writer_base_damaged(struct writer *w, uint64_t *seen, bool *damaged, struct lc_err *e)
{
	struct lc_buf bad = {0};
	uint64_t now;
	size_t i;
	int rc;

	*damaged = false;
	if (w->base == NULL || !w->s->fold->missing)
		return 0;
	rc = catalog_missing_numbers(w->s->catalog, &bad, e);
	now = bad.n == 0 ? 0 : XXH3_64bits(bad.p, bad.n);
	for (i = 0; rc == 0 && !*damaged && now != 0 && now != *seen && i < w->base->ndisks; i++)
		rc = names_any(w, &w->base->disks[i], &bad, damaged, e);
	if (rc == 0 && !*damaged)
		*seen = now;
	lc_buf_free(&bad);
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

int
writer_has_content(struct writer *w, size_t disk, uint64_t first, uint64_t n, bool *found,
                   struct lc_err *e)
{
	struct writer_disk_state *d = &w->disks[disk];
	uint64_t end = n > UINT64_MAX - first ? UINT64_MAX : first + n, upto, old;
	unsigned pages;
	int rc = 0;

	assert(disk < w->ndisks);
	*found = false;
	if (!d->known)
		return 0;
	if (end > d->base_windows)
		end = d->base_windows;
	for (pages = 0; first < end && pages < LOOK_PAGES; pages++) {
		rc = catalog_next_row(w->s->catalog, w->base->id, w->base->disks[d->base_disk].id,
		                      first, &first, e);
		if (rc != 0 || first >= end)
			break;
		upto = end - first < PAGE_WINDOWS ? end : first + PAGE_WINDOWS;
		(void)pthread_mutex_lock(&w->lock);
		for (; rc == 0 && !*found && first < upto; first++) {
			rc = writer_old_chunk(w, d, first, &old, e);
			*found = rc == 0 && old != 0;
		}
		(void)pthread_mutex_unlock(&w->lock);
		if (rc != 0 || *found)
			break;
	}
	return rc;
}

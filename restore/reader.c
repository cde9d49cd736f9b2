#include <pthread.h>
#include <string.h>

#include "store/base/memory.h"
#include "store/store.h"
#include "restore/cache.h"
#include "restore/reader.h"

enum {
	PAGE_WINDOWS = 4096, /* of the map, looked up together: 256 MiB of disk */
	PAGES_KEPT = 256,    /* 8 MiB of map: 64 GiB of disk */
	SHARDS = 16,
	AHEAD_AT_ONCE = 64,
	EXTENT_PAGES = 64,    /* map pages that one call of reader_extents() looks at */
	PAGE_DISK_SHIFT = 48, /* a page's key: disk above, number below */
};

struct context { /* what one thread needs to decode; on a free list while nobody does */
	struct context *next;
	struct chunk_reader *chunks;
};

struct reader {
	struct store *store;
	struct view *view;
	struct cache *windows; /* by chunk number */
	struct cache *pages;   /* by disk and page number */
	pthread_mutex_t lock;
	struct context *spare; /* under lock */
};

/* ---- decoding ---- */

static struct context *
context_take(struct reader *r, struct lc_err *e)
{
	struct context *x;

	(void)pthread_mutex_lock(&r->lock);
	x = r->spare;
	if (x != NULL)
		r->spare = x->next;
	(void)pthread_mutex_unlock(&r->lock);
	if (x != NULL)
		return x;
	x = lc_alloc(sizeof *x);
	if (x == NULL) {
		(void)lc_fail(e, LC_ENOMEM, 0, "reader: out of memory");
		return NULL;
	}
	if (chunk_reader_new(r->store, &x->chunks, e) != 0) {
		lc_free(x);
		return NULL;
	}
	return x;
}

static void
context_give(struct reader *r, struct context *x)
{
	(void)pthread_mutex_lock(&r->lock);
	x->next = r->spare;
	r->spare = x;
	(void)pthread_mutex_unlock(&r->lock);
}

static int
fill_window(void *arg, uint64_t chunk, void *block, struct lc_err *e)
{
	struct reader *r = arg;
	struct context *x = context_take(r, e);
	int rc;

	if (x == NULL)
		return e->code;
	rc = chunk_read(x->chunks, chunk, block, NULL, e);
	context_give(r, x);
	return rc;
}

static int
fill_page(void *arg, uint64_t key, void *block, struct lc_err *e)
{
	struct reader *r = arg;
	size_t disk = (size_t)(key >> PAGE_DISK_SHIFT);
	uint64_t first = (key & ((UINT64_C(1) << PAGE_DISK_SHIFT) - 1)) * PAGE_WINDOWS;
	uint64_t left = point_windows(view_point(r->view)->disks[disk].size) - first;
	uint32_t n = left < PAGE_WINDOWS ? (uint32_t)left : PAGE_WINDOWS;

	return view_map(r->view, disk, first, n, block, e);
}

static int
page_get(struct reader *r, size_t disk, uint64_t page, struct cache_block **out, struct lc_err *e)
{
	return cache_get(r->pages, (uint64_t)disk << PAGE_DISK_SHIFT | page, out, e);
}

/* ---- life ---- */

int
reader_new(struct store *s, struct view *v, const struct reader_opts *opts, struct reader **out,
           struct lc_err *e)
{
	uint64_t bytes = opts->cache_bytes != 0 ? opts->cache_bytes : READER_CACHE_DEFAULT;
	struct reader *r = lc_alloc(sizeof *r);
	struct cache_opts windows = {.block_size = WINDOW_SIZE,
	                             .nblocks = (size_t)(bytes / WINDOW_SIZE),
	                             .nshards = SHARDS,
	                             .fill = fill_window,
	                             .arg = r};
	struct cache_opts pages = {.block_size = PAGE_WINDOWS * sizeof(uint64_t),
	                           .nblocks = PAGES_KEPT,
	                           .nshards = SHARDS,
	                           .fill = fill_page,
	                           .arg = r};

	if (r == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "reader: out of memory");
	r->store = s;
	r->view = v;
	(void)pthread_mutex_init(&r->lock, NULL);
	if (cache_new(&windows, &r->windows, e) != 0 || cache_new(&pages, &r->pages, e) != 0) {
		reader_free(r);
		return LC_ENOMEM;
	}
	*out = r;
	return 0;
}

void
reader_free(struct reader *r)
{
	struct context *x;

	if (r == NULL)
		return;
	cache_free(r->windows);
	cache_free(r->pages);
	while ((x = r->spare) != NULL) {
		r->spare = x->next;
		chunk_reader_free(x->chunks);
		lc_free(x);
	}
	(void)pthread_mutex_destroy(&r->lock);
	lc_free(r);
}

/* ---- reading ---- */

static int
check_range(const struct reader *r, size_t disk, uint64_t n, uint64_t off, struct lc_err *e)
{
	const struct point *p = view_point(r->view);

	if (disk >= p->ndisks)
		return lc_fail(e, LC_EINVAL, 0, "%s has no disk number %zu", p->vm, disk);
	if (off > p->disks[disk].size || n > p->disks[disk].size - off)
		return lc_fail(e, LC_EINVAL, 0,
		               "%s/%s: %llu bytes at %llu are beyond its end at %llu", p->vm,
		               p->disks[disk].name, (unsigned long long)n, (unsigned long long)off,
		               (unsigned long long)p->disks[disk].size);
	return 0;
}

static void
wrap(const struct reader *r, size_t disk, uint64_t off, struct lc_err *e)
{
	const struct point *p = view_point(r->view);

	lc_wrap(e, "%s/%s at byte %llu", p->vm, p->disks[disk].name, (unsigned long long)off);
}

/* The part of [off, off + n) inside its first window; p is NULL to prefetch only. */
static int
read_window(struct reader *r, uint64_t chunk, uint8_t *p, size_t n, uint64_t off, struct lc_err *e)
{
	struct cache_block *b;
	int rc;

	if (chunk == 0) {
		if (p != NULL)
			memset(p, 0, n);
		return 0;
	}
	rc = cache_get(r->windows, chunk, &b, e);
	if (rc != 0)
		return rc;
	if (p != NULL)
		memcpy(p, (const uint8_t *)cache_data(b) + off % WINDOW_SIZE, n);
	cache_put(r->windows, b);
	return 0;
}

static int
walk(struct reader *r, size_t disk, uint8_t *p, uint64_t n, uint64_t off, struct lc_err *e)
{
	struct lc_err inner = LC_ERR_INIT;
	struct cache_block *page = NULL;
	uint64_t have = UINT64_MAX; /* number of the page that is held */
	int rc = check_range(r, disk, n, off, e);

	if (rc != 0)
		return rc;
	while (n > 0 && rc == 0) {
		uint64_t window = off / WINDOW_SIZE;
		size_t part = WINDOW_SIZE - (size_t)(off % WINDOW_SIZE);
		const uint64_t *chunks;

		if (part > n)
			part = (size_t)n;
		if (window / PAGE_WINDOWS != have) {
			if (page != NULL)
				cache_put(r->pages, page);
			page = NULL;
			have = window / PAGE_WINDOWS;
			rc = page_get(r, disk, have, &page, &inner);
			if (rc != 0)
				break;
		}
		chunks = cache_data(page);
		rc = read_window(r, chunks[window % PAGE_WINDOWS], p, part, off, &inner);
		if (rc != 0)
			break;
		if (p != NULL)
			p += part;
		off += part;
		n -= part;
	}
	if (page != NULL)
		cache_put(r->pages, page);
	if (rc != 0) {
		wrap(r, disk, off, &inner);
		if (e != NULL && e->code == LC_OK)
			*e = inner;
	}
	return rc;
}

int
reader_read(struct reader *r, size_t disk, void *p, size_t n, uint64_t off, struct lc_err *e)
{
	return walk(r, disk, p, n, off, e);
}

int
reader_prefetch(struct reader *r, size_t disk, uint64_t n, uint64_t off, struct lc_err *e)
{
	return walk(r, disk, NULL, n, off, e);
}

void
reader_read_ahead(struct reader *r, size_t disk, const uint64_t *windows, size_t n)
{
	uint64_t chunks[AHEAD_AT_ONCE];
	uint32_t k = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		uint64_t w = windows[i];
		struct cache_block *page;

		if (check_range(r, disk, 0, 0, NULL) != 0 ||
		    w >= point_windows(view_point(r->view)->disks[disk].size) ||
		    page_get(r, disk, w / PAGE_WINDOWS, &page, NULL) != 0)
			continue;
		chunks[k++] = ((const uint64_t *)cache_data(page))[w % PAGE_WINDOWS];
		cache_put(r->pages, page);
		if (k == AHEAD_AT_ONCE) {
			view_read_ahead(r->view, chunks, k);
			k = 0;
		}
	}
	view_read_ahead(r->view, chunks, k);
}

/* ---- extents ---- */

static void
add_extent(struct reader_extent *x, size_t *n, uint64_t off, uint64_t len, bool data)
{
	if (*n > 0 && x[*n - 1].data == data)
		x[*n - 1].len += len;
	else
		x[(*n)++] = (struct reader_extent){.off = off, .len = len, .data = data};
}

int
reader_extents(struct reader *r, size_t disk, uint64_t off, uint64_t len, struct reader_extent *x,
               size_t max, size_t *n, struct lc_err *e)
{
	unsigned pages = 0;
	uint64_t end = off + len;
	int rc = check_range(r, disk, len, off, e);

	*n = 0;
	while (rc == 0 && off < end && pages++ < EXTENT_PAGES) {
		uint64_t window = off / WINDOW_SIZE;
		uint64_t page_end = (window / PAGE_WINDOWS + 1) * PAGE_WINDOWS;
		struct cache_block *page;
		const uint64_t *chunks;

		rc = page_get(r, disk, window / PAGE_WINDOWS, &page, e);
		if (rc != 0) {
			wrap(r, disk, off, e);
			return rc;
		}
		chunks = cache_data(page);
		for (; off < end && window < page_end; window++) {
			uint64_t to = (window + 1) * WINDOW_SIZE;
			bool data = chunks[window % PAGE_WINDOWS] != 0;

			if (*n == max && x[max - 1].data != data) {
				cache_put(r->pages, page);
				return 0;
			}
			if (to > end)
				to = end;
			add_extent(x, n, off, to - off, data);
			off = to;
		}
		cache_put(r->pages, page);
	}
	return rc;
}

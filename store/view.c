/*
 * Reading a restore point: a lease, its map, its chunks.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/store_internal.h"

/* ---- views ---- */

static int
open_view(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct view *v = arg;

	return store_point_of(v->s, cp, &v->p, e);
}

int
store_view(struct store *s, const uint8_t point[POINT_ID_SIZE], struct view **out, struct lc_err *e)
{
	struct view *v = lc_alloc(sizeof *v);
	char hex[33];
	int rc;

	if (v == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	v->s = s;
	v->lease_fd = -1;
	memcpy(v->p.id, point, POINT_ID_SIZE);
	/* The lease first: between the two looks nobody drops it. */
	rc = lease_take(s, v->p.id, &v->lease_path, &v->lease_fd, e);
	rc = rc != 0 ? rc : catalog_point(s->catalog, point, open_view, v, e);
	if (rc == LC_ENOENT)
		rc = lc_fail(e, LC_ENOENT, 0, "store %s has no point %s", s->dir,
		             lc_hex(hex, point, 16));
	if (rc == 0 && (v->p.flags & POINT_MAP_DAMAGED) != 0) {
		rc = lc_fail(
		    e, LC_ECORRUPT, 0,
		    "restore point %s of %s: a part of its map was damaged, its disks can't "
		    "be trusted; take another point (see: locum scrub)",
		    lc_hex(hex, point, 4), v->p.vm);
	}
	if (rc != 0) {
		view_close(v);
		return rc;
	}
	*out = v;
	return 0;
}

const struct point *
view_point(const struct view *v)
{
	return &v->p;
}

int
view_map(struct view *v, size_t disk, uint64_t first, uint32_t n, uint64_t *chunks,
         struct lc_err *e)
{
	assert(disk < v->p.ndisks && n <= VIEW_MAP_MAX);
	return catalog_map(v->s->catalog, v->p.id, v->p.disks[disk].id, first, n, chunks, e);
}

void
view_close(struct view *v)
{
	if (v == NULL)
		return;
	lease_give(&v->lease_path, &v->lease_fd);
	point_done(&v->p);
	lc_free(v);
}

/* ---- reading ahead ---- */

#define AHEAD_GAP (UINT64_C(64) << 10) /* bytes that are not needed, and are read all the same */

struct ahead { /* bytes of a segment that are to be read */
	struct segments *segments;
	uint64_t segment, from, to;
};

static void
ahead_flush(struct ahead *a)
{
	if (a->to > a->from)
		segment_advise(a->segments, a->segment, a->from, a->to - a->from);
	a->from = a->to = 0;
}

static void
ahead_add(void *arg, const struct record *r)
{
	struct ahead *a = arg;
	uint64_t end = r->off + record_size(r->n);

	if (a->to == 0 || r->segment != a->segment || r->off < a->from ||
	    r->off > a->to + AHEAD_GAP) {
		ahead_flush(a);
		a->segment = r->segment;
		a->from = r->off;
	}
	a->to = end > a->to ? end : a->to;
}

void
view_read_ahead(struct view *v, const uint64_t *chunks, uint32_t n)
{
	struct ahead a = {.segments = v->s->segments};

	catalog_places(v->s->catalog, chunks, n, ahead_add, &a);
	ahead_flush(&a);
}

/* ---- whether the map is the one that was committed ---- */

void
view_add(const struct view *v, size_t disk, uint64_t window, const uint8_t *id, struct set_sum *sum)
{
	struct set_sum one;

	set_row(keyring_set(v->s->keyring), v->p.disks[disk].id, window, id, &one);
	set_add(sum, &one);
}

/* Ids that are looked up at once: the reads of others wait no longer for that than for a chunk. */
#define IDS_AT_ONCE 256u

static int
add_page(struct view *v, size_t disk, uint64_t first, uint32_t n, uint64_t *chunks,
         struct set_sum *sum, struct lc_err *e)
{
	uint8_t ids[IDS_AT_ONCE][CHUNK_ID_SIZE];
	uint32_t i, k, part;
	int rc = view_map(v, disk, first, n, chunks, e);

	for (i = 0; rc == 0 && i < n; i += part) {
		part = n - i < IDS_AT_ONCE ? n - i : IDS_AT_ONCE;
		rc = catalog_chunk_ids(v->s->catalog, chunks + i, part, ids, e);
		for (k = 0; rc == 0 && k < part; k++) {
			if (chunks[i + k] != 0)
				view_add(v, disk, first + i + k, ids[k], sum);
		}
	}
	return rc;
}

int
view_add_disk(struct view *v, size_t disk, bool (*stop)(void *arg), void *arg, struct set_sum *sum,
              struct lc_err *e)
{
	uint64_t windows = point_windows(v->p.disks[disk].size), first;
	uint64_t *chunks;
	uint32_t n;
	int rc = 0;

	if (v->s->keyring == NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s: no key to check the map with", v->s->dir);
	chunks = lc_alloc_array(VIEW_MAP_MAX, sizeof *chunks);
	if (chunks == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (first = 0; rc == 0 && first < windows; first += n) {
		n = windows - first < VIEW_MAP_MAX ? (uint32_t)(windows - first) : VIEW_MAP_MAX;
		if (stop(arg))
			rc = lc_fail(e, LC_ECANCELED, 0, "interrupted; nothing was left behind");
		else
			rc = add_page(v, disk, first, n, chunks, sum, e);
	}
	lc_free(chunks);
	return rc;
}

int
view_check(const struct view *v, const struct set_sum *sum, struct lc_err *e)
{
	if (memcmp(sum, &v->p.set, sizeof *sum) == 0)
		return 0;
	return lc_fail(e, LC_ECORRUPT, 0,
	               "%s: the map is not the one that was committed (its set hash differs): make "
	               "the catalog again (locum store rebuild), or take another point",
	               v->p.vm);
}

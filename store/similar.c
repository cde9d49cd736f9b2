/*
 * Each page names one chunk; those that are named most often are the bases.
 */
#include <string.h>

#include "store/similar.h"
#include "store/store_internal.h"

#define SURE_NUM 60u
#define SURE_KEPT 4u     /* pages that were looked up */
#define EVIDENCE_NUM 25u /* percent: of the pages that are looked up, in what is found */

/* Of a chunk's pages, one in so many is put into the index; of a window all are looked up.  So a
 * run of that many is met wherever it lies, for a quarter of the index.  Measured: docs/DESIGN.md.
 */
#define LEARN_STEP 4u

struct candidate {
	uint64_t chunk;
	unsigned pages;
};

/* Of so many pages each; returns how many there are. */
static size_t
count_chunks(const uint64_t chunks[WINDOW_PAGES], struct candidate list[WINDOW_PAGES])
{
	size_t i, k, n = 0;

	for (i = 0; i < WINDOW_PAGES; i++) {
		if (chunks[i] == 0)
			continue;
		for (k = 0; k < n && list[k].chunk != chunks[i]; k++)
			;
		if (k == n)
			list[n++] = (struct candidate){chunks[i], 0};
		list[k].pages++;
	}
	return n;
}

/* A number is a hint: the chunk counts by its id from here on. */
static bool
can_be_base(struct store *s, uint64_t chunk, uint8_t id[CHUNK_ID_SIZE])
{
	struct record r;
	uint64_t no;

	if (store_chunk_row(s, chunk, &r, NULL) != 0 || chunk_is_delta(r.encoding))
		return false;
	memcpy(id, r.id, CHUNK_ID_SIZE);
	return store_find_base(s, 0, id, &no, NULL) == 0;
}

static struct candidate *
take_best(struct candidate *list, size_t n)
{
	struct candidate *best = NULL;
	size_t i;

	for (i = 0; i < n; i++) {
		if (list[i].pages > 0 && (best == NULL || list[i].pages > best->pages))
			best = &list[i];
	}
	return best;
}

static bool
is_other(const struct similar_opts *o, const uint8_t *id)
{
	return memcmp(id, o->own, CHUNK_ID_SIZE) != 0 &&
	       (o->taken == NULL || memcmp(id, o->taken, CHUNK_ID_SIZE) != 0);
}

static bool
is_among(const uint8_t *ids, size_t n, const uint8_t *id)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (memcmp(ids + i * CHUNK_ID_SIZE, id, CHUNK_ID_SIZE) == 0)
			return true;
	}
	return false;
}

/* Where only some pages are kept, one of them stands for others: what was stored beside its chunk
 * is likely to go on where that ends. */
static size_t
add_neighbours(struct store *s, const struct similar_opts *o, uint64_t chunk, uint8_t *ids,
               size_t n)
{
	static const int64_t steps[] = {1, -1, 2, -2};
	size_t i;

	for (i = 0; i < sizeof steps / sizeof steps[0] && n < o->max; i++) {
		uint8_t *id = ids + n * CHUNK_ID_SIZE;

		if (can_be_base(s, chunk + (uint64_t)steps[i], id) && is_other(o, id) &&
		    !is_among(ids, n, id))
			n++;
	}
	return n;
}

size_t
similar_find(struct store *s, const struct similar_opts *o, uint8_t *ids, bool *sure)
{
	struct candidate list[WINDOW_PAGES], *best;
	uint64_t chunks[WINDOW_PAGES];
	unsigned kept = pages_find(s->pages, o->tags, chunks), covered = 0;
	size_t n = count_chunks(chunks, list), found = 0;
	uint64_t first = 0;

	while (found < o->max && (best = take_best(list, n)) != NULL) {
		uint8_t *id = ids + found * CHUNK_ID_SIZE;

		if (can_be_base(s, best->chunk, id)) {
			covered += best->pages;
			first = first == 0 ? best->chunk : first;
			found += is_other(o, id);
		}
		best->pages = 0;
	}
	*sure = covered * LEARN_STEP * 100 >= kept * SURE_NUM && kept >= SURE_KEPT;
	if (found == 0 || covered * LEARN_STEP * 100 < kept * EVIDENCE_NUM)
		return 0;
	return pages_level(s->pages) > 0 ? add_neighbours(s, o, first, ids, found) : found;
}

static bool
shares_a_page(const struct page_tags *a, const struct page_tags *b)
{
	size_t i, k;

	for (i = 0; i < WINDOW_PAGES; i++) {
		for (k = 0; a->v[i] != 0 && k < WINDOW_PAGES; k++) {
			if (a->v[i] == b->v[k])
				return true;
		}
	}
	return false;
}

size_t
similar_prove(struct store *s, const struct page_tags *t, const uint8_t *plain, uint8_t *ids,
              size_t n)
{
	struct page_tags other;
	size_t i, kept = 0;

	for (i = 0; i < n; i++) {
		pages_tags(s->pages, plain + i * WINDOW_SIZE, &other);
		if (!shares_a_page(t, &other))
			continue;
		memmove(ids + kept * CHUNK_ID_SIZE, ids + i * CHUNK_ID_SIZE, CHUNK_ID_SIZE);
		kept++;
	}
	return kept;
}

void
similar_learn(struct store *s, const struct page_tags *t, uint64_t chunk)
{
	struct page_tags some = {{0}};
	size_t i, n = 0;

	for (i = 0; i < WINDOW_PAGES; i++) {
		if (t->v[i] != 0 && n++ % LEARN_STEP == 0)
			some.v[i] = t->v[i];
	}
	pages_put(s->pages, &some, chunk);
}

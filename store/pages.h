/**
 * pages: where 4 KiB pages of the whole chunks were seen, so that a window that shares pages with
 * any of them, at any shift, can be made upon it.
 *
 * A table of fixed size limit in one file: a keyed tag of a page gives the number of the chunk that
 * had it last.  It is a hint and nothing else: whoever uses it reads that chunk, by its id.  A
 * table that is lost, damaged, of another store or far behind costs bytes, never a wrong one.  When
 * it is full only every second tag is kept, then every fourth and so on: the same ones everywhere,
 * so that pages still meet.
 *
 * Of the pages themselves nothing can be told from the file without the key: SipHash, under a key
 * of the domain, of a fast hash of the page.
 *
 * Memory: what was touched of the file, at most all of it; written back now and then, never
 * flushed. Thread: any.
 */
#ifndef LOCUM_PAGES_H
#define LOCUM_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/seal.h"

#define PAGE_SIZE 4096u
#define WINDOW_PAGES (WINDOW_SIZE / PAGE_SIZE)

struct pages;

struct page_tags {
	uint64_t v[WINDOW_PAGES]; /* 0: all zero */
};

/**
 * pages_open(path, k, store_id, bytes, out, e):
 * A table that never takes more than `bytes`, on disk and in memory (at least 64 KiB).  One that
 * can't be used is begun anew.
 */
int pages_open(const char *path, const struct keyring *k, const uint8_t store_id[16],
               uint64_t bytes, struct pages **out, struct lc_err *e);
/** pages_close(x): write back and free; NULL is fine. */
void pages_close(struct pages *x);
/** pages_tags(x, window, out): the tags of its pages. */
void pages_tags(const struct pages *x, const uint8_t *window, struct page_tags *out);
/**
 * pages_find(x, t, chunks):
 * Chunk numbers, 0 where a page is not known.  Returns how many of the tags are among those that
 * the table keeps.
 */
unsigned pages_find(struct pages *x, const struct page_tags *t, uint64_t chunks[WINDOW_PAGES]);
/** pages_put(x, t, chunk): that chunk has those pages. */
void pages_put(struct pages *x, const struct page_tags *t, uint64_t chunk);
/** pages_settle(x): write back if much waits. */
void pages_settle(struct pages *x);
/** pages_level(x): one of 2^level tags is kept. */
unsigned pages_level(struct pages *x);

#endif

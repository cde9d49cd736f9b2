/**
 * similar: which whole chunks a window may be made upon, by the pages that they share (pages.h).
 */
#ifndef LOCUM_SIMILAR_H
#define LOCUM_SIMILAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/pages.h"

struct store;

struct similar_opts {
	const struct page_tags *tags; /* of the window */
	const uint8_t *own;           /* its id */
	const uint8_t *taken;         /* id of a base that it has already, or NULL */
	size_t max;                   /* bases */
};

/**
 * similar_find(s, o, ids, sure):
 * The ids of at most o->max chunks that share most pages with a window: whole ones, whose bytes are
 * here and were not found to be bad.  None where they share too little.  *sure: they share so much
 * that it takes no look at how small the window is by itself.  Returns how many.  Thread: any.
 */
size_t similar_find(struct store *s, const struct similar_opts *o, uint8_t *ids, bool *sure);
/** similar_prove(s, t, plain, ids, n): leave those of n ids that really share a page, by their
 * contents.  Returns how many. */
size_t similar_prove(struct store *s, const struct page_tags *t, const uint8_t *plain, uint8_t *ids,
                     size_t n);
/** similar_learn(s, t, chunk): what a chunk that was stored whole has, for windows to come. Thread:
 * any. */
void similar_learn(struct store *s, const struct page_tags *t, uint64_t chunk);

#endif

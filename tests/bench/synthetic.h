/**
 * synthetic: a store of any size without its data, to measure what grows with the number of chunks.
 *
 * What a catalog is made from is real: segment headers, KEYS, MAP and COMMIT records with sealed
 * headers and right sums, indexes and trailers.  Chunk records are holes in sparse files, of
 * lengths as zstd makes them; so all works but reading contents.  One VM with one disk: its first
 * point fills the disk, each later one changes some windows, evenly spread and drawn at random.
 */
#ifndef LOCUM_TESTS_SYNTHETIC_H
#define LOCUM_TESTS_SYNTHETIC_H

#include <stdint.h>

#include "store/base/errors.h"

#define SYNTHETIC_VM "web01"

struct synthetic {
	uint64_t windows; /* of the disk */
	uint64_t points;
	uint64_t changes; /* windows that each point after the first one changes */
};

/** synthetic_make(dir, what, e): <dir>/store, without a catalog, and <dir>/keys. */
int synthetic_make(const char *dir, const struct synthetic *what, struct lc_err *e);
/** synthetic_id(n, id): id of the n-th chunk that was made, from 0 on. */
void synthetic_id(uint64_t n, uint8_t id[32]);

#endif

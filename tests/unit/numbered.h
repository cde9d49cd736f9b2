/**
 * numbered: an index of ids that are numbered from 1 and made from their number.  All asserts.
 */
#ifndef LOCUM_TESTS_NUMBERED_H
#define LOCUM_TESTS_NUMBERED_H

#include <stddef.h>
#include <stdint.h>

#include "store/idindex.h"

extern const uint8_t numbered_store[16]; /* whose index it is */

uint64_t numbered_mix(uint64_t v);
/** numbered_id(n, id): of that number. */
void numbered_id(uint64_t n, uint8_t id[32]);
struct idindex *numbered_open(const char *dir, size_t mem_max, uint64_t *covered);
void numbered_add(struct idindex *x, uint64_t from, uint64_t to);
/** numbered_find(x, n): what is said of an id; asserts that it has that number. */
enum idindex_hit numbered_find(struct idindex *x, uint64_t n);
/** numbered_missed(x, from, to): how many of the ids are not found at all. */
uint64_t numbered_missed(struct idindex *x, uint64_t from, uint64_t to);
void numbered_flush(struct idindex *x, uint64_t durable);
/** numbered_files(dir, path, n): how many files; the last one's path in path where that is not
 * NULL. */
unsigned numbered_files(const char *dir, char *path, size_t npath);
/** numbered_three_runs(dir): an index of the numbers to 4000, to 5000 and to 5200. */
struct idindex *numbered_three_runs(const char *dir);

#endif

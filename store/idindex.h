/**
 * idindex: chunk id to chunk number, disposable and rebuilt from the catalog at any time.
 *
 * The newest ids live in memory (full 32 bytes); when there are many they are merged into sorted,
 * immutable run files (idrun.h: 16 bytes of id and the number), each with a filter that says
 * "certainly new" for nearly every id that is new.  A hit in a run is a candidate: the caller
 * confirms it against the full id in the catalog.
 *
 * The index may forget an id and may name a wrong candidate, and so a fault of its files costs a
 * chunk stored twice, never a wrong answer.  It says "new" of an id that was flushed only where a
 * run is damaged or cannot be read.
 *
 * Numbers start at 1 and are given in ascending order.  Each run says which numbers it covers; at
 * open, runs count as far as they cover the numbers from 1 on without a gap.  A run that is
 * damaged, of another store, or behind a gap is deleted and made again.
 */
#ifndef LOCUM_IDINDEX_H
#define LOCUM_IDINDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"

struct idindex;

/**
 * idindex_open(dir, store_id, mem_max, writable, out, covered, e):
 * Open or start an index.  *covered = highest chunk number that the runs cover: the caller adds
 * every chunk above it (idindex_add) before the first lookup, with an idindex_flush() now and then
 * where they are many.  Where it is above the catalog's highest number the runs are of another
 * catalog: idindex_reset().
 *
 * mem_max: ids kept in memory before they are merged to disk (e.g. 200000: 12.5 MiB).  Each run
 * adds 1.5 bytes of memory an id up to 16 MiB.  Not writable: nothing is created or deleted, and
 * a missing dir is an empty index.
 */
int idindex_open(const char *dir, const uint8_t store_id[16], size_t mem_max, bool writable,
                 struct idindex **out, uint64_t *covered, struct lc_err *e);

enum idindex_hit { IDINDEX_NEW = 0, IDINDEX_FOUND, IDINDEX_CANDIDATE };
/**
 * idindex_find(x, id, number):
 * NEW: not there.  FOUND: *number is it (full id compared).  CANDIDATE: confirm *number by its full
 * id; if that differs the id is to be taken as new.  Thread: any.
 */
enum idindex_hit idindex_find(struct idindex *x, const uint8_t id[32], uint64_t *number);
/**
 * idindex_claim(x, id, number):
 * As add, but if the id is in memory already returns false and gives its number.  An allocation
 * failure is treated as "not claimed before" (true): the index may forget, never lie.
 * Thread: any.
 */
bool idindex_claim(struct idindex *x, const uint8_t id[32], uint64_t *number);
/**
 * idindex_add(x, id, number):
 * Remember; an id in memory already keeps its lower number.  Between memory and runs, and between
 * runs, the newer one counts: that is the live one where a chunk was collected and came again.
 * Thread: any.
 */
void idindex_add(struct idindex *x, const uint8_t id[32], uint64_t number);
/**
 * idindex_replace(x, id, number):
 * As add, whatever number it had: in one step, so that it is there for whoever looks meanwhile.
 * Thread: any.
 */
void idindex_replace(struct idindex *x, const uint8_t id[32], uint64_t number);
/**
 * idindex_forget(x, id):
 * Drop from memory (a claim whose record was never written, a chunk that was collected).  In a run
 * it stays, a candidate that is refuted.  Thread: any.
 */
void idindex_forget(struct idindex *x, const uint8_t id[32]);
/**
 * idindex_flush(x, durable_upto, e):
 * If memory is over its limit, write the ids whose number is <= durable_upto (known to the
 * catalog) to a run, merging runs geometrically; nothing where those are fewer than half of the
 * limit.  Called from one thread at a time (so are reset and close); lookups go on meanwhile.
 *
 * Returns  0; LC_ENOSPC, LC_EIO, LC_ENOMEM: nothing was lost, memory goes on growing; LC_ECORRUPT
 *          or LC_EIO with the name of a run: it was deleted with all later ones, and their ids
 *          are taken for new until the index is opened again.  The caller warns and goes on.
 */
int idindex_flush(struct idindex *x, uint64_t durable_upto, struct lc_err *e);
/**
 * idindex_reset(x):
 * Forget everything and delete the runs.  Call it before the catalog is rebuilt, so that a crash
 * in between leaves none of them.
 */
void idindex_reset(struct idindex *x);
/** idindex_memory(x): bytes of heap in use. */
size_t idindex_memory(const struct idindex *x);
void idindex_close(struct idindex *x);

#endif

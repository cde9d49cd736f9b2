/**
 * idrun: one sorted, immutable file of the id index: the first 16 bytes of ids and chunk numbers.
 *
 * For idindex.c.  A run is written once, by merging, and published by rename; then it is only read,
 * from any thread.  Nothing in it beyond the header is trusted: whatever its bytes are, the worst
 * that a lookup gives is a wrong answer, which the index's callers are made for.
 */
#ifndef LOCUM_IDRUN_H
#define LOCUM_IDRUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

#define IDRUN_PREFIX 16u /* bytes of an id */
#define IDRUN_ENTRY 24u  /* a prefix and the number, little-endian */
#define IDRUNS_MAX 32u   /* runs that can be merged at once */

struct idrun {
	int fd;               /* -1: not open */
	uint64_t file;        /* <file>.run */
	uint64_t from, until; /* it covers the chunk numbers from < n <= until */
	uint64_t count;
	uint64_t nblocks;
	uint64_t blocks_hash, entries_hash;
	uint8_t *blocks; /* a copy in memory, or NULL */
};

/** idrun_open(dir, store_id, file, r): false where it is damaged or of another store. */
bool idrun_open(const char *dir, const uint8_t store_id[16], uint64_t file, struct idrun *r);
/** idrun_close(r): close it; the file stays. */
void idrun_close(struct idrun *r);
/** idrun_delete(dir, r): close and delete it. */
void idrun_delete(const char *dir, struct idrun *r);
/** idrun_memory(r): bytes of heap that r holds. */
size_t idrun_memory(const struct idrun *r);
/** idrun_find(r, id, number): look up the first bytes of id; not there where a read fails. */
bool idrun_find(const struct idrun *r, const uint8_t *id, uint64_t *number);

struct idrun_merge { /* what to merge */
	const char *dir;
	const uint8_t *store_id;  /* 16 bytes */
	const struct idrun *runs; /* oldest first; of equal prefixes the newest stays */
	unsigned nruns;
	const uint8_t *sorted; /* further entries, ascending and newer than all runs */
	size_t nsorted;        /* at least 1 */
};

/**
 * idrun_write(what, r, bad, e):
 * Write a run of all these to r->file, covering r->from to r->until (set by the caller), and open
 * it in r.
 *
 * Returns  0; LC_ENOSPC, LC_EIO, LC_ENOMEM; LC_ECORRUPT or LC_EIO with the index of the run that
 *          is damaged or cannot be read in *bad (else *bad is IDRUNS_MAX).
 * Durable: the new run, on return of 0.  The merged ones still stand.
 */
int idrun_write(const struct idrun_merge *what, struct idrun *r, unsigned *bad, struct lc_err *e);

#endif

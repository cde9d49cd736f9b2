/**
 * vouch: several writers in one store, and what one may take of another's.
 *
 * A replica holds no key, so it cannot see whether a chunk is what its id says: a captured host
 * could send junk under the id of a window that another one is going to have.  So each chunk
 * belongs to the writer that sent it, and an id means a chunk of the writer that names it, and no
 * other's. Equal contents of two hosts are stored once all the same: what is sealed comes out the
 * same wherever it is sealed (seal.h), so a writer that has the same bytes shows it by them, and
 * the chunk of the other one then counts as its own, too.  That is put down as a VOUCH record: u32
 * n, u32 zero, then n times u64 sequence of the chunk, 32 id; the writer is in the record's header.
 *
 * Writers have numbers from 0 on, which the log knows; who they are is not the store's to know.
 * VMs have a writer, too: an OWNER entry says so.
 */
#ifndef LOCUM_VOUCH_H
#define LOCUM_VOUCH_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

#define WRITERS_MAX 64u /* that are looked at for a content */
#define VOUCH_MAX 16384u

struct vouch {
	uint64_t seq; /* the chunk's */
	uint8_t id[32];
};

/** vouch_encode(list, n, out, e): append a payload of n > 0 entries. */
int vouch_encode(const struct vouch *list, size_t n, struct lc_buf *out, struct lc_err *e);
/** vouch_count(payload, n, e): LC_ECORRUPT where it is none. */
int vouch_count(struct lc_span payload, size_t *n, struct lc_err *e);
/** vouch_get(payload, i, out): the i-th of those. */
void vouch_get(struct lc_span payload, size_t i, struct vouch *out);

#endif

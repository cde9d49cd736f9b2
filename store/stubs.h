/**
 * stubs: what is left of chunks whose bytes were dropped: STUBS records (FORMAT.md "STUBS").
 */
#ifndef LOCUM_STUBS_H
#define LOCUM_STUBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/seal.h"

#define STUB_SIZE 40u      /* bytes of each in a record */
#define STUBS_HEAD_SIZE 8u /* before them */
#define STUBS_MAX 16384u   /* of a record */

struct stub {
	uint64_t seq; /* of the CHUNK record that it was */
	uint8_t id[CHUNK_ID_SIZE];
};

/** stubs_encode(list, n, out, e): append a payload; list ascends by seq, and is not empty.  Its
 * record has the first one's sequence. */
int stubs_encode(const struct stub *list, size_t n, struct lc_buf *out, struct lc_err *e);
/** stubs_decode(payload, seq, i, out): the i-th of a record with that sequence; false behind the
 * last one, and where it is none. */
bool stubs_decode(struct lc_span payload, uint64_t seq, size_t i, struct stub *out);
/** stubs_count(payload, n, e): how many there are; LC_ECORRUPT where it is no such payload. */
int stubs_count(struct lc_span payload, size_t *n, struct lc_err *e);

#endif

/**
 * maprec: MAP records: which chunk is in which window, as the log says it.
 *
 * A MAP record carries some of the changed windows of one disk for a restore point that is being
 * made.  Its rows become visible when a COMMIT record names the point.
 */
#ifndef LOCUM_MAPREC_H
#define LOCUM_MAPREC_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/seal.h"

#define MAP_ROWS_MAX 4096u                 /* per record */
#define MAP_WINDOW_MAX (UINT64_C(1) << 47) /* windows are below that: 8 EiB */

struct map_row {
	uint64_t window;
	uint64_t chunk; /* number in the catalog; 0 = zero window, or not looked up yet */
	uint8_t id[CHUNK_ID_SIZE]; /* zeros: the window is all zero */
};

/** What a row's chunk is made upon, where it is a delta. */
struct map_base {
	uint64_t no;
	uint8_t id[CHUNK_ID_SIZE];
};

struct map_record {
	uint8_t point[16]; /* the one being made */
	uint8_t line[16];
	uint8_t disk[16];
	uint16_t writer; /* whose record it is; not in the payload */
	size_t n;
	struct map_row rows[MAP_ROWS_MAX];
};

/** maprec_zero(row): whether the row says "all zero". */
bool maprec_zero(const struct map_row *row);
/** maprec_encode(m, out, e): append the payload (FORMAT.md "MAP"); sorts m->rows by window.
 *  LC_EINVAL where a window is there twice. */
int maprec_encode(struct map_record *m, struct lc_buf *out, struct lc_err *e);
/** maprec_decode(payload, m, e): LC_ECORRUPT where it is no such payload; rows come sorted, windows
 * are unique. */
int maprec_decode(struct lc_span payload, struct map_record *m, struct lc_err *e);
/** maprec_zeros(payload): how many rows say "all zero", by its lengths alone; at most as many as a
 * record can have. */
uint64_t maprec_zeros(struct lc_span payload);

#endif

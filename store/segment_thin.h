/**
 * segment_thin: a sealed segment without chunks whose bytes are kept elsewhere.
 *
 * <n>.thin takes the place of <n>.seg.  It is written beside, under a name that nobody takes for a
 * segment, and gets its own when all of it is durable; only then may the other one go.  While both
 * are there the whole one counts.
 */
#ifndef LOCUM_SEGMENT_THIN_H
#define LOCUM_SEGMENT_THIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/segment.h"

struct segment_diet {
	const struct segment_info *seg; /* sealed, not thin */
	struct record *records;         /* [n] of its index; out: where those that stay lie now */
	const bool *drop;               /* [n] only of type CHUNK */
	size_t n;
	struct lc_span stubs; /* payload for those: a STUBS record, behind KEYS */
	uint64_t stubs_seq;   /* its sequence: the lowest one in it */
};
/**
 * segment_thin_write(s, d, e):
 * Make <n>.thin.  LC_ECORRUPT: a record that is to stay is damaged.  On failure nothing is left
 * that counts.
 *
 * Durable: on return of 0, beside <n>.seg.
 */
int segment_thin_write(struct segments *s, const struct segment_diet *d, struct lc_err *e);
/** segment_remove(s, seg, e): take away that name of it (whole or thin), durably. */
int segment_remove(struct segments *s, const struct segment_info *seg, struct lc_err *e);
/** segment_thin_tidy(s): remove what a dead owner was writing. */
void segment_thin_tidy(struct segments *s);

#endif

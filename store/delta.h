/**
 * delta: librsync at arm's length: signatures of windows, deltas against them, and patching.
 *
 * A delta is made from the signature of its bases alone, without their bytes.  It is only as good
 * as the signature: whoever keeps signatures has to know that they are those of that content.  Made
 * by librsync; read by a reader of our own, which takes nothing on trust (FORMAT.md "CHUNK").
 */
#ifndef LOCUM_DELTA_H
#define LOCUM_DELTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

/**
 * delta_sign(base, block, out, e):
 * Append the signature of some bytes, in blocks of `block` bytes; 36 bytes for each and 12.
 */
int delta_sign(struct lc_span base, size_t block, struct lc_buf *out, struct lc_err *e);
/**
 * delta_make(signature, window, out, cap, n, e):
 * The delta that makes window out of what the signature is of: at most cap bytes at out.  *n = 0
 * where it would be longer.  Slow (0.07 GB/s) where the two have nothing in common.
 *
 * Returns  0; LC_ECORRUPT: that is no signature; LC_ENOMEM.
 */
int delta_make(struct lc_span signature, struct lc_span window, uint8_t *out, size_t cap, size_t *n,
               struct lc_err *e);
/**
 * delta_patch(delta, base, out, n):
 * Whether the delta, taken to base, makes exactly n bytes, which are at out then.  Work and memory
 * are bounded by the length of the delta and by n.
 */
bool delta_patch(struct lc_span delta, struct lc_span base, uint8_t *out, size_t n);

#endif

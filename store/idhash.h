/**
 * idhash: keyed BLAKE2b-256 of four windows at once, where the processor can (AVX2): the same
 * hashes as libsodium's, one after the other, in a third of the time.
 */
#ifndef LOCUM_IDHASH_H
#define LOCUM_IDHASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDHASH_LANES 4u
#define IDHASH_SIZE 32u

/** idhash_fast(): whether this processor can. */
bool idhash_fast(void);
/**
 * idhash_four(key, in, n, out):
 * Of n bytes each, a multiple of 128 and not 0.  Only where idhash_fast().
 * Thread: any.
 */
void idhash_four(const uint8_t key[32], const uint8_t *const in[IDHASH_LANES], size_t n,
                 uint8_t out[IDHASH_LANES][IDHASH_SIZE]);

#endif

/**
 * idhash: keyed BLAKE2b-256 of four or eight windows at once, where the processor can (AVX2,
 * AVX-512): the same hashes as libsodium's, one after the other, in a third or a fifth of the time.
 */
#ifndef LOCUM_IDHASH_H
#define LOCUM_IDHASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDHASH_MAX 8u
#define IDHASH_SIZE 32u

/** idhash_lanes(): how many at once are fastest on this processor: 8, 4, or 0. */
unsigned idhash_lanes(void);
/**
 * idhash_four(key, in, n, out):
 * Of n bytes each, a multiple of 128 and not 0.  Only where idhash_lanes() is at least 4.
 * Thread: any.
 */
void idhash_four(const uint8_t key[32], const uint8_t *const in[4], size_t n,
                 uint8_t (*out)[IDHASH_SIZE]);
/** idhash_eight(key, in, n, out): the same of eight, where idhash_lanes() is 8. */
void idhash_eight(const uint8_t key[32], const uint8_t *const in[8], size_t n,
                  uint8_t (*out)[IDHASH_SIZE]);

#endif

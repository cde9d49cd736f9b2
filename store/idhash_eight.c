/*
 * Eight hashes at once, where there is AVX-512.
 */
#define IDHASH_WIDTH 8
#include "store/idhash_lanes.h"

#if defined(__x86_64__)

FAST void
idhash_eight(const uint8_t key[32], const uint8_t *const in[8], size_t n,
             uint8_t (*out)[IDHASH_SIZE])
{
	hash_lanes(key, in, n, out);
}

#else

void
idhash_eight(const uint8_t key[32], const uint8_t *const in[8], size_t n,
             uint8_t (*out)[IDHASH_SIZE])
{
	(void)key, (void)in, (void)n, (void)out;
	assert(false);
}

#endif

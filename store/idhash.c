/*
 * Four or eight hashes at once: what one hash does to its sixteen words, in an order that leaves a
 * processor waiting, is done to so many of them together.  libsodium has one hash at a time only.
 */
#define IDHASH_WIDTH 4
#include "store/idhash_lanes.h"

#if defined(__x86_64__)

unsigned
idhash_lanes(void)
{
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
		return 8;
	return __builtin_cpu_supports("avx2") ? 4 : 0;
}

FAST void
idhash_four(const uint8_t key[32], const uint8_t *const in[4], size_t n,
            uint8_t (*out)[IDHASH_SIZE])
{
	hash_lanes(key, in, n, out);
}

#else

unsigned
idhash_lanes(void)
{
	return 0;
}

void
idhash_four(const uint8_t key[32], const uint8_t *const in[4], size_t n,
            uint8_t (*out)[IDHASH_SIZE])
{
	(void)key, (void)in, (void)n, (void)out;
	assert(false);
}

#endif

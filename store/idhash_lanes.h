/**
 * idhash_lanes: BLAKE2b (RFC 7693) with the states of IDHASH_WIDTH hashes side by side, one word of
 * each in a vector.  Made twice: four in registers of AVX2, eight in those of AVX-512.
 */
#ifndef LOCUM_IDHASH_LANES_H
#define LOCUM_IDHASH_LANES_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/idhash.h"

#ifndef IDHASH_WIDTH
#define IDHASH_WIDTH 4
#endif

#if defined(__x86_64__)

#if IDHASH_WIDTH == 8
#include <immintrin.h>
#define FAST __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq")))
#else
#define FAST __attribute__((target("avx2")))
#endif

#define BLOCK 128u
#define ROUNDS 12u
#define INLINE static inline __attribute__((always_inline)) FAST

typedef uint64_t lanes __attribute__((vector_size(8 * IDHASH_WIDTH)));

static const uint64_t iv[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

static const uint8_t sigma[ROUNDS][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
};

INLINE lanes
all(uint64_t x)
{
	return (lanes){0} + x;
}

/* turn..(): rotations to the right.  transpose(): IDHASH_WIDTH words of each input, as so many
 * vectors of one word each. */

#if IDHASH_WIDTH == 8

INLINE lanes
turn32(lanes x)
{
	return (lanes)_mm512_ror_epi64((__m512i)x, 32);
}

INLINE lanes
turn24(lanes x)
{
	return (lanes)_mm512_ror_epi64((__m512i)x, 24);
}

INLINE lanes
turn16(lanes x)
{
	return (lanes)_mm512_ror_epi64((__m512i)x, 16);
}

INLINE lanes
turn63(lanes x)
{
	return (lanes)_mm512_ror_epi64((__m512i)x, 63);
}

INLINE void
transpose(const uint8_t *const in[IDHASH_WIDTH], size_t off, lanes m[IDHASH_WIDTH])
{
	lanes a[8], b[8];
	unsigned i;

	for (i = 0; i < 8; i++)
		memcpy(&a[i], in[i] + off, sizeof a[i]);
	for (i = 0; i < 8; i += 2) { /* pairs of words ... */
		b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
		b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
	}
	for (i = 0; i < 8; i += i % 4 == 1 ? 3 : 1) { /* ... fours ... */
		a[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
		a[i + 2] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
	}
	for (i = 0; i < 4; i++) { /* ... and eights */
		m[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
		m[i + 4] = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
	}
}

#else

typedef uint8_t octets __attribute__((vector_size(32)));

/* Those by whole bytes are one instruction. */
INLINE lanes
turn32(lanes x)
{
	octets o = (octets)x;

	return (lanes)__builtin_shufflevector(o, o, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9,
	                                      10, 11, 20, 21, 22, 23, 16, 17, 18, 19, 28, 29, 30,
	                                      31, 24, 25, 26, 27);
}

INLINE lanes
turn24(lanes x)
{
	octets o = (octets)x;

	return (lanes)__builtin_shufflevector(o, o, 3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8,
	                                      9, 10, 19, 20, 21, 22, 23, 16, 17, 18, 27, 28, 29, 30,
	                                      31, 24, 25, 26);
}

INLINE lanes
turn16(lanes x)
{
	octets o = (octets)x;

	return (lanes)__builtin_shufflevector(o, o, 2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15,
	                                      8, 9, 18, 19, 20, 21, 22, 23, 16, 17, 26, 27, 28, 29,
	                                      30, 31, 24, 25);
}

INLINE lanes
turn63(lanes x)
{
	return (x + x) | (x >> 63);
}

INLINE void
transpose(const uint8_t *const in[IDHASH_WIDTH], size_t off, lanes m[IDHASH_WIDTH])
{
	lanes a, b, c, d, ab, cd, ba, dc;

	memcpy(&a, in[0] + off, sizeof a);
	memcpy(&b, in[1] + off, sizeof b);
	memcpy(&c, in[2] + off, sizeof c);
	memcpy(&d, in[3] + off, sizeof d);
	ab = __builtin_shufflevector(a, b, 0, 4, 2, 6);
	ba = __builtin_shufflevector(a, b, 1, 5, 3, 7);
	cd = __builtin_shufflevector(c, d, 0, 4, 2, 6);
	dc = __builtin_shufflevector(c, d, 1, 5, 3, 7);
	m[0] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
	m[1] = __builtin_shufflevector(ba, dc, 0, 1, 4, 5);
	m[2] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
	m[3] = __builtin_shufflevector(ba, dc, 2, 3, 6, 7);
}

#endif

INLINE void
mix(lanes v[16], unsigned a, unsigned b, unsigned c, unsigned d, lanes x, lanes y)
{
	v[a] += v[b] + x;
	v[d] = turn32(v[d] ^ v[a]);
	v[c] += v[d];
	v[b] = turn24(v[b] ^ v[c]);
	v[a] += v[b] + y;
	v[d] = turn16(v[d] ^ v[a]);
	v[c] += v[d];
	v[b] = turn63(v[b] ^ v[c]);
}

INLINE void
mix_round(lanes v[16], const lanes m[16], const uint8_t s[16])
{
	mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
	mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
	mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
	mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
	mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
	mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
	mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
	mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
}

/* One block of each input; done: bytes that were taken with it, of the key's block too. */
INLINE void
take_block(lanes h[8], const uint8_t *const in[IDHASH_WIDTH], size_t off, uint64_t done, bool last)
{
	lanes v[16], m[16];
	unsigned i;

	for (i = 0; i < 16; i += IDHASH_WIDTH)
		transpose(in, off + (size_t)i * 8, m + i);
	for (i = 0; i < 8; i++) {
		v[i] = h[i];
		v[8 + i] = all(iv[i]);
	}
	v[12] ^= all(done);
	if (last)
		v[14] = ~v[14];
	/* One by one: so the compiler knows which words are meant, and no table is read. */
	mix_round(v, m, sigma[0]);
	mix_round(v, m, sigma[1]);
	mix_round(v, m, sigma[2]);
	mix_round(v, m, sigma[3]);
	mix_round(v, m, sigma[4]);
	mix_round(v, m, sigma[5]);
	mix_round(v, m, sigma[6]);
	mix_round(v, m, sigma[7]);
	mix_round(v, m, sigma[8]);
	mix_round(v, m, sigma[9]);
	mix_round(v, m, sigma[10]);
	mix_round(v, m, sigma[11]);
	for (i = 0; i < 8; i++)
		h[i] ^= v[i] ^ v[8 + i];
}

INLINE void
hash_lanes(const uint8_t key[32], const uint8_t *const in[IDHASH_WIDTH], size_t n,
           uint8_t out[IDHASH_WIDTH][IDHASH_SIZE])
{
	uint8_t block[BLOCK] = {0};
	const uint8_t *keys[IDHASH_WIDTH];
	lanes h[8];
	unsigned i, k;
	size_t off;

	assert(n > 0 && n % BLOCK == 0);
	for (i = 0; i < IDHASH_WIDTH; i++)
		keys[i] = block;
	for (i = 0; i < 8; i++)
		h[i] = all(iv[i]);
	/* Lengths of hash and key, and one hash alone and not of a tree. */
	h[0] ^= all(0x01010000 | 32U << 8 | IDHASH_SIZE);
	memcpy(block, key, 32);
	take_block(h, keys, 0, BLOCK, false);
	for (off = 0; off < n; off += BLOCK)
		take_block(h, in, off, BLOCK + off + BLOCK, off + BLOCK == n);
	for (k = 0; k < IDHASH_WIDTH; k++) {
		for (i = 0; i < IDHASH_SIZE / 8; i++)
			lc_put64(out[k] + (size_t)i * 8, h[i][k]);
	}
	explicit_bzero(block, sizeof block);
}

#endif
#endif

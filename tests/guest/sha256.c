/* sha256: see sha256.h. */
#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "sha256.h"

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t
ror(uint32_t x, unsigned by)
{
	return x >> by | x << (32 - by);
}

/*
 * One round.  The eight words do not move: the caller names them one place
 * further each time, which under emulation is a third of the time.
 */
static inline void
round_of(uint32_t a, uint32_t b, uint32_t c, uint32_t *d, uint32_t e, uint32_t f, uint32_t g,
         uint32_t *h, uint32_t kw)
{
	uint32_t t = *h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + (g ^ (e & (f ^ g))) + kw;

	*d += t;
	*h = t + (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) | (c & (a | b)));
}

static void
do_block(struct sha256 *s, const uint8_t *p)
{
	uint32_t w[64], v[8];
	unsigned i;

	memcpy(w, p, 64);
	for (i = 0; i < 16; i++)
		w[i] = be32toh(w[i]);
	for (; i < 64; i++) {
		w[i] = w[i - 16] + w[i - 7] +
		       (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	}
	memcpy(v, s->h, sizeof(v));
	for (i = 0; i < 64; i += 8) {
		round_of(v[0], v[1], v[2], &v[3], v[4], v[5], v[6], &v[7], K[i] + w[i]);
		round_of(v[7], v[0], v[1], &v[2], v[3], v[4], v[5], &v[6], K[i + 1] + w[i + 1]);
		round_of(v[6], v[7], v[0], &v[1], v[2], v[3], v[4], &v[5], K[i + 2] + w[i + 2]);
		round_of(v[5], v[6], v[7], &v[0], v[1], v[2], v[3], &v[4], K[i + 3] + w[i + 3]);
		round_of(v[4], v[5], v[6], &v[7], v[0], v[1], v[2], &v[3], K[i + 4] + w[i + 4]);
		round_of(v[3], v[4], v[5], &v[6], v[7], v[0], v[1], &v[2], K[i + 5] + w[i + 5]);
		round_of(v[2], v[3], v[4], &v[5], v[6], v[7], v[0], &v[1], K[i + 6] + w[i + 6]);
		round_of(v[1], v[2], v[3], &v[4], v[5], v[6], v[7], &v[0], K[i + 7] + w[i + 7]);
	}
	for (i = 0; i < 8; i++)
		s->h[i] += v[i];
}

void
sha256_init(struct sha256 *s)
{
	static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

	memcpy(s->h, start, sizeof(start));
	s->nbytes = 0;
}

void
sha256_add(struct sha256 *s, const uint8_t *p, size_t n)
{
	size_t used = (size_t)(s->nbytes % 64);
	size_t take;

	s->nbytes += n;
	while (n > 0) {
		if (used == 0 && n >= 64) {
			do_block(s, p);
			p += 64;
			n -= 64;
			continue;
		}
		take = 64 - used < n ? 64 - used : n;
		memcpy(s->block + used, p, take);
		used += take;
		p += take;
		n -= take;
		if (used == 64) {
			do_block(s, s->block);
			used = 0;
		}
	}
}

void
sha256_hex(struct sha256 *s, char *out)
{
	uint64_t nbits = htobe64(s->nbytes * 8);
	static const uint8_t pad[64] = {0x80};
	size_t used = (size_t)(s->nbytes % 64);
	unsigned i;

	sha256_add(s, pad, used < 56 ? 56 - used : 120 - used);
	sha256_add(s, (const uint8_t *)&nbits, sizeof(nbits));
	for (i = 0; i < 8; i++)
		(void)snprintf(out + (size_t)i * 8, 9, "%08x", s->h[i]);
}

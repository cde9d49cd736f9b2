/*
 * sha256: FIPS 180-4, so that the guest's `sum` can be compared with
 * sha256sum on the host.  The static guest binary has no crypto library.
 */
#ifndef TESTS_GUEST_SHA256_H
#define TESTS_GUEST_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
	uint32_t h[8];
	uint64_t nbytes;
	uint8_t block[64];
};

/** sha256_init(s): start. */
void sha256_init(struct sha256 *s);

/** sha256_add(s, p, n): take in n bytes. */
void sha256_add(struct sha256 *s, const uint8_t *p, size_t n);

/** sha256_hex(s, out): finish; out[65] gets the digest in hex and a NUL. */
void sha256_hex(struct sha256 *s, char *out);

#endif

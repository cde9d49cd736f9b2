/**
 * bytes: little-endian codecs with bounds.  Nothing is ever cast onto stored or received bytes.
 *
 * A struct lc_rd reads from a borrowed span; it fails once and stays failed,
 * so a parser reads everything and asks lc_rd_ok() at the end.
 */
#ifndef LOCUM_BYTES_H
#define LOCUM_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "store/base/memory.h"

static inline void
lc_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void
lc_put32(uint8_t *p, uint32_t v)
{
	lc_put16(p, (uint16_t)v);
	lc_put16(p + 2, (uint16_t)(v >> 16));
}

static inline void
lc_put64(uint8_t *p, uint64_t v)
{
	lc_put32(p, (uint32_t)v);
	lc_put32(p + 4, (uint32_t)(v >> 32));
}

static inline uint16_t
lc_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | (p[1] << 8));
}

static inline uint32_t
lc_get32(const uint8_t *p)
{
	return (uint32_t)lc_get16(p) | ((uint32_t)lc_get16(p + 2) << 16);
}

static inline uint64_t
lc_get64(const uint8_t *p)
{
	return (uint64_t)lc_get32(p) | ((uint64_t)lc_get32(p + 4) << 32);
}

struct lc_rd { /* a reader over borrowed bytes */
	const uint8_t *p;
	size_t n; /* bytes left */
	bool bad; /* something was read beyond the end */
};

/** lc_rd_over(p, n): a reader over n borrowed bytes at p. */
struct lc_rd lc_rd_over(const void *p, size_t n);
uint8_t lc_rd8(struct lc_rd *r);
uint16_t lc_rd16(struct lc_rd *r);
uint32_t lc_rd32(struct lc_rd *r);
uint64_t lc_rd64(struct lc_rd *r);
/** lc_rd_bytes(r, n): n borrowed bytes, or NULL (and r is bad) where there are fewer. */
const uint8_t *lc_rd_bytes(struct lc_rd *r, size_t n);
/** lc_rd_copy(r, dst, n): copy n bytes; zeroes where there are fewer. */
void lc_rd_copy(struct lc_rd *r, void *dst, size_t n);
/** lc_rd_ok(r): everything asked for was there. */
bool lc_rd_ok(const struct lc_rd *r);
/** lc_rd_end(r): everything asked for was there and nothing is left. */
bool lc_rd_end(const struct lc_rd *r);

/* Writers: append to an lc_buf; return 0 or LC_ENOMEM. */
int lc_wr8(struct lc_buf *b, uint8_t v);
int lc_wr16(struct lc_buf *b, uint16_t v);
int lc_wr32(struct lc_buf *b, uint32_t v);
int lc_wr64(struct lc_buf *b, uint64_t v);

/** lc_hex(dst, p, n): write 2n hex digits and a NUL to dst[2n + 1]; returns dst. */
char *lc_hex(char *dst, const void *p, size_t n);
/** lc_unhex(dst, n, s): parse exactly 2n hex digits; false if s is anything else. */
bool lc_unhex(void *dst, size_t n, const char *s);
/** lc_is_zero(p, n): whether all n bytes are zero (not constant time; 25 GB/s). */
bool lc_is_zero(const void *p, size_t n);

#endif

#include "store/base/bytes.h"

struct lc_rd
lc_rd_over(const void *p, size_t n)
{
	return (struct lc_rd){.p = p, .n = n, .bad = false};
}

const uint8_t *
lc_rd_bytes(struct lc_rd *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->bad || n > r->n) {
		r->bad = true;
		return NULL;
	}
	r->p += n;
	r->n -= n;
	return p;
}

uint8_t
lc_rd8(struct lc_rd *r)
{
	const uint8_t *p = lc_rd_bytes(r, 1);

	return p == NULL ? 0 : p[0];
}

uint16_t
lc_rd16(struct lc_rd *r)
{
	const uint8_t *p = lc_rd_bytes(r, 2);

	return p == NULL ? 0 : lc_get16(p);
}

uint32_t
lc_rd32(struct lc_rd *r)
{
	const uint8_t *p = lc_rd_bytes(r, 4);

	return p == NULL ? 0 : lc_get32(p);
}

uint64_t
lc_rd64(struct lc_rd *r)
{
	const uint8_t *p = lc_rd_bytes(r, 8);

	return p == NULL ? 0 : lc_get64(p);
}

void
lc_rd_copy(struct lc_rd *r, void *dst, size_t n)
{
	const uint8_t *p = lc_rd_bytes(r, n);

	if (p == NULL)
		memset(dst, 0, n);
	else
		memcpy(dst, p, n);
}

bool
lc_rd_ok(const struct lc_rd *r)
{
	return !r->bad;
}

bool
lc_rd_end(const struct lc_rd *r)
{
	return !r->bad && r->n == 0;
}

int
lc_wr8(struct lc_buf *b, uint8_t v)
{
	return lc_buf_append(b, &v, 1);
}

int
lc_wr16(struct lc_buf *b, uint16_t v)
{
	uint8_t t[2];

	lc_put16(t, v);
	return lc_buf_append(b, t, sizeof t);
}

int
lc_wr32(struct lc_buf *b, uint32_t v)
{
	uint8_t t[4];

	lc_put32(t, v);
	return lc_buf_append(b, t, sizeof t);
}

int
lc_wr64(struct lc_buf *b, uint64_t v)
{
	uint8_t t[8];

	lc_put64(t, v);
	return lc_buf_append(b, t, sizeof t);
}

char *
lc_hex(char *dst, const void *p, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = p;
	size_t i;

	for (i = 0; i < n; i++) {
		dst[2 * i] = digits[b[i] >> 4];
		dst[2 * i + 1] = digits[b[i] & 15];
	}
	dst[2 * n] = '\0';
	return dst;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool
lc_unhex(void *dst, size_t n, const char *s)
{
	uint8_t *out = dst;
	size_t i;

	for (i = 0; i < n; i++) {
		int hi = hex_digit(s[2 * i]);
		int lo = hi < 0 ? -1 : hex_digit(s[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return s[2 * n] == '\0';
}

bool
lc_is_zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	/* All bytes equal their neighbour, and the first is zero. */
	return n == 0 || (b[0] == 0 && memcmp(b, b + 1, n - 1) == 0);
}

#include <ctype.h>
#include <string.h>

#include "agent/hypervisor/screen.h"

#define SIDE_MAX 16384u
#define CURSOR_SHARE 2000u /* a text cursor is 16 of 288,000 pixels, and blinks */

/* A decimal number after white space and comments; false at the end or at anything else. */
static bool
next_number(const uint8_t *p, size_t n, size_t *at, uint32_t *out)
{
	uint32_t v = 0;
	size_t i = *at, digits = 0;

	while (i < n && (isspace(p[i]) || p[i] == '#')) {
		if (p[i] == '#') {
			while (i < n && p[i] != '\n')
				i++;
		} else {
			i++;
		}
	}
	for (; i < n && isdigit(p[i]) && digits < 6; digits++)
		v = 10 * v + (uint32_t)(p[i++] - '0');
	*at = i;
	*out = v;
	return digits > 0;
}

int
screen_parse(const void *p, size_t n, struct screen *out, struct lc_err *e)
{
	const uint8_t *b = p;
	uint32_t w, h, max;
	size_t at = 2;

	if (n < 2 || memcmp(b, "P6", 2) != 0 || !next_number(b, n, &at, &w) ||
	    !next_number(b, n, &at, &h) || !next_number(b, n, &at, &max) || at >= n ||
	    !isspace(b[at]))
		return lc_fail(e, LC_EINVAL, 0, "screen: not a PPM");
	at++; /* exactly one white space before the pixels */
	if (w == 0 || h == 0 || w > SIDE_MAX || h > SIDE_MAX || max != 255)
		return lc_fail(e, LC_EINVAL, 0, "screen: a PPM of %ux%u, maximum %u", w, h, max);
	if (n - at < (size_t)3 * w * h)
		return lc_fail(e, LC_EINVAL, 0, "screen: cut short");
	*out = (struct screen){.width = w, .height = h, .rgb = b + at};
	return 0;
}

/* Pixels of s that are not those at other, which moves on by `step` bytes a pixel. */
static bool
differs(const struct screen *s, const uint8_t *other, size_t step)
{
	size_t i, n = (size_t)s->width * s->height, different = 0;

	for (i = 0; i < n; i++) {
		if (memcmp(s->rgb + 3 * i, other + step * i, 3) != 0)
			different++;
	}
	return different >= n / CURSOR_SHARE + 1;
}

bool
screen_blank(const struct screen *s)
{
	return !differs(s, s->rgb, 0);
}

bool
screen_same(const struct screen *a, const struct screen *b)
{
	return a->width == b->width && a->height == b->height && !differs(a, b->rgb, 3);
}

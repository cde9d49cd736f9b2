/**
 * screen: what can be told of a guest from pictures of its screen (PPM, as QEMU writes them).
 */
#ifndef LOCUM_SCREEN_H
#define LOCUM_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

#define SCREEN_BYTES_MAX (128u << 20)

struct screen { /* borrows the bytes it was parsed from */
	uint32_t width, height;
	const uint8_t *rgb; /* rgb[3 * width * height] */
};

/** screen_parse(p, n, out, e): a binary PPM ("P6") with 8 bits a colour.  LC_EINVAL for anything
 * else. */
int screen_parse(const void *p, size_t n, struct screen *out, struct lc_err *e);
/** screen_blank(s): of one colour but for a cursor (less than one pixel in 2000). */
bool screen_blank(const struct screen *s);
/** screen_same(a, b): the same picture but for a cursor. */
bool screen_same(const struct screen *a, const struct screen *b);

#endif

/*
 * By cells of 16 bytes: small enough that a write of a few bytes brings little else with it, large
 * enough for zstd to find each.
 */
#include <string.h>

#include "store/layer.h"
#include "store/seal.h"

#define CELL 16u

static bool
is_in(const uint8_t *window, const uint8_t *bases, size_t n, size_t at)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (memcmp(window + at, bases + i * WINDOW_SIZE + at, CELL) == 0)
			return true;
	}
	return false;
}

bool
layer_make(const uint8_t *window, const uint8_t *bases, size_t n, uint8_t *layer)
{
	bool any = false;
	size_t at;

	memset(layer, 0, WINDOW_SIZE);
	for (at = 0; at < WINDOW_SIZE; at += CELL) {
		if (is_in(window, bases, n, at))
			continue;
		memcpy(layer + at, window + at, CELL);
		any = true;
	}
	return any;
}

/* Whether a cell of the version before was new then: in the last layer, or in no base. */
static bool
was_new(const uint8_t *old, const uint8_t *bases, size_t n, size_t at)
{
	static const uint8_t zeros[CELL];
	const uint8_t *last = bases + (n - 1) * WINDOW_SIZE;

	if (n > 1 && memcmp(last + at, zeros, CELL) != 0 && memcmp(old + at, last + at, CELL) == 0)
		return true;
	return !is_in(old, bases, n, at);
}

bool
layer_repeats(const uint8_t *window, const uint8_t *old, const uint8_t *bases, size_t n)
{
	size_t at, changed = 0, again = 0;

	for (at = 0; at < WINDOW_SIZE; at += CELL) {
		if (memcmp(window + at, old + at, CELL) == 0)
			continue;
		changed++;
		again += was_new(old, bases, n, at);
	}
	return again * 2 > changed;
}

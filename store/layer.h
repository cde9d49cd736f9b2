/**
 * layer: a base that only holds what changed since the others were made: in its place, with zeros
 * around it.  A whole chunk like any other, in no map.
 */
#ifndef LOCUM_LAYER_H
#define LOCUM_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** layer_make(window, bases, n, layer): what of a window is in none of n bases at its place, into
 * layer[WINDOW_SIZE]; whether that is anything. */
bool layer_make(const uint8_t *window, const uint8_t *bases, size_t n, uint8_t *layer);
/** layer_repeats(window, old, bases, n): whether most of what a window changed in old had just been
 * changed: by the last of n bases of old, or since. */
bool layer_repeats(const uint8_t *window, const uint8_t *old, const uint8_t *bases, size_t n);

#endif

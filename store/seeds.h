/**
 * seeds: which lines have a point that is made in several passes, of which some are over: its
 * contents so far go ahead (transfer_making()), also between two passes.
 *
 * Thread: any.
 */
#ifndef LOCUM_SEEDS_H
#define LOCUM_SEEDS_H

#include <stdint.h>

struct store;

/** seeds_note(s, line, vm, seed): that pass is the newest point of its line.  Best effort. */
void seeds_note(struct store *s, const uint8_t line[16], const uint8_t vm[16],
                const uint8_t seed[16]);
/** seeds_over(s, line): a point is. */
void seeds_over(struct store *s, const uint8_t line[16]);
/** seeds_free(s): at the end. */
void seeds_free(struct store *s);

#endif

/**
 * decay: a source with three points, and a replica that has them and whose disk rots.
 *
 * All asserts.
 */
#ifndef LOCUM_TESTS_DECAY_H
#define LOCUM_TESTS_DECAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/halves.h"

#define DECAY_WINDOWS 40u
#define DECAY_POINTS 3u

struct decay {
	struct halves x;
	struct vault_disk d[DECAY_POINTS];
	struct point p[DECAY_POINTS];
	struct sender_care care;
	uint64_t seed;
};

struct decay_said { /* of the place that was told of last */
	char affects[256], mended[256];
};

/** decay_make(s): windows that do not compress, a few of which change a little each time. */
void decay_make(struct decay *s);
void decay_end(struct decay *s);
/** decay_arrived(s): that the replica's copies are what was backed up. */
void decay_arrived(struct decay *s);
/** decay_scrub(store, said): as `locum scrub` does it; how many places were found.  said may be
 * NULL. */
size_t decay_scrub(struct store *s, struct decay_said *said);
/** decay_spoil(s, type, nth, n, rebuild): those records at the replica.  Its store is closed and
 * open again, without its catalog where asked; its host hangs up. */
void decay_spoil(struct decay *s, int type, const int *nth, size_t n, bool rebuild);
/** decay_is_whole(s): nothing is known to be damaged there. */
bool decay_is_whole(struct decay *s);

#endif

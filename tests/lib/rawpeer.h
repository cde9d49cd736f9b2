/**
 * rawpeer: one side of a channel made by hand from noise.h, which says what no channel would; two
 * fixed static keys; and a source of randomness for libsodium that repeats.
 */
#ifndef LOCUM_TESTS_RAWPEER_H
#define LOCUM_TESTS_RAWPEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replicator/channel.h"
#include "replicator/noise.h"

#define RAWPEER_FRAME_MAX 65537u

extern const uint8_t rawpeer_host[NOISE_KEY_SIZE];    /* secret key of an initiator */
extern const uint8_t rawpeer_replica[NOISE_KEY_SIZE]; /* secret key of a responder */
/** rawpeer_host_public(), rawpeer_replica_public(): what belongs to them. */
const uint8_t *rawpeer_host_public(void);
const uint8_t *rawpeer_replica_public(void);

/**
 * rawpeer_random(seed):
 * From now on libsodium's random bytes follow from the seed.  For the whole process, one thread.
 */
void rawpeer_random(uint64_t seed);
/** rawpeer_next_random(p): the next NOISE_KEY_SIZE random bytes; borrows p until they are taken. */
void rawpeer_next_random(const uint8_t *p);

struct rawpeer {
	struct noise_cipher sending, receiving;
	bool no_rekey; /* of what is sent: break that rule */
};

/**
 * rawpeer_meet(r, ch, initiator, events):
 * Go through the handshake with ch, a new channel with one of the keys above, as the other one.
 * Aborts where that does not succeed.
 */
void rawpeer_meet(struct rawpeer *r, struct channel *ch, bool initiator,
                  const struct channel_events *events);
/**
 * rawpeer_frame(r, plain, n, out):
 * A frame with n bytes (at most 65,519) of plaintext to out[RAWPEER_FRAME_MAX].  Returns its size.
 */
size_t rawpeer_frame(struct rawpeer *r, const uint8_t *plain, size_t n, uint8_t *out);

#endif

/**
 * halves: the two halves of a session, over a wire that is two queues.
 *
 * The store at the replica is blind.  All asserts.
 */
#ifndef LOCUM_TESTS_HALVES_H
#define LOCUM_TESTS_HALVES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "replicator/receiver.h"
#include "replicator/sender.h"
#include "store/base/errors.h"
#include "store/base/memory.h"
#include "tests/lib/vault.h"

#define HALVES_WINDOW (256u << 10)

struct packet {
	TAILQ_ENTRY(packet) entry;
	uint16_t type;
	struct lc_buf body;
};
TAILQ_HEAD(queue, packet);

struct halves {
	struct vault v; /* the source's store, with its key */
	char dir[300];
	struct store *to;
	struct sender *tx;
	struct receiver *rx;
	struct queue up, down; /* to the replica, to the source */
	uint64_t chunk_bytes;  /* carried, over all sessions */
	unsigned committed, failed, refused;
	struct lc_err why;           /* the last failure or refusal */
	int64_t budget;              /* messages until the wire is cut; < 0: never */
	struct sender_damage damage; /* as the source told it last ... */
	unsigned told;               /* ... and how often */
};

/** halves_make(x): two empty stores of one domain, connected. */
void halves_make(struct halves *x);
void halves_free(struct halves *x);
/** halves_connect(x), halves_hang_up(x): a new session; what is on the wire is lost with it. */
void halves_connect(struct halves *x);
void halves_hang_up(struct halves *x);
/** halves_open_replica(x): x->to, after it was closed. */
void halves_open_replica(struct halves *x);
/** halves_carry(x, q): one message of a queue; false: there is none, or the wire is cut. */
bool halves_carry(struct halves *x, struct queue *q);
/** halves_run(x, seed): until nothing moves any more.  seed: which side goes first is drawn. */
void halves_run(struct halves *x, uint64_t *seed);
/** halves_backup(x, vm, d): a point at the source. */
struct point halves_backup(struct halves *x, const char *vm, const struct vault_disk *d);
/** halves_arrived(x, p, d): that the replica's copy of a point is that. */
void halves_arrived(struct halves *x, const struct point *p, const struct vault_disk *d);
/** halves_seed(): $LOCUM_TEST_SEED, or the clock; it is printed. */
uint64_t halves_seed(void);

#endif

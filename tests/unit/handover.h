/**
 * handover: a store with its key, and a blind one that points are handed to, without a wire.
 *
 * All asserts, but what gives an error.
 */
#ifndef LOCUM_TESTS_HANDOVER_H
#define LOCUM_TESTS_HANDOVER_H

#include <stddef.h>
#include <stdint.h>

#include "store/transfer.h"
#include "tests/lib/vault.h"

struct handover { /* a giver with its key, and a blind taker */
	struct vault v;
	char dir[300];
	struct store *to;
	uint64_t chunks; /* sent so far */
};

void handover_make(struct handover *t);
void handover_free(struct handover *t);
/** handover_backup(t, vm, d, n): a point of the giver. */
struct point handover_backup(struct handover *t, const char *vm, const struct vault_disk *d,
                             size_t n);
/** handover_next(t, p): the first point of the line that p is in; outgoing_free() it. */
struct outgoing *handover_next(struct handover *t, const struct point *p);
/** handover_all(t): all that the taker lacks; how many points that were. */
unsigned handover_all(struct handover *t);
/** handover_try(t, sent, e): the same, which may fail. */
int handover_try(struct handover *t, unsigned *sent, struct lc_err *e);
/** handover_has(t, p, d, n): the taker's store, opened with the code, has p with these disks. */
void handover_has(struct handover *t, const struct point *p, const struct vault_disk *d, size_t n);
/** handover_rebuild(t): the taker's catalog is made again from its log. */
void handover_rebuild(struct handover *t);

#endif

/**
 * twin: a store, and a copy of it that stands for its replica: for stores that become thin.
 */
#ifndef LOCUM_TESTS_TWIN_H
#define LOCUM_TESTS_TWIN_H

#include <stddef.h>
#include <stdint.h>

#include "store/thin.h"
#include "tests/lib/vault.h"

struct twin {
	struct vault v;
	char dir[300];      /* of the replica */
	struct store *peer; /* opened without a key; NULL while it is closed */
};

/** twin_make(t, segment_bytes): a store, open; no replica yet. */
void twin_make(struct twin *t, uint64_t segment_bytes);
/** twin_at(t, top, segment_bytes): where another process made it; nothing is open. */
void twin_at(struct twin *t, const char *top, uint64_t segment_bytes);
/** twin_replicate(t): the log becomes that of the replica, too; then both are open. */
void twin_replicate(struct twin *t);
int twin_open_peer(struct twin *t, struct lc_err *e);
void twin_close_peer(struct twin *t);
void twin_free(struct twin *t);

/** twin_have(twin, ...), twin_fetch(twin, ...): thin_opts.have and thin_fetch_cb of the replica. */
int twin_have(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e);
int twin_fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
               struct lc_err *e);

#endif

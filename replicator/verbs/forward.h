/** forward: a store's points to a replica over the wire, once. */
#ifndef LOCUM_REPLICATOR_FORWARD_H
#define LOCUM_REPLICATOR_FORWARD_H

#include <stddef.h>
#include <stdint.h>

#include "replicator/sender.h"
#include "store/base/errors.h"

struct settings;

/**
 * forward(settings, store, writer, replica, only, nonly, show, out, damage, e):
 * Send what the replica of that name lacks, of the VMs with those ids (nonly 0: of all), as the
 * host that this writer of the store is to it (identity_of_store()), and come back.  A key is not
 * needed.  out->failed: lines that it did not take; each was logged.  damage: what was damaged
 * there of what this store has sent, and has become of it.
 */
int forward(const struct settings *settings, struct store *store, unsigned writer,
            const char *replica, const uint8_t (*only)[16], size_t nonly, bool show,
            struct sender_stats *out, struct sender_damage *damage, struct lc_err *e);

#endif

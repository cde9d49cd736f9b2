/**
 * recall: a store that was lost, made again from a replica: points with their maps and the ids of
 * their contents, not the contents (thin.h).  So the next backup compares with what the replica
 * has, here, and sends what differs.
 */
#ifndef LOCUM_RECALL_H
#define LOCUM_RECALL_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/transfer.h"

/**
 * recall_key(key_dir, keys, code, e):
 * See to it that this host has the key file for a KEYS payload; where it has none, one is made with
 * the recovery code (may be NULL).  Where it has one and the code is given, data keys that the
 * payload has and the file lacks are put into it.
 *
 * Returns  0; LC_EKEY: neither the file nor a code, or a code of another domain; LC_EINVAL: it is
 *          mistyped.
 * Durable: the file.
 */
int recall_key(const char *key_dir, struct lc_span keys, const char *code, struct lc_err *e);
/** recall_lacks(s, line, lacks, e): whether there is no point of that line here. */
int recall_lacks(struct store *s, const uint8_t line[16], bool *lacks, struct lc_err *e);
/**
 * recall_windows(s, entry, n, e):
 * How many windows the disks of a point have, which is how many rows can be told of it at most.
 *
 * Returns  0; LC_EKEY: it is sealed with a data key that is not here; LC_ECORRUPT: who wrote that
 *          POINT entry has not the keys, so what it says of its disks is no bound.
 */
int recall_windows(struct store *s, struct lc_span entry, uint64_t *n, struct lc_err *e);
/**
 * recall_rows(s, in, payload, left, e):
 * A MAP payload of a point that is being taken, whose contents stay where they are: as
 * incoming_rows().  *left: how many rows may still come; LC_ECORRUPT where there are more, or none.
 */
int recall_rows(struct store *s, struct incoming *in, struct lc_span payload, uint64_t *left,
                struct lc_err *e);

#endif

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
/** recall_rows(s, in, payload, e): a MAP payload of a point that is being taken, whose contents
 * stay where they are: as incoming_rows(). */
int recall_rows(struct store *s, struct incoming *in, struct lc_span payload, struct lc_err *e);

#endif

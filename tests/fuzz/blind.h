/**
 * blind: a replica's store for a fuzz target, and the messages of an input.
 */
#ifndef LOCUM_FUZZ_BLIND_H
#define LOCUM_FUZZ_BLIND_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/memory.h"
#include "store/store.h"

/**
 * blind_store(is_new):
 * The store of this run: that of the last one, or an empty one every some thousand runs, so that it
 * does not grow for ever (is_new: which of the two; may be NULL).  It is removed at exit.
 */
struct store *blind_store(bool *is_new);
/** blind_message(all, type, body): take a type (1 byte), a length (2), a body; false: no more. */
bool blind_message(struct lc_span *all, uint16_t *type, struct lc_span *body);

#endif

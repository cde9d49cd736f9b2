/**
 * bases: the contents that deltas were read or made upon last, for all threads of a store.
 *
 * One base serves many deltas (of similar windows, of versions of one); here it is decoded once.
 * A fixed number of windows, taken when they are needed: 16 MiB at most.
 */
#ifndef LOCUM_BASES_H
#define LOCUM_BASES_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"

struct bases;

/** bases_new(out, e): LC_ENOMEM. */
int bases_new(struct bases **out, struct lc_err *e);
/** bases_free(b): NULL is fine. */
void bases_free(struct bases *b);
/**
 * bases_get(b, id, checked, window):
 * Copy the content of that id to window[WINDOW_SIZE]; false where it is not here, or was not
 * compared with its id and checked is asked for.  Thread: any.
 */
bool bases_get(struct bases *b, const uint8_t id[32], bool checked, uint8_t *window);
/** bases_put(b, id, checked, window): keep it, in the place of another one.  Thread: any. */
void bases_put(struct bases *b, const uint8_t id[32], bool checked, const uint8_t *window);

#endif

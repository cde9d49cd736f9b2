/**
 * signatures: what is kept of contents that are not here any more, so that deltas can still be made
 * upon them.
 *
 * When a thin store drops a whole chunk its signature stays, in a file of fixed size in which newer
 * ones push out older ones.  Each is sealed, and bound to the id of its content: a signature that
 * was damaged, or of another content, is none.  The file may vanish at any time; then windows are
 * stored whole.
 *
 * Thread: any.
 */
#ifndef LOCUM_SIGNATURES_H
#define LOCUM_SIGNATURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/seal.h"

#define SIGNATURE_BLOCK 4096u

struct record;
struct signatures;
struct store;

/** signatures_open(path, k, bytes, out, e): of at most so many bytes; k is borrowed. */
int signatures_open(const char *path, const struct keyring *k, uint64_t bytes,
                    struct signatures **out, struct lc_err *e);
/** signatures_close(x): NULL is fine. */
void signatures_close(struct signatures *x);
/** signatures_put(x, id, window, e): keep that of a content. */
int signatures_put(struct signatures *x, const uint8_t id[CHUNK_ID_SIZE], const uint8_t *window,
                   struct lc_err *e);
/** signatures_get(x, id, out): append it; LC_ENOENT: it is not there. */
int signatures_get(struct signatures *x, const uint8_t id[CHUNK_ID_SIZE], struct lc_buf *out);
/** signatures_keep(s, list, drop, n): keep those of the whole chunks among n records that are about
 * to be dropped; best effort. */
void signatures_keep(struct store *s, const struct record *list, const bool *drop, size_t n);
/** signatures_alike(signature, window): whether at least half of the blocks are still in place. */
bool signatures_alike(struct lc_span signature, const uint8_t *window);

#endif

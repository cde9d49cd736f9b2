/**
 * stores: the stores of a replica that are open, each once, for all connections of its host: one
 * that writes, and some that read.
 */
#ifndef LOCUM_STORES_H
#define LOCUM_STORES_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"

struct store;
struct stores;
struct shared;

int stores_new(struct stores **out, struct lc_err *e);
/** stores_free(x): all were given back; NULL is fine. */
void stores_free(struct stores *x);
/** stores_desk(x, path): what is opened from now on says that it is asked for there (desk.h); NULL:
 * nowhere. */
void stores_desk(struct stores *x, const char *path);
/**
 * stores_take(x, dir, writing, wait_ms, out, e):
 * The store in that folder, opened without a key; blocks while it is being opened, and, as long as
 * wait_ms, while another one writes.
 *
 * Returns  0; LC_EBUSY: another one writes, or another program has it; what store_open() returns.
 * Thread:  any.
 */
int stores_take(struct stores *x, const char *dir, bool writing, int64_t wait_ms,
                struct shared **out, struct lc_err *e);
struct store *shared_store(struct shared *s);
/** stores_spoil(x, s): it can't go on; who takes it from now on gets it opened anew. */
void stores_spoil(struct stores *x, struct shared *s);
/** shared_spoilt(s): it is: give it back. */
bool shared_spoilt(const struct shared *s);
/** stores_give(x, s, writing): the last one closes it.  NULL is fine. */
void stores_give(struct stores *x, struct shared *s, bool writing);

#endif

/**
 * stores: the stores of a replica that are open, each once, for all connections of its hosts: of
 * each writer (writers.h) one that writes, and some that read.
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
 * stores_take(x, dir, writer, wait_ms, out, e):
 * The store in that folder, opened without a key, for who writes with that number, or reads (NULL);
 * blocks while it opens it, and, as long as wait_ms each, while that writer is there already, and
 * while somebody else opens it.
 *
 * Returns  0; LC_EBUSY: it stays so, or another program has it; what store_open() returns.
 * Thread:  any.
 */
int stores_take(struct stores *x, const char *dir, const uint16_t *writer, int64_t wait_ms,
                struct shared **out, struct lc_err *e);
struct store *shared_store(struct shared *s);
/** stores_spoil(x, s): it can't go on; who takes it from now on gets it opened anew. */
void stores_spoil(struct stores *x, struct shared *s);
/** shared_spoilt(s): it is: give it back. */
bool shared_spoilt(const struct shared *s);
/** stores_give(x, s, writer): the last one closes it.  s may be NULL. */
void stores_give(struct stores *x, struct shared *s, const uint16_t *writer);

/**
 * stores_lend(x, dir, who, wait_ms, e):
 * Nobody gets the store in that folder until stores_back(), and who is in it has to leave
 * (shared_wanted()); then it is closed.  One at a time.  Blocks.
 *
 * Returns  0; LC_EBUSY: one is lent already, or somebody has not left in that time.
 */
int stores_lend(struct stores *x, const char *dir, const char *who, int64_t wait_ms,
                struct lc_err *e);
void stores_back(struct stores *x);
/** stores_leaving(x): somebody is waited for: have them look.  Thread: any. */
bool stores_leaving(const struct stores *x);
/** shared_wanted(s, e): LC_EBUSY with who wants it, where it has to be given back; else 0. */
int shared_wanted(const struct shared *s, struct lc_err *e);

#endif

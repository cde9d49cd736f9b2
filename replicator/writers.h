/**
 * writers: the hosts that may add to a replica, and the tokens by which new ones pair.
 *
 *     <dir>/replica.key            who this replica is
 *     <dir>/writers/<key, hex>     one host: name, key domain, its store, when it paired
 *     <dir>/writers/<key, hex>.keys  the KEYS that it came with, where it shares a store
 *     <dir>/tokens/<id>            a token that was not used yet
 *     <dir>/stores/<name>          the store of one host, or of several of one key domain
 *
 * A host has a store of its own here, so none can harm or even see another's; or it joined that of
 * another host of its domain, as a writer of it with a number of its own (vouch.h): then equal
 * contents are kept once, and each of them has its own VMs there all the same.  A token is consumed
 * with the file that binds the key: a crash in between cannot make it good twice.
 *
 * Thread: any; each call reads and writes files.
 */
#ifndef LOCUM_WRITERS_H
#define LOCUM_WRITERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replicator/identity.h"
#include "store/base/errors.h"

struct writer_entry {
	uint8_t key[CHANNEL_KEY_SIZE];
	char name[64];      /* what the host calls itself */
	uint8_t domain[16]; /* key domain of its store */
	char store[128];    /* folder, relative to the replica's */
	uint16_t writer;    /* its number there: several hosts of a domain may share one */
	unsigned brought;   /* data keys that it added to a store that others have, too */
	int64_t paired_ns;
	bool revoked;
};

/** writers_find(dir, key, out, e): LC_ENOENT: a stranger; LC_EACCES: it was revoked; any other:
 * its file can't be read. */
int writers_find(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct writer_entry *out,
                 struct lc_err *e);
/** writers_share(dir, w, share, e): whether another host has or had the same store.  One whose file
 * can't be read counts where it has sent KEYS of that domain. */
int writers_share(const char *dir, const struct writer_entry *w, bool *share, struct lc_err *e);
/** writers_keys(dir, key, out, e): the KEYS payload that a host came with last; LC_ENOENT. */
int writers_keys(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct lc_buf *out,
                 struct lc_err *e);
/** writers_put_keys(dir, w, keys, added, e): put it down, and that it added so many.  Durable. */
int writers_put_keys(const char *dir, struct writer_entry *w, struct lc_span keys, unsigned added,
                     struct lc_err *e);
struct writer_file {
	struct writer_entry w; /* only its key, where that failed */
	struct lc_err err;     /* why it can't be read */
};
/** writers_files(dir, out, n, e): all of them, by name; one that can't be read is not to keep the
 * others out.  Free with lc_free(). */
int writers_files(const char *dir, struct writer_file **out, size_t *n, struct lc_err *e);
/** writers_list(dir, out, n, e): likewise, those that can be read. */
int writers_list(const char *dir, struct writer_entry **out, size_t *n, struct lc_err *e);
/** writers_match(w, what): whether it is called so, or its fingerprint or key domain begins like
 * that (4 digits or more). */
bool writers_match(const struct writer_entry *w, const char *what);
/**
 * writers_pick(list, n, what, at, e):
 * The one that matches; of several that one which is not revoked.
 *
 * Returns  0; LC_ENOENT; LC_EINVAL: several.
 */
int writers_pick(const struct writer_entry *list, size_t n, const char *what, size_t *at,
                 struct lc_err *e);
/** writers_revoke(dir, key, e): it may not connect any more; its store stays.  Durable. */
int writers_revoke(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct lc_err *e);
/**
 * writers_token(dir, valid_ns, replace, secret, e):
 * Make a token; secret[32] is the caller's to wipe.  replace: key of a host in whose place who uses
 * it comes, or NULL.
 */
int writers_token(const char *dir, int64_t valid_ns, const uint8_t *replace, uint8_t secret[32],
                  struct lc_err *e);
/** writers_join_token(dir, valid_ns, host, secret, e): likewise; who uses it joins the store of
 * that host. */
int writers_join_token(const char *dir, int64_t valid_ns, const uint8_t host[CHANNEL_KEY_SIZE],
                       uint8_t secret[32], struct lc_err *e);
/**
 * writers_bind(dir, w, secret, e):
 * Let a host in by a token's secret; w: key, name and domain; store, writer and paired_ns are
 * filled in.  A domain of zeros: it has no store yet, and is let in to join another host's only;
 * then the domain is filled in, too.  A host that was there before gets its store back (also one
 * that was revoked: a new token is a new decision).  By a token that replaces a host it gets the
 * store of that one, its limits (limits.h) and the keys that it is held to; that one is revoked
 * first: there is no moment at which both are let in, and after a crash in between the token is
 * still good.
 *
 * While the file of any host can't be read nobody pairs: neither whether the token is in it, nor
 * which place in a store, can be told.
 *
 * Returns  0; LC_EACCES: no such token, or it was used or is too old, or not for joining;
 * LC_ECONFLICT: the host, or
 * the one that it replaces, was paired with another key domain, or somebody else has its store by
 * now, or it shares the store of the one that it is to replace.
 * Durable: the binding, and that the token is used.
 */
int writers_bind(const char *dir, struct writer_entry *w, const uint8_t secret[32],
                 struct lc_err *e);

#endif

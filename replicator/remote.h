/**
 * remote: all the replicas of a host, as one place to read back from: what a thin store needs.
 *
 * Connections are made when they are needed, and again when they have failed, but not more often
 * than every few seconds.
 *
 * Thread: any; several calls at once.
 */
#ifndef LOCUM_REMOTE_H
#define LOCUM_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/thin.h"

struct remote;

/** remote_new(s, key_dir, out, e): every replica that this host is paired with, maybe none; nothing
 * is connected yet.  One whose file can't be read is one that can't be asked.  The store is
 * borrowed.
 */
int remote_new(struct store *s, const char *key_dir, struct remote **out, struct lc_err *e);
size_t remote_count(const struct remote *r);
/** remote_known(r, e): 0: the files of all of them can be read; else why the first one can't be. */
int remote_known(const struct remote *r, struct lc_err *e);
/** remote_hurry(r): who reads has other things to do: a replica that does not answer within 5 s has
 * failed.  Before it is used. */
void remote_hurry(struct remote *r);
/** remote_stop(r, stop, arg): who waits for a replica asks that several times a second; true: it is
 * waited for no more.  Before it is used; stop() comes from the threads of the calls. */
void remote_stop(struct remote *r, bool (*stop)(void *arg), void *arg);
/** remote_names(r): "dr1, dr2"; borrowed. */
const char *remote_names(const struct remote *r);
/** remote_have(remote, ids, n, bits, e): as thin_opts.have, of all of them; a failure where one of
 * them can't be asked, and where there is none. */
int remote_have(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e);
/** remote_fetch(remote, ...): thin_fetch_cb, from the first one that can give it. */
int remote_fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
                 struct lc_err *e);
/** remote_free(r): hang up; NULL is fine. */
void remote_free(struct remote *r);

/**
 * remote_attach(s, key_dir, out, e):
 * Where the store is thin, let what is read in it come from the replicas; *out is NULL where it is
 * not.  Free it after the last read.
 */
int remote_attach(struct store *s, const char *key_dir, struct remote **out, struct lc_err *e);

#endif

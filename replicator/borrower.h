/**
 * borrower: reads at a replica what this host has sent there: contents by id, which ids are there,
 * and the newest point of each line.
 *
 * A connection of its own, beside the one that sends, with a thread and an event loop of its own;
 * its calls block, and may come from any thread, several at once.  Once it has failed every further
 * call fails; open another one.
 */
#ifndef LOCUM_BORROWER_H
#define LOCUM_BORROWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replicator/identity.h"
#include "replicator/session.h"
#include "store/base/errors.h"
#include "store/thin.h"
#include "store/transfer.h"

struct borrower;

struct borrower_opts {
	struct store *store; /* whose it is: its domain and keys; only while it opens; NULL: lost */
	const struct peer *peer;
	const struct identity *identity;
	const char *host;
	const uint8_t
	    *secret; /* of a token, to pair by: store is NULL, and it joins another host's */
	struct session_limits limits;
	/* Asked several times a second while a call waits; true: that fails, and so does each one
	 * that comes later.  NULL: calls wait for what is to come.  Thread: that of the call. */
	bool (*stop)(void *arg);
	void *stop_arg;
};

/** borrower_open(o, out, e): connect; what o points to is copied, but for stop_arg. */
int borrower_open(const struct borrower_opts *o, struct borrower **out, struct lc_err *e);
/** borrower_have(b, ids, n, bits, e): as thin_opts.have, of this replica. */
int borrower_have(struct borrower *b, const uint8_t *ids, size_t n, uint8_t *bits,
                  struct lc_err *e);
/** borrower_read(b, ids, n, payload, out, e): as thin_fetch_cb.  LC_ENOENT: it is not there. */
int borrower_read(struct borrower *b, const uint8_t *ids, size_t n, uint8_t *payload,
                  struct fetched *out, struct lc_err *e);
/** borrower_keys(b, keys, e): append the KEYS payload of the store there. */
int borrower_keys(struct borrower *b, struct lc_buf *keys, struct lc_err *e);
/** borrower_lines(b, on, arg, e): the newest point of each line there; names are empty. */
int borrower_lines(struct borrower *b,
                   int (*on)(void *arg, const struct transfer_line *l, struct lc_err *e), void *arg,
                   struct lc_err *e);
struct recall_events {
	/** begin(arg, p, e): the point; rows(arg, payload, e): a MAP payload of it. */
	int (*begin)(void *arg, const struct transfer_point *p, struct lc_err *e);
	int (*rows)(void *arg, struct lc_span payload, struct lc_err *e);
	void *arg;
};
/** borrower_recall(b, line, ev, rows, sum, e): the newest point of a line with all of its map; how
 * many rows it has, and their keyless sum.  LC_ENOENT: there is none. */
int borrower_recall(struct borrower *b, const uint8_t line[16], const struct recall_events *ev,
                    uint64_t *rows, struct set_sum *sum, struct lc_err *e);
/** borrower_of_link(err): what was in the way of asking says nothing about a content: what could be
 * taken for that becomes LC_EPEER. */
void borrower_of_link(struct lc_err *err);
/** borrower_received(b): bytes of messages so far. */
uint64_t borrower_received(struct borrower *b);
void borrower_close(struct borrower *b);

#endif

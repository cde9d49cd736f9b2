/**
 * receiver: the replica's half of a session: takes what a source offers into a store.
 *
 * Pure: messages in, messages out; whoever owns it carries them.  Nothing that comes is believed
 * (transfer.h); a chunk is taken only where it was asked for on its stream.  A source adds points
 * and reads the newest of each line; there is no message by which it could delete, change or read
 * anything else.
 *
 * Calls block in the store; none may run at the same time as another.
 */
#ifndef LOCUM_RECEIVER_H
#define LOCUM_RECEIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/transfer.h"

struct receiver;

struct receiver_events {
	void *arg;
	uint16_t writer; /* who sends (vouch.h) */
	/** emit(arg, type, spans, n, e): as sender_events. */
	int (*emit)(void *arg, uint16_t type, const struct lc_span *spans, size_t n,
	            struct lc_err *e);
	/** committed(arg, vm, point, source_ns): a point is durable here; it shows that instant by
	 * the host's clock (0: not known).  May be NULL. */
	void (*committed)(void *arg, const uint8_t vm[16], const uint8_t point[16],
	                  int64_t source_ns);
	/** refused(arg, vm, why): one was not taken (zeros: contents that mend).  May be NULL. */
	void (*refused)(void *arg, const uint8_t vm[16], const struct lc_err *why);
	/** damaged(arg, contents, lines): what of this writer is damaged here; it was told so.  May
	 * be NULL. */
	void (*damaged)(void *arg, uint64_t contents, size_t lines);
};

/** receiver_new(s, events, out, e): the store is borrowed, and writable. */
int receiver_new(struct store *s, const struct receiver_events *events, struct receiver **out,
                 struct lc_err *e);
/**
 * receiver_message(r, type, body, e):
 * Take a message.  What is wrong with one point is told to the source and ends its stream; a
 * failure here is final (LC_EPEER: it broke the protocol): end the session.
 */
int receiver_message(struct receiver *r, uint16_t type, struct lc_span body, struct lc_err *e);
/**
 * receiver_settle(r, e):
 * Commit what is ready, all of it at once, and tell the source how far it is.  To be called when no
 * message waits, and now and then where there always is one.
 */
int receiver_settle(struct receiver *r, struct lc_err *e);
/**
 * receiver_room(r, bytes):
 * So many more bytes may be taken (UINT64_MAX, as at first: any number); then points are refused.
 */
void receiver_room(struct receiver *r, uint64_t bytes);
/** receiver_full(r): there was no room for a point. */
bool receiver_full(const struct receiver *r);
/** receiver_free(r): points that were not committed are forgotten; their chunks stay. */
void receiver_free(struct receiver *r);

#endif

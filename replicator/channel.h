/**
 * channel: messages over any byte stream, secret and authentic in both directions.
 *
 * Pure: no socket, no event loop, no clock.  The owner feeds what it has read and writes what it
 * pulls; PROTOCOL.md "Transport" has the bytes.
 *
 *     initiator                               responder
 *     channel_new(.., key)                    channel_new(.., NULL)
 *     PREFACE, message 1 ──────────────────>  AWAITS PREFACE, then MESSAGE 1
 *     AWAITS MESSAGE 2   <──────────────────  message 2
 *       opened(); message 3 ───────────────>  AWAITS MESSAGE 3
 *     OPEN      <── messages both ways ───>     opened(); OPEN
 *     ENDED     <── CLOSE, each its own ──>   ENDED: nothing more comes
 *
 * Any failure in channel_feed() is final: keys are wiped, whatever was queued is dropped, nothing
 * more is delivered, and the same failure is given again.  The owner then pulls once more (the
 * answer to a wrong version waits there), and closes the connection.
 *
 * Memory: before the other side has proved its key, under 2 KiB.  Then one frame that is being
 * received (64 KiB), one message that spans frames (up to CHANNEL_BODY_MAX), what is queued, and up
 * to 1 MiB of frames that were sent, for those to come.
 *
 * Waiting for ever is not noticed here: deadlines, also for the handshake, are the owner's.
 *
 * Thread: any, one at a time.  Callbacks run inside channel_feed(); they may call anything on the
 * channel but channel_feed() and channel_free().
 */
#ifndef LOCUM_CHANNEL_H
#define LOCUM_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

#define CHANNEL_VERSION 1u
#define CHANNEL_KEY_SIZE 32u
#define CHANNEL_BODY_MAX (1048576u + 4096u) /* bytes in the body of a message */

struct channel;

/** What channel_feed() tells.  A callback that returns other than 0 makes the channel fail so. */
struct channel_events {
	void *arg;
	/**
	 * opened(arg, peer, e): once, when the other side has proved that it holds the key `peer`
	 * (CHANNEL_KEY_SIZE bytes, borrowed), before any message.  A responder refuses strangers
	 * here.  May be NULL.
	 */
	int (*opened)(void *arg, const uint8_t *peer, struct lc_err *e);
	/** message(arg, type, body, e): a message, in order; body is borrowed for the call. */
	int (*message)(void *arg, uint16_t type, struct lc_span body, struct lc_err *e);
};

/**
 * channel_new(secret, remote, out, e):
 * One end of a new connection: the initiator's where remote is the responder's public key, the
 * responder's where it is NULL.  secret is our own static key.  Both are copied.
 *
 * Returns    0, LC_ENOMEM, or LC_ENOTSUP where libsodium does not start.
 * Ownership: gives *out, for channel_free().
 */
int channel_new(const uint8_t secret[CHANNEL_KEY_SIZE], const uint8_t *remote, struct channel **out,
                struct lc_err *e);
/** channel_free(ch): wipe and free, in any state; NULL is fine. */
void channel_free(struct channel *ch);

/**
 * channel_feed(ch, p, n, events, e):
 * Take n bytes that came from the other side; deliver what they complete.  Everything is consumed,
 * so to slow a peer down, stop reading; feed pieces of a size whose messages can be coped with.
 *
 * Returns  0, or a final failure:
 *          LC_EPEER     no Locum channel, or it broke a rule of the protocol;
 *          LC_EVERSION  it speaks another version (both are in the message);
 *          LC_EKEY      handshake: it does not hold the key it should, or expects another of us;
 *          LC_ECORRUPT  a transport message is not what the other side sent next;
 *          LC_ENOMEM;
 *          what a callback returned.
 */
int channel_feed(struct channel *ch, const uint8_t *p, size_t n,
                 const struct channel_events *events, struct lc_err *e);
/**
 * channel_eof(ch, e):
 * The other side's stream has ended.  Tells an orderly end from a cut.
 *
 * Returns  0 after its CLOSE; the failure, if there was one; else LC_EPEER, and how far it had
 * come.
 */
int channel_eof(const struct channel *ch, struct lc_err *e);

/**
 * channel_send(ch, type, spans, nspans, e):
 * Queue a message whose body is the spans one after the other.  May come before the channel is
 * open. The queue has no limit but memory: look at channel_queued() before taking on more work.
 *
 * Returns  0; LC_ENOMEM (nothing is queued, the channel goes on); LC_EINVAL (type 0, a body of over
 *          CHANNEL_BODY_MAX, or after channel_close()); the failure, if there was one.
 */
int channel_send(struct channel *ch, uint16_t type, const struct lc_span *spans, size_t nspans,
                 struct lc_err *e);
/**
 * channel_close(ch, e):
 * Queue the end of what we send.  Receiving goes on until the other side closes too.  A second call
 * does nothing.  Returns as channel_send().
 */
int channel_close(struct channel *ch, struct lc_err *e);
/**
 * channel_pull(ch, out, cap, n, e):
 * Up to cap bytes for the other side to out, their number to *n.  What is queued is encrypted only
 * now, so small messages share a frame when the connection is slower than their makers.  Less than
 * cap: there is nothing more for now.  After a failure there is at most the answer to a wrong
 * version.
 *
 * Returns  0, or LC_EKEY (2^64 frames were sent; final).
 */
int channel_pull(struct channel *ch, uint8_t *out, size_t cap, size_t *n, struct lc_err *e);
/**
 * channel_frame_max(ch, n):
 * From now on new frames carry n bytes at most (1 to 65,519, which it is by default).  What waits
 * in a frame cannot be read before all of it is there: on a slow wire small ones are better.
 */
void channel_frame_max(struct channel *ch, size_t n);
/** channel_queued(ch): bytes that channel_pull() has to give, also those that wait for the
 * handshake. */
size_t channel_queued(const struct channel *ch);

/** channel_established(ch): the handshake is through and nothing has failed. */
bool channel_established(const struct channel *ch);
/** channel_ended(ch): the other side has closed in order; nothing more comes. */
bool channel_ended(const struct channel *ch);
/** channel_peer(ch): borrowed: the key that the other side has proved to hold, or NULL; stays. */
const uint8_t *channel_peer(const struct channel *ch);

#endif

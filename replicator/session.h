/**
 * session: one connection to another site: a TCP stream, the secure channel on it, and the order in
 * which messages are worked on.
 *
 * The loop thread reads, decrypts and writes.  What a message asks for may block in a store, so the
 * role's calls are made on a worker: one at a time, in the order in which messages came, whichever
 * thread does it.  A slow role holds up its own session only: its peer is not read any further.
 *
 *     CONNECTING ─► HANDSHAKE ─► OPEN ─► LINGERING ─► CLOSED
 *
 * LINGERING: what is queued still goes out, and what still comes is read and thrown away until the
 * other side hangs up, so that it gets our last words; then the role leaves.
 *
 * A side from which nothing comes is asked for a sign of life, and given up if there is none; so is
 * one that takes nothing of what we send.
 */
#ifndef LOCUM_SESSION_H
#define LOCUM_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replicator/channel.h"
#include "store/base/errors.h"
#include "store/base/memory.h"

struct sockaddr;
struct uv_loop_s;
struct throttle;
struct uv_stream_s;
struct workers;
struct session;

#define SESSION_CONNECT_MS 10000  /* until the channel is open */
#define SESSION_PING_MS 5000      /* of silence, then a PING */
#define SESSION_DEAD_MS 20000     /* of silence, then the session is given up */
#define SESSION_STUCK_MS 60000    /* it took nothing of what we send: given up, too */
#define SESSION_LINGER_MS 3000    /* for last words */
#define SESSION_WELCOME_MS 120000 /* at a source: without a word that the other side owes it */
#define SESSION_OWED_MS 600000    /* at a source: one point's answer, while others have theirs */
#define SESSION_SKEW_NS (300 * LC_NS_PER_S) /* clocks that differ by more are worth a word */

/* A limit of 0 is the one above. */
struct session_limits {
	int64_t connect_ms, ping_ms, dead_ms, stuck_ms, linger_ms, welcome_ms, owed_ms;
};

/* What a session is for. */
struct session_role {
	/**
	 * opened(arg, peer, e): loop thread; the other side has proved that it holds that key.  To
	 * tell it something in answer, fail in message() instead: a failure here is not sent.
	 */
	int (*opened)(void *arg, const uint8_t peer[CHANNEL_KEY_SIZE], struct lc_err *e);
	/** message(arg, type, body, e): on a worker. */
	int (*message)(void *arg, uint16_t type, struct lc_span body, struct lc_err *e);
	/** settle(arg, e): on a worker; no message waits any more, or session_poke() was called. */
	int (*settle)(void *arg, struct lc_err *e);
	/**
	 * settled(arg): loop thread; a settle() is over and what it emitted is queued.  May be
	 * NULL.
	 */
	void (*settled)(void *arg);
	/**
	 * leave(arg): on a worker; no message() and settle() comes any more.  May be NULL.
	 */
	void (*leave)(void *arg);
	/** ended(arg, why): loop thread; the last call, the session is gone.  LC_OK: in order. */
	void (*ended)(void *arg, const struct lc_err *why);
};

struct session_opts {
	struct uv_loop_s *loop;
	struct workers *workers;
	const uint8_t *secret; /* our static key, copied */
	const uint8_t *remote; /* the other side's public key (we connect), or NULL (we accept) */
	const struct session_role *role;
	void *arg;
	struct session_limits limits;
	/* While more bytes than that wait to be sent, no message is worked on and then none is
	 * read; 0: without a limit, for a role that has one of its own. */
	size_t output_max;
	/* Limits of what goes out and of what is read; NULL: none.  Borrowed until ended(). */
	struct throttle *sending, *receiving;
};

/** session_new(o, out, e): then session_connect() or session_accept(); if that fails, ended() comes
 * all the same.  From the first call on the process ignores SIGPIPE. */
int session_new(const struct session_opts *o, struct session **out, struct lc_err *e);
void session_connect(struct session *s, const struct sockaddr *to);
void session_accept(struct session *s, struct uv_stream_s *server);
/** session_peer_name(s): "192.0.2.7:4711", or "" before there is a connection. */
const char *session_peer_name(const struct session *s);
/** session_silence_ms(s): how long ago the last byte came; 0 while what came before is worked on
 * and none is read. */
int64_t session_silence_ms(const struct session *s);
/**
 * session_emit(s, type, spans, n, e):
 * Send a message.  From message() and settle() (on the worker that is in them), from opened(), or
 * on the loop thread right before session_end().
 */
int session_emit(struct session *s, uint16_t type, const struct lc_span *spans, size_t n,
                 struct lc_err *e);
/** session_receive_by(s, t): another limit of what is read, not NULL.  Loop thread. */
void session_receive_by(struct session *s, struct throttle *t);
/** session_poke(s): have settle() called.  Loop thread. */
void session_poke(struct session *s);
/** session_end(s, why): finish: what is queued goes out first.  why may be NULL.  Loop thread. */
void session_end(struct session *s, const struct lc_err *why);
/** session_drop(s): finish now: what is queued, and the other side's hanging up, are not waited
 * for. Loop thread. */
void session_drop(struct session *s);
struct session_stats {
	uint64_t received, sent; /* bytes */
	uint64_t queued;         /* bytes to send */
};
/** session_stats(s, out): also in ended(). */
void session_stats(const struct session *s, struct session_stats *out);

#endif

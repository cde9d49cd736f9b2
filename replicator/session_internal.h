/**
 * session_internal: what the files of session.h share.  Not for others.
 */
#ifndef LOCUM_SESSION_INTERNAL_H
#define LOCUM_SESSION_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "replicator/packet.h"
#include "replicator/session.h"
#include "replicator/throttle.h"
#include "store/base/errors.h"
#include "store/base/workers.h"

#define SESSION_WRITE_BYTES (256u << 10) /* of write_buf */
/* Bytes of messages that wait for the role; then we stop reading. */
#define SESSION_INPUT_MAX (4u << 20)

enum session_state {
	SESSION_CONNECTING = 0,
	SESSION_HANDSHAKE,
	SESSION_OPEN,
	SESSION_LINGERING,
	SESSION_CLOSED,
};

struct session {
	struct work work; /* first: the worker gets this */
	struct uv_loop_s *loop;
	struct workers *workers;
	const struct session_role *role;
	void *arg;
	enum session_state state;
	struct channel *channel;
	uv_tcp_t tcp;
	uv_timer_t timer;
	uv_async_t wake; /* the worker is done */
	uv_connect_t connect;
	uv_write_t write;
	unsigned handles; /* that are not closed yet */
	char peer[64];
	bool reading, writing;
	int64_t since_ns, heard_ns; /* state began; the last byte came */
	bool pinged;
	size_t ping_left; /* bytes that go out until our PING has */
	struct session_limits limits;
	size_t output_max;
	size_t unwritten; /* bytes that the other side had not taken at the last tick ... */
	int64_t taken_ns; /* ... and when that was another number */
	bool last_words;  /* lingering: they are worth waiting for */
	uv_shutdown_t shutdown;
	bool shut;
	struct session_stats stats;
	struct lc_err err; /* why it ends */
	uint8_t *read_buf, *write_buf;
	struct throttle *sending, *receiving; /* NULL: no limit */
	struct throttle_place send_place, read_place;
	struct packet_list held; /* the role's messages that the channel did not get yet */
	size_t held_bytes;

	bool peer_closed; /* in order: what it said before is worked on, then it is over */
	bool busy;        /* a worker has the session, or is about to; loop thread's */
	bool poked;
	bool left;            /* the role has */
	pthread_mutex_t lock; /* what follows */
	struct packet_list in, out;
	size_t in_bytes, out_bytes;
	bool done; /* the worker is */
	struct lc_err work_err;
};

/* ---- session_work.c: on a worker ---- */

/** session_work(w, worker): give the role what waits for it, then settle; session_leave(): the last
 * call of the role there.  w is a session's. */
void session_work(struct work *w, unsigned worker);
void session_leave(struct work *w, unsigned worker);

/* ---- session_output.c: what goes out; loop thread ---- */

/** session_take_emitted(s): what the role emitted waits here, so that PING and PONG need not wait
 * behind all of it. */
void session_take_emitted(struct session *s);
/** session_queued(s): bytes to send. */
size_t session_queued(const struct session *s);
/** session_last_words(s): the end of what we say.  At a limit that would take long, and what is
 * left over is sent in the next session. */
bool session_last_words(struct session *s);
/** session_pump(s): write what the channel has to give. */
void session_pump(struct session *s);
int session_send_number(struct session *s, uint16_t type, uint64_t number);

/* ---- session.c; loop thread ---- */

/** session_fail(s, why, linger): it is over. */
void session_fail(struct session *s, const struct lc_err *why, bool linger);
void session_fail_uv(struct session *s, int urc, const char *what);
/** session_kick(s): give the role what waits for it. */
void session_kick(struct session *s);
/** session_close_now(s): unless a worker has it: the role is its too. */
void session_close_now(struct session *s);

#endif

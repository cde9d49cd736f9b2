#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <uv.h>

#include "replicator/identity.h"
#include "replicator/message.h"
#include "replicator/packet.h"
#include "replicator/session.h"
#include "replicator/throttle.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/workers.h"

#define READ_BYTES 65536u
#define WRITE_BYTES (256u << 10)
#define INPUT_MAX (4u << 20) /* bytes of messages that wait for the role; then we stop reading */
#define PONG_MAX (64u << 10) /* bytes that wait to be sent: they are a sign of life, too */
#define TICK_MS INT64_C(500)
#define KEEPALIVE_S 20

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

static void fail(struct session *s, const struct lc_err *why, bool linger);
static void pump(struct session *s);
static void set_reading(struct session *s);

/* ---- the worker's part ---- */

static struct packet *
next_input(struct session *s)
{
	struct packet *p;

	(void)pthread_mutex_lock(&s->lock);
	p = packet_take(&s->in);
	if (p != NULL)
		s->in_bytes -= p->body.n + PACKET_COST;
	(void)pthread_mutex_unlock(&s->lock);
	return p;
}

static bool
emitted_enough(struct session *s)
{
	bool enough;

	(void)pthread_mutex_lock(&s->lock);
	enough = s->output_max > 0 && s->out_bytes > s->output_max;
	(void)pthread_mutex_unlock(&s->lock);
	return enough;
}

static void
tell_done(struct session *s, const struct lc_err *err)
{
	(void)pthread_mutex_lock(&s->lock);
	s->work_err = *err;
	s->done = true;
	(void)pthread_mutex_unlock(&s->lock);
	(void)uv_async_send(&s->wake);
}

static void
leave(struct work *w, unsigned worker)
{
	struct session *s = (struct session *)(void *)w;
	struct lc_err none = LC_ERR_INIT;

	(void)worker;
	s->role->leave(s->arg);
	tell_done(s, &none);
}

static void
work(struct work *w, unsigned worker)
{
	struct session *s = (struct session *)(void *)w;
	struct lc_err err = LC_ERR_INIT;
	struct packet *p;
	size_t bytes = 0;
	int rc = 0;

	(void)worker;
	while (rc == 0 && bytes < INPUT_MAX && !emitted_enough(s) && (p = next_input(s)) != NULL) {
		bytes += p->body.n + PACKET_COST;
		rc = s->role->message(s->arg, p->type, (struct lc_span){p->body.p, p->body.n},
		                      &err);
		packet_free(p);
	}
	if (rc == 0)
		(void)s->role->settle(s->arg, &err);
	tell_done(s, &err);
}

int
session_emit(struct session *s, uint16_t type, const struct lc_span *spans, size_t n,
             struct lc_err *e)
{
	struct packet *p = packet_new(type, spans, n);

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)pthread_mutex_lock(&s->lock);
	STAILQ_INSERT_TAIL(&s->out, p, entry);
	s->out_bytes += p->body.n + PACKET_COST;
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}

/* ---- the loop's part ---- */

static void
on_closed(uv_handle_t *h)
{
	struct session *s = h->data;

	if (--s->handles > 0)
		return;
	channel_free(s->channel);
	s->channel = NULL;
	packet_free_all(&s->in);
	packet_free_all(&s->out);
	packet_free_all(&s->held);
	(void)pthread_mutex_destroy(&s->lock);
	s->role->ended(s->arg, &s->err);
	lc_free(s->read_buf);
	lc_free(s->write_buf);
	lc_free(s);
}

/* The worker must have let go first: the role is its too. */
static void
close_now(struct session *s)
{
	if (s->state == SESSION_CLOSED || s->busy)
		return;
	if (!s->left && s->role->leave != NULL) {
		s->left = s->busy = true;
		s->work.run = leave;
		workers_submit(s->workers, &s->work);
		return;
	}
	s->state = SESSION_CLOSED;
	if (s->sending != NULL)
		throttle_leave(s->sending, &s->send_place);
	if (s->receiving != NULL)
		throttle_leave(s->receiving, &s->read_place);
	uv_close((uv_handle_t *)&s->tcp, on_closed);
	uv_close((uv_handle_t *)&s->timer, on_closed);
	uv_close((uv_handle_t *)&s->wake, on_closed);
}

static void
set_state(struct session *s, enum session_state state)
{
	s->state = state;
	s->since_ns = clock_mono_ns();
}

/* What the role emitted waits here, so that PING and PONG need not wait behind all of it. */
static void
take_emitted(struct session *s)
{
	(void)pthread_mutex_lock(&s->lock);
	STAILQ_CONCAT(&s->held, &s->out);
	s->held_bytes += s->out_bytes;
	s->out_bytes = 0;
	(void)pthread_mutex_unlock(&s->lock);
}

/* Give the channel enough for n bytes. */
static int
fill_channel(struct session *s, size_t n, struct lc_err *e)
{
	struct packet *p;
	int rc = 0;

	while (rc == 0 && channel_queued(s->channel) < n && (p = packet_take(&s->held)) != NULL) {
		struct lc_span span = {p->body.p, p->body.n};

		s->held_bytes -= p->body.n + PACKET_COST;
		rc = channel_send(s->channel, p->type, &span, 1, e);
		packet_free(p);
	}
	return rc;
}

static size_t
queued(const struct session *s)
{
	return s->channel == NULL ? 0 : channel_queued(s->channel) + s->held_bytes;
}

/* The end of what we say.  At a limit that would take long, and what is left over is sent in the
 * next session. */
static bool
say_last_words(struct session *s)
{
	struct lc_err ignored = LC_ERR_INIT;

	take_emitted(s);
	if (throttle_rate(s->sending) > 0) {
		packet_free_all(&s->held);
		s->held_bytes = 0;
	}
	return fill_channel(s, SIZE_MAX, &ignored) == 0 && channel_close(s->channel, &ignored) == 0;
}

static void
fail(struct session *s, const struct lc_err *why, bool linger)
{
	bool open = s->state == SESSION_OPEN;

	if (s->state == SESSION_CLOSED)
		return;
	if (s->state != SESSION_LINGERING) {
		if (why != NULL)
			s->err = *why;
		set_state(s, SESSION_LINGERING);
		s->last_words = linger && open && say_last_words(s);
	}
	if (!linger)
		close_now(s);
	else
		pump(s);
	set_reading(s);
}

static void
fail_uv(struct session *s, int urc, const char *what)
{
	struct lc_err err = LC_ERR_INIT;

	(void)lc_fail(&err, LC_EPEER, 0, "%s: %s", what, uv_strerror(urc));
	/* Who has said that it closes need not take what we still have to say. */
	fail(s, s->peer_closed ? NULL : &err, false);
}

/* Give the role what waits for it. */
static void
kick(struct session *s)
{
	bool waits;

	(void)pthread_mutex_lock(&s->lock);
	waits = !STAILQ_EMPTY(&s->in);
	(void)pthread_mutex_unlock(&s->lock);
	if (s->busy || s->state != SESSION_OPEN || (!waits && !s->poked))
		return;
	if (s->output_max > 0 && queued(s) > s->output_max)
		return;
	s->busy = true;
	s->poked = false;
	s->work.run = work;
	workers_submit(s->workers, &s->work);
}

static void
end_if_idle(struct session *s)
{
	if (s->peer_closed && !s->busy && s->state == SESSION_OPEN)
		fail(s, NULL, true);
}

static void
on_written(uv_write_t *w, int status)
{
	struct session *s = w->data;

	s->writing = false;
	if (status != 0 && status != UV_ECANCELED && s->state != SESSION_CLOSED)
		fail_uv(s, status, "sending");
	else if (s->state != SESSION_CLOSED) {
		pump(s);
		kick(s);
	}
}

static void
on_shutdown(uv_shutdown_t *req, int status)
{
	(void)req; /* its session goes after it */
	(void)status;
}

/* All that we had to say is on its way. */
static void
hang_up(struct session *s)
{
	if (!s->last_words || s->peer_closed) {
		close_now(s);
	} else if (!s->shut) {
		s->shut = true;
		if (uv_shutdown(&s->shutdown, (uv_stream_t *)&s->tcp, on_shutdown) != 0)
			close_now(s);
	}
}

/* Its time to answer begins when our PING has gone, where a limit of ours held that up. */
static void
note_ping(struct session *s, size_t sent)
{
	if (s->ping_left == 0)
		return;
	s->ping_left -= sent < s->ping_left ? sent : s->ping_left;
	if (s->ping_left == 0 && throttle_rate(s->sending) > 0)
		s->heard_ns = clock_mono_ns() - s->limits.ping_ms * LC_NS_PER_MS;
}

/* The next bytes into write_buf, as many as may go now. */
static int
next_bytes(struct session *s, size_t *n, struct lc_err *e)
{
	bool limited = throttle_rate(s->sending) > 0 && s->state != SESSION_LINGERING;
	size_t want;
	int rc;

	*n = 0;
	channel_frame_max(s->channel, throttle_frame(s->sending));
	rc = fill_channel(s, limited ? throttle_piece(s->sending) : WRITE_BYTES, e);
	want = channel_queued(s->channel);
	if (rc != 0 || want == 0)
		return rc;
	if (want > WRITE_BYTES)
		want = WRITE_BYTES;
	if (limited)
		want = throttle_take(s->sending, &s->send_place, want);
	if (want == 0)
		return 0;
	if (channel_pull(s->channel, s->write_buf, want, n, NULL) != 0)
		*n = 0;
	if (limited)
		throttle_give_back(s->sending, want - *n);
	return 0;
}

/* Write what the channel has to give. */
static void
pump(struct session *s)
{
	struct lc_err err = LC_ERR_INIT;
	size_t n = 0;
	uv_buf_t buf;
	int urc;

	if (s->writing || s->shut || s->state == SESSION_CLOSED || s->state == SESSION_CONNECTING)
		return;
	if (next_bytes(s, &n, &err) != 0) {
		fail(s, &err, true);
		return;
	}
	if (n == 0) {
		if (s->state == SESSION_LINGERING && !s->busy)
			hang_up(s);
		return;
	}
	buf = uv_buf_init((char *)s->write_buf, (unsigned)n);
	s->write.data = s;
	s->stats.sent += n;
	note_ping(s, n);
	urc = uv_write(&s->write, (uv_stream_t *)&s->tcp, &buf, 1, on_written);
	if (urc != 0)
		fail_uv(s, urc, "sending");
	else
		s->writing = true;
}

static int
send_number(struct session *s, uint16_t type, uint64_t number)
{
	uint8_t body[8];
	struct lc_span span = {body, sizeof body};

	lc_put64(body, number);
	return channel_send(s->channel, type, &span, 1, NULL);
}

static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct session *s = arg;
	struct packet *p;
	uint64_t number;

	if (type == MESSAGE_PONG)
		return message_get_number(body, type, &number, e);
	if (type == MESSAGE_PING) {
		int rc = message_get_number(body, type, &number, e);

		if (rc != 0 || queued(s) > PONG_MAX)
			return rc;
		return send_number(s, MESSAGE_PONG, number);
	}
	p = packet_new(type, &body, 1);
	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)pthread_mutex_lock(&s->lock);
	STAILQ_INSERT_TAIL(&s->in, p, entry);
	s->in_bytes += p->body.n + PACKET_COST;
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}

static int
on_opened(void *arg, const uint8_t *peer, struct lc_err *e)
{
	struct session *s = arg;
	int rc = s->role->opened(s->arg, peer, e);

	if (rc != 0)
		return rc;
	set_state(s, SESSION_OPEN);
	take_emitted(s);
	return 0;
}

static void
on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	struct session *s = h->data;

	(void)suggested;
	*buf = uv_buf_init((char *)s->read_buf, throttle_rate(s->receiving) == 0
	                                            ? READ_BYTES
	                                            : (unsigned)throttle_piece(s->receiving));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

/* Read on as long as the role keeps up. */
static void
set_reading(struct session *s)
{
	bool want = s->state == SESSION_HANDSHAKE || s->state == SESSION_OPEN;

	(void)pthread_mutex_lock(&s->lock);
	want = want && !s->peer_closed && s->in_bytes < INPUT_MAX && !s->read_place.waits;
	(void)pthread_mutex_unlock(&s->lock);
	want = want || (s->state == SESSION_LINGERING && s->last_words && !s->peer_closed);
	if (want == s->reading || s->state == SESSION_CLOSED)
		return;
	s->reading = want;
	if (want) {
		s->heard_ns = clock_mono_ns();
		(void)uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
	} else {
		(void)uv_read_stop((uv_stream_t *)&s->tcp);
	}
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct session *s = stream->data;
	const struct channel_events events = {.arg = s, .opened = on_opened, .message = on_message};
	struct lc_err err = LC_ERR_INIT;
	int rc = 0;

	if (n == 0 || s->state == SESSION_CLOSED)
		return;
	if (s->state == SESSION_LINGERING) {
		s->peer_closed = s->peer_closed || n < 0;
		if (n < 0)
			fail(s, NULL, false);
		return;
	}
	if (n == UV_EOF && channel_eof(s->channel, &err) == 0) {
		s->reading = false;
		(void)uv_read_stop(stream);
		return; /* CLOSE came before, and is seen to */
	}
	if (n == UV_EOF) {
		fail(s, &err, false);
		return;
	}
	if (n < 0) {
		fail_uv(s, (int)n, "receiving");
		return;
	}
	s->stats.received += (uint64_t)n;
	if (s->receiving != NULL)
		throttle_spend(s->receiving, &s->read_place, (size_t)n);
	s->heard_ns = clock_mono_ns();
	s->pinged = false;
	s->ping_left = 0;
	rc = channel_feed(s->channel, (const uint8_t *)buf->base, (size_t)n, &events, &err);
	kick(s);
	if (rc != 0) {
		fail(s, &err, true); /* the channel has the answer to a wrong version at most */
		return;
	}
	pump(s);
	s->peer_closed = channel_ended(s->channel);
	end_if_idle(s);
	set_reading(s);
}

static void
on_wake(uv_async_t *a)
{
	struct session *s = a->data;
	struct lc_err work_err;
	bool done;

	(void)pthread_mutex_lock(&s->lock);
	done = s->done;
	work_err = s->work_err;
	s->done = false;
	(void)pthread_mutex_unlock(&s->lock);
	if (!done)
		return;
	s->busy = false;
	if (s->state == SESSION_LINGERING) {
		if (s->left || !s->last_words)
			close_now(s);
		else
			pump(s);
		return;
	}
	take_emitted(s);
	if (work_err.code != LC_OK) {
		fail(s, &work_err, true);
		return;
	}
	pump(s);
	if (s->role->settled != NULL)
		s->role->settled(s->arg);
	set_reading(s);
	kick(s);
	end_if_idle(s);
}

/* Whether the other side takes what we send. */
static bool
is_stuck(struct session *s, int64_t now)
{
	size_t n = uv_stream_get_write_queue_size((uv_stream_t *)&s->tcp);

	if (n == 0 || n != s->unwritten)
		s->taken_ns = now;
	s->unwritten = n;
	return now - s->taken_ns >= s->limits.stuck_ms * LC_NS_PER_MS;
}

static void
check_life(struct session *s, int64_t now)
{
	int64_t silence = (now - s->heard_ns) / LC_NS_PER_MS;
	struct lc_err err = LC_ERR_INIT;

	if (s->reading && silence >= s->limits.dead_ms &&
	    (s->ping_left == 0 || throttle_rate(s->sending) == 0))
		(void)lc_fail(&err, LC_ETIMEDOUT, 0, "no sign of life for %d s",
		              (int)(s->limits.dead_ms / 1000));
	else if (is_stuck(s, now))
		(void)lc_fail(&err, LC_ETIMEDOUT, 0, "it took nothing for %d s",
		              (int)(s->limits.stuck_ms / 1000));
	if (err.code != LC_OK) {
		fail(s, &err, false);
	} else if (s->reading && silence >= s->limits.ping_ms && !s->pinged) {
		s->pinged = send_number(s, MESSAGE_PING, (uint64_t)now) == 0;
		s->ping_left = channel_queued(s->channel);
		pump(s);
	}
}

static void
on_tick(uv_timer_t *t)
{
	struct session *s = t->data;
	int64_t now = clock_mono_ns(), age = (now - s->since_ns) / LC_NS_PER_MS;
	struct lc_err err = LC_ERR_INIT;

	switch (s->state) {
	case SESSION_CONNECTING:
	case SESSION_HANDSHAKE:
		if (age < s->limits.connect_ms)
			return;
		(void)lc_fail(&err, LC_ETIMEDOUT, 0, "no answer within %d s",
		              (int)(s->limits.connect_ms / 1000));
		fail(s, &err, false);
		return;
	case SESSION_OPEN:
		check_life(s, now);
		return;
	case SESSION_LINGERING:
		if (age >= s->limits.linger_ms)
			close_now(s);
		return;
	case SESSION_CLOSED:
		return;
	}
}

static void
on_may_send(void *arg)
{
	pump(arg);
}

static void
on_may_read(void *arg)
{
	set_reading(arg);
}

static void
connected(struct session *s)
{
	peer_text(&s->tcp, s->peer, sizeof s->peer);
	(void)uv_tcp_nodelay(&s->tcp, 1);
	(void)uv_tcp_keepalive(&s->tcp, 1, KEEPALIVE_S);
	set_state(s, SESSION_HANDSHAKE);
	set_reading(s);
	pump(s);
}

static void
on_connect(uv_connect_t *c, int status)
{
	struct session *s = c->data;

	if (s->state != SESSION_CONNECTING)
		return;
	if (status != 0)
		fail_uv(s, status, "connecting");
	else
		connected(s);
}

void
session_connect(struct session *s, const struct sockaddr *to)
{
	int urc = uv_tcp_connect(&s->connect, &s->tcp, to, on_connect);

	if (urc != 0)
		fail_uv(s, urc, "connecting");
}

void
session_accept(struct session *s, struct uv_stream_s *server)
{
	int urc = uv_accept(server, (uv_stream_t *)&s->tcp);

	if (urc != 0)
		fail_uv(s, urc, "accepting");
	else
		connected(s);
}

/* libuv writes without MSG_NOSIGNAL. */
static void
ignore_sigpipe(void)
{
	(void)signal(SIGPIPE, SIG_IGN); /* NOLINT(cert-err33-c) */
}

static struct session_limits
limits_of(const struct session_limits *l)
{
	return (struct session_limits){
	    .connect_ms = l->connect_ms > 0 ? l->connect_ms : SESSION_CONNECT_MS,
	    .ping_ms = l->ping_ms > 0 ? l->ping_ms : SESSION_PING_MS,
	    .dead_ms = l->dead_ms > 0 ? l->dead_ms : SESSION_DEAD_MS,
	    .stuck_ms = l->stuck_ms > 0 ? l->stuck_ms : SESSION_STUCK_MS,
	    .linger_ms = l->linger_ms > 0 ? l->linger_ms : SESSION_LINGER_MS,
	    .welcome_ms = l->welcome_ms > 0 ? l->welcome_ms : SESSION_WELCOME_MS,
	};
}

int
session_new(const struct session_opts *o, struct session **out, struct lc_err *e)
{
	int64_t tick = TICK_MS;
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct session *s = lc_alloc(sizeof *s);
	int rc;

	(void)pthread_once(&once, ignore_sigpipe);
	if (s == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	s->read_buf = lc_alloc(READ_BYTES);
	s->write_buf = lc_alloc(WRITE_BYTES);
	rc = s->read_buf == NULL || s->write_buf == NULL
	         ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	         : channel_new(o->secret, o->remote, &s->channel, e);
	if (rc == 0 && uv_async_init(o->loop, &s->wake, on_wake) != 0) {
		channel_free(s->channel);
		rc = lc_fail(e, LC_ENOMEM, 0, "out of descriptors");
	}
	if (rc != 0) {
		lc_free(s->read_buf);
		lc_free(s->write_buf);
		lc_free(s);
		return rc;
	}
	s->loop = o->loop;
	s->workers = o->workers;
	s->role = o->role;
	s->arg = o->arg;
	s->limits = limits_of(&o->limits);
	s->output_max = o->output_max;
	s->sending = o->sending;
	s->receiving = o->receiving;
	s->send_place = (struct throttle_place){.ready = on_may_send, .arg = s};
	s->read_place = (struct throttle_place){.ready = on_may_read, .arg = s};
	if (s->limits.ping_ms < TICK_MS * 4)
		tick = s->limits.ping_ms / 4 + 1;
	STAILQ_INIT(&s->in);
	STAILQ_INIT(&s->out);
	STAILQ_INIT(&s->held);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)uv_tcp_init(o->loop, &s->tcp);
	(void)uv_timer_init(o->loop, &s->timer);
	s->tcp.data = s->timer.data = s->wake.data = s->connect.data = s;
	s->handles = 3;
	set_state(s, SESSION_CONNECTING);
	(void)uv_timer_start(&s->timer, on_tick, (uint64_t)tick, (uint64_t)tick);
	*out = s;
	return 0;
}

const char *
session_peer_name(const struct session *s)
{
	return s->peer;
}

int64_t
session_silence_ms(const struct session *s)
{
	return (clock_mono_ns() - s->heard_ns) / LC_NS_PER_MS;
}

void
session_poke(struct session *s)
{
	s->poked = true;
	kick(s);
}

void
session_end(struct session *s, const struct lc_err *why)
{
	fail(s, why, true);
}

void
session_stats(const struct session *s, struct session_stats *out)
{
	*out = s->stats;
	out->queued = queued(s);
}

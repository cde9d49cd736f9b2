#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "replicator/identity.h"
#include "replicator/message.h"
#include "replicator/session_internal.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"

#define READ_BYTES (256u << 10)
#define PONG_MAX (64u << 10) /* bytes that wait to be sent: they are a sign of life, too */
#define TICK_MS INT64_C(500)
#define KEEPALIVE_S 20

static void set_reading(struct session *s);

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

void
session_close_now(struct session *s)
{
	if (s->state == SESSION_CLOSED || s->busy)
		return;
	if (!s->left && s->role->leave != NULL) {
		s->left = s->busy = true;
		s->work.run = session_leave;
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

void
session_fail(struct session *s, const struct lc_err *why, bool linger)
{
	bool open = s->state == SESSION_OPEN;

	if (s->state == SESSION_CLOSED)
		return;
	if (s->state != SESSION_LINGERING) {
		if (why != NULL)
			s->err = *why;
		set_state(s, SESSION_LINGERING);
		s->last_words = linger && open && session_last_words(s);
	}
	if (!linger)
		session_close_now(s);
	else
		session_pump(s);
	set_reading(s);
}

void
session_fail_uv(struct session *s, int urc, const char *what)
{
	struct lc_err err = LC_ERR_INIT;

	(void)lc_fail(&err, LC_EPEER, 0, "%s: %s", what, uv_strerror(urc));
	/* Who has said that it closes need not take what we still have to say. */
	session_fail(s, s->peer_closed ? NULL : &err, false);
}

static bool
input_waits(struct session *s)
{
	bool waits;

	(void)pthread_mutex_lock(&s->lock);
	waits = !STAILQ_EMPTY(&s->in);
	(void)pthread_mutex_unlock(&s->lock);
	return waits;
}

void
session_kick(struct session *s)
{
	bool waits = input_waits(s);

	if (s->busy || s->state != SESSION_OPEN || (!waits && !s->poked))
		return;
	if (s->output_max > 0 && session_queued(s) > s->output_max)
		return;
	s->busy = true;
	s->poked = false;
	s->work.run = session_work;
	workers_submit(s->workers, &s->work);
}

/* What it said before it closed may wait for what was said to it to go out. */
static void
end_if_idle(struct session *s)
{
	if (s->peer_closed && !s->busy && s->state == SESSION_OPEN && !input_waits(s))
		session_fail(s, NULL, true);
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

		if (rc != 0 || session_queued(s) > PONG_MAX)
			return rc;
		return session_send_number(s, MESSAGE_PONG, number);
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
	session_take_emitted(s);
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
	want = want && !s->peer_closed && s->in_bytes < SESSION_INPUT_MAX && !s->read_place.waits;
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
			session_fail(s, NULL, false);
		return;
	}
	if (n == UV_EOF && channel_eof(s->channel, &err) == 0) {
		s->reading = false;
		(void)uv_read_stop(stream);
		return; /* CLOSE came before, and is seen to */
	}
	if (n == UV_EOF) {
		session_fail(s, &err, false);
		return;
	}
	if (n < 0) {
		session_fail_uv(s, (int)n, "receiving");
		return;
	}
	s->stats.received += (uint64_t)n;
	if (s->receiving != NULL)
		throttle_spend(s->receiving, &s->read_place, (size_t)n);
	s->heard_ns = clock_mono_ns();
	s->pinged = false;
	s->ping_left = 0;
	rc = channel_feed(s->channel, (const uint8_t *)buf->base, (size_t)n, &events, &err);
	session_kick(s);
	if (rc != 0) {
		session_fail(s, &err,
		             true); /* the channel has the answer to a wrong version at most */
		return;
	}
	session_pump(s);
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
			session_close_now(s);
		else
			session_pump(s);
		return;
	}
	session_take_emitted(s);
	if (work_err.code != LC_OK) {
		session_fail(s, &work_err, true);
		return;
	}
	session_pump(s);
	if (s->role->settled != NULL)
		s->role->settled(s->arg);
	set_reading(s);
	session_kick(s);
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
		session_fail(s, &err, false);
	} else if (s->reading && silence >= s->limits.ping_ms && !s->pinged) {
		s->pinged = session_send_number(s, MESSAGE_PING, (uint64_t)now) == 0;
		s->ping_left = channel_queued(s->channel);
		session_pump(s);
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
		session_fail(s, &err, false);
		return;
	case SESSION_OPEN:
		check_life(s, now);
		return;
	case SESSION_LINGERING:
		if (age >= s->limits.linger_ms)
			session_close_now(s);
		return;
	case SESSION_CLOSED:
		return;
	}
}

static void
on_may_send(void *arg)
{
	session_pump(arg);
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
	session_pump(s);
}

static void
on_connect(uv_connect_t *c, int status)
{
	struct session *s = c->data;

	if (s->state != SESSION_CONNECTING)
		return;
	if (status != 0)
		session_fail_uv(s, status, "connecting");
	else
		connected(s);
}

void
session_connect(struct session *s, const struct sockaddr *to)
{
	int urc = uv_tcp_connect(&s->connect, &s->tcp, to, on_connect);

	if (urc != 0)
		session_fail_uv(s, urc, "connecting");
}

void
session_accept(struct session *s, struct uv_stream_s *server)
{
	int urc = uv_accept(server, (uv_stream_t *)&s->tcp);

	if (urc != 0)
		session_fail_uv(s, urc, "accepting");
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
	    .owed_ms = l->owed_ms > 0 ? l->owed_ms : SESSION_OWED_MS,
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
	s->write_buf = lc_alloc(SESSION_WRITE_BYTES);
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
	/* It may well say something that we are too slow to read. */
	return s->busy && !s->reading ? 0 : (clock_mono_ns() - s->heard_ns) / LC_NS_PER_MS;
}

void
session_receive_by(struct session *s, struct throttle *t)
{
	if (s->receiving != NULL)
		throttle_leave(s->receiving, &s->read_place);
	s->receiving = t;
}

void
session_poke(struct session *s)
{
	s->poked = true;
	session_kick(s);
}

void
session_end(struct session *s, const struct lc_err *why)
{
	session_fail(s, why, true);
}

void
session_drop(struct session *s)
{
	s->last_words = false;
	session_fail(s, NULL, false);
}

void
session_stats(const struct session *s, struct session_stats *out)
{
	*out = s->stats;
	out->queued = session_queued(s);
}

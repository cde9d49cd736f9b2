/*
 * What goes out of a session: what its role emitted, in pieces as its limits and the other side
 * take them.
 */
#include <sys/queue.h>

#include "replicator/message.h"
#include "replicator/session_internal.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"

void
session_take_emitted(struct session *s)
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

size_t
session_queued(const struct session *s)
{
	return s->channel == NULL ? 0 : channel_queued(s->channel) + s->held_bytes;
}

bool
session_last_words(struct session *s)
{
	struct lc_err ignored = LC_ERR_INIT;

	session_take_emitted(s);
	if (throttle_rate(s->sending) > 0) {
		packet_free_all(&s->held);
		s->held_bytes = 0;
	}
	return fill_channel(s, SIZE_MAX, &ignored) == 0 && channel_close(s->channel, &ignored) == 0;
}

static void
on_written(uv_write_t *w, int status)
{
	struct session *s = w->data;

	s->writing = false;
	if (status != 0 && status != UV_ECANCELED && s->state != SESSION_CLOSED)
		session_fail_uv(s, status, "sending");
	else if (s->state != SESSION_CLOSED) {
		session_pump(s);
		session_kick(s);
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
		session_close_now(s);
	} else if (!s->shut) {
		s->shut = true;
		if (uv_shutdown(&s->shutdown, (uv_stream_t *)&s->tcp, on_shutdown) != 0)
			session_close_now(s);
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
	rc = fill_channel(s, limited ? throttle_piece(s->sending) : SESSION_WRITE_BYTES, e);
	want = channel_queued(s->channel);
	if (rc != 0 || want == 0)
		return rc;
	if (want > SESSION_WRITE_BYTES)
		want = SESSION_WRITE_BYTES;
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

void
session_pump(struct session *s)
{
	struct lc_err err = LC_ERR_INIT;
	size_t n = 0;
	uv_buf_t buf;
	int urc;

	if (s->writing || s->shut || s->state == SESSION_CLOSED || s->state == SESSION_CONNECTING)
		return;
	if (next_bytes(s, &n, &err) != 0) {
		session_fail(s, &err, true);
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
		session_fail_uv(s, urc, "sending");
	else
		s->writing = true;
}

int
session_send_number(struct session *s, uint16_t type, uint64_t number)
{
	uint8_t body[8];
	struct lc_span span = {body, sizeof body};

	lc_put64(body, number);
	return channel_send(s->channel, type, &span, 1, NULL);
}

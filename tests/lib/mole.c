#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/channel.h"
#include "replicator/message.h"
#include "tests/lib/mole.h"

struct sending {
	uv_write_t req;
	uint8_t bytes[];
};

static void
on_sent(uv_write_t *req, int status)
{
	(void)status;
	free(req);
}

static void
send_bytes(struct mole *m, const uint8_t *p, size_t n)
{
	struct sending *s;
	uv_buf_t b;

	while (n > 0 && !m->over && !m->closed) {
		s = malloc(sizeof *s + n);
		assert(s != NULL);
		b = uv_buf_init((char *)s->bytes, (unsigned)n);
		memcpy(s->bytes, p, b.len);
		p += b.len;
		n -= b.len;
		if (uv_write(&s->req, (uv_stream_t *)&m->tcp, &b, 1, on_sent) != 0) {
			free(s);
			m->over = true;
		}
	}
}

static void
pump(struct mole *m)
{
	uint8_t buf[65536];
	size_t n = 0;

	while (m->connected && m->channel != NULL &&
	       channel_pull(m->channel, buf, sizeof buf, &n, NULL) == 0 && n > 0)
		send_bytes(m, buf, n);
}

static int
on_opened(void *arg, const uint8_t *peer, struct lc_err *e)
{
	struct mole *m = arg;

	(void)peer;
	(void)e;
	m->open = true;
	return 0;
}

static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct mole *m = arg;
	struct refused r;

	m->n++;
	m->last = type;
	m->of_type[type % 64]++;
	m->body.n = 0;
	if (lc_buf_append(&m->body, body.p, body.n) != 0)
		abort();
	if (type == MESSAGE_PING && m->serving)
		return channel_send(m->channel, MESSAGE_PONG, &body, 1, e);
	if (type == MESSAGE_REFUSED && message_get_refused(body, &r, NULL) == 0) {
		(void)snprintf(m->refused, sizeof m->refused, "%s", r.text);
		m->code = r.code;
	}
	if (m->heard != NULL)
		m->heard(m->arg, type, body);
	return 0;
}

static void
on_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
	static char buf[65536];

	(void)h;
	(void)n;
	*b = uv_buf_init(buf, sizeof buf);
}

static void
on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	const struct channel_events events = {
	    .arg = s->data, .opened = on_opened, .message = on_message};
	struct mole *m = s->data;

	if (n < 0)
		m->over = true;
	if (n <= 0 || m->channel == NULL)
		return;
	(void)channel_feed(m->channel, (const uint8_t *)b->base, (size_t)n, &events, NULL);
	pump(m);
}

static void
begin(struct mole *m, int status)
{
	m->connected = status == 0;
	m->over = status != 0;
	if (status != 0)
		return;
	if (m->reading)
		(void)uv_read_start((uv_stream_t *)&m->tcp, on_alloc, on_read);
	pump(m);
}

static void
on_connect(uv_connect_t *c, int status)
{
	begin(c->data, status);
}

static void
on_connection(uv_stream_t *listener, int status)
{
	struct mole *m = listener->data;

	if (m->connected)
		return;
	begin(m, status != 0 ? status : uv_accept(listener, (uv_stream_t *)&m->tcp));
}

unsigned
mole_serve(struct mole *m, uv_loop_t *loop, const struct identity *id)
{
	struct sockaddr_in a;
	int n = sizeof a;

	memset(m, 0, sizeof *m);
	if (channel_new(id->secret, NULL, &m->channel, NULL) != 0)
		abort();
	m->reading = m->serving = true;
	m->tcp.data = m->listener.data = m;
	if (uv_tcp_init(loop, &m->tcp) != 0 || uv_tcp_init(loop, &m->listener) != 0 ||
	    uv_ip4_addr("127.0.0.1", 0, &a) != 0 ||
	    uv_tcp_bind(&m->listener, (const struct sockaddr *)(const void *)&a, 0) != 0 ||
	    uv_listen((uv_stream_t *)&m->listener, 1, on_connection) != 0 ||
	    uv_tcp_getsockname(&m->listener, (struct sockaddr *)(void *)&a, &n) != 0)
		abort();
	return ntohs(a.sin_port);
}

void
mole_start(struct mole *m, uv_loop_t *loop, unsigned port, const struct identity *id,
           const uint8_t *replica)
{
	struct sockaddr_in a;

	memset(m, 0, sizeof *m);
	if (id != NULL && channel_new(id->secret, replica, &m->channel, NULL) != 0)
		abort();
	m->reading = true;
	m->tcp.data = m->connect.data = m;
	if (uv_tcp_init(loop, &m->tcp) != 0 || uv_ip4_addr("127.0.0.1", (int)port, &a) != 0 ||
	    uv_tcp_connect(&m->connect, &m->tcp, (const struct sockaddr *)(const void *)&a,
	                   on_connect) != 0)
		abort();
}

void
mole_say(struct mole *m, uint16_t type, struct lc_span body)
{
	if (channel_send(m->channel, type, &body, 1, NULL) == 0)
		pump(m);
}

void
mole_raw(struct mole *m, struct lc_span bytes)
{
	send_bytes(m, bytes.p, bytes.n);
}

void
mole_read(struct mole *m, bool on)
{
	m->reading = on;
	if (on && m->connected)
		(void)uv_read_start((uv_stream_t *)&m->tcp, on_alloc, on_read);
	else
		(void)uv_read_stop((uv_stream_t *)&m->tcp);
}

size_t
mole_unsent(const struct mole *m)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&m->tcp);
}

static void
on_closed(uv_handle_t *h)
{
	struct mole *m = h->data;

	channel_free(m->channel);
	lc_buf_free(&m->body);
	m->closed = true;
}

static void
on_listener_closed(uv_handle_t *h)
{
	struct mole *m = h->data;

	uv_close((uv_handle_t *)&m->tcp, on_closed);
}

void
mole_end(struct mole *m)
{
	if (m->serving) {
		m->serving = false;
		uv_close((uv_handle_t *)&m->listener, on_listener_closed);
	} else if (!uv_is_closing((uv_handle_t *)&m->tcp))
		uv_close((uv_handle_t *)&m->tcp, on_closed);
}

bool
mole_is_open(void *m)
{
	return ((struct mole *)m)->open;
}

bool
mole_is_over(void *m)
{
	return ((struct mole *)m)->over;
}

bool
mole_heard(void *count)
{
	const struct mole_count *c = count;

	return c->m->of_type[c->type] >= c->n || c->m->over;
}

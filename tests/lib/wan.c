#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uv.h>

#include "tests/lib/wan.h"

#define PIECE 16384u
#define TICK_MS 1
#define ROOM (256u << 10) /* of a router, beside what is on the wire */

struct piece {
	STAILQ_ENTRY(piece) entry;
	uint64_t at_ns; /* when it comes out */
	size_t n;
	char bytes[PIECE];
};

struct pipe_end { /* one direction: what came from `from` goes to `to` */
	uv_tcp_t *from, *to;
	STAILQ_HEAD(, piece) pieces;
	uint64_t held;    /* bytes in pieces */
	uint64_t free_ns; /* when the wire has room for the next byte */
	bool reading, eof;
	char buf[PIECE];
};

struct pair {
	TAILQ_ENTRY(pair) entry;
	struct wan *w;
	uv_tcp_t near, far;
	uv_connect_t connect;
	struct pipe_end up, down;
	bool closing;
	unsigned open; /* handles */
};

struct wan {
	struct wan_opts o;
	uv_tcp_t tcp;
	uv_timer_t timer;
	unsigned port, connections, cuts;
	TAILQ_HEAD(, pair) pairs;
	uint64_t up_bytes, cut_at;
	bool silent, down, stopping;
	unsigned open;
};

struct sending {
	uv_write_t req;
	struct piece *p;
};

static void
must(int urc)
{
	if (urc != 0)
		abort();
}

static void
free_pieces(struct pipe_end *e)
{
	struct piece *p;

	while ((p = STAILQ_FIRST(&e->pieces)) != NULL) {
		STAILQ_REMOVE_HEAD(&e->pieces, entry);
		free(p);
	}
}

static void
free_if_over(struct wan *w)
{
	if (w->stopping && w->open == 0 && TAILQ_EMPTY(&w->pairs))
		free(w);
}

static void
on_pair_closed(uv_handle_t *h)
{
	struct pair *p = h->data;
	struct wan *w = p->w;

	if (--p->open > 0)
		return;
	free_pieces(&p->up);
	free_pieces(&p->down);
	TAILQ_REMOVE(&w->pairs, p, entry);
	free(p);
	free_if_over(w);
}

static void
close_pair(struct pair *p)
{
	if (p->closing)
		return;
	p->closing = true;
	uv_close((uv_handle_t *)&p->near, on_pair_closed);
	uv_close((uv_handle_t *)&p->far, on_pair_closed);
}

static void
on_sent(uv_write_t *req, int status)
{
	struct sending *s = (struct sending *)(void *)req;
	struct pair *p = req->handle->data;

	free(s->p);
	free(s);
	if (status != 0)
		close_pair(p);
}

static void
send_piece(struct pipe_end *e, struct piece *p)
{
	struct sending *s = malloc(sizeof *s);
	uv_buf_t b = uv_buf_init(p->bytes, (unsigned)p->n);

	assert(s != NULL);
	s->p = p;
	must(uv_write(&s->req, (uv_stream_t *)e->to, &b, 1, on_sent));
}

static void
on_shut(uv_shutdown_t *req, int status)
{
	(void)status;
	free(req);
}

static void
on_alloc(uv_handle_t *h, size_t n, uv_buf_t *buf)
{
	struct pair *p = h->data;
	struct pipe_end *e = h == (uv_handle_t *)&p->near ? &p->up : &p->down;

	(void)n;
	*buf = uv_buf_init(e->buf, sizeof e->buf);
}

static void
on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	struct pair *pair = s->data;
	struct wan *w = pair->w;
	struct pipe_end *e = s == (uv_stream_t *)&pair->near ? &pair->up : &pair->down;
	uint64_t now = uv_hrtime();
	struct piece *p;

	if (n == 0)
		return;
	if (n < 0 && n != UV_EOF) {
		close_pair(pair);
		return;
	}
	p = malloc(sizeof *p);
	assert(p != NULL);
	p->n = n < 0 ? 0 : (size_t)n;
	if (n > 0)
		memcpy(p->bytes, buf->base, p->n);
	e->free_ns = e->free_ns > now ? e->free_ns : now;
	if (w->o.bytes_ps > 0)
		e->free_ns += p->n * UINT64_C(1000000000) / w->o.bytes_ps;
	p->at_ns = e->free_ns + (uint64_t)w->o.delay_ms * 1000000;
	STAILQ_INSERT_TAIL(&e->pieces, p, entry);
	e->held += p->n;
	e->eof = e->eof || n < 0;
	if (e->eof || e->held > ROOM + w->o.bytes_ps * (uint64_t)w->o.delay_ms / 1000) {
		e->reading = false;
		(void)uv_read_stop(s);
	}
}

static void
move(struct pair *pair, struct pipe_end *e, uint64_t now)
{
	struct wan *w = pair->w;
	struct piece *p;

	while (!pair->closing && (p = STAILQ_FIRST(&e->pieces)) != NULL && p->at_ns <= now &&
	       uv_stream_get_write_queue_size((uv_stream_t *)e->to) < ROOM) {
		STAILQ_REMOVE_HEAD(&e->pieces, entry);
		e->held -= p->n;
		if (p->n == 0) {
			uv_shutdown_t *req = malloc(sizeof *req);

			assert(req != NULL);
			if (uv_shutdown(req, (uv_stream_t *)e->to, on_shut) != 0)
				free(req);
			free(p);
			continue;
		}
		if (e == &pair->up) {
			w->up_bytes += p->n;
			if (w->cut_at > 0 && w->up_bytes >= w->cut_at) {
				w->cut_at = 0;
				w->cuts++;
				free(p);
				close_pair(pair);
				return;
			}
		}
		send_piece(e, p);
	}
	if (!pair->closing && !e->reading && !e->eof &&
	    e->held <= ROOM / 2 + w->o.bytes_ps * (uint64_t)w->o.delay_ms / 1000) {
		e->reading = true;
		(void)uv_read_start((uv_stream_t *)e->from, on_alloc, on_read);
	}
}

static void
on_tick(uv_timer_t *t)
{
	struct wan *w = t->data;
	uint64_t now = uv_hrtime();
	struct pair *p, *next;

	for (p = TAILQ_FIRST(&w->pairs); p != NULL && !w->silent; p = next) {
		next = TAILQ_NEXT(p, entry);
		if (p->up.to == NULL)
			continue;
		move(p, &p->up, now);
		move(p, &p->down, now);
	}
}

static void
on_connected(uv_connect_t *c, int status)
{
	struct pair *p = c->data;

	if (p->closing)
		return;
	if (status != 0) {
		close_pair(p);
		return;
	}
	(void)uv_tcp_nodelay(&p->near, 1);
	(void)uv_tcp_nodelay(&p->far, 1);
	p->up.from = p->down.to = &p->near;
	p->up.to = p->down.from = &p->far;
}

static void
on_connection(uv_stream_t *s, int status)
{
	struct wan *w = s->data;
	struct pair *p = calloc(1, sizeof *p);
	struct sockaddr_in to;

	assert(p != NULL && status == 0);
	p->w = w;
	p->open = 2;
	STAILQ_INIT(&p->up.pieces);
	STAILQ_INIT(&p->down.pieces);
	must(uv_tcp_init(w->o.loop, &p->near));
	must(uv_tcp_init(w->o.loop, &p->far));
	p->near.data = p->far.data = p->connect.data = p;
	TAILQ_INSERT_TAIL(&w->pairs, p, entry);
	must(uv_accept(s, (uv_stream_t *)&p->near));
	w->connections++;
	must(uv_ip4_addr("127.0.0.1", (int)w->o.to, &to));
	if (w->down ||
	    uv_tcp_connect(&p->connect, &p->far, (const struct sockaddr *)(const void *)&to,
	                   on_connected) != 0)
		close_pair(p);
}

struct wan *
wan_start(const struct wan_opts *o)
{
	struct wan *w = calloc(1, sizeof *w);
	struct sockaddr_in a;
	int n = sizeof a;

	assert(w != NULL);
	w->o = *o;
	TAILQ_INIT(&w->pairs);
	must(uv_tcp_init(o->loop, &w->tcp));
	must(uv_timer_init(o->loop, &w->timer));
	w->tcp.data = w->timer.data = w;
	w->open = 2;
	must(uv_ip4_addr("127.0.0.1", 0, &a));
	must(uv_tcp_bind(&w->tcp, (const struct sockaddr *)(const void *)&a, 0));
	must(uv_listen((uv_stream_t *)&w->tcp, 64, on_connection));
	must(uv_tcp_getsockname(&w->tcp, (struct sockaddr *)(void *)&a, &n));
	w->port = ntohs(a.sin_port);
	must(uv_timer_start(&w->timer, on_tick, TICK_MS, TICK_MS));
	return w;
}

unsigned
wan_port(const struct wan *w)
{
	return w->port;
}

void
wan_cut(struct wan *w)
{
	struct pair *p;

	w->cuts++;
	TAILQ_FOREACH (p, &w->pairs, entry) {
		close_pair(p);
	}
}

void
wan_cut_after(struct wan *w, uint64_t n)
{
	w->cut_at = w->up_bytes + n;
}

void
wan_silence(struct wan *w, bool silent)
{
	w->silent = silent;
}

void
wan_down(struct wan *w, bool down)
{
	w->down = down;
}

uint64_t
wan_up_bytes(const struct wan *w)
{
	return w->up_bytes;
}

unsigned
wan_connections(const struct wan *w)
{
	return w->connections;
}

unsigned
wan_cuts(const struct wan *w)
{
	return w->cuts;
}

static void
on_closed(uv_handle_t *h)
{
	struct wan *w = h->data;

	w->open--;
	free_if_over(w);
}

void
wan_stop(struct wan *w)
{
	wan_cut(w);
	w->stopping = true;
	uv_close((uv_handle_t *)&w->tcp, on_closed);
	uv_close((uv_handle_t *)&w->timer, on_closed);
}

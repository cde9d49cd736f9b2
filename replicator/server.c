/*
 * A guest: (handshake) ─► HELLO: who is it, is it paired, or is it pairing? ─► its store is opened
 * ─► WELCOME ─► the receiver's messages until it leaves.
 *
 * What is decided on a worker (HELLO, the receiver) uses only the guest, and files; the list of
 * guests is the loop's.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <uv.h>

#include "replicator/message.h"
#include "replicator/receiver.h"
#include "replicator/server.h"
#include "replicator/session.h"
#include "replicator/writers.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/keyring.h"

#define GUESTS_MAX 256u
#define STRANGERS_MAX 16u /* connections whose host is not known yet */
#define BYTE_WINDOW (8u << 20)
#define BACKLOG 64
#define CLOCK_SKEW_NS (5 * 60 * LC_NS_PER_S)
#define STORE_WAIT_MS 2000

struct guest {
	TAILQ_ENTRY(guest) entry;
	struct server *server;
	struct session *session;
	const char *dir; /* of the replica */
	bool known;      /* its key is that of a paired host */
	struct writer_entry who;
	struct store *store;
	struct receiver *receiver;
	struct lc_err unwelcome; /* told in answer to HELLO */
	struct lc_err broken;    /* the store can't go on */
	uint64_t points;
};

struct server {
	struct uv_loop_s *loop;
	struct workers *workers;
	char *dir;
	struct identity identity;
	uv_tcp_t tcp;
	bool stopping, tcp_closed;
	TAILQ_HEAD(, guest) guests;
	unsigned nguests;
	void (*stopped)(void *arg);
	void *arg;
};

/* ---- on a worker ---- */

static int
emit(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	struct guest *g = arg;

	return session_emit(g->session, type, spans, n, e);
}

static void
on_committed(void *arg, const uint8_t vm[16], const uint8_t point[16])
{
	struct guest *g = arg;
	char vm_hex[33], point_hex[33];

	g->points++;
	log_info("%s: VM %.8s: point %.8s is durable", g->who.name, lc_hex(vm_hex, vm, 16),
	         lc_hex(point_hex, point, 16));
}

static void
on_refused(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct guest *g = arg;
	char hex[33];

	log_warn("%s: VM %.8s: refused a point: %s", g->who.name, lc_hex(hex, vm, 16), why->msg);
	/* After these the store takes nothing more until it is opened again. */
	if (why->code == LC_EIO || why->code == LC_ENOSPC)
		g->broken = *why;
}

/* Names are for people and files: what is neither letter nor digit becomes a '-'. */
static void
take_name(struct guest *g, const char *name)
{
	size_t i;

	(void)snprintf(g->who.name, sizeof g->who.name, "%s", name[0] != '\0' ? name : "host");
	for (i = 0; g->who.name[i] != '\0'; i++) {
		char one[2] = {g->who.name[i], '\0'};

		if (i > 0 ? !peer_name_ok(one) && one[0] != '.' : !peer_name_ok(one))
			g->who.name[i] = '-';
	}
}

static int
let_in(struct guest *g, const struct hello *m, struct lc_err *e)
{
	if (m->version != MESSAGE_VERSION)
		return lc_fail(
		    e, LC_EVERSION, 0,
		    "the host speaks version %u of the protocol, this replica version %u",
		    m->version, MESSAGE_VERSION);
	if (m->pairing) {
		memcpy(g->who.domain, m->domain, sizeof g->who.domain);
		take_name(g, m->name);
		return writers_bind(g->dir, &g->who, m->secret, e);
	}
	if (!g->known) /* says why */
		return writers_find(g->dir, g->who.key, &g->who, e);
	if (memcmp(g->who.domain, m->domain, sizeof g->who.domain) != 0)
		return lc_fail(
		    e, LC_ECONFLICT, 0,
		    "host %s was paired with the store of another key domain: pair again",
		    g->who.name);
	return 0;
}

/* Every segment says which keys open it; a host whose keys are others would write what the recovery
 * code does not open. */
static int
check_keys(struct guest *g, struct lc_span keys, struct lc_err *e)
{
	struct lc_buf ours = {0};
	int rc = transfer_keys(g->store, &ours, e);

	if (rc == 0 && (ours.n != keys.n || memcmp(ours.p, keys.p, keys.n) != 0))
		rc = lc_fail(e, LC_EKEY, 0,
		             "the host's keys are not those that its store here began with");
	lc_buf_free(&ours);
	return rc;
}

static int
open_store(struct guest *g, struct lc_span keys, struct lc_err *e)
{
	char *dir = path_join(g->dir, g->who.store);
	struct store_opts o = {.mode = STORE_WRITE,
	                       .who = "locum replica",
	                       .no_key = true,
	                       .wait_ms = STORE_WAIT_MS,
	                       .dir = dir};
	int rc;

	if (dir == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = store_open(&o, &g->store, e);
	if (rc == LC_ENOENT) {
		uint8_t domain[16];

		lc_err_clear(e);
		rc = keyring_domain_of(keys, domain, e);
		if (rc == 0 && memcmp(domain, g->who.domain, sizeof domain) != 0)
			rc = lc_fail(e, LC_EKEY, 0, "the host's keys are of another key domain");
		rc = rc != 0 ? rc : transfer_make(dir, keys, e);
		rc = rc != 0 ? rc : store_open(&o, &g->store, e);
	}
	rc = rc != 0 ? rc : check_keys(g, keys, e);
	lc_free(dir);
	return rc;
}

static int
welcome(struct guest *g, const struct hello *m, struct lc_err *e)
{
	struct receiver_events events = {
	    .arg = g, .emit = emit, .committed = on_committed, .refused = on_refused};
	struct welcome w = {
	    .version = MESSAGE_VERSION, .byte_window = BYTE_WINDOW, .wall_ns = clock_wall_ns()};
	int64_t ahead = m->wall_ns - w.wall_ns;
	struct lc_buf body = {0};
	char text[32];
	int rc;

	rc = receiver_new(g->store, &events, &g->receiver, e);
	memcpy(w.store, store_id(g->store), sizeof w.store);
	if (rc == 0 && message_put_welcome(&body, &w) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc
	             : session_emit(g->session, MESSAGE_WELCOME, &(struct lc_span){body.p, body.n},
	                            1, e);
	lc_buf_free(&body);
	if (rc == 0)
		log_info("%s: %s from %s", g->who.name, m->pairing ? "paired" : "connected",
		         session_peer_name(g->session));
	if (rc == 0 && (ahead > CLOCK_SKEW_NS || ahead < -CLOCK_SKEW_NS))
		log_warn("%s: its clock is %s %s this one's: points are ordered by this one's",
		         g->who.name,
		         clock_format_duration(text, sizeof text, ahead > 0 ? ahead : -ahead),
		         ahead > 0 ? "ahead of" : "behind");
	return rc;
}

static int
on_hello(struct guest *g, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct hello m;
	int rc;

	if (type != MESSAGE_HELLO)
		return lc_fail(e, LC_EPEER, 0, "%s before HELLO", message_name(type));
	rc = message_get_hello(body, &m, e);
	if (rc == 0 && g->unwelcome.code != LC_OK) {
		rc = g->unwelcome.code;
		*e = g->unwelcome;
	}
	rc = rc != 0 ? rc : let_in(g, &m, e);
	rc = rc != 0 ? rc : open_store(g, m.keys, e);
	rc = rc != 0 ? rc : welcome(g, &m, e);
	explicit_bzero(m.secret, sizeof m.secret);
	return rc;
}

/* The other side is told why it ends. */
static int
say_why(struct guest *g, int rc, const struct lc_err *why)
{
	struct lc_buf body = {0};

	if (rc != 0 && message_put_refused(&body, SESSION_STREAM, why) == 0)
		(void)session_emit(g->session, MESSAGE_REFUSED, &(struct lc_span){body.p, body.n},
		                   1, NULL);
	lc_buf_free(&body);
	return rc;
}

static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct guest *g = arg;
	int rc;

	rc = g->receiver == NULL ? on_hello(g, type, body, e)
	                         : receiver_message(g->receiver, type, body, e);
	if (rc == 0 && g->broken.code != LC_OK) {
		rc = g->broken.code;
		*e = g->broken;
	}
	return say_why(g, rc, e);
}

static int
on_settle(void *arg, struct lc_err *e)
{
	struct guest *g = arg;
	int rc = g->receiver == NULL ? 0 : receiver_settle(g->receiver, e);

	if (rc == 0 && g->broken.code != LC_OK) {
		rc = g->broken.code;
		*e = g->broken;
	}
	return say_why(g, rc, e);
}

/* ---- on the loop ---- */

static void
free_if_over(struct server *s)
{
	if (!s->stopping || !s->tcp_closed || s->nguests > 0)
		return;
	s->stopped(s->arg);
	identity_forget(&s->identity);
	lc_free(s->dir);
	lc_free(s);
}

static void
on_ended(void *arg, const struct lc_err *why)
{
	struct guest *g = arg;
	struct server *s = g->server;

	if (why->code != LC_OK)
		log_warn("%s: the connection ended: %s",
		         g->who.name[0] != '\0' ? g->who.name : "a stranger", why->msg);
	else
		log_info("%s: left", g->who.name);
	receiver_free(g->receiver);
	store_close(g->store);
	TAILQ_REMOVE(&s->guests, g, entry);
	s->nguests--;
	lc_free(g);
	free_if_over(s);
}

/* One connection of a host at a time: a new one takes the place of one that went silent. */
static int
on_opened(void *arg, const uint8_t peer[CHANNEL_KEY_SIZE], struct lc_err *e)
{
	struct lc_err gone = LC_ERR_INIT, ignored = LC_ERR_INIT;
	struct guest *g = arg, *x;

	(void)e;
	g->known = writers_find(g->dir, peer, &g->who, &ignored) == 0;
	memcpy(g->who.key, peer, CHANNEL_KEY_SIZE);
	TAILQ_FOREACH (x, &g->server->guests, entry) {
		if (x == g || memcmp(x->who.key, peer, CHANNEL_KEY_SIZE) != 0)
			continue;
		if (session_silence_ms(x->session) < SESSION_PING_MS + 1000) {
			(void)lc_fail(&g->unwelcome, LC_EBUSY, 0, "host %s is connected already",
			              x->who.name);
			continue;
		}
		(void)lc_fail(&gone, LC_ETIMEDOUT, 0, "it went silent, and its host came again");
		session_end(x->session, &gone);
		(void)lc_fail(&g->unwelcome, LC_EBUSY, 0,
		              "host %s: its connection of before is being closed", x->who.name);
	}
	return 0;
}

static const struct session_role guest_role = {
    .opened = on_opened, .message = on_message, .settle = on_settle, .ended = on_ended};

static void
on_turned_away(uv_handle_t *h)
{
	lc_free(h);
}

static void
turn_away(struct server *s)
{
	uv_tcp_t *t = lc_alloc(sizeof *t);

	if (t == NULL)
		return;
	(void)uv_tcp_init(s->loop, t);
	(void)uv_accept((uv_stream_t *)&s->tcp, (uv_stream_t *)t);
	uv_close((uv_handle_t *)t, on_turned_away);
}

static bool
full(const struct server *s)
{
	const struct guest *g;
	unsigned strangers = 0;

	TAILQ_FOREACH (g, &s->guests, entry) {
		strangers += g->known ? 0 : 1;
	}
	return s->nguests >= GUESTS_MAX || strangers >= STRANGERS_MAX;
}

static void
on_connection(uv_stream_t *stream, int status)
{
	struct server *s = stream->data;
	struct session_opts o = {.loop = s->loop,
	                         .workers = s->workers,
	                         .secret = s->identity.secret,
	                         .role = &guest_role};
	struct lc_err err = LC_ERR_INIT;
	struct guest *g;

	if (status != 0) {
		log_warn("accepting a connection: %s", uv_strerror(status));
		return;
	}
	g = full(s) ? NULL : lc_alloc(sizeof *g);
	if (g == NULL) {
		log_warn("a connection was turned away: too many at once");
		turn_away(s);
		return;
	}
	g->server = s;
	g->dir = s->dir;
	o.arg = g;
	if (session_new(&o, &g->session, &err) != 0) {
		log_warn("a connection was turned away: %s", err.msg);
		lc_free(g);
		turn_away(s);
		return;
	}
	TAILQ_INSERT_TAIL(&s->guests, g, entry);
	s->nguests++;
	session_accept(g->session, stream);
}

static int
listen_on(struct server *s, const struct address *a, struct lc_err *e)
{
	const char *host = strcmp(a->host, "*") == 0 ? "::" : a->host;
	struct sockaddr_storage to;
	char text[ADDRESS_MAX];
	int port = 0, urc;

	(void)sscanf(a->port, "%d", &port); /* NOLINT(cert-err34-c): address_parse() checked it */
	if (uv_ip4_addr(host, port, (struct sockaddr_in *)(void *)&to) != 0 &&
	    uv_ip6_addr(host, port, (struct sockaddr_in6 *)(void *)&to) != 0)
		return lc_fail(e, LC_EINVAL, 0,
		               "%s is no address to listen on: a number (192.0.2.7, ::) or *",
		               a->host);
	urc = uv_tcp_bind(&s->tcp, (const struct sockaddr *)&to, 0);
	urc = urc != 0 ? urc : uv_listen((uv_stream_t *)&s->tcp, BACKLOG, on_connection);
	if (urc != 0)
		return lc_fail(e, urc == UV_EADDRINUSE ? LC_EBUSY : LC_EIO, 0,
		               "listening on %s: %s", address_text(text, a), uv_strerror(urc));
	return 0;
}

static void
on_tcp_closed(uv_handle_t *h)
{
	struct server *s = h->data;

	s->tcp_closed = true;
	free_if_over(s);
}

static void
ignore_stopped(void *arg)
{
	(void)arg;
}

int
server_start(const struct server_opts *o, struct server **out, struct lc_err *e)
{
	struct server *s = lc_alloc(sizeof *s);
	int rc;

	if (s == NULL || (s->dir = lc_strdup(o->dir)) == NULL) {
		lc_free(s);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	s->loop = o->loop;
	s->workers = o->workers;
	s->identity = *o->identity;
	TAILQ_INIT(&s->guests);
	(void)uv_tcp_init(o->loop, &s->tcp);
	s->tcp.data = s;
	rc = listen_on(s, o->listen, e);
	if (rc != 0) {
		server_stop(s, ignore_stopped, NULL);
		return rc;
	}
	*out = s;
	return 0;
}

unsigned
server_port(const struct server *s)
{
	struct sockaddr_storage a;
	int n = sizeof a;

	if (uv_tcp_getsockname(&s->tcp, (struct sockaddr *)&a, &n) != 0)
		return 0;
	return ntohs(a.ss_family == AF_INET6
	                 ? ((const struct sockaddr_in6 *)(const void *)&a)->sin6_port
	                 : ((const struct sockaddr_in *)(const void *)&a)->sin_port);
}

void
server_stop(struct server *s, void (*stopped)(void *arg), void *arg)
{
	struct guest *g, *next;

	if (s->stopping)
		return;
	s->stopping = true;
	s->stopped = stopped;
	s->arg = arg;
	uv_close((uv_handle_t *)&s->tcp, on_tcp_closed);
	for (g = TAILQ_FIRST(&s->guests); g != NULL; g = next) {
		next = TAILQ_NEXT(g, entry);
		session_end(g->session, NULL);
	}
}

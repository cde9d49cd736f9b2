/*
 * A guest: (handshake) ─► HELLO: who is it, is it paired, or is it pairing? ─► its store is opened
 * ─► WELCOME ─► the receiver's messages until it leaves.  Here is the loop's part of it.
 *
 * A stranger that connects takes nothing from the others: there are few places for strangers, he
 * has seconds to say who he is, and the one that is there for longest makes room for the next.
 */
#include <stdio.h>
#include <string.h>

#include "replicator/server_internal.h"
#include "replicator/stores.h"
#include "replicator/throttle.h"
#include "store/base/clock.h"
#include "store/base/log.h"

#define GUESTS_MAX 256u
#define STRANGERS_MAX 16u /* connections whose host is not known yet */
#define LEAVING_MAX 16u   /* of those, that had to go, and have yet to hang up */
#define SAME_MAX 6u /* connections of one host: one that goes, one that comes, some that read */
#define OUTPUT_MAX (4u << 20)
#define BACKLOG 64
/* After that long, so that a ping was not answered. */
#define SILENT_MS(s) (((s)->limits.ping_ms > 0 ? (s)->limits.ping_ms : SESSION_PING_MS) + 1000)
#define TICK_MS 250
#define REVOKED_NS (2 * LC_NS_PER_S) /* how often hosts that are here are looked up again */

static void
free_if_over(struct server *s)
{
	struct host *h;

	if (!s->stopping || s->handles > 0 || s->nguests > 0)
		return;
	s->stopped(s->arg);
	while ((h = TAILQ_FIRST(&s->hosts)) != NULL) {
		TAILQ_REMOVE(&s->hosts, h, entry);
		lc_buf_free(&h->vms);
		lc_free(h);
	}
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_mutex_destroy(&s->pairing);
	stores_free(s->stores);
	identity_forget(&s->identity);
	lc_free(s->dir);
	lc_free(s);
}

/* Its name, also of one that has just paired. */
static const char *
name_of(struct guest *g, char name[64])
{
	struct host *h = g->host;

	(void)snprintf(name, 64, "%s", g->name[0] != '\0' ? g->name : "a stranger");
	(void)pthread_mutex_lock(&g->server->lock);
	if (h != NULL)
		(void)snprintf(name, 64, "%s", h->name);
	(void)pthread_mutex_unlock(&g->server->lock);
	return name;
}

/* Whether the log is told that it is gone: anybody can come, and a host that was captured can come
 * and go, any number of times. */
static bool
tells_of_its_end(struct guest *g, const char *name)
{
	struct server *s = g->server;
	struct host *h = g->host;
	bool tells;

	if (h == NULL && !g->known)
		return hush_tells(&s->strangers, "strangers");
	(void)pthread_mutex_lock(&s->lock);
	h = h != NULL ? h : host_find(s, g->key);
	tells = h == NULL || hush_tells(&h->comings, name);
	(void)pthread_mutex_unlock(&s->lock);
	return tells;
}

static void
on_ended(void *arg, const struct lc_err *why)
{
	struct guest *g = arg;
	struct server *s = g->server;
	struct host *h = g->host;
	struct session_stats st;
	char name[64];
	bool tell = tells_of_its_end(g, name_of(g, name));

	if (tell && why->code != LC_OK)
		log_warn("%s (%s): the connection ended: %s", name, session_peer_name(g->session),
		         why->msg);
	else if (tell)
		log_info("%s: left", name);
	session_stats(g->session, &st);
	(void)pthread_mutex_lock(&s->lock);
	if (h != NULL && g->reading) {
		h->readers--;
		h->received += st.received;
	} else if (h != NULL) {
		h->connected--;
		h->since_ns = clock_wall_ns();
		h->received += st.received;
		if (why->code != LC_OK) {
			h->err = *why;
			memset(h->err_vm, 0, sizeof h->err_vm);
		}
	}
	(void)pthread_mutex_unlock(&s->lock);
	TAILQ_REMOVE(&s->guests, g, entry);
	s->nguests--;
	throttle_close(g->throttle);
	lc_free(g);
	free_if_over(s);
}

/* End a session and tell the other side why. */
static void
send_away(struct guest *g, const struct lc_err *why)
{
	if (g->sent_away)
		return;
	g->sent_away = true;
	(void)guest_say_why(g, -1, why);
	session_end(g->session, why);
}

/* What this host may, else what each may. */
static int
apply_limits(struct guest *g, struct lc_err *e)
{
	struct server *s = g->server;
	struct limits l = {.rate = 0};
	uint64_t max = s->host_max;
	struct host *h;
	int rc;

	(void)pthread_mutex_lock(&s->lock);
	h = host_find(s, g->key);
	if (h != NULL && h->name[0] == '\0')
		(void)snprintf(h->name, sizeof h->name, "%s", g->name);
	rc = h == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : host_limits(s, h, e);
	if (rc == 0 && h != NULL) {
		l = h->limits;
		max = h->room;
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (rc != 0)
		return rc;
	throttle_set(g->throttle, l.rate_set ? l.rate : s->host_rate);
	if (atomic_exchange(&g->max, max) != max && g->greeted)
		session_poke(g->session); /* it is told, also where nothing comes from it */
	return 0;
}

/* What is read of a host is limited over all of its connections. */
static void
share_limit(struct guest *g, struct guest *other)
{
	session_receive_by(g->session, other->throttle);
	throttle_close(g->throttle);
	g->throttle = throttle_share(other->throttle);
}

/* One connection of a host that writes at a time: a new one takes the place of one that went
 * silent.  Which kind it is the host has yet to say. */
static int
on_opened(void *arg, const uint8_t peer[CHANNEL_KEY_SIZE], struct lc_err *e)
{
	struct guest *g = arg, *x;
	struct lc_err limits = LC_ERR_INIT;
	struct server *s = g->server;
	struct writer_entry w;
	unsigned same = 0;

	g->open = true;
	g->since_ns = clock_mono_ns();
	memcpy(g->key, peer, CHANNEL_KEY_SIZE);
	g->known = writers_find(g->dir, peer, &w, NULL) == 0;
	if (g->known)
		(void)snprintf(g->name, sizeof g->name, "%s", w.name);
	else
		host_name(s, peer, g->name);
	TAILQ_FOREACH (x, &s->guests, entry) {
		struct lc_err gone = LC_ERR_INIT;

		if (x == g || !x->open || memcmp(x->key, peer, CHANNEL_KEY_SIZE) != 0)
			continue;
		if (same == 0)
			share_limit(g, x);
		if (++same >= SAME_MAX)
			return lc_fail(e, LC_EBUSY, 0, "the host has %u connections already", same);
		if (!x->greeted || x->reading)
			continue;
		if (session_silence_ms(x->session) < SILENT_MS(s)) {
			(void)lc_fail(&g->unwelcome, LC_EBUSY, 0, "this host is connected already");
			continue;
		}
		(void)lc_fail(&gone, LC_ETIMEDOUT, 0, "it went silent, and its host came again");
		session_end(x->session, &gone);
		(void)lc_fail(&g->unwelcome, LC_EBUSY, 0,
		              "this host's connection of before is being closed");
	}
	/* Without a word of it, as the others, where it only reads. */
	if (g->known && apply_limits(g, &limits) != 0 && g->unwelcome.code == LC_OK)
		g->unwelcome = limits;
	return 0;
}

static const struct session_role guest_role = {.opened = on_opened,
                                               .message = guest_message,
                                               .settle = guest_settle,
                                               .leave = guest_leave,
                                               .ended = on_ended};

static void
on_turned_away(uv_handle_t *h)
{
	lc_free(h);
}

/* Strangers could fill the log. */
static void
warn_full(struct server *s, const char *why)
{
	int64_t now = clock_mono_ns();

	s->turned_away++;
	if (s->warned_ns != 0 && now - s->warned_ns < 10 * LC_NS_PER_S)
		return;
	log_warn("%u connections were turned away: %s", s->turned_away, why);
	s->warned_ns = now;
	s->turned_away = 0;
}

static void
turn_away(struct server *s, const char *why)
{
	uv_tcp_t *t = lc_alloc(sizeof *t);

	warn_full(s, why);
	s->waiting = t == NULL; /* nothing more comes until this one was taken */
	if (t == NULL)
		return;
	(void)uv_tcp_init(s->loop, t);
	(void)uv_accept((uv_stream_t *)&s->tcp, (uv_stream_t *)t);
	uv_close((uv_handle_t *)t, on_turned_away);
}

/* A place for one more; the stranger that is there for longest may have to go for it, and who does
 * not hang up is not waited for when others have to go, too. */
static bool
make_room(struct server *s)
{
	struct guest *g, *oldest = NULL, *leaving = NULL;
	struct lc_err why = LC_ERR_INIT;
	unsigned strangers = 0, nleaving = 0;

	TAILQ_FOREACH (g, &s->guests, entry) {
		if (g->known || g->host != NULL || g->dropped)
			continue;
		if (g->sent_away) {
			nleaving++;
			leaving = leaving == NULL ? g : leaving;
		} else {
			strangers++;
			oldest = oldest == NULL ? g : oldest;
		}
	}
	if (s->nguests >= GUESTS_MAX + STRANGERS_MAX + LEAVING_MAX)
		return false;
	if (strangers >= STRANGERS_MAX) {
		(void)lc_fail(&why, LC_EBUSY, 0, "it had not said who it is, and others came");
		send_away(oldest, &why);
	}
	if (nleaving >= LEAVING_MAX) {
		leaving->dropped = true;
		session_drop(leaving->session);
	}
	return true;
}

static void
on_connection(uv_stream_t *stream, int status)
{
	struct server *s = stream->data;
	struct session_opts o = {.loop = s->loop,
	                         .workers = s->workers,
	                         .secret = s->identity.secret,
	                         .role = &guest_role,
	                         .limits = s->limits,
	                         .output_max = OUTPUT_MAX};
	struct lc_err err = LC_ERR_INIT;
	struct guest *g;
	int rc = 0;

	if (status != 0) {
		log_warn("accepting a connection: %s", uv_strerror(status));
		return;
	}
	g = make_room(s) ? lc_alloc(sizeof *g) : NULL;
	if (g == NULL) {
		turn_away(s, "too many at once");
		return;
	}
	g->server = s;
	g->dir = s->dir;
	g->since_ns = clock_mono_ns();
	o.arg = g;
	g->max = s->host_max;
	rc = throttle_new(s->loop, s->host_rate, &g->throttle, &err);
	o.receiving = g->throttle;
	rc = rc != 0 ? rc : session_new(&o, &g->session, &err);
	if (rc != 0) {
		throttle_close(g->throttle);
		lc_free(g);
		turn_away(s, err.msg);
		return;
	}
	TAILQ_INSERT_TAIL(&s->guests, g, entry);
	s->nguests++;
	session_accept(g->session, stream);
}

/* Who does not say who it is, and who was revoked, does not stay. */
static void
look_at_guest(struct server *s, struct guest *g, int64_t now)
{
	int64_t patience = s->limits.connect_ms > 0 ? s->limits.connect_ms : SESSION_CONNECT_MS;
	struct lc_err why = LC_ERR_INIT, limits = LC_ERR_INIT;
	struct writer_entry w;

	if (g->sent_away || !g->open)
		return; /* the session has a limit for the handshake */
	if (!g->greeted && now - g->since_ns > patience * LC_NS_PER_MS)
		(void)lc_fail(&why, LC_ETIMEDOUT, 0, "it did not say who it is");
	if (g->host != NULL && now - g->looked_ns > REVOKED_NS) {
		g->looked_ns = now;
		if (writers_find(s->dir, g->key, &w, &why) != LC_EACCES)
			lc_err_clear(&why);
		if (apply_limits(g, &limits) != 0 && !g->reading && why.code == LC_OK)
			why = limits;
	}
	if (why.code != LC_OK)
		send_away(g, &why);
}

static void
on_tick(uv_timer_t *t)
{
	struct server *s = t->data;
	struct guest *g, *next;
	int64_t now = clock_mono_ns();
	bool look = atomic_exchange(&s->look, false);
	bool leave = atomic_exchange(&s->spoilt, false) || stores_leaving(s->stores);

	for (g = TAILQ_FIRST(&s->guests); g != NULL; g = next) {
		next = TAILQ_NEXT(g, entry);
		if (look)
			g->looked_ns = 0;
		look_at_guest(s, g, now);
		if (leave) /* who has nothing to say would keep one open that has to be closed */
			session_poke(g->session);
	}
	if (now - s->looked_ns > REVOKED_NS) {
		s->looked_ns = now;
		hosts_look(s);
	}
	if (s->waiting)
		turn_away(s, "out of memory");
}

static void
know_host(struct server *s, struct host *h, const struct writer_file *f)
{
	host_file(h, f->w.name, f->err.code == LC_OK ? NULL : &f->err);
	visits_load(s->dir, f->w.key, &h->visits);
	(void)host_limits(s, h, NULL);
}

/* Hosts that do not come belong into the status, too; and those that can't. */
static int
know_hosts(struct server *s, struct lc_err *e)
{
	struct writer_file *list = NULL;
	size_t i, n = 0;
	int rc = writers_files(s->dir, &list, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		struct host *h = list[i].w.revoked ? NULL : host_find(s, list[i].w.key);

		if (h != NULL)
			know_host(s, h, &list[i]);
		else if (!list[i].w.revoked)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	lc_free(list);
	return rc;
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

void
server_release(struct server *s)
{
	s->handles--;
	free_if_over(s);
}

static void
on_handle_closed(uv_handle_t *h)
{
	server_release(h->data);
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
	s->limits = o->limits;
	s->host_max = o->host_max;
	s->host_rate = o->host_rate;
	TAILQ_INIT(&s->guests);
	TAILQ_INIT(&s->hosts);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_mutex_init(&s->pairing, NULL);
	(void)uv_tcp_init(o->loop, &s->tcp);
	(void)uv_timer_init(o->loop, &s->timer);
	s->handles = 2;
	s->tcp.data = s->timer.data = s;
	(void)uv_timer_start(&s->timer, on_tick, TICK_MS, TICK_MS);
	rc = stores_new(&s->stores, e);
	rc = rc != 0 ? rc : know_hosts(s, e);
	rc = rc != 0 ? rc : listen_on(s, o->listen, e);
	if (rc != 0) {
		server_stop(s, ignore_stopped, NULL);
		return rc;
	}
	*out = s;
	return 0;
}

struct stores *
server_stores(struct server *s)
{
	return s->stores;
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
	uv_close((uv_handle_t *)&s->tcp, on_handle_closed);
	uv_close((uv_handle_t *)&s->timer, on_handle_closed);
	for (g = TAILQ_FIRST(&s->guests); g != NULL; g = next) {
		next = TAILQ_NEXT(g, entry);
		session_end(g->session, NULL);
	}
}

unsigned
server_guests(const struct server *s)
{
	return s->nguests;
}

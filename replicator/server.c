/*
 * A guest: (handshake) ─► HELLO: who is it, is it paired, or is it pairing? ─► its store is opened
 * ─► WELCOME ─► the receiver's messages until it leaves.
 *
 * What is decided on a worker (HELLO, the receiver) uses only the guest's own part, and files; the
 * list of guests is the loop's.  What both of them look at, hosts and what became of them, has a
 * lock.
 *
 * A stranger that connects takes nothing from the others: there are few places for strangers, he
 * has seconds to say who he is, and the one that is there for longest makes room for the next.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "replicator/lender.h"
#include "replicator/message.h"
#include "replicator/receiver.h"
#include "replicator/server.h"
#include "replicator/session.h"
#include "replicator/stores.h"
#include "replicator/throttle.h"
#include "replicator/writers.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/keyring.h"

#define GUESTS_MAX 256u
#define STRANGERS_MAX 16u /* connections whose host is not known yet */
#define SAME_MAX 6u       /* connections of one host: one that goes, one that comes, ... */
#define READERS_MAX 4u    /* ... and some that read */
#define BYTE_WINDOW (8u << 20)
#define BYTE_WINDOW_MIN (256u << 10)
#define OUTPUT_MAX (4u << 20)
#define BACKLOG 64
/* After that long, so that a ping was not answered. */
#define SILENT_MS(s) (((s)->limits.ping_ms > 0 ? (s)->limits.ping_ms : SESSION_PING_MS) + 1000)
#define STORE_WAIT_MS 2000
#define TICK_MS 250
#define REVOKED_NS (2 * LC_NS_PER_S) /* how often hosts that are here are looked up again */
#define ROOM_NS (5 * LC_NS_PER_S)    /* how often the size of a store is looked at */
#define VMS_MAX 4096u                /* of a host, in the status */

struct host_vm {
	uint8_t id[16];
	int64_t last_ns; /* wall clock here: its newest point came; of one before: its instant */
	uint64_t points; /* that came */
};

struct host { /* what became of a paired host since this process began */
	TAILQ_ENTRY(host) entry;
	uint8_t key[CHANNEL_KEY_SIZE];
	char name[64];
	unsigned connected, readers;
	int64_t since_ns; /* wall clock: connected, or not, since then */
	char at[64];
	uint64_t received;        /* bytes, of connections that ended */
	uint64_t points, refused; /* points */
	uint64_t kept, room;      /* bytes of its store; and that it may have, 0: any number */
	struct lc_err err;        /* what was refused last, or why the connection ended */
	struct lc_buf vms;        /* of struct host_vm */
};

struct guest {
	TAILQ_ENTRY(guest) entry;
	struct server *server;
	struct session *session;
	const char *dir; /* of the replica */
	uint8_t key[CHANNEL_KEY_SIZE];
	atomic_bool greeted;         /* HELLO came */
	atomic_bool reading;         /* and said that it only reads */
	struct lc_err unwelcome;     /* told in answer to HELLO; set before it can come */
	_Atomic(struct host *) host; /* NULL: not welcome yet */

	/* The loop's. */
	struct throttle *throttle; /* NULL: it may send as fast as it can */
	bool open, known;          /* it has proved its key; which is that of a paired host */
	char name[64];             /* "" unless known */
	int64_t since_ns, looked_ns;
	bool sent_away;

	/* The worker's. */
	struct writer_entry who;
	struct shared *shared;
	struct store *store; /* that one's */
	struct receiver *receiver;
	struct lender *lender; /* instead, where it reads */
	struct lc_err broken;  /* the store can't go on */
	int64_t room_ns;
	uint64_t room_told; /* bytes used, as the host was told last */
	bool room_is_told;
};

struct server {
	struct uv_loop_s *loop;
	struct workers *workers;
	char *dir;
	struct identity identity;
	struct session_limits limits;
	uint64_t host_max, host_rate;
	uv_tcp_t tcp;
	uv_timer_t timer;
	unsigned handles;
	bool stopping;
	bool waiting; /* a connection that could not even be turned away */
	int64_t warned_ns;
	unsigned turned_away; /* since the last warning */
	TAILQ_HEAD(, guest) guests;
	unsigned nguests;
	void (*stopped)(void *arg);
	void *arg;

	struct stores *stores;
	pthread_mutex_t pairing; /* one host at a time uses a token */
	atomic_bool look;        /* one may have been revoked just now */
	pthread_mutex_t lock;    /* the hosts */
	TAILQ_HEAD(, host) hosts;
};

/* ---- hosts ---- */

/* Under the lock. */
static struct host *
find_host(struct server *s, const uint8_t key[CHANNEL_KEY_SIZE])
{
	struct host *h;

	TAILQ_FOREACH (h, &s->hosts, entry) {
		if (memcmp(h->key, key, CHANNEL_KEY_SIZE) == 0)
			return h;
	}
	h = lc_alloc(sizeof *h);
	if (h == NULL)
		return NULL;
	memcpy(h->key, key, CHANNEL_KEY_SIZE);
	TAILQ_INSERT_TAIL(&s->hosts, h, entry);
	return h;
}

/* Under the lock.  NULL: there are too many, or no memory. */
static struct host_vm *
find_vm(struct host *h, const uint8_t id[16])
{
	struct host_vm *list = (struct host_vm *)(void *)h->vms.p, fresh = {.points = 0};
	size_t i, n = h->vms.n / sizeof *list;

	for (i = 0; i < n; i++) {
		if (memcmp(list[i].id, id, 16) == 0)
			return &list[i];
	}
	memcpy(fresh.id, id, 16);
	if (n >= VMS_MAX || lc_buf_append(&h->vms, &fresh, sizeof fresh) != 0)
		return NULL;
	return (struct host_vm *)(void *)h->vms.p + n;
}

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
	struct host *h = g->host;
	char vm_hex[33], point_hex[33];
	struct host_vm *x;

	(void)pthread_mutex_lock(&g->server->lock);
	h->points++;
	x = find_vm(h, vm);
	if (x != NULL) {
		x->last_ns = clock_wall_ns();
		x->points++;
	}
	(void)pthread_mutex_unlock(&g->server->lock);
	log_info("%s: VM %.8s: point %.8s is durable", g->who.name, lc_hex(vm_hex, vm, 16),
	         lc_hex(point_hex, point, 16));
}

static void
on_refused(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct guest *g = arg;
	struct host *h = g->host;
	char hex[33];

	(void)pthread_mutex_lock(&g->server->lock);
	h->refused++;
	h->err = *why;
	(void)pthread_mutex_unlock(&g->server->lock);
	log_warn("%s: VM %.8s: refused a point: %s", g->who.name, lc_hex(hex, vm, 16), why->msg);
	/* After these the store takes nothing more until it is opened again. */
	if (why->code == LC_EIO || (why->code == LC_ENOSPC && !receiver_full(g->receiver)))
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

/* A host that has lost its store knows no more than its own key, and who has the rest. */
static bool
asks_for_keys(const struct hello *m)
{
	return m->reading && m->keys.n == 0;
}

static int
let_in(struct guest *g, const struct hello *m, struct lc_err *e)
{
	int rc;

	memcpy(g->who.key, g->key, sizeof g->who.key);
	if (m->version != MESSAGE_VERSION)
		return lc_fail(
		    e, LC_EVERSION, 0,
		    "the host speaks version %u of the protocol, this replica version %u",
		    m->version, MESSAGE_VERSION);
	if (m->pairing) {
		memcpy(g->who.domain, m->domain, sizeof g->who.domain);
		take_name(g, m->name);
		(void)pthread_mutex_lock(&g->server->pairing);
		rc = writers_bind(g->dir, &g->who, m->secret, e);
		(void)pthread_mutex_unlock(&g->server->pairing);
		/* Whom it replaces has to leave the store that this one is about to open. */
		if (rc == 0)
			atomic_store(&g->server->look, true);
		return rc;
	}
	rc = writers_find(g->dir, g->key, &g->who, e);
	if (rc != 0)
		return rc;
	if (asks_for_keys(m)) /* it has yet to learn of which domain it is */
		return 0;
	if (memcmp(g->who.domain, m->domain, sizeof g->who.domain) != 0)
		return lc_fail(
		    e, LC_ECONFLICT, 0,
		    "host %s was paired with the store of another key domain: pair again",
		    g->who.name);
	return 0;
}

/* Every segment says which keys open it; a host whose keys are others would write what the recovery
 * code does not open.  One that has rotated has more, and they are put down before it writes. */
static int
check_keys(struct guest *g, struct lc_span keys, struct lc_err *e)
{
	enum keys_change change;
	int rc = transfer_take_keys(g->store, keys, &change, e);

	if (rc != 0)
		return lc_wrap(e, "the host's keys are not those of its store here");
	if (change == KEYS_FEWER && !g->reading)
		return lc_fail(e, LC_EKEY, 0,
		               "the host's key file is an older copy: it lacks data keys that its "
		               "store here has (locum key recover, there)");
	if (change == KEYS_MORE && !g->reading)
		log_info("%s: has a new data key", g->who.name);
	return 0;
}

static int
open_store(struct guest *g, struct lc_span keys, struct lc_err *e)
{
	char *dir = path_join(g->dir, g->who.store);
	struct stores *all = g->server->stores;
	int rc;

	if (dir == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = stores_take(all, dir, !g->reading, STORE_WAIT_MS, &g->shared, e);
	if (rc == LC_ENOENT && !g->reading) {
		uint8_t domain[16];

		lc_err_clear(e);
		rc = keyring_domain_of(keys, domain, e);
		if (rc == 0 && memcmp(domain, g->who.domain, sizeof domain) != 0)
			rc = lc_fail(e, LC_EKEY, 0, "the host's keys are of another key domain");
		rc = rc != 0 ? rc : transfer_make(dir, keys, e);
		rc = rc != 0 ? rc : stores_take(all, dir, true, STORE_WAIT_MS, &g->shared, e);
	}
	lc_free(dir);
	if (rc != 0)
		return rc;
	g->store = shared_store(g->shared);
	return g->reading && keys.n == 0 ? 0 : check_keys(g, keys, e);
}

/* Bytes of the store's log; what else lies there is small or can be made again. */
static uint64_t
bytes_kept(const struct guest *g)
{
	char *dir = lc_asprintf("%s/%s/segments", g->dir, g->who.store);
	DIR *d = dir == NULL ? NULL : opendir(dir);
	const struct dirent *ent;
	uint64_t sum = 0;
	struct stat st;

	while (d != NULL && (ent = readdir(d)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
		if (fstatat(dirfd(d), ent->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode))
			sum += (uint64_t)st.st_size;
	}
	if (d != NULL)
		(void)closedir(d);
	lc_free(dir);
	return sum;
}

static void
look_at_room(struct guest *g)
{
	uint64_t max = g->server->host_max, kept;
	struct host *h = g->host;
	int64_t now = clock_mono_ns();

	if (g->room_ns != 0 && now - g->room_ns < ROOM_NS)
		return;
	g->room_ns = now;
	kept = bytes_kept(g);
	if (max > 0)
		receiver_room(g->receiver, kept < max ? max - kept : 0);
	(void)pthread_mutex_lock(&g->server->lock);
	h->kept = kept;
	h->room = max;
	(void)pthread_mutex_unlock(&g->server->lock);
}

/* Now and then, in steps of a hundredth: a host cannot see by itself that its room ends. */
static int
tell_room(struct guest *g, struct lc_err *e)
{
	struct room m = {.max = g->server->host_max};
	struct host *h = g->host;
	struct lc_buf body = {0};
	uint64_t step;
	int rc;

	if (m.max == 0)
		return 0;
	(void)pthread_mutex_lock(&g->server->lock);
	m.used = h->kept;
	(void)pthread_mutex_unlock(&g->server->lock);
	step = m.used > g->room_told ? m.used - g->room_told : g->room_told - m.used;
	if (g->room_is_told && step < m.max / 100 + 1)
		return 0;
	g->room_told = m.used;
	g->room_is_told = true;
	rc = message_put_room(&body, &m) != 0
	         ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	         : session_emit(g->session, MESSAGE_ROOM, &(struct lc_span){body.p, body.n}, 1, e);
	lc_buf_free(&body);
	return rc;
}

static int
note_line(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct guest *g = arg;
	struct point *p = lc_alloc(sizeof *p);
	struct lc_span sealed;
	struct host_vm *x;

	(void)e;
	if (p != NULL && l->head.n > 0 && point_decode(l->head, p, &sealed, NULL) == 0) {
		(void)pthread_mutex_lock(&g->server->lock);
		x = find_vm(g->host, l->vm);
		if (x != NULL && p->source_ns > x->last_ns && p->source_ns < clock_wall_ns())
			x->last_ns = p->source_ns;
		(void)pthread_mutex_unlock(&g->server->lock);
	}
	lc_free(p);
	return 0;
}

/* One that reads is not what is shown as a host that is connected. */
static int
enter_reader(struct guest *g, struct lc_err *e)
{
	struct server *s = g->server;
	struct host *h;
	int rc = 0;

	(void)pthread_mutex_lock(&s->lock);
	h = find_host(s, g->key);
	if (h == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	} else if (h->readers >= READERS_MAX) {
		rc = lc_fail(e, LC_EBUSY, 0, "this host has %u connections that read", h->readers);
	} else {
		(void)snprintf(h->name, sizeof h->name, "%s", g->who.name);
		h->readers++;
		g->host = h;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return rc;
}

/* From now on it is in the status. */
static int
enter(struct guest *g, struct lc_err *e)
{
	struct server *s = g->server;
	struct host *h;

	(void)pthread_mutex_lock(&s->lock);
	h = find_host(s, g->key);
	if (h != NULL) {
		(void)snprintf(h->name, sizeof h->name, "%s", g->who.name);
		(void)snprintf(h->at, sizeof h->at, "%s", session_peer_name(g->session));
		h->connected++;
		h->since_ns = clock_wall_ns();
		lc_err_clear(&h->err);
		g->host = h;
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (h == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	look_at_room(g);
	return transfer_lines(g->store, note_line, g, e);
}

/* What a host with a limit has on the way is over in a second. */
static uint32_t
byte_window(const struct server *s)
{
	if (s->host_rate == 0 || s->host_rate > BYTE_WINDOW)
		return BYTE_WINDOW;
	return s->host_rate < BYTE_WINDOW_MIN ? BYTE_WINDOW_MIN : (uint32_t)s->host_rate;
}

static int
welcome(struct guest *g, const struct hello *m, struct lc_err *e)
{
	struct receiver_events events = {
	    .arg = g, .emit = emit, .committed = on_committed, .refused = on_refused};
	struct welcome w = {.version = MESSAGE_VERSION,
	                    .byte_window = byte_window(g->server),
	                    .wall_ns = clock_wall_ns()};
	int64_t ahead = m->wall_ns - w.wall_ns;
	struct lc_buf body = {0};
	char text[32];
	int rc;

	if (g->reading) {
		rc = lender_new(g->store, emit, g, &g->lender, e);
		rc = rc != 0 ? rc : enter_reader(g, e);
	} else {
		rc = receiver_new(g->store, &events, &g->receiver, e);
		rc = rc != 0 ? rc : enter(g, e);
	}
	memcpy(w.store, store_id(g->store), sizeof w.store);
	if (rc == 0 && message_put_welcome(&body, &w) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc
	             : session_emit(g->session, MESSAGE_WELCOME, &(struct lc_span){body.p, body.n},
	                            1, e);
	lc_buf_free(&body);
	if (rc == 0) {
		log_info("%s: %s from %s", g->who.name,
		         m->pairing   ? "paired"
		         : m->reading ? "connected to read"
		                      : "connected",
		         session_peer_name(g->session));
	}
	if (rc == 0 && (ahead > SESSION_SKEW_NS || ahead < -SESSION_SKEW_NS))
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
	g->reading = rc == 0 && m.reading;
	g->greeted = true; /* in this order */
	rc = rc != 0 || m.pairing ? rc : let_in(g, &m, e);
	if (rc == 0 && g->unwelcome.code != LC_OK && !m.reading) {
		rc = g->unwelcome.code;
		*e = g->unwelcome;
	}
	if (rc == 0 && m.pairing) /* uses up the token */
		rc = let_in(g, &m, e);
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

	if (g->lender != NULL && shared_spoilt(g->shared))
		(void)lc_fail(&g->broken, LC_EIO, 0, "the store failed; connect again");
	if (g->broken.code != LC_OK)
		rc = 0; /* see below */
	else if (g->lender != NULL)
		rc = lender_message(g->lender, type, body, e);
	else
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

	if (rc == 0 && g->receiver != NULL) {
		look_at_room(g);
		rc = tell_room(g, e);
	}
	if (rc == 0 && g->broken.code != LC_OK) {
		rc = g->broken.code;
		*e = g->broken;
	}
	return say_why(g, rc, e);
}

static void
on_leave(void *arg)
{
	struct guest *g = arg;

	receiver_free(g->receiver);
	lender_free(g->lender);
	if (g->broken.code != LC_OK && g->shared != NULL)
		stores_spoil(g->server->stores, g->shared);
	stores_give(g->server->stores, g->shared, !g->reading);
	g->receiver = NULL;
	g->lender = NULL;
	g->shared = NULL;
	g->store = NULL;
}

/* ---- on the loop ---- */

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

static void
on_ended(void *arg, const struct lc_err *why)
{
	struct guest *g = arg;
	struct server *s = g->server;
	struct host *h = g->host;
	struct session_stats st;
	char name[64];

	if (why->code != LC_OK)
		log_warn("%s (%s): the connection ended: %s", name_of(g, name),
		         session_peer_name(g->session), why->msg);
	else
		log_info("%s: left", name_of(g, name));
	session_stats(g->session, &st);
	(void)pthread_mutex_lock(&s->lock);
	if (h != NULL && g->reading) {
		h->readers--;
		h->received += st.received;
	} else if (h != NULL) {
		h->connected--;
		h->since_ns = clock_wall_ns();
		h->received += st.received;
		if (why->code != LC_OK)
			h->err = *why;
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
	(void)say_why(g, -1, why);
	session_end(g->session, why);
}

/* One connection of a host that writes at a time: a new one takes the place of one that went
 * silent.  Which kind it is the host has yet to say. */
static int
on_opened(void *arg, const uint8_t peer[CHANNEL_KEY_SIZE], struct lc_err *e)
{
	struct guest *g = arg, *x;
	struct server *s = g->server;
	struct writer_entry w;
	unsigned same = 0;

	g->open = true;
	g->since_ns = clock_mono_ns();
	memcpy(g->key, peer, CHANNEL_KEY_SIZE);
	g->known = writers_find(g->dir, peer, &w, NULL) == 0;
	if (g->known)
		(void)snprintf(g->name, sizeof g->name, "%s", w.name);
	TAILQ_FOREACH (x, &s->guests, entry) {
		struct lc_err gone = LC_ERR_INIT;

		if (x == g || !x->open || memcmp(x->key, peer, CHANNEL_KEY_SIZE) != 0)
			continue;
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
	return 0;
}

static const struct session_role guest_role = {.opened = on_opened,
                                               .message = on_message,
                                               .settle = on_settle,
                                               .leave = on_leave,
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

/* A place for one more; the stranger that is there for longest may have to go for it. */
static bool
make_room(struct server *s)
{
	struct guest *g, *oldest = NULL;
	struct lc_err why = LC_ERR_INIT;
	unsigned strangers = 0;

	TAILQ_FOREACH (g, &s->guests, entry) {
		if (g->known || g->host != NULL || g->sent_away)
			continue;
		strangers++;
		if (oldest == NULL)
			oldest = g;
	}
	if (s->nguests >= GUESTS_MAX + STRANGERS_MAX)
		return false;
	if (strangers >= STRANGERS_MAX) {
		(void)lc_fail(&why, LC_EBUSY, 0, "it had not said who it is, and others came");
		send_away(oldest, &why);
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
	if (s->host_rate > 0)
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
	struct lc_err why = LC_ERR_INIT;
	struct writer_entry w;

	if (g->sent_away || !g->open)
		return; /* the session has a limit for the handshake */
	if (!g->greeted && now - g->since_ns > patience * LC_NS_PER_MS)
		(void)lc_fail(&why, LC_ETIMEDOUT, 0, "it did not say who it is");
	if (g->host != NULL && now - g->looked_ns > REVOKED_NS) {
		g->looked_ns = now;
		if (writers_find(s->dir, g->key, &w, &why) != LC_EACCES)
			lc_err_clear(&why);
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

	for (g = TAILQ_FIRST(&s->guests); g != NULL; g = next) {
		next = TAILQ_NEXT(g, entry);
		if (look)
			g->looked_ns = 0;
		look_at_guest(s, g, now);
	}
	if (s->waiting)
		turn_away(s, "out of memory");
}

/* Hosts that do not come belong into the status, too. */
static int
know_hosts(struct server *s, struct lc_err *e)
{
	struct writer_entry *list = NULL;
	size_t i, n = 0;
	int rc = writers_list(s->dir, &list, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		struct host *h = list[i].revoked ? NULL : find_host(s, list[i].key);

		if (h != NULL)
			(void)snprintf(h->name, sizeof h->name, "%s", list[i].name);
		else if (!list[i].revoked)
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

static void
on_handle_closed(uv_handle_t *h)
{
	struct server *s = h->data;

	s->handles--;
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

/* ---- status ---- */

/* Under the lock: bytes, with those of the connections that it has. */
static uint64_t
received_of(const struct host *h, const struct server *s)
{
	uint64_t received = h->received;
	const struct guest *g;
	struct session_stats st;

	TAILQ_FOREACH (g, &s->guests, entry) {
		if (g->host != h)
			continue;
		session_stats(g->session, &st);
		received += st.received;
	}
	return received;
}

void
server_hosts(struct server *s, void (*visit)(void *arg, const struct server_host *h), void *arg)
{
	const struct host *h;

	(void)pthread_mutex_lock(&s->lock);
	TAILQ_FOREACH (h, &s->hosts, entry) {
		const struct host_vm *vms = (const struct host_vm *)(const void *)h->vms.p;
		struct server_host x = {.name = h->name,
		                        .key = h->key,
		                        .connected = h->connected > 0,
		                        .since_ns = h->since_ns,
		                        .received = received_of(h, s),
		                        .points = h->points,
		                        .refused = h->refused,
		                        .kept = h->kept,
		                        .room = h->room,
		                        .vms = h->vms.n / sizeof *vms};
		size_t i;

		for (i = 0; i < x.vms; i++)
			x.last_ns = vms[i].last_ns > x.last_ns ? vms[i].last_ns : x.last_ns;
		visit(arg, &x);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

static void
print_host(struct host *h, const struct server *s, int64_t wall, FILE *f)
{
	const struct host_vm *vms = (const struct host_vm *)(const void *)h->vms.p;
	size_t i, n = h->vms.n / sizeof *vms;
	char print[FINGERPRINT_MAX], hex[33], when[40];

	(void)fprintf(f, "{\"name\": ");
	cli_json_string(f, h->name);
	(void)fprintf(f, ", \"fingerprint\": \"%s\", \"connected\": %s, \"since\": ",
	              fingerprint(print, h->key), h->connected > 0 ? "true" : "false");
	if (h->since_ns == 0)
		(void)fprintf(f, "null");
	else
		(void)fprintf(f, "\"%s\"", clock_format_utc(when, sizeof when, h->since_ns));
	(void)fprintf(f, ", \"address\": ");
	cli_json_string(f, h->at);
	(void)fprintf(f,
	              ", \"received_bytes\": %" PRIu64 ", \"points\": %" PRIu64
	              ", \"refused\": %" PRIu64 ", \"stored_bytes\": %" PRIu64
	              ", \"quota_bytes\": %" PRIu64 ", \"error\": ",
	              received_of(h, s), h->points, h->refused, h->kept, h->room);
	if (h->err.code == LC_OK)
		(void)fprintf(f, "null");
	else
		cli_json_string(f, h->err.msg);
	(void)fprintf(f, ",\n   \"vms\": [");
	for (i = 0; i < n; i++) {
		(void)fprintf(
		    f,
		    "%s{\"vm\": \"%s\", \"time\": \"%s\", \"age_s\": %.3f, \"points\": %" PRIu64
		    "}",
		    i == 0 ? "" : ",\n    ", lc_hex(hex, vms[i].id, 16),
		    clock_format_utc(when, sizeof when, vms[i].last_ns),
		    (double)(wall > vms[i].last_ns ? wall - vms[i].last_ns : 0) / 1e9,
		    vms[i].points);
	}
	(void)fprintf(f, "]}");
}

void
server_status(struct server *s, FILE *f)
{
	char print[FINGERPRINT_MAX], when[40];
	int64_t wall = clock_wall_ns();
	struct host *h;

	(void)fprintf(f, "{\"role\": \"replica\", \"pid\": %ld, \"time\": \"%s\", \"dir\": ",
	              (long)getpid(), clock_format_utc(when, sizeof when, wall));
	cli_json_string(f, s->dir);
	(void)fprintf(f, ", \"fingerprint\": \"%s\", \"port\": %u,\n \"hosts\": [",
	              fingerprint(print, s->identity.public), server_port(s));
	(void)pthread_mutex_lock(&s->lock);
	TAILQ_FOREACH (h, &s->hosts, entry) {
		(void)fprintf(f, "%s", h == TAILQ_FIRST(&s->hosts) ? "" : ",\n  ");
		print_host(h, s, wall, f);
	}
	(void)pthread_mutex_unlock(&s->lock);
	(void)fprintf(f, "]}\n");
}

unsigned
server_guests(const struct server *s)
{
	return s->nguests;
}

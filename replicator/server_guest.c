/*
 * One connection of a host, as far as it is worked on by a worker: HELLO, its store, then what the
 * receiver or the lender makes of its messages.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replicator/gifts.h"
#include "replicator/lender.h"
#include "replicator/message.h"
#include "replicator/receiver.h"
#include "replicator/server_internal.h"
#include "replicator/stores.h"
#include "replicator/throttle.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/keyring.h"

#define READERS_MAX 4u /* connections of one host that read */
#define BYTE_WINDOW (8u << 20)
#define BYTE_WINDOW_MIN (256u << 10)
#define STORE_WAIT_MS 2000
#define BROUGHT_MAX 64u           /* data keys that one host may add to a store that it shares */
#define ROOM_NS (5 * LC_NS_PER_S) /* how often the size of a store is looked at */

static int
emit(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	struct guest *g = arg;

	return session_emit(g->session, type, spans, n, e);
}

/* By our clock.  Anything may have been said: what no clock can show is now. */
static int64_t
by_our_clock(const struct guest *g, int64_t source_ns)
{
	bool skewed = g->ahead_ns > SESSION_SKEW_NS || g->ahead_ns < -SESSION_SKEW_NS;
	int64_t now = clock_wall_ns(), at;

	if (__builtin_sub_overflow(source_ns, skewed ? g->ahead_ns : 0, &at) || at > now)
		return now;
	return at;
}

/* What came late is as old as the instant that it shows.  Who says that it is older than what came
 * before, or of a time to come, has a wrong clock: then it is as old as it is here. */
static int64_t
instant_here(const struct guest *g, const struct host_vm *x, int64_t source_ns)
{
	int64_t at = by_our_clock(g, source_ns);

	return at > x->last_ns ? at : clock_wall_ns();
}

static void
on_committed(void *arg, const uint8_t vm[16], const uint8_t point[16], int64_t source_ns)
{
	struct guest *g = arg;
	struct host *h = g->host;
	char vm_hex[33], point_hex[33];
	struct host_vm *x;

	(void)pthread_mutex_lock(&g->server->lock);
	h->points++;
	g->points++;
	x = host_vm_find(h, vm);
	if (x != NULL) {
		x->last_ns = instant_here(g, x, source_ns);
		x->points++;
	}
	if (h->err.code != LC_OK && memcmp(h->err_vm, vm, sizeof h->err_vm) == 0)
		lc_err_clear(&h->err); /* it was taken after all */
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
	bool tell;

	(void)pthread_mutex_lock(&g->server->lock);
	h->refused++;
	h->err = *why;
	memcpy(h->err_vm, vm, sizeof h->err_vm);
	tell = hush_tells(&h->refusals, g->who.name); /* a captured host could go on for ever */
	(void)pthread_mutex_unlock(&g->server->lock);
	if (tell && lc_is_zero(vm, 16))
		log_warn("%s: refused what was to mend its store: %s", g->who.name, why->msg);
	else if (tell)
		log_warn("%s: VM %.8s: refused a point: %s", g->who.name, lc_hex(hex, vm, 16),
		         why->msg);
	/* After these the store takes nothing more until it is opened again. */
	if (why->code == LC_EIO || (why->code == LC_ENOSPC && !receiver_full(g->receiver)))
		g->broken = *why;
}

static void
on_damaged(void *arg, uint64_t contents, size_t lines)
{
	struct guest *g = arg;

	host_damaged(g->server, g->host, contents, lines);
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

/* The key by which the replica runs lies there, too. */
static bool
folder_is_gone(const char *dir)
{
	char *path = path_join(dir, REPLICA_KEY_FILE);
	bool gone = path != NULL && access(path, F_OK) != 0;

	lc_free(path);
	return gone;
}

static int
find_writer(struct guest *g, struct lc_err *e)
{
	int rc = writers_find(g->dir, g->key, &g->who, e);

	if (rc != LC_ENOENT || g->name[0] == '\0' || !folder_is_gone(g->dir))
		return rc;
	lc_err_clear(e);
	return lc_fail(e, LC_ENOENT, 0,
	               "what %s here said of host %s is gone: was it removed or moved, or is its "
	               "disk not mounted?",
	               g->dir, g->name);
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
		if (m->keys.n > 0) /* else it has no store yet, and joins another host's */
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
	rc = find_writer(g, e);
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

static int
old_keys(struct lc_err *e)
{
	return lc_fail(e, LC_EKEY, 0,
	               "the host's key file is an older copy: it lacks data keys that its store "
	               "here has (locum key recover, there)");
}

/*
 * Several hosts share the store.  Each may have data keys that the others lack, so none is held to
 * what another one brought: a captured one could lock them out.  Each is held to what it came with
 * before itself, as below.
 */
static int
check_own_keys(struct guest *g, struct lc_span keys, bool *news, struct lc_err *e)
{
	enum keys_change change = KEYS_SAME;
	struct lc_buf had = {0};
	int rc = writers_keys(g->dir, g->key, &had, e);

	*news = rc == LC_ENOENT;
	if (rc == 0)
		rc = keyring_compare((struct lc_span){had.p, had.n}, keys, &change, e);
	lc_buf_free(&had);
	if (rc != 0 && rc != LC_ENOENT) {
		lc_wrap(e, "the host's keys are not those that it had before");
		return rc;
	}
	if (change == KEYS_FEWER && !g->reading)
		return old_keys(e);
	*news = *news || change == KEYS_MORE;
	return 0;
}

static int
join_keys(struct guest *g, struct lc_span keys, struct lc_err *e)
{
	unsigned added = 0, left = g->who.brought < BROUGHT_MAX ? BROUGHT_MAX - g->who.brought : 0;
	bool news;
	int rc = check_own_keys(g, keys, &news, e);

	if (rc != 0 || g->reading)
		return rc;
	(void)pthread_mutex_lock(&g->server->pairing); /* others bring some, too */
	rc = transfer_join_keys(g->store, keys, left, &added, e);
	if (rc == 0 && (news || added > 0))
		rc = writers_put_keys(g->dir, &g->who, keys, added, e);
	(void)pthread_mutex_unlock(&g->server->pairing);
	if (rc == 0 && added > 0)
		log_info("%s: has a new data key", g->who.name);
	if (rc != 0)
		lc_wrap(e, "the host's keys cannot be added to its store here");
	return rc;
}

/* Every segment says which keys open it; a host whose keys are others would write what the recovery
 * code does not open.  One that has rotated has more, and they are put down before it writes. */
static int
check_keys(struct guest *g, struct lc_span keys, struct lc_err *e)
{
	enum keys_change change;
	bool shared;
	int rc = writers_share(g->dir, &g->who, &shared, e);

	if (rc != 0 || shared)
		return rc != 0 ? rc : join_keys(g, keys, e);
	rc = transfer_take_keys(g->store, keys, &change, e);
	if (rc != 0) {
		lc_wrap(e, "the host's keys are not those of its store here");
		return rc;
	}
	if (change == KEYS_FEWER && !g->reading)
		return old_keys(e);
	if (change == KEYS_MORE && !g->reading)
		log_info("%s: has a new data key", g->who.name);
	return 0;
}

static const uint16_t *
writes_as(const struct guest *g)
{
	return g->reading ? NULL : &g->who.writer;
}

/* One connection of a host waits for the one before to leave: more of them would take the workers
 * from others. */
static int
begin_entering(struct guest *g, struct lc_err *e)
{
	struct server *s = g->server;
	struct host *h;
	int rc = 0;

	(void)pthread_mutex_lock(&s->lock);
	h = host_find(s, g->key);
	if (h == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	else if (h->entering)
		rc = lc_fail(e, LC_EBUSY, 0, "this host is connected already");
	else
		h->entering = true;
	if (h != NULL && h->name[0] == '\0') /* one that has just paired */
		(void)snprintf(h->name, sizeof h->name, "%s", g->who.name);
	(void)pthread_mutex_unlock(&s->lock);
	return rc;
}

static void
end_entering(struct guest *g)
{
	struct host *h;

	(void)pthread_mutex_lock(&g->server->lock);
	h = host_find(g->server, g->key);
	if (h != NULL)
		h->entering = false;
	(void)pthread_mutex_unlock(&g->server->lock);
}

/* Whom a host replaces may neither read what it is told nor hang up, and then has the store for as
 * long as its last words are waited for; and the token that let this one in is used by now. */
static int64_t
patience_ms(const struct guest *g)
{
	int64_t words = g->server->limits.linger_ms;

	return STORE_WAIT_MS + (g->pairing ? words > 0 ? words : SESSION_LINGER_MS : 0);
}

/* The VM is not another host's of that store any more. */
static void
on_given(void *arg, const uint8_t vm[16])
{
	struct guest *g = arg;
	struct writer_entry *list = NULL;
	size_t i, n = 0;

	if (writers_list(g->dir, &list, &n, NULL) != 0)
		return;
	for (i = 0; i < n; i++) {
		if (strcmp(list[i].store, g->who.store) == 0 && list[i].writer != g->who.writer)
			host_vm_forget(g->server, list[i].key, vm);
	}
	lc_free(list);
}

/* Its first point makes it.  One that was here is not begun anew, with all points sent again, for
 * as long as it may come back: its disk may just not be mounted. */
static int
check_new(struct guest *g, const char *dir, struct lc_err *e)
{
	struct host *h;
	bool was;

	(void)pthread_mutex_lock(&g->server->lock);
	h = host_find(g->server, g->key);
	was = h != NULL && h->kept_known;
	(void)pthread_mutex_unlock(&g->server->lock);
	return was ? lc_fail(e, LC_ENOENT, 0,
	                     "%s: the store of host %s is gone: was it removed or moved, or is its "
	                     "disk not mounted? (If it is lost, restart the replica)",
	                     dir, g->who.name)
	           : 0;
}

static int
open_store(struct guest *g, struct lc_span keys, struct lc_err *e)
{
	char *dir = path_join(g->dir, g->who.store);
	struct stores *all = g->server->stores;
	int rc;

	if (dir == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = stores_take(all, dir, writes_as(g), patience_ms(g), &g->shared, e);
	if (rc == LC_ENOENT && !g->reading) {
		uint8_t domain[16];

		lc_err_clear(e);
		rc = check_new(g, dir, e);
		rc = rc != 0 ? rc : keyring_domain_of(keys, domain, e);
		if (rc == 0 && memcmp(domain, g->who.domain, sizeof domain) != 0)
			rc = lc_fail(e, LC_EKEY, 0, "the host's keys are of another key domain");
		rc = rc != 0 ? rc : transfer_make(dir, keys, e);
		rc = rc != 0 ? rc
		             : stores_take(all, dir, writes_as(g), STORE_WAIT_MS, &g->shared, e);
	}
	lc_free(dir);
	if (rc != 0)
		return rc;
	g->store = shared_store(g->shared);
	rc = g->reading && keys.n == 0 ? 0 : check_keys(g, keys, e);
	return rc != 0 ? rc : gifts_take(g->dir, &g->who, g->store, on_given, g, e);
}

static void
look_at_room(struct guest *g)
{
	uint64_t max = atomic_load(&g->max), kept = 0;
	struct host *h = g->host;
	int64_t now = clock_mono_ns();
	bool more, known;

	if (g->room_ns != 0 && now - g->room_ns < ROOM_NS && max == g->max_seen)
		return;
	more = g->room_ns != 0 && (max == 0 || max > g->max_seen);
	g->room_ns = now;
	g->max_seen = max;
	known = host_bytes(g->dir, &g->who, g->store, &kept);
	if (!known) /* the catalog is broken, which the next message shows */
		kept = max;
	receiver_room(g->receiver, max == 0 ? UINT64_MAX : kept < max ? max - kept : 0);
	(void)pthread_mutex_lock(&g->server->lock);
	h->kept = known ? kept : h->kept;
	h->kept_known = h->kept_known || known;
	if (more && h->err.code == LC_ENOSPC) /* it is sent again now */
		lc_err_clear(&h->err);
	(void)pthread_mutex_unlock(&g->server->lock);
}

/* Now and then, in steps of a hundredth: a host cannot see by itself that its room ends. */
static int
tell_room(struct guest *g, struct lc_err *e)
{
	struct room m = {.max = atomic_load(&g->max)};
	struct host *h = g->host;
	struct lc_buf body = {0};
	uint64_t step;
	int rc;

	if (m.max == 0 && !g->room_is_told)
		return 0;
	(void)pthread_mutex_lock(&g->server->lock);
	m.used = h->kept;
	(void)pthread_mutex_unlock(&g->server->lock);
	step = m.used > g->room_told ? m.used - g->room_told : g->room_told - m.used;
	if (g->room_is_told && m.max == g->max_told && step < m.max / 100 + 1)
		return 0;
	g->room_told = m.used;
	g->max_told = m.max;
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
	int64_t at;

	(void)e;
	if (p != NULL && l->head.n > 0 && point_decode(l->head, p, &sealed, NULL) == 0) {
		(void)pthread_mutex_lock(&g->server->lock);
		x = host_vm_find(g->host, l->vm);
		at = by_our_clock(g, p->source_ns);
		if (x != NULL && at > x->last_ns)
			x->last_ns = at;
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
	h = host_find(s, g->key);
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

/* When it comes and when it goes. */
static void
note_visit(const struct guest *g)
{
	struct lc_err e = LC_ERR_INIT;
	struct host *h = g->host;
	struct visits v;

	if (h == NULL || g->reading || g->pairing || (g->brief && g->points == 0))
		return;
	(void)pthread_mutex_lock(&g->server->lock);
	if (g->brief)
		visits_command(&h->visits, clock_wall_ns());
	else
		visits_agent(&h->visits, clock_wall_ns());
	v = h->visits;
	(void)pthread_mutex_unlock(&g->server->lock);
	if (store_failed(g->store)) /* its folder may be gone, and would be made for this */
		return;
	if (visits_save(g->server->dir, g->key, &v, &e) != 0)
		log_warn("%s: %s", g->who.name, e.msg);
}

/* From now on it is in the status. */
static int
enter(struct guest *g, struct lc_err *e)
{
	struct server *s = g->server;
	struct host *h;

	(void)pthread_mutex_lock(&s->lock);
	h = host_find(s, g->key);
	if (h != NULL) {
		(void)snprintf(h->name, sizeof h->name, "%s", g->who.name);
		(void)snprintf(h->at, sizeof h->at, "%s", session_peer_name(g->session));
		h->connected++;
		h->since_ns = clock_wall_ns();
		h->revoked = h->file_bad = false;
		lc_err_clear(&h->err);
		g->host = h;
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (h == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	note_visit(g);
	look_at_room(g);
	server_look(s, g->who.store, g->store);
	return transfer_lines_of(g->store, g->who.writer, note_line, g, e);
}

/* What a host with a limit has on the way is over in a second. */
static uint32_t
byte_window(const struct guest *g)
{
	uint64_t rate = throttle_rate(g->throttle);

	if (rate == 0 || rate > BYTE_WINDOW)
		return BYTE_WINDOW;
	return rate < BYTE_WINDOW_MIN ? BYTE_WINDOW_MIN : (uint32_t)rate;
}

/* Whether the log is told that it is here.  A token is good once. */
static bool
tells_of_its_coming(struct guest *g, const struct hello *m)
{
	struct host *h = g->host;
	bool tells = m->pairing;

	(void)pthread_mutex_lock(&g->server->lock);
	tells = tells || hush_tells(&h->comings, g->who.name);
	(void)pthread_mutex_unlock(&g->server->lock);
	return tells;
}

/* A clock may say anything; what it is ahead can be taken with either sign. */
static int64_t
ahead_of(int64_t theirs, int64_t ours)
{
	int64_t ahead;

	if (__builtin_sub_overflow(theirs, ours, &ahead) || ahead == INT64_MIN)
		return theirs < ours ? -INT64_MAX : INT64_MAX;
	return ahead;
}

static int
welcome(struct guest *g, const struct hello *m, struct lc_err *e)
{
	struct receiver_events events = {.arg = g,
	                                 .writer = g->who.writer,
	                                 .emit = emit,
	                                 .committed = on_committed,
	                                 .refused = on_refused,
	                                 .damaged = on_damaged};
	struct welcome w = {.version = MESSAGE_VERSION,
	                    .inspects = true,
	                    .byte_window = byte_window(g),
	                    .wall_ns = clock_wall_ns()};
	int64_t ahead = ahead_of(m->wall_ns, w.wall_ns);
	struct lc_buf body = {0};
	char text[32];
	bool tell;
	int rc;

	g->ahead_ns = ahead;
	if (g->reading) {
		rc = lender_new(g->store, g->who.writer, emit, g, &g->lender, e);
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
	tell = rc == 0 && tells_of_its_coming(g, m);
	if (tell) {
		log_info("%s: %s from %s", g->who.name,
		         m->pairing   ? "paired"
		         : m->reading ? "connected to read"
		                      : "connected",
		         session_peer_name(g->session));
	}
	if (tell && (ahead > SESSION_SKEW_NS || ahead < -SESSION_SKEW_NS))
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
	/* Who joins has no store to send from yet; its keys are what it reads first. */
	g->reading = rc == 0 && (m.reading || (m.pairing && m.keys.n == 0));
	g->pairing = m.pairing;
	g->brief = m.brief;
	g->greeted = true; /* in this order */
	rc = rc != 0 || m.pairing ? rc : let_in(g, &m, e);
	if (rc == 0 && g->unwelcome.code != LC_OK && !g->reading) {
		rc = g->unwelcome.code;
		*e = g->unwelcome;
	}
	if (rc == 0 && m.pairing) /* uses up the token */
		rc = let_in(g, &m, e);
	if (rc == 0 && g->reading) {
		rc = open_store(g, m.keys, e);
	} else if (rc == 0 && (rc = begin_entering(g, e)) == 0) {
		rc = open_store(g, m.keys, e);
		end_entering(g);
	}
	rc = rc != 0 ? rc : welcome(g, &m, e);
	explicit_bzero(m.secret, sizeof m.secret);
	return rc;
}

int
guest_say_why(struct guest *g, int rc, const struct lc_err *why)
{
	struct lc_buf body = {0};

	if (rc != 0 && message_put_refused(&body, SESSION_STREAM, why) == 0)
		(void)session_emit(g->session, MESSAGE_REFUSED, &(struct lc_span){body.p, body.n},
		                   1, NULL);
	lc_buf_free(&body);
	return rc;
}

/* Another connection to it may have found out that it can't go on, or it is to be lent. */
static void
look_at_store(struct guest *g)
{
	if (g->shared == NULL || g->broken.code != LC_OK)
		return;
	if (shared_spoilt(g->shared))
		(void)lc_fail(&g->broken, LC_EIO, 0, "the store failed; connect again");
	else
		(void)shared_wanted(g->shared, &g->broken);
}

int
guest_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct guest *g = arg;
	int rc;

	look_at_store(g);
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
	return guest_say_why(g, rc, e);
}

int
guest_settle(void *arg, struct lc_err *e)
{
	struct guest *g = arg;
	int rc = 0;

	look_at_store(g);
	if (g->receiver != NULL && g->broken.code == LC_OK)
		rc = receiver_settle(g->receiver, e);
	if (rc == 0 && g->receiver != NULL && g->broken.code == LC_OK) {
		look_at_room(g);
		rc = tell_room(g, e);
	}
	if (rc == 0 && g->broken.code != LC_OK) {
		rc = g->broken.code;
		*e = g->broken;
	}
	return guest_say_why(g, rc, e);
}

/* What it has brought counts while it is away, too. */
static void
note_size(const struct guest *g)
{
	struct host *h = g->host;
	uint64_t kept;

	if (h == NULL || g->receiver == NULL || !host_bytes(g->dir, &g->who, g->store, &kept))
		return;
	(void)pthread_mutex_lock(&g->server->lock);
	h->kept = kept;
	(void)pthread_mutex_unlock(&g->server->lock);
}

void
guest_leave(void *arg)
{
	struct guest *g = arg;

	note_visit(g);
	note_size(g);
	receiver_free(g->receiver);
	lender_free(g->lender);
	/* Not only a point that was refused tells it: what flushed for something else may have met
	 * it, and another one who is in the store would keep it as it is. */
	if (g->shared != NULL && ((g->broken.code != LC_OK && g->broken.code != LC_EBUSY) ||
	                          (g->store != NULL && store_failed(g->store)))) {
		stores_spoil(g->server->stores, g->shared);
		atomic_store(&g->server->spoilt, true);
	}
	stores_give(g->server->stores, g->shared, writes_as(g));
	g->receiver = NULL;
	g->lender = NULL;
	g->shared = NULL;
	g->store = NULL;
}

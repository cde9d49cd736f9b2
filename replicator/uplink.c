/*
 *   WAITING ─► RESOLVING ─► CONNECTED (a session: connecting, handshake, HELLO, then the sender's)
 *      ▲                        │
 *      └────── it ended ────────┘   stopped: ─► (gone), when the session and the timer are
 */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "replicator/message.h"
#include "replicator/session.h"
#include "replicator/throttle.h"
#include "replicator/uplink.h"
#include "replicator/uplink_news.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"

#define RETRY_MIN_MS 500u
#define RETRY_MAX_MS 30000u
#define BYTE_WINDOW_MAX (64u << 20)
#define LINES_MAX 64u /* that are named when there are new points */

enum uplink_state { UPLINK_WAITING = 0, UPLINK_RESOLVING, UPLINK_CONNECTED, UPLINK_STOPPED };

struct uplink {
	struct uplink_opts o;
	struct peer peer;
	struct identity identity;
	char host[64];
	uint8_t secret[32];
	enum uplink_state state;
	uv_timer_t timer;
	uv_getaddrinfo_t resolve;
	unsigned retry_ms;
	struct session *session;
	unsigned tries;          /* in a row: another address of the replica each time */
	uint64_t received, sent; /* bytes, of sessions that ended */
	uint64_t heard;          /* answers that had come when the timer was set ... */
	uint64_t chunk_bytes;    /* ... what had gone to it ... */
	bool was_welcome;        /* ... and whether it had said that */
	bool timer_closed, resolving;
	void (*stopped)(void *arg);
	void *arg;

	/* The worker's while a session works; the loop looks under the lock. */
	struct sender *sender;
	struct sender_care care;
	struct lc_buf heads; /* of struct witness_point; that came so far ... */
	bool heads_short;    /* ... but for some, for want of memory */
	size_t named;        /* bytes of `only` that the sender knows of */
	struct uplink_news news;
	pthread_mutex_t lock; /* what follows */
	struct sender_stats stats;
	int64_t ahead_ns; /* the replica's clock before ours */
	struct room room; /* of this host there; max 0: not told */
	bool welcome, told_up, idle, told_idle;
	struct lc_buf only;  /* ids of VMs to send; empty: all */
	bool wake;           /* not yet passed on: ... */
	struct lc_buf lines; /* ... of these lines, 16 bytes each; none: of all */
};

static void connect_later(struct uplink *u);

/* ---- on a worker ---- */

static int
emit(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	struct uplink *u = arg;

	return session_emit(u->session, type, spans, n, e);
}

/* A clock may say anything; what it is ahead can be taken with either sign. */
static void
note_clock(struct uplink *u, int64_t wall_ns)
{
	int64_t ahead = clock_since(wall_ns, clock_wall_ns());

	(void)pthread_mutex_lock(&u->lock);
	u->ahead_ns = ahead == INT64_MIN ? -INT64_MAX : ahead;
	(void)pthread_mutex_unlock(&u->lock);
}

/* What a POINT entry is; false: not one of ours, or the key is not here. */
static bool
open_entry(struct uplink *u, const uint8_t *line, const uint8_t *vm, struct lc_span entry,
           struct witness_point *out)
{
	struct point *p = lc_alloc(sizeof *p);
	bool ok = p != NULL && transfer_open(u->o.store, entry, p, NULL) == 0;

	if (ok) {
		memcpy(out->line, line, 16);
		memcpy(out->vm, vm, 16);
		memcpy(out->id, p->id, 16);
		out->source_ns = p->source_ns;
		out->counter = p->counter;
		(void)snprintf(out->name, sizeof out->name, "%s", p->vm);
		ok = p->opened;
		point_done(p);
	}
	lc_free(p);
	return ok;
}

static void
on_head(void *arg, const uint8_t *line, const uint8_t *vm, struct lc_span entry)
{
	struct uplink *u = arg;
	struct witness_point at;

	if (line != NULL) {
		if (entry.n > 0 && open_entry(u, line, vm, entry, &at) &&
		    lc_buf_append(&u->heads, &at, sizeof at) != 0)
			u->heads_short = true;
		return;
	}
	/* Where it is not known what it has, nothing is said: the next connection tells again. */
	if (!u->heads_short && store_has_key(u->o.store))
		news_heads(&u->news, &u->heads);
}

static void
on_committed(void *arg, const struct transfer_point *p, int64_t wall_ns)
{
	struct uplink *u = arg;
	struct witness_point at = {.counter = 0};

	note_clock(u, wall_ns);
	(void)open_entry(u, p->line, p->vm, p->entry, &at);
	news_committed(&u->news, &at, p, wall_ns);
}

static void
on_failed(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	news_failed(&((struct uplink *)arg)->news, vm, why);
}

static void
on_damaged(void *arg, const struct sender_damage *d)
{
	news_damaged(&((struct uplink *)arg)->news, d);
}

/* Tell the sender of VMs that it does not know of yet. */
static int
name_vms(struct uplink *u, struct lc_err *e)
{
	struct lc_buf more = {0};
	size_t i;
	int rc = 0;

	(void)pthread_mutex_lock(&u->lock);
	if (u->only.n > u->named &&
	    lc_buf_append(&more, u->only.p + u->named, u->only.n - u->named) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)pthread_mutex_unlock(&u->lock);
	for (i = 0; rc == 0 && i < more.n; i += 16)
		rc = sender_only(u->sender, more.p + i, e);
	u->named += more.n;
	lc_buf_free(&more);
	return rc;
}

static int
begin_sending(struct uplink *u, struct lc_span body, struct lc_err *e)
{
	struct sender_events events = {.arg = u,
	                               .emit = emit,
	                               .head = on_head,
	                               .committed = on_committed,
	                               .failed = on_failed,
	                               .damaged = on_damaged};
	const struct sender_mending mending = {.care = &u->care,
	                                       .writer = u->o.mend_writer,
	                                       .first = u->o.mend_first,
	                                       .every_ms = u->o.mend_every_ms,
	                                       .from = u->o.mend_from};
	struct welcome w;
	int rc = message_get_welcome(body, &w, e);

	if (rc == 0 && w.version != MESSAGE_VERSION)
		rc = lc_fail(e, LC_EVERSION, 0,
		             "the replica speaks version %u of the protocol, this host version %u",
		             w.version, MESSAGE_VERSION);
	if (rc == 0)
		note_clock(u, w.wall_ns);
	if (rc == 0 && w.byte_window > BYTE_WINDOW_MAX)
		w.byte_window = BYTE_WINDOW_MAX;
	rc = rc != 0 ? rc : sender_new(u->o.store, w.byte_window, &events, &u->sender, e);
	u->named = 0;
	if (rc == 0 && w.inspects)
		sender_mend(u->sender, &mending);
	rc = rc != 0 ? rc : name_vms(u, e);
	rc = rc != 0 ? rc : sender_start(u->sender, e);
	(void)pthread_mutex_lock(&u->lock);
	u->welcome = rc == 0;
	u->room = (struct room){.max = 0}; /* not told where there is none */
	(void)pthread_mutex_unlock(&u->lock);
	return rc;
}

static int
take_room(struct uplink *u, struct lc_span body, struct lc_err *e)
{
	struct room m;
	int rc = message_get_room(body, &m, e);
	bool more;

	if (rc != 0)
		return rc;
	(void)pthread_mutex_lock(&u->lock);
	more = u->room.max != 0 && (m.max == 0 || m.max > u->room.max);
	u->room = m;
	(void)pthread_mutex_unlock(&u->lock);
	if (more) { /* what was refused may go by now */
		sender_wake(u->sender, NULL);
		news_roomier(&u->news);
	}
	return 0;
}

static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct uplink *u = arg;
	struct refused m;

	if (type == MESSAGE_ROOM && u->sender != NULL)
		return take_room(u, body, e);
	if (u->sender != NULL)
		return sender_message(u->sender, type, body, e);
	if (type == MESSAGE_WELCOME)
		return begin_sending(u, body, e);
	if (type == MESSAGE_REFUSED && message_get_refused(body, &m, e) == 0)
		return refused_error(&m, e);
	return lc_fail(e, LC_EPEER, 0, "%s before WELCOME", message_name(type));
}

static int
on_settle(void *arg, struct lc_err *e)
{
	struct uplink *u = arg;
	struct sender_stats stats;
	struct lc_buf lines;
	bool wake;
	size_t i;
	int rc;

	if (u->sender == NULL)
		return 0;
	(void)pthread_mutex_lock(&u->lock);
	wake = u->wake;
	lines = u->lines;
	u->lines = (struct lc_buf){0};
	u->wake = false;
	u->idle = u->idle && !wake; /* not before what woke us was looked at */
	(void)pthread_mutex_unlock(&u->lock);
	if (wake && lines.n == 0)
		sender_wake(u->sender, NULL);
	for (i = 0; i < lines.n; i += 16)
		sender_wake(u->sender, lines.p + i);
	lc_buf_free(&lines);
	sender_rate(u->sender, throttle_rate(u->o.throttle));
	rc = name_vms(u, e);
	rc = rc != 0 ? rc : sender_pump(u->sender, e);
	sender_stats(u->sender, &stats);
	(void)pthread_mutex_lock(&u->lock);
	u->stats = stats;
	u->idle = rc == 0 && sender_idle(u->sender);
	(void)pthread_mutex_unlock(&u->lock);
	return rc;
}

static void
on_leave(void *arg)
{
	struct uplink *u = arg;

	sender_free(u->sender);
	u->sender = NULL;
	lc_buf_free(&u->heads);
	u->heads_short = false;
}

/* ---- on the loop ---- */

static unsigned
first_pause(const struct uplink *u)
{
	return u->o.retry_ms > 0 ? u->o.retry_ms : RETRY_MIN_MS;
}

static void on_wordless(uv_timer_t *t);

static int64_t
patience_ms(const struct uplink *u)
{
	return u->o.limits.welcome_ms > 0 ? u->o.limits.welcome_ms : SESSION_WELCOME_MS;
}

/* That it answers PING shows that it lives, not that it gets on. */
static void
expect_word(struct uplink *u)
{
	(void)uv_timer_start(&u->timer, on_wordless, (uint64_t)patience_ms(u), 0);
}

/* Nor do answers for other VMs, for one that gets none. */
static bool
owes_one(const struct uplink *u, int64_t owed_ns, struct lc_err *e)
{
	int64_t ms = u->o.limits.owed_ms > 0 ? u->o.limits.owed_ms : SESSION_OWED_MS;

	if (owed_ns == 0 || clock_mono_ns() - owed_ns < ms * LC_NS_PER_MS)
		return false;
	(void)lc_fail(e, LC_ETIMEDOUT, 0,
	              "it is there, but has acknowledged nothing of a restore point for %lld s, "
	              "while others went on (its log, there: journalctl -u locum-replica)",
	              (long long)(ms / 1000));
	return true;
}

static void
say_wordless(const struct uplink *u, bool ready, struct lc_err *e)
{
	if (ready) {
		(void)lc_fail(e, LC_ETIMEDOUT, 0,
		              "it is there, but has acknowledged nothing for %lld s: does its "
		              "disk hang? (its log, there: journalctl -u locum-replica)",
		              (long long)(patience_ms(u) / 1000));
	} else {
		(void)lc_fail(e, LC_ETIMEDOUT, 0, "it is there, but does not say %s",
		              u->told_up ? "what it has" : "that this host is welcome");
	}
}

static void
on_wordless(uv_timer_t *t)
{
	struct uplink *u = t->data;
	struct lc_err err = LC_ERR_INIT;
	bool ready, gets_on;
	int64_t owed_ns;

	(void)pthread_mutex_lock(&u->lock);
	ready = u->stats.ready;
	gets_on = (u->welcome && !u->was_welcome) || u->stats.answers != u->heard ||
	          u->stats.chunk_bytes != u->chunk_bytes ||
	          (ready && u->idle); /* then it owes us no word */
	u->was_welcome = u->welcome;
	u->heard = u->stats.answers;
	u->chunk_bytes = u->stats.chunk_bytes;
	owed_ns = u->stats.owed_ns;
	(void)pthread_mutex_unlock(&u->lock);
	if (u->session == NULL)
		return;
	if (gets_on && !owes_one(u, owed_ns, &err)) {
		expect_word(u);
		return;
	}
	if (err.code == LC_OK)
		say_wordless(u, ready, &err);
	session_end(u->session, &err);
}

static int
on_opened(void *arg, const uint8_t peer[CHANNEL_KEY_SIZE], struct lc_err *e)
{
	struct uplink *u = arg;
	struct hello m = {.version = MESSAGE_VERSION,
	                  .pairing = u->o.secret != NULL,
	                  .brief = u->o.brief,
	                  .wall_ns = clock_wall_ns()};
	struct lc_buf body = {0}, keys = {0};
	int rc;

	(void)peer; /* the handshake would have failed with another one */
	expect_word(u);
	memcpy(m.domain, transfer_domain(u->o.store), sizeof m.domain);
	memcpy(m.secret, u->secret, sizeof m.secret);
	(void)snprintf(m.name, sizeof m.name, "%s", u->host);
	rc = transfer_keys(u->o.store, &keys, e);
	m.keys = (struct lc_span){keys.p, keys.n};
	if (rc == 0 && message_put_hello(&body, &m) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0
	         ? rc
	         : session_emit(u->session, MESSAGE_HELLO, &(struct lc_span){body.p, body.n}, 1, e);
	explicit_bzero(m.secret, sizeof m.secret);
	if (body.p != NULL)
		explicit_bzero(body.p, body.n);
	lc_buf_free(&body);
	lc_buf_free(&keys);
	return rc;
}

static void
on_settled(void *arg)
{
	struct uplink *u = arg;
	bool up, was_idle, idle, more;

	(void)pthread_mutex_lock(&u->lock);
	up = u->welcome && !u->told_up;
	u->told_up = u->welcome;
	was_idle = u->told_idle;
	u->told_idle = false; /* not before what led there is told */
	(void)pthread_mutex_unlock(&u->lock);
	if (up) {
		u->retry_ms = first_pause(u);
		u->tries--; /* this address is a good one */
		if (u->o.events.up != NULL)
			u->o.events.up(u->o.events.arg);
	}
	news_tell(&u->news, &u->o.events);
	(void)pthread_mutex_lock(&u->lock);
	idle = u->told_idle = u->idle && !u->wake;
	more = u->stats.more;
	(void)pthread_mutex_unlock(&u->lock);
	if (more && u->session != NULL)
		session_poke(u->session);
	if (idle && !was_idle && u->o.events.idle != NULL)
		u->o.events.idle(u->o.events.arg);
}

static void
free_if_over(struct uplink *u)
{
	void (*stopped)(void *arg) = u->stopped;

	if (u->state != UPLINK_STOPPED || !u->timer_closed || u->session != NULL)
		return;
	u->stopped = NULL;
	if (stopped != NULL)
		stopped(u->arg);
	/* That can't be called off, and may take a minute: nobody is to wait for it. */
	if (u->resolving)
		return;
	(void)pthread_mutex_destroy(&u->lock);
	news_done(&u->news);
	lc_buf_free(&u->lines);
	lc_buf_free(&u->only);
	sender_care_done(&u->care);
	identity_forget(&u->identity);
	explicit_bzero(u->secret, sizeof u->secret);
	lc_free(u);
}

static void
down(struct uplink *u, const struct lc_err *why)
{
	struct lc_err err = *why;
	char at[ADDRESS_MAX];
	bool again = !u->o.once && u->state != UPLINK_STOPPED;

	if (err.code == LC_OK)
		(void)lc_fail(&err, LC_EPEER, 0, "it hung up");
	lc_wrap(&err, "replica %s at %s", u->peer.name, address_text(at, &u->peer.at));
	if (u->state != UPLINK_STOPPED) {
		u->state = UPLINK_WAITING;
		if (again)
			connect_later(u);
		if (u->o.events.down != NULL)
			u->o.events.down(u->o.events.arg, &err, again);
	}
	free_if_over(u);
}

static void
on_ended(void *arg, const struct lc_err *why)
{
	struct uplink *u = arg;
	struct session_stats st;

	session_stats(u->session, &st);
	u->received += st.received;
	u->sent += st.sent;
	u->session = NULL;
	news_tell(&u->news, &u->o.events);
	(void)pthread_mutex_lock(&u->lock);
	u->welcome = u->told_up = u->idle = u->told_idle = false;
	u->stats = (struct sender_stats){0};
	u->heard = u->chunk_bytes = 0;
	u->was_welcome = false;
	(void)pthread_mutex_unlock(&u->lock);
	if (u->state != UPLINK_STOPPED)
		(void)uv_timer_stop(&u->timer);
	down(u, why);
}

static const struct session_role uplink_role = {.opened = on_opened,
                                                .message = on_message,
                                                .settle = on_settle,
                                                .settled = on_settled,
                                                .leave = on_leave,
                                                .ended = on_ended};

/* A name may stand for addresses of which some lead nowhere: each in its turn. */
static const struct sockaddr *
pick_address(struct uplink *u, const struct addrinfo *list)
{
	const struct addrinfo *a;
	unsigned n = 1, i;

	for (a = list->ai_next; a != NULL; a = a->ai_next)
		n++;
	i = u->tries++ % n;
	for (a = list; i > 0; i--)
		a = a->ai_next;
	return a->ai_addr;
}

static void
on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
	struct uplink *u = req->data;
	struct session_opts o = {.loop = u->o.loop,
	                         .workers = u->o.workers,
	                         .secret = u->identity.secret,
	                         .remote = u->peer.key,
	                         .role = &uplink_role,
	                         .arg = u,
	                         .limits = u->o.limits,
	                         .sending = u->o.throttle};
	struct lc_err err = LC_ERR_INIT;

	u->resolving = false;
	if (u->state == UPLINK_STOPPED) {
		uv_freeaddrinfo(res);
		free_if_over(u);
		return;
	}
	if (status != 0) {
		(void)lc_fail(&err, LC_EPEER, 0, "looking up %s: %s", u->peer.at.host,
		              uv_strerror(status));
		down(u, &err);
	} else if (session_new(&o, &u->session, &err) != 0) {
		down(u, &err);
	} else {
		u->state = UPLINK_CONNECTED;
		session_connect(u->session, pick_address(u, res));
	}
	uv_freeaddrinfo(res);
}

static void
begin_connecting(struct uplink *u)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct lc_err err = LC_ERR_INIT;
	int urc;

	u->state = UPLINK_RESOLVING;
	u->resolve.data = u;
	urc = uv_getaddrinfo(u->o.loop, &u->resolve, on_resolved, u->peer.at.host, u->peer.at.port,
	                     &hints);
	if (urc != 0) {
		(void)lc_fail(&err, LC_EPEER, 0, "looking up %s: %s", u->peer.at.host,
		              uv_strerror(urc));
		down(u, &err);
	} else {
		u->resolving = true;
	}
}

static void
on_timer(uv_timer_t *t)
{
	begin_connecting(t->data);
}

static void
connect_later(struct uplink *u)
{
	(void)uv_timer_start(&u->timer, on_timer, u->retry_ms, 0);
	u->retry_ms = u->retry_ms * 2 < RETRY_MAX_MS ? u->retry_ms * 2 : RETRY_MAX_MS;
}

int
uplink_start(const struct uplink_opts *o, struct uplink **out, struct lc_err *e)
{
	struct uplink *u = lc_alloc(sizeof *u);

	if (u == NULL || lc_buf_append(&u->only, o->only, o->nonly * sizeof *o->only) != 0) {
		lc_free(u);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	u->o = *o;
	u->peer = *o->peer;
	u->identity = *o->identity;
	(void)snprintf(u->host, sizeof u->host, "%s", o->host);
	if (o->secret != NULL)
		memcpy(u->secret, o->secret, sizeof u->secret);
	news_init(&u->news);
	(void)pthread_mutex_init(&u->lock, NULL);
	u->retry_ms = first_pause(u);
	(void)uv_timer_init(o->loop, &u->timer);
	u->timer.data = u;
	(void)uv_timer_start(&u->timer, on_timer, 0, 0); /* failures come from the loop */
	*out = u;
	return 0;
}

/* Under the lock.  Many lines, or no memory for one: all. */
static void
note_line(struct uplink *u, const uint8_t *line)
{
	bool all = u->wake && u->lines.n == 0;

	if (line == NULL || all || u->lines.n >= (size_t)16 * LINES_MAX ||
	    lc_buf_append(&u->lines, line, 16) != 0)
		lc_buf_free(&u->lines);
}

void
uplink_wake(struct uplink *u, const uint8_t *line)
{
	(void)pthread_mutex_lock(&u->lock);
	note_line(u, line);
	u->wake = true;
	u->told_idle = false;
	(void)pthread_mutex_unlock(&u->lock);
	if (u->session != NULL)
		session_poke(u->session);
}

int
uplink_also(struct uplink *u, const uint8_t vm[16], struct lc_err *e)
{
	size_t i;
	int rc = 0;

	(void)pthread_mutex_lock(&u->lock);
	for (i = 0; i < u->only.n && memcmp(u->only.p + i, vm, 16) != 0; i += 16)
		;
	if (i == u->only.n && i > 0 && lc_buf_append(&u->only, vm, 16) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)pthread_mutex_unlock(&u->lock);
	return rc;
}

void
uplink_look(struct uplink *u)
{
	struct transfer_making list[TRANSFER_MAKING_MAX];
	size_t n = 0;
	int64_t look_ns;

	if (u->session == NULL)
		return;
	transfer_making(u->o.store, list, &n);
	(void)pthread_mutex_lock(&u->lock);
	look_ns = u->stats.look_ns;
	(void)pthread_mutex_unlock(&u->lock);
	if (n > 0 || (look_ns != 0 && clock_mono_ns() >= look_ns))
		session_poke(u->session);
}

bool
uplink_idle(const struct uplink *u)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&u->lock;
	bool idle;

	(void)pthread_mutex_lock(lock);
	idle = u->idle && !u->wake && u->told_idle; /* what led there was told, too */
	(void)pthread_mutex_unlock(lock);
	return idle;
}

void
uplink_stats(const struct uplink *u, struct uplink_stats *out)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&u->lock;
	struct session_stats st;

	*out = (struct uplink_stats){0};
	(void)pthread_mutex_lock(lock);
	out->up = u->welcome;
	out->sender = u->stats;
	out->received = u->received;
	out->sent = u->sent;
	out->ahead_ns = u->ahead_ns;
	out->room_used = u->room.used;
	out->room_max = u->room.max;
	(void)pthread_mutex_unlock(lock);
	if (u->session == NULL)
		return;
	session_stats(u->session, &st);
	out->received += st.received;
	out->sent += st.sent;
}

static void
on_timer_closed(uv_handle_t *h)
{
	struct uplink *u = h->data;

	u->timer_closed = true;
	free_if_over(u);
}

void
uplink_stop(struct uplink *u, void (*stopped)(void *arg), void *arg)
{
	assert(u->state != UPLINK_STOPPED);
	u->stopped = stopped;
	u->arg = arg;
	u->state = UPLINK_STOPPED;
	uv_close((uv_handle_t *)&u->timer, on_timer_closed);
	if (u->resolving)
		(void)uv_cancel((uv_req_t *)&u->resolve);
	if (u->session != NULL)
		session_end(u->session, NULL);
}

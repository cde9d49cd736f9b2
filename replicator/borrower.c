/*
 *   RESOLVING ─► CONNECTING (each address in its turn) ─► OPEN ─► OVER
 *
 * A call puts a request into the queue and waits.  The session's worker sends what is queued, and
 * gives answers to the requests in the order in which they were sent.
 */
#include <assert.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <uv.h>

#include "replicator/borrower_internal.h"
#include "replicator/message.h"
#include "store/base/clock.h"
#include "store/base/workers.h"
#include "store/segment.h"

#define MESSAGE_HEAD_SIZE 8u
#define STOP_LOOK_NS (LC_NS_PER_S / 5)
#define SLOTS 128u /* contents that were asked for, or came and were not taken: 8 MiB */

TAILQ_HEAD(request_list, request);

enum slot_state { SLOT_FREE = 0, SLOT_ASKED, SLOT_HERE };

struct slot { /* a content that was asked for */
	enum slot_state state;
	uint8_t id[CHUNK_ID_SIZE];
	int rc; /* here: whether it can be had */
	struct fetched what;
	struct lc_buf payload;
	unsigned waiters;
	uint64_t used;
};

struct borrower {
	struct peer peer;
	struct identity identity;
	char host[64];
	struct session_limits limits;
	uint8_t domain[16];
	uint8_t secret[TOKEN_SECRET_SIZE]; /* zeros unless it pairs */
	bool pairing;
	struct lc_buf keys;

	pthread_t thread;
	uv_loop_t loop;
	uv_async_t wake;
	uv_timer_t timer; /* runs while there is a session */
	struct workers *workers;
	struct session *session;
	struct addrinfo *addresses, *next; /* next: to be tried */

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t cond;
	struct request_list queued, sent;
	bool welcome, over, stopping;
	struct lc_err err; /* why it is over */
	uint64_t received;
	int64_t word_ns; /* its last message, or since when it owes us one */
	struct slot slots[SLOTS];
	uint64_t tick;
	bool (*stop)(void *arg);
	void *stop_arg;
};

/* ---- requests ---- */

/* Under the lock. */
static void
finish(struct borrower *b, struct request *r, int rc, const struct lc_err *err)
{
	(void)pthread_cond_broadcast(&b->cond);
	if (r->own) {
		lc_buf_free(&r->body);
		lc_free(r);
		return;
	}
	r->rc = rc;
	if (rc != 0 && err != NULL)
		r->err = *err;
	r->done = true;
}

static void
fail_all(struct borrower *b, const struct lc_err *why)
{
	struct request *r;

	(void)pthread_mutex_lock(&b->lock);
	TAILQ_CONCAT(&b->sent, &b->queued, entry);
	while ((r = TAILQ_FIRST(&b->sent)) != NULL) {
		TAILQ_REMOVE(&b->sent, r, entry);
		finish(b, r, why->code, why);
	}
	b->over = true;
	b->err = *why;
	(void)pthread_cond_broadcast(&b->cond);
	(void)pthread_mutex_unlock(&b->lock);
}

/* Under the lock. */
static bool
owes(const struct borrower *b)
{
	return !TAILQ_EMPTY(&b->queued) || !TAILQ_EMPTY(&b->sent);
}

/* Under the lock. */
static void
enqueue(struct borrower *b, struct request *r)
{
	if (!owes(b))
		b->word_ns = clock_mono_ns();
	TAILQ_INSERT_TAIL(&b->queued, r, entry);
	(void)uv_async_send(&b->wake);
}

/* Under the lock.  What is waited for is still its own loop's, so who stops waits for the end of
 * that. */
static void
wait_on(struct borrower *b)
{
	if (b->stop == NULL || b->stopping) {
		(void)pthread_cond_wait(&b->cond, &b->lock);
		return;
	}
	(void)clock_wait(&b->cond, &b->lock, clock_mono_ns() + STOP_LOOK_NS);
	if (b->over || !b->stop(b->stop_arg))
		return;
	b->stopping = true;
	(void)uv_async_send(&b->wake);
}

int
borrower_ask(struct borrower *b, struct request *r, struct lc_err *e)
{
	int rc;

	(void)pthread_mutex_lock(&b->lock);
	if (b->over) {
		finish(b, r, b->err.code, &b->err);
	} else {
		enqueue(b, r);
	}
	while (!r->done)
		wait_on(b);
	rc = r->rc;
	(void)pthread_mutex_unlock(&b->lock);
	if (rc != 0 && e != NULL && e->code == LC_OK)
		*e = r->err;
	lc_buf_free(&r->body);
	return rc;
}

/* ---- on the worker ---- */

static int
on_welcome(struct borrower *b, struct lc_span body, struct lc_err *e)
{
	struct welcome w;
	int rc = message_get_welcome(body, &w, e);

	if (rc == 0 && w.version != MESSAGE_VERSION)
		rc = lc_fail(e, LC_EVERSION, 0, "the replica speaks version %u of the protocol",
		             w.version);
	if (rc != 0)
		return rc;
	(void)pthread_mutex_lock(&b->lock);
	b->welcome = true;
	(void)pthread_cond_broadcast(&b->cond);
	(void)pthread_mutex_unlock(&b->lock);
	return 0;
}

static int
on_answer(struct borrower *b, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct request *r;
	bool over = false;
	int rc;

	(void)pthread_mutex_lock(&b->lock);
	r = TAILQ_FIRST(&b->sent);
	(void)pthread_mutex_unlock(&b->lock);
	if (r == NULL)
		return lc_fail(e, LC_EPEER, 0, "%s, which nobody asked for", message_name(type));
	/* 0: it wants more; LC_EPEER: not an answer to that; else it is over. */
	rc = r->answer(r, type, body, &err);
	if (rc == LC_EPEER) {
		*e = err;
		return rc;
	}
	(void)pthread_mutex_lock(&b->lock);
	over = rc != 0;
	if (over) {
		TAILQ_REMOVE(&b->sent, r, entry);
		finish(b, r, rc > 0 ? 0 : rc, &err);
	}
	(void)pthread_mutex_unlock(&b->lock);
	return 0;
}

static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct borrower *b = arg;
	struct refused m;
	bool welcome;

	if (type == MESSAGE_REFUSED) {
		int rc = message_get_refused(body, &m, e);

		if (rc != 0 || m.stream == SESSION_STREAM)
			return rc != 0 ? rc : refused_error(&m, e);
	}
	(void)pthread_mutex_lock(&b->lock);
	welcome = b->welcome;
	b->received += body.n + MESSAGE_HEAD_SIZE;
	b->word_ns = clock_mono_ns();
	(void)pthread_mutex_unlock(&b->lock);
	if (welcome)
		return on_answer(b, type, body, e);
	if (type == MESSAGE_WELCOME)
		return on_welcome(b, body, e);
	return lc_fail(e, LC_EPEER, 0, "%s before WELCOME", message_name(type));
}

static int
on_settle(void *arg, struct lc_err *e)
{
	struct borrower *b = arg;
	struct request *r;
	int rc = 0;

	(void)pthread_mutex_lock(&b->lock);
	while (b->welcome && rc == 0 && (r = TAILQ_FIRST(&b->queued)) != NULL) {
		TAILQ_REMOVE(&b->queued, r, entry);
		TAILQ_INSERT_TAIL(&b->sent, r, entry);
		rc = session_emit(b->session, r->type, &(struct lc_span){r->body.p, r->body.n}, 1,
		                  e);
	}
	(void)pthread_mutex_unlock(&b->lock);
	return rc;
}

/* ---- on its loop ---- */

void
borrower_of_link(struct lc_err *err)
{
	switch (err->code) {
	case LC_EIO:
	case LC_ECORRUPT:
	case LC_ENOENT:
	case LC_EVERSION:
		err->code = LC_EPEER;
		break;
	default:
		break;
	}
}

static int64_t
patience_ms(const struct borrower *b)
{
	return b->limits.welcome_ms > 0 ? b->limits.welcome_ms : SESSION_WELCOME_MS;
}

/* That it answers PING shows that it lives, not that it gets on. */
static void
on_wordless(uv_timer_t *t)
{
	struct borrower *b = t->data;
	struct lc_err err = LC_ERR_INIT;
	bool welcome, late;

	(void)pthread_mutex_lock(&b->lock);
	welcome = b->welcome;
	late = (!welcome || owes(b)) &&
	       clock_mono_ns() - b->word_ns >= patience_ms(b) * LC_NS_PER_MS;
	(void)pthread_mutex_unlock(&b->lock);
	if (!late || b->session == NULL)
		return;
	if (welcome)
		(void)lc_fail(&err, LC_ETIMEDOUT, 0,
		              "it is there, but answers nothing: does its disk hang? (its log, "
		              "there: journalctl -u locum-replica)");
	else
		(void)lc_fail(&err, LC_ETIMEDOUT, 0,
		              "it is there, but does not say that this host is welcome");
	session_end(b->session, &err);
}

static int
on_opened(void *arg, const uint8_t peer[CHANNEL_KEY_SIZE], struct lc_err *e)
{
	struct borrower *b = arg;
	struct hello m = {.version = MESSAGE_VERSION,
	                  .pairing = b->pairing,
	                  .reading = !b->pairing,
	                  .wall_ns = clock_wall_ns()};
	struct lc_buf body = {0};
	int rc;

	(void)peer;
	memcpy(m.domain, b->domain, sizeof m.domain);
	memcpy(m.secret, b->secret, sizeof m.secret);
	(void)snprintf(m.name, sizeof m.name, "%s", b->host);
	m.keys = (struct lc_span){b->keys.p, b->keys.n};
	rc = message_put_hello(&body, &m) != 0
	         ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	         : session_emit(b->session, MESSAGE_HELLO, &(struct lc_span){body.p, body.n}, 1, e);
	lc_buf_free(&body);
	return rc;
}

static void connect_next(struct borrower *b, const struct lc_err *why);

static void
on_ended(void *arg, const struct lc_err *why)
{
	struct borrower *b = arg;
	struct lc_err err = *why;
	bool again, stopping;

	b->session = NULL;
	(void)pthread_mutex_lock(&b->lock);
	stopping = b->stopping;
	again = !b->welcome && !stopping;
	(void)pthread_mutex_unlock(&b->lock);
	if (err.code == LC_OK)
		(void)lc_fail(&err, stopping ? LC_ECANCELED : LC_EPEER, 0, "%s",
		              stopping ? "it is not waited for any more" : "it hung up");
	if (!again) {
		char at[ADDRESS_MAX];

		borrower_of_link(&err);
		lc_wrap(&err, "replica %s at %s", b->peer.name, address_text(at, &b->peer.at));
		fail_all(b, &err);
	}
	connect_next(b, again ? &err : NULL);
}

static const struct session_role role = {
    .opened = on_opened, .message = on_message, .settle = on_settle, .ended = on_ended};

static void
begin_word(struct borrower *b)
{
	uint64_t tick = (uint64_t)patience_ms(b) / 4 + 1;

	(void)pthread_mutex_lock(&b->lock);
	b->word_ns = clock_mono_ns();
	(void)pthread_mutex_unlock(&b->lock);
	(void)uv_timer_start(&b->timer, on_wordless, tick, tick);
}

/* why: of the one before; NULL: there is to be no other. */
static void
connect_next(struct borrower *b, const struct lc_err *why)
{
	struct session_opts o = {.loop = &b->loop,
	                         .workers = b->workers,
	                         .secret = b->identity.secret,
	                         .remote = b->peer.key,
	                         .role = &role,
	                         .arg = b,
	                         .limits = b->limits};
	struct lc_err err = why == NULL ? (struct lc_err)LC_ERR_INIT : *why;
	struct addrinfo *a = why == NULL ? NULL : b->next;
	char at[ADDRESS_MAX];

	if (a != NULL) {
		b->next = a->ai_next;
		lc_err_clear(&err);
		if (session_new(&o, &b->session, &err) == 0) {
			begin_word(b);
			session_connect(b->session, a->ai_addr);
			return;
		}
	}
	if (why != NULL) {
		lc_wrap(&err, "replica %s at %s", b->peer.name, address_text(at, &b->peer.at));
		fail_all(b, &err);
	}
	uv_close((uv_handle_t *)&b->wake, NULL); /* the loop ends */
	uv_close((uv_handle_t *)&b->timer, NULL);
}

static void
on_wake(uv_async_t *a)
{
	struct borrower *b = a->data;
	bool stopping;

	(void)pthread_mutex_lock(&b->lock);
	stopping = b->stopping;
	(void)pthread_mutex_unlock(&b->lock);
	if (b->session == NULL)
		return;
	if (stopping)
		session_end(b->session, NULL);
	else
		session_poke(b->session);
}

static void *
run(void *arg)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct borrower *b = arg;
	struct lc_err err = LC_ERR_INIT;
	int rc = getaddrinfo(b->peer.at.host, b->peer.at.port, &hints, &b->addresses);

	(void)lc_fail(&err, LC_EPEER, 0, "looking up %s: %s", b->peer.at.host,
	              rc != 0 ? gai_strerror(rc) : "no address");
	b->next = rc != 0 ? NULL : b->addresses;
	connect_next(b, &err);
	(void)uv_run(&b->loop, UV_RUN_DEFAULT);
	return NULL;
}

/* ---- begin and end ---- */

static void
borrower_free(struct borrower *b)
{
	size_t i;

	for (i = 0; i < SLOTS; i++)
		lc_buf_free(&b->slots[i].payload);
	if (b->addresses != NULL)
		freeaddrinfo(b->addresses);
	workers_free(b->workers);
	(void)uv_loop_close(&b->loop);
	(void)pthread_mutex_destroy(&b->lock);
	(void)pthread_cond_destroy(&b->cond);
	identity_forget(&b->identity);
	lc_buf_free(&b->keys);
	lc_free(b);
}

int
borrower_open(const struct borrower_opts *o, struct borrower **out, struct lc_err *e)
{
	struct borrower *b = lc_alloc(sizeof *b);
	int rc;

	if (b == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	b->peer = *o->peer;
	b->identity = *o->identity;
	b->limits = o->limits;
	b->stop = o->stop;
	b->stop_arg = o->stop_arg;
	(void)snprintf(b->host, sizeof b->host, "%s", o->host);
	b->pairing = o->secret != NULL;
	if (b->pairing)
		memcpy(b->secret, o->secret, sizeof b->secret);
	if (o->store != NULL)
		memcpy(b->domain, transfer_domain(o->store), sizeof b->domain);
	TAILQ_INIT(&b->queued);
	TAILQ_INIT(&b->sent);
	(void)pthread_mutex_init(&b->lock, NULL);
	(void)pthread_cond_init(&b->cond, NULL);
	rc = o->store == NULL ? 0 : transfer_keys(o->store, &b->keys, e);
	rc = rc != 0 ? rc : workers_new(1, &b->workers, e);
	if (uv_loop_init(&b->loop) != 0 || rc != 0) {
		rc = rc != 0 ? rc : lc_fail(e, LC_ENOMEM, 0, "out of descriptors");
		borrower_free(b);
		return rc;
	}
	(void)uv_async_init(&b->loop, &b->wake, on_wake);
	(void)uv_timer_init(&b->loop, &b->timer);
	b->wake.data = b->timer.data = b;
	if (pthread_create(&b->thread, NULL, run, b) != 0) {
		uv_close((uv_handle_t *)&b->wake, NULL);
		uv_close((uv_handle_t *)&b->timer, NULL);
		(void)uv_run(&b->loop, UV_RUN_DEFAULT);
		borrower_free(b);
		return lc_fail(e, LC_ENOMEM, 0, "no thread");
	}
	(void)pthread_mutex_lock(&b->lock);
	while (!b->welcome && !b->over)
		wait_on(b);
	rc = b->over ? b->err.code : 0;
	if (rc != 0 && e != NULL)
		*e = b->err;
	(void)pthread_mutex_unlock(&b->lock);
	if (rc != 0)
		borrower_close(b);
	else
		*out = b;
	return rc;
}

void
borrower_close(struct borrower *b)
{
	if (b == NULL)
		return;
	(void)pthread_mutex_lock(&b->lock);
	b->stopping = true;
	if (!b->over)
		(void)uv_async_send(&b->wake);
	(void)pthread_mutex_unlock(&b->lock);
	(void)pthread_join(b->thread, NULL);
	borrower_free(b);
}

uint64_t
borrower_received(struct borrower *b)
{
	uint64_t n;

	(void)pthread_mutex_lock(&b->lock);
	n = b->received;
	(void)pthread_mutex_unlock(&b->lock);
	return n;
}

int
borrower_unexpected(uint16_t type, struct lc_err *e)
{
	return lc_fail(e, LC_EPEER, 0, "%s is no answer to that", message_name(type));
}

/* ---- which are there ---- */

struct having {
	size_t n;
	uint8_t *bits;
};

static int
take_have(struct request *r, uint16_t type, struct lc_span body, struct lc_err *e)
{
	const struct having *h = r->arg;
	struct have m;

	if (type != MESSAGE_HAVE)
		return borrower_unexpected(type, e);
	if (message_get_have(body, &m, e) != 0)
		return LC_EPEER;
	if (m.n != h->n)
		return borrower_unexpected(type, e);
	memcpy(h->bits, m.bits, (m.n + 7) / 8);
	return 1;
}

/* NOLINTBEGIN(readability-non-const-parameter): the worker fills them */
int
borrower_have(struct borrower *b, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	struct having h = {.n = n, .bits = bits};
	struct request r = {.type = MESSAGE_ASK, .answer = take_have, .arg = &h};

	if (message_put_ids(&r.body, &(struct ids){(uint32_t)n, ids}) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	return borrower_ask(b, &r, e);
}

/* ---- contents ---- */

/* Under the lock.  NULL: it was not asked for. */
static struct slot *
find_slot(struct borrower *b, const uint8_t *id)
{
	size_t i;

	for (i = 0; i < SLOTS; i++) {
		if (b->slots[i].state != SLOT_FREE &&
		    memcmp(b->slots[i].id, id, CHUNK_ID_SIZE) == 0)
			return &b->slots[i];
	}
	return NULL;
}

/* Under the lock: one that is free, or holds what came longest ago; NULL: none. */
static struct slot *
take_slot(struct borrower *b, const uint8_t *id)
{
	struct slot *best = NULL;
	size_t i;

	for (i = 0; i < SLOTS; i++) {
		struct slot *x = &b->slots[i];

		if (x->state == SLOT_ASKED || x->waiters > 0)
			continue;
		if (best == NULL || x->state == SLOT_FREE ||
		    (best->state != SLOT_FREE && x->used < best->used))
			best = x;
	}
	if (best == NULL)
		return NULL;
	memcpy(best->id, id, CHUNK_ID_SIZE);
	best->state = SLOT_ASKED;
	best->payload.n = 0;
	return best;
}

/* Answers come in the order of the ids. */
static int
take_body(struct request *r, uint16_t type, struct lc_span body, struct lc_err *e)
{
	uint8_t want[CHUNK_ID_SIZE];
	struct transfer_chunk c = {.encoding = 0};
	struct borrower *b = r->arg;
	struct none none = {.code = 0};
	struct slot *x;
	int rc = 0;

	if (type == MESSAGE_NONE)
		rc = message_get_none(body, &none, e);
	else if (type == MESSAGE_BODY)
		rc = message_get_body(body, &c, e);
	else
		rc = borrower_unexpected(type, e);
	if (rc != 0)
		return LC_EPEER;
	memcpy(want, r->body.p + 4 + r->answered * CHUNK_ID_SIZE, sizeof want);
	if (memcmp(type == MESSAGE_NONE ? none.id : chunk_payload_id(c.payload), want,
	           CHUNK_ID_SIZE) != 0)
		return lc_fail(e, LC_EPEER, 0, "another chunk than was asked for");
	(void)pthread_mutex_lock(&b->lock);
	x = find_slot(b, want);
	if (x != NULL && x->state == SLOT_ASKED) {
		x->state = SLOT_HERE;
		x->used = ++b->tick;
		x->rc = none.code;
		x->what = (struct fetched){.encoding = c.encoding, .key = c.key, .n = c.payload.n};
		if (none.code == 0 && lc_buf_append(&x->payload, c.payload.p, c.payload.n) != 0)
			x->rc = LC_ENOMEM;
	}
	(void)pthread_cond_broadcast(&b->cond);
	(void)pthread_mutex_unlock(&b->lock);
	return ++r->answered < (r->body.n - 4) / CHUNK_ID_SIZE ? 0 : 1;
}

/* Under the lock: ask for the ids that were not asked for yet, as far as there are slots.  No
 * memory: nothing happens, and whoever waits finds out. */
static int
ask_for(struct borrower *b, const uint8_t *ids, size_t n)
{
	struct request *r = lc_alloc(sizeof *r);
	uint8_t list[READ_IDS_MAX * CHUNK_ID_SIZE];
	struct ids m = {.n = 0, .ids = list};
	size_t i;

	if (r == NULL || lc_buf_reserve(&r->body, 4 + sizeof list) != 0) {
		lc_free(r);
		return LC_ENOMEM;
	}
	for (i = 0; i < n && m.n < READ_IDS_MAX; i++) {
		const uint8_t *id = ids + i * CHUNK_ID_SIZE;

		if (find_slot(b, id) != NULL)
			continue;
		if (take_slot(b, id) == NULL)
			break;
		memcpy(list + (size_t)m.n++ * CHUNK_ID_SIZE, id, CHUNK_ID_SIZE);
	}
	if (m.n == 0) {
		lc_buf_free(&r->body);
		lc_free(r);
		return 0;
	}
	(void)message_put_ids(&r->body, &m); /* the room is there */
	r->type = MESSAGE_READ;
	r->answer = take_body;
	r->arg = b;
	r->own = true;
	enqueue(b, r);
	return 0;
}

/* Under the lock. */
static int
give(struct slot *x, uint8_t *payload, struct fetched *out, struct lc_err *e)
{
	int rc = x->rc;

	if (rc == 0) {
		memcpy(payload, x->payload.p, x->payload.n);
		*out = x->what;
	}
	if (x->waiters == 0) { /* who read it has it */
		x->state = SLOT_FREE;
		lc_buf_free(&x->payload);
	}
	if (rc == 0 || rc == LC_ENOMEM)
		return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (rc == LC_ENOENT)
		return lc_fail(e, LC_ENOENT, 0, "it is not there (any more)");
	return lc_fail(e, LC_ECORRUPT, 0, "it can't be read there: %s",
	               lc_code_text((enum lc_code)rc));
}

int
borrower_read(struct borrower *b, const uint8_t *ids, size_t n, uint8_t *payload,
              struct fetched *out, struct lc_err *e)
{
	struct slot *x;
	int rc = 0;

	(void)pthread_mutex_lock(&b->lock);
	/* The others are asked for with the first one that was not asked for ahead. */
	while (rc == 0 && !b->over && find_slot(b, ids) == NULL) {
		rc = ask_for(b, ids, n);
		if (rc == 0 && find_slot(b, ids) == NULL) /* all are being waited for */
			wait_on(b);
	}
	x = rc != 0 ? NULL : find_slot(b, ids);
	while (x != NULL && x->state == SLOT_ASKED && !b->over) {
		x->waiters++;
		wait_on(b);
		x->waiters--;
	}
	if (x != NULL && x->state == SLOT_HERE) {
		rc = give(x, payload, out, e);
		(void)pthread_cond_broadcast(&b->cond);
	} else if (rc != 0) {
		(void)lc_fail(e, LC_ENOMEM, 0, "out of memory");
	} else {
		rc = b->err.code;
		if (e != NULL && e->code == LC_OK)
			*e = b->err;
	}
	(void)pthread_mutex_unlock(&b->lock);
	return rc;
}

/* NOLINTEND(readability-non-const-parameter) */

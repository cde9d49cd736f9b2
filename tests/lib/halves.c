#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/message.h"
#include "store/base/clock.h"
#include "tests/lib/halves.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

static int
put(struct queue *q, uint16_t type, const struct lc_span *spans, size_t n)
{
	struct packet *p = lc_alloc(sizeof *p);
	size_t i;

	assert_non_null(p);
	p->type = type;
	for (i = 0; i < n; i++)
		assert_int_equal(lc_buf_append(&p->body, spans[i].p, spans[i].n), 0);
	TAILQ_INSERT_TAIL(q, p, entry);
	return 0;
}

static int
emit_up(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	struct halves *x = arg;

	(void)e;
	if (type == MESSAGE_CHUNK)
		x->chunk_bytes += spans[1].n;
	return put(&x->up, type, spans, n);
}

static int
emit_down(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	struct halves *x = arg;

	(void)e;
	return put(&x->down, type, spans, n);
}

static void
on_committed(void *arg, const struct transfer_point *p, int64_t wall_ns)
{
	struct halves *x = arg;

	assert_true(wall_ns > 0);
	assert_true(p->entry.n > 0);
	x->committed++;
}

static void
on_failed(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct halves *x = arg;

	(void)vm;
	x->failed++;
	x->why = *why;
}

static void
on_refused(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct halves *x = arg;

	(void)vm;
	x->refused++;
	x->why = *why;
}

static void
on_damaged(void *arg, const struct sender_damage *d)
{
	struct halves *x = arg;

	x->damage = *d;
	x->told++;
}

static void
drain(struct queue *q)
{
	struct packet *p;

	while ((p = TAILQ_FIRST(q)) != NULL) {
		TAILQ_REMOVE(q, p, entry);
		lc_buf_free(&p->body);
		lc_free(p);
	}
}

void
halves_connect(struct halves *x)
{
	struct sender_events se = {.arg = x,
	                           .emit = emit_up,
	                           .committed = on_committed,
	                           .failed = on_failed,
	                           .damaged = on_damaged};
	struct receiver_events re = {.arg = x, .emit = emit_down, .refused = on_refused};
	struct lc_err e = LC_ERR_INIT;

	must(receiver_new(x->to, &re, &x->rx, &e), &e);
	must(sender_new(x->v.s, HALVES_WINDOW, &se, &x->tx, &e), &e);
	must(sender_start(x->tx, &e), &e);
}

void
halves_hang_up(struct halves *x)
{
	sender_free(x->tx);
	receiver_free(x->rx);
	x->tx = NULL;
	x->rx = NULL;
	drain(&x->up);
	drain(&x->down);
}

void
halves_open_replica(struct halves *x)
{
	struct store_opts o = {.dir = x->dir, .mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;

	must(store_open(&o, &x->to, &e), &e);
}

void
halves_make(struct halves *x)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};

	memset(x, 0, sizeof *x);
	TAILQ_INIT(&x->up);
	TAILQ_INIT(&x->down);
	x->budget = -1;
	vault_make(&x->v, true);
	vault_open(&x->v);
	(void)snprintf(x->dir, sizeof x->dir, "%s/replica", x->v.top);
	must(transfer_keys(x->v.s, &keys, &e), &e);
	must(transfer_make(x->dir, (struct lc_span){keys.p, keys.n}, &e), &e);
	lc_buf_free(&keys);
	halves_open_replica(x);
	halves_connect(x);
}

void
halves_free(struct halves *x)
{
	halves_hang_up(x);
	store_close(x->to);
	vault_free(&x->v);
}

bool
halves_carry(struct halves *x, struct queue *q)
{
	struct lc_err e = LC_ERR_INIT;
	struct packet *p = TAILQ_FIRST(q);
	struct lc_span body;

	if (p == NULL || x->budget == 0)
		return false;
	x->budget -= x->budget > 0;
	TAILQ_REMOVE(q, p, entry);
	body = (struct lc_span){p->body.p, p->body.n};
	if (q == &x->up) {
		must(receiver_message(x->rx, p->type, body, &e), &e);
	} else {
		struct sender_stats st;

		must(sender_message(x->tx, p->type, body, &e), &e);
		must(sender_pump(x->tx, &e), &e);
		sender_stats(x->tx, &st);
		assert_true(st.unacknowledged < HALVES_WINDOW + RECORD_PAYLOAD_MAX);
	}
	lc_buf_free(&p->body);
	lc_free(p);
	return true;
}

void
halves_run(struct halves *x, uint64_t *seed)
{
	struct lc_err e = LC_ERR_INIT;

	must(sender_pump(x->tx, &e), &e);
	for (;;) {
		bool moved = false;
		uint64_t n = vault_random(seed, 8);

		while (n-- > 0 && halves_carry(x, &x->up))
			moved = true;
		must(receiver_settle(x->rx, &e), &e);
		n = vault_random(seed, 8);
		while (n-- > 0 && halves_carry(x, &x->down))
			moved = true;
		if (x->budget == 0)
			return;
		if (!moved && TAILQ_EMPTY(&x->up) && TAILQ_EMPTY(&x->down))
			return;
	}
}

struct point
halves_backup(struct halves *x, const char *vm, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(x->v.s, vm, d, 1, &p, &e), &e);
	return p;
}

void
halves_arrived(struct halves *x, const struct point *p, const struct vault_disk *d)
{
	struct store_opts o = {.dir = x->dir, .recovery_code = x->v.code};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	must(store_open(&o, &s, &e), &e);
	must(vault_compare(s, p->id, d, 1, &e), &e);
	must(vault_verify(s, p->id, &e), &e);
	store_close(s);
}

uint64_t
halves_seed(void)
{
	const char *s = getenv("LOCUM_TEST_SEED");
	uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : (uint64_t)clock_wall_ns();

	(void)printf("LOCUM_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

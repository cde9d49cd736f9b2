/*
 * Two halves of a session over a wire that is two queues: cut at seeded moments, and with a source
 * that lies.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "replicator/message.h"
#include "replicator/receiver.h"
#include "replicator/sender.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/seal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define BYTE_WINDOW (256u << 10)

struct packet {
	TAILQ_ENTRY(packet) entry;
	uint16_t type;
	struct lc_buf body;
};
TAILQ_HEAD(queue, packet);

struct site {
	struct vault v; /* the source's store, with its key */
	char dir[300];
	struct store *to;
	struct sender *tx;
	struct receiver *rx;
	struct queue up, down; /* to the replica, to the source */
	uint64_t chunk_bytes;  /* carried, over all sessions */
	unsigned committed, failed, refused;
	struct lc_err why; /* the last failure or refusal */
	int64_t budget;    /* messages until the wire is cut; < 0: never */
};

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
	struct site *x = arg;

	(void)e;
	if (type == MESSAGE_CHUNK)
		x->chunk_bytes += spans[1].n;
	return put(&x->up, type, spans, n);
}

static int
emit_down(void *arg, uint16_t type, const struct lc_span *spans, size_t n, struct lc_err *e)
{
	struct site *x = arg;

	(void)e;
	return put(&x->down, type, spans, n);
}

static void
on_committed(void *arg, const struct transfer_point *p, int64_t wall_ns)
{
	struct site *x = arg;

	assert_true(wall_ns > 0);
	assert_true(p->entry.n > 0);
	x->committed++;
}

static void
on_failed(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct site *x = arg;

	(void)vm;
	x->failed++;
	x->why = *why;
}

static void
on_refused(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct site *x = arg;

	(void)vm;
	x->refused++;
	x->why = *why;
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

static void
connect_up(struct site *x)
{
	struct sender_events se = {
	    .arg = x, .emit = emit_up, .committed = on_committed, .failed = on_failed};
	struct receiver_events re = {.arg = x, .emit = emit_down, .refused = on_refused};
	struct lc_err e = LC_ERR_INIT;

	must(receiver_new(x->to, &re, &x->rx, &e), &e);
	must(sender_new(x->v.s, BYTE_WINDOW, &se, &x->tx, &e), &e);
	must(sender_start(x->tx, &e), &e);
}

static void
hang_up(struct site *x)
{
	sender_free(x->tx);
	receiver_free(x->rx);
	x->tx = NULL;
	x->rx = NULL;
	drain(&x->up);
	drain(&x->down);
}

static void
open_replica(struct site *x)
{
	struct store_opts o = {.dir = x->dir, .mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;

	must(store_open(&o, &x->to, &e), &e);
}

static void
make_site(struct site *x)
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
	open_replica(x);
	connect_up(x);
}

static void
free_site(struct site *x)
{
	hang_up(x);
	store_close(x->to);
	vault_free(&x->v);
}

/* Carry one message of a queue; false: there is none, or the wire is cut. */
static bool
carry(struct site *x, struct queue *q)
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
		assert_true(st.unacknowledged < BYTE_WINDOW + RECORD_PAYLOAD_MAX);
	}
	lc_buf_free(&p->body);
	lc_free(p);
	return true;
}

/* Until nothing moves any more.  seed: which side goes first is drawn. */
static void
run(struct site *x, uint64_t *seed)
{
	struct lc_err e = LC_ERR_INIT;

	must(sender_pump(x->tx, &e), &e);
	for (;;) {
		bool moved = false;
		uint64_t n = vault_random(seed, 8);

		while (n-- > 0 && carry(x, &x->up))
			moved = true;
		must(receiver_settle(x->rx, &e), &e);
		n = vault_random(seed, 8);
		while (n-- > 0 && carry(x, &x->down))
			moved = true;
		if (x->budget == 0)
			return;
		if (!moved && TAILQ_EMPTY(&x->up) && TAILQ_EMPTY(&x->down))
			return;
	}
}

static struct point
backup(struct site *x, const char *vm, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(x->v.s, vm, d, 1, &p, &e), &e);
	return p;
}

static void
replica_has(struct site *x, const struct point *p, const struct vault_disk *d)
{
	struct store_opts o = {.dir = x->dir, .recovery_code = x->v.code};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	must(store_open(&o, &s, &e), &e);
	must(vault_compare(s, p->id, d, 1, &e), &e);
	must(vault_verify(s, p->id, &e), &e);
	store_close(s);
}

/* ---- tests ---- */

#define VMS 5u
#define POINTS 4u
#define WINDOWS 3000u

static uint64_t
seed_of_run(void)
{
	const char *s = getenv("LOCUM_TEST_SEED");
	uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : (uint64_t)clock_wall_ns();

	(void)printf("LOCUM_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static void
several_vms_go_side_by_side(void **state)
{
	const size_t windows = UNDER_VALGRIND ? 200 : WINDOWS;
	struct vault_disk d[VMS][POINTS];
	struct point p[VMS][POINTS];
	uint64_t seed = seed_of_run();
	char name[16];
	struct site x;
	size_t v, i;

	(void)state;
	make_site(&x);
	for (i = 0; i < POINTS; i++) {
		for (v = 0; v < VMS; v++) {
			(void)snprintf(name, sizeof name, "vm%zu", v);
			d[v][i] = i == 0 ? vault_disk("vda", windows)
			                 : vault_disk_copy(&d[v][i - 1]);
			d[v][i].codes[i] = 10 * v + i + 1;
			d[v][i].codes[windows - 1] = 1000 + i; /* of all VMs the same */
			p[v][i] = backup(&x, name, &d[v][i]);
		}
		if (i == 1) { /* what comes while the session lives */
			run(&x, &seed);
			assert_true(sender_idle(x.tx));
		}
		sender_wake(x.tx, NULL);
	}
	run(&x, &seed);
	assert_true(sender_idle(x.tx));
	assert_int_equal(x.committed, VMS * POINTS);
	assert_int_equal(x.failed + x.refused, 0);
	for (v = 0; v < VMS; v++) {
		for (i = 0; i < POINTS; i++) {
			replica_has(&x, &p[v][i], &d[v][i]);
			vault_disk_free(&d[v][i]);
		}
	}
	free_site(&x);
}

/* Cut after cut: it gets there, and no cut costs more than what was on the way. */
static void
cuts_cost_no_more_than_the_byte_window(void **state)
{
	struct vault_disk d = vault_disk("vda", WINDOWS);
	uint64_t seed = seed_of_run(), whole;
	unsigned cuts = 0;
	struct point p;
	struct site x;
	size_t i;

	(void)state;
	make_site(&x);
	for (i = 0; i < 600; i++)
		d.codes[i * 5] = 5 * (i + 1); /* none compresses: 38 MiB */
	p = backup(&x, "web01", &d);
	for (;;) {
		x.budget = 1 + (int64_t)vault_random(&seed, 100);
		run(&x, &seed);
		if (x.budget != 0 && sender_idle(x.tx))
			break;
		hang_up(&x);
		cuts++;
		if (cuts % 7 == 0) { /* and the replica was stopped meanwhile */
			store_close(x.to);
			open_replica(&x);
		}
		connect_up(&x);
	}
	whole = (uint64_t)600 * WINDOW_SIZE;
	(void)printf("%u cuts, %llu of %llu bytes again\n", cuts,
	             (unsigned long long)(x.chunk_bytes - whole), (unsigned long long)whole);
	assert_true(cuts > 5);
	assert_true(x.chunk_bytes - whole <= (cuts + 1) * (uint64_t)(BYTE_WINDOW + WINDOW_SIZE));
	replica_has(&x, &p, &d);
	vault_disk_free(&d);
	free_site(&x);
}

static void
one_vm_alone_when_told_so(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	uint64_t seed = 1;
	struct point p, q;
	struct site x;

	(void)state;
	make_site(&x);
	d.codes[0] = 3;
	p = backup(&x, "web01", &d);
	q = backup(&x, "db", &d);
	must(sender_only(x.tx, q.vm_id, &e), &e);
	run(&x, &seed);
	assert_true(sender_idle(x.tx));
	assert_int_equal(x.committed, 1);
	replica_has(&x, &q, &d);
	(void)p;
	vault_disk_free(&d);
	free_site(&x);
}

/* A damaged chunk at the source: its VM waits, the others go on. */
static void
damage_at_the_source_holds_up_one_vm(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct vault_piece chunk;
	uint64_t seed = 1;
	struct point p;
	struct site x;

	(void)state;
	make_site(&x);
	d.codes[0] = 3;
	(void)backup(&x, "web01", &d);
	d.codes[0] = 4;
	p = backup(&x, "db", &d);
	vault_close(&x.v);
	assert_true(vault_piece_of(x.v.dir, RECORD_CHUNK, 0, &chunk));
	vault_flip(x.v.dir, &chunk, 200, 1);
	hang_up(&x);
	vault_open(&x.v);
	connect_up(&x);
	run(&x, &seed);
	assert_true(sender_idle(x.tx));
	assert_int_equal(x.failed, 1);
	assert_int_equal(x.why.code, LC_ECORRUPT);
	assert_int_equal(x.committed, 1);
	replica_has(&x, &p, &d);
	/* Tried again it is the same failure: the replica was told that the first try is over. */
	sender_wake(x.tx, NULL);
	run(&x, &seed);
	assert_int_equal(x.failed, 2);
	assert_int_equal(x.why.code, LC_ECORRUPT);
	assert_int_equal(x.refused, 0);
	vault_disk_free(&d);
	free_site(&x);
}

static int
say(struct site *x, uint16_t type, const struct lc_buf *b, struct lc_err *e)
{
	return receiver_message(x->rx, type, (struct lc_span){b->p, b->n}, e);
}

/* The packet of that type that the honest source would send next. */
static struct packet *
next_up(struct site *x, uint16_t type)
{
	struct packet *p;

	TAILQ_FOREACH (p, &x->up, entry) {
		if (p->type == type)
			return p;
	}
	fail_msg("no %s is on the way", message_name(type));
	return NULL;
}

/* ---- deltas ---- */

static void
a_delta_goes_as_a_delta(void **state)
{
	struct vault_disk d = vault_disk("vda", 8);
	uint64_t seed = seed_of_run(), before;
	struct point p[3];
	struct site x;
	size_t i;

	(void)state;
	make_site(&x);
	for (i = 0; i < 8; i++)
		d.codes[i] = 5 * (i + 1);
	p[0] = backup(&x, "web01", &d);
	run(&x, &seed);
	before = x.chunk_bytes;
	d.codes[2] += VAULT_EDIT;
	d.codes[3] += 2 * VAULT_EDIT;
	p[1] = backup(&x, "web01", &d);
	sender_wake(x.tx, NULL);
	run(&x, &seed);
	assert_int_equal(x.committed, 2);
	assert_in_range(x.chunk_bytes - before, 1, 1500);
	replica_has(&x, &p[1], &d);
	for (i = 0; i < 2; i++)
		point_done(&p[i]);
	vault_disk_free(&d);
	free_site(&x);
}

/* The point with the base was dropped before it was sent. */
static void
bases_go_with_what_needs_them(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	uint64_t seed = seed_of_run();
	struct point p;
	struct site x;

	(void)state;
	make_site(&x);
	d.codes[0] = 5;
	d.codes[1] = 10;
	p = backup(&x, "web01", &d);
	d.codes[0] += VAULT_EDIT;
	d.codes[1] += VAULT_EDIT;
	must(store_drop(x.v.s, p.id, NULL), &x.why); /* chunks stay */
	p = backup(&x, "web01", &d);
	d.codes[0] += VAULT_EDIT;
	p = backup(&x, "web01", &d);
	run(&x, &seed);
	assert_int_equal(x.failed + x.refused, 0);
	replica_has(&x, &p, &d);
	vault_disk_free(&d);
	free_site(&x);
}

/* Bases that are of another VM, whose points were dropped before they were sent, and are not all
 * there: two go with the windows that need them. */
static void
bases_of_another_vm_go_too(void **state)
{
	struct vault_disk d = vault_disk("vda", 12), sibling = vault_disk("vda", 12);
	uint64_t seed = seed_of_run(), before;
	struct point first, p;
	struct site x;
	size_t i;

	(void)state;
	make_site(&x);
	hang_up(&x);
	vault_close(&x.v);
	x.v.similar_bytes = 1u << 20;
	vault_open(&x.v);
	connect_up(&x);
	for (i = 0; i < 12; i++) {
		d.codes[i] = 5 * (i + 10);
		sibling.codes[i] = i < 6 ? vault_mix(d.codes[i], 7) : 0;
	}
	first = backup(&x, "web01", &d);
	p = backup(&x, "web02", &sibling);
	must(store_drop(x.v.s, first.id, NULL), &x.why);
	before = x.chunk_bytes;
	run(&x, &seed);
	assert_int_equal(x.failed + x.refused, 0);
	assert_int_equal(x.committed, 1);
	assert_in_range(x.chunk_bytes - before, 7 * WINDOW_SIZE, 7 * WINDOW_SIZE + 6000);
	replica_has(&x, &p, &sibling);
	point_done(&first);
	point_done(&p);
	vault_disk_free(&d);
	vault_disk_free(&sibling);
	free_site(&x);
}

/* What changed before lies in a chunk of its own, that no map names: it went, and need not go
 * again. */
static void
a_layer_goes_before_what_needs_it(void **state)
{
	struct vault_disk d = vault_disk("vda", 1);
	uint64_t seed = seed_of_run(), before;
	struct point p;
	struct site x;

	(void)state;
	make_site(&x);
	d.codes[0] = 5;
	p = backup(&x, "web01", &d);
	point_done(&p);
	run(&x, &seed);
	d.codes[0] += 20 * VAULT_EDIT;
	p = backup(&x, "web01", &d);
	point_done(&p);
	sender_wake(x.tx, NULL);
	run(&x, &seed);
	before = x.chunk_bytes;
	d.codes[0] += 10 * VAULT_EDIT;
	p = backup(&x, "web01", &d);
	sender_wake(x.tx, NULL);
	run(&x, &seed);
	assert_int_equal(x.failed + x.refused, 0);
	assert_int_equal(x.committed, 3);
	assert_in_range(x.chunk_bytes - before, 1000, 2200); /* 3300 are 30 changes */
	replica_has(&x, &p, &d);
	point_done(&p);
	vault_disk_free(&d);
	free_site(&x);
}

/* What is whole here may be a delta there, from before it was found to be bad here. */
static void
a_base_that_is_a_delta_there_is_sent_whole(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	uint64_t seed = seed_of_run();
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece chunk;
	struct damage bad = {0};
	struct point p[2];
	struct site x;

	(void)state;
	make_site(&x);
	d.codes[0] = 5;
	(void)backup(&x, "web01", &d);
	d.codes[0] += VAULT_EDIT;
	p[0] = backup(&x, "web01", &d);
	run(&x, &seed);
	assert_int_equal(x.committed, 2);
	vault_close(&x.v);
	assert_true(vault_piece_of(x.v.dir, RECORD_CHUNK, 1, &chunk));
	assert_true(chunk_is_delta(chunk.r.encoding));
	vault_flip(x.v.dir, &chunk, 200, 1);
	hang_up(&x);
	vault_open(&x.v);
	bad.segment = chunk.r.segment;
	bad.offset = chunk.off;
	bad.length = chunk.n;
	must(store_condemn(x.v.s, &bad, 1, NULL, &e), &e);
	(void)backup(&x, "web01", &d); /* now it is whole */
	d.codes[0] += VAULT_EDIT;
	p[1] = backup(&x, "web01", &d);
	connect_up(&x);
	run(&x, &seed);
	assert_int_equal(x.failed + x.refused, 0);
	replica_has(&x, &p[1], &d);
	d.codes[0] -= VAULT_EDIT;
	replica_has(&x, &p[0], &d);
	vault_disk_free(&d);
	free_site(&x);
}

static void
a_delta_without_its_base_ends_the_stream(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct packet *q;
	uint64_t seed = 1;
	struct site x;

	(void)state;
	make_site(&x);
	d.codes[1] = 5;
	(void)backup(&x, "web01", &d);
	run(&x, &seed);
	d.codes[1] += VAULT_EDIT;
	(void)backup(&x, "web01", &d);
	sender_wake(x.tx, NULL);
	must(sender_pump(x.tx, &e), &e);
	assert_true(carry(&x, &x.up)); /* BEGIN */
	assert_true(carry(&x, &x.up)); /* OFFER */
	while (carry(&x, &x.down))
		;
	must(sender_pump(x.tx, &e), &e);
	q = next_up(&x, MESSAGE_CHUNK);
	q->body.p[12 + CHUNK_HEAD_SIZE] ^= 1; /* the id of its base */
	must(say(&x, MESSAGE_CHUNK, &q->body, &e), &e);
	assert_int_equal(x.refused, 1);
	assert_int_equal(x.why.code, LC_ENOENT);
	vault_disk_free(&d);
	free_site(&x);
}

/* ---- a source that lies ---- */

/* A site with one point whose BEGIN and OFFER were taken and whose chunk was asked for. */
static void
make_offered(struct site *x, struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;

	make_site(x);
	*d = vault_disk("vda", 4);
	d->codes[1] = 4;
	(void)backup(x, "web01", d);
	assert_true(carry(x, &x->up)); /* HEADS */
	while (carry(x, &x->down))
		;
	assert_true(carry(x, &x->up)); /* BEGIN */
	assert_true(carry(x, &x->up)); /* OFFER */
	while (carry(x, &x->down))
		; /* WANT: now CHUNK, ROWS and COMMIT are on the way */
	must(receiver_settle(x->rx, &e), &e);
}

static void
a_chunk_nobody_asked_for_ends_the_session(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct packet *p;
	struct site x;

	(void)state;
	make_offered(&x, &d);
	p = next_up(&x, MESSAGE_CHUNK);
	p->body.p[12] ^= 1; /* its id */
	assert_int_equal(say(&x, MESSAGE_CHUNK, &p->body, &e), LC_EPEER);
	vault_disk_free(&d);
	free_site(&x);
	make_offered(&x, &d);
	p = next_up(&x, MESSAGE_CHUNK);
	lc_err_clear(&e);
	must(say(&x, MESSAGE_CHUNK, &p->body, &e), &e);
	assert_int_equal(say(&x, MESSAGE_CHUNK, &p->body, &e), LC_EPEER); /* twice */
	vault_disk_free(&d);
	free_site(&x);
}

static void
rows_without_their_chunk_end_the_stream(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct site x;

	(void)state;
	make_offered(&x, &d);
	must(say(&x, MESSAGE_ROWS, &next_up(&x, MESSAGE_ROWS)->body, &e), &e);
	assert_int_equal(x.refused, 1);
	assert_int_equal(x.why.code, LC_ENOENT);
	must(say(&x, MESSAGE_COMMIT, &next_up(&x, MESSAGE_COMMIT)->body, &e), &e); /* is too late */
	must(receiver_settle(x.rx, &e), &e);
	assert_int_equal(TAILQ_FIRST(&x.down)->type, MESSAGE_REFUSED);
	vault_disk_free(&d);
	free_site(&x);
}

static void
order_is_kept_or_the_session_ends(void **state)
{
	static const uint16_t not_for_a_replica[] = {
	    MESSAGE_WANT, MESSAGE_HEAD, MESSAGE_HEADS_END, MESSAGE_COMMITTED, MESSAGE_TAKEN, 9,
	    999};
	struct lc_buf stream9 = {0};
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct packet *p;
	struct site x;
	size_t i;

	(void)state;
	make_offered(&x, &d);
	for (i = 0; i < sizeof not_for_a_replica / sizeof not_for_a_replica[0]; i++)
		assert_int_equal(
		    receiver_message(x.rx, not_for_a_replica[i], (struct lc_span){0}, NULL),
		    LC_EPEER);
	p = next_up(&x, MESSAGE_COMMIT);
	must(lc_buf_append(&stream9, p->body.p, p->body.n), &e);
	lc_put32(stream9.p, 9);
	assert_int_equal(say(&x, MESSAGE_COMMIT, &stream9, NULL), LC_EPEER);
	must(say(&x, MESSAGE_COMMIT, &p->body, &e), &e);
	assert_int_equal(say(&x, MESSAGE_COMMIT, &p->body, NULL), LC_EPEER);
	must(receiver_settle(x.rx, &e), &e); /* its rows never came */
	assert_int_equal(x.refused, 1);
	assert_int_equal(x.why.code, LC_ECORRUPT);
	lc_buf_free(&stream9);
	vault_disk_free(&d);
	free_site(&x);
}

/* Every message, cut at every length and with every byte changed: never a crash, never a point that
 * is not the source's. */
static void
mangled_messages_make_no_point(void **state)
{
	static const uint16_t types[] = {MESSAGE_CHUNK, MESSAGE_ROWS, MESSAGE_COMMIT};
	const size_t step = UNDER_VALGRIND ? 5 : 1;
	struct vault_disk d;
	struct site x;
	size_t i, n;

	(void)state;
	for (i = 0; i < sizeof types / sizeof types[0]; i++) {
		for (n = 0;; n += step) {
			struct store_stats st;
			struct lc_buf b = {0};
			struct packet *p;
			bool over;

			make_offered(&x, &d);
			p = next_up(&x, types[i]);
			assert_int_equal(lc_buf_append(&b, p->body.p, p->body.n), 0);
			over = n >= b.n || n >= 150;
			if (!over) {
				b.p[n] ^= 0x40;
				lc_buf_free(&p->body);
				p->body = b;
				while ((p = TAILQ_FIRST(&x.up)) != NULL &&
				       say(&x, p->type, &p->body, NULL) == 0) {
					TAILQ_REMOVE(&x.up, p, entry);
					lc_buf_free(&p->body);
					lc_free(p);
				}
				(void)receiver_settle(x.rx, NULL);
				assert_int_equal(store_stats(x.to, &st, NULL), 0);
				/* A changed nonce, key number or ciphertext is for the key to
				 * see; bytes 4 to 8 of a COMMIT say nothing. */
				if (types[i] == MESSAGE_ROWS ||
				    (types[i] == MESSAGE_COMMIT && (n < 4 || n >= 8)))
					assert_int_equal(st.points, 0);
			} else {
				lc_buf_free(&b);
			}
			vault_disk_free(&d);
			free_site(&x);
			if (over)
				break;
		}
	}
}

static int
message_get_any(uint16_t type, struct lc_span body)
{
	struct transfer_point p;
	struct sent_chunk chunk;
	struct committed done;
	struct welcome welcome;
	struct refused refused;
	struct sent_rows rows;
	struct commit commit;
	struct hello hello;
	struct offer offer;
	struct head head;
	struct want want;
	uint32_t stream;

	switch (type) {
	case MESSAGE_HELLO:
		return message_get_hello(body, &hello, NULL);
	case MESSAGE_WELCOME:
		return message_get_welcome(body, &welcome, NULL);
	case MESSAGE_REFUSED:
		return message_get_refused(body, &refused, NULL);
	case MESSAGE_HEAD:
		return message_get_head(body, &head, NULL);
	case MESSAGE_BEGIN:
		return message_get_begin(body, &stream, &p, NULL);
	case MESSAGE_OFFER:
		return message_get_offer(body, &offer, NULL);
	case MESSAGE_WANT:
		return message_get_want(body, &want, NULL);
	case MESSAGE_CHUNK:
		return message_get_chunk(body, &chunk, NULL);
	case MESSAGE_ROWS:
		return message_get_rows(body, &rows, NULL);
	case MESSAGE_COMMIT:
		return message_get_commit(body, &commit, NULL);
	default:
		return message_get_committed(body, &done, NULL);
	}
}

static void
bodies_of_another_length_are_malformed(void **state)
{
	struct lc_buf b = {0};
	struct hello hello = {.version = 1, .pairing = true, .name = "host-a"};
	struct hello back;
	struct lc_err why = LC_ERR_INIT, e = LC_ERR_INIT;
	struct refused r;
	size_t n;

	(void)state;
	hello.keys = (struct lc_span){(const uint8_t *)"keys", 4};
	hello.secret[5] = 5;
	must(message_put_hello(&b, &hello), &e);
	must(message_get_hello((struct lc_span){b.p, b.n}, &back, &e), &e);
	assert_string_equal(back.name, "host-a");
	assert_true(back.pairing);
	assert_int_equal(back.keys.n, 4);
	assert_memory_equal(back.secret, hello.secret, sizeof back.secret);
	for (n = 0; n < b.n; n++)
		assert_int_equal(message_get_any(MESSAGE_HELLO, (struct lc_span){b.p, n}),
		                 LC_EPEER);
	must(lc_buf_append(&b, "", 1), &e);
	assert_int_equal(message_get_any(MESSAGE_HELLO, (struct lc_span){b.p, b.n}), LC_EPEER);

	b.n = 0;
	(void)lc_fail(&why, LC_ENOSPC, 0, "full\x1b[2J");
	must(message_put_refused(&b, 7, &why), &e);
	must(message_get_refused((struct lc_span){b.p, b.n}, &r, &e), &e);
	assert_int_equal(r.stream, 7);
	assert_int_equal(refused_error(&r, &e), LC_ENOSPC);
	assert_null(strchr(e.msg, '\x1b')); /* nothing that steers a terminal */
	for (n = 0; n < b.n; n++)
		assert_int_equal(message_get_any(MESSAGE_REFUSED, (struct lc_span){b.p, n}),
		                 LC_EPEER);
	lc_buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(several_vms_go_side_by_side),
	    cmocka_unit_test(cuts_cost_no_more_than_the_byte_window),
	    cmocka_unit_test(one_vm_alone_when_told_so),
	    cmocka_unit_test(damage_at_the_source_holds_up_one_vm),
	    cmocka_unit_test(a_delta_goes_as_a_delta),
	    cmocka_unit_test(bases_go_with_what_needs_them),
	    cmocka_unit_test(bases_of_another_vm_go_too),
	    cmocka_unit_test(a_layer_goes_before_what_needs_it),
	    cmocka_unit_test(a_base_that_is_a_delta_there_is_sent_whole),
	    cmocka_unit_test(a_delta_without_its_base_ends_the_stream),
	    cmocka_unit_test(a_chunk_nobody_asked_for_ends_the_session),
	    cmocka_unit_test(rows_without_their_chunk_end_the_stream),
	    cmocka_unit_test(order_is_kept_or_the_session_ends),
	    cmocka_unit_test(mangled_messages_make_no_point),
	    cmocka_unit_test(bodies_of_another_length_are_malformed),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

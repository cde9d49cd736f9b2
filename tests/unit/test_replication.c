/*
 * Two halves of a session over a wire that is two queues: cut at seeded moments, and with a source
 * that lies.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/log.h"
#include "store/seal.h"
#include "tests/lib/halves.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

#define VMS 5u
#define POINTS 4u
#define WINDOWS 3000u

static void
several_vms_go_side_by_side(void **state)
{
	const size_t windows = UNDER_VALGRIND ? 200 : WINDOWS;
	struct vault_disk d[VMS][POINTS];
	struct point p[VMS][POINTS];
	uint64_t seed = halves_seed();
	char name[16];
	struct halves x;
	size_t v, i;

	(void)state;
	halves_make(&x);
	for (i = 0; i < POINTS; i++) {
		for (v = 0; v < VMS; v++) {
			(void)snprintf(name, sizeof name, "vm%zu", v);
			d[v][i] = i == 0 ? vault_disk("vda", windows)
			                 : vault_disk_copy(&d[v][i - 1]);
			d[v][i].codes[i] = 10 * v + i + 1;
			d[v][i].codes[windows - 1] = 1000 + i; /* of all VMs the same */
			p[v][i] = halves_backup(&x, name, &d[v][i]);
		}
		if (i == 1) { /* what comes while the session lives */
			halves_run(&x, &seed);
			assert_true(sender_idle(x.tx));
		}
		sender_wake(x.tx, NULL);
	}
	halves_run(&x, &seed);
	assert_true(sender_idle(x.tx));
	assert_int_equal(x.committed, VMS * POINTS);
	assert_int_equal(x.failed + x.refused, 0);
	for (v = 0; v < VMS; v++) {
		for (i = 0; i < POINTS; i++) {
			halves_arrived(&x, &p[v][i], &d[v][i]);
			vault_disk_free(&d[v][i]);
		}
	}
	halves_free(&x);
}

/* Cut after cut: it gets there, and no cut costs more than what was on the way. */
static void
cuts_cost_no_more_than_the_byte_window(void **state)
{
	struct vault_disk d = vault_disk("vda", WINDOWS);
	uint64_t seed = halves_seed(), whole;
	unsigned cuts = 0;
	struct point p;
	struct halves x;
	size_t i;

	(void)state;
	halves_make(&x);
	for (i = 0; i < 600; i++)
		d.codes[i * 5] = 5 * (i + 1); /* none compresses: 38 MiB */
	p = halves_backup(&x, "web01", &d);
	for (;;) {
		x.budget = 1 + (int64_t)vault_random(&seed, 100);
		halves_run(&x, &seed);
		if (x.budget != 0 && sender_idle(x.tx))
			break;
		halves_hang_up(&x);
		cuts++;
		if (cuts % 7 == 0) { /* and the replica was stopped meanwhile */
			store_close(x.to);
			halves_open_replica(&x);
		}
		halves_connect(&x);
	}
	whole = (uint64_t)600 * WINDOW_SIZE;
	(void)printf("%u cuts, %llu of %llu bytes again\n", cuts,
	             (unsigned long long)(x.chunk_bytes - whole), (unsigned long long)whole);
	assert_true(cuts > 5);
	assert_true(x.chunk_bytes - whole <= (cuts + 1) * (uint64_t)(HALVES_WINDOW + WINDOW_SIZE));
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

static void
one_vm_alone_when_told_so(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	uint64_t seed = 1;
	struct point p, q;
	struct halves x;

	(void)state;
	halves_make(&x);
	d.codes[0] = 3;
	p = halves_backup(&x, "web01", &d);
	q = halves_backup(&x, "db", &d);
	must(sender_only(x.tx, q.vm_id, &e), &e);
	halves_run(&x, &seed);
	assert_true(sender_idle(x.tx));
	assert_int_equal(x.committed, 1);
	halves_arrived(&x, &q, &d);
	(void)p;
	vault_disk_free(&d);
	halves_free(&x);
}

/* A damaged chunk at the source: its VM waits, the others go on. */
static void
damage_at_the_source_holds_up_one_vm(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct vault_piece chunk;
	uint64_t seed = 1;
	struct point p;
	struct halves x;

	(void)state;
	halves_make(&x);
	d.codes[0] = 3;
	(void)halves_backup(&x, "web01", &d);
	d.codes[0] = 4;
	p = halves_backup(&x, "db", &d);
	vault_close(&x.v);
	assert_true(vault_piece_of(x.v.dir, RECORD_CHUNK, 0, &chunk));
	vault_flip(x.v.dir, &chunk, 200, 1);
	halves_hang_up(&x);
	vault_open(&x.v);
	halves_connect(&x);
	halves_run(&x, &seed);
	assert_true(sender_idle(x.tx));
	assert_int_equal(x.failed, 1);
	assert_int_equal(x.why.code, LC_ECORRUPT);
	assert_int_equal(x.committed, 1);
	halves_arrived(&x, &p, &d);
	/* Tried again it is the same failure: the replica was told that the first try is over. */
	sender_wake(x.tx, NULL);
	halves_run(&x, &seed);
	assert_int_equal(x.failed, 2);
	assert_int_equal(x.why.code, LC_ECORRUPT);
	assert_int_equal(x.refused, 0);
	vault_disk_free(&d);
	halves_free(&x);
}

static int
say(struct halves *x, uint16_t type, const struct lc_buf *b, struct lc_err *e)
{
	return receiver_message(x->rx, type, (struct lc_span){b->p, b->n}, e);
}

/* The packet of that type that the honest source would send next. */
static struct packet *
next_up(struct halves *x, uint16_t type)
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
note_damage(void *arg, const struct damage *d)
{
	*(struct damage *)arg = *d;
}

/* What a scrub there found comes again with the next point that names it, and heals the others. */
static void
a_point_brings_what_is_damaged_there(void **state)
{
	struct vault_disk d = vault_disk("vda", 2);
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece chunk;
	struct damage found;
	struct point p, q;
	uint64_t seed = 1;
	struct halves x;

	(void)state;
	halves_make(&x);
	d.codes[0] = 5;
	d.codes[1] = 10;
	p = halves_backup(&x, "web01", &d);
	halves_run(&x, &seed);
	halves_hang_up(&x);
	store_close(x.to);
	assert_true(vault_piece_of(x.dir, RECORD_CHUNK, 0, &chunk));
	vault_flip(x.dir, &chunk, 200, 1);
	halves_open_replica(&x);
	assert_int_equal(store_scrub(x.to, note_damage, &found, NULL, NULL, NULL), LC_ECORRUPT);
	must(store_condemn(x.to, &found, 1, NULL, &e), &e);
	q = halves_backup(&x, "db", &d);
	halves_connect(&x);
	halves_run(&x, &seed);
	assert_int_equal(x.refused, 0);
	halves_arrived(&x, &q, &d);
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

static void
a_delta_goes_as_a_delta(void **state)
{
	struct vault_disk d = vault_disk("vda", 8);
	uint64_t seed = halves_seed(), before;
	struct point p[3];
	struct halves x;
	size_t i;

	(void)state;
	halves_make(&x);
	for (i = 0; i < 8; i++)
		d.codes[i] = 5 * (i + 1);
	p[0] = halves_backup(&x, "web01", &d);
	halves_run(&x, &seed);
	before = x.chunk_bytes;
	d.codes[2] += VAULT_EDIT;
	d.codes[3] += 2 * VAULT_EDIT;
	p[1] = halves_backup(&x, "web01", &d);
	sender_wake(x.tx, NULL);
	halves_run(&x, &seed);
	assert_int_equal(x.committed, 2);
	assert_in_range(x.chunk_bytes - before, 1, 1500);
	halves_arrived(&x, &p[1], &d);
	for (i = 0; i < 2; i++)
		point_done(&p[i]);
	vault_disk_free(&d);
	halves_free(&x);
}

/* The point with the base was dropped before it was sent. */
static void
bases_go_with_what_needs_them(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	uint64_t seed = halves_seed();
	struct point p;
	struct halves x;

	(void)state;
	halves_make(&x);
	d.codes[0] = 5;
	d.codes[1] = 10;
	p = halves_backup(&x, "web01", &d);
	d.codes[0] += VAULT_EDIT;
	d.codes[1] += VAULT_EDIT;
	must(store_drop(x.v.s, p.id, NULL), &x.why); /* chunks stay */
	p = halves_backup(&x, "web01", &d);
	d.codes[0] += VAULT_EDIT;
	p = halves_backup(&x, "web01", &d);
	halves_run(&x, &seed);
	assert_int_equal(x.failed + x.refused, 0);
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

/* Bases that are of another VM, whose points were dropped before they were sent, and are not all
 * there: two go with the windows that need them. */
static void
bases_of_another_vm_go_too(void **state)
{
	struct vault_disk d = vault_disk("vda", 12), sibling = vault_disk("vda", 12);
	uint64_t seed = halves_seed(), before;
	struct point first, p;
	struct halves x;
	size_t i;

	(void)state;
	halves_make(&x);
	halves_hang_up(&x);
	vault_close(&x.v);
	x.v.similar_bytes = 1u << 20;
	vault_open(&x.v);
	halves_connect(&x);
	for (i = 0; i < 12; i++) {
		d.codes[i] = 5 * (i + 10);
		sibling.codes[i] = i < 6 ? vault_mix(d.codes[i], 7) : 0;
	}
	first = halves_backup(&x, "web01", &d);
	p = halves_backup(&x, "web02", &sibling);
	must(store_drop(x.v.s, first.id, NULL), &x.why);
	before = x.chunk_bytes;
	halves_run(&x, &seed);
	assert_int_equal(x.failed + x.refused, 0);
	assert_int_equal(x.committed, 1);
	assert_in_range(x.chunk_bytes - before, 7 * WINDOW_SIZE, 7 * WINDOW_SIZE + 6000);
	halves_arrived(&x, &p, &sibling);
	point_done(&first);
	point_done(&p);
	vault_disk_free(&d);
	vault_disk_free(&sibling);
	halves_free(&x);
}

/* What changed before lies in a chunk of its own, that no map names: it went, and need not go
 * again. */
static void
a_layer_goes_before_what_needs_it(void **state)
{
	struct vault_disk d = vault_disk("vda", 1);
	uint64_t seed = halves_seed(), before;
	struct point p;
	struct halves x;

	(void)state;
	halves_make(&x);
	d.codes[0] = 5;
	p = halves_backup(&x, "web01", &d);
	point_done(&p);
	halves_run(&x, &seed);
	d.codes[0] += 20 * VAULT_EDIT;
	p = halves_backup(&x, "web01", &d);
	point_done(&p);
	sender_wake(x.tx, NULL);
	halves_run(&x, &seed);
	before = x.chunk_bytes;
	d.codes[0] += 10 * VAULT_EDIT;
	p = halves_backup(&x, "web01", &d);
	sender_wake(x.tx, NULL);
	halves_run(&x, &seed);
	assert_int_equal(x.failed + x.refused, 0);
	assert_int_equal(x.committed, 3);
	assert_in_range(x.chunk_bytes - before, 1000, 2200); /* 3300 are 30 changes */
	halves_arrived(&x, &p, &d);
	point_done(&p);
	vault_disk_free(&d);
	halves_free(&x);
}

/* What is whole here may be a delta there, from before it was found to be bad here. */
static void
a_base_that_is_a_delta_there_is_sent_whole(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	uint64_t seed = halves_seed();
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece chunk;
	struct damage bad = {0};
	struct point p[2];
	struct halves x;

	(void)state;
	halves_make(&x);
	d.codes[0] = 5;
	(void)halves_backup(&x, "web01", &d);
	d.codes[0] += VAULT_EDIT;
	p[0] = halves_backup(&x, "web01", &d);
	halves_run(&x, &seed);
	assert_int_equal(x.committed, 2);
	vault_close(&x.v);
	assert_true(vault_piece_of(x.v.dir, RECORD_CHUNK, 1, &chunk));
	assert_true(chunk_is_delta(chunk.r.encoding));
	vault_flip(x.v.dir, &chunk, 200, 1);
	halves_hang_up(&x);
	vault_open(&x.v);
	bad.segment = chunk.r.segment;
	bad.offset = chunk.off;
	bad.length = chunk.n;
	must(store_condemn(x.v.s, &bad, 1, NULL, &e), &e);
	(void)halves_backup(&x, "web01", &d); /* now it is whole */
	d.codes[0] += VAULT_EDIT;
	p[1] = halves_backup(&x, "web01", &d);
	halves_connect(&x);
	halves_run(&x, &seed);
	assert_int_equal(x.failed + x.refused, 0);
	halves_arrived(&x, &p[1], &d);
	d.codes[0] -= VAULT_EDIT;
	halves_arrived(&x, &p[0], &d);
	vault_disk_free(&d);
	halves_free(&x);
}

static void
a_delta_without_its_base_ends_the_stream(void **state)
{
	struct vault_disk d = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct packet *q;
	uint64_t seed = 1;
	struct halves x;

	(void)state;
	halves_make(&x);
	d.codes[1] = 5;
	(void)halves_backup(&x, "web01", &d);
	halves_run(&x, &seed);
	d.codes[1] += VAULT_EDIT;
	(void)halves_backup(&x, "web01", &d);
	sender_wake(x.tx, NULL);
	must(sender_pump(x.tx, &e), &e);
	assert_true(halves_carry(&x, &x.up)); /* BEGIN */
	assert_true(halves_carry(&x, &x.up)); /* OFFER */
	while (halves_carry(&x, &x.down))
		;
	must(sender_pump(x.tx, &e), &e);
	q = next_up(&x, MESSAGE_CHUNK);
	q->body.p[12 + CHUNK_HEAD_SIZE] ^= 1; /* the id of its base */
	must(say(&x, MESSAGE_CHUNK, &q->body, &e), &e);
	assert_int_equal(x.refused, 1);
	assert_int_equal(x.why.code, LC_ENOENT);
	vault_disk_free(&d);
	halves_free(&x);
}

/* ---- a source that lies ---- */

/* A site with one point whose BEGIN and OFFER were taken and whose chunk was asked for. */
static void
make_offered(struct halves *x, struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;

	halves_make(x);
	*d = vault_disk("vda", 4);
	d->codes[1] = 4;
	(void)halves_backup(x, "web01", d);
	assert_true(halves_carry(x, &x->up)); /* HEADS */
	while (halves_carry(x, &x->down))
		;
	assert_true(halves_carry(x, &x->up)); /* BEGIN */
	assert_true(halves_carry(x, &x->up)); /* OFFER */
	while (halves_carry(x, &x->down))
		; /* WANT: now CHUNK, ROWS and COMMIT are on the way */
	must(receiver_settle(x->rx, &e), &e);
}

static void
a_chunk_nobody_asked_for_ends_the_session(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct packet *p;
	struct halves x;

	(void)state;
	make_offered(&x, &d);
	p = next_up(&x, MESSAGE_CHUNK);
	p->body.p[12] ^= 1; /* its id */
	assert_int_equal(say(&x, MESSAGE_CHUNK, &p->body, &e), LC_EPEER);
	vault_disk_free(&d);
	halves_free(&x);
	make_offered(&x, &d);
	p = next_up(&x, MESSAGE_CHUNK);
	lc_err_clear(&e);
	must(say(&x, MESSAGE_CHUNK, &p->body, &e), &e);
	assert_int_equal(say(&x, MESSAGE_CHUNK, &p->body, &e), LC_EPEER); /* twice */
	vault_disk_free(&d);
	halves_free(&x);
}

static void
rows_without_their_chunk_end_the_stream(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct halves x;

	(void)state;
	make_offered(&x, &d);
	must(say(&x, MESSAGE_ROWS, &next_up(&x, MESSAGE_ROWS)->body, &e), &e);
	assert_int_equal(x.refused, 1);
	assert_int_equal(x.why.code, LC_ENOENT);
	must(say(&x, MESSAGE_COMMIT, &next_up(&x, MESSAGE_COMMIT)->body, &e), &e); /* is too late */
	must(receiver_settle(x.rx, &e), &e);
	assert_int_equal(TAILQ_FIRST(&x.down)->type, MESSAGE_REFUSED);
	vault_disk_free(&d);
	halves_free(&x);
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
	struct halves x;
	size_t i;

	(void)state;
	make_offered(&x, &d);
	for (i = 0; i < sizeof not_for_a_replica / sizeof not_for_a_replica[0]; i++)
		assert_int_equal(
		    receiver_message(x.rx, not_for_a_replica[i], (struct lc_span){0}, NULL),
		    LC_EPEER);
	assert_int_equal(
	    receiver_message(x.rx, MESSAGE_HEADS, (struct lc_span){(const uint8_t *)"x", 1}, NULL),
	    LC_EPEER); /* has no body */
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
	halves_free(&x);
}

/* Every message, cut at every length and with every byte changed: never a crash, never a point that
 * is not the source's. */
static void
mangled_messages_make_no_point(void **state)
{
	static const uint16_t types[] = {MESSAGE_CHUNK, MESSAGE_ROWS, MESSAGE_COMMIT};
	const size_t step = UNDER_VALGRIND ? 5 : 1;
	struct vault_disk d;
	struct halves x;
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
			halves_free(&x);
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
	    cmocka_unit_test(a_point_brings_what_is_damaged_there),
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

/*
 * Contents of a large point go to the replica while the point is still being made.
 */
#include <stdio.h>
#include <string.h>

#include "replicator/message.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "tests/lib/halves.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

#define WINDOWS 1200u
#define MIB (UINT64_C(1) << 20)
#define BEHIND (34 * MIB) /* what of a disk need not be there yet: rows are written 512 at once */

/* A full disk; no window compresses, and no two are the same. */
static struct vault_disk
full_disk(const char *name, uint64_t first_code)
{
	struct vault_disk d = vault_disk(name, WINDOWS);
	size_t i;

	for (i = 0; i < WINDOWS; i++)
		d.codes[i] = 5 * (first_code + i);
	return d;
}

/* Points are large from 1 MiB on. */
static void
make(struct halves *x)
{
	halves_make(x);
	x->v.s->flush_bytes = 1 << 20;
}

static void
put(struct writer *w, size_t disk, const struct vault_disk *d, uint64_t first, uint64_t end)
{
	struct lc_err e = LC_ERR_INIT;

	for (; first < end; first++)
		must(vault_put(w, disk, d, first, &e), &e);
}

static struct writer *
begin(struct halves *x, const char *vm, const struct vault_disk *d, size_t n)
{
	struct lc_err e = LC_ERR_INIT;
	struct writer *w = vault_begin(x->v.s, vm, d, n, &e);

	assert_non_null(w);
	return w;
}

/* Until nothing moves; the source looks once more whether there is anything. */
static void
settle(struct halves *x)
{
	uint64_t seed = 7;

	halves_run(x, &seed);
}

static void
commit(struct halves *x, struct writer *w, struct point *p)
{
	struct commit_opts o = {.source_ns = 1, .consistency = POINT_CRASH};
	struct lc_err e = LC_ERR_INIT;

	must(writer_commit(w, &o, p, &e), &e);
	sender_wake(x->tx, p->line);
}

static uint64_t
sent(const struct halves *x)
{
	struct sender_stats st;

	sender_stats(x->tx, &st);
	return st.chunks;
}

static uint64_t
count(struct store *s, bool points)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_stats st;

	must(store_stats(s, &st, &e), &e);
	return points ? st.points : st.chunks;
}

static void
contents_are_there_before_the_point_is(void **state)
{
	struct vault_disk d = full_disk("vda", 1);
	struct writer *w;
	struct halves x;
	struct point p;

	(void)state;
	make(&x);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS / 2);
	settle(&x);
	assert_true(x.chunk_bytes > WINDOWS / 2 * WINDOW_SIZE - BEHIND);
	assert_true(sender_idle(x.tx)); /* no point waits */
	assert_int_equal(count(x.to, true), 0);
	put(w, 0, &d, WINDOWS / 2, WINDOWS);
	settle(&x);
	assert_true(x.chunk_bytes > WINDOWS * WINDOW_SIZE - BEHIND);
	assert_int_equal(x.committed, 0);
	commit(&x, w, &p);
	assert_false(sender_idle(x.tx));
	settle(&x);
	assert_true(sender_idle(x.tx));
	assert_int_equal(x.committed, 1);
	assert_int_equal(x.failed + x.refused, 0);
	assert_int_equal(sent(&x), WINDOWS); /* each once */
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

/* A point that is small says no more than it ever did. */
static void
nothing_of_a_small_point_goes_ahead(void **state)
{
	struct vault_disk d = full_disk("vda", 1);
	struct lc_err e = LC_ERR_INIT;
	struct writer *w;
	struct halves x;

	(void)state;
	halves_make(&x);
	settle(&x);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, 200);
	must(store_flush(x.v.s, &e), &e);
	must(sender_pump(x.tx, &e), &e);
	assert_true(TAILQ_EMPTY(&x.up));
	writer_abort(w);
	vault_disk_free(&d);
	halves_free(&x);
}

static void
disks_that_are_read_side_by_side_both_go(void **state)
{
	struct vault_disk d[2] = {full_disk("vda", 1), full_disk("vdb", 10000)};
	struct writer *w;
	struct halves x;
	struct point p;
	uint64_t i;

	(void)state;
	make(&x);
	w = begin(&x, "web01", d, 2);
	for (i = 0; i < WINDOWS; i += 100) {
		put(w, 1, &d[1], i, i + 100);
		put(w, 0, &d[0], i, i + 100);
		settle(&x);
	}
	assert_true(x.chunk_bytes > 2 * (WINDOWS * WINDOW_SIZE - BEHIND));
	commit(&x, w, &p);
	settle(&x);
	assert_int_equal(sent(&x), 2 * WINDOWS);
	assert_int_equal(x.committed, 1);
	for (i = 0; i < 2; i++)
		vault_disk_free(&d[i]);
	halves_free(&x);
}

/* What is made upon others goes behind them, and as it is. */
static void
deltas_go_ahead_too(void **state)
{
	struct vault_disk d = full_disk("vda", 1);
	struct halves x;
	struct writer *w;
	struct point p;
	uint64_t whole, i;

	(void)state;
	make(&x);
	(void)halves_backup(&x, "web01", &d);
	settle(&x);
	assert_int_equal(x.committed, 1);
	whole = x.chunk_bytes;
	x.v.s->flush_bytes = 64 << 10;
	for (i = 0; i < WINDOWS; i++)
		d.codes[i] += VAULT_EDIT;
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS);
	settle(&x);
	assert_true(sent(&x) > WINDOWS + WINDOWS / 3);
	commit(&x, w, &p);
	settle(&x);
	assert_int_equal(x.committed, 2);
	assert_int_equal(x.failed + x.refused, 0);
	assert_true(x.chunk_bytes - whole < whole / 4);
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

/* Each cut costs what was on the way, and no more. */
static void
cuts_while_it_is_made(void **state)
{
	struct vault_disk d = full_disk("vda", 1);
	uint64_t seed = halves_seed(), i;
	unsigned cuts = 0;
	struct writer *w;
	struct halves x;
	struct point p;

	(void)state;
	make(&x);
	w = begin(&x, "web01", &d, 1);
	for (i = 0; i < WINDOWS; i += 50) {
		put(w, 0, &d, i, i + 50);
		x.budget = 1 + (int64_t)vault_random(&seed, 200);
		halves_run(&x, &seed);
		if (x.budget == 0) {
			cuts++;
			halves_hang_up(&x);
			halves_connect(&x);
		}
	}
	x.budget = -1;
	assert_true(cuts > 3);
	commit(&x, w, &p);
	settle(&x);
	assert_int_equal(x.committed, 1);
	assert_int_equal(x.failed + x.refused, 0);
	assert_true(x.chunk_bytes <= WINDOWS * (uint64_t)(WINDOW_SIZE + 256) +
	                                 cuts * (uint64_t)(HALVES_WINDOW + WINDOW_SIZE));
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

static void
a_replica_that_restarts_meanwhile(void **state)
{
	struct vault_disk d = full_disk("vda", 1);
	struct writer *w;
	struct halves x;
	struct point p;
	uint64_t before;

	(void)state;
	make(&x);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS / 2);
	settle(&x);
	before = sent(&x);
	halves_hang_up(&x);
	store_close(x.to);
	halves_open_replica(&x);
	assert_int_equal(count(x.to, false), before);
	halves_connect(&x);
	settle(&x);
	assert_int_equal(sent(&x), 0);
	put(w, 0, &d, WINDOWS / 2, WINDOWS);
	settle(&x);
	commit(&x, w, &p);
	settle(&x);
	assert_int_equal(before + sent(&x), WINDOWS);
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

/* It is begun again, and finds there what had gone. */
static void
what_went_ahead_of_nothing_serves_the_next_try(void **state)
{
	struct vault_disk d = full_disk("vda", 1);
	struct writer *w;
	struct halves x;
	struct point p;
	uint64_t before;

	(void)state;
	make(&x);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS / 2);
	settle(&x);
	before = sent(&x);
	assert_true(before > 0);
	writer_abort(w);
	settle(&x);
	assert_int_equal(count(x.to, true), 0);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS);
	settle(&x);
	commit(&x, w, &p);
	settle(&x);
	assert_int_equal(x.committed, 1);
	assert_int_equal(sent(&x), WINDOWS);
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

/* The first pass does not reach the end, and is no point: what went of it is not sent again. */
static void
passes_of_a_seed_go_ahead_one_after_the_other(void **state)
{
	const uint64_t covered[1] = {WINDOWS / 2};
	struct commit_opts seed = {
	    .source_ns = 1, .consistency = POINT_CRASH, .seed = true, .covered = covered};
	struct vault_disk d = full_disk("vda", 1);
	struct lc_err e = LC_ERR_INIT;
	struct writer *w;
	struct halves x;
	struct point p;
	uint64_t before;

	(void)state;
	make(&x);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS / 2);
	settle(&x);
	before = sent(&x);
	assert_true(before > 0);
	must(writer_commit(w, &seed, NULL, &e), &e);
	settle(&x);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, WINDOWS / 2, WINDOWS);
	settle(&x);
	assert_true(sent(&x) > before);
	assert_int_equal(count(x.to, true), 0);
	commit(&x, w, &p);
	settle(&x);
	assert_int_equal(x.committed, 1);
	assert_int_equal(sent(&x), WINDOWS);
	halves_arrived(&x, &p, &d);
	vault_disk_free(&d);
	halves_free(&x);
}

/* What the host may keep there is used up: the point says so when its turn comes, not before. */
static void
room_that_ends_meanwhile_fails_no_line(void **state)
{
	struct vault_disk d = full_disk("vda", 1), small = vault_disk("vda", 4);
	struct writer *w;
	struct halves x;
	struct point p, q;
	uint64_t before;

	(void)state;
	make(&x);
	receiver_room(x.rx, 8 * MIB);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS / 2);
	settle(&x);
	assert_int_equal(x.refused, 1);
	assert_int_equal(x.why.code, LC_ENOSPC);
	assert_int_equal(x.failed, 0);
	assert_true(sender_idle(x.tx));
	before = sent(&x);
	put(w, 0, &d, WINDOWS / 2, WINDOWS);
	settle(&x);
	assert_int_equal(sent(&x), before); /* not again for this one */
	receiver_room(x.rx, 1 * MIB);
	small.codes[1] = 2;
	q = halves_backup(&x, "db01", &small);
	sender_wake(x.tx, q.line);
	settle(&x);
	assert_int_equal(x.committed, 1);
	commit(&x, w, &p);
	settle(&x);
	assert_int_equal(x.failed, 1); /* now it matters */
	receiver_room(x.rx, UINT64_MAX);
	sender_wake(x.tx, p.line);
	settle(&x);
	assert_int_equal(x.committed, 2);
	halves_arrived(&x, &p, &d);
	halves_arrived(&x, &q, &small);
	vault_disk_free(&d);
	vault_disk_free(&small);
	halves_free(&x);
}

/* Points of others do not wait until all that can go ahead has gone. */
static void
points_of_others_go_before_it(void **state)
{
	struct vault_disk d = full_disk("vda", 1), small = vault_disk("vda", 40);
	struct lc_err e = LC_ERR_INIT;
	struct writer *w;
	struct halves x;
	struct point p;
	uint64_t seed = 7, before;
	size_t i;

	(void)state;
	make(&x);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS);
	x.budget = 60; /* it has begun */
	halves_run(&x, &seed);
	before = sent(&x);
	assert_true(before > 0 && before < WINDOWS / 4);
	for (i = 0; i < 40; i++)
		small.codes[i] = 5 * (100000 + i);
	p = halves_backup(&x, "db01", &small);
	sender_wake(x.tx, p.line);
	must(sender_pump(x.tx, &e), &e);
	x.budget = -1;
	while (x.committed == 0) {
		assert_true(halves_carry(&x, &x.up) || halves_carry(&x, &x.down) || x.rx != NULL);
		must(receiver_settle(x.rx, &e), &e);
	}
	/* Its own, and what filled the wire in between. */
	assert_true(sent(&x) < before + 40 + 4 * HALVES_WINDOW / WINDOW_SIZE);
	halves_arrived(&x, &p, &small);
	writer_abort(w);
	vault_disk_free(&d);
	vault_disk_free(&small);
	halves_free(&x);
}

/* A VM that is not to go there does not go ahead either. */
static void
others_than_those_that_were_named_do_not_go(void **state)
{
	static const uint8_t nobody[16];
	struct vault_disk d = full_disk("vda", 1);
	struct lc_err e = LC_ERR_INIT;
	struct transfer_making making[TRANSFER_MAKING_MAX];
	struct writer *w;
	struct halves x;
	size_t n;

	(void)state;
	make(&x);
	must(sender_only(x.tx, nobody, &e), &e);
	w = begin(&x, "web01", &d, 1);
	put(w, 0, &d, 0, WINDOWS / 2);
	settle(&x);
	assert_int_equal(sent(&x), 0);
	transfer_making(x.v.s, making, &n);
	assert_int_equal(n, 1);
	must(sender_only(x.tx, making[0].vm, &e), &e); /* now it is */
	settle(&x);
	assert_true(sent(&x) > 0);
	writer_abort(w);
	vault_disk_free(&d);
	halves_free(&x);
}

/* On a stream without a point there are no rows, and there is no COMMIT. */
static void
what_is_no_point_can_not_be_one(void **state)
{
	const uint16_t types[] = {MESSAGE_ROWS, MESSAGE_COMMIT};
	struct commit m = {.stream = 1};
	struct transfer_point p = {.id = {1}, .vm = {2}, .line = {3}};
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct lc_buf begin = {0}, body = {0};
		struct lc_err e = LC_ERR_INIT;
		struct halves x;

		make(&x);
		assert_int_equal(message_put_begin(&begin, 1, &p), 0);
		must(receiver_message(x.rx, MESSAGE_BEGIN, (struct lc_span){begin.p, begin.n}, &e),
		     &e);
		assert_int_equal(x.refused, 0);
		assert_int_equal(types[i] == MESSAGE_ROWS ? message_put_rows_head(&body, 1)
		                                          : message_put_commit(&body, &m),
		                 0);
		assert_int_equal(
		    receiver_message(x.rx, types[i], (struct lc_span){body.p, body.n}, &e),
		    LC_EPEER);
		assert_non_null(strstr(e.msg, "still being made"));
		lc_buf_free(&begin);
		lc_buf_free(&body);
		halves_free(&x);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(contents_are_there_before_the_point_is),
	    cmocka_unit_test(nothing_of_a_small_point_goes_ahead),
	    cmocka_unit_test(disks_that_are_read_side_by_side_both_go),
	    cmocka_unit_test(deltas_go_ahead_too),
	    cmocka_unit_test(cuts_while_it_is_made),
	    cmocka_unit_test(a_replica_that_restarts_meanwhile),
	    cmocka_unit_test(what_went_ahead_of_nothing_serves_the_next_try),
	    cmocka_unit_test(passes_of_a_seed_go_ahead_one_after_the_other),
	    cmocka_unit_test(room_that_ends_meanwhile_fails_no_line),
	    cmocka_unit_test(points_of_others_go_before_it),
	    cmocka_unit_test(others_than_those_that_were_named_do_not_go),
	    cmocka_unit_test(what_is_no_point_can_not_be_one),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

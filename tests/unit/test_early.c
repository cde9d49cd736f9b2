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

/* web01 has a full disk, and a point of it is being made. */
struct scene {
	struct halves x;
	struct vault_disk d;
	struct writer *w;
};

static void
scene_begin(struct scene *s)
{
	make(&s->x);
	s->d = full_disk("vda", 1);
	s->w = begin(&s->x, "web01", &s->d, 1);
}

/* These are read, and what may go goes. */
static void
scene_put(struct scene *s, uint64_t first, uint64_t end)
{
	put(s->w, 0, &s->d, first, end);
	settle(&s->x);
}

/* The point is made, and is the next one that is there. */
static void
scene_commit(struct scene *s)
{
	unsigned before = s->x.committed;
	struct point p;

	commit(&s->x, s->w, &p);
	settle(&s->x);
	assert_int_equal(s->x.committed, before + 1);
	halves_arrived(&s->x, &p, &s->d);
}

static void
scene_free(struct scene *s)
{
	vault_disk_free(&s->d);
	halves_free(&s->x);
}

static void
contents_are_there_before_the_point_is(void **state)
{
	struct scene s;
	struct point p;

	(void)state;
	scene_begin(&s);
	scene_put(&s, 0, WINDOWS / 2);
	assert_true(s.x.chunk_bytes > WINDOWS / 2 * WINDOW_SIZE - BEHIND);
	assert_true(sender_idle(s.x.tx)); /* no point waits */
	assert_int_equal(count(s.x.to, true), 0);
	scene_put(&s, WINDOWS / 2, WINDOWS);
	assert_true(s.x.chunk_bytes > WINDOWS * WINDOW_SIZE - BEHIND);
	assert_int_equal(s.x.committed, 0);
	commit(&s.x, s.w, &p);
	assert_false(sender_idle(s.x.tx));
	settle(&s.x);
	assert_true(sender_idle(s.x.tx));
	assert_int_equal(s.x.committed, 1);
	assert_int_equal(s.x.failed + s.x.refused, 0);
	assert_int_equal(sent(&s.x), WINDOWS); /* each once */
	halves_arrived(&s.x, &p, &s.d);
	scene_free(&s);
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
	uint64_t seed = halves_seed(), i;
	unsigned cuts = 0;
	struct scene s;

	(void)state;
	scene_begin(&s);
	for (i = 0; i < WINDOWS; i += 50) {
		put(s.w, 0, &s.d, i, i + 50);
		s.x.budget = 1 + (int64_t)vault_random(&seed, 200);
		halves_run(&s.x, &seed);
		if (s.x.budget == 0) {
			cuts++;
			halves_hang_up(&s.x);
			halves_connect(&s.x);
		}
	}
	s.x.budget = -1;
	assert_true(cuts > 3);
	scene_commit(&s);
	assert_int_equal(s.x.failed + s.x.refused, 0);
	assert_true(s.x.chunk_bytes <= WINDOWS * (uint64_t)(WINDOW_SIZE + 256) +
	                                   cuts * (uint64_t)(HALVES_WINDOW + WINDOW_SIZE));
	scene_free(&s);
}

static void
a_replica_that_restarts_meanwhile(void **state)
{
	struct scene s;
	uint64_t before;

	(void)state;
	scene_begin(&s);
	scene_put(&s, 0, WINDOWS / 2);
	before = sent(&s.x);
	halves_hang_up(&s.x);
	store_close(s.x.to);
	halves_open_replica(&s.x);
	assert_int_equal(count(s.x.to, false), before);
	halves_connect(&s.x);
	settle(&s.x);
	assert_int_equal(sent(&s.x), 0);
	scene_put(&s, WINDOWS / 2, WINDOWS);
	scene_commit(&s);
	assert_int_equal(before + sent(&s.x), WINDOWS);
	scene_free(&s);
}

/* It is begun again, and finds there what had gone. */
static void
what_went_ahead_of_nothing_serves_the_next_try(void **state)
{
	struct scene s;

	(void)state;
	scene_begin(&s);
	scene_put(&s, 0, WINDOWS / 2);
	assert_true(sent(&s.x) > 0);
	writer_abort(s.w);
	settle(&s.x);
	assert_int_equal(count(s.x.to, true), 0);
	s.w = begin(&s.x, "web01", &s.d, 1);
	scene_put(&s, 0, WINDOWS);
	scene_commit(&s);
	assert_int_equal(sent(&s.x), WINDOWS);
	scene_free(&s);
}

/* The first pass does not reach the end, and is no point: what went of it is not sent again. */
static void
passes_of_a_seed_go_ahead_one_after_the_other(void **state)
{
	const uint64_t covered[1] = {WINDOWS / 2};
	struct commit_opts seed = {
	    .source_ns = 1, .consistency = POINT_CRASH, .seed = true, .covered = covered};
	struct lc_err e = LC_ERR_INIT;
	struct scene s;
	uint64_t before;

	(void)state;
	scene_begin(&s);
	scene_put(&s, 0, WINDOWS / 2);
	before = sent(&s.x);
	assert_true(before > 0);
	must(writer_commit(s.w, &seed, NULL, &e), &e);
	settle(&s.x);
	s.w = begin(&s.x, "web01", &s.d, 1);
	scene_put(&s, WINDOWS / 2, WINDOWS);
	assert_true(sent(&s.x) > before);
	assert_int_equal(count(s.x.to, true), 0);
	scene_commit(&s);
	assert_int_equal(sent(&s.x), WINDOWS);
	scene_free(&s);
}

/* What the host may keep there is used up: the point says so when its turn comes, not before. */
/* Also where no next pass has begun yet, and where another process goes on. */
static void
what_a_pass_has_left_goes_between_two(void **state)
{
	const uint64_t covered[] = {WINDOWS / 2};
	struct commit_opts o = {
	    .source_ns = 1, .consistency = POINT_CRASH, .seed = true, .covered = covered};
	struct lc_err e = LC_ERR_INIT;
	struct point p;
	struct scene s;
	uint64_t before;

	(void)state;
	scene_begin(&s);
	scene_put(&s, 0, WINDOWS / 4); /* some of it goes while it is read */
	put(s.w, 0, &s.d, WINDOWS / 4, WINDOWS / 2);
	must(writer_commit(s.w, &o, &p, &e), &e);
	point_done(&p);
	settle(&s.x);
	before = sent(&s.x);
	assert_int_equal(before, WINDOWS / 2);
	settle(&s.x); /* once */
	assert_int_equal(sent(&s.x), before);
	/* The next pass leaves something, too; then the agent is another one. */
	s.w = begin(&s.x, "web01", &s.d, 1);
	put(s.w, 0, &s.d, WINDOWS / 2, WINDOWS * 3 / 4);
	must(writer_commit(s.w,
	                   &(struct commit_opts){.source_ns = 1,
	                                         .consistency = POINT_CRASH,
	                                         .seed = true,
	                                         .covered = (const uint64_t[]){WINDOWS * 3 / 4}},
	                   &p, &e),
	     &e);
	point_done(&p);
	halves_hang_up(&s.x);
	vault_close(&s.x.v);
	vault_open(&s.x.v);
	s.x.v.s->flush_bytes = 1 << 20;
	halves_connect(&s.x);
	settle(&s.x);
	s.w = begin(&s.x, "web01", &s.d, 1); /* it does not know before */
	settle(&s.x);
	assert_int_equal(sent(&s.x), WINDOWS / 4);
	put(s.w, 0, &s.d, WINDOWS * 3 / 4, WINDOWS);
	scene_commit(&s);
	assert_int_equal(sent(&s.x), WINDOWS / 2);
	settle(&s.x);
	assert_true(sender_idle(s.x.tx));
	scene_free(&s);
}

static void
room_that_ends_meanwhile_fails_no_line(void **state)
{
	struct vault_disk small = vault_disk("vda", 4);
	struct scene s;
	struct point p, q;
	uint64_t before;

	(void)state;
	scene_begin(&s);
	receiver_room(s.x.rx, 8 * MIB);
	scene_put(&s, 0, WINDOWS / 2);
	assert_int_equal(s.x.refused, 1);
	assert_int_equal(s.x.why.code, LC_ENOSPC);
	assert_int_equal(s.x.failed, 0);
	assert_true(sender_idle(s.x.tx));
	before = sent(&s.x);
	scene_put(&s, WINDOWS / 2, WINDOWS);
	assert_int_equal(sent(&s.x), before); /* not again for this one */
	receiver_room(s.x.rx, 1 * MIB);
	small.codes[1] = 2;
	q = halves_backup(&s.x, "db01", &small);
	sender_wake(s.x.tx, q.line);
	settle(&s.x);
	assert_int_equal(s.x.committed, 1);
	commit(&s.x, s.w, &p);
	settle(&s.x);
	assert_int_equal(s.x.failed, 1); /* now it matters */
	receiver_room(s.x.rx, UINT64_MAX);
	sender_wake(s.x.tx, p.line);
	settle(&s.x);
	assert_int_equal(s.x.committed, 2);
	halves_arrived(&s.x, &p, &s.d);
	halves_arrived(&s.x, &q, &small);
	vault_disk_free(&small);
	scene_free(&s);
}

/* Points of others do not wait until all that can go ahead has gone. */
static void
points_of_others_go_before_it(void **state)
{
	struct vault_disk small = vault_disk("vda", 40);
	struct lc_err e = LC_ERR_INIT;
	uint64_t seed = 7, before;
	struct scene s;
	struct halves *x = &s.x;
	struct point p;
	size_t i;

	(void)state;
	scene_begin(&s);
	put(s.w, 0, &s.d, 0, WINDOWS);
	x->budget = 60; /* it has begun */
	halves_run(x, &seed);
	before = sent(x);
	assert_true(before > 0 && before < WINDOWS / 4);
	for (i = 0; i < 40; i++)
		small.codes[i] = 5 * (100000 + i);
	p = halves_backup(x, "db01", &small);
	sender_wake(x->tx, p.line);
	must(sender_pump(x->tx, &e), &e);
	x->budget = -1;
	while (x->committed == 0) {
		assert_true(halves_carry(x, &x->up) || halves_carry(x, &x->down) || x->rx != NULL);
		must(receiver_settle(x->rx, &e), &e);
	}
	/* Its own, and what filled the wire in between. */
	assert_true(sent(x) < before + 40 + 4 * HALVES_WINDOW / WINDOW_SIZE);
	halves_arrived(x, &p, &small);
	writer_abort(s.w);
	vault_disk_free(&small);
	scene_free(&s);
}

/* A VM that is not to go there does not go ahead either. */
static void
others_than_those_that_were_named_do_not_go(void **state)
{
	static const uint8_t nobody[16];
	struct lc_err e = LC_ERR_INIT;
	struct transfer_making making[TRANSFER_MAKING_MAX];
	struct scene s;
	size_t n;

	(void)state;
	scene_begin(&s);
	must(sender_only(s.x.tx, nobody, &e), &e);
	scene_put(&s, 0, WINDOWS / 2);
	assert_int_equal(sent(&s.x), 0);
	transfer_making(s.x.v.s, making, &n);
	assert_int_equal(n, 1);
	must(sender_only(s.x.tx, making[0].vm, &e), &e); /* now it is */
	settle(&s.x);
	assert_true(sent(&s.x) > 0);
	writer_abort(s.w);
	scene_free(&s);
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
	    cmocka_unit_test(what_a_pass_has_left_goes_between_two),
	    cmocka_unit_test(room_that_ends_meanwhile_fails_no_line),
	    cmocka_unit_test(points_of_others_go_before_it),
	    cmocka_unit_test(others_than_those_that_were_named_do_not_go),
	    cmocka_unit_test(what_is_no_point_can_not_be_one),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

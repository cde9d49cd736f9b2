/*
 * Limits of bandwidth: what goes over a real socket is what was allowed, and what is small or
 * urgent does not wait for long.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/limits.h"
#include "replicator/message.h"
#include "replicator/throttle.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/mole.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define LONG_MS 60000

/* ---- the bucket by itself ---- */

struct taker {
	struct throttle *t;
	struct throttle_place place;
	size_t want;
	uint64_t got;
	unsigned turns;
};

static void
take_on(void *arg)
{
	struct taker *x = arg;
	size_t n;

	x->turns++;
	while ((n = throttle_take(x->t, &x->place, x->want)) > 0)
		x->got += n;
}

static void
taker_begin(struct taker *x, struct throttle *t, size_t want)
{
	*x = (struct taker){.t = t, .place = {.ready = take_on, .arg = x}, .want = want};
	take_on(x);
}

static void
bucket_end(uv_loop_t *loop, struct throttle *t)
{
	throttle_close(t);
	(void)uv_run(loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(loop), 0);
}

/* Two that always want more get the same, and both together the rate. */
static void
two_share_it(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct throttle *t;
	struct taker a, b;
	uv_loop_t loop;
	int64_t began;
	double s;

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(throttle_new(&loop, 2 * MIB, &t, &e), 0);
	began = clock_mono_ns();
	taker_begin(&a, t, 100 * KIB);
	taker_begin(&b, t, 100 * KIB);
	run_for(&loop, 3000); /* what one is ahead by for a moment is little of that */
	s = (double)(clock_mono_ns() - began) / 1e9;
	(void)printf("%.0f and %.0f KiB in %.2f s\n", (double)a.got / 1024, (double)b.got / 1024,
	             s);
	assert_true(fabs((double)(a.got + b.got) - 2.0 * (double)MIB * s) <
	            0.1 * 2.0 * (double)MIB * s);
	assert_true(fabs((double)a.got - (double)b.got) < 0.1 * (double)a.got);
	throttle_leave(t, &a.place);
	throttle_leave(t, &b.place);
	bucket_end(&loop, t);
}

static void
count_turn(void *arg)
{
	(*(unsigned *)arg)++;
}

/* Whoever waits goes on at once when the limit is taken away, and is asked once. */
static void
a_limit_can_be_taken_away(void **state)
{
	struct throttle_place p = {.ready = count_turn};
	struct lc_err e = LC_ERR_INIT;
	unsigned turns = 0, n = 0;
	struct throttle *t;
	uv_loop_t loop;

	(void)state;
	p.arg = &turns;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(throttle_new(&loop, THROTTLE_MIN, &t, &e), 0);
	assert_int_equal(throttle_rate(t), THROTTLE_MIN);
	while (throttle_take(t, &p, 1000) > 0)
		n++;
	assert_true(n < 10 && p.waits);
	throttle_set(t, 0);
	assert_int_equal(throttle_rate(t), 0);
	run_for(&loop, 20);
	assert_false(p.waits);
	assert_int_equal(turns, 1);
	assert_int_equal(throttle_take(t, &p, 1000000), 1000000);
	assert_int_equal(throttle_rate(NULL), 0);
	bucket_end(&loop, t);
}

/* ---- two sites ---- */

struct scene {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite h;
};

static void
make(struct scene *x, uint64_t rate, uint64_t host_rate)
{
	struct lc_err e = LC_ERR_INIT;

	memset(x, 0, sizeof *x);
	assert_int_equal(uv_loop_init(&x->loop), 0);
	drsite_make(&x->d, &x->loop);
	x->d.host_rate = host_rate;
	drsite_start(&x->d);
	hostsite_make(&x->h, &x->loop, &x->d, "host-a");
	hostsite_pair(&x->h, &x->d);
	assert_int_equal(throttle_new(&x->loop, rate, &x->h.throttle, &e), 0);
}

static void
end(struct scene *x)
{
	hostsite_free(&x->h);
	throttle_close(x->h.throttle);
	drsite_free(&x->d);
	(void)uv_run(&x->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&x->loop), 0);
}

static struct vault_disk
big_disk(size_t n)
{
	struct vault_disk d = vault_disk("vda", n);
	size_t i;

	for (i = 0; i < n; i++)
		d.codes[i] = 5 * (i + 1); /* does not compress */
	return d;
}

static uint64_t
sent(const struct scene *x)
{
	struct uplink_stats st;

	uplink_stats(x->h.uplink, &st);
	return st.sent;
}

static bool
has_begun(void *arg)
{
	return sent(arg) > 64 * KIB;
}

/* The same at the lowest limit, at which that much takes four seconds. */
static bool
has_said_something(void *arg)
{
	return sent(arg) > THROTTLE_MIN;
}

/* Within a tenth; where all takes long, not more than that. */
static void
is_as_allowed(double is, double rate)
{
	assert_true(is <= rate * 1.1);
	assert_true(is >= rate * (SANITIZED ? 0.3 : 0.9));
}

/* Bytes a second on the wire, over some time from now on, against what they should be. */
static void
measure(struct scene *x, uint64_t rate, int64_t ms)
{
	int64_t began = clock_mono_ns();
	uint64_t from = sent(x);
	double is, s;

	run_for(&x->loop, ms);
	s = (double)(clock_mono_ns() - began) / 1e9;
	is = (double)(sent(x) - from) / s;
	(void)printf("%.2f MiB/s where %.2f are allowed (%+.1f%%)\n", is / (double)MIB,
	             (double)rate / (double)MIB, (is / (double)rate - 1) * 100);
	is_as_allowed(is, (double)rate);
}

static void
the_rate_is_kept_and_can_be_changed(void **state)
{
	struct vault_disk d = big_disk(640); /* 40 MiB */
	struct scene x;
	struct point p;

	(void)state;
	make(&x, 4 * MIB, 0);
	p = hostsite_backup(&x.h, "web01", &d);
	hostsite_connect(&x.h);
	assert_true(run_until(&x.loop, has_begun, &x, LONG_MS));
	measure(&x, 4 * MIB, 1500);
	throttle_set(x.h.throttle, 8 * MIB);
	run_for(&x.loop, 300);
	measure(&x, 8 * MIB, 1500);
	throttle_set(x.h.throttle, 256 * KIB);
	run_for(&x.loop, 300);
	measure(&x, 256 * KIB, 2000);
	throttle_set(x.h.throttle, 0);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, LONG_MS));
	assert_int_equal(x.h.downs, 0);
	hostsite_ends(&x.h, &x.d, &p, &d);
	vault_disk_free(&d);
	end(&x);
}

/* While a full one creeps, a point of another VM goes between its chunks. */
static void
a_small_point_does_not_wait(void **state)
{
	struct vault_disk d = big_disk(640), small = vault_disk("vda", 4);
	struct scene x;
	int64_t began;
	double s;

	(void)state;
	make(&x, 512 * KIB, 0);
	(void)hostsite_backup(&x.h, "web01", &d);
	hostsite_connect(&x.h);
	assert_true(run_until(&x.loop, has_begun, &x, LONG_MS));
	run_for(&x.loop, 1500);
	small.codes[1] = 5;
	began = clock_mono_ns();
	(void)hostsite_backup(&x.h, "db", &small);
	assert_true(run_until(&x.loop, hostsite_has_one, &x.h, LONG_MS));
	s = (double)(clock_mono_ns() - began) / 1e9;
	(void)printf("a small point took %.2f s\n", s);
	assert_true(s < (SANITIZED ? 10 : 2));
	vault_disk_free(&d);
	vault_disk_free(&small);
	end(&x);
}

/* A chunk takes longer than a side may be silent: nobody takes the other for dead. */
static void
a_very_low_limit_is_not_taken_for_death(void **state)
{
	struct vault_disk d = big_disk(3);
	struct scene x;
	struct point p;

	(void)state;
	make(&x, THROTTLE_MIN, 0);
	drsite_stop(&x.d);
	x.d.limits = x.h.limits = (struct session_limits){
	    .ping_ms = 300, .dead_ms = 1200, .stuck_ms = 2000};
	drsite_start(&x.d);
	p = hostsite_backup(&x.h, "web01", &d);
	hostsite_connect(&x.h);
	assert_true(run_until(&x.loop, has_said_something, &x, LONG_MS));
	measure(&x, THROTTLE_MIN, 4000);
	assert_int_equal(x.h.downs, 0);
	throttle_set(x.h.throttle, 0);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, LONG_MS));
	assert_int_equal(x.h.downs, 0);
	hostsite_ends(&x.h, &x.d, &p, &d);
	vault_disk_free(&d);
	end(&x);
}

/* One that is dead is noticed all the same, also while there is a limit. */
static bool
is_down(void *arg)
{
	return ((struct hostsite *)arg)->downs > 0;
}

static void
death_is_noticed_at_a_limit(void **state)
{
	struct scene x;

	(void)state;
	make(&x, THROTTLE_MIN, 0);
	x.h.limits = (struct session_limits){.ping_ms = 300, .dead_ms = 1200, .stuck_ms = 2000};
	{
		struct mole m; /* shakes hands, then hears nothing more */
		unsigned port = mole_serve(&m, &x.loop, &x.d.id);

		(void)snprintf(x.h.peer.at.port, sizeof x.h.peer.at.port, "%u", port % 65536);
		hostsite_begin(&x.h, NULL);
		assert_true(run_until(&x.loop, mole_is_open, &m, LONG_MS));
		mole_read(&m, false);
		assert_true(run_until(&x.loop, is_down, &x.h, 10000));
		assert_int_equal(x.h.why.code, LC_ETIMEDOUT);
		mole_end(&m);
		while (!m.closed)
			run_for(&x.loop, 5);
	}
	end(&x);
}

/* The replica reads a host no faster than it may, and the connection lives. */
static void
a_replica_can_limit_its_hosts(void **state)
{
	struct vault_disk d = big_disk(240);
	struct scene x;
	struct point p;
	int64_t began;
	double s, is;

	(void)state;
	make(&x, 0, 6 * MIB);
	p = hostsite_backup(&x.h, "web01", &d);
	hostsite_connect(&x.h);
	assert_true(run_until(&x.loop, hostsite_is_up, &x.h, LONG_MS));
	began = clock_mono_ns();
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, LONG_MS));
	s = (double)(clock_mono_ns() - began) / 1e9;
	is = (double)sent(&x) / s / (double)MIB;
	(void)printf("%.2f MiB/s where 6 are allowed\n", is);
	is_as_allowed(is, 6);
	assert_int_equal(x.h.downs, 0);
	hostsite_ends(&x.h, &x.d, &p, &d);
	vault_disk_free(&d);
	end(&x);
}

/* What the replica says of one host goes before what it says of each, and at once. */
static void
one_host_has_a_limit_of_its_own(void **state)
{
	struct limits l = {.rate_set = true, .rate = 512 * KIB};
	struct vault_disk d = big_disk(120);
	struct lc_err e = LC_ERR_INIT;
	struct scene x;

	(void)state;
	make(&x, 0, 64 * KIB);
	assert_int_equal(limits_write(x.d.dir, x.h.id.public, &l, &e), 0);
	(void)hostsite_backup(&x.h, "web01", &d);
	hostsite_connect(&x.h);
	assert_true(run_until(&x.loop, has_begun, &x, 10000));
	run_for(&x.loop, 1000);
	measure(&x, 512 * KIB, 2500);
	/* Given up, all of it goes over in the time that the limit would take for a tenth. */
	l.rate = 0;
	assert_int_equal(limits_write(x.d.dir, x.h.id.public, &l, &e), 0);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, 6000));
	l = (struct limits){.max_set = true, .max = 77};
	assert_int_equal(limits_write(x.d.dir, x.h.id.public, &l, &e), 0);
	assert_int_equal(limits_read(x.d.dir, x.h.id.public, &l, &e), 0);
	assert_true(l.max_set && l.max == 77 && !l.rate_set);
	l.max_set = false;
	assert_int_equal(limits_write(x.d.dir, x.h.id.public, &l, &e), 0);
	assert_int_equal(limits_read(x.d.dir, x.h.id.public, &l, &e), 0);
	assert_false(l.max_set);
	vault_disk_free(&d);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(two_share_it),
	    cmocka_unit_test(a_limit_can_be_taken_away),
	    cmocka_unit_test(the_rate_is_kept_and_can_be_changed),
	    cmocka_unit_test(a_small_point_does_not_wait),
	    cmocka_unit_test(a_very_low_limit_is_not_taken_for_death),
	    cmocka_unit_test(death_is_noticed_at_a_limit),
	    cmocka_unit_test(a_replica_can_limit_its_hosts),
	    cmocka_unit_test(one_host_has_a_limit_of_its_own),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

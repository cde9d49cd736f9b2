/*
 * A long wire: it is used, and a cut costs little.
 *
 * What is measured is printed; LOCUM_TEST_SEED repeats the moments.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"
#include "tests/lib/wan.h"

#define MIB (UINT64_C(1) << 20)
#define WINDOW_BYTES (8 * MIB) /* the replica's byte window */
#define LONG_MS 300000

struct far_apart {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite h;
	struct wan *w;
};

static uint64_t
seed_of_run(void)
{
	const char *s = getenv("LOCUM_TEST_SEED");
	uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : (uint64_t)clock_wall_ns();

	(void)printf("LOCUM_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static void
make(struct far_apart *x, int64_t delay_ms, uint64_t bytes_ps)
{
	struct wan_opts wo = {.loop = &x->loop, .delay_ms = delay_ms, .bytes_ps = bytes_ps};

	assert_int_equal(uv_loop_init(&x->loop), 0);
	drsite_make(&x->d, &x->loop);
	drsite_start(&x->d);
	hostsite_make(&x->h, &x->loop, &x->d, "host-a");
	hostsite_pair(&x->h, &x->d);
	wo.to = x->d.port;
	x->w = wan_start(&wo);
	(void)snprintf(x->h.peer.at.port, sizeof x->h.peer.at.port, "%u", wan_port(x->w) % 65536);
}

static void
done(struct far_apart *x)
{
	hostsite_free(&x->h);
	wan_stop(x->w);
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

static void
wait_for(struct far_apart *x, bool (*condition)(void *arg), void *arg)
{
	if (!run_until(&x->loop, condition, arg, LONG_MS))
		fail_msg("too long; last: %s", x->h.why.msg);
}

static bool
has_begun(void *arg)
{
	return wan_up_bytes(((struct far_apart *)arg)->w) > MIB;
}

/* 150 ms there and back, 6 MiB a second: a first full uses nine tenths of the wire, and beside what
 * it is about sends next to nothing. */
static void
a_first_full_uses_the_wire(void **state)
{
	enum { WINDOWS = 512 };
	const uint64_t rate = 6 * MIB;
	struct vault_disk d = big_disk(WINDOWS); /* 32 MiB */
	uint64_t from, bytes;
	struct far_apart x;
	struct point p;
	int64_t began;
	double used, s;

	(void)state;
	make(&x, 75, rate);
	p = hostsite_backup(&x.h, "web01", &d);
	hostsite_connect(&x.h);
	wait_for(&x, has_begun, &x);
	began = clock_mono_ns();
	from = wan_up_bytes(x.w);
	wait_for(&x, hostsite_is_idle, &x.h);
	s = (double)(clock_mono_ns() - began) / 1e9;
	bytes = wan_up_bytes(x.w) - from;
	used = (double)bytes / s / (double)rate;
	(void)printf("%.1f MiB in %.2f s: %.0f%% of the wire; %.2f%% beside the chunks\n",
	             (double)bytes / 1048576, s, used * 100,
	             (double)(wan_up_bytes(x.w) - WINDOWS * WINDOW_SIZE) * 100 /
	                 (WINDOWS * WINDOW_SIZE));
	assert_true(used >= (SANITIZED ? 0.3 : 0.9));
	assert_true(wan_up_bytes(x.w) < WINDOWS * WINDOW_SIZE * 101 / 100);
	hostsite_ends(&x.h, &x.d, &p, &d);
	vault_disk_free(&d);
	done(&x);
}

struct stalling {
	struct far_apart *x;
	uint64_t seed;
	bool silent;
	int64_t since_ns, until_ns, silent_ns;
	unsigned n;
};

static bool
stall_on(void *arg)
{
	struct stalling *st = arg;
	int64_t now = clock_mono_ns();

	if (now >= st->until_ns) {
		st->silent_ns += st->silent ? now - st->since_ns : 0;
		st->silent = !st->silent;
		st->n += st->silent ? 1 : 0;
		st->since_ns = now;
		st->until_ns = now + (int64_t)(st->silent ? 200 + vault_random(&st->seed, 1300)
		                                          : 500 + vault_random(&st->seed, 1000)) *
		                         LC_NS_PER_MS;
		wan_silence(st->x->w, st->silent);
	}
	return hostsite_is_idle(&st->x->h);
}

/* The same wire stands still for up to 1.5 s again and again: nobody hangs up, and what it carries
 * in between is not less. */
static void
stalls_are_waited_out(void **state)
{
	const uint64_t rate = 6 * MIB;
	struct vault_disk d = big_disk(320);
	struct stalling st = {.seed = seed_of_run()};
	struct far_apart x;
	struct point p;
	int64_t began;
	uint64_t from;
	double s, used;

	(void)state;
	make(&x, 75, rate);
	p = hostsite_backup(&x.h, "web01", &d);
	hostsite_connect(&x.h);
	wait_for(&x, has_begun, &x);
	st.x = &x;
	began = clock_mono_ns();
	st.until_ns = began + LC_NS_PER_S / 2;
	from = wan_up_bytes(x.w);
	wait_for(&x, stall_on, &st);
	st.silent_ns += st.silent ? clock_mono_ns() - st.since_ns : 0;
	wan_silence(x.w, false);
	s = (double)(clock_mono_ns() - began - st.silent_ns) / 1e9;
	used = (double)(wan_up_bytes(x.w) - from) / s / (double)rate;
	(void)printf("%u stalls of %.1f s in all: %.0f%% of the wire in between\n", st.n,
	             (double)st.silent_ns / 1e9, used * 100);
	assert_true(st.n >= 2);
	assert_int_equal(x.h.downs, 0);
	assert_int_equal(wan_connections(x.w), 1);
	assert_true(used >= (SANITIZED ? 0.3 : 0.75));
	hostsite_ends(&x.h, &x.d, &p, &d);
	vault_disk_free(&d);
	done(&x);
}

struct cutting {
	struct far_apart *x;
	unsigned seen, most;
	uint64_t seed;
};

static bool
cut_on(void *arg)
{
	struct cutting *c = arg;

	if (c->seen != wan_cuts(c->x->w)) {
		c->seen = wan_cuts(c->x->w);
		if (c->seen < c->most)
			wan_cut_after(c->x->w, 1000 + vault_random(&c->seed, MIB));
	}
	return hostsite_is_idle(&c->x->h);
}

/* Fifty cuts, where all takes longer twenty: none costs more than what was on the way, and that is
 * little. */
static void
fifty_cuts_cost_little(void **state)
{
	const uint64_t windows = SANITIZED ? 256 : 640;
	struct vault_disk d = big_disk(windows);
	struct cutting c = {.seed = seed_of_run(), .most = SANITIZED ? 20 : 50};
	struct far_apart x;
	struct point p;
	uint64_t again;

	(void)state;
	make(&x, 10, 40 * MIB);
	x.h.retry_ms = 20;
	c.x = &x;
	p = hostsite_backup(&x.h, "web01", &d);
	wan_cut_after(x.w, MIB);
	hostsite_connect(&x.h);
	wait_for(&x, cut_on, &c);
	again = wan_up_bytes(x.w) - windows * WINDOW_SIZE;
	(void)printf("%u cuts, %.1f MiB again: %.0f KiB each\n", c.seen, (double)again / 1048576,
	             (double)again / 1024 / c.seen);
	assert_int_equal(c.seen, c.most);
	assert_true(again <= c.seen * WINDOW_BYTES);
	assert_true(again <= c.seen * MIB / 2); /* what came before a cut is kept */
	hostsite_ends(&x.h, &x.d, &p, &d);
	vault_disk_free(&d);
	done(&x);
}

/* While one VM's first full is under way, a small point of another one is there soon: it does not
 * wait behind all that the byte window lets. */
static void
a_small_point_does_not_wait_for_a_full_one(void **state)
{
	struct vault_disk d = big_disk(640), small = vault_disk("vda", 4);
	struct far_apart x;
	int64_t began;
	double s;

	(void)state;
	make(&x, 20, 2 * MIB); /* the full one takes 20 s, a byte window 4 s */
	(void)hostsite_backup(&x.h, "web01", &d);
	hostsite_connect(&x.h);
	wait_for(&x, has_begun, &x);
	run_for(&x.loop, 2000);
	small.codes[1] = 5;
	began = clock_mono_ns();
	(void)hostsite_backup(&x.h, "db", &small);
	wait_for(&x, hostsite_has_one, &x.h);
	s = (double)(clock_mono_ns() - began) / 1e9;
	(void)printf("a small point took %.2f s\n", s);
	assert_true(s < (SANITIZED ? 10 : 2));
	vault_disk_free(&d);
	vault_disk_free(&small);
	done(&x);
}

/* Down for long: the points wait here, and arrive as points.  LOCUM_TEST_POINTS: how many. */
static void
every_point_arrives_after_a_long_time_down(void **state)
{
	const char *points = getenv("LOCUM_TEST_POINTS");
	size_t n = points != NULL ? strtoul(points, NULL, 10) : 40, i;
	struct vault_disk *d = lc_alloc_array(n, sizeof *d);
	struct point *p = lc_alloc_array(n, sizeof *p);
	struct far_apart x;
	int64_t began;

	(void)state;
	assert_true(d != NULL && p != NULL && n > 0);
	make(&x, 20, 0);
	hostsite_connect(&x.h);
	wait_for(&x, hostsite_is_up, &x.h);
	wan_down(x.w, true);
	wan_cut(x.w);
	wait_for(&x, hostsite_is_down, &x.h);
	for (i = 0; i < n; i++) {
		d[i] = i == 0 ? big_disk(20) : vault_disk_copy(&d[i - 1]);
		d[i].codes[i % 20] = 5 * (100 + i);
		p[i] = hostsite_backup(&x.h, i % 2 == 0 ? "web01" : "db", &d[i]);
		run_for(&x.loop, 20);
	}
	wan_down(x.w, false);
	began = clock_mono_ns();
	wait_for(&x, hostsite_is_idle, &x.h);
	(void)printf("%zu points in %.1f s\n", n, (double)(clock_mono_ns() - began) / 1e9);
	assert_int_equal(x.h.committed, n);
	hostsite_disconnect(&x.h);
	drsite_stop(&x.d);
	for (i = 0; i < n; i++) {
		hostsite_arrived(&x.h, &x.d, &p[i], &d[i]);
		point_done(&p[i]);
		vault_disk_free(&d[i]);
	}
	lc_free(d);
	lc_free(p);
	done(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_first_full_uses_the_wire),
	    cmocka_unit_test(stalls_are_waited_out),
	    cmocka_unit_test(fifty_cuts_cost_little),
	    cmocka_unit_test(a_small_point_does_not_wait_for_a_full_one),
	    cmocka_unit_test(every_point_arrives_after_a_long_time_down),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

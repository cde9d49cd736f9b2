/*
 * Both ends of a connection over real sockets: that they meet, part and meet again, at any moment,
 * whatever the other side does or does not do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/channel.h"
#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/two.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"
#include "tests/lib/wan.h"

static uint64_t
seed_of_run(void)
{
	const char *s = getenv("LOCUM_TEST_SEED");
	uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : (uint64_t)clock_wall_ns();

	(void)printf("LOCUM_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static bool
is_welcome(void *arg)
{
	const struct mole *m = arg;

	return m->of_type[MESSAGE_WELCOME] > 0 || m->over;
}

/* ---- in order ---- */

static void
points_go_over_and_go_on_after_a_stop(void **state)
{
	struct vault_disk a = vault_disk("vda", 40), b = two_disk(10);
	struct point p, q, r;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	a.codes[3] = 7;
	p = hostsite_backup(&t.h, "web01", &a);
	q = hostsite_backup(&t.h, "db", &b);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	assert_int_equal(t.h.committed, 2);
	drsite_stop(&t.d);
	two_wait(&t, hostsite_is_down, &t.h, "down");
	hostsite_arrived(&t.h, &t.d, &p, &a);
	hostsite_arrived(&t.h, &t.d, &q, &b);
	a.codes[4] = 8;
	r = hostsite_backup(&t.h, "web01", &a);
	drsite_start(&t.d);
	two_wait(&t, hostsite_is_idle, &t.h, "the rest there");
	assert_int_equal(t.h.committed, 3);
	assert_int_equal(t.h.failed, 0);
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &r, &a);
	vault_disk_free(&a);
	vault_disk_free(&b);
	two_done(&t);
}

/* ---- a replica that was put back ---- */

/* It says what it has, each time; what it lacks is sent again, also what was dropped in between
 * here, as rows of what followed. */
static void
an_older_copy_gets_again_what_it_lacks(void **state)
{
	struct vault_disk d[6];
	struct lc_err e = LC_ERR_INIT;
	struct point p[6];
	struct two t;
	char old[sizeof t.d.dir - 1], dir[sizeof t.d.dir - 8];
	size_t i;

	(void)state;
	two_make(&t, NULL);
	hostsite_connect(&t.h);
	for (i = 0; i < 6; i++) {
		d[i] = i == 0 ? two_disk(12) : vault_disk_copy(&d[i - 1]);
		d[i].codes[i] = 5 * (100 + i);
		p[i] = hostsite_backup(&t.h, "web01", &d[i]);
		two_wait(&t, hostsite_is_idle, &t.h, "all there");
		if (i != 1)
			continue;
		(void)snprintf(old, sizeof old, "%.280s.old", t.d.dir);
		(void)snprintf(dir, sizeof dir, "%.280s", t.d.dir);
		drsite_stop(&t.d);
		vault_copy(dir, old);
		drsite_start(&t.d);
		two_wait(&t, hostsite_is_up, &t.h, "up again");
	}
	assert_int_equal(t.h.nhas, 1);
	assert_memory_equal(t.h.has[0].id, p[5].id, 16);
	assert_int_equal(t.h.has[0].counter, 6);
	assert_string_equal(t.h.has[0].name, "web01");
	drsite_stop(&t.d);
	two_wait(&t, hostsite_is_down, &t.h, "down");
	hostsite_disconnect(&t.h);
	must(store_drop(t.h.v.s, p[1].id, &e), &e); /* the one that it is back at */
	must(store_drop(t.h.v.s, p[3].id, &e), &e);
	(void)snprintf(t.d.dir, sizeof t.d.dir, "%s", old);
	t.h.committed = t.h.asked = 0;
	drsite_start(&t.d);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there again");
	assert_int_equal(t.h.asked, 1);
	assert_int_equal(t.h.committed, 3);
	assert_memory_equal(t.h.has[0].id, p[5].id, 16);
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	for (i = 0; i < 6; i++) {
		if (i != 3)
			hostsite_arrived(&t.h, &t.d, &p[i], &d[i]);
		vault_disk_free(&d[i]);
	}
	two_done(&t);
}

/* ---- peers that are not there ---- */

struct deaf { /* takes connections and never says a word */
	uv_tcp_t listening, taken[8];
	unsigned n, open;
	unsigned port;
};

static void
on_deaf_connection(uv_stream_t *s, int status)
{
	struct deaf *x = s->data;

	if (status != 0 || x->n >= 8)
		return;
	(void)uv_tcp_init(s->loop, &x->taken[x->n]);
	x->taken[x->n].data = x;
	if (uv_accept(s, (uv_stream_t *)&x->taken[x->n]) == 0)
		x->open++;
	x->n++;
}

static void
deaf_start(struct deaf *x, uv_loop_t *loop)
{
	struct sockaddr_in a;
	int n = sizeof a;

	memset(x, 0, sizeof *x);
	assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &a), 0);
	assert_int_equal(uv_tcp_init(loop, &x->listening), 0);
	x->listening.data = x;
	assert_int_equal(uv_tcp_bind(&x->listening, (const struct sockaddr *)(const void *)&a, 0),
	                 0);
	assert_int_equal(uv_listen((uv_stream_t *)&x->listening, 8, on_deaf_connection), 0);
	assert_int_equal(uv_tcp_getsockname(&x->listening, (struct sockaddr *)(void *)&a, &n), 0);
	x->port = ntohs(a.sin_port);
}

static void
deaf_stop(struct deaf *x, uv_loop_t *loop)
{
	unsigned i;

	uv_close((uv_handle_t *)&x->listening, NULL);
	for (i = 0; i < x->n; i++)
		uv_close((uv_handle_t *)&x->taken[i], NULL);
	run_for(loop, 5);
}

static void
a_replica_that_never_answers_is_given_up(void **state)
{
	struct deaf deaf;
	struct two t;
	int64_t began;

	(void)state;
	two_make(&t, &two_quick);
	deaf_start(&deaf, &t.loop);
	(void)snprintf(t.h.peer.at.port, sizeof t.h.peer.at.port, "%u", deaf.port % 65536);
	began = clock_mono_ns();
	assert_int_equal(hostsite_try(&t.h, NULL), LC_ETIMEDOUT);
	assert_true(clock_mono_ns() - began < 3 * LC_NS_PER_S);
	hostsite_connect(&t.h); /* and stopping does not wait for it */
	run_for(&t.loop, 50);
	hostsite_disconnect(&t.h);
	deaf_stop(&deaf, &t.loop);
	two_done(&t);
}

/* The wire goes silent with the connection open: both sides notice, and meet again. */
static void
a_half_open_connection_is_noticed(void **state)
{
	struct vault_disk d = two_disk(30);
	struct wan_opts wo = {.delay_ms = 5};
	struct point p;
	struct wan *w;
	struct two t;
	int64_t began;

	(void)state;
	two_make(&t, &two_quick);
	wo.loop = &t.loop;
	wo.to = t.d.port;
	w = wan_start(&wo);
	(void)snprintf(t.h.peer.at.port, sizeof t.h.peer.at.port, "%u", wan_port(w) % 65536);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	run_for(&t.loop, 1000); /* nothing to say: pings keep it alive */
	assert_int_equal(t.h.downs, 0);
	wan_silence(w, true);
	began = clock_mono_ns();
	p = hostsite_backup(&t.h, "web01", &d);
	two_wait(&t, hostsite_is_down, &t.h, "noticed here");
	assert_int_equal(t.h.why.code, LC_ETIMEDOUT);
	assert_true(clock_mono_ns() - began < 3 * LC_NS_PER_S);
	two_wait(&t, two_is_left, &t, "noticed there");
	wan_silence(w, false);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	wan_stop(w);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	vault_disk_free(&d);
	two_done(&t);
}

/* ---- stopping at any moment ---- */

struct alarm {
	uv_timer_t timer;
	struct two *t;
	bool rang, stopped;
	bool server;
};

static void
on_gone(void *arg)
{
	((struct alarm *)arg)->stopped = true;
}

static void
on_alarm(uv_timer_t *timer)
{
	struct alarm *x = timer->data;

	x->rang = true;
	if (x->server) {
		server_stop(x->t->d.server, on_gone, x);
		x->t->d.server = NULL;
	} else {
		uplink_stop(x->t->h.uplink, on_gone, x);
		x->t->h.uplink = NULL;
	}
}

static bool
alarm_over(void *arg)
{
	return ((struct alarm *)arg)->stopped;
}

static void
either_side_may_stop_at_any_moment(void **state)
{
	struct vault_disk d = two_disk(60);
	uint64_t seed = seed_of_run();
	struct point p = {0};
	struct two t;
	unsigned i;

	(void)state;
	two_make(&t, NULL);
	for (i = 0; i < 60; i++) {
		struct alarm x = {.t = &t, .server = vault_random(&seed, 2) == 0};

		d.codes[vault_random(&seed, 60)] = 5 * (1000 + i);
		d.codes[vault_random(&seed, 60)] = 5 * (2000 + i);
		p = hostsite_backup(&t.h, "web01", &d);
		if (t.d.server == NULL)
			drsite_start(&t.d);
		if (t.h.uplink == NULL)
			hostsite_connect(&t.h);
		assert_int_equal(uv_timer_init(&t.loop, &x.timer), 0);
		x.timer.data = &x;
		assert_int_equal(uv_timer_start(&x.timer, on_alarm, vault_random(&seed, 40), 0), 0);
		two_wait(&t, alarm_over, &x, "stopped");
		uv_close((uv_handle_t *)&x.timer, NULL);
		(void)uv_run(&t.loop, UV_RUN_NOWAIT);
	}
	if (t.d.server == NULL)
		drsite_start(&t.d);
	if (t.h.uplink == NULL)
		hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	vault_disk_free(&d);
	two_done(&t);
}

/* ---- floods ---- */

static size_t
memory_kb(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long all = 0, resident = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &all, &resident), 2); /* NOLINT(cert-err34-c) */
	(void)fclose(f);
	return resident * 4;
}

static void
hello_of(struct two *t, struct lc_buf *body)
{
	struct hello m = {.version = MESSAGE_VERSION, .wall_ns = clock_wall_ns(), .name = "host-a"};
	struct lc_buf keys = {0};
	struct lc_err e = LC_ERR_INIT;

	memcpy(m.domain, transfer_domain(t->h.v.s), sizeof m.domain);
	must(transfer_keys(t->h.v.s, &keys, &e), &e);
	m.keys = (struct lc_span){keys.p, keys.n};
	must(message_put_hello(body, &m), &e);
	lc_buf_free(&keys);
}

/* A captured host that is let in and then reads nothing; its HEADS has a long answer. */
static void
begin_deaf(struct two *t, struct mole *m)
{
	struct vault_disk d = vault_disk("vda", 2);
	struct lc_buf hello = {0};
	char vm[16];
	size_t i;

	two_make(t, NULL);
	d.codes[0] = 3;
	for (i = 0; i < 40; i++) {
		(void)snprintf(vm, sizeof vm, "vm%zu", i);
		(void)hostsite_backup(&t->h, vm, &d);
	}
	hostsite_connect(&t->h);
	two_wait(t, hostsite_is_idle, &t->h, "all there");
	hostsite_disconnect(&t->h);
	hello_of(t, &hello);
	mole_start(m, &t->loop, t->d.port, &t->h.id, t->d.id.public);
	mole_say(m, MESSAGE_HELLO, (struct lc_span){hello.p, hello.n});
	two_wait(t, mole_is_open, m, "open");
	two_wait(t, is_welcome, m, "WELCOME");
	assert_int_equal(m->of_type[MESSAGE_WELCOME], 1);
	mole_read(m, false);
	lc_buf_free(&hello);
	vault_disk_free(&d);
}

/* A captured host asks and asks and reads no answer: its own messages stop, and nothing piles up.
 */
static void
who_does_not_read_is_not_answered_for_ever(void **state)
{
	uint8_t ping[8] = {0};
	struct mole m;
	struct two t;
	size_t before, i, k, said = 0;

	(void)state;
	begin_deaf(&t, &m);
	before = memory_kb();
	for (i = 0; i < 200 && mole_unsent(&m) < (8u << 20); i++) {
		for (k = 0; k < 5000; k++) {
			mole_say(&m, MESSAGE_HEADS, (struct lc_span){0});
			mole_say(&m, MESSAGE_PING, (struct lc_span){ping, 8});
		}
		said += k * 2;
		run_for(&t.loop, 5);
	}
	(void)printf("%zu messages, %zu KiB more\n", said, memory_kb() - before);
	if (!SANITIZED) /* they keep what was freed */
		assert_true(memory_kb() - before < (96u << 10));
	mole_end(&m);
	run_for(&t.loop, 20);
	two_done(&t);
}

#define QUESTIONS 1000u

/* It closes while what it was told before has yet to go out: what it asked is answered. */
static void
who_closes_is_answered_before(void **state)
{
	struct mole m;
	struct two t;
	size_t i;

	(void)state;
	begin_deaf(&t, &m);
	for (i = 0; i < QUESTIONS; i++)
		mole_say(&m, MESSAGE_HEADS, (struct lc_span){0});
	run_for(&t.loop, 300);
	assert_int_equal(channel_close(m.channel, NULL), 0);
	mole_read(&m, true); /* and says so, when it has read something */
	two_wait(&t, mole_is_over, &m, "the end");
	assert_int_equal(m.of_type[MESSAGE_HEADS_END], QUESTIONS);
	mole_end(&m);
	run_for(&t.loop, 20);
	two_done(&t);
}

/* It is there, says PING, and takes nothing: given up. */
static void
who_does_not_read_has_to_go(void **state)
{
	struct vault_disk d = vault_disk("vda", 2);
	struct lc_buf hello = {0};
	uint8_t ping[8] = {0};
	struct mole m;
	struct two t;
	size_t i;

	(void)state;
	two_make(&t, &two_quick);
	d.codes[0] = 3;
	(void)hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	hello_of(&t, &hello);
	mole_start(&m, &t.loop, t.d.port, &t.h.id, t.d.id.public);
	mole_say(&m, MESSAGE_HELLO, (struct lc_span){hello.p, hello.n});
	two_wait(&t, is_welcome, &m, "WELCOME");
	assert_int_equal(m.of_type[MESSAGE_WELCOME], 1);
	mole_read(&m, false);
	for (i = 0; i < 40000; i++) /* its answers are more than sockets hold */
		mole_say(&m, MESSAGE_HEADS, (struct lc_span){0});
	for (i = 0; i < 300 && server_guests(t.d.server) > 0; i++) {
		mole_say(&m, MESSAGE_PING, (struct lc_span){ping, 8});
		run_for(&t.loop, 20);
	}
	assert_int_equal(server_guests(t.d.server), 0);
	mole_end(&m);
	run_for(&t.loop, 20);
	lc_buf_free(&hello);
	vault_disk_free(&d);
	two_done(&t);
}

/* ---- told ---- */

static void
the_status_tells_hosts_and_opaque_vms(void **state)
{
	struct vault_disk d = two_disk(3);
	struct point p;
	char *text = NULL, hex[33];
	size_t n = 0;
	struct two t;
	FILE *f;

	(void)state;
	two_make(&t, NULL);
	p = hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	f = open_memstream(&text, &n);
	assert_non_null(f);
	server_status(t.d.server, f);
	assert_int_equal(fclose(f), 0);
	assert_non_null(strstr(text, "\"role\": \"replica\""));
	assert_non_null(strstr(text, "\"name\": \"host-a\""));
	assert_non_null(strstr(text, "\"connected\": true"));
	assert_non_null(strstr(text, "\"points\": 1"));
	assert_non_null(strstr(text, lc_hex(hex, p.vm_id, 16)));
	assert_null(strstr(text, "web01")); /* the replica is blind */
	free(text);
	vault_disk_free(&d);
	two_done(&t);
}

static void
note_last(void *arg, const struct server_host *h)
{
	*(int64_t *)arg = h->last_ns;
}

/* Not the time when it came, which is that of the link. */
static void
a_point_is_as_old_as_what_it_shows(void **state)
{
	struct vault_disk d = two_disk(3);
	int64_t last = 0;
	struct point p;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	p = hostsite_backup(&t.h, "web01", &d);
	run_for(&t.loop, 20);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	server_hosts(t.d.server, note_last, &last);
	assert_true(last == p.source_ns);
	vault_disk_free(&d);
	two_done(&t);
}

/* ---- no memory ---- */

static void
allocations_that_fail_do_no_harm(void **state)
{
	struct vault_disk d = two_disk(8);
	struct point p = {0};
	struct two t;
	long i;

	(void)state;
	two_make(&t, &two_quick);
	for (i = 0; i < 120; i++) {
		d.codes[i % 8] = 5 * (100 + (uint64_t)i);
		p = hostsite_backup(&t.h, "web01", &d);
		hostsite_connect(&t.h);
		lc_alloc_fail_after(i);
		run_for(&t.loop, 15);
		lc_alloc_fail_after(-1);
		hostsite_disconnect(&t.h);
	}
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	vault_disk_free(&d);
	two_done(&t);
}

/* Its drop may take long, or be given up: nobody comes to tell. */
static void
what_is_being_dropped_goes_when_it_stays(void **state)
{
	struct vault_disk d = two_disk(2);
	struct lc_err e = LC_ERR_INIT;
	char *path = NULL;
	struct point p;
	struct two t;
	int bar = -1;

	(void)state;
	two_make(&t, NULL);
	p = hostsite_backup(&t.h, "web01", &d);
	must(lease_bar(t.h.v.s, p.id, &path, &bar, &e), &e);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	run_for(&t.loop, 500);
	assert_int_equal(t.h.failed, 0);
	assert_int_equal(t.h.idles, 0);
	lease_give(&path, &bar);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	assert_int_equal(t.h.failed, 0);
	assert_int_equal(t.h.committed, 1);
	hostsite_ends(&t.h, &t.d, &p, &d);
	point_done(&p);
	vault_disk_free(&d);
	two_done(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(points_go_over_and_go_on_after_a_stop),
	    cmocka_unit_test(an_older_copy_gets_again_what_it_lacks),
	    cmocka_unit_test(a_replica_that_never_answers_is_given_up),
	    cmocka_unit_test(a_half_open_connection_is_noticed),
	    cmocka_unit_test(either_side_may_stop_at_any_moment),
	    cmocka_unit_test(who_does_not_read_is_not_answered_for_ever),
	    cmocka_unit_test(who_closes_is_answered_before),
	    cmocka_unit_test(who_does_not_read_has_to_go),
	    cmocka_unit_test(the_status_tells_hosts_and_opaque_vms),
	    cmocka_unit_test(a_point_is_as_old_as_what_it_shows),
	    cmocka_unit_test(what_is_being_dropped_goes_when_it_stays),
	    cmocka_unit_test(allocations_that_fail_do_no_harm),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

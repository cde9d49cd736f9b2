/*
 * Both ends of a connection over real sockets: that they meet, part and meet again, at any moment,
 * whatever the other side does or does not do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/message.h"
#include "replicator/noise.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"
#include "tests/lib/wan.h"

#define SOON_MS 30000

struct two {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite h;
};

static const struct session_limits quick = {
    .connect_ms = 500, .ping_ms = 100, .dead_ms = 400, .stuck_ms = 800, .linger_ms = 200};

static uint64_t
seed_of_run(void)
{
	const char *s = getenv("LOCUM_TEST_SEED");
	uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : (uint64_t)clock_wall_ns();

	(void)printf("LOCUM_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* Two sites; paired, not connected. */
static void
make(struct two *t, const struct session_limits *limits)
{
	assert_int_equal(uv_loop_init(&t->loop), 0);
	drsite_make(&t->d, &t->loop);
	if (limits != NULL)
		t->d.limits = *limits;
	drsite_start(&t->d);
	hostsite_make(&t->h, &t->loop, &t->d, "host-a");
	if (limits != NULL)
		t->h.limits = *limits;
	hostsite_pair(&t->h, &t->d);
}

static void
done(struct two *t)
{
	hostsite_free(&t->h);
	drsite_free(&t->d);
	(void)uv_run(&t->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&t->loop), 0);
}

static void
wait_for(struct two *t, bool (*condition)(void *arg), void *arg, const char *what)
{
	if (!run_until(&t->loop, condition, arg, SOON_MS))
		fail_msg("%s did not come about (last: %s)", what, t->h.why.msg);
}

static bool
is_welcome(void *arg)
{
	const struct mole *m = arg;

	return m->of_type[MESSAGE_WELCOME] > 0 || m->over;
}

/* n windows that do not compress. */
static struct vault_disk
big_disk(size_t n)
{
	struct vault_disk d = vault_disk("vda", n);
	size_t i;

	for (i = 0; i < n; i++)
		d.codes[i] = 5 * (i + 1);
	return d;
}

/* ---- in order ---- */

static void
points_go_over_and_go_on_after_a_stop(void **state)
{
	struct vault_disk a = vault_disk("vda", 40), b = big_disk(10);
	struct point p, q, r;
	struct two t;

	(void)state;
	make(&t, NULL);
	a.codes[3] = 7;
	p = hostsite_backup(&t.h, "web01", &a);
	q = hostsite_backup(&t.h, "db", &b);
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	assert_int_equal(t.h.committed, 2);
	drsite_stop(&t.d);
	wait_for(&t, hostsite_is_down, &t.h, "down");
	hostsite_arrived(&t.h, &t.d, &p, &a);
	hostsite_arrived(&t.h, &t.d, &q, &b);
	a.codes[4] = 8;
	r = hostsite_backup(&t.h, "web01", &a);
	drsite_start(&t.d);
	wait_for(&t, hostsite_is_idle, &t.h, "the rest there");
	assert_int_equal(t.h.committed, 3);
	assert_int_equal(t.h.failed, 0);
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &r, &a);
	vault_disk_free(&a);
	vault_disk_free(&b);
	done(&t);
}

static void
strangers_and_wrong_keys_are_told(void **state)
{
	uint8_t secret[32] = {1};
	struct hostsite x;
	enum lc_code rc;
	struct two t;

	(void)state;
	make(&t, NULL);
	hostsite_make(&x, &t.loop, &t.d, "host-x");
	assert_int_equal(hostsite_try(&x, NULL), LC_ENOENT);
	assert_non_null(strstr(x.why.msg, "not paired"));
	assert_null(strstr(x.why.msg, "0000-0000-0000")); /* its own fingerprint */
	do /* its connection of before may not be closed there yet */
		rc = hostsite_try(&x, secret);
	while (rc == LC_EBUSY);
	assert_int_equal(rc, LC_EACCES);
	x.peer.key[5] ^= 1; /* another replica than the one that answers */
	assert_int_not_equal(hostsite_try(&x, NULL), LC_OK);
	hostsite_free(&x);
	done(&t);
}

static void
reopen_host(struct two *t)
{
	hostsite_disconnect(&t->h);
	vault_close(&t->h.v);
	vault_open(&t->h.v);
}

static void
all_there(struct two *t, const struct point *p, const struct vault_disk *d)
{
	hostsite_connect(&t->h);
	wait_for(t, hostsite_is_idle, &t->h, "all there");
	hostsite_disconnect(&t->h);
	drsite_stop(&t->d); /* so that its store is closed, and opened anew next time */
	hostsite_arrived(&t->h, &t->d, p, d);
	drsite_start(&t->d);
}

/* A new data key at the host; the replica, which cannot open it, takes its seal up, and the code
 * opens what is sealed with it there. */
static void
a_host_that_rotated_goes_on(void **state)
{
	struct vault_disk d = vault_disk("vda", 8);
	struct lc_err e = LC_ERR_INIT;
	struct keyring *k = NULL;
	char key[640], old[400];
	struct point p;
	struct two t;
	unsigned i;

	(void)state;
	make(&t, NULL);
	(void)snprintf(old, sizeof old, "%s/old.key", t.h.v.top);
	(void)snprintf(key, sizeof key, "%s", vault_key_file(&t.h.v));
	vault_copy(key, old);
	for (i = 0; i < 3; i++) {
		d.codes[i] = 100 + i;
		p = hostsite_backup(&t.h, "web01", &d);
		all_there(&t, &p, &d);
		if (i < 2)
			must(store_rotate(t.h.v.s, t.h.v.keys, &e), &e);
	}
	/* Killed when the key file was written and the store not yet. */
	must(keyring_load(key, &k, &e), &e);
	must(keyring_rotate(k, &e), &e);
	must(keyring_save(k, key, &e), &e);
	reopen_host(&t);
	d.codes[5] = 500;
	p = hostsite_backup(&t.h, "web01", &d);
	all_there(&t, &p, &d);
	/* An older copy of the key file: it would seal with keys that were given up. */
	assert_int_equal(remove(key), 0);
	vault_copy(old, key);
	reopen_host(&t);
	assert_int_equal(hostsite_try(&t.h, NULL), LC_EKEY);
	assert_non_null(strstr(t.h.why.msg, "older copy"));
	assert_non_null(strstr(t.h.why.msg, "locum key recover"));
	/* With the code the host gets all of them back. */
	vault_close(&t.h.v);
	{
		struct store_opts o = {.dir = t.h.v.dir, .recovery_code = t.h.v.code};
		struct store *s;

		must(store_open(&o, &s, &e), &e);
		must(store_save_key(s, t.h.v.keys, &e), &e);
		store_close(s);
	}
	vault_open(&t.h.v);
	d.codes[6] = 600;
	p = hostsite_backup(&t.h, "web01", &d);
	all_there(&t, &p, &d);
	keyring_free(k);
	vault_disk_free(&d);
	done(&t);
}

/* Its key is lost, its store and that of its domain are not: with a token that says so it goes on
 * in its old folder, and the old key, which may be connected, is out. */
static void
a_host_with_a_new_key_takes_its_place(void **state)
{
	struct vault_disk d = vault_disk("vda", 8);
	struct lc_err e = LC_ERR_INIT;
	struct hostsite x;
	uint8_t secret[32];
	char dir[512];
	struct point p;
	struct two t;

	(void)state;
	make(&t, NULL);
	d.codes[0] = 1;
	(void)hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	(void)snprintf(dir, sizeof dir, "%s", hostsite_dir_at(&t.h, &t.d));
	hostsite_make(&x, &t.loop, &t.d, "host-a");
	vault_close(&x.v);
	x.v.s = t.h.v.s; /* the same machine */
	must(writers_token(t.d.dir, 60 * LC_NS_PER_S, t.h.id.public, secret, &e), &e);
	assert_int_equal(hostsite_try(&x, secret), LC_OK);
	wait_for(&t, hostsite_is_down, &t.h, "the old one is out");
	hostsite_disconnect(&t.h);
	assert_int_equal(hostsite_try(&t.h, NULL), LC_EACCES);
	assert_string_equal(hostsite_dir_at(&x, &t.d), dir);
	x.ups = x.downs = x.committed = 0;
	d.codes[1] = 2;
	p = hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&x);
	wait_for(&t, hostsite_is_idle, &x, "the new one's point there");
	assert_int_equal(x.committed, 1); /* and nothing again */
	hostsite_disconnect(&x);
	drsite_stop(&t.d);
	memcpy(x.v.code, t.h.v.code, sizeof x.v.code);
	hostsite_arrived(&x, &t.d, &p, &d);
	x.v.s = NULL;
	hostsite_free(&x);
	vault_disk_free(&d);
	done(&t);
}

struct pair_of_hosts {
	struct hostsite *a, *b;
};

static bool
both_tried(void *arg)
{
	struct pair_of_hosts *x = arg;

	return x->a->ups + x->a->downs > 0 && x->b->ups + x->b->downs > 0;
}

/* The replica has two workers, and both hosts come at once. */
static void
one_token_lets_one_host_in(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct two t;
	unsigned i;

	(void)state;
	make(&t, NULL);
	for (i = 0; i < 20; i++) {
		struct hostsite a, b;
		struct pair_of_hosts both = {&a, &b};
		uint8_t secret[32];

		hostsite_make(&a, &t.loop, &t.d, "host-b");
		hostsite_make(&b, &t.loop, &t.d, "host-c");
		must(writers_token(t.d.dir, LC_NS_PER_S * 60, NULL, secret, &e), &e);
		hostsite_begin(&a, secret);
		hostsite_begin(&b, secret);
		wait_for(&t, both_tried, &both, "an answer");
		assert_int_equal((a.ups > 0) + (b.ups > 0), 1);
		hostsite_free(&a);
		hostsite_free(&b);
	}
	done(&t);
}

static void
a_second_connection_of_a_host_waits(void **state)
{
	struct vault_disk d = big_disk(4);
	struct hostsite twin;
	struct store *own;
	struct point p;
	struct two t;

	(void)state;
	make(&t, NULL);
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_up, &t.h, "up");
	hostsite_make(&twin, &t.loop, &t.d, "host-a");
	twin.id = t.h.id;
	own = twin.v.s;
	twin.v.s = t.h.v.s;
	assert_int_equal(hostsite_try(&twin, NULL), LC_EBUSY);
	twin.v.s = own;
	assert_non_null(strstr(twin.why.msg, "connected already"));
	p = hostsite_backup(&t.h, "web01", &d);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	assert_int_equal(t.h.downs, 0);
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	hostsite_free(&twin);
	vault_disk_free(&d);
	done(&t);
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
	make(&t, NULL);
	hostsite_connect(&t.h);
	for (i = 0; i < 6; i++) {
		d[i] = i == 0 ? big_disk(12) : vault_disk_copy(&d[i - 1]);
		d[i].codes[i] = 5 * (100 + i);
		p[i] = hostsite_backup(&t.h, "web01", &d[i]);
		wait_for(&t, hostsite_is_idle, &t.h, "all there");
		if (i != 1)
			continue;
		(void)snprintf(old, sizeof old, "%.280s.old", t.d.dir);
		(void)snprintf(dir, sizeof dir, "%.280s", t.d.dir);
		drsite_stop(&t.d);
		vault_copy(dir, old);
		drsite_start(&t.d);
		wait_for(&t, hostsite_is_up, &t.h, "up again");
	}
	assert_int_equal(t.h.nhas, 1);
	assert_memory_equal(t.h.has[0].id, p[5].id, 16);
	assert_int_equal(t.h.has[0].counter, 6);
	assert_string_equal(t.h.has[0].name, "web01");
	drsite_stop(&t.d);
	wait_for(&t, hostsite_is_down, &t.h, "down");
	hostsite_disconnect(&t.h);
	must(store_drop(t.h.v.s, p[1].id, &e), &e); /* the one that it is back at */
	must(store_drop(t.h.v.s, p[3].id, &e), &e);
	(void)snprintf(t.d.dir, sizeof t.d.dir, "%s", old);
	t.h.committed = t.h.asked = 0;
	drsite_start(&t.d);
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_idle, &t.h, "all there again");
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
	done(&t);
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
	make(&t, &quick);
	deaf_start(&deaf, &t.loop);
	(void)snprintf(t.h.peer.at.port, sizeof t.h.peer.at.port, "%u", deaf.port % 65536);
	began = clock_mono_ns();
	assert_int_equal(hostsite_try(&t.h, NULL), LC_ETIMEDOUT);
	assert_true(clock_mono_ns() - began < 3 * LC_NS_PER_S);
	hostsite_connect(&t.h); /* and stopping does not wait for it */
	run_for(&t.loop, 50);
	hostsite_disconnect(&t.h);
	deaf_stop(&deaf, &t.loop);
	done(&t);
}

static bool
nobody_is_there(void *arg)
{
	return server_guests(((struct two *)arg)->d.server) == 0;
}

/* The wire goes silent with the connection open: both sides notice, and meet again. */
static void
a_half_open_connection_is_noticed(void **state)
{
	struct vault_disk d = big_disk(30);
	struct wan_opts wo = {.delay_ms = 5};
	struct point p;
	struct wan *w;
	struct two t;
	int64_t began;

	(void)state;
	make(&t, &quick);
	wo.loop = &t.loop;
	wo.to = t.d.port;
	w = wan_start(&wo);
	(void)snprintf(t.h.peer.at.port, sizeof t.h.peer.at.port, "%u", wan_port(w) % 65536);
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_up, &t.h, "up");
	run_for(&t.loop, 1000); /* nothing to say: pings keep it alive */
	assert_int_equal(t.h.downs, 0);
	wan_silence(w, true);
	began = clock_mono_ns();
	p = hostsite_backup(&t.h, "web01", &d);
	wait_for(&t, hostsite_is_down, &t.h, "noticed here");
	assert_int_equal(t.h.why.code, LC_ETIMEDOUT);
	assert_true(clock_mono_ns() - began < 3 * LC_NS_PER_S);
	wait_for(&t, nobody_is_there, &t, "noticed there");
	wan_silence(w, false);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	wan_stop(w);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	vault_disk_free(&d);
	done(&t);
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
	struct vault_disk d = big_disk(60);
	uint64_t seed = seed_of_run();
	struct point p = {0};
	struct two t;
	unsigned i;

	(void)state;
	make(&t, NULL);
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
		wait_for(&t, alarm_over, &x, "stopped");
		uv_close((uv_handle_t *)&x.timer, NULL);
		(void)uv_run(&t.loop, UV_RUN_NOWAIT);
	}
	if (t.d.server == NULL)
		drsite_start(&t.d);
	if (t.h.uplink == NULL)
		hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	vault_disk_free(&d);
	done(&t);
}

/* ---- who takes a place ---- */

#define CROWD 40u

static bool
crowd_is_closed(void *arg)
{
	struct mole *m = arg;
	unsigned i, n = 0;

	for (i = 0; i < CROWD; i++)
		n += m[i].closed ? 1 : 0;
	return n == CROWD;
}

/* Some say nothing, some half of something, some open a channel and say nothing but PING. */
static void
strangers_do_not_keep_a_host_out(void **state)
{
	static struct mole m[CROWD];
	struct vault_disk d = big_disk(20);
	struct identity id;
	struct lc_err e = LC_ERR_INIT;
	struct point p;
	struct two t;
	unsigned i, round;

	(void)state;
	make(&t, NULL); /* with the real limits */
	for (i = 0; i < CROWD; i++) {
		must(noise_keypair(id.secret, id.public, &e), &e);
		mole_start(&m[i], &t.loop, t.d.port, i % 4 == 0 ? NULL : &id, t.d.id.public);
	}
	for (round = 0; round < 10; round++) {
		uint8_t ping[8] = {0};

		for (i = 0; i < CROWD; i++) {
			if (i % 4 == 0 && m[i].connected)
				mole_raw(&m[i], (struct lc_span){(const uint8_t *)"l", 1});
			else if (i % 4 != 0)
				mole_say(&m[i], MESSAGE_PING, (struct lc_span){ping, 8});
		}
		run_for(&t.loop, 10);
	}
	hostsite_connect(&t.h);
	p = hostsite_backup(&t.h, "web01", &d);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	assert_true(server_guests(t.d.server) <= 20);
	for (i = 0; i < CROWD; i++)
		mole_end(&m[i]);
	wait_for(&t, crowd_is_closed, m, "closed");
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	vault_disk_free(&d);
	done(&t);
}

/* A stranger that proves some key and then says nothing but PING is not let stay. */
static void
who_says_no_hello_has_to_go(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	uint8_t ping[8] = {0};
	struct identity id;
	struct mole m[2];
	struct two t;
	unsigned i;

	(void)state;
	make(&t, &quick);
	must(noise_keypair(id.secret, id.public, &e), &e);
	mole_start(&m[0], &t.loop, t.d.port, &id, t.d.id.public);
	mole_start(&m[1], &t.loop, t.d.port, &t.h.id, t.d.id.public); /* a paired one */
	for (i = 0; i < 200 && !(m[0].over && m[1].over); i++) {
		mole_say(&m[0], MESSAGE_PING, (struct lc_span){ping, 8});
		mole_say(&m[1], MESSAGE_PING, (struct lc_span){ping, 8});
		run_for(&t.loop, 20);
	}
	for (i = 0; i < 2; i++) {
		assert_true(m[i].over);
		assert_string_equal(m[i].refused, "it did not say who it is");
		mole_end(&m[i]);
	}
	run_for(&t.loop, 5);
	done(&t);
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

/* A captured host asks and asks and reads no answer: its own messages stop, and nothing piles up.
 */
static void
who_does_not_read_is_not_answered_for_ever(void **state)
{
	struct vault_disk d = vault_disk("vda", 2);
	struct lc_buf hello = {0};
	uint8_t ping[8] = {0};
	struct mole m;
	struct two t;
	char vm[16];
	size_t before, i, k, said = 0;

	(void)state;
	make(&t, NULL);
	d.codes[0] = 3;
	for (i = 0; i < 40; i++) { /* so that HEADS has a long answer */
		(void)snprintf(vm, sizeof vm, "vm%zu", i);
		(void)hostsite_backup(&t.h, vm, &d);
	}
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	hello_of(&t, &hello);
	mole_start(&m, &t.loop, t.d.port, &t.h.id, t.d.id.public);
	mole_say(&m, MESSAGE_HELLO, (struct lc_span){hello.p, hello.n});
	wait_for(&t, mole_is_open, &m, "open");
	wait_for(&t, is_welcome, &m, "WELCOME");
	assert_int_equal(m.of_type[MESSAGE_WELCOME], 1);
	mole_read(&m, false);
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
	lc_buf_free(&hello);
	vault_disk_free(&d);
	done(&t);
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
	make(&t, &quick);
	d.codes[0] = 3;
	(void)hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	hello_of(&t, &hello);
	mole_start(&m, &t.loop, t.d.port, &t.h.id, t.d.id.public);
	mole_say(&m, MESSAGE_HELLO, (struct lc_span){hello.p, hello.n});
	wait_for(&t, is_welcome, &m, "WELCOME");
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
	done(&t);
}

/* ---- refused, and told ---- */

static void
a_revoked_host_is_sent_away_with_the_reason(void **state)
{
	struct vault_disk d = big_disk(1200);
	struct wan_opts wo = {.delay_ms = 20, .bytes_ps = 4u << 20};
	struct lc_err e = LC_ERR_INIT;
	struct wan *w;
	struct two t;

	(void)state;
	make(&t, NULL);
	wo.loop = &t.loop;
	wo.to = t.d.port;
	w = wan_start(&wo);
	(void)snprintf(t.h.peer.at.port, sizeof t.h.peer.at.port, "%u", wan_port(w) % 65536);
	(void)hostsite_backup(&t.h, "web01", &d); /* takes 20 s: much is on the way */
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_up, &t.h, "up");
	run_for(&t.loop, 500);
	must(writers_revoke(t.d.dir, t.h.id.public, &e), &e);
	wait_for(&t, hostsite_is_down, &t.h, "sent away");
	if (t.h.why.code != LC_EACCES)
		fail_msg("%s", t.h.why.msg);
	assert_non_null(strstr(t.h.why.msg, "revoked"));
	hostsite_disconnect(&t.h);
	assert_int_equal(hostsite_try(&t.h, NULL), LC_EACCES);
	wan_stop(w);
	wait_for(&t, nobody_is_there, &t, "gone");
	(void)snprintf(t.h.peer.at.port, sizeof t.h.peer.at.port, "%u", t.d.port % 65536);
	hostsite_pair(&t.h, &t.d); /* a new token is a new decision */
	vault_disk_free(&d);
	done(&t);
}

static bool
has_failed(void *arg)
{
	return ((struct hostsite *)arg)->failed > 0;
}

/* The log of the store may not grow over it; other hosts go on. */
static void
a_host_keeps_within_its_quota(void **state)
{
	struct vault_disk d = big_disk(100), small = big_disk(3);
	struct uplink_stats st;
	struct hostsite other;
	struct point p;
	struct two t;

	(void)state;
	make(&t, NULL);
	drsite_stop(&t.d);
	t.d.host_max = 3u << 20;
	drsite_start(&t.d);
	hostsite_make(&other, &t.loop, &t.d, "host-b");
	hostsite_pair(&other, &t.d);
	(void)hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	wait_for(&t, has_failed, &t.h, "refused");
	assert_int_equal(t.h.why.code, LC_ENOSPC);
	assert_non_null(strstr(t.h.why.msg, "used up"));
	assert_int_equal(t.h.downs, 0); /* the connection stays */
	uplink_stats(t.h.uplink, &st);  /* and it knows how much room there is */
	assert_int_equal(st.room_max, 3u << 20);
	uplink_wake(t.h.uplink, NULL);
	run_for(&t.loop, 50);
	assert_int_equal(t.h.committed, 0);
	p = hostsite_backup(&other, "db", &small);
	hostsite_connect(&other);
	wait_for(&t, hostsite_is_idle, &other, "the other one's there");
	hostsite_disconnect(&other);
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&other, &t.d, &p, &small);
	/* More room: it goes on. */
	t.d.host_max = 0;
	drsite_start(&t.d);
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	assert_int_equal(t.h.committed, 1);
	hostsite_free(&other);
	vault_disk_free(&d);
	vault_disk_free(&small);
	done(&t);
}

static void
the_status_tells_hosts_and_opaque_vms(void **state)
{
	struct vault_disk d = big_disk(3);
	struct point p;
	char *text = NULL, hex[33];
	size_t n = 0;
	struct two t;
	FILE *f;

	(void)state;
	make(&t, NULL);
	p = hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
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
	done(&t);
}

/* ---- no memory ---- */

static void
allocations_that_fail_do_no_harm(void **state)
{
	struct vault_disk d = big_disk(8);
	struct point p = {0};
	struct two t;
	long i;

	(void)state;
	make(&t, &quick);
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
	wait_for(&t, hostsite_is_idle, &t.h, "all there");
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	vault_disk_free(&d);
	done(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(points_go_over_and_go_on_after_a_stop),
	    cmocka_unit_test(strangers_and_wrong_keys_are_told),
	    cmocka_unit_test(a_host_that_rotated_goes_on),
	    cmocka_unit_test(a_host_with_a_new_key_takes_its_place),
	    cmocka_unit_test(one_token_lets_one_host_in),
	    cmocka_unit_test(a_second_connection_of_a_host_waits),
	    cmocka_unit_test(an_older_copy_gets_again_what_it_lacks),
	    cmocka_unit_test(a_replica_that_never_answers_is_given_up),
	    cmocka_unit_test(a_half_open_connection_is_noticed),
	    cmocka_unit_test(either_side_may_stop_at_any_moment),
	    cmocka_unit_test(strangers_do_not_keep_a_host_out),
	    cmocka_unit_test(who_says_no_hello_has_to_go),
	    cmocka_unit_test(who_does_not_read_is_not_answered_for_ever),
	    cmocka_unit_test(who_does_not_read_has_to_go),
	    cmocka_unit_test(a_revoked_host_is_sent_away_with_the_reason),
	    cmocka_unit_test(a_host_keeps_within_its_quota),
	    cmocka_unit_test(the_status_tells_hosts_and_opaque_vms),
	    cmocka_unit_test(allocations_that_fail_do_no_harm),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

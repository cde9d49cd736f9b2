/*
 * Whom a replica lets in, as whom, and how much of him it takes.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "replicator/limits.h"
#include "replicator/message.h"
#include "replicator/noise.h"
#include "replicator/stores.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/two.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"
#include "tests/lib/wan.h"

static void
strangers_and_wrong_keys_are_told(void **state)
{
	uint8_t secret[32] = {1};
	struct hostsite x;
	enum lc_code rc;
	struct two t;

	(void)state;
	two_make(&t, NULL);
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
	two_done(&t);
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
	two_wait(t, hostsite_is_idle, &t->h, "all there");
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
	two_make(&t, NULL);
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
	two_done(&t);
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
	two_make(&t, NULL);
	d.codes[0] = 1;
	(void)hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	(void)snprintf(dir, sizeof dir, "%s", hostsite_dir_at(&t.h, &t.d));
	hostsite_make(&x, &t.loop, &t.d, "host-a");
	vault_close(&x.v);
	x.v.s = t.h.v.s; /* the same machine */
	must(writers_token(t.d.dir, 60 * LC_NS_PER_S, t.h.id.public, secret, &e), &e);
	assert_int_equal(hostsite_try(&x, secret), LC_OK);
	two_wait(&t, hostsite_is_down, &t.h, "the old one is out");
	hostsite_disconnect(&t.h);
	assert_int_equal(hostsite_try(&t.h, NULL), LC_EACCES);
	assert_string_equal(hostsite_dir_at(&x, &t.d), dir);
	x.ups = x.downs = x.committed = 0;
	d.codes[1] = 2;
	p = hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&x);
	two_wait(&t, hostsite_is_idle, &x, "the new one's point there");
	assert_int_equal(x.committed, 1); /* and nothing again */
	hostsite_disconnect(&x);
	drsite_stop(&t.d);
	memcpy(x.v.code, t.h.v.code, sizeof x.v.code);
	hostsite_arrived(&x, &t.d, &p, &d);
	x.v.s = NULL;
	hostsite_free(&x);
	vault_disk_free(&d);
	two_done(&t);
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
	two_make(&t, NULL);
	for (i = 0; i < 20; i++) {
		struct hostsite a, b;
		struct pair_of_hosts both = {&a, &b};
		uint8_t secret[32];

		hostsite_make(&a, &t.loop, &t.d, "host-b");
		hostsite_make(&b, &t.loop, &t.d, "host-c");
		must(writers_token(t.d.dir, LC_NS_PER_S * 60, NULL, secret, &e), &e);
		hostsite_begin(&a, secret);
		hostsite_begin(&b, secret);
		two_wait(&t, both_tried, &both, "an answer");
		assert_int_equal((a.ups > 0) + (b.ups > 0), 1);
		hostsite_free(&a);
		hostsite_free(&b);
	}
	two_done(&t);
}

static void
a_second_connection_of_a_host_waits(void **state)
{
	struct vault_disk d = two_disk(4);
	struct hostsite twin;
	struct store *own;
	struct point p;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	hostsite_make(&twin, &t.loop, &t.d, "host-a");
	twin.id = t.h.id;
	own = twin.v.s;
	twin.v.s = t.h.v.s;
	assert_int_equal(hostsite_try(&twin, NULL), LC_EBUSY);
	twin.v.s = own;
	assert_non_null(strstr(twin.why.msg, "connected already"));
	p = hostsite_backup(&t.h, "web01", &d);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	assert_int_equal(t.h.downs, 0);
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	hostsite_free(&twin);
	vault_disk_free(&d);
	two_done(&t);
}

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
	struct vault_disk d = two_disk(20);
	struct identity id;
	struct lc_err e = LC_ERR_INIT;
	struct point p;
	struct two t;
	unsigned i, round;

	(void)state;
	two_make(&t, NULL); /* with the real limits */
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
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	assert_true(server_guests(t.d.server) <= 20);
	for (i = 0; i < CROWD; i++)
		mole_end(&m[i]);
	two_wait(&t, crowd_is_closed, m, "closed");
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&t.h, &t.d, &p, &d);
	vault_disk_free(&d);
	two_done(&t);
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
	two_make(&t, &two_quick);
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
	two_done(&t);
}

static void
a_revoked_host_is_sent_away_with_the_reason(void **state)
{
	struct vault_disk d = two_disk(1200);
	struct wan_opts wo = {.delay_ms = 20, .bytes_ps = 4u << 20};
	struct lc_err e = LC_ERR_INIT;
	struct wan *w;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	wo.loop = &t.loop;
	wo.to = t.d.port;
	w = wan_start(&wo);
	(void)snprintf(t.h.peer.at.port, sizeof t.h.peer.at.port, "%u", wan_port(w) % 65536);
	(void)hostsite_backup(&t.h, "web01", &d); /* takes 20 s: much is on the way */
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	run_for(&t.loop, 500);
	must(writers_revoke(t.d.dir, t.h.id.public, &e), &e);
	two_wait(&t, hostsite_is_down, &t.h, "sent away");
	if (t.h.why.code != LC_EACCES)
		fail_msg("%s", t.h.why.msg);
	assert_non_null(strstr(t.h.why.msg, "revoked"));
	hostsite_disconnect(&t.h);
	assert_int_equal(hostsite_try(&t.h, NULL), LC_EACCES);
	wan_stop(w);
	two_wait(&t, two_is_left, &t, "gone");
	(void)snprintf(t.h.peer.at.port, sizeof t.h.peer.at.port, "%u", t.d.port % 65536);
	hostsite_pair(&t.h, &t.d); /* a new token is a new decision */
	vault_disk_free(&d);
	two_done(&t);
}

static bool
has_failed(void *arg)
{
	return ((struct hostsite *)arg)->failed > 0;
}

static bool
has_arrived(void *arg)
{
	return ((struct hostsite *)arg)->committed > 0;
}

/* The log of the store may not grow over it; other hosts go on. */
static void
a_host_keeps_within_its_quota(void **state)
{
	struct vault_disk d = two_disk(100), small = two_disk(3);
	struct uplink_stats st;
	struct hostsite other;
	struct point p;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	drsite_stop(&t.d);
	t.d.host_max = 3u << 20;
	drsite_start(&t.d);
	hostsite_make(&other, &t.loop, &t.d, "host-b");
	hostsite_pair(&other, &t.d);
	(void)hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	two_wait(&t, has_failed, &t.h, "refused");
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
	two_wait(&t, hostsite_is_idle, &other, "the other one's there");
	hostsite_disconnect(&other);
	hostsite_disconnect(&t.h);
	drsite_stop(&t.d);
	hostsite_arrived(&other, &t.d, &p, &small);
	/* More room: it goes on. */
	t.d.host_max = 0;
	drsite_start(&t.d);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	assert_int_equal(t.h.committed, 1);
	hostsite_free(&other);
	vault_disk_free(&d);
	vault_disk_free(&small);
	two_done(&t);
}

static uint64_t
room_told(const struct two *t)
{
	struct uplink_stats st;

	uplink_stats(t->h.uplink, &st);
	return st.room_max;
}

static bool
has_no_quota(void *arg)
{
	return room_told(arg) == 0;
}

static bool
has_a_quota(void *arg)
{
	return room_told(arg) != 0;
}

static void
limit(const struct two *t, bool set, uint64_t max)
{
	const struct limits l = {.max_set = set, .max = max};

	assert_int_equal(limits_write(t->d.dir, t->h.id.public, &l, NULL), 0);
}

static bool
has_more_room(void *arg)
{
	return ((struct hostsite *)arg)->roomier == 1;
}

/* While the host is there, and while it is away: it does not go on by what was told once. */
static void
a_quota_that_is_lifted_is_none(void **state)
{
	struct vault_disk d = two_disk(3);
	struct two t;

	(void)state;
	two_make(&t, NULL);
	limit(&t, true, 1);
	(void)hostsite_backup(&t.h, "web01", &d);
	hostsite_connect(&t.h);
	two_wait(&t, has_failed, &t.h, "refused");
	two_wait(&t, has_a_quota, &t, "the quota");
	assert_int_equal(t.h.committed, 0);
	limit(&t, true, 0);
	two_wait(&t, has_no_quota, &t, "the end of the quota");
	two_wait(&t, has_more_room, &t.h, "word that there is more room");
	two_wait(&t, has_arrived, &t.h, "what was refused, by itself");
	assert_int_equal(t.h.downs, 0);
	limit(&t, true, 2u << 30);
	two_wait(&t, has_a_quota, &t, "another quota");
	drsite_stop(&t.d);
	limit(&t, false, 0);
	drsite_start(&t.d);
	two_wait(&t, has_no_quota, &t, "word of none");
	two_wait(&t, hostsite_is_idle, &t.h, "all there");
	assert_int_equal(t.h.downs, 1);
	hostsite_disconnect(&t.h);
	vault_disk_free(&d);
	two_done(&t);
}

#define QUESTIONS 40000u /* below the 4 MiB of messages that are worked on at once */
#define ANSWER_MS 5000

/* HELLO of the paired host. */
static void
say_hello(struct two *t, struct mole *m)
{
	struct hello hello = {
	    .version = MESSAGE_VERSION, .wall_ns = clock_wall_ns(), .name = "host-a"};
	struct lc_buf body = {0}, keys = {0};
	struct lc_err e = LC_ERR_INIT;

	memcpy(hello.domain, transfer_domain(t->h.v.s), sizeof hello.domain);
	must(transfer_keys(t->h.v.s, &keys, &e), &e);
	hello.keys = (struct lc_span){keys.p, keys.n};
	must(message_put_hello(&body, &hello), &e);
	mole_say(m, MESSAGE_HELLO, (struct lc_span){body.p, body.n});
	lc_buf_free(&body);
	lc_buf_free(&keys);
}

/* A paired host that was captured asks what is damaged of it, again and again: short messages, each
 * of which looks through the catalog.  It has a worker for a moment at a time, as the others do. */
static void
who_asks_much_gives_way(void **state)
{
	static const uint8_t first[32];
	struct mole m;
	struct mole_count answers = {&m, MESSAGE_DAMAGED, 1};
	struct two t;
	unsigned i;

	(void)state;
	two_make(&t, NULL);
	mole_start(&m, &t.loop, t.d.port, &t.h.id, t.d.id.public);
	say_hello(&t, &m);
	for (i = 0; i < QUESTIONS; i++)
		mole_say(&m, MESSAGE_INSPECT, (struct lc_span){first, sizeof first});
	assert_true(run_until(&t.loop, mole_heard, &answers, ANSWER_MS));
	assert_false(m.over);
	mole_end(&m);
	run_for(&t.loop, 5);
	two_done(&t);
}

#define TWINS 5u

/* A paired host that was captured comes five times at once.  One of these has the store, and one
 * waits for that one to leave, at one of the two workers. */
static void
who_comes_often_waits_once(void **state)
{
	struct mole m[TWINS];
	struct hostsite other;
	struct two t;
	unsigned i, refused = 0;

	(void)state;
	two_make(&t, NULL);
	hostsite_make(&other, &t.loop, &t.d, "host-b");
	hostsite_pair(&other, &t.d);
	for (i = 0; i < TWINS; i++) {
		mole_start(&m[i], &t.loop, t.d.port, &t.h.id, t.d.id.public);
		two_wait(&t, mole_is_open, &m[i], "open");
	}
	say_hello(&t, &m[0]);
	two_wait(&t, mole_heard, &(struct mole_count){&m[0], MESSAGE_WELCOME, 1}, "welcome");
	for (i = 1; i < TWINS; i++)
		say_hello(&t, &m[i]);
	run_for(&t.loop, 50);
	hostsite_connect(&other);
	two_wait(&t, hostsite_is_up, &other, "up");
	for (i = 0; i < TWINS; i++) {
		refused += m[i].of_type[MESSAGE_REFUSED];
		mole_end(&m[i]);
	}
	assert_true(refused < TWINS - 1); /* the one that waits does so still */
	run_for(&t.loop, 5);
	hostsite_free(&other);
	two_done(&t);
}

static void
come_as_the_host(struct two *t, struct mole *m)
{
	struct mole_count welcome = {m, MESSAGE_WELCOME, 1};

	mole_start(m, &t->loop, t->d.port, &t->h.id, t->d.id.public);
	say_hello(t, m);
	two_wait(t, mole_heard, &welcome, "welcome");
	assert_false(m->over);
}

static void
go(struct two *t, struct mole *m)
{
	mole_end(m);
	while (!m->closed)
		run_for(&t->loop, 5);
}

/* The old one neither reads what it is told nor hangs up.  The token is used up by then: it is
 * waited for, as long as it has a say in that. */
static void
who_is_replaced_need_not_hang_up(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct hostsite x;
	uint8_t secret[32];
	struct mole m;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	come_as_the_host(&t, &m);
	mole_read(&m, false);
	hostsite_make(&x, &t.loop, &t.d, "host-a");
	vault_close(&x.v);
	x.v.s = t.h.v.s; /* the same machine */
	must(writers_token(t.d.dir, 60 * LC_NS_PER_S, t.h.id.public, secret, &e), &e);
	if (hostsite_try(&x, secret) != LC_OK)
		fail_msg("%s", x.why.msg);
	x.v.s = NULL;
	hostsite_free(&x);
	go(&t, &m);
	two_done(&t);
}

/* ---- the store behind it ---- */

static struct shared *
take_store(struct two *t)
{
	struct lc_err e = LC_ERR_INIT;
	struct shared *s = NULL;

	must(
	    stores_take(server_stores(t->d.server), hostsite_dir_at(&t->h, &t->d), NULL, 0, &s, &e),
	    &e);
	return s;
}

static bool
is_spoilt(void *s)
{
	return shared_spoilt(s);
}

/* Whatever met the failure.  Somebody else who is in the store, and does nothing there, would keep
 * it as it is, and nobody could write any more. */
static void
a_store_that_failed_is_opened_anew(void **state)
{
	static const uint8_t first[32];
	struct shared *s;
	struct mole m;
	struct two t;

	(void)state;
	two_make(&t, NULL);
	come_as_the_host(&t, &m);
	s = take_store(&t);
	(void)pthread_mutex_lock(&shared_store(s)->log_lock);
	shared_store(s)->broken = true;
	(void)pthread_mutex_unlock(&shared_store(s)->log_lock);
	mole_say(&m, MESSAGE_INSPECT, (struct lc_span){first, sizeof first});
	two_wait(&t, mole_is_over, &m, "the end");
	assert_int_equal(m.code, LC_EIO);
	assert_true(run_until(&t.loop, is_spoilt, s, ANSWER_MS));
	stores_give(server_stores(t.d.server), s, NULL);
	go(&t, &m);
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	two_done(&t);
}

struct held { /* nothing gets on in the store */
	pthread_t thread;
	struct store *s;
	atomic_bool held, over;
};

static int
build_held(void *arg, struct lc_buf *payload, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = 5 * LC_NS_PER_MS};
	struct held *h = arg;

	(void)payload;
	(void)e;
	atomic_store(&h->held, true);
	while (!atomic_load(&h->over))
		(void)nanosleep(&pause, NULL);
	return 0;
}

static void *
hold(void *arg)
{
	struct held *h = arg;

	(void)store_commit(h->s, build_held, h, NULL);
	return NULL;
}

static bool
is_held(void *arg)
{
	return atomic_load(&((struct held *)arg)->held);
}

#define MORE_THAN_FITS 60000u /* over 4 MiB of messages */

/* A replica whose disk is slow reads no more than it has worked on.  Its host, of which nothing
 * comes then, is there all the same, and another connection of it does not end that one. */
static void
a_slow_replica_is_no_silent_host(void **state)
{
	static const uint8_t first[32];
	struct held h = {.held = false};
	struct mole_count answer;
	struct shared *s;
	struct mole m[2];
	struct two t;
	unsigned i;

	(void)state;
	two_make(&t, &two_quick);
	come_as_the_host(&t, &m[0]);
	s = take_store(&t);
	h.s = shared_store(s);
	assert_int_equal(pthread_create(&h.thread, NULL, hold, &h), 0);
	two_wait(&t, is_held, &h, "held");
	for (i = 0; i < MORE_THAN_FITS; i++) {
		mole_say(&m[0], MESSAGE_INSPECT, (struct lc_span){first, sizeof first});
		if (i % 2000 == 0)
			run_for(&t.loop, 1);
	}
	run_for(&t.loop, 1500);
	mole_start(&m[1], &t.loop, t.d.port, &t.h.id, t.d.id.public);
	two_wait(&t, mole_is_open, &m[1], "open");
	say_hello(&t, &m[1]);
	run_for(&t.loop, 50);
	atomic_store(&h.over, true);
	assert_int_equal(pthread_join(h.thread, NULL), 0);
	answer = (struct mole_count){&m[0], MESSAGE_DAMAGED, 1};
	two_wait(&t, mole_heard, &answer, "an answer");
	assert_true(m[0].of_type[MESSAGE_DAMAGED] > 0);
	two_wait(&t, mole_is_over, &m[1], "the end of the second one");
	assert_string_equal(m[1].refused, "this host is connected already");
	stores_give(server_stores(t.d.server), s, NULL);
	go(&t, &m[0]);
	go(&t, &m[1]);
	two_done(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(strangers_and_wrong_keys_are_told),
	    cmocka_unit_test(a_host_that_rotated_goes_on),
	    cmocka_unit_test(a_host_with_a_new_key_takes_its_place),
	    cmocka_unit_test(one_token_lets_one_host_in),
	    cmocka_unit_test(a_second_connection_of_a_host_waits),
	    cmocka_unit_test(strangers_do_not_keep_a_host_out),
	    cmocka_unit_test(who_says_no_hello_has_to_go),
	    cmocka_unit_test(who_asks_much_gives_way),
	    cmocka_unit_test(who_comes_often_waits_once),
	    cmocka_unit_test(who_is_replaced_need_not_hang_up),
	    cmocka_unit_test(a_store_that_failed_is_opened_anew),
	    cmocka_unit_test(a_slow_replica_is_no_silent_host),
	    cmocka_unit_test(a_revoked_host_is_sent_away_with_the_reason),
	    cmocka_unit_test(a_host_keeps_within_its_quota),
	    cmocka_unit_test(a_quota_that_is_lifted_is_none),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * A host reads back what it has sent, and nothing else; beside the connection that sends.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "replicator/borrower.h"
#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/workers.h"
#include "store/store_internal.h"
#include "store/thin.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"
#include "tests/lib/wan.h"

#define SOON_MS 30000
#define WINDOWS 100u

struct scene {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite h, other;
	struct vault_disk disk;
	struct point p;
	struct borrower *b;
	struct mole m;
	/* of a call on a thread of its own */
	int (*call)(struct scene *x, struct lc_err *e);
	atomic_bool done;
	int rc;
	struct lc_err err;
};

static void *
thread(void *arg)
{
	struct scene *x = arg;

	x->rc = x->call(x, &x->err);
	x->done = true;
	return NULL;
}

static bool
is_done(void *arg)
{
	return ((struct scene *)arg)->done;
}

/* The replica runs on this thread's loop, so what waits for it is called on another one. */
static int
call(struct scene *x, int (*fn)(struct scene *x, struct lc_err *e))
{
	pthread_t t;

	x->call = fn;
	x->done = false;
	lc_err_clear(&x->err);
	assert_int_equal(pthread_create(&t, NULL, thread, x), 0);
	if (!run_until(&x->loop, is_done, x, SOON_MS))
		fail_msg("a call did not come back");
	(void)pthread_join(t, NULL);
	return x->rc;
}

static int
open_it(struct scene *x, struct lc_err *e)
{
	struct borrower_opts o = {.store = x->h.v.s,
	                          .peer = &x->h.peer,
	                          .identity = &x->h.id,
	                          .host = "one",
	                          .limits = x->h.limits};

	return borrower_open(&o, &x->b, e);
}

static int
close_it(struct scene *x, struct lc_err *e)
{
	(void)e;
	borrower_close(x->b);
	x->b = NULL;
	return 0;
}

/* Two hosts, connected; a point of the first one is at the replica. */
static void
make(struct scene *x)
{
	uint64_t i;

	memset(x, 0, sizeof *x);
	assert_int_equal(uv_loop_init(&x->loop), 0);
	drsite_make(&x->d, &x->loop);
	drsite_start(&x->d);
	hostsite_make(&x->h, &x->loop, &x->d, "one");
	hostsite_make(&x->other, &x->loop, &x->d, "two");
	hostsite_pair(&x->h, &x->d);
	hostsite_pair(&x->other, &x->d);
	vault_close(&x->h.v);
	x->h.v.segment_bytes = 512u << 10;
	vault_open(&x->h.v);
	hostsite_connect(&x->h);
	hostsite_connect(&x->other);
	x->disk = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++)
		x->disk.codes[i] = i % 9 == 0 ? 0 : 5 * (i + 1);
	x->p = hostsite_backup(&x->h, "web01", &x->disk);
	assert_true(run_until(&x->loop, hostsite_is_idle, &x->h, SOON_MS));
}

static void
end(struct scene *x)
{
	if (x->b != NULL)
		(void)call(x, close_it);
	hostsite_disconnect(&x->h);
	hostsite_disconnect(&x->other);
	drsite_stop(&x->d);
	point_done(&x->p);
	vault_disk_free(&x->disk);
	hostsite_free(&x->h);
	hostsite_free(&x->other);
	drsite_free(&x->d);
	assert_int_equal(uv_loop_close(&x->loop), 0);
}

static int
ask_borrower(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	return borrower_have(((struct scene *)arg)->b, ids, n, bits, e);
}

static int
fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
      struct lc_err *e)
{
	return borrower_read(((struct scene *)arg)->b, ids, n, payload, out, e);
}

static int
thin(struct scene *x, struct lc_err *e)
{
	struct thin_opts o = {.have = ask_borrower, .arg = x, .peers = "dr1", .bytes = UINT64_MAX};
	struct thin_stats st;
	int rc = thin_run(x->h.v.s, &o, &st, e);

	return rc == 0 && st.chunks < 60 ? lc_fail(e, LC_EINVAL, 0, "too few went") : rc;
}

static int
verify(struct scene *x, struct lc_err *e)
{
	int rc;

	thin_fetch(x->h.v.s, fetch, x);
	rc = vault_verify(x->h.v.s, x->p.id, e);
	return rc != 0 ? rc : vault_compare(x->h.v.s, x->p.id, &x->disk, 1, e);
}

/* While the host sends, and goes on sending. */
static void
thins_and_reads_through(void **state)
{
	struct scene x;
	struct point q;

	(void)state;
	make(&x);
	must(call(&x, open_it), &x.err);
	must(call(&x, thin), &x.err);
	must(call(&x, verify), &x.err);
	x.disk.codes[5] = 424245;
	q = hostsite_backup(&x.h, "web01", &x.disk);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, SOON_MS));
	assert_int_equal(x.h.committed, 2);
	assert_int_equal(x.h.failed + x.h.downs, 0);
	point_done(&x.p);
	x.p = q;
	must(call(&x, verify), &x.err);
	end(&x);
}

static int
read_unknown(struct scene *x, struct lc_err *e)
{
	static uint8_t payload[RECORD_PAYLOAD_MAX];
	uint8_t id[CHUNK_ID_SIZE] = {7};
	struct fetched out;

	return borrower_read(x->b, id, 1, payload, &out, e);
}

static int
have_unknown(struct scene *x, struct lc_err *e)
{
	uint8_t ids[2][CHUNK_ID_SIZE] = {{7}, {8}}, bits[1] = {0};
	int rc = borrower_have(x->b, ids[0], 2, bits, e);

	return rc != 0 ? rc : bits[0];
}

static void
knows_what_is_not_there(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	must(call(&x, open_it), &x.err);
	assert_int_equal(call(&x, have_unknown), 0);
	assert_int_equal(call(&x, read_unknown), LC_ENOENT);
	assert_int_equal(call(&x, have_unknown), 0); /* it goes on */
	end(&x);
}

static int
verify_only(struct scene *x, struct lc_err *e)
{
	thin_fetch(x->h.v.s, fetch, x);
	return vault_verify(x->h.v.s, x->p.id, e);
}

#define ONE_WAY_MS 40

/* What comes next is asked for ahead: the wire's delay is not paid for each content. */
static void
reads_ahead(void **state)
{
	struct wan_opts o = {.delay_ms = ONE_WAY_MS};
	struct wan *wan;
	struct scene x;
	int64_t began;
	unsigned n = 0, i;

	(void)state;
	make(&x);
	o.loop = &x.loop;
	o.to = x.d.port;
	wan = wan_start(&o);
	(void)snprintf(x.h.peer.at.port, sizeof x.h.peer.at.port, "%u", wan_port(wan));
	must(call(&x, open_it), &x.err);
	must(call(&x, thin), &x.err);
	for (i = 0; i < WINDOWS; i++)
		n += x.disk.codes[i] != 0;
	began = clock_mono_ns();
	must(call(&x, verify_only), &x.err);
	began = (clock_mono_ns() - began) / LC_NS_PER_MS;
	print_message("%u contents in %u ms, %u ms away\n", n, (unsigned)began, 2 * ONE_WAY_MS);
	assert_true(began <
	            n * 2 * ONE_WAY_MS / (SANITIZED ? 1 : 2)); /* by two threads, one at a time */
	(void)call(&x, close_it);
	wan_stop(wan);
	end(&x);
}

/* The replica goes: what waits fails, and so does what comes later; nobody hangs. */
static void
fails_when_the_link_does(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	must(call(&x, open_it), &x.err);
	must(call(&x, thin), &x.err);
	drsite_stop(&x.d);
	assert_int_equal(call(&x, verify), LC_EPEER);
	assert_non_null(strstr(x.err.msg, "web01/vda"));
	assert_non_null(strstr(x.err.msg, "replica dr1"));
	(void)call(&x, close_it);
	assert_int_not_equal(call(&x, open_it), 0);
	drsite_start(&x.d);
	must(call(&x, open_it), &x.err);
	must(call(&x, verify), &x.err);
	end(&x);
}

static void
thinned(struct scene *x)
{
	make(x);
	must(call(x, open_it), &x->err);
	must(call(x, thin), &x->err);
	(void)call(x, close_it);
	x->h.limits = (struct session_limits){.ping_ms = 100, .dead_ms = 500, .welcome_ms = 700};
}

/* Its machine hangs, in the middle of a restore or before: that is told. */
static void
fails_when_it_falls_silent(void **state)
{
	struct wan_opts wo = {.delay_ms = 1};
	struct scene x;
	struct wan *wan;
	int64_t began;

	(void)state;
	thinned(&x);
	wo.loop = &x.loop;
	wo.to = x.d.port;
	wan = wan_start(&wo);
	(void)snprintf(x.h.peer.at.port, sizeof x.h.peer.at.port, "%u", wan_port(wan) % 65536);
	must(call(&x, open_it), &x.err);
	wan_silence(wan, true);
	began = clock_mono_ns();
	assert_int_equal(call(&x, verify), LC_ETIMEDOUT);
	assert_non_null(strstr(x.err.msg, "replica dr1"));
	assert_non_null(strstr(x.err.msg, "no sign of life"));
	(void)call(&x, close_it);
	x.h.limits.connect_ms = 500;
	assert_int_equal(call(&x, open_it), LC_ETIMEDOUT);
	assert_true(clock_mono_ns() - began < 10 * LC_NS_PER_S);
	wan_stop(wan);
	end(&x);
}

struct jam {              /* a worker whose disk hangs */
	struct work work; /* first */
	pthread_mutex_t *lock;
	atomic_bool there;
};

static bool
is_there(void *arg)
{
	return ((struct jam *)arg)->there;
}

static void
hang(struct work *w, unsigned worker)
{
	struct jam *j = (struct jam *)(void *)w;

	(void)worker;
	j->there = true;
	(void)pthread_mutex_lock(j->lock);
	(void)pthread_mutex_unlock(j->lock);
}

/* Its disk hangs: it says that it lives, and nothing else. */
static void
fails_when_it_only_says_that_it_lives(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct jam jams[64];
	struct scene x;
	unsigned i, n;

	(void)state;
	thinned(&x);
	must(call(&x, open_it), &x.err);
	n = workers_count(x.d.workers);
	assert_true(n <= 64);
	(void)pthread_mutex_lock(&lock);
	for (i = 0; i < n; i++) {
		jams[i] = (struct jam){.work.run = hang, .lock = &lock};
		workers_submit(x.d.workers, &jams[i].work);
	}
	for (i = 0; i < n; i++)
		assert_true(run_until(&x.loop, is_there, &jams[i], SOON_MS));
	assert_int_equal(call(&x, verify), LC_ETIMEDOUT);
	assert_non_null(strstr(x.err.msg, "replica dr1"));
	assert_non_null(strstr(x.err.msg, "does its disk hang?"));
	(void)call(&x, close_it);
	assert_int_equal(call(&x, open_it), LC_ETIMEDOUT);
	assert_non_null(strstr(x.err.msg, "that this host is welcome"));
	(void)pthread_mutex_unlock(&lock);
	must(call(&x, open_it), &x.err);
	/* Who asks for nothing is owed no word. */
	run_for(&x.loop, 1500);
	must(call(&x, verify), &x.err);
	end(&x);
}

static atomic_bool enough;

static bool
is_enough(void *arg)
{
	(void)arg;
	return enough;
}

static int
open_until_enough(struct scene *x, struct lc_err *e)
{
	struct borrower_opts o = {.store = x->h.v.s,
	                          .peer = &x->h.peer,
	                          .identity = &x->h.id,
	                          .host = "one",
	                          .limits = {.linger_ms = 300},
	                          .stop = is_enough};

	return borrower_open(&o, &x->b, e);
}

static int
ask_for_one(struct scene *x, struct lc_err *e)
{
	static const uint8_t id[CHUNK_ID_SIZE];
	uint8_t bits;

	return borrower_have(x->b, id, 1, &bits, e);
}

static void
on_enough(uv_timer_t *t)
{
	(void)t;
	enough = true;
}

/* It is given up soon after somebody has other things to do. */
static void
ends_when_told(struct scene *x, int (*fn)(struct scene *x, struct lc_err *e))
{
	int64_t began = clock_mono_ns();
	uv_timer_t t;

	enough = false;
	(void)uv_timer_init(&x->loop, &t);
	(void)uv_timer_start(&t, on_enough, 200, 0);
	assert_int_equal(call(x, fn), LC_ECANCELED);
	assert_true(enough);
	assert_true(clock_mono_ns() - began < 3 * LC_NS_PER_S);
	uv_close((uv_handle_t *)&t, NULL);
	run_for(&x->loop, 5);
	enough = false;
}

/* One that is silent, and has 20 s for a sign of life, is waited for no longer than it is wanted:
 * where it was to answer, and where it was to let in. */
static void
is_not_waited_for_when_told(void **state)
{
	struct wan_opts wo = {.delay_ms = 1};
	struct scene x;
	struct wan *wan;

	(void)state;
	make(&x);
	enough = false;
	wo.loop = &x.loop;
	wo.to = x.d.port;
	wan = wan_start(&wo);
	(void)snprintf(x.h.peer.at.port, sizeof x.h.peer.at.port, "%u", wan_port(wan) % 65536);
	must(call(&x, open_until_enough), &x.err);
	must(call(&x, ask_for_one), &x.err);
	wan_silence(wan, true);
	ends_when_told(&x, ask_for_one);
	(void)call(&x, close_it);
	ends_when_told(&x, open_until_enough);
	wan_silence(wan, false);
	wan_stop(wan);
	end(&x);
}

/* What it said of files that no name leads to any more would have the host drop its own. */
static void
does_not_have_what_is_gone(void **state)
{
	const char *dir;
	char away[400];
	struct scene x;

	(void)state;
	make(&x);
	dir = hostsite_dir_at(&x.h, &x.d);
	(void)snprintf(away, sizeof away, "%s/away", x.d.top);
	must(call(&x, open_it), &x.err);
	assert_int_equal(rename(dir, away), 0);
	assert_int_equal(call(&x, thin), LC_EPEER); /* -5 would be said of a content */
	assert_non_null(strstr(x.err.msg, "it is gone"));
	(void)call(&x, close_it);
	assert_int_equal(rename(away, dir), 0);
	run_for(&x.loop, 1000); /* all have left it */
	must(call(&x, open_it), &x.err);
	must(call(&x, thin), &x.err);
	must(call(&x, verify), &x.err);
	end(&x);
}

/* The replica is put back to an older copy, and has lost what was dropped here: the next point is
 * made from all of the disks, and goes over. */
static void
heals_a_replica_that_lost_what_was_dropped(void **state)
{
	char kept[400], gone[400];
	struct scene x;
	struct point q;
	uint64_t i;

	(void)state;
	make(&x);
	hostsite_disconnect(&x.h);
	drsite_stop(&x.d);
	(void)snprintf(kept, sizeof kept, "%s/older", x.d.top);
	vault_copy(hostsite_dir_at(&x.h, &x.d), kept);
	drsite_start(&x.d);
	hostsite_connect(&x.h);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, SOON_MS));
	for (i = 1; i < WINDOWS; i++)
		x.disk.codes[i] = 5 * (7000 + i);
	q = hostsite_backup(&x.h, "web01", &x.disk);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, SOON_MS));
	point_done(&q);
	must(call(&x, open_it), &x.err);
	must(call(&x, thin), &x.err);
	(void)call(&x, close_it);
	hostsite_disconnect(&x.h);
	hostsite_disconnect(&x.other);
	drsite_stop(&x.d);
	(void)snprintf(gone, sizeof gone, "%s/newer", x.d.top);
	assert_int_equal(rename(hostsite_dir_at(&x.h, &x.d), gone), 0);
	assert_int_equal(rename(kept, hostsite_dir_at(&x.h, &x.d)), 0);
	drsite_start(&x.d);
	hostsite_connect(&x.h);
	hostsite_connect(&x.other);
	x.disk.codes[3] = 31339;
	q = hostsite_backup(&x.h, "web01", &x.disk);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, SOON_MS));
	assert_true(x.h.failed > 0);
	assert_non_null(strstr(x.h.why.msg, "made from all of the disks"));
	point_done(&q);
	x.disk.codes[4] = 31349;
	q = hostsite_backup(&x.h, "web01", &x.disk);
	assert_true((q.flags & POINT_FRESH) != 0);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, SOON_MS));
	x.disk.codes[5] = 31359;
	point_done(&q);
	q = hostsite_backup(&x.h, "web01", &x.disk);
	assert_int_equal(q.flags & POINT_FRESH, 0);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, SOON_MS));
	hostsite_disconnect(&x.h);
	hostsite_disconnect(&x.other);
	drsite_stop(&x.d);
	hostsite_arrived(&x.h, &x.d, &q, &x.disk);
	drsite_start(&x.d);
	hostsite_connect(&x.h);
	hostsite_connect(&x.other);
	point_done(&q);
	end(&x);
}

/* ---- a captured host ---- */

static void
put_hello(struct scene *x, const struct hostsite *who, bool reading, struct lc_buf *body)
{
	struct hello m = {.version = MESSAGE_VERSION,
	                  .wall_ns = clock_wall_ns(),
	                  .reading = reading,
	                  .name = "mole"};
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};

	(void)x;
	memcpy(m.domain, transfer_domain(who->v.s), sizeof m.domain);
	must(transfer_keys(who->v.s, &keys, &e), &e);
	m.keys = (struct lc_span){keys.p, keys.n};
	must(message_put_hello(body, &m), &e);
	lc_buf_free(&keys);
}

static void
begin_mole(struct scene *x, const struct hostsite *who, bool reading)
{
	struct lc_buf body = {0};

	memset(&x->m, 0, sizeof x->m);
	put_hello(x, who, reading, &body);
	mole_start(&x->m, &x->loop, x->d.port, &who->id, x->d.id.public);
	mole_say(&x->m, MESSAGE_HELLO, (struct lc_span){body.p, body.n});
	while (x->m.of_type[MESSAGE_WELCOME] == 0 && !x->m.over)
		run_for(&x->loop, 5);
	lc_buf_free(&body);
}

static void
end_mole(struct scene *x)
{
	mole_end(&x->m);
	while (!x->m.closed)
		run_for(&x->loop, 5);
}

static void
say(struct scene *x, uint16_t type, const void *p, size_t n, uint16_t answer)
{
	unsigned before = x->m.of_type[answer];

	mole_say(&x->m, type, (struct lc_span){p, n});
	while (x->m.of_type[answer] == before && !x->m.over)
		run_for(&x->loop, 5);
}

/* An id of the first host's, asked for by the other one. */
static void
another_hosts_contents_are_not_there(void **state)
{
	uint8_t body[4 + CHUNK_ID_SIZE], window[WINDOW_SIZE];
	struct scene x;

	(void)state;
	make(&x);
	vault_fill(x.disk.codes[1], window);
	lc_put32(body, 1);
	seal_id(x.h.v.s->keyring, window, body + 4);
	begin_mole(&x, &x.h, true);
	say(&x, MESSAGE_READ, body, sizeof body, MESSAGE_BODY);
	assert_int_equal(x.m.of_type[MESSAGE_BODY], 1);
	end_mole(&x);
	begin_mole(&x, &x.other, true);
	assert_int_equal(x.m.of_type[MESSAGE_WELCOME], 1);
	say(&x, MESSAGE_READ, body, sizeof body, MESSAGE_NONE);
	assert_int_equal(x.m.of_type[MESSAGE_NONE], 1);
	assert_int_equal(x.m.of_type[MESSAGE_BODY], 0);
	say(&x, MESSAGE_ASK, body, sizeof body, MESSAGE_HAVE);
	assert_int_equal(x.m.body.p[4], 0);
	end_mole(&x);
	end(&x);
}

static void
refused_with(struct scene *x, const char *why)
{
	assert_true(run_until(&x->loop, mole_is_over, &x->m, SOON_MS));
	if (strstr(x->m.refused, why) == NULL)
		fail_msg("refused with \"%s\", not \"%s\"", x->m.refused, why);
	end_mole(x);
}

static void
reading_is_all_that_it_does(void **state)
{
	static uint8_t zeros[4 + (OFFER_IDS_MAX + 1) * CHUNK_ID_SIZE];
	struct scene x;

	(void)state;
	make(&x);
	begin_mole(&x, &x.h, true);
	mole_say(&x.m, MESSAGE_BEGIN, (struct lc_span){zeros, 200});
	refused_with(&x, "BEGIN, which a session that reads does not have");
	begin_mole(&x, &x.h, true);
	lc_put32(zeros, READ_IDS_MAX + 1);
	mole_say(&x.m, MESSAGE_READ,
	         (struct lc_span){zeros, 4 + (READ_IDS_MAX + 1) * CHUNK_ID_SIZE});
	refused_with(&x, "malformed READ");
	begin_mole(&x, &x.h, true);
	lc_put32(zeros, OFFER_IDS_MAX + 1);
	mole_say(&x.m, MESSAGE_ASK, (struct lc_span){zeros, sizeof zeros});
	refused_with(&x, "malformed ASK");
	begin_mole(&x, &x.h, true);
	lc_put32(zeros, 0);
	mole_say(&x.m, MESSAGE_READ, (struct lc_span){zeros, 4});
	refused_with(&x, "malformed READ");
	begin_mole(&x, &x.h, true);
	lc_put32(zeros, 9);
	mole_say(&x.m, MESSAGE_MORE, (struct lc_span){zeros, 4});
	refused_with(&x, "MORE of a point that was not recalled");
	/* One that writes does not read. */
	hostsite_disconnect(&x.other);
	begin_mole(&x, &x.other, false);
	lc_put32(zeros, 1);
	mole_say(&x.m, MESSAGE_READ, (struct lc_span){zeros, 4 + CHUNK_ID_SIZE});
	refused_with(&x, "READ, which a replica does not get");
	hostsite_connect(&x.other);
	assert_int_equal(x.h.downs, 0);
	end(&x);
}

/* READs whose answers nobody takes: what waits for him is bounded, and others go on. */
static void
one_that_takes_no_answer_costs_little(void **state)
{
	uint8_t body[4 + READ_IDS_MAX * CHUNK_ID_SIZE], window[WINDOW_SIZE];
	struct scene x;
	struct point q;
	unsigned i;

	(void)state;
	make(&x);
	lc_put32(body, READ_IDS_MAX);
	for (i = 0; i < READ_IDS_MAX; i++) {
		vault_fill(x.disk.codes[1 + i % 8], window);
		seal_id(x.h.v.s->keyring, window, body + 4 + (size_t)i * CHUNK_ID_SIZE);
	}
	begin_mole(&x, &x.h, true);
	mole_read(&x.m, false);
	for (i = 0; i < 20000; i++)
		mole_say(&x.m, MESSAGE_READ, (struct lc_span){body, sizeof body});
	run_for(&x.loop, 500);
	assert_true(mole_unsent(&x.m) > 0); /* it is not read any further */
	q = hostsite_backup(&x.h, "web01", &x.disk);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, SOON_MS));
	point_done(&q);
	end_mole(&x);
	end(&x);
}

static void
readers_are_counted(void **state)
{
	struct mole moles[4];
	struct lc_buf body = {0};
	struct scene x;
	unsigned i;

	(void)state;
	make(&x);
	put_hello(&x, &x.h, true, &body);
	memset(moles, 0, sizeof moles);
	for (i = 0; i < 4; i++) {
		mole_start(&moles[i], &x.loop, x.d.port, &x.h.id, x.d.id.public);
		mole_say(&moles[i], MESSAGE_HELLO, (struct lc_span){body.p, body.n});
		while (moles[i].of_type[MESSAGE_WELCOME] == 0 && !moles[i].over)
			run_for(&x.loop, 5);
		assert_int_equal(moles[i].of_type[MESSAGE_WELCOME], 1);
	}
	begin_mole(&x, &x.h, true);
	assert_int_equal(x.m.of_type[MESSAGE_WELCOME], 0);
	refused_with(&x, "4 connections that read");
	for (i = 0; i < 4; i++) {
		mole_end(&moles[i]);
		while (!moles[i].closed)
			run_for(&x.loop, 5);
	}
	lc_buf_free(&body);
	assert_int_equal(x.h.downs, 0);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(thins_and_reads_through),
	    cmocka_unit_test(knows_what_is_not_there),
	    cmocka_unit_test(reads_ahead),
	    cmocka_unit_test(fails_when_the_link_does),
	    cmocka_unit_test(fails_when_it_falls_silent),
	    cmocka_unit_test(fails_when_it_only_says_that_it_lives),
	    cmocka_unit_test(is_not_waited_for_when_told),
	    cmocka_unit_test(does_not_have_what_is_gone),
	    cmocka_unit_test(heals_a_replica_that_lost_what_was_dropped),
	    cmocka_unit_test(another_hosts_contents_are_not_there),
	    cmocka_unit_test(reading_is_all_that_it_does),
	    cmocka_unit_test(one_that_takes_no_answer_costs_little),
	    cmocka_unit_test(readers_are_counted),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

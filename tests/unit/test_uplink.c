/*
 * A host's connection to a replica that does not do as it should.
 */
#include <dlfcn.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define SOON_MS 30000

struct scene {
	uv_loop_t loop;
	struct drsite d; /* its key is the mole's; it does not run */
	struct hostsite h;
	struct mole m;
	bool said;
};

static bool
gave_up(void *arg)
{
	return ((struct scene *)arg)->h.downs > 0;
}

static bool
has_said_hello(void *arg)
{
	return ((struct scene *)arg)->m.of_type[MESSAGE_HELLO] > 0;
}

static void
make(struct scene *x)
{
	memset(x, 0, sizeof *x);
	assert_int_equal(uv_loop_init(&x->loop), 0);
	drsite_make(&x->d, &x->loop);
	hostsite_make(&x->h, &x->loop, &x->d, "host-a");
	x->h.limits = (struct session_limits){
	    .ping_ms = 50, .dead_ms = 400, .linger_ms = 100, .welcome_ms = 600};
	(void)snprintf(x->h.peer.at.port, sizeof x->h.peer.at.port, "%u",
	               mole_serve(&x->m, &x->loop, &x->d.id) % 65536);
}

static bool
is_closed(void *arg)
{
	return ((struct mole *)arg)->closed;
}

static void
end(struct scene *x)
{
	hostsite_free(&x->h);
	mole_end(&x->m);
	assert_true(run_until(&x->loop, is_closed, &x->m, SOON_MS));
	drsite_free(&x->d);
	(void)uv_run(&x->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&x->loop), 0);
}

static void
say_welcome(struct scene *x, int64_t ahead_ns)
{
	struct welcome w = {.version = MESSAGE_VERSION,
	                    .wall_ns = clock_wall_ns() + ahead_ns,
	                    .byte_window = 1 << 20};
	struct lc_buf body = {0};

	assert_int_equal(message_put_welcome(&body, &w), 0);
	mole_say(&x->m, MESSAGE_WELCOME, (struct lc_span){body.p, body.n});
	lc_buf_free(&body);
}

/* The session has begun, and the other side has nothing. */
static void
welcomed(struct scene *x)
{
	hostsite_begin(&x->h, NULL);
	assert_true(run_until(&x->loop, has_said_hello, x, SOON_MS));
	say_welcome(x, 0);
	mole_say(&x->m, MESSAGE_HEADS_END, (struct lc_span){NULL, 0});
}

/* Alive, as its PONGs show, but it never says WELCOME. */
static void
who_only_answers_pings_is_given_up(void **state)
{
	struct scene x;
	int64_t began;

	(void)state;
	make(&x);
	began = clock_mono_ns();
	hostsite_begin(&x.h, NULL);
	assert_true(run_until(&x.loop, gave_up, &x, SOON_MS));
	assert_true(clock_mono_ns() - began >= 600 * LC_NS_PER_MS);
	assert_true(x.m.of_type[MESSAGE_PING] > 3);
	assert_int_equal(x.h.ups, 0);
	assert_int_equal(x.h.why.code, LC_ETIMEDOUT);
	assert_non_null(strstr(x.h.why.msg, "does not say that this host is welcome"));
	end(&x);
}

/* It says WELCOME in time, and then never what it has. */
static void
who_never_says_what_it_has_is_given_up(void **state)
{
	struct scene x;
	int64_t began;

	(void)state;
	make(&x);
	hostsite_begin(&x.h, NULL);
	assert_true(run_until(&x.loop, has_said_hello, &x, SOON_MS));
	run_for(&x.loop, 400);
	say_welcome(&x, 0);
	began = clock_mono_ns();
	assert_true(run_until(&x.loop, hostsite_is_up, &x.h, SOON_MS));
	assert_true(run_until(&x.loop, gave_up, &x, SOON_MS));
	/* From the last word on. */
	assert_true(clock_mono_ns() - began >= 600 * LC_NS_PER_MS);
	assert_non_null(strstr(x.h.why.msg, "does not say what it has"));
	end(&x);
}

/* Told what the other side has, a host without news is silent for as long as it likes. */
static void
who_has_said_what_it_has_may_be_silent(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	welcomed(&x);
	assert_true(run_until(&x.loop, hostsite_is_idle, &x.h, SOON_MS));
	run_for(&x.loop, 1500);
	assert_int_equal(x.h.downs, 0);
	assert_true(hostsite_is_idle(&x.h));
	end(&x);
}

/* It takes what is sent, answers PING, and never says that anything is durable. */
static void
who_acknowledges_nothing_is_given_up(void **state)
{
	struct vault_disk d = vault_disk("vda", 3);
	struct scene x;
	int64_t began;

	(void)state;
	make(&x);
	d.codes[1] = 7;
	(void)hostsite_backup(&x.h, "web01", &d);
	welcomed(&x);
	began = clock_mono_ns();
	assert_true(run_until(&x.loop, gave_up, &x, SOON_MS));
	assert_true(clock_mono_ns() - began >= 600 * LC_NS_PER_MS);
	assert_int_equal(x.h.ups, 1);
	assert_true(x.m.of_type[MESSAGE_BEGIN] > 0 && x.m.of_type[MESSAGE_PING] > 3);
	assert_int_equal(x.h.why.code, LC_ETIMEDOUT);
	assert_non_null(strstr(x.h.why.msg, "has acknowledged nothing for"));
	vault_disk_free(&d);
	end(&x);
}

static void
say_number(struct scene *x, uint16_t type, uint64_t n)
{
	struct lc_buf body = {0};

	assert_int_equal(message_put_number(&body, n), 0);
	mole_say(&x->m, type, (struct lc_span){body.p, body.n});
	lc_buf_free(&body);
}

/* It goes on talking, of things that it owes nobody. */
static void
who_talks_and_acknowledges_nothing_is_given_up(void **state)
{
	const struct room room = {.used = 1, .max = 100};
	struct vault_disk d = vault_disk("vda", 3);
	struct lc_buf body = {0};
	struct scene x;
	int64_t began;

	(void)state;
	make(&x);
	d.codes[1] = 7;
	(void)hostsite_backup(&x.h, "web01", &d);
	welcomed(&x);
	assert_int_equal(message_put_room(&body, &room), 0);
	began = clock_mono_ns();
	while (x.h.downs == 0 && clock_mono_ns() - began < 10 * LC_NS_PER_S) {
		mole_say(&x.m, MESSAGE_ROOM, (struct lc_span){body.p, body.n});
		say_number(&x, MESSAGE_TAKEN, 0);
		run_for(&x.loop, 50);
	}
	assert_int_equal(x.h.downs, 1);
	assert_non_null(strstr(x.h.why.msg, "has acknowledged nothing for"));
	lc_buf_free(&body);
	vault_disk_free(&d);
	end(&x);
}

struct half { /* a replica that works, but for one VM */
	struct scene x;
	struct point never;
	uint32_t stream; /* of that one's point; 0: none yet */
	uint64_t taken;
	unsigned committed;
};

static void
take_offer(struct half *f, struct lc_span body)
{
	static uint8_t bits[(OFFER_IDS_MAX + 7) / 8];
	struct lc_buf out = {0};
	struct offer m;

	assert_int_equal(message_get_offer(body, &m, NULL), 0);
	memset(bits, 0xff, sizeof bits);
	if (m.n % 8 != 0)
		bits[m.n / 8] = (uint8_t)((1u << m.n % 8) - 1);
	assert_int_equal(message_put_want(&out, &(struct want){m.stream, m.n, bits}), 0);
	mole_say(&f->x.m, MESSAGE_WANT, (struct lc_span){out.p, out.n});
	lc_buf_free(&out);
}

static void
take_commit(struct half *f, struct lc_span body)
{
	struct lc_buf out = {0};
	struct committed done = {.wall_ns = clock_wall_ns()};
	struct commit m;

	assert_int_equal(message_get_commit(body, &m, NULL), 0);
	if (m.stream == f->stream)
		return;
	done.stream = m.stream;
	assert_int_equal(message_put_committed(&out, &done), 0);
	mole_say(&f->x.m, MESSAGE_COMMITTED, (struct lc_span){out.p, out.n});
	lc_buf_free(&out);
	f->committed++;
}

static void
half_hears(void *arg, uint16_t type, struct lc_span body)
{
	struct half *f = arg;
	struct transfer_point p;
	struct sent_chunk c;
	uint32_t stream;

	if (type == MESSAGE_BEGIN) {
		assert_int_equal(message_get_begin(body, &stream, &p, NULL), 0);
		if (memcmp(p.line, f->never.line, 16) == 0)
			f->stream = stream;
	} else if (type == MESSAGE_OFFER) {
		take_offer(f, body);
	} else if (type == MESSAGE_CHUNK) {
		assert_int_equal(message_get_chunk(body, &c, NULL), 0);
		f->taken += c.chunk.payload.n;
		say_number(&f->x, MESSAGE_TAKEN, f->taken);
	} else if (type == MESSAGE_COMMIT) {
		take_commit(f, body);
	}
}

/* What goes on with other VMs is no reason to wait for one for ever. */
static void
a_point_that_is_never_acknowledged_is_noticed(void **state)
{
	struct vault_disk d = vault_disk("vda", 3);
	static struct half f;
	int64_t began;
	unsigned i;

	(void)state;
	memset(&f, 0, sizeof f);
	make(&f.x);
	f.x.h.limits.owed_ms = 1200;
	f.x.m.heard = half_hears;
	f.x.m.arg = &f;
	d.codes[1] = 7;
	f.never = hostsite_backup(&f.x.h, "web01", &d);
	welcomed(&f.x);
	began = clock_mono_ns();
	for (i = 0; f.x.h.downs == 0 && clock_mono_ns() - began < 10 * LC_NS_PER_S; i++) {
		d.codes[2] = 100 + i;
		(void)hostsite_backup(&f.x.h, "db", &d);
		run_for(&f.x.loop, 100);
	}
	assert_int_equal(f.x.h.downs, 1);
	assert_true(clock_mono_ns() - began >= 1200 * LC_NS_PER_MS);
	assert_true(f.committed > 3);
	assert_int_equal(f.x.h.why.code, LC_ETIMEDOUT);
	assert_non_null(strstr(f.x.h.why.msg, "has acknowledged nothing of a restore point for"));
	vault_disk_free(&d);
	end(&f.x);
}

static void
say_head(struct scene *x, uint32_t n, struct lc_span entry)
{
	struct head m = {.entry = entry};
	struct lc_buf body = {0};

	lc_put32(m.line, n);
	lc_put32(m.vm, n);
	assert_int_equal(message_put_head(&body, &m), 0);
	mole_say(&x->m, MESSAGE_HEAD, (struct lc_span){body.p, body.n});
	lc_buf_free(&body);
}

struct early { /* a replica that has a point that is newer than all that is here */
	struct scene x;
	struct point p[2];
	struct lc_buf head;
	struct uplink *u;
	unsigned asked, failed;
	bool too_early;
};

static int
take_head(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	(void)e;
	return lc_buf_append(arg, l->head.p, l->head.n);
}

static void
early_has(void *arg, const struct witness_point *list, size_t n, bool all)
{
	struct early *f = arg;

	(void)list;
	(void)n;
	f->asked += all ? 1 : 0;
	f->too_early = f->too_early || (f->failed == 0 && uplink_idle(f->u));
}

static void
early_failed(void *arg, const uint8_t vm[16], const struct lc_err *why)
{
	struct early *f = arg;

	(void)vm;
	assert_int_equal(why->code, LC_ECONFLICT);
	f->failed++;
}

static void
early_begin(struct early *f)
{
	struct hostsite *h = &f->x.h;
	struct uplink_opts o = {.loop = h->loop,
	                        .workers = h->workers,
	                        .store = h->v.s,
	                        .peer = &h->peer,
	                        .identity = &h->id,
	                        .host = h->name,
	                        .once = true,
	                        .limits = h->limits,
	                        .events = {.arg = f, .has = early_has, .failed = early_failed}};
	struct lc_err e = LC_ERR_INIT;

	must(uplink_start(&o, &f->u, &e), &e);
	h->uplink = f->u;
}

static bool
early_is_idle(void *arg)
{
	return uplink_idle(((struct early *)arg)->u);
}

/* That a replica has all there is does not show before it is told what it did not get: whoever
 * hears of what it has would take points for safe that are not. */
static void
what_fails_is_told_before_all_counts_as_sent(void **state)
{
	struct vault_disk d = vault_disk("vda", 3);
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf body = {0};
	static struct early f;
	struct head m;
	unsigned i;

	(void)state;
	memset(&f, 0, sizeof f);
	make(&f.x);
	for (i = 0; i < 2; i++) {
		d.codes[1] = 7 + i;
		f.p[i] = hostsite_backup(&f.x.h, "web01", &d);
	}
	must(transfer_lines(f.x.h.v.s, take_head, &f.head, &e), &e);
	must(store_drop(f.x.h.v.s, f.p[1].id, &e), &e);
	early_begin(&f);
	assert_true(run_until(&f.x.loop, has_said_hello, &f.x, SOON_MS));
	say_welcome(&f.x, 0);
	m = (struct head){.entry = {f.head.p, f.head.n}};
	memcpy(m.line, f.p[1].line, 16);
	memcpy(m.vm, f.p[1].vm_id, 16);
	assert_int_equal(message_put_head(&body, &m), 0);
	mole_say(&f.x.m, MESSAGE_HEAD, (struct lc_span){body.p, body.n});
	mole_say(&f.x.m, MESSAGE_HEADS_END, (struct lc_span){NULL, 0});
	assert_true(run_until(&f.x.loop, early_is_idle, &f, SOON_MS));
	assert_int_equal(f.asked, 1);
	assert_int_equal(f.failed, 1);
	assert_false(f.too_early);
	lc_buf_free(&body);
	lc_buf_free(&f.head);
	for (i = 0; i < 2; i++)
		point_done(&f.p[i]);
	vault_disk_free(&d);
	end(&f.x);
}

/* ---- a name that nobody looks up ---- */

#define SLOW_NAME "slow.invalid"
#define SLOW_MS 3000

static atomic_uint looking, looked;

/* In place of libc's; the other names of this test are numbers. */
__attribute__((visibility("default"))) int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
            struct addrinfo **res)
{
	union {
		void *p;
		int (*call)(const char *, const char *, const struct addrinfo *,
		            struct addrinfo **);
	} libc = {.p = dlsym(RTLD_NEXT, "getaddrinfo")};

	if (strcmp(node, SLOW_NAME) != 0)
		return libc.call(node, service, hints, res);
	looking++;
	(void)usleep(SLOW_MS * 1000);
	looked++;
	return EAI_AGAIN;
}

static bool
is_looking(void *arg)
{
	(void)arg;
	return looking > 0;
}

static bool
has_looked(void *arg)
{
	(void)arg;
	return looked > 0;
}

/* Where the name server is away with the link, an agent that reads its settings anew is not to wait
 * for that. */
static void
a_look_up_that_hangs_holds_up_nobody(void **state)
{
	struct scene x;
	int64_t began;

	(void)state;
	make(&x);
	(void)snprintf(x.h.peer.at.host, sizeof x.h.peer.at.host, SLOW_NAME);
	hostsite_connect(&x.h);
	assert_true(run_until(&x.loop, is_looking, NULL, SOON_MS));
	began = clock_mono_ns();
	hostsite_disconnect(&x.h);
	assert_true(clock_mono_ns() - began < SLOW_MS / 2 * LC_NS_PER_MS);
	assert_int_equal(looked, 0);
	assert_true(run_until(&x.loop, has_looked, NULL, SOON_MS));
	run_for(&x.loop, 50);
	end(&x);
}

/* It tells of lines without end, or of few that take all of the host's memory. */
static void
heads_without_end_are_given_up(void **state)
{
	static const uint8_t entry[TRANSFER_ENTRY_MAX];
	struct scene x;
	uint32_t n;
	unsigned i;

	(void)state;
	for (i = 0; i < 2; i++) {
		make(&x);
		/* It is the lines that it is given up for, on a slow machine, too. */
		x.h.limits.dead_ms = x.h.limits.welcome_ms = SOON_MS;
		hostsite_begin(&x.h, NULL);
		assert_true(run_until(&x.loop, has_said_hello, &x, SOON_MS));
		say_welcome(&x, 0);
		for (n = 0; n < (i == 0 ? 20000 : 300) && x.h.downs == 0; n++) {
			say_head(&x, n, (struct lc_span){entry, i == 0 ? 0 : sizeof entry});
			if (n % 50 == 0)
				run_for(&x.loop, 1);
		}
		assert_true(run_until(&x.loop, gave_up, &x, SOON_MS));
		assert_int_equal(x.h.why.code, LC_EPEER);
		assert_non_null(strstr(x.h.why.msg, "more lines than there can be"));
		end(&x);
	}
}

static void
another_clock_is_seen(void **state)
{
	const int64_t hour = INT64_C(3600) * LC_NS_PER_S;
	struct uplink_stats st;
	struct scene x;

	(void)state;
	make(&x);
	hostsite_begin(&x.h, NULL);
	assert_true(run_until(&x.loop, has_said_hello, &x, SOON_MS));
	uplink_stats(x.h.uplink, &st);
	assert_int_equal(st.ahead_ns, 0);
	say_welcome(&x, -2 * hour);
	assert_true(run_until(&x.loop, hostsite_is_up, &x.h, SOON_MS));
	uplink_stats(x.h.uplink, &st);
	assert_true(st.ahead_ns <= -2 * hour && st.ahead_ns > -2 * hour - 60 * LC_NS_PER_S);
	end(&x);
}

/* It may say anything, and what it is ahead may be told with either sign. */
static void
a_clock_that_none_can_show_is_seen(void **state)
{
	int64_t said[2] = {INT64_MIN, INT64_MAX};
	struct uplink_stats st;
	struct scene x;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct welcome w = {
		    .version = MESSAGE_VERSION, .byte_window = 1u << 20, .wall_ns = said[i]};
		struct lc_buf body = {0};

		make(&x);
		hostsite_begin(&x.h, NULL);
		assert_true(run_until(&x.loop, has_said_hello, &x, SOON_MS));
		assert_int_equal(message_put_welcome(&body, &w), 0);
		mole_say(&x.m, MESSAGE_WELCOME, (struct lc_span){body.p, body.n});
		lc_buf_free(&body);
		assert_true(run_until(&x.loop, hostsite_is_up, &x.h, SOON_MS));
		uplink_stats(x.h.uplink, &st);
		assert_true(i == 0 ? st.ahead_ns < 0 : st.ahead_ns > 0);
		assert_true(st.ahead_ns != INT64_MIN);
		end(&x);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(who_only_answers_pings_is_given_up),
	    cmocka_unit_test(who_never_says_what_it_has_is_given_up),
	    cmocka_unit_test(who_has_said_what_it_has_may_be_silent),
	    cmocka_unit_test(who_acknowledges_nothing_is_given_up),
	    cmocka_unit_test(who_talks_and_acknowledges_nothing_is_given_up),
	    cmocka_unit_test(a_point_that_is_never_acknowledged_is_noticed),
	    cmocka_unit_test(what_fails_is_told_before_all_counts_as_sent),
	    cmocka_unit_test(a_look_up_that_hangs_holds_up_nobody),
	    cmocka_unit_test(heads_without_end_are_given_up),
	    cmocka_unit_test(another_clock_is_seen),
	    cmocka_unit_test(a_clock_that_none_can_show_is_seen),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

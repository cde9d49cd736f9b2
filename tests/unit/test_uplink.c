/*
 * A host's connection to a replica that does not do as it should.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/message.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/mole.h"
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
	hostsite_begin(&x.h, NULL);
	assert_true(run_until(&x.loop, has_said_hello, &x, SOON_MS));
	say_welcome(&x, 0);
	mole_say(&x.m, MESSAGE_HEADS_END, (struct lc_span){NULL, 0});
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
	hostsite_begin(&x.h, NULL);
	assert_true(run_until(&x.loop, has_said_hello, &x, SOON_MS));
	say_welcome(&x, 0);
	mole_say(&x.m, MESSAGE_HEADS_END, (struct lc_span){NULL, 0});
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(who_only_answers_pings_is_given_up),
	    cmocka_unit_test(who_never_says_what_it_has_is_given_up),
	    cmocka_unit_test(who_has_said_what_it_has_may_be_silent),
	    cmocka_unit_test(who_acknowledges_nothing_is_given_up),
	    cmocka_unit_test(heads_without_end_are_given_up),
	    cmocka_unit_test(another_clock_is_seen),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

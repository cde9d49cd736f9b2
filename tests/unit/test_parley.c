/*
 * parley, unixsock: lines over a unix socket, with an owner that repeats what it hears.
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "store/base/clock.h"
#include "store/base/memory.h"
#include "store/base/unixsock.h"
#include "store/desk/parley.h"
#include "tests/lib/unit.h"

#define SOON_MS 10000
#define LINE_MAX_HERE 100u
#define UNREAD_MAX_HERE ((size_t)1 << 20)

struct scene {
	uv_loop_t loop;
	uv_timer_t clock;
	char *dir, path[100];
	struct parleys *parleys;
	struct parley *t; /* the newest */
	unsigned came, lines, ticks, left, gone, closed;
	bool refuse, hold, end_at_once;
	char last[LINE_MAX_HERE + 1];
};

static void
on_came(void *arg, struct parley *t)
{
	struct scene *x = arg;

	x->came++;
	if (x->refuse)
		return;
	x->t = t;
	parley_own(t, x);
	if (!x->end_at_once)
		return;
	parley_say(t, json_pack("{s:b}", "busy", 1));
	parley_end(t);
}

static void
on_line(void *mine, const char *p, size_t n)
{
	struct scene *x = mine;

	x->lines++;
	(void)snprintf(x->last, sizeof x->last, "%.*s", (int)n, p);
	parley_say(x->t, json_pack("{s:s}", "heard", x->last));
	if (x->hold)
		parley_hold(x->t);
}

static void
on_tick(void *mine)
{
	((struct scene *)mine)->ticks++;
}

static void
on_left(void *mine)
{
	struct scene *x = mine;

	x->left++;
	parley_say(x->t, json_pack("{s:b}", "nobody hears this", 1));
	parley_close(x->t);
}

static void
on_gone(void *mine)
{
	((struct scene *)mine)->gone++;
}

static void
on_closed(void *arg)
{
	((struct scene *)arg)->closed++;
}

static void
on_clock(uv_timer_t *t)
{
	(void)t;
}

static int
open_there(struct scene *x, const char *path, struct parleys **out, struct lc_err *e)
{
	struct parleys_opts o = {.loop = &x->loop,
	                         .path = path,
	                         .line_max = LINE_MAX_HERE,
	                         .unread_max = UNREAD_MAX_HERE,
	                         .tick_ms = 5,
	                         .arg = x,
	                         .events = {.came = on_came,
	                                    .line = on_line,
	                                    .tick = on_tick,
	                                    .left = on_left,
	                                    .gone = on_gone}};

	return parleys_open(&o, out, e);
}

static void
make(struct scene *x)
{
	struct lc_err e = LC_ERR_INIT;

	memset(x, 0, sizeof *x);
	assert_int_equal(uv_loop_init(&x->loop), 0);
	x->dir = tmpdir_new();
	(void)snprintf(x->path, sizeof x->path, "%s/sock", x->dir);
	if (open_there(x, x->path, &x->parleys, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(uv_timer_init(&x->loop, &x->clock), 0);
	assert_int_equal(uv_timer_start(&x->clock, on_clock, 2, 2), 0);
}

/* Until *n is at least that. */
static void
wait_for(struct scene *x, const unsigned *n, unsigned least)
{
	int64_t end = clock_mono_ns() + SOON_MS * LC_NS_PER_MS;

	while (*n < least && clock_mono_ns() < end)
		(void)uv_run(&x->loop, UV_RUN_ONCE);
	if (*n < least)
		fail_msg("%u of %u", *n, least);
}

static void
end(struct scene *x)
{
	parleys_close(x->parleys, on_closed, x);
	uv_close((uv_handle_t *)&x->clock, NULL);
	(void)uv_run(&x->loop, UV_RUN_DEFAULT);
	assert_int_equal(x->closed, 1);
	assert_int_equal(x->left, x->gone);
	assert_int_equal(uv_loop_close(&x->loop), 0);
	assert_int_equal(access(x->path, F_OK), -1);
	tmpdir_free(x->dir);
}

static int
come(struct scene *x)
{
	int fd = unixsock_connect(x->path);
	unsigned before = x->came;

	assert_true(fd >= 0);
	wait_for(x, &x->came, before + 1);
	return fd;
}

static void
say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* What was said here, up to n bytes or the end. */
static const char *
heard(struct scene *x, int fd, size_t n)
{
	static char buf[200];
	int64_t until = clock_mono_ns() + SOON_MS * LC_NS_PER_MS;
	size_t got = 0;

	while (got < n && clock_mono_ns() < until) {
		ssize_t k = recv(fd, buf + got, n - got, MSG_DONTWAIT);

		if (k == 0)
			break;
		if (k > 0)
			got += (size_t)k;
		else
			(void)uv_run(&x->loop, UV_RUN_ONCE);
	}
	buf[got] = '\0';
	return buf;
}

static void
lines_come_one_by_one(void **state)
{
	struct scene x;
	int fd;

	(void)state;
	make(&x);
	fd = come(&x);
	say(fd, "on");
	wait_for(&x, &x.ticks, 2);
	assert_int_equal(x.lines, 0);
	say(fd, "e\ntwo\nth");
	wait_for(&x, &x.lines, 2);
	assert_string_equal(x.last, "two");
	assert_string_equal(heard(&x, fd, 32), "{\"heard\":\"one\"}\n{\"heard\":\"two\"}\n");
	(void)close(fd);
	wait_for(&x, &x.gone, 1);
	assert_int_equal(x.lines, 2);
	end(&x);
}

static void
what_is_held_waits(void **state)
{
	struct scene x;
	int fd;

	(void)state;
	make(&x);
	x.hold = true;
	fd = come(&x);
	say(fd, "one\ntwo\nthree\n");
	wait_for(&x, &x.lines, 1);
	wait_for(&x, &x.ticks, x.ticks + 3);
	assert_int_equal(x.lines, 1);
	parley_resume(x.t);
	assert_int_equal(x.lines, 2);
	x.hold = false;
	parley_resume(x.t);
	assert_int_equal(x.lines, 3);
	assert_string_equal(x.last, "three");
	(void)close(fd);
	end(&x);
}

/* It has no end that is of use to anybody. */
static void
a_line_too_long_ends_it(void **state)
{
	char longer[LINE_MAX_HERE + 2];
	struct scene x;
	int fd;

	(void)state;
	make(&x);
	memset(longer, 'a', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	fd = come(&x);
	say(fd, longer);
	wait_for(&x, &x.gone, 1);
	assert_int_equal(x.lines, 0);
	assert_string_equal(heard(&x, fd, 1), "");
	(void)close(fd);
	end(&x);
}

static void
last_words_go_out(void **state)
{
	struct scene x;
	int fd;

	(void)state;
	make(&x);
	x.end_at_once = true;
	fd = unixsock_connect(x.path);
	assert_true(fd >= 0);
	say(fd, "not heard\n");
	assert_string_equal(heard(&x, fd, 100), "{\"busy\":true}\n");
	wait_for(&x, &x.gone, 1);
	assert_int_equal(x.lines, 0);
	(void)close(fd);
	end(&x);
}

static void
who_reads_nothing_has_to_go(void **state)
{
	struct scene x;
	char *much = malloc(UNREAD_MAX_HERE);
	int fd;

	(void)state;
	assert_non_null(much);
	memset(much, 'a', UNREAD_MAX_HERE);
	make(&x);
	fd = come(&x);
	parley_say(x.t, json_pack("{s:s%}", "much", much, UNREAD_MAX_HERE - 1000));
	wait_for(&x, &x.ticks, 3);
	assert_int_equal(x.left, 0);
	parley_say(x.t, json_pack("{s:s%}", "much", much, UNREAD_MAX_HERE - 1000));
	assert_true(parley_unread(x.t) > UNREAD_MAX_HERE);
	wait_for(&x, &x.gone, 1);
	(void)close(fd);
	free(much);
	end(&x);
}

static void
who_is_not_wanted_is_sent_away(void **state)
{
	struct scene x;
	int fd;

	(void)state;
	make(&x);
	x.refuse = true;
	fd = come(&x);
	assert_string_equal(heard(&x, fd, 1), "");
	(void)close(fd);
	assert_int_equal(x.left, 0);
	x.refuse = false;
	fd = come(&x);
	assert_int_equal(parleys_count(x.parleys), 1);
	end(&x); /* with one who is there */
	assert_int_equal(x.left, 1);
	(void)close(fd);
}

static void
a_path_is_for_one(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct parleys *other = NULL;
	struct scene x;
	char path[300];

	(void)state;
	make(&x);
	assert_true(unixsock_listens(x.path));
	assert_int_equal(open_there(&x, x.path, &other, &e), LC_EBUSY);
	assert_true(unixsock_listens(x.path));
	(void)snprintf(path, sizeof path, "%s/%0200d", x.dir, 0);
	lc_err_clear(&e);
	assert_int_equal(open_there(&x, path, &other, &e), LC_EINVAL);
	assert_false(unixsock_listens(path));
	assert_int_equal(unixsock_connect(path), -1);
	assert_int_equal(errno, ENAMETOOLONG);
	end(&x);
}

/* Who was killed leaves it behind. */
static void
a_path_that_nobody_listens_on_is_taken(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct parleys *other = NULL;
	struct scene x;
	char path[200], again[200];

	(void)state;
	make(&x);
	(void)snprintf(path, sizeof path, "%s/dead", x.dir);
	(void)snprintf(again, sizeof again, "%s/kept", x.dir);
	assert_int_equal(open_there(&x, path, &other, &e), 0);
	assert_int_equal(rename(path, again), 0); /* its end does not find it */
	parleys_close(other, NULL, NULL);
	(void)uv_run(&x.loop, UV_RUN_NOWAIT);
	assert_false(unixsock_listens(again));
	assert_int_equal(open_there(&x, again, &other, &e), 0);
	assert_true(unixsock_listens(again));
	parleys_close(other, NULL, NULL);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(lines_come_one_by_one),
	    cmocka_unit_test(what_is_held_waits),
	    cmocka_unit_test(a_line_too_long_ends_it),
	    cmocka_unit_test(last_words_go_out),
	    cmocka_unit_test(who_reads_nothing_has_to_go),
	    cmocka_unit_test(who_is_not_wanted_is_sent_away),
	    cmocka_unit_test(a_path_is_for_one),
	    cmocka_unit_test(a_path_that_nobody_listens_on_is_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

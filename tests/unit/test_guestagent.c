/* guestagent.c against an agent played by a thread. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/hypervisor/guestagent.h"
#include "store/base/clock.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"

enum manner { POLITE = 0, NOISY, SILENT, CLOSES, REFUSES, FAILS, BABBLES };

struct agent {
	char *dir;
	char path[108];
	int listener;
	enum manner manner;
	pthread_t thread;
};

static void
say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void
answer(const struct agent *a, int fd, const char *line)
{
	static const char sync[] =
	    "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":";
	char text[200];

	if (strncmp(line, sync, sizeof sync - 1) == 0) {
		if (a->manner == NOISY)
			say(fd,
			    "{\"return\": {}}\n{\"error\": {\"class\": \"GenericError\", \"desc\": "
			    "\"JSON parse error, stray '\xff'\"}}\n\xff{\"return\": 1}\nhalf a li");
		(void)snprintf(text, sizeof text, "\xff{\"return\": %.*s}\n",
		               (int)strcspn(line + sizeof sync - 1, "}"), line + sizeof sync - 1);
		say(fd, text);
	} else if (a->manner == REFUSES) {
		say(fd, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such\"}}\n");
	} else if (a->manner == FAILS) {
		say(fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"cannot\"}}\n");
	} else if (a->manner == BABBLES) {
		say(fd, "[1]\n");
	} else {
		say(fd,
		    strstr(line, "freeze") != NULL ? "{\"return\": 3}\n" : "{\"return\": {}}\n");
	}
}

static void *
play(void *arg)
{
	struct agent *a = arg;
	char line[300];
	size_t n = 0;
	int fd = accept(a->listener, NULL, NULL);
	ssize_t got;

	if (a->manner == CLOSES) {
		(void)close(fd);
		return NULL;
	}
	while ((got = recv(fd, line + n, 1, 0)) == 1) {
		if (line[n++] != '\n' && n < sizeof line - 1)
			continue;
		line[n] = '\0';
		n = 0;
		if (a->manner != SILENT)
			answer(a, fd, line);
	}
	(void)close(fd);
	return NULL;
}

static void
start(struct agent *a, enum manner manner)
{
	struct sockaddr_un s = {.sun_family = AF_UNIX};

	a->manner = manner;
	a->dir = tmpdir_new();
	(void)snprintf(a->path, sizeof a->path, "%s/qga", a->dir);
	(void)snprintf(s.sun_path, sizeof s.sun_path, "%s", a->path);
	a->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(a->listener, (const struct sockaddr *)&s, sizeof s), 0);
	assert_int_equal(listen(a->listener, 1), 0);
	assert_int_equal(pthread_create(&a->thread, NULL, play, a), 0);
}

static void
stop(struct agent *a)
{
	assert_int_equal(pthread_join(a->thread, NULL), 0);
	(void)close(a->listener);
	tmpdir_free(a->dir);
}

static void
test_sync_and_calls(void **state)
{
	static const enum manner manners[] = {POLITE, NOISY};
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct agent a;
		struct guestagent *g;
		struct lc_err e = LC_ERR_INIT;
		uint64_t frozen = 99;

		start(&a, manners[i]);
		assert_int_equal(guestagent_open(a.path, &g, &e), 0);
		if (guestagent_sync(g, 5000, &e) != 0)
			fail_msg("%s", e.msg);
		assert_int_equal(guestagent_call(g, "guest-ping", 5000, &frozen, &e), 0);
		assert_int_equal(frozen, 0);
		assert_int_equal(guestagent_call(g, "guest-fsfreeze-freeze", 5000, &frozen, &e), 0);
		assert_int_equal(frozen, 3);
		assert_int_equal(guestagent_sync(g, 5000, &e), 0); /* any time again */
		guestagent_close(g);
		stop(&a);
	}
}

static void
test_ping(void **state)
{
	struct agent a;
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	start(&a, NOISY);
	assert_int_equal(guestagent_ping(a.path, 5000, &e), 0);
	stop(&a);
	assert_int_equal(guestagent_ping("/nonexistent/qga", 100, &e), LC_ENOENT);
}

static void
test_silence(void **state)
{
	struct agent a;
	struct guestagent *g;
	int64_t t0;
	struct lc_err e = LC_ERR_INIT;
	unsigned i;

	(void)state;
	start(&a, SILENT);
	assert_int_equal(guestagent_open(a.path, &g, NULL), 0);
	t0 = clock_mono_ns();
	assert_int_equal(guestagent_sync(g, 50, &e), LC_ETIMEDOUT);
	assert_in_range((clock_mono_ns() - t0) / LC_NS_PER_MS, 45, 2000);
	assert_non_null(strstr(e.msg, a.path));
	for (i = 0; i < 10; i++) /* polling does not block */
		assert_int_equal(guestagent_sync(g, 0, NULL), LC_ETIMEDOUT);
	guestagent_close(g);
	stop(&a);
}

static void
answers(enum manner manner, int sync, int call)
{
	struct agent a;
	struct guestagent *g;

	start(&a, manner);
	assert_int_equal(guestagent_open(a.path, &g, NULL), 0);
	assert_int_equal(guestagent_sync(g, 5000, NULL), sync);
	if (sync == 0)
		assert_int_equal(guestagent_call(g, "guest-x", 5000, NULL, NULL), call);
	guestagent_close(g);
	stop(&a);
}

static void
test_failures(void **state)
{
	(void)state;
	answers(CLOSES, LC_EPEER, 0);
	answers(REFUSES, 0, LC_ENOTSUP);
	answers(FAILS, 0, LC_EPEER);
	answers(BABBLES, 0, LC_EPEER);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sync_and_calls),
	    cmocka_unit_test(test_ping),
	    cmocka_unit_test(test_silence),
	    cmocka_unit_test(test_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * relay_past: only a QEMU that answers, and is the one that is meant, is let go.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/hypervisor/relay_past.h"
#include "store/base/clock.h"
#include "tests/lib/unit.h"

#define UUID "a69e0e58-296b-4fa5-93c4-a7945ef62935"
#define OTHER "b69e0e58-296b-4fa5-93c4-a7945ef62935"

struct monitor {
	char path[108];
	int fd;
	const char *greeting, *uuid;
	char said[1024]; /* by the client */
	pthread_t thread;
};

static void
reply(int fd, const char *text)
{
	(void)!write(fd, text, strlen(text));
}

static void *
serve(void *arg)
{
	struct monitor *m = arg;
	int fd = accept(m->fd, NULL, NULL);
	char line[256], text[256];
	ssize_t n;

	reply(fd, m->greeting);
	while ((n = read(fd, line, sizeof line - 1)) > 0) {
		line[n] = '\0';
		(void)strncat(m->said, line, sizeof m->said - strlen(m->said) - 1);
		(void)snprintf(text, sizeof text,
		               "{\"return\": {\"UUID\": \"%s\"}, \"id\": %s}\r\n", m->uuid,
		               strstr(line, "\"id\"") == NULL ? "1" : "\"locum\"");
		reply(fd, text);
	}
	(void)close(fd);
	return NULL;
}

static void
start(struct monitor *m)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	memcpy(a.sun_path, m->path, sizeof m->path);
	m->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(m->fd, (const struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(m->fd, 1), 0);
	assert_int_equal(pthread_create(&m->thread, NULL, serve, m), 0);
}

static void
stop(struct monitor *m)
{
	(void)pthread_join(m->thread, NULL);
	(void)close(m->fd);
	(void)unlink(m->path);
}

static bool
ask(const char *greeting, const char *uuid, bool *cont)
{
	char *dir = tmpdir_new();
	struct monitor m = {.greeting = greeting, .uuid = uuid};
	bool gone;

	(void)snprintf(m.path, sizeof m.path, "%s/monitor.sock", dir);
	start(&m);
	gone = relay_past(m.path, UUID);
	stop(&m);
	*cont = strstr(m.said, "\"cont\"") != NULL;
	tmpdir_free(dir);
	return gone;
}

static void
test_let_go(void **state)
{
	bool cont;

	(void)state;
	assert_true(ask("{\"QMP\": {}}\r\n", UUID, &cont));
	assert_true(cont);
}

static void
test_another(void **state)
{
	bool cont;

	(void)state;
	assert_false(ask("{\"QMP\": {}}\r\n", OTHER, &cont));
	assert_false(cont);
}

/* As it is while libvirtd is connected. */
static void
test_held(void **state)
{
	int64_t began = clock_mono_ns();
	bool cont;

	(void)state;
	assert_false(ask("", UUID, &cont));
	assert_false(cont);
	assert_true(clock_mono_ns() - began < 5 * LC_NS_PER_S);
}

static void
test_nobody(void **state)
{
	(void)state;
	assert_false(relay_past("/nonexistent/monitor.sock", UUID));
	assert_false(relay_past("", UUID));
}

static void
test_path(void **state)
{
	char path[RELAY_PAST_PATH];

	(void)state;
	relay_past_path("unix:/var/lib/libvirt/qemu/domain-1-a/monitor.sock,server=on", path);
	assert_string_equal(path, "/var/lib/libvirt/qemu/domain-1-a/monitor.sock");
	relay_past_path("disconnected:unix:/a,server=on", path);
	assert_string_equal(path, "/a");
	relay_past_path("unix:/a", path); /* it does not listen */
	assert_string_equal(path, "");
	relay_past_path("unix:a,server=on", path);
	assert_string_equal(path, "");
	relay_past_path("pty:/dev/pts/1", path);
	assert_string_equal(path, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_let_go), cmocka_unit_test(test_another),
	    cmocka_unit_test(test_held),   cmocka_unit_test(test_nobody),
	    cmocka_unit_test(test_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

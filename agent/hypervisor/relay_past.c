#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/processes.h"
#include "agent/hypervisor/relay_past.h"

#define WAIT_MS 800 /* for all of it */

void
relay_past_path(const char *filename, char out[RELAY_PAST_PATH])
{
	const char *from = strstr(filename, "unix:"), *to;

	out[0] = '\0';
	if (from == NULL)
		return;
	from += strlen("unix:");
	to = strstr(from, ",server");
	if (to != NULL && *from == '/' && to - from < RELAY_PAST_PATH)
		(void)snprintf(out, RELAY_PAST_PATH, "%.*s", (int)(to - from), from);
}

static int
dial(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = -1;

	if (path[0] == '\0' || strlen(path) >= sizeof a.sun_path)
		return -1;
	memcpy(a.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof a) != 0)
		fd_close(&fd);
	return fd;
}

/* As QEMU sees the path. */
static int
dial_within(const char *path, const char *uuid)
{
	struct process *list = NULL;
	char there[sizeof((struct sockaddr_un *)0)->sun_path];
	size_t i, n = 0;
	int fd = -1;

	(void)processes_list(NULL, &list, &n, NULL);
	for (i = 0; i < n && fd < 0; i++) {
		if (strcasecmp(list[i].uuid, uuid) != 0)
			continue;
		if ((size_t)snprintf(there, sizeof there, "/proc/%d/root%s", list[i].pid, path) <
		    sizeof there)
			fd = dial(there);
	}
	lc_free(list);
	return fd;
}

/* Say it, and read until there is a line with `want`, or false. */
static bool
talk(int fd, const char *say, const char *want, int64_t end_ns)
{
	char buf[8192];
	size_t n = 0, length = strlen(say);

	if (send(fd, say, length, MSG_NOSIGNAL) != (ssize_t)length)
		return false;
	for (;;) {
		struct pollfd in = {.fd = fd, .events = POLLIN};
		int64_t left_ms = (end_ns - clock_mono_ns()) / LC_NS_PER_MS;
		ssize_t k;

		if (n == sizeof buf - 1 || left_ms <= 0 || poll(&in, 1, (int)left_ms) <= 0)
			return false;
		k = recv(fd, buf + n, sizeof buf - 1 - n, 0);
		if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		n += k > 0 ? (size_t)k : 0;
		buf[n] = '\0';
		if (strstr(buf, want) != NULL)
			return true;
	}
}

bool
relay_past(const char *path, const char *uuid)
{
	int64_t end_ns = clock_mono_ns() + WAIT_MS * LC_NS_PER_MS;
	int fd = dial(path);
	bool gone;

	if (fd < 0 && path[0] != '\0')
		fd = dial_within(path, uuid);
	if (fd < 0)
		return false;
	gone = talk(fd, "", "\"QMP\"", end_ns) &&
	       talk(fd, "{\"execute\":\"qmp_capabilities\"}\n", "\"return\"", end_ns) &&
	       talk(fd, "{\"execute\":\"query-uuid\"}\n", uuid, end_ns) &&
	       talk(fd, "{\"execute\":\"cont\",\"id\":\"locum\"}\n", "\"locum\"", end_ns);
	fd_close(&fd);
	return gone;
}

/* Starting a relay: a process that is nobody's child, so that nobody has to wait for it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/files.h"

#include "agent/hypervisor/relay.h"

#define RELAY_FD 3 /* its end, in the other process */

/* After a fork of a process with threads: system calls only. */
static _Noreturn void
become_relay(char *const argv[], int fd)
{
	int null = open("/dev/null", O_RDWR); /* which may be one of those three by itself */
	int i;

	(void)setsid();
	for (i = 0; i < RELAY_FD; i++)
		(void)dup2(null, i);
	(void)dup3(fd, RELAY_FD, 0);
	(void)close_range(RELAY_FD + 1, ~0U, 0);
	(void)execv("/proc/self/exe", argv);
	_exit(127);
}

/* Our end, or -1 and errno.  No fork(): it has libraries put things in order, which they can't in
 * the child of a process with threads. */
static int
start(char *const argv[])
{
	int ends[2] = {-1, -1}, high, why;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return -1;
	/* Above what the other process puts in its place. */
	high = fcntl(ends[1], F_DUPFD_CLOEXEC, RELAY_FD + 1);
	fd_close(&ends[1]);
	pid = high < 0 ? -1 : _Fork();
	why = errno;
	if (pid == 0) {
		if (_Fork() == 0)
			become_relay(argv, high);
		_exit(0);
	}
	fd_close(&high);
	if (pid < 0) {
		fd_close(&ends[0]);
		errno = why;
		return -1;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return ends[0];
}

int
relay_start(const char *uri, const char *domain, int64_t timeout_ms, int *out, struct lc_err *e)
{
	char name[] = "locum", word[] = RELAY_WORD, limit[24];
	char *argv[] = {name, word, limit, (char *)(uintptr_t)uri, (char *)(uintptr_t)domain, NULL};

	(void)snprintf(limit, sizeof limit, "%" PRId64, timeout_ms / 1000 + 1);
	*out = start(argv);
	if (*out < 0)
		return lc_fail(e, LC_ENOMEM, 0, "libvirt at %s: no process is to be had", uri);
	return 0;
}

int
relay_agent(const char *uri, const char *domain, int64_t answer_ms, int64_t limit_ms)
{
	char name[] = "locum", word[] = RELAY_AGENT_WORD, answer[24], limit[24];
	char *argv[] = {
	    name, word, answer, limit, (char *)(uintptr_t)uri, (char *)(uintptr_t)domain, NULL};
	int fd;

	(void)snprintf(answer, sizeof answer, "%" PRId64, (answer_ms + 999) / 1000);
	(void)snprintf(limit, sizeof limit, "%" PRId64, limit_ms < 1000 ? 1 : limit_ms / 1000);
	fd = start(argv);
	if (fd >= 0)
		(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

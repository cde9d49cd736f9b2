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
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int i;

	(void)setsid();
	for (i = 0; i < RELAY_FD; i++)
		(void)dup2(null, i);
	(void)dup3(fd, RELAY_FD, 0);
	(void)close_range(RELAY_FD + 1, ~0U, 0);
	(void)execv("/proc/self/exe", argv);
	_exit(127);
}

int
relay_start(const char *uri, const char *domain, int64_t timeout_ms, int *out, struct lc_err *e)
{
	char name[] = "locum", word[] = RELAY_WORD, limit[24];
	char *argv[] = {name, word, limit, (char *)(uintptr_t)uri, (char *)(uintptr_t)domain, NULL};
	int ends[2] = {-1, -1}, high;
	pid_t pid;

	(void)snprintf(limit, sizeof limit, "%" PRId64, timeout_ms / 1000 + 1);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return lc_fail_errno(e, "libvirt at %s", uri);
	/* Above what the other process puts in its place. */
	high = fcntl(ends[1], F_DUPFD_CLOEXEC, RELAY_FD + 1);
	fd_close(&ends[1]);
	pid = high < 0 ? -1 : fork();
	if (pid == 0) {
		if (fork() == 0)
			become_relay(argv, high);
		_exit(0);
	}
	fd_close(&high);
	if (pid < 0) {
		fd_close(&ends[0]);
		return lc_fail(e, LC_ENOMEM, 0, "libvirt at %s: no process is to be had", uri);
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	*out = ends[0];
	return 0;
}

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/base/clock.h"

#include "tests/lib/process.h"

pid_t
process_start(const char *const *argv)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent) {
			union {
				const char *const *in;
				char *const *out;
			} args = {.in = argv};

			(void)execvp(argv[0], args.out);
		}
		_exit(127);
	}
	return pid;
}

int
process_run(const char *const *argv)
{
	pid_t pid = process_start(argv);
	int status;

	while (pid > 0 && waitpid(pid, &status, 0) == -1) {
		if (errno != EINTR)
			return -1;
	}
	if (pid <= 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void
process_stop(pid_t pid)
{
	if (pid <= 0)
		return;
	(void)kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
		continue;
}

bool
process_listens(const char *path, int64_t timeout_ms)
{
	int64_t end = clock_mono_ns() + timeout_ms * LC_NS_PER_MS;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const struct timespec nap = {.tv_nsec = 10000000};
	bool up = false;

	(void)snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	while (!up && clock_mono_ns() < end) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		up = connect(fd, (const struct sockaddr *)&a, sizeof a) == 0;
		(void)close(fd);
		if (!up)
			(void)nanosleep(&nap, NULL);
	}
	return up;
}

bool
process_have(const char *program)
{
	const char *path = getenv("PATH");
	char *copy = strdup(path == NULL ? "/usr/bin:/bin" : path);
	char *save = NULL;
	bool found = false;
	const char *dir;

	if (copy == NULL)
		abort();
	for (dir = strtok_r(copy, ":", &save); dir != NULL && !found;
	     dir = strtok_r(NULL, ":", &save)) {
		char *full = process_path(dir, program);

		found = access(full, X_OK) == 0;
		free(full);
	}
	free(copy);
	return found;
}

char *
process_tmpdir(void)
{
	char *dir = strdup("/tmp/locum-test.XXXXXX"); /* short: unix sockets live here */

	if (dir == NULL || mkdtemp(dir) == NULL)
		abort();
	return dir;
}

char *
process_path(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		abort();
	return path;
}

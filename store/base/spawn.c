#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/spawn.h"

#define POLL_MS 100
#define LAST_MAX 300

enum { OUT = 0, ERR, NWORDS };

struct running {
	int words[NWORDS];      /* files in memory */
	int fds[SPAWN_FDS_MAX]; /* above all numbers that are given to the program */
};

static int
start(const struct spawn *s, const struct running *r, pid_t *pid)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none;
	size_t i;
	int rc;

	(void)sigemptyset(&none);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setpgroup(&attr, 0);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	(void)posix_spawn_file_actions_init(&fa);
	(void)posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	(void)posix_spawn_file_actions_adddup2(&fa, r->words[OUT], STDOUT_FILENO);
	(void)posix_spawn_file_actions_adddup2(&fa, r->words[ERR], STDERR_FILENO);
	for (i = 0; i < s->nfds; i++)
		(void)posix_spawn_file_actions_adddup2(&fa, r->fds[i], SPAWN_FD_FIRST + (int)i);
	(void)posix_spawn_file_actions_addclosefrom_np(&fa, SPAWN_FD_FIRST + (int)s->nfds);
	rc = posix_spawnp(pid, s->argv[0], &fa, &attr, s->argv, environ);
	(void)posix_spawn_file_actions_destroy(&fa);
	(void)posix_spawnattr_destroy(&attr);
	return rc;
}

/* Its status once it has ended; *why: it was ended by us. */
static int
wait_for(const struct spawn *s, pid_t pid, enum lc_code *why)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0u), status = 0;
	int64_t began_ns = clock_mono_ns();

	while (pidfd >= 0 && *why == LC_OK) {
		struct pollfd p = {.fd = pidfd, .events = POLLIN};

		if (poll(&p, 1, POLL_MS) > 0)
			break;
		if (s->stop != NULL && s->stop(s->arg))
			*why = LC_ECANCELED;
		else if (s->timeout_ms > 0 &&
		         clock_mono_ns() - began_ns > s->timeout_ms * LC_NS_PER_MS)
			*why = LC_ETIMEDOUT;
	}
	if (*why != LC_OK)
		(void)kill(-pid, SIGKILL); /* with what it has started */
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		continue;
	fd_close(&pidfd);
	return status;
}

static int
take_words(int fd, struct lc_buf *out, struct lc_err *e)
{
	off_t n = lseek(fd, 0, SEEK_END);

	n = n < 0 ? 0 : n > (off_t)SPAWN_TEXT_MAX ? (off_t)SPAWN_TEXT_MAX : n;
	out->n = 0;
	if (lc_buf_reserve(out, (size_t)n + 1) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (file_pread_full(fd, out->p, (size_t)n, 0, "what a program said", e) != 0)
		return LC_EIO;
	out->n = (size_t)n;
	out->p[n] = '\0';
	return 0;
}

/* The last of what it said, in one line. */
static void
last_words(const struct running *r, char *dst, size_t n)
{
	off_t size = lseek(r->words[ERR], 0, SEEK_END);
	off_t at = size < (off_t)n ? 0 : size - (off_t)n + 1;
	ssize_t got = pread(r->words[ERR], dst, n - 1, at);
	size_t i;

	dst[got > 0 ? got : 0] = '\0';
	for (i = strlen(dst); i > 0 && (unsigned char)dst[i - 1] <= ' '; i--)
		dst[i - 1] = '\0';
	for (i = 0; dst[i] != '\0'; i++) {
		if ((unsigned char)dst[i] < ' ')
			dst[i] = ' ';
	}
}

static int
judge(const struct spawn *s, const struct running *r, int status, enum lc_code why,
      struct lc_err *e)
{
	char words[LAST_MAX];

	if (why == LC_ECANCELED)
		return lc_fail(e, why, 0, "%s: interrupted", s->argv[0]);
	if (why == LC_ETIMEDOUT)
		return lc_fail(e, why, 0, "%s: not done in %lld ms", s->argv[0],
		               (long long)s->timeout_ms);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	last_words(r, words, sizeof words);
	if (WIFEXITED(status))
		return lc_fail(e, LC_EIO, 0, "%s: %s", s->argv[0],
		               *words == '\0' ? "failed without a word" : words);
	return lc_fail(e, LC_EIO, 0, "%s: killed by signal %d", s->argv[0], WTERMSIG(status));
}

int
spawn_run(const struct spawn *s, struct lc_buf *out, struct lc_buf *err, struct lc_err *e)
{
	struct running r = {.words = {-1, -1}, .fds = {-1, -1, -1, -1}};
	enum lc_code why = LC_OK;
	bool ready;
	size_t i;
	pid_t pid = -1;
	int rc;

	for (i = 0, ready = true; ready && i < NWORDS; i++) {
		r.words[i] = memfd_create("words", MFD_CLOEXEC);
		ready = r.words[i] != -1;
	}
	for (i = 0; ready && i < s->nfds; i++) {
		r.fds[i] = fcntl(s->fds[i], F_DUPFD_CLOEXEC, SPAWN_FD_FIRST + SPAWN_FDS_MAX);
		ready = r.fds[i] != -1;
	}
	rc = ready ? start(s, &r, &pid) : errno;
	if (rc != 0) {
		rc = lc_fail(e, rc == ENOENT ? LC_ENOENT : LC_EIO, rc, "start %s", s->argv[0]);
	} else {
		int status = wait_for(s, pid, &why);

		rc = judge(s, &r, status, why, e);
		if (out != NULL && take_words(r.words[OUT], out, e) != 0)
			rc = rc != 0 ? rc : LC_EIO;
		if (err != NULL && take_words(r.words[ERR], err, e) != 0)
			rc = rc != 0 ? rc : LC_EIO;
	}
	for (i = 0; i < NWORDS; i++)
		fd_close(&r.words[i]);
	for (i = 0; i < SPAWN_FDS_MAX; i++)
		fd_close(&r.fds[i]);
	return rc;
}

static void *
reap(void *arg)
{
	(void)waitpid((pid_t)(intptr_t)arg, NULL, 0);
	return NULL;
}

/* A thread that waits for it can be ended at any time. */
void
spawn_leave(pid_t pid)
{
	pthread_attr_t attr;
	pthread_t id;

	if (waitpid(pid, NULL, WNOHANG) != 0 || pthread_attr_init(&attr) != 0)
		return;
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&attr, 64u << 10);
	(void)pthread_create(&id, &attr, reap, (void *)(intptr_t)pid);
	(void)pthread_attr_destroy(&attr);
}

/*
 *     (wait) ── we die, or time is up ──► does the scratch answer? ──► say it, hear all ──► end
 *                                              ▲   errors: again, a little later  │
 *                                              └───────────── 3 times ────────────┘
 *
 * A fork that makes system calls and nothing else, so what was running in this process does not
 * matter.  It closes every descriptor but its own, for it must not hold the locks of the store or
 * anybody's connection, and gives back the memory that it does not need, or every page that we
 * write to would be there twice.
 *
 * What it says comes after a byte that makes QEMU's parser begin anew, in case we died in the
 * middle of a line; nobody waits for the answers, but QEMU drops what it has not begun when a
 * connection ends, so they are counted.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/guard.h"

#define ROUNDS 3
#define PAUSE_MS 100 /* until the kernel has closed what we had open; between rounds */
#define ANSWERS_MS 10000
#define SCRATCH_MAX 64
#define LARGE (4u << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

struct guard {
	pid_t pid;
	int stay; /* our end; the guard acts when it is closed, which our death does too */
};

/* ---- the other process ---- */

struct post { /* all that the guard knows; on its stack, its text in pages of its own */
	int monitor, stay;
	int scratch[SCRATCH_MAX];
	size_t nscratch;
	const char *text;
	size_t n, ncommands;
	int limit_ms, patience_ms;
};

static void
pause_ms(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static bool
kept(const struct post *p, int fd)
{
	size_t i;

	for (i = 0; i < p->nscratch; i++) {
		if (p->scratch[i] == fd)
			return true;
	}
	return fd == p->monitor || fd == p->stay;
}

static void
close_others(const struct post *p)
{
	int highest = p->monitor > p->stay ? p->monitor : p->stay, fd;
	size_t i;

	for (i = 0; i < p->nscratch; i++)
		highest = p->scratch[i] > highest ? p->scratch[i] : highest;
	for (fd = 0; fd < highest; fd++) {
		if (!kept(p, fd))
			(void)close(fd);
	}
	(void)close_range((unsigned)highest + 1, ~0U, 0);
}

/* A stuck write cannot be waited for with a limit by the one who makes it. */
static bool
scratch_answers(const struct post *p)
{
	struct pollfd end = {.events = POLLIN};
	int ends[2];
	pid_t pid;
	size_t i;

	if (p->nscratch == 0)
		return true;
	if (pipe(ends) != 0)
		return false;
	pid = fork();
	if (pid == 0) {
		(void)close(p->monitor);
		(void)close(ends[0]);
		for (i = 0; i < p->nscratch; i++)
			(void)!pwrite(p->scratch[i], "", 1, 0);
		_exit(0);
	}
	(void)close(ends[1]);
	end.fd = ends[0]; /* readable, as at its end, when the other side is closed */
	return pid > 0 && poll(&end, 1, p->patience_ms) > 0;
}

static bool
say(const struct post *p)
{
	size_t sent = 0;

	while (sent < p->n) {
		ssize_t k = write(p->monitor, p->text + sent, p->n - sent);
		struct pollfd room = {.fd = p->monitor, .events = POLLOUT};

		if (k > 0)
			sent += (size_t)k;
		else if (k == 0 || (errno != EAGAIN && errno != EINTR) ||
		         poll(&room, 1, ANSWERS_MS) <= 0)
			return false;
	}
	return true;
}

/* Read until there is an answer to each command; events are no answers.  False: an answer was an
 * error, or none came. */
static bool
hear(const struct post *p)
{
	static const char event[] = "{\"timestamp\"", error[] = "\"error\"";
	size_t answers = 0, at = 0, e = 0;
	bool is_event = true, ok = true;
	char buf[4096];

	while (answers < p->ncommands) {
		struct pollfd in = {.fd = p->monitor, .events = POLLIN};
		ssize_t n, i;

		if (poll(&in, 1, ANSWERS_MS) <= 0)
			return false;
		n = read(p->monitor, buf, sizeof buf);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		for (i = 0; i < n; i++) {
			if (buf[i] == '\n') {
				answers += at > 1 && !is_event ? 1 : 0;
				at = 0;
				is_event = true;
				continue;
			}
			if (at < sizeof event - 1 && buf[i] != event[at])
				is_event = false;
			at++;
			e = buf[i] == error[e] ? e + 1 : 0;
			if (e == sizeof error - 1) {
				ok = false;
				e = 0;
			}
		}
	}
	return ok;
}

/* Give back the heap and what else is large and nobody's here.  What we run on is left alone: the
 * stack, and where the thread's own data are. */
static void
forget_memory(const struct post *p)
{
	char buf[512], line[128];
	size_t at = 0;
	ssize_t n, i;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	while (fd >= 0 && (n = read(fd, buf, sizeof buf)) > 0) {
		for (i = 0; i < n; i++) {
			char *end;
			uintptr_t from, to;

			if (buf[i] != '\n') {
				if (at < sizeof line - 1)
					line[at++] = buf[i];
				continue;
			}
			line[at] = '\0';
			at = 0;
			from = strtoul(line, &end, 16);
			to = *end == '-' ? strtoul(end + 1, &end, 16) : 0;
			/* "from-to rw-p 00000000 00:00 0": private, writable, of no file. */
			if ((to - from < LARGE && strstr(line, "[heap]") == NULL) ||
			    strncmp(end, " rw-p 00000000 00:00 0", 22) != 0 ||
			    ((uintptr_t)p >= from && (uintptr_t)p < to) ||
			    ((uintptr_t)p->text >= from && (uintptr_t)p->text < to) ||
			    ((uintptr_t)__builtin_thread_pointer() >= from &&
			     (uintptr_t)__builtin_thread_pointer() < to) ||
			    strstr(line, "[stack") != NULL)
				continue;
			(void)madvise((void *)from, to - from, MADV_DONTNEED);
		}
	}
	if (fd >= 0)
		(void)close(fd);
}

static _Noreturn void
guard_main(const struct post *p)
{
	struct pollfd end = {.fd = p->stay, .events = 0};
	sigset_t all;
	int round;

	/* Signals of a terminal or a service manager are for our parent: what becomes of it is all
	 * we go by. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, NULL);
	(void)setsid();
	close_others(p);
	/* A sanitizer's memory is not what it looks like, and failpoints keep theirs on the heap.
	 */
	if (!SANITIZED && !failpoint_armed)
		forget_memory(p);
	while (poll(&end, 1, p->limit_ms > 0 ? p->limit_ms : -1) < 0 && errno == EINTR)
		;
	(void)failpoint("hv.guard.act");
	if (p->nscratch > 0)
		pause_ms(PAUSE_MS);
	for (round = 0; round < ROUNDS && scratch_answers(p); round++) {
		if (!say(p) || hear(p))
			break;
		pause_ms(PAUSE_MS);
	}
	_exit(0);
}

/* ---- this process ---- */

/* The text in pages that both processes share: the guard's heap is given back. */
static char *
share_text(const struct guard_duty *duty, size_t *n)
{
	size_t len = strlen(duty->text);
	char *p = mmap(NULL, len + 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	p[0] = '\xff';
	p[1] = '\n';
	memcpy(p + 2, duty->text, len);
	*n = len + 2;
	return p;
}

int
guard_start(const struct guard_duty *duty, struct guard **out, struct lc_err *e)
{
	struct post p = {.monitor = duty->monitor,
	                 .ncommands = duty->ncommands,
	                 .limit_ms = (int)duty->limit_ms,
	                 .patience_ms = (int)duty->patience_ms};
	struct guard *g = lc_alloc(sizeof *g);
	char *text = share_text(duty, &p.n);
	int ends[2] = {-1, -1};

	*out = NULL;
	if (g == NULL || text == NULL || duty->nscratch > SCRATCH_MAX ||
	    pipe2(ends, O_CLOEXEC) != 0)
		goto fail;
	p.text = text;
	p.stay = ends[0];
	p.nscratch = duty->nscratch;
	if (p.nscratch > 0)
		memcpy(p.scratch, duty->scratch, p.nscratch * sizeof p.scratch[0]);
	g->stay = ends[1];
	g->pid = fork();
	if (g->pid == 0) {
		(void)close(ends[1]);
		guard_main(&p);
	}
	if (g->pid < 0)
		goto fail;
	(void)munmap(text, p.n);
	fd_close(&ends[0]);
	*out = g;
	return 0;
fail:
	if (text != NULL)
		(void)munmap(text, p.n);
	fd_close(&ends[0]);
	fd_close(&ends[1]);
	lc_free(g);
	return lc_fail(e, LC_ENOMEM, 0, "guard: no process or no memory");
}

void
guard_free(struct guard *g)
{
	if (g == NULL)
		return;
	(void)kill(g->pid, SIGKILL); /* before the close, or it would act */
	fd_close(&g->stay);
	while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
		;
	lc_free(g);
}

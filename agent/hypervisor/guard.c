/*
 *     (wait) ── we die, or the time is up ──► say it ──► end      ("cont")
 *
 *     (wait) ── we die ──► does the scratch answer? ──► are nodes of ours there? ── no ──► end
 *                             ▲                                  │ yes
 *                   (3 times) └── rest ◄── exchanges, those ◄── text
 *                                          that are in place
 *
 * A fork that makes system calls and nothing else, so what was running in this process does not
 * matter.  It closes every descriptor but its own, for it must not hold the locks of the store or
 * anybody's connection, and gives back the memory that it does not need, or every page that we
 * write to would be there twice.
 *
 * What it says first comes after a byte that makes QEMU's parser begin anew, in case we died in the
 * middle of a line.  Before its own answers come those to what we had asked; QEMU answers in order,
 * so all is done once a question of its own, known by its id, is answered.
 *
 * An exchange is said only where QEMU has just told that the filter is in its place: to put a node
 * under a device where it is already ends QEMU 7.2 (assertion old_bs != new_bs), and where somebody
 * put an image between filter and node meanwhile, the guest's newest writes are in that one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/guard.h"
#include "agent/hypervisor/guard_graph.h"

#define ROUNDS 3
#define PAUSE_MS 100 /* until the kernel has closed what we had open; between rounds */
#define ANSWERS_MS 10000
#define HOLD_MS 1000
#define SCRATCH_MAX 64
#define LARGE (4u << 20)
#define EAR (8u << 20) /* the longest answer that is understood */

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

enum { ID_MAX = 48, QUESTION_MAX = 128 };

struct post { /* all that the guard knows; on its stack, what is long in pages of its own */
	int monitor, stay;
	int scratch[SCRATCH_MAX];
	size_t nscratch;
	const struct guard_duty *duty; /* a copy; only its strings and exchanges are used */
	char id[ID_MAX];               /* of its questions, in quotes */
	char done[QUESTION_MAX], graph[QUESTION_MAX];
	struct sockaddr_un server;
	int limit_ms, patience_ms;
};

struct ear { /* what QEMU says */
	char *p;
	size_t n;    /* bytes there are */
	size_t line; /* bytes of the answer to the last question, at the beginning */
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
	pid = _Fork(); /* fork() would touch what forget_memory() gave back */
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
say(const struct post *p, const char *text)
{
	size_t n = strlen(text), sent = 0;

	while (sent < n) {
		ssize_t k = write(p->monitor, text + sent, n - sent);
		struct pollfd room = {.fd = p->monitor, .events = POLLOUT};

		if (k > 0)
			sent += (size_t)k;
		else if (k == 0 || (errno != EAGAIN && errno != EINTR) ||
		         poll(&room, 1, ANSWERS_MS) <= 0)
			return false;
	}
	return true;
}

/* The first `len` bytes have been dealt with. */
static void
forget(struct ear *ear, size_t len)
{
	ear->n -= len;
	memmove(ear->p, ear->p + len, ear->n);
}

/* Read until there is a line with our id; what comes before it is forgotten. */
static bool
hear(const struct post *p, struct ear *ear)
{
	size_t looked = 0;

	forget(ear, ear->line);
	ear->line = 0;
	for (;;) {
		struct pollfd in = {.fd = p->monitor, .events = POLLIN};
		char *nl = memchr(ear->p + looked, '\n', ear->n - looked);
		ssize_t n;

		if (nl != NULL) {
			size_t len = (size_t)(nl - ear->p) + 1;

			looked = 0;
			if (memmem(ear->p, len, p->id, strlen(p->id)) != NULL) {
				ear->line = len;
				return true;
			}
			forget(ear, len);
			continue;
		}
		looked = ear->n;
		if (ear->n == EAR || poll(&in, 1, ANSWERS_MS) <= 0)
			return false;
		n = read(p->monitor, ear->p + ear->n, EAR - ear->n);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		ear->n += n > 0 ? (size_t)n : 0;
	}
}

/* Commands, which have been carried out when this returns true. */
static bool
command(const struct post *p, struct ear *ear, const char *text)
{
	return say(p, text) && say(p, p->done) && hear(p, ear);
}

static bool
look(const struct post *p, struct ear *ear)
{
	return say(p, p->graph) && hear(p, ear);
}

static bool
in_place(const struct guard_exchange *x, const struct ear *ear)
{
	return guard_graph_has(ear->p, ear->line, x->holder, x->holder == NULL ? "root" : "file",
	                       x->filter) &&
	       guard_graph_has(ear->p, ear->line, x->filter, "file", x->node);
}

/* All of ours once. */
static bool
take_back(const struct post *p, struct ear *ear)
{
	const struct guard_duty *d = p->duty;
	size_t i;

	if (!command(p, ear, d->text))
		return false;
	for (i = 0; i < d->nexchanges; i++) {
		if (!look(p, ear))
			return false;
		if (in_place(&d->exchanges[i], ear) && !command(p, ear, d->exchanges[i].text))
			return false;
	}
	return command(p, ear, d->rest);
}

/* Whether somebody listens on our socket: QEMU, and its server is ours. */
static bool
serves(const struct post *p)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes = fd >= 0 &&
	           connect(fd, (const struct sockaddr *)&p->server, sizeof p->server) == 0;

	if (fd >= 0)
		(void)close(fd);
	return yes;
}

/* The connection is held until QEMU has begun it, or it would be dropped.  The answer is left to
 * others: another guard may be listening for its own on the same connection. */
static void
say_once(const struct post *p)
{
	if (say(p, p->duty->text))
		pause_ms(HOLD_MS);
}

static void
give_back(const struct post *p)
{
	const struct guard_duty *d = p->duty;
	struct ear ear = {0};
	int round;

	ear.p = mmap(NULL, EAR, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	             -1, 0);
	if (ear.p == MAP_FAILED)
		return;
	for (round = 0; round < ROUNDS && scratch_answers(p); round++) {
		bool ours;

		if (round > 0)
			pause_ms(PAUSE_MS);
		if (!look(p, &ear))
			return;
		ours = guard_graph_prefix(ear.p, ear.line, d->prefix);
		if (ours && !take_back(p, &ear))
			return;
		if (serves(p) && !command(p, &ear, d->stop_server))
			return;
		if (!ours)
			return;
	}
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
			    ((uintptr_t)p->duty >= from && (uintptr_t)p->duty < to) ||
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
	if (!say(p, "\xff\n"))
		_exit(0);
	if (p->duty->prefix == NULL)
		say_once(p);
	else
		give_back(p);
	_exit(0);
}

/* ---- this process ---- */

/* A copy of all strings and exchanges in pages that both processes share, as the guard's heap is
 * given back. */
struct pages {
	char *p;
	size_t at, n;
};

static char *
put(struct pages *pages, const char *s)
{
	size_t n = s == NULL ? 0 : strlen(s) + 1;
	char *dst = pages->p == NULL ? NULL : pages->p + pages->at;

	pages->at += n;
	if (dst == NULL || n == 0)
		return NULL;
	memcpy(dst, s, n);
	return dst;
}

/* Without pages to put it into: how much that takes. */
static void
copy_duty(struct pages *pages, const struct guard_duty *duty)
{
	struct guard_duty *d = (struct guard_duty *)(void *)pages->p;
	struct guard_duty copy = *duty;
	struct guard_exchange *list;
	size_t i;

	pages->at = sizeof *d;
	list = pages->p == NULL ? NULL : (struct guard_exchange *)(void *)(pages->p + pages->at);
	pages->at += duty->nexchanges * sizeof *list;
	copy.exchanges = list;
	for (i = 0; i < duty->nexchanges; i++) {
		const struct guard_exchange *from = &duty->exchanges[i];
		struct guard_exchange x = {.holder = put(pages, from->holder),
		                           .filter = put(pages, from->filter),
		                           .node = put(pages, from->node),
		                           .text = put(pages, from->text)};

		if (list != NULL)
			list[i] = x;
	}
	copy.text = put(pages, duty->text);
	copy.rest = put(pages, duty->rest);
	copy.stop_server = put(pages, duty->stop_server);
	copy.prefix = put(pages, duty->prefix);
	if (d != NULL)
		*d = copy;
}

static bool
share_duty(struct pages *pages, const struct guard_duty *duty)
{
	copy_duty(pages, duty);
	pages->n = pages->at;
	pages->p = mmap(NULL, pages->n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pages->p == MAP_FAILED) {
		pages->p = NULL;
		return false;
	}
	copy_duty(pages, duty);
	return true;
}

static void
phrase(struct post *p)
{
	uint64_t nonce = 0;

	random_bytes(&nonce, sizeof nonce);
	(void)snprintf(p->id, sizeof p->id, "\"locum.guard.%016" PRIx64 "\"", nonce);
	(void)snprintf(p->done, sizeof p->done, "{\"execute\":\"query-status\",\"id\":%s}\n",
	               p->id);
	(void)snprintf(p->graph, sizeof p->graph,
	               "{\"execute\":\"x-debug-query-block-graph\",\"id\":%s}\n", p->id);
}

int
guard_start(const struct guard_duty *duty, struct guard **out, struct lc_err *e)
{
	struct post p = {.monitor = duty->monitor,
	                 .server.sun_family = AF_UNIX,
	                 .limit_ms = (int)duty->limit_ms,
	                 .patience_ms = (int)duty->patience_ms};
	struct guard *g = lc_alloc(sizeof *g);
	struct pages pages = {0};
	int ends[2] = {-1, -1};

	*out = NULL;
	if (g == NULL || duty->nscratch > SCRATCH_MAX || !share_duty(&pages, duty) ||
	    pipe2(ends, O_CLOEXEC) != 0)
		goto fail;
	phrase(&p);
	p.duty = (const struct guard_duty *)(const void *)pages.p;
	if (duty->socket != NULL)
		(void)snprintf(p.server.sun_path, sizeof p.server.sun_path, "%s", duty->socket);
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
	(void)munmap(pages.p, pages.n);
	fd_close(&ends[0]);
	*out = g;
	return 0;
fail:
	if (pages.p != NULL)
		(void)munmap(pages.p, pages.n);
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

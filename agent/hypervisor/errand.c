/*
 *     parent:  fork ──► wait for the socket or the timer ──► done
 *     child:   close what is not needed ──► lock ──► run ──► answer, with descriptors ──► exit
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/spawn.h"

#include "agent/hypervisor/errand.h"

#define LOCK_POLL_MS 5

struct waiting {
	uv_poll_t poll;
	uv_timer_t timer;
	int handles;
	int fd;
	pid_t pid;
	struct errand_result result;
	errand_done_cb *done;
	void *arg;
};

union control {
	char buf[CMSG_SPACE(ERRAND_FDS_MAX * sizeof(int))];
	struct cmsghdr align;
};

struct answer { /* what goes over the socket besides descriptors; both ends are this program */
	int sys;
	size_t at;
};

/* ---- the other process ---- */

static bool
is_kept(const struct errand *job, int answer_fd, int fd)
{
	size_t i;

	for (i = 0; i < job->nkeep; i++) {
		if (job->keep[i] == fd)
			return true;
	}
	return fd == answer_fd;
}

/* Close all but what is kept, up to the highest of these one by one and the rest at once. */
static void
close_others(const struct errand *job, int answer_fd)
{
	int highest = answer_fd, fd;
	size_t i;

	for (i = 0; i < job->nkeep; i++)
		highest = job->keep[i] > highest ? job->keep[i] : highest;
	for (fd = 0; fd < highest; fd++) {
		if (!is_kept(job, answer_fd, fd))
			(void)close(fd);
	}
	(void)close_range((unsigned)highest + 1, ~0U, 0);
}

static void
wait_for_turn(const char *dir, int64_t limit_ms)
{
	const struct timespec pause = {.tv_nsec = LOCK_POLL_MS * 1000000L};
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int64_t waited_ms = 0;

	if (fd < 0)
		return; /* The work itself will say so. */
	while (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
		if (waited_ms >= limit_ms)
			_exit(1);
		(void)nanosleep(&pause, NULL);
		waited_ms += LOCK_POLL_MS;
	}
	/* Held until the process ends. */
}

static _Noreturn void
child_main(const struct errand *job, int answer_fd)
{
	struct errand_result r = {0};
	struct answer a;
	struct iovec iov = {.iov_base = &a, .iov_len = sizeof a};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control;
	sigset_t all;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, NULL);
	close_others(job, answer_fd);
	if (job->one_at_a_time != NULL)
		wait_for_turn(job->one_at_a_time, job->deadline_ms);
	job->run(job, &r);
	a = (struct answer){.sys = r.sys, .at = r.at};
	if (r.nfds > 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof control);
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(r.nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(r.nfds * sizeof(int));
		memcpy(CMSG_DATA(c), r.fds, r.nfds * sizeof(int));
	}
	(void)sendmsg(answer_fd, &msg, MSG_NOSIGNAL);
	_exit(0);
}

/* ---- this process ---- */

/* One that is stuck in the kernel ends some day. */
static void
leave_behind(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	spawn_leave(pid);
}

static void
on_closed(uv_handle_t *h)
{
	struct waiting *w = h->data;
	size_t i;

	if (--w->handles > 0)
		return;
	fd_close(&w->fd);
	w->done(w->arg, &w->result);
	for (i = 0; i < w->result.nfds; i++)
		fd_close(&w->result.fds[i]);
	lc_free(w);
}

static void
finish(struct waiting *w)
{
	if (w->result.late)
		leave_behind(w->pid);
	while (!w->result.late && waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
		;
	uv_close((uv_handle_t *)&w->poll, on_closed);
	uv_close((uv_handle_t *)&w->timer, on_closed);
}

static void
on_answer(uv_poll_t *p, int status, int events)
{
	struct waiting *w = p->data;
	struct answer a;
	union control control;
	struct iovec iov = {.iov_base = &a, .iov_len = sizeof a};
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.buf,
	                     .msg_controllen = sizeof control.buf};
	struct cmsghdr *c;
	ssize_t n = recvmsg(w->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	(void)status;
	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	w->result.late = n != sizeof a;
	if (!w->result.late) {
		w->result.sys = a.sys;
		w->result.at = a.at;
		c = CMSG_FIRSTHDR(&msg);
		if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			w->result.nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(w->result.fds, CMSG_DATA(c), w->result.nfds * sizeof(int));
		}
	}
	finish(w);
}

static void
on_deadline(uv_timer_t *t)
{
	struct waiting *w = t->data;

	w->result.late = true;
	finish(w);
}

/* Watch over the child: what fails here ends it again. */
static int
watch(struct uv_loop_s *loop, struct waiting *w, int64_t deadline_ms)
{
	if (uv_poll_init(loop, &w->poll, w->fd) != 0)
		return LC_ENOMEM;
	(void)uv_timer_init(loop, &w->timer);
	w->handles = 2;
	w->poll.data = w;
	w->timer.data = w;
	(void)uv_poll_start(&w->poll, UV_READABLE | UV_DISCONNECT, on_answer);
	(void)uv_timer_start(&w->timer, on_deadline, (uint64_t)deadline_ms, 0);
	return 0;
}

int
errand_start(struct uv_loop_s *loop, const struct errand *job, errand_done_cb *done, void *arg,
             struct lc_err *e)
{
	struct waiting *w = lc_alloc(sizeof *w);
	int ends[2] = {-1, -1};

	if (w == NULL || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
		lc_free(w);
		return lc_fail(e, LC_ENOMEM, 0, "no memory or no descriptors");
	}
	w->fd = ends[0];
	w->done = done;
	w->arg = arg;
	w->pid = fork();
	if (w->pid == 0)
		child_main(job, ends[1]);
	fd_close(&ends[1]);
	if (w->pid < 0 || watch(loop, w, job->deadline_ms) != 0) {
		if (w->pid > 0)
			leave_behind(w->pid);
		fd_close(&w->fd);
		lc_free(w);
		return lc_fail(e, LC_ENOMEM, 0, "no process or no memory");
	}
	return 0;
}

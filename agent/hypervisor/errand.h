/**
 * errand: blocking work that nobody waits for longer than a deadline.
 *
 * For calls that may hang in the kernel (a file on a dead filesystem, a disk that does not answer).
 * A thread will not do for them: one that is stuck there cannot be killed, keeps its process from
 * ending, and with it the process's locks and connections.  So an errand is a process of its own,
 * which has nothing but what it needs; one that is late is killed, and left behind if it cannot be.
 */
#ifndef LOCUM_ERRAND_H
#define LOCUM_ERRAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

#define ERRAND_FDS_MAX 64

struct uv_loop_s;

struct errand_result {
	int sys;   /* errno of what failed, 0 where all went well */
	size_t at; /* which of several things failed */
	bool late; /* no answer in time, or none at all; nothing else is said then */
	/* that run() opened; the receiver's: done takes what it wants and sets it to -1 */
	int fds[ERRAND_FDS_MAX];
	size_t nfds;
};

struct errand {
	/* In the other process.  It is a fork of this one, whatever its threads were doing: system
	 * calls and string copies only, no memory, no stdio, no locks. */
	void (*run)(const struct errand *job, struct errand_result *out);
	/* folder: errands on it wait for each other, so that no more than one hangs there */
	const char *one_at_a_time;
	const int *keep; /* descriptors that run() needs; all others are closed */
	size_t nkeep;
	int64_t deadline_ms;
};

/** result: the callback's for the call; what it leaves in fds is closed after it. */
typedef void errand_done_cb(void *arg, struct errand_result *result);

/**
 * errand_start(loop, job, done, arg, e):
 * Returns    0, then done comes once from the loop; or LC_ENOMEM (no process, no memory).
 * Ownership: job is the first member of whatever run() looks at, and borrowed for the call only.
 * Thread:    loop thread only.
 */
int errand_start(struct uv_loop_s *loop, const struct errand *job, errand_done_cb *done, void *arg,
                 struct lc_err *e);

#endif

/**
 * launch_proc: a detached process that is found again by a file.  Private to the launch*.c files.
 *
 * The file holds "PID START BOOT": START is the process's start time in ticks since boot, BOOT the
 * kernel's boot id.  A number that now belongs to another program is told by that.
 */
#ifndef LOCUM_LAUNCH_PROC_H
#define LOCUM_LAUNCH_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/base/errors.h"

struct proc_opts {
	char *const *argv;    /* argv[0] is looked for in PATH */
	const char *pid_file; /* written by the process itself before it becomes argv[0] */
	int log;              /* its stdout and stderr */
	const int *keep;      /* keep[nkeep]: other descriptors that it inherits, >= 3 */
	size_t nkeep;
	const char *user; /* to drop to, NULL = stay */
};

/**
 * proc_start(o, e):
 * Start a process that is nobody's child: own session, no descriptors but those named, no signals
 * blocked.
 *
 * Returns  0 once argv[0] runs; LC_ENOENT where there is no such program or user.
 */
int proc_start(const struct proc_opts *o, struct lc_err *e);
/** proc_find(pid_file, pid): a pidfd of the process if it runs, else -1.  pid may be NULL. */
int proc_find(const char *pid_file, int *pid);
/** proc_wait(pidfd, ms): whether it has ended, after at most ms. */
bool proc_wait(int pidfd, int64_t ms);
/** proc_end(pidfd): SIGTERM, at which QEMU closes its images and ends. */
void proc_end(int pidfd);
/** proc_kill(pidfd): SIGKILL. */
void proc_kill(int pidfd);

#endif

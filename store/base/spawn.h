/**
 * spawn: another program, run to its end, and what it said.
 *
 * The program is looked for on the PATH and gets nothing of ours but what is named: no descriptors,
 * no held signals, /dev/null as its input.  It is no member of the terminal's group, so Ctrl-C is
 * the caller's to answer (see `stop`).  Blocking, but for no longer than asked for.  Thread: any.
 */
#ifndef LOCUM_SPAWN_H
#define LOCUM_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

#define SPAWN_FDS_MAX 4
#define SPAWN_FD_FIRST 3 /* /proc/self/fd/3 is fds[0] there, 4 fds[1] */
#define SPAWN_TEXT_MAX (1u << 20)

struct spawn {
	char *const *argv;      /* ended by NULL */
	int fds[SPAWN_FDS_MAX]; /* that it gets, as 3, 4 ... */
	size_t nfds;
	int64_t timeout_ms;      /* then it is killed; 0: no limit */
	bool (*stop)(void *arg); /* asked ten times a second: true ends it.  May be NULL */
	void *arg;
};

/**
 * spawn_run(s, out, err, e):
 * out and err (either may be NULL) are replaced by what it wrote to stdout and stderr, at most
 * SPAWN_TEXT_MAX bytes, with a NUL behind that is not counted.
 *
 * Returns  0: it ended with exit status 0; LC_ENOENT: there is no such program; LC_ECANCELED;
 *          LC_ETIMEDOUT; LC_EIO with the name of the program and what it said last.
 */
int spawn_run(const struct spawn *s, struct lc_buf *out, struct lc_buf *err, struct lc_err *e);

/** spawn_leave(pid): a child of ours that is stuck or still at work ends some day; nobody waits for
 * that, and it leaves no zombie. */
void spawn_leave(pid_t pid);

#endif

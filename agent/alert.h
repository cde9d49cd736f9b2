/**
 * alert: runs a program when something begins or ceases to be wrong.
 *
 * A subject is a VM, a replica, or a VM at a replica; each has conditions (alarm.h).  What
 * changes is told by running the program, without a shell, one at a time for a subject; what
 * changes meanwhile waits, and is not told if it has changed back.  So nothing queues up, and what
 * is told last is how it is.
 *
 * Thread: loop.
 */
#ifndef LOCUM_ALERT_H
#define LOCUM_ALERT_H

#include <stdint.h>

#include "agent/alarm.h"
#include "store/base/errors.h"

struct alert;
struct uv_loop_s;

#define ALERT_KILL_MS 60000 /* a program that runs for longer is killed, with all it began */
#define ALERT_RUNNING_MAX 4u

enum alert_condition {
	ALERT_RPO,
	ALERT_CYCLE,
	ALERT_LINK,
	ALERT_REFUSED,
	ALERT_SPOOL,
	ALERT_OLDER,
	ALERT_QUOTA,
	ALERT_DAMAGED,
	ALERT_UNPROTECTED
};
#define ALERT_CONDITIONS 9u

struct alert_opts {
	struct uv_loop_s *loop;
	const char *program; /* absolute; copied */
	int64_t kill_ms;     /* 0: ALERT_KILL_MS */
};

/** alert_new(o, out, e): returns 0 or LC_ENOMEM. */
int alert_new(const struct alert_opts *o, struct alert **out, struct lc_err *e);
/** alert_program(a, path, e): another one from now on.  Returns 0 or LC_ENOMEM. */
int alert_program(struct alert *a, const char *path, struct lc_err *e);

struct alert_sight {              /* what is seen of a subject now */
	const char *vm, *replica; /* the subject; NULL: none; copied */
	enum alert_condition condition;
	enum alarm_level level;
	int64_t rise_ns, fall_ns;
	const char *text; /* for people; control characters are shown as '?' */
};
/** alert_see(a, x, now_ns): now_ns is monotonic. */
void alert_see(struct alert *a, const struct alert_sight *x, int64_t now_ns);
/**
 * alert_over(a, conditions, since_ns):
 * What was told, or was about to be, of those conditions (1u << condition) and was not seen since
 * since_ns is over: the settings do not name any more whom it was about.
 */
void alert_over(struct alert *a, unsigned conditions, int64_t since_ns);
/** alert_running(a): programs that run now. */
unsigned alert_running(const struct alert *a);
/** alert_close(a): a program that runs gets SIGTERM.  a may be NULL; it is gone when the loop has
 * closed its handles. */
void alert_close(struct alert *a);

/** alert_event(condition, level): "rpo-missed". */
const char *alert_event(enum alert_condition condition, enum alarm_level level);

#endif

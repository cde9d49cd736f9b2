/**
 * others: restore points of VMs that no setting protects, because somebody asked for one
 * (protect_ask()).  Of one VM they are made one after the other.
 *
 * Thread: loop.
 */
#ifndef LOCUM_OTHERS_H
#define LOCUM_OTHERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "agent/protect.h"
#include "store/base/errors.h"

struct other;

struct others {
	const struct protect_opts *o;
	TAILQ_HEAD(, other) list;
	unsigned running; /* backups */
	/** made(arg, line): there is a new point on that line, borrowed; who asked for it hears of
	 * it next, and then asks whether the replicas have it. */
	void (*made)(void *arg, const uint8_t *line);
	/** over(arg): a backup is over, and who asked for it has heard so. */
	void (*over)(void *arg);
	void *arg;
};

/**
 * others_init(x, o, made, over, arg):
 * Nobody asks for anything.  Borrows o and what it points to for as long as there are asks; x may
 * be freed in over(), and whenever running is 0 after others_turn_away().
 */
void others_init(struct others *x, const struct protect_opts *o,
                 void (*made)(void *arg, const uint8_t *line), void (*over)(void *arg), void *arg);
/** others_ask(x, ask, e): LC_ENOMEM; else ask->import is taken, and ask->other is set until its
 * done(), which comes later, or others_unask(). */
int others_ask(struct others *x, struct protect_ask *ask, struct lc_err *e);
/** others_unask(o): nobody wants it: no done() comes, and its backup is given up. */
void others_unask(struct other *o);
/** others_backup(o): its backup; NULL: that has not begun. */
const struct backup *others_backup(const struct other *o);
/** others_begin(x): begin the backup that was asked for first of those that can; false: none can.
 */
bool others_begin(struct others *x);
/** others_turn_away(x, code, why): what has not begun fails. */
void others_turn_away(struct others *x, enum lc_code code, const char *why);
/** others_cancel(x): what has begun is given up; its done() and over() come with LC_ECANCELED. */
void others_cancel(struct others *x);

#endif

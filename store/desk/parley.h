/**
 * parley: conversations over a unix socket, line by line, with whoever may ask: root, and who runs
 * this process.
 *
 * What is said is JSON, an object a line; what is heard are lines, which come to the owner one by
 * one.  Who hangs up, says a line that is too long, or reads nothing of what he is told, is gone.
 *
 *     came ─► line, line .. ─► left ─► gone
 *         tick, now and then, ──┘
 *
 * Thread: loop.
 */
#ifndef LOCUM_PARLEY_H
#define LOCUM_PARLEY_H

#include <stddef.h>

#include "store/base/errors.h"

struct json_t;
struct parley;  /* one of them */
struct parleys; /* all of a socket */
struct uv_loop_s;

struct parley_events {
	/** came(arg, t): somebody is there, and is sent away unless the owner calls parley_own().
	 */
	void (*came)(void *arg, struct parley *t);
	/** line(mine, p, n): n bytes, without the newline; borrowed. */
	void (*line)(void *mine, const char *p, size_t n);
	/** tick(mine): each tick_ms, until he has left. */
	void (*tick)(void *mine);
	/** left(mine): it is over, by him or by us: what is said from now on, nobody hears.  Within
	 * the call that ends it, or later. */
	void (*left)(void *mine);
	/** gone(mine): the last call, later than left(): mine may be freed. */
	void (*gone)(void *mine);
};

struct parleys_opts {
	struct uv_loop_s *loop;
	const char *path;  /* of the socket */
	size_t line_max;   /* bytes of a line that is heard ... */
	size_t unread_max; /* ... and of what waits to be read by the other */
	unsigned tick_ms;
	void *arg; /* of came */
	struct parley_events events;
};

/** parleys_open(o, out, e): listen.  LC_EBUSY: somebody else does, there.  LC_EINVAL: no socket can
 * have that path.  After a failure the loop has to run once more. */
int parleys_open(const struct parleys_opts *o, struct parleys **out, struct lc_err *e);
/** parleys_count(x): how many there are, with those that are ending. */
unsigned parleys_count(const struct parleys *x);
/** parleys_close(x, closed, arg): everybody is sent away; closed() comes later, when that is done.
 */
void parleys_close(struct parleys *x, void (*closed)(void *arg), void *arg);

/** parley_own(t, mine): within came(): whose it is, never NULL. */
void parley_own(struct parley *t, void *mine);
/** parley_say(t, o): o is given; NULL, for want of memory, says nothing. */
void parley_say(struct parley *t, struct json_t *o);
/** parley_text(text): as JSON, which is UTF-8: of another text, as a file's name may be or a
 * message that was cut, '?' stands for what is no ASCII.  A new reference; NULL: out of memory. */
struct json_t *parley_text(const char *text);
/** parley_unread(t): bytes that were said and wait. */
size_t parley_unread(const struct parley *t);
/** parley_hold(t): lines wait until parley_resume(t), which may call line() before it returns. */
void parley_hold(struct parley *t);
void parley_resume(struct parley *t);
/** parley_end(t): no line comes any more, and it is over when what was said has gone out. */
void parley_end(struct parley *t);
/** parley_close(t): it is over now. */
void parley_close(struct parley *t);

#endif

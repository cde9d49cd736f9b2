/*
 * Contents of a point that are wanted were dropped here (a thin store), and the other side lacks
 * them: it came later, is an older copy, or expired them.  That point can't be sent, nor those that
 * are made upon it; the next one that shares nothing with them can.
 */
#include <string.h>

#include "replicator/sender_internal.h"

/* The next point is to bring them again, where there is one for whom points are made. */
static void
fail(struct sender *x, struct line *l, int rc, const char *what)
{
	struct lc_err err = LC_ERR_INIT, why = LC_ERR_INIT;
	bool owns = transfer_owns(x->s);

	if (rc == LC_ENOENT && owns)
		(void)outgoing_restart(x->s, l->id, &err);
	(void)lc_fail(&why, LC_ENOENT, 0, "contents that it lacks are not here any more%s: %s",
	              owns ? "; the next restore point is made from all of the disks" : "",
	              err.code != LC_OK ? err.msg : what);
	sender_fail(x, l, &why);
}

static int
find(struct sender *x, struct line *l, struct outgoing **out, struct lc_err *e)
{
	return outgoing_next_fresh(x->s, l->id, (struct lc_span){l->head.p, l->head.n}, l->lacking,
	                           out, e);
}

void
anew_begin(struct sender *x, struct line *l, const struct lc_err *bad)
{
	struct outgoing *next = NULL;
	int rc;

	memcpy(l->lacking, outgoing_point(l->out)->id, sizeof l->lacking);
	sender_leave(x, l, LINE_IDLE);
	l->anew = true;
	rc = find(x, l, &next, NULL);
	outgoing_free(next);
	if (rc != 0 && rc != LC_EBUSY)
		fail(x, l, rc, bad->msg);
}

int
anew_next(struct sender *x, struct line *l, struct lc_err *e)
{
	int rc = find(x, l, &l->out, e);

	if (rc == LC_ENOENT && !sender_has_all(x, l->id))
		fail(x, l, rc, "none was made since");
	return rc;
}

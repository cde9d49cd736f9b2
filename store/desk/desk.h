/**
 * desk: where the owner of a store does for other commands of this host what only an owner may do,
 * or lends them the store.
 *
 * A unix socket, for root and for who runs the owner.  Its path stands in the store's lock
 * (store_desk()).  Lines of JSON, one object each, of at most 64 KiB:
 *
 *     asker  {"locum": 1, "store": DIR, "who": COMMAND, "verb": "drop", "point": ID}
 *            {..., "verb": "condemn", "places": [[SEGMENT, TYPE, SEQ, OFFSET, LENGTH], ..]}
 *            {..., "verb": "lend"}
 *     desk   {"working": true}                each second, until the answer
 *            {"done": N}                      the answer; N: chunks that are condemned, else 0
 *            {"failed": TEXT, "code": CODE}   or that
 *
 * One request at a time, any number of them one after the other.  After "lend" the store's lock is
 * free, and the owner takes the store back when the asker hangs up.  An asker that hangs up has
 * what was begun done, and nothing else.  Another number than 1 is refused.
 *
 * All requests are done one after the other, on a thread of the desk's.
 */
#ifndef LOCUM_DESK_H
#define LOCUM_DESK_H

#include "store/base/errors.h"

struct desk;
struct store;
struct uv_loop_s;

#define DESK_VERSION 1
#define DESK_LINE_MAX (64u << 10)
#define DESK_PLACES_MAX 500u /* of one request */
#define DESK_WORKING_MS 1000

/* What the owner gives.  All of it is called on the desk's thread, and may block. */
struct desk_owner {
	void *arg;
	/** take(arg, dir, out, e): the store in that folder, open for writing, until give().
	 * LC_ENOENT: it is not this owner's. */
	int (*take)(void *arg, const char *dir, struct store **out, struct lc_err *e);
	void (*give)(void *arg, struct store *s);
	/** lend(arg, dir, who, e): close the store, and leave it closed until back(), which comes
	 * exactly once after a 0. */
	int (*lend)(void *arg, const char *dir, const char *who, struct lc_err *e);
	void (*back)(void *arg);
};

struct desk_opts {
	struct uv_loop_s *loop;
	const char *path; /* of the socket */
	struct desk_owner owner;
};

/** desk_open(o, out, e): LC_EBUSY: somebody else listens there.  Thread: loop. */
int desk_open(const struct desk_opts *o, struct desk **out, struct lc_err *e);
/**
 * desk_close(d, closed, arg): what is under way is done, what was lent comes back, everybody is
 * sent away; closed() comes when nothing is called any more.  NULL: it comes at once. Thread: loop.
 */
void desk_close(struct desk *d, void (*closed)(void *arg), void *arg);

#endif

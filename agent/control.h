/**
 * control: the agent's socket, by which other commands of this host have it do what needs the
 * store, as it alone may write to that.
 *
 * A unix socket in run_dir, for root.  Lines of JSON, one object each, of at most 64 KiB:
 *
 *     asker  {"locum": 1, "verb": "backup", "store": DIR, "vms": [VM, ..], "to": [REPLICA, ..]}
 *            with "made": [VM, ..]: of these he wants no points, which he has; only to know that
 *            the replicas have them
 *            with, for one VM, "images": [{"path": FILE, "format": FORMAT}, ..]: of a VM that no
 *            setting names (import.h), files that he has looked at
 *     agent  {"progress": VM, "note": TEXT, "looked": N, "total": N, "stored": N}    now and then
 *                                 VM "", and nothing else: the agent lives; with the others, and
 * where there are none
 *            {"result": RESULT}                             each VM once, as it comes (result.h)
 *            {"unsent": REPLICA, "error": TEXT}             of "to": it does not have everything
 *            {"end": true}                                  the last one
 *            {"refused": TEXT, "code": CODE}                instead of all that
 *     asker  {"cancel": true}                               give up; what follows is as before
 *
 * An asker that hangs up has canceled.  Another number than 1 is refused.
 *
 * Thread: loop.
 */
#ifndef LOCUM_CONTROL_H
#define LOCUM_CONTROL_H

#include "store/base/errors.h"

struct control;
struct protect;
struct uv_loop_s;

#define CONTROL_FILE "agent.sock"
#define CONTROL_DESK_FILE "store.sock" /* beside it: the desk (store/desk/desk.h) */
#define CONTROL_VERSION 1
#define CONTROL_LINE_MAX (64u << 10)

struct control_opts {
	struct uv_loop_s *loop;
	const char *path;  /* of the socket */
	const char *store; /* folder: requests for another one are refused */
};

/** control_start(o, out, e): listen.  LC_EBUSY: somebody else does, there. */
int control_start(const struct control_opts *o, struct control **out, struct lc_err *e);
/** control_protect(c, p): who does the work from now on; NULL: nobody at the moment. */
void control_protect(struct control *c, struct protect *p);
/** control_stop(c): everybody is sent away; nobody may have asked protect for anything any more. It
 * is gone when the loop has run.  NULL is fine. */
void control_stop(struct control *c);

#endif

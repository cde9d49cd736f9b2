/**
 * freezer: the filesystems of a guest stand still for a moment, so that a restore point is more
 * than crash-consistent.
 *
 * The guest agent freezes and thaws; a process of its own asks it to (thawer.h), and thaws by
 * itself when this process dies or hangs, however suddenly, or when the time is up.  What the agent
 * does or does not do, nothing here takes longer than answer_ms + limit_ms + thaw_ms + 4 s.
 *
 * Loop thread only.
 */
#ifndef LOCUM_FREEZER_H
#define LOCUM_FREEZER_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"

struct uv_loop_s;
struct freezer;

struct freezer_opts {
	const char *socket; /* of the guest agent's channel; may be NULL with libvirt: not known */
	const char *libvirt, *domain; /* whose channel it is, or NULL */
	const char *mark;  /* file that tells of a freeze that nobody thawed; see freezer_left() */
	int64_t answer_ms; /* for the agent to answer at all */
	int64_t limit_ms;  /* how long the filesystems stand still at most */
	int64_t thaw_ms;   /* for the thaw, before the agent counts as stuck; 0 = 5000 */
};

struct freezer_result {
	/* LC_OK: they stand still, or, after the thaw, did so from the one answer to the other.
	 * Else why not, without the VM's name. */
	struct lc_err err;
	const char *hint;     /* static: what the operator can do about it, or NULL */
	uint64_t filesystems; /* how many */
	int64_t held_ns;      /* for how long, the freezing itself included */
	/* The agent does not thaw.  It goes on being asked, for ten minutes. */
	bool stuck;
};

typedef void freezer_cb(void *arg, const struct freezer_result *r);

/**
 * freezer_start(loop, o, frozen, arg, out, e):
 * Ask for the freeze.  `frozen` comes once, later.  With LC_OK everything stands still and *out
 * waits for freezer_thaw(); with an error nothing does (but see `stuck`), and *out is gone.
 *
 * Returns    0; LC_EINVAL (a path is too long), LC_ENOMEM.
 */
int freezer_start(struct uv_loop_s *loop, const struct freezer_opts *o, freezer_cb *frozen,
                  void *arg, struct freezer **out, struct lc_err *e);
/** freezer_thaw(f, thawed, arg): let it go on; `thawed` comes once, later, and f is gone then. */
void freezer_thaw(struct freezer *f, freezer_cb *thawed, void *arg);

/** freezer_left(mark): whether a freeze of ours may not have been thawed, as both processes were
 * killed. */
bool freezer_left(const char *mark);
/** freezer_recover(loop, o, done, arg, e): thaw what was left so; otherwise as freezer_start().
 * LC_EBUSY: it is being done. */
int freezer_recover(struct uv_loop_s *loop, const struct freezer_opts *o, freezer_cb *done,
                    void *arg, struct lc_err *e);

#endif

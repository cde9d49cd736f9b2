/**
 * submit: has the agent of this host make backups (control.h).
 *
 * Thread: loop.
 */
#ifndef LOCUM_SUBMIT_H
#define LOCUM_SUBMIT_H

#include <stddef.h>
#include <stdint.h>

#include "agent/backup.h"

struct definition;
struct submit;
struct uv_loop_s;

struct submit_events {
	void *arg;
	/** progress(arg, vm, p): vm is one of those that were given. */
	void (*progress)(void *arg, const char *vm, const struct backup_progress *p);
	/** result(arg, r): each VM once, also where the agent ends in the middle; borrowed.  One
	 * that failed with LC_ECANCELED, though nobody gave it up here, is what an agent does that
	 * stops or begins anew: another try may do. */
	void (*result)(void *arg, const struct backup_result *r);
	/** unsent(arg, replica, why): it does not have everything. */
	void (*unsent)(void *arg, const char *replica, const char *why);
	/** ended(arg, why, refused): the last one; LC_OK: in order; LC_ECANCELED: the agent ended,
	 * or it was given up here.  Where the agent has refused the request, no results came;
	 * LC_EBUSY: at another time it may take it. */
	void (*ended)(void *arg, const struct lc_err *why, bool refused);
};

struct submit_opts {
	struct uv_loop_s *loop;
	const char *path; /* of the agent's socket */
	const char *store;
	const char *const *vms, *const *to; /* [nvms], [nto]; borrowed until ended() */
	size_t nvms, nto;
	/* [nmade], likewise: of these it makes no points, which it did before; it only tells
	 * whether the replicas have them.  One of the two lists may be empty. */
	const char *const *made;
	size_t nmade;
	int64_t silence_ms; /* without a word of the agent, then it is given up; 0 = a minute */
	/* Of the one VM, whose image files are given; borrowed while it starts.  NULL: the agent
	 * knows the VMs. */
	const struct definition *import;
	struct submit_events events;
};

/**
 * submit_start(o, out, e):
 * LC_ENOENT: no agent listens there; LC_EBUSY: it has too much to do.  One that takes the request
 * and is not heard of again for silence_ms ends it with LC_ETIMEDOUT; an agent that lives says
 * something all the time.
 */
int submit_start(const struct submit_opts *o, struct submit **out, struct lc_err *e);
/** submit_cancel(s): give up; results and ended() come all the same, after 10 s at the latest.
 * Again: at once. */
void submit_cancel(struct submit *s);

#endif

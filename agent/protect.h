/**
 * protect: continuous protection: restore points of every VM of the settings, as often as its goal
 * asks, and on to the replicas.
 *
 * The goal (rpo) is how old the newest state of a VM may get that is safe: durable at every
 * replica, or in the store here where there is none.  The next cycle of a VM begins so that it is
 * durable in time, by what the last ones took; VMs are spread over the time between.  A VM that
 * fails is tried again, less and less often.
 *
 * Thread: loop.
 */
#ifndef LOCUM_PROTECT_H
#define LOCUM_PROTECT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/queue.h>

#include "store/base/errors.h"
#include "store/store.h"

struct backup;
struct backup_progress;
struct backup_result;
struct capture_pool;
struct guarded;
struct other;
struct past;
struct schedule;
struct site_status;
struct spool_status;
struct protect;
struct settings;
struct throttle;
struct uv_loop_s;

struct protect_opts {
	struct uv_loop_s *loop;
	const struct settings *settings; /* borrowed until protect_stop() is done */
	struct store *store;
	struct capture_pool *pool;
	struct throttle *throttle; /* of what goes to replicas; NULL: none */
	const struct past *past;   /* of the one before; NULL: there was none */
};

/** protect_start(o, out, e): begin.  LC_ENOENT: the settings name no VM to protect, and there is no
 * past and no libvirt that may have one later: one that runs is not to end for that. */
int protect_start(const struct protect_opts *o, struct protect **out, struct lc_err *e);

/* Somebody wants a point now, beside those that the goals ask for.  The first three are the
 * asker's.
 */
struct protect_ask {
	const char *vm; /* one of the settings, or another one that backup can find */
	/* Of a VM that no setting names: import_copy() of those; protect_ask() takes it.  NULL: by
	 * the settings. */
	struct settings *import;
	/** done(ask, r): r is borrowed; the ask is the asker's again. */
	void (*done)(struct protect_ask *ask, const struct backup_result *r);
	TAILQ_ENTRY(protect_ask) entry;
	struct guarded *guarded; /* NULL: no VM that is protected, or over */
	struct other *other;     /* its backup then; NULL: over */
	bool begun;
};
/**
 * protect_ask(x, ask):
 * A point that begins from now on.  One that is under way for the VM comes first, and one that
 * begins then is for all who have asked.  done() comes later.
 */
int protect_ask(struct protect *x, struct protect_ask *ask, struct lc_err *e);
/** protect_unask(ask): it is not wanted any more, and no done() comes; what was begun for it alone
 * is given up. */
void protect_unask(struct protect_ask *ask);
/** protect_asked(ask, out): how far it is; false: it has not begun. */
bool protect_asked(const struct protect_ask *ask, struct backup_progress *out);

struct vm_status {
	const char *name;
	const char *state;                 /* one of protect_states */
	int64_t goal_ns, lag_ns, worst_ns; /* lag < 0: nothing of it is safe */
	int64_t age_ns;                    /* for how long it has been looked after */
	int64_t left_ns; /* until its next state is safe, as the last ones went; INT64_MAX: it is
	                    not on its way */
	const uint8_t *point; /* id of its newest one here; NULL: there is none ... */
	int64_t instant_ns;   /* ... wall clock: the instant that it shows */
	int64_t fresh_ns;     /* ... and until when that was still so */
	const uint8_t *line;  /* ... and its line */
	bool behind;          /* it is not at every replica, but one before it is */
	const struct schedule *schedule;
	uint64_t points, failures;  /* since this process began */
	int64_t pause_ns, cycle_ns; /* of the last cycle */
	const struct lc_err *err;   /* of the last cycle, as in a backup_result; LC_OK: nothing is
	                               wrong */
	/* [protect_sites()]: the instant of its newest point at a replica, 0: not known; why that
	 * replica did not take one after it, LC_OK: it was not so. */
	const int64_t *durable_ns;
	const struct lc_err *refused;
	const uint64_t
	    *waiting; /* likewise: points here that it lacks; PROTECT_UNKNOWN: not known */
};
#define PROTECT_UNKNOWN UINT64_MAX
/** Of a VM: how it is; "protected" is the good one. */
#define PROTECT_STATES 5u
extern const char *const protect_states[PROTECT_STATES];
size_t protect_vms(const struct protect *x);
/** protect_vm(x, i, out): what out points to is good until the loop goes on. */
void protect_vm(const struct protect *x, size_t i, struct vm_status *out);
/** protect_current(x): whether the replicas are those that this host is paired with now. */
bool protect_current(const struct protect *x);
size_t protect_sites(const struct protect *x);
void protect_site(const struct protect *x, size_t i, struct site_status *out);
/** protect_spool(x, out): false: the store has no limit. */
bool protect_spool(const struct protect *x, struct spool_status *out);
/** protect_options(x): what it was started with. */
const struct protect_opts *protect_options(const struct protect *x);
/** protect_status(x, f): how all is, as JSON. */
void protect_status(const struct protect *x, FILE *f);
/** protect_summary(x, dst, n): one line for people. */
void protect_summary(const struct protect *x, char *dst, size_t n);
/** protect_stop(x, stopped, arg): give back snapshots, hang up; stopped() comes when all is gone.
 */
void protect_stop(struct protect *x, void (*stopped)(void *arg), void *arg);

#endif

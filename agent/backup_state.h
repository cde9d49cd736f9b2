/**
 * backup_state: what the backup*.c files share.  Private to them.
 *
 * backup.c       the states of a backup, the hypervisor's part and the way out
 * backup_work.c  what blocks in the store, on libuv's pool
 * backup_read.c  the disks of a snapshot, read side by side
 */
#ifndef LOCUM_BACKUP_STATE_H
#define LOCUM_BACKUP_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "agent/backup.h"
#include "agent/subject.h"
#include "agent/target.h"
#include "store/base/errors.h"

enum backup_state {
	BACKUP_ST_AGAIN = 0,
	BACKUP_ST_FIND,
	BACKUP_ST_GLANCE,
	BACKUP_ST_STANDS,
	BACKUP_ST_PREPARE,
	BACKUP_ST_BEGIN,
	BACKUP_ST_TAKE,
	BACKUP_ST_DISKS,
	BACKUP_ST_READ,
	BACKUP_ST_VALID,
	BACKUP_ST_RELEASE,
	BACKUP_ST_COMMIT,
	BACKUP_ST_END,
	BACKUP_ST_CLOSE,
};

struct reading { /* of one of the subject's disks */
	struct backup *b;
	struct capture *capture; /* while it runs */
	uint64_t covered;        /* windows */
};

struct backup {
	struct backup_opts o;
	void (*done)(void *arg, struct backup_result *result);
	void *arg;
	enum backup_state state;
	struct target target;
	char off_why[256]; /* what its monitor said, where it should have one */
	struct hv *hv;
	struct writer *writer;
	struct hv_take take;
	bool taken; /* a snapshot may be there */
	enum hv_end how;
	struct subject subject;
	struct reading readings[HV_DISKS_MAX]; /* [subject.ndisks] */
	unsigned reading;                      /* captures that run */
	bool untracked;                        /* a record of changes was found to lack some */
	bool lasts;                            /* the lull does */
	bool damaged;                          /* the base, in the store: nothing counts as known */
	bool partial;                          /* this pass ended early */
	uint64_t covered_before; /* sum of the seed's windows, to see that passes get on */
	uint64_t budget;         /* bytes of scratch after which a pass ends, 0: none */
	uint64_t room;           /* bytes in the store, likewise; UINT64_MAX: no limit */
	bool crowded;            /* this pass ended for those */
	bool gone;               /* the VM ended */
	bool stuck;              /* the snapshot could not be given back */
	bool may_pass;           /* what failed may not be there a moment later */
	unsigned tries;          /* cycles begun since the last one that was committed */
	int64_t again_ns;        /* when AGAIN is over */
	uv_work_t work;
	uv_timer_t watch;
	unsigned closing;
	bool canceled;
	int64_t started_ns;
	struct lc_err err;      /* why it fails */
	struct lc_err step_err; /* of the call in flight on the pool */
	struct backup_result result;
};

/* backup.c */
/** backup_step(b): what the state names is over. */
void backup_step(struct backup *b);
/** backup_fail(b, e): it fails, unless it did before. */
void backup_fail(struct backup *b, const struct lc_err *e);

/* backup_work.c: on the pool, with b->step_err, but for the last two */
void backup_work_stands(uv_work_t *req);
void backup_work_begin(uv_work_t *req);
void backup_work_disks(uv_work_t *req);
void backup_work_commit(uv_work_t *req);
void backup_work_abort(uv_work_t *req);
/** backup_all_same(b): all that changed was written as it was before.  The changes go on being
 * recorded since the base. */
bool backup_all_same(const struct backup *b);
/** backup_keep(b, p): that point still holds; without its texts it is the result. */
void backup_keep(struct backup *b, const struct point *p);

/* backup_read.c */
void backup_read_start(struct backup *b);
/** backup_read_stop(b, why): read no further; NULL: what was read counts. */
void backup_read_stop(struct backup *b, const struct lc_err *why);
/** backup_read_over(b, e): every disk was read as far as it will be: to its end, or until the
 * scratch was used up. */
int backup_read_over(struct backup *b, struct lc_err *e);

#endif

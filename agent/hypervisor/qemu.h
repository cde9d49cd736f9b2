/**
 * qemu: a running QEMU, spoken to over QMP.  Private to the qemu_*.c files.
 *
 * qemu.c            the driver: connection, events, the engine that runs scripts
 * qemu_domain.c     what libvirt says there is
 * qemu_look.c       what QEMU says there is: devices, nodes, the graph
 * qemu_disks.c      the VM's disks and what each can do
 * qemu_glance.c     whether anything is different since then
 * qemu_tidy.c       everything of ours out of QEMU again
 * qemu_introspect.c what the machine is
 * qemu_snapshot.c   the stages of a take
 * qemu_bitmap.c     the records of changes
 * qemu_push.c       disks that QEMU copies itself
 * qemu_whole.c      whether such a disk was made smaller and larger again
 * qemu_forget.c     out of a VM for good
 * qemu_scratch.c    scratch files
 * qemu_socket.c     the listening socket
 *
 * An operation is a list of scripts, a script a list of steps, a step one batch of commands:
 * `build` fills the batch, `check` judges the answers.  A step that fails ends the operation, but
 * for the steps marked `always`.  Nothing is remembered of what was already done: what has to be
 * undone is found by looking at QEMU, so the same code serves after a failure, after a release and
 * after a dead process.
 */
#ifndef LOCUM_QEMU_H
#define LOCUM_QEMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

#include "agent/hypervisor/driver.h"
#include "agent/hypervisor/errand.h"
#include "agent/hypervisor/guard.h"
#include "agent/hypervisor/qmp.h"
#include "store/base/errors.h"
#include "store/base/memory.h"

#define QEMU_NODE_MAX 32         /* of a node name, with the NUL (QEMU's own limit) */
#define QEMU_PATH_MAX 256        /* of an object's path */
#define QEMU_BITMAP_MAX 112      /* of a bitmap's name */
#define QEMU_LAID_BITMAP "locum" /* what is exported: not QEMU_ANY_PREFIX, as it is no record */
#define QEMU_ANY_PREFIX "locum." /* of every name in QEMU, of whichever store */
#define QEMU_PREFIX_MAX 26       /* "locum." + tag + "." */
#define QEMU_MIN_VERSION 70100u  /* on-cbw-error, cbw-timeout */
#define QEMU_AGAIN 1             /* from check: build and send this step again a little later */

struct domain_xml;
struct qemu;

struct qemu_step {
	const char *name; /* failpoint that is passed before it */
	int (*build)(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
	int (*check)(struct qemu *q, struct qmp_batch *b, struct lc_err *e); /* may be NULL */
	/* Instead of build and check: an errand, begun by the first (or DRIVER_NOTHING), judged by
	 * the second. */
	int (*errand)(struct qemu *q, errand_done_cb *done, struct lc_err *e);
	int (*collect)(struct qemu *q, struct errand_result *r, struct lc_err *e);
	bool always;      /* also when a step before it failed */
	const char *sent; /* failpoint that is passed once it was sent, or NULL */
};

struct qemu_script {
	const struct qemu_step *steps;
	size_t n;
};
/* The names of failpoints stand in these two, where the lint test finds them. */
#define QEMU_STEP(failpoint_name, ...)                \
	{                                             \
		.name = (failpoint_name), __VA_ARGS__ \
	}
#define QEMU_SENT(failpoint_name) .sent = (failpoint_name)
#define QEMU_SCRIPT(steps)                                \
	{                                                 \
		(steps), sizeof(steps) / sizeof(steps)[0] \
	}

struct qemu_op { /* the one operation that is under way */
	const struct qemu_script *scripts;
	size_t nscripts;
	size_t script, step;
	struct qmp_batch *b;
	int64_t step_began_ns;
	bool running;
	bool taking;  /* a stage of a take: a lost snapshot or a cancel ends it */
	bool waiting; /* for the timer, to send the same step again */
	struct lc_err err;
	void (*over)(struct qemu *q, const struct lc_err *err); /* bookkeeping before done */
	hv_done_cb *done;
	void *arg;
};

struct qemu_disk {                /* beside base.vm.disks[same index] */
	char qdev[QEMU_PATH_MAX]; /* object whose property "drive" names the root node */
	char device[128];         /* name of the block backend, "" where it has none */
	char root[QEMU_NODE_MAX]; /* node right under the device */
	char top[QEMU_NODE_MAX];  /* our permanent node over the image's, or "" */
	char node[QEMU_NODE_MAX]; /* node that a filter goes over and that has the bitmaps */
	char bus[QEMU_PATH_MAX];  /* bus that it hangs on */
	bool read_only;
	bool push; /* QEMU has to copy it: no filter, no export */
	/* The snapshot. */
	bool in;     /* part of it */
	int scratch; /* descriptor or -1 */
	uint64_t fdset;
	char since[QEMU_BITMAP_MAX]; /* bitmap of the changes, "" where they are unknown */
	uint64_t reserved;           /* bytes of the scratch that QEMU copies it to ... */
	uint64_t copied;             /* ... and bytes of the disk that have to be in it then */
	uint64_t whole; /* bytes that are set in the bitmap of its length, 0: there is none */
};

struct qemu {
	struct driver base; /* first */
	uv_loop_t *loop;
	struct hv_target t;
	char prefix[QEMU_PREFIX_MAX]; /* of every name of ours in QEMU */
	struct qmp *qmp;
	pid_t pid;         /* of whoever listens on its monitor; 0: not known */
	uv_timer_t timer;  /* of the engine: start, and steps to repeat */
	uv_timer_t budget; /* looks at the scratch while a snapshot lives */
	int handles;
	struct qemu_op op;
	struct qmp_batch *look;        /* answers of the last look, see qemu_look.c */
	struct domain_xml *domain;     /* what libvirt says, NULL: not asked */
	struct introspect *introspect; /* while prepare asks what the machine is */
	struct qemu_disk disks[HV_DISKS_MAX];
	struct json_t *listed; /* query-block when the disks were listed */
	char socket[108];      /* of our NBD server */
	bool serving;          /* the NBD server in QEMU is ours */
	bool same;             /* at the last glance */
	bool alive;            /* a snapshot lives: events matter */
	bool lost;             /* it was reported lost ... */
	bool dropped;          /* ... and has been given back, with this result */
	struct lc_err drop_err;
	hv_done_cb *release_done; /* a release that waits for that */
	void *release_arg;
	struct driver_take take;
	bool was_running;
	bool stopped;         /* by us, and no `cont` was acknowledged yet */
	bool stop_again;      /* what our `cont` let go had been stopped by somebody else */
	int64_t thaw_us;      /* when we let the CPUs go, QEMU's clock */
	struct guard *keeper; /* gives the snapshot back if we die */
	struct guard *guard;  /* while several VMs stand still */
	struct qemu_script prepare[4], undo[3], drop[2];
	int64_t stop_us, resume_us; /* last STOP and RESUME, QEMU's clock */
	int64_t stop_seen_ns;       /* when the former arrived */
	uint64_t push_progress;     /* of the copies of all disks, when last asked ... */
	int64_t push_moved_ms;      /* ... and when that last grew, since the step began */
	char lost_why[160];
	bool canceled; /* no take is wanted any more */
	bool close_wanted;
	void (*closed)(void *arg);
	void *closed_arg;
};

/** qemu_run(q, scripts, n, over, done, arg, e): start an operation; over may be NULL. */
int qemu_run(struct qemu *q, const struct qemu_script *scripts, size_t n,
             void (*over)(struct qemu *q, const struct lc_err *err), hv_done_cb *done, void *arg,
             struct lc_err *e);
/** qemu_poke(q): a step that waits to be repeated need not wait any longer. */
void qemu_poke(struct qemu *q);
/** qemu_snapshot_lost(q, why): tell the caller once. */
void qemu_snapshot_lost(struct qemu *q, const char *why);
/** qemu_budget_start(q): watch the scratch from now on until the snapshot is released. */
void qemu_budget_start(struct qemu *q);
/** qemu_waited_ms(q): since the present step was first sent. */
int64_t qemu_waited_ms(const struct qemu *q);

/* qemu_look.c */
int qemu_look_build(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_look_check(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
void qemu_look_forget(struct qemu *q);
const struct json_t *qemu_look_devices(const struct qemu *q); /* query-block */
const struct json_t *qemu_look_nodes(const struct qemu *q);   /* query-named-block-nodes, flat */
const struct json_t *qemu_look_exports(const struct qemu *q);
const struct json_t *qemu_look_fdsets(const struct qemu *q);
const struct json_t *qemu_look_jobs(const struct qemu *q);
const struct json_t *qemu_look_status(const struct qemu *q);
const struct json_t *qemu_look_migration(const struct qemu *q);
/** qemu_look_node(q, name): what QEMU says of a node, or NULL. */
const struct json_t *qemu_look_node(const struct qemu *q, const char *name);
/** qemu_look_child(q, node, edge): name of the child that hangs on that edge ("file", "target"), or
 * NULL. */
const char *qemu_look_child(const struct qemu *q, const char *node, const char *edge);
/** qemu_look_root(q, device, qdev): node right under a device by the graph, or NULL. */
const char *qemu_look_root(const struct qemu *q, const char *device, const char *qdev);
/** qemu_ours(q, name): begins with our prefix. */
bool qemu_ours(const struct qemu *q, const char *name);

/* qemu_domain.c */
extern const struct qemu_script qemu_domain_script;
/** qemu_domain_complete(q, def): what QEMU could not tell. */
void qemu_domain_complete(const struct qemu *q, struct definition *def);

/* qemu_disks.c */
extern const struct qemu_script qemu_disks_script;
/** qemu_disks_added(q): a disk that has come since the disks were listed, at the last look, or
 * NULL; the name of its device. */
const char *qemu_disks_added(const struct qemu *q);
/** qemu_qdev_object(dst, n, qdev): path of the object that has the property "drive". */
void qemu_qdev_object(char *dst, size_t n, const char *qdev);

/* qemu_introspect.c: sets base.vm.def */
extern const struct qemu_script qemu_introspect_script;

/* qemu_glance.c */
extern const struct qemu_script qemu_glance_script;
/** qemu_glance_record(q): what a prepare asks from now on, until qmp_record(NULL). */
void qemu_glance_record(struct qemu *q);
/** qemu_glance_forget(q): what was noted does not count any more. */
void qemu_glance_forget(struct qemu *q);
/** qemu_glance_can(q): there is something to compare with. */
bool qemu_glance_can(const struct qemu *q);
/** qemu_note(d): as driver_ops. */
bool qemu_note(struct driver *d);

/* qemu_tidy.c */
extern const struct qemu_script qemu_tidy_script;
extern const struct qemu_script
    qemu_drop_script; /* the short way, to be followed by the one above */
/** qemu_fdsets(q): how many sets of descriptors of ours QEMU holds, at the last look. */
size_t qemu_fdsets(const struct qemu *q);
/** qemu_drop_guard(q, duty, out, e): start a guard that gives the snapshot back if we die; the
 * caller sets monitor and scratch in duty. */
int qemu_drop_guard(struct qemu *q, struct guard_duty *duty, struct guard **out, struct lc_err *e);
/** qemu_reopen_top(top, file, read_only): options for blockdev-reopen of one of our permanent
 * nodes. */
struct json_t *qemu_reopen_top(const char *top, const char *file, bool read_only);

/* qemu_snapshot.c */
int qemu_stage(struct driver *d, enum driver_stage stage, const struct driver_take *t,
               hv_done_cb *done, void *arg, struct lc_err *e);
int qemu_still_valid(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e);
/** qemu_own_node(q, dst, kind, i): name of our node of a kind for disk i: 's' scratch, 'c' filter,
 * 'a' access to the snapshot, 'p' image that QEMU copies to (and the job that does), 'w' and 'v'
 * see qemu_whole.c. */
void qemu_own_node(const struct qemu *q, char dst[QEMU_NODE_MAX], char kind, size_t i);

/* qemu_bitmap.c */
/** qemu_bitmap_recover(q, b, e): judge the old record, thaw it where it is frozen; sets
 * disks[].since. */
int qemu_bitmap_recover(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_bitmap_quiet(d, since): as hv_quiet(), from the last look. */
bool qemu_bitmap_quiet(const struct driver *d, const uint8_t since[HV_ID_SIZE]);
/** qemu_bitmap_add(q, b, e): begin the new record. */
int qemu_bitmap_add(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_bitmap_freeze(q, b, e): end the old record, after the instant. */
int qemu_bitmap_freeze(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_bitmap_lay(q, b, i, over): copy the old record of disk i to the node `over`, to be exported
 * from there as QEMU_LAID_BITMAP.  QEMU 7.2 aborts where a disk is resized of which a bitmap is in
 * use.  The last command, the copying, may fail. */
void qemu_bitmap_lay(const struct qemu *q, struct qmp_batch *b, size_t i, const char *over);
extern const struct qemu_script qemu_bitmap_commit_script;
extern const struct qemu_script qemu_bitmap_rollback_script;
extern const struct qemu_script qemu_bitmap_forget_script;

/* qemu_push.c: steps and their parts, in their order */
/** qemu_push_count(q): disks of the take that QEMU copies. */
size_t qemu_push_count(const struct qemu *q);
/** qemu_push_plan: after qemu_bitmap_recover; sets disks[].reserved. */
int qemu_push_plan(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_push_nodes(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_push_begin: adds the transaction that is the instant; nothing where no disk is copied. */
int qemu_push_begin(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_push_look, qemu_push_looked: how much there is to copy. */
int qemu_push_look(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_push_looked(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_push_grow, qemu_push_grown: reserve that, where it is more than was thought. */
int qemu_push_grow(struct qemu *q, errand_done_cb *done, struct lc_err *e);
int qemu_push_grown(struct qemu *q, struct errand_result *r, struct lc_err *e);
int qemu_push_wait(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_push_waited(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_push_finish, qemu_push_finished: the files are complete, and the snapshot's sources. */
int qemu_push_finish(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_push_finished(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_push_cancel, then qemu_push_dismiss and qemu_push_dismissed: jobs of ours of any life. */
int qemu_push_cancel(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_push_dismiss(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_push_dismissed(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_push_guard(q, b): what a guard says for it, again and again. */
void qemu_push_guard(const struct qemu *q, struct qmp_batch *b);

/* qemu_whole.c: parts of steps, in their order, after a look */
int qemu_whole_begin(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_whole_cancel(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_whole_canceled(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_whole_ask(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_whole_told(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
int qemu_whole_mark(struct qemu *q, struct qmp_batch *b, struct lc_err *e);
/** qemu_whole_commit(q, b): remove what counted for the points before this one only. */
void qemu_whole_commit(struct qemu *q, struct qmp_batch *b);
/** qemu_whole_is(q, name): whether a bitmap is no record of changes but one of a disk's length. */
bool qemu_whole_is(const struct qemu *q, const char *name);
/** qemu_whole_cut(q, node, size): at the last look, the disk on that node had been smaller since.
 */
bool qemu_whole_cut(const struct qemu *q, const char *node, uint64_t size);

/* qemu_forget.c */
extern const struct qemu_script qemu_forget_script;

/* qemu_scratch.c: errands, see struct qemu_step */
/** qemu_scratch_make, qemu_scratch_made: an empty nameless file for each disk: of exactly its size,
 * or, where QEMU is to copy it, an image with all its room reserved. */
int qemu_scratch_make(struct qemu *q, errand_done_cb *done, struct lc_err *e);
int qemu_scratch_made(struct qemu *q, struct errand_result *r, struct lc_err *e);
/** qemu_scratch_probe, qemu_scratch_probed: whether the scratch answers, where nodes of ours use
 * it. */
int qemu_scratch_probe(struct qemu *q, errand_done_cb *done, struct lc_err *e);
int qemu_scratch_probed(struct qemu *q, struct errand_result *r, struct lc_err *e);
/** qemu_scratch_sync, qemu_scratch_synced: write back what the host has cached of the images. */
int qemu_scratch_sync(struct qemu *q, errand_done_cb *done, struct lc_err *e);
int qemu_scratch_synced(struct qemu *q, struct errand_result *r, struct lc_err *e);
/** qemu_scratch_close(q): all of them. */
void qemu_scratch_close(struct qemu *q);
/** qemu_scratch_used(d): bytes on disk, but for those of copies, which grow no more. */
uint64_t qemu_scratch_used(const struct driver *d);
/* qemu_socket.c */
#define QEMU_SERVER_FD "locum.nbd" /* name under which it is handed over */
/** qemu_listen(q, out, e): make q->socket and listen on it. */
int qemu_listen(struct qemu *q, int *out, struct lc_err *e);
/** qemu_listening(q): somebody (QEMU, from a life of ours before) answers on q->socket. */
bool qemu_listening(const struct qemu *q);
/** qemu_socket_name(q, e): set q->socket. */
int qemu_socket_name(struct qemu *q, struct lc_err *e);

#endif

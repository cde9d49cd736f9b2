/**
 * hypervisor: the one interface between Locum and whatever runs the VMs.
 *
 * A struct hv is one VM.  The life of a restore point, as the caller sees it:
 *
 *     hv_open ─► hv_prepare ─► hv_take ─► (read every source) ─► hv_still_valid
 *                                 │                                    │
 *                                 └──── any failure ────►  hv_release ◄┘
 *                                                              │
 *                       (the store commits the point)          ▼
 *                                        hv_end(COMMIT | ROLLBACK | LOST) ─► hv_close
 *
 * Where nothing may have happened, hv_glance tells before hv_prepare, and for less.
 *
 * hv_prepare removes what a dead process of ours left behind, enumerates the disks and tells what
 * each can do.  hv_take freezes one instant of all disks of all the VMs given.  hv_release gives
 * the snapshot back to the hypervisor as soon as the last byte was read; change tracking is settled
 * by hv_end, after the store has or has not committed.  A process that dies anywhere in between
 * loses nothing: the next hv_prepare tidies up and the next hv_take knows by name which point each
 * record of changes counts from.
 *
 * All functions: loop thread only.  Each asynchronous call returns 0 and then calls `done` exactly
 * once, later, from the loop, never from inside the call; or fails at once and never calls it.  At
 * most one call per struct hv is in flight.  Every wait has a deadline.
 *
 * What goes wrong is the result of the call, or a text in what it gives.  One thing is logged here,
 * as it is about the guest and not about any call: that its filesystems were found frozen, or may
 * be left so.
 *
 * Names here are the field's, not one hypervisor's: no QMP notion leaks.
 */
#ifndef LOCUM_HYPERVISOR_H
#define LOCUM_HYPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

struct uv_loop_s;
struct hv;
struct hv_memo;
struct definition; /* definition.h */

#define HV_NAME_MAX 64    /* of a VM or disk, with the NUL */
#define HV_DISKS_MAX 64   /* per VM */
#define HV_ID_SIZE 16     /* of a restore point */
#define HV_GRANULE 65536u /* change tracking granularity: one window of the store */

/* Whether the guest's filesystems stand still while the instant is taken. */
enum hv_freeze {
	HV_FREEZE_NEVER = 0,
	HV_FREEZE_AUTO,    /* where that can be had */
	HV_FREEZE_REQUIRE, /* or no restore point of a VM that runs */
	HV_FREEZE_OFFERED, /* where libvirt sees an agent in the guest; else nothing is said */
};

/* How a VM is reached.  All pointers are borrowed until hv_close(). */
struct hv_target {
	const char *vm;      /* its name, for messages */
	const char *qmp;     /* unix socket of the monitor, or NULL ... */
	const char *libvirt; /* ... URI of libvirt, through which it is reached, or NULL */
	const char *domain;  /* name or UUID there */
	/* Needed where the VM is off and its images are to be read: both are NULL.  Else it may be
	 * NULL, and gives names to the disks with its serial numbers and images. */
	const struct definition *def;
	/* It says where its images were at an earlier restore point, and nothing says so now. */
	bool def_past;
	const char *run_dir;     /* short private folder (0700) for sockets of ours */
	const char *scratch_dir; /* local folder for old data while a snapshot lives */
	/* bytes of scratch that one snapshot may use, 0 = no limit but free space */
	uint64_t scratch_max;
	/* 8..16 hex digits of the store: separates several stores that protect one VM */
	const char *tag;
	int64_t connect_timeout_ms; /* until the monitor has greeted; 0 = 5000 */
	int64_t command_timeout_ms; /* for one command; 0 = 10000 */
	int64_t copy_timeout_s;     /* bound of one copy-before-write; 0 = 5 */
	enum hv_freeze freeze;
	const char *guest_agent;   /* socket of the channel to the guest's agent, or NULL */
	int64_t freeze_timeout_ms; /* they never stand still longer; 0 = 10000 */
	/* Have every disk copied by a job of the hypervisor's own, whatever else would do. */
	bool by_job;
	/* For hv_glance() and hv_note(); NULL: neither is wanted. */
	struct hv_memo *memo;
	/* A disk that is copied so may be copied as a whole, which takes scratch of its size. */
	bool push_full;
};

/** hv_target_live(t): the VM is asked, not its images. */
static inline bool
hv_target_live(const struct hv_target *t)
{
	return t->qmp != NULL || t->libvirt != NULL;
}

/* What a disk is to the VM.  Those of a direct boot are files beside it, read by hv_file_*, not by
 * a snapshot. */
enum hv_role {
	HV_ROLE_DISK = 0,
	HV_ROLE_NVRAM,  /* firmware variables */
	HV_ROLE_KERNEL, /* direct boot */
	HV_ROLE_INITRD,
};

struct hv_disk {
	/* stable: configured id, else device id, else serial, else bus address */
	char name[HV_NAME_MAX];
	uint64_t size; /* bytes, as the guest sees it */
	enum hv_role role;
	bool capturable;
	bool copied; /* by the hypervisor for a snapshot; as a whole with push_full only */
	/* why it can't be captured, or what is poorer (why changes are unknown) */
	char reason[320];
	/* image file on this host, "" where there is none (for the operator only) */
	char path[512];
};

/* What libvirt says of the guest's agent. */
enum hv_agent {
	HV_AGENT_UNKNOWN = 0, /* the VM is not libvirt's */
	HV_AGENT_NOWHERE,     /* the VM has no channel for one */
	HV_AGENT_AWAY,        /* it has, and nobody is there */
	HV_AGENT_THERE,
};

struct hv_vm {
	struct hv_disk disks[HV_DISKS_MAX];
	size_t ndisks;
	bool running;   /* guest CPUs run (else paused or off) */
	char state[24]; /* the word for it, vmstate.h */
	/* of the process that runs it: what it names is read with no more rights; 0: any */
	uint32_t uid, gid;
	/* of each role whose file is what we handed it, whatever it says, and is read as ourselves:
	 * 1 << enum hv_role */
	unsigned handed;
	char way[16]; /* how a snapshot would be made: "reopen", "pause", "push", "offline" */
	enum hv_agent agent;
	char agent_socket[108]; /* that libvirt holds, "" not known */
	/* given by hv_prepare, owned by hv: what can be told of the machine */
	struct definition *def;
};

enum hv_changes {
	HV_CHANGES_UNKNOWN = 0, /* read everything that is allocated and compare */
	HV_CHANGES_SUPERSET,    /* every changed window is in the set, perhaps more */
};

enum hv_file_kind {
	HV_FILE_PUSHED = 0, /* copied by the hypervisor into a file of ours, as it can't serve it */
	HV_FILE_RAW,        /* the image of a VM that is off */
};

/* Where the content of a disk lies. */
struct hv_file {
	enum hv_file_kind kind;
	int fd;           /* hv's, until hv_release */
	const char *path; /* raw: of the image; so long, too */
	uint64_t size;    /* bytes of the disk */
	uint64_t copied;  /* pushed: bytes that must be in it */
};

struct hv_source { /* one disk of a snapshot, to be read over NBD, or from a file */
	const struct hv_disk *disk;
	char socket[108]; /* unix socket of the NBD server, "": read from file */
	struct hv_file file;
	char export_name[96];
	char dirty_context[192]; /* NBD meta context that marks changed ranges; "" when unknown */
	enum hv_changes changes;
	char why_unknown[160]; /* for the operator: "no record of changes since ...", "" */
};

struct hv_snapshot {
	struct hv_source sources[HV_DISKS_MAX];
	size_t nsources;
	int64_t instant_ns; /* wall clock just before the instant */
	int64_t pause_ns;   /* how long the guest was stopped for it; 0 where it was not */
	bool frozen;        /* its filesystems stood still at the instant */
	char freeze[160];   /* what came of freezing, for people; "" where it was not asked for */
};

struct hv_take { /* one VM of hv_take(): filled by the caller ... */
	struct hv *hv;
	uint8_t since[HV_ID_SIZE]; /* point whose changes are wanted ... */
	bool have_since;           /* ... or false: everything */
	/* the new point: change tracking from this instant bears its id */
	uint8_t point[HV_ID_SIZE];
	/* ... and given: owned by hv until hv_release is done */
	const struct hv_snapshot *snapshot;
};

enum hv_end {
	HV_COMMIT = 0, /* the point is durable: forget the record of changes before it */
	HV_ROLLBACK,   /* it is not: the changes since `since` go on being recorded under `since` */
	HV_LOST,       /* nothing recorded can be trusted: remove it all */
};

enum hv_event {
	HV_EV_SNAPSHOT_LOST = 1, /* migration, resize, unplug or a broken snapshot: stop reading */
	HV_EV_GONE,              /* the VM or its monitor went away */
};

typedef void hv_done_cb(void *arg, const struct lc_err *err);
typedef void hv_event_cb(void *arg, struct hv *hv, enum hv_event ev, const char *why);

/**
 * hv_open(loop, target, on_event, arg, out, e):
 * Make a handle; nothing is connected yet.  on_event may be NULL; it is called from the loop.
 */
int hv_open(struct uv_loop_s *loop, const struct hv_target *target, hv_event_cb *on_event,
            void *arg, struct hv **out, struct lc_err *e);

/**
 * hv_prepare(hv, done, arg, e):
 * Connect, remove leftovers (exports, filters, nodes, scratch; never a record of changes that still
 * counts), enumerate the disks.  A monitor that is silent or held by another client is LC_EBUSY or
 * LC_ETIMEDOUT within the connect timeout; a socket that is no hypervisor is LC_EINVAL.
 */
int hv_prepare(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e);
/** hv_memo_new(): what one VM looked like; holds nothing yet.  NULL when out of memory. */
struct hv_memo *hv_memo_new(void);
/** hv_memo_free(m): NULL is fine.  No target may still name it. */
void hv_memo_free(struct hv_memo *m);
/**
 * hv_note(hv):
 * After hv_prepare: keep what it found in the target's memo.  False: that can't be done, and the
 * memo holds nothing.  Every hv_prepare makes it hold nothing again.
 */
bool hv_note(struct hv *hv);
/**
 * hv_glance(hv, done, arg, e):
 * Before hv_prepare, or instead of it: connect, and see whether hv_prepare would find what it found
 * when that was noted.  It changes nothing.  Fails as hv_prepare does.
 */
int hv_glance(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e);
/** hv_same(hv): after hv_glance: it would.  False where it is not known. */
bool hv_same(const struct hv *hv);
/** hv_vm(hv): borrowed, valid after hv_prepare until hv_close. */
const struct hv_vm *hv_vm(const struct hv *hv);
/**
 * hv_quiet(hv, since):
 * Whether nothing was written to any disk, but for excluded ones, since that point, as hv_prepare
 * saw it: every record of changes since then is whole, and empty.  False where that is not known.
 */
bool hv_quiet(const struct hv *hv, const uint8_t since[HV_ID_SIZE]);
/** hv_exclude(hv, disk): leave a disk out of the following hv_take.  LC_ENOENT for an unknown
 * name. */
int hv_exclude(struct hv *hv, const char *disk, struct lc_err *e);

/**
 * hv_take(set, n, done, arg, e):
 * One instant of all disks of n VMs (n >= 1; the array is borrowed until done; all VMs of one call
 * that share a host are stopped where n > 1).  A failure leaves every VM as it was before the call.
 *
 * Where a target says so its guest's filesystems are frozen for it, whatever happens for no longer
 * than freeze_timeout and the time that the guest takes to thaw; that a guest's agent hangs costs
 * connect_timeout.  LC_ENOTSUP where a VM that must be frozen can't be.
 */
int hv_take(struct hv_take *set, size_t n, hv_done_cb *done, void *arg, struct lc_err *e);
/**
 * hv_cancel(hv):
 * Nobody wants the snapshot any more.  A take that is under way, or that comes, ends soon with
 * LC_ECANCELED, where it waits for the hypervisor to copy disks, too.  All else goes on as it
 * would.
 */
void hv_cancel(struct hv *hv);
/**
 * hv_still_valid(hv, done, arg, e):
 * After the last byte was read and before anything is committed: whether all that was read was of
 * the instant.  LC_ECONFLICT with a reason where not.
 */
int hv_still_valid(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e);
/**
 * hv_release(hv, done, arg, e):
 * Give the snapshot back.  The caller has closed its NBD connections.  Idempotent.  After it,
 * nothing of ours is in the guest's I/O path, whatever it reports.
 */
int hv_release(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e);
/** hv_end(hv, how, done, arg, e): settle change tracking after hv_release. */
int hv_end(struct hv *hv, enum hv_end how, hv_done_cb *done, void *arg, struct lc_err *e);
/**
 * hv_forget(hv, done, arg, e):
 * Instead of a take: remove every record of changes of ours from the VM, whatever store it is for.
 * LC_EBUSY names what another process of ours uses just now; all else is gone then.
 */
int hv_forget(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e);
/** hv_scratch_used(hv): bytes of scratch that the snapshot uses now (for budgets). */
uint64_t hv_scratch_used(const struct hv *hv);
/** hv_close(hv, closed, arg): release everything; `closed` (may be NULL) comes when hv is gone. */
void hv_close(struct hv *hv, void (*closed)(void *arg), void *arg);

#endif

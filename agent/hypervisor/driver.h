/**
 * driver: what stands behind hypervisor.c, one struct for each kind of VM.
 *
 * hypervisor.c checks the order of calls, runs a take of several VMs stage by stage with a barrier
 * between the stages, and undoes it when one fails; a driver only knows its own VM.
 *
 *     take:  ARM ─► FREEZE ─► CUT ─► THAW ─► SERVE          any failure: THAW (if frozen) ─► UNDO
 *
 *     ARM     everything that does not change the way of the guest's data
 *     FREEZE  only in a take of several VMs: stop the CPUs if they run
 *     CUT     the instant.  A take of one VM may stop and start the CPUs within it
 *     THAW    start the CPUs again if FREEZE stopped them; must be tried whatever else failed
 *     SERVE   settle the record of changes, open the NBD exports, fill d->snapshot
 *     UNDO    after a failure of any stage: the VM as it was before ARM
 *
 * A driver's struct begins with a struct driver.  Asynchronous functions here follow hypervisor.h
 * (done exactly once, later, from the loop) with one addition: DRIVER_NOTHING as return value says
 * that there was nothing to do and done will not be called.
 */
#ifndef LOCUM_DRIVER_H
#define LOCUM_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/hypervisor/hypervisor.h"
#include "store/base/errors.h"

#define DRIVER_NOTHING 1

/* Names in QEMU that launch.c gives and qemu.c knows: a raw no-op node over the image's own node.
 * <disk> is cut to what fits in a node name (31 characters). */
#define DRIVER_TOP_PREFIX "locum-top-"
#define DRIVER_IMAGE_PREFIX "locum-img-"
/* In front of a disk's name that is no device id of QEMU's because it begins with a digit. */
#define DRIVER_DISK_PREFIX "locum-disk-"
/* The back end of a network card on a bridge: this, a number, '-', the bridge.  QEMU does not tell
 * it otherwise. */
#define DRIVER_BRIDGE_PREFIX "locum-br-"

struct driver;

enum driver_stage {
	DRIVER_ARM = 1,
	DRIVER_FREEZE,
	DRIVER_CUT,
	DRIVER_THAW,
	DRIVER_SERVE,
	DRIVER_UNDO,
};

struct driver_take { /* one VM of a take; borrowed from ARM until SERVE or UNDO is done */
	uint8_t since[HV_ID_SIZE];
	bool have_since;
	uint8_t point[HV_ID_SIZE];
	bool group; /* FREEZE and THAW will be called */
};

struct driver_ops {
	int (*prepare)(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e);
	/* May be NULL: it can't be told.  Connects, as prepare does, and asks what the last one
	 * asked that was noted; same: whether that is all as it was. */
	int (*glance)(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e);
	bool (*same)(const struct driver *d);
	/* May be NULL.  After a prepare: keep what it saw in the target's memo. */
	bool (*note)(struct driver *d);
	int (*stage)(struct driver *d, enum driver_stage stage, const struct driver_take *t,
	             hv_done_cb *done, void *arg, struct lc_err *e);
	/* May be NULL: no stage takes long.  At any time. */
	void (*cancel)(struct driver *d);
	int (*still_valid)(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e);
	int (*release)(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e);
	int (*end)(struct driver *d, enum hv_end how, hv_done_cb *done, void *arg,
	           struct lc_err *e);
	/* May be NULL: there is nothing. */
	int (*forget)(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e);
	bool (*quiet)(const struct driver *d, const uint8_t since[HV_ID_SIZE]); /* may be NULL */
	uint64_t (*scratch_used)(const struct driver *d); /* may be NULL: none */
	/* Nothing else is in flight.  `closed` comes later, from the loop, and the driver is freed
	 * before it. */
	void (*close)(struct driver *d, void (*closed)(void *arg), void *arg);
};

struct driver { /* the part of a driver's struct that hypervisor.c sees */
	const struct driver_ops *ops;
	struct hv_vm vm; /* filled by prepare; vm.def is freed by hypervisor.c with lc_free() */
	struct hv_snapshot snapshot; /* filled by the stages; sources point to vm.disks */
	bool excluded[HV_DISKS_MAX]; /* set by hypervisor.c, index of vm.disks */
	/* Report an event; set by hypervisor.c right after opening.  May be called from any
	 * callback. */
	void (*event)(void *arg, enum hv_event ev, const char *why);
	void *event_arg;
};

/**
 * driver_qemu_open(loop, target, out, e), driver_image_open(loop, target, out, e):
 * Make the driver's struct; the strings of target are borrowed until close.  Nothing is connected
 * or opened yet.
 */
int driver_qemu_open(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out,
                     struct lc_err *e);
int driver_image_open(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out,
                      struct lc_err *e);

#endif

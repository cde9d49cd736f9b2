/**
 * launch: start a QEMU from a definition, watch it, stop it.
 *
 * VMs started here have a permanent no-op node on top of every disk, so that
 * restore points of them need no pause.  The process is detached: it
 * outlives the command that started it, and is found again through its folder.
 *
 * The folder of a VM (run_dir/<vm>/): qmp (monitor socket), qmp2 (one more, for launch.c itself),
 * qga (guest agent), serial.log, pid, definition.ini, qemu.log (its stderr), lock, screen.ppm
 * (newest picture of the screen).
 *
 * launch.c       start, find, stop
 * launch_args.c  the command line
 * launch_accel.c whether KVM is of use here
 * launch_life.c  signs of life
 * launch_proc.c  the process: detached, found again
 * launch_talk.c  short talks with its monitor
 */
#ifndef LOCUM_LAUNCH_H
#define LOCUM_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hypervisor/definition.h"
#include "store/base/errors.h"

#define LAUNCH_MONITOR "qmp"      /* in the folder of a VM: for hv_target.qmp */
#define LAUNCH_MONITOR_OWN "qmp2" /* one more, for short talks of our own */
#define LAUNCH_AGENT "qga"        /* likewise for hv_target.guest_agent */
/* In launch_writes(): the restore point that all else there lies over. */
#define LAUNCH_POINT_FILE "point"

/* What stands behind a disk. */
enum launch_image {
	LAUNCH_IMAGE_FILE = 0, /* `file`; without it the definition's path (see own_paths) */
	LAUNCH_IMAGE_OVERLAY,  /* qcow2 overlay file over an NBD export */
};

struct launch_disk { /* replaces the image of one disk of the definition */
	const char *name;
	enum launch_image kind;
	const char *overlay;    /* qcow2 file to write to (made by the caller) */
	const char *nbd_socket; /* and what is under it */
	const char *nbd_export;
	const char *file; /* a plain file on this host: kernel, initrd, nvram, or a disk's image */
	const char *format; /* of `file` where it is a disk's image; NULL = raw */
};

struct launch_opts {
	const char *vm;    /* name: of the folder, and shown in the process title */
	const char *dir;   /* run_dir/<vm>, made by the call, 0700 */
	const char *qemu;  /* program, NULL = qemu-system-x86_64 */
	const char *accel; /* what to try, in this order; NULL = "kvm:tcg" */
	const struct launch_disk *disks;
	size_t ndisks;
	bool own_paths; /* the definition is this host's own (locum.conf): the paths in it may be
	                   opened.  Otherwise it came from a restore point: every disk has to be in
	                   `disks`, and firmware to lie under /usr/share */
	bool isolated;  /* network cut off (test) */
	bool paused;    /* do not start the CPUs */
	bool sandbox;   /* -sandbox on,... */
	const char
	    *run_as; /* user to drop to, NULL = stay.  The folder of an NBD server's socket, but
	                none above it, is open to it */
};

/** launch_check_name(vm, e): LC_EINVAL where that is no name of a VM (it becomes part of paths). */
int launch_check_name(const char *vm, struct lc_err *e);
/** launch_writes(scratch_dir, vm): the folder of what a VM writes that was booted from a restore
 * point; lc_free() it. */
char *launch_writes(const char *scratch_dir, const char *vm);
/** launch_user(name, uid, gid, e): of a user; LC_ENOENT where there is none of that name. */
int launch_user(const char *name, uint32_t *uid, uint32_t *gid, struct lc_err *e);
/**
 * launch_start(def, opts, pid_out, e):
 * Start QEMU and wait until its monitor answers (at most 10 s).  Blocking: not on a loop
 * that serves anything.  On failure the message has the last line of QEMU's stderr and names
 * qemu.log.
 *
 * KVM is only tried where it can carry an ordinary guest; a QEMU that dies of it is started again
 * with what comes next in opts->accel.
 *
 * Returns  0; LC_EEXIST where a VM of that folder runs; LC_EBUSY where an image is in use;
 *          LC_EINVAL (also where the folder's name is too long for sockets), LC_ENOTSUP,
 *          LC_ENOENT (no QEMU), LC_EPEER (QEMU ended), LC_ETIMEDOUT.  After a failure no QEMU is
 *          left.
 */
int launch_start(const struct definition *def, const struct launch_opts *opts, int *pid_out,
                 struct lc_err *e);
/**
 * launch_alive(dir, pid_out):
 * Whether the VM of that folder runs (checked by pid, start time and boot, not by pid alone).
 * pid_out may be NULL.
 */
bool launch_alive(const char *dir, int *pid_out);
/**
 * launch_stop(dir, grace_ms, e):
 * Ask the guest to power off (ACPI), wait grace_ms, then end QEMU, then kill it.  0 when it is
 * gone, also when it was not running.  grace_ms 0: the guest is not asked.  Blocking, grace_ms and
 * 20 s at most, which only a QEMU takes that does not answer.
 */
int launch_stop(const char *dir, int64_t grace_ms, struct lc_err *e);

/* Weakest first. */
enum launch_life {
	LAUNCH_LIFE_NONE = 0,
	LAUNCH_LIFE_SCREEN,
	LAUNCH_LIFE_SERIAL,
	LAUNCH_LIFE_AGENT
};

struct launch_sign {
	enum launch_life best; /* strongest sign seen */
	int64_t exec_ms;       /* until the guest's CPUs ran, from launch */
	int64_t life_ms;       /* until the sign, from launch */
	char what[160];        /* "serial: login:", "guest agent answers", "screen: ..." */
};

/**
 * launch_wait_alive(dir, started_mono_ns, serial_pattern, timeout_ms, out, e):
 * Wait for a sign of life.
 *
 * With a serial_pattern: console text that contains it, and nothing else.  Without: a guest agent
 * that answers, or a login prompt or "SEQ start" on the console.  Weaker signs count when nothing
 * stronger came: 3 lines of console text within 5 s, two equal, non-blank screens 2 s apart of a
 * guest that has paging on (so it is past the BIOS) within 20 s, or by the timeout.  The times are
 * those of the sign, not of the waiting after it.
 *
 * Returns  0; LC_ETIMEDOUT with the last console line; LC_EPEER where QEMU ended or the guest's
 *          kernel panicked.  *out is filled as far as known in every case.  Blocking.
 */
int launch_wait_alive(const char *dir, int64_t started_mono_ns, const char *serial_pattern,
                      int64_t timeout_ms, struct launch_sign *out, struct lc_err *e);

#endif

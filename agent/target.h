/**
 * target: where a VM is: behind a monitor socket, at libvirt, or off, as image files.
 */
#ifndef LOCUM_TARGET_H
#define LOCUM_TARGET_H

#include <stdbool.h>

#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/settings.h"
#include "store/base/errors.h"
#include "store/store.h"

struct target {
	struct hv_target hv;
	char *qmp;         /* owned */
	char *guest_agent; /* owned, or NULL: its agent's channel is not known */
	char *run_dir;     /* owned: for sockets of one backup */
	bool has_dir;      /* run_dir was made */
	char tag[17];
	struct definition *def; /* owned, or NULL */
	bool learned;           /* def is what target_learn() was told */
};

/** target_domain(s, vm): its domain at libvirt, or NULL where it is none: no URI is set, or its
 * section says that it is reached in another way. */
const char *target_domain(const struct settings *s, const char *vm);

/**
 * target_monitor(settings, vm, out, e):
 * The monitor of [vm NAME], or of a VM that Locum started or booted under that name where nobody
 * listens on the other (LC_EEXIST where somebody does): a VM that was lost and booted from a
 * restore point under its own name is that VM now, whatever socket it had before.  NULL where there
 * is neither; free with lc_free().
 */
int target_monitor(const struct settings *s, const char *vm, char **out, struct lc_err *e);
/** target_freeze(settings, vm): settings_freeze(), and HV_FREEZE_OFFERED for a domain of libvirt
 * whose section, if it has one, says nothing about it. */
enum hv_freeze target_freeze(const struct settings *s, const char *vm);
/** target_agent(settings, vm, monitor, out, e): the socket of the guest agent's channel of the VM
 * with that monitor.  NULL where none is known; free with lc_free(). */
int target_agent(const struct settings *s, const char *vm, const char *monitor, char **out,
                 struct lc_err *e);
/**
 * target_find(settings, store, vm, out, e):
 * Its monitor, else its domain, else the images of its definition.
 * LC_ENOENT with what to write into locum.conf where nothing is known of it.  target_done() in
 * every case.
 */
int target_find(const struct settings *s, struct store *store, const char *vm, struct target *out,
                struct lc_err *e);
/** target_make_dirs(t, settings, e): the folders that hv_prepare() and what comes after it need.
 * target_done() removes the one that is the target's own. */
int target_make_dirs(struct target *t, const struct settings *s, struct lc_err *e);
/** target_unknown(s, vm, e): fail because nothing is known of it; with the nearest name. */
int target_unknown(const struct settings *s, const char *vm, struct lc_err *e);
/** target_learn(t, def): that is what it is, as its driver found out; def may be NULL.  0 or
 * LC_ENOMEM. */
int target_learn(struct target *t, const struct definition *def, struct lc_err *e);
/**
 * target_offline(settings, store, vm, t, e):
 * Its monitor does not answer: make it the image files, from its definition in locum.conf or in its
 * newest point.  LC_ENOENT where there is none.  A domain's images are where libvirt says now, and
 * nowhere else: what was learned.  Nobody may still borrow t->hv.
 */
int target_offline(const struct settings *s, struct store *store, const char *vm, struct target *t,
                   struct lc_err *e);
/**
 * target_check_boot(settings, vm, e):
 * LC_ENOTSUP where a VM of that name was booted from a restore point and left what it wrote since:
 * while it is off, no image on this host is what it was last.
 */
int target_check_boot(const struct settings *s, const char *vm, struct lc_err *e);
/**
 * target_check_images(t, settings, store, e):
 * LC_ENOTSUP where the newest point of a VM that is off knows better than the settings which image
 * is its disk: it ran from one that stands on that.
 */
int target_check_images(const struct target *t, const struct settings *s, struct store *store,
                        struct lc_err *e);
void target_done(struct target *t);

#endif

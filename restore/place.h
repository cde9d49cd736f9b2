/**
 * place: where a booted VM lives: its folder in run_dir, and the folder of what it writes.
 *
 *     run_dir/NAME/            sockets, console, logs; locked while a locum works on it
 *     scratch_dir/boot/NAME/   overlays, kernel and the like, and at last the file `point`
 *
 * `point` says over which point the overlays lie.  It is written when all of them are there and
 * before the guest runs, and never for a test.  So a folder without it holds nothing that anybody
 * wrote, and is removed without a question; one that has it is removed only by who says so.
 */
#ifndef LOCUM_PLACE_H
#define LOCUM_PLACE_H

#include <stdbool.h>
#include <sys/types.h>

#include "agent/hypervisor/launch.h"
#include "store/base/errors.h"

#define PLACE_POINT_FILE LAUNCH_POINT_FILE

struct settings;

enum place_use {
	PLACE_NEW = 0, /* a VM that is to stay */
	PLACE_DISCARD, /* the same, in the place of an earlier one's writes */
	PLACE_RESUME,  /* over the overlays that are there */
	PLACE_TEST,    /* a VM of a moment */
};

struct place {
	char *run, *images; /* the folders */
	enum place_use use;
	bool made; /* images was made by us */
	int lock;  /* -1 while not held */
};

/** place_recorded(s, name, out, e): the point that an earlier boot of that name lies over, as
 * "VM@ID"; lc_free() it.  LC_ENOENT where there is nothing to go on with. */
int place_recorded(const struct settings *s, const char *name, char **out, struct lc_err *e);
/**
 * place_take(s, name, use, out, e):
 * Make both folders and lock them against another boot of that name.
 *
 * Returns    0; LC_EBUSY where a VM of that name runs or is being booted; LC_EEXIST where the
 * folder holds what an earlier one wrote and `use` does not allow for that. Ownership: *out needs
 * place_leave() in every case.
 */
int place_take(const struct settings *s, const char *name, enum place_use use, struct place *out,
               struct lc_err *e);
/**
 * place_socket(p, out, e):
 * The path of the socket that the disks are served on, where nothing is left of an earlier one;
 * lc_free() it.  In a folder of its own: QEMU, which may run as another user, comes to that one by
 * a descriptor, and nobody does through the folders that it is in.
 */
int place_socket(const struct place *p, char **out, struct lc_err *e);
/** place_let_user(path, mode, e): let QEMU's user at a file in these folders. */
int place_let_user(const char *path, mode_t mode, struct lc_err *e);
/** place_record(p, spec, e): the overlays lie over that point. */
int place_record(const struct place *p, const char *spec, struct lc_err *e);
/** place_leave(p, failed, logs): give it back.  A test and what failed leave no overlays, unless
 * they were there before; logs false: no folder with logs either. */
void place_leave(struct place *p, bool failed, bool logs);

#endif

/**
 * bootlist: what a VM read first when it was booted, to be read ahead when it is the next time.
 *
 * <store>/index/boot-<VM id, hex>: a sealed blob, as places on a disk tell what is done there.  It
 * may be lost, old, or of another boot at any time: that costs time and nothing else.
 */
#ifndef LOCUM_BOOTLIST_H
#define LOCUM_BOOTLIST_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/point.h"

struct store;

#define BOOTLIST_MAX 16384u /* windows: 1 GiB; a file of 128 KiB */

struct bootlist {
	size_t n;
	struct bootlist_window {
		size_t disk; /* its index in the point */
		uint64_t window;
	} at[BOOTLIST_MAX]; /* in the order in which they were read first */
};

/**
 * bootlist_load(s, p, out, e):
 * What the VM of p read, without disks and windows that p does not have.
 *
 * Returns  0; LC_ENOENT: there is none; LC_ECORRUPT; LC_EKEY.
 */
int bootlist_load(struct store *s, const struct point *p, struct bootlist *out, struct lc_err *e);
/** bootlist_save(s, p, l, e): in the place of what is there. */
int bootlist_save(struct store *s, const struct point *p, const struct bootlist *l,
                  struct lc_err *e);
/** bootlist_decode(plain, p, out, e): what was in the seal; LC_ECORRUPT. */
int bootlist_decode(struct lc_span plain, const struct point *p, struct bootlist *out,
                    struct lc_err *e);

#endif

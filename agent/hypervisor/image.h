/**
 * image: the disks of a VM that is off, read from its image files.  The driver itself is opened by
 * driver_image_open() in driver.h.
 *
 * A raw image is read as it lies there (rawimage.h), each other one, and one on a network file
 * system, served by a qemu-nbd of its own, read-only; both without locks: whoever starts the VM
 * meanwhile is not kept from it, but hv_still_valid() tells.
 */
#ifndef LOCUM_IMAGE_H
#define LOCUM_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "store/base/errors.h"

/* How an image looks: what shows that it was written to, or is another one. */
struct image_look {
	struct stat st;
	uint64_t sectors; /* of 512 bytes, written to this block device since it is there; else 0 */
	uint64_t below;   /* how all files look that it stands on; 0: it stands on none */
};

/** image_look(path, format, out, e): what waits to be written to a block device is, first. */
int image_look(const char *path, const char *format, struct image_look *out, struct lc_err *e);
/** image_looks_same(a, b): the same file or device, not written to in between. */
bool image_looks_same(const struct image_look *a, const struct image_look *b);
/** image_rested_ns(st): how long ago it was written to; for ever where its clock is ahead of ours.
 */
int64_t image_rested_ns(const struct stat *st);
/**
 * image_stamp(path, format, out, n, e):
 * What tells whether an image file was written to: device, inode, size, mtime and ctime as text;
 * of a qcow2 that stands on others, those of the others, too.  At most 124 bytes.
 *
 * Returns  0; LC_ENOTSUP for what is no regular file, or stands on something that is none or can't
 *          be told; LC_EBUSY for one that changed so lately that a further change might not show in
 *          its times; another code where one can't be looked at.
 */
int image_stamp(const char *path, const char *format, char *out, size_t n, struct lc_err *e);
/**
 * image_check_unused(path, e):
 * LC_EBUSY where a QEMU, qemu-img or the like has the image open for writing, or keeps others from
 * reading it (by QEMU's locks; one that was told not to lock is not seen).
 */
int image_check_unused(const char *path, struct lc_err *e);
/**
 * image_check_unopened(path, e):
 * LC_EBUSY where one of them has it open at all: a VM runs from it, or from one that stands on it.
 */
int image_check_unopened(const char *path, struct lc_err *e);
/**
 * image_size(path, format, size_out, e):
 * Bytes that a guest sees of an image (imageformat.h).  Files and block devices.
 */
int image_size(const char *path, const char *format, uint64_t *size_out, struct lc_err *e);

#endif

/**
 * rawimage: a raw image, or a block device that holds one, read as it lies there.
 *
 * Its bytes are the guest's and nothing is read out of them: no header, no format.  Nothing is
 * locked; who reads looks before and after (image.h).
 *
 * Thread: any, several at once for one descriptor.
 */
#ifndef LOCUM_RAWIMAGE_H
#define LOCUM_RAWIMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

/** rawimage_open(path, fd_out, e): for reading.  LC_EINVAL for what is neither a file nor a block
 * device. */
int rawimage_open(const char *path, int *fd_out, struct lc_err *e);
/**
 * rawimage_remote(type):
 * Whether a file system of that type (statfs(2)) is served by another machine or another process,
 * so that a read may wait for ever.  rawimage_is_remote(fd): whether the image lies on such a one,
 * as far as can be told.
 */
bool rawimage_remote(uint32_t type);
bool rawimage_is_remote(int fd);
/** rawimage_size(fd, path, out, e): bytes that a guest sees: whole sectors of 512. */
int rawimage_size(int fd, const char *path, uint64_t *out, struct lc_err *e);
/**
 * rawimage_look(fd, path, size, off, n_out, data_out, e):
 * How many bytes from off on, at least one and not beyond the size, are one hole, which reads as
 * zeros for certain, or not.  All is data where the file system can't tell.
 *
 * Returns    0, or LC_ECONFLICT where the image became shorter than size.
 */
int rawimage_look(int fd, const char *path, uint64_t size, uint64_t off, uint64_t *n_out,
                  bool *data_out, struct lc_err *e);
/**
 * rawimage_read(fd, path, p, n, off, size, e):
 * Any off and n within the size.  A last sector that the file does not fill ends in zeros.
 *
 * Returns    0, LC_EIO, or LC_ECONFLICT where the image became shorter than size.
 */
int rawimage_read(int fd, const char *path, void *p, size_t n, uint64_t off, uint64_t size,
                  struct lc_err *e);

#endif

/**
 * openas: open a file that a VM's process names, with no more rights than that process has.
 *
 * A hypervisor that its guest has broken into can name any file of the host as its kernel; read as
 * root, the file would come back to the guest with the next restore.
 */
#ifndef LOCUM_OPENAS_H
#define LOCUM_OPENAS_H

#include <stdint.h>

#include "store/base/errors.h"

/**
 * openas_read(path, uid, gid, fd_out, e):
 * Open a regular file for reading as that user, in no other group; uid 0: as ourselves.  Blocking.
 *
 * Returns    0, or LC_EACCES, LC_ENOENT, LC_EINVAL (no regular file), LC_EIO.
 * Thread:    any.
 */
int openas_read(const char *path, uint32_t uid, uint32_t gid, int *fd_out, struct lc_err *e);

#endif

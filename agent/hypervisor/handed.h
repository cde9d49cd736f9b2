/**
 * handed: the files behind the disks of a VM that launch.c started.
 *
 * Where QEMU runs as another user it is handed descriptors and knows no path of an image or kernel,
 * so it can't tell one either.  What it was handed is written down in the VM's folder, which is
 * ours alone.
 */
#ifndef LOCUM_HANDED_H
#define LOCUM_HANDED_H

#include <stdbool.h>
#include <stddef.h>

#include "store/base/errors.h"

struct definition;
struct launch_opts;

/** handed_write(def, opts, e): into opts->dir; blocking. */
int handed_write(const struct definition *def, const struct launch_opts *opts, struct lc_err *e);
/**
 * handed_find(monitor, disk, path, n):
 * The file that the disk of that name has, of the VM with that monitor socket.  False where nothing
 * is written down beside the socket by us.
 */
bool handed_find(const char *monitor, const char *disk, char *path, size_t n);
/** handed_unknown(path): what QEMU calls a file that it was handed. */
bool handed_unknown(const char *path);

#endif

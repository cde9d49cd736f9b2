/**
 * convert: images for other hypervisors, made by qemu-img from a qcow2 image of ours.
 *
 * f is a format that format_foreign().
 */
#ifndef LOCUM_CONVERT_H
#define LOCUM_CONVERT_H

#include <stdbool.h>
#include <stdint.h>

#include "restore/format.h"
#include "store/base/errors.h"

/** convert_check(f, size, path, e): LC_ENOTSUP where the format takes no disk of so many bytes. */
int convert_check(enum format f, uint64_t size, const char *path, struct lc_err *e);
/** convert_room(f, size, data): bytes that such an image takes at most, with so much data in it. */
uint64_t convert_room(enum format f, uint64_t size, uint64_t data);
/**
 * convert_run(f, size, from, to, path, stop, arg, e):
 * Fill the empty file `to`, which is to be called path, with what the qcow2 image `from` has, for a
 * disk of size bytes.  Both are descriptors, and their files need no name.  Given up as soon as
 * stop(arg) says so: LC_ECANCELED.
 *
 * Returns  0; LC_ENOENT (no qemu-img); LC_ENOSPC; LC_EIO with what qemu-img said.
 */
int convert_run(enum format f, uint64_t size, int from, int to, const char *path,
                bool (*stop)(void *arg), void *arg, struct lc_err *e);

#endif

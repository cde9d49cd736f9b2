/**
 * convert: image formats of other hypervisors, made by qemu-img from a qcow2 image of ours.
 */
#ifndef LOCUM_CONVERT_H
#define LOCUM_CONVERT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"

enum convert_format { CONVERT_VHDX = 0, CONVERT_VMDK, CONVERT_VPC };

/** convert_named(word, out): "vhdx", "vmdk" or "vpc". */
bool convert_named(const char *word, enum convert_format *out);
/** convert_name(f), convert_suffix(f): as qemu-img calls it; of files, ".vhdx", ".vmdk", ".vhd". */
const char *convert_name(enum convert_format f);
const char *convert_suffix(enum convert_format f);
/** convert_check(f, size, path, e): LC_ENOTSUP where the format takes no disk of so many bytes. */
int convert_check(enum convert_format f, uint64_t size, const char *path, struct lc_err *e);
/** convert_room(f, size, data): bytes that such an image takes at most, with so much data in it. */
uint64_t convert_room(enum convert_format f, uint64_t size, uint64_t data);
/**
 * convert_run(f, size, from, to, path, stop, arg, e):
 * Fill the empty file `to`, which is to be called path, with what the qcow2 image `from` has, for a
 * disk of size bytes.  Both are descriptors, and their files need no name.  Given up as soon as
 * stop(arg) says so: LC_ECANCELED.
 *
 * Returns  0; LC_ENOENT (no qemu-img); LC_ENOSPC; LC_EIO with what qemu-img said.
 */
int convert_run(enum convert_format f, uint64_t size, int from, int to, const char *path,
                bool (*stop)(void *arg), void *arg, struct lc_err *e);

#endif

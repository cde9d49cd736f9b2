/**
 * machine: the recorded definition of a point as a section of locum.conf, with the paths of
 * restored files in it.
 */
#ifndef LOCUM_MACHINE_H
#define LOCUM_MACHINE_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

struct definition;
struct point;

struct machine_file {
	const char *disk;   /* its name in the definition */
	const char *path;   /* absolute */
	const char *format; /* "raw", "qcow2" */
};

/**
 * machine_definition(p, files, n, out, e):
 * The recorded definition with those files in it, and without the disks that are none of them.
 * LC_ENOENT where the point has none, LC_EINVAL where it is malformed.  Free with lc_free().
 */
int machine_definition(const struct point *p, const struct machine_file *files, size_t n,
                       struct definition **out, struct lc_err *e);
/**
 * machine_section(p, files, n, dir, comment, out, e):
 * Append "[vm NAME]" and its keys.  For each disk that was excluded from the point an empty image
 * is made, dir/VM-DISK.raw.  LC_EINVAL where the recorded definition is malformed.
 */
int machine_section(const struct point *p, const struct machine_file *files, size_t n,
                    const char *dir, const char *comment, struct lc_buf *out, struct lc_err *e);

/**
 * machine_drop_unknown(d, vm):
 * Leave out the disks that were excluded from the point and of which no size is known, as nothing
 * can stand in their place; told on stderr.
 */
void machine_drop_unknown(struct definition *d, const char *vm);
/**
 * machine_make_empty(path, size, e):
 * An empty raw image in the place of a disk that was excluded from a point.  One that is there
 * already is left as it is.
 */
int machine_make_empty(const char *path, uint64_t size, struct lc_err *e);

#endif

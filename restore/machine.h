/**
 * machine: the recorded definition of a point as a section of locum.conf, with the paths of
 * restored files in it.
 */
#ifndef LOCUM_MACHINE_H
#define LOCUM_MACHINE_H

#include <stddef.h>

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
 * machine_section(p, files, n, comment, out, e):
 * Append "[vm NAME]" and its keys.  LC_EINVAL where the recorded definition is malformed.
 */
int machine_section(const struct point *p, const struct machine_file *files, size_t n,
                    const char *comment, struct lc_buf *out, struct lc_err *e);

#endif

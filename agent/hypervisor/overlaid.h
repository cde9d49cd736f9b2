/**
 * overlaid: whether an image may still be a disk of a VM that is off, where only an earlier restore
 * point says so.
 *
 * The image may have been another since: under an external snapshot, whose file the VM ran from to
 * its end; or merged into the one below it, which the VM ran from then.  Nothing in the image that
 * was left behind says so; the others that are there do.
 */
#ifndef LOCUM_OVERLAID_H
#define LOCUM_OVERLAID_H

#include <stdbool.h>

#include "store/base/errors.h"

/**
 * overlaid_check(path, format, e):
 * LC_ECONFLICT where a qcow2 image in the same folder stands on that one, or where it stands on one
 * that was written to after it was.  What can't be looked at is no objection.  Blocking.
 */
int overlaid_check(const char *path, const char *format, struct lc_err *e);
enum overlaid {
	OVERLAID_NOTHING = 0, /* the image stands on none */
	OVERLAID_IMAGE,       /* on that one */
	OVERLAID_UNKNOWN,     /* on something that has no plain path; or its data is elsewhere */
};
/** overlaid_next(path, below): what a qcow2 image stands on, PATH_MAX bytes.  Blocking. */
enum overlaid overlaid_next(const char *path, char *below);
/** overlaid_by(path, top): whether the qcow2 image `top` stands on that one, or on one that does,
 * and was the last of the two that was written to.  Blocking. */
bool overlaid_by(const char *path, const char *top);

#endif

/**
 * output: a file that is not there until it is whole.
 *
 * It is written without a name (O_TMPFILE), so that an interrupted restore, a
 * kill or a crash leaves nothing; where the filesystem can't do that it has a
 * hidden name that says what it is ("." NAME ".locum-part").  output_publish()
 * gives it its name, after everything in it is durable.
 */
#ifndef LOCUM_OUTPUT_H
#define LOCUM_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "store/base/errors.h"

struct output;

/**
 * output_create(path, mode, force, out, e):
 * Begin the file that is to be `path`.  LC_EEXIST where path is there, unless force is set (the old
 * file then stands until output_publish()); LC_EINVAL where it is a directory or no regular file.
 */
int output_create(const char *path, mode_t mode, bool force, struct output **out, struct lc_err *e);
/** output_fd(o), output_path(o): borrowed descriptor to write to; the path that it will have. */
int output_fd(const struct output *o);
/**
 * output_direct_fd(o):
 * Borrowed descriptor of the same file that goes past the page cache (memory, offset and length in
 * multiples of OUTPUT_ALIGN), or -1 where the filesystem has no such thing.
 */
int output_direct_fd(const struct output *o);
#define OUTPUT_ALIGN 4096u
const char *output_path(const struct output *o);
/** output_finish(o, durable, e): the content is complete; make it durable, if that is wanted. */
int output_finish(struct output *o, bool durable, struct lc_err *e);
/**
 * output_publish(o, e):
 * Give it its name, in one step, after output_finish().  LC_EEXIST where somebody took the name
 * meanwhile.
 *
 * Durable: file and name, on return of 0, if output_finish() was asked for it.
 */
int output_publish(struct output *o, struct lc_err *e);
/** output_free(o): what was not published is gone. */
void output_free(struct output *o);

/** output_space(path, bytes, e): bytes that are free for us where `path` will lie. */
int output_space(const char *path, uint64_t *bytes, struct lc_err *e);

#endif

/**
 * source_file: a disk's content in a file that was pushed (pushed.h), in the event loop.  For
 * source.c, whose contract holds here, too: other code opens a source.
 *
 * The file is on a local disk and was written to a moment ago; it is read on libuv's pool.
 */
#ifndef LOCUM_SOURCE_FILE_H
#define LOCUM_SOURCE_FILE_H

#include "agent/hypervisor/source.h"

struct source_file;

int source_file_open(struct uv_loop_s *loop, const struct source_opts *opts, source_done_cb *done,
                     void *arg, struct source_file **out, struct lc_err *e);
int source_file_read(struct source_file *s, void *p, uint32_t n, uint64_t off, source_done_cb *done,
                     void *arg, struct lc_err *e);
int source_file_extents(struct source_file *s, uint64_t off, uint64_t len, source_extents_cb *cb,
                        void *arg, struct lc_err *e);
void source_file_close(struct source_file *s, void (*closed)(void *arg), void *arg);

#endif

/**
 * capture: one disk of a snapshot into a restore point.
 *
 * Reads ahead over NBD in the event loop; compares, hashes, compresses and seals on the worker
 * pool.  Memory is that of the pool, however large the disk: when it has no free buffer, reading
 * waits.
 */
#ifndef LOCUM_CAPTURE_H
#define LOCUM_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/store.h"

struct hv_file; /* hypervisor.h */
struct uv_loop_s;
struct capture;
struct capture_pool;

/**
 * capture_pool_new(loop, threads, bytes, out, e):
 * Workers and buffers for all disks that are captured in this loop.  threads 0: as
 * workers_new() has it.
 */
int capture_pool_new(struct uv_loop_s *loop, unsigned threads, uint64_t bytes,
                     struct capture_pool **out, struct lc_err *e);
/** capture_pool_threads(p): how many workers; what writer_opts.workers must be. */
unsigned capture_pool_threads(const struct capture_pool *p);
/** capture_pool_close(p): after the last capture is done; the loop must run once more for its
 * handle. */
void capture_pool_close(struct capture_pool *p);

struct capture_opts {
	struct uv_loop_s *loop;
	struct capture_pool *pool;
	struct writer *writer;
	size_t disk;                /* index given to writer_disks() */
	const char *name;           /* "web01/vda" */
	uint64_t size;              /* bytes of the disk */
	const struct hv_file *file; /* what was copied into a file, or NULL ... */
	const char *socket;         /* ... and else of the NBD server ... */
	const char *export_name;
	const char
	    *dirty_context; /* ... and what marks changed ranges; "": read all that is allocated */
	uint64_t trusted;   /* windows below this one: only changed ones are read; from it on: all
	                       allocated */
	bool *untracked;    /* set where zeros are there that no record of changes tells of */
	uint64_t force[2];  /* windows to read whatever is marked; UINT64_MAX: none */
};

/**
 * capture_done(arg, covered, err): err LC_ECONFLICT: the snapshot can't be read, or *untracked was
 * set; covered = windows, from the first on, that are in the restore point now.
 */
typedef void capture_done_cb(void *arg, uint64_t covered, const struct lc_err *err);

/** capture_start(o, done, arg, out, e): all strings are copied or only used in the call. Loop
 * thread only. */
int capture_start(const struct capture_opts *o, capture_done_cb *done, void *arg,
                  struct capture **out, struct lc_err *e);
/** capture_stop(c): read no further; done comes with LC_OK when what is in flight has arrived. */
void capture_stop(struct capture *c);
/** capture_cancel(c, why): the same, but done comes with that failure. */
void capture_cancel(struct capture *c, const struct lc_err *why);
/** capture_progress(c, looked, total): bytes. */
void capture_progress(const struct capture *c, uint64_t *looked, uint64_t *total);

/**
 * capture_file(writer, worker, disk, fd, path, size, e):
 * A small plain file (kernel, initrd) as a disk of the point.  Blocking.
 */
int capture_file(struct writer *w, unsigned worker, size_t disk, int fd, const char *path,
                 uint64_t size, struct lc_err *e);

#endif

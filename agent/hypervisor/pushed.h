/**
 * pushed: what a hypervisor has copied of a disk into a file of ours: all of it, or what changed.
 *
 * The file is a qcow2 image (version 3, clusters of 64 KiB) with nothing behind it, because it
 * tells a part that became zero from one that was not copied.  It is made here and read here: who
 * fills it is not trusted, and every other reader of the format follows names in it to other
 * files.  Of the header nothing is read back; a place that a table tells lies in the file, or what
 * was pushed is refused.
 *
 * Thread: any, one at a time for each file.
 */
#ifndef LOCUM_PUSHED_H
#define LOCUM_PUSHED_H

#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

#define PUSHED_CLUSTER 65536u

enum pushed_kind {
	PUSHED_NOT = 0, /* not copied */
	PUSHED_ZERO,    /* copied, all zeros */
	PUSHED_DATA,
};

/** pushed_need(size, bytes): how large the file gets at most when so many bytes of a disk of that
 * size are copied, in whole clusters. */
uint64_t pushed_need(uint64_t size, uint64_t bytes);
/**
 * pushed_make(fd, size):
 * Make an empty image of a disk of that size in an empty file.  System calls only, so that an
 * errand can do it.
 *
 * Returns    0, or -1 and errno.
 */
int pushed_make(int fd, uint64_t size);

/**
 * pushed_look(fd, size, off, n_out, kind_out, e):
 * How many bytes from off (a multiple of PUSHED_CLUSTER, below size) on are of one kind, and which.
 * They end at the disk's end, or where another kind begins, or earlier: at least one cluster.
 *
 * Returns    0, or LC_EIO, LC_ECORRUPT (a table that is not what it must be).
 */
int pushed_look(int fd, uint64_t size, uint64_t off, uint64_t *n_out, enum pushed_kind *kind_out,
                struct lc_err *e);
/** pushed_read(fd, p, n, off, e): what was copied; zeros where nothing was.  Any off and n within
 * the size. */
int pushed_read(int fd, void *p, size_t n, uint64_t off, struct lc_err *e);
/** pushed_count(fd, size, out, e): clusters that were copied, by all tables. */
int pushed_count(int fd, uint64_t size, uint64_t *out, struct lc_err *e);

#endif

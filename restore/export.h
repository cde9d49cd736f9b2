/**
 * export: disks of a point into image files, as fast as two of cores, store and target allow.
 *
 * The map tells which windows hold data; batches of them are decoded, checked
 * against their ids and written by a pool of threads, in the disk's order.  All
 * the rest stays a hole.  The files get their names after all of them are whole
 * and durable, so that an interrupted export leaves none.
 *
 * A format of another hypervisor is made by qemu-img from a nameless qcow2 image in the same
 * folder, once that is whole and checked: it needs the room twice for that while.
 */
#ifndef LOCUM_EXPORT_H
#define LOCUM_EXPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "restore/format.h"
#include "store/base/errors.h"

struct store;
struct view;

struct export_file {
	size_t disk;      /* its index in the point */
	const char *path; /* borrowed */
	enum format format;
	uint64_t data;    /* given: bytes of data in it */
	uint64_t written; /* given: bytes that it may take, tables included */
};

struct export_opts {
	struct export_file *files;
	size_t nfiles;
	unsigned threads;  /* 0 = twice the cores: some decode while others wait for the disk */
	bool force;        /* replace files that are there */
	bool passing;      /* files of a moment: they need not survive a power cut */
	const char *label; /* for the progress line, or NULL: none */
};

/**
 * export_run(s, v, opts, e):
 * Write them all.
 *
 * Checks the contents, and in the end the map by which they were put together (not with `passing`).
 *
 * Returns  0; LC_EEXIST; LC_ENOSPC (before anything is written, with bytes needed and free);
 *          LC_ECORRUPT (disk, offset and what the store says); LC_ECANCELED (Ctrl-C).  On every
 *          failure none of the files is there, or with force the old ones still are.
 *
 * Durable: all files, on return of 0.
 */
int export_run(struct store *s, struct view *v, const struct export_opts *opts, struct lc_err *e);

#endif

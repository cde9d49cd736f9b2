/*
 * disk: one disk (or, on the host, one plain file) that the test guest writes.
 */
#ifndef TESTS_GUEST_DISK_H
#define TESTS_GUEST_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_ALIGN 4096U /* Of every buffer, for O_DIRECT. */

struct disk {
	const char *path;
	const char *name; /* Last part of path, borrowed from it. */
	int fd;           /* O_DIRECT where the file system has it; no O_DSYNC. */
	int sync_fd;      /* The same with O_DSYNC. */
	bool is_block;
	bool direct;
	uint64_t size;
};

/**
 * disk_open(d, path, create_size):
 * Open path; if create_size is not 0, make a plain file of at least that many
 * bytes first.  A file system without O_DIRECT is reported on stderr once
 * and then used without.
 *
 * Returns    0, or -1 after a message on stderr.
 * Ownership: borrows path for the life of d.
 */
int disk_open(struct disk *d, const char *path, uint64_t create_size);

/** disk_close(d): close what disk_open() opened. */
void disk_close(struct disk *d);

/**
 * disk_write(d, sync, buf, n, offset):
 * Write all n bytes at byte offset; sync asks for O_DSYNC.  buf, n and offset
 * are multiples of the sector size, buf of DISK_ALIGN.
 *
 * Returns 0 or an errno value.
 */
int disk_write(const struct disk *d, bool sync, const void *buf, size_t n, uint64_t offset);

/** disk_read(d, buf, n, offset): as disk_write(), reading.  The end of the disk is EIO. */
int disk_read(const struct disk *d, void *buf, size_t n, uint64_t offset);

/** disk_alloc(n): n bytes, zero, aligned for O_DIRECT; ends the program if there are none. */
void *disk_alloc(size_t n);

#endif

/* What an image file is by itself, whoever uses it: how it looks, how large it is, who writes to
 * it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"

#include "agent/hypervisor/image.h"
#include "agent/hypervisor/imageformat.h"
#include "agent/hypervisor/overlaid.h"
#include "agent/hypervisor/rawimage.h"

#define CHAIN_MAX 64 /* images on top of each other */
#define STAMP_SETTLE_NS (2 * LC_NS_PER_S)

/*
 * QEMU locks a byte of the image for each thing that a user of it does, and another for each that
 * it lets nobody else do (block/file-posix.c).  A reader for whom the image must stand still minds
 * these: that somebody writes or resizes, and that somebody keeps it from being read as a whole,
 * as a job does that moves its content about.
 */
#define QEMU_LOCK_WRITE 101
#define QEMU_LOCK_RESIZE 103
#define QEMU_LOCK_NO_READERS 200
#define QEMU_LOCKS 100 /* where all of them are */
#define QEMU_LOCKS_N 200

/*
 * The times of a block device are those of one of its nodes, and whoever writes may have another,
 * as the VMs of libvirt have in a /dev of their own.  The kernel counts what the device is given.
 */
static int
count_sectors(const char *path, dev_t device, uint64_t *out, struct lc_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
	struct lc_buf text = {0};
	char stat_path[64], *end, *p;
	unsigned i;

	if (fd == -1 || fdatasync(fd) == -1)
		rc = lc_fail_errno(e, "%s", path);
	fd_close(&fd);
	(void)snprintf(stat_path, sizeof stat_path, "/sys/dev/block/%u:%u/stat", major(device),
	               minor(device));
	rc = rc != 0 ? rc : file_read_all(stat_path, 4096, &text, e);
	if (rc == 0 && lc_buf_append(&text, "", 1) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	/* Reads, merged, sectors, milliseconds; writes, merged, sectors (Documentation/block/stat).
	 */
	for (i = 0, p = (char *)text.p; rc == 0 && i < 7; i++, p = end) {
		*out = strtoull(p, &end, 10);
		if (end == p)
			rc = lc_fail(e, LC_EINVAL, 0, "%s: %s is not as it should be", path,
			             stat_path);
	}
	lc_buf_free(&text);
	return rc;
}

/* How long ago it was written to; for ever where its clock is ahead of ours. */
int64_t
image_rested_ns(const struct stat *st)
{
	struct timespec now;
	int64_t ns;

	if (!S_ISREG(st->st_mode) || clock_gettime(CLOCK_REALTIME, &now) != 0)
		return INT64_MAX;
	ns = (int64_t)(now.tv_sec - st->st_mtim.tv_sec) * LC_NS_PER_S +
	     (now.tv_nsec - st->st_mtim.tv_nsec);
	return ns < 0 ? INT64_MAX : ns;
}

static void
mix(uint64_t *hash, uint64_t v)
{
	unsigned i;

	for (i = 0; i < 8; i++) /* FNV-1a */
		*hash = (*hash ^ (v >> (8 * i) & 0xff)) * UINT64_C(1099511628211);
}

/* All that a qcow2 image stands on: *hash is 0 where on nothing, else of their places, sizes and
 * times; *rested_ns becomes less where one was written to later. */
static int
look_below(const char *path, const char *format, uint64_t *hash, int64_t *rested_ns,
           struct lc_err *e)
{
	char at[PATH_MAX], below[PATH_MAX];
	enum overlaid on = OVERLAID_NOTHING;
	struct stat st;
	int i, n = snprintf(at, sizeof at, "%s", path);

	*hash = 0;
	if (strcmp(format, "qcow2") != 0 || n < 0 || (size_t)n >= sizeof at)
		return 0;
	for (i = 0; i < CHAIN_MAX && (on = overlaid_next(at, below)) == OVERLAID_IMAGE; i++) {
		if (stat(below, &st) == -1)
			return lc_fail_errno(e, "%s", below);
		if (!S_ISREG(st.st_mode))
			return lc_fail(e, LC_ENOTSUP, 0,
			               "%s: no regular file, nothing tells when it changed", below);
		mix(hash, (uint64_t)st.st_dev);
		mix(hash, (uint64_t)st.st_ino);
		mix(hash, (uint64_t)st.st_size);
		mix(hash, (uint64_t)st.st_mtim.tv_sec);
		mix(hash, (uint64_t)st.st_mtim.tv_nsec);
		mix(hash, (uint64_t)st.st_ctim.tv_sec);
		mix(hash, (uint64_t)st.st_ctim.tv_nsec);
		if (image_rested_ns(&st) < *rested_ns)
			*rested_ns = image_rested_ns(&st);
		memcpy(at, below, sizeof at);
	}
	return on == OVERLAID_NOTHING
	           ? 0
	           : lc_fail(e, LC_ENOTSUP, 0, "%s: what it stands on can't be told", path);
}

int
image_look(const char *path, const char *format, struct image_look *out, struct lc_err *e)
{
	int64_t rested_ns = INT64_MAX;

	*out = (struct image_look){0};
	if (stat(path, &out->st) == -1)
		return lc_fail_errno(e, "%s", path);
	if (look_below(path, format, &out->below, &rested_ns, NULL) != 0)
		out->below = 0; /* no more is known of it at any other time */
	return S_ISBLK(out->st.st_mode) ? count_sectors(path, out->st.st_rdev, &out->sectors, e)
	                                : 0;
}

bool
image_looks_same(const struct image_look *a, const struct image_look *b)
{
	const struct stat *s = &a->st, *t = &b->st;

	return s->st_dev == t->st_dev && s->st_ino == t->st_ino && s->st_size == t->st_size &&
	       s->st_mtim.tv_sec == t->st_mtim.tv_sec && s->st_mtim.tv_nsec == t->st_mtim.tv_nsec &&
	       s->st_rdev == t->st_rdev && a->sectors == b->sectors && a->below == b->below;
}

int
image_stamp(const char *path, const char *format, char *out, size_t n, struct lc_err *e)
{
	struct stat st;
	uint64_t below;
	int64_t rested_ns;
	int len, rc;

	*out = '\0';
	if (stat(path, &st) == -1)
		return lc_fail_errno(e, "%s", path);
	if (!S_ISREG(st.st_mode))
		return lc_fail(e, LC_ENOTSUP, 0,
		               "%s: no regular file, nothing tells when it changed", path);
	rested_ns = image_rested_ns(&st);
	rc = look_below(path, format, &below, &rested_ns, e);
	if (rc != 0)
		return rc;
	if (rested_ns < STAMP_SETTLE_NS)
		return lc_fail(e, LC_EBUSY, 0, "%s: changed just now", path);
	len = snprintf(out, n,
	               "%" PRIx64 ":%" PRIx64 " %" PRIx64 " %" PRIx64 ".%09ld %" PRIx64 ".%09ld",
	               (uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size,
	               (uint64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (uint64_t)st.st_ctim.tv_sec,
	               st.st_ctim.tv_nsec);
	if (below != 0 && len >= 0 && (size_t)len < n)
		len += snprintf(out + len, n - (size_t)len, " %" PRIx64, below);
	if (len < 0 || (size_t)len >= n) {
		*out = '\0';
		return lc_fail(e, LC_EINVAL, 0, "%s: no room for its stamp", path);
	}
	return 0;
}

static bool
is_locked(int fd, off_t from, off_t n)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from, .l_len = n};

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int
image_check_unused(const char *path, struct lc_err *e)
{
	static const off_t bytes[] = {QEMU_LOCK_WRITE, QEMU_LOCK_RESIZE, QEMU_LOCK_NO_READERS};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
	size_t i;

	if (fd == -1)
		return lc_fail_errno(e, "%s", path);
	for (i = 0; rc == 0 && i < sizeof bytes / sizeof *bytes; i++) {
		if (is_locked(fd, bytes[i], 1))
			rc = lc_fail(e, LC_EBUSY, 0, "%s: the image is in use by another process",
			             path);
	}
	(void)close(fd);
	return rc;
}

int
image_check_unopened(const char *path, struct lc_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool used;

	if (fd == -1)
		return lc_fail_errno(e, "%s", path);
	used = is_locked(fd, QEMU_LOCKS, QEMU_LOCKS_N);
	(void)close(fd);
	return !used ? 0
	             : lc_fail(e, LC_EBUSY, 0,
	                       "%s: in use: a VM runs from it, or from an image that stands on it; "
	                       "stop that one, or restore to another place",
	                       path);
}

static int
qcow2_size(int fd, const char *path, uint64_t *out, struct lc_err *e)
{
	static const uint8_t magic[4] = {'Q', 'F', 'I', 0xfb};
	uint8_t header[32];
	size_t i;
	int rc = file_pread_full(fd, header, sizeof header, 0, path, e);

	if (rc != 0)
		return rc;
	if (memcmp(header, magic, sizeof magic) != 0)
		return lc_fail(e, LC_EINVAL, 0, "%s: not a qcow2 image", path);
	for (i = 24; i < 32; i++) /* big-endian */
		*out = *out << 8 | header[i];
	if (*out > INT64_MAX)
		return lc_fail(e, LC_EINVAL, 0, "%s: its qcow2 header is damaged", path);
	return 0;
}

int
image_size(const char *path, const char *format, uint64_t *size_out, struct lc_err *e)
{
	int fd, rc;

	*size_out = 0;
	if (!imageformat_own(format))
		return imageformat_size(path, format, size_out, e);
	rc = rawimage_open(path, &fd, e);
	if (rc == 0 && strcmp(format, "qcow2") == 0)
		rc = qcow2_size(fd, path, size_out, e);
	else if (rc == 0)
		rc = rawimage_size(fd, path, size_out, e);
	fd_close(&fd);
	return rc;
}

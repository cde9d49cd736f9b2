/* disk: see disk.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "disk.h"

/* Some file systems refuse O_DIRECT at open, others only at the first read. */
static bool
can_direct(const char *path)
{
	void *buf = disk_alloc(DISK_ALIGN);
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	bool ok = fd >= 0 && pread(fd, buf, DISK_ALIGN, 0) >= 0;

	if (fd >= 0)
		(void)close(fd);
	free(buf);
	return ok;
}

static int
make_file(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	struct stat st;
	int rc = -1;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0)
		rc = (uint64_t)st.st_size >= size ? 0 : ftruncate(fd, (off_t)size);
	(void)close(fd);
	return rc;
}

int
disk_open(struct disk *d, const char *path, uint64_t create_size)
{
	const char *slash = strrchr(path, '/');
	struct stat st;
	int flags = O_RDWR | O_CLOEXEC;

	*d = (struct disk){.path = path, .fd = -1, .sync_fd = -1};
	d->name = slash == NULL ? path : slash + 1;
	if (create_size != 0 && make_file(path, create_size) < 0)
		goto fail;
	d->direct = can_direct(path);
	if (d->direct)
		flags |= O_DIRECT;
	d->fd = open(path, flags);
	d->sync_fd = open(path, flags | O_DSYNC);
	if (d->fd < 0 || d->sync_fd < 0 || fstat(d->fd, &st) < 0)
		goto fail;
	if (!d->direct)
		fprintf(stderr, "seqw: %s: no O_DIRECT on this file system, using the page cache\n",
		        path);
	d->is_block = S_ISBLK(st.st_mode);
	d->size = (uint64_t)st.st_size;
	if (d->is_block && ioctl(d->fd, BLKGETSIZE64, &d->size) < 0)
		goto fail;
	return 0;
fail:
	fprintf(stderr, "seqw: %s: %s\n", path, strerror(errno));
	disk_close(d);
	return -1;
}

void
disk_close(struct disk *d)
{
	if (d->fd >= 0)
		(void)close(d->fd);
	if (d->sync_fd >= 0)
		(void)close(d->sync_fd);
	d->fd = d->sync_fd = -1;
}

int
disk_write(const struct disk *d, bool sync, const void *buf, size_t n, uint64_t offset)
{
	const char *p = buf;
	size_t done = 0;
	ssize_t rc;

	while (done < n) {
		rc = pwrite(sync ? d->sync_fd : d->fd, p + done, n - done, (off_t)(offset + done));
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc <= 0)
			return rc < 0 ? errno : EIO;
		done += (size_t)rc;
	}
	return 0;
}

int
disk_read(const struct disk *d, void *buf, size_t n, uint64_t offset)
{
	char *p = buf;
	size_t done = 0;
	ssize_t rc;

	while (done < n) {
		rc = pread(d->fd, p + done, n - done, (off_t)(offset + done));
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc <= 0)
			return rc < 0 ? errno : EIO;
		done += (size_t)rc;
	}
	return 0;
}

void *
disk_alloc(size_t n)
{
	void *p;

	if (posix_memalign(&p, DISK_ALIGN, n) != 0) {
		fprintf(stderr, "seqw: out of memory\n");
		exit(2);
	}
	memset(p, 0, n);
	return p;
}

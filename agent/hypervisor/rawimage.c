#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "store/base/failpoint.h"
#include "store/base/files.h"

#include "agent/hypervisor/rawimage.h"

#define SECTOR 512u
/* Of file systems that linux/magic.h does not name. */
#define GFS2_MAGIC 0x01161970u
#define GPFS_MAGIC 0x47504653u
#define LUSTRE_MAGIC 0x0bd00bd3u

int
rawimage_open(const char *path, int *fd_out, struct lc_err *e)
{
	/* Or opening a fifo would wait for somebody to write to it. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
	struct stat st;

	*fd_out = -1;
	if (fd == -1 || fstat(fd, &st) == -1)
		rc = lc_fail_errno(e, "%s", path);
	else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		rc = lc_fail(e, LC_EINVAL, 0, "%s: neither a file nor a block device", path);
	if (rc != 0)
		fd_close(&fd);
	else
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	*fd_out = fd;
	return rc;
}

bool
rawimage_remote(uint32_t type)
{
	static const uint32_t remote[] = {
	    NFS_SUPER_MAGIC,   SMB_SUPER_MAGIC,  SMB2_SUPER_MAGIC, CIFS_SUPER_MAGIC,
	    FUSE_SUPER_MAGIC,  CEPH_SUPER_MAGIC, AFS_SUPER_MAGIC,  CODA_SUPER_MAGIC,
	    OCFS2_SUPER_MAGIC, V9FS_MAGIC,       GFS2_MAGIC,       GPFS_MAGIC,
	    LUSTRE_MAGIC,
	};
	size_t i;

	for (i = 0; i < sizeof remote / sizeof *remote; i++) {
		if (remote[i] == type)
			return true;
	}
	return false;
}

bool
rawimage_is_remote(int fd)
{
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode))
		return false; /* the kernel gives up on it in its own time */
	return fstatfs(fd, &fs) == -1 || rawimage_remote((uint32_t)fs.f_type);
}

int
rawimage_size(int fd, const char *path, uint64_t *out, struct lc_err *e)
{
	struct stat st;

	*out = 0;
	if (fstat(fd, &st) == -1)
		return lc_fail_errno(e, "%s", path);
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, BLKGETSIZE64, out) == -1 ? lc_fail_errno(e, "%s", path) : 0;
	*out = ((uint64_t)st.st_size + SECTOR - 1) / SECTOR * SECTOR;
	return 0;
}

static int
fail_short(int fd, const char *path, uint64_t size, struct lc_err *e)
{
	uint64_t end;
	int rc = rawimage_size(fd, path, &end, e);

	if (rc != 0)
		return rc;
	return lc_fail(e, LC_ECONFLICT, 0,
	               "%s: the image ends at %" PRIu64 " now, of %" PRIu64
	               " bytes: it was cut short while it was read",
	               path, end, size);
}

int
rawimage_look(int fd, const char *path, uint64_t size, uint64_t off, uint64_t *n_out,
              bool *data_out, struct lc_err *e)
{
	uint64_t now, end = size;
	off_t data = lseek(fd, (off_t)off, SEEK_DATA), hole;

	*data_out = true;
	if (data > (off_t)off || (data == -1 && errno == ENXIO)) {
		/* To a file's end all is a hole, and behind it, too. */
		int rc = rawimage_size(fd, path, &now, e);

		if (rc != 0)
			return rc;
		if (now < size)
			return fail_short(fd, path, size, e);
		*data_out = false;
		end = data == -1 ? size : (uint64_t)data;
	} else if (data == (off_t)off && (hole = lseek(fd, (off_t)off, SEEK_HOLE)) > (off_t)off) {
		end = (uint64_t)hole;
	}
	*n_out = (end < size ? end : size) - off;
	return 0;
}

int
rawimage_read(int fd, const char *path, void *p, size_t n, uint64_t off, uint64_t size,
              struct lc_err *e)
{
	uint8_t *b = p;
	size_t done = 0;
	int fail = failpoint("rawimage.read");

	while (done < n) {
		uint64_t at = off + done;
		ssize_t got = fail != 0 ? -1 : pread(fd, b + done, n - done, (off_t)at);

		if (fail != 0)
			errno = fail;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return lc_fail_errno(e, "%s: read of %zu bytes at offset %" PRIu64, path,
			                     n - done, at);
		if (got == 0 && (size - at >= SECTOR || at % SECTOR == 0))
			return fail_short(fd, path, size, e);
		if (got == 0) {
			memset(b + done, 0, n - done);
			return 0;
		}
		done += (size_t)got;
	}
	return 0;
}

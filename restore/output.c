#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "agent/hypervisor/image.h"
#include "restore/output.h"

struct output {
	char *path;
	char *dir;
	char *part; /* the hidden name, or NULL while it has none */
	bool force, finished, durable;
	int fd, direct_fd;
};

static int
check_target(const char *path, bool force, struct lc_err *e)
{
	struct stat st;

	if (lstat(path, &st) != 0) {
		if (errno == ENOENT)
			return 0;
		return lc_fail_errno(e, "%s", path);
	}
	if (S_ISBLK(st.st_mode)) {
		return lc_fail(
		    e, LC_EINVAL, 0,
		    "%s: a device is written by nbdcopy, from the disk over NBD (see: man "
		    "locum, Disks over NBD)",
		    path);
	}
	if (!S_ISREG(st.st_mode))
		return lc_fail(e, LC_EINVAL, 0, "%s: is there and is no regular file", path);
	if (!force)
		return lc_fail(e, LC_EEXIST, 0, "%s: is there already; --force replaces it", path);
	/* It would run on with a file that has no name any more, and lose it at its end. */
	return image_check_unopened(path, e);
}

static char *
part_name(const char *dir, const char *path)
{
	const char *slash = strrchr(path, '/');

	return lc_asprintf("%s/.%s.locum-part", dir, slash == NULL ? path : slash + 1);
}

static int
open_part(struct output *o, mode_t mode, struct lc_err *e)
{
	o->fd = open(o->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);
	if (o->fd >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return lc_fail_errno(e, "%s: create a file", o->dir);
	o->part = part_name(o->dir, o->path);
	if (o->part == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", o->path);
	/* One that a killed restore left behind is nobody's. */
	(void)unlink(o->part);
	o->fd = open(o->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (o->fd >= 0)
		return 0;
	(void)lc_fail_errno(e, "%s: create", o->part);
	lc_free(o->part);
	o->part = NULL;
	return LC_EIO;
}

static void
open_direct(struct output *o)
{
	char fd_path[64];

	(void)snprintf(fd_path, sizeof fd_path, "/proc/self/fd/%d", o->fd);
	o->direct_fd = open(fd_path, O_WRONLY | O_DIRECT | O_CLOEXEC);
}

int
output_create(const char *path, mode_t mode, bool force, struct output **out, struct lc_err *e)
{
	struct output *o;
	int rc = check_target(path, force, e);

	if (rc != 0)
		return rc;
	o = lc_alloc(sizeof *o);
	if (o == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	o->fd = o->direct_fd = -1;
	o->force = force;
	o->path = lc_strdup(path);
	o->dir = path_dirname(path);
	if (o->path == NULL || o->dir == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	else
		rc = open_part(o, mode, e);
	if (rc == 0)
		open_direct(o);
	if (rc != 0) {
		output_free(o);
		return rc;
	}
	*out = o;
	return 0;
}

int
output_fd(const struct output *o)
{
	return o->fd;
}

int
output_direct_fd(const struct output *o)
{
	return o->direct_fd;
}

const char *
output_path(const struct output *o)
{
	return o->path;
}

int
output_finish(struct output *o, bool durable, struct lc_err *e)
{
	int err = failpoint("output.sync");

	if (err != 0)
		errno = err;
	if (err != 0 || (durable && fsync(o->fd) != 0))
		return lc_fail_errno(e, "%s: make it durable", o->path);
	o->finished = true;
	o->durable = durable;
	return 0;
}

/* A name for a file that has none. */
static int
link_in(struct output *o, const char *to, struct lc_err *e)
{
	char fd_path[64];

	(void)snprintf(fd_path, sizeof fd_path, "/proc/self/fd/%d", o->fd);
	if (linkat(AT_FDCWD, fd_path, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	return lc_fail_errno(e, "%s: create", to);
}

/* From the hidden name to the real one. */
static int
rename_in(struct output *o, struct lc_err *e)
{
	int rc = renameat2(AT_FDCWD, o->part, AT_FDCWD, o->path, o->force ? 0 : RENAME_NOREPLACE);

	/* Filesystems that know no RENAME_NOREPLACE: the check was made when we began. */
	if (rc != 0 && errno == EINVAL && access(o->path, F_OK) != 0)
		rc = rename(o->part, o->path);
	if (rc != 0)
		return lc_fail_errno(e, "%s: rename to %s", o->part, o->path);
	lc_free(o->part);
	o->part = NULL;
	return 0;
}

/* The real name, in one step. */
static int
take_name(struct output *o, struct lc_err *e)
{
	char *part;
	int rc;

	if (o->force && (rc = check_target(o->path, true, e)) != 0)
		return rc;
	if (o->part == NULL && !o->force)
		return link_in(o, o->path, e);
	if (o->part == NULL) { /* a link can't replace, a rename can */
		part = part_name(o->dir, o->path);
		if (part == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", o->path);
		(void)unlink(part);
		rc = link_in(o, part, e);
		if (rc != 0) {
			lc_free(part);
			return rc;
		}
		o->part = part;
	}
	return rename_in(o, e);
}

int
output_publish(struct output *o, struct lc_err *e)
{
	int rc;

	if (!o->finished)
		return lc_fail(e, LC_EINVAL, 0, "%s: not complete", o->path);
	(void)failpoint("output.publish");
	rc = take_name(o, e);
	if (rc != 0)
		return rc;
	rc = o->durable ? dir_sync(o->dir, e) : 0;
	if (rc != 0 && !o->force)
		(void)unlink(o->path);
	return rc;
}

void
output_free(struct output *o)
{
	if (o == NULL)
		return;
	if (o->part != NULL)
		(void)unlink(o->part);
	fd_close(&o->direct_fd);
	fd_close(&o->fd);
	lc_free(o->part);
	lc_free(o->dir);
	lc_free(o->path);
	lc_free(o);
}

int
output_space(const char *path, uint64_t *bytes, struct lc_err *e)
{
	char *dir = path_dirname(path);
	struct statvfs v;
	int rc = 0;

	if (dir == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	if (statvfs(dir, &v) != 0)
		rc = lc_fail_errno(e, "%s", dir);
	else
		*bytes = (uint64_t)v.f_bavail * v.f_frsize;
	lc_free(dir);
	return rc;
}

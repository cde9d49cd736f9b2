#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"

void
fd_close(int *fdp)
{
	int saved = errno;

	if (*fdp >= 0)
		(void)close(*fdp); /* Linux frees the number also on EINTR: never again. */
	*fdp = -1;
	errno = saved;
}

void
random_bytes(void *p, size_t n)
{
	uint8_t *b = p;

	while (n > 0) {
		ssize_t got = getrandom(b, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			abort(); /* Keys made of anything else would be worse than none. */
		b += got;
		n -= (size_t)got;
	}
}

char *
path_join(const char *dir, const char *name)
{
	size_t n = strlen(dir);

	return lc_asprintf("%s%s%s", dir, n == 0 || dir[n - 1] == '/' ? "" : "/", name);
}

char *
path_dirname(const char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n > 0 && path[n - 1] != '/')
		n--;
	while (n > 1 && path[n - 1] == '/')
		n--;
	return n == 0 ? lc_strdup(".") : lc_asprintf("%.*s", (int)n, path);
}

/* The part after the folder, for temporary names; never empty for a path that names a file. */
static const char *
base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

static int
read_to_end(int fd, const char *path, size_t max, struct lc_buf *out, struct lc_err *e)
{
	for (;;) {
		ssize_t got;

		/* One byte more than max is asked for, to tell "exactly max" from "longer". */
		if (out->n == out->cap && lc_buf_reserve(out, 4096) != 0)
			return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
		got = read(fd, out->p + out->n, out->cap - out->n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return lc_fail_errno(e, "%s: read", path);
		if (got == 0)
			return 0;
		out->n += (size_t)got;
		if (out->n > max)
			return lc_fail(e, LC_EINVAL, 0, "%s: longer than %zu bytes", path, max);
	}
}

int
file_read_all(const char *path, size_t max, struct lc_buf *out, struct lc_err *e)
{
	struct stat st;
	int fd = -1;
	int rc = 0;

	out->n = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return lc_fail_errno(e, "%s: open", path);
	/* Room for the whole file at once, so that a secret leaves no copies behind in the heap;
	 * files without a size (pipes, /proc) grow as they are read. */
	if (fstat(fd, &st) == 0 && st.st_size > 0 && (uint64_t)st.st_size <= max &&
	    lc_buf_reserve(out, (size_t)st.st_size + 1) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	if (rc == 0)
		rc = read_to_end(fd, path, max, out, e);
	fd_close(&fd);
	if (rc != 0) {
		if (out->p != NULL)
			explicit_bzero(out->p, out->cap);
		lc_buf_free(out);
	}
	return rc;
}

int
file_pread_full(int fd, void *p, size_t n, uint64_t off, const char *name, struct lc_err *e)
{
	uint8_t *b = p;
	size_t done = 0;

	/* Offsets come from stored data, so nonsense in them is damage and no EINVAL. */
	if (off > INT64_MAX || n > (uint64_t)INT64_MAX - off)
		return lc_fail(e, LC_ECORRUPT, 0, "%s: offset %" PRIu64 " out of range", name, off);
	while (done < n) {
		ssize_t got = pread(fd, b + done, n - done, (off_t)(off + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return lc_fail_errno(e, "%s: read at %" PRIu64, name, off + done);
		if (got == 0)
			return lc_fail(e, LC_ECORRUPT, 0,
			               "%s: ends at %" PRIu64 ", %zu bytes too early", name,
			               off + done, n - done);
		done += (size_t)got;
	}
	return 0;
}

int
file_pwrite_full(int fd, const void *p, size_t n, uint64_t off, const char *name, struct lc_err *e)
{
	const uint8_t *b = p;
	size_t done = 0;

	if (off > INT64_MAX || n > (uint64_t)INT64_MAX - off)
		return lc_fail(e, LC_EINVAL, 0, "%s: offset %" PRIu64 " out of range", name, off);
	while (done < n) {
		ssize_t put = pwrite(fd, b + done, n - done, (off_t)(off + done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return lc_fail_errno(e, "%s: write at %" PRIu64, name, off + done);
		if (put == 0) /* Would otherwise retry for ever. */
			return lc_fail(e, LC_EIO, 0, "%s: write at %" PRIu64 " took no bytes", name,
			               off + done);
		done += (size_t)put;
	}
	return 0;
}

int
dir_sync(const char *path, struct lc_err *e)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return lc_fail_errno(e, "%s: open", path);
	if (fsync(fd) != 0)
		rc = lc_fail_errno(e, "%s: fsync", path);
	fd_close(&fd);
	return rc;
}

/* Make the name `path` durable. */
static int
sync_parent(const char *path, struct lc_err *e)
{
	char *dir = path_dirname(path);
	int rc;

	if (dir == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	rc = dir_sync(dir, e);
	lc_free(dir);
	return rc;
}

static int
make_one(const char *path, mode_t mode, struct lc_err *e)
{
	struct stat st;

	if (mkdir(path, mode) == 0)
		return sync_parent(path, e);
	if (errno != EEXIST)
		return lc_fail_errno(e, "%s: mkdir", path);
	if (stat(path, &st) != 0)
		return lc_fail_errno(e, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return lc_fail(e, LC_EEXIST, ENOTDIR, "%s", path);
	return 0;
}

int
dir_make(const char *path, mode_t mode, struct lc_err *e)
{
	char *part = lc_strdup(path);
	int rc = 0;
	char *p;

	if (part == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	for (p = part + strspn(part, "/"); rc == 0 && *p != '\0';) {
		char c;

		p += strcspn(p, "/");
		c = *p;
		*p = '\0';
		rc = make_one(part, mode, e);
		*p = c;
		p += strspn(p, "/");
	}
	lc_free(part);
	return rc;
}

struct dirent *
dir_next(DIR *d, const char *path, int *rc, struct lc_err *e)
{
	struct dirent *ent = NULL;

	errno = failpoint("dir.next");
	if (errno == 0)
		ent = readdir(d); /* NOLINT(concurrency-mt-unsafe): d is the caller's */
	if (ent == NULL && errno != 0)
		*rc = lc_fail_errno(e, "%s", path);
	return ent;
}

/* Takes dirfd.  By descriptor and without following links, so that a link put there meanwhile by
 * somebody who may write in the folder leads nowhere. */
static void
remove_inside(int dirfd)
{
	DIR *d = fdopendir(dirfd);
	struct dirent *de;

	if (d == NULL) {
		(void)close(dirfd);
		return;
	}
	while ((de = readdir(d)) != NULL) { /* NOLINT(concurrency-mt-unsafe): d is ours */
		int sub;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd, de->d_name, 0) == 0)
			continue;
		sub = openat(dirfd, de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0)
			continue;
		remove_inside(sub);
		(void)unlinkat(dirfd, de->d_name, AT_REMOVEDIR);
	}
	(void)closedir(d);
}

bool
dir_same(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void
dir_remove(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return;
	remove_inside(fd);
	(void)rmdir(path);
}

/* Write n bytes into a new file beside path and fsync it.  Gives *tmp_out, to be renamed or linked,
 * unlinked and freed; NULL on failure. */
static int
write_beside(const char *path, const void *p, size_t n, mode_t mode, char **tmp_out,
             struct lc_err *e)
{
	char *dir = path_dirname(path);
	char *tmp = NULL;
	uint8_t rnd[8];
	char hex[2 * sizeof rnd + 1];
	int fd = -1;
	int rc, sys;

	*tmp_out = NULL;
	random_bytes(rnd, sizeof rnd);
	if (dir != NULL)
		tmp = lc_asprintf("%s/.%s.%s.tmp", dir, base_name(path),
		                  lc_hex(hex, rnd, sizeof rnd));
	lc_free(dir);
	if (tmp == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0) {
		rc = lc_fail_errno(e, "%s: create", tmp);
		lc_free(tmp);
		return rc;
	}
	/* The mode asked for, whatever the umask. */
	rc = fchmod(fd, mode) == 0 ? 0 : lc_fail_errno(e, "%s: chmod", tmp);
	if (rc == 0)
		rc = file_pwrite_full(fd, p, n, 0, tmp, e);
	if (rc == 0) {
		sys = failpoint("files.fsync");
		if (sys != 0)
			errno = sys;
		if (sys != 0 || fsync(fd) != 0)
			rc = lc_fail_errno(e, "%s: fsync", tmp);
	}
	fd_close(&fd);
	if (rc != 0) {
		(void)unlink(tmp);
		lc_free(tmp);
		return rc;
	}
	*tmp_out = tmp;
	return 0;
}

int
file_write_atomic(const char *path, const void *p, size_t n, mode_t mode, struct lc_err *e)
{
	char *tmp;
	int rc = write_beside(path, p, n, mode, &tmp, e);

	if (tmp == NULL)
		return rc;
	(void)failpoint("files.before-rename");
	if (rename(tmp, path) != 0) {
		rc = lc_fail_errno(e, "%s: rename", path);
		(void)unlink(tmp);
	} else {
		(void)failpoint("files.after-rename");
		rc = sync_parent(path, e);
	}
	lc_free(tmp);
	return rc;
}

int
file_write_new(const char *path, const void *p, size_t n, mode_t mode, struct lc_err *e)
{
	char *tmp;
	int rc = write_beside(path, p, n, mode, &tmp, e);

	if (tmp == NULL)
		return rc;
	if (link(tmp, path) != 0)
		rc = lc_fail_errno(e, "%s: create", path);
	(void)unlink(tmp);
	if (rc == 0)
		rc = sync_parent(path, e);
	lc_free(tmp);
	return rc;
}

/*
 * The lock is the flock; the text in the file only says whose it is.  Between somebody's flock and
 * the writing of its text, the text of an earlier, dead holder would still stand there.  So both
 * are done behind a gate, and the text is read behind it too: whoever is inside and finds the flock
 * taken sees the text of its present holder.
 *
 * The gate is a lock of another kind (open file description lock, which on a local filesystem does
 * not meet flock) on one byte far behind the end (where it does meet flock, on NFS, ours and the
 * other's do not overlap there). It is waited for with an end: a holder stopped inside it, or a
 * dying disk, must not hang every later command.
 */
enum { GATE_TRIES = 500, GATE_PAUSE_MS = 1, LOCK_TEXT_MAX = 256 };
#define GATE_OFFSET (INT64_C(1) << 40)

static bool
gate_enter(int fd)
{
	struct flock gate = {
	    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = GATE_OFFSET, .l_len = 1};
	const struct timespec pause_ts = {.tv_nsec = GATE_PAUSE_MS * LC_NS_PER_MS};
	int i;

	for (i = 0; i < GATE_TRIES; i++) {
		if (fcntl(fd, F_OFD_SETLK, &gate) == 0)
			return true;
		if (errno != EAGAIN && errno != EACCES && errno != EINTR)
			return false;
		(void)nanosleep(&pause_ts, NULL);
	}
	return false;
}

static void
gate_leave(int fd)
{
	struct flock gate = {
	    .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = GATE_OFFSET, .l_len = 1};

	(void)fcntl(fd, F_OFD_SETLK, &gate);
}

/* "PID SINCE_NS WHO\n".  A text that could not be written whole is taken away: none is better than
 * half. */
static void
write_holder(int fd, const char *who)
{
	char text[LOCK_TEXT_MAX];
	int n = snprintf(text, sizeof text, "%d %" PRId64 " %s\n", (int)getpid(), clock_wall_ns(),
	                 who);

	if (n >= (int)sizeof text)
		n = (int)sizeof text - 1;
	if (ftruncate(fd, 0) == 0 && n > 0 && pwrite(fd, text, (size_t)n, 0) != n)
		(void)!ftruncate(fd, 0);
}

static int
fail_busy(int fd, const char *path, bool text_is_true, struct lc_err *e)
{
	char text[LOCK_TEXT_MAX + 1] = "";
	char when[32];
	ssize_t n = text_is_true ? pread(fd, text, LOCK_TEXT_MAX, 0) : 0;
	int pid, used = 0;
	int64_t since;
	char *who;

	text[n < 0 ? 0 : n] = '\0';
	/* NOLINTNEXTLINE(cert-err34-c): a wrong number only spoils a message */
	if (sscanf(text, "%d %" SCNd64 " %n", &pid, &since, &used) < 2 || used == 0 || pid <= 0)
		return lc_fail(e, LC_EBUSY, 0, "%s: in use by another process", path);
	who = text + used;
	who[strcspn(who, "\n")] = '\0';
	(void)clock_format(when, sizeof when, since);
	/* A child that it left behind has the lock now, or it runs in another container. */
	if (kill(pid, 0) != 0 && errno == ESRCH)
		return lc_fail(e, LC_EBUSY, 0,
		               "%s: in use since %s; %s (pid %d) took it and is gone", path, when,
		               who, pid);
	return lc_fail(e, LC_EBUSY, 0, "%s: in use by %s (pid %d) since %s", path, who, pid, when);
}

/* Somebody may have removed the file between our open and our flock: then the lock is on a file
 * that nobody else will ever open. */
static bool
still_there(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino &&
	       a.st_dev == b.st_dev;
}

int
file_lock(const char *path, mode_t mode, const char *who, int *fd_out, struct lc_err *e)
{
	bool inside, taken;
	int fd, rc, sys;

	*fd_out = -1;
	for (;;) {
		fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode);
		if (fd < 0)
			return lc_fail_errno(e, "%s: open", path);
		inside = gate_enter(fd);
		taken = flock(fd, LOCK_EX | LOCK_NB) == 0;
		sys = errno;
		if (!taken || still_there(fd, path))
			break;
		fd_close(&fd);
	}
	if (taken) {
		write_holder(fd, who);
		rc = 0;
	} else if (sys == EWOULDBLOCK) {
		rc = fail_busy(fd, path, inside, e);
	} else {
		errno = sys;
		rc = lc_fail_errno(e, "%s: lock", path);
	}
	if (inside)
		gate_leave(fd);
	if (rc != 0)
		fd_close(&fd);
	*fd_out = fd;
	return rc;
}

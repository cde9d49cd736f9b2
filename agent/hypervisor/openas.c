/*
 * The child of a fork becomes that user and hands the descriptor back.  It is a copy of whatever
 * threads there were, so system calls only, and those of a user's rights not by the C library,
 * which would have all threads make them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/files.h"

#include "agent/hypervisor/openas.h"

union control {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

/* Nothing is opened that is no file: a device may do something when it is. */
static int
open_file(const char *path)
{
	char link[32] = "/proc/self/fd/", digits[12];
	int fd = open(path, O_PATH | O_CLOEXEC), n = fd, k = sizeof digits - 1, file = -1;
	struct stat st;

	if (fd < 0)
		return -1;
	digits[k] = '\0';
	do {
		digits[--k] = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	(void)stpcpy(link + strlen(link), digits + k);
	if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
		errno = EINVAL;
	else
		file = open(link, O_RDONLY | O_CLOEXEC);
	n = errno;
	(void)close(fd);
	errno = n;
	return file;
}

static _Noreturn void
be_user(int answer, const char *path, uint32_t uid, uint32_t gid)
{
	union control control = {.buf = {0}};
	int error = 0, fd = -1;
	struct iovec io = {.iov_base = &error, .iov_len = sizeof error};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (syscall(SYS_setgroups, 0, NULL) != 0 || syscall(SYS_setresgid, gid, gid, gid) != 0 ||
	    syscall(SYS_setresuid, uid, uid, uid) != 0 || (fd = open_file(path)) < 0) {
		error = errno;
	} else {
		m.msg_control = control.buf;
		m.msg_controllen = sizeof control.buf;
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	(void)sendmsg(answer, &m, MSG_NOSIGNAL);
	_exit(0);
}

static int
take_answer(int answer)
{
	union control control = {.buf = {0}};
	int error = 0, fd = -1;
	struct iovec io = {.iov_base = &error, .iov_len = sizeof error};
	struct msghdr m = {.msg_iov = &io,
	                   .msg_iovlen = 1,
	                   .msg_control = control.buf,
	                   .msg_controllen = sizeof control.buf};
	struct cmsghdr *c;
	ssize_t n;

	while ((n = recvmsg(answer, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (n != sizeof error) {
		errno = n < 0 ? errno : EIO;
		return -1;
	}
	c = CMSG_FIRSTHDR(&m);
	if (c != NULL && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof fd))
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
	if (fd < 0)
		errno = error == 0 ? EIO : error;
	return fd;
}

static int
open_as(const char *path, uint32_t uid, uint32_t gid)
{
	int ends[2], fd, error;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return -1;
	pid = fork();
	if (pid == 0)
		be_user(ends[1], path, uid, gid);
	error = errno;
	(void)close(ends[1]);
	errno = error;
	fd = pid < 0 ? -1 : take_answer(ends[0]);
	error = errno;
	(void)close(ends[0]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	errno = error;
	return fd;
}

int
openas_read(const char *path, uint32_t uid, uint32_t gid, int *fd_out, struct lc_err *e)
{
	bool same = uid == 0 || uid == geteuid();

	*fd_out = same ? open_file(path) : open_as(path, uid, gid);
	if (*fd_out >= 0)
		return 0;
	if (errno == EINVAL)
		return lc_fail(e, LC_EINVAL, 0, "%s: no regular file", path);
	if (same)
		return lc_fail_errno(e, "%s", path);
	return lc_fail_errno(e, "%s, as user %" PRIu32 ", who runs the VM", path, uid);
}

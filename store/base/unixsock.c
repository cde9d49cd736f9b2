#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "store/base/files.h"
#include "store/base/unixsock.h"

int
unixsock_connect(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t n = strlen(path);
	int fd, error;

	if (n >= sizeof a.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(a.sun_path, path, n + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a) == 0)
		return fd;
	error = errno;
	fd_close(&fd);
	errno = error;
	return -1;
}

bool
unixsock_listens(const char *path)
{
	int fd = unixsock_connect(path);

	if (fd < 0)
		return errno == EAGAIN;
	fd_close(&fd);
	return true;
}

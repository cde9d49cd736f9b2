/*
 * The socket that our NBD server in QEMU listens on.  It is made here and handed over as a
 * descriptor, so that a QEMU that runs as another user needs no access to our folder; its name
 * tells a later life of ours whether the server is ours.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/unixsock.h"

#include "agent/hypervisor/qemu.h"

/* The name must be the same in a later life of ours, so that it can tell whether a server that
 * runs in QEMU was started by us: it is made of the store's tag and the VM. */
int
qemu_socket_name(struct qemu *q, struct lc_err *e)
{
	uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */
	const char *qmp = q->t.qmp != NULL ? q->t.qmp : q->t.libvirt;
	const char *parts[] = {q->t.vm, "\n", qmp, q->t.qmp != NULL ? "" : q->t.domain};
	size_t i;
	int n;

	for (i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		const char *s;

		for (s = parts[i]; *s != '\0'; s++)
			h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
	}
	n = snprintf(q->socket, sizeof q->socket, "%s/%s-%016" PRIx64 ".nbd", q->t.run_dir,
	             q->t.tag, h);
	if (n < 0 || (size_t)n >= sizeof q->socket)
		return lc_fail(e, LC_EINVAL, 0,
		               "run folder %s: its name is too long for a socket in it (%zu "
		               "characters at most)",
		               q->t.run_dir, sizeof q->socket - 48);
	return 0;
}

int
qemu_listen(struct qemu *q, int *out, struct lc_err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(sa.sun_path, q->socket, strlen(q->socket) + 1);
	(void)unlink(q->socket);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&sa, sizeof sa) != 0 ||
	    chmod(q->socket, 0600) != 0 || listen(fd, 128) != 0) {
		(void)lc_fail_errno(e, "socket %s", q->socket);
		fd_close(&fd);
		return e == NULL ? LC_EIO : (int)e->code;
	}
	*out = fd;
	return 0;
}

bool
qemu_listening(const struct qemu *q)
{
	return unixsock_listens(q->socket);
}

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/unixsock.h"

#include "agent/hypervisor/link.h"
#include "agent/hypervisor/relay.h"

/* ---- QEMU's socket ---- */

static int
socket_open(const char *path, int *out, struct lc_err *e)
{
	int fd = unixsock_connect(path);

	if (fd >= 0) {
		*out = fd;
		return 0;
	}
	if (errno == ENAMETOOLONG)
		return lc_fail(e, LC_EINVAL, 0, "monitor socket %s: longer than %zu characters",
		               path, sizeof((struct sockaddr_un *)NULL)->sun_path - 1);
	if (errno == ENOENT) {
		(void)lc_fail(e, LC_ENOENT, 0, "no monitor socket %s: is the VM running?", path);
	} else if (errno == ECONNREFUSED) {
		(void)lc_fail(e, LC_ENOENT, 0,
		              "nobody listens on the monitor socket %s: the VM is gone", path);
	} else if (errno == EAGAIN) {
		(void)lc_fail(e, LC_EBUSY, 0,
		              "the monitor socket %s has others waiting: close them, or "
		              "give Locum one of its own with -qmp unix:...",
		              path);
	} else {
		(void)lc_fail_errno(e, "monitor socket %s", path);
	}
	return (int)e->code;
}

/* ---- either ---- */

int
link_open(const struct link_address *a, int64_t timeout_ms, struct link *out, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	int rc;

	*out = (struct link){.fd = -1};
	if (a->socket != NULL) {
		out->name = lc_strdup(a->socket);
		out->other = "QEMU";
		out->silence = "another client holds the monitor socket";
		out->advice = "close it, or give Locum one of its own with -qmp unix:...";
		out->silence_code = LC_EBUSY;
		rc = socket_open(a->socket, &out->fd, &why);
	} else {
		out->name = a->domain == NULL
		                ? lc_asprintf("of libvirt at %s", a->uri)
		                : lc_asprintf("of domain %s at %s", a->domain, a->uri);
		out->other = "libvirtd";
		out->silence = "nothing is heard from the monitor";
		out->advice = "libvirtd does not answer";
		out->silence_code = LC_ETIMEDOUT;
		out->carries_on = out->explains = true;
		rc = relay_start(a->uri, a->domain, timeout_ms, &out->fd, &why);
	}
	if (rc == 0 && out->name == NULL)
		rc = lc_fail(&why, LC_ENOMEM, 0, "monitor: out of memory");
	if (rc == 0)
		return 0;
	fd_close(&out->fd);
	lc_free(out->name);
	out->name = NULL;
	return lc_fail(e, why.code, 0, "%s", why.msg); /* the errno is in its text */
}

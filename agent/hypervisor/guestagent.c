#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/unixsock.h"

#include "agent/hypervisor/guestagent.h"
#include "agent/hypervisor/qmp.h"

#define SENTINEL '\xff'
#define LINE_MAX_BYTES (1u << 20) /* of an answer; longer ones are dropped */
#define ASK_AGAIN_NS (5 * LC_NS_PER_S)
#define WRITE_MS 1000

struct guestagent {
	int fd;
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct lc_buf in; /* begun line */
	bool overlong;    /* the line is dropped up to its end */
	uint64_t sync_id; /* of the sync asked last; 0 = none */
	int64_t asked_ns;
};

int
guestagent_open(const char *socket_path, struct guestagent **out, struct lc_err *e)
{
	struct guestagent *g;
	int rc;

	*out = NULL;
	g = lc_alloc(sizeof *g);
	if (g == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "guest agent: out of memory");
	g->fd = unixsock_connect(socket_path);
	if (g->fd < 0) {
		rc = errno == ENAMETOOLONG
		         ? lc_fail(e, LC_EINVAL, 0, "guest agent: socket path %s is too long",
		                   socket_path)
		         : lc_fail_errno(e, "guest agent %s", socket_path);
		guestagent_close(g);
		return rc;
	}
	(void)snprintf(g->socket, sizeof g->socket, "%s", socket_path);
	*out = g;
	return 0;
}

void
guestagent_close(struct guestagent *g)
{
	if (g == NULL)
		return;
	fd_close(&g->fd);
	lc_buf_free(&g->in);
	lc_free(g);
}

static int
wait_for(struct guestagent *g, short events, int64_t end_ns, struct lc_err *e)
{
	for (;;) {
		struct pollfd p = {.fd = g->fd, .events = events};
		int64_t left_ms = (end_ns - clock_mono_ns()) / LC_NS_PER_MS;
		int n = poll(&p, 1,
		             left_ms <= 0 ? 0 : (int)(left_ms < INT32_MAX ? left_ms : INT32_MAX));

		if (n > 0)
			return 0;
		if (n == 0 && left_ms <= 0)
			return lc_fail(e, LC_ETIMEDOUT, 0, "guest agent %s: no answer", g->socket);
		if (n == -1 && errno != EINTR)
			return lc_fail_errno(e, "guest agent %s", g->socket);
	}
}

static int
send_text(struct guestagent *g, const char *text, struct lc_err *e)
{
	int64_t end_ns = clock_mono_ns() + WRITE_MS * LC_NS_PER_MS;
	size_t n = strlen(text);

	while (n > 0) {
		ssize_t k = send(g->fd, text, n, MSG_NOSIGNAL);
		int rc;

		if (k >= 0) {
			text += k;
			n -= (size_t)k;
			continue;
		}
		if (errno == EAGAIN) {
			rc = wait_for(g, POLLOUT, end_ns, e);
			if (rc != 0)
				return rc;
		} else if (errno != EINTR) {
			return lc_fail(e, LC_EPEER, errno, "guest agent %s", g->socket);
		}
	}
	return 0;
}

/*
 * The next line, without its newline, in g->in; the caller empties that.  Byte by byte from a
 * socket is slow and does not matter here: answers are short and rare.
 */
static int
read_line(struct guestagent *g, int64_t end_ns, struct lc_err *e)
{
	for (;;) {
		char c;
		ssize_t k = recv(g->fd, &c, 1, 0);
		int rc = 0;

		if (k == 0)
			return lc_fail(e, LC_EPEER, 0, "guest agent %s: the channel was closed",
			               g->socket);
		if (k == -1 && errno == EAGAIN)
			rc = wait_for(g, POLLIN, end_ns, e);
		else if (k == -1 && errno != EINTR)
			rc = lc_fail(e, LC_EPEER, errno, "guest agent %s", g->socket);
		if (rc != 0)
			return rc;
		if (k != 1)
			continue;
		if (c == '\n') {
			if (!g->overlong)
				return 0;
			g->overlong = false;
			g->in.n = 0;
			continue;
		}
		if (c == SENTINEL) { /* what stood before it is somebody else's */
			g->in.n = 0;
			g->overlong = false;
		}
		g->overlong = g->overlong || g->in.n >= LINE_MAX_BYTES;
		if (!g->overlong && lc_buf_append(&g->in, &c, 1) != 0)
			return lc_fail(e, LC_ENOMEM, 0, "guest agent: out of memory");
	}
}

static int
ask_sync(struct guestagent *g, struct lc_err *e)
{
	char text[128];

	random_bytes(&g->sync_id, sizeof g->sync_id);
	g->sync_id = (g->sync_id >> 12) + 1; /* what JSON can surely carry */
	g->asked_ns = clock_mono_ns();
	(void)snprintf(text, sizeof text,
	               "%c{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%" PRIu64
	               "}}\n",
	               SENTINEL, g->sync_id);
	return send_text(g, text, e);
}

int
guestagent_sync(struct guestagent *g, int64_t timeout_ms, struct lc_err *e)
{
	int64_t end_ns = clock_mono_ns() + timeout_ms * LC_NS_PER_MS;
	int rc = 0;

	if (g->sync_id == 0 || clock_mono_ns() - g->asked_ns > ASK_AGAIN_NS)
		rc = ask_sync(g, e);
	while (rc == 0) {
		struct qmp_message m;
		uint64_t id = 0;
		bool ours = false;

		rc = read_line(g, end_ns, e);
		if (rc != 0)
			break;
		if (g->in.n > 1 && (char)g->in.p[0] == SENTINEL &&
		    qmp_parse((const char *)g->in.p + 1, g->in.n - 1, &m, NULL) == 0) {
			ours = m.kind == QMP_RETURN && qmp_u64(m.body, "", &id) && id == g->sync_id;
			qmp_message_done(&m);
		}
		g->in.n = 0;
		if (ours) {
			g->sync_id = 0;
			return 0;
		}
	}
	return rc;
}

static int
read_answer(struct guestagent *g, const char *command, uint64_t *value, struct lc_err *e)
{
	struct qmp_message m;
	const char *why;
	int rc = qmp_parse((const char *)g->in.p, g->in.n, &m, NULL);

	g->in.n = 0;
	if (rc != 0)
		return lc_fail(e, LC_EPEER, 0, "guest agent: %s: not understood", command);
	if (m.kind == QMP_RETURN) {
		if (value != NULL) {
			*value = 0;
			(void)qmp_u64(m.body, "", value);
		}
	} else if (m.kind == QMP_ERROR) {
		why = qmp_str(m.body, "class");
		rc = why != NULL && strcmp(why, "CommandNotFound") == 0 ? LC_ENOTSUP : LC_EPEER;
		why = qmp_str(m.body, "desc");
		rc = lc_fail(e, (enum lc_code)rc, 0, "guest agent: %s: %.200s", command,
		             why == NULL ? "failed" : why);
	} else {
		rc = lc_fail(e, LC_EPEER, 0, "guest agent: %s: not understood", command);
	}
	qmp_message_done(&m);
	return rc;
}

int
guestagent_call(struct guestagent *g, const char *command, int64_t timeout_ms, uint64_t *value_out,
                struct lc_err *e)
{
	int64_t end_ns = clock_mono_ns() + timeout_ms * LC_NS_PER_MS;
	char text[160];
	int rc, n = snprintf(text, sizeof text, "{\"execute\":\"%s\"}\n", command);

	if (n < 0 || (size_t)n >= sizeof text)
		return lc_fail(e, LC_EINVAL, 0, "guest agent: %s", command);
	rc = send_text(g, text, e);
	if (rc == 0)
		rc = read_line(g, end_ns, e);
	return rc == 0 ? read_answer(g, command, value_out, e) : rc;
}

int
guestagent_ping(const char *socket_path, int64_t timeout_ms, struct lc_err *e)
{
	int64_t end_ns = clock_mono_ns() + timeout_ms * LC_NS_PER_MS;
	struct guestagent *g = NULL;
	int rc = guestagent_open(socket_path, &g, e);

	if (g == NULL)
		return rc;
	if (rc == 0)
		rc = guestagent_sync(g, timeout_ms, e);
	if (rc == 0)
		rc = guestagent_call(g, "guest-ping", (end_ns - clock_mono_ns()) / LC_NS_PER_MS,
		                     NULL, e);
	guestagent_close(g);
	return rc;
}

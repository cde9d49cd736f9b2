/*
 * The connection:   GREETING ──► NEGOTIATE ──► READY ──► (BROKEN) ──► CLOSING
 *                       └────────────┴── any failure ──┘
 *
 * One uv_poll for the socket, one timer for the deadline of whatever is
 * awaited: the greeting, or the oldest command that has no answer yet.  The socket is ours
 * and not a uv_pipe because descriptors are sent with commands: QEMU reads byte by byte and takes
 * the descriptor that came with the first byte of the command, so a command with a descriptor
 * begins its own sendmsg().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <assert.h>
#include <uv.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/link.h"
#include "agent/hypervisor/qmp.h"
#include "agent/hypervisor/qmp_batch.h"
#include "agent/hypervisor/qmp_memo.h"

#define READ_CHUNK 65536u
#define READS_PER_TURN 16 /* then the loop serves others */
#define SEND_IOVECS 64

enum qmp_state {
	QMP_ST_GREETING = 0,
	QMP_ST_NEGOTIATE,
	QMP_ST_READY,
	QMP_ST_BROKEN,
	QMP_ST_CLOSING
};

struct qmp_out { /* bytes on their way to QEMU */
	TAILQ_ENTRY(qmp_out) link;
	size_t n, sent;
	int fd;
	char *bytes;
};

struct qmp {
	uv_loop_t *loop;
	uv_poll_t poll;
	uv_timer_t timer;
	int handles; /* not closed yet */
	struct link link;
	enum qmp_state state;
	int64_t connect_ms, command_ms;
	int64_t since_ns; /* start of the wait that the deadline is about */
	qmp_event_cb *on_event;
	qmp_done_cb *on_lost;
	void *arg;
	qmp_done_cb *open_done; /* NULL once it was called */
	void *open_arg;
	void (*closed)(void *arg);
	void *closed_arg;
	struct lc_buf in;
	size_t scanned; /* bytes of `in` known to hold no newline */
	TAILQ_HEAD(, qmp_out) out;
	struct qmp_cmds waiting;
	TAILQ_HEAD(, qmp_batch) batches;
	struct qmp_batch *negotiate;
	struct qmp_memo *memo; /* what is said is put down there, or NULL */
	uint64_t next_id;
	unsigned version;
	struct lc_err broken; /* why, where a callback has yet to be told */
};

static void on_poll(uv_poll_t *h, int status, int events);
static void on_timer(uv_timer_t *t);

/* ---- batches ---- */

struct qmp_batch *
qmp_batch_new(struct qmp *q)
{
	struct qmp_batch *b = lc_alloc(sizeof *b);

	if (b != NULL) {
		b->q = q;
		b->timeout_ms = q->command_ms;
	}
	return b;
}

/* All answers are in, or none will come. */
static void
batch_finish(struct qmp_batch *b)
{
	struct lc_err err = LC_ERR_INIT;
	size_t i;

	assert(b->running && b->unanswered == 0);
	TAILQ_REMOVE(&b->q->batches, b, link);
	b->running = false;
	for (i = 0; i < b->ncmds && err.code == LC_OK; i++) {
		/* What may be refused must still have been answered. */
		if (!b->cmds[i].may_fail || b->cmds[i].reply.root == NULL)
			err = b->cmds[i].err;
	}
	b->done(b->arg, &err);
}

/* Fail every command that waits, then tell the batches.  A done may start another
 * batch only on a usable connection, so this ends. */
static void
fail_waiting(struct qmp *q, const struct lc_err *why)
{
	struct qmp_cmds late = TAILQ_HEAD_INITIALIZER(late);
	struct qmp_cmd *c;

	TAILQ_CONCAT(&late, &q->waiting, link);
	while ((c = TAILQ_FIRST(&late)) != NULL) {
		struct qmp_batch *b = c->batch;

		TAILQ_REMOVE(&late, c, link);
		c->waiting = false;
		(void)lc_fail(&c->err, why->code, 0, "%s: %s", c->name, why->msg);
		if (--b->unanswered == 0)
			batch_finish(b);
	}
}

/* ---- the socket ---- */

static void
arm_timer(struct qmp *q)
{
	const struct qmp_cmd *c = TAILQ_FIRST(&q->waiting);
	int64_t ms, left;

	if (q->state >= QMP_ST_BROKEN)
		return;
	if (q->broken.code != LC_OK) {
		(void)uv_timer_start(&q->timer, on_timer, 0, 0);
		return;
	}
	if (q->state != QMP_ST_GREETING && c == NULL) {
		(void)uv_timer_stop(&q->timer);
		return;
	}
	ms = q->state == QMP_ST_GREETING ? q->connect_ms : c->batch->timeout_ms;
	left = ms - (clock_mono_ns() - q->since_ns) / LC_NS_PER_MS;
	uv_update_time(q->loop);
	(void)uv_timer_start(&q->timer, on_timer, left < 0 ? 0 : (uint64_t)left + 1, 0);
}

static void
arm_poll(struct qmp *q)
{
	if (q->state < QMP_ST_BROKEN)
		(void)uv_poll_start(
		    &q->poll, UV_READABLE | (TAILQ_EMPTY(&q->out) ? 0 : UV_WRITABLE), on_poll);
}

/* The connection is of no use any more: from a callback of the loop only. */
static void
break_now(struct qmp *q, const struct lc_err *why)
{
	bool was_ready = q->state == QMP_ST_READY;
	struct lc_err err = *why;

	if (q->state >= QMP_ST_BROKEN)
		return;
	q->state = QMP_ST_BROKEN;
	(void)uv_poll_stop(&q->poll);
	(void)uv_timer_stop(&q->timer);
	fail_waiting(q, &err);
	if (q->state == QMP_ST_CLOSING)
		return;
	if (q->open_done != NULL) {
		qmp_done_cb *done = q->open_done;

		q->open_done = NULL;
		done(q->open_arg, &err);
	} else if (was_ready && q->on_lost != NULL) {
		q->on_lost(q->arg, &err);
	}
}

static struct qmp_out *
encode(struct qmp_cmd *c)
{
	struct qmp_out *o = lc_alloc(sizeof *o);

	if (o != NULL)
		o->bytes = qmp_cmd_encode(c, &o->n);
	if (o == NULL || o->bytes == NULL) {
		lc_free(o);
		return NULL;
	}
	o->fd = c->fd;
	c->fd = -1;
	return o;
}

/* Without memory there is no memo of it. */
static void
keep_line(struct qmp_cmd *c, const struct qmp_out *o)
{
	c->line = lc_alloc(o->n + 1);
	c->nline = o->n;
	if (c->line != NULL)
		memcpy(c->line, o->bytes, o->n);
}

static void
free_out(struct qmp_out *o)
{
	fd_close(&o->fd);
	lc_free(o->bytes);
	lc_free(o);
}

static size_t
gather(struct qmp *q, struct iovec *iov, int *fd)
{
	struct qmp_out *o;
	size_t n = 0;

	*fd = -1;
	TAILQ_FOREACH (o, &q->out, link) {
		if (o->fd >= 0) {
			if (n > 0)
				break;
			*fd = o->fd;
		}
		iov[n++] = (struct iovec){.iov_base = o->bytes + o->sent,
		                          .iov_len = o->n - o->sent};
		if (n == SEND_IOVECS)
			break;
	}
	return n;
}

static void
advance(struct qmp *q, size_t sent)
{
	struct qmp_out *o;

	while ((o = TAILQ_FIRST(&q->out)) != NULL) {
		size_t left = o->n - o->sent;

		fd_close(&o->fd); /* It went with the first byte. */
		if (sent < left) {
			o->sent += sent;
			return;
		}
		sent -= left;
		TAILQ_REMOVE(&q->out, o, link);
		free_out(o);
		if (sent == 0)
			return;
	}
}

/* Send what can be sent now.  Where the socket fails, q->broken says why. */
static void
flush(struct qmp *q)
{
	while (!TAILQ_EMPTY(&q->out)) {
		union {
			char buf[CMSG_SPACE(sizeof(int))];
			struct cmsghdr align;
		} control = {0};
		struct iovec iov[SEND_IOVECS];
		struct msghdr msg = {.msg_iov = iov};
		ssize_t n;
		int fd;

		msg.msg_iovlen = gather(q, iov, &fd);
		if (fd >= 0) {
			struct cmsghdr *c;

			msg.msg_control = control.buf;
			msg.msg_controllen = sizeof control.buf;
			c = CMSG_FIRSTHDR(&msg);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(sizeof fd);
			memcpy(CMSG_DATA(c), &fd, sizeof fd);
		}
		n = sendmsg(q->link.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0) {
			(void)lc_fail(&q->broken, LC_EPEER, errno, "monitor %s: send",
			              q->link.name);
			break;
		}
		advance(q, (size_t)n);
	}
	arm_poll(q);
}

static int
batch_start(struct qmp_batch *b, qmp_done_cb *done, void *arg, struct lc_err *e)
{
	struct qmp *q = b->q;
	TAILQ_HEAD(, qmp_out) lines = TAILQ_HEAD_INITIALIZER(lines);
	struct qmp_out *o;
	size_t i;

	assert(!b->running && b->unanswered == 0);
	if (b->survive)
		(void)qmp_batch_append(b, "closefd", qmp_pack("{s:s}", "fdname", QMP_KEEP_NAME),
		                       -1);
	for (i = 0; i < b->ncmds && !b->bad; i++) {
		b->cmds[i].id = q->next_id++;
		o = encode(&b->cmds[i]);
		if (o != NULL && q->memo != NULL && !b->cmds[i].unnoted)
			keep_line(&b->cmds[i], o);
		if (o == NULL)
			b->bad = true;
		else
			TAILQ_INSERT_TAIL(&lines, o, link);
	}
	if (b->bad || b->ncmds == 0) {
		while ((o = TAILQ_FIRST(&lines)) != NULL) {
			TAILQ_REMOVE(&lines, o, link);
			free_out(o);
		}
		return lc_fail(e, LC_ENOMEM, 0, "monitor %s: commands: out of memory",
		               q->link.name);
	}
	if (TAILQ_EMPTY(&q->waiting))
		q->since_ns = clock_mono_ns();
	for (i = 0; i < b->ncmds; i++) {
		b->cmds[i].waiting = true;
		TAILQ_INSERT_TAIL(&q->waiting, &b->cmds[i], link);
	}
	TAILQ_CONCAT(&q->out, &lines, link);
	TAILQ_INSERT_TAIL(&q->batches, b, link);
	b->unanswered = b->ncmds;
	b->running = true;
	b->done = done;
	b->arg = arg;
	flush(q);
	arm_timer(q);
	return 0;
}

int
qmp_batch_run(struct qmp_batch *b, qmp_done_cb *done, void *arg, struct lc_err *e)
{
	if (!qmp_usable(b->q))
		return lc_fail(e, LC_EPEER, 0, "monitor %s: the connection is gone",
		               b->q->link.name);
	return batch_start(b, done, arg, e);
}

void
qmp_record(struct qmp *q, struct qmp_memo *m)
{
	if (m != NULL)
		qmp_memo_clear(m);
	q->memo = m;
}

/* ---- what arrives ---- */

static void
on_negotiated(void *arg, const struct lc_err *err)
{
	struct qmp *q = arg;
	struct qmp_batch *b = q->negotiate;
	struct lc_err why = LC_ERR_INIT;

	q->negotiate = NULL;
	qmp_batch_free(b);
	if (q->state >= QMP_ST_BROKEN)
		return; /* Whoever broke it tells. */
	if (err->code != LC_OK) {
		(void)lc_fail(&why, err->code, 0, "monitor %s: %s", q->link.name, err->msg);
		break_now(q, &why);
		return;
	}
	q->state = QMP_ST_READY;
	if (q->open_done != NULL) {
		qmp_done_cb *done = q->open_done;

		q->open_done = NULL;
		done(q->open_arg, &why);
	}
}

static void
take_greeting(struct qmp *q, const struct qmp_message *m)
{
	uint64_t major = 0, minor = 0, micro = 0;

	(void)qmp_u64(m->body, "qemu.major", &major);
	(void)qmp_u64(m->body, "qemu.minor", &minor);
	(void)qmp_u64(m->body, "qemu.micro", &micro);
	if (major < 1000 && minor < 100 && micro < 100)
		q->version = (unsigned)(major * 10000 + minor * 100 + micro);
	q->state = QMP_ST_NEGOTIATE;
	q->negotiate = qmp_batch_new(q);
	if (q->negotiate == NULL) {
		(void)lc_fail(&q->broken, LC_ENOMEM, 0, "monitor %s: out of memory", q->link.name);
		return;
	}
	q->negotiate->timeout_ms = q->connect_ms;
	(void)qmp_batch_add(q->negotiate, "qmp_capabilities", qmp_none());
	if (batch_start(q->negotiate, on_negotiated, q, &q->broken) != 0) {
		qmp_batch_free(q->negotiate);
		q->negotiate = NULL;
	}
}

static enum lc_code
code_of_qemu(const struct qmp_message *m)
{
	const char *class = qmp_str(m->body, "class");

	if (class != NULL && strcmp(class, "DeviceNotFound") == 0)
		return LC_ENOENT;
	if (class != NULL && strcmp(class, "CommandNotFound") == 0)
		return LC_ENOTSUP;
	return LC_EPEER;
}

/* Before the greeting: it will not let us in, and says why.  That does not mean that the VM is off.
 */
static void
take_refusal(struct qmp *q, const struct qmp_message *m)
{
	enum lc_code code = code_of_qemu(m);

	(void)lc_fail(&q->broken, code == LC_EPEER ? LC_EBUSY : code, 0, "monitor %s: %s",
	              q->link.name, qmp_str(m->body, "desc"));
}

static void
answered(struct qmp *q, struct qmp_cmd *c)
{
	TAILQ_REMOVE(&q->waiting, c, link);
	c->waiting = false;
	c->answered_ns = clock_mono_ns();
	q->since_ns = c->answered_ns;
	if (--c->batch->unanswered == 0)
		batch_finish(c->batch);
}

/* Takes m, which is the line of n bytes at p. */
static void
take_answer(struct qmp *q, struct qmp_message *m, const char *p, size_t n)
{
	struct qmp_cmd *c;

	TAILQ_FOREACH (c, &q->waiting, link) {
		if (m->id != 0 && c->id == m->id)
			break;
	}
	if (c == NULL) { /* Late, or meant for a client before us. */
		qmp_message_done(m);
		return;
	}
	c->reply = *m;
	if (m->kind == QMP_ERROR)
		(void)lc_fail(&c->err, code_of_qemu(m), 0, "%s: %s", c->name,
		              qmp_str(m->body, "desc"));
	if (q->memo != NULL)
		qmp_memo_add(q->memo, c, p, n);
	answered(q, c);
}

/* Whether it is what was said to the same question before. */
static bool
take_recalled(struct qmp *q, const char *p, size_t n)
{
	struct qmp_cmd *c = TAILQ_FIRST(&q->waiting); /* QEMU answers in order */

	if (c == NULL || c->recalled == NULL || !qmp_said_again(c->recalled, c->id, p, n))
		return false;
	c->as_recalled = true;
	answered(q, c);
	return true;
}

/* A line that is no message: where nothing was understood yet, this is no QMP at all. */
static void
refuse_line(struct qmp *q, const char *p, size_t n, const struct lc_err *why)
{
	char shown[48];
	size_t i;

	if (q->state != QMP_ST_GREETING || why->code == LC_ENOMEM) {
		(void)lc_fail(&q->broken, why->code, 0, "monitor %s: %s", q->link.name, why->msg);
		return;
	}
	for (i = 0; i + 1 < sizeof shown && i < n; i++)
		shown[i] = (char)(p[i] >= ' ' && p[i] < 127 ? p[i] : '?');
	shown[i] = '\0';
	(void)lc_fail(&q->broken, LC_EINVAL, 0, "%s is no QMP monitor: it says \"%s\"%s",
	              q->link.name, shown,
	              strncmp(shown, "QEMU ", 5) == 0
	                  ? " (this is the monitor for humans; start QEMU with -qmp unix:...)"
	                  : "");
}

static void
take_line(struct qmp *q, const char *p, size_t n)
{
	struct qmp_message m;
	struct lc_err why = LC_ERR_INIT;

	if (n > 0 && p[n - 1] == '\r')
		n--;
	if (n == 0 || take_recalled(q, p, n))
		return;
	if (qmp_parse(p, n, &m, &why) != 0) {
		refuse_line(q, p, n, &why);
		return;
	}
	switch (m.kind) {
	case QMP_GREETING:
		if (q->state == QMP_ST_GREETING)
			take_greeting(q, &m);
		break;
	case QMP_EVENT:
		if (q->state == QMP_ST_READY && q->on_event != NULL)
			q->on_event(q->arg, m.event, m.body, m.at_us);
		break;
	case QMP_ERROR:
		if (q->state == QMP_ST_GREETING && q->link.explains) {
			take_refusal(q, &m);
			break;
		}
		take_answer(q, &m, p, n);
		return;
	case QMP_RETURN:
		take_answer(q, &m, p, n);
		return;
	}
	qmp_message_done(&m);
}

/* All whole lines of q->in. */
static void
take_lines(struct qmp *q)
{
	size_t from = 0;

	while (q->state < QMP_ST_BROKEN && q->broken.code == LC_OK) {
		char *start = (char *)q->in.p + from;
		char *nl = q->in.n > q->scanned
		               ? memchr(q->in.p + q->scanned, '\n', q->in.n - q->scanned)
		               : NULL;

		if (nl == NULL) {
			q->scanned = q->in.n;
			break;
		}
		from = (size_t)(nl - (char *)q->in.p) + 1;
		q->scanned = from;
		take_line(q, start, (size_t)(nl - start));
	}
	if (from > 0 && q->in.n >= from) {
		memmove(q->in.p, q->in.p + from, q->in.n - from);
		q->in.n -= from;
		q->scanned -= from;
	}
	if (q->in.n > QMP_LINE_MAX)
		(void)lc_fail(&q->broken, q->state == QMP_ST_GREETING ? LC_EINVAL : LC_EPEER, 0,
		              "monitor %s: a message of more than %u bytes", q->link.name,
		              QMP_LINE_MAX);
}

/* Take in what is there.  Where the connection is at its end, q->broken says why. */
static void
receive(struct qmp *q)
{
	int turn;

	for (turn = 0; turn < READS_PER_TURN; turn++) {
		ssize_t n;

		if (q->state >= QMP_ST_BROKEN || q->broken.code != LC_OK)
			break;
		if (lc_buf_reserve(&q->in, READ_CHUNK) != 0) {
			(void)lc_fail(&q->broken, LC_ENOMEM, 0, "monitor %s: out of memory",
			              q->link.name);
			break;
		}
		n = recv(q->link.fd, q->in.p + q->in.n, READ_CHUNK, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0) {
			(void)lc_fail(&q->broken, LC_EPEER, errno, "monitor %s", q->link.name);
		} else if (n == 0) {
			(void)lc_fail(&q->broken,
			              q->state == QMP_ST_GREETING ? LC_EINVAL : LC_EPEER, 0,
			              "monitor %s: closed by the other side%s", q->link.name,
			              q->in.n > 0 ? " in the middle of a message" : "");
		} else {
			q->in.n += (size_t)n;
			take_lines(q);
		}
	}
}

static void
on_poll(uv_poll_t *h, int status, int events)
{
	struct qmp *q = h->data;

	if (status < 0) /* libuv says EBADF for whatever poll() calls an error. */
		(void)lc_fail(&q->broken, LC_EPEER, 0, "monitor %s: the connection broke",
		              q->link.name);
	if ((events & UV_WRITABLE) != 0)
		flush(q);
	receive(q);
	if (q->broken.code != LC_OK)
		break_now(q, &q->broken);
	else
		arm_timer(q);
}

static void
no_greeting(const struct qmp *q, int64_t waited_ms, struct lc_err *why)
{
	if (q->in.n > 0) {
		(void)lc_fail(why, LC_EINVAL, 0,
		              "%s is no QMP monitor: no greeting in %" PRId64 " ms, only "
		              "%zu bytes without an end",
		              q->link.name, waited_ms, q->in.n);
		return;
	}
	(void)lc_fail(why, q->link.silence_code, 0, "%s %s (no greeting in %" PRId64 " ms): %s",
	              q->link.silence, q->link.name, waited_ms, q->link.advice);
}

static void
on_timer(uv_timer_t *t)
{
	struct qmp *q = t->data;
	const struct qmp_cmd *c;
	struct lc_err why = LC_ERR_INIT;
	int64_t waited_ms;

	/* libuv looks at timers first: where the loop was held up, the answer may be there
	 * already. */
	receive(q);
	if (q->state >= QMP_ST_BROKEN)
		return;
	c = TAILQ_FIRST(&q->waiting);
	waited_ms = (clock_mono_ns() - q->since_ns) / LC_NS_PER_MS;

	if (q->broken.code != LC_OK) {
		break_now(q, &q->broken);
	} else if (q->state == QMP_ST_GREETING && waited_ms >= q->connect_ms) {
		no_greeting(q, waited_ms, &why);
		break_now(q, &why);
	} else if (c != NULL && waited_ms >= c->batch->timeout_ms) {
		/* QEMU lets the CPUs go itself; past libvirtd there is no way to it. */
		(void)lc_fail(&why, LC_ETIMEDOUT, 0, "%s did not answer within %" PRId64 " ms%s",
		              q->link.other, waited_ms,
		              c->batch->pauses ? ", and the guest may stand still until it does"
		                               : "");
		fail_waiting(q, &why);
		arm_timer(q);
	} else {
		arm_timer(q);
	}
}

/* ---- life ---- */

int
qmp_open(struct uv_loop_s *loop, const struct qmp_opts *opts, qmp_done_cb *done, void *arg,
         struct qmp **out, struct lc_err *e)
{
	const struct link_address at = {
	    .socket = opts->socket, .uri = opts->libvirt, .domain = opts->domain};
	int64_t connect_ms = opts->connect_timeout_ms > 0 ? opts->connect_timeout_ms : 5000;
	struct link link;
	struct qmp *q;
	int rc = link_open(&at, connect_ms, &link, e);

	*out = NULL;
	if (rc != 0)
		return rc;
	q = lc_alloc(sizeof *q);
	if (q == NULL || uv_poll_init(loop, &q->poll, link.fd) != 0) {
		lc_free(q);
		fd_close(&link.fd);
		lc_free(link.name);
		return lc_fail(e, LC_ENOMEM, 0, "monitor: out of memory");
	}
	(void)uv_timer_init(loop, &q->timer);
	q->handles = 2;
	q->loop = loop;
	q->link = link;
	q->poll.data = q;
	q->timer.data = q;
	q->connect_ms = connect_ms;
	q->command_ms = opts->command_timeout_ms > 0 ? opts->command_timeout_ms : 10000;
	q->on_event = opts->on_event;
	q->on_lost = opts->on_lost;
	q->arg = opts->arg;
	q->open_done = done;
	q->open_arg = arg;
	q->since_ns = clock_mono_ns();
	TAILQ_INIT(&q->out);
	TAILQ_INIT(&q->waiting);
	TAILQ_INIT(&q->batches);
	/* A client that died may have left answers behind, so numbers must not begin at 1. */
	random_bytes(&q->next_id, sizeof q->next_id);
	q->next_id = (q->next_id >> 12) + 1;
	arm_poll(q);
	arm_timer(q);
	*out = q;
	return 0;
}

static void
on_handle_closed(uv_handle_t *h)
{
	struct qmp *q = h->data;
	struct lc_err why = LC_ERR_INIT;
	struct qmp_out *o;

	if (--q->handles > 0)
		return;
	(void)lc_fail(&why, LC_ECANCELED, 0, "the connection was closed");
	fail_waiting(q, &why);
	if (q->open_done != NULL)
		q->open_done(q->open_arg, &why);
	while ((o = TAILQ_FIRST(&q->out)) != NULL) {
		TAILQ_REMOVE(&q->out, o, link);
		free_out(o);
	}
	assert(TAILQ_EMPTY(&q->batches));
	fd_close(&q->link.fd);
	lc_buf_free(&q->in);
	lc_free(q->link.name);
	if (q->closed != NULL)
		q->closed(q->closed_arg);
	lc_free(q);
}

void
qmp_close(struct qmp *q, void (*closed)(void *arg), void *arg)
{
	assert(q->state != QMP_ST_CLOSING);
	q->state = QMP_ST_CLOSING;
	q->closed = closed;
	q->closed_arg = arg;
	uv_close((uv_handle_t *)&q->poll, on_handle_closed);
	uv_close((uv_handle_t *)&q->timer, on_handle_closed);
}

unsigned
qmp_version(const struct qmp *q)
{
	return q->version;
}

bool
qmp_usable(const struct qmp *q)
{
	return q->state == QMP_ST_READY && q->broken.code == LC_OK;
}

bool
qmp_carries_on(const struct qmp *q)
{
	return q->link.carries_on;
}

int
qmp_descriptor(const struct qmp *q)
{
	return q->link.fd;
}

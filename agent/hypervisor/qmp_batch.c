/* Batches of commands, before they are sent and after they were answered. */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/qmp_batch.h"
#include "agent/hypervisor/qmp_memo.h"
#include "agent/hypervisor/relay.h"

size_t
qmp_batch_append(struct qmp_batch *b, const char *command, struct json_t *args, int fd)
{
	struct qmp_cmd *c;

	assert(!b->running);
	if (args == NULL)
		b->bad = true;
	if (b->ncmds == b->cap) {
		size_t cap = b->cap == 0 ? 8 : b->cap * 2;

		c = lc_realloc(b->cmds, cap * sizeof *c);
		if (c == NULL) {
			b->bad = true;
			json_decref(args);
			return 0;
		}
		b->cmds = c;
		b->cap = cap;
	}
	c = &b->cmds[b->ncmds];
	memset(c, 0, sizeof *c);
	c->batch = b;
	(void)snprintf(c->name, sizeof c->name, "%s", command);
	c->args = args;
	c->fd = -1;
	if (fd >= 0) {
		c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (c->fd < 0)
			b->bad = true;
	}
	return b->ncmds++;
}

size_t
qmp_batch_add(struct qmp_batch *b, const char *command, struct json_t *args)
{
	return qmp_batch_append(b, command, args, -1);
}

size_t
qmp_batch_add_fd(struct qmp_batch *b, const char *command, struct json_t *args, int fd)
{
	return qmp_batch_append(b, command, args, fd);
}

void
qmp_batch_pause(struct qmp_batch *b)
{
	b->pauses = qmp_carries_on(b->q);
	(void)qmp_batch_append(b, qmp_carries_on(b->q) ? RELAY_PAUSE : "query-status", qmp_none(),
	                       -1);
}

/* Either way a command comes first, whose answer tells what was before the others. */
void
qmp_batch_survive(struct qmp_batch *b)
{
	if (qmp_carries_on(b->q)) {
		qmp_batch_pause(b);
		return;
	}
	if (!b->survive)
		(void)qmp_batch_append(b, "getfd", qmp_pack("{s:s}", "fdname", QMP_KEEP_NAME),
		                       qmp_descriptor(b->q));
	b->survive = true;
}

void
qmp_batch_timeout(struct qmp_batch *b, int64_t ms)
{
	b->timeout_ms = ms;
}

void
qmp_batch_may_fail(struct qmp_batch *b)
{
	if (b->ncmds > 0)
		b->cmds[b->ncmds - 1].may_fail = true;
}

void
qmp_batch_all_may_fail(struct qmp_batch *b)
{
	size_t i;

	for (i = 0; i < b->ncmds; i++)
		b->cmds[i].may_fail = true;
}

void
qmp_batch_unnoted(struct qmp_batch *b)
{
	if (b->ncmds > 0)
		b->cmds[b->ncmds - 1].unnoted = true;
}

void
qmp_batch_recall(struct qmp_batch *b, const struct qmp_memo *m)
{
	size_t i, n = qmp_memo_count(m);

	for (i = 0; i < n && !b->bad; i++) {
		const struct qmp_said *s = qmp_memo_at(m, i);
		size_t k = qmp_batch_append(b, s->name, qmp_none(), -1);

		if (b->bad)
			return;
		b->cmds[k].recalled = s;
		b->cmds[k].may_fail = true;
	}
}

const char *
qmp_batch_differs(const struct qmp_batch *b)
{
	size_t i;

	for (i = 0; i < b->ncmds; i++) {
		if (b->cmds[i].recalled != NULL && !b->cmds[i].as_recalled)
			return b->cmds[i].recalled->question;
	}
	return NULL;
}

void
qmp_batch_free(struct qmp_batch *b)
{
	size_t i;

	if (b == NULL)
		return;
	assert(!b->running);
	for (i = 0; i < b->ncmds; i++) {
		json_decref(b->cmds[i].args);
		lc_free(b->cmds[i].line);
		qmp_message_done(&b->cmds[i].reply);
		fd_close(&b->cmds[i].fd);
	}
	lc_free(b->cmds);
	lc_free(b);
}

size_t
qmp_batch_count(const struct qmp_batch *b)
{
	return b->ncmds;
}

const struct json_t *
qmp_reply(const struct qmp_batch *b, size_t i)
{
	return i < b->ncmds && b->cmds[i].err.code == LC_OK ? b->cmds[i].reply.body : NULL;
}

const struct lc_err *
qmp_reply_err(const struct qmp_batch *b, size_t i)
{
	static const struct lc_err none = LC_ERR_INIT;

	return i < b->ncmds ? &b->cmds[i].err : &none;
}

int64_t
qmp_reply_ns(const struct qmp_batch *b, size_t i)
{
	return i < b->ncmds ? b->cmds[i].answered_ns : 0;
}

static char *
encode_recalled(const struct qmp_cmd *c, size_t *n)
{
	const struct qmp_said *s = c->recalled;
	size_t max = s->nquestion + sizeof "18446744073709551615}\n";
	char *p = lc_alloc(max);

	if (p == NULL)
		return NULL;
	memcpy(p, s->question, s->nquestion);
	*n = s->nquestion +
	     (size_t)snprintf(p + s->nquestion, max - s->nquestion, "%" PRIu64 "}\n", c->id);
	return p;
}

char *
qmp_cmd_encode(const struct qmp_cmd *c, size_t *n)
{
	json_t *line;
	char *p = NULL;

	if (c->recalled != NULL)
		return encode_recalled(c, n);
	line = json_pack("{s:s, s:O, s:I}", "execute", c->name, "arguments", c->args, "id",
	                 (json_int_t)c->id);
	if (line == NULL)
		return NULL;
	*n = json_dumpb(line, NULL, 0, JSON_COMPACT) + 1;
	if (*n > 1)
		p = lc_alloc(*n);
	if (p != NULL) {
		(void)json_dumpb(line, p, *n - 1, JSON_COMPACT);
		p[*n - 1] = '\n';
	}
	json_decref(line);
	return p;
}

int
qmp_batch_text(const struct qmp_batch *b, struct lc_buf *out)
{
	size_t i, n = 0;
	int rc = b->bad ? LC_ENOMEM : 0;

	for (i = 0; i < b->ncmds && rc == 0; i++) {
		char *line = qmp_cmd_encode(&b->cmds[i], &n);

		rc = line == NULL ? LC_ENOMEM : lc_buf_append(out, line, n);
		lc_free(line);
	}
	return rc;
}

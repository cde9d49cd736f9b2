/**
 * qmp_batch: what a batch of commands is made of.  For qmp.c, which sends it; others see qmp.h.
 */
#ifndef LOCUM_QMP_BATCH_H
#define LOCUM_QMP_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "agent/hypervisor/qmp.h"

struct qmp_said;

#define QMP_KEEP_NAME "locum.keep" /* under which QEMU holds our end of the connection */

struct qmp_cmd {
	TAILQ_ENTRY(qmp_cmd) link; /* in qmp.waiting while unanswered */
	struct qmp_batch *batch;
	uint64_t id;
	char name[48];
	struct json_t *args;
	int fd;
	bool may_fail;
	bool waiting;
	bool unnoted; /* no memo puts it down */
	char *line;   /* of nline bytes, as it was sent, for a memo; else NULL */
	size_t nline;
	const struct qmp_said *recalled; /* of a memo: asked again ... */
	bool as_recalled;                /* ... and the same was said; there is no reply then */
	struct qmp_message reply;
	struct lc_err err;
	int64_t answered_ns;
};
TAILQ_HEAD(qmp_cmds, qmp_cmd);

struct qmp_batch {
	TAILQ_ENTRY(qmp_batch) link; /* in qmp.batches while it runs */
	struct qmp *q;
	struct qmp_cmd *cmds;
	size_t ncmds, cap;
	size_t unanswered;
	bool survive, running, bad;
	bool pauses; /* the CPUs, by way of another process */
	int64_t timeout_ms;
	qmp_done_cb *done;
	void *arg;
};

/** qmp_batch_append(b, command, args, fd): qmp_batch_add() with or without (-1) a descriptor. */
size_t qmp_batch_append(struct qmp_batch *b, const char *command, struct json_t *args, int fd);
/** qmp_cmd_encode(c, n): its line of *n bytes, newline included; free with lc_free().  NULL: out of
 * memory. */
char *qmp_cmd_encode(const struct qmp_cmd *c, size_t *n);

#endif

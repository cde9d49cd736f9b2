#include <stdio.h>
#include <string.h>

#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/launch_talk.h"
#include "agent/hypervisor/vmstate.h"

#define ANSWER_MS 1000

static const struct {
	const char *status, *word;
} words[] = {
    {"prelaunch", "paused"},        {"inmigrate", "incoming"},     {"postmigrate", "migrated"},
    {"finish-migrate", "migrated"}, {"guest-panicked", "crashed"},
};

const char *
vmstate_word(const char *status)
{
	size_t i;

	for (i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (strcmp(words[i].status, status) == 0)
			return words[i].word;
	}
	return status;
}

static int
query(struct talk *t, char state[VMSTATE_BYTES], struct lc_err *e)
{
	struct qmp_batch *b = talk_batch(t);
	const char *status;
	int rc;

	if (b == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "monitor: out of memory");
	(void)qmp_batch_add(b, "query-status", qmp_none());
	rc = talk_run(t, b, e);
	status = rc == 0 ? qmp_str(qmp_reply(b, 0), "status") : NULL;
	if (status != NULL)
		(void)snprintf(state, VMSTATE_BYTES, "%s", vmstate_word(status));
	else if (rc == 0)
		rc = lc_fail(e, LC_EPEER, 0, "the monitor does not tell the VM's state");
	qmp_batch_free(b);
	return rc;
}

void
vmstate_ask(const char *socket, char state[VMSTATE_BYTES], struct lc_err *why)
{
	struct talk *t = NULL;
	int rc = talk_open(socket, ANSWER_MS, &t, why);

	rc = rc != 0 ? rc : query(t, state, why);
	talk_close(t);
	if (rc == 0)
		return;
	(void)snprintf(state, VMSTATE_BYTES, "%s", rc == LC_ENOENT ? VMSTATE_OFF : VMSTATE_UNKNOWN);
	if (rc == LC_ENOENT)
		lc_err_clear(why);
}

void
vmstate_launched(const char *dir, char state[VMSTATE_BYTES], struct lc_err *why)
{
	char *socket = path_join(dir, LAUNCH_MONITOR_OWN);

	if (socket != NULL) {
		vmstate_ask(socket, state, why);
	} else {
		(void)snprintf(state, VMSTATE_BYTES, "%s", VMSTATE_UNKNOWN);
		(void)lc_fail(why, LC_ENOMEM, 0, "out of memory");
	}
	lc_free(socket);
}

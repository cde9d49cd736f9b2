#include <uv.h>

#include "store/base/memory.h"

#include "agent/hypervisor/launch_talk.h"

struct talk {
	uv_loop_t loop;
	struct qmp *qmp;
	bool answered, closed;
	struct lc_err err;
};

static void
on_answer(void *arg, const struct lc_err *err)
{
	struct talk *t = arg;

	t->err = *err;
	t->answered = true;
	uv_stop(&t->loop);
}

static void
on_closed(void *arg)
{
	struct talk *t = arg;

	t->closed = true;
}

/* Every call of qmp.h has a deadline, so this ends. */
static int
wait_answer(struct talk *t, struct lc_err *e)
{
	while (!t->answered)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	t->answered = false;
	return t->err.code == LC_OK ? 0 : lc_fail(e, t->err.code, 0, "%s", t->err.msg);
}

int
talk_open(const char *socket, int64_t timeout_ms, struct talk **out, struct lc_err *e)
{
	const struct qmp_opts o = {
	    .socket = socket, .connect_timeout_ms = timeout_ms, .command_timeout_ms = timeout_ms};

	return talk_open_opts(&o, out, e);
}

int
talk_open_opts(const struct qmp_opts *opts, struct talk **out, struct lc_err *e)
{
	struct talk *t = lc_alloc(sizeof *t);
	int rc;

	*out = NULL;
	if (t == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "monitor: out of memory");
	rc = uv_loop_init(&t->loop);
	if (rc != 0) {
		lc_free(t);
		return lc_fail(e, LC_EIO, 0, "monitor: %s", uv_strerror(rc));
	}
	rc = qmp_open(&t->loop, opts, on_answer, t, &t->qmp, e);
	if (rc == 0)
		rc = wait_answer(t, e);
	if (rc != 0) {
		talk_close(t);
		return rc;
	}
	*out = t;
	return 0;
}

struct qmp_batch *
talk_batch(struct talk *t)
{
	return qmp_batch_new(t->qmp);
}

int
talk_run(struct talk *t, struct qmp_batch *b, struct lc_err *e)
{
	int rc = qmp_batch_run(b, on_answer, t, e);

	return rc == 0 ? wait_answer(t, e) : rc;
}

int
talk_do(struct talk *t, const char *command, struct lc_err *e)
{
	struct qmp_batch *b = talk_batch(t);
	int rc;

	if (b == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "monitor: out of memory");
	(void)qmp_batch_add(b, command, qmp_pack("{}"));
	rc = talk_run(t, b, e);
	qmp_batch_free(b);
	return rc;
}

void
talk_close(struct talk *t)
{
	if (t == NULL)
		return;
	if (t->qmp != NULL) {
		qmp_close(t->qmp, on_closed, t);
		while (!t->closed)
			(void)uv_run(&t->loop, UV_RUN_ONCE);
	}
	(void)uv_run(&t->loop, UV_RUN_DEFAULT);
	(void)uv_loop_close(&t->loop);
	lc_free(t);
}

/*
 * The QEMU driver: the connection, the events and the engine.
 *
 * An operation:     START ──► (build ──► SENT ──► check)* ──► done
 *                               ▲                  │ QEMU_AGAIN
 *                               └──── WAITING ◄────┘
 */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/memory.h"

#include "agent/hypervisor/domainxml.h"
#include "agent/hypervisor/introspect.h"
#include "agent/hypervisor/qemu.h"

#define AGAIN_MS 20
#define BUDGET_MS 200

static void advance(struct qemu *q);
static void drop(struct qemu *q);
static void close_now(struct qemu *q);

/* ---- engine ---- */

static const struct qemu_step *
present(const struct qemu *q)
{
	const struct qemu_op *op = &q->op;

	while (op->script < op->nscripts && op->step >= op->scripts[op->script].n)
		return NULL;
	return op->script < op->nscripts ? &op->scripts[op->script].steps[op->step] : NULL;
}

/* To the step after this one, over the ends of scripts. */
static void
next(struct qemu *q)
{
	struct qemu_op *op = &q->op;

	op->step++;
	while (op->script < op->nscripts && op->step >= op->scripts[op->script].n) {
		op->script++;
		op->step = 0;
	}
	op->step_began_ns = 0;
}

static void
note(struct qemu *q, const struct lc_err *err)
{
	if (q->op.err.code == LC_OK)
		q->op.err = *err;
}

static void
op_end(struct qemu *q)
{
	struct qemu_op *op = &q->op;
	struct lc_err err = op->err;
	hv_done_cb *done = op->done;
	void *arg = op->arg;

	op->running = false;
	if (op->over != NULL)
		op->over(q, &err);
	/* What was lost meanwhile goes now; whoever is told of the end and asks for a release waits
	 * for that. */
	drop(q);
	if (done != NULL)
		done(arg, &err);
	if (q->close_wanted && !op->running)
		close_now(q);
}

/* The answers are in: judge them.  False: the step is to be repeated. */
static bool
judge(struct qemu *q, const struct qemu_step *s, const struct lc_err *sent)
{
	struct qemu_op *op = &q->op;
	struct lc_err err = *sent;
	int rc = 0;

	/* It refuses a command, so it is there: not to be taken for a VM that is gone. */
	if ((err.code == LC_EPEER || err.code == LC_ENOENT) && qmp_usable(q->qmp))
		err.code = LC_EIO;
	if (err.code == LC_OK && s->check != NULL)
		rc = s->check(q, op->b, &err);
	qmp_batch_free(op->b);
	op->b = NULL;
	if (rc == QEMU_AGAIN) {
		op->waiting = true;
		return false;
	}
	if (err.code != LC_OK)
		note(q, &err);
	next(q);
	return true;
}

static void
on_timer(uv_timer_t *t)
{
	struct qemu *q = t->data;

	q->op.waiting = false;
	advance(q);
}

static void
repeat_later(struct qemu *q)
{
	(void)uv_timer_start(&q->timer, on_timer, AGAIN_MS, 0);
}

static void
on_batch(void *arg, const struct lc_err *err)
{
	struct qemu *q = arg;

	if (judge(q, present(q), err))
		advance(q);
	else
		repeat_later(q);
}

static void
on_errand(void *arg, struct errand_result *result)
{
	struct qemu *q = arg;
	struct lc_err why = LC_ERR_INIT;

	if (present(q)->collect(q, result, &why) != 0)
		note(q, &why);
	next(q);
	advance(q);
}

/* True: it is under way. */
static bool
start_errand(struct qemu *q, const struct qemu_step *s)
{
	struct lc_err err = LC_ERR_INIT;
	int rc = s->errand(q, on_errand, &err);

	if (rc == 0)
		return true;
	if (rc != DRIVER_NOTHING)
		note(q, &err);
	next(q);
	return false;
}

/* Whether the step is to be done at all, after what went before. */
static bool
due(struct qemu *q, const struct qemu_step *s)
{
	struct lc_err err = LC_ERR_INIT;
	int fault;

	if (q->op.taking && !s->always && q->lost_why[0] != '\0')
		(void)lc_fail(&q->op.err, LC_ECONFLICT, 0, "%s", q->lost_why);
	if (q->op.taking && !s->always && q->canceled)
		(void)lc_fail(&q->op.err, LC_ECANCELED, 0, "interrupted");
	if (!s->always && q->op.err.code != LC_OK)
		return false;
	fault = q->op.step_began_ns == 0 ? failpoint(s->name) : 0;
	if (fault == 0)
		return true;
	errno = fault;
	(void)lc_fail_errno(&err, "%s", s->name);
	note(q, &err);
	return false;
}

static void
advance(struct qemu *q)
{
	struct qemu_op *op = &q->op;
	const struct qemu_step *s;

	while ((s = present(q)) != NULL) {
		struct lc_err err = LC_ERR_INIT;

		if (!due(q, s)) {
			next(q);
			continue;
		}
		if (op->step_began_ns == 0)
			op->step_began_ns = clock_mono_ns();
		if (s->errand != NULL) {
			if (start_errand(q, s))
				return;
			continue;
		}
		op->b = qmp_batch_new(q->qmp);
		if (op->b == NULL)
			(void)lc_fail(&err, LC_ENOMEM, 0, "out of memory");
		else if (s->build(q, op->b, &err) == 0 && qmp_batch_count(op->b) > 0 &&
		         qmp_batch_run(op->b, on_batch, q, &err) == 0) {
			if (s->sent != NULL)
				(void)failpoint(s->sent);
			return;
		}
		if (!judge(q, s, &err)) {
			repeat_later(q);
			return;
		}
	}
	op_end(q);
}

int
qemu_run(struct qemu *q, const struct qemu_script *scripts, size_t n,
         void (*over)(struct qemu *q, const struct lc_err *err), hv_done_cb *done, void *arg,
         struct lc_err *e)
{
	assert(!q->op.running);
	if (q->qmp == NULL)
		return lc_fail(e, LC_EINVAL, 0, "not connected");
	q->op = (struct qemu_op){.scripts = scripts,
	                         .nscripts = n,
	                         .running = true,
	                         .over = over,
	                         .done = done,
	                         .arg = arg};
	(void)uv_timer_start(&q->timer, on_timer, 0, 0);
	return 0;
}

void
qemu_poke(struct qemu *q)
{
	if (q->op.running && q->op.waiting)
		(void)uv_timer_start(&q->timer, on_timer, 0, 0);
}

int64_t
qemu_waited_ms(const struct qemu *q)
{
	return (clock_mono_ns() - q->op.step_began_ns) / LC_NS_PER_MS;
}

/* ---- events ---- */

void
qemu_snapshot_lost(struct qemu *q, const char *why)
{
	if (q->lost_why[0] == '\0')
		(void)snprintf(q->lost_why, sizeof q->lost_why, "%s", why);
	if (!q->alive || q->lost)
		return;
	q->lost = true;
	drop(q);
	q->base.event(q->base.event_arg, HV_EV_SNAPSHOT_LOST, q->lost_why);
}

static void
on_migration(struct qemu *q, const struct json_t *data)
{
	static const char *const begun[] = {"setup",          "active", "postcopy-active",
	                                    "pre-switchover", "device", "wait-unplug",
	                                    "completed"};
	const char *status = qmp_str(data, "status");
	size_t i;

	for (i = 0; status != NULL && i < sizeof begun / sizeof begun[0]; i++) {
		if (strcmp(status, begun[i]) == 0)
			qemu_snapshot_lost(q, "a live migration of the VM began");
	}
}

static void
on_device_deleted(struct qemu *q, const struct json_t *data)
{
	const char *path = qmp_str(data, "path");
	char why[160];
	size_t i;

	for (i = 0; path != NULL && i < q->base.vm.ndisks; i++) {
		if (!q->disks[i].in || strcmp(q->disks[i].qdev, path) != 0)
			continue;
		(void)snprintf(why, sizeof why, "disk %s was unplugged", q->base.vm.disks[i].name);
		qemu_snapshot_lost(q, why);
	}
}

static void
on_event(void *arg, const char *name, const struct json_t *data, int64_t at_us)
{
	struct qemu *q = arg;

	if (strcmp(name, "STOP") == 0) {
		q->stop_us = at_us;
		q->stop_seen_ns = clock_mono_ns();
	} else if (strcmp(name, "RESUME") == 0 || strcmp(name, "WAKEUP") == 0) {
		q->resume_us = at_us;
	} else if (strcmp(name, "MIGRATION") == 0) {
		on_migration(q, data);
	} else if (strcmp(name, "DEVICE_DELETED") == 0) {
		on_device_deleted(q, data);
	} else if (strcmp(name, "BLOCK_EXPORT_DELETED") == 0) {
		if (q->alive && !q->op.running && qemu_ours(q, qmp_str(data, "id")))
			qemu_snapshot_lost(q, "somebody removed the snapshot's export");
		qemu_poke(q);
	} else if (strcmp(name, "BLOCK_IO_ERROR") == 0) {
		if (qemu_ours(q, qmp_str(data, "node-name")))
			qemu_snapshot_lost(q, "input/output error in the scratch");
	}
}

static void
on_lost(void *arg, const struct lc_err *err)
{
	struct qemu *q = arg;

	q->lost = true;
	q->alive = false;
	q->base.event(q->base.event_arg, HV_EV_GONE, err->msg);
}

/* ---- budget ---- */

/* A full filesystem stops guests whose images are on it; so the snapshot goes before the last of it
 * does. */
static uint64_t
reserve_of(const struct statvfs *v)
{
	uint64_t all = (uint64_t)v->f_blocks * v->f_frsize / 50, most = UINT64_C(1) << 30;

	return all < most ? all : most;
}

static void
on_budget(uv_timer_t *t)
{
	struct qemu *q = t->data;
	uint64_t used = qemu_scratch_used(&q->base);
	struct statvfs v;
	char why[160];

	if (q->t.scratch_max > 0 && used > q->t.scratch_max) {
		(void)snprintf(why, sizeof why,
		               "the snapshot needs more scratch than the %" PRIu64
		               " bytes it may have",
		               q->t.scratch_max);
		qemu_snapshot_lost(q, why);
	} else if (used > 0 && statvfs(q->t.scratch_dir, &v) == 0 &&
	           (uint64_t)v.f_bavail * v.f_frsize < reserve_of(&v)) {
		(void)snprintf(why, sizeof why, "the filesystem of the scratch is nearly full");
		qemu_snapshot_lost(q, why);
	}
}

void
qemu_budget_start(struct qemu *q)
{
	(void)uv_timer_start(&q->budget, on_budget, BUDGET_MS, BUDGET_MS);
}

/* ---- prepare ---- */

static void connect_now(struct qemu *q);

static void
prepare_failed(struct qemu *q, const struct lc_err *err)
{
	note(q, err);
	op_end(q);
}

static void
begin_scripts(struct qemu *q)
{
	if (q->op.scripts == q->prepare)
		qemu_glance_record(q);
}

/* Whoever listens on the monitor is QEMU. */
static void
find_owner(struct qemu *q)
{
	struct ucred c;
	socklen_t n = sizeof c;

	q->base.vm.uid = q->base.vm.gid = 0;
	q->pid = 0;
	if (getsockopt(qmp_descriptor(q->qmp), SOL_SOCKET, SO_PEERCRED, &c, &n) != 0)
		return;
	q->base.vm.uid = c.uid;
	q->base.vm.gid = c.gid;
	q->pid = c.pid;
}

static void
on_connected(void *arg, const struct lc_err *err)
{
	struct qemu *q = arg;
	struct lc_err why = LC_ERR_INIT;
	unsigned v;

	if (err->code != LC_OK) {
		prepare_failed(q, err);
		return;
	}
	v = qmp_version(q->qmp);
	if (v < QEMU_MIN_VERSION && (v > 0 || q->t.qmp != NULL)) { /* 0: it is off */
		(void)lc_fail(&why, LC_ENOTSUP, 0,
		              "QEMU %u.%u.%u is too old, 7.1 is the oldest that will do", v / 10000,
		              v / 100 % 100, v % 100);
		prepare_failed(q, &why);
		return;
	}
	find_owner(q);
	begin_scripts(q);
	advance(q);
}

static void
on_old_closed(void *arg)
{
	struct qemu *q = arg;

	q->qmp = NULL;
	connect_now(q);
}

static int
connect_start(struct qemu *q, struct lc_err *e)
{
	struct qmp_opts opts = {.socket = q->t.qmp,
	                        .libvirt = q->t.libvirt,
	                        .domain = q->t.domain,
	                        .connect_timeout_ms = q->t.connect_timeout_ms,
	                        .command_timeout_ms = q->t.command_timeout_ms,
	                        .on_event = on_event,
	                        .on_lost = on_lost,
	                        .arg = q};

	return qmp_open(q->loop, &opts, on_connected, q, &q->qmp, e);
}

static void
connect_now(struct qemu *q)
{
	struct lc_err err = LC_ERR_INIT;

	if (connect_start(q, &err) != 0)
		prepare_failed(q, &err);
}

static void
prepared(struct qemu *q, const struct lc_err *err)
{
	(void)err;
	if (q->qmp != NULL)
		qmp_record(q->qmp, NULL);
}

/* As qemu_run(), and connect before. */
static int
connect_and_run(struct qemu *q, const struct qemu_script *scripts, size_t n, hv_done_cb *done,
                void *arg, struct lc_err *e)
{
	int rc = 0;

	assert(!q->op.running);
	if (q->qmp != NULL && qmp_usable(q->qmp)) {
		rc = qemu_run(q, scripts, n, prepared, done, arg, e);
		begin_scripts(q);
		return rc;
	}
	if (q->qmp != NULL)
		qmp_close(q->qmp, on_old_closed, q);
	else
		rc = connect_start(q, e);
	if (rc != 0)
		return rc;
	q->op = (struct qemu_op){.scripts = scripts,
	                         .nscripts = n,
	                         .running = true,
	                         .over = prepared,
	                         .done = done,
	                         .arg = arg};
	return 0;
}

static int
qemu_prepare(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct qemu *q = (struct qemu *)d;

	qemu_glance_forget(q);
	q->prepare[0] = qemu_domain_script;
	q->prepare[1] = qemu_tidy_script;
	q->prepare[2] = qemu_disks_script;
	q->prepare[3] = qemu_introspect_script;
	q->lost_why[0] = '\0';
	q->lost = false;
	return connect_and_run(q, q->prepare, 4, done, arg, e);
}

static int
qemu_glance(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct qemu *q = (struct qemu *)d;

	q->same = false;
	if (!qemu_glance_can(q))
		return DRIVER_NOTHING;
	return connect_and_run(q, &qemu_glance_script, 1, done, arg, e);
}

static bool
qemu_same(const struct driver *d)
{
	return ((const struct qemu *)d)->same;
}

/* ---- cancel, release, end ---- */

static void
qemu_cancel(struct driver *d)
{
	struct qemu *q = (struct qemu *)d;

	q->canceled = true;
	if (q->op.taking)
		qemu_poke(q);
}

static void
released(struct qemu *q, const struct lc_err *err)
{
	(void)err;
	q->alive = false;
	(void)uv_timer_stop(&q->budget);
}

static void
dropped(void *arg, const struct lc_err *err)
{
	struct qemu *q = arg;
	hv_done_cb *done = q->release_done;

	q->dropped = true;
	q->drop_err = *err;
	q->release_done = NULL;
	if (done != NULL)
		done(q->release_arg, err);
}

/* A snapshot that was lost is given back at once and not when the caller comes to it: a migration
 * that has begun fails if it is still there at its end, and a full scratch hurts others. */
static void
drop(struct qemu *q)
{
	if (!q->alive || !q->lost || q->op.running)
		return;
	q->alive = false;
	q->drop[0] = qemu_drop_script;
	q->drop[1] = qemu_tidy_script;
	if (qemu_run(q, q->drop, 2, released, dropped, q, NULL) != 0)
		q->alive = true;
}

static int
qemu_release(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct qemu *q = (struct qemu *)d;

	if (q->op.running) { /* It is being dropped. */
		q->release_done = done;
		q->release_arg = arg;
		return 0;
	}
	q->alive = false; /* What goes away now goes because of us. */
	if (q->dropped && q->drop_err.code == LC_OK)
		return DRIVER_NOTHING;
	return qemu_run(q, &qemu_tidy_script, 1, released, done, arg, e);
}

static int
qemu_end(struct driver *d, enum hv_end how, hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct qemu *q = (struct qemu *)d;
	const struct qemu_script *s = &qemu_bitmap_forget_script;

	if (how == HV_COMMIT)
		s = &qemu_bitmap_commit_script;
	if (how == HV_ROLLBACK)
		s = &qemu_bitmap_rollback_script;
	return qemu_run(q, s, 1, NULL, done, arg, e);
}

static int
qemu_forget(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	return qemu_run((struct qemu *)d, &qemu_forget_script, 1, NULL, done, arg, e);
}

/* ---- life ---- */

static void
part_closed(struct qemu *q)
{
	if (--q->handles > 0)
		return;
	qemu_look_forget(q);
	qmp_list_free(q->listed);
	introspect_free(q->introspect);
	domain_xml_free(q->domain);
	qemu_scratch_close(q);
	if (q->closed != NULL)
		q->closed(q->closed_arg);
	lc_free(q);
}

static void
on_handle_closed(uv_handle_t *h)
{
	part_closed(h->data);
}

static void
on_qmp_closed(void *arg)
{
	struct qemu *q = arg;

	part_closed(q);
}

static void
close_now(struct qemu *q)
{
	q->close_wanted = false;
	guard_free(q->guard);
	guard_free(q->keeper);
	q->handles = q->qmp == NULL ? 2 : 3;
	uv_close((uv_handle_t *)&q->timer, on_handle_closed);
	uv_close((uv_handle_t *)&q->budget, on_handle_closed);
	qemu_look_forget(q); /* before its connection goes */
	if (q->qmp != NULL)
		qmp_close(q->qmp, on_qmp_closed, q);
}

static void
qemu_close(struct driver *d, void (*closed)(void *arg), void *arg)
{
	struct qemu *q = (struct qemu *)d;

	q->alive = false;
	q->closed = closed;
	q->closed_arg = arg;
	q->close_wanted = true;
	if (!q->op.running) /* else a lost snapshot is being given back */
		close_now(q);
}

static const struct driver_ops qemu_ops = {
    .prepare = qemu_prepare,
    .glance = qemu_glance,
    .same = qemu_same,
    .note = qemu_note,
    .stage = qemu_stage,
    .cancel = qemu_cancel,
    .still_valid = qemu_still_valid,
    .release = qemu_release,
    .end = qemu_end,
    .forget = qemu_forget,
    .quiet = qemu_bitmap_quiet,
    .scratch_used = qemu_scratch_used,
    .close = qemu_close,
};

static int
check_target(const struct hv_target *t, struct lc_err *e)
{
	size_t i, n = strlen(t->tag);

	for (i = 0; i < n; i++) {
		if (!isxdigit((unsigned char)t->tag[i]))
			return lc_fail(e, LC_EINVAL, 0, "tag \"%s\": not hex digits", t->tag);
	}
	if (n < 8 || n > 16)
		return lc_fail(e, LC_EINVAL, 0, "tag \"%s\": not 8 to 16 digits", t->tag);
	return 0;
}

int
driver_qemu_open(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out,
                 struct lc_err *e)
{
	struct qemu *q;
	size_t i;

	*out = NULL;
	if (check_target(target, e) != 0)
		return LC_EINVAL;
	q = lc_alloc(sizeof *q);
	if (q == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	q->base.ops = &qemu_ops;
	q->loop = loop;
	q->t = *target;
	(void)snprintf(q->prefix, sizeof q->prefix, "locum.%s.", target->tag);
	for (i = 0; i < HV_DISKS_MAX; i++)
		q->disks[i].scratch = -1;
	if (qemu_socket_name(q, e) != 0) {
		lc_free(q);
		return LC_EINVAL;
	}
	(void)uv_timer_init(loop, &q->timer);
	(void)uv_timer_init(loop, &q->budget);
	q->timer.data = q;
	q->budget.data = q;
	*out = &q->base;
	return 0;
}

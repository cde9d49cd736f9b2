/*
 * One VM's life as the caller sees it, and a take of several VMs:
 *
 *   NEW ──prepare──► READY ──take──► TAKEN ──release──► RELEASED ──end──► READY
 *
 * A failed prepare goes back to NEW, a failed take to READY; release and end always go forward:
 * what they could not do is reported, and done by the next prepare.
 *
 * A take is the driver's stages (driver.h), and around the instant the guests' filesystems:
 *
 *   ARM ─► QUIESCE ─► STOP ─► CUT ─► GO ─► REVIVE ─► SERVE      any failure: GO, REVIVE, UNDO
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/memory.h"

#include "agent/hypervisor/driver.h"
#include "agent/hypervisor/freezer.h"
#include "agent/hypervisor/hypervisor.h"

#define ANSWER_MS 5000
#define FREEZE_MS 10000

enum hv_state { HV_ST_NEW = 0, HV_ST_READY, HV_ST_TAKEN, HV_ST_RELEASED };
enum hv_call {
	HV_CALL_NONE = 0,
	HV_CALL_GLANCE,
	HV_CALL_PREPARE,
	HV_CALL_TAKE,
	HV_CALL_VALID,
	HV_CALL_RELEASE,
	HV_CALL_END,
	HV_CALL_FORGET
};

struct hv {
	uv_loop_t *loop;
	struct driver *driver;
	char vm[HV_NAME_MAX];
	struct hv_target t; /* its strings are borrowed */
	char mark[256];     /* of a freeze, see freezer.h; "" where there is none */
	enum hv_state state;
	enum hv_call call; /* in flight */
	bool held;         /* a release failed: the next one tries again */
	bool same;         /* at the last glance */
	uv_timer_t soon;   /* ends a call that had nothing to do */
	hv_event_cb *on_event;
	void *event_arg;
	hv_done_cb *done;
	void *arg;
	void (*closed)(void *arg);
	void *closed_arg;
	int closing; /* parts not closed yet */
};

struct member { /* one VM of a take */
	struct take *take;
	struct hv *hv;
	struct driver_take dt;
	bool armed, stopped;
	struct freezer *freezer; /* its filesystems stand still */
	bool frozen;             /* for the snapshot, as is: */
	char freeze[160];
};

enum take_stage {
	TAKE_OVER = 0,
	TAKE_ARM,
	TAKE_QUIESCE,
	TAKE_STOP,
	TAKE_CUT,
	TAKE_GO,
	TAKE_REVIVE,
	TAKE_SERVE,
	TAKE_UNDO,
};

struct take {
	uv_timer_t soon; /* the first step, so that done never comes from inside hv_take() */
	struct hv_take *set;
	size_t n;
	struct member *members;
	enum take_stage stage;
	size_t pending;
	struct lc_err err;
	hv_done_cb *done;
	void *arg;
};

static void
on_driver_event(void *arg, enum hv_event ev, const char *why)
{
	struct hv *hv = arg;

	if (hv->on_event != NULL)
		hv->on_event(hv->event_arg, hv, ev, why);
}

int
hv_open(struct uv_loop_s *loop, const struct hv_target *target, hv_event_cb *on_event, void *arg,
        struct hv **out, struct lc_err *e)
{
	struct hv *hv = lc_alloc(sizeof *hv);
	int rc;

	*out = NULL;
	if (hv == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", target->vm);
	hv->loop = loop;
	hv->on_event = on_event;
	hv->event_arg = arg;
	(void)snprintf(hv->vm, sizeof hv->vm, "%s", target->vm);
	hv->t = *target;
	if (target->freeze != HV_FREEZE_NEVER &&
	    (target->guest_agent != NULL || target->libvirt != NULL))
		(void)snprintf(hv->mark, sizeof hv->mark, "%s/frozen.%s", target->run_dir, hv->vm);
	if (hv_target_live(target))
		rc = driver_qemu_open(loop, target, &hv->driver, e);
	else
		rc = driver_image_open(loop, target, &hv->driver, e);
	if (rc != 0) {
		lc_free(hv);
		lc_wrap(e, "%s", target->vm);
		return rc;
	}
	hv->driver->event = on_driver_event;
	hv->driver->event_arg = hv;
	(void)uv_timer_init(loop, &hv->soon);
	hv->soon.data = hv;
	*out = hv;
	return 0;
}

const struct hv_vm *
hv_vm(const struct hv *hv)
{
	return &hv->driver->vm;
}

int
hv_exclude(struct hv *hv, const char *disk, struct lc_err *e)
{
	const struct hv_vm *vm = &hv->driver->vm;
	size_t i;

	for (i = 0; i < vm->ndisks; i++) {
		if (strcmp(vm->disks[i].name, disk) == 0) {
			hv->driver->excluded[i] = true;
			return 0;
		}
	}
	return lc_fail(e, LC_ENOENT, 0, "%s: it has no disk %s", hv->vm, disk);
}

/* ---- single calls ---- */

static void
on_call_done(void *arg, const struct lc_err *err)
{
	struct hv *hv = arg;
	enum hv_call call = hv->call;
	struct lc_err out = *err;

	hv->call = HV_CALL_NONE;
	switch (call) {
	case HV_CALL_PREPARE:
		hv->state = err->code == LC_OK ? HV_ST_READY : HV_ST_NEW;
		break;
	case HV_CALL_RELEASE:
		hv->held = err->code != LC_OK;
		if (hv->state == HV_ST_TAKEN)
			hv->state = HV_ST_RELEASED;
		break;
	case HV_CALL_END:
		hv->state = HV_ST_READY;
		break;
	case HV_CALL_GLANCE:
	case HV_CALL_VALID:
	case HV_CALL_FORGET:
		break;
	case HV_CALL_NONE:
	case HV_CALL_TAKE:
		assert(false);
	}
	lc_wrap(&out, "%s", hv->vm);
	hv->done(hv->arg, &out);
}

static void
on_soon(uv_timer_t *t)
{
	struct lc_err ok = LC_ERR_INIT;

	on_call_done(t->data, &ok);
}

static int
begin(struct hv *hv, enum hv_call call, bool allowed, hv_done_cb *done, void *arg, struct lc_err *e)
{
	assert(hv->call == HV_CALL_NONE && hv->closing == 0);
	if (!allowed)
		return lc_fail(e, LC_EINVAL, 0, "%s: hypervisor call %d in state %d", hv->vm,
		               (int)call, (int)hv->state);
	hv->call = call;
	hv->done = done;
	hv->arg = arg;
	return 0;
}

/* rc is what the driver said when it was started. */
static int
started(struct hv *hv, int rc, struct lc_err *e)
{
	if (rc == DRIVER_NOTHING)
		rc = uv_timer_start(&hv->soon, on_soon, 0, 0);
	if (rc != 0) {
		hv->call = HV_CALL_NONE;
		lc_wrap(e, "%s", hv->vm);
	}
	return rc;
}

/* libvirt's own, where it has one. */
static const char *
hv_agent_socket(const struct hv *hv)
{
	const char *theirs = hv->driver->vm.agent_socket;

	if (hv->t.guest_agent != NULL || hv->t.libvirt == NULL || theirs[0] == '\0')
		return hv->t.guest_agent;
	return theirs;
}

static struct freezer_opts
freezer_opts_of(const struct hv *hv)
{
	const struct hv_target *t = &hv->t;

	return (struct freezer_opts){
	    .socket = hv_agent_socket(hv),
	    .libvirt = t->guest_agent == NULL ? t->libvirt : NULL,
	    .domain = t->domain,
	    .mark = hv->mark,
	    .answer_ms = t->connect_timeout_ms > 0 ? t->connect_timeout_ms : ANSWER_MS,
	    .limit_ms = t->freeze_timeout_ms > 0 ? t->freeze_timeout_ms : FREEZE_MS};
}

static void
on_glanced(void *arg, const struct lc_err *err)
{
	struct hv *hv = arg;

	hv->same = err->code == LC_OK && hv->driver->ops->same(hv->driver);
	on_call_done(hv, err);
}

/* A guest that was left frozen writes nothing, and is to be thawed. */
int
hv_glance(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e)
{
	int rc = begin(hv, HV_CALL_GLANCE, hv->state == HV_ST_NEW, done, arg, e);

	hv->same = false;
	if (rc != 0)
		return rc;
	if (hv->driver->ops->glance == NULL || hv->t.memo == NULL ||
	    (hv->mark[0] != '\0' && freezer_left(hv->mark)))
		return started(hv, DRIVER_NOTHING, e);
	return started(hv, hv->driver->ops->glance(hv->driver, on_glanced, hv, e), e);
}

bool
hv_same(const struct hv *hv)
{
	return hv->same;
}

bool
hv_note(struct hv *hv)
{
	return hv->state == HV_ST_READY && hv->driver->ops->note != NULL &&
	       hv->driver->ops->note(hv->driver);
}

static int
prepare(struct hv *hv, struct lc_err *e)
{
	return started(hv, hv->driver->ops->prepare(hv->driver, on_call_done, hv, e), e);
}

static void
on_recovered(void *arg, const struct freezer_result *r)
{
	struct hv *hv = arg;
	struct lc_err e = LC_ERR_INIT;

	if (r->err.code == LC_OK && r->held_ns > 0)
		log_warn("%s: its filesystems had been left frozen, and were thawed", hv->vm);
	else if (r->stuck)
		log_error("%s: its filesystems have been left frozen, and %s: %s", hv->vm,
		          r->err.msg, r->hint);
	if (prepare(hv, &e) != 0) {
		hv->state = HV_ST_NEW;
		hv->done(hv->arg, &e);
	}
}

int
hv_prepare(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e)
{
	const struct freezer_opts o = freezer_opts_of(hv);
	int rc = begin(hv, HV_CALL_PREPARE, hv->state == HV_ST_NEW || hv->state == HV_ST_READY,
	               done, arg, e);

	if (rc != 0)
		return rc;
	memset(hv->driver->excluded, 0, sizeof hv->driver->excluded);
	if (hv->mark[0] != '\0' && freezer_left(hv->mark) &&
	    freezer_recover(hv->loop, &o, on_recovered, hv, NULL) == 0)
		return 0;
	return prepare(hv, e);
}

void
hv_cancel(struct hv *hv)
{
	if (hv->closing == 0 && hv->driver->ops->cancel != NULL)
		hv->driver->ops->cancel(hv->driver);
}

int
hv_still_valid(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e)
{
	int rc = begin(hv, HV_CALL_VALID, hv->state == HV_ST_TAKEN, done, arg, e);

	if (rc != 0)
		return rc;
	return started(hv, hv->driver->ops->still_valid(hv->driver, on_call_done, hv, e), e);
}

int
hv_release(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e)
{
	int rc = begin(hv, HV_CALL_RELEASE, true, done, arg, e);

	if (rc != 0)
		return rc;
	if (hv->state != HV_ST_TAKEN && !hv->held)
		return started(hv, DRIVER_NOTHING, e);
	return started(hv, hv->driver->ops->release(hv->driver, on_call_done, hv, e), e);
}

int
hv_end(struct hv *hv, enum hv_end how, hv_done_cb *done, void *arg, struct lc_err *e)
{
	int rc = begin(hv, HV_CALL_END, hv->state == HV_ST_RELEASED, done, arg, e);

	if (rc != 0)
		return rc;
	return started(hv, hv->driver->ops->end(hv->driver, how, on_call_done, hv, e), e);
}

int
hv_forget(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e)
{
	int rc = begin(hv, HV_CALL_FORGET, hv->state == HV_ST_READY, done, arg, e);

	if (rc != 0)
		return rc;
	if (hv->driver->ops->forget == NULL)
		return started(hv, DRIVER_NOTHING, e);
	return started(hv, hv->driver->ops->forget(hv->driver, on_call_done, hv, e), e);
}

bool
hv_quiet(const struct hv *hv, const uint8_t since[HV_ID_SIZE])
{
	return hv->state == HV_ST_READY && hv->driver->ops->quiet != NULL &&
	       hv->driver->ops->quiet(hv->driver, since);
}

uint64_t
hv_scratch_used(const struct hv *hv)
{
	return hv->driver->ops->scratch_used == NULL ? 0
	                                             : hv->driver->ops->scratch_used(hv->driver);
}

/* ---- take ---- */

static void take_stage(struct take *t);

static void
on_take_closed(uv_handle_t *h)
{
	struct take *t = h->data;
	size_t i;

	for (i = 0; i < t->n; i++) {
		const struct member *m = &t->members[i];
		struct hv_snapshot *s = &m->hv->driver->snapshot;

		m->hv->call = HV_CALL_NONE;
		m->hv->state = t->err.code == LC_OK ? HV_ST_TAKEN : HV_ST_READY;
		s->frozen = m->frozen;
		memcpy(s->freeze, m->freeze, sizeof s->freeze);
		t->set[i].snapshot = t->err.code == LC_OK ? s : NULL;
	}
	t->done(t->arg, &t->err);
	lc_free(t->members);
	lc_free(t);
}

static enum take_stage
next_stage(const struct take *t)
{
	bool ok = t->err.code == LC_OK;

	switch (t->stage) {
	case TAKE_ARM:
		return ok ? TAKE_QUIESCE : TAKE_UNDO;
	case TAKE_QUIESCE:
		return ok ? TAKE_STOP : TAKE_REVIVE;
	case TAKE_STOP:
		return ok ? TAKE_CUT : TAKE_GO;
	case TAKE_CUT:
		return TAKE_GO;
	case TAKE_GO:
		return TAKE_REVIVE;
	case TAKE_REVIVE:
		return ok ? TAKE_SERVE : TAKE_UNDO;
	case TAKE_SERVE:
		return ok ? TAKE_OVER : TAKE_UNDO;
	case TAKE_UNDO:
	case TAKE_OVER:
		break;
	}
	return TAKE_OVER;
}

static void
stage_over(struct take *t)
{
	t->stage = next_stage(t);
	if (t->stage == TAKE_OVER)
		uv_close((uv_handle_t *)&t->soon, on_take_closed);
	else
		take_stage(t);
}

static void
on_member(void *arg, const struct lc_err *err)
{
	struct member *m = arg;
	struct take *t = m->take;

	if (err->code != LC_OK)
		(void)lc_fail(&t->err, err->code, 0, "%s: %s", m->hv->vm, err->msg);
	if (--t->pending == 0)
		stage_over(t);
}

static bool
wanted(struct member *m, enum take_stage stage)
{
	const struct hv *hv = m->hv;

	switch (stage) {
	case TAKE_ARM:
		m->armed = true;
		return true;
	case TAKE_QUIESCE: /* one that is off is consistent */
		return hv->t.freeze != HV_FREEZE_NEVER &&
		       (hv->t.freeze != HV_FREEZE_OFFERED ||
		        hv->driver->vm.agent == HV_AGENT_THERE) &&
		       strcmp(hv->driver->vm.way, "offline") != 0;
	case TAKE_STOP:
		m->stopped = m->dt.group;
		return m->stopped;
	case TAKE_GO:
		return m->stopped;
	case TAKE_REVIVE:
		return m->freezer != NULL;
	case TAKE_UNDO:
		return m->armed;
	case TAKE_CUT:
	case TAKE_SERVE:
	case TAKE_OVER:
		break;
	}
	return true;
}

/* ---- the guests' filesystems ---- */

/* The restore point is not frozen: that is told, or refused. */
static void
not_frozen(struct member *m, const struct freezer_result *r)
{
	m->frozen = false;
	(void)snprintf(m->freeze, sizeof m->freeze, "%.*s", (int)sizeof m->freeze - 1, r->err.msg);
	if (r->stuck)
		log_error("%s: its filesystems may stand still: %s: %s", m->hv->vm, r->err.msg,
		          r->hint);
	if (m->hv->t.freeze == HV_FREEZE_REQUIRE)
		(void)lc_fail(&m->take->err, LC_ENOTSUP, 0,
		              "%s: freeze = require, but %s: %s, or set freeze = auto", m->hv->vm,
		              r->err.msg, r->hint == NULL ? "try it once more" : r->hint);
}

static void
on_quiet(void *arg, const struct freezer_result *r)
{
	struct member *m = arg;
	struct take *t = m->take;

	if (r->err.code != LC_OK) {
		m->freezer = NULL;
		not_frozen(m, r);
	}
	if (--t->pending == 0)
		stage_over(t);
}

static void
on_revived(void *arg, const struct freezer_result *r)
{
	struct member *m = arg;
	struct take *t = m->take;

	m->freezer = NULL;
	if (r->err.code != LC_OK) {
		not_frozen(m, r);
	} else {
		m->frozen = true;
		(void)snprintf(m->freeze, sizeof m->freeze, "%llu filesystem%s for %lld ms",
		               (unsigned long long)r->filesystems, r->filesystems == 1 ? "" : "s",
		               (long long)(r->held_ns / LC_NS_PER_MS));
	}
	if (--t->pending == 0)
		stage_over(t);
}

/* 0, or DRIVER_NOTHING where nothing is begun. */
static int
quiesce(struct member *m)
{
	const struct hv *hv = m->hv;
	const struct freezer_opts o = freezer_opts_of(hv);
	struct freezer_result r = {.hint = NULL};

	if (!hv->driver->vm.running) {
		r.hint = "let it run";
		(void)lc_fail(&r.err, LC_ENOTSUP, 0, "the guest does not run");
	} else if (hv->driver->vm.agent == HV_AGENT_NOWHERE) {
		r.hint = "give it one (virsh edit: a channel to org.qemu.guest_agent.0)";
		(void)lc_fail(&r.err, LC_ENOTSUP, 0, "the domain has no channel to a guest agent");
	} else if (hv->driver->vm.agent == HV_AGENT_AWAY) {
		r.hint = "install and start qemu-guest-agent in the guest";
		(void)lc_fail(&r.err, LC_ENOTSUP, 0, "libvirt sees no guest agent in the guest");
	} else if (hv->t.guest_agent == NULL && hv->t.libvirt == NULL) {
		r.hint = "name its socket with guest_agent";
		(void)lc_fail(&r.err, LC_ENOTSUP, 0, "no channel to a guest agent is known");
	} else if (freezer_start(hv->loop, &o, on_quiet, m, &m->freezer, &r.err) == 0) {
		return 0;
	}
	not_frozen(m, &r);
	return DRIVER_NOTHING;
}

static int
revive(struct member *m)
{
	freezer_thaw(m->freezer, on_revived, m);
	return 0;
}

/* ---- stage by stage ---- */

static int
member_stage(struct member *m, enum take_stage stage, struct lc_err *e)
{
	static const enum driver_stage of_driver[] = {
	    [TAKE_ARM] = DRIVER_ARM, [TAKE_STOP] = DRIVER_FREEZE, [TAKE_CUT] = DRIVER_CUT,
	    [TAKE_GO] = DRIVER_THAW, [TAKE_SERVE] = DRIVER_SERVE, [TAKE_UNDO] = DRIVER_UNDO};
	struct driver *d = m->hv->driver;

	if (stage == TAKE_QUIESCE)
		return quiesce(m);
	if (stage == TAKE_REVIVE)
		return revive(m);
	return d->ops->stage(d, of_driver[stage], &m->dt, on_member, m, e);
}

static void
take_stage(struct take *t)
{
	struct lc_err err = LC_ERR_INIT;
	size_t i;

	t->pending = 1; /* ours, so that the stage does not end while we start it */
	for (i = 0; i < t->n; i++) {
		struct member *m = &t->members[i];
		int rc;

		if (!wanted(m, t->stage))
			continue;
		t->pending++;
		lc_err_clear(&err);
		rc = member_stage(m, t->stage, &err);
		if (rc == 0)
			continue;
		t->pending--;
		if (rc != DRIVER_NOTHING)
			(void)lc_fail(&t->err, err.code, 0, "%s: %s", m->hv->vm, err.msg);
	}
	if (--t->pending == 0)
		stage_over(t);
}

static void
on_take_begin(uv_timer_t *timer)
{
	take_stage(timer->data);
}

/* Every disk that is not left out must be capturable. */
static int
check_disks(const struct hv *hv, struct lc_err *e)
{
	const struct driver *d = hv->driver;
	size_t i;

	for (i = 0; i < d->vm.ndisks; i++) {
		if (!d->excluded[i] && !d->vm.disks[i].capturable) {
			return lc_fail(e, LC_ENOTSUP, 0,
			               "%s: disk %s cannot be captured: %s; leave it out by "
			               "name to back up the others: exclude = %s",
			               hv->vm, d->vm.disks[i].name, d->vm.disks[i].reason,
			               d->vm.disks[i].name);
		}
	}
	return 0;
}

int
hv_take(struct hv_take *set, size_t n, hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct take *t;
	size_t i;

	assert(n > 0);
	for (i = 0; i < n; i++) {
		struct hv *hv = set[i].hv;

		set[i].snapshot = NULL;
		assert(hv->call == HV_CALL_NONE && hv->closing == 0);
		if (hv->state != HV_ST_READY)
			return lc_fail(e, LC_EINVAL, 0, "%s: not prepared", hv->vm);
		if (check_disks(hv, e) != 0)
			return LC_ENOTSUP;
	}
	t = lc_alloc(sizeof *t);
	if (t != NULL)
		t->members = lc_alloc_array(n, sizeof *t->members);
	if (t == NULL || t->members == NULL) {
		lc_free(t);
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", set[0].hv->vm);
	}
	t->set = set;
	t->n = n;
	t->done = done;
	t->arg = arg;
	t->stage = TAKE_ARM;
	for (i = 0; i < n; i++) {
		struct member *m = &t->members[i];

		m->take = t;
		m->hv = set[i].hv;
		m->hv->call = HV_CALL_TAKE;
		memcpy(m->dt.since, set[i].since, sizeof m->dt.since);
		memcpy(m->dt.point, set[i].point, sizeof m->dt.point);
		m->dt.have_since = set[i].have_since;
		m->dt.group = n > 1;
		memset(&m->hv->driver->snapshot, 0, sizeof m->hv->driver->snapshot);
	}
	(void)uv_timer_init(set[0].hv->loop, &t->soon);
	t->soon.data = t;
	(void)uv_timer_start(&t->soon, on_take_begin, 0, 0);
	return 0;
}

/* ---- close ---- */

static void
part_closed(struct hv *hv)
{
	if (--hv->closing > 0)
		return;
	if (hv->closed != NULL)
		hv->closed(hv->closed_arg);
	lc_free(hv);
}

static void
on_soon_closed(uv_handle_t *h)
{
	part_closed(h->data);
}

static void
on_driver_closed(void *arg)
{
	part_closed(arg);
}

void
hv_close(struct hv *hv, void (*closed)(void *arg), void *arg)
{
	assert(hv->call == HV_CALL_NONE && hv->closing == 0);
	hv->closed = closed;
	hv->closed_arg = arg;
	hv->closing = 2;
	hv->on_event = NULL;
	lc_free(hv->driver->vm.def);
	hv->driver->vm.def = NULL;
	uv_close((uv_handle_t *)&hv->soon, on_soon_closed);
	hv->driver->ops->close(hv->driver, on_driver_closed, hv);
}

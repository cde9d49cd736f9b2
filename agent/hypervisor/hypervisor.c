/*
 * One VM's life as the caller sees it, and a take of several VMs:
 *
 *   NEW ──prepare──► READY ──take──► TAKEN ──release──► RELEASED ──end──► READY
 *
 * A failed prepare goes back to NEW, a failed take to READY; release and end always go forward:
 * what they could not do is reported, and done by the next prepare.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "store/base/memory.h"

#include "agent/hypervisor/driver.h"
#include "agent/hypervisor/hypervisor.h"

enum hv_state { HV_ST_NEW = 0, HV_ST_READY, HV_ST_TAKEN, HV_ST_RELEASED };
enum hv_call {
	HV_CALL_NONE = 0,
	HV_CALL_PREPARE,
	HV_CALL_TAKE,
	HV_CALL_VALID,
	HV_CALL_RELEASE,
	HV_CALL_END
};

struct hv {
	uv_loop_t *loop;
	struct driver *driver;
	char vm[HV_NAME_MAX];
	enum hv_state state;
	enum hv_call call; /* in flight */
	bool held;         /* a release failed: the next one tries again */
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
	bool armed, frozen;
};

struct take {
	uv_timer_t soon; /* the first step, so that done never comes from inside hv_take() */
	struct hv_take *set;
	size_t n;
	struct member *members;
	enum driver_stage stage;
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
	if (hv_target_live(target))
		rc = driver_qemu_open(loop, target, &hv->driver, e);
	else
		rc = driver_image_open(loop, target, &hv->driver, e);
	if (rc != 0) {
		lc_free(hv);
		return e == NULL ? rc : lc_wrap(e, "%s", target->vm);
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
	return lc_fail(e, LC_ENOENT, 0, "%s has no disk %s", hv->vm, disk);
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
	case HV_CALL_VALID:
		break;
	case HV_CALL_NONE:
	case HV_CALL_TAKE:
		assert(false);
	}
	(void)lc_wrap(&out, "%s", hv->vm);
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
		(void)lc_wrap(e, "%s", hv->vm);
	}
	return rc;
}

int
hv_prepare(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e)
{
	int rc = begin(hv, HV_CALL_PREPARE, hv->state == HV_ST_NEW || hv->state == HV_ST_READY,
	               done, arg, e);

	if (rc != 0)
		return rc;
	memset(hv->driver->excluded, 0, sizeof hv->driver->excluded);
	return started(hv, hv->driver->ops->prepare(hv->driver, on_call_done, hv, e), e);
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
		struct hv *hv = t->members[i].hv;

		hv->call = HV_CALL_NONE;
		hv->state = t->err.code == LC_OK ? HV_ST_TAKEN : HV_ST_READY;
		t->set[i].snapshot = t->err.code == LC_OK ? &hv->driver->snapshot : NULL;
	}
	t->done(t->arg, &t->err);
	lc_free(t->members);
	lc_free(t);
}

/* The stage after t->stage, 0 at the end. */
static enum driver_stage
next_stage(const struct take *t)
{
	bool ok = t->err.code == LC_OK;

	switch (t->stage) {
	case DRIVER_ARM:
		return ok ? DRIVER_FREEZE : DRIVER_UNDO;
	case DRIVER_FREEZE:
		return ok ? DRIVER_CUT : DRIVER_THAW;
	case DRIVER_CUT:
		return DRIVER_THAW;
	case DRIVER_THAW:
		return ok ? DRIVER_SERVE : DRIVER_UNDO;
	case DRIVER_SERVE:
		return ok ? (enum driver_stage)0 : DRIVER_UNDO;
	case DRIVER_UNDO:
		break;
	}
	return (enum driver_stage)0;
}

static void
stage_over(struct take *t)
{
	t->stage = next_stage(t);
	if (t->stage == (enum driver_stage)0)
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
wanted(struct member *m, enum driver_stage stage)
{
	switch (stage) {
	case DRIVER_ARM:
		m->armed = true;
		return true;
	case DRIVER_FREEZE:
		m->frozen = m->dt.group;
		return m->frozen;
	case DRIVER_THAW:
		return m->frozen;
	case DRIVER_UNDO:
		return m->armed;
	case DRIVER_CUT:
	case DRIVER_SERVE:
		break;
	}
	return true;
}

static void
take_stage(struct take *t)
{
	struct lc_err err = LC_ERR_INIT;
	size_t i;

	t->pending = 1; /* ours, so that the stage does not end while we start it */
	for (i = 0; i < t->n; i++) {
		struct member *m = &t->members[i];
		struct driver *d = m->hv->driver;
		int rc;

		if (!wanted(m, t->stage))
			continue;
		t->pending++;
		lc_err_clear(&err);
		rc = d->ops->stage(d, t->stage, &m->dt, on_member, m, &err);
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
		if (!d->excluded[i] && !d->vm.disks[i].capturable)
			return lc_fail(e, LC_ENOTSUP, 0,
			               "%s: disk %s cannot be captured: %s; leave it out by "
			               "name to back up the others",
			               hv->vm, d->vm.disks[i].name, d->vm.disks[i].reason);
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
	t->stage = DRIVER_ARM;
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

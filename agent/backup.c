/*
 *   FIND ─► PREPARE ─► BEGIN ─► TAKE ─► DISKS ─► READ ─► VALID ─► RELEASE ─► COMMIT ─► END ─► CLOSE
 *   ▲ │       ▲  │         ▲                                                              │
 *   └─│───────│──┘         └────────── the scratch was spent: another pass ───────────────┘
 *     │       │  its monitor is gone: the image files
 *     └─► GLANCE ─► STANDS ─► CLOSE     a backup before found nothing different: still so
 *
 * STANDS, BEGIN, DISKS and COMMIT block in the store and run on libuv's pool; all else is on the
 * loop.  A failure in any state goes to RELEASE (what was taken is given back), then END with
 * rollback, then CLOSE: so nothing is left behind in the hypervisor, and the next backup finds the
 * changes since the last point that was committed.
 *
 * A pass may end early because its scratch budget is spent, or there is no more room in the store,
 * which is then waited for (CLOSE ─► AGAIN), without a snapshot.  It becomes a seed: a point that
 * is never listed, from which the next pass goes on; only a pass that read every disk to its end
 * becomes a restore point.
 *
 * A snapshot that was given up for a reason that may pass (a migration, a resize, a scratch that
 * broke) is made once more, from the beginning: CLOSE ─► AGAIN, a moment later ─► FIND.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/backup_state.h"
#include "agent/capture.h"
#include "agent/import.h"
#include "agent/lull.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/log.h"

static const char *const state_notes[] = {
    [BACKUP_ST_AGAIN] = "waiting",      [BACKUP_ST_FIND] = "looking",
    [BACKUP_ST_GLANCE] = "connecting",  [BACKUP_ST_STANDS] = "looking",
    [BACKUP_ST_PREPARE] = "connecting", [BACKUP_ST_BEGIN] = "preparing",
    [BACKUP_ST_TAKE] = "snapshot",      [BACKUP_ST_DISKS] = "preparing",
    [BACKUP_ST_READ] = "reading",       [BACKUP_ST_VALID] = "checking",
    [BACKUP_ST_RELEASE] = "releasing",  [BACKUP_ST_COMMIT] = "committing",
    [BACKUP_ST_END] = "tidying",        [BACKUP_ST_CLOSE] = "closing",
};

#define WATCH_MS 50 /* how often the scratch budget is looked at */
#define TRIES_MAX 2u
#define TRIES_SCRATCH_MAX 6u         /* a pass that got no further: how far one gets is luck */
#define ROOM_MIN (UINT64_C(8) << 20) /* a pass is to get on */
#define AGAIN_NS (2 * LC_NS_PER_S)

static int
list_disks(struct backup *b, struct lc_err *e)
{
	size_t i;
	int rc = subject_list(&b->subject, b->take.snapshot, b->hv, b->target.def, e);

	for (i = 0; i < b->subject.ndisks; i++)
		b->readings[i] = (struct reading){.b = b};
	return rc;
}

void
backup_fail(struct backup *b, const struct lc_err *e)
{
	if (b->err.code == LC_OK)
		b->err = *e;
}

static void
after_work(uv_work_t *req, int status)
{
	struct backup *b = req->data;

	(void)status;
	if (b->step_err.code != LC_OK)
		backup_fail(b, &b->step_err);
	backup_step(b);
}

static void
run_work(struct backup *b, void (*fn)(uv_work_t *req))
{
	lc_err_clear(&b->step_err);
	b->work.data = b;
	/* Fails for a NULL callback only. */
	if (uv_queue_work(b->o.loop, &b->work, fn, after_work) != 0)
		assert(false);
}

/* ---- callbacks of the hypervisor ---- */

static void
on_hv(void *arg, const struct lc_err *err)
{
	struct backup *b = arg;
	bool tidying = b->state == BACKUP_ST_RELEASE || b->state == BACKUP_ST_END;
	bool committed = b->state == BACKUP_ST_END && b->how == HV_COMMIT;

	if (err->code != LC_OK && b->state == BACKUP_ST_RELEASE)
		b->stuck = true;
	/* Once committed the point is there, whatever the tidying says: the next backup tidies
	 * again. */
	if (err->code != LC_OK && (committed || (tidying && b->err.code != LC_OK))) {
		if (!b->gone)
			log_warn("%s: tidying up, to be done by the next backup", err->msg);
	} else if (err->code != LC_OK) {
		backup_fail(b, err);
	}
	if (err->code == LC_ECONFLICT)
		b->may_pass = true;
	backup_step(b);
}

static void
on_event(void *arg, struct hv *hv, enum hv_event ev, const char *why)
{
	struct backup *b = arg;
	struct lc_err e = LC_ERR_INIT;

	(void)hv;
	b->gone = b->gone || ev == HV_EV_GONE;
	if (ev == HV_EV_GONE)
		(void)lc_fail(&e, LC_EPEER, 0, "%s: %s", b->o.vm, why);
	else
		(void)lc_fail(&e, LC_ECONFLICT, 0, "%s: the snapshot was given up: %s", b->o.vm,
		              why);
	if (b->state < BACKUP_ST_RELEASE && b->err.code == LC_OK)
		b->may_pass = ev != HV_EV_GONE;
	if (b->state == BACKUP_ST_READ)
		backup_read_stop(b, &e);
	else if (b->state < BACKUP_ST_RELEASE)
		backup_fail(b, &e);
}

static bool
has_room(const struct backup *b)
{
	return !b->crowded || b->o.room(b->o.room_arg, b->again_ns) > 0;
}

static bool
uses_up_room(const struct backup *b)
{
	struct writer_stats st;

	if (b->room == UINT64_MAX)
		return false;
	writer_stats(b->writer, &st);
	return st.stored >= b->room;
}

static void
on_watch(uv_timer_t *t)
{
	struct backup *b = t->data;

	if (b->state == BACKUP_ST_AGAIN && b->hv == NULL &&
	    (b->canceled || (clock_mono_ns() >= b->again_ns && has_room(b)))) {
		backup_step(b);
	} else if (b->state == BACKUP_ST_READ && !b->partial && uses_up_room(b)) {
		b->partial = b->crowded = true;
		backup_read_stop(b, NULL);
	} else if (b->state == BACKUP_ST_READ && !b->partial && b->budget > 0 &&
	           hv_scratch_used(b->hv) > b->budget) {
		b->partial = true;
		backup_read_stop(b, NULL);
	}
}

/* ---- steps ---- */

/* The VM is what it was, and nothing was written since the newest point was made: it is off and
 * every image looks as it did then, or it runs and every record of changes is empty.
 *
 * One that is paused gets no points that say so: cron would make them for days, and each would
 * leave a descriptor in QEMU, which closes none before the guest runs again. */
static bool
unchanged(struct backup *b)
{
	const struct point *base = writer_base(b->writer);

	if (base == NULL || b->damaged || (base->flags & POINT_SEED) != 0)
		return false;
	if (!b->subject.offline && ((!b->o.skip_same && hv_vm(b->hv)->running) ||
	                            base->consistency == POINT_OFF || !hv_quiet(b->hv, base->id)))
		return false;
	return subject_is(&b->subject, base, b->hv, b->target.def);
}

static int
begin_take(struct backup *b, struct lc_err *e)
{
	const struct point *base = writer_base(b->writer);
	size_t i;

	memset(&b->take, 0, sizeof b->take);
	b->take.hv = b->hv;
	memcpy(b->take.point, writer_id(b->writer), HV_ID_SIZE);
	if (base != NULL) {
		memcpy(b->take.since, base->id, HV_ID_SIZE);
		b->take.have_since = true;
	}
	if (base == NULL && b->tries == 0 && b->target.hv.libvirt != NULL)
		log_info("%s: libvirt shows the domain as tainted (custom-monitor) from now on, as "
		         "its monitor is used; nothing else of it changes",
		         b->target.hv.vm);
	if (b->result.passes == 0)
		b->result.full = base == NULL || (base->flags & POINT_SEED) != 0;
	b->covered_before = 0;
	for (i = 0; base != NULL && (base->flags & POINT_SEED) != 0 && i < base->ndisks; i++)
		b->covered_before += base->disks[i].covered;
	b->room = b->o.room == NULL ? UINT64_MAX
	                            : b->o.room(b->o.room_arg, b->crowded ? b->again_ns : 0);
	if (b->room < ROOM_MIN)
		b->room = ROOM_MIN;
	b->partial = b->crowded = false;
	b->tries++;
	b->result.scanned = 0;
	b->how = HV_ROLLBACK;
	b->taken = true;
	return hv_take(&b->take, 1, on_hv, b, e);
}

void
backup_name(struct lc_err *e, const char *vm)
{
	size_t n = strlen(vm);

	if (e != NULL && (strncmp(e->msg, vm, n) != 0 || (e->msg[n] != ':' && e->msg[n] != '/')))
		lc_wrap(e, "%s", vm);
}

static void
on_closed(void *arg)
{
	struct backup *b = arg;

	if (--b->closing > 0)
		return;
	b->result.vm = b->o.vm;
	b->result.err = b->err;
	b->result.took_ns = clock_mono_ns() - b->started_ns;
	if (b->err.code != LC_OK)
		b->result.outcome = BACKUP_FAILED;
	if (b->err.code == LC_EBUSY && b->subject.offline && b->off_why[0] != '\0') {
		lc_err_clear(&b->result.err);
		(void)lc_fail(&b->result.err, LC_EBUSY, 0, "%s, but %s", b->err.msg, b->off_why);
	}
	backup_name(&b->result.err, b->o.vm);
	target_done(&b->target);
	subject_done(&b->subject);
	b->done(b->arg, &b->result);
	lc_free(b);
}

static void
on_timer_closed(uv_handle_t *h)
{
	on_closed(h->data);
}

static void
begin_close(struct backup *b)
{
	b->state = BACKUP_ST_CLOSE;
	b->closing = 1;
	if (b->hv != NULL) {
		b->closing++;
		hv_close(b->hv, on_closed, b);
	}
	uv_close((uv_handle_t *)&b->watch, on_timer_closed);
}

static bool
may_glance(const struct backup *b)
{
	return b->o.lull != NULL && b->o.skip_same && !b->subject.offline && b->tries == 0 &&
	       lull_known(b->o.lull);
}

static int
begin_look(struct backup *b, struct lc_err *e)
{
	int rc = target_make_dirs(&b->target, b->o.settings, e);

	b->state = BACKUP_ST_PREPARE;
	if (b->o.lull != NULL)
		lull_forget(b->o.lull);
	return rc != 0 ? rc : hv_prepare(b->hv, on_hv, b, e);
}

/* Connect, or go on with the image files where nobody answers. */
static int
begin_prepare(struct backup *b, struct lc_err *e)
{
	int rc = 0;

	if (b->hv == NULL) {
		b->subject.offline = !hv_target_live(&b->target.hv);
		/* The images of an import are those that were given. */
		if (b->subject.offline && (b->target.hv.def_past || !import_is(b->target.def)))
			rc = target_check_boot(b->o.settings, b->o.vm, e);
		if (rc == 0 && b->subject.offline)
			rc = target_check_images(&b->target, b->o.settings, b->o.store, e);
		b->target.hv.memo = b->o.lull == NULL ? NULL : lull_memo(b->o.lull);
		rc = rc != 0 ? rc : hv_open(b->o.loop, &b->target.hv, on_event, b, &b->hv, e);
	}
	if (rc != 0 || !may_glance(b))
		return rc != 0 ? rc : begin_look(b, e);
	b->state = BACKUP_ST_GLANCE;
	return hv_glance(b->hv, on_hv, b, e);
}

/* A message without the name of the VM in front. */
static const char *
without_vm(const struct backup *b, const char *msg)
{
	size_t n = strlen(b->o.vm);

	return strncmp(msg, b->o.vm, n) == 0 && strncmp(msg + n, ": ", 2) == 0 ? msg + n + 2 : msg;
}

/* The handle borrowed what the target holds, so the target changes only now. */
static void
reopen_offline(void *arg)
{
	struct backup *b = arg;
	struct lc_err e = LC_ERR_INIT;

	b->hv = NULL;
	b->state = BACKUP_ST_FIND;
	if (target_offline(b->o.settings, b->o.store, b->o.vm, &b->target, &e) == 0) {
		log_debug("%s; it seems to be off, reading its images", b->err.msg);
		(void)snprintf(b->off_why, sizeof b->off_why, "%.*s", (int)sizeof b->off_why - 1,
		               without_vm(b, b->err.msg));
		lc_err_clear(&b->err);
	} else {
		struct lc_err both = b->err;

		lc_err_clear(&b->err);
		(void)lc_fail(&b->err, both.code, 0, "%s; %s", both.msg, without_vm(b, e.msg));
	}
	backup_step(b);
}

static bool
monitor_gone(const struct backup *b)
{
	return (b->state == BACKUP_ST_PREPARE || b->state == BACKUP_ST_GLANCE) && b->hv != NULL &&
	       !b->subject.offline && !b->canceled &&
	       (b->err.code == LC_ENOENT || b->err.code == LC_EPEER);
}

/* Given up for a reason that may pass: once more, from the beginning. */
static bool
again(struct backup *b)
{
	return b->may_pass && !b->gone && !b->stuck && !b->canceled &&
	       b->tries < (b->err.code == LC_ENOSPC ? TRIES_SCRATCH_MAX : TRIES_MAX) &&
	       b->err.code != LC_ECANCELED;
}

static void
wait_again(void *arg)
{
	struct backup *b = arg;

	b->hv = NULL; /* on_watch goes on */
}

static void
begin_again(struct backup *b)
{
	/* The longer it waits, the more has changed that the next pass has to read. */
	b->again_ns = clock_mono_ns() + (b->err.code == LC_ENOSPC ? 0 : AGAIN_NS);
	if (b->err.code == LC_ENOSPC)
		log_debug("%s; trying once more", b->err.msg);
	else
		log_info("%s; trying once more", b->err.msg);
	lc_err_clear(&b->err);
	b->may_pass = false;
	b->result.outcome = BACKUP_FAILED;
	b->state = BACKUP_ST_AGAIN;
	hv_close(b->hv, wait_again, b);
}

static void
begin_commit(struct backup *b)
{
	b->state = BACKUP_ST_COMMIT;
	if (backup_all_same(b))
		backup_keep(b, writer_base(b->writer));
	run_work(b, b->result.outcome == BACKUP_UNCHANGED ? backup_work_abort : backup_work_commit);
}

/* The record of changes begins at the new point, or goes on. */
static int
settle_changes(struct backup *b, struct lc_err *e)
{
	if (!b->taken) { /* unchanged, without a look at the disks */
		begin_close(b);
		return 0;
	}
	b->how = b->result.outcome == BACKUP_UNCHANGED ? HV_ROLLBACK : HV_COMMIT;
	b->taken = false;
	b->state = BACKUP_ST_END;
	return hv_end(b->hv, b->how, on_hv, b, e);
}

static void
next_pass(struct backup *b)
{
	if (b->partial && b->crowded && b->result.outcome != BACKUP_UNCHANGED) {
		b->again_ns = clock_mono_ns();
		b->state = BACKUP_ST_AGAIN;
		hv_close(b->hv, wait_again, b);
		return;
	}
	if (b->partial && b->result.outcome != BACKUP_UNCHANGED) {
		b->state = BACKUP_ST_BEGIN;
		run_work(b, backup_work_begin);
		return;
	}
	if (b->result.outcome != BACKUP_UNCHANGED)
		b->result.outcome = BACKUP_DONE;
	begin_close(b);
}

static int
state_next(struct backup *b, struct lc_err *e)
{
	switch (b->state) {
	case BACKUP_ST_AGAIN: /* it may be off by now, or on */
		target_done(&b->target);
		if (target_find(b->o.settings, b->o.store, b->o.vm, &b->target, e) != 0)
			return (int)e->code;
		b->state = BACKUP_ST_PREPARE;
		return begin_prepare(b, e);
	case BACKUP_ST_FIND:
		b->state = BACKUP_ST_PREPARE;
		return begin_prepare(b, e);
	case BACKUP_ST_GLANCE:
		if (!hv_same(b->hv))
			return begin_look(b, e);
		b->state = BACKUP_ST_STANDS;
		run_work(b, backup_work_stands);
		return 0;
	case BACKUP_ST_STANDS:
		if (!b->lasts)
			return begin_look(b, e);
		backup_keep(b, lull_point(b->o.lull));
		begin_close(b);
		return 0;
	case BACKUP_ST_PREPARE:
		(void)failpoint("backup.prepared");
		if (subject_describe(&b->subject, b->hv, b->target.def, e) != 0)
			return (int)e->code;
		b->state = BACKUP_ST_BEGIN;
		run_work(b, backup_work_begin);
		return 0;
	case BACKUP_ST_BEGIN:
		(void)failpoint("backup.begun");
		if (unchanged(b)) {
			if (b->o.lull != NULL && !b->subject.offline)
				lull_begin(b->o.lull, b->hv, writer_base(b->writer));
			backup_keep(b, writer_base(b->writer));
			b->state =
			    BACKUP_ST_COMMIT; /* nothing was taken: abort the writer, close */
			run_work(b, backup_work_abort);
			return 0;
		}
		b->state = BACKUP_ST_TAKE;
		return begin_take(b, e);
	case BACKUP_ST_TAKE:
		(void)failpoint("backup.taken");
		b->result.passes++;
		b->state = BACKUP_ST_DISKS;
		if (list_disks(b, e) != 0)
			return (int)e->code;
		run_work(b, backup_work_disks);
		return 0;
	case BACKUP_ST_DISKS:
		b->state = BACKUP_ST_READ;
		backup_read_start(b);
		return b->reading == 0 && b->err.code == LC_OK
		           ? lc_fail(e, LC_EINVAL, 0, "%s: it has no disk to back up", b->o.vm)
		           : 0;
	case BACKUP_ST_READ:
		(void)failpoint("backup.read");
		if (backup_read_over(b, e) != 0)
			return (int)e->code;
		b->state = BACKUP_ST_VALID;
		return hv_still_valid(b->hv, on_hv, b, e);
	case BACKUP_ST_VALID:
		b->state = BACKUP_ST_RELEASE;
		return hv_release(b->hv, on_hv, b, e);
	case BACKUP_ST_RELEASE:
		(void)failpoint("backup.released");
		begin_commit(b);
		return 0;
	case BACKUP_ST_COMMIT:
		(void)failpoint("backup.committed");
		return settle_changes(b, e);
	case BACKUP_ST_END:
		(void)failpoint("backup.ended");
		b->tries = 0;
		next_pass(b);
		return 0;
	case BACKUP_ST_CLOSE:
		break;
	}
	return 0;
}

/* The way out: give back the snapshot, settle the changes, forget the writer, close. */
static void
state_unwind(struct backup *b)
{
	struct lc_err ignored = LC_ERR_INIT;

	if (b->reading > 0)
		return; /* they are told; the last one comes back here */
	if (b->state < BACKUP_ST_RELEASE && b->taken) {
		b->state = BACKUP_ST_RELEASE;
		if (hv_release(b->hv, on_hv, b, &ignored) == 0)
			return;
	}
	/* A snapshot whose scratch hangs does not hold up the guest until somebody touches it, and
	 * settling the record of changes would: left alone as if we had been killed here, it is
	 * found by the next backup. */
	if (b->state < BACKUP_ST_END && b->taken && !b->stuck) {
		b->state = BACKUP_ST_END;
		b->taken = false;
		if (hv_end(b->hv, b->how, on_hv, b, &ignored) == 0)
			return;
	}
	if (b->writer != NULL) {
		b->state = BACKUP_ST_END;
		run_work(b, backup_work_abort);
		return;
	}
	if (b->hv != NULL && again(b))
		begin_again(b);
	else
		begin_close(b);
}

/* The only place where the state changes (but for the way out); called when what the state names is
 * over. */
void
backup_step(struct backup *b)
{
	struct lc_err e = LC_ERR_INIT;

	if (b->state == BACKUP_ST_CLOSE)
		return;
	if (b->canceled && b->state < BACKUP_ST_COMMIT)
		(void)lc_fail(&b->err, LC_ECANCELED, 0, "%s: interrupted", b->o.vm);
	if (b->err.code == LC_OK && state_next(b, &e) != 0)
		backup_fail(b, &e);
	if (b->err.code != LC_OK && monitor_gone(b)) {
		(void)target_learn(&b->target, hv_vm(b->hv)->def, NULL);
		hv_close(b->hv, reopen_offline, b);
	} else if (b->err.code != LC_OK)
		state_unwind(b);
}

int
backup_start(const struct backup_opts *o, void (*done)(void *arg, struct backup_result *result),
             void *arg, struct backup **out, struct lc_err *e)
{
	struct backup *b = lc_alloc(sizeof *b);
	int rc;

	if (b == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", o->vm);
	b->o = *o;
	b->done = done;
	b->arg = arg;
	b->subject.settings = o->settings;
	b->subject.vm = b->o.vm;
	b->started_ns = clock_mono_ns();
	rc = target_find(o->settings, o->store, o->vm, &b->target, e);
	if (rc != 0) {
		backup_name(e, o->vm);
		target_done(&b->target);
		lc_free(b);
		return rc;
	}
	(void)uv_timer_init(o->loop, &b->watch);
	b->watch.data = b;
	(void)uv_timer_start(&b->watch, on_watch, WATCH_MS, WATCH_MS);
	b->state = BACKUP_ST_PREPARE;
	rc = begin_prepare(b, &b->err);
	if (rc != 0 && monitor_gone(b)) /* from the loop, as every other failure */
		hv_close(b->hv, reopen_offline, b);
	else if (rc != 0)
		begin_close(b);
	*out = b;
	return 0;
}

void
backup_cancel(struct backup *b)
{
	struct lc_err why = LC_ERR_INIT;

	b->canceled = true;
	(void)lc_fail(&why, LC_ECANCELED, 0, "%s: interrupted", b->o.vm);
	if (b->state == BACKUP_ST_READ)
		backup_read_stop(b, &why);
	else if (b->hv != NULL && b->state < BACKUP_ST_READ)
		hv_cancel(b->hv);
}

void
backup_progress(const struct backup *b, struct backup_progress *out)
{
	struct writer_stats st = {0};
	uint64_t looked, total;
	size_t i;

	*out = (struct backup_progress){.note = state_notes[b->state]};
	for (i = 0; b->state == BACKUP_ST_READ && i < b->subject.ndisks; i++) {
		if (b->readings[i].capture != NULL) {
			capture_progress(b->readings[i].capture, &looked, &total);
		} else {
			looked = total = b->subject.disks[i].size;
		}
		out->looked += looked;
		out->total += total;
	}
	if (b->writer != NULL && b->state == BACKUP_ST_READ)
		writer_stats(b->writer, &st);
	out->stored = b->result.stats.stored + st.stored;
}

/*
 *   FIND ─► PREPARE ─► BEGIN ─► TAKE ─► DISKS ─► READ ─► VALID ─► RELEASE ─► COMMIT ─► END ─► CLOSE
 *    ▲         │         ▲                                                              │
 *    └─────────┘         └────────── the scratch was spent: another pass ───────────────┘
 *     its monitor is gone: the image files
 *
 * BEGIN, DISKS and COMMIT block in the store and run on libuv's pool; all else is on the loop.  A
 * failure in any state goes to RELEASE (what was taken is given back), then END with rollback, then
 * CLOSE: so nothing is left behind in the hypervisor, and the next backup finds the changes since
 * the last point that was committed.
 *
 * A pass may end early because its scratch budget is spent.  It becomes a seed: a point that is
 * never listed, from which the next pass goes on; only a pass that read every disk to its end
 * becomes a restore point.
 *
 * A snapshot that was given up for a reason that may pass (a migration, a resize, a scratch that
 * broke) is made once more, from the beginning: CLOSE ─► AGAIN, a moment later ─► FIND.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <uv.h>

#include "agent/backup.h"
#include "agent/capture.h"
#include "agent/subject.h"
#include "agent/target.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/log.h"

enum backup_state {
	BACKUP_ST_AGAIN = 0,
	BACKUP_ST_FIND,
	BACKUP_ST_PREPARE,
	BACKUP_ST_BEGIN,
	BACKUP_ST_TAKE,
	BACKUP_ST_DISKS,
	BACKUP_ST_READ,
	BACKUP_ST_VALID,
	BACKUP_ST_RELEASE,
	BACKUP_ST_COMMIT,
	BACKUP_ST_END,
	BACKUP_ST_CLOSE,
};

static const char *const state_notes[] = {
    [BACKUP_ST_AGAIN] = "waiting",      [BACKUP_ST_FIND] = "looking",
    [BACKUP_ST_PREPARE] = "connecting", [BACKUP_ST_BEGIN] = "preparing",
    [BACKUP_ST_TAKE] = "snapshot",      [BACKUP_ST_DISKS] = "preparing",
    [BACKUP_ST_READ] = "reading",       [BACKUP_ST_VALID] = "checking",
    [BACKUP_ST_RELEASE] = "releasing",  [BACKUP_ST_COMMIT] = "committing",
    [BACKUP_ST_END] = "tidying",        [BACKUP_ST_CLOSE] = "closing",
};

#define SEED_PASSES_MAX 1000u
#define WATCH_MS 50 /* how often the scratch budget is looked at */
#define TRIES_MAX 2u
#define TRIES_SCRATCH_MAX 6u /* a pass that got no further: how far one gets is luck */
#define AGAIN_NS (2 * LC_NS_PER_S)

struct reading { /* of one of the subject's disks */
	struct backup *b;
	struct capture *capture; /* while it runs */
	uint64_t covered;        /* windows */
};

struct backup {
	struct backup_opts o;
	void (*done)(void *arg, struct backup_result *result);
	void *arg;
	enum backup_state state;
	struct target target;
	char off_why[256]; /* what its monitor said, where it should have one */
	struct hv *hv;
	struct writer *writer;
	struct hv_take take;
	bool taken; /* a snapshot may be there */
	enum hv_end how;
	struct subject subject;
	struct reading readings[HV_DISKS_MAX]; /* [subject.ndisks] */
	unsigned reading;                      /* captures that run */
	bool partial;                          /* this pass ended early */
	uint64_t covered_before; /* sum of the seed's windows, to see that passes get on */
	uint64_t budget;         /* bytes of scratch after which a pass ends, 0: none */
	bool gone;               /* the VM ended */
	bool stuck;              /* the snapshot could not be given back */
	bool may_pass;           /* what failed may not be there a moment later */
	unsigned tries;          /* cycles begun since the last one that was committed */
	int64_t again_ns;        /* when AGAIN is over */
	uv_work_t work;
	uv_timer_t watch;
	unsigned closing;
	bool canceled;
	int64_t started_ns;
	struct lc_err err;      /* why it fails */
	struct lc_err step_err; /* of the call in flight on the pool */
	struct backup_result result;
};

static void step(struct backup *b);

static int
list_disks(struct backup *b, struct lc_err *e)
{
	size_t i;
	int rc = subject_list(&b->subject, b->take.snapshot, b->hv, b->target.def, e);

	for (i = 0; i < b->subject.ndisks; i++)
		b->readings[i] = (struct reading){.b = b};
	return rc;
}

/* ---- work on the pool ---- */

/* How much scratch a pass may use.  Without a limit: what is free, and some of it left for others.
 */
static uint64_t
scratch_budget(const struct settings *s)
{
	uint64_t jobs = s->jobs == 0 ? 1 : s->jobs;
	struct statvfs v;

	if (s->scratch_max > 0)
		return s->scratch_max /
		       2; /* the rest is for what is written until it is given back */
	if (statvfs(s->scratch_dir, &v) != 0)
		return 0;
	return (uint64_t)v.f_bavail * v.f_frsize / jobs / 2;
}

static void
work_begin(uv_work_t *req)
{
	struct backup *b = req->data;
	struct writer_opts wo = {.vm = b->o.vm,
	                         .workers = capture_pool_threads(b->o.pool),
	                         .level = (int)b->o.settings->level};

	b->budget = b->subject.offline ? 0 : scratch_budget(b->o.settings);
	(void)writer_begin(b->o.store, &wo, &b->writer, &b->step_err);
}

static void
work_disks(uv_work_t *req)
{
	struct backup *b = req->data;
	const struct subject *x = &b->subject;
	struct writer_disk disks[HV_DISKS_MAX];
	size_t i;
	int rc;

	for (i = 0; i < x->ndisks; i++)
		disks[i] = (struct writer_disk){.name = x->disks[i].name,
		                                .size = x->disks[i].size,
		                                .role = x->disks[i].role,
		                                .stamp = x->disks[i].stamp};
	rc = writer_disks(b->writer, disks, x->ndisks, &b->step_err);
	for (i = 0; rc == 0 && i < x->ndisks; i++) {
		const struct subject_disk *d = &x->disks[i];

		if (d->source != NULL)
			continue;
		b->readings[i].covered = point_windows(d->size);
		if (!subject_same_file(writer_base(b->writer), d))
			rc = capture_file(b->writer, 0, i, d->file, d->size, &b->step_err);
	}
}

/* `covered` is for the caller to fill. */
static struct commit_opts
commit_opts_of(const struct backup *b, const uint64_t *covered)
{
	return (struct commit_opts){
	    .source_ns = b->take.snapshot->instant_ns,
	    .pause_ns = b->take.snapshot->pause_ns,
	    .consistency = b->subject.offline ? POINT_OFF : POINT_CRASH,
	    .seed = b->partial,
	    .covered = covered,
	    .definition = b->subject.definition.n > 0 ? (const char *)b->subject.definition.p
	                                              : NULL,
	    .left_out = b->subject.left_out.n > 0 ? (const char *)b->subject.left_out.p : NULL,
	};
}

static void
keep_base_as_result(struct backup *b)
{
	const struct point *base = writer_base(b->writer);

	b->result.point = *base;
	b->result.point.definition = NULL;
	b->result.point.left_out = NULL;
	b->result.outcome = BACKUP_UNCHANGED;
}

static void
work_commit(uv_work_t *req)
{
	struct backup *b = req->data;
	uint64_t covered[HV_DISKS_MAX] = {0};
	struct commit_opts co = commit_opts_of(b, covered);
	struct writer *w = b->writer;
	struct writer_stats st;
	size_t i;

	for (i = 0; i < b->subject.ndisks; i++)
		covered[i] = b->readings[i].covered;
	writer_stats(w, &st);
	b->writer = NULL;
	point_done(&b->result.point);
	if (writer_commit(w, &co, &b->result.point, &b->step_err) != 0)
		return;
	b->result.stats.zero += st.zero;
	b->result.stats.same += st.same;
	b->result.stats.known += st.known;
	b->result.stats.fresh += st.fresh;
	b->result.stats.stored += b->result.point.stored; /* with its map */
}

/* All that changed was written as it was before.  The changes go on being recorded since the base.
 */
static bool
all_same(const struct backup *b)
{
	struct commit_opts co = commit_opts_of(b, NULL);

	return b->o.skip_same && !b->partial && b->result.passes == 1 &&
	       writer_nothing_new(b->writer, &co);
}

static void
work_abort(uv_work_t *req)
{
	struct backup *b = req->data;

	writer_abort(b->writer);
	b->writer = NULL;
}

static void
fail(struct backup *b, const struct lc_err *e)
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
		fail(b, &b->step_err);
	step(b);
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
		fail(b, err);
	}
	if (err->code == LC_ECONFLICT)
		b->may_pass = true;
	step(b);
}

static void
stop_reading(struct backup *b, const struct lc_err *why)
{
	size_t i;

	if (why != NULL)
		fail(b, why);
	for (i = 0; i < b->subject.ndisks; i++) {
		if (b->readings[i].capture == NULL)
			continue;
		if (why != NULL)
			capture_cancel(b->readings[i].capture, why);
		else
			capture_stop(b->readings[i].capture);
	}
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
		stop_reading(b, &e);
	else if (b->state < BACKUP_ST_RELEASE)
		fail(b, &e);
}

static void
on_watch(uv_timer_t *t)
{
	struct backup *b = t->data;

	if (b->state == BACKUP_ST_AGAIN && b->hv == NULL &&
	    (b->canceled || clock_mono_ns() >= b->again_ns)) {
		step(b);
	} else if (b->state == BACKUP_ST_READ && !b->partial && b->budget > 0 &&
	           hv_scratch_used(b->hv) > b->budget) {
		b->partial = true;
		stop_reading(b, NULL);
	}
}

static void
on_captured(void *arg, uint64_t covered, const struct lc_err *err)
{
	struct reading *r = arg;
	struct backup *b = r->b;
	struct lc_err e = *err;

	r->capture = NULL;
	r->covered = covered;
	b->reading--;
	if (err->code != LC_OK && b->err.code == LC_OK) {
		b->may_pass = err->code == LC_ECONFLICT;
		if (b->may_pass && !b->subject.offline) {
			lc_err_clear(&e);
			(void)lc_fail(&e, LC_ECONFLICT, 0,
			              "%s (is the scratch folder %s full, slow or failing?)",
			              err->msg, b->o.settings->scratch_dir);
		}
		stop_reading(b, &e);
	}
	if (b->reading == 0)
		step(b);
}

/* ---- steps ---- */

static int
start_capture(struct backup *b, size_t i, struct lc_err *e)
{
	const struct subject_disk *d = &b->subject.disks[i];
	const struct point_disk *base = subject_base(writer_base(b->writer), d);
	char name[HV_NAME_MAX + POINT_NAME_MAX + 2];
	bool known = d->source->changes == HV_CHANGES_SUPERSET && base != NULL;
	struct capture_opts o = {.loop = b->o.loop,
	                         .pool = b->o.pool,
	                         .writer = b->writer,
	                         .disk = i,
	                         .name = name,
	                         .size = d->size,
	                         .socket = d->source->socket,
	                         .export_name = d->source->export_name,
	                         .dirty_context = known ? d->source->dirty_context : "",
	                         .trusted = base == NULL ? 0 : base->covered,
	                         .force = {UINT64_MAX, UINT64_MAX}};

	(void)snprintf(name, sizeof name, "%s/%s", b->o.vm, d->name);
	if (known && base->size != d->size) { /* what lies behind an end may differ */
		o.force[0] = base->size == 0 ? UINT64_MAX : (base->size - 1) / WINDOW_SIZE;
		o.force[1] = d->size == 0 ? UINT64_MAX : (d->size - 1) / WINDOW_SIZE;
	}
	if (base != NULL && !known && b->result.scanned++ == 0)
		(void)snprintf(b->result.why_scanned, sizeof b->result.why_scanned, "%s: %s",
		               d->name, d->source->why_unknown);
	return capture_start(&o, on_captured, &b->readings[i], &b->readings[i].capture, e);
}

static void
start_reading(struct backup *b)
{
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	for (i = 0; i < b->subject.ndisks && b->err.code == LC_OK; i++) {
		if (b->subject.disks[i].source == NULL)
			continue;
		if (start_capture(b, i, &e) != 0)
			stop_reading(b, &e);
		else
			b->reading++;
	}
}

/* The VM is what it was, and nothing was written since the newest point was made: it is off and
 * every image looks as it did then, or it runs and every record of changes is empty. */
static bool
unchanged(struct backup *b)
{
	const struct point *base = writer_base(b->writer);

	if (base == NULL || (base->flags & POINT_SEED) != 0)
		return false;
	if (!b->subject.offline &&
	    (!b->o.skip_same || base->consistency != POINT_CRASH || !hv_quiet(b->hv, base->id)))
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
	if (b->result.passes == 0)
		b->result.full = base == NULL || (base->flags & POINT_SEED) != 0;
	b->covered_before = 0;
	for (i = 0; base != NULL && (base->flags & POINT_SEED) != 0 && i < base->ndisks; i++)
		b->covered_before += base->disks[i].covered;
	b->partial = false;
	b->tries++;
	b->result.scanned = 0;
	b->how = HV_ROLLBACK;
	b->taken = true;
	return hv_take(&b->take, 1, on_hv, b, e);
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
	if (b->err.code != LC_OK && strncmp(b->err.msg, b->o.vm, strlen(b->o.vm)) != 0)
		(void)lc_wrap(&b->result.err, "%s", b->o.vm);
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

/* Connect, or go on with the image files where nobody answers. */
static int
begin_prepare(struct backup *b, struct lc_err *e)
{
	int rc = 0;

	if (b->hv == NULL) {
		b->subject.offline = b->target.hv.qmp == NULL;
		rc = hv_open(b->o.loop, &b->target.hv, on_event, b, &b->hv, e);
	}
	return rc != 0 ? rc : hv_prepare(b->hv, on_hv, b, e);
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
	step(b);
}

static bool
monitor_gone(const struct backup *b)
{
	return b->state == BACKUP_ST_PREPARE && b->hv != NULL && !b->subject.offline &&
	       !b->canceled && (b->err.code == LC_ENOENT || b->err.code == LC_EPEER);
}

static uint64_t
covered_now(const struct backup *b)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < b->subject.ndisks; i++)
		sum += b->readings[i].covered;
	return sum;
}

/* Every disk was read as far as it will be: to its end, or until the scratch was used up. */
static int
read_over(struct backup *b, struct lc_err *e)
{
	uint64_t all = 0;
	size_t i;

	for (i = 0; i < b->subject.ndisks; i++)
		all += point_windows(b->subject.disks[i].size);
	if (covered_now(b) == all)
		b->partial = false;
	if (!b->partial)
		return 0;
	if (covered_now(b) > b->covered_before && b->result.passes < SEED_PASSES_MAX)
		return 0;
	b->may_pass = true;
	return lc_fail(e, LC_ENOSPC, 0,
	               "%s: reading does not get on within the scratch budget: raise scratch_max "
	               "in %s (or make room in %s), or run it when the guest writes less",
	               b->o.vm, subject_origin(&b->subject), b->o.settings->scratch_dir);
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
	if (all_same(b))
		keep_base_as_result(b);
	run_work(b, b->result.outcome == BACKUP_UNCHANGED ? work_abort : work_commit);
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
	if (b->partial && b->result.outcome != BACKUP_UNCHANGED) {
		b->state = BACKUP_ST_BEGIN;
		run_work(b, work_begin);
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
	case BACKUP_ST_PREPARE:
		(void)failpoint("backup.prepared");
		if (subject_describe(&b->subject, b->hv, b->target.def, e) != 0)
			return (int)e->code;
		b->state = BACKUP_ST_BEGIN;
		run_work(b, work_begin);
		return 0;
	case BACKUP_ST_BEGIN:
		(void)failpoint("backup.begun");
		if (unchanged(b)) {
			keep_base_as_result(b);
			b->state =
			    BACKUP_ST_COMMIT; /* nothing was taken: abort the writer, close */
			run_work(b, work_abort);
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
		run_work(b, work_disks);
		return 0;
	case BACKUP_ST_DISKS:
		b->state = BACKUP_ST_READ;
		start_reading(b);
		return b->reading == 0 && b->err.code == LC_OK
		           ? lc_fail(e, LC_EINVAL, 0, "%s: it has no disk to back up", b->o.vm)
		           : 0;
	case BACKUP_ST_READ:
		(void)failpoint("backup.read");
		if (read_over(b, e) != 0)
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
		run_work(b, work_abort);
		return;
	}
	if (b->hv != NULL && again(b))
		begin_again(b);
	else
		begin_close(b);
}

/* The only place where the state changes (but for the way out); called when what the state names is
 * over. */
static void
step(struct backup *b)
{
	struct lc_err e = LC_ERR_INIT;

	if (b->state == BACKUP_ST_CLOSE)
		return;
	if (b->canceled && b->state < BACKUP_ST_COMMIT)
		(void)lc_fail(&b->err, LC_ECANCELED, 0, "%s: interrupted", b->o.vm);
	if (b->err.code == LC_OK && state_next(b, &e) != 0)
		fail(b, &e);
	if (b->err.code != LC_OK && monitor_gone(b))
		hv_close(b->hv, reopen_offline, b);
	else if (b->err.code != LC_OK)
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
		stop_reading(b, &why);
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

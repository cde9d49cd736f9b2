/*
 * The stages of a take.
 *
 *   ARM     look ─► old bitmaps judged ─► scratch files ─► guard ─► nodes over them
 *             ─► new bitmaps ─► filters, not in the way yet ─► NBD server ─► images written back
 *   CUT     does it run? ─► reopen of all permanent nodes, or begin of all copies,
 *                        or stop ─► both, and exchange of the nodes under the devices ─► cont
 *   SERVE   old bitmaps frozen ─► copies made ─► snapshot nodes, with copies of the bitmaps
 *             ─► exports ─► look: is all as it should be?
 *
 * The filter keeps, for every part of the disk that the guest overwrites, the old content in the
 * scratch; a snapshot node reads through both.  Where the scratch fails or is slow the snapshot
 * breaks and not the guest (on-cbw-error, cbw-timeout); from then on every read of the export
 * fails.  So a read that succeeded was of the instant, and what has to be asked after the last one
 * is only whether the filters were in the way all the time.  Disks that have no filter of ours are
 * copied by QEMU: see qemu_push.c.
 *
 * Between stop and cont nothing may depend on this process being alive: the commands of the cut are
 * one batch that QEMU carries out to its end even if we die (qmp_batch_survive).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/clock.h"
#include "store/base/files.h"

#include "agent/hypervisor/qemu.h"

#define KEEPER_MS 2000 /* for the scratch to answer, before it gives a snapshot back */
#define FDSETS_MAX 128 /* of earlier snapshots, before no more are made */
#define GUARD_MS \
	5000 /* a VM of a take of several never stands still longer, whatever becomes of us */

void
qemu_own_node(const struct qemu *q, char dst[QEMU_NODE_MAX], char kind, size_t i)
{
	(void)snprintf(dst, QEMU_NODE_MAX, "%s%c%zu", q->prefix, kind, i % HV_DISKS_MAX);
}

static bool
has_top(const struct qemu_disk *x)
{
	return x->top[0] != '\0';
}

/* It is part of the snapshot and has a filter. */
static bool
is_filtered(const struct qemu *q, size_t i)
{
	return q->disks[i].in && !q->disks[i].push;
}

static bool
any_filtered(const struct qemu *q)
{
	size_t i;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (is_filtered(q, i))
			return true;
	}
	return false;
}

/* ---- what is under the devices ---- */

/* Whether what is under disk i is what we know, with our filter in between or not. */
static int
check_disk(struct qemu *q, size_t i, bool filtered, struct lc_err *e)
{
	const struct json_t *devices = qemu_look_devices(q);
	const struct qemu_disk *x = &q->disks[i];
	const struct hv_disk *d = &q->base.vm.disks[i];
	char filter[QEMU_NODE_MAX];
	const char *under = NULL, *want;
	uint64_t size = 0;
	size_t k;

	qemu_own_node(q, filter, 'c', i);
	for (k = 0; k < qmp_count(devices) && under == NULL; k++) {
		const struct json_t *dev = qmp_at(devices, k);
		const char *qdev = qmp_str(dev, "qdev");
		char path[QEMU_PATH_MAX];

		if (qdev == NULL)
			continue;
		qemu_qdev_object(path, sizeof path, qdev);
		if (strcmp(path, x->qdev) != 0)
			continue;
		under = qemu_look_root(q, x->device, qdev);
		(void)qmp_u64(dev, "inserted.image.virtual-size", &size);
	}
	if (under == NULL)
		return lc_fail(e, LC_ECONFLICT, 0, "disk %s is gone", d->name);
	if (has_top(x) && strcmp(under, x->top) == 0)
		under = qemu_look_child(q, x->top, "file");
	want = filtered ? filter : x->node;
	if (under == NULL || strcmp(under, want) != 0) {
		return lc_fail(e, LC_ECONFLICT, 0,
		               "disk %s: image node %s is under it and not %s: another "
		               "tool changed it",
		               d->name, under == NULL ? "none" : under, want);
	}
	under = filtered ? qemu_look_child(q, filter, "file") : x->node;
	if (under == NULL || strcmp(under, x->node) != 0)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "disk %s: another tool put image node %s under it", d->name,
		               under == NULL ? "none" : under);
	if (size != d->size)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "disk %s was resized from %" PRIu64 " to %" PRIu64 " bytes", d->name,
		               d->size, size);
	return 0;
}

static int
check_disks(struct qemu *q, bool filtered, struct lc_err *e)
{
	const char *migration = qmp_str(qemu_look_migration(q), "status");
	size_t i;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (q->disks[i].in && check_disk(q, i, filtered && is_filtered(q, i), e) != 0)
			return LC_ECONFLICT;
	}
	if (migration != NULL && strcmp(migration, "none") != 0 &&
	    strcmp(migration, "failed") != 0 && strcmp(migration, "cancelled") != 0 &&
	    strcmp(migration, "completed") != 0)
		return lc_fail(e, LC_ECONFLICT, 0, "the VM is being migrated");
	return 0;
}

/* One that comes between the listing of the disks and the instant would be missing in the point. */
static int
check_added(const struct qemu *q, struct lc_err *e)
{
	const char *device = qemu_disks_added(q);

	if (device == NULL)
		return 0;
	return lc_fail(e, LC_ECONFLICT, 0, "a disk was added (%s)", device);
}

/* ---- ARM ---- */

/* QEMU closes no descriptor that it was given while the VM does not run, and it has no endless
 * number of them. */
static int
check_fdsets(const struct qemu *q, struct lc_err *e)
{
	size_t n = qemu_fdsets(q);

	if (n <= FDSETS_MAX)
		return 0;
	return lc_fail(
	    e, LC_EBUSY, 0,
	    "QEMU still holds %zu descriptors of earlier snapshots, as it closes none "
	    "while the VM does not run: let it run, or shut it down, and back it up then",
	    n);
}

static int
armed_look(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	if (qemu_look_check(q, b, e) != 0)
		return LC_ENOTSUP;
	if (check_fdsets(q, e) != 0)
		return LC_EBUSY;
	q->was_running = qmp_true(qemu_look_status(q), "running");
	return check_added(q, e) != 0 ? LC_ECONFLICT : check_disks(q, false, e);
}

/* QEMU tells of a migration only where this capability is on.  It changes nothing else and stays
 * on. */
static int
want_events(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)q;
	(void)e;
	(void)qmp_batch_add(
	    b, "migrate-set-capabilities",
	    qmp_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "events", "state", 1));
	qmp_batch_may_fail(b);
	return 0;
}

static int
add_scratch(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	char name[QEMU_NODE_MAX];
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!q->disks[i].in)
			continue;
		qemu_own_node(q, name, 's', i);
		(void)qmp_batch_add_fd(b, "add-fd", qmp_pack("{s:s}", "opaque", name),
		                       q->disks[i].scratch);
	}
	return 0;
}

static int
scratch_added(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t i, k = 0;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (q->disks[i].in && !qmp_u64(qmp_reply(b, k++), "fdset-id", &q->disks[i].fdset))
			return lc_fail(e, LC_EPEER, 0, "add-fd: QEMU gave no number");
	}
	return 0;
}

/* A set of descriptors whose descriptors are removed lives until its last user is gone. */
static int
add_nodes(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	char name[QEMU_NODE_MAX], path[40];
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct qemu_disk *x = &q->disks[i];

		if (!x->in)
			continue;
		qemu_own_node(q, name, 's', i);
		(void)snprintf(path, sizeof path, "/dev/fdset/%" PRIu64, x->fdset);
		(void)qmp_batch_add(b, "blockdev-add",
		                    qmp_pack("{s:s, s:s, s:s, s:s}", "driver", "file", "node-name",
		                             name, "filename", path, "locking", "off"));
		(void)qmp_batch_add(b, "remove-fd",
		                    qmp_pack("{s:I}", "fdset-id", (int64_t)x->fdset));
	}
	return 0;
}

static int
add_filters(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	int timeout_s = (int)(q->t.copy_timeout_s > 0 && q->t.copy_timeout_s < 3600
	                          ? q->t.copy_timeout_s
	                          : 5);
	char name[QEMU_NODE_MAX], scratch[QEMU_NODE_MAX];
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!is_filtered(q, i))
			continue;
		qemu_own_node(q, name, 'c', i);
		qemu_own_node(q, scratch, 's', i);
		(void)qmp_batch_add(b, "blockdev-add",
		                    qmp_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s}", "driver",
		                             "copy-before-write", "node-name", name, "file",
		                             q->disks[i].node, "target", scratch, "on-cbw-error",
		                             "break-snapshot", "cbw-timeout", timeout_s, "discard",
		                             "unmap"));
	}
	return 0;
}

static int
start_server(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	int fd = -1, rc;

	if (!any_filtered(q)) /* There is nothing to export. */
		return 0;
	rc = qemu_listen(q, &fd, e);
	if (rc != 0)
		return rc;
	(void)qmp_batch_add_fd(b, "getfd", qmp_pack("{s:s}", "fdname", QEMU_SERVER_FD), fd);
	(void)qmp_batch_add(
	    b, "nbd-server-start",
	    qmp_pack("{s:{s:s, s:{s:s}}}", "addr", "type", "fd", "data", "str", QEMU_SERVER_FD));
	qmp_batch_may_fail(b);
	/* Where the server was refused the socket must not stay in QEMU: we would take it for our
	 * server. */
	(void)qmp_batch_add(b, "closefd", qmp_pack("{s:s}", "fdname", QEMU_SERVER_FD));
	qmp_batch_may_fail(b);
	fd_close(&fd);
	return 0;
}

static int
server_started(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const struct lc_err *err;

	if (qmp_batch_count(b) == 0)
		return 0;
	err = qmp_reply_err(b, 1);
	if (err->code == LC_OK) {
		q->serving = true;
		return 0;
	}
	if (strstr(err->msg, "already running") != NULL)
		return lc_fail(
		    e, LC_EBUSY, 0,
		    "an NBD server that is not Locum's runs in this QEMU (of libvirt, "
		    "another backup tool, or another Locum store); QEMU can have only one");
	return lc_fail(e, err->code, 0, "%s", err->msg);
}

/* From here on our death, however sudden, is followed by what gives the snapshot back.  Not through
 * libvirt, which lets the next run in meanwhile: both would take the same filter out, which ends
 * QEMU 7.2.  A socket of QEMU's own serves one after the other. */
static int
start_keeper(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct guard_duty duty = {.monitor = qmp_descriptor(q->qmp), .patience_ms = KEEPER_MS};
	int scratch[HV_DISKS_MAX];
	size_t i;

	(void)b;
	if (q->t.libvirt != NULL)
		return 0;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (q->disks[i].in)
			scratch[duty.nscratch++] = q->disks[i].scratch;
	}
	duty.scratch = scratch;
	guard_free(q->keeper);
	q->keeper = NULL;
	return qemu_drop_guard(q, &duty, &q->keeper, e);
}

static const struct qemu_step arm_steps[] = {
    QEMU_STEP("hv.take.look", .build = qemu_look_build, .check = armed_look),
    QEMU_STEP("hv.take.events", .build = want_events),
    QEMU_STEP("hv.take.recover", .build = qemu_bitmap_recover),
    QEMU_STEP("hv.take.plan", .build = qemu_push_plan),
    QEMU_STEP("hv.take.whole", .build = qemu_whole_begin),
    QEMU_STEP("hv.take.whole-cancel", .build = qemu_whole_cancel, .check = qemu_whole_canceled),
    QEMU_STEP("hv.take.whole-ask", .build = qemu_whole_ask, .check = qemu_whole_told),
    QEMU_STEP("hv.take.whole-mark", .build = qemu_whole_mark),
    QEMU_STEP("hv.take.scratch", .errand = qemu_scratch_make, .collect = qemu_scratch_made),
    QEMU_STEP("hv.take.descriptors", .build = add_scratch, .check = scratch_added),
    QEMU_STEP("hv.take.guard", .build = start_keeper),
    QEMU_STEP("hv.take.nodes", .build = add_nodes),
    QEMU_STEP("hv.take.images", .build = qemu_push_nodes),
    QEMU_STEP("hv.take.bitmaps", .build = qemu_bitmap_add),
    QEMU_STEP("hv.take.filters", .build = add_filters),
    QEMU_STEP("hv.take.server", .build = start_server, .check = server_started),
    QEMU_STEP("hv.take.sync", .errand = qemu_scratch_sync, .collect = qemu_scratch_synced),
};
static const struct qemu_script arm_script = QEMU_SCRIPT(arm_steps);

static int
run_stage(struct qemu *q, const struct qemu_script *script, hv_done_cb *done, void *arg,
          struct lc_err *e)
{
	int rc = qemu_run(q, script, 1, NULL, done, arg, e);

	q->op.taking = rc == 0;
	return rc;
}

static int
arm(struct qemu *q, const struct driver_take *t, hv_done_cb *done, void *arg, struct lc_err *e)
{
	size_t i;

	q->take = *t;
	q->lost = q->dropped = false;
	q->lost_why[0] = '\0';
	q->stop_us = q->resume_us = 0;
	q->push_progress = 0;
	q->push_moved_ms = 0;
	q->base.snapshot.nsources = 0;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct hv_disk *d = &q->base.vm.disks[i];
		struct hv_source *s = &q->base.snapshot.sources[q->base.snapshot.nsources];

		q->disks[i].in = !q->base.excluded[i] && d->capturable;
		if (!q->disks[i].in)
			continue;
		*s = (struct hv_source){.disk = d};
		q->base.snapshot.nsources++;
	}
	return run_stage(q, &arm_script, done, arg, e);
}

/* ---- CUT ---- */

static int
exchange(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct json_t *options = qmp_list();
	char filter[QEMU_NODE_MAX];
	bool ok = options != NULL;
	size_t i, reopens = 0;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct qemu_disk *x = &q->disks[i];

		if (!is_filtered(q, i))
			continue;
		qemu_own_node(q, filter, 'c', i);
		if (has_top(x)) {
			ok = qmp_list_add(options, qemu_reopen_top(x->top, filter, x->read_only)) &&
			     ok;
			reopens++;
			continue;
		}
		(void)qmp_batch_add(b, "qom-set",
		                    qmp_pack("{s:s, s:s, s:s}", "path", x->qdev, "property",
		                             "drive", "value", filter));
	}
	if (reopens > 0)
		(void)qmp_batch_add(b, "blockdev-reopen", qmp_pack("{s:o}", "options", options));
	else
		qmp_list_free(options);
	return ok ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* One reopen is one instant by itself, and so is one transaction that begins all copies; anything
 * else is one only while the CPUs stand still. */
static bool
must_stand_still(const struct qemu *q)
{
	size_t i;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (is_filtered(q, i) && (!has_top(&q->disks[i]) || qemu_push_count(q) > 0))
			return true;
	}
	return q->take.group;
}

/* Arming takes seconds at times, and the VM belongs to its operator, who may stop it or let it go
 * meanwhile (from here on the events tell), or resize a disk: a filter of the old size would give
 * the guest errors behind the old end. */
static int
look_again(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	return q->take.group ? 0 : qemu_look_build(q, b, e); /* that was before the freeze */
}

static int
looked_again(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	if (qmp_batch_count(b) == 0)
		return 0;
	if (qemu_look_check(q, b, e) != 0)
		return LC_ENOTSUP;
	q->was_running = qmp_true(qemu_look_status(q), "running");
	q->stop_us = q->resume_us = 0;
	return check_added(q, e) != 0 ? LC_ECONFLICT : check_disks(q, false, e);
}

static int
cut(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	bool pause = !q->take.group && q->was_running && must_stand_still(q);
	int rc;

	if (!q->take.group)
		q->base.snapshot.instant_ns = clock_wall_ns();
	if (pause) {
		qmp_batch_survive(b);
		(void)qmp_batch_add(b, "stop", qmp_none());
		q->stopped = true;
	}
	rc = qemu_push_begin(q, b, e);
	rc = rc != 0 ? rc : exchange(q, b, e);
	if (rc == 0 && pause)
		(void)qmp_batch_add(b, "cont", qmp_none());
	return rc;
}

/* A `stop` where somebody had been faster stops nothing: no event of it comes after the answer to
 * the first command of its batch.  In order of arrival, for clocks may be set. */
static bool
stopped_by_us(const struct qemu *q, const struct qmp_batch *b)
{
	return q->stopped && q->stop_seen_ns >= qmp_reply_ns(b, 0);
}

static void
note_pause(struct qemu *q)
{
	if (q->stop_us > 0 && q->resume_us > q->stop_us)
		q->base.snapshot.pause_ns = (q->resume_us - q->stop_us) * 1000;
}

static int
was_cut(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	if (!q->was_running && q->resume_us > 0 && must_stand_still(q))
		return lc_fail(e, LC_ECONFLICT, 0,
		               "the VM was let go while its snapshot was being made");
	if (q->take.group)
		return 0;
	q->stop_again = q->stopped && !stopped_by_us(q, b);
	q->stopped = false;
	note_pause(q);
	return 0;
}

/* Our `cont` let go what somebody else had stopped. */
static int
stop_again(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (q->stop_again)
		(void)qmp_batch_add(b, "stop", qmp_none());
	q->stop_again = false;
	return 0;
}

static const struct qemu_step cut_steps[] = {
    QEMU_STEP("hv.take.status", .build = look_again, .check = looked_again),
    QEMU_STEP("hv.take.cut", .build = cut, .check = was_cut, QEMU_SENT("hv.take.cut-sent")),
    QEMU_STEP("hv.take.stop-again", .build = stop_again, .always = true),
};
static const struct qemu_script cut_script = QEMU_SCRIPT(cut_steps);

static int
freeze(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const struct guard_duty duty = {.monitor = qmp_descriptor(q->qmp),
	                                .text = "{\"execute\":\"cont\"}\n",
	                                .limit_ms = GUARD_MS};

	q->base.snapshot.instant_ns = clock_wall_ns();
	if (!q->was_running)
		return 0;
	if (guard_start(&duty, &q->guard, e) != 0)
		return LC_ENOMEM;
	q->stopped = true;
	qmp_batch_pause(b); /* see stopped_by_us */
	(void)qmp_batch_add(b, "stop", qmp_none());
	return 0;
}

/* Stopped by somebody a moment before us: not ours to let go. */
static int
frozen(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (!stopped_by_us(q, b)) {
		q->was_running = q->stopped = false;
		guard_free(q->guard);
		q->guard = NULL;
	}
	return 0;
}

static int
thaw(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	uv_timeval64_t now;

	(void)e;
	/* All VMs have been cut by now; so if this one still stands, it stood all the time.  Judged
	 * by QEMU's time of the event, which may not have been read yet. */
	if (uv_gettimeofday(&now) == 0)
		q->thaw_us = now.tv_sec * 1000000 + now.tv_usec;
	if (q->stopped)
		(void)qmp_batch_add(b, "cont", qmp_none());
	return 0;
}

static int
thawed(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)b;
	q->stopped = false;
	guard_free(q->guard);
	q->guard = NULL;
	if (q->resume_us > q->stop_us && q->resume_us < q->thaw_us)
		return lc_fail(e, LC_ETIMEDOUT, 0,
		               "the VM was let go before the snapshot of all was made");
	note_pause(q);
	return 0;
}

static const struct qemu_step freeze_steps[] = {
    QEMU_STEP("hv.take.group-status", .build = qemu_look_build, .check = looked_again),
    QEMU_STEP("hv.take.freeze-cpus", .build = freeze, .check = frozen),
};
static const struct qemu_script freeze_script = QEMU_SCRIPT(freeze_steps);
static const struct qemu_step thaw_steps[] = {
    QEMU_STEP("hv.take.thaw-cpus", .build = thaw, .check = thawed, .always = true)};
static const struct qemu_script thaw_script = QEMU_SCRIPT(thaw_steps);

/* ---- SERVE ---- */

static int
add_access(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	char name[QEMU_NODE_MAX], filter[QEMU_NODE_MAX];
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!is_filtered(q, i))
			continue;
		qemu_own_node(q, name, 'a', i);
		qemu_own_node(q, filter, 'c', i);
		(void)qmp_batch_add(b, "blockdev-add",
		                    qmp_pack("{s:s, s:s, s:s}", "driver", "snapshot-access",
		                             "node-name", name, "file", filter));
		if (q->disks[i].since[0] != '\0')
			qemu_bitmap_lay(q, b, i, name);
	}
	return 0;
}

/* Not of one size: the disk was resized since. */
static int
access_added(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t i;

	(void)q;
	for (i = 0; i < qmp_batch_count(b); i++) {
		const struct lc_err *refused = qmp_reply_err(b, i);

		if (refused->code != LC_OK)
			return lc_fail(e, LC_ECONFLICT, 0, "%s", refused->msg);
	}
	return 0;
}

static void
fill_source(struct qemu *q, struct hv_source *s, const struct qemu_disk *x, const char *name)
{
	(void)snprintf(s->socket, sizeof s->socket, "%s", q->socket);
	(void)snprintf(s->export_name, sizeof s->export_name, "%s", name);
	if (x->since[0] == '\0')
		return;
	s->changes = HV_CHANGES_SUPERSET;
	(void)snprintf(s->dirty_context, sizeof s->dirty_context,
	               "qemu:dirty-bitmap:" QEMU_LAID_BITMAP);
}

static int
add_exports(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	char name[QEMU_NODE_MAX];
	size_t i, k = 0;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct qemu_disk *x = &q->disks[i];
		struct json_t *maps = NULL;

		if (!x->in)
			continue;
		if (x->push) {
			k++;
			continue;
		}
		qemu_own_node(q, name, 'a', i);
		if (x->since[0] != '\0')
			maps = qmp_pack("[s]", QEMU_LAID_BITMAP);
		(void)qmp_batch_add(b, "block-export-add",
		                    qmp_pack("{s:s, s:s, s:s, s:s, s:b, s:o*}", "type", "nbd", "id",
		                             name, "node-name", name, "name", name, "writable", 0,
		                             "bitmaps", maps));
		fill_source(q, &q->base.snapshot.sources[k++], x, name);
	}
	return 0;
}

static int
serving(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	if (qemu_look_check(q, b, e) != 0)
		return LC_ENOTSUP;
	if (check_added(q, e) != 0 || check_disks(q, true, e) != 0)
		return LC_ECONFLICT;
	if (q->lost_why[0] != '\0')
		return lc_fail(e, LC_ECONFLICT, 0, "%s", q->lost_why);
	q->alive = true;
	qemu_budget_start(q);
	return 0;
}

static const struct qemu_step serve_steps[] = {
    QEMU_STEP("hv.take.freeze", .build = qemu_bitmap_freeze),
    QEMU_STEP("hv.take.copy-look", .build = qemu_push_look, .check = qemu_push_looked),
    QEMU_STEP("hv.take.copy-room", .errand = qemu_push_grow, .collect = qemu_push_grown),
    QEMU_STEP("hv.take.copy-wait", .build = qemu_push_wait, .check = qemu_push_waited),
    QEMU_STEP("hv.take.copied", .build = qemu_push_finish, .check = qemu_push_finished),
    QEMU_STEP("hv.take.access", .build = add_access, .check = access_added),
    QEMU_STEP("hv.take.exports", .build = add_exports),
    QEMU_STEP("hv.take.verify", .build = qemu_look_build, .check = serving),
};
static const struct qemu_script serve_script = QEMU_SCRIPT(serve_steps);

/* ---- UNDO ---- */

static int
resume(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	/* The cut failed half way and its `cont` was not heard of. */
	if (q->stopped && q->stop_us > 0 && q->resume_us <= q->stop_us) {
		(void)qmp_batch_add(b, "cont", qmp_none());
		qmp_batch_may_fail(b);
	}
	q->stopped = false;
	guard_free(q->guard);
	q->guard = NULL;
	return 0;
}

static const struct qemu_step resume_steps[] = {
    QEMU_STEP("hv.undo.resume", .build = resume, .always = true)};

int
qemu_stage(struct driver *d, enum driver_stage stage, const struct driver_take *t, hv_done_cb *done,
           void *arg, struct lc_err *e)
{
	struct qemu *q = (struct qemu *)d;

	switch (stage) {
	case DRIVER_ARM:
		return arm(q, t, done, arg, e);
	case DRIVER_FREEZE:
		return qemu_run(q, &freeze_script, 1, NULL, done, arg, e);
	case DRIVER_CUT:
		return run_stage(q, &cut_script, done, arg, e);
	case DRIVER_THAW:
		return qemu_run(q, &thaw_script, 1, NULL, done, arg, e);
	case DRIVER_SERVE:
		return run_stage(q, &serve_script, done, arg, e);
	case DRIVER_UNDO:
		q->undo[0] = (struct qemu_script)QEMU_SCRIPT(resume_steps);
		q->undo[1] = qemu_tidy_script;
		q->undo[2] = qemu_bitmap_rollback_script;
		return qemu_run(q, q->undo, 3, NULL, done, arg, e);
	}
	return lc_fail(e, LC_EINVAL, 0, "no such stage");
}

/* ---- still valid ---- */

static int
verified(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	if (qemu_look_check(q, b, e) != 0)
		return LC_ENOTSUP;
	if (q->lost)
		return lc_fail(e, LC_ECONFLICT, 0, "%s", q->lost_why);
	return check_disks(q, true, e);
}

static const struct qemu_step valid_steps[] = {
    QEMU_STEP("hv.valid.look", .build = qemu_look_build, .check = verified)};
static const struct qemu_script valid_script = QEMU_SCRIPT(valid_steps);

int
qemu_still_valid(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct qemu *q = (struct qemu *)d;

	if (q->lost)
		return lc_fail(e, LC_ECONFLICT, 0, "%s", q->lost_why);
	return qemu_run(q, &valid_script, 1, NULL, done, arg, e);
}

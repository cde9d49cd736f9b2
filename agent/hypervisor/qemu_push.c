/*
 * Disks that QEMU copies itself: those on an IOThread, where QEMU 7.2 dies of our filters and of
 * exports, and all of a VM that is set to it.
 *
 *   ARM     is a whole copy needed, and allowed? ─► scratch, reserved and formatted ─► image nodes
 *   CUT     one transaction for all of them: old bitmap frozen, job begun
 *   SERVE   what the frozen bitmap says, reserved again ─► wait for the jobs ─► end them
 *           ─► nodes closed: the file is complete
 *
 * A job is over when we say so, and not when it has copied all.  It takes its filter out then, and
 * where that comes while QEMU moves the disk to its IOThread or from there (`cont`, `stop`, a reset
 * of the guest's), the filter's last holder is what moves it: QEMU 7.2 lets go of a lock that it
 * does not hold, and aborts.  A command of ours is carried out by itself, at no such moment.
 *
 * While the job runs the guest's writes wait until the old content is in the scratch, and a scratch
 * that fails is the guest's failure: the job's own filter knows no break-snapshot.  So all that the
 * file can come to is reserved before the job begins, and what was written between that and the
 * instant right after it.
 *
 * The transaction is one instant: QEMU lets no request of a disk begin from when it comes to it
 * until it has done the last one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/hypervisor/pushed.h"
#include "agent/hypervisor/qemu.h"

#define MARGIN (UINT64_C(64) << 20) /* for what is written until the instant */
#define GROW_MS 10000
#define STILL_MS 60000 /* a job that copies nothing for so long is given up */
#define GONE_MS 30000  /* for jobs that were canceled to be gone */
/* What is being copied of a disk at any moment: a write of the guest to there waits for it, and so
 * does the end of a job that is canceled.  QEMU's own values allow for 64 MiB and more. */
#define WORKERS 8
#define CHUNK (1 << 20)

static bool
pushed(const struct qemu *q, size_t i)
{
	return q->disks[i].in && q->disks[i].push;
}

size_t
qemu_push_count(const struct qemu *q)
{
	size_t i, n = 0;

	for (i = 0; i < q->base.vm.ndisks; i++)
		n += pushed(q, i) ? 1 : 0;
	return n;
}

/* ---- ARM ---- */

/* What records of ours on its node hold, of one name or of any; from the last look. */
static uint64_t
recorded(const struct qemu *q, size_t i, const char *name)
{
	const struct json_t *maps = qmp_get(qemu_look_node(q, q->disks[i].node), "dirty-bitmaps");
	uint64_t sum = 0, count;
	size_t k;

	for (k = 0; k < qmp_count(maps); k++) {
		const char *its = qmp_str(qmp_at(maps, k), "name");

		if (!qemu_ours(q, its) || qemu_whole_is(q, its) ||
		    (name != NULL && strcmp(its, name) != 0))
			continue;
		count = 0;
		(void)qmp_u64(qmp_at(maps, k), "count", &count);
		sum = count > UINT64_MAX - sum ? UINT64_MAX : sum + count;
	}
	return sum;
}

/* How large its file may get. */
static uint64_t
estimate(const struct qemu *q, size_t i)
{
	uint64_t size = q->base.vm.disks[i].size, bytes = recorded(q, i, NULL);

	if (q->disks[i].since[0] == '\0' || bytes > size - (size < MARGIN ? size : MARGIN))
		return pushed_need(size, size);
	return pushed_need(size, bytes + bytes / 4 + MARGIN);
}

static int
refuse_whole(const struct qemu *q, size_t i, uint64_t need, struct lc_err *e)
{
	const struct hv_disk *d = &q->base.vm.disks[i];

	return lc_fail(e, LC_ENOTSUP, 0,
	               "disk %s: %s and QEMU has to copy all of it, which takes up to %" PRIu64
	               " bytes of scratch in %s: allow it with push_full = yes in [vm %s]",
	               d->name,
	               q->take.have_since ? "what changed is not known" : "there is no point of it",
	               need, q->t.scratch_dir, q->t.vm);
}

int
qemu_push_plan(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	uint64_t sum = 0;
	size_t i;

	(void)b;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		struct qemu_disk *x = &q->disks[i];

		x->reserved = 0;
		if (!pushed(q, i))
			continue;
		x->reserved = estimate(q, i);
		sum += x->reserved;
		if (x->since[0] == '\0' && !q->t.push_full)
			return refuse_whole(q, i, x->reserved, e);
	}
	if (q->t.scratch_max > 0 && sum > q->t.scratch_max)
		return lc_fail(e, LC_ENOTSUP, 0,
		               "QEMU has to copy what changed, which takes up to %" PRIu64
		               " bytes of scratch, and scratch_max is %" PRIu64,
		               sum, q->t.scratch_max);
	return 0;
}

int
qemu_push_nodes(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	char name[QEMU_NODE_MAX], scratch[QEMU_NODE_MAX];
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!pushed(q, i))
			continue;
		qemu_own_node(q, name, 'p', i);
		qemu_own_node(q, scratch, 's', i);
		(void)qmp_batch_add(b, "blockdev-add",
		                    qmp_pack("{s:s, s:s, s:s, s:n}", "driver", "qcow2", "node-name",
		                             name, "file", scratch, "backing"));
	}
	return 0;
}

/* ---- CUT ---- */

static bool
add_actions(const struct qemu *q, size_t i, struct json_t *actions)
{
	const struct qemu_disk *x = &q->disks[i];
	bool some = x->since[0] != '\0', ok = true;
	char name[QEMU_NODE_MAX];

	qemu_own_node(q, name, 'p', i);
	if (some)
		ok = qmp_list_add(actions, qmp_pack("{s:s, s:{s:s, s:s}}", "type",
		                                    "block-dirty-bitmap-disable", "data", "node",
		                                    x->node, "name", x->since));
	return qmp_list_add(actions,
	                    qmp_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s*, s:s*, s:b, s:b, s:{s:i, "
	                             "s:i}}}",
	                             "type", "blockdev-backup", "data", "job-id", name, "device",
	                             x->node, "target", name, "sync", some ? "bitmap" : "full",
	                             "bitmap", some ? x->since : NULL, "bitmap-mode",
	                             some ? "never" : NULL, "auto-finalize", 0, "auto-dismiss", 0,
	                             "x-perf", "max-workers", WORKERS, "max-chunk", CHUNK)) &&
	       ok;
}

int
qemu_push_begin(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct json_t *actions = qmp_list();
	bool ok = actions != NULL;
	size_t i;

	if (qemu_push_count(q) == 0) {
		qmp_list_free(actions);
		return 0;
	}
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (pushed(q, i))
			ok = ok && add_actions(q, i, actions);
	}
	if (!ok) {
		qmp_list_free(actions);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	(void)qmp_batch_add(b, "transaction", qmp_pack("{s:o}", "actions", actions));
	return 0;
}

/* ---- SERVE ---- */

struct grow {
	struct errand job;
	int fds[HV_DISKS_MAX];
	uint64_t sizes[HV_DISKS_MAX];
	size_t n;
};

static void
run_grow(const struct errand *job, struct errand_result *out)
{
	const struct grow *g = (const struct grow *)job;
	size_t i;

	for (i = 0; i < g->n && out->sys == 0; i++) {
		if (fallocate(g->fds[i], FALLOC_FL_KEEP_SIZE, 0, (off_t)g->sizes[i]) != 0)
			out->sys = errno;
	}
}

int
qemu_push_look(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	return qemu_push_count(q) == 0 ? 0 : qemu_look_build(q, b, e);
}

int
qemu_push_looked(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t i;

	if (qmp_batch_count(b) == 0)
		return 0;
	if (qemu_look_check(q, b, e) != 0)
		return LC_ENOTSUP;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		struct qemu_disk *x = &q->disks[i];

		if (pushed(q, i))
			x->copied = x->since[0] == '\0' ? q->base.vm.disks[i].size
			                                : recorded(q, i, x->since);
	}
	return 0;
}

int
qemu_push_grow(struct qemu *q, errand_done_cb *done, struct lc_err *e)
{
	struct grow g = {.job = {.run = run_grow, .deadline_ms = GROW_MS}};
	size_t i;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		struct qemu_disk *x = &q->disks[i];
		uint64_t need;

		if (!pushed(q, i))
			continue;
		need = pushed_need(q->base.vm.disks[i].size, x->copied);
		if (need <= x->reserved)
			continue;
		x->reserved = need;
		g.fds[g.n] = x->scratch;
		g.sizes[g.n++] = need;
	}
	g.job.keep = g.fds;
	g.job.nkeep = g.n;
	return g.n == 0 ? DRIVER_NOTHING : errand_start(q->loop, &g.job, done, q, e);
}

int
qemu_push_grown(struct qemu *q, struct errand_result *r, struct lc_err *e)
{
	if (!r->late && r->sys == 0)
		return 0;
	errno = r->late ? ETIMEDOUT : r->sys;
	return lc_fail_errno(e, "scratch in %s: more for what changed", q->t.scratch_dir);
}

int
qemu_push_wait(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (qemu_push_count(q) > 0)
		(void)qmp_batch_add(b, "query-jobs", qmp_none());
	return 0;
}

static const struct json_t *
find_job(const struct json_t *jobs, const char *id)
{
	size_t i;

	for (i = 0; i < qmp_count(jobs); i++) {
		const char *its = qmp_str(qmp_at(jobs, i), "id");

		if (its != NULL && strcmp(its, id) == 0)
			return qmp_at(jobs, i);
	}
	return NULL;
}

/* Whether the job of disk i has copied all, and well. */
static int
judge_job(struct qemu *q, size_t i, const struct json_t *jobs, bool *copied, struct lc_err *e)
{
	const char *disk = q->base.vm.disks[i].name, *status, *error;
	char name[QEMU_NODE_MAX];
	const struct json_t *job;
	uint64_t done = 0;

	qemu_own_node(q, name, 'p', i);
	job = find_job(jobs, name);
	status = qmp_str(job, "status");
	error = qmp_str(job, "error");
	if (error != NULL)
		return lc_fail(e, LC_ECONFLICT, 0, "disk %s: QEMU cannot copy it: %s", disk, error);
	if (status == NULL || strcmp(status, "concluded") == 0)
		return lc_fail(e, LC_ECONFLICT, 0, "disk %s: somebody ended QEMU's copying of it",
		               disk);
	*copied = strcmp(status, "pending") == 0;
	(void)qmp_u64(job, "current-progress", &done);
	q->push_progress += done;
	return 0;
}

int
qemu_push_waited(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	uint64_t before = q->push_progress;
	bool all = true, copied = false;
	size_t i;

	if (qmp_batch_count(b) == 0)
		return 0;
	if (q->lost_why[0] != '\0')
		return lc_fail(e, LC_ECONFLICT, 0, "%s", q->lost_why);
	q->push_progress = 0;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (pushed(q, i) && judge_job(q, i, qmp_reply(b, 0), &copied, e) != 0)
			return LC_ECONFLICT;
		all = all && (!pushed(q, i) || copied);
	}
	if (all)
		return 0;
	if (q->push_progress != before)
		q->push_moved_ms = qemu_waited_ms(q);
	if (qemu_waited_ms(q) - q->push_moved_ms > STILL_MS)
		return lc_fail(e, LC_ETIMEDOUT, 0, "QEMU's copying of the disks stands still");
	return QEMU_AGAIN;
}

/* All has been copied.  When their files are closed they are complete. */
int
qemu_push_finish(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	static const char kinds[] = "ps";
	char name[QEMU_NODE_MAX];
	size_t i, k;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!pushed(q, i))
			continue;
		qemu_own_node(q, name, 'p', i);
		(void)qmp_batch_add(b, "job-finalize", qmp_pack("{s:s}", "id", name));
		(void)qmp_batch_add(b, "job-dismiss", qmp_pack("{s:s}", "id", name));
		for (k = 0; kinds[k] != '\0'; k++) {
			qemu_own_node(q, name, kinds[k], i);
			(void)qmp_batch_add(b, "blockdev-del",
			                    qmp_pack("{s:s}", "node-name", name));
		}
	}
	return 0;
}

int
qemu_push_finished(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct hv_source *s = q->base.snapshot.sources;
	size_t i;

	(void)b;
	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct qemu_disk *x = &q->disks[i];

		if (!x->in)
			continue;
		if (x->push) {
			s->file = (struct hv_file){
			    .fd = x->scratch, .size = s->disk->size, .copied = x->copied};
			s->changes = x->since[0] == '\0' ? HV_CHANGES_UNKNOWN : HV_CHANGES_SUPERSET;
			(void)snprintf(s->dirty_context, sizeof s->dirty_context, "%s",
			               x->since[0] == '\0' ? "" : "copied");
		}
		s++;
	}
	return 0;
}

/* ---- tidying ---- */

/* Jobs of ours that the last look found; *over: that is done already. */
static const char *
job_of_look(const struct qemu *q, size_t i, bool *over)
{
	const struct json_t *job = qmp_at(qemu_look_jobs(q), i);
	const char *id = qmp_str(job, "device"), *status = qmp_str(job, "status");

	*over = status != NULL && strcmp(status, "concluded") == 0;
	return qemu_ours(q, id) ? id : NULL;
}

static void
add_may_fail(struct qmp_batch *b, const char *command, struct json_t *args)
{
	(void)qmp_batch_add(b, command, args);
	qmp_batch_may_fail(b);
}

int
qemu_push_cancel(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t i;
	bool over;

	(void)e;
	for (i = 0; i < qmp_count(qemu_look_jobs(q)); i++) {
		const char *id = job_of_look(q, i, &over);

		if (id != NULL && !over)
			add_may_fail(b, "block-job-cancel",
			             qmp_pack("{s:s, s:b}", "device", id, "force", 1));
	}
	return 0;
}

int
qemu_push_dismiss(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t i;
	bool over;

	(void)e;
	for (i = 0; i < qmp_count(qemu_look_jobs(q)); i++) {
		const char *id = job_of_look(q, i, &over);

		if (id != NULL)
			add_may_fail(b, "job-dismiss", qmp_pack("{s:s}", "id", id));
	}
	if (qmp_batch_count(b) > 0)
		(void)qmp_batch_add(b, "query-jobs", qmp_none());
	return 0;
}

int
qemu_push_dismissed(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t n = qmp_batch_count(b), i;
	const struct json_t *jobs = n == 0 ? NULL : qmp_reply(b, n - 1);

	for (i = 0; i < qmp_count(jobs); i++) {
		if (!qemu_ours(q, qmp_str(qmp_at(jobs, i), "id")))
			continue;
		if (qemu_waited_ms(q) < GONE_MS)
			return QEMU_AGAIN;
		return lc_fail(e, LC_EBUSY, 0,
		               "QEMU's copying of a disk does not end (%d s): does the scratch in "
		               "%s answer?",
		               GONE_MS / 1000, q->t.scratch_dir);
	}
	return 0;
}

void
qemu_push_guard(const struct qemu *q, struct qmp_batch *b)
{
	char name[QEMU_NODE_MAX];
	size_t i;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!pushed(q, i))
			continue;
		qemu_own_node(q, name, 'p', i);
		add_may_fail(b, "block-job-cancel",
		             qmp_pack("{s:s, s:b}", "device", name, "force", 1));
		add_may_fail(b, "job-dismiss", qmp_pack("{s:s}", "id", name));
	}
}

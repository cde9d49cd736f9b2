/* What blocks in the store: runs on libuv's pool, while nothing else of the backup goes on. */
#include <string.h>
#include <sys/statvfs.h>

#include "agent/backup_state.h"
#include "agent/capture.h"
#include "agent/hypervisor/openas.h"
#include "agent/likeness.h"
#include "agent/lull.h"
#include "store/base/files.h"

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

void
backup_work_stands(uv_work_t *req)
{
	struct backup *b = req->data;

	b->lasts = store_check_there(b->o.store, NULL) == 0 && lull_lasts(b->o.lull, b->o.store);
}

void
backup_work_begin(uv_work_t *req)
{
	struct backup *b = req->data;
	uint64_t none = 0, *seen = b->o.damage_seen != NULL ? b->o.damage_seen : &none;
	struct writer_opts wo = {.vm = b->o.vm,
	                         .workers = capture_pool_threads(b->o.pool),
	                         .level = (int)b->o.settings->level};

	b->budget = b->subject.offline ? 0 : scratch_budget(b->o.settings);
	if (store_check_there(b->o.store, &b->step_err) == 0 &&
	    writer_begin(b->o.store, &wo, &b->writer, &b->step_err) == 0 &&
	    writer_base_damaged(b->writer, seen, &b->damaged, &b->step_err) == 0)
		(void)likeness_check(b->o.settings, b->o.store, b->o.vm, writer_base(b->writer),
		                     hv_vm(b->hv)->def, &b->step_err);
}

static int
read_file(struct backup *b, size_t disk, const struct subject_disk *d)
{
	int fd = -1, rc = openas_read(d->file, d->uid, d->gid, &fd, &b->step_err);

	if (rc == 0)
		rc = capture_file(b->writer, 0, disk, fd, d->file, d->size, &b->step_err);
	fd_close(&fd);
	return rc;
}

void
backup_work_disks(uv_work_t *req)
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
		if (b->damaged || !subject_same_file(writer_base(b->writer), d))
			rc = read_file(b, i, d);
	}
}

/* `covered` is for the caller to fill. */
static struct commit_opts
commit_opts_of(const struct backup *b, const uint64_t *covered)
{
	return (struct commit_opts){
	    .source_ns = b->take.snapshot->instant_ns,
	    .pause_ns = b->take.snapshot->pause_ns,
	    .consistency = b->subject.offline         ? POINT_OFF
	                   : b->take.snapshot->frozen ? POINT_FROZEN
	                                              : POINT_CRASH,
	    .freeze = b->take.snapshot->freeze,
	    .seed = b->partial,
	    .covered = covered,
	    .definition = b->subject.definition.n > 0 ? (const char *)b->subject.definition.p
	                                              : NULL,
	    .left_out = b->subject.left_out.n > 0 ? (const char *)b->subject.left_out.p : NULL,
	};
}

void
backup_keep(struct backup *b, const struct point *p)
{
	b->result.point = *p;
	b->result.point.definition = NULL;
	b->result.point.left_out = NULL;
	b->result.outcome = BACKUP_UNCHANGED;
}

void
backup_work_commit(uv_work_t *req)
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

bool
backup_all_same(const struct backup *b)
{
	struct commit_opts co = commit_opts_of(b, NULL);

	return b->o.skip_same && !b->partial && b->result.passes == 1 &&
	       writer_nothing_new(b->writer, &co);
}

void
backup_work_abort(uv_work_t *req)
{
	struct backup *b = req->data;

	writer_abort(b->writer);
	b->writer = NULL;
}

/* The disks of a snapshot, read side by side; the last one to end goes on with the backup. */
#include <inttypes.h>
#include <stdio.h>

#include "agent/backup_state.h"
#include "agent/capture.h"

#define SEED_PASSES_MAX 1000u

/* What lies in a file takes no more scratch the longer it is read. */
static bool
is_file(const struct hv_source *s)
{
	return s->socket[0] == '\0';
}

void
backup_read_stop(struct backup *b, const struct lc_err *why)
{
	size_t i;

	if (why != NULL)
		backup_fail(b, why);
	for (i = 0; i < b->subject.ndisks; i++) {
		if (b->readings[i].capture == NULL)
			continue;
		if (why != NULL)
			capture_cancel(b->readings[i].capture, why);
		else if (b->subject.offline || !is_file(b->subject.disks[i].source))
			capture_stop(b->readings[i].capture);
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
		if (b->may_pass && !b->subject.offline && !b->untracked) {
			lc_err_clear(&e);
			(void)lc_fail(&e, LC_ECONFLICT, 0,
			              "%s (is the scratch folder %s full, slow or failing?)",
			              err->msg, b->o.settings->scratch_dir);
		}
		backup_read_stop(b, &e);
	}
	if (b->reading == 0)
		backup_step(b);
}

static int
start_capture(struct backup *b, size_t i, struct lc_err *e)
{
	const struct subject_disk *d = &b->subject.disks[i];
	const struct point_disk *base = subject_base(writer_base(b->writer), d);
	char name[HV_NAME_MAX + POINT_NAME_MAX + 2];
	bool known = d->source->changes == HV_CHANGES_SUPERSET && base != NULL && !b->damaged &&
	             !b->untracked;
	struct capture_opts o = {.loop = b->o.loop,
	                         .pool = b->o.pool,
	                         .writer = b->writer,
	                         .disk = i,
	                         .name = name,
	                         .size = d->size,
	                         .file = is_file(d->source) ? &d->source->file : NULL,
	                         .socket = d->source->socket,
	                         .export_name = d->source->export_name,
	                         .dirty_context = known ? d->source->dirty_context : "",
	                         .trusted = base == NULL ? 0 : base->covered,
	                         .untracked = &b->untracked,
	                         .force = {UINT64_MAX, UINT64_MAX}};

	(void)snprintf(name, sizeof name, "%s/%s", b->o.vm, d->name);
	if (known && base->size != d->size) { /* what lies behind an end may differ */
		o.force[0] = base->size == 0 ? UINT64_MAX : (base->size - 1) / WINDOW_SIZE;
		o.force[1] = d->size == 0 ? UINT64_MAX : (d->size - 1) / WINDOW_SIZE;
	}
	if (base != NULL && !known && b->result.scanned++ == 0)
		(void)snprintf(b->result.why_scanned, sizeof b->result.why_scanned, "%s: %s",
		               d->name,
		               b->damaged ? "contents of its newest point are damaged in the store"
		               : b->untracked ? "the record of changes lacks some: a disk was made "
		                                "smaller and larger again"
		                              : d->source->why_unknown);
	return capture_start(&o, on_captured, &b->readings[i], &b->readings[i].capture, e);
}

void
backup_read_start(struct backup *b)
{
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	for (i = 0; i < b->subject.ndisks && b->err.code == LC_OK; i++) {
		if (b->subject.disks[i].source == NULL)
			continue;
		if (start_capture(b, i, &e) != 0)
			backup_read_stop(b, &e);
		else
			b->reading++;
	}
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

int
backup_read_over(struct backup *b, struct lc_err *e)
{
	uint64_t all = 0;
	size_t i;

	for (i = 0; i < b->subject.ndisks; i++)
		all += point_windows(b->subject.disks[i].size);
	if (covered_now(b) == all)
		b->partial = false;
	if (!b->partial)
		return 0;
	if (b->crowded ||
	    (covered_now(b) > b->covered_before && b->result.passes < SEED_PASSES_MAX))
		return 0;
	b->may_pass = true;
	return lc_fail(e, LC_ENOSPC, 0,
	               "%s: reading does not get on within the scratch budget: raise scratch_max "
	               "in %s (or make room in %s), or run it when the guest writes less",
	               b->o.vm, subject_origin(&b->subject), b->o.settings->scratch_dir);
}

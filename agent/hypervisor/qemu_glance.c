/*
 * Whether anything is different since a prepare: all that it had asked is asked again, in one
 * batch, and if every answer is the same, word for word, so is what would be made of them.
 *
 * Nobody listens between two cycles (others need the monitor, too), so no event tells what went on;
 * but whatever counts shows in an answer: a bit in a record of changes, a node of somebody's
 * snapshot, a device, a size.  Not asked again is what stays for as long as QEMU lives; that it is
 * the same QEMU shows in the numbers of its threads, and in the records of changes, which live in
 * its memory.  The guest's clock goes on: of it only what a definition says is compared.
 */
#include <string.h>

#include "store/base/log.h"

#include "agent/hypervisor/introspect.h"
#include "agent/hypervisor/qemu.h"
#include "agent/hypervisor/qmp_memo.h"

struct hv_memo {
	struct qmp_memo *said;
	bool noted;      /* what is said is what one prepare asked for, and all of that */
	bool local_time; /* the guest's clock showed local time */
};

struct hv_memo *
hv_memo_new(void)
{
	struct hv_memo *m = lc_alloc(sizeof *m);

	if (m != NULL)
		m->said = qmp_memo_new();
	if (m != NULL && m->said != NULL)
		return m;
	lc_free(m);
	return NULL;
}

void
hv_memo_free(struct hv_memo *m)
{
	if (m == NULL)
		return;
	qmp_memo_free(m->said);
	lc_free(m);
}

void
qemu_glance_forget(struct qemu *q)
{
	if (q->t.memo != NULL)
		q->t.memo->noted = false;
}

void
qemu_glance_record(struct qemu *q)
{
	if (q->t.memo != NULL)
		qmp_record(q->qmp, q->t.memo->said);
}

bool
qemu_note(struct driver *d)
{
	struct qemu *q = (struct qemu *)d;
	struct hv_memo *m = q->t.memo;

	if (m == NULL || d->vm.def == NULL || !qmp_memo_whole(m->said))
		return false;
	m->local_time = strcmp(d->vm.def->clock, "localtime") == 0;
	m->noted = true;
	return true;
}

bool
qemu_glance_can(const struct qemu *q)
{
	return q->t.memo != NULL && q->t.memo->noted;
}

static int
ask(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	introspect_clock_ask(b);
	qmp_batch_recall(b, q->t.memo->said);
	return 0;
}

static int
told(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const char *differs = qmp_batch_differs(b);

	(void)e;
	q->same = differs == NULL &&
	          introspect_clock_local(qmp_reply(b, 0)) == q->t.memo->local_time;
	if (!q->same)
		log_debug("%s: not as it was: %s", q->t.vm,
		          differs == NULL ? "its clock" : differs);
	return 0;
}

static const struct qemu_step steps[] = {QEMU_STEP("hv.glance", .build = ask, .check = told)};
const struct qemu_script qemu_glance_script = QEMU_SCRIPT(steps);

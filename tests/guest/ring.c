/*
 * What is on the disks when seqw begins.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ring.h"
#include "say.h"

struct first_problem {
	bool set;
	char text[128];
};

static void
note_problem(void *arg, enum seqfmt_problem what, uint64_t n, unsigned disk, unsigned slot,
             uint64_t found)
{
	struct first_problem *p = arg;

	(void)found;
	if (p->set)
		return;
	p->set = true;
	(void)snprintf(p->text, sizeof(p->text), "%s n=%" PRIu64 " disk=%u slot=%u",
	               seqfmt_problem_name(what), n, disk, slot);
}

/* The newest record of all rings, whatever the number of disks was then. */
static const struct seqfmt_rec *
newest_of_all(const struct seqfmt_slot *const *ring, unsigned ndisks)
{
	const struct seqfmt_rec *top = NULL;
	unsigned d, s;

	for (d = 0; d < ndisks; d++) {
		for (s = 0; s < SEQFMT_SLOTS; s++) {
			if (ring[d][s].kind == SEQFMT_VALID &&
			    (top == NULL || ring[d][s].rec.n > top->n))
				top = &ring[d][s].rec;
		}
	}
	return top;
}

/* With the same number of disks, each must hold its own records. */
static bool
right_disks(struct seqw *w, const struct seqfmt_slot *const *ring)
{
	const struct seqfmt_rec *r;
	bool ok = true;
	unsigned d, s;

	for (d = 0; d < w->ndisks; d++) {
		for (s = 0; s < SEQFMT_SLOTS; s++) {
			r = &ring[d][s].rec;
			if (ring[d][s].kind != SEQFMT_VALID || r->ndisks != w->ndisks ||
			    r->disk == d)
				continue;
			say("SEQ WRONG-DISK disk=%u name=%s holds=%u", d, w->disk[d].name, r->disk);
			ok = false;
			break;
		}
	}
	return ok;
}

/* Judge the rings as seqcheck would, and find the number to go on with. */
static bool
resume(struct seqw *w, const struct seqfmt_slot *const *ring)
{
	const struct seqfmt_rec *top = newest_of_all(ring, w->ndisks);
	struct first_problem first = {0};
	struct seqfmt_result res;

	w->next = w->epoch = w->prev_sum = 0;
	if (top == NULL) {
		say("SEQ check empty");
		return true;
	}
	if (top->ndisks == w->ndisks && !right_disks(w, ring))
		return false;
	w->next = top->n + 1;
	w->prev_sum = top->sum;
	w->epoch = top->epoch;
	atomic_store(&w->last, top->n);
	if (top->ndisks != w->ndisks) {
		w->epoch = w->next;
		say("SEQ check disks-changed newest=%" PRIu64 " from=%u to=%u", top->n, top->ndisks,
		    w->ndisks);
		return true;
	}
	if (seqfmt_check(ring, w->ndisks, note_problem, &first, &res))
		say("SEQ check ok newest=%" PRIu64 " checked=%" PRIu64, res.top.n, res.checked);
	else
		say("SEQ check BAD newest=%" PRIu64 " problems=%" PRIu64 " first: %s", res.top.n,
		    res.problems, first.text);
	return true;
}

/* Returns 0 or an errno value.  buf has room for SEQFMT_LOAD_MAX bytes. */
static int
load_ring(struct seqw *w, unsigned d, uint8_t *buf, struct seqfmt_slot *ring)
{
	const unsigned per_read = SEQFMT_LOAD_MAX / SEQFMT_REC_SIZE;
	unsigned s;
	int rc;

	rc = disk_read(&w->disk[d], buf, SEQFMT_REC_SIZE, 0);
	if (rc != 0)
		return rc;
	w->region_end[d] = seqfmt_region_end(buf, w->disk[d].size);
	for (s = 0; s < SEQFMT_SLOTS; s++) {
		if (s % per_read == 0)
			rc = disk_read(&w->disk[d], buf, SEQFMT_LOAD_MAX,
			               SEQFMT_RING_OFF + (uint64_t)s * SEQFMT_REC_SIZE);
		if (rc != 0)
			return rc;
		ring[s].kind = seqfmt_get_rec(buf + (size_t)(s % per_read) * SEQFMT_REC_SIZE,
		                              &ring[s].rec);
	}
	return 0;
}

bool
ring_resume(struct seqw *w)
{
	struct seqfmt_slot *ring[SEQFMT_MAX_DISKS] = {0};
	uint8_t *buf = disk_alloc(SEQFMT_LOAD_MAX);
	bool ok = true;
	unsigned d;
	int rc;

	for (d = 0; d < w->ndisks && ok; d++) {
		ring[d] = disk_alloc(SEQFMT_SLOTS * sizeof(*ring[d]));
		rc = load_ring(w, d, buf, ring[d]);
		if (rc != 0) {
			say("SEQ READ-ERROR disk=%u errno=%d", d, rc);
			ok = false;
		}
	}
	ok = ok && resume(w, (const struct seqfmt_slot *const *)ring);
	for (d = 0; d < w->ndisks; d++)
		free(ring[d]);
	free(buf);
	return ok;
}

/*
 * The records of changes: bitmaps in QEMU.
 *
 * Name:  locum.<tag>.<id of the point it counts from>.<size of the disk>.<first half of the id it
 *        follows, or 0>.<hash of the disk's name> (hex).  A bitmap counts only against the point
 *        whose id it bears, only for that disk with that size, and only on the node that is under
 *        its device now.
 *
 * With S the point before and P the new one, the order on every node is
 *
 *     1 add P (follows S)    2 INSTANT    3 freeze S    4 read S∪P's changes
 *     5 commit: remove S; or roll back: thaw S, merge P into S, remove P
 *
 * Each disk's record stands for itself; a roll-back is one transaction.  S records until after P
 * began, so at any moment S and those that follow it hold every change since S.  What a dead
 * process leaves, and what the next take makes of it:
 *
 *   died      on the nodes                      store's newest is S              ... is P
 *   before 1  S records                         S is used                        -
 *   1 .. 3    S records, P records (follows S)  S used, P removed at the next 1  -
 *   3 .. 5    S frozen, P records (follows S)   thaw S, merge P into S,          P is used, S goes
 *                                               remove P, use S                  at the next 5
 *   in 5      as before or after: one step      -                                P is used
 *   after 5   P records  (committed)            - (the store commits before 5)   P is used
 *             S records  (rolled back)          S is used                        -
 *
 * P "follows S" only if S could be used when P was added.  So a frozen S with a hole in it
 * (somebody froze it, or it was left frozen and its follower removed) is never mistaken for one
 * that we froze: nothing follows it.
 *
 * Whatever else is found (missing, inconsistent, busy, persistent: it may be a copy from another
 * image; another granularity; on a node that is no longer under the device, as after an external
 * snapshot) means that changes are unknown.  What is of no use is removed with the next commit, and
 * not before: until then nothing newer is durable.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/bytes.h"

#include "agent/hypervisor/qemu.h"

struct bitmap {
	const char *node;
	const char *name;
	uint8_t id[HV_ID_SIZE];
	uint64_t size;
	uint64_t follows;
	uint64_t disk; /* hash of its name: images may be exchanged between devices */
	bool recording;
	bool empty;
	bool usable; /* in itself: consistent, not persistent, right granularity, in nobody's use */
	const char *why_not;
};

/* The part of an id that a follower bears. */
static uint64_t
half(const uint8_t id[HV_ID_SIZE])
{
	return lc_get64(id);
}

static uint64_t
hash_of(const char *name)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (; *name != '\0'; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h;
}

static void
name_bitmap(const struct qemu *q, char dst[QEMU_BITMAP_MAX], const struct hv_disk *d,
            uint64_t follows)
{
	char hex[2 * HV_ID_SIZE + 1];

	(void)snprintf(dst, QEMU_BITMAP_MAX, "%s%s.%" PRIx64 ".%" PRIx64 ".%" PRIx64, q->prefix,
	               lc_hex(hex, q->take.point, HV_ID_SIZE), d->size, follows, hash_of(d->name));
}

static bool
hex64(const char **s, char end, uint64_t *out)
{
	const char *p = *s;
	uint64_t v = 0;
	int n;

	for (n = 0; *p != end; n++, p++) {
		const char *digits = "0123456789abcdef";
		const char *d = *p == '\0' ? NULL : strchr(digits, *p);

		if (d == NULL || n == 16)
			return false;
		v = v << 4 | (uint64_t)(d - digits);
	}
	*s = p;
	*out = v;
	return n > 0;
}

/* One of query-named-block-nodes' bitmaps as ours; false where it is not. */
static bool
read_bitmap(const struct qemu *q, const char *node, const struct json_t *v, struct bitmap *out)
{
	const char *name = qmp_str(v, "name"), *s;
	char id[2 * HV_ID_SIZE + 1];
	uint64_t granularity = 0, count = 0;

	*out = (struct bitmap){.node = node, .name = name};
	if (!qemu_ours(q, name))
		return false;
	s = name + strlen(q->prefix);
	if (strlen(s) < sizeof id || s[sizeof id - 1] != '.')
		return false;
	memcpy(id, s, sizeof id - 1);
	id[sizeof id - 1] = '\0';
	s += sizeof id;
	if (!lc_unhex(out->id, HV_ID_SIZE, id) || !hex64(&s, '.', &out->size))
		return false;
	s++;
	if (!hex64(&s, '.', &out->follows))
		return false;
	s++;
	if (!hex64(&s, '\0', &out->disk))
		return false;
	out->recording = qmp_true(v, "recording");
	(void)qmp_u64(v, "granularity", &granularity);
	out->empty = qmp_u64(v, "count", &count) && count == 0;
	if (qmp_true(v, "inconsistent"))
		out->why_not = "was not closed cleanly";
	else if (qmp_true(v, "persistent"))
		out->why_not = "is stored in the image and may be of another one";
	else if (qmp_true(v, "busy"))
		out->why_not = "is in use by another tool";
	else if (granularity != HV_GRANULE)
		out->why_not = "has another granularity";
	out->usable = out->why_not == NULL;
	return true;
}

/* Calls f for every bitmap of ours, on any node; false from f ends it. */
typedef void each_cb(struct qemu *q, const struct bitmap *m, void *arg);

static void
each_bitmap(struct qemu *q, each_cb *f, void *arg)
{
	const struct json_t *nodes = qemu_look_nodes(q);
	size_t i, k;

	for (i = 0; i < qmp_count(nodes); i++) {
		const struct json_t *list = qmp_get(qmp_at(nodes, i), "dirty-bitmaps");
		const char *node = qmp_str(qmp_at(nodes, i), "node-name");
		struct bitmap m;

		for (k = 0; node != NULL && k < qmp_count(list); k++) {
			if (read_bitmap(q, node, qmp_at(list, k), &m))
				f(q, &m, arg);
		}
	}
}

/* ---- actions of a transaction ---- */

static bool
act(struct json_t *actions, const char *type, const char *node, const char *name)
{
	return qmp_list_add(actions, qmp_pack("{s:s, s:{s:s, s:s}}", "type", type, "data", "node",
	                                      node, "name", name));
}

static bool
act_merge(struct json_t *actions, const char *node, const char *into, const char *from)
{
	return qmp_list_add(actions, qmp_pack("{s:s, s:{s:s, s:s, s:[s]}}", "type",
	                                      "block-dirty-bitmap-merge", "data", "node", node,
	                                      "target", into, "bitmaps", from));
}

/* Takes actions; adds the command if there are any. */
static int
transaction(struct qmp_batch *b, struct json_t *actions, bool ok, struct lc_err *e)
{
	if (!ok || actions == NULL) {
		qmp_list_free(actions);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	if (qmp_count(actions) > 0)
		(void)qmp_batch_add(b, "transaction", qmp_pack("{s:o}", "actions", actions));
	else
		qmp_list_free(actions);
	return 0;
}

/* ---- take ---- */

struct search {
	const struct qemu_disk *x;
	const uint8_t *id;
	uint64_t disk;
	struct bitmap found;   /* on the node under the device */
	const char *elsewhere; /* other node that has it */
	struct json_t *actions;
	bool ok;
	size_t followers;
};

static void
search_one(struct qemu *q, const struct bitmap *m, void *arg)
{
	struct search *s = arg;

	(void)q;
	if (memcmp(m->id, s->id, HV_ID_SIZE) != 0 || m->disk != s->disk)
		return;
	if (strcmp(m->node, s->x->node) == 0)
		s->found = *m;
	else
		s->elsewhere = m->node;
}

/* Those that follow the frozen one hold what it misses. */
static void
merge_follower(struct qemu *q, const struct bitmap *m, void *arg)
{
	struct search *s = arg;

	(void)q;
	if (strcmp(m->node, s->x->node) != 0 || !m->usable || !m->recording ||
	    m->follows != half(s->id) || m->size != s->found.size || m->disk != s->disk)
		return;
	s->ok = act_merge(s->actions, m->node, s->found.name, m->name) && s->ok;
	s->followers++;
}

/* Where the record since s->id is whole, nothing else of ours on the node is of any use. */
static void
remove_stray(struct qemu *q, const struct bitmap *m, void *arg)
{
	struct search *s = arg;

	(void)q;
	if (strcmp(m->node, s->x->node) == 0 && m->usable &&
	    (memcmp(m->id, s->id, HV_ID_SIZE) != 0 || m->disk != s->disk))
		s->ok = act(s->actions, "block-dirty-bitmap-remove", m->node, m->name) && s->ok;
}

/* Why the record since s->id cannot be used, into why; false where it can, thawed if need be. */
static bool
unusable(struct qemu *q, struct search *s, uint64_t size, char *why, size_t n)
{
	const struct bitmap *m = &s->found;

	if (m->name == NULL && s->elsewhere != NULL) {
		(void)snprintf(why, n,
		               "the record of changes is on image node %s, which is not under the "
		               "disk any more: somebody made a snapshot or moved the image",
		               s->elsewhere);
	} else if (m->name == NULL) {
		(void)snprintf(why, n,
		               "no record of changes since the last point: QEMU was restarted, "
		               "the record was removed, or a newer point was dropped");
	} else if (!m->usable) {
		(void)snprintf(why, n, "the record of changes %s", m->why_not);
	} else if (m->size != size) {
		(void)snprintf(why, n, "the disk was resized from %" PRIu64 " to %" PRIu64 " bytes",
		               m->size, size);
	} else if (s->x->push && qemu_whole_cut(q, m->node, size)) {
		(void)snprintf(why, n,
		               "the disk was made smaller and larger again, which no record has");
	} else if (!m->recording) {
		s->ok = act(s->actions, "block-dirty-bitmap-enable", m->node, m->name) && s->ok;
		each_bitmap(q, merge_follower, s);
		if (s->followers > 0)
			return false;
		(void)snprintf(why, n, "the record of changes was stopped by somebody");
	} else {
		return false;
	}
	return true;
}

bool
qemu_bitmap_quiet(const struct driver *d, const uint8_t since[HV_ID_SIZE])
{
	struct qemu *q = (struct qemu *)(uintptr_t)d; /* is only looked at */
	size_t i;

	for (i = 0; i < d->vm.ndisks; i++) {
		const struct hv_disk *x = &d->vm.disks[i];
		struct search s = {.x = &q->disks[i], .id = since, .disk = hash_of(x->name)};

		if (d->excluded[i] || !x->capturable)
			continue;
		each_bitmap(q, search_one, &s);
		if (s.found.name == NULL || !s.found.usable || !s.found.recording ||
		    !s.found.empty || s.found.size != x->size ||
		    (s.x->push && qemu_whole_cut(q, s.x->node, x->size)))
			return false;
	}
	return true;
}

static bool
recover_disk(struct qemu *q, size_t i, struct json_t *actions, char *why, size_t n)
{
	struct qemu_disk *x = &q->disks[i];
	uint64_t size = q->base.vm.disks[i].size;
	struct search s = {.x = x,
	                   .id = q->take.since,
	                   .disk = hash_of(q->base.vm.disks[i].name),
	                   .ok = true,
	                   .actions = qmp_list()};
	size_t k;

	x->since[0] = '\0';
	if (s.actions == NULL)
		return false;
	if (!q->take.have_since) {
		(void)snprintf(why, n, "no point before this one");
	} else {
		each_bitmap(q, search_one, &s);
		if (!unusable(q, &s, size, why, n)) {
			each_bitmap(q, remove_stray, &s);
			for (k = 0; k < qmp_count(s.actions); k++)
				s.ok = qmp_list_add(actions, qmp_copy(qmp_at(s.actions, k))) &&
				       s.ok;
			(void)snprintf(x->since, sizeof x->since, "%s", s.found.name);
		}
	}
	qmp_list_free(s.actions);
	return s.ok;
}

int
qemu_bitmap_recover(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct json_t *actions = qmp_list();
	bool ok = actions != NULL;
	size_t i, k = 0;

	for (i = 0; i < q->base.vm.ndisks && ok; i++) {
		struct hv_source *src = &q->base.snapshot.sources[k];

		if (!q->disks[i].in)
			continue;
		ok = recover_disk(q, i, actions, src->why_unknown, sizeof src->why_unknown);
		k++;
	}
	return transaction(b, actions, ok, e);
}

/* Adding and freezing are single commands: a transaction waits for all input and output of the VM
 * first, and each disk's record stands for itself. */
int
qemu_bitmap_add(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	char name[QEMU_BITMAP_MAX];
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct qemu_disk *x = &q->disks[i];

		if (!x->in)
			continue;
		name_bitmap(q, name, &q->base.vm.disks[i],
		            x->since[0] == '\0' ? 0 : half(q->take.since));
		(void)qmp_batch_add(b, "block-dirty-bitmap-add",
		                    qmp_pack("{s:s, s:s, s:i}", "node", x->node, "name", name,
		                             "granularity", (int)HV_GRANULE));
	}
	return 0;
}

/* Where QEMU copies a disk it is frozen in the transaction that begins the copy. */
int
qemu_bitmap_freeze(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct qemu_disk *x = &q->disks[i];

		if (x->in && !x->push && x->since[0] != '\0')
			(void)qmp_batch_add(
			    b, "block-dirty-bitmap-disable",
			    qmp_pack("{s:s, s:s}", "node", x->node, "name", x->since));
	}
	return 0;
}

void
qemu_bitmap_lay(const struct qemu *q, struct qmp_batch *b, size_t i, const char *over)
{
	const struct qemu_disk *x = &q->disks[i];

	(void)qmp_batch_add(b, "block-dirty-bitmap-add",
	                    qmp_pack("{s:s, s:s, s:i, s:b}", "node", over, "name", QEMU_LAID_BITMAP,
	                             "granularity", (int)HV_GRANULE, "disabled", 1));
	(void)qmp_batch_add(b, "block-dirty-bitmap-merge",
	                    qmp_pack("{s:s, s:s, s:[{s:s, s:s}]}", "node", over, "target",
	                             QEMU_LAID_BITMAP, "bitmaps", "node", x->node, "name",
	                             x->since));
	qmp_batch_may_fail(b);
}

/* ---- end ---- */

struct undo {
	struct json_t *actions;
	bool ok;
};

struct pair { /* the bitmap of `since` on the same node */
	const char *node;
	const uint8_t *id;
	uint64_t disk;
	struct bitmap found;
};

static void
find_on_node(struct qemu *q, const struct bitmap *m, void *arg)
{
	struct pair *p = arg;

	(void)q;
	if (strcmp(m->node, p->node) == 0 && memcmp(m->id, p->id, HV_ID_SIZE) == 0 &&
	    m->disk == p->disk)
		p->found = *m;
}

static void
roll_back_one(struct qemu *q, const struct bitmap *m, void *arg)
{
	struct undo *u = arg;
	struct pair p = {.node = m->node, .id = q->take.since, .disk = m->disk};

	if (memcmp(m->id, q->take.point, HV_ID_SIZE) != 0)
		return;
	if (q->take.have_since && m->follows == half(q->take.since))
		each_bitmap(q, find_on_node, &p);
	if (p.found.name != NULL && p.found.usable && !p.found.recording) {
		u->ok = act(u->actions, "block-dirty-bitmap-enable", m->node, p.found.name) &&
		        u->ok;
		u->ok = act_merge(u->actions, m->node, p.found.name, m->name) && u->ok;
	}
	u->ok = act(u->actions, "block-dirty-bitmap-remove", m->node, m->name) && u->ok;
}

static int
roll_back(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct undo u = {.actions = qmp_list(), .ok = true};

	if (u.actions != NULL)
		each_bitmap(q, roll_back_one, &u);
	return transaction(b, u.actions, u.ok, e);
}

static void
remove_one(struct qemu *q, const struct bitmap *m, void *arg)
{
	struct qmp_batch *b = arg;

	(void)q;
	(void)qmp_batch_add(b, "block-dirty-bitmap-remove",
	                    qmp_pack("{s:s, s:s}", "node", m->node, "name", m->name));
	qmp_batch_may_fail(b); /* One that is in use stays and goes with a later commit. */
}

static void
remove_old(struct qemu *q, const struct bitmap *m, void *arg)
{
	if (memcmp(m->id, q->take.point, HV_ID_SIZE) != 0)
		remove_one(q, m, arg);
}

static int
commit(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	each_bitmap(q, remove_old, b);
	qemu_whole_commit(q, b);
	return 0;
}

static int
forget(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	each_bitmap(q, remove_one, b);
	return 0;
}

static int
nothing(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)q;
	(void)b;
	(void)e;
	return 0;
}

static const struct qemu_step commit_steps[] = {
    QEMU_STEP("hv.end.look", .build = qemu_look_build, .check = qemu_look_check),
    QEMU_STEP("hv.end.commit", .build = commit),
    QEMU_STEP("hv.end.committed", .build = nothing),
};
const struct qemu_script qemu_bitmap_commit_script = QEMU_SCRIPT(commit_steps);

static const struct qemu_step rollback_steps[] = {
    QEMU_STEP("hv.end.rollback-look", .build = qemu_look_build, .check = qemu_look_check),
    /* The transaction waits for all input and output: not where a filter could not be taken out of
     * the way. */
    QEMU_STEP("hv.end.rollback-probe", .errand = qemu_scratch_probe,
              .collect = qemu_scratch_probed),
    QEMU_STEP("hv.end.rollback", .build = roll_back),
    QEMU_STEP("hv.end.rolled-back", .build = nothing),
};
const struct qemu_script qemu_bitmap_rollback_script = QEMU_SCRIPT(rollback_steps);

static const struct qemu_step forget_steps[] = {
    QEMU_STEP("hv.end.forget-look", .build = qemu_look_build, .check = qemu_look_check),
    QEMU_STEP("hv.end.forget", .build = forget),
};
const struct qemu_script qemu_bitmap_forget_script = QEMU_SCRIPT(forget_steps);

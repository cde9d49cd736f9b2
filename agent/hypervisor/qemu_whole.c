/*
 * Whether a disk that QEMU copies was made smaller, and as large as before again.  What lay behind
 * the smaller end reads as zeros then, and no record of changes has it: a smaller disk cuts them
 * off.  Of a disk that is read through an export the zeros tell; a copy by QEMU has nothing there.
 *
 * So its node has one more bitmap, which records nothing and has all bits set but the first few:
 *
 *     locum.<tag>.w.<size of the disk>.<bytes that are set>.<half the id of its point>  (hex)
 *
 * Where fewer are set than its name says the disk was made smaller, and no record that was there
 * then is of use.  So it stays until a point is committed that was taken with a new one, and so
 * does one of another size: the disk may get that again.
 *
 * No command sets bits, but a full copy that was canceled leaves those of what it did not come to.
 * It is made between two nodes of nothing, so slowly that it does not come far, and its bitmap
 * merged into ours; once in the life of a QEMU, or of a size.  QEMU warns on its stderr that
 * nothing has no block size.
 *
 *   copy begun ─► canceled ─► how much is set? ─► merged, the nodes of nothing deleted
 *
 * It is a net under the records: where QEMU does not make one the disk is copied as if it were
 * there.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/bytes.h"

#include "agent/hypervisor/qemu.h"

#define GONE_MS 3000

enum state {
	STATE_NONE = 0,
	STATE_WHOLE,
	STATE_CUT,
};

bool
qemu_whole_is(const struct qemu *q, const char *name)
{
	return qemu_ours(q, name) && strncmp(name + strlen(q->prefix), "w.", 2) == 0;
}

struct mark {
	uint64_t size;
	uint64_t bytes; /* that were set */
	uint64_t point;
};

static void
name_mark(const struct qemu *q, char dst[QEMU_BITMAP_MAX], const struct mark *m)
{
	(void)snprintf(dst, QEMU_BITMAP_MAX, "%sw.%" PRIx64 ".%" PRIx64 ".%" PRIx64, q->prefix,
	               m->size, m->bytes, m->point);
}

static bool
read_mark(const struct qemu *q, const char *name, struct mark *m)
{
	char again[QEMU_BITMAP_MAX], *end;

	if (!qemu_whole_is(q, name))
		return false;
	m->size = strtoull(name + strlen(q->prefix) + 2, &end, 16);
	m->bytes = *end == '.' ? strtoull(end + 1, &end, 16) : 0;
	m->point = *end == '.' ? strtoull(end + 1, &end, 16) : 0;
	name_mark(q, again, m);
	return strcmp(name, again) == 0;
}

/* Of one bitmap, for that size.  One that nothing was merged into is none. */
static enum state
judge(const struct qemu *q, const struct json_t *map, uint64_t size)
{
	uint64_t count = 0;
	struct mark m;

	if (!read_mark(q, qmp_str(map, "name"), &m) || m.size != size ||
	    !qmp_u64(map, "count", &count) || count == 0)
		return STATE_NONE;
	return count == m.bytes ? STATE_WHOLE : STATE_CUT;
}

static const struct json_t *
maps_of(const struct qemu *q, const char *node)
{
	return qmp_get(qemu_look_node(q, node), "dirty-bitmaps");
}

/* Of a disk of that size, at the last look. */
static enum state
look(const struct qemu *q, const char *node, uint64_t size)
{
	const struct json_t *maps = maps_of(q, node);
	enum state found = STATE_NONE;
	size_t i;

	for (i = 0; i < qmp_count(maps); i++) {
		enum state its = judge(q, qmp_at(maps, i), size);

		found = its > found ? its : found;
	}
	return found;
}

bool
qemu_whole_cut(const struct qemu *q, const char *node, uint64_t size)
{
	return look(q, node, size) == STATE_CUT;
}

static bool
wanted(const struct qemu *q, size_t i)
{
	const struct qemu_disk *x = &q->disks[i];

	return x->in && x->push && look(q, x->node, q->base.vm.disks[i].size) != STATE_WHOLE;
}

static void
add(struct qmp_batch *b, const char *command, struct json_t *args)
{
	(void)qmp_batch_add(b, command, args);
	qmp_batch_may_fail(b);
}

static void
add_nothing(struct qmp_batch *b, const char *name, uint64_t size)
{
	add(b, "blockdev-add",
	    qmp_pack("{s:s, s:s, s:I}", "driver", "null-co", "node-name", name, "size",
	             (int64_t)size));
}

int
qemu_whole_begin(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	char from[QEMU_NODE_MAX], to[QEMU_NODE_MAX];
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		q->disks[i].whole = 0;
		if (!wanted(q, i))
			continue;
		qemu_own_node(q, from, 'w', i);
		qemu_own_node(q, to, 'v', i);
		add_nothing(b, from, q->base.vm.disks[i].size);
		add_nothing(b, to, q->base.vm.disks[i].size);
		add(b, "block-dirty-bitmap-add",
		    qmp_pack("{s:s, s:s, s:i, s:b}", "node", from, "name", from, "granularity",
		             (int)HV_GRANULE, "disabled", 1));
		add(b, "blockdev-backup",
		    qmp_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:b}", "job-id", from, "device",
		             from, "target", to, "sync", "full", "bitmap", from, "bitmap-mode",
		             "always", "speed", 1, "auto-dismiss", 0));
	}
	return 0;
}

/* A command for each copy; false: there is none. */
static bool
tell_copies(const struct qemu *q, struct qmp_batch *b, const char *command)
{
	char name[QEMU_NODE_MAX];
	size_t i, n = 0;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!wanted(q, i))
			continue;
		qemu_own_node(q, name, 'w', i);
		add(b, command, qmp_pack("{s:s}", "id", name));
		n++;
	}
	return n > 0;
}

int
qemu_whole_cancel(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (tell_copies(q, b, "job-cancel"))
		add(b, "query-jobs", qmp_none());
	return 0;
}

int
qemu_whole_canceled(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t n = qmp_batch_count(b), i;
	const struct json_t *jobs = n == 0 ? NULL : qmp_reply(b, n - 1);

	(void)e;
	for (i = 0; i < qmp_count(jobs); i++) {
		const char *id = qmp_str(qmp_at(jobs, i), "id");
		const char *status = qmp_str(qmp_at(jobs, i), "status");

		if (qemu_ours(q, id) && id[strlen(q->prefix)] == 'w' && status != NULL &&
		    strcmp(status, "concluded") != 0 && qemu_waited_ms(q) < GONE_MS)
			return QEMU_AGAIN;
	}
	return 0;
}

int
qemu_whole_ask(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (tell_copies(q, b, "job-dismiss"))
		add(b, "query-named-block-nodes", qmp_pack("{s:b}", "flat", 1));
	return 0;
}

int
qemu_whole_told(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t n = qmp_batch_count(b), i, k;
	const struct json_t *nodes = n == 0 ? NULL : qmp_reply(b, n - 1);
	char name[QEMU_NODE_MAX];

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		qemu_own_node(q, name, 'w', i);
		for (k = 0; k < qmp_count(nodes); k++) {
			const struct json_t *node = qmp_at(nodes, k);
			const char *its = qmp_str(node, "node-name");

			if (its != NULL && strcmp(its, name) == 0)
				(void)qmp_u64(qmp_at(qmp_get(node, "dirty-bitmaps"), 0), "count",
				              &q->disks[i].whole);
		}
	}
	return 0;
}

static void
remove_mark(struct qmp_batch *b, const char *node, const char *name)
{
	add(b, "block-dirty-bitmap-remove", qmp_pack("{s:s, s:s}", "node", node, "name", name));
}

/* Those that would only add up, where no point comes to be. */
static void
remove_whole(const struct qemu *q, struct qmp_batch *b, const char *node, uint64_t size)
{
	const struct json_t *maps = maps_of(q, node);
	size_t i;

	for (i = 0; i < qmp_count(maps); i++) {
		if (judge(q, qmp_at(maps, i), size) == STATE_WHOLE)
			remove_mark(b, node, qmp_str(qmp_at(maps, i), "name"));
	}
}

int
qemu_whole_mark(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	char name[QEMU_NODE_MAX], mark[QEMU_BITMAP_MAX];
	struct mark m = {.point = lc_get64(q->take.point)};
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct qemu_disk *x = &q->disks[i];

		if (!wanted(q, i))
			continue;
		qemu_own_node(q, name, 'w', i);
		if (x->whole > 0) {
			m.size = q->base.vm.disks[i].size;
			m.bytes = x->whole;
			name_mark(q, mark, &m);
			remove_whole(q, b, x->node, m.size);
			add(b, "block-dirty-bitmap-add",
			    qmp_pack("{s:s, s:s, s:i, s:b}", "node", x->node, "name", mark,
			             "granularity", (int)HV_GRANULE, "disabled", 1));
			add(b, "block-dirty-bitmap-merge",
			    qmp_pack("{s:s, s:s, s:[{s:s, s:s}]}", "node", x->node, "target", mark,
			             "bitmaps", "node", name, "name", name));
		}
		add(b, "blockdev-del", qmp_pack("{s:s}", "node-name", name));
		qemu_own_node(q, name, 'v', i);
		add(b, "blockdev-del", qmp_pack("{s:s}", "node-name", name));
	}
	return 0;
}

void
qemu_whole_commit(struct qemu *q, struct qmp_batch *b)
{
	const struct json_t *nodes = qemu_look_nodes(q);
	uint64_t point = lc_get64(q->take.point);
	size_t i, k, n;
	struct mark m;

	for (i = 0; i < qmp_count(nodes); i++) {
		const struct json_t *maps = qmp_get(qmp_at(nodes, i), "dirty-bitmaps");
		const char *node = qmp_str(qmp_at(nodes, i), "node-name");

		for (k = n = 0; k < qmp_count(maps); k++)
			n += read_mark(q, qmp_str(qmp_at(maps, k), "name"), &m) && m.point == point;
		for (k = 0; n > 0 && node != NULL && k < qmp_count(maps); k++) {
			const char *name = qmp_str(qmp_at(maps, k), "name");

			if (read_mark(q, name, &m) && m.point != point)
				remove_mark(b, node, name);
		}
	}
}

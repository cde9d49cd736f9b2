/*
 * Everything of ours out of QEMU again, whoever put it there: this process, or one that died.
 *
 *   look ─► does the scratch answer? ─► copies ended ─► exports ─► wait until they are gone
 *     ─► snapshot nodes
 *     ─► filters from under the devices ─► their nodes ─► server ─► descriptors ─► scratch
 *
 * Snapshot nodes before filters: as long as one reads through a filter, QEMU lets nobody but the
 * filter write below it.
 *
 * Exports first: a change of the graph waits for the requests of every export in it, with the
 * guest's CPUs held, so none may be left.  The filters are taken out live: only putting them in has
 * to be of one instant.
 *
 * A filter is never taken out on the strength of what was true before: others work on the graph as
 * well (an external snapshot), and a qom-set of the node that is under the device already ends QEMU
 * 7.2 with an assertion.  So what is there is looked at in the round trip right before.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/qemu.h"

#define EXPORTS_GONE_MS 3000

struct json_t *
qemu_reopen_top(const char *top, const char *file, bool read_only)
{
	return qmp_pack("{s:s, s:s, s:s, s:s, s:b}", "driver", "raw", "node-name", top, "file",
	                file, "discard", "unmap", "read-only", read_only ? 1 : 0);
}

static int
delete_exports(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const struct json_t *exports = qemu_look_exports(q);
	size_t i;

	(void)e;
	/* A socket that was handed over and never used is QEMU's as well; without it whoever still
	 * listens is a server. */
	if (!q->serving && qemu_listening(q)) {
		(void)qmp_batch_add(b, "closefd", qmp_pack("{s:s}", "fdname", QEMU_SERVER_FD));
		qmp_batch_may_fail(b);
	}
	for (i = 0; i < qmp_count(exports); i++) {
		const char *id = qmp_str(qmp_at(exports, i), "id");

		if (!qemu_ours(q, id))
			continue;
		/* One that is on its way out is refused. */
		(void)qmp_batch_add(b, "block-export-del",
		                    qmp_pack("{s:s, s:s}", "id", id, "mode", "hard"));
		qmp_batch_may_fail(b);
	}
	return 0;
}

static size_t
count_exports(const struct qemu *q, const struct json_t *exports, bool ours)
{
	size_t i, n = 0;

	for (i = 0; i < qmp_count(exports); i++)
		n += qemu_ours(q, qmp_str(qmp_at(exports, i), "id")) == ours ? 1 : 0;
	return n;
}

static int
ask_exports(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (count_exports(q, qemu_look_exports(q), true) > 0)
		(void)qmp_batch_add(b, "query-block-exports", qmp_none());
	return 0;
}

static int
wait_exports(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	if (qmp_batch_count(b) == 0 || count_exports(q, qmp_reply(b, 0), true) == 0)
		return 0;
	if (qemu_waited_ms(q) < EXPORTS_GONE_MS)
		return QEMU_AGAIN;
	return lc_fail(
	    e, LC_EBUSY, 0,
	    "an NBD client still holds the snapshot's export on %s; the snapshot stays until "
	    "the client is gone",
	    q->socket);
}

/* The first node below one of ours that is not ours, or NULL. */
static const char *
below(const struct qemu *q, const char *node)
{
	int depth;

	for (depth = 0; depth < 8 && node != NULL && qemu_ours(q, node); depth++)
		node = qemu_look_child(q, node, "file");
	return node != NULL && qemu_ours(q, node) ? NULL : node;
}

static int
remove_filters(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const struct json_t *devices = qemu_look_devices(q);
	struct json_t *options = qmp_list();
	size_t i, reopens = 0;
	bool ok = true;

	for (i = 0; i < qmp_count(devices); i++) {
		const struct json_t *dev = qmp_at(devices, i);
		const char *root = qmp_str(dev, "inserted.node-name");
		const char *qdev = qmp_str(dev, "qdev");
		const char *file;
		char path[QEMU_PATH_MAX];

		if (root == NULL || qdev == NULL)
			continue;
		if (qemu_ours(q, root) && below(q, root) != NULL) {
			qemu_qdev_object(path, sizeof path, qdev);
			(void)qmp_batch_add(b, "qom-set",
			                    qmp_pack("{s:s, s:s, s:s}", "path", path, "property",
			                             "drive", "value", below(q, root)));
			continue;
		}
		if (strncmp(root, DRIVER_TOP_PREFIX, strlen(DRIVER_TOP_PREFIX)) != 0)
			continue;
		file = qemu_look_child(q, root, "file");
		if (!qemu_ours(q, file) || below(q, file) == NULL)
			continue;
		ok = qmp_list_add(options, qemu_reopen_top(root, below(q, file),
		                                           qmp_true(dev, "inserted.ro"))) &&
		     ok;
		reopens++;
	}
	if (reopens > 0)
		(void)qmp_batch_add(b, "blockdev-reopen", qmp_pack("{s:o}", "options", options));
	else
		qmp_list_free(options);
	return ok ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* All nodes of ours of the kinds given, in their order. */
static void
delete_kinds(struct qemu *q, struct qmp_batch *b, const char *kinds)
{
	const struct json_t *nodes = qemu_look_nodes(q);
	size_t i, n = strlen(q->prefix);

	for (; *kinds != '\0'; kinds++) {
		for (i = 0; i < qmp_count(nodes); i++) {
			const char *name = qmp_str(qmp_at(nodes, i), "node-name");

			if (qemu_ours(q, name) && name[n] == *kinds)
				(void)qmp_batch_add(b, "blockdev-del",
				                    qmp_pack("{s:s}", "node-name", name));
		}
	}
}

/* With a new look at the rest, as much time may have gone by since the last one. */
static int
delete_access(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)qemu_look_build(q, b, e);
	delete_kinds(q, b, "a");
	return 0;
}

static int
delete_nodes(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	delete_kinds(q, b, "cpswv");
	return 0;
}

static int
stop_server(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (!q->serving && !qemu_listening(q))
		return 0;
	/* Stopping it ends exports of others too, and waits for their clients. */
	if (count_exports(q, qemu_look_exports(q), false) > 0)
		return 0;
	(void)qmp_batch_add(b, "nbd-server-stop", qmp_none());
	qmp_batch_may_fail(b);
	return 0;
}

static int
server_stopped(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (qmp_batch_count(b) > 0) {
		q->serving = false;
		(void)unlink(q->socket);
	}
	return 0;
}

static bool
is_our_fdset(const struct qemu *q, const struct json_t *set)
{
	return qemu_ours(q, qmp_str(qmp_at(qmp_get(set, "fds"), 0), "opaque"));
}

size_t
qemu_fdsets(const struct qemu *q)
{
	const struct json_t *sets = qemu_look_fdsets(q);
	size_t i, n = 0;

	for (i = 0; i < qmp_count(sets); i++)
		n += is_our_fdset(q, qmp_at(sets, i)) ? 1 : 0;
	return n;
}

static int
remove_fds(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const struct json_t *sets = qemu_look_fdsets(q);
	size_t i;

	(void)e;
	for (i = 0; i < qmp_count(sets); i++) {
		const struct json_t *set = qmp_at(sets, i);
		uint64_t id;

		if (!is_our_fdset(q, set) || !qmp_u64(set, "fdset-id", &id))
			continue;
		(void)qmp_batch_add(b, "remove-fd", qmp_pack("{s:I}", "fdset-id", (int64_t)id));
		qmp_batch_may_fail(b);
		/* QEMU keeps them for as long as the guest stands still; once more does nothing
		 * more. */
		qmp_batch_unnoted(b);
	}
	return 0;
}

static int
forget_scratch(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)b;
	(void)e;
	qemu_scratch_close(q);
	/* Where something could not be removed the keeper stays, and tries it when we are gone. */
	if (q->op.err.code == LC_OK) {
		guard_free(q->keeper);
		q->keeper = NULL;
	}
	return 0;
}

/* ---- the short way ---- */

static void
add_disk_nodes(struct qemu *q, struct qmp_batch *b, const char *kinds)
{
	char name[QEMU_NODE_MAX];
	size_t i;

	for (; *kinds != '\0'; kinds++) {
		for (i = 0; i < q->base.vm.ndisks; i++) {
			if (!q->disks[i].in)
				continue;
			qemu_own_node(q, name, *kinds, i);
			(void)qmp_batch_add(b, "blockdev-del",
			                    qmp_pack("{s:s}", "node-name", name));
			qmp_batch_may_fail(b);
		}
	}
}

/* Exports and what reads, from what this process knows. */
static void
drop_readers(struct qemu *q, struct qmp_batch *b)
{
	char name[QEMU_NODE_MAX];
	size_t i;

	for (i = 0; i < q->base.vm.ndisks; i++) {
		if (!q->disks[i].in)
			continue;
		qemu_own_node(q, name, 'a', i);
		(void)qmp_batch_add(b, "block-export-del",
		                    qmp_pack("{s:s, s:s}", "id", name, "mode", "hard"));
		qmp_batch_may_fail(b);
	}
	add_disk_nodes(q, b, "a");
}

/* A live migration of an idle guest leaves some 30 ms, so this is two round trips.  Whatever is
 * refused here is looked after by the steps of the long way. */
static int
drop_exports(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)qemu_look_build(q, b, e);
	drop_readers(q, b);
	return 0;
}

static int
drop_filters(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	int rc = remove_filters(q, b, e);

	qmp_batch_all_may_fail(b);
	add_disk_nodes(q, b, "cps");
	return rc;
}

/* ---- the guard's way ---- */

/* The lines of a batch that is not run, as a string. */
static char *
lines(struct qmp_batch *b)
{
	struct lc_buf text = {0};

	if (b == NULL || qmp_batch_text(b, &text) != 0 || lc_buf_append(&text, "", 1) != 0)
		lc_buf_free(&text);
	qmp_batch_free(b);
	return (char *)text.p;
}

/* The command that takes the filter of disk i out. */
static char *
exchange_lines(struct qemu *q, size_t i)
{
	const struct qemu_disk *d = &q->disks[i];
	struct qmp_batch *b = qmp_batch_new(q->qmp);

	if (b != NULL && d->top[0] != '\0')
		(void)qmp_batch_add(
		    b, "blockdev-reopen",
		    qmp_pack("{s:[o]}", "options", qemu_reopen_top(d->top, d->node, d->read_only)));
	else if (b != NULL)
		(void)qmp_batch_add(b, "qom-set",
		                    qmp_pack("{s:s, s:s, s:s}", "path", d->qdev, "property",
		                             "drive", "value", d->node));
	return lines(b);
}

int
qemu_drop_guard(struct qemu *q, struct guard_duty *duty, struct guard **out, struct lc_err *e)
{
	enum { FIRST, REST, SERVER, FIXED };
	struct qmp_batch *fixed[FIXED];
	struct guard_exchange exchanges[HV_DISKS_MAX];
	char filters[HV_DISKS_MAX][QEMU_NODE_MAX], *texts[FIXED + HV_DISKS_MAX];
	size_t i, n;
	bool ok = true;
	int rc;

	for (n = 0; n < FIXED; n++)
		fixed[n] = qmp_batch_new(q->qmp);
	if (fixed[FIRST] != NULL) {
		qemu_push_guard(q, fixed[FIRST]);
		drop_readers(q, fixed[FIRST]);
	}
	if (fixed[REST] != NULL)
		add_disk_nodes(q, fixed[REST], "cps");
	if (fixed[SERVER] != NULL)
		(void)qmp_batch_add(fixed[SERVER], "nbd-server-stop", qmp_none());
	for (n = 0; n < FIXED; n++)
		texts[n] = lines(fixed[n]);
	for (i = 0; i < q->base.vm.ndisks; i++) {
		const struct qemu_disk *d = &q->disks[i];
		size_t k = n - FIXED;

		if (!d->in || d->push)
			continue;
		texts[n] = exchange_lines(q, i);
		qemu_own_node(q, filters[k], 'c', i);
		exchanges[k] = (struct guard_exchange){.holder = d->top[0] == '\0' ? NULL : d->top,
		                                       .filter = filters[k],
		                                       .node = d->node,
		                                       .text = texts[n++]};
	}
	for (i = 0; i < n; i++)
		ok = texts[i] != NULL && ok;
	duty->prefix = q->prefix;
	duty->text = texts[FIRST];
	duty->exchanges = exchanges;
	duty->nexchanges = n - FIXED;
	duty->rest = texts[REST];
	duty->stop_server = texts[SERVER];
	duty->socket = q->socket;
	rc = ok ? guard_start(duty, out, e) : lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; i < n; i++)
		lc_free(texts[i]);
	return rc;
}

static const struct qemu_step drop_steps[] = {
    QEMU_STEP("hv.drop.exports", .build = drop_exports, .check = qemu_look_check),
    QEMU_STEP("hv.drop.filters", .build = drop_filters),
};
const struct qemu_script qemu_drop_script = QEMU_SCRIPT(drop_steps);

static const struct qemu_step steps[] = {
    QEMU_STEP("hv.release.look", .build = qemu_look_build, .check = qemu_look_check),
    QEMU_STEP("hv.release.probe", .errand = qemu_scratch_probe, .collect = qemu_scratch_probed),
    QEMU_STEP("hv.release.cancel", .build = qemu_push_cancel),
    QEMU_STEP("hv.release.dismiss", .build = qemu_push_dismiss, .check = qemu_push_dismissed),
    QEMU_STEP("hv.release.exports", .build = delete_exports),
    QEMU_STEP("hv.release.wait", .build = ask_exports, .check = wait_exports),
    QEMU_STEP("hv.release.access", .build = delete_access, .check = qemu_look_check),
    QEMU_STEP("hv.release.filters", .build = remove_filters, QEMU_SENT("hv.release.filters-sent")),
    QEMU_STEP("hv.release.nodes", .build = delete_nodes),
    QEMU_STEP("hv.release.server", .build = stop_server, .check = server_stopped),
    QEMU_STEP("hv.release.fds", .build = remove_fds),
    QEMU_STEP("hv.release.scratch", .build = forget_scratch, .always = true),
};
const struct qemu_script qemu_tidy_script = QEMU_SCRIPT(steps);

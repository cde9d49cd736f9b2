/*
 * What QEMU says there is.  One batch of queries, kept until the next look.
 *
 * The graph comes from x-debug-query-block-graph (QEMU 4.0 and later): no other command of 7.2
 * tells what node lies under what, and a guess is not enough to decide where a guest's writes go.
 */
#include <string.h>

#include "agent/hypervisor/qemu.h"

#define DEVICES_MAX 256
#define NODES_MAX 2048

enum look {
	LOOK_BLOCK = 0,
	LOOK_NODES,
	LOOK_GRAPH,
	LOOK_EXPORTS,
	LOOK_FDSETS,
	LOOK_JOBS,
	LOOK_STATUS,
	LOOK_MIGRATION
};

int
qemu_look_build(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)q;
	(void)e;
	(void)qmp_batch_add(b, "query-block", qmp_none());
	(void)qmp_batch_add(b, "query-named-block-nodes", qmp_pack("{s:b}", "flat", 1));
	(void)qmp_batch_add(b, "x-debug-query-block-graph", qmp_none());
	(void)qmp_batch_add(b, "query-block-exports", qmp_none());
	(void)qmp_batch_add(b, "query-fdsets", qmp_none());
	(void)qmp_batch_add(b, "query-block-jobs", qmp_none());
	(void)qmp_batch_add(b, "query-status", qmp_none());
	(void)qmp_batch_add(b, "query-migrate", qmp_none());
	return 0;
}

static const struct json_t *
answer(const struct qemu *q, enum look i)
{
	return q->look == NULL ? NULL : qmp_reply(q->look, i);
}

int
qemu_look_check(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	qemu_look_forget(q);
	q->look = b;
	q->op.b = NULL; /* kept */
	/* Lists are searched from end to end, so what cannot be true must not hold up the loop. */
	if (qmp_count(answer(q, LOOK_BLOCK)) > DEVICES_MAX ||
	    qmp_count(answer(q, LOOK_NODES)) > NODES_MAX ||
	    qmp_count(qmp_get(answer(q, LOOK_GRAPH), "edges")) > 4 * (size_t)NODES_MAX)
		return lc_fail(e, LC_ENOTSUP, 0, "QEMU lists more than %d disks or %d image nodes",
		               DEVICES_MAX, NODES_MAX);
	return 0;
}

void
qemu_look_forget(struct qemu *q)
{
	qmp_batch_free(q->look);
	q->look = NULL;
}

const struct json_t *
qemu_look_devices(const struct qemu *q)
{
	return answer(q, LOOK_BLOCK);
}

const struct json_t *
qemu_look_nodes(const struct qemu *q)
{
	return answer(q, LOOK_NODES);
}

const struct json_t *
qemu_look_exports(const struct qemu *q)
{
	return answer(q, LOOK_EXPORTS);
}

const struct json_t *
qemu_look_fdsets(const struct qemu *q)
{
	return answer(q, LOOK_FDSETS);
}

const struct json_t *
qemu_look_jobs(const struct qemu *q)
{
	return answer(q, LOOK_JOBS);
}

const struct json_t *
qemu_look_status(const struct qemu *q)
{
	return answer(q, LOOK_STATUS);
}

const struct json_t *
qemu_look_migration(const struct qemu *q)
{
	return answer(q, LOOK_MIGRATION);
}

bool
qemu_ours(const struct qemu *q, const char *name)
{
	return name != NULL && strncmp(name, q->prefix, strlen(q->prefix)) == 0;
}

const struct json_t *
qemu_look_node(const struct qemu *q, const char *name)
{
	const struct json_t *nodes = qemu_look_nodes(q);
	size_t i;

	for (i = 0; i < qmp_count(nodes); i++) {
		const struct json_t *n = qmp_at(nodes, i);
		const char *s = qmp_str(n, "node-name");

		if (s != NULL && strcmp(s, name) == 0)
			return n;
	}
	return NULL;
}

/* Number in the graph of the node of that type and name; 0 (never used by QEMU) where there is
 * none. */
static uint64_t
graph_id(const struct json_t *graph, const char *type, const char *name)
{
	const struct json_t *nodes = qmp_get(graph, "nodes");
	size_t i;

	for (i = 0; i < qmp_count(nodes); i++) {
		const struct json_t *n = qmp_at(nodes, i);
		const char *t = qmp_str(n, "type");
		const char *s = qmp_str(n, "name");
		uint64_t id = 0;

		if (t != NULL && s != NULL && strcmp(t, type) == 0 && strcmp(s, name) == 0 &&
		    qmp_u64(n, "id", &id))
			return id;
	}
	return 0;
}

static const char *
graph_name(const struct json_t *graph, uint64_t id)
{
	const struct json_t *nodes = qmp_get(graph, "nodes");
	size_t i;

	for (i = 0; i < qmp_count(nodes); i++) {
		uint64_t this = 0;

		if (qmp_u64(qmp_at(nodes, i), "id", &this) && this == id)
			return qmp_str(qmp_at(nodes, i), "name");
	}
	return NULL;
}

static const char *
graph_child(const struct json_t *graph, uint64_t parent, const char *edge)
{
	const struct json_t *edges = qmp_get(graph, "edges");
	size_t i;

	for (i = 0; parent != 0 && i < qmp_count(edges); i++) {
		const struct json_t *x = qmp_at(edges, i);
		const char *s = qmp_str(x, "name");
		uint64_t p = 0, c = 0;

		if (s != NULL && strcmp(s, edge) == 0 && qmp_u64(x, "parent", &p) && p == parent &&
		    qmp_u64(x, "child", &c))
			return graph_name(graph, c);
	}
	return NULL;
}

const char *
qemu_look_child(const struct qemu *q, const char *node, const char *edge)
{
	const struct json_t *graph = answer(q, LOOK_GRAPH);

	return graph_child(graph, graph_id(graph, "block-driver", node), edge);
}

const char *
qemu_look_root(const struct qemu *q, const char *device, const char *qdev)
{
	const struct json_t *graph = answer(q, LOOK_GRAPH);
	uint64_t id = 0;

	/* A backend without a name of its own is listed under the id or the path of its device. */
	if (device != NULL && *device != '\0')
		id = graph_id(graph, "block-backend", device);
	if (id == 0 && qdev != NULL) {
		const char *base = strrchr(qdev, '/');

		id = graph_id(graph, "block-backend", qdev);
		if (id == 0 && base != NULL)
			id = graph_id(graph, "block-backend", base + 1);
	}
	return graph_child(graph, id, "root");
}

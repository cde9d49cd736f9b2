/* Everything of ours out of a VM that is to be protected no more: records of changes of whatever
 * store.  What a living process of ours uses, for another store, is left and told. */
#include <string.h>

#include "agent/hypervisor/qemu.h"

static bool
is_any(const char *name)
{
	return name != NULL && strncmp(name, QEMU_ANY_PREFIX, sizeof QEMU_ANY_PREFIX - 1) == 0;
}

/* The first bitmap of ours from *i, *k on, or false. */
static bool
next_bitmap(const struct qemu *q, size_t *i, size_t *k, const char **node, const char **name)
{
	const struct json_t *nodes = qemu_look_nodes(q);

	for (; *i < qmp_count(nodes); (*i)++, *k = 0) {
		const struct json_t *list = qmp_get(qmp_at(nodes, *i), "dirty-bitmaps");

		*node = qmp_str(qmp_at(nodes, *i), "node-name");
		for (; *node != NULL && *k < qmp_count(list); (*k)++) {
			*name = qmp_str(qmp_at(list, *k), "name");
			if (is_any(*name))
				return true;
		}
	}
	return false;
}

static int
remove_all(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const char *node, *name;
	size_t i, k;

	(void)e;
	for (i = k = 0; next_bitmap(q, &i, &k, &node, &name); k++) {
		(void)qmp_batch_add(b, "block-dirty-bitmap-remove",
		                    qmp_pack("{s:s, s:s}", "node", node, "name", name));
		qmp_batch_may_fail(b);
	}
	return 0;
}

static int
look_for_rest(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const struct json_t *nodes;
	const char *node, *name;
	size_t i, k = 0;
	int rc = qemu_look_check(q, b, e);

	if (rc != 0)
		return rc;
	i = 0;
	if (next_bitmap(q, &i, &k, &node, &name))
		return lc_fail(e, LC_EBUSY, 0,
		               "the record of changes %s on node %s is in use: another locum backs "
		               "the VM up just now; do it again when that is done",
		               name, node);
	nodes = qemu_look_nodes(q);
	for (i = 0; i < qmp_count(nodes); i++) {
		name = qmp_str(qmp_at(nodes, i), "node-name");
		if (is_any(name))
			return lc_fail(e, LC_EBUSY, 0,
			               "node %s is of a snapshot for another store: run locum "
			               "unprotect with --store of that one",
			               name);
	}
	return 0;
}

static const struct qemu_step steps[] = {
    QEMU_STEP("hv.forget.look", .build = qemu_look_build, .check = qemu_look_check),
    QEMU_STEP("hv.forget.remove", .build = remove_all),
    QEMU_STEP("hv.forget.rest", .build = qemu_look_build, .check = look_for_rest),
};
const struct qemu_script qemu_forget_script = QEMU_SCRIPT(steps);

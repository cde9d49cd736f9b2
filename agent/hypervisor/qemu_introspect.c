/* The definition of a running machine, as two steps of hv_prepare. */
#include "agent/hypervisor/introspect.h"
#include "agent/hypervisor/qemu.h"

static int
build_list(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct introspect_disk disks[HV_DISKS_MAX];
	size_t i, n = q->base.vm.ndisks;

	for (i = 0; i < n; i++)
		disks[i] = (struct introspect_disk){.disk = &q->base.vm.disks[i],
		                                    .qdev = q->disks[i].qdev,
		                                    .node = q->disks[i].node};
	introspect_free(q->introspect); /* of a prepare that failed in between */
	q->introspect = introspect_new(disks, n);
	if (q->introspect == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	introspect_list(q->introspect, b);
	return 0;
}

static int
check_list(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	introspect_listed(q->introspect, b);
	return 0;
}

static int
build_ask(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	introspect_ask(q->introspect, b);
	return 0;
}

static int
check_ask(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct definition *def = definition_new();

	if (def == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	introspect_told(q->introspect, b, def);
	qemu_domain_complete(q, def);
	introspect_free(q->introspect);
	q->introspect = NULL;
	lc_free(q->base.vm.def);
	q->base.vm.def = def;
	return 0;
}

static const struct qemu_step steps[] = {
    QEMU_STEP("qemu.introspect-list", .build = build_list, .check = check_list),
    QEMU_STEP("qemu.introspect-ask", .build = build_ask, .check = check_ask),
};
const struct qemu_script qemu_introspect_script = QEMU_SCRIPT(steps);

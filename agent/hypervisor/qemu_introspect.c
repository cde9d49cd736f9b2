/* The definition of a running machine, as two steps of hv_prepare. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/hypervisor/commandline.h"
#include "agent/hypervisor/handed.h"
#include "agent/hypervisor/introspect.h"
#include "agent/hypervisor/qemu.h"

static uint64_t
size_of(const struct json_t *node)
{
	uint64_t size = 0;

	(void)qmp_u64(node, "image.virtual-size", &size);
	return size;
}

/* The node that has the image's format, under those that only pass on what is in it: a limit of
 * somebody's, a raw one over another format.  *part: of a part of the file. */
static const char *
image_node(const struct qemu *q, const char *node, bool *part)
{
	static const char *const passing[] = {"raw", "throttle", "copy-on-read", "preallocate"};
	int depth;

	*part = false;
	for (depth = 0; depth < 8; depth++) {
		const struct json_t *n = qemu_look_node(q, node);
		const char *drv = qmp_str(n, "drv"), *child = qemu_look_child(q, node, "file");
		const struct json_t *c = child == NULL ? NULL : qemu_look_node(q, child);
		const char *under = c == NULL ? NULL : qmp_str(c, "drv");
		size_t i;

		for (i = 0; i < sizeof passing / sizeof passing[0]; i++) {
			if (drv != NULL && strcmp(drv, passing[i]) == 0)
				break;
		}
		if (i == sizeof passing / sizeof passing[0] || under == NULL)
			break;
		*part = *part || size_of(c) / 512 != size_of(n) / 512;
		/* Raw over a file is the image; over anything else it adds nothing. */
		if (i == 0 && (strcmp(under, "file") == 0 || strcmp(under, "host_device") == 0))
			break;
		node = child;
	}
	return node;
}

static int
build_list(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct introspect_disk disks[HV_DISKS_MAX];
	size_t i, n = q->base.vm.ndisks;

	for (i = 0; i < n; i++) {
		disks[i] = (struct introspect_disk){.disk = &q->base.vm.disks[i],
		                                    .qdev = q->disks[i].qdev};
		disks[i].node = image_node(q, q->disks[i].node, &disks[i].part);
	}
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
build_cpu(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	introspect_cpu(q->introspect, b);
	return 0;
}

static int
check_cpu(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	introspect_cpu_told(q->introspect, b);
	return 0;
}

static int
build_ask(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	introspect_ask(q->introspect, b);
	return 0;
}

/* QEMU was handed the file, and does not know its path. */
static void
name_handed(struct qemu *q, struct definition *def)
{
	size_t i;

	q->base.vm.handed = 0;
	for (i = 0; i < def->ndisks; i++) {
		struct def_disk *d = &def->disks[i];
		char path[sizeof d->path];
		struct stat st;

		if ((d->role != HV_ROLE_KERNEL && d->role != HV_ROLE_INITRD) ||
		    !handed_unknown(d->path))
			continue;
		if (!handed_find(q->t.qmp, d->name, path, sizeof path))
			continue; /* reading it will fail, and say so */
		memcpy(d->path, path, sizeof path);
		d->size = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
		q->base.vm.handed |= 1u << d->role;
	}
}

/* A domain's description tells these. */
static void
read_command(const struct qemu *q, struct definition *def)
{
	char dir[32];
	struct commandline *c;

	if (q->domain != NULL || q->pid <= 0)
		return;
	(void)snprintf(dir, sizeof dir, "/proc/%d", (int)q->pid);
	c = commandline_read(dir);
	if (c != NULL)
		commandline_left_out(c, def);
	commandline_free(c);
}

static int
check_ask(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	struct definition *def = definition_new();

	if (def == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	introspect_told(q->introspect, b, def);
	name_handed(q, def);
	qemu_domain_complete(q, def);
	read_command(q, def);
	introspect_free(q->introspect);
	q->introspect = NULL;
	lc_free(q->base.vm.def);
	q->base.vm.def = def;
	return 0;
}

static const struct qemu_step steps[] = {
    QEMU_STEP("qemu.introspect-list", .build = build_list, .check = check_list),
    QEMU_STEP("qemu.introspect-cpu", .build = build_cpu, .check = check_cpu),
    QEMU_STEP("qemu.introspect-ask", .build = build_ask, .check = check_ask),
};
const struct qemu_script qemu_introspect_script = QEMU_SCRIPT(steps);

/*
 * The VM's disks, from the device tree and from query-block.
 *
 * Both are needed: a vhost-user disk is not in query-block, a device on the board (IDE of the
 * chipset, flash) is not among the peripherals.  A disk that cannot be captured is listed with its
 * reason, never left out silently.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/domainxml.h"
#include "agent/hypervisor/handed.h"
#include "agent/hypervisor/qemu.h"
#include "agent/hypervisor/vmstate.h"

enum prop {
	PROP_TYPE = 0,
	PROP_DRIVE,
	PROP_SHARE,
	PROP_SERIAL,
	PROP_IOTHREAD,
	PROP_QUEUES,
	PROP_BUS,
	PROP_ADDR,
	PROP_N
};

static const char *const prop_names[PROP_N] = {
    "type", "drive", "share-rw", "serial", "iothread", "iothread-vq-mapping", "parent_bus", "addr"};

/* Disks that QEMU's block layer never sees. */
static const struct {
	const char *type; /* prefix */
	const char *why;
} outside[] = {
    {"vhost-user-blk",
     "a vhost-user disk lives in another process, QEMU cannot take snapshots of it"},
    {"vhost-user-scsi",
     "a vhost-user disk lives in another process, QEMU cannot take snapshots of it"},
    {"vhost-scsi", "a vhost disk lives in the kernel, QEMU cannot take snapshots of it"},
    {"vhost-vdpa-device", "a vDPA device bypasses QEMU, which cannot take snapshots of it"},
    {"nvdimm", "persistent memory is written to without QEMU"},
    {"virtio-pmem", "persistent memory is written to without QEMU"},
};

/* query-block gives an id where the device has one, else a path, for virtio that of the part behind
 * the bus. */
void
qemu_qdev_object(char *dst, size_t n, const char *qdev)
{
	static const char tail[] = "/virtio-backend";
	size_t len = strlen(qdev), t = sizeof tail - 1;

	if (len > t && strcmp(qdev + len - t, tail) == 0)
		len -= t;
	(void)snprintf(dst, n, "%s%.*s", *qdev == '/' ? "" : "/machine/peripheral/", (int)len,
	               qdev);
}

static void
refuse(struct hv_disk *d, const char *why)
{
	if (!d->capturable)
		return;
	d->capturable = false;
	(void)snprintf(d->reason, sizeof d->reason, "%s", why);
}

static bool
starts(const char *s, const char *prefix)
{
	return s != NULL && strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Letters that a name may have; others become '_'. */
static void
set_name(struct hv_disk *d, const char *s)
{
	size_t i;

	(void)snprintf(d->name, sizeof d->name, "%s", s);
	for (i = 0; d->name[i] != '\0'; i++) {
		if (!isalnum((unsigned char)d->name[i]) && strchr("._-", d->name[i]) == NULL)
			d->name[i] = '_';
	}
}

static struct hv_disk *
add_disk(struct qemu *q, const char *name)
{
	struct hv_vm *vm = &q->base.vm;
	struct hv_disk *d;

	if (vm->ndisks == HV_DISKS_MAX)
		return NULL;
	d = &vm->disks[vm->ndisks];
	memset(d, 0, sizeof *d);
	memset(&q->disks[vm->ndisks], 0, sizeof q->disks[vm->ndisks]);
	q->disks[vm->ndisks].scratch = -1;
	vm->ndisks++;
	d->capturable = true;
	set_name(d, name);
	return d;
}

/* ---- first: who is there ---- */

/* One of query-block's that is a disk with a medium in a device. */
static bool
is_candidate(const struct json_t *dev)
{
	return qmp_str(dev, "qdev") != NULL && qmp_get(dev, "inserted") != NULL;
}

static int
look_at_peripherals(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const struct json_t *devices = qemu_look_devices(q);
	size_t i, p;

	(void)e;
	(void)qmp_batch_add(b, "qom-list", qmp_pack("{s:s}", "path", "/machine/peripheral"));
	(void)qmp_batch_add(b, "qom-list", qmp_pack("{s:s}", "path", "/machine/peripheral-anon"));
	for (i = 0; i < qmp_count(devices); i++) {
		const struct json_t *dev = qmp_at(devices, i);
		char path[QEMU_PATH_MAX];

		if (!is_candidate(dev))
			continue;
		qemu_qdev_object(path, sizeof path, qmp_str(dev, "qdev"));
		for (p = 0; p < PROP_N; p++) {
			(void)qmp_batch_add(
			    b, "qom-get",
			    qmp_pack("{s:s, s:s}", "path", path, "property", prop_names[p]));
			qmp_batch_may_fail(b);
		}
	}
	return 0;
}

static void
add_outsiders(struct qemu *q, const struct json_t *list)
{
	size_t i, k;

	for (i = 0; i < qmp_count(list); i++) {
		const char *type = qmp_str(qmp_at(list, i), "type");
		const char *name = qmp_str(qmp_at(list, i), "name");

		for (k = 0; k < sizeof outside / sizeof outside[0]; k++) {
			struct hv_disk *d;

			if (name == NULL || !starts(type, "child<") ||
			    !starts(type + strlen("child<"), outside[k].type))
				continue;
			d = add_disk(q, name);
			if (d != NULL)
				refuse(d, outside[k].why);
			break;
		}
	}
}

static void
name_disk(const struct qemu *q, struct hv_disk *d, const struct json_t *dev, const char *path,
          const struct json_t *const *props)
{
	static const char with_id[] = "/machine/peripheral/", ours[] = DRIVER_DISK_PREFIX;
	const char *device = qmp_str(dev, "device");
	const char *serial = qmp_str(props[PROP_SERIAL], "");
	const char *node = qmp_str(dev, "inserted.node-name"), *told;
	uint64_t devfn = 0;
	char addr[32], id[QEMU_PATH_MAX];

	if (d->role ==
	    HV_ROLE_NVRAM) { /* on the board: it has no id, and its node's name is ours */
		set_name(d, "nvram");
	} else if (starts(path, with_id)) {
		path += sizeof with_id - 1;
		path += starts(path, ours) ? sizeof ours - 1 : 0;
		/* The first part: the disk of a USB stick lies deeper. */
		(void)snprintf(id, sizeof id, "%.*s", (int)strcspn(path, "/"), path);
		told = domain_xml_disk(q->domain, id);
		set_name(d, told != NULL ? told : id);
	} else if (device != NULL && *device != '\0') {
		set_name(d, device);
	} else if (serial != NULL && *serial != '\0') {
		set_name(d, serial);
	} else if (qmp_u64(props[PROP_ADDR], "", &devfn) && devfn < 256) {
		(void)snprintf(addr, sizeof addr, "pci-%02x.%x", (unsigned)devfn >> 3,
		               (unsigned)devfn & 7);
		set_name(d, addr);
	} else if (node != NULL && *node != '#') {
		set_name(d, node);
	} else {
		set_name(d, strrchr(path, '/') == NULL ? path : strrchr(path, '/') + 1);
	}
}

/* As its section calls it, which tells it by its serial number or its image. */
static void
name_as_configured(const struct qemu *q, struct hv_disk *d, const char *serial)
{
	const struct definition *def = q->t.def_past ? NULL : q->t.def;
	const struct def_disk *found = NULL;
	size_t i;

	for (i = 0; def != NULL && i < def->ndisks; i++) {
		const struct def_disk *k = &def->disks[i];

		if (k->role != HV_ROLE_DISK)
			continue;
		if ((serial != NULL && *serial != '\0' && strcmp(k->serial, serial) == 0) ||
		    (found == NULL && k->path[0] != '\0' && strcmp(k->path, d->path) == 0))
			found = k;
	}
	if (found != NULL && d->role == HV_ROLE_DISK)
		set_name(d, found->name);
}

/* Two disks of one name: the later ones are numbered. */
static void
make_unique(struct hv_vm *vm, struct hv_disk *d)
{
	char base[HV_NAME_MAX - 4];
	unsigned n = 2;
	size_t i;

	(void)snprintf(base, sizeof base, "%.59s", d->name);
	for (i = 0; i < vm->ndisks; i++) {
		if (&vm->disks[i] == d || strcmp(vm->disks[i].name, d->name) != 0)
			continue;
		(void)snprintf(d->name, sizeof d->name, "%s-%u", base, n++ % 100);
		i = (size_t)-1;
	}
}

/* Whether a job of somebody else lies between the device and the image.  query-block does not show
 * the filter of a mirror or commit job, but that of a backup job.  That of another Locum store is
 * told of where it is in the way. */
static bool
is_used(const char *root, const char *shown, const char *drv)
{
	if (shown == NULL || root == NULL || strcmp(shown, root) != 0)
		return true;
	return drv != NULL && strcmp(drv, "copy-before-write") == 0 &&
	       !starts(root, QEMU_ANY_PREFIX);
}

/* What lies under the device, and whether that is what query-block says. */
static void
find_nodes(struct qemu *q, struct hv_disk *d, struct qemu_disk *x, const struct json_t *dev)
{
	const char *shown = qmp_str(dev, "inserted.node-name");
	const char *root = qemu_look_root(q, x->device, qmp_str(dev, "qdev"));
	const char *under, *drv = qmp_str(dev, "inserted.drv");
	char why[sizeof d->reason];

	if (is_used(root, shown, drv)) {
		(void)snprintf(
		    why, sizeof why,
		    "a job or filter of another tool (%s) is on it; wait until it is done",
		    root == NULL ? "unknown" : root);
		refuse(d, why);
		return;
	}
	(void)snprintf(x->root, sizeof x->root, "%s", root);
	(void)snprintf(x->node, sizeof x->node, "%s", root);
	if (!starts(root, DRIVER_TOP_PREFIX) || drv == NULL || strcmp(drv, "raw") != 0)
		return;
	under = qemu_look_child(q, root, "file");
	if (under == NULL)
		return;
	(void)snprintf(x->top, sizeof x->top, "%s", root);
	(void)snprintf(x->node, sizeof x->node, "%s", under);
}

/* The file of the image: of its node, or of one below where that has options that no file name can
 * tell. */
static void
find_path(struct qemu *q, struct hv_disk *d, const struct qemu_disk *x)
{
	const char *node = x->node, *file;
	int depth;

	for (depth = 0; depth < 4 && node != NULL; depth++) {
		file = qmp_str(qemu_look_node(q, node), "file");
		if (file != NULL && *file == '/') {
			if (!handed_unknown(file))
				(void)snprintf(d->path, sizeof d->path, "%s", file);
			else if (!handed_find(q->t.qmp, d->name, d->path, sizeof d->path))
				d->path[0] = '\0';
			return;
		}
		node = qemu_look_child(q, node, "file");
	}
}

static void
judge_device(struct hv_disk *d, struct qemu_disk *x, const char *type,
             const struct json_t *const *props)
{
	const char *drive = qmp_str(props[PROP_DRIVE], "");
	const char *iothread = qmp_str(props[PROP_IOTHREAD], "");

	if (starts(type, "scsi-generic") || starts(type, "scsi-block"))
		refuse(d, "SCSI passthrough: the guest writes to it without QEMU seeing what");
	if (qmp_true(props[PROP_SHARE], ""))
		refuse(d, "shared with other writers (share-rw=on)");
	/* Where QEMU 7.2 dies of filters and exports. */
	if ((iothread != NULL && *iothread != '\0') || qmp_count(props[PROP_QUEUES]) > 0)
		x->push = true;
	/* Only where the property gives what is under the device can it be set to something
	 * else. */
	if (!x->push && x->root[0] != '\0' &&
	    (drive == NULL || (strcmp(drive, x->root) != 0 &&
	                       (x->device[0] == '\0' || strcmp(drive, x->device) != 0))))
		refuse(d, "its kind of device does not let its image be exchanged");
}

static bool
is_cdrom(const char *type)
{
	return starts(type, "ide-cd") || starts(type, "scsi-cd") || starts(type, "floppy");
}

static void
add_device(struct qemu *q, const struct json_t *dev, const struct json_t *const *props)
{
	const char *type = qmp_str(props[PROP_TYPE], "");
	const char *bus = qmp_str(props[PROP_BUS], "");
	const char *device = qmp_str(dev, "device");
	bool flash = starts(type, "cfi.pflash"), read_only = qmp_true(dev, "inserted.ro");
	char path[QEMU_PATH_MAX];
	struct qemu_disk *x;
	struct hv_disk *d;

	if (is_cdrom(type) || (flash && read_only))
		return;
	qemu_qdev_object(path, sizeof path, qmp_str(dev, "qdev"));
	d = add_disk(q, "disk");
	if (d == NULL)
		return;
	x = &q->disks[d - q->base.vm.disks];
	d->role = flash ? HV_ROLE_NVRAM : HV_ROLE_DISK;
	name_disk(q, d, dev, path, props);
	x->read_only = read_only;
	(void)snprintf(x->qdev, sizeof x->qdev, "%s", path);
	(void)snprintf(x->device, sizeof x->device, "%s", device == NULL ? "" : device);
	(void)snprintf(x->bus, sizeof x->bus, "%s", bus == NULL ? "" : bus);
	if (!qmp_u64(dev, "inserted.image.virtual-size", &d->size))
		refuse(d, "QEMU does not tell its size");
	else if (d->size == 0)
		refuse(d, "it has no size: there is nothing in it");
	find_nodes(q, d, x, dev);
	find_path(q, d, x);
	name_as_configured(q, d, qmp_str(props[PROP_SERIAL], ""));
	make_unique(&q->base.vm, d);
	x->push = q->t.by_job;
	judge_device(d, x, type, props);
}

const char *
qemu_disks_added(const struct qemu *q)
{
	const struct json_t *devices = qemu_look_devices(q);
	size_t i, k;

	for (i = 0; i < qmp_count(devices); i++) {
		const char *qdev = qmp_str(qmp_at(devices, i), "qdev"), *known = NULL;

		if (!is_candidate(qmp_at(devices, i)))
			continue;
		for (k = 0; k < qmp_count(q->listed); k++) {
			known = qmp_str(qmp_at(q->listed, k), "qdev");
			if (known != NULL && strcmp(known, qdev) == 0)
				break;
		}
		if (k == qmp_count(q->listed))
			return qdev;
	}
	return NULL;
}

static int
take_peripherals(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const struct json_t *devices = qemu_look_devices(q);
	size_t i, k, next = 2;

	qmp_list_free(q->listed);
	q->listed = qmp_copy(devices);
	if (q->listed == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	q->base.vm.ndisks = 0;
	for (i = 0; i < qmp_count(devices); i++) {
		const struct json_t *props[PROP_N];
		bool unplugged = false;

		if (!is_candidate(qmp_at(devices, i)))
			continue;
		for (k = 0; k < PROP_N; k++) {
			unplugged = unplugged || qmp_reply_err(b, next)->code == LC_ENOENT;
			props[k] = qmp_reply(b, next++);
		}
		/* query-block shows its medium until QEMU has freed it: the guest has it no
		 * more. */
		if (!unplugged)
			add_device(q, qmp_at(devices, i), props);
	}
	add_outsiders(q, qmp_reply(b, 0));
	add_outsiders(q, qmp_reply(b, 1));
	if (q->base.vm.ndisks == HV_DISKS_MAX)
		return lc_fail(e, LC_ENOTSUP, 0, "has %d disks or more, which is too many",
		               HV_DISKS_MAX);
	return 0;
}

/* ---- second: the controllers of disks on a bus of their own ---- */

/* The object that a bus belongs to: its path without the last part. */
static bool
controller(const struct qemu_disk *x, char *dst, size_t n)
{
	const char *end = strrchr(x->bus, '/');

	if (end == NULL || end == x->bus)
		return false;
	(void)snprintf(dst, n, "%.*s", (int)(end - x->bus), x->bus);
	return true;
}

static int
ask_controllers(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t i;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		char path[QEMU_PATH_MAX];

		if (!controller(&q->disks[i], path, sizeof path))
			continue;
		(void)qmp_batch_add(b, "qom-get",
		                    qmp_pack("{s:s, s:s}", "path", path, "property", "iothread"));
		qmp_batch_may_fail(b);
	}
	return 0;
}

static void
choose_way(struct qemu *q)
{
	struct hv_vm *vm = &q->base.vm;
	const char *way = "reopen", *status;
	size_t i, pushed = 0, filtered = 0;

	for (i = 0; i < vm->ndisks; i++) {
		vm->disks[i].copied = q->disks[i].push;
		if (!vm->disks[i].capturable)
			continue;
		pushed += q->disks[i].push ? 1 : 0;
		filtered += q->disks[i].push ? 0 : 1;
		if (!q->disks[i].push && q->disks[i].top[0] == '\0')
			way = "pause";
	}
	if (pushed > 0)
		way = filtered > 0 ? "pause" : "push";
	(void)snprintf(vm->way, sizeof vm->way, "%s", way);
	vm->running = qmp_true(qemu_look_status(q), "running");
	status = qmp_str(qemu_look_status(q), "status");
	(void)snprintf(vm->state, sizeof vm->state, "%s",
	               vmstate_word(status == NULL ? "paused" : status));
}

static int
take_controllers(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	size_t i, next = 0;

	(void)e;
	for (i = 0; i < q->base.vm.ndisks; i++) {
		char path[QEMU_PATH_MAX];
		const char *iothread;

		if (!controller(&q->disks[i], path, sizeof path))
			continue;
		iothread = qmp_str(qmp_reply(b, next++), "");
		if (iothread != NULL && *iothread != '\0')
			q->disks[i].push = true;
	}
	choose_way(q);
	return 0;
}

static int
check_migration(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const char *status = qmp_str(qemu_look_migration(q), "status");
	const char *state = qmp_str(qemu_look_status(q), "status");

	(void)b;
	if (state != NULL &&
	    (strcmp(state, "inmigrate") == 0 || strcmp(state, "postmigrate") == 0 ||
	     strcmp(state, "finish-migrate") == 0))
		return lc_fail(e, LC_EBUSY, 0,
		               "the VM is in state %s, its disks belong to another QEMU", state);
	if (status != NULL &&
	    (strcmp(status, "setup") == 0 || strcmp(status, "active") == 0 ||
	     strcmp(status, "pre-switchover") == 0 || strcmp(status, "device") == 0 ||
	     strcmp(status, "postcopy-active") == 0))
		return lc_fail(e, LC_EBUSY, 0, "the VM is being migrated");
	return 0;
}

static const struct qemu_step steps[] = {
    QEMU_STEP("hv.prepare.look", .build = qemu_look_build, .check = qemu_look_check),
    QEMU_STEP("hv.prepare.migration", .build = check_migration),
    QEMU_STEP("hv.prepare.devices", .build = look_at_peripherals, .check = take_peripherals),
    QEMU_STEP("hv.prepare.controllers", .build = ask_controllers, .check = take_controllers),
};
const struct qemu_script qemu_disks_script = QEMU_SCRIPT(steps);

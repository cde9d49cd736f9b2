/* The disks of a machine that runs, as a definition tells of them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/memory.h"

#include "agent/hypervisor/driver.h"
#include "agent/hypervisor/handed.h"
#include "agent/hypervisor/imageformat.h"
#include "agent/hypervisor/introspect_state.h"
#include "agent/hypervisor/qmp.h"

static const struct json_t *
disk_value(const struct introspect *x, size_t disk, enum disk_prop p)
{
	return qmp_reply(x->b, x->at_disks + disk * DISK_N + (size_t)p);
}

static const struct json_t *
find_node(const struct introspect *x, const char *name)
{
	const struct json_t *nodes = qmp_reply(x->b, x->at_nodes);
	size_t i;

	for (i = 0; name != NULL && i < qmp_count(nodes); i++) {
		const char *its = qmp_str(qmp_at(nodes, i), "node-name");

		if (its != NULL && strcmp(its, name) == 0)
			return qmp_at(nodes, i);
	}
	return NULL;
}

static const struct {
	const char *type; /* prefix */
	const char *bus;
	const char *instead; /* NULL: the same again */
} disk_types[] = {
    {"virtio-blk", "virtio", NULL},
    {"scsi-hd", "scsi", NULL},
    {"scsi-disk", "scsi", NULL},
    {"scsi-block", "scsi", NULL},
    {"scsi-generic", "scsi", NULL},
    {"ide-hd", "sata", NULL},
    {"nvme", "sata", "NVMe becomes SATA"},
    {"cfi.pflash", "virtio", NULL}, /* firmware variables: on no bus */
};

static void
tell_disk_image(struct introspect *x, const struct introspect_disk *xd)
{
	const struct hv_disk *disk = xd->disk;
	const char *name = disk->name;
	const struct json_t *node = find_node(x, xd->node);
	const char *format = qmp_str(node, "drv"), *file = qmp_str(node, "file");
	char text[INTROSPECT_VALUE_BYTES];
	bool plain = format != NULL &&
	             (strcmp(format, "file") == 0 || strcmp(format, "host_device") == 0);
	bool known = format != NULL && imageformat_known(format);

	if (known)
		(void)introspect_set(x, "disk", name, "format", format);
	if (format != NULL && !plain && (!known || !imageformat_own(format))) {
		(void)snprintf(text, sizeof text, "it is %.32s here and becomes raw", format);
		introspect_leave_out(x, "format of disk", name, text);
	}
	/* By path and format the image is read when the VM is off: as what it is, or not at all. */
	if (file == NULL || (!known && !plain))
		file = "";
	if (qmp_true(node, "encrypted"))
		introspect_leave_out(x, "encryption of disk", name,
		                     "the point holds what the guest sees, sealed by the store");
	if (handed_unknown(file))
		file = disk->path;
	/* By its path alone no one would find the disk in it. */
	if (*file == '/' && !xd->part && !qmp_true(node, "encrypted"))
		(void)introspect_set(x, "disk", name, "path", file);
	(void)snprintf(text, sizeof text, "%" PRIu64, disk->size);
	(void)introspect_set(x, "disk", name, "size", text);
}

static void
tell_scsi_controller(struct introspect *x, const char *name, const struct part *owner)
{
	if (owner == NULL)
		return;
	if (owner->address[0] != '\0')
		(void)introspect_set(x, "disk", name, "address", owner->address);
	if (!introspect_starts(owner->type, "virtio-scsi"))
		introspect_leave_out(x, "SCSI controller", owner->type, "becomes virtio-scsi");
}

/* The bus that it gets, as a definition calls that. */
static const char *
tell_kind(struct introspect *x, const char *name, const char *type, bool large_blocks)
{
	const char *kind = "virtio",
		   *instead = "its kind of device is not made again; it becomes virtio";
	size_t k;

	for (k = 0; k < sizeof disk_types / sizeof disk_types[0]; k++) {
		if (introspect_starts(type, disk_types[k].type)) {
			kind = disk_types[k].bus;
			instead = disk_types[k].instead;
			break;
		}
	}
	if (large_blocks && strcmp(kind, "sata") == 0) {
		kind = "virtio";
		instead = "becomes virtio: SATA has no blocks of that size";
	}
	if (instead != NULL)
		introspect_leave_out(x, "bus of disk", name, instead);
	return kind;
}

static void
tell_disk(struct introspect *x, size_t i)
{
	const struct introspect_disk *xd = &x->disks[i];
	const char *name = xd->disk->name, *type = qmp_str(disk_value(x, i, DISK_TYPE), "");
	const char *bus = qmp_str(disk_value(x, i, DISK_BUS), "");
	const char *serial = qmp_str(disk_value(x, i, DISK_SERIAL), "");
	const struct part *owner = introspect_owner(x, bus);
	bool q35 = strstr(x->def->machine, "q35") != NULL;
	const char *kind;
	char address[16], number[INTROSPECT_VALUE_BYTES];
	uint64_t bootindex, block = 0, wwn;
	bool large;

	if (!introspect_set(x, "disk", name, "", ""))
		return;
	large = qmp_u64(disk_value(x, i, DISK_BLOCK), "", &block) && block > DEF_BLOCK_MIN;
	kind = tell_kind(x, name, type, large);
	if (strcmp(kind, "sata") == 0 &&
	    (owner == NULL ? !q35 : strstr(owner->type, "ahci") == NULL))
		kind = "ide";
	(void)introspect_set(x, "disk", name, "bus", kind);
	if (xd->disk->role == HV_ROLE_NVRAM)
		(void)introspect_set(x, "disk", name, "role", "nvram");
	tell_disk_image(x, xd);
	if (large) {
		(void)snprintf(number, sizeof number, "%" PRIu64, block);
		(void)introspect_set(x, "disk", name, "block", number);
	}
	if (serial != NULL && *serial != '\0')
		(void)introspect_set(x, "disk", name, "serial", serial);
	if (qmp_u64(disk_value(x, i, DISK_BOOT), "", &bootindex)) {
		(void)snprintf(number, sizeof number, "%" PRIu64, bootindex + 1);
		(void)introspect_set(x, "disk", name, "boot", number);
	}
	if (qmp_u64(disk_value(x, i, DISK_WWN), "", &wwn) && wwn != 0)
		introspect_leave_out(x, "WWN of disk", name, "not made again");
	if (strcmp(kind, "scsi") == 0)
		tell_scsi_controller(x, name, owner);
	if (strcmp(kind, "virtio") == 0 && xd->disk->role == HV_ROLE_DISK) {
		const char *id = strrchr(xd->qdev, '/');

		introspect_address(x, id == NULL ? "" : id + 1, bus, disk_value(x, i, DISK_ADDR),
		                   address);
		if (address[0] != '\0')
			(void)introspect_set(x, "disk", name, "address", address);
	}
}

struct keyed {
	char key[160];
	struct def_disk disk;
};

static int
compare_keyed(const void *a, const void *b)
{
	return strcmp(((const struct keyed *)a)->key, ((const struct keyed *)b)->key);
}

static void
make_key(const struct introspect *x, size_t i, struct keyed *k)
{
	const char *bus = qmp_str(disk_value(x, i, DISK_BUS), ""), *last;
	uint64_t unit = 0, id = 0, lun = 0;

	(void)qmp_u64(disk_value(x, i, DISK_UNIT), "", &unit);
	(void)qmp_u64(disk_value(x, i, DISK_ID), "", &id);
	(void)qmp_u64(disk_value(x, i, DISK_LUN), "", &lun);
	last = bus == NULL || k->disk.bus == DEF_BUS_VIRTIO ? NULL : strrchr(bus, '/');
	(void)snprintf(
	    k->key, sizeof k->key, "%u %-15s %-60.60s %05" PRIu64 " %05" PRIu64 " %05" PRIu64,
	    (unsigned)k->disk.bus, k->disk.address, last == NULL ? "" : last, unit, id, lun);
}

/*
 * In the order of their places on their buses, because launch.c hands places on IDE, SATA and SCSI
 * out in the order of the definition; QEMU lists the devices in any order.
 */
static void
sort_disks(struct introspect *x)
{
	struct keyed *all = lc_alloc_array(HV_DISKS_MAX, sizeof *all);
	size_t i, n = 0;

	for (i = 0; all != NULL && i < x->ndisks; i++) {
		const struct def_disk *d = definition_disk(x->def, x->disks[i].disk->name);

		if (d == NULL)
			continue;
		all[n].disk = *d;
		make_key(x, i, &all[n]);
		n++;
	}
	if (all != NULL && n == x->def->ndisks) {
		qsort(all, n, sizeof *all, compare_keyed);
		for (i = 0; i < n; i++)
			x->def->disks[i] = all[i].disk;
	}
	lc_free(all);
}

/* Places on SCSI are handed out anew, in this order: launch.c gives each disk a target of its own,
 * libvirt all of them the first one. */
static void
tell_scsi_places(struct introspect *x)
{
	uint64_t next = 0;
	size_t i, k;

	for (k = 0; k < x->def->ndisks; k++) {
		const struct def_disk *d = &x->def->disks[k];
		char text[2 * INTROSPECT_VALUE_BYTES];
		uint64_t id = 0, lun = 0;

		for (i = 0; i < x->ndisks && strcmp(x->disks[i].disk->name, d->name) != 0; i++)
			continue;
		if (d->bus != DEF_BUS_SCSI || i == x->ndisks)
			continue;
		(void)qmp_u64(disk_value(x, i, DISK_ID), "", &id);
		(void)qmp_u64(disk_value(x, i, DISK_LUN), "", &lun);
		if ((id != next || lun != 0) && (id != 0 || lun != next)) {
			(void)snprintf(text, sizeof text,
			               "target %" PRIu64 ", unit %" PRIu64 ": gets another", id,
			               lun);
			introspect_leave_out(x, "SCSI place of disk", d->name, text);
		}
		next++;
	}
}

void
introspect_tell_disks(struct introspect *x)
{
	size_t i;

	for (i = 0; i < x->ndisks; i++) {
		const struct hv_disk *d = x->disks[i].disk;

		/* One that has to be excluded is attached again, empty. */
		if (d->capturable || (d->size > 0 && x->disks[i].qdev[0] != '\0'))
			tell_disk(x, i);
		if (!d->capturable)
			introspect_leave_out(x, "disk", d->name, d->reason);
	}
	sort_disks(x);
	tell_scsi_places(x);
}

void
introspect_tell_removable(struct introspect *x)
{
	const struct json_t *devices = qmp_reply(x->b, x->at_block);
	size_t i;

	for (i = 0; i < qmp_count(devices); i++) {
		const struct json_t *d = qmp_at(devices, i);
		const char *device = qmp_str(d, "device"), *qdev = qmp_str(d, "qdev");

		if (qmp_true(d, "removable") && qdev != NULL)
			introspect_leave_out(x, "removable drive",
			                     device != NULL && *device != '\0' ? device : qdev,
			                     "neither the drive nor its medium is made again");
	}
}

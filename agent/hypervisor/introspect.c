/*
 * Where things are found (QEMU 7.2):
 *
 * Machine type: the type of /machine, "pc-q35-7.2-machine"; the alias is resolved there.
 * CPU:          the type of the first CPU's object, "EPYC-v3-x86_64-cpu".
 * PCI address:  query-pci, by device id, which tells the bus number that the firmware gave; a
 *               device without id is found by its slot, if it hangs on the first bus.
 * Network:      see network.c.
 * Clock:        QEMU does not tell how it was started, but what the guest's clock shows now.
 *
 * Device ids and paths are data from a process that may be the guest's victim: each goes through
 * definition_set(), as if it came from a restore point.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "store/base/memory.h"

#include "agent/hypervisor/driver.h"
#include "agent/hypervisor/introspect.h"
#include "agent/hypervisor/network.h"
#include "agent/hypervisor/qmp.h"

#define PARTS_MAX 256
#define PATH_BYTES 256
#define VALUE_BYTES 64

enum { FIRST_PERIPHERAL = 0, FIRST_ANON, FIRST_BOARD, FIRST_CPUS, FIRST_N };

enum part_prop { PART_ADDR = 0, PART_BUS, PART_MAC, PART_NETDEV, PART_N };
static const char *const part_props[PART_N] = {"addr", "parent_bus", "mac", "netdev"};

enum disk_prop {
	DISK_TYPE = 0,
	DISK_ADDR,
	DISK_BUS,
	DISK_SERIAL,
	DISK_BOOT,
	DISK_UNIT, /* IDE */
	DISK_ID,   /* SCSI */
	DISK_LUN,
	DISK_N
};
static const char *const disk_props[DISK_N] = {"type",      "addr", "parent_bus", "serial",
                                               "bootindex", "unit", "scsi-id",    "lun"};

enum machine_prop { M_TYPE = 0, M_KERNEL, M_INITRD, M_APPEND, M_FIRMWARE, M_RTC, M_N };
static const char *const machine_props[M_N] = {"type",   "kernel",   "initrd",
                                               "append", "firmware", "rtc-time"};

struct part { /* a device that was plugged in, on the command line or later */
	char path[PATH_BYTES];
	char id[VALUE_BYTES]; /* "" where it has none */
	char type[VALUE_BYTES];
	char address[16];
};

struct introspect {
	struct introspect_disk disks[HV_DISKS_MAX];
	size_t ndisks;
	struct part parts[PARTS_MAX];
	size_t nparts;
	bool too_many;
	uint64_t cpus;
	char cpu_path[PATH_BYTES];
	/* Indices of the second batch. */
	size_t at_machine, at_uuid, at_memory, at_pci, at_block, at_nodes, at_network, at_cpu;
	size_t at_parts, at_disks;
	const struct qmp_batch *b;
	struct definition *def;
};

static bool
starts(const char *s, const char *prefix)
{
	return s != NULL && strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool
ends(const char *s, const char *tail)
{
	size_t n = strlen(s), k = strlen(tail);

	return n >= k && strcmp(s + n - k, tail) == 0;
}

/* ---- the first questions ---- */

struct introspect *
introspect_new(const struct introspect_disk *disks, size_t n)
{
	struct introspect *x = lc_alloc(sizeof *x);

	if (x == NULL)
		return NULL;
	x->ndisks = n < HV_DISKS_MAX ? n : HV_DISKS_MAX;
	memcpy(x->disks, disks, x->ndisks * sizeof *disks);
	return x;
}

void
introspect_free(struct introspect *x)
{
	lc_free(x);
}

static size_t
ask(struct qmp_batch *b, const char *command, struct json_t *args)
{
	size_t i = qmp_batch_add(b, command, args);

	qmp_batch_may_fail(b);
	return i;
}

static size_t
ask_property(struct qmp_batch *b, const char *path, const char *property)
{
	return ask(b, "qom-get", qmp_pack("{s:s, s:s}", "path", path, "property", property));
}

void
introspect_list(struct introspect *x, struct qmp_batch *b)
{
	(void)x;
	(void)ask(b, "qom-list", qmp_pack("{s:s}", "path", "/machine/peripheral"));
	(void)ask(b, "qom-list", qmp_pack("{s:s}", "path", "/machine/peripheral-anon"));
	(void)ask(b, "qom-list", qmp_pack("{s:s}", "path", "/machine/unattached"));
	(void)ask(b, "query-cpus-fast", qmp_pack("{}"));
}

static const struct {
	const char *type, *model;
} nic_types[] = {
    {"virtio-net-pci", "virtio"},
    {"virtio-net-pci-transitional", "virtio"},
    {"virtio-net-pci-non-transitional", "virtio"},
    {"e1000", "e1000"},
    {"e1000-82540em", "e1000"},
    {"e1000e", "e1000e"},
    {"rtl8139", "rtl8139"},
};

/* As a definition calls the type of n bytes, or NULL. */
static const char *
nic_model(const char *type, size_t n)
{
	size_t i;

	for (i = 0; i < sizeof nic_types / sizeof nic_types[0]; i++) {
		if (strlen(nic_types[i].type) == n && strncmp(nic_types[i].type, type, n) == 0)
			return nic_types[i].model;
	}
	return NULL;
}

enum parts {
	PARTS_NAMED = 1,
	PARTS_ANONYMOUS,
	PARTS_OF_BOARD /* of which only cards made by -nic count */
};

static void
take_parts(struct introspect *x, const struct json_t *list, const char *where, enum parts parts)
{
	static const char child[] = "child<";
	size_t i;

	for (i = 0; i < qmp_count(list); i++) {
		const char *name = qmp_str(qmp_at(list, i), "name");
		const char *type = qmp_str(qmp_at(list, i), "type");
		struct part *p;
		int n;

		if (name == NULL || !starts(type, child))
			continue;
		type += sizeof child - 1;
		if (parts == PARTS_OF_BOARD && nic_model(type, strcspn(type, ">")) == NULL)
			continue;
		if (x->nparts == PARTS_MAX) {
			x->too_many = true;
			return;
		}
		p = &x->parts[x->nparts];
		*p = (struct part){.id = ""};
		n = snprintf(p->path, sizeof p->path, "%s/%s", where, name);
		if (n < 0 || (size_t)n >= sizeof p->path)
			continue;
		if (parts == PARTS_NAMED)
			(void)snprintf(p->id, sizeof p->id, "%s", name);
		(void)snprintf(p->type, sizeof p->type, "%.*s", (int)strcspn(type, ">"), type);
		x->nparts++;
	}
}

void
introspect_listed(struct introspect *x, const struct qmp_batch *b)
{
	const struct json_t *cpus = qmp_reply(b, FIRST_CPUS);
	const char *path = qmp_str(qmp_at(cpus, 0), "qom-path");

	x->nparts = 0;
	take_parts(x, qmp_reply(b, FIRST_PERIPHERAL), "/machine/peripheral", PARTS_NAMED);
	take_parts(x, qmp_reply(b, FIRST_ANON), "/machine/peripheral-anon", PARTS_ANONYMOUS);
	take_parts(x, qmp_reply(b, FIRST_BOARD), "/machine/unattached", PARTS_OF_BOARD);
	x->cpus = qmp_count(cpus);
	(void)snprintf(x->cpu_path, sizeof x->cpu_path, "%s", path == NULL ? "/machine" : path);
}

/* ---- the second questions ---- */

void
introspect_ask(struct introspect *x, struct qmp_batch *b)
{
	size_t i, k;

	x->at_machine = qmp_batch_count(b);
	for (i = 0; i < M_N; i++)
		(void)ask_property(b, "/machine", machine_props[i]);
	x->at_uuid = ask(b, "query-uuid", qmp_pack("{}"));
	x->at_memory = ask(b, "query-memory-size-summary", qmp_pack("{}"));
	x->at_pci = ask(b, "query-pci", qmp_pack("{}"));
	x->at_block = ask(b, "query-block", qmp_pack("{}"));
	x->at_nodes = ask(b, "query-named-block-nodes", qmp_pack("{s:b}", "flat", 1));
	x->at_network = ask(b, "human-monitor-command",
	                    qmp_pack("{s:s}", "command-line", "info network"));
	x->at_cpu = ask_property(b, x->cpu_path, "type");
	x->at_parts = qmp_batch_count(b);
	for (i = 0; i < x->nparts; i++) {
		for (k = 0; k < PART_N; k++)
			(void)ask_property(b, x->parts[i].path, part_props[k]);
	}
	x->at_disks = qmp_batch_count(b);
	for (i = 0; i < x->ndisks; i++) {
		for (k = 0; k < DISK_N; k++)
			(void)ask_property(b, x->disks[i].qdev, disk_props[k]);
	}
}

/* ---- answers ---- */

static const char *
part_text(const struct introspect *x, size_t part, enum part_prop p)
{
	return qmp_str(qmp_reply(x->b, x->at_parts + part * PART_N + (size_t)p), "");
}

static const struct json_t *
disk_value(const struct introspect *x, size_t disk, enum disk_prop p)
{
	return qmp_reply(x->b, x->at_disks + disk * DISK_N + (size_t)p);
}

static const char *
machine_text(const struct introspect *x, enum machine_prop p)
{
	return qmp_str(qmp_reply(x->b, x->at_machine + (size_t)p), "");
}

static void
leave_out(struct introspect *x, const char *what, const char *id, const char *why)
{
	char name[sizeof(((struct def_left_out *)0)->what)];

	(void)snprintf(name, sizeof name, "%s%s%.60s", what, *id == '\0' ? "" : " ", id);
	definition_leave_out(x->def, name, why);
}

/* Set a field, or say that it is left out. */
static bool
set(struct introspect *x, const char *section, const char *name, const char *key, const char *value)
{
	char what[sizeof(((struct def_left_out *)0)->what)];
	struct lc_err e = LC_ERR_INIT;

	if (definition_set(x->def, section, name, key, value, &e) == 0)
		return true;
	(void)snprintf(what, sizeof what, "%s of %s %.48s", key, section, name);
	definition_leave_out(x->def, what, e.msg);
	return false;
}

/* ---- PCI ---- */

/*
 * What is behind a bridge, by query-pci, or NULL.  Firmware that numbers the buses first makes
 * every bridge lead to bus 255 and, with a highest bus below that, to nothing: those numbers will
 * change.
 */
static const struct json_t *
behind_bridge(const struct json_t *d)
{
	uint64_t first = 0, last = 0;

	(void)qmp_u64(d, "pci_bridge.bus.secondary", &first);
	(void)qmp_u64(d, "pci_bridge.bus.subordinate", &last);
	return first <= last ? qmp_get(d, "pci_bridge.devices") : NULL;
}

/* The device with that id in a list of query-pci, also behind bridges. */
static const struct json_t *
pci_by_id(const struct json_t *devices, const char *id)
{
	const struct json_t *found = NULL;
	size_t i;

	for (i = 0; found == NULL && i < qmp_count(devices); i++) {
		const struct json_t *d = qmp_at(devices, i);
		const char *its = qmp_str(d, "qdev_id");

		if (its != NULL && strcmp(its, id) == 0)
			found = d;
		else
			found = pci_by_id(behind_bridge(d), id);
	}
	return found;
}

/* Whether a bus is the first one, "/machine/q35/pcihost/pcie.0". */
static bool
is_first_bus(const char *bus)
{
	return bus != NULL && (ends(bus, "/pcie.0") || ends(bus, "/pci.0")) &&
	       !starts(bus, "/machine/peripheral");
}

/*
 * "bb:dd.f" of a device as the guest sees it, or "".  A bus behind a bridge has no number before
 * the firmware has given one.
 */
static void
find_address(const struct introspect *x, const char *id, const char *bus, const struct json_t *addr,
             char out[16])
{
	const struct json_t *buses = qmp_reply(x->b, x->at_pci), *d = NULL;
	uint64_t b = 0, slot = 0, function = 0, devfn;
	size_t i;

	*out = '\0';
	for (i = 0; *id != '\0' && d == NULL && i < qmp_count(buses); i++)
		d = pci_by_id(qmp_get(qmp_at(buses, i), "devices"), id);
	if (d != NULL && qmp_u64(d, "bus", &b) && qmp_u64(d, "slot", &slot) &&
	    qmp_u64(d, "function", &function)) {
		if (b == 0 && !is_first_bus(bus))
			return;
	} else if (is_first_bus(bus) && qmp_u64(addr, "", &devfn)) {
		slot = devfn >> 3;
		function = devfn & 7;
	} else {
		return;
	}
	if (b < 256 && slot < 32 && function < 8)
		(void)snprintf(out, 16, "%02x:%02x.%x", (unsigned)b, (unsigned)slot,
		               (unsigned)function);
}

static void
find_part_addresses(struct introspect *x)
{
	size_t i;

	for (i = 0; i < x->nparts; i++) {
		struct part *p = &x->parts[i];

		find_address(x, p->id, part_text(x, i, PART_BUS),
		             qmp_reply(x->b, x->at_parts + i * PART_N + PART_ADDR), p->address);
	}
}

/* The part that a bus belongs to ("/machine/peripheral/scsi0/virtio-backend/scsi0.0"), or NULL. */
static const struct part *
owner_of(const struct introspect *x, const char *bus)
{
	size_t i;

	for (i = 0; bus != NULL && i < x->nparts; i++) {
		const char *path = x->parts[i].path;

		if (starts(bus, path) && bus[strlen(path)] == '/')
			return &x->parts[i];
	}
	return NULL;
}

/* ---- the board ---- */

static void
tell_board(struct introspect *x)
{
	const char *type = machine_text(x, M_TYPE), *cpu = qmp_str(qmp_reply(x->b, x->at_cpu), "");
	const char *uuid = qmp_str(qmp_reply(x->b, x->at_uuid), "UUID");
	const struct json_t *memory = qmp_reply(x->b, x->at_memory);
	static const char *const cpu_tails[] = {"-x86_64-cpu", "-i386-cpu"};
	uint64_t base = 0, plugged = 0;
	char text[VALUE_BYTES];
	size_t i;

	if (type != NULL && ends(type, "-machine")) {
		(void)snprintf(text, sizeof text, "%.*s", (int)(strlen(type) - strlen("-machine")),
		               type);
		(void)set(x, "machine", "", "type", text);
	} else {
		leave_out(x, "machine type", "", "QEMU does not tell it; q35 is assumed");
	}
	for (i = 0; cpu != NULL && i < 2; i++) {
		if (!ends(cpu, cpu_tails[i]))
			continue;
		(void)snprintf(text, sizeof text, "%.*s", (int)(strlen(cpu) - strlen(cpu_tails[i])),
		               cpu);
		(void)set(x, "machine", "", "cpu", text);
		break;
	}
	if (cpu == NULL || i == 2)
		leave_out(x, "CPU model", "", "QEMU does not tell it; max is assumed");
	(void)snprintf(text, sizeof text, "%" PRIu64, x->cpus);
	(void)set(x, "machine", "", "cpus", text);
	if (qmp_u64(memory, "base-memory", &base)) {
		(void)qmp_u64(memory, "plugged-memory", &plugged);
		(void)snprintf(text, sizeof text, "%" PRIu64, base + plugged);
		(void)set(x, "machine", "", "memory", text);
		if (plugged > 0)
			leave_out(x, "hot-plugged memory", "", "counted as ordinary memory");
	} else {
		leave_out(x, "memory", "", "QEMU does not tell its size");
	}
	if (uuid != NULL && strspn(uuid, "0-") != strlen(uuid))
		(void)set(x, "machine", "", "uuid", uuid);
}

/* The guest's clock against ours: local time where it shows that and local time differs from UTC by
 * now. */
static void
tell_clock(struct introspect *x)
{
	const struct json_t *rtc = qmp_reply(x->b, x->at_machine + M_RTC);
	uint64_t year, month, day, hour, minute, second;
	struct tm guest = {0}, local;
	time_t now = time(NULL);
	long offset_s, ahead_s;

	if (!qmp_u64(rtc, "tm_year", &year) || !qmp_u64(rtc, "tm_mon", &month) ||
	    !qmp_u64(rtc, "tm_mday", &day) || !qmp_u64(rtc, "tm_hour", &hour) ||
	    !qmp_u64(rtc, "tm_min", &minute) || !qmp_u64(rtc, "tm_sec", &second) || year > 1000 ||
	    localtime_r(&now, &local) == NULL)
		return;
	guest = (struct tm){.tm_year = (int)year,
	                    .tm_mon = (int)(month % 12),
	                    .tm_mday = (int)(day % 32),
	                    .tm_hour = (int)(hour % 24),
	                    .tm_min = (int)(minute % 60),
	                    .tm_sec = (int)(second % 61)};
	offset_s = local.tm_gmtoff;
	ahead_s = (long)(timegm(&guest) - now);
	if (labs(offset_s) >= 900 && labs(ahead_s - offset_s) < 600)
		(void)set(x, "machine", "", "clock", "localtime");
}

/* ---- kernel, initial ramdisk, firmware ---- */

static void
tell_file(struct introspect *x, const char *role, const char *path)
{
	struct stat st;
	char size[VALUE_BYTES];

	if (path == NULL || *path == '\0')
		return;
	if (*path != '/') {
		leave_out(x, role, "", "its path is relative to a folder that QEMU does not tell");
		return;
	}
	if (!set(x, "disk", role, "role", role) || !set(x, "disk", role, "path", path))
		return;
	if (stat(path, &st) == 0) {
		(void)snprintf(size, sizeof size, "%" PRIu64, (uint64_t)st.st_size);
		(void)set(x, "disk", role, "size", size);
	}
}

static void
tell_direct_boot(struct introspect *x)
{
	const char *kernel = machine_text(x, M_KERNEL), *append = machine_text(x, M_APPEND);

	if (kernel == NULL || *kernel == '\0')
		return;
	tell_file(x, "kernel", kernel);
	tell_file(x, "initrd", machine_text(x, M_INITRD));
	if (definition_role(x->def, HV_ROLE_KERNEL) != NULL && append != NULL && *append != '\0')
		(void)set(x, "machine", "", "append", append);
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

/* Read-only flash is the firmware's code; writable flash is one of the disks. */
static void
tell_firmware(struct introspect *x)
{
	const struct json_t *devices = qmp_reply(x->b, x->at_block);
	const char *bios = machine_text(x, M_FIRMWARE);
	size_t i;

	for (i = 0; i < qmp_count(devices); i++) {
		const struct json_t *d = qmp_at(devices, i);
		const char *qdev = qmp_str(d, "qdev"), *file = qmp_str(d, "inserted.file");

		if (!starts(qdev, "/machine/system.flash") || !qmp_true(d, "inserted.ro"))
			continue;
		if (file != NULL && *file == '/')
			(void)set(x, "machine", "", "firmware", file);
		else
			leave_out(x, "firmware", "", "QEMU does not tell its file");
	}
	if (bios != NULL && strchr(bios, '/') != NULL)
		leave_out(x, "firmware", bios, "given as -bios; the default BIOS is used");
}

/* ---- disks ---- */

static const struct {
	const char *type; /* prefix */
	const char *bus;
	const char *instead; /* NULL: the same again */
} disk_types[] = {
    {"virtio-blk", "virtio", NULL},
    {"scsi-hd", "scsi", NULL},
    {"scsi-disk", "scsi", NULL},
    {"ide-hd", "sata", NULL},
    {"nvme", "sata", "NVMe becomes SATA"},
    {"cfi.pflash", "virtio", NULL}, /* firmware variables: on no bus */
};

static void
tell_disk_image(struct introspect *x, const struct introspect_disk *xd)
{
	const char *name = xd->disk->name;
	const struct json_t *node = find_node(x, xd->node);
	const char *format = qmp_str(node, "drv"), *file = qmp_str(node, "file");
	char text[VALUE_BYTES];

	if (format != NULL && (strcmp(format, "raw") == 0 || strcmp(format, "qcow2") == 0)) {
		(void)set(x, "disk", name, "format", format);
	} else if (format != NULL && strcmp(format, "file") != 0 &&
	           strcmp(format, "host_device") != 0) {
		(void)snprintf(text, sizeof text, "it is %.32s here and becomes raw", format);
		leave_out(x, "format of disk", name, text);
	}
	if (file != NULL && *file == '/' && !starts(file, "/dev/fdset/"))
		(void)set(x, "disk", name, "path", file);
	(void)snprintf(text, sizeof text, "%" PRIu64, xd->disk->size);
	(void)set(x, "disk", name, "size", text);
}

static void
tell_scsi_controller(struct introspect *x, const char *name, const struct part *owner)
{
	if (owner == NULL)
		return;
	if (owner->address[0] != '\0')
		(void)set(x, "disk", name, "address", owner->address);
	if (!starts(owner->type, "virtio-scsi"))
		leave_out(x, "SCSI controller", owner->type, "becomes virtio-scsi");
}

static void
tell_disk(struct introspect *x, size_t i)
{
	const struct introspect_disk *xd = &x->disks[i];
	const char *name = xd->disk->name, *type = qmp_str(disk_value(x, i, DISK_TYPE), "");
	const char *bus = qmp_str(disk_value(x, i, DISK_BUS), "");
	const char *serial = qmp_str(disk_value(x, i, DISK_SERIAL), "");
	const struct part *owner = owner_of(x, bus);
	bool q35 = strstr(x->def->machine, "q35") != NULL;
	const char *kind = NULL;
	char address[16], boot[VALUE_BYTES];
	uint64_t bootindex;
	size_t k;

	if (!set(x, "disk", name, "", ""))
		return;
	for (k = 0; kind == NULL && k < sizeof disk_types / sizeof disk_types[0]; k++) {
		if (!starts(type, disk_types[k].type))
			continue;
		kind = disk_types[k].bus;
		if (disk_types[k].instead != NULL)
			leave_out(x, "bus of disk", name, disk_types[k].instead);
	}
	if (kind == NULL) {
		kind = "virtio";
		leave_out(x, "bus of disk", name,
		          "its kind of device is not made again; it becomes virtio");
	}
	if (strcmp(kind, "sata") == 0 &&
	    (owner == NULL ? !q35 : strstr(owner->type, "ahci") == NULL))
		kind = "ide";
	(void)set(x, "disk", name, "bus", kind);
	if (xd->disk->role == HV_ROLE_NVRAM)
		(void)set(x, "disk", name, "role", "nvram");
	tell_disk_image(x, xd);
	if (serial != NULL && *serial != '\0')
		(void)set(x, "disk", name, "serial", serial);
	if (qmp_u64(disk_value(x, i, DISK_BOOT), "", &bootindex)) {
		(void)snprintf(boot, sizeof boot, "%" PRIu64, bootindex + 1);
		(void)set(x, "disk", name, "boot", boot);
	}
	if (strcmp(kind, "scsi") == 0)
		tell_scsi_controller(x, name, owner);
	if (strcmp(kind, "virtio") == 0 && xd->disk->role == HV_ROLE_DISK) {
		const char *id = strrchr(xd->qdev, '/');

		find_address(x, id == NULL ? "" : id + 1, bus, disk_value(x, i, DISK_ADDR),
		             address);
		if (address[0] != '\0')
			(void)set(x, "disk", name, "address", address);
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

static void
tell_disks(struct introspect *x)
{
	size_t i;

	for (i = 0; i < x->ndisks; i++) {
		const struct hv_disk *d = x->disks[i].disk;

		if (d->capturable)
			tell_disk(x, i);
		else
			leave_out(x, "disk", d->name, d->reason);
	}
	sort_disks(x);
}

static void
tell_removable(struct introspect *x)
{
	const struct json_t *devices = qmp_reply(x->b, x->at_block);
	size_t i;

	for (i = 0; i < qmp_count(devices); i++) {
		const struct json_t *d = qmp_at(devices, i);
		const char *device = qmp_str(d, "device"), *qdev = qmp_str(d, "qdev");

		if (qmp_true(d, "removable") && qdev != NULL)
			leave_out(x, "removable drive",
			          device != NULL && *device != '\0' ? device : qdev,
			          "neither the drive nor its medium is made again");
	}
}

/* ---- network ---- */

static void
tell_network(struct introspect *x, const char *name, const char *id)
{
	char network[NETWORK_MAX];

	if (!network_behind(qmp_str(qmp_reply(x->b, x->at_network), ""), id, network))
		leave_out(x, "network of", name, "not known; map it when restoring");
	(void)set(x, "nic", name, "network", network);
}

static int
compare_nics(const void *a, const void *b)
{
	const struct def_nic *x = a, *y = b;
	int by = strcmp(x->address, y->address);

	return by != 0 ? by : strcmp(x->name, y->name);
}

static void
tell_nic(struct introspect *x, size_t i, const char *model)
{
	const struct part *p = &x->parts[i];
	const char *mac = part_text(x, i, PART_MAC);
	char name[HV_NAME_MAX];

	if (p->id[0] != '\0')
		(void)snprintf(name, sizeof name, "%s", p->id);
	else
		(void)snprintf(name, sizeof name, "nic%zu", x->def->nnics);
	if (!set(x, "nic", name, "model", model))
		return;
	if (mac != NULL)
		(void)set(x, "nic", name, "mac", mac);
	if (p->address[0] != '\0')
		(void)set(x, "nic", name, "address", p->address);
	tell_network(x, name, part_text(x, i, PART_NETDEV));
}

/* ---- everything else that is plugged in ---- */

/* First match counts.  Without a reason: made again, or of no matter to the guest. */
static const struct {
	const char *type; /* prefix */
	const char *why;
} other_types[] = {
    {"pcie-root-port", NULL},
    {"virtio-serial-pci", NULL},
    {"virtserialport", NULL},
    {"isa-serial", NULL},
    {"virtio-scsi-pci", NULL},
    {"ahci", NULL},
    {"ich9-ahci", NULL},
    {"VGA", NULL},
    {"virtio-blk", NULL}, /* a disk, told of above */
    {"scsi-hd", NULL},
    {"scsi-disk", NULL},
    {"ide-hd", NULL},
    {"ide-cd", NULL}, /* removable, told of above */
    {"scsi-cd", NULL},
    {"floppy", NULL},
    {"vhost-user", "its other half is a process outside of QEMU"},
    {"vhost-vsock", "host channel, not made again"},
    {"vhost-scsi", "its other half is in the host's kernel"},
    {"vfio", "a device of this host that was passed through"},
    {"virtio-balloon", "memory balloon, not made again"},
    {"virtio-mem", "hot-plugged memory, counted as ordinary memory"},
    {"pc-dimm", "hot-plugged memory, counted as ordinary memory"},
    {"nvdimm", "persistent memory, not captured"},
    {"virtio-pmem", "persistent memory, not captured"},
    {"virtio-rng", "random numbers, not made again"},
    {"virtio-gpu", "becomes a standard VGA"},
    {"virtio-vga", "becomes a standard VGA"},
    {"qxl", "becomes a standard VGA"},
    {"cirrus", "becomes a standard VGA"},
    {"bochs", "becomes a standard VGA"},
    {"ramfb", "becomes a standard VGA"},
    {"usb", "USB, not made again"},
    {"qemu-xhci", "USB, not made again"},
    {"nec-usb", "USB, not made again"},
    {"ich9-usb", "USB, not made again"},
    {"piix3-usb", "USB, not made again"},
    {"piix4-usb", "USB, not made again"},
    {"ich9-intel-hda", "sound, not made again"},
    {"intel-hda", "sound, not made again"},
    {"hda-", "sound, not made again"},
    {"AC97", "sound, not made again"},
    {"tpm", "its state is not captured"},
    {"scsi-generic", "SCSI passthrough of a device of this host"},
    {"scsi-block", "SCSI passthrough of a device of this host"},
    {"virtio-9p", "shared folder of this host"},
    {"ivshmem", "memory shared with other processes of this host"},
    {"pci-bridge", "devices behind it move to other places"},
    {"pcie-pci-bridge", "devices behind it move to other places"},
    {"ioh3420", "becomes another kind of root port"},
    {"x3130", "devices behind it move to other places"},
    {"nvme", NULL}, /* a disk, told of above */
    {"lsi", NULL},  /* controllers of disks, told of with them */
    {"mptsas", NULL},
    {"megasas", NULL},
    {"pvscsi", NULL},
    {"am53c974", NULL},
    {"virtconsole", "second console, not made again"},
};

static void
tell_other(struct introspect *x, const struct part *p)
{
	const char *why = "this kind of device is not made again";
	size_t i;

	for (i = 0; i < sizeof other_types / sizeof other_types[0]; i++) {
		if (starts(p->type, other_types[i].type)) {
			why = other_types[i].why;
			break;
		}
	}
	if (why != NULL)
		leave_out(x, p->type, p->id, why);
}

static void
tell_parts(struct introspect *x)
{
	size_t i;

	for (i = 0; i < x->nparts; i++) {
		const char *model = nic_model(x->parts[i].type, strlen(x->parts[i].type));

		if (model != NULL)
			tell_nic(x, i, model);
		else if (part_text(x, i, PART_MAC) != NULL)
			leave_out(x, x->parts[i].type, x->parts[i].id,
			          "this kind of network card is not made again");
		else
			tell_other(x, &x->parts[i]);
	}
	if (x->too_many)
		leave_out(x, "more devices", "", "only the first 256 were looked at");
	qsort(x->def->nics, x->def->nnics, sizeof x->def->nics[0], compare_nics);
}

void
introspect_told(struct introspect *x, const struct qmp_batch *b, struct definition *def)
{
	x->b = b;
	x->def = def;
	find_part_addresses(x);
	tell_board(x);
	tell_clock(x);
	tell_firmware(x);
	tell_disks(x);
	tell_direct_boot(x);
	tell_removable(x);
	tell_parts(x);
	x->b = NULL;
	x->def = NULL;
}

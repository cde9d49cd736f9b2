/*
 * Where things are found (QEMU 7.2):
 *
 * Machine type: the type of /machine, "pc-q35-7.2-machine"; the alias is resolved there.
 * CPU:          the type of the first CPU's object, "EPYC-v3-x86_64-cpu"; see introspect_cpu.c.
 * PCI address:  query-pci, by device id, which tells the bus number that the firmware gave; a
 *               device without id is found by its slot, if it hangs on the first bus.
 * Network:      see network.c.
 * Clock:        QEMU does not tell how it was started, but what the guest's clock shows now.
 *
 * Device ids and paths are data from a process that may be the guest's victim: each goes through
 * definition_set(), as if it came from a restore point.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "store/base/memory.h"

#include "agent/hypervisor/introspect_state.h"
#include "agent/hypervisor/qmp.h"

enum { FIRST_PERIPHERAL = 0, FIRST_ANON, FIRST_BOARD, FIRST_CPUS, FIRST_N };

static const char *const part_props[PART_N] = {"addr", "parent_bus", "mac", "netdev"};
static const char *const disk_props[DISK_N] = {
    "type",    "addr", "parent_bus",         "serial", "bootindex", "unit",
    "scsi-id", "lun",  "logical_block_size", "wwn"};

enum machine_prop { M_TYPE = 0, M_KERNEL, M_INITRD, M_APPEND, M_FIRMWARE, M_RTC, M_SMP, M_N };
static const char *const machine_props[M_N] = {"type",     "kernel",   "initrd", "append",
                                               "firmware", "rtc-time", "smp"};

bool
introspect_starts(const char *s, const char *prefix)
{
	return s != NULL && strncmp(s, prefix, strlen(prefix)) == 0;
}

bool
introspect_ends(const char *s, const char *tail)
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

/* All of it stays as the machine was started, but for the clock, which goes on. */
static void
ask_machine(struct qmp_batch *b, enum machine_prop p)
{
	(void)ask_property(b, "/machine", machine_props[p]);
	qmp_batch_unnoted(b);
}

void
introspect_clock_ask(struct qmp_batch *b)
{
	ask_machine(b, M_RTC);
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

		if (name == NULL || !introspect_starts(type, child))
			continue;
		type += sizeof child - 1;
		if (parts == PARTS_OF_BOARD && !introspect_is_nic(type, strcspn(type, ">")))
			continue;
		if (x->nparts == INTROSPECT_PARTS_MAX) {
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

/* The type that lists of objects give the first CPU. */
static void
take_cpu_model(struct introspect *x, const char *path, const struct json_t *board,
               const struct json_t *peripheral)
{
	static const char on_board[] = "/machine/unattached/", plugged[] = "/machine/peripheral/";
	static const char child[] = "child<";
	const struct json_t *list = introspect_starts(path, on_board) ? board : peripheral;
	size_t i, n = introspect_starts(path, on_board) ? sizeof on_board - 1 : sizeof plugged - 1;

	x->cpu_model[0] = '\0';
	if (!introspect_starts(path, on_board) && !introspect_starts(path, plugged))
		return;
	for (i = 0; i < qmp_count(list); i++) {
		const char *name = qmp_str(qmp_at(list, i), "name");
		const char *type = qmp_str(qmp_at(list, i), "type");

		if (name != NULL && strcmp(name, path + n) == 0 && introspect_starts(type, child))
			introspect_cpu_model(type + sizeof child - 1, x->cpu_model);
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
	take_cpu_model(x, path, qmp_reply(b, FIRST_BOARD), qmp_reply(b, FIRST_PERIPHERAL));
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
		ask_machine(b, (enum machine_prop)i);
	x->at_uuid = ask(b, "query-uuid", qmp_pack("{}"));
	x->at_memory = ask(b, "query-memory-size-summary", qmp_pack("{}"));
	x->at_pci = ask(b, "query-pci", qmp_pack("{}"));
	x->at_block = ask(b, "query-block", qmp_pack("{}"));
	x->at_nodes = ask(b, "query-named-block-nodes", qmp_pack("{s:b}", "flat", 1));
	x->at_network = ask(b, "human-monitor-command",
	                    qmp_pack("{s:s}", "command-line", "info network"));
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
machine_text(const struct introspect *x, enum machine_prop p)
{
	return qmp_str(qmp_reply(x->b, x->at_machine + (size_t)p), "");
}

void
introspect_leave_out(struct introspect *x, const char *what, const char *id, const char *why)
{
	char name[sizeof(((struct def_left_out *)0)->what)];

	(void)snprintf(name, sizeof name, "%s%s%.60s", what, *id == '\0' ? "" : " ", id);
	definition_leave_out(x->def, name, why);
}

bool
introspect_set(struct introspect *x, const char *section, const char *name, const char *key,
               const char *value)
{
	char what[sizeof(((struct def_left_out *)0)->what)];
	struct lc_err e = LC_ERR_INIT;

	if (definition_set(x->def, section, name, key, value, &e) == 0)
		return true;
	(void)snprintf(what, sizeof what, "%s of %s %.48s", key, section, name);
	definition_leave_out(x->def, what, e.msg);
	return false;
}

/* ---- the board ---- */

static void
tell_board(struct introspect *x)
{
	const char *type = machine_text(x, M_TYPE);
	const char *uuid = qmp_str(qmp_reply(x->b, x->at_uuid), "UUID");
	const struct json_t *memory = qmp_reply(x->b, x->at_memory);
	uint64_t base = 0, plugged = 0;
	char text[INTROSPECT_VALUE_BYTES];

	if (type != NULL && introspect_ends(type, "-machine")) {
		(void)snprintf(text, sizeof text, "%.*s", (int)(strlen(type) - strlen("-machine")),
		               type);
		(void)introspect_set(x, "machine", "", "type", text);
	} else {
		introspect_leave_out(x, "machine type", "",
		                     "QEMU does not tell it; q35 is assumed");
	}
	if (x->cpu_model[0] != '\0')
		(void)introspect_set(x, "machine", "", "cpu", x->cpu_model);
	else
		introspect_leave_out(x, "CPU model", "", "QEMU does not tell it; max is assumed");
	(void)snprintf(text, sizeof text, "%" PRIu64, x->cpus);
	(void)introspect_set(x, "machine", "", "cpus", text);
	if (qmp_u64(memory, "base-memory", &base)) {
		(void)qmp_u64(memory, "plugged-memory", &plugged);
		(void)snprintf(text, sizeof text, "%" PRIu64, base + plugged);
		(void)introspect_set(x, "machine", "", "memory", text);
		if (plugged > 0)
			introspect_leave_out(x, "hot-plugged memory", "",
			                     "counted as ordinary memory");
	} else {
		introspect_leave_out(x, "memory", "", "QEMU does not tell its size");
	}
	if (uuid != NULL && strspn(uuid, "0-") != strlen(uuid))
		(void)introspect_set(x, "machine", "", "uuid", uuid);
}

/* What QEMU makes of a number of CPUs depends on its version, and libvirt makes something else of
 * it. */
static void
tell_topology(struct introspect *x)
{
	const struct json_t *smp = qmp_reply(x->b, x->at_machine + M_SMP);
	uint64_t sockets, cores, threads;
	char text[2 * INTROSPECT_VALUE_BYTES];

	if (!qmp_u64(smp, "sockets", &sockets) || !qmp_u64(smp, "cores", &cores) ||
	    !qmp_u64(smp, "threads", &threads)) /* before QEMU 6.1 */
		return;
	if (sockets == 1 && cores == 1 && threads == 1)
		return;
	(void)snprintf(text, sizeof text, "%" PRIu64 ":%" PRIu64 ":%" PRIu64, sockets, cores,
	               threads);
	if (sockets * cores * threads == x->cpus)
		(void)introspect_set(x, "machine", "", "topology", text);
	else
		introspect_leave_out(x, "CPU topology", "",
		                     "with places for more CPUs, or with dies: not made again");
}

/* The guest's clock against ours: local time where it shows that and local time differs from UTC by
 * now. */
bool
introspect_clock_local(const struct json_t *rtc)
{
	uint64_t year, month, day, hour, minute, second;
	struct tm guest = {0}, local;
	time_t now = time(NULL);
	long offset_s, ahead_s;

	if (!qmp_u64(rtc, "tm_year", &year) || !qmp_u64(rtc, "tm_mon", &month) ||
	    !qmp_u64(rtc, "tm_mday", &day) || !qmp_u64(rtc, "tm_hour", &hour) ||
	    !qmp_u64(rtc, "tm_min", &minute) || !qmp_u64(rtc, "tm_sec", &second) || year > 1000 ||
	    localtime_r(&now, &local) == NULL)
		return false;
	guest = (struct tm){.tm_year = (int)year,
	                    .tm_mon = (int)(month % 12),
	                    .tm_mday = (int)(day % 32),
	                    .tm_hour = (int)(hour % 24),
	                    .tm_min = (int)(minute % 60),
	                    .tm_sec = (int)(second % 61)};
	offset_s = local.tm_gmtoff;
	ahead_s = (long)(timegm(&guest) - now);
	return labs(offset_s) >= 900 && labs(ahead_s - offset_s) < 600;
}

/* ---- kernel, initial ramdisk, firmware ---- */

static void
tell_file(struct introspect *x, const char *role, const char *path)
{
	struct stat st;
	char size[INTROSPECT_VALUE_BYTES];

	if (path == NULL || *path == '\0')
		return;
	if (*path != '/') {
		introspect_leave_out(x, role, "",
		                     "its path is relative to a folder that QEMU does not tell");
		return;
	}
	if (!introspect_set(x, "disk", role, "role", role) ||
	    !introspect_set(x, "disk", role, "path", path))
		return;
	if (stat(path, &st) == 0) {
		(void)snprintf(size, sizeof size, "%" PRIu64, (uint64_t)st.st_size);
		(void)introspect_set(x, "disk", role, "size", size);
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
		(void)introspect_set(x, "machine", "", "append", append);
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

		if (!introspect_starts(qdev, "/machine/system.flash") ||
		    !qmp_true(d, "inserted.ro"))
			continue;
		if (file != NULL && *file == '/')
			(void)introspect_set(x, "machine", "", "firmware", file);
		else
			introspect_leave_out(x, "firmware", "", "QEMU does not tell its file");
	}
	if (bios != NULL && strchr(bios, '/') != NULL)
		introspect_leave_out(x, "firmware", bios,
		                     "given as -bios; the default BIOS is used");
}

void
introspect_told(struct introspect *x, const struct qmp_batch *b, struct definition *def)
{
	x->b = b;
	x->def = def;
	introspect_addresses(x);
	tell_board(x);
	introspect_tell_features(x);
	tell_topology(x);
	if (introspect_clock_local(qmp_reply(x->b, x->at_machine + M_RTC)))
		(void)introspect_set(x, "machine", "", "clock", "localtime");
	tell_firmware(x);
	introspect_tell_disks(x);
	tell_direct_boot(x);
	introspect_tell_removable(x);
	introspect_tell_parts(x);
	x->b = NULL;
	x->def = NULL;
}

/* What is plugged into a machine that runs, as a definition tells of it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/introspect_state.h"
#include "agent/hypervisor/network.h"
#include "agent/hypervisor/qmp.h"

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

const char *
introspect_nic_model(const char *type, size_t n)
{
	size_t i;

	for (i = 0; i < sizeof nic_types / sizeof nic_types[0]; i++) {
		if (strlen(nic_types[i].type) == n && strncmp(nic_types[i].type, type, n) == 0)
			return nic_types[i].model;
	}
	return NULL;
}

bool
introspect_is_nic(const char *type, size_t n)
{
	/* What else QEMU has for a PC. */
	static const char *const others[] = {
	    "e1000-82544gc", "e1000-82545em", "i82550",  "i82551",   "i82557a",  "i82557b",
	    "i82557c",       "i82558a",       "i82558b", "i82559a",  "i82559b",  "i82559c",
	    "i82562",        "i82559er",      "i82801",  "ne2k_isa", "ne2k_pci", "pcnet",
	    "tulip",         "usb-net",       "vmxnet3"};
	size_t i;

	for (i = 0; i < sizeof others / sizeof others[0]; i++) {
		if (strlen(others[i]) == n && strncmp(others[i], type, n) == 0)
			return true;
	}
	return introspect_nic_model(type, n) != NULL;
}

static const char *
part_text(const struct introspect *x, size_t part, enum part_prop p)
{
	return qmp_str(qmp_reply(x->b, x->at_parts + part * PART_N + (size_t)p), "");
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
	return bus != NULL && (introspect_ends(bus, "/pcie.0") || introspect_ends(bus, "/pci.0")) &&
	       !introspect_starts(bus, "/machine/peripheral");
}

/* A bus behind a bridge has no number before the firmware has given one. */
void
introspect_address(const struct introspect *x, const char *id, const char *bus,
                   const struct json_t *addr, char out[16])
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

void
introspect_addresses(struct introspect *x)
{
	size_t i;

	for (i = 0; i < x->nparts; i++) {
		struct part *p = &x->parts[i];

		introspect_address(x, p->id, part_text(x, i, PART_BUS),
		                   qmp_reply(x->b, x->at_parts + i * PART_N + PART_ADDR),
		                   p->address);
	}
}

/* A bus is "/machine/peripheral/scsi0/virtio-backend/scsi0.0". */
const struct part *
introspect_owner(const struct introspect *x, const char *bus)
{
	size_t i;

	for (i = 0; bus != NULL && i < x->nparts; i++) {
		const char *path = x->parts[i].path;

		if (introspect_starts(bus, path) && bus[strlen(path)] == '/')
			return &x->parts[i];
	}
	return NULL;
}

/* ---- network ---- */

static void
tell_network(struct introspect *x, const char *name, const char *id)
{
	char network[NETWORK_MAX];

	if (!network_behind(qmp_str(qmp_reply(x->b, x->at_network), ""), id, network))
		introspect_leave_out(x, "network of", name, "not known, map it when restoring");
	(void)introspect_set(x, "nic", name, "network", network);
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
	if (!introspect_set(x, "nic", name, "model", model))
		return;
	if (mac != NULL)
		(void)introspect_set(x, "nic", name, "mac", mac);
	if (p->address[0] != '\0')
		(void)introspect_set(x, "nic", name, "address", p->address);
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
    {"tpm", "its state is not captured: what is sealed to it needs its recovery key"},
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
		if (introspect_starts(p->type, other_types[i].type)) {
			why = other_types[i].why;
			break;
		}
	}
	if (why != NULL)
		introspect_leave_out(x, p->type, p->id, why);
}

void
introspect_tell_parts(struct introspect *x)
{
	size_t i;

	for (i = 0; i < x->nparts; i++) {
		const char *model = introspect_nic_model(x->parts[i].type,
		                                         strlen(x->parts[i].type));

		if (model != NULL)
			tell_nic(x, i, model);
		else if (part_text(x, i, PART_MAC) != NULL)
			introspect_leave_out(x, x->parts[i].type, x->parts[i].id,
			                     "this kind of network card is not made again");
		else
			tell_other(x, &x->parts[i]);
	}
	if (x->too_many)
		introspect_leave_out(x, "more devices", "", "only the first 256 were looked at");
	qsort(x->def->nics, x->def->nnics, sizeof x->def->nics[0], compare_nics);
}

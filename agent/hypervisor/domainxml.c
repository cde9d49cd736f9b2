/* Reading.  The parser neither opens another file, nor asks the network, nor expands entities. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "agent/hypervisor/domainxml.h"

#define TEXT_MAX 2048
#define CLOCK_NEAR_S 60

/* What only the description tells of, besides `rest` below. */
static const char smbios[] = "SMBIOS", settings[] = "firmware settings", clock_of[] = "clock";
static const char secure_boot[] = "secure boot";
static const char port_of[] = "port of ", protection_of[] = "write protection of ";

/* ---- the tree ---- */

static bool
is(const xmlNode *n, const char *name)
{
	return n != NULL && n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, name) == 0;
}

/* The first child of that name, or NULL; n may be NULL. */
static const xmlNode *
child(const xmlNode *n, const char *name)
{
	const xmlNode *c;

	for (c = n == NULL ? NULL : n->children; c != NULL; c = c->next) {
		if (is(c, name))
			return c;
	}
	return NULL;
}

/* The value of an attribute or, where it is NULL, the text of the element; "" where there is none
 * or too much of it. */
static const char *
value(const xmlNode *n, const char *attribute, char dst[TEXT_MAX])
{
	xmlChar *s = NULL;

	dst[0] = '\0';
	if (n != NULL && attribute != NULL)
		s = xmlGetNoNsProp((xmlNode *)(uintptr_t)n, (const xmlChar *)attribute);
	else if (n != NULL)
		s = xmlNodeGetContent((xmlNode *)(uintptr_t)n);
	if (s != NULL && strlen((const char *)s) < TEXT_MAX)
		memcpy(dst, s, strlen((const char *)s) + 1);
	xmlFree(s);
	return dst;
}

static bool
has_value(const xmlNode *n, const char *attribute, const char *want)
{
	char v[TEXT_MAX];

	return strcmp(value(n, attribute, v), want) == 0;
}

/* ---- the machine ---- */

/* What a definition does not take is left out. */
static void
set(struct definition *d, const char *section, const char *name, const char *key, const char *v)
{
	char what[96];

	if (v[0] == '\0' || definition_set(d, section, name, key, v, NULL) == 0)
		return;
	(void)snprintf(what, sizeof what, "%s %s %s", section, name, key);
	definition_leave_out(d, what, v);
}

static uint64_t
number(const char *s)
{
	char *end;
	uint64_t v = strtoull(s, &end, 10);

	return end == s ? 0 : v;
}

static void
read_memory(struct definition *d, const xmlNode *root)
{
	static const struct {
		const char *unit;
		uint64_t bytes;
	} units[] = {{"b", 1},
	             {"bytes", 1},
	             {"KB", 1000},
	             {"k", 1024},
	             {"KiB", 1024},
	             {"MB", 1000000},
	             {"M", 1 << 20},
	             {"MiB", 1 << 20},
	             {"GB", 1000000000},
	             {"G", 1 << 30},
	             {"GiB", 1 << 30},
	             {"TB", UINT64_C(1000000000000)},
	             {"T", UINT64_C(1) << 40},
	             {"TiB", UINT64_C(1) << 40}};
	const xmlNode *memory = child(root, "memory");
	char unit[TEXT_MAX], text[TEXT_MAX];
	uint64_t n = number(value(memory, NULL, text)), bytes = 1024;
	size_t i;

	(void)value(memory, "unit", unit);
	for (i = 0; i < sizeof units / sizeof units[0]; i++)
		bytes = strcmp(unit, units[i].unit) == 0 ? units[i].bytes : bytes;
	if (n == 0 || n > UINT64_MAX / bytes)
		return;
	n = (n * bytes + (1 << 20) - 1) >> 20; /* whole MiB */
	(void)snprintf(text, sizeof text, "%" PRIu64 " MiB", n);
	set(d, "machine", "", "memory", text);
}

/* Where it says nothing libvirt makes a socket of each. */
static void
read_topology(struct definition *d, const xmlNode *topology, bool more)
{
	char v[TEXT_MAX], text[64];
	uint64_t sockets = d->cpus, cores = 1, threads = 1, dies = 1;
	static const char what[] = "CPU topology";

	if (topology != NULL) {
		sockets = number(value(topology, "sockets", v));
		cores = number(value(topology, "cores", v));
		threads = number(value(topology, "threads", v));
		dies = value(topology, "dies", v)[0] == '\0' ? 1 : number(v);
	}
	if (more)
		definition_leave_out(d, what, "with places for more CPUs: not made again");
	if (d->cpus == 1 || more)
		return;
	(void)snprintf(text, sizeof text, "%" PRIu64 ":%" PRIu64 ":%" PRIu64, sockets, cores,
	               threads);
	if (dies != 1 || sockets * cores * threads != d->cpus ||
	    definition_set(d, "machine", "", "topology", text, NULL) != 0)
		definition_leave_out(d, what, "it is another one: with dies, or uneven");
}

/* libvirt has its own spelling of some. */
static void
read_features(struct definition *d, const xmlNode *cpu)
{
	const xmlNode *f = cpu == NULL ? NULL : cpu->children;
	char text[sizeof d->cpu_features] = "", name[TEXT_MAX], policy[TEXT_MAX], *c;
	size_t used = 0;
	bool off;

	for (; f != NULL; f = f->next) {
		if (f->type != XML_ELEMENT_NODE || strcmp((const char *)f->name, "feature") != 0)
			continue;
		(void)value(f, "name", name);
		(void)value(f, "policy", policy);
		for (c = strchr(name, '_'); c != NULL; c = strchr(c, '_'))
			*c = '-';
		off = strcmp(policy, "disable") == 0 || strcmp(policy, "forbid") == 0;
		if (used < sizeof text) {
			used += (size_t)snprintf(
			    text + used, sizeof text - used, "%s%c%s", used == 0 ? "" : ",",
			    off ? '-' : '+', strcmp(name, "pclmuldq") == 0 ? "pclmulqdq" : name);
		}
	}
	if (used > 0 && (used >= sizeof text ||
	                 definition_set(d, "machine", "", "cpu_features", text, NULL) != 0))
		definition_leave_out(d, "CPU features", "they are too many, or have odd names");
}

static void
read_cpu(struct definition *d, const xmlNode *root)
{
	const xmlNode *cpu = child(root, "cpu");
	char v[TEXT_MAX], text[TEXT_MAX];
	const char *model = "qemu64"; /* libvirt's, where it is not told one */

	(void)value(child(cpu, "model"), NULL, text);
	(void)value(cpu, "mode", v);
	if (strcmp(v, "host-passthrough") == 0)
		model = "host";
	else if (strcmp(v, "maximum") == 0 || strcmp(v, "host-model") == 0)
		model = "max";
	else if (text[0] != '\0')
		model = text;
	set(d, "machine", "", "cpu", model);
	read_topology(d, child(cpu, "topology"),
	              number(value(child(root, "vcpu"), NULL, v)) > d->cpus);
	(void)value(cpu, "mode", v);
	if (strcmp(v, "host-model") == 0)
		definition_leave_out(d, "CPU model", "that of the host, as libvirt sees it");
	read_features(d, cpu);
}

/* libvirt notes in a variable one what the guest has set; some seconds are no other clock. */
static void
read_clock(struct definition *d, const xmlNode *clock)
{
	bool variable = has_value(clock, "offset", "variable"), apart;
	char v[TEXT_MAX];

	if (has_value(clock, "offset", "localtime") ||
	    (variable && has_value(clock, "basis", "localtime")))
		set(d, "machine", "", "clock", "localtime");
	apart = has_value(clock, "offset", "timezone") || has_value(clock, "offset", "absolute");
	if (variable)
		apart = llabs(strtoll(value(clock, "adjustment", v), NULL, 10)) > CLOCK_NEAR_S;
	if (apart)
		definition_leave_out(d, clock_of,
		                     "what it shows besides UTC and this host's local "
		                     "time: not made again");
}

static void
read_file(struct definition *d, const char *role, const char *path)
{
	if (path[0] == '\0')
		return;
	set(d, "disk", role, "role", role);
	set(d, "disk", role, "format", "raw");
	set(d, "disk", role, "path", path);
}

/* Its file is the element's text or, said at length, in a source of its own. */
static void
read_nvram(struct definition *d, const xmlNode *nvram)
{
	const xmlNode *source = child(nvram, "source");
	char v[TEXT_MAX];

	if (source == NULL)
		(void)value(nvram, NULL, v);
	else
		(void)value(source, has_value(nvram, "type", "block") ? "dev" : "file", v);
	if (source != NULL && v[0] == '\0')
		definition_leave_out(d, "firmware variables",
		                     "neither a file nor a block device of this host");
	read_file(d, "nvram", v);
	if (v[0] != '\0')
		set(d, "disk", "nvram", "format", value(nvram, "format", v));
}

static void
read_os(struct domain_xml *x, const xmlNode *root)
{
	const xmlNode *os = child(root, "os"), *loader = child(os, "loader");
	struct definition *d = x->def;
	char v[TEXT_MAX];

	set(d, "machine", "", "type", value(child(os, "type"), "machine", v));
	set(d, "machine", "", "uuid", value(child(root, "uuid"), NULL, v));
	set(d, "machine", "", "cpus", value(child(root, "vcpu"), NULL, v));
	set(d, "machine", "", "cpus", value(child(root, "vcpu"), "current", v));
	read_clock(d, child(root, "clock"));
	if (has_value(loader, "type", "pflash"))
		set(d, "machine", "", "firmware", value(loader, NULL, v));
	else if (loader != NULL)
		definition_leave_out(d, "firmware", value(loader, NULL, v));
	if (has_value(loader, "secure", "yes"))
		definition_leave_out(
		    d, secure_boot,
		    "what keeps the guest from the firmware's variables (SMM): not "
		    "made again");
	x->chooses = loader == NULL && has_value(os, "firmware", "efi");
	read_nvram(d, child(os, "nvram"));
	read_file(d, "kernel", value(child(os, "kernel"), NULL, v));
	read_file(d, "initrd", value(child(os, "initrd"), NULL, v));
	set(d, "machine", "", "append", value(child(os, "cmdline"), NULL, v));
}

/* ---- devices ---- */

static unsigned long
hex(const xmlNode *n, const char *attribute)
{
	char v[TEXT_MAX];

	return strtoul(value(n, attribute, v), NULL, 16);
}

/* The firmware counts the buses behind root ports by the places of those; libvirt's numbers are the
 * same where nothing else has a bus and the ports are in order. */
static bool
has_plain_buses(const xmlNode *devices)
{
	const xmlNode *n;
	unsigned long next = 1, last = 0, place;
	char v[TEXT_MAX];

	for (n = devices == NULL ? NULL : devices->children; n != NULL; n = n->next) {
		if (!is(n, "controller") || !has_value(n, "type", "pci") ||
		    has_value(n, "model", "pci-root") || has_value(n, "model", "pcie-root"))
			continue;
		place = hex(child(n, "address"), "slot") * 8 + hex(child(n, "address"), "function");
		if (!has_value(n, "model", "pcie-root-port") ||
		    hex(child(n, "address"), "bus") != 0 || number(value(n, "index", v)) != next ||
		    place <= last)
			return false;
		next++;
		last = place;
	}
	return true;
}

/* As one that runs is told of by QEMU. */
static void
read_address(struct domain_xml *x, const char *section, const char *name, const xmlNode *device)
{
	const xmlNode *address = child(device, "address");
	char text[64];

	if (!x->plain_buses || !has_value(address, "type", "pci"))
		return;
	(void)snprintf(text, sizeof text, "%02lx:%02lx.%lx", hex(address, "bus"),
	               hex(address, "slot"), hex(address, "function"));
	(void)definition_set(x->def, section, name, "address", text, NULL);
}

static void
add_alias(struct domain_xml *x, const xmlNode *disk, const char *name)
{
	char v[TEXT_MAX];
	struct domain_alias *a = &x->aliases[x->naliases];

	if (x->naliases == HV_DISKS_MAX || value(child(disk, "alias"), "name", v)[0] == '\0')
		return;
	(void)snprintf(a->device, sizeof a->device, "%.*s", (int)sizeof a->device - 1, v);
	(void)snprintf(a->disk, sizeof a->disk, "%.*s", (int)sizeof a->disk - 1, name);
	x->naliases++;
}

/* Why its content can't be read while the domain is off, or NULL. */
static const char *
out_of_reach(const xmlNode *disk)
{
	const xmlNode *source = child(disk, "source");

	if (has_value(disk, "device", "lun"))
		return "SCSI passthrough";
	if (child(disk, "shareable") != NULL)
		return "shared with other writers";
	if (source == NULL ||
	    !(has_value(disk, "type", "file") || has_value(disk, "type", "block")))
		return "it is neither a file nor a block device of this host";
	if (child(source, "slices") != NULL)
		return "it is a slice of its image, it can be read while it runs";
	if (child(source, "encryption") != NULL || child(disk, "encryption") != NULL)
		return "libvirt keeps the key of its encryption, it can be read while it runs";
	return NULL;
}

static int
read_disk(struct domain_xml *x, const xmlNode *disk, struct lc_err *e)
{
	struct definition *d = x->def;
	const xmlNode *target = child(disk, "target");
	char name[TEXT_MAX], v[TEXT_MAX], what[96];
	const char *why = out_of_reach(disk);

	(void)value(target, "dev", name);
	if (has_value(disk, "device", "cdrom") || has_value(disk, "device", "floppy")) {
		(void)snprintf(what, sizeof what, "removable drive %.60s", name);
		definition_leave_out(d, what, "neither the drive nor its medium is made again");
		return 0;
	}
	add_alias(x, disk, name);
	if (d->ndisks == HV_DISKS_MAX)
		return lc_fail(e, LC_ENOTSUP, 0, "has %d disks or more, which is too many",
		               HV_DISKS_MAX);
	if (definition_set(d, "disk", name, "", "", e) != 0)
		return LC_EINVAL;
	set(d, "disk", name, "bus", value(target, "bus", v));
	(void)value(child(disk, "driver"), "type", v);
	if (v[0] == '\0' || strcmp(v, "raw") == 0 || strcmp(v, "qcow2") == 0)
		set(d, "disk", name, "format", v[0] == '\0' ? "raw" : v);
	else if (why == NULL)
		why = "its format is neither raw nor qcow2";
	if (why == NULL)
		set(d, "disk", name, "path",
		    value(child(disk, "source"), has_value(disk, "type", "block") ? "dev" : "file",
		          v));
	set(d, "disk", name, "serial", value(child(disk, "serial"), NULL, v));
	set(d, "disk", name, "boot", value(child(disk, "boot"), "order", v));
	set(d, "disk", name, "block", value(child(disk, "blockio"), "logical_block_size", v));
	read_address(x, "disk", name, disk);
	if (child(disk, "readonly") != NULL) {
		(void)snprintf(what, sizeof what, "%s%.60s", protection_of, name);
		definition_leave_out(d, what, "it comes back as one that can be written to");
	}
	if (why != NULL) {
		(void)snprintf(what, sizeof what, "disk %.60s", name);
		definition_leave_out(d, what, why);
	}
	return 0;
}

static void
read_port(struct definition *d, const xmlNode *nic, const char *name)
{
	static const struct {
		const char *element, *what;
	} known[] = {{"vlan", "VLAN"},
	             {"virtualport", "virtual port"},
	             {"filterref", "filter"},
	             {"bandwidth", "bandwidth"},
	             {"mtu", "MTU"}};
	char what[96], why[128] = "", v[TEXT_MAX];
	size_t i, used = 0;

	for (i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (child(nic, known[i].element) != NULL)
			used += (size_t)snprintf(why + used, sizeof why - used, "%s, ",
			                         known[i].what);
	}
	if (value(child(nic, "source"), "portgroup", v)[0] != '\0')
		used += (size_t)snprintf(why + used, sizeof why - used, "port group, ");
	if (has_value(child(nic, "link"), "state", "down"))
		used += (size_t)snprintf(why + used, sizeof why - used, "link that is down, ");
	if (used == 0)
		return;
	(void)snprintf(why + used - 2, sizeof why - used + 2, ": not made again");
	(void)snprintf(what, sizeof what, "%s%s", port_of, name);
	definition_leave_out(d, what, why);
}

static void
read_nic(struct domain_xml *x, const xmlNode *nic)
{
	struct definition *d = x->def;
	const xmlNode *source = child(nic, "source");
	char name[HV_NAME_MAX], v[TEXT_MAX], network[TEXT_MAX + 8] = "none";

	(void)snprintf(name, sizeof name, "net%zu", d->nnics);
	if (value(child(nic, "alias"), "name", v)[0] != '\0')
		(void)snprintf(name, sizeof name, "%.*s", (int)sizeof name - 1, v);
	(void)value(child(nic, "model"), "type", v);
	set(d, "nic", name, "model", v[0] == '\0' ? "rtl8139" : v);
	set(d, "nic", name, "mac", value(child(nic, "mac"), "address", v));
	if (has_value(nic, "type", "network"))
		(void)snprintf(network, sizeof network, "%s", value(source, "network", v));
	else if (has_value(nic, "type", "bridge"))
		(void)snprintf(network, sizeof network, "bridge:%s", value(source, "bridge", v));
	else if (has_value(nic, "type", "user"))
		(void)snprintf(network, sizeof network, "user");
	else
		definition_leave_out(d, name,
		                     "on a network that is not kept; map it when restoring");
	set(d, "nic", name, "network", network);
	read_address(x, "nic", name, nic);
	read_port(d, nic, name);
}

static void
read_channel(struct domain_xml *x, const xmlNode *channel)
{
	const xmlNode *target = child(channel, "target");
	char v[TEXT_MAX];

	if (!has_value(channel, "type", "unix") ||
	    !has_value(target, "name", "org.qemu.guest_agent.0"))
		return;
	x->agent = has_value(target, "state", "connected") ? HV_AGENT_THERE : HV_AGENT_AWAY;
	if (strlen(value(child(channel, "source"), "path", v)) < sizeof x->agent_socket)
		memcpy(x->agent_socket, v, strlen(v) + 1);
}

static void
read_controller(struct definition *d, const xmlNode *controller)
{
	char model[TEXT_MAX], why[128];

	if (!has_value(controller, "type", "scsi") ||
	    strncmp(value(controller, "model", model), "virtio", 6) == 0 || model[0] == '\0')
		return;
	(void)snprintf(why, sizeof why, "%.60s: becomes virtio-scsi", model);
	definition_leave_out(d, "SCSI controller", why);
}

/* In the words that a machine that runs is told of with. */
static const char *
why_not(const xmlNode *device)
{
	static const struct {
		const char *name, *why;
	} known[] = {
	    {"tpm", "its state is not captured: what is sealed to it needs its recovery key"},
	    {"hostdev", "a device of this host that was passed through"},
	    {"filesystem", "shared folder of this host"},
	    {"sound", "sound, not made again"}};
	size_t i;

	for (i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (is(device, known[i].name))
			return known[i].why;
	}
	return "not reproduced";
}

static int
read_devices(struct domain_xml *x, const xmlNode *devices, struct lc_err *e)
{
	/* That a machine has anyway, or that make no difference to what the guest keeps. */
	static const char *const usual[] = {"emulator", "controller", "serial",   "console",
	                                    "channel",  "input",      "graphics", "video",
	                                    "audio",    "memballoon", "rng",      "hub"};
	const xmlNode *n;
	size_t i;

	x->plain_buses = has_plain_buses(devices);
	if (!x->plain_buses)
		definition_leave_out(x->def, "PCI addresses",
		                     "behind bridges, or root ports that are not in order: a point "
		                     "of it while it runs has them");
	for (n = devices == NULL ? NULL : devices->children; n != NULL; n = n->next) {
		if (n->type != XML_ELEMENT_NODE)
			continue;
		if (is(n, "disk") && read_disk(x, n, e) != 0)
			return (int)e->code;
		if (is(n, "interface"))
			read_nic(x, n);
		if (is(n, "channel"))
			read_channel(x, n);
		if (is(n, "controller"))
			read_controller(x->def, n);
		for (i = 0; i < sizeof usual / sizeof usual[0] && !is(n, usual[i]); i++)
			;
		if (i == sizeof usual / sizeof usual[0] && !is(n, "disk") && !is(n, "interface"))
			definition_leave_out(x->def, (const char *)n->name, why_not(n));
	}
	return 0;
}

/* What the guest sees of the machine besides, and libvirt's way around itself. */
static const struct {
	const char *parent, *name, *what, *why;
} rest[] = {
    {"features", "hyperv", "Hyper-V features", "not made again: the guest goes without"},
    {"features", "kvm", "KVM features", "not made again"},
    {"cpu", "numa", "NUMA nodes", "not made again: all memory is one"},
    {NULL, "launchSecurity", "launch security", "not made again: memory is not encrypted"},
    {"os", "acpi", "ACPI tables", "not made again"},
    {NULL, "commandline", "arguments for QEMU", "handed on by libvirt, not made again"},
};

static void
tell_the_rest(struct definition *d, const xmlNode *root)
{
	const xmlNode *shown = child(child(root, "os"), "smbios"), *n;
	size_t i;

	for (i = 0; i < sizeof rest / sizeof rest[0]; i++) {
		const xmlNode *in = rest[i].parent == NULL ? root : child(root, rest[i].parent);

		if (child(in, rest[i].name) != NULL)
			definition_leave_out(d, rest[i].what, rest[i].why);
	}
	if (has_value(shown, "mode", "sysinfo") || has_value(shown, "mode", "host"))
		definition_leave_out(d, smbios,
		                     "what the machine is called, its serial number: "
		                     "not made again, and a guest may be licensed for it");
	for (n = root->children; n != NULL; n = n->next) {
		if (is(n, "sysinfo") && has_value(n, "type", "fwcfg"))
			definition_leave_out(d, settings, "fw_cfg: not made again");
	}
	/* Of one that runs QEMU tells: it has a device of it. */
	if (child(root, "genid") != NULL)
		definition_leave_out(d, "VM generation ID", "not made again");
}

bool
domain_xml_alone_tells(const char *what)
{
	size_t i;

	for (i = 0; i < sizeof rest / sizeof rest[0]; i++) {
		if (strcmp(what, rest[i].what) == 0)
			return true;
	}
	return strcmp(what, smbios) == 0 || strcmp(what, settings) == 0 ||
	       strcmp(what, clock_of) == 0 || strcmp(what, secure_boot) == 0 ||
	       strncmp(what, port_of, sizeof port_of - 1) == 0 ||
	       strncmp(what, protection_of, sizeof protection_of - 1) == 0;
}

static int
read_domain(struct domain_xml *x, const xmlNode *root, struct lc_err *e)
{
	if (!is(root, "domain") ||
	    !(has_value(root, "type", "kvm") || has_value(root, "type", "qemu")))
		return lc_fail(e, LC_EINVAL, 0, "libvirt's description: no domain of QEMU");
	read_os(x, root);
	read_memory(x->def, root);
	read_cpu(x->def, root);
	tell_the_rest(x->def, root);
	return read_devices(x, child(root, "devices"), e);
}

int
domain_xml_read(const char *text, size_t n, struct domain_xml **out, struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct domain_xml *x = lc_alloc(sizeof *x);
	xmlDoc *doc = NULL;
	int rc = 0;

	*out = NULL;
	if (x != NULL)
		x->def = definition_new();
	if (x != NULL)
		x->agent = HV_AGENT_NOWHERE;
	if (x == NULL || x->def == NULL) {
		lc_free(x);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	if (n <= DOMAIN_XML_MAX)
		doc = xmlReadMemory(text, (int)n, "domain", NULL,
		                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
		                        XML_PARSE_NOCDATA);
	if (rc == 0 && (doc == NULL || doc->intSubset != NULL || doc->extSubset != NULL))
		rc = lc_fail(&why, LC_EINVAL, 0, "libvirt's description: no XML");
	if (rc == 0)
		rc = read_domain(x, xmlDocGetRootElement(doc), &why);
	xmlFreeDoc(doc);
	if (rc == 0) {
		*out = x;
		return 0;
	}
	domain_xml_free(x);
	return lc_fail(e, why.code, 0, "%s", why.msg);
}

void
domain_xml_firmware(struct domain_xml *x, const char *code, const char *vars)
{
	if (!x->chooses)
		return;
	if (code == NULL || definition_set(x->def, "machine", "", "firmware", code, NULL) != 0)
		definition_leave_out(x->def, "firmware",
		                     "libvirt chooses it when the domain starts, and a point of it "
		                     "while it runs has it");
	else if (vars != NULL && definition_role(x->def, HV_ROLE_NVRAM) == NULL)
		read_file(x->def, "nvram", vars);
}

void
domain_xml_free(struct domain_xml *x)
{
	if (x == NULL)
		return;
	lc_free(x->def);
	lc_free(x);
}

const char *
domain_xml_disk(const struct domain_xml *x, const char *device)
{
	size_t i;

	for (i = 0; x != NULL && i < x->naliases; i++) {
		if (strcmp(x->aliases[i].device, device) == 0)
			return x->aliases[i].disk;
	}
	return NULL;
}

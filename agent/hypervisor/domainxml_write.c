/* Making a description. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/deftext.h"
#include "agent/hypervisor/domainxml.h"

#define TARGET_MAX 16
#define PORTS_MAX 24 /* as where we start it ourselves */

struct writer {
	struct lc_buf *out;
	int rc;
};

/* Text of ours. */
static void
put(struct writer *w, const char *text)
{
	w->rc = w->rc != 0 ? w->rc : lc_buf_append(w->out, text, strlen(text));
}

/* A value, between quotes or tags. */
static void
put_value(struct writer *w, const char *s)
{
	static const struct {
		char c;
		const char *as;
	} special[] = {
	    {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&apos;"}};
	size_t i;

	for (; *s != '\0'; s++) {
		const char one[2] = {*s, '\0'}, *as = one;

		for (i = 0; i < sizeof special / sizeof special[0]; i++)
			as = *s == special[i].c ? special[i].as : as;
		put(w, as);
	}
}

static void
put_element(struct writer *w, const char *name, const char *v)
{
	if (v[0] == '\0')
		return;
	put(w, "<");
	put(w, name);
	put(w, ">");
	put_value(w, v);
	put(w, "</");
	put(w, name);
	put(w, ">\n");
}

/* "before", the value, "after" */
static void
put_between(struct writer *w, const char *before, const char *v, const char *after)
{
	if (v[0] == '\0')
		return;
	put(w, before);
	put_value(w, v);
	put(w, after);
}

static void
put_number(struct writer *w, const char *before, uint64_t v, const char *after)
{
	char text[24];

	(void)snprintf(text, sizeof text, "%" PRIu64, v);
	put_between(w, before, text, after);
}

/* ---- the machine ---- */

static const char *
path_of(const struct definition *d, enum hv_role role)
{
	const struct def_disk *disk = definition_role(d, role);

	return disk == NULL ? "" : disk->path;
}

static bool
has_order(const struct definition *d)
{
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		if (d->disks[i].boot != 0 && d->disks[i].role == HV_ROLE_DISK)
			return true;
	}
	return false;
}

static void
put_os(struct writer *w, const struct definition *d)
{
	put_between(w, "<os>\n<type arch='x86_64' machine='", d->machine, "'>hvm</type>\n");
	put_between(w, "<loader readonly='yes' type='pflash'>", d->firmware, "</loader>\n");
	if (d->firmware[0] != '\0')
		put_element(w, "nvram", path_of(d, HV_ROLE_NVRAM));
	put_element(w, "kernel", path_of(d, HV_ROLE_KERNEL));
	put_element(w, "initrd", path_of(d, HV_ROLE_INITRD));
	if (path_of(d, HV_ROLE_KERNEL)[0] != '\0')
		put_element(w, "cmdline", d->append);
	if (!has_order(d))
		put(w, "<boot dev='hd'/>\n");
	put(w, "</os>\n<features><acpi/><apic/></features>\n");
}

/* As libvirt spells it. */
static void
put_feature(struct writer *w, const char *name, bool on)
{
	static const char *const with_score[] = {"cmp-legacy", "ds-cpl",     "fxsr-opt",
	                                         "lahf-lm",    "nodeid-msr", "perfctr-core",
	                                         "perfctr-nb", "tsc-adjust"};
	char text[DEFTEXT_FEATURE_MAX], *dash;
	size_t i;

	(void)snprintf(text, sizeof text, "%s", strcmp(name, "pclmulqdq") == 0 ? "pclmuldq" : name);
	for (i = 0; i < sizeof with_score / sizeof with_score[0]; i++) {
		dash = strcmp(name, with_score[i]) == 0 ? strchr(text, '-') : NULL;
		if (dash != NULL)
			*dash = '_';
	}
	put_between(w, on ? "<feature policy='require' name='" : "<feature policy='disable' name='",
	            text, "'/>\n");
}

static void
put_cpu(struct writer *w, const struct definition *d, bool kvm)
{
	const char *s = d->cpu_features;
	char name[DEFTEXT_FEATURE_MAX];
	unsigned n[3];
	bool on;

	if (strcmp(d->cpu, "host") == 0 && kvm)
		put(w, "<cpu mode='host-passthrough'>\n");
	else if (strcmp(d->cpu, "host") == 0 || strcmp(d->cpu, "max") == 0)
		put(w, "<cpu mode='maximum'>\n");
	else
		put_between(w,
		            "<cpu mode='custom' match='exact' check='none'><model "
		            "fallback='allow'>",
		            d->cpu, "</model>\n");
	if (deftext_topology(d->topology, n)) {
		put_number(w, "<topology sockets='", n[0], "'");
		put_number(w, " cores='", n[1], "'");
		put_number(w, " threads='", n[2], "'/>\n");
	}
	while ((s = deftext_feature(s, &on, name)) != NULL)
		put_feature(w, name, on);
	put(w, "</cpu>\n");
}

/* ---- devices ---- */

static const char *const bus_names[] = {"virtio", "scsi", "sata", "ide"};
static const char *const bus_letters[] = {"vd", "sd", "sd", "hd"};

/* A name that libvirt itself would give on that bus. */
static bool
is_target(const char *name, enum def_bus bus)
{
	size_t n = strlen(name);

	return n == 3 && strncmp(name, bus_letters[bus], 2) == 0 && name[2] >= 'a' &&
	       name[2] <= 'z';
}

static bool
is_taken(const struct definition *d, size_t upto, char targets[][TARGET_MAX], const char *name)
{
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		if (i < upto && strcmp(targets[i], name) == 0)
			return true;
		if (is_target(d->disks[i].name, d->disks[i].bus) &&
		    strcmp(d->disks[i].name, name) == 0)
			return true;
	}
	return false;
}

/* Its own name if it may have that, else the first that is free. */
static bool
choose_target(const struct definition *d, size_t i, char targets[][TARGET_MAX])
{
	const struct def_disk *disk = &d->disks[i];
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
	const char *letter;

	targets[i][0] = '\0';
	if (is_target(disk->name, disk->bus)) {
		(void)snprintf(targets[i], TARGET_MAX, "%.3s", disk->name);
		return true;
	}
	for (letter = letters; *letter != '\0'; letter++) {
		char name[TARGET_MAX];

		(void)snprintf(name, sizeof name, "%s%c", bus_letters[disk->bus], *letter);
		if (is_taken(d, i, targets, name))
			continue;
		memcpy(targets[i], name, sizeof name);
		return true;
	}
	return false;
}

static void
put_disk(struct writer *w, const struct def_disk *disk, const char *target)
{
	put_between(w, "<disk type='file' device='disk'>\n<driver name='qemu' type='", disk->format,
	            "' discard='unmap'/>\n");
	put_between(w, "<source file='", disk->path, "'/>\n");
	put_between(w, "<target dev='", target, "' bus='");
	put_between(w, "", bus_names[disk->bus], "'/>\n");
	if (disk->block > DEF_BLOCK_MIN) {
		put_number(w, "<blockio logical_block_size='", disk->block, "' ");
		put_number(w, "physical_block_size='", disk->block, "'/>\n");
	}
	put_element(w, "serial", disk->serial);
	if (disk->boot != 0)
		put_number(w, "<boot order='", disk->boot, "'/>\n");
	put(w, "</disk>\n");
}

static int
put_disks(struct writer *w, const struct definition *d, struct lc_err *e)
{
	char targets[HV_DISKS_MAX][TARGET_MAX];
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		const struct def_disk *disk = &d->disks[i];

		targets[i][0] = '\0';
		if (disk->role != HV_ROLE_DISK)
			continue;
		if (!choose_target(d, i, targets))
			return lc_fail(e, LC_ENOTSUP, 0, "more than 26 disks on one kind of bus");
		put_disk(w, disk, targets[i]);
	}
	return 0;
}

/* Behind a root port, by whose number a guest calls its card; libvirt makes the ports up to it. */
static void
put_port(struct writer *w, const struct definition *d, const char *address)
{
	unsigned long bus = strtoul(address, NULL, 16);

	if (bus == 0 || bus > PORTS_MAX || strcmp(address + 2, ":00.0") != 0 ||
	    strstr(d->machine, "q35") == NULL)
		return;
	put_number(w, "<address type='pci' domain='0' bus='", bus, "' slot='0' function='0'/>\n");
}

static void
put_nic(struct writer *w, const struct definition *d, const struct def_nic *nic)
{
	static const char bridge[] = "bridge:";
	size_t n = sizeof bridge - 1;

	if (strncmp(nic->network, bridge, n) == 0) {
		put(w, "<interface type='bridge'>\n");
		put_between(w, "<source bridge='", nic->network + n, "'/>\n");
	} else if (strcmp(nic->network, "user") == 0 || strcmp(nic->network, "none") == 0 ||
	           strcmp(nic->network, "unmapped") == 0) {
		put(w, "<interface type='user'>\n");
		if (strcmp(nic->network, "user") != 0)
			put(w, "<link state='down'/>\n");
	} else {
		put(w, "<interface type='network'>\n");
		put_between(w, "<source network='", nic->network, "'/>\n");
	}
	put_between(w, "<mac address='", nic->mac, "'/>\n");
	put_between(w, "<model type='", nic->model, "'/>\n");
	put_port(w, d, nic->address);
	put(w, "</interface>\n");
}

static bool
has_scsi(const struct definition *d)
{
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		if (d->disks[i].role == HV_ROLE_DISK && d->disks[i].bus == DEF_BUS_SCSI)
			return true;
	}
	return false;
}

int
domain_xml_write(const struct definition *d, const struct domain_xml_opts *o, struct lc_buf *out,
                 struct lc_err *e)
{
	struct writer w = {.out = out};
	size_t i;
	int rc;

	put(&w, o->kvm ? "<domain type='kvm'>\n" : "<domain type='qemu'>\n");
	put_element(&w, "name", o->name);
	put_element(&w, "uuid", d->uuid);
	put_element(&w, "description", o->comment);
	put_number(&w, "<memory unit='KiB'>", d->memory >> 10, "</memory>\n");
	put_number(&w, "<vcpu>", d->cpus, "</vcpu>\n");
	put_os(&w, d);
	put_cpu(&w, d, o->kvm);
	put_between(&w, "<clock offset='", d->clock, "'/>\n");
	put(&w, "<devices>\n");
	if (has_scsi(d))
		put(&w, "<controller type='scsi' index='0' model='virtio-scsi'/>\n");
	rc = put_disks(&w, d, e);
	if (rc != 0)
		return rc;
	for (i = 0; i < d->nnics; i++)
		put_nic(&w, d, &d->nics[i]);
	/* What an operator looks at, and the guest agent's channel. */
	put(&w, "<serial type='pty'/>\n<console type='pty'/>\n<graphics type='vnc'/>\n"
	        "<video><model type='vga'/></video>\n<channel type='unix'><target type='virtio' "
	        "name='org.qemu.guest_agent.0'/></channel>\n</devices>\n</domain>\n");
	return w.rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

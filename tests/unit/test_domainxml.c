#include <stdio.h>
#include <string.h>

#include "agent/hypervisor/domainxml.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"

static const char live[] =
    "<domain type='kvm' id='3'>\n"
    "  <name>Web &amp; 01</name>\n"
    "  <uuid>A69E0E58-296b-4fa5-93c4-a7945ef62935</uuid>\n"
    "  <memory unit='KiB'>2097153</memory>\n"
    "  <currentMemory unit='KiB'>1048576</currentMemory>\n"
    "  <vcpu placement='static'>4</vcpu>\n"
    "  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>\n"
    "    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>\n"
    "    <nvram template='/x'>/var/lib/libvirt/qemu/nvram/web01_VARS.fd</nvram>\n"
    "    <kernel>/k/vmlinuz</kernel><cmdline>  console=ttyS0 quiet </cmdline></os>\n"
    "  <cpu mode='custom'><model fallback='forbid'>EPYC-Rome</model><feature policy='require' "
    "name='x2apic'/><feature policy='disable' name='pclmuldq'/><feature policy='force' "
    "name='lahf_lm'/><topology sockets='1' dies='1' cores='2' threads='2'/></cpu>\n"
    "  <clock offset='localtime'/>\n"
    "  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\n"
    "      <source file='/images/web &lt;01&gt;.qcow2' index='2'/>\n"
    "      <backingStore type='file'><format type='raw'/><source file='/old.raw'/></backingStore>\n"
    "      <target dev='vda' bus='virtio'/><serial>abc-1</serial><boot order='1'/>\n"
    "      <alias name='virtio-disk0'/></disk>\n"
    "    <disk type='block' device='disk'><driver name='qemu' type='raw'/>\n"
    "      <source dev='/dev/vg/data'/><target dev='sdb' bus='scsi'/>\n"
    "      <blockio logical_block_size='4096' physical_block_size='4096'/>\n"
    "      <alias name='scsi0-0-0-1'/></disk>\n"
    "    <disk type='network' device='disk'><driver name='qemu' type='raw'/>\n"
    "      <source protocol='rbd' name='p/i'/><target dev='vdc' bus='virtio'/></disk>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='vmdk'/>\n"
    "      <source file='/images/x.vmdk'/><target dev='vdd' bus='virtio'/></disk>\n"
    "    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>\n"
    "    <interface type='network'><mac address='52:54:00:AA:00:01'/>\n"
    "      <source network='default' bridge='virbr0'/><target dev='vnet0'/><model "
    "type='virtio'/>\n"
    "      <alias name='net0'/></interface>\n"
    "    <interface type='bridge'><mac address='52:54:00:aa:00:02'/><source bridge='br0'/>\n"
    "      <model type='e1000'/></interface>\n"
    "    <interface type='direct'><mac address='52:54:00:aa:00:03'/><source dev='eth0'/>\n"
    "      <model type='virtio'/></interface>\n"
    "    <hostdev mode='subsystem' type='pci'/><tpm model='tpm-crb'/>\n"
    "    <console type='pty'/><memballoon model='virtio'/></devices>\n"
    "</domain>\n";

static struct domain_xml *
read_text(const char *text)
{
	struct lc_err e = LC_ERR_INIT;
	struct domain_xml *x;

	if (domain_xml_read(text, strlen(text), &x, &e) != 0)
		fail_msg("%s", e.msg);
	return x;
}

static const char *
why_left_out(const struct definition *d, const char *what)
{
	size_t i;

	for (i = 0; i < d->nleft_out; i++) {
		if (strcmp(d->left_out[i].what, what) == 0)
			return d->left_out[i].why;
	}
	return NULL;
}

static void
test_machine(void **state)
{
	struct domain_xml *x = read_text(live);
	const struct definition *d = x->def;

	(void)state;
	assert_string_equal(d->machine, "pc-q35-7.2");
	assert_string_equal(d->uuid, "a69e0e58-296b-4fa5-93c4-a7945ef62935");
	assert_int_equal(d->memory, UINT64_C(2049) << 20); /* whole MiB, none less */
	assert_int_equal(d->cpus, 4);
	assert_string_equal(d->topology, "1:2:2");
	assert_string_equal(d->cpu, "EPYC-Rome");
	assert_string_equal(d->clock, "localtime");
	assert_string_equal(d->firmware, "/usr/share/OVMF/OVMF_CODE_4M.fd");
	assert_string_equal(d->append, "console=ttyS0 quiet");
	assert_non_null(definition_role(d, HV_ROLE_NVRAM));
	assert_string_equal(d->cpu_features, "+x2apic,-pclmulqdq,+lahf-lm");
	assert_string_equal(why_left_out(d, "hostdev"),
	                    "a device of this host that was passed through");
	assert_non_null(strstr(why_left_out(d, "tpm"), "recovery key"));
	assert_null(why_left_out(d, "memballoon"));
	domain_xml_free(x);
}

static void
test_disks(void **state)
{
	struct domain_xml *x = read_text(live);
	const struct def_disk *k;

	(void)state;
	k = definition_disk(x->def, "vda");
	assert_non_null(k);
	assert_string_equal(k->path, "/images/web <01>.qcow2");
	assert_string_equal(k->format, "qcow2");
	assert_string_equal(k->serial, "abc-1");
	assert_int_equal(k->boot, 1);
	k = definition_disk(x->def, "sdb");
	assert_non_null(k);
	assert_string_equal(k->path, "/dev/vg/data");
	assert_int_equal(k->bus, DEF_BUS_SCSI);
	assert_int_equal(k->block, 4096);
	/* Never read as something that they are not. */
	k = definition_disk(x->def, "vdc");
	assert_non_null(k);
	assert_string_equal(k->path, "");
	assert_non_null(why_left_out(x->def, "disk vdc"));
	k = definition_disk(x->def, "vdd");
	assert_non_null(k);
	assert_string_equal(k->path, "");
	assert_non_null(why_left_out(x->def, "disk vdd"));
	assert_null(definition_disk(x->def, "sda"));
	assert_non_null(why_left_out(x->def, "removable drive sda"));
	assert_string_equal(domain_xml_disk(x, "virtio-disk0"), "vda");
	assert_string_equal(domain_xml_disk(x, "scsi0-0-0-1"), "sdb");
	assert_null(domain_xml_disk(x, "virtio-disk1"));
	assert_null(domain_xml_disk(NULL, "virtio-disk0"));
	domain_xml_free(x);
}

static void
test_nics(void **state)
{
	struct domain_xml *x = read_text(live);
	const struct definition *d = x->def;

	(void)state;
	assert_int_equal(d->nnics, 3);
	assert_string_equal(d->nics[0].network, "default");
	assert_string_equal(d->nics[0].mac, "52:54:00:aa:00:01");
	assert_string_equal(d->nics[1].network, "bridge:br0");
	assert_string_equal(d->nics[1].model, "e1000");
	assert_string_equal(d->nics[2].network, "none");
	assert_non_null(why_left_out(d, d->nics[2].name));
	domain_xml_free(x);
}

static void
test_refused(void **state)
{
	static const char *const bad[] = {
	    "",
	    "<domain",
	    "<network/>",
	    "<domain type='xen'/>",
	    "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
	    "<domain type='kvm'><name>&x;</name></domain>",
	    "<domain type='kvm'><devices><disk type='file' device='disk'><target "
	    "dev='../a,b'/></disk></devices></domain>",
	};
	struct domain_xml *x;
	struct lc_err e;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		lc_err_clear(&e);
		assert_int_equal(domain_xml_read(bad[i], strlen(bad[i]), &x, &e), LC_EINVAL);
		assert_null(x);
	}
	/* A value that a definition does not take is told, and not taken. */
	x = read_text("<domain type='kvm'><os><type machine='q35,accel=x'>hvm</type></os>"
	              "<devices><disk type='file' device='disk'><source file='exec:id'/><target "
	              "dev='vda' bus='virtio'/></disk></devices></domain>");
	assert_string_equal(x->def->machine, "q35");
	assert_string_equal(definition_disk(x->def, "vda")->path, "");
	assert_non_null(why_left_out(x->def, "machine  type"));
	domain_xml_free(x);
}

static void
test_written(void **state)
{
	const struct domain_xml_opts o = {
	    .name = "a <b> & 'c' \"d\"", .comment = "web01 <of> today", .kvm = true};
	struct domain_xml *x = read_text(live), *again;
	struct lc_buf text = {0};
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	(void)state;
	for (i = 0; i < x->def->ndisks; i++) {
		if (x->def->disks[i].path[0] == '\0')
			assert_int_equal(definition_set(x->def, "disk", x->def->disks[i].name,
			                                "path", "/r/<x>.raw", &e),
			                 0);
	}
	assert_int_equal(
	    definition_set(x->def, "nic", x->def->nics[0].name, "address", "05:00.0", &e), 0);
	assert_int_equal(
	    definition_set(x->def, "nic", x->def->nics[1].name, "address", "00:1f.0", &e), 0);
	assert_int_equal(domain_xml_write(x->def, &o, &text, &e), 0);
	assert_int_equal(lc_buf_append(&text, "", 1), 0);
	assert_non_null(strstr((char *)text.p,
	                       "<model type='virtio'/>\n<address type='pci' domain='0' "
	                       "bus='5' slot='0' function='0'/>\n</interface>"));
	assert_non_null(strstr((char *)text.p, "<model type='e1000'/>\n</interface>"));
	assert_non_null(
	    strstr((char *)text.p, "<name>a &lt;b&gt; &amp; &apos;c&apos; &quot;d&quot;</name>"));
	assert_non_null(strstr((char *)text.p, "<feature policy='disable' name='pclmuldq'/>"));
	assert_non_null(strstr((char *)text.p, "<feature policy='require' name='lahf_lm'/>"));
	again = read_text((char *)text.p);
	assert_string_equal(again->def->uuid, x->def->uuid);
	assert_string_equal(again->def->cpu_features, x->def->cpu_features);
	assert_string_equal(again->def->cpu, x->def->cpu);
	assert_string_equal(again->def->topology, x->def->topology);
	assert_string_equal(again->def->firmware, x->def->firmware);
	assert_int_equal(again->def->ndisks, x->def->ndisks);
	for (i = 0; i < x->def->ndisks; i++) {
		const struct def_disk *k = definition_disk(again->def, x->def->disks[i].name);

		assert_non_null(k);
		assert_string_equal(k->path, x->def->disks[i].path);
		assert_int_equal(k->bus, x->def->disks[i].bus);
		assert_int_equal(k->block, x->def->disks[i].block);
	}
	assert_int_equal(again->def->nnics, 3);
	assert_string_equal(again->def->nics[0].network, "default");
	assert_string_equal(again->def->nics[1].network, "bridge:br0");
	domain_xml_free(again);
	domain_xml_free(x);
	lc_buf_free(&text);
}

/* Names of QEMU's are none that libvirt has; two disks never get the same. */
static void
test_targets(void **state)
{
	const struct domain_xml_opts o = {.name = "x", .comment = ""};
	struct definition *d = definition_new();
	struct domain_xml *x;
	struct lc_buf text = {0};
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_int_equal(definition_set(d, "disk", "virtio0", "path", "/a", &e), 0);
	assert_int_equal(definition_set(d, "disk", "vda", "path", "/b", &e), 0);
	assert_int_equal(definition_set(d, "disk", "disk-c", "path", "/c", &e), 0);
	assert_int_equal(domain_xml_write(d, &o, &text, &e), 0);
	assert_int_equal(lc_buf_append(&text, "", 1), 0);
	x = read_text((char *)text.p);
	assert_string_equal(definition_disk(x->def, "vda")->path, "/b");
	assert_string_equal(definition_disk(x->def, "vdb")->path, "/a");
	assert_string_equal(definition_disk(x->def, "vdc")->path, "/c");
	domain_xml_free(x);
	lc_buf_free(&text);
	lc_free(d);
}

/* Where nothing is said libvirt makes sockets, and dies can't be had again. */
static void
test_topology(void **state)
{
	static const struct {
		const char *text, *topology;
		bool told;
	} rows[] = {
	    {"<vcpu>1</vcpu>", "", false},
	    {"<vcpu>4</vcpu>", "4:1:1", false},
	    {"<vcpu>4</vcpu><cpu><topology sockets='2' cores='2' threads='1'/></cpu>", "2:2:1",
	     false},
	    {"<vcpu>4</vcpu><cpu><topology sockets='1' dies='2' cores='2' threads='1'/></cpu>", "",
	     true},
	    {"<vcpu>4</vcpu><cpu><topology sockets='x' cores='2' threads='1'/></cpu>", "", true}};
	char text[512];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct domain_xml *x;

		(void)snprintf(text, sizeof text, "<domain type='kvm'>%s</domain>", rows[i].text);
		x = read_text(text);
		assert_string_equal(x->def->topology, rows[i].topology);
		assert_int_equal(why_left_out(x->def, "CPU topology") != NULL, rows[i].told);
		domain_xml_free(x);
	}
}

/* What only libvirt tells of. */
static void
test_the_rest(void **state)
{
	static const struct {
		const char *text, *what;
	} rows[] = {
	    {"<os><smbios mode='sysinfo'/></os><sysinfo type='smbios'/>", "SMBIOS"},
	    {"<os><smbios mode='host'/></os>", "SMBIOS"},
	    {"<features><acpi/><hyperv mode='custom'/></features>", "Hyper-V features"},
	    {"<features><kvm><hidden state='on'/></kvm></features>", "KVM features"},
	    {"<cpu><numa><cell id='0'/></numa></cpu>", "NUMA nodes"},
	    {"<launchSecurity type='sev'/>", "launch security"},
	    {"<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'/>",
	     "arguments for QEMU"},
	    {"<sysinfo type='fwcfg'><entry name='opt/x'>y</entry></sysinfo>", "firmware settings"},
	    {"<os><acpi><table type='slic'>/s</table></acpi></os>", "ACPI tables"},
	    {"<os><loader secure='yes' type='pflash'>/fw.fd</loader></os>", "secure boot"},
	    {"<os><loader secure='no' type='pflash'>/fw.fd</loader></os>", NULL},
	    {"<devices><disk type='file' device='disk'><driver type='raw'/><source file='/a'/>"
	     "<target dev='vda' bus='virtio'/><readonly/></disk></devices>",
	     "write protection of vda"},
	    {"<clock offset='timezone' timezone='Asia/Tokyo'/>", "clock"},
	    {"<clock offset='absolute' start='0'/>", "clock"},
	    {"<clock offset='variable' adjustment='-7200' basis='utc'/>", "clock"},
	    {"<clock offset='variable' adjustment='-3' basis='localtime'/>", NULL},
	    {"<clock offset='utc' adjustment='reset'/>", NULL},
	    {"<os><smbios mode='emulate'/></os><features><acpi/></features>", NULL},
	};
	char text[512];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct domain_xml *x;

		(void)snprintf(text, sizeof text, "<domain type='kvm'>%s</domain>", rows[i].text);
		x = read_text(text);
		assert_int_equal(x->def->nleft_out, rows[i].what != NULL);
		if (rows[i].what != NULL) {
			assert_string_equal(x->def->left_out[0].what, rows[i].what);
			assert_true(domain_xml_alone_tells(rows[i].what));
		}
		domain_xml_free(x);
	}
	assert_false(domain_xml_alone_tells("tpm"));
	assert_false(domain_xml_alone_tells("network of net0"));
	assert_true(domain_xml_alone_tells("port of net0"));
	assert_false(domain_xml_alone_tells("PCI addresses"));
}

/* A firmware that libvirt chooses when the domain starts, and variables said at length. */
static void
test_firmware(void **state)
{
	static const char chosen[] =
	    "<domain type='kvm'><os firmware='efi'><type>hvm</type></os></domain>";
	struct domain_xml *x = read_text(chosen);

	(void)state;
	domain_xml_firmware(x, "/fw/code.fd", "/nvram/a.fd");
	assert_string_equal(x->def->firmware, "/fw/code.fd");
	assert_non_null(definition_role(x->def, HV_ROLE_NVRAM));
	assert_string_equal(definition_role(x->def, HV_ROLE_NVRAM)->path, "/nvram/a.fd");
	assert_int_equal(x->def->nleft_out, 0);
	domain_xml_free(x);
	x = read_text(chosen);
	domain_xml_firmware(x, NULL, NULL);
	assert_string_equal(x->def->firmware, "");
	assert_non_null(why_left_out(x->def, "firmware"));
	domain_xml_free(x);
	/* Its own goes before, and a BIOS needs no file. */
	x = read_text(live);
	domain_xml_firmware(x, "/fw/code.fd", "/nvram/a.fd");
	assert_string_equal(x->def->firmware, "/usr/share/OVMF/OVMF_CODE_4M.fd");
	domain_xml_free(x);
	x = read_text("<domain type='kvm'><os firmware='bios'><type>hvm</type></os></domain>");
	domain_xml_firmware(x, NULL, NULL);
	assert_int_equal(x->def->nleft_out, 0);
	domain_xml_free(x);
	x = read_text(
	    "<domain type='kvm'><os><loader type='pflash'>/c</loader>"
	    "<nvram type='file' format='qcow2'>\n  <source file='/v.fd'/>\n</nvram></os></domain>");
	assert_int_equal(x->def->nleft_out, 0);
	assert_string_equal(definition_role(x->def, HV_ROLE_NVRAM)->path, "/v.fd");
	assert_string_equal(definition_role(x->def, HV_ROLE_NVRAM)->format, "qcow2");
	domain_xml_free(x);
	x = read_text(
	    "<domain type='kvm'><os><loader type='pflash'>/c</loader><nvram type='network'>"
	    "<source protocol='nbd'/></nvram></os></domain>");
	assert_null(definition_role(x->def, HV_ROLE_NVRAM));
	assert_non_null(why_left_out(x->def, "firmware variables"));
	domain_xml_free(x);
}

/* What a card has at the other end of its line. */
static void
test_ports(void **state)
{
	static const struct {
		const char *type, *text, *why;
	} rows[] = {
	    {"network", "<source network='default' portgroup='eng'/>",
	     "port group: not made again"},
	    {"bridge",
	     "<source bridge='br0'/><vlan><tag id='42'/></vlan><virtualport type='openvswitch'/>",
	     "VLAN, virtual port: not made again"},
	    {"network",
	     "<source network='default'/><filterref filter='clean-traffic'/><link state='down'/>",
	     "filter, link that is down: not made again"},
	    {"network", "<source network='default' bridge='virbr0'/><link state='up'/>", NULL},
	};
	char text[512];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct domain_xml *x;

		(void)snprintf(text, sizeof text,
		               "<domain type='kvm'><devices><interface type='%s'>%s<model "
		               "type='virtio'/></interface></devices></domain>",
		               rows[i].type, rows[i].text);
		x = read_text(text);
		assert_int_equal(x->def->nnics, 1);
		assert_int_equal(x->def->nleft_out, rows[i].why != NULL);
		if (rows[i].why != NULL)
			assert_string_equal(why_left_out(x->def, "port of net0"), rows[i].why);
		domain_xml_free(x);
	}
}

/* The numbers that the firmware gives to buses are libvirt's where there are root ports only, in
 * order. */
static void
test_addresses(void **state)
{
	static const char nic[] =
	    "<interface type='user'><model type='virtio'/><address type='pci' domain='0x0000' "
	    "bus='%s' slot='0x%s' function='0x0'/></interface>";
	static const char port[] =
	    "<controller type='pci' index='%d' model='pcie-root-port'><address type='pci' "
	    "bus='0x00' slot='0x0%d' function='0x%d'/></controller>";
	static const struct {
		int second; /* slot of the second port */
		const char *bus, *slot, *more, *address;
	} rows[] = {
	    {2, "0x02", "00", "", "02:00.0"},
	    {2, "0x00", "1f", "", "00:1f.0"},
	    {2, "0x02", "00", "<controller type='pci' index='3' model='pcie-to-pci-bridge'/>", ""},
	    {1, "0x02", "00", "", ""}, /* before the first one */
	    {2, "0x02", "00", "<controller type='pci' index='9' model='pcie-root-port'/>", ""},
	    {2, "0x102", "00", "", ""},
	};
	char text[2048];
	size_t i, n;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct domain_xml *x;

		n = (size_t)snprintf(text, sizeof text,
		                     "<domain type='kvm'><devices>"
		                     "<controller type='pci' index='0' model='pcie-root'/>");
		n += (size_t)snprintf(text + n, sizeof text - n, port, 1, 1, 1);
		n += (size_t)snprintf(text + n, sizeof text - n, port, 2, rows[i].second, 0);
		n += (size_t)snprintf(text + n, sizeof text - n, "%s", rows[i].more);
		n += (size_t)snprintf(text + n, sizeof text - n, nic, rows[i].bus, rows[i].slot);
		(void)snprintf(text + n, sizeof text - n, "</devices></domain>");
		x = read_text(text);
		assert_int_equal(x->def->nnics, 1);
		assert_string_equal(x->def->nics[0].address, rows[i].address);
		assert_int_equal(why_left_out(x->def, "PCI addresses") != NULL,
		                 rows[i].address[0] == '\0' && strlen(rows[i].bus) == 4);
		domain_xml_free(x);
	}
}

/* What else a domain that is off would lose without a word. */
static void
test_off(void **state)
{
	static const char text[] =
	    "<domain type='kvm'><genid/><vcpu current='2'>8</vcpu>"
	    "<clock offset='variable' adjustment='3600' basis='localtime'/><devices>"
	    "<disk type='file' device='disk'><source file='/a.raw'>"
	    "<slices><slice type='storage' offset='65536' size='65536'/></slices></source>"
	    "<target dev='vda' bus='virtio'/></disk><controller type='scsi' model='virtio-scsi'/>"
	    "<controller type='scsi' index='1' model='lsisas1068'/></devices></domain>";
	struct domain_xml *x = read_text(text);

	(void)state;
	assert_string_equal(why_left_out(x->def, "SCSI controller"),
	                    "lsisas1068: becomes virtio-scsi");
	assert_non_null(why_left_out(x->def, "VM generation ID"));
	assert_false(domain_xml_alone_tells("VM generation ID"));
	assert_int_equal(x->def->cpus, 2); /* as many as one that runs has */
	assert_non_null(why_left_out(x->def, "CPU topology"));
	assert_string_equal(x->def->clock, "localtime");
	assert_non_null(why_left_out(x->def, "clock"));
	/* The file is not what the guest sees. */
	assert_string_equal(definition_disk(x->def, "vda")->path, "");
	assert_non_null(why_left_out(x->def, "disk vda"));
	domain_xml_free(x);
}

/* What libvirt says of the guest agent. */
static void
test_agent(void **state)
{
	static const char frame[] =
	    "<domain type='kvm'><devices><channel type='unix'><source mode='bind' path='%s'/>"
	    "<target type='virtio' name='%s' state='%s'/></channel></devices></domain>";
	static const struct {
		const char *path, *name, *state;
		enum hv_agent agent;
	} rows[] = {{"/a/b", "org.qemu.guest_agent.0", "connected", HV_AGENT_THERE},
	            {"/a/b", "org.qemu.guest_agent.0", "disconnected", HV_AGENT_AWAY},
	            {"", "com.redhat.spice.0", "connected", HV_AGENT_NOWHERE}};
	char text[512];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct domain_xml *x;

		(void)snprintf(text, sizeof text, frame, rows[i].path, rows[i].name, rows[i].state);
		x = read_text(text);
		assert_int_equal(x->agent, rows[i].agent);
		assert_string_equal(x->agent_socket, rows[i].path);
		domain_xml_free(x);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_machine),   cmocka_unit_test(test_disks),
	    cmocka_unit_test(test_nics),      cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_written),   cmocka_unit_test(test_targets),
	    cmocka_unit_test(test_agent),     cmocka_unit_test(test_topology),
	    cmocka_unit_test(test_the_rest),  cmocka_unit_test(test_firmware),
	    cmocka_unit_test(test_ports),     cmocka_unit_test(test_off),
	    cmocka_unit_test(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

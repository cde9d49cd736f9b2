/*
 * PCI addresses: devices with a recorded address come first on the command line, because QEMU hands
 * out free slots in the order it meets the others.
 *
 * Buses: on q35 a recorded bus other than 00 is behind a root port of the original.  As many root
 * ports are made as the highest bus number; the BIOS numbers their buses in the order of their
 * slots, so that port k becomes bus k and a guest that names its network cards by bus and slot
 * finds them again.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/base/memory.h"

#include "agent/hypervisor/deftext.h"
#include "agent/hypervisor/driver.h"
#include "agent/hypervisor/imageformat.h"
#include "agent/hypervisor/launch_args.h"
#include "agent/hypervisor/qemutext.h"

#define NODE_NAME_MAX 31 /* QEMU's */
#define NBD_RECONNECT_S \
	120 /* a restart of the server is a pause for the guest; then its requests fail */
#define SLOTS 32
#define PORTS_MAX 24
#define FIRMWARE_ROOT "/usr/share/"
#define NETDEV_SIZE 64
#define SATA_MAX 6
#define IDE_MAX 4
#define SCSI_MAX 255

struct build {
	const struct definition *def;
	const struct launch_opts *opts;
	const struct launch_fds *fds;
	struct launch_args *a;
	struct lc_err *e;
	bool q35;
	unsigned sata, ide, scsi; /* used so far */
	unsigned ports;           /* root ports, buses 1 to ports */
	unsigned fdsets;
};

/* ---- arguments ---- */

void
launch_fds_init(struct launch_fds *fds)
{
	memset(fds, 0xff, sizeof *fds); /* -1 each */
}

void
launch_args_free(struct launch_args *a)
{
	size_t i;

	for (i = 0; i < a->n; i++)
		lc_free(a->argv[i]);
	lc_free(a->argv);
	*a = (struct launch_args){0};
}

/* Takes s; NULL is remembered as a failure. */
static void
push(struct launch_args *a, char *s)
{
	if (s != NULL && a->n + 1 >= a->cap) {
		size_t cap = a->cap == 0 ? 64 : 2 * a->cap;
		char **more = lc_realloc(a->argv, cap * sizeof *more);

		if (more == NULL) {
			lc_free(s);
			s = NULL;
		} else {
			a->argv = more;
			a->cap = cap;
		}
	}
	if (s == NULL) {
		a->failed = true;
		return;
	}
	a->argv[a->n++] = s;
	a->argv[a->n] = NULL;
}

static void
arg(struct build *b, const char *option, const char *value)
{
	push(b->a, lc_strdup(option));
	if (value != NULL)
		push(b->a, lc_strdup(value));
}

static void argf(struct build *b, const char *option, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
argf(struct build *b, const char *option, const char *fmt, ...)
{
	struct lc_buf text = {0};
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	push(b->a, lc_strdup(option));
	if (n >= 0 && lc_buf_reserve(&text, (size_t)n + 1) == 0) {
		va_start(ap, fmt);
		(void)vsnprintf((char *)text.p, (size_t)n + 1, fmt, ap);
		va_end(ap);
	}
	push(b->a, (char *)text.p);
}

/* Takes j, which becomes an option's value. */
static void
arg_json(struct build *b, const char *option, struct qemutext *j)
{
	push(b->a, lc_strdup(option));
	push(b->a, qemutext_end(j));
}

/* ---- names ---- */

/* What QEMU takes for an id: a letter first. */
static bool
is_id(const char *s)
{
	return (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z');
}

static void
device_id(char *dst, size_t n, const char *name)
{
	(void)snprintf(dst, n, "%s%s", is_id(name) ? "" : DRIVER_DISK_PREFIX, name);
}

/* Of a node; a disk's name that does not fit is cut and told apart by its index. */
static void
node_name(char dst[NODE_NAME_MAX + 1], const char *prefix, const char *disk, size_t i)
{
	int n = snprintf(dst, NODE_NAME_MAX + 1, "%s%s", prefix, disk);

	if (n > NODE_NAME_MAX)
		(void)snprintf(dst + NODE_NAME_MAX - 3, 4, ".%02u", (unsigned)(i % 100));
}

/* ---- images ---- */

const struct launch_disk *
launch_replacement(const struct launch_opts *opts, const char *name)
{
	size_t i;

	for (i = 0; i < opts->ndisks; i++) {
		if (strcmp(opts->disks[i].name, name) == 0)
			return &opts->disks[i];
	}
	return NULL;
}

const char *
launch_image_path(const struct definition *def, const struct launch_opts *opts, size_t i)
{
	const struct launch_disk *r = launch_replacement(opts, def->disks[i].name);

	if (r != NULL && r->kind == LAUNCH_IMAGE_OVERLAY)
		return r->overlay;
	if (r != NULL && r->file != NULL)
		return r->file;
	return opts->own_paths && def->disks[i].path[0] != '\0' ? def->disks[i].path : NULL;
}

static const char *
image_format(const struct build *b, size_t i)
{
	const struct launch_disk *r = launch_replacement(b->opts, b->def->disks[i].name);

	if (r == NULL || (r->kind == LAUNCH_IMAGE_FILE && r->file == NULL))
		return b->def->disks[i].format;
	if (r->kind == LAUNCH_IMAGE_OVERLAY)
		return "qcow2";
	return r->format == NULL ? "raw" : r->format;
}

/* The file under a node: by path, or by descriptors where QEMU may not open the path. */
static void
put_file(struct build *b, struct qemutext *j, size_t i, const char *path)
{
	struct qemutext file = {0};
	char fdset[32];
	struct stat st;
	int fd = b->fds->image[i];
	bool device = (fd >= 0 ? fstat(fd, &st) : stat(path, &st)) == 0 && S_ISBLK(st.st_mode);

	qemutext_put(&file, "driver", device ? "host_device" : "file");
	if (fd >= 0) {
		b->fdsets++;
		argf(b, "-add-fd", "fd=%d,set=%u", fd, b->fdsets);
		if (b->fds->image_ro[i] >= 0)
			argf(b, "-add-fd", "fd=%d,set=%u", b->fds->image_ro[i], b->fdsets);
		(void)snprintf(fdset, sizeof fdset, "/dev/fdset/%u", b->fdsets);
		path = fdset;
	}
	qemutext_put(&file, "filename", path);
	qemutext_put(&file, "locking", "on");
	qemutext_put_object(j, "file", &file);
}

static void
add_nbd_node(struct build *b, const struct launch_disk *r, const char *node)
{
	struct qemutext j = {0}, nbd = {0}, server = {0};
	const char *path = r->nbd_socket, *name = strrchr(path, '/');
	char by_folder[64];

	if (b->fds->served >= 0 && name != NULL) {
		(void)snprintf(by_folder, sizeof by_folder, "/proc/self/fd/%d%.32s", b->fds->served,
		               name);
		path = by_folder;
	}
	qemutext_put(&server, "type", "unix");
	qemutext_put(&server, "path", path);
	qemutext_put(&nbd, "driver", "nbd");
	qemutext_put_object(&nbd, "server", &server);
	qemutext_put(&nbd, "export", r->nbd_export == NULL ? "" : r->nbd_export);
	qemutext_put_number(&nbd, "reconnect-delay", NBD_RECONNECT_S);
	qemutext_put(&j, "driver", "raw");
	qemutext_put(&j, "node-name", node);
	qemutext_put_bool(&j, "read-only", true);
	qemutext_put_object(&j, "file", &nbd);
	arg_json(b, "-blockdev", &j);
}

/* The chain of one disk up to its permanent top node, whose name goes to `top`. */
static int
add_image(struct build *b, size_t i, char top[NODE_NAME_MAX + 1])
{
	const struct def_disk *d = &b->def->disks[i];
	const struct launch_disk *r = launch_replacement(b->opts, d->name);
	const char *path = launch_image_path(b->def, b->opts, i), *format = image_format(b, i);
	bool overlay = r != NULL && r->kind == LAUNCH_IMAGE_OVERLAY;
	char image[NODE_NAME_MAX + 1], base[NODE_NAME_MAX + 1];
	struct qemutext j = {0};

	if (path == NULL)
		return lc_fail(b->e, LC_EINVAL, 0, "disk %s: no image is given for it", d->name);
	if (!imageformat_own(format))
		return lc_fail(b->e, LC_ENOTSUP, 0,
		               "disk %s: its image is %s, which is read here, but no VM runs from "
		               "it: locum restore makes raw or qcow2 of it",
		               d->name, format);
	node_name(image, DRIVER_IMAGE_PREFIX, d->name, i);
	node_name(base, "locum-nbd-", d->name, i);
	node_name(top, DRIVER_TOP_PREFIX, d->name, i);
	if (overlay)
		add_nbd_node(b, r, base);
	qemutext_put(&j, "driver", format);
	qemutext_put(&j, "node-name", image);
	qemutext_put(&j, "discard", "unmap");
	put_file(b, &j, i, path);
	if (overlay)
		qemutext_put(&j, "backing", base);
	arg_json(b, "-blockdev", &j);
	j = (struct qemutext){0};
	qemutext_put(&j, "driver", "raw");
	qemutext_put(&j, "node-name", top);
	qemutext_put(&j, "discard", "unmap");
	qemutext_put(&j, "file", image);
	arg_json(b, "-blockdev", &j);
	return 0;
}

/* ---- PCI ---- */

static unsigned
address_bus(const char *address)
{
	return (unsigned)strtoul(address, NULL, 16);
}

/* An address that can be given: on the first bus, or alone on the bus of a root port of ours. */
static bool
is_usable(const struct build *b, const char *address)
{
	if (address[0] == '\0')
		return false;
	if (address_bus(address) == 0)
		return true;
	return b->q35 && address_bus(address) <= PORTS_MAX && strncmp(address + 3, "00", 2) == 0;
}

static void
put_address(struct build *b, struct qemutext *j, const char *address)
{
	char bus[32];

	if (!is_usable(b, address))
		return;
	if (address_bus(address) == 0)
		(void)snprintf(bus, sizeof bus, "%s", b->q35 ? "pcie.0" : "pci.0");
	else
		(void)snprintf(bus, sizeof bus, "locum-port-%u", address_bus(address));
	qemutext_put(j, "bus", bus);
	qemutext_put(j, "addr", address + 3);
}

static void
note_address(const struct build *b, const char *address, bool used[SLOTS], unsigned *highest)
{
	if (!is_usable(b, address))
		return;
	if (address_bus(address) == 0)
		used[strtoul(address + 3, NULL, 16) % SLOTS] = true;
	else if (address_bus(address) > *highest)
		*highest = address_bus(address);
}

/* Root ports for buses 1 to the highest one recorded, eight to a slot. */
static int
add_ports(struct build *b)
{
	bool used[SLOTS] = {[0] = true, [0x1f] = true};
	unsigned i, slot = 1;

	for (i = 0; i < b->def->ndisks; i++)
		note_address(b, b->def->disks[i].address, used, &b->ports);
	for (i = 0; i < b->def->nnics; i++)
		note_address(b, b->def->nics[i].address, used, &b->ports);
	for (i = 0; i < b->ports; i++) {
		struct qemutext j = {0};
		char text[32];

		while (i % 8 == 0 && slot < SLOTS && used[slot])
			slot++;
		if (slot >= SLOTS)
			return lc_fail(b->e, LC_ENOTSUP, 0, "no PCI slot is left for a root port");
		qemutext_put(&j, "driver", "pcie-root-port");
		(void)snprintf(text, sizeof text, "locum-port-%u", i + 1);
		qemutext_put(&j, "id", text);
		qemutext_put(&j, "bus", "pcie.0");
		(void)snprintf(text, sizeof text, "%02x.%u", slot, i % 8);
		qemutext_put(&j, "addr", text);
		qemutext_put_number(&j, "chassis", i + 1);
		if (i % 8 == 0)
			qemutext_put_bool(&j, "multifunction", true);
		arg_json(b, "-device", &j);
		if (i % 8 == 7)
			slot++;
	}
	return 0;
}

/* ---- disks ---- */

static void
put_drive(struct build *b, struct qemutext *j, size_t i, const char *top)
{
	const struct def_disk *d = &b->def->disks[i];
	char id[HV_NAME_MAX + 16];

	device_id(id, sizeof id, d->name);
	qemutext_put(j, "id", id);
	qemutext_put(j, "drive", top);
	if (d->serial[0] != '\0')
		qemutext_put(j, "serial", d->serial);
	if (d->boot > 0)
		qemutext_put_number(j, "bootindex", d->boot - 1);
	if (d->block > DEF_BLOCK_MIN) {
		qemutext_put_number(j, "logical_block_size", d->block);
		qemutext_put_number(j, "physical_block_size", d->block);
	}
}

static int
too_many(struct build *b, const char *name, const char *bus, unsigned max)
{
	return lc_fail(b->e, LC_ENOTSUP, 0, "disk %s: more than %u disks on %s", name, max, bus);
}

static void
add_controller(struct build *b, const char *driver, const char *id, const char *address)
{
	struct qemutext j = {0};

	qemutext_put(&j, "driver", driver);
	qemutext_put(&j, "id", id);
	put_address(b, &j, address);
	arg_json(b, "-device", &j);
}

static int
put_scsi(struct build *b, struct qemutext *j, const struct def_disk *d)
{
	if (b->scsi == SCSI_MAX)
		return too_many(b, d->name, "SCSI", SCSI_MAX);
	if (b->scsi == 0)
		add_controller(b, "virtio-scsi-pci", "locum-scsi", d->address);
	qemutext_put(j, "driver", "scsi-hd");
	qemutext_put(j, "bus", "locum-scsi.0");
	qemutext_put_number(j, "scsi-id", b->scsi++);
	return 0;
}

static int
put_sata(struct build *b, struct qemutext *j, const struct def_disk *d)
{
	char bus[32];

	if (b->sata == SATA_MAX)
		return too_many(b, d->name, "SATA", SATA_MAX);
	if (b->sata == 0 && !b->q35)
		add_controller(b, "ahci", "locum-ahci", "");
	(void)snprintf(bus, sizeof bus, "%s.%u", b->q35 ? "ide" : "locum-ahci", b->sata++);
	qemutext_put(j, "driver", "ide-hd");
	qemutext_put(j, "bus", bus);
	return 0;
}

static int
put_ide(struct build *b, struct qemutext *j, const struct def_disk *d)
{
	char bus[32];

	if (b->q35) /* which has no IDE */
		return put_sata(b, j, d);
	if (b->ide == IDE_MAX)
		return too_many(b, d->name, "IDE", IDE_MAX);
	(void)snprintf(bus, sizeof bus, "ide.%u", b->ide / 2);
	qemutext_put(j, "driver", "ide-hd");
	qemutext_put(j, "bus", bus);
	qemutext_put_number(j, "unit", b->ide++ % 2);
	return 0;
}

static int
add_disk(struct build *b, size_t i)
{
	const struct def_disk *d = &b->def->disks[i];
	char top[NODE_NAME_MAX + 1];
	struct qemutext j = {0};
	int rc = add_image(b, i, top);

	if (rc != 0)
		return rc;
	switch (d->bus) {
	case DEF_BUS_VIRTIO:
		qemutext_put(&j, "driver", "virtio-blk-pci");
		put_address(b, &j, d->address);
		break;
	case DEF_BUS_SCSI:
		rc = put_scsi(b, &j, d);
		break;
	case DEF_BUS_SATA:
		rc = put_sata(b, &j, d);
		break;
	case DEF_BUS_IDE:
		rc = put_ide(b, &j, d);
		break;
	}
	if (rc != 0) {
		qemutext_drop(&j);
		return rc;
	}
	put_drive(b, &j, i, top);
	arg_json(b, "-device", &j);
	return 0;
}

static int
add_disks(struct build *b, bool with_address)
{
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < b->def->ndisks; i++) {
		const struct def_disk *d = &b->def->disks[i];

		if (d->role == HV_ROLE_DISK && is_usable(b, d->address) == with_address)
			rc = add_disk(b, i);
	}
	return rc;
}

/* ---- network ---- */

/* Without a recorded address: one that is always the same for this VM and card, and not
 * everybody's. */
static void
make_mac(const struct build *b, const struct def_nic *nic, char mac[18])
{
	const char *parts[] = {b->opts->vm, "/", nic->name};
	uint32_t hash = 2166136261u; /* FNV-1a */
	size_t i;

	for (i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		const char *s;

		for (s = parts[i]; *s != '\0'; s++)
			hash = (hash ^ (unsigned char)*s) * 16777619u;
	}
	(void)snprintf(mac, 18, "52:54:00:%02x:%02x:%02x", (hash >> 16) & 0xff, (hash >> 8) & 0xff,
	               hash & 0xff);
}

/* What card i is connected to; its name, "" for a card without a cable. */
static int
add_netdev(struct build *b, size_t i, char netdev[NETDEV_SIZE])
{
	const struct def_nic *nic = &b->def->nics[i];

	(void)snprintf(netdev, NETDEV_SIZE, "locum-net-%zu", i);
	if (strcmp(nic->network, "none") == 0) {
		netdev[0] = '\0';
	} else if (b->opts->isolated) {
		argf(b, "-netdev", "user,id=%s,restrict=on", netdev);
	} else if (strcmp(nic->network, "user") == 0) {
		argf(b, "-netdev", "user,id=%s", netdev);
	} else if (b->fds->tap[i] >= 0) {
		(void)snprintf(netdev, NETDEV_SIZE, DRIVER_BRIDGE_PREFIX "%zu-%s", i,
		               nic->network + strlen("bridge:"));
		argf(b, "-netdev", "tap,id=%s,fd=%d", netdev, b->fds->tap[i]);
	} else {
		return lc_fail(
		    b->e, LC_EINVAL, 0,
		    "nic %s: network '%s' means nothing on this host; map it to bridge:NAME, "
		    "user or none",
		    nic->name, nic->network);
	}
	return 0;
}

static int
add_nic(struct build *b, size_t i)
{
	static const struct {
		const char *model, *driver;
	} drivers[] = {{"virtio", "virtio-net-pci"},
	               {"e1000", "e1000"},
	               {"e1000e", "e1000e"},
	               {"rtl8139", "rtl8139"}};
	const struct def_nic *nic = &b->def->nics[i];
	const char *driver = NULL;
	char id[HV_NAME_MAX + 16], netdev[NETDEV_SIZE], mac[18];
	struct qemutext j = {0};
	size_t k;
	int rc;

	for (k = 0; k < sizeof drivers / sizeof drivers[0]; k++) {
		if (strcmp(drivers[k].model, nic->model) == 0)
			driver = drivers[k].driver;
	}
	if (driver == NULL)
		return lc_fail(b->e, LC_ENOTSUP, 0, "nic %s: model '%s'", nic->name, nic->model);
	rc = add_netdev(b, i, netdev);
	if (rc != 0)
		return rc;
	if (definition_disk(b->def, nic->name) != NULL || !is_id(nic->name))
		(void)snprintf(id, sizeof id, "locum-nic-%zu", i);
	else
		(void)snprintf(id, sizeof id, "%s", nic->name);
	make_mac(b, nic, mac);
	qemutext_put(&j, "driver", driver);
	qemutext_put(&j, "id", id);
	if (netdev[0] != '\0')
		qemutext_put(&j, "netdev", netdev);
	qemutext_put(&j, "mac", nic->mac[0] == '\0' ? mac : nic->mac);
	qemutext_put(&j, "romfile", "");
	put_address(b, &j, nic->address);
	arg_json(b, "-device", &j);
	return 0;
}

static int
add_nics(struct build *b, bool with_address)
{
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < b->def->nnics; i++) {
		if (is_usable(b, b->def->nics[i].address) == with_address)
			rc = add_nic(b, i);
	}
	return rc;
}

/* ---- the machine ---- */

/* Flash 0 is the code, flash 1 the variables: returns what -machine says of them. */
static int
add_firmware(struct build *b, char *flash, size_t n)
{
	const char *path = b->def->firmware;
	const struct def_disk *nvram = definition_role(b->def, HV_ROLE_NVRAM);
	char top[NODE_NAME_MAX + 1];
	struct qemutext j = {0}, file = {0};
	int rc;

	*flash = '\0';
	if (path[0] == '\0')
		return 0;
	if (!b->opts->own_paths && (strncmp(path, FIRMWARE_ROOT, sizeof FIRMWARE_ROOT - 1) != 0 ||
	                            strstr(path, "..") != NULL))
		return lc_fail(b->e, LC_EACCES, 0,
		               "firmware %s: only files under " FIRMWARE_ROOT
		               " are used for a recorded machine",
		               path);
	qemutext_put(&file, "driver", "file");
	qemutext_put(&file, "filename", path);
	qemutext_put(&j, "driver", "raw");
	qemutext_put(&j, "node-name", "locum-firmware");
	qemutext_put_bool(&j, "read-only", true);
	qemutext_put_object(&j, "file", &file);
	arg_json(b, "-blockdev", &j);
	(void)snprintf(flash, n, ",pflash0=locum-firmware");
	if (nvram == NULL)
		return 0;
	rc = add_image(b, (size_t)(nvram - b->def->disks), top);
	/* Node names have no commas: disk names have none. */
	(void)snprintf(flash, n, ",pflash0=locum-firmware,pflash1=%s", top);
	return rc;
}

static int
add_file_of_role(struct build *b, enum hv_role role, const char *option)
{
	const struct def_disk *d = definition_role(b->def, role);
	const char *path;
	char link[32];
	size_t i;

	if (d == NULL)
		return 0;
	i = (size_t)(d - b->def->disks);
	path = launch_image_path(b->def, b->opts, i);
	if (path == NULL || path[0] != '/')
		return lc_fail(b->e, LC_EINVAL, 0, "%s: no file is given for it", d->name);
	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", b->fds->image_ro[i]);
	arg(b, option, b->fds->image_ro[i] >= 0 ? link : path);
	return 0;
}

static int
add_name(struct build *b)
{
	const char *s;
	char *name;

	for (s = b->opts->vm; *s != '\0'; s++) {
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return lc_fail(b->e, LC_EINVAL, 0, "control character in the VM's name");
	}
	name = qemutext_commas(b->opts->vm);
	argf(b, "-name", "guest=%s,debug-threads=on", name == NULL ? "" : name);
	if (name == NULL)
		b->a->failed = true;
	lc_free(name);
	return 0;
}

/* As QEMU takes it, ",aes=on,svm=off". */
static void
features_text(const char *s, char *out, size_t n)
{
	char name[DEFTEXT_FEATURE_MAX];
	size_t used = 0;
	bool on;

	*out = '\0';
	while ((s = deftext_feature(s, &on, name)) != NULL && used < n)
		used += (size_t)snprintf(out + used, n - used, ",%s=%s", name, on ? "on" : "off");
}

static int
add_board(struct build *b, const char *accel)
{
	const struct definition *d = b->def;
	bool host = strcmp(d->cpu, "host") == 0 && strcmp(accel, "kvm") != 0;
	char flash[96], features[4 * sizeof d->cpu_features];
	unsigned n[3];
	int rc;

	arg(b, "-nodefaults", NULL);
	arg(b, "-no-user-config", NULL);
	arg(b, "-display", "none");
	if (b->opts->sandbox)
		arg(b, "-sandbox",
		    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	rc = add_firmware(b, flash, sizeof flash);
	if (rc != 0)
		return rc;
	argf(b, "-machine", "%s,accel=%s%s", d->machine, accel, flash);
	features_text(d->cpu_features, features, sizeof features);
	argf(b, "-cpu", "%s%s", host ? "max" : d->cpu, features);
	if (deftext_topology(d->topology, n))
		argf(b, "-smp", "%u,sockets=%u,cores=%u,threads=%u", d->cpus, n[0], n[1], n[2]);
	else
		argf(b, "-smp", "%u", d->cpus);
	argf(b, "-m", "%" PRIu64 "M", d->memory >> 20);
	if (d->uuid[0] != '\0')
		arg(b, "-uuid", d->uuid);
	argf(b, "-rtc", "base=%s,clock=host", d->clock);
	if (b->opts->paused)
		arg(b, "-S", NULL);
	rc = add_file_of_role(b, HV_ROLE_KERNEL, "-kernel");
	if (rc == 0)
		rc = add_file_of_role(b, HV_ROLE_INITRD, "-initrd");
	if (rc == 0 && d->append[0] != '\0')
		arg(b, "-append", d->append);
	return rc;
}

static void
add_monitor(struct build *b, const char *id, int fd)
{
	argf(b, "-chardev", "socket,id=%s,fd=%d,server=on,wait=off", id, fd);
	argf(b, "-mon", "chardev=%s,mode=control", id);
}

/* What the recorded machine need not have had: console, agent's channel, screen. */
static void
add_own_devices(struct build *b)
{
	struct qemutext j = {0};

	b->fdsets++;
	argf(b, "-add-fd", "fd=%d,set=%u", b->fds->serial, b->fdsets);
	argf(b, "-chardev", "file,id=locum-console,path=/dev/fdset/%u", b->fdsets);
	arg(b, "-serial", "chardev:locum-console");
	add_controller(b, "virtio-serial-pci", "locum-serial", "");
	argf(b, "-chardev", "socket,id=locum-qga,fd=%d,server=on,wait=off", b->fds->qga);
	/* JSON as the others: QEMU makes devices of the other syntax first, whatever the order. */
	qemutext_put(&j, "driver", "virtserialport");
	qemutext_put(&j, "bus", "locum-serial.0");
	qemutext_put(&j, "chardev", "locum-qga");
	qemutext_put(&j, "name", "org.qemu.guest_agent.0");
	arg_json(b, "-device", &j);
	add_controller(b, "VGA", "locum-vga", "");
}

int
launch_args_make(const struct definition *def, const struct launch_opts *opts, const char *accel,
                 const struct launch_fds *fds, struct launch_args *out, struct lc_err *e)
{
	struct build b = {.def = def, .opts = opts, .fds = fds, .a = out, .e = e};
	int rc;

	*out = (struct launch_args){0};
	b.q35 = strstr(def->machine, "q35") != NULL;
	arg(&b, opts->qemu == NULL ? "qemu-system-x86_64" : opts->qemu, NULL);
	rc = add_name(&b);
	if (rc == 0)
		rc = add_board(&b, accel);
	add_monitor(&b, "locum-qmp", fds->qmp);
	add_monitor(&b, "locum-qmp2", fds->qmp2);
	if (rc == 0)
		rc = add_ports(&b);
	if (rc == 0)
		rc = add_disks(&b, true);
	if (rc == 0)
		rc = add_nics(&b, true);
	if (rc == 0)
		rc = add_disks(&b, false);
	if (rc == 0)
		rc = add_nics(&b, false);
	if (rc == 0)
		add_own_devices(&b);
	if (rc == 0 && out->failed)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", opts->vm);
	return rc;
}

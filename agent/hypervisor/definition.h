/**
 * definition: what a machine is, as a whitelist of typed fields.
 *
 * Never a command line to be replayed.  The same text form (INI) is used in
 * locum.conf ([vm NAME] sections), inside a restore point and for display:
 *
 *     [machine]
 *     type = pc-q35-7.2
 *     cpu = max
 *     cpu_features = +aes,-svm
 *     cpus = 2
 *     topology = 1:2:1
 *     memory = 256 MiB
 *     uuid = 6a1f...
 *     clock = utc
 *     append = console=ttyS0
 *     [disk vda]
 *     role = disk
 *     bus = virtio
 *     format = qcow2
 *     path = /images/web01.qcow2
 *     size = 1073741824
 *     address = 00:03.0
 *     boot = 1
 *     block = 4096
 *     content = empty
 *     [nic net0]
 *     model = virtio
 *     mac = 52:54:00:12:34:56
 *     network = default
 *     address = 00:02.0
 *     [left-out usb0]
 *     why = not reproduced
 *
 * Such a text may come from a hostile restore point.  Every value is checked on its way in, so that
 * a struct definition never holds one that could name an option or a program, or end an argument of
 * QEMU: names, models, addresses and serials are made of a few harmless characters, numbers are in
 * their range, and only paths, the kernel command line and reasons are free text, in valid UTF-8
 * without control characters. What the paths of a foreign definition may be used for is launch.h's
 * business.
 */
#ifndef LOCUM_DEFINITION_H
#define LOCUM_DEFINITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hypervisor/hypervisor.h"
#include "store/base/errors.h"
#include "store/base/memory.h"

#define DEF_TEXT_MAX 131072u /* a full definition needs less */
#define DEF_NICS_MAX 16
#define DEF_LEFT_OUT_MAX 32
#define DEF_CPUS_MAX 1024u
#define DEF_BOOT_MAX 255
#define DEF_BLOCK_MIN 512
#define DEF_BLOCK_MAX 32768

enum def_bus { DEF_BUS_VIRTIO = 0, DEF_BUS_SCSI, DEF_BUS_SATA, DEF_BUS_IDE };

/* EMPTY: excluded from restore points; a restore makes an empty one of its size. */
enum def_content { DEF_CONTENT_STORED = 0, DEF_CONTENT_EMPTY };

struct def_disk {
	char name[HV_NAME_MAX];
	enum hv_role role;
	enum def_bus bus;
	char format[16]; /* imageformat_known(); always explicit, never probed */
	char path[512];  /* absolute, or "" */
	uint64_t size;   /* bytes, 0 = not known */
	char serial[64];
	char address[16]; /* PCI "bb:dd.f" or "" */
	uint32_t boot;    /* boot order, 0 = none */
	uint32_t block;   /* logical block size that the guest sees, 0 = 512 */
	enum def_content content;
};

struct def_nic {
	char name[HV_NAME_MAX];
	char model[32];   /* "virtio", "e1000", "e1000e", "rtl8139" */
	char mac[18];     /* lower case, or "" */
	char network[64]; /* site's name for it; "user" = QEMU's own NAT, "bridge:NAME", "none" */
	char address[16];
};

struct def_left_out {
	char what[96];
	char why[160];
};

struct definition {
	char machine[64]; /* resolved, "pc-q35-7.2" */
	char cpu[64];
	char cpu_features[1024]; /* that the model has or lacks, against its own: "+aes,-svm" */
	uint32_t cpus;
	char topology[16];  /* "SOCKETS:CORES:THREADS", "" as QEMU makes it of their number */
	uint64_t memory;    /* bytes, whole MiB */
	char uuid[37];      /* lower case, "" none */
	char clock[16];     /* "utc" or "localtime" */
	char firmware[512]; /* read-only firmware image (UEFI code), "" = default BIOS */
	char append[2048];  /* kernel command line for direct boot */
	struct def_disk disks[HV_DISKS_MAX]; /* kernel and initrd are disks with those roles */
	size_t ndisks;
	struct def_nic nics[DEF_NICS_MAX];
	size_t nnics;
	struct def_left_out left_out[DEF_LEFT_OUT_MAX];
	size_t nleft_out;
};

/** definition_new(): empty with defaults (q35, max, 1 cpu, 512 MiB, utc), or NULL.  Free with
 * lc_free(). */
struct definition *definition_new(void);
/**
 * definition_encode(d, out, e):
 * Append the text form to *out.  Decoding it gives d again, byte by byte, if d was made by the
 * functions here.  A field that they would refuse gives LC_EINVAL.
 */
int definition_encode(const struct definition *d, struct lc_buf *out, struct lc_err *e);
/**
 * definition_decode(origin, text, n, out, e):
 * Parse and check every field against its whitelist (characters, length, range).  Hostile text
 * gives LC_EINVAL with "origin:line: ...", never a definition that could name an option or a
 * program.
 */
int definition_decode(const char *origin, const char *text, size_t n, struct definition **out,
                      struct lc_err *e);
/**
 * definition_set(d, section, name, key, value, e):
 * Set one field, section "machine", "disk", "nic" or "left-out", with the same checks; an unknown
 * key is LC_EINVAL and names the nearest.  So that locum.conf can use the same keys.  A disk, NIC
 * or left-out that is not there yet is made; an empty key only does that.  d is unchanged where the
 * value is refused.
 */
int definition_set(struct definition *d, const char *section, const char *name, const char *key,
                   const char *value, struct lc_err *e);
/**
 * definition_leave_out(d, what, why):
 * Note something that is not reproduced.  Both may be any text: letters that do not fit become '_'
 * and what is too long is cut.  Where the list is full its last entry says so.
 */
void definition_leave_out(struct definition *d, const char *what, const char *why);
/** definition_disk(d, name): the disk called name, or NULL. */
const struct def_disk *definition_disk(const struct definition *d, const char *name);
/** definition_role(d, role): the first disk of that role, or NULL. */
const struct def_disk *definition_role(const struct definition *d, enum hv_role role);
/**
 * definition_check(d, e):
 * What must be there to launch it: a machine type that is known here (LC_ENOTSUP otherwise),
 * something to boot from, parts that fit together.
 */
int definition_check(const struct definition *d, struct lc_err *e);

#endif

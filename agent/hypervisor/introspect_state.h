/**
 * introspect_state: what the introspect*.c files share.  Private to them.
 *
 * introspect.c       the questions; the board, its clock, its firmware and what it boots directly
 * introspect_cpu.c   features that its CPUs have against their model
 * introspect_disk.c  the disks, and drives whose medium can be taken out
 * introspect_part.c  what is plugged in: addresses on PCI, network cards, everything else
 */
#ifndef LOCUM_INTROSPECT_STATE_H
#define LOCUM_INTROSPECT_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/introspect.h"

struct json_t;

#define INTROSPECT_PARTS_MAX 256
#define INTROSPECT_PATH_BYTES 256
#define INTROSPECT_VALUE_BYTES 64

/* What is asked of each part and of each disk, in this order. */
enum part_prop { PART_ADDR = 0, PART_BUS, PART_MAC, PART_NETDEV, PART_N };
enum disk_prop {
	DISK_TYPE = 0,
	DISK_ADDR,
	DISK_BUS,
	DISK_SERIAL,
	DISK_BOOT,
	DISK_UNIT, /* IDE */
	DISK_ID,   /* SCSI */
	DISK_LUN,
	DISK_BLOCK, /* logical block size */
	DISK_WWN,
	DISK_N
};

struct part { /* a device that was plugged in, on the command line or later */
	char path[INTROSPECT_PATH_BYTES];
	char id[INTROSPECT_VALUE_BYTES]; /* "" where it has none */
	char type[INTROSPECT_VALUE_BYTES];
	char address[16];
};

struct introspect {
	struct introspect_disk disks[HV_DISKS_MAX];
	size_t ndisks;
	struct part parts[INTROSPECT_PARTS_MAX];
	size_t nparts;
	bool too_many;
	uint64_t cpus;
	char cpu_path[INTROSPECT_PATH_BYTES];
	char cpu_model[INTROSPECT_VALUE_BYTES]; /* "" where QEMU does not tell it */
	char cpu_features[sizeof(((struct definition *)0)->cpu_features)];
	bool cpu_unknown; /* its features are not known */
	/* Indices of the second batch. */
	size_t at_machine, at_uuid, at_memory, at_pci, at_block, at_nodes, at_network;
	size_t at_parts, at_disks;
	const struct qmp_batch *b;
	struct definition *def;
};

/* introspect.c */
/** introspect_starts(s, prefix): s may be NULL. */
bool introspect_starts(const char *s, const char *prefix);
bool introspect_ends(const char *s, const char *tail);
/** introspect_leave_out(x, what, id, why): note "what id" as left out; id may be "". */
void introspect_leave_out(struct introspect *x, const char *what, const char *id, const char *why);
/** introspect_set(x, section, name, key, value): set a field, or say that it is left out. */
bool introspect_set(struct introspect *x, const char *section, const char *name, const char *key,
                    const char *value);

/* introspect_cpu.c */
/** introspect_cpu_model(type, out): by the type of a CPU's object, up to its '>'; "" where that is
 * none. */
void introspect_cpu_model(const char *type, char out[INTROSPECT_VALUE_BYTES]);
void introspect_tell_features(struct introspect *x);

/* introspect_disk.c */
void introspect_tell_disks(struct introspect *x);
void introspect_tell_removable(struct introspect *x);

/* introspect_part.c */
/** introspect_nic_model(type, n): as a definition calls the type of n bytes, or NULL. */
const char *introspect_nic_model(const char *type, size_t n);
/** introspect_is_nic(type, n): whether it is a network card, of a model that a definition knows or
 * not. */
bool introspect_is_nic(const char *type, size_t n);
/** introspect_address(x, id, bus, addr, out): "bb:dd.f" of a device as the guest sees it, or "". */
void introspect_address(const struct introspect *x, const char *id, const char *bus,
                        const struct json_t *addr, char out[16]);
/** introspect_addresses(x): those of all parts. */
void introspect_addresses(struct introspect *x);
/** introspect_owner(x, bus): the part that a bus belongs to, or NULL. */
const struct part *introspect_owner(const struct introspect *x, const char *bus);
void introspect_tell_parts(struct introspect *x);

#endif

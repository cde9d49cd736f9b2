/**
 * format: formats of image files: our own two, and those of other hypervisors, which convert makes.
 *
 * Thread: any.
 */
#ifndef LOCUM_FORMAT_H
#define LOCUM_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

enum format { FORMAT_RAW = 0, FORMAT_QCOW2, FORMAT_VHDX, FORMAT_VMDK, FORMAT_VPC };
#define FORMATS 5u

struct format_facts {
	const char *name;   /* as qemu-img calls it */
	const char *suffix; /* of files, with the dot */
	/* Of those of other hypervisors; NULL, 0: it is ours. */
	const char *options; /* for qemu-img */
	uint64_t max;        /* bytes of a disk */
	uint64_t per_mib;    /* bytes of tables for each MiB of a disk */
};
extern const struct format_facts formats[FORMATS];

/** format_named(word, out): by its name; false: there is none of that. */
bool format_named(const char *word, enum format *out);
/** format_foreign(f): another hypervisor's. */
bool format_foreign(enum format f);

#endif

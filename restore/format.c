#include <string.h>

#include "restore/format.h"

#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

/* Tables: 8 bytes for each block of a MiB, 4 for each of 64 KiB twice, 4 and a sector of bits for
 * each of 2 MiB. */
const struct format_facts formats[FORMATS] = {
    [FORMAT_RAW] = {.name = "raw", .suffix = ".raw"},
    [FORMAT_QCOW2] = {.name = "qcow2", .suffix = ".qcow2"},
    [FORMAT_VHDX] = {"vhdx", ".vhdx", "subformat=dynamic,block_size=1M", 64 * TIB, 9},
    [FORMAT_VMDK] = {"vmdk", ".vmdk", "subformat=monolithicSparse", 62 * TIB, 160},
    /* Else its size is rounded to whole cylinders. */
    [FORMAT_VPC] = {"vpc", ".vhd", "subformat=dynamic,force_size=on", 2040 * GIB, 260},
};

bool
format_named(const char *word, enum format *out)
{
	unsigned i;

	for (i = 0; i < FORMATS; i++) {
		if (strcmp(formats[i].name, word) == 0) {
			*out = (enum format)i;
			return true;
		}
	}
	return false;
}

bool
format_foreign(enum format f)
{
	return formats[f].options != NULL;
}

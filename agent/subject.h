/**
 * subject: the VM as a restore point shows it, beside the bytes of its disks: its definition, what
 * was left out and why, and the list of its disks; and whether that is what an earlier point says.
 */
#ifndef LOCUM_SUBJECT_H
#define LOCUM_SUBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hypervisor/hypervisor.h"
#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/point.h"

struct definition;
struct settings;

struct subject_disk {
	const struct hv_source *source; /* borrowed from the snapshot; NULL: a plain file */
	char file[512];
	uint32_t uid, gid; /* who may read it, 0: anybody's */
	char name[POINT_NAME_MAX];
	uint64_t size;
	uint8_t role;
	char stamp[POINT_STAMP_MAX]; /* "": not known */
};

struct subject {
	const struct settings *settings; /* borrowed */
	const char *vm;                  /* borrowed: its name */
	bool offline;                    /* its images are read, there is no monitor */
	struct lc_buf definition;        /* a text with its NUL; n = 0: none is known */
	struct lc_buf left_out;          /* likewise: a line each */
	struct subject_disk *disks;      /* [ndisks] */
	size_t ndisks;
};

/** subject_origin(s): what to call the file of the settings. */
const char *subject_origin(const struct subject *s);
/**
 * subject_describe(s, hv, def, e):
 * Leave out of hv's next take what the settings exclude, and write down the definition and what is
 * not captured.  def is what the VM is by its settings or its newest point, or NULL; what hv found
 * out goes before it.  Call it once for each hv.
 */
int subject_describe(struct subject *s, struct hv *hv, const struct definition *def,
                     struct lc_err *e);
/** subject_list(s, snapshot, hv, def, e): s->disks: those of the snapshot, and the files of a
 * direct boot. */
int subject_list(struct subject *s, const struct hv_snapshot *snapshot, struct hv *hv,
                 const struct definition *def, struct lc_err *e);
/** subject_is(s, base, hv, def): it is what that point says, with the same disks; its images or,
 * where it runs, their sizes look the same. */
bool subject_is(const struct subject *s, const struct point *base, struct hv *hv,
                const struct definition *def);
/** subject_done(s): free what it owns. */
void subject_done(struct subject *s);

/** subject_base(base, d): that disk in an earlier point, or NULL; base may be NULL. */
const struct point_disk *subject_base(const struct point *base, const struct subject_disk *d);
/** subject_same_file(base, d): the file is still the one that the point has. */
bool subject_same_file(const struct point *base, const struct subject_disk *d);

#endif

/**
 * point: a restore point as data: what the log says of it, and the header that only the key opens.
 */
#ifndef LOCUM_POINT_H
#define LOCUM_POINT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/seal.h"

#define POINT_ID_SIZE 16u
#define POINT_NAME_MAX 64u /* VM and disk names, with NUL */
#define POINT_DISKS_MAX 64u
#define POINT_STAMP_MAX 128u
#define POINT_FREEZE_MAX 160u
#define POINT_DEFINITION_MAX 65536u
#define POINT_DISK_SIZE_MAX (UINT64_C(1) << 62)

enum point_consistency { POINT_CRASH = 0, POINT_FROZEN = 1, POINT_OFF = 2 };

enum point_flags {
	POINT_SEED = 1u, /* a pass that did not complete: kept for the next one, never listed */
	POINT_MAP_DAMAGED =
	    2u,           /* rows are missing: its disks can't be trusted (set by the catalog) */
	POINT_FRESH = 4u, /* shares no disk with its base: damage of that is not its own */
	POINT_FORK = 8u,  /* the first one of its line: its base is a point of another one */
};

/** point_name_ok(name): whether it can be the name of a VM or disk: no '/', no control character,
 * and not empty; so that it is neither a path nor an order to a terminal. */
bool point_name_ok(const char *name);

struct point_disk {
	uint8_t id[16];              /* of the disk on its line; a re-added disk is a new one */
	char name[POINT_NAME_MAX];   /* "" without the key */
	uint64_t size;               /* bytes */
	uint64_t covered;            /* windows read so far (seed); else number of windows */
	uint8_t role;                /* enum hv_role of the hypervisor core */
	char stamp[POINT_STAMP_MAX]; /* what the image file looked like, "" if the VM ran */
};

struct point {
	uint8_t id[POINT_ID_SIZE];
	uint8_t vm_id[16];
	uint8_t line[16];
	uint8_t base[POINT_ID_SIZE]; /* zeros: none */
	uint32_t flags;              /* enum point_flags */
	uint64_t epoch;
	int64_t source_ns;       /* wall clock of the source at the instant */
	int64_t commit_ns;       /* wall clock of the store at commit */
	uint64_t changed;        /* rows of this point: changed windows */
	uint64_t stored;         /* bytes of records that it added */
	struct set_sum rows_sum; /* keyless sum over its own rows */
	size_t ndisks;
	struct point_disk disks[POINT_DISKS_MAX];
	/* From the sealed header; empty and zero without the key. */
	bool opened; /* the header was opened */
	char vm[POINT_NAME_MAX];
	uint8_t consistency; /* enum point_consistency */
	uint64_t counter;    /* the writer's own count of points */
	int64_t pause_ns;    /* how long the guest was stopped for it */
	struct set_sum set;  /* keyed sum over the whole map */
	char *definition;    /* text form, owned; NULL if none */
	char *left_out;      /* lines of "what: why", owned; NULL if none */
	/* What came of asking the guest to freeze its filesystems; "" where it was not asked. */
	char freeze[POINT_FREEZE_MAX];
};

/** point_done(p): free what it owns. */
void point_done(struct point *p);
/** point_windows(size): number of windows of a disk of that size. */
uint64_t point_windows(uint64_t size);

/** point_seal_header(k, p, out, e): encode and seal the header fields of p; appends to *out. */
int point_seal_header(const struct keyring *k, const struct point *p, struct lc_buf *out,
                      struct lc_err *e);
/** point_open_header(k, sealed, p, e): open it into p, whose id, line and disks are known. */
int point_open_header(const struct keyring *k, struct lc_span sealed, struct point *p,
                      struct lc_err *e);
/** point_encode(p, sealed, out, e): the POINT entry of a COMMIT record (FORMAT.md). */
int point_encode(const struct point *p, struct lc_span sealed, struct lc_buf *out,
                 struct lc_err *e);
/** point_decode(entry, p, sealed, e): parse one; *sealed borrows from entry. */
int point_decode(struct lc_span entry, struct point *p, struct lc_span *sealed, struct lc_err *e);

#endif

/**
 * qcow2: the tables of a qcow2 image whose allocation is known beforehand.
 *
 * A restore knows from the map which windows hold data before it decodes the
 * first one, and a cluster is as large as a window.  So every table can be
 * computed, every data cluster has its place from the start, and threads write
 * them in any order:
 *
 *     header | L1 | refcount table | refcount blocks | L2 tables | data clusters
 *
 * Data lies in the disk's order; L2 tables exist only where there is data.
 * Version 3, 64 KiB clusters, 16-bit refcounts, no features.
 *
 * Source: QEMU docs/interop/qcow2.txt.
 */
#ifndef LOCUM_QCOW2_H
#define LOCUM_QCOW2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

#define QCOW2_CLUSTER 65536u
#define QCOW2_AREA 8192u /* clusters that one L2 table maps */

struct qcow2 {
	uint64_t size;    /* of the disk, bytes */
	uint64_t nareas;  /* entries of L1 */
	uint64_t ntables; /* L2 tables */
	uint64_t ndata;   /* data clusters */
	uint64_t reftable_clusters, nrefblocks;
	uint64_t l1_at, reftable_at, refblocks_at, l2_at, data_at, end; /* bytes */
};

/** qcow2_areas(size): number of areas of a disk of that size. */
uint64_t qcow2_areas(uint64_t size);
/**
 * qcow2_plan(size, ntables, ndata, out):
 * The places of everything, for ndata data clusters in ntables areas.
 */
void qcow2_plan(uint64_t size, uint64_t ntables, uint64_t ndata, struct qcow2 *out);
/**
 * qcow2_write_head(q, used, backing, fd, name, e):
 * Write all but the L2 tables and the data.  used[nareas] says which areas have a table (NULL:
 * none).  backing (may be NULL) is an image name, at most 1023 bytes, of format raw.
 */
int qcow2_write_head(const struct qcow2 *q, const bool *used, const char *backing, int fd,
                     const char *name, struct lc_err *e);
/** qcow2_set(table, i, at): entry i of an L2 table (QCOW2_CLUSTER bytes): byte `at` of the file. */
void qcow2_set(uint8_t *table, uint32_t i, uint64_t at);

/**
 * qcow2_make_overlay(path, size, backing, e):
 * A new, empty overlay (mode 0600) of that size on the raw image `backing`.  LC_EEXIST where path
 * is there.
 */
int qcow2_make_overlay(const char *path, uint64_t size, const char *backing, struct lc_err *e);

#endif

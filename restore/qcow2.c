#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/memory.h"
#include "restore/qcow2.h"

#define COPIED (UINT64_C(1) << 63)  /* the cluster's refcount is exactly one */
#define ENTRIES (QCOW2_CLUSTER / 8) /* of a table of 8-byte entries */
#define REFS (QCOW2_CLUSTER / 2)    /* of a refcount block */
#define EXT_BACKING_FORMAT 0xe2792acau

enum {
	HEADER_LENGTH = 104,
	BACKING_AT = 4096,
};

/* qcow2 is big-endian. */
static void
put32(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, sizeof v);
}

static void
put64(uint8_t *p, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(p, &v, sizeof v);
}

static uint64_t
divide_up(uint64_t n, uint64_t by)
{
	return n / by + (n % by != 0);
}

uint64_t
qcow2_areas(uint64_t size)
{
	return divide_up(size, (uint64_t)QCOW2_AREA * QCOW2_CLUSTER);
}

void
qcow2_plan(uint64_t size, uint64_t ntables, uint64_t ndata, struct qcow2 *out)
{
	uint64_t l1 = divide_up(qcow2_areas(size), ENTRIES);
	uint64_t blocks = 0, table = 0, need;

	if (l1 == 0)
		l1 = 1;
	/* Refcounts count their own clusters too: grow until they suffice. */
	do {
		need = 1 + l1 + table + blocks + ntables + ndata;
		blocks = divide_up(need, REFS);
		table = divide_up(blocks, ENTRIES);
	} while (1 + l1 + table + blocks + ntables + ndata != need);

	*out = (struct qcow2){
	    .size = size,
	    .nareas = qcow2_areas(size),
	    .ntables = ntables,
	    .ndata = ndata,
	    .reftable_clusters = table,
	    .nrefblocks = blocks,
	    .l1_at = QCOW2_CLUSTER,
	};
	out->reftable_at = out->l1_at + l1 * QCOW2_CLUSTER;
	out->refblocks_at = out->reftable_at + table * QCOW2_CLUSTER;
	out->l2_at = out->refblocks_at + blocks * QCOW2_CLUSTER;
	out->data_at = out->l2_at + ntables * QCOW2_CLUSTER;
	out->end = out->data_at + ndata * QCOW2_CLUSTER;
}

void
qcow2_set(uint8_t *table, uint32_t i, uint64_t at)
{
	put64(table + (size_t)i * 8, at | COPIED);
}

static void
make_header(const struct qcow2 *q, const char *backing, uint8_t *p)
{
	static const uint8_t magic[4] = {'Q', 'F', 'I', 0xfb}, raw[3] = {'r', 'a', 'w'};
	size_t n = backing == NULL ? 0 : strlen(backing);

	memset(p, 0, QCOW2_CLUSTER);
	memcpy(p, magic, sizeof magic);
	put32(p + 4, 3); /* version */
	if (n > 0) {
		put64(p + 8, BACKING_AT);
		put32(p + 16, (uint32_t)n);
		(void)snprintf((char *)p + BACKING_AT, n + 1, "%s", backing);
		put32(p + HEADER_LENGTH, EXT_BACKING_FORMAT);
		put32(p + HEADER_LENGTH + 4, sizeof raw);
		memcpy(p + HEADER_LENGTH + 8, raw, sizeof raw);
		/* Extensions are padded to 8 bytes; zeros end their list. */
	}
	put32(p + 20, 16); /* cluster bits */
	put64(p + 24, q->size);
	put32(p + 36, (uint32_t)q->nareas);
	put64(p + 40, q->l1_at);
	put64(p + 48, q->reftable_at);
	put32(p + 56, (uint32_t)q->reftable_clusters);
	put32(p + 96, 4); /* refcount order: 16 bits */
	put32(p + 100, HEADER_LENGTH);
}

/* n entries of 8 bytes in whole clusters from byte `at` on: cluster after cluster from `first` on,
 * over those that are used. */
static int
write_table(uint64_t at, uint64_t n, uint64_t first, const bool *used, uint64_t flag,
            uint8_t *cluster, int fd, const char *name, struct lc_err *e)
{
	uint64_t i, next = first;
	int rc = 0;

	for (i = 0; rc == 0 && i < n; i += ENTRIES) {
		uint64_t j;

		memset(cluster, 0, QCOW2_CLUSTER);
		for (j = i; j < n && j < i + ENTRIES; j++) {
			if (used != NULL && !used[j])
				continue;
			put64(cluster + (j - i) * 8, next | flag);
			next += QCOW2_CLUSTER;
		}
		rc = file_pwrite_full(fd, cluster, QCOW2_CLUSTER, at + i * 8, name, e);
	}
	return rc;
}

static int
write_refblocks(const struct qcow2 *q, uint8_t *cluster, int fd, const char *name, struct lc_err *e)
{
	uint64_t left = q->end / QCOW2_CLUSTER, i;
	int rc = 0;

	for (i = 0; rc == 0 && i < q->nrefblocks; i++) {
		uint64_t j, n = left < REFS ? left : REFS;

		memset(cluster, 0, QCOW2_CLUSTER);
		for (j = 0; j < n; j++)
			cluster[2 * j + 1] = 1;
		left -= n;
		rc = file_pwrite_full(fd, cluster, QCOW2_CLUSTER,
		                      q->refblocks_at + i * QCOW2_CLUSTER, name, e);
	}
	return rc;
}

int
qcow2_write_head(const struct qcow2 *q, const bool *used, const char *backing, int fd,
                 const char *name, struct lc_err *e)
{
	uint8_t *cluster = lc_alloc(QCOW2_CLUSTER);
	int rc;

	if (cluster == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", name);
	if (backing != NULL && strlen(backing) > 1023) {
		lc_free(cluster);
		return lc_fail(e, LC_EINVAL, 0, "%s: the name of the image under it is too long",
		               name);
	}
	/* An overlay ends with its tables, and they must read as zeros. */
	if (ftruncate(fd, (off_t)q->end) != 0)
		rc = lc_fail_errno(e, "%s: set its size", name);
	else
		rc = write_refblocks(q, cluster, fd, name, e);
	if (rc == 0)
		rc = write_table(q->reftable_at, q->nrefblocks, q->refblocks_at, NULL, 0, cluster,
		                 fd, name, e);
	if (rc == 0 && used != NULL)
		rc = write_table(q->l1_at, q->nareas, q->l2_at, used, COPIED, cluster, fd, name, e);
	/* The header last: until then it is no image. */
	make_header(q, backing, cluster);
	if (rc == 0)
		rc = file_pwrite_full(fd, cluster, QCOW2_CLUSTER, 0, name, e);
	lc_free(cluster);
	return rc;
}

int
qcow2_make_overlay(const char *path, uint64_t size, const char *backing, struct lc_err *e)
{
	struct qcow2 q;
	int rc, fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return lc_fail_errno(e, "%s: create", path);
	qcow2_plan(size, 0, 0, &q);
	rc = qcow2_write_head(&q, NULL, backing, fd, path, e);
	if (rc == 0 && close(fd) != 0)
		rc = lc_fail_errno(e, "%s: close", path);
	else if (rc != 0)
		(void)close(fd);
	if (rc != 0)
		(void)unlink(path);
	return rc;
}

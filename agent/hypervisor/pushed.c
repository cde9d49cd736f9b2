/*
 * The file, in clusters:
 *
 *   0 header   1 table of reference counts   2 its first block   3.. table of tables (L1)
 *   then, in the order in which they are filled: tables (L2), more blocks, data
 *
 * An L1 entry tells where an L2 table lies, an entry of that where a cluster of the disk lies; 0:
 * nowhere.  Bit 0 of the latter: it reads as zeros, wherever it lies.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/memory.h"

#include "agent/hypervisor/pushed.h"

#define BITS 16u
#define ENTRIES (PUSHED_CLUSTER / 8u) /* of a table */
#define REFS (PUSHED_CLUSTER / 2u)    /* clusters that a block of counts counts */
#define L1_AT (UINT64_C(3) * PUSHED_CLUSTER)
#define HEADER 104u
#define WHERE UINT64_C(0x00fffffffffffe00)
#define ZERO_FLAG UINT64_C(1)
#define COMPRESSED_FLAG (UINT64_C(1) << 62)
#define SLACK (UINT64_C(1) << 20)
#define READ_ENTRIES 512u /* of a table at once: a page of them */

static uint64_t
divide_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b > 0 ? 1 : 0);
}

static uint64_t
clusters_of(uint64_t size)
{
	return divide_up(size, PUSHED_CLUSTER);
}

static uint64_t
tables_of(uint64_t size)
{
	return divide_up(clusters_of(size), ENTRIES);
}

static uint64_t
l1_clusters(uint64_t size)
{
	uint64_t n = divide_up(tables_of(size), ENTRIES);

	return n == 0 ? 1 : n;
}

uint64_t
pushed_need(uint64_t size, uint64_t bytes)
{
	uint64_t all = clusters_of(size), data = divide_up(bytes, PUSHED_CLUSTER), n;

	data = data < all ? data : all;
	n = 3 + l1_clusters(size) + data + (data < tables_of(size) ? data : tables_of(size));
	n += divide_up(n, REFS) + 1;
	return n * PUSHED_CLUSTER + SLACK;
}

static void
put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static void
put_be64(uint8_t *p, uint64_t v)
{
	put_be32(p, (uint32_t)(v >> 32));
	put_be32(p + 4, (uint32_t)v);
}

static uint64_t
get_be64(const uint8_t *p)
{
	uint64_t v = 0;
	int i;

	for (i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static int
write_at(int fd, const uint8_t *p, size_t n, uint64_t off)
{
	ssize_t k = pwrite(fd, p, n, (off_t)off);

	if (k >= 0 && (size_t)k != n)
		errno = EIO;
	return k >= 0 && (size_t)k == n ? 0 : -1;
}

int
pushed_make(int fd, uint64_t size)
{
	uint8_t header[HEADER + 8] = {'Q', 'F', 'I', 0xfb}; /* and the end of its extensions */
	uint64_t used = 3 + l1_clusters(size), i;
	uint8_t table[8] = {0}, one[2] = {0, 1};

	if (size > UINT64_C(1) << 50 || tables_of(size) > UINT32_MAX) {
		errno = EFBIG;
		return -1;
	}
	put_be32(header + 4, 3); /* version */
	put_be32(header + 20, BITS);
	put_be64(header + 24, size);
	put_be32(header + 36, (uint32_t)tables_of(size));
	put_be64(header + 40, L1_AT);
	put_be64(header + 48, PUSHED_CLUSTER); /* reference counts */
	put_be32(header + 56, 1);
	put_be32(header + 96, 4); /* counts of 16 bits */
	put_be32(header + 100, HEADER);
	put_be64(table, UINT64_C(2) * PUSHED_CLUSTER);
	if (ftruncate(fd, (off_t)(used * PUSHED_CLUSTER)) != 0 ||
	    write_at(fd, table, sizeof table, PUSHED_CLUSTER) != 0)
		return -1;
	for (i = 0; i < used; i++) {
		if (write_at(fd, one, sizeof one, UINT64_C(2) * PUSHED_CLUSTER + 2 * i) != 0)
			return -1;
	}
	return write_at(fd, header, sizeof header, 0);
}

/* ---- reading ---- */

/* n bytes; zeros behind the end of the file. */
static int
read_at(int fd, uint8_t *p, size_t n, uint64_t off, struct lc_err *e)
{
	while (n > 0) {
		ssize_t k = pread(fd, p, n, (off_t)off);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return lc_fail_errno(e, "what was pushed: read");
		if (k == 0) {
			memset(p, 0, n);
			break;
		}
		p += k;
		n -= (size_t)k;
		off += (uint64_t)k;
	}
	return 0;
}

struct file {
	int fd;
	uint64_t end;
};

static int
file_of(int fd, struct file *f, struct lc_err *e)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return lc_fail_errno(e, "what was pushed");
	*f = (struct file){.fd = fd, .end = (uint64_t)st.st_size};
	return 0;
}

/* Where a cluster lies by an entry of a table, 0: nowhere. */
static int
place(const struct file *f, uint64_t entry, uint64_t *out, struct lc_err *e)
{
	*out = entry & WHERE;
	if ((entry & COMPRESSED_FLAG) == 0 &&
	    (*out == 0 || (*out % PUSHED_CLUSTER == 0 && *out > L1_AT && *out < f->end)))
		return 0;
	return lc_fail(e, LC_ECORRUPT, 0,
	               "what was pushed: a table of the file tells a place that is none: %" PRIx64,
	               entry);
}

/* Where the table lies that has the entry of a cluster, 0: nowhere. */
static int
find_table(const struct file *f, uint64_t cluster, uint64_t *out, struct lc_err *e)
{
	uint8_t entry[8];
	int rc = read_at(f->fd, entry, sizeof entry, L1_AT + cluster / ENTRIES * 8, e);

	return rc != 0 ? rc : place(f, get_be64(entry), out, e);
}

static int
judge(const struct file *f, uint64_t entry, enum pushed_kind *kind, uint64_t *where,
      struct lc_err *e)
{
	int rc = place(f, entry & ~ZERO_FLAG, where, e);

	*kind = (entry & ZERO_FLAG) != 0 ? PUSHED_ZERO : *where != 0 ? PUSHED_DATA : PUSHED_NOT;
	return rc;
}

/* How many of the n entries in buf are of the kind of the first. */
static int
count_same(const struct file *f, const uint8_t *buf, uint64_t n, uint64_t *same,
           enum pushed_kind *kind_out, struct lc_err *e)
{
	enum pushed_kind kind;
	uint64_t where, i;

	for (i = 0; i < n; i++) {
		if (judge(f, get_be64(buf + i * 8), &kind, &where, e) != 0)
			return LC_ECORRUPT;
		if (i == 0)
			*kind_out = kind;
		else if (kind != *kind_out)
			break;
	}
	*same = i;
	return 0;
}

static int
look(const struct file *f, uint64_t size, uint64_t off, uint64_t *n_out, enum pushed_kind *kind_out,
     struct lc_err *e)
{
	uint64_t cluster = off / PUSHED_CLUSTER, left = clusters_of(size) - cluster, at;
	uint64_t n = ENTRIES - cluster % ENTRIES;
	uint8_t buf[READ_ENTRIES * 8];
	int rc = find_table(f, cluster, &at, e);

	*kind_out = PUSHED_NOT;
	n = n < left ? n : left;
	if (rc == 0 && at != 0) {
		n = n < READ_ENTRIES ? n : READ_ENTRIES;
		rc = read_at(f->fd, buf, (size_t)n * 8, at + cluster % ENTRIES * 8, e);
		rc = rc != 0 ? rc : count_same(f, buf, n, &n, kind_out, e);
	}
	*n_out = n * PUSHED_CLUSTER < size - off ? n * PUSHED_CLUSTER : size - off;
	return rc;
}

int
pushed_look(int fd, uint64_t size, uint64_t off, uint64_t *n_out, enum pushed_kind *kind_out,
            struct lc_err *e)
{
	struct file f = {.fd = -1};
	int rc = file_of(fd, &f, e);

	return rc != 0 ? rc : look(&f, size, off, n_out, kind_out, e);
}

/* n bytes within one cluster. */
static int
read_in(const struct file *f, uint8_t *p, size_t n, uint64_t off, struct lc_err *e)
{
	enum pushed_kind kind = PUSHED_NOT;
	uint64_t cluster = off / PUSHED_CLUSTER, at, where = 0;
	uint8_t entry[8] = {0};
	int rc = find_table(f, cluster, &at, e);

	if (rc == 0 && at != 0)
		rc = read_at(f->fd, entry, sizeof entry, at + cluster % ENTRIES * 8, e);
	rc = rc != 0 ? rc : judge(f, get_be64(entry), &kind, &where, e);
	if (rc == 0 && kind == PUSHED_DATA)
		return read_at(f->fd, p, n, where + off % PUSHED_CLUSTER, e);
	memset(p, 0, n);
	return rc;
}

int
pushed_read(int fd, void *p, size_t n, uint64_t off, struct lc_err *e)
{
	struct file f = {.fd = -1};
	uint8_t *dst = p;
	int rc = file_of(fd, &f, e);

	while (rc == 0 && n > 0) {
		uint64_t left = PUSHED_CLUSTER - off % PUSHED_CLUSTER;
		size_t k = n < left ? n : (size_t)left;

		rc = read_in(&f, dst, k, off, e);
		dst += k;
		off += k;
		n -= k;
	}
	return rc;
}

int
pushed_count(int fd, uint64_t size, uint64_t *out, struct lc_err *e)
{
	enum pushed_kind kind;
	uint64_t off = 0, n;
	struct file f = {.fd = -1};
	int rc = file_of(fd, &f, e);

	*out = 0;
	while (rc == 0 && off < size) {
		rc = look(&f, size, off, &n, &kind, e);
		if (rc == 0 && kind != PUSHED_NOT)
			*out += clusters_of(n);
		off += n;
	}
	return rc;
}

/*
 * Reading a whole segment: record by record, or by the index of a sealed one.
 *
 * After bad bytes the scan tries every eighth byte: a header is good only with its checksum, which
 * is seeded with the number of the segment, so bytes of another segment never pass for records.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/segment_internal.h"

#define SCAN_BUFFER ((size_t)2 * (RECORD_PAYLOAD_MAX + 64u))
#define SECTOR 4096u

/* A file read through a window that only moves forward, except for the resync after damage. */
struct scanner {
	int fd;
	const char *name;
	uint64_t size;
	uint8_t *buf;
	uint64_t buf_off;
	size_t buf_n;
};

/* What the disk cannot read becomes zeros, and so damage: the rest of the segment is worth
 * having. */
static int
read_around(struct scanner *c, uint64_t off, size_t n, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	size_t at, part;
	int rc = file_pread_full(c->fd, c->buf, n, off, c->name, &err);

	for (at = 0; rc == LC_EIO && at < n; at += part) {
		part = SECTOR - (size_t)((off + at) % SECTOR);
		part = part < n - at ? part : n - at;
		rc = file_pread_full(c->fd, c->buf + at, part, off + at, c->name, NULL);
		if (rc == LC_EIO)
			memset(c->buf + at, 0, part);
		else if (rc == 0)
			rc = LC_EIO; /* go on */
	}
	if (rc == LC_EIO)
		rc = 0;
	return rc == 0 ? 0 : lc_fail(e, (enum lc_code)rc, 0, "%s", err.msg);
}

/* n bytes at off, borrowed until the next call; NULL beyond the end (or on a failure: then *rc is
 * set). */
static const uint8_t *
scan_at(struct scanner *c, uint64_t off, size_t n, int *rc, struct lc_err *e)
{
	size_t want;

	*rc = 0;
	if (n > c->size || off > c->size - n)
		return NULL;
	if (off < c->buf_off || off + n > c->buf_off + c->buf_n) {
		want = c->size - off < SCAN_BUFFER ? (size_t)(c->size - off) : SCAN_BUFFER;
		c->buf_n = 0;
		*rc = read_around(c, off, want, e);
		if (*rc != 0)
			return NULL;
		c->buf_off = off;
		c->buf_n = want;
	}
	return c->buf + (off - c->buf_off);
}

/* ---- the header ---- */

static int
check_header(struct segments *s, const struct segment_info *seg, const uint8_t *raw,
             const struct segment_scan *scan, const char *name, struct lc_err *e)
{
	struct segment_header h;

	if (raw == NULL || !segment_header_decode(raw, &h)) {
		if (scan != NULL && scan->on_bad != NULL && seg->bytes > 0)
			scan->on_bad(scan->arg, 0,
			             seg->bytes < SEGMENT_HEADER_SIZE ? seg->bytes
			                                              : SEGMENT_HEADER_SIZE,
			             NULL);
		return 0; /* its records speak for themselves */
	}
	if (segment_header_newer(&h))
		return lc_fail(e, LC_EVERSION, 0,
		               "%s/%s has format version %u, which this version does not know: use "
		               "a newer locum",
		               s->dir, name, h.version);
	if (memcmp(h.store_id, s->store_id, 16) != 0)
		return lc_fail(e, LC_ECONFLICT, 0, "%s/%s is of another store", s->dir, name);
	if (h.no != seg->no)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "%s/%s is segment %016" PRIx64 " under another name", s->dir, name,
		               h.no);
	return 0;
}

/* ---- scanning ---- */

struct walk {
	const struct segment_scan *scan;
	struct segment_extent *extent;
	uint64_t bad_from; /* start of the bad bytes before the present position, or UINT64_MAX */
};

static void
bad_ends(struct walk *w, uint64_t at)
{
	if (w->bad_from != UINT64_MAX && w->scan->on_bad != NULL)
		w->scan->on_bad(w->scan->arg, w->bad_from, at - w->bad_from, NULL);
	w->bad_from = UINT64_MAX;
}

static int
good_record(struct walk *w, struct record *r, struct lc_span payload, struct lc_err *e)
{
	uint64_t end = r->off + record_size(r->n);

	bad_ends(w, r->off);
	if (r->type == RECORD_CHUNK && payload.n >= sizeof r->id)
		memcpy(r->id, payload.p, sizeof r->id);
	w->extent->good = end;
	if (r->type == RECORD_COMMIT)
		w->extent->committed = end;
	return w->scan->on_record(w->scan->arg, r, payload, e);
}

/* The record at pos, if there is one: *next = where to go on. */
static int
walk_one(struct scanner *c, struct walk *w, uint64_t segment, uint64_t pos, uint64_t end,
         uint64_t *next, struct lc_err *e)
{
	struct record r;
	uint64_t sum;
	int rc;
	const uint8_t *p = scan_at(c, pos, RECORD_HEADER_SIZE, &rc, e);
	enum record_look look;

	if (p == NULL)
		return rc != 0 ? rc : lc_fail(e, LC_EIO, 0, "%s was cut meanwhile", c->name);
	look = record_header_decode(p, segment, pos, &r, &sum);
	if (look == RECORD_NEWER)
		return lc_fail(e, LC_EVERSION, 0,
		               "%s: the record at offset %" PRIu64
		               " was made by a newer version: use a newer locum",
		               c->name, pos);
	if (look == RECORD_GOOD && record_size(r.n) <= end - pos) {
		*next = pos + record_size(r.n);
		p = scan_at(c, pos + RECORD_HEADER_SIZE, r.n, &rc, e);
		if (rc != 0)
			return rc;
		if (p != NULL && XXH3_64bits(p, r.n) == sum)
			return good_record(w, &r, (struct lc_span){p, r.n}, e);
		bad_ends(w, pos); /* only the payload is bad */
		if (w->scan->on_bad != NULL)
			w->scan->on_bad(w->scan->arg, pos, record_size(r.n), &r);
		return 0;
	}
	if (w->bad_from == UINT64_MAX)
		w->bad_from = pos;
	*next = pos + 8;
	return 0;
}

static int
scan_file(struct scanner *c, const struct segment_info *seg, uint64_t from,
          const struct segment_scan *scan, struct segment_extent *extent, struct lc_err *e)
{
	struct walk w = {.scan = scan, .extent = extent, .bad_from = UINT64_MAX};
	uint64_t pos = from < SEGMENT_HEADER_SIZE ? SEGMENT_HEADER_SIZE : from;
	uint64_t end = c->size;
	int rc = 0;

	extent->committed = extent->good = pos;
	if (seg->sealed && end >= SEGMENT_TRAILER_SIZE)
		end -= SEGMENT_TRAILER_SIZE;
	while (rc == 0 && pos <= end && end - pos >= RECORD_HEADER_SIZE)
		rc = walk_one(c, &w, seg->no, pos, end, &pos, e);
	if (rc == 0 && pos < end && w.bad_from == UINT64_MAX)
		w.bad_from = pos;
	if (rc == 0)
		bad_ends(&w, end);
	return rc;
}

int
segment_scan(struct segments *s, const struct segment_info *seg, uint64_t from,
             const struct segment_scan *scan, struct segment_extent *extent, struct lc_err *e)
{
	struct segment_extent unused;
	struct segment_info now = *seg;
	struct scanner c = {0};
	const uint8_t *raw;
	char name[32];
	struct stat st;
	int rc;

	c.buf = lc_alloc(SCAN_BUFFER);
	if (c.buf == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	rc = c.fd = segment_open_fd(s, seg->no, O_RDONLY, name, e);
	if (rc >= 0)
		rc = fstat(c.fd, &st) == 0 ? 0 : lc_fail_errno(e, "%s/%s", s->dir, name);
	if (rc == 0) {
		c.name = name;
		now.bytes = c.size = (uint64_t)st.st_size;
		raw = scan_at(&c, 0, SEGMENT_HEADER_SIZE, &rc, e);
		rc = rc != 0 ? rc
		             : check_header(s, &now, raw, from < SEGMENT_HEADER_SIZE ? scan : NULL,
		                            name, e);
		rc = rc != 0
		         ? rc
		         : scan_file(&c, &now, from, scan, extent == NULL ? &unused : extent, e);
	}
	if (c.fd >= 0)
		fd_close(&c.fd);
	lc_free(c.buf);
	return rc;
}

/* ---- the index ---- */

static int
bad_index(const struct segment_info *seg, struct lc_err *e)
{
	return lc_fail(e, LC_ECORRUPT, 0, "segment %016" PRIx64 ": bad index", seg->no);
}

/* on_entry NULL: only check. */
static int
index_entries(const struct segment_info *seg, uint64_t index_off, struct lc_span p,
              int (*on_entry)(void *arg, const struct record *r, struct lc_err *e), void *arg,
              struct lc_err *e)
{
	struct lc_rd rd = lc_rd_over(p.p, p.n);
	uint64_t from = SEGMENT_HEADER_SIZE;
	uint32_t i, n = lc_rd32(&rd);
	int rc = 0;

	(void)lc_rd32(&rd);
	for (i = 0; rc == 0 && i < n; i++) {
		struct record r = {.segment = seg->no};

		r.off = lc_rd64(&rd);
		r.seq = lc_rd64(&rd);
		r.n = lc_rd32(&rd);
		r.key = lc_rd32(&rd);
		r.type = lc_rd8(&rd);
		r.encoding = lc_rd8(&rd);
		r.writer = lc_rd16(&rd);
		(void)lc_rd32(&rd);
		lc_rd_copy(&rd, r.id, sizeof r.id);
		if (!lc_rd_ok(&rd) || r.off < from || r.off % 8 != 0 || r.off > index_off ||
		    r.n > RECORD_PAYLOAD_MAX || record_size(r.n) > index_off - r.off ||
		    r.type == RECORD_INDEX)
			return bad_index(seg, e);
		from = r.off + record_size(r.n);
		if (on_entry != NULL)
			rc = on_entry(arg, &r, e);
	}
	return rc != 0 ? rc : lc_rd_end(&rd) ? 0 : bad_index(seg, e);
}

/* The index record of a sealed segment by its trailer; *payload with lc_free(). */
static int
read_index(struct segments *s, const struct segment_info *seg, int fd, const char *name,
           struct record *r, uint8_t **payload, struct lc_err *e)
{
	uint8_t t[SEGMENT_TRAILER_SIZE], h[RECORD_HEADER_SIZE];
	uint64_t sum, off;
	int rc = file_pread_full(fd, t, sizeof t, seg->bytes - sizeof t, name, e);

	if (rc != 0)
		return rc;
	off = lc_get64(t + 8);
	if (memcmp(t, TRAILER_MAGIC, 8) != 0 || lc_get64(t + 16) != seg->bytes ||
	    lc_get64(t + 24) != XXH3_64bits_withSeed(t, 24, seg->no) ||
	    off > seg->bytes - RECORD_HEADER_SIZE - SEGMENT_TRAILER_SIZE)
		return lc_fail(e, LC_ECORRUPT, 0, "%s/%s: damaged trailer", s->dir, name);
	rc = file_pread_full(fd, h, sizeof h, off, name, e);
	if (rc != 0)
		return rc;
	if (record_header_decode(h, seg->no, off, r, &sum) != RECORD_GOOD ||
	    r->type != RECORD_INDEX || off + record_size(r->n) != seg->bytes - SEGMENT_TRAILER_SIZE)
		return lc_fail(e, LC_ECORRUPT, 0, "%s/%s: damaged index", s->dir, name);
	*payload = lc_alloc(r->n);
	if (*payload == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s/%s: out of memory", s->dir, name);
	rc = file_pread_full(fd, *payload, r->n, off + RECORD_HEADER_SIZE, name, e);
	if (rc == 0 && XXH3_64bits(*payload, r->n) != sum)
		rc = lc_fail(e, LC_ECORRUPT, 0, "%s/%s: damaged index", s->dir, name);
	return rc;
}

int
segment_index(struct segments *s, const struct segment_info *seg,
              int (*on_entry)(void *arg, const struct record *r, struct lc_err *e), void *arg,
              struct lc_err *e)
{
	uint8_t raw[SEGMENT_HEADER_SIZE], *payload = NULL;
	struct record r = {0};
	char name[32];
	int fd, rc;

	if (seg->bytes < SEGMENT_HEADER_SIZE + RECORD_HEADER_SIZE + SEGMENT_TRAILER_SIZE)
		return lc_fail(e, LC_ECORRUPT, 0, "%s/%s: no index", s->dir,
		               segment_name(name, seg->no, seg->sealed));
	fd = segment_open_fd(s, seg->no, O_RDONLY, name, e);
	if (fd < 0)
		return fd;
	rc = file_pread_full(fd, raw, sizeof raw, 0, name, e);
	rc = rc != 0 ? rc : check_header(s, seg, raw, NULL, name, e);
	rc = rc != 0 ? rc : read_index(s, seg, fd, name, &r, &payload, e);
	rc = rc != 0 ? rc
	             : index_entries(seg, r.off, (struct lc_span){payload, r.n}, NULL, NULL, e);
	rc = rc != 0 ? rc
	             : index_entries(seg, r.off, (struct lc_span){payload, r.n}, on_entry, arg, e);
	rc = rc != 0 ? rc : on_entry(arg, &r, e);
	lc_free(payload);
	fd_close(&fd);
	return rc;
}

int
segment_keys(struct segments *s, const struct segment_info *seg, struct lc_buf *out,
             struct lc_err *e)
{
	uint8_t raw[SEGMENT_HEADER_SIZE + RECORD_HEADER_SIZE];
	struct record r;
	uint64_t sum;
	char name[32];
	int fd = segment_open_fd(s, seg->no, O_RDONLY, name, e), rc;

	if (fd < 0)
		return fd;
	rc = file_pread_full(fd, raw, sizeof raw, 0, name, e);
	rc = rc != 0 ? rc : check_header(s, seg, raw, NULL, name, e);
	if (rc == 0 && (record_header_decode(raw + SEGMENT_HEADER_SIZE, seg->no,
	                                     SEGMENT_HEADER_SIZE, &r, &sum) != RECORD_GOOD ||
	                r.type != RECORD_KEYS))
		rc = lc_fail(e, LC_ECORRUPT, 0, "%s/%s: damaged keys", s->dir, name);
	if (rc == 0 && lc_buf_reserve(out, r.n) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	rc = rc != 0 ? rc : file_pread_full(fd, out->p + out->n, r.n, sizeof raw, name, e);
	if (rc == 0 && XXH3_64bits(out->p + out->n, r.n) != sum)
		rc = lc_fail(e, LC_ECORRUPT, 0, "%s/%s: damaged keys", s->dir, name);
	if (rc == 0)
		out->n += r.n;
	fd_close(&fd);
	return rc;
}

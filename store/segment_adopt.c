/*
 * Taking over the open segments of a dead owner.  segment.h says what is a tear and what is damage.
 *
 * A COMMIT record whose header and length are good counts as one even where its payload is bad: a
 * commit is written after everything before it is durable, so what lies before it was, and a commit
 * that is damaged is to be reported rather than cut.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/segment_internal.h"

#define COPY_SIZE (1u << 20)

struct bad_range {
	uint64_t off, n;
	struct record r;
	bool have_r;
};

struct adopting {
	struct segments *s;
	struct lc_buf bad;  /* struct bad_range[] */
	uint64_t committed; /* end of the last commit, damaged ones too */
	uint64_t nindex;    /* index records in it */
	bool oom;
};

static int
adopt_record(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct adopting *a = arg;

	(void)payload;
	if (r->type == RECORD_COMMIT)
		a->committed = r->off + record_size(r->n);
	/* An index without its rename: a new one is written when it is sealed. */
	if (r->type == RECORD_INDEX) {
		a->nindex++;
		return 0;
	}
	if (segment_remember(a->s, r) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", a->s->dir);
	return 0;
}

static void
adopt_bad(void *arg, uint64_t off, uint64_t n, const struct record *r)
{
	struct adopting *a = arg;
	struct bad_range b;

	memset(&b, 0, sizeof b);
	b.off = off;
	b.n = n;
	if (r != NULL) {
		b.r = *r;
		b.have_r = true;
		if (r->type == RECORD_COMMIT)
			a->committed = off + n;
	}
	if (lc_buf_append(&a->bad, &b, sizeof b) != 0)
		a->oom = true;
}

static size_t
nbad(const struct adopting *a)
{
	return a->bad.n / sizeof(struct bad_range);
}

static struct bad_range
bad_at(const struct adopting *a, size_t i)
{
	struct bad_range b;

	memcpy(&b, a->bad.p + i * sizeof b, sizeof b);
	return b;
}

static uint64_t
end_of_records(const struct segments *s)
{
	const struct record *last;

	if (s->nrecords == 0)
		return SEGMENT_HEADER_SIZE;
	last = &s->records[s->nrecords - 1];
	return last->off + record_size(last->n);
}

/* ---- one that was sealed but for its name ---- */

static int
count_entry(void *arg, const struct record *r, struct lc_err *e)
{
	(void)e;
	*(size_t *)arg += r->type != RECORD_INDEX;
	return 0;
}

/* Every record is good, and the index lists them all. */
static bool
complete(struct adopting *a, const struct segment_info *seg)
{
	struct segment_info as_sealed = *seg;
	struct bad_range trailer;
	size_t n = 0;

	if (a->nindex != 1 || nbad(a) != 1)
		return false;
	trailer = bad_at(a, 0);
	as_sealed.sealed = true;
	return trailer.n == SEGMENT_TRAILER_SIZE && trailer.off + trailer.n == seg->bytes &&
	       segment_index(a->s, &as_sealed, count_entry, &n, NULL) == 0 && n == a->s->nrecords;
}

/* ---- what stays must be on the disk ---- */

/* After a flush that failed, memory may hold what the disk does not, and the next flush says
 * nothing of it.  Writing the same bytes again makes it tell. */
static int
write_again(struct segments *s, uint64_t from, uint64_t end, struct lc_err *e)
{
	uint8_t *p = lc_alloc(COPY_SIZE);
	uint64_t off, n;
	char name[32];
	int rc = 0, fail;

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	(void)segment_name(name, s->no, false);
	for (off = from; rc == 0 && off < end; off += n) {
		n = end - off < COPY_SIZE ? end - off : COPY_SIZE;
		rc = file_pread_full(s->fd, p, (size_t)n, off, name, e);
		if (rc == LC_EIO) { /* a bad sector: damage, and nothing to be written there */
			lc_err_clear(e);
			rc = 0;
			continue;
		}
		rc = rc != 0 ? rc : file_pwrite_full(s->fd, p, (size_t)n, off, name, e);
	}
	lc_free(p);
	fail = failpoint("segment.adopt.sync");
	errno = fail;
	if (rc == 0 && (fail != 0 || fdatasync(s->fd) != 0))
		rc = lc_fail_errno(e, "%s/%s", s->dir, name);
	return rc;
}

/* ---- where it ends ---- */

/* The first bad byte behind everything that was durable, or the end. */
static uint64_t
tear(const struct adopting *a, uint64_t durable, uint64_t size)
{
	uint64_t cut = size;
	size_t i;

	for (i = 0; i < nbad(a); i++) {
		struct bad_range b = bad_at(a, i);

		if (b.off >= durable && b.off < cut)
			cut = b.off;
		else if (b.off + b.n > durable && durable < cut)
			cut = durable;
	}
	return cut;
}

/* What the segment is cut to, or grows to so that records can be appended. */
static uint64_t
choose_end(const struct adopting *a, const struct segment_info *seg, uint64_t from, bool last)
{
	uint64_t durable = a->committed > SEGMENT_HEADER_SIZE ? a->committed : SEGMENT_HEADER_SIZE;
	uint64_t records = end_of_records(a->s), end;

	if (from != UINT64_MAX && from > durable)
		durable = from;
	if (!last || from == UINT64_MAX)
		return (seg->bytes + 7) & ~UINT64_C(7);
	end = tear(a, durable, seg->bytes);
	if (end > records) /* an index that was not finished, too */
		end = records > durable ? records : durable;
	return (end + 7) & ~UINT64_C(7);
}

static int
set_end(struct adopting *a, const struct segment_info *seg, uint64_t end, struct lc_err *e)
{
	struct segments *s = a->s;
	char name[32];

	if (end < seg->bytes)
		log_info("%s/%s: cutting %" PRIu64 " bytes after offset %" PRIu64
		         " that were being written when it was last used",
		         s->dir, segment_name(name, s->no, false), seg->bytes - end, end);
	while (s->nrecords > 0 && s->records[s->nrecords - 1].off >= end)
		s->nrecords--;
	(void)failpoint("segment.adopt.cut");
	if (end != seg->bytes && ftruncate(s->fd, (off_t)end) != 0)
		return lc_fail_errno(e, "%s/%s: cut", s->dir, segment_name(name, s->no, false));
	s->size = end;
	return 0;
}

static void
report_damage(const struct adopting *a, const struct segment_scan *scan, uint64_t end)
{
	size_t i;

	for (i = 0; scan->on_bad != NULL && i < nbad(a); i++) {
		struct bad_range b = bad_at(a, i);

		if (b.off < end)
			scan->on_bad(scan->arg, b.off, b.n < end - b.off ? b.n : end - b.off,
			             b.have_r ? &b.r : NULL);
	}
}

/* ---- one without a single good record ---- */

/* Its first write was torn, so nothing in it was ever acknowledged; or it is damaged beyond use.
 * Nothing is destroyed: a file that may matter keeps its bytes under a name that nobody takes for a
 * segment of the log. */
static int
set_aside(struct segments *s, const struct segment_info *seg, bool known, struct lc_err *e)
{
	char name[32];
	char *from = path_join(s->dir, segment_name(name, seg->no, false));
	char *to = lc_asprintf("%s/%016" PRIx64 ".torn", s->dir, seg->no);
	int rc = 0;

	fd_close(&s->fd);
	s->nrecords = 0;
	if (from == NULL || to == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	else if (known) /* damage, to be seen by scrub */
		rc = segment_rename(s, seg->no, e);
	else if (seg->bytes <= SEGMENT_HEADER_SIZE)
		rc = unlink(from) == 0 ? 0 : lc_fail_errno(e, "%s", from);
	else
		rc = rename(from, to) == 0 ? 0 : lc_fail_errno(e, "%s", from);
	rc = rc != 0 ? rc : dir_sync(s->dir, e);
	lc_free(from);
	lc_free(to);
	return rc;
}

/* The header reached the disk with the first commit, if there was one: without either, what else is
 * there was never acknowledged. */
static bool
begun_in_vain(const struct adopting *a, uint64_t from, bool last)
{
	return last && from <= SEGMENT_HEADER_SIZE && a->committed == 0 && nbad(a) > 0 &&
	       bad_at(a, 0).off == 0;
}

static int
take_over(struct adopting *a, const struct segment_info *seg, uint64_t from, bool last,
          const struct segment_scan *scan, struct lc_err *e)
{
	struct segments *s = a->s;
	struct segment_info now = *seg;
	struct segment_scan good = {.on_record = scan->on_record, .arg = scan->arg};
	uint64_t end = seg->bytes;
	int rc;

	if (complete(a, seg)) {
		rc = write_again(s, from < end ? from : end, end, e);
		fd_close(&s->fd);
		s->nrecords = 0;
		rc = rc != 0 ? rc : segment_rename(s, seg->no, e);
		now.sealed = true;
		return rc != 0 ? rc : segment_scan(s, &now, from, &good, NULL, e);
	}
	end = choose_end(a, seg, from, last);
	rc = set_end(a, seg, end, e);
	rc = rc != 0 ? rc : write_again(s, from < end ? from : end, end, e);
	if (rc != 0)
		return rc;
	report_damage(a, scan, end);
	return segment_scan(s, seg, from, &good, NULL, e);
}

int
segments_adopt(struct segments *s, const struct segment_info *seg, uint64_t from, bool last,
               const struct segment_scan *scan, struct lc_err *e)
{
	struct adopting a = {.s = s};
	struct segment_scan own = {.on_record = adopt_record, .on_bad = adopt_bad, .arg = &a};
	char name[32];
	int rc = 0;

	assert(!seg->sealed && !s->failed);
	if (s->fd >= 0) /* an older one was left open: it gets no more records */
		rc = segment_seal(s, e);
	s->nrecords = 0;
	s->buffered = 0;
	s->unsynced = 0;
	s->no = seg->no;
	rc = rc != 0 ? rc : segment_scan(s, seg, 0, &own, NULL, e);
	if (rc == 0 && a.oom)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	if (rc == 0) {
		s->fd = segment_open_fd(s, seg->no, O_RDWR, name, e);
		rc = s->fd < 0 ? s->fd : 0;
	}
	if (rc == 0 && (s->nrecords == 0 || begun_in_vain(&a, from, last)))
		rc = set_aside(s, seg, from > SEGMENT_HEADER_SIZE || !last, e);
	else if (rc == 0)
		rc = take_over(&a, seg, from, last, scan, e);
	lc_buf_free(&a.bad);
	if (rc != 0)
		fd_close(&s->fd);
	return rc;
}

/* One that does not hold all the keys can't open what is appended to it: it gets no more records.
 */
static bool
has_keys(struct segments *s, struct lc_span keys)
{
	struct segment_info seg = {.no = s->no, .bytes = s->size};
	struct lc_buf have = {0};
	bool same;

	same = segment_keys(s, &seg, &have, NULL) == 0 && have.n == keys.n &&
	       memcmp(have.p, keys.p, keys.n) == 0;
	lc_buf_free(&have);
	return same;
}

int
segments_resume(struct segments *s, struct lc_span keys, uint64_t next_seq, struct lc_err *e)
{
	struct segment_info *list;
	size_t n;
	int rc;

	s->keys.n = 0;
	if (lc_buf_append(&s->keys, keys.p, keys.n) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	rc = segments_list(s, &list, &n, e);
	if (rc != 0)
		return rc;
	s->last_no = n == 0 ? 0 : list[n - 1].no;
	lc_free(list);
	s->next_seq = next_seq;
	if (s->fd >= 0 && !has_keys(s, keys))
		rc = segment_seal(s, e);
	return rc;
}

/*
 * The open segment: append, write, flush, seal.
 *
 * There are two buffers: one takes what is appended while the other is written.  One piece is under
 * way at a time, and what follows it is written after it.
 *
 * A segment is sealed when it is full: index record, trailer, fdatasync, rename to .seg, fsync of
 * the folder.  A crash between the trailer and the rename leaves an .open file with a good index,
 * which adoption only renames.
 *
 * One failure ends it.  Whether a write or flush that failed reached the disk is not known, and a
 * second flush may say "done" of what the first one lost; so nothing is written afterwards, nothing
 * is acknowledged, and the next open looks at what is really there.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/segment_internal.h"

int
segment_remember(struct segments *s, const struct record *r)
{
	if (s->nrecords == s->records_cap) {
		size_t cap = s->records_cap == 0 ? 1024 : 2 * s->records_cap;
		struct record *p = lc_realloc(s->records, cap * sizeof *p);

		if (p == NULL)
			return LC_ENOMEM;
		s->records = p;
		s->records_cap = cap;
	}
	s->records[s->nrecords++] = *r;
	return 0;
}

/* The functions below that end in _locked need s->lock. */

/* NULL where the open segment has none of that sequence. */
static const struct record *
remembered_locked(const struct segments *s, uint64_t seq)
{
	size_t low = 0, high = s->nrecords;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->records[mid].seq < seq)
			low = mid + 1;
		else
			high = mid;
	}
	return low < s->nrecords && s->records[low].seq == seq ? &s->records[low] : NULL;
}

bool
segments_recent(struct segments *s, uint64_t seq, struct record *r)
{
	const struct record *x;
	bool written;

	(void)pthread_mutex_lock(&s->lock);
	x = s->failed ? NULL : remembered_locked(s, seq);
	written = x != NULL && x->off + record_size(x->n) <= s->size - s->buffered - s->nfull;
	if (written)
		*r = *x;
	(void)pthread_mutex_unlock(&s->lock);
	return written;
}

static int
failed_locked(struct segments *s, int rc, const struct lc_err *e)
{
	if (!s->failed) {
		s->cause = (struct lc_err)LC_ERR_INIT;
		if (e != NULL)
			s->cause = *e;
		else
			(void)lc_fail(&s->cause, rc, 0, "%s: %s", s->dir, lc_code_text(rc));
	}
	s->failed = true;
	s->buffered = s->nfull = 0;
	fd_close(&s->fd);
	return rc;
}

static int
refuse(const struct segments *s, struct lc_err *e)
{
	return lc_fail(e, s->cause.code == LC_ENOSPC ? LC_ENOSPC : LC_EIO, 0,
	               "an earlier write failed, and nothing more is written before the store is "
	               "opened again: %s",
	               s->cause.msg);
}

struct piece { /* of the open segment, to be written */
	int fd;
	uint64_t no, at;
	const uint8_t *p;
	size_t n;
};

static int
write_piece(const struct segments *s, const struct piece *x, struct lc_err *e)
{
	char name[32];
	int rc, fail;

	if (x->n == 0)
		return 0;
	(void)segment_name(name, x->no, false);
	fail = failpoint("segment.write");
	if (fail != 0) {
		errno = fail;
		rc = lc_fail_errno(e, "%s", name);
	} else {
		rc = file_pwrite_full(x->fd, x->p, x->n, x->at, name, e);
	}
	if (rc != 0)
		lc_wrap(e, "%s", s->dir);
	return rc;
}

static struct piece
full_piece(const struct segments *s)
{
	return (struct piece){.fd = s->fd,
	                      .no = s->no,
	                      .at = s->size - s->buffered - s->nfull,
	                      .p = s->full,
	                      .n = s->nfull};
}

/* Nobody is writing. */
static int
flush_full_locked(struct segments *s, struct lc_err *e)
{
	struct piece x = full_piece(s);
	int rc;

	assert(!s->writing);
	rc = write_piece(s, &x, e);
	if (rc != 0)
		return failed_locked(s, rc, e);
	s->nfull = 0;
	return 0;
}

/* Nobody is writing. */
static int
flush_locked(struct segments *s, struct lc_err *e)
{
	int rc = flush_full_locked(s, e);
	struct piece x = {.fd = s->fd,
	                  .no = s->no,
	                  .at = s->size - s->buffered,
	                  .p = s->buffer,
	                  .n = s->buffered};

	if (rc != 0)
		return rc;
	rc = write_piece(s, &x, e);
	if (rc != 0)
		return failed_locked(s, rc, e);
	s->buffered = 0;
	return 0;
}

static bool
overflows(const struct segments *s, uint64_t total)
{
	return s->buffered > 0 && s->buffered + total > APPEND_BUFFER;
}

/* An empty buffer, where nobody is writing the other one. */
static int
turn_buffers_locked(struct segments *s, struct lc_err *e)
{
	uint8_t *empty = s->full;
	int rc = flush_full_locked(s, e);

	if (rc != 0)
		return rc;
	s->full = s->buffer;
	s->nfull = s->buffered;
	s->buffer = empty;
	s->buffered = 0;
	return 0;
}

static int
append_locked(struct segments *s, struct record *r, const uint8_t *payload, struct lc_err *e)
{
	uint64_t total = record_size(r->n);
	uint8_t *p;
	int rc;

	assert(total <= APPEND_BUFFER + RECORD_PAYLOAD_MAX);
	if (overflows(s, total)) {
		rc = turn_buffers_locked(s, e);
		if (rc != 0)
			return rc;
	}
	r->segment = s->no;
	r->off = s->size;
	r->seq = r->type == RECORD_INDEX ? 0 : s->next_seq;
	if (segment_remember(s, r) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	p = s->buffer + s->buffered;
	record_header_encode(r, XXH3_64bits(payload, r->n), p);
	if (r->n > 0)
		memcpy(p + RECORD_HEADER_SIZE, payload, r->n);
	memset(p + RECORD_HEADER_SIZE + r->n, 0, total - RECORD_HEADER_SIZE - r->n);
	if (r->type != RECORD_INDEX)
		s->next_seq = record_last_seq(r) + 1;
	s->buffered += total;
	s->size += total;
	s->unsynced += total;
	return 0;
}

static int
begin_locked(struct segments *s, struct lc_err *e)
{
	struct record keys = {.type = RECORD_KEYS, .n = (uint32_t)s->keys.n};
	struct segment_header h = {.no = s->last_no + 1, .first_seq = s->next_seq};
	char name[32], *path;
	int rc = 0, fail;

	(void)segment_name(name, h.no, false);
	path = path_join(s->dir, name);
	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	fail = failpoint("segment.begin");
	errno = fail;
	s->fd = fail != 0 ? -1 : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->fd < 0)
		rc = lc_fail_errno(e, "%s", path);
	lc_free(path);
	/* The name must be durable before anything in the file is called durable. */
	if (rc == 0)
		rc = dir_sync(s->dir, e);
	if (rc != 0)
		return failed_locked(s, rc, e);
	s->no = ++s->last_no;
	s->nrecords = 0;
	memcpy(h.store_id, s->store_id, 16);
	memcpy(h.domain, s->domain, 16);
	h.made_ns = clock_wall_ns();
	segment_header_encode(&h, s->buffer);
	s->buffered = s->size = SEGMENT_HEADER_SIZE;
	s->begun = 0;
	rc = append_locked(s, &keys, s->keys.p, e);
	return rc == 0 ? 0 : failed_locked(s, rc, e);
}

int
segment_index_encode(const struct record *list, size_t n, struct lc_buf *b)
{
	size_t i;

	if (lc_buf_reserve(b, INDEX_HEAD_SIZE + n * INDEX_ENTRY_SIZE) != 0)
		return LC_ENOMEM;
	(void)lc_wr32(b, (uint32_t)n);
	(void)lc_wr32(b, 0);
	for (i = 0; i < n; i++) {
		const struct record *x = &list[i];

		(void)lc_wr64(b, x->off);
		(void)lc_wr64(b, x->seq);
		(void)lc_wr32(b, x->n);
		(void)lc_wr32(b, x->key);
		(void)lc_wr8(b, x->type);
		(void)lc_wr8(b, x->encoding);
		(void)lc_wr16(b, x->writer);
		(void)lc_wr32(b, 0);
		(void)lc_buf_append(b, x->id, sizeof x->id);
	}
	return 0;
}

void
segment_trailer_encode(uint64_t no, uint64_t index_off, uint64_t size,
                       uint8_t t[SEGMENT_TRAILER_SIZE])
{
	memset(t, 0, SEGMENT_TRAILER_SIZE);
	memcpy(t, TRAILER_MAGIC, 8); /* NOLINT(bugprone-not-null-terminated-result) */
	lc_put64(t + 8, index_off);
	lc_put64(t + 16, size);
	lc_put64(t + 24, XXH3_64bits_withSeed(t, 24, no));
}

static int
write_index_locked(struct segments *s, struct lc_err *e)
{
	struct record r = {.type = RECORD_INDEX};
	struct lc_buf b = {0};
	int rc;

	if (segment_index_encode(s->records, s->nrecords, &b) != 0)
		return failed_locked(s, lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir), e);
	r.n = (uint32_t)b.n;
	rc = append_locked(s, &r, b.p, e);
	lc_buf_free(&b);
	rc = rc != 0 ? rc : flush_locked(s, e);
	if (rc != 0)
		return failed_locked(s, rc, e);
	segment_trailer_encode(s->no, r.off, s->size + SEGMENT_TRAILER_SIZE, s->buffer);
	s->buffered = SEGMENT_TRAILER_SIZE;
	s->size += SEGMENT_TRAILER_SIZE;
	return flush_locked(s, e);
}

int
segment_rename(struct segments *s, uint64_t no, struct lc_err *e)
{
	char from_name[32], to_name[32];
	char *from = path_join(s->dir, segment_name(from_name, no, false));
	char *to = path_join(s->dir, segment_name(to_name, no, true));
	int rc = 0, fail;

	fail = failpoint("segment.rename");
	errno = fail;
	if (from == NULL || to == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	else if (fail != 0 || rename(from, to) != 0)
		rc = lc_fail_errno(e, "%s: rename", from);
	lc_free(from);
	lc_free(to);
	return rc != 0 ? rc : dir_sync(s->dir, e);
}

int
segment_seal(struct segments *s, struct lc_err *e)
{
	int rc, fail;

	(void)failpoint("segment.seal.before");
	rc = write_index_locked(s, e);
	if (rc != 0)
		return rc;
	fail = failpoint("segment.seal.index");
	errno = fail;
	if (fail != 0 || fdatasync(s->fd) != 0)
		return failed_locked(
		    s, lc_fail_errno(e, "%s: sync of segment %016" PRIx64, s->dir, s->no), e);
	rc = segment_rename(s, s->no, e);
	if (rc != 0)
		return failed_locked(s, rc, e);
	fd_close(&s->fd);
	s->nrecords = 0;
	s->unsynced = 0;
	(void)failpoint("segment.seal.after");
	return 0;
}

static bool
full_locked(const struct segments *s, const struct record *r)
{
	return s->nrecords >= SEGMENT_RECORDS_MAX ||
	       (s->nrecords > 1 && s->size + record_size(r->n) > s->limit);
}

/* What is under way must tell its failure before the segment can be called sealed; and there are
 * two buffers. */
static bool
must_wait_locked(const struct segments *s, const struct record *r)
{
	if (s->failed || s->fd < 0)
		return false;
	if (full_locked(s, r))
		return s->syncing || s->writing;
	return s->writing && overflows(s, record_size(r->n));
}

int
segments_append(struct segments *s, struct record *r, const uint8_t *payload, struct lc_err *e)
{
	int rc = 0;

	if (r->n > RECORD_PAYLOAD_MAX)
		return lc_fail(e, LC_EINVAL, 0, "record of %u bytes is too large", r->n);
	(void)pthread_mutex_lock(&s->lock);
	while (must_wait_locked(s, r))
		(void)pthread_cond_wait(&s->idle, &s->lock);
	if (s->failed)
		rc = refuse(s, e);
	else if (s->fd >= 0 && full_locked(s, r))
		rc = segment_seal(s, e);
	if (rc == 0 && s->fd < 0)
		rc = begin_locked(s, e);
	if (rc == 0)
		rc = append_locked(s, r, payload, e);
	(void)pthread_mutex_unlock(&s->lock);
	return rc;
}

/*
 * Have the kernel begin to write what it was given, so that the next fdatasync() finds little left
 * to wait for.  It tells nothing, and takes no failure from the fdatasync() that is to tell it.
 */
static void
begin_write_back(int fd, uint64_t from, uint64_t to)
{
	if (to > from)
		(void)sync_file_range(fd, (off_t)from, (off_t)(to - from), SYNC_FILE_RANGE_WRITE);
}

/* The lock is held again afterwards; the duplicate descriptor keeps the file should one of the
 * others fail. */
static int
write_unlocked(struct segments *s, struct lc_err *e)
{
	struct piece x = full_piece(s);
	uint64_t end = x.at + x.n, from = end;
	int rc;

	x.fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	if (x.fd < 0)
		return failed_locked(s, lc_fail_errno(e, "%s", s->dir), e);
	if (end - s->begun >= WRITE_BACK && !s->syncing) {
		from = s->begun;
		s->begun = end;
	}
	s->writing = true;
	(void)pthread_mutex_unlock(&s->lock);
	rc = write_piece(s, &x, e);
	if (rc == 0)
		begin_write_back(x.fd, from, end);
	(void)close(x.fd);
	(void)pthread_mutex_lock(&s->lock);
	s->writing = false;
	s->nfull = 0;
	(void)pthread_cond_broadcast(&s->idle);
	return rc == 0 ? 0 : failed_locked(s, rc, e);
}

int
segments_write(struct segments *s, struct lc_err *e)
{
	int rc = 0;

	(void)pthread_mutex_lock(&s->lock);
	if (s->nfull > 0 && !s->writing)
		rc = write_unlocked(s, e);
	(void)pthread_mutex_unlock(&s->lock);
	return rc;
}

int
segments_rekey(struct segments *s, struct lc_span keys, struct lc_err *e)
{
	struct lc_buf fresh = {0};
	int rc = 0;

	if (lc_buf_append(&fresh, keys.p, keys.n) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	(void)pthread_mutex_lock(&s->lock);
	while (!s->failed && s->fd >= 0 && (s->syncing || s->writing))
		(void)pthread_cond_wait(&s->idle, &s->lock);
	if (s->failed)
		rc = refuse(s, e);
	else if (s->fd >= 0)
		rc = segment_seal(s, e);
	if (rc == 0) {
		struct lc_buf before = s->keys;

		s->keys = fresh;
		fresh = before;
	}
	(void)pthread_mutex_unlock(&s->lock);
	lc_buf_free(&fresh);
	return rc;
}

uint64_t
segments_unsynced(const struct segments *s)
{
	return s->unsynced;
}

bool
segments_failed(struct segments *s)
{
	bool failed;

	(void)pthread_mutex_lock(&s->lock);
	failed = s->failed;
	(void)pthread_mutex_unlock(&s->lock);
	return failed;
}

/* fdatasync() without the lock, so that others go on appending; the duplicate descriptor keeps the
 * file should one of them fail. */
static int
sync_locked(struct segments *s, struct lc_err *e)
{
	uint64_t no = s->no, bytes = s->unsynced;
	int fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	int rc = 0, fail;

	if (fd < 0)
		return failed_locked(s, lc_fail_errno(e, "%s", s->dir), e);
	s->syncing = true;
	(void)pthread_mutex_unlock(&s->lock);
	fail = failpoint("segment.sync");
	errno = fail;
	if (fail != 0 || fdatasync(fd) != 0)
		rc = lc_fail_errno(e, "%s: sync of segment %016" PRIx64, s->dir, no);
	(void)close(fd);
	(void)pthread_mutex_lock(&s->lock);
	s->syncing = false;
	(void)pthread_cond_broadcast(&s->idle);
	if (rc != 0)
		return failed_locked(s, rc, e);
	s->unsynced -= bytes;
	return 0;
}

int
segments_sync(struct segments *s, uint64_t *upto, struct lc_err *e)
{
	int rc;

	(void)pthread_mutex_lock(&s->lock);
	while (s->syncing || s->writing)
		(void)pthread_cond_wait(&s->idle, &s->lock);
	rc = s->failed ? refuse(s, e) : 0;
	if (rc == 0 && s->fd >= 0)
		rc = flush_locked(s, e);
	if (upto != NULL)
		*upto = s->next_seq - 1;
	if (rc == 0 && s->fd >= 0)
		rc = sync_locked(s, e);
	(void)pthread_mutex_unlock(&s->lock);
	return rc;
}

/*
 * Names, headers and single records.  Scanning is in segment_scan.c, appending in segment_append.c,
 * taking over what a dead owner left in segment_adopt.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/seal.h"
#include "store/segment_internal.h"
#include "store/stubs.h"

#define RECORD_MAGIC 0x4345524cu /* "LREC" */
#define FORMAT_VERSION 1u
#define DELTA_VERSION 2u /* of records, for chunks that are deltas */

uint64_t
record_size(uint32_t n)
{
	return (RECORD_HEADER_SIZE + (uint64_t)n + 7) & ~UINT64_C(7);
}

uint64_t
record_last_seq(const struct record *r)
{
	return r->type == RECORD_STUBS && r->n > STUBS_HEAD_SIZE + STUB_SIZE
	           ? r->seq + (r->n - STUBS_HEAD_SIZE) / STUB_SIZE - 1
	           : r->seq;
}

void
record_header_encode(const struct record *r, uint64_t sum, uint8_t h[RECORD_HEADER_SIZE])
{
	memset(h, 0, RECORD_HEADER_SIZE);
	lc_put32(h, RECORD_MAGIC);
	h[4] = r->type == RECORD_CHUNK && chunk_is_delta(r->encoding) ? DELTA_VERSION
	                                                              : FORMAT_VERSION;
	h[5] = r->type;
	h[6] = r->encoding;
	lc_put32(h + 8, r->n);
	lc_put32(h + 12, r->key);
	lc_put64(h + 16, r->seq);
	lc_put64(h + 24, sum);
	lc_put16(h + 32, r->writer);
	lc_put64(h + 40, XXH3_64bits_withSeed(h, 40, r->segment));
}

enum record_look
record_header_decode(const uint8_t h[RECORD_HEADER_SIZE], uint64_t segment, uint64_t off,
                     struct record *r, uint64_t *sum)
{
	/* Magic, version and checksum stay where they are in every version. */
	if (lc_get32(h) != RECORD_MAGIC || lc_get64(h + 40) != XXH3_64bits_withSeed(h, 40, segment))
		return RECORD_BAD;
	if (h[4] > FORMAT_VERSION &&
	    (h[4] != DELTA_VERSION || h[5] != RECORD_CHUNK || !chunk_is_delta(h[6])))
		return RECORD_NEWER;
	*r = (struct record){
	    .type = h[5],
	    .encoding = h[6],
	    .writer = lc_get16(h + 32),
	    .key = lc_get32(h + 12),
	    .n = lc_get32(h + 8),
	    .seq = lc_get64(h + 16),
	    .segment = segment,
	    .off = off,
	};
	*sum = lc_get64(h + 24);
	return h[4] >= FORMAT_VERSION && r->n <= RECORD_PAYLOAD_MAX ? RECORD_GOOD : RECORD_BAD;
}

bool
segment_header_decode(const uint8_t h[SEGMENT_HEADER_SIZE], struct segment_header *out)
{
	if (memcmp(h, SEGMENT_MAGIC, 8) != 0 || lc_get64(h + 120) != XXH3_64bits(h, 120))
		return false;
	out->version = lc_get16(h + 8);
	memcpy(out->store_id, h + 16, 16);
	memcpy(out->domain, h + 32, 16);
	out->no = lc_get64(h + 48);
	out->first_seq = lc_get64(h + 56);
	out->made_ns = (int64_t)lc_get64(h + 64);
	return out->version > 0;
}

void
segment_header_encode(const struct segment_header *in, uint8_t h[SEGMENT_HEADER_SIZE])
{
	memset(h, 0, SEGMENT_HEADER_SIZE);
	memcpy(h, SEGMENT_MAGIC, 8); /* NOLINT(bugprone-not-null-terminated-result) */
	lc_put16(h + 8, FORMAT_VERSION);
	lc_put32(h + 12, SEGMENT_HEADER_SIZE);
	memcpy(h + 16, in->store_id, 16);
	memcpy(h + 32, in->domain, 16);
	lc_put64(h + 48, in->no);
	lc_put64(h + 56, in->first_seq);
	lc_put64(h + 64, (uint64_t)in->made_ns);
	lc_put64(h + 120, XXH3_64bits(h, 120));
}

bool
segment_header_newer(const struct segment_header *h)
{
	return h->version > FORMAT_VERSION;
}

const char *
segment_name(char dst[32], uint64_t no, bool sealed)
{
	(void)snprintf(dst, 32, "%016" PRIx64 ".%s", no, sealed ? "seg" : "open");
	return dst;
}

const char *
segment_called(struct segments *s, char dst[32], uint64_t no)
{
	const struct segment_info kinds[] = {
	    {.no = no, .sealed = true}, {.no = no}, {.no = no, .sealed = true, .thin = true}};
	size_t i;

	for (i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		char *path = path_join(s->dir, segment_file(dst, &kinds[i]));
		bool there = path != NULL && access(path, F_OK) == 0;

		lc_free(path);
		if (there)
			return dst;
	}
	return segment_name(dst, no, true);
}

int
segments_open(const char *dir, const uint8_t store_id[16], const uint8_t domain[16],
              struct segments **out, struct lc_err *e)
{
	struct segments *s = lc_alloc(sizeof *s);
	size_t i;

	if (s != NULL) {
		s->dir = lc_strdup(dir);
		s->buffer = lc_alloc(APPEND_BUFFER_MAX);
		s->full = lc_alloc(APPEND_BUFFER_MAX);
	}
	if (s == NULL || s->dir == NULL || s->buffer == NULL || s->full == NULL) {
		if (s != NULL) {
			lc_free(s->dir);
			lc_free(s->buffer);
			lc_free(s->full);
		}
		lc_free(s);
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", dir);
	}
	memcpy(s->store_id, store_id, 16);
	memcpy(s->domain, domain, 16);
	(void)pthread_mutex_init(&s->fds_lock, NULL);
	(void)pthread_cond_init(&s->fds_idle, NULL);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->idle, NULL);
	for (i = 0; i < FD_CACHE; i++)
		s->fds[i].fd = -1;
	s->fd = -1;
	s->limit = SEGMENT_SIZE;
	*out = s;
	return 0;
}

void
segments_limit(struct segments *s, uint64_t bytes)
{
	s->limit = bytes;
}

void
segments_close(struct segments *s)
{
	size_t i;

	if (s == NULL)
		return;
	for (i = 0; i < FD_CACHE; i++)
		fd_close(&s->fds[i].fd);
	fd_close(&s->fd);
	(void)pthread_mutex_destroy(&s->fds_lock);
	(void)pthread_cond_destroy(&s->fds_idle);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->idle);
	lc_buf_free(&s->keys);
	lc_free(s->records);
	lc_free(s->buffer);
	lc_free(s->full);
	lc_free(s->dir);
	lc_free(s);
}

/* ---- names ---- */

const char *
segment_file(char dst[32], const struct segment_info *seg)
{
	(void)snprintf(dst, 32, "%016" PRIx64 ".%s", seg->no,
	               seg->thin     ? "thin"
	               : seg->sealed ? "seg"
	                             : "open");
	return dst;
}

static bool
parse_name(const char *name, struct segment_info *out)
{
	static const char digits[] = "0123456789abcdef";
	const char *end = name + strspn(name, digits);

	if (end != name + 16)
		return false;
	out->no = strtoull(name, NULL, 16);
	out->thin = strcmp(end, ".thin") == 0;
	out->sealed = out->thin || strcmp(end, ".seg") == 0;
	return out->no != 0 && (out->sealed || strcmp(end, ".open") == 0);
}

static int
by_number(const void *a, const void *b)
{
	const struct segment_info *x = a, *y = b;

	if (x->no != y->no)
		return x->no < y->no ? -1 : 1;
	if (x->thin != y->thin)
		return (int)x->thin - (int)y->thin;
	return (int)y->sealed - (int)x->sealed;
}

/* Two names for one number are the two names of one file that was just being sealed; or the one
 * that has more comes first, and counts. */
static size_t
without_twins(struct segment_info *list, size_t n)
{
	size_t i, to = 0;

	for (i = 0; i < n; i++) {
		if (i == 0 || list[i].no != list[to - 1].no)
			list[to++] = list[i];
		else if (list[i].thin && !list[to - 1].thin)
			list[to - 1].twin = true;
	}
	return to;
}

int
segments_list(struct segments *s, struct segment_info **out, size_t *n, struct lc_err *e)
{
	struct lc_buf list = {0};
	DIR *d = opendir(s->dir);
	struct dirent *ent;
	int rc = 0;

	*out = NULL;
	*n = 0;
	if (d == NULL)
		return lc_fail_errno(e, "%s", s->dir);
	while (rc == 0 && (ent = dir_next(d, s->dir, &rc, e)) != NULL) {
		struct segment_info si;
		struct stat st;
		char name[32];

		memset(&si, 0, sizeof si);
		if (!parse_name(ent->d_name, &si))
			continue;
		if (fstatat(dirfd(d), ent->d_name, &st, 0) != 0) {
			/* An open one is renamed when it is sealed; that becomes thin. */
			si.thin = si.sealed;
			si.sealed = true;
			if (errno != ENOENT ||
			    fstatat(dirfd(d), segment_file(name, &si), &st, 0) != 0) {
				rc = lc_fail_errno(e, "%s/%s", s->dir, ent->d_name);
				continue;
			}
		}
		si.bytes = (uint64_t)st.st_size;
		if (lc_buf_append(&list, &si, sizeof si) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->dir);
	}
	(void)closedir(d);
	if (rc != 0) {
		lc_buf_free(&list);
		return rc;
	}
	*n = list.n / sizeof(struct segment_info);
	*out = (struct segment_info *)(void *)list.p;
	if (*n > 0) {
		qsort(*out, *n, sizeof **out, by_number);
		*n = without_twins(*out, *n);
	}
	return 0;
}

/* ---- one record ---- */

int
segment_open_fd(struct segments *s, uint64_t no, int flags, char name[32], struct lc_err *e)
{
	int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct segment_info thin = {.no = no, .sealed = true, .thin = true};
	int fd = -1, tries;

	if (dir < 0)
		return lc_fail_errno(e, "%s", s->dir);
	/* Sealing and thinning change its name: look twice. */
	for (tries = 0; tries < 2 && fd < 0; tries++) {
		fd = openat(dir, segment_name(name, no, true), flags | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			fd = openat(dir, segment_name(name, no, false), flags | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			fd = openat(dir, segment_file(name, &thin), flags | O_CLOEXEC);
	}
	if (fd < 0)
		fd = lc_fail_errno(e, "%s/%s", s->dir, segment_name(name, no, true));
	(void)close(dir);
	return fd;
}

/* That of the segment, or one that can be used for it; NULL: all are in use.  fds_lock is held. */
static struct open_fd *
choose_fd(struct segments *s, uint64_t no)
{
	struct open_fd *best = NULL;
	size_t i;

	for (i = 0; i < FD_CACHE; i++) {
		struct open_fd *f = &s->fds[i];

		if (f->fd >= 0 && f->segment == no)
			return f;
		if (f->users == 0 &&
		    (best == NULL || f->fd < 0 || (best->fd >= 0 && f->used_at < best->used_at)))
			best = f;
	}
	return best;
}

/* A descriptor for reading, from the cache; give it back with put_fd().  One at a time: it is
 * waited for. */
static int
get_fd(struct segments *s, uint64_t no, struct open_fd **out, struct lc_err *e)
{
	struct open_fd *best;
	char name[32];
	int fd;

	(void)pthread_mutex_lock(&s->fds_lock);
	s->tick++;
	while ((best = choose_fd(s, no)) == NULL)
		(void)pthread_cond_wait(&s->fds_idle, &s->fds_lock);
	if (best->fd < 0 || best->segment != no) {
		fd = segment_open_fd(s, no, O_RDONLY, name, e);
		if (fd < 0) {
			(void)pthread_mutex_unlock(&s->fds_lock);
			return fd;
		}
		fd_close(&best->fd);
		best->fd = fd;
		best->segment = no;
	}
	best->users++;
	best->used_at = s->tick;
	(void)pthread_mutex_unlock(&s->fds_lock);
	*out = best;
	return 0;
}

static void
put_fd(struct segments *s, struct open_fd *f)
{
	(void)pthread_mutex_lock(&s->fds_lock);
	f->users--;
	if (f->users == 0 && f->segment == 0)
		fd_close(&f->fd);
	if (f->users == 0)
		(void)pthread_cond_signal(&s->fds_idle);
	(void)pthread_mutex_unlock(&s->fds_lock);
}

void
segment_forget_fd(struct segments *s, uint64_t no)
{
	size_t i;

	(void)pthread_mutex_lock(&s->fds_lock);
	for (i = 0; i < FD_CACHE; i++) {
		struct open_fd *f = &s->fds[i];

		if (f->fd < 0 || f->segment != no)
			continue;
		f->segment = 0; /* whoever reads from it closes it */
		if (f->users == 0)
			fd_close(&f->fd);
	}
	(void)pthread_mutex_unlock(&s->fds_lock);
}

static int
check_record(struct segments *s, const struct record *want, const uint8_t *h,
             const uint8_t *payload, struct lc_err *e)
{
	enum record_look look;
	struct record r;
	uint64_t sum;
	char name[32];

	look = record_header_decode(h, want->segment, want->off, &r, &sum);
	if (look == RECORD_NEWER)
		return lc_fail(e, LC_EVERSION, 0,
		               "%s/%s: the record at offset %" PRIu64
		               " was made by a newer version: use a newer locum",
		               s->dir, segment_called(s, name, want->segment), want->off);
	if (look != RECORD_GOOD || r.n != want->n)
		return lc_fail(e, LC_ECORRUPT, 0, "%s/%s: damaged record header at offset %" PRIu64,
		               s->dir, segment_called(s, name, want->segment), want->off);
	if (XXH3_64bits(payload, want->n) != sum)
		return lc_fail(e, LC_ECORRUPT, 0, "%s/%s: damaged record at offset %" PRIu64,
		               s->dir, segment_called(s, name, want->segment), want->off);
	return 0;
}

static int
read_parts(struct segments *s, int fd, uint8_t h[RECORD_HEADER_SIZE], const struct record *want,
           uint8_t *payload, struct lc_err *e)
{
	char name[32];
	int rc;

	(void)segment_called(s, name, want->segment);
	rc = file_pread_full(fd, h, RECORD_HEADER_SIZE, want->off, name, e);
	return rc != 0
	           ? rc
	           : file_pread_full(fd, payload, want->n, want->off + RECORD_HEADER_SIZE, name, e);
}

static int
read_record(struct segments *s, int fd, const struct record *want, uint8_t *payload,
            struct lc_err *e)
{
	uint8_t h[RECORD_HEADER_SIZE];
	struct iovec parts[] = {{h, sizeof h}, {payload, want->n}};
	int rc = 0;

	/* In one call, where that gives all of it. */
	if (want->off > INT64_MAX ||
	    preadv(fd, parts, 2, (off_t)want->off) != (ssize_t)(sizeof h + want->n))
		rc = read_parts(s, fd, h, want, payload, e);
	return rc != 0 ? rc : check_record(s, want, h, payload, e);
}

static int
read_thin(struct segments *s, const struct record *want, uint8_t *payload)
{
	struct segment_info thin = {.no = want->segment, .sealed = true, .thin = true};
	char name[32], *path = path_join(s->dir, segment_file(name, &thin));
	int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC), rc = LC_ENOENT;

	lc_free(path);
	if (fd < 0)
		return rc;
	rc = read_record(s, fd, want, payload, NULL);
	fd_close(&fd);
	if (rc == 0)
		segment_forget_fd(s, want->segment);
	return rc;
}

int
segment_read(struct segments *s, const struct record *want, uint8_t *payload, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct open_fd *f = NULL;
	char name[32];
	int rc;

	if (want->n > RECORD_PAYLOAD_MAX)
		return lc_fail(e, LC_ECORRUPT, 0, "%s/%s: no record can have %u bytes", s->dir,
		               segment_called(s, name, want->segment), want->n);
	rc = get_fd(s, want->segment, &f, &err);
	if (rc == LC_ENOENT)
		return lc_fail(e, LC_ECORRUPT, 0, "%s/%s is missing", s->dir,
		               segment_name(name, want->segment, true));
	if (rc == 0) {
		rc = read_record(s, f->fd, want, payload, &err);
		put_fd(s, f);
	}
	/* It may have become thin, under a descriptor that is still of the whole one. */
	if (rc == LC_ECORRUPT && read_thin(s, want, payload) == 0)
		return 0;
	if (rc != 0 && e != NULL && e->code == LC_OK)
		*e = err;
	return rc;
}

#define ADVISE_PART (UINT64_C(256) << 10) /* Linux takes no more than a part of a large request */

void
segment_advise(struct segments *s, uint64_t no, uint64_t off, uint64_t n)
{
	struct open_fd *f = NULL;
	uint64_t part;

	if (get_fd(s, no, &f, NULL) != 0)
		return;
	for (; n > 0; off += part, n -= part) {
		part = n < ADVISE_PART ? n : ADVISE_PART;
		(void)posix_fadvise(f->fd, (off_t)off, (off_t)part, POSIX_FADV_WILLNEED);
	}
	put_fd(s, f);
}

enum record_look
segment_peek(struct segments *s, uint64_t no, uint64_t off, struct record *r)
{
	enum record_look look = RECORD_BAD;
	uint8_t h[RECORD_HEADER_SIZE];
	struct open_fd *f = NULL;
	uint64_t sum;

	memset(r, 0, sizeof *r);
	if (get_fd(s, no, &f, NULL) != 0)
		return RECORD_BAD;
	if (file_pread_full(f->fd, h, sizeof h, off, "", NULL) == 0)
		look = record_header_decode(h, no, off, r, &sum);
	put_fd(s, f);
	return look;
}

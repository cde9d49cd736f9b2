#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/segment_internal.h"
#include "store/segment_thin.h"

#define OUT_BYTES (1u << 20)
#define MAKING ".thin.new"

struct out { /* the file in the making */
	const char *path;
	int fd;
	uint64_t size; /* with what waits in buf */
	struct lc_buf buf;
	struct lc_buf index; /* struct record[] */
};

static int
no_memory(struct lc_err *e)
{
	return lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
flush(struct out *o, struct lc_err *e)
{
	int fail = failpoint("segment.thin.write"), rc;

	if (fail != 0) {
		errno = fail;
		return lc_fail_errno(e, "%s", o->path);
	}
	rc = file_pwrite_full(o->fd, o->buf.p, o->buf.n, o->size - o->buf.n, o->path, e);
	o->buf.n = 0;
	return rc;
}

static int
put(struct out *o, const void *p, size_t n, struct lc_err *e)
{
	if (lc_buf_append(&o->buf, p, n) != 0)
		return no_memory(e);
	o->size += n;
	return o->buf.n < OUT_BYTES ? 0 : flush(o, e);
}

/* With its header and padding; r->off becomes where it is. */
static int
put_record(struct out *o, struct record *r, const uint8_t *payload, struct lc_err *e)
{
	static const uint8_t zeros[8];
	uint8_t h[RECORD_HEADER_SIZE];
	int rc;

	r->off = o->size;
	record_header_encode(r, XXH3_64bits(payload, r->n), h);
	rc = put(o, h, sizeof h, e);
	rc = rc != 0 ? rc : put(o, payload, r->n, e);
	rc = rc != 0 ? rc : put(o, zeros, (size_t)(record_size(r->n) - sizeof h - r->n), e);
	if (rc == 0 && r->type != RECORD_INDEX && lc_buf_append(&o->index, r, sizeof *r) != 0)
		rc = no_memory(e);
	return rc;
}

static int
put_stubs(struct out *o, const struct segment_diet *d, struct lc_err *e)
{
	struct record r = {.type = RECORD_STUBS,
	                   .n = (uint32_t)d->stubs.n,
	                   .seq = d->stubs_seq,
	                   .segment = d->seg->no};

	return put_record(o, &r, d->stubs.p, e);
}

static int
put_header(struct segments *s, struct out *o, const struct segment_diet *d, struct lc_err *e)
{
	uint8_t h[SEGMENT_HEADER_SIZE];
	struct segment_header head;
	char name[32];
	int fd = segment_open_fd(s, d->seg->no, O_RDONLY, name, e), rc;

	if (fd < 0)
		return fd;
	rc = file_pread_full(fd, h, sizeof h, 0, name, e);
	fd_close(&fd);
	if (rc == 0 && !segment_header_decode(h, &head))
		rc = lc_fail(e, LC_ECORRUPT, 0, "%s/%s: damaged header", s->dir, name);
	return rc != 0 ? rc : put(o, h, sizeof h, e);
}

static int
put_end(struct out *o, uint64_t no, struct lc_err *e)
{
	struct record r = {.type = RECORD_INDEX, .segment = no};
	uint8_t t[SEGMENT_TRAILER_SIZE];
	struct lc_buf b = {0};
	int rc = segment_index_encode((const struct record *)(const void *)o->index.p,
	                              o->index.n / sizeof r, &b);

	r.n = (uint32_t)b.n;
	rc = rc != 0 ? no_memory(e) : put_record(o, &r, b.p, e);
	lc_buf_free(&b);
	segment_trailer_encode(no, r.off, o->size + sizeof t, t);
	rc = rc != 0 ? rc : put(o, t, sizeof t, e);
	return rc != 0 ? rc : flush(o, e);
}

static int
put_all(struct segments *s, struct out *o, const struct segment_diet *d, struct lc_err *e)
{
	uint8_t *payload = lc_alloc(RECORD_PAYLOAD_MAX);
	size_t i;
	int rc = payload == NULL ? no_memory(e) : put_header(s, o, d, e);

	for (i = 0; rc == 0 && i < d->n; i++) {
		if (i == 1) /* a segment begins with KEYS */
			rc = put_stubs(o, d, e);
		if (rc != 0 || d->drop[i])
			continue;
		rc = segment_read(s, &d->records[i], payload, e);
		rc = rc != 0 ? rc : put_record(o, &d->records[i], payload, e);
	}
	lc_free(payload);
	return rc != 0 ? rc : put_end(o, d->seg->no, e);
}

static int
write_file(struct segments *s, const char *path, const struct segment_diet *d, struct lc_err *e)
{
	struct out o = {.path = path};
	int rc, fail;

	o.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	rc = o.fd < 0 ? lc_fail_errno(e, "%s", path) : put_all(s, &o, d, e);
	fail = failpoint("segment.thin.sync");
	errno = fail;
	if (rc == 0 && (fail != 0 || fdatasync(o.fd) != 0))
		rc = lc_fail_errno(e, "%s: sync", path);
	fd_close(&o.fd);
	lc_buf_free(&o.buf);
	lc_buf_free(&o.index);
	return rc;
}

int
segment_thin_write(struct segments *s, const struct segment_diet *d, struct lc_err *e)
{
	struct segment_info thin = {.no = d->seg->no, .sealed = true, .thin = true};
	char name[32], *to = path_join(s->dir, segment_file(name, &thin));
	char *made = to == NULL ? NULL : lc_asprintf("%s.new", to);
	int rc = made == NULL ? no_memory(e) : write_file(s, made, d, e);

	(void)failpoint("segment.thin.written");
	if (rc == 0 && rename(made, to) != 0)
		rc = lc_fail_errno(e, "%s: rename", made);
	if (rc != 0 && made != NULL)
		(void)unlink(made);
	(void)failpoint("segment.thin.renamed");
	rc = rc != 0 ? rc : dir_sync(s->dir, e);
	lc_free(made);
	lc_free(to);
	return rc;
}

int
segment_remove(struct segments *s, const struct segment_info *seg, struct lc_err *e)
{
	char name[32], *path = path_join(s->dir, segment_file(name, seg));
	int rc = 0;

	if (path == NULL)
		return no_memory(e);
	if (unlink(path) != 0 && errno != ENOENT)
		rc = lc_fail_errno(e, "%s", path);
	lc_free(path);
	segment_forget_fd(s, seg->no);
	(void)failpoint("segment.removed");
	return rc != 0 ? rc : dir_sync(s->dir, e);
}

void
segment_thin_tidy(struct segments *s)
{
	DIR *d = opendir(s->dir);
	const struct dirent *ent;
	int rc = 0;

	while (d != NULL && (ent = dir_next(d, s->dir, &rc, NULL)) != NULL) {
		size_t n = strlen(ent->d_name);

		if (n == 16 + strlen(MAKING) && strcmp(ent->d_name + 16, MAKING) == 0)
			(void)unlinkat(dirfd(d), ent->d_name, 0);
	}
	if (d != NULL)
		(void)closedir(d);
}

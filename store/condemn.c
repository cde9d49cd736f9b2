/*
 * What scrub has found bad is put down in the log: chunks, to be stored again; of maps and commits
 * the lines, whose next points stand by themselves.
 */
#include <fcntl.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/commit.h"
#include "store/segment_internal.h"
#include "store/store_internal.h"

bool
condemn_line(struct store *s, const struct damage *d, uint8_t line[16])
{
	char name[32];
	int fd = segment_open_fd(s->segments, d->segment, O_RDONLY, name, NULL);
	bool read;

	if (fd < 0)
		return false;
	read = file_pread_full(fd, line, 16, d->offset + RECORD_HEADER_SIZE + 16, name, NULL) == 0;
	fd_close(&fd);
	return read;
}

struct condemning {
	struct store *s;
	struct lc_buf places;   /* u64 segment, u64 offset, as in the log */
	struct lc_buf chunks;   /* numbers, of one range */
	struct lc_buf lines;    /* that must restart for the place in hand */
	bool all;               /* these are all there are */
	struct lc_buf restarts; /* RESTART entries, each behind its length ... */
	unsigned nrestarts;     /* ... and how many */
	uint64_t explained;     /* bytes of the range that are chunks */
	uint8_t *payload;
	uint64_t n; /* chunks */
};

#define PLACE_SIZE 16u
#define LINES_MAX ((size_t)16 * 8192) /* bytes of those of one entry */
#define CONDEMN_MAX 20000u            /* places that fit one record, beside restarts */

static int build_damage(void *arg, struct lc_buf *payload, struct lc_err *e);

/* Puts down what was found so far. */
static int
put_down(struct condemning *c, struct lc_err *e)
{
	int rc = store_commit(c->s, build_damage, c, e);

	c->places.n = 0;
	c->restarts.n = 0;
	c->nrestarts = 0;
	return rc;
}

static int
on_chunk(void *arg, uint64_t no, struct lc_err *e)
{
	return lc_buf_append(arg, &no, sizeof no) == 0 ? 0
	                                               : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
condemn_chunk(struct condemning *c, uint64_t no, struct lc_err *e)
{
	struct record r;
	int rc = catalog_chunk(c->s->catalog, no, &r, e);

	if (rc != 0 || r.segment == 0 || record_is_stub(&r))
		return rc;
	c->explained += record_size(r.n);
	rc = segment_read(c->s->segments, &r, c->payload, NULL);
	if (rc != LC_ECORRUPT && rc != LC_EIO)
		return 0;
	c->n++;
	rc = lc_wr64(&c->places, r.segment);
	rc = rc != 0 ? rc : lc_wr64(&c->places, r.off);
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
condemn_range(struct condemning *c, const struct damage *d, struct lc_err *e)
{
	uint64_t no, length = d->length == 0 ? (uint64_t)INT64_MAX : d->length;
	size_t i;
	int rc;

	c->chunks.n = 0;
	rc = catalog_chunks_at(c->s->catalog, d->segment, d->offset, length, on_chunk, &c->chunks,
	                       e);
	for (i = 0; rc == 0 && i < c->chunks.n / sizeof no; i++) {
		memcpy(&no, c->chunks.p + i * sizeof no, sizeof no);
		rc = condemn_chunk(c, no, e);
		if (rc == 0 && c->places.n / PLACE_SIZE == CONDEMN_MAX)
			rc = put_down(c, e);
	}
	return rc;
}

/* ---- state ---- */

static int
restart_line(void *arg, const uint8_t line[16], struct lc_err *e)
{
	struct condemning *c = arg;
	size_t i;

	for (i = 0; i < c->lines.n; i += 16) {
		if (memcmp(c->lines.p + i, line, 16) == 0)
			return 0;
	}
	return lc_buf_append(&c->lines, line, 16) == 0 ? 0
	                                               : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* Of all lines, each of which comes once. */
static int
take_line(void *arg, const uint8_t line[16], struct lc_err *e)
{
	struct condemning *c = arg;

	c->all = true;
	return lc_buf_append(&c->lines, line, 16) == 0 ? 0
	                                               : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
restart_fork(void *arg, const uint8_t line[16], uint64_t order, struct lc_err *e)
{
	(void)order;
	return restart_line(arg, line, e);
}

/* What began at a point of such a line builds upon the same records. */
static int
restart_forks(struct condemning *c, struct lc_err *e)
{
	uint8_t line[16];
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && !c->all && i < c->lines.n; i += 16) {
		memcpy(line, c->lines.p + i, 16);
		rc = catalog_each_fork(c->s->catalog, line, restart_fork, c, e);
	}
	return rc;
}

struct restart_commit {
	struct condemning *c;
	uint64_t seq;
};

static int
restart_of_commit(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct restart_commit *x = arg;

	return cp->order / COMMIT_ENTRIES_MAX == x->seq ? restart_line(x->c, cp->line, e) : 0;
}

static int
see_point(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	(void)cp;
	(void)e;
	*(bool *)arg = true;
	return 0;
}

/* What is lost of the log besides chunks: the lines that it may have been of. */
static int
restart_lines(struct condemning *c, const struct damage *d, struct lc_err *e)
{
	struct restart_commit x = {.c = c, .seq = d->seq};
	bool known = false;
	uint8_t line[16];
	int rc;

	switch (d->type) {
	case RECORD_COMMIT: /* of a point that was dropped since, perhaps: then of any line */
		rc = catalog_each_point(c->s->catalog, NULL, restart_of_commit, &x, e);
		return rc != 0 || c->lines.n > 0
		           ? rc
		           : catalog_each_line(c->s->catalog, take_line, c, e);
	case RECORD_MAP:
		if (condemn_line(c->s, d, line) &&
		    catalog_newest(c->s->catalog, line, see_point, &known, NULL) == 0 && known)
			return restart_line(c, line, e);
		return catalog_each_line(c->s->catalog, take_line, c, e);
	case 0: /* anything may have been in it */
		if (d->length > 0 && (d->offset == 0 || c->explained >= d->length))
			return 0; /* a file that is missing has no length */
		return catalog_each_line(c->s->catalog, take_line, c, e);
	default:
		return 0;
	}
}

static int
add_restart(struct condemning *c, const struct catalog_place *place, size_t from, size_t n,
            struct lc_err *e)
{
	int rc = 0;

	if (c->restarts.n > RECORD_PAYLOAD_MAX / 4 || c->nrestarts == COMMIT_ENTRIES_MAX / 2)
		rc = put_down(c, e);
	if (rc != 0)
		return rc;
	c->nrestarts++;
	rc = lc_wr64(&c->restarts, 16 + n);
	rc = rc != 0 ? rc : lc_wr64(&c->restarts, place->segment);
	rc = rc != 0 ? rc : lc_wr64(&c->restarts, place->off);
	if (rc == 0 && n > 0)
		rc = lc_buf_append(&c->restarts, c->lines.p + from, n);
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* Once for each place: the next points of the lines stand by themselves, and what comes after them
 * is sound. */
static int
restart_for(struct condemning *c, const struct damage *d, struct lc_err *e)
{
	struct catalog_place place = {.segment = d->segment, .off = d->offset};
	const struct catalog_place nowhere = {.segment = 0};
	size_t at = 0;
	int rc = catalog_restarted(c->s->catalog, &place, e);

	if (rc != LC_ENOENT)
		return rc;
	c->lines.n = 0;
	c->all = false;
	rc = restart_lines(c, d, e);
	rc = rc != 0 ? rc : restart_forks(c, e);
	/* Known chunks alone are put down as that, too: when they are stored elsewhere nothing says
	 * any more what was there. */
	if (rc != 0 || (c->lines.n == 0 && (d->type != 0 || c->explained == 0)))
		return rc;
	/* What is put down with the place is put down for good: that is the last of it. */
	for (; rc == 0 && c->lines.n - at > LINES_MAX; at += LINES_MAX)
		rc = add_restart(c, &nowhere, at, LINES_MAX, e);
	return rc != 0 ? rc : add_restart(c, &place, at, c->lines.n - at, e);
}

bool
condemn_settled(struct store *s, const struct damage *d)
{
	struct catalog_place place = {.segment = d->segment, .off = d->offset};
	struct condemning c = {.s = s};
	bool known = false, restarts = true;
	size_t i;
	int rc = catalog_restarted(s->catalog, &place, NULL);

	rc = rc != 0 ? rc : restart_lines(&c, d, NULL);
	rc = rc != 0 ? rc : restart_forks(&c, NULL);
	for (i = 0; rc == 0 && i < c.lines.n; i += 16) {
		known = false;
		rc = catalog_newest(s->catalog, c.lines.p + i, see_point, &known, NULL);
		rc = rc == LC_ENOENT ? 0 : rc;
		rc = rc != 0 ? rc : catalog_restarts(s->catalog, c.lines.p + i, &restarts, NULL);
		if (rc == 0 && known && restarts)
			rc = LC_EBUSY;
	}
	lc_buf_free(&c.lines);
	return rc == 0;
}

static int
build_damage(void *arg, struct lc_buf *payload, struct lc_err *e)
{
	const struct condemning *c = arg;
	struct lc_rd r = lc_rd_over(c->restarts.p, c->restarts.n);
	int rc;

	if (c->places.n == 0 && c->restarts.n == 0)
		return 0;
	rc = commit_start(payload, clock_wall_ns(), e);
	if (rc == 0 && c->places.n > 0)
		rc = commit_add(payload, COMMIT_DAMAGE, (struct lc_span){c->places.p, c->places.n},
		                e);
	while (rc == 0 && r.n > 0) {
		struct lc_span body = {.n = (size_t)lc_rd64(&r)};

		body.p = lc_rd_bytes(&r, body.n);
		rc = commit_add(payload, COMMIT_RESTART, body, e);
	}
	return rc;
}

int
store_condemn(struct store *s, const struct damage *list, size_t n, uint64_t *condemned,
              struct lc_err *e)
{
	struct condemning c = {.s = s, .payload = lc_alloc(RECORD_PAYLOAD_MAX)};
	size_t i;
	int rc = 0;

	if (c.payload == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; rc == 0 && i < n; i++) {
		c.explained = 0;
		if (list[i].segment == 0)
			continue;
		rc = condemn_range(&c, &list[i], e);
		rc = rc != 0 ? rc : restart_for(&c, &list[i], e);
	}
	rc = rc != 0 ? rc : put_down(&c, e);
	if (condemned != NULL)
		*condemned = c.n;
	lc_buf_free(&c.places);
	lc_buf_free(&c.chunks);
	lc_buf_free(&c.lines);
	lc_buf_free(&c.restarts);
	lc_free(c.payload);
	return rc;
}

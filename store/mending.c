/*
 * What is damaged in a store of what a writer sent, for that writer to send it again (transfer.h);
 * and who needs what it can't send.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/store_internal.h"
#include "store/transfer.h"

/* ---- deltas that are good again with their bases ---- */

#define LOOKS_MAX 16384u /* at ids, for one answer: each may cost reading its record */

/* 0: that number can be read.  Deltas alone: nothing else is missing for another reason than its
 * own bytes. */
static int
is_good_again(struct store *s, uint64_t no, uint8_t *buf, struct record *r)
{
	bool missing = true;
	int rc = catalog_chunk(s->catalog, no, r, NULL);

	if (rc != 0 || r->segment == 0 || record_is_stub(r) || !chunk_is_delta(r->encoding))
		return LC_ENOENT;
	rc = catalog_missing_base(s->catalog, no, &missing, NULL);
	if (rc != 0 || missing)
		return LC_ENOENT;
	r->seq = no;
	return segment_read(s->segments, r, buf, NULL);
}

/* *good: an id is missing no more. */
static int
look_again(struct store *s, uint16_t writer, const uint8_t *id, uint8_t *buf, bool *good,
           struct lc_err *e)
{
	struct lc_buf numbers = {0};
	struct record r;
	uint64_t no;
	size_t i;
	int rc = catalog_missing_of(s->catalog, writer, id, &numbers, e);

	*good = true;
	for (i = 0; rc == 0 && i < numbers.n; i += sizeof no) {
		memcpy(&no, numbers.p + i, sizeof no);
		if (is_good_again(s, no, buf, &r) == 0)
			rc = catalog_found(s->catalog, &r, e);
		else
			*good = false;
	}
	lc_buf_free(&numbers);
	return rc;
}

/* Of the ids that are to be told of; *looks: at so many more, the rest counts as bad. */
static int
leave_good_ones_out(struct store *s, uint16_t writer, struct lc_buf *ids, size_t *looks,
                    struct lc_err *e)
{
	uint8_t *buf = lc_alloc(RECORD_PAYLOAD_MAX);
	size_t i, n = 0;
	bool good = false;
	int rc = buf == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : 0;

	for (i = 0; rc == 0 && i < ids->n; i += CHUNK_ID_SIZE) {
		good = false;
		if (*looks > 0) {
			--*looks;
			rc = look_again(s, writer, ids->p + i, buf, &good, e);
		}
		if (rc == 0 && !good) {
			memmove(ids->p + n, ids->p + i, CHUNK_ID_SIZE);
			n += CHUNK_ID_SIZE;
		}
	}
	ids->n = n;
	lc_free(buf);
	return rc;
}

/* Until there is one to tell of: less than max means that there are no more. */
static int
next_missing(struct store *s, uint16_t writer, const uint8_t *above, size_t max, struct lc_buf *out,
             struct lc_err *e)
{
	uint8_t last[CHUNK_ID_SIZE];
	struct lc_buf ids = {0};
	size_t looks = LOOKS_MAX;
	bool more = true;
	int rc = 0;

	memcpy(last, above, sizeof last);
	while (rc == 0 && more && out->n < max * CHUNK_ID_SIZE) {
		ids.n = 0;
		rc = catalog_missing_above(s->catalog, writer, last, max - out->n / CHUNK_ID_SIZE,
		                           &ids, e);
		more = rc == 0 && ids.n > 0;
		if (more)
			memcpy(last, ids.p + ids.n - CHUNK_ID_SIZE, sizeof last);
		rc = rc != 0 ? rc : leave_good_ones_out(s, writer, &ids, &looks, e);
		if (rc == 0 && lc_buf_append(out, ids.p, ids.n) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	lc_buf_free(&ids);
	return rc;
}

/* ---- what is told ---- */

int
transfer_damage(struct store *s, uint16_t writer, const uint8_t above[CHUNK_ID_SIZE], size_t max,
                struct transfer_damage *out, struct lc_err *e)
{
	bool first = lc_is_zero(above, CHUNK_ID_SIZE);
	int rc = store_flush(s, e);

	rc = rc != 0 ? rc : next_missing(s, writer, above, max, &out->ids, e);
	out->contents = out->ids.n / CHUNK_ID_SIZE;
	if (rc == 0 && first && out->contents == max) /* there may be many: counted but once */
		rc = catalog_writer_missing(s->catalog, writer, &out->contents, e);
	if (rc == 0 && first)
		rc = catalog_writer_restarts(s->catalog, writer, max, &out->lines, e);
	return rc;
}

void
transfer_damage_free(struct transfer_damage *d)
{
	lc_buf_free(&d->ids);
	lc_buf_free(&d->lines);
}

struct line_point {
	uint8_t line[16], point[16];
};

static int
note_user(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	struct line_point x;

	memcpy(x.line, p->line, sizeof x.line);
	memcpy(x.point, p->id, sizeof x.point);
	return lc_buf_append(arg, &x, sizeof x) == 0 ? 0
	                                             : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
take_id(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)e;
	memcpy(arg, p->id, 16);
	return 0;
}

int
transfer_needs(struct store *s, uint64_t no, bool restart, char text[TRANSFER_NEEDS_MAX],
               struct lc_err *e)
{
	struct lc_buf users = {0};
	struct line_point x;
	uint8_t newest[16];
	size_t i;
	int rc = store_users(s, no, note_user, &users, text, TRANSFER_NEEDS_MAX, e);

	for (i = 0; rc == 0 && restart && i < users.n; i += sizeof x) {
		memcpy(&x, users.p + i, sizeof x);
		rc = catalog_newest(s->catalog, x.line, take_id, newest, e);
		if (rc == LC_ENOENT) { /* its points were dropped meanwhile */
			lc_err_clear(e);
			rc = 0;
		} else if (rc == 0 && memcmp(newest, x.point, sizeof newest) == 0) {
			rc = outgoing_restart(s, x.line, e);
		}
	}
	lc_buf_free(&users);
	return rc == LC_ENOENT ? 0 : rc;
}

struct going_on {
	const uint8_t *line;
	bool found;
};

static int
match_line(void *arg, const struct catalog_vm *vm, struct lc_err *e)
{
	struct going_on *g = arg;

	(void)e;
	g->found = g->found || memcmp(vm->line, g->line, 16) == 0;
	return 0;
}

int
transfer_goes_on(struct store *s, const uint8_t line[16], struct lc_err *e)
{
	struct going_on g = {.line = line};
	int rc = catalog_each_vm(s->catalog, match_line, &g, e);

	return rc != 0 || g.found ? rc : LC_ENOENT;
}

bool
transfer_owns(const struct store *s)
{
	return s->writable;
}

int
transfer_restarts(struct store *s, const uint8_t line[16], bool *is, struct lc_err *e)
{
	return catalog_restarts(s->catalog, line, is, e);
}

/*
 * From the log to the catalog, when a store is opened.
 *
 * Happy path: the catalog's position is the end of the log and nothing is to be done.  After a
 * crash the records beyond it are folded in and a torn tail is cut.  Without a (sound) catalog it
 * is made again: the indexes of the sealed segments tell where chunks, maps and commits lie; only
 * maps and commits are read, in order of sequence.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/failpoint.h"
#include "store/base/log.h"
#include "store/store_internal.h"
#include "store/transfer.h"

struct bad_bytes {
	uint64_t off, n;
	int type; /* of the record, 0 if that is not known */
};

struct replay {
	struct store *s;
	uint64_t segment;
	bool open_tail;      /* of an open segment that is not ours to cut: see note_bad */
	struct lc_buf later; /* struct bad_bytes[], while open_tail */
	struct catalog_position pos;
	uint64_t max_seq;
	struct lc_buf state; /* struct record[]: maps and commits, for replay_all */
	bool collect;        /* replay_all: state records are applied later */
	int rc;              /* of a callback that can't fail */
	struct lc_err err;
};

/* ---- damage ---- */

static const char *
kind_text(int type)
{
	switch (type) {
	case 0:
		return "";
	case RECORD_CHUNK:
		return " (a chunk)";
	case DAMAGE_MISSING:
		return " (the file is missing)";
	case DAMAGE_FOREIGN:
		return " (the file is of another store)";
	default:
		return " (a record of state)";
	}
}

static void
put_damage(struct replay *x, uint64_t off, uint64_t n, int type)
{
	char name[32];

	log_warn("store %s: damage in %s at offset %" PRIu64 ", %" PRIu64 " bytes%s", x->s->dir,
	         segment_called(x->s->segments, name, x->segment), off, n, kind_text(type));
	if (x->rc == 0)
		x->rc = catalog_put_damage(x->s->catalog, x->segment, off, n, type, &x->err);
}

static void
note_bad(void *arg, uint64_t off, uint64_t n, const struct record *r)
{
	struct replay *x = arg;
	struct bad_bytes b = {.off = off, .n = n, .type = r == NULL ? 0 : r->type};

	if (!x->open_tail)
		put_damage(x, off, n, b.type);
	else if (lc_buf_append(&x->later, &b, sizeof b) != 0 && x->rc == 0)
		x->rc = lc_fail(&x->err, LC_ENOMEM, 0, "store %s: out of memory", x->s->dir);
}

/* What is bad at the end of an open segment is only being written, or a tear. */
static void
put_later(struct replay *x, uint64_t committed)
{
	struct bad_bytes b;
	size_t i;

	for (i = 0; i < x->later.n / sizeof b; i++) {
		memcpy(&b, x->later.p + i * sizeof b, sizeof b);
		if (b.off < committed)
			put_damage(x, b.off, b.n, b.type);
	}
	x->later.n = 0;
	x->open_tail = false;
}

/* ---- records ---- */

static void
passed(struct replay *x, const struct record *r)
{
	if (record_last_seq(r) > x->max_seq)
		x->max_seq = record_last_seq(r);
	x->pos.segment = r->segment;
	x->pos.off = r->off + record_size(r->n);
	x->pos.last_off = r->off;
	x->pos.last_seq = x->max_seq;
}

/* A record that is whole but makes no sense is damage too; anything else ends the replay. */
static int
apply(struct replay *x, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	int rc = fold_record(x->s->fold, r, payload, &err);

	if (rc == LC_ECORRUPT) {
		log_warn("store %s: segment %016" PRIx64 ", offset %" PRIu64 ": %s", x->s->dir,
		         r->segment, r->off, err.msg);
		put_damage(x, r->off, record_size(r->n), r->type);
		return 0;
	}
	if (rc != 0 && e != NULL)
		*e = err;
	return rc;
}

static int
on_record(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct replay *x = arg;
	int rc = 0;

	if (x->collect && (r->type == RECORD_MAP || r->type == RECORD_COMMIT ||
	                   r->type == RECORD_STUBS || r->type == RECORD_VOUCH)) {
		if (lc_buf_append(&x->state, r, sizeof *r) != 0)
			return lc_fail(e, LC_ENOMEM, 0, "store %s: out of memory", x->s->dir);
	} else if (x->collect && r->type == RECORD_CHUNK) {
		rc = apply(x, r, (struct lc_span){0}, e); /* see find_bases() */
	} else {
		rc = apply(x, r, payload, e);
	}
	rc = rc != 0 ? rc : catalog_add_bytes(x->s->catalog, r->writer, record_size(r->n), e);
	passed(x, r);
	return rc;
}

static int
on_index(void *arg, const struct record *r, struct lc_err *e)
{
	return on_record(arg, r, (struct lc_span){0}, e);
}

/* ---- segments ---- */

/* The one in hand, which may be the last of the log. */
struct part {
	const struct segment_info *seg;
	uint64_t from;
	bool last;
};

static int
read_part(struct replay *x, const struct part *p, struct lc_err *e)
{
	struct segment_scan scan = {.on_record = on_record, .on_bad = note_bad, .arg = x};
	struct segments *segs = x->s->segments;
	struct segment_extent extent;
	struct lc_err index_err = LC_ERR_INIT;
	int rc;

	if (!p->seg->sealed && x->s->writable)
		return segments_adopt(segs, p->seg, p->from, p->last, &scan, e);
	if (!p->seg->sealed) {
		x->open_tail = true;
		rc = segment_scan(segs, p->seg, p->from, &scan, &extent, e);
		put_later(x, rc == 0 ? extent.committed : 0);
		return rc;
	}
	if (!x->collect)
		return segment_scan(segs, p->seg, p->from, &scan, NULL, e);
	rc = segment_index(segs, p->seg, on_index, x, &index_err);
	if (rc == LC_ECORRUPT || rc == LC_EIO) {
		log_warn("store %s: %s; reading the whole segment", x->s->dir, index_err.msg);
		return segment_scan(segs, p->seg, 0, &scan, NULL, e);
	}
	if (rc != 0 && e != NULL)
		*e = index_err;
	return rc;
}

/* One segment in one transaction.  Its position counts only where the catalog is complete up to
 * it. */
static int
replay_part(struct replay *x, const struct part *p, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	int rc;

	x->segment = p->seg->no;
	rc = catalog_begin(x->s->catalog, e);
	if (rc != 0)
		return rc;
	rc = read_part(x, p, &err);
	if (rc == LC_ECONFLICT) {
		log_warn("%s: it is left alone", err.msg);
		put_damage(x, 0, p->seg->bytes, DAMAGE_FOREIGN);
		rc = 0;
	} else if (rc != 0 && e != NULL) {
		*e = err;
	}
	if (rc == 0 && x->rc != 0) {
		rc = x->rc;
		if (e != NULL)
			*e = x->err;
	}
	if (rc == 0 && p->seg->thin)
		rc = catalog_put_thin(x->s->catalog, p->seg->no, e);
	if (rc == 0 && !x->collect)
		rc = catalog_set_position(x->s->catalog, &x->pos, e);
	if (rc != 0) {
		catalog_rollback(x->s->catalog);
		return rc;
	}
	return catalog_commit(x->s->catalog, e);
}

/* ---- getting ready to append ---- */

static int
resume(struct store *s, uint64_t next_seq, struct lc_err *e)
{
	struct lc_buf keys = {0};
	int rc;

	if (!s->writable)
		return 0;
	rc = transfer_keys(s, &keys, e);
	rc = rc != 0 ? rc
	             : segments_resume(s->segments, (struct lc_span){keys.p, keys.n}, next_seq, e);
	lc_buf_free(&keys);
	rc = rc != 0 ? rc : catalog_begin(s->catalog, e);
	if (rc != 0)
		return rc;
	rc = catalog_purge(s->catalog, e); /* what a dead owner was making */
	if (rc != 0) {
		catalog_rollback(s->catalog);
		return rc;
	}
	return catalog_commit(s->catalog, e);
}

int
replay_tail(struct store *s, struct lc_err *e)
{
	struct replay x = {.s = s};
	struct segment_info *list;
	struct part p;
	size_t n, i;
	int rc;

	rc = catalog_position(s->catalog, &x.pos, e);
	rc = rc != 0 ? rc : segments_list(s->segments, &list, &n, e);
	if (rc != 0)
		return rc;
	x.max_seq = x.pos.last_seq;
	for (i = 0; rc == 0 && i < n; i++) {
		struct catalog_position before = x.pos;

		p = (struct part){.seg = &list[i], .last = i + 1 == n};
		if (list[i].no == before.segment)
			p.from = before.off;
		else if (list[i].no < before.segment)
			p.from = UINT64_MAX; /* known: only to be sealed, if it was left open */
		if (list[i].sealed && (list[i].no < before.segment || list[i].bytes <= p.from))
			continue;
		rc = replay_part(&x, &p, e);
		if (list[i].no < before.segment)
			x.pos = before;
	}
	lc_free(list);
	lc_buf_free(&x.later);
	return rc != 0 ? rc : resume(s, x.max_seq + 1, e);
}

/* ---- from nothing ---- */

static int
by_seq(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int
apply_one_state(struct replay *x, const struct record *r, uint8_t *payload, bool *good,
                struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	int rc = segment_read(x->s->segments, r, payload, &err);

	x->segment = r->segment;
	*good = rc == 0;
	if (rc == 0)
		return apply(x, r, (struct lc_span){payload, r->n}, e);
	if (rc == LC_ECORRUPT || rc == LC_EIO) {
		put_damage(x, r->off, record_size(r->n), r->type);
		return 0;
	}
	if (e != NULL)
		*e = err;
	return rc;
}

static bool
tells_of_chunks(const struct record *r)
{
	return r->type == RECORD_STUBS || r->type == RECORD_VOUCH;
}

/* What tells of chunks, or the rest of the state (maps and commits), in the order in which it was
 * written, each sequence once. */
static int
apply_state(struct replay *x, bool of_chunks, struct lc_err *e)
{
	const struct record *list = (struct record *)(void *)x->state.p;
	size_t i, n = x->state.n / sizeof *list;
	uint8_t *payload = lc_alloc(RECORD_PAYLOAD_MAX);
	bool good = false; /* a copy of the record in hand was */
	int rc = 0;

	if (payload == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "store %s: out of memory", x->s->dir);
	for (i = 0; rc == 0 && i < n; i++) {
		if (tells_of_chunks(&list[i]) == of_chunks &&
		    (i == 0 || list[i].seq != list[i - 1].seq || !good))
			rc = apply_one_state(x, &list[i], payload, &good, e);
	}
	lc_free(payload);
	if (rc == 0 && x->rc != 0) {
		rc = x->rc;
		if (e != NULL)
			*e = x->err;
	}
	return rc;
}

/* Indexes do not say what deltas are made upon; that is read when all chunks are known. */
static int
find_bases(struct replay *x, struct lc_err *e)
{
	uint8_t *payload = lc_alloc(RECORD_PAYLOAD_MAX);
	struct record r;
	uint64_t no = 0;
	int rc = 0;

	if (payload == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "store %s: out of memory", x->s->dir);
	while (rc == 0 && (rc = catalog_next_delta(x->s->catalog, no, &no, e)) == 0) {
		bool good;

		rc = catalog_chunk(x->s->catalog, no, &r, e);
		if (rc == 0 && !record_is_stub(&r))
			rc = apply_one_state(x, &r, payload, &good, e);
	}
	lc_free(payload);
	return rc == LC_ENOENT ? 0 : rc;
}

/*
 * What was collected, after the chunks: which of them are elsewhere, or another writer's, too; what
 * deltas are made upon, which may be one of those; maps and commits; the position.
 */
static int
apply_collected(struct replay *x, struct lc_err *e)
{
	struct store *s = x->s;
	int rc = catalog_begin(s->catalog, e);

	if (rc != 0)
		return rc;
	if (x->state.n > 0)
		qsort(x->state.p, x->state.n / sizeof(struct record), sizeof(struct record),
		      by_seq);
	rc = apply_state(x, true, e);
	rc = rc != 0 ? rc : find_bases(x, e);
	rc = rc != 0 ? rc : apply_state(x, false, e);
	/* Chunks came before the commits that condemn some of them. */
	rc = rc != 0 || !s->fold->missing ? rc : catalog_heal_all(s->catalog, e);
	rc = rc != 0 ? rc : catalog_set_position(s->catalog, &x->pos, e);
	if (rc != 0) {
		catalog_rollback(s->catalog);
		return rc;
	}
	return catalog_commit(s->catalog, e);
}

static int
age_line(void *arg, const uint8_t line[16], struct lc_err *e)
{
	struct store *s = arg;
	int rc;

	do
		rc = catalog_age(s->catalog, line, RECENT_KEEP, e);
	while (rc > 0);
	return rc;
}

/* Segments are numbered from 1 without a gap. */
static void
note_gap(struct replay *x, uint64_t before, uint64_t no)
{
	for (x->segment = before + 1; x->segment < no && x->segment - before < 1000; x->segment++)
		put_damage(x, 0, 0, DAMAGE_MISSING);
}

int
replay_all(struct store *s, struct lc_err *e)
{
	struct replay x = {.s = s, .collect = true};
	struct segment_info *list;
	size_t n, i;
	int rc = segments_list(s->segments, &list, &n, e);

	if (rc != 0)
		return rc;
	for (i = 0; rc == 0 && i < n; i++) {
		struct part p = {.seg = &list[i], .last = i + 1 == n};

		note_gap(&x, i == 0 ? 0 : list[i - 1].no, list[i].no);
		rc = replay_part(&x, &p, e);
		if (rc == 0)
			store_flush_index(s, x.max_seq);
		(void)failpoint("replay.segment");
	}
	lc_free(list);
	if (rc == 0 && x.pos.segment == 0)
		rc = lc_fail(e, LC_ECORRUPT, 0,
		             "store %s: not one good record in its %zu segments: its data is gone",
		             s->dir, n);
	rc = rc != 0 ? rc : apply_collected(&x, e);
	(void)failpoint("replay.state");
	rc = rc != 0 ? rc : catalog_each_line(s->catalog, age_line, s, e);
	lc_buf_free(&x.state);
	lc_buf_free(&x.later);
	return rc != 0 ? rc : resume(s, x.max_seq + 1, e);
}

/* ---- is the catalog one of this log, and how far is it? ---- */

static int
found_commit(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	(void)payload;
	(void)e;
	if (r->type == RECORD_COMMIT)
		*(bool *)arg = true;
	return 0;
}

int
replay_behind(struct store *s, bool *behind, struct lc_err *e)
{
	struct segment_scan scan = {.on_record = found_commit, .arg = behind};
	struct catalog_position pos;
	struct segment_info *list;
	size_t n, i;
	int rc;

	*behind = false;
	rc = catalog_position(s->catalog, &pos, e);
	rc = rc != 0 ? rc : segments_list(s->segments, &list, &n, e);
	if (rc != 0)
		return rc;
	rc = thin_behind(s, list, n, behind, e);
	for (i = 0; rc == 0 && i < n && !*behind; i++) {
		if (list[i].no < pos.segment ||
		    (list[i].no == pos.segment && list[i].bytes <= pos.off))
			continue;
		rc = segment_scan(s->segments, &list[i], list[i].no == pos.segment ? pos.off : 0,
		                  &scan, NULL, e);
	}
	lc_free(list);
	return rc;
}

struct anchors { /* records that the catalog says are there */
	struct store *s;
	unsigned same, other;
};

static void
try_anchor(void *arg, const struct record *want)
{
	struct anchors *a = arg;
	struct record r;

	switch (segment_peek(a->s->segments, want->segment, want->off, &r)) {
	case RECORD_GOOD:
		if (r.type == RECORD_CHUNK && r.n == want->n && r.seq >= want->seq)
			a->same++;
		else
			a->other++;
		break;
	case RECORD_NEWER:
	case RECORD_BAD:
		break;
	}
}

int
replay_position_ok(struct store *s, bool *ok, struct lc_err *e)
{
	struct anchors a = {.s = s};
	struct catalog_position pos;
	struct segment_info *list;
	struct record r;
	bool whole = false;
	size_t n, i;
	int rc;

	*ok = false;
	rc = catalog_position(s->catalog, &pos, e);
	if (rc != 0 || pos.segment == 0)
		return rc;
	rc = segments_list(s->segments, &list, &n, e);
	if (rc != 0)
		return rc;
	for (i = 0; i < n; i++)
		whole = whole || (list[i].no == pos.segment && list[i].bytes >= pos.off);
	lc_free(list);
	if (!whole)
		return 0;
	switch (segment_peek(s->segments, pos.segment, pos.last_off, &r)) {
	case RECORD_NEWER: /* scanning says so */
	case RECORD_GOOD:
		*ok = r.off + record_size(r.n) == pos.off &&
		      (r.type == RECORD_INDEX || record_last_seq(&r) == pos.last_seq);
		return 0;
	case RECORD_BAD:
		break;
	}
	/* Damaged since: then the catalog knows what the log no longer says, and is worth keeping,
	 * if it is of this log.  Its newest chunks tell. */
	rc = catalog_last_chunks(s->catalog, 8, try_anchor, &a, e);
	*ok = rc == 0 && a.same > 0 && a.other == 0;
	return rc;
}

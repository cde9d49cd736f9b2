/*
 * Keyless check of every record: headers, checksums, indexes of sealed segments, files that are
 * missing.  What is bad is named with the VMs, disks and points that need it; so is what the
 * catalog knows to be lost.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/commit.h"
#include "store/segment_internal.h"
#include "store/store_internal.h"

#define MISSING_SHOWN 1000u /* chunks; each costs a reading of the map */

struct scrub {
	struct store *s;
	const struct segment_info *seg;
	bool index_bad;
	struct lc_buf tail; /* struct tail_bad[]: of an open segment, until its end is known */
	uint64_t records, bytes, bad;
	void (*on_damage)(void *arg, const struct damage *d);
	void *arg;
};

struct tail_bad {
	uint64_t off, n;
	struct record r;
	bool have_r;
};

/* ---- who needs it ---- */

struct affected {
	struct store *s;
	struct lc_buf ids; /* of the points, each once */
	int64_t newest_ns;
	char first[160];
	bool others; /* disks than that one */
};

static bool
is_noted(const struct affected *a, const uint8_t id[16])
{
	size_t i;

	for (i = 0; i < a->ids.n; i += 16) {
		if (memcmp(a->ids.p + i, id, 16) == 0)
			return true;
	}
	return false;
}

/* i: the disk; p->ndisks for the whole point. */
static void
name_user(struct affected *a, const struct point *p, size_t i)
{
	char hex[33], name[sizeof a->first] = "";

	if (p->source_ns > a->newest_ns)
		a->newest_ns = p->source_ns;
	(void)snprintf(name, sizeof name, "%s", p->opened ? p->vm : lc_hex(hex, p->vm_id, 4));
	if (i < p->ndisks)
		(void)snprintf(name + strlen(name), sizeof name - strlen(name), "/%s",
		               p->opened ? p->disks[i].name : "?");
	if (a->first[0] == '\0')
		memcpy(a->first, name, sizeof a->first);
	else
		a->others = a->others || strcmp(a->first, name) != 0;
}

/* disk: NULL for the whole point.  The map goes on knowing of disks that a VM has no more. */
static int
on_user(void *arg, const uint8_t *disk, const struct catalog_point *cp, struct lc_err *e)
{
	struct affected *a = arg;
	struct point *p;
	size_t i = 0;
	bool has = true;

	if ((cp->flags & POINT_SEED) != 0 || is_noted(a, cp->id))
		return 0;
	p = lc_alloc(sizeof *p);
	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (store_point_of(a->s, cp, p, NULL) == 0) {
		while (i < p->ndisks && (disk == NULL || memcmp(p->disks[i].id, disk, 16) != 0))
			i++;
		has = disk == NULL || i < p->ndisks;
		if (has)
			name_user(a, p, i);
		point_done(p);
	}
	lc_free(p);
	return !has || lc_buf_append(&a->ids, cp->id, 16) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static void
describe(struct affected *a, struct damage *d, const char *why)
{
	uint64_t n = a->ids.n / 16;
	char when[32];

	if (n == 0)
		(void)snprintf(d->affects, sizeof d->affects, "no kept restore point");
	else
		(void)snprintf(d->affects, sizeof d->affects,
		               "%s%s in %" PRIu64 " restore point%s, the newest of %s%s", a->first,
		               a->others ? " and others" : "", n, n == 1 ? "" : "s",
		               clock_format(when, sizeof when, a->newest_ns), why);
	lc_buf_free(&a->ids);
}

static void
say_unknown(struct damage *d)
{
	(void)snprintf(d->affects, sizeof d->affects, "not known: the catalog fails");
}

struct users {
	struct affected a;
	int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e);
	void *arg;
};

static int
on_each_user(void *arg, const uint8_t *disk, const struct catalog_point *cp, struct lc_err *e)
{
	struct users *u = arg;
	int rc = on_user(&u->a, disk, cp, e);

	return rc != 0 || !is_noted(&u->a, cp->id) ? rc : u->on(u->arg, cp, e);
}

int
store_users(struct store *s, uint64_t no,
            int (*on)(void *arg, const struct catalog_point *p, struct lc_err *e), void *arg,
            char *text, size_t n, struct lc_err *e)
{
	struct users u = {.a = {.s = s}, .on = on, .arg = arg};
	struct damage d = {0};
	int rc = catalog_users(s->catalog, no, on_each_user, &u, e);

	describe(&u.a, &d, "");
	(void)snprintf(text, n, "%s", d.affects);
	return rc;
}

static int
on_chunk(void *arg, uint64_t no, struct lc_err *e)
{
	(void)e;
	return lc_buf_append(arg, &no, sizeof no);
}

/* Where the catalog was made again it never knew a bad record; then only that nothing at all is
 * missing tells. */
static bool
is_mended(struct store *s, uint64_t seq)
{
	struct record r;
	bool any = true;

	return catalog_chunk(s->catalog, seq, &r, NULL) == 0 ||
	       (catalog_any_missing(s->catalog, &any, NULL) == 0 && !any);
}

static void
chunks_affect(struct scrub *x, struct damage *d)
{
	struct affected a = {.s = x->s};
	struct lc_buf chunks = {0};
	uint64_t no;
	size_t i;
	int rc;

	rc = catalog_chunks_at(x->s->catalog, x->seg->no, d->offset, d->length, on_chunk, &chunks,
	                       NULL);
	for (i = 0; rc == 0 && i < chunks.n / sizeof no; i++) {
		memcpy(&no, chunks.p + i * sizeof no, sizeof no);
		rc = catalog_users(x->s->catalog, no, on_user, &a, NULL);
	}
	if (rc == 0 && chunks.n == 0)
		d->mended = d->type == RECORD_CHUNK ? is_mended(x->s, d->seq)
		                                    : d->length > 0 && condemn_settled(x->s, d);
	lc_buf_free(&chunks);
	describe(&a, d, "");
	if (d->mended)
		(void)snprintf(d->affects, sizeof d->affects,
		               "no restore point: what was there was stored again since");
	if (rc != 0)
		say_unknown(d);
}

/* The catalog knows what the record said, as long as it is there. */
static const char only_catalog[] = "; only the catalog still knows: do not delete it";

struct since {
	struct affected *a;
	uint64_t from, end; /* order of points */
};

static int
point_since(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct since *o = arg;

	if (cp->order < o->from || cp->order >= o->end || (cp->flags & POINT_MAP_DAMAGED) != 0)
		return 0;
	/* One that stands by itself needs nothing of before; but what is damaged may be its own. */
	if ((cp->flags & POINT_FRESH) != 0 && o->a->ids.n > 0) {
		o->end = cp->order;
		return 0;
	}
	return on_user(o->a, NULL, cp, e);
}

/* So would lines that began at one of those. */
static int
fork_since(void *arg, const uint8_t line[16], uint64_t order, struct lc_err *e)
{
	struct since *o = arg, on_it = {.a = o->a, .from = order + 1, .end = UINT64_MAX};
	int rc;

	if (order < o->from || order >= o->end)
		return 0;
	rc = catalog_each_point(o->a->s->catalog, line, point_since, &on_it, e);
	/* Its own forks come later: so this ends, also where a log says that lines began in a
	 * circle. */
	return rc != 0 ? rc : catalog_each_fork(o->a->s->catalog, line, fork_since, &on_it, e);
}

/* Without the catalog, every point of the line from that one on would lack it, up to one that
 * stands by itself. */
static void
map_affects(struct scrub *x, struct damage *d)
{
	struct affected a = {.s = x->s};
	struct since o = {.a = &a, .from = d->seq * COMMIT_ENTRIES_MAX, .end = UINT64_MAX};
	uint8_t line[16];
	int rc = 0;

	if (condemn_line(x->s, d, line)) {
		rc = catalog_each_point(x->s->catalog, line, point_since, &o, NULL);
		rc = rc != 0 ? rc : catalog_each_fork(x->s->catalog, line, fork_since, &o, NULL);
	}
	describe(&a, d, only_catalog);
	if (rc != 0)
		say_unknown(d);
	d->mended = condemn_settled(x->s, d);
}

static void
commit_affects(struct scrub *x, struct damage *d)
{
	struct affected a = {.s = x->s};
	struct since o = {
	    .a = &a, .from = d->seq * COMMIT_ENTRIES_MAX, .end = (d->seq + 1) * COMMIT_ENTRIES_MAX};
	int rc = catalog_each_point(x->s->catalog, NULL, point_since, &o, NULL);

	d->mended = condemn_settled(x->s, d);
	if (rc != 0) {
		lc_buf_free(&a.ids);
		say_unknown(d);
		return;
	}
	if (a.ids.n > 0) {
		describe(&a, d, only_catalog);
		return;
	}
	(void)snprintf(d->affects, sizeof d->affects,
	               "points that came soon after it, should the catalog have to be made again");
}

static void
who_needs(struct scrub *x, const struct record *r, struct damage *d)
{
	switch (r == NULL ? RECORD_CHUNK : r->type) {
	case RECORD_KEYS:
	case RECORD_INDEX:
		(void)snprintf(d->affects, sizeof d->affects,
		               "no restore point: there are others of the kind");
		break;
	case RECORD_MAP:
		map_affects(x, d);
		break;
	case RECORD_COMMIT:
		commit_affects(x, d);
		break;
	default:
		if (d->offset == 0)
			(void)snprintf(d->affects, sizeof d->affects,
			               "no restore point: every segment says the same");
		else
			chunks_affect(x, d);
		break;
	}
}

/* ---- records ---- */

static const char *
kind_of(const struct record *r, uint64_t off)
{
	switch (r == NULL ? 0 : r->type) {
	case RECORD_KEYS:
		return "keys";
	case RECORD_CHUNK:
		return "chunk";
	case RECORD_MAP:
		return "map";
	case RECORD_COMMIT:
		return "commit";
	case RECORD_INDEX:
		return "index";
	case RECORD_STUBS:
		return "stubs";
	default:
		return off == 0 ? "segment header" : "unknown";
	}
}

static void
tell(struct scrub *x, const struct damage *d)
{
	x->bad += !d->mended;
	if (x->on_damage != NULL)
		x->on_damage(x->arg, d);
}

static void
report(struct scrub *x, uint64_t off, uint64_t n, const struct record *r)
{
	struct damage d = {.segment = x->seg->no, .offset = off, .length = n};
	char name[32];

	if (r != NULL) {
		d.type = r->type;
		d.seq = r->seq;
	}

	(void)snprintf(d.file, sizeof d.file, "segments/%s", segment_file(name, x->seg));
	(void)snprintf(d.what, sizeof d.what, "%s", kind_of(r, off));
	who_needs(x, r, &d);
	tell(x, &d);
}

static void
report_file(struct scrub *x, uint64_t no, const char *what)
{
	const struct segment_info *in_hand = x->seg;
	struct segment_info seg = {.no = no, .sealed = true};
	struct damage d = {0};
	char name[32];

	x->seg = &seg;
	(void)snprintf(d.file, sizeof d.file, "segments/%s", segment_name(name, no, true));
	(void)snprintf(d.what, sizeof d.what, "%s", what);
	d.segment = no;
	d.length = INT64_MAX;
	chunks_affect(x, &d);
	d.length = 0;
	tell(x, &d);
	x->seg = in_hand;
}

static void
on_bad(void *arg, uint64_t off, uint64_t n, const struct record *r)
{
	struct scrub *x = arg;
	struct tail_bad t;

	if (r != NULL && r->type == RECORD_INDEX)
		x->index_bad = true;
	if (x->seg->sealed) {
		report(x, off, n, r);
		return;
	}
	memset(&t, 0, sizeof t);
	t.off = off;
	t.n = n;
	if (r != NULL) {
		t.r = *r;
		t.have_r = true;
	}
	(void)lc_buf_append(&x->tail, &t, sizeof t);
}

/* What is bad at the very end of an open segment is being written by its owner, or the next owner
 * cuts it. */
static void
report_tail(struct scrub *x, uint64_t good)
{
	struct tail_bad t;
	size_t i;

	for (i = 0; i < x->tail.n / sizeof t; i++) {
		memcpy(&t, x->tail.p + i * sizeof t, sizeof t);
		if (t.off < good || (t.have_r && t.r.type == RECORD_COMMIT))
			report(x, t.off, t.n, t.have_r ? &t.r : NULL);
	}
	x->tail.n = 0;
}

static int
on_record(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct scrub *x = arg;

	(void)payload;
	(void)e;
	x->records++;
	x->bytes += record_size(r->n);
	return 0;
}

static int
ignore_entry(void *arg, const struct record *r, struct lc_err *e)
{
	(void)arg;
	(void)r;
	(void)e;
	return 0;
}

static int
scrub_segment(struct scrub *x, struct lc_err *e)
{
	struct segment_scan scan = {.on_record = on_record, .on_bad = on_bad, .arg = x};
	struct record trailer = {.type = RECORD_INDEX};
	struct segments *segs = x->s->segments;
	struct catalog_position pos;
	struct segment_extent extent;
	struct lc_err err = LC_ERR_INIT;
	int rc;

	x->index_bad = false;
	rc = segment_scan(segs, x->seg, 0, &scan, &extent, &err);
	if (rc == LC_ECONFLICT) {
		report_file(x, x->seg->no, "of another store");
		return 0;
	}
	if (rc != 0) {
		if (e != NULL)
			*e = err;
		return rc;
	}
	/* What the catalog took in was durable. */
	if (catalog_position(x->s->catalog, &pos, NULL) == 0 && pos.segment == x->seg->no &&
	    pos.off > extent.good)
		extent.good = pos.off;
	report_tail(x, extent.good);
	if (x->seg->sealed && !x->index_bad &&
	    segment_index(segs, x->seg, ignore_entry, NULL, NULL) != 0)
		report(x,
		       x->seg->bytes < SEGMENT_TRAILER_SIZE ? 0
		                                            : x->seg->bytes - SEGMENT_TRAILER_SIZE,
		       SEGMENT_TRAILER_SIZE, &trailer);
	return 0;
}

/* ---- what the catalog knows to be lost ---- */

static int
report_missing(void *arg, uint64_t no, const uint8_t id[32])
{
	struct scrub *x = arg;
	struct affected a = {.s = x->s};
	struct damage d = {0};
	char hex[17];
	int rc;

	(void)snprintf(d.file, sizeof d.file, "chunk %s", lc_hex(hex, id, 8));
	(void)snprintf(d.what, sizeof d.what, "lost chunk");
	rc = catalog_users(x->s->catalog, no, on_user, &a, NULL);
	describe(&a, &d, "");
	if (rc != 0)
		say_unknown(&d);
	tell(x, &d);
	return x->bad < MISSING_SHOWN ? 0 : LC_ECANCELED;
}

static int
report_damaged(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct scrub *x = arg;
	struct affected a = {.s = x->s};
	struct damage d = {0};
	char hex[33];

	if ((cp->flags & POINT_MAP_DAMAGED) == 0 || (cp->flags & POINT_SEED) != 0)
		return 0;
	(void)snprintf(d.file, sizeof d.file, "point %s", lc_hex(hex, cp->id, 16));
	(void)snprintf(d.what, sizeof d.what, "damaged map");
	(void)on_user(&a, NULL, cp, e);
	describe(&a, &d, "");
	tell(x, &d);
	return 0;
}

int
store_scrub(struct store *s, void (*on_damage)(void *arg, const struct damage *d), void *arg,
            uint64_t *records, uint64_t *bytes, struct lc_err *e)
{
	struct scrub x = {.s = s, .on_damage = on_damage, .arg = arg};
	struct segment_info *list;
	uint64_t no = 1;
	size_t n, i;
	int rc = s->writable ? store_flush(s, e) : 0;

	rc = rc != 0 ? rc : segments_list(s->segments, &list, &n, e);
	if (rc != 0)
		return rc;
	for (i = 0; rc == 0 && i < n; i++, no++) {
		for (; no < list[i].no && x.bad < MISSING_SHOWN; no++)
			report_file(&x, no, "missing file");
		no = list[i].no;
		x.seg = &list[i];
		rc = scrub_segment(&x, e);
	}
	lc_free(list);
	lc_buf_free(&x.tail);
	rc = rc != 0 ? rc : catalog_each_missing(s->catalog, report_missing, &x, e);
	rc = rc == LC_ECANCELED ? 0 : rc; /* enough were shown */
	rc = rc != 0 ? rc : catalog_each_point(s->catalog, NULL, report_damaged, &x, e);
	if (records != NULL)
		*records = x.records;
	if (bytes != NULL)
		*bytes = x.bytes;
	if (rc == 0 && x.bad > 0)
		rc = lc_fail(e, LC_ECORRUPT, 0, "store %s: %" PRIu64 " damaged place%s", s->dir,
		             x.bad, x.bad == 1 ? "" : "s");
	return rc;
}

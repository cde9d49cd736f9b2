#include <inttypes.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/commit.h"
#include "store/fold.h"
#include "store/point.h"
#include "store/seal.h"
#include "store/stubs.h"
#include "store/thin.h"
#include "store/vouch.h"

void
fold_key(uint16_t writer, const uint8_t id[32], uint8_t key[32])
{
	if (writer == 0)
		memcpy(key, id, 32);
	else
		seal_mix(writer, id, key);
}

/* Whether an id of a writer has no bytes.  A condemned one has some, and is to be stored again all
 * the same. */
static int
is_missing(struct fold *f, uint16_t writer, const uint8_t id[32], bool *is, struct lc_err *e)
{
	uint64_t hole;
	int rc = f->missing ? catalog_missing(f->catalog, writer, id, false, &hole, e) : LC_ENOENT;

	*is = rc == 0;
	return rc == LC_ENOENT ? 0 : rc;
}

/* A chunk that the writer itself has sent, or one that it vouched for a moment ago: the index in
 * memory knows both. */
static int
find_own(struct fold *f, uint16_t writer, const uint8_t id[32], uint64_t *no, struct lc_err *e)
{
	enum idindex_hit hit;
	struct record r;
	uint8_t key[32];
	bool missing;
	int rc;

	fold_key(writer, id, key);
	hit = idindex_find(f->index, key, no);
	if (hit == IDINDEX_NEW)
		return LC_ENOENT;
	if (hit == IDINDEX_FOUND && !f->missing)
		return 0;
	r.writer = writer;
	rc = catalog_chunk(f->catalog, *no, &r, NULL);
	if (rc != 0 && rc != LC_ENOENT)
		return lc_fail(e, (enum lc_code)rc, 0, "catalog: cannot look up a chunk");
	if (rc == 0 && (r.segment == 0 || memcmp(r.id, id, 32) != 0 ||
	                (r.writer != writer && hit != IDINDEX_FOUND)))
		return LC_ENOENT;
	if (rc == LC_ENOENT && hit != IDINDEX_FOUND)
		return LC_ENOENT; /* one that is found is not in the catalog yet */
	rc = is_missing(f, r.writer, id, &missing, e);
	return rc == 0 && missing ? LC_ENOENT : rc;
}

/* One of another writer that it vouched for. */
static int
find_vouched(struct fold *f, uint16_t writer, const uint8_t id[32], uint64_t *no, struct lc_err *e)
{
	struct record r;
	bool missing;
	int rc = catalog_vouch(f->catalog, writer, id, no, e);

	if (rc != 0)
		return rc;
	rc = catalog_chunk(f->catalog, *no, &r, NULL);
	if (rc != 0)
		return rc == LC_ENOENT
		           ? rc
		           : lc_fail(e, (enum lc_code)rc, 0, "catalog: cannot look up a chunk");
	rc = is_missing(f, r.writer, id, &missing, e);
	if (rc != 0)
		return rc;
	return r.segment != 0 && !missing && memcmp(r.id, id, 32) == 0 ? 0 : LC_ENOENT;
}

int
fold_find(struct fold *f, uint16_t writer, const uint8_t id[32], uint64_t *no, struct lc_err *e)
{
	int rc = find_own(f, writer, id, no, e);

	return rc != LC_ENOENT || !f->vouched ? rc : find_vouched(f, writer, id, no, e);
}

int
fold_resolve(struct fold *f, const uint8_t id[32], uint64_t *no, struct lc_err *e)
{
	return fold_find(f, 0, id, no, e);
}

/* A delta is here only where all is that it is made upon. */
static bool
base_is_dropped(struct fold *f, const struct record *r)
{
	uint64_t bases[CHUNK_BASES_MAX];
	struct record base;
	size_t i, n = 0;
	bool dropped = false;

	if (!chunk_is_delta(r->encoding))
		return false;
	if (catalog_bases(f->catalog, r->seq, bases, &n, NULL) != 0)
		return true;
	for (i = 0; i < n; i++)
		dropped = dropped || catalog_chunk(f->catalog, bases[i], &base, NULL) != 0 ||
		          record_is_stub(&base);
	return dropped;
}

/* Whether the bytes of a chunk were dropped.  One that is not in the catalog yet is new. */
static int
was_dropped(struct fold *f, uint64_t no, bool *dropped, struct lc_err *e)
{
	struct record r;
	int rc;

	*dropped = false;
	if (!f->thin)
		return 0;
	rc = catalog_chunk(f->catalog, no, &r, NULL);
	*dropped = rc == 0 && (record_is_stub(&r) || base_is_dropped(f, &r));
	return rc == 0 || rc == LC_ENOENT
	           ? 0
	           : lc_fail(e, (enum lc_code)rc, 0, "catalog: cannot look up a chunk");
}

int
fold_find_whole(struct fold *f, uint16_t writer, const uint8_t id[32], uint64_t *no,
                struct lc_err *e)
{
	bool dropped = false;
	int rc = fold_find(f, writer, id, no, e);

	rc = rc != 0 ? rc : was_dropped(f, *no, &dropped, e);
	return rc == 0 && dropped ? LC_ENOENT : rc;
}

int
fold_whole(struct fold *f, const uint8_t id[32], uint64_t *no, struct lc_err *e)
{
	return fold_find_whole(f, 0, id, no, e);
}

/* Of two records of an id the one with bytes counts, and rather the whole one: deltas may be made
 * upon it. */
static int
is_lesser(struct fold *f, uint64_t no, const struct record *r, bool *lesser, struct lc_err *e)
{
	struct record have;
	int rc;

	*lesser = false;
	if (record_is_stub(r))
		return 0;
	rc = catalog_chunk(f->catalog, no, &have, NULL);
	if (rc == LC_ENOENT)
		return 0;
	if (rc != 0)
		return lc_fail(e, (enum lc_code)rc, 0, "catalog: cannot look up a chunk");
	*lesser = record_is_stub(&have) ||
	          (chunk_is_delta(have.encoding) && !chunk_is_delta(r->encoding));
	return 0;
}

/* Chunk r is a delta upon those ids.  *lost: one of them is missing, and so is the delta. */
static int
put_bases(struct fold *f, const struct record *r, struct lc_span bases, bool *lost,
          struct lc_err *e)
{
	uint64_t base;
	size_t i;
	int rc = 0;

	*lost = false;
	for (i = 0; rc == 0 && i + CHUNK_ID_SIZE <= bases.n; i += CHUNK_ID_SIZE) {
		rc = fold_find(f, r->writer, bases.p + i, &base, e);
		if (rc == LC_ENOENT) {
			*lost = true;
			rc = catalog_missing(f->catalog, r->writer, bases.p + i, true, &base, e);
		}
		rc = rc != 0 ? rc : catalog_put_base(f->catalog, r->seq, base, e);
	}
	if (rc != 0 || !*lost)
		return rc;
	f->missing = true;
	return catalog_put_missing(f->catalog, r, e);
}

/* Under its own number in every case, also where the id is known: rows that were made while it was
 * thought to be new name that number. */
int
fold_delta(struct fold *f, const struct record *r, struct lc_span bases, struct lc_err *e)
{
	uint8_t key[32];
	uint64_t no;
	int rc = find_own(f, r->writer, r->id, &no, e);
	bool known = rc == 0 && no != r->seq, lesser = false, lost = false;

	if (rc != 0 && rc != LC_ENOENT)
		return rc;
	rc = known ? is_lesser(f, no, r, &lesser, e) : 0;
	rc = rc != 0 ? rc : catalog_put_chunk(f->catalog, r->seq, r, e);
	fold_key(r->writer, r->id, key);
	if (rc == 0 && lesser)
		idindex_replace(f->index, key, r->seq);
	else if (rc == 0 && !known)
		idindex_add(f->index, key, r->seq);
	rc = rc != 0 ? rc : put_bases(f, r, bases, &lost, e);
	return rc != 0 || lost || !f->missing ? rc : catalog_heal(f->catalog, r, e);
}

int
fold_stubs(struct fold *f, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct record chunk = {.type = RECORD_CHUNK, .segment = r->segment, .writer = r->writer};
	struct stub x;
	size_t i, n;
	int rc = stubs_count(payload, &n, e);

	if (rc == 0)
		f->thin = true;
	for (i = 0; rc == 0 && stubs_decode(payload, r->seq, i, &x); i++) {
		chunk.seq = x.seq;
		memcpy(chunk.id, x.id, sizeof chunk.id);
		rc = fold_chunk(f, &chunk, e);
	}
	return rc;
}

int
fold_vouch(struct fold *f, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct record chunk;
	struct vouch x;
	size_t i, n;
	int rc = vouch_count(payload, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		vouch_get(payload, i, &x);
		rc = catalog_find_chunk(f->catalog, x.seq, &chunk, e);
		if (rc == 0 && memcmp(chunk.id, x.id, sizeof x.id) == 0) {
			rc = catalog_put_vouch(f->catalog, r->writer, x.id, x.seq, e);
			f->vouched = true;
		}
		if (rc == LC_ENOENT) /* it was damaged: so is what the writer vouched for */
			rc = 0;
	}
	return rc;
}

int
fold_chunk(struct fold *f, const struct record *r, struct lc_err *e)
{
	return fold_delta(f, r, (struct lc_span){0}, e);
}

/* A delta without its payload (known from an index) says what it is made upon later. */
static int
fold_chunk_record(struct fold *f, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct lc_span bases = {0};

	if (payload.n > 0 && chunk_is_delta(r->encoding)) {
		if (!chunk_payload_ok(payload, r->encoding))
			return lc_fail(e, LC_ECORRUPT, 0, "chunk: malformed payload");
		bases.p = chunk_payload_bases(payload, &bases.n);
		bases.n *= CHUNK_ID_SIZE;
	}
	return fold_delta(f, r, bases, e);
}

/* A map mostly names chunks in the order in which they were written, just before it: so it is one
 * look into the catalog, on a page that was just read, rather than two at random. */
static bool
is_next(struct fold *f, uint16_t writer, const uint8_t id[32])
{
	struct record r;

	return f->next != 0 && !f->missing && catalog_chunk(f->catalog, f->next, &r, NULL) == 0 &&
	       r.segment != 0 && r.writer == writer && memcmp(r.id, id, sizeof r.id) == 0;
}

static int
resolve_row(struct fold *f, uint16_t writer, struct map_row *row, struct lc_err *e)
{
	int rc = 0;

	if (row->chunk != 0 || maprec_zero(row))
		return 0;
	if (is_next(f, writer, row->id))
		row->chunk = f->next;
	else
		rc = fold_find(f, writer, row->id, &row->chunk, e);
	f->next = rc == 0 ? row->chunk + 1 : 0;
	if (rc != LC_ENOENT)
		return rc;
	/* Its record was damaged: the row must stand all the same, or an older content would
	 * show. */
	rc = catalog_missing(f->catalog, writer, row->id, true, &row->chunk, e);
	if (rc == 0)
		f->missing = true;
	return rc;
}

int
fold_map(struct fold *f, struct map_record *m, struct lc_err *e)
{
	struct set_sum sum, one;
	uint64_t gen, disk, rows, zeros = 0;
	size_t i;
	int rc;

	rc = catalog_gen(f->catalog, m->point, true, &gen, e);
	rc = rc != 0 ? rc : catalog_disk(f->catalog, m->line, m->disk, true, &disk, e);
	rc = rc != 0 ? rc : catalog_gen_state(f->catalog, gen, sum.v, &rows, e);
	for (i = 0; rc == 0 && i < m->n; i++) {
		rc = resolve_row(f, m->writer, &m->rows[i], e);
		set_row(NULL, m->disk, m->rows[i].window, m->rows[i].id, &one);
		set_add(&sum, &one);
		zeros += maprec_zero(&m->rows[i]) ? 1 : 0;
	}
	rc = rc != 0 ? rc : catalog_add_zeros(f->catalog, m->writer, zeros, e);
	rc = rc != 0 ? rc : catalog_put_rows(f->catalog, gen, disk, m->rows, m->n, e);
	return rc != 0 ? rc : catalog_set_gen_state(f->catalog, gen, sum.v, rows + m->n, e);
}

struct folding {
	struct fold *f;
	uint64_t order; /* of the next point */
	int64_t wall_ns;
	uint16_t owner;   /* of the VM in hand */
	bool have_folded; /* for the POINT entry that follows */
	struct commit_folded folded;
	struct lc_err bad; /* the first entry that makes no sense */
};

static int
flags_of(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)e;
	*(uint32_t *)arg = p->flags;
	return 0;
}

/* A line begins once, at a point of another one; that goes on as it is. */
static int
look_at_fork(struct catalog *c, const struct point *p, uint32_t *flags, struct lc_err *e)
{
	uint32_t unused;
	int rc = catalog_newest(c, p->line, flags_of, &unused, e);

	if (rc == 0)
		return lc_fail(e, LC_ECORRUPT, 0, "a line that begins for the second time");
	if (rc == LC_ENOENT)
		rc = catalog_point(c, p->base, flags_of, flags, e);
	*flags &= ~(uint32_t)POINT_SEED;
	if (rc == LC_ENOENT) { /* its commit was damaged: what it held is not known */
		*flags = POINT_MAP_DAMAGED;
		rc = 0;
	}
	if ((p->flags & POINT_FRESH) != 0)
		*flags &= ~(uint32_t)POINT_MAP_DAMAGED;
	return rc;
}

/* The first point of a line holds the whole of its map. */
static int
begin_line(struct catalog *c, const struct point *p, struct catalog_point *cp, struct lc_err *e)
{
	struct catalog_fork_disk *disks;
	struct catalog_fork f = {.gen = cp->gen, .ndisks = p->ndisks};
	uint64_t copied = 0;
	size_t i;
	int rc;

	if ((p->flags & POINT_FORK) == 0 || (p->flags & POINT_FRESH) != 0)
		return 0;
	disks = lc_alloc_array(p->ndisks, sizeof *disks);
	if (disks == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "point: out of memory");
	for (i = 0; i < p->ndisks; i++) {
		memcpy(disks[i].id, p->disks[i].id, 16);
		disks[i].windows = point_windows(p->disks[i].size);
	}
	memcpy(f.base, p->base, 16);
	memcpy(f.line, p->line, 16);
	f.disks = disks;
	rc = catalog_fork(c, &f, &copied, e);
	cp->rows += copied;
	lc_free(disks);
	return rc == LC_ENOENT ? 0 : rc; /* it is marked as damaged */
}

/* What a point takes over from its base: whether that is a seed, and damage of the map. */
static int
look_at_base(struct catalog *c, const struct point *p, uint32_t *flags, struct lc_err *e)
{
	static const uint8_t none[16];
	bool known;
	int rc;

	*flags = 0;
	if ((p->flags & POINT_FORK) != 0)
		return look_at_fork(c, p, flags, e);
	/* The base was the newest point when this one was committed; what is newer here was
	 * dropped, by a record that is damaged. */
	rc = catalog_void_after(c, p->line, p->base, &known, e);
	if (rc != 0 || memcmp(p->base, none, 16) == 0)
		return rc;
	if (known)
		rc = catalog_point(c, p->base, flags_of, flags, e);
	else /* its commit was damaged: what it changed is not known */
		*flags = POINT_MAP_DAMAGED;
	if ((p->flags & POINT_FRESH) != 0)
		*flags &= ~(uint32_t)POINT_MAP_DAMAGED;
	return rc;
}

/* The sealed header goes on naming the base that the point was made upon; its rows here count from
 * another one. */
static void
take_folded(struct folding *fd, struct point *p)
{
	if (!fd->have_folded || memcmp(fd->folded.point, p->id, 16) != 0)
		return;
	p->flags &= ~(uint32_t)POINT_FORK; /* its rows are all there */
	memcpy(p->base, fd->folded.base, 16);
	p->changed = fd->folded.rows;
	memcpy(p->rows_sum.v, fd->folded.sum, sizeof p->rows_sum.v);
}

static int
fold_point(struct folding *fd, struct lc_span body, struct lc_err *e)
{
	struct catalog *c = fd->f->catalog;
	struct catalog_point cp = {0};
	struct lc_span sealed;
	uint32_t base_flags = 0, flags, own_flags = 0;
	struct set_sum sum;
	uint64_t rows;
	struct point *p = lc_alloc(sizeof *p);
	int rc;

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "point: out of memory");
	rc = point_decode(body, p, &sealed, e);
	if (rc == 0) {
		own_flags = p->flags; /* the header is bound to them */
		take_folded(fd, p);
	}
	fd->have_folded = false;
	if (rc == 0 && catalog_point(c, p->id, flags_of, &flags, NULL) == 0)
		rc = lc_fail(e, LC_ECORRUPT, 0, "a restore point for the second time");
	rc = rc != 0 ? rc : look_at_base(c, p, &base_flags, e);
	rc = rc != 0 ? rc : catalog_gen(c, p->id, true, &cp.gen, e);
	rc = rc != 0 ? rc : catalog_gen_state(c, cp.gen, sum.v, &rows, e);
	if (rc == 0) {
		memcpy(cp.id, p->id, 16);
		memcpy(cp.line, p->line, 16);
		cp.order = fd->order;
		cp.flags = own_flags | (base_flags & POINT_MAP_DAMAGED);
		if (rows != p->changed || memcmp(&sum, &p->rows_sum, sizeof sum) != 0)
			cp.flags |= POINT_MAP_DAMAGED;
		cp.rows = rows;
		cp.commit_ns = fd->wall_ns;
		cp.entry = body;
		rc = begin_line(c, p, &cp, e);
		rc = rc != 0 ? rc : catalog_put_point(c, &cp, e);
	}
	if (rc == 0 && (p->flags & POINT_FRESH) != 0)
		rc = catalog_restart(c, p->line, false, e);
	if (rc == 0 && (base_flags & POINT_SEED) != 0)
		rc = catalog_drop(c, p->base, e); /* the pass that it continued */
	lc_free(p);
	return rc;
}

static int
fold_damage(struct fold *f, struct lc_span body, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(body.p, body.n);
	struct lc_buf places = {0};
	struct catalog_place p;
	int rc = 0;

	while (rc == 0 && r.n > 0) {
		p.segment = lc_rd64(&r);
		p.off = lc_rd64(&r);
		if (!lc_rd_ok(&r))
			rc = lc_fail(e, LC_ECORRUPT, 0, "malformed damage entry");
		else if (lc_buf_append(&places, &p, sizeof p) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	if (rc == 0)
		rc = catalog_condemn(f->catalog,
		                     (const struct catalog_place *)(const void *)places.p,
		                     places.n / sizeof p, e);
	if (rc == 0)
		f->missing = true;
	lc_buf_free(&places);
	return rc;
}

static int
fold_restart(struct fold *f, struct lc_span body, struct lc_err *e)
{
	struct catalog_place place;
	size_t i;
	int rc;

	if (body.n < 16 || body.n % 16 != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed restart entry");
	place.segment = lc_get64(body.p);
	place.off = lc_get64(body.p + 8);
	rc = catalog_put_restarted(f->catalog, &place, e);
	for (i = 16; rc == 0 && i < body.n; i += 16)
		rc = catalog_restart(f->catalog, body.p + i, true, e);
	return rc;
}

static int
fold_owner(struct folding *fd, struct lc_span body, struct lc_err *e)
{
	fd->owner = lc_get16(body.p + 16);
	return catalog_set_vm_writer(fd->f->catalog, body.p, fd->owner, e);
}

static int
fold_known(struct folding *fd, const struct commit_entry *x, struct lc_err *e)
{
	struct catalog *c = fd->f->catalog;
	int rc;

	switch (x->type) {
	case COMMIT_VM:
		if (x->body.n < 16)
			break;
		fd->owner = 0;
		return catalog_put_vm(c, x->body.p,
		                      (struct lc_span){x->body.p + 16, x->body.n - 16}, e);
	case COMMIT_LINE:
		if (x->body.n != 32)
			break;
		return catalog_put_line(c, x->body.p, x->body.p + 16, fd->order, e);
	case COMMIT_POINT:
		rc = catalog_add_bytes(c, fd->owner, x->body.n, e);
		return rc != 0 ? rc : fold_point(fd, x->body, e);
	case COMMIT_DROP:
		if (x->body.n != 16)
			break;
		rc = catalog_drop(c, x->body.p, e);
		return rc == LC_ENOENT ? 0 : rc;
	case COMMIT_DAMAGE:
		return fold_damage(fd->f, x->body, e);
	case COMMIT_FOLDED:
		rc = commit_folded_decode(x->body, &fd->folded, e);
		fd->have_folded = rc == 0;
		return rc;
	case COMMIT_RESTART:
		return fold_restart(fd->f, x->body, e);
	case COMMIT_THIN:
		if (x->body.n > THIN_PEERS_MAX)
			break;
		fd->f->thin = true;
		return catalog_set_peers(c, x->body, e);
	case COMMIT_OWNER:
		if (x->body.n != 20)
			break;
		return fold_owner(fd, x->body, e);
	default:
		if ((x->type & COMMIT_SKIPPABLE) != 0)
			return 0;
		return lc_fail(e, LC_EVERSION, 0,
		               "the store holds an entry of type %u, which this version does not "
		               "know: use a newer locum",
		               x->type);
	}
	return lc_fail(e, LC_ECORRUPT, 0, "malformed commit entry of type %u", x->type);
}

/* One entry that makes no sense does not take the others with it. */
static int
fold_entry(void *arg, const struct commit_entry *x, struct lc_err *e)
{
	struct folding *fd = arg;
	struct lc_err err = LC_ERR_INIT;
	int rc;

	fd->order++;
	rc = fold_known(fd, x, &err);
	if (rc == LC_ECORRUPT) {
		if (fd->bad.code == LC_OK)
			fd->bad = err;
		return 0;
	}
	if (rc != 0 && e != NULL)
		*e = err;
	return rc;
}

int
fold_commit(struct fold *f, uint64_t seq, struct lc_span payload, struct lc_err *e)
{
	struct folding fd = {.f = f, .order = seq * COMMIT_ENTRIES_MAX};
	int rc = commit_walk(payload, &fd.wall_ns, fold_entry, &fd, e);

	if (rc == 0 && fd.bad.code != LC_OK) {
		rc = fd.bad.code;
		if (e != NULL)
			*e = fd.bad;
	}
	return rc;
}

int
fold_record(struct fold *f, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	int rc;

	switch (r->type) {
	case RECORD_CHUNK:
		return fold_chunk_record(f, r, payload, e);
	case RECORD_MAP:
		rc = maprec_decode(payload, &f->scratch, e);
		f->scratch.writer = r->writer;
		return rc != 0 ? rc : fold_map(f, &f->scratch, e);
	case RECORD_COMMIT:
		return fold_commit(f, r->seq, payload, e);
	case RECORD_STUBS:
		return fold_stubs(f, r, payload, e);
	case RECORD_VOUCH:
		return fold_vouch(f, r, payload, e);
	default:
		return 0;
	}
}

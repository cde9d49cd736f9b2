/*
 * A segment on its way:
 *
 *     <n>.seg ─► <n>.thin.new ─► both ─► the catalog knows ─► <n>.thin
 *
 * Where both are found, the catalog tells: if it has taken up the thin one, the whole one is what
 * was about to go; else the thin one goes, and nothing has happened.  A thin one alone that the
 * catalog does not know (it lost its last moments with the power) is taken up.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/log.h"
#include "store/commit.h"
#include "store/segment_thin.h"
#include "store/signatures.h"
#include "store/store_internal.h"
#include "store/stubs.h"
#include "store/thin.h"

/* One that would keep most of its bytes is not worth the copy. */
#define WORTH(freed, bytes) ((freed) >= (bytes) / 2)
#define PROBE_ROWS 512u
#define LOOKS 3 /* at a chunk that is moved meanwhile */

struct slimming { /* one segment */
	struct store *s;
	const struct thin_opts *o;
	const struct segment_info *seg;
	struct lc_buf records; /* struct record[], as in its index */
	bool *drop;            /* [n] */
	size_t n;
	struct lc_buf stubs; /* struct stub[] of those */
	struct lc_buf payload;
	uint64_t freed;
};

static struct record *
record_at(const struct slimming *x, size_t i)
{
	return (struct record *)(void *)x->records.p + i;
}

static int
no_memory(struct lc_err *e)
{
	return lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* ---- which of its chunks go ---- */

static int
take_record(void *arg, const struct record *r, struct lc_err *e)
{
	struct slimming *x = arg;

	if (r->type == RECORD_INDEX)
		return 0;
	return lc_buf_append(&x->records, r, sizeof *r) == 0 ? 0 : no_memory(e);
}

/* Ids of which bytes are known to be bad are to be stored again, and not forgotten. */
static int
may_go(struct slimming *x, const struct record *r, bool *may, struct lc_err *e)
{
	uint64_t hole;
	int rc = !x->s->fold->missing
	             ? LC_ENOENT
	             : catalog_missing(x->s->catalog, r->writer, r->id, false, &hole, e);

	*may = rc == LC_ENOENT;
	return rc == LC_ENOENT ? 0 : rc;
}

static int
mark(struct slimming *x, size_t i, struct lc_err *e)
{
	const struct record *r = record_at(x, i);
	struct stub stub = {.seq = r->seq};
	int rc = may_go(x, r, &x->drop[i], e);

	if (rc != 0 || !x->drop[i])
		return rc;
	memcpy(stub.id, r->id, sizeof stub.id);
	x->freed += record_size(r->n) - STUB_SIZE;
	return lc_buf_append(&x->stubs, &stub, sizeof stub) == 0 ? 0 : no_memory(e);
}

/* Ask about the chunks among the records [from, *end), which are as many as fit a question. */
static int
ask(struct slimming *x, size_t from, size_t *end, struct lc_err *e)
{
	uint8_t bits[(THIN_ASK_MAX + 7) / 8] = {0};
	struct lc_buf ids = {0};
	size_t i, n = 0;
	int rc = 0;

	for (i = from; rc == 0 && i < x->n && n < THIN_ASK_MAX; i++) {
		if (record_at(x, i)->type != RECORD_CHUNK)
			continue;
		rc = lc_buf_append(&ids, record_at(x, i)->id, CHUNK_ID_SIZE);
		n++;
	}
	*end = i;
	rc = rc != 0 ? no_memory(e) : n == 0 ? 0 : x->o->have(x->o->arg, ids.p, n, bits, e);
	lc_buf_free(&ids);
	for (i = from, n = 0; rc == 0 && i < *end; i++) {
		if (record_at(x, i)->type != RECORD_CHUNK)
			continue;
		if ((bits[n / 8] >> (n % 8) & 1) != 0)
			rc = mark(x, i, e);
		n++;
	}
	return rc;
}

/* ---- making it thin ---- */

/* What stays has moved; what went leaves its number and id. */
static int
apply(struct slimming *x, struct lc_err *e)
{
	struct record stubs = {.type = RECORD_STUBS, .segment = x->seg->no};
	struct stub first;
	size_t i;
	int rc = catalog_begin(x->s->catalog, e);

	if (rc != 0)
		return rc;
	memcpy(&first, x->stubs.p, sizeof first);
	stubs.seq = first.seq;
	for (i = 0; rc == 0 && i < x->n; i++) {
		if (record_at(x, i)->type == RECORD_CHUNK && !x->drop[i])
			rc = fold_chunk(x->s->fold, record_at(x, i), e);
	}
	rc = rc != 0
	         ? rc
	         : fold_stubs(x->s->fold, &stubs, (struct lc_span){x->payload.p, x->payload.n}, e);
	rc = rc != 0 ? rc : catalog_put_thin(x->s->catalog, x->seg->no, e);
	if (rc != 0) {
		catalog_rollback(x->s->catalog);
		return rc;
	}
	return catalog_commit(x->s->catalog, e);
}

static int
make_thin(struct slimming *x, struct lc_err *e)
{
	const struct stub *list = (const struct stub *)(const void *)x->stubs.p;
	struct segment_diet d = {.seg = x->seg,
	                         .records = record_at(x, 0),
	                         .drop = x->drop,
	                         .n = x->n,
	                         .stubs_seq = list[0].seq};
	struct segment_info thin = {.no = x->seg->no, .sealed = true, .thin = true};
	struct lc_err ignored = LC_ERR_INIT;
	int rc = stubs_encode(list, x->stubs.n / sizeof *list, &x->payload, e);

	d.stubs = (struct lc_span){x->payload.p, x->payload.n};
	if (rc == 0)
		signatures_keep(x->s, record_at(x, 0), x->drop, x->n);
	rc = rc != 0 ? rc : segment_thin_write(x->s->segments, &d, e);
	if (rc != 0)
		return rc;
	rc = apply(x, e);
	(void)failpoint("thin.applied");
	if (rc != 0) { /* nothing has happened */
		(void)segment_remove(x->s->segments, &thin, &ignored);
		return rc;
	}
	return segment_remove(x->s->segments, x->seg, e);
}

/* LC_ENOENT: it stays as it is. */
static int
slim(struct store *s, const struct thin_opts *o, const struct segment_info *seg,
     struct thin_stats *st, struct lc_err *e)
{
	struct slimming x = {.s = s, .o = o, .seg = seg};
	size_t at = 0;
	bool damaged;
	int rc = catalog_damage_in(s->catalog, seg->no, &damaged, e);

	if (rc == 0 && damaged)
		return LC_ENOENT;
	rc = rc != 0 ? rc : segment_index(s->segments, seg, take_record, &x, e);
	x.n = x.records.n / sizeof(struct record);
	x.drop = rc != 0 ? NULL : lc_alloc_array(x.n + 1, sizeof *x.drop);
	if (rc == 0 && x.drop == NULL)
		rc = no_memory(e);
	if (rc == 0 && (x.n == 0 || record_at(&x, 0)->type != RECORD_KEYS))
		rc = LC_ENOENT;
	while (rc == 0 && at < x.n)
		rc = ask(&x, at, &at, e);
	if (rc == 0 && (x.stubs.n == 0 || !WORTH(x.freed, seg->bytes)))
		rc = LC_ENOENT;
	rc = rc != 0 ? rc : make_thin(&x, e);
	if (rc == 0) {
		st->segments++;
		st->chunks += x.stubs.n / sizeof(struct stub);
		st->freed += x.freed;
	}
	lc_buf_free(&x.records);
	lc_buf_free(&x.stubs);
	lc_buf_free(&x.payload);
	lc_free(x.drop);
	return rc;
}

/* ---- which segments ---- */

static int
build_peers(void *arg, struct lc_buf *payload, struct lc_err *e)
{
	const char *names = arg;
	int rc = commit_start(payload, clock_wall_ns(), e);

	return rc != 0 ? rc
	               : commit_add(payload, COMMIT_THIN,
	                            (struct lc_span){(const uint8_t *)names, strlen(names)}, e);
}

/* Before anything goes the log says where it is to be had.  A version that does not know thin
 * segments knows that it does not. */
int
thin_name_peers(struct store *s, const char *names, struct lc_err *e)
{
	char have[THIN_PEERS_MAX + 1];
	int rc = catalog_peers(s->catalog, have, sizeof have, e);

	if (rc != 0 || strcmp(have, names) == 0)
		return rc;
	return store_commit(s, build_peers, (void *)(uintptr_t)names, e);
}

/* Every segment that is all in the catalog, and will be after a power loss, too. */
static int
list_whole(struct store *s, struct segment_info **list, size_t *n, struct lc_err *e)
{
	struct catalog_position pos;
	size_t i, k = 0;
	int rc = catalog_position(s->catalog, &pos, e);

	rc = rc != 0 ? rc : segments_list(s->segments, list, n, e);
	if (rc != 0)
		return rc;
	for (i = 0; i < *n; i++) {
		const struct segment_info *seg = &(*list)[i];

		if (seg->sealed && !seg->thin && !seg->twin && seg->no < pos.segment)
			(*list)[k++] = *seg;
	}
	*n = k;
	return 0;
}

int
thin_run(struct store *s, const struct thin_opts *o, struct thin_stats *st, struct lc_err *e)
{
	struct segment_info *list = NULL;
	struct lc_err err;
	size_t i, n = 0;
	int rc;

	assert(s->writable);
	*st = (struct thin_stats){0};
	if (o->peers[0] == '\0' || strlen(o->peers) > THIN_PEERS_MAX)
		return lc_fail(e, LC_EINVAL, 0, "who has the contents is not said, or at length");
	rc = store_flush(s, e);
	catalog_checkpoint(s->catalog);
	rc = rc != 0 ? rc : list_whole(s, &list, &n, e);
	rc = rc != 0 || n == 0 ? rc : thin_name_peers(s, o->peers, e);
	for (i = 0; rc == 0 && i < n && st->freed < o->bytes; i++) {
		if (o->stop != NULL && o->stop(o->arg))
			break;
		lc_err_clear(&err);
		rc = slim(s, o, &list[i], st, &err);
		if (rc == LC_ECORRUPT) /* scrub says what is wrong with it */
			log_warn("store %s: a segment stays as it is: %s", s->dir, err.msg);
		if (rc == LC_ECORRUPT || rc == LC_ENOENT)
			rc = 0;
		else if (rc != 0 && e != NULL)
			*e = err;
	}
	lc_free(list);
	return rc;
}

int
thin_bytes(struct store *s, uint64_t *all, uint64_t *droppable, struct lc_err *e)
{
	struct segment_info *list;
	size_t i, n;
	int rc = segments_list(s->segments, &list, &n, e);

	*all = *droppable = 0;
	if (rc != 0)
		return rc;
	for (i = 0; i < n; i++) {
		*all += list[i].bytes;
		if (list[i].sealed && !list[i].thin)
			*droppable += list[i].bytes;
	}
	lc_free(list);
	return 0;
}

/* ---- after a death ---- */

struct taking_up {
	struct store *s;
	uint8_t *payload;
};

static int
take_up_record(void *arg, const struct record *r, struct lc_err *e)
{
	struct taking_up *x = arg;
	int rc;

	if (r->type == RECORD_CHUNK)
		return fold_chunk(x->s->fold, r, e);
	if (r->type != RECORD_STUBS)
		return 0;
	rc = segment_read(x->s->segments, r, x->payload, e);
	return rc != 0 ? rc : fold_stubs(x->s->fold, r, (struct lc_span){x->payload, r->n}, e);
}

static int
take_up(struct store *s, const struct segment_info *seg, struct lc_err *e)
{
	struct taking_up x = {.s = s, .payload = lc_alloc(RECORD_PAYLOAD_MAX)};
	int rc = x.payload == NULL ? no_memory(e) : catalog_begin(s->catalog, e);

	if (rc != 0) {
		lc_free(x.payload);
		return rc;
	}
	rc = segment_index(s->segments, seg, take_up_record, &x, e);
	rc = rc != 0 ? rc : catalog_put_thin(s->catalog, seg->no, e);
	if (rc == 0)
		rc = catalog_commit(s->catalog, e);
	else
		catalog_rollback(s->catalog);
	lc_free(x.payload);
	return rc;
}

static int
settle(struct store *s, const struct segment_info *seg, struct lc_err *e)
{
	struct segment_info thin = *seg;
	bool known;
	int rc = seg->thin || seg->twin ? catalog_has_thin(s->catalog, seg->no, &known, e) : 0;

	if (rc != 0 || (!seg->thin && !seg->twin))
		return rc;
	thin.thin = true;
	if (seg->twin)
		return segment_remove(s->segments, known ? seg : &thin, e);
	return known ? 0 : take_up(s, seg, e);
}

int
thin_settle(struct store *s, struct lc_err *e)
{
	struct lc_err err;
	struct segment_info *list;
	size_t i, n;
	int rc = segments_list(s->segments, &list, &n, e);

	if (rc != 0)
		return rc;
	segment_thin_tidy(s->segments);
	for (i = 0; rc == 0 && i < n; i++) {
		lc_err_clear(&err);
		rc = settle(s, &list[i], &err);
		if (rc == LC_ECORRUPT) { /* its index is bad: what it says is found by reading on */
			log_warn("store %s: %s", s->dir, err.msg);
			rc = 0;
		} else if (rc != 0 && e != NULL) {
			*e = err;
		}
	}
	lc_free(list);
	return rc;
}

int
thin_behind(struct store *s, const struct segment_info *list, size_t n, bool *behind,
            struct lc_err *e)
{
	bool known;
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < n && !*behind; i++) {
		if (!list[i].thin)
			continue;
		rc = catalog_has_thin(s->catalog, list[i].no, &known, e);
		*behind = rc == 0 && !known;
	}
	return rc;
}

/* ---- reading ---- */

void
thin_fetch(struct store *s, thin_fetch_cb *fetch, void *arg)
{
	s->fetch = fetch;
	s->fetch_arg = arg;
}

void
thin_peers(struct store *s, char dst[THIN_PEERS_MAX + 1])
{
	if (catalog_peers(s->catalog, dst, THIN_PEERS_MAX + 1, NULL) != 0)
		dst[0] = '\0';
}

/* The first stub of so many rows, or 0. */
static uint64_t
first_stub(struct store *s, const uint64_t *chunks, uint32_t n)
{
	struct record r;
	uint32_t i;

	for (i = 0; i < n; i++) {
		if (chunks[i] != 0 && catalog_chunk(s->catalog, chunks[i], &r, NULL) == 0 &&
		    record_is_stub(&r))
			return chunks[i];
	}
	return 0;
}

int
thin_elsewhere(struct store *s, struct view *v, int64_t budget_ns, uint64_t *chunk,
               struct lc_err *e)
{
	int64_t until = clock_mono_ns() + budget_ns;
	const struct point *p = view_point(v);
	uint64_t *chunks = lc_alloc_array(PROBE_ROWS, sizeof *chunks);
	uint64_t first, windows;
	size_t d;
	int rc = 0;

	*chunk = 0;
	if (chunks == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (d = 0; rc == 0 && d < p->ndisks; d++) {
		windows = point_windows(p->disks[d].size);
		for (first = 0; rc == 0 && *chunk == 0 && first < windows; first += PROBE_ROWS) {
			uint64_t left = windows - first;
			uint32_t n = left < PROBE_ROWS ? (uint32_t)left : PROBE_ROWS;

			rc = view_map(v, d, first, n, chunks, e);
			if (rc == 0)
				*chunk = first_stub(s, chunks, n);
			if (clock_mono_ns() > until)
				break;
		}
	}
	lc_free(chunks);
	return rc;
}

/* Another chunk with that content, whose bytes are here. */
static bool
find_whole(struct store *s, struct record *r)
{
	uint64_t no;

	return s->index != NULL && s->fold->index != NULL &&
	       fold_whole(s->fold, r->id, &no, NULL) == 0 &&
	       catalog_chunk(s->catalog, no, r, NULL) == 0;
}

static int
not_here(struct store *s, const struct record *r, struct lc_err *e)
{
	char peers[THIN_PEERS_MAX + 1], hex[17];

	thin_peers(s, peers);
	return lc_fail(e, LC_ENOENT, 0,
	               "store %s is thin: the content of chunk %s is not here but at replica %s, "
	               "and no connection to it is open; restore there, or here with the replica "
	               "reachable",
	               s->dir, lc_hex(hex, r->id, 8), peers);
}

/* Numbers are the order of the log, and so mostly that of a disk's windows: who reads one will want
 * the next ones. */
static size_t
with_next(struct store *s, const struct record *r, uint8_t ids[THIN_AHEAD * CHUNK_ID_SIZE])
{
	struct record next;
	uint64_t no;
	size_t n = 1;

	memcpy(ids, r->id, CHUNK_ID_SIZE);
	for (no = r->seq + 1; r->seq > 0 && no < r->seq + THIN_AHEAD; no++) {
		if (catalog_chunk(s->catalog, no, &next, NULL) == 0 && record_is_stub(&next))
			memcpy(ids + CHUNK_ID_SIZE * n++, next.id, CHUNK_ID_SIZE);
	}
	return n;
}

static int
fetch(struct store *s, const struct thin_source *from, struct record *r, uint8_t *buf,
      struct lc_err *e)
{
	const struct thin_source own = {s->fetch, s->fetch_arg};
	char peers[THIN_PEERS_MAX + 1], hex[17];
	uint8_t ids[THIN_AHEAD * CHUNK_ID_SIZE];
	struct fetched got = {0};
	int rc;

	if (from == NULL)
		from = &own;
	if (from->fetch == NULL)
		return not_here(s, r, e);
	rc = from->fetch(from->arg, ids, with_next(s, r, ids), buf, &got, e);
	if (rc == 0 && (got.n < CHUNK_ID_SIZE || memcmp(buf, r->id, CHUNK_ID_SIZE) != 0))
		rc = lc_fail(e, LC_ECORRUPT, 0, "another chunk came");
	if (rc != 0) {
		thin_peers(s, peers);
		lc_wrap(e, "store %s is thin: chunk %s, from replica %s", s->dir,
		        lc_hex(hex, r->id, 8), peers);
		return rc;
	}
	r->encoding = got.encoding;
	r->key = got.key;
	r->n = (uint32_t)got.n;
	return 0;
}

int
store_fetch_payload(struct store *s, const struct thin_source *from, const uint8_t id[32],
                    uint8_t *buf, struct record *r, struct lc_err *e)
{
	*r = (struct record){.type = RECORD_CHUNK};
	memcpy(r->id, id, sizeof r->id);
	return fetch(s, from, r, buf, e);
}

/* The bytes of a chunk from where the catalog says that it lies. */
static int
read_payload(struct store *s, const struct thin_source *from, uint8_t *buf, struct record *r,
             struct lc_err *e)
{
	char name[32], hex[17];
	int rc;

	if (r->segment == 0)
		return lc_fail(e, LC_ECORRUPT, 0, "store %s: the bytes of chunk %s are missing",
		               s->dir, lc_hex(hex, r->id, 8));
	if (record_is_stub(r) && !find_whole(s, r))
		return fetch(s, from, r, buf, e);
	rc = segment_read(s->segments, r, buf, e);
	if (rc == 0 && (r->n < CHUNK_ID_SIZE || memcmp(buf, r->id, CHUNK_ID_SIZE) != 0))
		rc = lc_fail(e, LC_ECORRUPT, 0, "another chunk lies there");
	if (rc != 0)
		lc_wrap(e, "store %s: segments/%s, offset %" PRIu64 ", chunk %s", s->dir,
		        segment_name(name, r->segment, true), r->off, lc_hex(hex, r->id, 8));
	return rc;
}

/* Whether it lies elsewhere by now, and where. */
static bool
has_moved(struct store *s, uint64_t no, struct record *r)
{
	struct record now;

	if (catalog_chunk(s->catalog, no, &now, NULL) != 0 ||
	    (now.segment == r->segment && now.off == r->off))
		return false;
	*r = now;
	return true;
}

int
store_payload_from(struct store *s, const struct thin_source *from, uint64_t no, uint8_t *buf,
                   struct record *r, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	int rc = read_payload(s, from, buf, r, &err), looks;

	for (looks = 1; rc == LC_ECORRUPT && looks < LOOKS && has_moved(s, no, r); looks++) {
		lc_err_clear(&err);
		rc = read_payload(s, from, buf, r, &err);
	}
	if (rc != 0 && e != NULL && e->code == LC_OK)
		*e = err;
	return rc;
}

int
store_payload_at(struct store *s, uint64_t no, uint8_t *buf, struct record *r, struct lc_err *e)
{
	return store_payload_from(s, NULL, no, buf, r, e);
}

int
store_chunk_payload(struct store *s, uint64_t no, uint8_t *buf, struct record *r, struct lc_err *e)
{
	int rc;

	memset(r, 0, sizeof *r);
	rc = catalog_chunk(s->catalog, no, r, e);
	return rc != 0 ? rc : store_payload_at(s, no, buf, r, e);
}

/*
 * Taking a restore point from another store.  Nothing that comes is believed: rows must name chunks
 * that are here, their number and sum must be what the giver says, the base must be the newest.
 */
#include <assert.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/commit.h"
#include "store/group.h"
#include "store/store_internal.h"
#include "store/transfer.h"
#include "store/vouch.h"

struct incoming {
	struct store *s;
	struct incoming *next; /* in the store's list */
	uint16_t writer;
	uint16_t others[WRITERS_MAX]; /* whose contents may be the same */
	size_t nothers;
	uint8_t id[16], vm[16], line[16], base[16];
	struct lc_buf entries; /* VM, LINE; then, at commit, FOLDED and POINT */
	struct lc_buf entry;
	uint64_t rows;
	struct set_sum sum;
	struct map_record *scratch;
};

/* ---- begin ---- */

static int
found(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)arg;
	(void)p;
	(void)e;
	return 0;
}

/* A line costs next to nothing of what a host may keep, and is told of at each of its HELLOs. */
static int
check_lines(struct store *s, uint16_t writer, struct lc_err *e)
{
	uint64_t n = 0;
	int rc = catalog_writer_lines(s->catalog, writer, &n, e);

	if (rc == 0 && n >= TRANSFER_LINES_MAX)
		return lc_fail(e, LC_EACCES, 0,
		               "the host has %u lines of VMs here, and may have no more",
		               TRANSFER_LINES_MAX);
	return rc;
}

/* A writer adds to its own VMs and to no other's; a VM or line that nobody knows becomes its own.
 */
static int
check_owner(struct store *s, uint16_t writer, const struct transfer_point *p, struct lc_err *e)
{
	uint16_t owner = writer;
	uint8_t vm[16];
	int rc = catalog_vm_writer(s->catalog, p->vm, &owner, e);

	if (rc == 0 && owner != writer)
		return lc_fail(e, LC_EACCES, 0, "the VM is another host's here");
	if (rc != 0 && rc != LC_ENOENT)
		return rc;
	rc = catalog_line_writer(s->catalog, p->line, vm, &owner, e);
	if (rc == 0 && memcmp(vm, p->vm, sizeof vm) != 0)
		return lc_fail(e, LC_EACCES, 0, "its line is another VM's here");
	return rc == LC_ENOENT ? check_lines(s, writer, e) : rc;
}

/* What the commit would refuse is refused before anything is sent for it. */
static int
check_place(struct store *s, const struct transfer_point *p, struct lc_err *e)
{
	bool is = false;
	int rc = catalog_point(s->catalog, p->id, found, NULL, e);

	if (rc == 0)
		return lc_fail(e, LC_EEXIST, 0, "the restore point is here already");
	if (rc == LC_ENOENT)
		rc = group_is_newest(s, p->line, p->base, &is, e);
	if (rc == 0 && !is)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "its base is not the newest restore point of its line here");
	return rc;
}

static int
check_entry(const struct transfer_point *p, struct lc_err *e)
{
	struct lc_span sealed;
	struct point *x;
	int rc;

	if (p->entry.n > TRANSFER_ENTRY_MAX || p->name.n > TRANSFER_NAME_MAX)
		return lc_fail(e, LC_ECORRUPT, 0, "the restore point's entry is too long");
	if (p->entry.n == 0) /* it is still being made */
		return 0;
	x = lc_alloc(sizeof *x);
	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = point_decode(p->entry, x, &sealed, e);
	if (rc == 0 && (memcmp(x->id, p->id, 16) != 0 || memcmp(x->line, p->line, 16) != 0 ||
	                (x->flags & POINT_SEED) != 0))
		rc = lc_fail(e, LC_ECORRUPT, 0, "the restore point's entry is of another one");
	lc_free(x);
	return rc;
}

static int
enlist(struct incoming *in, struct lc_err *e)
{
	struct store *s = in->s;
	struct incoming *x;
	int rc = 0;

	(void)pthread_mutex_lock(&s->writers_lock);
	for (x = s->incomings; x != NULL && rc == 0; x = x->next) {
		if (memcmp(x->line, in->line, 16) == 0)
			rc = lc_fail(e, LC_EBUSY, 0, "another point of its line is being taken");
		else if (memcmp(x->id, in->id, 16) == 0 ||
		         (x->writer != in->writer && memcmp(x->vm, in->vm, 16) == 0))
			rc = lc_fail(e, LC_EACCES, 0, "the VM or point is another host's here");
	}
	if (rc == 0) {
		in->next = s->incomings;
		s->incomings = in;
	}
	(void)pthread_mutex_unlock(&s->writers_lock);
	return rc;
}

static void
incoming_free(struct incoming *in)
{
	struct incoming **p;

	(void)pthread_mutex_lock(&in->s->writers_lock);
	for (p = &in->s->incomings; *p != NULL; p = &(*p)->next) {
		if (*p == in) {
			*p = in->next;
			break;
		}
	}
	(void)pthread_mutex_unlock(&in->s->writers_lock);
	lc_buf_free(&in->entries);
	lc_buf_free(&in->entry);
	lc_free(in->scratch);
	lc_free(in);
}

static int
add_owner(struct incoming *in, struct lc_err *e)
{
	uint8_t body[20] = {0};

	memcpy(body, in->vm, 16);
	lc_put16(body + 16, in->writer);
	return commit_add(&in->entries, COMMIT_OWNER, (struct lc_span){body, sizeof body}, e);
}

static int
copy_point_info(struct incoming *in, const struct transfer_point *p, struct lc_err *e)
{
	struct lc_buf vm = {0};
	uint8_t line[32];
	int rc = 0;

	memcpy(in->id, p->id, 16);
	memcpy(in->vm, p->vm, 16);
	memcpy(in->line, p->line, 16);
	memcpy(in->base, p->base, 16);
	memcpy(line, p->line, 16);
	memcpy(line + 16, p->vm, 16);
	in->scratch = lc_alloc(sizeof *in->scratch);
	if (in->scratch == NULL || lc_buf_append(&vm, p->vm, 16) != 0 ||
	    lc_buf_append(&vm, p->name.p, p->name.n) != 0 ||
	    lc_buf_append(&in->entry, p->entry.p, p->entry.n) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc : commit_add(&in->entries, COMMIT_VM, (struct lc_span){vm.p, vm.n}, e);
	rc = rc != 0 || in->writer == 0 ? rc : add_owner(in, e);
	rc = rc != 0 ? rc : commit_add(&in->entries, COMMIT_LINE, (struct lc_span){line, 32}, e);
	lc_buf_free(&vm);
	return rc;
}

/* Whose contents may be the same as this writer's. */
static int
find_others(struct incoming *in, struct lc_err *e)
{
	size_t i, n;
	int rc = catalog_writers(in->s->catalog, in->others, WRITERS_MAX, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		if (in->others[i] != in->writer)
			in->others[in->nothers++] = in->others[i];
	}
	return rc;
}

int
incoming_begin(struct store *s, uint16_t writer, const struct transfer_point *p,
               struct incoming **out, struct lc_err *e)
{
	struct incoming *in;
	int rc = check_entry(p, e);

	assert(s->writable);
	rc = rc != 0 ? rc : check_owner(s, writer, p, e);
	rc = rc != 0 ? rc : check_place(s, p, e);
	if (rc != 0)
		return rc;
	in = lc_alloc(sizeof *in);
	if (in == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	in->s = s;
	in->writer = writer;
	rc = find_others(in, e);
	rc = rc != 0 ? rc : copy_point_info(in, p, e);
	rc = rc != 0 ? rc : enlist(in, e);
	if (rc != 0) {
		incoming_free(in);
		return rc;
	}
	*out = in;
	return 0;
}

int
incoming_mend(struct store *s, uint16_t writer, struct incoming **out, struct lc_err *e)
{
	struct incoming *in = lc_alloc(sizeof *in);

	assert(s->writable);
	if (in == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	in->s = s;
	in->writer = writer;
	*out = in;
	return 0;
}

int
incoming_damaged(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e)
{
	uint64_t no;

	return catalog_missing(in->s->catalog, in->writer, id, false, &no, e);
}

/* ---- content ---- */

int
incoming_has(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e)
{
	uint64_t no = 0;

	return fold_find_whole(in->s->fold, in->writer, id, &no, e);
}

int
incoming_base(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e)
{
	uint64_t no = 0;

	return store_find_base(in->s, in->writer, id, &no, e);
}

/* What a delta is made upon is here, and whole: else nobody could ever read it. */
static int
check_bases(struct incoming *in, const struct transfer_chunk *c, struct lc_err *e)
{
	const uint8_t *ids;
	size_t n, i;
	int rc = 0;

	ids = chunk_payload_bases(c->payload, &n);
	for (i = 0; rc == 0 && i < n; i++)
		rc = incoming_base(in, ids + i * CHUNK_ID_SIZE, e);
	if (rc == LC_ENOENT)
		(void)lc_fail(e, LC_ENOENT, 0, "chunk: what it is made upon is not here");
	return rc;
}

/* ---- the same content from another writer ---- */

/* The i-th other writer's chunk of an id, where it is durable. */
static int
others_chunk(struct incoming *in, size_t i, const uint8_t *id, uint64_t *no, struct lc_err *e)
{
	struct record r;
	int rc = fold_find_whole(in->s->fold, in->others[i], id, no, e);

	rc = rc != 0 ? rc : catalog_find_chunk(in->s->catalog, *no, &r, e);
	return rc == 0 && (record_is_stub(&r) || chunk_is_delta(r.encoding)) ? LC_ENOENT : rc;
}

int
incoming_shared(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e)
{
	uint64_t no;
	size_t i;
	int rc = LC_ENOENT;

	for (i = 0; rc == LC_ENOENT && i < in->nothers; i++)
		rc = others_chunk(in, i, id, &no, e);
	return rc;
}

/* From now on that chunk is this writer's, too. */
static int
vouch_for(struct incoming *in, const uint8_t *id, uint64_t no, struct lc_err *e)
{
	struct record r = {.type = RECORD_VOUCH, .writer = in->writer};
	struct vouch v = {.seq = no};
	struct lc_buf payload = {0};
	uint8_t key[CHUNK_ID_SIZE];
	int rc;

	memcpy(v.id, id, sizeof v.id);
	rc = vouch_encode(&v, 1, &payload, e);
	r.n = (uint32_t)payload.n;
	rc = rc != 0 ? rc : store_append(in->s, &r, payload.p, NULL, e);
	lc_buf_free(&payload);
	if (rc == 0) {
		fold_key(in->writer, id, key);
		idindex_add(in->s->index, key, no);
	}
	return rc;
}

/* Takes a chunk that another writer has sent, byte for byte.  LC_ENOENT: nobody has. */
static int
share(struct incoming *in, const struct record *r, const struct transfer_chunk *c, struct lc_err *e)
{
	uint8_t *buf = NULL;
	struct record have;
	uint64_t no;
	size_t i;
	int rc = incoming_shared(in, r->id, e);

	if (rc != 0)
		return rc;
	buf = lc_alloc(RECORD_PAYLOAD_MAX);
	if (buf == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0, rc = LC_ENOENT; rc == LC_ENOENT && i < in->nothers; i++) {
		rc = others_chunk(in, i, r->id, &no, e);
		if (rc != 0)
			continue;
		/* What cannot be read is not the same. */
		if (store_chunk_payload(in->s, no, buf, &have, NULL) != 0 ||
		    have.encoding != r->encoding || have.key != r->key || have.n != r->n ||
		    memcmp(buf, c->payload.p, r->n) != 0)
			rc = LC_ENOENT;
		else
			rc = vouch_for(in, r->id, no, e);
	}
	lc_free(buf);
	return rc;
}

int
incoming_prove(struct incoming *in, const uint8_t id[CHUNK_ID_SIZE],
               const uint8_t sum[TRANSFER_SUM_SIZE], struct lc_err *e)
{
	uint8_t *buf = lc_alloc(RECORD_PAYLOAD_MAX), have[TRANSFER_SUM_SIZE];
	struct record r;
	uint64_t no;
	size_t i;
	int rc = buf == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : LC_ENOENT;

	for (i = 0; rc == LC_ENOENT && i < in->nothers; i++) {
		rc = others_chunk(in, i, id, &no, e);
		if (rc != 0)
			continue;
		rc = LC_ENOENT;
		if (store_chunk_payload(in->s, no, buf, &r, NULL) != 0)
			continue;
		seal_sum(r.encoding, r.key, (struct lc_span){buf, r.n}, have);
		if (memcmp(have, sum, sizeof have) == 0)
			rc = vouch_for(in, id, no, e);
	}
	lc_free(buf);
	return rc;
}

int
incoming_chunk(struct incoming *in, const struct transfer_chunk *c, struct lc_err *e)
{
	struct record r = {.type = RECORD_CHUNK,
	                   .writer = in->writer,
	                   .encoding = c->encoding,
	                   .key = c->key,
	                   .n = (uint32_t)c->payload.n};
	uint64_t no;
	int rc;

	if (c->encoding > CHUNK_PREFIX)
		return lc_fail(e, LC_EVERSION, 0, "chunk: unknown encoding %u", c->encoding);
	if (!chunk_payload_ok(c->payload, c->encoding))
		return lc_fail(e, LC_ECORRUPT, 0, "chunk: malformed payload");
	memcpy(r.id, chunk_payload_id(c->payload), CHUNK_ID_SIZE);
	if (lc_is_zero(r.id, sizeof r.id)) /* is what rows call "all zero" */
		return lc_fail(e, LC_ECORRUPT, 0, "chunk: malformed id");
	rc = check_bases(in, c, e);
	if (rc != 0)
		return rc;
	/* A whole one is wanted where the one that is here is a delta, too. */
	rc = chunk_is_delta(c->encoding) ? incoming_has(in, r.id, e) : incoming_base(in, r.id, e);
	if (rc == LC_ENOENT && in->nothers > 0 && !chunk_is_delta(c->encoding))
		rc = share(in, &r, c, e);
	return rc != LC_ENOENT ? rc : store_append_chunk(in->s, &r, c->payload.p, &no, e);
}

/* What takes the place of something damaged does so when the catalog has it. */
static int
find_chunk(struct incoming *in, struct map_row *row, struct lc_err *e)
{
	struct store *s = in->s;
	int rc = fold_find(s->fold, in->writer, row->id, &row->chunk, e);

	if (rc == LC_ENOENT && s->fold->missing) {
		rc = store_flush(s, e);
		rc = rc != 0 ? rc : fold_find(s->fold, in->writer, row->id, &row->chunk, e);
	}
	if (rc == LC_ENOENT)
		(void)lc_fail(e, LC_ENOENT, 0, "map: a chunk that it names is not here");
	if (s->fold->missing) /* which number it has is for the catalog to say */
		row->chunk = 0;
	return rc;
}

int
incoming_rows(struct incoming *in, struct lc_span payload, struct lc_err *e)
{
	struct record r = {.type = RECORD_MAP, .writer = in->writer, .n = (uint32_t)payload.n};
	struct map_record *m = in->scratch;
	struct set_sum one;
	size_t i;
	int rc = maprec_decode(payload, m, e);

	if (rc == 0 && (memcmp(m->point, in->id, 16) != 0 || memcmp(m->line, in->line, 16) != 0))
		rc = lc_fail(e, LC_ECORRUPT, 0, "map: rows of another restore point");
	m->writer = in->writer;
	for (i = 0; rc == 0 && i < m->n; i++) {
		if (maprec_zero(&m->rows[i]))
			continue;
		rc = find_chunk(in, &m->rows[i], e);
	}
	if (rc != 0)
		return rc;
	for (i = 0; i < m->n; i++) {
		set_row(NULL, m->disk, m->rows[i].window, m->rows[i].id, &one);
		set_add(&in->sum, &one);
	}
	in->rows += m->n;
	in->scratch = lc_alloc(sizeof *in->scratch);
	if (in->scratch == NULL) {
		in->scratch = m;
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	rc = store_append(in->s, &r, payload.p, m, e); /* takes m */
	return rc != 0 ? rc : store_relieve(in->s, e);
}

/* ---- end ---- */

static int
finish(struct incoming_end *x, struct group_entry *g)
{
	struct incoming *in = x->in;
	struct commit_folded f = {.rows = in->rows};
	int rc;

	if (x->rows != in->rows || memcmp(&x->sum, &in->sum, sizeof x->sum) != 0)
		return lc_fail(&x->err, LC_ECORRUPT, 0,
		               "its rows did not all come, or not as they were sent");
	memcpy(f.point, in->id, 16);
	memcpy(f.base, in->base, 16);
	memcpy(f.sum, in->sum.v, sizeof f.sum);
	rc = commit_add_folded(&in->entries, &f, &x->err);
	rc = rc != 0 ? rc
	             : commit_add(&in->entries, COMMIT_POINT,
	                          (struct lc_span){in->entry.p, in->entry.n}, &x->err);
	g->sent = true;
	g->writer = in->writer;
	memcpy(g->vm, in->vm, sizeof g->vm);
	memcpy(g->line, in->line, sizeof g->line);
	memcpy(g->base, in->base, sizeof g->base);
	g->entries = in->entries;
	in->entries = (struct lc_buf){0};
	return rc;
}

static void
commit_ready(struct store *s, struct incoming_end *ends, struct group_entry *groups, size_t n)
{
	struct group_entry **list = lc_alloc_array(n, sizeof(struct group_entry *));
	size_t i, k = 0;

	for (i = 0; list != NULL && i < n; i++) {
		if (ends[i].rc == 0)
			list[k++] = &groups[i];
	}
	if (k > 0)
		group_commit(s, list, k);
	for (i = 0; i < n; i++) {
		if (ends[i].rc != 0)
			continue;
		if (list == NULL) {
			ends[i].rc = lc_fail(&ends[i].err, LC_ENOMEM, 0, "out of memory");
			continue;
		}
		ends[i].rc = groups[i].rc;
		ends[i].err = groups[i].err;
	}
	lc_free(list);
}

void
incoming_commit(struct incoming_end *ends, size_t n)
{
	struct group_entry *groups = lc_alloc_array(n, sizeof *groups);
	struct store *s;
	size_t i;

	if (n == 0)
		return;
	s = ends[0].in->s;
	for (i = 0; i < n; i++)
		ends[i].rc = groups == NULL ? lc_fail(&ends[i].err, LC_ENOMEM, 0, "out of memory")
		                            : finish(&ends[i], &groups[i]);
	if (groups != NULL)
		commit_ready(s, ends, groups, n);
	for (i = 0; i < n; i++) {
		struct incoming *in = ends[i].in;

		ends[i].in = NULL;
		if (groups != NULL)
			lc_buf_free(&groups[i].entries);
		if (ends[i].rc != 0) {
			incoming_abort(in);
			continue;
		}
		(void)catalog_age(s->catalog, in->line, RECENT_KEEP, NULL);
		incoming_free(in);
	}
	lc_free(groups);
}

void
incoming_abort(struct incoming *in)
{
	struct store *s;
	uint8_t id[16];

	bool rows;

	if (in == NULL)
		return;
	s = in->s;
	memcpy(id, in->id, sizeof id);
	rows = in->rows > 0;
	incoming_free(in);
	if (rows)
		store_discard(s, id);
}

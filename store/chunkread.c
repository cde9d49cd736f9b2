/*
 * Reading one chunk.  A delta takes its bases, which are whole: so one chunk costs at most five
 * decodings, whatever lies in the store.
 */
#include <inttypes.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/bases.h"
#include "store/seal.h"
#include "store/store_internal.h"

struct deltas { /* what reading deltas takes */
	uint8_t payload[CHUNK_PAYLOAD_MAX];
	uint8_t bases[CHUNK_BASES_MAX * WINDOW_SIZE];
};

#define ROWS 64u /* looked up at once */

struct rows { /* of the chunks that are read next */
	uint64_t chunks[ROWS];
	struct record records[ROWS]; /* where each lies, or seq 0 */
	bool is_base[ROWS];
	size_t n;
};

struct chunk_reader {
	struct store *s;
	struct sealer *sealer;
	struct deltas *deltas; /* NULL until there is one */
	const struct thin_source *from;
	struct rows rows;
	uint8_t payload[RECORD_PAYLOAD_MAX];
};

int
chunk_reader_new(struct store *s, struct chunk_reader **out, struct lc_err *e)
{
	struct chunk_reader *r;
	int rc;

	if (s->keyring == NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s: no key to read with", s->dir);
	r = lc_alloc(sizeof *r);
	if (r == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	r->s = s;
	rc = sealer_new(s->keyring, 1, &r->sealer, e);
	if (rc != 0) {
		lc_free(r);
		return rc;
	}
	*out = r;
	return 0;
}

void
chunk_reader_free(struct chunk_reader *r)
{
	if (r == NULL)
		return;
	sealer_free(r->sealer);
	lc_free(r->deltas);
	lc_free(r);
}

void
chunk_reader_from(struct chunk_reader *r, const struct thin_source *from)
{
	r->from = from;
}

static void
name_chunk(struct chunk_reader *r, const struct record *rec, struct lc_err *e)
{
	char name[32], hex[17];

	lc_wrap(e, "store %s: segments/%s, offset %" PRIu64 ", chunk %s", r->s->dir,
	        segment_called(r->s->segments, name, rec->segment), rec->off,
	        lc_hex(hex, rec->id, 8));
}

/* The payload of a chunk by its number, into r->payload. */
static int
get_payload(struct chunk_reader *r, uint64_t chunk, struct record *rec, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	int rc = 0;

	memset(rec, 0, sizeof *rec);
	rc = store_chunk_row(r->s, chunk, rec, &err);
	rc = rc != 0 ? rc : store_payload_from(r->s, r->from, chunk, r->payload, rec, &err);
	if (rc == LC_ENOENT && rec->segment == 0)
		return lc_fail(e, LC_ECORRUPT, 0,
		               "store %s: the catalog has no chunk %" PRIu64
		               " (make it again: locum store rebuild)",
		               r->s->dir, chunk);
	return rc != 0 ? lc_fail(e, (enum lc_code)rc, 0, "%s", err.msg) : 0;
}

/* The number of a base.  Who only reads has no index of ids, but the catalog knows the bases of
 * each delta; the index is for those that are none yet (owner 0), or whose record is elsewhere. */
static int
find_base(struct chunk_reader *r, uint64_t owner, const uint8_t *id, uint64_t *no, struct lc_err *e)
{
	uint64_t bases[CHUNK_BASES_MAX];
	struct record rec;
	size_t n = 0, i;
	int rc = owner == 0 ? 0 : catalog_bases(r->s->catalog, owner, bases, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		rc = catalog_chunk(r->s->catalog, bases[i], &rec, e);
		*no = bases[i];
		if (rc == 0 && memcmp(rec.id, id, CHUNK_ID_SIZE) == 0)
			return 0;
	}
	if (rc == 0)
		rc = r->s->fold->index == NULL ? LC_ENOENT : fold_resolve(r->s->fold, id, no, e);
	return rc;
}

/* The payload of a base, into r->payload.  Where the delta came from a replica, nothing here need
 * know of its bases. */
static int
get_base_payload(struct chunk_reader *r, uint64_t owner, const uint8_t *id, struct record *rec,
                 struct lc_err *e)
{
	uint64_t no = 0;
	char hex[17];
	int rc = find_base(r, owner, id, &no, e);

	if (rc == 0)
		return get_payload(r, no, rec, e);
	if (rc == LC_ENOENT && r->s->fold->thin)
		return store_fetch_payload(r->s, r->from, id, r->payload, rec, e);
	if (rc == LC_ENOENT)
		rc = lc_fail(e, LC_ECORRUPT, 0, "its base %s is not here", lc_hex(hex, id, 8));
	return rc;
}

/* A base, known by its id; what was found to be bad is tried all the same. */
static int
read_base(struct chunk_reader *r, uint64_t owner, const uint8_t *id, bool check, uint8_t *window,
          struct lc_err *e)
{
	uint8_t got[CHUNK_ID_SIZE];
	struct record rec = {.segment = 0};
	struct lc_span payload = {.p = r->payload};
	int rc = get_base_payload(r, owner, id, &rec, e);

	if (rc != 0)
		return rc;
	payload.n = rec.n;
	if (check) {
		rc = open_chunk(r->sealer, payload, rec.encoding, rec.key, window, got, e);
	} else {
		rc = open_base(r->sealer, payload, rec.encoding, rec.key, window, e);
		memcpy(got, payload.n < CHUNK_HEAD_SIZE ? rec.id : payload.p, sizeof got);
	}
	if (rc == LC_ECONFLICT) { /* a delta */
		rc = LC_ECORRUPT;
		if (e != NULL)
			e->code = LC_ECORRUPT;
	}
	if (rc == 0 && memcmp(got, id, CHUNK_ID_SIZE) != 0)
		rc = lc_fail(e, LC_ECORRUPT, 0, "another chunk lies there");
	if (rc != 0)
		name_chunk(r, &rec, e);
	return rc;
}

static int
make_room(struct chunk_reader *r, struct lc_err *e)
{
	if (r->deltas == NULL)
		r->deltas = lc_alloc(sizeof *r->deltas);
	return r->deltas != NULL ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* check: compared with their ids, all that were read at once; one that differs is read again, to
 * say what it is. */
static int
get_bases(struct chunk_reader *r, uint64_t owner, const uint8_t *ids, size_t n, bool check,
          struct lc_err *e)
{
	uint8_t got[CHUNK_BASES_MAX][CHUNK_ID_SIZE], *windows = r->deltas->bases;
	const uint8_t *at[CHUNK_BASES_MAX];
	size_t i, nread = 0, which[CHUNK_BASES_MAX];
	int rc = 0;

	for (i = 0; rc == 0 && i < n && i < CHUNK_BASES_MAX; i++) {
		const uint8_t *id = ids + i * CHUNK_ID_SIZE;

		if (bases_get(r->s->bases, id, check, windows + i * WINDOW_SIZE))
			continue;
		rc = read_base(r, owner, id, false, windows + i * WINDOW_SIZE, e);
		at[nread] = windows + i * WINDOW_SIZE;
		which[nread++] = i;
	}
	if (rc == 0 && check)
		seal_ids(r->s->keyring, at, nread, got);
	for (i = 0; rc == 0 && i < nread; i++) {
		const uint8_t *id = ids + which[i] * CHUNK_ID_SIZE;

		if (check && memcmp(got[i], id, CHUNK_ID_SIZE) != 0)
			rc = read_base(r, owner, id, true, windows + which[i] * WINDOW_SIZE, e);
		if (rc == 0)
			bases_put(r->s->bases, id, check, at[i]);
	}
	return rc;
}

int
chunk_bases(struct chunk_reader *r, uint64_t owner, const uint8_t *ids, size_t n,
            const uint8_t **bases, struct lc_err *e)
{
	int rc = make_room(r, e);

	rc = rc != 0 ? rc : get_bases(r, owner, ids, n, true, e);
	if (rc == 0)
		*bases = r->deltas->bases;
	return rc;
}

int
chunk_read_bases(struct chunk_reader *r, uint64_t chunk, uint8_t *ids, size_t *n)
{
	const uint8_t *in;
	struct record rec;
	int rc = get_payload(r, chunk, &rec, NULL);

	if (rc != 0)
		return rc;
	if (!chunk_is_delta(rec.encoding) ||
	    !chunk_payload_ok((struct lc_span){r->payload, rec.n}, rec.encoding))
		return LC_ECORRUPT;
	in = chunk_payload_bases((struct lc_span){r->payload, rec.n}, n);
	memcpy(ids, in, *n * CHUNK_ID_SIZE);
	return 0;
}

/* Its payload is in r->payload, and goes to r->deltas: those of the bases come to the former.
 * Whether the bases are right shows in what comes of them. */
static int
apply_delta(struct chunk_reader *r, const struct record *rec, uint8_t *window, uint8_t *id,
            struct lc_err *e)
{
	struct lc_span payload = {.n = rec->n};
	const uint8_t *ids;
	size_t n;
	int rc = make_room(r, e);

	if (rc != 0 || r->deltas == NULL)
		return rc;
	payload.p = memcpy(r->deltas->payload, r->payload, rec->n);
	if (!chunk_payload_ok(payload, rec->encoding))
		return lc_fail(e, LC_ECORRUPT, 0, "chunk: malformed payload");
	ids = chunk_payload_bases(payload, &n);
	rc = get_bases(r, rec->seq, ids, n, false, e);
	return rc != 0 ? rc
	               : open_delta(r->sealer, payload, rec->encoding, rec->key, r->deltas->bases,
	                            window, id, e);
}

static int
read_delta(struct chunk_reader *r, const struct record *rec, uint8_t *window, uint8_t *id,
           struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	const uint8_t *ids, *bases;
	struct lc_span payload;
	size_t n;
	int rc = apply_delta(r, rec, window, id, &err);

	if (rc == 0)
		return 0;
	if (rc != LC_ECORRUPT)
		return lc_fail(e, (enum lc_code)rc, 0, "%s", err.msg);
	/* Again, to say which one it was. */
	payload = (struct lc_span){r->deltas->payload, rec->n};
	if (!chunk_payload_ok(payload, rec->encoding))
		return lc_fail(e, LC_ECORRUPT, 0, "%s", err.msg);
	ids = chunk_payload_bases(payload, &n);
	rc = chunk_bases(r, rec->seq, ids, n, &bases, e);
	return rc != 0
	           ? rc
	           : open_delta(r->sealer, payload, rec->encoding, rec->key, bases, window, id, e);
}

int
chunk_read(struct chunk_reader *r, uint64_t chunk, uint8_t *window, uint8_t *id, struct lc_err *e)
{
	uint8_t got[CHUNK_ID_SIZE];
	struct record rec;
	int rc = get_payload(r, chunk, &rec, e);

	if (rc != 0)
		return rc;
	if (chunk_is_delta(rec.encoding))
		rc = read_delta(r, &rec, window, got, e);
	else
		rc = open_chunk(r->sealer, (struct lc_span){r->payload, rec.n}, rec.encoding,
		                rec.key, window, got, e);
	if (rc == 0 && memcmp(got, rec.id, CHUNK_ID_SIZE) != 0)
		rc = lc_fail(e, LC_ECORRUPT, 0, "another chunk lies there");
	if (rc != 0) {
		memset(window, 0, WINDOW_SIZE);
		name_chunk(r, &rec, e);
		return rc;
	}
	if (id != NULL)
		memcpy(id, got, CHUNK_ID_SIZE);
	return 0;
}

/* All but whether the content is what the id names.  rec: where it lies, or seq 0. */
static int
decode(struct chunk_reader *r, uint64_t chunk, struct record *rec, uint8_t *window,
       struct lc_err *e)
{
	int rc = rec->seq != 0 ? store_payload_from(r->s, r->from, chunk, r->payload, rec, e)
	                       : get_payload(r, chunk, rec, e);

	if (rc != 0)
		return rc;
	if (chunk_is_delta(rec->encoding))
		rc = apply_delta(r, rec, window, NULL, e);
	else
		rc = open_base(r->sealer, (struct lc_span){r->payload, rec->n}, rec->encoding,
		               rec->key, window, e);
	if (rc != 0)
		name_chunk(r, rec, e);
	return rc;
}

/* The place of the first of n chunks among the rows, where they are all there. */
static size_t
find_rows(const struct rows *rows, const uint64_t *chunks, size_t n)
{
	size_t i = 0;

	while (i < rows->n && rows->chunks[i] != chunks[0])
		i++;
	return rows->n - i >= n && memcmp(rows->chunks + i, chunks, n * sizeof *chunks) == 0
	           ? i
	           : rows->n;
}

/* Those of the first n chunks, of which there are more; the place of the first. */
static size_t
get_rows(struct chunk_reader *r, const uint64_t *chunks, size_t n, size_t more)
{
	struct rows *rows = &r->rows;
	size_t at = find_rows(rows, chunks, n);

	if (at < rows->n)
		return at;
	rows->n = more < ROWS ? more : ROWS;
	memcpy(rows->chunks, chunks, rows->n * sizeof *chunks);
	catalog_chunks(r->s->catalog, chunks, rows->n, rows->records);
	catalog_which_are_bases(r->s->catalog, chunks, rows->n, rows->is_base);
	return 0;
}

int
chunk_read_many(struct chunk_reader *r, const uint64_t *chunks, size_t n, uint8_t *windows,
                uint8_t (*ids)[CHUNK_ID_SIZE], size_t *good, struct lc_err *e)
{
	const uint8_t *at[CHUNK_MANY] = {NULL};
	struct lc_err err = LC_ERR_INIT;
	struct record *rec;
	const bool *is_base;
	size_t i, made, more = n;
	int rc = 0;

	n = n < CHUNK_MANY ? n : CHUNK_MANY;
	i = get_rows(r, chunks, n, more);
	rec = r->rows.records + i;
	is_base = r->rows.is_base + i;
	for (made = 0; made < n; made++) {
		at[made] = windows + made * WINDOW_SIZE;
		rc = decode(r, chunks[made], &rec[made], windows + made * WINDOW_SIZE, &err);
		if (rc != 0)
			break;
	}
	seal_ids(r->s->keyring, at, made, ids);
	for (i = 0; i < made && memcmp(ids[i], rec[i].id, CHUNK_ID_SIZE) == 0; i++) {
		/* Its deltas mostly come soon. */
		if (is_base[i])
			bases_put(r->s->bases, ids[i], true, at[i]);
	}
	*good = i;
	if (i == n)
		return 0;
	memset(windows + i * WINDOW_SIZE, 0, WINDOW_SIZE);
	if (i == made && rc != LC_ECORRUPT) /* it may have taken a while to find that out */
		return lc_fail(e, (enum lc_code)rc, 0, "%s", err.msg);
	/* Again by itself, to say what it is; a base that was changed in memory is read again, too.
	 */
	rc = chunk_read(r, chunks[i], windows + i * WINDOW_SIZE, ids[i], e);
	*good += rc == 0;
	return rc;
}

/*
 * Giving contents to another store: as they lie here, in order of their points or by their ids.
 */
#include <string.h>

#include "store/outgoing_internal.h"
#include "store/store_internal.h"

void
outgoing_expect(struct outgoing *o, const uint64_t *chunks, size_t n)
{
	o->nexpected = n < TRANSFER_EXPECT_MAX ? n : TRANSFER_EXPECT_MAX;
	memcpy(o->expected, chunks, o->nexpected * sizeof *chunks);
	catalog_chunks(o->s->catalog, o->expected, o->nexpected, o->records);
}

static struct record
where_expected(const struct outgoing *o, uint64_t no)
{
	size_t i;

	for (i = 0; i < o->nexpected; i++) {
		if (o->expected[i] == no)
			return o->records[i];
	}
	return (struct record){.segment = 0};
}

int
outgoing_chunk(struct outgoing *o, uint64_t no, uint8_t *buf, struct transfer_chunk *out,
               struct lc_err *e)
{
	struct record r = where_expected(o, no); /* it may be elsewhere by now, which is seen */
	int rc = r.segment != 0 ? store_payload_at(o->s, no, buf, &r, e)
	                        : store_chunk_payload(o->s, no, buf, &r, e);

	if (rc != 0)
		return rc;
	out->encoding = r.encoding;
	out->key = r.key;
	out->payload = (struct lc_span){buf, r.n};
	return 0;
}

/* from: as chunk_reader_from(). */
static int
make_whole(struct outgoing *o, const struct thin_source *from, uint64_t no, uint8_t *buf,
           struct transfer_chunk *out, struct lc_err *e)
{
	uint8_t *window = lc_alloc(WINDOW_SIZE), id[CHUNK_ID_SIZE];
	struct chunk_reader *r = NULL;
	struct sealer *s = NULL;
	int rc = window == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : 0;

	rc = rc != 0 ? rc : chunk_reader_new(o->s, &r, e);
	if (rc == 0)
		chunk_reader_from(r, from);
	rc = rc != 0 ? rc : sealer_new(o->s->keyring, SEAL_LEVEL, &s, e);
	rc = rc != 0 ? rc : chunk_read(r, no, window, id, e);
	rc = rc != 0
	         ? rc
	         : seal_chunk(s, window, id, buf, &out->payload.n, &out->encoding, &out->key, e);
	out->payload.p = buf;
	sealer_free(s);
	chunk_reader_free(r);
	lc_free(window);
	return rc;
}

/* Where its bytes are elsewhere, or were stored anew meanwhile, it may come as a delta. */
int
outgoing_base(struct outgoing *o, uint64_t no, uint8_t *buf, struct transfer_chunk *out,
              struct lc_err *e)
{
	int rc = outgoing_chunk(o, no, buf, out, e);

	return rc != 0 || !chunk_is_delta(out->encoding) ? rc
	                                                 : make_whole(o, NULL, no, buf, out, e);
}

int
outgoing_bases(struct outgoing *o, const uint64_t *chunks, size_t n, struct lc_buf *out,
               struct lc_err *e)
{
	return catalog_bases_of(o->s->catalog, chunks, n, out, e);
}

int
outgoing_id(struct outgoing *o, uint64_t no, uint8_t id[CHUNK_ID_SIZE], struct lc_err *e)
{
	struct record r;
	int rc = catalog_chunk(o->s->catalog, no, &r, e);

	if (rc == 0)
		memcpy(id, r.id, CHUNK_ID_SIZE);
	return rc;
}

int
outgoing_contents(struct store *s, uint16_t writer, struct outgoing **out, struct lc_err *e)
{
	struct outgoing *o = lc_alloc(sizeof *o);

	if (o == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	o->s = s;
	o->writer = writer;
	o->lease_fd = -1;
	*out = o;
	return 0;
}

void
outgoing_source(struct outgoing *o, const struct thin_source *from)
{
	o->from = *from;
}

int
outgoing_find(struct outgoing *o, const uint8_t id[CHUNK_ID_SIZE], uint64_t *no, struct lc_err *e)
{
	int rc = store_need_ids(o->s, e);

	rc = rc != 0 ? rc : fold_find(o->s->fold, o->writer, id, no, e);
	if (rc == LC_ENOENT && catalog_missing(o->s->catalog, o->writer, id, false, no, NULL) == 0)
		return lc_fail(e, LC_ECORRUPT, 0, "it is damaged here, too");
	return rc;
}

bool
outgoing_is_delta(struct outgoing *o, uint64_t no)
{
	struct record r;

	return catalog_chunk(o->s->catalog, no, &r, NULL) == 0 && chunk_is_delta(r.encoding);
}

int
outgoing_mend(struct outgoing *o, uint64_t no, uint8_t *buf, struct transfer_chunk *out,
              struct lc_err *e)
{
	struct record r;
	int rc = catalog_chunk(o->s->catalog, no, &r, e);

	if (rc != 0)
		return rc;
	if (record_is_stub(&r))
		return make_whole(o, o->from.fetch == NULL ? NULL : &o->from, no, buf, out, e);
	return o->s->keyring == NULL ? outgoing_chunk(o, no, buf, out, e)
	                             : outgoing_base(o, no, buf, out, e);
}

/* What is elsewhere is not fetched for this. */
static bool
is_whole_here(struct outgoing *o, uint64_t no)
{
	struct record r;

	return catalog_chunk(o->s->catalog, no, &r, NULL) == 0 && r.segment != 0 &&
	       !record_is_stub(&r) && !chunk_is_delta(r.encoding);
}

int
outgoing_sums(struct outgoing *o, const uint64_t *chunks, uint32_t n, const uint8_t *bits,
              uint8_t *buf, struct lc_buf *out, struct lc_err *e)
{
	uint8_t sum[TRANSFER_SUM_SIZE];
	struct transfer_chunk c;
	uint32_t i;

	for (i = 0; i < n; i++) {
		if ((bits[i / 8] >> (i % 8) & 1) == 0)
			continue;
		memset(sum, 0, sizeof sum);
		if (is_whole_here(o, chunks[i]) && outgoing_chunk(o, chunks[i], buf, &c, NULL) == 0)
			transfer_sum(&c, sum);
		if (lc_buf_append(out, sum, sizeof sum) != 0)
			return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	return 0;
}

/*
 * What a replica gives back to the store that it has it from (transfer.h).
 */
#include <string.h>

#include "store/store_internal.h"
#include "store/transfer.h"

/* In the catalog is what was durable before.  What another writer has sent is this one's from when
 * its word for that is there, too: the index in memory knows that word earlier. */
static int
find_durable(struct store *s, uint16_t writer, const uint8_t id[CHUNK_ID_SIZE], uint64_t *no,
             struct lc_err *e)
{
	uint64_t vouched = 0;
	struct record r;
	int rc = fold_find_whole(s->fold, writer, id, no, e);

	if (rc == 0)
		rc = catalog_find_chunk(s->catalog, *no, &r, e);
	if (rc == 0 && r.segment == 0)
		return LC_ENOENT;
	if (rc == 0 && r.writer != writer)
		rc = catalog_vouch(s->catalog, writer, id, &vouched, e);
	return rc == 0 && r.writer != writer && vouched != *no ? LC_ENOENT : rc;
}

int
transfer_has(struct store *s, uint16_t writer, const uint8_t id[CHUNK_ID_SIZE], struct lc_err *e)
{
	uint64_t no;

	return find_durable(s, writer, id, &no, e);
}

int
transfer_read(struct store *s, uint16_t writer, const uint8_t id[CHUNK_ID_SIZE], uint8_t *buf,
              struct transfer_chunk *out, struct lc_err *e)
{
	struct record r;
	uint64_t no;
	int rc = find_durable(s, writer, id, &no, e);

	rc = rc != 0 ? rc : store_chunk_payload(s, no, buf, &r, e);
	if (rc != 0)
		return rc;
	out->encoding = r.encoding;
	out->key = r.key;
	out->payload = (struct lc_span){buf, r.n};
	return 0;
}

int
transfer_condemn(struct store *s, uint16_t writer, const uint8_t id[CHUNK_ID_SIZE],
                 struct lc_err *e)
{
	struct damage d = {.type = RECORD_CHUNK, .length = 1};
	struct record r;
	uint64_t no;
	int rc = find_durable(s, writer, id, &no, e);

	rc = rc != 0 ? rc : catalog_chunk(s->catalog, no, &r, e);
	if (rc != 0)
		return rc;
	d.segment = r.segment;
	d.offset = r.off;
	d.seq = no;
	return store_condemn(s, &d, 1, NULL, e);
}

int
transfer_line_writer(struct store *s, const uint8_t line[16], uint16_t *writer, struct lc_err *e)
{
	uint8_t vm[16];

	return catalog_line_writer(s->catalog, line, vm, writer, e);
}

int
transfer_bytes(struct store *s, uint16_t writer, uint64_t *bytes, struct lc_err *e)
{
	return catalog_writer_bytes(s->catalog, writer, bytes, e);
}

int
transfer_zeros(struct store *s, uint16_t writer, uint64_t *bytes, struct lc_err *e)
{
	int rc = catalog_writer_zeros(s->catalog, writer, bytes, e);

	*bytes *= TRANSFER_ZERO_COST;
	return rc;
}

void
transfer_sum(const struct transfer_chunk *c, uint8_t sum[TRANSFER_SUM_SIZE])
{
	seal_sum(c->encoding, c->key, c->payload, sum);
}

#include <string.h>

#include "replicator/batch.h"

static int
no_memory(struct lc_err *e)
{
	return lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* One OFFER is left for what mends; of the rest, one for each point that is under way, and half of
 * what remains for what goes ahead: it waits for room that no point needs, and may keep none from
 * them meanwhile. */
#define OPEN_FIRST (ASKED_ALL_MAX - OFFER_IDS_MAX)
#define OPEN_MORE (OPEN_FIRST - BATCHES_LINES * OFFER_IDS_MAX)
#define OPEN_AHEAD (OPEN_MORE / 2)
_Static_assert(BATCHES_MAX <= ASKED_MAX / OFFER_IDS_MAX, "a line offers no more than is taken");
_Static_assert(BATCHES_LINES *BATCHES_MAX *BATCH_ROWS <= OPEN_MORE, "without bases nothing waits");

bool
batch_fits(uint32_t open, enum batch_place place)
{
	uint32_t most = place == BATCH_FIRST  ? OPEN_FIRST
	                : place == BATCH_MORE ? OPEN_MORE
	                                      : OPEN_AHEAD;

	return open + OFFER_IDS_MAX <= most;
}

struct batch *
batch_new(void)
{
	return lc_alloc(sizeof(struct batch));
}

/* Whether one of the last ids, from the first-th on, is that. */
static bool
named(const struct batch *b, uint32_t first, const uint8_t *id)
{
	uint32_t i;

	/* Equal windows mostly lie together; what this misses is sent once all the same. */
	for (i = b->n > first + 8 ? b->n - 8 : first; i < b->n; i++) {
		if (memcmp(b->ids.p + (size_t)i * CHUNK_ID_SIZE, id, CHUNK_ID_SIZE) == 0)
			return true;
	}
	return false;
}

static int
name_chunk(struct batch *b, uint32_t first, uint64_t no, const uint8_t *id, struct lc_err *e)
{
	if (named(b, first, id))
		return 0;
	if (lc_buf_append(&b->ids, id, CHUNK_ID_SIZE) != 0)
		return no_memory(e);
	b->chunks[b->n++] = no;
	return 0;
}

static int
name_bases(struct batch *b, struct outgoing *o, const struct map_record *m, struct lc_err *bad,
           struct lc_err *e)
{
	uint64_t chunks[BATCH_ROWS];
	struct lc_buf bases = {0};
	struct map_base one;
	size_t i, n = 0, off;
	int rc = 0;

	for (i = 0; i < m->n; i++) {
		if (!maprec_zero(&m->rows[i]))
			chunks[n++] = m->rows[i].chunk;
	}
	(void)outgoing_bases(o, chunks, n, &bases, bad);
	for (off = 0; rc == 0 && bad->code == LC_OK && off < bases.n; off += sizeof one) {
		memcpy(&one, bases.p + off, sizeof one);
		rc = name_chunk(b, 0, one.no, one.id, e);
	}
	lc_buf_free(&bases);
	b->nbases = b->n;
	return rc;
}

int
batch_fill(struct batch *b, struct outgoing *o, struct map_record *rows, struct set_sum *sum,
           struct lc_err *bad, struct lc_err *e)
{
	struct set_sum one;
	size_t i;
	int rc;

	b->chunks = lc_alloc_array(rows->n * (1 + CHUNK_BASES_MAX), sizeof *b->chunks);
	if (b->chunks == NULL)
		return no_memory(e);
	rc = name_bases(b, o, rows, bad, e);
	for (i = 0; rc == 0 && bad->code == LC_OK && i < rows->n; i++) {
		const struct map_row *r = &rows->rows[i];

		set_row(NULL, rows->disk, r->window, r->id, &one);
		set_add(sum, &one);
		if (!maprec_zero(r))
			rc = name_chunk(b, b->nbases, r->chunk, r->id, e);
	}
	if (rc != 0 || bad->code != LC_OK)
		return rc;
	b->answered = b->n == 0;
	return maprec_encode(rows, &b->payload, e);
}

uint32_t
batch_answer(struct batch *b, const uint8_t *bits)
{
	uint32_t i, wanted = 0;

	memcpy(b->bits, bits, (b->n + 7) / 8);
	b->answered = true;
	for (i = 0; i < b->n; i++)
		wanted += batch_wants(b, i) ? 1 : 0;
	return wanted;
}

void
batch_expect(struct batch *b, struct outgoing *o)
{
	uint64_t chunks[TRANSFER_EXPECT_MAX];
	uint32_t i;
	size_t n = 0;

	if (b->next < b->expected)
		return;
	for (i = b->next; i < b->n && n < TRANSFER_EXPECT_MAX; i++) {
		if (batch_wants(b, i))
			chunks[n++] = b->chunks[i];
	}
	b->expected = i;
	outgoing_expect(o, chunks, n);
}

bool
batch_wants(const struct batch *b, uint32_t i)
{
	return (b->bits[i / 8] >> (i % 8) & 1) != 0;
}

void
batch_free(struct batch *b)
{
	if (b == NULL)
		return;
	lc_buf_free(&b->payload);
	lc_buf_free(&b->ids);
	lc_free(b->chunks);
	lc_free(b);
}

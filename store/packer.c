/*
 * Whole or delta.
 *
 * Each delta after the first pays once more for all that has changed since the base.  What it pays
 * beside its own change is x = delta - step; the window is stored whole again when what was paid so
 * far has come to half of what a whole one costs.  With changes of even size the sum of all x is
 * x * x / (2 * step), so nothing has to be remembered.  A window in which the same place changes
 * again and again has x = 0 and never needs it.  Measured: docs/DESIGN.md.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/packer.h"
#include "store/store_internal.h"

#define PAGE_SIZE 4096u
#define WORTH_NUM 7u /* of 10: kept where it takes at most so much of the whole */

struct packer {
	struct store *s;
	struct sealer *sealer;
	int level;
	struct chunk_reader *reader; /* NULL until there was a predecessor */
	uint8_t old[WINDOW_SIZE];
	uint8_t payload[CHUNK_PAYLOAD_MAX], spare[CHUNK_PAYLOAD_MAX];
};

struct origin { /* what a window may be a delta against */
	size_t n;
	uint8_t ids[CHUNK_BASES_MAX * CHUNK_ID_SIZE];
	uint8_t old_id[CHUNK_ID_SIZE];
	bool old_is_delta;
	size_t whole; /* bytes of the first base's payload */
};

int
packer_new(struct store *s, int level, struct packer **out, struct lc_err *e)
{
	struct packer *p = lc_alloc(sizeof *p);
	int rc;

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	p->s = s;
	rc = sealer_new(s->keyring, level, &p->sealer, e);
	if (rc != 0) {
		lc_free(p);
		return rc;
	}
	*out = p;
	return 0;
}

void
packer_free(struct packer *p)
{
	if (p == NULL)
		return;
	sealer_free(p->sealer);
	chunk_reader_free(p->reader);
	lc_free(p);
}

bool
packer_worth(const struct packer_sizes *z)
{
	return z->delta <= z->whole * WORTH_NUM / 10;
}

bool
packer_outgrown(const struct packer_sizes *z)
{
	uint64_t x = z->delta > z->step ? z->delta - z->step : 0;

	return x > 0 && x * x >= (uint64_t)z->whole * z->step;
}

/* The bases of a chunk that is here: itself, or those of a delta. */
static bool
find_origin(struct packer *p, uint64_t old, struct origin *o)
{
	struct record r;
	uint64_t no;
	size_t i;

	if (catalog_chunk(p->s->catalog, old, &r, NULL) != 0 || r.segment == 0 ||
	    record_is_stub(&r))
		return false;
	memcpy(o->old_id, r.id, CHUNK_ID_SIZE);
	o->old_is_delta = chunk_is_delta(r.encoding);
	o->n = 1;
	memcpy(o->ids, r.id, CHUNK_ID_SIZE);
	if (o->old_is_delta && chunk_read_bases(p->reader, old, o->ids, &o->n) != 0)
		return false;
	/* From the last to the first: the size of that is taken. */
	for (i = o->n; i > 0; i--) {
		if (store_find_base(p->s, o->ids + (i - 1) * CHUNK_ID_SIZE, &no, NULL) != 0 ||
		    catalog_chunk(p->s->catalog, no, &r, NULL) != 0)
			return false;
	}
	o->whole = r.n;
	return true;
}

/* Whether at least half of what a window has stands where it was: then it is clear without looking
 * that whole it would take about what the base takes. */
static bool
mostly_same(const uint8_t *base, const uint8_t *window)
{
	unsigned has = 0, same = 0;
	size_t i;

	for (i = 0; i < WINDOW_SIZE; i += PAGE_SIZE) {
		if (lc_is_zero(window + i, PAGE_SIZE))
			continue;
		has++;
		same += memcmp(window + i, base + i, PAGE_SIZE) == 0;
	}
	return same > 0 && same * 2 >= has;
}

/* Size of the delta against the predecessor itself. */
static size_t
step_size(struct packer *p, const uint8_t *window, const uint8_t *id, uint64_t old,
          const struct origin *o)
{
	struct chunk_bases b = {.n = 1, .ids = o->old_id, .plain = p->old};
	uint8_t encoding;
	uint32_t key;
	size_t n;

	if (chunk_read(p->reader, old, p->old, NULL, NULL) != 0 ||
	    seal_delta(p->sealer, window, id, &b, CHUNK_PAYLOAD_MAX, p->spare, &n, &encoding, &key,
	               NULL) != 0)
		return 0;
	return n;
}

/* A delta into p->payload; *n = 0 where none is worth while. */
static void
try_delta(struct packer *p, const uint8_t *window, const uint8_t *id, uint64_t old, size_t *n,
          uint8_t *encoding, uint32_t *key, struct packer_sizes *z)
{
	struct origin o = {0};
	struct chunk_bases b = {.ids = o.ids};

	*n = 0;
	if (p->reader == NULL && chunk_reader_new(p->s, &p->reader, NULL) != 0)
		return;
	if (!find_origin(p, old, &o) ||
	    chunk_bases(p->reader, o.old_is_delta ? old : 0, o.ids, o.n, &b.plain, NULL) != 0)
		return;
	b.n = o.n;
	if (seal_delta(p->sealer, window, id, &b, CHUNK_PAYLOAD_MAX, p->payload, n, encoding, key,
	               NULL) != 0)
		*n = 0;
	if (*n == 0)
		return;
	*z = (struct packer_sizes){.delta = *n, .step = *n, .whole = o.whole};
	z->sure = mostly_same(b.plain, window);
	if (o.old_is_delta)
		z->step = step_size(p, window, id, old, &o);
	if (packer_outgrown(z))
		*n = 0;
}

int
packer_seal(struct packer *p, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE], uint64_t old,
            uint8_t *payload, size_t *n, uint8_t *encoding, uint32_t *key_number, struct lc_err *e)
{
	struct packer_sizes z = {0};
	uint32_t delta_key = 0;
	uint8_t delta_encoding = 0;
	size_t ndelta = 0;
	int rc;

	if (old != 0)
		try_delta(p, window, id, old, &ndelta, &delta_encoding, &delta_key, &z);
	if (ndelta == 0 || !z.sure || !packer_worth(&z)) {
		rc = seal_chunk(p->sealer, window, id, payload, n, encoding, key_number, e);
		z.whole = *n;
		if (rc != 0 || ndelta == 0 || !packer_worth(&z))
			return rc;
	}
	memcpy(payload, p->payload, ndelta);
	*n = ndelta;
	*encoding = delta_encoding;
	*key_number = delta_key;
	return 0;
}

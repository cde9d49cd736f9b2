/*
 * Whole or delta.
 *
 * A delta carries all that has changed since its bases were made; so what changed becomes a base
 * itself, a layer, while there is room for one: from then on it costs nothing.  What a delta pays
 * beside its own change is x = delta - step; that and the newest layers are stored anew, as one
 * layer or whole, when what was paid so far has come to a quarter of what that costs.  With changes
 * of even size the sum of all x is x * x / (2 * step), so nothing has to be remembered.  A window
 * in which the same place changes again and again has x = 0 and never needs it.  Measured:
 * docs/DESIGN.md.
 */
#include <string.h>

#include "store/base/bytes.h"
#include "store/layer.h"
#include "store/packer.h"
#include "store/signatures.h"
#include "store/similar.h"
#include "store/store_internal.h"

#define WORTH_NUM 70u   /* percent: kept where it takes at most so much of the whole */
#define BLIND_NUM 37u   /* where it can't be told how much of it was paid for before */
#define SIMILAR_NUM 25u /* upon other chunks: the first change of the window pays for it again */
#define SMALL_NUM 25u   /* of the whole: nothing better is looked for */
#define INVEST_NUM 25u  /* percent of a delta, for a layer of what it holds ... */
#define INVEST_MIN 500u /* ... where it has so many bytes */
#define BETTER_NUM 90u  /* percent of the one against the predecessor, for one of more bases */

struct packer {
	struct store *s;
	struct sealer *sealer;
	int level;
	struct chunk_reader *reader; /* NULL until there was a base */
	uint8_t old[WINDOW_SIZE];
	uint8_t bases[CHUNK_BASES_MAX * WINDOW_SIZE]; /* the last one is a layer */
	struct packed whole, delta, similar, spare, layer;
	bool layered; /* p->delta is made upon p->layer, too */
	bool tagged;
	struct page_tags tags;     /* of the window */
	const struct packed *last; /* what was given */
};

struct origin { /* what a window may be a delta against */
	size_t n;
	uint8_t ids[CHUNK_BASES_MAX * CHUNK_ID_SIZE];
	uint8_t old_id[CHUNK_ID_SIZE];
	bool old_is_delta, old_is_elsewhere;
	size_t bytes[CHUNK_BASES_MAX]; /* of their payloads */
	/* The base is elsewhere: what is left of it here. */
	struct lc_buf signature;
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
	unsigned percent = z->similar ? SIMILAR_NUM : z->blind ? BLIND_NUM : WORTH_NUM;

	return z->delta > 0 && z->delta <= z->whole * percent / 100;
}

bool
packer_outgrown(const struct packer_sizes *z)
{
	uint64_t x = z->delta > z->step ? z->delta - z->step : 0;
	uint64_t again = z->again < z->whole ? z->again : z->whole;

	return x > 0 && x * x * 2 >= again * z->step;
}

/* Not one that was found to be bad, here or over there. */
static bool
known_good(struct packer *p, const uint8_t *id)
{
	uint64_t no;

	return fold_resolve(p->s->fold, id, &no, NULL) == 0;
}

/* The bases of a delta whose record may be elsewhere: the catalog knows them as long as it is not
 * made again. */
static bool
known_bases(struct packer *p, uint64_t old, struct origin *o)
{
	uint64_t bases[CHUNK_BASES_MAX];
	struct record r;
	size_t i, n;

	if (catalog_bases(p->s->catalog, old, bases, &n, NULL) != 0)
		return false;
	for (i = 0; i < n; i++) {
		if (catalog_chunk(p->s->catalog, bases[i], &r, NULL) != 0)
			return false;
		memcpy(o->ids + i * CHUNK_ID_SIZE, r.id, CHUNK_ID_SIZE);
	}
	o->old_is_delta = n > 0;
	o->n = n > 0 ? n : 1;
	return true;
}

/* Nothing is fetched: a snapshot never waits for the network. */
static bool
bases_are_here(struct packer *p, struct origin *o)
{
	struct record r = {0};
	uint64_t no;
	size_t i;

	for (i = 0; i < o->n; i++) {
		if (store_find_base(p->s, 0, o->ids + i * CHUNK_ID_SIZE, &no, NULL) != 0 ||
		    catalog_chunk(p->s->catalog, no, &r, NULL) != 0)
			return false;
		o->bytes[i] = r.n;
	}
	return true;
}

/* What a window may be made upon whose content was that chunk: itself, or the bases of a delta. */
static bool
find_origin(struct packer *p, uint64_t old, struct origin *o)
{
	struct record r;

	if (catalog_chunk(p->s->catalog, old, &r, NULL) != 0 || r.segment == 0)
		return false;
	memcpy(o->old_id, r.id, CHUNK_ID_SIZE);
	memcpy(o->ids, r.id, CHUNK_ID_SIZE);
	o->n = 1;
	o->old_is_delta = chunk_is_delta(r.encoding);
	o->old_is_elsewhere = record_is_stub(&r);
	if (o->old_is_elsewhere && !known_bases(p, old, o))
		return false;
	if (!o->old_is_elsewhere && o->old_is_delta &&
	    chunk_read_bases(p->reader, old, o->ids, &o->n) != 0)
		return false;
	if (bases_are_here(p, o))
		return true;
	/* Of several bases the first one holds most; layers are later ones. */
	o->n = 1;
	return p->s->signatures != NULL && known_good(p, o->ids) &&
	       signatures_get(p->s->signatures, o->ids, &o->signature) == 0;
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

static int
make_delta(struct packer *p, const struct packer_window *w, const struct chunk_bases *b,
           struct packed *out)
{
	int rc = seal_delta(p->sealer, w->bytes, w->id, b, CHUNK_PAYLOAD_MAX, out->payload, &out->n,
	                    &out->encoding, &out->key, NULL);

	memcpy(out->id, w->id, sizeof out->id);
	if (rc != 0)
		out->n = 0;
	return rc;
}

/* Size of the delta against the predecessor itself. */
static size_t
step_size(struct packer *p, const struct packer_window *w, const struct origin *o)
{
	struct chunk_bases b = {.n = 1, .ids = o->old_id, .plain = p->old};

	if (chunk_read(p->reader, w->old, p->old, NULL, NULL) != 0)
		return 0;
	(void)make_delta(p, w, &b, &p->spare);
	return p->spare.n;
}

/* Upon the first n bases of p->bases and a layer of what is in none of them, where that takes at
 * most max bytes and the delta makes no more than limit of both.  Into p->layer and p->delta. */
static bool
add_layer(struct packer *p, const struct packer_window *w, struct chunk_bases *b, size_t max,
          size_t limit)
{
	uint8_t ids[CHUNK_BASES_MAX * CHUNK_ID_SIZE], *plain = p->bases + b->n * WINDOW_SIZE;
	struct chunk_bases all = {.n = b->n + 1, .ids = ids, .plain = p->bases};
	struct packed *x = &p->layer;

	if (!layer_make(w->bytes, p->bases, b->n, plain))
		return false;
	seal_id(p->s->keyring, plain, x->id);
	if (memcmp(x->id, w->id, CHUNK_ID_SIZE) == 0 ||
	    seal_layer(p->sealer, plain, x->id, x->payload, &x->n, &x->encoding, &x->key, NULL) !=
	        0 ||
	    x->n > max)
		return false;
	memcpy(ids, b->ids, b->n * CHUNK_ID_SIZE);
	memcpy(ids + b->n * CHUNK_ID_SIZE, x->id, CHUNK_ID_SIZE);
	if (make_delta(p, w, &all, &p->spare) != 0 || p->spare.n == 0 ||
	    record_size((uint32_t)x->n) + p->spare.n > limit)
		return false;
	p->delta = p->spare;
	p->layered = true;
	return true;
}

/* What changed costs once more with each version that follows, unless it is in a base; so a little
 * is spent on making it one.  Not where the same place changes again and again. */
static void
invest(struct packer *p, const struct packer_window *w, const struct origin *o,
       const struct packer_sizes *z)
{
	struct chunk_bases b = {.n = o->n, .ids = o->ids};
	size_t limit = z->delta * (100 + INVEST_NUM) / 100;

	if (o->n == CHUNK_BASES_MAX || z->blind || z->delta < INVEST_MIN || !packer_worth(z) ||
	    (o->old_is_delta && layer_repeats(w->bytes, p->old, p->bases, o->n)))
		return;
	(void)add_layer(p, w, &b, limit, limit);
}

/* How many bases stay where what came after them becomes one layer, which has about *bytes.  The
 * newest one goes, where there is no room for another; and each that is at most half of what is put
 * together behind it.  So what changed long ago is stored anew only when more has changed since. */
static size_t
bases_to_keep(const struct origin *o, size_t delta, size_t *bytes)
{
	size_t k = o->n;

	*bytes = delta;
	while (k > 1 && (k == CHUNK_BASES_MAX || o->bytes[k - 1] * 2 <= *bytes))
		*bytes += o->bytes[--k];
	return k;
}

/* What the newest layers have and what the delta carries becomes one layer; *z says what comes of
 * it.  Where that would be half of the whole the window is stored whole. */
static void
begin_again(struct packer *p, const struct packer_window *w, const struct origin *o,
            struct packer_sizes *z)
{
	struct chunk_bases b = {.ids = o->ids};
	size_t bytes;

	b.n = bases_to_keep(o, z->delta, &bytes);
	z->delta = 0;
	if (!z->blind && add_layer(p, w, &b, o->bytes[0] / 2, SIZE_MAX))
		z->delta = p->layer.n + p->delta.n;
}

/* With the bases' bytes. */
static void
try_prefix(struct packer *p, const struct packer_window *w, const struct origin *o,
           struct packer_sizes *z)
{
	struct chunk_bases b = {.n = o->n, .ids = o->ids};
	uint64_t owner = o->old_is_delta ? w->old : 0;

	if (chunk_bases(p->reader, owner, o->ids, o->n, &b.plain, NULL) != 0 ||
	    make_delta(p, w, &b, &p->delta) != 0)
		return;
	*z = (struct packer_sizes){.delta = p->delta.n, .step = p->delta.n, .whole = o->bytes[0]};
	(void)bases_to_keep(o, p->delta.n, &z->again);
	if (p->delta.n == 0)
		return;
	memcpy(p->bases, b.plain, o->n * WINDOW_SIZE);
	z->sure = mostly_same(b.plain, w->bytes);
	z->blind = o->old_is_delta && o->old_is_elsewhere;
	if (o->old_is_delta && !o->old_is_elsewhere)
		z->step = step_size(p, w, o);
	if (packer_outgrown(z))
		begin_again(p, w, o, z);
	else
		invest(p, w, o, z);
}

/* With the base's signature, and only where much is the same: librsync crawls over what is not.
 * How much of it is new since the predecessor is not known. */
static void
try_rsync(struct packer *p, const struct packer_window *w, const struct origin *o,
          struct packer_sizes *z)
{
	struct chunk_bases b = {
	    .n = 1, .ids = o->ids, .signature = {o->signature.p, o->signature.n}};

	if (!signatures_alike(b.signature, w->bytes) || make_delta(p, w, &b, &p->delta) != 0)
		return;
	*z = (struct packer_sizes){.delta = p->delta.n, .blind = o->old_is_delta};
}

static bool
get_reader(struct packer *p)
{
	return p->reader != NULL || chunk_reader_new(p->s, &p->reader, NULL) == 0;
}

/* A delta upon what was in its place, into p->delta; z->delta = 0 where none is worth while. */
static void
try_delta(struct packer *p, const struct packer_window *w, struct packer_sizes *z)
{
	struct origin o = {0};

	if (!get_reader(p))
		return;
	if (find_origin(p, w->old, &o)) {
		if (o.signature.n == 0)
			try_prefix(p, w, &o, z);
		else
			try_rsync(p, w, &o, z);
	}
	lc_buf_free(&o.signature);
}

/* What of it is in other chunks is not in the predecessor, or the delta upon that were small; so
 * that one counts as one base among others. */
static size_t
find_similar(struct packer *p, const struct packer_window *w, const struct packer_sizes *z,
             uint8_t ids[CHUNK_BASES_MAX * CHUNK_ID_SIZE], bool *sure)
{
	struct similar_opts o = {.tags = &p->tags, .own = w->id};
	size_t n = 0;

	pages_tags(p->s->pages, w->bytes, &p->tags);
	p->tagged = true;
	if (packer_worth(z) && p->delta.encoding == CHUNK_PREFIX) {
		memcpy(ids, chunk_payload_bases((struct lc_span){p->delta.payload, p->delta.n}, &n),
		       CHUNK_ID_SIZE);
		n = 1;
		o.taken = ids;
	}
	o.max = CHUNK_BASES_MAX - n;
	n += similar_find(p->s, &o, ids + n * CHUNK_ID_SIZE, sure);
	return o.taken != NULL && n == 1 ? 0 : n;
}

/* A delta upon chunks that share pages with it, into p->similar. */
static void
try_similar(struct packer *p, const struct packer_window *w, const struct packer_sizes *z,
            struct packer_sizes *zs)
{
	uint8_t ids[CHUNK_BASES_MAX * CHUNK_ID_SIZE];
	struct chunk_bases b = {.ids = ids};
	bool sure = false;
	size_t n;

	b.n = n = find_similar(p, w, z, ids, &sure);
	if (n == 0 || !get_reader(p) || chunk_bases(p->reader, 0, ids, n, &b.plain, NULL) != 0)
		return;
	b.n = similar_prove(p->s, &p->tags, b.plain, ids, n);
	if (b.n == 0 || (b.n < n && chunk_bases(p->reader, 0, ids, b.n, &b.plain, NULL) != 0) ||
	    make_delta(p, w, &b, &p->similar) != 0)
		return;
	*zs = (struct packer_sizes){
	    .delta = p->similar.n, .whole = WINDOW_SIZE / 2, .similar = true};
	zs->sure = sure && packer_worth(zs);
}

/* The smallest; a delta only where it is worth while. */
static const struct packed *
choose(const struct packer *p, const struct packer_sizes *z, const struct packer_sizes *zs)
{
	bool ok = packer_worth(z), similar = packer_worth(zs);

	if (similar && (!ok || zs->delta * 100 <= z->delta * BETTER_NUM))
		return &p->similar;
	return ok ? &p->delta : &p->whole;
}

static int
make_whole(struct packer *p, const struct packer_window *w, struct lc_err *e)
{
	struct packed *x = &p->whole;

	memcpy(x->id, w->id, sizeof x->id);
	return seal_chunk(p->sealer, w->bytes, w->id, x->payload, &x->n, &x->encoding, &x->key, e);
}

int
packer_seal(struct packer *p, const struct packer_window *w, struct packer_out *out,
            struct lc_err *e)
{
	struct packer_sizes z = {0}, zs = {0};
	int rc = 0;

	p->tagged = p->layered = false;
	if (!w->whole && w->old != 0)
		try_delta(p, w, &z);
	if (!w->whole && p->s->pages != NULL &&
	    (!packer_worth(&z) || z.delta * 100 > z.whole * SMALL_NUM))
		try_similar(p, w, &z, &zs);
	if ((!z.sure || !packer_worth(&z)) && !zs.sure) {
		rc = make_whole(p, w, e);
		z.whole = zs.whole = p->whole.n;
	}
	out->chunk = p->last = choose(p, &z, &zs);
	out->layer = p->layered && out->chunk == &p->delta ? &p->layer : NULL;
	return rc;
}

void
packer_stored(struct packer *p, uint64_t no)
{
	if (p->tagged && !chunk_is_delta(p->last->encoding))
		similar_learn(p->s, &p->tags, no);
}

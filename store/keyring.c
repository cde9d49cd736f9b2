#include <stdatomic.h>
#include <string.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "store/keyring_internal.h"

/* A new data key gets the next generation in the upper 12 bits and a random number below, so that
 * two writers of a domain that rotate without knowing of each other do not take the same one. */
#define GENERATION_SHIFT 20u

_Static_assert(crypto_box_SEALBYTES + 2 * KEY_SIZE == BOX_SIZE, "box");
_Static_assert(crypto_box_PUBLICKEYBYTES == KEY_SIZE, "public key");
_Static_assert(crypto_box_SECRETKEYBYTES == KEY_SIZE, "secret key");

static void
hash_keyed(uint8_t out[KEY_SIZE], const uint8_t *key, size_t nkey, const char *text)
{
	(void)crypto_generichash(out, KEY_SIZE, (const uint8_t *)text, strlen(text), key, nkey);
}

static void
domain_of_key(uint8_t out[DOMAIN_ID_SIZE], const uint8_t recovery[KEY_SIZE])
{
	static const char context[] = "locum domain v1";
	uint8_t msg[sizeof context - 1 + KEY_SIZE], full[KEY_SIZE];

	memcpy(msg, context, sizeof context - 1);
	memcpy(msg + sizeof context - 1, recovery, KEY_SIZE);
	(void)crypto_generichash(full, sizeof full, msg, sizeof msg, NULL, 0);
	memcpy(out, full, DOMAIN_ID_SIZE);
}

/* KEYS payloads. */

bool
wrap_next(struct lc_rd *r, struct wrap_view *w)
{
	uint8_t zero;

	w->kind = lc_rd8(r);
	zero = lc_rd8(r);
	w->n = lc_rd16(r);
	w->number = lc_rd32(r);
	w->box = lc_rd_bytes(r, w->n);
	if (!lc_rd_ok(r) || zero != 0 || w->kind == 0)
		return false;
	if (w->kind > WRAP_DATA)
		return w->n <= WRAP_OTHER_MAX;
	return w->n == BOX_SIZE && (w->number == 0) == (w->kind != WRAP_DATA);
}

int
wrap_order(uint8_t kind_a, uint32_t number_a, uint8_t kind_b, uint32_t number_b)
{
	if (kind_a != kind_b)
		return kind_a < kind_b ? -1 : 1;
	return number_a < number_b ? -1 : number_a > number_b;
}

int
keys_parse(struct lc_span keys, struct keys_view *v, struct lc_err *e)
{
	struct lc_rd r = lc_rd_over(keys.p, keys.n);
	uint8_t domain[DOMAIN_ID_SIZE];
	struct wrap_view w, last = {0};
	unsigned i;

	lc_rd_copy(&r, v->domain, sizeof v->domain);
	lc_rd_copy(&r, v->recovery, sizeof v->recovery);
	v->nwraps = lc_rd16(&r);
	if (!lc_rd_ok(&r) || v->nwraps > WRAPS_MAX)
		return lc_fail(e, LC_ECORRUPT, 0, "keys: malformed head");
	v->wraps = r;
	for (i = 0; i < v->nwraps; i++) {
		if (!wrap_next(&r, &w))
			return lc_fail(e, LC_ECORRUPT, 0, "keys: wrap %u is malformed", i);
		if (i > 0 && wrap_order(last.kind, last.number, w.kind, w.number) >= 0)
			return lc_fail(e, LC_ECORRUPT, 0, "keys: wrap %u is out of order", i);
		last = w;
	}
	if (!lc_rd_end(&r))
		return lc_fail(e, LC_ECORRUPT, 0, "keys: bytes after the last wrap");
	domain_of_key(domain, v->recovery);
	if (memcmp(domain, v->domain, sizeof domain) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "keys: recovery key is not of its domain");
	return 0;
}

/* Anybody who knows the recovery public key can make a sealed box.  The tag inside shows that the
 * box was made by somebody who had the code (master, id key) or the id key (data keys), so that a
 * replica cannot plant keys of its own. */
static void
wrap_tag(const struct keyring *k, uint8_t kind, uint32_t number, const uint8_t key[KEY_SIZE],
         uint8_t tag[KEY_SIZE])
{
	uint8_t msg[16 + DOMAIN_ID_SIZE + 8 + KEY_SIZE] = "locum wrap v1";
	uint8_t *p = msg + 16;

	memcpy(p, k->domain, DOMAIN_ID_SIZE);
	p += DOMAIN_ID_SIZE;
	p[0] = kind;
	lc_put32(p + 4, number);
	memcpy(p + 8, key, KEY_SIZE);
	(void)crypto_generichash(tag, KEY_SIZE, msg, sizeof msg,
	                         kind == WRAP_DATA ? k->s->id : k->s->auth, KEY_SIZE);
	sodium_memzero(msg, sizeof msg);
}

static bool
wrap_open(const struct keyring *k, const struct wrap_view *w, uint8_t key[KEY_SIZE])
{
	uint8_t plain[2 * KEY_SIZE], tag[KEY_SIZE];
	bool good;

	good = crypto_box_seal_open(plain, w->box, w->n, k->recovery, k->s->box_secret) == 0;
	if (good) {
		wrap_tag(k, w->kind, w->number, plain, tag);
		good = sodium_memcmp(tag, plain + KEY_SIZE, KEY_SIZE) == 0;
	}
	if (good)
		memcpy(key, plain, KEY_SIZE);
	sodium_memzero(plain, sizeof plain);
	sodium_memzero(tag, sizeof tag);
	return good;
}

void
keyring_keep_wrap(struct keyring *k, uint8_t kind, uint32_t number, const uint8_t box[BOX_SIZE])
{
	unsigned at = k->nwraps;

	while (at > 0 &&
	       wrap_order(k->wraps[at - 1].kind, k->wraps[at - 1].number, kind, number) > 0)
		at--;
	memmove(&k->wraps[at + 1], &k->wraps[at], (k->nwraps - at) * sizeof k->wraps[0]);
	k->wraps[at].kind = kind;
	k->wraps[at].number = number;
	memcpy(k->wraps[at].box, box, BOX_SIZE);
	k->nwraps++;
}

static int
wrap_make(struct keyring *k, uint8_t kind, uint32_t number, const uint8_t key[KEY_SIZE],
          struct lc_err *e)
{
	uint8_t plain[2 * KEY_SIZE], box[BOX_SIZE];
	int rc;

	memcpy(plain, key, KEY_SIZE);
	wrap_tag(k, kind, number, key, plain + KEY_SIZE);
	rc = crypto_box_seal(box, plain, sizeof plain, k->recovery);
	sodium_memzero(plain, sizeof plain);
	if (rc != 0)
		return lc_fail(e, LC_EKEY, 0, "keyring: the recovery public key is unusable");
	keyring_keep_wrap(k, kind, number, box);
	return 0;
}

void
keyring_keep_data(struct keyring *k, uint32_t number, const uint8_t key[KEY_SIZE])
{
	unsigned n = atomic_load_explicit(&k->ndata, memory_order_relaxed);

	memmove(k->s->data[n], key, KEY_SIZE);
	k->numbers[n] = number;
	atomic_store_explicit(&k->ndata, n + 1, memory_order_release);
	if (number > atomic_load_explicit(&k->newest, memory_order_relaxed))
		atomic_store_explicit(&k->newest, number, memory_order_release);
}

void
keyring_keep_id(struct keyring *k, const uint8_t key[KEY_SIZE])
{
	memmove(k->s->id, key, KEY_SIZE);
	hash_keyed(k->s->set, k->s->id, KEY_SIZE, "locum set v1");
}

struct keyring *
keyring_alloc(struct lc_err *e)
{
	struct keyring *k = NULL;

	if (sodium_init() >= 0)
		k = lc_alloc(sizeof *k);
	if (k != NULL)
		k->s = sodium_malloc(sizeof *k->s);
	if (k == NULL || k->s == NULL) {
		lc_free(k);
		(void)lc_fail(e, LC_ENOMEM, 0, "keyring: out of memory");
		return NULL;
	}
	sodium_memzero(k->s, sizeof *k->s);
	return k;
}

/* From k->s->seed. */
static void
derive_recovery(struct keyring *k)
{
	uint8_t seed[crypto_box_SEEDBYTES];

	_Static_assert(sizeof seed == KEY_SIZE, "seed");
	hash_keyed(seed, k->s->seed, RECOVERY_SEED_SIZE, "locum recovery v1");
	(void)crypto_box_seed_keypair(k->recovery, k->s->box_secret, seed);
	sodium_memzero(seed, sizeof seed);
	hash_keyed(k->s->auth, k->s->seed, RECOVERY_SEED_SIZE, "locum auth v1");
	domain_of_key(k->domain, k->recovery);
	k->has_seed = true;
}

int
keyring_new(char code[RECOVERY_CODE_MAX], struct keyring **out, struct lc_err *e)
{
	struct keyring *k = NULL;
	int rc;

	*out = NULL;
	k = keyring_alloc(e);
	if (k == NULL)
		return LC_ENOMEM;
	randombytes_buf(k->s->seed, RECOVERY_SEED_SIZE);
	derive_recovery(k);
	randombytes_buf(k->s->master, KEY_SIZE);
	randombytes_buf(k->s->id, KEY_SIZE);
	keyring_keep_id(k, k->s->id);
	rc = wrap_make(k, WRAP_MASTER, 0, k->s->master, e);
	if (rc == 0)
		rc = wrap_make(k, WRAP_ID, 0, k->s->id, e);
	if (rc == 0) {
		randombytes_buf(k->s->data[0], KEY_SIZE);
		rc = wrap_make(k, WRAP_DATA, 1, k->s->data[0], e);
	}
	if (rc != 0) {
		keyring_free(k);
		return rc;
	}
	keyring_keep_data(k, 1, k->s->data[0]);
	recovery_code_write(k->s->seed, code);
	*out = k;
	return 0;
}

/* Every segment brings the same seals again, and opening one takes 60 us. */
static bool
wrap_kept(const struct keyring *k, const struct wrap_view *w)
{
	unsigned i;

	for (i = 0; i < k->nwraps; i++) {
		if (k->wraps[i].kind == w->kind && k->wraps[i].number == w->number)
			return memcmp(k->wraps[i].box, w->box, BOX_SIZE) == 0;
	}
	return false;
}

/* Takes up the data keys of a parsed payload that open and are not known yet.  One that does not
 * open is passed over: whatever needs it says so by its number, and the rest can be restored. */
static int
take_data_keys(struct keyring *k, const struct keys_view *v, struct lc_err *e)
{
	struct lc_rd r = v->wraps;
	uint8_t key[KEY_SIZE];
	const uint8_t *known;
	struct wrap_view w;
	unsigned i;
	int rc = 0;

	for (i = 0; i < v->nwraps && rc == 0; i++) {
		if (!wrap_next(&r, &w) || w.kind != WRAP_DATA || wrap_kept(k, &w) ||
		    !wrap_open(k, &w, key))
			continue;
		known = keyring_data(k, w.number);
		if (known != NULL) {
			if (sodium_memcmp(known, key, KEY_SIZE) != 0) {
				rc = lc_fail(e, LC_ECONFLICT, 0,
				             "keys: two writers made a data key %u", w.number);
			}
		} else if (atomic_load(&k->ndata) == DATA_MAX || k->nwraps == WRAPS_MAX) {
			rc = lc_fail(e, LC_EINVAL, 0, "keys: more than %u data keys", DATA_MAX);
		} else {
			keyring_keep_data(k, w.number, key);
			keyring_keep_wrap(k, WRAP_DATA, w.number, w.box);
		}
	}
	sodium_memzero(key, sizeof key);
	return rc;
}

/* k->s->seed is set.  Takes k: frees it on failure. */
static int
open_seed(struct keyring *k, struct lc_span keys, const char *what, struct keyring **out,
          struct lc_err *e)
{
	struct keys_view v;
	struct wrap_view w;
	struct lc_rd r;
	uint8_t key[KEY_SIZE];
	bool has_id = false;
	unsigned i;
	int rc;

	rc = keys_parse(keys, &v, e);
	if (rc != 0)
		goto out;
	derive_recovery(k);
	if (memcmp(k->recovery, v.recovery, KEY_SIZE) != 0) {
		rc = lc_fail(e, LC_EKEY, 0, "%s is of another key domain", what);
		goto out;
	}
	r = v.wraps;
	for (i = 0; i < v.nwraps; i++) {
		if (!wrap_next(&r, &w) || w.kind >= WRAP_DATA || !wrap_open(k, &w, key))
			continue;
		keyring_keep_wrap(k, w.kind, 0, w.box);
		if (w.kind == WRAP_ID) {
			keyring_keep_id(k, key);
			has_id = true;
		} else {
			memcpy(k->s->master, key, KEY_SIZE);
		}
	}
	if (!has_id) {
		rc = lc_fail(e, LC_ECORRUPT, 0, "keys: no genuine id key");
		goto out;
	}
	rc = take_data_keys(k, &v, e);
	if (rc == 0 && atomic_load(&k->ndata) == 0)
		rc = lc_fail(e, LC_ECORRUPT, 0, "keys: no genuine data key");
out:
	sodium_memzero(key, sizeof key);
	if (rc != 0) {
		keyring_free(k);
		return rc;
	}
	*out = k;
	return 0;
}

int
keyring_open_code(struct lc_span keys, const char *code, struct keyring **out, struct lc_err *e)
{
	struct keyring *k;
	int rc;

	*out = NULL;
	k = keyring_alloc(e);
	if (k == NULL)
		return LC_ENOMEM;
	rc = recovery_code_read(code, k->s->seed, e);
	if (rc != 0) {
		keyring_free(k);
		return rc;
	}
	return open_seed(k, keys, "the recovery code", out, e);
}

int
keyring_add(struct keyring *k, struct lc_span keys, struct lc_err *e)
{
	struct keys_view v;
	int rc;

	rc = keys_parse(keys, &v, e);
	if (rc != 0)
		return rc;
	if (memcmp(v.domain, k->domain, DOMAIN_ID_SIZE) != 0)
		return lc_fail(e, LC_EKEY, 0, "keys: of another key domain");
	return k->has_seed ? take_data_keys(k, &v, e) : 0;
}

int
keyring_encode(const struct keyring *k, struct lc_buf *out, struct lc_err *e)
{
	uint8_t head[WRAP_HEAD];
	unsigned i;

	if (lc_buf_reserve(out, KEYS_HEAD + k->nwraps * (WRAP_HEAD + BOX_SIZE)) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "keys: out of memory");
	(void)lc_buf_append(out, k->domain, DOMAIN_ID_SIZE);
	(void)lc_buf_append(out, k->recovery, KEY_SIZE);
	(void)lc_wr16(out, (uint16_t)k->nwraps);
	for (i = 0; i < k->nwraps; i++) {
		head[0] = k->wraps[i].kind;
		head[1] = 0;
		lc_put16(head + 2, BOX_SIZE);
		lc_put32(head + 4, k->wraps[i].number);
		(void)lc_buf_append(out, head, sizeof head);
		(void)lc_buf_append(out, k->wraps[i].box, BOX_SIZE);
	}
	return 0;
}

int
keyring_domain_of(struct lc_span keys, uint8_t id[DOMAIN_ID_SIZE], struct lc_err *e)
{
	struct keys_view v;
	int rc;

	rc = keys_parse(keys, &v, e);
	if (rc == 0)
		memcpy(id, v.domain, DOMAIN_ID_SIZE);
	return rc;
}

bool
wrap_step(struct keys_view *v, struct wrap_view *w)
{
	if (v->nwraps == 0)
		return false;
	v->nwraps--;
	return wrap_next(&v->wraps, w);
}

/* One wrap that only one side has.  Master and id key never come or go. */
static int
lone_wrap(const struct wrap_view *w, unsigned *count, struct lc_err *e)
{
	(*count)++;
	return w->kind >= WRAP_DATA
	           ? 0
	           : lc_fail(e, LC_EKEY, 0, "keys: not the master and id key of before");
}

/* Both ascend: a merge. */
static int
compare_wraps(struct keys_view *a, struct keys_view *b, unsigned *only_a, unsigned *only_b,
              struct lc_err *e)
{
	struct wrap_view x, y;
	bool has_x = wrap_step(a, &x), has_y = wrap_step(b, &y);
	int order, rc = 0;

	while (rc == 0 && (has_x || has_y)) {
		order = has_x && has_y ? wrap_order(x.kind, x.number, y.kind, y.number)
		                       : (has_x ? -1 : 1);
		if (order < 0) {
			rc = lone_wrap(&x, only_a, e);
		} else if (order > 0) {
			rc = lone_wrap(&y, only_b, e);
		} else if (x.n != y.n || memcmp(x.box, y.box, x.n) != 0) {
			rc = lc_fail(e, LC_EKEY, 0,
			             "keys: another seal of kind %u, number %u than before", x.kind,
			             x.number);
		}
		if (order <= 0)
			has_x = wrap_step(a, &x);
		if (order >= 0)
			has_y = wrap_step(b, &y);
	}
	return rc;
}

int
keyring_compare(struct lc_span have, struct lc_span given, enum keys_change *change,
                struct lc_err *e)
{
	unsigned lost = 0, more = 0;
	struct keys_view a, b;
	int rc = keys_parse(have, &a, e);

	*change = KEYS_SAME;
	rc = rc != 0 ? rc : keys_parse(given, &b, e);
	if (rc == 0 && memcmp(a.recovery, b.recovery, KEY_SIZE) != 0)
		rc = lc_fail(e, LC_EKEY, 0, "keys: of another key domain");
	rc = rc != 0 ? rc : compare_wraps(&a, &b, &lost, &more, e);
	if (rc == 0 && lost > 0 && more > 0)
		rc = lc_fail(e, LC_EKEY, 0,
		             "keys: %u of before are missing, and %u others are there", lost, more);
	if (rc == 0 && more > 0)
		*change = KEYS_MORE;
	else if (rc == 0 && lost > 0)
		*change = KEYS_FEWER;
	return rc;
}

const uint8_t *
keyring_domain(const struct keyring *k)
{
	return k->domain;
}

uint32_t
keyring_data_number(const struct keyring *k)
{
	return atomic_load_explicit(&k->newest, memory_order_acquire);
}

const uint8_t *
keyring_data(const struct keyring *k, uint32_t number)
{
	unsigned i = atomic_load_explicit(&k->ndata, memory_order_acquire);

	while (i-- > 0) {
		if (k->numbers[i] == number)
			return k->s->data[i];
	}
	return NULL;
}

const uint8_t *
keyring_id(const struct keyring *k)
{
	return k->s->id;
}

const uint8_t *
keyring_set(const struct keyring *k)
{
	return k->s->set;
}

int
keyring_rotate(struct keyring *k, struct lc_err *e)
{
	uint32_t number = keyring_data_number(k) >> GENERATION_SHIFT;
	uint8_t key[KEY_SIZE];
	int rc;

	if (atomic_load(&k->ndata) == DATA_MAX || k->nwraps == WRAPS_MAX ||
	    number >= UINT32_MAX >> GENERATION_SHIFT)
		return lc_fail(e, LC_EINVAL, 0, "keyring: no room for another data key");
	number = (number + 1) << GENERATION_SHIFT | randombytes_uniform(1u << GENERATION_SHIFT);
	randombytes_buf(key, sizeof key);
	rc = wrap_make(k, WRAP_DATA, number, key, e);
	if (rc == 0)
		keyring_keep_data(k, number, key);
	sodium_memzero(key, sizeof key);
	return rc;
}

void
keyring_free(struct keyring *k)
{
	if (k == NULL)
		return;
	sodium_free(k->s); /* Wipes it first. */
	lc_free(k);
}

/* The passphrase. */

int
keyring_wrap_passphrase(const struct keyring *k, const char *pass, size_t n, struct lc_buf *out,
                        struct lc_err *e)
{
	if (!k->has_seed) {
		return lc_fail(e, LC_EKEY, 0,
		               "passphrase: needs the recovery code; this host's keys do not "
		               "hold it");
	}
	return recovery_wrap(k->s->seed, k->domain, pass, n, RECOVERY_COST, out, e);
}

int
keyring_open_passphrase(struct lc_span keys, struct lc_span wrap, const char *pass, size_t n,
                        struct keyring **out, struct lc_err *e)
{
	struct keyring *k = NULL;
	struct keys_view v;
	int rc;

	*out = NULL;
	rc = keys_parse(keys, &v, e);
	if (rc != 0)
		return rc;
	k = keyring_alloc(e);
	if (k == NULL)
		return LC_ENOMEM;
	rc = recovery_unwrap(wrap, v.domain, pass, n, k->s->seed, e);
	if (rc != 0) {
		keyring_free(k);
		return rc;
	}
	return open_seed(k, keys, "the passphrase", out, e);
}

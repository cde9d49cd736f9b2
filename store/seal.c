#include <string.h>

#include <sodium.h>
#include <xxhash.h>
#include <zstd.h>

#include "store/base/bytes.h"
#include "store/delta.h"
#include "store/idhash.h"
#include "store/seal.h"

#define NONCE_SIZE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_SIZE crypto_aead_xchacha20poly1305_ietf_ABYTES
#define CHUNK_AD_MAX (76u + CHUNK_BASES_MAX * CHUNK_ID_SIZE)
#define BLOB_AD_HEAD 36u
/* Compressed only where that saves 3%. */
#define ZSTD_MAX (WINDOW_SIZE - WINDOW_SIZE * 3u / 100u - 1u)

/* So many levels above that of whole windows: 6% fewer bytes, and still twice as fast. */
#define DELTA_LEVELS 1
/* A layer has few bytes, which go over the wire and stay for long: 4% fewer for 40 us each. */
#define LAYER_LEVELS 4

_Static_assert(NONCE_SIZE + TAG_SIZE == SEAL_OVERHEAD, "overhead");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == KEY_SIZE, "key");

struct sealer {
	const struct keyring *k;
	ZSTD_CCtx *c;
	ZSTD_DCtx *d;
	int level;
	ZSTD_CCtx *delta_c;         /* for deltas and layers; NULL until the first one */
	uint8_t packed[ZSTD_MAX];   /* a compressed window, decrypted */
	uint8_t delta[WINDOW_SIZE]; /* of librsync, not compressed */
};

/* The raw length is known and the seal is the check: neither belongs in the frame.  table_log 0:
 * the level's own. */
static int
set_up(ZSTD_CCtx *c, int level, int table_log, struct lc_err *e)
{
	if (ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_hashLog, table_log)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 0)))
		return lc_fail(e, LC_EINVAL, 0, "sealer: zstd refuses level %d", level);
	return 0;
}

int
sealer_new(const struct keyring *k, int level, struct sealer **out, struct lc_err *e)
{
	struct sealer *s = NULL;
	uint8_t *window = NULL;
	int rc = 0;

	*out = NULL;
	s = lc_alloc(sizeof *s);
	window = lc_alloc(WINDOW_SIZE);
	if (s == NULL || window == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "sealer: out of memory");
		goto out;
	}
	s->k = k;
	s->c = ZSTD_createCCtx();
	s->d = ZSTD_createDCtx();
	if (s->c == NULL || s->d == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "sealer: out of memory");
		goto out;
	}
	s->level = level;
	rc = set_up(s->c, level, level == SEAL_LEVEL ? SEAL_TABLE_LOG : 0, e);
	if (rc != 0)
		goto out;
	/* The first window makes zstd take its memory; none is taken later. */
	if (ZSTD_isError(ZSTD_compress2(s->c, s->packed, sizeof s->packed, window, WINDOW_SIZE)))
		rc = lc_fail(e, LC_ENOMEM, 0, "sealer: out of memory");
out:
	lc_free(window);
	if (rc != 0) {
		sealer_free(s);
		return rc;
	}
	*out = s;
	return 0;
}

void
sealer_free(struct sealer *s)
{
	if (s == NULL)
		return;
	(void)ZSTD_freeCCtx(s->c);
	(void)ZSTD_freeDCtx(s->d);
	(void)ZSTD_freeCCtx(s->delta_c);
	sodium_memzero(s->packed, sizeof s->packed);
	sodium_memzero(s->delta, sizeof s->delta);
	lc_free(s);
}

void
seal_id(const struct keyring *k, const uint8_t *window, uint8_t id[CHUNK_ID_SIZE])
{
	(void)crypto_generichash(id, CHUNK_ID_SIZE, window, WINDOW_SIZE, keyring_id(k), KEY_SIZE);
}

/* What is left over takes lanes that do the last one again: two at once are cheaper than two, but
 * one by itself is not. */
static void
many_ids(const struct keyring *k, const uint8_t *const *windows, size_t n,
         uint8_t (*ids)[CHUNK_ID_SIZE], bool eight)
{
	uint8_t out[IDHASH_MAX][CHUNK_ID_SIZE];
	const uint8_t *in[IDHASH_MAX];
	size_t lane;

	for (lane = 0; lane < IDHASH_MAX; lane++)
		in[lane] = windows[lane < n ? lane : n - 1];
	if (eight)
		idhash_eight(keyring_id(k), in, WINDOW_SIZE, out);
	else
		idhash_four(keyring_id(k), in, WINDOW_SIZE, out);
	memcpy(ids, out, n * CHUNK_ID_SIZE);
}

void
seal_ids(const struct keyring *k, const uint8_t *const *windows, size_t n,
         uint8_t (*ids)[CHUNK_ID_SIZE])
{
	size_t i, part, lanes = idhash_lanes();

	for (i = 0; i < n; i += part) {
		part = n - i < lanes ? n - i : lanes;
		if (part <= 1) {
			part = 1;
			seal_id(k, windows[i], ids[i]);
		} else {
			many_ids(k, windows + i, part, ids + i, part > 4);
		}
	}
}

void
seal_sum(uint8_t encoding, uint32_t key, struct lc_span payload, uint8_t sum[32])
{
	crypto_generichash_state h;
	uint8_t head[8];

	lc_put32(head, key);
	lc_put32(head + 4, encoding);
	(void)crypto_generichash_init(&h, NULL, 0, 32);
	(void)crypto_generichash_update(&h, head, sizeof head);
	(void)crypto_generichash_update(&h, payload.p, payload.n);
	(void)crypto_generichash_final(&h, sum, 32);
}

void
seal_mix(uint16_t n, const uint8_t id[CHUNK_ID_SIZE], uint8_t out[CHUNK_ID_SIZE])
{
	uint8_t in[2 + CHUNK_ID_SIZE];

	lc_put16(in, n);
	memcpy(in + 2, id, CHUNK_ID_SIZE);
	(void)crypto_generichash(out, CHUNK_ID_SIZE, in, sizeof in, NULL, 0);
}

/* head: the CHUNK_HEAD_SIZE bytes of the payload and the base ids behind them. */
static size_t
chunk_ad(uint8_t ad[CHUNK_AD_MAX], const struct keyring *k, uint32_t key_number, uint8_t encoding,
         const uint8_t *head, size_t nbases)
{
	static const uint8_t context[16] = "locum chunk v1";

	memcpy(ad, context, 16);
	memcpy(ad + 16, keyring_domain(k), DOMAIN_ID_SIZE);
	lc_put32(ad + 32, key_number);
	lc_put32(ad + 36, encoding);
	memcpy(ad + 40, head + CHUNK_ID_SIZE, 4);
	memcpy(ad + 44, head, CHUNK_ID_SIZE);
	memcpy(ad + 76, head + CHUNK_HEAD_SIZE, nbases * CHUNK_ID_SIZE);
	return 76 + nbases * CHUNK_ID_SIZE;
}

/* What stands before the nonce; its length. */
static size_t
put_head(uint8_t *payload, const uint8_t id[CHUNK_ID_SIZE], const uint8_t *bases, size_t nbases)
{
	memcpy(payload, id, CHUNK_ID_SIZE);
	lc_put32(payload + CHUNK_ID_SIZE, WINDOW_SIZE);
	lc_put32(payload + CHUNK_ID_SIZE + 4, (uint32_t)nbases); /* one byte, and zeros */
	if (nbases > 0)
		memcpy(payload + CHUNK_HEAD_SIZE, bases, nbases * CHUNK_ID_SIZE);
	return CHUNK_HEAD_SIZE + nbases * CHUNK_ID_SIZE;
}

/* The same content, packed the same way, gives the same bytes wherever it is sealed (vouch.h): a
 * nonce comes twice only for the same plaintext and associated data.  Of a raw window the id, which
 * is in the latter, names it.  Of a packed one, so do the id and what packed it, and should one
 * zstd ever pack one window in two ways, the checksum tells them apart: that takes no time, where a
 * hash of another kind of all that is sealed takes 3% of a first backup.  A delta also depends on
 * what was known of its bases: it is hashed itself. */
static void
make_nonce(uint8_t nonce[NONCE_SIZE], const uint8_t key[KEY_SIZE], uint8_t encoding, int level,
           struct lc_span ad, struct lc_span plain)
{
	static const uint8_t person[crypto_generichash_blake2b_PERSONALBYTES] = "locum nonce v3";
	uint8_t packed[16 + sizeof(XXH128_canonical_t)];
	XXH128_canonical_t sum;
	crypto_generichash_blake2b_state h;

	(void)crypto_generichash_blake2b_init_salt_personal(&h, key, KEY_SIZE, NONCE_SIZE, NULL,
	                                                    person);
	(void)crypto_generichash_blake2b_update(&h, ad.p, ad.n);
	if (encoding == CHUNK_ZSTD) {
		lc_put32(packed, ZSTD_versionNumber());
		lc_put32(packed + 4, (uint32_t)level);
		lc_put64(packed + 8, plain.n);
		XXH128_canonicalFromHash(&sum, XXH3_128bits(plain.p, plain.n));
		memcpy(packed + 16, &sum, sizeof sum);
		(void)crypto_generichash_blake2b_update(&h, packed, sizeof packed);
	} else if (encoding != CHUNK_RAW) {
		(void)crypto_generichash_blake2b_update(&h, plain.p, plain.n);
	}
	(void)crypto_generichash_blake2b_final(&h, nonce, NONCE_SIZE);
	sodium_memzero(&h, sizeof h);
}

/* Seal n bytes at plain behind a head that put_head() made; length of the whole payload. */
static size_t
seal_body(struct sealer *s, uint8_t *payload, size_t head, uint32_t number, uint8_t encoding,
          const uint8_t *plain, size_t n)
{
	uint8_t *nonce = payload + head, *body = nonce + NONCE_SIZE;
	uint8_t ad[CHUNK_AD_MAX];
	size_t nad = chunk_ad(ad, s->k, number, encoding, payload,
	                      (head - CHUNK_HEAD_SIZE) / CHUNK_ID_SIZE);

	make_nonce(nonce, keyring_data(s->k, number), encoding, s->level, (struct lc_span){ad, nad},
	           (struct lc_span){plain, n});
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(body, NULL, plain, n, ad, nad, NULL, nonce,
	                                                 keyring_data(s->k, number));
	return head + SEAL_OVERHEAD + n;
}

static int
data_number(const struct keyring *k, uint32_t *number, struct lc_err *e)
{
	*number = keyring_data_number(k);
	if (keyring_data(k, *number) == NULL)
		return lc_fail(e, LC_EKEY, 0, "seal: no data key %u", *number);
	return 0;
}

static int
seal_whole(struct sealer *s, ZSTD_CCtx *c, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE],
           uint8_t *payload, size_t *n, uint8_t *encoding, uint32_t *key_number, struct lc_err *e)
{
	size_t head = put_head(payload, id, NULL, 0), nbody;
	const uint8_t *plain = payload + head + NONCE_SIZE;
	int rc = data_number(s->k, key_number, e);

	if (rc != 0)
		return rc;
	nbody = ZSTD_compress2(c, payload + head + NONCE_SIZE, ZSTD_MAX, window, WINDOW_SIZE);
	*encoding = CHUNK_ZSTD;
	if (ZSTD_isError(nbody)) { /* Did not get small enough; raw is always right. */
		*encoding = CHUNK_RAW;
		nbody = WINDOW_SIZE;
		plain = window;
	}
	*n = seal_body(s, payload, head, *key_number, *encoding, plain, nbody);
	return 0;
}

int
seal_chunk(struct sealer *s, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE],
           uint8_t *payload, size_t *n, uint8_t *encoding, uint32_t *key_number, struct lc_err *e)
{
	return seal_whole(s, s->c, window, id, payload, n, encoding, key_number, e);
}

/* s->delta_c at so many levels above that of whole windows. */
static int
set_levels(struct sealer *s, int levels, struct lc_err *e)
{
	if (s->delta_c == NULL)
		s->delta_c = ZSTD_createCCtx();
	if (s->delta_c == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "sealer: out of memory");
	return set_up(s->delta_c, s->level + levels, 0, e);
}

int
seal_layer(struct sealer *s, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE],
           uint8_t *payload, size_t *n, uint8_t *encoding, uint32_t *key_number, struct lc_err *e)
{
	int rc = set_levels(s, LAYER_LEVELS, e);

	return rc != 0 ? rc
	               : seal_whole(s, s->delta_c, window, id, payload, n, encoding, key_number, e);
}

/* ---- deltas ---- */

/* zstd with the bases as prefix, at most max bytes at body; *n = 0 where that is not enough. */
static int
pack_prefix(struct sealer *s, const uint8_t *window, const struct chunk_bases *b, uint8_t *body,
            size_t max, size_t *n, struct lc_err *e)
{
	int rc = set_levels(s, DELTA_LEVELS, e);

	if (rc != 0)
		return rc;
	if (ZSTD_isError(ZSTD_CCtx_refPrefix(s->delta_c, b->plain, b->n * WINDOW_SIZE)))
		return lc_fail(e, LC_ENOMEM, 0, "sealer: out of memory");
	*n = ZSTD_compress2(s->delta_c, body, max, window, WINDOW_SIZE);
	if (ZSTD_isError(*n))
		*n = 0;
	return 0;
}

static int
pack_rsync(struct sealer *s, const uint8_t *window, const struct chunk_bases *b, uint8_t *body,
           size_t max, size_t *n, struct lc_err *e)
{
	int rc = delta_make(b->signature, (struct lc_span){window, WINDOW_SIZE}, s->delta,
	                    sizeof s->delta, n, e);

	if (rc != 0 || *n == 0)
		return rc;
	*n = ZSTD_compress2(s->c, body, max, s->delta, *n);
	if (ZSTD_isError(*n))
		*n = 0;
	return 0;
}

int
seal_delta(struct sealer *s, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE],
           const struct chunk_bases *bases, size_t max, uint8_t *payload, size_t *n,
           uint8_t *encoding, uint32_t *key_number, struct lc_err *e)
{
	size_t head = put_head(payload, id, bases->ids, bases->n), nbody = 0;
	uint8_t *body = payload + head + NONCE_SIZE;
	int rc = data_number(s->k, key_number, e);

	*n = 0;
	if (rc != 0 || max <= head + SEAL_OVERHEAD)
		return rc;
	max -= head + SEAL_OVERHEAD;
	max = max < ZSTD_MAX ? max : ZSTD_MAX;
	*encoding = bases->plain != NULL ? CHUNK_PREFIX : CHUNK_RSYNC;
	rc = bases->plain != NULL ? pack_prefix(s, window, bases, body, max, &nbody, e)
	                          : pack_rsync(s, window, bases, body, max, &nbody, e);
	if (rc == 0 && nbody > 0)
		*n = seal_body(s, payload, head, *key_number, *encoding, body, nbody);
	return rc;
}

/* ---- opening ---- */

/* The structure of a payload of a known encoding; gives the lengths of what stands before the nonce
 * and of the plain body. */
static bool
chunk_parse(struct lc_span payload, uint8_t encoding, size_t *head, size_t *nbody)
{
	uint32_t nbases;

	if (payload.n < CHUNK_HEAD_SIZE || lc_get32(payload.p + CHUNK_ID_SIZE) != WINDOW_SIZE)
		return false;
	nbases = lc_get32(payload.p + CHUNK_ID_SIZE + 4); /* one byte, and zeros */
	if (chunk_is_delta(encoding) ? nbases == 0 || nbases > CHUNK_BASES_MAX : nbases != 0)
		return false;
	*head = CHUNK_HEAD_SIZE + nbases * CHUNK_ID_SIZE;
	if (payload.n <= *head + SEAL_OVERHEAD)
		return false;
	*nbody = payload.n - *head - SEAL_OVERHEAD;
	return encoding == CHUNK_RAW ? *nbody == WINDOW_SIZE : *nbody <= ZSTD_MAX;
}

static int
chunk_refuse(struct lc_err *e, uint8_t *window, const uint8_t *id, const char *why)
{
	char hex[17];

	memset(window, 0, WINDOW_SIZE);
	return lc_fail(e, LC_ECORRUPT, 0, "chunk %s: %s", lc_hex(hex, id, 8), why);
}

/* Whether a decrypted body makes a window. */
static bool
unpack(struct sealer *s, uint8_t encoding, const uint8_t *plain, size_t n, struct lc_span bases,
       uint8_t *window)
{
	size_t made;

	switch ((enum chunk_encoding)encoding) {
	case CHUNK_RAW:
		return true; /* it was decrypted into its place */
	case CHUNK_PREFIX:
		if (ZSTD_isError(ZSTD_DCtx_refPrefix(s->d, bases.p, bases.n)))
			return false;
		return ZSTD_decompressDCtx(s->d, window, WINDOW_SIZE, plain, n) == WINDOW_SIZE;
	case CHUNK_RSYNC:
		made = ZSTD_decompressDCtx(s->d, s->delta, sizeof s->delta, plain, n);
		return !ZSTD_isError(made) &&
		       delta_patch((struct lc_span){s->delta, made}, bases, window, WINDOW_SIZE);
	case CHUNK_ZSTD:
	default:
		return ZSTD_decompressDCtx(s->d, window, WINDOW_SIZE, plain, n) == WINDOW_SIZE;
	}
}

/* id_out NULL: the content is not compared with its id. */
static int
open_any(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
         const uint8_t *bases, uint8_t *window, uint8_t *id_out, struct lc_err *e)
{
	const uint8_t *key = keyring_data(s->k, key_number);
	uint8_t ad[CHUNK_AD_MAX], id[CHUNK_ID_SIZE];
	size_t head, nad, nbody, nbases;
	uint8_t *plain;

	if (!chunk_parse(payload, encoding, &head, &nbody))
		return lc_fail(e, LC_ECORRUPT, 0, "chunk: malformed payload");
	if (key == NULL)
		return lc_fail(e, LC_EKEY, 0, "chunk: sealed with data key %u, which is not here",
		               key_number);
	nbases = (head - CHUNK_HEAD_SIZE) / CHUNK_ID_SIZE;
	plain = encoding == CHUNK_RAW ? window : s->packed;
	nad = chunk_ad(ad, s->k, key_number, encoding, payload.p, nbases);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(
		plain, NULL, NULL, payload.p + head + NONCE_SIZE, nbody + TAG_SIZE, ad, nad,
		payload.p + head, key) != 0)
		return chunk_refuse(e, window, payload.p, "not authentic");
	if (!unpack(s, encoding, plain, nbody, (struct lc_span){bases, nbases * WINDOW_SIZE},
	            window))
		return chunk_refuse(e, window, payload.p, "does not decompress to a window");
	if (id_out == NULL)
		return 0;
	seal_id(s->k, window, id);
	if (sodium_memcmp(id, payload.p, CHUNK_ID_SIZE) != 0)
		return chunk_refuse(e, window, payload.p, "content is not what the id names");
	memcpy(id_out, id, CHUNK_ID_SIZE);
	return 0;
}

static bool
known_encoding(uint8_t encoding)
{
	return encoding <= CHUNK_PREFIX;
}

static int
open_whole(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
           uint8_t *window, uint8_t *id_out, struct lc_err *e)
{
	if (!known_encoding(encoding))
		return lc_fail(e, LC_EVERSION, 0, "chunk: unknown encoding %u", encoding);
	if (chunk_is_delta(encoding))
		return lc_fail(e, LC_ECONFLICT, 0, "chunk: a delta, where a whole one must be");
	return open_any(s, payload, encoding, key_number, NULL, window, id_out, e);
}

int
open_chunk(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
           uint8_t *window, uint8_t id_out[CHUNK_ID_SIZE], struct lc_err *e)
{
	return open_whole(s, payload, encoding, key_number, window, id_out, e);
}

int
open_base(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
          uint8_t *window, struct lc_err *e)
{
	return open_whole(s, payload, encoding, key_number, window, NULL, e);
}

int
open_delta(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
           const uint8_t *bases, uint8_t *window, uint8_t id_out[CHUNK_ID_SIZE], struct lc_err *e)
{
	if (!chunk_is_delta(encoding))
		return lc_fail(e, LC_ECONFLICT, 0, "chunk: no delta");
	return open_any(s, payload, encoding, key_number, bases, window, id_out, e);
}

bool
chunk_payload_ok(struct lc_span payload, uint8_t encoding)
{
	size_t head, nbody;

	return known_encoding(encoding) && chunk_parse(payload, encoding, &head, &nbody);
}

const uint8_t *
chunk_payload_bases(struct lc_span payload, size_t *n)
{
	*n = lc_get32(payload.p + CHUNK_ID_SIZE + 4);
	return payload.p + CHUNK_HEAD_SIZE;
}

const uint8_t *
chunk_payload_id(struct lc_span payload)
{
	return payload.n < CHUNK_HEAD_SIZE ? NULL : payload.p;
}

/* A copy of ad behind what else is bound; free with lc_free(). */
static uint8_t *
blob_ad(const struct keyring *k, uint32_t number, struct lc_span ad, size_t *n)
{
	static const uint8_t context[16] = "locum blob v1";
	uint8_t *p;

	if (__builtin_add_overflow(ad.n, (size_t)BLOB_AD_HEAD, n))
		return NULL;
	p = lc_alloc(*n);
	if (p == NULL)
		return NULL;
	memcpy(p, context, 16);
	memcpy(p + 16, keyring_domain(k), DOMAIN_ID_SIZE);
	lc_put32(p + 32, number);
	if (ad.n > 0)
		memcpy(p + BLOB_AD_HEAD, ad.p, ad.n);
	return p;
}

int
seal_blob(const struct keyring *k, struct lc_span ad, struct lc_span plain, struct lc_buf *out,
          struct lc_err *e)
{
	uint32_t number = keyring_data_number(k);
	const uint8_t *key = keyring_data(k, number);
	size_t nad, n;
	uint8_t *full, *to;

	if (key == NULL)
		return lc_fail(e, LC_EKEY, 0, "blob: no data key %u", number);
	full = blob_ad(k, number, ad, &nad);
	if (full == NULL || __builtin_add_overflow(plain.n, (size_t)(4 + SEAL_OVERHEAD), &n) ||
	    lc_buf_reserve(out, n) != 0) {
		lc_free(full);
		return lc_fail(e, LC_ENOMEM, 0, "blob: out of memory");
	}
	to = out->p + out->n;
	lc_put32(to, number);
	randombytes_buf(to + 4, NONCE_SIZE);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(to + 4 + NONCE_SIZE, NULL, plain.p,
	                                                 plain.n, full, nad, NULL, to + 4, key);
	out->n += n;
	lc_free(full);
	return 0;
}

int
open_blob(const struct keyring *k, struct lc_span ad, struct lc_span sealed, struct lc_buf *out,
          struct lc_err *e)
{
	const uint8_t *key;
	uint32_t number;
	size_t nad, n;
	uint8_t *full;
	int rc = 0;

	if (sealed.n < 4 + SEAL_OVERHEAD)
		return lc_fail(e, LC_ECORRUPT, 0, "blob: too short");
	number = lc_get32(sealed.p);
	key = keyring_data(k, number);
	if (key == NULL)
		return lc_fail(e, LC_EKEY, 0, "blob: sealed with data key %u, which is not here",
		               number);
	n = sealed.n - 4 - SEAL_OVERHEAD;
	full = blob_ad(k, number, ad, &nad);
	if (full == NULL || lc_buf_reserve(out, n + 1) != 0) {
		lc_free(full);
		return lc_fail(e, LC_ENOMEM, 0, "blob: out of memory");
	}
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(out->p + out->n, NULL, NULL,
	                                               sealed.p + 4 + NONCE_SIZE, n + TAG_SIZE,
	                                               full, nad, sealed.p + 4, key) != 0)
		rc = lc_fail(e, LC_ECORRUPT, 0, "blob: not authentic");
	else
		out->n += n;
	lc_free(full);
	return rc;
}

void
seal_tag_key(const struct keyring *k, uint8_t key[SEAL_TAG_KEY])
{
	static const uint8_t context[] = "locum page tags v1";

	(void)crypto_generichash(key, SEAL_TAG_KEY, context, sizeof context, keyring_id(k),
	                         KEY_SIZE);
}

uint64_t
seal_tag(const uint8_t key[SEAL_TAG_KEY], struct lc_span bytes)
{
	uint8_t out[crypto_shorthash_BYTES];

	(void)crypto_shorthash(out, bytes.p, bytes.n, key);
	return lc_get64(out);
}

void
set_row(const uint8_t *key, const uint8_t disk[16], uint64_t window,
        const uint8_t id[CHUNK_ID_SIZE], struct set_sum *out)
{
	uint8_t msg[16 + 8 + CHUNK_ID_SIZE];

	memcpy(msg, disk, 16);
	lc_put64(msg + 16, window);
	memcpy(msg + 24, id, CHUNK_ID_SIZE);
	(void)crypto_generichash(out->v, sizeof out->v, msg, sizeof msg, key,
	                         key == NULL ? 0 : KEY_SIZE);
}

void
set_add(struct set_sum *a, const struct set_sum *b)
{
	unsigned carry = 0;
	uint64_t x, y;
	unsigned i;

	for (i = 0; i < sizeof a->v; i += 8) {
		x = lc_get64(a->v + i);
		y = lc_get64(b->v + i);
		carry = (unsigned)__builtin_add_overflow(x, carry, &x);
		carry += (unsigned)__builtin_add_overflow(x, y, &x);
		lc_put64(a->v + i, x);
	}
}

void
set_sub(struct set_sum *a, const struct set_sum *b)
{
	unsigned borrow = 0;
	uint64_t x, y;
	unsigned i;

	for (i = 0; i < sizeof a->v; i += 8) {
		x = lc_get64(a->v + i);
		y = lc_get64(b->v + i);
		borrow = (unsigned)__builtin_sub_overflow(x, borrow, &x);
		borrow += (unsigned)__builtin_sub_overflow(x, y, &x);
		lc_put64(a->v + i, x);
	}
}

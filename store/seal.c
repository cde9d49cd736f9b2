#include <string.h>

#include <sodium.h>
#include <zstd.h>

#include "store/base/bytes.h"
#include "store/seal.h"

#define NONCE_SIZE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_SIZE crypto_aead_xchacha20poly1305_ietf_ABYTES
#define BASES_MAX 4u
#define CHUNK_AD_MAX (76u + BASES_MAX * CHUNK_ID_SIZE)
#define BLOB_AD_HEAD 36u
/* Compressed only where that saves 3%. */
#define ZSTD_MAX (WINDOW_SIZE - WINDOW_SIZE * 3u / 100u - 1u)

_Static_assert(NONCE_SIZE + TAG_SIZE == SEAL_OVERHEAD, "overhead");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == KEY_SIZE, "key");

struct sealer {
	const struct keyring *k;
	ZSTD_CCtx *c;
	ZSTD_DCtx *d;
	uint8_t packed[ZSTD_MAX]; /* a compressed window, decrypted */
};

static bool
sealer_set(struct sealer *s, ZSTD_cParameter what, int v)
{
	return !ZSTD_isError(ZSTD_CCtx_setParameter(s->c, what, v));
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
	/* The raw length is known and the seal is the check: neither belongs in the frame. */
	if (!sealer_set(s, ZSTD_c_compressionLevel, level) ||
	    !sealer_set(s, ZSTD_c_contentSizeFlag, 0) || !sealer_set(s, ZSTD_c_checksumFlag, 0)) {
		rc = lc_fail(e, LC_EINVAL, 0, "sealer: zstd refuses level %d", level);
		goto out;
	}
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
	sodium_memzero(s->packed, sizeof s->packed);
	lc_free(s);
}

void
seal_id(const struct keyring *k, const uint8_t *window, uint8_t id[CHUNK_ID_SIZE])
{
	(void)crypto_generichash(id, CHUNK_ID_SIZE, window, WINDOW_SIZE, keyring_id(k), KEY_SIZE);
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

int
seal_chunk(struct sealer *s, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE],
           uint8_t *payload, size_t *n, uint8_t *encoding, uint32_t *key_number, struct lc_err *e)
{
	uint8_t *nonce = payload + CHUNK_HEAD_SIZE, *body = nonce + NONCE_SIZE;
	uint32_t number = keyring_data_number(s->k);
	const uint8_t *key = keyring_data(s->k, number);
	const uint8_t *plain = body;
	uint8_t ad[CHUNK_AD_MAX];
	size_t nad, nbody;

	if (key == NULL)
		return lc_fail(e, LC_EKEY, 0, "seal: no data key %u", number);
	memcpy(payload, id, CHUNK_ID_SIZE);
	lc_put32(payload + CHUNK_ID_SIZE, WINDOW_SIZE);
	lc_put32(payload + CHUNK_ID_SIZE + 4, 0);
	nbody = ZSTD_compress2(s->c, body, ZSTD_MAX, window, WINDOW_SIZE);
	*encoding = CHUNK_ZSTD;
	if (ZSTD_isError(nbody)) { /* Did not get small enough; raw is always right. */
		*encoding = CHUNK_RAW;
		nbody = WINDOW_SIZE;
		plain = window;
	}
	randombytes_buf(nonce, NONCE_SIZE);
	nad = chunk_ad(ad, s->k, number, *encoding, payload, 0);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(body, NULL, plain, nbody, ad, nad, NULL,
	                                                 nonce, key);
	*n = CHUNK_HEAD_SIZE + SEAL_OVERHEAD + nbody;
	*key_number = number;
	return 0;
}

/* The structure of a payload of a known encoding; gives the length of the plain body. */
static bool
chunk_parse(struct lc_span payload, uint8_t encoding, size_t *nbody)
{
	if (payload.n <= CHUNK_HEAD_SIZE + SEAL_OVERHEAD)
		return false;
	*nbody = payload.n - CHUNK_HEAD_SIZE - SEAL_OVERHEAD;
	/* Whole chunks have no bases, so the bytes behind the raw length are all zero. */
	if (lc_get32(payload.p + CHUNK_ID_SIZE) != WINDOW_SIZE ||
	    lc_get32(payload.p + CHUNK_ID_SIZE + 4) != 0)
		return false;
	return encoding == CHUNK_RAW ? *nbody == WINDOW_SIZE : *nbody <= ZSTD_MAX;
}

static int
chunk_refuse(struct lc_err *e, uint8_t *window, const uint8_t *id, const char *why)
{
	char hex[17];

	memset(window, 0, WINDOW_SIZE);
	return lc_fail(e, LC_ECORRUPT, 0, "chunk %s: %s", lc_hex(hex, id, 8), why);
}

int
open_chunk(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
           uint8_t *window, uint8_t id_out[CHUNK_ID_SIZE], struct lc_err *e)
{
	const uint8_t *nonce, *body, *key;
	uint8_t ad[CHUNK_AD_MAX], id[CHUNK_ID_SIZE];
	size_t nad, nbody;
	uint8_t *plain;

	if (encoding > CHUNK_ZSTD)
		return lc_fail(e, LC_EVERSION, 0, "chunk: unknown encoding %u", encoding);
	if (!chunk_parse(payload, encoding, &nbody))
		return lc_fail(e, LC_ECORRUPT, 0, "chunk: malformed payload");
	key = keyring_data(s->k, key_number);
	if (key == NULL)
		return lc_fail(e, LC_EKEY, 0, "chunk: sealed with data key %u, which is not here",
		               key_number);
	nonce = payload.p + CHUNK_HEAD_SIZE;
	body = nonce + NONCE_SIZE;
	plain = encoding == CHUNK_RAW ? window : s->packed;
	nad = chunk_ad(ad, s->k, key_number, encoding, payload.p, 0);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain, NULL, NULL, body, nbody + TAG_SIZE,
	                                               ad, nad, nonce, key) != 0)
		return chunk_refuse(e, window, payload.p, "not authentic");
	if (encoding == CHUNK_ZSTD &&
	    ZSTD_decompressDCtx(s->d, window, WINDOW_SIZE, plain, nbody) != WINDOW_SIZE)
		return chunk_refuse(e, window, payload.p, "does not decompress to a window");
	seal_id(s->k, window, id);
	if (sodium_memcmp(id, payload.p, CHUNK_ID_SIZE) != 0)
		return chunk_refuse(e, window, payload.p, "content is not what the id names");
	memcpy(id_out, id, CHUNK_ID_SIZE);
	return 0;
}

bool
chunk_payload_ok(struct lc_span payload, uint8_t encoding)
{
	size_t nbody;

	return encoding <= CHUNK_ZSTD && chunk_parse(payload, encoding, &nbody);
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

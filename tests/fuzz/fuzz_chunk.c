/*
 * chunk: what is opened is what its id names, and nothing of what is refused gets out.
 *
 * The first byte is the encoding, the second says what the rest is: a payload, the plaintext of an
 * authentic one (a captured writer), a blob, the plaintext of an authentic delta, or librsync's
 * commands.
 */
#include <string.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "store/delta.h"
#include "store/seal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/vectors_keys.h"

enum { PAYLOAD, PLAINTEXT, BLOB, DELTA, PATCH };

static struct keyring *keys;
static struct sealer *sealer;
static uint8_t window[WINDOW_SIZE], crafted[CHUNK_HEAD_SIZE + SEAL_OVERHEAD + 2 * WINDOW_SIZE];

static uint8_t base[WINDOW_SIZE], patched[WINDOW_SIZE];

static void
fuzz_payload(struct lc_span payload, uint8_t encoding)
{
	uint8_t id[CHUNK_ID_SIZE], named[CHUNK_ID_SIZE];
	struct lc_err e = LC_ERR_INIT;
	int rc;

	rc = open_chunk(sealer, payload, encoding, 1, window, id, &e);
	fuzz_check(rc == e.code);
	if (rc == 0) {
		seal_id(keys, window, named);
		fuzz_check(memcmp(id, named, sizeof id) == 0);
		fuzz_check(memcmp(id, chunk_payload_id(payload), sizeof id) == 0);
		memset(window, 0, sizeof window);
	} else {
		fuzz_check(rc == (encoding > CHUNK_PREFIX    ? LC_EVERSION
		                  : chunk_is_delta(encoding) ? LC_ECONFLICT
		                                             : LC_ECORRUPT));
		fuzz_check(lc_is_zero(window, sizeof window));
	}
}

static void
fuzz_plaintext(const uint8_t *p, size_t n, uint8_t encoding)
{
	uint8_t ad[76] = "locum chunk v1", *nonce = crafted + CHUNK_HEAD_SIZE;

	if (n > 2 * WINDOW_SIZE)
		return;
	memcpy(crafted, vector_chunk, CHUNK_HEAD_SIZE + 24);
	memcpy(ad + 16, vector_domain, sizeof vector_domain);
	lc_put32(ad + 32, 1);
	lc_put32(ad + 36, encoding);
	lc_put32(ad + 40, WINDOW_SIZE);
	memcpy(ad + 44, vector_chunk_id, CHUNK_ID_SIZE);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + 24, NULL, p, n, ad, sizeof ad,
	                                                 NULL, nonce, vector_data_key);
	fuzz_payload((struct lc_span){crafted, CHUNK_HEAD_SIZE + SEAL_OVERHEAD + n}, encoding);
}

/* What the base holds decides nothing: one text serves. */
static void
fill_base(void)
{
	size_t i;

	for (i = 0; i < sizeof base; i++)
		base[i] = (uint8_t)(i * 7 + i / 251);
}

static void
fuzz_delta(const uint8_t *p, size_t n, uint8_t encoding)
{
	uint8_t ad[76 + CHUNK_ID_SIZE] = "locum chunk v1";
	uint8_t *nonce = crafted + CHUNK_HEAD_SIZE + CHUNK_ID_SIZE, id[CHUNK_ID_SIZE];
	struct lc_err e = LC_ERR_INIT;
	int rc;

	if (n > WINDOW_SIZE)
		return;
	fill_base();
	memcpy(crafted, vector_chunk, CHUNK_HEAD_SIZE);
	crafted[CHUNK_ID_SIZE + 4] = 1;
	seal_id(keys, base, crafted + CHUNK_HEAD_SIZE);
	memset(nonce, 0, 24);
	memcpy(ad + 16, vector_domain, sizeof vector_domain);
	lc_put32(ad + 32, 1);
	lc_put32(ad + 36, encoding);
	lc_put32(ad + 40, WINDOW_SIZE);
	memcpy(ad + 44, vector_chunk_id, CHUNK_ID_SIZE);
	memcpy(ad + 76, crafted + CHUNK_HEAD_SIZE, CHUNK_ID_SIZE);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + 24, NULL, p, n, ad, sizeof ad,
	                                                 NULL, nonce, vector_data_key);
	rc = open_delta(
	    sealer, (struct lc_span){crafted, CHUNK_HEAD_SIZE + CHUNK_ID_SIZE + SEAL_OVERHEAD + n},
	    encoding, 1, base, window, id, &e);
	fuzz_check(rc == e.code);
	if (rc == 0)
		memset(window, 0, sizeof window);
	else
		fuzz_check(lc_is_zero(window, sizeof window));
}

static void
fuzz_patch(struct lc_span delta)
{
	fill_base();
	(void)delta_patch(delta, (struct lc_span){base, sizeof base}, patched, sizeof patched);
}

static void
fuzz_blob(struct lc_span sealed)
{
	const struct lc_span ad = {(const uint8_t *)"point 7", 7};
	struct lc_buf plain = {0};
	struct lc_err e = LC_ERR_INIT;
	int rc = open_blob(keys, ad, sealed, &plain, &e);

	fuzz_check(rc == e.code);
	fuzz_check(rc == 0 ? plain.n == sealed.n - 44 : plain.n == 0);
	fuzz_check(rc == 0 || rc == LC_ECORRUPT || rc == LC_EKEY);
	lc_buf_free(&plain);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (sealer == NULL) {
		const struct lc_span all = {vector_keys, sizeof vector_keys};

		fuzz_check(keyring_open_code(all, VECTOR_CODE, &keys, NULL) == 0);
		fuzz_check(sealer_new(keys, 1, &sealer, NULL) == 0);
	}
	if (n < 2)
		return 0;
	if (p[1] == PAYLOAD)
		fuzz_payload((struct lc_span){p + 2, n - 2}, p[0]);
	else if (p[1] == PLAINTEXT)
		fuzz_plaintext(p + 2, n - 2, p[0]);
	else if (p[1] == BLOB)
		fuzz_blob((struct lc_span){p + 2, n - 2});
	else if (p[1] == DELTA)
		fuzz_delta(p + 2, n - 2, p[0]);
	else if (p[1] == PATCH)
		fuzz_patch((struct lc_span){p + 2, n - 2});
	return 0;
}

#include <stdio.h>
#include <string.h>

#include <sodium.h>
#include <zstd.h>

#include "store/base/bytes.h"
#include "store/seal.h"
#include "tests/lib/unit.h"
#include "tests/unit/vectors_keys.h"

static uint8_t window[WINDOW_SIZE], opened[WINDOW_SIZE];
static uint8_t payload[CHUNK_PAYLOAD_MAX], changed[CHUNK_PAYLOAD_MAX + 1];
static struct keyring *keys;
static struct sealer *sealer;

struct sealed { /* what seal_chunk() says of what is in payload */
	size_t n;
	uint8_t encoding;
	uint32_t key;
	uint8_t id[CHUNK_ID_SIZE];
};

static int
setup(void **state)
{
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	if (keyring_open_code((struct lc_span){vector_keys, sizeof vector_keys}, VECTOR_CODE, &keys,
	                      &e) != 0)
		return -1;
	return sealer_new(keys, 1, &sealer, &e);
}

static int
teardown(void **state)
{
	(void)state;
	sealer_free(sealer);
	keyring_free(keys);
	return 0;
}

/* n random bytes, the rest a text that compresses. */
static void
fill(size_t nrandom)
{
	size_t i;

	randombytes_buf(window, nrandom);
	for (i = nrandom; i < WINDOW_SIZE; i++)
		window[i] = (uint8_t) "Locum stands in when the site is away. "[i % 39];
}

static struct sealed
seal_it(struct sealer *s)
{
	struct lc_err e = LC_ERR_INIT;
	struct sealed c;

	seal_id(keys, window, c.id);
	assert_int_equal(seal_chunk(s, window, c.id, payload, &c.n, &c.encoding, &c.key, &e), 0);
	assert_in_range(c.n, CHUNK_HEAD_SIZE + SEAL_OVERHEAD + 1, CHUNK_PAYLOAD_MAX);
	return c;
}

static int
open_it(const uint8_t *p, size_t n, uint8_t encoding, uint32_t key)
{
	static const uint8_t untouched[CHUNK_ID_SIZE] = {0xee, 0xee};
	uint8_t id[CHUNK_ID_SIZE] = {0xee, 0xee};
	struct lc_err e = LC_ERR_INIT;
	int rc;

	memset(opened, 0, sizeof opened);
	rc = open_chunk(sealer, (struct lc_span){p, n}, encoding, key, opened, id, &e);
	assert_int_equal(rc, e.code);
	if (rc != 0) {
		assert_true(lc_is_zero(opened, sizeof opened));
		assert_memory_equal(id, untouched, sizeof id);
	} else {
		assert_memory_equal(id, p, sizeof id);
	}
	return rc;
}

/* A payload with any plaintext under any id, properly sealed. */
static size_t
craft(uint8_t encoding, const uint8_t *id, const void *plain, size_t n)
{
	uint8_t ad[76] = "locum chunk v1", *nonce = payload + CHUNK_HEAD_SIZE;
	unsigned long long nsealed;

	memcpy(payload, id, CHUNK_ID_SIZE);
	lc_put32(payload + CHUNK_ID_SIZE, WINDOW_SIZE);
	lc_put32(payload + CHUNK_ID_SIZE + 4, 0);
	randombytes_buf(nonce, 24);
	memcpy(ad + 16, keyring_domain(keys), DOMAIN_ID_SIZE);
	lc_put32(ad + 32, 1);
	lc_put32(ad + 36, encoding);
	lc_put32(ad + 40, WINDOW_SIZE);
	memcpy(ad + 44, id, CHUNK_ID_SIZE);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(
	    nonce + 24, &nsealed, plain, n, ad, sizeof ad, NULL, nonce, keyring_data(keys, 1));
	return CHUNK_HEAD_SIZE + 24 + (size_t)nsealed;
}

static void
opens_what_another_implementation_made(void **state)
{
	uint8_t id[CHUNK_ID_SIZE];

	(void)state;
	memset(window, 0x5a, sizeof window);
	seal_id(keys, window, id);
	assert_memory_equal(id, vector_chunk_id, sizeof id);
	assert_int_equal(open_it(vector_chunk, sizeof vector_chunk, CHUNK_ZSTD, 1), 0);
	assert_memory_equal(opened, window, sizeof window);
	assert_ptr_equal(chunk_payload_id((struct lc_span){vector_chunk, CHUNK_HEAD_SIZE}),
	                 vector_chunk);
	assert_null(chunk_payload_id((struct lc_span){vector_chunk, CHUNK_HEAD_SIZE - 1}));
}

static void
chunks_come_back(void **state)
{
	static const size_t nrandom[] = {0, 1, 100, 30000, 63000, 63480, 63600, 65000, WINDOW_SIZE};
	static const int levels[] = {-5, 1, 3, 19};
	struct lc_err e = LC_ERR_INIT;
	struct sealed c;
	size_t i, j;

	(void)state;
	for (j = 0; j < sizeof levels / sizeof levels[0]; j++) {
		struct sealer *s = NULL;

		assert_int_equal(sealer_new(keys, levels[j], &s, &e), 0);
		for (i = 0; i < sizeof nrandom / sizeof nrandom[0]; i++) {
			fill(nrandom[i]);
			c = seal_it(s);
			assert_int_equal(open_it(payload, c.n, c.encoding, c.key), 0);
			assert_memory_equal(opened, window, sizeof window);
			if (c.encoding == CHUNK_RAW)
				assert_int_equal(c.n,
				                 CHUNK_HEAD_SIZE + SEAL_OVERHEAD + WINDOW_SIZE);
			else
				assert_true(c.n - CHUNK_HEAD_SIZE - SEAL_OVERHEAD <=
				            WINDOW_SIZE * 97 / 100);
			assert_true(c.encoding == CHUNK_RAW || nrandom[i] < 63600);
			assert_true(c.encoding == CHUNK_ZSTD || nrandom[i] > 30000);
		}
		sealer_free(s);
	}
}

static void
every_flipped_bit_is_refused(void **state)
{
	struct sealed c;
	size_t bit;

	(void)state;
	memset(window, 7, sizeof window);
	c = seal_it(sealer);
	assert_true(c.n < 120);
	assert_int_equal(open_it(payload, c.n, c.encoding, c.key), 0);
	for (bit = 0; bit < 8 * c.n; bit++) {
		payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(open_it(payload, c.n, c.encoding, c.key), LC_ECORRUPT);
		payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (bit = 0; bit < c.n; bit++)
		assert_int_equal(open_it(payload, bit, c.encoding, c.key), LC_ECORRUPT);
	payload[c.n] = 0;
	assert_int_equal(open_it(payload, c.n + 1, c.encoding, c.key), LC_ECORRUPT);
}

static void
raw_chunk_of_other_length_is_refused(void **state)
{
	struct sealed c;

	(void)state;
	fill(WINDOW_SIZE);
	c = seal_it(sealer);
	assert_int_equal(c.encoding, CHUNK_RAW);
	memcpy(changed, payload, c.n);
	changed[c.n] = 0;
	assert_int_equal(open_it(changed, c.n, CHUNK_RAW, 1), 0);
	assert_int_equal(open_it(changed, c.n - 1, CHUNK_RAW, 1), LC_ECORRUPT);
	assert_int_equal(open_it(changed, c.n + 1, CHUNK_RAW, 1), LC_ECORRUPT);
	changed[c.n - 1] ^= 1;
	assert_int_equal(open_it(changed, c.n, CHUNK_RAW, 1), LC_ECORRUPT);
}

static void
what_the_record_header_says_is_bound(void **state)
{
	static const uint8_t later[] = {4, 5, 255};
	struct lc_err e = LC_ERR_INIT;
	char code[RECOVERY_CODE_MAX];
	struct keyring *k = NULL;
	struct sealer *s = NULL;
	struct sealed c;
	uint32_t number;
	size_t i;

	(void)state;
	fill(100);
	c = seal_it(sealer);
	assert_int_equal(open_it(payload, c.n, CHUNK_RAW, c.key), LC_ECORRUPT);
	for (i = 0; i < sizeof later; i++)
		assert_int_equal(open_it(payload, c.n, later[i], c.key), LC_EVERSION);
	assert_int_equal(open_it(payload, c.n, c.encoding, 0), LC_EKEY);
	assert_int_equal(open_it(payload, c.n, c.encoding, 2), LC_EKEY);

	/* Another key of the domain, and the key of another domain with the same number. */
	assert_int_equal(keyring_open_code((struct lc_span){vector_keys, sizeof vector_keys},
	                                   VECTOR_CODE, &k, &e),
	                 0);
	assert_int_equal(keyring_rotate(k, &e), 0);
	assert_int_equal(sealer_new(k, 1, &s, &e), 0);
	number = keyring_data_number(k);
	assert_int_equal(
	    open_chunk(s, (struct lc_span){payload, c.n}, c.encoding, number, opened, c.id, NULL),
	    LC_ECORRUPT);
	c = seal_it(s);
	assert_int_equal(c.key, number);
	assert_int_equal(open_it(payload, c.n, c.encoding, number), LC_EKEY);
	assert_int_equal(open_it(payload, c.n, c.encoding, 1), LC_ECORRUPT);
	sealer_free(s);
	keyring_free(k);
	c = seal_it(sealer);
	assert_int_equal(keyring_new(code, &k, &e), 0);
	assert_int_equal(sealer_new(k, 1, &s, &e), 0);
	assert_int_equal(
	    open_chunk(s, (struct lc_span){payload, c.n}, c.encoding, 1, opened, c.id, NULL),
	    LC_ECORRUPT);
	sealer_free(s);
	keyring_free(k);
}

/* Two hosts of a domain make the same bytes of one window, so that a replica keeps it once.
 * Whatever may have been packed in another way has another nonce. */
static void
same_content_is_sealed_to_the_same_bytes(void **state)
{
	static const size_t nrandom[] = {0, 30000, WINDOW_SIZE};
	const size_t nonce = CHUNK_HEAD_SIZE;
	struct lc_err e = LC_ERR_INIT;
	struct sealer *same, *other;
	struct sealed a, b;
	size_t i;

	(void)state;
	assert_int_equal(sealer_new(keys, 1, &same, &e), 0);
	assert_int_equal(sealer_new(keys, 3, &other, &e), 0);
	for (i = 0; i < sizeof nrandom / sizeof *nrandom; i++) {
		fill(nrandom[i]);
		a = seal_it(sealer);
		memcpy(changed, payload, a.n);
		b = seal_it(same);
		assert_int_equal(a.n, b.n);
		assert_memory_equal(changed, payload, a.n);
		b = seal_it(other);
		if (a.encoding == CHUNK_RAW) {
			assert_int_equal(a.n, b.n);
			assert_memory_equal(changed, payload, a.n);
		} else {
			assert_memory_not_equal(changed + nonce, payload + nonce, 24);
		}
	}
	sealer_free(same);
	sealer_free(other);
}

/* Only a writer of the domain can make these; they must not name what they are not. */
static void
authentic_chunk_must_be_what_its_id_says(void **state)
{
	uint8_t id[CHUNK_ID_SIZE];
	size_t n;

	(void)state;
	fill(WINDOW_SIZE);
	seal_id(keys, window, id);
	n = craft(CHUNK_RAW, id, window, WINDOW_SIZE);
	assert_int_equal(open_it(payload, n, CHUNK_RAW, 1), 0);
	id[31] ^= 1;
	n = craft(CHUNK_RAW, id, window, WINDOW_SIZE);
	assert_int_equal(open_it(payload, n, CHUNK_RAW, 1), LC_ECORRUPT);
	n = craft(CHUNK_RAW, id, window, 100);
	assert_int_equal(open_it(payload, n, CHUNK_RAW, 1), LC_ECORRUPT);
}

static void
authentic_frame_must_give_one_window(void **state)
{
	static uint8_t big[4 * WINDOW_SIZE], packed[WINDOW_SIZE];
	static const size_t sizes[] = {
	    0, 1, WINDOW_SIZE - 1, WINDOW_SIZE, WINDOW_SIZE + 1, 2 * WINDOW_SIZE, 4 * WINDOW_SIZE};
	static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4};
	uint8_t id[CHUNK_ID_SIZE];
	size_t i, n;

	(void)state;
	memset(window, 9, sizeof window);
	memset(big, 9, sizeof big);
	seal_id(keys, window, id);
	for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		n = ZSTD_compress(packed, sizeof packed, big, sizes[i], 1);
		assert_false(ZSTD_isError(n));
		n = craft(CHUNK_ZSTD, id, packed, n);
		assert_int_equal(open_it(payload, n, CHUNK_ZSTD, 1),
		                 sizes[i] == WINDOW_SIZE ? 0 : LC_ECORRUPT);
	}
	n = craft(CHUNK_ZSTD, id, skippable, sizeof skippable);
	assert_int_equal(open_it(payload, n, CHUNK_ZSTD, 1), LC_ECORRUPT);
	n = craft(CHUNK_ZSTD, id, window, WINDOW_SIZE - 2000);
	assert_int_equal(open_it(payload, n, CHUNK_ZSTD, 1), LC_ECORRUPT);
	/* Whatever a frame says, what follows is as good as before. */
	assert_int_equal(open_it(vector_chunk, sizeof vector_chunk, CHUNK_ZSTD, 1), 0);
}

static void
sealing_and_opening_take_no_memory(void **state)
{
	struct sealed c;
	int i;

	(void)state;
	lc_alloc_fail_after(0);
	for (i = 0; i < 3; i++) {
		fill((size_t)i * 30000);
		c = seal_it(sealer);
		assert_int_equal(open_it(payload, c.n, c.encoding, c.key), 0);
	}
	lc_alloc_fail_after(-1);
}

static void
blobs_come_back(void **state)
{
	static const char ad_text[] = "point 7";
	const struct lc_span ad = {(const uint8_t *)ad_text, 7}, none = {NULL, 0};
	struct lc_buf sealed = {0}, plain = {0};
	struct lc_err e = LC_ERR_INIT;
	size_t bit;

	(void)state;
	assert_int_equal(
	    open_blob(keys, ad, (struct lc_span){vector_blob, sizeof vector_blob}, &plain, &e), 0);
	assert_int_equal(plain.n, 5);
	assert_memory_equal(plain.p, "web01", 5);

	assert_int_equal(lc_buf_append(&sealed, "before", 6), 0);
	assert_int_equal(seal_blob(keys, ad, (struct lc_span){plain.p, plain.n}, &sealed, &e), 0);
	assert_int_equal(sealed.n, 6 + 4 + SEAL_OVERHEAD + 5);
	assert_memory_equal(sealed.p, "before", 6);
	for (bit = 0; bit < 8 * (sealed.n - 6); bit++) {
		sealed.p[6 + bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(
		    open_blob(keys, ad, (struct lc_span){sealed.p + 6, sealed.n - 6}, &plain, NULL),
		    bit < 32 ? LC_EKEY : LC_ECORRUPT);
		sealed.p[6 + bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (bit = 0; bit < sealed.n - 6; bit++)
		assert_int_equal(
		    open_blob(keys, ad, (struct lc_span){sealed.p + 6, bit}, &plain, NULL),
		    LC_ECORRUPT);
	assert_int_equal(
	    open_blob(keys, none, (struct lc_span){sealed.p + 6, sealed.n - 6}, &plain, NULL),
	    LC_ECORRUPT);
	assert_int_equal(plain.n, 5); /* As it was. */
	assert_int_equal(
	    open_blob(keys, ad, (struct lc_span){sealed.p + 6, sealed.n - 6}, &plain, &e), 0);
	assert_memory_equal(plain.p, "web01web01", 10);

	sealed.n = 0; /* Nothing, under nothing. */
	assert_int_equal(seal_blob(keys, none, none, &sealed, &e), 0);
	assert_int_equal(open_blob(keys, none, (struct lc_span){sealed.p, sealed.n}, &plain, &e),
	                 0);
	assert_int_equal(plain.n, 10);
	lc_buf_free(&sealed);
	lc_buf_free(&plain);
}

static void
set_sums_are_of_the_rows_in_any_order(void **state)
{
	static const uint8_t zero_id[CHUNK_ID_SIZE];
	struct set_sum a, b, sum = {{0}}, all = {{0}}, one = {{1}}, none = {{0}};
	unsigned i;

	(void)state;
	set_row(vector_set_key, vector_disk, UINT64_C(0x0102030405), vector_chunk_id, &a);
	assert_memory_equal(a.v, vector_row, sizeof a.v);
	set_row(vector_set_key, vector_disk, 7, zero_id, &b);
	set_add(&sum, &b);
	set_add(&sum, &a);
	assert_memory_equal(sum.v, vector_rows_sum, sizeof sum.v);
	set_sub(&sum, &b);
	assert_memory_equal(sum.v, a.v, sizeof sum.v);
	set_sub(&sum, &a);
	assert_true(lc_is_zero(sum.v, sizeof sum.v));
	set_row(NULL, vector_disk, UINT64_C(0x0102030405), vector_chunk_id, &a);
	assert_memory_equal(a.v, vector_row_keyless, sizeof a.v);

	/* It carries through all bytes, and around. */
	memset(all.v, 255, sizeof all.v);
	set_add(&all, &one);
	assert_memory_equal(all.v, none.v, sizeof all.v);
	set_sub(&all, &one);
	for (i = 0; i < sizeof all.v; i++)
		assert_int_equal(all.v[i], 255);
	set_add(&all, &all);
	assert_int_equal(all.v[0], 254);
	assert_int_equal(all.v[31], 255);
}

static void
running_out_of_memory_is_clean(void **state)
{
	const struct lc_span text = {(const uint8_t *)"text", 4};
	struct lc_buf sealed = {0}, plain = {0};
	struct sealer *s = NULL;
	long n;
	int rc = LC_ENOMEM;

	(void)state;
	for (n = 0; rc != 0 && n < 10; n++) {
		lc_alloc_fail_after(n);
		rc = sealer_new(keys, 1, &s, NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || (rc == LC_ENOMEM && s == NULL));
	}
	assert_int_equal(rc, 0);
	sealer_free(s);
	sealer_free(NULL);
	for (n = 0, rc = LC_ENOMEM; rc != 0 && n < 10; n++) {
		lc_buf_free(&sealed);
		lc_buf_free(&plain);
		lc_alloc_fail_after(n);
		rc = seal_blob(keys, text, text, &sealed, NULL);
		if (rc == 0)
			rc = open_blob(keys, text, (struct lc_span){sealed.p, sealed.n}, &plain,
			               NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
		assert_true(rc == 0 || plain.n == 0);
	}
	assert_int_equal(n, 5);
	lc_buf_free(&sealed);
	lc_buf_free(&plain);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(opens_what_another_implementation_made),
	    cmocka_unit_test(chunks_come_back),
	    cmocka_unit_test(every_flipped_bit_is_refused),
	    cmocka_unit_test(raw_chunk_of_other_length_is_refused),
	    cmocka_unit_test(what_the_record_header_says_is_bound),
	    cmocka_unit_test(same_content_is_sealed_to_the_same_bytes),
	    cmocka_unit_test(authentic_chunk_must_be_what_its_id_says),
	    cmocka_unit_test(authentic_frame_must_give_one_window),
	    cmocka_unit_test(sealing_and_opening_take_no_memory),
	    cmocka_unit_test(blobs_come_back),
	    cmocka_unit_test(set_sums_are_of_the_rows_in_any_order),
	    cmocka_unit_test(running_out_of_memory_is_clean),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

/* Four hashes at once are what libsodium says, one after the other. */
#include <string.h>

#include <sodium.h>

#include "store/idhash.h"
#include "store/seal.h"
#include "tests/lib/unit.h"
#include "tests/unit/vectors_keys.h"

static uint8_t bytes[IDHASH_LANES + 1][WINDOW_SIZE];

static void
expect_all(const uint8_t key[32], size_t n)
{
	uint8_t got[IDHASH_LANES][IDHASH_SIZE], want[IDHASH_SIZE];
	const uint8_t *in[IDHASH_LANES];
	size_t i;

	for (i = 0; i < IDHASH_LANES; i++)
		in[i] = bytes[i];
	idhash_four(key, in, n, got);
	for (i = 0; i < IDHASH_LANES; i++) {
		(void)crypto_generichash(want, sizeof want, bytes[i], n, key, 32);
		assert_memory_equal(got[i], want, sizeof want);
	}
}

static void
equals_libsodium(void **state)
{
	static const size_t lengths[] = {128, 256, 384, 4096, WINDOW_SIZE};
	uint8_t key[32];
	size_t i, round;

	(void)state;
	if (!idhash_fast())
		skip();
	for (round = 0; round < 20; round++) {
		randombytes_buf(key, sizeof key);
		randombytes_buf(bytes, sizeof bytes);
		for (i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
			expect_all(key, lengths[i]);
	}
	memset(bytes, 0, sizeof bytes);
	expect_all(key, WINDOW_SIZE);
	memset(bytes, 0xff, sizeof bytes);
	memset(key, 0xff, sizeof key);
	expect_all(key, WINDOW_SIZE);
}

static void
reads_from_any_address(void **state)
{
	uint8_t key[32] = {1}, got[IDHASH_LANES][IDHASH_SIZE], want[IDHASH_SIZE];
	const uint8_t *in[IDHASH_LANES];
	size_t i;

	(void)state;
	if (!idhash_fast())
		skip();
	randombytes_buf(bytes, sizeof bytes);
	for (i = 0; i < IDHASH_LANES; i++)
		in[i] = bytes[0] + i * 4099 + 1;
	idhash_four(key, in, 1024, got);
	for (i = 0; i < IDHASH_LANES; i++) {
		(void)crypto_generichash(want, sizeof want, in[i], 1024, key, sizeof key);
		assert_memory_equal(got[i], want, sizeof want);
	}
}

static void
any_number_of_ids(void **state)
{
	uint8_t ids[2 * IDHASH_LANES + 2][CHUNK_ID_SIZE], want[CHUNK_ID_SIZE];
	const uint8_t *in[2 * IDHASH_LANES + 1];
	struct lc_err e = LC_ERR_INIT;
	struct keyring *keys;
	size_t i, n;

	(void)state;
	assert_int_equal(keyring_open_code((struct lc_span){vector_keys, sizeof vector_keys},
	                                   VECTOR_CODE, &keys, &e),
	                 0);
	randombytes_buf(bytes, sizeof bytes);
	for (i = 0; i < sizeof in / sizeof in[0]; i++)
		in[i] = bytes[i * 3 % (IDHASH_LANES + 1)];
	for (n = 0; n <= sizeof in / sizeof in[0]; n++) {
		memset(ids, 0xee, sizeof ids);
		seal_ids(keys, in, n, ids);
		for (i = 0; i < n; i++) {
			seal_id(keys, in[i], want);
			assert_memory_equal(ids[i], want, sizeof want);
		}
		memset(want, 0xee, sizeof want);
		assert_memory_equal(ids[n], want, sizeof want); /* and no more */
	}
	keyring_free(keys);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(equals_libsodium),
	    cmocka_unit_test(reads_from_any_address),
	    cmocka_unit_test(any_number_of_ids),
	};

	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}

/* Four and eight hashes at once are what libsodium says, one after the other. */
#include <string.h>

#include <sodium.h>

#include "store/idhash.h"
#include "store/seal.h"
#include "tests/lib/unit.h"
#include "tests/unit/vectors_keys.h"

static uint8_t bytes[IDHASH_MAX + 1][WINDOW_SIZE];

static unsigned lanes; /* at once, in the test at hand */

static void
many(const uint8_t key[32], const uint8_t *const *in, size_t n, uint8_t (*out)[IDHASH_SIZE])
{
	if (lanes == 8)
		idhash_eight(key, in, n, out);
	else
		idhash_four(key, in, n, out);
}

static int
four(void **state)
{
	(void)state;
	lanes = 4;
	return 0;
}

static int
eight(void **state)
{
	(void)state;
	lanes = 8;
	return 0;
}

static void
expect_all(const uint8_t key[32], size_t n)
{
	uint8_t got[IDHASH_MAX][IDHASH_SIZE], want[IDHASH_SIZE];
	const uint8_t *in[IDHASH_MAX];
	size_t i;

	for (i = 0; i < IDHASH_MAX; i++)
		in[i] = bytes[i];
	many(key, in, n, got);
	for (i = 0; i < lanes; i++) {
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
	if (idhash_lanes() < lanes)
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
	uint8_t key[32] = {1}, got[IDHASH_MAX][IDHASH_SIZE], want[IDHASH_SIZE];
	const uint8_t *in[IDHASH_MAX];
	size_t i;

	(void)state;
	if (idhash_lanes() < lanes)
		skip();
	randombytes_buf(bytes, sizeof bytes);
	for (i = 0; i < IDHASH_MAX; i++)
		in[i] = bytes[0] + i * 4099 + 1;
	many(key, in, 1024, got);
	for (i = 0; i < lanes; i++) {
		(void)crypto_generichash(want, sizeof want, in[i], 1024, key, sizeof key);
		assert_memory_equal(got[i], want, sizeof want);
	}
}

static void
any_number_of_ids(void **state)
{
	uint8_t ids[2 * IDHASH_MAX + 2][CHUNK_ID_SIZE], want[CHUNK_ID_SIZE];
	const uint8_t *in[2 * IDHASH_MAX + 1];
	struct lc_err e = LC_ERR_INIT;
	struct keyring *keys;
	size_t i, n;

	(void)state;
	assert_int_equal(keyring_open_code((struct lc_span){vector_keys, sizeof vector_keys},
	                                   VECTOR_CODE, &keys, &e),
	                 0);
	randombytes_buf(bytes, sizeof bytes);
	for (i = 0; i < sizeof in / sizeof in[0]; i++)
		in[i] = bytes[i * 2 % (IDHASH_MAX + 1)];
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
	    cmocka_unit_test_setup(equals_libsodium, four),
	    cmocka_unit_test_setup(equals_libsodium, eight),
	    cmocka_unit_test_setup(reads_from_any_address, four),
	    cmocka_unit_test_setup(reads_from_any_address, eight),
	    cmocka_unit_test(any_number_of_ids),
	};

	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}

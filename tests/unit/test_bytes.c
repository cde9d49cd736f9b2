#include <stdio.h>

#include "store/base/bytes.h"
#include "tests/lib/unit.h"

static void
bytes_are_little_endian(void **state)
{
	static const uint8_t want[] = {0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0xff,
	                               0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88};
	struct lc_buf b = {0};
	struct lc_rd r;

	(void)state;
	assert_int_equal(lc_wr8(&b, 0x01), 0);
	assert_int_equal(lc_wr16(&b, 0x0203), 0);
	assert_int_equal(lc_wr32(&b, 0x04050607), 0);
	assert_int_equal(lc_wr64(&b, UINT64_C(0x8899aabbccddeeff)), 0);
	assert_int_equal(b.n, sizeof want);
	assert_memory_equal(b.p, want, sizeof want);

	r = lc_rd_over(b.p, b.n);
	assert_int_equal(lc_rd8(&r), 0x01);
	assert_int_equal(lc_rd16(&r), 0x0203);
	assert_int_equal(lc_rd32(&r), 0x04050607);
	assert_false(lc_rd_end(&r));
	assert_true(lc_rd64(&r) == UINT64_C(0x8899aabbccddeeff));
	assert_true(lc_rd_ok(&r));
	assert_true(lc_rd_end(&r));
	lc_buf_free(&b);
}

static void
high_bits_survive(void **state)
{
	uint8_t t[8];

	(void)state;
	lc_put16(t, 0xffff);
	assert_int_equal(lc_get16(t), 0xffff);
	lc_put32(t, UINT32_MAX);
	assert_true(lc_get32(t) == UINT32_MAX);
	lc_put64(t, UINT64_MAX - 1);
	assert_true(lc_get64(t) == UINT64_MAX - 1);
}

static void
reader_fails_once_and_stays_failed(void **state)
{
	static const uint8_t in[] = {1, 2, 3};
	struct lc_rd r = lc_rd_over(in, sizeof in);
	uint8_t out[4] = {9, 9, 9, 9};

	(void)state;
	assert_int_equal(lc_rd32(&r), 0);
	assert_false(lc_rd_ok(&r));
	assert_false(lc_rd_end(&r));
	assert_int_equal(lc_rd8(&r), 0); /* Though a byte is there. */
	assert_null(lc_rd_bytes(&r, 1));
	lc_rd_copy(&r, out, sizeof out);
	assert_true(lc_is_zero(out, sizeof out));

	r = lc_rd_over(in, sizeof in);
	lc_rd_copy(&r, out, 3);
	assert_memory_equal(out, in, 3);
	assert_true(lc_rd_end(&r));
	r = lc_rd_over(NULL, 0);
	assert_true(lc_rd_end(&r));
	assert_null(lc_rd_bytes(&r, SIZE_MAX));
	assert_false(lc_rd_ok(&r));
}

static void
hex_goes_both_ways(void **state)
{
	static const uint8_t in[] = {0x00, 0x7f, 0x80, 0xff};
	char text[2 * sizeof in + 1];
	uint8_t out[sizeof in];

	(void)state;
	assert_string_equal(lc_hex(text, in, sizeof in), "007f80ff");
	assert_true(lc_unhex(out, sizeof out, text));
	assert_memory_equal(out, in, sizeof in);
	assert_true(lc_unhex(out, 2, "aBCd"));
	assert_int_equal(out[0] << 8 | out[1], 0xabcd);
	assert_true(lc_unhex(out, 0, ""));
	assert_false(lc_unhex(out, 4, "007f80f"));
	assert_false(lc_unhex(out, 4, "007f80fg"));
	assert_false(lc_unhex(out, 4, "007f80ff0"));
	assert_false(lc_unhex(out, 4, ""));
	assert_false(lc_unhex(out, 1, " 1"));
	assert_false(lc_unhex(out, 1, "-1"));
}

static void
zero_is_seen_in_any_place(void **state)
{
	uint8_t b[67] = {0};
	size_t i;

	(void)state;
	assert_true(lc_is_zero(b, 0));
	assert_true(lc_is_zero(b, sizeof b));
	for (i = 0; i < sizeof b; i++) {
		b[i] = 1;
		assert_false(lc_is_zero(b, sizeof b));
		assert_true(lc_is_zero(b, i));
		b[i] = 0;
	}
	memset(b, 0x55, sizeof b);
	assert_false(lc_is_zero(b, sizeof b));
}

static void
writers_report_no_memory(void **state)
{
	struct lc_buf b = {0};

	(void)state;
	lc_alloc_fail_after(0);
	assert_int_equal(lc_wr8(&b, 1), LC_ENOMEM);
	assert_int_equal(lc_wr16(&b, 1), LC_ENOMEM);
	assert_int_equal(lc_wr32(&b, 1), LC_ENOMEM);
	assert_int_equal(lc_wr64(&b, 1), LC_ENOMEM);
	lc_alloc_fail_after(-1);
	assert_int_equal(b.n, 0);
	lc_buf_free(&b);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bytes_are_little_endian),
	    cmocka_unit_test(high_bits_survive),
	    cmocka_unit_test(reader_fails_once_and_stays_failed),
	    cmocka_unit_test(hex_goes_both_ways),
	    cmocka_unit_test(zero_is_seen_in_any_place),
	    cmocka_unit_test(writers_report_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

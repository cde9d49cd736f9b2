#include <string.h>

#include "store/base/memory.h"
#include "tests/lib/unit.h"

static void
new_bytes_are_zero(void **state)
{
	unsigned char *p = lc_alloc(4096);
	size_t i;

	(void)state;
	assert_non_null(p);
	for (i = 0; i < 4096; i++)
		assert_int_equal(p[i], 0);
	lc_free(p);
	p = lc_alloc(0); /* Still something that is not NULL: NULL means failure. */
	assert_non_null(p);
	lc_free(p);
	lc_free(NULL);
}

static void
array_checks_the_product(void **state)
{
	void *p;

	(void)state;
	assert_null(lc_alloc_array(SIZE_MAX / 2, 3));
	assert_null(lc_alloc_array(SIZE_MAX, SIZE_MAX));
	p = lc_alloc_array(3, 5);
	assert_non_null(p);
	lc_free(p);
}

static void
strings_are_copied(void **state)
{
	char *s = lc_strdup("web01");

	(void)state;
	assert_string_equal(s, "web01");
	lc_free(s);
	assert_null(lc_strdup(NULL));
	s = lc_asprintf("%s-%05d", "point", 42);
	assert_string_equal(s, "point-00042");
	lc_free(s);
}

static void
nth_allocation_fails(void **state)
{
	void *a, *b;

	(void)state;
	lc_alloc_fail_after(1);
	a = lc_alloc(1);
	b = lc_alloc(1);
	assert_non_null(a);
	assert_null(b);
	assert_null(lc_strdup("x")); /* And all after it. */
	assert_null(lc_asprintf("x"));
	assert_null(lc_realloc(NULL, 5));
	assert_null(lc_alloc_array(1, 1));
	lc_alloc_fail_after(-1);
	b = lc_alloc(1);
	assert_non_null(b);
	lc_free(a);
	lc_free(b);
}

static void
buffer_grows(void **state)
{
	struct lc_buf b = {0};
	unsigned i;

	(void)state;
	for (i = 0; i < 3000; i++) {
		uint8_t byte = (uint8_t)i;

		assert_int_equal(lc_buf_append(&b, &byte, 1), 0);
	}
	assert_int_equal(b.n, 3000);
	assert_true(b.cap >= b.n);
	for (i = 0; i < 3000; i++)
		assert_int_equal(b.p[i], (uint8_t)i);
	assert_int_equal(lc_buf_append(&b, NULL, 0), 0);
	assert_int_equal(b.n, 3000);
	lc_buf_free(&b);
	assert_null(b.p);
	assert_int_equal(b.n + b.cap, 0);
}

static void
buffer_prints(void **state)
{
	struct lc_buf b = {0};

	(void)state;
	assert_int_equal(lc_buf_printf(&b, "%d", 12), 0);
	assert_int_equal(lc_buf_printf(&b, "%s", ""), 0);
	assert_int_equal(lc_buf_printf(&b, "/%s", "34"), 0);
	assert_int_equal(b.n, 5);
	assert_string_equal((char *)b.p, "12/34"); /* A NUL follows, uncounted. */
	lc_buf_free(&b);
}

static void
failed_growth_keeps_the_bytes(void **state)
{
	struct lc_buf b = {0};

	(void)state;
	assert_int_equal(lc_buf_append(&b, "kept", 5), 0);
	lc_alloc_fail_after(0);
	assert_int_equal(lc_buf_reserve(&b, 1 << 20), LC_ENOMEM);
	assert_int_equal(lc_buf_printf(&b, "%01000d", 1), LC_ENOMEM);
	lc_alloc_fail_after(-1);
	assert_int_equal(b.n, 5);
	assert_string_equal((char *)b.p, "kept");
	/* No room can be that large: neither may the sum wrap, nor the doubling run for ever. */
	assert_int_equal(lc_buf_reserve(&b, SIZE_MAX - 2), LC_ENOMEM);
	assert_int_equal(lc_buf_reserve(&b, SIZE_MAX / 2 + 2), LC_ENOMEM);
	assert_string_equal((char *)b.p, "kept");
	lc_buf_free(&b);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(new_bytes_are_zero),
	    cmocka_unit_test(array_checks_the_product),
	    cmocka_unit_test(strings_are_copied),
	    cmocka_unit_test(nth_allocation_fails),
	    cmocka_unit_test(buffer_grows),
	    cmocka_unit_test(buffer_prints),
	    cmocka_unit_test(failed_growth_keeps_the_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

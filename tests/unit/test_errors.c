#include <errno.h>
#include <string.h>

#include "store/base/errors.h"
#include "tests/lib/unit.h"

static void
first_failure_wins(void **state)
{
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_int_equal(lc_fail(&e, LC_ECORRUPT, 0, "segment %d", 7), LC_ECORRUPT);
	assert_int_equal(lc_fail(&e, LC_EIO, EIO, "cleanup"), LC_EIO);
	assert_int_equal(e.code, LC_ECORRUPT);
	assert_int_equal(e.sys, 0);
	assert_string_equal(e.msg, "segment 7");
	lc_err_clear(&e);
	assert_int_equal(e.code, LC_OK);
	assert_string_equal(e.msg, "");
}

static void
names_the_errno(void **state)
{
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	(void)lc_fail(&e, LC_EIO, EIO, "disk %s", "vda");
	assert_string_equal(e.msg, "disk vda: Input/output error");
	assert_int_equal(e.sys, EIO);
	lc_err_clear(&e);
	/* UV_E* codes are negative: their text is not strerror's. */
	(void)lc_fail(&e, LC_EIO, -EIO, "disk");
	assert_string_equal(e.msg, "disk");
}

static void
codes_come_from_errno(void **state)
{
	static const struct {
		int sys;
		enum lc_code code;
	} rows[] = {
	    {ENOSPC, LC_ENOSPC}, {EDQUOT, LC_ENOSPC}, {EACCES, LC_EACCES},
	    {EPERM, LC_EACCES},  {EROFS, LC_EACCES},  {ENOENT, LC_ENOENT},
	    {EEXIST, LC_EEXIST}, {ENOMEM, LC_ENOMEM}, {EBUSY, LC_EBUSY},
	    {EIO, LC_EIO},       {EPIPE, LC_EIO},     {ETIMEDOUT, LC_ETIMEDOUT},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct lc_err e = LC_ERR_INIT;

		errno = rows[i].sys;
		assert_int_equal(lc_fail_errno(&e, "x"), rows[i].code);
		assert_int_equal(e.code, rows[i].code);
		assert_int_equal(e.sys, rows[i].sys);
	}
}

static void
wraps_from_outside(void **state)
{
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	lc_wrap(&e, "nothing failed");
	assert_int_equal(e.code, LC_OK);
	assert_string_equal(e.msg, "");
	(void)lc_fail(&e, LC_EKEY, 0, "inner");
	lc_wrap(&e, "backup of %s", "web01");
	lc_wrap(&e, "outer");
	assert_int_equal(e.code, LC_EKEY);
	assert_string_equal(e.msg, "outer: backup of web01: inner");
}

static void
null_is_fine(void **state)
{
	(void)state;
	assert_int_equal(lc_fail(NULL, LC_EBUSY, 0, "x"), LC_EBUSY);
	errno = ENOENT;
	assert_int_equal(lc_fail_errno(NULL, "x"), LC_ENOENT);
	lc_wrap(NULL, "x");
	lc_err_clear(NULL);
}

static void
long_texts_are_cut(void **state)
{
	char text[2000];
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	memset(text, 'a', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	(void)lc_fail(&e, LC_EIO, EIO, "%s", text);
	assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
	lc_wrap(&e, "outer");
	assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
	assert_memory_equal(e.msg, "outer: aaa", 10);
	lc_wrap(&e, "%s", text);
	assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

static void
every_code_has_a_text(void **state)
{
	(void)state;
#define X(name, value, retry, text)                    \
	assert_int_equal(name, value);                 \
	assert_string_equal(lc_code_text(name), text); \
	assert_int_equal(lc_code_retryable(name), retry);
	LC_CODES(X)
#undef X
	/* A code of a newer peer. */
	assert_string_equal(lc_code_text((enum lc_code) - 999), "unknown error");
	assert_false(lc_code_retryable((enum lc_code) - 999));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(first_failure_wins),    cmocka_unit_test(names_the_errno),
	    cmocka_unit_test(codes_come_from_errno), cmocka_unit_test(wraps_from_outside),
	    cmocka_unit_test(null_is_fine),          cmocka_unit_test(long_texts_are_cut),
	    cmocka_unit_test(every_code_has_a_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <stdio.h>
#include <string.h>

#include "store/base/config.h"
#include "store/base/files.h"
#include "tests/lib/unit.h"

static struct config *
parse(const char *text)
{
	struct lc_err e = LC_ERR_INIT;
	struct config *c;

	if (config_parse("t.conf", text, strlen(text), &c, &e) != 0)
		fail_msg("%s", e.msg);
	return c;
}

static void
assert_entry(const struct config *c, size_t i, const char *section, const char *name,
             const char *key, const char *value, unsigned line)
{
	const struct config_entry *t;
	size_t n;

	t = config_entries(c, &n);
	assert_true(i < n);
	assert_string_equal(t[i].section, section);
	assert_string_equal(t[i].name, name);
	assert_string_equal(t[i].key, key);
	assert_string_equal(t[i].value, value);
	assert_int_equal(t[i].line, line);
}

static void
reads_sections_and_keys_in_order(void **state)
{
	struct config *c = parse("top = 1\n"
	                         "\n"
	                         "# a comment\n"
	                         "  ; another\n"
	                         "[store]\n"
	                         "path=/srv/locum\n"
	                         "  empty =  \n"
	                         "[vm web01]\n"
	                         "[vm \t db 1 ]\n"
	                         "disk.vda = a = b #c;d \r\n"
	                         "disk.vda\t=\tsecond\n"
	                         "[ agent ]"); /* no newline at the end */
	size_t n;

	(void)state;
	(void)config_entries(c, &n);
	assert_int_equal(n, 7);
	assert_entry(c, 0, "", "", "top", "1", 1);
	assert_entry(c, 1, "store", "", "path", "/srv/locum", 6);
	assert_entry(c, 2, "store", "", "empty", "", 7);
	assert_entry(c, 3, "vm", "web01", "", "", 8); /* A section without keys is heard of. */
	assert_entry(c, 4, "vm", "db 1", "disk.vda", "a = b #c;d", 10);
	assert_entry(c, 5, "vm", "db 1", "disk.vda", "second", 11);
	assert_entry(c, 6, "agent", "", "", "", 12);
	assert_string_equal(config_origin(c), "t.conf");
	config_free(c);
	config_free(NULL);
}

static void
the_last_value_counts(void **state)
{
	struct config *c = parse("k = top\n[a]\nk = 1\n[a x]\nk = 2\n[a]\nk = 3\n[e]\n");

	(void)state;
	assert_string_equal(config_get(c, "a", NULL, "k"), "3");
	assert_string_equal(config_get(c, "a", "", "k"), "3");
	assert_string_equal(config_get(c, "a", "x", "k"), "2");
	assert_string_equal(config_get(c, "", NULL, "k"), "top");
	assert_null(config_get(c, "a", "y", "k"));
	assert_null(config_get(c, "a", NULL, "K"));
	assert_null(config_get(c, "e", NULL, "")); /* The entry of an empty section is no key. */
	config_free(c);
}

static void
long_names_and_lines_stay_whole(void **state)
{
	char text[8192 + 64], name[101];
	const struct config_entry *t;
	struct lc_err e = LC_ERR_INIT;
	struct config *c;
	size_t entries;
	int n;

	(void)state;
	memset(name, 'n', 100);
	name[100] = '\0';
	n = snprintf(text, sizeof text, "[vm %sA]\nk = 1\n[vm %sB]\nk = 2\n", name, name);
	assert_int_equal(config_parse("t", text, (size_t)n, &c, &e), 0);
	t = config_entries(c, &entries);
	assert_int_equal(entries, 2);
	assert_int_equal(strlen(t[0].name), 101);
	assert_int_equal(t[0].name[100], 'A');
	assert_int_equal(t[1].name[100], 'B');
	config_free(c);

	/* 8 KiB is a line, one byte more is not. */
	memset(text, 'v', sizeof text);
	memcpy(text, "\nk=", 3);
	text[1 + 8192] = '\n';
	assert_int_equal(config_parse("t", text, 8194, &c, &e), 0);
	assert_int_equal(strlen(config_get(c, "", NULL, "k")), 8190);
	config_free(c);
	text[1 + 8192] = 'v';
	assert_int_equal(config_parse("t", text, 8194, &c, &e), LC_EINVAL);
	assert_string_equal(e.msg, "t:2: line longer than 8192 bytes");
	assert_null(c);
}

static void
complaints_name_the_line(void **state)
{
	static const struct {
		const char *text, *complaint;
	} rows[] = {
	    {"a = 1\nnonsense\n", "t:2: neither [section], nor key = value, nor a comment"},
	    {"[a\nk = 1\n", "t:1: no ] at the end of the section name"},
	    {"[a] junk\n", "t:1: text after the ] of the section name"},
	    {"[a] # junk\n", "t:1: text after the ] of the section name"},
	    {"\n\n[ ]\n", "t:3: empty section name"},
	    {"= 1\n", "t:1: no key before the ="},
	    {"two words = 1\n", "t:1: a key is made of letters, digits, '_', '-' and '.'"},
	    {"a = 1\n\tcontinued\n", "t:2: neither [section], nor key = value, nor a comment"},
	    {"a: 1\n", "t:1: neither [section], nor key = value, nor a comment"},
	    {"path = /srv # here\n", "t:1: comments stand on lines of their own"},
	    {"path = /srv ;\n", "t:1: comments stand on lines of their own"},
	    {"a = \033[31m\n", "t:1: control character"},
	    {"a = b\rc\n", "t:1: control character"},
	};
	struct config *c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct lc_err e = LC_ERR_INIT;

		assert_int_equal(config_parse("t", rows[i].text, strlen(rows[i].text), &c, &e),
		                 LC_EINVAL);
		assert_string_equal(e.msg, rows[i].complaint);
		assert_null(c);
	}
}

static void
hostile_texts_are_refused(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf big = {0};
	struct config *c;

	(void)state;
	assert_int_equal(config_parse("t", "a = 1\nb = \0x\n", 13, &c, &e), LC_EINVAL);
	assert_string_equal(e.msg, "t:2: control character");
	lc_err_clear(&e);
	while (big.n <= 1 << 20)
		assert_int_equal(lc_buf_append(&big, "#\n", 2), 0);
	assert_int_equal(config_parse("t", (char *)big.p, 1 << 20, &c, &e), 0);
	config_free(c);
	assert_int_equal(config_parse("t", (char *)big.p, (1 << 20) + 1, &c, &e), LC_EINVAL);
	lc_buf_free(&big);
}

static void
a_byte_order_mark_and_nothing_are_fine(void **state)
{
	struct config *c = parse("\xef\xbb\xbf[a]\nk = v\n");
	size_t n;

	(void)state;
	assert_string_equal(config_get(c, "a", NULL, "k"), "v");
	config_free(c);
	assert_int_equal(config_parse("t", NULL, 0, &c, NULL), 0);
	(void)config_entries(c, &n);
	assert_int_equal(n, 0);
	assert_null(config_get(c, "", NULL, "k"));
	config_free(c);
}

static void
loads_files(void **state)
{
	char *dir = tmpdir_new();
	const char *path = tmpdir_path(dir, "locum.conf");
	struct lc_err e = LC_ERR_INIT;
	struct config *c;

	(void)state;
	assert_int_equal(file_write_atomic(path, "[a]\nk = v\n", 10, 0600, NULL), 0);
	assert_int_equal(config_load(path, &c, &e), 0);
	assert_string_equal(config_get(c, "a", NULL, "k"), "v");
	assert_string_equal(config_origin(c), path);
	config_free(c);
	assert_int_equal(config_load(tmpdir_path(dir, "none"), &c, &e), LC_ENOENT);
	assert_null(c);
	tmpdir_free(dir);
}

static void
no_memory_is_said(void **state)
{
	struct lc_buf text = {0};
	struct config *c;
	int rc = LC_ENOMEM;
	long n;

	(void)state;
	for (n = 0; n < 100; n++) /* More entries than fit at first. */
		assert_int_equal(lc_buf_printf(&text, "[s%ld]\nk = v\n", n), 0);
	for (n = 0; rc != 0; n++) {
		struct lc_err e = LC_ERR_INIT;

		lc_alloc_fail_after(n);
		rc = config_parse("t", (char *)text.p, text.n, &c, &e);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
		assert_int_equal(e.code, rc);
		assert_true((c == NULL) == (rc != 0));
	}
	assert_true(n > 4);
	config_free(c);
	lc_buf_free(&text);
}

static void
sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* UINT64_MAX: refused */
	} rows[] = {
	    {"512", 512},
	    {"0", 0},
	    {"64 KiB", 65536},
	    {"64k", 65536},
	    {"20GiB", UINT64_C(20) << 30},
	    {"1.5 TiB", UINT64_C(1536) << 30},
	    {"0.5 kib", 512},
	    {"0.3M", 314572},
	    {"7 B", 7},
	    {"2T", UINT64_C(2) << 40},
	    {"16777215 TiB", UINT64_C(16777215) << 40},
	    {"18446744073709551614", UINT64_MAX - 1},
	    {"16777216 TiB", UINT64_MAX},
	    {"18446744073709551616", UINT64_MAX},
	    {"1.5", UINT64_MAX},
	    {"1.5 B", UINT64_MAX},
	    {"1. KiB", UINT64_MAX},
	    {"1.0000000000 KiB", UINT64_MAX},
	    {".5 KiB", UINT64_MAX},
	    {"1 KB", UINT64_MAX},
	    {"1 PiB", UINT64_MAX},
	    {"1 KiBx", UINT64_MAX},
	    {"-1", UINT64_MAX},
	    {"+1", UINT64_MAX},
	    {" 1", UINT64_MAX},
	    {"", UINT64_MAX},
	    {"KiB", UINT64_MAX},
	    {"0x10", UINT64_MAX},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		uint64_t v = UINT64_MAX;
		bool ok = config_size(rows[i].text, &v);

		if (ok != (rows[i].bytes != UINT64_MAX) || v != rows[i].bytes)
			fail_msg("\"%s\": %d, %llu", rows[i].text, ok, (unsigned long long)v);
	}
}

static void
rates(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* UINT64_MAX: refused */
	} rows[] = {
	    {"50 MiB/s", UINT64_C(50) << 20},
	    {"50MiB", UINT64_C(50) << 20},
	    {"1.5 MiB/s", UINT64_C(3) << 19},
	    {"0", 0},
	    {"400 Mbit/s", 50000000},
	    {"400mbit", 50000000},
	    {"1 Gbit/s", 125000000},
	    {"64 kbit/s", 8000},
	    {"8 bit/s", 1},
	    {"1.5 Mbit/s", UINT64_MAX},
	    {"Mbit/s", UINT64_MAX},
	    {"50 MB/s", UINT64_MAX},
	    {"50 MiB/m", UINT64_MAX},
	    {"/s", UINT64_MAX},
	    {"", UINT64_MAX},
	    {"18446744073709551615 kbit", UINT64_MAX},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		uint64_t v = UINT64_MAX;
		bool ok = config_rate(rows[i].text, &v);

		if (ok != (rows[i].bytes != UINT64_MAX) || v != rows[i].bytes)
			fail_msg("\"%s\": %d, %llu", rows[i].text, ok, (unsigned long long)v);
	}
}

static void
bools_and_numbers(void **state)
{
	static const char *const yes[] = {"yes", "True", "ON", "1"};
	static const char *const no[] = {"no", "false", "Off", "0"};
	uint64_t v = 7;
	size_t i;
	bool b;

	(void)state;
	for (i = 0; i < 4; i++) {
		b = false;
		assert_true(config_bool(yes[i], &b) && b);
		assert_true(config_bool(no[i], &b) && !b);
	}
	assert_false(config_bool("", &b));
	assert_false(config_bool("y", &b));
	assert_false(config_bool("2", &b));
	assert_true(config_uint("18446744073709551615", &v) && v == UINT64_MAX);
	assert_true(config_uint("007", &v) && v == 7);
	assert_false(config_uint("18446744073709551616", &v));
	assert_false(config_uint("-1", &v));
	assert_false(config_uint(" 1", &v));
	assert_false(config_uint("1 ", &v));
	assert_false(config_uint("", &v));
	assert_true(v == 7);
}

static void
sizes_for_people(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} rows[] = {
	    {0, "0 B"},
	    {1023, "1023 B"},
	    {1024, "1.0 KiB"},
	    {1229, "1.2 KiB"},
	    {(1 << 20) - 1, "1.0 MiB"}, /* not "1024.0 KiB" */
	    {UINT64_C(1) << 40, "1.0 TiB"},
	    {UINT64_MAX, "16.0 EiB"},
	};
	char t[32];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		assert_string_equal(size_format(t, sizeof t, rows[i].bytes), rows[i].text);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(reads_sections_and_keys_in_order),
	    cmocka_unit_test(the_last_value_counts),
	    cmocka_unit_test(long_names_and_lines_stay_whole),
	    cmocka_unit_test(complaints_name_the_line),
	    cmocka_unit_test(hostile_texts_are_refused),
	    cmocka_unit_test(a_byte_order_mark_and_nothing_are_fine),
	    cmocka_unit_test(loads_files),
	    cmocka_unit_test(no_memory_is_said),
	    cmocka_unit_test(sizes),
	    cmocka_unit_test(rates),
	    cmocka_unit_test(bools_and_numbers),
	    cmocka_unit_test(sizes_for_people),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

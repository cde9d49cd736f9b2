#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/imageformat.h"
#include "store/base/files.h"
#include "store/base/spawn.h"
#include "tests/lib/unit.h"

static char *top;

static int
setup(void **state)
{
	(void)state;
	top = tmpdir_new();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	tmpdir_free(top);
	return 0;
}

/* A file of 64 KiB with text at some places: offset and bytes. */
struct part {
	size_t at;
	const char *bytes;
	size_t n;
};

static const char *
make(const char *name, size_t size, const struct part *parts, size_t n)
{
	const char *path = tmpdir_path(top, name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t i;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	for (i = 0; i < n; i++)
		assert_int_equal(pwrite(fd, parts[i].bytes, parts[i].n, (off_t)parts[i].at),
		                 parts[i].n);
	(void)close(fd);
	return path;
}

static void
believes_what_agrees(void **state)
{
	static const struct {
		const char *name;
		struct part part;
		const char *format; /* NULL: refused */
		const char *says;   /* the message */
	} table[] = {
	    {"a.raw", {0, "x", 1}, "raw", ""},
	    {"a.IMG", {0, "x", 1}, "raw", ""},
	    {"a.qcow2", {0, "QFI\xfb\0\0\0\3", 8}, "qcow2", ""},
	    {"a.vhdx", {0, "vhdxfile", 8}, "vhdx", ""},
	    {"a.vmdk", {0, "KDMV", 4}, "vmdk", ""},
	    {"a.vhd", {0, "conectix", 8}, "vpc", ""},
	    {"b.vhd", {65536 - 512, "conectix", 8}, "vpc", ""},
	    /* A guest may have written any of these into its disk. */
	    {"q.raw",
	     {0, "QFI\xfb\0\0\0\3", 8},
	     NULL,
	     "looks like qcow2 inside, and its name says raw"},
	    {"q.img", {0, "vhdxfile", 8}, NULL, "--image-format raw or vhdx"},
	    {"q", {0, "QFI\xfb\0\0\0\3", 8}, NULL, "looks like qcow2 inside; a guest can"},
	    {"c.raw", {65536 - 512, "conectix", 8}, NULL, "looks like vpc inside"},
	    {"plain", {0, "x", 1}, NULL, "nothing tells its format"},
	    {"n.vhdx", {0, "x", 1}, NULL, "looks like raw inside, and its name says vhdx"},
	    {"n.vmdk", {0, "QFI\xfb", 4}, NULL, "its name says vmdk"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof table / sizeof table[0]; i++) {
		const char *path = make(table[i].name, 65536, &table[i].part, 1), *format = NULL;
		struct lc_err e = LC_ERR_INIT;
		int rc = imageformat_probe(path, &format, &e);

		assert_int_equal(rc, table[i].format == NULL ? LC_EINVAL : 0);
		if (rc == 0)
			assert_string_equal(format, table[i].format);
		assert_non_null(strstr(e.msg, table[i].says));
	}
}

static void
refuses_what_opens_other_files(void **state)
{
	static const struct {
		const char *format;
		struct part parts[3];
		const char *why; /* NULL: fine */
	} table[] = {
	    {"raw", {{0, "QFI\xfb", 4}}, NULL},
	    {"qcow2", {{0, "QFI\xfb\0\0\0\3", 8}}, NULL},
	    {"qcow2", {{0, "QFI\xfb\0\0\0\3", 8}, {15, "\x68", 1}}, "backing image"},
	    {"qcow2", {{0, "QFI\xfb\0\0\0\2", 8}, {8, "\x01", 1}}, "backing image"},
	    {"qcow2", {{0, "QFI\xfb\0\0\0\3", 8}, {79, "\x04", 1}}, "in another file"},
	    {"qcow2", {{0, "QFI\xfb\0\0\0\3", 8}, {79, "\x01", 1}}, NULL}, /* not closed well */
	    {"qcow2", {{0, "QFJ\xfb\0\0\0\3", 8}}, "no qcow2"},
	    {"vhdx", {{0, "vhdxfile", 8}}, NULL},
	    {"vhdx", {{0, "x", 1}}, "no vhdx"},
	    {"vmdk",
	     {{0, "KDMV\1\0\0\0\3\0\0\0\0\x50", 14}, {512, "parentCID=ffffffff\n", 19}},
	     NULL},
	    {"vmdk",
	     {{0, "KDMV\1\0\0\0\3\0\0\0\0\x50", 14}, {512, "parentCID=FFFFFFFF\n", 19}},
	     NULL},
	    {"vmdk",
	     {{0, "KDMV\1\0\0\0\3\0\0\0\0\x50", 14}, {512, "parentCID=12345678\n", 19}},
	     "stands on another"},
	    {"vmdk",
	     {{0, "KDMV\1\0\0\0\3\0\0\0\0\x50", 14}, {9000, "parentFileNameHint=\"/etc/x\"", 27}},
	     "stands on another"},
	    {"vmdk",
	     {{0, "COWD", 4}, {512, "parentFileNameHint=\"/etc/x\"", 27}},
	     "stands on another"},
	    {"vmdk",
	     {{0, "KDMV\1\0\0\0\3\0\0\0\0\x50", 14}, {65526, "parentCID=", 10}},
	     "stands on another"},
	    {"vmdk", {{0, "KDMV\1\0\0\0\3\0\0\0", 12}}, "only names the files"},
	    {"vmdk", {{0, "# Disk DescriptorFile\n", 22}}, "only names the files"},
	    {"vpc", {{0, "conectix", 8}, {63, "\3", 1}}, NULL},
	    {"vpc", {{0, "conectix", 8}, {63, "\4", 1}}, "difference to another"},
	    {"vpc", {{65024, "conectix", 8}, {65087, "\4", 1}}, "difference to another"},
	    {"vpc", {{0, "x", 1}}, "no vhd"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof table / sizeof table[0]; i++) {
		const char *path = make("x", 65536, table[i].parts, 3);
		struct lc_err e = LC_ERR_INIT;

		assert_int_equal(imageformat_check(path, table[i].format, &e),
		                 table[i].why == NULL ? 0 : LC_EINVAL);
		if (table[i].why != NULL)
			assert_non_null(strstr(e.msg, table[i].why));
	}
	assert_int_equal(imageformat_check(make("short", 3, NULL, 0), "qcow2", NULL), LC_EINVAL);
	assert_int_equal(imageformat_check(tmpdir_path(top, "no"), "raw", NULL), LC_ENOENT);
	assert_int_equal(imageformat_check("/dev/null", "raw", NULL), LC_EINVAL);
}

static void
asks_for_sizes(void **state)
{
	static const char *const formats[] = {"qcow2", "vhdx", "vmdk", "vpc"};
	char program[] = "qemu-img", create[] = "create", quiet[] = "-q", as[] = "-f",
	     size[] = "10M", path[256], format[8], with[] = "-o", options[32];
	char *argv[] = {program, create, quiet, as, format, path, size, with, options, NULL};
	struct spawn s = {.argv = argv};
	struct lc_err e = LC_ERR_INIT;
	uint64_t n;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof formats / sizeof formats[0]; i++) {
		(void)snprintf(path, sizeof path, "%s/\"a, b\\.%s", top, formats[i]);
		(void)snprintf(format, sizeof format, "%s", formats[i]);
		(void)snprintf(options, sizeof options, "%s",
		               strcmp(formats[i], "vpc") == 0 ? "force_size=on" : "");
		argv[7] = *options == '\0' ? NULL : with;
		if (spawn_run(&s, NULL, NULL, &e) == LC_ENOENT)
			skip();
		assert_string_equal(e.msg, "");
		assert_int_equal(imageformat_check(path, format, &e), 0);
		assert_int_equal(imageformat_size(path, format, &n, &e), 0);
		assert_int_equal(n, 10u << 20);
	}
	assert_int_equal(imageformat_size(make("bad", 4096, NULL, 0), "vhdx", &n, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, "bad: qemu-img: "));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(believes_what_agrees, setup, teardown),
	    cmocka_unit_test_setup_teardown(refuses_what_opens_other_files, setup, teardown),
	    cmocka_unit_test_setup_teardown(asks_for_sizes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

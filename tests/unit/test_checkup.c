#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/checkup.h"
#include "agent/findings.h"
#include "agent/hypervisor/settings.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"

static void
reads_versions(void **state)
{
	static const struct {
		const char *text;
		unsigned v; /* 0: none */
	} table[] = {
	    {"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", 70222},
	    {"nbdkit 1.32.5", 13205},
	    {"QEMU emulator version 10.0", 100000},
	    {"qemu-img version 6.2.0\nCopyright (c) 2003-2021", 60200},
	    {"x86_64 says 8.1.3", 80103},
	    {"7.200.1", 79901},
	    {"true (GNU coreutils) 9", 0},
	    {"", 0},
	    {"version 5", 0},
	    {"1.", 0},
	    {"99999999999999999999.1", 99990100},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof table / sizeof table[0]; i++) {
		unsigned v = 0;

		assert_int_equal(checkup_version(table[i].text, &v), table[i].v != 0);
		assert_int_equal(v, table[i].v);
	}
}

static void
judges_the_clock(void **state)
{
	static const int64_t now = INT64_C(1700000000) * LC_NS_PER_S;
	static const struct {
		struct checkup_clock t;
		enum finding_level level;
		const char *text;
	} table[] = {
	    {{.known = true, .synchronised = true, .now_ns = now}, FINDING_GOOD, "synchronised"},
	    {{.known = true, .now_ns = now}, FINDING_WARN, "no time server"},
	    {{.now_ns = now}, FINDING_GOOD, "2023-11-1"},
	    {{.known = true,
	      .synchronised = true,
	      .now_ns = now,
	      .newest_ns = now + 60 * LC_NS_PER_S},
	     FINDING_GOOD,
	     "synchronised"},
	    {{.known = true,
	      .synchronised = true,
	      .now_ns = now,
	      .newest_ns = now + 3600 * LC_NS_PER_S},
	     FINDING_BAD,
	     "newest restore point is of 2023-11-1"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct findings f = {0};

		checkup_clock(&f, &table[i].t);
		assert_int_equal(f.n, 1);
		assert_int_equal(f.list[0].level, table[i].level);
		assert_non_null(strstr(f.list[0].text, table[i].text));
		assert_int_equal(f.list[0].advice[0] == '\0', f.list[0].level == FINDING_GOOD);
		findings_free(&f);
	}
}

static void
write_file(const char *path, const void *p, size_t n)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(p, 1, n, file), n);
	assert_int_equal(fclose(file), 0);
}

/* QEMUs that no configuration names: what each would take. */
static void
finds_strangers(void **state)
{
	static const char none[] = "qemu-system-x86_64\0-name\0bare",
			  held[] = "qemu-system-x86_64\0-name\0guest=virt,debug-threads=on\0"
				   "-chardev\0socket,id=m,fd=3\0-mon\0chardev=m,mode=control",
			  dead[] = "qemu-system-x86_64\0-qmp\0unix:/nowhere/qmp,server=on",
			  named[] = "qemu-system-x86_64\0-qmp\0unix:/nowhere/web01,server=on";
	static const struct {
		const char *pid, *words;
		size_t n;
	} list[] = {{"11", none, sizeof none},
	            {"12", held, sizeof held},
	            {"13", dead, sizeof dead},
	            {"14", named, sizeof named}};
	char *top = tmpdir_new(), qmp[] = "/nowhere/web01";
	struct settings_vm vm = {.name = "web01", .qmp = qmp};
	struct settings s = {.vms = &vm, .nvms = 1, .run_dir = top, .connect_timeout_ms = 100};
	const char *const only[] = {"bare", "virt", "pid-13", "nobody"};
	struct findings f = {0};
	struct checkup c = {.settings = &s, .findings = &f, .proc = top, .only = only, .nonly = 4};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof list / sizeof list[0]; i++) {
		char *dir = path_join(top, list[i].pid);

		assert_int_equal(mkdir(dir, 0700), 0);
		write_file(tmpdir_path(dir, "cmdline"), list[i].words, list[i].n);
		lc_free(dir);
	}
	checkup_vms(&c);
	assert_int_equal(f.n, 4);
	assert_string_equal(f.list[0].about, "bare");
	assert_non_null(strstr(f.list[0].text, "(pid 11) has no monitor for programs"));
	assert_non_null(strstr(f.list[0].advice, "-qmp unix:/run/bare-locum.qmp,"));
	assert_string_equal(f.list[1].about, "virt");
	assert_non_null(strstr(f.list[1].text, "holds it"));
	assert_non_null(strstr(f.list[1].advice, "libvirt = qemu:///system"));
	assert_string_equal(f.list[2].about, "pid-13");
	assert_int_equal(f.list[2].level, FINDING_BAD);
	assert_non_null(strstr(f.list[2].text, "/nowhere/qmp"));
	assert_string_equal(f.list[3].about, "nobody");
	assert_int_equal(f.list[3].level, FINDING_BAD);
	for (i = 0; i < f.n; i++) {
		assert_true(f.list[i].is_vm);
		assert_string_not_equal(f.list[i].advice, "");
	}
	findings_free(&f);
	tmpdir_free(top);
}

static void
says_that_it_ran_out_of_memory(void **state)
{
	struct findings f = {0};
	struct finding *x;

	(void)state;
	(void)findings_add(&f, FINDING_GOOD, "a", "b");
	lc_alloc_fail_after(0);
	x = findings_add(&f, FINDING_GOOD, "c", "d");
	finding_advise(x, "e");
	lc_alloc_fail_after(-1);
	assert_int_equal(f.n, 1);
	assert_true(f.lost);
	assert_int_equal(findings_worst(&f, true), FINDING_BAD);
	findings_free(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(reads_versions),
	    cmocka_unit_test(judges_the_clock),
	    cmocka_unit_test(finds_strangers),
	    cmocka_unit_test(says_that_it_ran_out_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

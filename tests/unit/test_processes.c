#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/hypervisor/commandline.h"
#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/processes.h"
#include "store/base/files.h"
#include "store/base/memory.h"
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

static void
write_file(const char *path, const void *p, size_t n)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* A process of that number whose words are separated by '|'. */
static void
make(const char *pid, const char *words, const char *label)
{
	char *dir = path_join(top, pid), text[1024];
	size_t i, n = strlen(words);
	char *attr = path_join(dir, "attr");

	assert_true(n + 1 < sizeof text);
	for (i = 0; i <= n; i++)
		text[i] = words[i] == '|' ? '\0' : words[i];
	assert_int_equal(mkdir(dir, 0700), 0);
	write_file(tmpdir_path(dir, "cmdline"), text, n + 1);
	assert_int_equal(mkdir(attr, 0700), 0);
	write_file(tmpdir_path(attr, "current"), label, strlen(label));
	assert_int_equal(symlink("/somewhere", tmpdir_path(dir, "cwd")), 0);
	lc_free(attr);
	lc_free(dir);
}

static struct process
only(const char *words)
{
	struct process *list, p;
	size_t n;

	make("77", words, "unconfined\n");
	assert_int_equal(processes_list(top, &list, &n, NULL), 0);
	assert_int_equal(n, 1);
	p = list[0];
	lc_free(list);
	dir_remove(tmpdir_path(top, "77"));
	return p;
}

static void
tells_qemus_from_others(void **state)
{
	struct process *list;
	size_t n;

	(void)state;
	make("12", "/usr/bin/qemu-system-x86_64|-name|web01", "libvirt-1 (enforce)\n");
	make("3", "qemu-kvm|-name|db01", "unconfined\n");
	make("4", "/bin/qemu-nbd|-name|x", "unconfined");
	make("5", "bash|-c|qemu-system-x86_64", "unconfined");
	make("nonsense", "qemu-system-x86_64|-name|y", "unconfined");
	make("6", "", "");
	assert_int_equal(mkdir(tmpdir_path(top, "99"), 0700), 0); /* has just ended */
	assert_int_equal(processes_list(top, &list, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_int_equal(list[0].pid, 3);
	assert_string_equal(list[0].name, "db01");
	assert_string_equal(list[0].label, "");
	assert_int_equal(list[1].pid, 12);
	assert_string_equal(list[1].label, "libvirt-1 (enforce)");
	assert_int_equal(list[1].uid, getuid());
	lc_free(list);
	assert_int_equal(processes_list(tmpdir_path(top, "no"), &list, &n, NULL), LC_ENOENT);
}

static void
reads_names(void **state)
{
	struct process p = only("qemu-system-x86_64|-name|guest=web,,01,debug-threads=on|-uuid|"
	                        "6A1F0000-0000-4000-8000-00000000ABCD");

	(void)state;
	assert_string_equal(p.name, "web,01");
	assert_string_equal(p.uuid, "6a1f0000-0000-4000-8000-00000000abcd");
	p = only("qemu-system-x86_64|--name|web01,process=vm-web01|-uuid");
	assert_string_equal(p.name, "web01");
	assert_string_equal(p.uuid, "");
	p = only("qemu-system-x86_64|-name");
	assert_string_equal(p.name, "");
}

static void
finds_monitors(void **state)
{
	static const struct {
		const char *words, *monitor;
		bool held;
	} table[] = {
	    {"-qmp|unix:/run/a.qmp,server=on,wait=off", "/run/a.qmp", false},
	    {"-qmp|unix:/run/a,,b.qmp,server=on", "/run/a,b.qmp", false},
	    {"-qmp|unix:rel.qmp,server", "/somewhere/rel.qmp", false},
	    {"-qmp|tcp:localhost:4444,server", "", false},
	    {"-monitor|unix:/run/hmp,server", "", false},
	    {"-qmp|unix:/run/a|-qmp|unix:/run/b", "/run/a", false},
	    {"-chardev|socket,id=m,path=/run/c.qmp,server=on|-mon|chardev=m,mode=control",
	     "/run/c.qmp", false},
	    {"-mon|m,mode=control|-chardev|socket,path=/run/c.qmp,id=m", "/run/c.qmp", false},
	    {"-chardev|socket,id=m,path=/run/c|-mon|chardev=m,mode=readline", "", false},
	    {"-chardev|socket,id=x,path=/run/c|-mon|chardev=m,mode=control", "", false},
	    {"-chardev|socket,id=charmonitor,fd=30,server=on,wait=off|-mon|chardev=charmonitor,"
	     "id=monitor,mode=control",
	     "", true},
	    {"-chardev|socket,id=c,fd=3|-mon|chardev=c,mode=control|-qmp|unix:/run/own", "/run/own",
	     true},
	    {"-qmp|chardev:q|-chardev|socket,id=q,path=/run/q", "/run/q", false},
	};
	char words[512];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct process p;

		(void)snprintf(words, sizeof words, "qemu-system-x86_64|%s", table[i].words);
		p = only(words);
		assert_string_equal(p.monitor, table[i].monitor);
		assert_int_equal(p.held, table[i].held);
	}
}

static void
tells_what_is_not_made_again(void **state)
{
	static const struct {
		const char *words, *told; /* in order, with blanks between */
	} table[] = {
	    {"-name|web01|-cpu|EPYC,+aes", ""},
	    {"-smbios|type=1,serial=X|-smbios|type=3", "SMBIOS "},
	    {"--numa|node,nodeid=0|-m|1G", "NUMA nodes "},
	    {"-cpu|host,hv-relaxed=on|-global|a.b=c", "Hyper-V features properties of devices "},
	    {"-fw_cfg|name=opt/x,string=y|-acpitable|file=/a|-option-rom|/b",
	     "firmware settings ACPI tables option ROMs "},
	    {"-smbios", ""},
	};
	char words[512], told[512];
	struct commandline *c;
	struct definition *def;
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof table / sizeof table[0]; i++) {
		(void)snprintf(words, sizeof words, "qemu-system-x86_64|%s", table[i].words);
		make("77", words, "unconfined");
		c = commandline_read(tmpdir_path(top, "77"));
		def = definition_new();
		assert_non_null(c);
		assert_non_null(def);
		commandline_left_out(c, def);
		told[0] = '\0';
		for (k = 0; k < def->nleft_out; k++) {
			(void)strncat(told, def->left_out[k].what, sizeof told / 2);
			(void)strcat(told, " ");
		}
		assert_string_equal(told, table[i].told);
		lc_free(def);
		commandline_free(c);
		dir_remove(tmpdir_path(top, "77"));
	}
	make("77", "qemu-nbd|-smbios|type=1", "unconfined");
	assert_null(commandline_read(tmpdir_path(top, "77")));
	assert_null(commandline_read(tmpdir_path(top, "78")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(tells_qemus_from_others, setup, teardown),
	    cmocka_unit_test_setup_teardown(reads_names, setup, teardown),
	    cmocka_unit_test_setup_teardown(finds_monitors, setup, teardown),
	    cmocka_unit_test_setup_teardown(tells_what_is_not_made_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

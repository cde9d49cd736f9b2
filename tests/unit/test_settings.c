/*
 * settings: every key is read, every complaint has file and line, and conf/locum.conf lists
 * exactly what is known.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

#include "agent/hypervisor/settings.h"
#include "store/base/config.h"
#include "store/base/files.h"

static int
parse(const char *text, struct settings *s, struct lc_err *e)
{
	struct config *c = NULL;
	int rc = config_parse("/x/locum.conf", text, strlen(text), &c, e);

	if (rc == 0)
		rc = settings_from(c, s, e);
	else
		*s = (struct settings){0};
	config_free(c);
	return rc;
}

static void
assert_ok(const char *text, struct settings *s)
{
	struct lc_err e = LC_ERR_INIT;

	if (parse(text, s, &e) != 0)
		fail_msg("%s", e.msg);
}

static void
assert_complaint(const char *text, const char *part)
{
	struct lc_err e = LC_ERR_INIT;
	struct settings s;

	assert_int_equal(parse(text, &s, &e), LC_EINVAL);
	if (strstr(e.msg, part) == NULL)
		fail_msg("expected '%s' in '%s'", part, e.msg);
	settings_done(&s);
}

static void
test_defaults(void **state)
{
	struct settings s;
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_int_equal(settings_from(NULL, &s, &e), 0);
	assert_null(s.store);
	assert_string_equal(s.key_dir, "/etc/locum/keys");
	assert_string_equal(s.run_dir, "/run/locum");
	assert_string_equal(s.qemu, "qemu-system-x86_64");
	assert_string_equal(s.accel, "kvm:tcg");
	assert_int_equal(s.jobs, 2);
	assert_int_equal(s.level, 2);
	assert_int_equal(s.cache, 64 << 20);
	assert_int_equal(s.similar_max, 32 << 20);
	assert_int_equal(s.connect_timeout_ms, 5000);
	assert_int_equal(s.command_timeout_ms, 10000);
	assert_int_equal(s.copy_timeout_ms, 5000);
	assert_int_equal(s.freeze_timeout_ms, 10000);
	assert_int_equal(s.rpo_ms, 60000);
	assert_string_equal(s.replica_dir, "/var/lib/locum/replica");
	assert_string_equal(s.listen, "*:7227");
	assert_null(s.metrics);
	assert_null(s.alert);
	assert_null(s.libvirt);
	assert_non_null(s.plugin);
	assert_int_equal(settings_need_store(&s, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, "LOCUM_STORE"));
	settings_done(&s);
}

static void
test_host_keys(void **state)
{
	struct settings s;

	(void)state;
	assert_ok(
	    "[locum]\nstore = /s\nscratch_max = 20 GiB\nworkers=3\nlevel = -5\ncache = 1 GiB\n"
	    "copy_timeout = 2500ms\nplugin = /p.so\nrpo = 5s\nlisten = [::1]:7300\n"
	    "replica_dir = /srv/r\nbandwidth = 400 Mbit/s\nmetrics = 127.0.0.1:9633\nalert = "
	    "/usr/local/bin/page\nlibvirt = qemu+unix:///system?socket=/run/l\n",
	    &s);
	assert_string_equal(s.store, "/s");
	assert_string_equal(s.key_dir, "/x/keys");
	assert_int_equal(s.scratch_max, UINT64_C(20) << 30);
	assert_int_equal(s.workers, 3);
	assert_int_equal(s.level, -5);
	assert_int_equal(s.cache, 1 << 30);
	assert_int_equal(s.copy_timeout_ms, 2500);
	assert_string_equal(s.plugin, "/p.so");
	assert_int_equal(s.rpo_ms, 5000);
	assert_int_equal(s.bandwidth, 50000000);
	assert_string_equal(s.listen, "[::1]:7300");
	assert_string_equal(s.replica_dir, "/srv/r");
	assert_string_equal(s.metrics, "127.0.0.1:9633");
	assert_string_equal(s.alert, "/usr/local/bin/page");
	assert_string_equal(s.libvirt, "qemu+unix:///system?socket=/run/l");
	settings_done(&s);
}

/* What may change while all goes on, and what may not. */
static void
test_same(void **state)
{
	static const char *const texts[] = {
	    "[locum]\nstore = /s\nbandwidth = 1 MiB/s\n[vm a]\nqmp = /a\nexclude = vdb\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\n",
	    "[locum]\nstore = /s\nrun_as = root\n[vm a]\nqmp = /a\nexclude = vdb\n",
	    "[locum]\nstore = /s\njobs = 3\n[vm a]\nqmp = /a\nexclude = vdb\n",
	    "[locum]\n[vm a]\nqmp = /a\nexclude = vdb\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /b\nexclude = vdb\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdc\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\nrpo = 5s\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\ncpus = 2\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\nfreeze = auto\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\nguest_agent = /g\n",
	    "[locum]\nstore = /s\nfreeze_timeout = 1s\n[vm a]\nqmp = /a\nexclude = vdb\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\nsnapshot = backup\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\npush_full = yes\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\nprotect = no\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\n[vm b]\nqmp = /b\n",
	    "[locum]\nstore = /s\n[vm a]\nqmp = /a\nexclude = vdb\ndomain = a\n",
	    "[locum]\nstore = /s\nlibvirt = qemu:///system\n[vm a]\nqmp = /a\nexclude = vdb\n",
	};
	struct settings a, b;
	size_t i;

	(void)state;
	assert_ok(texts[0], &a);
	for (i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		assert_ok(texts[i], &b);
		if (settings_same(&a, &b) != (i < 2))
			fail_msg("%zu: %s", i, texts[i]);
		settings_done(&b);
	}
	settings_done(&a);
}

static void
test_vm_keys(void **state)
{
	const struct settings_vm *vm;
	const struct def_disk *disk;
	struct settings s;

	(void)state;
	assert_ok(
	    "[vm a]\nqmp = /run/a.qmp\ndomain = Web 01\nrpo = 15m\nexclude = vdb\nexclude = vdc\n"
	    "snapshot = backup\npush_full = yes\nprotect = no\n"
	    "[vm web01]\nmachine = pc\ncpus = 2\ncpu_features = +aes\ntopology = 1:1:2\nmemory = 1 "
	    "GiB\nkernel = "
	    "/k/vmlinux\n"
	    "initrd = /k/initrd\nappend = console=ttyS0 quiet\n"
	    "disk = vda qcow2 \"/images/web 01.qcow2\" serial=abc boot=1\n"
	    "disk = vdb raw /images/b.raw bus=scsi block=4096\n"
	    "nic = net0 user model=e1000 mac=52:54:00:12:34:56\n",
	    &s);
	assert_int_equal(s.nvms, 2);
	vm = settings_vm(&s, "a");
	assert_non_null(vm);
	assert_string_equal(vm->qmp, "/run/a.qmp");
	assert_string_equal(vm->domain, "Web 01");
	assert_int_equal(vm->nexcludes, 2);
	assert_string_equal(vm->excludes[1], "vdc");
	assert_true(vm->by_job);
	assert_true(vm->push_full);
	assert_true(vm->left_alone);
	assert_true(vm->rpo_set);
	assert_int_equal(vm->rpo_ms, 900000);
	assert_null(vm->def);
	vm = settings_vm(&s, "web01");
	assert_non_null(vm);
	assert_non_null(vm->def);
	assert_string_equal(vm->def->machine, "pc");
	assert_int_equal(vm->def->cpus, 2);
	assert_string_equal(vm->def->cpu_features, "+aes");
	assert_string_equal(vm->def->topology, "1:1:2");
	assert_int_equal(vm->def->memory, 1 << 30);
	assert_string_equal(vm->def->append, "console=ttyS0 quiet");
	assert_int_equal(vm->def->ndisks, 4);
	disk = definition_disk(vm->def, "vda");
	assert_non_null(disk);
	assert_string_equal(disk->path, "/images/web 01.qcow2");
	assert_string_equal(disk->format, "qcow2");
	assert_string_equal(disk->serial, "abc");
	assert_int_equal(disk->boot, 1);
	disk = definition_disk(vm->def, "vdb");
	assert_non_null(disk);
	assert_int_equal(disk->bus, DEF_BUS_SCSI);
	assert_int_equal(disk->block, 4096);
	disk = definition_disk(vm->def, "kernel");
	assert_non_null(disk);
	assert_int_equal(disk->role, HV_ROLE_KERNEL);
	assert_int_equal(vm->def->nnics, 1);
	assert_string_equal(vm->def->nics[0].model, "e1000");
	assert_null(settings_vm(&s, "web02"));
	settings_done(&s);
}

static void
test_freeze(void **state)
{
	struct settings s;

	(void)state;
	assert_ok("[locum]\nfreeze_timeout = 3s\n[vm a]\nqmp = /a\nguest_agent = /a.qga\n"
	          "[vm b]\nqmp = /b\n[vm c]\nfreeze = require\n"
	          "[vm d]\nguest_agent = /d\nfreeze = never\n",
	          &s);
	assert_int_equal(s.freeze_timeout_ms, 3000);
	assert_string_equal(settings_vm(&s, "a")->guest_agent, "/a.qga");
	assert_int_equal(settings_freeze(settings_vm(&s, "a")), HV_FREEZE_AUTO);
	assert_int_equal(settings_freeze(settings_vm(&s, "b")), HV_FREEZE_NEVER);
	assert_int_equal(settings_freeze(settings_vm(&s, "c")), HV_FREEZE_REQUIRE);
	assert_int_equal(settings_freeze(settings_vm(&s, "d")), HV_FREEZE_NEVER);
	assert_int_equal(settings_freeze(NULL), HV_FREEZE_NEVER);
	settings_done(&s);
	assert_complaint("[vm a]\nguest_agent = a.qga\n",
	                 ":2: guest_agent: 'a.qga' is not an absolute path");
	assert_complaint("[vm a]\nfreeze = yes\n",
	                 ":2: freeze: 'yes' is none of auto, never, require");
	assert_complaint("[locum]\nfreeze_timeout = 2m\n",
	                 ":2: freeze_timeout: must be 100 to 60000 ms");
}

static void
test_complaints(void **state)
{
	(void)state;
	assert_complaint("[locum]\nstoer = /s\n",
	                 "/x/locum.conf:2: unknown key in [locum] 'stoer'; "
	                 "did you mean 'store'?");
	assert_complaint("[locum]\n\nworkers = many\n",
	                 "/x/locum.conf:3: workers: 'many' is no number");
	assert_complaint("[locum]\nworkers = 65\n", ":2: workers: must be 0 to 64");
	assert_complaint("[locum]\nstore = s\n", ":2: store: 's' is not an absolute path");
	assert_complaint("[locum]\nstore = /s\nstore = /t\n",
	                 ":3: store is set twice (first in line 2)");
	assert_complaint("[locum]\ncache = 1\n", ":2: cache: must be 1");
	assert_complaint("[locum]\nlevel = 20\n", ":2: level:");
	assert_complaint("[locum]\nconnect_timeout = soon\n", ":2: connect_timeout: 'soon'");
	assert_complaint("[locum]\nqemu = -daemonize\n", ":2: qemu:");
	assert_complaint("[locum]\naccel = kvm,foo\n", ":2: accel:");
	assert_complaint("[locum]\nrun_as = a b\n", ":2: run_as:");
	assert_complaint("[locun]\n", ":1: unknown section 'locun'; did you mean 'locum'?");
	assert_complaint("[locum x]\n", ":1: [locum] takes no name");
	assert_complaint("store = /s\n", ":1: 'store' belongs into a section");
	assert_complaint("[vm]\nqmp = /q\n", ":2: [vm ]: a VM's name");
	assert_complaint("[vm a/b]\nqmp = /q\n", ":2: [vm a/b]: a VM's name");
	assert_complaint("[vm a@b]\n", ":1: [vm a@b]: a VM's name");
	assert_complaint("[vm a]\nqpm = /q\n",
	                 ":2: unknown key in [vm] 'qpm'; did you mean 'qmp'?");
	assert_complaint("[vm a]\nqmp = /q\n[vm b]\n[vm a]\nqmp = /r\n",
	                 ":5: qmp is set twice (first in line 2)");
	assert_complaint("[vm a]\ndisk = vda raw\n", ":2: disk: expected NAME FORMAT PATH");
	assert_complaint("[vm a]\ndisk = vda raw \"/a b\n", ":2: disk: expected");
	assert_complaint("[vm a]\ndisk = vda raw rel\n",
	                 ":2: disk vda: 'rel' is not an absolute path");
	assert_complaint("[vm a]\ndisk = vda raw /x noise\n",
	                 ":2: disk vda: 'noise' is not key=value");
	assert_complaint("[vm a]\ndisk = vda raw /x colour=red\n", ":2: ");
	assert_complaint("[vm a]\ndisk = vda floppy /x\n", ":2: ");
	assert_complaint("[vm a]\nmemory = lots\n", ":2: ");
	assert_complaint("[vm a]\nmachine = pc,accel=evil\n", ":2: ");
	assert_complaint("[vm a]\nnic = net0 user mac=zz\n", ":2: ");
	assert_complaint("[vm a]\nnic = net0\n", ":2: nic: expected NAME NETWORK");
	assert_complaint("[vm a]\nkernel = vmlinux\n",
	                 ":2: kernel: 'vmlinux' is not an absolute path");
	assert_complaint("[vm a]\nexclude =\n", ":2: exclude: name a disk");
	assert_complaint("[vm a]\nsnapshot = push\n",
	                 ":2: snapshot: 'push' is neither auto nor backup");
	assert_complaint("[vm a]\nprotect = never\n", ":2: protect: 'never' is neither yes nor no");
	assert_complaint("[vm a]\npush_full = 1\n", ":2: push_full: '1' is neither no nor yes");
}

/* Each allocation fails once: no crash, LC_ENOMEM, and no leak (ASan looks). */
static void
test_no_memory(void **state)
{
	static const char text[] = "[locum]\nstore = /s\n[vm a]\nqmp = /q\nexclude = b\n"
				   "[vm b]\ndisk = vda raw /x\n";
	struct config *c = NULL;
	struct settings s;
	long n;
	int rc = -1;

	(void)state;
	assert_int_equal(config_parse("x", text, strlen(text), &c, NULL), 0);
	for (n = 0; rc != 0 && n < 1000; n++) {
		struct lc_err e = LC_ERR_INIT;

		lc_alloc_fail_after(n);
		rc = settings_from(c, &s, &e);
		lc_alloc_fail_after(-1);
		if (rc != 0)
			assert_int_equal(e.code, LC_ENOMEM);
		settings_done(&s);
	}
	assert_int_equal(rc, 0);
	assert_true(n > 10);
	config_free(c);
}

/* ---- conf/locum.conf against the tables ---- */

static void
check_section(char *text, const char *section, unsigned *seen_total)
{
	const struct settings_key *keys;
	bool seen[64] = {false}, inside = false;
	char *line, *save = NULL;
	size_t i, n;

	keys = settings_keys(section, &n);
	assert_in_range(n, 1, 64);
	for (line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
		char *eq, *key, *value;

		key = line[0] == '#' ? line + 1 : line;
		if (key[0] == '[') {
			size_t len = strlen(section);

			inside = strncmp(key + 1, section, len) == 0 &&
			         (key[len + 1] == ']' || key[len + 1] == ' ');
			continue;
		}
		/* "#key = value" is a key, "# text" is text. */
		if (!inside || line[0] != '#' || key[0] == ' ' || key[0] == '\0')
			continue;
		eq = strchr(key, '=');
		if (eq == NULL)
			fail_msg("no '=' in: %s", line);
		value = eq + 1;
		while (*value == ' ')
			value++;
		while (eq > key && eq[-1] == ' ')
			eq--;
		*eq = '\0';
		for (i = 0; i < n && strcmp(keys[i].name, key) != 0; i++)
			;
		if (i == n)
			fail_msg("conf/locum.conf has the unknown key '%s'", key);
		if (seen[i])
			fail_msg("conf/locum.conf has '%s' twice", key);
		seen[i] = true;
		(*seen_total)++;
		if (strcmp(keys[i].fallback, value) != 0)
			fail_msg("conf/locum.conf: default of '%s' is '%s', not '%s'", key,
			         keys[i].fallback, value);
	}
	for (i = 0; i < n; i++) {
		if (!seen[i])
			fail_msg("conf/locum.conf lacks the key '%s' of [%s]", keys[i].name,
			         section);
	}
}

/* The first one that there is; who is not root has no choice. */
static void
test_run_as(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct settings s;
	char *user = NULL;

	(void)state;
	assert_ok("[locum]\nrun_as = no-such-user:root:nobody\n", &s);
	assert_int_equal(settings_run_as(&s, &user, &e), 0);
	if (geteuid() == 0)
		assert_string_equal(user, "root");
	else
		assert_null(user);
	lc_free(user);
	settings_done(&s);
	assert_ok("[locum]\nrun_as = no-such-user\n", &s);
	assert_int_equal(settings_run_as(&s, &user, &e), geteuid() == 0 ? LC_ENOENT : 0);
	assert_null(user);
	settings_done(&s);
}

static void
test_conf_lists_every_key(void **state)
{
	static const char *const sections[] = {"locum", "vm"};
	unsigned total = 0;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct lc_buf text = {0};

		assert_int_equal(
		    file_read_all(LOCUM_SOURCE_DIR "/conf/locum.conf", 1 << 20, &text, NULL), 0);
		assert_int_equal(lc_buf_append(&text, "", 1), 0);
		check_section((char *)text.p, sections[i], &total);
		lc_buf_free(&text);
	}
	assert_int_equal(total, 52);
}

static void
test_conf_is_valid(void **state)
{
	struct config *c = NULL;
	struct settings s;
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_int_equal(config_load(LOCUM_SOURCE_DIR "/conf/locum.conf", &c, &e), 0);
	assert_int_equal(settings_from(c, &s, &e), 0);
	assert_int_equal(s.nvms, 0);
	settings_done(&s);
	config_free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_host_keys),
	    cmocka_unit_test(test_same),
	    cmocka_unit_test(test_vm_keys),
	    cmocka_unit_test(test_freeze),
	    cmocka_unit_test(test_complaints),
	    cmocka_unit_test(test_no_memory),
	    cmocka_unit_test(test_run_as),
	    cmocka_unit_test(test_conf_lists_every_key),
	    cmocka_unit_test(test_conf_is_valid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

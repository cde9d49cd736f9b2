#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/definition.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"

static const char full[] = "[machine]\n"
			   "type = pc-q35-7.2\n"
			   "cpu = EPYC-v3\n"
			   "cpu_features = +aes,-sse4.2,+pcid\n"
			   "cpus = 2\n"
			   "topology = 1:2:1\n"
			   "memory = 256 MiB\n"
			   "uuid = 6a1f0000-0000-4000-8000-00000000abcd\n"
			   "clock = localtime\n"
			   "firmware = /usr/share/OVMF/OVMF_CODE.fd\n"
			   "append = console=ttyS0 root=LABEL=x,y quiet\n"
			   "[disk vda]\n"
			   "role = disk\n"
			   "bus = virtio\n"
			   "format = qcow2\n"
			   "path = /images/web 01, old \xc3\xa4.qcow2\n"
			   "size = 1073741824\n"
			   "serial = abc-1\n"
			   "address = 00:03.0\n"
			   "boot = 1\n"
			   "block = 4096\n"
			   "[disk kernel]\n"
			   "role = kernel\n"
			   "bus = virtio\n"
			   "format = raw\n"
			   "path = /boot/vmlinuz\n"
			   "[nic net0]\n"
			   "model = e1000\n"
			   "mac = 52:54:00:12:34:56\n"
			   "network = bridge:br0\n"
			   "address = 00:02.0\n"
			   "[left-out usb 0 (hub)]\n"
			   "why = not reproduced\n";

static struct definition *
decode(const char *text)
{
	struct lc_err e = LC_ERR_INIT;
	struct definition *d;

	if (definition_decode("d.ini", text, strlen(text), &d, &e) != 0)
		fail_msg("%s", e.msg);
	return d;
}

/* Set one field of one section; the code. */
static int
set(const char *section, const char *name, const char *key, const char *value)
{
	struct definition *d = definition_new(), *before = definition_new();
	int rc = definition_set(d, section, name, key, value, NULL);

	if (rc != 0) /* refused: nothing happened */
		assert_memory_equal(d, before, sizeof *d);
	lc_free(d);
	lc_free(before);
	return rc;
}

static void
refuse(const char *section, const char *name, const char *key, const char *value)
{
	if (set(section, name, key, value) != LC_EINVAL)
		fail_msg("[%s %s] %s = %s was taken", section, name, key, value);
}

static void
take(const char *section, const char *name, const char *key, const char *value)
{
	struct definition *d = definition_new(), *again = NULL;
	struct lc_buf out = {0};
	struct lc_err e = LC_ERR_INIT;

	if (definition_set(d, section, name, key, value, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(definition_encode(d, &out, NULL), 0);
	assert_int_equal(definition_decode("d", (const char *)out.p, out.n, &again, NULL), 0);
	assert_memory_equal(d, again, sizeof *d);
	lc_buf_free(&out);
	lc_free(d);
	lc_free(again);
}

static void
test_encode_of_decode_is_the_text(void **state)
{
	struct definition *d = decode(full);
	struct lc_buf out = {0};

	(void)state;
	assert_string_equal(d->machine, "pc-q35-7.2");
	assert_int_equal(d->memory, 256 << 20);
	assert_int_equal(d->ndisks, 2);
	assert_int_equal(d->disks[0].size, 1 << 30);
	assert_int_equal(d->disks[1].role, HV_ROLE_KERNEL);
	assert_string_equal(d->nics[0].network, "bridge:br0");
	assert_string_equal(d->left_out[0].what, "usb 0 (hub)");
	assert_ptr_equal(definition_disk(d, "kernel"), &d->disks[1]);
	assert_ptr_equal(definition_role(d, HV_ROLE_KERNEL), &d->disks[1]);
	assert_null(definition_disk(d, "vdb"));
	assert_null(definition_role(d, HV_ROLE_INITRD));
	assert_int_equal(definition_encode(d, &out, NULL), 0);
	assert_int_equal(out.n, sizeof full - 1);
	assert_memory_equal(out.p, full, out.n);
	assert_int_equal(definition_check(d, NULL), 0);
	lc_buf_free(&out);
	lc_free(d);
}

static void
test_defaults(void **state)
{
	struct definition *d = decode("[disk vda]\n[nic n]\n"), *empty = definition_new();

	(void)state;
	assert_string_equal(d->machine, "q35");
	assert_string_equal(d->cpu, "max");
	assert_int_equal(d->cpus, 1);
	assert_int_equal(d->memory, 512 << 20);
	assert_string_equal(d->clock, "utc");
	assert_string_equal(d->disks[0].format, "raw");
	assert_string_equal(d->nics[0].model, "virtio");
	assert_string_equal(d->nics[0].network, "none");
	assert_int_equal(definition_check(d, NULL), 0);
	assert_int_equal(definition_check(empty, NULL), LC_EINVAL);
	lc_free(d);
	lc_free(empty);
}

static void
test_lower_case(void **state)
{
	struct definition *d = decode("[machine]\nuuid = 6A1F0000-0000-4000-8000-00000000ABCD\n"
	                              "[nic n]\nmac = 52:54:00:AA:BB:CC\naddress = 0A:1F.7\n");

	(void)state;
	assert_string_equal(d->uuid, "6a1f0000-0000-4000-8000-00000000abcd");
	assert_string_equal(d->nics[0].mac, "52:54:00:aa:bb:cc");
	assert_string_equal(d->nics[0].address, "0a:1f.7");
	lc_free(d);
}

static void
test_hostile_values(void **state)
{
	static const char *const nowhere[] = {
	    /* an option, a further property, a program, an end of the argument */
	    "-daemonize",
	    "q35,accel=tcg",
	    "a,b",
	    "a=b",
	    "a b",
	    "a\nb",
	    "a\tb",
	    "../x",
	    "a;b",
	    "a|b",
	    "$(x)",
	    "`x`",
	    "a'b",
	    "a\"b",
	    "{}",
	    "a/b",
	    "\xc3\xa4",
	    "a\x7f",
	    /* what QEMU's names of images can do */
	    "exec:cat /etc/shadow",
	    "json:{\"driver\":\"file\"}",
	    "nbd:unix:/x",
	    "file:/etc/shadow",
	    "fd:3/x",
	    "fat:rw:/etc",
	    "ssh://h/p",
	    "%2fetc",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
		refuse("machine", "", "type", nowhere[i]);
		refuse("machine", "", "cpu", nowhere[i]);
		refuse("machine", "", "cpus", nowhere[i]);
		if (i > 0) /* the name of a feature, behind whose '-' it is never written */
			refuse("machine", "", "cpu_features", nowhere[i]);
		refuse("machine", "", "topology", nowhere[i]);
		refuse("machine", "", "memory", nowhere[i]);
		refuse("machine", "", "uuid", nowhere[i]);
		refuse("machine", "", "clock", nowhere[i]);
		refuse("machine", "", "firmware", nowhere[i]);
		refuse("disk", nowhere[i], "boot", "1");
		refuse("disk", "a", "role", nowhere[i]);
		refuse("disk", "a", "bus", nowhere[i]);
		refuse("disk", "a", "format", nowhere[i]);
		refuse("disk", "a", "path", nowhere[i]);
		refuse("disk", "a", "size", nowhere[i]);
		refuse("disk", "a", "serial", nowhere[i]);
		refuse("disk", "a", "address", nowhere[i]);
		refuse("disk", "a", "boot", nowhere[i]);
		refuse("disk", "a", "block", nowhere[i]);
		refuse("disk", "a", "content", nowhere[i]);
		refuse("nic", nowhere[i], "model", "virtio");
		refuse("nic", "a", "model", nowhere[i]);
		refuse("nic", "a", "mac", nowhere[i]);
		refuse("nic", "a", "network", nowhere[i]);
		refuse("nic", "a", "address", nowhere[i]);
	}
	refuse("left-out", "a]b", "why", "x");
	refuse("left-out", " a", "why", "x");
	refuse("left-out", "a ", "why", "x");
	refuse("left-out", "", "why", "x");
	refuse("disk", "", "boot", "1");
	refuse("disk", "-a", "boot", "1");
	refuse("disk", ".", "boot", "1");
	refuse("machine", "x", "cpus", "1");
	refuse("machine", "", "cpus", "0");
	refuse("machine", "", "cpus", "1025");
	refuse("machine", "", "cpus", "4294967297");
	refuse("machine", "", "cpu_features", "aes");
	refuse("machine", "", "cpu_features", "+aes,");
	refuse("machine", "", "cpu_features", "+aes,,+pcid");
	refuse("machine", "", "cpu_features", "+aes=off");
	refuse("machine", "", "cpu_features", "+aes +pcid");
	refuse("machine", "", "cpu_features", "+-aes");
	refuse("machine", "", "cpu_features", "+");
	refuse("machine", "", "topology", "2:2");
	refuse("machine", "", "topology", "2:0:1");
	refuse("machine", "", "topology", "2:2:1,x");
	refuse("machine", "", "topology", "1025:1:1");
	refuse("machine", "", "topology", "+1:1:1");
	refuse("machine", "", "memory", "0");
	refuse("machine", "", "memory", "1 MiB 1");
	refuse("machine", "", "memory", "1048577");
	refuse("machine", "", "memory", "17 TiB");
	refuse("machine", "", "type", "");
	refuse("machine", "", "append", "two\nlines");
	refuse("machine", "", "append", "looks like # a comment");
	refuse("machine", "", "append", "overlong \xc0\xaf");
	refuse("machine", "", "append", "surrogate \xed\xa0\x80");
	refuse("machine", "", "append", "cut \xe2\x82");
	refuse("disk", "a", "path", "relative");
	refuse("disk", "a", "path", "/end ");
	refuse("disk", "a", "boot", "256");
	refuse("disk", "a", "block", "256");
	refuse("disk", "a", "block", "1000");
	refuse("disk", "a", "block", "65536");
	refuse("disk", "a", "size", "9223372036854775808");
	refuse("disk", "a", "address", "00:20.0");
	refuse("disk", "a", "address", "00:03.8");
	refuse("disk", "a", "address", "3.0");
	refuse("nic", "a", "mac", "01:00:5e:00:00:01"); /* multicast */
	refuse("nic", "a", "mac", "52:54:00:12:34:5");
	refuse("nic", "a", "network", "bridge:");
	refuse("nic", "a", "network", "bridge:sixteen-letters-");
	refuse("nic", "a", "network", "tap:x");
	refuse("options", "", "x", "y");
}

static void
test_limits_are_inclusive(void **state)
{
	char text[4096];

	(void)state;
	memset(text, 'a', sizeof text);
	text[0] = '/';
	text[512] = '\0';
	refuse("disk", "a", "path", text);
	text[511] = '\0';
	take("disk", "a", "path", text);
	text[0] = 'x';
	text[63] = '\0';
	take("disk", text, "boot", "255");
	take("disk", "a", "serial", text);
	text[63] = 'a';
	text[64] = '\0';
	refuse("disk", text, "boot", "255");
	take("machine", "", "cpus", "1024");
	take("machine", "", "topology", "1024:1024:1024");
	take("machine", "", "memory", "16 TiB");
	take("machine", "", "memory", "1 MiB");
	take("machine", "", "append", "a,b=c \"d\" 'e' $f");
	take("machine", "", "append", "a #b");
	take("disk", "a", "block", "512");
	take("disk", "a", "block", "32768");
	take("disk", "a", "size", "9223372036854775807");
	take("disk", "vd_a.1-x", "path", "/a, b;c\"'$`\\");
	take("nic", "n", "network", "bridge:fifteen-letters");
	take("nic", "n", "mac", "");
	take("disk", "a", "role", "initrd");
	take("disk", "a", "bus", "ide");
	take("disk", "a", "content", "empty");
	take("disk", "a", "content", "stored");
}

static void
test_complaints_name_the_place(void **state)
{
	static const char text[] = "[machine]\ncpus = 1\n[disk vda]\nfornat = raw\n";
	struct lc_err e = LC_ERR_INIT;
	struct definition *d;

	(void)state;
	assert_int_equal(definition_decode("web01.ini", text, sizeof text - 1, &d, &e), LC_EINVAL);
	assert_null(d);
	assert_string_equal(e.msg, "web01.ini:4: disk: no key 'fornat', did you mean 'format'?");
	lc_err_clear(&e);
	d = definition_new();
	assert_int_equal(definition_set(d, "disk", "vda", "format", "vdi", &e), LC_EINVAL);
	assert_string_equal(e.msg,
	                    "disk vda: format: 'vdi' is not raw or qcow2, vhdx, vmdk or vpc");
	lc_free(d);
}

static void
test_too_much(void **state)
{
	struct definition *d = definition_new();
	char name[32];
	unsigned i;
	char *big = lc_alloc(DEF_TEXT_MAX + 1);

	(void)state;
	for (i = 0; i < HV_DISKS_MAX; i++) {
		(void)snprintf(name, sizeof name, "d%u", i);
		assert_int_equal(definition_set(d, "disk", name, "", "", NULL), 0);
	}
	assert_int_equal(definition_set(d, "disk", "one-more", "", "", NULL), LC_EINVAL);
	assert_int_equal(definition_set(d, "disk", "d63", "boot", "3", NULL), 0);
	for (i = 0; i < 2 * DEF_LEFT_OUT_MAX; i++) {
		(void)snprintf(name, sizeof name, "part %u", i);
		definition_leave_out(d, name, "why");
	}
	assert_int_equal(d->nleft_out, DEF_LEFT_OUT_MAX);
	assert_string_equal(d->left_out[DEF_LEFT_OUT_MAX - 1].what, "others");
	lc_free(d);
	memset(big, '\n', DEF_TEXT_MAX + 1);
	assert_int_equal(definition_decode("d", big, DEF_TEXT_MAX + 1, &d, NULL), LC_EINVAL);
	lc_free(big);
}

/* Everything as long as it can be still fits, with room to spare. */
static void
test_the_fullest(void **state)
{
	struct definition *d = definition_new(), *again;
	struct lc_buf out = {0};
	size_t i;

	(void)state;
	memset(d->append, 'a', sizeof d->append - 1);
	memset(d->firmware, '/', sizeof d->firmware - 1);
	for (i = 0; i < HV_DISKS_MAX; i++) {
		struct def_disk *k = &d->disks[i];

		(void)snprintf(k->name, sizeof k->name, "%063zu", i);
		memset(k->path, '/', sizeof k->path - 1);
		memset(k->serial, 's', sizeof k->serial - 1);
		memcpy(k->format, "qcow2", 6);
		memcpy(k->address, "00:00.0", 8);
		k->size = INT64_MAX;
		k->boot = 200;
		k->content = DEF_CONTENT_EMPTY;
	}
	d->ndisks = HV_DISKS_MAX;
	for (i = 0; i < DEF_LEFT_OUT_MAX; i++) {
		(void)snprintf(d->left_out[i].what, sizeof d->left_out[i].what, "%095zu", i);
		memset(d->left_out[i].why, 'w', sizeof d->left_out[i].why - 1);
	}
	d->nleft_out = DEF_LEFT_OUT_MAX;
	assert_int_equal(definition_encode(d, &out, NULL), 0);
	assert_true(out.n < DEF_TEXT_MAX);
	assert_int_equal(definition_decode("d", (const char *)out.p, out.n, &again, NULL), 0);
	assert_memory_equal(d, again, sizeof *d);
	lc_buf_free(&out);
	lc_free(d);
	lc_free(again);
}

static void
test_encode_refuses_what_decode_would(void **state)
{
	struct definition *d = decode(full);
	struct lc_buf out = {0};
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	memcpy(d->disks[0].serial, "a,b", 4);
	assert_int_equal(definition_encode(d, &out, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, "disk vda: serial"));
	assert_int_equal(out.n, 0);
	memcpy(d->disks[0].serial, "ab\0", 4);
	d->disks[0].bus = (enum def_bus)9;
	assert_int_equal(definition_encode(d, &out, NULL), LC_EINVAL);
	d->disks[0].bus = DEF_BUS_IDE;
	memset(d->cpu, 'x', sizeof d->cpu);
	assert_int_equal(definition_encode(d, &out, NULL), LC_EINVAL);
	lc_buf_free(&out);
	lc_free(d);
}

static void
test_leave_out_takes_any_text(void **state)
{
	struct definition *d = definition_new(), *again;
	struct lc_buf out = {0};

	(void)state;
	definition_leave_out(d, "\n]evil[\x01 # x", "because # of;\n\xff");
	definition_leave_out(d, "", "");
	definition_leave_out(d, "   ", " ");
	definition_leave_out(d, "-x", "a");
	definition_leave_out(d, "-x", "b"); /* once */
	assert_int_equal(d->nleft_out, 3);
	assert_string_equal(d->left_out[1].what, "something");
	assert_string_equal(d->left_out[2].why, "a");
	assert_int_equal(definition_encode(d, &out, NULL), 0);
	assert_int_equal(definition_decode("d", (const char *)out.p, out.n, &again, NULL), 0);
	assert_memory_equal(d, again, sizeof *d);
	lc_buf_free(&out);
	lc_free(d);
	lc_free(again);
}

static void
checks_as(const char *text, enum lc_code code, const char *what)
{
	struct definition *d = decode(text);
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(definition_check(d, &e), code);
	if (strstr(e.msg, what) == NULL)
		fail_msg("'%s' lacks '%s'", e.msg, what);
	lc_free(d);
}

static void
test_check(void **state)
{
	(void)state;
	checks_as("[machine]\ntype = virt\n[disk a]\n", LC_ENOTSUP, "'virt'");
	checks_as("[machine]\ntype = pc-i440fx-2.1\n[disk a]\n", LC_OK, "");
	checks_as("[disk a]\nrole = initrd\n", LC_EINVAL, "neither a disk nor a kernel");
	checks_as("[disk a]\n[disk b]\nrole = initrd\n", LC_EINVAL, "initrd without");
	checks_as("[disk a]\n[disk b]\nrole = nvram\n", LC_EINVAL, "without firmware");
	checks_as("[machine]\nappend = x\n[disk a]\n", LC_EINVAL, "append");
	checks_as("[disk a]\nrole=kernel\n[disk b]\nrole=kernel\n", LC_EINVAL, "second kernel");
	checks_as("[disk a]\nboot = 1\n[disk b]\nboot = 1\n", LC_EINVAL, "boot = 1 is taken");
	checks_as("[machine]\ncpus = 3\ntopology = 2:2:1\n[disk a]\n", LC_EINVAL,
	          "topology = 2:2:1 is of 4 CPUs, and there are 3");
	checks_as("[machine]\ncpus = 8\ntopology = 2:2:2\n[disk a]\n", LC_OK, "");
	checks_as("[disk a]\nbus = sata\nblock = 4096\n", LC_EINVAL, "blocks of 512 bytes only");
	checks_as("[disk a]\nbus = ide\nblock = 512\n", 0, "");
	checks_as("[disk a]\nbus = scsi\nblock = 4096\n", 0, "");
	checks_as("[disk a]\naddress=00:03.0\n[nic b]\naddress=00:03.0\n", LC_EINVAL, "00:03.0");
}

static void
test_out_of_memory(void **state)
{
	struct definition *d;
	struct lc_buf out = {0};
	long n;
	int rc = LC_ENOMEM;

	(void)state;
	for (n = 0; rc != 0 && n < 100; n++) {
		lc_alloc_fail_after(n);
		rc = definition_decode("d", full, sizeof full - 1, &d, NULL);
		if (rc != 0) {
			assert_int_equal(rc, LC_ENOMEM);
			assert_null(d);
		}
	}
	lc_alloc_fail_after(0);
	assert_int_equal(definition_encode(d, &out, NULL), LC_ENOMEM);
	lc_alloc_fail_after(-1);
	assert_int_equal(rc, 0);
	lc_free(d);
	lc_buf_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_encode_of_decode_is_the_text),
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_lower_case),
	    cmocka_unit_test(test_hostile_values),
	    cmocka_unit_test(test_limits_are_inclusive),
	    cmocka_unit_test(test_complaints_name_the_place),
	    cmocka_unit_test(test_too_much),
	    cmocka_unit_test(test_the_fullest),
	    cmocka_unit_test(test_encode_refuses_what_decode_would),
	    cmocka_unit_test(test_leave_out_takes_any_text),
	    cmocka_unit_test(test_check),
	    cmocka_unit_test(test_out_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

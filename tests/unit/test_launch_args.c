#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/launch_args.h"
#include "agent/hypervisor/qemutext.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"

static struct definition *
decode(const char *text)
{
	struct lc_err e = LC_ERR_INIT;
	struct definition *d;

	if (definition_decode("d", text, strlen(text), &d, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(definition_check(d, NULL), 0);
	return d;
}

static struct launch_fds
fds(void)
{
	struct launch_fds f;

	launch_fds_init(&f);
	f.qmp = 11;
	f.qmp2 = 12;
	f.qga = 13;
	f.serial = 14;
	return f;
}

static struct launch_args
make(const struct definition *d, const struct launch_opts *o, const struct launch_fds *f)
{
	struct launch_args a;
	struct lc_err e = LC_ERR_INIT;

	if (launch_args_make(d, o, "tcg", f, &a, &e) != 0)
		fail_msg("%s", e.msg);
	assert_null(a.argv[a.n]);
	return a;
}

/* Index of the argument after the k-th `option`; fails where there is none. */
static const char *
value(const struct launch_args *a, const char *option, unsigned k)
{
	size_t i;

	for (i = 0; i + 1 < a->n; i++) {
		if (strcmp(a->argv[i], option) == 0 && k-- == 0)
			return a->argv[i + 1];
	}
	fail_msg("no %s", option);
	return "";
}

static unsigned
count(const struct launch_args *a, const char *option)
{
	unsigned n = 0;
	size_t i;

	for (i = 0; i < a->n; i++)
		n += strcmp(a->argv[i], option) == 0;
	return n;
}

static const char *
holding(const struct launch_args *a, const char *text)
{
	size_t i;

	for (i = 0; i < a->n; i++) {
		if (strstr(a->argv[i], text) != NULL)
			return a->argv[i];
	}
	fail_msg("nothing holds %s", text);
	return "";
}

static void
test_the_board(void **state)
{
	struct definition *d = decode("[machine]\ntype=pc-q35-7.2\ncpu=EPYC-v3\ncpu_features=+aes,-"
	                              "sse4.2\ncpus=3\ntopology=1:3:1\nmemory=96 MiB\n"
	                              "uuid=6a1f0000-0000-4000-8000-00000000abcd\nclock=localtime\n"
	                              "[disk a]\npath=/i/a\n");
	struct launch_opts o = {.vm = "web,01", .own_paths = true, .paused = true};
	struct launch_fds f = fds();
	struct launch_args a = make(d, &o, &f);

	(void)state;
	assert_string_equal(a.argv[0], "qemu-system-x86_64");
	assert_string_equal(value(&a, "-name", 0), "guest=web,,01,debug-threads=on");
	assert_string_equal(value(&a, "-machine", 0), "pc-q35-7.2,accel=tcg");
	assert_string_equal(value(&a, "-cpu", 0), "EPYC-v3,aes=on,sse4.2=off");
	assert_string_equal(value(&a, "-smp", 0), "3,sockets=1,cores=3,threads=1");
	assert_string_equal(value(&a, "-m", 0), "96M");
	assert_string_equal(value(&a, "-uuid", 0), "6a1f0000-0000-4000-8000-00000000abcd");
	assert_string_equal(value(&a, "-rtc", 0), "base=localtime,clock=host");
	assert_string_equal(value(&a, "-display", 0), "none");
	assert_int_equal(count(&a, "-nodefaults"), 1);
	assert_int_equal(count(&a, "-no-user-config"), 1);
	assert_int_equal(count(&a, "-S"), 1);
	assert_int_equal(count(&a, "-sandbox"), 0);
	assert_string_equal(value(&a, "-chardev", 0),
	                    "socket,id=locum-qmp,fd=11,server=on,wait=off");
	launch_args_free(&a);
	lc_free(d);
}

static void
test_disks(void **state)
{
	struct definition *d = decode(
	    "[disk vda]\nformat=qcow2\npath=/i/a, \"b\\\nserial=s1\naddress=00:05.0\nboot=2\n"
	    "[disk 0abc]\npath=/i/c\nbus=scsi\n[disk sdb]\npath=/i/d\nbus=scsi\nblock=4096\n"
	    "[disk sata]\npath=/i/e\nbus=sata\n[disk ide]\npath=/i/f\nbus=ide\n"
	    "[disk a-name-that-is-much-longer-than-a-node-name-may-be]\npath=/i/g\n");
	struct launch_opts o = {.vm = "v", .own_paths = true};
	struct launch_fds f = fds();
	struct launch_args a = make(d, &o, &f);

	(void)state;
	assert_string_equal(
	    value(&a, "-blockdev", 0),
	    "{\"driver\":\"qcow2\",\"node-name\":\"locum-img-vda\",\"discard\":\"unmap\","
	    "\"file\":{\"driver\":\"file\",\"filename\":\"/i/a, \\u0022b\\u005c\","
	    "\"locking\":\"on\"}}");
	assert_string_equal(
	    value(&a, "-blockdev", 1),
	    "{\"driver\":\"raw\",\"node-name\":\"locum-top-vda\",\"discard\":\"unmap\","
	    "\"file\":\"locum-img-vda\"}");
	assert_string_equal(value(&a, "-device", 0),
	                    "{\"driver\":\"virtio-blk-pci\",\"bus\":\"pcie.0\",\"addr\":\"05.0\","
	                    "\"id\":\"vda\",\"drive\":\"locum-top-vda\",\"serial\":\"s1\","
	                    "\"bootindex\":1}");
	assert_non_null(strstr(holding(&a, "\"scsi-id\":0"), "\"id\":\"locum-disk-0abc\""));
	assert_non_null(strstr(holding(&a, "\"scsi-id\":1"), "\"id\":\"sdb\""));
	assert_non_null(strstr(holding(&a, "\"scsi-id\":1"),
	                       "\"logical_block_size\":4096,\"physical_block_size\":4096"));
	assert_null(strstr(holding(&a, "\"scsi-id\":0"), "block_size"));
	assert_non_null(strstr(holding(&a, "\"bus\":\"ide.0\""), "\"id\":\"sata\""));
	assert_non_null(strstr(holding(&a, "\"bus\":\"ide.1\""), "\"id\":\"ide\""));
	(void)holding(&a, "\"node-name\":\"locum-top-a-name-that-is-muc.05\"");
	(void)holding(&a, "\"id\":\"a-name-that-is-much-longer-than-a-node-name-may-be\"");
	launch_args_free(&a);
	lc_free(d);
}

static void
test_overlay_over_nbd(void **state)
{
	struct definition *d = decode("[disk vda]\nformat=raw\npath=/elsewhere\n");
	const struct launch_disk disks[] = {{.name = "vda",
	                                     .kind = LAUNCH_IMAGE_OVERLAY,
	                                     .overlay = "/r/ov",
	                                     .nbd_socket = "/r/nbd",
	                                     .nbd_export = "vda"}};
	struct launch_opts o = {.vm = "v", .disks = disks, .ndisks = 1};
	struct launch_fds f = fds();
	struct launch_args a;

	(void)state;
	f.image[0] = 21;
	f.image_ro[0] = 22;
	a = make(d, &o, &f);
	assert_string_equal(
	    value(&a, "-blockdev", 0),
	    "{\"driver\":\"raw\",\"node-name\":\"locum-nbd-vda\",\"read-only\":true,"
	    "\"file\":{\"driver\":\"nbd\",\"server\":{\"type\":\"unix\",\"path\":\"/r/nbd\"},"
	    "\"export\":\"vda\",\"reconnect-delay\":120}}");
	assert_string_equal(
	    value(&a, "-blockdev", 1),
	    "{\"driver\":\"qcow2\",\"node-name\":\"locum-img-vda\",\"discard\":\"unmap\","
	    "\"file\":{\"driver\":\"file\",\"filename\":\"/dev/fdset/1\",\"locking\":\"on\"},"
	    "\"backing\":\"locum-nbd-vda\"}");
	assert_string_equal(value(&a, "-add-fd", 0), "fd=21,set=1");
	assert_string_equal(value(&a, "-add-fd", 1), "fd=22,set=1");
	launch_args_free(&a);
	lc_free(d);
}

static void
test_networks(void **state)
{
	struct definition *d = decode(
	    "[disk vda]\npath=/a\n"
	    "[nic net0]\nnetwork=user\nmac=52:54:00:12:34:56\naddress=02:00.0\n"
	    "[nic vda]\nnetwork=bridge:br0\nmodel=e1000\n"
	    "[nic n2]\nnetwork=none\n");
	struct launch_opts o = {.vm = "v", .own_paths = true};
	struct launch_fds f = fds();
	struct launch_args a, b;
	const char *mac;

	(void)state;
	f.tap[1] = 33;
	a = make(d, &o, &f);
	assert_string_equal(value(&a, "-netdev", 0), "user,id=locum-net-0");
	assert_string_equal(value(&a, "-netdev", 1), "tap,id=locum-br-1-br0,fd=33");
	assert_int_equal(count(&a, "-netdev"), 2);
	assert_string_equal(
	    holding(&a, "virtio-net-pci\",\"id\":\"net0"),
	    "{\"driver\":\"virtio-net-pci\",\"id\":\"net0\",\"netdev\":\"locum-net-0\","
	    "\"mac\":\"52:54:00:12:34:56\",\"romfile\":\"\","
	    "\"bus\":\"locum-port-2\",\"addr\":\"00.0\"}");
	(void)holding(&a, "\"id\":\"locum-nic-1\""); /* vda is a disk's id */
	(void)holding(&a, "\"id\":\"locum-port-1\",\"bus\":\"pcie.0\",\"addr\":\"01.0\"");
	(void)holding(&a, "\"id\":\"locum-port-2\",\"bus\":\"pcie.0\",\"addr\":\"01.1\"");
	mac = strstr(holding(&a, "\"id\":\"n2\""), "52:54:00:");
	assert_non_null(mac); /* made from the names: the same next time */
	b = make(d, &o, &f);
	assert_non_null(strstr(holding(&b, "\"id\":\"n2\""), mac));
	launch_args_free(&b);
	o.isolated = true;
	b = make(d, &o, &f);
	assert_string_equal(value(&b, "-netdev", 0), "user,id=locum-net-0,restrict=on");
	assert_string_equal(value(&b, "-netdev", 1), "user,id=locum-net-1,restrict=on");
	launch_args_free(&b);
	launch_args_free(&a);
	lc_free(d);
}

static void
test_direct_boot_and_flash(void **state)
{
	struct definition *d = decode(
	    "[machine]\nfirmware=/usr/share/x/code.fd\nappend=-S a=b,c\n"
	    "[disk k]\nrole=kernel\npath=/k,1\n[disk i]\nrole=initrd\npath=/i\n"
	    "[disk nv]\nrole=nvram\npath=/nv\n");
	struct launch_opts o = {.vm = "v", .own_paths = true};
	struct launch_fds f = fds();
	struct launch_args a = make(d, &o, &f);

	(void)state;
	assert_string_equal(value(&a, "-kernel", 0), "/k,1");
	assert_string_equal(value(&a, "-initrd", 0), "/i");
	assert_string_equal(value(&a, "-append", 0), "-S a=b,c");
	assert_string_equal(value(&a, "-machine", 0),
	                    "q35,accel=tcg,pflash0=locum-firmware,pflash1=locum-top-nv");
	launch_args_free(&a);
	lc_free(d);
}

static void
refused(const char *text, const struct launch_opts *o, enum lc_code code)
{
	struct definition *d = decode(text);
	struct launch_fds f = fds();
	struct launch_args a;

	assert_int_equal(launch_args_make(d, o, "tcg", &f, &a, NULL), code);
	launch_args_free(&a);
	lc_free(d);
}

static void
test_refusals(void **state)
{
	const struct launch_opts own = {.vm = "v", .own_paths = true};
	const struct launch_opts foreign = {.vm = "v"},
				 bad_name = {.vm = "a\nb", .own_paths = true};
	char many[2000] = "";
	unsigned i;

	(void)state;
	refused("[disk a]\npath=/a\n", &foreign, LC_EINVAL);
	refused("[disk a]\nrole=kernel\npath=/a\n", &foreign, LC_EINVAL);
	refused("[disk a]\n", &own, LC_EINVAL);
	refused("[disk a]\npath=/a\n", &bad_name, LC_EINVAL);
	refused("[disk a]\npath=/a\n[nic n]\nnetwork=lan\n", &own, LC_EINVAL);
	refused("[machine]\nfirmware=/etc/passwd\n[disk a]\npath=/a\n", &foreign, LC_EACCES);
	refused("[machine]\nfirmware=/usr/share/../../etc/passwd\n[disk a]\npath=/a\n", &foreign,
	        LC_EACCES);
	refused("[machine]\nfirmware=/usr/shared/x\n[disk a]\npath=/a\n", &foreign, LC_EACCES);
	for (i = 0; i < 7; i++)
		(void)snprintf(many + strlen(many), sizeof many - strlen(many),
		               "[disk d%u]\npath=/a\nbus=sata\n", i);
	refused(many, &own, LC_ENOTSUP);
}

static void
test_out_of_memory(void **state)
{
	struct definition *d = decode("[disk a]\npath=/a\n[nic n]\nnetwork=user\n");
	struct launch_opts o = {.vm = "v", .own_paths = true};
	struct launch_fds f = fds();
	struct launch_args a;
	long n;
	int rc = LC_ENOMEM;

	(void)state;
	for (n = 0; rc != 0 && n < 2000; n++) {
		lc_alloc_fail_after(n);
		rc = launch_args_make(d, &o, "tcg", &f, &a, NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
		launch_args_free(&a);
	}
	assert_int_equal(rc, 0);
	lc_free(d);
}

static void
test_qemutext(void **state)
{
	struct qemutext j = {0}, in = {0};
	char *s;

	(void)state;
	qemutext_put(&in, "a\"", "b\\\n\x7f\xc3\xa4");
	qemutext_put_number(&j, "n", UINT64_MAX);
	qemutext_put_object(&j, "o", &in);
	qemutext_put_bool(&j, "t", true);
	s = qemutext_end(&j);
	assert_string_equal(s, "{\"n\":18446744073709551615,\"o\":{\"a\\u0022\":"
	                       "\"b\\u005c\\u000a\\u007f\xc3\xa4\"},\"t\":true}");
	lc_free(s);
	s = qemutext_end(&j);
	assert_string_equal(s, "{}");
	lc_free(s);
	s = qemutext_commas(",a,,b");
	assert_string_equal(s, ",,a,,,,b");
	lc_free(s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_the_board),
	    cmocka_unit_test(test_disks),
	    cmocka_unit_test(test_overlay_over_nbd),
	    cmocka_unit_test(test_networks),
	    cmocka_unit_test(test_direct_boot_and_flash),
	    cmocka_unit_test(test_refusals),
	    cmocka_unit_test(test_out_of_memory),
	    cmocka_unit_test(test_qemutext),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

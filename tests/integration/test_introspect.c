/* introspect.c: QEMUs of several shapes, what is told of them, and that a machine made from that
 * tells the same. */
#include <errno.h>
#include <linux/sockios.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/launch.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "tests/lib/process.h"
#include "tests/lib/unit.h"

struct test {
	char *dir, *raw, *qcow2, *c, *d, *e;
	char *vm;   /* folder of a VM that launch.c starts */
	pid_t qemu; /* a VM that we start */
	char way[16];
};

static void
nap_ms(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static char *
make_image(struct test *t, const char *name, const char *format)
{
	char *path = process_path(t->dir, name);
	const char *argv[] = {"qemu-img", "create", "-q", "-f", format, path, "8M", NULL};

	assert_int_equal(process_run(argv), 0);
	return path;
}

static int
setup(void **state)
{
	struct test *t = calloc(1, sizeof *t);

	*state = t;
	t->dir = process_tmpdir();
	t->vm = process_path(t->dir, "vm");
	t->raw = make_image(t, "a,a.raw", "raw");
	t->qcow2 = make_image(t, "b.qcow2", "qcow2");
	t->c = make_image(t, "c.raw", "raw");
	t->d = make_image(t, "d.qcow2", "qcow2");
	t->e = make_image(t, "e.raw", "raw");
	return 0;
}

static int
teardown(void **state)
{
	struct test *t = *state;

	(void)launch_stop(t->vm, 0, NULL);
	process_stop(t->qemu);
	dir_remove(t->dir);
	free(t->dir);
	free(t->vm);
	free(t->raw);
	free(t->qcow2);
	free(t->c);
	free(t->d);
	free(t->e);
	free(t);
	return 0;
}

struct asked {
	uv_loop_t loop;
	bool done;
	struct lc_err err;
};

static void
on_done(void *arg, const struct lc_err *err)
{
	struct asked *a = arg;

	a->err = *err;
	a->done = true;
	uv_stop(&a->loop);
}

static struct definition *
introspect(struct test *t, const char *monitor)
{
	struct hv_target target = {.vm = "web01",
	                           .qmp = monitor,
	                           .run_dir = t->dir,
	                           .scratch_dir = t->dir,
	                           .tag = "0123456789abcdef",
	                           .command_timeout_ms = 30000};
	struct definition *d = lc_alloc(sizeof *d);
	struct asked a = {.done = false};
	struct lc_err e = LC_ERR_INIT;
	struct hv *hv;

	assert_int_equal(uv_loop_init(&a.loop), 0);
	assert_int_equal(hv_open(&a.loop, &target, NULL, NULL, &hv, &e), 0);
	assert_int_equal(hv_prepare(hv, on_done, &a, &e), 0);
	while (!a.done)
		(void)uv_run(&a.loop, UV_RUN_ONCE);
	if (a.err.code != LC_OK)
		fail_msg("%s", a.err.msg);
	assert_non_null(hv_vm(hv)->def);
	*d = *hv_vm(hv)->def;
	memcpy(t->way, hv_vm(hv)->way, sizeof t->way);
	hv_close(hv, NULL, NULL);
	while (uv_run(&a.loop, UV_RUN_DEFAULT) != 0)
		continue;
	assert_int_equal(uv_loop_close(&a.loop), 0);
	return d;
}

static struct definition *
decode(const char *text)
{
	struct lc_err e = LC_ERR_INIT;
	struct definition *d;

	if (definition_decode("test", text, strlen(text), &d, &e) != 0)
		fail_msg("%s", e.msg);
	return d;
}

static char *
encode(const struct definition *d)
{
	struct lc_buf b = {0};
	struct lc_err e = LC_ERR_INIT;

	if (definition_encode(d, &b, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(lc_buf_append(&b, "", 1), 0);
	return (char *)b.p;
}

static void
launch(struct test *t, const struct definition *d)
{
	struct launch_opts o = {
	    .vm = "web01", .dir = t->vm, .accel = "tcg", .own_paths = true, .sandbox = true};
	struct lc_err e = LC_ERR_INIT;

	if (launch_start(d, &o, NULL, &e) != 0)
		fail_msg("%s", e.msg);
}

static bool
has_all_addresses(const struct definition *d)
{
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		if (d->disks[i].bus == DEF_BUS_VIRTIO && d->disks[i].role == HV_ROLE_DISK &&
		    d->disks[i].address[0] == '\0')
			return false;
	}
	for (i = 0; i < d->nnics; i++) {
		if (d->nics[i].address[0] == '\0')
			return false;
	}
	return true;
}

/* The BIOS numbers the buses in its first second. */
static struct definition *
introspect_settled(struct test *t, const char *monitor)
{
	int64_t end = clock_mono_ns() + 30 * LC_NS_PER_S;
	struct definition *d = introspect(t, monitor);

	while (!has_all_addresses(d) && clock_mono_ns() < end) {
		lc_free(d);
		nap_ms(200);
		d = introspect(t, monitor);
	}
	return d;
}

static void
expect_same(const struct definition *a, const struct definition *b)
{
	char *x = encode(a), *y = encode(b);

	assert_string_equal(x, y);
	lc_free(x);
	lc_free(y);
}

/* Launch it, ask, launch what was told, ask again: the same.  Gives what was told first. */
static struct definition *
there_and_back(struct test *t, const struct definition *d)
{
	char *monitor = process_path(t->vm, LAUNCH_MONITOR);
	struct definition *first, *second;
	struct lc_err e = LC_ERR_INIT;

	launch(t, d);
	first = introspect_settled(t, monitor);
	assert_string_equal(t->way, "reopen"); /* a point of a VM that we launched needs no pause */
	assert_int_equal(launch_stop(t->vm, 0, &e), 0);
	assert_true(has_all_addresses(first));
	launch(t, first);
	second = introspect_settled(t, monitor);
	assert_int_equal(launch_stop(t->vm, 0, &e), 0);
	expect_same(first, second);
	lc_free(second);
	free(monitor);
	return first;
}

static struct definition *
define(const char *fmt, const char *a, const char *b, const char *c, const char *d)
{
	char text[4096];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	(void)snprintf(text, sizeof text, fmt, a, b, c, d);
#pragma GCC diagnostic pop
	return decode(text);
}

static void
test_q35(void **state)
{
	struct test *t = *state;
	struct definition *d = define(
	    "[machine]\ntype = pc-q35-7.1\ncpu = Nehalem\ncpu_features = +aes,-popcnt\ncpus = "
	    "4\ntopology = 2:1:2\n"
	    "memory = 96 MiB\nclock = utc\n"
	    "uuid = 6a1f0000-0000-4000-8000-00000000abcd\n"
	    "[disk vda]\nformat = raw\npath = %s\nserial = s-1\nboot = 2\n"
	    "[disk vdb]\nformat = qcow2\npath = %s\naddress = 03:00.0\nboot = 1\n"
	    "[disk sda]\nbus = scsi\nformat = raw\npath = %s\nblock = 4096\n"
	    "[disk sata-with-a-rather-long-name]\nbus = sata\nformat = qcow2\npath = %s\n"
	    "[nic net0]\nnetwork = user\nmac = 52:54:00:12:34:56\naddress = 05:00.0\n"
	    "[nic net1]\nmodel = e1000\nnetwork = none\naddress = 00:08.0\n",
	    t->raw, t->qcow2, t->c, t->d);
	struct definition *told = there_and_back(t, d);
	const struct def_disk *k;
	size_t i;

	assert_string_equal(told->machine, "pc-q35-7.1");
	assert_string_equal(told->cpu, "Nehalem");
	assert_string_equal(told->cpu_features, "-popcnt,+aes"); /* in an order of its own */
	assert_int_equal(told->cpus, 4);
	assert_string_equal(told->topology, "2:1:2");
	assert_int_equal(told->memory, 96 << 20);
	assert_string_equal(told->uuid, d->uuid);
	assert_int_equal(told->ndisks, 4);
	for (i = 0; i < 4; i++) { /* in the order that QEMU lists them */
		k = definition_disk(told, d->disks[i].name);
		assert_non_null(k);
		assert_int_equal(k->bus, d->disks[i].bus);
		assert_string_equal(k->path, d->disks[i].path);
		assert_string_equal(k->format, d->disks[i].format);
		if (k->bus == DEF_BUS_SATA) /* QEMU gives one where none is set */
			assert_string_equal(k->serial, "QM00001");
		else
			assert_string_equal(k->serial, d->disks[i].serial);
		assert_int_equal(k->boot, d->disks[i].boot);
		assert_int_equal(k->block, d->disks[i].block);
		assert_int_equal(k->size, 8 << 20);
	}
	assert_string_equal(definition_disk(told, "vdb")->address, "03:00.0");
	assert_int_equal(told->nnics, 2);
	assert_string_equal(told->nics[0].name, "net1"); /* in the order of their addresses */
	assert_string_equal(told->nics[0].model, "e1000");
	assert_string_equal(told->nics[0].network, "none");
	assert_string_equal(told->nics[0].address, "00:08.0");
	assert_string_equal(told->nics[1].name, "net0");
	assert_string_equal(told->nics[1].address, "05:00.0");
	assert_string_equal(told->nics[1].mac, "52:54:00:12:34:56");
	assert_string_equal(told->nics[1].network, "user");
	assert_int_equal(told->nleft_out, 0);
	lc_free(told);
	lc_free(d);
}

static void
test_i440fx(void **state)
{
	struct test *t = *state;
	struct definition *d = define(
	    "[machine]\ntype = pc\nmemory = 64 MiB\n"
	    "[disk hda]\nbus = ide\nformat = raw\npath = %s\n"
	    "[disk sata0]\nbus = sata\nformat = qcow2\npath = %s\n"
	    "[disk sda]\nbus = scsi\nformat = raw\npath = %s\naddress = 00:09.0\n"
	    "[disk 0vd]\nformat = qcow2\npath = %s\n",
	    t->raw, t->qcow2, t->c, t->d);
	struct definition *told = there_and_back(t, d);

	assert_string_equal(told->machine, "pc-i440fx-7.2");
	assert_int_equal(definition_disk(told, "hda")->bus, DEF_BUS_IDE);
	assert_int_equal(definition_disk(told, "sata0")->bus, DEF_BUS_SATA);
	assert_int_equal(definition_disk(told, "sda")->bus, DEF_BUS_SCSI);
	assert_string_equal(definition_disk(told, "sda")->address, "00:09.0");
	assert_int_equal(told->nleft_out, 0);
	lc_free(told);
	lc_free(d);
}

static bool
left_out(const struct definition *d, const char *what, const char *why)
{
	size_t i;

	for (i = 0; i < d->nleft_out; i++) {
		if (strstr(d->left_out[i].what, what) != NULL &&
		    strstr(d->left_out[i].why, why) != NULL)
			return true;
	}
	return false;
}

static void
start_qemu(struct test *t, const char *const *argv)
{
	char *sock = process_path(t->dir, "q");
	char *cwd = getcwd(NULL, 0);

	assert_int_equal(chdir(t->dir), 0);
	t->qemu = process_start(argv);
	assert_true(process_listens(sock, 20000));
	assert_int_equal(chdir(cwd), 0);
	free(cwd);
	free(sock);
}

/* A command line that is not ours, with much that is not made again. */
static void
test_a_foreign_command_line(void **state)
{
	struct test *t = *state;
	const char *argv[] = {
	    "qemu-system-x86_64", "-M", "pc,accel=tcg", "-m", "64", "-smp", "1,maxcpus=2",
	    "-display", "none", "-nodefaults", "-qmp", "unix:q,server=on,wait=off",
	    /* disks by the short way: no ids */
	    "-drive", "if=virtio,file=c.raw,format=raw", "-drive",
	    "if=ide,file=b.qcow2,format=qcow2", "-drive", "if=ide,media=cdrom", "-drive",
	    "if=none,id=x,file=d.qcow2,format=qcow2", "-drive",
	    "if=none,id=y,file=e.raw,format=raw", "-device", "virtio-scsi-pci", "-device",
	    "scsi-hd,drive=y,id=far,scsi-id=5,lun=3,wwn=0x5000c50015ea71ac", "-device",
	    "virtio-blk-pci,drive=x,serial=odd serial,addr=9",
	    /* cards */
	    "-nic", "user,model=rtl8139,mac=52:54:00:00:00:01", "-nic",
	    "user,model=ne2k_pci,mac=52:54:00:00:00:02", "-netdev", "user,id=hn", "-device",
	    "vmxnet3,netdev=hn,id=vmx", "-device", "virtio-net-pci,id=lonely",
	    /* and the rest */
	    "-device", "virtio-balloon-pci,id=balloon0", "-device", "virtio-rng-pci", "-device",
	    "qemu-xhci,id=usb", "-device", "usb-tablet,id=tab", "-device", "qxl,id=video0",
	    "-device", "intel-hda,id=sound0", "-device", "edu", NULL};
	char *monitor = process_path(t->dir, "q");
	struct definition *d;
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	start_qemu(t, argv);
	d = introspect_settled(t, monitor);
	assert_string_equal(d->machine, "pc-i440fx-7.2");
	assert_string_equal(d->cpu, "qemu64");
	assert_int_equal(d->cpus, 1);
	assert_string_equal(d->uuid, "");
	assert_int_equal(d->ndisks, 4);
	assert_true(left_out(d, "WWN of disk far", "not made again"));
	assert_true(left_out(d, "SCSI place of disk far", "target 5, unit 3"));
	assert_string_equal(definition_disk(d, "virtio0")->format, "raw");
	assert_int_equal(definition_disk(d, "ide0-hd0")->bus, DEF_BUS_IDE);
	assert_string_equal(definition_disk(d, "ide0-hd0")->serial, "QM00001");
	assert_string_equal(definition_disk(d, "x")->serial,
	                    ""); /* a blank is more than is allowed */
	assert_string_equal(definition_disk(d, "x")->address, "00:09.0");
	assert_true(left_out(d, "serial of disk x", "odd serial"));
	assert_int_equal(d->nnics, 2);
	for (i = 0; i < 2; i++) {
		bool lonely = strcmp(d->nics[i].name, "lonely") == 0;

		assert_string_equal(d->nics[i].model, lonely ? "virtio" : "rtl8139");
		assert_string_equal(d->nics[i].network, lonely ? "none" : "user");
	}
	assert_true(left_out(d, "CPU topology", "more CPUs"));
	assert_true(left_out(d, "vmxnet3 vmx", "network card"));
	assert_true(left_out(d, "ne2k_pci", "network card"));
	assert_true(left_out(d, "virtio-balloon-pci balloon0", "balloon"));
	assert_true(left_out(d, "virtio-rng-pci", "random"));
	assert_true(left_out(d, "qemu-xhci usb", "USB"));
	assert_true(left_out(d, "usb-tablet tab", "USB"));
	assert_true(left_out(d, "qxl video0", "standard VGA"));
	assert_true(left_out(d, "intel-hda sound0", "sound"));
	assert_true(left_out(d, "edu", "not made again"));
	assert_true(left_out(d, "removable drive", "medium"));
	/* Paths were relative: QEMU does not tell of what. */
	assert_int_equal(definition_set(d, "disk", "virtio0", "path", t->c, &e), 0);
	assert_int_equal(definition_set(d, "disk", "ide0-hd0", "path", t->qcow2, &e), 0);
	assert_int_equal(definition_set(d, "disk", "x", "path", t->d, &e), 0);
	assert_int_equal(definition_set(d, "disk", "far", "path", t->e, &e), 0);
	process_stop(t->qemu);
	t->qemu = 0;
	d->nleft_out = 0; /* it has now gone for good */
	memset(d->left_out, 0, sizeof d->left_out);
	{
		char *ours = process_path(t->vm, LAUNCH_MONITOR);
		struct definition *again;

		launch(t, d);
		again = introspect_settled(t, ours);
		assert_int_equal(again->nleft_out, 0);
		assert_int_equal(again->ndisks, d->ndisks);
		for (i = 0; i < d->ndisks; i++) {
			assert_memory_equal(definition_disk(again, d->disks[i].name), &d->disks[i],
			                    sizeof d->disks[i]);
		}
		assert_string_equal(again->nics[0].mac, d->nics[0].mac);
		lc_free(again);
		free(ours);
	}
	lc_free(d);
	free(monitor);
}

/* However they are written; what a model has by itself is none of them. */
static void
test_cpu_features(void **state)
{
	struct test *t = *state;
	static const struct {
		const char *cpu, *model, *features;
	} rows[] = {
	    {"qemu64,+aes,+pni,-svm,+popcnt", "qemu64", "+pni,+popcnt,+aes,-svm"},
	    {"qemu64,aes=on,svm=off", "qemu64", "+aes,-svm"},
	    {"EPYC-v3,-topoext,+pcid", "EPYC-v3", "+pcid,-topoext"},
	    {"max,-avx", "max", "-avx"},
	    {"max", "max", ""},
	    {"Skylake-Client", "Skylake-Client", ""},
	};
	char *monitor = process_path(t->dir, "q");
	size_t i;

	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const char *argv[] = {"qemu-system-x86_64",
		                      "-M",
		                      "q35,accel=tcg",
		                      "-m",
		                      "32",
		                      "-display",
		                      "none",
		                      "-nodefaults",
		                      "-S",
		                      "-qmp",
		                      "unix:q,server=on,wait=off",
		                      "-cpu",
		                      rows[i].cpu,
		                      NULL};
		struct definition *d;

		start_qemu(t, argv);
		d = introspect(t, monitor);
		assert_string_equal(d->cpu, rows[i].model);
		assert_string_equal(d->cpu_features, rows[i].features);
		assert_false(left_out(d, "CPU", ""));
		lc_free(d);
		process_stop(t->qemu);
		t->qemu = 0;
		(void)unlink(monitor);
	}
	free(monitor);
}

/* As libvirt lays a machine out: every device behind a root port of its own. */
static void
test_root_ports(void **state)
{
	struct test *t = *state;
	const char *argv[] = {
	    "qemu-system-x86_64",
	    "-M",
	    "pc-q35-7.2,accel=tcg",
	    "-m",
	    "64",
	    "-display",
	    "none",
	    "-nodefaults",
	    "-uuid",
	    "6a1f0000-0000-4000-8000-00000000abcd",
	    "-qmp",
	    "unix:q,server=on,wait=off",
	    "-device",
	    "pcie-root-port,port=16,chassis=1,id=pci.1,bus=pcie.0,multifunction=on,addr=0x2",
	    "-device",
	    "pcie-root-port,port=17,chassis=2,id=pci.2,bus=pcie.0,addr=0x2.0x1",
	    "-device",
	    "pcie-root-port,port=18,chassis=3,id=pci.3,bus=pcie.0,addr=0x2.0x2",
	    "-blockdev",
	    "driver=file,node-name=libvirt-1-storage,filename=c.raw",
	    "-blockdev",
	    "driver=raw,node-name=libvirt-1-format,file=libvirt-1-storage",
	    "-device",
	    "virtio-blk-pci,bus=pci.3,addr=0x0,drive=libvirt-1-format,id=virtio-disk0,bootindex=1",
	    "-netdev",
	    "user,id=hostnet0",
	    "-device",
	    "virtio-net-pci,netdev=hostnet0,id=net0,mac=52:54:00:aa:bb:cc,bus=pci.1,addr=0x0",
	    "-device",
	    "ich9-usb-ehci1,id=usb,bus=pcie.0,addr=0x1d.0x7",
	    NULL};
	char *monitor = process_path(t->dir, "q"), *ours = process_path(t->vm, LAUNCH_MONITOR);
	struct definition *d, *again;

	start_qemu(t, argv);
	d = introspect_settled(t, monitor);
	assert_string_equal(d->disks[0].address, "03:00.0");
	assert_int_equal(d->disks[0].boot, 2);
	assert_string_equal(d->nics[0].address, "01:00.0");
	assert_int_equal(d->nleft_out, 1);
	process_stop(t->qemu);
	t->qemu = 0;
	assert_int_equal(definition_set(d, "disk", "virtio-disk0", "path", t->c, NULL), 0);
	launch(t, d);
	again = introspect_settled(t, ours);
	d->nleft_out = 0;
	expect_same(d, again);
	lc_free(d);
	lc_free(again);
	free(monitor);
	free(ours);
}

/* One line to a qtest socket, and its "OK". */
static void
poke(int fd, const char *line)
{
	char answer[64];

	assert_int_equal(write(fd, line, strlen(line)), (ssize_t)strlen(line));
	assert_true(read(fd, answer, sizeof answer) >= 3);
	assert_memory_equal(answer, "OK", 2);
}

static int
connect_to(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_true(strlen(path) < sizeof to.sun_path);
	memcpy(to.sun_path, path, strlen(path));
	while (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
		assert_true(errno == ENOENT || errno == ECONNREFUSED);
		nap_ms(20);
	}
	return fd;
}

/*
 * While firmware numbers the buses, a bridge that it has not come to yet leads to bus 255 and no
 * further: that is no address.  The processor stands still; qtest writes the bridge's registers
 * (primary, secondary, subordinate) as firmware does.
 */
static void
test_half_numbered_buses(void **state)
{
	struct test *t = *state;
	const char *argv[] = {"qemu-system-x86_64",
	                      "-M",
	                      "pc-q35-7.2,accel=tcg",
	                      "-S",
	                      "-m",
	                      "64",
	                      "-display",
	                      "none",
	                      "-nodefaults",
	                      "-qmp",
	                      "unix:q,server=on,wait=off",
	                      "-qtest",
	                      "unix:qt,server=on,wait=off",
	                      "-qtest-log",
	                      "none",
	                      "-device",
	                      "pcie-root-port,port=16,chassis=1,id=pci.1,bus=pcie.0,addr=0x2",
	                      "-blockdev",
	                      "driver=raw,node-name=c,file.driver=file,file.filename=c.raw",
	                      "-device",
	                      "virtio-blk-pci,bus=pci.1,drive=c,id=vda",
	                      NULL};
	static const struct {
		const char *registers, *address;
	} steps[] = {{"0x00000000", ""},        /* as after a reset */
	             {"0x0000ffff", ""},        /* hidden, until its turn comes */
	             {"0x00ff0100", "01:00.0"}, /* numbered; what is behind it is not yet */
	             {"0x00010100", "01:00.0"}};
	char *monitor = process_path(t->dir, "q"), *qtest = process_path(t->dir, "qt");
	char line[64];
	size_t i;
	int fd;

	start_qemu(t, argv);
	fd = connect_to(qtest);
	for (i = 0; i < sizeof steps / sizeof *steps; i++) {
		struct definition *d;

		poke(fd, "outl 0xcf8 0x80001018\n");
		(void)snprintf(line, sizeof line, "outl 0xcfc %s\n", steps[i].registers);
		poke(fd, line);
		d = introspect(t, monitor);
		assert_string_equal(d->disks[0].address, steps[i].address);
		lc_free(d);
	}
	(void)close(fd);
	free(monitor);
	free(qtest);
}

/* On a bridge of the host, by a descriptor: QEMU itself may make no interfaces, and does not know
 * the bridge. */
static void
test_a_bridge(void **state)
{
	struct test *t = *state;
	char bridge[16], text[64];
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct definition *d, *told;

	(void)snprintf(bridge, sizeof bridge, "locbr%d", (int)getpid() % 100000);
	if (access("/dev/net/tun", W_OK) != 0 || ioctl(sock, SIOCBRADDBR, bridge) != 0) {
		(void)close(sock);
		skip();
	}
	(void)snprintf(text, sizeof text, "bridge:%s", bridge);
	d = define("[machine]\nmemory = 64 MiB\n[disk vda]\npath = %s\n[nic net0]\nnetwork = %s\n",
	           t->raw, text, "", "");
	told = there_and_back(t, d);
	(void)ioctl(sock, SIOCBRDELBR, bridge);
	(void)close(sock);
	assert_string_equal(told->nics[0].network, text);
	assert_int_equal(told->nleft_out, 0);
	lc_free(told);
	lc_free(d);
}

static void
test_kernel_and_flash(void **state)
{
	struct test *t = *state;
	char *code = process_path(t->dir, "code.fd"), *vars = process_path(t->dir, "vars.fd");
	char *kernel = process_path(t->dir, "kernel");
	const char *flash[] = {"truncate", "-s", "128K", code, vars, NULL};
	/* What QEMU takes for an old kernel. */
	static const uint8_t boot_sector[1024] = {[0x1f1] = 1, [0x1fe] = 0x55, [0x1ff] = 0xaa};
	struct definition *d, *told;

	assert_int_equal(process_run(flash), 0);
	assert_int_equal(file_write_new(kernel, boot_sector, sizeof boot_sector, 0600, NULL), 0);
	d = define("[machine]\nmemory = 64 MiB\nfirmware = %s\nappend = a=b,c \"d\" -x\n"
	           "[disk nvram]\nrole = nvram\npath = %s\n"
	           "[disk kernel]\nrole = kernel\npath = %s\n"
	           "[disk vda]\npath = %s\naddress = 00:05.0\n",
	           code, vars, kernel, t->raw);
	told = there_and_back(t, d);
	assert_string_equal(told->firmware, code);
	assert_string_equal(told->append, "a=b,c \"d\" -x");
	assert_non_null(definition_role(told, HV_ROLE_NVRAM));
	assert_string_equal(definition_role(told, HV_ROLE_NVRAM)->path, vars);
	assert_string_equal(definition_role(told, HV_ROLE_KERNEL)->path, kernel);
	assert_int_equal(definition_role(told, HV_ROLE_KERNEL)->size, sizeof boot_sector);
	lc_free(told);
	lc_free(d);
	free(code);
	free(vars);
	free(kernel);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_q35),
	    T(test_i440fx),
	    T(test_a_foreign_command_line),
	    T(test_cpu_features),
	    T(test_root_ports),
	    T(test_half_numbered_buses),
	    T(test_kernel_and_flash),
	    T(test_a_bridge),
	};

	if (!process_have("qemu-system-x86_64")) {
		(void)printf("skipped: qemu-system-x86_64 is not there\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

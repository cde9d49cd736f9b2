/* launch.h with a real QEMU and the test guest of tests/guest. */
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/launch.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/unixsock.h"
#include "tests/lib/process.h"
#include "tests/lib/unit.h"

#ifndef LOCUM_SOURCE_DIR
#define LOCUM_SOURCE_DIR "."
#endif
#define APPEND                                                                                    \
	"console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check noreplace-smp mitigations=off " \
	"random.trust_cpu=on"
#define BOOT_MS 120000 /* a busy machine without KVM */

static char *guest_out; /* vmlinux and initrd.img of the test guest */

struct test {
	char *dir, *vm, *raw, *qcow2;
	struct definition *def;
	struct launch_opts opts;
	pid_t helper;
};

static void
run(const char *const *argv)
{
	assert_int_equal(process_run(argv), 0);
}
#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

static int
setup(void **state)
{
	struct test *t = calloc(1, sizeof *t);

	*state = t;
	t->dir = process_tmpdir();
	t->vm = process_path(t->dir, "vm");
	t->raw = process_path(t->dir, "a.raw");
	t->qcow2 = process_path(t->dir, "b.qcow2");
	RUN("qemu-img", "create", "-q", "-f", "raw", t->raw, "64M");
	RUN("qemu-img", "create", "-q", "-f", "qcow2", t->qcow2, "64M");
	t->def = definition_new();
	t->opts = (struct launch_opts){.vm = "web, 01", .dir = t->vm, .own_paths = true};
	return 0;
}

static int
teardown(void **state)
{
	struct test *t = *state;

	(void)launch_stop(t->vm, 0, NULL);
	process_stop(t->helper);
	dir_remove(t->dir);
	lc_free(t->def);
	free(t->dir);
	free(t->vm);
	free(t->raw);
	free(t->qcow2);
	free(t);
	return 0;
}

static void
set(struct test *t, const char *section, const char *name, const char *key, const char *value)
{
	struct lc_err e = LC_ERR_INIT;

	if (definition_set(t->def, section, name, key, value, &e) != 0)
		fail_msg("%s", e.msg);
}

static void
add_disk(struct test *t, const char *name, const char *bus, const char *format, const char *path)
{
	set(t, "disk", name, "bus", bus);
	set(t, "disk", name, "format", format);
	set(t, "disk", name, "path", path);
}

/* The guest by its kernel, with two disks. */
static void
define_guest(struct test *t)
{
	char *kernel = process_path(guest_out, "vmlinux");
	char *initrd = process_path(guest_out, "initrd.img");

	set(t, "machine", "", "memory", "128 MiB");
	set(t, "machine", "", "append", APPEND);
	set(t, "disk", "kernel", "role", "kernel");
	set(t, "disk", "kernel", "path", kernel);
	set(t, "disk", "initrd", "role", "initrd");
	set(t, "disk", "initrd", "path", initrd);
	add_disk(t, "vda", "virtio", "raw", t->raw);
	add_disk(t, "vdb", "virtio", "qcow2", t->qcow2);
	free(kernel);
	free(initrd);
}

static int
start(struct test *t)
{
	struct lc_err e = LC_ERR_INIT;
	int pid = 0;

	if (launch_start(t->def, &t->opts, &pid, &e) != 0)
		fail_msg("%s", e.msg);
	assert_true(pid > 1);
	return pid;
}

static void
expect_start(struct test *t, enum lc_code code, const char *text)
{
	struct lc_err e = LC_ERR_INIT;
	int pid = 0;

	assert_int_equal(launch_start(t->def, &t->opts, &pid, &e), code);
	if (strstr(e.msg, text) == NULL)
		fail_msg("'%s' lacks '%s'", e.msg, text);
	assert_int_equal(pid, 0);
}

static int64_t
stop(struct test *t, int64_t grace_ms)
{
	struct lc_err e = LC_ERR_INIT;
	int64_t t0 = clock_mono_ns();

	if (launch_stop(t->vm, grace_ms, &e) != 0)
		fail_msg("%s", e.msg);
	assert_false(launch_alive(t->vm, NULL));
	return (clock_mono_ns() - t0) / LC_NS_PER_MS;
}

static struct launch_sign
wait_alive(struct test *t, int64_t t0)
{
	struct launch_sign s;
	struct lc_err e = LC_ERR_INIT;

	if (launch_wait_alive(t->vm, t0, NULL, BOOT_MS, &s, &e) != 0)
		fail_msg("%s", e.msg);
	print_message("           %s; cpus after %d ms, alive after %d ms\n", s.what,
	              (int)s.exec_ms, (int)s.life_ms);
	return s;
}

static void
need_guest(void)
{
	if (guest_out == NULL)
		skip();
}

static void
test_direct_boot(void **state)
{
	struct test *t = *state;
	char *definition = process_path(t->vm, "definition.ini");
	int64_t t0 = clock_mono_ns();
	struct launch_sign s;
	struct launch_opts other;
	struct stat st;
	int pid, again = 0;

	need_guest();
	define_guest(t);
	set(t, "nic", "net0", "network", "user");
	t->opts.sandbox = true;
	pid = start(t);
	s = wait_alive(t, t0);
	assert_int_equal(s.best, LAUNCH_LIFE_SERIAL);
	assert_non_null(strstr(s.what, "SEQ start"));
	assert_in_range(s.exec_ms, 1, s.life_ms);
	assert_true(launch_alive(t->vm, &again));
	assert_int_equal(pid, again);
	assert_int_equal(stat(t->vm, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(access(definition, R_OK), 0);
	expect_start(t, LC_EEXIST, "runs already");
	/* Another VM on the same images. */
	other = t->opts;
	t->opts.dir = t->dir;
	expect_start(t, LC_EBUSY, "an image is in use by another process");
	assert_false(launch_alive(t->dir, NULL));
	t->opts = other;
	assert_true(launch_alive(t->vm, NULL));
	(void)stop(t, 0);
	assert_int_equal(launch_stop(t->vm, 0, NULL), 0); /* once more is fine */
	free(definition);
}

/* Boot from a disk of its own, on each bus and both boards. */
static void
test_boot_from_disk(void **state)
{
	static const struct {
		const char *machine, *bus, *append, *model;
		enum launch_life life;
	} cases[] = {
	    {"pc-q35-7.2", "virtio", "", "virtio", LAUNCH_LIFE_SERIAL},
	    {"q35", "sata", "", "e1000e", LAUNCH_LIFE_SERIAL},
	    {"pc", "ide", "", "rtl8139", LAUNCH_LIFE_SERIAL},
	    {"pc", "scsi", "", "e1000", LAUNCH_LIFE_SERIAL},
	    {"pc-i440fx-7.2", "sata", "", "virtio", LAUNCH_LIFE_SERIAL},
	};
	struct test *t = *state;
	char *img = process_path(t->dir, "boot.raw");
	char script[512];
	size_t i;

	need_guest();
	(void)snprintf(script, sizeof script, "%s/tests/guest/mkbootdisk.sh %s %s",
	               LOCUM_SOURCE_DIR, guest_out, img);
	if (system(script) != 0) {
		free(img);
		skip();
	}
	for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int64_t t0 = clock_mono_ns();
		struct launch_sign s;

		lc_free(t->def);
		t->def = definition_new();
		set(t, "machine", "", "type", cases[i].machine);
		set(t, "machine", "", "memory", "160 MiB");
		add_disk(t, "hd0", cases[i].bus, "raw", img);
		set(t, "nic", "net0", "model", cases[i].model);
		set(t, "nic", "net0", "network", "user");
		t->opts.isolated = i % 2 == 0;
		(void)start(t);
		/* The guest has no drivers for anything but virtio: its kernel speaks all the same.
		 */
		s = wait_alive(t, t0);
		assert_true(s.best >= LAUNCH_LIFE_SCREEN);
		(void)stop(t, 0);
	}
	free(img);
}

static void
test_a_disk_that_does_not_boot(void **state)
{
	struct test *t = *state;
	struct launch_sign s;
	struct lc_err e = LC_ERR_INIT;
	int64_t t0 = clock_mono_ns();

	add_disk(t, "vda", "virtio", "raw", t->raw);
	(void)start(t);
	/* "No bootable device" stands there, steadily. */
	assert_int_equal(launch_wait_alive(t->vm, t0, NULL, 9000, &s, &e), LC_ETIMEDOUT);
	assert_non_null(strstr(e.msg, "no sign of life within 9 s; nothing on the console"));
	assert_int_equal(s.best, LAUNCH_LIFE_NONE);
	assert_in_range(s.exec_ms, 1, 9000);
}

static void
test_a_guest_that_dies(void **state)
{
	struct test *t = *state;
	struct launch_sign s;
	struct lc_err e = LC_ERR_INIT;
	int64_t t0 = clock_mono_ns();

	need_guest();
	define_guest(t);
	set(t, "machine", "", "append",
	    "console=ttyS0 panic=0 root=/dev/nowhere rdinit=/none init=/none");
	(void)start(t);
	assert_int_equal(launch_wait_alive(t->vm, t0, "never", BOOT_MS, &s, &e), LC_EPEER);
	assert_non_null(strstr(e.msg, "the guest's kernel died"));
	(void)stop(t, 0);
	/* And one whose QEMU goes away. */
	set(t, "machine", "", "append", "console=ttyS0 panic=0");
	{
		int pid = start(t);

		assert_int_equal(kill(pid, SIGKILL), 0);
		lc_err_clear(&e);
		assert_int_equal(launch_wait_alive(t->vm, t0, NULL, BOOT_MS, &s, &e), LC_EPEER);
		assert_non_null(strstr(e.msg, "QEMU ended"));
	}
}

static void
test_a_serial_pattern(void **state)
{
	struct test *t = *state;
	struct launch_sign s;
	struct lc_err e = LC_ERR_INIT;
	int64_t t0 = clock_mono_ns();

	need_guest();
	define_guest(t);
	(void)start(t);
	assert_int_equal(launch_wait_alive(t->vm, t0, " rate ", BOOT_MS, &s, &e), 0);
	assert_non_null(strstr(s.what, " rate "));
	assert_int_equal(launch_wait_alive(t->vm, t0, "never said", 1000, &s, &e), LC_ETIMEDOUT);
	assert_non_null(strstr(e.msg, "last on the console: SEQ"));
}

static void
test_powerdown_and_hung_qemu(void **state)
{
	struct test *t = *state;
	int64_t took_ms;
	int pid;

	add_disk(t, "vda", "virtio", "raw", t->raw);
	(void)start(t);
	took_ms = stop(t, 700); /* nobody in the guest hears of it */
	assert_in_range(took_ms, 700, 7000);
	pid = start(t);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	took_ms = stop(t, 0); /* the monitor is silent: killed in the end */
	assert_in_range(took_ms, 0, 15000);
	t->opts.paused = true;
	(void)start(t);
	assert_in_range(stop(t, 0), 0, 5000);
}

/* Who waits for a sign of life holds the monitor of our own for as long. */
static void
test_stop_while_somebody_waits(void **state)
{
	struct test *t = *state;
	char *own = process_path(t->vm, LAUNCH_MONITOR_OWN), heard[4096];
	const char hello[] = "{\"execute\": \"qmp_capabilities\"}\n";
	size_t n = 0;
	ssize_t got;
	int fd;

	add_disk(t, "vda", "virtio", "raw", t->raw);
	(void)start(t);
	fd = unixsock_connect(own);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, hello, sizeof hello - 1), sizeof hello - 1);
	assert_in_range(stop(t, 100), 100, 4500); /* QEMU is not killed */
	while (n < sizeof heard - 1 && (got = read(fd, heard + n, sizeof heard - 1 - n)) > 0)
		n += (size_t)got;
	heard[n] = '\0';
	assert_non_null(strstr(heard, "\"POWERDOWN\""));
	assert_non_null(strstr(heard, "\"SHUTDOWN\""));
	(void)close(fd);
	free(own);
}

static void
test_what_cannot_start(void **state)
{
	struct test *t = *state;
	char *nothing = process_path(t->dir, "nothing.raw");
	char deep[300];
	char *long_dir;

	expect_start(t, LC_EINVAL, "neither a disk nor a kernel");
	add_disk(t, "vda", "virtio", "raw", nothing);
	expect_start(t, LC_EPEER, "nothing.raw");
	expect_start(t, LC_EPEER, "/qemu.log");
	add_disk(t, "vda", "virtio", "qcow2", t->raw);
	expect_start(t, LC_EPEER, "qcow2");
	add_disk(t, "vda", "virtio", "raw", t->raw);
	t->opts.qemu = "no-such-qemu";
	expect_start(t, LC_ENOENT, "no-such-qemu");
	t->opts.qemu = "false";
	expect_start(t, LC_EPEER, "it said nothing");
	t->opts.qemu = NULL;
	t->opts.accel = "hvf";
	expect_start(t, LC_EINVAL, "accelerator 'hvf'");
	t->opts.accel = "tcg";
	t->opts.run_as = "no-such-user";
	expect_start(t, LC_ENOENT, "no-such-user");
	t->opts.run_as = NULL;
	set(t, "machine", "", "type", "pc-q35-99.9");
	expect_start(t, LC_EPEER, "machine help");
	set(t, "machine", "", "type", "q35");
	set(t, "nic", "net0", "network", "bridge:no-such-br");
	expect_start(t, LC_EIO, "no-such-br");
	set(t, "nic", "net0", "network", "lan");
	expect_start(t, LC_EINVAL, "network 'lan' means nothing on this host");
	set(t, "nic", "net0", "network", "none");
	memset(deep, 'd', sizeof deep);
	deep[100] = '\0';
	long_dir = process_path(t->dir, deep);
	t->opts.dir = long_dir;
	expect_start(t, LC_EINVAL, "shorter run_dir or name");
	t->opts.dir = t->vm;
	assert_int_equal(access(t->vm, F_OK), 0);
	assert_false(launch_alive(t->vm, NULL));
	(void)start(t); /* after all that */
	free(long_dir);
	free(nothing);
}

static void
test_a_foreign_definition(void **state)
{
	struct test *t = *state;
	struct launch_disk disks[] = {{.name = "vda", .file = t->qcow2, .format = "qcow2"}};

	add_disk(t, "vda", "virtio", "raw", "/etc/shadow");
	t->opts.own_paths = false;
	expect_start(t, LC_EINVAL, "disk vda: no image is given for it");
	t->opts.disks = disks;
	t->opts.ndisks = 1;
	set(t, "machine", "", "firmware", "/etc/shadow");
	expect_start(t, LC_EACCES, "only files under /usr/share/");
	set(t, "machine", "", "firmware", "/usr/share/../../etc/shadow");
	expect_start(t, LC_EACCES, "only files under /usr/share/");
	set(t, "machine", "", "firmware", "");
	(void)start(t);
}

static void
test_kvm_that_is_there_but_no_good(void **state)
{
	struct test *t = *state;
	struct lc_err e = LC_ERR_INIT;
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), rc;

	add_disk(t, "vda", "virtio", "raw", t->raw);
	t->opts.accel = NULL;
	(void)start(t); /* with whatever is there */
	(void)stop(t, 0);
	t->opts.accel = "kvm";
	rc = launch_start(t->def, &t->opts, NULL, &e);
	print_message("           /dev/kvm %s: %s\n", fd == -1 ? "is not there" : "is there",
	              rc == 0 ? "carries guests" : e.msg);
	assert_true(rc == 0 || rc == LC_ENOTSUP);
	if (fd != -1)
		(void)close(fd);
}

/* A QEMU that dies of KVM: only the next in the list counts. */
static void
test_qemu_that_dies_of_kvm(void **state)
{
	struct test *t = *state;
	char *qemu = process_path(t->dir, "qemu");
	static const char script[] =
	    "#!/bin/sh\n"
	    "case \"$*\" in *accel=kvm*) echo 'assertion failed' >&2; exit 134;; esac\n"
	    "exec qemu-system-x86_64 \"$@\"\n";

	assert_int_equal(file_write_new(qemu, script, sizeof script - 1, 0700, NULL), 0);
	add_disk(t, "vda", "virtio", "raw", t->raw);
	t->opts.qemu = qemu;
	t->opts.accel = "kvm:tcg";
	(void)start(t);
	free(qemu);
}

static bool
status_says(int pid, const char *line)
{
	struct lc_buf text = {0};
	char path[64];
	bool found = false;

	(void)snprintf(path, sizeof path, "/proc/%d/status", pid);
	if (file_read_all(path, 65536, &text, NULL) == 0 && lc_buf_append(&text, "", 1) == 0)
		found = strstr((const char *)text.p, line) != NULL;
	lc_buf_free(&text);
	return found;
}

/* As at the replica: overlay over NBD, another user, sandbox; the folder stays ours. */
static void
test_unprivileged_over_nbd(void **state)
{
	struct test *t = *state;
	char *overlay = process_path(t->dir, "ov.qcow2"), *sock = process_path(t->dir, "nbd");
	char *backing = NULL, uid_line[64];
	const char *nbdkit[] = {"nbdkit", "-f", "-r", "-U", sock, "file", t->raw, NULL};
	struct launch_disk disks[] = {
	    {.name = "vda", .kind = LAUNCH_IMAGE_OVERLAY, .overlay = overlay, .nbd_socket = sock},
	    {.name = "vdb", .file = t->qcow2, .format = "qcow2"},
	    {.name = "kernel"},
	    {.name = "initrd"},
	};
	char *kernel, *initrd;
	const struct passwd *nobody = getpwnam("nobody");
	int64_t t0;
	int pid;

	need_guest();
	if (geteuid() != 0 || nobody == NULL || !process_have("nbdkit"))
		skip();
	define_guest(t);
	kernel = process_path(guest_out, "vmlinux");
	initrd = process_path(guest_out, "initrd.img");
	disks[2].file = kernel;
	disks[3].file = initrd;
	t->helper = process_start(nbdkit);
	assert_true(process_listens(sock, 10000));
	assert_true(asprintf(&backing, "nbd+unix:///?socket=%s", sock) > 0);
	RUN("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, overlay);
	/* The server's socket has to be reachable; nothing else is. */
	assert_int_equal(chmod(t->dir, 0711), 0);
	assert_int_equal(chmod(sock, 0666), 0);
	assert_int_equal(chmod(overlay, 0600), 0);
	assert_int_equal(chmod(t->qcow2, 0600), 0);
	t->opts.own_paths = false;
	t->opts.disks = disks;
	t->opts.ndisks = 4;
	t->opts.run_as = "nobody";
	t->opts.sandbox = true;
	t->opts.isolated = true;
	set(t, "nic", "net0", "network",
	    "bridge:br0"); /* of the other site; isolated, so no matter */
	t0 = clock_mono_ns();
	pid = start(t);
	(void)snprintf(uid_line, sizeof uid_line, "Uid:\t%u\t%u\t%u\t%u", nobody->pw_uid,
	               nobody->pw_uid, nobody->pw_uid, nobody->pw_uid);
	assert_true(status_says(pid, uid_line));
	assert_true(status_says(pid, "NoNewPrivs:\t1"));
	assert_true(status_says(pid, "Seccomp:\t2"));
	assert_int_equal(wait_alive(t, t0).best, LAUNCH_LIFE_SERIAL);
	(void)stop(t, 0);
	free(overlay);
	free(sock);
	free(backing);
	free(kernel);
	free(initrd);
}

/* Who started it may go; it is no child, has no descriptors of ours, and is found by its folder. */
static void
test_it_outlives_its_starter(void **state)
{
	struct test *t = *state;
	int leak[2], status, pid = 0;
	char path[64], to[256];
	pid_t child;

	add_disk(t, "vda", "virtio", "raw", t->raw);
	assert_int_equal(pipe(leak), 0); /* inheritable on purpose */
	child = fork();
	if (child == 0)
		_exit(launch_start(t->def, &t->opts, NULL, NULL) == 0 ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_true(launch_alive(t->vm, &pid));
	assert_int_not_equal(getpgid(pid), getpgid(0));
	(void)snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, leak[1]);
	{
		ssize_t n = readlink(path, to, sizeof to - 1);
		char ours[64];
		ssize_t k;

		to[n > 0 ? n : 0] = '\0';
		(void)snprintf(path, sizeof path, "/proc/self/fd/%d", leak[1]);
		k = readlink(path, ours, sizeof ours - 1);
		ours[k > 0 ? k : 0] = '\0';
		assert_string_not_equal(to, ours);
	}
	(void)close(leak[0]);
	(void)close(leak[1]);
}

static void
test_a_pid_that_is_somebody_elses(void **state)
{
	struct test *t = *state;
	char *file = process_path(t->vm, "pid");
	struct lc_buf text = {0};
	char other[200];
	const char *sleeper[] = {"sleep", "60", NULL};

	add_disk(t, "vda", "virtio", "raw", t->raw);
	(void)start(t);
	assert_int_equal(file_read_all(file, 4096, &text, NULL), 0);
	assert_int_equal(lc_buf_append(&text, "", 1), 0);
	(void)stop(t, 0);
	assert_int_not_equal(access(file, F_OK), 0);
	t->helper = process_start(sleeper);
	(void)snprintf(other, sizeof other, "%d%s", (int)t->helper, strchr((char *)text.p, ' '));
	assert_int_equal(file_write_new(file, other, strlen(other), 0600, NULL), 0);
	assert_false(launch_alive(t->vm, NULL));
	assert_int_equal(launch_stop(t->vm, 0, NULL), 0);
	assert_int_equal(kill(t->helper, 0), 0); /* it was left alone */
	lc_buf_free(&text);
	free(file);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_direct_boot),
	    T(test_boot_from_disk),
	    T(test_a_disk_that_does_not_boot),
	    T(test_a_guest_that_dies),
	    T(test_a_serial_pattern),
	    T(test_powerdown_and_hung_qemu),
	    T(test_stop_while_somebody_waits),
	    T(test_what_cannot_start),
	    T(test_a_foreign_definition),
	    T(test_kvm_that_is_there_but_no_good),
	    T(test_qemu_that_dies_of_kvm),
	    T(test_unprivileged_over_nbd),
	    T(test_it_outlives_its_starter),
	    T(test_a_pid_that_is_somebody_elses),
	};
	const char *out = getenv("GUEST_OUT"), *tmp = getenv("TMPDIR");
	char script[512];

	if (!process_have("qemu-system-x86_64")) {
		(void)printf("skipped: qemu-system-x86_64 is not there\n");
		return 77;
	}
	if (out != NULL)
		guest_out = strdup(out);
	else if (asprintf(&guest_out, "%s/locum-guest/out", tmp == NULL ? "/tmp" : tmp) < 0)
		abort();
	(void)snprintf(script, sizeof script, "%s/tests/guest/build-guest.sh %s >&2",
	               LOCUM_SOURCE_DIR, guest_out);
	if (system(script) != 0) {
		(void)printf("without the test guest: %s\n", script);
		free(guest_out);
		guest_out = NULL;
	}
	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}

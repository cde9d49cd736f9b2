/* image.c: VMs that are off, through hypervisor.h, with real qemu-nbd and QEMU. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/image.h"
#include "agent/hypervisor/source.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "tests/lib/process.h"
#include "tests/lib/unit.h"

enum { MIB = 1 << 20, SIZE = 8 * MIB };

struct test {
	uv_loop_t loop;
	char *dir, *raw, *qcow2;
	struct definition *def;
	struct hv *hv;
	struct hv_take take;
	unsigned done, closed, events;
	struct lc_err err;
	char event[200];
	pid_t qemu;
};

static void
nap_ms(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static void
on_done(void *arg, const struct lc_err *err)
{
	struct test *t = arg;

	t->done++;
	t->err = *err;
	uv_stop(&t->loop);
}

static void
on_event(void *arg, struct hv *hv, enum hv_event ev, const char *why)
{
	struct test *t = arg;

	(void)hv;
	assert_int_equal(ev, HV_EV_SNAPSHOT_LOST);
	t->events++;
	(void)snprintf(t->event, sizeof t->event, "%s", why);
	uv_stop(&t->loop);
}

static void
on_closed(void *arg)
{
	struct test *t = arg;

	t->closed++;
}

/* The end of a call that was started with rc. */
static int
wait_done(struct test *t, int rc, const struct lc_err *e)
{
	unsigned before = t->done;

	if (rc != 0) {
		t->err = *e;
		return rc;
	}
	while (t->done == before)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	if (t->err.code != LC_OK)
		print_message("  %s\n", t->err.msg);
	return (int)t->err.code;
}

static int
prepare(struct test *t)
{
	struct lc_err e = LC_ERR_INIT;

	return wait_done(t, hv_prepare(t->hv, on_done, t, &e), &e);
}

static int
take(struct test *t)
{
	struct lc_err e = LC_ERR_INIT;

	t->take = (struct hv_take){.hv = t->hv};
	return wait_done(t, hv_take(&t->take, 1, on_done, t, &e), &e);
}

static int
still_valid(struct test *t)
{
	struct lc_err e = LC_ERR_INIT;

	return wait_done(t, hv_still_valid(t->hv, on_done, t, &e), &e);
}

static int
release(struct test *t)
{
	struct lc_err e = LC_ERR_INIT;

	return wait_done(t, hv_release(t->hv, on_done, t, &e), &e);
}

static int
end(struct test *t)
{
	struct lc_err e = LC_ERR_INIT;

	return wait_done(t, hv_end(t->hv, HV_COMMIT, on_done, t, &e), &e);
}

static void
run(const char *const *argv)
{
	assert_int_equal(process_run(argv), 0);
}
#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

static void
add_disk(struct test *t, const char *name, const char *format, const char *path)
{
	assert_int_equal(definition_set(t->def, "disk", name, "format", format, NULL), 0);
	assert_int_equal(definition_set(t->def, "disk", name, "path", path, NULL), 0);
}

static void
open_hv(struct test *t)
{
	struct hv_target target = {.vm = "web01",
	                           .def = t->def,
	                           .run_dir = t->dir,
	                           .scratch_dir = t->dir,
	                           .tag = "0123456789abcdef"};
	struct lc_err e = LC_ERR_INIT;

	if (hv_open(&t->loop, &target, on_event, t, &t->hv, &e) != 0)
		fail_msg("%s", e.msg);
}

static int
setup(void **state)
{
	struct test *t = calloc(1, sizeof *t);

	*state = t;
	t->dir = process_tmpdir();
	t->raw = process_path(t->dir, "a, b.raw"); /* a comma must not matter */
	t->qcow2 = process_path(t->dir, "c\"d.qcow2");
	t->def = definition_new();
	RUN("qemu-img", "create", "-q", "-f", "raw", t->raw, "8M");
	RUN("qemu-img", "create", "-q", "-f", "qcow2", t->qcow2, "8M");
	RUN("qemu-io", "-f", "raw", "-c", "write -q -P 0x11 1M 1M", t->raw);
	RUN("qemu-io", "-f", "qcow2", "-c", "write -q -P 0x22 2M 1M", t->qcow2);
	nap_ms(60);
	add_disk(t, "vda", "raw", t->raw);
	add_disk(t, "vdb", "qcow2", t->qcow2);
	return uv_loop_init(&t->loop);
}

static int
teardown(void **state)
{
	struct test *t = *state;
	int rc;

	if (t->hv != NULL)
		hv_close(t->hv, on_closed, t);
	while (uv_run(&t->loop, UV_RUN_DEFAULT) != 0)
		continue;
	process_stop(t->qemu);
	rc = uv_loop_close(&t->loop);
	dir_remove(t->dir);
	free(t->dir);
	free(t->raw);
	free(t->qcow2);
	lc_free(t->def);
	free(t);
	return rc;
}

/* A byte of a disk of the snapshot; -1 where it can't be read. */
static int
byte_at(struct test *t, size_t i, uint64_t off)
{
	const struct hv_source *x = &t->take.snapshot->sources[i];
	struct source_opts o = {.name = x->disk->name,
	                        .socket = x->socket,
	                        .file = *x->socket == '\0' ? &x->file : NULL,
	                        .export_name = x->export_name};
	struct lc_err e = LC_ERR_INIT;
	struct source *s;
	uint8_t buf[512];
	int rc;

	assert_int_equal(wait_done(t, source_open(&t->loop, &o, on_done, t, &s, &e), &e), 0);
	assert_int_equal(source_size(s), SIZE);
	rc = wait_done(t, source_read(s, buf, 512, off, on_done, t, &e), &e);
	source_close(s, NULL, NULL);
	return rc == 0 ? buf[0] : -1;
}

static void
test_life_of_a_point(void **state)
{
	struct test *t = *state;
	const struct hv_vm *vm;
	unsigned round;

	open_hv(t);
	assert_int_equal(prepare(t), 0);
	vm = hv_vm(t->hv);
	assert_int_equal(vm->ndisks, 2);
	assert_false(vm->running);
	assert_string_equal(vm->way, "offline");
	assert_string_equal(vm->disks[1].name, "vdb");
	assert_int_equal(vm->disks[1].size, SIZE);
	assert_int_equal(definition_disk(vm->def, "vdb")->size, SIZE);
	for (round = 0; round < 3; round++) {
		assert_int_equal(take(t), 0);
		assert_int_equal(t->take.snapshot->nsources, 2);
		assert_int_equal(t->take.snapshot->sources[0].changes, HV_CHANGES_UNKNOWN);
		/* The raw one by itself, the other by a server. */
		assert_string_equal(t->take.snapshot->sources[0].socket, "");
		assert_string_not_equal(t->take.snapshot->sources[1].socket, "");
		assert_int_equal(byte_at(t, 0, MIB), 0x11);
		assert_int_equal(byte_at(t, 1, 2 * MIB), 0x22);
		assert_int_equal(byte_at(t, 1, 0), 0);
		assert_int_equal(still_valid(t), 0);
		assert_int_equal(release(t), 0);
		assert_int_equal(release(t), 0);
		assert_int_equal(end(t), 0);
	}
	assert_int_equal(t->events, 0);
}

static void
test_excluded_and_missing_images(void **state)
{
	struct test *t = *state;

	assert_int_equal(definition_set(t->def, "disk", "gone", "path", "/nonexistent/x", NULL), 0);
	assert_int_equal(definition_set(t->def, "disk", "k", "role", "kernel", NULL), 0);
	assert_int_equal(definition_set(t->def, "disk", "nowhere", "format", "raw", NULL), 0);
	assert_int_equal(definition_set(t->def, "disk", "locked", "format", "qcow2", NULL), 0);
	definition_leave_out(t->def, "encryption of disk locked", "the guest sees it");
	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_int_equal(hv_vm(t->hv)->ndisks, 5); /* a kernel is no disk */
	assert_non_null(strstr(hv_vm(t->hv)->disks[3].reason, "start the VM, or name it"));
	assert_non_null(strstr(hv_vm(t->hv)->disks[4].reason, "it is encrypted"));
	assert_int_equal(hv_exclude(t->hv, "nowhere", NULL), 0);
	assert_int_equal(hv_exclude(t->hv, "locked", NULL), 0);
	assert_false(hv_vm(t->hv)->disks[2].capturable);
	assert_non_null(strstr(hv_vm(t->hv)->disks[2].reason, "/nonexistent/x"));
	assert_int_equal(take(t), LC_ENOTSUP);
	assert_non_null(strstr(t->err.msg, "gone"));
	assert_int_equal(hv_exclude(t->hv, "gone", NULL), 0);
	assert_int_equal(hv_exclude(t->hv, "vda", NULL), 0);
	assert_int_equal(take(t), 0);
	assert_int_equal(t->take.snapshot->nsources, 1);
	assert_int_equal(byte_at(t, 0, 2 * MIB), 0x22);
	assert_int_equal(release(t), 0);
}

static void
test_a_wrong_format(void **state)
{
	struct test *t = *state;

	add_disk(t, "vda", "qcow2", t->raw);
	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_false(hv_vm(t->hv)->disks[0].capturable);
	assert_non_null(strstr(hv_vm(t->hv)->disks[0].reason, "not a qcow2 image"));
	assert_int_equal(take(t), LC_ENOTSUP);
}

static void
test_a_size_that_is_none(void **state)
{
	struct test *t = *state;
	int fd = open(t->qcow2, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "\xff", 1, 24), 1);
	(void)close(fd);
	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_false(hv_vm(t->hv)->disks[1].capturable);
	assert_non_null(strstr(hv_vm(t->hv)->disks[1].reason, "qcow2 header is damaged"));
}

static void
test_a_broken_image(void **state)
{
	struct test *t = *state;
	int fd = open(t->qcow2, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "\xff\xff\xff\xff", 4, 4), 4); /* version */
	(void)close(fd);
	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_int_equal(take(t), LC_EPEER);
	assert_non_null(strstr(t->err.msg, "disk vdb: qemu-nbd ended: qemu-nbd: "));
	/* And nothing is left of the other disk's server. */
	assert_int_equal(hv_exclude(t->hv, "vdb", NULL), 0);
	assert_int_equal(take(t), 0);
	assert_int_equal(release(t), 0);
}

static void
start_qemu(struct test *t, const char *format, const char *path, bool writes)
{
	char *sock = process_path(t->dir, "q");
	char node[512];

	(void)snprintf(node, sizeof node,
	               "{\"driver\":\"%s\",\"node-name\":\"d\",\"read-only\":%s,"
	               "\"file\":{\"driver\":\"file\",\"filename\":\"%s\"}}",
	               format, writes ? "false" : "true", path);
	{
		const char *argv[] = {"qemu-system-x86_64",
		                      "-M",
		                      "q35,accel=tcg",
		                      "-nodefaults",
		                      "-display",
		                      "none",
		                      "-S",
		                      "-blockdev",
		                      node,
		                      "-device",
		                      "virtio-blk-pci,drive=d",
		                      "-qmp",
		                      "unix:q,server=on,wait=off",
		                      NULL};
		char *cwd = getcwd(NULL, 0);

		assert_int_equal(chdir(t->dir), 0);
		t->qemu = process_start(argv);
		assert_true(process_listens(sock, 10000));
		assert_int_equal(chdir(cwd), 0);
		free(cwd);
	}
	while (writes && image_check_unused(path, NULL) ==
	                     0) /* the monitor listens before the images are open */
		nap_ms(20);
	free(sock);
}

static void
test_an_image_in_use(void **state)
{
	struct test *t = *state;

	open_hv(t);
	assert_int_equal(prepare(t), 0);
	start_qemu(t, "raw", t->raw, true);
	assert_int_equal(take(t), LC_EBUSY);
	assert_non_null(strstr(t->err.msg, "the image is in use by another process"));
	process_stop(t->qemu);
	t->qemu = 0;
	assert_int_equal(take(t), 0);
	assert_int_equal(release(t), 0);
}

/* That is no reason to wait, and it is the same the other way round: it may read while we do. */
static void
test_an_image_that_others_read(void **state)
{
	struct test *t = *state;

	open_hv(t);
	assert_int_equal(prepare(t), 0);
	start_qemu(t, "raw", t->raw, false);
	assert_int_equal(take(t), 0);
	RUN("qemu-io", "-r", "-f", "raw", "-c", "read -q -P 0x11 1M 1M", t->raw);
	assert_int_equal(byte_at(t, 0, MIB), 0x11);
	assert_int_equal(still_valid(t), 0);
	assert_int_equal(release(t), 0);
}

/* QEMU's bytes, one by one, held as it holds them. */
static void
test_locks_of_an_image(void **state)
{
	static const struct {
		off_t byte;
		int rc;
	} locks[] = {{100, 0}, {101, LC_EBUSY}, {102, 0},        {103, LC_EBUSY},
	             {201, 0}, {203, 0},        {200, LC_EBUSY}, {204, 0}};
	struct test *t = *state;
	size_t i;

	for (i = 0; i < sizeof locks / sizeof *locks; i++) {
		struct flock l = {
		    .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = locks[i].byte, .l_len = 1};
		int fd = open(t->raw, O_RDONLY | O_CLOEXEC);

		assert_int_equal(fcntl(fd, F_OFD_SETLK, &l), 0);
		assert_int_equal(image_check_unused(t->raw, NULL), locks[i].rc);
		(void)close(fd);
	}
	assert_int_equal(image_check_unused(t->raw, NULL), 0);
}

static void
test_a_raw_image_cut_short(void **state)
{
	struct test *t = *state;
	unsigned i;

	open_hv(t);
	assert_int_equal(prepare(t), 0);
	for (i = 0; i < 2; i++) {
		assert_int_equal(take(t), 0);
		assert_int_equal(byte_at(t, 0, SIZE - 512), 0);
		assert_int_equal(truncate(t->raw, i == 0 ? MIB : SIZE + 512), 0);
		if (i == 0) {
			assert_int_equal(byte_at(t, 0, SIZE - 512), -1);
			assert_int_equal(t->err.code, LC_ECONFLICT);
			assert_non_null(strstr(t->err.msg, t->raw));
			assert_non_null(strstr(t->err.msg, "cut short"));
		}
		assert_int_equal(still_valid(t), LC_ECONFLICT);
		assert_non_null(strstr(t->err.msg, "vda"));
		assert_int_equal(release(t), 0);
		assert_int_equal(end(t), 0);
		assert_int_equal(truncate(t->raw, SIZE), 0);
		nap_ms(60);
	}
	assert_int_equal(truncate(t->raw, 2 * SIZE), 0);
	assert_int_equal(take(t), LC_ECONFLICT); /* it was prepared with another size */
	assert_non_null(strstr(t->err.msg, "was resized from 8388608 to 16777216 bytes"));
}

static void
test_a_raw_image_that_is_replaced(void **state)
{
	struct test *t = *state;
	char *other = process_path(t->dir, "other");

	RUN("cp", "-p", t->raw, other);
	nap_ms(60);
	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_int_equal(take(t), 0);
	assert_int_equal(rename(other, t->raw), 0);
	assert_int_equal(byte_at(t, 0, MIB), 0x11); /* of what was opened */
	assert_int_equal(still_valid(t), LC_ECONFLICT);
	assert_int_equal(release(t), 0);
	free(other);
}

static void
test_what_is_no_image(void **state)
{
	struct test *t = *state;
	char *fifo = process_path(t->dir, "fifo");

	RUN("mkfifo", fifo);
	add_disk(t, "vda", "raw", fifo);
	open_hv(t);
	assert_int_equal(prepare(t), 0); /* and nobody waits for a writer */
	assert_false(hv_vm(t->hv)->disks[0].capturable);
	assert_non_null(strstr(hv_vm(t->hv)->disks[0].reason, "neither a file nor a block device"));
	free(fifo);
}

static void
test_a_vm_that_starts_meanwhile(void **state)
{
	struct test *t = *state;
	unsigned i;

	RUN("cp", "--sparse=always", t->qcow2,
	    t->raw); /* another qcow2, for a VM that may open it */
	add_disk(t, "vda", "qcow2", t->raw);
	nap_ms(60);
	open_hv(t);
	assert_int_equal(prepare(t), 0);
	for (i = 0; i < 2; i++) {
		assert_int_equal(take(t), 0);
		/* It may write although its image is being read ... */
		if (i == 0)
			RUN("qemu-io", "-f", "qcow2", "-c", "write -q -P 9 0 64k", t->qcow2);
		else
			RUN("touch", t->qcow2);
		/* ... and we notice. */
		assert_int_equal(still_valid(t), LC_ECONFLICT);
		assert_non_null(strstr(t->err.msg, "vdb"));
		assert_int_equal(release(t), 0);
		assert_int_equal(end(t), 0);
	}
}

/* The VM has a node of its own for it, as libvirt's have: neither locks nor times are of ours. */
static void
test_a_vm_that_starts_on_a_block_device(void **state)
{
	struct test *t = *state;
	char cmd[300], device[64] = "", *node = process_path(t->dir, "node");
	struct stat st;
	unsigned i;
	FILE *f;

	(void)snprintf(cmd, sizeof cmd, "losetup --find --show '%s' 2>&1", t->raw);
	f = popen(cmd, "r");
	assert_non_null(fgets(device, sizeof device, f));
	if (pclose(f) != 0) {
		print_message("no loop devices here: %s", device);
		skip();
	}
	device[strcspn(device, "\n")] = '\0';
	assert_int_equal(stat(device, &st), 0);
	assert_int_equal(mknod(node, S_IFBLK | 0600, st.st_rdev), 0);
	add_disk(t, "vda", "raw", device);
	open_hv(t);
	assert_int_equal(prepare(t), 0);
	for (i = 0; i < 3; i++) {
		assert_int_equal(take(t), 0);
		assert_int_equal(byte_at(t, 0, MIB), i == 0 ? 0x11 : 9);
		/* Through the page cache, and past it. */
		if (i < 2)
			RUN("qemu-io", "-f", "raw", "-t", i == 0 ? "writeback" : "none", "-c",
			    "write -q -P 9 1M 64k", node);
		assert_int_equal(still_valid(t), i < 2 ? LC_ECONFLICT : 0);
		assert_int_equal(release(t), 0);
		assert_int_equal(end(t), 0);
	}
	RUN("losetup", "-d", device);
	free(node);
}

static void
test_a_vm_that_only_opens_its_image(void **state)
{
	struct test *t = *state;

	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_int_equal(take(t), 0);
	start_qemu(t, "raw", t->raw, true); /* paused: writes nothing */
	assert_int_equal(still_valid(t), LC_ECONFLICT);
	assert_int_equal(release(t), 0);
}

static pid_t
find_server(const struct test *t)
{
	char cmd[300], line[32] = "";
	FILE *f;

	(void)snprintf(cmd, sizeof cmd, "pgrep -f -- '--socket=%s/img1'", t->dir);
	f = popen(cmd, "r");
	assert_non_null(fgets(line, sizeof line, f));
	(void)pclose(f);
	return (pid_t)atol(line);
}

static void
test_a_killed_server(void **state)
{
	struct test *t = *state;

	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_int_equal(take(t), 0);
	assert_int_equal(kill(find_server(t), SIGKILL), 0);
	while (t->events == 0)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	assert_string_equal(t->event, "disk vdb: qemu-nbd ended");
	assert_int_equal(still_valid(t), LC_ECONFLICT);
	assert_int_equal(release(t), 0);
	assert_int_equal(take(t), LC_EINVAL); /* first end */
	assert_int_equal(end(t), 0);
	assert_int_equal(take(t), 0);
	assert_int_equal(release(t), 0);
}

static void
test_servers_die_with_us(void **state)
{
	struct test *t = *state;
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct test c = *t;

		(void)uv_loop_init(&c.loop);
		open_hv(&c);
		if (prepare(&c) != 0 || take(&c) != 0)
			_exit(1);
		(void)kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	nap_ms(200);
	{
		char cmd[300];

		(void)snprintf(cmd, sizeof cmd, "pgrep -f -- '--socket=%s/[i]mg' >/dev/null",
		               t->dir);
		assert_int_not_equal(system(cmd), 0);
	}
	/* Their sockets are no obstacle. */
	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_int_equal(take(t), 0);
	assert_int_equal(byte_at(t, 0, MIB), 0x11);
	assert_int_equal(release(t), 0);
}

static void
test_close_without_release(void **state)
{
	struct test *t = *state;

	open_hv(t);
	assert_int_equal(prepare(t), 0);
	assert_int_equal(take(t), 0);
	/* teardown closes it, and the loop must be empty then */
}

static void
test_stamps(void **state)
{
	struct test *t = *state;
	char a[128], b[128];
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(image_stamp(t->raw, "raw", a, sizeof a, NULL), LC_EBUSY); /* too young */
	assert_string_equal(a, "");
	RUN("touch", "-d", "2026-01-01T00:00:00", t->raw);
	assert_int_equal(image_stamp(t->raw, "raw", a, sizeof a, &e), 0);
	assert_int_equal(image_stamp(t->raw, "raw", b, sizeof b, &e), 0);
	assert_string_equal(a, b);
	nap_ms(20);
	RUN("qemu-io", "-f", "raw", "-c", "write -q -P 3 0 4k", t->raw);
	RUN("touch", "-d", "2026-01-01T00:00:00", t->raw); /* ctime cannot be set back */
	assert_int_equal(image_stamp(t->raw, "raw", b, sizeof b, &e), 0);
	assert_string_not_equal(a, b);
	assert_int_equal(image_stamp("/dev/null", "raw", b, sizeof b, NULL), LC_ENOTSUP);
	assert_int_equal(image_stamp("/nonexistent", "raw", b, sizeof b, NULL), LC_ENOENT);
	assert_int_equal(image_stamp(t->raw, "raw", b, 10, NULL), LC_EINVAL);
	assert_string_equal(b, "");
}

/* What an image stands on is written to, and the image is not. */
static void
test_stamps_of_chains(void **state)
{
	struct test *t = *state;
	char *base = process_path(t->dir, "base.qcow2"), *mid = process_path(t->dir, "mid.qcow2"),
	     *top = process_path(t->dir, "top.qcow2"), *data = process_path(t->dir, "data.qcow2");
	char a[128], b[128];
	struct lc_err e = LC_ERR_INIT;

	RUN("qemu-img", "create", "-q", "-f", "qcow2", base, "1M");
	RUN("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", mid);
	RUN("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", mid, top);
	RUN("touch", "-d", "2026-01-01T00:00:00", mid, top);
	assert_int_equal(image_stamp(top, "qcow2", a, sizeof a, NULL),
	                 LC_EBUSY); /* too young below */
	RUN("touch", "-d", "2026-01-01T00:00:00", base);
	assert_int_equal(image_stamp(top, "qcow2", a, sizeof a, &e), 0);
	assert_int_equal(image_stamp(top, "qcow2", b, sizeof b, &e), 0);
	assert_string_equal(a, b);
	nap_ms(20);
	RUN("qemu-io", "-f", "qcow2", "-c", "write -q -P 3 0 4k", base);
	RUN("touch", "-d", "2026-01-01T00:00:00", base);
	assert_int_equal(image_stamp(top, "qcow2", b, sizeof b, &e), 0);
	assert_string_not_equal(a, b);
	/* A raw disk's first bytes are its guest's. */
	assert_int_equal(image_stamp(top, "raw", a, sizeof a, &e), 0);
	assert_string_not_equal(a, b);
	/* What can't be followed has no stamp, so it is compared each time. */
	assert_int_equal(unlink(base), 0);
	assert_int_not_equal(image_stamp(top, "qcow2", b, sizeof b, NULL), 0);
	assert_string_equal(b, "");
	RUN("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=external.raw", data, "1M");
	RUN("touch", "-d", "2026-01-01T00:00:00", data);
	assert_int_equal(image_stamp(data, "qcow2", b, sizeof b, NULL), LC_ENOTSUP);
	free(base);
	free(mid);
	free(top);
	free(data);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_life_of_a_point),
	    T(test_excluded_and_missing_images),
	    T(test_a_wrong_format),
	    T(test_a_size_that_is_none),
	    T(test_a_broken_image),
	    T(test_an_image_in_use),
	    T(test_an_image_that_others_read),
	    T(test_locks_of_an_image),
	    T(test_a_raw_image_cut_short),
	    T(test_a_raw_image_that_is_replaced),
	    T(test_what_is_no_image),
	    T(test_a_vm_that_starts_meanwhile),
	    T(test_a_vm_that_starts_on_a_block_device),
	    T(test_a_vm_that_only_opens_its_image),
	    T(test_a_killed_server),
	    T(test_servers_die_with_us),
	    T(test_close_without_release),
	    T(test_stamps),
	    T(test_stamps_of_chains),
	};

	if (!process_have("qemu-nbd") || !process_have("qemu-system-x86_64")) {
		(void)printf("skipped: qemu-nbd or qemu-system-x86_64 is not there\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * hv_cycle: the life of a snapshot by hand, for shell tests.
 *
 *   hv_cycle [--run DIR] [--scratch DIR] [--tag HEX] [--scratch-max BYTES] [--copy-timeout S]
 *            [--events FILE] [--by-job] [--push-full] [--debug] --qmp SOCKET... COMMAND...
 *
 * Commands, in order, on all VMs (hv_take takes them together):
 *
 *   prepare              disks              exclude=DISK
 *   note                 keep what prepare saw: "note <vm> yes|no"
 *   again                close the VM and open it anew
 *   glance               "glance <vm> same|different" than what was kept
 *   take=POINT[,SINCE]   (ids: any text, padded with zeros to 16 bytes)
 *   read=DIR             nbdcopy every source to DIR/<vm>-<disk>.raw, the changed ranges to
 *                        DIR/<vm>-<disk>.map; of one that is "superset copied" the image holds
 *                        these ranges only
 *   valid  release  end=commit|rollback|lost  close
 *   sh=TEXT              run a shell command while the loop goes on
 *   sleep=MS             event=lost|gone (wait for it, 10 s at most)
 *   scratch              print the bytes of scratch in use
 *   hang  unhang         ask for much of the first source and never read the answers; close that
 *                        connection
 *   godown=DIR           every access to that file system fails from now on
 *
 * A command with '!' before it must fail.  Every result is a line on stdout; exit status 0 if all
 * went as said.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <stdarg.h>
#include <libnbd.h>
#include <uv.h>

#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/source.h"
#include "store/base/clock.h"
#include "store/base/log.h"

#define VMS_MAX 8

struct vm {
	struct hv *hv;
	struct hv_target target;
	char name[16];
};

static struct {
	uv_loop_t loop;
	struct vm vms[VMS_MAX];
	size_t nvms;
	struct hv_take set[VMS_MAX];
	char **commands;
	size_t ncommands, at;
	size_t pending;
	bool must_fail, failed;
	struct lc_err err;
	int64_t began_ns;
	uv_timer_t timer, soon;
	uv_process_t process;
	bool lost, gone, taken;
	const char *awaited;
	const char *events;
	char dir[256];
	struct nbd_handle *hung;
	char *hung_buffer;
	size_t read_vm, read_source;
} c;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void next_command(void);
static void read_next(void);

static void
say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vprintf(fmt, ap); /* NOLINT(clang-analyzer-valist.Uninitialized) */
	va_end(ap);
	(void)fflush(stdout);
}

static void
finish(void)
{
	double ms = (double)(clock_mono_ns() - c.began_ns) / 1e6;
	const char *command = c.commands[c.at];
	bool failed = c.err.code != LC_OK;

	if (failed)
		say("%s %s: error %d: %s (%.2f ms)\n", c.must_fail ? "ok" : "FAIL", command,
		    c.err.code, c.err.msg, ms);
	else
		say("%s %s (%.2f ms)\n", c.must_fail ? "FAIL" : "ok", command, ms);
	if (failed != c.must_fail)
		c.failed = true;
	for (size_t v = 0; !failed && v < c.nvms && strcmp(command, "glance") == 0; v++)
		say("glance %s %s\n", c.vms[v].name, hv_same(c.vms[v].hv) ? "same" : "different");
	if (!failed && strncmp(command, "take=", 5) == 0) {
		for (size_t v = 0; v < c.nvms; v++)
			say("pause %s %" PRId64 " us\n", c.vms[v].name,
			    c.set[v].snapshot->pause_ns / 1000);
	}
	c.at++;
	if (failed && !c.must_fail) {
		uv_stop(&c.loop);
		return;
	}
	next_command();
}

static void
on_soon(uv_timer_t *t)
{
	(void)t;
	finish();
}

/* End the command from the loop, not from inside the call that began it. */
static void
finish_soon(void)
{
	(void)uv_timer_start(&c.soon, on_soon, 0, 0);
}

static void
on_one(void *arg, const struct lc_err *err)
{
	(void)arg;
	if (c.err.code == LC_OK)
		c.err = *err;
	if (--c.pending == 0)
		finish();
}

static void
on_event(void *arg, struct hv *hv, enum hv_event ev, const char *why)
{
	struct vm *vm = arg;

	(void)hv;
	say("event %s %s: %s\n", vm->name, ev == HV_EV_GONE ? "gone" : "lost", why);
	if (ev == HV_EV_GONE)
		c.gone = true;
	else
		c.lost = true;
	if (c.awaited != NULL && ((c.lost && strcmp(c.awaited, "lost") == 0) ||
	                          (c.gone && strcmp(c.awaited, "gone") == 0))) {
		c.awaited = NULL;
		(void)uv_timer_stop(&c.timer);
		finish_soon();
	}
}

static void
on_timer(uv_timer_t *t)
{
	(void)t;
	if (c.awaited != NULL)
		(void)lc_fail(&c.err, LC_ETIMEDOUT, 0, "no event %s", c.awaited);
	c.awaited = NULL;
	finish();
}

static void
on_process_closed(uv_handle_t *h)
{
	(void)h;
	if (c.pending > 0)
		read_next();
	else
		finish_soon();
}

static void
on_process_exit(uv_process_t *p, int64_t status, int sig)
{
	if ((status != 0 || sig != 0) && c.err.code == LC_OK)
		(void)lc_fail(&c.err, LC_EIO, 0, "exit status %" PRId64 ", signal %d", status, sig);
	uv_close((uv_handle_t *)p, on_process_closed);
}

static void
spawn(const char *text)
{
	char *shell[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
	                 (char *)(uintptr_t)text, NULL};
	uv_stdio_container_t io[3] = {{.flags = UV_IGNORE},
	                              {.flags = UV_INHERIT_FD, .data.fd = 1},
	                              {.flags = UV_INHERIT_FD, .data.fd = 2}};
	uv_process_options_t o = {.exit_cb = on_process_exit,
	                          .file = "/bin/sh",
	                          .args = shell,
	                          .stdio = io,
	                          .stdio_count = 3};
	int rc = uv_spawn(&c.loop, &c.process, &o);

	if (rc != 0) {
		(void)lc_fail(&c.err, LC_EIO, 0, "spawn: %s", uv_strerror(rc));
		c.pending = 0;
		finish_soon();
	}
}

/* ---- a source that is a file, through the product's own reader ---- */

static struct {
	struct source *source;
	uint64_t size, at;
	FILE *map;
	int image;
	struct source_extent x[512];
	size_t n, i;
	uint64_t off;
	char buf[SOURCE_READ_MAX];
} file;

static void file_next(void);

static void
on_file_closed(void *arg)
{
	(void)arg;
	(void)fclose(file.map);
	(void)close(file.image);
	read_next();
}

static void
file_step(const struct lc_err *err)
{
	if (err->code != LC_OK && c.err.code == LC_OK)
		c.err = *err;
	if (c.err.code != LC_OK || file.at == file.size)
		source_close(file.source, on_file_closed, NULL);
	else
		file_next();
}

static void
on_file_read(void *arg, const struct lc_err *err)
{
	struct source_extent *x = &file.x[file.i];
	uint64_t n = x->len < sizeof file.buf ? x->len : sizeof file.buf;

	(void)arg;
	if (err->code == LC_OK &&
	    pwrite(file.image, file.buf, (size_t)n, (off_t)x->off) != (ssize_t)n)
		(void)lc_fail_errno(&c.err, "image");
	x->off += n;
	x->len -= n;
	file.at = x->off;
	file_step(err);
}

static void
on_file_extents(void *arg, const struct source_extent *x, size_t n, const struct lc_err *err)
{
	(void)arg;
	file.n = n < 512 ? n : 512;
	file.i = 0;
	memcpy(file.x, x, file.n * sizeof *x);
	for (size_t i = 0; i < file.n; i++)
		(void)fprintf(file.map, "%" PRIu64 " %" PRIu64 " %d changed\n", x[i].off, x[i].len,
		              x[i].data || x[i].zero);
	file_step(err);
}

static void
file_next(void)
{
	int rc;

	/* What is no data reads as zeros, or did not change: it is left as it is, a hole. */
	while (file.i < file.n &&
	       (!file.x[file.i].data || file.x[file.i].zero || file.x[file.i].len == 0)) {
		file.at = file.x[file.i].off + file.x[file.i].len;
		file.i++;
	}
	if (file.i < file.n) {
		uint64_t len = file.x[file.i].len;

		rc = source_read(file.source, file.buf,
		                 (uint32_t)(len < sizeof file.buf ? len : sizeof file.buf),
		                 file.x[file.i].off, on_file_read, NULL, &c.err);
	} else if (file.at < file.size) {
		rc = source_extents(file.source, file.at, file.size - file.at, on_file_extents,
		                    NULL, &c.err);
	} else {
		rc = LC_ECANCELED;
	}
	if (rc != 0)
		source_close(file.source, on_file_closed, NULL);
}

static void
on_file_open(void *arg, const struct lc_err *err)
{
	(void)arg;
	file_step(err);
}

static void
read_file(const struct hv_source *s, const char *vm)
{
	struct source_opts o = {
	    .name = s->disk->name, .file = &s->file, .dirty_context = s->dirty_context};
	char path[400];

	file.size = s->file.size;
	file.at = 0;
	file.n = file.i = 0;
	(void)snprintf(path, sizeof path, "%s/%s-%s.raw", c.dir, vm, s->disk->name);
	file.image = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	(void)snprintf(path, sizeof path, "%s/%s-%s.map", c.dir, vm, s->disk->name);
	file.map = fopen(path, "we");
	if (file.image < 0 || file.map == NULL || ftruncate(file.image, (off_t)file.size) != 0 ||
	    source_open(&c.loop, &o, on_file_open, NULL, &file.source, &c.err) != 0) {
		(void)lc_fail(&c.err, LC_EIO, 0, "%s cannot be read", path);
		c.pending = 0;
		finish_soon();
	}
}

/* One source after the other. */
static void
read_next(void)
{
	char text[1600];
	const struct hv_source *s;
	const char *vm;

	while (c.read_vm < c.nvms && c.read_source >= c.set[c.read_vm].snapshot->nsources) {
		c.read_vm++;
		c.read_source = 0;
	}
	if (c.read_vm == c.nvms || c.err.code != LC_OK) {
		c.pending = 0;
		finish_soon();
		return;
	}
	c.pending = 1;
	s = &c.set[c.read_vm].snapshot->sources[c.read_source++];
	vm = c.vms[c.read_vm].name;
	if (s->changes == HV_CHANGES_UNKNOWN)
		say("source %s %s unknown: %s\n", vm, s->disk->name, s->why_unknown);
	else
		say("source %s %s superset%s\n", vm, s->disk->name,
		    s->socket[0] == '\0' ? " copied" : "");
	if (s->socket[0] == '\0') {
		read_file(s, vm);
		return;
	}
	(void)snprintf(text, sizeof text,
	               "u='nbd+unix:///%s?socket=%s'; f='%s/%s-%s'; rm -f \"$f.raw\" \"$f.map\"; "
	               "nbdcopy \"$u\" \"$f.raw\" && if [ -n '%s' ]; then nbdinfo --map='%s' "
	               "\"$u\" >\"$f.map\"; fi",
	               s->export_name, s->socket, c.dir, vm, s->disk->name, s->dirty_context,
	               s->dirty_context);
	spawn(text);
}

static void
parse_id(uint8_t id[HV_ID_SIZE], const char *s, size_t n)
{
	memset(id, 0, HV_ID_SIZE);
	memcpy(id, s, n < HV_ID_SIZE ? n : HV_ID_SIZE);
}

static int
start_take(const char *arg)
{
	const char *comma = strchr(arg, ',');
	size_t n = comma == NULL ? strlen(arg) : (size_t)(comma - arg), v;

	for (v = 0; v < c.nvms; v++) {
		c.set[v] = (struct hv_take){.hv = c.vms[v].hv, .have_since = comma != NULL};
		parse_id(c.set[v].point, arg, n);
		if (comma != NULL)
			parse_id(c.set[v].since, comma + 1, strlen(comma + 1));
	}
	c.pending = 1;
	return hv_take(c.set, c.nvms, on_one, NULL, &c.err);
}

static void
print_disks(void)
{
	for (size_t v = 0; v < c.nvms; v++) {
		const struct hv_vm *vm = hv_vm(c.vms[v].hv);

		say("vm %s way %s running %d\n", c.vms[v].name, vm->way, vm->running);
		for (size_t i = 0; i < vm->ndisks; i++)
			say("disk %s %s size %" PRIu64 " role %d %s %s%s\n", c.vms[v].name,
			    vm->disks[i].name, vm->disks[i].size, vm->disks[i].role,
			    vm->disks[i].capturable ? "capturable" : "refused", vm->disks[i].path,
			    vm->disks[i].reason);
	}
}

static void
hang(void)
{
	const struct hv_source *s = &c.set[0].snapshot->sources[0];

	c.hung = nbd_create();
	c.hung_buffer = malloc(64u << 20);
	if (c.hung == NULL || c.hung_buffer == NULL ||
	    nbd_set_export_name(c.hung, s->export_name) != 0 ||
	    nbd_connect_unix(c.hung, s->socket) != 0) {
		(void)lc_fail(&c.err, LC_EIO, 0, "%s", nbd_get_error());
		return;
	}
	for (uint64_t i = 0; i < 16; i++)
		(void)nbd_aio_pread(c.hung, c.hung_buffer + (i << 20), 1u << 20, i << 20,
		                    NBD_NULL_COMPLETION, 0);
}

static void
unhang(void)
{
	nbd_close(c.hung);
	free(c.hung_buffer);
	c.hung = NULL;
	c.hung_buffer = NULL;
}

static int
each(int (*f)(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e))
{
	size_t v;

	c.pending = c.nvms;
	for (v = 0; v < c.nvms; v++) {
		if (f(c.vms[v].hv, on_one, NULL, &c.err) != 0)
			c.pending--;
	}
	return c.pending == 0 ? -1 : 0;
}

static enum hv_end how;

static int
do_end(struct hv *hv, hv_done_cb *done, void *arg, struct lc_err *e)
{
	return hv_end(hv, how, done, arg, e);
}

static void
open_anew(void *arg)
{
	struct vm *vm = arg;
	struct lc_err e = LC_ERR_INIT;

	if (hv_open(&c.loop, &vm->target, on_event, vm, &vm->hv, &e) != 0)
		abort();
	on_one(NULL, &e);
}

static void
close_all(void)
{
	c.pending = c.nvms;
	for (size_t v = 0; v < c.nvms; v++)
		hv_close(c.vms[v].hv, open_anew, &c.vms[v]);
}

/* Commands that are over when they return; false: not one of them. */
static bool
at_once(const char *command, const char *arg)
{
	if (strcmp(command, "disks") == 0) {
		print_disks();
	} else if (strncmp(command, "exclude=", 8) == 0) {
		for (size_t v = 0; v < c.nvms; v++)
			(void)hv_exclude(c.vms[v].hv, arg, &c.err);
	} else if (strcmp(command, "scratch") == 0) {
		for (size_t v = 0; v < c.nvms; v++)
			say("scratch %s %" PRIu64 "\n", c.vms[v].name,
			    hv_scratch_used(c.vms[v].hv));
	} else if (strcmp(command, "note") == 0) {
		for (size_t v = 0; v < c.nvms; v++)
			say("note %s %s\n", c.vms[v].name, hv_note(c.vms[v].hv) ? "yes" : "no");
	} else if (strcmp(command, "hang") == 0) {
		hang();
	} else if (strcmp(command, "unhang") == 0) {
		unhang();
	} else if (strncmp(command, "godown=", 7) == 0) {
		uint32_t how_down = 2; /* without writing back what is dirty */
		int fd = open(arg, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0 || ioctl(fd, _IOR('X', 125, uint32_t), &how_down) != 0)
			(void)lc_fail_errno(&c.err, "%s", arg);
		if (fd >= 0)
			(void)close(fd);
	} else {
		return false;
	}
	return true;
}

static bool
is_event(const char *name)
{
	return (c.lost && strcmp(name, "lost") == 0) || (c.gone && strcmp(name, "gone") == 0);
}

static int
begin(const char *command, const char *arg)
{
	if (strcmp(command, "prepare") == 0)
		return each(hv_prepare);
	if (strcmp(command, "glance") == 0)
		return each(hv_glance);
	if (strcmp(command, "again") == 0) {
		close_all();
		return 0;
	}
	if (strncmp(command, "take=", 5) == 0)
		return start_take(arg);
	if (strcmp(command, "valid") == 0)
		return each(hv_still_valid);
	if (strcmp(command, "release") == 0)
		return each(hv_release);
	if (strncmp(command, "end=", 4) == 0) {
		how = strcmp(arg, "commit") == 0     ? HV_COMMIT
		      : strcmp(arg, "rollback") == 0 ? HV_ROLLBACK
		                                     : HV_LOST;
		return each(do_end);
	}
	if (strncmp(command, "read=", 5) == 0) {
		(void)snprintf(c.dir, sizeof c.dir, "%s", arg);
		c.read_vm = c.read_source = 0;
		read_next();
		return 0;
	}
	if (strncmp(command, "sh=", 3) == 0) {
		c.pending = 0;
		spawn(arg);
		return 0;
	}
	if (strncmp(command, "sleep=", 6) == 0)
		return uv_timer_start(&c.timer, on_timer, strtoull(arg, NULL, 10), 0);
	if (strncmp(command, "event=", 6) == 0) {
		if (is_event(arg)) {
			finish_soon();
			return 0;
		}
		c.awaited = arg;
		return uv_timer_start(&c.timer, on_timer, 10000, 0);
	}
	return lc_fail(&c.err, LC_EINVAL, 0, "no such command");
}

static void
next_command(void)
{
	const char *command, *arg;

	if (c.at == c.ncommands) {
		uv_stop(&c.loop);
		return;
	}
	command = c.commands[c.at];
	c.must_fail = *command == '!';
	command += c.must_fail ? 1 : 0;
	arg = strchr(command, '=');
	arg = arg == NULL ? "" : arg + 1;
	lc_err_clear(&c.err);
	c.began_ns = clock_mono_ns();
	if (at_once(command, arg) || begin(command, arg) != 0)
		finish_soon();
}

static void
on_vm_closed(void *arg)
{
	(void)arg;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"run", 1, NULL, 'r'},        {"scratch", 1, NULL, 's'},
	    {"tag", 1, NULL, 't'},        {"scratch-max", 1, NULL, 'm'},
	    {"qmp", 1, NULL, 'q'},        {"copy-timeout", 1, NULL, 'c'},
	    {"by-job", 0, NULL, 'j'},     {"push-full", 0, NULL, 'f'},
	    {"connect-ms", 1, NULL, 'C'}, {"command-ms", 1, NULL, 'd'},
	    {"debug", 0, NULL, 'D'},      {NULL, 0, NULL, 0}};
	struct hv_target t = {.run_dir = "/tmp", .scratch_dir = "/tmp", .tag = "00c0ffee"};
	int o;

	(void)signal(SIGPIPE, SIG_IGN);
	/* NOLINTNEXTLINE(concurrency-mt-unsafe) */
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'r':
			t.run_dir = optarg;
			break;
		case 's':
			t.scratch_dir = optarg;
			break;
		case 't':
			t.tag = optarg;
			break;
		case 'j':
			t.by_job = true;
			break;
		case 'f':
			t.push_full = true;
			break;
		case 'm':
			t.scratch_max = strtoull(optarg, NULL, 10);
			break;
		case 'c':
			t.copy_timeout_s = strtoll(optarg, NULL, 10);
			break;
		case 'C':
			t.connect_timeout_ms = strtoll(optarg, NULL, 10);
			break;
		case 'd':
			t.command_timeout_ms = strtoll(optarg, NULL, 10);
			break;
		case 'D':
			log_set_level(LOG_LV_DEBUG);
			break;
		case 'q':
			if (c.nvms < VMS_MAX)
				c.vms[c.nvms++].target.qmp = optarg;
			break;
		default:
			return 2;
		}
	}
	c.commands = argv + optind;
	c.ncommands = (size_t)(argc - optind);
	(void)uv_loop_init(&c.loop);
	(void)uv_timer_init(&c.loop, &c.timer);
	(void)uv_timer_init(&c.loop, &c.soon);
	for (size_t v = 0; v < c.nvms; v++) {
		struct vm *vm = &c.vms[v];
		const char *qmp = vm->target.qmp;

		(void)snprintf(vm->name, sizeof vm->name, "vm%zu", v);
		vm->target = t;
		vm->target.qmp = qmp;
		vm->target.vm = vm->name;
		vm->target.memo = hv_memo_new();
		if (hv_open(&c.loop, &vm->target, on_event, vm, &vm->hv, &c.err) != 0) {
			say("FAIL open: %s\n", c.err.msg);
			return 1;
		}
	}
	next_command();
	(void)uv_run(&c.loop, UV_RUN_DEFAULT);
	if (c.failed && c.at < c.ncommands)
		say("FAIL: %zu commands not run\n", c.ncommands - c.at);
	/* After a failure the VM is left as it is: the next run must cope. */
	for (size_t v = 0; v < c.nvms && !c.failed; v++)
		hv_close(c.vms[v].hv, on_vm_closed, NULL);
	if (!c.failed) {
		uv_close((uv_handle_t *)&c.timer, NULL);
		uv_close((uv_handle_t *)&c.soon, NULL);
		(void)uv_run(&c.loop, UV_RUN_DEFAULT);
		if (uv_loop_close(&c.loop) != 0) {
			say("FAIL: handles left in the loop\n");
			return 1;
		}
	}
	for (size_t v = 0; v < c.nvms && !c.failed; v++)
		hv_memo_free(c.vms[v].target.memo);
	return c.failed ? 1 : 0;
}

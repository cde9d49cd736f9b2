/*
 * The instant of an image at rest is any moment at which nobody writes to it.  So ARM opens raw
 * images and starts the servers of others, CUT looks that no writer is there and notes how each
 * file looks, and still_valid looks again: the same file, the same times, no writer, the same
 * server.
 *
 * Times of files have the grain of the kernel's tick: a write right after a look may leave the time
 * as it was.  Hence no look is believed before the file has been at rest for a while (SETTLE).
 *
 * A block device has no times: there its size, the locks and the server are all that is looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uv.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/unixsock.h"

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/driver.h"
#include "agent/hypervisor/image.h"
#include "agent/hypervisor/imageformat.h"
#include "agent/hypervisor/overlaid.h"
#include "agent/hypervisor/rawimage.h"
#include "agent/hypervisor/vmstate.h"

#define TICK_MS 10
#define SETTLE_NS (50 * LC_NS_PER_MS)      /* several ticks of any kernel */
#define SETTLE_COARSE_NS (2 * LC_NS_PER_S) /* file systems that only know seconds */
#define DEFAULT_CONNECT_MS 5000
#define WORDS_MAX 400

enum op { OP_NONE = 0, OP_ARM, OP_DROP };

struct server { /* one qemu-nbd, or the image itself */
	struct image *im;
	int raw;   /* a raw image; then there is no process */
	pid_t pid; /* 0: none */
	int pidfd;
	int words; /* its stderr */
	int probe; /* connection that waits for its greeting */
	uv_poll_t poll;
	bool polled; /* the handle is open */
	bool listens;
	char socket[108];
	struct image_look cut; /* how its file looked at CUT */
};

struct image {
	struct driver base; /* first */
	uv_loop_t *loop;
	struct hv_target t;
	struct server servers[HV_DISKS_MAX]; /* index of base.vm.disks */
	uv_timer_t timer;                    /* looks for what ARM waits for */
	enum op op;
	int64_t deadline_ns;
	hv_done_cb *done;
	void *arg;
	bool alive;       /* between CUT and the drop: a server's death is an event */
	unsigned handles; /* not yet closed */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- servers ---- */

static const struct def_disk *
disk_of(const struct image *im, const struct server *s)
{
	return definition_disk(im->t.def, im->base.vm.disks[s - im->servers].name);
}

/* What it said on stderr, in one line. */
static void
words_of(const struct server *s, char *out, size_t n)
{
	ssize_t got = pread(s->words, out, n - 1, 0);
	size_t i;

	out[got > 0 ? got : 0] = '\0';
	for (i = 0; out[i] != '\0'; i++) {
		if ((unsigned char)out[i] < ' ')
			out[i] = out[i + 1] == '\0' ? '\0' : ' ';
	}
}

static int
fail_died(const struct image *im, const struct server *s, struct lc_err *e)
{
	char words[WORDS_MAX];

	words_of(s, words, sizeof words);
	return lc_fail(e, LC_EPEER, 0, "disk %s: qemu-nbd ended: %s",
	               im->base.vm.disks[s - im->servers].name,
	               *words == '\0' ? "it said nothing" : words);
}

/* A handle of ours is closed; the timer's is the last to be asked for. */
static void
handle_gone(struct image *im)
{
	void (*closed)(void *arg) = im->closed;
	void *arg = im->closed_arg;

	if (--im->handles > 0)
		return;
	lc_free(im);
	if (closed != NULL)
		closed(arg);
}

static void
on_timer_closed(uv_handle_t *h)
{
	handle_gone(h->data);
}

static void
on_server_closed(uv_handle_t *h)
{
	struct server *s = h->data;

	s->polled = false;
	fd_close(&s->pidfd);
	handle_gone(s->im);
}

/* Its end: reap it, and forget it. */
static void
reap(struct server *s)
{
	while (waitpid(s->pid, NULL, 0) == -1 && errno == EINTR)
		continue;
	s->pid = 0;
	s->listens = false;
	fd_close(&s->probe);
	(void)unlink(s->socket);
	(void)uv_poll_stop(&s->poll);
	uv_close((uv_handle_t *)&s->poll, on_server_closed);
}

static void arm_look(struct image *im);
static void drop_look(struct image *im);

static void
on_server_end(uv_poll_t *h, int status, int events)
{
	struct server *s = h->data;
	struct image *im = s->im;
	char why[160];

	(void)status;
	(void)events;
	reap(s);
	if (im->op == OP_DROP) {
		drop_look(im);
	} else if (im->op == OP_ARM) {
		arm_look(im);
	} else if (im->alive && im->base.event != NULL) {
		(void)snprintf(why, sizeof why, "disk %s: qemu-nbd ended",
		               im->base.vm.disks[s - im->servers].name);
		im->base.event(im->base.event_arg, HV_EV_SNAPSHOT_LOST, why);
	}
}

/* Between fork and exec: nothing that takes a lock. */
static void __attribute__((noreturn)) become_server(char *const *argv, int words, pid_t parent)
{
	sigset_t none;
	int null, sig;

	for (sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&none);
	(void)pthread_sigmask(SIG_SETMASK, &none, NULL);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	(void)dup2(null, STDIN_FILENO);
	(void)dup2(words, STDOUT_FILENO);
	(void)dup2(words, STDERR_FILENO);
	(void)syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
	(void)execvp(argv[0], argv);
	dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerrordesc_np(errno));
	_exit(127);
}

static int
spawn(struct image *im, struct server *s, struct lc_err *e)
{
	const struct def_disk *d = disk_of(im, s);
	char *spec = imageformat_spec(d->path, d->format),
	     *socket_arg = lc_asprintf("--socket=%s", s->socket);
	char program[] = "qemu-nbd", ro[] = "--read-only", stay[] = "--persistent",
	     many[] = "--shared=8", end[] = "--";
	char *argv[] = {program, ro, stay, many, socket_arg, end, spec, NULL};
	pid_t parent = getpid();
	int rc = 0;

	if (spec == NULL || socket_arg == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "disk %s: out of memory", d->name);
		goto out;
	}
	(void)unlink(s->socket);
	s->words = memfd_create("qemu-nbd-stderr", MFD_CLOEXEC);
	if (s->words == -1) {
		rc = lc_fail_errno(e, "disk %s: memfd", d->name);
		goto out;
	}
	s->pid = fork();
	if (s->pid == 0)
		become_server(argv, s->words, parent);
	if (s->pid == -1) {
		s->pid = 0;
		rc = lc_fail_errno(e, "disk %s: start qemu-nbd", d->name);
		goto out;
	}
	s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0u);
	if (s->pidfd == -1 || uv_poll_init(im->loop, &s->poll, s->pidfd) != 0) {
		rc = lc_fail(e, LC_EIO, 0, "disk %s: watch qemu-nbd", d->name);
		(void)kill(s->pid, SIGKILL);
		(void)waitpid(s->pid, NULL, 0);
		s->pid = 0;
		fd_close(&s->pidfd);
		goto out;
	}
	s->poll.data = s;
	s->polled = true;
	im->handles++;
	(void)uv_poll_start(&s->poll, UV_READABLE, on_server_end);
out:
	lc_free(spec);
	lc_free(socket_arg);
	return rc;
}

/* It listens before it has opened the image, and greets after. */
static bool
probe(struct server *s)
{
	char greeting;

	if (s->probe == -1)
		s->probe = unixsock_connect(s->socket);
	if (s->probe == -1)
		return false;
	s->listens = recv(s->probe, &greeting, 1, MSG_DONTWAIT) == 1;
	if (s->listens)
		fd_close(&s->probe);
	return s->listens;
}

static bool
is_served(const struct server *s)
{
	return s->raw != -1 || s->pid != 0;
}

static bool
is_in(const struct image *im, size_t i)
{
	return !im->base.excluded[i];
}

/* ---- operations ---- */

static void
finish(struct image *im, const struct lc_err *err)
{
	im->op = OP_NONE;
	(void)uv_timer_stop(&im->timer);
	im->done(im->arg, err);
}

/* Whether disk i can be read from now on; LC_OK with *ready false: not yet. */
static int
look_at(struct image *im, size_t i, bool *ready, struct lc_err *e)
{
	struct server *s = &im->servers[i];
	const struct def_disk *d = disk_of(im, s);
	struct stat st;

	*ready = false;
	if (!is_served(s))
		return fail_died(im, s, e);
	if (stat(d->path, &st) == -1)
		return lc_fail_errno(e, "disk %s: %s", d->name, d->path);
	if (s->raw == -1 && !s->listens && !probe(s))
		return 0;
	*ready = image_rested_ns(&st) >= (st.st_mtim.tv_nsec == 0 ? SETTLE_COARSE_NS : SETTLE_NS);
	return 0;
}

static int
fail_late(const struct image *im, size_t i, struct lc_err *e)
{
	const char *name = im->base.vm.disks[i].name;

	if (im->servers[i].listens || im->servers[i].raw != -1)
		return lc_fail(e, LC_EBUSY, 0, "disk %s: its image is being written to", name);
	return lc_fail(e, LC_ETIMEDOUT, 0, "disk %s: qemu-nbd does not answer", name);
}

static void
arm_look(struct image *im)
{
	struct lc_err err = LC_ERR_INIT;
	bool all = true;
	size_t i;

	for (i = 0; err.code == LC_OK && i < im->base.vm.ndisks; i++) {
		bool ready = true;

		if (is_in(im, i))
			(void)look_at(im, i, &ready, &err);
		all = all && ready;
		if (!ready && err.code == LC_OK && clock_mono_ns() > im->deadline_ns)
			(void)fail_late(im, i, &err);
	}
	if (all || err.code != LC_OK)
		finish(im, &err);
}

static void
on_timer(uv_timer_t *t)
{
	struct image *im = t->data;

	if (im->op == OP_ARM)
		arm_look(im);
	else if (im->op == OP_DROP)
		drop_look(im);
}

static int
start(struct image *im, enum op op, uint64_t repeat_ms, hv_done_cb *done, void *arg)
{
	im->op = op;
	im->done = done;
	im->arg = arg;
	(void)uv_timer_start(&im->timer, on_timer, repeat_ms, repeat_ms);
	return 0;
}

static void
kill_all(struct image *im)
{
	size_t i;

	im->alive = false;
	for (i = 0; i < HV_DISKS_MAX; i++) {
		if (im->servers[i].pid != 0)
			(void)kill(im->servers[i].pid, SIGKILL);
		fd_close(&im->servers[i].raw);
	}
}

static void
drop_look(struct image *im)
{
	struct lc_err ok = LC_ERR_INIT;
	size_t i;

	for (i = 0; i < HV_DISKS_MAX; i++) {
		if (im->servers[i].pid != 0 || im->servers[i].polled)
			return; /* on_server_end or the timer looks again */
	}
	for (i = 0; i < HV_DISKS_MAX; i++)
		fd_close(&im->servers[i].words);
	finish(im, &ok);
}

static int
drop(struct image *im, hv_done_cb *done, void *arg)
{
	kill_all(im);
	return start(im, OP_DROP, TICK_MS, done, arg);
}

/*
 * Of a raw image there is nothing to know but where it lies.  All else is read by QEMU's own code:
 * *fd_out is -1.  So is what lies on another machine, which may stop answering: a read would then
 * wait for it, and one of libuv's few threads with it, while a server that does not answer is given
 * up in time.
 */
static int
open_raw(const struct def_disk *d, int *fd_out, struct lc_err *e)
{
	int rc;

	if (strcmp(d->format, "raw") != 0)
		return 0;
	rc = rawimage_open(d->path, fd_out, e);
	if (rc == 0 && rawimage_is_remote(*fd_out))
		fd_close(fd_out);
	return rc;
}

static int
arm(struct image *im, hv_done_cb *done, void *arg, struct lc_err *e)
{
	int64_t ms = im->t.connect_timeout_ms > 0 ? im->t.connect_timeout_ms : DEFAULT_CONNECT_MS;
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < im->base.vm.ndisks; i++) {
		struct server *s = &im->servers[i];
		const struct hv_disk *d = &im->base.vm.disks[i];
		int n = snprintf(s->socket, sizeof s->socket, "%s/img%zu", im->t.run_dir, i);

		if (!is_in(im, i))
			continue;
		if (!d->capturable)
			rc = lc_fail(e, LC_ENOTSUP, 0, "disk %s: %s", d->name, d->reason);
		else if (n < 0 || (size_t)n >= sizeof s->socket)
			rc = lc_fail(e, LC_EINVAL, 0, "%s: path too long for a socket",
			             im->t.run_dir);
		else if (s->polled || is_served(s))
			rc = lc_fail(e, LC_EBUSY, 0, "disk %s: still served", d->name);
		if (rc == 0)
			rc = image_check_unused(d->path, e);
		if (rc == 0)
			rc = open_raw(disk_of(im, s), &s->raw, e);
		if (rc == 0 && s->raw == -1)
			rc = spawn(im, s, e);
	}
	if (rc != 0) {
		kill_all(im); /* on_server_end reaps them */
		return rc;
	}
	im->deadline_ns = clock_mono_ns() + ms * LC_NS_PER_MS;
	return start(im, OP_ARM, TICK_MS, done, arg);
}

/* What was opened is still what has that name, and as large as was said. */
static int
check_raw(const struct image *im, size_t i, struct lc_err *e)
{
	const struct server *s = &im->servers[i];
	const struct hv_disk *d = &im->base.vm.disks[i];
	struct stat st;
	uint64_t size;
	int rc = rawimage_size(s->raw, d->path, &size, e);

	if (rc != 0)
		return rc;
	if (fstat(s->raw, &st) == -1)
		return lc_fail_errno(e, "%s", d->path);
	if (st.st_dev != s->cut.st.st_dev || st.st_ino != s->cut.st.st_ino)
		return lc_fail(e, LC_ECONFLICT, 0, "disk %s: %s was replaced by another file",
		               d->name, d->path);
	if (size != d->size)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "disk %s: %s was resized from %" PRIu64 " to %" PRIu64 " bytes",
		               d->name, d->path, d->size, size);
	return 0;
}

static int
cut(struct image *im, struct lc_err *e)
{
	size_t i;
	int rc = 0;

	im->base.snapshot = (struct hv_snapshot){.instant_ns = clock_wall_ns()};
	for (i = 0; rc == 0 && i < im->base.vm.ndisks; i++) {
		const char *path = im->base.vm.disks[i].path;

		if (!is_in(im, i))
			continue;
		rc = image_check_unused(path, e);
		if (rc == 0)
			rc = image_look(path, disk_of(im, &im->servers[i])->format,
			                &im->servers[i].cut, e);
		if (rc == 0 && im->servers[i].raw != -1)
			rc = check_raw(im, i, e);
	}
	im->alive = rc == 0;
	return rc == 0 ? DRIVER_NOTHING : rc;
}

static int
serve(struct image *im)
{
	struct hv_snapshot *snap = &im->base.snapshot;
	size_t i;

	for (i = 0; i < im->base.vm.ndisks; i++) {
		struct hv_source *x = &snap->sources[snap->nsources];

		if (!is_in(im, i))
			continue;
		*x = (struct hv_source){.disk = &im->base.vm.disks[i],
		                        .changes = HV_CHANGES_UNKNOWN};
		if (im->servers[i].raw != -1) {
			x->file = (struct hv_file){.kind = HV_FILE_RAW,
			                           .fd = im->servers[i].raw,
			                           .path = x->disk->path,
			                           .size = x->disk->size};
		} else {
			(void)snprintf(x->socket, sizeof x->socket, "%s", im->servers[i].socket);
		}
		(void)snprintf(x->why_unknown, sizeof x->why_unknown,
		               "the VM is off: its images are read and compared");
		snap->nsources++;
	}
	return DRIVER_NOTHING;
}

static int
image_stage(struct driver *d, enum driver_stage stage, const struct driver_take *t,
            hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct image *im = (struct image *)d;

	(void)t;
	switch (stage) {
	case DRIVER_ARM:
		return arm(im, done, arg, e);
	case DRIVER_CUT:
		return cut(im, e);
	case DRIVER_SERVE:
		return serve(im);
	case DRIVER_UNDO:
		return drop(im, done, arg);
	case DRIVER_FREEZE:
	case DRIVER_THAW:
		break;
	}
	return DRIVER_NOTHING;
}

static int
image_still_valid(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct image *im = (struct image *)d;
	struct image_look now;
	size_t i;

	(void)done;
	(void)arg;
	for (i = 0; i < im->base.vm.ndisks; i++) {
		const struct hv_disk *disk = &im->base.vm.disks[i];

		if (!is_in(im, i))
			continue;
		if (!is_served(&im->servers[i]))
			return lc_fail(e, LC_ECONFLICT, 0, "disk %s: qemu-nbd ended", disk->name);
		if (image_look(disk->path, disk_of(im, &im->servers[i])->format, &now, e) != 0) {
			lc_wrap(e, "disk %s", disk->name);
			return LC_ECONFLICT;
		}
		if (!image_looks_same(&now, &im->servers[i].cut) ||
		    image_check_unused(disk->path, NULL) != 0) {
			return lc_fail(
			    e, LC_ECONFLICT, 0,
			    "disk %s: %s was opened or changed while it was read; was the VM "
			    "started?",
			    disk->name, disk->path);
		}
		if (im->servers[i].raw != -1 && check_raw(im, i, e) != 0)
			return LC_ECONFLICT;
	}
	return DRIVER_NOTHING;
}

static int
image_release(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	(void)e;
	return drop((struct image *)d, done, arg);
}

static int
image_end(struct driver *d, enum hv_end how, hv_done_cb *done, void *arg, struct lc_err *e)
{
	(void)d;
	(void)how;
	(void)done;
	(void)arg;
	(void)e;
	return DRIVER_NOTHING; /* there is no record of changes to settle */
}

/* ---- prepare and close ---- */

/* What the definition says of a disk that it knows no image of. */
static const char *
why_nowhere(const struct definition *def, const char *disk)
{
	char what[sizeof def->left_out[0].what];
	size_t i;

	(void)snprintf(what, sizeof what, "encryption of disk %s", disk);
	for (i = 0; i < def->nleft_out; i++) {
		const char *of = def->left_out[i].what;

		if (strcmp(of, what + strlen("encryption of ")) == 0)
			return def->left_out[i].why;
		if (strcmp(of, what) == 0)
			return "it is encrypted, and read only while the VM runs: start that";
	}
	return "nothing says where its image is: start the VM, or name it with disk = in its "
	       "section";
}

static void
add_disk(struct image *im, struct def_disk *dd)
{
	struct hv_vm *vm = &im->base.vm;
	struct hv_disk *d = &vm->disks[vm->ndisks++];
	struct lc_err why = LC_ERR_INIT;

	*d = (struct hv_disk){.role = dd->role, .capturable = true};
	(void)snprintf(d->name, sizeof d->name, "%s", dd->name);
	(void)snprintf(d->path, sizeof d->path, "%s", dd->path);
	if (dd->path[0] == '\0')
		(void)lc_fail(&why, LC_ENOENT, 0, "%s", why_nowhere(im->t.def, dd->name));
	else if (image_size(dd->path, dd->format, &d->size, &why) == 0 && im->t.def_past)
		(void)overlaid_check(dd->path, dd->format, &why);
	if (why.code == LC_OK && d->size == 0)
		(void)lc_fail(&why, LC_EINVAL, 0, "%s: empty", dd->path);
	d->capturable = why.code == LC_OK;
	(void)snprintf(d->reason, sizeof d->reason, "%.*s", (int)sizeof d->reason - 1, why.msg);
	if (d->capturable)
		dd->size = d->size;
}

static int
image_prepare(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	struct image *im = (struct image *)d;
	struct hv_vm *vm = &im->base.vm;
	size_t i;

	(void)done;
	(void)arg;
	if (vm->def == NULL)
		vm->def = definition_new();
	if (vm->def == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "definition: out of memory");
	*vm->def = *im->t.def;
	vm->ndisks = 0;
	vm->running = false;
	(void)snprintf(vm->state, sizeof vm->state, "%s", VMSTATE_OFF);
	(void)snprintf(vm->way, sizeof vm->way, "offline");
	for (i = 0; i < vm->def->ndisks; i++) {
		enum hv_role role = vm->def->disks[i].role;

		if (role == HV_ROLE_DISK || role == HV_ROLE_NVRAM)
			add_disk(im, &vm->def->disks[i]);
	}
	if (vm->ndisks == 0)
		return lc_fail(e, LC_EINVAL, 0, "its definition names no disk");
	return DRIVER_NOTHING;
}

/* Nothing is in flight, but a failed ARM or a caller without release may have left servers. */
static void
image_close(struct driver *d, void (*closed)(void *arg), void *arg)
{
	struct image *im = (struct image *)d;
	size_t i;

	im->closed = closed;
	im->closed_arg = arg;
	kill_all(im);
	for (i = 0; i < HV_DISKS_MAX; i++) {
		struct server *s = &im->servers[i];

		fd_close(&s->words);
		if (s->pid != 0)
			reap(s); /* it was killed: at once */
	}
	uv_close((uv_handle_t *)&im->timer, on_timer_closed);
}

static const struct driver_ops image_ops = {
    .prepare = image_prepare,
    .stage = image_stage,
    .still_valid = image_still_valid,
    .release = image_release,
    .end = image_end,
    .close = image_close,
};

int
driver_image_open(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out,
                  struct lc_err *e)
{
	struct image *im;
	size_t i;

	*out = NULL;
	if (target->def == NULL)
		return lc_fail(e, LC_EINVAL, 0, "it is off, and nothing says where its disks are");
	im = lc_alloc(sizeof *im);
	if (im == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	im->base.ops = &image_ops;
	im->loop = loop;
	im->t = *target;
	for (i = 0; i < HV_DISKS_MAX; i++)
		im->servers[i] = (struct server){
		    .im = im, .raw = -1, .pidfd = -1, .words = -1, .probe = -1};
	(void)uv_timer_init(loop, &im->timer);
	im->timer.data = im;
	im->handles = 1;
	*out = &im->base;
	return 0;
}

/*
 * locum boot: run a VM straight from a restore point.
 *
 *     point ─► nbdkit serves its disks ─► a qcow2 overlay each ─► QEMU ─► sign of life
 *
 * Nothing is copied: the guest reads the store, and writes into the overlays.
 * With --test the network is cut off, and when the sign of life came or did not,
 * all of it is removed again.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/hypervisor/launch.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/store.h"
#include "restore/access.h"
#include "restore/describe.h"
#include "restore/export.h"
#include "restore/interrupt.h"
#include "restore/qcow2.h"
#include "restore/serve.h"
#include "restore/verbs.h"

enum {
	SERVE_TIMEOUT_MS = 30000,
	LIFE_TIMEOUT_MS = 120000,
	STOP_GRACE_MS = 0, /* a test VM is thrown away: no need to ask it */
	POLL_MS = 100,
};

#define POINT_FILE "point" /* in the folder of overlays: what they lie over */

enum verdict { VERDICT_NONE = 0, VERDICT_ALIVE, VERDICT_SILENT, VERDICT_INTERRUPTED };

struct timeline { /* ns since the command began */
	int64_t point, served, executing, life;
};

struct boot {
	const struct cli_args *args;
	bool test, resume;
	int64_t timeout_ms;
	struct interrupt interrupt;
	char name[POINT_NAME_MAX];
	struct access access;
	struct point point;
	struct view *view;
	struct definition *def;
	char *dir;    /* run_dir/<name> */
	char *images; /* scratch_dir/boot/<name>: overlays and extracted files */
	char *socket, *log;
	bool made_images;
	struct serve *server;
	bool launched;
	struct launch_disk disks[POINT_DISKS_MAX];
	size_t ndisks;
	char *paths[POINT_DISKS_MAX]; /* owned; of overlay or file of disks[i] */
	int64_t began, launched_at;   /* monotonic */
	struct timeline t;
	struct launch_sign sign;
	enum verdict verdict;
	struct lc_err silence; /* why there was no sign of life */
};

/* ---- telling ---- */

static void
tell(const struct boot *b, int64_t at_ns, const char *what)
{
	if (cli_has(b->args, "quiet") || cli_has(b->args, "json"))
		return;
	(void)printf("%8.3f s  %s\n", (double)at_ns / (double)LC_NS_PER_S, what);
	(void)fflush(stdout);
}

static int64_t
since(const struct boot *b)
{
	return clock_mono_ns() - b->began;
}

/* ---- what is booted ---- */

/* The point that an earlier boot of that name lies over, as "VM@ID". */
static int
read_recorded(struct boot *b, char **spec, struct lc_err *e)
{
	const char *name = cli_get(b->args, "name");
	char *path = lc_asprintf("%s/boot/%s/" POINT_FILE, b->access.settings.scratch_dir,
	                         name != NULL ? name : cli_operand(b->args, 0));
	struct lc_buf text = {0};
	int rc;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	rc = file_read_all(path, 4096, &text, e);
	if (rc == LC_ENOENT && e->code == LC_ENOENT)
		(void)lc_wrap(e, "nothing to go on with");
	if (rc == 0) {
		*spec = lc_asprintf("%.*s", (int)strcspn((const char *)text.p, "\n"),
		                    (const char *)text.p);
		if (*spec == NULL)
			rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	}
	lc_buf_free(&text);
	lc_free(path);
	return rc;
}

/* So that a later boot can go on with what this one wrote. */
static int
write_recorded(struct boot *b, struct lc_err *e)
{
	char id[DESCRIBE_ID_SIZE];
	char *path = path_join(b->images, POINT_FILE);
	char *text = lc_asprintf("%s@%s\n", b->point.vm, describe_id(&b->point, id));
	int rc;

	if (path == NULL || text == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	else
		rc = file_write_atomic(path, text, strlen(text), 0600, e);
	lc_free(path);
	lc_free(text);
	return rc;
}

static int
choose_name(struct boot *b, struct lc_err *e)
{
	const char *name = cli_get(b->args, "name");
	int n;

	if (name == NULL)
		n = snprintf(b->name, sizeof b->name, "%s%s", b->point.vm, b->test ? "-test" : "");
	else
		n = snprintf(b->name, sizeof b->name, "%s", name);
	if (n <= 0 || (size_t)n >= sizeof b->name || b->name[0] == '-' || b->name[0] == '.' ||
	    strchr(b->name, '/') != NULL)
		return lc_fail(e, LC_EINVAL, 0, "--name %s: not a name for a VM",
		               name == NULL ? b->point.vm : name);
	return 0;
}

static int
choose_point(struct boot *b, struct lc_err *e)
{
	char line[256], text[300];
	char *recorded = NULL;
	int rc = access_open(b->args, "locum boot", &b->access, e);

	if (rc == 0 && b->resume)
		rc = read_recorded(b, &recorded, e);
	if (rc == 0)
		rc = store_find(b->access.store,
		                recorded != NULL ? recorded : cli_operand(b->args, 0), &b->point,
		                e);
	lc_free(recorded);
	if (rc == 0)
		rc = store_view(b->access.store, b->point.id, &b->view, e);
	if (rc != 0)
		return rc;
	if (b->point.definition == NULL)
		return lc_fail(e, LC_ENOTSUP, 0,
		               "%s: this point does not say what machine it is of; restore its "
		               "disks (locum restore) and start them by hand",
		               b->point.vm);
	rc = definition_decode("the recorded definition", b->point.definition,
	                       strlen(b->point.definition), &b->def, e);
	if (rc == 0)
		rc = definition_check(b->def, e);
	if (rc != 0)
		return lc_wrap(e, "%s", b->point.vm);
	b->t.point = since(b);
	(void)snprintf(text, sizeof text, "point %s", describe_line(&b->point, line, sizeof line));
	tell(b, b->t.point, text);
	return choose_name(b, e);
}

/* ---- folders ---- */

static int
make_folders(struct boot *b, struct lc_err *e)
{
	int pid, rc;

	b->dir = path_join(b->access.settings.run_dir, b->name);
	b->images = lc_asprintf("%s/boot/%s", b->access.settings.scratch_dir, b->name);
	b->socket = b->dir == NULL ? NULL : path_join(b->dir, "nbd");
	b->log = b->dir == NULL ? NULL : path_join(b->dir, "nbdkit.log");
	if (b->images == NULL || b->socket == NULL || b->log == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	if (launch_alive(b->dir, &pid))
		return lc_fail(e, LC_EBUSY, 0,
		               "a VM '%s' runs already (pid %d): stop it (locum vm stop %s) or "
		               "choose another name (--name)",
		               b->name, pid, b->name);
	if (access(b->images, F_OK) == 0 && !b->resume) {
		if (!b->test && !cli_has(b->args, "discard"))
			return lc_fail(e, LC_EEXIST, 0,
			               "%s holds what an earlier boot of '%s' wrote: --resume goes "
			               "on with it, --discard loses it",
			               b->images, b->name);
		dir_remove(b->images);
	}
	rc = dir_make(b->dir, 0700, e);
	if (rc == 0)
		rc = dir_make(b->images, 0700, e);
	b->made_images = rc == 0 && !b->resume;
	if (rc == 0 && !b->resume)
		rc = write_recorded(b, e);
	(void)unlink(b->socket); /* of a server that was killed */
	(void)unlink(b->log);    /* of an earlier boot */
	return rc;
}

/* ---- disks ---- */

static int
serve(struct boot *b, struct lc_err *e)
{
	char id[DESCRIBE_ID_SIZE];
	char *spec = lc_asprintf("%s@%s", b->point.vm, describe_id(&b->point, id));
	char *store = realpath(b->access.settings.store, NULL);
	struct serve_opts opts = {
	    .nbdkit = b->access.settings.nbdkit,
	    .plugin = b->access.settings.plugin,
	    .socket = b->socket,
	    .log = b->log,
	    .store = store,
	    .point = spec,
	    .cache = b->access.settings.cache,
	    .key_dir = b->access.settings.key_dir,
	    .code_file = b->access.code_file,
	    .passphrase_file = b->access.passphrase_file,
	    .timeout_ms = SERVE_TIMEOUT_MS,
	};
	char text[64];
	int rc;

	if (spec == NULL || store == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	else
		rc = serve_start(&opts, &b->server, e);
	lc_free(spec);
	free(store);
	if (rc != 0)
		return rc;
	b->t.served = since(b);
	(void)snprintf(text, sizeof text, "%zu disk%s served", b->point.ndisks,
	               b->point.ndisks == 1 ? "" : "s");
	tell(b, b->t.served, text);
	return 0;
}

static int
make_overlay(struct boot *b, const struct point_disk *d, struct lc_err *e)
{
	struct launch_disk *l = &b->disks[b->ndisks];
	char *path = lc_asprintf("%s/%s.qcow2", b->images, d->name);
	char *under = lc_asprintf("nbd+unix:///%s?socket=%s", d->name, b->socket);
	int rc;

	if (path == NULL || under == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	else if (b->resume && access(path, F_OK) == 0)
		rc = 0;
	else
		rc = qcow2_make_overlay(path, d->size, under, e);
	lc_free(under);
	b->paths[b->ndisks] = path;
	*l = (struct launch_disk){.name = d->name,
	                          .kind = LAUNCH_IMAGE_OVERLAY,
	                          .overlay = path,
	                          .nbd_socket = b->socket,
	                          .nbd_export = d->name};
	b->ndisks++;
	return rc;
}

/* Kernel, initial ramdisk and firmware variables are plain files for QEMU. */
static int
extract(struct boot *b, size_t disk, struct lc_err *e)
{
	const struct point_disk *d = &b->point.disks[disk];
	char *path = lc_asprintf("%s/%s", b->images, d->name);
	struct export_file file = {.disk = disk, .path = path, .format = EXPORT_RAW};
	struct export_opts opts = {.files = &file, .nfiles = 1, .threads = 2, .passing = true};

	b->paths[b->ndisks] = path;
	b->disks[b->ndisks] = (struct launch_disk){
	    .name = d->name, .kind = LAUNCH_IMAGE_FILE, .file = path};
	b->ndisks++;
	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	if (b->resume && access(path, F_OK) == 0)
		return 0;
	return export_run(b->access.store, b->view, &opts, e);
}

static int
make_disks(struct boot *b, struct lc_err *e)
{
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < b->point.ndisks; i++) {
		const struct point_disk *d = &b->point.disks[i];

		if (definition_disk(b->def, d->name) == NULL)
			return lc_fail(e, LC_EINVAL, 0,
			               "%s: the recorded definition does not know the disk %s",
			               b->point.vm, d->name);
		rc = d->role == HV_ROLE_DISK ? make_overlay(b, d, e) : extract(b, i, e);
	}
	for (i = 0; rc == 0 && i < b->def->ndisks; i++) {
		size_t j;

		for (j = 0; j < b->ndisks; j++) {
			if (strcmp(b->disks[j].name, b->def->disks[i].name) == 0)
				break;
		}
		if (j == b->ndisks)
			return lc_fail(e, LC_ENOTSUP, 0,
			               "%s: the point has no disk %s, which the machine needs "
			               "(it was left out of the backup)",
			               b->point.vm, b->def->disks[i].name);
	}
	return rc;
}

/* ---- the machine ---- */

static int
launch(struct boot *b, struct lc_err *e)
{
	struct launch_opts opts = {
	    .vm = b->name,
	    .dir = b->dir,
	    .qemu = b->access.settings.qemu,
	    .accel = b->access.settings.accel,
	    .disks = b->disks,
	    .ndisks = b->ndisks,
	    .isolated = b->test || cli_has(b->args, "isolated"),
	    .sandbox = true,
	};
	int pid, rc;

	b->launched_at = clock_mono_ns();
	rc = launch_start(b->def, &opts, &pid, e);
	if (rc != 0)
		return rc;
	b->launched = true;
	b->t.executing = since(b);
	tell(b, b->t.executing, "guest executing");
	return 0;
}

/* ---- waiting for a sign of life ---- */

struct waiting {
	struct boot *b;
	atomic_bool over;
};

static void *
wait_thread(void *arg)
{
	struct waiting *w = arg;
	struct boot *b = w->b;

	if (launch_wait_alive(b->dir, b->launched_at, cli_get(b->args, "serial-pattern"),
	                      b->timeout_ms, &b->sign, &b->silence) == 0)
		b->verdict = VERDICT_ALIVE;
	else
		b->verdict = VERDICT_SILENT;
	atomic_store(&w->over, true);
	return NULL;
}

/* A test: Ctrl-C stops the VM, which ends the wait, and all is removed as at any other end. */
static int
wait_test(struct boot *b, struct lc_err *e)
{
	struct waiting w = {.b = b};
	const struct timespec step = {.tv_nsec = POLL_MS * 1000000L};
	pthread_t thread;
	bool interrupted = false;

	atomic_init(&w.over, false);
	if (pthread_create(&thread, NULL, wait_thread, &w) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "boot: no thread");
	while (!atomic_load(&w.over)) {
		if (!interrupted && interrupt_pending(&b->interrupt)) {
			interrupted = true;
			(void)launch_stop(b->dir, STOP_GRACE_MS, NULL);
		}
		(void)nanosleep(&step, NULL);
	}
	(void)pthread_join(thread, NULL);
	if (interrupted)
		b->verdict = VERDICT_INTERRUPTED;
	return 0;
}

static int
wait_for_life(struct boot *b, struct lc_err *e)
{
	char text[220];
	int rc = 0;

	if (b->test) {
		rc = wait_test(b, e);
	} else {
		/* The VM and its server are on their own now: Ctrl-C ends the waiting only. */
		interrupt_end(&b->interrupt);
		(void)wait_thread(&(struct waiting){.b = b});
		interrupt_begin(&b->interrupt);
	}
	if (b->verdict == VERDICT_ALIVE) {
		b->t.life = b->launched_at - b->began + b->sign.life_ms * LC_NS_PER_MS;
		(void)snprintf(text, sizeof text, "sign of life: %s", b->sign.what);
		tell(b, b->t.life, text);
	}
	return rc;
}

/* ---- the end ---- */

static const char *
life_name(enum launch_life life)
{
	switch (life) {
	case LAUNCH_LIFE_NONE:
		return "none";
	case LAUNCH_LIFE_SCREEN:
		return "screen";
	case LAUNCH_LIFE_SERIAL:
		return "serial";
	case LAUNCH_LIFE_AGENT:
		return "agent";
	}
	return "none";
}

static void
print_json(const struct boot *b)
{
	static const char *const verdicts[] = {"none", "alive", "silent", "interrupted"};
	size_t i;

	(void)fputs("{\"point\":", stdout);
	describe_json(stdout, &b->point);
	(void)fputs(",\"name\":", stdout);
	cli_json_string(stdout, b->name);
	(void)printf(",\"test\":%s,\"verdict\":\"%s\",\"point_ms\":%" PRId64
	             ",\"served_ms\":%" PRId64 ",\"executing_ms\":%" PRId64,
	             b->test ? "true" : "false", verdicts[b->verdict], b->t.point / LC_NS_PER_MS,
	             b->t.served / LC_NS_PER_MS, b->t.executing / LC_NS_PER_MS);
	if (b->verdict == VERDICT_ALIVE)
		(void)printf(",\"rto_ms\":%" PRId64, b->t.life / LC_NS_PER_MS);
	else
		(void)fputs(",\"rto_ms\":null", stdout);
	(void)printf(",\"life\":\"%s\",\"sign\":", life_name(b->sign.best));
	cli_json_string(stdout, b->verdict == VERDICT_ALIVE ? b->sign.what : b->silence.msg);
	(void)fputs(",\"overlays\":[", stdout);
	for (i = 0; !b->test && i < b->ndisks; i++) {
		(void)fputs(i == 0 ? "" : ",", stdout);
		cli_json_string(stdout, b->paths[i]);
	}
	(void)puts("]}");
}

static void
print_test(const struct boot *b)
{
	char rto[48];

	switch (b->verdict) {
	case VERDICT_ALIVE:
		if (!cli_has(b->args, "quiet"))
			(void)printf("PASSED: it boots; RTO %s\n",
			             clock_format_duration(rto, sizeof rto, b->t.life));
		break;
	case VERDICT_SILENT:
		(void)fprintf(stderr, "locum: FAILED: no sign of life: %s\n", b->silence.msg);
		break;
	case VERDICT_INTERRUPTED:
		(void)fprintf(stderr, "locum: interrupted; the test VM is stopped and removed\n");
		break;
	case VERDICT_NONE:
		break;
	}
}

static void
print_boot(const struct boot *b)
{
	char rto[48];
	size_t i;

	if (b->verdict == VERDICT_ALIVE && !cli_has(b->args, "quiet"))
		(void)printf("%s runs; RTO %s\n", b->name,
		             clock_format_duration(rto, sizeof rto, b->t.life));
	if (b->verdict == VERDICT_SILENT)
		(void)fprintf(stderr, "locum: no sign of life yet: %s\n", b->silence.msg);
	if (cli_has(b->args, "quiet"))
		return;
	(void)printf("  console   tail -f %s/serial.log\n"
	             "  monitor   %s/qmp\n"
	             "  stop      locum vm stop %s\n",
	             b->dir, b->dir, b->name);
	for (i = 0; i < b->ndisks; i++) {
		if (b->disks[i].kind == LAUNCH_IMAGE_OVERLAY)
			(void)printf("  writes    %s\n", b->paths[i]);
	}
}

/* A test leaves nothing behind, nor does what failed. */
static void
clean_up(struct boot *b, bool failed)
{
	bool remove = failed || b->test;
	size_t i;

	if (remove && b->launched)
		(void)launch_stop(b->dir, STOP_GRACE_MS, NULL);
	if (remove)
		serve_stop(b->server);
	else
		serve_release(b->server);
	if (remove && b->made_images)
		dir_remove(b->images);
	if (b->test && !failed && b->verdict == VERDICT_ALIVE)
		dir_remove(b->dir); /* else its logs tell what went wrong */
	if (b->view != NULL)
		view_close(b->view);
	for (i = 0; i < b->ndisks; i++)
		lc_free(b->paths[i]);
	lc_free(b->def);
	lc_free(b->dir);
	lc_free(b->images);
	lc_free(b->socket);
	lc_free(b->log);
	point_done(&b->point);
	access_close(&b->access);
}

static int
boot(struct boot *b, struct lc_err *e)
{
	static int (*const steps[])(struct boot *, struct lc_err *) = {
	    choose_point, make_folders, serve, make_disks, launch, wait_for_life,
	};
	const char *timeout = cli_get(b->args, "timeout");
	int64_t ns = LIFE_TIMEOUT_MS * LC_NS_PER_MS;
	size_t i;
	int rc;

	if (timeout != NULL && (!clock_parse_duration(timeout, &ns) || ns == 0))
		return lc_fail(e, LC_EINVAL, 0, "--timeout %s: not a time such as 90s or 5m",
		               timeout);
	b->timeout_ms = ns / LC_NS_PER_MS;
	for (i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		rc = steps[i](b, e);
		if (rc == 0 && b->verdict == VERDICT_NONE && interrupt_pending(&b->interrupt))
			rc = lc_fail(e, LC_ECANCELED, 0, "interrupted; nothing was left running");
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int
run(const struct cli_args *a)
{
	struct lc_err e = LC_ERR_INIT;
	struct boot *b;
	int rc, status = CLI_DONE;

	if (cli_has(a, "resume") && (cli_has(a, "test") || cli_has(a, "discard")))
		return cli_usage(a, "--resume goes with neither --test nor --discard");
	if (cli_has(a, "resume") && strchr(cli_operand(a, 0), '@') != NULL)
		return cli_usage(
		    a, "--resume goes on with the point that was booted: name the VM only");
	b = lc_alloc(sizeof *b);
	if (b == NULL) {
		(void)lc_fail(&e, LC_ENOMEM, 0, "boot: out of memory");
		return cli_error(&e);
	}
	b->args = a;
	b->test = cli_has(a, "test");
	b->resume = cli_has(a, "resume");
	b->began = clock_mono_ns();
	interrupt_begin(&b->interrupt);
	rc = boot(b, &e);
	if (rc == 0) {
		if (cli_has(a, "json"))
			print_json(b);
		else if (b->test)
			print_test(b);
		else
			print_boot(b);
		if (b->verdict != VERDICT_ALIVE)
			status = b->test ? CLI_FAILED : CLI_PARTLY;
	}
	clean_up(b, rc != 0);
	interrupt_end(&b->interrupt);
	lc_free(b);
	return rc == 0 ? status : cli_error(&e);
}

static const struct cli_option options[] = {
    {.name = "test", .help = "no network; stop and remove it after the sign of life"},
    {.name = "name",
     .arg = "NAME",
     .help = "call the VM so (default: as the point's, -test added "
             "for a test)"},
    {.name = "timeout", .arg = "TIME", .help = "wait so long for a sign of life (default 2m)"},
    {.name = "isolated", .help = "cut the network off"},
    {.name = "serial-pattern",
     .arg = "TEXT",
     .help = "text on the serial console that is a sign of "
             "life"},
    {.name = "resume", .help = "go on with what an earlier boot of that name wrote"},
    {.name = "discard", .help = "lose what an earlier boot of that name wrote"},
    ACCESS_OPTIONS,
    {.name = NULL},
};

const struct cli_verb verb_boot = {
    .name = "boot",
    .operands = "VM[@POINT]",
    .summary = "run a VM straight from a restore point",
    .details =
	"Serves the disks of the point (the newest, unless another is named), puts an overlay\n"
	"for the guest's writes over each, starts the recorded machine, and waits for a sign of\n"
	"life: a login prompt or --serial-pattern on the serial console, the guest agent, or the\n"
	"screen.  Nothing is copied, so the time is the same however large the disks are.\n"
	"\n"
	"The VM goes on running afterwards; `locum vm stop` stops it, --resume starts it again\n"
	"with all that it wrote.  With --test it has no network, and VM, server and\n"
	"writes are removed at the end; the exit status is the verdict.  Exit status 3: the VM\n"
	"runs, but gave no sign of life in time.\n"
	"\n"
	"Examples:\n"
	"  locum boot web01 --test\n"
	"  locum boot web01@-15m --name web01-dr --timeout 5m\n"
	"  locum boot web01 --serial-pattern 'web01 login:' --isolated",
    .options = options,
    .min_operands = 1,
    .max_operands = 1,
    .run = run,
};

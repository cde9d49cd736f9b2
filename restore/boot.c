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
#include "store/base/log.h"
#include "store/base/memory.h"
#include "replicator/remote.h"
#include "store/store.h"
#include "store/thin.h"
#include "store/verbs/opening.h"
#include "restore/describe.h"
#include "restore/export.h"
#include "restore/interrupt.h"
#include "restore/machine.h"
#include "restore/place.h"
#include "restore/qcow2.h"
#include "restore/serve.h"
#include "restore/verbs.h"

enum {
	SERVE_TIMEOUT_MS = 30000,
	LIFE_TIMEOUT_MS = 120000,
	STOP_GRACE_MS = 0, /* a test VM is thrown away: no need to ask it */
	POLL_MS = 100,
	PROBE_MS = 1000, /* to look for contents that are not here */
};

enum verdict {
	VERDICT_NONE = 0,
	VERDICT_ALIVE,
	VERDICT_SILENT,
	VERDICT_ENDED,
	VERDICT_CHANGED,
	VERDICT_INTERRUPTED
};

struct timeline { /* ns since the command began */
	int64_t point, served, executing, life;
};

struct boot {
	const struct cli_args *args;
	bool test;
	enum place_use use;
	int64_t timeout_ms;
	struct interrupt interrupt;
	char name[POINT_NAME_MAX];
	struct opening opening;
	struct point point;
	struct view *view;
	struct remote *remote; /* of a thin store */
	struct definition *def;
	struct place place;
	char *socket, *log;
	char *run_as; /* user that QEMU runs as, NULL: as we do */
	struct serve *server;
	bool launched;
	struct launch_disk disks[POINT_DISKS_MAX];
	size_t ndisks;
	char *paths[POINT_DISKS_MAX]; /* owned; of overlay or file of disks[i] */
	int64_t began, launched_at;   /* monotonic */
	struct timeline t;
	struct launch_sign sign;
	enum verdict verdict;
	struct lc_err why; /* not VERDICT_ALIVE */
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

static const char *
asked_name(const struct boot *b)
{
	const char *name = cli_get(b->args, "name");

	/* To go on is to go on with that VM, whatever VM its point is of. */
	return name == NULL && b->use == PLACE_RESUME ? cli_operand(b->args, 0) : name;
}

static int
choose_name(struct boot *b, struct lc_err *e)
{
	const char *name = asked_name(b);
	int n;

	if (name == NULL)
		n = snprintf(b->name, sizeof b->name, "%s%s", b->point.vm, b->test ? "-test" : "");
	else
		n = snprintf(b->name, sizeof b->name, "%s", name);
	if (n <= 0 || (size_t)n >= sizeof b->name)
		return lc_fail(e, LC_EINVAL, 0,
		               "%s: too long for the name of a VM; choose another "
		               "(--name)",
		               name == NULL ? b->point.vm : name);
	return launch_check_name(b->name, e);
}

static int
choose_point(struct boot *b, struct lc_err *e)
{
	char line[256], text[300];
	char *recorded = NULL;
	int rc = opening_read(b->args, &b->opening, "locum boot", e);

	if (rc == 0 && b->use == PLACE_RESUME)
		rc = launch_check_name(asked_name(b), e);
	if (rc == 0 && b->use == PLACE_RESUME)
		rc = place_recorded(&b->opening.settings, asked_name(b), &recorded, e);
	if (rc == 0)
		rc = store_find(b->opening.store,
		                recorded != NULL ? recorded : cli_operand(b->args, 0), &b->point,
		                e);
	if (rc != 0 && recorded != NULL)
		lc_wrap(e, "what an earlier boot of '%s' wrote lies over '%s'", asked_name(b),
		        recorded);
	lc_free(recorded);
	if (rc == 0)
		rc = store_view(b->opening.store, b->point.id, &b->view, e);
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
	if (rc != 0) {
		lc_wrap(e, "%s", b->point.vm);
		return rc;
	}
	b->t.point = since(b);
	(void)snprintf(text, sizeof text, "point %s", describe_line(&b->point, line, sizeof line));
	tell(b, b->t.point, text);
	return choose_name(b, e);
}

/* What is only at a replica must be there to be had before a guest asks for it. */
static int
try_replicas(struct boot *b, struct lc_err *e)
{
	struct chunk_reader *r = NULL;
	struct lc_err why = LC_ERR_INIT;
	uint8_t *window;
	uint64_t chunk;
	int rc = remote_attach(b->opening.store, b->opening.settings.key_dir, &b->remote, e);

	if (rc != 0 || b->remote == NULL)
		return rc;
	rc = thin_elsewhere(b->opening.store, b->view, PROBE_MS * LC_NS_PER_MS, &chunk, e);
	if (rc != 0 || chunk == 0)
		return rc;
	window = lc_alloc(WINDOW_SIZE);
	rc = window == NULL ? lc_fail(&why, LC_ENOMEM, 0, "out of memory")
	                    : chunk_reader_new(b->opening.store, &r, &why);
	rc = rc != 0 ? rc : chunk_read(r, chunk, window, NULL, &why);
	if (rc != 0)
		(void)lc_fail(e, (enum lc_code)rc, 0,
		              "%s: not all of this point is here, and the rest can't be had: %s. "
		              "Mend that, or boot it at the replica (locum boot, there)",
		              b->point.vm, why.msg);
	chunk_reader_free(r);
	lc_free(window);
	return rc;
}

static int
take_place(struct boot *b, struct lc_err *e)
{
	int rc = place_take(&b->opening.settings, b->name, b->use, &b->place, e);

	rc = rc != 0 ? rc : settings_run_as(&b->opening.settings, &b->run_as, e);
	rc = rc != 0 ? rc : place_socket(&b->place, &b->socket, e);
	if (rc != 0)
		return rc;
	b->log = path_join(b->place.run, "nbdkit.log");
	if (b->log == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	(void)unlink(b->log); /* of an earlier boot */
	return 0;
}

/* "VM@ID" of the point; owned by the caller. */
static char *
spec_of(const struct boot *b)
{
	char id[DESCRIBE_ID_SIZE];

	return lc_asprintf("%s@%s", b->point.vm, describe_id(&b->point, id));
}

/* ---- disks ---- */

static int
serve(struct boot *b, struct lc_err *e)
{
	char *spec = spec_of(b);
	char *store = realpath(b->opening.settings.store, NULL);
	struct lc_buf keys = {0};
	struct serve_opts opts = {
	    .nbdkit = b->opening.settings.nbdkit,
	    .plugin = b->opening.settings.plugin,
	    .socket = b->socket,
	    .log = b->log,
	    .store = store,
	    .key_dir = b->opening.settings.key_dir,
	    .point = spec,
	    .cache = b->opening.settings.cache,
	    .timeout_ms = SERVE_TIMEOUT_MS,
	};
	char text[64];
	int rc;

	if (spec == NULL || store == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	else
		rc = store_key_image(b->opening.store, &keys, e);
	opts.keys = (struct lc_span){keys.p, keys.n};
	rc = rc != 0 ? rc : serve_start(&opts, &b->server, e);
	if (keys.p != NULL)
		explicit_bzero(keys.p, keys.cap);
	lc_buf_free(&keys);
	lc_free(spec);
	free(store);
	if (rc == 0 && b->run_as != NULL)
		rc = place_let_user(b->socket, 0666, e);
	if (rc != 0)
		return rc;
	b->t.served = since(b);
	(void)snprintf(text, sizeof text, "%zu disk%s served", b->point.ndisks,
	               b->point.ndisks == 1 ? "" : "s");
	tell(b, b->t.served, text);
	return 0;
}

/* An empty one in its place would mix two states of the VM. */
static int
must_be_there(const char *path, struct lc_err *e)
{
	if (access(path, F_OK) == 0)
		return 0;
	return lc_fail_errno(e, "can't go on with what that VM wrote: %s", path);
}

static int
make_overlay(struct boot *b, const struct point_disk *d, struct lc_err *e)
{
	struct launch_disk *l = &b->disks[b->ndisks];
	char *path = lc_asprintf("%s/%s.qcow2", b->place.images, d->name);
	char *under = lc_asprintf("nbd+unix:///%s?socket=%s", d->name, b->socket);
	int rc;

	if (path == NULL || under == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	else if (b->use == PLACE_RESUME)
		rc = must_be_there(path, e);
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
	char *path = lc_asprintf("%s/%s", b->place.images, d->name);
	struct export_file file = {.disk = disk, .path = path, .format = FORMAT_RAW};
	struct export_opts opts = {.files = &file, .nfiles = 1, .threads = 2, .passing = true};
	int rc;

	b->paths[b->ndisks] = path;
	b->disks[b->ndisks] = (struct launch_disk){
	    .name = d->name, .kind = LAUNCH_IMAGE_FILE, .file = path};
	b->ndisks++;
	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	rc = b->use == PLACE_RESUME ? must_be_there(path, e)
	                            : export_run(b->opening.store, b->view, &opts, e);
	if (rc == 0 && b->run_as != NULL && d->role != HV_ROLE_NVRAM)
		rc = place_let_user(path, 0444, e);
	return rc;
}

/* In the place of one that was excluded from the point. */
static int
make_empty(struct boot *b, const struct def_disk *d, struct lc_err *e)
{
	char *path = lc_asprintf("%s/%s", b->place.images, d->name);
	int rc = 0;

	b->paths[b->ndisks] = path;
	b->disks[b->ndisks] = (struct launch_disk){
	    .name = d->name, .kind = LAUNCH_IMAGE_FILE, .file = path};
	b->ndisks++;
	if (path == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	else if (b->use == PLACE_RESUME)
		rc = must_be_there(path, e);
	else
		rc = machine_make_empty(path, d->size, e);
	return rc;
}

static bool
is_made(const struct boot *b, const char *disk)
{
	size_t i;

	for (i = 0; i < b->ndisks; i++) {
		if (strcmp(b->disks[i].name, disk) == 0)
			return true;
	}
	return false;
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
	machine_drop_unknown(b->def, b->point.vm);
	for (i = 0; rc == 0 && i < b->def->ndisks; i++) {
		const struct def_disk *d = &b->def->disks[i];

		if (is_made(b, d->name))
			continue;
		if (d->content != DEF_CONTENT_EMPTY || d->role != HV_ROLE_DISK)
			return lc_fail(e, LC_ENOTSUP, 0,
			               "%s: the point has no disk %s, which the machine needs",
			               b->point.vm, d->name);
		rc = make_empty(b, d, e);
	}
	return rc;
}

/* ---- the machine ---- */

/* Before the wait, as Ctrl-C may end that. */
static void
tell_where(const struct boot *b)
{
	struct cli_word w;
	size_t i;

	if (cli_has(b->args, "quiet") || cli_has(b->args, "json"))
		return;
	(void)printf("           console  tail -f %s/serial.log\n"
	             "           monitor  %s/qmp\n           stop     locum vm stop %s\n",
	             cli_word(&w, b->place.run), b->place.run, b->name);
	for (i = 0; i < b->ndisks; i++) {
		if (b->disks[i].kind == LAUNCH_IMAGE_OVERLAY)
			(void)printf("           writes   %s\n", b->paths[i]);
	}
	(void)fflush(stdout);
}

/* What the guest writes is worth nothing without the point: from now on it is not dropped.  A store
 * that can't take that down, being full, is no reason not to boot. */
static void
keep_point(const struct boot *b, const char *spec)
{
	struct lc_err err = LC_ERR_INIT;
	char *path = NULL, *why = NULL;
	int rc;

	if (b->use == PLACE_TEST)
		return;
	path = path_join(b->place.images, PLACE_POINT_FILE);
	why = lc_asprintf("what the VM '%s' wrote since it was booted from it lies in %s: locum "
	                  "boot %s --resume goes on with that, removing the folder gives it up",
	                  b->name, b->place.images, b->name);
	rc = path == NULL || why == NULL
	         ? lc_fail(&err, LC_ENOMEM, 0, "out of memory")
	         : store_keep(b->opening.store, b->point.id, path, why, &err);
	if (rc != 0)
		log_warn("%s: not protected against locum drop while its writes are needed: %s",
		         spec, err.msg);
	lc_free(path);
	lc_free(why);
}

static int
launch(struct boot *b, struct lc_err *e)
{
	struct launch_opts opts = {
	    .vm = b->name,
	    .dir = b->place.run,
	    .qemu = b->opening.settings.qemu,
	    .accel = b->opening.settings.accel,
	    .disks = b->disks,
	    .ndisks = b->ndisks,
	    .isolated = b->test || cli_has(b->args, "isolated"),
	    .sandbox = true,
	    .run_as = b->run_as,
	};
	char *spec = spec_of(b);
	int pid, rc;

	if (spec == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	rc = place_record(&b->place, spec, e);
	if (rc == 0)
		keep_point(b, spec);
	lc_free(spec);
	if (rc != 0)
		return rc;
	b->launched_at = clock_mono_ns();
	rc = launch_start(b->def, &opts, &pid, e);
	if (rc != 0)
		return rc;
	b->launched = true;
	b->t.executing = since(b);
	tell(b, b->t.executing, "guest executing");
	if (!b->test)
		tell_where(b);
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

	if (launch_wait_alive(b->place.run, b->launched_at, cli_get(b->args, "serial-pattern"),
	                      b->timeout_ms, &b->sign, &b->why) == 0)
		b->verdict = VERDICT_ALIVE;
	else
		b->verdict = launch_alive(b->place.run, NULL) ? VERDICT_SILENT : VERDICT_ENDED;
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
	bool told = false;

	atomic_init(&w.over, false);
	if (pthread_create(&thread, NULL, wait_thread, &w) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "boot: no thread");
	while (!atomic_load(&w.over)) {
		if (!told && interrupt_pending(&b->interrupt)) {
			told = true;
			(void)launch_stop(b->place.run, STOP_GRACE_MS, NULL);
		}
		(void)nanosleep(&step, NULL);
	}
	(void)pthread_join(thread, NULL);
	if (told)
		b->verdict = VERDICT_INTERRUPTED;
	return 0;
}

static bool
interrupted(void *arg)
{
	struct boot *b = arg;

	return interrupt_pending(&b->interrupt);
}

/* A guest may well boot from a map that somebody changed; the test is about all of the point. */
static void
check_map(struct boot *b)
{
	struct set_sum sum = {0};
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < b->point.ndisks; i++)
		rc = view_add_disk(b->view, i, interrupted, b, &sum, &b->why);
	rc = rc != 0 ? rc : view_check(b->view, &sum, &b->why);
	if (rc != 0)
		b->verdict = rc == LC_ECANCELED ? VERDICT_INTERRUPTED : VERDICT_CHANGED;
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
	if (b->test && b->verdict == VERDICT_ALIVE)
		check_map(b);
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
	static const char *const verdicts[] = {"none",  "alive",   "silent",
	                                       "ended", "changed", "interrupted"};
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
	cli_json_string(stdout, b->verdict == VERDICT_ALIVE ? b->sign.what : b->why.msg);
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
	case VERDICT_ENDED:
		(void)fprintf(stderr, "locum: FAILED: %s (console: %s/serial.log)\n", b->why.msg,
		              b->place.run);
		break;
	case VERDICT_CHANGED:
		(void)fprintf(stderr, "locum: FAILED: it boots, but %s\n", b->why.msg);
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

	if (b->verdict == VERDICT_ALIVE && !cli_has(b->args, "quiet"))
		(void)printf("%s runs; RTO %s\n", b->name,
		             clock_format_duration(rto, sizeof rto, b->t.life));
	if (b->verdict == VERDICT_SILENT)
		(void)fprintf(stderr, "locum: %s runs, but %s\n", b->name, b->why.msg);
	if (b->verdict == VERDICT_ENDED)
		(void)fprintf(stderr, "locum: %s does not run any more: %s\n", b->name, b->why.msg);
}

/* A test leaves nothing behind, nor does what failed. */
static void
clean_up(struct boot *b, bool failed)
{
	bool remove = failed || b->test;
	size_t i;

	if (remove && b->launched)
		(void)launch_stop(b->place.run, STOP_GRACE_MS, NULL);
	if (remove)
		serve_stop(b->server);
	else
		serve_release(b->server);
	/* Of a test that went well nothing is left; else the logs tell what went wrong. */
	place_leave(&b->place, failed, !b->test || failed || b->verdict != VERDICT_ALIVE);
	if (b->view != NULL)
		view_close(b->view);
	remote_free(b->remote);
	for (i = 0; i < b->ndisks; i++)
		lc_free(b->paths[i]);
	lc_free(b->def);
	lc_free(b->socket);
	lc_free(b->run_as);
	lc_free(b->log);
	point_done(&b->point);
	opening_done(&b->opening);
}

static int
boot(struct boot *b, struct lc_err *e)
{
	static int (*const steps[])(struct boot *, struct lc_err *) = {
	    choose_point, try_replicas, take_place, serve, make_disks, launch, wait_for_life,
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
	if (b->test)
		b->use = PLACE_TEST;
	else if (cli_has(a, "resume"))
		b->use = PLACE_RESUME;
	else if (cli_has(a, "discard"))
		b->use = PLACE_DISCARD;
	b->place.lock = -1;
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
		if (b->verdict == VERDICT_SILENT && !b->test)
			status = CLI_PARTLY;
		else if (b->verdict != VERDICT_ALIVE)
			status = CLI_FAILED;
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
    OPENING_OPTIONS,
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
	"The VM goes on running afterwards; `locum vm stop` stops it, --resume with the name that\n"
	"it was booted under starts it again with all that it wrote.  With --test it has no\n"
	"network, and VM, server and writes are removed at the end; the exit status is the\n"
	"verdict.  Exit status 3: the VM runs, but gave no sign of life in time.\n"
	"\n"
	"Examples:\n"
	"  locum boot web01 --test\n"
	"  locum boot web01@-15m --name web01-dr --timeout 5m\n"
	"  locum boot web01-dr --resume\n"
	"  locum boot web01 --serial-pattern 'web01 login:' --isolated",
    .options = options,
    .min_operands = 1,
    .max_operands = 1,
    .run = run,
};

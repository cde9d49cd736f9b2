/*
 * locum backup: restore points of some VMs, a few at a time.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "agent/backup.h"
#include "agent/capture.h"
#include "agent/control.h"
#include "agent/delivery.h"
#include "agent/discover.h"
#include "agent/hypervisor/settings.h"
#include "agent/import.h"
#include "agent/result.h"
#include "agent/spool.h"
#include "agent/submit.h"
#include "agent/target.h"
#include "agent/verbs.h"
#include "replicator/identity.h"
#include "replicator/throttle.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/progress.h"
#include "store/base/unixsock.h"

#define BUFFER_BYTES (UINT64_C(24) << 20)
#define REDRAW_MS 200

struct command {
	uv_loop_t loop;
	uv_signal_t on_int, on_term, on_hup;
	uv_timer_t redraw;
	struct settings settings;
	struct store *store;
	struct capture_pool *pool;
	const char **vms; /* [nvms], borrowed */
	size_t nvms, next, running;
	unsigned failed, good;
	const char **to; /* [nto], borrowed: replicas */
	size_t nto;
	struct throttle *throttle;
	struct delivery *delivery; /* NULL: there is none (any more) */
	struct delivery_result delivered;
	struct slot *slots; /* [nslots] */
	size_t nslots;
	bool json, quiet, talk, canceled, made;
	bool import;           /* of image files, not of a VM that is known */
	char *agent_path;      /* of the socket of an agent that has the store; NULL: we have it */
	struct lc_err busy;    /* what opening the store said then */
	struct submit *submit; /* while the agent works for us */
	unsigned unsent;       /* replicas that do not have everything */
	bool spent;            /* the store's budget: no points are made */
	bool first_json;
};

struct slot { /* one backup that runs */
	struct command *c;
	const char *vm; /* that the agent backs up */
	struct backup *backup;
	struct progress *progress;
};

static void start_more(struct command *c);

static void
tell_json(struct command *c, const struct backup_result *r)
{
	printf("%s", c->first_json ? "" : ",\n ");
	c->first_json = false;
	result_print_json(r);
}

static void
not_done(struct command *c, const struct backup_result *r)
{
	c->failed++;
	log_error("%s", r->err.msg);
	if (c->json)
		tell_json(c, r);
}

static void
tell_result(struct command *c, const struct backup_result *r)
{
	char told[POINT_FREEZE_MAX] = "";

	if (r->outcome == BACKUP_FAILED) {
		not_done(c, r);
	} else {
		c->good++;
		result_tell_freeze(r, told);
		if (c->json)
			tell_json(c, r);
		else if (c->talk)
			result_print(r);
	}
	(void)fflush(stdout);
}

static void
on_done(void *arg, struct backup_result *r)
{
	struct slot *s = arg;
	struct command *c = s->c;

	progress_free(s->progress);
	s->progress = NULL;
	s->backup = NULL;
	c->running--;
	tell_result(c, r);
	if (c->delivery != NULL && r->outcome != BACKUP_FAILED)
		delivery_made(c->delivery, &r->point);
	point_done(&r->point);
	start_more(c);
}

static void
stop_handles(struct command *c)
{
	uv_close((uv_handle_t *)&c->on_int, NULL);
	uv_close((uv_handle_t *)&c->on_term, NULL);
	uv_close((uv_handle_t *)&c->on_hup, NULL);
	uv_close((uv_handle_t *)&c->redraw, NULL);
	throttle_close(c->throttle);
	c->throttle = NULL;
	capture_pool_close(c->pool);
	c->pool = NULL;
}

/* ---- to the replicas ---- */

static void
on_delivered(void *arg)
{
	struct command *c = arg;

	c->delivery = NULL;
	c->unsent += c->delivered.unsent;
	stop_handles(c);
}

static void
deliver(struct command *c)
{
	struct delivery_opts o = {.loop = &c->loop,
	                          .settings = &c->settings,
	                          .store = c->store,
	                          .throttle = c->throttle,
	                          .names = c->to,
	                          .n = c->nto,
	                          .vms = c->vms,
	                          .nvms = c->nvms,
	                          .over = on_delivered,
	                          .arg = c};
	struct lc_err e = LC_ERR_INIT;

	if (c->nto == 0 || delivery_start(&o, &c->delivered, &c->delivery, &e) == 0)
		return;
	(void)cli_error(&e); /* the points are made all the same */
	c->unsent = (unsigned)c->nto;
}

/* All backups are made, or given up. */
static void
finish(struct command *c)
{
	c->made = true;
	if (c->delivery == NULL)
		stop_handles(c);
	else if (c->canceled)
		delivery_cancel(c->delivery);
	else
		delivery_finish(c->delivery);
}

/* ---- by the agent, which has the store ---- */

static struct slot *
slot_of(struct command *c, const char *vm)
{
	size_t i;

	for (i = 0; i < c->nslots; i++) {
		if (c->slots[i].vm != NULL && strcmp(c->slots[i].vm, vm) == 0)
			return &c->slots[i];
	}
	return NULL;
}

static void
on_progress(void *arg, const char *vm, const struct backup_progress *p)
{
	const struct progress_state ps = {
	    .done = p->looked, .total = p->total, .moved = p->stored, .note = p->note};
	struct command *c = arg;
	struct slot *s = slot_of(c, vm);
	size_t i;

	for (i = 0; s == NULL && i < c->nslots; i++) {
		if (c->slots[i].vm == NULL)
			s = &c->slots[i];
	}
	if (s == NULL)
		return;
	s->vm = vm;
	if (s->progress == NULL)
		s->progress = progress_new(vm, !c->quiet && !c->json);
	progress_update(s->progress, &ps);
}

static void
on_result(void *arg, const struct backup_result *r)
{
	struct slot *s = slot_of(arg, r->vm);

	if (s != NULL) {
		progress_free(s->progress);
		s->progress = NULL;
		s->vm = NULL;
	}
	tell_result(arg, r);
}

static void
on_unsent(void *arg, const char *replica, const char *why)
{
	struct command *c = arg;

	c->unsent++;
	log_error("replica %s: %s", replica, why);
}

static void
on_ended(void *arg, const struct lc_err *why, bool refused)
{
	struct command *c = arg;

	c->submit = NULL;
	/* An agent of another store has nothing to do with who holds this one. */
	if (refused)
		(void)cli_error(why->code == LC_ENOENT ? &c->busy : why);
	if (why->code != LC_OK)
		c->unsent++;
	stop_handles(c);
}

static void
ask_agent(struct command *c)
{
	struct submit_opts o = {.loop = &c->loop,
	                        .path = c->agent_path,
	                        .store = c->settings.store,
	                        .vms = c->vms,
	                        .nvms = c->nvms,
	                        .to = c->to,
	                        .nto = c->nto,
	                        .events = {.arg = c,
	                                   .progress = on_progress,
	                                   .result = on_result,
	                                   .unsent = on_unsent,
	                                   .ended = on_ended}};
	struct lc_err e = LC_ERR_INIT;

	if (c->import)
		o.import = settings_vm(&c->settings, c->vms[0])->def;
	if (submit_start(&o, &c->submit, &e) == 0)
		return;
	(void)cli_error(&e);
	c->unsent++;
	stop_handles(c);
}

/* ---- within the budget of the store (spool.h) ---- */

/* What the replicas have need not stay here.  Who sends to none keeps everything. */
static int
trim(struct command *c, struct lc_err *e)
{
	struct spool_opts o = {
	    .store = c->store, .key_dir = c->settings.key_dir, .max = c->settings.spool_max};
	struct spool_status st;
	char size[32];
	int rc;

	c->spent = false;
	if (c->store == NULL || c->nto == 0 || o.max == 0)
		return 0;
	rc = spool_trim(&o, &st, e);
	c->spent = rc == 0 && st.spent;
	if (rc == 0 && st.dropped > 0 && c->talk && !c->json)
		printf("%s that the replicas have were dropped here\n",
		       size_format(size, sizeof size, st.dropped));
	return rc;
}

static struct slot *
free_slot(struct command *c)
{
	size_t i;

	for (i = 0; i < c->nslots; i++) {
		if (c->slots[i].backup == NULL)
			return &c->slots[i];
	}
	return NULL;
}

static void
start_more(struct command *c)
{
	struct slot *s;

	while (!c->canceled && !c->spent && c->next < c->nvms && (s = free_slot(c)) != NULL) {
		struct backup_opts o = {.loop = &c->loop,
		                        .store = c->store,
		                        .pool = c->pool,
		                        .settings = &c->settings,
		                        .vm = c->vms[c->next]};
		struct backup_result failed = {.vm = c->vms[c->next]};

		c->next++;
		s->c = c;
		if (backup_start(&o, on_done, s, &s->backup, &failed.err) == 0) {
			c->running++;
			s->progress = progress_new(o.vm, !c->quiet && !c->json);
			continue;
		}
		not_done(c, &failed);
	}
	if (c->running > 0 || c->pool == NULL)
		return;
	while (c->next < c->nvms) { /* interrupted, or there is no room for them */
		struct backup_result r = {.vm = c->vms[c->next++]};

		if (c->canceled) {
			(void)lc_fail(&r.err, LC_ECANCELED, 0, "%s: not begun", r.vm);
		} else {
			(void)lc_fail(&r.err, LC_ENOSPC, 0,
			              "%s: no point is made: the store's spool_max is used up "
			              "until the replicas have what waits (see: locum store "
			              "stats)",
			              r.vm);
		}
		not_done(c, &r);
	}
	finish(c);
}

static void
on_signal(uv_signal_t *h, int signum)
{
	struct command *c = h->data;
	size_t i;

	(void)signum;
	if (!c->canceled)
		log_warn("interrupted: giving back the snapshots, nothing is lost");
	c->canceled = true;
	if (c->submit != NULL)
		submit_cancel(c->submit);
	for (i = 0; i < c->nslots; i++) {
		if (c->slots[i].backup != NULL)
			backup_cancel(c->slots[i].backup);
	}
	if (c->made && c->delivery != NULL)
		delivery_cancel(c->delivery);
}

static void
on_redraw(uv_timer_t *t)
{
	struct command *c = t->data;
	size_t i;

	for (i = 0; i < c->nslots; i++) {
		struct backup_progress p;
		struct progress_state ps;

		if (c->slots[i].backup == NULL)
			continue;
		backup_progress(c->slots[i].backup, &p);
		ps = (struct progress_state){
		    .done = p.looked, .total = p.total, .moved = p.stored, .note = p.note};
		progress_update(c->slots[i].progress, &ps);
	}
}

/* The VM whose images are given. */
static int
choose_import(struct command *c, const struct cli_args *a)
{
	struct import_opts o = {.vm = cli_operands(a) > 0 ? cli_operand(a, 0) : NULL,
	                        .format = cli_get(a, "image-format")};
	const char **files;
	struct lc_err e = LC_ERR_INIT;
	size_t i;
	int rc;

	while (cli_get_many(a, "image", o.nfiles) != NULL)
		o.nfiles++;
	if (cli_has(a, "all") || cli_operands(a) > 1)
		return cli_usage(a, "--image: give one VM, or none");
	files = lc_alloc_array(o.nfiles, sizeof *files);
	c->vms = lc_alloc_array(1, sizeof *c->vms);
	for (i = 0; files != NULL && i < o.nfiles; i++)
		files[i] = cli_get_many(a, "image", i);
	o.files = files;
	if (files == NULL || c->vms == NULL)
		rc = lc_fail(&e, LC_ENOMEM, 0, "out of memory");
	else
		rc = import_add(&c->settings, &o, &c->vms[0], &e);
	lc_free(files);
	c->import = true;
	c->nvms = 1;
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static int
choose_vms(struct command *c, const struct cli_args *a)
{
	bool all = cli_has(a, "all");
	struct lc_err e = LC_ERR_INIT;
	size_t i, k, n = cli_operands(a);

	if (cli_get_many(a, "image", 0) != NULL)
		return choose_import(c, a);
	if (cli_get(a, "image-format") != NULL)
		return cli_usage(a, "--image-format is for --image");
	if (all && cli_operands(a) > 0)
		return cli_usage(a, "give either VMs or --all");
	if (!all && n == 0)
		return cli_usage(a, "which VM? name one or more, or give --all");
	if (all && discover(&c->settings, NULL, NULL, &e) != 0) {
		log_error("%s", e.msg); /* the others are backed up */
		c->failed++;
	}
	n = all ? c->settings.nvms : n;
	if (n == 0) {
		log_error("--all: %s names no VM (a section [vm NAME] each)",
		          c->settings.origin == NULL ? "no configuration" : c->settings.origin);
		return CLI_FAILED;
	}
	c->vms = lc_alloc_array(n, sizeof *c->vms);
	if (c->vms == NULL) {
		log_error("out of memory");
		return CLI_FAILED;
	}
	for (i = 0; i < n; i++) {
		const char *vm = all ? c->settings.vms[i].name : cli_operand(a, i);

		for (k = 0; k < c->nvms && strcmp(c->vms[k], vm) != 0; k++)
			;
		if (k == c->nvms)
			c->vms[c->nvms++] = vm;
	}
	return CLI_DONE;
}

/* Or find that the agent has it. */
static int
open_store(struct command *c, struct store_opts *o, struct lc_err *e)
{
	int64_t wait_ms = o->wait_ms;
	char *path;
	int rc;

	o->wait_ms = 0;
	rc = store_open(o, &c->store, e);
	if (rc != LC_EBUSY)
		return rc;
	path = path_join(c->settings.run_dir, CONTROL_FILE);
	if (path != NULL && unixsock_listens(path)) {
		c->agent_path = path;
		c->busy = *e;
		lc_err_clear(e);
		return 0;
	}
	lc_free(path);
	if (wait_ms == 0)
		return rc;
	lc_err_clear(e);
	o->wait_ms = wait_ms;
	return store_open(o, &c->store, e);
}

static int
open_everything(struct command *c, const struct cli_args *a, struct lc_err *e)
{
	int64_t wait_ns = 0;
	const char *wait = cli_get(a, "wait");
	struct store_opts so = {.dir = c->settings.store,
	                        .mode = STORE_WRITE,
	                        .who = "locum backup",
	                        .key_dir = c->settings.key_dir,
	                        .similar_bytes = c->settings.similar_max};
	size_t i;
	int rc;

	if (wait != NULL && !clock_parse_duration(wait, &wait_ns))
		return lc_fail(e, LC_EINVAL, 0, "--wait: \"%s\" is no duration (try 10m)", wait);
	so.wait_ms = wait_ns / LC_NS_PER_MS;
	if (cli_get_many(a, "to", 0) != NULL)
		so.segment_bytes = spool_segment(c->settings.spool_max);
	while (cli_get_many(a, "to", c->nto) != NULL)
		c->nto++;
	c->to = lc_alloc_array(c->nto + 1, sizeof *c->to);
	if (c->to == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; i < c->nto; i++) {
		struct peer p;

		c->to[i] = cli_get_many(a, "to", i);
		rc = peer_load(c->settings.key_dir, c->to[i], &p, e); /* a slip is told at once */
		if (rc != 0)
			return rc;
	}
	rc = open_store(c, &so, e);
	rc = rc != 0 ? rc : trim(c, e);
	if (rc != 0)
		return rc;
	c->nslots = c->settings.jobs == 0 ? 1 : (size_t)c->settings.jobs;
	c->slots = lc_alloc_array(c->nslots, sizeof *c->slots);
	if (c->slots == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (c->agent_path != NULL)
		return 0;
	rc = c->import ? import_check(c->store, c->vms[0], e) : 0;
	if (rc != 0)
		return rc;
	rc = capture_pool_new(&c->loop, (unsigned)c->settings.workers, BUFFER_BYTES, &c->pool, e);
	return rc != 0 ? rc : throttle_new(&c->loop, c->settings.bandwidth, &c->throttle, e);
}

/* Whatever ends it: the snapshots are given back first. */
static void
listen_to_signals(struct command *c)
{
	struct sigaction hup;

	(void)uv_signal_init(&c->loop, &c->on_int);
	(void)uv_signal_init(&c->loop, &c->on_term);
	(void)uv_signal_init(&c->loop, &c->on_hup);
	c->on_int.data = c->on_term.data = c->on_hup.data = c;
	(void)uv_signal_start(&c->on_int, on_signal, SIGINT);
	(void)uv_signal_start(&c->on_term, on_signal, SIGTERM);
	/* Under nohup it goes on. */
	if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN)
		(void)uv_signal_start(&c->on_hup, on_signal, SIGHUP);
	/* That nobody reads what it says is no reason to end. */
	(void)signal(SIGPIPE, SIG_IGN); /* NOLINT(cert-err33-c) */
}

static int
run_loop(struct command *c)
{
	struct lc_err e = LC_ERR_INIT;

	(void)uv_timer_init(&c->loop, &c->redraw);
	c->redraw.data = c;
	listen_to_signals(c);
	(void)uv_timer_start(&c->redraw, on_redraw, REDRAW_MS, REDRAW_MS);
	if (c->agent_path != NULL) {
		ask_agent(c);
	} else {
		deliver(c);
		start_more(c);
	}
	(void)uv_run(&c->loop, UV_RUN_DEFAULT);
	if (c->talk && !c->json && c->nto > 0 && c->delivered.points > 0)
		printf("%" PRIu64 " points sent\n", c->delivered.points);
	if (trim(c, &e) != 0)
		log_warn("the store stays as it is: %s", e.msg);
	if (c->failed == 0 && c->unsent == 0)
		return CLI_DONE;
	return c->good > 0 ? CLI_PARTLY : CLI_FAILED;
}

static int
run_backup(const struct cli_args *a)
{
	struct command c = {.first_json = true};
	struct lc_err e = LC_ERR_INIT;
	int rc, status;

	c.json = cli_has(a, "json");
	c.quiet = cli_has(a, "quiet");
	c.talk = !c.quiet && (isatty(STDOUT_FILENO) != 0 || cli_has(a, "verbose"));
	if (uv_loop_init(&c.loop) != 0) {
		log_error("no event loop: too many open files, or out of memory");
		return CLI_FAILED;
	}
	rc = settings_load(a, &c.settings, &e);
	rc = rc != 0 ? rc : settings_need_store(&c.settings, &e);
	status = rc != 0 ? cli_error(&e) : choose_vms(&c, a);
	if (status == CLI_DONE) {
		rc = open_everything(&c, a, &e);
		if (c.json)
			printf("[");
		status = rc != 0 ? cli_error(&e) : run_loop(&c);
		if (c.json)
			printf("]\n");
	}
	store_close(c.store);
	(void)uv_loop_close(&c.loop);
	lc_free(c.agent_path);
	lc_free(c.slots);
	lc_free(c.vms);
	lc_free(c.to);
	settings_done(&c.settings);
	return status;
}

static const struct cli_option backup_options[] = {
    {.name = "all", .letter = 'a', .help = "every VM of the configuration, and of libvirt"},
    {.name = "image",
     .arg = "FILE",
     .help = "a disk of a VM that ran elsewhere, from its image; one for each disk",
     .many = true},
    {.name = "image-format",
     .arg = "FORMAT",
     .help = "of these: raw, qcow2, vhdx, vmdk or vpc (default: what name and content agree on)"},
    {.name = "to",
     .arg = "REPLICA",
     .help = "send them there, too, as `locum pair` named it; may be given several times",
     .many = true},
    {.name = "wait",
     .arg = "TIME",
     .help = "wait so long for another locum to give the store free (default: not)"},
    {.name = NULL},
};

const struct cli_verb verb_backup = {
    .name = "backup",
    .operands = "VM...|--all|[VM] --image FILE",
    .summary = "make a restore point of running or stopped VMs",
    .details =
	"The first point of a VM reads its disks as a whole, the next ones read what changed.\n"
	"All disks are of one instant.  The guest goes on running.  A VM that is off is read\n"
	"from its image files; where those were not written since, or the disks of one that\n"
	"is paused, its newest point still holds and none is made.\n"
	"\n"
	"With --image the disks of a VM that ran elsewhere (Hyper-V, VMware, Virtual Server)\n"
	"are read from its images, exported or copied here, and become a restore point that\n"
	"boots here; the next export of it, in the same order of disks, is compared with it.\n"
	"\n"
	"With --to the points of these VMs that a replica lacks are sent, each when it is made,\n"
	"and what there is of a large one before.  Then contents that all replicas have are "
	"dropped here, as far as spool_max of the\n"
	"configuration asks for that; where it is used up no points are made.\n"
	"\n"
	"While `locum agent` runs, which has the store, it does the work; all else is the same.\n"
	"\n"
	"Interrupted at any time nothing is lost: the next run goes on from the last point.\n"
	"\n"
	"Exit status: 0 all done, 1 none done, 2 wrong use, 3 some VMs failed, or a replica\n"
	"lacks something.\n"
	"\n"
	"Examples:\n"
	"  locum backup web01\n"
	"  locum backup --all --quiet        # from cron\n"
	"  locum backup --all --to dr        # and on to the other site\n"
	"  locum backup web01 --json\n"
	"  locum backup sql01 --image /export/sql01.vhdx --image /export/data.vhdx\n",
    .options = backup_options,
    .min_operands = 0,
    .max_operands = -1,
    .run = run_backup,
};

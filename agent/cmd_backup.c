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
#include "agent/choice.h"
#include "agent/control.h"
#include "agent/delivery.h"
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
#define AGAIN_MS 500
#define PATIENCE_MS 60000 /* with an agent that stops or begins anew, in all */

enum vm_state { VM_TO_DO = 0, VM_MADE, VM_FAILED };

struct command {
	uv_loop_t loop;
	uv_signal_t on_int, on_term, on_hup;
	uv_timer_t redraw, again;
	struct settings settings;
	struct store *store;
	struct capture_pool *pool;
	const char **vms; /* [nvms], borrowed */
	enum vm_state *states;
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
	const char **asked;    /* [nvms] what it is to do, then what it only is to send */
	int64_t waited_ms, patience_ms;
	bool waiting;    /* for it; that was told */
	unsigned unsent; /* replicas that do not have everything */
	bool spent;      /* the store's budget: no points are made */
	bool first_json;
};

struct slot { /* one backup that runs */
	struct command *c;
	const char *vm; /* that the agent backs up */
	struct backup *backup;
	struct progress *progress;
};

static void start_more(struct command *c);
static void on_again(uv_timer_t *t);

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
	uv_close((uv_handle_t *)&c->again, NULL);
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
	c->waiting = false;
	s->vm = vm;
	if (s->progress == NULL)
		s->progress = progress_new(vm, !c->quiet && !c->json);
	progress_update(s->progress, &ps);
}

static bool
may_wait(const struct command *c)
{
	return !c->canceled && c->waited_ms < c->patience_ms;
}

static void
on_result(void *arg, const struct backup_result *r)
{
	struct slot *s = slot_of(arg, r->vm);
	struct command *c = arg;
	size_t i;

	if (s != NULL) {
		progress_free(s->progress);
		s->progress = NULL;
		s->vm = NULL;
	}
	/* The agent has put it off: it stays to be done. */
	if (r->err.code == LC_ECANCELED && may_wait(c))
		return;
	for (i = 0; i < c->nvms; i++) {
		if (strcmp(c->vms[i], r->vm) == 0)
			c->states[i] = r->outcome == BACKUP_FAILED ? VM_FAILED : VM_MADE;
	}
	tell_result(c, r);
}

static void
on_unsent(void *arg, const char *replica, const char *why)
{
	struct command *c = arg;

	c->unsent++;
	log_error("replica %s: %s", replica, why);
}

/* Those in that state, from to[0] on. */
static size_t
list_vms(const struct command *c, enum vm_state state, const char **to)
{
	size_t i, n = 0;

	for (i = 0; i < c->nvms; i++) {
		if (c->states[i] == state)
			to[n++] = c->vms[i];
	}
	return n;
}

static void
wait_for_agent(struct command *c)
{
	if (!c->waiting && c->talk && !c->json) {
		printf("waiting for the agent, which stops or begins anew\n");
		(void)fflush(stdout);
	}
	c->waiting = true;
	(void)uv_timer_start(&c->again, on_again, AGAIN_MS, 0);
}

static void
give_up(struct command *c, const struct lc_err *why)
{
	bool told = false;
	size_t i;

	for (i = 0; i < c->nvms; i++) {
		struct backup_result r = {.vm = c->vms[i]};

		if (c->states[i] != VM_TO_DO)
			continue;
		(void)lc_fail(&r.err, why->code, 0, "%s: %s", r.vm, why->msg);
		not_done(c, &r);
		told = true;
	}
	if (!told)
		(void)cli_error(why); /* all is made, and not all of it sent */
	c->unsent++;
	stop_handles(c);
}

static void
on_ended(void *arg, const struct lc_err *why, bool refused)
{
	struct command *c = arg;
	bool left = list_vms(c, VM_TO_DO, c->asked) > 0;

	c->submit = NULL;
	left = refused ? why->code == LC_EBUSY : left || (why->code == LC_ECANCELED && c->nto > 0);
	if (left && may_wait(c)) {
		wait_for_agent(c);
		return;
	}
	/* An agent of another store has nothing to do with who holds this one. */
	if (refused)
		(void)cli_error(why->code == LC_ENOENT ? &c->busy : why);
	else if (why->code != LC_OK && c->nto > 0)
		(void)cli_error(why);
	if (why->code != LC_OK && (refused || c->nto > 0))
		c->unsent++;
	stop_handles(c);
}

static void
ask_agent(struct command *c)
{
	struct submit_opts o = {.loop = &c->loop,
	                        .path = c->agent_path,
	                        .store = c->settings.store,
	                        .vms = c->asked,
	                        .to = c->to,
	                        .nto = c->nto,
	                        .events = {.arg = c,
	                                   .progress = on_progress,
	                                   .result = on_result,
	                                   .unsent = on_unsent,
	                                   .ended = on_ended}};
	struct lc_err e = LC_ERR_INIT;
	int rc;

	o.nvms = list_vms(c, VM_TO_DO, c->asked);
	o.made = c->asked + o.nvms;
	o.nmade = list_vms(c, VM_MADE, c->asked + o.nvms);
	c->unsent = 0;
	if (c->import && o.nvms > 0)
		o.import = settings_vm(&c->settings, c->vms[0])->def;
	rc = submit_start(&o, &c->submit, &e);
	if ((rc == LC_ENOENT || rc == LC_EBUSY) && may_wait(c))
		wait_for_agent(c); /* it is about to begin, or to end */
	else if (rc != 0)
		give_up(c, rc == LC_ENOENT ? &c->busy : &e);
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

/* What an agent has made before is not made again. */
static bool
has_next(struct command *c)
{
	while (c->next < c->nvms && c->states[c->next] != VM_TO_DO)
		c->next++;
	return c->next < c->nvms;
}

static void
start_more(struct command *c)
{
	struct slot *s;

	while (!c->canceled && !c->spent && has_next(c) && (s = free_slot(c)) != NULL) {
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
	while (has_next(c)) { /* interrupted, or there is no room for them */
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
	if (uv_is_active((uv_handle_t *)&c->again) != 0) {
		struct lc_err e = {.code = LC_ECANCELED, .msg = "not begun"};

		(void)uv_timer_stop(&c->again);
		give_up(c, &e);
	}
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

static int
choose_vms(struct command *c, const struct cli_args *a)
{
	struct choice choice = {.nvms = 0};
	int status = choice_make(&choice, &c->settings, a);

	c->vms = choice.vms;
	c->nvms = choice.nvms;
	c->import = choice.import;
	c->failed = choice.failed;
	return status;
}

/* One of this host's agent, which listens, or is about to begin or to end. */
static bool
agent_has_store(const struct command *c, const char *socket)
{
	char *desk = path_join(c->settings.run_dir, CONTROL_DESK_FILE), at[STORE_DESK_MAX];
	bool is = unixsock_listens(socket);

	store_desk(c->settings.store, at);
	is = is || (desk != NULL && strcmp(at, desk) == 0);
	lc_free(desk);
	return is;
}

/* Or find that the agent has it. */
static int
open_store(struct command *c, int64_t wait_ms, struct lc_err *e)
{
	struct store_opts o = {.dir = c->settings.store,
	                       .mode = STORE_WRITE,
	                       .who = "locum backup",
	                       .key_dir = c->settings.key_dir,
	                       .similar_bytes = c->settings.similar_max};
	char *path;
	int rc;

	if (c->nto > 0)
		o.segment_bytes = spool_segment(c->settings.spool_max);
	rc = store_open(&o, &c->store, e);
	if (rc != LC_EBUSY)
		return rc;
	path = path_join(c->settings.run_dir, CONTROL_FILE);
	if (path != NULL && agent_has_store(c, path)) {
		c->agent_path = path;
		c->busy = *e;
		lc_err_clear(e);
		return 0;
	}
	lc_free(path);
	if (wait_ms == 0)
		return rc;
	lc_err_clear(e);
	o.wait_ms = wait_ms;
	return store_open(&o, &c->store, e);
}

/* Unless the agent has the store. */
static int
prepare(struct command *c, struct lc_err *e)
{
	int rc;

	(void)trim(c, NULL); /* tried once more at the end, which says what is wrong */
	if (c->agent_path != NULL)
		return 0;
	rc = c->import ? import_check(c->store, c->vms[0], e) : 0;
	if (rc == 0)
		rc = capture_pool_new(&c->loop, (unsigned)c->settings.workers, BUFFER_BYTES,
		                      &c->pool, e);
	return rc != 0 ? rc : throttle_new(&c->loop, c->settings.bandwidth, &c->throttle, e);
}

static void
begin(struct command *c)
{
	if (c->agent_path != NULL) {
		ask_agent(c);
		return;
	}
	deliver(c);
	start_more(c);
}

/* Whoever has the store now: the agent, or nobody. */
static void
on_again(uv_timer_t *t)
{
	struct command *c = t->data;
	struct lc_err e = LC_ERR_INIT;
	int rc;

	c->waited_ms += AGAIN_MS;
	lc_free(c->agent_path);
	c->agent_path = NULL;
	rc = open_store(c, 0, &e);
	if (rc == LC_EBUSY && may_wait(c)) {
		wait_for_agent(c);
		return;
	}
	rc = rc != 0 ? rc : prepare(c, &e);
	if (rc != 0)
		give_up(c, &e);
	else
		begin(c);
}

static int
open_everything(struct command *c, const struct cli_args *a, struct lc_err *e)
{
	int64_t wait_ns = 0;
	const char *wait = cli_get(a, "wait");
	size_t i;
	int rc;

	if (wait != NULL && !clock_parse_duration(wait, &wait_ns))
		return lc_fail(e, LC_EINVAL, 0, "--wait: \"%s\" is no duration (try 10m)", wait);
	c->patience_ms = wait_ns / LC_NS_PER_MS;
	if (c->patience_ms < PATIENCE_MS)
		c->patience_ms = PATIENCE_MS;
	while (cli_get_many(a, "to", c->nto) != NULL)
		c->nto++;
	c->nslots = c->settings.jobs == 0 ? 1 : (size_t)c->settings.jobs;
	c->to = lc_alloc_array(c->nto + 1, sizeof *c->to);
	c->slots = lc_alloc_array(c->nslots, sizeof *c->slots);
	c->states = lc_alloc_array(c->nvms, sizeof *c->states);
	c->asked = lc_alloc_array(c->nvms, sizeof *c->asked);
	if (c->to == NULL || c->slots == NULL || c->states == NULL || c->asked == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; i < c->nto; i++) {
		struct peer p;

		c->to[i] = cli_get_many(a, "to", i);
		rc = peer_load(c->settings.key_dir, c->to[i], &p, e); /* a slip is told at once */
		if (rc != 0)
			return rc;
	}
	rc = open_store(c, wait_ns / LC_NS_PER_MS, e);
	return rc != 0 ? rc : prepare(c, e);
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
	(void)uv_timer_init(&c->loop, &c->again);
	c->redraw.data = c->again.data = c;
	listen_to_signals(c);
	(void)uv_timer_start(&c->redraw, on_redraw, REDRAW_MS, REDRAW_MS);
	begin(c);
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
	lc_free(c.states);
	lc_free(c.asked);
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
     .help = "send them there, too, as `locum pair` named it",
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
	"and what there is of a large one before.  Then contents that all replicas have are\n"
	"dropped here, as far as spool_max of the configuration asks for that; where it is used\n"
	"up no points are made.\n"
	"\n"
	"While `locum agent` runs, which has the store, it does the work; all else is the same.\n"
	"One that stops or begins anew in the middle is waited for, a minute or as long as\n"
	"--wait says; where it is gone then, the rest is done without it.\n"
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

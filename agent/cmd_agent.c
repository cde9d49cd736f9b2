/*
 * locum agent: continuous protection, until it is stopped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <uv.h>

#include "agent/alert.h"
#include "agent/capture.h"
#include "agent/control.h"
#include "agent/discover.h"
#include "agent/hypervisor/settings.h"
#include "agent/past.h"
#include "agent/protect.h"
#include "agent/report.h"
#include "agent/verbs.h"
#include "agent/sites.h"
#include "agent/spool.h"
#include "agent/strangers.h"
#include "agent/tenure.h"
#include "replicator/identity.h"
#include "replicator/metrics.h"
#include "replicator/throttle.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/memory.h"
#include "store/base/notify.h"

#define BUFFER_BYTES (UINT64_C(24) << 20)
#define STATUS_MS 1000
#define DISCOVER_MS 30000 /* between looks for new domains of libvirt */
#define DISCOVER_SOON_MS 5000
#define STATUS_FILE "agent.json"
/* A store that failed is opened again when there is room, and not much more often than it fails. */
#define REOPEN_ROOM (UINT64_C(16) << 20)
#define REOPEN_MAX_NS (60 * LC_NS_PER_S)
#define STRANGER_NS (180 * LC_NS_PER_S) /* tests of booting are over by then */
#define REOPEN_WAIT_MS 500              /* who had it may be about to end */

struct agent {
	uv_loop_t loop;
	uv_signal_t on_int, on_term, on_hup;
	uv_timer_t status, watch, discover;
	uv_work_t ask;
	bool asking, by_itself; /* libvirt, on a thread; because of the timer */
	bool hup_waits;         /* for its answer, or until we protect again */
	struct lc_err asked;
	const struct cli_args *args;
	struct settings settings;
	struct settings next;          /* read anew, to take the place of the others */
	struct lc_err refused;         /* why they can't, as told last */
	struct lc_buf left, left_told; /* texts, of domains that can't be VMs; as told last */
	bool reload, stopping;
	bool reopen;                       /* the store failed: it is closed and opened again */
	int64_t reopen_ns, reopen_wait_ns; /* not before then; then so much later */
	struct lc_err unopened;            /* why it is not open meanwhile */
	char lent[64];                     /* to this command, or about to be; "": it is ours */
	struct store *store;
	struct capture_pool *pool;
	struct throttle *throttle;
	struct protect *protect;     /* NULL while it is exchanged */
	struct past *past;           /* of the one before */
	struct alert *alert;         /* NULL: no program */
	struct metrics *metrics;     /* NULL: not served */
	struct control *control;     /* NULL: not served */
	struct strangers *strangers; /* NULL: not looked for */
	struct tenure *tenure;
	struct desk *desk; /* NULL: not served */
	char *status_path, *desk_path;
};

static void begin(struct agent *x);
static bool is_busy(const struct agent *x);
static void on_stopped(void *arg);

/* Nobody makes points then, which is not to look as if the agent had hung. */
static void
print_storeless(const struct agent *x, FILE *f)
{
	bool lent = x->lent[0] != '\0';
	char when[40];

	(void)fprintf(
	    f, "{\"role\": \"agent\", \"pid\": %ld, \"time\": \"%s\", \"%s\": ", (long)getpid(),
	    clock_format_utc(when, sizeof when, clock_wall_ns()), lent ? "lent" : "store_error");
	cli_json_string(f, lent ? x->lent : x->unopened.msg);
	(void)fprintf(f, "}\n");
}

/* Beside, then renamed: who reads sees the whole of one moment.  No flush: it is about now. */
static void
write_status(struct agent *x)
{
	char *made = lc_asprintf("%s.new", x->status_path);
	FILE *f = made == NULL ? NULL : fopen(made, "we");

	if (f != NULL) {
		if (x->protect != NULL) {
			protect_status(x->protect, f);
			strangers_status(x->strangers, f);
			(void)fprintf(f, "}\n");
		} else {
			print_storeless(x, f);
		}
		if (fclose(f) != 0 || rename(made, x->status_path) != 0)
			log_debug("%s can't be written", x->status_path);
	}
	lc_free(made);
}

static bool
may_reopen(struct agent *x, int64_t now)
{
	struct statvfs v;

	if (now < x->reopen_ns || (statvfs(x->settings.store, &v) == 0 &&
	                           (uint64_t)v.f_bavail * v.f_frsize < REOPEN_ROOM))
		return false;
	if (x->reopen_wait_ns == 0 || now - x->reopen_ns > 2 * x->reopen_wait_ns)
		x->reopen_wait_ns = LC_NS_PER_S;
	else if (x->reopen_wait_ns < REOPEN_MAX_NS)
		x->reopen_wait_ns *= 2;
	x->reopen_ns = now + x->reopen_wait_ns;
	return true;
}

static void
end_protection(struct agent *x)
{
	control_protect(x->control, NULL);
	past_free(x->past);
	x->past = past_take(x->protect);
	protect_stop(x->protect, on_stopped, x);
}

/* After a write that failed nothing is written to a store until it was opened again. */
static void
look_at_store(struct agent *x)
{
	if (x->stopping || x->reload || x->reopen || x->lent[0] != '\0' ||
	    !store_failed(x->store) || !may_reopen(x, clock_mono_ns()))
		return;
	log_warn("agent: a write to the store failed: opening it again");
	x->reopen = true;
	end_protection(x);
}

static int
open_store(struct agent *x, struct lc_err *e)
{
	struct store_opts o = {.mode = STORE_WRITE,
	                       .who = "locum agent",
	                       .dir = x->settings.store,
	                       .desk = x->desk_path,
	                       .wait_ms = x->reopen ? REOPEN_WAIT_MS : 0,
	                       .segment_bytes = spool_segment(x->settings.spool_max),
	                       .key_dir = x->settings.key_dir,
	                       .similar_bytes = x->settings.similar_max};

	return store_open(&o, &x->store, e);
}

static void
open_again(struct agent *x)
{
	struct lc_err e = LC_ERR_INIT;

	if (open_store(x, &e) != 0) {
		log_error("%s", e.msg);
		x->unopened = e;
		notify_service("STATUS=no points are made: the store can't be opened");
		return;
	}
	lc_err_clear(&x->unopened);
	x->reopen = false;
	tenure_store(x->tenure, x->store);
	begin(x);
}

static void
on_status(uv_timer_t *t)
{
	struct agent *x = t->data;
	char line[160] = "STATUS=", *end = line + strlen(line);

	if (x->protect == NULL && x->reopen && may_reopen(x, clock_mono_ns()))
		open_again(x);
	if (x->protect == NULL && (x->lent[0] != '\0' || x->unopened.code != LC_OK))
		write_status(x);
	if (x->protect == NULL)
		return;
	write_status(x);
	look_at_store(x);
	protect_summary(x->protect, end, sizeof line - (size_t)(end - line));
	notify_service(line);
}

static void
on_watch(uv_timer_t *t)
{
	struct agent *x = t->data;

	if (x->alert != NULL && !is_busy(x))
		report_alerts(x->protect, x->alert);
	else if (x->alert != NULL)
		report_past(x->past, x->alert);
}

static void
render(void *arg, FILE *f)
{
	const struct agent *x = arg;

	report_metrics(x->protect, x->past, f);
}

/* As the settings say now.  VMs are protected also where this fails. */
static void
tell_others(struct agent *x)
{
	struct metrics_opts mo = {
	    .loop = &x->loop, .address = x->settings.metrics, .render = render, .arg = x};
	struct alert_opts ao = {.loop = &x->loop, .program = x->settings.alert};
	struct lc_err e = LC_ERR_INIT;

	metrics_stop(x->metrics);
	x->metrics = NULL;
	if (mo.address != NULL && metrics_start(&mo, &x->metrics, &e) != 0)
		log_error("%s", e.msg);
	else if (mo.address != NULL)
		log_info("agent: metrics on port %u", metrics_port(x->metrics));
	lc_err_clear(&e);
	if (ao.program == NULL) {
		alert_close(x->alert);
		x->alert = NULL;
	} else if ((x->alert == NULL ? alert_new(&ao, &x->alert, &e)
	                             : alert_program(x->alert, ao.program, &e)) != 0) {
		log_error("alert: %s", e.msg);
	}
}

static void
on_desk_closed(void *arg)
{
	struct agent *x = arg;

	x->desk = NULL;
	tenure_close(x->tenure);
	x->tenure = NULL;
}

static void
close_handles(struct agent *x)
{
	struct lc_err why = LC_ERR_INIT;

	(void)lc_fail(&why, LC_EBUSY, 0, "the agent is stopping: give the command again");
	tenure_refuse(x->tenure, &why);
	desk_close(x->desk, on_desk_closed, x);
	metrics_stop(x->metrics);
	strangers_close(x->strangers);
	x->strangers = NULL;
	alert_close(x->alert);
	control_stop(x->control);
	x->control = NULL;
	throttle_close(x->throttle);
	x->throttle = NULL;
	x->metrics = NULL;
	x->alert = NULL;
	uv_close((uv_handle_t *)&x->watch, NULL);
	uv_close((uv_handle_t *)&x->discover, NULL);
	uv_close((uv_handle_t *)&x->on_int, NULL);
	uv_close((uv_handle_t *)&x->on_term, NULL);
	uv_close((uv_handle_t *)&x->on_hup, NULL);
	uv_close((uv_handle_t *)&x->status, NULL);
	capture_pool_close(x->pool);
	x->pool = NULL;
}

/* Nobody has anything of it any more. */
static void
close_store(struct agent *x)
{
	tenure_store(x->tenure, NULL);
	store_close(x->store);
	x->store = NULL;
}

static void
on_wanted(void *arg, const char *who)
{
	struct agent *x = arg;
	struct lc_err why = LC_ERR_INIT;

	if (x->stopping || x->reload || x->reopen || x->protect == NULL) {
		(void)lc_fail(&why, LC_EBUSY, 0,
		              "the agent is reading its settings or its store anew: try again");
		tenure_refuse(x->tenure, &why);
		return;
	}
	log_info("agent: lending the store to %s: no points are made meanwhile", who);
	(void)snprintf(x->lent, sizeof x->lent, "%s", who);
	end_protection(x);
}

static void
on_back(void *arg)
{
	struct agent *x = arg;

	x->lent[0] = '\0';
	if (x->stopping)
		return;
	log_info("agent: the store is back");
	x->reopen = true;
	x->reopen_ns = x->reopen_wait_ns = 0;
	open_again(x);
}

static void
on_stopped(void *arg)
{
	struct agent *x = arg;

	x->protect = NULL;
	if (!x->stopping && x->lent[0] != '\0') {
		close_store(x);
		write_status(x);
		tenure_lent(x->tenure);
	} else if (!x->stopping && x->reload) {
		x->reload = false;
		settings_done(&x->settings);
		x->settings = x->next;
		x->next = (struct settings){0};
		throttle_set(x->throttle, x->settings.bandwidth);
		begin(x);
	} else if (!x->stopping && x->reopen) {
		close_store(x);
		open_again(x);
	} else {
		close_handles(x);
	}
}

static void
on_stop(uv_signal_t *h, int signum)
{
	struct agent *x = h->data;

	(void)signum;
	if (x->stopping)
		return;
	x->stopping = true;
	notify_service("STOPPING=1");
	log_info("agent: stopping: giving back snapshots");
	if (x->protect == NULL) /* between two stores */
		close_handles(x);
	else if (!x->reload && !x->reopen && x->lent[0] == '\0')
		end_protection(x);
}

/* All goes on as it is. */
static void
set_bandwidth(struct agent *x, uint64_t bytes_ps)
{
	char text[32];

	x->settings.bandwidth = bytes_ps;
	throttle_set(x->throttle, bytes_ps);
	if (bytes_ps == 0)
		log_info("agent: the settings are as they were; no limit of bandwidth");
	else
		log_info("agent: the settings are as they were; at most %s/s go to replicas",
		         size_format(text, sizeof text, bytes_ps));
}

static bool
same_vms(const struct settings *a, const struct settings *b)
{
	size_t i;

	for (i = 0; i < a->nvms && i < b->nvms; i++) {
		const char *x = a->vms[i].domain, *y = b->vms[i].domain;

		if (strcmp(a->vms[i].name, b->vms[i].name) != 0 ||
		    strcmp(x == NULL ? "" : x, y == NULL ? "" : y) != 0)
			return false;
	}
	return a->nvms == b->nvms;
}

/* Known, and not to be left alone. */
static bool
is_wanted(const struct settings *s, const struct settings_vm *vm)
{
	return vm != NULL && settings_goal_ms(s, vm) > 0;
}

/* Which VMs came and went. */
static void
tell_changes(const struct agent *x)
{
	size_t i;

	for (i = 0; i < x->settings.nvms; i++) {
		const char *name = x->settings.vms[i].name;
		const struct settings_vm *next = settings_vm(&x->next, name);
		const char *why = "it has no section";

		if (!is_wanted(&x->settings, &x->settings.vms[i]) || is_wanted(&x->next, next))
			continue;
		if (next != NULL)
			why = next->left_alone ? "protect = no" : "rpo = 0";
		else if (x->next.libvirt != NULL)
			why = "it has no section and libvirt has no such domain";
		log_warn("%s: not protected any more, %s; its points stay", name, why);
	}
	for (i = 0; i < x->next.nvms; i++) {
		const struct settings_vm *vm = &x->next.vms[i];

		if (is_wanted(&x->next, vm) &&
		    !is_wanted(&x->settings, settings_vm(&x->settings, vm->name)))
			log_info("%s: protected from now on", vm->name);
	}
}

/* x->next is complete: go on with it if it is another one. */
static void
take_next(struct agent *x)
{
	if (settings_same(&x->next, &x->settings) && protect_current(x->protect)) {
		set_bandwidth(x, x->next.bandwidth);
		settings_done(&x->next);
		return;
	}
	log_info("agent: reading the settings anew");
	tell_changes(x);
	x->reload = true;
	end_protection(x);
}

static bool
is_busy(const struct agent *x)
{
	return x->stopping || x->reload || x->reopen || x->lent[0] != '\0' || x->protect == NULL;
}

static void read_anew(struct agent *x, bool by_itself);

static void
note_left_out(void *arg, const char *domain, const char *state, const char *why)
{
	struct agent *x = arg;
	char *text = lc_asprintf("domain %s is left out: %s", domain, why);

	(void)state;
	if (text != NULL)
		(void)lc_buf_append(&x->left, text, strlen(text) + 1);
	lc_free(text);
}

/* Once, and again where it is not the same any more, or somebody asked. */
static void
tell_left_out(struct agent *x, bool by_itself)
{
	bool same = x->left.n == x->left_told.n &&
	            (x->left.n == 0 || memcmp(x->left.p, x->left_told.p, x->left.n) == 0);
	size_t at;

	for (at = 0; !(by_itself && same) && at < x->left.n;) {
		const char *text = (const char *)x->left.p + at;

		log_warn("%s", text);
		at += strlen(text) + 1;
	}
	lc_buf_free(&x->left_told);
	x->left_told = x->left;
	x->left = (struct lc_buf){0};
}

static void
run_discover(uv_work_t *w)
{
	struct agent *x = w->data;

	lc_err_clear(&x->asked);
	lc_buf_free(&x->left);
	(void)discover(&x->next, note_left_out, x, &x->asked);
}

static void
on_discovered(uv_work_t *w, int status)
{
	struct agent *x = w->data;

	x->asking = false;
	if (status == 0 && x->asked.code != LC_OK && !x->by_itself)
		log_error("the settings stay as they were: %s", x->asked.msg);
	if (status == 0 && x->asked.code == LC_OK)
		tell_left_out(x, x->by_itself);
	if (status != 0 || is_busy(x) || x->asked.code != LC_OK ||
	    (x->by_itself && same_vms(&x->next, &x->settings)))
		settings_done(&x->next);
	else
		take_next(x);
	if (x->hup_waits)
		read_anew(x, false);
}

/* It was so before: there is nothing to be lost by it. */
static bool
is_unknown(const struct agent *x, const char *replica)
{
	struct site_status st;
	size_t i;

	for (i = 0; i < protect_sites(x->protect); i++) {
		protect_site(x->protect, i, &st);
		if (strcmp(st.name, replica) == 0)
			return st.unknown;
	}
	return false;
}

/* What can't be gone on with is not to end what there is. */
static int
check_replicas(const struct agent *x, const struct settings *s, struct lc_err *e)
{
	char *path = path_join(s->key_dir, "host.key");
	struct identity id = {0};
	struct peer_file *list = NULL;
	bool known = false;
	size_t i, n = 0;
	int rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                      : peer_files(s->key_dir, &list, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		known = known || list[i].err.code == LC_OK;
		if (list[i].err.code == LC_OK || is_unknown(x, list[i].peer.name))
			continue;
		rc = list[i].err.code;
		*e = list[i].err;
	}
	if (rc == 0 && known)
		rc = identity_load(path, false, &id, e);
	identity_forget(&id);
	lc_free(list);
	lc_free(path);
	return rc;
}

/* Looks for domains come again and again: then it is told once, and again where it is another
 * thing. */
static void
refuse_next(struct agent *x, const char *why, bool by_itself)
{
	if (!by_itself || strcmp(x->refused.msg, why) != 0)
		log_error("the settings stay as they were: %s", why);
	lc_err_clear(&x->refused);
	(void)lc_fail(&x->refused, LC_EINVAL, 0, "%s", why);
	settings_done(&x->next);
}

/* From the file, and from libvirt, which is not waited for here. */
static void
read_anew(struct agent *x, bool by_itself)
{
	struct lc_err e = LC_ERR_INIT;

	x->hup_waits = (is_busy(x) || x->asking) && (x->hup_waits || !by_itself);
	if (is_busy(x) || x->asking)
		return;
	if (settings_load(x->args, &x->next, &e) != 0 || settings_need_store(&x->next, &e) != 0 ||
	    check_replicas(x, &x->next, &e) != 0) {
		refuse_next(x, e.msg, by_itself);
		return;
	}
	if (strcmp(x->next.store, x->settings.store) != 0) {
		refuse_next(x, "another store needs a new start", by_itself);
		return;
	}
	lc_err_clear(&x->refused);
	x->by_itself = by_itself;
	x->ask.data = x;
	if (x->next.libvirt == NULL)
		take_next(x);
	else if (uv_queue_work(&x->loop, &x->ask, run_discover, on_discovered) == 0)
		x->asking = true;
	else
		settings_done(&x->next);
}

static void
on_hup(uv_signal_t *h, int signum)
{
	(void)signum;
	read_anew(h->data, false);
}

static void
on_discover(uv_timer_t *t)
{
	struct agent *x = t->data;

	if (x->settings.libvirt != NULL)
		read_anew(x, true);
}

static void
begin(struct agent *x)
{
	struct protect_opts o = {.loop = &x->loop,
	                         .settings = &x->settings,
	                         .store = x->store,
	                         .pool = x->pool,
	                         .throttle = x->throttle,
	                         .past = x->past};
	struct lc_err e = LC_ERR_INIT;

	if (protect_start(&o, &x->protect, &e) == 0) {
		if (protect_vms(x->protect) == 0)
			log_warn("agent: no VM is protected: the settings name none%s",
			         x->settings.libvirt != NULL
			             ? "; libvirt is asked for domains now and then"
			             : "");
		tell_others(x);
		control_protect(x->control, x->protect);
		if (x->hup_waits)
			read_anew(x, false);
		return;
	}
	(void)cli_error(&e);
	x->protect = NULL;
	close_handles(x);
}

/* VMs are protected also where this fails. */
static void
take_orders(struct agent *x)
{
	char *path = path_join(x->settings.run_dir, CONTROL_FILE);
	struct control_opts o = {.loop = &x->loop, .path = path, .store = x->settings.store};
	struct desk_opts d = {
	    .loop = &x->loop, .path = x->desk_path, .owner = tenure_owner(x->tenure)};
	struct lc_err e = LC_ERR_INIT;

	if (path == NULL || control_start(&o, &x->control, &e) != 0)
		log_error("agent: other commands can't ask for anything: %s", e.msg);
	lc_free(path);
	lc_err_clear(&e);
	if (x->desk_path == NULL || desk_open(&d, &x->desk, &e) != 0)
		log_error("agent: other commands can't ask for the store: %s", e.msg);
}

static int
run_loop(struct agent *x)
{
	struct strangers_opts so = {
	    .loop = &x->loop, .settings = &x->settings, .alert = &x->alert, .rise_ns = STRANGER_NS};
	bool began;

	(void)uv_signal_init(&x->loop, &x->on_int);
	(void)uv_signal_init(&x->loop, &x->on_term);
	(void)uv_signal_init(&x->loop, &x->on_hup);
	(void)uv_timer_init(&x->loop, &x->status);
	(void)uv_timer_init(&x->loop, &x->watch);
	(void)uv_timer_init(&x->loop, &x->discover);
	x->discover.data = x;
	/* libvirtd may be about to begin, too. */
	(void)uv_timer_start(&x->discover, on_discover,
	                     x->asked.code != LC_OK ? DISCOVER_SOON_MS : DISCOVER_MS, DISCOVER_MS);
	x->on_int.data = x->on_term.data = x->on_hup.data = x->status.data = x->watch.data = x;
	(void)uv_signal_start(&x->on_int, on_stop, SIGINT);
	(void)uv_signal_start(&x->on_term, on_stop, SIGTERM);
	(void)uv_signal_start(&x->on_hup, on_hup, SIGHUP);
	(void)uv_timer_start(&x->status, on_status, STATUS_MS, STATUS_MS);
	(void)uv_timer_start(&x->watch, on_watch, REPORT_TICK_MS, REPORT_TICK_MS);
	tenure_store(x->tenure, x->store);
	if (strangers_open(&so, &x->strangers, NULL) != 0)
		log_warn("agent: VMs that nothing protects are not looked for: out of memory");
	take_orders(x);
	begin(x);
	began = x->protect != NULL;
	if (began) {
		log_info("agent: protecting into %s", x->settings.store);
		notify_service("READY=1");
	}
	(void)uv_run(&x->loop, UV_RUN_DEFAULT);
	return began && x->stopping ? CLI_DONE : CLI_FAILED;
}

static int
run_agent(const struct cli_args *a)
{
	struct agent x = {.args = a};
	struct tenure_opts to = {.loop = &x.loop, .arg = &x, .wanted = on_wanted, .back = on_back};
	struct lc_err e = LC_ERR_INIT;
	int rc, status;

	if (uv_loop_init(&x.loop) != 0)
		return CLI_FAILED;
	rc = settings_load(a, &x.settings, &e);
	rc = rc != 0 ? rc : settings_need_store(&x.settings, &e);
	/* The others are protected meanwhile; it is asked again and again. */
	if (rc == 0 && discover(&x.settings, note_left_out, &x, &x.asked) != 0)
		log_error("%s", x.asked.msg);
	tell_left_out(&x, false);
	x.desk_path = rc == 0 ? path_join(x.settings.run_dir, CONTROL_DESK_FILE) : NULL;
	rc = rc != 0 ? rc : open_store(&x, &e);
	rc = rc != 0 ? rc : dir_make(x.settings.run_dir, 0700, &e);
	if (rc == 0 && (x.status_path = path_join(x.settings.run_dir, STATUS_FILE)) == NULL)
		rc = lc_fail(&e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc
	             : capture_pool_new(&x.loop, (unsigned)x.settings.workers, BUFFER_BYTES,
	                                &x.pool, &e);
	rc = rc != 0 ? rc : throttle_new(&x.loop, x.settings.bandwidth, &x.throttle, &e);
	to.dir = x.settings.store;
	rc = rc != 0 ? rc : tenure_new(&to, &x.tenure, &e);
	status = rc != 0 ? cli_error(&e) : run_loop(&x);
	if (x.status_path != NULL)
		(void)unlink(x.status_path);
	lc_free(x.status_path);
	lc_free(x.desk_path);
	store_close(x.store);
	(void)uv_loop_close(&x.loop);
	past_free(x.past);
	lc_buf_free(&x.left);
	lc_buf_free(&x.left_told);
	settings_done(&x.settings);
	settings_done(&x.next);
	return status;
}

const struct cli_verb verb_agent = {
    .name = "agent",
    .operands = "",
    .summary = "protect the VMs of the configuration continuously",
    .details =
	"Runs until it is stopped.  It makes restore points of every VM of the configuration\n"
	"so often that the newest one that is safe is never older than the VM's goal (rpo),\n"
	"and sends them to every replica that this host is paired with.  Safe means\n"
	"durable at all of them, or here where there is none.\n"
	"\n"
	"While a replica cannot be reached its points wait in the store, as long as its\n"
	"spool_max lets them.  SIGHUP reads the configuration anew; where only the limit of\n"
	"bandwidth is another one, all goes on.\n"
	"\n"
	"The store is the agent's as long as it runs; `locum backup` has it make points at once,\n"
	"and other commands (drop, scrub, key rotate, store rebuild) work through it.\n"
	"\n"
	"Examples:\n"
	"  locum agent\n"
	"  locum status",
    .options = NULL,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_agent,
};

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <uv.h>

#include "agent/alert.h"
#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/processes.h"
#include "agent/hypervisor/settings.h"
#include "agent/strangers.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/memory.h"

#define STRANGERS_MAX 256u

struct stranger {
	char name[HV_NAME_MAX];
	char monitor[108];
	int64_t since_ns; /* monotonic */
	bool named;       /* else by its process, which is no name for long */
	bool there, told;
};

struct strangers {
	struct strangers_opts o;
	uv_timer_t timer;
	uv_work_t work;
	bool busy, closing, timer_closed;
	struct process *processes; /* the worker's, until it is done */
	size_t nprocesses;
	struct lc_err unseen; /* likewise: why they could not be listed */
	bool blind;           /* that was so, and was told */
	struct stranger list[STRANGERS_MAX];
	size_t n;
};

/* ---- who is one ---- */

static bool
is_same(const char *named, const char *found)
{
	return named != NULL && found[0] != '\0' && strcasecmp(named, found) == 0;
}

/* A section of that name may be another VM: one that is another domain, or behind a socket, where
 * this one has none but its parent holds its monitor, as libvirt does. */
static bool
is_called(const struct settings *s, const struct settings_vm *vm, const struct process *p)
{
	if (strcmp(vm->name, p->name) != 0 || (s->libvirt != NULL && vm->domain != NULL))
		return false;
	return vm->qmp == NULL || !p->held || p->monitor[0] != '\0';
}

/* By its monitor, its name or what libvirt calls it; one that Locum booted is known by its folder.
 */
static bool
is_known(const struct settings *s, const struct process *p)
{
	size_t i, n = strlen(s->run_dir);

	for (i = 0; i < s->nvms; i++) {
		const struct settings_vm *vm = &s->vms[i];

		if (is_called(s, vm, p) || is_same(vm->domain, p->name) ||
		    is_same(vm->domain, p->uuid) ||
		    (vm->qmp != NULL && strcmp(vm->qmp, p->monitor) == 0))
			return true;
	}
	return strncmp(p->monitor, s->run_dir, n) == 0 && p->monitor[n] == '/';
}

static void
name_of(const struct process *p, char *dst, size_t n)
{
	if (launch_check_name(p->name, NULL) == 0)
		(void)snprintf(dst, n, "%s", p->name);
	else
		(void)snprintf(dst, n, "pid-%d", p->pid);
}

static void
meet(struct strangers *x, const struct process *p, int64_t now)
{
	char name[HV_NAME_MAX];
	struct stranger *s;
	size_t i;

	name_of(p, name, sizeof name);
	for (i = 0; i < x->n && strcmp(x->list[i].name, name) != 0; i++)
		;
	if (i == STRANGERS_MAX)
		return;
	s = &x->list[i];
	if (i == x->n) {
		x->n++;
		*s = (struct stranger){.since_ns = now};
		(void)snprintf(s->name, sizeof s->name, "%s", name);
	}
	(void)snprintf(s->monitor, sizeof s->monitor, "%s", p->monitor);
	s->named = strcmp(p->name, name) == 0;
	s->there = true;
}

/* ---- telling ---- */

static void
tell(struct strangers *x, struct stranger *s, int64_t now)
{
	struct alert_sight sight = {.vm = s->name,
	                            .condition = ALERT_UNPROTECTED,
	                            .level = s->there ? ALARM_BAD : ALARM_OK,
	                            .rise_ns = x->o.rise_ns};
	char text[480];

	if (!s->there) {
		(void)snprintf(text, sizeof text,
		               "%s: it has ended, or the settings name it by now", s->name);
	} else if (x->o.settings->libvirt != NULL) {
		(void)snprintf(text, sizeof text,
		               "%s runs on this host, and nothing protects it: systemctl reload "
		               "locum-agent looks for VMs of libvirt anew (see: locum doctor)",
		               s->name);
	} else if (s->monitor[0] != '\0') {
		(void)snprintf(text, sizeof text,
		               "%s runs on this host, and nothing protects it: write [vm %s] and "
		               "qmp = %s into the configuration (see: locum doctor)",
		               s->name, s->named ? s->name : "NAME", s->monitor);
	} else {
		(void)snprintf(text, sizeof text,
		               "%s runs on this host, and nothing protects it: it has no monitor "
		               "for locum (see: locum doctor)",
		               s->name);
	}
	sight.text = text;
	if (s->there && !s->told && now - s->since_ns >= x->o.rise_ns) {
		s->told = true;
		log_warn("%s", text);
	}
	if (*x->o.alert != NULL)
		alert_see(*x->o.alert, &sight, now);
}

static void
look(struct strangers *x)
{
	int64_t now = clock_mono_ns();
	size_t i, kept = 0;

	for (i = 0; i < x->n; i++)
		x->list[i].there = false;
	for (i = 0; i < x->nprocesses; i++) {
		if (!is_known(x->o.settings, &x->processes[i]))
			meet(x, &x->processes[i], now);
	}
	for (i = 0; i < x->n; i++) {
		tell(x, &x->list[i], now);
		if (x->list[i].there)
			x->list[kept++] = x->list[i];
	}
	x->n = kept;
}

/* ---- looking ---- */

static void
free_if_over(struct strangers *x)
{
	if (x->closing && x->timer_closed && !x->busy)
		lc_free(x);
}

static void
do_work(uv_work_t *w)
{
	struct strangers *x = w->data;

	lc_err_clear(&x->unseen);
	(void)processes_list(x->o.proc, &x->processes, &x->nprocesses, &x->unseen);
}

/* Where nothing can be seen nobody has ended. */
static bool
can_see(struct strangers *x)
{
	bool blind = x->unseen.code != LC_OK;

	if (blind && !x->blind)
		log_warn("agent: VMs that nothing protects can't be looked for: %s", x->unseen.msg);
	x->blind = blind;
	return !blind;
}

static void
on_worked(uv_work_t *w, int status)
{
	struct strangers *x = w->data;

	x->busy = false;
	if (status == 0 && !x->closing && can_see(x))
		look(x);
	lc_free(x->processes);
	x->processes = NULL;
	x->nprocesses = 0;
	free_if_over(x);
}

static void
on_timer(uv_timer_t *t)
{
	struct strangers *x = t->data;

	if (!x->busy)
		x->busy = uv_queue_work(x->o.loop, &x->work, do_work, on_worked) == 0;
}

static void
on_closed(uv_handle_t *h)
{
	struct strangers *x = h->data;

	x->timer_closed = true;
	free_if_over(x);
}

int
strangers_open(const struct strangers_opts *o, struct strangers **out, struct lc_err *e)
{
	struct strangers *x = lc_alloc(sizeof *x);
	unsigned ms = o->tick_ms > 0 ? o->tick_ms : STRANGERS_TICK_MS;

	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	x->o = *o;
	x->timer.data = x->work.data = x;
	(void)uv_timer_init(o->loop, &x->timer);
	(void)uv_timer_start(&x->timer, on_timer, ms, ms);
	*out = x;
	return 0;
}

void
strangers_status(const struct strangers *x, FILE *f)
{
	unsigned n = 0;
	size_t i;

	(void)fprintf(f, ",\n \"unprotected\": [");
	for (i = 0; x != NULL && i < x->n; i++) {
		if (!x->list[i].told)
			continue;
		(void)fprintf(f, "%s", n++ == 0 ? "" : ", ");
		cli_json_string(f, x->list[i].name);
	}
	(void)fprintf(f, "]");
}

void
strangers_close(struct strangers *x)
{
	if (x == NULL)
		return;
	x->closing = true;
	uv_close((uv_handle_t *)&x->timer, on_closed);
	if (x->busy)
		(void)uv_cancel((uv_req_t *)&x->work);
}

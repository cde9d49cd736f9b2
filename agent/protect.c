#include <assert.h>
#include <string.h>
#include <uv.h>

#include "agent/backup.h"
#include "agent/hypervisor/settings.h"
#include "agent/lull.h"
#include "agent/others.h"
#include "agent/past.h"
#include "agent/protect.h"
#include "agent/result.h"
#include "agent/room.h"
#include "agent/schedule.h"
#include "agent/sites.h"
#include "agent/spool.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/log.h"

#define TICK_MS 50

struct guarded { /* one VM */
	struct protect *p;
	const char *name; /* borrowed from the settings */
	struct schedule schedule;
	struct backup *backup; /* while one runs */
	bool known;            /* the store has a point of it */
	struct lull *lull;
	uint64_t damage_seen; /* none of it is in the newest point */
	uint8_t vm_id[16], line[16];
	uint8_t point[POINT_ID_SIZE]; /* its newest point here ... */
	int64_t instant_ns, fresh_ns; /* ... its instant, and until when it was still so */
	int64_t began_ns;             /* it is looked after since then */
	int64_t *durable_ns;          /* [nsites] instant of the newest point there; 0: unknown */
	struct lc_err *refused;       /* [nsites] */
	uint64_t *waiting;            /* [nsites] points that it lacks; PROTECT_UNKNOWN */
	uint64_t points, failures;    /* since this process began */
	int64_t pause_ns, cycle_ns;   /* of the last cycle */
	struct lc_err err;            /* of the last cycle */
	char not_frozen[POINT_FREEZE_MAX]; /* why, as told last */
	TAILQ_HEAD(, protect_ask) asks;
	/* This cycle would not have begun without them; makes its first point, which takes long. */
	bool for_asks, first;
};

struct protect {
	struct protect_opts o;
	struct guarded *vms;         /* [n] */
	unsigned n, running, firsts; /* cycles; those that are no first ones, and those */
	struct others others;
	struct sites *sites;
	size_t nsites;
	struct spool *spool;
	uv_timer_t timer;
	struct room room;
	bool stopping, sites_gone, timer_gone, spool_gone;
	void (*stopped)(void *arg);
	void *arg;
};

/* ---- what is safe ---- */

/* A point at a site stands for all that was so until fresh_ns, if it is the newest.  Where it seems
 * to be newer than that, the clock was set back since: then it only stays as it was. */
static int64_t
safe_at(const struct guarded *g, size_t site)
{
	int64_t at = g->durable_ns[site];

	if (at > g->instant_ns)
		return g->schedule.safe_ns;
	return at != 0 && at == g->instant_ns ? g->fresh_ns : at;
}

static void
update_safe(struct guarded *g)
{
	int64_t safe = g->fresh_ns, wall = clock_wall_ns();
	size_t i;

	for (i = 0; i < g->p->nsites; i++) {
		if (safe_at(g, i) < safe)
			safe = safe_at(g, i);
	}
	if (safe != 0 && safe <= wall) /* else by another clock */
		schedule_safe(&g->schedule, safe, wall);
}

/* What comes behind the point that it has. */
static void
count_waiting(struct guarded *g, size_t site, const uint8_t *point)
{
	if (store_points_after(g->p->o.store, g->line, point, &g->waiting[site], NULL) != 0)
		g->waiting[site] = PROTECT_UNKNOWN;
}

static void
on_durable(void *arg, size_t site, const struct point *p)
{
	struct protect *x = arg;
	unsigned i;

	for (i = 0; i < x->n; i++) {
		struct guarded *g = &x->vms[i];

		if (!g->known || memcmp(g->vm_id, p->vm_id, sizeof g->vm_id) != 0)
			continue;
		if (memcmp(g->line, p->line, sizeof g->line) == 0) { /* in the order of the line */
			g->durable_ns[site] = p->source_ns;
			count_waiting(g, site, p->id);
		}
		lc_err_clear(&g->refused[site]);
		update_safe(g);
	}
}

/* What it has is what counts, not what it had. */
static void
on_heads(void *arg, size_t site, const struct witness_point *list, size_t n)
{
	static const uint8_t none[POINT_ID_SIZE];
	struct protect *x = arg;
	unsigned i;
	size_t k;

	for (i = 0; i < x->n; i++) {
		struct guarded *g = &x->vms[i];
		const struct witness_point *has = NULL;

		for (k = 0; k < n; k++) {
			if (g->known && memcmp(g->line, list[k].line, sizeof g->line) == 0)
				has = &list[k];
		}
		g->durable_ns[site] = has == NULL ? 0 : has->source_ns;
		count_waiting(g, site, has == NULL ? none : has->id);
		if (safe_at(g, site) < g->schedule.safe_ns)
			schedule_unsafe(&g->schedule, safe_at(g, site));
		update_safe(g);
	}
}

static void
on_refused(void *arg, size_t site, const uint8_t vm[16], const struct lc_err *why)
{
	struct protect *x = arg;
	unsigned i;

	for (i = 0; i < x->n; i++) {
		if (x->vms[i].known && memcmp(x->vms[i].vm_id, vm, 16) == 0)
			x->vms[i].refused[site] = *why;
	}
}

/* A site that has all there is has the newest point of each VM. */
static void
on_sites(void *arg)
{
	struct protect *x = arg;
	struct site_status st;
	unsigned i;
	size_t k;

	for (k = 0; x->sites != NULL && k < x->nsites; k++) {
		sites_status(x->sites, k, &st);
		for (i = 0; st.has_all && i < x->n; i++) {
			x->vms[i].durable_ns[k] = x->vms[i].instant_ns;
			x->vms[i].waiting[k] = 0;
			update_safe(&x->vms[i]);
		}
	}
}

/* ---- cycles ---- */

static void end_if_over(struct protect *x);

static void
take_point(struct guarded *g, const struct backup_result *r)
{
	size_t i;

	g->known = true;
	memcpy(g->vm_id, r->point.vm_id, sizeof g->vm_id);
	memcpy(g->line, r->point.line, sizeof g->line);
	memcpy(g->point, r->point.id, sizeof g->point);
	g->instant_ns = r->point.source_ns;
	g->pause_ns = r->point.pause_ns;
	g->cycle_ns = r->took_ns;
	lc_err_clear(&g->err);
	if (r->outcome == BACKUP_UNCHANGED) {
		g->fresh_ns = clock_wall_ns() - r->took_ns;
	} else {
		result_tell_freeze(r, g->not_frozen);
		result_tell_reading(r);
		g->fresh_ns = r->point.source_ns;
		g->points++;
		for (i = 0; i < g->p->nsites; i++)
			g->waiting[i] += g->waiting[i] != PROTECT_UNKNOWN;
	}
}

/* The asks that this cycle, or none, was for. */
static void
answer(struct guarded *g, const struct backup_result *r, bool begun)
{
	struct protect_ask *ask, *next;

	for (ask = TAILQ_FIRST(&g->asks); ask != NULL; ask = next) {
		next = TAILQ_NEXT(ask, entry);
		if (ask->begun != begun)
			continue;
		TAILQ_REMOVE(&g->asks, ask, entry);
		ask->guarded = NULL;
		ask->done(ask, r);
	}
}

static void
on_backup(void *arg, struct backup_result *r)
{
	struct guarded *g = arg;
	struct protect *x = g->p;
	bool ok = r->outcome != BACKUP_FAILED;

	g->backup = NULL;
	*(g->first ? &x->firsts : &x->running) -= 1;
	if (ok) {
		if (g->err.code != LC_OK)
			log_info("%s: protected again", g->name);
		take_point(g, r);
		update_safe(g);
		/* One that is late may have failed at a replica: it is tried again. */
		if (x->sites != NULL && (r->outcome == BACKUP_DONE || g->schedule.late))
			sites_wake(x->sites, r->point.line);
	} else if (r->err.code != LC_ECANCELED) {
		if (g->err.code == LC_OK || strcmp(g->err.msg, r->err.msg) != 0)
			log_error("%s", r->err.msg);
		g->err = r->err;
		g->failures++;
	}
	/* One that nobody wanted any more has not failed. */
	schedule_done(&g->schedule, clock_mono_ns(), ok || r->err.code == LC_ECANCELED);
	answer(g, r, true);
	point_done(&r->point);
	end_if_over(x);
}

static uint64_t
room(void *arg, int64_t since_ns)
{
	struct protect *x = arg;

	return room_left(&x->room, x->spool, x->sites, x->firsts, since_ns);
}

static void
begin_cycle(struct guarded *g)
{
	struct backup_opts o = {.loop = g->p->o.loop,
	                        .store = g->p->o.store,
	                        .pool = g->p->o.pool,
	                        .settings = g->p->o.settings,
	                        .vm = g->name,
	                        .skip_same = TAILQ_EMPTY(&g->asks),
	                        .room = g->known ? NULL : room, /* the others are small */
	                        .room_arg = g->p,
	                        .lull = g->lull,
	                        .damage_seen = &g->damage_seen};
	struct backup_result failed = {.vm = g->name};
	int64_t now = clock_mono_ns();
	struct protect_ask *ask;

	g->for_asks = g->schedule.due_ns > now;
	TAILQ_FOREACH (ask, &g->asks, entry)
		ask->begun = true;
	schedule_begin(&g->schedule, now);
	g->first = !g->known;
	*(g->first ? &g->p->firsts : &g->p->running) += 1;
	if (backup_start(&o, on_backup, g, &g->backup, &failed.err) != 0)
		on_backup(g, &failed);
}

/* First points count by themselves: a VM with a small goal is not to wait for what reads whole
 * disks of others. */
static bool
has_room(const struct protect *x, bool first)
{
	uint64_t jobs = x->o.settings->jobs == 0 ? 1 : x->o.settings->jobs;

	return (first ? (uint64_t)x->firsts + x->others.running : x->running) < jobs;
}

/* The one that is due for longest, and may begin; NULL: none is. */
static struct guarded *
most_due(struct protect *x, int64_t now)
{
	struct guarded *best = NULL;
	unsigned i;

	for (i = 0; i < x->n; i++) {
		struct guarded *g = &x->vms[i];

		if (g->backup != NULL || !has_room(x, !g->known))
			continue;
		if (!TAILQ_EMPTY(&g->asks))
			return g;
		if (g->schedule.due_ns <= now &&
		    (best == NULL || g->schedule.due_ns < best->schedule.due_ns))
			best = g;
	}
	return best;
}

/* Whether a replica lacks something that is here, or can't be asked. */
static bool
something_waits(const struct protect *x)
{
	struct site_status st;
	size_t k;

	for (k = 0; x->sites != NULL && k < x->nsites; k++) {
		sites_status(x->sites, k, &st);
		if (!st.up || !st.has_all)
			return true;
	}
	return false;
}

/* Changes collect in the VMs until there is room.  Where nothing waits, what fills the store is not
 * what a replica could take: maps, and what was left of attempts that failed, which the next point
 * makes use of. */
static bool
spent(const struct protect *x)
{
	struct spool_status st = {.spent = false};

	return protect_spool(x, &st) && st.spent;
}

/* ---- asks ---- */

/* A VM that is not protected. */
static void
on_other_made(void *arg, const uint8_t *line)
{
	struct protect *x = arg;

	if (x->sites != NULL)
		sites_wake(x->sites, line);
}

static void
on_other_over(void *arg)
{
	end_if_over(arg);
}

int
protect_ask(struct protect *x, struct protect_ask *ask, struct lc_err *e)
{
	unsigned i;

	ask->guarded = NULL;
	ask->other = NULL;
	ask->begun = false;
	if (x->stopping)
		return lc_fail(e, LC_ECANCELED, 0, "%s: the agent is stopping", ask->vm);
	for (i = 0; i < x->n; i++) {
		if (ask->import == NULL && strcmp(x->vms[i].name, ask->vm) == 0)
			ask->guarded = &x->vms[i];
	}
	if (ask->guarded == NULL)
		return others_ask(&x->others, ask, e);
	TAILQ_INSERT_TAIL(&ask->guarded->asks, ask, entry);
	return 0;
}

static bool
is_asked_for(const struct guarded *g)
{
	const struct protect_ask *ask;

	TAILQ_FOREACH (ask, &g->asks, entry) {
		if (ask->begun)
			return true;
	}
	return false;
}

void
protect_unask(struct protect_ask *ask)
{
	struct guarded *g = ask->guarded;
	struct other *o = ask->other;

	ask->guarded = NULL;
	ask->other = NULL;
	if (g != NULL) {
		TAILQ_REMOVE(&g->asks, ask, entry);
		if (g->backup != NULL && g->for_asks && !is_asked_for(g))
			backup_cancel(g->backup);
	} else if (o != NULL) {
		others_unask(o);
	}
}

bool
protect_asked(const struct protect_ask *ask, struct backup_progress *out)
{
	const struct backup *b = ask->guarded != NULL ? ask->guarded->backup
	                         : ask->other != NULL ? others_backup(ask->other)
	                                              : NULL;

	if (!ask->begun || b == NULL)
		return false;
	backup_progress(b, out);
	return true;
}

/* What has not begun. */
static void
turn_asks_away(struct protect *x, enum lc_code code, const char *why)
{
	struct backup_result r = {.outcome = BACKUP_FAILED};
	unsigned i;

	for (i = 0; i < x->n; i++) {
		if (TAILQ_EMPTY(&x->vms[i].asks))
			continue;
		r.vm = x->vms[i].name;
		lc_err_clear(&r.err);
		(void)lc_fail(&r.err, code, 0, "%s: %s", r.vm, why);
		answer(&x->vms[i], &r, false);
	}
	others_turn_away(&x->others, code, why);
}

static void
watch(struct guarded *g)
{
	int64_t wall = clock_wall_ns(), lag = schedule_lag(&g->schedule, wall);
	char is[32], goal[32];

	/* Before the first cycle there is nothing to miss. */
	if (lag < 0 && clock_mono_ns() - g->began_ns < g->schedule.goal_ns)
		return;
	if (!schedule_watch(&g->schedule, wall))
		return;
	(void)clock_format_duration(goal, sizeof goal, g->schedule.goal_ns);
	if (!g->schedule.late)
		log_info("%s: within its goal of %s again", g->name, goal);
	else if (lag < 0)
		log_warn("%s: nothing of it is safe yet (goal: %s)", g->name, goal);
	else
		log_warn("%s: its newest safe state is %s old (goal: %s)", g->name,
		         clock_format_duration(is, sizeof is, lag), goal);
}

static uint64_t
running(const struct protect *x)
{
	return (uint64_t)x->running + x->firsts + x->others.running;
}

static void
on_timer(uv_timer_t *t)
{
	struct protect *x = t->data;
	struct guarded *g;
	unsigned i;

	if (!x->stopping && spent(x))
		turn_asks_away(x, LC_ENOSPC,
		               "the store has used up its spool_max, and no replica has "
		               "taken what is in it");
	while (!x->stopping && !spent(x) && (g = most_due(x, clock_mono_ns())) != NULL)
		begin_cycle(g);
	while (!x->stopping && has_room(x, true) && others_begin(&x->others))
		;
	if (x->sites != NULL && running(x) > 0)
		sites_look(x->sites);
	for (i = 0; i < x->n; i++)
		watch(&x->vms[i]);
}

/* ---- begin and end ---- */

/* What the store knows of it already. */
static void
look_back(struct guarded *g)
{
	struct point p = {.ndisks = 0};

	if (store_find(g->p->o.store, g->name, &p, NULL) == 0) {
		g->known = true;
		memcpy(g->vm_id, p.vm_id, sizeof g->vm_id);
		memcpy(g->line, p.line, sizeof g->line);
		memcpy(g->point, p.id, sizeof g->point);
		g->instant_ns = g->fresh_ns = p.source_ns;
	}
	point_done(&p);
}

/* What it had been told before it began anew; the replicas say it again once they are there. */
static void
remember(struct guarded *g)
{
	const struct past *past = g->p->o.past;
	const struct past_vm *was = past_find(past, g->name);
	struct site_status st;
	size_t k;

	g->began_ns = clock_mono_ns();
	if (was == NULL)
		return;
	g->began_ns = was->began_ns;
	g->points = was->points;
	g->failures = was->failures;
	if (!g->known || memcmp(was->line, g->line, sizeof g->line) != 0)
		return;
	schedule_keep(&g->schedule, &was->schedule);
	if (was->instant_ns == g->instant_ns)
		g->fresh_ns = was->fresh_ns;
	for (k = 0; k < g->p->nsites; k++) {
		sites_status(g->p->sites, k, &st);
		past_site(past, was, st.name, &g->durable_ns[k], &g->refused[k]);
		if (safe_at(g, k) < g->schedule.safe_ns)
			schedule_unsafe(&g->schedule, safe_at(g, k));
	}
}

static int
make_vms(struct protect *x, struct lc_err *e)
{
	const struct settings *s = x->o.settings;
	unsigned want = 0;
	size_t i, k;

	for (i = 0; i < s->nvms; i++)
		want += settings_goal_ms(s, &s->vms[i]) > 0 ? 1 : 0;
	if (want == 0 && s->libvirt == NULL && x->o.past == NULL) /* it may have one later */
		return lc_fail(e, LC_ENOENT, 0,
		               "%s names no VM to protect (a section [vm NAME] each)",
		               s->origin == NULL ? "no configuration" : s->origin);
	x->vms = lc_alloc_array(want + 1, sizeof *x->vms);
	if (x->vms == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; i < s->nvms; i++) {
		struct guarded *g = &x->vms[x->n];

		if (settings_goal_ms(s, &s->vms[i]) == 0)
			continue;
		g->p = x;
		TAILQ_INIT(&g->asks);
		g->name = s->vms[i].name;
		g->durable_ns = lc_alloc_array(x->nsites + 1, sizeof *g->durable_ns);
		g->refused = lc_alloc_array(x->nsites + 1, sizeof *g->refused);
		g->waiting = lc_alloc_array(x->nsites + 1, sizeof *g->waiting);
		g->lull = lull_new(); /* NULL: it is looked at in full */
		if (g->durable_ns == NULL || g->refused == NULL || g->waiting == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "out of memory");
		for (k = 0; k < x->nsites; k++)
			g->waiting[k] = PROTECT_UNKNOWN;
		look_back(g);
		/* What has no point yet gets one at once. */
		schedule_init(&g->schedule, settings_goal_ms(s, &s->vms[i]) * LC_NS_PER_MS,
		              clock_mono_ns(), g->known ? x->n : 0, want);
		remember(g);
		update_safe(g);
		x->n++;
	}
	return 0;
}

static void
free_protect(struct protect *x)
{
	unsigned i;

	for (i = 0; i < x->n; i++) {
		lc_free(x->vms[i].durable_ns);
		lc_free(x->vms[i].refused);
		lc_free(x->vms[i].waiting);
		lull_free(x->vms[i].lull);
	}
	lc_free(x->vms);
	lc_free(x);
}

int
protect_start(const struct protect_opts *o, struct protect **out, struct lc_err *e)
{
	struct protect *x = lc_alloc(sizeof *x);
	struct sites_opts so = {.loop = o->loop,
	                        .settings = o->settings,
	                        .store = o->store,
	                        .throttle = o->throttle,
	                        .events = {.arg = x,
	                                   .durable = on_durable,
	                                   .heads = on_heads,
	                                   .refused = on_refused,
	                                   .changed = on_sites}};
	struct spool_opts po = {.loop = o->loop,
	                        .store = o->store,
	                        .key_dir = o->settings->key_dir,
	                        .max = o->settings->spool_max};
	int rc;

	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	x->o = *o;
	others_init(&x->others, &x->o, on_other_made, on_other_over, x);
	rc = sites_start(&so, &x->sites, e);
	if (rc == 0) {
		x->nsites = sites_count(x->sites);
		rc = make_vms(x, e);
		if (rc == 0 && o->past == NULL)
			sites_recall(x->sites);
		rc = rc != 0 ? rc : spool_start(&po, &x->spool, e);
		if (rc != 0)
			sites_stop(x->sites, NULL, NULL);
	}
	if (rc != 0) {
		free_protect(x);
		return rc;
	}
	(void)uv_timer_init(o->loop, &x->timer);
	x->timer.data = x;
	(void)uv_timer_start(&x->timer, on_timer, 0, TICK_MS);
	*out = x;
	return 0;
}

static void
end_if_over(struct protect *x)
{
	if (!x->stopping || running(x) > 0 || !x->sites_gone || !x->timer_gone || !x->spool_gone)
		return;
	x->stopped(x->arg);
	free_protect(x);
}

static void
on_sites_gone(void *arg)
{
	struct protect *x = arg;

	x->sites_gone = true;
	end_if_over(x);
}

static void
on_spool_gone(void *arg)
{
	struct protect *x = arg;

	x->spool_gone = true;
	end_if_over(x);
}

static void
on_timer_gone(uv_handle_t *h)
{
	struct protect *x = h->data;

	x->timer_gone = true;
	end_if_over(x);
}

void
protect_stop(struct protect *x, void (*stopped)(void *arg), void *arg)
{
	struct sites *s = x->sites;
	struct spool *spool = x->spool;
	unsigned i;

	assert(!x->stopping);
	x->stopping = true;
	x->stopped = stopped;
	x->arg = arg;
	uv_close((uv_handle_t *)&x->timer, on_timer_gone);
	turn_asks_away(x, LC_ECANCELED, "the agent stops or reads its settings anew");
	others_cancel(&x->others);
	for (i = 0; i < x->n; i++) {
		if (x->vms[i].backup != NULL)
			backup_cancel(x->vms[i].backup);
	}
	x->sites = NULL;
	x->spool = NULL;
	spool_stop(spool, on_spool_gone, x);
	sites_stop(s, on_sites_gone, x);
}

/* ---- status ---- */

const char *const protect_states[PROTECT_STATES] = {"protected", "beginning", "late", "failing",
                                                    "waiting"};

static const char *
state_of(const struct guarded *g)
{
	if (g->err.code != LC_OK)
		return protect_states[3];
	if (spent(g->p))
		return protect_states[4];
	if (g->schedule.safe_ns == 0)
		return protect_states[1];
	return protect_states[g->schedule.late ? 2 : 0];
}

/* Until its next state is safe. */
static int64_t
left(const struct guarded *g, int64_t now)
{
	const struct schedule *s = &g->schedule;
	bool on_its_way = g->backup != NULL || g->fresh_ns > s->safe_ns;
	int64_t begin = on_its_way ? s->begun_ns : s->due_ns > now ? s->due_ns : now;
	int64_t end = begin + s->delay_ns;
	struct site_status st;
	size_t k;

	if (g->err.code != LC_OK || spent(g->p))
		return INT64_MAX;
	for (k = 0; g->p->sites != NULL && k < g->p->nsites; k++) {
		sites_status(g->p->sites, k, &st);
		if (!st.up)
			return INT64_MAX;
	}
	return end > now ? end - now : 0;
}

size_t
protect_vms(const struct protect *x)
{
	return x->n;
}

void
protect_vm(const struct protect *x, size_t i, struct vm_status *out)
{
	const struct guarded *g = &x->vms[i];
	int64_t wall = clock_wall_ns(), now = clock_mono_ns();

	*out = (struct vm_status){.name = g->name,
	                          .state = state_of(g),
	                          .goal_ns = g->schedule.goal_ns,
	                          .lag_ns = schedule_lag(&g->schedule, wall),
	                          .worst_ns = schedule_worst(&g->schedule, wall),
	                          .age_ns = now - g->began_ns,
	                          .left_ns = left(g, now),
	                          .point = g->known ? g->point : NULL,
	                          .instant_ns = g->instant_ns,
	                          .fresh_ns = g->fresh_ns,
	                          .line = g->line,
	                          .behind = g->schedule.safe_ns != 0 &&
	                                    g->schedule.safe_ns < g->instant_ns,
	                          .schedule = &g->schedule,
	                          .points = g->points,
	                          .failures = g->failures,
	                          .pause_ns = g->pause_ns,
	                          .cycle_ns = g->cycle_ns,
	                          .err = &g->err,
	                          .durable_ns = g->durable_ns,
	                          .refused = g->refused,
	                          .waiting = g->waiting};
}

bool
protect_current(const struct protect *x)
{
	return x->sites != NULL && sites_current(x->sites, x->o.settings->key_dir);
}

size_t
protect_sites(const struct protect *x)
{
	return x->sites == NULL ? 0 : x->nsites;
}

void
protect_site(const struct protect *x, size_t i, struct site_status *out)
{
	sites_status(x->sites, i, out);
}

bool
protect_spool(const struct protect *x, struct spool_status *out)
{
	if (x->spool == NULL)
		return false;
	spool_status(x->spool, out);
	out->spent = out->spent && something_waits(x);
	return out->max > 0;
}

const struct protect_opts *
protect_options(const struct protect *x)
{
	return &x->o;
}

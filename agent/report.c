#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "agent/alert.h"
#include "agent/hypervisor/settings.h"
#include "agent/past.h"
#include "agent/protect.h"
#include "agent/report.h"
#include "agent/schedule.h"
#include "agent/sites.h"
#include "agent/spool.h"
#include "replicator/metrics.h"
#include "store/base/clock.h"
#include "store/base/config.h"

#define LINK_UP_NS (5 * LC_NS_PER_S) /* until it is up again */
#define QUOTA_NEAR 90                /* percent: then it is told ... */
#define QUOTA_OK 85                  /* ... and that it is over, then */
#define OLDER_NS (60 * LC_NS_PER_S)
#define SPENT_NS (10 * LC_NS_PER_S) /* a first point uses the spool up for a moment, and again */

/* ---- metrics ---- */

static double
seconds(int64_t ns)
{
	return (double)ns / 1e9;
}

static double
goal(const struct vm_status *v)
{
	return seconds(v->goal_ns);
}

/* Where nothing is safe, no goal is kept: a missing sample would trigger no rule. */
static double
lag(const struct vm_status *v)
{
	return v->lag_ns < 0 ? INFINITY : seconds(v->lag_ns);
}

static double
worst(const struct vm_status *v)
{
	return seconds(v->worst_ns);
}

static double
newest(const struct vm_status *v)
{
	return v->point == NULL ? 0 : seconds(v->instant_ns);
}

static double
points(const struct vm_status *v)
{
	return (double)v->points;
}

static double
failures(const struct vm_status *v)
{
	return (double)v->failures;
}

static double
cycle(const struct vm_status *v)
{
	return seconds(v->cycle_ns);
}

static double
pause_of(const struct vm_status *v)
{
	return seconds(v->pause_ns);
}

/* Those of them first that are known also of VMs that nobody protects at the moment. */
#define OF_PAST 2u

static const struct {
	const char *name, *type, *help;
	double (*value)(const struct vm_status *v);
} of_vm[] = {
    {"locum_vm_goal_seconds", "gauge", "How old the newest safe state may get (rpo).", goal},
    {"locum_vm_lag_seconds", "gauge", "How old the newest safe state is; +Inf: there is none.",
     lag},
    {"locum_vm_worst_lag_seconds", "gauge", "The worst lag of the last 24 hours.", worst},
    {"locum_vm_last_point_timestamp_seconds", "gauge",
     "Instant of the newest restore point here; 0: there is none.", newest},
    {"locum_vm_points_total", "counter", "Restore points made.", points},
    {"locum_vm_failures_total", "counter", "Attempts that failed.", failures},
    {"locum_vm_cycle_seconds", "gauge", "How long the last one took.", cycle},
    {"locum_vm_pause_seconds", "gauge", "For how long it held the guest up.", pause_of},
};

static double
up(const struct site_status *s)
{
	return s->up ? 1 : 0;
}

static double
has_all(const struct site_status *s)
{
	return s->has_all ? 1 : 0;
}

static double
since(const struct site_status *s)
{
	return seconds(s->since_ns);
}

static double
points_sent(const struct site_status *s)
{
	return (double)s->points;
}

static double
bytes_sent(const struct site_status *s)
{
	return (double)s->sent;
}

static double
ahead(const struct site_status *s)
{
	return seconds(s->ahead_ns);
}

static double
lost(const struct site_status *s)
{
	return seconds(s->lost_ns);
}

static double
damaged(const struct site_status *s)
{
	return (double)s->damaged;
}

static double
quota(const struct site_status *s)
{
	return (double)s->room_max;
}

static double
quota_used(const struct site_status *s)
{
	return (double)s->room_used;
}

static const struct {
	const char *name, *type, *help;
	double (*value)(const struct site_status *s);
} of_replica[] = {
    {"locum_replica_up", "gauge", "Whether it is connected.", up},
    {"locum_replica_since_timestamp_seconds", "gauge", "Since when that is so; 0: not known yet.",
     since},
    {"locum_replica_has_all", "gauge", "Whether it has every point that is here.", has_all},
    {"locum_replica_sent_points_total", "counter", "Points that it has acknowledged.", points_sent},
    {"locum_replica_sent_bytes_total", "counter", "Bytes sent.", bytes_sent},
    {"locum_replica_damaged", "gauge",
     "Contents of this host that are damaged there, and maps of VMs.", damaged},
    {"locum_replica_quota_bytes", "gauge",
     "What this host's store may take there; 0: any number, or not known.", quota},
    {"locum_replica_quota_used_bytes", "gauge", "What it takes, where there is a quota.",
     quota_used},
    {"locum_replica_clock_ahead_seconds", "gauge", "Its clock before this host's.", ahead},
    {"locum_replica_lost_points_timestamp_seconds", "gauge",
     "When it lacked points that it had acknowledged last; 0: never.", lost},
};

static void
vm_states(const struct protect *p, FILE *f)
{
	struct vm_status v;
	size_t i, k;

	metrics_family(f, "locum_vm_state", "gauge", "1 for the state that it is in.");
	for (i = 0; i < protect_vms(p); i++) {
		protect_vm(p, i, &v);
		for (k = 0; k < PROTECT_STATES; k++) {
			const struct metrics_label l[] = {{"vm", v.name},
			                                  {"state", protect_states[k]}};

			metrics_sample(f, "locum_vm_state", l, 2,
			               strcmp(v.state, protect_states[k]) == 0 ? 1 : 0);
		}
	}
}

static void
spool_metrics(const struct protect *p, FILE *f)
{
	struct spool_status st;

	if (!protect_spool(p, &st))
		return;
	metrics_family(f, "locum_spool_bytes", "gauge", "What the store holds here.");
	metrics_sample(f, "locum_spool_bytes", NULL, 0, (double)st.bytes);
	metrics_family(f, "locum_spool_max_bytes", "gauge", "What it may hold (spool_max).");
	metrics_sample(f, "locum_spool_max_bytes", NULL, 0, (double)st.max);
	metrics_family(f, "locum_spool_spent", "gauge", "Whether no points are made for that.");
	metrics_sample(f, "locum_spool_spent", NULL, 0, st.spent ? 1 : 0);
	metrics_family(f, "locum_spool_dropped_bytes_total", "counter",
	               "Bytes that were dropped, as all replicas have them.");
	metrics_sample(f, "locum_spool_dropped_bytes_total", NULL, 0, (double)st.dropped);
}

static double
replicated(const struct vm_status *v, size_t k)
{
	return seconds(v->durable_ns[k]);
}

static double
refused(const struct vm_status *v, size_t k)
{
	return v->refused[k].code == LC_OK ? 0 : 1;
}

static double
waiting(const struct vm_status *v, size_t k)
{
	return v->waiting[k] == PROTECT_UNKNOWN ? NAN : (double)v->waiting[k];
}

static const struct {
	const char *name, *help;
	double (*value)(const struct vm_status *v, size_t k);
} of_both[] = {
    {"locum_vm_replicated_timestamp_seconds",
     "Instant of the newest restore point at the replica; 0: not known.", replicated},
    {"locum_vm_refused", "Whether the replica did not take the last point.", refused},
    {"locum_vm_waiting_points", "Restore points here that the replica lacks; NaN: not known.",
     waiting},
};

static void
at_replicas(const struct protect *p, FILE *f)
{
	struct site_status s;
	struct vm_status v;
	size_t i, k, m;

	for (m = 0; m < sizeof of_both / sizeof of_both[0]; m++) {
		metrics_family(f, of_both[m].name, "gauge", of_both[m].help);
		for (i = 0; i < protect_vms(p) * protect_sites(p); i++) {
			struct metrics_label l[2];

			k = i % protect_sites(p);
			protect_vm(p, i / protect_sites(p), &v);
			protect_site(p, k, &s);
			l[0] = (struct metrics_label){"vm", v.name};
			l[1] = (struct metrics_label){"replica", s.name};
			metrics_sample(f, of_both[m].name, l, 2, of_both[m].value(&v, k));
		}
	}
}

/* What can be said of it now. */
static struct vm_status
status_of_past(const struct past_vm *was)
{
	return (struct vm_status){.name = was->name,
	                          .goal_ns = was->schedule.goal_ns,
	                          .lag_ns = schedule_lag(&was->schedule, clock_wall_ns()),
	                          .age_ns = clock_mono_ns() - was->began_ns};
}

static void
past_metrics(const struct past *past, FILE *f)
{
	size_t i, k, n;
	const struct past_vm *list = past_vms(past, &n);

	for (k = 0; n > 0 && k < OF_PAST; k++) {
		metrics_family(f, of_vm[k].name, of_vm[k].type, of_vm[k].help);
		for (i = 0; i < n; i++) {
			struct vm_status v = status_of_past(&list[i]);

			metrics_sample(f, of_vm[k].name, &(struct metrics_label){"vm", v.name}, 1,
			               of_vm[k].value(&v));
		}
	}
}

void
report_metrics(const struct protect *p, const struct past *past, FILE *f)
{
	const struct metrics_label version = {"version", LOCUM_VERSION};
	struct site_status s;
	struct vm_status v;
	size_t i, k;

	metrics_family(f, "locum_agent_info", "gauge", "What runs here.");
	metrics_sample(f, "locum_agent_info", &version, 1, 1);
	if (p == NULL) {
		past_metrics(past, f);
		return;
	}
	for (k = 0; k < sizeof of_vm / sizeof of_vm[0]; k++) {
		metrics_family(f, of_vm[k].name, of_vm[k].type, of_vm[k].help);
		for (i = 0; i < protect_vms(p); i++) {
			protect_vm(p, i, &v);
			metrics_sample(f, of_vm[k].name, &(struct metrics_label){"vm", v.name}, 1,
			               of_vm[k].value(&v));
		}
	}
	vm_states(p, f);
	for (k = 0; k < sizeof of_replica / sizeof of_replica[0]; k++) {
		metrics_family(f, of_replica[k].name, of_replica[k].type, of_replica[k].help);
		for (i = 0; i < protect_sites(p); i++) {
			protect_site(p, i, &s);
			metrics_sample(f, of_replica[k].name,
			               &(struct metrics_label){"replica", s.name}, 1,
			               of_replica[k].value(&s));
		}
	}
	at_replicas(p, f);
	spool_metrics(p, f);
}

/* ---- alerts ---- */

static void
see_goal(struct alert *a, const struct vm_status *v, int64_t now)
{
	struct alarm_rpo in = {.goal_ns = v->goal_ns,
	                       .lag_ns = v->lag_ns,
	                       .age_ns = v->age_ns,
	                       .behind = v->behind,
	                       .left_ns = v->left_ns};
	struct alert_sight x = {.vm = v->name,
	                        .condition = ALERT_RPO,
	                        .level = alarm_rpo(&in),
	                        .fall_ns = alarm_rpo_fall_ns(v->goal_ns)};
	char text[256], is[32], to_be[32];

	(void)clock_format_duration(to_be, sizeof to_be, v->goal_ns);
	if (x.level == ALARM_OK)
		(void)snprintf(text, sizeof text, "%s: within its goal of %s again", v->name,
		               to_be);
	else if (v->lag_ns < 0)
		(void)snprintf(text, sizeof text, "%s: nothing of it is safe yet (goal: %s)",
		               v->name, to_be);
	else
		(void)snprintf(text, sizeof text, "%s: its newest safe state is %s old (goal: %s)",
		               v->name, clock_format_duration(is, sizeof is, v->lag_ns), to_be);
	x.text = text;
	alert_see(a, &x, now);
}

static void
see_cycle(struct alert *a, const struct vm_status *v, int64_t now)
{
	struct alert_sight x = {.vm = v->name, .condition = ALERT_CYCLE};
	bool bad = v->err->code != LC_OK;
	char text[256];

	(void)snprintf(text, sizeof text, "%s: protected again", v->name);
	x.level = bad ? ALARM_BAD : v->cycle_ns > 0 ? ALARM_OK : ALARM_UNKNOWN; /* not tried yet */
	x.text = bad ? v->err->msg : text;
	alert_see(a, &x, now);
}

static void
see_link(struct alert *a, const struct site_status *s, int64_t patience, int64_t now)
{
	struct alert_sight x = {.replica = s->name,
	                        .condition = ALERT_LINK,
	                        .level = s->up              ? ALARM_OK
	                                 : s->since_ns == 0 ? ALARM_UNKNOWN
	                                                    : ALARM_BAD,
	                        .rise_ns = patience,
	                        .fall_ns = LINK_UP_NS};
	char text[640];

	if (s->up)
		(void)snprintf(text, sizeof text, "replica %s: connected again", s->name);
	else
		(void)snprintf(text, sizeof text, "replica %s: not connected: %s", s->name,
		               s->err.msg);
	x.text = text;
	alert_see(a, &x, now);
}

/* What seems to lie ahead is of a clock that was set back since, and may be long ago. */
static bool
was_just(int64_t wall_ns)
{
	int64_t age = clock_wall_ns() - wall_ns;

	return age >= 0 && age < OLDER_NS;
}

/* Told also where all was sent again before anybody looked. */
static void
see_older(struct alert *a, const struct site_status *s, int64_t now)
{
	bool now_or_just = s->older || was_just(s->lost_ns);
	struct alert_sight x = {.replica = s->name,
	                        .condition = ALERT_OLDER,
	                        .level = now_or_just    ? ALARM_BAD
	                                 : s->was_whole ? ALARM_OK
	                                                : ALARM_UNKNOWN};
	char text[320];

	if (now_or_just) {
		(void)snprintf(text, sizeof text,
		               "replica %s: it came back without points that it had acknowledged "
		               "(an older copy of its folder?); they are sent again",
		               s->name);
	} else {
		(void)snprintf(text, sizeof text, "replica %s: it has all points again", s->name);
	}
	x.text = text;
	alert_see(a, &x, now);
}

/* Likewise. */
static void
see_damaged(struct alert *a, const struct site_status *s, int64_t now)
{
	bool now_or_just = s->damaged > 0 || was_just(s->damaged_ns);
	struct alert_sight x = {.replica = s->name,
	                        .condition = ALERT_DAMAGED,
	                        .level = now_or_just       ? ALARM_BAD
	                                 : s->damage_known ? ALARM_OK
	                                                   : ALARM_UNKNOWN};
	char text[1400];

	(void)snprintf(text, sizeof text, "replica %s: %s", s->name,
	               s->damage != NULL ? s->damage
	               : now_or_just     ? "contents of this host were damaged there; they were "
	                                   "sent again: is its disk failing?"
	                                 : "what was damaged there is whole again");
	x.text = text;
	alert_see(a, &x, now);
}

/* Between the two marks it stays as it is.  A quota is told of before all is there. */
static enum alarm_level
quota_level(const struct site_status *s)
{
	double percent;

	if (s->room_max == 0)
		return s->has_all ? ALARM_OK : ALARM_UNKNOWN;
	percent = (double)s->room_used * 100 / (double)s->room_max;
	return percent >= 100          ? ALARM_BAD
	       : percent >= QUOTA_NEAR ? ALARM_NEAR
	       : percent >= QUOTA_OK   ? ALARM_UNKNOWN
	                               : ALARM_OK;
}

static void
see_quota(struct alert *a, const struct site_status *s, int64_t now)
{
	struct alert_sight x = {.replica = s->name, .condition = ALERT_QUOTA};
	char text[256], used[32], max[32];

	if (s->room_max == 0)
		(void)snprintf(text, sizeof text, "replica %s: this host has no quota there",
		               s->name);
	else
		(void)snprintf(text, sizeof text,
		               "replica %s: %s used of the %s that this host may have", s->name,
		               size_format(used, sizeof used, s->room_used),
		               size_format(max, sizeof max, s->room_max));
	x.level = quota_level(s);
	x.text = text;
	alert_see(a, &x, now);
}

static void
see_refused(struct alert *a, const struct vm_status *v, const struct site_status *s, size_t k,
            int64_t now)
{
	const struct lc_err *why = &v->refused[k];
	struct alert_sight x = {.vm = v->name,
	                        .replica = s->name,
	                        .condition = ALERT_REFUSED,
	                        .level = why->code != LC_OK      ? ALARM_BAD
	                                 : v->durable_ns[k] != 0 ? ALARM_OK
	                                                         : ALARM_UNKNOWN};
	char text[800];

	if (why->code == LC_OK)
		(void)snprintf(text, sizeof text, "%s: replica %s takes its points again", v->name,
		               s->name);
	else
		(void)snprintf(text, sizeof text, "%s: replica %s did not take a point: %s",
		               v->name, s->name, why->msg);
	x.text = text;
	alert_see(a, &x, now);
}

static void
see_spool(struct alert *a, const struct spool_status *st, int64_t now)
{
	struct alert_sight x = {.condition = ALERT_SPOOL,
	                        .level = st->spent                     ? ALARM_BAD
	                                 : st->bytes > st->max / 8 * 7 ? ALARM_NEAR
	                                 : st->bytes == 0              ? ALARM_UNKNOWN
	                                                               : ALARM_OK,
	                        .rise_ns = SPENT_NS};
	char text[800], bytes[32], max[32];

	(void)snprintf(
	    text, sizeof text, "the store holds %s of %s (spool_max)%s%s%s",
	    size_format(bytes, sizeof bytes, st->bytes), size_format(max, sizeof max, st->max),
	    st->spent ? "; no restore points are made until the replicas have what waits" : "",
	    st->err.code == LC_OK ? "" : ": ", st->err.msg);
	x.text = text;
	alert_see(a, &x, now);
}

void
report_alerts(const struct protect *p, struct alert *a)
{
	const struct protect_opts *o = protect_options(p);
	int64_t now = clock_mono_ns();
	struct spool_status spool;
	struct site_status s;
	struct vm_status v;
	size_t i, k;

	if (protect_spool(p, &spool))
		see_spool(a, &spool, now);
	for (i = 0; i < protect_vms(p); i++) {
		protect_vm(p, i, &v);
		see_goal(a, &v, now);
		see_cycle(a, &v, now);
		for (k = 0; k < protect_sites(p); k++) {
			protect_site(p, k, &s);
			see_refused(a, &v, &s, k, now);
		}
	}
	for (k = 0; k < protect_sites(p); k++) {
		protect_site(p, k, &s);
		see_link(a, &s, o->settings->replica_patience_ms * LC_NS_PER_MS, now);
		see_quota(a, &s, now);
		see_older(a, &s, now);
		see_damaged(a, &s, now);
	}
	/* What was not to be seen: a VM or a replica that was taken out, spool_max. */
	alert_over(a, ~(1u << ALERT_UNPROTECTED), now);
}

/* What comes near its goal may be protected again by then. */
void
report_past(const struct past *past, struct alert *a)
{
	int64_t now = clock_mono_ns();
	size_t i, n;
	const struct past_vm *list = past_vms(past, &n);

	for (i = 0; i < n; i++) {
		struct vm_status v = status_of_past(&list[i]);

		if ((v.lag_ns < 0 ? v.age_ns : v.lag_ns) > v.goal_ns)
			see_goal(a, &v, now);
	}
}

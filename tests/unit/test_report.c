/*
 * report, server_metrics: what is rendered of a state of affairs, and what is seen of it, with a
 * made-up protect and server, and an alert that only notes.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/alert.h"
#include "agent/hypervisor/settings.h"
#include "agent/past.h"
#include "agent/protect.h"
#include "agent/report.h"
#include "agent/sites.h"
#include "agent/spool.h"
#include "replicator/server.h"
#include "store/base/clock.h"
#include "tests/lib/unit.h"

#define S LC_NS_PER_S

struct protect {
	struct vm_status vms[2];
	struct site_status sites[2];
	size_t nvms, nsites;
	struct spool_status spool;
};

struct alert {
	unsigned seen;
	struct {
		char vm[32], replica[32], text[1024];
		enum alert_condition condition;
		enum alarm_level level;
		int64_t rise_ns;
	} sights[24];
	unsigned over; /* bits of conditions */
};

const char *const protect_states[PROTECT_STATES] = {"protected", "beginning", "late", "failing",
                                                    "waiting"};

size_t
protect_vms(const struct protect *x)
{
	return x->nvms;
}

void
protect_vm(const struct protect *x, size_t i, struct vm_status *out)
{
	*out = x->vms[i];
}

bool
protect_spool(const struct protect *x, struct spool_status *out)
{
	*out = x->spool;
	return x->spool.max > 0;
}

const struct protect_opts *
protect_options(const struct protect *x)
{
	static const struct settings settings = {.replica_patience_ms = 5000};
	static const struct protect_opts o = {.settings = &settings};

	(void)x;
	return &o;
}

size_t
protect_sites(const struct protect *x)
{
	return x->nsites;
}

void
protect_site(const struct protect *x, size_t i, struct site_status *out)
{
	*out = x->sites[i];
}

void
alert_see(struct alert *a, const struct alert_sight *x, int64_t now_ns)
{
	(void)now_ns;
	assert_in_range(a->seen, 0, 19);
	(void)snprintf(a->sights[a->seen].vm, 32, "%s", x->vm == NULL ? "" : x->vm);
	(void)snprintf(a->sights[a->seen].replica, 32, "%s", x->replica == NULL ? "" : x->replica);
	(void)snprintf(a->sights[a->seen].text, 1024, "%s", x->text);
	a->sights[a->seen].condition = x->condition;
	a->sights[a->seen].rise_ns = x->rise_ns;
	a->sights[a->seen++].level = x->level;
}

void
alert_over(struct alert *a, unsigned conditions, int64_t since_ns)
{
	assert_true(since_ns <= clock_mono_ns());
	a->over = conditions;
}

unsigned
server_guests(const struct server *s)
{
	(void)s;
	return 3;
}

/* Two hosts of one name. */
void
server_hosts(struct server *s, void (*visit)(void *arg, const struct server_host *h), void *arg)
{
	static const uint8_t keys[2][CHANNEL_KEY_SIZE] = {{0xab, 0xcd}, {0x12}};
	struct server_host h[2] = {{.name = "kvm1",
	                            .key = keys[0],
	                            .connected = true,
	                            .since_ns = 5 * S,
	                            .received = 1234567,
	                            .points = 9,
	                            .refused = 2,
	                            .kept = 4096,
	                            .room = 8192,
	                            .damaged = 6,
	                            .vms = 3,
	                            .last_ns = 90 * S},
	                           {.name = "kvm1",
	                            .key = keys[1],
	                            .kept = SERVER_UNKNOWN,
	                            .room = SERVER_UNKNOWN,
	                            .damaged = SERVER_UNKNOWN}};

	(void)s;
	visit(arg, &h[0]);
	visit(arg, &h[1]);
}

static const uint8_t id[16] = {1};
static const struct lc_err fine, broken = {.code = LC_EIO, .msg = "monitor: gone"};
static const struct lc_err refusals[2] = {{.code = LC_OK},
                                          {.code = LC_ENOSPC, .msg = "no space left"}};
static const int64_t known[2] = {90 * S, 80 * S}, unknown[2];
static const struct lc_err no_refusals[2];
static const uint64_t waiting[2] = {3, PROTECT_UNKNOWN};

/* One VM that does well but is refused by one of the replicas, which is away; one of which nothing
 * is known yet. */
static void
make(struct protect *x)
{
	*x = (struct protect){
	    .nvms = 2,
	    .nsites = 2,
	    .vms = {{.name = "web01",
	             .state = "protected",
	             .goal_ns = 10 * S,
	             .lag_ns = 2500 * LC_NS_PER_MS,
	             .worst_ns = 4 * S,
	             .age_ns = 100 * S,
	             .point = id,
	             .instant_ns = 90 * S,
	             .points = 7,
	             .failures = 1,
	             .cycle_ns = 125 * LC_NS_PER_MS,
	             .pause_ns = 2 * LC_NS_PER_MS,
	             .err = &fine,
	             .durable_ns = known,
	             .refused = refusals,
	             .waiting = waiting},
	            {.name = "db\"1",
	             .state = "beginning",
	             .goal_ns = 60 * S,
	             .lag_ns = -1,
	             .err = &fine,
	             .durable_ns = unknown,
	             .refused = no_refusals,
	             .waiting = waiting}},
	    .sites = {{.name = "dr",
	               .up = true,
	               .since_ns = 5 * S,
	               .points = 6,
	               .sent = 1000,
	               .ahead_ns = 7200 * S,
	               .room_used = 95,
	               .room_max = 100,
	               .damaged = 7},
	              {.name = "far", .since_ns = 6 * S, .err = broken}},
	};
}

struct past {
	struct past_vm vms[2];
};

const struct past_vm *
past_vms(const struct past *p, size_t *n)
{
	*n = p == NULL ? 0 : 2;
	return p == NULL ? NULL : p->vms;
}

static const char *
rendered(const struct protect *x)
{
	static char text[16384];
	FILE *f = fmemopen(text, sizeof text, "w");

	assert_non_null(f);
	report_metrics(x, NULL, f);
	assert_int_equal(fputc('\0', f), '\0');
	assert_int_equal(fclose(f), 0);
	return text;
}

static void
assert_line(const char *text, const char *line)
{
	const char *at = strstr(text, line);

	if (at == NULL || (at != text && at[-1] != '\n') || at[strlen(line)] != '\n')
		fail_msg("no line '%s' in:\n%s", line, text);
}

static void
test_samples(void **state)
{
	struct protect x;
	const char *text;

	(void)state;
	make(&x);
	text = rendered(&x);
	assert_line(text, "locum_agent_info{version=\"" LOCUM_VERSION "\"} 1");
	assert_line(text, "locum_vm_goal_seconds{vm=\"web01\"} 10");
	assert_line(text, "locum_vm_lag_seconds{vm=\"web01\"} 2.5");
	assert_line(text, "locum_vm_lag_seconds{vm=\"db\\\"1\"} +Inf");
	assert_line(text, "locum_vm_worst_lag_seconds{vm=\"web01\"} 4");
	assert_line(text, "locum_vm_last_point_timestamp_seconds{vm=\"web01\"} 90");
	assert_line(text, "locum_vm_last_point_timestamp_seconds{vm=\"db\\\"1\"} 0");
	assert_line(text, "locum_vm_points_total{vm=\"web01\"} 7");
	assert_line(text, "locum_vm_failures_total{vm=\"web01\"} 1");
	assert_line(text, "locum_vm_cycle_seconds{vm=\"web01\"} 0.125");
	assert_line(text, "locum_vm_pause_seconds{vm=\"web01\"} 0.002");
	assert_line(text, "locum_vm_state{vm=\"web01\",state=\"protected\"} 1");
	assert_line(text, "locum_vm_state{vm=\"web01\",state=\"late\"} 0");
	assert_line(text, "locum_vm_state{vm=\"db\\\"1\",state=\"beginning\"} 1");
	assert_line(text, "locum_vm_replicated_timestamp_seconds{vm=\"web01\",replica=\"far\"} 80");
	assert_line(text, "locum_vm_refused{vm=\"web01\",replica=\"dr\"} 0");
	assert_line(text, "locum_vm_refused{vm=\"web01\",replica=\"far\"} 1");
	assert_line(text, "locum_vm_waiting_points{vm=\"web01\",replica=\"dr\"} 3");
	assert_line(text, "locum_vm_waiting_points{vm=\"web01\",replica=\"far\"} NaN");
	assert_line(text, "locum_replica_up{replica=\"dr\"} 1");
	assert_line(text, "locum_replica_up{replica=\"far\"} 0");
	assert_line(text, "locum_replica_has_all{replica=\"dr\"} 0");
	assert_line(text, "locum_replica_since_timestamp_seconds{replica=\"dr\"} 5");
	assert_line(text, "locum_replica_sent_points_total{replica=\"dr\"} 6");
	assert_line(text, "locum_replica_sent_bytes_total{replica=\"dr\"} 1000");
	assert_line(text, "locum_replica_quota_bytes{replica=\"dr\"} 100");
	assert_line(text, "locum_replica_damaged{replica=\"dr\"} 7");
	assert_line(text, "locum_replica_quota_used_bytes{replica=\"dr\"} 95");
	assert_line(text, "locum_replica_quota_bytes{replica=\"far\"} 0");
	assert_line(text, "locum_replica_clock_ahead_seconds{replica=\"dr\"} 7200");
	/* Nothing to tell of, and nobody to ask. */
	x.nvms = x.nsites = 0;
	assert_line(rendered(&x), "locum_agent_info{version=\"" LOCUM_VERSION "\"} 1");
	assert_line(rendered(NULL), "locum_agent_info{version=\"" LOCUM_VERSION "\"} 1");
}

/* Each family is announced once, and its samples follow it: readers insist. */
static void
check_families(const char *text)
{
	char copy[16384], family[128] = "", seen[4096] = " ", *line, *save = NULL;

	(void)snprintf(copy, sizeof copy, "%s", text);
	for (line = strtok_r(copy, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
		char name[130];

		if (strncmp(line, "# HELP ", 7) == 0) {
			(void)snprintf(family, sizeof family, "%.*s", (int)strcspn(line + 7, " "),
			               line + 7);
			(void)snprintf(name, sizeof name, " %s ", family);
			assert_null(strstr(seen, name));
			(void)strcat(seen, name);
			assert_true(strlen(line) > 8 + strlen(family));
			continue;
		}
		(void)snprintf(name, sizeof name, "%.*s",
		               (int)strcspn(line[0] == '#' ? line + 7 : line, "{ "),
		               line[0] == '#' ? line + 7 : line);
		assert_string_equal(name, family);
		if (line[0] == '#')
			assert_true(strcmp(line + 8 + strlen(family), "gauge") == 0 ||
			            strcmp(line + 8 + strlen(family), "counter") == 0);
		if (line[0] == '#' && strstr(line, "counter") != NULL)
			assert_string_equal(family + strlen(family) - 6, "_total");
	}
}

static void
test_families(void **state)
{
	struct protect x;

	(void)state;
	make(&x);
	check_families(rendered(&x));
}

#define KVM1 "{host=\"kvm1\",fingerprint=\"abcd-0000-0000-0000-0000-0000-0000-0000\"} "

static void
test_hosts(void **state)
{
	static char text[16384];
	FILE *f = fmemopen(text, sizeof text, "w");
	int none = 0; /* of it only the address */

	(void)state;
	assert_non_null(f);
	server_metrics((struct server *)(void *)&none, f);
	assert_int_equal(fputc('\0', f), '\0');
	assert_int_equal(fclose(f), 0);
	check_families(text);
	assert_line(text, "locum_connections 3");
	assert_line(text, "locum_host_connected" KVM1 "1");
	assert_line(text, "locum_host_since_timestamp_seconds" KVM1 "5");
	assert_line(text, "locum_host_points_total" KVM1 "9");
	assert_line(text, "locum_host_refused_total" KVM1 "2");
	assert_line(text, "locum_host_received_bytes_total" KVM1 "1234567");
	assert_line(text, "locum_host_stored_bytes" KVM1 "4096");
	assert_line(text, "locum_host_quota_bytes" KVM1 "8192");
	assert_line(text, "locum_host_damaged" KVM1 "6");
	assert_line(text, "locum_host_vms" KVM1 "3");
	assert_line(text, "locum_host_last_point_timestamp_seconds" KVM1 "90");
	assert_line(text, "locum_host_connected{host=\"kvm1\",fingerprint="
	                  "\"1200-0000-0000-0000-0000-0000-0000-0000\"} 0");
	/* What is not known is no 0. */
	assert_null(strstr(text, "stored_bytes{host=\"kvm1\",fingerprint=\"1200-"));
	assert_null(strstr(text, "quota_bytes{host=\"kvm1\",fingerprint=\"1200-"));
	assert_null(strstr(text, "damaged{host=\"kvm1\",fingerprint=\"1200-"));
}

static void
assert_seen(const struct alert *a, const char *vm, const char *replica, enum alert_condition c,
            enum alarm_level level, const char *text)
{
	unsigned i;

	for (i = 0; i < a->seen; i++) {
		if (strcmp(a->sights[i].vm, vm) != 0 ||
		    strcmp(a->sights[i].replica, replica) != 0 || a->sights[i].condition != c)
			continue;
		assert_int_equal(a->sights[i].level, level);
		if (text != NULL)
			assert_string_equal(a->sights[i].text, text);
		return;
	}
	fail_msg("%s/%s: condition %d was not looked at", vm, replica, (int)c);
}

/* While the store is lent, or can't be opened, the VMs grow old all the same. */
static void
test_nobody_protects(void **state)
{
	int64_t now = clock_mono_ns(), wall = clock_wall_ns();
	char late[] = "web01", young[] = "db";
	struct past past = {
	    .vms = {{.name = late,
	             .began_ns = now - 100 * S,
	             .schedule = {.goal_ns = 10 * S, .safe_ns = wall - 60 * S}},
	            {.name = young, .began_ns = now - S, .schedule = {.goal_ns = 10 * S}}}};
	struct alert a = {.seen = 0};
	char text[4096];
	FILE *f = fmemopen(text, sizeof text, "w");

	(void)state;
	report_past(&past, &a);
	assert_int_equal(a.seen, 1);
	assert_seen(&a, "web01", "", ALERT_RPO, ALARM_BAD, NULL);
	past.vms[1].began_ns -= 10 * S; /* it never had a point */
	report_past(&past, &a);
	assert_seen(&a, "db", "", ALERT_RPO, ALARM_BAD,
	            "db: nothing of it is safe yet (goal: 10.0 s)");
	assert_non_null(f);
	report_metrics(NULL, &past, f);
	assert_int_equal(fclose(f), 0);
	assert_line(text, "locum_vm_goal_seconds{vm=\"web01\"} 10");
	assert_non_null(strstr(text, "locum_vm_lag_seconds{vm=\"web01\"} 60."));
	assert_line(text, "locum_vm_lag_seconds{vm=\"db\"} +Inf");
	report_past(NULL, &a);
}

static void
test_sights(void **state)
{
	struct alert a = {.seen = 0};
	struct lc_err named = {.code = LC_EIO, .msg = "web01: monitor: gone"};
	struct protect x;
	unsigned i;

	(void)state;
	make(&x);
	x.sites[0].damaged = 0;
	report_alerts(&x, &a);
	assert_int_equal(a.seen, 2 * 2 + 2 * 2 + 2 * 4);
	assert_int_equal(a.over, ~(1u << ALERT_UNPROTECTED)); /* after all of that */
	/* Nothing is known of a quota, or of damage, or of whether all is there. */
	assert_seen(&a, "", "far", ALERT_QUOTA, ALARM_UNKNOWN, NULL);
	assert_seen(&a, "", "far", ALERT_DAMAGED, ALARM_UNKNOWN, NULL);
	assert_seen(&a, "", "far", ALERT_OLDER, ALARM_UNKNOWN, NULL);
	assert_seen(&a, "", "dr", ALERT_QUOTA, ALARM_NEAR,
	            "replica dr: 95 B used of the 100 B that this host may have");
	assert_seen(&a, "web01", "", ALERT_RPO, ALARM_OK, NULL);
	assert_seen(&a, "web01", "", ALERT_CYCLE, ALARM_OK, NULL);
	assert_seen(&a, "web01", "dr", ALERT_REFUSED, ALARM_OK, NULL);
	assert_seen(&a, "web01", "far", ALERT_REFUSED, ALARM_BAD,
	            "web01: replica far did not take a point: no space left");
	assert_seen(&a, "", "dr", ALERT_LINK, ALARM_OK, NULL);
	assert_seen(&a, "", "far", ALERT_LINK, ALARM_BAD,
	            "replica far: not connected: monitor: gone");
	/* Of the other one nothing can be said yet. */
	assert_seen(&a, "db\"1", "", ALERT_RPO, ALARM_OK, NULL);
	assert_seen(&a, "db\"1", "", ALERT_CYCLE, ALARM_UNKNOWN, NULL);
	assert_seen(&a, "db\"1", "dr", ALERT_REFUSED, ALARM_UNKNOWN, NULL);

	a.seen = 0;
	x.sites[0].room_used = 100;
	x.vms[0].err = &named;
	x.vms[0].lag_ns = 11 * S;
	x.vms[1].age_ns = 61 * S;
	x.sites[1].since_ns = 0; /* has not been tried */
	x.sites[0].older = true;
	x.sites[1].lost_ns = clock_wall_ns() - 5 * S; /* and all is there again already */
	report_alerts(&x, &a);
	assert_seen(&a, "web01", "", ALERT_CYCLE, ALARM_BAD, "web01: monitor: gone");
	assert_seen(&a, "web01", "", ALERT_RPO, ALARM_BAD,
	            "web01: its newest safe state is 11.0 s old (goal: 10.0 s)");
	assert_seen(&a, "db\"1", "", ALERT_RPO, ALARM_BAD,
	            "db\"1: nothing of it is safe yet (goal: 1 min 0 s)");
	assert_seen(&a, "", "far", ALERT_LINK, ALARM_UNKNOWN, NULL);
	assert_seen(&a, "", "dr", ALERT_QUOTA, ALARM_BAD, NULL);
	lc_err_clear(&named);
	(void)lc_fail(&named, LC_EIO, 0, "web01/vda: no space left");
	x.sites[0].room_used = 87;
	a.seen = 0;
	report_alerts(&x, &a);
	assert_seen(&a, "", "dr", ALERT_QUOTA, ALARM_UNKNOWN, NULL);
	assert_seen(&a, "web01", "", ALERT_CYCLE, ALARM_BAD, "web01/vda: no space left");
	x.sites[0].room_used = 84;
	a.seen = 0;
	report_alerts(&x, &a);
	assert_seen(&a, "", "dr", ALERT_QUOTA, ALARM_OK, NULL);
	/* It has none any more: that shows when all is there. */
	x.sites[0].room_max = 0;
	a.seen = 0;
	report_alerts(&x, &a);
	assert_seen(&a, "", "dr", ALERT_QUOTA, ALARM_UNKNOWN, NULL);
	x.sites[0].has_all = true;
	a.seen = 0;
	report_alerts(&x, &a);
	assert_seen(&a, "", "dr", ALERT_QUOTA, ALARM_OK,
	            "replica dr: this host has no quota there");

	a.seen = 0;
	x.spool = (struct spool_status){.bytes = 90, .max = 100};
	report_alerts(&x, &a);
	assert_seen(&a, "", "", ALERT_SPOOL, ALARM_NEAR, NULL);
	a.seen = 0;
	x.spool.bytes = x.spool.max = 1u << 30;
	x.spool.spent = true;
	report_alerts(&x, &a);
	/* A first point uses it up for a moment, again and again. */
	for (i = 0; a.sights[i].condition != ALERT_SPOOL; i++)
		continue;
	assert_int_equal(a.sights[i].rise_ns, 10 * S);
	assert_seen(&a, "", "", ALERT_SPOOL, ALARM_BAD,
	            "the store holds 1.0 GiB of 1.0 GiB (spool_max); no restore points are made "
	            "until the replicas have what waits");
	assert_seen(&a, "", "dr", ALERT_OLDER, ALARM_BAD, NULL);
	assert_seen(&a, "", "far", ALERT_OLDER, ALARM_BAD,
	            "replica far: it came back without points that it had acknowledged (an older "
	            "copy of its folder?); they are sent again");

	/* As after a reload: what was forgotten is not over. */
	a.seen = 0;
	x.sites[0].older = false;
	x.sites[1].lost_ns -= 60 * S;
	report_alerts(&x, &a);
	assert_seen(&a, "", "dr", ALERT_OLDER, ALARM_UNKNOWN, NULL);
	assert_seen(&a, "", "dr", ALERT_DAMAGED, ALARM_UNKNOWN, NULL);
	a.seen = 0;
	x.sites[0].was_whole = x.sites[1].was_whole = true;
	x.sites[0].damage_known = x.sites[1].damage_known = true;
	report_alerts(&x, &a);
	assert_seen(&a, "", "dr", ALERT_OLDER, ALARM_OK, NULL);
	assert_seen(&a, "", "far", ALERT_OLDER, ALARM_OK, "replica far: it has all points again");
	assert_seen(&a, "", "far", ALERT_DAMAGED, ALARM_OK, NULL);

	a.seen = 0;
	x.sites[0].damaged = 3;
	x.sites[0].damage = "3 contents";
	x.sites[1].damaged_ns = clock_wall_ns() - 5 * S; /* and they were sent again already */
	report_alerts(&x, &a);
	assert_seen(&a, "", "dr", ALERT_DAMAGED, ALARM_BAD, "replica dr: 3 contents");
	assert_seen(
	    &a, "", "far", ALERT_DAMAGED, ALARM_BAD,
	    "replica far: contents of this host were damaged there; they were sent again: is "
	    "its disk failing?");
	a.seen = 0;
	x.sites[0].damaged = 0;
	x.sites[0].damage = NULL;
	x.sites[1].damaged_ns -= 60 * S;
	report_alerts(&x, &a);
	assert_seen(&a, "", "dr", ALERT_DAMAGED, ALARM_OK, NULL);
	assert_seen(&a, "", "far", ALERT_DAMAGED, ALARM_OK,
	            "replica far: what was damaged there is whole again");
	/* The clock was wrong then, and was set back. */
	a.seen = 0;
	x.sites[1].lost_ns = x.sites[1].damaged_ns = clock_wall_ns() + 3600 * S;
	report_alerts(&x, &a);
	assert_seen(&a, "", "far", ALERT_OLDER, ALARM_OK, NULL);
	assert_seen(&a, "", "far", ALERT_DAMAGED, ALARM_OK, NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_samples),         cmocka_unit_test(test_families),
	    cmocka_unit_test(test_hosts),           cmocka_unit_test(test_sights),
	    cmocka_unit_test(test_nobody_protects),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

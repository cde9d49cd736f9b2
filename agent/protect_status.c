/*
 * What protect knows, as JSON for locum status.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/protect.h"
#include "agent/sites.h"
#include "agent/spool.h"
#include "replicator/throttle.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"

static void
print_spool(const struct spool_status *st, FILE *f)
{
	(void)fprintf(f,
	              ",\n \"spool\": {\"bytes\": %" PRIu64 ", \"max_bytes\": %" PRIu64
	              ", \"spent\": %s, \"dropped_bytes\": %" PRIu64 ", \"error\": ",
	              st->bytes, st->max, st->spent ? "true" : "false", st->dropped);
	if (st->err.code == LC_OK)
		(void)fprintf(f, "null}");
	else
		cli_json_string(f, st->err.msg);
	if (st->err.code != LC_OK)
		(void)fprintf(f, "}");
}

static void
print_seconds(FILE *f, const char *key, int64_t ns)
{
	if (ns < 0)
		(void)fprintf(f, ", \"%s\": null", key);
	else
		(void)fprintf(f, ", \"%s\": %.3f", key, (double)ns / 1e9);
}

/* Of the replica that lacks most. */
static void
print_waiting(const struct vm_status *v, size_t nsites, FILE *f)
{
	uint64_t most = 0;
	size_t k;

	for (k = 0; k < nsites; k++)
		most = v->waiting[k] > most ? v->waiting[k] : most;
	if (nsites == 0 || most == PROTECT_UNKNOWN)
		(void)fprintf(f, ", \"waiting_points\": null");
	else
		(void)fprintf(f, ", \"waiting_points\": %" PRIu64, most);
}

static void
print_vm(const struct vm_status *v, size_t nsites, FILE *f)
{
	char hex[33], when[40];

	(void)fprintf(f, "{\"vm\": ");
	cli_json_string(f, v->name);
	(void)fprintf(f, ", \"state\": \"%s\"", v->state);
	print_seconds(f, "goal_s", v->goal_ns);
	print_seconds(f, "lag_s", v->lag_ns);
	print_seconds(f, "worst_lag_s", v->worst_ns);
	if (v->point != NULL)
		(void)fprintf(f, ", \"point\": \"%s\", \"time\": \"%s\"", lc_hex(hex, v->point, 16),
		              clock_format_utc(when, sizeof when, v->instant_ns));
	(void)fprintf(f,
	              ", \"points\": %" PRIu64 ", \"failures\": %" PRIu64
	              ", \"pause_ms\": %.3f, \"cycle_s\": %.3f",
	              v->points, v->failures, (double)v->pause_ns / 1e6, (double)v->cycle_ns / 1e9);
	print_waiting(v, nsites, f);
	(void)fprintf(f, ", \"error\": ");
	if (v->err->code == LC_OK)
		(void)fprintf(f, "null}");
	else
		cli_json_string(f, v->err->msg);
	if (v->err->code != LC_OK)
		(void)fprintf(f, "}");
}

static void
print_site(const struct site_status *st, FILE *f)
{
	char since[40];

	(void)fprintf(f, "{\"name\": ");
	cli_json_string(f, st->name);
	(void)fprintf(f, ", \"address\": ");
	cli_json_string(f, st->address);
	(void)fprintf(f, ", \"known\": %s, \"up\": %s, \"since\": ", st->unknown ? "false" : "true",
	              st->up ? "true" : "false");
	if (st->since_ns == 0)
		(void)fprintf(f, "null");
	else
		(void)fprintf(f, "\"%s\"", clock_format_utc(since, sizeof since, st->since_ns));
	(void)fprintf(f, ", \"quota_bytes\": %" PRIu64 ", \"quota_used_bytes\": %" PRIu64,
	              st->room_max, st->room_used);
	(void)fprintf(f,
	              ", \"has_all\": %s, \"points\": %" PRIu64 ", \"sent_bytes\": %" PRIu64
	              ", \"rate_bytes\": %" PRIu64 ", \"clock_ahead_s\": %.3f, \"lost_points\": ",
	              st->has_all ? "true" : "false", st->points, st->sent, st->rate,
	              (double)st->ahead_ns / 1e9);
	if (st->lost_ns == 0)
		(void)fprintf(f, "null");
	else
		(void)fprintf(f, "\"%s\"", clock_format_utc(since, sizeof since, st->lost_ns));
	(void)fprintf(f, ", \"damaged\": %" PRIu64 ", \"damage\": ", st->damaged);
	if (st->damage == NULL)
		(void)fprintf(f, "null");
	else
		cli_json_string(f, st->damage);
	(void)fprintf(f, ", \"error\": ");
	if (st->err.code == LC_OK)
		(void)fprintf(f, "null");
	else
		cli_json_string(f, st->err.msg);
	(void)fprintf(f, "}");
}

void
protect_status(const struct protect *x, FILE *f)
{
	const struct protect_opts *o = protect_options(x);
	int64_t wall = clock_wall_ns();
	struct spool_status spool;
	struct site_status st;
	char when[40];
	size_t i;

	(void)fprintf(f, "{\"role\": \"agent\", \"pid\": %ld, \"time\": \"%s\", \"store\": ",
	              (long)getpid(), clock_format_utc(when, sizeof when, wall));
	cli_json_string(f, store_dir(o->store));
	(void)fprintf(f, ", \"bandwidth_bytes\": %" PRIu64, throttle_rate(o->throttle));
	if (protect_spool(x, &spool))
		print_spool(&spool, f);
	(void)fprintf(f, ",\n \"vms\": [");
	for (i = 0; i < protect_vms(x); i++) {
		struct vm_status v;

		protect_vm(x, i, &v);
		(void)fprintf(f, "%s", i == 0 ? "" : ",\n  ");
		print_vm(&v, protect_sites(x), f);
	}
	(void)fprintf(f, "],\n \"replicas\": [");
	for (i = 0; i < protect_sites(x); i++) {
		protect_site(x, i, &st);
		(void)fprintf(f, "%s", i == 0 ? "" : ",\n  ");
		print_site(&st, f);
	}
	(void)fprintf(f, "]");
}

void
protect_summary(const struct protect *x, char *dst, size_t n)
{
	size_t i, good = 0, up = 0;
	struct site_status st;
	struct vm_status v;

	for (i = 0; i < protect_vms(x); i++) {
		protect_vm(x, i, &v);
		good += strcmp(v.state, "protected") == 0 ? 1 : 0;
	}
	for (i = 0; i < protect_sites(x); i++) {
		protect_site(x, i, &st);
		up += st.up ? 1 : 0;
	}
	(void)snprintf(dst, n, "%zu of %zu VMs within their goals, %zu of %zu replicas connected",
	               good, protect_vms(x), up, protect_sites(x));
}

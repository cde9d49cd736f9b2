/*
 * A replica's hosts as metrics.  VMs are counted, not listed: their ids come from the hosts, and a
 * captured one could make up any number.  Names of hosts may repeat, fingerprints do not.
 */
#include <math.h>

#include "replicator/metrics.h"
#include "replicator/server.h"

static double
connected(const struct server_host *h)
{
	return h->connected ? 1 : 0;
}

static double
late(const struct server_host *h)
{
	return h->late || (!h->connected && !h->by_command && !h->revoked) ? 1 : 0;
}

static double
since(const struct server_host *h)
{
	return (double)h->since_ns / 1e9;
}

static double
points(const struct server_host *h)
{
	return (double)h->points;
}

static double
refused(const struct server_host *h)
{
	return (double)h->refused;
}

static double
received(const struct server_host *h)
{
	return (double)h->received;
}

/* What is not known is no sample. */
static double
known(uint64_t n)
{
	return n == SERVER_UNKNOWN ? NAN : (double)n;
}

static double
kept(const struct server_host *h)
{
	return known(h->kept);
}

static double
room(const struct server_host *h)
{
	return known(h->room);
}

static double
damaged(const struct server_host *h)
{
	return known(h->damaged);
}

static double
vms(const struct server_host *h)
{
	return (double)h->vms;
}

static double
newest(const struct server_host *h)
{
	return (double)h->last_ns / 1e9;
}

static const struct family {
	const char *name, *type, *help;
	double (*value)(const struct server_host *h);
} of_host[] = {
    {"locum_host_connected", "gauge", "Whether it is connected.", connected},
    {"locum_host_late", "gauge",
     "Whether it is not connected, and was not revoked, and is no host that sends by cron and "
     "came when it was to.",
     late},
    {"locum_host_since_timestamp_seconds", "gauge", "Since when that is so.", since},
    {"locum_host_points_total", "counter", "Points of it that became durable here.", points},
    {"locum_host_refused_total", "counter", "Points of it that were not taken.", refused},
    {"locum_host_received_bytes_total", "counter", "Bytes that came from it.", received},
    {"locum_host_stored_bytes", "gauge", "Bytes of its store.", kept},
    {"locum_host_quota_bytes", "gauge", "Bytes that its store may have; 0: any number.", room},
    {"locum_host_damaged", "gauge", "Contents of it that are damaged here, and maps of VMs.",
     damaged},
    {"locum_host_vms", "gauge", "VMs that it has points of.", vms},
    {"locum_host_last_point_timestamp_seconds", "gauge",
     "Its newest point, of any VM; 0: there is none.", newest},
};

struct page {
	FILE *f;
	const struct family *family;
};

static void
visit(void *arg, const struct server_host *h)
{
	const struct page *p = arg;
	char print[FINGERPRINT_MAX];
	const struct metrics_label l[] = {{"host", h->name},
	                                  {"fingerprint", fingerprint(print, h->key)}};

	double value = p->family->value(h);

	if (!isnan(value))
		metrics_sample(p->f, p->family->name, l, 2, value);
}

void
server_metrics(struct server *s, FILE *f)
{
	const struct metrics_label version = {"version", LOCUM_VERSION};
	size_t i;

	metrics_family(f, "locum_server_info", "gauge", "What runs here.");
	metrics_sample(f, "locum_server_info", &version, 1, 1);
	if (s == NULL)
		return;
	metrics_family(f, "locum_connections", "gauge", "Connections there are, strangers too.");
	metrics_sample(f, "locum_connections", NULL, 0, server_guests(s));
	for (i = 0; i < sizeof of_host / sizeof of_host[0]; i++) {
		struct page p = {.f = f, .family = &of_host[i]};

		metrics_family(f, of_host[i].name, of_host[i].type, of_host[i].help);
		server_hosts(s, visit, &p);
	}
}

/*
 * locum replica limit: what one host may have, beside what each may.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/hypervisor/settings.h"
#include "replicator/limits.h"
#include "replicator/throttle.h"
#include "replicator/verbs.h"
#include "replicator/writers.h"
#include "store/base/cli.h"
#include "store/base/config.h"
#include "store/base/memory.h"

static int
take_options(const struct cli_args *a, struct limits *l)
{
	const char *rate = cli_get(a, "rate"), *max = cli_get(a, "max");

	if (rate != NULL && strcmp(rate, "default") == 0) {
		l->rate_set = false;
	} else if (rate != NULL) {
		if (!config_rate(rate, &l->rate) || (l->rate > 0 && l->rate < THROTTLE_MIN)) {
			return cli_usage(
			    a,
			    "--rate: '%s' is no rate of 16 KiB/s or more (0: no limit; "
			    "default: as for every host)",
			    rate);
		}
		l->rate_set = true;
	}
	if (max != NULL && strcmp(max, "default") == 0) {
		l->max_set = false;
	} else if (max != NULL) {
		if (!config_size(max, &l->max)) {
			return cli_usage(a,
			                 "--max: '%s' is no size such as 500 GiB (0: any; default: "
			                 "as for every host)",
			                 max);
		}
		l->max_set = true;
	}
	return 0;
}

static void
print_one(const char *what, bool set, uint64_t n, const char *unit, const char *none)
{
	char size[32];

	(void)printf("%s%s%s", what,
	             !set     ? "as for every host"
	             : n == 0 ? none
	                      : size_format(size, sizeof size, n),
	             set && n > 0 ? unit : "");
}

/* null: as for every host; 0: none. */
static void
print_json(const char *host, const struct limits *l)
{
	(void)printf("{\"host\": ");
	cli_json_string(stdout, host);
	(void)printf(", \"rate_bytes\": ");
	(void)(l->rate_set ? printf("%" PRIu64, l->rate) : printf("null"));
	(void)printf(", \"max_bytes\": ");
	(void)(l->max_set ? printf("%" PRIu64, l->max) : printf("null"));
	(void)puts("}");
}

static int
run_limit(const struct cli_args *a)
{
	const char *dir = cli_get(a, "dir");
	struct writer_entry *w = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct settings s = {0};
	struct limits l;
	size_t n = 0, at = 0;
	int rc, usage = 0;

	rc = settings_load(a, &s, &e);
	dir = dir == NULL ? s.replica_dir : dir;
	rc = rc != 0 ? rc : writers_list(dir, &w, &n, &e);
	rc = rc != 0 ? rc : writers_pick(w, n, cli_operand(a, 0), &at, &e);
	rc = rc != 0 ? rc : limits_read(dir, w[at].key, &l, &e);
	if (rc == LC_ECORRUPT && n > 0 && cli_get(a, "rate") != NULL && cli_get(a, "max") != NULL) {
		lc_err_clear(&e); /* nothing of it is to stay */
		l = (struct limits){.rate = 0};
		rc = 0;
	}
	if (rc == 0)
		usage = take_options(a, &l);
	if (rc == 0 && usage == 0 && (cli_get(a, "rate") != NULL || cli_get(a, "max") != NULL))
		rc = limits_write(dir, w[at].key, &l, &e);
	if (rc == 0 && usage == 0 && cli_has(a, "json")) {
		print_json(w[at].name, &l);
	} else if (rc == 0 && usage == 0 && !cli_has(a, "quiet")) {
		(void)printf("%s", w[at].name);
		print_one(": read at most ", l.rate_set, l.rate, "/s", "as fast as it comes");
		print_one("; its store may take ", l.max_set, l.max, "", "any size");
		(void)printf("\n");
	}
	lc_free(w);
	settings_done(&s);
	return usage != 0 ? usage : rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option options[] = {
    {.name = "dir",
     .arg = "DIR",
     .help = "folder of the replica (default: replica_dir of the settings)"},
    {.name = "rate",
     .arg = "RATE",
     .help = "bytes a second that are read of it at most; 0: no limit; default: as of each"},
    {.name = "max",
     .arg = "SIZE",
     .help = "how much its store may take; 0: any; default: as of each"},
    {.name = NULL}};

const struct cli_verb verb_replica_limit = {
    .name = "replica limit",
    .operands = "HOST",
    .summary = "limit what one host may send and keep here",
    .details =
	"HOST is its name, or the beginning of its fingerprint.  Without options it says what\n"
	"holds for it.  What is set here goes before --host-rate and --host-max of\n"
	"locum replica, which takes it within seconds, while it runs.\n"
	"\n"
	"Examples:\n"
	"  locum replica limit host-a --rate 20 MiB/s --max 500 GiB\n"
	"  locum replica limit host-a --rate default",
    .options = options,
    .min_operands = 1,
    .max_operands = 1,
    .run = run_limit,
};

#include <stdio.h>
#include <string.h>

#include "store/base/cli.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/memory.h"
#include "store/verbs.h"
#include "store/verbs/opening.h"

struct one { /* a point that was asked for */
	const char *spec;
	struct point p;
	bool found, dropped;
	struct lc_err err;
};

struct dropping {
	const struct cli_args *args;
	struct opening o;
	bool dry;
	struct one *list;
	size_t n;
};

static bool
seen_before(const struct dropping *d, size_t i)
{
	size_t k;

	for (k = 0; k < i; k++) {
		if (d->list[k].found &&
		    memcmp(d->list[k].p.id, d->list[i].p.id, POINT_ID_SIZE) == 0)
			return true;
	}
	return false;
}

/* All of them before any is dropped: "@latest" means what was there when the command was given. */
static void
find_all(struct dropping *d)
{
	size_t i;

	for (i = 0; i < d->n; i++) {
		struct one *x = &d->list[i];

		x->spec = cli_operand(d->args, i);
		if (store_find(d->o.store, x->spec, &x->p, &x->err) != 0)
			continue;
		x->found = true;
		if (seen_before(d, i))
			(void)lc_fail(&x->err, LC_EINVAL, 0, "%s: named twice", x->spec);
	}
}

static void
drop_all(struct dropping *d)
{
	size_t i;

	for (i = 0; i < d->n; i++) {
		struct one *x = &d->list[i];

		if (!x->found || x->err.code != LC_OK || d->dry)
			continue;
		x->dropped = opening_drop(&d->o, x->p.id, &x->err) == 0;
		if (!x->dropped)
			lc_wrap(&x->err, "%s", x->spec);
	}
}

static void
print_json(const struct dropping *d)
{
	char hex[33], when[32];
	size_t i;

	(void)puts("[");
	for (i = 0; i < d->n; i++) {
		const struct one *x = &d->list[i];

		(void)printf("  {\"asked\": ");
		cli_json_string(stdout, x->spec);
		if (x->found) {
			(void)printf(", \"vm\": ");
			cli_json_string(stdout, x->p.vm);
			(void)printf(", \"id\": \"%s\", \"time\": \"%s\"",
			             lc_hex(hex, x->p.id, POINT_ID_SIZE),
			             clock_format_utc(when, sizeof when, x->p.source_ns));
		}
		(void)printf(", \"dropped\": %s, \"error\": ", x->dropped ? "true" : "false");
		cli_json_string(stdout, x->err.code == LC_OK ? NULL : x->err.msg);
		(void)printf("}%s\n", i + 1 < d->n ? "," : "");
	}
	(void)puts("]");
}

static void
print_text(const struct dropping *d)
{
	char hex[33], when[32];
	size_t i;

	for (i = 0; i < d->n; i++) {
		const struct one *x = &d->list[i];

		if (x->err.code != LC_OK)
			(void)cli_error(&x->err);
		else if (!cli_has(d->args, "quiet") || d->dry)
			(void)printf("%s %s@%s (%.8s)\n", d->dry ? "would drop" : "dropped",
			             x->p.vm, clock_format(when, sizeof when, x->p.source_ns),
			             lc_hex(hex, x->p.id, POINT_ID_SIZE));
	}
}

static int
status(const struct dropping *d)
{
	size_t i, good = 0;

	for (i = 0; i < d->n; i++)
		good += d->list[i].err.code == LC_OK;
	return good == d->n ? CLI_DONE : good > 0 ? CLI_PARTLY : CLI_FAILED;
}

static int
run(const struct cli_args *a)
{
	struct dropping d = {.args = a, .n = cli_operands(a), .dry = cli_has(a, "dry-run")};
	struct lc_err e = LC_ERR_INIT;
	struct cli_word w;
	size_t i;
	int rc;

	/* Dropping is for good: a name alone must not mean "the newest". */
	for (i = 0; i < d.n; i++) {
		if (strchr(cli_operand(a, i), '@') == NULL)
			return cli_usage(a, "which point of %s? (see: locum points %s)",
			                 cli_operand(a, i), cli_word(&w, cli_operand(a, i)));
	}
	rc = opening_settings(a, &d.o, &e);
	d.list = lc_alloc_array(d.n, sizeof *d.list);
	if (rc == 0 && d.list == NULL)
		rc = lc_fail(&e, LC_ENOMEM, 0, "out of memory");
	if (rc == 0)
		rc = d.dry ? opening_store(a, &d.o, STORE_READ, "locum drop", false, &e)
		           : opening_own(a, &d.o, "locum drop", false, &e);
	if (rc == 0) {
		find_all(&d);
		drop_all(&d);
		if (cli_has(a, "json"))
			print_json(&d);
		else
			print_text(&d);
		for (i = 0; i < d.n; i++)
			point_done(&d.list[i].p);
	}
	rc = rc != 0 ? cli_error(&e) : status(&d);
	lc_free(d.list);
	opening_done(&d.o);
	return rc;
}

static const struct cli_option options[] = {
    {.name = "dry-run", .letter = 'n', .help = "only say what would be dropped"},
    OPENING_OPTIONS,
    {.name = NULL},
};

const struct cli_verb verb_drop = {
    .name = "drop",
    .operands = "VM@POINT...",
    .summary = "drop restore points for good",
    .details =
	"Drops restore points; every other one stays whole.  A point that is being restored,\n"
	"booted or verified is not dropped, nor one that the writes of a booted VM stand on.\n"
	"There is no way back.\n"
	"\n"
	"Examples:\n"
	"  locum drop web01@2026-11-22T05:00 --dry-run\n"
	"  locum drop web01@1f2e3d4c web01@5a6b7c8d",
    .options = options,
    .min_operands = 1,
    .max_operands = -1,
    .run = run,
};

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "store/base/cli.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/memory.h"
#include "store/store.h"
#include "store/verbs/opening.h"
#include "restore/describe.h"
#include "restore/verbs.h"

#define SKEW_NS (INT64_C(300) * LC_NS_PER_S) /* that clocks may differ by */

static void
print_disks(const struct point *p)
{
	char size[32];
	size_t i;

	for (i = 0; i < p->ndisks; i++)
		(void)printf("%s%s %s", i == 0 ? "" : ", ", p->opened ? p->disks[i].name : "disk",
		             size_format(size, sizeof size, p->disks[i].size));
}

static bool
same_disks(const struct point *a, const struct point *b)
{
	size_t i;

	for (i = 0; i < a->ndisks && i < b->ndisks; i++) {
		if (strcmp(a->disks[i].name, b->disks[i].name) != 0 ||
		    a->disks[i].size != b->disks[i].size)
			return false;
	}
	return a->ndisks == b->ndisks;
}

/* What a point promises, in one word. */
static const char *
short_kind(const struct point *p)
{
	return p->opened && p->consistency == POINT_CRASH ? "crash" : describe_kind(p);
}

/* A line has room in 80 columns; what is rarely of interest has a line of its own. */
static void
print_point(const struct point *p, const struct point *before, int64_t now)
{
	char when[32], id[DESCRIBE_ID_SIZE], age[64], changed[32], stored[32];

	if (before == NULL || !same_disks(before, p)) {
		(void)printf("   ");
		print_disks(p);
		(void)putchar('\n');
	}
	(void)printf(" %-19s  %-8s  %11s  %-11s  %10s %10s\n",
	             clock_format(when, sizeof when, p->source_ns), describe_short(p, id),
	             p->source_ns > now
	                 ? "in future"
	                 : clock_format_duration(age, sizeof age, clock_since(now, p->source_ns)),
	             short_kind(p), size_format(changed, sizeof changed, p->changed * WINDOW_SIZE),
	             size_format(stored, sizeof stored, p->stored));
	/* Where it is so of many, it is said once. */
	if (p->opened && p->consistency != POINT_FROZEN && p->freeze[0] != '\0' &&
	    (before == NULL || strcmp(before->freeze, p->freeze) != 0))
		(void)printf("   not frozen: %s\n", p->freeze);
	if ((p->flags & POINT_MAP_DAMAGED) != 0)
		(void)printf("   DAMAGED: it can't be restored (see: locum scrub)\n");
}

struct printing {
	bool json;
	struct store_vm *vms;
	size_t nvms, n;
	int64_t now, since;   /* since: no point of this VM is of before that, whatever it says */
	struct point *before; /* without what it owned ... */
	char *left_out;       /* ... but for this, a copy */
};

/* Of several VMs of that name, which; other commands take the digits, too. */
static void
print_head(const struct printing *x, const struct point *p)
{
	size_t i, same = 0;
	char hex[33];

	for (i = 0; i < x->nvms; i++)
		same += strcmp(x->vms[i].name, p->vm) == 0;
	(void)printf("%s", p->vm);
	if (same > 1)
		(void)printf("  (%.8s)", lc_hex(hex, p->vm_id, 16));
	(void)printf("\n %-19s  %-8s  %11s  %-11s  %10s %10s\n", "time", "id", "age", "consistency",
	             "changed", "stored");
}

/* What its host says of the time counts for little where it can't be. */
static void
print_order(struct printing *x, const struct point *p, bool same)
{
	char when[32];

	if (!same)
		x->since = p->source_ns;
	if (p->source_ns / 2 < x->since / 2 - SKEW_NS / 2)
		(void)printf("   came after those above, at %s: its host's clock was wrong, or "
		             "worse\n",
		             clock_format(when, sizeof when, p->commit_ns));
	else if (p->source_ns > x->since && p->source_ns / 2 - p->commit_ns / 2 <= SKEW_NS / 2)
		x->since = p->source_ns;
}

/* A disk is more than a sound card: it is named.  Whether anything else was left out. */
static bool
print_excluded(const char *left)
{
	const char *line = left, *end, *why;
	bool more = false;

	for (; *line != '\0'; line = *end == '\0' ? end : end + 1) {
		end = strchr(line, '\n');
		end = end == NULL ? line + strlen(line) : end;
		why = strstr(line, ": excluded in ");
		if (strncmp(line, "disk ", 5) == 0 && why != NULL && why < end)
			(void)printf("   %.*s is excluded: not in it\n", (int)(why - line), line);
		else
			more = true;
	}
	return more;
}

/* Most points of a VM lack the same, so what one lacks is said where the one before lacks another
 * thing. */
static void
print_left_out(struct printing *x, const struct point *p, bool same)
{
	const char *left = p->left_out == NULL ? "" : p->left_out;
	struct cli_word w;

	if (same && strcmp(left, x->left_out == NULL ? "" : x->left_out) == 0)
		return;
	if (print_excluded(left))
		(void)printf("   something was left out of it (see: locum points %s --json)\n",
		             cli_word(&w, p->vm));
	else if (same && *left == '\0')
		(void)printf("   nothing was left out of it\n");
	lc_free(x->left_out);
	x->left_out = lc_strdup(left);
}

static int
print_one(void *arg, struct point *p, struct lc_err *e)
{
	struct printing *x = arg;
	bool same = x->n > 0 && memcmp(p->vm_id, x->before->vm_id, 16) == 0;

	(void)e;
	if (x->json) {
		(void)puts(x->n == 0 ? "[" : ",");
		describe_json(stdout, p);
	} else {
		if (x->n > 0 && !same)
			(void)putchar('\n');
		if (!same)
			print_head(x, p);
		print_point(p, same ? x->before : NULL, x->now);
		print_order(x, p, same);
		print_left_out(x, p, same);
	}
	*x->before = *p;
	x->n++;
	return 0;
}

static int
print_all(const struct cli_args *a, const struct opening *o, struct lc_err *e)
{
	struct printing x = {.json = cli_has(a, "json"),
	                     .now = clock_wall_ns(),
	                     .before = lc_alloc(sizeof *x.before)};
	int rc = x.before == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : 0;

	rc = rc != 0 ? rc : store_vms(o->store, &x.vms, &x.nvms, e);
	rc = rc != 0 ? rc : store_each_point(o->store, cli_operand(a, 0), print_one, &x, e);
	if (rc == 0 && x.json)
		(void)puts(x.n == 0 ? "[\n]" : "\n]");
	else if (rc == 0 && x.n == 0 && !cli_has(a, "quiet"))
		(void)printf("%s has no restore points yet\n", o->settings.store);
	lc_free(x.vms);
	lc_free(x.before);
	lc_free(x.left_out);
	return rc;
}

static int
run(const struct cli_args *a)
{
	struct lc_err e = LC_ERR_INIT;
	struct opening x;
	int rc = opening_settings(a, &x, &e);

	rc = rc != 0 ? rc : opening_store(a, &x, STORE_READ, "locum points", true, &e);
	rc = rc != 0 ? rc : print_all(a, &x, &e);
	if (rc == 0 && !store_has_key(x.store) && !cli_has(a, "quiet"))
		(void)fprintf(stderr,
		              "locum: %s is locked: names and contents need its key (locum "
		              "unlock)\n",
		              x.settings.store);
	opening_done(&x);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option options[] = {OPENING_OPTIONS, {.name = NULL}};

const struct cli_verb verb_points = {
    .name = "points",
    .operands = "[VM]",
    .summary = "list restore points",
    .details =
	"Lists the restore points of a VM, or of all VMs, oldest first: the instant they are\n"
	"of, their id, age, what they promise, how much had changed and how much the store\n"
	"grew by it; where a guest was to be frozen and was not, why.  Any of them can be\n"
	"restored or booted.  Without the store's key a VM shows by its id, whose first 8 digits\n"
	"do for its name in other commands.\n"
	"\n"
	"Examples:\n"
	"  locum points\n"
	"  locum points web01 --json\n"
	"  locum points --store /mnt/rescued --recovery-code-file kit.txt",
    .options = options,
    .min_operands = 0,
    .max_operands = 1,
    .run = run,
};

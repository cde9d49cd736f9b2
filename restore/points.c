#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/store.h"
#include "restore/access.h"
#include "restore/describe.h"
#include "restore/verbs.h"

static void
print_disks(const struct point *p)
{
	char size[32];
	size_t i;

	for (i = 0; i < p->ndisks; i++)
		(void)printf("%s%s %s", i == 0 ? "" : ", ", p->disks[i].name,
		             size_format(size, sizeof size, p->disks[i].size));
	if ((p->flags & POINT_MAP_DAMAGED) != 0)
		(void)printf("  DAMAGED");
	if (p->left_out != NULL && p->left_out[0] != '\0')
		(void)printf("  (something was left out: --json)");
}

static void
print_table(const struct point_list *l)
{
	int64_t now = clock_wall_ns();
	size_t i;

	for (i = 0; i < l->n; i++) {
		const struct point *p = &l->points[i];
		char when[32], id[DESCRIBE_ID_SIZE], age[64], changed[32], stored[32];

		if (i == 0 || strcmp(p->vm, l->points[i - 1].vm) != 0)
			(void)printf("%s%s\n  %-19s  %-8s  %-18s  %-16s  %10s  %10s  disks\n",
			             i == 0 ? "" : "\n", p->vm, "time", "id", "age", "consistency",
			             "changed", "stored");
		(void)printf("  %-19s  %-8s  %-18s  %-16s  %10s  %10s  ",
		             clock_format(when, sizeof when, p->source_ns), describe_short(p, id),
		             describe_age(p, now, age, sizeof age), describe_kind(p),
		             size_format(changed, sizeof changed, p->changed * WINDOW_SIZE),
		             size_format(stored, sizeof stored, p->stored));
		print_disks(p);
		(void)putchar('\n');
	}
}

static void
print_json(const struct point_list *l)
{
	size_t i;

	(void)puts("[");
	for (i = 0; i < l->n; i++) {
		describe_json(stdout, &l->points[i]);
		(void)puts(i + 1 < l->n ? "," : "");
	}
	(void)puts("]");
}

static int
run(const struct cli_args *a)
{
	struct lc_err e = LC_ERR_INIT;
	struct point_list list = {0};
	struct access x;
	int rc = access_open(a, "locum points", &x, &e);

	if (rc == 0)
		rc = store_points(x.store, cli_operand(a, 0), &list, &e);
	if (rc == 0 && cli_has(a, "json"))
		print_json(&list);
	else if (rc == 0 && list.n == 0 && !cli_has(a, "quiet"))
		(void)printf("%s has no restore points yet\n", x.settings.store);
	else if (rc == 0)
		print_table(&list);
	point_list_free(&list);
	access_close(&x);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option options[] = {ACCESS_OPTIONS, {.name = NULL}};

const struct cli_verb verb_points = {
    .name = "points",
    .operands = "[VM]",
    .summary = "list restore points",
    .details =
	"Lists the restore points of a VM, or of all VMs, oldest first: the instant they are\n"
	"of, their id, age, what they promise, how much had changed and how much the store\n"
	"grew by it.  Any of them can be restored or booted.\n"
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

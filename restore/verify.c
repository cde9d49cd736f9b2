/*
 * locum verify: read every chunk of points with the key and say whether all of it is what was
 * committed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "replicator/remote.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/memory.h"
#include "store/base/progress.h"
#include "store/store.h"
#include "store/verbs/opening.h"
#include "restore/describe.h"
#include "restore/verbs.h"

struct verify {
	const struct cli_args *args;
	struct opening opening;
	struct remote *remote;     /* of a thin store */
	struct progress *progress; /* of the point at hand */
	struct verified *verified; /* what is in several points is read once */
	unsigned looked_at, bad;   /* bad: or not checked */
};

/* Whether it says something of the point, and not of what was in the way of reading it. */
static bool
is_verdict(const struct lc_err *e)
{
	switch (e->code) {
	case LC_OK:
	case LC_EIO:
	case LC_ECORRUPT:
	case LC_ENOENT:
	case LC_EVERSION:
		return true;
	default:
		return false;
	}
}

static void
on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct verify *v = arg;
	struct progress_state p = {.done = done, .total = total, .note = "verifying"};

	progress_update(v->progress, &p);
}

static uint64_t
bytes_of(const struct point *p)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < p->ndisks; i++)
		n += p->disks[i].size;
	return n;
}

/* p is NULL where there is no such point. */
static void
print_json(const struct verify *v, const char *asked, const struct point *p, int64_t took_ns,
           const struct lc_err *e)
{
	(void)fputs(v->looked_at == 0 ? "[\n{\"asked\":" : ",\n{\"asked\":", stdout);
	cli_json_string(stdout, asked);
	(void)fputs(",\"point\":", stdout);
	if (p == NULL)
		(void)fputs("null", stdout);
	else
		describe_json(stdout, p);
	(void)printf(",\"ok\":%s,\"ms\":%" PRId64 ",\"error\":",
	             e->code == LC_OK ? "true"
	             : is_verdict(e)  ? "false"
	                              : "null",
	             took_ns / LC_NS_PER_MS);
	cli_json_string(stdout, e->code == LC_OK ? NULL : e->msg);
	(void)fputc('}', stdout);
}

static void
print_verdict(struct verify *v, const struct point *p, int64_t took_ns, const struct lc_err *e)
{
	char line[256], took[48], size[32];

	(void)describe_line(p, line, sizeof line);
	if (e->code != LC_OK)
		(void)fprintf(stderr, "locum: %s %s: %s\n", line,
		              is_verdict(e) ? "is NOT good" : "could not be checked", e->msg);
	else if (!cli_has(v->args, "quiet"))
		(void)printf("%s is good: %s in %s\n", line,
		             size_format(size, sizeof size, bytes_of(p)),
		             clock_format_duration(took, sizeof took, took_ns));
}

static void
verify_point(struct verify *v, const char *asked, const struct point *p)
{
	struct lc_err e = LC_ERR_INIT;
	int64_t began = clock_mono_ns();
	struct view *view = NULL;

	v->progress = progress_new(p->vm, !cli_has(v->args, "quiet"));
	if (store_view(v->opening.store, p->id, &view, &e) == 0)
		(void)view_verify(view, v->verified, (unsigned)v->opening.settings.workers,
		                  on_progress, v, &e);
	if (view != NULL)
		view_close(view);
	progress_free(v->progress);
	if (cli_has(v->args, "json"))
		print_json(v, asked, p, clock_mono_ns() - began, &e);
	else
		print_verdict(v, p, clock_mono_ns() - began, &e);
	v->looked_at++;
	v->bad += e.code != LC_OK;
	(void)fflush(stdout);
}

struct keep {
	bool every;
	struct lc_buf points; /* struct point */
};

/* Every one, or the newest of each VM: the last of its group. */
static int
keep_point(void *arg, struct point *p, struct lc_err *e)
{
	struct keep *keep = arg;
	struct point *last = (struct point *)(void *)keep->points.p;
	size_t n = keep->points.n / sizeof *last;

	if (!keep->every && n > 0 && memcmp(last[n - 1].vm_id, p->vm_id, 16) == 0) {
		point_done(&last[n - 1]);
		last[n - 1] = *p;
	} else if (lc_buf_append(&keep->points, p, sizeof *p) != 0) {
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	p->definition = NULL; /* taken */
	p->left_out = NULL;
	return 0;
}

static int
verify_all(struct verify *v, struct lc_err *e)
{
	struct keep keep = {.every = cli_has(v->args, "every")};
	int rc = store_each_point(v->opening.store, NULL, keep_point, &keep, e);
	struct point *list = (struct point *)(void *)keep.points.p;
	size_t i, n = keep.points.n / sizeof *list;

	for (i = 0; i < n; i++) {
		if (rc == 0)
			verify_point(v, list[i].vm, &list[i]);
		point_done(&list[i]);
	}
	lc_buf_free(&keep.points);
	return rc;
}

/* One that is not there does not keep the others from being looked at. */
static void
verify_one(struct verify *v, const char *spec)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p = {0};

	if (store_find(v->opening.store, spec, &p, &e) == 0) {
		verify_point(v, spec, &p);
	} else {
		if (cli_has(v->args, "json"))
			print_json(v, spec, NULL, 0, &e);
		else
			(void)cli_error(&e);
		v->looked_at++;
		v->bad++;
	}
	point_done(&p);
}

static int
run(const struct cli_args *a)
{
	struct verify v = {.args = a};
	struct lc_err e = LC_ERR_INIT;
	bool all = cli_has(a, "all") || cli_has(a, "every");
	size_t i;
	int rc;

	if (all == (cli_operands(a) > 0))
		return cli_usage(a, "give either points to verify, or --all or --every");
	rc = opening_read(a, &v.opening, "locum verify", &e);
	rc = rc != 0 ? rc
	             : remote_attach(v.opening.store, v.opening.settings.key_dir, &v.remote, &e);
	rc = rc != 0 ? rc : verified_new(0, &v.verified, &e);
	if (rc == 0 && all)
		rc = verify_all(&v, &e);
	for (i = 0; rc == 0 && i < cli_operands(a); i++)
		verify_one(&v, cli_operand(a, i));
	if (cli_has(a, "json") && v.looked_at > 0)
		(void)puts("\n]");
	else if (cli_has(a, "json") && rc == 0)
		(void)puts("[]");
	/* From cron, "nothing was wrong" must not mean "there was nothing". */
	if (rc == 0 && v.looked_at == 0)
		rc = lc_fail(&e, LC_ENOENT, 0, "%s has no restore points to verify",
		             v.opening.settings.store);
	verified_free(v.verified);
	remote_free(v.remote);
	opening_done(&v.opening);
	if (rc != 0)
		return cli_error(&e);
	if (v.bad == 0)
		return CLI_DONE;
	return v.bad == v.looked_at ? CLI_FAILED : CLI_PARTLY;
}

static const struct cli_option options[] = {
    {.name = "all", .help = "the newest point of every VM"},
    {.name = "every", .help = "every point of every VM"},
    OPENING_OPTIONS,
    {.name = NULL},
};

const struct cli_verb verb_verify = {
    .name = "verify",
    .operands = "VM[@POINT]...|--all|--every",
    .summary = "read all of a restore point with the key and check it",
    .details =
	"Reads, decrypts and decodes the content of every window of every disk of the points,\n"
	"checks each against its id, and each point's whole map against the hash that was\n"
	"sealed with it. A content that is in several windows or points is read once.\n"
	"A point that is neither good nor bad, as its contents are at a replica that does not\n"
	"answer, \"could not be checked\" (--json: \"ok\" is null).\n"
	"Exit status 0: all are good; 1: none is, or it could not be done; 3: some are not.\n"
	"\n"
	"Examples:\n"
	"  locum verify web01\n"
	"  locum verify web01@2026-11-22T05:00 db01\n"
	"  locum verify --all --json",
    .options = options,
    .min_operands = 0,
    .max_operands = -1,
    .run = run,
};

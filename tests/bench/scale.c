/*
 * What a store of many chunks costs: scale make DIR WINDOWS POINTS CHANGES, then scale STEP DIR
 * in a process of its own each, so that the peak of its memory says something.
 *
 * A step prints lines, separated by tabs: what was measured, wall, CPU, their unit, peak MiB so
 * far.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/store_internal.h"
#include "tests/bench/synthetic.h"

enum {
	COMMITS = 5,
	COMMIT_WINDOWS = 256,
	PAGES = 200,
	FEW = 64,
	LOOKUPS = 100000,
};

static char dir[512], keys[512];

static double
peak_mib(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[128];
	double kib = 0;

	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		if (strncmp(line, "VmHWM:", 6) == 0)
			kib = strtod(line + 6, NULL);
	}
	if (f != NULL)
		(void)fclose(f);
	return kib / 1024;
}

struct watch {
	int64_t wall_ns, cpu_ns;
};

static int64_t
cpu_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * LC_NS_PER_S + t.tv_nsec;
}

static struct watch
start(void)
{
	return (struct watch){clock_mono_ns(), cpu_ns()};
}

/* Since w was started, divided by `per`. */
static void
say(const char *what, struct watch w, double per, const char *unit)
{
	double wall = (double)(clock_mono_ns() - w.wall_ns) / 1e9;
	double cpu = (double)(cpu_ns() - w.cpu_ns) / 1e9;

	(void)printf("%s\t%.4g\t%.4g\t%s\t%.0f\n", what, wall / per, cpu / per, unit, peak_mib());
	(void)fflush(stdout);
}

static struct store_opts
opts_of(enum store_mode mode)
{
	return (struct store_opts){.dir = dir, .mode = mode, .who = "bench", .key_dir = keys};
}

/* ---- steps ---- */

static int
step_rebuild(struct lc_err *e)
{
	struct store_opts o = opts_of(STORE_WRITE);
	struct watch began = start();
	int rc = store_rebuild(&o, e);

	if (rc == 0)
		say("rebuild", began, 1, "s");
	return rc;
}

static int
step_open(struct lc_err *e)
{
	static const char *const names[] = {"open to read", "open to write"};
	int mode, rc = 0;

	for (mode = STORE_READ; rc == 0 && mode <= STORE_WRITE; mode++) {
		struct store_opts o = opts_of((enum store_mode)mode);
		struct watch began = start();
		struct store *s = NULL;

		rc = store_open(&o, &s, e);
		if (rc == 0)
			say(names[mode], began, 1e-3, "ms");
		if (rc == 0)
			store_close(s);
	}
	return rc;
}

static int
commit_one(struct store *s, uint64_t n, struct lc_err *e)
{
	struct writer_opts wo = {.vm = SYNTHETIC_VM, .workers = 1, .level = 1, .whole = true};
	struct commit_opts co = {.source_ns = clock_wall_ns()};
	struct writer_disk d = {.name = "vda"};
	uint8_t *window = lc_alloc(WINDOW_SIZE);
	struct writer *w = NULL;
	enum put_result result;
	uint64_t i, windows;
	int rc = window == NULL ? LC_ENOMEM : writer_begin(s, &wo, &w, e);

	if (rc == 0) {
		d.size = writer_base(w)->disks[0].size;
		rc = writer_disks(w, &d, 1, e);
	}
	windows = d.size / WINDOW_SIZE;
	for (i = 0; rc == 0 && i < COMMIT_WINDOWS; i++) {
		random_bytes(window, 4096);
		rc = writer_put(w, 0, 0, (i * 7919 + n * 104729) * 1009 % windows, window, &result,
		                e);
	}
	if (rc == 0)
		rc = writer_commit(w, &co, NULL, e);
	else if (w != NULL)
		writer_abort(w);
	lc_free(window);
	return rc;
}

static int
step_commit(struct lc_err *e)
{
	struct store_opts o = opts_of(STORE_WRITE);
	struct store *s = NULL;
	int rc = store_open(&o, &s, e);
	uint64_t i;

	for (i = 0; rc == 0 && i < COMMITS; i++) {
		struct watch began = start();

		rc = commit_one(s, i, e);
		if (rc == 0)
			say("commit of 256 windows", began, 1e-3, "ms");
	}
	if (s != NULL)
		store_close(s);
	return rc;
}

static bool
never(void *arg)
{
	(void)arg;
	return false;
}

static int
read_pages(struct view *v, uint32_t n, bool scattered, uint64_t count, uint64_t *chunks,
           struct lc_err *e)
{
	uint64_t windows = view_point(v)->disks[0].size / WINDOW_SIZE, i;
	int rc = 0;

	for (i = 0; rc == 0 && i < count; i++) {
		uint64_t page = scattered ? i * 7919 * 104729 % (windows / n) : i;
		uint64_t left = windows - page * n;

		rc = view_map(v, 0, page * n, left < n ? (uint32_t)left : n, chunks, e);
	}
	return rc;
}

static int
map_of(struct store *s, const char *spec, const char *name, struct lc_err *e)
{
	uint64_t *chunks = lc_alloc_array(VIEW_MAP_MAX, sizeof *chunks), pages;
	struct set_sum sum = {0};
	struct view *v = NULL;
	struct point p = {0};
	char what[80];
	struct watch began = start();
	int rc = chunks == NULL ? LC_ENOMEM : store_find(s, spec, &p, e);

	if (rc == 0) {
		(void)snprintf(what, sizeof what, "find %s", name);
		say(what, began, 1e-3, "ms");
		rc = store_view(s, p.id, &v, e);
	}
	began = start();
	rc = rc != 0 ? rc : read_pages(v, FEW, true, PAGES, chunks, e);
	if (rc == 0) {
		(void)snprintf(what, sizeof what, "map read, %d windows, %s", FEW, name);
		say(what, began, PAGES * 1e-3, "ms");
		began = start();
		rc = read_pages(v, VIEW_MAP_MAX, true, PAGES, chunks, e);
	}
	if (rc == 0) {
		(void)snprintf(what, sizeof what, "map read, %u windows, %s", VIEW_MAP_MAX, name);
		say(what, began, PAGES * 1e-3, "ms");
		pages = (p.disks[0].size / WINDOW_SIZE + VIEW_MAP_MAX - 1) / VIEW_MAP_MAX;
		began = start();
		rc = read_pages(v, VIEW_MAP_MAX, false, pages, chunks, e);
	}
	if (rc == 0) {
		(void)snprintf(what, sizeof what, "map read, all, %s", name);
		say(what, began, 1, "s");
		began = start();
		rc = view_add_disk(v, 0, never, NULL, &sum, e);
		rc = rc != 0 ? rc : view_check(v, &sum, e);
	}
	if (rc == 0) {
		(void)snprintf(what, sizeof what, "map checked, %s", name);
		say(what, began, 1, "s");
	}
	if (v != NULL)
		view_close(v);
	point_done(&p);
	lc_free(chunks);
	return rc;
}

static int
step_map(struct lc_err *e)
{
	struct store_opts o = opts_of(STORE_READ);
	struct store *s = NULL;
	struct point_list list = {0};
	char spec[80], hex[33];
	struct watch began;
	int rc = store_open(&o, &s, e);

	rc = rc != 0 ? rc : map_of(s, SYNTHETIC_VM, "newest", e);
	began = start();
	rc = rc != 0 ? rc : store_points(s, SYNTHETIC_VM, &list, e);
	if (rc == 0) {
		say("list all points", began, 1e-3, "ms");
		(void)snprintf(spec, sizeof spec, "%s@%s", SYNTHETIC_VM,
		               lc_hex(hex, list.points[list.n / 2].id, 16));
		point_list_free(&list);
		rc = map_of(s, spec, "middle", e);
	}
	if (s != NULL)
		store_close(s);
	return rc;
}

static int
look_up(struct store *s, uint64_t from, uint64_t step, uint64_t count, uint64_t *found,
        struct lc_err *e)
{
	uint8_t id[32];
	uint64_t i, no;
	int rc = 0;

	*found = 0;
	for (i = 0; rc == 0 && i < count; i++) {
		synthetic_id(from + i * step, id);
		rc = fold_resolve(s->fold, id, &no, e);
		*found += rc == 0;
		rc = rc == LC_ENOENT ? 0 : rc;
	}
	return rc;
}

static int
step_lookup(struct lc_err *e)
{
	struct store_opts o = opts_of(STORE_WRITE);
	struct store *s = NULL;
	struct store_stats st;
	uint64_t found, count;
	struct watch began;
	int rc = store_open(&o, &s, e);

	began = start();
	rc = rc != 0 ? rc : store_stats(s, &st, e);
	if (rc == 0)
		say("store stats", began, 1e-3, "ms");
	began = start();
	rc = rc != 0 ? rc : look_up(s, UINT64_C(1) << 40, 1, LOOKUPS, &found, e);
	if (rc == 0)
		say("lookup of a new id", began, LOOKUPS * 1e-6, "us");
	if (rc == 0 && found != 0)
		rc = lc_fail(e, LC_ECORRUPT, 0, "an id was found that nobody made");
	/* Those that were made, far from each other: a clone that is laid out otherwise. */
	began = start();
	rc = rc != 0 ? rc : look_up(s, 0, st.chunks / LOOKUPS + 1, LOOKUPS / 2, &found, e);
	if (rc == 0)
		say("lookup of a known id, scattered", began, LOOKUPS / 2 * 1e-6, "us");
	count = rc == 0 && st.chunks < 2 * LOOKUPS ? st.chunks / 2 : LOOKUPS;
	began = start();
	rc = rc != 0 ? rc : look_up(s, 0, 1, count, &found, e);
	if (rc == 0)
		say("lookup of a known id, in order", began, (double)count * 1e-6, "us");
	if (rc == 0 && found != count)
		rc = lc_fail(e, LC_ECORRUPT, 0, "an id that was made is not found");
	if (s != NULL)
		store_close(s);
	return rc;
}

static int
step_drop(struct lc_err *e)
{
	static const char *const names[] = {"drop the oldest", "drop one in the middle",
	                                    "drop the newest", "drop the oldest again"};
	struct store_opts o = opts_of(STORE_WRITE);
	struct point_list list = {0};
	struct store *s = NULL;
	size_t i, which[4];
	int rc = store_open(&o, &s, e);

	rc = rc != 0 ? rc : store_points(s, SYNTHETIC_VM, &list, e);
	which[0] = 0;
	which[1] = list.n / 2;
	which[2] = list.n - 1;
	which[3] = 1;
	for (i = 0; rc == 0 && list.n > 4 && i < 4; i++) {
		struct watch began = start();

		rc = store_drop(s, list.points[which[i]].id, e);
		if (rc == 0)
			say(names[i], began, 1e-3, "ms");
	}
	point_list_free(&list);
	if (s != NULL)
		store_close(s);
	return rc;
}

static int
step_sizes(struct lc_err *e)
{
	struct store_opts o = opts_of(STORE_READ);
	struct store_stats st;
	struct store *s = NULL;
	char path[600];
	struct stat f;
	int rc = store_open(&o, &s, e);

	rc = rc != 0 ? rc : store_stats(s, &st, e);
	if (s != NULL)
		store_close(s);
	(void)snprintf(path, sizeof path, "%s/catalog.sqlite", dir);
	if (rc == 0 && stat(path, &f) != 0)
		rc = lc_fail_errno(e, "%s", path);
	if (rc == 0) {
		(void)printf("chunks\t%" PRIu64 "\t\t\t\n", st.chunks);
		(void)printf("rows of the map\t%" PRIu64 "\t\t\t\n", st.map_rows);
		(void)printf("segments\t%" PRIu64 "\t\t\t\n", st.segments);
		(void)printf("points\t%" PRIu64 "\t\t\t\n", st.points);
		(void)printf("catalog\t%.1f\t\tbytes a chunk\t\n",
		             (double)f.st_size / (double)st.chunks);
	}
	return rc;
}

int
main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct lc_err *e);
	} steps[] = {{"rebuild", step_rebuild}, {"open", step_open},     {"commit", step_commit},
	             {"map", step_map},         {"lookup", step_lookup}, {"drop", step_drop},
	             {"sizes", step_sizes}};
	struct lc_err e = LC_ERR_INIT;
	size_t i;
	int rc = 1;

	if (argc > 2) {
		(void)snprintf(dir, sizeof dir, "%s/store", argv[2]);
		(void)snprintf(keys, sizeof keys, "%s/keys", argv[2]);
	}
	if (argc == 6 && strcmp(argv[1], "make") == 0) {
		struct synthetic what = {.windows = strtoull(argv[3], NULL, 10),
		                         .points = strtoull(argv[4], NULL, 10),
		                         .changes = strtoull(argv[5], NULL, 10)};

		rc = synthetic_make(argv[2], &what, &e);
	}
	for (i = 0; argc == 3 && i < sizeof steps / sizeof steps[0]; i++) {
		if (strcmp(argv[1], steps[i].name) == 0)
			rc = steps[i].run(&e);
	}
	if (rc > 0)
		(void)fprintf(stderr, "usage: scale make DIR WINDOWS POINTS CHANGES | "
		                      "rebuild|open|commit|map|lookup|drop|sizes DIR\n");
	else if (rc < 0)
		(void)fprintf(stderr, "scale: %s\n", e.msg);
	return rc == 0 ? 0 : 1;
}

/*
 * The points of a store: list, find, drop, count.
 */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/commit.h"
#include "store/store_internal.h"

void
store_vm_name(struct store *s, const struct catalog_vm *vm, char dst[POINT_NAME_MAX])
{
	struct lc_buf name = {0};

	dst[0] = '\0';
	if (s->keyring != NULL &&
	    open_blob(s->keyring, (struct lc_span){vm->id, 16}, vm->sealed, &name, NULL) == 0 &&
	    name.n > 0 && name.n < POINT_NAME_MAX) {
		memcpy(dst, name.p, name.n);
		dst[name.n] = '\0';
	}
	if (!point_name_ok(dst))
		(void)lc_hex(dst, vm->id, 16);
	lc_buf_free(&name);
}

int
store_point_of(struct store *s, const struct catalog_point *cp, struct point *out, struct lc_err *e)
{
	char hex[33];
	struct lc_span sealed;
	int rc = point_decode(cp->entry, out, &sealed, e);

	if (rc != 0)
		return rc;
	memcpy(out->vm_id, cp->vm, 16);
	out->flags = cp->flags;
	out->commit_ns = cp->commit_ns;
	if (s->keyring == NULL)
		return 0;
	rc = point_open_header(s->keyring, sealed, out, e);
	if (rc != 0) {
		point_done(out);
		lc_wrap(e, "store %s: point %s", s->dir, lc_hex(hex, cp->id, 16));
	}
	return rc;
}

/* A point takes 15 KB in memory, as it has room for many disks; so a list of all is one of these,
 * and each point is read when its turn comes. */
struct listed {
	uint8_t id[POINT_ID_SIZE];
	int64_t source_ns, commit_ns;
	size_t vm;
};

struct listing {
	struct store *s;
	struct lc_buf vms;  /* struct store_vm[], by name */
	struct lc_buf rows; /* struct listed[] */
	size_t vm;          /* that is being listed */
	struct point *p;    /* the one at hand */
};

static const struct store_vm *
vm_at(const struct listing *l, size_t i)
{
	return (const struct store_vm *)(const void *)l->vms.p + i;
}

static const struct listed *
rows_of(const struct listing *l, size_t *n)
{
	*n = l->rows.n / sizeof(struct listed);
	return (const struct listed *)(const void *)l->rows.p;
}

static int
list_vm(void *arg, const struct catalog_vm *vm, struct lc_err *e)
{
	struct listing *l = arg;
	struct store_vm v;

	memset(&v, 0, sizeof v);
	memcpy(v.id, vm->id, 16);
	store_vm_name(l->s, vm, v.name);
	return lc_buf_append(&l->vms, &v, sizeof v) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* A point whose header does not open, or is of another VM than the log says, is shown as damaged:
 * it must not hide the others. */
static int
damaged_point(const struct listing *l, const struct catalog_point *cp, struct lc_err *e)
{
	struct point *p = l->p;
	struct lc_span sealed;
	int rc = point_decode(cp->entry, p, &sealed, e);

	if (rc != 0)
		return rc;
	memcpy(p->vm_id, cp->vm, 16);
	(void)snprintf(p->vm, sizeof p->vm, "%s", vm_at(l, l->vm)->name);
	p->flags = cp->flags | POINT_MAP_DAMAGED;
	p->commit_ns = cp->commit_ns;
	return 0;
}

/* Into l->p. */
static int
read_point(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct listing *l = arg;
	const char *name = vm_at(l, l->vm)->name;
	int rc = store_point_of(l->s, cp, l->p, &err);

	if (rc == 0 && l->p->opened && strcmp(l->p->vm, name) != 0) {
		rc = lc_fail(&err, LC_ECORRUPT, 0, "a restore point of %s in the place of %s's",
		             l->p->vm, name);
		point_done(l->p);
	}
	if (rc == LC_ECORRUPT || rc == LC_EKEY) {
		log_warn("%s", err.msg);
		rc = damaged_point(l, cp, e);
	} else if (rc != 0 && e != NULL) {
		*e = err;
	}
	if (rc == 0 && !l->p->opened)
		(void)snprintf(l->p->vm, sizeof l->p->vm, "%s", name);
	return rc;
}

static int
list_point(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct listing *l = arg;
	struct listed x = {.vm = l->vm};
	struct lc_span sealed;
	int rc;

	if ((cp->flags & POINT_SEED) != 0)
		return 0;
	rc = point_decode(cp->entry, l->p, &sealed, e);
	if (rc != 0)
		return rc;
	memcpy(x.id, cp->id, sizeof x.id);
	x.source_ns = l->p->source_ns;
	x.commit_ns = cp->commit_ns;
	return lc_buf_append(&l->rows, &x, sizeof x) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
by_name(const void *a, const void *b)
{
	const struct store_vm *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order != 0 ? order : memcmp(x->id, y->id, sizeof x->id);
}

static int
unknown_vm(struct store *s, const char *vm, const struct store_vm *vms, size_t n, struct lc_err *e)
{
	const char **names = lc_alloc_array(n, sizeof *names);
	const char *near = NULL;
	size_t i;

	for (i = 0; names != NULL && i < n; i++)
		names[i] = vms[i].name;
	if (names != NULL)
		near = cli_nearest(vm, names, n);
	lc_free(names);
	if (near != NULL)
		(void)lc_fail(e, LC_ENOENT, 0, "store %s has no VM %s; did you mean %s?", s->dir,
		              vm, near);
	else
		(void)lc_fail(e, LC_ENOENT, 0, "store %s has no VM %s (see: locum points)", s->dir,
		              vm);
	return LC_ENOENT;
}

#define ID_DIGITS_MIN 8u

/* Where several hosts write, a name may be there twice, and one of the two may be a false one. */
static int
several_vms(struct store *s, const char *vm, const struct store_vm *a, const struct store_vm *b,
            struct lc_err *e)
{
	char x[33], y[33];

	return lc_fail(e, LC_EINVAL, 0,
	               "store %s has several VMs %s: give the first digits of its id (%.8s, %.8s, "
	               "see: locum points)",
	               s->dir, vm, lc_hex(x, a->id, 16), lc_hex(y, b->id, 16));
}

/* By its name, else by the first digits of its id: that is all that is known of it where the store
 * is locked. */
static int
pick_vm(struct store *s, const struct store_vm *vms, size_t n, const char *vm,
        const struct store_vm **out, struct lc_err *e)
{
	size_t i, len = strlen(vm);
	char hex[33];

	*out = NULL;
	for (i = 0; i < n; i++) {
		if (strcmp(vm, vms[i].name) != 0)
			continue;
		if (*out != NULL)
			return several_vms(s, vm, *out, &vms[i], e);
		*out = &vms[i];
	}
	if (*out != NULL)
		return 0;
	for (i = 0; len >= ID_DIGITS_MIN && i < n; i++) {
		if (strncasecmp(lc_hex(hex, vms[i].id, 16), vm, len) != 0)
			continue;
		if (*out != NULL)
			return several_vms(s, vm, *out, &vms[i], e);
		*out = &vms[i];
	}
	return *out != NULL ? 0 : unknown_vm(s, vm, vms, n, e);
}

static void
listing_done(struct listing *l)
{
	lc_buf_free(&l->vms);
	lc_buf_free(&l->rows);
	lc_free(l->p);
}

/* The rows of a VM (NULL: of all).  l needs listing_done() in every case. */
static int
listing_make(struct listing *l, struct store *s, const char *vm, struct lc_err *e)
{
	const struct store_vm *one = NULL;
	struct store_vm *vms;
	size_t n;
	int rc;

	*l = (struct listing){.s = s, .p = lc_alloc(sizeof *l->p)};
	if (l->p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = catalog_each_vm(s->catalog, list_vm, l, e);
	vms = (struct store_vm *)(void *)l->vms.p;
	n = l->vms.n / sizeof *vms;
	if (rc == 0 && n > 0)
		qsort(vms, n, sizeof *vms, by_name);
	if (rc == 0 && vm != NULL)
		rc = pick_vm(s, vms, n, vm, &one, e);
	for (l->vm = 0; rc == 0 && l->vm < n; l->vm++) {
		if (one == NULL || one == &vms[l->vm])
			rc = catalog_each_point_of(s->catalog, vms[l->vm].id, list_point, l, e);
	}
	return rc;
}

int
store_each_point(struct store *s, const char *vm,
                 int (*on)(void *arg, struct point *p, struct lc_err *e), void *arg,
                 struct lc_err *e)
{
	const struct listed *rows;
	struct listing l;
	size_t i, n;
	int rc = listing_make(&l, s, vm, e);

	rows = rows_of(&l, &n);
	for (i = 0; rc == 0 && i < n; i++) {
		struct lc_err err = LC_ERR_INIT;

		l.vm = rows[i].vm;
		rc = catalog_point(s->catalog, rows[i].id, read_point, &l, &err);
		if (rc == 0) {
			rc = on(arg, l.p, e);
			point_done(l.p);
		} else if (rc == LC_ENOENT) {
			rc = 0; /* dropped meanwhile */
		} else if (e != NULL) {
			*e = err;
		}
	}
	listing_done(&l);
	return rc;
}

static int
keep_point(void *arg, struct point *p, struct lc_err *e)
{
	struct lc_buf *points = arg;

	if (lc_buf_append(points, p, sizeof *p) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	p->definition = NULL; /* given away */
	p->left_out = NULL;
	return 0;
}

int
store_points(struct store *s, const char *vm, struct point_list *out, struct lc_err *e)
{
	struct lc_buf points = {0};
	int rc = store_each_point(s, vm, keep_point, &points, e);

	out->points = (struct point *)(void *)points.p;
	out->n = points.n / sizeof(struct point);
	if (rc != 0)
		point_list_free(out);
	return rc;
}

int
store_vms(struct store *s, struct store_vm **out, size_t *n, struct lc_err *e)
{
	struct listing l = {.s = s};
	int rc = catalog_each_vm(s->catalog, list_vm, &l, e);

	if (rc != 0)
		lc_buf_free(&l.vms);
	*out = (struct store_vm *)(void *)l.vms.p;
	*n = l.vms.n / sizeof **out;
	return rc;
}

void
point_list_free(struct point_list *l)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		point_done(&l->points[i]);
	lc_free(l->points);
	l->points = NULL;
	l->n = 0;
}

#define SKEW_NS (INT64_C(300) * LC_NS_PER_S) /* that clocks may differ by */

/*
 * The newest point that is not younger than `limit`.  The instant of a point is its host's word,
 * and a host may be captured, or have a wrong clock: none is older than the ones that came before
 * it, or a point of today could be put in the place of what was last week.  One that says it is of
 * the time after it came makes no other one younger.
 */
static bool
choose_by_time(const struct listed *rows, size_t n, int64_t limit, size_t *out)
{
	int64_t since = INT64_MIN;
	bool found = false;
	size_t i;

	for (i = 0; i < n; i++) {
		int64_t at = rows[i].source_ns > since ? rows[i].source_ns : since;

		if (at <= limit) {
			*out = i;
			found = true;
		}
		if (rows[i].source_ns / 2 - rows[i].commit_ns / 2 <= SKEW_NS / 2)
			since = at;
	}
	return found;
}

/* The point of the list that `when` names: a time, an age, or digits of its id. */
static int
choose(const struct listing *l, const char *vm, const char *when, size_t *out, struct lc_err *e)
{
	struct cli_word w;
	char hex[33], newest[32], oldest[32];
	size_t i, n, hits = 0, len = strlen(when);
	const struct listed *rows = rows_of(l, &n);
	int64_t limit = 0, age;
	bool timed;

	if (n == 0)
		return lc_fail(e, LC_ENOENT, 0, "%s has no restore points yet", vm);
	*out = n - 1;
	if (*when == '\0' || strcmp(when, "latest") == 0)
		return 0;
	timed = clock_parse(when, &limit);
	if (!timed && when[0] == '-' && clock_parse_duration(when + 1, &age)) {
		limit = clock_wall_ns() - age;
		timed = true;
	}
	if (timed) {
		if (choose_by_time(rows, n, limit, out))
			return 0;
		return lc_fail(e, LC_ENOENT, 0, "%s has no point as old as %s; its oldest is of %s",
		               vm, when, clock_format(oldest, sizeof oldest, rows[0].source_ns));
	}
	for (i = 0; len >= 4 && len <= 32 && i < n; i++) {
		if (strncasecmp(lc_hex(hex, rows[i].id, 16), when, len) == 0) {
			*out = i;
			hits++;
		}
	}
	if (hits == 1)
		return 0;
	if (hits > 1)
		return lc_fail(e, LC_EINVAL, 0,
		               "%s@%s: %zu points begin like that, give more digits", vm, when,
		               hits);
	return lc_fail(
	    e, LC_ENOENT, 0, "%s has no point %s; it has %zu, from %s to %s (see: locum points %s)",
	    vm, when, n, clock_format(oldest, sizeof oldest, rows[0].source_ns),
	    clock_format(newest, sizeof newest, rows[n - 1].source_ns), cli_word(&w, vm));
}

int
store_points_after(struct store *s, const uint8_t line[16], const uint8_t point[POINT_ID_SIZE],
                   uint64_t *n, struct lc_err *e)
{
	return catalog_points_after(s->catalog, line, point, n, e);
}

struct standing {
	const struct point *p;
	bool is;
};

static int
compare_newest(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct standing *x = arg;

	(void)e;
	x->is = memcmp(cp->id, x->p->id, POINT_ID_SIZE) == 0 &&
	        (cp->flags & (POINT_SEED | POINT_MAP_DAMAGED)) == 0;
	return 0;
}

bool
store_stands(struct store *s, const struct point *p)
{
	struct standing x = {.p = p};
	uint8_t line[16];
	bool restarts;

	return !s->fold->missing && catalog_vm_line(s->catalog, p->vm_id, line, NULL) == 0 &&
	       memcmp(line, p->line, sizeof line) == 0 &&
	       catalog_restarts(s->catalog, line, &restarts, NULL) == 0 && !restarts &&
	       catalog_newest(s->catalog, line, compare_newest, &x, NULL) == 0 && x.is;
}

int
store_find(struct store *s, const char *spec, struct point *out, struct lc_err *e)
{
	const char *at = strrchr(spec, '@');
	size_t n = at == NULL ? strlen(spec) : (size_t)(at - spec);
	char vm[POINT_NAME_MAX];
	struct listing l;
	size_t pick = 0, rows;
	int rc;

	if (n == 0 || n >= sizeof vm)
		return lc_fail(e, LC_EINVAL, 0, "'%s' is no name of a VM or restore point", spec);
	/* More likely a variable that is not set than the wish for the newest. */
	if (at != NULL && at[1] == '\0')
		return lc_fail(e, LC_EINVAL, 0, "%s: which point? nothing stands after the '@'",
		               spec);
	memcpy(vm, spec, n);
	vm[n] = '\0';
	rc = listing_make(&l, s, vm, e);
	rc = rc != 0 ? rc : choose(&l, vm, at == NULL ? "" : at + 1, &pick, e);
	if (rc == 0) {
		const struct listed *x = rows_of(&l, &rows) + pick;

		l.vm = x->vm;
		rc = catalog_point(s->catalog, x->id, read_point, &l, e);
	}
	if (rc == 0)
		*out = *l.p; /* with what it owns */
	listing_done(&l);
	return rc;
}

static int
exists(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)arg;
	(void)p;
	(void)e;
	return 0;
}

struct dropping {
	struct store *s;
	const uint8_t *id;
};

static int
build_drop(void *arg, struct lc_buf *payload, struct lc_err *e)
{
	struct dropping *d = arg;
	char hex[33];
	int rc;

	rc = catalog_point(d->s->catalog, d->id, exists, NULL, e);
	if (rc == LC_ENOENT)
		return lc_fail(e, LC_ENOENT, 0, "store %s has no point %s", d->s->dir,
		               lc_hex(hex, d->id, 16));
	rc = rc != 0 ? rc : store_leased(d->s, d->id, e);
	rc = rc != 0 ? rc : commit_start(payload, clock_wall_ns(), e);
	return rc != 0
	           ? rc
	           : commit_add(payload, COMMIT_DROP, (struct lc_span){d->id, POINT_ID_SIZE}, e);
}

int
store_drop(struct store *s, const uint8_t point[POINT_ID_SIZE], struct lc_err *e)
{
	struct dropping d = {.s = s, .id = point};
	char *bar;
	int fd;
	int rc = lease_bar(s, point, &bar, &fd, e);

	if (rc != 0)
		return rc;
	rc = store_commit(s, build_drop, &d, e);
	lease_give(&bar, &fd);
	return rc;
}

struct stats_sum {
	struct store *s;
	uint64_t logical;
};

static int
sum_newest(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct stats_sum *x = arg;
	struct lc_span sealed;
	struct point *p = lc_alloc(sizeof *p);
	size_t i;
	int rc;

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = point_decode(cp->entry, p, &sealed, e);
	for (i = 0; rc == 0 && i < p->ndisks; i++)
		x->logical += p->disks[i].size;
	lc_free(p);
	return rc;
}

static int
sum_vm(void *arg, const struct catalog_vm *vm, struct lc_err *e)
{
	struct stats_sum *x = arg;
	int rc = catalog_newest(x->s->catalog, vm->line, sum_newest, x, e);

	return rc == LC_ENOENT ? 0 : rc;
}

int
store_stats(struct store *s, struct store_stats *out, struct lc_err *e)
{
	struct catalog_counts counts;
	struct stats_sum sum = {.s = s};
	struct segment_info *list;
	size_t n, i;
	int rc;

	memset(out, 0, sizeof *out);
	rc = catalog_counts(s->catalog, &counts, e);
	rc = rc != 0 ? rc : catalog_each_vm(s->catalog, sum_vm, &sum, e);
	rc = rc != 0 ? rc : segments_list(s->segments, &list, &n, e);
	if (rc != 0)
		return rc;
	for (i = 0; i < n; i++)
		out->bytes += list[i].bytes;
	lc_free(list);
	out->segments = n;
	out->chunks = counts.chunks;
	out->points = counts.points;
	out->vms = counts.vms;
	out->map_rows = counts.rows;
	out->damaged = counts.damaged;
	out->dropped = counts.dropped;
	out->logical = sum.logical;
	return 0;
}

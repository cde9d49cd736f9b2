/*
 * The store against a model that anybody can see is right: restore points as plain copies of
 * arrays.
 *
 * Random histories: writes, zeros, resizes, disks added, removed and added again, full and sparse
 * passes, seeds, aborts, drops of any point, forks from any point to a line of its own, restarts,
 * crashes in the middle of a pass, rebuilds, catalogs put back.  After each stretch every kept
 * point must read back as the model says and its set hash must be right.
 *
 * LOCUM_MODEL_SEED=n gives the seed (printed on failure and at the start), LOCUM_MODEL_STEPS how
 * many steps, LOCUM_MODEL_RUNS how many seeds from there on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define VMS 3u
#define DISKS 4u
#define POINTS 700u

struct kept {
	uint8_t id[POINT_ID_SIZE];
	uint64_t line;
	size_t ndisks;
	struct vault_disk disks[DISKS];
};

struct vm {
	char name[16];
	size_t ndisks;
	struct vault_disk disks[DISKS]; /* as they are now */
	bool based;                     /* the store has a point or seed of it */
	bool seeded;                    /* ... and it is a seed */
	uint64_t line;                  /* where the next one goes */
	struct kept base;               /* what the newest one of that holds, seeds too */
	const struct kept *on;          /* what the pass in hand builds upon, or NULL */
	struct kept points[POINTS];     /* of all lines, in order of commit, without seeds */
	size_t npoints;
};

struct model {
	uint64_t seed, first_seed;
	struct vault v;
	struct vm vms[VMS];
	uint64_t next_code, next_line;
	uint64_t points, drops, forks, seeds, aborts, crashes, rebuilds, reopens, checked;
	unsigned steps;
};

static uint64_t
pick(struct model *m, uint64_t n)
{
	return vault_random(&m->seed, n);
}

static void
must_here(struct model *m, int rc, const struct lc_err *e, const char *what)
{
	if (rc == 0)
		return;
	(void)fprintf(stderr, "seed %llu, step %u: %s: %s (%d)\n",
	              (unsigned long long)m->first_seed, m->steps, what, e->msg, rc);
	fail();
}

static void
kept_free(struct kept *k)
{
	size_t i;

	for (i = 0; i < k->ndisks; i++)
		vault_disk_free(&k->disks[i]);
	memset(k, 0, sizeof *k);
}

static void
kept_copy(struct kept *dst, const uint8_t *id, uint64_t line, const struct vault_disk *disks,
          size_t n)
{
	size_t i;

	kept_free(dst);
	memcpy(dst->id, id, POINT_ID_SIZE);
	dst->line = line;
	dst->ndisks = n;
	for (i = 0; i < n; i++)
		dst->disks[i] = vault_disk_copy(&disks[i]);
}

/* ---- the guests ---- */

static uint64_t
content(struct model *m)
{
	/* Known content often, zeros often, new content often, and what shares pages with others.
	 */
	switch (pick(m, 6)) {
	case 0:
		return 0;
	case 5: /* pages of two, elsewhere */
		return vault_mix(5 * (1 + pick(m, 8)), 1 + (unsigned)pick(m, 15));
	case 1:
		return 1 + pick(m, 20);
	case 2:
		return 1 + pick(m, m->next_code);
	default:
		return m->next_code++;
	}
}

static void
write_disk(struct model *m, struct vault_disk *d)
{
	uint64_t n = point_windows(d->size), i, k, len;

	if (n == 0)
		return;
	for (i = pick(m, 6); i > 0; i--) {
		k = pick(m, n);
		len = pick(m, 4) == 0 ? 1 + pick(m, n - k) : 1;
		for (; len > 0; len--, k++)
			d->codes[k] = content(m);
	}
}

static void
add_disk(struct model *m, struct vm *vm)
{
	char name[16];
	uint64_t windows = pick(m, 50) == 0 ? 4090 + pick(m, 20) : pick(m, 24);

	if (vm->ndisks == DISKS)
		return;
	/* Mostly a name that was there before. */
	(void)snprintf(name, sizeof name, "vd%c", (char)('a' + pick(m, 6)));
	for (size_t i = 0; i < vm->ndisks; i++) {
		if (strcmp(vm->disks[i].name, name) == 0)
			return;
	}
	vm->disks[vm->ndisks] = vault_disk(name, windows);
	write_disk(m, &vm->disks[vm->ndisks++]);
}

static void
remove_disk(struct model *m, struct vm *vm)
{
	size_t i = (size_t)pick(m, vm->ndisks);

	if (vm->ndisks < 2)
		return;
	vault_disk_free(&vm->disks[i]);
	memmove(&vm->disks[i], &vm->disks[i + 1], (vm->ndisks - i - 1) * sizeof vm->disks[0]);
	vm->ndisks--;
}

static void
resize_disk(struct model *m, struct vm *vm)
{
	struct vault_disk *d = &vm->disks[pick(m, vm->ndisks)];
	uint64_t n = point_windows(d->size);
	uint64_t windows = pick(m, 2) == 0 ? n + pick(m, 10) : n - pick(m, n / 2 + 1);
	uint64_t odd = windows > 0 && pick(m, 3) == 0 ? 512 * pick(m, 128) : 0;

	vault_disk_resize(d, windows * WINDOW_SIZE - odd);
}

static void
live(struct model *m, struct vm *vm)
{
	size_t i;

	switch (pick(m, 20)) {
	case 0:
		add_disk(m, vm);
		break;
	case 1:
		remove_disk(m, vm);
		break;
	case 2:
		resize_disk(m, vm);
		break;
	default:
		break;
	}
	for (i = 0; i < vm->ndisks; i++)
		write_disk(m, &vm->disks[i]);
}

/* ---- passes ---- */

/* The disk of the base by that name, or NULL. */
static const struct vault_disk *
in_base(const struct vm *vm, const char *name)
{
	size_t i;

	for (i = 0; vm->on != NULL && i < vm->on->ndisks; i++) {
		if (strcmp(vm->on->disks[i].name, name) == 0)
			return &vm->on->disks[i];
	}
	return NULL;
}

/* Whether a window reaches beyond the end of one of the two. */
static bool
cut_differs(const struct vault_disk *a, const struct vault_disk *b, uint64_t window)
{
	uint64_t end = a->size < b->size ? a->size : b->size;

	return a->size != b->size && (window + 1) * WINDOW_SIZE > end;
}

/* What a dirty bitmap would say, or more. */
static bool
must_read(const struct vault_disk *old, const struct vault_disk *d, uint64_t window)
{
	uint64_t n = old == NULL ? 0 : point_windows(old->size);

	if (window >= n)
		return d->codes[window] != 0;
	if (d->codes[window] != old->codes[window])
		return true;
	return cut_differs(old, d, window);
}

/* Put one disk's windows up to `end`; holes and runs of zeros as such now and then. */
static int
pass_disk(struct model *m, struct writer *w, struct vm *vm, size_t i, uint64_t end, bool sparse,
          struct lc_err *e)
{
	struct vault_disk *d = &vm->disks[i];
	const struct vault_disk *old = in_base(vm, d->name);
	uint64_t k, run;
	int rc = 0;

	assert_int_equal(writer_known(w, i), old != NULL);
	for (k = 0; rc == 0 && k < end; k++) {
		if (d->codes[k] == 0 && pick(m, 2) == 0) {
			for (run = 1; k + run < end && d->codes[k + run] == 0; run++)
				;
			rc = writer_zeros(w, i, k, run, e);
			k += run - 1;
			continue;
		}
		if (!sparse || must_read(old, d, k))
			rc = vault_put(w, i, d, k, e);
	}
	return rc;
}

/* What the store holds after a pass that read disk i up to ends[i]. */
static void
mix(struct vm *vm, const uint64_t *ends, struct vault_disk *out)
{
	uint64_t k, n;
	size_t i;

	for (i = 0; i < vm->ndisks; i++) {
		const struct vault_disk *old = in_base(vm, vm->disks[i].name);

		out[i] = vault_disk_copy(&vm->disks[i]);
		n = old == NULL ? 0 : point_windows(old->size);
		for (k = ends[i]; k < point_windows(out[i].size); k++) {
			out[i].codes[k] = k < n ? old->codes[k] : 0;
			if (k < n && cut_differs(old, &out[i], k))
				out[i].codes[k] = UINT64_MAX; /* whatever: must be read */
		}
	}
}

enum ending { COMMIT, SEED, ABORT, CRASH };

static void crash(struct model *m, struct writer *w);

static void
check_base(struct model *m, const struct vm *vm, const struct writer *w)
{
	const struct point *base = writer_base(w);

	if ((base != NULL) != (vm->on != NULL) ||
	    (base != NULL && memcmp(base->id, vm->on->id, POINT_ID_SIZE) != 0)) {
		(void)fprintf(stderr, "seed %llu, step %u: %s begins on another base\n",
		              (unsigned long long)m->first_seed, m->steps, vm->name);
		fail();
	}
}

/* fork: the point at which a new line begins, or NULL. */
static void
backup(struct model *m, struct vm *vm, enum ending ending, const struct kept *fork)
{
	struct lc_err e = LC_ERR_INIT;
	struct commit_opts o = {.source_ns = clock_wall_ns(), .definition = "name = web01\n"};
	uint64_t ends[DISKS];
	struct vault_disk mixed[DISKS];
	struct writer *w;
	struct point p;
	bool sparse;
	size_t i;
	int rc = 0;

	vm->on = fork != NULL ? fork : vm->based ? &vm->base : NULL;
	sparse = vm->on != NULL && pick(m, 8) != 0;
	w = vault_fork(m->v.s, vm->name, fork == NULL ? NULL : fork->id, vm->disks, vm->ndisks, &e);
	must_here(m, w == NULL ? -1 : 0, &e, "begin");
	check_base(m, vm, w);
	for (i = 0; i < vm->ndisks; i++) {
		ends[i] = point_windows(vm->disks[i].size);
		if (ending != COMMIT)
			ends[i] = pick(m, ends[i] + 1);
		rc = rc != 0 ? rc : pass_disk(m, w, vm, i, ends[i], sparse, &e);
	}
	must_here(m, rc, &e, "put");
	if (ending == ABORT) {
		writer_abort(w);
		m->aborts++;
		return;
	}
	if (ending == CRASH) {
		crash(m, w);
		return;
	}
	o.seed = ending == SEED;
	o.covered = ends;
	must_here(m, writer_commit(w, &o, &p, &e), &e, "commit");
	mix(vm, ends, mixed);
	if (fork != NULL) {
		vm->line = ++m->next_line;
		m->forks++;
	}
	kept_copy(&vm->base, p.id, vm->line, mixed, vm->ndisks);
	vm->based = true;
	vm->seeded = ending == SEED;
	if (ending == COMMIT) {
		kept_copy(&vm->points[vm->npoints++], p.id, vm->line, vm->disks, vm->ndisks);
		m->points++;
	} else {
		m->seeds++;
	}
	for (i = 0; i < vm->ndisks; i++)
		vault_disk_free(&mixed[i]);
	point_done(&p);
}

/* From any point; the VM goes back to what it was then, or does not. */
static void
fork_line(struct model *m, struct vm *vm, enum ending ending)
{
	const struct kept *at;
	size_t i;

	if (vm->npoints == 0 || vm->npoints == POINTS)
		return;
	at = &vm->points[pick(m, vm->npoints)];
	if (pick(m, 2) == 0) {
		for (i = 0; i < vm->ndisks; i++)
			vault_disk_free(&vm->disks[i]);
		vm->ndisks = at->ndisks;
		for (i = 0; i < at->ndisks; i++)
			vm->disks[i] = vault_disk_copy(&at->disks[i]);
	}
	live(m, vm);
	backup(m, vm, ending, at);
}

/* What the next pass builds upon once the newest point of the line is gone. */
static void
base_dropped(struct vm *vm)
{
	size_t i;

	for (i = vm->npoints; i > 0 && vm->points[i - 1].line != vm->line; i--)
		;
	vm->based = i > 0;
	if (i > 0)
		kept_copy(&vm->base, vm->points[i - 1].id, vm->line, vm->points[i - 1].disks,
		          vm->points[i - 1].ndisks);
}

static void
drop(struct model *m, struct vm *vm)
{
	struct lc_err e = LC_ERR_INIT;
	bool newest;
	size_t i;

	if (vm->npoints == 0)
		return;
	switch (pick(m, 4)) {
	case 0:
		i = 0;
		break;
	case 1:
		i = vm->npoints - 1;
		break;
	default:
		i = (size_t)pick(m, vm->npoints);
		break;
	}
	must_here(m, store_drop(m->v.s, vm->points[i].id, &e), &e, "drop");
	newest = vm->based && memcmp(vm->base.id, vm->points[i].id, POINT_ID_SIZE) == 0;
	kept_free(&vm->points[i]);
	memmove(&vm->points[i], &vm->points[i + 1], (vm->npoints - i - 1) * sizeof vm->points[0]);
	vm->npoints--;
	memset(&vm->points[vm->npoints], 0, sizeof vm->points[0]);
	if (newest)
		base_dropped(vm);
	m->drops++;
}

/* ---- disasters ---- */

/* What a kill leaves: the files as they are at this moment, nothing closed. */
static void
crash(struct model *m, struct writer *w)
{
	char *copy = lc_strdup(tmpdir_path(m->v.top, "copy"));

	vault_copy(m->v.dir, copy);
	writer_abort(w);
	vault_close(&m->v);
	dir_remove(m->v.dir);
	assert_int_equal(rename(copy, m->v.dir), 0);
	vault_open(&m->v);
	lc_free(copy);
	m->crashes++;
}

static void
forget(struct model *m, const char *name)
{
	const char *path = vault_path(&m->v, name);

	(void)unlink(path);
	dir_remove(path);
}

static void
catalog_away(struct model *m)
{
	forget(m, "catalog.sqlite");
	forget(m, "catalog.sqlite-wal");
	forget(m, "catalog.sqlite-shm");
}

static void
rebuild(struct model *m)
{
	struct store_opts o = {.dir = m->v.dir, .who = "a test", .key_dir = m->v.keys};
	struct lc_err e = LC_ERR_INIT;

	vault_close(&m->v);
	switch (pick(m, 4)) {
	case 0:
		must_here(m, store_rebuild(&o, &e), &e, "rebuild");
		break;
	case 1:
		catalog_away(m);
		break;
	case 2:
		catalog_away(m);
		forget(m, "index");
		forget(m, "store");
		break;
	default:
		forget(m, "index");
		break;
	}
	vault_open(&m->v);
	m->rebuilds++;
}

/* An older catalog comes back, from a backup of somebody who thought that it is the store. */
static void
catalog_back(struct model *m)
{
	char *old = lc_strdup(tmpdir_path(m->v.top, "old.sqlite"));

	vault_close(&m->v);
	if (access(old, F_OK) == 0 && pick(m, 2) == 0) {
		catalog_away(m);
		vault_copy(old, vault_path(&m->v, "catalog.sqlite"));
	} else {
		(void)unlink(old);
		vault_copy(vault_path(&m->v, "catalog.sqlite"), old);
	}
	vault_open(&m->v);
	lc_free(old);
	m->reopens++;
}

/* ---- checks ---- */

static void
check_list(struct model *m, struct store *s, const struct vm *vm)
{
	struct lc_err e = LC_ERR_INIT;
	struct point_list l;
	int rc = store_points(s, vm->name, &l, &e);
	size_t i;
	bool same;

	if (rc == LC_ENOENT && vm->npoints == 0)
		return;
	must_here(m, rc, &e, "list");
	same = l.n == vm->npoints;
	for (i = 0; same && i < l.n; i++)
		same = memcmp(l.points[i].id, vm->points[i].id, POINT_ID_SIZE) == 0 &&
		       (l.points[i].flags & POINT_MAP_DAMAGED) == 0;
	if (!same)
		(void)fprintf(stderr, "seed %llu, step %u: %s lists %zu points, not %zu\n",
		              (unsigned long long)m->first_seed, m->steps, vm->name, l.n,
		              vm->npoints);
	point_list_free(&l);
	assert_true(same);
}

static void
check(struct model *m, struct store *s, bool all)
{
	struct lc_err e = LC_ERR_INIT;
	size_t i, k;

	for (i = 0; i < VMS; i++) {
		struct vm *vm = &m->vms[i];

		check_list(m, s, vm);
		for (k = 0; k < vm->npoints; k++) {
			struct kept *p = &vm->points[k];

			if (!all && pick(m, vm->npoints) > 1)
				continue;
			must_here(m, vault_compare(s, p->id, p->disks, p->ndisks, &e), &e,
			          "compare");
			must_here(m, vault_verify(s, p->id, &e), &e, "verify");
			m->checked++;
		}
	}
}

static void
check_beside(struct model *m, bool all)
{
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	must_here(m, vault_try(&m->v, STORE_READ, &s, &e), &e, "open beside the owner");
	check(m, s, all);
	store_close(s);
}

static uint64_t
number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s == NULL ? otherwise : strtoull(s, NULL, 0);
}

static void
step(struct model *m)
{
	struct vm *vm = &m->vms[pick(m, VMS)];

	switch (pick(m, 40)) {
	case 0:
		check(m, m->v.s, false);
		break;
	case 1:
		vault_close(&m->v);
		vault_open(&m->v);
		m->reopens++;
		break;
	case 2:
		if (pick(m, 3) == 0)
			rebuild(m);
		break;
	case 3:
		catalog_back(m);
		break;
	case 4:
		check_beside(m, false);
		break;
	case 5:
		live(m, vm);
		backup(m, vm, SEED, NULL);
		break;
	case 6:
		live(m, vm);
		backup(m, vm, ABORT, NULL);
		break;
	case 7:
		live(m, vm);
		backup(m, vm, CRASH, NULL);
		break;
	case 8:
	case 9:
	case 10:
	case 11:
	case 12:
	case 13:
	case 14:
		drop(m, vm);
		break;
	case 15:
	case 16:
		fork_line(m, vm, COMMIT);
		break;
	case 17:
		fork_line(m, vm, (enum ending)pick(m, 4));
		break;
	default:
		live(m, vm);
		if (vm->npoints < POINTS)
			backup(m, vm, COMMIT, NULL);
		break;
	}
}

static void
history(uint64_t seed, uint64_t steps)
{
	struct model *m = calloc(1, sizeof *m);
	int64_t from = clock_mono_ns();
	size_t i, k;

	assert_non_null(m);
	m->seed = m->first_seed = seed;
	m->next_code = 1000;
	vault_make(&m->v, true);
	m->v.segment_bytes = 1u << 20 << pick(m, 4);
	m->v.similar_bytes = pick(m, 3) == 0 ? 0 : UINT64_C(65536) << pick(m, 3);
	vault_open(&m->v);
	for (i = 0; i < VMS; i++) {
		(void)snprintf(m->vms[i].name, sizeof m->vms[i].name, "web%02zu", i);
		add_disk(m, &m->vms[i]);
		add_disk(m, &m->vms[i]);
	}
	for (m->steps = 0; m->steps < steps; m->steps++)
		step(m);
	check(m, m->v.s, true);
	rebuild(m);
	check(m, m->v.s, true);
	print_message("seed %llu: %llu steps in %lld ms: %llu points, %llu drops, %llu forks, %llu "
	              "seeds, %llu "
	              "aborts, "
	              "%llu crashes, %llu rebuilds, %llu points read back\n",
	              (unsigned long long)seed, (unsigned long long)steps,
	              (long long)((clock_mono_ns() - from) / LC_NS_PER_MS),
	              (unsigned long long)m->points, (unsigned long long)m->drops,
	              (unsigned long long)m->forks, (unsigned long long)m->seeds,
	              (unsigned long long)m->aborts, (unsigned long long)m->crashes,
	              (unsigned long long)m->rebuilds, (unsigned long long)m->checked);
	for (i = 0; i < VMS; i++) {
		for (k = 0; k < m->vms[i].npoints; k++)
			kept_free(&m->vms[i].points[k]);
		kept_free(&m->vms[i].base);
		for (k = 0; k < m->vms[i].ndisks; k++)
			vault_disk_free(&m->vms[i].disks[k]);
	}
	vault_free(&m->v);
	free(m);
}

static void
random_histories(void **state)
{
	uint64_t seed = number("LOCUM_MODEL_SEED", 1), runs = number("LOCUM_MODEL_RUNS", 1), i;

	(void)state;
	for (i = 0; i < runs; i++)
		history(seed + i, number("LOCUM_MODEL_STEPS", 700));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(random_histories),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Making a restore point.
 *
 * Windows come from any number of threads.  Each is compared with the base's map (page by page from
 * the catalog), looked up by id, and only if its content is new compressed, sealed and appended.
 * Its row waits in the disk's buffer and goes out as a MAP record when that is full.  The commit
 * flushes, and shares one COMMIT record with every other point that is ready at that moment: the
 * first in the queue works for all.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/seeds.h"
#include "store/writer_internal.h"

static const uint8_t zero_id[CHUNK_ID_SIZE];

/* ---- begin ---- */

struct find_vm {
	struct writer *w;
	bool found;
};

static int
match_vm(void *arg, const struct catalog_vm *vm, struct lc_err *e)
{
	struct find_vm *f = arg;
	char name[POINT_NAME_MAX];

	(void)e;
	store_vm_name(f->w->s, vm, name);
	if (strcmp(name, f->w->vm) == 0) {
		memcpy(f->w->vm_id, vm->id, 16);
		memcpy(f->w->line, vm->line, 16);
		f->found = true;
	}
	return 0;
}

/* A base whose map can't be trusted, or that this key does not open, is none: everything is read
 * again, into disks of their own, and the new point is whole. */
static int
take_base(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct writer *w = arg;
	bool restart;
	int rc;

	memcpy(w->base_id, cp->id, sizeof w->base_id);
	w->base = lc_alloc(sizeof *w->base);
	if (w->base == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = catalog_restarts(w->s->catalog, cp->line, &restart, e);
	if (rc != 0)
		return rc;
	rc = store_point_of(w->s, cp, w->base, &err);
	if (rc == 0)
		w->counter = w->base->counter;
	if (rc == 0 && !restart && (cp->flags & POINT_MAP_DAMAGED) == 0) {
		w->set = w->base->set;
		return 0;
	}
	if (rc == 0)
		point_done(w->base);
	lc_free(w->base);
	w->base = NULL;
	if (rc == 0 || rc == LC_ECORRUPT || rc == LC_EKEY) {
		log_warn("%s: its newest restore point can't be built upon (%s): reading all of it "
		         "again",
		         w->vm, rc == 0 ? "its map is damaged in the log" : err.msg);
		return 0;
	}
	if (e != NULL)
		*e = err;
	return rc;
}

struct forking {
	struct writer *w;
	bool known; /* it is a restore point of this VM */
};

static int
take_fork(void *arg, const struct catalog_point *cp, struct lc_err *e)
{
	struct forking *f = arg;

	f->known = (cp->flags & POINT_SEED) == 0 && memcmp(cp->vm, f->w->vm_id, 16) == 0;
	return f->known ? take_base(f->w, cp, e) : 0;
}

/* The base of a point on a line of its own. */
static int
begin_line(struct writer *w, const uint8_t *at, struct lc_err *e)
{
	struct forking f = {.w = w};
	char hex[33];
	int rc = catalog_point(w->s->catalog, at, take_fork, &f, e);

	if (rc == LC_ENOENT || (rc == 0 && !f.known))
		return lc_fail(e, LC_ENOENT, 0, "%s has no restore point %s to go on from", w->vm,
		               lc_hex(hex, at, POINT_ID_SIZE));
	w->fork = true;
	random_bytes(w->line, sizeof w->line);
	return rc;
}

static int
begin_workers(struct writer *w, int level, struct lc_err *e)
{
	unsigned i;
	int rc = 0;

	w->packers = lc_alloc_array(w->nworkers, sizeof(struct packer *));
	if (w->packers == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; rc == 0 && i < w->nworkers; i++)
		rc = packer_new(w->s, level, &w->packers[i], e);
	return rc;
}

void
writer_free(struct writer *w)
{
	struct writer **p;
	size_t i;

	(void)pthread_mutex_lock(&w->s->writers_lock);
	for (p = &w->s->writers; *p != NULL; p = &(*p)->next) {
		if (*p == w) {
			*p = w->next;
			break;
		}
	}
	(void)pthread_mutex_unlock(&w->s->writers_lock);
	for (i = 0; w->packers != NULL && i < w->nworkers; i++)
		packer_free(w->packers[i]);
	for (i = 0; i < w->ndisks; i++) {
		lc_free(w->disks[i].pages);
		lc_free(w->disks[i].map);
	}
	if (w->base != NULL)
		point_done(w->base);
	lc_free(w->base);
	lc_free(w->disks);
	lc_free(w->packers);
	(void)pthread_mutex_destroy(&w->lock);
	lc_free(w);
}

/* One writer per VM, by name: two would overwrite each other's base. */
static int
enlist(struct writer *w, struct lc_err *e)
{
	struct writer *x;
	int rc = 0;

	(void)pthread_mutex_lock(&w->s->writers_lock);
	for (x = w->s->writers; x != NULL && rc == 0; x = x->next) {
		if (strcmp(x->vm, w->vm) == 0)
			rc = lc_fail(e, LC_EBUSY, 0, "%s: a restore point of it is being made",
			             w->vm);
	}
	if (rc == 0) {
		w->next = w->s->writers;
		w->s->writers = w;
	}
	(void)pthread_mutex_unlock(&w->s->writers_lock);
	return rc;
}

int
writer_begin(struct store *s, const struct writer_opts *o, struct writer **out, struct lc_err *e)
{
	struct find_vm f = {0};
	struct writer *w;
	int rc;

	assert(s->writable);
	if (s->keyring == NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s: no key to write with", s->dir);
	if (strlen(o->vm) >= POINT_NAME_MAX || o->vm[0] == '\0' || strchr(o->vm, '@') != NULL)
		return lc_fail(e, LC_EINVAL, 0, "\"%s\" is no name for a VM (1 to %u bytes, no @)",
		               o->vm, POINT_NAME_MAX - 1);
	w = lc_alloc(sizeof *w);
	if (w == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	w->s = s;
	w->nworkers = o->workers == 0 ? 1 : o->workers;
	w->whole = o->whole;
	(void)snprintf(w->vm, sizeof w->vm, "%s", o->vm);
	(void)pthread_mutex_init(&w->lock, NULL);
	random_bytes(w->id, sizeof w->id);
	f.w = w;
	rc = enlist(w, e);
	rc = rc != 0 ? rc : catalog_each_vm(s->catalog, match_vm, &f, e);
	if (rc == 0 && !f.found) { /* its first commit makes it known */
		random_bytes(w->vm_id, sizeof w->vm_id);
		random_bytes(w->line, sizeof w->line);
	}
	if (rc == 0 && o->fork != NULL) {
		rc = begin_line(w, o->fork, e);
	} else if (rc == 0) {
		rc = catalog_newest(s->catalog, w->line, take_base, w, e);
		rc = rc == LC_ENOENT ? 0 : rc;
	}
	if (rc == 0 && w->base != NULL && (w->base->flags & POINT_SEED) != 0)
		seeds_note(s, w->line, w->vm_id, w->base_id);
	rc = rc != 0 ? rc : begin_workers(w, o->level, e);
	if (rc != 0) {
		writer_free(w);
		return rc;
	}
	*out = w;
	return 0;
}

const struct point *
writer_base(const struct writer *w)
{
	return w->base;
}

const uint8_t *
writer_id(const struct writer *w)
{
	return w->id;
}

bool
writer_known(const struct writer *w, size_t disk)
{
	return w->disks[disk].known;
}

void
writer_stats(const struct writer *w, struct writer_stats *out)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&w->lock;

	(void)pthread_mutex_lock(lock);
	*out = w->stats;
	(void)pthread_mutex_unlock(lock);
}

/* ---- windows ---- */

static int
append_packed(struct writer *w, const struct packed *x, uint64_t *no, uint64_t *stored,
              struct lc_err *e)
{
	struct record r = {
	    .type = RECORD_CHUNK, .encoding = x->encoding, .key = x->key, .n = (uint32_t)x->n};

	memcpy(r.id, x->id, CHUNK_ID_SIZE);
	*stored += record_size(r.n);
	return store_append_chunk(w->s, &r, x->payload, no, e);
}

static int
put_new(struct writer *w, struct packer *p, struct packer_window *x, uint64_t *no, uint64_t *stored,
        struct lc_err *e)
{
	struct packer_out out;
	uint64_t hole, unused;
	int rc;

	/* What takes the place of a bad one is whole: deltas may be made upon it. */
	x->whole = w->whole || (w->s->fold->missing &&
	                        catalog_missing(w->s->catalog, 0, x->id, false, &hole, NULL) == 0);
	rc = packer_seal(p, x, &out, e);
	if (rc == 0 && out.layer != NULL)
		rc = append_packed(w, out.layer, &unused, stored, e);
	rc = rc != 0 ? rc : append_packed(w, out.chunk, no, stored, e);
	if (rc == 0)
		packer_stored(p, *no);
	return rc;
}

static int
put_row(struct writer *w, struct writer_disk_state *d, uint64_t window, uint64_t old,
        const uint8_t *id, uint64_t chunk, struct lc_err *e)
{
	int rc;

	(void)pthread_mutex_lock(&w->lock);
	rc = writer_add_row(w, d, window, old, id, chunk, e);
	(void)pthread_mutex_unlock(&w->lock);
	return rc != 0 ? rc : store_relieve(w->s, e);
}

static void
count(struct writer *w, enum put_result r, uint64_t stored)
{
	(void)pthread_mutex_lock(&w->lock);
	switch (r) {
	case PUT_ZERO:
	case PUT_ZERO_SAME:
		w->stats.zero++;
		break;
	case PUT_SAME:
		w->stats.same++;
		break;
	case PUT_KNOWN:
		w->stats.known++;
		break;
	case PUT_NEW:
		w->stats.fresh++;
		w->stats.stored += stored;
		w->large = w->stats.stored >= w->s->flush_bytes;
		break;
	}
	(void)pthread_mutex_unlock(&w->lock);
}

/* The base's own chunk counts where its content is the same, also if its bytes are elsewhere; any
 * other one only where they are here (thin.h). */
static int
find_known(struct writer *w, const uint8_t id[CHUNK_ID_SIZE], uint64_t old, uint64_t *no,
           struct lc_err *e)
{
	struct fold *f = w->s->fold;
	struct record r;
	int rc = fold_resolve(f, id, no, e);

	if (rc != 0 || !f->thin || *no == old)
		return rc;
	if (old != 0 && catalog_chunk(w->s->catalog, old, &r, NULL) == 0 && r.segment != 0 &&
	    memcmp(r.id, id, sizeof r.id) == 0) {
		*no = old;
		return 0;
	}
	return fold_whole(f, id, no, e);
}

/* id: NULL where it is all zero. */
static int
put_window(struct writer *w, unsigned worker, size_t disk, uint64_t window, const uint8_t *data,
           const uint8_t *id, enum put_result *result, struct lc_err *e)
{
	struct writer_disk_state *d = &w->disks[disk];
	uint64_t old, no = 0, stored = 0;
	enum put_result what;
	int rc;

	assert(disk < w->ndisks && worker < w->nworkers);
	if (window >= point_windows(d->d.size))
		return lc_fail(e, LC_EINVAL, 0, "%s/%s: window %" PRIu64 " is beyond its end",
		               w->vm, d->d.name, window);
	(void)pthread_mutex_lock(&w->lock);
	rc = writer_old_chunk(w, d, window, &old, e);
	w->failed = w->failed || rc != 0; /* not taken, as below */
	(void)pthread_mutex_unlock(&w->lock);
	if (rc != 0)
		return rc;
	if (id == NULL) {
		what = old == 0 ? PUT_ZERO_SAME : PUT_ZERO;
		if (old != 0)
			rc = put_row(w, d, window, old, zero_id, 0, e);
	} else {
		rc = find_known(w, id, old, &no, e);
		if (rc == 0) {
			what = no == old ? PUT_SAME : PUT_KNOWN;
		} else if (rc == LC_ENOENT) {
			what = PUT_NEW;
			rc = put_new(w, w->packers[worker],
			             &(struct packer_window){.bytes = data, .id = id, .old = old},
			             &no, &stored, e);
		}
		if (rc == 0 && what != PUT_SAME)
			rc = put_row(w, d, window, old, id, no, e);
	}
	if (rc != 0) { /* a window that was not taken: no commit may follow */
		(void)pthread_mutex_lock(&w->lock);
		w->failed = true;
		(void)pthread_mutex_unlock(&w->lock);
		return rc;
	}
	count(w, what, stored);
	if (result != NULL)
		*result = what;
	return 0;
}

int
writer_put(struct writer *w, unsigned worker, size_t disk, uint64_t window, const uint8_t *data,
           enum put_result *result, struct lc_err *e)
{
	uint8_t id[CHUNK_ID_SIZE];
	bool zero = lc_is_zero(data, WINDOW_SIZE);

	if (!zero)
		seal_id(w->s->keyring, data, id);
	return put_window(w, worker, disk, window, data, zero ? NULL : id, result, e);
}

/* Of so many ids are made at once: few enough that the windows are still in the processor's cache
 * when they are packed. */
#define RUN 8u

int
writer_put_run(struct writer *w, unsigned worker, size_t disk, uint64_t first, size_t n,
               const uint8_t *data, struct lc_err *e)
{
	uint8_t made[RUN][CHUNK_ID_SIZE];
	const uint8_t *at[RUN + 1], *id;
	size_t i, k, part, nat;
	int rc = 0;

	for (i = 0; rc == 0 && i < n; i += part) {
		part = n - i < RUN ? n - i : RUN;
		for (k = nat = 0; k < part; k++) {
			const uint8_t *x = data + (i + k) * WINDOW_SIZE;

			if (!lc_is_zero(x, WINDOW_SIZE))
				at[nat++] = x;
		}
		at[nat] = NULL;
		seal_ids(w->s->keyring, at, nat, made);
		for (k = nat = 0; rc == 0 && k < part; k++) {
			const uint8_t *x = data + (i + k) * WINDOW_SIZE;

			id = at[nat] == x ? made[nat] : NULL;
			nat += id != NULL;
			rc = put_window(w, worker, disk, first + i + k, x, id, NULL, e);
		}
	}
	return rc;
}

/*
 * A point becomes durable: what it says of itself, and one COMMIT record with every other point
 * that is ready.
 */
#include <stdio.h>
#include <string.h>

#include "store/base/failpoint.h"
#include "store/commit.h"
#include "store/group.h"
#include "store/pages.h"
#include "store/seeds.h"
#include "store/writer_internal.h"

static int
owned_copy(const char *src, char **dst, struct lc_err *e)
{
	if (src == NULL)
		return 0;
	*dst = lc_strdup(src);
	return *dst != NULL ? 0 : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

/* What the header can't hold must not be found out by whoever wants to restore. */
static int
check_opts(const struct writer *w, const struct commit_opts *o, struct lc_err *e)
{
	if (w->ndisks == 0)
		return lc_fail(e, LC_EINVAL, 0, "no disks were named");
	if (w->failed)
		return lc_fail(e, LC_EIO, 0, "a part of it could not be stored");
	if ((o->definition != NULL && strlen(o->definition) > POINT_DEFINITION_MAX) ||
	    (o->left_out != NULL && strlen(o->left_out) > POINT_DEFINITION_MAX))
		return lc_fail(e, LC_EINVAL, 0, "its definition is longer than %u bytes",
		               POINT_DEFINITION_MAX);
	return 0;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
same_disk(const struct writer_disk_state *d, const struct point_disk *base, size_t i)
{
	return d->known && d->base_disk == i && d->d.size == base->size &&
	       d->d.role == base->role && strcmp(d->d.name, base->name) == 0 &&
	       strcmp(d->d.stamp, base->stamp) == 0;
}

bool
writer_nothing_new(const struct writer *w, const struct commit_opts *o)
{
	const struct point *base = w->base;
	size_t i;

	if (base == NULL || w->fork || w->failed || w->rows > 0 || o->seed ||
	    (base->flags & POINT_SEED) != 0 || w->ndisks != base->ndisks || w->ndisks == 0)
		return false;
	for (i = 0; i < w->ndisks; i++) {
		if (!same_disk(&w->disks[i], &base->disks[i], i))
			return false;
	}
	return o->consistency == base->consistency && same_text(o->definition, base->definition) &&
	       same_text(o->left_out, base->left_out);
}

/* Whether the point stands by itself, whatever its base is. */
static bool
is_fresh(const struct writer *w)
{
	size_t i;

	for (i = 0; i < w->ndisks; i++) {
		if (w->disks[i].known)
			return false;
	}
	return true;
}

static int
describe(struct writer *w, const struct commit_opts *o, struct point *p, struct lc_err *e)
{
	size_t i;
	int rc;

	memcpy(p->id, w->id, sizeof p->id);
	memcpy(p->vm_id, w->vm_id, sizeof p->vm_id);
	memcpy(p->line, w->line, sizeof p->line);
	memcpy(p->base, w->base_id, sizeof p->base);
	(void)snprintf(p->vm, sizeof p->vm, "%s", w->vm);
	p->flags = (o->seed ? POINT_SEED : 0u) | (is_fresh(w) ? POINT_FRESH : 0u) |
	           (w->fork ? POINT_FORK : 0u);
	p->source_ns = o->source_ns;
	p->pause_ns = o->pause_ns;
	p->consistency = o->consistency;
	if (o->freeze != NULL)
		(void)snprintf(p->freeze, sizeof p->freeze, "%s", o->freeze);
	p->counter = w->counter + 1;
	p->changed = w->rows;
	p->rows_sum = w->rows_sum;
	p->set = w->set;
	p->stored = w->stats.stored;
	p->ndisks = w->ndisks;
	for (i = 0; i < w->ndisks; i++) {
		p->disks[i] = w->disks[i].d;
		if (o->seed)
			p->disks[i].covered = o->covered[i];
	}
	rc = owned_copy(o->definition, &p->definition, e);
	return rc != 0 ? rc : owned_copy(o->left_out, &p->left_out, e);
}

static int
when_committed(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)e;
	*(int64_t *)arg = p->commit_ns;
	return 0;
}

/* VM and line go with every point: one damaged commit must not make a VM unknown. */
static int
add_entries(struct writer *w, const struct point *p, struct lc_span sealed, struct lc_buf *out,
            struct lc_err *e)
{
	struct lc_buf vm = {0}, entry = {0};
	struct lc_span name = {(const uint8_t *)w->vm, strlen(w->vm)};
	uint8_t line[32];
	int rc = 0;

	memcpy(line, w->line, 16);
	memcpy(line + 16, w->vm_id, 16);
	if (lc_buf_append(&vm, w->vm_id, 16) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc : seal_blob(w->s->keyring, (struct lc_span){w->vm_id, 16}, name, &vm, e);
	rc = rc != 0 ? rc : point_encode(p, sealed, &entry, e);
	rc = rc != 0 ? rc : commit_add(out, COMMIT_VM, (struct lc_span){vm.p, vm.n}, e);
	rc = rc != 0 ? rc : commit_add(out, COMMIT_LINE, (struct lc_span){line, 32}, e);
	rc = rc != 0 ? rc : commit_add(out, COMMIT_POINT, (struct lc_span){entry.p, entry.n}, e);
	lc_buf_free(&vm);
	lc_buf_free(&entry);
	return rc;
}

/* The entries of the point: all that is known of it now is in the log, or in them. */
static int
make_entries(struct writer *w, const struct commit_opts *o, struct point *p,
             struct group_entry *own, struct lc_err *e)
{
	struct lc_buf sealed = {0};
	size_t i;
	int rc;

	(void)pthread_mutex_lock(&w->lock);
	rc = check_opts(w, o, e);
	for (i = 0; rc == 0 && i < w->ndisks; i++)
		rc = writer_write_rows(w, &w->disks[i], e);
	(void)pthread_mutex_unlock(&w->lock);
	(void)failpoint("writer.rows");
	memcpy(own->line, w->line, sizeof own->line);
	memcpy(own->base, w->base_id, sizeof own->base);
	own->fork = w->fork;
	rc = rc != 0 ? rc : describe(w, o, p, e);
	rc = rc != 0 ? rc : point_seal_header(w->s->keyring, p, &sealed, e);
	rc = rc != 0 ? rc
	             : add_entries(w, p, (struct lc_span){sealed.p, sealed.n}, &own->entries, e);
	lc_buf_free(&sealed);
	return rc;
}

static int
commit_own(struct store *s, struct group_entry *own, struct lc_err *e)
{
	group_commit(s, &own, 1);
	if (own->rc != 0 && e != NULL && e->code == LC_OK)
		*e = own->err;
	return own->rc;
}

int
writer_commit(struct writer *w, const struct commit_opts *o, struct point *out, struct lc_err *e)
{
	struct group_entry own = {0};
	struct point *p = lc_alloc(sizeof *p);
	struct store *s = w->s;
	int rc;

	if (p == NULL) {
		writer_abort(w);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	rc = make_entries(w, o, p, &own, e);
	rc = rc != 0 ? rc : commit_own(s, &own, e);
	lc_wrap(e, "%s", w->vm);
	lc_buf_free(&own.entries);
	if (rc == 0) {
		if (o->seed)
			seeds_note(s, p->line, p->vm_id, p->id);
		else
			seeds_over(s, p->line);
		p->opened = true;
		(void)catalog_point(s->catalog, p->id, when_committed, &p->commit_ns, NULL);
		/* Not part of the promise: only how fast later reads are. */
		(void)catalog_age(s->catalog, w->line, RECENT_KEEP, NULL);
		if (s->pages != NULL)
			pages_settle(s->pages);
		if (out != NULL) {
			*out = *p;
			p->definition = NULL;
			p->left_out = NULL;
		}
		writer_free(w);
	} else {
		writer_abort(w);
	}
	point_done(p);
	lc_free(p);
	return rc;
}

void
writer_abort(struct writer *w)
{
	struct store *s;
	uint8_t id[POINT_ID_SIZE];
	bool put;

	if (w == NULL)
		return;
	s = w->s;
	memcpy(id, w->id, sizeof id);
	put = w->disks != NULL;
	writer_free(w);
	if (put) /* else there is nothing of it, and no reason for a flush */
		store_discard(s, id);
}

/*
 * The first in the queue works for all who wait: while it flushes, others queue up for the next
 * group.
 */
#include <string.h>

#include "store/base/clock.h"
#include "store/commit.h"
#include "store/group.h"
#include "store/store_internal.h"

#define GROUP_BYTES (RECORD_PAYLOAD_MAX / 2)
#define GROUP_POINTS (COMMIT_ENTRIES_MAX / (GROUP_ENTRIES_MAX + 1u))

struct group {
	struct store *s;
	struct group_entry *first;
};

static int
newest_id(void *arg, const struct catalog_point *p, struct lc_err *e)
{
	(void)e;
	memcpy(arg, p->id, POINT_ID_SIZE);
	return 0;
}

int
group_is_newest(struct store *s, const uint8_t line[16], const uint8_t point[POINT_ID_SIZE],
                bool *is, struct lc_err *e)
{
	uint8_t newest[POINT_ID_SIZE] = {0};
	int rc = catalog_newest(s->catalog, line, newest_id, newest, e);

	*is = memcmp(newest, point, sizeof newest) == 0;
	return rc == LC_ENOENT ? 0 : rc;
}

/* The rows of a point are relative to its base: that must still be the newest; or be there, where
 * it is of another line. */
static int
check_base(struct store *s, const struct group_entry *x, struct lc_err *e)
{
	uint8_t newest[POINT_ID_SIZE];
	bool is;
	int rc;

	if (x->fork) {
		rc = catalog_point(s->catalog, x->base, newest_id, newest, e);
		return rc != LC_ENOENT ? rc
		                       : lc_fail(e, LC_ECONFLICT, 0,
		                                 "the restore point that it goes on from was "
		                                 "dropped meanwhile");
	}
	rc = group_is_newest(s, x->line, x->base, &is, e);
	if (rc == 0 && !is)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "its newest restore point changed meanwhile: run the backup again");
	return rc;
}

static int
check_owner(struct store *s, const struct group_entry *x, struct lc_err *e)
{
	uint16_t owner = x->writer;
	int rc = x->sent ? catalog_vm_writer(s->catalog, x->vm, &owner, e) : 0;

	if (rc == 0 && owner != x->writer)
		return lc_fail(e, LC_EACCES, 0, "the VM is another host's here");
	return rc == LC_ENOENT ? 0 : rc;
}

static int
build_group(void *arg, struct lc_buf *payload, struct lc_err *e)
{
	struct group *g = arg;
	struct group_entry *x;
	int rc = 0;

	for (x = g->first; rc == 0 && x != NULL; x = x->next) {
		x->rc = check_owner(g->s, x, &x->err);
		x->rc = x->rc != 0 ? x->rc : check_base(g->s, x, &x->err);
		if (x->rc != 0)
			continue;
		if (payload->n == 0)
			rc = commit_start(payload, clock_wall_ns(), e);
		if (rc == 0 && lc_buf_append(payload, x->entries.p, x->entries.n) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	return rc;
}

/* Commit what waits, as one group; s->commit_lock is held by nobody. */
static void
commit_group(struct store *s, struct group_entry *first)
{
	struct group g = {.s = s, .first = first};
	struct lc_err err = LC_ERR_INIT;
	struct group_entry *x;
	int rc = store_commit(s, build_group, &g, &err);

	for (x = first; rc != 0 && x != NULL; x = x->next) {
		if (x->rc == 0) {
			x->rc = rc;
			x->err = err;
		}
	}
}

static bool
same_line(const struct group_entry *group, const struct group_entry *end,
          const struct group_entry *x)
{
	for (; group != end; group = group->next) {
		if (memcmp(group->line, x->line, sizeof x->line) == 0 ||
		    (group->sent && x->sent && group->writer != x->writer &&
		     memcmp(group->vm, x->vm, sizeof x->vm) == 0))
			return true;
	}
	return false;
}

/* Take as many from the queue as fit one record; of a line one at a time, as the second one's base
 * is not there yet, and of writers that claim the same VM one, as the first one gets it. */
static struct group_entry *
take_group(struct store *s)
{
	struct group_entry *group = s->waiting, **end = &group;
	size_t bytes = 0, n = 0;

	while (*end != NULL &&
	       (n == 0 || (n < GROUP_POINTS && bytes + (*end)->entries.n < GROUP_BYTES &&
	                   !same_line(group, *end, *end)))) {
		bytes += (*end)->entries.n;
		n++;
		end = &(*end)->next;
	}
	s->waiting = *end;
	if (s->waiting == NULL)
		s->waiting_tail = &s->waiting;
	*end = NULL;
	return group;
}

static void
work_for_all(struct store *s)
{
	struct group_entry *group, *x, *next;

	s->committing = true;
	group = take_group(s);
	(void)pthread_mutex_unlock(&s->commit_lock);
	commit_group(s, group);
	(void)pthread_mutex_lock(&s->commit_lock);
	for (x = group; x != NULL; x = next) {
		next = x->next; /* x may die when its owner sees done */
		x->done = true;
	}
	s->committing = false;
	(void)pthread_cond_broadcast(&s->commit_cond);
}

static bool
all_done(struct group_entry *const *own, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!own[i]->done)
			return false;
	}
	return true;
}

void
group_commit(struct store *s, struct group_entry *const *own, size_t n)
{
	size_t i;

	(void)pthread_mutex_lock(&s->commit_lock);
	for (i = 0; i < n; i++) {
		own[i]->next = NULL;
		own[i]->done = false;
		*s->waiting_tail = own[i];
		s->waiting_tail = &own[i]->next;
	}
	while (!all_done(own, n)) {
		if (s->committing)
			(void)pthread_cond_wait(&s->commit_cond, &s->commit_lock);
		else
			work_for_all(s);
	}
	(void)pthread_mutex_unlock(&s->commit_lock);
}

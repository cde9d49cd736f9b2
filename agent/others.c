#include <string.h>

#include "agent/backup.h"
#include "agent/import.h"
#include "agent/others.h"
#include "store/base/memory.h"

struct other {
	TAILQ_ENTRY(other) entry;
	struct others *x;
	struct protect_ask *ask; /* NULL: not wanted any more */
	struct backup *backup;
	char *vm;
	struct settings *import; /* what it is backed up by; NULL: by all the others' */
	bool begun;
};

void
others_init(struct others *x, const struct protect_opts *o,
            void (*made)(void *arg, const uint8_t *line), void (*over)(void *arg), void *arg)
{
	*x = (struct others){.o = o, .made = made, .over = over, .arg = arg};
	TAILQ_INIT(&x->list);
}

int
others_ask(struct others *x, struct protect_ask *ask, struct lc_err *e)
{
	struct other *o = lc_alloc(sizeof *o);

	if (o == NULL || (o->vm = lc_strdup(ask->vm)) == NULL) {
		lc_free(o);
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", ask->vm);
	}
	o->x = x;
	o->ask = ask;
	o->import = ask->import;
	ask->import = NULL;
	ask->other = o;
	TAILQ_INSERT_TAIL(&x->list, o, entry);
	return 0;
}

static void
free_other(struct other *o)
{
	TAILQ_REMOVE(&o->x->list, o, entry);
	import_free(o->import);
	lc_free(o->vm);
	lc_free(o);
}

void
others_unask(struct other *o)
{
	o->ask = NULL;
	if (o->backup != NULL)
		backup_cancel(o->backup);
	else
		free_other(o);
}

const struct backup *
others_backup(const struct other *o)
{
	return o->backup;
}

static void
tell(struct other *o, const struct backup_result *r)
{
	struct protect_ask *ask = o->ask;

	if (ask == NULL)
		return;
	ask->other = NULL;
	ask->done(ask, r);
}

static void
on_backup(void *arg, struct backup_result *r)
{
	struct other *o = arg;
	struct others *x = o->x;

	x->running--;
	if (r->outcome == BACKUP_DONE)
		x->made(x->arg, r->point.line);
	tell(o, r);
	free_other(o);
	point_done(&r->point);
	x->over(x->arg);
}

static bool
is_running(const struct others *x, const char *vm)
{
	const struct other *o;

	TAILQ_FOREACH (o, &x->list, entry) {
		if (o->begun && strcmp(o->vm, vm) == 0)
			return true;
	}
	return false;
}

static struct other *
next_other(struct others *x)
{
	struct other *o;

	TAILQ_FOREACH (o, &x->list, entry) {
		if (!o->begun && !is_running(x, o->vm))
			break;
	}
	return o;
}

bool
others_begin(struct others *x)
{
	struct other *o = next_other(x);
	struct backup_opts bo = {.loop = x->o->loop,
	                         .store = x->o->store,
	                         .pool = x->o->pool,
	                         .settings = x->o->settings};
	struct backup_result failed = {.outcome = BACKUP_FAILED};

	if (o == NULL)
		return false;
	bo.vm = failed.vm = o->vm;
	if (o->import != NULL)
		bo.settings = o->import;
	o->begun = o->ask->begun = true;
	x->running++;
	if (backup_start(&bo, on_backup, o, &o->backup, &failed.err) != 0)
		on_backup(o, &failed);
	return true;
}

void
others_turn_away(struct others *x, enum lc_code code, const char *why)
{
	struct backup_result r = {.outcome = BACKUP_FAILED};
	struct other *o, *next;

	for (o = TAILQ_FIRST(&x->list); o != NULL; o = next) {
		next = TAILQ_NEXT(o, entry);
		if (o->begun)
			continue;
		r.vm = o->vm;
		lc_err_clear(&r.err);
		(void)lc_fail(&r.err, code, 0, "%s: %s", r.vm, why);
		tell(o, &r);
		free_other(o);
	}
}

void
others_cancel(struct others *x)
{
	struct other *o;

	TAILQ_FOREACH (o, &x->list, entry) {
		if (o->backup != NULL)
			backup_cancel(o->backup);
	}
}

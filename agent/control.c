/*
 * An asker: (connected) ─► request ─► BACKING_UP ─► SENDING (where it named replicas) ─► ENDING
 *                 │ 10 s, or not understood                                              │ all is
 *                 └────────────────────────────► ENDING: last words, then it is closed ◄─┘ written
 */
#include <jansson.h>
#include <string.h>

#include "agent/backup.h"
#include "agent/control.h"
#include "agent/import.h"
#include "agent/protect.h"
#include "agent/result.h"
#include "agent/sites.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/desk/parley.h"

#define ASKERS_MAX 16u
#define VMS_MAX 1024u
#define REPLICAS_MAX 16u
#define IMAGES_MAX 64u                 /* a VM that is too large has its own message */
#define PATIENCE_NS (10 * LC_NS_PER_S) /* until the request has come */
#define TICK_MS 200
#define UNWRITTEN_MAX ((size_t)1 << 20) /* progress is left out over this ... */
#define UNREAD_MAX ((size_t)2 << 20)    /* ... and over that he has to go */

enum asker_state { ASKER_NEW = 0, ASKER_BACKING_UP, ASKER_SENDING, ASKER_ENDING };

struct wanted { /* a VM of a request */
	struct protect_ask ask;
	struct asker *asker;
	char *vm;
	bool over;
	int64_t instant_ns; /* of the point that was made, or still holds; 0: it failed */
};

struct asker {
	struct control *c;
	struct parley *parley;
	enum asker_state state;
	int64_t since_ns;   /* that he is new, or ending */
	struct wanted *vms; /* [nvms] */
	size_t nvms, open;  /* open: that are not over */
	char *to[REPLICAS_MAX];
	bool told[REPLICAS_MAX];         /* it has everything, or will not */
	uint64_t refusals[REPLICAS_MAX]; /* by each, when all was made */
	size_t nto;
	json_t *images; /* of the one VM, which is not known otherwise; NULL: it is */
	bool canceled;
};

struct control {
	struct protect *protect; /* NULL: it is being exchanged */
	char *store;
	struct parleys *parleys;
};

static void
end_asker(struct asker *a)
{
	if (a->state == ASKER_ENDING)
		return;
	a->state = ASKER_ENDING;
	a->since_ns = clock_mono_ns();
	parley_end(a->parley);
}

static void
refuse(struct asker *a, enum lc_code code, const char *text)
{
	parley_say(a->parley, json_pack("{s:s, s:i}", "refused", text, "code", (int)code));
	end_asker(a);
}

/* ---- on to the replicas ---- */

static void
unsent(struct asker *a, size_t i, const char *why)
{
	a->told[i] = true;
	parley_say(a->parley, json_pack("{s:s, s:s}", "unsent", a->to[i], "error", why));
}

/* Of one of the VMs: its status; false: it is none that is protected. */
static bool
find_status(const struct protect *p, const char *vm, struct vm_status *out)
{
	size_t i;

	for (i = 0; i < protect_vms(p); i++) {
		protect_vm(p, i, out);
		if (strcmp(out->name, vm) == 0)
			return true;
	}
	return false;
}

/* Whether the replica has what it was to get; what does not come any more is told. */
static bool
has_everything(struct asker *a, size_t i, size_t site, const struct site_status *st)
{
	struct vm_status v;
	size_t k;

	for (k = 0; k < a->nvms && !st->has_all; k++) {
		bool known;

		if (a->vms[k].instant_ns == 0)
			continue;
		known = find_status(a->c->protect, a->vms[k].vm, &v);
		if (known && v.refused[site].code != LC_OK) {
			/* It may be of before, and what was in the way be gone. */
			if (!st->idle && st->refusals <= a->refusals[i])
				return false;
			unsent(a, i, v.refused[site].msg);
			return false;
		}
		if (!known && st->idle) { /* whose point it did not take is not known */
			unsent(a, i, st->err.msg);
			return false;
		}
		if (st->idle) /* what it did not take is of other VMs */
			continue;
		/* One that seems newer than all that is here is of another clock. */
		if (!known || v.durable_ns[site] < a->vms[k].instant_ns ||
		    v.durable_ns[site] > v.instant_ns)
			return false;
	}
	return true;
}

static void
look_at_replica(struct asker *a, size_t i)
{
	struct protect *p = a->c->protect;
	struct site_status st;
	size_t k;

	for (k = 0; k < protect_sites(p); k++) {
		protect_site(p, k, &st);
		if (strcmp(st.name, a->to[i]) != 0)
			continue;
		if (st.up && has_everything(a, i, k, &st))
			a->told[i] = true;
		else if (!st.up && st.since_ns != 0)
			unsent(a, i, st.err.msg);
		return;
	}
	unsent(a, i, "the agent does not know this replica yet: systemctl reload locum-agent");
}

static void
look_at_replicas(struct asker *a)
{
	bool all = true;
	size_t i;

	if (a->c->protect == NULL)
		return;
	for (i = 0; i < a->nto; i++) {
		if (!a->told[i] && a->canceled)
			unsent(a, i, "interrupted");
		else if (!a->told[i])
			look_at_replica(a, i);
		all = all && a->told[i];
	}
	if (!all)
		return;
	parley_say(a->parley, json_pack("{s:b}", "end", 1));
	end_asker(a);
}

/* ---- backups ---- */

/* What has not taken points so far is to try those that were made now. */
static void
count_refusals(struct asker *a)
{
	struct protect *p = a->c->protect;
	struct site_status st;
	size_t i, k;

	for (k = 0; p != NULL && k < protect_sites(p); k++) {
		protect_site(p, k, &st);
		for (i = 0; i < a->nto; i++) {
			if (strcmp(st.name, a->to[i]) == 0)
				a->refusals[i] = st.refusals;
		}
	}
}

static void
look_at_end(struct asker *a)
{
	if (a->state != ASKER_BACKING_UP || a->open > 0)
		return;
	a->state = ASKER_SENDING;
	count_refusals(a);
	look_at_replicas(a);
}

static void
on_result(struct wanted *w, const struct backup_result *r)
{
	struct asker *a = w->asker;

	w->over = true;
	w->instant_ns = r->outcome == BACKUP_FAILED ? 0 : r->point.source_ns;
	a->open--;
	parley_say(a->parley, json_pack("{s:o}", "result", result_encode(r)));
	look_at_end(a);
}

static void
on_done(struct protect_ask *ask, const struct backup_result *r)
{
	on_result((struct wanted *)(void *)ask, r);
}

static void
failed(struct wanted *w, const struct lc_err *why)
{
	struct backup_result r = {.vm = w->vm, .err = *why};

	on_result(w, &r);
}

static void
cancel(struct asker *a)
{
	size_t i;

	a->canceled = true;
	for (i = 0; i < a->nvms; i++) {
		struct lc_err e = LC_ERR_INIT;

		if (a->vms[i].over)
			continue;
		(void)lc_fail(&e, LC_ECANCELED, 0, "%s: %s", a->vms[i].vm,
		              a->vms[i].ask.begun ? "canceled" : "not begun");
		protect_unask(&a->vms[i].ask);
		failed(&a->vms[i], &e);
	}
	if (a->state == ASKER_SENDING)
		look_at_replicas(a);
}

/* What the image files of the request are a VM in.  He who asks has looked at them. */
static int
import(struct asker *a, struct wanted *w, struct lc_err *e)
{
	const struct protect_opts *po = protect_options(a->c->protect);
	const char *files[IMAGES_MAX], *formats[IMAGES_MAX], *vm;
	struct import_opts o = {.vm = w->vm, .files = files, .formats = formats};
	int rc = 0;

	for (; rc == 0 && o.nfiles < json_array_size(a->images) && o.nfiles < IMAGES_MAX;
	     o.nfiles++) {
		const json_t *image = json_array_get(a->images, o.nfiles);

		files[o.nfiles] = json_string_value(json_object_get(image, "path"));
		formats[o.nfiles] = json_string_value(json_object_get(image, "format"));
		if (files[o.nfiles] == NULL || formats[o.nfiles] == NULL)
			rc = lc_fail(e, LC_EINVAL, 0, "%s: an image without path or format", w->vm);
	}
	rc = rc != 0 ? rc : import_check(po->store, w->vm, e);
	return rc != 0 ? rc : import_copy(po->settings, &o, &w->ask.import, &vm, e);
}

static void
begin(struct asker *a)
{
	size_t i;

	a->state = ASKER_BACKING_UP;
	for (i = 0; i < a->nvms; i++)
		a->open += a->vms[i].over ? 0 : 1;
	for (i = 0; i < a->nvms; i++) {
		struct wanted *w = &a->vms[i];
		struct lc_err e = LC_ERR_INIT;
		struct vm_status v;

		if (w->over) {
			w->instant_ns = find_status(a->c->protect, w->vm, &v) ? v.instant_ns
			                                                      : INT64_MAX;
			continue;
		}
		w->asker = a;
		w->ask.vm = w->vm;
		w->ask.done = on_done;
		if ((a->images != NULL && import(a, w, &e) != 0) ||
		    protect_ask(a->c->protect, &w->ask, &e) != 0) {
			import_free(w->ask.import);
			w->ask.import = NULL;
			failed(w, &e);
		}
	}
	look_at_end(a);
}

/* ---- requests ---- */

static bool
take_names(struct asker *a, const json_t *vms, const json_t *made, const json_t *to, json_t *images)
{
	size_t i, n = json_array_size(vms), nmade = json_array_size(made);
	size_t nimages = json_array_size(images);

	if (images != NULL && (n != 1 || nimages == 0 || nimages > IMAGES_MAX))
		return false;
	a->images = json_incref(images);
	if (n > VMS_MAX || nmade > VMS_MAX || n + nmade == 0 || json_array_size(to) > REPLICAS_MAX)
		return false;
	a->vms = lc_alloc_array(n + nmade, sizeof *a->vms);
	for (i = 0; a->vms != NULL && i < n + nmade; i++) {
		const json_t *vm = i < n ? json_array_get(vms, i) : json_array_get(made, i - n);

		a->vms[i].vm = lc_strdup(json_string_value(vm));
		a->vms[i].over = i >= n;
		if (a->vms[i].vm == NULL)
			return false;
		a->nvms++;
	}
	for (i = 0; i < json_array_size(to); i++) {
		a->to[i] = lc_strdup(json_string_value(json_array_get(to, i)));
		if (a->to[i] == NULL)
			return false;
		a->nto++;
	}
	return a->vms != NULL;
}

static void
take_request(struct asker *a, const json_t *o)
{
	const char *verb = json_string_value(json_object_get(o, "verb"));
	const char *store = json_string_value(json_object_get(o, "store"));

	if (json_integer_value(json_object_get(o, "locum")) != CONTROL_VERSION)
		refuse(a, LC_EVERSION, "the agent that runs here is of another version of locum");
	else if (verb == NULL || store == NULL || strcmp(verb, "backup") != 0)
		refuse(a, LC_ENOTSUP, "the agent does not do that");
	else if (!dir_same(store, a->c->store))
		refuse(a, LC_ENOENT, "the agent works on another store");
	else if (a->c->protect == NULL)
		refuse(a, LC_EBUSY,
		       "the agent is about to stop, or begins anew, or has lent its store");
	else if (!take_names(a, json_object_get(o, "vms"), json_object_get(o, "made"),
	                     json_object_get(o, "to"), json_object_get(o, "images")))
		refuse(a, LC_EINVAL, "no VMs, or too many");
	else
		begin(a);
}

static void
on_line(void *mine, const char *p, size_t n)
{
	struct asker *a = mine;
	json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(o))
		refuse(a, LC_EINVAL, "not understood");
	else if (a->state == ASKER_NEW)
		take_request(a, o);
	else if (json_is_true(json_object_get(o, "cancel")) && !a->canceled)
		cancel(a);
	json_decref(o);
}

/* ---- who comes, and leaves ---- */

static void
on_came(void *arg, struct parley *t)
{
	struct control *c = arg;
	struct asker *a = lc_alloc(sizeof *a);

	if (a == NULL)
		return;
	a->c = c;
	a->parley = t;
	a->since_ns = clock_mono_ns();
	parley_own(t, a);
	if (parleys_count(c->parleys) > ASKERS_MAX)
		refuse(a, LC_EBUSY, "the agent has too many to do");
}

static void
on_left(void *mine)
{
	struct asker *a = mine;
	size_t i;

	for (i = 0; i < a->nvms; i++)
		protect_unask(&a->vms[i].ask);
	a->state = ASKER_ENDING;
}

static void
on_gone(void *mine)
{
	struct asker *a = mine;
	size_t i;

	for (i = 0; i < a->nvms; i++)
		lc_free(a->vms[i].vm);
	lc_free(a->vms);
	json_decref(a->images);
	for (i = 0; i < a->nto; i++)
		lc_free(a->to[i]);
	lc_free(a);
}

/* ---- now and then ---- */

static void
say_progress(struct asker *a)
{
	struct backup_progress p;
	size_t i;

	/* Of no VM: only that the agent lives, as for one that waits there is nothing to say. */
	parley_say(a->parley, json_pack("{s:s}", "progress", ""));
	for (i = 0; i < a->nvms; i++) {
		if (a->vms[i].over || !protect_asked(&a->vms[i].ask, &p))
			continue;
		parley_say(a->parley,
		           json_pack("{s:s, s:s, s:I, s:I, s:I}", "progress", a->vms[i].vm, "note",
		                     p.note, "looked", (json_int_t)p.looked, "total",
		                     (json_int_t)p.total, "stored", (json_int_t)p.stored));
	}
}

static void
on_tick(void *mine)
{
	struct asker *a = mine;

	if ((a->state == ASKER_NEW || a->state == ASKER_ENDING) &&
	    clock_mono_ns() - a->since_ns > PATIENCE_NS)
		parley_close(a->parley);
	else if (a->state != ASKER_NEW && a->state != ASKER_ENDING &&
	         parley_unread(a->parley) < UNWRITTEN_MAX)
		say_progress(a);
	if (a->state == ASKER_SENDING)
		look_at_replicas(a);
}

/* ---- begin and end ---- */

void
control_protect(struct control *c, struct protect *p)
{
	if (c != NULL)
		c->protect = p;
}

static void
on_closed(void *arg)
{
	struct control *c = arg;

	lc_free(c->store);
	lc_free(c);
}

void
control_stop(struct control *c)
{
	if (c != NULL)
		parleys_close(c->parleys, on_closed, c);
}

int
control_start(const struct control_opts *o, struct control **out, struct lc_err *e)
{
	struct control *c = lc_alloc(sizeof *c);
	struct parleys_opts to = {.loop = o->loop,
	                          .path = o->path,
	                          .line_max = CONTROL_LINE_MAX,
	                          .unread_max = UNREAD_MAX,
	                          .tick_ms = TICK_MS,
	                          .arg = c,
	                          .events = {.came = on_came,
	                                     .line = on_line,
	                                     .tick = on_tick,
	                                     .left = on_left,
	                                     .gone = on_gone}};
	int rc;

	if (c == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	c->store = lc_strdup(o->store);
	rc = c->store == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                      : parleys_open(&to, &c->parleys, e);
	if (rc != 0) {
		lc_free(c->store);
		lc_free(c);
		return rc;
	}
	*out = c;
	return 0;
}

/*
 * An asker: IDLE ──► WORKING: a job is with the thread ──► IDLE ──► ..
 *             │ 60 s: sent away          └──► LENT: until it hangs up
 *
 * A job outlives an asker that hangs up.
 */
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <uv.h>

#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/memory.h"
#include "store/base/workers.h"
#include "store/desk/chore.h"
#include "store/desk/desk.h"
#include "store/desk/parley.h"

#define ASKERS_MAX 16u
#define IDLE_NS (60 * LC_NS_PER_S)
#define UNREAD_MAX ((size_t)64 << 10) /* who reads nothing has to go */

struct job {
	struct work work; /* first */
	TAILQ_ENTRY(job) entry;
	struct desk *desk;
	struct asker *asker; /* the loop's; NULL: it has hung up */
	atomic_bool gone;    /* likewise, for the thread */
	bool back;           /* no chore: what was lent comes back */
	struct chore chore;
	uint64_t condemned;
	int rc;
	struct lc_err err;
};

TAILQ_HEAD(job_list, job);

enum asker_state { ASKER_IDLE = 0, ASKER_WORKING, ASKER_LENT };

struct asker {
	struct desk *desk;
	struct parley *parley;
	enum asker_state state;
	int64_t since_ns; /* of the state */
	struct job *job;
};

struct desk {
	struct desk_owner owner;
	struct parleys *parleys; /* NULL: there are none any more */
	struct workers *thread;
	uv_async_t async;
	unsigned njobs;
	bool closing;
	void (*closed)(void *arg);
	void *arg;
	struct job *spare; /* the one that brings back what was lent: that must not fail */

	pthread_mutex_t lock;
	struct job_list done; /* under it */
};

/* ---- the thread ---- */

static int
work_on(struct job *j, struct lc_err *e)
{
	const struct desk_owner *o = &j->desk->owner;
	struct store *s;
	int rc;

	if (atomic_load(&j->gone))
		return lc_fail(e, LC_ECANCELED, 0, "canceled");
	if (j->chore.verb == CHORE_LEND)
		return o->lend(o->arg, j->chore.store, j->chore.who, e);
	rc = o->take(o->arg, j->chore.store, &s, e);
	if (rc != 0)
		return rc;
	rc = chore_do(&j->chore, s, &j->condemned, e);
	o->give(o->arg, s);
	return rc;
}

static void
run(struct work *w, unsigned worker)
{
	struct job *j = (struct job *)(void *)w;
	struct desk *d = j->desk;

	(void)worker;
	if (j->back)
		d->owner.back(d->owner.arg);
	else
		j->rc = work_on(j, &j->err);
	(void)pthread_mutex_lock(&d->lock);
	TAILQ_INSERT_TAIL(&d->done, j, entry);
	(void)uv_async_send(&d->async); /* under the lock: then it is still there */
	(void)pthread_mutex_unlock(&d->lock);
}

static void
submit(struct desk *d, struct job *j)
{
	j->work.run = run;
	j->desk = d;
	d->njobs++;
	workers_submit(d->thread, &j->work);
}

static void
bring_back(struct desk *d)
{
	struct job *j = d->spare;

	d->spare = NULL;
	j->back = true;
	submit(d, j);
}

/* ---- askers ---- */

static void
answer(struct asker *a, uint64_t done, int rc, const struct lc_err *err)
{
	const char *why = err->msg[0] != '\0' ? err->msg : lc_code_text((enum lc_code)rc);

	if (rc != 0)
		parley_say(a->parley,
		           json_pack("{s:o, s:i}", "failed", parley_text(why), "code", rc));
	else
		parley_say(a->parley, json_pack("{s:I}", "done", (json_int_t)done));
}

static void
enter(struct asker *a, enum asker_state state)
{
	a->state = state;
	a->since_ns = clock_mono_ns();
}

static void
on_came(void *arg, struct parley *t)
{
	struct desk *d = arg;
	struct asker *a = parleys_count(d->parleys) > ASKERS_MAX ? NULL : lc_alloc(sizeof *a);

	if (a == NULL)
		return;
	a->desk = d;
	a->parley = t;
	enter(a, ASKER_IDLE);
	parley_own(t, a);
}

static void
on_tick(void *mine)
{
	struct asker *a = mine;

	if (a->state == ASKER_IDLE && clock_mono_ns() - a->since_ns > IDLE_NS)
		parley_close(a->parley);
	else if (a->state == ASKER_WORKING)
		parley_say(a->parley, json_pack("{s:b}", "working", 1));
}

static void
on_left(void *mine)
{
	struct asker *a = mine;

	if (a->state == ASKER_LENT)
		bring_back(a->desk);
	if (a->job != NULL) {
		atomic_store(&a->job->gone, true);
		a->job->asker = NULL;
		a->job = NULL;
	}
}

static void
on_gone(void *mine)
{
	lc_free(mine);
}

/* ---- the end ---- */

static void
free_desk(struct desk *d)
{
	workers_free(d->thread);
	(void)pthread_mutex_destroy(&d->lock);
	lc_free(d->spare);
	if (d->closed != NULL)
		d->closed(d->arg);
	lc_free(d);
}

static void
on_closed(uv_handle_t *h)
{
	free_desk(h->data);
}

static void
go_on_closing(struct desk *d)
{
	if (d->closing && d->njobs == 0 && d->parleys == NULL &&
	    uv_is_closing((uv_handle_t *)&d->async) == 0)
		uv_close((uv_handle_t *)&d->async, on_closed);
}

static void
on_parleys_closed(void *arg)
{
	struct desk *d = arg;

	d->parleys = NULL;
	go_on_closing(d);
}

/* ---- requests ---- */

static void
end_job(struct job *j)
{
	struct desk *d = j->desk;
	struct asker *a = j->asker;
	bool lent = !j->back && j->chore.verb == CHORE_LEND && j->rc == 0;

	d->njobs--;
	if (j->back) {
		d->spare = j;
		*j = (struct job){0};
		return;
	}
	if (a != NULL) {
		a->job = NULL;
		enter(a, lent ? ASKER_LENT : ASKER_IDLE);
		answer(a, j->condemned, j->rc, &j->err);
	} else if (lent) {
		bring_back(d);
	}
	chore_done(&j->chore);
	lc_free(j);
	if (a != NULL && !lent)
		parley_resume(a->parley);
}

static void
on_async(uv_async_t *h)
{
	struct desk *d = h->data;
	struct job *j;

	for (;;) {
		(void)pthread_mutex_lock(&d->lock);
		j = TAILQ_FIRST(&d->done);
		if (j != NULL)
			TAILQ_REMOVE(&d->done, j, entry);
		(void)pthread_mutex_unlock(&d->lock);
		if (j == NULL)
			break;
		end_job(j);
	}
	go_on_closing(d);
}

static void
on_line(void *mine, const char *p, size_t n)
{
	struct asker *a = mine;
	struct job *j = lc_alloc(sizeof *j);

	if (j == NULL) {
		parley_close(a->parley);
	} else if ((j->rc = chore_decode(p, n, &j->chore, &j->err)) != 0) {
		answer(a, 0, j->rc, &j->err);
		chore_done(&j->chore);
		lc_free(j);
	} else {
		log_info("%s asks to %s", j->chore.who,
		         j->chore.verb == CHORE_LEND   ? "have the store for a while"
		         : j->chore.verb == CHORE_DROP ? "drop a restore point"
		                                       : "note damage");
		j->asker = a;
		a->job = j;
		enter(a, ASKER_WORKING);
		parley_hold(a->parley); /* one at a time */
		submit(a->desk, j);
	}
}

/* ---- open, close ---- */

int
desk_open(const struct desk_opts *o, struct desk **out, struct lc_err *e)
{
	struct desk *d = lc_alloc(sizeof *d);
	struct parleys_opts to = {.loop = o->loop,
	                          .path = o->path,
	                          .line_max = DESK_LINE_MAX,
	                          .unread_max = UNREAD_MAX,
	                          .tick_ms = DESK_WORKING_MS,
	                          .arg = d,
	                          .events = {.came = on_came,
	                                     .line = on_line,
	                                     .tick = on_tick,
	                                     .left = on_left,
	                                     .gone = on_gone}};
	int rc;

	if (d == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	d->spare = lc_alloc(sizeof *d->spare);
	rc = d->spare == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                      : workers_new(1, &d->thread, e);
	rc = rc != 0 ? rc : parleys_open(&to, &d->parleys, e);
	if (rc != 0) {
		workers_free(d->thread);
		lc_free(d->spare);
		lc_free(d);
		return rc;
	}
	d->owner = o->owner;
	TAILQ_INIT(&d->done);
	(void)pthread_mutex_init(&d->lock, NULL);
	(void)uv_async_init(o->loop, &d->async, on_async);
	d->async.data = d;
	*out = d;
	return 0;
}

void
desk_close(struct desk *d, void (*closed)(void *arg), void *arg)
{
	if (d == NULL) {
		if (closed != NULL)
			closed(arg);
		return;
	}
	d->closing = true;
	d->closed = closed;
	d->arg = arg;
	parleys_close(d->parleys, on_parleys_closed, d);
}

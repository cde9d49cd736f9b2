/*
 * FREE ──► WANTED ──► LENT ──► BACK ──► FREE
 *             └── refused ─────────────► FREE
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "agent/tenure.h"
#include "store/base/files.h"
#include "store/base/memory.h"

enum tenure_state { TENURE_FREE = 0, TENURE_WANTED, TENURE_LENT, TENURE_BACK };

struct tenure {
	struct tenure_opts o;
	char *dir;
	uv_async_t async;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Under it. */
	struct store *store;
	unsigned uses;
	enum tenure_state state;
	bool told; /* the loop knows of this state */
	char who[64];
	struct lc_err why; /* it was refused */
};

static void
on_async(uv_async_t *h)
{
	struct tenure *t = h->data;
	enum tenure_state state;
	char who[sizeof t->who];
	bool told;

	(void)pthread_mutex_lock(&t->lock);
	state = t->state;
	told = t->told;
	t->told = true;
	memcpy(who, t->who, sizeof who);
	if (state == TENURE_BACK)
		t->state = TENURE_FREE;
	(void)pthread_mutex_unlock(&t->lock);
	if (state == TENURE_WANTED && !told)
		t->o.wanted(t->o.arg, who);
	else if (state == TENURE_BACK)
		t->o.back(t->o.arg);
}

int
tenure_new(const struct tenure_opts *o, struct tenure **out, struct lc_err *e)
{
	struct tenure *t = lc_alloc(sizeof *t);

	if (t == NULL || (t->dir = lc_strdup(o->dir)) == NULL) {
		lc_free(t);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	t->o = *o;
	t->async.data = t;
	(void)pthread_mutex_init(&t->lock, NULL);
	(void)pthread_cond_init(&t->changed, NULL);
	(void)uv_async_init(o->loop, &t->async, on_async);
	*out = t;
	return 0;
}

/* ---- the desk's thread ---- */

/* Under the lock. */
static int
look(const struct tenure *t, const char *dir, struct lc_err *e)
{
	if (!dir_same(dir, t->dir))
		return lc_fail(e, LC_ENOENT, 0, "the agent works on another store");
	if (t->state != TENURE_FREE)
		return lc_fail(e, LC_EBUSY, 0,
		               "the agent has lent its store to %s: try again later", t->who);
	if (t->store == NULL)
		return lc_fail(e, LC_EBUSY, 0,
		               "the agent is opening its store anew (its log says why): try again "
		               "later");
	return 0;
}

static int
take(void *arg, const char *dir, struct store **out, struct lc_err *e)
{
	struct tenure *t = arg;
	int rc;

	(void)pthread_mutex_lock(&t->lock);
	rc = look(t, dir, e);
	if (rc == 0) {
		t->uses++;
		*out = t->store;
	}
	(void)pthread_mutex_unlock(&t->lock);
	return rc;
}

static void
give(void *arg, struct store *s)
{
	struct tenure *t = arg;

	(void)s;
	(void)pthread_mutex_lock(&t->lock);
	t->uses--;
	(void)pthread_cond_broadcast(&t->changed);
	(void)pthread_mutex_unlock(&t->lock);
}

static int
lend(void *arg, const char *dir, const char *who, struct lc_err *e)
{
	struct tenure *t = arg;
	int rc;

	(void)pthread_mutex_lock(&t->lock);
	rc = look(t, dir, e);
	if (rc == 0) {
		t->state = TENURE_WANTED;
		t->told = false;
		(void)snprintf(t->who, sizeof t->who, "%s", who);
		lc_err_clear(&t->why);
		(void)uv_async_send(&t->async);
		while (t->state == TENURE_WANTED)
			(void)pthread_cond_wait(&t->changed, &t->lock);
		if (t->state != TENURE_LENT) {
			rc = t->why.code;
			if (e != NULL)
				*e = t->why;
		}
	}
	(void)pthread_mutex_unlock(&t->lock);
	return rc;
}

static void
back(void *arg)
{
	struct tenure *t = arg;

	(void)pthread_mutex_lock(&t->lock);
	t->state = TENURE_BACK;
	(void)uv_async_send(&t->async);
	(void)pthread_mutex_unlock(&t->lock);
}

struct desk_owner
tenure_owner(struct tenure *t)
{
	return (struct desk_owner){
	    .arg = t, .take = take, .give = give, .lend = lend, .back = back};
}

/* ---- the loop ---- */

void
tenure_store(struct tenure *t, struct store *s)
{
	(void)pthread_mutex_lock(&t->lock);
	t->store = s;
	while (s == NULL && t->uses > 0)
		(void)pthread_cond_wait(&t->changed, &t->lock);
	(void)pthread_mutex_unlock(&t->lock);
}

static void
end_wish(struct tenure *t, enum tenure_state state, const struct lc_err *why)
{
	(void)pthread_mutex_lock(&t->lock);
	if (t->state == TENURE_WANTED) {
		t->state = state;
		if (why != NULL)
			t->why = *why;
		(void)pthread_cond_broadcast(&t->changed);
	}
	(void)pthread_mutex_unlock(&t->lock);
}

void
tenure_lent(struct tenure *t)
{
	end_wish(t, TENURE_LENT, NULL);
}

void
tenure_refuse(struct tenure *t, const struct lc_err *why)
{
	end_wish(t, TENURE_FREE, why);
}

static void
on_closed(uv_handle_t *h)
{
	struct tenure *t = h->data;

	(void)pthread_mutex_destroy(&t->lock);
	(void)pthread_cond_destroy(&t->changed);
	lc_free(t->dir);
	lc_free(t);
}

void
tenure_close(struct tenure *t)
{
	if (t != NULL)
		uv_close((uv_handle_t *)&t->async, on_closed);
}

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "replicator/stores.h"
#include "store/base/clock.h"
#include "store/base/memory.h"
#include "store/store.h"

#define PAUSE_MS 20
#define AT_ONCE_MAX 256u /* writers in one store */

struct shared {
	LIST_ENTRY(shared) entry, open;
	struct stores *all;
	char *dir;
	pthread_mutex_t opening;
	struct store *store; /* under it; NULL: not yet */
	atomic_bool spoilt, wanted;
	/* Under the lock of all. */
	unsigned users;
	uint16_t writers[AT_ONCE_MAX]; /* that are there */
	size_t nwriters;
	bool listed; /* who takes it gets this one */
};

struct stores {
	pthread_mutex_t lock;
	LIST_HEAD(, shared) list;
	LIST_HEAD(, shared) open; /* spoilt ones, too, until they are closed */
	char desk[STORE_DESK_MAX];
	char *lent; /* folder; NULL: none is lent */
	char who[64];
	atomic_bool leaving;
};

int
stores_new(struct stores **out, struct lc_err *e)
{
	struct stores *x = lc_alloc(sizeof *x);

	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)pthread_mutex_init(&x->lock, NULL);
	LIST_INIT(&x->list);
	LIST_INIT(&x->open);
	*out = x;
	return 0;
}

void
stores_free(struct stores *x)
{
	if (x == NULL)
		return;
	assert(LIST_EMPTY(&x->list));
	(void)pthread_mutex_destroy(&x->lock);
	lc_free(x);
}

void
stores_desk(struct stores *x, const char *path)
{
	(void)pthread_mutex_lock(&x->lock);
	(void)snprintf(x->desk, sizeof x->desk, "%s", path == NULL ? "" : path);
	(void)pthread_mutex_unlock(&x->lock);
}

static struct shared *
add(struct stores *x, const char *dir)
{
	struct shared *s = lc_alloc(sizeof *s);

	if (s == NULL || (s->dir = lc_strdup(dir)) == NULL) {
		lc_free(s);
		return NULL;
	}
	(void)pthread_mutex_init(&s->opening, NULL);
	s->all = x;
	s->listed = true;
	LIST_INSERT_HEAD(&x->list, s, entry);
	LIST_INSERT_HEAD(&x->open, s, open);
	return s;
}

static uint16_t *
find_writer(struct shared *s, uint16_t writer)
{
	size_t i;

	for (i = 0; i < s->nwriters; i++) {
		if (s->writers[i] == writer)
			return &s->writers[i];
	}
	return NULL;
}

static void
forget_writer(struct shared *s, uint16_t writer)
{
	uint16_t *at = find_writer(s, writer);

	if (at != NULL)
		*at = s->writers[--s->nwriters];
}

/* Under the lock. */
static struct shared *
find(const struct stores *x, const char *dir)
{
	struct shared *s;

	LIST_FOREACH(s, &x->list, entry)
	{
		if (strcmp(s->dir, dir) == 0)
			break;
	}
	return s;
}

static int
say_lent(const struct stores *x, struct lc_err *e)
{
	return lc_fail(e, LC_EBUSY, 0, "the store here is lent to %s: try again later", x->who);
}

/* A place in it, open or not; *busy: that writer is there, or too many. */
static int
enter(struct stores *x, const char *dir, const uint16_t *writer, bool *busy, struct shared **out,
      struct lc_err *e)
{
	struct shared *s = NULL;
	int rc = 0;

	*busy = false;
	(void)pthread_mutex_lock(&x->lock);
	if (x->lent != NULL && strcmp(x->lent, dir) == 0)
		rc = say_lent(x, e);
	else if ((s = find(x, dir)) == NULL && (s = add(x, dir)) == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	*busy = s != NULL && writer != NULL &&
	        (find_writer(s, *writer) != NULL || s->nwriters == AT_ONCE_MAX);
	if (s != NULL && !*busy) {
		s->users++;
		if (writer != NULL)
			s->writers[s->nwriters++] = *writer;
	}
	(void)pthread_mutex_unlock(&x->lock);
	*out = s;
	return rc;
}

/* Who opens it may take minutes (a catalog that is made again).  That is one worker's time; were
 * all others to wait as long who come for the same store, hosts of other stores would find none. */
static int
begin_opening(struct shared *s, int64_t wait_ms, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * LC_NS_PER_MS};
	int64_t until = clock_mono_ns() + wait_ms * LC_NS_PER_MS;

	while (pthread_mutex_trylock(&s->opening) != 0) {
		if (clock_mono_ns() >= until)
			return lc_fail(e, LC_EBUSY, 0,
			               "the store here is being opened: try again later");
		(void)nanosleep(&pause, NULL);
	}
	return 0;
}

static int
open_once(struct stores *x, struct shared *s, int64_t wait_ms, struct lc_err *e)
{
	char desk[STORE_DESK_MAX];
	struct store_opts o = {.mode = STORE_WRITE,
	                       .who = "locum replica",
	                       .no_key = true,
	                       .wait_ms = wait_ms,
	                       .dir = s->dir};
	int rc = begin_opening(s, wait_ms, e);

	if (rc != 0)
		return rc;
	(void)pthread_mutex_lock(&x->lock);
	memcpy(desk, x->desk, sizeof desk);
	(void)pthread_mutex_unlock(&x->lock);
	o.desk = desk[0] == '\0' ? NULL : desk;
	if (s->store == NULL)
		rc = store_open(&o, &s->store, e);
	(void)pthread_mutex_unlock(&s->opening);
	return rc;
}

int
stores_take(struct stores *x, const char *dir, const uint16_t *writer, int64_t wait_ms,
            struct shared **out, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * LC_NS_PER_MS};
	int64_t until = clock_mono_ns() + wait_ms * LC_NS_PER_MS;
	struct shared *s;
	bool busy;
	int rc;

	while ((rc = enter(x, dir, writer, &busy, &s, e)) == 0 && busy) {
		if (clock_mono_ns() >= until)
			return lc_fail(e, LC_EBUSY, 0, "this host is connected already");
		(void)nanosleep(&pause, NULL);
	}
	if (rc != 0 || s == NULL)
		return rc;
	rc = open_once(x, s, wait_ms, e);
	if (rc != 0)
		stores_give(x, s, writer);
	else
		*out = s;
	return rc;
}

struct store *
shared_store(struct shared *s)
{
	return s->store;
}

static void
unlist(struct shared *s)
{
	if (s->listed)
		LIST_REMOVE(s, entry);
	s->listed = false;
}

void
stores_spoil(struct stores *x, struct shared *s)
{
	(void)pthread_mutex_lock(&x->lock);
	s->spoilt = true;
	unlist(s);
	(void)pthread_mutex_unlock(&x->lock);
}

bool
shared_spoilt(const struct shared *s)
{
	return s->spoilt;
}

void
stores_give(struct stores *x, struct shared *s, const uint16_t *writer)
{
	bool last;

	if (s == NULL)
		return;
	(void)pthread_mutex_lock(&x->lock);
	if (writer != NULL)
		forget_writer(s, *writer);
	last = --s->users == 0;
	if (last)
		unlist(s);
	(void)pthread_mutex_unlock(&x->lock);
	if (!last)
		return;
	store_close(s->store);
	(void)pthread_mutex_lock(&x->lock);
	LIST_REMOVE(s, open);
	(void)pthread_mutex_unlock(&x->lock);
	(void)pthread_mutex_destroy(&s->opening);
	lc_free(s->dir);
	lc_free(s);
}

/* ---- lending ---- */

/* Under the lock: have them leave, or not any more.  Returns how many have it open. */
static unsigned
want(struct stores *x, const char *dir, bool wanted)
{
	struct shared *s;
	unsigned n = 0;

	LIST_FOREACH(s, &x->open, open)
	{
		if (strcmp(s->dir, dir) != 0)
			continue;
		s->wanted = wanted;
		n++;
	}
	x->leaving = wanted && n > 0;
	return n;
}

int
stores_lend(struct stores *x, const char *dir, const char *who, int64_t wait_ms, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * LC_NS_PER_MS};
	int64_t until = clock_mono_ns() + wait_ms * LC_NS_PER_MS;
	char *lent = lc_strdup(dir);
	int rc = 0;

	(void)pthread_mutex_lock(&x->lock);
	if (lent == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	} else if (x->lent != NULL) {
		rc = say_lent(x, e);
	} else {
		x->lent = lent;
		lent = NULL;
		(void)snprintf(x->who, sizeof x->who, "%s", who);
	}
	while (rc == 0 && want(x, dir, true) > 0) {
		if (clock_mono_ns() >= until) {
			rc = lc_fail(e, LC_EBUSY, 0,
			             "%s: the connections of its hosts have not ended within %lld "
			             "s: stop the replica, and give the command again",
			             dir, (long long)(wait_ms / 1000));
			(void)want(x, dir, false);
			lent = x->lent;
			x->lent = NULL;
			break;
		}
		(void)pthread_mutex_unlock(&x->lock);
		(void)nanosleep(&pause, NULL);
		(void)pthread_mutex_lock(&x->lock);
	}
	(void)pthread_mutex_unlock(&x->lock);
	lc_free(lent);
	return rc;
}

void
stores_back(struct stores *x)
{
	(void)pthread_mutex_lock(&x->lock);
	lc_free(x->lent);
	x->lent = NULL;
	(void)pthread_mutex_unlock(&x->lock);
}

bool
stores_leaving(const struct stores *x)
{
	return x->leaving;
}

int
shared_wanted(const struct shared *s, struct lc_err *e)
{
	int rc = 0;

	if (!s->wanted)
		return 0;
	(void)pthread_mutex_lock(&s->all->lock);
	if (s->wanted)
		rc = say_lent(s->all, e);
	(void)pthread_mutex_unlock(&s->all->lock);
	return rc;
}

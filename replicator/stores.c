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
	LIST_ENTRY(shared) entry;
	char *dir;
	pthread_mutex_t opening;
	struct store *store; /* under it; NULL: not yet */
	atomic_bool spoilt;
	/* Under the lock of all. */
	unsigned users;
	uint16_t writers[AT_ONCE_MAX]; /* that are there */
	size_t nwriters;
	bool listed;
};

struct stores {
	pthread_mutex_t lock;
	LIST_HEAD(, shared) list;
	char desk[STORE_DESK_MAX];
};

int
stores_new(struct stores **out, struct lc_err *e)
{
	struct stores *x = lc_alloc(sizeof *x);

	if (x == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)pthread_mutex_init(&x->lock, NULL);
	LIST_INIT(&x->list);
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
	s->listed = true;
	LIST_INSERT_HEAD(&x->list, s, entry);
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

/* A place in it, open or not; *busy: that writer is there, or too many. */
static struct shared *
enter(struct stores *x, const char *dir, const uint16_t *writer, bool *busy)
{
	struct shared *s;

	(void)pthread_mutex_lock(&x->lock);
	LIST_FOREACH(s, &x->list, entry)
	{
		if (strcmp(s->dir, dir) == 0)
			break;
	}
	if (s == NULL)
		s = add(x, dir);
	*busy = s != NULL && writer != NULL &&
	        (find_writer(s, *writer) != NULL || s->nwriters == AT_ONCE_MAX);
	if (s != NULL && !*busy) {
		s->users++;
		if (writer != NULL)
			s->writers[s->nwriters++] = *writer;
	}
	(void)pthread_mutex_unlock(&x->lock);
	return s;
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
	int rc = 0;

	(void)pthread_mutex_lock(&x->lock);
	memcpy(desk, x->desk, sizeof desk);
	(void)pthread_mutex_unlock(&x->lock);
	o.desk = desk[0] == '\0' ? NULL : desk;
	(void)pthread_mutex_lock(&s->opening);
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

	while ((s = enter(x, dir, writer, &busy)) != NULL && busy) {
		if (clock_mono_ns() >= until)
			return lc_fail(e, LC_EBUSY, 0, "this host is connected already");
		(void)nanosleep(&pause, NULL);
	}
	if (s == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
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
	(void)pthread_mutex_destroy(&s->opening);
	lc_free(s->dir);
	lc_free(s);
}

#include <stdlib.h>
#include <string.h>

#include "replicator/steward.h"
#include "replicator/stores.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/memory.h"

#define WAIT_MS 2000
#define LEAVE_MS 30000 /* for who is in a store that is to be lent */

struct steward {
	struct stores *stores;
	char *dir, *path;
	struct desk *desk;
	struct shared *in_hand; /* the desk's thread: what it works on ... */
	char *in_hand_name;     /* ... and where that is */
	void (*look)(void *arg, const char *dir, struct store *s);
	void *look_arg;
	void (*closed)(void *arg);
	void *arg;
};

/* By the name under which its host opens it, or NULL. */
static char *
name_of(const struct steward *w, const char *dir)
{
	const char *base = strrchr(dir, '/');
	char *name = base == NULL ? NULL : lc_asprintf("%s/stores%s", w->dir, base);

	if (name != NULL && dir_same(name, dir))
		return name;
	lc_free(name);
	return NULL;
}

static int
take(void *arg, const char *dir, struct store **out, struct lc_err *e)
{
	struct steward *w = arg;
	char *name = name_of(w, dir);
	int rc;

	if (name == NULL)
		return lc_fail(e, LC_ENOENT, 0, "%s is no store of the replica in %s", dir, w->dir);
	rc = stores_take(w->stores, name, NULL, WAIT_MS, &w->in_hand, e);
	if (rc != 0) {
		lc_free(name);
		return rc;
	}
	w->in_hand_name = name;
	*out = shared_store(w->in_hand);
	return 0;
}

static void
give(void *arg, struct store *s)
{
	struct steward *w = arg;

	if (w->look != NULL)
		w->look(w->look_arg, w->in_hand_name, s);
	lc_free(w->in_hand_name);
	w->in_hand_name = NULL;
	stores_give(w->stores, w->in_hand, NULL);
	w->in_hand = NULL;
}

/* Its hosts are sent away for that while; they come again by themselves. */
static int
lend(void *arg, const char *dir, const char *who, struct lc_err *e)
{
	struct steward *w = arg;
	char *name = name_of(w, dir);
	int rc;

	if (name == NULL)
		return lc_fail(e, LC_ENOENT, 0, "%s is no store of the replica in %s", dir, w->dir);
	rc = stores_lend(w->stores, name, who, LEAVE_MS, e);
	if (rc == 0)
		log_info("%s is lent to %s", name, who);
	lc_free(name);
	return rc;
}

static void
back(void *arg)
{
	struct steward *w = arg;

	stores_back(w->stores);
	log_info("the store that was lent is back");
}

static void
free_steward(void *arg)
{
	struct steward *w = arg;

	if (w->closed != NULL)
		w->closed(w->arg);
	lc_free(w->dir);
	lc_free(w->path);
	lc_free(w);
}

int
steward_open(struct uv_loop_s *loop, const char *dir, struct stores *stores, struct steward **out,
             struct lc_err *e)
{
	struct steward *w = lc_alloc(sizeof *w);
	struct desk_opts o = {.loop = loop,
	                      .owner = {.take = take, .give = give, .lend = lend, .back = back}};
	char *whole = realpath(dir, NULL); /* others come from other folders */
	int rc;

	if (w == NULL || whole == NULL) {
		free(whole);
		lc_free(w);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	w->stores = stores;
	w->dir = lc_strdup(dir);
	w->path = path_join(whole, STEWARD_FILE);
	free(whole);
	o.owner.arg = w;
	o.path = w->path;
	rc = w->dir == NULL || w->path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                                       : desk_open(&o, &w->desk, e);
	if (rc != 0) {
		free_steward(w);
		return rc;
	}
	stores_desk(stores, w->path);
	*out = w;
	return 0;
}

void
steward_watch(struct steward *w, void (*look)(void *arg, const char *dir, struct store *s),
              void *arg)
{
	w->look = look;
	w->look_arg = arg;
}

void
steward_close(struct steward *w, void (*closed)(void *arg), void *arg)
{
	if (w == NULL) {
		closed(arg);
		return;
	}
	w->closed = closed;
	w->arg = arg;
	stores_desk(w->stores, NULL);
	desk_close(w->desk, free_steward, w);
}

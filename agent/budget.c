#include "agent/budget.h"
#include "agent/hypervisor/settings.h"
#include "agent/room.h"
#include "agent/spool.h"
#include "replicator/identity.h"
#include "store/base/clock.h"
#include "store/base/memory.h"

#define PATIENCE_NS (60 * LC_NS_PER_S) /* with a replica that goes away, while a point is made */
#define PATIENCE_BEGIN_NS (5 * LC_NS_PER_S) /* likewise, before one is begun */

struct budget {
	struct spool *spool; /* NULL: it is looked at once */
	struct room room;
	bool spent; /* as of that */
	int64_t began_ns;
	uint64_t *dropped;
};

static int
peers(const struct settings *settings, size_t *n, struct lc_err *e)
{
	struct peer *list = NULL;
	int rc = peer_list(settings->key_dir, &list, n, e);

	lc_free(list);
	return rc;
}

int
budget_trim(struct store *store, const struct settings *settings, uint64_t *dropped, bool *spent,
            struct lc_err *e)
{
	struct spool_opts o = {
	    .store = store, .key_dir = settings->key_dir, .max = settings->spool_max};
	struct spool_status st = {.spent = false};
	int rc = o.max == 0 ? 0 : spool_trim(&o, &st, e);

	*dropped += st.dropped;
	*spent = rc == 0 && st.spent;
	return rc;
}

int
budget_start(const struct budget_opts *o, struct budget **out, struct lc_err *e)
{
	struct spool_opts so = {.loop = o->loop,
	                        .store = o->store,
	                        .key_dir = o->settings->key_dir,
	                        .max = o->settings->spool_max};
	struct budget *b;
	size_t n = 0;
	int rc;

	*out = NULL;
	if (so.max == 0 || o->nto == 0)
		return 0;
	b = lc_alloc(sizeof *b);
	if (b == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = budget_trim(o->store, o->settings, o->dropped, &b->spent, e);
	rc = rc != 0 ? rc : peers(o->settings, &n, e);
	if (rc == 0 && o->nto >= n)
		rc = spool_start(&so, &b->spool, e);
	if (rc != 0) {
		lc_free(b);
		return rc;
	}
	room_init(&b->room);
	b->room.spool = b->spool;
	b->room.pool = o->pool;
	b->room.patience_ns = PATIENCE_NS;
	b->began_ns = clock_mono_ns();
	b->dropped = o->dropped;
	*out = b;
	return 0;
}

void
budget_sites(struct budget *b, const struct sites *s)
{
	if (b != NULL)
		b->room.sites = s;
}

const struct backup_room *
budget_room(const struct budget *b)
{
	return b == NULL || b->spool == NULL ? NULL : &b->room.ops;
}

bool
budget_left(struct budget *b, int64_t since_ns)
{
	struct spool_status st = {.spent = false};

	if (b == NULL || b->spool == NULL)
		return b == NULL || !b->spent;
	spool_status(b->spool, &st);
	if (since_ns == 0 && st.spent)
		since_ns = b->began_ns;
	return room_left(&b->room, since_ns, false) > 0;
}

bool
budget_waits(const struct budget *b)
{
	return b != NULL && b->spool != NULL && b->room.sites != NULL &&
	       (b->room.away_ns == 0 || clock_mono_ns() - b->room.away_ns < PATIENCE_BEGIN_NS);
}

static void
on_gone(void *arg)
{
	lc_free(arg);
}

void
budget_stop(struct budget *b)
{
	struct spool_status st;

	if (b == NULL)
		return;
	if (b->spool == NULL) {
		lc_free(b);
		return;
	}
	spool_status(b->spool, &st);
	*b->dropped += st.dropped;
	b->room.spool = NULL;
	spool_stop(b->spool, on_gone, b);
}

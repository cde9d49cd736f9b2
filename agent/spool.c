#include <inttypes.h>
#include <pthread.h>
#include <uv.h>

#include "agent/spool.h"
#include "replicator/remote.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/log.h"
#include "store/base/memory.h"
#include "store/thin.h"

#define LOOK_NS (LC_NS_PER_S / 2)
#define AGAIN_NS (10 * LC_NS_PER_S) /* after a try that freed nothing */
#define TELL_NS (10 * LC_NS_PER_S)  /* a first point uses it up again and again, for a moment */

struct spool {
	struct spool_opts o;
	struct remote *remote; /* NULL: without limit */
	pthread_t thread;
	uv_async_t over;
	void (*gone)(void *arg);
	void *arg;
	int64_t again_ns;
	int64_t spent_ns; /* since when it is; 0: it is not */
	bool told;        /* that it is */
	bool blind;       /* how much the store holds could not be seen, and that was told */

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t cond;
	bool stopping;
	struct spool_status st;
};

static bool
stop(void *arg)
{
	struct spool *s = arg;
	bool stopping;

	(void)pthread_mutex_lock(&s->lock);
	stopping = s->stopping;
	(void)pthread_mutex_unlock(&s->lock);
	return stopping;
}

static int
have(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	return remote_have(((struct spool *)arg)->remote, ids, n, bits, e);
}

/* A limit that makes no sense must not keep VMs from being protected. */
static int
find_replicas(struct spool *s, struct lc_err *e)
{
	int rc = s->o.max == 0 ? 0 : remote_new(s->o.store, s->o.key_dir, &s->remote, e);

	if (rc != 0 || s->o.max == 0)
		return rc;
	remote_stop(s->remote, stop, s); /* a new beginning is not to wait for one that hangs */
	if (remote_count(s->remote) == 0) {
		log_warn("spool_max is for hosts with a replica, and this one is paired with none "
		         "(locum pair): the store keeps everything");
		remote_free(s->remote);
		s->remote = NULL;
		s->o.max = 0;
	} else if (s->o.max < SPOOL_MIN) {
		log_warn("spool_max: less than 64 MiB is of no use: it counts as that");
		s->o.max = SPOOL_MIN;
	}
	s->st.max = s->o.max;
	return 0;
}

/* ---- on its thread ---- */

static void
drop(struct spool *s, uint64_t bytes, struct lc_err *e)
{
	struct thin_opts o = {.have = have,
	                      .stop = stop,
	                      .arg = s,
	                      .peers = remote_names(s->remote),
	                      .bytes = bytes - spool_low(s->o.max)};
	struct thin_stats st;
	char size[32];

	(void)thin_run(s->o.store, &o, &st, e);
	if (st.freed == 0) {
		s->again_ns = clock_mono_ns() + AGAIN_NS;
		return;
	}
	log_debug("spool: dropped %s that the replicas have",
	          size_format(size, sizeof size, st.freed));
	(void)pthread_mutex_lock(&s->lock);
	s->st.dropped += st.freed;
	(void)pthread_mutex_unlock(&s->lock);
}

static void
note(struct spool *s, uint64_t bytes, int64_t looked_ns, const struct lc_err *why)
{
	char size[32], max[32];
	bool spent = bytes >= s->o.max;
	int64_t now = clock_mono_ns();

	(void)pthread_mutex_lock(&s->lock);
	s->st.bytes = bytes;
	s->st.looked_ns = looked_ns;
	s->st.spent = spent;
	s->st.err = *why;
	(void)pthread_mutex_unlock(&s->lock);
	(void)size_format(size, sizeof size, bytes);
	(void)size_format(max, sizeof max, s->o.max);
	if (!spent || s->spent_ns == 0)
		s->spent_ns = spent ? now : 0;
	if (spent && !s->told && now - s->spent_ns >= TELL_NS) {
		s->told = true;
		log_warn("the store holds %s, and may hold %s (spool_max): no restore points are "
		         "made until the replicas have what waits%s%s",
		         size, max, why->code == LC_OK ? "" : ": ", why->msg);
	} else if (s->told && !spent) {
		s->told = false;
		log_info("the store holds %s of %s: restore points are made again", size, max);
	}
}

/* What was known last stands.  Told once. */
static void
note_blind(struct spool *s, const struct lc_err *why)
{
	if (!s->blind)
		log_error("spool: how much the store holds can't be seen: %s", why->msg);
	s->blind = true;
	(void)pthread_mutex_lock(&s->lock);
	s->st.err = *why;
	(void)pthread_mutex_unlock(&s->lock);
}

static void
look(struct spool *s)
{
	struct lc_err err = LC_ERR_INIT, again = LC_ERR_INIT;
	int64_t looked_ns = clock_mono_ns();
	uint64_t bytes, droppable;
	bool tried = false;

	if (thin_bytes(s->o.store, &bytes, &droppable, &err) != 0) {
		note_blind(s, &err);
		return;
	}
	if (bytes > spool_low(s->o.max) && droppable > 0 && clock_mono_ns() >= s->again_ns) {
		tried = true;
		drop(s, bytes, &err);
		looked_ns = clock_mono_ns();
		if (thin_bytes(s->o.store, &bytes, &droppable, &again) != 0) {
			note_blind(s, &again);
			return;
		}
	}
	if (!tried && !s->blind) {
		(void)pthread_mutex_lock(&s->lock);
		err = s->st.err;
		(void)pthread_mutex_unlock(&s->lock);
	}
	s->blind = false;
	if (bytes <= spool_low(s->o.max))
		lc_err_clear(&err);
	note(s, bytes, looked_ns, &err);
}

static void *
run(void *arg)
{
	struct spool *s = arg;

	while (!stop(s)) {
		if (s->remote != NULL)
			look(s);
		(void)pthread_mutex_lock(&s->lock);
		if (!s->stopping && s->remote == NULL)
			(void)pthread_cond_wait(&s->cond, &s->lock);
		else if (!s->stopping)
			(void)clock_wait(&s->cond, &s->lock, clock_mono_ns() + LOOK_NS);
		(void)pthread_mutex_unlock(&s->lock);
	}
	remote_free(s->remote);
	s->remote = NULL;
	(void)uv_async_send(&s->over);
	return NULL;
}

/* ---- once ---- */

int
spool_trim(const struct spool_opts *o, struct spool_status *out, struct lc_err *e)
{
	struct spool s = {.o = *o};
	int rc = find_replicas(&s, e);

	if (rc == 0 && s.remote != NULL)
		rc = remote_known(s.remote, e);
	*out = (struct spool_status){.max = s.o.max};
	if (rc != 0 || s.remote == NULL) {
		remote_free(s.remote);
		return rc;
	}
	(void)pthread_mutex_init(&s.lock, NULL);
	look(&s);
	*out = s.st;
	(void)pthread_mutex_destroy(&s.lock);
	remote_free(s.remote);
	return 0;
}

/* ---- on the loop ---- */

static void
on_closed(uv_handle_t *h)
{
	struct spool *s = h->data;

	if (s->gone != NULL)
		s->gone(s->arg);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->cond);
	lc_free(s);
}

static void
on_over(uv_async_t *a)
{
	struct spool *s = a->data;

	(void)pthread_join(s->thread, NULL);
	uv_close((uv_handle_t *)a, on_closed);
}

int
spool_start(const struct spool_opts *o, struct spool **out, struct lc_err *e)
{
	struct spool *s = lc_alloc(sizeof *s);
	int rc;

	if (s == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	s->o = *o;
	rc = find_replicas(s, e);
	if (rc == 0 && uv_async_init(o->loop, &s->over, on_over) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of descriptors");
	if (rc != 0) {
		remote_free(s->remote);
		lc_free(s);
		return rc;
	}
	s->over.data = s;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->cond, NULL);
	if (pthread_create(&s->thread, NULL, run, s) != 0) {
		remote_free(s->remote);
		uv_close((uv_handle_t *)&s->over, on_closed);
		return lc_fail(e, LC_ENOMEM, 0, "no thread");
	}
	*out = s;
	return 0;
}

void
spool_status(struct spool *s, struct spool_status *out)
{
	(void)pthread_mutex_lock(&s->lock);
	*out = s->st;
	(void)pthread_mutex_unlock(&s->lock);
}

void
spool_stop(struct spool *s, void (*gone)(void *arg), void *arg)
{
	(void)pthread_mutex_lock(&s->lock);
	s->gone = gone;
	s->arg = arg;
	s->stopping = true;
	(void)pthread_cond_broadcast(&s->cond);
	(void)pthread_mutex_unlock(&s->lock);
}

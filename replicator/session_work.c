/*
 * A session's role at work.
 */
#include <pthread.h>
#include <sys/queue.h>

#include "replicator/session_internal.h"
#include "store/base/clock.h"

/* Of one session, then others have the worker: what is short to say may take long to do. */
#define TURN_NS (200 * LC_NS_PER_MS)

static struct packet *
next_input(struct session *s)
{
	struct packet *p;

	(void)pthread_mutex_lock(&s->lock);
	p = packet_take(&s->in);
	if (p != NULL)
		s->in_bytes -= p->body.n + PACKET_COST;
	(void)pthread_mutex_unlock(&s->lock);
	return p;
}

static bool
emitted_enough(struct session *s)
{
	bool enough;

	(void)pthread_mutex_lock(&s->lock);
	enough = s->output_max > 0 && s->out_bytes > s->output_max;
	(void)pthread_mutex_unlock(&s->lock);
	return enough;
}

static void
tell_done(struct session *s, const struct lc_err *err)
{
	(void)pthread_mutex_lock(&s->lock);
	s->work_err = *err;
	s->done = true;
	(void)pthread_mutex_unlock(&s->lock);
	(void)uv_async_send(&s->wake);
}

void
session_leave(struct work *w, unsigned worker)
{
	struct session *s = (struct session *)(void *)w;
	struct lc_err none = LC_ERR_INIT;

	(void)worker;
	s->role->leave(s->arg);
	tell_done(s, &none);
}

void
session_work(struct work *w, unsigned worker)
{
	struct session *s = (struct session *)(void *)w;
	int64_t until = clock_mono_ns() + TURN_NS;
	struct lc_err err = LC_ERR_INIT;
	struct packet *p;
	size_t bytes = 0;
	int rc = 0;

	(void)worker;
	while (rc == 0 && bytes < SESSION_INPUT_MAX && !emitted_enough(s) &&
	       clock_mono_ns() < until && (p = next_input(s)) != NULL) {
		bytes += p->body.n + PACKET_COST;
		rc = s->role->message(s->arg, p->type, (struct lc_span){p->body.p, p->body.n},
		                      &err);
		packet_free(p);
	}
	if (rc == 0)
		(void)s->role->settle(s->arg, &err);
	tell_done(s, &err);
}

int
session_emit(struct session *s, uint16_t type, const struct lc_span *spans, size_t n,
             struct lc_err *e)
{
	struct packet *p = packet_new(type, spans, n);

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)pthread_mutex_lock(&s->lock);
	STAILQ_INSERT_TAIL(&s->out, p, entry);
	s->out_bytes += p->body.n + PACKET_COST;
	(void)pthread_mutex_unlock(&s->lock);
	return 0;
}

#include <string.h>

#include "replicator/uplink.h"
#include "replicator/uplink_news.h"

struct uplink_event {
	STAILQ_ENTRY(uplink_event) entry;
	enum { EVENT_COMMITTED, EVENT_FAILED, EVENT_HEADS, EVENT_DAMAGED, EVENT_ROOM } type;
	struct witness_point at; /* committed: what it is */
	struct lc_buf heads;     /* of struct witness_point */
	struct transfer_point point;
	struct lc_buf entry_bytes;
	int64_t wall_ns;
	uint8_t vm[16];
	struct lc_err why;
	struct sender_damage damage;
};

void
news_init(struct uplink_news *n)
{
	STAILQ_INIT(&n->list);
	(void)pthread_mutex_init(&n->lock, NULL);
}

void
news_done(struct uplink_news *n)
{
	(void)pthread_mutex_destroy(&n->lock);
}

static void
push(struct uplink_news *n, struct uplink_event *ev)
{
	(void)pthread_mutex_lock(&n->lock);
	STAILQ_INSERT_TAIL(&n->list, ev, entry);
	(void)pthread_mutex_unlock(&n->lock);
}

void
news_heads(struct uplink_news *n, struct lc_buf *heads)
{
	struct uplink_event *ev = lc_alloc(sizeof *ev);

	if (ev == NULL)
		return;
	ev->type = EVENT_HEADS;
	ev->heads = *heads;
	*heads = (struct lc_buf){0};
	push(n, ev);
}

void
news_committed(struct uplink_news *n, const struct witness_point *at,
               const struct transfer_point *p, int64_t wall_ns)
{
	struct uplink_event *ev = lc_alloc(sizeof *ev);

	if (ev == NULL)
		return;
	ev->type = EVENT_COMMITTED;
	ev->at = *at;
	ev->point = *p;
	ev->wall_ns = wall_ns;
	(void)lc_buf_append(&ev->entry_bytes, p->entry.p, p->entry.n);
	ev->point.entry = (struct lc_span){ev->entry_bytes.p, ev->entry_bytes.n};
	ev->point.name = (struct lc_span){0};
	push(n, ev);
}

void
news_failed(struct uplink_news *n, const uint8_t vm[16], const struct lc_err *why)
{
	struct uplink_event *ev = lc_alloc(sizeof *ev);

	if (ev == NULL)
		return;
	ev->type = EVENT_FAILED;
	memcpy(ev->vm, vm, 16);
	ev->why = *why;
	push(n, ev);
}

void
news_damaged(struct uplink_news *n, const struct sender_damage *d)
{
	struct uplink_event *ev = lc_alloc(sizeof *ev);

	if (ev == NULL)
		return;
	ev->type = EVENT_DAMAGED;
	ev->damage = *d;
	push(n, ev);
}

void
news_roomier(struct uplink_news *n)
{
	struct uplink_event *ev = lc_alloc(sizeof *ev);

	if (ev == NULL)
		return;
	ev->type = EVENT_ROOM;
	push(n, ev);
}

static void
tell(const struct uplink_events *to, const struct uplink_event *ev)
{
	switch (ev->type) {
	case EVENT_COMMITTED:
		if (to->has != NULL && ev->at.counter > 0)
			to->has(to->arg, &ev->at, 1, false);
		if (to->committed != NULL)
			to->committed(to->arg, &ev->point, ev->wall_ns);
		break;
	case EVENT_FAILED:
		if (to->failed != NULL)
			to->failed(to->arg, ev->vm, &ev->why);
		break;
	case EVENT_HEADS:
		if (to->has != NULL)
			to->has(to->arg, (const struct witness_point *)(const void *)ev->heads.p,
			        ev->heads.n / sizeof(struct witness_point), true);
		break;
	case EVENT_ROOM:
		if (to->roomier != NULL)
			to->roomier(to->arg);
		break;
	case EVENT_DAMAGED:
		if (to->damaged != NULL)
			to->damaged(to->arg, &ev->damage);
		break;
	}
}

void
news_tell(struct uplink_news *n, const struct uplink_events *to)
{
	struct uplink_event_list list = STAILQ_HEAD_INITIALIZER(list);
	struct uplink_event *ev;

	(void)pthread_mutex_lock(&n->lock);
	STAILQ_CONCAT(&list, &n->list);
	(void)pthread_mutex_unlock(&n->lock);
	while ((ev = STAILQ_FIRST(&list)) != NULL) {
		STAILQ_REMOVE_HEAD(&list, entry);
		tell(to, ev);
		lc_buf_free(&ev->entry_bytes);
		lc_buf_free(&ev->heads);
		lc_free(ev);
	}
}

/**
 * uplink_news: what a session's sender tells on a worker, kept for the loop, which passes it on in
 * the same order.
 *
 * What there is no memory for is not told; for each the next session, or look, tells again.
 */
#ifndef LOCUM_UPLINK_NEWS_H
#define LOCUM_UPLINK_NEWS_H

#include <pthread.h>
#include <stdint.h>
#include <sys/queue.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

struct sender_damage;
struct transfer_point;
struct uplink_events;
struct uplink_event;
struct witness_point;

STAILQ_HEAD(uplink_event_list, uplink_event);

struct uplink_news {
	pthread_mutex_t lock; /* the list */
	struct uplink_event_list list;
};

/** news_init(n): nothing is told. */
void news_init(struct uplink_news *n);
/** news_done(n): after the last news_tell(). */
void news_done(struct uplink_news *n);

/* On a worker; see uplink_events. */

/** news_heads(n, heads): of struct witness_point; taken, unless there is no memory. */
void news_heads(struct uplink_news *n, struct lc_buf *heads);
/** news_committed(n, at, p, wall_ns): at->counter 0: it is not known what that point is. */
void news_committed(struct uplink_news *n, const struct witness_point *at,
                    const struct transfer_point *p, int64_t wall_ns);
void news_failed(struct uplink_news *n, const uint8_t vm[16], const struct lc_err *why);
void news_damaged(struct uplink_news *n, const struct sender_damage *d);
void news_roomier(struct uplink_news *n);

/** news_tell(n, to): pass on what has come; on the loop. */
void news_tell(struct uplink_news *n, const struct uplink_events *to);

#endif

/**
 * room: how much may be stored before the spool's budget is used up, for all points that are being
 * made together.
 *
 * What is sent makes room, also of points that are not complete: their contents go ahead, and what
 * all replicas have is dropped.  First points, which can end their pass and wait, leave a part to
 * the others, which are small and have a goal.
 *
 * Thread: loop.
 */
#ifndef LOCUM_ROOM_H
#define LOCUM_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/backup.h"

struct capture_pool;
struct sites;
struct spool;

struct room {                /* begins as zeros but for the first ones, then room_init() */
	struct spool *spool; /* NULL: without limit */
	const struct sites *sites;
	const struct capture_pool *pool;
	int64_t patience_ns;    /* a replica may be away for so long; 0: for ever */
	struct backup_room ops; /* for backup_opts */
	uint64_t sent, bytes;   /* as of when something moved last ... */
	int64_t since_ns;       /* ... and when that was */
	int64_t away_ns;        /* since when a replica is; 0: all are there */
	uint64_t beyond;        /* bytes that it may hold though that is over its budget; 0: none */
};

/** room_init(r): fills ops. */
void room_init(struct room *r);
/**
 * room_left(r, since_ns, first):
 * Bytes for points that begin or go on; 0: it is to wait.  since_ns, unless 0: it had used up what
 * there was by then (monotonic): until the spool has been looked at since.  Where nothing moves
 * though all replicas are there, it is not they that could make room: then it goes on in small
 * steps, over the budget.
 */
uint64_t room_left(struct room *r, int64_t since_ns, bool first);

#endif

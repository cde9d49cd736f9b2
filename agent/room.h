/**
 * room: how much a first point may store while the spool is near its budget.
 *
 * What is sent makes room, also of points that are not complete: their contents go ahead, and what
 * all replicas have is dropped.
 *
 * Thread: loop.
 */
#ifndef LOCUM_ROOM_H
#define LOCUM_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct sites;
struct spool;

struct room {                 /* begins as zeros */
	uint64_t sent, bytes; /* as of when something moved last ... */
	int64_t since_ns;     /* ... and when that was */
};

/**
 * room_left(r, spool, sites, n, since_ns):
 * For each of n points that are being made; UINT64_MAX: the store has no limit.  since_ns, unless
 * 0: it is to go on, having used up what there was by then (monotonic): 0: it is to wait, until the
 * spool has been looked at since, too.  Where nothing moves though all replicas are there, it is
 * not they that could make room: then it goes on in small steps.
 */
uint64_t room_left(struct room *r, struct spool *spool, struct sites *sites, uint64_t n,
                   int64_t since_ns);

#endif

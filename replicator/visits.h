/**
 * visits: when a host came by last that is not connected all the time: one whose points are sent by
 * commands (cron: `locum backup --to`), and how often it does.
 *
 * It is in <dir>/visits/<key> of the replica's folder; a file that can't be read is as good as
 * none.  Times are of the wall clock.
 */
#ifndef LOCUM_VISITS_H
#define LOCUM_VISITS_H

#include <stdbool.h>
#include <stdint.h>

#include "replicator/channel.h"
#include "store/base/errors.h"

struct visits {
	int64_t last_ns;  /* when a command had brought points last; 0: never */
	int64_t usual_ns; /* from one to the next: the longest of late, but no more than four times
	                     what it was before; 0: not known */
	int64_t agent_ns; /* when an agent was connected last; 0: never */
};

/** visits_command(v, now_ns): one has brought points. */
void visits_command(struct visits *v, int64_t now_ns);
/** visits_agent(v, now_ns): an agent is connected, or was until now. */
void visits_agent(struct visits *v, int64_t now_ns);
/** visits_by_command(v, now_ns): it is a host that comes by: it has, and had no agent for a week.
 */
bool visits_by_command(const struct visits *v, int64_t now_ns);
/** visits_late(v, now_ns): such a one is to have come again by now: twice as long as usual has
 * passed; a day and two hours, where what is usual is not known. */
bool visits_late(const struct visits *v, int64_t now_ns);
/** visits_load(dir, key, out): zeros where nothing is known. */
void visits_load(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct visits *out);
/** visits_save(dir, key, v, e): durable, on return of 0. */
int visits_save(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], const struct visits *v,
                struct lc_err *e);

#endif

/**
 * schedule: when the next cycle of a VM begins, and how old its safe state is.  Pure: times come as
 * arguments.
 */
#ifndef LOCUM_SCHEDULE_H
#define LOCUM_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#define SCHEDULE_HOURS 24u

struct schedule { /* zero-initialised, then schedule_init() */
	int64_t goal_ns;
	int64_t due_ns;    /* monotonic: the next cycle begins */
	int64_t begun_ns;  /* monotonic: the last one did */
	int64_t delay_ns;  /* from the instant of a point until it is safe: a moving average, on the
	                      high side */
	unsigned failures; /* in a row */
	int64_t safe_ns;   /* wall clock: the instant that the newest safe state shows; 0: none */
	int64_t seen_ns;   /* wall clock: when it was watched last */
	/* The worst lag of each of the last hours. */
	int64_t worst[SCHEDULE_HOURS];
	int64_t hour; /* of worst[hour % SCHEDULE_HOURS] */
	bool late;    /* the goal is missed */
};

/** schedule_init(s, goal_ns, now_ns, i, n): VM i of n: the first cycles are spread. */
void schedule_init(struct schedule *s, int64_t goal_ns, int64_t now_ns, unsigned i, unsigned n);
/** schedule_keep(s, was): its lags of before stay, and how long its points were on their way; its
 * next cycle begins no later than it would have. */
void schedule_keep(struct schedule *s, const struct schedule *was);
/** schedule_begin(s, now_ns): a cycle begins. */
void schedule_begin(struct schedule *s, int64_t now_ns);
/** schedule_done(s, now_ns, ok): it is over; sets due_ns. */
void schedule_done(struct schedule *s, int64_t now_ns, bool ok);
/** schedule_safe(s, instant_ns, wall_ns): the state of that instant is safe since now. */
void schedule_safe(struct schedule *s, int64_t instant_ns, int64_t wall_ns);
/** schedule_unsafe(s, instant_ns): what was safe is not: only the state of that instant is; 0:
 * none. */
void schedule_unsafe(struct schedule *s, int64_t instant_ns);
/** schedule_lag(s, wall_ns): how old the newest safe state is; -1: there is none. */
int64_t schedule_lag(const struct schedule *s, int64_t wall_ns);
/**
 * schedule_watch(s, wall_ns):
 * Keep the worst lag of the hour; to be called often: a clock that was set back is seen here.
 * Returns whether `late` changed.
 */
bool schedule_watch(struct schedule *s, int64_t wall_ns);
/** schedule_worst(s, wall_ns): the worst lag of 24 hours. */
int64_t schedule_worst(const struct schedule *s, int64_t wall_ns);

#endif

/**
 * alarm: whether a condition is told: when it has begun, and when it has ended.  Pure: times come
 * as arguments (monotonic).
 *
 *         raw > is for rise_ns                 raw = OK for fall_ns
 *     OK ──────────────────────► NEAR, BAD ──────────────────────────► OK
 *                                  └──► BAD, likewise; never from BAD to NEAR
 *
 * What comes and goes within rise_ns is not told, and what is told ends only once it has stayed
 * away: a condition that flutters is one condition.
 */
#ifndef LOCUM_ALARM_H
#define LOCUM_ALARM_H

#include <stdbool.h>
#include <stdint.h>

enum alarm_level {
	ALARM_UNKNOWN = -1, /* as an observation: leaves all as it is */
	ALARM_OK = 0,
	ALARM_NEAR,
	ALARM_BAD
};

struct alarm { /* zero-initialised: OK */
	enum alarm_level is;
	bool rising, falling;
	int64_t rising_ns, falling_ns; /* since then raw > is; raw = OK while is > OK */
};

/** alarm_observe(a, raw, rise_ns, fall_ns, now_ns): returns whether a->is changed. */
bool alarm_observe(struct alarm *a, enum alarm_level raw, int64_t rise_ns, int64_t fall_ns,
                   int64_t now_ns);

struct alarm_rpo {
	int64_t goal_ns;
	int64_t lag_ns;  /* how old the newest safe state is; < 0: there is none */
	int64_t age_ns;  /* for how long it has been protected by this process */
	bool behind;     /* points of it wait for a replica */
	int64_t left_ns; /* until the next state is safe, as things go; INT64_MAX: it is not on its
	                    way */
};
/**
 * alarm_rpo(x):
 * What is to be said of a goal.  NEAR: over 80% of it, and the next safe state is not expected in
 * time.  The lag of a VM that does well comes near its goal each time, since its cycles are
 * as long as the goal allows: over 80% alone says nothing.
 */
enum alarm_level alarm_rpo(const struct alarm_rpo *x);
/** alarm_rpo_fall_ns(goal_ns): how long a goal has to be kept for that to be told. */
int64_t alarm_rpo_fall_ns(int64_t goal_ns);

#endif

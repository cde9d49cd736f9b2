#include "agent/alarm.h"
#include "store/base/clock.h"

#define CONNECT_NS (30 * LC_NS_PER_S) /* then a replica that is there is connected again */
#define RPO_FALL_MAX_NS (60 * LC_NS_PER_S)

bool
alarm_observe(struct alarm *a, enum alarm_level raw, int64_t rise_ns, int64_t fall_ns,
              int64_t now_ns)
{
	if (raw == ALARM_UNKNOWN)
		return false;
	if (raw <= a->is)
		a->rising = false;
	else if (!a->rising)
		a->rising_ns = now_ns;
	a->rising = raw > a->is;
	if (raw != ALARM_OK || a->is == ALARM_OK)
		a->falling = false;
	else if (!a->falling) {
		a->falling = true;
		a->falling_ns = now_ns;
	}
	if (a->rising && now_ns - a->rising_ns >= rise_ns)
		a->is = raw;
	else if (a->falling && now_ns - a->falling_ns >= fall_ns)
		a->is = ALARM_OK;
	else
		return false;
	a->rising = a->falling = false;
	return true;
}

enum alarm_level
alarm_rpo(const struct alarm_rpo *x)
{
	int64_t lag = x->lag_ns < 0 ? x->age_ns : x->lag_ns;
	int64_t left = x->left_ns < x->goal_ns / 16 ? x->goal_ns / 16 : x->left_ns;

	if (lag <= x->goal_ns / 5 * 4)
		return ALARM_OK;
	if (lag <= x->goal_ns && left <= x->goal_ns - lag)
		return ALARM_OK;
	/* What was not safe before it began is nobody's fault now; points that wait are, where the
	 * replica does not come for them. */
	if (x->age_ns < (x->behind && x->goal_ns > CONNECT_NS ? CONNECT_NS : x->goal_ns))
		return ALARM_UNKNOWN;
	return lag > x->goal_ns ? ALARM_BAD : ALARM_NEAR;
}

int64_t
alarm_rpo_fall_ns(int64_t goal_ns)
{
	return goal_ns < RPO_FALL_MAX_NS ? goal_ns : RPO_FALL_MAX_NS;
}

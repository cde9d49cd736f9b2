#include <string.h>

#include "agent/schedule.h"
#include "store/base/clock.h"

#define PAUSE_MIN_NS \
	(200 * LC_NS_PER_MS) /* between two cycles of a VM: others want to run, too \
	                                   */
#define RETRY_MAX_NS (60 * LC_NS_PER_S)
#define HOUR_NS (3600 * LC_NS_PER_S)
#define SET_BACK_NS (100 * LC_NS_PER_MS)

void
schedule_init(struct schedule *s, int64_t goal_ns, int64_t now_ns, unsigned i, unsigned n)
{
	*s = (struct schedule){.goal_ns = goal_ns};
	s->due_ns = now_ns + (n == 0 ? 0 : goal_ns / 2 / (int64_t)n * (int64_t)i);
}

void
schedule_keep(struct schedule *s, const struct schedule *was)
{
	s->safe_ns = was->safe_ns;
	s->seen_ns = was->seen_ns;
	s->hour = was->hour;
	s->late = was->late;
	memcpy(s->worst, was->worst, sizeof s->worst);
	if (was->delay_ns < s->goal_ns)
		s->delay_ns = was->delay_ns;
	if (was->due_ns < s->due_ns) /* else who begins anew often enough puts it off for ever */
		s->due_ns = was->due_ns;
}

void
schedule_begin(struct schedule *s, int64_t now_ns)
{
	s->begun_ns = now_ns;
}

/* The state of a cycle is replaced when the next one is safe: interval and delay together are to
 * stay below the goal, with some room. */
static int64_t
interval(const struct schedule *s)
{
	int64_t room = s->goal_ns / 8;

	return s->goal_ns - room - s->delay_ns;
}

static int64_t
backoff(const struct schedule *s)
{
	unsigned shift = s->failures < 8 ? s->failures : 8;
	int64_t wait = (s->goal_ns < LC_NS_PER_S ? LC_NS_PER_S : s->goal_ns) / 2 << shift;
	int64_t max = s->goal_ns > RETRY_MAX_NS ? s->goal_ns : RETRY_MAX_NS;

	return wait < max ? wait : max;
}

void
schedule_done(struct schedule *s, int64_t now_ns, bool ok)
{
	s->failures = ok ? 0 : s->failures + 1;
	s->due_ns = ok ? s->begun_ns + interval(s) : now_ns + backoff(s);
	if (s->due_ns < now_ns + PAUSE_MIN_NS)
		s->due_ns = now_ns + PAUSE_MIN_NS;
}

void
schedule_safe(struct schedule *s, int64_t instant_ns, int64_t wall_ns)
{
	int64_t delay = wall_ns - instant_ns;

	if (instant_ns <= s->safe_ns)
		return;
	s->safe_ns = instant_ns;
	if (delay < 0 || delay > s->goal_ns * 4) /* a clock that was set, a link that was down */
		return;
	/* Up at once, down slowly. */
	s->delay_ns = delay > s->delay_ns ? delay : s->delay_ns - (s->delay_ns - delay) / 8;
}

void
schedule_unsafe(struct schedule *s, int64_t instant_ns)
{
	s->safe_ns = instant_ns;
}

int64_t
schedule_lag(const struct schedule *s, int64_t wall_ns)
{
	if (s->safe_ns == 0)
		return -1;
	return wall_ns > s->safe_ns ? wall_ns - s->safe_ns : 0;
}

/* A clock that was set back must not make what is safe look younger: it ages on from what it was.
 */
static void
follow_clock(struct schedule *s, int64_t wall_ns)
{
	if (s->seen_ns - wall_ns > SET_BACK_NS && s->safe_ns != 0)
		s->safe_ns -= s->seen_ns - wall_ns;
	s->seen_ns = wall_ns;
}

/* Where the worst lag of an hour is; hours before 1970 have places, too. */
static size_t
place_of(int64_t hour)
{
	const int64_t n = (int64_t)SCHEDULE_HOURS;

	return (size_t)((hour % n + n) % n);
}

/* What was watched is of the last hours still: it is to leave as they pass, not when the clock has
 * come where it was, which may be in years. */
static void
move_hours(struct schedule *s, int64_t hour)
{
	int64_t was[SCHEDULE_HOURS];
	unsigned i;

	memcpy(was, s->worst, sizeof was);
	for (i = 0; i < SCHEDULE_HOURS; i++)
		s->worst[place_of(hour - i)] = was[place_of(s->hour - i)];
	s->hour = hour;
}

bool
schedule_watch(struct schedule *s, int64_t wall_ns)
{
	int64_t lag, hour = wall_ns / HOUR_NS;
	bool late, changed;

	follow_clock(s, wall_ns);
	lag = schedule_lag(s, wall_ns);
	late = lag < 0 || lag > s->goal_ns;
	changed = late != s->late;
	if (hour > s->hour + (int64_t)SCHEDULE_HOURS)
		s->hour = hour - (int64_t)SCHEDULE_HOURS;
	else if (hour < s->hour)
		move_hours(s, hour);
	while (s->hour < hour)
		s->worst[place_of(++s->hour)] = 0;
	if (lag > s->worst[place_of(hour)])
		s->worst[place_of(hour)] = lag;
	s->late = late;
	return changed;
}

int64_t
schedule_worst(const struct schedule *s, int64_t wall_ns)
{
	int64_t worst = 0, age = wall_ns / HOUR_NS - s->hour;
	unsigned i;

	/* Nothing was watched meanwhile: what is older than a day is not shown. */
	for (i = 0; i < SCHEDULE_HOURS && age + (int64_t)i < (int64_t)SCHEDULE_HOURS; i++) {
		int64_t h = s->worst[place_of(s->hour - i)];

		worst = h > worst ? h : worst;
	}
	return worst;
}

#include <stddef.h>

#include "replicator/flight.h"
#include "store/base/clock.h"

#define FLIGHT_MIN (UINT64_C(1) << 20)
#define FLIGHT_LEAST (UINT64_C(128) << 10) /* the minimum where there is a limit of ours */
#define WAIT_NS (250 * LC_NS_PER_MS)
#define PERIOD_NS (100 * LC_NS_PER_MS) /* of one look at the rate */

static void
set_limit(struct flight *f, double flight)
{
	double least = (double)FLIGHT_MIN, most = (double)f->window;

	if (f->rate > 0) {
		double moment = (double)f->rate * (double)(f->trip_ns + WAIT_NS) / 1e9;

		least = moment > least ? least : moment;
		least = least < (double)FLIGHT_LEAST ? (double)FLIGHT_LEAST : least;
		moment = moment < least ? least : moment;
		most = moment < most ? moment : most;
	}
	flight = flight < least ? least : flight;
	f->limit = (uint64_t)(flight > most ? most : flight);
}

void
flight_init(struct flight *f, uint64_t window)
{
	*f = (struct flight){.window = window};
	set_limit(f, FLIGHT_MIN);
}

void
flight_rate(struct flight *f, uint64_t bytes_ps)
{
	if (f->rate == bytes_ps)
		return;
	f->rate = bytes_ps;
	set_limit(f, (double)f->limit);
}

uint64_t
flight_bytes(const struct flight *f)
{
	return f->sent - f->taken;
}

bool
flight_full(struct flight *f)
{
	if (flight_bytes(f) < f->limit)
		return false;
	f->limited = true;
	return true;
}

void
flight_sent(struct flight *f, uint64_t n)
{
	if (flight_bytes(f) == 0) {
		f->mark_ns = clock_mono_ns();
		f->mark = f->sent + n;
	}
	f->sent += n;
}

/* From how fast it takes, how much may be on the way: what the wire holds, and a moment's worth. */
void
flight_taken(struct flight *f, uint64_t total)
{
	int64_t now = clock_mono_ns(), trip = now - f->mark_ns, took = now - f->since_ns;
	uint64_t best = 0, bytes;
	size_t i;

	f->taken = total;
	if (f->mark_ns != 0 && f->taken >= f->mark) {
		if (f->trip_ns == 0 || trip < f->trip_ns)
			f->trip_ns = trip;
		f->mark_ns = 0;
	}
	if (took < PERIOD_NS)
		return;
	bytes = f->taken - f->at;
	f->since_ns = now;
	f->at = f->taken;
	if (f->limited && took < 10 * PERIOD_NS) {
		f->rates[f->next++ % FLIGHT_RATES] = (uint64_t)((double)bytes * 1e9 / (double)took);
		for (i = 0; i < FLIGHT_RATES; i++)
			best = f->rates[i] > best ? f->rates[i] : best;
		set_limit(f, (double)best * (double)(f->trip_ns + WAIT_NS) / 1e9);
	}
	f->limited = false;
}

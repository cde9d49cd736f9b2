/**
 * meter: how fast something grows, as of the last ten seconds.
 *
 * Whoever shows it notes what it has come to now and then, once a second or so; more often is no
 * harm.  Pure.
 */
#ifndef LOCUM_METER_H
#define LOCUM_METER_H

#include <stdint.h>

#define METER_NOTES 11u

struct meter {
	struct {
		int64_t ns;
		uint64_t total;
	} notes[METER_NOTES]; /* in a ring, at least METER_GAP_NS from each other */
	unsigned n, next;
};

/** meter_note(m, now_ns, total): it is that by now, on the monotonic clock.  It never falls. */
void meter_note(struct meter *m, int64_t now_ns, uint64_t total);
/** meter_rate(m, now_ns): a second; 0 where nothing is known yet. */
uint64_t meter_rate(const struct meter *m, int64_t now_ns);

#endif

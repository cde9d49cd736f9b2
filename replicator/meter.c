#include "replicator/meter.h"
#include "store/base/clock.h"

#define METER_GAP_NS (9 * LC_NS_PER_S / 10)
#define METER_SPAN_NS (10 * LC_NS_PER_S)

void
meter_note(struct meter *m, int64_t now_ns, uint64_t total)
{
	unsigned last = (m->next + METER_NOTES - 1) % METER_NOTES;

	if (m->n > 0 && now_ns - m->notes[last].ns < METER_GAP_NS)
		return;
	m->notes[m->next].ns = now_ns;
	m->notes[m->next].total = total;
	m->next = (m->next + 1) % METER_NOTES;
	m->n += m->n < METER_NOTES;
}

uint64_t
meter_rate(const struct meter *m, int64_t now_ns)
{
	unsigned i, last = (m->next + METER_NOTES - 1) % METER_NOTES;

	for (i = m->n; i > 1; i--) { /* from the oldest on */
		unsigned at = (m->next + METER_NOTES - i) % METER_NOTES;
		int64_t ns = m->notes[last].ns - m->notes[at].ns;
		uint64_t grown = m->notes[last].total - m->notes[at].total;

		if (now_ns - m->notes[at].ns <= METER_SPAN_NS + METER_GAP_NS && ns > 0)
			return (uint64_t)((double)grown * (double)LC_NS_PER_S / (double)ns);
	}
	return 0;
}

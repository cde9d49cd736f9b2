/**
 * flight: how many bytes of chunks may be on the way to a replica at once.
 *
 * What is on the way fills the wire and waits for a moment, not more: a small point of another line
 * goes behind it.
 */
#ifndef LOCUM_FLIGHT_H
#define LOCUM_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#define FLIGHT_RATES 8u /* the best of so many counts */

struct flight {
	uint64_t window; /* the most; the other side's */
	uint64_t limit;
	uint64_t rate;        /* a limit of ours, bytes a second; 0: there is none */
	uint64_t sent, taken; /* bytes so far */
	bool limited;         /* it held us up in this period */
	int64_t since_ns;     /* of this period */
	uint64_t at;          /* bytes taken when it began */
	/* Bytes a second, of the last periods in which it held us up. */
	uint64_t rates[FLIGHT_RATES];
	unsigned next;
	int64_t trip_ns; /* the shortest time from a chunk until it was taken; 0: unknown */
	int64_t mark_ns; /* 0, or when a chunk was sent with nothing before it on the way ... */
	uint64_t mark;   /* ... up to this byte */
};

void flight_init(struct flight *f, uint64_t window);
/** flight_rate(f, bytes_ps): a limit of ours; 0: none. */
void flight_rate(struct flight *f, uint64_t bytes_ps);
uint64_t flight_bytes(const struct flight *f);
/** flight_full(f): nothing more may go for now. */
bool flight_full(struct flight *f);
void flight_sent(struct flight *f, uint64_t n);
/** flight_taken(f, total): the other side has taken so many bytes by now. */
void flight_taken(struct flight *f, uint64_t total);

#endif

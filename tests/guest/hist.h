/*
 * hist: a histogram of latencies in microseconds, with 3% resolution and no
 * allocation, so that it can be kept for hours in a guest of 128 MiB.
 */
#ifndef TESTS_GUEST_HIST_H
#define TESTS_GUEST_HIST_H

#include <stdint.h>

#define HIST_BUCKETS (32U * 33U) /* 32 per power of two, up to 2^37 us = 38 h. */

struct hist {
	uint64_t n;
	uint64_t max_us;
	uint32_t bucket[HIST_BUCKETS];
};

/** hist_reset(h): forget everything. */
void hist_reset(struct hist *h);

/** hist_add(h, us): count one latency; beyond the last bucket it only counts for max_us. */
void hist_add(struct hist *h, uint64_t us);

/** hist_at(h, permille): the latency in us below which permille/1000 of all lie; 0 if empty. */
uint64_t hist_at(const struct hist *h, unsigned permille);

#endif

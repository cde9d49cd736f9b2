/* hist: see hist.h. */
#include <stddef.h>
#include <string.h>

#include "hist.h"

void
hist_reset(struct hist *h)
{
	memset(h, 0, sizeof(*h));
}

/*
 * Below 32 us one bucket per us, then 32 buckets per power of two: bucket
 * numbers go on without a jump where the exponent grows.
 */
static size_t
bucket_of(uint64_t us)
{
	unsigned shift;
	size_t i;

	if (us < 32)
		return (size_t)us;
	shift = (unsigned)(63 - __builtin_clzll(us)) - 5;
	i = (size_t)shift * 32 + (size_t)(us >> shift);
	return i < HIST_BUCKETS ? i : HIST_BUCKETS - 1;
}

/* The largest latency that goes into bucket i. */
static uint64_t
top_of(size_t i)
{
	uint64_t shift;

	if (i < 64)
		return i;
	shift = i / 32 - 1;
	return ((i % 32 + 32 + 1) << shift) - 1;
}

void
hist_add(struct hist *h, uint64_t us)
{
	h->n++;
	if (us > h->max_us)
		h->max_us = us;
	h->bucket[bucket_of(us)]++;
}

uint64_t
hist_at(const struct hist *h, unsigned permille)
{
	uint64_t want = (h->n * permille + 999) / 1000;
	uint64_t seen = 0;
	uint64_t us;
	size_t i;

	if (h->n == 0)
		return 0;
	for (i = 0; i < HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen >= want && seen > 0)
			break;
	}
	us = top_of(i);
	return us < h->max_us ? us : h->max_us;
}

/**
 * places: the failpoints that a run has passed (LOCUM_FAILPOINT_LOG).
 */
#ifndef LOCUM_TESTS_PLACES_H
#define LOCUM_TESTS_PLACES_H

#include <stddef.h>

struct place {
	char name[64];
	unsigned n; /* it is the n-th time, 1 is the first */
};

/** places_read(log, list, max): in their order; how many. */
size_t places_read(const char *log, struct place *list, size_t max);

#endif

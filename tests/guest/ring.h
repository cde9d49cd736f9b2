/*
 * The rings of records that seqw wrote before.
 */
#ifndef TESTS_GUEST_RING_H
#define TESTS_GUEST_RING_H

#include "seqw.h"

/**
 * ring_resume(w):
 * Read the ring of each disk, judge them as seqcheck would, and find the number
 * to go on with; what was found is said on the console.
 *
 * Returns false if there is nothing to write on.
 */
bool ring_resume(struct seqw *w);

#endif

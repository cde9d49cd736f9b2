/*
 * seqw: the workload of the test guest.  See README.md for what it writes and
 * prints, seqw.c for its threads.
 */
#ifndef TESTS_GUEST_SEQW_H
#define TESTS_GUEST_SEQW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "churn.h"
#include "disk.h"
#include "hist.h"
#include "seqfmt.h"

struct seqw {
	struct disk disk[SEQFMT_MAX_DISKS];
	unsigned ndisks;
	uint64_t region_end[SEQFMT_MAX_DISKS];
	bool guest; /* Runs in the guest: poweroff is allowed, no end of its own. */
	uint64_t seed;
	uint64_t count; /* Stop after so many numbers; 0: never. */

	/* Where the sequence is; written by the sequence thread alone. */
	uint64_t next, epoch, prev_sum, run;
	_Atomic uint64_t last;       /* Newest completed number, SEQFMT_NONE: none. */
	_Atomic uint64_t load_done;  /* Random writes completed in this run. */
	_Atomic uint64_t pending_ns; /* Start of the write in flight (monotonic), 0: none. */

	_Atomic uint64_t load_KiBps;
	_Atomic uint64_t delay_us;
	_Atomic uint64_t errors; /* Failed writes, of both kinds. */
	_Atomic uint64_t stalls; /* Sequence writes of more than a second. */
	atomic_bool done;        /* count was reached. */

	/* The gate at which both writers stop between two writes. */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool paused;
	unsigned workers, parked;

	struct hist status; /* Since the last status line; under lock. */
	struct hist lat;    /* Since the last SEQ LAT; under lock. */

	struct churn churn;
	pthread_mutex_t command_lock; /* One command at a time, from whatever channel. */
};

/**
 * seqw_pause(w):
 * Stop both writers between two writes.
 *
 * Returns 0, or ETIMEDOUT if a write has not ended after 30 s; the gate then
 * stays closed.
 */
int seqw_pause(struct seqw *w);

/** seqw_resume(w): open the gate again. */
void seqw_resume(struct seqw *w);

/**
 * seqw_lat(w, out, size):
 * The latency histogram since the last call as "n=.. p50=.. p99=.. max=..us",
 * and begin a new one.
 */
void seqw_lat(struct seqw *w, char *out, size_t size);

/** seqw_now_ns(): monotonic clock. */
uint64_t seqw_now_ns(void);

#endif

/*
 * churn: keeps an ext4 busy with small metadata operations, so that a restore
 * point always finds a journal with something in it.
 */
#ifndef TESTS_GUEST_CHURN_H
#define TESTS_GUEST_CHURN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct churn {
	const char *dev; /* Block device to mount, or NULL: dir is used as it is. */
	const char *dir;
	bool running;
	pthread_t thread;
	atomic_bool stop;
	_Atomic uint64_t ops;
	_Atomic uint64_t errors; /* Each one also prints SEQ FS-ERROR. */
	uint64_t rng;
};

/**
 * churn_start(c):
 * Mount, and start the thread.  c->dev, c->dir and c->rng are set by the
 * caller.
 *
 * Returns 0 or an errno value; EALREADY if it runs.
 */
int churn_start(struct churn *c);

/** churn_stop(c): end the thread and unmount.  Returns 0 or an errno value. */
int churn_stop(struct churn *c);

#endif

/**
 * progress: a live line on a terminal, nothing elsewhere.
 *
 * Several tasks (VMs) share the terminal; each has a line.  Redrawn at most 5 times a second.  What
 * log.h writes while they are shown does not tear them.
 */
#ifndef LOCUM_PROGRESS_H
#define LOCUM_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress;

struct progress_state {
	uint64_t done;    /* bytes looked at */
	uint64_t total;   /* bytes to look at; 0 = not known yet */
	uint64_t moved;   /* bytes stored or written */
	const char *note; /* static text: "reading", "committing"; or NULL */
};

/**
 * progress_new(label, enabled):
 * A line for a task.  NULL, which every call here takes, where it is not enabled, stderr is no
 * terminal that can move its cursor, or memory is short: a backup does not fail for want of a line.
 *
 * Thread: any.
 */
struct progress *progress_new(const char *label, bool enabled);
/**
 * progress_update(p, s):
 * Draw "web01  reading  1.2 GiB of 8.0 GiB  15%  96.0 MiB moved  410.3 MiB/s  17.0 s left".
 *
 * Thread: any, one at a time for the same p.
 */
void progress_update(struct progress *p, const struct progress_state *s);
/**
 * progress_free(p):
 * Take the line away; with the last one the terminal is as it was.  Before anything is printed on
 * stdout, for a terminal shows both.
 */
void progress_free(struct progress *p);

#endif

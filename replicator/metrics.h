/**
 * metrics: GET /metrics on an address of this machine, as text for Prometheus.
 *
 * The HTTP server lives in the loop: no thread.  Whoever connects costs little and for a bounded
 * time: there are few places, an answer ends its connection, one that says or takes nothing is
 * given up, one that dawdles too, and the oldest goes where a new one finds no place.  What is
 * rendered stands for a moment, so that asking often costs nothing either.
 *
 * Who reaches the address reads all that is there: names and figures, never content.
 */
#ifndef LOCUM_METRICS_H
#define LOCUM_METRICS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "store/base/errors.h"

struct uv_loop_s;
struct metrics;

#define METRICS_PORT "9633"
#define METRICS_CONNECTIONS 24u /* that stay; the next takes the place of the oldest */
#define METRICS_IDLE_S 10u      /* nothing was said or taken: given up */
#define METRICS_LIFE_MS 30000   /* of one connection */

struct metrics_opts {
	struct uv_loop_s *loop;
	/* "127.0.0.1:9633", "[::1]:9633", "*:9633"; a port alone is one of 127.0.0.1, a host alone
	 * gets METRICS_PORT, port 0 any that is free */
	const char *address;
	void (*render)(void *arg, FILE *f); /* write it, with the calls below */
	void *arg;
	unsigned idle_s; /* 0: METRICS_IDLE_S */
	int64_t life_ms; /* 0: METRICS_LIFE_MS */
};

/**
 * metrics_start(o, out, e):
 * Listen.
 *
 * Returns  0; LC_EINVAL: no such address; LC_EBUSY: it is taken; LC_EACCES, LC_EIO, LC_ENOMEM.
 * Thread:  loop; render() is called there.
 */
int metrics_start(const struct metrics_opts *o, struct metrics **out, struct lc_err *e);
/** metrics_port(m): the one it listens on. */
unsigned metrics_port(const struct metrics *m);
/** metrics_stop(m): end all connections.  m may be NULL; it is gone when the loop has closed its
 * handles, and render() is not called any more. */
void metrics_stop(struct metrics *m);

/* ---- the text ---- */

struct metrics_label {
	const char *name;
	const char *value; /* any text: what the format does not take is escaped or shown as '?' */
};

/** metrics_family(f, name, type, help): what its samples mean; they follow, all of them. */
void metrics_family(FILE *f, const char *name, const char *type, const char *help);
/** metrics_sample(f, name, labels, n, value): INFINITY and NAN are values, too. */
void metrics_sample(FILE *f, const char *name, const struct metrics_label *labels, size_t n,
                    double value);

#endif

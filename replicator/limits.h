/**
 * limits: what a replica allows one host, where that is another thing than what it allows each:
 * <dir>/limits/<key, hex>, a line "rate N" and one "max N".
 *
 * Thread: any; each call reads or writes a file.
 */
#ifndef LOCUM_LIMITS_H
#define LOCUM_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "replicator/channel.h"
#include "store/base/errors.h"

struct limits {
	bool rate_set, max_set;
	uint64_t rate; /* bytes a second that are read of it; 0: no limit */
	uint64_t max;  /* bytes that its store may take; 0: any number */
};

/** limits_read(dir, key, out, e): nothing is set where there is no file.  LC_ECORRUPT: it is not
 * understood. */
int limits_read(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct limits *out,
                struct lc_err *e);
/** limits_write(dir, key, l, e): nothing is set: the file goes.  Durable. */
int limits_write(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], const struct limits *l,
                 struct lc_err *e);

#endif

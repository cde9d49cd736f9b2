/**
 * witness: what a replica has acknowledged last, line by line, kept at the source.
 *
 * A replica can lose what it acknowledged without a word: its folder is put back to an older copy,
 * or somebody drops points there.  It then names an older newest point than the one remembered
 * here.  The memory is <key_dir>/<name>.witness; it counts for that replica's key alone, and a file
 * that can't be read is as good as none.
 *
 * It remembers the 1000 lines that got points last.
 *
 * Points of a line are told apart by their count, which only grows (point.h).
 */
#ifndef LOCUM_WITNESS_H
#define LOCUM_WITNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "replicator/identity.h"
#include "store/base/errors.h"
#include "store/point.h"

struct witness;

struct witness_point { /* the newest one of a line */
	uint8_t line[16], vm[16], id[16];
	uint64_t counter;          /* of the points of its line */
	int64_t source_ns;         /* the instant that it shows */
	char name[POINT_NAME_MAX]; /* of the VM */
};

/** witness_open(key_dir, peer, out, e): LC_ENOMEM; a file that is missing or wrong is empty. */
int witness_open(const char *key_dir, const struct peer *peer, struct witness **out,
                 struct lc_err *e);
/** witness_points(w, n): what it has acknowledged, as far as is known here: list[*n], borrowed. */
const struct witness_point *witness_points(const struct witness *w, size_t *n);
/** witness_note(w, p): the replica has p; kept unless it knows a newer one of that line. */
void witness_note(struct witness *w, const struct witness_point *p);
/**
 * witness_compare(w, there, n, lost, arg):
 * The replica says that these are its newest points: lost(arg, was, is) comes for each line of
 * which it has acknowledged a newer one; is: NULL where it has none.  What it has now is remembered
 * instead, so it is told once.  Returns how many there were.
 */
unsigned witness_compare(struct witness *w, const struct witness_point *there, size_t n,
                         void (*lost)(void *arg, const struct witness_point *was,
                                      const struct witness_point *is),
                         void *arg);
/** witness_lost_ns(w): wall clock: when it was found to have lost points last; 0: never. */
int64_t witness_lost_ns(const struct witness *w);
/** witness_save(w, e): write what changed.  Survives the process, not a power failure at once. */
int witness_save(struct witness *w, struct lc_err *e);
/** witness_free(w): without saving.  NULL is fine. */
void witness_free(struct witness *w);

#endif

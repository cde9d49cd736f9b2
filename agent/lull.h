/**
 * lull: a VM in which nothing happens.  What it looked like when its newest point was found to say
 * all of it, so that one glance tells that this still holds (hv_glance()), without making out once
 * more what the VM is.
 *
 * It forgets whenever a backup looks at the VM in full, and is told anew by one that finds nothing
 * different.
 */
#ifndef LOCUM_LULL_H
#define LOCUM_LULL_H

#include <stdbool.h>

#include "store/point.h"

struct hv;
struct hv_memo;
struct lull;
struct store;

/** lull_new(): of one VM; knows nothing yet.  NULL when out of memory. */
struct lull *lull_new(void);
/** lull_free(l): NULL is fine. */
void lull_free(struct lull *l);
/** lull_memo(l): for the target of that VM; the lull's. */
struct hv_memo *lull_memo(struct lull *l);
/** lull_known(l): whether a glance can tell anything. */
bool lull_known(const struct lull *l);
/** lull_forget(l): what it knew does not count any more. */
void lull_forget(struct lull *l);
/** lull_begin(l, hv, base): hv was prepared just now, and says nothing that base does not say; base
 * is copied.  What cannot be told at a glance it does not take. */
void lull_begin(struct lull *l, struct hv *hv, const struct point *base);
/**
 * lull_lasts(l, store):
 * Nothing is different in the VM: whether that point is its newest still, of the line that it is
 * on, and nothing is known of damage.  Blocks.
 */
bool lull_lasts(const struct lull *l, struct store *store);
/** lull_point(l): that point, without its texts; borrowed. */
const struct point *lull_point(const struct lull *l);

#endif

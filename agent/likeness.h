/**
 * likeness: whether the VM that answers is the one that the restore points of its name are of.
 *
 * A VM is known by its name in the configuration, and its points by the id that the store gave it
 * with the first of them.  Its UUID is a hint: where it says that something is another VM than it
 * is called, nothing is stored until somebody who knows has said `uuid =` in its section.
 */
#ifndef LOCUM_LIKENESS_H
#define LOCUM_LIKENESS_H

#include "store/base/errors.h"

struct definition;
struct point;
struct settings;
struct store;

/**
 * likeness_check(s, store, vm, base, def, e):
 * base: its newest point, or NULL; def: what it is now, or NULL.
 *
 * Returns  0; LC_EEXIST: another UUID than its points have, or, for a first point, one that the
 *          points of another VM have.  The message names both and the next step.
 */
int likeness_check(const struct settings *s, struct store *store, const char *vm,
                   const struct point *base, const struct definition *def, struct lc_err *e);

#endif

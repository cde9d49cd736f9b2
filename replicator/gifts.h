/**
 * gifts: VMs that an operator gave to another host of a shared store, and that it has yet to take.
 *
 *     <dir>/gifts/<VM id, hex>     to which host, of which store
 *
 * A gift is taken when that host connects next, by the process that has the store; the file goes
 * when the store says whose the VM is.
 *
 * Thread: any; each call reads and writes files.
 */
#ifndef LOCUM_GIFTS_H
#define LOCUM_GIFTS_H

#include <stdint.h>

#include "replicator/writers.h"
#include "store/base/errors.h"

struct store;

/** gifts_put(dir, vm, w, e): for that host; instead of any other.  Durable. */
int gifts_put(const char *dir, const uint8_t vm[16], const struct writer_entry *w,
              struct lc_err *e);
/** gifts_take(dir, w, s, given, arg, e): whatever there is for that host, in its store s; given(),
 * which may be NULL, comes for each VM.  Durable. */
int gifts_take(const char *dir, const struct writer_entry *w, struct store *s,
               void (*given)(void *arg, const uint8_t vm[16]), void *arg, struct lc_err *e);

#endif

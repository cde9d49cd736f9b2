/**
 * parts: the VMs of a store by whose they are (vouch.h), so that a copy keeps that.
 */
#ifndef LOCUM_REPLICATOR_PARTS_H
#define LOCUM_REPLICATOR_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/point.h"

struct store;

struct parts {
	struct lc_buf all; /* by writer */
};

/** parts_of(s, only, n, out, e): of those VMs, n = 0: of all.  Free with parts_done(), in every
 * case. */
int parts_of(struct store *s, const uint8_t (*only)[16], size_t n, struct parts *out,
             struct lc_err *e);
/**
 * parts_next(p, writer, vms, n):
 * The VMs of the writer with the next number that is not below *writer, which becomes that one's.
 * vms: n ids, the caller's to lc_free(); NULL: no memory.  Returns false where there is none.
 */
bool parts_next(const struct parts *p, unsigned *writer, uint8_t (**vms)[16], size_t *n);
void parts_done(struct parts *p);
/** parts_vm(s, vm, text): what to call a VM: its name, or, where the key is not here, the first
 * digits of its id. */
void parts_vm(struct store *s, const uint8_t vm[16], char text[POINT_NAME_MAX]);

#endif

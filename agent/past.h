/**
 * past: what an agent knew of its VMs before it began anew (other settings, the store lent), so
 * that nothing looks unsafe, or better than it was, only for that.
 *
 * Thread: the loop's.
 */
#ifndef LOCUM_PAST_H
#define LOCUM_PAST_H

#include <stddef.h>
#include <stdint.h>

#include "agent/schedule.h"

struct past;
struct protect;

struct past_vm {
	char *name;
	uint8_t line[16];
	int64_t began_ns;             /* it is looked after since then */
	int64_t instant_ns, fresh_ns; /* of its newest point here; until when that was still so */
	int64_t *durable_ns;          /* of each site */
	struct schedule schedule;
};

/** past_take(x): as all is; NULL: out of memory. */
struct past *past_take(const struct protect *x);
/** past_vms(p, n): all of them; none where p is NULL. */
const struct past_vm *past_vms(const struct past *p, size_t *n);
/** past_find(p, name): NULL: none, or p is NULL. */
const struct past_vm *past_find(const struct past *p, const char *name);
/** past_durable(p, vm, site): 0: not known. */
int64_t past_durable(const struct past *p, const struct past_vm *vm, const char *site);
void past_free(struct past *p);

#endif

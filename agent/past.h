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
#include "store/base/errors.h"

struct past;
struct protect;

struct past_vm {
	char *name;
	uint8_t line[16];
	int64_t began_ns;             /* it is looked after since then */
	int64_t instant_ns, fresh_ns; /* of its newest point here; until when that was still so */
	uint64_t points, failures;
	int64_t *durable_ns;    /* of each site ... */
	struct lc_err *refused; /* ... and why that did not take a point */
	struct schedule schedule;
};

/** past_take(x): as all is; NULL: out of memory. */
struct past *past_take(const struct protect *x);
/** past_vms(p, n): all of them; none where p is NULL. */
const struct past_vm *past_vms(const struct past *p, size_t *n);
/** past_find(p, name): NULL: none, or p is NULL. */
const struct past_vm *past_find(const struct past *p, const char *name);
/** past_site(p, vm, site, durable_ns, refused): what was known of it there; of a site that was not
 * there both stay as they are. */
void past_site(const struct past *p, const struct past_vm *vm, const char *site,
               int64_t *durable_ns, struct lc_err *refused);
void past_free(struct past *p);

#endif

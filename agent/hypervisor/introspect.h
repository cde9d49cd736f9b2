/**
 * introspect: the definition of a machine that runs, from what QEMU says of itself.
 *
 * Three batches of questions, so that it fits whatever sends them:
 *
 *     introspect_new ─► introspect_list ─(answers)─► introspect_listed ─►
 *                       introspect_cpu ─(answers)─► introspect_cpu_told ─►
 *                       introspect_ask ─(answers)─► introspect_told ─► introspect_free
 *
 * No question may fail a batch: what QEMU does not tell, or tells in a way that a definition does
 * not take, is listed as left out, with the reason.  So is every device that launch.c would not
 * make again.
 */
#ifndef LOCUM_INTROSPECT_H
#define LOCUM_INTROSPECT_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/hypervisor.h"
#include "store/base/errors.h"

struct json_t;
struct qmp_batch;
struct introspect;

struct introspect_disk { /* as the driver knows it; the pointers are borrowed until
	                    introspect_free() */
	const struct hv_disk *disk;
	const char *qdev; /* path of the device's object */
	const char *node; /* the image's own node, under any of ours and of others */
	bool part;        /* the disk is a part of that image */
};

/** introspect_new(disks, n): copies disks[n], at most HV_DISKS_MAX.  NULL when out of memory. */
struct introspect *introspect_new(const struct introspect_disk *disks, size_t n);
/** introspect_list(x, b): the first questions. */
void introspect_list(struct introspect *x, struct qmp_batch *b);
/** introspect_listed(x, b): their answers. */
void introspect_listed(struct introspect *x, const struct qmp_batch *b);
/** introspect_cpu(x, b), introspect_cpu_told(x, b): the second questions, and their answers. */
void introspect_cpu(struct introspect *x, struct qmp_batch *b);
void introspect_cpu_told(struct introspect *x, const struct qmp_batch *b);
/** introspect_ask(x, b): the third questions. */
void introspect_ask(struct introspect *x, struct qmp_batch *b);
/** introspect_told(x, b, def): fill *def, which definition_new() gave. */
void introspect_told(struct introspect *x, const struct qmp_batch *b, struct definition *def);
/** introspect_clock_ask(b), introspect_clock_local(reply): what the guest's clock shows, as the
 * first of another batch; whether a definition would say by it that it shows local time. */
void introspect_clock_ask(struct qmp_batch *b);
bool introspect_clock_local(const struct json_t *reply);
/** introspect_free(x): NULL is fine. */
void introspect_free(struct introspect *x);

#endif

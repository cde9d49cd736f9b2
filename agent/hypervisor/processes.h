/**
 * processes: the QEMUs that run on this host, as /proc shows them.
 *
 * For whoever wants to know what is there beside the VMs of the configuration.  Nothing is asked of
 * a QEMU, so one that hangs is listed like any other.
 */
#ifndef LOCUM_PROCESSES_H
#define LOCUM_PROCESSES_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/hypervisor/hypervisor.h"
#include "store/base/errors.h"

struct process {
	int pid;
	unsigned uid;
	char name[HV_NAME_MAX]; /* what it was started as (-name), or "" */
	char uuid[37];          /* in lower case, or "" */
	char monitor[108];      /* absolute path of its first QMP socket, or "" */
	bool held;              /* it has a monitor, but as a descriptor that its parent holds */
	char label[96];         /* confinement, "web01 (enforce)"; "" none or not known */
};

/**
 * processes_list(proc, out, n, e):
 * proc: folder of the kernel's process files, NULL = /proc.  In order of pid; free *out with
 * lc_free().  A process that can't be read, or ends meanwhile, is left out.
 */
int processes_list(const char *proc, struct process **out, size_t *n, struct lc_err *e);

#endif

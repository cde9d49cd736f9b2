/**
 * workload: a child that works on a store and may die anywhere, and what must be true afterwards.
 *
 * The child writes to a journal before and after each thing that it does; so the one who looks
 * later knows what was acknowledged.  What a point holds follows from VM and step alone.
 */
#ifndef LOCUM_TESTS_WORKLOAD_H
#define LOCUM_TESTS_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/vault.h"

#define WORKLOAD_VMS 2u
#define WORKLOAD_WINDOWS 24u

/** workload_disk(vm, step): what the disk of a VM holds at that step. */
struct vault_disk workload_disk(unsigned vm, unsigned step);
/**
 * workload_main(argc, argv):
 * The child: "init", "write <from> <steps>", "rebuild", "open".  Reads VAULT_TOP; a failure of a
 * backup or drop is written down, the store opened again and work goes on.  Returns the exit
 * status.
 */
int workload_main(int argc, char **argv);

/** Called by the child with each line of its journal, or NULL. */
extern void (*workload_on_note)(const char *line);

/** workload_start(v, mode, from, steps, failpoint, log): run the child; failpoint and log may be
 * NULL. */
int workload_start(const struct vault *v, const char *mode, unsigned from, unsigned steps,
                   const char *failpoint, const char *log);
/** workload_wait(pid): its exit status, or 128 + signal. */
int workload_wait(int pid);
/** workload_run(...): both. */
int workload_run(const struct vault *v, const char *mode, unsigned from, unsigned steps,
                 const char *failpoint, const char *log);

/**
 * workload_check(v, what):
 * Open the store as an owner would and compare with the journal: acknowledged points are there,
 * whole and verify; acknowledged drops are gone; what was under way is whole or not there; scrub
 * finds nothing.  Then the same with the catalog deleted, and by a reader.  Aborts with `what`
 * where it is not so.
 */
void workload_check(struct vault *v, const char *what);

#endif

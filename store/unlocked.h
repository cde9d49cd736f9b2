/**
 * unlocked: the keys of a domain, kept in the kernel for a while.
 *
 * A machine that holds no key of a store (a replica) is opened for booting and restoring once, with
 * the recovery code; what was opened (id key and data keys, as in a host's key file, never the
 * seed) lies in the kernel's keyring of this user (keyrings(7)) until it is locked, its time is
 * over, or the machine is started again.  There it is in no file and in no process, is never
 * swapped out, and ends at its time even if no process of ours lives then.  The user is root: no
 * other one gets at it.
 *
 *     "locum:<domain, hex>:<n>"    one key of type "user" for each 32,000 bytes, n from 0 on:
 *                                  u64 CLOCK_BOOTTIME at which it ends, in ns; the image
 * (keyring.h)
 *
 * The kernel counts its time by the wall clock, which may be set back: so the end is in it, too.
 *
 * Thread: any, one at a time.
 */
#ifndef LOCUM_UNLOCKED_H
#define LOCUM_UNLOCKED_H

#include <stddef.h>
#include <stdint.h>

#include "store/keyring.h"

/**
 * unlocked_put(k, for_ns, e):
 * Keep what k holds, in the place of what was kept of its domain.  A process that is killed
 * meanwhile leaves what there was before, or nothing.
 *
 * Returns  0; LC_ENOTSUP: this machine (a container) has no keyring for us; LC_ENOSPC: its quota.
 */
int unlocked_put(const struct keyring *k, int64_t for_ns, struct lc_err *e);
/** unlocked_get(domain, out, e): LC_ENOENT: none, or its time is over. */
int unlocked_get(const uint8_t domain[DOMAIN_ID_SIZE], struct keyring **out, struct lc_err *e);

struct unlocked {
	uint8_t domain[DOMAIN_ID_SIZE];
	int64_t left_ns;
};
/** unlocked_list(out, n, e): what is kept; free with lc_free(). */
int unlocked_list(struct unlocked **out, size_t *n, struct lc_err *e);
/** unlocked_drop(domain, e): forget it; the kernel wipes it.  Nothing there is fine. */
int unlocked_drop(const uint8_t domain[DOMAIN_ID_SIZE], struct lc_err *e);

#endif

/**
 * launch_accel: whether KVM carries ordinary guests on this host.  Private to launch*.c and
 * restore/domain.c.
 */
#ifndef LOCUM_LAUNCH_ACCEL_H
#define LOCUM_LAUNCH_ACCEL_H

#include <stdbool.h>
#include <stddef.h>

/**
 * launch_kvm_works(why, n):
 * /dev/kvm can be opened, makes a VM and offers its CPUs what every x86-64 guest expects.
 *
 * Returns  true, or false and in why[n] the reason.
 */
bool launch_kvm_works(char *why, size_t n);

#endif

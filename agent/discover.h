/**
 * discover: the VMs of the host that no section of locum.conf names.
 *
 * Where `libvirt` is set, every domain is a VM of the settings; a section [vm NAME] whose `domain`
 * (or, where it says neither that nor how else the VM is reached, whose name) is the domain's
 * stands for it.
 */
#ifndef LOCUM_DISCOVER_H
#define LOCUM_DISCOVER_H

#include "store/base/errors.h"

struct settings;

/** A domain that can't be a VM, and why not. */
typedef void discover_cb(void *arg, const char *domain, const char *state, const char *why);

/**
 * discover(s, left_out, arg, e):
 * Ask libvirt and add what is missing; nothing where `libvirt` is not set.
 * Blocks for as long as connect_timeout and command_timeout say.
 *
 * Returns    0, or why libvirt could not be asked.
 */
int discover(struct settings *s, discover_cb *left_out, void *arg, struct lc_err *e);

#endif

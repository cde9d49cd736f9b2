/**
 * launch_args: a definition as the command line of QEMU.  Private to the launch*.c files and their
 * tests.
 *
 * No text of a definition is ever part of an option's syntax: values are of harmless characters
 * (definition.h), paths and other free text go into JSON strings, get their commas doubled, or are
 * an argument by themselves.
 */
#ifndef LOCUM_LAUNCH_ARGS_H
#define LOCUM_LAUNCH_ARGS_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/hypervisor/launch.h"

struct launch_fds {              /* descriptors that QEMU inherits; -1 where there is none */
	int qmp, qmp2, qga;      /* listening sockets */
	int serial;              /* write only */
	int image[HV_DISKS_MAX]; /* same index as def->disks: read-write, where QEMU cannot open the
	                            path itself */
	int image_ro[HV_DISKS_MAX]; /* and once more read-only; alone of a kernel */
	int served;                 /* folder of the socket that overlays are served on */
	int tap[DEF_NICS_MAX];
};

struct launch_args {
	char **argv; /* owned, ended by NULL */
	size_t n, cap;
	bool failed; /* out of memory */
};

/** launch_fds_init(fds): all -1. */
void launch_fds_init(struct launch_fds *fds);
/**
 * launch_args_make(def, opts, accel, fds, out, e):
 * The command line for one accelerator ("kvm" or "tcg").  def has passed definition_check().
 *
 * Ownership: launch_args_free(out) in every case.
 */
int launch_args_make(const struct definition *def, const struct launch_opts *opts,
                     const char *accel, const struct launch_fds *fds, struct launch_args *out,
                     struct lc_err *e);
void launch_args_free(struct launch_args *a);
/** launch_image_path(def, opts, i): file behind disk i of def, NULL where there is none that may be
 * used. */
const char *launch_image_path(const struct definition *def, const struct launch_opts *opts,
                              size_t i);
/** launch_replacement(opts, name): what replaces the image of that disk, or NULL. */
const struct launch_disk *launch_replacement(const struct launch_opts *opts, const char *name);

#endif

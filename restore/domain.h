/**
 * domain: a restored VM as a domain of this host's libvirt.
 */
#ifndef LOCUM_RESTORE_DOMAIN_H
#define LOCUM_RESTORE_DOMAIN_H

#include <stddef.h>

#include "store/base/errors.h"

struct machine_file;
struct point;
struct settings;

struct domain_wanted {
	const struct settings *settings; /* whose `libvirt`, or qemu:///system */
	const struct point *point;
	const char *name; /* of the domain; NULL: the VM's */
};

/**
 * domain_may(w, e):
 * Whether it could be defined: libvirt answers, and nothing there has its name or UUID.
 *
 * Returns    0; LC_EEXIST; LC_ENOENT where the point does not say what machine it is; why libvirt
 * could not be asked.
 */
int domain_may(const struct domain_wanted *w, struct lc_err *e);
/**
 * domain_make(w, files, n, comment, e):
 * Define it; it is not started.  Under another name than the VM's it is another machine, with a
 * UUID and MAC addresses of its own.
 */
int domain_make(const struct domain_wanted *w, const struct machine_file *files, size_t n,
                const char *comment, struct lc_err *e);
/** domain_name(w), domain_uri(w): how it is called, and where. */
const char *domain_name(const struct domain_wanted *w);
const char *domain_uri(const struct domain_wanted *w);

#endif

/**
 * import: image files of a VM that ran elsewhere (Hyper-V, VMware, Virtual Server), as a VM that is
 * off: so that its exports become restore points of it, one after the other.
 *
 * Its disks are called sda, sdb ... in the order in which the files are given, whatever those are
 * called, so that the next export is compared with this one.  What else the machine was is not in
 * the files: a plain one is made up, and the points say so.
 */
#ifndef LOCUM_IMPORT_H
#define LOCUM_IMPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "store/base/errors.h"

struct definition;
struct settings;
struct store;

struct import_opts {
	const char *vm;           /* its name; NULL: that of the first file without its ending */
	const char *const *files; /* files[nfiles] */
	size_t nfiles;
	const char *format; /* of all of them, or NULL: by name and content */
	/* formats[nfiles]: somebody else has looked at the files, under their full paths, and
	 * nothing of them is opened here; or NULL */
	const char *const *formats;
};

/**
 * import_add(s, o, vm, e):
 * Put it among the VMs of the settings.  *vm is its name, the settings'.
 *
 * Returns  0; LC_EEXIST: there is a section of that name; LC_EINVAL: a format is not clear, an
 *          image would have other files opened, or the name is none; LC_ENOENT.
 */
int import_add(struct settings *s, const struct import_opts *o, const char **vm, struct lc_err *e);
/**
 * import_copy(s, o, out, vm, e):
 * The same, but in settings of its own, which borrow what s has; s does not know the VM.
 *
 * Returns  as import_add(); *out is then NULL, else import_free() it before s goes.
 */
int import_copy(const struct settings *s, const struct import_opts *o, struct settings **out,
                const char **vm, struct lc_err *e);
/** import_free(copy): NULL is fine. */
void import_free(struct settings *copy);
/** import_is(def): that of a VM that import_add() made; def may be NULL. */
bool import_is(const struct definition *def);
/** import_check(store, vm, e): LC_EEXIST where the points of that name are of a VM that ran here.
 */
int import_check(struct store *store, const char *vm, struct lc_err *e);

#endif

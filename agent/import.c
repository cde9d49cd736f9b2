#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/imageformat.h"
#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/settings.h"
#include "agent/import.h"
#include "store/base/memory.h"
#include "store/store.h"

#define MARK "machine" /* that was left out: tells imports from VMs that ran here */
#define MARK_WHY "imported from image files: all but the disks is made up"
#define FILES_MAX 26 /* sda to sdz */

static int
name_after(const char *file, char *dst, size_t n, struct lc_err *e)
{
	const char *base = strrchr(file, '/');
	size_t len;

	base = base == NULL ? file : base + 1;
	len = strcspn(base, ".");
	(void)snprintf(dst, n, "%.*s", (int)len, base);
	if (launch_check_name(dst, NULL) == 0)
		return 0;
	return lc_fail(e, LC_EINVAL, 0,
	               "%s: no name for a VM can be made of that; give one: locum backup NAME "
	               "--image ...",
	               file);
}

static int
add_disk(struct definition *def, size_t i, const char *file, const char *format, struct lc_err *e)
{
	const char *keys[] = {"bus", "format", "path", "boot"};
	const char *values[] = {"sata", format, NULL, i == 0 ? "1" : "0"};
	char name[8], path[PATH_MAX];
	size_t k;
	int rc = 0;

	(void)snprintf(name, sizeof name, "sd%c", (char)('a' + (int)i));
	if (realpath(file, path) == NULL)
		return lc_fail_errno(e, "%s", file);
	values[2] = path;
	if (format == NULL)
		rc = imageformat_probe(path, &values[1], e);
	if (rc == 0)
		rc = imageformat_check(path, values[1], e);
	for (k = 0; rc == 0 && k < sizeof keys / sizeof keys[0]; k++)
		rc = definition_set(def, "disk", name, keys[k], values[k], e);
	for (k = 0; rc == 0 && k < i; k++) {
		if (strcmp(def->disks[k].path, path) == 0)
			rc = lc_fail(e, LC_EINVAL, 0, "%s: given twice", file);
	}
	return rc;
}

int
import_add(struct settings *s, const struct import_opts *o, const char **vm, struct lc_err *e)
{
	struct definition *def = NULL;
	char name[HV_NAME_MAX];
	size_t i;
	int rc = 0;

	if (o->nfiles > FILES_MAX)
		return lc_fail(e, LC_EINVAL, 0, "more than %d images", FILES_MAX);
	if (o->format != NULL && !imageformat_known(o->format))
		return lc_fail(e, LC_EINVAL, 0,
		               "--image-format %s: raw, qcow2, vhdx, vmdk or vpc (.vhd)",
		               o->format);
	if (o->vm == NULL)
		rc = name_after(o->files[0], name, sizeof name, e);
	else if ((rc = launch_check_name(o->vm, e)) == 0)
		(void)snprintf(name, sizeof name, "%s", o->vm);
	if (rc != 0)
		return rc;
	if (settings_vm(s, name) != NULL) {
		return lc_fail(
		    e, LC_EEXIST, 0,
		    "%s: %s has a section [vm %s] already; import it under another name: "
		    "locum backup NAME --image ...",
		    name, s->origin == NULL ? "locum.conf" : s->origin, name);
	}
	def = definition_new();
	if (def == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", name);
	for (i = 0; rc == 0 && i < o->nfiles; i++)
		rc = add_disk(def, i, o->files[i], o->format, e);
	if (rc == 0)
		rc = definition_set(def, "machine", "", "memory", "2 GiB", e);
	if (rc == 0)
		rc = definition_set(def, "machine", "", "cpus", "2", e);
	definition_leave_out(def, MARK, MARK_WHY);
	if (rc == 0)
		return settings_add_vm(s, name, def, vm, e);
	lc_free(def);
	return rc;
}

static bool
is_import(const struct point *p)
{
	struct definition *def = NULL;
	bool yes = false;
	size_t i;

	if (p->definition == NULL || definition_decode("restore point", p->definition,
	                                               strlen(p->definition), &def, NULL) != 0)
		return false;
	for (i = 0; i < def->nleft_out; i++)
		yes = yes || strcmp(def->left_out[i].what, MARK) == 0;
	lc_free(def);
	return yes;
}

int
import_check(struct store *store, const char *vm, struct lc_err *e)
{
	struct point p = {.ndisks = 0};
	int rc = 0;

	if (store_find(store, vm, &p, NULL) == 0 && !is_import(&p))
		rc = lc_fail(e, LC_EEXIST, 0,
		             "%s: the restore points of that name are of a VM that was protected "
		             "here; import it under another name: locum backup NAME --image ...",
		             vm);
	point_done(&p);
	return rc;
}

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

/* The path, and the format, of which somebody has said that they will do. */
static int
take_word(const struct import_opts *o, size_t i, char path[PATH_MAX], const char **format,
          struct lc_err *e)
{
	*format = o->formats[i];
	if (o->files[i][0] != '/' || !imageformat_known(*format) ||
	    snprintf(path, PATH_MAX, "%s", o->files[i]) >= PATH_MAX)
		return lc_fail(e, LC_EINVAL, 0, "%s: no full path, or no format", o->files[i]);
	return 0;
}

static int
look_at(const struct import_opts *o, size_t i, char path[PATH_MAX], const char **format,
        struct lc_err *e)
{
	int rc = 0;

	if (realpath(o->files[i], path) == NULL)
		return lc_fail_errno(e, "%s", o->files[i]);
	*format = o->format;
	if (*format == NULL)
		rc = imageformat_probe(path, format, e);
	return rc != 0 ? rc : imageformat_check(path, *format, e);
}

static int
add_disk(struct definition *def, size_t i, const struct import_opts *o, struct lc_err *e)
{
	const char *keys[] = {"bus", "format", "path", "boot"};
	char name[8], path[PATH_MAX];
	const char *values[] = {"sata", NULL, path, i == 0 ? "1" : "0"};
	size_t k;
	int rc;

	(void)snprintf(name, sizeof name, "sd%c", (char)('a' + (int)i));
	rc = o->formats != NULL ? take_word(o, i, path, &values[1], e)
	                        : look_at(o, i, path, &values[1], e);
	for (k = 0; rc == 0 && k < sizeof keys / sizeof keys[0]; k++)
		rc = definition_set(def, "disk", name, keys[k], values[k], e);
	for (k = 0; rc == 0 && k < i; k++) {
		if (strcmp(def->disks[k].path, path) == 0)
			rc = lc_fail(e, LC_EINVAL, 0, "%s: given twice", o->files[i]);
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
		rc = add_disk(def, i, o, e);
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

int
import_copy(const struct settings *s, const struct import_opts *o, struct settings **out,
            const char **vm, struct lc_err *e)
{
	struct settings *copy = lc_alloc(sizeof *copy);
	int rc;

	*out = NULL;
	if (copy == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	*copy = *s;
	copy->vms = lc_alloc_array(s->nvms + 1, sizeof *copy->vms);
	if (copy->vms == NULL) {
		lc_free(copy);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	if (s->nvms > 0)
		memcpy(copy->vms, s->vms, s->nvms * sizeof *copy->vms);
	rc = import_add(copy, o, vm, e);
	if (rc == 0) {
		*out = copy;
	} else {
		lc_free(copy->vms);
		lc_free(copy);
	}
	return rc;
}

void
import_free(struct settings *copy)
{
	if (copy == NULL)
		return;
	lc_free(copy->vms[copy->nvms - 1].def);
	lc_free(copy->vms);
	lc_free(copy);
}

bool
import_is(const struct definition *def)
{
	bool yes = false;
	size_t i;

	for (i = 0; def != NULL && i < def->nleft_out; i++)
		yes = yes || strcmp(def->left_out[i].what, MARK) == 0;
	return yes;
}

static bool
is_import(const struct point *p)
{
	struct definition *def = NULL;
	bool yes;

	if (p->definition == NULL || definition_decode("restore point", p->definition,
	                                               strlen(p->definition), &def, NULL) != 0)
		return false;
	yes = import_is(def);
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

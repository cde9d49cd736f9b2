#include <string.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/settings.h"
#include "agent/likeness.h"
#include "agent/target.h"
#include "store/base/memory.h"
#include "store/store.h"

/* "" where none is known; all zeros is what a QEMU without -uuid says. */
static const char *
known_uuid(const char *uuid)
{
	return strspn(uuid, "0-") == strlen(uuid) ? "" : uuid;
}

static void
uuid_of(const struct point *p, char dst[37])
{
	struct definition *def = NULL;

	dst[0] = '\0';
	if (p->definition != NULL && definition_decode("restore point", p->definition,
	                                               strlen(p->definition), &def, NULL) == 0)
		memcpy(dst, def->uuid, sizeof def->uuid);
	lc_free(def);
}

/* Another VM of the store with points of that UUID: its name, or false. */
static bool
find_other(struct store *store, const char *vm, const char *uuid, char other[POINT_NAME_MAX])
{
	struct store_vm *vms = NULL;
	size_t i, n = 0;
	bool found = false;
	char theirs[37];

	if (store_vms(store, &vms, &n, NULL) != 0)
		return false;
	for (i = 0; !found && i < n; i++) {
		struct point p = {.ndisks = 0};

		if (strcmp(vms[i].name, vm) != 0 && store_find(store, vms[i].name, &p, NULL) == 0) {
			uuid_of(&p, theirs);
			found = strcmp(theirs, uuid) == 0;
			if (found)
				memcpy(other, vms[i].name, POINT_NAME_MAX);
		}
		point_done(&p);
	}
	lc_free(vms);
	return found;
}

int
likeness_check(const struct settings *s, struct store *store, const char *vm,
               const struct point *base, const struct definition *def, struct lc_err *e)
{
	const struct settings_vm *sv = settings_vm(s, vm);
	const char *origin = s->origin == NULL ? "locum.conf" : s->origin;
	const char *uuid = def == NULL ? "" : known_uuid(def->uuid);
	char before[37], other[POINT_NAME_MAX];

	if (*uuid == '\0' || (sv != NULL && sv->def != NULL && strcmp(sv->def->uuid, uuid) == 0))
		return 0;
	if (base != NULL) {
		uuid_of(base, before);
		if (*known_uuid(before) == '\0' || strcmp(before, uuid) == 0)
			return 0;
		return lc_fail(
		    e, LC_EEXIST, 0,
		    "%s: this VM has the UUID %s, and the restore points of %s are of "
		    "one with the UUID %s: if it is another VM, give it a section of its "
		    "own in %s; if it is the same one, say uuid = %s in [vm %s]",
		    vm, uuid, vm, before, origin, uuid, vm);
	}
	/* One that locum booted under another name is a clone by intent. */
	if (sv == NULL || !find_other(store, vm, uuid, other))
		return 0;
	if (target_domain(s, vm) != NULL) {
		return lc_fail(e, LC_EEXIST, 0,
		               "%s: the domain has the UUID of %s (%s), which has restore points "
		               "here: if it is "
		               "that one, renamed, give it a section [vm %s] with domain = %s in "
		               "%s; if it is a "
		               "clone, give it a UUID of its own, or say uuid = %s in [vm %s]",
		               vm, other, uuid, other, uuid, origin, uuid, vm);
	}
	return lc_fail(e, LC_EEXIST, 0,
	               "%s: it has the UUID of %s (%s), which has restore points here: if it "
	               "is that VM, name its section [vm %s]; if it is a clone, give it a "
	               "UUID of its own, or say uuid = %s in [vm %s] of %s",
	               vm, other, uuid, other, uuid, vm, origin);
}

#include <stdio.h>
#include <string.h>

#include "agent/discover.h"
#include "agent/hypervisor/domains.h"
#include "agent/hypervisor/settings.h"
#include "agent/target.h"
#include "store/base/memory.h"

static struct settings_vm *
section_of(struct settings *s, const struct domain *d)
{
	size_t i;

	for (i = 0; i < s->nvms; i++) {
		const char *domain = target_domain(s, s->vms[i].name);

		if (domain != NULL &&
		    (strcmp(domain, d->name) == 0 || strcmp(domain, d->uuid) == 0))
			return &s->vms[i];
	}
	return NULL;
}

/* *why is set where none can stand for it. */
static struct settings_vm *
add(struct settings *s, const struct domain *d, const char **why, struct lc_err *e)
{
	struct settings_vm *vm = section_of(s, d);
	struct lc_err bad = LC_ERR_INIT;

	*why = NULL;
	if (vm != NULL)
		return vm;
	if (settings_vm(s, d->name) != NULL) {
		*why = "[vm] of its name is another VM; give it a section with `domain`";
		return NULL;
	}
	vm = settings_section(s, d->name, &bad);
	if (vm != NULL) {
		vm->domain = lc_strdup(d->uuid);
		if (vm->domain == NULL)
			(void)lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
	} else if (bad.code == LC_EINVAL) {
		*why = "no name for a VM; give it a section [vm ...] with `domain`";
	} else {
		(void)lc_fail(e, bad.code, 0, "%s", bad.msg);
	}
	return vm;
}

int
discover(struct settings *s, discover_cb *left_out, void *arg, struct lc_err *e)
{
	const struct domains_at at = {.uri = s->libvirt,
	                              .connect_timeout_ms = s->connect_timeout_ms,
	                              .command_timeout_ms = s->command_timeout_ms};
	struct lc_err err = LC_ERR_INIT;
	struct domain *list = NULL;
	size_t i, n = 0;

	if (s->libvirt == NULL)
		return 0;
	(void)domains_list(&at, &list, &n, &err);
	for (i = 0; i < n && err.code == LC_OK; i++) {
		const char *why;
		struct settings_vm *vm = add(s, &list[i], &why, &err);

		if (vm != NULL)
			(void)snprintf(vm->state, sizeof vm->state, "%s", list[i].state);
		else if (why != NULL)
			left_out(arg, list[i].name, list[i].state, why);
	}
	domains_free(list, n);
	return err.code == LC_OK ? 0 : lc_fail(e, err.code, 0, "%s", err.msg);
}

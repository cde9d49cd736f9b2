#include <string.h>

#include "agent/past.h"
#include "agent/protect.h"
#include "agent/sites.h"
#include "store/base/clock.h"
#include "store/base/memory.h"

struct past {
	char **sites;
	size_t nsites;
	struct past_vm *vms;
	size_t n;
};

static int
take_vm(struct past *p, const struct vm_status *vm)
{
	struct past_vm *to = &p->vms[p->n];
	char *name = lc_strdup(vm->name);
	int64_t *durable = lc_alloc_array(p->nsites + 1, sizeof *durable);
	struct lc_err *refused = lc_alloc_array(p->nsites + 1, sizeof *refused);

	if (name == NULL || durable == NULL || refused == NULL) {
		lc_free(name);
		lc_free(durable);
		lc_free(refused);
		return LC_ENOMEM;
	}
	memcpy(durable, vm->durable_ns, p->nsites * sizeof *durable);
	memcpy(refused, vm->refused, p->nsites * sizeof *refused);
	*to = (struct past_vm){.name = name,
	                       .began_ns = clock_mono_ns() - vm->age_ns,
	                       .instant_ns = vm->instant_ns,
	                       .fresh_ns = vm->fresh_ns,
	                       .points = vm->points,
	                       .failures = vm->failures,
	                       .durable_ns = durable,
	                       .refused = refused,
	                       .schedule = *vm->schedule};
	memcpy(to->line, vm->line, sizeof to->line);
	p->n++;
	return 0;
}

struct past *
past_take(const struct protect *x)
{
	size_t i, nsites = protect_sites(x), n = protect_vms(x);
	struct past *p = lc_alloc(sizeof *p);
	struct site_status site;
	struct vm_status vm;
	int rc = 0;

	if (p == NULL)
		return NULL;
	p->sites = lc_alloc_array(nsites + 1, sizeof *p->sites);
	p->vms = lc_alloc_array(n + 1, sizeof *p->vms);
	if (p->sites == NULL || p->vms == NULL)
		rc = LC_ENOMEM;
	for (i = 0; rc == 0 && i < nsites; i++) {
		protect_site(x, i, &site);
		p->sites[i] = lc_strdup(site.name);
		rc = p->sites[i] == NULL ? LC_ENOMEM : 0;
		p->nsites++;
	}
	for (i = 0; rc == 0 && i < n; i++) {
		protect_vm(x, i, &vm);
		rc = take_vm(p, &vm);
	}
	if (rc == 0)
		return p;
	past_free(p);
	return NULL;
}

const struct past_vm *
past_vms(const struct past *p, size_t *n)
{
	*n = p == NULL ? 0 : p->n;
	return p == NULL ? NULL : p->vms;
}

const struct past_vm *
past_find(const struct past *p, const char *name)
{
	size_t i;

	for (i = 0; p != NULL && i < p->n; i++) {
		if (strcmp(p->vms[i].name, name) == 0)
			return &p->vms[i];
	}
	return NULL;
}

void
past_site(const struct past *p, const struct past_vm *vm, const char *site, int64_t *durable_ns,
          struct lc_err *refused)
{
	size_t i;

	for (i = 0; i < p->nsites; i++) {
		if (strcmp(p->sites[i], site) != 0)
			continue;
		*durable_ns = vm->durable_ns[i];
		*refused = vm->refused[i];
	}
}

void
past_free(struct past *p)
{
	size_t i;

	if (p == NULL)
		return;
	for (i = 0; i < p->nsites; i++)
		lc_free(p->sites[i]);
	for (i = 0; i < p->n; i++) {
		lc_free(p->vms[i].name);
		lc_free(p->vms[i].durable_ns);
		lc_free(p->vms[i].refused);
	}
	lc_free(p->sites);
	lc_free(p->vms);
	lc_free(p);
}

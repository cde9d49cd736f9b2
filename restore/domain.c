#include <string.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/domains.h"
#include "agent/hypervisor/domainxml.h"
#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/launch_accel.h"
#include "agent/hypervisor/settings.h"
#include "store/base/memory.h"
#include "store/point.h"
#include "restore/domain.h"
#include "restore/machine.h"

const char *
domain_name(const struct domain_wanted *w)
{
	return w->name != NULL ? w->name : w->point->vm;
}

const char *
domain_uri(const struct domain_wanted *w)
{
	return w->settings->libvirt != NULL ? w->settings->libvirt : "qemu:///system";
}

static struct domains_at
where(const struct domain_wanted *w)
{
	return (struct domains_at){.uri = domain_uri(w),
	                           .connect_timeout_ms = w->settings->connect_timeout_ms,
	                           .command_timeout_ms = w->settings->command_timeout_ms};
}

/* Beside the VM, which may run on the same networks. */
static bool
is_another(const struct domain_wanted *w)
{
	return strcmp(domain_name(w), w->point->vm) != 0;
}

static int
check_free(const struct domain_wanted *w, const char *uuid, struct lc_err *e)
{
	const struct domains_at at = where(w);
	struct domain *list = NULL;
	size_t i, n = 0;
	int rc = domains_list(&at, &list, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		if (strcmp(list[i].name, domain_name(w)) == 0) {
			rc = lc_fail(e, LC_EEXIST, 0,
			             "%s has a domain %s already: give another name (--name), or "
			             "undefine that one",
			             at.uri, list[i].name);
		} else if (uuid[0] != '\0' && strcmp(list[i].uuid, uuid) == 0) {
			rc = lc_fail(e, LC_EEXIST, 0,
			             "%s has a domain of the same UUID, %s: give this one a name "
			             "of its own (--name), with which it gets a new UUID",
			             at.uri, list[i].name);
		}
	}
	domains_free(list, n);
	return rc;
}

int
domain_may(const struct domain_wanted *w, struct lc_err *e)
{
	struct definition *d = NULL;
	int rc = launch_check_name(domain_name(w), e);

	rc = rc != 0 ? rc : machine_definition(w->point, NULL, 0, &d, e);
	rc = rc != 0 ? rc : check_free(w, is_another(w) ? "" : d->uuid, e);
	lc_free(d);
	return rc;
}

static void
make_another(struct definition *d)
{
	size_t i;

	memset(d->uuid, 0, sizeof d->uuid);
	for (i = 0; i < d->nnics; i++)
		memset(d->nics[i].mac, 0, sizeof d->nics[i].mac);
}

int
domain_make(const struct domain_wanted *w, const struct machine_file *files, size_t n,
            const char *comment, struct lc_err *e)
{
	const struct domains_at at = where(w);
	struct domain_xml_opts o = {.name = domain_name(w), .comment = comment};
	struct definition *d = NULL;
	struct lc_buf xml = {0};
	char why[160];
	int rc = machine_definition(w->point, files, n, &d, e);

	o.kvm = strstr(w->settings->accel, "kvm") != NULL && launch_kvm_works(why, sizeof why);
	if (rc == 0 && is_another(w))
		make_another(d);
	rc = rc != 0 ? rc : domain_xml_write(d, &o, &xml, e);
	if (rc == 0 && lc_buf_append(&xml, "", 1) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "restore: out of memory");
	/* Somebody may have defined one meanwhile: it would be replaced. */
	rc = rc != 0 ? rc : check_free(w, d->uuid, e);
	rc = rc != 0 ? rc : domains_define(&at, (const char *)xml.p, e);
	lc_buf_free(&xml);
	lc_free(d);
	return rc;
}

/*
 * What libvirt says of the VM, where it is reached through it: the first step of hv_prepare.
 *
 * QEMU itself is asked for nearly all that there is to know of a machine that runs.  libvirt alone
 * knows what it calls the disks, and what networks the cards are on.  Where the domain is off, its
 * description is all that there is: it becomes vm.def, and prepare ends with LC_ENOENT.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/domainxml.h"
#include "agent/hypervisor/qemu.h"
#include "agent/hypervisor/relay.h"

static int
ask(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	(void)e;
	if (q->t.qmp == NULL)
		(void)qmp_batch_add(b, RELAY_DOMAIN, qmp_none());
	return 0;
}

/* libvirt makes the file of the variables when the domain is first started. */
static void
no_nvram_yet(struct definition *d)
{
	const struct def_disk *nvram = definition_role(d, HV_ROLE_NVRAM);
	size_t i = nvram == NULL ? 0 : (size_t)(nvram - d->disks);

	if (nvram == NULL || nvram->path[0] == '\0' || access(nvram->path, F_OK) == 0 ||
	    errno != ENOENT)
		return;
	definition_leave_out(d, "firmware variables",
	                     "their file is not there: libvirt makes it when the domain starts");
	memmove(&d->disks[i], &d->disks[i + 1], (d->ndisks - i - 1) * sizeof d->disks[0]);
	d->ndisks--;
	memset(&d->disks[d->ndisks], 0, sizeof d->disks[0]);
}

static int
told(struct qemu *q, struct qmp_batch *b, struct lc_err *e)
{
	const char *xml = qmp_str(qmp_reply(b, 0), "xml");
	struct definition *def;

	if (qmp_batch_count(b) == 0)
		return 0;
	domain_xml_free(q->domain);
	q->domain = NULL;
	if (xml == NULL)
		return lc_fail(e, LC_EPEER, 0, "libvirt does not describe the domain");
	if (domain_xml_read(xml, strlen(xml), &q->domain, e) != 0)
		return e == NULL ? LC_EINVAL : (int)e->code;
	q->base.vm.agent = q->domain->agent;
	memcpy(q->base.vm.agent_socket, q->domain->agent_socket, sizeof q->domain->agent_socket);
	if (qmp_version(q->qmp) > 0)
		return 0;
	domain_xml_firmware(q->domain, qmp_str(qmp_reply(b, 0), "firmware"),
	                    qmp_str(qmp_reply(b, 0), "nvram"));
	no_nvram_yet(q->domain->def);
	def = definition_new();
	if (def == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	*def = *q->domain->def;
	lc_free(q->base.vm.def);
	q->base.vm.def = def;
	return lc_fail(e, LC_ENOENT, 0, "domain %s is off", q->t.domain);
}

static const struct qemu_step steps[] = {
    QEMU_STEP("hv.prepare.domain", .build = ask, .check = told)};
const struct qemu_script qemu_domain_script = QEMU_SCRIPT(steps);

/* ---- the machine's definition ---- */

static void
found(struct definition *def, const char *nic)
{
	char what[sizeof def->left_out[0].what];
	size_t i;

	(void)snprintf(what, sizeof what, "network of %s", nic);
	for (i = 0; i < def->nleft_out; i++) {
		if (strcmp(def->left_out[i].what, what) != 0)
			continue;
		memmove(&def->left_out[i], &def->left_out[i + 1],
		        (def->nleft_out - i - 1) * sizeof def->left_out[0]);
		def->nleft_out--;
		memset(&def->left_out[def->nleft_out], 0, sizeof def->left_out[0]);
		return;
	}
}

void
qemu_domain_complete(const struct qemu *q, struct definition *def)
{
	const struct definition *told = q->domain == NULL ? NULL : q->domain->def;
	size_t i, k;

	if (told != NULL && told->cpu_features[0] != '\0')
		memcpy(def->cpu_features, told->cpu_features, sizeof def->cpu_features);
	for (i = 0; told != NULL && i < told->nleft_out; i++) {
		if (domain_xml_alone_tells(told->left_out[i].what))
			definition_leave_out(def, told->left_out[i].what, told->left_out[i].why);
	}
	for (i = 0; told != NULL && i < def->nnics; i++) {
		for (k = 0; k < told->nnics; k++) {
			if (strcmp(told->nics[k].mac, def->nics[i].mac) != 0)
				continue;
			memcpy(def->nics[i].network, told->nics[k].network,
			       sizeof def->nics[i].network);
			if (strcmp(told->nics[k].network, "none") != 0)
				found(def, def->nics[i].name);
		}
	}
}

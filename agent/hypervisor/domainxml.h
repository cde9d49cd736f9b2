/**
 * domainxml: libvirt's description of a domain, read into a definition and made from one.
 *
 * Reading takes what a definition has a field for, through definition_set() and its checks; devices
 * that it has none for are listed as left out.  Disks bear their names of libvirt (the target's:
 * "vda"), which is what operators know and what is the same whether the domain runs or not.
 * Nothing of a definition is put into the XML but values that were checked, each escaped.
 */
#ifndef LOCUM_DOMAINXML_H
#define LOCUM_DOMAINXML_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/hypervisor.h"
#include "store/base/errors.h"
#include "store/base/memory.h"

#define DOMAIN_XML_MAX (4u << 20) /* bytes of a description */

struct domain_alias {    /* of a disk of a domain that runs */
	char device[64]; /* id of the device in QEMU */
	char disk[HV_NAME_MAX];
};

struct domain_xml {
	struct definition *def;
	struct domain_alias aliases[HV_DISKS_MAX];
	size_t naliases;
	enum hv_agent agent; /* of the guest, as far as libvirt knows */
	char agent_socket[108];
	bool plain_buses; /* a bus has the same number in its addresses and in the guest */
	bool chooses;     /* libvirt, its firmware, when it starts: domain_xml_firmware() */
};

/**
 * domain_xml_read(text, n, out, e):
 * Returns    0; LC_EINVAL where it is no description of a domain of QEMU; LC_ENOTSUP where it has
 * more disks than a VM may.
 * Ownership: free with domain_xml_free().
 */
int domain_xml_read(const char *text, size_t n, struct domain_xml **out, struct lc_err *e);
/** domain_xml_free(x): NULL is fine. */
void domain_xml_free(struct domain_xml *x);
/**
 * domain_xml_firmware(x, code, vars):
 * Where the description leaves it to libvirt: the files of its firmware that libvirt would choose,
 * or NULL where it does not tell; then that is left out.
 */
void domain_xml_firmware(struct domain_xml *x, const char *code, const char *vars);
/** domain_xml_alone_tells(what): whether something that is left out is told by the description
 * only, not by the QEMU that runs. */
bool domain_xml_alone_tells(const char *what);
/** domain_xml_disk(x, device): name of the disk that QEMU knows by that id, or NULL. */
const char *domain_xml_disk(const struct domain_xml *x, const char *device);

struct domain_xml_opts {
	const char *name;    /* of the domain */
	const char *comment; /* its description, or "" */
	bool kvm;            /* else emulated */
};

/**
 * domain_xml_write(d, o, out, e):
 * Append the description of a domain.  Disks have the paths and formats of d, its UUID and the
 * addresses of its cards are left to libvirt where d has none.  LC_ENOTSUP where it has something
 * that libvirt cannot be told.
 */
int domain_xml_write(const struct definition *d, const struct domain_xml_opts *o,
                     struct lc_buf *out, struct lc_err *e);

#endif

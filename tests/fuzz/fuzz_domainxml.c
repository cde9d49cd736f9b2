/* libvirt's descriptions of domains.  What is read is a definition; written and read again it is
 * the machine that it was. */
#include <string.h>

#include "agent/hypervisor/domainxml.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const struct domain_xml_opts o = {.name = "fuzz<&>\"'", .comment = "a]]> b", .kvm = true};
	struct domain_xml *x, *again;
	struct lc_buf text = {0}, xml = {0};
	struct lc_err e = LC_ERR_INIT;

	if (domain_xml_read((const char *)data, n, &x, &e) != 0) {
		fuzz_check(x == NULL && e.msg[0] != '\0');
		return 0;
	}
	fuzz_check(definition_encode(x->def, &text, &e) == 0);
	if (domain_xml_write(x->def, &o, &xml, &e) == 0) {
		fuzz_check(domain_xml_read((const char *)xml.p, xml.n, &again, &e) == 0);
		fuzz_check(strcmp(again->def->machine, x->def->machine) == 0);
		fuzz_check(strcmp(again->def->uuid, x->def->uuid) == 0);
		fuzz_check(again->def->memory == x->def->memory);
		fuzz_check(again->def->nnics == x->def->nnics);
		domain_xml_free(again);
	}
	lc_buf_free(&text);
	lc_buf_free(&xml);
	domain_xml_free(x);
	return 0;
}

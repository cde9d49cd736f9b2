/* A definition may come from a hostile restore point.  What decodes encodes, and decodes to the
 * same bytes again. */
#include <string.h>

#include "agent/hypervisor/definition.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct definition *d, *again;
	struct lc_buf first = {0}, second = {0};
	struct lc_err e = LC_ERR_INIT;

	if (definition_decode("fuzz", (const char *)data, n, &d, &e) != 0) {
		fuzz_check(d == NULL && strncmp(e.msg, "fuzz:", 5) == 0);
		fuzz_check(strchr(e.msg, '\n') == NULL);
		return 0;
	}
	fuzz_check(definition_encode(d, &first, &e) == 0);
	fuzz_check(definition_decode("again", (const char *)first.p, first.n, &again, &e) == 0);
	fuzz_check(memcmp(d, again, sizeof *d) == 0);
	fuzz_check(definition_encode(again, &second, &e) == 0);
	fuzz_check(first.n == second.n && memcmp(first.p, second.p, first.n) == 0);
	(void)definition_check(d, &e);
	lc_buf_free(&first);
	lc_buf_free(&second);
	lc_free(d);
	lc_free(again);
	return 0;
}

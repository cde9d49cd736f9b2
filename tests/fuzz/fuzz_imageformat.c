/*
 * imageformat: whatever the bytes, they are judged without reading beyond them; what looks like a
 * format and is fine as that looks the same when it is read again, and raw is always fine.
 */
#include <string.h>

#include "agent/hypervisor/imageformat.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const char *const formats[] = {"qcow2", "vhdx", "vmdk", "vpc"};
	struct imageformat_bytes b = {.head = p,
	                              .nhead = n < IMAGEFORMAT_HEAD ? n : IMAGEFORMAT_HEAD};
	const char *seen;
	size_t i;

	if (n >= IMAGEFORMAT_TAIL)
		b.tail = p + n - IMAGEFORMAT_TAIL;
	seen = imageformat_seen(&b);
	fuzz_check(imageformat_known(seen));
	fuzz_check(imageformat_danger("raw", &b) == NULL);
	for (i = 0; i < sizeof formats / sizeof formats[0]; i++) {
		/* Nothing is fine as two formats, but for a footer behind anything. */
		if (imageformat_danger(formats[i], &b) == NULL && strcmp(formats[i], "vpc") != 0)
			fuzz_check(strcmp(seen, formats[i]) == 0);
	}
	return 0;
}

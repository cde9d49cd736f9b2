/**
 * fuzz: what every fuzz target has.  A broken contract aborts, in every build.
 */
#ifndef LOCUM_TESTS_FUZZ_H
#define LOCUM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/** LLVMFuzzerTestOneInput(p, n): look at n bytes; always returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/** fuzz_check(condition): abort, saying where, if it does not hold. */
#define fuzz_check(condition)                                                                     \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			(void)fprintf(stderr, "%s:%d: broken contract: %s\n", __FILE__, __LINE__, \
			              #condition);                                                \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

#endif

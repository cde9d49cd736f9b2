/**
 * must: what a test can't go on without.
 */
#ifndef LOCUM_TESTS_MUST_H
#define LOCUM_TESTS_MUST_H

#include "store/base/errors.h"

/** must(rc, e): the test ends here, with the message, unless rc is 0.  On its thread. */
void must(int rc, const struct lc_err *e);

#endif

#include "tests/lib/unit.h"
#include "tests/unit/vector_keyring.h"
#include "tests/unit/vectors_keys.h"

struct keyring *
vector_keyring(void)
{
	struct keyring *k = NULL;
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(keyring_open_code((struct lc_span){vector_keys, sizeof vector_keys},
	                                   VECTOR_CODE, &k, &e),
	                 0);
	return k;
}
void
vector_encode(const struct keyring *k, struct lc_buf *out)
{
	struct lc_err e = LC_ERR_INIT;

	*out = (struct lc_buf){0};
	assert_int_equal(keyring_encode(k, out, &e), 0);
}

/* map: rows come sorted, each window once, and survive another encoding. */
#include <string.h>

#include "store/maprec.h"
#include "tests/fuzz/fuzz.h"

static struct map_record first, second;

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};
	size_t i;
	int rc = maprec_decode((struct lc_span){p, n}, &first, &e);

	fuzz_check(rc == e.code);
	if (rc != 0) {
		fuzz_check(rc == LC_ECORRUPT);
		return 0;
	}
	fuzz_check(first.n <= MAP_ROWS_MAX);
	for (i = 0; i < first.n; i++) {
		fuzz_check(i == 0 || first.rows[i].window > first.rows[i - 1].window);
		fuzz_check(first.rows[i].window < UINT64_C(1) << 48);
		fuzz_check(first.rows[i].chunk == 0);
	}
	fuzz_check(maprec_encode(&first, &b, &e) == 0);
	fuzz_check(b.n <= n); /* runs that touch become one */
	fuzz_check(maprec_decode((struct lc_span){b.p, b.n}, &second, &e) == 0);
	fuzz_check(first.n == second.n);
	for (i = 0; i < first.n; i++)
		fuzz_check(first.rows[i].window == second.rows[i].window &&
		           memcmp(first.rows[i].id, second.rows[i].id, CHUNK_ID_SIZE) == 0);
	fuzz_check(memcmp(first.point, second.point, 16) == 0 &&
	           memcmp(first.line, second.line, 16) == 0 &&
	           memcmp(first.disk, second.disk, 16) == 0);
	lc_buf_free(&b);
	return 0;
}

/* bootlist: what comes out of the seal names windows that the point has, and no more than there is
 * room for. */
#include "store/bootlist.h"
#include "tests/fuzz/fuzz.h"

static struct bootlist list;

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct point point = {
	    .ndisks = 2, .disks = {{.id = {1}, .size = 100000}, {.id = {2}, .size = 1 << 30}}};
	struct lc_err e = LC_ERR_INIT;
	int rc = bootlist_decode((struct lc_span){p, n}, &point, &list, &e);
	size_t i;

	fuzz_check(rc == e.code);
	fuzz_check(rc == 0 || (rc == LC_ECORRUPT && list.n == 0));
	fuzz_check(list.n <= BOOTLIST_MAX && list.n <= n / 8);
	for (i = 0; i < list.n; i++)
		fuzz_check(list.at[i].disk < point.ndisks &&
		           list.at[i].window < point_windows(point.disks[list.at[i].disk].size));
	return 0;
}

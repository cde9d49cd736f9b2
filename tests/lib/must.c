#include "tests/lib/must.h"
#include "tests/lib/unit.h"

void
must(int rc, const struct lc_err *e)
{
	if (rc != 0)
		fail_msg("%d: %s", rc, e->msg);
}

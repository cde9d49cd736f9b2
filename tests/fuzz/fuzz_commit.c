/* commit: all entries or none, inside the payload, and the same after another encoding. */
#include <string.h>

#include "store/commit.h"
#include "tests/fuzz/fuzz.h"

struct walked {
	struct lc_span payload;
	struct lc_buf again;
	size_t n;
};

static int
on_entry(void *arg, const struct commit_entry *x, struct lc_err *e)
{
	struct walked *w = arg;

	fuzz_check(x->body.p >= w->payload.p && x->body.n <= w->payload.n &&
	           x->body.p + x->body.n <= w->payload.p + w->payload.n);
	w->n++;
	return commit_add(&w->again, x->type, x->body, e);
}

static int
count(void *arg, const struct commit_entry *x, struct lc_err *e)
{
	(void)x;
	(void)e;
	++*(size_t *)arg;
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct walked w = {.payload = {p, n}};
	struct lc_err e = LC_ERR_INIT;
	int64_t wall_ns, wall_again;
	size_t entries = 0;
	int rc;

	fuzz_check(commit_start(&w.again, 0, &e) == 0);
	rc = commit_walk(w.payload, &wall_ns, on_entry, &w, &e);
	fuzz_check(rc == e.code);
	fuzz_check(rc == 0 || (rc == LC_ECORRUPT && w.n == 0));
	if (rc == 0) {
		fuzz_check(w.again.n == n && w.n < COMMIT_ENTRIES_MAX);
		fuzz_check(commit_walk((struct lc_span){w.again.p, w.again.n}, &wall_again, count,
		                       &entries, &e) == 0);
		fuzz_check(entries == w.n);
	}
	lc_buf_free(&w.again);
	return 0;
}

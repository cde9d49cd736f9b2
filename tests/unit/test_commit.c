#include <string.h>

#include "store/base/bytes.h"
#include "store/commit.h"
#include "tests/lib/unit.h"

struct walked {
	size_t n;
	uint16_t types[8];
	size_t lengths[8];
	size_t stop_at;
};

static int
on_entry(void *arg, const struct commit_entry *x, struct lc_err *e)
{
	struct walked *w = arg;

	if (w->n < 8) {
		w->types[w->n] = x->type;
		w->lengths[w->n] = x->body.n;
	}
	w->n++;
	return w->stop_at != 0 && w->n == w->stop_at ? lc_fail(e, LC_ECANCELED, 0, "enough") : 0;
}

static int
walk(const struct lc_buf *b, struct walked *w, int64_t *wall_ns)
{
	size_t stop_at = w->stop_at;

	memset(w, 0, sizeof *w);
	w->stop_at = stop_at;
	return commit_walk((struct lc_span){b->p, b->n}, wall_ns, on_entry, w, NULL);
}

static void
entries_come_back(void **state)
{
	static const uint8_t body[40] = "a body";
	struct walked w = {0};
	struct lc_buf b = {0};
	int64_t wall_ns;

	(void)state;
	assert_int_equal(commit_start(&b, -5, NULL), 0);
	assert_int_equal(walk(&b, &w, &wall_ns), 0);
	assert_int_equal(wall_ns, -5);
	assert_int_equal(w.n, 0);
	assert_int_equal(commit_add(&b, COMMIT_VM, (struct lc_span){body, 40}, NULL), 0);
	assert_int_equal(commit_add(&b, 0x8123, (struct lc_span){0}, NULL), 0);
	assert_int_equal(commit_add(&b, COMMIT_DROP, (struct lc_span){body, 16}, NULL), 0);
	assert_int_equal(walk(&b, &w, &wall_ns), 0);
	assert_int_equal(w.n, 3);
	assert_int_equal(w.types[1], 0x8123);
	assert_int_equal(w.lengths[0], 40);
	assert_int_equal(w.lengths[1], 0);
	assert_int_equal(w.lengths[2], 16);
	w.stop_at = 2;
	assert_int_equal(walk(&b, &w, &wall_ns), LC_ECANCELED);
	assert_int_equal(w.n, 2);
	lc_buf_free(&b);
}

static void
all_or_nothing(void **state)
{
	struct walked w = {0};
	struct lc_buf b = {0};
	int64_t wall_ns;
	size_t n, whole, i;

	(void)state;
	assert_int_equal(commit_start(&b, 1, NULL), 0);
	assert_int_equal(commit_add(&b, 1, (struct lc_span){(const uint8_t *)"body", 4}, NULL), 0);
	whole = b.n;
	assert_int_equal(commit_add(&b, 2, (struct lc_span){(const uint8_t *)"more", 4}, NULL), 0);
	for (n = b.n; n-- > 0;) {
		struct lc_buf cut = {.p = b.p, .n = n};

		if (n == 8 || n == whole)
			continue;
		assert_int_equal(walk(&cut, &w, &wall_ns), LC_ECORRUPT);
		assert_int_equal(w.n, 0);
	}
	lc_put32(b.p + 12, UINT32_MAX);
	assert_int_equal(walk(&b, &w, &wall_ns), LC_ECORRUPT);
	b.n = 8;
	for (i = 0; i + 1 < COMMIT_ENTRIES_MAX; i++)
		assert_int_equal(commit_add(&b, 3, (struct lc_span){0}, NULL), 0);
	assert_int_equal(walk(&b, &w, &wall_ns), 0);
	assert_int_equal(w.n, COMMIT_ENTRIES_MAX - 1);
	assert_int_equal(commit_add(&b, 3, (struct lc_span){0}, NULL), 0);
	assert_int_equal(walk(&b, &w, &wall_ns), LC_ECORRUPT);
	lc_buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(entries_come_back),
	    cmocka_unit_test(all_or_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

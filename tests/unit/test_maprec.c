#include <stdlib.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/maprec.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

static struct map_record a, b;

static void
start(struct map_record *m)
{
	memset(m, 0, sizeof *m);
	memcpy(m->point, "a point, of many", 16);
	memcpy(m->line, "a line of points", 16);
	memcpy(m->disk, "a disk of a line", 16);
}

static void
row(struct map_record *m, uint64_t window, uint8_t id)
{
	struct map_row *r = &m->rows[m->n++];

	r->window = window;
	memset(r->id, id, sizeof r->id);
}

static void
back_and_forth(void)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf buf = {0};
	size_t i;

	assert_int_equal(maprec_encode(&a, &buf, &e), 0);
	assert_int_equal(maprec_decode((struct lc_span){buf.p, buf.n}, &b, &e), 0);
	assert_int_equal(a.n, b.n);
	assert_memory_equal(a.point, b.point, 48);
	for (i = 0; i < a.n; i++) {
		assert_int_equal(a.rows[i].window, b.rows[i].window);
		assert_memory_equal(a.rows[i].id, b.rows[i].id, CHUNK_ID_SIZE);
		assert_int_equal(maprec_zero(&b.rows[i]), a.rows[i].id[0] == 0);
	}
	lc_buf_free(&buf);
}

static void
rows_come_back_sorted(void **state)
{
	struct lc_buf buf = {0};
	uint64_t seed = 3, w;
	unsigned i, k;

	(void)state;
	start(&a);
	back_and_forth(); /* no rows at all */
	row(&a, 9, 1);
	row(&a, 3, 0);
	row(&a, 4, 0);
	row(&a, 8, 2);
	row(&a, MAP_WINDOW_MAX - 1, 7);
	back_and_forth();
	assert_int_equal(b.rows[0].window, 3);
	assert_int_equal(maprec_encode(&a, &buf, NULL), 0);
	/* Three runs: zeros, two chunks, one chunk. */
	assert_int_equal(lc_get32(buf.p + 48), 3);
	lc_buf_free(&buf);
	for (i = 0; i < 50; i++) {
		start(&a);
		for (k = 0, w = 0; k < MAP_ROWS_MAX; k++) {
			w += 1 + vault_random(&seed, 3) / 2;
			row(&a, w, (uint8_t)vault_random(&seed, 3));
		}
		back_and_forth();
	}
}

static void
a_window_twice_is_refused(void **state)
{
	struct lc_buf buf = {0};

	(void)state;
	start(&a);
	row(&a, 9, 1);
	row(&a, 5, 1);
	row(&a, 9, 2);
	assert_int_equal(maprec_encode(&a, &buf, NULL), LC_EINVAL);
	lc_buf_free(&buf);
}

static int
decode(const struct lc_buf *buf)
{
	return maprec_decode((struct lc_span){buf->p, buf->n}, &b, NULL);
}

static void
nonsense_is_refused(void **state)
{
	struct lc_buf buf = {0};
	size_t n;

	(void)state;
	start(&a);
	row(&a, 3, 0);
	row(&a, 7, 1);
	assert_int_equal(maprec_encode(&a, &buf, NULL), 0);
	assert_int_equal(decode(&buf), 0);
	for (n = buf.n; n-- > 0;) { /* cut anywhere */
		struct lc_buf cut = {.p = buf.p, .n = n};

		assert_int_equal(decode(&cut), LC_ECORRUPT);
	}
	assert_int_equal(lc_buf_append(&buf, "x", 1), 0); /* and longer */
	assert_int_equal(decode(&buf), LC_ECORRUPT);
	buf.n--;
	lc_put32(buf.p + 52, MAP_ROWS_MAX + 1);
	assert_int_equal(decode(&buf), LC_ECORRUPT);
	lc_put32(buf.p + 52, 2);
	lc_put32(buf.p + 48, 3); /* more runs than rows */
	assert_int_equal(decode(&buf), LC_ECORRUPT);
	lc_put32(buf.p + 48, 2);
	lc_put64(buf.p + 56, 7); /* the second run begins in the first */
	assert_int_equal(decode(&buf), LC_ECORRUPT);
	lc_put64(buf.p + 56, MAP_WINDOW_MAX);
	assert_int_equal(decode(&buf), LC_ECORRUPT);
	lc_put64(buf.p + 56, 3);
	lc_put32(buf.p + 68, 2); /* a kind that is none */
	assert_int_equal(decode(&buf), LC_ECORRUPT);
	lc_put32(buf.p + 68, 0);
	memset(buf.p + 88, 0, 32); /* a chunk without an id */
	assert_int_equal(decode(&buf), LC_ECORRUPT);
	lc_buf_free(&buf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(rows_come_back_sorted),
	    cmocka_unit_test(a_window_twice_is_refused),
	    cmocka_unit_test(nonsense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

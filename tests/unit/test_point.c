#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/point.h"
#include "tests/lib/unit.h"
#include "tests/unit/vectors_keys.h"

static struct keyring *keys;

static int
open_keys(void **state)
{
	const struct lc_span all = {vector_keys, sizeof vector_keys};

	(void)state;
	return keyring_open_code(all, VECTOR_CODE, &keys, NULL);
}

static int
close_keys(void **state)
{
	(void)state;
	keyring_free(keys);
	return 0;
}

static struct point
sample(size_t ndisks)
{
	struct point p = {.flags = POINT_SEED | POINT_FRESH,
	                  .epoch = 4,
	                  .source_ns = INT64_C(-77),
	                  .changed = 1234,
	                  .stored = 99,
	                  .ndisks = ndisks,
	                  .consistency = POINT_OFF,
	                  .counter = UINT64_MAX,
	                  .pause_ns = 5};
	size_t i;

	memcpy(p.id, "the id of it ...", 16);
	memcpy(p.line, "the line of it..", 16);
	memcpy(p.base, "the base of it..", 16);
	memset(p.rows_sum.v, 0xa1, 32);
	memset(p.set.v, 0xb2, 32);
	(void)snprintf(p.vm, sizeof p.vm, "web01");
	for (i = 0; i < ndisks; i++) {
		memset(p.disks[i].id, (int)i + 1, 16);
		(void)snprintf(p.disks[i].name, sizeof p.disks[i].name, "vd%zu", i);
		if (i > 0)
			(void)snprintf(p.disks[i].stamp, sizeof p.disks[i].stamp, "stamp %zu", i);
		p.disks[i].size = (uint64_t)i << 40;
		p.disks[i].covered = i * 3;
		p.disks[i].role = (uint8_t)(i % 4);
	}
	p.definition = lc_strdup("[vm]\nname = web01\n");
	p.left_out = lc_strdup("sr0: a CD drive\n");
	(void)snprintf(p.freeze, sizeof p.freeze, "%s", ndisks % 2 == 0 ? "" : "2 filesystems");
	return p;
}

static struct lc_buf
encode(const struct point *p)
{
	struct lc_buf sealed = {0}, entry = {0};

	assert_int_equal(point_seal_header(keys, p, &sealed, NULL), 0);
	assert_int_equal(point_encode(p, (struct lc_span){sealed.p, sealed.n}, &entry, NULL), 0);
	lc_buf_free(&sealed);
	return entry;
}

static void
a_point_comes_back_whole(void **state)
{
	size_t counts[] = {0, 1, 3, POINT_DISKS_MAX}, i, k;

	(void)state;
	for (i = 0; i < sizeof counts / sizeof counts[0]; i++) {
		struct point p = sample(counts[i]), q;
		struct lc_buf entry = encode(&p);
		struct lc_err e = LC_ERR_INIT;
		struct lc_span sealed;

		assert_int_equal(point_decode((struct lc_span){entry.p, entry.n}, &q, &sealed, &e),
		                 0);
		assert_false(q.opened);
		assert_int_equal(q.vm[0], 0);
		assert_int_equal(point_open_header(keys, sealed, &q, &e), 0);
		assert_true(q.opened);
		assert_memory_equal(p.id, q.id, 16);
		assert_memory_equal(p.line, q.line, 16);
		assert_memory_equal(p.base, q.base, 16);
		assert_memory_equal(&p.rows_sum, &q.rows_sum, 32);
		assert_memory_equal(&p.set, &q.set, 32);
		assert_int_equal(q.flags, POINT_SEED | POINT_FRESH);
		assert_int_equal(q.epoch, 4);
		assert_int_equal(q.source_ns, -77);
		assert_int_equal(q.changed, 1234);
		assert_int_equal(q.stored, 99);
		assert_int_equal(q.counter, UINT64_MAX);
		assert_int_equal(q.pause_ns, 5);
		assert_int_equal(q.consistency, POINT_OFF);
		assert_string_equal(q.vm, "web01");
		assert_string_equal(q.definition, p.definition);
		assert_string_equal(q.left_out, p.left_out);
		assert_string_equal(q.freeze, p.freeze);
		assert_int_equal(q.ndisks, p.ndisks);
		for (k = 0; k < p.ndisks; k++) {
			assert_memory_equal(p.disks[k].id, q.disks[k].id, 16);
			assert_string_equal(p.disks[k].name, q.disks[k].name);
			assert_string_equal(p.disks[k].stamp, q.disks[k].stamp);
			assert_int_equal(p.disks[k].size, q.disks[k].size);
			assert_int_equal(p.disks[k].covered, q.disks[k].covered);
			assert_int_equal(p.disks[k].role, q.disks[k].role);
		}
		point_done(&p);
		point_done(&q);
		lc_buf_free(&entry);
	}
}

static int
open_with(const char *vm, const char *disk, const char *left_out, struct point *q)
{
	struct point p = sample(1);
	struct lc_buf entry;
	struct lc_span sealed;
	int rc;

	(void)snprintf(p.vm, sizeof p.vm, "%s", vm);
	(void)snprintf(p.disks[0].name, sizeof p.disks[0].name, "%s", disk);
	lc_free(p.left_out);
	p.left_out = lc_strdup(left_out);
	(void)snprintf(p.freeze, sizeof p.freeze, "%s", left_out);
	entry = encode(&p);
	assert_int_equal(point_decode((struct lc_span){entry.p, entry.n}, q, &sealed, NULL), 0);
	rc = point_open_header(keys, sealed, q, NULL);
	point_done(&p);
	lc_buf_free(&entry);
	return rc;
}

/* Who has the keys of a host can call things as he likes: never a path, nothing for a terminal. */
static void
names_are_no_paths_and_no_orders(void **state)
{
	static const char *const bad[] = {
	    "../../etc/cron.d/x", "/x", "a/b", "a\nb", "\033[2J", "\x7f"};
	struct point q;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(open_with(bad[i], "vda", "x", &q), LC_ECORRUPT);
		point_done(&q);
		assert_int_equal(open_with("web01", bad[i], "x", &q), LC_ECORRUPT);
		point_done(&q);
	}
	assert_int_equal(open_with("w\xc3\xa9"
	                           "b 01",
	                           "vd..a", "sr0: a\033[2J\nb\n", &q),
	                 0);
	assert_string_equal(q.vm, "w\xc3\xa9"
	                          "b 01");
	assert_string_equal(q.left_out, "sr0: a?[2J\nb\n");
	assert_string_equal(q.freeze, "sr0: a?[2J?b?");
	point_done(&q);
}

/* Every byte of the entry that says which point, line, base, disks and sizes is bound. */
static void
a_header_can_not_be_moved(void **state)
{
	static const struct {
		size_t from, to;
	} bound[] = {{0, 52}, {56, 72}, {120, 120 + 3 * 40}};
	struct point p = sample(3), q;
	struct lc_buf entry = encode(&p);
	struct lc_span sealed;
	size_t i, at;

	(void)state;
	for (i = 0; i < 3; i++) {
		for (at = bound[i].from; at < bound[i].to; at++) {
			int rc;

			entry.p[at] ^= 1;
			rc = point_decode((struct lc_span){entry.p, entry.n}, &q, &sealed, NULL);
			if (rc == 0)
				rc = point_open_header(keys, sealed, &q, NULL);
			/* A flag that is not known, a role that does not fit: refused earlier. */
			assert_true(rc == LC_ECORRUPT || rc == LC_EVERSION);
			entry.p[at] ^= 1;
		}
	}
	assert_int_equal(point_decode((struct lc_span){entry.p, entry.n}, &q, &sealed, NULL), 0);
	assert_int_equal(point_open_header(keys, sealed, &q, NULL), 0);
	point_done(&p);
	point_done(&q);
	lc_buf_free(&entry);
}

static void
nonsense_is_refused(void **state)
{
	struct point p = sample(2), q;
	struct lc_buf entry = encode(&p);
	struct lc_span sealed;
	size_t n;

	(void)state;
	for (n = 0; n < entry.n; n++)
		assert_int_equal(point_decode((struct lc_span){entry.p, n}, &q, &sealed, NULL),
		                 LC_ECORRUPT);
	assert_int_equal(lc_buf_append(&entry, "x", 1), 0);
	assert_int_equal(point_decode((struct lc_span){entry.p, entry.n}, &q, &sealed, NULL),
	                 LC_ECORRUPT);
	entry.n--;
	lc_put32(entry.p + 52, POINT_DISKS_MAX + 1);
	assert_int_equal(point_decode((struct lc_span){entry.p, entry.n}, &q, &sealed, NULL),
	                 LC_ECORRUPT);
	lc_put32(entry.p + 52, 2);
	lc_put32(entry.p + 48, POINT_MAP_DAMAGED); /* only the catalog says that */
	assert_int_equal(point_decode((struct lc_span){entry.p, entry.n}, &q, &sealed, NULL),
	                 LC_ECORRUPT);
	lc_put32(entry.p + 48, 16);
	assert_int_equal(point_decode((struct lc_span){entry.p, entry.n}, &q, &sealed, NULL),
	                 LC_EVERSION);
	lc_put32(entry.p + 48, 0);
	lc_put64(entry.p + 136, POINT_DISK_SIZE_MAX + 1);
	assert_int_equal(point_decode((struct lc_span){entry.p, entry.n}, &q, &sealed, NULL),
	                 LC_ECORRUPT);
	point_done(&p);
	lc_buf_free(&entry);
}

static void
windows_are_counted(void **state)
{
	(void)state;
	assert_int_equal(point_windows(0), 0);
	assert_int_equal(point_windows(1), 1);
	assert_int_equal(point_windows(WINDOW_SIZE), 1);
	assert_int_equal(point_windows(WINDOW_SIZE + 1), 2);
	assert_int_equal(point_windows(UINT64_MAX), UINT64_C(1) << 48);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_point_comes_back_whole),
	    cmocka_unit_test(names_are_no_paths_and_no_orders),
	    cmocka_unit_test(a_header_can_not_be_moved),
	    cmocka_unit_test(nonsense_is_refused),
	    cmocka_unit_test(windows_are_counted),
	};

	return cmocka_run_group_tests(tests, open_keys, close_keys);
}

/*
 * Segments that are there when a store is opened: what of them is cut, kept, or left alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "tests/lib/unit.h"
#include "tests/unit/folder.h"

static void
a_tear_is_cut_at_every_byte(void **state)
{
	struct folder f;
	uint64_t off[6], cut, want;
	struct seen x;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	for (cut = off[5]; cut-- > off[3];) {
		struct segment_info seg = folder_info(&f, 0);

		assert_int_equal(truncate(folder_file(&f, &seg), (off_t)cut), 0);
		assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
		want = cut >= off[4] ? off[4] : off[3];
		assert_int_equal(folder_info(&f, 0).bytes, want);
		assert_int_equal(x.records, want == off[4] ? 4 : 3);
		assert_int_equal(x.bad, 0);
		folder_again(&f);
		if (cut == off[4]) { /* the next is the record before */
			continue;
		}
		if (cut > off[4]) { /* put the record back */
			assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
			folder_resume(&f, 5);
			(void)folder_append(&f, RECORD_CHUNK, 64);
			folder_sync(&f);
			folder_again(&f);
		}
	}
	folder_free(&f);
}

static void
appending_goes_on_after_a_tear(void **state)
{
	struct segment_scan scan;
	struct segment_info seg;
	struct folder f;
	uint64_t off[6];
	struct seen x;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	seg = folder_info(&f, 0);
	assert_int_equal(truncate(folder_file(&f, &seg), (off_t)off[5] - 3), 0);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	folder_resume(&f, x.last_seq + 1);
	assert_int_equal(folder_append(&f, RECORD_COMMIT, 20).off, off[4]);
	segments_limit(f.s, 1);
	(void)folder_append(&f, RECORD_CHUNK, 64); /* seals the first */
	folder_sync(&f);
	assert_int_equal(folder_count(&f), 2);
	seg = folder_info(&f, 0);
	scan = seen_scan(&x);
	assert_int_equal(segment_scan(f.s, &seg, 0, &scan, NULL, NULL), 0);
	assert_int_equal(x.bad, 0);
	assert_int_equal(x.commits, 2);
	assert_int_equal(segment_index(f.s, &seg, seen_entry, &x, NULL), 0);
	folder_free(&f);
}

static void
damage_before_a_commit_is_kept(void **state)
{
	struct folder f;
	struct segment_info seg;
	uint64_t off[6];
	struct seen x;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	seg = folder_info(&f, 0);
	folder_flip(&f, &seg, off[1] + RECORD_HEADER_SIZE + 7);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(folder_info(&f, 0).bytes, off[5]);
	assert_int_equal(x.records, 4);
	assert_int_equal(x.bad, 1);
	assert_int_equal(x.bad_off, off[1]);
	assert_int_equal(x.bad_type, RECORD_CHUNK);
	folder_free(&f);
}

static void
damage_before_the_known_position_is_kept(void **state)
{
	struct folder f;
	struct segment_info seg;
	uint64_t off[6];
	struct seen x;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	seg = folder_info(&f, 0);
	folder_flip(&f, &seg, off[3] + 8); /* a header behind the last commit, but durable */
	assert_int_equal(folder_adopt(&f, off[5], true, &x, NULL), 0);
	assert_int_equal(folder_info(&f, 0).bytes, off[5]);
	assert_int_equal(x.bad, 1);
	assert_int_equal(x.bad_off, off[3]);
	folder_again(&f);
	/* Where nobody knows that it was durable it is a tear. */
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(folder_info(&f, 0).bytes, off[3]);
	assert_int_equal(x.bad, 0);
	folder_free(&f);
}

static void
a_damaged_commit_is_no_tear(void **state)
{
	struct folder f;
	struct segment_info seg;
	uint64_t off[6];
	struct seen x;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	seg = folder_info(&f, 0);
	assert_int_equal(truncate(folder_file(&f, &seg), (off_t)off[3]), 0);
	folder_flip(&f, &seg, off[2] + RECORD_HEADER_SIZE + 1);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(folder_info(&f, 0).bytes, off[3]);
	assert_int_equal(x.bad, 1);
	assert_int_equal(x.bad_type, RECORD_COMMIT);
	assert_int_equal(x.bad_off, off[2]);
	folder_free(&f);
}

static void
older_open_segments_are_sealed_and_never_cut(void **state)
{
	struct segment_info first, second;
	struct segment_scan scan;
	struct folder f;
	uint64_t off[6];
	struct seen x;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	/* A second one, as if the name of the first had been lost when it was sealed. */
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	folder_resume(&f, x.last_seq + 1);
	segments_limit(f.s, 1);
	(void)folder_append(&f, RECORD_COMMIT, 9);
	folder_sync(&f);
	first = folder_info(&f, 0);
	assert_true(first.sealed);
	assert_int_equal(truncate(folder_file(&f, &first), (off_t)off[5] - 5), 0);
	{
		char *from = lc_strdup(folder_file(&f, &first));

		first.sealed = false;
		assert_int_equal(rename(from, folder_file(&f, &first)), 0);
		lc_free(from);
	}
	folder_again(&f);
	first = folder_info(&f, 0);
	second = folder_info(&f, 1);
	assert_false(first.sealed);
	scan = seen_scan(&x);
	assert_int_equal(segments_adopt(f.s, &first, 0, false, &scan, NULL), 0);
	assert_int_equal(x.records, 4);
	assert_int_equal(x.bad, 1); /* the half record stays, and is told */
	assert_int_equal(x.bad_off, off[4]);
	scan = seen_scan(&x);
	assert_int_equal(segments_adopt(f.s, &second, 0, true, &scan, NULL), 0);
	assert_int_equal(x.commits, 1);
	folder_resume(&f, x.last_seq + 1);
	first = folder_info(&f, 0);
	assert_true(first.sealed);
	scan = seen_scan(&x);
	assert_int_equal(segment_scan(f.s, &first, 0, &scan, NULL, NULL), 0);
	assert_int_equal(x.records, 5); /* and the index */
	assert_int_equal(x.bad, 1);
	assert_int_equal(segment_index(f.s, &first, seen_entry, &x, NULL), 0);
	folder_free(&f);
}

static void
sealed_but_for_its_name_is_only_renamed(void **state)
{
	struct segment_info seg, back;
	struct lc_buf before = {0}, after = {0};
	struct folder f;
	uint64_t off[6];
	struct seen x;
	char *from;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	folder_resume(&f, x.last_seq + 1);
	segments_limit(f.s, 1);
	(void)folder_append(&f, RECORD_CHUNK, 40); /* in a second segment, not written yet */
	segments_close(f.s);
	folder_open(&f);
	seg = folder_info(&f, 1);
	assert_int_equal(unlink(folder_file(&f, &seg)), 0);
	seg = back = folder_info(&f, 0);
	back.sealed = false;
	from = lc_strdup(folder_file(&f, &seg));
	assert_int_equal(rename(from, folder_file(&f, &back)), 0);
	lc_free(from);
	assert_int_equal(file_read_all(folder_file(&f, &back), 1u << 20, &before, NULL), 0);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(x.records, 6); /* and the index */
	assert_true(folder_info(&f, 0).sealed);
	assert_int_equal(file_read_all(folder_file(&f, &seg), 1u << 20, &after, NULL), 0);
	assert_int_equal(before.n, after.n);
	assert_memory_equal(before.p, after.p, before.n);
	/* With a bit flipped it is not: then it is taken over like any other, and sealed anew. */
	from = lc_strdup(folder_file(&f, &seg));
	assert_int_equal(rename(from, folder_file(&f, &back)), 0);
	lc_free(from);
	folder_flip(&f, &back, off[1] + 60);
	folder_again(&f);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	assert_false(folder_info(&f, 0).sealed);
	assert_int_equal(folder_info(&f, 0).bytes, off[5]);
	assert_int_equal(x.bad, 1);
	lc_buf_free(&before);
	lc_buf_free(&after);
	folder_free(&f);
}

static void
nothing_good_is_set_aside(void **state)
{
	static const uint8_t junk[300] = "not a segment";
	struct segment_info seg = {.no = 1};
	struct folder f;
	struct seen x;
	FILE *file;

	(void)state;
	folder_make(&f);
	/* A name without bytes, or without a whole header: nothing was ever in it. */
	file = fopen(folder_file(&f, &seg), "w");
	assert_int_equal(fclose(file), 0);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(folder_count(&f), 0);
	/* Bytes that say nothing keep their bytes. */
	file = fopen(folder_file(&f, &seg), "w");
	assert_int_equal(fwrite(junk, 1, sizeof junk, file), sizeof junk);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(folder_count(&f), 0);
	assert_int_equal(access(tmpdir_path(f.dir, "0000000000000001.torn"), F_OK), 0);
	/* What the catalog knows is damage, and stays a segment. */
	file = fopen(folder_file(&f, &seg), "w");
	assert_int_equal(fwrite(junk, 1, sizeof junk, file), sizeof junk);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(folder_adopt(&f, 256, true, &x, NULL), 0);
	assert_true(folder_info(&f, 0).sealed);
	folder_free(&f);
}

/* ---- what is not ours ---- */

static void
newer_records_are_never_cut(void **state)
{
	uint8_t h[RECORD_HEADER_SIZE] = {0};
	struct lc_err e = LC_ERR_INIT;
	struct segment_info seg;
	struct segment_scan scan;
	struct folder f;
	uint64_t off[6], before;
	struct seen x;
	size_t i;

	(void)state;
	for (i = 0; i < 5; i++) {
		folder_make(&f);
		folder_log(&f, off);
		seg = folder_info(&f, 0);
		record_header_encode(&(struct record){.type = 9, .n = 2000, .seq = 2, .segment = 1},
		                     1, h);
		h[4] = 2;
		lc_put64(h + 40, XXH3_64bits_withSeed(h, 40, 1));
		folder_poke(&f, &seg, off[i], h, sizeof h);
		before = folder_sum(&f);
		lc_err_clear(&e);
		assert_int_equal(folder_adopt(&f, 0, true, &x, &e), LC_EVERSION);
		assert_non_null(strstr(e.msg, "newer"));
		scan = seen_scan(&x);
		assert_int_equal(segment_scan(f.s, &seg, 0, &scan, NULL, NULL), LC_EVERSION);
		assert_int_equal(folder_sum(&f), before);
		folder_free(&f);
	}
}

static void
a_newer_segment_is_left_alone(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct segment_info seg;
	uint8_t h[SEGMENT_HEADER_SIZE];
	struct lc_buf keys_buf = {0};
	struct folder f;
	uint64_t off[6], before;
	struct seen x;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	seg = folder_info(&f, 0);
	segment_header_encode(&(struct segment_header){.no = 1, .first_seq = 1}, h);
	memcpy(h + 16, folder_store, 16);
	lc_put16(h + 8, 2);
	lc_put64(h + 120, XXH3_64bits(h, 120));
	folder_poke(&f, &seg, 0, h, sizeof h);
	before = folder_sum(&f);
	assert_int_equal(folder_adopt(&f, 0, true, &x, &e), LC_EVERSION);
	assert_non_null(strstr(e.msg, "version 2"));
	assert_int_equal(segment_keys(f.s, &seg, &keys_buf, NULL), LC_EVERSION);
	assert_int_equal(folder_sum(&f), before);
	lc_buf_free(&keys_buf);
	folder_free(&f);
}

static void
another_stores_segment_is_left_alone(void **state)
{
	static const uint8_t other[16] = "another";
	struct lc_err e = LC_ERR_INIT;
	struct segment_info seg;
	struct folder f;
	uint64_t off[6], before;
	struct seen x;
	char *from;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	segments_close(f.s);
	before = folder_sum(&f);
	assert_int_equal(segments_open(f.dir, other, folder_domain, &f.s, NULL), 0);
	assert_int_equal(folder_adopt(&f, 0, true, &x, &e), LC_ECONFLICT);
	assert_non_null(strstr(e.msg, "of another store"));
	assert_int_equal(folder_sum(&f), before);
	folder_again(&f);
	/* Under another name none of its records would be good. */
	seg = folder_info(&f, 0);
	from = lc_strdup(folder_file(&f, &seg));
	seg.no = 7;
	assert_int_equal(rename(from, folder_file(&f, &seg)), 0);
	lc_free(from);
	before = folder_sum(&f);
	assert_int_equal(folder_adopt(&f, 0, true, &x, NULL), LC_ECONFLICT);
	assert_int_equal(folder_sum(&f), before);
	folder_free(&f);
}

static void
allocations_may_fail(void **state)
{
	struct folder f;
	uint64_t off[6], before;
	struct seen x;
	long n;
	int rc = -1;

	(void)state;
	folder_make(&f);
	folder_log(&f, off);
	before = folder_sum(&f);
	for (n = 0; rc != 0; n++) {
		struct segment_info seg = folder_info(&f, 0);
		struct segment_scan scan = seen_scan(&x);

		lc_alloc_fail_after(n);
		rc = segments_adopt(f.s, &seg, 0, true, &scan, NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
		folder_again(&f);
	}
	assert_true(n > 3);
	assert_int_equal(folder_sum(&f), before);
	folder_free(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_tear_is_cut_at_every_byte),
	    cmocka_unit_test(appending_goes_on_after_a_tear),
	    cmocka_unit_test(damage_before_a_commit_is_kept),
	    cmocka_unit_test(damage_before_the_known_position_is_kept),
	    cmocka_unit_test(a_damaged_commit_is_no_tear),
	    cmocka_unit_test(older_open_segments_are_sealed_and_never_cut),
	    cmocka_unit_test(sealed_but_for_its_name_is_only_renamed),
	    cmocka_unit_test(nothing_good_is_set_aside),
	    cmocka_unit_test(newer_records_are_never_cut),
	    cmocka_unit_test(a_newer_segment_is_left_alone),
	    cmocka_unit_test(another_stores_segment_is_left_alone),
	    cmocka_unit_test(allocations_may_fail),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/segment_internal.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

static const uint8_t this_store[16] = "a store", domain[16] = "a domain";
static const uint8_t keys[] = "keys";

struct folder {          /* of segments, without a store around it */
	char *top, *dir; /* <top>/segments */
	struct segments *s;
};

struct seen { /* what a scan reports */
	size_t records, commits, bad;
	uint64_t bad_off, bad_n, last_seq, sum;
	int bad_type;
};

static int
see(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct seen *x = arg;

	(void)e;
	x->records++;
	x->commits += r->type == RECORD_COMMIT;
	if (r->seq != 0)
		x->last_seq = r->seq;
	if (r->type != RECORD_INDEX)
		x->sum = x->sum * 31 + r->seq * 7 + r->off + r->n + r->type;
	(void)payload;
	return 0;
}

static void
see_bad(void *arg, uint64_t off, uint64_t n, const struct record *r)
{
	struct seen *x = arg;

	if (x->bad++ == 0) {
		x->bad_off = off;
		x->bad_n = n;
		x->bad_type = r == NULL ? 0 : r->type;
	}
}

static int
see_entry(void *arg, const struct record *r, struct lc_err *e)
{
	return see(arg, r, (struct lc_span){0}, e);
}

static struct segment_scan
seeing(struct seen *x)
{
	memset(x, 0, sizeof *x);
	return (struct segment_scan){.on_record = see, .on_bad = see_bad, .arg = x};
}

static void
folder_open(struct folder *f)
{
	assert_int_equal(segments_open(f->dir, this_store, domain, &f->s, NULL), 0);
}

static void
folder_make(struct folder *f)
{
	f->top = tmpdir_new();
	f->dir = path_join(f->top, "segments");
	assert_int_equal(dir_make(f->dir, 0700, NULL), 0);
	folder_open(f);
	assert_int_equal(segments_resume(f->s, (struct lc_span){keys, sizeof keys}, 1, NULL), 0);
}

static void
folder_free(struct folder *f)
{
	segments_close(f->s);
	lc_free(f->dir);
	tmpdir_free(f->top);
}

static void
folder_again(struct folder *f)
{
	segments_close(f->s);
	folder_open(f);
}

/* n bytes of payload that tell the record. */
static struct record
append(struct folder *f, int type, uint32_t n)
{
	uint8_t *p = calloc(1, n + 1);
	struct record r = {.type = (uint8_t)type, .n = n};
	struct lc_err e = LC_ERR_INIT;

	memset(p, type + (int)n, n);
	if (type == RECORD_CHUNK && n >= 32)
		memcpy(r.id, p, 32);
	if (segments_append(f->s, &r, p, &e) != 0)
		fail_msg("%s", e.msg);
	free(p);
	return r;
}

static void
sync_all(struct folder *f)
{
	assert_int_equal(segments_sync(f->s, NULL, NULL), 0);
}

static struct segment_info
info(struct folder *f, size_t i)
{
	struct segment_info *list, one;
	size_t n;

	assert_int_equal(segments_list(f->s, &list, &n, NULL), 0);
	assert_true(i < n);
	one = list[i];
	lc_free(list);
	return one;
}

static size_t
count(struct folder *f)
{
	struct segment_info *list;
	size_t n;

	assert_int_equal(segments_list(f->s, &list, &n, NULL), 0);
	lc_free(list);
	return n;
}

static const char *
file_of(struct folder *f, const struct segment_info *seg)
{
	char name[32];

	return tmpdir_path(f->dir, segment_name(name, seg->no, seg->sealed));
}

static void
poke(struct folder *f, const struct segment_info *seg, uint64_t off, const void *p, size_t n)
{
	FILE *x = fopen(file_of(f, seg), "r+");

	assert_non_null(x);
	assert_int_equal(fseek(x, (long)off, SEEK_SET), 0);
	assert_int_equal(fwrite(p, 1, n, x), n);
	assert_int_equal(fclose(x), 0);
}

static void
flip(struct folder *f, const struct segment_info *seg, uint64_t off)
{
	struct lc_buf b = {0};
	uint8_t c;

	assert_int_equal(file_read_all(file_of(f, seg), 1u << 30, &b, NULL), 0);
	c = b.p[off] ^ 0x10;
	poke(f, seg, off, &c, 1);
	lc_buf_free(&b);
}

static int
adopt(struct folder *f, uint64_t from, bool last, struct seen *x, struct lc_err *e)
{
	struct segment_scan scan = seeing(x);
	struct segment_info seg = info(f, 0);

	return segments_adopt(f->s, &seg, from, last, &scan, e);
}

/* ---- headers ---- */

static void
a_header_knows_its_segment_and_version(void **state)
{
	struct record r = {
	    .type = RECORD_MAP, .encoding = 3, .key = 9, .n = 77, .seq = 5, .segment = 4};
	struct record back;
	uint8_t h[RECORD_HEADER_SIZE];
	uint64_t sum;
	size_t i;

	(void)state;
	record_header_encode(&r, 0x1234, h);
	assert_int_equal(record_header_decode(h, 4, 640, &back, &sum), RECORD_GOOD);
	assert_int_equal(sum, 0x1234);
	assert_int_equal(back.type, RECORD_MAP);
	assert_int_equal(back.encoding, 3);
	assert_int_equal(back.key, 9);
	assert_int_equal(back.n, 77);
	assert_int_equal(back.seq, 5);
	assert_int_equal(back.off, 640);
	assert_int_equal(record_header_decode(h, 5, 640, &back, &sum), RECORD_BAD);
	for (i = 0; i < sizeof h * 8; i++) {
		h[i / 8] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(record_header_decode(h, 4, 640, &back, &sum), RECORD_BAD);
		h[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	h[4] = 2;
	lc_put64(h + 40, XXH3_64bits_withSeed(h, 40, 4));
	assert_int_equal(record_header_decode(h, 4, 640, &back, &sum), RECORD_NEWER);
	h[4] = 0;
	lc_put64(h + 40, XXH3_64bits_withSeed(h, 40, 4));
	assert_int_equal(record_header_decode(h, 4, 640, &back, &sum), RECORD_BAD);
	h[4] = 1;
	lc_put32(h + 8, RECORD_PAYLOAD_MAX + 1);
	lc_put64(h + 40, XXH3_64bits_withSeed(h, 40, 4));
	assert_int_equal(record_header_decode(h, 4, 640, &back, &sum), RECORD_BAD);
}

/* ---- appending ---- */

static void
what_is_appended_is_read_back(void **state)
{
	struct segment_scan scan;
	struct segment_info seg;
	struct folder f;
	struct record r;
	struct seen x, by_index;
	uint8_t *p = malloc(RECORD_PAYLOAD_MAX);
	unsigned i;

	(void)state;
	folder_make(&f);
	segments_limit(f.s, 100000);
	for (i = 0; i < 60; i++)
		r = append(&f, i % 5 == 0 ? RECORD_MAP : RECORD_CHUNK, 100 * i);
	r = append(&f, RECORD_CHUNK, RECORD_PAYLOAD_MAX);
	sync_all(&f);
	assert_int_equal(segment_read(f.s, &r, p, NULL), 0);
	assert_int_equal(p[0], (uint8_t)(RECORD_CHUNK + RECORD_PAYLOAD_MAX));
	assert_true(count(&f) > 2);
	seg = info(&f, 0);
	assert_true(seg.sealed);
	assert_true(seg.bytes < 110000);
	scan = seeing(&x);
	assert_int_equal(segment_scan(f.s, &seg, 0, &scan, NULL, NULL), 0);
	memset(&by_index, 0, sizeof by_index);
	assert_int_equal(segment_index(f.s, &seg, see_entry, &by_index, NULL), 0);
	assert_int_equal(x.bad, 0);
	assert_int_equal(x.records, by_index.records);
	assert_int_equal(x.sum, by_index.sum);
	free(p);
	folder_free(&f);
}

static void
many_small_records_never_outgrow_the_index(void **state)
{
	struct segment_info seg;
	struct folder f;
	struct seen x = {0};
	unsigned i;

	(void)state;
	folder_make(&f);
	for (i = 0; i < 2 * SEGMENT_RECORDS_MAX + 10; i++)
		(void)append(&f, RECORD_CHUNK, 40);
	sync_all(&f);
	assert_int_equal(count(&f), 3);
	seg = info(&f, 0);
	assert_int_equal(segment_index(f.s, &seg, see_entry, &x, NULL), 0);
	assert_int_equal(x.records, SEGMENT_RECORDS_MAX + 1);
	folder_free(&f);
}

static void
a_missing_file_is_damage(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct folder f;
	struct record r;
	uint8_t p[64];

	(void)state;
	folder_make(&f);
	r = append(&f, RECORD_CHUNK, 50);
	sync_all(&f);
	r.segment = 9;
	assert_int_equal(segment_read(f.s, &r, p, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "0000000000000009.seg is missing"));
	r.n = UINT32_MAX;
	assert_int_equal(segment_read(f.s, &r, p, NULL), LC_ECORRUPT);
	folder_free(&f);
}

/* ---- taking over ---- */

/* keys, chunk, commit, chunk, chunk: offsets of the records in off[5], and the end. */
static void
small_log(struct folder *f, uint64_t off[6])
{
	static const int types[] = {RECORD_CHUNK, RECORD_COMMIT, RECORD_CHUNK, RECORD_CHUNK};
	struct record r = {0};
	size_t i;

	off[0] = SEGMENT_HEADER_SIZE;
	for (i = 0; i < 4; i++) {
		r = append(f, types[i], (uint32_t)(61 + i));
		off[i + 1] = r.off;
	}
	off[5] = r.off + record_size(r.n);
	sync_all(f);
	folder_again(f);
}

static void
a_tear_is_cut_at_every_byte(void **state)
{
	struct folder f;
	uint64_t off[6], cut, want;
	struct seen x;

	(void)state;
	folder_make(&f);
	small_log(&f, off);
	for (cut = off[5]; cut-- > off[3];) {
		struct segment_info seg = info(&f, 0);

		assert_int_equal(truncate(file_of(&f, &seg), (off_t)cut), 0);
		assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
		want = cut >= off[4] ? off[4] : off[3];
		assert_int_equal(info(&f, 0).bytes, want);
		assert_int_equal(x.records, want == off[4] ? 4 : 3);
		assert_int_equal(x.bad, 0);
		folder_again(&f);
		if (cut == off[4]) { /* the next is the record before */
			continue;
		}
		if (cut > off[4]) { /* put the record back */
			assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
			assert_int_equal(
			    segments_resume(f.s, (struct lc_span){keys, sizeof keys}, 5, NULL), 0);
			(void)append(&f, RECORD_CHUNK, 64);
			sync_all(&f);
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
	small_log(&f, off);
	seg = info(&f, 0);
	assert_int_equal(truncate(file_of(&f, &seg), (off_t)off[5] - 3), 0);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(
	    segments_resume(f.s, (struct lc_span){keys, sizeof keys}, x.last_seq + 1, NULL), 0);
	assert_int_equal(append(&f, RECORD_COMMIT, 20).off, off[4]);
	segments_limit(f.s, 1);
	(void)append(&f, RECORD_CHUNK, 64); /* seals the first */
	sync_all(&f);
	assert_int_equal(count(&f), 2);
	seg = info(&f, 0);
	scan = seeing(&x);
	assert_int_equal(segment_scan(f.s, &seg, 0, &scan, NULL, NULL), 0);
	assert_int_equal(x.bad, 0);
	assert_int_equal(x.commits, 2);
	assert_int_equal(segment_index(f.s, &seg, see_entry, &x, NULL), 0);
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
	small_log(&f, off);
	seg = info(&f, 0);
	flip(&f, &seg, off[1] + RECORD_HEADER_SIZE + 7);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(info(&f, 0).bytes, off[5]);
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
	small_log(&f, off);
	seg = info(&f, 0);
	flip(&f, &seg, off[3] + 8); /* a header behind the last commit, but durable */
	assert_int_equal(adopt(&f, off[5], true, &x, NULL), 0);
	assert_int_equal(info(&f, 0).bytes, off[5]);
	assert_int_equal(x.bad, 1);
	assert_int_equal(x.bad_off, off[3]);
	folder_again(&f);
	/* Where nobody knows that it was durable it is a tear. */
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(info(&f, 0).bytes, off[3]);
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
	small_log(&f, off);
	seg = info(&f, 0);
	assert_int_equal(truncate(file_of(&f, &seg), (off_t)off[3]), 0);
	flip(&f, &seg, off[2] + RECORD_HEADER_SIZE + 1);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(info(&f, 0).bytes, off[3]);
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
	small_log(&f, off);
	/* A second one, as if the name of the first had been lost when it was sealed. */
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(
	    segments_resume(f.s, (struct lc_span){keys, sizeof keys}, x.last_seq + 1, NULL), 0);
	segments_limit(f.s, 1);
	(void)append(&f, RECORD_COMMIT, 9);
	sync_all(&f);
	first = info(&f, 0);
	assert_true(first.sealed);
	assert_int_equal(truncate(file_of(&f, &first), (off_t)off[5] - 5), 0);
	{
		char *from = lc_strdup(file_of(&f, &first));

		first.sealed = false;
		assert_int_equal(rename(from, file_of(&f, &first)), 0);
		lc_free(from);
	}
	folder_again(&f);
	first = info(&f, 0);
	second = info(&f, 1);
	assert_false(first.sealed);
	scan = seeing(&x);
	assert_int_equal(segments_adopt(f.s, &first, 0, false, &scan, NULL), 0);
	assert_int_equal(x.records, 4);
	assert_int_equal(x.bad, 1); /* the half record stays, and is told */
	assert_int_equal(x.bad_off, off[4]);
	scan = seeing(&x);
	assert_int_equal(segments_adopt(f.s, &second, 0, true, &scan, NULL), 0);
	assert_int_equal(x.commits, 1);
	assert_int_equal(
	    segments_resume(f.s, (struct lc_span){keys, sizeof keys}, x.last_seq + 1, NULL), 0);
	first = info(&f, 0);
	assert_true(first.sealed);
	scan = seeing(&x);
	assert_int_equal(segment_scan(f.s, &first, 0, &scan, NULL, NULL), 0);
	assert_int_equal(x.records, 5); /* and the index */
	assert_int_equal(x.bad, 1);
	assert_int_equal(segment_index(f.s, &first, see_entry, &x, NULL), 0);
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
	small_log(&f, off);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(
	    segments_resume(f.s, (struct lc_span){keys, sizeof keys}, x.last_seq + 1, NULL), 0);
	segments_limit(f.s, 1);
	(void)append(&f, RECORD_CHUNK, 40); /* in a second segment, not written yet */
	segments_close(f.s);
	folder_open(&f);
	seg = info(&f, 1);
	assert_int_equal(unlink(file_of(&f, &seg)), 0);
	seg = back = info(&f, 0);
	back.sealed = false;
	from = lc_strdup(file_of(&f, &seg));
	assert_int_equal(rename(from, file_of(&f, &back)), 0);
	lc_free(from);
	assert_int_equal(file_read_all(file_of(&f, &back), 1u << 20, &before, NULL), 0);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(x.records, 6); /* and the index */
	assert_true(info(&f, 0).sealed);
	assert_int_equal(file_read_all(file_of(&f, &seg), 1u << 20, &after, NULL), 0);
	assert_int_equal(before.n, after.n);
	assert_memory_equal(before.p, after.p, before.n);
	/* With a bit flipped it is not: then it is taken over like any other, and sealed anew. */
	from = lc_strdup(file_of(&f, &seg));
	assert_int_equal(rename(from, file_of(&f, &back)), 0);
	lc_free(from);
	flip(&f, &back, off[1] + 60);
	folder_again(&f);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_false(info(&f, 0).sealed);
	assert_int_equal(info(&f, 0).bytes, off[5]);
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
	file = fopen(file_of(&f, &seg), "w");
	assert_int_equal(fclose(file), 0);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(count(&f), 0);
	/* Bytes that say nothing keep their bytes. */
	file = fopen(file_of(&f, &seg), "w");
	assert_int_equal(fwrite(junk, 1, sizeof junk, file), sizeof junk);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), 0);
	assert_int_equal(count(&f), 0);
	assert_int_equal(access(tmpdir_path(f.dir, "0000000000000001.torn"), F_OK), 0);
	/* What the catalog knows is damage, and stays a segment. */
	file = fopen(file_of(&f, &seg), "w");
	assert_int_equal(fwrite(junk, 1, sizeof junk, file), sizeof junk);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(adopt(&f, 256, true, &x, NULL), 0);
	assert_true(info(&f, 0).sealed);
	folder_free(&f);
}

/* ---- what is not ours ---- */

static uint64_t
bytes_of(struct folder *f)
{
	return vault_sum(f->top);
}

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
		small_log(&f, off);
		seg = info(&f, 0);
		record_header_encode(&(struct record){.type = 9, .n = 2000, .seq = 2, .segment = 1},
		                     1, h);
		h[4] = 2;
		lc_put64(h + 40, XXH3_64bits_withSeed(h, 40, 1));
		poke(&f, &seg, off[i], h, sizeof h);
		before = bytes_of(&f);
		lc_err_clear(&e);
		assert_int_equal(adopt(&f, 0, true, &x, &e), LC_EVERSION);
		assert_non_null(strstr(e.msg, "newer"));
		scan = seeing(&x);
		assert_int_equal(segment_scan(f.s, &seg, 0, &scan, NULL, NULL), LC_EVERSION);
		assert_int_equal(bytes_of(&f), before);
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
	small_log(&f, off);
	seg = info(&f, 0);
	segment_header_encode(&(struct segment_header){.no = 1, .first_seq = 1}, h);
	memcpy(h + 16, this_store, 16);
	lc_put16(h + 8, 2);
	lc_put64(h + 120, XXH3_64bits(h, 120));
	poke(&f, &seg, 0, h, sizeof h);
	before = bytes_of(&f);
	assert_int_equal(adopt(&f, 0, true, &x, &e), LC_EVERSION);
	assert_non_null(strstr(e.msg, "version 2"));
	assert_int_equal(segment_keys(f.s, &seg, &keys_buf, NULL), LC_EVERSION);
	assert_int_equal(bytes_of(&f), before);
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
	small_log(&f, off);
	segments_close(f.s);
	before = bytes_of(&f);
	assert_int_equal(segments_open(f.dir, other, domain, &f.s, NULL), 0);
	assert_int_equal(adopt(&f, 0, true, &x, &e), LC_ECONFLICT);
	assert_non_null(strstr(e.msg, "of another store"));
	assert_int_equal(bytes_of(&f), before);
	folder_again(&f);
	/* Under another name none of its records would be good. */
	seg = info(&f, 0);
	from = lc_strdup(file_of(&f, &seg));
	seg.no = 7;
	assert_int_equal(rename(from, file_of(&f, &seg)), 0);
	lc_free(from);
	before = bytes_of(&f);
	assert_int_equal(adopt(&f, 0, true, &x, NULL), LC_ECONFLICT);
	assert_int_equal(bytes_of(&f), before);
	folder_free(&f);
}

static void
only_names_of_segments_count(void **state)
{
	static const char *const names[] = {
	    "0000000000000002.seg.tmp", "000000000000002.seg",   "0000000000000000.seg",
	    "000000000000000A.seg",     "0000000000000002.torn", "+000000000000002.seg",
	};
	struct folder f;
	size_t i;

	(void)state;
	folder_make(&f);
	(void)append(&f, RECORD_CHUNK, 40);
	sync_all(&f);
	for (i = 0; i < sizeof names / sizeof names[0]; i++) {
		FILE *file = fopen(tmpdir_path(f.dir, names[i]), "w");

		assert_non_null(file);
		assert_int_equal(fclose(file), 0);
	}
	assert_int_equal(count(&f), 1);
	folder_free(&f);
}

static void
a_bad_index_reports_nothing(void **state)
{
	struct segment_info seg;
	struct folder f;
	struct seen x;
	uint64_t at;
	unsigned i;

	(void)state;
	folder_make(&f);
	segments_limit(f.s, 2000);
	for (i = 0; i < 40; i++)
		(void)append(&f, RECORD_CHUNK, 64);
	sync_all(&f);
	seg = info(&f, 0);
	assert_true(seg.sealed);
	for (at = seg.bytes - 700; at < seg.bytes; at += 13) {
		flip(&f, &seg, at);
		memset(&x, 0, sizeof x);
		if (segment_index(f.s, &seg, see_entry, &x, NULL) != 0)
			assert_int_equal(x.records, 0);
		flip(&f, &seg, at);
	}
	assert_int_equal(segment_index(f.s, &seg, see_entry, &x, NULL), 0);
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
	small_log(&f, off);
	before = bytes_of(&f);
	for (n = 0; rc != 0; n++) {
		struct segment_info seg = info(&f, 0);
		struct segment_scan scan = seeing(&x);

		lc_alloc_fail_after(n);
		rc = segments_adopt(f.s, &seg, 0, true, &scan, NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
		folder_again(&f);
	}
	assert_true(n > 3);
	assert_int_equal(bytes_of(&f), before);
	folder_free(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_header_knows_its_segment_and_version),
	    cmocka_unit_test(what_is_appended_is_read_back),
	    cmocka_unit_test(many_small_records_never_outgrow_the_index),
	    cmocka_unit_test(a_missing_file_is_damage),
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
	    cmocka_unit_test(only_names_of_segments_count),
	    cmocka_unit_test(a_bad_index_reports_nothing),
	    cmocka_unit_test(allocations_may_fail),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

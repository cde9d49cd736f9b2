/*
 * Segments as they are written and read; taking them over after a crash is in test_adopt.c.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "tests/lib/unit.h"
#include "tests/unit/folder.h"

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
		r = folder_append(&f, i % 5 == 0 ? RECORD_MAP : RECORD_CHUNK, 100 * i);
	r = folder_append(&f, RECORD_CHUNK, RECORD_PAYLOAD_MAX);
	folder_sync(&f);
	assert_int_equal(segment_read(f.s, &r, p, NULL), 0);
	assert_int_equal(p[0], (uint8_t)(RECORD_CHUNK + RECORD_PAYLOAD_MAX));
	assert_true(folder_count(&f) > 2);
	seg = folder_info(&f, 0);
	assert_true(seg.sealed);
	assert_true(seg.bytes < 110000);
	scan = seen_scan(&x);
	assert_int_equal(segment_scan(f.s, &seg, 0, &scan, NULL, NULL), 0);
	memset(&by_index, 0, sizeof by_index);
	assert_int_equal(segment_index(f.s, &seg, seen_entry, &by_index, NULL), 0);
	assert_int_equal(x.bad, 0);
	assert_int_equal(x.records, by_index.records);
	assert_int_equal(x.sum, by_index.sum);
	free(p);
	folder_free(&f);
}

/* Of the open segment, what can be read. */
static void
what_was_written_is_recent(void **state)
{
	struct folder f;
	struct record first, last, r = {.seq = 0};
	uint8_t *p = malloc(RECORD_PAYLOAD_MAX);

	(void)state;
	folder_make(&f);
	assert_false(segments_recent(f.s, 1, &r));
	first = folder_append(&f, RECORD_CHUNK, 5000);
	assert_false(segments_recent(f.s, first.seq, &r)); /* it waits in the buffer */
	do
		last = folder_append(&f, RECORD_CHUNK, RECORD_PAYLOAD_MAX);
	while (!segments_recent(f.s, first.seq, &r));
	assert_int_equal(r.seq, first.seq);
	assert_int_equal(r.segment, first.segment);
	assert_int_equal(r.off, first.off);
	assert_int_equal(r.n, first.n);
	assert_int_equal(segment_read(f.s, &r, p, NULL), 0);
	assert_int_equal(p[0], (uint8_t)(RECORD_CHUNK + 5000));
	assert_false(segments_recent(f.s, last.seq, &r));
	assert_false(segments_recent(f.s, last.seq + 1, &r));
	folder_sync(&f);
	assert_true(segments_recent(f.s, last.seq, &r));
	assert_int_equal(r.off, last.off);
	/* Its segment is sealed. */
	segments_limit(f.s, last.off);
	(void)folder_append(&f, RECORD_CHUNK, 100);
	assert_false(segments_recent(f.s, last.seq, &r));
	free(p);
	folder_free(&f);
}

/* ---- many at once ---- */

#define READERS 70u /* more than descriptors are kept */
#define INSIDE 64u

/* Where all that read wait for each other. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool shut;
	unsigned waiting;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

ssize_t __real_preadv64(int fd, const struct iovec *v, int n, off_t off);
ssize_t __wrap_preadv64(int fd, const struct iovec *v, int n, off_t off);

ssize_t
__wrap_preadv64(int fd, const struct iovec *v, int n, off_t off)
{
	(void)pthread_mutex_lock(&gate.lock);
	gate.waiting++;
	(void)pthread_cond_broadcast(&gate.cond);
	while (gate.shut)
		(void)pthread_cond_wait(&gate.cond, &gate.lock);
	(void)pthread_mutex_unlock(&gate.lock);
	return __real_preadv64(fd, v, n, off);
}

struct reading {
	struct segments *s;
	struct record r;
	struct lc_err err;
	int rc;
	uint8_t payload[100];
};

static void *
read_one(void *arg)
{
	struct reading *x = arg;

	x->rc = segment_read(x->s, &x->r, x->payload, &x->err);
	return NULL;
}

/* As many as there are workers on a large machine, and who tells the system what comes next. */
static void
more_may_read_than_descriptors_are_kept(void **state)
{
	static struct reading x[READERS];
	pthread_t threads[READERS];
	struct folder f;
	unsigned i;

	(void)state;
	folder_make(&f);
	segments_limit(f.s, 1); /* each in a segment of its own */
	for (i = 0; i < READERS; i++) {
		x[i] = (struct reading){.s = f.s, .err = LC_ERR_INIT};
		x[i].r = folder_append(&f, RECORD_CHUNK, sizeof x[i].payload);
	}
	folder_sync(&f);
	gate.shut = true;
	for (i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_one, &x[i]), 0);
	(void)pthread_mutex_lock(&gate.lock);
	while (gate.waiting < INSIDE)
		(void)pthread_cond_wait(&gate.cond, &gate.lock);
	(void)pthread_mutex_unlock(&gate.lock);
	(void)poll(NULL, 0, 50); /* for the others */
	(void)pthread_mutex_lock(&gate.lock);
	gate.shut = false;
	(void)pthread_cond_broadcast(&gate.cond);
	(void)pthread_mutex_unlock(&gate.lock);
	for (i = 0; i < READERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (i = 0; i < READERS; i++) {
		if (x[i].rc != 0)
			fail_msg("%u: %s", i, x[i].err.msg);
	}
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
		(void)folder_append(&f, RECORD_CHUNK, 40);
	folder_sync(&f);
	assert_int_equal(folder_count(&f), 3);
	seg = folder_info(&f, 0);
	assert_int_equal(segment_index(f.s, &seg, seen_entry, &x, NULL), 0);
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
	r = folder_append(&f, RECORD_CHUNK, 50);
	folder_sync(&f);
	r.segment = 9;
	assert_int_equal(segment_read(f.s, &r, p, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "0000000000000009.seg is missing"));
	r.n = UINT32_MAX;
	assert_int_equal(segment_read(f.s, &r, p, NULL), LC_ECORRUPT);
	folder_free(&f);
}

static void
damage_names_the_file_that_is_there(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	char name[32], *path;
	struct folder f;
	struct record r;
	uint8_t p[64];

	(void)state;
	folder_make(&f);
	r = folder_append(&f, RECORD_CHUNK, 50);
	folder_sync(&f);
	assert_string_equal(segment_called(f.s, name, 1), "0000000000000001.open");
	r.n = 40;
	assert_int_equal(segment_read(f.s, &r, p, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "/0000000000000001.open: damaged record"));
	path = path_join(f.dir, "0000000000000001.thin");
	assert_int_equal(close(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600)), 0);
	assert_string_equal(segment_called(f.s, name, 1), "0000000000000001.open");
	lc_free(path);
	assert_string_equal(segment_called(f.s, name, 2), "0000000000000002.seg");
	folder_free(&f);
}

/* What is refused after a write that failed says what that one met: it may be all that is seen. */
static void
after_a_failed_write_its_cause_is_told(void **state)
{
	const struct rlimit small = {.rlim_cur = 8192, .rlim_max = RLIM_INFINITY};
	struct rlimit was;
	struct lc_err first = LC_ERR_INIT, next = LC_ERR_INIT;
	struct record r = {.type = RECORD_CHUNK, .n = 50};
	uint8_t p[64] = {0};
	struct folder f;

	(void)state;
	folder_make(&f);
	(void)folder_append(&f, RECORD_CHUNK, 50);
	folder_sync(&f);
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	while (segments_append(f.s, &r, p, &first) == 0)
		;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_non_null(strstr(first.msg, "0000000000000001.open"));
	assert_int_equal(segments_append(f.s, &r, p, &next), first.code);
	assert_non_null(strstr(next.msg, first.msg));
	assert_non_null(strstr(next.msg, "nothing more is written"));
	folder_free(&f);
}

static void
a_buffer_that_can_not_be_written_ends_the_log(void **state)
{
	const struct rlimit small = {.rlim_cur = 8192, .rlim_max = RLIM_INFINITY};
	struct rlimit was;
	struct lc_err first = LC_ERR_INIT, next = LC_ERR_INIT;
	struct folder f;
	unsigned i;

	(void)state;
	folder_make(&f);
	assert_int_equal(segments_write(f.s, NULL), 0); /* there is nothing */
	for (i = 0; i < 3; i++)
		(void)folder_append(&f, RECORD_CHUNK, APPEND_BUFFER / 2);
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_not_equal(segments_write(f.s, &first), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_non_null(strstr(first.msg, "0000000000000001.open"));
	assert_int_equal(segments_write(f.s, NULL), 0); /* it was told */
	assert_int_equal(segments_sync(f.s, NULL, &next), first.code);
	assert_non_null(strstr(next.msg, first.msg));
	folder_free(&f);
}

#define APPENDERS 4u
#define APPENDED 48u

struct appender {
	pthread_t thread;
	struct folder *f;
	uint32_t n;
	struct record r[APPENDED];
};

static void *
append_some(void *arg)
{
	struct appender *a = arg;
	unsigned i;

	for (i = 0; i < APPENDED; i++) {
		a->r[i] = folder_append(a->f, RECORD_CHUNK, a->n + i);
		assert_int_equal(segments_write(a->f->s, NULL), 0);
		if (i % 16 == 15)
			folder_sync(a->f);
	}
	return NULL;
}

/* Segments are sealed, and flushed, in the middle of that. */
static void
others_append_while_a_buffer_is_written(void **state)
{
	struct appender a[APPENDERS];
	uint8_t *p = malloc(RECORD_PAYLOAD_MAX);
	struct folder f;
	unsigned i, k;

	(void)state;
	folder_make(&f);
	segments_limit(f.s, 5u << 20);
	for (i = 0; i < APPENDERS; i++) {
		a[i].f = &f;
		a[i].n = 60000 + i * 50021;
		assert_int_equal(pthread_create(&a[i].thread, NULL, append_some, &a[i]), 0);
	}
	for (i = 0; i < APPENDERS; i++)
		(void)pthread_join(a[i].thread, NULL);
	folder_sync(&f);
	assert_true(folder_count(&f) > 2);
	for (i = 0; i < APPENDERS; i++) {
		for (k = 0; k < APPENDED; k++) {
			const uint32_t n = a[i].n + k;

			assert_int_equal(segment_read(f.s, &a[i].r[k], p, NULL), 0);
			assert_int_equal(p[0], (uint8_t)(RECORD_CHUNK + n));
			assert_memory_equal(p, p + 1, n - 1);
		}
	}
	free(p);
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
	(void)folder_append(&f, RECORD_CHUNK, 40);
	folder_sync(&f);
	for (i = 0; i < sizeof names / sizeof names[0]; i++) {
		FILE *file = fopen(tmpdir_path(f.dir, names[i]), "w");

		assert_non_null(file);
		assert_int_equal(fclose(file), 0);
	}
	assert_int_equal(folder_count(&f), 1);
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
		(void)folder_append(&f, RECORD_CHUNK, 64);
	folder_sync(&f);
	seg = folder_info(&f, 0);
	assert_true(seg.sealed);
	for (at = seg.bytes - 700; at < seg.bytes; at += 13) {
		folder_flip(&f, &seg, at);
		memset(&x, 0, sizeof x);
		if (segment_index(f.s, &seg, seen_entry, &x, NULL) != 0)
			assert_int_equal(x.records, 0);
		folder_flip(&f, &seg, at);
	}
	assert_int_equal(segment_index(f.s, &seg, seen_entry, &x, NULL), 0);
	folder_free(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_header_knows_its_segment_and_version),
	    cmocka_unit_test(what_is_appended_is_read_back),
	    cmocka_unit_test(what_was_written_is_recent),
	    cmocka_unit_test(more_may_read_than_descriptors_are_kept),
	    cmocka_unit_test(many_small_records_never_outgrow_the_index),
	    cmocka_unit_test(a_missing_file_is_damage),
	    cmocka_unit_test(damage_names_the_file_that_is_there),
	    cmocka_unit_test(after_a_failed_write_its_cause_is_told),
	    cmocka_unit_test(a_buffer_that_can_not_be_written_ends_the_log),
	    cmocka_unit_test(others_append_while_a_buffer_is_written),
	    cmocka_unit_test(only_names_of_segments_count),
	    cmocka_unit_test(a_bad_index_reports_nothing),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

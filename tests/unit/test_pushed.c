/*
 * pushed: an image that is made here, filled as QEMU fills it, is read back part by part; one whose
 * tables lie is refused, and nothing outside of its file is ever looked at.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/hypervisor/pushed.h"
#include "tests/lib/unit.h"

#define C PUSHED_CLUSTER
#define MIB (UINT64_C(1) << 20)

static int
make(uint64_t size)
{
	int fd = memfd_create("pushed", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pushed_make(fd, size), 0);
	return fd;
}

static void
put64(int fd, uint64_t off, uint64_t v)
{
	uint8_t b[8];
	int i;

	for (i = 0; i < 8; i++)
		b[i] = (uint8_t)(v >> (56 - 8 * i));
	assert_int_equal(pwrite(fd, b, 8, (off_t)off), 8);
}

static uint64_t
end_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_size;
}

/* One more cluster at the end of the file, full of a byte. */
static uint64_t
append(int fd, uint8_t byte)
{
	uint64_t at = (end_of(fd) + C - 1) / C * C;
	uint8_t *buf = malloc(C);

	assert_non_null(buf);
	memset(buf, byte, C);
	assert_int_equal(pwrite(fd, buf, C, (off_t)at), C);
	free(buf);
	return at;
}

static uint64_t
table(int fd, uint64_t index)
{
	uint64_t at = append(fd, 0);

	put64(fd, 3 * C + index * 8, at | UINT64_C(1) << 63);
	return at;
}

static void
assert_kind(int fd, uint64_t size, uint64_t off, uint64_t len, enum pushed_kind want)
{
	enum pushed_kind kind = PUSHED_NOT;
	struct lc_err e = LC_ERR_INIT;
	uint64_t n = 0;

	if (pushed_look(fd, size, off, &n, &kind, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(n, len);
	assert_int_equal(kind, want);
}

static void
test_kinds(void **state)
{
	uint64_t size = 1024 * MIB + 1000, l2, n = 0;
	int fd = make(size);
	uint8_t buf[2 * C], seven[C], zeros[C] = {0};

	(void)state;
	memset(seven, 7, sizeof seven);
	assert_kind(fd, size, 0, 512 * MIB, PUSHED_NOT);
	l2 = table(fd, 0);
	put64(fd, l2 + 2 * 8, append(fd, 7) | UINT64_C(1) << 63);
	put64(fd, l2 + 3 * 8, 1);
	put64(fd, l2 + 4 * 8, append(fd, 9) | 1); /* zeros over something */
	assert_kind(fd, size, 0, 2 * C, PUSHED_NOT);
	assert_kind(fd, size, 2 * C, C, PUSHED_DATA);
	assert_kind(fd, size, 3 * C, 2 * C, PUSHED_ZERO);
	assert_kind(fd, size, 5 * C, 512 * C, PUSHED_NOT); /* a piece of the table at once */
	assert_kind(fd, size, 1024 * MIB, 1000, PUSHED_NOT);
	l2 = table(fd, 2);
	put64(fd, l2, append(fd, 7));
	assert_kind(fd, size, 1024 * MIB, 1000, PUSHED_DATA);
	assert_int_equal(pushed_count(fd, size, &n, NULL), 0);
	assert_int_equal(n, 4);
	assert_int_equal(pushed_read(fd, buf, sizeof buf, 2 * C + 100, NULL), 0);
	assert_memory_equal(buf, seven, C - 100);
	assert_memory_equal(buf + C - 100, zeros, C);
	assert_int_equal(pushed_read(fd, buf, 1000, 1024 * MIB, NULL), 0);
	assert_memory_equal(buf, seven, 1000);
	(void)close(fd);
}

/* QEMU writes no more of the last cluster of its file than is in it. */
static void
test_short_end(void **state)
{
	uint64_t size = 2 * C, l2;
	int fd = make(size);
	uint8_t buf[C], zeros[C] = {0};

	(void)state;
	l2 = table(fd, 0);
	put64(fd, l2 + 8, append(fd, 5));
	assert_int_equal(ftruncate(fd, (off_t)(end_of(fd) - C + 10)), 0);
	assert_int_equal(pushed_read(fd, buf, C, C, NULL), 0);
	assert_int_equal(buf[9], 5);
	assert_memory_equal(buf + 10, zeros, C - 10);
	(void)close(fd);
}

static void
test_lies(void **state)
{
	static const uint64_t places[] = {
	    C + 512,           /* not at the begin of a cluster */
	    UINT64_C(1) << 40, /* behind the end */
	    C,                 /* in the file's own tables */
	    UINT64_C(0xfffffffffffe00),
	    UINT64_C(1) << 62 | 4 * C, /* compressed */
	};
	uint64_t size = 4 * C, l2, n;
	enum pushed_kind kind;
	uint8_t buf[16];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof places / sizeof places[0]; i++) {
		struct lc_err e = LC_ERR_INIT;
		int fd = make(size);

		l2 = table(fd, 0);
		(void)append(fd, 1);
		put64(fd, l2, places[i]);
		assert_int_equal(pushed_look(fd, size, 0, &n, &kind, &e), LC_ECORRUPT);
		assert_non_null(strstr(e.msg, "tells a place that is none"));
		assert_int_equal(pushed_read(fd, buf, sizeof buf, 0, NULL), LC_ECORRUPT);
		assert_int_equal(pushed_count(fd, size, &n, NULL), LC_ECORRUPT);
		put64(fd, l2, 0);
		put64(fd, 3 * C, places[i]);
		assert_int_equal(pushed_look(fd, size, 0, &n, &kind, NULL), LC_ECORRUPT);
		assert_int_equal(pushed_read(fd, buf, sizeof buf, 0, NULL), LC_ECORRUPT);
		(void)close(fd);
	}
}

static void
test_need(void **state)
{
	const uint64_t tib = UINT64_C(1) << 40;

	(void)state;
	/* Header, counts, their block, L1; data and a table; blocks; and some. */
	assert_in_range(pushed_need(10 * MIB, C), 6 * C, 6 * C + 2 * MIB);
	assert_in_range(pushed_need(tib, tib), tib + tib / 8192, tib + tib / 4000);
	/* Scattered as badly as can be: a table for each part. */
	assert_in_range(pushed_need(tib, 100 * C), 200 * C, 210 * C + 2 * MIB);
	assert_true(pushed_need(MIB, tib) < 4 * MIB);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_kinds),
	    cmocka_unit_test(test_short_end),
	    cmocka_unit_test(test_lies),
	    cmocka_unit_test(test_need),
	};

	return cmocka_run_group_tests_name("pushed", tests, NULL, NULL);
}

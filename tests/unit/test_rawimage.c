/* rawimage.c: files with holes, sizes that are no sectors, and files that change under the reader.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/hypervisor/rawimage.h"
#include "store/base/files.h"
#include "tests/lib/unit.h"

enum { KIB = 1024, MIB = KIB * KIB };

struct test {
	char *dir;
	const char *path;
	int fd;
};

static int
setup(void **state)
{
	struct test *t = calloc(1, sizeof *t);

	t->dir = tmpdir_new();
	t->path = tmpdir_path(t->dir, "disk");
	t->fd = open(t->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	*state = t;
	return t->fd < 0;
}

static int
teardown(void **state)
{
	struct test *t = *state;

	fd_close(&t->fd);
	tmpdir_free(t->dir);
	free(t);
	return 0;
}

static void
put(const struct test *t, off_t off, size_t n, int byte)
{
	char *p = malloc(n);

	memset(p, byte, n);
	assert_int_equal(pwrite(t->fd, p, n, off), n);
	free(p);
}

static int
look(const struct test *t, uint64_t size, uint64_t off, uint64_t *n, bool *data)
{
	struct lc_err e = LC_ERR_INIT;
	int rc = rawimage_look(t->fd, "web01/vda", size, off, n, data, &e);

	if (rc != 0)
		print_message("  %s\n", e.msg);
	return rc;
}

/* Walked from end to end, what is told covers each byte once, and no hole hides one that is there.
 */
static void
test_holes(void **state)
{
	const struct test *t = *state;
	uint64_t at, n, holes = 0;
	bool data;

	assert_int_equal(ftruncate(t->fd, 8 * MIB), 0);
	put(t, MIB, 64 * KIB, 1);
	put(t, 5 * MIB + 512, 512, 2);
	for (at = 0; at < 8 * MIB; at += n) {
		assert_int_equal(look(t, 8 * MIB, at, &n, &data), 0);
		assert_in_range(n, 1, 8 * MIB - at);
		holes += data ? 0 : n;
		if (!data) {
			assert_false(at < MIB + 64 * KIB && at + n > MIB);
			assert_false(at < 5 * MIB + KIB && at + n > 5 * MIB + 512);
		}
	}
	assert_in_range(holes, 1,
	                8 * MIB - 64 * KIB - 512); /* some; the file system's blocks decide */
	/* From within, too. */
	assert_int_equal(look(t, 8 * MIB, MIB + 4 * KIB, &n, &data), 0);
	assert_true(data);
}

static void
test_a_size_that_is_no_sector(void **state)
{
	const struct test *t = *state;
	struct lc_err e = LC_ERR_INIT;
	uint8_t buf[KIB], zeros[KIB] = {0};
	uint64_t size, n;
	bool data;

	put(t, 0, 1000, 7);
	assert_int_equal(rawimage_size(t->fd, t->path, &size, &e), 0);
	assert_int_equal(size, 1024);
	memset(buf, 9, sizeof buf);
	assert_int_equal(rawimage_read(t->fd, t->path, buf, 1024, 0, size, &e), 0);
	assert_int_equal(buf[999], 7);
	assert_memory_equal(buf + 1000, zeros, 24);
	memset(buf, 9, sizeof buf);
	assert_int_equal(rawimage_read(t->fd, t->path, buf, 10, 1010, size, &e), 0);
	assert_memory_equal(buf, zeros, 10);
	assert_int_equal(look(t, size, 0, &n, &data), 0);
	assert_true(data);
	if (n < size) {
		assert_int_equal(look(t, size, n, &n, &data), 0);
		assert_false(data);
	}
}

static void
test_an_image_that_gets_shorter(void **state)
{
	const struct test *t = *state;
	struct lc_err e = LC_ERR_INIT;
	uint8_t buf[KIB];
	uint64_t n;
	bool data;

	put(t, 0, MIB, 7);
	assert_int_equal(ftruncate(t->fd, 4096), 0);
	/* Never zeros, whether it was cut before what is read or in the middle, at a sector or not.
	 */
	assert_int_equal(rawimage_read(t->fd, t->path, buf, KIB, 8192, MIB, &e), LC_ECONFLICT);
	assert_non_null(strstr(e.msg, t->path));
	assert_int_equal(rawimage_read(t->fd, t->path, buf, KIB, 4096 - 512, MIB, NULL),
	                 LC_ECONFLICT);
	assert_int_equal(ftruncate(t->fd, 4000), 0);
	assert_int_equal(rawimage_read(t->fd, t->path, buf, KIB, 3584, MIB, NULL), LC_ECONFLICT);
	assert_int_equal(rawimage_read(t->fd, t->path, buf, KIB, MIB - KIB, MIB, NULL),
	                 LC_ECONFLICT);
	assert_int_equal(rawimage_read(t->fd, t->path, buf, 512, 0, MIB, NULL), 0);
	assert_int_equal(look(t, MIB, 8192, &n, &data), LC_ECONFLICT);
}

static void
test_what_cannot_be_read(void **state)
{
	const struct test *t = *state;
	struct lc_err e = LC_ERR_INIT;
	uint8_t buf[KIB];
	const char *fifo = tmpdir_path(t->dir, "fifo");
	int fd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(rawimage_read(fd, t->path, buf, KIB, 512, MIB, &e), LC_EIO);
	assert_non_null(strstr(e.msg, "read of 1024 bytes at offset 512: Is a directory"));
	fd_close(&fd);
	assert_int_equal(rawimage_open(t->dir, &fd, NULL), LC_EINVAL);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(rawimage_open(fifo, &fd, NULL), LC_EINVAL); /* at once */
	assert_int_equal(fd, -1);
	assert_int_equal(unlink(fifo), 0);
	assert_int_equal(rawimage_open(fifo, &fd, NULL), LC_ENOENT);
}

static void
test_what_may_hang(void **state)
{
	const struct test *t = *state;

	assert_true(rawimage_remote(0x6969));      /* NFS */
	assert_true(rawimage_remote(0xff534d42));  /* CIFS */
	assert_true(rawimage_remote(0x65735546));  /* FUSE */
	assert_false(rawimage_remote(0xef53));     /* ext4 */
	assert_false(rawimage_remote(0x58465342)); /* XFS */
	assert_false(rawimage_remote(0x9123683e)); /* btrfs */
	assert_false(rawimage_remote(0x01021994)); /* tmpfs */
	assert_false(rawimage_is_remote(t->fd));
	assert_true(rawimage_is_remote(-1)); /* not known */
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_holes),
	    T(test_a_size_that_is_no_sector),
	    T(test_an_image_that_gets_shorter),
	    T(test_what_cannot_be_read),
	    T(test_what_may_hang),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

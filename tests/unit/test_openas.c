/*
 * openas: a file is opened only where that user could open it, and nothing but files.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/hypervisor/openas.h"
#include "store/base/files.h"
#include "tests/lib/unit.h"

#define NOBODY 65534u

static int
try(const char *path, uint32_t uid)
{
	struct lc_err e = LC_ERR_INIT;
	int fd = -1, rc = openas_read(path, uid, uid, &fd, &e);
	char c = 0;

	if (rc == 0) {
		assert_int_equal(read(fd, &c, 1), 1);
		assert_int_equal(c, 'x');
		assert_int_equal(close(fd), 0);
	} else {
		assert_int_equal(fd, -1);
		assert_non_null(strstr(e.msg, path));
	}
	return rc;
}

static char *
make(const char *dir, const char *name, mode_t mode)
{
	char *path = path_join(dir, name);

	assert_non_null(path);
	assert_int_equal(file_write_new(path, "x", 1, 0600, NULL), 0);
	assert_int_equal(chmod(path, mode), 0);
	return path;
}

static void
test_rights(void **state)
{
	char *dir = tmpdir_new(), *open_dir = path_join(dir, "d"), *closed = path_join(dir, "c");
	char *all, *ours, *group, *hidden;

	(void)state;
	if (geteuid() != 0) {
		print_message("not root: users cannot be changed\n");
		skip();
	}
	assert_int_equal(chmod(dir, 0711), 0);
	assert_int_equal(mkdir(open_dir, 0755), 0);
	assert_int_equal(mkdir(closed, 0755), 0);
	all = make(open_dir, "all", 0644);
	ours = make(open_dir, "ours", 0600);
	group = make(open_dir, "group", 0640);
	hidden = make(closed, "hidden", 0644);
	assert_int_equal(chmod(closed, 0700), 0);
	assert_int_equal(try(all, NOBODY), 0);
	assert_int_equal(try(ours, NOBODY), LC_EACCES);
	assert_int_equal(try(group, NOBODY), LC_EACCES); /* root's groups are given up, too */
	assert_int_equal(try(hidden, NOBODY), LC_EACCES);
	assert_int_equal(chown(ours, NOBODY, NOBODY), 0);
	assert_int_equal(try(ours, NOBODY), 0);
	assert_int_equal(try(ours, 0), 0);
	assert_int_equal(try(hidden, 0), 0);
	lc_free(all);
	lc_free(ours);
	lc_free(group);
	lc_free(hidden);
	lc_free(open_dir);
	lc_free(closed);
	tmpdir_free(dir);
}

static void
test_no_file(void **state)
{
	char *dir = tmpdir_new(), *fifo = path_join(dir, "fifo"), *gone = path_join(dir, "gone");
	uint32_t users[] = {0, NOBODY};
	size_t i;

	(void)state;
	assert_int_equal(chmod(dir, 0711), 0);
	assert_int_equal(mkfifo(fifo, 0666), 0);
	assert_int_equal(chmod(fifo, 0666), 0);
	for (i = 0; i < (geteuid() == 0 ? 2 : 1); i++) {
		assert_int_equal(try(fifo, users[i]), LC_EINVAL); /* and does not wait */
		assert_int_equal(try("/dev/zero", users[i]), LC_EINVAL);
		assert_int_equal(try(gone, users[i]), LC_ENOENT);
		assert_int_equal(try("/", users[i]), LC_EINVAL);
	}
	lc_free(fifo);
	lc_free(gone);
	tmpdir_free(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rights),
	    cmocka_unit_test(test_no_file),
	};

	return cmocka_run_group_tests_name("openas", tests, NULL, NULL);
}

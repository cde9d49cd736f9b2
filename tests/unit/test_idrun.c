/*
 * The files of an index: which are taken, and what damage and failures leave of them.  Failpoints
 * are read before main(), so those cases run this program again.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/idindex.h"
#include "tests/lib/unit.h"
#include "tests/unit/numbered.h"

#define HEADER_SIZE 128u
#define ENTRY_SIZE 24u

/* Not synced: these tests write many. */
static void
write_file(const char *path, const uint8_t *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	(void)close(fd);
}

static void
copy_file(const char *from, const char *to)
{
	struct lc_buf b = {0};
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(file_read_all(from, 1u << 24, &b, &e), 0);
	write_file(to, b.p, b.n);
	lc_buf_free(&b);
}

static void
flip_byte(const char *path, off_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t b;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &b, 1, at), 1);
	b ^= 0x10;
	assert_int_equal(pwrite(fd, &b, 1, at), 1);
	(void)close(fd);
}

static void
runs_of_another_store_are_not_taken(void **state)
{
	static const uint8_t other[16] = "another store";
	char *dir = tmpdir_new();
	struct lc_err e = LC_ERR_INIT;
	uint64_t covered;
	struct idindex *x = numbered_open(dir, 100, &covered);

	(void)state;
	numbered_add(x, 1, 300);
	numbered_flush(x, 300);
	idindex_close(x);
	assert_int_equal(idindex_open(dir, other, 100, false, &x, &covered, &e), 0);
	assert_true(covered == 0);
	assert_int_equal(numbered_find(x, 1), IDINDEX_NEW);
	numbered_add(x, 1, 300);
	numbered_flush(x, 300); /* Does nothing: not writable. */
	idindex_reset(x);
	idindex_close(x);
	assert_int_equal(numbered_files(dir, NULL, 0), 1);
	assert_int_equal(idindex_open(dir, numbered_store, 100, false, &x, &covered, &e), 0);
	assert_true(covered == 300);
	assert_int_equal(numbered_missed(x, 1, 300), 0);
	idindex_close(x);
	assert_int_equal(idindex_open(dir, other, 100, true, &x, &covered, &e), 0);
	idindex_close(x);
	assert_int_equal(numbered_files(dir, NULL, 0), 0);
	assert_int_equal(
	    idindex_open(tmpdir_path(dir, "none"), numbered_store, 100, false, &x, &covered, &e),
	    0);
	idindex_close(x);
	assert_int_equal(numbered_files(dir, NULL, 0), 0);
	tmpdir_free(dir);
}

static void
runs_behind_a_gap_are_made_again(void **state)
{
	static const uint64_t want[] = {0, 4000, 5000};
	unsigned gone;

	(void)state;
	for (gone = 0; gone < 3; gone++) {
		char *dir = tmpdir_new(), name[16];
		uint64_t covered;

		idindex_close(numbered_three_runs(dir));
		(void)snprintf(name, sizeof name, "%u.run", gone + 1);
		assert_int_equal(unlink(tmpdir_path(dir, name)), 0);
		struct idindex *x = numbered_open(dir, 100, &covered);
		assert_true(covered == want[gone]);
		assert_int_equal(numbered_files(dir, NULL, 0), gone);
		assert_int_equal(numbered_missed(x, 1, covered), 0);
		numbered_add(x, covered + 1, 5200);
		numbered_flush(x, 5200);
		assert_int_equal(numbered_missed(x, 1, 5200), 0);
		idindex_close(x);
		tmpdir_free(dir);
	}
}

static void
merged_runs_that_were_left_are_deleted(void **state)
{
	char *dir = tmpdir_new(), *saved = tmpdir_new();
	uint64_t covered;
	struct idindex *x = numbered_three_runs(dir);
	static const char *const names[] = {"1.run", "2.run", "3.run"};
	unsigned i;

	(void)state;
	for (i = 0; i < 3; i++)
		copy_file(tmpdir_path(dir, names[i]), tmpdir_path(saved, names[i]));
	numbered_add(x, 5201, 9000);
	numbered_flush(x, 9000);
	idindex_close(x);
	assert_int_equal(numbered_files(dir, NULL, 0), 1);
	for (i = 0; i < 3; i++)
		copy_file(tmpdir_path(saved, names[i]), tmpdir_path(dir, names[i]));
	copy_file(tmpdir_path(saved, names[0]), tmpdir_path(dir, "17.run.tmp"));
	copy_file(tmpdir_path(saved, names[0]), tmpdir_path(dir, "notes.txt"));
	x = numbered_open(dir, 100, &covered);
	assert_true(covered == 9000);
	assert_int_equal(numbered_missed(x, 1, 9000), 0);
	assert_int_equal(numbered_files(dir, NULL, 0), 2);
	idindex_close(x);
	tmpdir_free(dir);
	tmpdir_free(saved);
}

/* Looks a few ids up, whatever the answers: they must come, and never as certain. */
static void
look_around(struct idindex *x)
{
	uint8_t id[32];
	uint64_t n, number;

	for (n = 1; n < 300; n += 7) {
		numbered_id(n, id);
		assert_int_not_equal(idindex_find(x, id, &number), IDINDEX_FOUND);
	}
}

static void
damage_is_found_or_harmless(void **state)
{
	char *dir = tmpdir_new(), path[512];
	struct lc_buf whole = {0};
	struct lc_err e = LC_ERR_INIT;
	uint64_t covered;
	struct idindex *x = numbered_open(dir, 100, &covered);
	size_t at, blocks_end;
	int fd;

	(void)state;
	numbered_add(x, 1, 200);
	numbered_flush(x, 200);
	idindex_close(x);
	assert_int_equal(numbered_files(dir, path, sizeof path), 1);
	assert_int_equal(file_read_all(path, 65536, &whole, &e), 0);
	blocks_end = whole.n - 200u * ENTRY_SIZE;
	for (at = 0; at < whole.n; at += at < blocks_end ? 1 : 97) {
		write_file(path, whole.p, whole.n);
		flip_byte(path, (off_t)at);
		x = numbered_open(dir, 100, &covered);
		/* Header and blocks are checked at open, entries when they are merged. */
		assert_true(covered == (at < blocks_end ? 0 : 200));
		look_around(x);
		idindex_close(x);
	}
	for (at = 0; at < whole.n; at += 61) {
		write_file(path, whole.p, at);
		x = numbered_open(dir, 100, &covered);
		assert_true(covered == 0);
		look_around(x);
		idindex_close(x);
		assert_int_equal(numbered_files(dir, NULL, 0), 0);
	}
	/* Cut while it is open. */
	write_file(path, whole.p, whole.n);
	x = numbered_open(dir, 100, &covered);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, (off_t)blocks_end + 50), 0);
	(void)close(fd);
	look_around(x);
	idindex_close(x);
	lc_buf_free(&whole);
	tmpdir_free(dir);
}

static void
damage_that_a_merge_finds_drops_the_run(void **state)
{
	char *dir = tmpdir_new();
	struct lc_err e = LC_ERR_INIT;
	uint64_t covered;
	struct idindex *x = numbered_three_runs(dir);

	(void)state;
	flip_byte(tmpdir_path(dir, "2.run"), HEADER_SIZE + 23 * 64 + 30 * ENTRY_SIZE);
	numbered_add(x, 5201, 9000);
	assert_int_equal(idindex_flush(x, 9000, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "2.run"));
	assert_int_equal(numbered_files(dir, NULL, 0), 1);
	assert_int_equal(numbered_missed(x, 1, 4000), 0);
	assert_int_equal(numbered_missed(x, 4001, 5200), 1200);
	assert_int_equal(numbered_missed(x, 5201, 9000), 0);
	/* It goes on, and does not claim to cover what it lost. */
	numbered_flush(x, 9000);
	assert_int_equal(numbered_missed(x, 5201, 9000), 0);
	numbered_add(x, 9001, 40000);
	numbered_flush(x, 40000);
	idindex_close(x);
	x = numbered_open(dir, 100, &covered);
	assert_true(covered == 4000);
	numbered_add(x, covered + 1, 40000);
	numbered_flush(x, 40000);
	assert_int_equal(numbered_missed(x, 1, 40000), 0);
	idindex_close(x);
	tmpdir_free(dir);
}

/* Failpoints. */

static int
child_main(const char *dir)
{
	struct lc_err e = LC_ERR_INIT;
	struct idindex *x = NULL;
	uint64_t covered, n;
	uint8_t id[32];
	int rc;

	if (idindex_open(dir, numbered_store, 100, true, &x, &covered, &e) != 0)
		return 90;
	for (n = covered + 1; n <= 9000; n++) {
		numbered_id(n, id);
		idindex_add(x, id, n);
	}
	rc = idindex_flush(x, 9000, &e);
	if (rc != 0) {
		if (idindex_memory(x) == 0 || idindex_flush(x, 9000, NULL) != 0)
			return 91;
	}
	idindex_close(x);
	return -rc;
}

static int
run_child(const char *dir, const char *failpoint)
{
	char self[512] = "";
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		/* Not executed as such: under valgrind that would be valgrind. */
		(void)!readlink("/proc/self/exe", self, sizeof self - 1);
		char *argv[] = {lc_strdup("test_idrun"), lc_strdup(dir), NULL};

		(void)setenv("LOCUM_FAILPOINT", failpoint, 1);
		(void)execv(self, argv);
		_exit(99);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void
faults_while_flushing_lose_nothing(void **state)
{
	static const struct {
		const char *failpoint;
		int want;
	} cases[] = {
	    {"idindex.write:1:kill", 1000 + SIGKILL},
	    {"idindex.write:2:kill", 1000 + SIGKILL},
	    {"idindex.rename:1:kill", 1000 + SIGKILL},
	    {"idindex.write:1:enospc", -LC_ENOSPC},
	    {"idindex.write:2:eio", -LC_EIO},
	    {"idindex.rename:1:eio", -LC_EIO},
	    {"idindex.rename:2:eio", 0},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char *dir = tmpdir_new();
		uint64_t covered;
		struct idindex *x;

		idindex_close(numbered_three_runs(dir));
		assert_int_equal(run_child(dir, cases[i].failpoint), cases[i].want);
		x = numbered_open(dir, 100, &covered);
		assert_true(covered == (cases[i].want < 1000 ? 9000 : 5200));
		assert_int_equal(numbered_missed(x, 1, covered), 0);
		numbered_add(x, covered + 1, 9000);
		assert_int_equal(numbered_missed(x, 1, 9000), 0);
		numbered_flush(x, 9000);
		assert_int_equal(numbered_missed(x, 1, 9000), 0);
		assert_int_equal(numbered_files(dir, NULL, 0), 1);
		idindex_close(x);
		tmpdir_free(dir);
	}
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(runs_of_another_store_are_not_taken),
	    cmocka_unit_test(runs_behind_a_gap_are_made_again),
	    cmocka_unit_test(merged_runs_that_were_left_are_deleted),
	    cmocka_unit_test(damage_is_found_or_harmless),
	    cmocka_unit_test(damage_that_a_merge_finds_drops_the_run),
	    cmocka_unit_test(faults_while_flushing_lose_nothing),
	};

	return argc > 1 ? child_main(argv[1]) : cmocka_run_group_tests(tests, NULL, NULL);
}

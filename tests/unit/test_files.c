#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/files.h"
#include "tests/lib/unit.h"

static char *dir;

static int
set_up(void **state)
{
	(void)state;
	dir = tmpdir_new();
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	tmpdir_free(dir);
	return 0;
}

static const char *
at(const char *name)
{
	return tmpdir_path(dir, name);
}

static void
put(const char *name, const char *text)
{
	assert_int_equal(file_write_atomic(at(name), text, strlen(text), 0600, NULL), 0);
}

static void
assert_holds(const char *name, const char *text)
{
	struct lc_buf b = {0};

	assert_int_equal(file_read_all(at(name), 1 << 20, &b, NULL), 0);
	assert_int_equal(b.n, strlen(text));
	assert_memory_equal(b.p, text, b.n);
	lc_buf_free(&b);
}

static unsigned
entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	assert_int_equal(closedir(d), 0);
	return n - 2;
}

/* ---- whole files ---- */

static void
reads_a_whole_file(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};

	(void)state;
	put("f", "0123456789");
	assert_int_equal(file_read_all(at("f"), 10, &b, &e), 0); /* Exactly max. */
	assert_int_equal(b.n, 10);
	assert_memory_equal(b.p, "0123456789", 10);
	put("f", "abc");
	assert_int_equal(file_read_all(at("f"), 10, &b, &e), 0); /* Replaces. */
	assert_int_equal(b.n, 3);
	put("f", "");
	assert_int_equal(file_read_all(at("f"), 10, &b, &e), 0);
	assert_int_equal(b.n, 0);
	/* A file that says it is empty and is not. */
	assert_int_equal(file_read_all("/proc/self/status", 1 << 20, &b, &e), 0);
	assert_true(b.n > 100);
	lc_buf_free(&b);
}

static void
says_what_cannot_be_read(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};

	(void)state;
	put("f", "0123456789");
	assert_int_equal(file_read_all(at("f"), 9, &b, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, at("f")));
	assert_null(b.p);
	lc_err_clear(&e);
	assert_int_equal(file_read_all(at("none"), 9, &b, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, at("none")));
	lc_err_clear(&e);
	assert_int_equal(file_read_all(dir, 9, &b, &e), LC_EIO);
	assert_int_equal(e.sys, EISDIR);
	lc_err_clear(&e);
	assert_int_equal(file_read_all("/proc/self/status", 9, &b, &e), LC_EINVAL);
	assert_null(b.p);
}

static void
replaces_with_the_mode_asked_for(void **state)
{
	struct stat st;
	mode_t old = umask(077);

	(void)state;
	put("f", "old");
	assert_int_equal(file_write_atomic(at("f"), "new!", 4, 0644, NULL), 0);
	(void)umask(old);
	assert_holds("f", "new!");
	assert_int_equal(stat(at("f"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(entries(dir), 1); /* Nothing is left beside it. */
	assert_int_equal(file_write_atomic(at("no/f"), "x", 1, 0600, NULL), LC_ENOENT);
}

static void
new_files_never_replace(void **state)
{
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_int_equal(file_write_new(at("f"), "first", 5, 0600, &e), 0);
	assert_int_equal(file_write_new(at("f"), "second", 6, 0600, &e), LC_EEXIST);
	assert_non_null(strstr(e.msg, at("f")));
	assert_holds("f", "first");
	/* Not even a link to nowhere. */
	assert_int_equal(symlink("nowhere", at("l")), 0);
	assert_int_equal(file_write_new(at("l"), "x", 1, 0600, NULL), LC_EEXIST);
	assert_int_equal(entries(dir), 2);
}

static void
works_in_the_current_folder(void **state)
{
	char was[4096];

	(void)state;
	assert_non_null(getcwd(was, sizeof was));
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(file_write_atomic("f", "x", 1, 0600, NULL), 0);
	assert_int_equal(file_write_new("g", "y", 1, 0600, NULL), 0);
	assert_int_equal(dir_make("a/b", 0700, NULL), 0);
	assert_int_equal(chdir(was), 0);
	assert_holds("f", "x");
	assert_holds("g", "y");
	assert_int_equal(entries(dir), 3);
}

/* A write that fails half way, as on a full disk. */
static void
a_failed_write_leaves_the_old(void **state)
{
	static char big[64 << 10];
	pid_t pid;
	int status;

	(void)state;
	put("f", "old");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit rl = {.rlim_cur = 4096, .rlim_max = 4096};
		struct lc_err e = LC_ERR_INIT;
		int rc;

		(void)signal(SIGXFSZ, SIG_IGN);
		if (setrlimit(RLIMIT_FSIZE, &rl) != 0)
			_exit(9);
		rc = file_write_atomic(at("f"), big, sizeof big, 0600, &e);
		if (rc != LC_EIO || e.sys != EFBIG)
			_exit(1);
		rc = file_write_new(at("g"), big, sizeof big, 0600, NULL);
		_exit(rc == LC_EIO ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_holds("f", "old");
	assert_int_equal(entries(dir), 1);
}

static void
no_memory_changes_nothing(void **state)
{
	struct lc_buf b = {0};
	long n;
	int rc = LC_ENOMEM;

	(void)state;
	put("f", "old");
	for (n = 0; rc != 0; n++) {
		struct lc_err e = LC_ERR_INIT;

		lc_alloc_fail_after(n);
		rc = file_write_atomic(at("f"), "new", 3, 0600, &e);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
		assert_int_equal(e.code, rc);
		/* The new name may stand already where only its folder could not be synced. */
		assert_int_equal(entries(dir), 1);
	}
	assert_true(n > 2);
	assert_holds("f", "new");
	for (n = 0, rc = LC_ENOMEM; rc != 0; n++) {
		lc_alloc_fail_after(n);
		rc = file_read_all(at("f"), 100, &b, NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
	}
	lc_buf_free(&b);
	for (n = 0, rc = LC_ENOMEM; rc != 0; n++) {
		lc_alloc_fail_after(n);
		rc = dir_make(at("a/b/c"), 0700, NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
	}
	assert_true(n > 3);
	assert_int_equal(entries(at("a/b/c")), 0);
	lc_alloc_fail_after(0);
	assert_null(path_join("a", "b"));
	assert_null(path_dirname("a/b"));
	lc_alloc_fail_after(-1);
}

/* ---- parts of files ---- */

static void
reads_and_writes_at_offsets(void **state)
{
	int fd = open(at("f"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct lc_err e = LC_ERR_INIT;
	char b[8];

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(file_pwrite_full(fd, "abcdef", 6, 10, "f", &e), 0);
	assert_int_equal(file_pread_full(fd, b, 6, 10, "f", &e), 0);
	assert_memory_equal(b, "abcdef", 6);
	assert_int_equal(file_pread_full(fd, b, 0, 9999, "f", &e), 0);
	assert_int_equal(file_pread_full(fd, b, 2, 9, "f", &e), 0);
	assert_memory_equal(b, "\0a", 2);
	assert_int_equal(file_pread_full(fd, b, 7, 10, "segment 5", &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "segment 5"));
	lc_err_clear(&e);
	/* Offsets out of stored data are damage, whatever they are. */
	assert_int_equal(file_pread_full(fd, b, 1, UINT64_MAX, "f", &e), LC_ECORRUPT);
	assert_int_equal(file_pread_full(fd, b, 8, INT64_MAX - 4, "f", NULL), LC_ECORRUPT);
	assert_int_equal(file_pwrite_full(fd, b, 1, UINT64_MAX, "f", NULL), LC_EINVAL);
	fd_close(&fd);
	assert_int_equal(fd, -1);
	fd_close(&fd);
	lc_err_clear(&e);
	assert_int_equal(file_pread_full(-1, b, 1, 0, "f", &e), LC_EIO);
	assert_int_equal(e.sys, EBADF);
}

/* ---- folders ---- */

static void
makes_folders(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct stat st;

	(void)state;
	assert_int_equal(dir_make(at("a/b//c/"), 0700, &e), 0);
	assert_int_equal(stat(at("a/b/c"), &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(dir_make(at("a/b/c"), 0700, &e), 0);
	assert_int_equal(dir_make("/", 0700, &e), 0);
	assert_int_equal(symlink("a", at("l")), 0);
	assert_int_equal(dir_make(at("l/d"), 0700, &e), 0); /* Through a link to a folder. */
	assert_int_equal(dir_sync(at("a/d"), &e), 0);
	put("f", "x");
	assert_int_equal(dir_make(at("f/g"), 0700, &e), LC_EEXIST);
	assert_non_null(strstr(e.msg, at("f")));
	assert_int_equal(dir_sync(at("none"), NULL), LC_ENOENT);
	assert_int_not_equal(dir_sync(at("f"), NULL), 0);
}

static void
removing_follows_no_link(void **state)
{
	(void)state;
	assert_int_equal(dir_make(at("keep"), 0700, NULL), 0);
	put("keep/f", "kept");
	assert_int_equal(dir_make(at("gone/a/b"), 0700, NULL), 0);
	put("gone/a/f", "x");
	assert_int_equal(symlink("../keep", at("gone/link")), 0);
	assert_int_equal(symlink("../../../keep", at("gone/a/b/link")), 0);
	dir_remove(at("gone"));
	assert_int_equal(access(at("gone"), F_OK), -1);
	assert_holds("keep/f", "kept");
	/* Nor the path itself. */
	assert_int_equal(symlink("keep", at("l")), 0);
	dir_remove(at("l"));
	assert_holds("keep/f", "kept");
	dir_remove(at("none"));
}

static void
paths(void **state)
{
	static const char *const rows[][2] = {
	    {"a/b", "a"},  {"a", "."},   {"/a", "/"}, {"/", "/"},         {"a/b/", "a"},
	    {"a//b", "a"}, {"//a", "/"}, {"", "."},   {"/a/b/c", "/a/b"}, {"a/", "."},
	};
	size_t i;
	char *p;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		p = path_dirname(rows[i][0]);
		assert_string_equal(p, rows[i][1]);
		lc_free(p);
	}
	p = path_join("a", "b");
	assert_string_equal(p, "a/b");
	lc_free(p);
	p = path_join("/", "b");
	assert_string_equal(p, "/b");
	lc_free(p);
	p = path_join("", "b");
	assert_string_equal(p, "b");
	lc_free(p);
}

static void
random_bytes_differ(void **state)
{
	uint8_t a[1000] = {0}, b[1000] = {0};

	(void)state;
	random_bytes(a, sizeof a);
	random_bytes(b, sizeof b);
	assert_memory_not_equal(a, b, sizeof a);
	assert_memory_not_equal(a + 900, b + 900, 100); /* To the end. */
	random_bytes(a, 0);
}

/* ---- locks ---- */

static void
one_holder_at_a_time(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	char want[64];
	int fd, other;

	(void)state;
	assert_int_equal(file_lock(at("lock"), 0600, "locum backup", &fd, &e), 0);
	assert_true(fd >= 0);
	assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
	other = 77;
	assert_int_equal(file_lock(at("lock"), 0600, "locum prune", &other, &e), LC_EBUSY);
	assert_int_equal(other, -1);
	(void)snprintf(want, sizeof want, "in use by locum backup (pid %d) since 20",
	               (int)getpid());
	assert_non_null(strstr(e.msg, want));
	assert_non_null(strstr(e.msg, at("lock")));
	lc_err_clear(&e);
	fd_close(&fd);
	assert_int_equal(file_lock(at("lock"), 0600, "b", &other, &e), 0);
	/* The shorter text left nothing of the longer one. */
	assert_int_equal(file_lock(at("lock"), 0600, "c", &fd, &e), LC_EBUSY);
	assert_non_null(strstr(e.msg, "in use by b (pid"));
	fd_close(&other);
	assert_int_equal(file_lock(at("no/lock"), 0600, "c", &fd, NULL), LC_ENOENT);
}

static void
strange_texts_are_not_believed(void **state)
{
	static const char *const texts[] = {"", "x", "12", "-5 7 who\n", "0 1 who\n", "12 x y\n"};
	size_t i;
	int fd, other;

	(void)state;
	for (i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		struct lc_err e = LC_ERR_INIT;

		put("lock", texts[i]);
		fd = open(at("lock"), O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(flock(fd, LOCK_EX), 0);
		assert_int_equal(file_lock(at("lock"), 0600, "a", &other, &e), LC_EBUSY);
		assert_non_null(strstr(e.msg, "in use by another process"));
		fd_close(&fd);
	}
}

static void
a_lock_dies_with_its_holder(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	int fd, other, pipe_fds[2], status;
	pid_t pid;
	char c;

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (file_lock(at("lock"), 0600, "victim", &fd, NULL) != 0 ||
		    write(pipe_fds[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			(void)pause();
	}
	assert_int_equal(read(pipe_fds[0], &c, 1), 1);
	assert_int_equal(file_lock(at("lock"), 0600, "me", &fd, &e), LC_EBUSY);
	assert_non_null(strstr(e.msg, "in use by victim (pid"));
	lc_err_clear(&e);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(file_lock(at("lock"), 0600, "me", &fd, &e), 0);
	assert_int_equal(file_lock(at("lock"), 0600, "him", &other, &e), LC_EBUSY);
	assert_non_null(strstr(e.msg, "in use by me (pid"));
	fd_close(&fd);
	(void)close(pipe_fds[0]);
	(void)close(pipe_fds[1]);
}

static void
a_removed_file_is_not_locked(void **state)
{
	int fd, other;

	(void)state;
	assert_int_equal(file_lock(at("lock"), 0600, "a", &fd, NULL), 0);
	assert_int_equal(unlink(at("lock")), 0);
	assert_int_equal(file_lock(at("lock"), 0600, "b", &other, NULL), 0);
	fd_close(&fd);
	assert_int_equal(file_lock(at("lock"), 0600, "c", &fd, NULL), LC_EBUSY);
	fd_close(&other);
}

static pid_t
start_contender(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		int fd;

		(void)alarm(20);
		while (file_lock(at("lock"), 0600, "contender", &fd, NULL) != 0)
			continue;
		_exit(0); /* Dies as holder: its text stays behind. */
	}
	return pid;
}

/* Nobody who was dead before the question may be the answer. */
static void
stale_texts_are_never_told(void **state)
{
	/* More where none was told yet: whom an asker meets is for the scheduler to say. */
	enum { ROUNDS = 150, ROUNDS_MAX = 6000, LIVE = 3, MAX_DEAD = ROUNDS_MAX + LIVE };
	static pid_t dead[MAX_DEAD];
	size_t ndead = 0, started = 0, told = 0, i;

	(void)state;
	for (; started < LIVE; started++)
		assert_true(start_contender() > 0);
	while (ndead < started) {
		struct lc_err e = LC_ERR_INIT;
		const char *text;
		pid_t pid;
		int fd;

		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
			dead[ndead++] = pid;
			if (started < ROUNDS || (told == 0 && started < ROUNDS_MAX)) {
				assert_true(start_contender() > 0);
				started++;
			}
		}
		if (file_lock(at("lock"), 0600, "asker", &fd, &e) == 0) {
			fd_close(&fd);
			continue;
		}
		assert_int_equal(e.code, LC_EBUSY);
		text = strstr(e.msg, "(pid ");
		if (text == NULL)
			continue;
		told++;
		for (i = 0; i < ndead; i++)
			assert_int_not_equal(dead[i], atoi(text + 5));
	}
	assert_true(told > 0);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	    T(reads_a_whole_file),
	    T(says_what_cannot_be_read),
	    T(replaces_with_the_mode_asked_for),
	    T(new_files_never_replace),
	    T(works_in_the_current_folder),
	    T(a_failed_write_leaves_the_old),
	    T(no_memory_changes_nothing),
	    T(reads_and_writes_at_offsets),
	    T(makes_folders),
	    T(removing_follows_no_link),
	    T(paths),
	    T(random_bytes_differ),
	    T(one_holder_at_a_time),
	    T(strange_texts_are_not_believed),
	    T(a_lock_dies_with_its_holder),
	    T(a_removed_file_is_not_locked),
	    T(stale_texts_are_never_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

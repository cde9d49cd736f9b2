/*
 * Ids are numbered from 1 and made from their number, so every answer can be checked.  Failpoints
 * are read before main(), so those cases run this program again.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/idindex.h"
#include "tests/lib/unit.h"

#define HEADER_SIZE 128u
#define ENTRY_SIZE 24u

static const uint8_t store_id[16] = "a store";

static uint64_t
mix(uint64_t v)
{
	v += UINT64_C(0x9e3779b97f4a7c15);
	v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
	return v ^ v >> 31;
}

static void
make_id(uint64_t n, uint8_t id[32])
{
	unsigned i;

	for (i = 0; i < 4; i++)
		lc_put64(id + (size_t)8 * i, mix(4 * n + i));
}

static uint64_t random_state = 1;

static uint64_t
any_below(uint64_t n)
{
	return mix(random_state++) % n;
}

static struct idindex *
open_index(const char *dir, size_t mem_max, uint64_t *covered)
{
	struct idindex *x = NULL;
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(idindex_open(dir, store_id, mem_max, true, &x, covered, &e), 0);
	return x;
}

static void
add(struct idindex *x, uint64_t from, uint64_t to)
{
	uint8_t id[32];
	uint64_t n;

	for (n = from; n <= to; n++) {
		make_id(n, id);
		idindex_add(x, id, n);
	}
}

static enum idindex_hit
find(struct idindex *x, uint64_t n)
{
	uint8_t id[32];
	uint64_t number = 0;
	enum idindex_hit hit;

	make_id(n, id);
	hit = idindex_find(x, id, &number);
	if (hit != IDINDEX_NEW)
		assert_true(number == n);
	return hit;
}

/* How many of the ids are not found at all. */
static uint64_t
missed(struct idindex *x, uint64_t from, uint64_t to)
{
	uint64_t n, count = 0;

	for (n = from; n <= to; n++)
		count += find(x, n) == IDINDEX_NEW;
	return count;
}

static void
flush(struct idindex *x, uint64_t durable)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(idindex_flush(x, durable, &e), 0);
}

/* The number of files in dir; the last one's path in path where that is not NULL. */
static unsigned
files_in(const char *dir, char *path, size_t npath)
{
	unsigned n = 0;
	struct dirent *de;
	DIR *d = opendir(dir);

	if (d == NULL)
		return 0;
	while ((de = readdir(d)) != NULL) {
		if (de->d_name[0] == '.')
			continue;
		n++;
		if (path != NULL)
			(void)snprintf(path, npath, "%s/%s", dir, de->d_name);
	}
	(void)closedir(d);
	return n;
}

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
memory_does_what_a_table_does(void **state)
{
	static uint64_t model[4000]; /* the number of the id, or 0 */
	char *dir = tmpdir_new();
	uint64_t covered, number, n;
	struct idindex *x = open_index(dir, 100000, &covered);
	uint8_t id[32];
	int i;

	(void)state;
	assert_true(covered == 0);
	for (i = 0; i < 60000; i++) {
		n = any_below(4000);
		make_id(n, id);
		number = 1 + any_below(1000000);
		switch (any_below(4)) {
		case 0:
			idindex_add(x, id, number);
			if (model[n] == 0 || number < model[n])
				model[n] = number;
			break;
		case 1:
			assert_int_equal(idindex_claim(x, id, &number), model[n] == 0);
			if (model[n] == 0)
				model[n] = number;
			assert_true(number == model[n]);
			break;
		case 2:
			if (any_below(2) == 0) {
				idindex_forget(x, id);
				model[n] = 0;
			}
			break;
		default:
			assert_int_equal(idindex_find(x, id, &number),
			                 model[n] == 0 ? IDINDEX_NEW : IDINDEX_FOUND);
			assert_true(model[n] == 0 || number == model[n]);
			break;
		}
	}
	idindex_close(x);
	idindex_close(NULL);
	tmpdir_free(dir);
}

static void
flush_writes_only_what_is_durable(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered;
	struct idindex *x = open_index(dir, 100, &covered);

	(void)state;
	add(x, 1, 100);
	flush(x, 100); /* Not over the limit. */
	assert_int_equal(files_in(dir, NULL, 0), 0);
	add(x, 101, 300);
	flush(x, 0);
	flush(x, 40); /* Too few. */
	assert_int_equal(files_in(dir, NULL, 0), 0);
	flush(x, 150);
	assert_int_equal(files_in(dir, NULL, 0), 1);
	assert_int_equal(find(x, 1), IDINDEX_CANDIDATE);
	assert_int_equal(find(x, 150), IDINDEX_CANDIDATE);
	assert_int_equal(find(x, 151), IDINDEX_FOUND);
	assert_int_equal(find(x, 300), IDINDEX_FOUND);
	assert_int_equal(missed(x, 1, 300), 0);
	assert_int_equal(missed(x, 301, 2000), 1700);
	idindex_close(x);
	x = open_index(dir, 100, &covered);
	assert_true(covered == 150);
	assert_int_equal(missed(x, 1, 150), 0);
	assert_int_equal(missed(x, 151, 300), 150);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
ids_stay_found_over_flushes_and_reopening(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, n = 0, durable = 0;
	struct idindex *x = open_index(dir, 300, &covered);
	unsigned round, files, most = 0;

	(void)state;
	for (round = 0; round < 100; round++) {
		uint64_t more = any_below(200);

		add(x, n + 1, n + more);
		n += more;
		if (any_below(3) > 0)
			durable = any_below(2) == 0 || n < durable + 50 ? n : n - 50;
		flush(x, durable);
		files = files_in(dir, NULL, 0);
		most = files > most ? files : most;
		if (any_below(20) == 0) {
			idindex_close(x);
			x = open_index(dir, 300, &covered);
			assert_true(covered <= durable);
			add(x, covered + 1, n);
		}
		if (any_below(10) == 0)
			assert_int_equal(missed(x, 1, n), 0);
	}
	assert_int_equal(missed(x, 1, n), 0);
	assert_int_equal(missed(x, n + 1, n + 20000), 20000);
	assert_true(n > 8000);
	assert_in_range(most, 2, 6);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
the_newer_number_of_an_id_counts(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, number;
	struct idindex *x = open_index(dir, 100, &covered);
	uint8_t id[32];

	(void)state;
	add(x, 1, 2000);
	flush(x, 2000);
	make_id(7, id); /* Collected, and came again. */
	idindex_add(x, id, 2001);
	add(x, 2002, 2200);
	assert_int_equal(idindex_find(x, id, &number), IDINDEX_FOUND);
	flush(x, 2200);
	assert_int_equal(files_in(dir, NULL, 0), 2);
	assert_int_equal(idindex_find(x, id, &number), IDINDEX_CANDIDATE);
	assert_true(number == 2001);
	add(x, 2201, 6000);
	flush(x, 6000);
	assert_int_equal(files_in(dir, NULL, 0), 1);
	assert_int_equal(idindex_find(x, id, &number), IDINDEX_CANDIDATE);
	assert_true(number == 2001);
	/* Numbers that are covered already go into the run that covers them. */
	idindex_forget(x, id);
	add(x, 1, 150);
	flush(x, 6000);
	idindex_close(x);
	x = open_index(dir, 100, &covered);
	assert_true(covered == 6000);
	assert_int_equal(missed(x, 1, 6000), 1); /* The one that id 7 took. */
	idindex_close(x);
	tmpdir_free(dir);
}

static void
uneven_ids_are_found_too(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, number, n;
	struct idindex *x = open_index(dir, 100, &covered);
	uint8_t id[32] = {0};
	unsigned round;

	(void)state;
	for (round = 0; round < 2; round++) {
		for (n = 1; n <= 3000; n++) {
			memset(id, round == 0 ? 0 : 255, sizeof id);
			lc_put64(id + 8, n);
			idindex_add(x, id, n + 3000 * round);
		}
		flush(x, 6000);
	}
	for (n = 0; n <= 3001; n++) {
		memset(id, 0, sizeof id);
		lc_put64(id + 8, n);
		assert_int_equal(idindex_find(x, id, &number),
		                 n >= 1 && n <= 3000 ? IDINDEX_CANDIDATE : IDINDEX_NEW);
		assert_true(n < 1 || n > 3000 || number == n);
		memset(id, 255, sizeof id);
		lc_put64(id + 8, n);
		assert_int_equal(idindex_find(x, id, &number),
		                 n >= 1 && n <= 3000 ? IDINDEX_CANDIDATE : IDINDEX_NEW);
		assert_true(n < 1 || n > 3000 || number == n + 3000);
	}
	idindex_close(x);
	tmpdir_free(dir);
}

static void
runs_of_another_store_are_not_taken(void **state)
{
	static const uint8_t other[16] = "another store";
	char *dir = tmpdir_new();
	struct lc_err e = LC_ERR_INIT;
	uint64_t covered;
	struct idindex *x = open_index(dir, 100, &covered);

	(void)state;
	add(x, 1, 300);
	flush(x, 300);
	idindex_close(x);
	assert_int_equal(idindex_open(dir, other, 100, false, &x, &covered, &e), 0);
	assert_true(covered == 0);
	assert_int_equal(find(x, 1), IDINDEX_NEW);
	add(x, 1, 300);
	flush(x, 300); /* Does nothing: not writable. */
	idindex_reset(x);
	idindex_close(x);
	assert_int_equal(files_in(dir, NULL, 0), 1);
	assert_int_equal(idindex_open(dir, store_id, 100, false, &x, &covered, &e), 0);
	assert_true(covered == 300);
	assert_int_equal(missed(x, 1, 300), 0);
	idindex_close(x);
	assert_int_equal(idindex_open(dir, other, 100, true, &x, &covered, &e), 0);
	idindex_close(x);
	assert_int_equal(files_in(dir, NULL, 0), 0);
	assert_int_equal(
	    idindex_open(tmpdir_path(dir, "none"), store_id, 100, false, &x, &covered, &e), 0);
	idindex_close(x);
	assert_int_equal(files_in(dir, NULL, 0), 0);
	tmpdir_free(dir);
}

/* Three runs in dir: of the numbers to 4000, to 5000 and to 5200. */
static struct idindex *
three_runs(const char *dir)
{
	uint64_t covered;
	struct idindex *x = open_index(dir, 100, &covered);

	add(x, 1, 4000);
	flush(x, 4000);
	add(x, 4001, 5000);
	flush(x, 5000);
	add(x, 5001, 5200);
	flush(x, 5200);
	assert_int_equal(files_in(dir, NULL, 0), 3);
	return x;
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

		idindex_close(three_runs(dir));
		(void)snprintf(name, sizeof name, "%u.run", gone + 1);
		assert_int_equal(unlink(tmpdir_path(dir, name)), 0);
		struct idindex *x = open_index(dir, 100, &covered);
		assert_true(covered == want[gone]);
		assert_int_equal(files_in(dir, NULL, 0), gone);
		assert_int_equal(missed(x, 1, covered), 0);
		add(x, covered + 1, 5200);
		flush(x, 5200);
		assert_int_equal(missed(x, 1, 5200), 0);
		idindex_close(x);
		tmpdir_free(dir);
	}
}

static void
merged_runs_that_were_left_are_deleted(void **state)
{
	char *dir = tmpdir_new(), *saved = tmpdir_new();
	uint64_t covered;
	struct idindex *x = three_runs(dir);
	static const char *const names[] = {"1.run", "2.run", "3.run"};
	unsigned i;

	(void)state;
	for (i = 0; i < 3; i++)
		copy_file(tmpdir_path(dir, names[i]), tmpdir_path(saved, names[i]));
	add(x, 5201, 9000);
	flush(x, 9000);
	idindex_close(x);
	assert_int_equal(files_in(dir, NULL, 0), 1);
	for (i = 0; i < 3; i++)
		copy_file(tmpdir_path(saved, names[i]), tmpdir_path(dir, names[i]));
	copy_file(tmpdir_path(saved, names[0]), tmpdir_path(dir, "17.run.tmp"));
	copy_file(tmpdir_path(saved, names[0]), tmpdir_path(dir, "notes.txt"));
	x = open_index(dir, 100, &covered);
	assert_true(covered == 9000);
	assert_int_equal(missed(x, 1, 9000), 0);
	assert_int_equal(files_in(dir, NULL, 0), 2);
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
		make_id(n, id);
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
	struct idindex *x = open_index(dir, 100, &covered);
	size_t at, blocks_end;
	int fd;

	(void)state;
	add(x, 1, 200);
	flush(x, 200);
	idindex_close(x);
	assert_int_equal(files_in(dir, path, sizeof path), 1);
	assert_int_equal(file_read_all(path, 65536, &whole, &e), 0);
	blocks_end = whole.n - 200u * ENTRY_SIZE;
	for (at = 0; at < whole.n; at += at < blocks_end ? 1 : 97) {
		write_file(path, whole.p, whole.n);
		flip_byte(path, (off_t)at);
		x = open_index(dir, 100, &covered);
		/* Header and blocks are checked at open, entries when they are merged. */
		assert_true(covered == (at < blocks_end ? 0 : 200));
		look_around(x);
		idindex_close(x);
	}
	for (at = 0; at < whole.n; at += 61) {
		write_file(path, whole.p, at);
		x = open_index(dir, 100, &covered);
		assert_true(covered == 0);
		look_around(x);
		idindex_close(x);
		assert_int_equal(files_in(dir, NULL, 0), 0);
	}
	/* Cut while it is open. */
	write_file(path, whole.p, whole.n);
	x = open_index(dir, 100, &covered);
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
	struct idindex *x = three_runs(dir);

	(void)state;
	flip_byte(tmpdir_path(dir, "2.run"), HEADER_SIZE + 23 * 64 + 30 * ENTRY_SIZE);
	add(x, 5201, 9000);
	assert_int_equal(idindex_flush(x, 9000, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "2.run"));
	assert_int_equal(files_in(dir, NULL, 0), 1);
	assert_int_equal(missed(x, 1, 4000), 0);
	assert_int_equal(missed(x, 4001, 5200), 1200);
	assert_int_equal(missed(x, 5201, 9000), 0);
	/* It goes on, and does not claim to cover what it lost. */
	flush(x, 9000);
	assert_int_equal(missed(x, 5201, 9000), 0);
	add(x, 9001, 40000);
	flush(x, 40000);
	idindex_close(x);
	x = open_index(dir, 100, &covered);
	assert_true(covered == 4000);
	add(x, covered + 1, 40000);
	flush(x, 40000);
	assert_int_equal(missed(x, 1, 40000), 0);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
reset_forgets_everything(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered;
	struct idindex *x = three_runs(dir);

	(void)state;
	add(x, 5201, 5250);
	idindex_reset(x);
	assert_int_equal(files_in(dir, NULL, 0), 0);
	assert_int_equal(missed(x, 1, 5250), 5250);
	assert_int_equal(idindex_memory(x), 0);
	add(x, 1, 300);
	flush(x, 300);
	idindex_close(x);
	x = open_index(dir, 100, &covered);
	assert_true(covered == 300);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
memory_stays_small(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered;
	struct idindex *x = open_index(dir, 200000, &covered);

	(void)state;
	add(x, 1, 200000);
	assert_true(idindex_memory(x) < 16u << 20);
	add(x, 200001, 200001);
	flush(x, 200001);
	assert_true(idindex_memory(x) < 1u << 20);
	assert_int_equal(missed(x, 199000, 200001), 0);
	idindex_close(x);
	tmpdir_free(dir);
}

static void
running_out_of_memory_forgets_at_most(void **state)
{
	char *dir = tmpdir_new();
	struct lc_err e = LC_ERR_INIT;
	uint64_t covered, number = 1;
	struct idindex *x = NULL;
	uint8_t id[32];
	int rc = LC_ENOMEM;
	long n;

	(void)state;
	for (n = 0; rc != 0 && n < 50; n++) {
		lc_alloc_fail_after(n);
		rc = idindex_open(dir, store_id, 100, true, &x, &covered, NULL);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
	}
	assert_int_equal(rc, 0);
	lc_alloc_fail_after(0);
	make_id(1, id);
	assert_true(idindex_claim(x, id, &number));
	assert_true(idindex_claim(x, id, &number));
	idindex_add(x, id, 1);
	idindex_forget(x, id);
	assert_int_equal(idindex_find(x, id, &number), IDINDEX_NEW);
	lc_alloc_fail_after(-1);
	add(x, 1, 4000);
	flush(x, 4000);
	add(x, 4001, 8000);
	for (n = 0, rc = LC_ENOMEM; rc != 0 && n < 50; n++) {
		lc_err_clear(&e);
		lc_alloc_fail_after(n);
		rc = idindex_flush(x, 8000, &e);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
		/* A merged run whose path there was no memory for is deleted at the next open. */
		assert_in_range(files_in(dir, NULL, 0), 1, rc == 0 ? 2 : 1);
		assert_int_equal(missed(x, 1, 8000), 0);
	}
	assert_int_equal(rc, 0);
	assert_true(n > 5);
	idindex_close(x);
	for (n = 0; n < 20; n++) { /* A run that could not be opened for want of memory is gone. */
		lc_alloc_fail_after(n);
		rc = idindex_open(dir, store_id, 100, true, &x, &covered, NULL);
		lc_alloc_fail_after(-1);
		if (rc == 0)
			idindex_close(x);
	}
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

	if (idindex_open(dir, store_id, 100, true, &x, &covered, &e) != 0)
		return 90;
	for (n = covered + 1; n <= 9000; n++) {
		make_id(n, id);
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
		char *argv[] = {lc_strdup("test_idindex"), lc_strdup(dir), NULL};

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

		idindex_close(three_runs(dir));
		assert_int_equal(run_child(dir, cases[i].failpoint), cases[i].want);
		x = open_index(dir, 100, &covered);
		assert_true(covered == (cases[i].want < 1000 ? 9000 : 5200));
		assert_int_equal(missed(x, 1, covered), 0);
		add(x, covered + 1, 9000);
		assert_int_equal(missed(x, 1, 9000), 0);
		flush(x, 9000);
		assert_int_equal(missed(x, 1, 9000), 0);
		assert_int_equal(files_in(dir, NULL, 0), 1);
		idindex_close(x);
		tmpdir_free(dir);
	}
}

/* Threads. */

struct shared {
	struct idindex *x;
	_Atomic uint64_t added; /* ids up to it are in the index */
	atomic_bool stop;
	uint64_t wrong, looked;
};

static void *
look_up(void *arg)
{
	struct shared *s = arg;
	uint64_t n, number, i = 0;
	uint8_t id[32];

	while (!atomic_load(&s->stop)) {
		n = atomic_load(&s->added);
		if (n == 0)
			continue;
		n = 1 + mix(i++) % n;
		make_id(n, id);
		s->wrong += idindex_find(s->x, id, &number) == IDINDEX_NEW || number != n;
		s->looked++;
	}
	return NULL;
}

static void
lookups_go_on_while_flushing(void **state)
{
	char *dir = tmpdir_new();
	uint64_t covered, n;
	struct shared s = {.x = open_index(dir, 200, &covered)};
	uint8_t id[32];
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, look_up, &s), 0);
	for (n = 1; n <= 12000; n++) {
		make_id(n, id);
		idindex_add(s.x, id, n);
		atomic_store(&s.added, n);
		if (n % 100 == 0)
			(void)idindex_flush(s.x, n, NULL);
	}
	atomic_store(&s.stop, true);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(s.wrong, 0);
	idindex_close(s.x);
	tmpdir_free(dir);
}

#define CLAIMS 20000u

struct claimer {
	struct idindex *x;
	uint64_t base;
	uint8_t won[CLAIMS];
	uint64_t got[CLAIMS];
};

static void *
claim_all(void *arg)
{
	struct claimer *c = arg;
	uint8_t id[32];
	unsigned i;

	for (i = 0; i < CLAIMS; i++) {
		make_id(i, id);
		c->got[i] = c->base + i;
		c->won[i] = idindex_claim(c->x, id, &c->got[i]);
	}
	return NULL;
}

static void
one_of_two_claims_wins(void **state)
{
	static struct claimer a, b;
	char *dir = tmpdir_new();
	uint64_t covered;
	pthread_t t;
	unsigned i;

	(void)state;
	a.x = b.x = open_index(dir, 1000000, &covered);
	a.base = 1;
	b.base = 1 + CLAIMS;
	assert_int_equal(pthread_create(&t, NULL, claim_all, &a), 0);
	(void)claim_all(&b);
	assert_int_equal(pthread_join(t, NULL), 0);
	for (i = 0; i < CLAIMS; i++) {
		assert_int_equal(a.won[i] + b.won[i], 1);
		assert_true(a.got[i] == b.got[i]);
	}
	idindex_close(a.x);
	tmpdir_free(dir);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(memory_does_what_a_table_does),
	    cmocka_unit_test(flush_writes_only_what_is_durable),
	    cmocka_unit_test(ids_stay_found_over_flushes_and_reopening),
	    cmocka_unit_test(the_newer_number_of_an_id_counts),
	    cmocka_unit_test(uneven_ids_are_found_too),
	    cmocka_unit_test(runs_of_another_store_are_not_taken),
	    cmocka_unit_test(runs_behind_a_gap_are_made_again),
	    cmocka_unit_test(merged_runs_that_were_left_are_deleted),
	    cmocka_unit_test(damage_is_found_or_harmless),
	    cmocka_unit_test(damage_that_a_merge_finds_drops_the_run),
	    cmocka_unit_test(reset_forgets_everything),
	    cmocka_unit_test(memory_stays_small),
	    cmocka_unit_test(running_out_of_memory_forgets_at_most),
	    cmocka_unit_test(faults_while_flushing_lose_nothing),
	    cmocka_unit_test(lookups_go_on_while_flushing),
	    cmocka_unit_test(one_of_two_claims_wins),
	};

	return argc > 1 ? child_main(argv[1]) : cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * idindex: whatever lies in its folder as a run, the index opens, says of no id that it is
 * certainly there, merges or drops the run, and finds all ids that it was given.
 *
 * The first byte is the run's number of blocks, or 0 to leave the header as it is; else magic,
 * counts and checksums are made to fit, so that what is behind them is reached.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/idindex.h"
#include "tests/fuzz/fuzz.h"

#define HEADER 128u
#define IDS 120u

static const uint8_t store_id[16] = "fuzz";
static char *dir;

static void
remove_dir(void)
{
	dir_remove(dir);
	lc_free(dir);
}

static void
make_dir(void)
{
	dir = lc_strdup(access("/dev/shm", W_OK) == 0 ? "/dev/shm/locum-fuzz-XXXXXX"
	                                              : "/tmp/locum-fuzz-XXXXXX");
	fuzz_check(dir != NULL && mkdtemp(dir) != NULL);
	(void)atexit(remove_dir);
}

static void
make_id(uint64_t n, uint8_t id[32])
{
	unsigned i;

	for (i = 0; i < 4; i++)
		lc_put64(id + (size_t)8 * i, XXH3_64bits_withSeed(&n, sizeof n, i));
}

/* A header that agrees with what follows it, as far as that can be. */
static void
fit_header(uint8_t *p, size_t n, uint64_t nblocks)
{
	uint64_t left = n - HEADER;

	if (nblocks * 64 > left)
		nblocks = left / 64;
	memset(p, 0, HEADER);
	memcpy(p, "LOCUMIDX\1", 9);
	memcpy(p + 16, store_id, 16);
	lc_put64(p + 40, 1000);
	lc_put64(p + 48, (left - nblocks * 64) / 24);
	lc_put64(p + 56, nblocks);
	lc_put64(p + 64, XXH3_64bits_withSeed(p + HEADER, nblocks * 64, 0));
	lc_put64(p + 72, XXH3_64bits_withSeed(p + HEADER + nblocks * 64,
	                                      (left - nblocks * 64) / 24 * 24, 0));
	lc_put64(p + 120, XXH3_64bits(p, 120));
}

static void
put_run(uint8_t *p, size_t n)
{
	char *path = path_join(dir, "1.run");
	int fd;

	fuzz_check(path != NULL);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	fuzz_check(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	(void)close(fd);
	lc_free(path);
}

static void
look_up(struct idindex *x, const uint8_t *p, size_t n)
{
	uint8_t id[32] = {0};
	uint64_t number;
	size_t i;

	for (i = 0; i + 16 <= n; i += 8) {
		memcpy(id, p + i, 16);
		fuzz_check(idindex_find(x, id, &number) != IDINDEX_FOUND);
	}
}

static void
check_ids(struct idindex *x, uint64_t first, enum idindex_hit want)
{
	uint8_t id[32];
	uint64_t i, number;

	for (i = 0; i < IDS; i++) {
		make_id(i, id);
		fuzz_check(idindex_find(x, id, &number) == want && number == first + i);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	uint8_t *run, id[32];
	uint64_t covered, i, first;
	struct lc_err e = LC_ERR_INIT;
	struct idindex *x = NULL;
	int rc;

	if (dir == NULL)
		make_dir();
	if (n == 0 || n > 8192)
		return 0;
	run = lc_alloc(n);
	fuzz_check(run != NULL);
	memcpy(run, p + 1, n - 1);
	if (p[0] > 0 && n > HEADER + 64 + 24) {
		fit_header(run, n - 1, p[0]);
		n = HEADER + (size_t)lc_get64(run + 56) * 64 + (size_t)lc_get64(run + 48) * 24;
	} else {
		n--;
	}
	put_run(run, n);
	fuzz_check(idindex_open(dir, store_id, 100, true, &x, &covered, &e) == 0);
	look_up(x, run, n);
	lc_free(run);
	first = covered >= UINT64_MAX / 2 ? 1 : covered + 1;
	for (i = 0; i < IDS; i++) {
		make_id(i, id);
		idindex_add(x, id, first + i);
	}
	check_ids(x, first, IDINDEX_FOUND);
	rc = idindex_flush(x, UINT64_MAX, &e);
	fuzz_check(rc == 0 || rc == LC_ECORRUPT);
	check_ids(x, first, rc == 0 ? IDINDEX_CANDIDATE : IDINDEX_FOUND);
	if (rc != 0)
		fuzz_check(idindex_flush(x, UINT64_MAX, NULL) == 0);
	idindex_close(x);
	fuzz_check(idindex_open(dir, store_id, 100, true, &x, &covered, &e) == 0);
	idindex_reset(x);
	idindex_close(x);
	return 0;
}

/*
 * Ids are numbered from 1 and made from their number, so every answer can be checked.
 */
#include <dirent.h>
#include <stdio.h>

#include "store/base/bytes.h"
#include "tests/lib/unit.h"
#include "tests/unit/numbered.h"

const uint8_t numbered_store[16] = "a store";

uint64_t
numbered_mix(uint64_t v)
{
	v += UINT64_C(0x9e3779b97f4a7c15);
	v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
	return v ^ v >> 31;
}

void
numbered_id(uint64_t n, uint8_t id[32])
{
	unsigned i;

	for (i = 0; i < 4; i++)
		lc_put64(id + (size_t)8 * i, numbered_mix(4 * n + i));
}

struct idindex *
numbered_open(const char *dir, size_t mem_max, uint64_t *covered)
{
	struct idindex *x = NULL;
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(idindex_open(dir, numbered_store, mem_max, true, &x, covered, &e), 0);
	return x;
}

void
numbered_add(struct idindex *x, uint64_t from, uint64_t to)
{
	uint8_t id[32];
	uint64_t n;

	for (n = from; n <= to; n++) {
		numbered_id(n, id);
		idindex_add(x, id, n);
	}
}

enum idindex_hit
numbered_find(struct idindex *x, uint64_t n)
{
	uint8_t id[32];
	uint64_t number = 0;
	enum idindex_hit hit;

	numbered_id(n, id);
	hit = idindex_find(x, id, &number);
	if (hit != IDINDEX_NEW)
		assert_true(number == n);
	return hit;
}

uint64_t
numbered_missed(struct idindex *x, uint64_t from, uint64_t to)
{
	uint64_t n, count = 0;

	for (n = from; n <= to; n++)
		count += numbered_find(x, n) == IDINDEX_NEW;
	return count;
}

void
numbered_flush(struct idindex *x, uint64_t durable)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(idindex_flush(x, durable, &e), 0);
}

unsigned
numbered_files(const char *dir, char *path, size_t npath)
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

struct idindex *
numbered_three_runs(const char *dir)
{
	uint64_t covered;
	struct idindex *x = numbered_open(dir, 100, &covered);

	numbered_add(x, 1, 4000);
	numbered_flush(x, 4000);
	numbered_add(x, 4001, 5000);
	numbered_flush(x, 5000);
	numbered_add(x, 5001, 5200);
	numbered_flush(x, 5200);
	assert_int_equal(numbered_files(dir, NULL, 0), 3);
	return x;
}

/*
 * Reading ahead: what is to be read next, bases included, gets into the page cache.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define WINDOWS 400u

/* How many pages of a record are in memory, of how many. */
static unsigned
resident(const uint8_t *file, const struct record *r, unsigned *pages)
{
	unsigned char in[32] = {0};
	uint64_t from = r->off - r->off % 4096;
	size_t n = (size_t)(r->off + record_size(r->n) - from), i;
	unsigned sum = 0;

	*pages = (unsigned)((n + 4095) / 4096);
	assert_true(*pages <= sizeof in);
	assert_int_equal(mincore((void *)(uintptr_t)(file + from), n, in), 0);
	for (i = 0; i < *pages; i++)
		sum += in[i] & 1;
	return sum;
}

static void
what_comes_next_is_read(void **state)
{
	struct vault_disk d = vault_disk("vda", WINDOWS);
	uint64_t chunks[2] = {0}, bases[CHUNK_BASES_MAX];
	struct record delta, base, far;
	struct lc_err e = LC_ERR_INIT;
	const uint8_t *file;
	struct point p;
	struct vault v;
	struct view *view;
	unsigned pages, tries;
	size_t i, n;
	int fd;

	(void)state;
	vault_make(&v, false);
	vault_open(&v);
	for (i = 0; i < WINDOWS; i++)
		d.codes[i] = 5 * (i + 1); /* some that do not compress among them */
	must(vault_backup(v.s, "web01", &d, 1, &p, &e), &e);
	d.codes[0] += VAULT_EDIT;
	must(vault_backup(v.s, "web01", &d, 1, &p, &e), &e);
	must(store_view(v.s, p.id, &view, &e), &e);
	must(view_map(view, 0, 0, 1, chunks, &e), &e); /* and nothing in the second */
	must(catalog_bases(v.s->catalog, chunks[0], bases, &n, &e), &e);
	assert_int_equal(n, 1);
	must(catalog_chunk(v.s->catalog, chunks[0], &delta, &e), &e);
	must(catalog_chunk(v.s->catalog, bases[0], &base, &e), &e);
	must(catalog_chunk(v.s->catalog, bases[0] + WINDOWS / 2, &far, &e), &e);

	fd = open(vault_path(&v, "segments/0000000000000001.open"), O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	file = mmap(NULL, (size_t)(delta.off + record_size(delta.n)), PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(file, MAP_FAILED);
	assert_int_equal(fsync(fd), 0);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (resident(file, &far, &pages) != 0) {
		(void)puts("SKIP: this filesystem keeps everything in memory");
		goto out;
	}
	view_read_ahead(view, chunks, 2);
	for (tries = 0; tries < 500; tries++) {
		if (resident(file, &delta, &pages) == pages &&
		    resident(file, &base, &pages) == pages)
			break;
		(void)poll(NULL, 0, 10);
	}
	assert_true(tries < 500);
	assert_int_equal(resident(file, &far, &pages), 0);
out:
	(void)munmap((void *)(uintptr_t)file, (size_t)(delta.off + record_size(delta.n)));
	(void)close(fd);
	view_close(view);
	point_done(&p);
	vault_disk_free(&d);
	vault_free(&v);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_comes_next_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

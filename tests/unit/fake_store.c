#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/fake_store.h"

struct chunk_reader {
	int busy; /* two threads in one context is what TSan and the assertion below would catch */
};

struct fake_config fake;

void
fake_reset(const uint64_t *sizes, size_t n)
{
	size_t i;

	memset(&fake, 0, sizeof fake);
	(void)snprintf(fake.point.vm, sizeof fake.point.vm, "web01");
	fake.point.ndisks = n;
	for (i = 0; i < n; i++) {
		(void)snprintf(fake.point.disks[i].name, sizeof fake.point.disks[i].name, "d%zu",
		               i);
		fake.point.disks[i].size = sizes[i];
	}
}

uint64_t
fake_chunk(size_t disk, uint64_t window)
{
	uint64_t n = (uint64_t)disk << 40 | window;

	if (fake.zero_every != 0 && window % fake.zero_every == 0)
		return 0;
	return 1 + (fake.distinct == 0 ? n : n % fake.distinct);
}

static uint8_t
pattern(uint64_t chunk, size_t at)
{
	return (uint8_t)((chunk * UINT64_C(0x9e3779b97f4a7c15) >> 32) + at / 512 + at);
}

void
fake_fill(uint64_t chunk, uint8_t window[WINDOW_SIZE])
{
	size_t i;

	for (i = 0; i < WINDOW_SIZE; i++)
		window[i] = pattern(chunk, i);
}

uint8_t
fake_byte(size_t disk, uint64_t off)
{
	uint64_t chunk = fake_chunk(disk, off / WINDOW_SIZE);

	return chunk == 0 ? 0 : pattern(chunk, (size_t)(off % WINDOW_SIZE));
}

/* ---- store.h ---- */

void
view_read_ahead(struct view *v, const uint64_t *chunks, uint32_t n)
{
	(void)v;
	(void)chunks;
	atomic_fetch_add(&fake.ahead, n);
}

uint64_t
point_windows(uint64_t size)
{
	return size / WINDOW_SIZE + (size % WINDOW_SIZE != 0);
}

const struct point *
view_point(const struct view *v)
{
	(void)v;
	return &fake.point;
}

int
view_map(struct view *v, size_t disk, uint64_t first, uint32_t n, uint64_t *chunks,
         struct lc_err *e)
{
	uint32_t i;

	(void)v;
	atomic_fetch_add(&fake.maps, 1);
	if (atomic_load(&fake.map_fails) > 0) {
		atomic_fetch_sub(&fake.map_fails, 1);
		return lc_fail(e, LC_EIO, 0, "catalog: broken");
	}
	if (n > 4096 || first + n > point_windows(fake.point.disks[disk].size))
		return lc_fail(e, LC_EINVAL, 0, "map beyond the end");
	for (i = 0; i < n; i++)
		chunks[i] = fake_chunk(disk, first + i);
	return 0;
}

int
chunk_reader_new(struct store *s, struct chunk_reader **out, struct lc_err *e)
{
	(void)s;
	*out = lc_alloc(sizeof **out);
	if (*out == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	atomic_fetch_add(&fake.contexts, 1);
	return 0;
}

void
chunk_reader_free(struct chunk_reader *r)
{
	lc_free(r);
	atomic_fetch_sub(&fake.contexts, 1);
}

int
chunk_read(struct chunk_reader *r, uint64_t chunk, uint8_t *window, uint8_t *id, struct lc_err *e)
{
	int rc = 0;

	(void)id;
	if (r->busy++ != 0)
		return lc_fail(e, LC_EINVAL, 0, "one context in two threads");
	atomic_fetch_add(&fake.reads, 1);
	if (fake.delay_us > 0)
		(void)usleep(fake.delay_us);
	if (chunk == fake.bad_chunk && atomic_load(&fake.bad_times) != 0) {
		if (atomic_load(&fake.bad_times) > 0)
			atomic_fetch_sub(&fake.bad_times, 1);
		memset(window, 0xee, WINDOW_SIZE);
		rc = lc_fail(e, fake.bad_code != 0 ? fake.bad_code : LC_ECORRUPT, 0,
		             "segment-7 at 4096: chunk does not authenticate");
	} else {
		fake_fill(chunk, window);
	}
	r->busy--;
	return rc;
}

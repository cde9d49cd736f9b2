/*
 * prefetch: what the last boot read is decoded ahead, but not too far; what this one reads is kept.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "restore/prefetch.h"
#include "restore/reader.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/bootlist.h"
#include "tests/lib/unit.h"
#include "tests/unit/fake_store.h"

#define MIB (UINT64_C(1) << 20)
#define W ((uint64_t)WINDOW_SIZE)

/* ---- bootlist.h ---- */

static struct bootlist last, kept;
static atomic_uint saves;
static int save_ms;  /* how long that takes ... */
static bool changed; /* ... and what was to be kept was another one afterwards */
static int load_rc, save_rc;

int
bootlist_load(struct store *s, const struct point *p, struct bootlist *out, struct lc_err *e)
{
	(void)s;
	(void)p;
	if (load_rc != 0)
		return lc_fail(e, (enum lc_code)load_rc, 0, "no list");
	*out = last;
	return 0;
}

int
bootlist_save(struct store *s, const struct point *p, const struct bootlist *l, struct lc_err *e)
{
	(void)s;
	(void)p;
	kept = *l;
	if (save_ms > 0) {
		(void)poll(NULL, 0, save_ms);
		changed = changed || l->n != kept.n;
	}
	saves++;
	return save_rc == 0 ? 0 : lc_fail(e, (enum lc_code)save_rc, 0, "read-only");
}

/* ---- */

static struct reader *r;
static struct prefetch *p;
static uint64_t bad; /* window of disk 0 that can't be read; 0: none */
static enum lc_code bad_code;
static int64_t note_ns;

/* A disk of 2 GiB; cache: of decoded windows. */
static void
begin(uint64_t cache)
{
	static const uint64_t sizes[] = {2048 * MIB, 5 * MIB + 100};
	struct reader_opts ro = {.cache_bytes = cache};
	struct prefetch_opts po = {.cache_bytes = cache, .note_ns = note_ns};

	fake_reset(sizes, 2);
	saves = 0;
	kept.n = 0;
	if (bad != 0) {
		fake.bad_chunk = fake_chunk(0, bad);
		fake.bad_code = bad_code;
		atomic_store(&fake.bad_times, -1);
	}
	assert_int_equal(reader_new(NULL, NULL, &ro, &r, NULL), 0);
	po.reader = r;
	assert_int_equal(prefetch_new(&po, &p, NULL), 0);
}

static void
end(void)
{
	prefetch_free(p);
	reader_free(r);
	assert_int_equal(atomic_load(&fake.contexts), 0);
	load_rc = save_rc = save_ms = 0;
	note_ns = 0;
	last.n = 0;
	bad = 0;
}

static void
client_reads(size_t disk, uint64_t off, size_t n)
{
	static uint8_t b[4 * WINDOW_SIZE];

	prefetch_note(p, disk, off, n);
	assert_int_equal(reader_read(r, disk, b, n, off, NULL), 0);
	assert_int_equal(b[0], fake_byte(disk, off));
}

/* Within some seconds; then a moment more, in which it might go too far. */
static void
reads_become(unsigned n)
{
	unsigned tries;

	for (tries = 0; tries < 1000 && atomic_load(&fake.reads) < n; tries++)
		(void)poll(NULL, 0, 10);
	(void)poll(NULL, 0, 30);
	assert_int_equal(atomic_load(&fake.reads), n);
}

static void
last_time(size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		last.at[i] = (struct bootlist_window){0, 1000 + 7 * i};
	last.n = n;
}

static void
what_the_last_boot_read_is_there(void **state)
{
	size_t i;

	(void)state;
	last_time(100);
	last.at[50] = (struct bootlist_window){1, 80}; /* the last window of a small disk */
	begin(64 * MIB);
	reads_become(100);
	assert_int_equal(atomic_load(&fake.ahead), 100);
	for (i = 0; i < 100; i++)
		client_reads(last.at[i].disk, last.at[i].window * W, 100);
	assert_int_equal(atomic_load(&fake.reads), 100);
	client_reads(0, 0, 4096);
	assert_int_equal(atomic_load(&fake.reads), 101);
	end();
}

static void
it_is_never_further_ahead_than_half_of_the_cache(void **state)
{
	(void)state;
	last_time(2000);
	begin(64 * W);
	reads_become(33);
	client_reads(0, (1000 + 7 * 9) * W, 1); /* the tenth */
	reads_become(43);
	client_reads(0, (1000 + 7 * 4) * W, 1); /* nothing new */
	reads_become(43);
	client_reads(0, 5 * W, 1); /* what was not read then */
	reads_become(44);
	assert_in_range(atomic_load(&fake.ahead), 512, 640);
	end();
}

static void
what_this_boot_reads_is_kept(void **state)
{
	size_t i;

	(void)state;
	load_rc = LC_ENOENT;
	begin(0);
	client_reads(0, 7 * W + 5, 10);
	client_reads(0, 9 * W - 1, 2); /* two windows */
	client_reads(0, 7 * W, 4096);  /* again */
	client_reads(1, 3, 1);
	end();
	assert_int_equal(saves, 1);
	assert_int_equal(kept.n, 4);
	for (i = 0; i < 3; i++) {
		assert_int_equal(kept.at[i].disk, 0);
		assert_int_equal(kept.at[i].window, 7 + i);
	}
	assert_int_equal(kept.at[3].disk, 1);
	assert_int_equal(kept.at[3].window, 0);
}

static void
a_list_has_a_bound(void **state)
{
	uint64_t w;

	(void)state;
	last_time(BOOTLIST_MAX);
	begin(64 * W);
	for (w = 0; w < BOOTLIST_MAX + 500; w++)
		prefetch_note(p, 0, w * W, 1);
	end();
	assert_int_equal(kept.n, BOOTLIST_MAX);
	assert_int_equal(kept.at[BOOTLIST_MAX - 1].window, BOOTLIST_MAX - 1);
}

#define CLIENTS 8u

static void *
client(void *arg)
{
	uint64_t w = *(const uint64_t *)arg;

	for (; atomic_load(&saves) == 0; w++)
		prefetch_note(p, 0, w % 30000 * W, 1);
	return NULL;
}

/* The guest goes on reading when the time is over: what is being kept is not changed by that. */
static void
what_is_kept_does_not_change_any_more(void **state)
{
	const unsigned rounds = UNDER_VALGRIND ? 3 : 40;
	uint64_t from[CLIENTS];
	pthread_t threads[CLIENTS];
	unsigned round, i;

	(void)state;
	changed = false;
	for (round = 0; round < rounds; round++) {
		load_rc = LC_ENOENT;
		save_ms = 5;
		note_ns = LC_NS_PER_MS;
		begin(0);
		for (i = 0; i < CLIENTS; i++) {
			from[i] = UINT64_C(3500) * i;
			assert_int_equal(pthread_create(&threads[i], NULL, client, &from[i]), 0);
		}
		for (i = 0; i < CLIENTS; i++)
			assert_int_equal(pthread_join(threads[i], NULL), 0);
		end();
		assert_int_equal(saves, 1);
	}
	assert_false(changed);
}

/* A boot that broke off, or a client that looked at the first sector. */
static void
a_short_boot_takes_nothing_away(void **state)
{
	uint64_t w;

	(void)state;
	last_time(100);
	begin(0);
	for (w = 0; w < 49; w++)
		client_reads(0, w * W, 1);
	end();
	assert_int_equal(saves, 0);
	begin(0);
	end();
	assert_int_equal(saves, 0); /* nothing at all */
	last_time(100);
	begin(0);
	for (w = 0; w < 50; w++)
		client_reads(0, w * W, 1);
	end();
	assert_int_equal(saves, 1);
}

static void
what_is_bad_is_told_to_who_reads_it(void **state)
{
	uint8_t b[10];
	size_t i;

	(void)state;
	last_time(40);
	bad = 1000 + 7 * 20;
	bad_code = LC_ECORRUPT;
	save_rc = LC_EACCES; /* and a store that can't be written is read all the same */
	begin(64 * MIB);
	reads_become(40);
	for (i = 0; i < 40; i++) {
		if (i != 20)
			client_reads(0, (1000 + 7 * i) * W, 10);
	}
	assert_int_equal(atomic_load(&fake.reads), 40);
	assert_int_equal(reader_read(r, 0, b, sizeof b, bad * W, NULL), LC_ECORRUPT);
	end();
	assert_int_equal(saves, 1);
}

static void
nothing_is_read_ahead_of_a_replica_that_is_away(void **state)
{
	(void)state;
	last_time(40);
	last.at[5].window = bad = 3; /* a replica has it */
	bad_code = LC_ETIMEDOUT;
	begin(64 * MIB);
	reads_become(6);
	client_reads(0, 8 * W, 10);
	assert_int_equal(atomic_load(&fake.reads), 7);
	end();
}

static void
without_memory_there_is_none(void **state)
{
	struct prefetch_opts po = {.cache_bytes = 0};
	long n;

	(void)state;
	for (n = 0; n < 6; n++) {
		lc_alloc_fail_after(n);
		assert_int_equal(prefetch_new(&po, &p, NULL), LC_ENOMEM);
		lc_alloc_fail_after(-1);
	}
	prefetch_note(NULL, 0, 0, 1);
	prefetch_free(NULL);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_the_last_boot_read_is_there),
	    cmocka_unit_test(it_is_never_further_ahead_than_half_of_the_cache),
	    cmocka_unit_test(what_this_boot_reads_is_kept),
	    cmocka_unit_test(a_list_has_a_bound),
	    cmocka_unit_test(what_is_kept_does_not_change_any_more),
	    cmocka_unit_test(a_short_boot_takes_nothing_away),
	    cmocka_unit_test(what_is_bad_is_told_to_who_reads_it),
	    cmocka_unit_test(nothing_is_read_ahead_of_a_replica_that_is_away),
	    cmocka_unit_test(without_memory_there_is_none),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

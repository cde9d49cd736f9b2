/*
 * Windows that share pages with others, wherever those lie: stored as what differs, and true in
 * every case.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/log.h"
#include "store/pages.h"
#include "store/similar.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define WINDOWS 16u
#define CODE(i) (5 * ((i) + 10)) /* does not compress, nor does a mix of it */

struct pair { /* a VM, and one whose files lie elsewhere */
	struct vault v;
	struct vault_disk d, sibling;
	struct point p, q;
};

static void
backup(struct pair *a, const char *vm, const struct vault_disk *d, struct point *p)
{
	struct lc_err e = LC_ERR_INIT;

	point_done(p);
	must(vault_backup(a->v.s, vm, d, 1, p, &e), &e);
}

static void
begin(struct pair *a)
{
	uint64_t i;

	memset(a, 0, sizeof *a);
	vault_make(&a->v, true);
	a->v.similar_bytes = 1u << 20;
	vault_open(&a->v);
	a->d = vault_disk("vda", WINDOWS);
	a->sibling = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++) {
		a->d.codes[i] = CODE(i);
		a->sibling.codes[i] = i + 1 < WINDOWS ? vault_mix(CODE(i), 5) : 0;
	}
	backup(a, "web01", &a->d, &a->p);
}

static void
end(struct pair *a)
{
	point_done(&a->p);
	point_done(&a->q);
	vault_disk_free(&a->d);
	vault_disk_free(&a->sibling);
	vault_free(&a->v);
}

static void
check(struct pair *a)
{
	struct lc_err e = LC_ERR_INIT;

	must(vault_compare(a->v.s, a->p.id, &a->d, 1, &e), &e);
	must(vault_compare(a->v.s, a->q.id, &a->sibling, 1, &e), &e);
	must(vault_verify(a->v.s, a->q.id, &e), &e);
}

static struct record
record_of(struct pair *a, const struct point *p, uint64_t window, uint64_t bases[CHUNK_BASES_MAX],
          size_t *n)
{
	struct catalog *c = a->v.s->catalog;
	struct lc_err e = LC_ERR_INIT;
	struct record r, b;
	uint64_t no;
	size_t i;

	must(catalog_map(c, p->id, p->disks[0].id, window, 1, &no, &e), &e);
	must(catalog_chunk(c, no, &r, &e), &e);
	must(catalog_bases(c, no, bases, n, &e), &e);
	for (i = 0; i < *n; i++) { /* law 4: one step, whatever the index said */
		must(catalog_chunk(c, bases[i], &b, &e), &e);
		assert_false(chunk_is_delta(b.encoding));
		assert_memory_not_equal(b.id, r.id, sizeof r.id);
	}
	return r;
}

/* How many of the sibling's windows are deltas. */
static unsigned
deltas_from(struct pair *a, uint64_t first, uint64_t end)
{
	uint64_t bases[CHUNK_BASES_MAX], i;
	unsigned found = 0;
	size_t n;

	for (i = first; i < end; i++)
		found += chunk_is_delta(record_of(a, &a->q, i, bases, &n).encoding);
	return found;
}

static unsigned
deltas(struct pair *a)
{
	return deltas_from(a, 0, WINDOWS - 1);
}

/* One page in four is learnt, so that a run of four is met, wherever it lay and lies. */
static void
a_run_of_four_pages_is_met(void **state)
{
	uint64_t chunks[WINDOW_PAGES];
	struct page_tags had = {{0}}, looked;
	unsigned from, to, i, found;
	struct pair a;

	(void)state;
	begin(&a);
	for (i = 1; i < WINDOW_PAGES; i++) /* the first one is zeros */
		had.v[i] = UINT64_C(1) << 36 | (UINT64_C(0x9e3779b9) * i);
	similar_learn(a.v.s, &had, 7);
	for (from = 1; from + 4 <= WINDOW_PAGES; from++) {
		for (to = 0; to + 4 <= WINDOW_PAGES; to++) {
			looked = (struct page_tags){{0}};
			memcpy(looked.v + to, had.v + from, 4 * sizeof had.v[0]);
			(void)pages_find(a.v.s->pages, &looked, chunks);
			for (i = found = 0; i < WINDOW_PAGES; i++)
				found += chunks[i] == 7;
			assert_int_equal(found, 1);
		}
	}
	end(&a);
}

static void
a_sibling_costs_what_differs(void **state)
{
	uint64_t bases[CHUNK_BASES_MAX];
	struct record r;
	struct pair a;
	size_t i, n;

	(void)state;
	begin(&a);
	backup(&a, "web02", &a.sibling, &a.q);
	for (i = 0; i + 1 < WINDOWS; i++) {
		r = record_of(&a, &a.q, i, bases, &n);
		assert_int_equal(r.encoding, CHUNK_PREFIX);
		assert_in_range(n, 2, 2);
		assert_in_range(r.n, 1, 400);
	}
	check(&a);
	/* It goes on upon the same bases. */
	for (i = 0; i + 1 < WINDOWS; i += 2)
		a.sibling.codes[i] += VAULT_EDIT;
	backup(&a, "web02", &a.sibling, &a.q);
	check(&a);
	assert_int_equal(deltas(&a), WINDOWS - 1);
	end(&a);
}

/* What was there before is one base, and what is elsewhere others. */
static void
a_part_of_the_predecessor_and_one_of_another(void **state)
{
	uint64_t bases[CHUNK_BASES_MAX], old;
	struct lc_err e = LC_ERR_INIT;
	struct record r;
	struct pair a;
	size_t n;

	(void)state;
	begin(&a);
	a.sibling.codes[0] = CODE(0) - 5; /* that nobody else has */
	backup(&a, "web02", &a.sibling, &a.q);
	must(catalog_map(a.v.s->catalog, a.q.id, a.q.disks[0].id, 0, 1, &old, &e), &e);
	a.sibling.codes[0] = vault_mix(CODE(0) - 5, 8);
	backup(&a, "web02", &a.sibling, &a.q);
	r = record_of(&a, &a.q, 0, bases, &n);
	assert_int_equal(n, 2);
	assert_true(bases[0] == old || bases[1] == old);
	assert_in_range(r.n, 1, 400);
	check(&a);
	end(&a);
}

static void
what_shares_little_is_whole(void **state)
{
	uint64_t bases[CHUNK_BASES_MAX];
	struct pair a;
	size_t n;

	(void)state;
	begin(&a);
	a.sibling.codes[0] = 5;                         /* nothing */
	a.sibling.codes[1] = vault_mix(5000, 2);        /* of neither */
	a.sibling.codes[2] = vault_mix(CODE(0) - 5, 4); /* 4 pages of 16 */
	backup(&a, "web02", &a.sibling, &a.q);
	assert_false(chunk_is_delta(record_of(&a, &a.q, 0, bases, &n).encoding));
	assert_false(chunk_is_delta(record_of(&a, &a.q, 1, bases, &n).encoding));
	assert_false(chunk_is_delta(record_of(&a, &a.q, 2, bases, &n).encoding));
	check(&a);
	end(&a);
}

/* The point that the bases came with may go. */
static void
bases_outlive_their_points(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct pair a;

	(void)state;
	begin(&a);
	backup(&a, "web02", &a.sibling, &a.q);
	must(store_drop(a.v.s, a.p.id, &e), &e);
	must(vault_compare(a.v.s, a.q.id, &a.sibling, 1, &e), &e);
	vault_close(&a.v);
	must(store_rebuild(&(struct store_opts){.dir = a.v.dir, .key_dir = a.v.keys}, &e), &e);
	vault_open(&a.v);
	must(vault_compare(a.v.s, a.q.id, &a.sibling, 1, &e), &e);
	assert_int_equal(deltas(&a), WINDOWS - 1);
	end(&a);
}

/* It is a cache: gone, of another time, or full of lies. */
static void
spoil_all(struct pair *a, unsigned how)
{
	const char *path = vault_path(&a->v, "index/pages");
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf b = {0};
	uint64_t seed = how;
	size_t i;

	vault_close(&a->v);
	if (how == 0) {
		assert_int_equal(unlink(path), 0);
	} else {
		must(file_read_all(path, 1u << 24, &b, &e), &e);
		for (i = 4096; i < b.n; i += 8) {
			if (how == 1) /* numbers of other chunks, or of none */
				b.p[i + vault_random(&seed, 8)] ^= (uint8_t)(1 + vault_random(&seed,
				                                                              255));
			else
				b.p[i] = (uint8_t)vault_random(&seed, 256);
		}
		assert_int_equal(unlink(path), 0);
		must(file_write_new(path, b.p, b.n, 0600, &e), &e);
		lc_buf_free(&b);
	}
	vault_open(&a->v);
}

static void
a_spoilt_index_costs_bytes(void **state)
{
	struct pair a;
	unsigned how;

	(void)state;
	for (how = 0; how < 20; how++) {
		begin(&a);
		spoil_all(&a, how);
		backup(&a, "web02", &a.sibling, &a.q);
		if (how == 0)
			assert_int_equal(deltas(&a), 0);
		else
			(void)deltas(&a); /* their bases are whole, and others */
		check(&a);
		end(&a);
	}
}

/* Every page leads to one chunk: nothing there, a delta, the window itself, a map. */
static void
a_lying_index_costs_bytes(void **state)
{
	uint8_t window[WINDOW_SIZE];
	struct page_tags t;
	struct pair a;
	uint64_t lie;
	size_t i;

	(void)state;
	for (lie = 1; lie < 60; lie += 3) {
		begin(&a);
		a.d.codes[0] += VAULT_EDIT;
		backup(&a, "web01", &a.d, &a.p);
		for (i = 0; i < WINDOWS; i++) {
			vault_fill(a.sibling.codes[i], window);
			pages_tags(a.v.s->pages, window, &t);
			pages_put(a.v.s->pages, &t, lie < 50 ? lie : lie * 1000);
		}
		backup(&a, "web02", &a.sibling, &a.q);
		(void)deltas(&a);
		check(&a);
		end(&a);
	}
}

/* What condemns a base condemns what is made upon it, of whatever VM; both come again. */
static void
a_bad_base(struct pair *a, bool rebuild)
{
	struct lc_err e = LC_ERR_INIT;
	struct damage d = {0};

	begin(a);
	backup(a, "web02", &a->sibling, &a->q);
	vault_spoil(&a->v, 3, rebuild);
	assert_int_equal(vault_compare(a->v.s, a->q.id, &a->sibling, 1, &e), LC_ECORRUPT);
	lc_err_clear(&e);
	assert_int_equal(store_scrub(a->v.s, vault_on_damage, &d, NULL, NULL, NULL), LC_ECORRUPT);
	if (!rebuild) {
		assert_non_null(strstr(d.affects, "web01/vda and others in 2 restore points"));
		must(store_condemn(a->v.s, &d, 1, NULL, &e), &e);
	}
	backup(a, "web02", &a->sibling, &a->q); /* without the base: what was upon it is whole */
	must(vault_compare(a->v.s, a->q.id, &a->sibling, 1, &e), &e);
	assert_int_equal(deltas(a), WINDOWS - 3);
	backup(a, "web01", &a->d, &a->p);
	check(a);
	end(a);
}

static void
a_condemned_base_condemns_its_deltas(void **state)
{
	struct pair a;

	(void)state;
	a_bad_base(&a, false);
}

static void
a_lost_base_is_missed_by_a_rebuild(void **state)
{
	struct pair a;

	(void)state;
	a_bad_base(&a, true);
}

/* Two workers met the same new content, while another one is missing: what came first is whole and
 * may be a base by now, so no delta takes its place. */
static void
a_whole_chunk_stays_whole(void **state)
{
	static uint8_t plain[WINDOW_SIZE], window[WINDOW_SIZE], payload[CHUNK_PAYLOAD_MAX];
	uint8_t base[CHUNK_ID_SIZE];
	struct chunk_bases b = {.n = 1, .ids = base, .plain = plain};
	struct record r = {.type = RECORD_CHUNK};
	struct lc_err e = LC_ERR_INIT;
	struct sealer *s;
	struct pair a;
	uint64_t no, before;
	size_t n;

	(void)state;
	begin(&a);
	a.v.s->fold->missing = true;
	must(sealer_new(a.v.s->keyring, 1, &s, &e), &e);
	vault_fill(a.d.codes[0], plain);
	seal_id(a.v.s->keyring, plain, base);
	vault_fill(a.d.codes[0] + VAULT_EDIT, window);
	seal_id(a.v.s->keyring, window, r.id);
	must(seal_chunk(s, window, r.id, payload, &n, &r.encoding, &r.key, &e), &e);
	r.n = (uint32_t)n;
	must(store_append_chunk(a.v.s, &r, payload, &no, &e), &e);
	must(store_find_base(a.v.s, 0, r.id, &before, &e), &e);
	must(seal_delta(s, window, r.id, &b, CHUNK_PAYLOAD_MAX, payload, &n, &r.encoding, &r.key,
	                &e),
	     &e);
	sealer_free(s);
	r.n = (uint32_t)n;
	must(store_append_chunk(a.v.s, &r, payload, &no, &e), &e);
	assert_int_equal(no, before);
	end(&a);
}

/* What was stored a moment ago is a base, before the catalog knows of it. */
static void
what_came_a_moment_ago_is_a_base(void **state)
{
	enum { FIRST = 64, MORE = 31 }; /* in all far less than FLUSH_BYTES */
	struct lc_err e = LC_ERR_INIT;
	struct store_opts o;
	struct pair a;
	uint64_t i;

	(void)state;
	begin(&a);
	vault_disk_free(&a.sibling);
	a.sibling = vault_disk("vda", FIRST + MORE);
	for (i = 0; i < FIRST; i++)
		a.sibling.codes[i] = CODE(i + WINDOWS + 1);
	for (i = 0; i < MORE; i++)
		a.sibling.codes[FIRST + i] = vault_mix(a.sibling.codes[i], 5);
	backup(&a, "web02", &a.sibling, &a.q);
	assert_int_equal(deltas_from(&a, FIRST, FIRST + MORE), MORE);
	check(&a);
	vault_close(&a.v);
	o = (struct store_opts){.dir = a.v.dir, .key_dir = a.v.keys};
	must(store_rebuild(&o, &e), &e);
	vault_open(&a.v);
	assert_int_equal(deltas_from(&a, FIRST, FIRST + MORE), MORE);
	check(&a);
	end(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_run_of_four_pages_is_met),
	    cmocka_unit_test(a_sibling_costs_what_differs),
	    cmocka_unit_test(a_part_of_the_predecessor_and_one_of_another),
	    cmocka_unit_test(what_shares_little_is_whole),
	    cmocka_unit_test(bases_outlive_their_points),
	    cmocka_unit_test(a_spoilt_index_costs_bytes),
	    cmocka_unit_test(a_lying_index_costs_bytes),
	    cmocka_unit_test(a_condemned_base_condemns_its_deltas),
	    cmocka_unit_test(a_lost_base_is_missed_by_a_rebuild),
	    cmocka_unit_test(a_whole_chunk_stays_whole),
	    cmocka_unit_test(what_came_a_moment_ago_is_a_base),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

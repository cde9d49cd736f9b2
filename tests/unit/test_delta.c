/*
 * Deltas: each encoding, what is wrong with them, and how a store lives with them.
 */
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/log.h"
#include "store/delta.h"
#include "store/packer.h"
#include "store/seal.h"
#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"
#include "tests/unit/vectors_keys.h"

static uint8_t plain[CHUNK_BASES_MAX * WINDOW_SIZE], window[WINDOW_SIZE], opened[WINDOW_SIZE];
static uint8_t ids[CHUNK_BASES_MAX * CHUNK_ID_SIZE];
static uint8_t payload[CHUNK_PAYLOAD_MAX], changed[CHUNK_PAYLOAD_MAX];

/* ---- one payload ---- */

struct sealed {
	struct keyring *keys;
	struct sealer *s;
	size_t n;
	uint8_t encoding;
	uint32_t key;
};

/* n bases, and a window that has a part of each. */
static void
make(struct sealed *x, size_t n, bool rsync)
{
	struct chunk_bases b = {.n = n, .ids = ids, .plain = rsync ? NULL : plain};
	struct lc_buf signature = {0};
	struct lc_err e = LC_ERR_INIT;
	uint8_t id[CHUNK_ID_SIZE];
	size_t i, part = WINDOW_SIZE / n;

	*x = (struct sealed){0};
	must(keyring_open_code((struct lc_span){vector_keys, sizeof vector_keys}, VECTOR_CODE,
	                       &x->keys, &e),
	     &e);
	must(sealer_new(x->keys, 1, &x->s, &e), &e);
	for (i = 0; i < n; i++) {
		vault_fill(5 * (i + 1), plain + i * WINDOW_SIZE);
		seal_id(x->keys, plain + i * WINDOW_SIZE, ids + i * CHUNK_ID_SIZE);
		memcpy(window + i * part, plain + i * WINDOW_SIZE + 4096 * i, part);
	}
	memset(window + 30000, 'x', 700);
	seal_id(x->keys, window, id);
	must(delta_sign((struct lc_span){plain, n * WINDOW_SIZE}, 512, &signature, &e), &e);
	b.signature = (struct lc_span){signature.p, signature.n};
	must(seal_delta(x->s, window, id, &b, CHUNK_PAYLOAD_MAX, payload, &x->n, &x->encoding,
	                &x->key, &e),
	     &e);
	lc_buf_free(&signature);
	assert_int_equal(x->encoding, rsync ? CHUNK_RSYNC : CHUNK_PREFIX);
	assert_in_range(x->n, CHUNK_HEAD_SIZE + n * CHUNK_ID_SIZE + SEAL_OVERHEAD + 1, 5000);
}

static void
done(struct sealed *x)
{
	sealer_free(x->s);
	keyring_free(x->keys);
}

static int
open_it(struct sealed *x, const uint8_t *p, size_t n, const uint8_t *bases)
{
	uint8_t id[CHUNK_ID_SIZE];
	int rc;

	memset(opened, 0, sizeof opened);
	rc = open_delta(x->s, (struct lc_span){p, n}, x->encoding, x->key, bases, opened, id, NULL);
	if (rc != 0)
		assert_true(lc_is_zero(opened, sizeof opened));
	return rc;
}

static void
each_kind_comes_back(void **state)
{
	struct sealed x;
	size_t n, got, rsync;

	(void)state;
	for (rsync = 0; rsync < 2; rsync++) {
		for (n = 1; n <= CHUNK_BASES_MAX; n++) {
			make(&x, n, rsync == 1);
			assert_true(chunk_payload_ok((struct lc_span){payload, x.n}, x.encoding));
			assert_false(chunk_payload_ok((struct lc_span){payload, x.n}, CHUNK_ZSTD));
			assert_memory_equal(
			    chunk_payload_bases((struct lc_span){payload, x.n}, &got), ids,
			    n * CHUNK_ID_SIZE);
			assert_int_equal(got, n);
			assert_int_equal(open_it(&x, payload, x.n, plain), 0);
			assert_memory_equal(opened, window, WINDOW_SIZE);
			done(&x);
		}
	}
}

static void
nothing_wrong_gets_out(void **state)
{
	struct sealed x;
	size_t i, rsync;

	(void)state;
	for (rsync = 0; rsync < 2; rsync++) {
		make(&x, 2, rsync == 1);
		for (i = 0; i < x.n; i++) {
			memcpy(changed, payload, x.n);
			changed[i] ^= (uint8_t)(1u << i % 8);
			assert_int_equal(open_it(&x, changed, x.n, plain), LC_ECORRUPT);
			assert_int_equal(open_it(&x, payload, i, plain), LC_ECORRUPT);
		}
		plain[WINDOW_SIZE + 5000] ^= 1; /* a base that is another one */
		assert_int_equal(open_it(&x, payload, x.n, plain), LC_ECORRUPT);
		plain[WINDOW_SIZE + 5000] ^= 1;
		x.encoding = rsync == 1 ? CHUNK_PREFIX : CHUNK_RSYNC;
		assert_int_equal(open_it(&x, payload, x.n, plain), LC_ECORRUPT);
		x.encoding = CHUNK_ZSTD;
		assert_int_equal(open_it(&x, payload, x.n, plain), LC_ECONFLICT);
		done(&x);
	}
}

static void
a_delta_has_one_to_four_bases(void **state)
{
	struct sealed x;
	unsigned n;

	(void)state;
	make(&x, 4, false);
	for (n = 0; n < 256; n++) {
		payload[CHUNK_ID_SIZE + 4] = (uint8_t)n;
		assert_int_equal(chunk_payload_ok((struct lc_span){payload, x.n}, CHUNK_PREFIX),
		                 n >= 1 && n <= CHUNK_BASES_MAX);
	}
	done(&x);
}

/* ---- what librsync's commands can say ---- */

static bool
patches(const uint8_t *delta, size_t n)
{
	return delta_patch((struct lc_span){delta, n}, (struct lc_span){plain, WINDOW_SIZE}, opened,
	                   WINDOW_SIZE);
}

static void
hostile_commands_are_refused(void **state)
{
	static const uint8_t good[] = {'r', 's', 2, '6', 0x46, 0, 0xff, 0xff, 0x41, 1, 'x', 0};
	static const uint8_t beyond[] = {'r', 's', 2, '6', 0x46, 2, 0xff, 0xff, 0x01, 'x', 0};
	static const uint8_t huge[] = {'r',  's',  2,    '6',  0x54, 0xff, 0xff, 0xff,
	                               0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	                               0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
	static const uint8_t bomb[] = {'r', 's', 2, '6', 0x44, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1, 0};
	static const uint8_t nothing[] = {'r', 's', 2, '6', 0x45, 0, 0, 0};
	static const uint8_t unknown[] = {'r', 's', 2, '6', 0x55, 0, 0};
	uint8_t copy[sizeof good + 1] = {0};
	size_t i;

	(void)state;
	vault_fill(5, plain);
	assert_true(patches(good, sizeof good));
	assert_memory_equal(opened, plain, WINDOW_SIZE - 1);
	assert_int_equal(opened[WINDOW_SIZE - 1], 'x');
	for (i = 0; i < sizeof good; i++)
		assert_false(patches(good, i));
	memcpy(copy, good, sizeof good);
	assert_false(patches(copy, sizeof copy)); /* a byte behind its end */
	assert_false(patches(beyond, sizeof beyond));
	assert_false(patches(huge, sizeof huge));
	assert_false(patches(bomb, sizeof bomb));
	assert_false(patches(nothing, sizeof nothing));
	assert_false(patches(unknown, sizeof unknown));
}

static void
no_signature_gives_no_delta(void **state)
{
	static uint8_t out[WINDOW_SIZE];
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf s = {0};
	struct lc_span w = {window, WINDOW_SIZE};
	size_t n = 1, i;

	(void)state;
	vault_fill(5, plain);
	vault_fill(10, window);
	assert_int_equal(
	    delta_make((struct lc_span){(const uint8_t *)"junk", 4}, w, out, sizeof out, &n, &e),
	    LC_ECORRUPT);
	must(delta_sign((struct lc_span){plain, WINDOW_SIZE}, 1024, &s, NULL), &e);
	assert_int_equal(s.n, 12 + 64 * 36);
	for (i = 0; i < 12; i++) /* cut in its head */
		assert_int_equal(delta_make((struct lc_span){s.p, i}, w, out, sizeof out, &n, NULL),
		                 LC_ECORRUPT);
	lc_err_clear(&e);
	must(delta_make((struct lc_span){s.p, s.n}, w, out, 1000, &n, &e), &e);
	assert_int_equal(n, 0); /* nothing in common: it does not fit */
	lc_buf_free(&s);
}

/* ---- a store with them ---- */

struct at {
	struct vault v;
	struct vault_disk d;
	struct point p;
};

static void
begin(struct at *a)
{
	size_t i;

	memset(a, 0, sizeof *a);
	vault_make(&a->v, true);
	vault_open(&a->v);
	a->d = vault_disk("vda", 4);
	for (i = 0; i < 4; i++)
		a->d.codes[i] = 5 * (i + 1);
}

static void
end(struct at *a)
{
	point_done(&a->p);
	vault_disk_free(&a->d);
	vault_free(&a->v);
}

static void
backup(struct at *a)
{
	struct lc_err e = LC_ERR_INIT;

	point_done(&a->p);
	must(vault_backup(a->v.s, "web01", &a->d, 1, &a->p, &e), &e);
}

static void
check(struct at *a)
{
	struct lc_err e = LC_ERR_INIT;

	must(vault_compare(a->v.s, a->p.id, &a->d, 1, &e), &e);
	must(vault_verify(a->v.s, a->p.id, &e), &e);
}

struct counts {
	size_t whole, delta, bytes; /* bytes: of deltas */
};

/* Every delta has bases, and those are whole. */
static struct counts
count(struct at *a)
{
	struct catalog *c = a->v.s->catalog;
	uint64_t bases[CHUNK_BASES_MAX], no;
	struct counts x = {0};
	struct record r, b;
	size_t i, n;

	for (no = 1; no < 2000; no++) {
		if (catalog_chunk(c, no, &r, NULL) != 0)
			continue;
		assert_int_equal(catalog_bases(c, no, bases, &n, NULL), 0);
		if (!chunk_is_delta(r.encoding)) {
			assert_int_equal(n, 0);
			x.whole++;
			continue;
		}
		assert_in_range(n, 1, CHUNK_BASES_MAX);
		for (i = 0; i < n; i++) {
			assert_int_equal(catalog_chunk(c, bases[i], &b, NULL), 0);
			assert_false(chunk_is_delta(b.encoding));
		}
		x.delta++;
		x.bytes += r.n;
	}
	return x;
}

static void
a_changed_window_is_stored_as_what_changed(void **state)
{
	struct counts x;
	struct at a;

	(void)state;
	begin(&a);
	backup(&a);
	a.d.codes[0] += VAULT_EDIT;
	a.d.codes[2] += 2 * VAULT_EDIT;
	backup(&a);
	check(&a);
	x = count(&a);
	assert_int_equal(x.whole, 4);
	assert_int_equal(x.delta, 2);
	assert_in_range(x.bytes, 1, 1000);
	a.d.codes[0] = 101; /* nothing in common */
	backup(&a);
	check(&a);
	assert_int_equal(count(&a).whole, 5);
	end(&a);
}

static void
no_delta_is_made_upon_a_delta_however_long_it_goes(void **state)
{
	struct counts x;
	struct at a;
	unsigned i;

	(void)state;
	begin(&a);
	backup(&a);
	for (i = 0; i < 60; i++) {
		a.d.codes[1] += VAULT_EDIT;
		backup(&a);
		check(&a);
		if (i == 20)
			must(store_drop(a.v.s, a.p.id, NULL), &(struct lc_err){0});
	}
	x = count(&a);
	/* Now and then a new base: whole, or a layer. */
	assert_in_range(x.whole, 5, 25);
	assert_in_range(x.delta, 55, 60);
	/* And a catalog that is made from nothing says the same. */
	vault_close(&a.v);
	must(store_rebuild(&(struct store_opts){.dir = a.v.dir, .key_dir = a.v.keys},
	                   &(struct lc_err){0}),
	     &(struct lc_err){0});
	vault_open(&a.v);
	assert_int_equal(count(&a).delta, x.delta);
	check(&a);
	end(&a);
}

static void
when_to_store_whole_again(void **state)
{
	(void)state;
	assert_true(packer_worth(&(struct packer_sizes){.delta = 700, .whole = 1000}));
	assert_false(packer_worth(&(struct packer_sizes){.delta = 701, .whole = 1000}));
	assert_true(
	    packer_worth(&(struct packer_sizes){.delta = 250, .whole = 1000, .similar = true}));
	assert_false(
	    packer_worth(&(struct packer_sizes){.delta = 251, .whole = 1000, .similar = true}));
	/* Its own change, and nothing of before. */
	assert_false(
	    packer_outgrown(&(struct packer_sizes){.delta = 500, .step = 500, .whole = 1000}));
	/* sum of x: 1700 * (1 + 2 + ..) against a quarter of 25000 */
	assert_false(packer_outgrown(&(struct packer_sizes){
	    .delta = 3 * 1700, .step = 1700, .whole = 25000, .again = 30000}));
	assert_true(packer_outgrown(&(struct packer_sizes){
	    .delta = 4 * 1700, .step = 1700, .whole = 25000, .again = 30000}));
	/* or of what has changed since the first base */
	assert_true(packer_outgrown(&(struct packer_sizes){
	    .delta = 2 * 1700, .step = 1700, .whole = 25000, .again = 2 * 1700}));
}

/* A base goes bad: what is made upon it can't be read, is named, and comes again whole. */
static void
a_bad_base_is_found_and_healed(struct at *a, bool rebuild)
{
	struct lc_err e = LC_ERR_INIT;
	struct damage d = {0};

	begin(a);
	backup(a);
	a->d.codes[0] += VAULT_EDIT;
	backup(a);
	vault_spoil(&a->v, 0, rebuild);
	assert_int_equal(vault_compare(a->v.s, a->p.id, &a->d, 1, &e), LC_ECORRUPT);
	lc_err_clear(&e);
	assert_int_equal(store_scrub(a->v.s, vault_on_damage, &d, NULL, NULL, NULL), LC_ECORRUPT);
	if (!rebuild) {
		/* Of both points. */
		assert_non_null(strstr(d.affects, "web01/vda in 2 restore points"));
		must(store_condemn(a->v.s, &d, 1, NULL, &e), &e);
	}
	backup(a); /* the same content */
	check(a);
	a->d.codes[0] = 5; /* that of the base */
	backup(a);
	check(a);
	assert_int_equal(count(a).delta, 0); /* all is whole again */
	end(a);
}

static void
a_condemned_base_condemns_its_deltas(void **state)
{
	struct at a;

	(void)state;
	a_bad_base_is_found_and_healed(&a, false);
}

static void
a_lost_base_is_missed_by_a_rebuild(void **state)
{
	struct at a;

	(void)state;
	a_bad_base_is_found_and_healed(&a, true);
}

/* Somebody who can write there, and has the key, makes a delta upon a delta. */
static void
a_delta_upon_a_delta_is_refused(void **state)
{
	struct chunk_bases b = {.n = 1, .ids = ids, .plain = plain};
	struct record r = {.type = RECORD_CHUNK};
	struct lc_err e = LC_ERR_INIT;
	struct sealer *s;
	struct at a;
	uint64_t no;
	size_t n;

	(void)state;
	begin(&a);
	backup(&a);
	a.d.codes[0] += VAULT_EDIT;
	backup(&a);
	vault_fill(a.d.codes[0], plain);
	seal_id(a.v.s->keyring, plain, ids);
	vault_fill(a.d.codes[0] + VAULT_EDIT, window);
	seal_id(a.v.s->keyring, window, r.id);
	must(sealer_new(a.v.s->keyring, 1, &s, &e), &e);
	must(seal_delta(s, window, r.id, &b, CHUNK_PAYLOAD_MAX, payload, &n, &r.encoding, &r.key,
	                &e),
	     &e);
	sealer_free(s);
	r.n = (uint32_t)n;
	must(store_append_chunk(a.v.s, &r, payload, &no, &e), &e);
	a.d.codes[0] += VAULT_EDIT;
	backup(&a);
	assert_int_equal(vault_compare(a.v.s, a.p.id, &a.d, 1, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "a delta, where a whole one must be"));
	end(&a);
}

/* The number of the chunk in the first window. */
static uint64_t
chunk_of(struct at *a)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t no = 0;
	struct view *v;

	must(store_view(a->v.s, a->p.id, &v, &e), &e);
	must(view_map(v, 0, 0, 1, &no, &e), &e);
	view_close(v);
	return no;
}

static int
read_one(struct at *a, uint64_t no, uint64_t code)
{
	struct lc_err e = LC_ERR_INIT;
	struct chunk_reader *r;
	int rc;

	must(chunk_reader_new(a->v.s, &r, &e), &e);
	rc = chunk_read(r, no, opened, NULL, &e);
	chunk_reader_free(r);
	vault_fill(code, window);
	if (rc == 0)
		assert_memory_equal(opened, window, WINDOW_SIZE);
	return rc;
}

static void
a_base_is_decoded_once_for_all_readers(void **state)
{
	struct vault_piece base;
	uint64_t no[2];
	struct at a;

	(void)state;
	begin(&a);
	backup(&a);
	a.d.codes[0] += VAULT_EDIT;
	backup(&a);
	no[0] = chunk_of(&a);
	a.d.codes[0] += VAULT_EDIT;
	backup(&a);
	no[1] = chunk_of(&a);
	vault_close(&a.v);
	vault_open(&a.v);
	assert_int_equal(read_one(&a, no[0], 5 + VAULT_EDIT), 0);
	assert_true(vault_piece_of(a.v.dir, RECORD_CHUNK, 0, &base));
	vault_flip(a.v.dir, &base, 5000, 1);
	assert_int_equal(read_one(&a, no[1], 5 + 2 * VAULT_EDIT), 0);
	vault_close(&a.v);
	vault_open(&a.v);
	assert_int_equal(read_one(&a, no[0], 0), LC_ECORRUPT); /* so it was that one */
	assert_int_equal(read_one(&a, no[1], 0), LC_ECORRUPT);
	end(&a);
}

/* Somebody who has the key seals another content under the id of a base. */
static void
a_base_that_is_another_content_is_named(void **state)
{
	struct chunk_bases b = {.n = 1, .ids = ids, .plain = plain};
	struct record base = {.type = RECORD_CHUNK}, r = {.type = RECORD_CHUNK};
	struct lc_err e = LC_ERR_INIT;
	struct sealer *s;
	struct at a;
	char hex[17];
	uint64_t no;
	size_t n;

	(void)state;
	begin(&a);
	vault_fill(55, plain);
	seal_id(a.v.s->keyring, plain, ids);
	memcpy(base.id, ids, CHUNK_ID_SIZE);
	vault_fill(55 + VAULT_EDIT, window);
	seal_id(a.v.s->keyring, window, r.id);
	must(sealer_new(a.v.s->keyring, 1, &s, &e), &e);
	must(seal_delta(s, window, r.id, &b, CHUNK_PAYLOAD_MAX, payload, &n, &r.encoding, &r.key,
	                &e),
	     &e);
	r.n = (uint32_t)n;
	plain[100] ^= 1;
	must(seal_chunk(s, plain, base.id, changed, &n, &base.encoding, &base.key, &e), &e);
	base.n = (uint32_t)n;
	sealer_free(s);
	must(store_append_chunk(a.v.s, &base, changed, &no, &e), &e);
	must(store_append_chunk(a.v.s, &r, payload, &no, &e), &e);
	a.d.codes[0] = 55 + VAULT_EDIT;
	backup(&a);
	for (n = 0; n < 2; n++) { /* also when it was decoded already */
		lc_err_clear(&e);
		assert_int_equal(vault_compare(a.v.s, a.p.id, &a.d, 1, &e), LC_ECORRUPT);
		assert_non_null(strstr(e.msg, "content is not what the id names"));
		assert_non_null(strstr(e.msg, lc_hex(hex, base.id, 8)));
	}
	assert_int_equal(vault_verify(a.v.s, a.p.id, NULL), LC_ECORRUPT);
	end(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_kind_comes_back),
	    cmocka_unit_test(nothing_wrong_gets_out),
	    cmocka_unit_test(a_delta_has_one_to_four_bases),
	    cmocka_unit_test(hostile_commands_are_refused),
	    cmocka_unit_test(no_signature_gives_no_delta),
	    cmocka_unit_test(a_changed_window_is_stored_as_what_changed),
	    cmocka_unit_test(no_delta_is_made_upon_a_delta_however_long_it_goes),
	    cmocka_unit_test(when_to_store_whole_again),
	    cmocka_unit_test(a_condemned_base_condemns_its_deltas),
	    cmocka_unit_test(a_lost_base_is_missed_by_a_rebuild),
	    cmocka_unit_test(a_delta_upon_a_delta_is_refused),
	    cmocka_unit_test(a_base_is_decoded_once_for_all_readers),
	    cmocka_unit_test(a_base_that_is_another_content_is_named),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

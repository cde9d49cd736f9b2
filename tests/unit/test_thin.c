/*
 * Thin stores: what a replica has is dropped here and fetched when it is read; nothing else is.
 */
#include <pthread.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/log.h"
#include "store/segment_thin.h"
#include "store/store_internal.h"
#include "store/thin.h"
#include "store/transfer.h"
#include "tests/lib/must.h"
#include "tests/lib/twin.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define WINDOWS 110u

struct site {
	struct twin t;
	struct vault_disk d;
	unsigned asked, fetched, ahead;
	bool lies; /* it gives another chunk than it was asked for */
	struct point first, second;
};

static int
have(void *arg, const uint8_t *ids, size_t n, uint8_t *bits, struct lc_err *e)
{
	struct site *x = arg;

	assert_true(n > 0 && n <= THIN_ASK_MAX);
	x->asked++;
	return twin_have(&x->t, ids, n, bits, e);
}

static int
fetch_one(struct site *x, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
          struct lc_err *e)
{
	static uint8_t kept[RECORD_PAYLOAD_MAX];
	static struct fetched of_kept;
	int rc = twin_fetch(&x->t, ids, n, payload, out, e);

	assert_in_range(n, 1, THIN_AHEAD);
	x->fetched++;
	x->ahead += (unsigned)n - 1;
	if (rc != 0 || !x->lies)
		return rc;
	if (of_kept.n > 0) { /* what was asked for before, under the id of this one */
		memcpy(payload + CHUNK_ID_SIZE, kept + CHUNK_ID_SIZE, of_kept.n - CHUNK_ID_SIZE);
		*out = of_kept;
	} else {
		memcpy(kept, payload, out->n);
		of_kept = *out;
	}
	return 0;
}

/* Several threads at once want something. */
static int
fetch(void *arg, const uint8_t *ids, size_t n, uint8_t *payload, struct fetched *out,
      struct lc_err *e)
{
	static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
	int rc;

	(void)pthread_mutex_lock(&turn);
	rc = fetch_one(arg, ids, n, payload, out, e);
	(void)pthread_mutex_unlock(&turn);
	return rc;
}

/* Two points of one disk in small segments. */
static void
make_site(struct site *x)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t i;

	memset(x, 0, sizeof *x);
	twin_make(&x->t, 256u << 10);
	x->d = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++)
		x->d.codes[i] = i % 7 == 0 ? 0 : 1000 + i;
	must(vault_backup(x->t.v.s, "web01", &x->d, 1, &x->first, &e), &e);
	for (i = 0; i < WINDOWS; i += 5)
		x->d.codes[i] = 5000 + i;
	must(vault_backup(x->t.v.s, "web01", &x->d, 1, &x->second, &e), &e);
	twin_replicate(&x->t);
}

static void
free_site(struct site *x)
{
	point_done(&x->first);
	point_done(&x->second);
	vault_disk_free(&x->d);
	twin_free(&x->t);
}

static int
run_thin(struct site *x, uint64_t bytes, struct thin_stats *st, struct lc_err *e)
{
	struct thin_opts o = {.have = have, .arg = x, .peers = "dr1", .bytes = bytes};

	return thin_run(x->t.v.s, &o, st, e);
}

static void
make_thin(struct site *x)
{
	struct lc_err e = LC_ERR_INIT;
	struct thin_stats st;

	must(run_thin(x, UINT64_MAX, &st, &e), &e);
	assert_true(st.segments > 2 && st.chunks > 50 && st.freed > (1u << 20));
}

static uint64_t
bytes_of(struct site *x)
{
	struct lc_err e = LC_ERR_INIT;
	uint64_t all, droppable;

	must(thin_bytes(x->t.v.s, &all, &droppable, &e), &e);
	return all;
}

/* Both points read true, from wherever. */
static void
check(struct site *x)
{
	struct vault_disk old = vault_disk_copy(&x->d);
	struct lc_err e = LC_ERR_INIT;
	uint64_t i;

	for (i = 0; i < WINDOWS; i += 5)
		old.codes[i] = i % 7 == 0 ? 0 : 1000 + i;
	must(vault_compare(x->t.v.s, x->second.id, &x->d, 1, &e), &e);
	must(vault_compare(x->t.v.s, x->first.id, &old, 1, &e), &e);
	must(vault_verify(x->t.v.s, x->first.id, &e), &e);
	must(vault_verify(x->t.v.s, x->second.id, &e), &e);
	must(store_scrub(x->t.v.s, NULL, NULL, NULL, NULL, &e), &e);
	vault_disk_free(&old);
}

/* How the content of a window lies here. */
static uint8_t
encoding_of(struct site *x, const struct point *p, uint64_t window)
{
	struct lc_err e = LC_ERR_INIT;
	struct record r;
	uint64_t no;

	must(catalog_map(x->t.v.s->catalog, p->id, p->disks[0].id, window, 1, &no, &e), &e);
	must(catalog_chunk(x->t.v.s->catalog, no, &r, &e), &e);
	assert_false(record_is_stub(&r));
	return r.encoding;
}

/* Every signature is another one. */
static void
spoil_signatures(const char *path)
{
	struct lc_buf b = {0};
	struct lc_err e = LC_ERR_INIT;
	size_t i;
	FILE *f;

	must(file_read_all(path, SIZE_MAX, &b, &e), &e);
	for (i = 60; i < b.n; i += 100)
		b.p[i] ^= 1;
	f = fopen(path, "r+");
	assert_non_null(f);
	assert_int_equal(fwrite(b.p, 1, b.n, f), b.n);
	(void)fclose(f);
	lc_buf_free(&b);
}

/* Two windows that are elsewhere change a little; nothing is fetched for the backup. */
static void
deltas_without_the_base(struct site *x, bool spoil, uint8_t encoding)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	make_site(x);
	make_thin(x);
	if (spoil)
		spoil_signatures(vault_path(&x->t.v, "index/signatures"));
	x->d.codes[15] += VAULT_EDIT;
	x->d.codes[25] += VAULT_EDIT;
	must(vault_backup(x->t.v.s, "web01", &x->d, 1, &p, &e), &e);
	assert_int_equal(x->fetched, 0);
	assert_int_equal(encoding_of(x, &p, 15), encoding);
	assert_int_equal(encoding_of(x, &p, 25), encoding);
	thin_fetch(x->t.v.s, fetch, x);
	must(vault_compare(x->t.v.s, p.id, &x->d, 1, &e), &e);
	must(vault_verify(x->t.v.s, p.id, &e), &e);
	point_done(&p);
	/* A point that shares nothing with that one does not count on what is elsewhere. */
	must(vault_backup(x->t.v.s, "db", &x->d, 1, &p, &e), &e);
	assert_int_equal(encoding_of(x, &p, 15), CHUNK_RAW);
	point_done(&p);
	free_site(x);
}

static void
deltas_are_made_upon_what_is_elsewhere(void **state)
{
	struct site x;

	(void)state;
	deltas_without_the_base(&x, false, CHUNK_RSYNC);
}

/* Of several bases the signature of the first one does. */
static void
layers_may_be_elsewhere(void **state)
{
	uint64_t bases[CHUNK_BASES_MAX], no;
	struct lc_err e = LC_ERR_INIT;
	unsigned tries = 0;
	struct point p;
	struct site x;
	size_t n;

	(void)state;
	make_site(&x);
	do {
		assert_true(++tries < 9);
		x.d.codes[15] += VAULT_EDIT;
		must(vault_backup(x.t.v.s, "web01", &x.d, 1, &p, &e), &e);
		must(catalog_map(x.t.v.s->catalog, p.id, p.disks[0].id, 15, 1, &no, &e), &e);
		must(catalog_bases(x.t.v.s->catalog, no, bases, &n, &e), &e);
		point_done(&p);
	} while (n < 2);
	twin_replicate(&x.t);
	make_thin(&x);
	x.d.codes[15] += VAULT_EDIT;
	must(vault_backup(x.t.v.s, "web01", &x.d, 1, &p, &e), &e);
	assert_int_equal(x.fetched, 0);
	assert_int_equal(encoding_of(&x, &p, 15), CHUNK_RSYNC);
	thin_fetch(x.t.v.s, fetch, &x);
	must(vault_compare(x.t.v.s, p.id, &x.d, 1, &e), &e);
	must(vault_verify(x.t.v.s, p.id, &e), &e);
	point_done(&p);
	free_site(&x);
}

/* What resembles contents that are elsewhere is whole; nothing is fetched for it. */
static void
similar_contents_may_be_elsewhere(void **state)
{
	struct vault_disk d = vault_disk("vda", 2);
	struct lc_err e = LC_ERR_INIT;
	struct point p;
	struct site x;

	(void)state;
	make_site(&x);
	x.t.v.similar_bytes = 1u << 20;
	twin_replicate(&x.t); /* and open it with an index */
	d.codes[0] = 5;
	d.codes[1] = 10;
	must(vault_backup(x.t.v.s, "web02", &d, 1, &p, &e), &e);
	point_done(&p);
	d.codes[0] = vault_mix(5, 6);
	must(vault_backup(x.t.v.s, "web03", &d, 1, &p, &e), &e);
	assert_int_equal(encoding_of(&x, &p, 0), CHUNK_PREFIX);
	point_done(&p);
	must(vault_backup(x.t.v.s, "db", &x.d, 1, &p, &e), &e); /* so that its segment is full */
	point_done(&p);
	twin_replicate(&x.t);
	make_thin(&x);
	d.codes[0] = vault_mix(5, 9);
	must(vault_backup(x.t.v.s, "web04", &d, 1, &p, &e), &e);
	assert_int_equal(x.fetched, 0);
	thin_fetch(x.t.v.s, fetch, &x);
	must(vault_compare(x.t.v.s, p.id, &d, 1, &e), &e);
	must(vault_verify(x.t.v.s, p.id, &e), &e);
	point_done(&p);
	vault_disk_free(&d);
	free_site(&x);
}

static void
a_wrong_signature_only_costs_bytes(void **state)
{
	struct site x;

	(void)state;
	deltas_without_the_base(&x, true, CHUNK_RAW);
}

static void
drops_and_fetches(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct store_stats st;
	uint64_t before;
	struct site x;

	(void)state;
	make_site(&x);
	before = bytes_of(&x);
	make_thin(&x);
	assert_true(bytes_of(&x) < before / 4);
	must(store_stats(x.t.v.s, &st, &e), &e);
	assert_true(st.dropped > 50 && st.damaged == 0);
	thin_fetch(x.t.v.s, fetch, &x);
	check(&x);
	assert_true(x.fetched > 50);
	assert_true(x.ahead > 10 * 50); /* of a point that was read from the beginning */
	free_site(&x);
}

/* Whoever sends a content looks up where it lies before it goes there. */
static void
is_dropped_before_it_is_read(void **state)
{
	static uint8_t payload[RECORD_PAYLOAD_MAX];
	struct lc_err e = LC_ERR_INIT;
	struct transfer_chunk c;
	struct outgoing *o;
	struct point p;
	struct site x;
	uint64_t no;

	(void)state;
	make_site(&x);
	must(vault_backup(x.t.v.s, "web01", &x.d, 1, &p, &e), &e);
	must(catalog_map(x.t.v.s->catalog, p.id, p.disks[0].id, 15, 1, &no, &e), &e);
	twin_replicate(&x.t);
	must(outgoing_contents(x.t.v.s, 0, &o, &e), &e);
	outgoing_expect(o, &no, 1);
	must(outgoing_chunk(o, no, payload, &c, &e), &e);
	make_thin(&x);
	thin_fetch(x.t.v.s, fetch, &x);
	must(outgoing_chunk(o, no, payload, &c, &e), &e);
	assert_true(x.fetched > 0);
	outgoing_free(o);
	point_done(&p);
	free_site(&x);
}

static void
says_where_it_is(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct site x;

	(void)state;
	make_site(&x);
	make_thin(&x);
	assert_int_equal(vault_verify(x.t.v.s, x.first.id, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, "web01/vda"));
	assert_non_null(strstr(e.msg, "bytes "));
	assert_non_null(strstr(e.msg, "replica dr1"));
	assert_non_null(strstr(e.msg, x.t.v.dir));
	must(store_scrub(x.t.v.s, NULL, NULL, NULL, NULL, &e) == 0 ? 0 : -1, &e);
	free_site(&x);
}

static void
believes_nothing_that_is_fetched(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct site x;

	(void)state;
	make_site(&x);
	make_thin(&x);
	x.lies = true;
	thin_fetch(x.t.v.s, fetch, &x);
	assert_int_equal(vault_verify(x.t.v.s, x.second.id, &e), LC_ECORRUPT);
	free_site(&x);
}

/* Also where the catalog is made again, by an owner or a reader. */
static void
rebuilds(void **state)
{
	struct point_list a = {0}, b = {0};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;
	struct site x;
	size_t i;

	(void)state;
	make_site(&x);
	make_thin(&x);
	must(store_points(x.t.v.s, NULL, &a, &e), &e);
	vault_close(&x.t.v);
	must(store_rebuild(&(struct store_opts){.dir = x.t.v.dir, .key_dir = x.t.v.keys}, &e), &e);
	vault_open(&x.t.v);
	must(store_points(x.t.v.s, NULL, &b, &e), &e);
	assert_int_equal(a.n, b.n);
	for (i = 0; i < a.n; i++) {
		assert_memory_equal(a.points[i].id, b.points[i].id, POINT_ID_SIZE);
		assert_memory_equal(&a.points[i].set, &b.points[i].set, sizeof a.points[i].set);
	}
	thin_fetch(x.t.v.s, fetch, &x);
	check(&x);
	vault_close(&x.t.v);
	(void)unlink(vault_path(&x.t.v, "catalog.sqlite"));
	must(chmod(x.t.v.dir, 0500), &e);
	must(vault_try(&x.t.v, STORE_READ, &s, &e), &e);
	thin_fetch(s, fetch, &x);
	must(vault_verify(s, x.second.id, &e), &e);
	store_close(s);
	must(chmod(x.t.v.dir, 0700), &e);
	vault_open(&x.t.v);
	point_list_free(&a);
	point_list_free(&b);
	free_site(&x);
}

/* Every window is put again: all is known without a look at any content; nothing is stored. */
static void
compares_by_id(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct writer_stats ws;
	struct writer *w;
	struct site x;
	uint64_t i;

	(void)state;
	make_site(&x);
	make_thin(&x);
	w = vault_begin(x.t.v.s, "web01", &x.d, 1, &e);
	assert_non_null(w);
	for (i = 0; i < WINDOWS; i++)
		must(vault_put(w, 0, &x.d, i, &e), &e);
	writer_stats(w, &ws);
	assert_int_equal(ws.fresh, 0);
	assert_int_equal(ws.known, 0);
	assert_int_equal(ws.zero + ws.same, WINDOWS);
	assert_int_equal(ws.stored, 0);
	assert_int_equal(x.fetched, 0);
	writer_abort(w);
	free_site(&x);
}

/* A content that was dropped comes into another window: its bytes are kept again, and serve both;
 * an equal rewrite of the old window stays one. */
static void
keeps_what_a_new_row_needs(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct writer_stats ws;
	struct writer *w;
	struct site x;
	struct point p;
	uint64_t i;

	(void)state;
	make_site(&x);
	make_thin(&x);
	x.d.codes[0] = x.d.codes[1];
	w = vault_begin(x.t.v.s, "web01", &x.d, 1, &e);
	assert_non_null(w);
	for (i = 0; i < WINDOWS; i++)
		must(vault_put(w, 0, &x.d, i, &e), &e);
	writer_stats(w, &ws);
	assert_int_equal(ws.fresh, 1);
	assert_int_equal(ws.known, 0);
	must(writer_commit(w, &(struct commit_opts){.source_ns = 77}, &p, &e), &e);
	w = vault_begin(x.t.v.s, "web01", &x.d, 1, &e);
	for (i = 0; i < WINDOWS; i++)
		must(vault_put(w, 0, &x.d, i, &e), &e);
	writer_stats(w, &ws);
	assert_int_equal(ws.fresh + ws.known, 0);
	writer_abort(w);
	thin_fetch(x.t.v.s, fetch, &x);
	must(vault_compare(x.t.v.s, p.id, &x.d, 1, &e), &e);
	vault_close(&x.t.v);
	must(store_rebuild(&(struct store_opts){.dir = x.t.v.dir, .key_dir = x.t.v.keys}, &e), &e);
	vault_open(&x.t.v);
	thin_fetch(x.t.v.s, fetch, &x);
	must(vault_compare(x.t.v.s, p.id, &x.d, 1, &e), &e);
	point_done(&p);
	free_site(&x);
}

/* What the replica has not (a point that was given up, one that waits) stays. */
static void
keeps_what_is_not_there(void **state)
{
	struct vault_disk d = vault_disk("vdb", WINDOWS);
	struct lc_err e = LC_ERR_INIT;
	struct thin_stats st;
	struct site x;
	struct point p;
	uint64_t i;

	(void)state;
	make_site(&x);
	for (i = 0; i < WINDOWS; i++)
		d.codes[i] = 90000 + i;
	must(vault_backup(x.t.v.s, "db01", &d, 1, &p, &e), &e);
	must(run_thin(&x, UINT64_MAX, &st, &e), &e);
	assert_true(st.segments > 2);
	must(vault_compare(x.t.v.s, p.id, &d, 1, &e), &e);
	assert_int_equal(x.fetched, 0);
	thin_fetch(x.t.v.s, fetch, &x);
	check(&x);
	vault_close(&x.t.v);
	must(store_rebuild(&(struct store_opts){.dir = x.t.v.dir, .key_dir = x.t.v.keys}, &e), &e);
	vault_open(&x.t.v);
	must(vault_compare(x.t.v.s, p.id, &d, 1, &e), &e);
	point_done(&p);
	vault_disk_free(&d);
	free_site(&x);
}

/* Chunks of one segment that the replica has, and some that it has not. */
static void
keeps_a_part(void **state)
{
	struct vault_disk d = vault_disk("vdb", 4);
	struct lc_err e = LC_ERR_INIT;
	struct segment_info *list;
	struct thin_stats st;
	struct point p;
	struct site x;
	size_t n, i, thin = 0;

	(void)state;
	make_site(&x);
	vault_close(&x.t.v);
	x.t.v.segment_bytes = 64u << 20; /* what follows goes into the last one */
	vault_open(&x.t.v);
	x.d.codes[3] = 31337;
	must(vault_backup(x.t.v.s, "web01", &x.d, 1, &p, &e), &e);
	point_done(&p);
	twin_replicate(&x.t);
	for (i = 0; i < 4; i++)
		d.codes[i] = 70000 + i;
	must(vault_backup(x.t.v.s, "db01", &d, 1, &p, &e), &e);
	vault_close(&x.t.v);
	x.t.v.segment_bytes = 1;
	vault_open(&x.t.v); /* a segment of its own for what comes now, and that one is sealed */
	d.codes[0] = 70100;
	must(vault_backup(x.t.v.s, "db01", &d, 1, NULL, &e), &e);
	must(run_thin(&x, UINT64_MAX, &st, &e), &e);
	must(segments_list(x.t.v.s->segments, &list, &n, &e), &e);
	for (i = 0; i < n; i++)
		thin += list[i].thin;
	assert_int_equal(thin, st.segments);
	lc_free(list);
	d.codes[0] = 70000;
	must(vault_compare(x.t.v.s, p.id, &d, 1, &e), &e);
	assert_int_equal(x.fetched, 0);
	vault_close(&x.t.v);
	must(store_rebuild(&(struct store_opts){.dir = x.t.v.dir, .key_dir = x.t.v.keys}, &e), &e);
	vault_open(&x.t.v);
	must(vault_compare(x.t.v.s, p.id, &d, 1, &e), &e);
	point_done(&p);
	vault_disk_free(&d);
	free_site(&x);
}

static void
put_content(struct site *x, const uint8_t *window, struct point *p)
{
	struct lc_err e = LC_ERR_INIT;
	struct writer *w = vault_begin(x->t.v.s, "db01", &x->d, 1, &e);

	assert_non_null(w);
	must(writer_put(w, 0, 0, 0, window, NULL, &e), &e);
	must(writer_commit(w, &(struct commit_opts){.source_ns = 5}, p, &e), &e);
}

/* A delta and what it is made upon go, and come back together: also to one who only reads, of a
 * store whose catalog was made again. */
static void
fetches_what_a_delta_is_made_upon(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	uint8_t window[WINDOW_SIZE];
	struct point a, b;
	struct store *s;
	struct site x;
	uint64_t i, n = 0;

	(void)state;
	make_site(&x);
	vault_fill(777777, window); /* incompressible, mostly */
	for (i = 0; i + 8 <= WINDOW_SIZE; i += 8) {
		uint64_t r = vault_random(&n, UINT64_MAX);

		memcpy(window + i, &r, 8);
	}
	put_content(&x, window, &a);
	memset(window + 5000, 7, 300);
	put_content(&x, window, &b);
	assert_true(b.stored < 20000); /* it is one */
	x.d.codes[7] = 123457;         /* so that the segment is not the last one */
	for (i = 0; i < WINDOWS; i++)
		x.d.codes[i] = 5 * (90000 + i);
	must(vault_backup(x.t.v.s, "web01", &x.d, 1, NULL, &e), &e);
	twin_replicate(&x.t);
	make_thin(&x);
	thin_fetch(x.t.v.s, fetch, &x);
	must(vault_verify(x.t.v.s, b.id, &e), &e);
	vault_close(&x.t.v);
	must(store_rebuild(&(struct store_opts){.dir = x.t.v.dir, .key_dir = x.t.v.keys}, &e), &e);
	must(vault_try(&x.t.v, STORE_READ, &s, &e), &e);
	thin_fetch(s, fetch, &x);
	n = x.fetched;
	must(vault_verify(s, b.id, &e), &e);
	assert_true(x.fetched >= n + 2);
	must(vault_verify(s, a.id, &e), &e);
	store_close(s);
	vault_open(&x.t.v);
	thin_fetch(x.t.v.s, fetch, &x);
	must(vault_verify(x.t.v.s, b.id, &e), &e);
	point_done(&a);
	point_done(&b);
	free_site(&x);
}

static void
frees_no_more_than_asked(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct thin_stats st;
	struct site x;

	(void)state;
	make_site(&x);
	must(run_thin(&x, 1, &st, &e), &e);
	assert_int_equal(st.segments, 1);
	must(run_thin(&x, 1, &st, &e), &e);
	assert_int_equal(st.segments, 1);
	thin_fetch(x.t.v.s, fetch, &x);
	check(&x);
	free_site(&x);
}

/* Damage is for scrub; a segment that has it stays as it is. */
static void
leaves_damage_alone(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece piece;
	struct thin_stats st;
	struct site x;

	(void)state;
	make_site(&x);
	vault_close(&x.t.v);
	assert_true(vault_piece_of(x.t.v.dir, RECORD_MAP, 0, &piece));
	vault_flip(x.t.v.dir, &piece, 60, 1);
	vault_open(&x.t.v);
	must(run_thin(&x, UINT64_MAX, &st, &e), &e);
	assert_true(st.segments > 0);
	assert_int_equal(store_scrub(x.t.v.s, NULL, NULL, NULL, NULL, NULL), LC_ECORRUPT);
	assert_int_equal(access(vault_path(&x.t.v, "segments/0000000000000001.thin"), F_OK) == 0,
	                 piece.r.segment != 1);
	free_site(&x);
}

/* As after a power loss: the file has become thin, and the catalog is from before. */
static void
catalog_from_before(void **state)
{
	char keep[400];
	struct site x;

	(void)state;
	make_site(&x);
	vault_close(&x.t.v);
	(void)snprintf(keep, sizeof keep, "%s/catalog.before", x.t.v.top);
	{
		struct lc_buf b = {0};
		struct lc_err e = LC_ERR_INIT;

		must(file_read_all(vault_path(&x.t.v, "catalog.sqlite"), 1u << 28, &b, &e), &e);
		must(file_write_new(keep, b.p, b.n, 0600, &e), &e);
		lc_buf_free(&b);
	}
	vault_open(&x.t.v);
	make_thin(&x);
	vault_close(&x.t.v);
	assert_int_equal(
	    rename(tmpdir_path(x.t.v.top, "catalog.before"), vault_path(&x.t.v, "catalog.sqlite")),
	    0);
	vault_open(&x.t.v);
	thin_fetch(x.t.v.s, fetch, &x);
	check(&x);
	free_site(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(drops_and_fetches),
	    cmocka_unit_test(is_dropped_before_it_is_read),
	    cmocka_unit_test(deltas_are_made_upon_what_is_elsewhere),
	    cmocka_unit_test(layers_may_be_elsewhere),
	    cmocka_unit_test(similar_contents_may_be_elsewhere),
	    cmocka_unit_test(a_wrong_signature_only_costs_bytes),
	    cmocka_unit_test(says_where_it_is),
	    cmocka_unit_test(believes_nothing_that_is_fetched),
	    cmocka_unit_test(rebuilds),
	    cmocka_unit_test(compares_by_id),
	    cmocka_unit_test(keeps_what_a_new_row_needs),
	    cmocka_unit_test(keeps_what_is_not_there),
	    cmocka_unit_test(keeps_a_part),
	    cmocka_unit_test(fetches_what_a_delta_is_made_upon),
	    cmocka_unit_test(frees_no_more_than_asked),
	    cmocka_unit_test(leaves_damage_alone),
	    cmocka_unit_test(catalog_from_before),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

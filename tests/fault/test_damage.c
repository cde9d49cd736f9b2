/*
 * Law 5 against rot: a bit flipped anywhere in the segments of a store.
 *
 * For each record, in its header, payload and padding, for the headers, indexes and trailers of
 * segments: either the flip is harmless, or scrub names the file and the place; every point that
 * does not hang by the record is whole; one that does is refused or says what is missing, and never
 * gives wrong bytes.  With the catalog, and without.  Nothing is ever cut from a sealed segment.
 *
 * LOCUM_CRASH_ALL=1: every byte of headers and more of the payloads.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/log.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define POINTS 5u
#define WINDOWS 6u

struct history {
	struct vault v;
	char *sound; /* copy of the store as it was made */
	const char *vm[POINTS];
	struct vault_disk d[POINTS];
	struct point p[POINTS];
};

static void
make(struct history *h)
{
	struct lc_err e = LC_ERR_INIT;
	size_t i, k;

	memset(h, 0, sizeof *h);
	vault_make(&h->v, true);
	h->v.segment_bytes = 3000;
	vault_open(&h->v);
	for (i = 0; i < POINTS; i++) {
		/* web01, db, web01, db, web01 */
		h->vm[i] = i % 2 == 0 ? "web01" : "db";
		h->d[i] = i < 2 ? vault_disk("vda", WINDOWS) : vault_disk_copy(&h->d[i - 2]);
		for (k = i; k < WINDOWS; k += 2)
			h->d[i].codes[k] = 7 * (1 + 10 * i + k) + 1;
		must(vault_backup(h->v.s, h->vm[i], &h->d[i], 1, &h->p[i], &e), &e);
	}
	vault_close(&h->v);
	h->sound = lc_strdup(tmpdir_path(h->v.top, "sound"));
	vault_copy(h->v.dir, h->sound);
}

static void
back_to_sound(struct history *h)
{
	dir_remove(h->v.dir);
	vault_copy(h->sound, h->v.dir);
}

static void
without_catalog(struct history *h)
{
	(void)unlink(vault_path(&h->v, "catalog.sqlite"));
	(void)unlink(vault_path(&h->v, "catalog.sqlite-wal"));
	(void)unlink(vault_path(&h->v, "catalog.sqlite-shm"));
	dir_remove(vault_path(&h->v, "index"));
}

/* ---- which points hang by a record: what the log's order says ---- */

static bool
has_chunk(const struct history *h, size_t point, size_t nth)
{
	uint64_t seen[256];
	size_t n = 0, i, k, m;

	/* Chunks come in the order in which their contents were first put. */
	for (i = 0; i < POINTS; i++) {
		for (k = 0; k < WINDOWS; k++) {
			uint64_t code = h->d[i].codes[k];

			if (code == 0)
				continue;
			for (m = 0; m < n && seen[m] != code; m++)
				;
			if (m == n)
				seen[n++] = code;
		}
	}
	assert_true(nth < n);
	for (k = 0; k < WINDOWS; k++) {
		if (h->d[point].codes[k] == seen[nth])
			return true;
	}
	return false;
}

/* Without the catalog: state of a point damages it and those of its VM behind it. */
static bool
hangs(const struct history *h, size_t point, const struct vault_piece *piece, size_t nth,
      bool catalog)
{
	size_t of;

	switch (piece->r.type) {
	case RECORD_CHUNK:
		return has_chunk(h, point, nth);
	case RECORD_MAP:
	case RECORD_COMMIT:
		if (catalog)
			return false;
		if (piece->r.type == RECORD_COMMIT) {
			if (nth == 0) /* of init: it says nothing */
				return false;
			of = nth - 1;
		} else {
			of = nth;
		}
		return point >= of && point % 2 == of % 2;
	default:
		return false;
	}
}

/* ---- one flip ---- */

struct told {
	size_t n;
	struct damage list[32];
	bool named; /* the place itself */
	const struct vault_piece *piece;
};

static void
on_damage(void *arg, const struct damage *d)
{
	struct told *t = arg;
	char want[64], name[32];

	if (t->n < 32)
		t->list[t->n] = *d;
	t->n++;
	/* It may have been sealed by whoever opened the store. */
	(void)snprintf(want, sizeof want, "segments/%.17s",
	               segment_name(name, t->piece->r.segment, true));
	if (strncmp(d->file, want, strlen(want)) == 0 && d->offset < t->piece->off + t->piece->n &&
	    d->offset + d->length > t->piece->off)
		t->named = true;
	if (d->affects[0] == '\0')
		fail_msg("damage without a word on what it affects");
}

/* The last record of the open segment, its header unreadable and no catalog to know it: that is
 * what a tear looks like. */
static bool
looks_like_a_tear(const struct vault_piece *p, uint64_t at, bool catalog, bool last)
{
	return !catalog && last && !p->sealed && at < RECORD_HEADER_SIZE;
}

static void
check_points(struct history *h, struct store *s, const struct vault_piece *piece, size_t nth,
             bool catalog, bool torn)
{
	struct lc_err e = LC_ERR_INIT;
	size_t i;
	int rc;

	for (i = 0; i < POINTS; i++) {
		lc_err_clear(&e);
		rc = vault_compare(s, h->p[i].id, &h->d[i], 1, &e);
		rc = rc != 0 ? rc : vault_verify(s, h->p[i].id, &e);
		if (rc == 0)
			continue;
		if (torn && i == POINTS - 1 && rc == LC_ENOENT)
			continue;
		if (!hangs(h, i, piece, nth, catalog))
			fail_msg("type %d, record %zu: point %zu does not hang by it: %s",
			         piece->r.type, nth, i, e.msg);
		if (rc != LC_ECORRUPT && rc != LC_ENOENT)
			fail_msg("point %zu: %d: %s", i, rc, e.msg);
		if (strstr(e.msg, "is not what was put") != NULL)
			fail_msg("wrong bytes: %s", e.msg);
		if (rc == LC_ENOENT && (piece->r.type != RECORD_COMMIT || catalog))
			fail_msg("point %zu vanished", i);
	}
}

/* What scrub found is condemned; so a backup of the same content is whole, and heals the points
 * that lacked it, also for a catalog that is made later. */
static void
heal(struct history *h, const struct told *t)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;
	uint64_t n = 0;
	unsigned i;

	must(store_condemn(h->v.s, t->list, t->n < 32 ? t->n : 32, &n, &e), &e);
	must(vault_backup(h->v.s, "web01", &h->d[0], 1, &p, &e), &e);
	for (i = 0; i < 2; i++) {
		must(vault_compare(h->v.s, p.id, &h->d[0], 1, &e), &e);
		must(vault_verify(h->v.s, p.id, &e), &e);
		if (n > 0)
			must(vault_compare(h->v.s, h->p[0].id, &h->d[0], 1, &e), &e);
		vault_close(&h->v);
		without_catalog(h);
		vault_open(&h->v);
	}
}

static void
one_flip(struct history *h, const struct vault_piece *piece, size_t nth, uint64_t at, bool last,
         bool catalog)
{
	struct told t = {.piece = piece};
	struct lc_err e = LC_ERR_INIT;
	bool padding = piece->r.type != 0 && at >= RECORD_HEADER_SIZE + piece->r.n;
	bool torn = looks_like_a_tear(piece, at, catalog, last);
	char name[64], file[32];
	struct store *s;
	int rc;

	back_to_sound(h);
	vault_flip(h->v.dir, piece, at, (uint8_t)(1u << at % 8));
	if (!catalog)
		without_catalog(h);
	/* A reader first: nothing that it does may matter. */
	must(vault_try(&h->v, STORE_READ, &s, &e), &e);
	check_points(h, s, piece, nth, catalog, torn);
	rc = store_scrub(s, on_damage, &t, NULL, NULL, NULL);
	store_close(s);
	(void)snprintf(name, sizeof name, "segments/%s",
	               segment_name(file, piece->r.segment, piece->sealed));
	if (rc == 0 && !padding && !torn)
		fail_msg("a flip at byte %" PRIu64 " of a record of type %d in %s went unnoticed",
		         at, piece->r.type, name);
	if (rc != 0 && !t.named)
		fail_msg("a flip at byte %" PRIu64 " of type %d: the place was not named", at,
		         piece->r.type);
	/* Then an owner; and a backup works. */
	h->v.s = NULL;
	vault_open(&h->v);
	check_points(h, h->v.s, piece, nth, catalog, torn);
	if (access(vault_path(&h->v, name), F_OK) != 0) {
		(void)snprintf(name, sizeof name, "segments/%s",
		               segment_name(file, piece->r.segment, true));
		if (access(vault_path(&h->v, name), F_OK) != 0)
			fail_msg("%s is gone", name);
	}
	heal(h, &t);
	vault_close(&h->v);
}

static void
flip_all(bool catalog)
{
	bool all = getenv("LOCUM_CRASH_ALL") != NULL;
	struct vault_piece *list;
	size_t n, i, flips = 0, seen[16] = {0};
	struct history h;
	uint64_t at, seed = 5;

	make(&h);
	vault_pieces(h.v.dir, &list, &n);
	assert_true(n > 20);
	for (i = 0; i < n; i++) {
		uint64_t places[80] = {0};
		size_t np = 0, k;
		struct vault_piece *p = &list[i];
		size_t nth = seen[p->r.type]++;

		if (all) {
			for (at = 0; at < p->n && at < RECORD_HEADER_SIZE; at++)
				places[np++] = at;
		} else {
			places[np++] = vault_random(&seed, 8);
			places[np++] = 8 + vault_random(&seed, 24);
		}
		if (p->n > RECORD_HEADER_SIZE && p->r.type != 0) {
			if (p->r.n > 0) {
				places[np++] = RECORD_HEADER_SIZE;
				for (k = 0; k < (all ? 20u : 1u); k++)
					places[np++] = RECORD_HEADER_SIZE +
					               vault_random(&seed, p->r.n);
				places[np++] = RECORD_HEADER_SIZE + p->r.n - 1;
			}
			if (p->n > RECORD_HEADER_SIZE + p->r.n)
				places[np++] = p->n - 1;
		}
		for (k = 0; k < np; k++, flips++)
			one_flip(&h, p, nth, places[k], i + 1 == n, catalog);
	}
	print_message("%zu flips in %zu pieces\n", flips, n);
	free(list);
	for (i = 0; i < POINTS; i++)
		vault_disk_free(&h.d[i]);
	lc_free(h.sound);
	vault_free(&h.v);
}

static void
a_flip_with_the_catalog(void **state)
{
	(void)state;
	flip_all(true);
}

static void
a_flip_without_the_catalog(void **state)
{
	(void)state;
	flip_all(false);
}

/* The open segment cut at every byte of its last record, and of the commit before it. */
static void
the_open_segment_cut_anywhere(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece *list;
	uint64_t cut, step = getenv("LOCUM_CRASH_ALL") != NULL ? 1 : 7;
	struct history h;
	size_t n, i;
	char *path;

	(void)state;
	make(&h);
	vault_pieces(h.v.dir, &list, &n);
	assert_false(list[n - 1].sealed);
	assert_int_equal(list[n - 1].r.type, RECORD_COMMIT);
	for (cut = list[n - 1].off + list[n - 1].n; cut-- > list[n - 1].off;
	     cut -= cut % step == 0 ? 0 : cut % step) {
		char name[64], file[32];
		int rc;

		back_to_sound(&h);
		(void)snprintf(name, sizeof name, "segments/%s",
		               segment_name(file, list[n - 1].r.segment, false));
		path = lc_strdup(vault_path(&h.v, name));
		assert_int_equal(truncate(path, (off_t)cut), 0);
		lc_free(path);
		if (cut % 2 == 0)
			without_catalog(&h);
		vault_open(&h.v);
		for (i = 0; i < POINTS; i++) {
			lc_err_clear(&e);
			rc = vault_compare(h.v.s, h.p[i].id, &h.d[i], 1, &e);
			rc = rc != 0 ? rc : vault_verify(h.v.s, h.p[i].id, &e);
			/* Only the last one was in what was cut; it is gone, not half there. */
			if (i == POINTS - 1)
				assert_int_equal(rc, LC_ENOENT);
			else
				must(rc, &e);
		}
		vault_close(&h.v);
		if (cut == 0)
			break;
	}
	free(list);
	for (i = 0; i < POINTS; i++)
		vault_disk_free(&h.d[i]);
	lc_free(h.sound);
	vault_free(&h.v);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_flip_with_the_catalog),
	    cmocka_unit_test(a_flip_without_the_catalog),
	    cmocka_unit_test(the_open_segment_cut_anywhere),
	};

	log_set_level(getenv("LOCUM_TEST_LOG") == NULL ? LOG_LV_ERROR : LOG_LV_DEBUG);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

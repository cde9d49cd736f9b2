/*
 * witness: what a replica acknowledged last is remembered, and what it lacks of that is told once.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "replicator/witness.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "tests/lib/unit.h"

struct told {
	unsigned n, none; /* none: it has nothing of that line */
	struct witness_point was, is;
};

static void
on_lost(void *arg, const struct witness_point *was, const struct witness_point *is)
{
	struct told *t = arg;

	t->n++;
	t->none += is == NULL ? 1 : 0;
	t->was = *was;
	if (is != NULL)
		t->is = *is;
}

static struct witness_point
point(uint8_t line, uint64_t counter)
{
	struct witness_point p = {.counter = counter, .source_ns = 1000 + (int64_t)counter};

	memset(p.line, line, 16);
	memset(p.vm, line + 100, 16);
	memset(p.id, (int)counter, 16);
	(void)snprintf(p.name, sizeof p.name, "web # %u", line);
	return p;
}

static struct witness *
witness(const char *dir, const char *name, uint8_t key)
{
	struct peer peer = {.name = ""};
	struct lc_err e = LC_ERR_INIT;
	struct witness *w = NULL;

	(void)snprintf(peer.name, sizeof peer.name, "%s", name);
	memset(peer.key, key, sizeof peer.key);
	assert_int_equal(witness_open(dir, &peer, &w, &e), 0);
	return w;
}

static struct witness *
reopened(struct witness *w, const char *dir, const char *name, uint8_t key)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(witness_save(w, &e), 0);
	witness_free(w);
	return witness(dir, name, key);
}

static void
what_it_lacks_is_told_once(void **state)
{
	struct witness_point now[2] = {point(1, 4), point(2, 9)};
	struct witness_point p = point(1, 5), q = point(2, 9);
	struct told t = {.n = 0};
	char *dir = tmpdir_new();
	struct witness *w = witness(dir, "dr", 1);

	(void)state;
	assert_int_equal(witness_compare(w, now, 0, on_lost, &t), 0); /* new: nothing to lack */
	witness_note(w, &p);
	witness_note(w, &q);
	w = reopened(w, dir, "dr", 1);
	assert_int_equal(witness_lost_ns(w), 0);
	assert_int_equal(witness_compare(w, now, 2, on_lost, &t), 1);
	assert_int_equal(t.n, 1);
	assert_int_equal(t.none, 0);
	assert_int_equal(t.was.counter, 5);
	assert_int_equal(t.is.counter, 4);
	assert_memory_equal(&t.was, &p, sizeof p); /* through the file, the name too */
	assert_true(witness_lost_ns(w) > 0);
	w = reopened(w, dir, "dr", 1);
	assert_true(witness_lost_ns(w) > 0);
	assert_int_equal(witness_compare(w, now, 2, on_lost, &t), 0);
	/* A whole line is gone, and the other one is newer than what was remembered. */
	now[1] = point(2, 11);
	assert_int_equal(witness_compare(w, &now[1], 1, on_lost, &t), 1);
	assert_int_equal(t.none, 1);
	assert_memory_equal(t.was.line, now[0].line, 16);
	now[1] = point(2, 10);
	assert_int_equal(witness_compare(w, &now[1], 1, on_lost, &t), 1);
	assert_int_equal(t.was.counter, 11);
	witness_free(w);
	tmpdir_free(dir);
}

/* Another point in its place: the source's store was put back, and the replica lacks nothing. */
static void
what_is_as_new_is_not_older(void **state)
{
	struct witness_point p = point(1, 5), twin = p, old = point(1, 3);
	struct told t = {.n = 0};
	char *dir = tmpdir_new();
	struct witness *w = witness(dir, "dr", 1);

	(void)state;
	twin.id[0] ^= 1;
	witness_note(w, &p);
	witness_note(w, &old); /* late news of an older one */
	assert_int_equal(witness_compare(w, &twin, 1, on_lost, &t), 0);
	p = point(1, 4);
	assert_int_equal(witness_compare(w, &p, 1, on_lost, &t), 1);
	assert_memory_equal(t.was.id, twin.id, 16);
	witness_free(w);
	tmpdir_free(dir);
}

static void
of_another_replica_nothing_is_expected(void **state)
{
	struct witness_point p = point(1, 5);
	struct told t = {.n = 0};
	char *dir = tmpdir_new();
	struct witness *w = witness(dir, "dr", 1);

	(void)state;
	witness_note(w, &p);
	w = reopened(w, dir, "far", 1);
	assert_int_equal(witness_compare(w, NULL, 0, on_lost, &t), 0);
	w = reopened(w, dir, "dr", 2); /* the name was given to another one */
	assert_int_equal(witness_compare(w, NULL, 0, on_lost, &t), 0);
	witness_free(w);
	tmpdir_free(dir);
}

/* Cut and changed anywhere: empty or a part of it, never a crash or a false alarm of another
 * line. */
static void
a_broken_file_is_none(void **state)
{
	struct witness_point p = point(1, 5);
	struct lc_err e = LC_ERR_INIT;
	char *dir = tmpdir_new(), path[300];
	struct witness *w = witness(dir, "dr", 1);
	struct lc_buf whole = {0};
	size_t i;

	(void)state;
	witness_note(w, &p);
	assert_int_equal(witness_save(w, &e), 0);
	witness_free(w);
	(void)snprintf(path, sizeof path, "%s/dr.witness", dir);
	assert_int_equal(file_read_all(path, 65536, &whole, &e), 0);
	for (i = 0; i < whole.n; i++) {
		struct told t = {.n = 0};

		assert_int_equal(file_write_atomic(path, whole.p, i, 0600, &e), 0);
		w = witness(dir, "dr", 1);
		assert_true(witness_compare(w, NULL, 0, on_lost, &t) <= 1);
		witness_free(w);
		whole.p[i] ^= 0x11;
		assert_int_equal(file_write_atomic(path, whole.p, whole.n, 0600, &e), 0);
		whole.p[i] ^= 0x11;
		w = witness(dir, "dr", 1);
		assert_true(witness_compare(w, NULL, 0, on_lost, &t) <= 1);
		witness_free(w);
	}
	lc_buf_free(&whole);
	tmpdir_free(dir);
}

static bool
knows(const struct witness *w, unsigned line)
{
	size_t i, n;
	const struct witness_point *list = witness_points(w, &n);

	for (i = 0; i < n; i++) {
		if (memcmp(list[i].line, &line, sizeof line) == 0)
			return true;
	}
	return false;
}

/* It does not grow without end, and lines that get no points any more make room for new ones. */
static void
the_newest_of_many_lines_stay(void **state)
{
	struct told t = {.n = 0};
	char *dir = tmpdir_new();
	struct witness *w = witness(dir, "dr", 1);
	struct witness_point p = point(1, 1);
	unsigned i;
	size_t n;

	(void)state;
	for (i = 0; i < 1010; i++) {
		p.source_ns = 1000 + (int64_t)i;
		memcpy(p.line, &i, sizeof i);
		memset(p.name, 'x', sizeof p.name - 1);
		witness_note(w, &p);
	}
	(void)witness_points(w, &n);
	assert_int_equal(n, 1000);
	w = reopened(w, dir, "dr", 1);
	(void)witness_points(w, &n);
	assert_int_equal(n, 1000);
	assert_false(knows(w, 9));
	assert_true(knows(w, 10));
	assert_true(knows(w, 1009));
	(void)witness_compare(w, NULL, 0, on_lost, &t);
	assert_int_equal(t.n, 1000);
	p.source_ns = 1;
	for (i = 0; i < 1001; i++) {
		memcpy(p.line, &i, sizeof i);
		p.source_ns = 2000 - (int64_t)i;
		witness_note(w, &p);
	}
	assert_true(knows(w, 0));
	assert_true(knows(w, 999));
	assert_false(knows(w, 1000)); /* older than all that are known */
	witness_free(w);
	tmpdir_free(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_it_lacks_is_told_once),
	    cmocka_unit_test(what_is_as_new_is_not_older),
	    cmocka_unit_test(of_another_replica_nothing_is_expected),
	    cmocka_unit_test(a_broken_file_is_none),
	    cmocka_unit_test(the_newest_of_many_lines_stay),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

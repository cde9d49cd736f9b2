/*
 * Which point a time names, where a host says what it likes of its own clock.
 */
#include <stdio.h>
#include <string.h>

#include "store/base/clock.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

static void
must(int rc, const struct lc_err *e)
{
	if (rc != 0)
		fail_msg("%d: %s", rc, e->msg);
}

/* A point of which its host says that it showed that instant, of a VM that has others. */
static struct point
dated(struct vault *v, struct vault_disk *d, int64_t source_ns)
{
	struct commit_opts o = {.source_ns = source_ns};
	struct lc_err e = LC_ERR_INIT;
	struct writer *w;
	struct point p;

	d->codes[0]++;
	w = vault_begin(v->s, "web01", d, 1, &e);
	assert_non_null(w);
	must(vault_put(w, 0, d, 0, &e), &e);
	must(writer_commit(w, &o, &p, &e), &e);
	return p;
}

static void
found_at(struct vault *v, int64_t at_ns, const struct point *want)
{
	char when[40], spec[64];
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	(void)snprintf(spec, sizeof spec, "web01@%s", clock_format_utc(when, sizeof when, at_ns));
	if (want == NULL) {
		assert_int_equal(store_find(v->s, spec, &p, &e), LC_ENOENT);
		return;
	}
	must(store_find(v->s, spec, &p, &e), &e);
	assert_memory_equal(p.id, want->id, sizeof p.id);
	point_done(&p);
}

/* A captured host can't put what it sends in place of what is of before: a point that says that it
 * is older than those that came before it is not taken for what was then.  Nor does one that says
 * that it is of the future hide those that come after it. */
static void
a_point_is_no_older_than_those_before_it(void **state)
{
	const int64_t hour = 3600 * LC_NS_PER_S, now = clock_wall_ns() / LC_NS_PER_S * LC_NS_PER_S;
	struct point first, second, last, bad[3], then;
	struct vault_disk d = vault_disk("vda", 1);
	struct vault v;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	first = dated(&v, &d, now - 30 * hour);
	second = dated(&v, &d, now - 20 * hour);
	last = dated(&v, &d, now - 10 * hour);
	found_at(&v, now - 25 * hour, &first);
	bad[0] = dated(&v, &d, 1);
	bad[1] = dated(&v, &d, now - 25 * hour);
	found_at(&v, now - 40 * hour, NULL);
	found_at(&v, now - 25 * hour, &first);
	found_at(&v, now - 15 * hour, &second);
	found_at(&v, now - 11 * hour, &second);
	bad[2] = dated(&v, &d, now + 9000 * hour);
	then = dated(&v, &d, now - hour / 2);
	found_at(&v, now - 15 * hour, &second);
	found_at(&v, now, &then);
	found_at(&v, now - 2 * hour, &bad[1]); /* who can tell? it is the newest one that came */
	vault_disk_free(&d);
	point_done(&last);
	vault_free(&v);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_point_is_no_older_than_those_before_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

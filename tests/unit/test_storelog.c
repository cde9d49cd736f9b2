/*
 * The log from the facade's side: what is between it and the catalog is known all the same.
 */
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "store/store_internal.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define CODE(i) (5 * ((i) + 10)) /* does not compress */

struct flushing {
	struct store *s;
	struct lc_err err;
	int rc;
};

static void *
flush(void *arg)
{
	struct flushing *f = arg;

	f->rc = store_flush(f->s, &f->err);
	return NULL;
}

static bool
nothing_waits(struct store *s)
{
	bool none;

	(void)pthread_mutex_lock(&s->log_lock);
	none = s->pending == NULL;
	(void)pthread_mutex_unlock(&s->log_lock);
	return none;
}

/* The first that waits; its segment is sealed by those behind it. */
static struct record
put_some(struct vault *v, struct writer **w, struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct record first;
	uint64_t i;

	v->segment_bytes = 50000;
	vault_open(v);
	v->s->flush_bytes = UINT64_MAX;
	*d = vault_disk("vda", 3);
	*w = vault_begin(v->s, "web01", d, 1, &e);
	assert_non_null(*w);
	for (i = 0; i < 3; i++) {
		d->codes[i] = CODE(i);
		must(vault_put(*w, 0, d, i, &e), &e);
	}
	assert_non_null(v->s->pending);
	first = v->s->pending->r;
	assert_int_equal(first.type, RECORD_CHUNK);
	assert_false(segments_recent(v->s->segments, first.seq, &first));
	return first;
}

/* It is taken off the list of what waits before the catalog has it. */
static void
a_base_is_known_while_the_catalog_takes_it(void **state)
{
	struct flushing f = {.err = LC_ERR_INIT};
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct record first;
	struct writer *w;
	struct vault v;
	pthread_t thread;
	uint64_t no = 0;
	int tries, rc;

	(void)state;
	vault_make(&v, true);
	first = put_some(&v, &w, &d);
	must(store_find_base(v.s, 0, first.id, &no, &e), &e);
	must(catalog_begin(v.s->catalog, &e), &e); /* somebody else has it just then */
	f.s = v.s;
	assert_int_equal(pthread_create(&thread, NULL, flush, &f), 0);
	for (tries = 0; tries < 2000 && !nothing_waits(v.s); tries++)
		(void)poll(NULL, 0, 5);
	no = 0;
	rc = store_find_base(v.s, 0, first.id, &no, NULL);
	catalog_rollback(v.s->catalog);
	assert_int_equal(pthread_join(thread, NULL), 0);
	must(f.rc, &f.err);
	assert_true(tries < 2000);
	assert_int_equal(rc, 0);
	assert_int_equal(no, first.seq);
	must(store_find_base(v.s, 0, first.id, &no, &e), &e);
	writer_abort(w);
	vault_disk_free(&d);
	vault_free(&v);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_base_is_known_while_the_catalog_takes_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

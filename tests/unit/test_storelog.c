/*
 * The log from the facade's side: what is between it and the catalog is known all the same, and a
 * catalog that fails says so.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sqlite3.h>

#include "store/store_internal.h"
#include "store/transfer.h"
#include "store/vouch.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define CODE(i) (5 * ((i) + 10)) /* does not compress */

struct flushing {
	struct store *s;
	struct lc_err err;
	int rc;
};

/* Where a flush waits for the catalog, which somebody else has just then. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool shut, waiting;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

int __real_catalog_begin(struct catalog *c, struct lc_err *e);
int __wrap_catalog_begin(struct catalog *c, struct lc_err *e);

int
__wrap_catalog_begin(struct catalog *c, struct lc_err *e)
{
	(void)pthread_mutex_lock(&gate.lock);
	while (gate.shut) {
		gate.waiting = true;
		(void)pthread_cond_broadcast(&gate.cond);
		(void)pthread_cond_wait(&gate.cond, &gate.lock);
	}
	(void)pthread_mutex_unlock(&gate.lock);
	return __real_catalog_begin(c, e);
}

static void
set_gate(bool shut)
{
	(void)pthread_mutex_lock(&gate.lock);
	gate.shut = shut;
	gate.waiting = false;
	(void)pthread_cond_broadcast(&gate.cond);
	(void)pthread_mutex_unlock(&gate.lock);
}

static void
wait_at_gate(void)
{
	(void)pthread_mutex_lock(&gate.lock);
	while (!gate.waiting)
		(void)pthread_cond_wait(&gate.cond, &gate.lock);
	(void)pthread_mutex_unlock(&gate.lock);
}

static void *
flush(void *arg)
{
	struct flushing *f = arg;

	f->rc = store_flush(f->s, &f->err);
	return NULL;
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
	assert_non_null(v->s->pending.first);
	first = v->s->pending.first->r;
	assert_int_equal(first.type, RECORD_CHUNK);
	assert_false(segments_recent(v->s->segments, first.seq, &first));
	return first;
}

static struct record
commit_some(struct vault *v, struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct commit_opts o = {0};
	struct writer *w;
	struct record first = put_some(v, &w, d);

	must(writer_commit(w, &o, NULL, &e), &e);
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
	int rc;

	(void)state;
	vault_make(&v, true);
	first = put_some(&v, &w, &d);
	must(store_find_base(v.s, 0, first.id, &no, &e), &e);
	set_gate(true);
	f.s = v.s;
	assert_int_equal(pthread_create(&thread, NULL, flush, &f), 0);
	wait_at_gate();
	assert_null(v.s->pending.first);
	no = 0;
	rc = store_find_base(v.s, 0, first.id, &no, NULL);
	set_gate(false);
	assert_int_equal(pthread_join(thread, NULL), 0);
	must(f.rc, &f.err);
	assert_int_equal(rc, 0);
	assert_int_equal(no, first.seq);
	must(store_find_base(v.s, 0, first.id, &no, &e), &e);
	writer_abort(w);
	vault_disk_free(&d);
	vault_free(&v);
}

/* ---- a flush that takes long ---- */

#define FLUSH_BYTES_HERE UINT64_C(200000)
#define WINDOWS 60u /* of 64 KiB each */

struct putting {
	struct writer *w;
	struct vault_disk d;
	struct lc_err err;
	int rc;
	atomic_bool over;
};

static void *
put_all(void *arg)
{
	struct putting *p = arg;
	uint64_t i;

	for (i = 1; i < WINDOWS && p->rc == 0; i++)
		p->rc = vault_put(p->w, 0, &p->d, i, &p->err);
	atomic_store(&p->over, true);
	return NULL;
}

/* Whoever finds it under way goes on, but not for as long as it takes. */
static void
what_waits_is_bounded_while_a_flush_is_slow(void **state)
{
	struct putting p = {.err = LC_ERR_INIT};
	struct flushing f = {.err = LC_ERR_INIT};
	struct lc_err e = LC_ERR_INIT;
	pthread_t flusher, putter;
	struct vault v;
	uint64_t i, waits;
	int tries;

	(void)state;
	vault_make(&v, true);
	vault_open(&v);
	v.s->flush_bytes = FLUSH_BYTES_HERE;
	p.d = vault_disk("vda", WINDOWS);
	for (i = 0; i < WINDOWS; i++)
		p.d.codes[i] = CODE(i);
	p.w = vault_begin(v.s, "web01", &p.d, 1, &e);
	assert_non_null(p.w);
	must(vault_put(p.w, 0, &p.d, 0, &e), &e);
	set_gate(true);
	f.s = v.s;
	assert_int_equal(pthread_create(&flusher, NULL, flush, &f), 0);
	wait_at_gate();
	assert_int_equal(pthread_create(&putter, NULL, put_all, &p), 0);
	for (tries = 0;
	     tries < 500 && !atomic_load(&p.over) && v.s->pending_bytes < 4 * FLUSH_BYTES_HERE;
	     tries++)
		(void)poll(NULL, 0, 10);
	(void)poll(NULL, 0, 100); /* in which it might go on */
	waits = v.s->pending_bytes;
	set_gate(false);
	assert_int_equal(pthread_join(flusher, NULL), 0);
	assert_int_equal(pthread_join(putter, NULL), 0);
	must(f.rc, &f.err);
	must(p.rc, &p.err);
	assert_in_range(waits, 2 * FLUSH_BYTES_HERE, 5 * FLUSH_BYTES_HERE);
	writer_abort(p.w);
	vault_disk_free(&p.d);
	vault_free(&v);
}

/* ---- a catalog that fails ---- */

static void
change(const struct vault *v, const char *sql)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(vault_path(v, "catalog.sqlite"), &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	(void)sqlite3_close(db);
}

static void
failed(int rc, struct lc_err *e)
{
	assert_int_equal(rc, LC_EIO);
	assert_int_equal(e->code, rc);
	assert_true(e->msg[0] != '\0');
	lc_err_clear(e);
}

static struct incoming *
begin_incoming(struct store *s, uint16_t writer)
{
	struct transfer_point p;
	struct lc_err e = LC_ERR_INIT;
	struct incoming *in = NULL;

	memset(&p, 0, sizeof p);
	memset(p.id, 1, sizeof p.id);
	memset(p.vm, 2, sizeof p.vm);
	memset(p.line, 3, sizeof p.line);
	must(incoming_begin(s, writer, &p, &in, &e), &e);
	return in;
}

static void
vouch(struct store *s, uint16_t writer, const struct record *chunk)
{
	struct record r = {.type = RECORD_VOUCH, .writer = writer};
	struct vouch x = {.seq = chunk->seq};
	struct lc_buf payload = {0};
	struct lc_err e = LC_ERR_INIT;

	memcpy(x.id, chunk->id, sizeof x.id);
	must(vouch_encode(&x, 1, &payload, &e), &e);
	r.n = (uint32_t)payload.n;
	must(store_append(s, &r, payload.p, NULL, &e), &e);
	lc_buf_free(&payload);
}

/* Whoever looked up a chunk told of its failure without a word of why. */
static void
a_catalog_that_fails_says_why(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct incoming *in;
	struct vault_disk d;
	struct record first;
	struct vault v;

	(void)state;
	vault_make(&v, true);
	first = commit_some(&v, &d);
	in = begin_incoming(v.s, 7);
	must(incoming_shared(in, first.id, &e), &e);
	must(transfer_has(v.s, 0, first.id, &e), &e);
	vouch(v.s, 7, &first);
	change(&v, "ALTER TABLE chunk RENAME TO gone");
	failed(incoming_shared(in, first.id, &e), &e);
	failed(transfer_has(v.s, 0, first.id, &e), &e);
	failed(store_flush(v.s, &e), &e);
	incoming_abort(in);
	change(&v, "ALTER TABLE gone RENAME TO chunk");
	vault_disk_free(&d);
	vault_free(&v);
}

/* Else the point would have what was there before, and be taken for whole. */
static void
no_commit_follows_a_window_that_could_not_be_compared(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct commit_opts o = {0};
	struct vault_disk d;
	struct writer *w;
	struct vault v;

	(void)state;
	vault_make(&v, true);
	(void)commit_some(&v, &d);
	w = vault_begin(v.s, "web01", &d, 1, &e);
	assert_non_null(w);
	d.codes[0] = CODE(20);
	d.codes[1] = CODE(21);
	change(&v, "ALTER TABLE map_recent RENAME TO gone");
	failed(vault_put(w, 0, &d, 0, &e), &e);
	change(&v, "ALTER TABLE gone RENAME TO map_recent");
	must(vault_put(w, 0, &d, 1, &e), &e);
	failed(writer_commit(w, &o, NULL, &e), &e);
	vault_disk_free(&d);
	vault_free(&v);
}

/* What the log says while fn() is at work: to free(). */
static char *
logged(void (*fn)(struct writer *w), struct writer *w)
{
	int old = dup(STDERR_FILENO), log = memfd_create("log", MFD_CLOEXEC);
	char *text = calloc(1, 4096);

	assert_true(old >= 0 && log >= 0 && text != NULL);
	assert_true(dup2(log, STDERR_FILENO) >= 0);
	fn(w);
	(void)dup2(old, STDERR_FILENO);
	assert_true(pread(log, text, 4095, 0) >= 0);
	(void)close(old);
	(void)close(log);
	return text;
}

/* It takes its room until somebody opens the store. */
static void
what_is_left_of_a_point_that_was_given_up_is_told(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct writer *w;
	struct vault v;
	char *text;

	(void)state;
	vault_make(&v, true);
	(void)commit_some(&v, &d);
	w = vault_begin(v.s, "web01", &d, 1, &e);
	assert_non_null(w);
	d.codes[0] = CODE(20);
	must(vault_put(w, 0, &d, 0, &e), &e);
	text = logged(writer_abort, w);
	assert_string_equal(text, "");
	free(text);
	w = vault_begin(v.s, "web01", &d, 1, &e);
	assert_non_null(w);
	d.codes[0] = CODE(21);
	must(vault_put(w, 0, &d, 0, &e), &e);
	change(&v, "ALTER TABLE gen RENAME TO gone");
	text = logged(writer_abort, w);
	assert_non_null(strstr(text, "takes room until the store is opened again"));
	free(text);
	change(&v, "ALTER TABLE gone RENAME TO gen");
	vault_disk_free(&d);
	vault_free(&v);
}

static void
keep_lost(void *arg, const struct damage *d)
{
	if (strcmp(d->what, "lost chunk") == 0)
		*(struct damage *)arg = *d;
}

/* What it could not look up is not sound, nor needed by nobody. */
static void
scrub_says_what_it_could_not_look_up(void **state)
{
	struct damage lost = {0};
	struct lc_err e = LC_ERR_INIT;
	struct vault_disk d;
	struct vault v;

	(void)state;
	vault_make(&v, true);
	(void)commit_some(&v, &d);
	must(store_scrub(v.s, NULL, NULL, NULL, NULL, &e), &e);
	change(&v, "ALTER TABLE missing RENAME TO gone");
	failed(store_scrub(v.s, NULL, NULL, NULL, NULL, &e), &e);
	change(&v, "ALTER TABLE gone RENAME TO missing");
	change(&v, "UPDATE chunk SET seg=0 WHERE no=(SELECT min(no) FROM chunk);"
	           "INSERT INTO missing(id,writer,no) SELECT id,0,no FROM chunk WHERE seg=0");
	assert_int_equal(store_scrub(v.s, keep_lost, &lost, NULL, NULL, NULL), LC_ECORRUPT);
	assert_non_null(strstr(lost.affects, "in 1 restore point"));
	change(&v, "ALTER TABLE base RENAME TO gone");
	assert_int_equal(store_scrub(v.s, keep_lost, &lost, NULL, NULL, NULL), LC_ECORRUPT);
	assert_non_null(strstr(lost.affects, "not known"));
	change(&v, "ALTER TABLE gone RENAME TO base");
	vault_disk_free(&d);
	vault_free(&v);
}

static void
keep_state(void *arg, const struct damage *d)
{
	if (d->type == RECORD_MAP || d->type == RECORD_COMMIT)
		((struct damage *)arg)[d->type == RECORD_COMMIT] = *d;
}

static void
scrub_does_not_say_that_a_map_is_needed_by_nobody(void **state)
{
	struct damage found[2] = {{0}};
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece piece;
	struct vault_disk d;
	struct vault v;
	int type;

	(void)state;
	vault_make(&v, true);
	(void)commit_some(&v, &d);
	vault_close(&v);
	for (type = RECORD_MAP; type <= RECORD_COMMIT; type++) {
		assert_true(vault_piece_of(v.dir, type, -1, &piece));
		vault_flip(v.dir, &piece, RECORD_HEADER_SIZE + 2, 1);
	}
	vault_open(&v);
	assert_int_equal(store_scrub(v.s, keep_state, found, NULL, NULL, NULL), LC_ECORRUPT);
	assert_non_null(strstr(found[0].affects, "in 1 restore point"));
	assert_non_null(strstr(found[1].affects, "in 1 restore point"));
	change(&v, "ALTER TABLE vm RENAME TO gone");
	failed(store_scrub(v.s, keep_state, found, NULL, NULL, &e), &e);
	assert_non_null(strstr(found[0].affects, "not known"));
	assert_non_null(strstr(found[1].affects, "not known"));
	change(&v, "ALTER TABLE gone RENAME TO vm");
	vault_disk_free(&d);
	vault_free(&v);
}

/* Ids could not be made ready: a reader goes on without them. */
static void
a_reader_does_without_ids(void **state)
{
	struct chunk_reader *r = NULL;
	struct lc_err e = LC_ERR_INIT;
	const uint8_t *bases;
	struct vault_disk d;
	struct record first;
	struct store *s;
	struct vault v;

	(void)state;
	vault_make(&v, true);
	first = commit_some(&v, &d);
	vault_close(&v);
	must(vault_try(&v, STORE_READ, &s, &e), &e);
	must(chunk_reader_new(s, &r, &e), &e);
	change(&v, "ALTER TABLE vouch RENAME TO gone");
	failed(store_need_ids(s, &e), &e);
	assert_int_equal(chunk_bases(r, 0, first.id, 1, &bases, &e), LC_ECORRUPT);
	lc_err_clear(&e);
	change(&v, "ALTER TABLE gone RENAME TO vouch");
	must(store_need_ids(s, &e), &e);
	must(chunk_bases(r, 0, first.id, 1, &bases, &e), &e);
	chunk_reader_free(r);
	store_close(s);
	vault_disk_free(&d);
	vault_free(&v);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_base_is_known_while_the_catalog_takes_it),
	    cmocka_unit_test(what_waits_is_bounded_while_a_flush_is_slow),
	    cmocka_unit_test(a_catalog_that_fails_says_why),
	    cmocka_unit_test(no_commit_follows_a_window_that_could_not_be_compared),
	    cmocka_unit_test(what_is_left_of_a_point_that_was_given_up_is_told),
	    cmocka_unit_test(scrub_says_what_it_could_not_look_up),
	    cmocka_unit_test(scrub_does_not_say_that_a_map_is_needed_by_nobody),
	    cmocka_unit_test(a_reader_does_without_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

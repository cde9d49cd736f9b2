/*
 * remote: what two replicas say of a content together.  Their connections are made up.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replicator/borrower.h"
#include "replicator/identity.h"
#include "replicator/remote.h"
#include "tests/lib/must.h"
#include "tests/lib/unit.h"

enum answer { IS_THERE = 0, IS_GONE, IS_BAD, IS_AWAY, IS_STRANGE };

static enum answer says[2]; /* "a" and "b" */
/* Calls that are to find the connection cut: all that there are wait for the last one of them. */
static atomic_uint cut_for, cut_here, opened;

int __wrap_borrower_open(const struct borrower_opts *o, struct borrower **out, struct lc_err *e);
int __wrap_borrower_read(struct borrower *b, const uint8_t *ids, size_t n, uint8_t *payload,
                         struct fetched *out, struct lc_err *e);
void __wrap_borrower_close(struct borrower *b);

/* A connection is where that one's answer is. */
int
__wrap_borrower_open(const struct borrower_opts *o, struct borrower **out, struct lc_err *e)
{
	enum answer *x = &says[o->peer->name[0] - 'a'];

	if (*x == IS_AWAY)
		return lc_fail(e, LC_EPEER, 0, "%s: connection refused", o->peer->name);
	if (*x == IS_STRANGE)
		return lc_fail(e, LC_ENOENT, 0, "%s: not paired with this replica", o->peer->name);
	opened++;
	*out = (struct borrower *)(void *)x;
	return 0;
}

/* Whether it was in use when it was cut.  Those who were hear of it one after the other. */
static bool
is_cut(void)
{
	unsigned mine;

	if (cut_here >= cut_for)
		return false;
	mine = ++cut_here;
	while (cut_here < cut_for)
		(void)usleep(1000);
	(void)usleep(mine * 100000);
	return true;
}

/* NOLINTBEGIN(readability-non-const-parameter): as it is there */
int
__wrap_borrower_read(struct borrower *b, const uint8_t *ids, size_t n, uint8_t *payload,
                     struct fetched *out, struct lc_err *e)
{
	enum answer x = *(enum answer *)(void *)b;

	(void)ids;
	(void)n;
	(void)payload;
	(void)out;
	if (is_cut())
		return lc_fail(e, LC_EPEER, 0, "it hung up");
	if (x == IS_GONE)
		return lc_fail(e, LC_ENOENT, 0, "it is not there (any more)");
	return x == IS_BAD ? lc_fail(e, LC_ECORRUPT, 0, "it can't be read there") : 0;
}

/* NOLINTEND(readability-non-const-parameter) */
void
__wrap_borrower_close(struct borrower *b)
{
	(void)b;
}

static const uint8_t id[CHUNK_ID_SIZE] = {1};

/* What comes of it. */
static int
fetch(const char *keys, enum answer a, enum answer b)
{
	struct lc_err e = LC_ERR_INIT;
	struct remote *r = NULL;
	struct fetched out;
	uint8_t payload[1];
	int rc;

	says[0] = a;
	says[1] = b;
	must(remote_new(NULL, keys, &r, &e), &e);
	assert_int_equal(remote_count(r), 2);
	rc = remote_fetch(r, id, 1, payload, &out, &e);
	assert_int_equal(e.code, rc);
	remote_free(r);
	return rc;
}

/* A key folder with those two. */
static char *
make_keys(void)
{
	struct peer peer = {.at = {.host = "127.0.0.1", .port = "1"}};
	struct lc_err e = LC_ERR_INIT;
	struct identity own;
	char *dir = tmpdir_new();

	must(identity_load(tmpdir_path(dir, "host.key"), true, &own, &e), &e);
	identity_forget(&own);
	(void)snprintf(peer.name, sizeof peer.name, "a");
	must(peer_save(dir, &peer, &e), &e);
	(void)snprintf(peer.name, sizeof peer.name, "b");
	must(peer_save(dir, &peer, &e), &e);
	return dir;
}

/* Who can't be asked may have it: it is tried again then, and not taken to be lost. */
static void
it_is_gone_when_all_say_so(void **state)
{
	char *dir = make_keys();

	(void)state;
	assert_int_equal(fetch(dir, IS_GONE, IS_THERE), LC_OK);
	assert_int_equal(fetch(dir, IS_AWAY, IS_THERE), LC_OK);
	assert_int_equal(fetch(dir, IS_GONE, IS_GONE), LC_ENOENT);
	assert_int_equal(fetch(dir, IS_GONE, IS_AWAY), LC_EPEER);
	assert_int_equal(fetch(dir, IS_AWAY, IS_GONE), LC_EPEER);
	assert_int_equal(fetch(dir, IS_BAD, IS_AWAY), LC_EPEER);
	assert_int_equal(fetch(dir, IS_GONE, IS_BAD), LC_ECORRUPT);
	assert_int_equal(fetch(dir, IS_BAD, IS_GONE), LC_ECORRUPT);
	assert_int_equal(fetch(dir, IS_STRANGE, IS_GONE), LC_EPEER);
	assert_int_equal(fetch(dir, IS_GONE, IS_STRANGE), LC_EPEER);
	tmpdir_free(dir);
}

/* Where it is is not known: nobody is asked, and what is wrong is said; the other one is asked all
 * the same. */
static void
one_whose_file_is_bad_is_not_asked(void **state)
{
	char *dir = make_keys();
	struct lc_err e = LC_ERR_INIT;
	struct remote *r = NULL;
	uint8_t bits;
	FILE *f = fopen(tmpdir_path(dir, "b.replica"), "we");

	(void)state;
	assert_non_null(f);
	(void)fputs("address = nowhere\n", f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(fetch(dir, IS_THERE, IS_GONE), LC_OK);
	opened = 0;
	assert_int_equal(fetch(dir, IS_GONE, IS_THERE), LC_ECORRUPT);
	assert_int_equal(opened, 1);
	must(remote_new(NULL, dir, &r, &e), &e);
	assert_int_equal(remote_known(r, NULL), LC_ECORRUPT);
	assert_int_equal(remote_known(r, &e), LC_ECORRUPT);
	assert_non_null(strstr(e.msg, "b.replica"));
	says[0] = IS_AWAY;
	assert_int_not_equal(remote_have(r, id, 1, &bits, NULL), 0);
	remote_free(r);
	tmpdir_free(dir);
}

#define READERS 3u

static void *
read_one(void *arg)
{
	struct lc_err e = LC_ERR_INIT;
	struct fetched out;
	uint8_t payload[1];

	return remote_fetch(arg, id, 1, payload, &out, &e) == 0 ? arg : NULL;
}

/* It is made anew, for each of those that it was cut under. */
static void
a_cut_fails_nobody_who_reads(void **state)
{
	char *dir = make_keys();
	struct lc_err e = LC_ERR_INIT;
	struct remote *r = NULL;
	pthread_t readers[READERS];
	void *read;
	unsigned i;

	(void)state;
	says[0] = IS_THERE;
	says[1] = IS_AWAY;
	must(remote_new(NULL, dir, &r, &e), &e);
	opened = cut_here = 0;
	cut_for = READERS;
	for (i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_one, r), 0);
	for (i = 0; i < READERS; i++) {
		assert_int_equal(pthread_join(readers[i], &read), 0);
		assert_ptr_equal(read, r);
	}
	assert_int_equal(opened, 2);
	cut_for = 0;
	remote_free(r);
	tmpdir_free(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_is_gone_when_all_say_so),
	    cmocka_unit_test(a_cut_fails_nobody_who_reads),
	    cmocka_unit_test(one_whose_file_is_bad_is_not_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * A store of a replica that another command has to have for itself: its hosts leave for that while
 * and come again, others do not notice.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "replicator/stores.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define SOON_MS 30000

struct scene {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite a, b, c; /* b shares the store of a */
	struct vault_disk disk;
};

/* The desk's thread. */
struct lending {
	pthread_t thread;
	struct stores *x;
	char dir[400];
	int64_t wait_ms;
	int rc;
	struct lc_err err;
	atomic_bool over;
};

static void *
lend(void *arg)
{
	struct lending *l = arg;

	l->rc = stores_lend(l->x, l->dir, "locum store rebuild", l->wait_ms, &l->err);
	atomic_store(&l->over, true);
	return NULL;
}

static bool
is_over(void *arg)
{
	return atomic_load(&((struct lending *)arg)->over);
}

static void
wait_for(struct scene *x, bool (*condition)(void *arg), void *arg, const char *what)
{
	if (!run_until(&x->loop, condition, arg, SOON_MS))
		fail_msg("%s did not come about (%s; %s)", what, x->a.why.msg, x->b.why.msg);
}

static void
lend_it(struct scene *x, struct lending *l, int64_t wait_ms)
{
	*l = (struct lending){
	    .x = server_stores(x->d.server), .wait_ms = wait_ms, .err = LC_ERR_INIT};
	(void)snprintf(l->dir, sizeof l->dir, "%s", hostsite_dir_at(&x->a, &x->d));
	assert_int_equal(pthread_create(&l->thread, NULL, lend, l), 0);
	wait_for(x, is_over, l, "lending");
	assert_int_equal(pthread_join(l->thread, NULL), 0);
}

static void
make(struct scene *x)
{
	assert_int_equal(uv_loop_init(&x->loop), 0);
	drsite_make(&x->d, &x->loop);
	drsite_start(&x->d);
	hostsite_make(&x->a, &x->loop, &x->d, "host-a");
	hostsite_pair(&x->a, &x->d);
	hostsite_make_beside(&x->b, &x->a, &x->d, "host-b");
	hostsite_join(&x->b, &x->a, &x->d);
	hostsite_make(&x->c, &x->loop, &x->d, "host-c");
	hostsite_pair(&x->c, &x->d);
	x->disk = vault_disk("vda", 8);
	x->disk.codes[3] = 5;
	hostsite_connect(&x->a);
	hostsite_connect(&x->b);
	hostsite_connect(&x->c);
	(void)hostsite_backup(&x->a, "web01", &x->disk);
	(void)hostsite_backup(&x->b, "web02", &x->disk);
	(void)hostsite_backup(&x->c, "db", &x->disk);
	wait_for(x, hostsite_is_idle, &x->a, "a's point");
	wait_for(x, hostsite_is_idle, &x->b, "b's point");
	wait_for(x, hostsite_is_idle, &x->c, "c's point");
}

static void
done(struct scene *x)
{
	hostsite_free(&x->a);
	hostsite_free(&x->b);
	hostsite_free(&x->c);
	drsite_free(&x->d);
	vault_disk_free(&x->disk);
	(void)uv_run(&x->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&x->loop), 0);
}

static void
go_on(struct scene *x, struct hostsite *h, const char *vm)
{
	struct point p;

	x->disk.codes[4] += 7;
	p = hostsite_backup(h, vm, &x->disk);
	wait_for(x, hostsite_is_idle, h, "the next point");
	assert_int_equal(h->failed, 0);
	point_done(&p);
}

static void
its_hosts_leave_and_come_again(void **state)
{
	struct store_opts so = {.who = "the borrower", .no_key = true};
	struct lending l, second;
	struct lc_err e = LC_ERR_INIT;
	struct scene x;

	(void)state;
	make(&x);
	lend_it(&x, &l, 20000);
	if (l.rc != 0)
		fail_msg("%s", l.err.msg);
	wait_for(&x, hostsite_is_down, &x.a, "a leaves");
	wait_for(&x, hostsite_is_down, &x.b, "b leaves");
	assert_int_equal(x.a.why.code, LC_EBUSY);
	assert_non_null(strstr(x.a.why.msg, "lent to locum store rebuild"));
	assert_int_equal(x.b.why.code, LC_EBUSY);
	so.dir = l.dir;
	if (store_rebuild(&so, &e) != 0) /* its lock is free, at once */
		fail_msg("%s", e.msg);
	/* They try again, and are told; nobody else notices. */
	run_for(&x.loop, 1500);
	assert_false(x.a.up);
	assert_non_null(strstr(x.a.why.msg, "lent to locum store rebuild"));
	go_on(&x, &x.c, "db");
	assert_int_equal(x.c.downs, 0);
	/* One at a time. */
	lend_it(&x, &second, 20000);
	assert_int_equal(second.rc, LC_EBUSY);
	stores_back(l.x);
	wait_for(&x, hostsite_is_up, &x.a, "a comes again");
	wait_for(&x, hostsite_is_up, &x.b, "b comes again");
	go_on(&x, &x.a, "web01");
	go_on(&x, &x.b, "web02");
	/* And again. */
	lend_it(&x, &l, 20000);
	assert_int_equal(l.rc, 0);
	stores_back(l.x);
	wait_for(&x, hostsite_is_up, &x.a, "a comes once more");
	go_on(&x, &x.a, "web01");
	done(&x);
}

/* Who does not leave is not waited for for ever, and then nothing has changed. */
static void
who_does_not_leave_keeps_it(void **state)
{
	struct shared *s = NULL;
	struct lending l;
	struct scene x;

	(void)state;
	make(&x);
	assert_int_equal(
	    stores_take(server_stores(x.d.server), hostsite_dir_at(&x.a, &x.d), NULL, 0, &s, NULL),
	    0);
	lend_it(&x, &l, 600);
	assert_int_equal(l.rc, LC_EBUSY);
	assert_non_null(strstr(l.err.msg, "stop the replica"));
	assert_false(stores_leaving(l.x));
	assert_int_equal(shared_wanted(s, NULL), 0);
	wait_for(&x, hostsite_is_up, &x.a, "a is let in again");
	go_on(&x, &x.a, "web01");
	stores_give(l.x, s, NULL);
	done(&x);
}

struct taking {
	pthread_t thread;
	struct stores *x;
	const char *dir;
	struct shared *s;
	int rc;
};

static void *
take(void *arg)
{
	struct taking *t = arg;

	t->rc = stores_take(t->x, t->dir, NULL, 4000, &t->s, NULL);
	return NULL;
}

/* What is long in opening is one worker's time: the others are there for other stores. */
static void
who_opens_a_store_holds_up_one_worker(void **state)
{
	const struct timespec moment = {.tv_nsec = 200 * LC_NS_PER_MS};
	struct store_opts so = {.mode = STORE_WRITE, .who = "another program", .no_key = true};
	struct shared *s = NULL;
	struct store *held;
	struct taking t = {.rc = 0};
	struct lc_err e = LC_ERR_INIT;
	struct scene x;
	char dir[400];
	int64_t began;

	(void)state;
	make(&x);
	(void)snprintf(dir, sizeof dir, "%s", hostsite_dir_at(&x.a, &x.d));
	drsite_stop(&x.d);
	so.dir = t.dir = dir;
	if (store_open(&so, &held, &e) != 0 || stores_new(&t.x, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(pthread_create(&t.thread, NULL, take, &t), 0);
	(void)nanosleep(&moment, NULL); /* it is at it */
	began = clock_mono_ns();
	assert_int_equal(stores_take(t.x, dir, NULL, 100, &s, &e), LC_EBUSY);
	assert_true(clock_mono_ns() - began < 2 * LC_NS_PER_S);
	assert_non_null(strstr(e.msg, "is being opened"));
	assert_int_equal(pthread_join(t.thread, NULL), 0);
	assert_int_equal(t.rc, LC_EBUSY);
	store_close(held);
	lc_err_clear(&e);
	if (stores_take(t.x, dir, NULL, 0, &s, &e) != 0)
		fail_msg("%s", e.msg);
	stores_give(t.x, s, NULL);
	stores_free(t.x);
	done(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(its_hosts_leave_and_come_again),
	    cmocka_unit_test(who_does_not_leave_keeps_it),
	    cmocka_unit_test(who_opens_a_store_holds_up_one_worker),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

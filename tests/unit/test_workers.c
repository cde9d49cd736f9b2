#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "store/base/memory.h"
#include "store/base/workers.h"
#include "tests/lib/unit.h"

/* Jobs only record; the tests assert after workers_free(), for cmocka's asserts longjmp. */

struct job {
	struct work w; /* first: a struct work * is a struct job * */
	struct workers *pool;
	atomic_uint *runs;
	unsigned order, left;
	unsigned index;
	bool signals_blocked;
};

static void
count_run(struct work *w, unsigned worker)
{
	struct job *j = (struct job *)w;

	j->index = worker;
	j->order = atomic_fetch_add(j->runs, 1);
}

static void
one_worker_runs_in_order(void **state)
{
	enum { N = 1000 };
	static struct job jobs[N];
	atomic_uint runs = 0;
	struct workers *p;
	unsigned i;

	(void)state;
	assert_int_equal(workers_new(1, &p, NULL), 0);
	assert_int_equal(workers_count(p), 1);
	for (i = 0; i < N; i++) {
		jobs[i] = (struct job){.w.run = count_run, .runs = &runs};
		workers_submit(p, &jobs[i].w);
	}
	workers_free(p); /* Drains. */
	for (i = 0; i < N; i++) {
		assert_int_equal(jobs[i].order, i);
		assert_int_equal(jobs[i].index, 0);
	}
}

static void
many_workers_run_each_job_once(void **state)
{
	enum { N = 5000, THREADS = 4 };
	static struct job jobs[N];
	static bool seen[N];
	atomic_uint runs = 0;
	struct workers *p;
	unsigned i;

	(void)state;
	assert_int_equal(workers_new(THREADS, &p, NULL), 0);
	assert_int_equal(workers_count(p), THREADS);
	for (i = 0; i < N; i++) {
		jobs[i] = (struct job){.w.run = count_run, .runs = &runs};
		workers_submit(p, &jobs[i].w);
	}
	workers_free(p);
	assert_int_equal(atomic_load(&runs), N);
	for (i = 0; i < N; i++) {
		assert_true(jobs[i].index < THREADS);
		assert_false(seen[jobs[i].order]);
		seen[jobs[i].order] = true;
	}
}

static void
requeue(struct work *w, unsigned worker)
{
	struct job *j = (struct job *)w;

	(void)worker;
	(void)atomic_fetch_add(j->runs, 1);
	if (j->left-- > 0)
		workers_submit(j->pool, w);
	else
		lc_free(j); /* May free itself. */
}

static void
a_job_may_requeue_and_free_itself(void **state)
{
	atomic_uint runs = 0;
	struct workers *p;
	unsigned i;

	(void)state;
	assert_int_equal(workers_new(3, &p, NULL), 0);
	for (i = 0; i < 10; i++) {
		struct job *j = lc_alloc(sizeof *j);

		assert_non_null(j);
		*j = (struct job){.w.run = requeue, .pool = p, .runs = &runs, .left = 100};
		workers_submit(p, &j->w);
	}
	workers_free(p); /* Also what is queued while it drains. */
	assert_int_equal(atomic_load(&runs), 10 * 101);
}

static void *
submit_from_thread(void *arg)
{
	struct job *jobs = arg;
	unsigned i;

	for (i = 0; i < 200; i++)
		workers_submit(jobs[i].pool, &jobs[i].w);
	return NULL;
}

static void
any_thread_may_submit(void **state)
{
	static struct job jobs[4][200];
	pthread_t t[4];
	atomic_uint runs = 0;
	struct workers *p;
	unsigned i, k;

	(void)state;
	assert_int_equal(workers_new(2, &p, NULL), 0);
	for (i = 0; i < 4; i++) {
		for (k = 0; k < 200; k++)
			jobs[i][k] = (struct job){.w.run = count_run, .pool = p, .runs = &runs};
		assert_int_equal(pthread_create(&t[i], NULL, submit_from_thread, jobs[i]), 0);
	}
	for (i = 0; i < 4; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
	workers_free(p);
	assert_int_equal(atomic_load(&runs), 800);
}

static void
look_at_signals(struct work *w, unsigned worker)
{
	struct job *j = (struct job *)w;
	sigset_t set;

	(void)worker;
	(void)pthread_sigmask(SIG_BLOCK, NULL, &set);
	j->signals_blocked = sigismember(&set, SIGTERM) == 1 && sigismember(&set, SIGINT) == 1 &&
	                     sigismember(&set, SIGCHLD) == 1 && sigismember(&set, SIGHUP) == 1;
}

static void
signals_are_left_to_the_others(void **state)
{
	struct job j = {.w.run = look_at_signals};
	struct workers *p;
	sigset_t set;

	(void)state;
	assert_int_equal(workers_new(1, &p, NULL), 0);
	workers_submit(p, &j.w);
	workers_free(p);
	assert_true(j.signals_blocked);
	/* And ours are as they were. */
	assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &set), 0);
	assert_int_equal(sigismember(&set, SIGTERM), 0);
}

static void
counts_have_bounds(void **state)
{
	struct workers *p;

	(void)state;
	assert_int_equal(workers_new(0, &p, NULL), 0);
	assert_int_equal(workers_count(p), workers_cores() < 64 ? workers_cores() + 1 : 64);
	workers_free(p);
	assert_int_equal(workers_new(1000, &p, NULL), 0);
	assert_int_equal(workers_count(p), 64);
	workers_free(p);
	workers_free(NULL);
}

static void
no_memory_is_said(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct workers *p = (struct workers *)&e;
	int rc;

	(void)state;
	lc_alloc_fail_after(0);
	rc = workers_new(2, &p, &e);
	lc_alloc_fail_after(-1);
	assert_int_equal(rc, LC_ENOMEM);
	assert_int_equal(e.code, LC_ENOMEM);
	assert_null(p);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_worker_runs_in_order),
	    cmocka_unit_test(many_workers_run_each_job_once),
	    cmocka_unit_test(a_job_may_requeue_and_free_itself),
	    cmocka_unit_test(any_thread_may_submit),
	    cmocka_unit_test(signals_are_left_to_the_others),
	    cmocka_unit_test(counts_have_bounds),
	    cmocka_unit_test(no_memory_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#include "store/base/memory.h"
#include "store/base/workers.h"

enum { MAX_WORKERS = 64 };

struct worker {
	struct workers *pool;
	unsigned index;
	pthread_t thread;
};

struct workers {
	pthread_mutex_t lock; /* guards the queue and stopping */
	pthread_cond_t wake;
	struct work *head;
	struct work **tail; /* where the next one is hung in */
	bool stopping;
	unsigned n;
	struct worker worker[];
};

static void *
worker_main(void *arg)
{
	struct worker *self = arg;
	struct workers *p = self->pool;

	(void)pthread_mutex_lock(&p->lock);
	for (;;) {
		struct work *w = p->head;

		if (w != NULL) {
			p->head = w->next;
			if (p->head == NULL)
				p->tail = &p->head;
			(void)pthread_mutex_unlock(&p->lock);
			w->run(w, self->index); /* w may be gone after this. */
			(void)pthread_mutex_lock(&p->lock);
		} else if (p->stopping) {
			break; /* A job that queues another is seen here by its own worker. */
		} else {
			(void)pthread_cond_wait(&p->wake, &p->lock);
		}
	}
	(void)pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* The cores that this process may use, which in a container or under taskset are fewer than there
 * are. */
unsigned
workers_cores(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) < 1)
		return 1;
	return (unsigned)CPU_COUNT(&set);
}

static int
start_threads(struct workers *p, unsigned n, struct lc_err *e)
{
	sigset_t all, old;
	int rc = 0;

	/* Threads inherit the mask: signals belong to the thread that runs the loop. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, &old);
	while (p->n < n) {
		struct worker *w = &p->worker[p->n];
		char name[16];

		w->pool = p;
		w->index = p->n;
		rc = pthread_create(&w->thread, NULL, worker_main, w);
		if (rc != 0)
			break;
		(void)snprintf(name, sizeof name, "worker%u", p->n);
		(void)pthread_setname_np(w->thread, name);
		p->n++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, rc, "worker thread %u of %u", p->n + 1, n);
}

int
workers_new(unsigned n, struct workers **out, struct lc_err *e)
{
	struct workers *p;
	int rc;

	*out = NULL;
	if (n == 0)
		n = workers_cores() + 1; /* while one waits for the disk */
	if (n > MAX_WORKERS)
		n = MAX_WORKERS;
	p = lc_alloc(sizeof *p + n * sizeof p->worker[0]);
	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "worker threads: out of memory");
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_cond_init(&p->wake, NULL);
	p->tail = &p->head;
	rc = start_threads(p, n, e);
	if (rc != 0) {
		workers_free(p);
		return rc;
	}
	*out = p;
	return 0;
}

unsigned
workers_count(const struct workers *p)
{
	return p->n;
}

void
workers_submit(struct workers *p, struct work *w)
{
	w->next = NULL;
	(void)pthread_mutex_lock(&p->lock);
	*p->tail = w;
	p->tail = &w->next;
	(void)pthread_cond_signal(&p->wake);
	(void)pthread_mutex_unlock(&p->lock);
}

void
workers_free(struct workers *p)
{
	unsigned i;

	if (p == NULL)
		return;
	(void)pthread_mutex_lock(&p->lock);
	p->stopping = true;
	(void)pthread_cond_broadcast(&p->wake);
	(void)pthread_mutex_unlock(&p->lock);
	for (i = 0; i < p->n; i++)
		(void)pthread_join(p->worker[i].thread, NULL);
	(void)pthread_cond_destroy(&p->wake);
	(void)pthread_mutex_destroy(&p->lock);
	lc_free(p);
}

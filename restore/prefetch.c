#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/memory.h"
#include "store/bootlist.h"
#include "store/store.h"
#include "restore/prefetch.h"
#include "restore/reader.h"

enum {
	SLOTS = 4 * BOOTLIST_MAX, /* a power of two */
	AHEAD = 512,              /* windows that the system is to have read before their turn */
	STEP = 64,                /* of which so many are asked for at once */
	DISK_SHIFT = 56,
};

#define NOTE_NS (180 * LC_NS_PER_S) /* how long a boot takes at most, from its first read on */

struct prefetch {
	struct prefetch_opts o;
	size_t limit; /* windows that are decoded and not read yet, at most */
	int64_t note_ns;
	struct bootlist *last, *now;
	pthread_t thread;
	atomic_bool noting; /* else nothing is done for a read; false for good */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* Under lock. */
	uint64_t *keys;   /* [SLOTS]: a window and its disk, plus 1; 0: free */
	uint32_t *places; /* [SLOTS]: its place in `last`, from 1 on; 0: it was not there */
	bool *noted;      /* [SLOTS]: it is in `now` */
	size_t reached;   /* of `last`: all before that counts as read */
	int64_t began;    /* first read; 0: none yet */
	bool over;
};

/* ---- what is known of a window; the lock is held ---- */

static uint64_t
key_of(size_t disk, uint64_t window)
{
	return ((uint64_t)disk << DISK_SHIFT | window) + 1;
}

static size_t
slot_of(const struct prefetch *p, uint64_t key)
{
	size_t at = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 40) & (SLOTS - 1);

	while (p->keys[at] != 0 && p->keys[at] != key)
		at = (at + 1) & (SLOTS - 1);
	return at;
}

static void
note_one(struct prefetch *p, size_t disk, uint64_t window)
{
	size_t at = slot_of(p, key_of(disk, window));

	if (p->places[at] > p->reached) {
		p->reached = p->places[at];
		(void)pthread_cond_signal(&p->wake);
	}
	if (p->noted[at] || p->now->n == BOOTLIST_MAX)
		return;
	p->keys[at] = key_of(disk, window);
	p->noted[at] = true;
	p->now->at[p->now->n++] = (struct bootlist_window){disk, window};
	if (p->now->n == BOOTLIST_MAX)
		(void)pthread_cond_signal(&p->wake);
}

void
prefetch_note(struct prefetch *p, size_t disk, uint64_t off, uint64_t n)
{
	uint64_t window = off / WINDOW_SIZE;

	if (p == NULL || n == 0 || !atomic_load_explicit(&p->noting, memory_order_relaxed))
		return;
	(void)pthread_mutex_lock(&p->lock);
	if (p->began == 0) {
		p->began = clock_mono_ns();
		(void)pthread_cond_signal(&p->wake);
	}
	/* It may have ended while we came for the lock. */
	for (; atomic_load(&p->noting) && window <= (off + n - 1) / WINDOW_SIZE; window++)
		note_one(p, disk, window);
	(void)pthread_mutex_unlock(&p->lock);
}

/* ---- the thread ---- */

/* False: this is no time to read ahead, as a replica that has it can't be reached. */
static bool
decode_one(struct prefetch *p, const struct bootlist_window *w)
{
	uint64_t size = view_point(p->o.view)->disks[w->disk].size, off = w->window * WINDOW_SIZE;
	uint64_t left = size - off;

	int rc = reader_prefetch(p->o.reader, w->disk, left < WINDOW_SIZE ? left : WINDOW_SIZE, off,
	                         NULL);

	/* What is bad is told to who reads it. */
	return rc == 0 || !lc_code_retryable((enum lc_code)rc);
}

/* Entries [from, to) are next. */
static void
read_ahead(struct prefetch *p, size_t from, size_t to)
{
	const struct bootlist *l = p->last;
	uint64_t windows[STEP];
	size_t n;

	to = to < l->n ? to : l->n;
	while (from < to) {
		size_t disk = l->at[from].disk;

		for (n = 0; n < STEP && from < to && l->at[from].disk == disk; n++)
			windows[n] = l->at[from++].window;
		reader_read_ahead(p->o.reader, disk, windows, n);
	}
}

/* False: it is over. */
static bool
wait_turn(struct prefetch *p, size_t i)
{
	bool over;

	(void)pthread_mutex_lock(&p->lock);
	while (!p->over && i >= p->reached + p->limit)
		(void)pthread_cond_wait(&p->wake, &p->lock);
	over = p->over;
	(void)pthread_mutex_unlock(&p->lock);
	return !over;
}

static void
play(struct prefetch *p)
{
	size_t i;

	read_ahead(p, 0, AHEAD);
	for (i = 0; i < p->last->n && wait_turn(p, i); i++) {
		if (i % STEP == 0)
			read_ahead(p, i + AHEAD, i + AHEAD + STEP);
		if (!decode_one(p, &p->last->at[i]))
			break;
	}
	if (i > 0 && i == p->last->n)
		log_info("read ahead what the last boot of %s read: %zu windows",
		         view_point(p->o.view)->vm, i);
}

/* Until all is noted that is to be. */
static void
wait_noted(struct prefetch *p)
{
	(void)pthread_mutex_lock(&p->lock);
	while (!p->over && p->began == 0)
		(void)pthread_cond_wait(&p->wake, &p->lock);
	while (!p->over && p->now->n < BOOTLIST_MAX &&
	       clock_wait(&p->wake, &p->lock, p->began + p->note_ns))
		;
	atomic_store(&p->noting, false); /* under the lock: from here on `now` stays as it is */
	(void)pthread_mutex_unlock(&p->lock);
}

static void
keep(struct prefetch *p)
{
	struct lc_err err = LC_ERR_INIT;

	if (p->now->n < p->last->n / 2 || p->now->n == 0)
		return;
	if (bootlist_save(p->o.store, view_point(p->o.view), p->now, &err) != 0)
		log_debug("what the boot read is not kept: %s", err.msg);
}

static void *
run(void *arg)
{
	struct prefetch *p = arg;

	play(p);
	wait_noted(p);
	keep(p);
	return NULL;
}

/* ---- life ---- */

static void
release(struct prefetch *p)
{
	(void)pthread_cond_destroy(&p->wake);
	(void)pthread_mutex_destroy(&p->lock);
	lc_free(p->last);
	lc_free(p->now);
	lc_free(p->keys);
	lc_free(p->places);
	lc_free(p->noted);
	lc_free(p);
}

static void
load(struct prefetch *p)
{
	struct lc_err err = LC_ERR_INIT;
	size_t i, at;

	if (bootlist_load(p->o.store, view_point(p->o.view), p->last, &err) != 0)
		log_debug("nothing is read ahead of this boot: %s", err.msg);
	for (i = 0; i < p->last->n; i++) {
		uint64_t key = key_of(p->last->at[i].disk, p->last->at[i].window);

		at = slot_of(p, key);
		p->keys[at] = key;
		p->places[at] = (uint32_t)(i + 1);
	}
}

int
prefetch_new(const struct prefetch_opts *opts, struct prefetch **out, struct lc_err *e)
{
	uint64_t bytes = opts->cache_bytes != 0 ? opts->cache_bytes : READER_CACHE_DEFAULT;
	struct prefetch *p = lc_alloc(sizeof *p);

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "prefetch: out of memory");
	p->o = *opts;
	p->limit = (size_t)(bytes / WINDOW_SIZE / 2) + 1;
	p->note_ns = opts->note_ns != 0 ? opts->note_ns : NOTE_NS;
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_cond_init(&p->wake, NULL);
	p->last = lc_alloc(sizeof *p->last);
	p->now = lc_alloc(sizeof *p->now);
	p->keys = lc_alloc_array(SLOTS, sizeof *p->keys);
	p->places = lc_alloc_array(SLOTS, sizeof *p->places);
	p->noted = lc_alloc_array(SLOTS, sizeof *p->noted);
	if (p->last == NULL || p->now == NULL || p->keys == NULL || p->places == NULL ||
	    p->noted == NULL) {
		release(p);
		return lc_fail(e, LC_ENOMEM, 0, "prefetch: out of memory");
	}
	load(p);
	atomic_init(&p->noting, true);
	if (pthread_create(&p->thread, NULL, run, p) != 0) {
		release(p);
		return lc_fail(e, LC_ENOMEM, 0, "prefetch: no thread");
	}
	*out = p;
	return 0;
}

void
prefetch_free(struct prefetch *p)
{
	if (p == NULL)
		return;
	(void)pthread_mutex_lock(&p->lock);
	p->over = true;
	(void)pthread_cond_signal(&p->wake);
	(void)pthread_mutex_unlock(&p->lock);
	(void)pthread_join(p->thread, NULL);
	release(p);
}

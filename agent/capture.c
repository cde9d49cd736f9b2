/*
 *   OPEN ──► READ ──► CLOSE ──► (done)
 *    ▲                  │
 *    └── the next leg ──┘       a failure or a stop in READ waits for what is in flight, then CLOSE
 *
 * A disk is read in one or two legs: below `trusted` only what is marked as changed, from there on
 * all that is allocated (an earlier pass did not come so far).  In each leg block status answers
 * are turned into runs of windows, runs into reads of at most READ_WINDOWS, each read into a job
 * for a worker.
 */
#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>
#include <uv.h>

#include "agent/capture.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/source.h"
#include "store/base/files.h"
#include "store/base/workers.h"

#define READ_WINDOWS 8u /* windows per read: 512 KiB */
#define READ_BYTES ((size_t)READ_WINDOWS * WINDOW_SIZE)
#define EXTENTS_BYTES (UINT64_C(1) << 30) /* asked for in one block status request */
#define RUNS_MAX 4096u                    /* runs queued before no more status is asked for */
#define ZEROS_WINDOWS 65536u              /* windows per job that only looks for old content */
#define ZEROS_JOBS 8u                     /* such jobs in flight per disk */
#define TAIL_MAX 16u /* ranges at the end of a disk that are looked at for lost content */

struct job {
	struct work work;
	STAILQ_ENTRY(job) entry;
	struct capture_pool *pool;
	struct capture *c;
	uint8_t *buf; /* NULL: windows known to be zero */
	bool tail;    /* ... of which nothing is marked */
	uint64_t first;
	uint64_t n;
	int rc;
	struct lc_err err;
};

STAILQ_HEAD(job_list, job);
TAILQ_HEAD(capture_list, capture);

struct capture_pool {
	struct workers *workers;
	struct job *jobs; /* [njobs], those with buffers */
	uint8_t *memory;
	size_t njobs;
	struct job_list idle;
	struct capture_list captures; /* reading; the head is served first and goes to the tail */

	pthread_mutex_t lock; /* finished */
	struct job_list finished;
	uv_async_t wake;
};

enum capture_state { CAPTURE_OPEN, CAPTURE_READ, CAPTURE_CLOSE };

struct run {
	uint64_t first, n;
	bool zeros;
};

struct leg {
	uint64_t from, to; /* windows */
	bool marked;       /* only what is marked as changed */
};

struct capture {
	TAILQ_ENTRY(capture) entry;
	enum capture_state state;
	struct uv_loop_s *loop;
	struct capture_pool *pool;
	struct writer *writer;
	size_t disk;
	char name[2 * POINT_NAME_MAX];
	char socket[108], export_name[96], dirty_context[192];
	struct hv_file file;
	bool from_file;
	uint64_t size, windows;
	uint64_t force[2];
	struct leg legs[2];
	unsigned nlegs, leg;
	struct source *source;

	uint64_t asked; /* byte: block status is known up to here */
	bool asking;
	uint64_t decided;   /* window: every window before it is in a run or needs nothing */
	uint64_t hole_from; /* byte where the hole that ends at `asked` begins; UINT64_MAX: no hole
	                       there */
	struct run tail[TAIL_MAX]; /* zeros that are not marked, behind all else that is not */
	size_t ntail;
	bool looked_at_tail;
	bool *untracked;
	struct run *runs; /* ring of RUNS_MAX */
	size_t run_head, nruns;
	unsigned in_flight, zero_jobs;
	uint64_t looked; /* windows handled, for progress */
	bool stopped;
	struct lc_err err;
	capture_done_cb *done;
	void *arg;
};

static void pump(struct capture *c);
static int open_leg(struct capture *c, struct lc_err *e);

/* ---- the pool ---- */

/*
 * A disk that was made smaller and then as large as before has lost what was behind the smaller
 * end, and QEMU's record of changes knows nothing of that.  Then all that is not marked there is
 * zero, up to the end of the disk; so where the base has something in those zeros, no record is to
 * be trusted.
 */
static int
look_at_tail(struct capture *c, struct lc_err *e)
{
	bool found = false;
	size_t i;
	int rc = 0;

	for (i = c->ntail; rc == 0 && !found && i-- > 0;)
		rc = writer_has_content(c->writer, c->disk, c->tail[i].first, c->tail[i].n, &found,
		                        e);
	if (rc == 0 && found)
		rc = lc_fail(e, LC_ECONFLICT, 0,
		             "%s: it has zeros where it had content, and no record of that: was it "
		             "made smaller and larger again?",
		             c->name);
	return rc;
}

static void
run_job(struct work *work, unsigned worker)
{
	struct job *j = (struct job *)(void *)work;
	struct capture_pool *p = j->pool;
	struct capture *c = j->c;

	if (j->tail)
		j->rc = look_at_tail(c, &j->err);
	else if (j->buf == NULL)
		j->rc = writer_zeros(c->writer, c->disk, j->first, j->n, &j->err);
	else
		j->rc = writer_put_run(c->writer, worker, c->disk, j->first, j->n, j->buf, &j->err);
	(void)pthread_mutex_lock(&p->lock);
	STAILQ_INSERT_TAIL(&p->finished, j, entry);
	(void)pthread_mutex_unlock(&p->lock);
	/* The loop may have met it, and freed it, as it was woken by another one. */
	(void)uv_async_send(&p->wake);
}

static void
release_job(struct job *j)
{
	if (j->buf == NULL)
		lc_free(j);
	else
		STAILQ_INSERT_HEAD(&j->pool->idle, j, entry);
}

/* A job is over, on the loop thread. */
static void
job_over(struct job *j)
{
	struct capture *c = j->c;

	c->in_flight--;
	if (j->buf == NULL)
		c->zero_jobs--;
	c->looked += j->n;
	if (j->tail && j->rc == LC_ECONFLICT && c->untracked != NULL)
		*c->untracked = true;
	if (j->rc != 0 && c->err.code == LC_OK)
		c->err = j->err;
	release_job(j);
}

/* Serve all disks in turn, so that none holds all the buffers. */
static void
pump_all(struct capture_pool *p)
{
	struct capture_list todo = TAILQ_HEAD_INITIALIZER(todo);
	struct capture *c;

	TAILQ_CONCAT(&todo, &p->captures, entry);
	while ((c = TAILQ_FIRST(&todo)) != NULL) {
		TAILQ_REMOVE(&todo, c, entry);
		TAILQ_INSERT_TAIL(&p->captures, c, entry);
		pump(c);
	}
	/* The next round begins with another one. */
	c = TAILQ_FIRST(&p->captures);
	if (c != NULL) {
		TAILQ_REMOVE(&p->captures, c, entry);
		TAILQ_INSERT_TAIL(&p->captures, c, entry);
	}
}

static void
on_wake(uv_async_t *a)
{
	struct capture_pool *p = a->data;
	struct job_list finished = STAILQ_HEAD_INITIALIZER(finished);
	struct job *j;

	(void)pthread_mutex_lock(&p->lock);
	STAILQ_CONCAT(&finished, &p->finished);
	(void)pthread_mutex_unlock(&p->lock);
	while ((j = STAILQ_FIRST(&finished)) != NULL) {
		STAILQ_REMOVE_HEAD(&finished, entry);
		job_over(j);
	}
	pump_all(p);
}

int
capture_pool_new(struct uv_loop_s *loop, unsigned threads, uint64_t bytes,
                 struct capture_pool **out, struct lc_err *e)
{
	struct capture_pool *p = lc_alloc(sizeof *p);
	size_t i;
	int rc;

	if (p == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	STAILQ_INIT(&p->idle);
	STAILQ_INIT(&p->finished);
	TAILQ_INIT(&p->captures);
	(void)pthread_mutex_init(&p->lock, NULL);
	p->njobs = bytes / READ_BYTES < 4 ? 4 : (size_t)(bytes / READ_BYTES);
	p->jobs = lc_alloc_array(p->njobs, sizeof *p->jobs);
	p->memory = lc_alloc_array(p->njobs, READ_BYTES);
	if (p->jobs == NULL || p->memory == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "%" PRIu64 " bytes of buffers: out of memory", bytes);
	else
		rc = workers_new(threads, &p->workers, e);
	if (rc == 0) {
		int urc = uv_async_init(loop, &p->wake, on_wake);

		if (urc != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "event loop: %s", uv_strerror(urc));
	}
	if (rc != 0) {
		workers_free(p->workers);
		(void)pthread_mutex_destroy(&p->lock);
		lc_free(p->memory);
		lc_free(p->jobs);
		lc_free(p);
		return rc;
	}
	p->wake.data = p;
	uv_unref((uv_handle_t *)&p->wake);
	for (i = 0; i < p->njobs; i++) {
		p->jobs[i].pool = p;
		p->jobs[i].buf = p->memory + i * READ_BYTES;
		STAILQ_INSERT_TAIL(&p->idle, &p->jobs[i], entry);
	}
	*out = p;
	return 0;
}

unsigned
capture_pool_threads(const struct capture_pool *p)
{
	return workers_count(p->workers);
}

static void
pool_closed(uv_handle_t *h)
{
	struct capture_pool *p = h->data;

	(void)pthread_mutex_destroy(&p->lock);
	lc_free(p->memory);
	lc_free(p->jobs);
	lc_free(p);
}

void
capture_pool_close(struct capture_pool *p)
{
	if (p == NULL)
		return;
	assert(TAILQ_EMPTY(&p->captures));
	workers_free(p->workers);
	uv_close((uv_handle_t *)&p->wake, pool_closed);
}

/* ---- runs of windows ---- */

static void
push_run(struct capture *c, uint64_t first, uint64_t end, bool zeros)
{
	struct run *last;

	if (end <= first)
		return;
	c->decided = end;
	if (c->nruns > 0) {
		last = &c->runs[(c->run_head + c->nruns - 1) % RUNS_MAX];
		if (last->first + last->n == first && last->zeros == zeros) {
			last->n += end - first;
			return;
		}
	}
	assert(c->nruns < RUNS_MAX);
	c->runs[(c->run_head + c->nruns++) % RUNS_MAX] = (struct run){
	    .first = first, .n = end - first, .zeros = zeros};
}

/* Windows [decided, end) need nothing, but for those that are to be read whatever is marked. */
static void
skip_to(struct capture *c, uint64_t end)
{
	size_t i;

	while (c->decided < end) {
		uint64_t next = end;

		for (i = 0; i < 2; i++) {
			if (c->force[i] >= c->decided && c->force[i] < next)
				next = c->force[i];
		}
		c->looked += next - c->decided;
		c->decided = next;
		if (next < end)
			push_run(c, next, next + 1, false);
	}
}

static uint64_t
window_after(uint64_t byte)
{
	return point_windows(byte);
}

/* Of what is not marked. */
static void
follow_tail(struct capture *c, const struct source_extent *x)
{
	uint64_t first = window_after(x->off), end = x->off + x->len;

	end = end >= c->size ? c->windows : end / WINDOW_SIZE;
	if (!x->zero || c->from_file) { /* a file has holes where nothing changed */
		c->ntail = 0;
	} else if (c->ntail > 0 && c->tail[c->ntail - 1].first + c->tail[c->ntail - 1].n >= first) {
		c->tail[c->ntail - 1].n = end - c->tail[c->ntail - 1].first;
	} else if (end > first) {
		if (c->ntail == TAIL_MAX)
			memmove(c->tail, c->tail + 1, --c->ntail * sizeof *c->tail);
		c->tail[c->ntail++] = (struct run){.first = first, .n = end - first, .zeros = true};
	}
}

/*
 * One extent.  A window that any data extent touches is read.  One that lies in holes altogether is
 * zero, also where it lies across two of them; so a hole is followed from where it begins.
 */
static void
take_extent(struct capture *c, const struct source_extent *x, bool marked)
{
	uint64_t end = x->off + x->len, first = x->off / WINDOW_SIZE, whole;
	bool last = end >= c->size;

	if (x->data && !x->zero) {
		if (c->hole_from != UINT64_MAX)
			c->hole_from = UINT64_MAX;
		if (marked)
			skip_to(c, first);
		if (first < c->decided)
			first = c->decided;
		/* The rest of a hole that ends in this window is read with it. */
		push_run(c, c->decided < first && !marked ? c->decided : first, window_after(end),
		         false);
		return;
	}
	whole = last ? window_after(end) : end / WINDOW_SIZE;
	if (marked && !x->data) { /* not changed */
		follow_tail(c, x);
		c->hole_from = UINT64_MAX;
		skip_to(c, whole < c->decided ? c->decided : whole);
		return;
	}
	/* Zeros: changed to that, or a hole of a disk that is read as a whole. */
	if (c->hole_from == UINT64_MAX)
		c->hole_from = x->off;
	if (marked)
		skip_to(c, first);
	if (c->decided * WINDOW_SIZE < c->hole_from && whole > c->decided)
		push_run(c, c->decided, c->decided + 1, false);
	push_run(c, c->decided, whole, true);
}

/* A snapshot that broke answers every request with an error, and nothing else tells.  It is not to
 * be taken for the store's failure. */
static void
source_failed(const struct capture *c, struct lc_err *out, const struct lc_err *err)
{
	*out = *err;
	if (err->code != LC_EIO)
		return;
	lc_err_clear(out);
	(void)lc_fail(out, LC_ECONFLICT, 0, "%s: the snapshot can't be read any more: %s", c->name,
	              err->msg);
}

static void
on_extents(void *arg, const struct source_extent *x, size_t n, const struct lc_err *err)
{
	struct capture *c = arg;
	const struct leg *leg = &c->legs[c->leg];
	size_t i;

	c->asking = false;
	if (err->code != LC_OK) {
		if (c->err.code == LC_OK)
			source_failed(c, &c->err, err);
		pump(c);
		return;
	}
	for (i = 0; i < n && c->nruns + 4 < RUNS_MAX; i++) {
		take_extent(c, &x[i], leg->marked);
		c->asked = x[i].off + x[i].len;
	}
	pump(c);
}

/* ---- reading ---- */

static void
on_read(void *arg, const struct lc_err *err)
{
	struct job *j = arg;

	if (err->code != LC_OK) {
		source_failed(j->c, &j->err, err);
		j->rc = j->err.code;
		j->n = 0;
		job_over(j);
		pump_all(j->pool);
		return;
	}
	workers_submit(j->pool->workers, &j->work);
}

static void
start_job(struct capture *c, struct job *j, uint64_t first, uint64_t n)
{
	j->work.run = run_job;
	j->c = c;
	j->tail = false;
	j->first = first;
	j->n = n;
	j->rc = 0;
	lc_err_clear(&j->err);
	c->in_flight++;
}

static bool
start_read(struct capture *c, struct run *r)
{
	uint64_t off = r->first * WINDOW_SIZE, n = r->n < READ_WINDOWS ? r->n : READ_WINDOWS;
	uint64_t bytes = n * WINDOW_SIZE;
	struct job *j = STAILQ_FIRST(&c->pool->idle);
	int rc;

	if (j == NULL)
		return false;
	STAILQ_REMOVE_HEAD(&c->pool->idle, entry);
	start_job(c, j, r->first, n);
	if (off + bytes > c->size) { /* the last window is zero-padded */
		memset(j->buf + (c->size - off), 0, (size_t)(off + bytes - c->size));
		bytes = c->size - off;
	}
	r->first += n;
	r->n -= n;
	rc = source_read(c->source, j->buf, (uint32_t)bytes, off, on_read, j, &j->err);
	if (rc != 0) {
		j->rc = rc;
		j->n = 0;
		job_over(j);
	}
	return true;
}

/* A job that reads nothing, so it needs no buffer of the pool's.  false: no memory. */
static bool
start_bare(struct capture *c, uint64_t first, uint64_t n, bool tail)
{
	struct job *j = lc_alloc(sizeof *j);

	if (j == NULL) {
		(void)lc_fail(&c->err, LC_ENOMEM, 0, "%s: out of memory", c->name);
		return false;
	}
	j->pool = c->pool;
	start_job(c, j, first, n);
	j->tail = tail;
	c->zero_jobs++;
	workers_submit(c->pool->workers, &j->work);
	return true;
}

static bool
start_zeros(struct capture *c, struct run *r)
{
	uint64_t n = r->n < ZEROS_WINDOWS ? r->n : ZEROS_WINDOWS;

	if (!writer_known(c->writer, c->disk)) { /* zero is what a new disk is */
		c->looked += r->n;
		r->first += r->n;
		r->n = 0;
		return true;
	}
	if (c->zero_jobs >= ZEROS_JOBS || !start_bare(c, r->first, n, false))
		return false;
	r->first += n;
	r->n -= n;
	return true;
}

/* The last thing; true: it is under way. */
static bool
start_tail(struct capture *c)
{
	return c->ntail > 0 && writer_known(c->writer, c->disk) && start_bare(c, 0, 0, true);
}

static bool
ask(struct capture *c)
{
	const struct leg *leg = &c->legs[c->leg];
	uint64_t end = leg->to * WINDOW_SIZE < c->size ? leg->to * WINDOW_SIZE : c->size;
	uint64_t len = end - c->asked;

	/* An answer of a fragmented disk fills the ring: so not before half of it is used up. */
	if (c->asking || c->asked >= end || c->nruns > RUNS_MAX / 2)
		return false;
	if (len > EXTENTS_BYTES)
		len = EXTENTS_BYTES;
	c->asking = true;
	if (source_extents(c->source, c->asked, len, on_extents, c, &c->err) != 0)
		c->asking = false;
	return true;
}

static void
on_closed(void *arg)
{
	struct capture *c = arg;
	uint64_t covered = c->nruns > 0 ? c->runs[c->run_head].first : c->decided;

	c->source = NULL;
	if (c->err.code == LC_OK && !c->stopped && c->leg + 1 < c->nlegs) {
		c->leg++;
		if (open_leg(c, &c->err) == 0)
			return;
	}
	TAILQ_REMOVE(&c->pool->captures, c, entry);
	c->done(c->arg, covered, &c->err);
	lc_free(c->runs);
	lc_free(c);
}

static void
pump(struct capture *c)
{
	const struct leg *leg = &c->legs[c->leg];
	bool more = true, at_end;

	if (c->state != CAPTURE_READ)
		return;
	while (more && c->err.code == LC_OK && !c->stopped) {
		more = ask(c);
		if (c->nruns > 0 && c->err.code == LC_OK) {
			struct run *r = &c->runs[c->run_head];

			more = (r->zeros ? start_zeros(c, r) : start_read(c, r)) || more;
			if (r->n == 0) {
				c->run_head = (c->run_head + 1) % RUNS_MAX;
				c->nruns--;
			}
		}
	}
	at_end = c->asked >= (leg->to * WINDOW_SIZE < c->size ? leg->to * WINDOW_SIZE : c->size) &&
	         c->nruns == 0;
	if (at_end && c->in_flight == 0 && !c->asking && !c->looked_at_tail &&
	    c->err.code == LC_OK && !c->stopped) {
		c->looked_at_tail = true;
		if (start_tail(c))
			return;
	}
	if (c->in_flight == 0 && !c->asking && (c->err.code != LC_OK || c->stopped || at_end)) {
		c->state = CAPTURE_CLOSE;
		source_close(c->source, on_closed, c);
	}
}

static void
on_open(void *arg, const struct lc_err *err)
{
	struct capture *c = arg;

	c->state = CAPTURE_READ;
	if (err->code != LC_OK && c->err.code == LC_OK)
		c->err = *err;
	else if (source_size(c->source) < c->size)
		(void)lc_fail(&c->err, LC_ECONFLICT, 0,
		              "%s: the export has %" PRIu64 " bytes, the disk %" PRIu64, c->name,
		              source_size(c->source), c->size);
	pump(c);
}

static int
open_leg(struct capture *c, struct lc_err *e)
{
	const struct leg *leg = &c->legs[c->leg];
	struct source_opts so = {.name = c->name,
	                         .socket = c->socket,
	                         .file = c->from_file ? &c->file : NULL,
	                         .export_name = c->export_name,
	                         .dirty_context = leg->marked ? c->dirty_context : NULL};

	c->state = CAPTURE_OPEN;
	c->decided = leg->from;
	c->asked = leg->from * WINDOW_SIZE;
	c->hole_from = UINT64_MAX;
	c->ntail = 0;
	c->looked_at_tail = false;
	return source_open(c->loop, &so, on_open, c, &c->source, e);
}

int
capture_start(const struct capture_opts *o, capture_done_cb *done, void *arg, struct capture **out,
              struct lc_err *e)
{
	struct capture *c = lc_alloc(sizeof *c);
	uint64_t trusted;
	int rc;

	if (c == NULL || (c->runs = lc_alloc_array(RUNS_MAX, sizeof *c->runs)) == NULL) {
		lc_free(c);
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", o->name);
	}
	c->loop = o->loop;
	c->pool = o->pool;
	c->writer = o->writer;
	c->disk = o->disk;
	c->size = o->size;
	c->windows = point_windows(o->size);
	c->force[0] = o->force[0];
	c->force[1] = o->force[1];
	c->untracked = o->untracked;
	c->done = done;
	c->arg = arg;
	(void)snprintf(c->name, sizeof c->name, "%s", o->name);
	c->from_file = o->file != NULL;
	if (c->from_file)
		c->file = *o->file;
	(void)snprintf(c->socket, sizeof c->socket, "%s", o->socket);
	(void)snprintf(c->export_name, sizeof c->export_name, "%s", o->export_name);
	(void)snprintf(c->dirty_context, sizeof c->dirty_context, "%s", o->dirty_context);
	trusted = o->trusted < c->windows ? o->trusted : c->windows;
	if (c->dirty_context[0] == '\0')
		trusted = 0;
	if (trusted > 0)
		c->legs[c->nlegs++] = (struct leg){.from = 0, .to = trusted, .marked = true};
	if (trusted < c->windows || c->nlegs == 0)
		c->legs[c->nlegs++] = (struct leg){.from = trusted, .to = c->windows};
	rc = open_leg(c, e);
	if (rc != 0) {
		lc_free(c->runs);
		lc_free(c);
		return rc;
	}
	TAILQ_INSERT_TAIL(&c->pool->captures, c, entry);
	*out = c;
	return 0;
}

void
capture_stop(struct capture *c)
{
	c->stopped = true;
	pump(c);
}

void
capture_cancel(struct capture *c, const struct lc_err *why)
{
	if (c->err.code == LC_OK)
		c->err = *why;
	pump(c);
}

void
capture_progress(const struct capture *c, uint64_t *looked, uint64_t *total)
{
	*looked = c->looked * WINDOW_SIZE;
	*total = c->size;
}

int
capture_file(struct writer *w, unsigned worker, size_t disk, int fd, const char *path,
             uint64_t size, struct lc_err *e)
{
	uint8_t *buf = lc_alloc(WINDOW_SIZE);
	uint64_t i, n = point_windows(size);
	int rc = 0;

	if (buf == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	for (i = 0; rc == 0 && buf != NULL && i < n; i++) {
		uint64_t left = size - i * WINDOW_SIZE;

		memset(buf, 0, WINDOW_SIZE);
		rc = file_pread_full(fd, buf, left < WINDOW_SIZE ? (size_t)left : WINDOW_SIZE,
		                     i * WINDOW_SIZE, path, e);
		rc = rc != 0 ? rc : writer_put(w, worker, disk, i, buf, NULL, e);
	}
	lc_free(buf);
	return rc;
}

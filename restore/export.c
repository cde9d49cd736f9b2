#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/progress.h"
#include "store/base/workers.h"
#include "store/store.h"
#include "restore/convert.h"
#include "restore/export.h"
#include "restore/interrupt.h"
#include "restore/output.h"
#include "restore/qcow2.h"

enum {
	PAGE = 4096,    /* windows of the map looked up at once */
	BATCH = 16,     /* windows decoded and written by one job: 1 MiB */
	PER_THREAD = 3, /* batches that wait, are worked on, or are written out */
	AHEAD = 256,    /* windows that the system is to have read when their batch is made */
	AHEAD_STEP = 64,
	POLL_MS = 100, /* how often Ctrl-C is looked for */
	MODE = 0600,   /* a disk image holds all secrets of its VM */
};

struct target { /* one file */
	struct export_file *file;
	struct output *output;  /* what is to be published ... */
	struct output *interim; /* ... and the image that it is made from, or NULL */
	bool tables;            /* what is written here is qcow2 */
	uint64_t size;          /* of the disk */
	uint64_t windows;
	uint64_t ndata;   /* windows that hold data */
	bool *used;       /* qcow2: [areas] that hold data */
	struct qcow2 q;   /* qcow2 */
	uint64_t next_at; /* qcow2: place of the next data cluster */
	uint8_t *table;   /* qcow2: the L2 table of `area` */
	uint64_t area, table_at;
};

struct batch {
	struct work work;
	TAILQ_ENTRY(batch) link; /* while nobody uses it */
	struct export *x;
	const struct target *target;
	size_t n;
	uint64_t window[BATCH], chunk[BATCH], at[BATCH];
	uint8_t *memory; /* owned */
	uint8_t *data;   /* BATCH windows in it, aligned */
};

TAILQ_HEAD(batch_list, batch);

struct export
{
	struct store *store;
	struct view *view;
	const struct export_opts *opts;
	struct target *targets; /* [opts->nfiles] */
	uint64_t *map;          /* [PAGE] */
	struct interrupt interrupt;
	struct progress *progress;
	uint64_t total; /* bytes of data */
	struct workers *pool;
	unsigned nthreads;
	struct chunk_reader **readers; /* [nthreads] */
	struct batch *batches;
	size_t nbatches;
	atomic_bool stop; /* no batch does more work */
	atomic_uint_fast64_t done;
	pthread_mutex_t lock;
	pthread_cond_t idle_cond;
	struct batch_list idle; /* under lock */
	size_t nbusy;           /* under lock: batches that workers have */
	struct lc_err err;      /* under lock: the first failure of a batch */
	struct set_sum sum;     /* under lock: of the map's rows that were followed */
};

/* Where our own writing goes. */
static struct output *
written_to(const struct target *t)
{
	return t->interim != NULL ? t->interim : t->output;
}

static const struct point_disk *
disk_of(const struct export *x, const struct target *t)
{
	return &view_point(x->view)->disks[t->file->disk];
}

/* ---- what is to be written, and where ---- */

/* Look up the page from window `first` on; gives the number of windows in it. */
static int
look_up(struct export *x, const struct target *t, uint64_t first, uint32_t *n, struct lc_err *e)
{
	uint64_t left = t->windows - first;
	int rc;

	*n = left < PAGE ? (uint32_t)left : PAGE;
	rc = view_map(x->view, t->file->disk, first, *n, x->map, e);
	if (rc != 0)
		lc_wrap(e, "%s/%s", view_point(x->view)->vm, disk_of(x, t)->name);
	return rc;
}

static int
plan(struct export *x, struct target *t, struct lc_err *e)
{
	uint64_t first, data, ntables = 0;
	bool cut = false; /* there is data in the last window */
	uint32_t i, n;

	t->size = disk_of(x, t)->size;
	t->windows = point_windows(t->size);
	if (t->tables) {
		t->used = lc_alloc_array((size_t)qcow2_areas(t->size) + 1, sizeof *t->used);
		t->table = lc_alloc(QCOW2_CLUSTER);
		if (t->used == NULL || t->table == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", t->file->path);
	}
	for (first = 0; first < t->windows; first += n) {
		if (look_up(x, t, first, &n, e) != 0)
			return e->code;
		for (i = 0; i < n; i++) {
			uint64_t area = (first + i) / QCOW2_AREA;

			if (x->map[i] == 0)
				continue;
			t->ndata++;
			cut = first + i + 1 == t->windows;
			if (t->used != NULL && !t->used[area]) {
				t->used[area] = true;
				ntables++;
			}
		}
		if (interrupt_pending(&x->interrupt))
			return lc_fail(e, LC_ECANCELED, 0, "interrupted; nothing was written");
	}
	data = t->ndata * WINDOW_SIZE;
	t->file->written = data;
	x->total += data;
	if (t->tables) {
		qcow2_plan(t->size, ntables, t->ndata, &t->q);
		t->file->written = t->q.end;
		if (t->interim != NULL)
			t->file->written += convert_room(t->file->format, t->size, data);
	}
	/* The last window may be a part of one. */
	t->file->data = data - (cut ? t->windows * WINDOW_SIZE - t->size : 0);
	return 0;
}

/* Whether all of it fits: files on one filesystem count together. */
static int
check_space(const struct export *x, struct lc_err *e)
{
	size_t i, j;

	for (i = 0; i < x->opts->nfiles; i++) {
		uint64_t need = 0, space;
		struct stat here, there;
		char a[32], b[32];

		if (fstat(output_fd(x->targets[i].output), &here) != 0)
			return lc_fail_errno(e, "%s", x->targets[i].file->path);
		for (j = 0; j < x->opts->nfiles; j++) {
			if (fstat(output_fd(x->targets[j].output), &there) == 0 &&
			    there.st_dev == here.st_dev)
				need += x->targets[j].file->written;
		}
		if (output_space(x->targets[i].file->path, &space, e) != 0)
			return e->code;
		if (need > space)
			return lc_fail(e, LC_ENOSPC, 0, "%s: needs %s, %s are free there",
			               x->targets[i].file->path, size_format(a, sizeof a, need),
			               size_format(b, sizeof b, space));
	}
	return 0;
}

static int
write_head(struct target *t, struct lc_err *e)
{
	int fd = output_fd(written_to(t));

	if (t->tables) {
		t->next_at = t->q.data_at;
		t->table_at = t->q.l2_at;
		t->area = UINT64_MAX;
		return qcow2_write_head(&t->q, t->used, NULL, fd, t->file->path, e);
	}
	if (ftruncate(fd, (off_t)t->size) != 0)
		return lc_fail_errno(e, "%s: set its size", t->file->path);
	return 0;
}

static int
flush_table(struct target *t, struct lc_err *e)
{
	int rc = 0;

	if (t->table != NULL && t->area != UINT64_MAX) {
		rc = file_pwrite_full(output_fd(written_to(t)), t->table, QCOW2_CLUSTER,
		                      t->table_at, t->file->path, e);
		t->table_at += QCOW2_CLUSTER;
	}
	return rc;
}

/* The place of a window's data in the file; called in the disk's order. */
static int
place(struct target *t, uint64_t window, uint64_t *at, struct lc_err *e)
{
	int rc = 0;

	if (!t->tables) {
		*at = window * WINDOW_SIZE;
		return 0;
	}
	if (window / QCOW2_AREA != t->area) {
		rc = flush_table(t, e);
		t->area = window / QCOW2_AREA;
		memset(t->table, 0, QCOW2_CLUSTER);
	}
	*at = t->next_at;
	t->next_at += QCOW2_CLUSTER;
	qcow2_set(t->table, (uint32_t)(window % QCOW2_AREA), *at);
	return rc;
}

/* ---- a batch, on a worker ---- */

static void
batch_fail(struct export *x, const struct lc_err *err)
{
	(void)pthread_mutex_lock(&x->lock);
	if (x->err.code == LC_OK)
		x->err = *err;
	(void)pthread_mutex_unlock(&x->lock);
	atomic_store(&x->stop, true); /* last: who sees it looks for the failure */
}

/* Past the page cache where that goes: it takes a sixth of the CPU, a third of the time, and leaves
 * the memory to others.  What is left over is the end of a raw image inside its last block. */
static int
write_out(const struct target *t, const uint8_t *p, uint64_t n, uint64_t at, struct lc_err *e)
{
	int fd = output_fd(written_to(t)), direct = output_direct_fd(written_to(t)), rc = 0;
	uint64_t aligned = direct < 0 ? 0 : n - n % OUTPUT_ALIGN;

	if (aligned > 0)
		rc = file_pwrite_full(direct, p, (size_t)aligned, at, t->file->path, e);
	if (rc == 0 && n > aligned) {
		rc = file_pwrite_full(fd, p + aligned, (size_t)(n - aligned), at + aligned,
		                      t->file->path, e);
		/* Begin to write it out, so that the flush at the end finds little to do. */
		(void)sync_file_range(fd, (off_t)at, (off_t)n, SYNC_FILE_RANGE_WRITE);
	}
	return rc;
}

/* Write windows [from, to) of the batch, which are neighbours in the file. */
static int
batch_write(const struct batch *b, size_t from, size_t to, struct lc_err *e)
{
	const struct target *t = b->target;
	uint64_t n = (to - from) * (uint64_t)WINDOW_SIZE, at = b->at[from];
	int err = failpoint("export.write");

	if (err != 0) {
		errno = err;
		return lc_fail_errno(e, "%s: write", t->file->path);
	}
	/* A raw image ends where the disk does, which may be inside the last window. */
	if (!t->tables && at + n > t->size)
		n = t->size - at;
	return write_out(t, b->data + from * WINDOW_SIZE, n, at, e);
}

static void
batch_run(struct work *w, unsigned worker)
{
	struct batch *b = (struct batch *)(void *)w;
	struct export *x = b->x;
	struct lc_err err = LC_ERR_INIT;
	struct set_sum sum = {0};
	uint8_t ids[CHUNK_MANY][CHUNK_ID_SIZE];
	uint64_t bytes = WINDOW_SIZE;
	size_t i, k, good, from = 0;

	for (i = 0; i < b->n && err.code == LC_OK && !atomic_load(&x->stop); i += good) {
		if (chunk_read_many(x->readers[worker], b->chunk + i, b->n - i,
		                    b->data + i * WINDOW_SIZE, ids, &good, &err) != 0)
			lc_wrap(&err, "%s/%s at byte %" PRIu64, view_point(x->view)->vm,
			        disk_of(x, b->target)->name, b->window[i + good] * WINDOW_SIZE);
		for (k = 0; k < good; k++)
			view_add(x->view, b->target->file->disk, b->window[i + k], ids[k], &sum);
	}
	for (i = 1; i <= b->n && err.code == LC_OK && !atomic_load(&x->stop); i++) {
		if (i < b->n && b->at[i] == b->at[i - 1] + WINDOW_SIZE)
			continue;
		(void)batch_write(b, from, i, &err);
		from = i;
	}
	if (err.code != LC_OK)
		batch_fail(x, &err);
	bytes *= b->n;
	atomic_fetch_add(&x->done, bytes);
	(void)pthread_mutex_lock(&x->lock);
	set_add(&x->sum, &sum);
	TAILQ_INSERT_HEAD(&x->idle, b, link);
	x->nbusy--;
	(void)pthread_cond_signal(&x->idle_cond);
	(void)pthread_mutex_unlock(&x->lock);
}

/* ---- the thread that hands out batches ---- */

/* Wait until some batch is idle, or all are; draw progress and look for Ctrl-C meanwhile. */
static void
wait_idle(struct export *x, bool all)
{
	struct progress_state p = {
	    .done = atomic_load(&x->done), .total = x->total, .note = "restoring"};

	progress_update(x->progress, &p);
	(void)pthread_mutex_lock(&x->lock);
	while (all ? x->nbusy > 0 : TAILQ_EMPTY(&x->idle)) {
		(void)clock_wait(&x->idle_cond, &x->lock, clock_mono_ns() + POLL_MS * LC_NS_PER_MS);
		(void)pthread_mutex_unlock(&x->lock);
		if (interrupt_pending(&x->interrupt))
			atomic_store(&x->stop, true);
		p.done = atomic_load(&x->done);
		progress_update(x->progress, &p);
		(void)pthread_mutex_lock(&x->lock);
	}
	(void)pthread_mutex_unlock(&x->lock);
}

static struct batch *
batch_take(struct export *x, const struct target *t)
{
	struct batch *b;

	wait_idle(x, false);
	(void)pthread_mutex_lock(&x->lock);
	b = TAILQ_FIRST(&x->idle);
	TAILQ_REMOVE(&x->idle, b, link);
	x->nbusy++;
	(void)pthread_mutex_unlock(&x->lock);
	b->target = t;
	b->n = 0;
	return b;
}

static int
check_stop(struct export *x, struct lc_err *e)
{
	if (interrupt_pending(&x->interrupt))
		return lc_fail(e, LC_ECANCELED, 0, "interrupted; no file was left behind");
	if (!atomic_load(&x->stop))
		return 0;
	(void)pthread_mutex_lock(&x->lock);
	if (e != NULL && e->code == LC_OK)
		*e = x->err;
	(void)pthread_mutex_unlock(&x->lock);
	return LC_EIO;
}

/* Window i of a page of n is next: what follows is to be in the page cache by then. */
static void
read_ahead(struct export *x, uint32_t i, uint32_t n, uint32_t *upto)
{
	while (*upto < n && *upto < i + AHEAD) {
		uint32_t part = n - *upto < AHEAD_STEP ? n - *upto : AHEAD_STEP;

		view_read_ahead(x->view, x->map + *upto, part);
		*upto += part;
	}
}

static int
export_target(struct export *x, struct target *t, struct lc_err *e)
{
	struct batch *b = NULL;
	uint64_t first;
	uint32_t i, n, ahead;
	int rc = write_head(t, e);

	for (first = 0; rc == 0 && first < t->windows; first += n) {
		rc = look_up(x, t, first, &n, e);
		for (i = ahead = 0; rc == 0 && i < n; i++) {
			if (x->map[i] == 0)
				continue;
			read_ahead(x, i, n, &ahead);
			if (b == NULL)
				b = batch_take(x, t);
			b->window[b->n] = first + i;
			b->chunk[b->n] = x->map[i];
			rc = place(t, first + i, &b->at[b->n], e);
			if (++b->n == BATCH) {
				workers_submit(x->pool, &b->work);
				b = NULL;
			}
		}
		if (rc == 0)
			rc = check_stop(x, e);
	}
	if (rc != 0)
		atomic_store(&x->stop, true);
	if (b != NULL) /* after a failure too: that is how it becomes idle again */
		workers_submit(x->pool, &b->work);
	return rc == 0 ? flush_table(t, e) : rc;
}

static bool
stopped(void *arg)
{
	struct export *x = arg;

	return interrupt_pending(&x->interrupt);
}

/* Whether what was written is the point, and not only made of pieces of the store: the rows of the
 * disks that nobody asked for count as well. */
static int
check_map(struct export *x, struct lc_err *e)
{
	size_t disk, i;
	int rc = 0;

	if (x->opts->passing)
		return 0;
	for (disk = 0; rc == 0 && disk < view_point(x->view)->ndisks; disk++) {
		for (i = 0; i < x->opts->nfiles && x->opts->files[i].disk != disk; i++)
			;
		if (i == x->opts->nfiles)
			rc = view_add_disk(x->view, disk, stopped, x, &x->sum, e);
	}
	return rc != 0 ? rc : view_check(x->view, &x->sum, e);
}

/* Into the formats of others. */
static int
convert_all(struct export *x, struct lc_err *e)
{
	struct progress_state p = {.done = x->total, .total = x->total, .note = "converting"};
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < x->opts->nfiles; i++) {
		struct target *t = &x->targets[i];

		if (t->interim == NULL)
			continue;
		progress_update(x->progress, &p);
		rc = convert_run(t->file->format, t->size, output_fd(t->interim),
		                 output_fd(t->output), t->file->path, stopped, x, e);
		output_free(t->interim);
		t->interim = NULL;
	}
	return rc;
}

static int
finish_all(struct export *x, struct lc_err *e)
{
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && i < x->opts->nfiles; i++) {
		rc = output_finish(x->targets[i].output, !x->opts->passing, e);
		if (rc == 0)
			rc = check_stop(x, e);
	}
	return rc;
}

static int
publish_all(struct export *x, struct lc_err *e)
{
	size_t i;

	for (i = 0; i < x->opts->nfiles; i++) {
		if (output_publish(x->targets[i].output, e) != 0)
			break;
	}
	if (i == x->opts->nfiles)
		return 0;
	/* Some of the files without the others would look like a whole VM.  Where they replaced
	 * others there is no way back. */
	while (!x->opts->force && i-- > 0)
		(void)unlink(output_path(x->targets[i].output));
	return LC_EIO;
}

/* ---- life ---- */

static int
start_pool(struct export *x, struct lc_err *e)
{
	unsigned want = x->opts->threads;
	size_t i;

	if (want == 0)
		want = workers_cores() * 2; /* half of them wait for the disk */
	if (want > 64)
		want = 64;
	if (workers_new(want, &x->pool, e) != 0)
		return e->code;
	x->nthreads = workers_count(x->pool);
	x->readers = lc_alloc_array(x->nthreads, sizeof(struct chunk_reader *));
	x->nbatches = (size_t)x->nthreads * PER_THREAD;
	x->batches = lc_alloc_array(x->nbatches, sizeof *x->batches);
	x->map = lc_alloc_array(PAGE, sizeof *x->map);
	if (x->readers == NULL || x->batches == NULL || x->map == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "restore: out of memory");
	for (i = 0; i < x->nthreads; i++) {
		if (chunk_reader_new(x->store, &x->readers[i], e) != 0)
			return e->code;
	}
	for (i = 0; i < x->nbatches; i++) {
		struct batch *b = &x->batches[i];

		b->x = x;
		b->work.run = batch_run;
		b->memory = lc_alloc(BATCH * (size_t)WINDOW_SIZE + OUTPUT_ALIGN);
		if (b->memory == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "restore: out of memory");
		b->data = b->memory + OUTPUT_ALIGN - (uintptr_t)b->memory % OUTPUT_ALIGN;
		TAILQ_INSERT_TAIL(&x->idle, b, link);
	}
	return 0;
}

static void
clean_up(struct export *x)
{
	size_t i;

	atomic_store(&x->stop, true);
	workers_free(x->pool); /* runs what is queued */
	for (i = 0; x->readers != NULL && i < x->nthreads; i++)
		chunk_reader_free(x->readers[i]);
	for (i = 0; x->batches != NULL && i < x->nbatches; i++)
		lc_free(x->batches[i].memory);
	for (i = 0; x->targets != NULL && i < x->opts->nfiles; i++) {
		output_free(x->targets[i].interim);
		output_free(x->targets[i].output);
		lc_free(x->targets[i].used);
		lc_free(x->targets[i].table);
	}
	lc_free(x->readers);
	lc_free(x->batches);
	lc_free(x->targets);
	lc_free(x->map);
	progress_free(x->progress);
	(void)pthread_cond_destroy(&x->idle_cond);
	(void)pthread_mutex_destroy(&x->lock);
	interrupt_end(&x->interrupt);
}

static int
begin_target(const struct export *x, struct target *t, struct export_file *file, struct lc_err *e)
{
	bool foreign = format_foreign(file->format);
	char *path;
	int rc;

	t->file = file;
	t->tables = file->format != FORMAT_RAW;
	rc = output_create(file->path, MODE, x->opts->force, &t->output, e);
	if (rc == 0 && foreign)
		rc = convert_check(file->format, disk_of(x, t)->size, file->path, e);
	if (rc != 0 || !foreign)
		return rc;
	/* Never to be published, and called so only where a file can't be nameless. */
	path = lc_asprintf("%s.interim", file->path);
	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", file->path);
	rc = output_create(path, MODE, true, &t->interim, e);
	lc_free(path);
	return rc;
}

static int
run(struct export *x, struct lc_err *e)
{
	size_t i;
	int rc;

	x->targets = lc_alloc_array(x->opts->nfiles, sizeof *x->targets);
	if (x->targets == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "restore: out of memory");
	/* What would be refused is refused before the work is begun. */
	for (i = 0; i < x->opts->nfiles; i++) {
		rc = begin_target(x, &x->targets[i], &x->opts->files[i], e);
		if (rc != 0)
			return rc;
	}
	rc = start_pool(x, e);
	for (i = 0; rc == 0 && i < x->opts->nfiles; i++)
		rc = plan(x, &x->targets[i], e);
	if (rc == 0)
		rc = check_space(x, e);
	for (i = 0; rc == 0 && i < x->opts->nfiles; i++)
		rc = export_target(x, &x->targets[i], e);
	wait_idle(x, true);
	if (rc == 0)
		rc = check_stop(x, e);
	rc = rc != 0 ? rc : check_map(x, e);
	rc = rc != 0 ? rc : convert_all(x, e);
	rc = rc != 0 ? rc : finish_all(x, e);
	return rc == 0 ? publish_all(x, e) : rc;
}

int
export_run(struct store *s, struct view *v, const struct export_opts *opts, struct lc_err *e)
{
	struct export x = {.store = s, .view = v, .opts = opts};
	struct lc_err err = LC_ERR_INIT;
	int rc;

	(void)pthread_mutex_init(&x.lock, NULL);
	(void)pthread_cond_init(&x.idle_cond, NULL);
	TAILQ_INIT(&x.idle);
	interrupt_begin(&x.interrupt);
	x.progress = progress_new(opts->label, opts->label != NULL);
	rc = run(&x, &err);
	clean_up(&x);
	if (rc != 0 && e != NULL && e->code == LC_OK)
		*e = err;
	return rc;
}

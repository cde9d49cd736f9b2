/*
 * Each request is one piece of work on libuv's pool.  A file system that hangs holds up its thread;
 * it has just taken all of the same file from the hypervisor.
 */
#include <inttypes.h>
#include <string.h>

#include <uv.h>

#include "store/base/memory.h"

#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/pushed.h"
#include "agent/hypervisor/rawimage.h"
#include "agent/hypervisor/source_file.h"

#define EXTENTS_MAX 256u

enum kind { KIND_OPEN = 0, KIND_READ, KIND_EXTENTS };

struct source_file {
	uv_loop_t *loop;
	char *name; /* and the image's path where it is one */
	int fd;
	bool raw; /* else what was pushed; then the next two count */
	uint64_t size;
	uint64_t copied; /* clusters that must have been copied */
	bool marked;     /* what was not copied did not change; else all was */
	unsigned running;
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
	uv_timer_t soon; /* tells of the end */
};

struct job {
	uv_work_t work;
	struct source_file *s;
	enum kind kind;
	void *p;
	uint64_t off, len;
	struct source_extent x[EXTENTS_MAX];
	size_t n;
	source_done_cb *done;
	source_extents_cb *on_extents;
	void *arg;
	struct lc_err err;
};

static void
count(struct job *j)
{
	const struct source_file *s = j->s;
	uint64_t n = 0;

	if (s->raw)
		return;
	if (pushed_count(s->fd, s->size, &n, &j->err) == 0 && n < s->copied)
		(void)lc_fail(&j->err, LC_ECONFLICT, 0,
		              "%s: %" PRIu64 " parts of 64 KiB were to be copied, but %" PRIu64
		              " were",
		              s->name, s->copied, n);
}

static void
add_extent(struct job *j, struct source_extent x)
{
	struct source_extent *last = j->n == 0 ? NULL : &j->x[j->n - 1];

	if (last != NULL && last->data == x.data && last->zero == x.zero)
		last->len += x.len;
	else
		j->x[j->n++] = x;
}

static void
list_raw(struct job *j)
{
	const struct source_file *s = j->s;
	uint64_t end = j->off + j->len, at, n;
	bool data;

	for (at = j->off; at < end && j->n < EXTENTS_MAX; at += n) {
		if (rawimage_look(s->fd, s->name, s->size, at, &n, &data, &j->err) != 0)
			return;
		if (n > end - at)
			n = end - at;
		add_extent(
		    j, (struct source_extent){.off = at, .len = n, .data = data, .zero = !data});
	}
}

static void
list_pushed(struct job *j)
{
	const struct source_file *s = j->s;
	uint64_t end = j->off + j->len, at = j->off / PUSHED_CLUSTER * PUSHED_CLUSTER, n;
	enum pushed_kind kind;

	for (; at < end && j->n < EXTENTS_MAX; at += n) {
		uint64_t from = at < j->off ? j->off : at;

		if (pushed_look(s->fd, s->size, at, &n, &kind, &j->err) != 0)
			return;
		if (kind == PUSHED_NOT && !s->marked) {
			(void)lc_fail(&j->err, LC_ECONFLICT, 0,
			              "%s: what lies at %" PRIu64 " was not copied", s->name, from);
			return;
		}
		add_extent(j, (struct source_extent){.off = from,
		                                     .len = (at + n < end ? at + n : end) - from,
		                                     .data = s->marked ? kind != PUSHED_NOT
		                                                       : kind == PUSHED_DATA,
		                                     .zero = kind == PUSHED_ZERO});
	}
}

static void
work(uv_work_t *req)
{
	struct job *j = req->data;
	const struct source_file *s = j->s;

	switch (j->kind) {
	case KIND_OPEN:
		count(j);
		break;
	case KIND_READ:
		if (s->raw)
			(void)rawimage_read(s->fd, s->name, j->p, (size_t)j->len, j->off, s->size,
			                    &j->err);
		else
			(void)pushed_read(s->fd, j->p, (size_t)j->len, j->off, &j->err);
		break;
	case KIND_EXTENTS:
		if (s->raw)
			list_raw(j);
		else
			list_pushed(j);
		break;
	}
}

static void
on_gone(uv_handle_t *h)
{
	struct source_file *s = h->data;

	if (s->closed != NULL)
		s->closed(s->closed_arg);
	lc_free(s->name);
	lc_free(s);
}

static void
end_if_over(struct source_file *s)
{
	if (s->closing && s->running == 0 && !uv_is_closing((uv_handle_t *)&s->soon))
		uv_close((uv_handle_t *)&s->soon, on_gone);
}

static void
after(uv_work_t *req, int status)
{
	struct job *j = req->data;
	struct source_file *s = j->s;

	(void)status;
	if (s->closing) {
		lc_err_clear(&j->err);
		(void)lc_fail(&j->err, LC_ECANCELED, 0, "%s: closed", s->name);
	}
	if (j->kind == KIND_EXTENTS)
		j->on_extents(j->arg, j->x, j->err.code == LC_OK ? j->n : 0, &j->err);
	else
		j->done(j->arg, &j->err);
	lc_free(j);
	s->running--;
	end_if_over(s);
}

/* Takes what *from says; p is somebody's who waits. */
static int
start(struct source_file *s, const struct job *from, struct lc_err *e)
{
	struct job *j = lc_alloc(sizeof *j);

	if (j == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->name);
	*j = *from;
	j->s = s;
	j->work.data = j;
	s->running++;
	(void)uv_queue_work(s->loop, &j->work, work, after); /* fails for no callback only */
	return 0;
}

int
source_file_open(struct uv_loop_s *loop, const struct source_opts *opts, source_done_cb *done,
                 void *arg, struct source_file **out, struct lc_err *e)
{
	struct source_file *s = lc_alloc(sizeof *s);
	struct job j = {.kind = KIND_OPEN, .done = done, .arg = arg};

	*out = NULL;
	if (s != NULL)
		s->name = opts->file->path == NULL
		              ? lc_strdup(opts->name)
		              : lc_asprintf("%s: %s", opts->name, opts->file->path);
	if (s == NULL || s->name == NULL) {
		lc_free(s);
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", opts->name);
	}
	s->loop = loop;
	s->fd = opts->file->fd;
	s->raw = opts->file->kind == HV_FILE_RAW;
	s->size = opts->file->size;
	s->copied = (opts->file->copied + PUSHED_CLUSTER - 1) / PUSHED_CLUSTER;
	s->marked = opts->dirty_context != NULL && *opts->dirty_context != '\0';
	if (start(s, &j, e) != 0) {
		lc_free(s->name);
		lc_free(s);
		return LC_ENOMEM;
	}
	(void)uv_timer_init(loop, &s->soon);
	s->soon.data = s;
	*out = s;
	return 0;
}

static int
check(const struct source_file *s, uint64_t off, uint64_t len, struct lc_err *e)
{
	if (!s->closing && len > 0 && off <= s->size && len <= s->size - off)
		return 0;
	return lc_fail(e, LC_EINVAL, 0,
	               "%s: %" PRIu64 " bytes at offset %" PRIu64 " of a disk of %" PRIu64, s->name,
	               len, off, s->size);
}

int
source_file_read(struct source_file *s, void *p, uint32_t n, uint64_t off, source_done_cb *done,
                 void *arg, struct lc_err *e)
{
	struct job j = {.kind = KIND_READ, .p = p, .off = off, .len = n, .done = done, .arg = arg};
	int rc = check(s, off, n, e);

	if (rc == 0 && n > SOURCE_READ_MAX)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: read of %" PRIu32 " bytes", s->name, n);
	return rc != 0 ? rc : start(s, &j, e);
}

int
source_file_extents(struct source_file *s, uint64_t off, uint64_t len, source_extents_cb *cb,
                    void *arg, struct lc_err *e)
{
	struct job j = {.kind = KIND_EXTENTS, .off = off, .len = len, .on_extents = cb, .arg = arg};
	int rc = check(s, off, len, e);

	return rc != 0 ? rc : start(s, &j, e);
}

void
source_file_close(struct source_file *s, void (*closed)(void *arg), void *arg)
{
	s->closing = true;
	s->closed = closed;
	s->closed_arg = arg;
	end_if_over(s);
}

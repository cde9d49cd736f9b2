/*
 * libnbd's state machine runs inside nbd_aio_notify_*() and, now and then, inside the calls that
 * start a request. It calls our completion callbacks with the handle's lock held, where nothing of
 * libnbd may be called. So these only move the request from `flying` to `landed`; source_deliver()
 * hands it to the caller once libnbd was left.
 *
 *     CONNECTING ──► READY ──► BROKEN          source_close() in any state goes to
 *          └───────────────────┘               CLOSING; the handle of libnbd is gone
 *                                              in BROKEN and CLOSING
 *
 * The descriptor in the loop is a duplicate of libnbd's: libnbd closes its own in the middle of a
 * call as soon as the connection fails, and a closed number, or worse a reused one, must never
 * stand in an epoll set.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libnbd.h>
#include <uv.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/source_file.h"

#define DEFAULT_TIMEOUT_MS 30000
#define STATUS_MAX (UINT64_C(1) << 31) /* the protocol has 32 bits for a length */
#define LATE_NS (20 * LC_NS_PER_MS)    /* a timer that fires later than that was held up */
#define DIRTY_FLAG 1u                  /* bit 0 of qemu:dirty-bitmap:* */

enum source_state { SOURCE_CONNECTING = 0, SOURCE_READY, SOURCE_BROKEN, SOURCE_CLOSING };

enum req_kind { REQ_OPEN = 0, REQ_READ, REQ_EXTENTS };

struct req {
	TAILQ_ENTRY(req) link;
	struct source *s;
	enum req_kind kind;
	bool landed;
	int64_t deadline_ns;
	uint64_t off, len;
	struct lc_buf allocation, dirty; /* struct source_extent, as the server told them */
	source_done_cb *done;
	source_extents_cb *on_extents;
	void *arg;
	int error;         /* errno from the server or libnbd */
	struct lc_err err; /* goes before it */
};

TAILQ_HEAD(req_list, req);

struct source {
	struct source_file *file; /* then nothing else is in use, but size */
	uv_loop_t *loop;
	struct nbd_handle *nbd;
	char *name, *dirty_context;
	enum source_state state;
	bool have_allocation;
	uint64_t size;
	int64_t timeout_ms;
	struct lc_err broken;   /* why, in state BROKEN */
	struct req_list flying; /* in order of their deadlines */
	struct req_list landed; /* their callbacks are due */
	uv_poll_t poll;
	int poll_fd;
	int poll_events;
	uv_timer_t deadline;
	int64_t due_ns;   /* when it should fire */
	uv_timer_t kick;  /* delivers what landed outside the loop's callbacks */
	unsigned handles; /* not yet closed */
	bool handles_closing;
	void (*closed)(void *arg);
	void *closed_arg;
};

static void source_on_poll(uv_poll_t *h, int status, int events);
static void source_on_deadline(uv_timer_t *h);
static void source_on_kick(uv_timer_t *h);

/* libnbd's text of the last failure without its function's name in front. */
static const char *
nbd_text(void)
{
	const char *s = nbd_get_error();
	const char *colon;

	if (s == NULL)
		return "connection lost";
	colon = strstr(s, ": ");
	return strncmp(s, "nbd_", 4) == 0 && colon != NULL ? colon + 2 : s;
}

static void
req_free(struct req *r)
{
	lc_buf_free(&r->allocation);
	lc_buf_free(&r->dirty);
	lc_free(r);
}

static struct req *
req_new(struct source *s, enum req_kind kind, void *arg)
{
	struct req *r = lc_alloc(sizeof *r);

	if (r == NULL)
		return NULL;
	r->s = s;
	r->kind = kind;
	r->arg = arg;
	r->deadline_ns = clock_mono_ns() + s->timeout_ms * LC_NS_PER_MS;
	return r;
}

static void
arm_deadline(struct source *s, int64_t in_ns)
{
	s->due_ns = clock_mono_ns() + in_ns + LC_NS_PER_MS;
	uv_update_time(s->loop);
	(void)uv_timer_start(&s->deadline, source_on_deadline, (uint64_t)(in_ns / LC_NS_PER_MS) + 1,
	                     0);
}

static void
req_fly(struct req *r)
{
	struct source *s = r->s;

	TAILQ_INSERT_TAIL(&s->flying, r, link);
	if (!uv_is_active((uv_handle_t *)&s->deadline))
		arm_deadline(s, s->timeout_ms * LC_NS_PER_MS);
}

static void
req_land(struct req *r)
{
	struct source *s = r->s;

	r->landed = true;
	TAILQ_REMOVE(&s->flying, r, link);
	TAILQ_INSERT_TAIL(&s->landed, r, link);
	if (TAILQ_EMPTY(&s->flying) && !s->handles_closing)
		(void)uv_timer_stop(&s->deadline);
}

static void
kick(struct source *s)
{
	(void)uv_timer_start(&s->kick, source_on_kick, 0, 0);
}

/* Callbacks of libnbd, with its types: its lock is held. */

static int
on_completion(void *arg, int *error) /* NOLINT(readability-non-const-parameter) */
{
	struct req *r = arg;

	if (!r->landed) {
		r->error = *error;
		req_land(r);
	}
	return 1; /* libnbd forgets the command */
}

static int
on_status(void *arg, const char *context, uint64_t off,
          uint32_t *entries, /* NOLINT(readability-non-const-parameter) */
          size_t n, int *error)
{
	struct req *r = arg;
	bool allocation = strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0;
	struct lc_buf *b = allocation ? &r->allocation : &r->dirty;
	size_t i;

	if (r->landed || (!allocation && strcmp(context, r->s->dirty_context) != 0))
		return 0;
	if (b->n > 0 || off != r->off) { /* once per context, from where it was asked */
		*error = EPROTO;
		return -1;
	}
	for (i = 0; i + 1 < n; i += 2) {
		struct source_extent x = {
		    .off = off,
		    .len = entries[i],
		    .data = allocation ? (entries[i + 1] & LIBNBD_STATE_ZERO) == 0
		                       : (entries[i + 1] & DIRTY_FLAG) != 0,
		};

		if (lc_buf_append(b, &x, sizeof x) != 0) {
			*error = ENOMEM;
			return -1;
		}
		off += x.len;
	}
	return 0;
}

/* From here on libnbd touches no buffer of a request. */
static void
drop_connection(struct source *s)
{
	if (s->nbd == NULL)
		return;
	(void)uv_poll_stop(&s->poll);
	s->poll_events = 0;
	nbd_close(s->nbd);
	(void)shutdown(s->poll_fd, SHUT_RDWR); /* the duplicate must not keep the server waiting */
	s->nbd = NULL;
}

static void
land_all(struct source *s, const struct lc_err *why)
{
	struct req *r;

	while ((r = TAILQ_FIRST(&s->flying)) != NULL) {
		r->err = *why;
		req_land(r);
	}
}

static void
source_break(struct source *s, enum lc_code code, const char *why)
{
	struct req *r;

	if (s->state >= SOURCE_BROKEN)
		return;
	(void)lc_fail(&s->broken, code, 0, "%s: %s", s->name, why);
	s->state = SOURCE_BROKEN;
	/* libnbd ended these itself with a bare "not connected". */
	TAILQ_FOREACH (r, &s->landed, link) {
		if (r->error == ENOTCONN) {
			r->error = 0;
			r->err = s->broken;
		}
	}
	land_all(s, &s->broken); /* before nbd_close(), which would call on_completion for them */
	drop_connection(s);
}

static void
poll_arm(struct source *s)
{
	unsigned dir = nbd_aio_get_direction(s->nbd);
	int events = 0;

	if (dir & LIBNBD_AIO_DIRECTION_READ)
		events |= UV_READABLE;
	if (dir & LIBNBD_AIO_DIRECTION_WRITE)
		events |= UV_WRITABLE;
	if (events == s->poll_events)
		return;
	s->poll_events = events;
	if (events == 0)
		(void)uv_poll_stop(&s->poll);
	else
		(void)uv_poll_start(&s->poll, events, source_on_poll);
}

static bool
is_lost(const struct source *s)
{
	return nbd_aio_is_dead(s->nbd) == 1 || nbd_aio_is_closed(s->nbd) == 1;
}

/* The handshake is over: what was agreed? */
static void
connected(struct source *s)
{
	struct req *r = TAILQ_FIRST(&s->flying);
	int64_t size = nbd_get_size(s->nbd);

	if (size < 0) {
		source_break(s, LC_EPEER, nbd_text());
		return;
	}
	s->size = (uint64_t)size;
	s->have_allocation = nbd_can_meta_context(s->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
	if (s->dirty_context != NULL && nbd_can_meta_context(s->nbd, s->dirty_context) != 1) {
		char why[256];

		(void)snprintf(why, sizeof why, "the export has no \"%s\"", s->dirty_context);
		source_break(s, LC_ENOENT, why);
		return;
	}
	s->state = SOURCE_READY;
	req_land(r);
}

/* After every call into libnbd that may have moved its state machine. */
static void
after_nbd(struct source *s, int rc)
{
	if (rc == -1 || is_lost(s)) {
		enum lc_code code = LC_EPEER;
		char why[256] = "the server closed the connection";

		if (rc == -1) {
			(void)snprintf(why, sizeof why, "%s", nbd_text());
			if (s->state == SOURCE_CONNECTING && nbd_get_errno() == ENOENT)
				code = LC_ENOENT;
		}
		source_break(s, code, why);
		return;
	}
	if (s->state == SOURCE_CONNECTING && nbd_aio_is_ready(s->nbd) == 1)
		connected(s);
	if (s->nbd != NULL)
		poll_arm(s);
}

static void
notify(struct source *s, bool readable, bool writable)
{
	unsigned dir = nbd_aio_get_direction(s->nbd);
	int rc = 0;

	if (readable && (dir & LIBNBD_AIO_DIRECTION_READ))
		rc = nbd_aio_notify_read(s->nbd);
	else if (writable && (dir & LIBNBD_AIO_DIRECTION_WRITE))
		rc = nbd_aio_notify_write(s->nbd);
	after_nbd(s, rc);
}

static void
fail_refused(struct req *r)
{
	const struct source *s = r->s;

	switch (r->kind) {
	case REQ_OPEN:
		(void)lc_fail(&r->err, LC_EPEER, r->error, "%s: negotiation", s->name);
		break;
	case REQ_READ:
		(void)lc_fail(&r->err, LC_EIO, r->error,
		              "%s: read of %" PRIu64 " bytes at offset %" PRIu64, s->name, r->len,
		              r->off);
		break;
	case REQ_EXTENTS:
		(void)lc_fail(&r->err, r->error == ENOMEM ? LC_ENOMEM : LC_EIO, r->error,
		              "%s: block status at offset %" PRIu64, s->name, r->off);
		break;
	}
}

/* The end of what the extents in b say, not after `end`.  A server may tell more than was asked. */
static uint64_t
told_until(const struct req *r, const struct lc_buf *b, uint64_t end)
{
	const struct source_extent *x = (const struct source_extent *)(const void *)b->p;
	size_t n = b->n / sizeof *x;

	if (n == 0)
		return r->off;
	if (x[n - 1].off + x[n - 1].len < end)
		return x[n - 1].off + x[n - 1].len;
	return end;
}

/* The flag of the extent that holds off; *i walks forward. */
static bool
flag_at(const struct lc_buf *b, size_t *i, uint64_t off, uint64_t *until)
{
	const struct source_extent *x = (const struct source_extent *)(const void *)b->p;

	while (x[*i].off + x[*i].len <= off)
		(*i)++;
	if (x[*i].off + x[*i].len < *until)
		*until = x[*i].off + x[*i].len;
	return x[*i].data;
}

static int
append_extent(struct lc_buf *out, const struct source_extent *x)
{
	if (out->n > 0) {
		struct source_extent *last = (struct source_extent *)(void *)(out->p + out->n -
		                                                              sizeof *last);

		if (last->data == x->data && last->zero == x->zero) {
			last->len += x->len;
			return 0;
		}
	}
	return lc_buf_append(out, x, sizeof *x);
}

/* One list of what the two contexts say. */
static int
merge_extents(struct req *r, struct lc_buf *out)
{
	const struct source *s = r->s;
	bool dirty = s->dirty_context != NULL;
	uint64_t end = r->off + r->len, off = r->off;
	size_t ia = 0, id = 0;

	if (s->have_allocation)
		end = told_until(r, &r->allocation, end);
	if (dirty)
		end = told_until(r, &r->dirty, end);
	while (off < end) {
		struct source_extent x = {.off = off, .data = true};
		uint64_t until = end;

		if (s->have_allocation) {
			x.data = flag_at(&r->allocation, &ia, off, &until);
			x.zero = !x.data;
		}
		if (dirty)
			x.data = flag_at(&r->dirty, &id, off, &until);
		x.len = until - off;
		if (append_extent(out, &x) != 0)
			return lc_fail(&r->err, LC_ENOMEM, 0, "%s: out of memory", s->name);
		off = until;
	}
	if (out->n == 0)
		return lc_fail(&r->err, LC_EPEER, 0, "%s: empty block status at offset %" PRIu64,
		               s->name, r->off);
	return 0;
}

static void
deliver_one(struct req *r)
{
	struct lc_buf x = {0};

	if (r->err.code == LC_OK && r->error != 0)
		fail_refused(r);
	if (r->kind == REQ_EXTENTS) {
		if (r->err.code == LC_OK && merge_extents(r, &x) != 0)
			x.n = 0;
		r->on_extents(r->arg, (const struct source_extent *)(const void *)x.p,
		              x.n / sizeof(struct source_extent), &r->err);
		lc_buf_free(&x);
	} else {
		r->done(r->arg, &r->err);
	}
	req_free(r);
}

static void
on_handle_closed(uv_handle_t *h)
{
	struct source *s = h->data;
	void (*closed)(void *arg) = s->closed;
	void *arg = s->closed_arg;

	if (--s->handles > 0)
		return;
	fd_close(&s->poll_fd);
	lc_free(s->name);
	lc_free(s->dirty_context);
	lc_free(s);
	if (closed != NULL)
		closed(arg);
}

/* The last thing that a callback of the loop does: s may be gone afterwards. */
static void
deliver(struct source *s)
{
	struct req *r;

	while ((r = TAILQ_FIRST(&s->landed)) != NULL) {
		TAILQ_REMOVE(&s->landed, r, link);
		deliver_one(r);
	}
	if (s->state == SOURCE_CLOSING && !s->handles_closing) {
		s->handles_closing = true;
		uv_close((uv_handle_t *)&s->poll, on_handle_closed);
		uv_close((uv_handle_t *)&s->deadline, on_handle_closed);
		uv_close((uv_handle_t *)&s->kick, on_handle_closed);
	}
}

static void
source_on_poll(uv_poll_t *h, int status, int events)
{
	struct source *s = h->data;

	if (status < 0)
		source_break(s, LC_EPEER, uv_strerror(status));
	else
		notify(s, (events & UV_READABLE) != 0, (events & UV_WRITABLE) != 0);
	deliver(s);
}

static void
source_on_kick(uv_timer_t *h)
{
	deliver(h->data);
}

/*
 * A loop that was held up runs its timers before it looks at its sockets, where the answers may
 * wait.  So the time for which it was held up is not counted against the server, and as much again
 * is given to read them.
 */
static void
source_on_deadline(uv_timer_t *h)
{
	struct source *s = h->data;
	int64_t now_ns = clock_mono_ns(), late_ns = now_ns - s->due_ns;
	struct req *r;

	if (late_ns > LATE_NS) {
		TAILQ_FOREACH (r, &s->flying, link)
			r->deadline_ns += 2 * late_ns;
	}
	r = TAILQ_FIRST(&s->flying);
	if (r != NULL && r->deadline_ns <= now_ns) {
		char why[96];

		(void)snprintf(why, sizeof why, "no answer from the server within %" PRId64 " ms",
		               s->timeout_ms);
		source_break(s, LC_ETIMEDOUT, why);
	} else if (r != NULL) {
		arm_deadline(s, r->deadline_ns - now_ns);
	}
	deliver(s);
}

static void
free_unopened(struct source *s)
{
	if (s->nbd != NULL)
		nbd_close(s->nbd);
	fd_close(&s->poll_fd);
	lc_free(s->name);
	lc_free(s->dirty_context);
	lc_free(s);
}

static int
setup(struct source *s, const struct source_opts *o, struct lc_err *e)
{
	enum lc_code code = LC_EPEER;
	int rc;

	s->nbd = nbd_create();
	if (s->nbd == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: %s", s->name, nbd_text());
	if (nbd_set_export_name(s->nbd, o->export_name == NULL ? "" : o->export_name) == -1 ||
	    nbd_add_meta_context(s->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1 ||
	    (s->dirty_context != NULL && nbd_add_meta_context(s->nbd, s->dirty_context) == -1))
		return lc_fail(e, LC_EINVAL, 0, "%s: %s", s->name, nbd_text());
	rc = nbd_aio_connect_unix(s->nbd, o->socket);
	if (rc == -1 || is_lost(s)) {
		if (rc == -1 && nbd_get_errno() == ENOENT)
			code = LC_ENOENT;
		return lc_fail(e, code, 0, "%s: connect to %s: %s", s->name, o->socket,
		               rc == -1 ? nbd_text() : "refused");
	}
	s->poll_fd = fcntl(nbd_aio_get_fd(s->nbd), F_DUPFD_CLOEXEC, 0);
	if (s->poll_fd == -1)
		return lc_fail_errno(e, "%s: descriptor", s->name);
	rc = uv_poll_init(s->loop, &s->poll, s->poll_fd);
	if (rc != 0)
		return lc_fail(e, LC_EIO, 0, "%s: %s", s->name, uv_strerror(rc));
	(void)uv_timer_init(s->loop, &s->deadline);
	(void)uv_timer_init(s->loop, &s->kick);
	s->poll.data = s->deadline.data = s->kick.data = s;
	s->handles = 3;
	return 0;
}

static int
open_socket(struct uv_loop_s *loop, const struct source_opts *opts, source_done_cb *done, void *arg,
            struct source **out, struct lc_err *e)
{
	bool dirty = opts->dirty_context != NULL && *opts->dirty_context != '\0';
	struct source *s = lc_alloc(sizeof *s);
	struct req *r;
	int rc;

	*out = NULL;
	if (s == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", opts->name);
	s->loop = loop;
	s->poll_fd = -1;
	s->timeout_ms = opts->timeout_ms > 0 ? opts->timeout_ms : DEFAULT_TIMEOUT_MS;
	TAILQ_INIT(&s->flying);
	TAILQ_INIT(&s->landed);
	s->name = lc_strdup(opts->name);
	s->dirty_context = dirty ? lc_strdup(opts->dirty_context) : NULL;
	r = req_new(s, REQ_OPEN, arg);
	if (s->name == NULL || (dirty && s->dirty_context == NULL) || r == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", opts->name);
	else
		rc = setup(s, opts, e);
	if (rc != 0) {
		lc_free(r);
		free_unopened(s);
		return rc;
	}
	r->done = done;
	req_fly(r);
	poll_arm(s);
	*out = s;
	return 0;
}

static void
on_file_closed(void *arg)
{
	struct source *s = arg;

	if (s->closed != NULL)
		s->closed(s->closed_arg);
	lc_free(s);
}

static int
open_file(struct uv_loop_s *loop, const struct source_opts *opts, source_done_cb *done, void *arg,
          struct source **out, struct lc_err *e)
{
	struct source *s = lc_alloc(sizeof *s);
	int rc;

	*out = NULL;
	if (s == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", opts->name);
	s->size = opts->file->size;
	rc = source_file_open(loop, opts, done, arg, &s->file, e);
	if (rc != 0)
		lc_free(s);
	else
		*out = s;
	return rc;
}

int
source_open(struct uv_loop_s *loop, const struct source_opts *opts, source_done_cb *done, void *arg,
            struct source **out, struct lc_err *e)
{
	if (opts->file != NULL)
		return open_file(loop, opts, done, arg, out, e);
	return open_socket(loop, opts, done, arg, out, e);
}
uint64_t
source_size(const struct source *s)
{
	return s->size;
}

static int
check_usable(const struct source *s, struct lc_err *e)
{
	switch (s->state) {
	case SOURCE_READY:
		return 0;
	case SOURCE_BROKEN:
		return lc_fail(e, s->broken.code, 0, "%s", s->broken.msg);
	case SOURCE_CONNECTING:
	case SOURCE_CLOSING:
		break;
	}
	return lc_fail(e, LC_EINVAL, 0, "%s: not open", s->name);
}

static int
check_range(const struct source *s, uint64_t off, uint64_t len, struct lc_err *e)
{
	if (len == 0 || off > s->size || len > s->size - off) {
		return lc_fail(e, LC_EINVAL, 0,
		               "%s: %" PRIu64 " bytes at offset %" PRIu64 " of a disk of %" PRIu64,
		               s->name, len, off, s->size);
	}
	return 0;
}

/* A command was handed to libnbd, which may have met the end of the connection in doing so. */
static int
started(struct req *r, int64_t cookie, struct lc_err *e)
{
	struct source *s = r->s;

	if (cookie == -1 && !r->landed) {
		(void)lc_fail(e, LC_EINVAL, 0, "%s: %s", s->name, nbd_text());
		TAILQ_REMOVE(&s->flying, r, link);
		req_free(r);
		return LC_EINVAL;
	}
	after_nbd(s, 0);
	if (!TAILQ_EMPTY(&s->landed))
		kick(s);
	return 0;
}

int
source_read(struct source *s, void *p, uint32_t n, uint64_t off, source_done_cb *done, void *arg,
            struct lc_err *e)
{
	struct req *r;
	int rc;

	if (s->file != NULL)
		return source_file_read(s->file, p, n, off, done, arg, e);
	rc = check_usable(s, e);
	if (rc == 0)
		rc = check_range(s, off, n, e);
	if (rc == 0 && n > SOURCE_READ_MAX)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: read of %" PRIu32 " bytes", s->name, n);
	if (rc != 0)
		return rc;
	r = req_new(s, REQ_READ, arg);
	if (r == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->name);
	r->done = done;
	r->off = off;
	r->len = n;
	req_fly(r);
	return started(
	    r,
	    nbd_aio_pread(s->nbd, p, n, off,
	                  (nbd_completion_callback){.callback = on_completion, .user_data = r}, 0),
	    e);
}

int
source_extents(struct source *s, uint64_t off, uint64_t len, source_extents_cb *cb, void *arg,
               struct lc_err *e)
{
	struct req *r;
	int rc;

	if (s->file != NULL)
		return source_file_extents(s->file, off, len, cb, arg, e);
	rc = check_usable(s, e);
	if (rc == 0)
		rc = check_range(s, off, len, e);
	if (rc != 0)
		return rc;
	r = req_new(s, REQ_EXTENTS, arg);
	if (r == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->name);
	r->on_extents = cb;
	r->off = off;
	r->len = len < STATUS_MAX ? len : STATUS_MAX;
	req_fly(r);
	if (!s->have_allocation && s->dirty_context == NULL) { /* A server that can't tell. */
		req_land(r);
		kick(s);
		return 0;
	}
	return started(r,
	               nbd_aio_block_status(
			   s->nbd, r->len, off,
			   (nbd_extent_callback){.callback = on_status, .user_data = r},
			   (nbd_completion_callback){.callback = on_completion, .user_data = r}, 0),
	               e);
}

void
source_close(struct source *s, void (*closed)(void *arg), void *arg)
{
	struct lc_err why = LC_ERR_INIT;

	s->closed = closed;
	s->closed_arg = arg;
	if (s->file != NULL) {
		source_file_close(s->file, on_file_closed, s);
		return;
	}
	(void)lc_fail(&why, LC_ECANCELED, 0, "%s: closed", s->name);
	land_all(s, &why);
	/* A goodbye, so that the server need not log a cut.  One non-blocking write, lost if it
	 * does not fit. */
	if (s->state == SOURCE_READY)
		(void)nbd_aio_disconnect(s->nbd, 0);
	s->state = SOURCE_CLOSING;
	drop_connection(s);
	kick(s);
}

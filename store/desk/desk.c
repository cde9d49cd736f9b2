/*
 * An asker: IDLE ──► WORKING: a job is with the thread ──► IDLE ──► ..
 *             │ 60 s, not understood     └──► LENT: until it hangs up
 *             └──► CLOSED
 *
 * A job outlives an asker that hangs up.
 */
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/workers.h"
#include "store/desk/chore.h"
#include "store/desk/desk.h"

#define ASKERS_MAX 16u
#define BACKLOG 16
#define IDLE_NS (60 * LC_NS_PER_S)
#define UNREAD_MAX ((size_t)64 << 10) /* who reads nothing has to go */

struct job {
	struct work work; /* first */
	TAILQ_ENTRY(job) entry;
	struct desk *desk;
	struct asker *asker; /* the loop's; NULL: it has hung up */
	atomic_bool gone;    /* likewise, for the thread */
	bool back;           /* no chore: what was lent comes back */
	struct chore chore;
	uint64_t condemned;
	struct lc_err err;
};

TAILQ_HEAD(job_list, job);

enum asker_state { ASKER_IDLE = 0, ASKER_WORKING, ASKER_LENT, ASKER_CLOSED };

struct asker {
	TAILQ_ENTRY(asker) entry;
	struct desk *desk;
	enum asker_state state;
	uv_pipe_t pipe;
	int64_t since_ns; /* of the state */
	struct lc_buf in;
	struct job *job;
};

struct desk {
	struct uv_loop_s *loop;
	struct desk_owner owner;
	char *path;
	struct workers *thread;
	uv_pipe_t listener;
	uv_timer_t timer;
	uv_async_t async;
	unsigned handles, njobs, naskers;
	TAILQ_HEAD(, asker) askers;
	bool closing;
	void (*closed)(void *arg);
	void *arg;
	struct job *spare; /* the one that brings back what was lent: that must not fail */

	pthread_mutex_t lock;
	struct job_list done; /* under it */
};

/* ---- the thread ---- */

static int
work_on(struct job *j, struct lc_err *e)
{
	const struct desk_owner *o = &j->desk->owner;
	struct store *s;
	int rc;

	if (atomic_load(&j->gone))
		return lc_fail(e, LC_ECANCELED, 0, "canceled");
	if (j->chore.verb == CHORE_LEND)
		return o->lend(o->arg, j->chore.store, j->chore.who, e);
	rc = o->take(o->arg, j->chore.store, &s, e);
	if (rc != 0)
		return rc;
	rc = chore_do(&j->chore, s, &j->condemned, e);
	o->give(o->arg, s);
	return rc;
}

static void
run(struct work *w, unsigned worker)
{
	struct job *j = (struct job *)(void *)w;
	struct desk *d = j->desk;

	(void)worker;
	if (j->back)
		d->owner.back(d->owner.arg);
	else
		(void)work_on(j, &j->err);
	(void)pthread_mutex_lock(&d->lock);
	TAILQ_INSERT_TAIL(&d->done, j, entry);
	(void)uv_async_send(&d->async); /* under the lock: then it is still there */
	(void)pthread_mutex_unlock(&d->lock);
}

static void
submit(struct desk *d, struct job *j)
{
	j->work.run = run;
	j->desk = d;
	d->njobs++;
	workers_submit(d->thread, &j->work);
}

static void
bring_back(struct desk *d)
{
	struct job *j = d->spare;

	d->spare = NULL;
	j->back = true;
	submit(d, j);
}

/* ---- saying ---- */

struct line {
	uv_write_t req; /* first */
	char *text;
};

static void
on_written(uv_write_t *w, int status)
{
	struct line *l = (struct line *)(void *)w;

	(void)status; /* reading tells that it is gone */
	lc_free(l->text);
	lc_free(l);
}

/* Takes o. */
static void
say(struct asker *a, json_t *o)
{
	char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);
	struct line *l = lc_alloc(sizeof *l);
	uv_buf_t buf;

	json_decref(o);
	if (l != NULL && text != NULL)
		l->text = lc_asprintf("%s\n", text);
	free(text);
	if (a->state == ASKER_CLOSED || l == NULL || l->text == NULL) {
		if (l != NULL)
			lc_free(l->text);
		lc_free(l);
		return;
	}
	buf = uv_buf_init(l->text, (unsigned)strlen(l->text));
	if (uv_write(&l->req, (uv_stream_t *)&a->pipe, &buf, 1, on_written) != 0)
		on_written(&l->req, 0);
}

static void
answer(struct asker *a, uint64_t done, const struct lc_err *err)
{
	if (err->code != LC_OK)
		say(a, json_pack("{s:s, s:i}", "failed", err->msg, "code", (int)err->code));
	else
		say(a, json_pack("{s:I}", "done", (json_int_t)done));
}

static void
enter(struct asker *a, enum asker_state state)
{
	a->state = state;
	a->since_ns = clock_mono_ns();
}

/* ---- the end ---- */

static void
free_desk(struct desk *d)
{
	workers_free(d->thread);
	(void)pthread_mutex_destroy(&d->lock);
	lc_free(d->spare);
	lc_free(d->path);
	if (d->closed != NULL)
		d->closed(d->arg);
	lc_free(d);
}

static void
on_closed(uv_handle_t *h)
{
	struct desk *d = h->data;

	if (--d->handles == 0)
		free_desk(d);
}

static void
go_on_closing(struct desk *d)
{
	if (d->closing && d->njobs == 0 && d->naskers == 0 &&
	    uv_is_closing((uv_handle_t *)&d->async) == 0)
		uv_close((uv_handle_t *)&d->async, on_closed);
}

static void
on_asker_closed(uv_handle_t *h)
{
	struct asker *a = h->data;
	struct desk *d = a->desk;

	TAILQ_REMOVE(&d->askers, a, entry);
	d->naskers--;
	lc_buf_free(&a->in);
	lc_free(a);
	go_on_closing(d);
}

static void
close_asker(struct asker *a)
{
	if (a->state == ASKER_CLOSED)
		return;
	if (a->state == ASKER_LENT)
		bring_back(a->desk);
	if (a->job != NULL) {
		atomic_store(&a->job->gone, true);
		a->job->asker = NULL;
		a->job = NULL;
	}
	a->state = ASKER_CLOSED;
	uv_close((uv_handle_t *)&a->pipe, on_asker_closed);
}

/* ---- requests ---- */

static void take_lines(struct asker *a);

static void
end_job(struct job *j)
{
	struct desk *d = j->desk;
	struct asker *a = j->asker;
	bool lent = !j->back && j->chore.verb == CHORE_LEND && j->err.code == LC_OK;

	d->njobs--;
	if (j->back) {
		d->spare = j;
		*j = (struct job){0};
		return;
	}
	if (a != NULL) {
		a->job = NULL;
		enter(a, lent ? ASKER_LENT : ASKER_IDLE);
		answer(a, j->condemned, &j->err);
	} else if (lent) {
		bring_back(d);
	}
	chore_done(&j->chore);
	lc_free(j);
	if (a != NULL)
		take_lines(a);
}

static void
on_async(uv_async_t *h)
{
	struct desk *d = h->data;
	struct job *j;

	for (;;) {
		(void)pthread_mutex_lock(&d->lock);
		j = TAILQ_FIRST(&d->done);
		if (j != NULL)
			TAILQ_REMOVE(&d->done, j, entry);
		(void)pthread_mutex_unlock(&d->lock);
		if (j == NULL)
			break;
		end_job(j);
	}
	go_on_closing(d);
}

static void
take_line(struct asker *a, const char *p, size_t n)
{
	struct job *j = lc_alloc(sizeof *j);

	if (j == NULL) {
		close_asker(a);
	} else if (chore_decode(p, n, &j->chore, &j->err) != 0) {
		answer(a, 0, &j->err);
		chore_done(&j->chore);
		lc_free(j);
	} else {
		log_info("%s asks to %s", j->chore.who,
		         j->chore.verb == CHORE_LEND   ? "have the store for a while"
		         : j->chore.verb == CHORE_DROP ? "drop a restore point"
		                                       : "note damage");
		j->asker = a;
		a->job = j;
		enter(a, ASKER_WORKING);
		submit(a->desk, j);
	}
}

/* As far as they can be done now. */
static void
take_lines(struct asker *a)
{
	const uint8_t *end;

	while (a->state == ASKER_IDLE && a->in.n > 0 &&
	       (end = memchr(a->in.p, '\n', a->in.n)) != NULL) {
		size_t used = (size_t)(end - a->in.p) + 1;

		take_line(a, (const char *)a->in.p, used - 1);
		memmove(a->in.p, a->in.p + used, a->in.n - used);
		a->in.n -= used;
	}
	if (a->in.n > DESK_LINE_MAX)
		close_asker(a);
}

static void
on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	static char room[4096];

	(void)h;
	(void)suggested;
	*buf = uv_buf_init(room, sizeof room);
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct asker *a = stream->data;

	if (n < 0 || (n > 0 && lc_buf_append(&a->in, buf->base, (size_t)n) != 0))
		close_asker(a);
	else
		take_lines(a);
}

/* Root, or who runs the owner. */
static bool
may_ask(const uv_pipe_t *pipe)
{
	struct ucred who;
	socklen_t n = sizeof who;
	uv_os_fd_t fd;

	return uv_fileno((const uv_handle_t *)pipe, &fd) == 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 &&
	       (who.uid == 0 || who.uid == geteuid());
}

static void
on_connection(uv_stream_t *stream, int status)
{
	struct desk *d = stream->data;
	struct asker *a = status == 0 ? lc_alloc(sizeof *a) : NULL;

	if (a == NULL)
		return;
	a->desk = d;
	enter(a, ASKER_IDLE);
	(void)uv_pipe_init(d->loop, &a->pipe, 0);
	a->pipe.data = a;
	TAILQ_INSERT_TAIL(&d->askers, a, entry);
	d->naskers++;
	if (uv_accept(stream, (uv_stream_t *)&a->pipe) != 0 || !may_ask(&a->pipe) ||
	    d->naskers > ASKERS_MAX ||
	    uv_read_start((uv_stream_t *)&a->pipe, on_alloc, on_read) != 0)
		close_asker(a);
}

static void
on_timer(uv_timer_t *t)
{
	struct desk *d = t->data;
	struct asker *a, *next;
	int64_t now = clock_mono_ns();

	for (a = TAILQ_FIRST(&d->askers); a != NULL; a = next) {
		next = TAILQ_NEXT(a, entry);
		if ((a->state == ASKER_IDLE && now - a->since_ns > IDLE_NS) ||
		    uv_stream_get_write_queue_size((uv_stream_t *)&a->pipe) > UNREAD_MAX)
			close_asker(a);
		else if (a->state == ASKER_WORKING)
			say(a, json_pack("{s:b}", "working", 1));
	}
}

/* ---- open, close ---- */

static bool
somebody_listens(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes = false;

	if (fd >= 0 && strlen(path) < sizeof a.sun_path) {
		memcpy(a.sun_path, path, strlen(path) + 1);
		yes = connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a) == 0 ||
		      errno == EAGAIN;
	}
	fd_close(&fd);
	return yes;
}

static int
listen_there(struct desk *d, struct lc_err *e)
{
	int urc;

	if (strlen(d->path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
		return lc_fail(e, LC_EINVAL, 0, "%s: too long for the name of a socket", d->path);
	if (somebody_listens(d->path))
		return lc_fail(e, LC_EBUSY, 0, "%s: somebody else listens there", d->path);
	(void)unlink(d->path); /* of one that was killed */
	urc = uv_pipe_bind(&d->listener, d->path);
	if (urc == 0 && chmod(d->path, 0600) != 0)
		return lc_fail_errno(e, "%s", d->path);
	urc = urc != 0 ? urc : uv_listen((uv_stream_t *)&d->listener, BACKLOG, on_connection);
	return urc == 0 ? 0 : lc_fail(e, LC_EIO, 0, "%s: %s", d->path, uv_strerror(urc));
}

int
desk_open(const struct desk_opts *o, struct desk **out, struct lc_err *e)
{
	struct desk *d = lc_alloc(sizeof *d);
	int rc;

	if (d == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	d->path = lc_strdup(o->path);
	d->spare = lc_alloc(sizeof *d->spare);
	rc = d->path == NULL || d->spare == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                                         : workers_new(1, &d->thread, e);
	if (rc != 0) {
		lc_free(d->path);
		lc_free(d->spare);
		lc_free(d);
		return rc;
	}
	d->loop = o->loop;
	d->owner = o->owner;
	(void)signal(SIGPIPE, SIG_IGN); /* NOLINT(cert-err33-c): who has left is no reason to end */
	TAILQ_INIT(&d->askers);
	TAILQ_INIT(&d->done);
	(void)pthread_mutex_init(&d->lock, NULL);
	(void)uv_pipe_init(o->loop, &d->listener, 0);
	(void)uv_timer_init(o->loop, &d->timer);
	(void)uv_async_init(o->loop, &d->async, on_async);
	d->handles = 3;
	d->listener.data = d->timer.data = d->async.data = d;
	rc = listen_there(d, e);
	if (rc != 0) {
		lc_free(d->path); /* it is another one's */
		d->path = NULL;
		desk_close(d, NULL, NULL);
		return rc;
	}
	(void)uv_timer_start(&d->timer, on_timer, DESK_WORKING_MS, DESK_WORKING_MS);
	*out = d;
	return 0;
}

void
desk_close(struct desk *d, void (*closed)(void *arg), void *arg)
{
	struct asker *a, *next;

	if (d == NULL) {
		if (closed != NULL)
			closed(arg);
		return;
	}
	d->closing = true;
	d->closed = closed;
	d->arg = arg;
	if (d->path != NULL)
		(void)unlink(d->path);
	uv_close((uv_handle_t *)&d->listener, on_closed);
	uv_close((uv_handle_t *)&d->timer, on_closed);
	for (a = TAILQ_FIRST(&d->askers); a != NULL; a = next) {
		next = TAILQ_NEXT(a, entry);
		close_asker(a);
	}
	go_on_closing(d);
}

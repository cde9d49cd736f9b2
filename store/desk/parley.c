/*
 * A parley: OPEN ──► ENDING: what was said goes out ──► CLOSED ──► (freed)
 *             └─────────────────────────────────────────►
 */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "store/base/memory.h"
#include "store/base/unixsock.h"
#include "store/desk/parley.h"

#define BACKLOG 16
#define ROOM 4096u

enum parley_state { PARLEY_OPEN = 0, PARLEY_ENDING, PARLEY_CLOSED };

struct parley {
	TAILQ_ENTRY(parley) entry;
	struct parleys *x;
	enum parley_state state;
	bool held;
	uv_pipe_t pipe;
	uv_shutdown_t shutdown;
	struct lc_buf in;
	void *mine; /* NULL: nobody knows of it */
};

struct parleys {
	struct parleys_opts o;
	char *path; /* NULL: it is another one's */
	uv_pipe_t listener;
	uv_timer_t timer;
	unsigned handles, n;
	TAILQ_HEAD(, parley) list;
	bool closing;
	void (*closed)(void *arg);
	void *arg;
	char room[ROOM];
};

/* ---- saying ---- */

struct said {
	uv_write_t req; /* first */
	char *text;
};

static void
on_written(uv_write_t *w, int status)
{
	struct said *l = (struct said *)(void *)w;

	(void)status; /* reading tells that it is gone */
	lc_free(l->text);
	lc_free(l);
}

json_t *
parley_text(const char *text)
{
	json_t *t = json_string(text);
	char ascii[1024];
	size_t i;

	if (t != NULL)
		return t;
	(void)snprintf(ascii, sizeof ascii, "%s", text);
	for (i = 0; ascii[i] != '\0'; i++) {
		if ((unsigned char)ascii[i] >= 0x80)
			ascii[i] = '?';
	}
	return json_string(ascii);
}

void
parley_say(struct parley *t, json_t *o)
{
	char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);
	struct said *l = lc_alloc(sizeof *l);
	uv_buf_t buf;

	json_decref(o);
	if (l != NULL && text != NULL)
		l->text = lc_asprintf("%s\n", text);
	free(text);
	if (t->state == PARLEY_CLOSED || l == NULL || l->text == NULL) {
		if (l != NULL)
			lc_free(l->text);
		lc_free(l);
		return;
	}
	buf = uv_buf_init(l->text, (unsigned)strlen(l->text));
	if (uv_write(&l->req, (uv_stream_t *)&t->pipe, &buf, 1, on_written) != 0)
		on_written(&l->req, 0);
}

size_t
parley_unread(const struct parley *t)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&t->pipe);
}

/* ---- the end of one, and of all ---- */

static void
free_if_over(struct parleys *x)
{
	if (!x->closing || x->handles > 0 || x->n > 0)
		return;
	if (x->closed != NULL)
		x->closed(x->arg);
	lc_free(x->path);
	lc_free(x);
}

static void
on_parley_closed(uv_handle_t *h)
{
	struct parley *t = h->data;
	struct parleys *x = t->x;

	TAILQ_REMOVE(&x->list, t, entry);
	x->n--;
	if (t->mine != NULL)
		x->o.events.gone(t->mine);
	lc_buf_free(&t->in);
	lc_free(t);
	free_if_over(x);
}

void
parley_close(struct parley *t)
{
	if (t->state == PARLEY_CLOSED)
		return;
	t->state = PARLEY_CLOSED;
	uv_close((uv_handle_t *)&t->pipe, on_parley_closed);
	if (t->mine != NULL)
		t->x->o.events.left(t->mine);
}

static void
on_shutdown(uv_shutdown_t *req, int status)
{
	(void)status;
	parley_close(req->data);
}

void
parley_end(struct parley *t)
{
	if (t->state != PARLEY_OPEN)
		return;
	t->state = PARLEY_ENDING;
	t->shutdown.data = t;
	if (uv_shutdown(&t->shutdown, (uv_stream_t *)&t->pipe, on_shutdown) != 0)
		parley_close(t);
}

static void
on_closed(uv_handle_t *h)
{
	struct parleys *x = h->data;

	x->handles--;
	free_if_over(x);
}

void
parleys_close(struct parleys *x, void (*closed)(void *arg), void *arg)
{
	struct parley *t;

	x->closing = true;
	x->closed = closed;
	x->arg = arg;
	if (x->path != NULL)
		(void)unlink(x->path);
	uv_close((uv_handle_t *)&x->listener, on_closed);
	uv_close((uv_handle_t *)&x->timer, on_closed);
	TAILQ_FOREACH (t, &x->list, entry)
		parley_close(t);
}

/* ---- hearing ---- */

/* As far as they are wanted now. */
static void
take_lines(struct parley *t)
{
	const uint8_t *end;

	while (!t->held && t->in.n > 0 && (end = memchr(t->in.p, '\n', t->in.n)) != NULL) {
		size_t used = (size_t)(end - t->in.p) + 1;

		if (t->state == PARLEY_OPEN)
			t->x->o.events.line(t->mine, (const char *)t->in.p, used - 1);
		memmove(t->in.p, t->in.p + used, t->in.n - used);
		t->in.n -= used;
	}
	if (t->in.n > t->x->o.line_max)
		parley_close(t);
}

void
parley_hold(struct parley *t)
{
	t->held = true;
}

void
parley_resume(struct parley *t)
{
	t->held = false;
	take_lines(t);
}

static void
on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	struct parley *t = h->data;

	(void)suggested;
	*buf = uv_buf_init(t->x->room, ROOM);
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct parley *t = stream->data;

	if (n < 0 || (n > 0 && lc_buf_append(&t->in, buf->base, (size_t)n) != 0))
		parley_close(t);
	else
		take_lines(t);
}

void
parley_own(struct parley *t, void *mine)
{
	t->mine = mine;
}

/* Root, or who runs us. */
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
	struct parleys *x = stream->data;
	struct parley *t = status == 0 ? lc_alloc(sizeof *t) : NULL;

	if (t == NULL)
		return;
	t->x = x;
	(void)uv_pipe_init(x->o.loop, &t->pipe, 0);
	t->pipe.data = t;
	TAILQ_INSERT_TAIL(&x->list, t, entry);
	x->n++;
	if (uv_accept(stream, (uv_stream_t *)&t->pipe) == 0 && may_ask(&t->pipe))
		x->o.events.came(x->o.arg, t);
	if (t->mine == NULL || (t->state != PARLEY_CLOSED &&
	                        uv_read_start((uv_stream_t *)&t->pipe, on_alloc, on_read) != 0))
		parley_close(t);
}

static void
on_timer(uv_timer_t *h)
{
	struct parleys *x = h->data;
	struct parley *t;

	TAILQ_FOREACH (t, &x->list, entry) {
		if (t->state != PARLEY_CLOSED && parley_unread(t) > x->o.unread_max)
			parley_close(t);
		else if (t->state != PARLEY_CLOSED)
			x->o.events.tick(t->mine);
	}
}

/* ---- begin ---- */

static int
listen_there(struct parleys *x, const char *path, struct lc_err *e)
{
	int urc;

	if (strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
		return lc_fail(e, LC_EINVAL, 0, "%s: too long for the name of a socket", path);
	if (unixsock_listens(path))
		return lc_fail(e, LC_EBUSY, 0, "%s: somebody else listens there", path);
	(void)unlink(path); /* of one that was killed */
	urc = uv_pipe_bind(&x->listener, path);
	if (urc == 0 && chmod(path, 0600) != 0)
		return lc_fail_errno(e, "%s", path);
	urc = urc != 0 ? urc : uv_listen((uv_stream_t *)&x->listener, BACKLOG, on_connection);
	return urc == 0 ? 0 : lc_fail(e, LC_EIO, 0, "%s: %s", path, uv_strerror(urc));
}

int
parleys_open(const struct parleys_opts *o, struct parleys **out, struct lc_err *e)
{
	struct parleys *x = lc_alloc(sizeof *x);
	char *path = lc_strdup(o->path);
	int rc;

	if (x == NULL || path == NULL) {
		lc_free(x);
		lc_free(path);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	x->o = *o;
	x->o.path = NULL;               /* borrowed */
	(void)signal(SIGPIPE, SIG_IGN); /* NOLINT(cert-err33-c): who has left is no reason to end */
	TAILQ_INIT(&x->list);
	(void)uv_pipe_init(o->loop, &x->listener, 0);
	(void)uv_timer_init(o->loop, &x->timer);
	x->handles = 2;
	x->listener.data = x->timer.data = x;
	rc = listen_there(x, path, e);
	if (rc != 0) {
		lc_free(path);
		parleys_close(x, NULL, NULL);
		return rc;
	}
	x->path = path;
	(void)uv_timer_start(&x->timer, on_timer, o->tick_ms, o->tick_ms);
	*out = x;
	return 0;
}

unsigned
parleys_count(const struct parleys *x)
{
	return x->n;
}

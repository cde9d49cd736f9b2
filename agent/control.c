/*
 * An asker: (connected) ─► request ─► BACKING_UP ─► SENDING (where it named replicas) ─► ENDING
 *                 │ 10 s, or not understood                                              │ all is
 *                 └────────────────────────────► ENDING: last words, then it is closed ◄─┘ written
 */
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "agent/backup.h"
#include "agent/control.h"
#include "agent/protect.h"
#include "agent/result.h"
#include "agent/sites.h"
#include "agent/target.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/base/memory.h"

#define ASKERS_MAX 16u
#define VMS_MAX 1024u
#define REPLICAS_MAX 16u
#define PATIENCE_NS (10 * LC_NS_PER_S) /* until the request has come */
#define TICK_MS 200
#define BACKLOG 16
#define UNWRITTEN_MAX ((size_t)1 << 20) /* progress is left out over this ... */
#define UNREAD_MAX ((size_t)2 << 20)    /* ... and over that he has to go */

enum asker_state { ASKER_NEW = 0, ASKER_BACKING_UP, ASKER_SENDING, ASKER_ENDING, ASKER_CLOSED };

struct wanted { /* a VM of a request */
	struct protect_ask ask;
	struct asker *asker;
	char *vm;
	bool over;
	int64_t instant_ns; /* of the point that was made, or still holds; 0: it failed */
};

struct asker {
	TAILQ_ENTRY(asker) entry;
	struct control *c;
	enum asker_state state;
	uv_pipe_t pipe;
	uv_shutdown_t shutdown;
	int64_t since_ns;
	struct lc_buf in;
	struct wanted *vms; /* [nvms] */
	size_t nvms, open;  /* open: that are not over */
	char *to[REPLICAS_MAX];
	bool told[REPLICAS_MAX]; /* it has everything, or will not */
	size_t nto;
	bool canceled;
};

struct control {
	struct uv_loop_s *loop;
	struct protect *protect; /* NULL: it is being exchanged */
	char *path, *store;
	uv_pipe_t listener;
	uv_timer_t timer;
	unsigned handles;
	bool stopping;
	TAILQ_HEAD(, asker) askers;
	unsigned naskers;
};

/* ---- saying ---- */

struct line {
	uv_write_t req;
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

/* o is given. */
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

static size_t
unwritten(const struct asker *a)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&a->pipe);
}

/* ---- the end of one ---- */

static void
free_if_over(struct control *c)
{
	if (!c->stopping || c->handles > 0 || c->naskers > 0)
		return;
	lc_free(c->path);
	lc_free(c->store);
	lc_free(c);
}

static void
on_asker_closed(uv_handle_t *h)
{
	struct asker *a = h->data;
	struct control *c = a->c;
	size_t i;

	TAILQ_REMOVE(&c->askers, a, entry);
	c->naskers--;
	for (i = 0; i < a->nvms; i++)
		lc_free(a->vms[i].vm);
	lc_free(a->vms);
	for (i = 0; i < a->nto; i++)
		lc_free(a->to[i]);
	lc_buf_free(&a->in);
	lc_free(a);
	free_if_over(c);
}

static void
close_asker(struct asker *a)
{
	size_t i;

	if (a->state == ASKER_CLOSED)
		return;
	for (i = 0; i < a->nvms; i++)
		protect_unask(&a->vms[i].ask);
	a->state = ASKER_CLOSED;
	uv_close((uv_handle_t *)&a->pipe, on_asker_closed);
}

static void
on_shutdown(uv_shutdown_t *req, int status)
{
	(void)status;
	close_asker(req->data);
}

static void
end_asker(struct asker *a)
{
	if (a->state == ASKER_ENDING || a->state == ASKER_CLOSED)
		return;
	a->state = ASKER_ENDING;
	a->since_ns = clock_mono_ns();
	a->shutdown.data = a;
	if (uv_shutdown(&a->shutdown, (uv_stream_t *)&a->pipe, on_shutdown) != 0)
		close_asker(a);
}

static void
refuse(struct asker *a, enum lc_code code, const char *text)
{
	say(a, json_pack("{s:s, s:i}", "refused", text, "code", (int)code));
	end_asker(a);
}

/* ---- on to the replicas ---- */

static void
unsent(struct asker *a, size_t i, const char *why)
{
	a->told[i] = true;
	say(a, json_pack("{s:s, s:s}", "unsent", a->to[i], "error", why));
}

/* Of one of the VMs: its status; false: it is none that is protected. */
static bool
find_status(const struct protect *p, const char *vm, struct vm_status *out)
{
	size_t i;

	for (i = 0; i < protect_vms(p); i++) {
		protect_vm(p, i, out);
		if (strcmp(out->name, vm) == 0)
			return true;
	}
	return false;
}

/* Whether the replica has what it was to get; what does not come any more is told. */
static bool
has_everything(struct asker *a, size_t i, size_t site, const struct site_status *st)
{
	struct vm_status v;
	size_t k;

	for (k = 0; k < a->nvms && !st->idle; k++) {
		if (a->vms[k].instant_ns == 0)
			continue;
		if (!find_status(a->c->protect, a->vms[k].vm, &v))
			return false;
		if (v.refused[site].code != LC_OK) {
			unsent(a, i, v.refused[site].msg);
			return false;
		}
		/* One that seems newer than all that is here is of another clock. */
		if (v.durable_ns[site] < a->vms[k].instant_ns || v.durable_ns[site] > v.instant_ns)
			return false;
	}
	return true;
}

static void
look_at_replica(struct asker *a, size_t i)
{
	struct protect *p = a->c->protect;
	struct site_status st;
	size_t k;

	for (k = 0; k < protect_sites(p); k++) {
		protect_site(p, k, &st);
		if (strcmp(st.name, a->to[i]) != 0)
			continue;
		if (st.up && has_everything(a, i, k, &st))
			a->told[i] = true;
		else if (!st.up && st.since_ns != 0)
			unsent(a, i, st.err.msg);
		return;
	}
	unsent(a, i, "the agent does not know this replica yet: systemctl reload locum-agent");
}

static void
look_at_replicas(struct asker *a)
{
	bool all = true;
	size_t i;

	if (a->c->protect == NULL)
		return;
	for (i = 0; i < a->nto; i++) {
		if (!a->told[i] && a->canceled)
			unsent(a, i, "interrupted");
		else if (!a->told[i])
			look_at_replica(a, i);
		all = all && a->told[i];
	}
	if (!all)
		return;
	say(a, json_pack("{s:b}", "end", 1));
	end_asker(a);
}

/* ---- backups ---- */

static void
look_at_end(struct asker *a)
{
	if (a->state != ASKER_BACKING_UP || a->open > 0)
		return;
	a->state = ASKER_SENDING;
	look_at_replicas(a);
}

static void
on_result(struct wanted *w, const struct backup_result *r)
{
	struct asker *a = w->asker;

	w->over = true;
	w->instant_ns = r->outcome == BACKUP_FAILED ? 0 : r->point.source_ns;
	a->open--;
	say(a, json_pack("{s:o}", "result", result_encode(r)));
	look_at_end(a);
}

static void
on_done(struct protect_ask *ask, const struct backup_result *r)
{
	on_result((struct wanted *)(void *)ask, r);
}

static void
failed(struct wanted *w, const struct lc_err *why)
{
	struct backup_result r = {.vm = w->vm, .err = *why};

	on_result(w, &r);
}

static void
cancel(struct asker *a)
{
	size_t i;

	a->canceled = true;
	for (i = 0; i < a->nvms; i++) {
		struct lc_err e = LC_ERR_INIT;

		if (a->vms[i].over)
			continue;
		(void)lc_fail(&e, LC_ECANCELED, 0, "%s: %s", a->vms[i].vm,
		              a->vms[i].ask.begun ? "canceled" : "not begun");
		protect_unask(&a->vms[i].ask);
		failed(&a->vms[i], &e);
	}
	if (a->state == ASKER_SENDING)
		look_at_replicas(a);
}

static void
begin(struct asker *a)
{
	size_t i;

	a->state = ASKER_BACKING_UP;
	a->open = a->nvms;
	for (i = 0; i < a->nvms; i++) {
		struct wanted *w = &a->vms[i];
		struct lc_err e = LC_ERR_INIT;

		w->asker = a;
		w->ask.vm = w->vm;
		w->ask.done = on_done;
		if (protect_ask(a->c->protect, &w->ask, &e) != 0)
			failed(w, &e);
	}
}

/* ---- requests ---- */

static bool
same_folder(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool
take_names(struct asker *a, const json_t *vms, const json_t *to)
{
	size_t i, n = json_array_size(vms);

	if (n == 0 || n > VMS_MAX || json_array_size(to) > REPLICAS_MAX)
		return false;
	a->vms = lc_alloc_array(n, sizeof *a->vms);
	for (i = 0; a->vms != NULL && i < n; i++) {
		a->vms[i].vm = lc_strdup(json_string_value(json_array_get(vms, i)));
		if (a->vms[i].vm == NULL)
			return false;
		a->nvms++;
	}
	for (i = 0; i < json_array_size(to); i++) {
		a->to[i] = lc_strdup(json_string_value(json_array_get(to, i)));
		if (a->to[i] == NULL)
			return false;
		a->nto++;
	}
	return a->vms != NULL;
}

static void
take_request(struct asker *a, const json_t *o)
{
	const char *verb = json_string_value(json_object_get(o, "verb"));
	const char *store = json_string_value(json_object_get(o, "store"));

	if (json_integer_value(json_object_get(o, "locum")) != CONTROL_VERSION)
		refuse(a, LC_EVERSION, "the agent that runs here is of another version of locum");
	else if (verb == NULL || store == NULL || strcmp(verb, "backup") != 0)
		refuse(a, LC_ENOTSUP, "the agent does not do that");
	else if (!same_folder(store, a->c->store))
		refuse(a, LC_ENOENT, "the agent works on another store");
	else if (a->c->protect == NULL)
		refuse(a, LC_EBUSY, "the agent is reading its settings anew");
	else if (!take_names(a, json_object_get(o, "vms"), json_object_get(o, "to")))
		refuse(a, LC_EINVAL, "no VMs, or too many");
	else
		begin(a);
}

static void
take_line(struct asker *a, const char *p, size_t n)
{
	json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(o))
		refuse(a, LC_EINVAL, "not understood");
	else if (a->state == ASKER_NEW)
		take_request(a, o);
	else if (json_is_true(json_object_get(o, "cancel")) && !a->canceled)
		cancel(a);
	json_decref(o);
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
	uint8_t *end;

	if (n < 0 || (n > 0 && lc_buf_append(&a->in, buf->base, (size_t)n) != 0)) {
		close_asker(a);
		return;
	}
	while (a->in.n > 0 && (end = memchr(a->in.p, '\n', a->in.n)) != NULL) {
		size_t used = (size_t)(end - a->in.p) + 1;

		if (a->state != ASKER_ENDING && a->state != ASKER_CLOSED)
			take_line(a, (const char *)a->in.p, used - 1);
		memmove(a->in.p, a->in.p + used, a->in.n - used);
		a->in.n -= used;
	}
	if (a->in.n > CONTROL_LINE_MAX)
		close_asker(a);
}

/* Root, or who runs the agent. */
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
	struct control *c = stream->data;
	struct asker *a = status == 0 ? lc_alloc(sizeof *a) : NULL;

	if (a == NULL)
		return;
	a->c = c;
	a->since_ns = clock_mono_ns();
	(void)uv_pipe_init(c->loop, &a->pipe, 0);
	a->pipe.data = a;
	TAILQ_INSERT_TAIL(&c->askers, a, entry);
	c->naskers++;
	if (uv_accept(stream, (uv_stream_t *)&a->pipe) != 0 || !may_ask(&a->pipe) ||
	    uv_read_start((uv_stream_t *)&a->pipe, on_alloc, on_read) != 0)
		close_asker(a);
	else if (c->naskers > ASKERS_MAX)
		refuse(a, LC_EBUSY, "the agent has too many to do");
}

/* ---- now and then ---- */

static void
say_progress(struct asker *a)
{
	struct backup_progress p;
	size_t i;

	for (i = 0; i < a->nvms; i++) {
		if (a->vms[i].over || !protect_asked(&a->vms[i].ask, &p))
			continue;
		say(a, json_pack("{s:s, s:s, s:I, s:I, s:I}", "progress", a->vms[i].vm, "note",
		                 p.note, "looked", (json_int_t)p.looked, "total",
		                 (json_int_t)p.total, "stored", (json_int_t)p.stored));
	}
}

/* Who says nothing, and who reads nothing. */
static bool
has_to_go(const struct asker *a, int64_t now)
{
	if ((a->state == ASKER_NEW || a->state == ASKER_ENDING) && now - a->since_ns > PATIENCE_NS)
		return true;
	return a->state != ASKER_CLOSED && unwritten(a) > UNREAD_MAX;
}

static void
on_timer(uv_timer_t *t)
{
	struct control *c = t->data;
	struct asker *a, *next;
	int64_t now = clock_mono_ns();

	for (a = TAILQ_FIRST(&c->askers); a != NULL; a = next) {
		next = TAILQ_NEXT(a, entry);
		if (has_to_go(a, now))
			close_asker(a);
		else if (a->state == ASKER_BACKING_UP && unwritten(a) < UNWRITTEN_MAX)
			say_progress(a);
		else if (a->state == ASKER_SENDING)
			look_at_replicas(a);
	}
}

/* ---- begin and end ---- */

void
control_protect(struct control *c, struct protect *p)
{
	if (c != NULL)
		c->protect = p;
}

static void
on_closed(uv_handle_t *h)
{
	struct control *c = h->data;

	c->handles--;
	free_if_over(c);
}

void
control_stop(struct control *c)
{
	struct asker *a, *next;

	if (c == NULL)
		return;
	c->stopping = true;
	(void)unlink(c->path);
	uv_close((uv_handle_t *)&c->listener, on_closed);
	uv_close((uv_handle_t *)&c->timer, on_closed);
	for (a = TAILQ_FIRST(&c->askers); a != NULL; a = next) {
		next = TAILQ_NEXT(a, entry);
		close_asker(a);
	}
}

static int
listen_there(struct control *c, struct lc_err *e)
{
	int urc;

	if (target_listens(c->path))
		return lc_fail(e, LC_EBUSY, 0, "%s: another agent listens there", c->path);
	(void)unlink(c->path); /* of one that was killed */
	urc = uv_pipe_bind(&c->listener, c->path);
	if (urc == 0 && chmod(c->path, 0600) != 0)
		return lc_fail_errno(e, "%s", c->path);
	urc = urc != 0 ? urc : uv_listen((uv_stream_t *)&c->listener, BACKLOG, on_connection);
	return urc == 0 ? 0 : lc_fail(e, LC_EIO, 0, "%s: %s", c->path, uv_strerror(urc));
}

int
control_start(const struct control_opts *o, struct control **out, struct lc_err *e)
{
	struct control *c = lc_alloc(sizeof *c);
	int rc;

	if (c != NULL) {
		c->path = lc_strdup(o->path);
		c->store = lc_strdup(o->store);
	}
	if (c == NULL || c->path == NULL || c->store == NULL) {
		if (c != NULL) {
			lc_free(c->path);
			lc_free(c->store);
		}
		lc_free(c);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	c->loop = o->loop;
	(void)signal(SIGPIPE, SIG_IGN); /* NOLINT(cert-err33-c): who has left is no reason to end */
	TAILQ_INIT(&c->askers);
	(void)uv_pipe_init(o->loop, &c->listener, 0);
	(void)uv_timer_init(o->loop, &c->timer);
	c->handles = 2;
	c->listener.data = c->timer.data = c;
	rc = listen_there(c, e);
	if (rc == 0) {
		(void)uv_timer_start(&c->timer, on_timer, TICK_MS, TICK_MS);
		*out = c;
		return 0;
	}
	c->stopping = true;
	uv_close((uv_handle_t *)&c->listener, on_closed);
	uv_close((uv_handle_t *)&c->timer, on_closed);
	return rc;
}

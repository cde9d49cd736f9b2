#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "agent/control.h"
#include "agent/hypervisor/definition.h"
#include "agent/result.h"
#include "agent/submit.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/unixsock.h"

#define SILENCE_MS 60000
#define CANCEL_MS 10000

struct submit {
	struct submit_opts o;
	uv_pipe_t pipe;
	uv_timer_t silence;
	unsigned nopen; /* handles */
	uv_write_t write;
	struct lc_buf in, out;
	bool *done; /* [nvms] its result came */
	bool canceled, refused;
	struct lc_err err;
};

static void
on_closed(uv_handle_t *h)
{
	struct submit *s = h->data;
	size_t i;

	if (--s->nopen > 0)
		return;
	for (i = 0; i < s->o.nvms && !s->refused; i++) {
		struct backup_result r = {.vm = s->o.vms[i]};

		if (s->done[i])
			continue;
		(void)lc_fail(&r.err, s->err.code, 0, "%s: %s", r.vm, s->err.msg);
		s->o.events.result(s->o.events.arg, &r);
	}
	s->o.events.ended(s->o.events.arg, &s->err, s->refused);
	lc_buf_free(&s->in);
	lc_buf_free(&s->out);
	lc_free(s->done);
	lc_free(s);
}

static void
end(struct submit *s)
{
	if (uv_is_closing((uv_handle_t *)&s->pipe) != 0)
		return;
	uv_close((uv_handle_t *)&s->pipe, on_closed);
	uv_close((uv_handle_t *)&s->silence, on_closed);
}

static void
end_badly(struct submit *s, enum lc_code code, const char *why)
{
	if (s->err.code == LC_OK)
		(void)lc_fail(&s->err, code, 0, "%s", why);
	end(s);
}

static void
on_silence(uv_timer_t *t)
{
	end_badly(t->data, LC_ETIMEDOUT,
	          "the agent took the request and is not heard of any more: it hangs (see: "
	          "systemctl status locum-agent)");
}

static void
listen_for(struct submit *s, int64_t ms)
{
	if (s->canceled && ms > CANCEL_MS)
		ms = CANCEL_MS;
	(void)uv_timer_start(&s->silence, on_silence, (uint64_t)ms, 0);
}

static void
on_written(uv_write_t *w, int status)
{
	(void)w; /* reading tells what is wrong */
	(void)status;
}

static void
on_cancel_written(uv_write_t *w, int status)
{
	(void)status;
	lc_free(w);
}

/* ---- what comes ---- */

static size_t
find_vm(const struct submit *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->o.nvms; i++) {
		if (name != NULL && strcmp(s->o.vms[i], name) == 0)
			break;
	}
	return i;
}

static void
take_progress(struct submit *s, const json_t *o)
{
	size_t i = find_vm(s, json_string_value(json_object_get(o, "progress")));
	const char *note = json_string_value(json_object_get(o, "note"));
	struct backup_progress p = {
	    .note = note,
	    .looked = (uint64_t)json_integer_value(json_object_get(o, "looked")),
	    .total = (uint64_t)json_integer_value(json_object_get(o, "total")),
	    .stored = (uint64_t)json_integer_value(json_object_get(o, "stored"))};

	if (i < s->o.nvms && note != NULL)
		s->o.events.progress(s->o.events.arg, s->o.vms[i], &p);
}

static void
take_result(struct submit *s, const json_t *o)
{
	size_t i = find_vm(s, json_string_value(json_object_get(o, "vm")));
	struct backup_result *r = lc_alloc(sizeof *r);

	if (r != NULL && i < s->o.nvms && !s->done[i] && result_decode(o, s->o.vms[i], r)) {
		s->done[i] = true;
		s->o.events.result(s->o.events.arg, r);
	} else {
		end_badly(s, LC_EPEER, "the agent's answer is not understood");
	}
	lc_free(r);
}

static void
take_line(struct submit *s, const char *p, size_t n)
{
	json_t *o = json_loadb(p, n, 0, NULL);
	const char *text;

	if (json_object_get(o, "progress") != NULL) {
		take_progress(s, o);
	} else if (json_object_get(o, "result") != NULL) {
		take_result(s, json_object_get(o, "result"));
	} else if ((text = json_string_value(json_object_get(o, "unsent"))) != NULL) {
		const char *why = json_string_value(json_object_get(o, "error"));

		s->o.events.unsent(s->o.events.arg, text, why == NULL ? "?" : why);
	} else if (json_is_true(json_object_get(o, "end"))) {
		end(s);
	} else if ((text = json_string_value(json_object_get(o, "refused"))) != NULL) {
		json_int_t code = json_integer_value(json_object_get(o, "code"));

		s->refused = true;
		end_badly(s, code < 0 && code > -100 ? (enum lc_code)code : LC_EPEER, text);
	} else {
		end_badly(s, LC_EPEER, "the agent's answer is not understood");
	}
	json_decref(o);
}

static void
on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	static char room[16384];

	(void)h;
	(void)suggested;
	*buf = uv_buf_init(room, sizeof room);
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct submit *s = stream->data;
	uint8_t *nl;

	if (n < 0) {
		end_badly(s, LC_ECANCELED,
		          "the agent ended before it was done; what it had committed is kept "
		          "(see: locum points)");
		return;
	}
	listen_for(s, s->o.silence_ms);
	if (lc_buf_append(&s->in, buf->base, (size_t)n) != 0)
		end_badly(s, LC_ENOMEM, "out of memory");
	while (uv_is_closing((uv_handle_t *)&s->pipe) == 0 && s->in.n > 0 &&
	       (nl = memchr(s->in.p, '\n', s->in.n)) != NULL) {
		size_t used = (size_t)(nl - s->in.p) + 1;

		take_line(s, (const char *)s->in.p, used - 1);
		memmove(s->in.p, s->in.p + used, s->in.n - used);
		s->in.n -= used;
	}
	if (s->in.n > CONTROL_LINE_MAX)
		end_badly(s, LC_EPEER, "the agent's answer is not understood");
}

/* ---- begin, cancel ---- */

static int
connect_to(const char *path, int *out, struct lc_err *e)
{
	*out = unixsock_connect(path);
	if (*out >= 0)
		return 0;
	return errno == EAGAIN ? lc_fail(e, LC_EBUSY, 0, "%s: the agent is busy", path)
	                       : lc_fail(e, LC_ENOENT, 0, "%s: no agent listens there", path);
}

static json_t *
names(const char *const *list, size_t n)
{
	json_t *a = json_array();
	size_t i;

	for (i = 0; i < n; i++)
		(void)json_array_append_new(a, json_string(list[i]));
	return a;
}

/* Its image files into the request, where it has such. */
static int
add_images(json_t *request, const struct definition *def, struct lc_err *e)
{
	json_t *a = def == NULL ? NULL : json_array();
	size_t i;

	for (i = 0; def != NULL && i < def->ndisks; i++) {
		const struct def_disk *d = &def->disks[i];
		json_t *image = json_pack("{s:s, s:s}", "path", d->path, "format", d->format);

		if (json_array_append_new(a, image) == 0)
			continue;
		json_decref(a);
		return lc_fail(e, LC_EINVAL, 0,
		               "%s: the agent can't be told this name; give the file another one",
		               d->path);
	}
	if (def != NULL && json_object_set_new(request, "images", a) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	return 0;
}

static int
make_request(struct submit *s, struct lc_err *e)
{
	char *store = realpath(s->o.store, NULL), *text = NULL;
	json_t *o;
	int rc = 0;

	if (store == NULL)
		return lc_fail_errno(e, "%s", s->o.store);
	o = json_pack("{s:i, s:s, s:s, s:o, s:o, s:o}", "locum", CONTROL_VERSION, "verb", "backup",
	              "store", store, "vms", names(s->o.vms, s->o.nvms), "made",
	              names(s->o.made, s->o.nmade), "to", names(s->o.to, s->o.nto));
	if (o != NULL)
		rc = add_images(o, s->o.import, e);
	if (o != NULL && rc == 0)
		text = json_dumps(o, JSON_COMPACT);
	if (rc == 0 && (text == NULL || lc_buf_append(&s->out, text, strlen(text)) != 0 ||
	                lc_buf_append(&s->out, "\n", 1) != 0))
		rc = lc_fail(e, LC_ENOMEM, 0, "the request to the agent can't be written");
	if (rc == 0 && s->out.n > CONTROL_LINE_MAX)
		rc = lc_fail(e, LC_EINVAL, 0, "too many names to ask the agent for");
	json_decref(o);
	free(text);
	free(store);
	return rc;
}

int
submit_start(const struct submit_opts *o, struct submit **out, struct lc_err *e)
{
	struct submit *s = lc_alloc(sizeof *s);
	uv_buf_t buf;
	int fd = -1, rc;

	if (s != NULL)
		s->done = lc_alloc_array(o->nvms + 1, sizeof *s->done);
	if (s == NULL || s->done == NULL) {
		lc_free(s);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	s->o = *o;
	if (s->o.silence_ms == 0)
		s->o.silence_ms = SILENCE_MS;
	(void)signal(SIGPIPE, SIG_IGN); /* NOLINT(cert-err33-c): who has left is no reason to end */
	rc = connect_to(o->path, &fd, e);
	rc = rc != 0 ? rc : make_request(s, e);
	if (rc != 0) {
		fd_close(&fd);
		lc_buf_free(&s->out);
		lc_free(s->done);
		lc_free(s);
		return rc;
	}
	(void)uv_pipe_init(o->loop, &s->pipe, 0);
	(void)uv_timer_init(o->loop, &s->silence);
	s->pipe.data = s->silence.data = s;
	s->nopen = 2;
	listen_for(s, s->o.silence_ms);
	buf = uv_buf_init((char *)s->out.p, (unsigned)s->out.n);
	if (uv_pipe_open(&s->pipe, fd) != 0 ||
	    uv_read_start((uv_stream_t *)&s->pipe, on_alloc, on_read) != 0 ||
	    uv_write(&s->write, (uv_stream_t *)&s->pipe, &buf, 1, on_written) != 0)
		end_badly(s, LC_EIO, "speaking to the agent failed");
	*out = s;
	return 0;
}

void
submit_cancel(struct submit *s)
{
	static char text[] = "{\"cancel\": true}\n";
	uv_buf_t buf = uv_buf_init(text, sizeof text - 1);
	uv_write_t *w = s->canceled ? NULL : lc_alloc(sizeof *w);

	s->canceled = true;
	if (uv_is_closing((uv_handle_t *)&s->pipe) == 0)
		listen_for(s, s->o.silence_ms);
	if (w == NULL || uv_write(w, (uv_stream_t *)&s->pipe, &buf, 1, on_cancel_written) != 0) {
		lc_free(w);
		end_badly(s, LC_ECANCELED, "interrupted");
	}
}

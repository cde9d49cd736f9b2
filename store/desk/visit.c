#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/unixsock.h"
#include "store/desk/chore.h"
#include "store/desk/desk.h"
#include "store/desk/visit.h"

#define PATIENCE_MS ((int64_t)10 * DESK_WORKING_MS)

struct visit {
	int fd;
	char *dir, *who;
	char owner[sizeof((struct lc_err *)NULL)->msg];
	int64_t patience_ms;
	struct lc_buf in;
	size_t used; /* of it: lines that were read */
};

int
visit_open(const struct visit_opts *o, struct visit **out, struct lc_err *e)
{
	struct visit *v = lc_alloc(sizeof *v);
	char path[STORE_DESK_MAX];
	int rc;

	if (v == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	v->fd = -1;
	v->dir = realpath(o->dir, NULL);
	v->who = lc_strdup(o->who);
	v->patience_ms = o->patience_ms > 0 ? o->patience_ms : PATIENCE_MS;
	(void)memccpy(v->owner, o->busy->msg, '\0', sizeof v->owner);
	rc = v->dir == NULL || v->who == NULL
	         ? lc_fail(e, LC_ENOMEM, 0, "%s: no such folder", o->dir)
	         : 0;
	if (rc == 0) {
		store_desk(o->dir, path);
		v->fd = path[0] == '\0' ? -1 : unixsock_connect(path);
	}
	if (rc == 0 && v->fd < 0)
		rc = path[0] != '\0' && errno == EAGAIN
		         ? lc_fail(e, LC_EBUSY, 0, "%s, and others wait for it already", v->owner)
		         : lc_fail(e, LC_ENOENT, 0, "%s", v->owner);
	if (rc != 0) {
		visit_close(v);
		return rc;
	}
	*out = v;
	return 0;
}

/* ---- a line there, lines back ---- */

static int
hung(const struct visit *v, struct lc_err *e)
{
	return lc_fail(e, LC_ETIMEDOUT, 0,
	               "%s, and has said nothing for %lld s: does it hang? restart it, and look "
	               "again (locum points)",
	               v->owner, (long long)((v->patience_ms + 999) / 1000));
}

static int
gone(const struct visit *v, struct lc_err *e)
{
	return lc_fail(e, LC_EPEER, 0,
	               "%s, and it ended before it answered: look whether it was done (locum "
	               "points), and give the command again",
	               v->owner);
}

/* For at most the patience: 0 where it may be read or written. */
static int
wait_for(const struct visit *v, short events, int64_t until, struct lc_err *e)
{
	struct pollfd p = {.fd = v->fd, .events = events};

	for (;;) {
		int64_t left = (until - clock_mono_ns() + LC_NS_PER_MS - 1) / LC_NS_PER_MS;
		int n = left <= 0 ? 0 : poll(&p, 1, (int)left);

		if (n > 0)
			return 0;
		if (n == 0)
			return hung(v, e);
		if (errno != EINTR)
			return lc_fail_errno(e, "poll");
	}
}

static int64_t
patience(const struct visit *v)
{
	return clock_mono_ns() + v->patience_ms * LC_NS_PER_MS;
}

static int
send_line(struct visit *v, const struct lc_buf *line, struct lc_err *e)
{
	int64_t until = patience(v);
	size_t sent = 0;

	while (sent < line->n) {
		ssize_t n = send(v->fd, line->p + sent, line->n - sent, MSG_NOSIGNAL);
		int rc = 0;

		if (n >= 0)
			sent += (size_t)n;
		else if (errno == EAGAIN)
			rc = wait_for(v, POLLOUT, until, e);
		else if (errno != EINTR)
			return gone(v, e);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* The next line, borrowed until the one after it. */
static int
read_line(struct visit *v, struct lc_span *line, struct lc_err *e)
{
	int64_t until = patience(v);
	char room[4096];

	if (v->used > 0) {
		memmove(v->in.p, v->in.p + v->used, v->in.n - v->used);
		v->in.n -= v->used;
		v->used = 0;
	}
	for (;;) {
		const uint8_t *nl = v->in.n == 0 ? NULL : memchr(v->in.p, '\n', v->in.n);
		ssize_t n;
		int rc;

		if (nl != NULL) {
			*line = (struct lc_span){v->in.p, (size_t)(nl - v->in.p)};
			v->used = line->n + 1;
			return 0;
		}
		if (v->in.n > DESK_LINE_MAX)
			return lc_fail(e, LC_EPEER, 0, "the owner's answer is not understood");
		rc = wait_for(v, POLLIN, until, e);
		if (rc != 0)
			return rc;
		n = recv(v->fd, room, sizeof room, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return gone(v, e);
		if (n > 0 && lc_buf_append(&v->in, room, (size_t)n) != 0)
			return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
}

/* LC_OK with *over unset: it is at it. */
static int
take_answer(struct lc_span line, bool *over, uint64_t *done, struct lc_err *e)
{
	json_t *o = json_loadb((const char *)line.p, line.n, 0, NULL);
	const json_t *n = json_object_get(o, "done");
	const char *text = json_string_value(json_object_get(o, "failed"));
	json_int_t code = json_integer_value(json_object_get(o, "code"));
	int rc = 0;

	*over = text != NULL || n != NULL;
	if (text != NULL)
		rc = lc_fail(e, code < 0 && code > -100 ? (enum lc_code)code : LC_EPEER, 0, "%s",
		             text);
	else if (n != NULL)
		*done = (uint64_t)json_integer_value(n);
	else if (!json_is_true(json_object_get(o, "working")))
		rc = lc_fail(e, LC_EPEER, 0, "the owner's answer is not understood");
	json_decref(o);
	return rc;
}

static int
ask(struct visit *v, struct chore *c, uint64_t *done, struct lc_err *e)
{
	struct lc_buf line = {0};
	struct lc_span back = {0};
	bool over = false;
	int rc;

	c->store = v->dir;
	c->who = v->who;
	rc = chore_encode(c, &line, e);
	rc = rc != 0 ? rc : send_line(v, &line, e);
	lc_buf_free(&line);
	while (rc == 0 && !over) {
		rc = read_line(v, &back, e);
		rc = rc != 0 ? rc : take_answer(back, &over, done, e);
	}
	return rc;
}

/* ---- what is asked for ---- */

int
visit_drop(struct visit *v, const uint8_t *point, struct lc_err *e)
{
	struct chore c = {.verb = CHORE_DROP};
	uint64_t done;

	memcpy(c.point, point, sizeof c.point);
	return ask(v, &c, &done, e);
}

int
visit_condemn(struct visit *v, const struct damage *list, size_t n, uint64_t *condemned,
              struct lc_err *e)
{
	size_t i, some;
	int rc = 0;

	*condemned = 0;
	for (i = 0; rc == 0 && i < n; i += some) {
		struct chore c = {.verb = CHORE_CONDEMN};
		uint64_t done = 0;

		some = n - i < DESK_PLACES_MAX ? n - i : DESK_PLACES_MAX;
		if (lc_buf_append(&c.places, list + i, some * sizeof *list) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
		rc = rc != 0 ? rc : ask(v, &c, &done, e);
		*condemned += done;
		lc_buf_free(&c.places);
	}
	return rc;
}

int
visit_lend(struct visit *v, struct lc_err *e)
{
	struct chore c = {.verb = CHORE_LEND};
	uint64_t done;

	return ask(v, &c, &done, e);
}

void
visit_close(struct visit *v)
{
	if (v == NULL)
		return;
	fd_close(&v->fd);
	free(v->dir);
	lc_free(v->who);
	lc_buf_free(&v->in);
	lc_free(v);
}

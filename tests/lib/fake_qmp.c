#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <uv.h>

#include "tests/lib/fake_qmp.h"

#define RULES_MAX 32

struct fake_qmp {
	uv_loop_t *loop;
	uv_poll_t listen;
	uv_poll_t *client; /* NULL while there is none; freed by its close callback */
	int listen_fd, client_fd, fd;
	int closing;
	int hang_up_after;
	const char *greeting;
	struct {
		const char *command, *answer;
	} rules[RULES_MAX];
	size_t nrules;
	char *in; /* not yet a whole line */
	size_t n;
	char *out; /* not yet sent */
	size_t nout;
	char order[65536];
};

static void
die(const char *what)
{
	perror(what);
	abort();
}

static void
on_client_closed(uv_handle_t *h)
{
	int fd = (int)(intptr_t)h->data;

	(void)close(fd);
	free(h);
}

static void
drop_client(struct fake_qmp *f)
{
	if (f->client == NULL)
		return;
	f->client->data = (void *)(intptr_t)f->client_fd;
	uv_close((uv_handle_t *)f->client, on_client_closed);
	f->client = NULL;
	f->client_fd = -1;
	f->n = f->nout = 0;
}

static void on_client(uv_poll_t *h, int status, int events);

/* Send what the socket takes. */
static void
flush(struct fake_qmp *f)
{
	while (f->client != NULL && f->nout > 0) {
		ssize_t k = send(f->client_fd, f->out, f->nout, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && errno != EAGAIN)
			f->nout = 0; /* The client went away. */
		if (k < 0)
			break;
		memmove(f->out, f->out + k, f->nout - (size_t)k);
		f->nout -= (size_t)k;
	}
	if (f->client != NULL)
		(void)uv_poll_start(f->client, UV_READABLE | (f->nout > 0 ? UV_WRITABLE : 0),
		                    on_client);
}

static void
put(struct fake_qmp *f, const char *p, size_t n)
{
	f->out = realloc(f->out, f->nout + n + 1);
	if (f->out == NULL)
		die("realloc");
	memcpy(f->out + f->nout, p, n);
	f->nout += n;
}

void
fake_qmp_say(struct fake_qmp *f, const char *p, size_t n)
{
	put(f, p, n);
	flush(f);
}

/* The value of "id" as it stands in the line. */
static void
id_of(const char *line, char *dst, size_t n)
{
	const char *id = strstr(line, "\"id\":");

	(void)snprintf(dst, n, "%s", id == NULL ? "null" : id + 5);
	dst[strcspn(dst, ",}")] = '\0';
}

static void
answer(struct fake_qmp *f, const char *line)
{
	const char *text = "{\"return\": {}, \"id\": @}\r\n", *at;
	const char *name = strstr(line, "\"execute\":\"");
	char id[64], command[64];
	size_t i;

	id_of(line, id, sizeof id);
	(void)snprintf(command, sizeof command, "%s", name == NULL ? "?" : name + 11);
	command[strcspn(command, "\"")] = '\0';
	i = strlen(f->order);
	(void)snprintf(f->order + i, sizeof f->order - i, "%s ", command);
	for (i = 0; i < f->nrules; i++) {
		if (strcmp(f->rules[i].command, command) == 0)
			text = f->rules[i].answer;
	}
	while ((at = strchr(text, '@')) != NULL) {
		put(f, text, (size_t)(at - text));
		put(f, id, strlen(id));
		text = at + 1;
	}
	put(f, text, strlen(text));
	if (f->hang_up_after) {
		flush(f);
		drop_client(f);
	}
}

static void
keep_fd(struct fake_qmp *f, struct msghdr *msg)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);

	if (c == NULL || c->cmsg_type != SCM_RIGHTS)
		return;
	if (f->fd >= 0)
		(void)close(f->fd);
	memcpy(&f->fd, CMSG_DATA(c), sizeof f->fd);
}

static void
on_client(uv_poll_t *h, int status, int events)
{
	struct fake_qmp *f = h->data;
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov;
	struct msghdr msg = {.msg_iov = &iov,
	                     .msg_iovlen = 1,
	                     .msg_control = control.buf,
	                     .msg_controllen = sizeof control.buf};
	char *nl;
	ssize_t k;

	(void)status;
	if ((events & UV_WRITABLE) != 0)
		flush(f);
	f->in = realloc(f->in, f->n + 65537);
	if (f->in == NULL)
		die("realloc");
	iov = (struct iovec){.iov_base = f->in + f->n, .iov_len = 65536};
	k = recvmsg(f->client_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (k < 0 && errno == EAGAIN)
		return;
	if (k <= 0) {
		drop_client(f);
		return;
	}
	keep_fd(f, &msg);
	f->n += (size_t)k;
	while (f->client != NULL && (nl = memchr(f->in, '\n', f->n)) != NULL) {
		size_t used = (size_t)(nl - f->in) + 1;

		*nl = '\0';
		answer(f, f->in);
		if (f->client == NULL)
			return;
		memmove(f->in, f->in + used, f->n - used);
		f->n -= used;
	}
	flush(f);
}

static void
on_connection(uv_poll_t *h, int status, int events)
{
	struct fake_qmp *f = h->data;
	int fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	(void)status;
	(void)events;
	if (fd < 0)
		return;
	drop_client(f);
	f->client = calloc(1, sizeof *f->client);
	if (f->client == NULL || uv_poll_init(f->loop, f->client, fd) != 0)
		die("client");
	f->client->data = f;
	f->client_fd = fd;
	fake_qmp_say(f, f->greeting, strlen(f->greeting));
}

struct fake_qmp *
fake_qmp_new(struct uv_loop_s *loop, const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct fake_qmp *f = calloc(1, sizeof *f);

	if (f == NULL || strlen(path) >= sizeof sa.sun_path)
		die(path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	f->loop = loop;
	f->fd = f->client_fd = -1;
	f->greeting = FAKE_QMP_GREETING;
	f->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)unlink(path);
	if (f->listen_fd < 0 || bind(f->listen_fd, (struct sockaddr *)&sa, sizeof sa) != 0 ||
	    listen(f->listen_fd, 4) != 0 || uv_poll_init(loop, &f->listen, f->listen_fd) != 0)
		die(path);
	f->listen.data = f;
	(void)uv_poll_start(&f->listen, UV_READABLE, on_connection);
	return f;
}

void
fake_qmp_greet(struct fake_qmp *f, const char *text)
{
	f->greeting = text;
}

void
fake_qmp_on(struct fake_qmp *f, const char *command, const char *reply)
{
	size_t i;

	for (i = 0; i < f->nrules; i++) {
		if (strcmp(f->rules[i].command, command) == 0) {
			f->rules[i].answer = reply;
			return;
		}
	}
	if (f->nrules == RULES_MAX)
		abort();
	f->rules[f->nrules].command = command;
	f->rules[f->nrules++].answer = reply;
}

void
fake_qmp_hang_up(struct fake_qmp *f, int after_answer)
{
	f->hang_up_after = after_answer;
	if (!after_answer)
		drop_client(f);
}

size_t
fake_qmp_count(const struct fake_qmp *f, const char *command)
{
	const char *s = f->order;
	size_t n = 0, len = strlen(command);

	while ((s = strstr(s, command)) != NULL) {
		if ((s == f->order || s[-1] == ' ') && s[len] == ' ')
			n++;
		s += len;
	}
	return n;
}

const char *
fake_qmp_order(const struct fake_qmp *f)
{
	return f->order;
}

int
fake_qmp_fd(const struct fake_qmp *f)
{
	return f->fd;
}

static void
on_listen_closed(uv_handle_t *h)
{
	struct fake_qmp *f = h->data;

	(void)close(f->listen_fd);
	if (f->fd >= 0)
		(void)close(f->fd);
	free(f->in);
	free(f->out);
	free(f);
}

void
fake_qmp_close(struct fake_qmp *f)
{
	drop_client(f);
	uv_close((uv_handle_t *)&f->listen, on_listen_closed);
}

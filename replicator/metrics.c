/*
 * MHD keeps its sockets in an epoll of its own, whose descriptor the loop watches.  That epoll is
 * edge-triggered: what MHD has left for later shows only in MHD_get_timeout(), so a timer follows
 * each MHD_run().
 *
 * MHD gives up who says nothing for idle_s; who says a byte now and then, and who has to make room,
 * is hung up on (shutdown) by us, which MHD takes for the end of the connection.
 *
 * A connection that it cannot take, for want of descriptors, keeps its epoll readable; so after a
 * burst of turns the loop looks away from it for a moment.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "replicator/identity.h"
#include "replicator/metrics.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/memory.h"

#define SEATS (METRICS_CONNECTIONS + 8u) /* some of them are leaving */
#define MEMORY_MAX ((size_t)16 << 10)    /* of a connection: its request, the head of the answer */
#define FRESH_NS (200 * LC_NS_PER_MS)
#define TICK_MS 250 /* while somebody is connected */
#define BACKLOG 16
#define BURST 200u /* turns in BURST_MS, then a rest */
#define BURST_MS 100u
#define REST_MS 50u
#define TYPE "text/plain; version=0.0.4; charset=utf-8"

struct seat {
	int fd; /* borrowed from MHD; -1: free */
	int64_t since_ns;
	bool leaving;
};

struct metrics {
	struct metrics_opts o; /* but the address */
	struct MHD_Daemon *daemon;
	struct MHD_Response *text; /* or NULL */
	int64_t text_ns;           /* rendered then */
	struct seat seats[SEATS];
	unsigned port, handles, burst;
	uint64_t burst_ms; /* loop time: it began */
	bool resting;      /* poll is stopped */
	uv_poll_t poll;
	uv_timer_t timer;
};

/* ---- the text ---- */

void
metrics_family(FILE *f, const char *name, const char *type, const char *help)
{
	(void)fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Bytes of the UTF-8 character at s; 0: there is none. */
static size_t
character(const unsigned char *s)
{
	size_t n, i;

	if (s[0] < 0x80)
		return s[0] >= 0x20 && s[0] != 0x7f ? 1 : 0;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) /* the end is none of these either */
			return 0;
	}
	/* Longer than need be, halves of UTF-16, beyond the last one. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* One bad byte would make the reader throw everything away. */
static void
put_value(FILE *f, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s != '\0') {
		size_t n = character(s);

		if (*s == '\n')
			(void)fputs("\\n", f);
		else if (n == 0)
			(void)fputc('?', f);
		else if (*s == '"' || *s == '\\')
			(void)fprintf(f, "\\%c", *s);
		else
			(void)fwrite(s, 1, n, f);
		s += n == 0 ? 1 : n;
	}
}

void
metrics_sample(FILE *f, const char *name, const struct metrics_label *labels, size_t n,
               double value)
{
	size_t i;

	(void)fputs(name, f);
	for (i = 0; i < n; i++) {
		(void)fprintf(f, "%s%s=\"", i == 0 ? "{" : ",", labels[i].name);
		put_value(f, labels[i].value);
		(void)fputc('"', f);
	}
	if (n > 0)
		(void)fputc('}', f);
	if (isnan(value))
		(void)fputs(" NaN\n", f);
	else if (isinf(value))
		(void)fputs(value > 0 ? " +Inf\n" : " -Inf\n", f);
	else if (value == floor(value) && fabs(value) < 9007199254740992.0) /* 2^53 */
		(void)fprintf(f, " %.0f\n", value);
	else
		(void)fprintf(f, " %.9g\n", value);
}

/* ---- requests ---- */

static struct MHD_Response *
rendered(struct metrics *m)
{
	int64_t now = clock_mono_ns();
	char *text = NULL;
	size_t n = 0;
	FILE *f;

	if (m->text != NULL && now - m->text_ns < FRESH_NS)
		return m->text;
	if (m->text != NULL)
		MHD_destroy_response(m->text); /* connections that send it keep it */
	m->text = NULL;
	f = open_memstream(&text, &n);
	if (f == NULL)
		return NULL;
	m->o.render(m->o.arg, f);
	if (fclose(f) == 0)
		m->text = MHD_create_response_from_buffer(n, text, MHD_RESPMEM_MUST_FREE);
	if (m->text == NULL) {
		free(text); /* open_memstream's */
		return NULL;
	}
	(void)MHD_add_response_header(m->text, MHD_HTTP_HEADER_CONTENT_TYPE, TYPE);
	(void)MHD_add_response_header(m->text, MHD_HTTP_HEADER_CONNECTION, "close");
	m->text_ns = now;
	return m->text;
}

static enum MHD_Result
refuse(struct MHD_Connection *c, unsigned status, const char *why)
{
	/* The text is constant: it is not changed and lives for ever. */
	union {
		const char *in;
		void *out;
	} text = {.in = why};
	struct MHD_Response *r = MHD_create_response_from_buffer(strlen(why), text.out,
	                                                         MHD_RESPMEM_PERSISTENT);
	enum MHD_Result rc;

	if (r == NULL)
		return MHD_NO;
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain");
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	rc = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return rc;
}

/* Answered at once: what a client would send beside its head is not waited for. */
static enum MHD_Result
on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
           const char *version, const char *body,
           size_t *nbody, /* NOLINT(readability-non-const-parameter) */
           void **mark)
{
	struct metrics *m = arg;
	struct MHD_Response *text;

	(void)version;
	(void)body;
	(void)nbody;
	(void)mark;
	if (strcmp(url, "/metrics") != 0)
		return refuse(c, MHD_HTTP_NOT_FOUND, "see /metrics\n");
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
	text = rendered(m);
	return text == NULL ? MHD_NO : MHD_queue_response(c, MHD_HTTP_OK, text);
}

/* ---- who is connected ---- */

static void
hang_up(struct seat *s)
{
	if (s->leaving)
		return;
	s->leaving = true;
	(void)shutdown(s->fd, SHUT_RDWR);
}

static void
make_room(struct metrics *m)
{
	struct seat *oldest = NULL;
	unsigned i, n = 0;

	for (i = 0; i < SEATS; i++) {
		struct seat *s = &m->seats[i];

		if (s->fd < 0 || s->leaving)
			continue;
		n++;
		if (oldest == NULL || s->since_ns < oldest->since_ns)
			oldest = s;
	}
	if (n >= METRICS_CONNECTIONS)
		hang_up(oldest);
}

static void
on_connection(void *arg, struct MHD_Connection *c, void **mark,
              enum MHD_ConnectionNotificationCode what)
{
	const union MHD_ConnectionInfo *info;
	struct metrics *m = arg;
	struct seat *s = *mark;
	unsigned i;

	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (s != NULL)
			s->fd = -1;
		return;
	}
	make_room(m);
	info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	for (i = 0; info != NULL && i < SEATS; i++) {
		if (m->seats[i].fd >= 0)
			continue;
		m->seats[i] = (struct seat){.fd = info->connect_fd, .since_ns = clock_mono_ns()};
		*mark = &m->seats[i];
		return;
	}
}

/* Returns whether somebody is here. */
static bool
hurry(struct metrics *m)
{
	int64_t now = clock_mono_ns();
	bool any = false;
	unsigned i;

	for (i = 0; i < SEATS; i++) {
		if (m->seats[i].fd < 0)
			continue;
		any = true;
		if (now - m->seats[i].since_ns > m->o.life_ms * LC_NS_PER_MS)
			hang_up(&m->seats[i]);
	}
	return any;
}

/* ---- in the loop ---- */

static void on_timer(uv_timer_t *t);

static void
turn(struct metrics *m)
{
	MHD_UNSIGNED_LONG_LONG wait_ms = TICK_MS;
	bool wait, any;

	(void)MHD_run(m->daemon);
	any = hurry(m);
	wait = MHD_get_timeout(m->daemon, &wait_ms) == MHD_YES;
	if (any && (!wait || wait_ms > TICK_MS))
		wait_ms = TICK_MS;
	if (m->resting)
		wait_ms = REST_MS;
	if (any || wait || m->resting)
		(void)uv_timer_start(&m->timer, on_timer, wait_ms, 0);
	else
		(void)uv_timer_stop(&m->timer);
}

static void
on_poll(uv_poll_t *p, int status, int events)
{
	struct metrics *m = p->data;
	uint64_t now = uv_now(m->o.loop);

	(void)status;
	(void)events;
	if (now - m->burst_ms >= BURST_MS) {
		m->burst_ms = now;
		m->burst = 0;
	}
	if (++m->burst >= BURST) {
		(void)uv_poll_stop(p);
		m->resting = true;
	}
	turn(m);
}

static void
on_timer(uv_timer_t *t)
{
	struct metrics *m = t->data;

	if (m->resting) {
		m->resting = false;
		m->burst = 0;
		(void)uv_poll_start(&m->poll, UV_READABLE, on_poll);
	}
	turn(m);
}

/* ---- begin and end ---- */

union where {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Only numbers: a name could be that of another machine, or not be known yet. */
static bool
find_address(const char *text, union where *to)
{
	const char *tail = strrchr(text, ']');
	struct address a = {.host = "127.0.0.1", .port = METRICS_PORT};
	char with_port[ADDRESS_MAX];
	int port = 0;
	bool ok;

	if (isdigit((unsigned char)text[0]) && strspn(text, "0123456789") == strlen(text))
		(void)snprintf(with_port, sizeof with_port, "%s:%s", a.host, text);
	else if (uv_ip6_addr(text, 0, &to->v6) == 0)
		(void)snprintf(with_port, sizeof with_port, "[%s]:" METRICS_PORT, text);
	else if (text[0] == '*')
		(void)snprintf(with_port, sizeof with_port, "[::]%s",
		               text[1] == '\0' ? ":" METRICS_PORT : text + 1);
	else
		(void)snprintf(with_port, sizeof with_port, "%s%s", text,
		               strchr(tail != NULL ? tail : text, ':') == NULL ? ":" METRICS_PORT
		                                                               : "");
	ok = address_parse(with_port, &a);
	(void)sscanf(a.port, "%d", &port); /* NOLINT(cert-err34-c): address_parse() checked it */
	return ok &&
	       (uv_ip4_addr(a.host, port, &to->v4) == 0 || uv_ip6_addr(a.host, port, &to->v6) == 0);
}

static int
listen_on(const char *text, unsigned *port, int *out, struct lc_err *e)
{
	socklen_t n = sizeof(struct sockaddr_in6);
	int yes = 1, no = 0, fd, rc = 0;
	union where to = {.any.sa_family = AF_UNSPEC};

	if (!find_address(text, &to))
		return lc_fail(e, LC_EINVAL, 0,
		               "metrics: '%s' is no address such as 127.0.0.1:" METRICS_PORT, text);
	fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return lc_fail_errno(e, "metrics: %s", text);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (to.any.sa_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
	else
		n = sizeof(struct sockaddr_in);
	if (bind(fd, &to.any, n) != 0 || listen(fd, BACKLOG) != 0) {
		rc = errno == EADDRINUSE
		         ? lc_fail(e, LC_EBUSY, errno, "metrics: listening on %s", text)
		         : lc_fail_errno(e, "metrics: listening on %s", text);
	} else if (getsockname(fd, &to.any, &n) != 0) {
		rc = lc_fail_errno(e, "metrics: %s", text);
	}
	if (rc != 0)
		fd_close(&fd);
	*port = ntohs(to.any.sa_family == AF_INET6 ? to.v6.sin6_port : to.v4.sin_port);
	*out = fd;
	return rc;
}

static void
free_metrics(struct metrics *m)
{
	if (m->daemon != NULL)
		MHD_stop_daemon(m->daemon);
	if (m->text != NULL)
		MHD_destroy_response(m->text);
	lc_free(m);
}

static void
on_closed(uv_handle_t *h)
{
	struct metrics *m = h->data;

	if (--m->handles == 0)
		lc_free(m);
}

int
metrics_start(const struct metrics_opts *o, struct metrics **out, struct lc_err *e)
{
	struct metrics *m = lc_alloc(sizeof *m);
	const union MHD_DaemonInfo *info;
	int fd = -1, rc;
	unsigned i;

	if (m == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	m->o = *o;
	m->o.address = NULL;
	m->o.idle_s = o->idle_s == 0 ? METRICS_IDLE_S : o->idle_s;
	m->o.life_ms = o->life_ms == 0 ? METRICS_LIFE_MS : o->life_ms;
	for (i = 0; i < SEATS; i++)
		m->seats[i].fd = -1;
	rc = listen_on(o->address, &m->port, &fd, e);
	if (rc != 0) {
		lc_free(m);
		return rc;
	}
	m->daemon = MHD_start_daemon(
	    MHD_USE_EPOLL, 0, NULL, NULL, on_request, m, MHD_OPTION_LISTEN_SOCKET, fd,
	    MHD_OPTION_CONNECTION_LIMIT, SEATS, MHD_OPTION_CONNECTION_TIMEOUT, m->o.idle_s,
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, MEMORY_MAX, MHD_OPTION_NOTIFY_CONNECTION,
	    on_connection, m, MHD_OPTION_END); /* fd is its own */
	info = m->daemon == NULL ? NULL : MHD_get_daemon_info(m->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (info == NULL || uv_poll_init(o->loop, &m->poll, info->epoll_fd) != 0) {
		free_metrics(m);
		return lc_fail(e, LC_ENOMEM, 0, "metrics: the HTTP server does not start");
	}
	(void)uv_timer_init(o->loop, &m->timer);
	m->poll.data = m->timer.data = m;
	m->handles = 2;
	(void)uv_poll_start(&m->poll, UV_READABLE, on_poll);
	*out = m;
	return 0;
}

unsigned
metrics_port(const struct metrics *m)
{
	return m->port;
}

void
metrics_stop(struct metrics *m)
{
	if (m == NULL)
		return;
	uv_close((uv_handle_t *)&m->poll, on_closed);
	uv_close((uv_handle_t *)&m->timer, on_closed);
	MHD_stop_daemon(m->daemon); /* tells on_connection() of each that ends */
	if (m->text != NULL)
		MHD_destroy_response(m->text);
	m->text = NULL;
}

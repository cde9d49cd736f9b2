/*
 * metrics: what is rendered is well formed whatever the names are; over raw sockets: GET, HEAD,
 * what is refused, garbage, more connections than there are places, clients that dawdle or do not
 * read.
 *
 * The loop runs here, the clients in a thread of their own, which notes and asserts nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "replicator/metrics.h"
#include "store/base/clock.h"
#include "tests/lib/unit.h"

/* ---- the text ---- */

static void
assert_sample(double value, const char *label, const char *expected)
{
	const struct metrics_label l = {"vm", label};
	char text[512];
	FILE *f = fmemopen(text, sizeof text, "w");

	assert_non_null(f);
	metrics_sample(f, "x", &l, label == NULL ? 0 : 1, value);
	(void)fputc('\0', f);
	(void)fclose(f);
	assert_string_equal(text, expected);
}

static void
test_values(void **state)
{
	(void)state;
	assert_sample(0, NULL, "x 0\n");
	assert_sample(1.5, NULL, "x 1.5\n");
	assert_sample(-2, NULL, "x -2\n");
	assert_sample(9007199254740991.0, NULL, "x 9007199254740991\n");
	assert_sample(1e300, NULL, "x 1e+300\n");
	assert_sample(INFINITY, NULL, "x +Inf\n");
	assert_sample(-INFINITY, NULL, "x -Inf\n");
	assert_sample(NAN, NULL, "x NaN\n");
}

static void
test_labels(void **state)
{
	(void)state;
	assert_sample(1, "", "x{vm=\"\"} 1\n");
	assert_sample(1, "web01", "x{vm=\"web01\"} 1\n");
	assert_sample(1, "a\"b\\c\nd", "x{vm=\"a\\\"b\\\\c\\nd\"} 1\n");
	assert_sample(1, "\x1b[0m\r\t\x7f", "x{vm=\"?[0m???\"} 1\n");
	/* Two, three and four bytes; the first and last of each length. */
	assert_sample(1, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
	              "x{vm=\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"} 1\n");
	assert_sample(1, "\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf4\x8f\xbf\xbf",
	              "x{vm=\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf4\x8f\xbf\xbf\"} 1\n");
	/* Cut off, alone, too long, a half of UTF-16, beyond the last. */
	assert_sample(1, "\xe2\x82", "x{vm=\"??\"} 1\n");
	assert_sample(1, "\xf0\x9f\x98", "x{vm=\"???\"} 1\n");
	assert_sample(1, "\x80z\xff", "x{vm=\"?z?\"} 1\n");
	assert_sample(1, "\xc0\xaf", "x{vm=\"??\"} 1\n");
	assert_sample(1, "\xe0\x80\xaf", "x{vm=\"???\"} 1\n");
	assert_sample(1, "\xed\xa0\x80", "x{vm=\"???\"} 1\n");
	assert_sample(1, "\xf4\x90\x80\x80", "x{vm=\"????\"} 1\n");
}

/* ---- a server, and clients ---- */

#define BIG ((size_t)32 << 20) /* more than sockets buffer */

struct bench {
	uv_loop_t loop;
	uv_async_t over;
	struct metrics *metrics;
	unsigned port;
	size_t padding;
	int rendered;
	void (*clients)(struct bench *b);
	/* What the clients saw. */
	char answer[8][4096]; /* what a client read, at most so much of it */
	ssize_t total[8];     /* bytes until the end; -1: the end did not come */
	int64_t took_ns[8];
};

static void
render(void *arg, FILE *f)
{
	const struct metrics_label l = {"vm", "web01"};
	struct bench *b = arg;
	size_t i;

	b->rendered++;
	metrics_family(f, "locum_vm_lag_seconds", "gauge", "How old it is.");
	metrics_sample(f, "locum_vm_lag_seconds", &l, 1, 1.25);
	for (i = 0; i < b->padding; i++)
		(void)fputc('#', f);
}

static int
dial(const struct bench *b)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)b->port)};
	struct timeval patience = {.tv_sec = 20};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a) != 0)
		abort();
	return fd;
}

static void
say(int fd, const char *text, size_t n)
{
	(void)send(fd, text, n, MSG_NOSIGNAL); /* it may have hung up already */
}

/* Until the other side ends it.  Also an end by RST is one. */
static void
hear(struct bench *b, int i, int fd)
{
	int64_t began = clock_mono_ns();
	static _Thread_local char more[65536];
	ssize_t n, k;

	b->total[i] = 0;
	for (;;) {
		n = recv(fd, more, sizeof more, 0);
		if (n <= 0)
			break;
		for (k = 0; k < n && b->total[i] + k < (ssize_t)sizeof b->answer[i] - 1; k++)
			b->answer[i][b->total[i] + k] = more[k];
		b->total[i] += n;
	}
	if (n < 0 && errno == EAGAIN)
		b->total[i] = -1;
	b->took_ns[i] = clock_mono_ns() - began;
	(void)close(fd);
}

static void
ask(struct bench *b, int i, const char *request, size_t n)
{
	int fd = dial(b);

	say(fd, request, n);
	hear(b, i, fd);
}
#define ASK(b, i, text) ask(b, i, text, sizeof text - 1)
#define GET "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

static void *
client_thread(void *arg)
{
	struct bench *b = arg;

	b->clients(b);
	(void)uv_async_send(&b->over);
	return NULL;
}

static void
on_over(uv_async_t *h)
{
	struct bench *b = h->data;

	metrics_stop(b->metrics);
	uv_close((uv_handle_t *)h, NULL);
}

static struct bench *
run(void (*clients)(struct bench *b), unsigned idle_s, int64_t life_ms, size_t padding)
{
	struct bench *b = calloc(1, sizeof *b);
	struct lc_err e = LC_ERR_INIT;
	struct metrics_opts o = {
	    .address = "127.0.0.1:0", .render = render, .idle_s = idle_s, .life_ms = life_ms};
	pthread_t thread;

	assert_non_null(b);
	b->clients = clients;
	b->padding = padding;
	assert_int_equal(uv_loop_init(&b->loop), 0);
	assert_int_equal(uv_async_init(&b->loop, &b->over, on_over), 0);
	b->over.data = b;
	o.loop = &b->loop;
	o.arg = b;
	if (metrics_start(&o, &b->metrics, &e) != 0)
		fail_msg("%s", e.msg);
	b->port = metrics_port(b->metrics);
	assert_in_range(b->port, 1, 65535);
	assert_int_equal(pthread_create(&thread, NULL, client_thread, b), 0);
	assert_int_equal(uv_run(&b->loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(uv_loop_close(&b->loop), 0);
	return b;
}

static void
assert_begins(const char *text, const char *with)
{
	if (strncmp(text, with, strlen(with)) != 0)
		fail_msg("'%.200s' does not begin with '%s'", text, with);
}

static void
assert_has(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("'%s' is not in '%.500s'", part, text);
}

/* ---- what is answered ---- */

static void
plain_clients(struct bench *b)
{
	ASK(b, 0, GET);
	ASK(b, 1, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	ASK(b, 2, "GET / HTTP/1.0\r\n\r\n");
	ASK(b, 3, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
	ASK(b, 4, "GET /metrics?x=1 HTTP/1.0\r\n\r\n");
	/* One answer a connection, also where more is asked. */
	ASK(b, 5, GET GET GET);
	/* A body that does not come is not waited for. */
	ASK(b, 6, "PUT /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
}

static void
test_answers(void **state)
{
	static const char body[] = "\r\n\r\n# HELP locum_vm_lag_seconds How old it is.\n"
				   "# TYPE locum_vm_lag_seconds gauge\n"
				   "locum_vm_lag_seconds{vm=\"web01\"} 1.25\n";
	struct bench *b = run(plain_clients, 0, 0, 0);
	int i;

	(void)state;
	for (i = 0; i < 7; i++)
		assert_true(b->total[i] > 0);
	assert_begins(b->answer[0], "HTTP/1.1 200 ");
	assert_has(b->answer[0], "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n");
	assert_has(b->answer[0], body);
	assert_begins(b->answer[1], "HTTP/1.1 200 ");
	assert_has(b->answer[1], "Content-Length: ");
	assert_null(strstr(b->answer[1], "HELP"));
	assert_has(b->answer[2], " 404 ");
	assert_has(b->answer[3], " 405 ");
	assert_has(b->answer[3], "Allow: GET, HEAD\r\n");
	assert_has(b->answer[4], body);
	assert_int_equal(b->total[5], b->total[0]);
	assert_has(b->answer[6], " 405 ");
	for (i = 0; i < 7; i++)
		assert_true(b->took_ns[i] < 5 * LC_NS_PER_S);
	/* Asked at once, it was not rendered each time. */
	assert_in_range(b->rendered, 1, 3);
	free(b);
}

/* ---- garbage ---- */

static void
garbage_clients(struct bench *b)
{
	static char big[256 << 10];
	unsigned seed = 7;
	int round;

	memset(big, 'A', sizeof big);
	ask(b, 0, big, sizeof big); /* never a line */
	memcpy(big, "GET /", 5);
	ask(b, 1, big, sizeof big);
	ASK(b, 2, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
	ASK(b, 3, "GET /metrics HTTP/9.9\r\n\r\n");
	ASK(b, 4, "GET /metrics\r\nno colon here\r\n: :\r\n\r\n");
	for (round = 0; round < 200; round++) {
		char noise[300];
		int fd = dial(b);
		size_t i;

		for (i = 0; i < sizeof noise; i++)
			noise[i] = (char)rand_r(&seed);
		if (round % 2 == 0)
			memcpy(noise, "GET /metrics HTTP/1.1\r\n", 23);
		if (round % 3 == 0)
			memcpy(noise + sizeof noise - 4, "\r\n\r\n", 4);
		say(fd, noise, sizeof noise);
		(void)close(fd);
	}
	ASK(b, 5, GET);
}

static void
test_garbage(void **state)
{
	struct bench *b = run(garbage_clients, 1, 3000, 0);
	int i;

	(void)state;
	for (i = 0; i < 5; i++) {
		assert_true(b->total[i] >= 0); /* it was ended */
		assert_null(strstr(b->answer[i], "web01"));
	}
	assert_begins(b->answer[5], "HTTP/1.1 200 ");
	free(b);
}

/* ---- many, and slow ones ---- */

static void
many_clients(struct bench *b)
{
	int fds[200], i;

	for (i = 0; i < 200; i++) { /* and none of them says anything */
		fds[i] = dial(b);
		if (i % 2 == 0)
			say(fds[i], "GET /met", 8);
	}
	ASK(b, 0, GET); /* long before the others have to go */
	for (i = 0; i < 200; i++)
		(void)close(fds[i]);
	ASK(b, 1, GET);
}

static void
test_many(void **state)
{
	struct bench *b = run(many_clients, 60, 60000, 0);

	(void)state;
	assert_begins(b->answer[0], "HTTP/1.1 200 ");
	assert_true(b->took_ns[0] < 10 * LC_NS_PER_S);
	assert_begins(b->answer[1], "HTTP/1.1 200 ");
	free(b);
}

/* One says nothing, one a byte now and then. */
static void
slow_clients(struct bench *b)
{
	static const char request[] = GET;
	int64_t began = clock_mono_ns();
	char byte;
	int fd;
	size_t i;

	ask(b, 0, "", 0);
	fd = dial(b);
	b->total[1] = -1;
	began = clock_mono_ns();
	for (i = 0; clock_mono_ns() - began < 15 * LC_NS_PER_S; i++) {
		say(fd, i < 8 ? &request[i] : "x", 1);
		(void)usleep(200000);
		if (recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EINTR)) {
			b->total[1] = 0;
			break;
		}
	}
	b->took_ns[1] = clock_mono_ns() - began;
	(void)close(fd);
	ASK(b, 2, GET);
}

static void
test_slow(void **state)
{
	struct bench *b = run(slow_clients, 1, 2500, 0);

	(void)state;
	assert_int_equal(b->total[0], 0);
	assert_in_range(b->took_ns[0], LC_NS_PER_S / 2, 8 * LC_NS_PER_S);
	assert_int_equal(b->total[1], 0);
	assert_in_range(b->took_ns[1], 2 * LC_NS_PER_S, 10 * LC_NS_PER_S);
	assert_begins(b->answer[2], "HTTP/1.1 200 ");
	free(b);
}

/* One takes nothing of a long answer; another one gets all of it. */
static void
lazy_clients(struct bench *b)
{
	static char some[65536];
	int fd = dial(b);
	int64_t began = clock_mono_ns();
	ssize_t n;

	say(fd, GET, sizeof GET - 1);
	(void)usleep(3500000);
	b->total[0] = 0;
	while ((n = recv(fd, some, sizeof some, 0)) > 0)
		b->total[0] += n;
	(void)close(fd);
	b->took_ns[0] = clock_mono_ns() - began;
	ASK(b, 1, GET);
}

static void
test_lazy(void **state)
{
	struct bench *b = run(lazy_clients, 1, 2500, BIG);

	(void)state;
	assert_true(b->total[0] < (ssize_t)BIG); /* it was not waited for */
	assert_true(b->total[1] > (ssize_t)BIG);
	assert_has(b->answer[1], "web01");
	free(b);
}

/* ---- no descriptor left ---- */

static void
starved_clients(struct bench *b)
{
	struct timeval patience = {.tv_sec = 20};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)b->port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), next = dup(fd);
	struct timespec from, to;
	struct rlimit was, now;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	(void)close(next);
	(void)getrlimit(RLIMIT_NOFILE, &was);
	now = was;
	now.rlim_cur = (rlim_t)next;
	(void)setrlimit(RLIMIT_NOFILE, &now);
	(void)connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a);
	say(fd, GET, sizeof GET - 1);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	(void)usleep(1000000);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	(void)setrlimit(RLIMIT_NOFILE, &was);
	b->took_ns[1] = (to.tv_sec - from.tv_sec) * LC_NS_PER_S + to.tv_nsec - from.tv_nsec;
	hear(b, 0, fd);
}

/* A connection that can't be taken does not keep the loop busy, and is taken once it can be. */
static void
test_no_descriptors(void **state)
{
	struct bench *b = run(starved_clients, 0, 0, 0);

	(void)state;
	assert_in_range(b->took_ns[1], 0, LC_NS_PER_S / 4);
	assert_begins(b->answer[0], "HTTP/1.1 200 ");
	free(b);
}

/* ---- begin and end ---- */

static void
leaving_clients(struct bench *b)
{
	/* The server ends while they are here. */
	int fd = dial(b), other = dial(b);

	say(fd, "GET /me", 7);
	(void)usleep(100000);
	(void)other;
	b->total[0] = fd;
	b->total[1] = other;
}

static void
test_stop_with_clients(void **state)
{
	struct bench *b = run(leaving_clients, 0, 0, 0);
	char byte;

	(void)state;
	assert_true(recv((int)b->total[0], &byte, 1, 0) <= 0);
	(void)close((int)b->total[0]);
	(void)close((int)b->total[1]);
	free(b);
}

static void
assert_start(uv_loop_t *loop, const char *address, int expected)
{
	struct metrics_opts o = {.loop = loop, .address = address, .render = render};
	struct lc_err e = LC_ERR_INIT;
	struct metrics *m = NULL;

	if (metrics_start(&o, &m, &e) != expected)
		fail_msg("%s: %s", address, e.msg);
	metrics_stop(m);
	(void)uv_run(loop, UV_RUN_DEFAULT);
	if (expected == LC_EINVAL)
		assert_has(e.msg, "is no address such as 127.0.0.1:9633");
}

static void
test_addresses(void **state)
{
	struct bench b = {.padding = 0};
	struct metrics_opts o = {.address = "0", .render = render, .arg = &b};
	struct lc_err e = LC_ERR_INIT;
	char taken[32];
	uv_loop_t loop;
	int fd;

	(void)state;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_start(&loop, "", LC_EINVAL);
	assert_start(&loop, "host.example:9633", LC_EINVAL);
	assert_start(&loop, "127.0.0.1:", LC_EINVAL);
	assert_start(&loop, "127.0.0.1:70000", LC_EINVAL);
	assert_start(&loop, "[::1:0", LC_EINVAL);
	assert_start(&loop, "*x", LC_EINVAL);
	assert_start(&loop, "127.0.0.1:0", 0);
	assert_start(&loop, "0", 0);
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		(void)close(fd);
		assert_start(&loop, "*:0", 0);
	}
	/* A number alone is a port of this machine only; what is taken is said to be so. */
	o.loop = &loop;
	assert_int_equal(metrics_start(&o, &b.metrics, &e), 0);
	(void)snprintf(taken, sizeof taken, "127.0.0.1:%u", metrics_port(b.metrics));
	o.address = taken;
	assert_int_equal(metrics_start(&o, &b.metrics, &e), LC_EBUSY);
	assert_has(e.msg, taken);
	/* As the agent does when it reads its settings anew. */
	metrics_stop(b.metrics);
	lc_err_clear(&e);
	if (metrics_start(&o, &b.metrics, &e) != 0)
		fail_msg("%s", e.msg);
	metrics_stop(b.metrics);
	assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_values),    cmocka_unit_test(test_labels),
	    cmocka_unit_test(test_answers),   cmocka_unit_test(test_garbage),
	    cmocka_unit_test(test_many),      cmocka_unit_test(test_slow),
	    cmocka_unit_test(test_lazy),      cmocka_unit_test(test_stop_with_clients),
	    cmocka_unit_test(test_addresses), cmocka_unit_test(test_no_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* source.c against real NBD servers: nbdkit with its fault filters, qemu-nbd with a bitmap, and bad
 * ones. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "agent/hypervisor/source.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "tests/lib/process.h"
#include "tests/lib/unit.h"

enum { BLOCK = 65536, MANY = 64 };

struct test {
	uv_loop_t loop;
	char *dir, *sock;
	pid_t server;
	struct source *s;
	unsigned opened, closed;
	struct lc_err open_err;
};

struct reply { /* of one request */
	struct test *t;
	unsigned calls;
	struct lc_err err;
	struct source_extent x[32];
	size_t nx;
	unsigned *pending;
	bool close_in_callback;
	uint8_t data[BLOCK];
};

/* Callbacks stop the loop: UV_RUN_ONCE, after a timer, would wait for more. */
static void
finish(struct test *t)
{
	while (uv_run(&t->loop, UV_RUN_DEFAULT) != 0)
		continue;
}

static int
setup(void **state)
{
	struct test *t = calloc(1, sizeof *t);

	t->dir = process_tmpdir();
	t->sock = process_path(t->dir, "nbd");
	*state = t;
	return uv_loop_init(&t->loop);
}

static void
on_closed(void *arg)
{
	struct test *t = arg;

	t->closed++;
}

static int
teardown(void **state)
{
	struct test *t = *state;
	int rc;

	if (t->s != NULL) {
		source_close(t->s, on_closed, t);
		finish(t);
	}
	process_stop(t->server);
	rc = uv_loop_close(&t->loop);
	dir_remove(t->dir);
	free(t->dir);
	free(t->sock);
	free(t);
	return rc;
}

static void
on_open(void *arg, const struct lc_err *err)
{
	struct test *t = arg;

	t->opened++;
	uv_stop(&t->loop);
	t->open_err = *err;
}

static void
on_done(void *arg, const struct lc_err *err)
{
	struct reply *r = arg;

	r->calls++;
	uv_stop(&r->t->loop);
	r->err = *err;
	if (r->pending != NULL)
		(*r->pending)--;
	if (r->close_in_callback) {
		source_close(r->t->s, on_closed, r->t);
		r->t->s = NULL;
	}
}

static void
on_extents(void *arg, const struct source_extent *x, size_t n, const struct lc_err *err)
{
	struct reply *r = arg;

	r->calls++;
	uv_stop(&r->t->loop);
	r->err = *err;
	r->nx = n < 32 ? n : 32;
	if (n > 0)
		memcpy(r->x, x, r->nx * sizeof *x);
}

static void
serve(struct test *t, const char *const *more)
{
	const char *argv[32] = {"nbdkit", "-f", "-U", t->sock};
	size_t n = 4;

	while (*more != NULL && n < 31)
		argv[n++] = *more++;
	t->server = process_start(argv);
	assert_true(process_listens(t->sock, 10000));
}
#define SERVE(t, ...) serve(t, (const char *const[]){__VA_ARGS__, NULL})

static void
open_with(struct test *t, const char *dirty, int64_t timeout_ms)
{
	struct source_opts o = {.name = "web01/vda",
	                        .socket = t->sock,
	                        .export_name = "",
	                        .dirty_context = dirty,
	                        .timeout_ms = timeout_ms};
	struct lc_err e = LC_ERR_INIT;
	int rc = source_open(&t->loop, &o, on_open, t, &t->s, &e);

	if (rc != 0)
		fail_msg("open: %s", e.msg);
	assert_int_equal(t->opened, 0);
	while (t->opened == 0)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	assert_int_equal(t->opened, 1);
}

static void
open_ok(struct test *t, const char *dirty, int64_t timeout_ms)
{
	open_with(t, dirty, timeout_ms);
	if (t->open_err.code != LC_OK)
		fail_msg("open: %s", t->open_err.msg);
}

static void
run_until(struct test *t, const unsigned *calls, unsigned n)
{
	while (*calls < n)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
}

static struct reply *
start_reads(struct test *t, unsigned n, unsigned *pending)
{
	struct reply *r = calloc(n, sizeof *r);
	struct lc_err e = LC_ERR_INIT;
	unsigned i;

	*pending = n;
	for (i = 0; i < n; i++) {
		r[i].t = t;
		r[i].pending = pending;
		if (source_read(t->s, r[i].data, BLOCK, (uint64_t)i * BLOCK, on_done, &r[i], &e) !=
		    0)
			fail_msg("read: %s", e.msg);
		assert_int_equal(r[i].calls, 0);
	}
	return r;
}

static void
expect_all(const struct reply *r, unsigned n, enum lc_code code)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		assert_int_equal(r[i].calls, 1);
		if (r[i].err.code != code)
			fail_msg("request %u: %d: %s", i, r[i].err.code, r[i].err.msg);
	}
}

static void
test_reads_many(void **state)
{
	struct test *t = *state;
	unsigned pending, i, j;
	struct reply *r;

	SERVE(t, "pattern", "size=64M");
	open_ok(t, NULL, 0);
	assert_int_equal(source_size(t->s), 64 << 20);
	r = start_reads(t, MANY, &pending);
	while (pending > 0)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	expect_all(r, MANY, LC_OK);
	for (i = 0; i < MANY; i++) {
		for (j = 0; j < BLOCK; j += 8) { /* the pattern is its own offset, big-endian */
			uint64_t v = __builtin_bswap64(lc_get64(r[i].data + j));

			assert_int_equal(v, (uint64_t)i * BLOCK + j);
		}
	}
	free(r);
}

static void
test_reads_the_tail_and_refuses_beyond(void **state)
{
	struct test *t = *state;
	struct reply r = {.t = t};
	struct lc_err e = LC_ERR_INIT;

	SERVE(t, "pattern", "size=66048");
	open_ok(t, NULL, 0);
	assert_int_equal(source_read(t->s, r.data, 512, 65536, on_done, &r, NULL), 0);
	run_until(t, &r.calls, 1);
	assert_int_equal(r.err.code, LC_OK);
	assert_int_equal(source_read(t->s, r.data, 513, 65536, on_done, &r, &e), LC_EINVAL);
	assert_non_null(strstr(e.msg, "web01/vda"));
	assert_int_equal(source_read(t->s, r.data, 0, 0, on_done, &r, NULL), LC_EINVAL);
	assert_int_equal(source_read(t->s, r.data, 1, UINT64_MAX, on_done, &r, NULL), LC_EINVAL);
	assert_int_equal(source_extents(t->s, 66048, 1, on_extents, &r, NULL), LC_EINVAL);
	assert_int_equal(r.calls, 1);
}

static void
test_extents_tell_holes(void **state)
{
	struct test *t = *state;
	struct reply r = {.t = t};

	SERVE(t, "data", "data=@1048576 1 2 3", "size=8M");
	open_ok(t, NULL, 0);
	assert_int_equal(source_extents(t->s, 0, 8 << 20, on_extents, &r, NULL), 0);
	run_until(t, &r.calls, 1);
	assert_int_equal(r.err.code, LC_OK);
	assert_int_equal(r.nx, 3);
	assert_int_equal(r.x[0].off, 0);
	assert_int_equal(r.x[0].len, 1 << 20);
	assert_true(!r.x[0].data && r.x[0].zero);
	assert_true(r.x[1].data && !r.x[1].zero);
	assert_true(!r.x[2].data && r.x[2].zero);
	assert_int_equal(r.x[2].off + r.x[2].len, 8 << 20);
	/* From the middle, with an end inside an extent. */
	assert_int_equal(source_extents(t->s, 4096, 8192, on_extents, &r, NULL), 0);
	run_until(t, &r.calls, 2);
	assert_int_equal(r.nx, 1);
	assert_int_equal(r.x[0].off, 4096);
	assert_int_equal(r.x[0].len, 8192);
}

static void
test_extents_of_a_server_that_knows_none(void **state)
{
	struct test *t = *state;
	struct reply r = {.t = t};

	SERVE(t, "--no-sr", "pattern", "size=8M");
	open_ok(t, NULL, 0);
	assert_int_equal(source_extents(t->s, 0, 8 << 20, on_extents, &r, NULL), 0);
	assert_int_equal(r.calls, 0);
	run_until(t, &r.calls, 1);
	assert_int_equal(r.nx, 1);
	assert_true(r.x[0].data && !r.x[0].zero && r.x[0].len == 8 << 20);
}

static void
test_one_refusal_is_not_the_end(void **state)
{
	struct test *t = *state;
	char *trigger = process_path(t->dir, "fail");
	char *opt = process_path("error-pread-file=", trigger);
	struct reply r = {.t = t};

	memmove(opt + strlen("error-pread-file="), opt + strlen("error-pread-file=/"),
	        strlen(trigger) + 1);
	assert_int_equal(file_write_new(trigger, "", 0, 0600, NULL), 0);
	SERVE(t, "--filter=error", "pattern", "size=8M", "error-pread=EIO", "error-pread-rate=100%",
	      opt);
	open_ok(t, NULL, 0);
	assert_int_equal(source_read(t->s, r.data, 4096, 8192, on_done, &r, NULL), 0);
	run_until(t, &r.calls, 1);
	assert_int_equal(r.err.code, LC_EIO);
	assert_non_null(strstr(r.err.msg, "web01/vda: read of 4096 bytes at offset 8192"));
	assert_int_equal(unlink(trigger), 0);
	assert_int_equal(source_read(t->s, r.data, 4096, 8192, on_done, &r, NULL), 0);
	run_until(t, &r.calls, 2);
	assert_int_equal(r.err.code, LC_OK);
	free(opt);
	free(trigger);
}

static void
test_a_refused_block_status(void **state)
{
	struct test *t = *state;
	struct reply r = {.t = t};

	SERVE(t, "--filter=error", "data", "data=1 2", "size=8M", "error-extents=EIO",
	      "error-extents-rate=100%");
	open_ok(t, NULL, 0);
	assert_int_equal(source_extents(t->s, 0, 1 << 20, on_extents, &r, NULL), 0);
	run_until(t, &r.calls, 1);
	assert_int_equal(r.err.code, LC_EIO);
	assert_int_equal(r.nx, 0);
}

static void
test_silence_breaks_the_source(void **state)
{
	struct test *t = *state;
	int64_t t0 = clock_mono_ns(), took_ms;
	unsigned pending;
	struct lc_err e = LC_ERR_INIT;
	struct reply *r;

	SERVE(t, "--filter=delay", "pattern", "size=8M", "delay-read=30");
	open_ok(t, NULL, 300);
	t0 = clock_mono_ns();
	r = start_reads(t, 16, &pending);
	while (pending > 0)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	took_ms = (clock_mono_ns() - t0) / LC_NS_PER_MS;
	assert_in_range(took_ms, 290, 2000);
	expect_all(r, 16, LC_ETIMEDOUT);
	assert_non_null(strstr(r[0].err.msg, "no answer from the server within 300 ms"));
	assert_int_equal(source_read(t->s, r[0].data, 512, 0, on_done, &r[0], &e), LC_ETIMEDOUT);
	assert_int_equal(r[0].calls, 1);
	free(r);
}

static void
test_a_stopped_server(void **state)
{
	struct test *t = *state;
	unsigned pending;
	struct reply *r;
	int status;

	SERVE(t, "pattern", "size=8M");
	open_ok(t, NULL, 200);
	assert_int_equal(kill(t->server, SIGSTOP), 0);
	assert_int_equal(waitpid(t->server, &status, WUNTRACED), t->server);
	r = start_reads(t, 3, &pending);
	while (pending > 0)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	expect_all(r, 3, LC_ETIMEDOUT);
	free(r);
}

static void
test_an_answer_that_waits_for_us_counts(void **state)
{
	struct test *t = *state;
	const struct timespec nap = {.tv_nsec = 700000000};
	unsigned pending;
	struct reply *r;

	SERVE(t, "--filter=delay", "pattern", "size=64M", "delay-read=10ms");
	open_ok(t, NULL, 400);
	r = start_reads(t, 64, &pending);
	(void)nanosleep(&nap, NULL); /* the loop is held up beyond the deadline */
	while (pending > 0)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	expect_all(r, 64, LC_OK);
	free(r);
}

static void
test_a_killed_server(void **state)
{
	struct test *t = *state;
	unsigned pending;
	struct lc_err e = LC_ERR_INIT;
	struct reply *r;

	SERVE(t, "--filter=delay", "pattern", "size=8M", "delay-read=20");
	open_ok(t, NULL, 0);
	r = start_reads(t, 32, &pending);
	(void)uv_run(&t->loop, UV_RUN_NOWAIT);
	assert_int_equal(pending, 32);
	process_stop(t->server);
	t->server = 0;
	while (pending > 0)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	expect_all(r, 32, LC_EPEER);
	assert_non_null(strstr(r[5].err.msg, "web01/vda: "));
	assert_int_equal(source_extents(t->s, 0, 512, on_extents, r, &e), LC_EPEER);
	free(r);
}

static void
test_a_server_that_dies_while_nobody_asks(void **state)
{
	struct test *t = *state;
	unsigned pending;
	struct reply *r;

	SERVE(t, "pattern", "size=8M");
	open_ok(t, NULL, 0);
	process_stop(t->server);
	t->server = 0;
	/* Not noticed yet: these meet the broken pipe while being sent, or are refused. */
	r = start_reads(t, 1, &pending);
	while (pending > 0)
		(void)uv_run(&t->loop, UV_RUN_ONCE);
	expect_all(r, 1, LC_EPEER);
	assert_int_equal(source_read(t->s, r->data, 512, 0, on_done, r, NULL), LC_EPEER);
	free(r);
}

static void
test_close_ends_what_is_in_flight(void **state)
{
	struct test *t = *state;
	unsigned pending;
	struct reply *r;

	SERVE(t, "--filter=delay", "pattern", "size=8M", "delay-read=20");
	open_ok(t, NULL, 0);
	r = start_reads(t, 16, &pending);
	source_close(t->s, on_closed, t);
	t->s = NULL;
	assert_int_equal(pending, 16);
	memset(r[3].data, 0x5a, BLOCK); /* nobody writes here any more */
	finish(t);
	assert_int_equal(t->closed, 1);
	expect_all(r, 16, LC_ECANCELED);
	assert_int_equal(r[3].data[0], 0x5a);
	free(r);
}

static void
test_close_in_a_callback(void **state)
{
	struct test *t = *state;
	unsigned pending;
	struct reply *r;

	SERVE(t, "pattern", "size=8M");
	open_ok(t, NULL, 0);
	r = start_reads(t, 16, &pending);
	r[0].close_in_callback = true;
	finish(t);
	assert_int_equal(t->closed, 1);
	assert_int_equal(pending, 0);
	assert_int_equal(r[0].err.code, LC_OK);
	assert_int_equal(r[15].calls, 1);
	free(r);
}

static void
test_close_while_connecting(void **state)
{
	struct test *t = *state;
	struct source_opts o = {.name = "d", .socket = t->sock};

	SERVE(t, "pattern", "size=8M");
	assert_int_equal(source_open(&t->loop, &o, on_open, t, &t->s, NULL), 0);
	source_close(t->s, on_closed, t);
	t->s = NULL;
	assert_int_equal(t->opened, 0);
	finish(t);
	assert_int_equal(t->opened, 1);
	assert_int_equal(t->open_err.code, LC_ECANCELED);
	assert_int_equal(t->closed, 1);
}

static int
listen_at(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	assert_int_equal(bind(fd, (const struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void
test_open_fails(void **state)
{
	struct test *t = *state;
	struct source_opts o = {.name = "d", .socket = t->sock, .timeout_ms = 200};
	struct lc_err e = LC_ERR_INIT;
	int fd;

	assert_int_equal(source_open(&t->loop, &o, on_open, t, &t->s, &e), LC_ENOENT);
	assert_non_null(strstr(e.msg, t->sock));
	fd = listen_at(t->sock);
	open_with(t, NULL, 200); /* somebody listens, nobody speaks */
	assert_int_equal(t->open_err.code, LC_ETIMEDOUT);
	source_close(t->s, NULL, NULL);
	t->s = NULL;
	(void)close(fd);
	assert_int_equal(source_open(&t->loop, &o, on_open, t, &t->s, NULL), LC_EPEER);
	finish(t);
	assert_int_equal(t->opened, 1);
}

static void
test_open_of_no_nbd_server(void **state)
{
	struct test *t = *state;
	struct source_opts o = {.name = "d", .socket = t->sock};
	static const char greeting[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
	int fd = listen_at(t->sock), c;

	assert_int_equal(source_open(&t->loop, &o, on_open, t, &t->s, NULL), 0);
	c = accept(fd, NULL, NULL);
	assert_int_equal(write(c, greeting, sizeof greeting - 1), sizeof greeting - 1);
	run_until(t, &t->opened, 1);
	assert_int_equal(t->open_err.code, LC_EPEER);
	assert_non_null(strstr(t->open_err.msg, "d: "));
	(void)close(c);
	(void)close(fd);
}

static void
test_out_of_memory(void **state)
{
	struct test *t = *state;
	struct source_opts o = {.name = "d", .socket = t->sock, .dirty_context = "x"};
	struct reply r = {.t = t};
	long n;

	SERVE(t, "data", "data=@1048576 1", "size=8M");
	for (n = 0; n < 4; n++) {
		lc_alloc_fail_after(n);
		assert_int_equal(source_open(&t->loop, &o, on_open, t, &t->s, NULL), LC_ENOMEM);
		lc_alloc_fail_after(-1);
		assert_null(t->s);
	}
	open_ok(t, NULL, 0);
	lc_alloc_fail_after(0);
	assert_int_equal(source_read(t->s, r.data, 512, 0, on_done, &r, NULL), LC_ENOMEM);
	assert_int_equal(source_extents(t->s, 0, 512, on_extents, &r, NULL), LC_ENOMEM);
	for (n = 1; n < 3; n++) { /* in libnbd's callback, then in ours */
		lc_alloc_fail_after(n);
		assert_int_equal(source_extents(t->s, 0, 8 << 20, on_extents, &r, NULL), 0);
		run_until(t, &r.calls, (unsigned)n);
		assert_int_equal(r.err.code, LC_ENOMEM);
	}
	lc_alloc_fail_after(-1);
	assert_int_equal(source_read(t->s, r.data, 512, 0, on_done, &r, NULL), 0);
	run_until(t, &r.calls, 3);
	assert_int_equal(r.err.code, LC_OK);
}

static void
test_changes_of_a_bitmap(void **state)
{
	struct test *t = *state;
	char *img = process_path(t->dir, "d.qcow2");
	const char *create[] = {"qemu-img", "create", "-q", "-f", "qcow2", img, "16M", NULL};
	const char *fill[] = {"qemu-io",          "-f", "qcow2", "-c", "write -P 1 0 4M", "-c",
	                      "write -z 12M 64k", img,  NULL};
	const char *add[] = {"qemu-img", "bitmap", "--add", "-g", "65536", img, "rp1", NULL};
	const char *change[] = {"qemu-io",          "-f", "qcow2", "-c", "write -P 2 1M 100k", "-c",
	                        "write -z 2M 128k", img,  NULL};
	const char *nbd[] = {"qemu-nbd", "-r", "-t",    "-f", "qcow2", "-B",
	                     "rp1",      "-k", t->sock, img,  NULL};
	static const struct source_extent want[] = {
	    {.off = 0, .len = 1 << 20, .data = false, .zero = false},
	    {.off = 1 << 20, .len = 128 << 10, .data = true, .zero = false},
	    {.off = (1 << 20) + (128 << 10), .len = (1 << 20) - (128 << 10)},
	    {.off = 2 << 20, .len = 128 << 10, .data = true, .zero = true},
	    {.off = (2 << 20) + (128 << 10), .len = (2 << 20) - (128 << 10)},
	    {.off = 4 << 20, .len = 12 << 20, .data = false, .zero = true},
	};
	struct reply r = {.t = t};
	size_t i;

	if (!process_have("qemu-nbd"))
		skip();
	assert_int_equal(process_run(create), 0);
	assert_int_equal(process_run(fill), 0);
	assert_int_equal(process_run(add), 0);
	assert_int_equal(process_run(change), 0);
	t->server = process_start(nbd);
	assert_true(process_listens(t->sock, 10000));
	open_ok(t, "qemu:dirty-bitmap:rp1", 0);
	assert_int_equal(source_extents(t->s, 0, 16 << 20, on_extents, &r, NULL), 0);
	run_until(t, &r.calls, 1);
	assert_int_equal(r.err.code, LC_OK);
	assert_int_equal(r.nx, sizeof want / sizeof want[0]);
	for (i = 0; i < r.nx; i++) {
		assert_int_equal(r.x[i].off, want[i].off);
		assert_int_equal(r.x[i].len, want[i].len);
		assert_int_equal(r.x[i].data, want[i].data);
		assert_int_equal(r.x[i].zero, want[i].zero);
	}
	/* A record of changes that isn't there is never taken for "nothing changed". */
	source_close(t->s, NULL, NULL);
	t->s = NULL;
	t->opened = 0;
	open_with(t, "qemu:dirty-bitmap:rp2", 0);
	assert_int_equal(t->open_err.code, LC_ENOENT);
	assert_non_null(strstr(t->open_err.msg, "qemu:dirty-bitmap:rp2"));
	free(img);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_reads_many),
	    T(test_reads_the_tail_and_refuses_beyond),
	    T(test_extents_tell_holes),
	    T(test_extents_of_a_server_that_knows_none),
	    T(test_one_refusal_is_not_the_end),
	    T(test_a_refused_block_status),
	    T(test_silence_breaks_the_source),
	    T(test_a_stopped_server),
	    T(test_an_answer_that_waits_for_us_counts),
	    T(test_a_killed_server),
	    T(test_a_server_that_dies_while_nobody_asks),
	    T(test_close_ends_what_is_in_flight),
	    T(test_close_in_a_callback),
	    T(test_close_while_connecting),
	    T(test_open_fails),
	    T(test_open_of_no_nbd_server),
	    T(test_out_of_memory),
	    T(test_changes_of_a_bitmap),
	};

	if (!process_have("nbdkit")) {
		(void)printf("skipped: nbdkit is not there\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

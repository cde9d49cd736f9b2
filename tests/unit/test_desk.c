/*
 * desk, chore, visit, tenure: another process has a store, as the agent would, and does what is
 * asked for; it is stopped and killed meanwhile, and so is who asks.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "agent/tenure.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "store/desk/visit.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define SOON_MS 20000
#define SHORT_MS 400 /* the patience of one who is to lose it */

/* ---- the owner ---- */

static const char *words; /* with which it fails; "": it does not say why */

static int
take_nothing(void *arg, const char *dir, struct store **out, struct lc_err *e)
{
	(void)arg;
	(void)dir;
	(void)out;
	return *words == '\0' ? LC_EIO : lc_fail(e, LC_EIO, 0, "%s", words);
}

struct owner {
	uv_loop_t loop;
	uv_signal_t on_term;
	uv_timer_t timer;
	const struct vault *v;
	struct store_opts so;
	struct store *s;
	struct tenure *tenure;
	struct desk *desk;
	bool refuses;
};

static void
open_it(struct owner *o)
{
	struct lc_err e = LC_ERR_INIT;

	if (store_open(&o->so, &o->s, &e) != 0) {
		(void)fprintf(stderr, "owner: %s\n", e.msg);
		_exit(9);
	}
	tenure_store(o->tenure, o->s);
}

static void
on_wanted(void *arg, const char *who)
{
	struct owner *o = arg;
	struct lc_err why = LC_ERR_INIT;

	(void)who;
	if (o->refuses) {
		(void)lc_fail(&why, LC_EBUSY, 0, "not now");
		tenure_refuse(o->tenure, &why);
		return;
	}
	tenure_store(o->tenure, NULL);
	store_close(o->s);
	o->s = NULL;
	tenure_lent(o->tenure);
}

static void
on_back(void *arg)
{
	struct owner *o = arg;

	if (uv_is_closing((uv_handle_t *)&o->on_term) == 0)
		open_it(o);
}

static void
on_desk_closed(void *arg)
{
	struct owner *o = arg;

	tenure_close(o->tenure);
}

static void
on_term(uv_signal_t *h, int signum)
{
	struct owner *o = h->data;
	struct lc_err why = LC_ERR_INIT;

	(void)signum;
	(void)lc_fail(&why, LC_EBUSY, 0, "stopping");
	tenure_refuse(o->tenure, &why);
	desk_close(o->desk, on_desk_closed, o);
	uv_close((uv_handle_t *)h, NULL);
}

static void
own(const struct vault *v, const char *path, bool refuses, int ready)
{
	struct owner o = {.v = v, .refuses = refuses};
	struct tenure_opts to = {
	    .loop = &o.loop, .dir = v->dir, .arg = &o, .wanted = on_wanted, .back = on_back};
	struct desk_opts dopts = {.loop = &o.loop, .path = path};
	struct lc_err e = LC_ERR_INIT;

	o.so = (struct store_opts){.dir = v->dir,
	                           .mode = STORE_WRITE,
	                           .who = "the owner",
	                           .desk = path,
	                           .wait_ms = 2000,
	                           .key_dir = v->keys};
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)uv_loop_init(&o.loop);
	(void)uv_signal_init(&o.loop, &o.on_term);
	o.on_term.data = &o;
	(void)uv_signal_start(&o.on_term, on_term, SIGTERM);
	if (tenure_new(&to, &o.tenure, &e) != 0)
		_exit(8);
	open_it(&o);
	dopts.owner = tenure_owner(o.tenure);
	if (words != NULL)
		dopts.owner.take = take_nothing;
	if (desk_open(&dopts, &o.desk, &e) != 0 || write(ready, "!", 1) != 1)
		_exit(7);
	(void)uv_run(&o.loop, UV_RUN_DEFAULT);
	store_close(o.s);
	_exit(uv_loop_close(&o.loop) == 0 ? 0 : 6);
}

/* ---- both ---- */

struct scene {
	struct vault v;
	char path[100];
	pid_t owner;
	struct vault_disk disk;
	struct point points[3];
	struct lc_err busy;
};

static void
start_owner(struct scene *x, bool refuses)
{
	int ready[2];
	char c;

	assert_int_equal(pipe(ready), 0);
	(void)fflush(stdout);
	x->owner = fork();
	assert_true(x->owner >= 0);
	if (x->owner == 0)
		own(&x->v, x->path, refuses, ready[1]);
	(void)close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	(void)close(ready[0]);
}

static int
ended(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void
make(struct scene *x, bool refuses)
{
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	memset(x, 0, sizeof *x);
	vault_make(&x->v, true);
	assert_true(snprintf(x->path, sizeof x->path, "%s/desk", x->v.top) < (int)sizeof x->path);
	x->disk = vault_disk("vda", 8);
	vault_open(&x->v);
	for (i = 0; i < 3; i++) {
		x->disk.codes[i] = 10 + i;
		if (vault_backup(x->v.s, "web01", &x->disk, 1, &x->points[i], &e) != 0)
			fail_msg("%s", e.msg);
	}
	vault_close(&x->v);
	start_owner(x, refuses);
	(void)lc_fail(&x->busy, LC_EBUSY, 0, "in use by the owner");
}

static void
done(struct scene *x)
{
	if (x->owner > 0) {
		(void)kill(x->owner, SIGCONT);
		(void)kill(x->owner, SIGTERM);
		assert_int_equal(ended(x->owner), 0);
	}
	vault_disk_free(&x->disk);
	vault_free(&x->v);
}

static struct visit *
visit(struct scene *x, int64_t patience_ms)
{
	struct visit_opts o = {
	    .dir = x->v.dir, .who = "locum test", .busy = &x->busy, .patience_ms = patience_ms};
	struct lc_err e = LC_ERR_INIT;
	struct visit *v = NULL;

	if (visit_open(&o, &v, &e) != 0)
		fail_msg("%s", e.msg);
	return v;
}

static unsigned
points_now(const struct scene *x)
{
	struct point_list l = {0};
	struct lc_err e = LC_ERR_INIT;
	struct store *s = NULL;
	unsigned n;

	if (vault_try(&x->v, STORE_READ, &s, &e) != 0 || store_points(s, "web01", &l, &e) != 0)
		fail_msg("%s", e.msg);
	n = (unsigned)l.n;
	point_list_free(&l);
	store_close(s);
	return n;
}

/* ---- in order ---- */

static void
points_are_dropped_one_after_the_other(void **state)
{
	struct lc_err e = LC_ERR_INIT, here = LC_ERR_INIT;
	uint8_t none[POINT_ID_SIZE] = {1, 2, 3};
	struct scene x;
	struct visit *v;

	(void)state;
	make(&x, false);
	v = visit(&x, SOON_MS);
	assert_int_equal(visit_drop(v, x.points[0].id, &e), 0);
	assert_int_equal(visit_drop(v, x.points[2].id, &e), 0);
	assert_int_equal(points_now(&x), 1);
	/* As the owner himself is told. */
	assert_int_equal(visit_drop(v, none, &e), LC_ENOENT);
	visit_close(v);
	(void)kill(x.owner, SIGTERM);
	assert_int_equal(ended(x.owner), 0);
	x.owner = 0;
	vault_open(&x.v);
	assert_int_equal(store_drop(x.v.s, none, &here), LC_ENOENT);
	assert_string_equal(e.msg, here.msg);
	lc_err_clear(&e);
	if (vault_verify(x.v.s, x.points[1].id, &e) != 0)
		fail_msg("%s", e.msg);
	done(&x);
}

/* What failed without a word is not done; nor is nothing said for want of the right letters. */
static void
a_failure_is_told_whatever_it_says(void **state)
{
	static const struct {
		const char *words, *told;
	} cases[] = {{"", "input/output error"},
	             {"/b\xc3\xbcro: full", "/b\xc3\xbcro: full"},
	             {"/b\xfcro: cut off \xc3", "/b?ro: cut off ?"}};
	struct lc_err e = LC_ERR_INIT;
	struct scene x;
	struct visit *v;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		words = cases[i].words;
		make(&x, false);
		words = NULL;
		v = visit(&x, 3000);
		lc_err_clear(&e);
		assert_int_equal(visit_drop(v, x.points[0].id, &e), LC_EIO);
		assert_string_equal(e.msg, cases[i].told);
		assert_int_equal(points_now(&x), 3);
		visit_close(v);
		done(&x);
	}
}

static void
who_reads_for_a_moment_is_waited_for(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct store *s = NULL;
	struct view *view = NULL;
	struct scene x;
	struct visit *v;
	int64_t at;

	(void)state;
	make(&x, false);
	assert_int_equal(vault_try(&x.v, STORE_READ, &s, &e), 0);
	assert_int_equal(store_view(s, x.points[1].id, &view, &e), 0);
	v = visit(&x, SOON_MS);
	at = clock_mono_ns();
	assert_int_equal(visit_drop(v, x.points[1].id, &e), LC_EBUSY);
	assert_non_null(strstr(e.msg, "is being read"));
	assert_true(clock_mono_ns() - at > LC_NS_PER_S);
	view_close(view);
	lc_err_clear(&e);
	assert_int_equal(visit_drop(v, x.points[1].id, &e), 0);
	store_close(s);
	visit_close(v);
	done(&x);
}

static void
collect(void *arg, const struct damage *d)
{
	(void)lc_buf_append(arg, d, sizeof *d);
}

static void
damage_is_noted(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf list = {0};
	struct vault_piece p;
	struct store *s = NULL;
	struct scene x;
	struct visit *v;
	uint64_t n, m;

	(void)state;
	make(&x, false);
	assert_true(vault_piece_of(x.v.dir, RECORD_CHUNK, 1, &p));
	vault_flip(x.v.dir, &p, RECORD_HEADER_SIZE + 60, 1);
	assert_int_equal(vault_try(&x.v, STORE_READ, &s, &e), 0);
	assert_int_equal(store_scrub(s, collect, &list, &n, &m, &e), LC_ECORRUPT);
	assert_int_equal(list.n / sizeof(struct damage), 1);
	lc_err_clear(&e);
	/* More than go into one request. */
	while (list.n / sizeof(struct damage) < 1201) {
		struct damage none = {
		    .offset = UINT64_MAX, .length = UINT64_MAX, .seq = UINT64_MAX};

		assert_int_equal(lc_buf_append(&list, &none, sizeof none), 0);
	}
	store_close(s);
	v = visit(&x, SOON_MS);
	if (visit_condemn(v, (const struct damage *)(const void *)list.p,
	                  list.n / sizeof(struct damage), &n, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(n, 1);
	lc_buf_free(&list);
	visit_close(v);
	(void)kill(x.owner, SIGTERM);
	assert_int_equal(ended(x.owner), 0);
	x.owner = 0;
	/* A backup that meets the content stores it again: all is well. */
	vault_open(&x.v);
	if (vault_backup(x.v.s, "web01", &x.disk, 1, NULL, &e) != 0 ||
	    vault_verify(x.v.s, x.points[2].id, &e) != 0)
		fail_msg("%s", e.msg);
	done(&x);
}

static void
the_store_is_lent_and_comes_back(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct visit *v, *other;
	struct scene x;
	int i, rc = -1;

	(void)state;
	make(&x, false);
	v = visit(&x, SOON_MS);
	other = visit(&x, SOON_MS);
	if (visit_lend(v, &e) != 0)
		fail_msg("%s", e.msg);
	vault_open(&x.v); /* it has the lock to itself */
	assert_int_equal(visit_drop(other, x.points[0].id, &e), LC_EBUSY);
	assert_non_null(strstr(e.msg, "lent its store to locum test"));
	lc_err_clear(&e);
	assert_int_equal(visit_lend(other, &e), LC_EBUSY);
	assert_int_equal(store_drop(x.v.s, x.points[2].id, NULL), 0);
	vault_close(&x.v);
	visit_close(v);
	for (i = 0; i < 200 && rc != 0; i++) {
		const struct timespec pause = {.tv_nsec = 20 * LC_NS_PER_MS};

		(void)nanosleep(&pause, NULL);
		lc_err_clear(&e);
		rc = visit_drop(other, x.points[0].id, &e);
	}
	if (rc != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(points_now(&x), 1);
	/* Stopped while it is lent, it ends. */
	if (visit_lend(other, &e) != 0)
		fail_msg("%s", e.msg);
	(void)kill(x.owner, SIGTERM);
	assert_int_equal(ended(x.owner), 0);
	x.owner = 0;
	visit_close(other);
	done(&x);
}

static void
who_does_not_lend_says_so(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct scene x;
	struct visit *v;

	(void)state;
	make(&x, true);
	v = visit(&x, SOON_MS);
	assert_int_equal(visit_lend(v, &e), LC_EBUSY);
	assert_string_equal(e.msg, "not now");
	assert_int_equal(visit_drop(v, x.points[0].id, NULL), 0);
	visit_close(v);
	done(&x);
}

/* ---- what goes wrong ---- */

static void
an_owner_that_hangs_is_told_in_time(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct scene x;
	struct visit *v;
	int64_t at;

	(void)state;
	make(&x, false);
	(void)kill(x.owner, SIGSTOP);
	v = visit(&x, SHORT_MS);
	at = clock_mono_ns();
	assert_int_equal(visit_drop(v, x.points[0].id, &e), LC_ETIMEDOUT);
	assert_true(clock_mono_ns() - at < 10 * SHORT_MS * LC_NS_PER_MS);
	assert_non_null(strstr(e.msg, "in use by the owner, and has said nothing"));
	visit_close(v);
	done(&x);
}

static void
an_owner_that_is_killed_is_told(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct scene x;
	struct visit *v;
	pid_t killer;

	(void)state;
	make(&x, false);
	(void)kill(x.owner, SIGSTOP);
	v = visit(&x, SOON_MS);
	(void)fflush(stdout);
	killer = fork();
	if (killer == 0) {
		(void)usleep(200000);
		(void)kill(x.owner, SIGKILL);
		_exit(0);
	}
	assert_int_equal(visit_drop(v, x.points[0].id, &e), LC_EPEER);
	assert_non_null(strstr(e.msg, "ended before it answered"));
	visit_close(v);
	assert_int_equal(ended(killer), 0);
	assert_int_equal(ended(x.owner), 128 + SIGKILL);
	/* The store is free, and its text names a socket where nobody is. */
	vault_open(&x.v);
	vault_close(&x.v);
	{
		struct visit_opts o = {.dir = x.v.dir, .who = "locum test", .busy = &x.busy};

		lc_err_clear(&e);
		assert_int_equal(visit_open(&o, &v, &e), LC_ENOENT);
	}
	start_owner(&x, false); /* also where the socket of the other one lies about */
	v = visit(&x, SOON_MS);
	assert_int_equal(visit_drop(v, x.points[0].id, NULL), 0);
	visit_close(v);
	done(&x);
}

static void
an_asker_that_is_killed_harms_nobody(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct scene x;
	struct visit *v;
	pid_t asker;
	int i, rc = -1;

	(void)state;
	make(&x, false);
	(void)fflush(stdout);
	asker = fork();
	if (asker == 0) {
		v = visit(&x, SOON_MS);
		_exit(visit_lend(v, NULL) == 0 && raise(SIGKILL) == 0 ? 0 : 1);
	}
	assert_int_equal(ended(asker), 128 + SIGKILL);
	v = visit(&x, SOON_MS);
	for (i = 0; i < 200 && rc != 0; i++) {
		const struct timespec pause = {.tv_nsec = 20 * LC_NS_PER_MS};

		(void)nanosleep(&pause, NULL);
		lc_err_clear(&e);
		rc = visit_drop(v, x.points[0].id, &e);
	}
	if (rc != 0)
		fail_msg("%s", e.msg);
	visit_close(v);
	assert_int_equal(points_now(&x), 2);
	done(&x);
}

/* What comes back to these bytes, until the owner hangs up or has said a line. */
static void
raw(const struct scene *x, const char *text, size_t n, char *back, size_t room)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t got = 0;
	ssize_t k = 1;

	(void)snprintf(a.sun_path, sizeof a.sun_path, "%s", x->path);
	assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&a, sizeof a), 0);
	while (n > 0 && (k = send(fd, text, n, MSG_NOSIGNAL)) > 0) {
		text += k;
		n -= (size_t)k;
	}
	while (k > 0 && got + 1 < room && memchr(back, '\n', got) == NULL) {
		k = read(fd, back + got, room - got - 1);
		got += k > 0 ? (size_t)k : 0;
	}
	back[got] = '\0';
	(void)close(fd);
}

static void
nonsense_is_refused(void **state)
{
	static const struct {
		const char *text, *answer;
	} cases[] = {
	    {"hello\n", "not understood"},
	    {"[]\n", "not understood"},
	    {"{\"locum\": 2, \"verb\": \"drop\"}\n", "another version"},
	    {"{\"locum\": 1, \"verb\": \"format\", \"store\": \"/\", \"who\": \"me\"}\n",
	     "does not do that"},
	    {"{\"locum\": 1, \"verb\": \"drop\", \"who\": \"me\"}\n", "not understood"},
	    {"{\"locum\": 1, \"verb\": \"drop\", \"who\": \"me\", \"store\": \"/\", \"point\": "
	     "\"12\"}\n",
	     "no point"},
	    {"{\"locum\": 1, \"verb\": \"drop\", \"who\": \"me\", \"store\": \"/\", \"point\": "
	     "\"00112233445566778899aabbccddeeff\"}\n",
	     "another store"},
	    {"{\"locum\": 1, \"verb\": \"condemn\", \"who\": \"me\", \"store\": \"/\"}\n",
	     "no places"},
	};
	char back[1000], *much = calloc(1, 200000);
	struct scene x;
	size_t i;

	(void)state;
	assert_non_null(much);
	make(&x, false);
	for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		raw(&x, cases[i].text, strlen(cases[i].text), back, sizeof back);
		if (strstr(back, "\"failed\"") == NULL || strstr(back, cases[i].answer) == NULL)
			fail_msg("%s -> %s", cases[i].text, back);
	}
	memset(much, 'x', 200000);
	raw(&x, much, 200000, back, sizeof back);
	assert_string_equal(back, "");
	free(much);
	assert_int_equal(points_now(&x), 3);
	done(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(points_are_dropped_one_after_the_other),
	    cmocka_unit_test(a_failure_is_told_whatever_it_says),
	    cmocka_unit_test(who_reads_for_a_moment_is_waited_for),
	    cmocka_unit_test(damage_is_noted),
	    cmocka_unit_test(the_store_is_lent_and_comes_back),
	    cmocka_unit_test(who_does_not_lend_says_so),
	    cmocka_unit_test(an_owner_that_hangs_is_told_in_time),
	    cmocka_unit_test(an_owner_that_is_killed_is_told),
	    cmocka_unit_test(an_asker_that_is_killed_harms_nobody),
	    cmocka_unit_test(nonsense_is_refused),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests_name("desk", tests, NULL, NULL);
}

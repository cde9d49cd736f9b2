/*
 * locum copy of a store that two hosts share: at the other place, too, nobody has to believe what
 * another one sent.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replicator/gifts.h"
#include "replicator/writers.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/moving.h"
#include "tests/lib/must.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define WAIT_MS 60000

struct scene {
	struct vault a, b;
	char dir[300], copy[600]; /* the store that both share, blind; where it is copied to */
	struct store *shared;     /* open, or NULL */
	struct vault_disk disk;   /* of a's web01 */
	struct point web01;
	char config[300];
	char out[8192];
	size_t n; /* of it */
};

static struct store *
open_blind(const char *dir)
{
	struct store_opts o = {.dir = dir, .mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	must(store_open(&o, &s, &e), &e);
	return s;
}

static struct point
backup(struct vault *v, const char *vm, const struct vault_disk *d)
{
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	must(vault_backup(v->s, vm, d, 1, &p, &e), &e);
	return p;
}

/* b, captured, has a point of junk under the ids of what a's point then has. */
static void
make(struct scene *x)
{
	struct vault_disk own = vault_disk("vda", 4);
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys = {0};
	struct point p;
	FILE *f;

	memset(x, 0, sizeof *x);
	vault_make(&x->a, true);
	vault_open(&x->a);
	must(transfer_keys(x->a.s, &keys, &e), &e);
	vault_make_beside(&x->b, &x->a, (struct lc_span){keys.p, keys.n});
	vault_open(&x->b);
	(void)snprintf(x->dir, sizeof x->dir, "%s/shared", x->a.top);
	(void)snprintf(x->copy, sizeof x->copy, "%s/copy", x->a.top);
	(void)snprintf(x->config, sizeof x->config, "%s/locum.conf", x->a.top);
	f = fopen(x->config, "we");
	assert_non_null(f);
	(void)fprintf(f, "[locum]\nkey_dir = %s/dr-keys\n", x->a.top);
	(void)fclose(f);
	must(transfer_make(x->dir, (struct lc_span){keys.p, keys.n}, &e), &e);
	lc_buf_free(&keys);
	x->shared = open_blind(x->dir);
	x->disk = vault_disk("vda", 6);
	x->disk.codes[1] = 504;
	x->disk.codes[2] = 13;
	x->disk.codes[4] = 508;
	p = backup(&x->b, "evil", &x->disk);
	moving_all(x->b.s, x->shared, 1, MOVING_JUNK_POINTS);
	must(store_drop(x->b.s, p.id, &e), &e);
	point_done(&p);
	x->web01 = backup(&x->a, "web01", &x->disk);
	moving_all(x->a.s, x->shared, 0, MOVING_TRUE);
	own.codes[0] = 20;
	p = backup(&x->b, "own", &own);
	moving_all(x->b.s, x->shared, 1, MOVING_TRUE);
	point_done(&p);
	vault_disk_free(&own);
}

static void
end(struct scene *x)
{
	store_close(x->shared);
	vault_free(&x->b);
	vault_free(&x->a);
	vault_disk_free(&x->disk);
	point_done(&x->web01);
}

/* ---- the command ---- */

static pid_t
start(const struct scene *x, const char *args, int fd)
{
	char *line = lc_asprintf("exec %s %s 2>&1", LOCUM_BIN, args);
	pid_t pid = fork();

	if (pid == 0) {
		(void)dup2(fd, 1);
		(void)dup2(fd, 2);
		(void)setenv("LOCUM_CONFIG", x->config, 1);
		(void)execl("/bin/sh", "sh", "-c", line, (char *)NULL);
		_exit(127);
	}
	lc_free(line);
	assert_true(pid > 0);
	return pid;
}

/* Runs the loop meanwhile, if there is one.  Returns its exit status; its words are in x->out. */
static int
locum(struct scene *x, uv_loop_t *loop, const char *args)
{
	int64_t until = clock_mono_ns() + WAIT_MS * LC_NS_PER_MS;
	int status = 0, fds[2];
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0); /* what it says fits */
	pid = start(x, args, fds[1]);
	(void)close(fds[1]);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (loop != NULL)
			run_for(loop, 20);
		else
			(void)usleep(20000);
		if (clock_mono_ns() > until)
			(void)kill(pid, SIGKILL);
	}
	for (x->n = 0; (n = read(fds[0], x->out + x->n, sizeof x->out - 1 - x->n)) > 0;)
		x->n += (size_t)n;
	x->out[x->n] = '\0';
	(void)close(fds[0]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
says(const struct scene *x, const char *what)
{
	if (strstr(x->out, what) == NULL)
		fail_msg("'%s' is not in: %s", what, x->out);
}

static void
copies(struct scene *x, int status)
{
	char *args = lc_asprintf("copy --json --store %s %s", x->dir, x->copy);
	int rc = locum(x, NULL, args);

	lc_free(args);
	if (rc != status)
		fail_msg("%d: %s", rc, x->out);
}

/* ---- what has come of it ---- */

struct owners {
	struct store *other;
	const struct transfer_line *one;
	unsigned n;
	uint16_t writer;
	bool found;
};

static int
find_line(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct owners *o = arg;

	(void)e;
	if (memcmp(l->line, o->one->line, 16) != 0)
		return 0;
	assert_int_equal(l->writer, o->one->writer);
	assert_memory_equal(l->vm, o->one->vm, 16);
	assert_int_equal(l->head.n, o->one->head.n);
	o->found = true;
	return 0;
}

static int
has_line(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct owners *o = arg;

	o->one = l;
	o->found = false;
	must(transfer_lines(o->other, find_line, o, e), e);
	assert_true(o->found);
	o->n++;
	return 0;
}

static void
is_whole(const struct scene *x, const char *dir)
{
	struct store_opts o = {.dir = dir, .recovery_code = x->a.code};
	struct lc_err e = LC_ERR_INIT;
	struct store *s;

	must(store_open(&o, &s, &e), &e);
	must(vault_compare(s, x->web01.id, &x->disk, 1, &e), &e);
	must(vault_verify(s, x->web01.id, &e), &e);
	store_close(s);
}

static int
is_own(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	struct owners *o = arg;

	(void)e;
	assert_int_equal(l->writer, o->writer);
	o->n++;
	return 0;
}

static void
same_owners(const struct scene *x, unsigned lines)
{
	struct owners o = {.other = open_blind(x->copy)}, own = {.n = 0};
	struct lc_err e = LC_ERR_INIT;

	must(transfer_lines(x->shared, has_line, &o, &e), &e);
	assert_int_equal(o.n, lines);
	for (own.writer = 0; own.writer < 8; own.writer++)
		must(transfer_lines_of(x->shared, own.writer, is_own, &own, &e), &e);
	assert_int_equal(own.n, lines);
	store_close(o.other);
}

static void
a_copy_keeps_whose_they_are(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct scene x;

	(void)state;
	make(&x);
	is_whole(&x, x.dir);
	copies(&x, 0);
	is_whole(&x, x.copy);
	same_owners(&x, 3);
	copies(&x, 0); /* nothing is new */
	/* A VM that an operator has given away since, and what comes then. */
	must(transfer_give(x.shared, x.web01.vm_id, 1, &e), &e);
	x.disk.codes[0] = 41;
	point_done(&x.web01);
	x.web01 = backup(&x.a, "web01", &x.disk);
	moving_all(x.a.s, x.shared, 1, MOVING_TRUE);
	copies(&x, 0);
	is_whole(&x, x.copy);
	same_owners(&x, 3);
	end(&x);
}

static void
scrubs(struct scene *x, int status)
{
	char *args = lc_asprintf("scrub --store %s", x->copy);
	int rc = locum(x, NULL, args);

	lc_free(args);
	if (rc != status)
		fail_msg("scrub: %d: %s", rc, x->out);
}

static void
spoil_copy(const struct scene *x, int type, int nth)
{
	struct vault_piece p;

	assert_true(vault_piece_of(x->copy, type, nth, &p));
	vault_flip(x->copy, &p, RECORD_HEADER_SIZE + 50, 4);
}

/* Whosever it is. */
static void
what_is_damaged_there_is_copied_again(void **state)
{
	struct vault_piece p;
	struct scene x;
	int i;

	(void)state;
	make(&x);
	copies(&x, 0);
	for (i = 0; i < 4; i++)
		spoil_copy(&x, RECORD_CHUNK, i);
	scrubs(&x, 1);
	copies(&x, 0);
	says(&x, "\"points\": 0");
	says(&x, "\"mended\": 4, \"damaged\": 0");
	scrubs(&x, 0);
	is_whole(&x, x.copy);
	same_owners(&x, 3);
	copies(&x, 0);
	says(&x, "\"mended\": 0, \"damaged\": 0");
	/* What is not here either is named. */
	spoil_copy(&x, RECORD_CHUNK, 0);
	scrubs(&x, 1);
	store_close(x.shared);
	for (i = 0; vault_piece_of(x.dir, RECORD_CHUNK, i, &p); i++)
		vault_flip(x.dir, &p, RECORD_HEADER_SIZE + 50, 4);
	x.shared = open_blind(x.dir);
	copies(&x, 3);
	says(&x, "not to be had from here");
	says(&x, "\"mended\": 0, \"damaged\": 1");
	end(&x);
}

/* Whoever only reads can have no map made anew. */
static void
a_damaged_map_there_is_told(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	copies(&x, 0);
	spoil_copy(&x, RECORD_MAP, -1);
	scrubs(&x, 1);
	copies(&x, 3);
	says(&x, "a copy into a new folder has them whole");
	says(&x, "\"damaged\": 1");
	end(&x);
}

/* Whoever has the other store is not waited for. */
static void
who_has_it_is_told_at_once(void **state)
{
	int64_t began;
	struct scene x;
	struct store *s;
	char path[400];

	(void)state;
	make(&x);
	copies(&x, 0);
	s = open_blind(x.copy);
	began = clock_mono_ns();
	copies(&x, 1);
	assert_true(clock_mono_ns() - began < 4 * LC_NS_PER_S);
	says(&x, "in use by");
	says(&x, "systemctl stop locum-agent");
	store_close(s);
	/* A replica's: how to get it there. */
	(void)snprintf(path, sizeof path, "%s/dr", x.a.top);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof path, "%s/dr/replica.key", x.a.top);
	vault_copy(x.a.kit, path);
	(void)snprintf(path, sizeof path, "%s/dr/stores", x.a.top);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(x.copy, sizeof x.copy, "%s/dr/stores/one", x.a.top);
	copies(&x, 0);
	s = open_blind(x.copy);
	copies(&x, 1);
	says(&x, "locum copy --to NAME");
	store_close(s);
	end(&x);
}

static int
owner_of(void *arg, const struct transfer_line *l, struct lc_err *e)
{
	const struct scene *x = arg;

	(void)e;
	if (memcmp(l->vm, x->web01.vm_id, 16) == 0)
		assert_int_equal(l->writer, 1);
	return 0;
}

/* A VM that was given to a host which another key has replaced before it came to take it. */
static void
a_gift_goes_to_who_takes_the_place(void **state)
{
	struct writer_entry to = {.store = "shared", .writer = 1}, other = {.store = "shared"};
	struct lc_err e = LC_ERR_INIT;
	struct scene x;

	(void)state;
	make(&x);
	memset(to.key, 7, sizeof to.key);
	must(gifts_put(x.a.top, x.web01.vm_id, &to, &e), &e);
	memset(to.key, 8, sizeof to.key);
	memset(other.key, 7, sizeof other.key);
	other.writer = 2;
	must(gifts_take(x.a.top, &other, x.shared, NULL, NULL, &e), &e); /* not this one's */
	must(gifts_take(x.a.top, &to, x.shared, NULL, NULL, &e), &e);
	must(transfer_lines(x.shared, owner_of, &x, &e), &e);
	end(&x);
}

/* ---- a third site ---- */

static void
pair(struct scene *x, uv_loop_t *loop, const struct drsite *d, unsigned writer, const uint8_t *join)
{
	struct token t = {.at = {.host = "127.0.0.1"}};
	char text[TOKEN_TEXT_MAX], *args;
	struct lc_err e = LC_ERR_INIT;
	int rc;

	(void)snprintf(t.at.port, sizeof t.at.port, "%u", d->port % 65536);
	memcpy(t.key, d->id.public, sizeof t.key);
	must(join != NULL ? writers_join_token(d->dir, 60 * LC_NS_PER_S, join, t.secret, &e)
	                  : writers_token(d->dir, 60 * LC_NS_PER_S, NULL, t.secret, &e),
	     &e);
	args = lc_asprintf("pair --name third --writer %u --store %s %s", writer, x->dir,
	                   token_text(text, &t));
	rc = locum(x, loop, args);
	lc_free(args);
	if (rc != 0)
		fail_msg("%d: %s", rc, x->out);
}

static void
a_third_site_keeps_them_apart(void **state)
{
	struct writer_entry *list;
	struct lc_err e = LC_ERR_INIT;
	struct drsite d;
	struct scene x;
	uv_loop_t loop;
	size_t n, first, second;
	char *args;

	(void)state;
	make(&x);
	assert_int_equal(uv_loop_init(&loop), 0);
	drsite_make(&d, &loop);
	drsite_start(&d);
	args = lc_asprintf("copy --to third --json --store %s", x.dir);
	pair(&x, &loop, &d, 0, NULL);
	must(writers_list(d.dir, &list, &n, &e), &e);
	assert_int_equal(n, 1);
	/* What is b's does not go as a's: it is told what to type. */
	assert_int_equal(locum(&x, &loop, args), 3);
	says(&x, "locum pair --writer 1 --name third");
	pair(&x, &loop, &d, 1, list[0].key);
	lc_free(list);
	if (locum(&x, &loop, args) != 0)
		fail_msg("%s", x.out);
	must(writers_list(d.dir, &list, &n, &e), &e);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].store, list[1].store);
	first = list[0].writer == 0 ? 0 : 1;
	second = 1 - first;
	assert_int_equal(list[first].writer, 0);
	assert_int_equal(list[second].writer, 1);
	drsite_stop(&d);
	(void)snprintf(x.copy, sizeof x.copy, "%s/%s", d.dir, list[0].store);
	lc_free(list);
	is_whole(&x, x.copy);
	same_owners(&x, 3);
	/* Of each of them what is damaged there comes again, too. */
	spoil_copy(&x, RECORD_CHUNK, 0);
	spoil_copy(&x, RECORD_CHUNK, -1);
	scrubs(&x, 1);
	drsite_start(&d);
	if (locum(&x, &loop, args) != 0)
		fail_msg("%s", x.out);
	says(&x, "\"mended\": 2, \"damaged\": 0");
	lc_free(args);
	drsite_stop(&d);
	scrubs(&x, 0);
	is_whole(&x, x.copy);
	drsite_free(&d);
	(void)uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&loop), 0);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_copy_keeps_whose_they_are),
	    cmocka_unit_test(what_is_damaged_there_is_copied_again),
	    cmocka_unit_test(a_damaged_map_there_is_told),
	    cmocka_unit_test(who_has_it_is_told_at_once),
	    cmocka_unit_test(a_gift_goes_to_who_takes_the_place),
	    cmocka_unit_test(a_third_site_keeps_them_apart),
	};

	cmocka_set_test_filter(getenv("LOCUM_TEST_ONLY"));
	log_set_level(getenv("LOCUM_TEST_LOG") != NULL ? LOG_LV_DEBUG : LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

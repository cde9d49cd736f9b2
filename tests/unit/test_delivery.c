/*
 * What a command makes goes to its replicas at once, and to those that were away at last.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/delivery.h"
#include "agent/hypervisor/settings.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/base/memory.h"
#include "store/store_internal.h"
#include "store/thin.h"
#include "tests/lib/must.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define SOON_MS 60000
#define WINDOWS 1200u

struct scene {
	uv_loop_t loop;
	struct drsite d;
	struct hostsite h;
	struct settings settings;
	struct delivery *delivery;
	struct delivery_result result;
	bool over;
	uint64_t want_points;
};

static void
make(struct scene *x)
{
	struct lc_err e = LC_ERR_INIT;
	char *path;

	memset(x, 0, sizeof *x);
	assert_int_equal(uv_loop_init(&x->loop), 0);
	drsite_make(&x->d, &x->loop);
	drsite_start(&x->d);
	hostsite_make(&x->h, &x->loop, &x->d, "host-a");
	path = path_join(x->h.v.keys, "host.key");
	must(identity_load(path, true, &x->h.id, &e), &e);
	lc_free(path);
	hostsite_pair(&x->h, &x->d);
	(void)snprintf(x->h.peer.name, sizeof x->h.peer.name, "dr");
	(void)snprintf(x->h.peer.at.port, sizeof x->h.peer.at.port, "%u", x->d.port % 65536);
	must(peer_save(x->h.v.keys, &x->h.peer, &e), &e);
	x->settings.key_dir = x->h.v.keys;
	x->h.v.s->flush_bytes = 1 << 20; /* points are large from there on */
}

static void
end(struct scene *x)
{
	hostsite_free(&x->h);
	drsite_stop(&x->d);
	drsite_free(&x->d);
	(void)uv_run(&x->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&x->loop), 0);
}

static void
on_over(void *arg)
{
	((struct scene *)arg)->over = true;
}

/* To so many replicas. */
static void
start_to(struct scene *x, size_t n)
{
	static const char *const names[] = {"dr", "far"}, *const vms[] = {"web01", "db01"};
	struct delivery_opts o = {.loop = &x->loop,
	                          .settings = &x->settings,
	                          .store = x->h.v.s,
	                          .names = names,
	                          .n = n,
	                          .vms = vms,
	                          .nvms = 2,
	                          .over = on_over,
	                          .arg = x};
	struct lc_err e = LC_ERR_INIT;

	x->over = false;
	must(delivery_start(&o, &x->result, &x->delivery, &e), &e);
}

static void
start(struct scene *x)
{
	start_to(x, 1);
}

static bool
is_over(void *arg)
{
	return ((struct scene *)arg)->over;
}

static bool
has_points(void *arg)
{
	struct scene *x = arg;

	return x->result.points >= x->want_points;
}

/* Bytes of the host's segments at the replica. */
static uint64_t
kept(struct scene *x)
{
	char dir[400], path[700];
	const struct dirent *entry;
	uint64_t n = 0;
	struct stat st;
	DIR *list;

	(void)snprintf(dir, sizeof dir, "%s/segments", hostsite_dir_at(&x->h, &x->d));
	list = opendir(dir);
	assert_non_null(list);
	while ((entry = readdir(list)) != NULL) {
		(void)snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
			n += (uint64_t)st.st_blocks * 512;
	}
	(void)closedir(list);
	return n;
}

static bool
has_much(void *arg)
{
	return kept(arg) > (16u << 20);
}

static struct point
small_point(struct scene *x, const char *vm, uint64_t code)
{
	struct vault_disk d = vault_disk("vda", 10);
	struct lc_err e = LC_ERR_INIT;
	struct point p;

	d.codes[3] = code;
	must(vault_backup(x->h.v.s, vm, &d, 1, &p, &e), &e);
	vault_disk_free(&d);
	return p;
}

static void
each_point_goes_when_it_is_made(void **state)
{
	struct commit_opts o = {.source_ns = 1, .consistency = POINT_CRASH};
	struct vault_disk d = vault_disk("vda", WINDOWS);
	struct lc_err e = LC_ERR_INIT;
	struct writer *w;
	struct scene x;
	struct point p;
	size_t i;

	(void)state;
	make(&x);
	(void)small_point(&x, "other", 7); /* nobody has named it */
	start(&x);
	w = vault_begin(x.h.v.s, "db01", &d, 1, &e);
	p = small_point(&x, "web01", 3);
	delivery_made(x.delivery, &p);
	x.want_points = 1;
	assert_true(run_until(&x.loop, has_points, &x, SOON_MS));
	assert_false(has_much(&x));
	for (i = 0; i < WINDOWS; i++) {
		d.codes[i] = 5 * (i + 1);
		must(vault_put(w, 0, &d, i, &e), &e);
	}
	/* While it is still being made. */
	assert_true(run_until(&x.loop, has_much, &x, SOON_MS));
	assert_int_equal(x.result.points, 1);
	must(writer_commit(w, &o, &p, &e), &e);
	delivery_made(x.delivery, &p);
	delivery_finish(x.delivery);
	assert_true(run_until(&x.loop, is_over, &x, SOON_MS));
	assert_int_equal(x.result.points, 2);
	assert_int_equal(x.result.unsent, 0);
	drsite_stop(&x.d);
	hostsite_arrived(&x.h, &x.d, &p, &d);
	vault_disk_free(&d);
	end(&x);
}

static void
who_was_away_gets_another_try_at_the_end(void **state)
{
	struct scene x;
	struct point p;

	(void)state;
	make(&x);
	drsite_stop(&x.d);
	start(&x);
	p = small_point(&x, "web01", 3);
	delivery_made(x.delivery, &p);
	run_for(&x.loop, 300);
	assert_int_equal(x.result.points, 0);
	drsite_start(&x.d);
	delivery_finish(x.delivery);
	assert_true(run_until(&x.loop, is_over, &x, SOON_MS));
	assert_int_equal(x.result.points, 1);
	assert_int_equal(x.result.unsent, 0);
	end(&x);
}

static void
who_stays_away_lacks_them(void **state)
{
	struct scene x;
	struct point p;

	(void)state;
	make(&x);
	start(&x);
	p = small_point(&x, "web01", 3);
	delivery_made(x.delivery, &p);
	x.want_points = 1;
	assert_true(run_until(&x.loop, has_points, &x, SOON_MS));
	drsite_stop(&x.d);
	p = small_point(&x, "db01", 4);
	delivery_made(x.delivery, &p);
	run_for(&x.loop, 300);
	delivery_finish(x.delivery);
	assert_true(run_until(&x.loop, is_over, &x, SOON_MS));
	assert_int_equal(x.result.points, 1);
	assert_int_equal(x.result.unsent, 1);
	end(&x);
}

static void
canceled_it_ends_at_once(void **state)
{
	struct scene x;

	(void)state;
	make(&x);
	start(&x);
	delivery_cancel(x.delivery); /* not even connected */
	assert_true(run_until(&x.loop, is_over, &x, SOON_MS));
	assert_int_equal(x.result.unsent, 1);
	drsite_stop(&x.d);
	start(&x);
	run_for(&x.loop, 100);
	delivery_finish(x.delivery);
	if (!x.over)
		delivery_cancel(x.delivery); /* while it gets its last try */
	assert_true(run_until(&x.loop, is_over, &x, SOON_MS));
	assert_int_equal(x.result.unsent, 1);
	end(&x);
}

/* A content there, that a scrub has found. */
static void
spoil(struct scene *x)
{
	struct store_opts o = {.mode = STORE_WRITE, .no_key = true};
	struct lc_err e = LC_ERR_INIT;
	struct vault_piece chunk;
	struct damage found;
	struct store *s;
	char dir[512];

	drsite_stop(&x->d);
	(void)snprintf(dir, sizeof dir, "%s", hostsite_dir_at(&x->h, &x->d));
	assert_true(vault_piece_of(dir, RECORD_CHUNK, 0, &chunk));
	vault_flip(dir, &chunk, 200, 1);
	o.dir = dir;
	must(store_open(&o, &s, &e), &e);
	assert_int_equal(store_scrub(s, vault_on_damage, &found, NULL, NULL, NULL), LC_ECORRUPT);
	must(store_condemn(s, &found, 1, NULL, &e), &e);
	store_close(s);
	drsite_start(&x->d);
}

/* What was dropped here, as all replicas had it, and is damaged at one of them, another one has. */
static void
what_is_damaged_there_comes_from_another_replica(void **state)
{
	const struct thin_opts drop = {
	    .have = vault_have_all, .peers = "dr, far", .bytes = UINT64_MAX};
	struct vault_disk d = vault_disk("vda", 40);
	struct lc_err e = LC_ERR_INIT;
	struct thin_stats st;
	struct drsite far;
	struct scene x;
	struct point p;
	size_t i;

	(void)state;
	make(&x);
	drsite_make(&far, &x.loop);
	drsite_start(&far);
	(void)snprintf(x.h.peer.name, sizeof x.h.peer.name, "far");
	(void)snprintf(x.h.peer.at.port, sizeof x.h.peer.at.port, "%u", far.port % 65536);
	memcpy(x.h.peer.key, far.id.public, sizeof x.h.peer.key);
	hostsite_pair(&x.h, &far);
	must(peer_save(x.h.v.keys, &x.h.peer, &e), &e);
	vault_close(&x.h.v);
	x.h.v.segment_bytes = 512u << 10;
	vault_open(&x.h.v);
	for (i = 0; i < 40; i++)
		d.codes[i] = 5 * (i + 1);
	must(vault_backup(x.h.v.s, "web01", &d, 1, &p, &e), &e);
	start_to(&x, 2);
	delivery_finish(x.delivery);
	assert_true(run_until(&x.loop, is_over, &x, SOON_MS));
	assert_int_equal(x.result.points, 2);
	must(thin_run(x.h.v.s, &drop, &st, &e), &e);
	assert_true(st.chunks > 20);
	spoil(&x);
	start(&x);
	delivery_finish(x.delivery);
	assert_true(run_until(&x.loop, is_over, &x, SOON_MS));
	drsite_stop(&x.d);
	hostsite_arrived(&x.h, &x.d, &p, &d);
	drsite_stop(&far);
	drsite_free(&far);
	vault_disk_free(&d);
	end(&x);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_point_goes_when_it_is_made),
	    cmocka_unit_test(who_was_away_gets_another_try_at_the_end),
	    cmocka_unit_test(who_stays_away_lacks_them),
	    cmocka_unit_test(canceled_it_ends_at_once),
	    cmocka_unit_test(what_is_damaged_there_comes_from_another_replica),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * protect: continuous protection that begins anew again and again, as where VMs of libvirt come and
 * go.  Its VMs have nothing to be backed up from: each cycle fails at once, which shows that it
 * was.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <uv.h>

#include "agent/backup.h"
#include "agent/hypervisor/settings.h"
#include "agent/past.h"
#include "agent/protect.h"
#include "agent/sites.h"
#include "agent/spool.h"
#include "replicator/identity.h"
#include "store/base/clock.h"
#include "tests/lib/unit.h"
#include "tests/lib/vault.h"

#define GOAL_MS 2000
#define ROUND_MS 200 /* less than until the second VM's first cycle */
#define ROUNDS 6u

struct scene {
	struct vault v;
	uv_loop_t loop;
	struct settings settings;
	struct past *past;
	unsigned tried[2];
	int64_t age_ns;
};

static void
on_round_over(uv_timer_t *t)
{
	uv_stop(t->loop);
}

static void
ignore_stopped(void *arg)
{
	(void)arg;
}

static void
run_round(struct scene *x)
{
	struct protect_opts o = {
	    .loop = &x->loop, .settings = &x->settings, .store = x->v.s, .past = x->past};
	struct protect *p = NULL;
	struct vm_status st;
	uv_timer_t t;
	size_t i;

	assert_int_equal(protect_start(&o, &p, NULL), 0);
	assert_int_equal(protect_vms(p), 2);
	assert_int_equal(uv_timer_init(&x->loop, &t), 0);
	assert_int_equal(uv_timer_start(&t, on_round_over, ROUND_MS, 0), 0);
	(void)uv_run(&x->loop, UV_RUN_DEFAULT);
	for (i = 0; i < 2; i++) {
		protect_vm(p, i, &st);
		assert_true(st.failures >= x->tried[i]); /* a counter goes on */
		x->tried[i] = (unsigned)st.failures;
	}
	x->age_ns = st.age_ns;
	past_free(x->past);
	x->past = past_take(p);
	assert_non_null(x->past);
	protect_stop(p, ignore_stopped, NULL);
	uv_close((uv_handle_t *)&t, NULL);
	(void)uv_run(&x->loop, UV_RUN_DEFAULT);
}

static void
beginning_anew_puts_nothing_off(void **state)
{
	struct vault_disk d = vault_disk("vda", 2);
	struct scene x = {.tried = {0}};
	const char *name;
	struct point point;
	unsigned i;

	(void)state;
	vault_make(&x.v, true);
	vault_open(&x.v);
	for (i = 0; i < 2; i++) {
		assert_int_equal(vault_backup(x.v.s, i == 0 ? "web01" : "db", &d, 1, &point, NULL),
		                 0);
		point_done(&point);
	}
	assert_int_equal(settings_from(NULL, &x.settings, NULL), 0);
	assert_int_equal(settings_add_vm(&x.settings, "web01", NULL, &name, NULL), 0);
	assert_int_equal(settings_add_vm(&x.settings, "db", NULL, &name, NULL), 0);
	x.settings.rpo_ms = GOAL_MS;
	lc_free(x.settings.key_dir);
	x.settings.key_dir = lc_strdup(x.v.keys);
	lc_free(x.settings.run_dir);
	x.settings.run_dir = lc_strdup(x.v.top);
	assert_int_equal(uv_loop_init(&x.loop), 0);
	for (i = 0; i < ROUNDS; i++)
		run_round(&x);
	/* The one whose turn is later had its turn, and counts as watched since the first time. */
	assert_true(x.tried[0] > 0);
	assert_true(x.tried[1] > 0);
	assert_true(x.age_ns >= (int64_t)(ROUNDS - 1) * ROUND_MS * LC_NS_PER_MS);
	past_free(x.past);
	assert_int_equal(uv_loop_close(&x.loop), 0);
	settings_done(&x.settings);
	vault_disk_free(&d);
	vault_free(&x.v);
}

/* That a replica did not take a point is so until it takes one: not until the settings are read
 * anew, which would be told as if it did. */
static void
beginning_anew_forgets_no_refusal(void **state)
{
	struct scene x = {.tried = {0}};
	struct protect_opts o = {.loop = &x.loop, .settings = &x.settings};
	struct peer peer = {.name = "dr", .at = {.host = "127.0.0.1", .port = "1"}};
	struct vault_disk d = vault_disk("vda", 2);
	struct identity id = {0};
	struct protect *p = NULL;
	const char *name;
	struct point point;
	struct vm_status st;
	struct lc_err why = LC_ERR_INIT;
	unsigned i;

	(void)state;
	vault_make(&x.v, true);
	vault_open(&x.v);
	assert_int_equal(vault_backup(x.v.s, "web01", &d, 1, &point, NULL), 0);
	point_done(&point);
	assert_int_equal(settings_from(NULL, &x.settings, NULL), 0);
	assert_int_equal(settings_add_vm(&x.settings, "web01", NULL, &name, NULL), 0);
	x.settings.rpo_ms = GOAL_MS;
	lc_free(x.settings.key_dir);
	x.settings.key_dir = lc_strdup(x.v.keys);
	lc_free(x.settings.run_dir);
	x.settings.run_dir = lc_strdup(x.v.top);
	assert_int_equal(identity_load(tmpdir_path(x.v.keys, "host.key"), true, &id, NULL), 0);
	identity_forget(&id);
	assert_int_equal(peer_save(x.v.keys, &peer, NULL), 0);
	assert_int_equal(uv_loop_init(&x.loop), 0);
	o.store = x.v.s;
	for (i = 0; i < 2; i++) {
		o.past = x.past;
		assert_int_equal(protect_start(&o, &p, NULL), 0);
		assert_int_equal(protect_sites(p), 1);
		protect_vm(p, 0, &st);
		if (i == 0) { /* as the replica would have it */
			(void)lc_fail(&why, LC_EACCES, 0, "another host's");
			memcpy((void *)(uintptr_t)st.refused, &why, sizeof why);
			x.past = past_take(p);
		}
		assert_int_equal(st.refused[0].code, LC_EACCES);
		protect_stop(p, ignore_stopped, NULL);
		(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	}
	past_free(x.past);
	assert_int_equal(uv_loop_close(&x.loop), 0);
	settings_done(&x.settings);
	vault_disk_free(&d);
	vault_free(&x.v);
}

/* ---- what is not to keep it from beginning ---- */

static void
make_scene(struct scene *x)
{
	struct identity id = {0};

	*x = (struct scene){.tried = {0}};
	vault_make(&x->v, true);
	vault_open(&x->v);
	assert_int_equal(settings_from(NULL, &x->settings, NULL), 0);
	x->settings.rpo_ms = GOAL_MS;
	lc_free(x->settings.key_dir);
	x->settings.key_dir = lc_strdup(x->v.keys);
	lc_free(x->settings.run_dir);
	x->settings.run_dir = lc_strdup(x->v.top);
	assert_int_equal(identity_load(tmpdir_path(x->v.keys, "host.key"), true, &id, NULL), 0);
	identity_forget(&id);
	assert_int_equal(uv_loop_init(&x->loop), 0);
}

static void
end_scene(struct scene *x)
{
	assert_int_equal(uv_loop_close(&x->loop), 0);
	settings_done(&x->settings);
	vault_free(&x->v);
}

static char *
status_of(struct protect *p)
{
	static char text[8192];
	FILE *f = fmemopen(text, sizeof text, "w");

	assert_non_null(f);
	protect_status(p, f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void
spoil(const struct scene *x)
{
	FILE *f = fopen(tmpdir_path(x->v.keys, "far.replica"), "we");

	assert_non_null(f);
	(void)fputs("address = nowhere\n", f);
	assert_int_equal(fclose(f), 0);
}

/* The other replicas and all VMs go on; that one is told of as long as it is so. */
static void
one_bad_file_of_a_replica_ends_nothing(void **state)
{
	struct peer peer = {.name = "dr", .at = {.host = "127.0.0.1", .port = "1"}};
	struct spool_status spool;
	struct lc_err e = LC_ERR_INIT;
	struct site_status st;
	struct protect *p = NULL;
	const char *name;
	struct scene x;

	(void)state;
	make_scene(&x);
	assert_int_equal(settings_add_vm(&x.settings, "web01", NULL, &name, NULL), 0);
	x.settings.spool_max = SPOOL_MIN;
	assert_int_equal(peer_save(x.v.keys, &peer, NULL), 0);
	spoil(&x);
	if (protect_start(
		&(struct protect_opts){.loop = &x.loop, .settings = &x.settings, .store = x.v.s},
		&p, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(protect_vms(p), 1);
	assert_int_equal(protect_sites(p), 2);
	protect_site(p, 0, &st);
	assert_true(strcmp(st.name, "dr") == 0 && !st.unknown);
	protect_site(p, 1, &st);
	assert_true(strcmp(st.name, "far") == 0 && st.unknown && !st.up && !st.has_all);
	assert_non_null(strstr(st.err.msg, "far.replica"));
	assert_true(st.since_ns != 0); /* an alert of it rises */
	assert_true(protect_spool(p, &spool));
	assert_non_null(strstr(status_of(p), "\"known\": false"));
	assert_true(protect_current(p));
	(void)snprintf(peer.name, sizeof peer.name, "far");
	assert_int_equal(peer_save(x.v.keys, &peer, NULL), 0);
	assert_false(protect_current(p));
	protect_stop(p, ignore_stopped, NULL);
	(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	/* Also where there is no other one, and this host never had a key to show. */
	assert_int_equal(unlink(tmpdir_path(x.v.keys, "dr.replica")), 0);
	assert_int_equal(unlink(tmpdir_path(x.v.keys, "host.key")), 0);
	spoil(&x);
	assert_int_equal(
	    protect_start(
		&(struct protect_opts){.loop = &x.loop, .settings = &x.settings, .store = x.v.s},
		&p, NULL),
	    0);
	protect_stop(p, ignore_stopped, NULL);
	(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	end_scene(&x);
}

struct spool_look {
	struct protect *p;
	bool blind;
};

static void
look_at_spool(uv_timer_t *t)
{
	struct spool_look *x = t->data;
	struct spool_status st;

	if (protect_spool(x->p, &st) && (st.err.code != LC_OK) == x->blind)
		uv_stop(t->loop);
}

/* It does not look as if it were empty, and what is wrong shows. */
static void
a_spool_that_cannot_look_says_so(void **state)
{
	struct peer peer = {.name = "dr", .at = {.host = "127.0.0.1", .port = "1"}};
	struct protect_opts o = {.loop = NULL};
	struct spool_look look = {.blind = true};
	char there[400], away[410];
	const char *name;
	struct scene x;
	uv_timer_t t;

	(void)state;
	make_scene(&x);
	assert_int_equal(settings_add_vm(&x.settings, "web01", NULL, &name, NULL), 0);
	x.settings.spool_max = SPOOL_MIN;
	assert_int_equal(peer_save(x.v.keys, &peer, NULL), 0);
	(void)snprintf(there, sizeof there, "%s/segments", x.v.dir);
	(void)snprintf(away, sizeof away, "%s.away", there);
	o = (struct protect_opts){.loop = &x.loop, .settings = &x.settings, .store = x.v.s};
	assert_int_equal(protect_start(&o, &look.p, NULL), 0);
	assert_int_equal(rename(there, away), 0);
	assert_int_equal(uv_timer_init(&x.loop, &t), 0);
	t.data = &look;
	assert_int_equal(uv_timer_start(&t, look_at_spool, 0, 20), 0);
	(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	assert_int_equal(rename(away, there), 0);
	look.blind = false;
	(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	protect_stop(look.p, ignore_stopped, NULL);
	uv_close((uv_handle_t *)&t, NULL);
	(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	end_scene(&x);
}

/* libvirt may have no domain yet, or not be there. */
static void
nobody_to_protect_is_no_failure_where_there_is_libvirt(void **state)
{
	struct protect_opts o = {.loop = NULL};
	struct protect *p = NULL;
	struct scene x;

	(void)state;
	make_scene(&x);
	o = (struct protect_opts){.loop = &x.loop, .settings = &x.settings, .store = x.v.s};
	assert_int_equal(protect_start(&o, &p, NULL), LC_ENOENT);
	(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	x.settings.libvirt = lc_strdup("test:///default");
	assert_int_equal(protect_start(&o, &p, NULL), 0);
	assert_int_equal(protect_vms(p), 0);
	assert_non_null(strstr(status_of(p), "\"vms\": []"));
	protect_stop(p, ignore_stopped, NULL);
	(void)uv_run(&x.loop, UV_RUN_DEFAULT);
	end_scene(&x);
}

/* What fails is told by its VM's name, once. */
static void
a_name_stands_in_front_once(void **state)
{
	static const struct {
		const char *msg, *named;
	} all[] = {
	    {"monitor: gone", "web: monitor: gone"}, {"web: gone", "web: gone"},
	    {"web/vda: gone", "web/vda: gone"},      {"web01: gone", "web: web01: gone"},
	    {"webs of lies", "web: webs of lies"},   {"web", "web: web"},
	};
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	(void)state;
	backup_name(&e, "web");
	assert_string_equal(e.msg, "");
	backup_name(NULL, "web");
	for (i = 0; i < sizeof all / sizeof all[0]; i++) {
		lc_err_clear(&e);
		(void)lc_fail(&e, LC_EIO, 0, "%s", all[i].msg);
		backup_name(&e, "web");
		assert_string_equal(e.msg, all[i].named);
		backup_name(&e, "web");
		assert_string_equal(e.msg, all[i].named);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(beginning_anew_puts_nothing_off),
	    cmocka_unit_test(beginning_anew_forgets_no_refusal),
	    cmocka_unit_test(one_bad_file_of_a_replica_ends_nothing),
	    cmocka_unit_test(a_spool_that_cannot_look_says_so),
	    cmocka_unit_test(a_name_stands_in_front_once),
	    cmocka_unit_test(nobody_to_protect_is_no_failure_where_there_is_libvirt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * strangers: with a made-up /proc and settings, what the alerts are shown.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "agent/alert.h"
#include "agent/hypervisor/settings.h"
#include "agent/strangers.h"
#include "store/base/clock.h"
#include "store/base/log.h"
#include "tests/lib/unit.h"

struct alert { /* what was shown last of each VM */
	struct {
		char vm[64], text[512];
		enum alarm_level level;
	} seen[8];
	size_t n;
	unsigned looks;
};

void
alert_see(struct alert *a, const struct alert_sight *x, int64_t now_ns)
{
	size_t i;

	(void)now_ns;
	assert_int_equal(x->condition, ALERT_UNPROTECTED);
	assert_int_equal(x->rise_ns, LC_NS_PER_S);
	for (i = 0; i < a->n && strcmp(a->seen[i].vm, x->vm) != 0; i++)
		;
	assert_in_range(i, 0, 7);
	a->n = i == a->n ? i + 1 : a->n;
	(void)snprintf(a->seen[i].vm, sizeof a->seen[i].vm, "%s", x->vm);
	(void)snprintf(a->seen[i].text, sizeof a->seen[i].text, "%s", x->text);
	a->seen[i].level = x->level;
	a->looks++;
}

#define HELD "" /* a monitor that libvirt holds; what it is started with has a uuid, too */

static void
process(const char *proc, int pid, const char *name, const char *monitor)
{
	char dir[300], path[340], word[300];
	FILE *f;

	(void)snprintf(dir, sizeof dir, "%s/%d", proc, pid);
	assert_int_equal(mkdir(dir, 0755), 0);
	(void)snprintf(path, sizeof path, "%s/cmdline", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	(void)fprintf(f, "/usr/bin/qemu-system-x86_64%c-name%c%s%c", 0, 0, name, 0);
	if (monitor != NULL && strcmp(monitor, HELD) == 0) {
		(void)fprintf(f, "-uuid%c11111111-2222-3333-4444-5555555555%02d%c", 0,
		              strcmp(name, "db") == 0 ? 55 : pid, 0);
		(void)fprintf(f, "-chardev%csocket,id=charmonitor,fd=25,server=on,wait=off%c", 0,
		              0);
		(void)fprintf(f, "-mon%cchardev=charmonitor,id=monitor,mode=control%c", 0, 0);
	} else if (monitor != NULL) {
		(void)snprintf(word, sizeof word, "unix:%s,server=on,wait=off", monitor);
		(void)fprintf(f, "-qmp%c%s%c", 0, word, 0);
	}
	assert_int_equal(fclose(f), 0);
}

static void
run_looks(uv_loop_t *loop, const struct alert *a, unsigned more)
{
	unsigned until = a->looks + more;
	int64_t end = clock_mono_ns() + 10 * LC_NS_PER_S;

	while (a->looks < until && clock_mono_ns() < end)
		(void)uv_run(loop, UV_RUN_ONCE);
	assert_true(a->looks >= until);
}

struct watch {
	uv_loop_t loop;
	struct alert a, *alert;
	struct strangers *x;
};

static void
watch_begin(struct watch *w, const struct settings *s, const char *proc)
{
	struct strangers_opts o = {.loop = &w->loop,
	                           .settings = s,
	                           .alert = &w->alert,
	                           .proc = proc,
	                           .tick_ms = 10,
	                           .rise_ns = LC_NS_PER_S};
	struct lc_err e = LC_ERR_INIT;

	memset(w, 0, sizeof *w);
	w->alert = &w->a;
	assert_int_equal(uv_loop_init(&w->loop), 0);
	assert_int_equal(strangers_open(&o, &w->x, &e), 0);
}

static void
watch_end(struct watch *w)
{
	strangers_close(w->x);
	(void)uv_run(&w->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&w->loop), 0);
}

static void
who_is_named_by_nobody_is_told(void **state)
{
	char qmp[] = "/run/web01.qmp", run_dir[] = "/run/locum";
	struct settings_vm vms[3] = {
	    {.name = "web01", .qmp = qmp}, {.name = "db"}, {.name = "new"}};
	struct settings s = {.run_dir = run_dir, .vms = vms, .nvms = 2};
	char *proc = tmpdir_new();
	struct watch w;
	unsigned i;

	(void)state;
	process(proc, 11, "other-name", "/run/web01.qmp"); /* by its monitor */
	process(proc, 12, "db", NULL);                     /* by its name */
	process(proc, 13, "web01-dr", "/run/locum/web01-dr/qmp");
	process(proc, 14, "new", "/run/new.qmp");
	process(proc, 15, "dumb", NULL);
	process(proc, 16, "no name", "/run/no.qmp");
	watch_begin(&w, &s, proc);
	run_looks(&w.loop, &w.a, 4);
	assert_int_equal(w.a.n, 3);
	assert_string_equal(w.a.seen[0].vm, "new");
	assert_int_equal(w.a.seen[0].level, ALARM_BAD);
	assert_non_null(strstr(w.a.seen[0].text, "[vm new] and qmp = /run/new.qmp"));
	assert_string_equal(w.a.seen[1].vm, "dumb");
	assert_non_null(strstr(w.a.seen[1].text, "no monitor"));
	assert_string_equal(w.a.seen[2].vm, "pid-16"); /* which is none to be written down */
	assert_non_null(strstr(w.a.seen[2].text, "[vm NAME] and qmp = /run/no.qmp"));
	/* Named, as after a reload; and ended. */
	s.nvms = 3;
	(void)unlink(tmpdir_path(proc, "15/cmdline"));
	(void)rmdir(tmpdir_path(proc, "15"));
	/* A look may have begun before that, and be slow. */
	for (i = 0; i < 100 && (w.a.seen[0].level != ALARM_OK || w.a.seen[1].level != ALARM_OK);
	     i++)
		run_looks(&w.loop, &w.a, 1);
	assert_int_equal(w.a.seen[0].level, ALARM_OK);
	assert_int_equal(w.a.seen[1].level, ALARM_OK);
	/* Nothing more is said of them, and no program is no matter. */
	w.alert = NULL;
	s.nvms = 2;
	(void)uv_run(&w.loop, UV_RUN_ONCE);
	watch_end(&w);
	tmpdir_free(proc);
}

/* One of libvirt, whose name a section has that stands for another VM: it is told.  One that
 * libvirt is asked about is not. */
static void
a_name_that_is_taken_hides_nobody(void **state)
{
	char qmp[] = "/run/web01.qmp", run_dir[] = "/run/locum", uri[] = "qemu:///system";
	char uuid[] = "11111111-2222-3333-4444-555555555555", other[] = "mail-old";
	struct settings_vm vms[] = {{.name = "web01", .qmp = qmp},
	                            {.name = "db", .domain = uuid},
	                            {.name = "mail", .domain = other},
	                            {.name = "both", .qmp = qmp}};
	struct settings s = {.run_dir = run_dir, .libvirt = uri, .vms = vms, .nvms = 4};
	char *proc = tmpdir_new();
	struct watch w;

	(void)state;
	process(proc, 11, "web01", HELD);
	process(proc, 12, "db", HELD);
	process(proc, 13, "mail", HELD);
	process(proc, 14, "both", "/run/second.qmp"); /* of two monitors one shows */
	watch_begin(&w, &s, proc);
	run_looks(&w.loop, &w.a, 4);
	assert_int_equal(w.a.n, 2);
	assert_string_equal(w.a.seen[0].vm, "web01");
	assert_int_equal(w.a.seen[0].level, ALARM_BAD);
	assert_string_equal(w.a.seen[1].vm, "mail");
	watch_end(&w);
	tmpdir_free(proc);
}

/* Where processes can't be listed for a moment nothing is known, and nobody has ended. */
static void
who_can_not_be_seen_has_not_ended(void **state)
{
	char run_dir[] = "/run/locum";
	struct settings s = {.run_dir = run_dir};
	char *dir = tmpdir_new(), proc[300], away[300];
	struct watch w;
	unsigned i;

	(void)state;
	(void)snprintf(proc, sizeof proc, "%s", tmpdir_path(dir, "proc"));
	(void)snprintf(away, sizeof away, "%s", tmpdir_path(dir, "away"));
	assert_int_equal(mkdir(proc, 0755), 0);
	process(proc, 14, "new", "/run/new.qmp");
	watch_begin(&w, &s, proc);
	run_looks(&w.loop, &w.a, 2);
	assert_int_equal(w.a.seen[0].level, ALARM_BAD);
	assert_int_equal(rename(proc, away), 0);
	for (i = 0; i < 40; i++)
		(void)uv_run(&w.loop, UV_RUN_ONCE);
	assert_int_equal(w.a.seen[0].level, ALARM_BAD);
	assert_int_equal(rename(away, proc), 0);
	run_looks(&w.loop, &w.a, 2);
	assert_int_equal(w.a.seen[0].level, ALARM_BAD);
	watch_end(&w);
	tmpdir_free(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(who_is_named_by_nobody_is_told),
	    cmocka_unit_test(who_can_not_be_seen_has_not_ended),
	    cmocka_unit_test(a_name_that_is_taken_hides_nobody),
	};

	log_set_level(LOG_LV_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * alert: the program gets what it is told, one at a time for a subject, changes that changed back
 * are not told; one that hangs, fails or is not there harms nothing, and no process is left.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uv.h>

#include "agent/alert.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"

struct fixture {
	uv_loop_t loop;
	uv_timer_t timer;
	struct alert *alert;
	char *dir;
	int64_t end_ns;
	unsigned most, until_running, lines;
};

static int
set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(uv_timer_init(&f->loop, &f->timer), 0);
	f->timer.data = f;
	f->dir = tmpdir_new();
	assert_int_equal(setenv("OUT", tmpdir_path(f->dir, "out"), 1), 0);
	assert_int_equal(setenv("NOTIFY_SOCKET", "/nowhere", 1), 0);
	assert_int_equal(setenv("LOCUM_VM", "of before", 1), 0);
	*state = f;
	return 0;
}

static int
tear_down(void **state)
{
	struct fixture *f = *state;

	alert_close(f->alert);
	uv_close((uv_handle_t *)&f->timer, NULL);
	assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	tmpdir_free(f->dir);
	free(f);
	return 0;
}

static void
begin(struct fixture *f, const char *script, int64_t kill_ms)
{
	const char *path = tmpdir_path(f->dir, "program");
	struct alert_opts o = {.loop = &f->loop, .program = path, .kill_ms = kill_ms};
	FILE *p = fopen(path, "we");

	assert_non_null(p);
	assert_true(fprintf(p, "#!/bin/sh\n%s\n", script) > 0);
	assert_int_equal(fclose(p), 0);
	assert_int_equal(chmod(path, 0700), 0);
	assert_int_equal(alert_new(&o, &f->alert, NULL), 0);
}

static void
see(struct fixture *f, const char *vm, const char *replica, enum alert_condition c,
    enum alarm_level level, const char *text)
{
	struct alert_sight s = {
	    .vm = vm, .replica = replica, .condition = c, .level = level, .text = text};

	alert_see(f->alert, &s, clock_mono_ns());
	if (alert_running(f->alert) > f->most)
		f->most = alert_running(f->alert);
}

static const char *
out(struct fixture *f, const char *name)
{
	static char text[65536];
	FILE *p = fopen(tmpdir_path(f->dir, name), "re");
	size_t n = p == NULL ? 0 : fread(text, 1, sizeof text - 1, p);

	text[n] = '\0';
	if (p != NULL)
		(void)fclose(p);
	return text;
}

static unsigned
count_lines(const char *text)
{
	unsigned n = 0;

	for (; *text != '\0'; text++)
		n += *text == '\n' ? 1 : 0;
	return n;
}

static void
on_timer(uv_timer_t *t)
{
	struct fixture *f = t->data;

	if (alert_running(f->alert) > f->most)
		f->most = alert_running(f->alert);
	if ((alert_running(f->alert) == f->until_running &&
	     count_lines(out(f, "out")) >= f->lines) ||
	    clock_mono_ns() > f->end_ns)
		uv_stop(&f->loop);
}

/* Until that many run and at least so many lines were written. */
static void
wait_for(struct fixture *f, unsigned running, unsigned lines)
{
	f->until_running = running;
	f->lines = lines;
	f->end_ns = clock_mono_ns() + 20 * LC_NS_PER_S;
	assert_int_equal(uv_timer_start(&f->timer, on_timer, 1, 5), 0);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(clock_mono_ns() <= f->end_ns);
	(void)uv_timer_stop(&f->timer);
}

#define SHOW                                                                                    \
	"echo "                                                                                 \
	"\"$#|$1|$2|$LOCUM_EVENT|$LOCUM_VM|$LOCUM_REPLICA|$LOCUM_TEXT|${NOTIFY_SOCKET-none}\" " \
	">>\"$OUT\""

static void
test_what_it_gets(void **state)
{
	struct fixture *f = *state;

	begin(f, SHOW "; echo \"$LOCUM_TIME\" >\"$OUT.time\"", 0);
	see(f, "web01", NULL, ALERT_RPO, ALARM_OK, "no news");
	assert_int_equal(alert_running(f->alert), 0);
	see(f, "web01", NULL, ALERT_RPO, ALARM_BAD, "it's $(late)\nX: \"y\" \x1b[0m");
	wait_for(f, 0, 1);
	assert_string_equal(out(f, "out"),
	                    "2|rpo-missed|it's $(late)?X: \"y\" ?[0m|rpo-missed|web01||"
	                    "it's $(late)?X: \"y\" ?[0m|none\n");
	assert_int_equal(strlen(out(f, "out.time")), strlen("2026-11-22T05:00:00Z\n"));
	see(f, NULL, "dr", ALERT_LINK, ALARM_BAD, "gone");
	wait_for(f, 0, 2);
	see(f, "web01", "dr", ALERT_REFUSED, ALARM_BAD, "no");
	wait_for(f, 0, 3);
	see(f, "web01", NULL, ALERT_RPO, ALARM_OK, "well");
	wait_for(f, 0, 4);
	assert_non_null(
	    strstr(out(f, "out"), "\n2|replica-down|gone|replica-down||dr|gone|none\n"));
	assert_non_null(
	    strstr(out(f, "out"), "\n2|point-refused|no|point-refused|web01|dr|no|none\n"));
	assert_non_null(strstr(out(f, "out"), "\n2|rpo-ok|well|rpo-ok|web01||well|none\n"));
	assert_int_equal(count_lines(out(f, "out")), 4);
}

static void
test_events(void **state)
{
	(void)state;
	assert_string_equal(alert_event(ALERT_RPO, ALARM_NEAR), "rpo-near");
	assert_string_equal(alert_event(ALERT_CYCLE, ALARM_BAD), "vm-failing");
	assert_string_equal(alert_event(ALERT_CYCLE, ALARM_OK), "vm-ok");
	assert_string_equal(alert_event(ALERT_LINK, ALARM_OK), "replica-up");
	assert_string_equal(alert_event(ALERT_DAMAGED, ALARM_BAD), "replica-damaged");
	assert_string_equal(alert_event(ALERT_DAMAGED, ALARM_OK), "replica-mended");
	assert_string_equal(alert_event(ALERT_REFUSED, ALARM_OK), "point-taken");
}

/* While one runs for a subject, what changes back is not told, and what is last is. */
static void
test_one_at_a_time(void **state)
{
	struct fixture *f = *state;
	int i;

	begin(f, "echo \"$1 $2\" >>\"$OUT\"; while [ ! -e \"$OUT.go\" ]; do sleep 0.02; done", 0);
	see(f, NULL, "dr", ALERT_LINK, ALARM_BAD, "1");
	wait_for(f, 1, 1);
	for (i = 0; i < 100; i++) {
		see(f, NULL, "dr", ALERT_LINK, ALARM_OK, "2");
		see(f, NULL, "dr", ALERT_LINK, ALARM_BAD, "3");
	}
	see(f, "web01", NULL, ALERT_RPO, ALARM_NEAR, "4"); /* of another: at once */
	wait_for(f, 2, 2);
	see(f, "web01", NULL, ALERT_RPO, ALARM_BAD, "5");
	see(f, "web01", NULL, ALERT_CYCLE, ALARM_BAD, "6");
	assert_int_equal(alert_running(f->alert), 2);
	(void)fclose(fopen(tmpdir_path(f->dir, "out.go"), "we"));
	wait_for(f, 0, 4);
	assert_string_equal(out(f, "out"),
	                    "replica-down 1\nrpo-near 4\nrpo-missed 5\nvm-failing 6\n");
}

/* All of a sudden everything is wrong: all of it is told, few at a time. */
static void
test_many(void **state)
{
	struct fixture *f = *state;
	char vm[16];
	int i;

	begin(f, "echo \"$LOCUM_VM\" >>\"$OUT\"; sleep 0.03", 0);
	for (i = 0; i < 40; i++) {
		(void)snprintf(vm, sizeof vm, "vm%d", i);
		see(f, vm, NULL, ALERT_RPO, ALARM_BAD, "late");
	}
	wait_for(f, 0, 40);
	assert_int_equal(count_lines(out(f, "out")), 40);
	assert_int_equal(f->most, ALERT_RUNNING_MAX);
	for (i = 0; i < 40; i++) {
		(void)snprintf(vm, sizeof vm, "vm%d\n", i);
		assert_non_null(strstr(out(f, "out"), vm));
	}
}

/* VMs that nobody names come and go for months: who is new is told of all the same. */
static void
test_those_that_are_gone(void **state)
{
	struct fixture *f = *state;
	char vm[24];
	struct alert_sight s = {
	    .vm = vm, .condition = ALERT_UNPROTECTED, .rise_ns = 180 * LC_NS_PER_S, .text = "x"};
	int i;

	begin(f, "echo \"$1 $LOCUM_VM\" >>\"$OUT\"", 0);
	for (i = 0; i < 5000; i++) {
		(void)snprintf(vm, sizeof vm, "pid-%d", i);
		s.level = ALARM_BAD;
		alert_see(f->alert, &s, clock_mono_ns());
		s.level = ALARM_OK;
		alert_see(f->alert, &s, clock_mono_ns());
	}
	see(f, "web01", NULL, ALERT_RPO, ALARM_BAD, "late");
	wait_for(f, 0, 1);
	see(f, "web01", NULL, ALERT_RPO, ALARM_OK, "again");
	wait_for(f, 0, 2);
	assert_string_equal(out(f, "out"), "rpo-missed web01\nrpo-ok web01\n");
}

/* Whom the settings do not name any more nothing is wrong with; what is looked at by others, and
 * who is seen, stays as it is. */
static void
test_taken_out(void **state)
{
	struct fixture *f = *state;
	struct alert_sight rising = {.vm = "db",
	                             .condition = ALERT_RPO,
	                             .level = ALARM_BAD,
	                             .rise_ns = LC_NS_PER_S,
	                             .text = "x"};
	const unsigned all = ~(1u << ALERT_UNPROTECTED);
	int64_t now = clock_mono_ns();

	begin(f, "echo \"$1 $LOCUM_VM/$LOCUM_REPLICA $2\" >>\"$OUT\"", 0);
	see(f, "web01", NULL, ALERT_RPO, ALARM_BAD, "late");
	wait_for(f, 0, 1);
	see(f, "web01", "dr", ALERT_REFUSED, ALARM_BAD, "no");
	wait_for(f, 0, 2);
	see(f, NULL, "dr", ALERT_LINK, ALARM_BAD, "gone");
	wait_for(f, 0, 3);
	see(f, NULL, NULL, ALERT_SPOOL, ALARM_NEAR, "full");
	wait_for(f, 0, 4);
	see(f, "new", NULL, ALERT_UNPROTECTED, ALARM_BAD, "who");
	wait_for(f, 0, 5);
	alert_over(f->alert, all, now); /* all of them were seen since */
	assert_int_equal(alert_running(f->alert), 0);
	alert_see(f->alert, &rising, clock_mono_ns());
	now = clock_mono_ns() + 1;
	while (clock_mono_ns() < now)
		continue;
	/* Seen, also where nothing can be said. */
	see(f, NULL, "dr", ALERT_LINK, ALARM_UNKNOWN, "?");
	alert_over(f->alert, all, now);
	wait_for(f, 0, 8);
	assert_non_null(strstr(out(f, "out"), "\nrpo-ok web01/ web01: not looked at any more"));
	assert_non_null(strstr(out(f, "out"),
	                       "\npoint-taken web01/dr web01, replica dr: not looked at any more"));
	assert_non_null(strstr(out(f, "out"), "\nspool-ok / the store: not looked at any more"));
	/* Once. */
	alert_over(f->alert, all, now);
	assert_int_equal(alert_running(f->alert), 0);
	/* What was about to be told begins anew. */
	alert_see(f->alert, &rising, now + LC_NS_PER_S);
	assert_int_equal(alert_running(f->alert), 0);
	assert_int_equal(count_lines(out(f, "out")), 8);
}

static void
assert_gone(long pid)
{
	int i;

	for (i = 0; i < 1000 && kill((pid_t)pid, 0) == 0; i++) {
		char stat[64], *text;
		FILE *p;

		/* Nobody may wait for it here: what init has not looked at yet is dead as well. */
		(void)snprintf(stat, sizeof stat, "/proc/%ld/stat", pid);
		p = fopen(stat, "re");
		if (p == NULL)
			return;
		text = fgets(stat, sizeof stat, p);
		(void)fclose(p);
		if (text == NULL || strstr(text, ") Z ") != NULL)
			return;
		(void)usleep(5000);
	}
	assert_true(i < 1000);
}

/* Killed with what it began, and the next is told. */
static void
test_hangs(void **state)
{
	struct fixture *f = *state;

	begin(f, "sleep 1000 & echo $! >>\"$OUT\"; trap '' TERM; wait; sleep 1000", 1000);
	see(f, "a", NULL, ALERT_RPO, ALARM_BAD, "x");
	wait_for(f, 1, 1);
	wait_for(f, 0, 1);
	assert_gone(strtol(out(f, "out"), NULL, 10));
	see(f, "a", NULL, ALERT_RPO, ALARM_OK, "x");
	wait_for(f, 0, 2);
}

static void
test_fails(void **state)
{
	struct fixture *f = *state;

	begin(f, "echo x >>\"$OUT\"; exit 3", 0);
	see(f, "a", NULL, ALERT_RPO, ALARM_BAD, "x");
	wait_for(f, 0, 1);
	see(f, "a", NULL, ALERT_RPO, ALARM_BAD, "x"); /* not again */
	assert_int_equal(alert_running(f->alert), 0);
	/* It is not there any more; then it is another one. */
	assert_int_equal(unlink(tmpdir_path(f->dir, "program")), 0);
	see(f, "a", NULL, ALERT_RPO, ALARM_OK, "x");
	wait_for(f, 0, 1);
	assert_int_equal(count_lines(out(f, "out")), 1);
	assert_int_equal(alert_program(f->alert, "/bin/true", NULL), 0);
	see(f, "a", NULL, ALERT_RPO, ALARM_BAD, "x");
	assert_int_equal(alert_running(f->alert), 1);
	wait_for(f, 0, 1);
}

/* The end does not wait for it. */
static void
test_close_while_it_runs(void **state)
{
	struct fixture *f = *state;
	int64_t began = clock_mono_ns();

	begin(f, "echo $$ >>\"$OUT\"; exec sleep 1000", 0);
	see(f, "a", NULL, ALERT_RPO, ALARM_BAD, "x");
	wait_for(f, 1, 1);
	see(f, "b", NULL, ALERT_RPO, ALARM_BAD, "x");
	alert_close(f->alert);
	f->alert = NULL;
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_gone(strtol(out(f, "out"), NULL, 10));
	assert_true(clock_mono_ns() - began < 10 * LC_NS_PER_S);
}

static void
test_no_memory(void **state)
{
	struct fixture *f = *state;
	struct alert_opts o = {.loop = &f->loop, .program = "/bin/true"};
	struct lc_err e = LC_ERR_INIT;
	long n;

	for (n = 0; n < 10; n++) {
		lc_alloc_fail_after(n);
		if (alert_new(&o, &f->alert, &e) == 0)
			break;
		assert_int_equal(e.code, LC_ENOMEM);
	}
	lc_alloc_fail_after(-1);
	assert_in_range(n, 1, 9);
	for (n = 0; n < 12; n++) { /* at the worst nothing is told */
		lc_alloc_fail_after(n);
		see(f, "a", NULL, ALERT_RPO, n % 2 == 0 ? ALARM_BAD : ALARM_OK, "x");
		lc_alloc_fail_after(-1);
		wait_for(f, 0, 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_what_it_gets, set_up, tear_down),
	    cmocka_unit_test(test_events),
	    cmocka_unit_test_setup_teardown(test_one_at_a_time, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_those_that_are_gone, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_taken_out, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_hangs, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_fails, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_close_while_it_runs, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * freezer: whatever the guest agent does and whoever is killed, the guest goes on in time, and it
 * is said what became of it.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "agent/hypervisor/freezer.h"
#include "store/base/clock.h"
#include "tests/lib/fake_agent.h"
#include "tests/lib/unit.h"

/* Long where nobody waits for their end, as the machine may be busy. */
#define ANSWER_MS 5000
#define LIMIT_MS 10000
#define THAW_MS 5000
#define SHORT_MS 300
#define SLACK_MS (SANITIZED ? 3000 : 1500)

struct fixture {
	uv_loop_t loop;
	char *dir;
	char socket[108], mark[108];
	struct freezer_opts o;
	struct fake_agent *agent;
	struct freezer *freezer;
	struct freezer_result r;
	int done;
	int64_t took_ms;
};

static void
pause_ms(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static void
on_done(void *arg, const struct freezer_result *r)
{
	struct fixture *f = arg;

	f->r = *r;
	f->done++;
	uv_stop(&f->loop);
}

static int
set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->dir = tmpdir_new();
	(void)snprintf(f->socket, sizeof f->socket, "%s/qga", f->dir);
	(void)snprintf(f->mark, sizeof f->mark, "%s/frozen", f->dir);
	f->o = (struct freezer_opts){.socket = f->socket,
	                             .mark = f->mark,
	                             .answer_ms = ANSWER_MS,
	                             .limit_ms = LIMIT_MS,
	                             .thaw_ms = THAW_MS};
	*state = f;
	return 0;
}

static int
tear_down(void **state)
{
	struct fixture *f = *state;

	if (f->agent != NULL)
		fake_agent_stop(f->agent);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	tmpdir_free(f->dir);
	free(f);
	return 0;
}

static void
play(struct fixture *f, enum fake_agent_manner manner)
{
	if (f->agent != NULL)
		fake_agent_stop(f->agent);
	f->agent = fake_agent_start(f->socket, manner);
}

static void
await(struct fixture *f)
{
	int64_t began = clock_mono_ns();

	assert_int_equal(f->done, 0);
	while (f->done == 0)
		(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(f->done, 1);
	f->done = 0;
	f->took_ms = (clock_mono_ns() - began) / LC_NS_PER_MS;
}

static void
freeze(struct fixture *f)
{
	assert_int_equal(freezer_start(&f->loop, &f->o, on_done, f, &f->freezer, NULL), 0);
	await(f);
}

static void
thaw(struct fixture *f)
{
	freezer_thaw(f->freezer, on_done, f);
	await(f);
}

static bool
marked(const struct fixture *f)
{
	return freezer_left(f->mark);
}

/* Until no thawer is there any more. */
static void
unmarked(const struct fixture *f)
{
	int i;

	for (i = 0; i < 2000 && marked(f); i++)
		pause_ms(5);
	assert_false(marked(f));
}

static void
test_freeze_and_thaw(void **state)
{
	struct fixture *f = *state;
	int i;

	play(f, FAKE_AGENT_POLITE);
	for (i = 0; i < 3; i++) {
		freeze(f);
		assert_int_equal(f->r.err.code, LC_OK);
		assert_int_equal(f->r.filesystems, 2);
		assert_true(fake_agent_saw(f->agent).frozen);
		assert_true(marked(f));
		thaw(f);
		assert_int_equal(f->r.err.code, LC_OK);
		assert_int_equal(f->r.filesystems, 2);
		assert_true(f->r.held_ns > 0 && f->r.held_ns < LIMIT_MS * LC_NS_PER_MS);
		assert_false(fake_agent_saw(f->agent).frozen);
		assert_false(marked(f));
	}
	assert_int_equal(fake_agent_saw(f->agent).thaws, 3);
}

/* Nothing was frozen, or it was and is thawed when that is told; never later than stated. */
static void
test_agents_that_do_not_freeze(void **state)
{
	static const struct {
		enum fake_agent_manner manner;
		enum lc_code code;
		bool asked, thawed;
		int64_t ms; /* at most */
		const char *text;
	} cases[] = {
	    {FAKE_AGENT_HUNG, LC_ETIMEDOUT, false, false, SHORT_MS, "does not answer"},
	    {FAKE_AGENT_RUBBISH, LC_ETIMEDOUT, false, false, SHORT_MS, "does not answer"},
	    {FAKE_AGENT_FLOODS, LC_ETIMEDOUT, false, false, SHORT_MS, "does not answer"},
	    {FAKE_AGENT_NO_FREEZE, LC_ENOTSUP, true, false, 0,
	     "the guest agent cannot freeze: The command guest-fsfreeze-freeze has not been found"},
	    {FAKE_AGENT_FAILS, LC_EPEER, true, true, 0, "failed to freeze /mnt: ?Device"},
	    {FAKE_AGENT_NONSENSE, LC_EPEER, true, true, 0, "no answer"},
	    {FAKE_AGENT_NOTHING, LC_ENOTSUP, true, true, 0, "no filesystem"},
	    {FAKE_AGENT_SLOW, LC_ETIMEDOUT, true, true, 600, "not frozen within freeze_timeout"},
	    {FAKE_AGENT_HELD, LC_EBUSY, false, false, 0, "somebody else has frozen it"},
	    {FAKE_AGENT_DIES, LC_EPEER, true, false, 0, "channel was closed"},
	};
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct fake_agent_saw saw;

		f->o.answer_ms = cases[i].ms == SHORT_MS ? SHORT_MS : ANSWER_MS;
		f->o.limit_ms = cases[i].manner == FAKE_AGENT_SLOW ? SHORT_MS : LIMIT_MS;
		play(f, cases[i].manner);
		freeze(f);
		saw = fake_agent_saw(f->agent);
		if (f->r.err.code != cases[i].code || strstr(f->r.err.msg, cases[i].text) == NULL)
			fail_msg("%s: %s", fake_agent_names[cases[i].manner], f->r.err.msg);
		assert_non_null(f->r.hint);
		assert_false(f->r.stuck);
		assert_false(saw.frozen);
		assert_int_equal(saw.freezes, cases[i].asked ? 1 : 0);
		assert_int_equal(saw.thaws > 0, cases[i].thawed);
		assert_true(f->took_ms <= cases[i].ms + SLACK_MS);
		unmarked(f);
	}
}

static void
test_nobody_there(void **state)
{
	struct fixture *f = *state;
	char longer[200];

	freeze(f);
	assert_int_equal(f->r.err.code, LC_ENOENT);
	assert_false(marked(f));
	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	f->o.socket = longer;
	assert_int_equal(freezer_start(&f->loop, &f->o, on_done, f, &f->freezer, NULL), LC_EINVAL);
	f->o.socket = f->socket;
	f->o.mark = "/nonexistent/frozen";
	play(f, FAKE_AGENT_POLITE);
	freeze(f);
	assert_int_equal(f->r.err.code, LC_EIO);
	assert_int_equal(fake_agent_saw(f->agent).freezes, 0);
}

/* Another program has the channel: as good as no agent. */
static void
test_channel_in_use(void **state)
{
	struct fixture *f = *state, other = *f;
	char mark[108];

	play(f, FAKE_AGENT_POLITE);
	freeze(f);
	assert_int_equal(f->r.err.code, LC_OK);
	(void)snprintf(mark, sizeof mark, "%s/other", f->dir);
	other.o.mark = mark;
	other.o.answer_ms = 100;
	assert_int_equal(freezer_start(&f->loop, &other.o, on_done, f, &other.freezer, NULL), 0);
	await(f);
	assert_int_equal(f->r.err.code, LC_ETIMEDOUT);
	assert_non_null(strstr(f->r.hint, "holds its channel"));
	thaw(f);
	assert_int_equal(f->r.err.code, LC_OK);
	/* Nor does the same VM have two. */
	freeze(f);
	assert_int_equal(freezer_start(&f->loop, &f->o, on_done, f, &other.freezer, NULL), 0);
	await(f);
	assert_int_equal(f->r.err.code, LC_EBUSY);
	thaw(f);
	assert_int_equal(f->r.err.code, LC_OK);
	assert_int_equal(fake_agent_saw(f->agent).freezes, 2);
}

/* We live and are late: the guest does not wait for us. */
static void
test_deadline(void **state)
{
	struct fixture *f = *state;
	struct fake_agent_saw saw;
	int64_t began;
	int round;

	f->o.limit_ms = SHORT_MS;
	play(f, FAKE_AGENT_POLITE);
	for (round = 0; round < 2; round++) {
		began = clock_mono_ns(); /* the time runs from here at the earliest */
		freeze(f);
		assert_int_equal(f->r.err.code, LC_OK);
		assert_true(fake_agent_wait(f->agent, false, SHORT_MS + SLACK_MS));
		saw = fake_agent_saw(f->agent);
		assert_true(saw.thawed_ns - began >= (SHORT_MS - 10) * LC_NS_PER_MS);
		pause_ms(50);
		if (round == 1) /* with its report already read */
			(void)uv_run(&f->loop, UV_RUN_NOWAIT);
		thaw(f);
		assert_int_equal(f->r.err.code, LC_ETIMEDOUT);
		assert_non_null(strstr(f->r.err.msg, "stood still for freeze_timeout"));
		assert_false(marked(f));
	}
}

static void
test_bad_thaws(void **state)
{
	struct fixture *f = *state;

	play(f, FAKE_AGENT_REFUSES);
	freeze(f);
	thaw(f);
	assert_int_equal(f->r.err.code, LC_OK);
	assert_int_equal(fake_agent_saw(f->agent).thaws, 3);
	assert_false(marked(f));
	fake_agent_behave(f->agent, FAKE_AGENT_LOSES);
	freeze(f);
	thaw(f);
	assert_int_equal(f->r.err.code, LC_ECANCELED);
	assert_non_null(strstr(f->r.err.msg, "somebody else thawed"));
}

/* It is told in time; and as soon as the agent is back, what stands still is thawed. */
static void
test_one_that_never_thaws(void **state)
{
	struct fixture *f = *state;

	f->o.thaw_ms = SHORT_MS;
	play(f, FAKE_AGENT_NEVER_THAWS);
	freeze(f);
	assert_int_equal(f->r.err.code, LC_OK);
	thaw(f);
	assert_int_equal(f->r.err.code, LC_ETIMEDOUT);
	assert_true(f->r.stuck);
	assert_true(f->took_ms < 2 * SHORT_MS + SLACK_MS);
	assert_true(marked(f));
	assert_int_equal(freezer_recover(&f->loop, &f->o, on_done, f, NULL), 0);
	await(f);
	assert_int_equal(f->r.err.code, LC_EBUSY);
	fake_agent_behave(f->agent, FAKE_AGENT_POLITE);
	assert_true(fake_agent_wait(f->agent, false, 5000));
	unmarked(f);
}

/* A process like ours that freezes and then does nothing; in between it is killed. */
static pid_t
other_process(struct fixture *f, bool until_frozen)
{
	int ends[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct fixture own = *f;

		(void)close(ends[0]);
		if (uv_loop_init(&own.loop) != 0)
			_exit(1);
		own.o.limit_ms = 60000;
		if (freezer_start(&own.loop, &own.o, on_done, &own, &own.freezer, NULL) != 0)
			_exit(1);
		while (own.done == 0)
			(void)uv_run(&own.loop, UV_RUN_DEFAULT);
		(void)!write(ends[1], "", 1);
		for (;;)
			(void)pause();
	}
	(void)close(ends[1]);
	if (until_frozen)
		assert_int_equal(read(ends[0], &c, 1), 1);
	(void)close(ends[0]);
	return pid;
}

static void
end_process(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void
test_killed_while_frozen(void **state)
{
	struct fixture *f = *state;
	int round;

	for (round = 0; round < 2; round++) { /* frozen; and while it freezes */
		int64_t killed_ns;
		pid_t pid;

		play(f, round == 0 ? FAKE_AGENT_POLITE : FAKE_AGENT_SLOW);
		pid = other_process(f, round == 0);
		assert_true(fake_agent_wait(f->agent, true, 5000));
		killed_ns = clock_mono_ns();
		end_process(pid);
		assert_true(fake_agent_wait(f->agent, false, 2000));
		print_message("thawed %.0f ms after kill -9\n",
		              (double)(fake_agent_saw(f->agent).thawed_ns - killed_ns) / 1e6);
		unmarked(f);
	}
}

/* The process whose parent that is; 0: none. */
static pid_t
child_of(pid_t parent)
{
	char name[64], text[32] = "";
	FILE *file;

	(void)snprintf(name, sizeof name, "/proc/%d/task/%d/children", (int)parent, (int)parent);
	file = fopen(name, "r");
	if (file != NULL) {
		(void)!fgets(text, sizeof text, file);
		(void)fclose(file);
	}
	return (pid_t)strtol(text, NULL, 10);
}

/* The thawer alone: another one takes over.  Both at once: the next of us does it. */
static void
test_thawer_killed(void **state)
{
	struct fixture *f = *state;
	pid_t pid, thawer;

	play(f, FAKE_AGENT_POLITE);
	f->o.limit_ms = 60000;
	freeze(f);
	thawer = child_of(getpid());
	if (thawer == 0)
		skip();
	assert_int_equal(kill(thawer, SIGKILL), 0);
	thaw(f);
	assert_int_equal(f->r.err.code, LC_EPEER);
	assert_true(fake_agent_wait(f->agent, false, 5000));
	unmarked(f);

	pid = other_process(f, true);
	thawer = child_of(pid);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(kill(thawer, SIGKILL), 0);
	end_process(pid);
	pause_ms(100);
	assert_true(fake_agent_saw(f->agent).frozen);
	assert_true(marked(f));
	assert_int_equal(freezer_recover(&f->loop, &f->o, on_done, f, NULL), 0);
	await(f);
	assert_int_equal(f->r.err.code, LC_OK);
	assert_true(f->r.held_ns > 0);
	assert_false(fake_agent_saw(f->agent).frozen);
	assert_false(marked(f));
}

/* A mark of a VM that is gone, and one of which nothing is known. */
static void
test_old_marks(void **state)
{
	struct fixture *f = *state;
	FILE *file = fopen(f->mark, "w");

	assert_non_null(file);
	assert_int_equal(fputs("f", file) >= 0, 1);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(freezer_recover(&f->loop, &f->o, on_done, f, NULL), 0);
	await(f);
	assert_int_equal(f->r.err.code, LC_ENOENT);
	assert_false(marked(f));
	file = fopen(f->mark, "w");
	assert_non_null(file);
	assert_int_equal(fclose(file), 0);
	play(f, FAKE_AGENT_POLITE);
	assert_int_equal(freezer_recover(&f->loop, &f->o, on_done, f, NULL), 0);
	await(f);
	assert_int_equal(f->r.err.code, LC_OK);
	assert_int_equal(f->r.held_ns, 0);
	assert_int_equal(fake_agent_saw(f->agent).thaws, 0);
	assert_false(marked(f));
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    T(test_freeze_and_thaw),
	    T(test_agents_that_do_not_freeze),
	    T(test_nobody_there),
	    T(test_channel_in_use),
	    T(test_deadline),
	    T(test_bad_thaws),
	    T(test_one_that_never_thaws),
	    T(test_killed_while_frozen),
	    T(test_thawer_killed),
	    T(test_old_marks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

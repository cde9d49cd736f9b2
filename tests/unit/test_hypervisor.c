/*
 * hypervisor: the order of calls, and a take of several VMs stage by stage, whatever fails; and the
 * guests' filesystems around the instant.  The drivers are fakes that write down what is asked of
 * them, with a '*' where the guest stands still.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "agent/hypervisor/driver.h"
#include "tests/lib/fake_agent.h"
#include "tests/lib/unit.h"

struct fake {
	struct driver base;
	uv_loop_t *loop;
	char name[8];
	uv_timer_t timer;
	hv_done_cb *done;
	void *arg;
	struct lc_err err;
	void (*closed)(void *arg);
	void *closed_arg;
	const char *fail_later, *fail_now, *nothing; /* names of calls */
};

static struct {
	char log[4096];
	struct fake *fakes[4];
	struct fake_agent *agents[4];
	size_t n;
	int done, events;
	struct lc_err err;
} t;

static void
note(const struct fake *f, const char *call)
{
	struct fake_agent *agent = NULL;
	size_t n = strlen(t.log), i;

	for (i = 0; i < t.n; i++) {
		if (t.fakes[i] == f)
			agent = t.agents[i];
	}
	(void)snprintf(t.log + n, sizeof t.log - n, "%s%s:%s%s", n == 0 ? "" : " ", f->name, call,
	               agent != NULL && fake_agent_saw(agent).frozen ? "*" : "");
}

static bool
is(const char *wish, const char *call)
{
	return wish != NULL && strcmp(wish, call) == 0;
}

static void
on_timer(uv_timer_t *timer)
{
	struct fake *f = timer->data;

	f->done(f->arg, &f->err);
}

static int
ask(struct fake *f, const char *call, hv_done_cb *done, void *arg, struct lc_err *e)
{
	note(f, call);
	if (is(f->fail_now, call))
		return lc_fail(e, LC_EIO, 0, "%s failed at once", call);
	if (is(f->nothing, call))
		return DRIVER_NOTHING;
	f->done = done;
	f->arg = arg;
	lc_err_clear(&f->err);
	if (is(f->fail_later, call))
		(void)lc_fail(&f->err, LC_EIO, 0, "%s failed", call);
	return uv_timer_start(&f->timer, on_timer, 1, 0);
}

static int
fake_prepare(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	d->vm.ndisks = 2;
	d->vm.running = true;
	(void)strcpy(d->vm.disks[0].name, "vda");
	(void)strcpy(d->vm.disks[1].name, "vdb");
	d->vm.disks[0].capturable = true;
	(void)strcpy(d->vm.disks[1].reason, "made of stone");
	return ask((struct fake *)d, "prepare", done, arg, e);
}

static int
fake_stage(struct driver *d, enum driver_stage stage, const struct driver_take *take,
           hv_done_cb *done, void *arg, struct lc_err *e)
{
	static const char *const names[] = {"?", "arm", "freeze", "cut", "thaw", "serve", "undo"};

	(void)take;
	return ask((struct fake *)d, names[stage], done, arg, e);
}

static int
fake_valid(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	return ask((struct fake *)d, "valid", done, arg, e);
}

static int
fake_release(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	return ask((struct fake *)d, "release", done, arg, e);
}

static int
fake_end(struct driver *d, enum hv_end how, hv_done_cb *done, void *arg, struct lc_err *e)
{
	static const char *const names[] = {"commit", "rollback", "lost"};

	return ask((struct fake *)d, names[how], done, arg, e);
}

static void
on_closed(uv_handle_t *h)
{
	struct fake *f = h->data;

	f->closed(f->closed_arg);
	free(f);
}

static void
fake_close(struct driver *d, void (*closed)(void *arg), void *arg)
{
	struct fake *f = (struct fake *)d;

	note(f, "close");
	f->closed = closed;
	f->closed_arg = arg;
	uv_close((uv_handle_t *)&f->timer, on_closed);
}

static const struct driver_ops ops = {
    .prepare = fake_prepare,
    .stage = fake_stage,
    .still_valid = fake_valid,
    .release = fake_release,
    .end = fake_end,
    .close = fake_close,
};

static int
make(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out)
{
	struct fake *f = calloc(1, sizeof *f);

	assert_non_null(f);
	f->base.ops = &ops;
	f->loop = loop;
	(void)snprintf(f->name, sizeof f->name, "%.7s", target->vm);
	(void)uv_timer_init(loop, &f->timer);
	f->timer.data = f;
	t.fakes[t.n++] = f;
	*out = &f->base;
	return 0;
}

int
driver_qemu_open(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out,
                 struct lc_err *e)
{
	(void)e;
	return make(loop, target, out);
}

int
driver_image_open(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out,
                  struct lc_err *e)
{
	(void)loop;
	(void)out;
	return lc_fail(e, LC_ENOENT, 0, "no image of %s", target->vm);
}

struct fixture {
	uv_loop_t loop;
	struct hv *hv[3];
	struct hv_take set[3];
	size_t n;
};

static void
on_done(void *arg, const struct lc_err *err)
{
	(void)arg;
	t.done++;
	t.err = *err;
}

static void
on_event(void *arg, struct hv *hv, enum hv_event ev, const char *why)
{
	struct fixture *f = arg;

	assert_ptr_equal(hv, f->hv[0]);
	assert_int_equal(ev, HV_EV_SNAPSHOT_LOST);
	assert_string_equal(why, "gone with the wind");
	t.events++;
}

static int
set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	memset(&t, 0, sizeof t);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	*state = f;
	return 0;
}

static int
tear_down(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < f->n; i++)
		hv_close(f->hv[i], NULL, NULL);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
	return 0;
}

static void
open_vms(struct fixture *f, size_t n)
{
	static const char *const names[] = {"a", "b", "c"};
	struct lc_err e = LC_ERR_INIT;

	for (f->n = 0; f->n < n; f->n++) {
		struct hv_target target = {.vm = names[f->n], .qmp = "/x"};

		assert_int_equal(hv_open(&f->loop, &target, on_event, f, &f->hv[f->n], &e), 0);
		f->set[f->n].hv = f->hv[f->n];
	}
}

static void
await(struct fixture *f)
{
	assert_int_equal(t.done, 0);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(t.done, 1);
	t.done = 0;
}

static void
prepare_all(struct fixture *f)
{
	struct lc_err e = LC_ERR_INIT;

	for (size_t i = 0; i < f->n; i++) {
		assert_int_equal(hv_prepare(f->hv[i], on_done, f, &e), 0);
		await(f);
		assert_int_equal(t.err.code, LC_OK);
		assert_int_equal(hv_exclude(f->hv[i], "vdb", &e), 0);
	}
	t.log[0] = '\0';
}

static void
take(struct fixture *f)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(hv_take(f->set, f->n, on_done, f, &e), 0);
	assert_string_equal(t.log, ""); /* nothing from inside the call */
	await(f);
}

static void
test_one_life(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	open_vms(f, 1);
	prepare_all(f);
	take(f);
	assert_int_equal(t.err.code, LC_OK);
	assert_ptr_equal(f->set[0].snapshot, &t.fakes[0]->base.snapshot);
	assert_int_equal(hv_still_valid(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_int_equal(hv_release(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_int_equal(hv_release(f->hv[0], on_done, f, &e), 0); /* again: nothing to do */
	await(f);
	assert_int_equal(hv_end(f->hv[0], HV_COMMIT, on_done, f, &e), 0);
	await(f);
	assert_string_equal(t.log, "a:arm a:cut a:serve a:valid a:release a:commit");
}

static void
test_wrong_order(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	open_vms(f, 1);
	assert_int_equal(hv_take(f->set, 1, on_done, f, &e), LC_EINVAL);
	assert_int_equal(hv_still_valid(f->hv[0], on_done, f, NULL), LC_EINVAL);
	assert_int_equal(hv_end(f->hv[0], HV_COMMIT, on_done, f, NULL), LC_EINVAL);
	assert_int_equal(hv_release(f->hv[0], on_done, f, NULL), 0); /* always allowed */
	await(f);
	assert_string_equal(t.log, "");
}

static void
test_no_driver(void **state)
{
	struct fixture *f = *state;
	struct hv_target target = {.vm = "off"};
	struct lc_err e = LC_ERR_INIT;
	struct hv *hv;

	assert_int_equal(hv_open(&f->loop, &target, NULL, NULL, &hv, &e), LC_ENOENT);
	assert_string_equal(e.msg, "off: no image of off");
}

static void
test_failed_prepare(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	open_vms(f, 1);
	t.fakes[0]->fail_later = "prepare";
	assert_int_equal(hv_prepare(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_string_equal(t.err.msg, "a: prepare failed");
	assert_int_equal(hv_take(f->set, 1, on_done, f, &e), LC_EINVAL);
	t.fakes[0]->fail_later = NULL;
	t.fakes[0]->fail_now = "prepare";
	lc_err_clear(&e);
	assert_int_equal(hv_prepare(f->hv[0], on_done, f, &e), LC_EIO);
	assert_string_equal(e.msg, "a: prepare failed at once");
	t.fakes[0]->fail_now = NULL;
	t.fakes[0]->nothing = "prepare";
	lc_err_clear(&e);
	assert_int_equal(hv_prepare(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_int_equal(t.err.code, LC_OK);
}

static void
test_uncapturable_disk(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	open_vms(f, 1);
	assert_int_equal(hv_prepare(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_int_equal(hv_exclude(f->hv[0], "vdx", &e), LC_ENOENT);
	lc_err_clear(&e);
	assert_int_equal(hv_take(f->set, 1, on_done, f, &e), LC_ENOTSUP);
	assert_non_null(strstr(e.msg, "disk vdb cannot be captured: made of stone"));
	assert_int_equal(hv_exclude(f->hv[0], "vdb", &e), 0);
	t.log[0] = '\0';
	take(f);
	assert_int_equal(t.err.code, LC_OK);
}

/* Barriers: no VM is cut before all stand still, none goes on before all are cut. */
static void
test_group(void **state)
{
	struct fixture *f = *state;

	open_vms(f, 3);
	prepare_all(f);
	take(f);
	assert_int_equal(t.err.code, LC_OK);
	assert_string_equal(t.log, "a:arm b:arm c:arm a:freeze b:freeze c:freeze a:cut b:cut c:cut "
	                           "a:thaw b:thaw c:thaw a:serve b:serve c:serve");
}

static void
group_failing(struct fixture *f, const char *stage, bool now, const char *log)
{
	if (now)
		t.fakes[1]->fail_now = stage;
	else
		t.fakes[1]->fail_later = stage;
	t.log[0] = '\0';
	take(f);
	assert_int_equal(t.err.code, LC_EIO);
	assert_true(strncmp(t.err.msg, "b: ", 3) == 0);
	assert_string_equal(t.log, log);
	assert_null(f->set[0].snapshot);
	assert_null(f->set[1].snapshot);
	t.fakes[1]->fail_now = t.fakes[1]->fail_later = NULL;
}

/* Whatever fails, who stood still goes on, and all are undone. */
static void
test_group_failures(void **state)
{
	struct fixture *f = *state;
	int now;

	open_vms(f, 2);
	prepare_all(f);
	for (now = 0; now < 2; now++) {
		group_failing(f, "arm", now, "a:arm b:arm a:undo b:undo");
		group_failing(f, "freeze", now,
		              "a:arm b:arm a:freeze b:freeze a:thaw b:thaw a:undo b:undo");
		group_failing(
		    f, "cut", now,
		    "a:arm b:arm a:freeze b:freeze a:cut b:cut a:thaw b:thaw a:undo b:undo");
		group_failing(
		    f, "thaw", now,
		    "a:arm b:arm a:freeze b:freeze a:cut b:cut a:thaw b:thaw a:undo b:undo");
		group_failing(f, "serve", now,
		              "a:arm b:arm a:freeze b:freeze a:cut b:cut a:thaw b:thaw a:serve "
		              "b:serve a:undo b:undo");
	}
	t.log[0] = '\0';
	take(f);
	assert_int_equal(t.err.code, LC_OK);
}

static void
test_nothing_to_do(void **state)
{
	struct fixture *f = *state;

	open_vms(f, 2);
	prepare_all(f);
	t.fakes[0]->nothing = "freeze"; /* a VM that is off */
	t.fakes[1]->nothing = "freeze";
	take(f);
	assert_int_equal(t.err.code, LC_OK);
}

static void
test_release_that_fails_is_tried_again(void **state)
{
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;

	open_vms(f, 1);
	prepare_all(f);
	take(f);
	t.log[0] = '\0';
	t.fakes[0]->fail_later = "release";
	assert_int_equal(hv_release(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_int_equal(t.err.code, LC_EIO);
	t.fakes[0]->fail_later = NULL;
	assert_int_equal(hv_release(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_int_equal(t.err.code, LC_OK);
	assert_int_equal(hv_release(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_string_equal(t.log, "a:release a:release");
}

static void
test_events(void **state)
{
	struct fixture *f = *state;

	open_vms(f, 1);
	t.fakes[0]->base.event(t.fakes[0]->base.event_arg, HV_EV_SNAPSHOT_LOST,
	                       "gone with the wind");
	assert_int_equal(t.events, 1);
}

/* ---- the guests' filesystems ---- */

static char *dir;
static char sockets[3][108];

/* A VM for each manner. */
static void
open_frozen(struct fixture *f, enum hv_freeze freeze, size_t n, const enum fake_agent_manner *play)
{
	static const char *const names[] = {"a", "b", "c"};

	dir = tmpdir_new();
	for (f->n = 0; f->n < n; f->n++) {
		struct hv_target target = {.vm = names[f->n],
		                           .qmp = "/x",
		                           .run_dir = dir,
		                           .freeze = freeze,
		                           .guest_agent = sockets[f->n],
		                           .connect_timeout_ms = 500,
		                           .freeze_timeout_ms = 3000};

		(void)snprintf(sockets[f->n], sizeof sockets[0], "%s/%zu", dir, f->n);
		t.agents[f->n] = fake_agent_start(sockets[f->n], play[f->n]);
		assert_int_equal(hv_open(&f->loop, &target, on_event, f, &f->hv[f->n], NULL), 0);
		f->set[f->n].hv = f->hv[f->n];
	}
	prepare_all(f);
}

static void
close_frozen(struct fixture *f)
{
	size_t i;

	for (i = 0; i < f->n; i++) {
		assert_false(fake_agent_saw(t.agents[i]).frozen);
		fake_agent_stop(t.agents[i]);
		t.agents[i] = NULL;
	}
	tmpdir_free(dir);
}

static void
test_frozen(void **state)
{
	const enum fake_agent_manner polite = FAKE_AGENT_POLITE;
	struct fixture *f = *state;

	open_frozen(f, HV_FREEZE_REQUIRE, 1, &polite);
	take(f);
	assert_int_equal(t.err.code, LC_OK);
	assert_string_equal(t.log, "a:arm a:cut* a:serve");
	assert_true(f->set[0].snapshot->frozen);
	assert_int_equal(strncmp(f->set[0].snapshot->freeze, "2 filesystems for ", 18), 0);
	close_frozen(f);
}

static void
test_frozen_by_choice(void **state)
{
	const enum fake_agent_manner unable = FAKE_AGENT_NO_FREEZE;
	struct fixture *f = *state;

	open_frozen(f, HV_FREEZE_AUTO, 1, &unable);
	take(f);
	assert_int_equal(t.err.code, LC_OK);
	assert_string_equal(t.log, "a:arm a:cut a:serve");
	assert_false(f->set[0].snapshot->frozen);
	assert_string_equal(f->set[0].snapshot->freeze,
	                    "the guest agent cannot freeze: The command guest-fsfreeze-freeze has "
	                    "not been found");
	close_frozen(f);
}

static void
test_frozen_or_not_at_all(void **state)
{
	const enum fake_agent_manner manners[] = {FAKE_AGENT_POLITE, FAKE_AGENT_HUNG};
	struct fixture *f = *state;

	open_frozen(f, HV_FREEZE_REQUIRE, 2, manners);
	take(f);
	assert_int_equal(t.err.code, LC_ENOTSUP);
	assert_string_equal(
	    t.err.msg, "b: freeze = require, but the guest agent does not answer: see that the "
		       "guest agent runs in the guest, and that no other program (libvirt, "
		       "say) holds its channel, or set freeze = auto");
	/* The one that was frozen goes on before anything is undone. */
	assert_string_equal(t.log, "a:arm b:arm a:undo b:undo");
	close_frozen(f);
}

static void
test_frozen_group(void **state)
{
	const enum fake_agent_manner manners[] = {FAKE_AGENT_POLITE, FAKE_AGENT_FAILS,
	                                          FAKE_AGENT_POLITE};
	struct fixture *f = *state;

	open_frozen(f, HV_FREEZE_AUTO, 3, manners);
	t.fakes[0]->fail_later = "cut";
	take(f);
	assert_int_equal(t.err.code, LC_EIO);
	assert_string_equal(t.log,
	                    "a:arm b:arm c:arm a:freeze* b:freeze c:freeze* a:cut* b:cut c:cut* "
	                    "a:thaw* b:thaw c:thaw* a:undo b:undo c:undo");
	t.fakes[0]->fail_later = NULL;
	t.log[0] = '\0';
	take(f);
	assert_int_equal(t.err.code, LC_OK);
	assert_true(f->set[0].snapshot->frozen);
	assert_false(f->set[1].snapshot->frozen);
	assert_true(f->set[2].snapshot->frozen);
	close_frozen(f);
}

static void
test_frozen_too_briefly(void **state)
{
	const enum fake_agent_manner loses = FAKE_AGENT_LOSES;
	struct fixture *f = *state;

	open_frozen(f, HV_FREEZE_REQUIRE, 1, &loses);
	take(f);
	assert_int_equal(t.err.code, LC_ENOTSUP);
	assert_non_null(strstr(t.err.msg, "somebody else thawed"));
	assert_string_equal(t.log, "a:arm a:cut* a:undo");
	close_frozen(f);
}

static void
test_frozen_but_paused(void **state)
{
	const enum fake_agent_manner polite = FAKE_AGENT_POLITE;
	struct fixture *f = *state;

	open_frozen(f, HV_FREEZE_AUTO, 1, &polite);
	t.fakes[0]->base.vm.running = false;
	take(f);
	assert_int_equal(t.err.code, LC_OK);
	assert_string_equal(f->set[0].snapshot->freeze, "the guest does not run");
	assert_int_equal(fake_agent_saw(t.agents[0]).clients, 0);
	close_frozen(f);
}

static void
open_domain(struct fixture *f, enum hv_freeze freeze, enum hv_agent agent)
{
	struct hv_target target = {.vm = "a",
	                           .libvirt = "x:///",
	                           .domain = "a",
	                           .run_dir = "/nonexistent",
	                           .freeze = freeze};

	assert_int_equal(hv_open(&f->loop, &target, on_event, f, &f->hv[0], NULL), 0);
	f->set[0].hv = f->hv[0];
	f->n = 1;
	t.fakes[0]->base.vm.agent = agent;
	prepare_all(f);
	take(f);
}

/* A domain of libvirt's that has no guest agent is refused at once ... */
static void
test_frozen_domain(void **state)
{
	open_domain(*state, HV_FREEZE_REQUIRE, HV_AGENT_NOWHERE);
	assert_int_equal(t.err.code, LC_ENOTSUP);
	assert_non_null(strstr(t.err.msg, "the domain has no channel to a guest agent"));
}

static void
test_frozen_away(void **state)
{
	open_domain(*state, HV_FREEZE_REQUIRE, HV_AGENT_AWAY);
	assert_int_equal(t.err.code, LC_ENOTSUP);
	assert_non_null(strstr(t.err.msg, "libvirt sees no guest agent in the guest"));
}

/* ... or nothing is said of it, where nobody has asked for it. */
static void
test_frozen_offered(void **state)
{
	struct fixture *f = *state;

	open_domain(f, HV_FREEZE_OFFERED, HV_AGENT_AWAY);
	assert_int_equal(t.err.code, LC_OK);
	assert_false(f->set[0].snapshot->frozen);
	assert_string_equal(f->set[0].snapshot->freeze, "");
}

/* What a killed process of ours left frozen goes on before anything else. */
static void
test_left_frozen(void **state)
{
	const enum fake_agent_manner polite = FAKE_AGENT_POLITE;
	struct fixture *f = *state;
	struct lc_err e = LC_ERR_INIT;
	FILE *mark;

	open_frozen(f, HV_FREEZE_AUTO, 1, &polite);
	mark = fopen(tmpdir_path(dir, "frozen.a"), "w");
	assert_non_null(mark);
	assert_int_equal(fputc('f', mark), 'f');
	assert_int_equal(fclose(mark), 0);
	t.fakes[0]->fail_now = "prepare";
	assert_int_equal(hv_prepare(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_string_equal(t.err.msg, "a: prepare failed at once");
	assert_int_equal(fake_agent_saw(t.agents[0]).thaws, 1);
	t.fakes[0]->fail_now = NULL;
	assert_int_equal(hv_prepare(f->hv[0], on_done, f, &e), 0);
	await(f);
	assert_int_equal(t.err.code, LC_OK);
	assert_int_equal(fake_agent_saw(t.agents[0]).thaws, 1);
	close_frozen(f);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    T(test_one_life),
	    T(test_wrong_order),
	    T(test_no_driver),
	    T(test_failed_prepare),
	    T(test_uncapturable_disk),
	    T(test_group),
	    T(test_group_failures),
	    T(test_nothing_to_do),
	    T(test_release_that_fails_is_tried_again),
	    T(test_events),
	    T(test_frozen),
	    T(test_frozen_by_choice),
	    T(test_frozen_or_not_at_all),
	    T(test_frozen_group),
	    T(test_frozen_too_briefly),
	    T(test_frozen_but_paused),
	    T(test_frozen_domain),
	    T(test_frozen_away),
	    T(test_frozen_offered),
	    T(test_left_frozen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

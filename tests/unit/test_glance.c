/*
 * hv_glance() and hv_note(): when the driver is asked, and when its answer counts.  The driver is a
 * fake.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "agent/hypervisor/driver.h"
#include "tests/lib/unit.h"

struct hv_memo {
	int nothing; /* nobody looks into it */
};

static struct fake {
	struct driver base;
	uv_timer_t timer;
	hv_done_cb *done;
	void *arg;
	struct lc_err err;
	void (*closed)(void *arg);
	void *closed_arg;
	int rc; /* of the next call */
	bool same;
	int prepares, glances, notes;
} fake;

static struct {
	uv_loop_t loop;
	struct hv_memo memo;
	struct hv *hv;
	char *dir;
	int done;
	struct lc_err err;
} t;

static void
on_timer(uv_timer_t *timer)
{
	(void)timer;
	fake.done(fake.arg, &fake.err);
}

static int
begin(hv_done_cb *done, void *arg, struct lc_err *e)
{
	if (fake.rc == DRIVER_NOTHING)
		return fake.rc;
	if (fake.rc != 0)
		return lc_fail(e, LC_EIO, 0, "at once");
	fake.done = done;
	fake.arg = arg;
	return uv_timer_start(&fake.timer, on_timer, 1, 0);
}

static int
fake_prepare(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	(void)d;
	fake.prepares++;
	return begin(done, arg, e);
}

static int
fake_glance(struct driver *d, hv_done_cb *done, void *arg, struct lc_err *e)
{
	(void)d;
	fake.glances++;
	return begin(done, arg, e);
}

static bool
fake_same(const struct driver *d)
{
	return ((const struct fake *)d)->same;
}

static bool
fake_note(struct driver *d)
{
	(void)d;
	fake.notes++;
	return true;
}

static void
on_closed(uv_handle_t *h)
{
	(void)h;
	fake.closed(fake.closed_arg);
}

static void
fake_close(struct driver *d, void (*closed)(void *arg), void *arg)
{
	(void)d;
	fake.closed = closed;
	fake.closed_arg = arg;
	uv_close((uv_handle_t *)&fake.timer, on_closed);
}

static struct driver_ops ops;

int
driver_qemu_open(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out,
                 struct lc_err *e)
{
	(void)target;
	(void)e;
	fake = (struct fake){.base.ops = &ops, .same = true};
	(void)uv_timer_init(loop, &fake.timer);
	*out = &fake.base;
	return 0;
}

int
driver_image_open(struct uv_loop_s *loop, const struct hv_target *target, struct driver **out,
                  struct lc_err *e)
{
	return driver_qemu_open(loop, target, out, e);
}

static int
set_up(void **state)
{
	(void)state;
	memset(&t, 0, sizeof t);
	ops = (struct driver_ops){.prepare = fake_prepare,
	                          .glance = fake_glance,
	                          .same = fake_same,
	                          .note = fake_note,
	                          .close = fake_close};
	t.dir = tmpdir_new();
	return uv_loop_init(&t.loop);
}

static int
tear_down(void **state)
{
	(void)state;
	hv_close(t.hv, NULL, NULL);
	(void)uv_run(&t.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&t.loop), 0);
	tmpdir_free(t.dir);
	return 0;
}

static void
open_vm(struct hv_memo *memo)
{
	struct hv_target target = {.vm = "a",
	                           .qmp = "/x",
	                           .run_dir = t.dir,
	                           .freeze = HV_FREEZE_AUTO,
	                           .guest_agent = "/y",
	                           .memo = memo};

	assert_int_equal(hv_open(&t.loop, &target, NULL, NULL, &t.hv, NULL), 0);
	assert_false(hv_same(t.hv));
	assert_false(hv_note(t.hv)); /* there is nothing to note */
}

static void
on_done(void *arg, const struct lc_err *err)
{
	(void)arg;
	t.done++;
	t.err = *err;
}

static void
await(int rc)
{
	assert_int_equal(rc, 0);
	assert_int_equal(t.done, 0);
	(void)uv_run(&t.loop, UV_RUN_DEFAULT);
	assert_int_equal(t.done, 1);
	t.done = 0;
}

static bool
glance(void)
{
	await(hv_glance(t.hv, on_done, NULL, NULL));
	return hv_same(t.hv);
}

static void
test_as_the_driver_says(void **state)
{
	(void)state;
	open_vm(&t.memo);
	assert_true(glance());
	fake.same = false;
	assert_false(glance());
	fake.same = true;
	assert_true(glance());
	fake.rc = DRIVER_NOTHING; /* what was true then is no answer now */
	assert_false(glance());
	assert_int_equal(fake.glances, 4);
	assert_int_equal(fake.prepares, 0);
}

static void
test_failures(void **state)
{
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	open_vm(&t.memo);
	(void)lc_fail(&fake.err, LC_EPEER, 0, "gone");
	assert_false(glance());
	assert_string_equal(t.err.msg, "a: gone");
	lc_err_clear(&fake.err);
	assert_true(glance());
	fake.rc = LC_EIO;
	assert_int_equal(hv_glance(t.hv, on_done, NULL, &e), LC_EIO);
	assert_string_equal(e.msg, "a: at once");
	assert_false(hv_same(t.hv));
}

static void
test_before_a_look(void **state)
{
	(void)state;
	open_vm(&t.memo);
	assert_true(glance());
	await(hv_prepare(t.hv, on_done, NULL, NULL));
	assert_int_equal(t.err.code, LC_OK);
	assert_int_equal(hv_glance(t.hv, on_done, NULL, NULL), LC_EINVAL);
	assert_true(hv_note(t.hv));
	assert_int_equal(fake.notes, 1);
}

static void
test_nothing_to_compare_with(void **state)
{
	(void)state;
	open_vm(NULL);
	assert_false(glance());
	assert_int_equal(fake.glances, 0);
}

/* Images, which have no monitor. */
static void
test_driver_that_cannot(void **state)
{
	(void)state;
	ops.glance = NULL;
	ops.same = NULL;
	ops.note = NULL;
	open_vm(&t.memo);
	assert_false(glance());
	await(hv_prepare(t.hv, on_done, NULL, NULL));
	assert_false(hv_note(t.hv));
}

/* A guest that was left frozen writes nothing: if that were the same, nobody would thaw it. */
static void
test_left_frozen(void **state)
{
	FILE *mark;

	(void)state;
	open_vm(&t.memo);
	assert_true(glance());
	mark = fopen(tmpdir_path(t.dir, "frozen.a"), "w");
	assert_non_null(mark);
	assert_int_equal(fclose(mark), 0);
	assert_false(glance());
	assert_int_equal(fake.glances, 1);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    T(test_as_the_driver_says),      T(test_failures),           T(test_before_a_look),
	    T(test_nothing_to_compare_with), T(test_driver_that_cannot), T(test_left_frozen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/base/clock.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"
#include "tests/unit/qmp_fixture.h"

int
fixture_set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->dir = tmpdir_new();
	f->path = strdup(tmpdir_path(f->dir, "qmp"));
	f->fake = fake_qmp_new(&f->loop, f->path);
	*state = f;
	return 0;
}

void
fixture_on_closed(void *arg)
{
	struct fixture *f = arg;

	f->closed++;
	f->q = NULL;
}

int
fixture_tear_down(void **state)
{
	struct fixture *f = *state;

	lc_alloc_fail_after(-1);
	if (f->q != NULL)
		qmp_close(f->q, fixture_on_closed, f);
	if (f->fake != NULL)
		fake_qmp_close(f->fake);
	(void)uv_run(&f->loop, UV_RUN_DEFAULT);
	qmp_batch_free(f->b);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	tmpdir_free(f->dir);
	free((void *)(uintptr_t)f->path);
	free(f);
	return 0;
}

static void
fixture_close(struct fixture *f)
{
	qmp_close(f->q, fixture_on_closed, f);
	f->close_in_event = f->close_in_done = false;
}

static void
on_event(void *arg, const char *name, const struct json_t *data, int64_t at_us)
{
	struct fixture *f = arg;

	f->events++;
	(void)snprintf(f->event, sizeof f->event, "%s", name);
	f->event_us = at_us;
	(void)qmp_u64(data, "n", &f->event_number);
	if (f->close_in_event)
		fixture_close(f);
}

static void
on_lost(void *arg, const struct lc_err *err)
{
	struct fixture *f = arg;

	f->lost++;
	f->lost_err = *err;
}

void
fixture_on_open(void *arg, const struct lc_err *err)
{
	struct fixture *f = arg;

	f->opened++;
	f->open_err = *err;
}

void
fixture_on_done(void *arg, const struct lc_err *err)
{
	struct fixture *f = arg;

	f->done++;
	f->err = *err;
	if (f->close_in_done)
		fixture_close(f);
}

int
fixture_open(struct fixture *f, struct lc_err *e)
{
	struct qmp_opts o = {.socket = f->path,
	                     .connect_timeout_ms = 100,
	                     .command_timeout_ms = 100,
	                     .on_event = on_event,
	                     .on_lost = on_lost,
	                     .arg = f};

	return qmp_open(&f->loop, &o, fixture_on_open, f, &f->q, e);
}

void
fixture_await(struct fixture *f, const int *count)
{
	int64_t until = clock_mono_ns() + 5 * LC_NS_PER_S;

	while (*count == 0 && clock_mono_ns() < until)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
}

void
fixture_must_open(struct fixture *f)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(fixture_open(f, &e), 0);
	assert_int_equal(f->opened, 0);
	fixture_await(f, &f->opened);
	assert_int_equal(f->opened, 1);
	assert_string_equal(f->open_err.msg, "");
	assert_true(qmp_usable(f->q));
}

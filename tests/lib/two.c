#include "store/base/clock.h"
#include "tests/lib/two.h"
#include "tests/lib/unit.h"

#define SOON_MS 30000

const struct session_limits two_quick = {
    .connect_ms = 500, .ping_ms = 100, .dead_ms = 400, .stuck_ms = 800, .linger_ms = 200};

void
two_make(struct two *t, const struct session_limits *limits)
{
	assert_int_equal(uv_loop_init(&t->loop), 0);
	drsite_make(&t->d, &t->loop);
	if (limits != NULL)
		t->d.limits = *limits;
	drsite_start(&t->d);
	hostsite_make(&t->h, &t->loop, &t->d, "host-a");
	if (limits != NULL)
		t->h.limits = *limits;
	hostsite_pair(&t->h, &t->d);
}

void
two_done(struct two *t)
{
	hostsite_free(&t->h);
	drsite_free(&t->d);
	(void)uv_run(&t->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&t->loop), 0);
}

void
two_wait(struct two *t, bool (*condition)(void *arg), void *arg, const char *what)
{
	if (!run_until(&t->loop, condition, arg, SOON_MS))
		fail_msg("%s did not come about (last: %s)", what, t->h.why.msg);
}

struct vault_disk
two_disk(size_t n)
{
	struct vault_disk d = vault_disk("vda", n);
	size_t i;

	for (i = 0; i < n; i++)
		d.codes[i] = 5 * (i + 1);
	return d;
}

bool
two_is_left(void *arg)
{
	return server_guests(((struct two *)arg)->d.server) == 0;
}

/**
 * qmp_fixture: a monitor that a test plays (fake_qmp.h), a connection to it, and what that told.
 */
#ifndef LOCUM_TESTS_QMP_FIXTURE_H
#define LOCUM_TESTS_QMP_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/hypervisor/qmp.h"
#include "store/base/errors.h"
#include "tests/lib/fake_qmp.h"

struct fixture {
	uv_loop_t loop;
	char *dir;
	const char *path;
	struct fake_qmp *fake;
	struct qmp *q;
	struct qmp_batch *b;
	int opened, done, lost, closed, events;
	struct lc_err open_err, err, lost_err;
	char event[64];
	int64_t event_us;
	uint64_t event_number;
	bool close_in_event, close_in_done;
};

int fixture_set_up(void **state);
int fixture_tear_down(void **state);
/** fixture_open(f, e): begin to open f->q, with timeouts of 100 ms. */
int fixture_open(struct fixture *f, struct lc_err *e);
/** fixture_must_open(f): until it is open; asserts. */
void fixture_must_open(struct fixture *f);
/** fixture_await(f, count): turn the loop until *count is not 0 any more, at most 5 s. */
void fixture_await(struct fixture *f, const int *count);
/* What the connection tells; they count. */
void fixture_on_open(void *arg, const struct lc_err *err);
void fixture_on_done(void *arg, const struct lc_err *err);
void fixture_on_closed(void *arg);

#endif

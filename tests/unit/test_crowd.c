/*
 * Strangers that do all to take the places of a replica's connections.
 */
#include <string.h>

#include "replicator/noise.h"
#include "tests/lib/mole.h"
#include "tests/lib/must.h"
#include "tests/lib/two.h"
#include "tests/lib/twosites.h"
#include "tests/lib/unit.h"

#define CROWD 80u

/* Each proves some key, so it is told why it has to go; and it does not hang up. */
static void
who_has_to_go_takes_no_place(void **state)
{
	static struct mole m[CROWD];
	struct lc_err e = LC_ERR_INIT;
	struct identity id;
	struct two t;
	unsigned i;

	(void)state;
	two_make(&t, NULL); /* with the real limits */
	for (i = 0; i < CROWD; i++) {
		must(noise_keypair(id.secret, id.public, &e), &e);
		mole_start(&m[i], &t.loop, t.d.port, &id, t.d.id.public);
		two_wait(&t, mole_is_open, &m[i], "open");
	}
	run_for(&t.loop, 50);
	assert_true(server_guests(t.d.server) <= 40);
	assert_string_equal(m[CROWD / 2].refused, "it had not said who it is, and others came");
	hostsite_connect(&t.h);
	two_wait(&t, hostsite_is_up, &t.h, "up");
	hostsite_disconnect(&t.h);
	for (i = 0; i < CROWD; i++) {
		mole_end(&m[i]);
		while (!m[i].closed)
			(void)uv_run(&t.loop, UV_RUN_ONCE);
	}
	two_wait(&t, two_is_left, &t, "gone");
	drsite_stop(&t.d);
	two_done(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(who_has_to_go_takes_no_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

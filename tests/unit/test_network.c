/*
 * What a card hangs on, from the text that the human monitor gives.
 */
#include "agent/hypervisor/network.h"
#include "tests/lib/unit.h"

static const char text[] =
    "hub 0\r\n"
    " \\ hub0port0: socket.0: index=0,type=socket,\r\n"
    "net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n"
    " \\ hn0: index=0,type=user,net=10.0.2.0,restrict=off\r\n"
    "hn1: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:57\r\n"
    " \\ hn1: index=0,type=tap,ifname=locum-no-such,script=no\r\n"
    " \\ hn2: index=0,type=tap,ifname=../../x,script=no\r\n"
    " \\ hn3: index=0,type=tap,fd=12\r\n"
    " \\ hn4: index=0,type=nic,ifname=user\r\n";

static void
finds(const char *id, const char *want, bool known)
{
	char out[NETWORK_MAX];

	assert_int_equal(network_behind(text, id, out), known);
	assert_string_equal(out, want);
}

static void
a_back_end_is_found_by_its_id(void **state)
{
	(void)state;
	finds(NULL, "none", true);
	finds("", "none", true);
	finds("hn0", "user", true);
	finds("hn1", "unmapped", false); /* a tap that is on no bridge; the card has its name */
	finds("hn2", "unmapped", false);
	finds("hn3", "unmapped", false);
	finds("hn4", "unmapped", false);
	finds("hn", "unmapped", false);
	finds("hn00", "unmapped", false);
}

static void
one_that_we_made_says_so_itself(void **state)
{
	(void)state;
	finds("locum-br-0-br0", "bridge:br0", true);
	finds("locum-br-12-my-bridge", "bridge:my-bridge", true);
	finds("locum-br-0", "unmapped", false);
}

static void
a_monitor_that_says_nothing(void **state)
{
	char out[NETWORK_MAX];

	(void)state;
	assert_false(network_behind(NULL, "hn0", out));
	assert_string_equal(out, "unmapped");
	assert_false(network_behind("", "hn0", out));
	assert_false(network_behind("hn0: index=0,type=", "hn0", out));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_back_end_is_found_by_its_id),
	    cmocka_unit_test(one_that_we_made_says_so_itself),
	    cmocka_unit_test(a_monitor_that_says_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

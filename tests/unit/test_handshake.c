/*
 * How a channel begins: versions, keys, and what is no handshake.
 */
#include <string.h>

#include "replicator/channel.h"
#include "store/base/bytes.h"
#include "tests/lib/rawpeer.h"
#include "tests/lib/side.h"
#include "tests/lib/unit.h"

static void
both_sides_learn_who_the_other_is(void **state)
{
	struct side host, replica;

	(void)state;
	side_meet(&host, &replica);
	assert_int_equal(host.opened, 1);
	assert_int_equal(replica.opened, 1);
	assert_memory_equal(channel_peer(host.ch), rawpeer_replica_public(), CHANNEL_KEY_SIZE);
	assert_memory_equal(channel_peer(replica.ch), rawpeer_host_public(), CHANNEL_KEY_SIZE);
	assert_int_equal(host.nwire, PREFACE + SHAKE_1 + SHAKE_3);
	assert_int_equal(replica.nwire, SHAKE_2);
	side_free(&host);
	side_free(&replica);
}

static void
handshake_messages_of_other_lengths_are_refused(void **state)
{
	static const uint16_t lengths[] = {0, 1, 47, 49, 64, 65535};
	uint8_t p[2];
	struct side host, replica;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		lc_put16(p, lengths[i]);
		side_new(&host, true);
		side_new(&replica, false);
		assert_int_equal(side_feed(&host, p, 2), LC_EPEER);
		side_failed(&host, LC_EPEER, "that is no replica's port");
		assert_int_equal(side_feed(&replica, (const uint8_t *)"LOCUMCH\1", PREFACE), 0);
		assert_int_equal(side_feed(&replica, p, 2), LC_EPEER);
		side_failed(&replica, LC_EPEER, "a handshake message of");
		side_free(&host);
		side_free(&replica);
	}
}

static void
another_version_is_answered_with_ours(void **state)
{
	struct side host, replica;
	uint8_t answer[64];
	size_t n, k;

	(void)state;
	side_new(&replica, false);
	assert_int_equal(side_feed(&replica, (const uint8_t *)"LOCUMCH\2 whatever", 16),
	                 LC_EVERSION);
	assert_non_null(strstr(replica.e.msg, "speaks version 2, we speak version 1"));
	assert_int_equal(channel_queued(replica.ch), PREFACE);
	assert_int_equal(channel_pull(replica.ch, answer, 3, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_int_equal(channel_pull(replica.ch, answer + 3, sizeof answer - 3, &k, NULL), 0);
	assert_int_equal(n + k, PREFACE);
	assert_memory_equal(answer, "LOCUMCH\1", PREFACE);
	side_failed(&replica, LC_EVERSION, "version 2");
	side_free(&replica);

	side_new(&host, true);
	assert_int_equal(side_feed(&host, (const uint8_t *)"LOCUMCH", 7), 0);
	assert_int_equal(channel_eof(host.ch, NULL), LC_EPEER);
	assert_int_equal(side_feed(&host, (const uint8_t *)"\3", 1), LC_EVERSION);
	side_failed(&host, LC_EVERSION, "speaks version 3, we speak version 1");
	side_free(&host);

	/* To refuse one's own version makes no sense. */
	side_new(&host, true);
	assert_int_equal(side_feed(&host, (const uint8_t *)"LOCUMCH\1", 8), LC_EPEER);
	side_failed(&host, LC_EPEER, "does not speak our protocol");
	side_free(&host);
}

static void
other_protocols_get_no_answer(void **state)
{
	struct side s;

	(void)state;
	side_new(&s, false);
	assert_int_equal(side_feed(&s, (const uint8_t *)"GET / HTTP/1.1\r\n", 16), LC_EPEER);
	side_failed(&s, LC_EPEER, "does not speak our protocol");
	side_free(&s);
	side_new(&s, true);
	assert_int_equal(side_feed(&s, (const uint8_t *)"SSH-2.0-OpenSSH\r\n", 17), LC_EPEER);
	side_failed(&s, LC_EPEER, "a handshake message of");
	side_free(&s);
	side_new(&s, true);
	assert_int_equal(side_feed(&s, (const uint8_t *)"LOCKSMITH", 9), LC_EPEER);
	side_failed(&s, LC_EPEER, "does not speak our protocol");
	side_free(&s);
}

static void
a_replica_with_another_key_is_refused(void **state)
{
	struct side host, replica;

	(void)state;
	side_new(&replica, false);
	side_new_to(&host, true, rawpeer_host_public());
	assert_int_equal(side_carry(&host, &replica), LC_EKEY);
	side_failed(&replica, LC_EKEY, "does it expect another key of us?");
	assert_null(channel_peer(replica.ch));
	assert_int_equal(channel_eof(host.ch, &host.e), LC_EPEER);
	assert_non_null(strstr(host.e.msg, "before handshake message 2 (has its key changed?)"));
	side_free(&host);
	side_free(&replica);
}

static void
a_replica_key_of_low_order_is_refused(void **state)
{
	static const uint8_t zero[CHANNEL_KEY_SIZE];
	struct lc_err e = LC_ERR_INIT;
	struct channel *ch;

	(void)state;
	assert_int_equal(channel_new(rawpeer_host, zero, &ch, &e), LC_EKEY);
	assert_null(ch);
	channel_free(ch);
}

static void
a_stranger_is_refused_before_his_messages(void **state)
{
	struct side host, replica;

	(void)state;
	side_new(&host, true);
	side_new(&replica, false);
	replica.refuse_peer = true;
	side_send(&host, 1, "let me in", 9);
	assert_int_equal(side_carry(&host, &replica), 0);
	assert_int_equal(side_carry(&replica, &host), 0);
	assert_int_equal(side_carry(&host, &replica), LC_EACCES);
	side_failed(&replica, LC_EACCES, "stranger");
	assert_int_equal(replica.opened, 1);
	assert_int_equal(replica.messages, 0);
	/* His key stays, for the log. */
	assert_memory_equal(channel_peer(replica.ch), rawpeer_host_public(), CHANNEL_KEY_SIZE);
	side_free(&host);
	side_free(&replica);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(both_sides_learn_who_the_other_is),
	    cmocka_unit_test(handshake_messages_of_other_lengths_are_refused),
	    cmocka_unit_test(another_version_is_answered_with_ours),
	    cmocka_unit_test(other_protocols_get_no_answer),
	    cmocka_unit_test(a_replica_with_another_key_is_refused),
	    cmocka_unit_test(a_replica_key_of_low_order_is_refused),
	    cmocka_unit_test(a_stranger_is_refused_before_his_messages),
	};

	rawpeer_random(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * An attacker on the line: what was recorded is said again, changed, cut, or in another order.
 */
#include <stdlib.h>
#include <string.h>

#include "replicator/channel.h"
#include "store/base/bytes.h"
#include "tests/lib/rawpeer.h"
#include "tests/lib/side.h"
#include "tests/lib/unit.h"

static const char secret[] = "a secret of the other site";

enum { FRAMES = 5 };

/* What a host says in a session: handshake, FRAMES frames of one message each, CLOSE. */
struct record {
	uint8_t *p;
	size_t n;
	size_t first;             /* where the first message of the handshake begins */
	size_t third;             /* ... and the third */
	size_t frame[FRAMES + 2]; /* where frames begin; the last one is CLOSE */
};

#define SESSION_SEED 77u /* of the randomness of the recorded session */

static void
record_session(struct record *rec)
{
	struct side host, replica;
	size_t i;

	rawpeer_random(SESSION_SEED);
	side_meet(&host, &replica);
	rec->first = PREFACE;
	rec->third = PREFACE + SHAKE_1;
	for (i = 0; i < FRAMES; i++) {
		rec->frame[i] = host.nwire;
		side_send(&host, (uint16_t)(1 + i), secret, i * 6);
		(void)side_pull(&host);
	}
	rec->frame[FRAMES] = host.nwire;
	assert_int_equal(channel_close(host.ch, NULL), 0);
	(void)side_pull(&host);
	rec->frame[FRAMES + 1] = host.nwire;
	rec->p = malloc(host.nwire);
	assert_non_null(rec->p);
	memcpy(rec->p, host.wire, host.nwire);
	rec->n = host.nwire;
	side_free(&host);
	side_free(&replica);
}

/* A replica that makes the same choices as in the recorded session. */
static void
side_again(struct side *s)
{
	struct channel *host;

	rawpeer_random(SESSION_SEED);
	/* In the recorded session the host's ephemeral key was drawn first. */
	assert_int_equal(channel_new(rawpeer_host, rawpeer_replica_public(), &host, NULL), 0);
	channel_free(host);
	side_new(s, false);
}

/* How many whole frames with a message lie before byte n of the stream. */
static unsigned
messages_before(const struct record *rec, size_t n)
{
	unsigned i = 0;

	while (i < FRAMES && rec->frame[i + 1] <= n)
		i++;
	return i;
}

/* A changed stream gives the messages before the change, and then an error: at once, or where the
 * change was to a length, when the stream is over. */
static void
assert_stops(const uint8_t *p, size_t n, unsigned messages, const char *what, size_t at)
{
	struct side s;

	side_again(&s);
	if (side_feed(&s, p, n) == 0 && channel_eof(s.ch, &s.e) == 0)
		fail_msg("%s at %zu: not noticed", what, at);
	if (s.messages != messages)
		fail_msg("%s at %zu: %u messages delivered", what, at, s.messages);
	side_free(&s);
}

static void
a_recorded_session_repeats(void **state)
{
	struct record rec;
	struct side s;

	(void)state;
	record_session(&rec);
	side_again(&s);
	assert_int_equal(side_feed(&s, rec.p, rec.n), 0);
	assert_int_equal(s.messages, FRAMES);
	assert_true(channel_ended(s.ch));
	side_free(&s);
	/* But not before a replica that draws other random bytes. */
	rawpeer_random(SESSION_SEED + 1);
	side_new(&s, false);
	assert_int_equal(side_feed(&s, rec.p, rec.n), LC_EKEY);
	side_failed(&s, LC_EKEY, "message 3");
	assert_int_equal(s.opened, 0);
	side_free(&s);
	free(rec.p);
}

static void
a_flipped_bit_anywhere_stops_it(void **state)
{
	struct record rec;
	size_t i;

	(void)state;
	record_session(&rec);
	for (i = 0; i < rec.n; i++) {
		uint8_t mask = (uint8_t)(1u << (i % 8));

		rec.p[i] ^= mask;
		assert_stops(rec.p, rec.n, messages_before(&rec, i), "flip", i);
		rec.p[i] ^= mask;
	}
	free(rec.p);
}

static void
a_cut_anywhere_is_told_from_an_end(void **state)
{
	struct record rec;
	struct side s;
	size_t i;

	(void)state;
	record_session(&rec);
	for (i = 0; i < rec.n; i++) {
		side_again(&s);
		assert_int_equal(side_feed(&s, rec.p, i), 0);
		assert_int_equal(s.messages, messages_before(&rec, i));
		assert_false(channel_ended(s.ch));
		assert_int_equal(channel_eof(s.ch, &s.e), LC_EPEER);
		if (i < PREFACE)
			assert_non_null(strstr(s.e.msg, "in the preface"));
		else if (i < rec.frame[0])
			assert_non_null(strstr(s.e.msg, "before handshake message"));
		else if (i == rec.frame[messages_before(&rec, i)])
			assert_non_null(strstr(s.e.msg, "between two messages"));
		else
			assert_non_null(strstr(s.e.msg, "in the middle of a message"));
		side_free(&s);
	}
	free(rec.p);
}

/* The stream up to frame `keep`, then the given frames. */
static size_t
splice(const struct record *rec, unsigned keep, const unsigned *frames, size_t nframes,
       uint8_t *out)
{
	size_t n = rec->frame[keep], i, k;

	memcpy(out, rec->p, n);
	for (i = 0; i < nframes; i++) {
		k = rec->frame[frames[i] + 1] - rec->frame[frames[i]];
		memcpy(out + n, rec->p + rec->frame[frames[i]], k);
		n += k;
	}
	return n;
}

static void
frames_dropped_repeated_or_moved_stop_it(void **state)
{
	struct record rec;
	uint8_t out[4096];
	unsigned i, k;
	size_t n;

	(void)state;
	record_session(&rec);
	for (i = 0; i <= FRAMES; i++) {
		for (k = 0; k <= FRAMES; k++) {
			if (k == i)
				continue;
			/* Any other frame in the place of i: dropped, moved or played again. */
			n = splice(&rec, i, &k, 1, out);
			assert_stops(out, n, i, "frame", i);
		}
	}
	/* CLOSE again, and something after it. */
	n = splice(&rec, FRAMES, (const unsigned[]){FRAMES, FRAMES}, 2, out);
	assert_stops(out, n, FRAMES, "CLOSE twice", n);
	n = splice(&rec, FRAMES, (const unsigned[]){FRAMES}, 1, out);
	out[n] = 0;
	assert_stops(out, n + 1, FRAMES, "a byte after CLOSE", n);
	free(rec.p);
}

static void
what_one_says_is_not_taken_back_by_him(void **state)
{
	struct side host, replica;
	size_t n;

	(void)state;
	side_meet(&host, &replica);
	side_send(&host, 1, "mirror", 6);
	n = side_pull(&host);
	assert_int_equal(side_feed(&host, host.wire + host.nwire - n, n), LC_ECORRUPT);
	side_failed(&host, LC_ECORRUPT, "not authentic");
	side_free(&host);
	side_free(&replica);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_recorded_session_repeats),
	    cmocka_unit_test(a_flipped_bit_anywhere_stops_it),
	    cmocka_unit_test(a_cut_anywhere_is_told_from_an_end),
	    cmocka_unit_test(frames_dropped_repeated_or_moved_stop_it),
	    cmocka_unit_test(what_one_says_is_not_taken_back_by_him),
	};

	rawpeer_random(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

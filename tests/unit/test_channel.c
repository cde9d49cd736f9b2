/*
 * LOCUM_CHANNEL_SEED=n gives the seed of the random conversations (printed at the start),
 * LOCUM_CHANNEL_RUNS how many seeds from there on.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replicator/channel.h"
#include "store/base/bytes.h"
#include "tests/lib/rawpeer.h"
#include "tests/lib/side.h"
#include "tests/lib/unit.h"
#include "tests/unit/vectors_channel.h"

#define HEAD ((size_t)8)
#define REKEY_EVERY 16384u

/* ---- blocks that are freed while they hold a secret (the linker puts these in the way) ---- */

static const char secret[] = "a secret of the other site";
static unsigned leaks;

void *__real_lc_realloc(void *p, size_t n);
void __real_lc_free(void *p);
void *__wrap_lc_realloc(void *p, size_t n);
void __wrap_lc_free(void *p);

void *
__wrap_lc_realloc(void *p, size_t n)
{
	void *q = __real_lc_realloc(p, n);

	if (p == NULL && q != NULL)
		memset(q, 0, n); /* so that the search below reads nothing unwritten */
	return q;
}

void
__wrap_lc_free(void *p)
{
	if (p != NULL && memmem(p, malloc_usable_size(p), secret, sizeof secret) != NULL)
		leaks++;
	__real_lc_free(p);
}

/* ---- what is right ---- */

/* The session that vectors_channel.py made, up to where both are open.  Ours is what is checked. */
static void
begin_vector_session(struct side *s, bool host)
{
	const uint8_t *p = host ? vector_replica_1 : vector_host_1;
	size_t n = host ? sizeof vector_replica_1 : sizeof vector_host_1;

	rawpeer_next_random(host ? vector_host_ephemeral : vector_replica_ephemeral);
	side_new(s, host);
	assert_int_equal(side_feed(s, p, n), 0);
	(void)side_pull(s);
}

static void
says_what_another_implementation_says(void **state)
{
	const struct lc_span parts[] = {
	    {(const uint8_t *)"in ", 3}, {NULL, 0}, {(const uint8_t *)"parts", 5}};
	struct side host, replica;
	uint8_t body[300];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof body; i++)
		body[i] = (uint8_t)i;
	begin_vector_session(&host, true);
	side_send(&host, 1, "hello", 5);
	side_send(&host, 2, NULL, 0);
	side_send(&host, 65535, body, sizeof body);
	(void)side_pull(&host);
	assert_int_equal(channel_close(host.ch, NULL), 0);
	(void)side_pull(&host);
	assert_int_equal(host.nwire, sizeof vector_host_1 + sizeof vector_host_2);
	assert_memory_equal(host.wire, vector_host_1, sizeof vector_host_1);
	assert_memory_equal(host.wire + sizeof vector_host_1, vector_host_2, sizeof vector_host_2);

	begin_vector_session(&replica, false);
	assert_int_equal(side_feed(&replica, vector_host_2, sizeof vector_host_2), 0);
	assert_int_equal(replica.messages, 3);
	assert_int_equal(replica.last_type, 65535);
	assert_int_equal(replica.last_n, sizeof body);
	assert_int_equal(channel_send(replica.ch, 3, parts, 3, NULL), 0);
	(void)side_pull(&replica);
	assert_int_equal(channel_close(replica.ch, NULL), 0);
	(void)side_pull(&replica);
	assert_int_equal(replica.nwire, sizeof vector_replica_1 + sizeof vector_replica_2);
	assert_memory_equal(replica.wire, vector_replica_1, sizeof vector_replica_1);
	assert_memory_equal(replica.wire + sizeof vector_replica_1, vector_replica_2,
	                    sizeof vector_replica_2);
	assert_true(channel_ended(replica.ch));

	assert_int_equal(side_feed(&host, vector_replica_2, sizeof vector_replica_2), 0);
	assert_true(channel_ended(host.ch));
	assert_int_equal(host.messages, 1);
	assert_int_equal(host.digest,
	                 side_digest(0, 3, (const uint8_t *)"in parts", strlen("in parts")));
	side_free(&host);
	side_free(&replica);
}

static void
frames_may_be_cut_anywhere(void **state)
{
	struct side whole, cut;

	(void)state;
	begin_vector_session(&whole, false);
	assert_int_equal(side_feed(&whole, vector_host_2, sizeof vector_host_2), 0);
	begin_vector_session(&cut, false);
	assert_int_equal(side_feed(&cut, vector_host_2_cut, sizeof vector_host_2_cut), 0);
	assert_int_equal(cut.messages, 3);
	assert_int_equal(cut.digest, whole.digest);
	assert_true(channel_ended(cut.ch));
	side_free(&whole);
	side_free(&cut);
}

static void
the_key_changes_after_2_to_the_14_frames(void **state)
{
	struct side host, replica;
	unsigned i;

	(void)state;
	begin_vector_session(&host, true);
	begin_vector_session(&replica, false);
	assert_int_equal(side_feed(&replica, host.wire + sizeof vector_host_1,
	                           host.nwire - sizeof vector_host_1),
	                 0);
	for (i = 0; i < 2 * REKEY_EVERY + 2; i++) {
		side_send(&host, 1, NULL, 0);
		assert_int_equal(side_carry(&host, &replica), 0);
		side_send(&replica, 1, NULL, 0);
		assert_int_equal(side_carry(&replica, &host), 0);
		if (i == REKEY_EVERY)
			assert_memory_equal(host.wire + host.nwire - sizeof vector_host_rekeyed,
			                    vector_host_rekeyed, sizeof vector_host_rekeyed);
	}
	assert_int_equal(replica.messages, i);
	assert_int_equal(host.messages, i);
	side_free(&host);
	side_free(&replica);
}

static void
who_forgets_to_change_the_key_is_refused(void **state)
{
	static uint8_t frame[RAWPEER_FRAME_MAX], message[HEAD];
	struct side s;
	struct rawpeer r;
	unsigned i;
	size_t n;

	(void)state;
	side_new(&s, false);
	rawpeer_meet(&r, s.ch, true, &s.events);
	r.no_rekey = true;
	lc_put16(message + 4, 1);
	for (i = 0; i < REKEY_EVERY; i++) {
		n = rawpeer_frame(&r, message, sizeof message, frame);
		assert_int_equal(side_feed(&s, frame, n), 0);
	}
	n = rawpeer_frame(&r, message, sizeof message, frame);
	assert_int_equal(side_feed(&s, frame, n), LC_ECORRUPT);
	side_failed(&s, LC_ECORRUPT, "frame 16384");
	assert_int_equal(s.messages, REKEY_EVERY);
	side_free(&s);
}

static void
small_messages_share_a_frame(void **state)
{
	struct side host, replica;
	size_t i, n;

	(void)state;
	side_new(&host, true);
	side_new(&replica, false);
	for (i = 0; i < 100; i++) /* Already before the handshake. */
		side_send(&host, 7, "0123456789", 10);
	assert_int_equal(channel_queued(host.ch), PREFACE + SHAKE_1 + 18 + 100 * 18);
	assert_int_equal(side_pull(&host), PREFACE + SHAKE_1);
	assert_int_equal(side_feed(&replica, host.wire, host.nwire), 0);
	assert_int_equal(side_carry(&replica, &host), 0);
	n = side_pull(&host);
	assert_int_equal(n, SHAKE_3 + 18 + 100 * 18);
	assert_int_equal(side_feed(&replica, host.wire + host.nwire - n, n), 0);
	assert_int_equal(replica.messages, 100);
	assert_int_equal(channel_queued(host.ch), 0);
	side_free(&host);
	side_free(&replica);
}

static void
messages_of_any_size_arrive(void **state)
{
	static const size_t sizes[] = {0,
	                               1,
	                               PLAIN_MAX - HEAD - 1,
	                               PLAIN_MAX - HEAD,
	                               PLAIN_MAX - HEAD + 1,
	                               PLAIN_MAX,
	                               (size_t)2 * PLAIN_MAX - HEAD,
	                               1 << 20,
	                               CHANNEL_BODY_MAX};
	static uint8_t body[CHANNEL_BODY_MAX + 1];
	const struct lc_span parts[] = {{body, CHANNEL_BODY_MAX}, {body, 1}};
	const struct lc_span endless[] = {{body, SIZE_MAX}, {body, SIZE_MAX}, {body, 2}};
	struct side host, replica;
	uint64_t digest = 0;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof body; i++)
		body[i] = (uint8_t)(i * 31 >> 3);
	side_meet(&host, &replica);
	for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		side_send(&host, (uint16_t)(i + 1), body, sizes[i]);
		digest = side_digest(digest, (uint16_t)(i + 1), body, sizes[i]);
		assert_int_equal(side_carry(&host, &replica), 0);
		assert_int_equal(replica.messages, i + 1);
		assert_int_equal(replica.digest, digest);
	}
	assert_int_equal(channel_send(host.ch, 1, parts, 2, NULL), LC_EINVAL);
	assert_int_equal(channel_send(host.ch, 1, endless, 3, NULL), LC_EINVAL);
	assert_int_equal(channel_send(host.ch, 0, NULL, 0, NULL), LC_EINVAL);
	assert_int_equal(channel_queued(host.ch), 0);
	side_free(&host);
	side_free(&replica);
}

/* ---- random conversations ---- */

static uint64_t
draw(uint64_t *seed, uint64_t n)
{
	uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % n;
}

/* Mostly small, sometimes around a frame, sometimes as large as can be. */
static size_t
draw_size(uint64_t *seed)
{
	switch (draw(seed, 16)) {
	case 0:
		return draw(seed, CHANNEL_BODY_MAX + 1);
	case 1:
	case 2:
		return PLAIN_MAX - 20 + draw(seed, 40);
	default:
		return draw(seed, 200);
	}
}

struct way { /* what is under way in one direction */
	struct side *from, *to;
	uint8_t *p;
	size_t n;
	uint64_t sent; /* digest */
	unsigned left; /* messages to be sent */
};

static void
step(struct way *w, uint64_t *seed, const uint8_t *text)
{
	size_t n, k;

	switch (draw(seed, 4)) {
	case 0:
		if (w->left == 0)
			break;
		w->left--;
		n = draw_size(seed);
		k = draw(seed, n + 1);
		const struct lc_span parts[] = {{text, k}, {text + k, n - k}};
		uint16_t type = (uint16_t)(1 + draw(seed, 65535));

		assert_int_equal(channel_send(w->from->ch, type, parts, 2, NULL), 0);
		w->sent = side_digest(w->sent, type, text, n);
		break;
	case 1:
		k = channel_queued(w->from->ch);
		assert_int_equal(
		    channel_pull(w->from->ch, w->p + w->n, draw(seed, 70000), &n, NULL), 0);
		w->n += n;
		assert_int_equal(channel_queued(w->from->ch), k - n);
		break;
	default:
		for (k = 0; k < w->n; k += n) { /* what is under way, in pieces */
			n = 1 + draw(seed, draw(seed, 3) == 0 ? 20 : w->n);
			n = n < w->n - k ? n : w->n - k;
			assert_int_equal(side_feed(w->to, w->p + k, n), 0);
		}
		w->n = 0;
		break;
	}
}

static void
converse(uint64_t seed, const uint8_t *text)
{
	struct side host, replica;
	struct way out = {.from = &host, .to = &replica}, back = {.from = &replica, .to = &host};

	side_new(&host, true);
	side_new(&replica, false);
	out.left = (unsigned)draw(&seed, 60);
	back.left = (unsigned)draw(&seed, 60);
	out.p = malloc(4 << 20);
	back.p = malloc(4 << 20);
	assert_non_null(out.p);
	assert_non_null(back.p);
	while (out.left > 0 || back.left > 0 || out.n > 0 || back.n > 0 ||
	       channel_queued(host.ch) > 0 || channel_queued(replica.ch) > 0) {
		if (out.n < 3 << 20)
			step(&out, &seed, text);
		if (back.n < 3 << 20)
			step(&back, &seed, text);
	}
	assert_int_equal(replica.digest, out.sent);
	assert_int_equal(host.digest, back.sent);
	assert_int_equal(channel_close(host.ch, NULL), 0);
	assert_int_equal(channel_close(host.ch, NULL), 0); /* Does nothing. */
	assert_int_equal(side_carry(&host, &replica), 0);
	assert_true(channel_ended(replica.ch));
	assert_int_equal(channel_eof(replica.ch, NULL), 0);
	free(out.p);
	free(back.p);
	side_free(&host);
	side_free(&replica);
}

static uint64_t
number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name); /* NOLINT(concurrency-mt-unsafe): one thread */

	return s == NULL ? otherwise : strtoull(s, NULL, 10);
}

static void
random_conversations_arrive(void **state)
{
	uint64_t seed = number("LOCUM_CHANNEL_SEED", 1), runs = number("LOCUM_CHANNEL_RUNS", 10), i;
	uint8_t *text = malloc(CHANNEL_BODY_MAX);

	(void)state;
	assert_non_null(text);
	for (i = 0; i < CHANNEL_BODY_MAX; i++)
		text[i] = (uint8_t)draw(&seed, 256);
	seed = number("LOCUM_CHANNEL_SEED", 1);
	(void)printf("seeds %llu to %llu\n", (unsigned long long)seed,
	             (unsigned long long)(seed + runs - 1));
	for (i = 0; i < runs; i++)
		converse(seed + i, text);
	free(text);
}

/* ---- a peer that breaks the rules ---- */

static void
assert_rule(const uint8_t *plain, size_t n, unsigned messages, const char *text)
{
	uint8_t frame[RAWPEER_FRAME_MAX];
	struct side s;
	struct rawpeer r;
	int k;

	for (k = 0; k < 2; k++) { /* towards either side */
		side_new(&s, k == 0);
		rawpeer_meet(&r, s.ch, k == 1, &s.events);
		lc_alloc_fail_after(0); /* Nothing is allocated for it. */
		assert_int_equal(side_feed(&s, frame, rawpeer_frame(&r, plain, n, frame)),
		                 LC_EPEER);
		lc_alloc_fail_after(-1);
		assert_int_equal(s.messages, messages);
		side_failed(&s, LC_EPEER, text);
		side_free(&s);
	}
}

static void
put_head(uint8_t *p, uint32_t n, uint16_t type, uint16_t zero)
{
	lc_put32(p, n);
	lc_put16(p + 4, type);
	lc_put16(p + 6, zero);
}

static void
malformed_messages_are_refused(void **state)
{
	uint8_t p[4 * HEAD] = {0};

	(void)state;
	put_head(p, CHANNEL_BODY_MAX + 1, 9, 0);
	assert_rule(p, HEAD, 0, "a message of 1052673 bytes (type 9)");
	put_head(p, UINT32_MAX, 9, 0);
	assert_rule(p, HEAD, 0, "4294967295");
	put_head(p, 0, 9, 1);
	assert_rule(p, HEAD, 0, "malformed");
	put_head(p, 0, 9, 0x8000);
	assert_rule(p, HEAD, 0, "malformed");
	put_head(p, 1, 0, 0);
	assert_rule(p, HEAD + 1, 0, "malformed");
	/* What is good before it is delivered. */
	put_head(p, HEAD, 9, 0);
	put_head(p + 2 * HEAD, 0, 9, 0);
	put_head(p + 3 * HEAD, 0, 0, 1);
	assert_rule(p, 4 * HEAD, 2, "malformed");
	/* Nothing comes after CLOSE. */
	put_head(p, 0, 9, 0);
	put_head(p + HEAD, 0, 0, 0);
	put_head(p + 2 * HEAD, 0, 9, 0);
	assert_rule(p, 3 * HEAD, 1, "after CLOSE");
	assert_rule(p, 2 * HEAD + 1, 1, "after CLOSE");
}

static void
frames_without_content_are_refused(void **state)
{
	uint8_t frame[RAWPEER_FRAME_MAX];
	struct side s;
	struct rawpeer r;
	unsigned n;

	(void)state;
	for (n = 0; n <= 16; n++) {
		side_new(&s, false);
		rawpeer_meet(&r, s.ch, true, &s.events);
		if (n == 16)
			(void)rawpeer_frame(&r, NULL, 0, frame); /* Authentic, and empty. */
		lc_put16(frame, (uint16_t)n);
		assert_int_equal(side_feed(&s, frame, 2), LC_EPEER);
		side_failed(&s, LC_EPEER, "a frame of");
		side_free(&s);
	}
}

static void
the_longest_frame_is_taken(void **state)
{
	static uint8_t plain[PLAIN_MAX], frame[RAWPEER_FRAME_MAX];
	struct side s;
	struct rawpeer r;
	size_t n;

	(void)state;
	side_new(&s, false);
	rawpeer_meet(&r, s.ch, true, &s.events);
	put_head(plain, PLAIN_MAX - HEAD, 1, 0);
	n = rawpeer_frame(&r, plain, sizeof plain, frame);
	assert_int_equal(n, RAWPEER_FRAME_MAX);
	assert_int_equal(side_feed(&s, frame, n), 0);
	assert_int_equal(s.last_n, PLAIN_MAX - HEAD);
	side_free(&s);
}

static int
refuse_in_silence(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	(void)arg, (void)type, (void)body, (void)e;
	return LC_EBUSY;
}

static void
what_a_callback_says_is_final(void **state)
{
	struct side host, replica;

	(void)state;
	side_meet(&host, &replica);
	replica.refuse_at = 2;
	side_send(&host, 1, "a", 1);
	side_send(&host, 1, "b", 1);
	side_send(&host, 1, "c", 1);
	side_send(&replica, 1, "d", 1);
	assert_int_equal(side_carry(&host, &replica), LC_ENOSPC);
	side_failed(&replica, LC_ENOSPC, "quota");
	assert_int_equal(replica.messages, 2);
	side_free(&host);
	side_free(&replica);

	side_meet(&host, &replica);
	replica.events.message = refuse_in_silence;
	replica.events.opened = NULL;
	side_send(&host, 1, "a", 1);
	assert_int_equal(side_carry(&host, &replica), LC_EBUSY);
	side_failed(&replica, LC_EBUSY, "refused");
	side_free(&host);
	side_free(&replica);
}

static void
each_direction_ends_by_itself(void **state)
{
	struct side host, replica;

	(void)state;
	side_meet(&host, &replica);
	assert_int_equal(channel_close(host.ch, NULL), 0);
	assert_int_equal(channel_send(host.ch, 1, NULL, 0, NULL), LC_EINVAL);
	assert_int_equal(side_carry(&host, &replica), 0);
	assert_true(channel_ended(replica.ch) && !channel_ended(host.ch));
	assert_true(channel_established(replica.ch));
	side_send(&replica, 1, "still", 5);
	assert_int_equal(side_carry(&replica, &host), 0);
	assert_int_equal(host.messages, 1);
	assert_int_equal(channel_eof(host.ch, NULL), LC_EPEER);
	assert_int_equal(channel_close(replica.ch, NULL), 0);
	assert_int_equal(side_carry(&replica, &host), 0);
	assert_true(channel_ended(host.ch));
	assert_int_equal(side_feed(&host, NULL, 0), 0);
	side_free(&host);
	side_free(&replica);
}

/* ---- memory ---- */

static void
without_memory_nothing_is_queued(void **state)
{
	static const uint8_t body[3 * PLAIN_MAX];
	const struct lc_span spans[] = {{(const uint8_t *)secret, sizeof secret},
	                                {body, sizeof body}};
	struct side host, replica;
	size_t queued;
	long n;

	(void)state;
	for (n = 0; n < 3; n++) {
		struct lc_err e = LC_ERR_INIT;

		side_meet(&host, &replica);
		side_send(&host, 1, "before", 6);
		queued = channel_queued(host.ch);
		lc_alloc_fail_after(n);
		assert_int_equal(channel_send(host.ch, 2, spans, 2, &e), LC_ENOMEM);
		lc_alloc_fail_after(-1);
		assert_int_equal(e.code, LC_ENOMEM);
		assert_int_equal(channel_queued(host.ch), queued);
		side_send(&host, 3, "after", 5);
		assert_int_equal(side_carry(&host, &replica), 0);
		assert_int_equal(replica.messages, 2);
		assert_int_equal(replica.last_type, 3);
		side_free(&host);
		side_free(&replica);
	}
	/* The same for CLOSE and an empty queue. */
	side_meet(&host, &replica);
	lc_alloc_fail_after(0);
	assert_int_equal(channel_close(host.ch, NULL), LC_ENOMEM);
	lc_alloc_fail_after(-1);
	assert_int_equal(channel_queued(host.ch), 0);
	assert_int_equal(channel_close(host.ch, NULL), 0);
	assert_int_equal(side_carry(&host, &replica), 0);
	assert_true(channel_ended(replica.ch));
	side_free(&host);
	side_free(&replica);
}

static void
without_memory_receiving_fails(void **state)
{
	static uint8_t body[PLAIN_MAX];
	struct side host, replica;

	(void)state;
	side_new(&host, true);
	side_new(&replica, false);
	assert_int_equal(side_carry(&host, &replica), 0);
	lc_alloc_fail_after(0);
	assert_int_equal(side_carry(&replica, &host), LC_ENOMEM);
	lc_alloc_fail_after(-1);
	side_failed(&host, LC_ENOMEM, "out of memory");
	assert_int_equal(host.opened, 0);
	side_free(&host);
	side_free(&replica);

	side_meet(&host, &replica);
	side_send(&host, 1, body, sizeof body); /* needs two frames */
	(void)side_pull(&host);
	lc_alloc_fail_after(0);
	assert_int_equal(side_feed(&replica, host.wire + PREFACE + SHAKE_1 + SHAKE_3,
	                           host.nwire - PREFACE - SHAKE_1 - SHAKE_3),
	                 LC_ENOMEM);
	lc_alloc_fail_after(-1);
	side_failed(&replica, LC_ENOMEM, "out of memory");
	side_free(&host);
	side_free(&replica);
}

static void
nothing_is_freed_unwiped(void **state)
{
	static uint8_t body[2 * PLAIN_MAX];
	struct side host, replica;
	size_t i;

	(void)state;
	for (i = 0; i + sizeof secret <= sizeof body; i += sizeof secret)
		memcpy(body + i, secret, sizeof secret);
	leaks = 0;
	for (i = 0; i < 4; i++) {
		side_meet(&host, &replica);
		side_send(&host, 1, secret, sizeof secret);
		side_send(&host, 1, body, sizeof body);
		assert_int_equal(side_carry(&host, &replica), 0); /* received, in both ways */
		side_send(&host, 2, body, sizeof body);           /* and still queued */
		if (i == 1) /* A larger one takes the place of the body's buffer. */
			assert_int_equal(side_carry(&host, &replica), 0);
		if (i == 2)
			assert_int_equal(side_feed(&host, (const uint8_t *)"\0\0", 2), LC_EPEER);
		if (i == 3)
			assert_int_equal(side_feed(&replica, (const uint8_t *)"\0\0", 2), LC_EPEER);
		side_free(&host);
		side_free(&replica);
	}
	assert_int_equal(leaks, 0);
	/* The check itself works. */
	uint8_t *p = lc_realloc(NULL, 100);

	assert_non_null(p);
	memcpy(p + 20, secret, sizeof secret);
	lc_free(p);
	assert_int_equal(leaks, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(says_what_another_implementation_says),
	    cmocka_unit_test(frames_may_be_cut_anywhere),
	    cmocka_unit_test(the_key_changes_after_2_to_the_14_frames),
	    cmocka_unit_test(who_forgets_to_change_the_key_is_refused),
	    cmocka_unit_test(small_messages_share_a_frame),
	    cmocka_unit_test(messages_of_any_size_arrive),
	    cmocka_unit_test(random_conversations_arrive),
	    cmocka_unit_test(malformed_messages_are_refused),
	    cmocka_unit_test(frames_without_content_are_refused),
	    cmocka_unit_test(the_longest_frame_is_taken),
	    cmocka_unit_test(what_a_callback_says_is_final),
	    cmocka_unit_test(each_direction_ends_by_itself),
	    cmocka_unit_test(without_memory_nothing_is_queued),
	    cmocka_unit_test(without_memory_receiving_fails),
	    cmocka_unit_test(nothing_is_freed_unwiped),
	};

	rawpeer_random(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

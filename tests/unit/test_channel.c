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
#include "tests/lib/unit.h"
#include "tests/unit/vectors_channel.h"

enum { PREFACE = 8, SHAKE_1 = 50, SHAKE_2 = 50, SHAKE_3 = 66, PLAIN_MAX = 65519 };
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

/* ---- one side and what it got ---- */

struct side {
	struct channel *ch;
	struct channel_events events;
	struct lc_err e;
	unsigned opened, messages;
	size_t bytes;    /* of all bodies */
	uint64_t digest; /* over all messages, to compare with what was sent */
	uint16_t last_type;
	size_t last_n;
	unsigned refuse_at; /* the message (from 1) whose callback fails; 0: none */
	bool refuse_peer;
	uint8_t *wire; /* everything that was pulled so far */
	size_t nwire, wire_cap;
};

static uint64_t
fnv(uint64_t h, const uint8_t *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static uint64_t
digest_message(uint64_t h, uint16_t type, const uint8_t *p, size_t n)
{
	uint8_t head[10];

	lc_put16(head, type);
	lc_put64(head + 2, n);
	return fnv(fnv(h, head, sizeof head), p, n);
}

static int
on_opened(void *arg, const uint8_t *peer, struct lc_err *e)
{
	struct side *s = arg;

	assert_int_equal(s->messages, 0);
	assert_ptr_equal(channel_peer(s->ch), peer);
	s->opened++;
	return s->refuse_peer ? lc_fail(e, LC_EACCES, 0, "stranger") : 0;
}

static int
on_message(void *arg, uint16_t type, struct lc_span body, struct lc_err *e)
{
	struct side *s = arg;

	assert_int_equal(s->opened, 1);
	s->messages++;
	s->bytes += body.n;
	s->digest = digest_message(s->digest, type, body.p, body.n);
	s->last_type = type;
	s->last_n = body.n;
	return s->messages == s->refuse_at ? lc_fail(e, LC_ENOSPC, 0, "quota") : 0;
}

static void
side_new(struct side *s, bool initiator)
{
	*s = (struct side){.events = {s, on_opened, on_message}};
	assert_int_equal(channel_new(initiator ? rawpeer_host : rawpeer_replica,
	                             initiator ? rawpeer_replica_public() : NULL, &s->ch, &s->e),
	                 0);
	assert_null(channel_peer(s->ch));
	assert_false(channel_established(s->ch));
}

static void
side_free(struct side *s)
{
	channel_free(s->ch);
	free(s->wire);
}

static int
feed(struct side *s, const uint8_t *p, size_t n)
{
	int rc;

	lc_err_clear(&s->e);
	rc = channel_feed(s->ch, p, n, &s->events, &s->e);
	assert_int_equal(rc, s->e.code);
	return rc;
}

static void
send_bytes(struct side *s, uint16_t type, const void *p, size_t n)
{
	const struct lc_span body = {p, n};

	assert_int_equal(channel_send(s->ch, type, &body, 1, &s->e), 0);
}

/* Pull all there is to the end of s->wire; what is new is s->wire[nwire before..nwire after). */
static size_t
pull_all(struct side *s)
{
	size_t n = 0, total = 0;

	do {
		if (s->wire_cap - s->nwire < 1 << 17) {
			s->wire_cap = s->wire_cap * 2 + (1 << 17);
			s->wire = realloc(s->wire, s->wire_cap);
			assert_non_null(s->wire);
		}
		assert_int_equal(
		    channel_pull(s->ch, s->wire + s->nwire, s->wire_cap - s->nwire, &n, NULL), 0);
		s->nwire += n;
		total += n;
	} while (n > 0);
	return total;
}

/* What one side has to say, to the other. */
static int
carry(struct side *from, struct side *to)
{
	size_t n = pull_all(from);

	return feed(to, from->wire + from->nwire - n, n);
}

static void
meet(struct side *host, struct side *replica)
{
	side_new(host, true);
	side_new(replica, false);
	assert_int_equal(carry(host, replica), 0);
	assert_int_equal(carry(replica, host), 0);
	assert_int_equal(carry(host, replica), 0);
	assert_true(channel_established(host->ch) && channel_established(replica->ch));
}

static void
assert_failed(struct side *s, int code, const char *text)
{
	unsigned messages = s->messages;
	uint8_t out[64];
	size_t n;

	assert_int_equal(s->e.code, code);
	if (strstr(s->e.msg, text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", s->e.msg, text);
	/* For good. */
	assert_false(channel_established(s->ch));
	assert_false(channel_ended(s->ch));
	assert_int_equal(feed(s, (const uint8_t *)"x", 1), code);
	assert_non_null(strstr(s->e.msg, text));
	assert_int_equal(channel_feed(s->ch, NULL, 0, &s->events, NULL), code);
	assert_int_equal(channel_send(s->ch, 1, NULL, 0, NULL), code);
	assert_int_equal(channel_close(s->ch, NULL), code);
	assert_int_equal(channel_eof(s->ch, NULL), code);
	assert_int_equal(channel_pull(s->ch, out, sizeof out, &n, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(channel_queued(s->ch), 0);
	assert_int_equal(s->messages, messages);
}

/* ---- what is right ---- */

static void
both_sides_learn_who_the_other_is(void **state)
{
	struct side host, replica;

	(void)state;
	meet(&host, &replica);
	assert_int_equal(host.opened, 1);
	assert_int_equal(replica.opened, 1);
	assert_memory_equal(channel_peer(host.ch), rawpeer_replica_public(), CHANNEL_KEY_SIZE);
	assert_memory_equal(channel_peer(replica.ch), rawpeer_host_public(), CHANNEL_KEY_SIZE);
	assert_int_equal(host.nwire, PREFACE + SHAKE_1 + SHAKE_3);
	assert_int_equal(replica.nwire, SHAKE_2);
	side_free(&host);
	side_free(&replica);
}

/* The session that vectors_channel.py made, up to where both are open.  Ours is what is checked. */
static void
begin_vector_session(struct side *s, bool host)
{
	const uint8_t *p = host ? vector_replica_1 : vector_host_1;
	size_t n = host ? sizeof vector_replica_1 : sizeof vector_host_1;

	rawpeer_next_random(host ? vector_host_ephemeral : vector_replica_ephemeral);
	side_new(s, host);
	assert_int_equal(feed(s, p, n), 0);
	(void)pull_all(s);
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
	send_bytes(&host, 1, "hello", 5);
	send_bytes(&host, 2, NULL, 0);
	send_bytes(&host, 65535, body, sizeof body);
	(void)pull_all(&host);
	assert_int_equal(channel_close(host.ch, NULL), 0);
	(void)pull_all(&host);
	assert_int_equal(host.nwire, sizeof vector_host_1 + sizeof vector_host_2);
	assert_memory_equal(host.wire, vector_host_1, sizeof vector_host_1);
	assert_memory_equal(host.wire + sizeof vector_host_1, vector_host_2, sizeof vector_host_2);

	begin_vector_session(&replica, false);
	assert_int_equal(feed(&replica, vector_host_2, sizeof vector_host_2), 0);
	assert_int_equal(replica.messages, 3);
	assert_int_equal(replica.last_type, 65535);
	assert_int_equal(replica.last_n, sizeof body);
	assert_int_equal(channel_send(replica.ch, 3, parts, 3, NULL), 0);
	(void)pull_all(&replica);
	assert_int_equal(channel_close(replica.ch, NULL), 0);
	(void)pull_all(&replica);
	assert_int_equal(replica.nwire, sizeof vector_replica_1 + sizeof vector_replica_2);
	assert_memory_equal(replica.wire, vector_replica_1, sizeof vector_replica_1);
	assert_memory_equal(replica.wire + sizeof vector_replica_1, vector_replica_2,
	                    sizeof vector_replica_2);
	assert_true(channel_ended(replica.ch));

	assert_int_equal(feed(&host, vector_replica_2, sizeof vector_replica_2), 0);
	assert_true(channel_ended(host.ch));
	assert_int_equal(host.messages, 1);
	assert_int_equal(host.digest,
	                 digest_message(0, 3, (const uint8_t *)"in parts", strlen("in parts")));
	side_free(&host);
	side_free(&replica);
}

static void
frames_may_be_cut_anywhere(void **state)
{
	struct side whole, cut;

	(void)state;
	begin_vector_session(&whole, false);
	assert_int_equal(feed(&whole, vector_host_2, sizeof vector_host_2), 0);
	begin_vector_session(&cut, false);
	assert_int_equal(feed(&cut, vector_host_2_cut, sizeof vector_host_2_cut), 0);
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
	assert_int_equal(
	    feed(&replica, host.wire + sizeof vector_host_1, host.nwire - sizeof vector_host_1), 0);
	for (i = 0; i < 2 * REKEY_EVERY + 2; i++) {
		send_bytes(&host, 1, NULL, 0);
		assert_int_equal(carry(&host, &replica), 0);
		send_bytes(&replica, 1, NULL, 0);
		assert_int_equal(carry(&replica, &host), 0);
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
		assert_int_equal(feed(&s, frame, n), 0);
	}
	n = rawpeer_frame(&r, message, sizeof message, frame);
	assert_int_equal(feed(&s, frame, n), LC_ECORRUPT);
	assert_failed(&s, LC_ECORRUPT, "frame 16384");
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
		send_bytes(&host, 7, "0123456789", 10);
	assert_int_equal(channel_queued(host.ch), PREFACE + SHAKE_1 + 18 + 100 * 18);
	assert_int_equal(pull_all(&host), PREFACE + SHAKE_1);
	assert_int_equal(feed(&replica, host.wire, host.nwire), 0);
	assert_int_equal(carry(&replica, &host), 0);
	n = pull_all(&host);
	assert_int_equal(n, SHAKE_3 + 18 + 100 * 18);
	assert_int_equal(feed(&replica, host.wire + host.nwire - n, n), 0);
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
	meet(&host, &replica);
	for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		send_bytes(&host, (uint16_t)(i + 1), body, sizes[i]);
		digest = digest_message(digest, (uint16_t)(i + 1), body, sizes[i]);
		assert_int_equal(carry(&host, &replica), 0);
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
		w->sent = digest_message(w->sent, type, text, n);
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
			assert_int_equal(feed(w->to, w->p + k, n), 0);
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
	assert_int_equal(carry(&host, &replica), 0);
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

/* ---- an attacker on the line ---- */

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
	meet(&host, &replica);
	rec->first = PREFACE;
	rec->third = PREFACE + SHAKE_1;
	for (i = 0; i < FRAMES; i++) {
		rec->frame[i] = host.nwire;
		send_bytes(&host, (uint16_t)(1 + i), secret, i * 6);
		(void)pull_all(&host);
	}
	rec->frame[FRAMES] = host.nwire;
	assert_int_equal(channel_close(host.ch, NULL), 0);
	(void)pull_all(&host);
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
	if (feed(&s, p, n) == 0 && channel_eof(s.ch, &s.e) == 0)
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
	assert_int_equal(feed(&s, rec.p, rec.n), 0);
	assert_int_equal(s.messages, FRAMES);
	assert_true(channel_ended(s.ch));
	side_free(&s);
	/* But not before a replica that draws other random bytes. */
	rawpeer_random(SESSION_SEED + 1);
	side_new(&s, false);
	assert_int_equal(feed(&s, rec.p, rec.n), LC_EKEY);
	assert_failed(&s, LC_EKEY, "message 3");
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
		assert_int_equal(feed(&s, rec.p, i), 0);
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
	meet(&host, &replica);
	send_bytes(&host, 1, "mirror", 6);
	n = pull_all(&host);
	assert_int_equal(feed(&host, host.wire + host.nwire - n, n), LC_ECORRUPT);
	assert_failed(&host, LC_ECORRUPT, "not authentic");
	side_free(&host);
	side_free(&replica);
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
		assert_int_equal(feed(&s, frame, rawpeer_frame(&r, plain, n, frame)), LC_EPEER);
		lc_alloc_fail_after(-1);
		assert_int_equal(s.messages, messages);
		assert_failed(&s, LC_EPEER, text);
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
		assert_int_equal(feed(&s, frame, 2), LC_EPEER);
		assert_failed(&s, LC_EPEER, "a frame of");
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
	assert_int_equal(feed(&s, frame, n), 0);
	assert_int_equal(s.last_n, PLAIN_MAX - HEAD);
	side_free(&s);
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
		assert_int_equal(feed(&host, p, 2), LC_EPEER);
		assert_failed(&host, LC_EPEER, "a handshake message of");
		assert_int_equal(feed(&replica, (const uint8_t *)"LOCUMCH\1", PREFACE), 0);
		assert_int_equal(feed(&replica, p, 2), LC_EPEER);
		assert_failed(&replica, LC_EPEER, "a handshake message of");
		side_free(&host);
		side_free(&replica);
	}
}

/* ---- versions and keys ---- */

static void
another_version_is_answered_with_ours(void **state)
{
	struct side host, replica;
	uint8_t answer[64];
	size_t n, k;

	(void)state;
	side_new(&replica, false);
	assert_int_equal(feed(&replica, (const uint8_t *)"LOCUMCH\2 whatever", 16), LC_EVERSION);
	assert_non_null(strstr(replica.e.msg, "speaks version 2, we speak version 1"));
	assert_int_equal(channel_queued(replica.ch), PREFACE);
	assert_int_equal(channel_pull(replica.ch, answer, 3, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_int_equal(channel_pull(replica.ch, answer + 3, sizeof answer - 3, &k, NULL), 0);
	assert_int_equal(n + k, PREFACE);
	assert_memory_equal(answer, "LOCUMCH\1", PREFACE);
	assert_failed(&replica, LC_EVERSION, "version 2");
	side_free(&replica);

	side_new(&host, true);
	assert_int_equal(feed(&host, (const uint8_t *)"LOCUMCH", 7), 0);
	assert_int_equal(channel_eof(host.ch, NULL), LC_EPEER);
	assert_int_equal(feed(&host, (const uint8_t *)"\3", 1), LC_EVERSION);
	assert_failed(&host, LC_EVERSION, "speaks version 3, we speak version 1");
	side_free(&host);

	/* To refuse one's own version makes no sense. */
	side_new(&host, true);
	assert_int_equal(feed(&host, (const uint8_t *)"LOCUMCH\1", 8), LC_EPEER);
	assert_failed(&host, LC_EPEER, "does not speak our protocol");
	side_free(&host);
}

static void
other_protocols_get_no_answer(void **state)
{
	struct side s;

	(void)state;
	side_new(&s, false);
	assert_int_equal(feed(&s, (const uint8_t *)"GET / HTTP/1.1\r\n", 16), LC_EPEER);
	assert_failed(&s, LC_EPEER, "does not speak our protocol");
	side_free(&s);
	side_new(&s, true);
	assert_int_equal(feed(&s, (const uint8_t *)"SSH-2.0-OpenSSH\r\n", 17), LC_EPEER);
	assert_failed(&s, LC_EPEER, "a handshake message of");
	side_free(&s);
	side_new(&s, true);
	assert_int_equal(feed(&s, (const uint8_t *)"LOCKSMITH", 9), LC_EPEER);
	assert_failed(&s, LC_EPEER, "does not speak our protocol");
	side_free(&s);
}

static void
a_replica_with_another_key_is_refused(void **state)
{
	struct side host, replica;

	(void)state;
	side_new(&replica, false);
	host = (struct side){.events = {&host, on_opened, on_message}};
	assert_int_equal(channel_new(rawpeer_host, rawpeer_host_public(), &host.ch, NULL), 0);
	assert_int_equal(carry(&host, &replica), LC_EKEY);
	assert_failed(&replica, LC_EKEY, "does it expect another key of us?");
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
	send_bytes(&host, 1, "let me in", 9);
	assert_int_equal(carry(&host, &replica), 0);
	assert_int_equal(carry(&replica, &host), 0);
	assert_int_equal(carry(&host, &replica), LC_EACCES);
	assert_failed(&replica, LC_EACCES, "stranger");
	assert_int_equal(replica.opened, 1);
	assert_int_equal(replica.messages, 0);
	/* His key stays, for the log. */
	assert_memory_equal(channel_peer(replica.ch), rawpeer_host_public(), CHANNEL_KEY_SIZE);
	side_free(&host);
	side_free(&replica);
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
	meet(&host, &replica);
	replica.refuse_at = 2;
	send_bytes(&host, 1, "a", 1);
	send_bytes(&host, 1, "b", 1);
	send_bytes(&host, 1, "c", 1);
	send_bytes(&replica, 1, "d", 1);
	assert_int_equal(carry(&host, &replica), LC_ENOSPC);
	assert_failed(&replica, LC_ENOSPC, "quota");
	assert_int_equal(replica.messages, 2);
	side_free(&host);
	side_free(&replica);

	meet(&host, &replica);
	replica.events.message = refuse_in_silence;
	replica.events.opened = NULL;
	send_bytes(&host, 1, "a", 1);
	assert_int_equal(carry(&host, &replica), LC_EBUSY);
	assert_failed(&replica, LC_EBUSY, "refused");
	side_free(&host);
	side_free(&replica);
}

static void
each_direction_ends_by_itself(void **state)
{
	struct side host, replica;

	(void)state;
	meet(&host, &replica);
	assert_int_equal(channel_close(host.ch, NULL), 0);
	assert_int_equal(channel_send(host.ch, 1, NULL, 0, NULL), LC_EINVAL);
	assert_int_equal(carry(&host, &replica), 0);
	assert_true(channel_ended(replica.ch) && !channel_ended(host.ch));
	assert_true(channel_established(replica.ch));
	send_bytes(&replica, 1, "still", 5);
	assert_int_equal(carry(&replica, &host), 0);
	assert_int_equal(host.messages, 1);
	assert_int_equal(channel_eof(host.ch, NULL), LC_EPEER);
	assert_int_equal(channel_close(replica.ch, NULL), 0);
	assert_int_equal(carry(&replica, &host), 0);
	assert_true(channel_ended(host.ch));
	assert_int_equal(feed(&host, NULL, 0), 0);
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

		meet(&host, &replica);
		send_bytes(&host, 1, "before", 6);
		queued = channel_queued(host.ch);
		lc_alloc_fail_after(n);
		assert_int_equal(channel_send(host.ch, 2, spans, 2, &e), LC_ENOMEM);
		lc_alloc_fail_after(-1);
		assert_int_equal(e.code, LC_ENOMEM);
		assert_int_equal(channel_queued(host.ch), queued);
		send_bytes(&host, 3, "after", 5);
		assert_int_equal(carry(&host, &replica), 0);
		assert_int_equal(replica.messages, 2);
		assert_int_equal(replica.last_type, 3);
		side_free(&host);
		side_free(&replica);
	}
	/* The same for CLOSE and an empty queue. */
	meet(&host, &replica);
	lc_alloc_fail_after(0);
	assert_int_equal(channel_close(host.ch, NULL), LC_ENOMEM);
	lc_alloc_fail_after(-1);
	assert_int_equal(channel_queued(host.ch), 0);
	assert_int_equal(channel_close(host.ch, NULL), 0);
	assert_int_equal(carry(&host, &replica), 0);
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
	assert_int_equal(carry(&host, &replica), 0);
	lc_alloc_fail_after(0);
	assert_int_equal(carry(&replica, &host), LC_ENOMEM);
	lc_alloc_fail_after(-1);
	assert_failed(&host, LC_ENOMEM, "out of memory");
	assert_int_equal(host.opened, 0);
	side_free(&host);
	side_free(&replica);

	meet(&host, &replica);
	send_bytes(&host, 1, body, sizeof body); /* needs two frames */
	(void)pull_all(&host);
	lc_alloc_fail_after(0);
	assert_int_equal(feed(&replica, host.wire + PREFACE + SHAKE_1 + SHAKE_3,
	                      host.nwire - PREFACE - SHAKE_1 - SHAKE_3),
	                 LC_ENOMEM);
	lc_alloc_fail_after(-1);
	assert_failed(&replica, LC_ENOMEM, "out of memory");
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
		meet(&host, &replica);
		send_bytes(&host, 1, secret, sizeof secret);
		send_bytes(&host, 1, body, sizeof body);
		assert_int_equal(carry(&host, &replica), 0); /* received, in both ways */
		send_bytes(&host, 2, body, sizeof body);     /* and still queued */
		if (i == 1) /* A larger one takes the place of the body's buffer. */
			assert_int_equal(carry(&host, &replica), 0);
		if (i == 2)
			assert_int_equal(feed(&host, (const uint8_t *)"\0\0", 2), LC_EPEER);
		if (i == 3)
			assert_int_equal(feed(&replica, (const uint8_t *)"\0\0", 2), LC_EPEER);
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
	    cmocka_unit_test(both_sides_learn_who_the_other_is),
	    cmocka_unit_test(says_what_another_implementation_says),
	    cmocka_unit_test(frames_may_be_cut_anywhere),
	    cmocka_unit_test(the_key_changes_after_2_to_the_14_frames),
	    cmocka_unit_test(who_forgets_to_change_the_key_is_refused),
	    cmocka_unit_test(small_messages_share_a_frame),
	    cmocka_unit_test(messages_of_any_size_arrive),
	    cmocka_unit_test(random_conversations_arrive),
	    cmocka_unit_test(a_recorded_session_repeats),
	    cmocka_unit_test(a_flipped_bit_anywhere_stops_it),
	    cmocka_unit_test(a_cut_anywhere_is_told_from_an_end),
	    cmocka_unit_test(frames_dropped_repeated_or_moved_stop_it),
	    cmocka_unit_test(what_one_says_is_not_taken_back_by_him),
	    cmocka_unit_test(malformed_messages_are_refused),
	    cmocka_unit_test(frames_without_content_are_refused),
	    cmocka_unit_test(the_longest_frame_is_taken),
	    cmocka_unit_test(handshake_messages_of_other_lengths_are_refused),
	    cmocka_unit_test(another_version_is_answered_with_ours),
	    cmocka_unit_test(other_protocols_get_no_answer),
	    cmocka_unit_test(a_replica_with_another_key_is_refused),
	    cmocka_unit_test(a_replica_key_of_low_order_is_refused),
	    cmocka_unit_test(a_stranger_is_refused_before_his_messages),
	    cmocka_unit_test(what_a_callback_says_is_final),
	    cmocka_unit_test(each_direction_ends_by_itself),
	    cmocka_unit_test(without_memory_nothing_is_queued),
	    cmocka_unit_test(without_memory_receiving_fails),
	    cmocka_unit_test(nothing_is_freed_unwiped),
	};

	rawpeer_random(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

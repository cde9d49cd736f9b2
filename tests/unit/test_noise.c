#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "replicator/noise.h"
#include "store/base/bytes.h"
#include "tests/lib/rawpeer.h"
#include "tests/lib/unit.h"
#include "tests/unit/vectors_noise.h"

static const struct lc_span empty = {NULL, 0};

struct pair {
	struct noise_handshake host, replica;
	uint8_t message[3][64]; /* the last handshake of this pair, payloads empty */
	size_t n[3];
};

static void
begin(struct pair *p)
{
	const struct lc_span prologue = {vector_prologue, sizeof vector_prologue};

	assert_int_equal(noise_begin(&p->host, NOISE_INITIATOR, rawpeer_host,
	                             rawpeer_replica_public(), prologue, NULL),
	                 0);
	assert_int_equal(
	    noise_begin(&p->replica, NOISE_RESPONDER, rawpeer_replica, NULL, prologue, NULL), 0);
}

static struct noise_handshake *
writer(struct pair *p, unsigned number)
{
	return number == 1 ? &p->replica : &p->host;
}

static struct noise_handshake *
reader(struct pair *p, unsigned number)
{
	return number == 1 ? &p->host : &p->replica;
}

static void
write_message(struct pair *p, unsigned number)
{
	static const size_t sizes[] = {48, 48, 64};

	p->n[number] = noise_overhead(writer(p, number));
	assert_int_equal(p->n[number], sizes[number]);
	assert_int_equal(noise_overhead(reader(p, number)), sizes[number]);
	assert_int_equal(noise_write(writer(p, number), empty, p->message[number], NULL), 0);
}

static int
read_bytes(struct noise_handshake *hs, const uint8_t *m, size_t n, struct lc_err *e)
{
	uint8_t payload[256];

	return noise_read(hs, (struct lc_span){m, n}, payload, e);
}

/* As far as message `number` has been written and not read. */
static void
begin_up_to(struct pair *p, unsigned number)
{
	unsigned i;

	begin(p);
	for (i = 0; i < number; i++) {
		write_message(p, i);
		assert_int_equal(read_bytes(reader(p, i), p->message[i], p->n[i], NULL), 0);
	}
	write_message(p, number);
}

static void
assert_wiped(const struct noise_handshake *hs)
{
	struct noise_handshake copy = *hs;
	uint8_t out[64];

	assert_true(lc_is_zero(hs, sizeof *hs));
	assert_int_equal(noise_overhead(hs), 0);
	assert_false(noise_complete(hs));
	assert_null(noise_remote(hs));
	assert_int_equal(noise_write(&copy, empty, out, NULL), LC_EINVAL);
	assert_int_equal(noise_read(&copy, (struct lc_span){out, 48}, out, NULL), LC_EINVAL);
}

static void
assert_refused(struct noise_handshake *hs, const uint8_t *m, size_t n, int code)
{
	struct lc_err e = LC_ERR_INIT;

	assert_int_equal(read_bytes(hs, m, n, &e), code);
	assert_int_equal(e.code, code);
	assert_wiped(hs);
}

/* ---- what is right ---- */

static void
makes_and_reads_the_published_messages(void **state)
{
	const struct lc_span prologue = {vector_prologue, sizeof vector_prologue};
	struct noise_handshake hs[2]; /* host, replica */
	struct noise_cipher sending[2], receiving[2];
	uint8_t out[256], back[256], key[NOISE_KEY_SIZE];
	size_t i;

	(void)state;
	noise_public(vector_replica_static, key);
	assert_memory_equal(key, vector_replica_public, sizeof key);
	assert_int_equal(noise_begin(&hs[0], NOISE_INITIATOR, vector_host_static,
	                             vector_replica_public, prologue, NULL),
	                 0);
	assert_int_equal(
	    noise_begin(&hs[1], NOISE_RESPONDER, vector_replica_static, NULL, prologue, NULL), 0);
	for (i = 0; i < 6; i++) {
		const struct lc_span payload = {vector_messages[i].payload,
		                                vector_messages[i].npayload};
		const struct lc_span message = {vector_messages[i].message,
		                                vector_messages[i].nmessage};
		size_t from = i % 2, to = 1 - from;

		if (i < 3) {
			assert_int_equal(message.n, payload.n + noise_overhead(&hs[from]));
			if (i < 2)
				rawpeer_next_random(i == 0 ? vector_host_ephemeral
				                           : vector_replica_ephemeral);
			assert_int_equal(noise_write(&hs[from], payload, out, NULL), 0);
			assert_int_equal(noise_read(&hs[to], message, back, NULL), 0);
		} else {
			assert_int_equal(noise_seal(&sending[from], empty, payload, out, NULL), 0);
			assert_int_equal(noise_open(&receiving[to], empty, message, back, NULL), 0);
		}
		assert_memory_equal(out, message.p, message.n);
		assert_memory_equal(back, payload.p, payload.n);
		if (i != 2)
			continue;
		noise_public(vector_host_static, key);
		assert_memory_equal(noise_remote(&hs[1]), key, sizeof key);
		for (from = 0; from < 2; from++) {
			assert_true(noise_complete(&hs[from]));
			assert_memory_equal(noise_hash(&hs[from]), vector_hash, sizeof vector_hash);
			noise_split(&hs[from], &sending[from], &receiving[from]);
			assert_wiped(&hs[from]);
		}
	}
}

static void
every_handshake_is_another(void **state)
{
	struct pair a, b;

	(void)state;
	begin_up_to(&a, 2);
	begin_up_to(&b, 2);
	assert_memory_not_equal(a.message[0], b.message[0], 32);
	assert_memory_not_equal(a.message[1], b.message[1], 32);
	assert_memory_not_equal(a.message[2], b.message[2], 48);
	assert_memory_not_equal(noise_hash(&a.host), noise_hash(&b.host), NOISE_HASH_SIZE);
	assert_null(noise_remote(&a.replica)); /* Not before message 3 is read. */
	noise_end(&a.host);
	assert_wiped(&a.host);
}

static void
new_key_pairs_belong_together(void **state)
{
	uint8_t secret[2][NOISE_KEY_SIZE], public[2][NOISE_KEY_SIZE], again[NOISE_KEY_SIZE];

	(void)state;
	assert_int_equal(noise_keypair(secret[0], public[0], NULL), 0);
	assert_int_equal(noise_keypair(secret[1], public[1], NULL), 0);
	assert_memory_not_equal(secret[0], secret[1], NOISE_KEY_SIZE);
	noise_public(secret[0], again);
	assert_memory_equal(public[0], again, sizeof again);
}

/* ---- what is wrong ---- */

static void
a_flipped_bit_anywhere_is_refused(void **state)
{
	struct pair p;
	unsigned number;
	size_t i, n = 1;

	(void)state;
	for (number = 0; number < 3; number++) {
		for (i = 0; i < n; i++) {
			begin_up_to(&p, number);
			n = p.n[number];
			p.message[number][i] ^= (uint8_t)(1u << (i % 8));
			assert_refused(reader(&p, number), p.message[number], n, LC_EKEY);
		}
	}
}

static void
the_unused_bit_of_a_public_key_is_refused_too(void **state)
{
	struct pair p;
	unsigned number;

	(void)state;
	/* It means nothing to X25519, but is hashed. */
	for (number = 0; number < 2; number++) {
		begin_up_to(&p, number);
		p.message[number][31] ^= 0x80;
		assert_refused(reader(&p, number), p.message[number], p.n[number], LC_EKEY);
	}
}

static void
other_lengths_are_refused(void **state)
{
	static const uint8_t huge[NOISE_MESSAGE_MAX + 1];
	uint8_t longer[65] = {0};
	struct pair p;
	unsigned number;
	size_t n, whole = 1;

	(void)state;
	for (number = 0; number < 3; number++) {
		for (n = 0; n < whole; n++) {
			begin_up_to(&p, number);
			whole = p.n[number];
			assert_refused(reader(&p, number), p.message[number], n, LC_EPEER);
		}
		/* A byte more would be a payload, but none that was sealed. */
		begin_up_to(&p, number);
		memcpy(longer, p.message[number], whole);
		assert_refused(reader(&p, number), longer, whole + 1, LC_EKEY);
	}
	begin(&p);
	assert_refused(&p.replica, huge, sizeof huge, LC_EPEER);
	begin(&p);
	assert_int_equal(
	    noise_write(&p.host, (struct lc_span){huge, sizeof huge - 48}, p.message[0], NULL),
	    LC_EINVAL);
	assert_wiped(&p.host);
}

static void
messages_out_of_turn_are_refused(void **state)
{
	struct pair p, q;
	uint8_t out[64];

	(void)state;
	begin_up_to(&p, 2);
	/* The third as first, the second as first, the first as third. */
	begin(&q);
	assert_refused(&q.replica, p.message[2], p.n[2], LC_EKEY);
	begin(&q);
	assert_refused(&q.replica, p.message[1], p.n[1], LC_EKEY);
	memset(out, 0, sizeof out);
	memcpy(out, p.message[0], p.n[0]);
	assert_refused(&p.replica, out, sizeof out, LC_EKEY);
	/* The first reflected as second. */
	begin_up_to(&p, 0);
	assert_refused(&p.host, p.message[0], p.n[0], LC_EKEY);
	/* Reading where one has to write, and the other way. */
	begin(&p);
	assert_refused(&p.host, out, 48, LC_EINVAL);
	begin(&p);
	assert_int_equal(noise_write(&p.replica, empty, out, NULL), LC_EINVAL);
	assert_wiped(&p.replica);
	/* More than three. */
	begin_up_to(&p, 2);
	assert_int_equal(read_bytes(&p.replica, p.message[2], p.n[2], NULL), 0);
	assert_int_equal(noise_overhead(&p.replica), 0);
	assert_refused(&p.replica, p.message[2], p.n[2], LC_EINVAL);
	assert_int_equal(noise_write(&p.host, empty, out, NULL), LC_EINVAL);
	assert_wiped(&p.host);
}

static void
a_replayed_handshake_ends_at_its_third_message(void **state)
{
	struct pair p, q;

	(void)state;
	begin_up_to(&p, 2);
	begin(&q);
	/* The first can be replayed, which is why it carries nothing. */
	assert_int_equal(read_bytes(&q.replica, p.message[0], p.n[0], NULL), 0);
	write_message(&q, 1);
	assert_refused(&q.replica, p.message[2], p.n[2], LC_EKEY);
	/* And an initiator takes no answer that was meant for an earlier one. */
	begin_up_to(&q, 0);
	assert_refused(&q.host, p.message[1], p.n[1], LC_EKEY);
}

static void
other_keys_and_prologues_are_refused(void **state)
{
	const struct lc_span prologue = {vector_prologue, sizeof vector_prologue};
	const struct lc_span other = {vector_prologue, sizeof vector_prologue - 1};
	struct pair p;

	(void)state;
	begin(&p); /* The host expects another key of the replica. */
	assert_int_equal(noise_begin(&p.host, NOISE_INITIATOR, rawpeer_host, rawpeer_host_public(),
	                             prologue, NULL),
	                 0);
	write_message(&p, 0);
	assert_refused(&p.replica, p.message[0], p.n[0], LC_EKEY);

	begin(&p);
	assert_int_equal(
	    noise_begin(&p.replica, NOISE_RESPONDER, rawpeer_replica, NULL, other, NULL), 0);
	write_message(&p, 0);
	assert_refused(&p.replica, p.message[0], p.n[0], LC_EKEY);

	/* An impostor who knows the public key of the replica gets as far as the first message lets
	 * him, but cannot make the second. */
	begin(&p);
	write_message(&p, 0);
	memcpy(p.replica.s_secret, rawpeer_host, NOISE_KEY_SIZE);
	assert_refused(&p.replica, p.message[0], p.n[0], LC_EKEY);

	/* One who claims another's static key. */
	begin_up_to(&p, 0);
	assert_int_equal(read_bytes(&p.replica, p.message[0], p.n[0], NULL), 0);
	write_message(&p, 1);
	assert_int_equal(read_bytes(&p.host, p.message[1], p.n[1], NULL), 0);
	memcpy(p.host.s, rawpeer_replica_public(), NOISE_KEY_SIZE);
	write_message(&p, 2);
	assert_refused(&p.replica, p.message[2], p.n[2], LC_EKEY);
}

/* Encodings of the points whose order divides 8, on the curve and its twist, and of 0 and 1 beyond
 * p. */
static const char *const low_order[] = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
};

static void
points_of_low_order_are_refused(void **state)
{
	const struct lc_span prologue = {vector_prologue, sizeof vector_prologue};
	uint8_t point[NOISE_KEY_SIZE];
	struct pair p;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof low_order / sizeof low_order[0]; i++) {
		struct lc_err e = LC_ERR_INIT;

		assert_true(lc_unhex(point, sizeof point, low_order[i]));
		begin_up_to(&p, 0); /* as ephemeral key of either side */
		memcpy(p.message[0], point, sizeof point);
		assert_refused(&p.replica, p.message[0], p.n[0], LC_EKEY);
		begin_up_to(&p, 1);
		memcpy(p.message[1], point, sizeof point);
		assert_refused(&p.host, p.message[1], p.n[1], LC_EKEY);

		/* as the replica's static key */
		assert_int_equal(
		    noise_begin(&p.host, NOISE_INITIATOR, rawpeer_host, point, prologue, NULL), 0);
		assert_int_equal(noise_write(&p.host, empty, p.message[0], &e), LC_EKEY);
		assert_non_null(strstr(e.msg, "low order"));
		assert_wiped(&p.host);

		/* as the host's, sealed properly */
		begin_up_to(&p, 1);
		assert_int_equal(read_bytes(&p.host, p.message[1], p.n[1], NULL), 0);
		memcpy(p.host.s, point, sizeof point);
		write_message(&p, 2);
		lc_err_clear(&e);
		assert_int_equal(read_bytes(&p.replica, p.message[2], p.n[2], &e), LC_EKEY);
		assert_non_null(strstr(e.msg, "low order"));
		assert_wiped(&p.replica);
	}
}

/* ---- ciphers ---- */

static void
ciphers_take_only_the_next_message(void **state)
{
	struct noise_cipher a = {.key = {1}}, b = {.key = {1}};
	const struct lc_span ad = {vector_prologue, sizeof vector_prologue};
	uint8_t sealed[3][20], plain[4], zeros[4] = {0};
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++)
		assert_int_equal(noise_seal(&a, ad, (struct lc_span){(const uint8_t *)"abcd", 4},
		                            sealed[i], NULL),
		                 0);
	memset(plain, 7, sizeof plain);
	assert_int_equal(noise_open(&b, ad, (struct lc_span){sealed[1], 20}, plain, NULL),
	                 LC_ECORRUPT);
	assert_memory_equal(plain, zeros, sizeof plain);
	assert_int_equal(noise_open(&b, empty, (struct lc_span){sealed[0], 20}, plain, NULL),
	                 LC_ECORRUPT);
	assert_int_equal(noise_open(&b, ad, (struct lc_span){sealed[0], 15}, plain, NULL),
	                 LC_ECORRUPT);
	assert_int_equal(b.nonce, 0);
	assert_int_equal(noise_open(&b, ad, (struct lc_span){sealed[0], 20}, plain, NULL), 0);
	assert_memory_equal(plain, "abcd", 4);
	assert_int_equal(b.nonce, 1);
	assert_int_equal(noise_open(&b, ad, (struct lc_span){sealed[0], 20}, plain, NULL),
	                 LC_ECORRUPT);
	noise_forget(&a);
	assert_true(lc_is_zero(&a, sizeof a));
}

static void
a_cipher_stops_before_its_last_nonce(void **state)
{
	struct noise_cipher a = {.key = {1}, .nonce = UINT64_MAX - 1}, b = a;
	uint8_t sealed[16], plain[1];

	(void)state;
	assert_int_equal(noise_seal(&a, empty, empty, sealed, NULL), 0);
	assert_int_equal(noise_open(&b, empty, (struct lc_span){sealed, 16}, plain, NULL), 0);
	memset(sealed, 0, sizeof sealed);
	assert_int_equal(noise_seal(&a, empty, empty, sealed, NULL), LC_EKEY);
	assert_true(lc_is_zero(sealed, sizeof sealed));
	assert_int_equal(noise_open(&b, empty, (struct lc_span){sealed, 16}, plain, NULL), LC_EKEY);
	assert_int_equal(a.nonce, UINT64_MAX);
	assert_int_equal(b.nonce, UINT64_MAX);
}

static void
rekeying_is_the_one_of_the_specification(void **state)
{
	static const uint8_t zeros[32],
	    ones[12] = {0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct noise_cipher c = {.key = {9, 8, 7}, .nonce = 5};
	uint8_t expected[48];

	(void)state;
	(void)crypto_aead_chacha20poly1305_ietf_encrypt(expected, NULL, zeros, sizeof zeros, NULL,
	                                                0, NULL, ones, c.key);
	noise_rekey(&c);
	assert_memory_equal(c.key, expected, 32);
	assert_int_equal(c.nonce, 5);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(makes_and_reads_the_published_messages),
	    cmocka_unit_test(every_handshake_is_another),
	    cmocka_unit_test(new_key_pairs_belong_together),
	    cmocka_unit_test(a_flipped_bit_anywhere_is_refused),
	    cmocka_unit_test(the_unused_bit_of_a_public_key_is_refused_too),
	    cmocka_unit_test(other_lengths_are_refused),
	    cmocka_unit_test(messages_out_of_turn_are_refused),
	    cmocka_unit_test(a_replayed_handshake_ends_at_its_third_message),
	    cmocka_unit_test(other_keys_and_prologues_are_refused),
	    cmocka_unit_test(points_of_low_order_are_refused),
	    cmocka_unit_test(ciphers_take_only_the_next_message),
	    cmocka_unit_test(a_cipher_stops_before_its_last_nonce),
	    cmocka_unit_test(rekeying_is_the_one_of_the_specification),
	};

	rawpeer_random(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

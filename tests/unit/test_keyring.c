#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/keyring.h"
#include "store/recovery.h"
#include "tests/lib/unit.h"
#include "tests/unit/vector_keyring.h"
#include "tests/unit/vectors_keys.h"

#define BOX_SIZE 112u
#define WRAP_SIZE (8u + BOX_SIZE)
#define CODE_SYMBOLS 36u

static const char symbols[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

static const struct lc_span vector_span = {vector_keys, sizeof vector_keys};

static struct lc_span
span(const struct lc_buf *b)
{
	return (struct lc_span){b->p, b->n};
}

/* A wrap made by hand, with the tag keyed by `parent`. */
static void
craft_wrap(struct lc_buf *keys, uint8_t kind, uint32_t number, const uint8_t key[KEY_SIZE],
           const uint8_t *parent)
{
	uint8_t msg[16 + 16 + 8 + KEY_SIZE] = "locum wrap v1", plain[2 * KEY_SIZE];
	uint8_t wrap[WRAP_SIZE] = {kind, 0};

	memcpy(msg + 16, keys->p, DOMAIN_ID_SIZE);
	msg[32] = kind;
	lc_put32(msg + 36, number);
	memcpy(msg + 40, key, KEY_SIZE);
	memcpy(plain, key, KEY_SIZE);
	(void)crypto_generichash(plain + KEY_SIZE, KEY_SIZE, msg, sizeof msg, parent, KEY_SIZE);
	lc_put16(wrap + 2, BOX_SIZE);
	lc_put32(wrap + 4, number);
	assert_int_equal(crypto_box_seal(wrap + 8, plain, sizeof plain, keys->p + 16), 0);
	assert_int_equal(lc_buf_append(keys, wrap, sizeof wrap), 0);
	lc_put16(keys->p + 48, (uint16_t)(lc_get16(keys->p + 48) + 1));
}

static void
opens_what_another_implementation_made(void **state)
{
	struct keyring *k = vector_keyring();
	uint8_t domain[DOMAIN_ID_SIZE];
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf again;

	(void)state;
	assert_memory_equal(keyring_domain(k), vector_domain, sizeof vector_domain);
	assert_memory_equal(keyring_id(k), vector_id_key, KEY_SIZE);
	assert_memory_equal(keyring_set(k), vector_set_key, KEY_SIZE);
	assert_int_equal(keyring_data_number(k), 1);
	assert_memory_equal(keyring_data(k, 1), vector_data_key, KEY_SIZE);
	assert_null(keyring_data(k, 0));
	assert_null(keyring_data(k, 2));
	assert_int_equal(keyring_domain_of(vector_span, domain, &e), 0);
	assert_memory_equal(domain, vector_domain, sizeof vector_domain);
	vector_encode(k, &again); /* The same seals, not new ones. */
	assert_int_equal(again.n, sizeof vector_keys);
	assert_memory_equal(again.p, vector_keys, sizeof vector_keys);
	lc_buf_free(&again);
	keyring_free(k);
}

static void
code_is_known_and_its_spellings_are_read(void **state)
{
	static const char *const spellings[] = {VECTOR_CODE, "208h44rm2mb1e60s38dhr78y3wg228h3g716",
	                                        " 2O8H 44RM-2MB1--E6OS 38DH\tR78Y3WG2 28H3 G7I6\n",
	                                        "208H-44RM-2MBL-E60S-38DH-R78Y-3wg2-28H3-g7l6"};
	uint8_t seed[RECOVERY_SEED_SIZE];
	char code[RECOVERY_CODE_MAX];
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	(void)state;
	recovery_code_write(vector_seed, code);
	assert_string_equal(code, VECTOR_CODE);
	for (i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
		memset(seed, 0, sizeof seed);
		assert_int_equal(recovery_code_read(spellings[i], seed, &e), 0);
		assert_memory_equal(seed, vector_seed, sizeof seed);
	}
	for (i = 0; i < 200; i++) {
		uint8_t want[RECOVERY_SEED_SIZE];

		randombytes_buf(want, sizeof want);
		if (i < 2)
			memset(want, i == 0 ? 0 : 255, sizeof want);
		recovery_code_write(want, code);
		assert_int_equal(strlen(code), 44);
		assert_int_equal(recovery_code_read(code, seed, &e), 0);
		assert_memory_equal(seed, want, sizeof want);
	}
}

static bool
is_mistyped(const char *code)
{
	uint8_t seed[RECOVERY_SEED_SIZE];

	return recovery_code_read(code, seed, NULL) == LC_EINVAL;
}

/* All of them, not most of them. */
static void
code_finds_every_slip_of_one_or_two_characters(void **state)
{
	char code[RECOVERY_CODE_MAX], plain[CODE_SYMBOLS + 1];
	unsigned missed_one = 0, missed_two = 0, missed_swap = 0, i, j, a, b, n = 0;

	(void)state;
	recovery_code_write(vector_seed, code);
	for (i = 0; code[i] != '\0'; i++) {
		if (code[i] != '-')
			plain[n++] = code[i];
	}
	plain[n] = '\0';
	assert_int_equal(n, CODE_SYMBOLS);
	for (i = 0; i < n; i++) {
		const char was = plain[i];

		for (a = 0; a < 32; a++) {
			if (symbols[a] == was)
				continue;
			plain[i] = symbols[a];
			missed_one += !is_mistyped(plain);
			for (j = i + 1; j < n; j++) {
				const char was_j = plain[j];

				for (b = 0; b < 32; b++) {
					plain[j] = symbols[b];
					missed_two += symbols[b] != was_j && !is_mistyped(plain);
				}
				plain[j] = was_j;
			}
		}
		plain[i] = was;
		for (j = i + 1; j < n; j++) { /* Neighbours and all others. */
			plain[i] = plain[j];
			plain[j] = was;
			missed_swap += plain[i] != was && !is_mistyped(plain);
			plain[j] = plain[i];
			plain[i] = was;
		}
	}
	assert_int_equal(missed_one, 0);
	assert_int_equal(missed_two, 0);
	assert_int_equal(missed_swap, 0);
}

static void
code_of_wrong_shape_is_mistyped(void **state)
{
	char code[RECOVERY_CODE_MAX + 8];
	struct keyring *k = NULL;
	struct lc_err e = LC_ERR_INIT;

	(void)state;
	assert_true(is_mistyped(""));
	assert_true(is_mistyped("-"));
	(void)snprintf(code, sizeof code, "%s", VECTOR_CODE);
	code[43] = '\0';
	assert_true(is_mistyped(code));
	(void)snprintf(code, sizeof code, "%s0", VECTOR_CODE);
	assert_true(is_mistyped(code));
	(void)snprintf(code, sizeof code, "%s", VECTOR_CODE);
	code[3] = 'U'; /* Not one of the 32. */
	assert_int_equal(keyring_open_code(vector_span, code, &k, &e), LC_EINVAL);
	assert_null(k);
	assert_null(strstr(e.msg, "44RM")); /* What was typed is in no message. */
}

static void
code_of_another_domain_is_told_apart(void **state)
{
	char code[RECOVERY_CODE_MAX];
	struct keyring *k = NULL, *other = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf keys;

	(void)state;
	assert_int_equal(keyring_new(code, &k, &e), 0);
	assert_int_equal(keyring_open_code(vector_span, code, &other, &e), LC_EKEY);
	assert_null(other);
	lc_err_clear(&e);
	vector_encode(k, &keys);
	assert_int_equal(keyring_open_code(span(&keys), code, &other, &e), 0);
	assert_memory_equal(keyring_id(other), keyring_id(k), KEY_SIZE);
	assert_memory_equal(keyring_data(other, 1), keyring_data(k, 1), KEY_SIZE);
	assert_int_equal(keyring_add(other, vector_span, &e), LC_EKEY);
	lc_buf_free(&keys);
	keyring_free(other);
	keyring_free(k);
	keyring_free(NULL);
}

/* Whatever is changed in a payload, no keyring with another id key or data key comes out of it. */
static void
changed_payload_gives_no_changed_key(void **state)
{
	uint8_t bad[sizeof vector_keys], id[DOMAIN_ID_SIZE];
	struct lc_span s = {bad, sizeof bad};
	struct keyring *k;
	size_t i;
	int rc;

	(void)state;
	for (i = 0; i < sizeof bad; i++) {
		memcpy(bad, vector_keys, sizeof bad);
		bad[i] = (uint8_t)(bad[i] ^ 1u << i % 8);
		k = NULL;
		rc = keyring_open_code(s, VECTOR_CODE, &k, NULL);
		assert_int_equal(rc == 0, k != NULL);
		if (k == NULL) {
			assert_true(rc == LC_ECORRUPT || rc == LC_EKEY);
			continue;
		}
		/* Only the master's box can be missed. */
		assert_in_range(i, 50 + 4, 50 + WRAP_SIZE - 1);
		assert_memory_equal(keyring_id(k), vector_id_key, KEY_SIZE);
		assert_memory_equal(keyring_data(k, 1), vector_data_key, KEY_SIZE);
		keyring_free(k);
	}
	for (i = 0; i < sizeof bad; i++) {
		s.n = i;
		memcpy(bad, vector_keys, sizeof bad);
		assert_int_equal(keyring_open_code(s, VECTOR_CODE, &k, NULL), LC_ECORRUPT);
		assert_int_equal(keyring_domain_of(s, id, NULL), LC_ECORRUPT);
	}
}

static void
payload_is_read_strictly(void **state)
{
	static const uint8_t key[KEY_SIZE] = {1};
	struct lc_err e = LC_ERR_INIT;
	struct keyring *k = vector_keyring(), *out;
	struct lc_buf keys = {0};
	uint8_t id[DOMAIN_ID_SIZE];
	unsigned i;

	(void)state;
	/* A byte after the last wrap. */
	assert_int_equal(lc_buf_append(&keys, vector_keys, sizeof vector_keys), 0);
	assert_int_equal(lc_wr8(&keys, 0), 0);
	assert_int_equal(keyring_domain_of(span(&keys), id, &e), LC_ECORRUPT);
	/* The same number twice. */
	keys.n = sizeof vector_keys;
	craft_wrap(&keys, 3, 1, key, keyring_id(k));
	assert_int_equal(keyring_domain_of(span(&keys), id, NULL), LC_ECORRUPT);
	/* A kind that a later version may bring is passed over. */
	keys.n = sizeof vector_keys;
	lc_put16(keys.p + 48, 3);
	craft_wrap(&keys, 9, 1, key, keyring_id(k));
	assert_int_equal(keyring_open_code(span(&keys), VECTOR_CODE, &out, NULL), 0);
	keyring_free(out);
	/* More wraps than allowed. */
	keys.n = sizeof vector_keys;
	lc_put16(keys.p + 48, 3);
	for (i = 0; i < 998; i++)
		craft_wrap(&keys, 9, i, key, keyring_id(k));
	assert_int_equal(keyring_domain_of(span(&keys), id, NULL), LC_ECORRUPT);
	lc_buf_free(&keys);
	keyring_free(k);
}

/* The public key is in every segment: boxes made with it alone must count for nothing. */
static void
planted_keys_are_not_taken(void **state)
{
	uint8_t planted[KEY_SIZE], guess[KEY_SIZE] = {0};
	struct lc_err e = LC_ERR_INIT;
	struct keyring *k = vector_keyring(), *out = NULL;
	struct lc_buf keys = {0};

	(void)state;
	randombytes_buf(planted, sizeof planted);
	assert_int_equal(lc_buf_append(&keys, vector_keys, sizeof vector_keys), 0);
	craft_wrap(&keys, 3, 7, planted, guess);
	assert_int_equal(keyring_open_code(span(&keys), VECTOR_CODE, &out, &e), 0);
	assert_null(keyring_data(out, 7));
	assert_int_equal(keyring_data_number(out), 1);
	assert_int_equal(keyring_add(k, span(&keys), &e), 0);
	assert_null(keyring_data(k, 7));
	keyring_free(out);

	/* Made by somebody who has the id key. */
	keys.n = sizeof vector_keys;
	lc_put16(keys.p + 48, 3);
	craft_wrap(&keys, 3, 7, planted, keyring_id(k));
	assert_int_equal(keyring_open_code(span(&keys), VECTOR_CODE, &out, &e), 0);
	assert_memory_equal(keyring_data(out, 7), planted, KEY_SIZE);
	assert_int_equal(keyring_data_number(out), 7);
	keyring_free(out);

	/* An id key. */
	keys.n = 50;
	lc_put16(keys.p + 48, 0);
	craft_wrap(&keys, 2, 0, planted, guess);
	craft_wrap(&keys, 3, 1, planted, planted);
	assert_int_equal(keyring_open_code(span(&keys), VECTOR_CODE, &out, &e), LC_ECORRUPT);
	assert_null(out);
	lc_buf_free(&keys);
	keyring_free(k);
}

static void
two_keys_of_one_number_are_a_conflict(void **state)
{
	static const uint8_t key[KEY_SIZE] = {9};
	struct lc_err e = LC_ERR_INIT;
	struct keyring *k = vector_keyring();
	struct lc_buf keys = {0};

	(void)state;
	assert_int_equal(lc_buf_append(&keys, vector_keys, 50), 0);
	lc_put16(keys.p + 48, 0);
	craft_wrap(&keys, 3, 1, key, keyring_id(k));
	assert_int_equal(keyring_add(k, span(&keys), &e), LC_ECONFLICT);
	assert_memory_equal(keyring_data(k, 1), vector_data_key, KEY_SIZE);
	lc_buf_free(&keys);
	keyring_free(k);
}

static void
rotation_reaches_others_through_records(void **state)
{
	char *dir = tmpdir_new();
	const char *path = tmpdir_path(dir, "host.key");
	struct lc_err e = LC_ERR_INIT;
	struct keyring *a = vector_keyring(), *b = vector_keyring(), *host = NULL;
	uint32_t first, second;
	const uint8_t *lent = keyring_data(a, 1);
	struct lc_buf keys;

	(void)state;
	assert_int_equal(keyring_save(a, path, &e), 0);
	assert_int_equal(keyring_rotate(a, &e), 0);
	first = keyring_data_number(a);
	assert_int_equal(first >> 20, 1);
	assert_int_equal(keyring_rotate(a, &e), 0);
	second = keyring_data_number(a);
	assert_int_equal(second >> 20, 2);
	assert_ptr_equal(keyring_data(a, 1), lent);
	assert_memory_not_equal(keyring_data(a, first), keyring_data(a, second), KEY_SIZE);

	vector_encode(a, &keys);
	assert_int_equal(keyring_add(b, span(&keys), &e), 0);
	assert_int_equal(keyring_data_number(b), second);
	assert_memory_equal(keyring_data(b, first), keyring_data(a, first), KEY_SIZE);
	assert_int_equal(keyring_add(b, span(&keys), &e), 0); /* Again: nothing new. */
	assert_int_equal(keyring_add(b, vector_span, &e), 0);

	/* A host has no secret to open them with; it can rotate all the same. */
	assert_int_equal(keyring_load(path, &host, &e), 0);
	assert_int_equal(keyring_add(host, span(&keys), &e), 0);
	assert_int_equal(keyring_data_number(host), 1);
	assert_int_equal(keyring_rotate(host, &e), 0);
	lc_buf_free(&keys);
	vector_encode(host, &keys);
	assert_int_equal(keyring_add(b, span(&keys), &e), 0);
	assert_memory_equal(keyring_data(b, keyring_data_number(host)),
	                    keyring_data(host, keyring_data_number(host)), KEY_SIZE);
	lc_buf_free(&keys);
	keyring_free(host);
	keyring_free(a);
	keyring_free(b);
	tmpdir_free(dir);
}

static void
data_keys_have_a_bound(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	struct keyring *k = vector_keyring(), *out = NULL;
	struct lc_buf keys;
	unsigned n = 1;

	(void)state;
	while (keyring_rotate(k, &e) == 0)
		n++;
	assert_int_equal(n, 998);
	assert_int_equal(e.code, LC_EINVAL);
	lc_err_clear(&e);
	vector_encode(k, &keys);
	assert_int_equal(keys.n, 50 + 1000 * WRAP_SIZE);
	assert_int_equal(keyring_open_code(span(&keys), VECTOR_CODE, &out, &e), 0);
	assert_int_equal(keyring_data_number(out), keyring_data_number(k));
	lc_buf_free(&keys);
	keyring_free(out);
	keyring_free(k);
}

static void
passphrase_opens_what_the_code_opens(void **state)
{
	const struct recovery_cost cheap = {.passes = 1, .memory = 8192};
	struct keyring *k = vector_keyring(), *out = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct lc_buf wrap = {0};

	(void)state;
	assert_int_equal(keyring_wrap_passphrase(k, "", 0, &wrap, &e), LC_EINVAL);
	lc_err_clear(&e);
	assert_int_equal(keyring_wrap_passphrase(k, "correct horse", 13, &wrap, &e), 0);
	assert_int_equal(lc_get32(wrap.p + 12), 3);
	assert_true(lc_get64(wrap.p + 16) == 256u << 20);
	wrap.n = 0;
	assert_int_equal(
	    recovery_wrap(vector_seed, vector_domain, "correct horse", 13, cheap, &wrap, &e), 0);
	assert_int_equal(
	    keyring_open_passphrase(vector_span, span(&wrap), "correct horse", 13, &out, &e), 0);
	assert_memory_equal(keyring_id(out), vector_id_key, KEY_SIZE);
	lc_buf_free(&wrap);
	keyring_free(out);
	keyring_free(k);
}

/* A wrap of little cost that claims another. */
static void
cheap_wrap(struct lc_buf *b, uint32_t passes, uint64_t memory)
{
	const struct recovery_cost cheap = {.passes = 1, .memory = 8192};

	*b = (struct lc_buf){0};
	assert_int_equal(recovery_wrap(vector_seed, vector_domain, "pw", 2, cheap, b, NULL), 0);
	lc_put32(b->p + 12, passes);
	lc_put64(b->p + 16, memory);
}

static int
open_pass(const struct lc_buf *wrap, const char *pass)
{
	struct keyring *k = NULL;
	struct lc_err e = LC_ERR_INIT;
	int rc;

	rc = keyring_open_passphrase(vector_span, span(wrap), pass, strlen(pass), &k, &e);
	assert_int_equal(rc, e.code);
	assert_int_equal(rc == 0, k != NULL);
	keyring_free(k);
	return rc;
}

static void
passphrase_wrap_is_bounded_and_checked(void **state)
{
	struct lc_buf wrap;
	size_t i;

	(void)state;
	cheap_wrap(&wrap, 1, 8192);
	assert_int_equal(open_pass(&wrap, "pw"), 0);
	assert_int_equal(open_pass(&wrap, "pW"), LC_EKEY);
	assert_int_equal(open_pass(&wrap, ""), LC_EKEY);
	for (i = 0; i < wrap.n; i++) {
		if (i >= 12 && i < 24)
			continue; /* The cost: a flip may make it very dear. */
		wrap.p[i] ^= 0x20;
		assert_int_not_equal(open_pass(&wrap, "pw"), 0);
		wrap.p[i] ^= 0x20;
	}
	for (i = wrap.n; i-- > 0;) {
		wrap.n = i;
		assert_int_equal(open_pass(&wrap, "pw"), LC_ECORRUPT);
	}
	lc_buf_free(&wrap);
	cheap_wrap(&wrap, 17, 8192);
	assert_int_equal(open_pass(&wrap, "pw"), LC_ECORRUPT);
	lc_buf_free(&wrap);
	cheap_wrap(&wrap, 0, 8192);
	assert_int_equal(open_pass(&wrap, "pw"), LC_ECORRUPT);
	lc_buf_free(&wrap);
	cheap_wrap(&wrap, 1, (UINT64_C(1) << 30) + 1);
	assert_int_equal(open_pass(&wrap, "pw"), LC_ECORRUPT);
	lc_buf_free(&wrap);
	cheap_wrap(&wrap, 1, UINT64_MAX);
	assert_int_equal(open_pass(&wrap, "pw"), LC_ECORRUPT);
	lc_buf_free(&wrap);
	cheap_wrap(&wrap, 1, 8191);
	assert_int_equal(open_pass(&wrap, "pw"), LC_ECORRUPT);
	lc_buf_free(&wrap);
}

/* With every n: the n-th allocation and all later ones fail. */
static int
whole_life(const char *path)
{
	char code[RECOVERY_CODE_MAX];
	struct keyring *k = NULL, *opened = NULL, *host = NULL;
	struct lc_buf keys = {0}, wrap = {0};
	int rc;

	(void)unlink(path);
	rc = keyring_new(code, &k, NULL);
	if (rc == 0)
		rc = keyring_encode(k, &keys, NULL);
	if (rc == 0)
		rc = keyring_open_code(span(&keys), code, &opened, NULL);
	if (rc == 0)
		rc = keyring_rotate(opened, NULL);
	if (rc == 0)
		rc = keyring_save(opened, path, NULL);
	if (rc == 0)
		rc = keyring_load(path, &host, NULL);
	lc_buf_free(&keys);
	lc_buf_free(&wrap);
	keyring_free(k);
	keyring_free(opened);
	keyring_free(host);
	return rc;
}

static void
running_out_of_memory_is_clean(void **state)
{
	char *dir = tmpdir_new();
	char *path = path_join(dir, "host.key");
	long n;
	int rc = LC_ENOMEM;

	(void)state;
	for (n = 0; rc != 0 && n < 100; n++) {
		lc_alloc_fail_after(n);
		rc = whole_life(path);
		lc_alloc_fail_after(-1);
		assert_true(rc == 0 || rc == LC_ENOMEM);
	}
	assert_int_equal(rc, 0);
	assert_true(n > 5);
	lc_free(path);
	tmpdir_free(dir);
}

struct reader {
	struct keyring *k;
	atomic_bool stop;
	unsigned bad;
};

static void *
read_keys(void *arg)
{
	struct reader *r = arg;

	while (!atomic_load(&r->stop)) {
		uint32_t number = keyring_data_number(r->k);
		const uint8_t *key = keyring_data(r->k, number);

		r->bad += key == NULL || sodium_is_zero(key, KEY_SIZE);
	}
	return NULL;
}

static void
keys_are_read_while_another_thread_rotates(void **state)
{
	struct reader r = {.k = vector_keyring()};
	pthread_t t;
	int i, failed = 0;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, read_keys, &r), 0);
	for (i = 0; i < 200; i++)
		failed += keyring_rotate(r.k, NULL) != 0;
	atomic_store(&r.stop, true);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(r.bad, 0);
	assert_int_equal(failed, 0);
	keyring_free(r.k);
}

static void
change_is(const struct lc_buf *a, const struct lc_buf *b, int rc, enum keys_change want)
{
	struct lc_err e = LC_ERR_INIT;
	enum keys_change change;

	assert_int_equal(keyring_compare(span(a), span(b), &change, &e), rc);
	if (rc == 0)
		assert_int_equal(change, want);
}

static void
more_keys_are_told_from_others(void **state)
{
	struct lc_buf first, more, most, fork, other, bad = {0};
	struct keyring *k = vector_keyring(), *x = NULL;
	char code[RECOVERY_CODE_MAX];
	struct lc_err e = LC_ERR_INIT;
	uint8_t key[KEY_SIZE] = {7};

	(void)state;
	vector_encode(k, &first);
	assert_int_equal(keyring_rotate(k, &e), 0);
	vector_encode(k, &more);
	assert_int_equal(keyring_rotate(k, &e), 0);
	vector_encode(k, &most);
	keyring_free(k);
	k = vector_keyring(); /* rotated elsewhere */
	assert_int_equal(keyring_rotate(k, &e), 0);
	vector_encode(k, &fork);
	assert_int_equal(keyring_new(code, &x, &e), 0);
	vector_encode(x, &other);
	change_is(&first, &first, 0, KEYS_SAME);
	change_is(&first, &more, 0, KEYS_MORE);
	change_is(&first, &most, 0, KEYS_MORE);
	change_is(&more, &first, 0, KEYS_FEWER);
	change_is(&most, &more, 0, KEYS_FEWER);
	change_is(&more, &fork, LC_EKEY, KEYS_SAME);
	change_is(&first, &other, LC_EKEY, KEYS_SAME);
	/* Another seal under a number that is there; of the id key; one that is not there any more.
	 */
	assert_int_equal(lc_buf_append(&bad, more.p, more.n), 0);
	bad.p[bad.n - 1] ^= 1;
	change_is(&more, &bad, LC_EKEY, KEYS_SAME);
	memcpy(bad.p, more.p, more.n);
	bad.p[50 + WRAP_SIZE + 20] ^= 1;
	change_is(&more, &bad, LC_EKEY, KEYS_SAME);
	memcpy(bad.p, more.p, more.n);
	memmove(bad.p + 50, bad.p + 50 + WRAP_SIZE, more.n - 50 - WRAP_SIZE);
	bad.n = more.n - WRAP_SIZE;
	lc_put16(bad.p + 48, (uint16_t)(lc_get16(more.p + 48) - 1));
	change_is(&more, &bad, LC_EKEY, KEYS_SAME);
	change_is(&bad, &more, LC_EKEY, KEYS_SAME);
	bad.n--;
	change_is(&more, &bad, LC_ECORRUPT, KEYS_SAME);
	/* Anybody can make a seal: that shows to the key alone.  It is more, blindly. */
	bad.n = 0;
	assert_int_equal(lc_buf_append(&bad, first.p, first.n), 0);
	craft_wrap(&bad, 3, 9, key, key);
	change_is(&first, &bad, 0, KEYS_MORE);
	keyring_free(k);
	keyring_free(x);
	lc_buf_free(&first);
	lc_buf_free(&more);
	lc_buf_free(&most);
	lc_buf_free(&fork);
	lc_buf_free(&other);
	lc_buf_free(&bad);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(more_keys_are_told_from_others),
	    cmocka_unit_test(opens_what_another_implementation_made),
	    cmocka_unit_test(code_is_known_and_its_spellings_are_read),
	    cmocka_unit_test(code_finds_every_slip_of_one_or_two_characters),
	    cmocka_unit_test(code_of_wrong_shape_is_mistyped),
	    cmocka_unit_test(code_of_another_domain_is_told_apart),
	    cmocka_unit_test(changed_payload_gives_no_changed_key),
	    cmocka_unit_test(payload_is_read_strictly),
	    cmocka_unit_test(planted_keys_are_not_taken),
	    cmocka_unit_test(two_keys_of_one_number_are_a_conflict),
	    cmocka_unit_test(rotation_reaches_others_through_records),
	    cmocka_unit_test(data_keys_have_a_bound),
	    cmocka_unit_test(passphrase_opens_what_the_code_opens),
	    cmocka_unit_test(passphrase_wrap_is_bounded_and_checked),
	    cmocka_unit_test(running_out_of_memory_is_clean),
	    cmocka_unit_test(keys_are_read_while_another_thread_rotates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

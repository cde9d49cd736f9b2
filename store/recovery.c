#include <string.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "store/recovery.h"

#define CODE_SYMBOLS 32u /* of the seed, 5 bits each */
#define CHECK_SYMBOLS 4u
/* The check is seed * 2^20 mod p.  p is the largest prime below 2^20 for which no two wrong
 * characters, wherever they stand, cancel out; test_keyring.c tries all of them.  (They do for half
 * of the primes, and with any prime where the seed is not shifted.) */
#define CHECK_PRIME 1048517u

#define PASS_MAGIC "LOCUMPWD"
#define PASS_VERSION 1u
#define PASS_HEAD 40u /* magic, version, zero, operations, memory, domain */
#define PASS_SIZE                                                                                 \
	(PASS_HEAD + crypto_pwhash_SALTBYTES + crypto_secretbox_NONCEBYTES + RECOVERY_SEED_SIZE + \
	 crypto_secretbox_MACBYTES)
#define PASSES_MAX 16u
#define MEMORY_MAX (1u << 30)

_Static_assert(crypto_secretbox_KEYBYTES == KEY_SIZE, "passphrase key");

static const char symbols[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

static int
symbol_value(char c)
{
	const char *at;

	if (c >= 'a' && c <= 'z')
		c = (char)(c - 'a' + 'A');
	if (c == 'O')
		c = '0';
	if (c == 'I' || c == 'L')
		c = '1';
	at = c == '\0' ? NULL : strchr(symbols, c);
	return at == NULL ? -1 : (int)(at - symbols);
}

static uint32_t
seed_check(const uint8_t seed[RECOVERY_SEED_SIZE])
{
	uint32_t rest = 0;
	unsigned i;

	for (i = 0; i < RECOVERY_SEED_SIZE; i++)
		rest = (rest * 256u + seed[i]) % CHECK_PRIME;
	return (uint32_t)(((uint64_t)rest << (5 * CHECK_SYMBOLS)) % CHECK_PRIME);
}

void
recovery_code_write(const uint8_t seed[RECOVERY_SEED_SIZE], char code[RECOVERY_CODE_MAX])
{
	uint32_t check = seed_check(seed);
	unsigned i, v, bit;
	char *to = code;

	for (i = 0; i < CODE_SYMBOLS + CHECK_SYMBOLS; i++) {
		if (i > 0 && i % 4 == 0)
			*to++ = '-';
		if (i < CODE_SYMBOLS) {
			bit = 5 * i;
			v = (unsigned)seed[bit / 8] << 8;
			if (bit / 8 + 1 < RECOVERY_SEED_SIZE)
				v |= seed[bit / 8 + 1];
			v = v >> (11 - bit % 8);
		} else {
			v = check >> (5 * (CODE_SYMBOLS + CHECK_SYMBOLS - 1 - i));
		}
		*to++ = symbols[v & 31u];
	}
	*to = '\0';
}

/* Messages never repeat what was typed: it may be nearly right. */
int
recovery_code_read(const char *code, uint8_t seed[RECOVERY_SEED_SIZE], struct lc_err *e)
{
	uint32_t check = 0, acc = 0;
	unsigned n = 0, bits = 0, at = 0, column;

	for (column = 1; *code != '\0'; code++, column++) {
		int v = symbol_value(*code);

		if (*code == '-' || *code == ' ' || *code == '\n' || *code == '\r' || *code == '\t')
			continue;
		if (v < 0) {
			return lc_fail(e, LC_EINVAL, 0,
			               "recovery code: mistyped: no code has the character in "
			               "column %u",
			               column);
		}
		if (n < CODE_SYMBOLS) {
			acc = (acc << 5 | (uint32_t)v) & 0xfffu;
			bits += 5;
			if (bits >= 8) {
				bits -= 8;
				seed[at++] = (uint8_t)(acc >> bits);
			}
		} else if (n < CODE_SYMBOLS + CHECK_SYMBOLS) {
			check = check << 5 | (uint32_t)v;
		}
		n++;
	}
	if (n != CODE_SYMBOLS + CHECK_SYMBOLS) {
		return lc_fail(e, LC_EINVAL, 0,
		               "recovery code: mistyped: %u characters without dashes, not %u", n,
		               CODE_SYMBOLS + CHECK_SYMBOLS);
	}
	if (check != seed_check(seed)) {
		return lc_fail(e, LC_EINVAL, 0,
		               "recovery code: mistyped: its check group does not match");
	}
	return 0;
}

static bool
cost_bounded(struct recovery_cost cost)
{
	return cost.passes >= crypto_pwhash_OPSLIMIT_MIN && cost.passes <= PASSES_MAX &&
	       cost.memory >= crypto_pwhash_MEMLIMIT_MIN && cost.memory <= MEMORY_MAX;
}

static int
pass_key(uint8_t key[KEY_SIZE], const char *pass, size_t n, const uint8_t *salt,
         struct recovery_cost cost, struct lc_err *e)
{
	if (crypto_pwhash(key, KEY_SIZE, pass, n, salt, cost.passes, (size_t)cost.memory,
	                  crypto_pwhash_ALG_ARGON2ID13) != 0) {
		return lc_fail(e, LC_ENOMEM, 0, "passphrase: no %llu MiB of memory for Argon2id",
		               (unsigned long long)(cost.memory >> 20));
	}
	return 0;
}

int
recovery_wrap(const uint8_t seed[RECOVERY_SEED_SIZE], const uint8_t domain[DOMAIN_ID_SIZE],
              const char *pass, size_t n, struct recovery_cost cost, struct lc_buf *out,
              struct lc_err *e)
{
	uint8_t wrap[PASS_SIZE] = PASS_MAGIC, key[KEY_SIZE];
	uint8_t *salt = wrap + PASS_HEAD, *nonce = salt + crypto_pwhash_SALTBYTES;
	int rc;

	if (n == 0)
		return lc_fail(e, LC_EINVAL, 0, "passphrase: empty");
	if (!cost_bounded(cost))
		return lc_fail(e, LC_EINVAL, 0, "passphrase: cost out of bounds");
	lc_put16(wrap + 8, PASS_VERSION);
	lc_put32(wrap + 12, cost.passes);
	lc_put64(wrap + 16, cost.memory);
	memcpy(wrap + 24, domain, DOMAIN_ID_SIZE);
	randombytes_buf(salt, crypto_pwhash_SALTBYTES + crypto_secretbox_NONCEBYTES);
	rc = pass_key(key, pass, n, salt, cost, e);
	if (rc == 0) {
		(void)crypto_secretbox_easy(nonce + crypto_secretbox_NONCEBYTES, seed,
		                            RECOVERY_SEED_SIZE, nonce, key);
		rc = lc_buf_append(out, wrap, sizeof wrap);
		if (rc != 0)
			(void)lc_fail(e, LC_ENOMEM, 0, "passphrase: out of memory");
	}
	sodium_memzero(key, sizeof key);
	return rc;
}

int
recovery_unwrap(struct lc_span wrap, const uint8_t domain[DOMAIN_ID_SIZE], const char *pass,
                size_t n, uint8_t seed[RECOVERY_SEED_SIZE], struct lc_err *e)
{
	const uint8_t *salt, *nonce;
	uint8_t key[KEY_SIZE];
	struct recovery_cost cost;
	int rc;

	if (wrap.n < 12 || memcmp(wrap.p, PASS_MAGIC, 8) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "passphrase: not a passphrase wrap");
	if (lc_get16(wrap.p + 8) != PASS_VERSION) {
		return lc_fail(e, LC_EVERSION, 0,
		               "passphrase: wrap of version %u, this Locum knows %u",
		               lc_get16(wrap.p + 8), PASS_VERSION);
	}
	if (wrap.n != PASS_SIZE || lc_get16(wrap.p + 10) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "passphrase: malformed wrap");
	cost.passes = lc_get32(wrap.p + 12);
	cost.memory = lc_get64(wrap.p + 16);
	if (!cost_bounded(cost))
		return lc_fail(e, LC_ECORRUPT, 0, "passphrase: wrap with cost out of bounds");
	if (memcmp(wrap.p + 24, domain, DOMAIN_ID_SIZE) != 0)
		return lc_fail(e, LC_EKEY, 0, "passphrase: wrap of another key domain");
	salt = wrap.p + PASS_HEAD;
	nonce = salt + crypto_pwhash_SALTBYTES;
	rc = pass_key(key, pass, n, salt, cost, e);
	if (rc == 0 && crypto_secretbox_open_easy(seed, nonce + crypto_secretbox_NONCEBYTES,
	                                          RECOVERY_SEED_SIZE + crypto_secretbox_MACBYTES,
	                                          nonce, key) != 0)
		rc = lc_fail(e, LC_EKEY, 0, "passphrase: wrong");
	sodium_memzero(key, sizeof key);
	return rc;
}

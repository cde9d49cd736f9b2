#include <assert.h>
#include <string.h>

#include <sodium.h>

#include "replicator/noise.h"
#include "store/base/bytes.h"

#define BLOCK_SIZE 128u /* of BLAKE2b */

_Static_assert(crypto_scalarmult_BYTES == NOISE_KEY_SIZE, "public key");
_Static_assert(crypto_scalarmult_SCALARBYTES == NOISE_KEY_SIZE, "secret key");
_Static_assert(crypto_aead_chacha20poly1305_ietf_KEYBYTES == NOISE_KEY_SIZE, "cipher key");
_Static_assert(crypto_aead_chacha20poly1305_ietf_ABYTES == NOISE_TAG_SIZE, "tag");
_Static_assert(crypto_generichash_BYTES_MAX == NOISE_HASH_SIZE, "hash");

/* The pattern XK.  S is the sender's static key; ES and SE name first the initiator's key. */
enum token { E, S, EE, ES, SE };
#define MESSAGES 3u
#define TOKENS 2u
static const enum token pattern[MESSAGES][TOKENS] = {{E, ES}, {E, EE}, {S, SE}};

static struct lc_span
span(const void *p, size_t n)
{
	return (struct lc_span){p, n};
}

/* ---- hash functions ---- */

/* HASH(a || b) */
static void
hash2(struct lc_span a, struct lc_span b, uint8_t out[NOISE_HASH_SIZE])
{
	crypto_generichash_state st;

	(void)crypto_generichash_init(&st, NULL, 0, NOISE_HASH_SIZE);
	(void)crypto_generichash_update(&st, a.p, a.n);
	(void)crypto_generichash_update(&st, b.p, b.n);
	(void)crypto_generichash_final(&st, out, NOISE_HASH_SIZE);
	sodium_memzero(&st, sizeof st);
}

/* HMAC (RFC 2104) over that hash: the one that Noise names, not BLAKE2b's own keyed mode. */
static void
hmac(const uint8_t key[NOISE_HASH_SIZE], struct lc_span data, uint8_t out[NOISE_HASH_SIZE])
{
	uint8_t ipad[BLOCK_SIZE], opad[BLOCK_SIZE], inner[NOISE_HASH_SIZE];
	size_t i;

	memset(ipad, 0x36, sizeof ipad);
	memset(opad, 0x5c, sizeof opad);
	for (i = 0; i < NOISE_HASH_SIZE; i++) {
		ipad[i] ^= key[i];
		opad[i] ^= key[i];
	}
	hash2(span(ipad, sizeof ipad), data, inner);
	hash2(span(opad, sizeof opad), span(inner, sizeof inner), out);
	sodium_memzero(ipad, sizeof ipad);
	sodium_memzero(opad, sizeof opad);
	sodium_memzero(inner, sizeof inner);
}

/* HKDF(ck, input, 2).  out1 may be ck. */
static void
hkdf(const uint8_t ck[NOISE_HASH_SIZE], struct lc_span input, uint8_t out1[NOISE_HASH_SIZE],
     uint8_t out2[NOISE_HASH_SIZE])
{
	uint8_t temp[NOISE_HASH_SIZE], info[NOISE_HASH_SIZE + 1];

	hmac(ck, input, temp);
	info[0] = 1;
	hmac(temp, span(info, 1), out1);
	memcpy(info, out1, NOISE_HASH_SIZE);
	info[NOISE_HASH_SIZE] = 2;
	hmac(temp, span(info, sizeof info), out2);
	sodium_memzero(temp, sizeof temp);
	sodium_memzero(info, sizeof info);
}

/* ---- cipher ---- */

static void
nonce_bytes(uint64_t nonce, uint8_t out[12])
{
	memset(out, 0, 4);
	lc_put64(out + 4, nonce);
}

/* The last nonce belongs to REKEY(). */
static int
spent(const struct noise_cipher *c, struct lc_err *e)
{
	if (c->nonce == UINT64_MAX)
		return lc_fail(e, LC_EKEY, 0, "noise: the key is used up");
	return 0;
}

int
noise_seal(struct noise_cipher *c, struct lc_span ad, struct lc_span plain, uint8_t *out,
           struct lc_err *e)
{
	uint8_t nonce[12];
	int rc = spent(c, e);

	if (rc != 0)
		return rc;
	nonce_bytes(c->nonce++, nonce);
	(void)crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain.p, plain.n, ad.p, ad.n,
	                                                NULL, nonce, c->key);
	return 0;
}

int
noise_open(struct noise_cipher *c, struct lc_span ad, struct lc_span sealed, uint8_t *out,
           struct lc_err *e)
{
	uint8_t nonce[12];
	int rc = spent(c, e);

	if (rc != 0)
		return rc;
	nonce_bytes(c->nonce, nonce);
	if (crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, sealed.p, sealed.n, ad.p,
	                                              ad.n, nonce, c->key) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "noise: message is not authentic");
	c->nonce++;
	return 0;
}

void
noise_rekey(struct noise_cipher *c)
{
	static const uint8_t zeros[NOISE_KEY_SIZE];
	uint8_t nonce[12], out[NOISE_KEY_SIZE + NOISE_TAG_SIZE];

	nonce_bytes(UINT64_MAX, nonce);
	(void)crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, zeros, sizeof zeros, NULL, 0,
	                                                NULL, nonce, c->key);
	memcpy(c->key, out, sizeof c->key);
	sodium_memzero(out, sizeof out);
}

void
noise_forget(struct noise_cipher *c)
{
	sodium_memzero(c, sizeof *c);
}

/* ---- symmetric state ---- */

static void
mix_hash(struct noise_handshake *hs, struct lc_span data)
{
	hash2(span(hs->h, sizeof hs->h), data, hs->h);
}

static void
mix_key(struct noise_handshake *hs, struct lc_span input)
{
	uint8_t temp[NOISE_HASH_SIZE];

	hkdf(hs->ck, input, hs->ck, temp);
	memcpy(hs->cipher.key, temp, sizeof hs->cipher.key);
	hs->cipher.nonce = 0;
	sodium_memzero(temp, sizeof temp);
}

/* In XK a key is there before anything is to be encrypted, so the specification's case without one
 * does not arise. */
static int
encrypt_and_hash(struct noise_handshake *hs, struct lc_span plain, uint8_t *out, struct lc_err *e)
{
	int rc = noise_seal(&hs->cipher, span(hs->h, sizeof hs->h), plain, out, e);

	if (rc == 0)
		mix_hash(hs, span(out, plain.n + NOISE_TAG_SIZE));
	return rc;
}

static int
decrypt_and_hash(struct noise_handshake *hs, struct lc_span sealed, uint8_t *out, struct lc_err *e)
{
	int rc = noise_open(&hs->cipher, span(hs->h, sizeof hs->h), sealed, out, NULL);

	if (rc != 0)
		return lc_fail(e, LC_EKEY, 0, "noise: handshake message %u is not authentic",
		               hs->message + 1);
	mix_hash(hs, sealed);
	return 0;
}

/* ---- handshake ---- */

static int
start(struct lc_err *e)
{
	if (sodium_init() < 0)
		return lc_fail(e, LC_ENOTSUP, 0, "noise: libsodium does not start");
	return 0;
}

int
noise_keypair(uint8_t secret[NOISE_KEY_SIZE], uint8_t public[NOISE_KEY_SIZE], struct lc_err *e)
{
	int rc = start(e);

	if (rc != 0)
		return rc;
	randombytes_buf(secret, NOISE_KEY_SIZE);
	noise_public(secret, public);
	return 0;
}

void
noise_public(const uint8_t secret[NOISE_KEY_SIZE], uint8_t public[NOISE_KEY_SIZE])
{
	(void)crypto_scalarmult_base(public, secret);
}

int
noise_begin(struct noise_handshake *hs, enum noise_role role, const uint8_t secret[NOISE_KEY_SIZE],
            const uint8_t *remote, struct lc_span prologue, struct lc_err *e)
{
	/* Not longer than a hash, so h begins as the name itself, filled up with zeros. */
	static const uint8_t name[NOISE_HASH_SIZE] = "Noise_XK_25519_ChaChaPoly_BLAKE2b";
	int rc;

	assert(role != NOISE_DEAD && (role == NOISE_INITIATOR) == (remote != NULL));
	*hs = (struct noise_handshake){.role = NOISE_DEAD};
	rc = start(e);
	if (rc != 0)
		return rc;
	hs->role = role;
	memcpy(hs->s_secret, secret, NOISE_KEY_SIZE);
	noise_public(secret, hs->s);
	if (remote != NULL)
		memcpy(hs->rs, remote, NOISE_KEY_SIZE);
	memcpy(hs->h, name, sizeof name);
	memcpy(hs->ck, name, sizeof name);
	mix_hash(hs, prologue);
	mix_hash(hs, span(remote != NULL ? hs->rs : hs->s, NOISE_KEY_SIZE));
	return 0;
}

static int
mix_dh(struct noise_handshake *hs, enum token t, struct lc_err *e)
{
	bool initiator = hs->role == NOISE_INITIATOR;
	bool own_static = t == (initiator ? SE : ES), their_static = t == (initiator ? ES : SE);
	uint8_t shared[NOISE_KEY_SIZE];
	int rc = 0;

	/* Refuses points of low order, whose result would be the same for every secret. */
	if (crypto_scalarmult(shared, own_static ? hs->s_secret : hs->e_secret,
	                      their_static ? hs->rs : hs->re) == 0)
		mix_key(hs, span(shared, sizeof shared));
	else
		rc = lc_fail(e, LC_EKEY, 0, "noise: the other side's %s key is of low order",
		             their_static ? "static" : "ephemeral");
	sodium_memzero(shared, sizeof shared);
	return rc;
}

static size_t
token_size(enum token t)
{
	return t == E ? NOISE_KEY_SIZE : t == S ? NOISE_KEY_SIZE + NOISE_TAG_SIZE : 0;
}

static int
write_token(struct noise_handshake *hs, enum token t, uint8_t *out, struct lc_err *e)
{
	switch (t) {
	case E:
		randombytes_buf(hs->e_secret, sizeof hs->e_secret);
		noise_public(hs->e_secret, hs->e);
		memcpy(out, hs->e, sizeof hs->e);
		mix_hash(hs, span(hs->e, sizeof hs->e));
		return 0;
	case S:
		return encrypt_and_hash(hs, span(hs->s, sizeof hs->s), out, e);
	case EE:
	case ES:
	case SE:
		return mix_dh(hs, t, e);
	}
	return 0;
}

static int
read_token(struct noise_handshake *hs, enum token t, const uint8_t *in, struct lc_err *e)
{
	switch (t) {
	case E:
		memcpy(hs->re, in, sizeof hs->re);
		mix_hash(hs, span(hs->re, sizeof hs->re));
		return 0;
	case S:
		return decrypt_and_hash(hs, span(in, token_size(S)), hs->rs, e);
	case EE:
	case ES:
	case SE:
		return mix_dh(hs, t, e);
	}
	return 0;
}

size_t
noise_overhead(const struct noise_handshake *hs)
{
	size_t n = NOISE_TAG_SIZE, i;

	if (hs->role == NOISE_DEAD || noise_complete(hs))
		return 0;
	for (i = 0; i < TOKENS; i++)
		n += token_size(pattern[hs->message][i]);
	return n;
}

bool
noise_complete(const struct noise_handshake *hs)
{
	return hs->message >= MESSAGES;
}

/* Whether hs can write (or else read) the next message. */
static int
check_turn(const struct noise_handshake *hs, bool writing, struct lc_err *e)
{
	bool initiators = hs->message % 2 == 0;

	if (hs->role == NOISE_DEAD || noise_complete(hs) ||
	    (hs->role == NOISE_INITIATOR) != (initiators == writing))
		return lc_fail(e, LC_EINVAL, 0, "noise: there is no handshake message to %s now",
		               writing ? "write" : "read");
	return 0;
}

int
noise_write(struct noise_handshake *hs, struct lc_span payload, uint8_t *out, struct lc_err *e)
{
	int rc = check_turn(hs, true, e);
	size_t i;

	if (rc == 0 && payload.n > NOISE_MESSAGE_MAX - noise_overhead(hs))
		rc = lc_fail(e, LC_EINVAL, 0, "noise: a handshake message of over %u bytes",
		             NOISE_MESSAGE_MAX);
	for (i = 0; rc == 0 && i < TOKENS; i++) {
		enum token t = pattern[hs->message][i];

		rc = write_token(hs, t, out, e);
		out += token_size(t);
	}
	if (rc == 0)
		rc = encrypt_and_hash(hs, payload, out, e);
	if (rc != 0)
		noise_end(hs);
	else
		hs->message++;
	return rc;
}

int
noise_read(struct noise_handshake *hs, struct lc_span message, uint8_t *payload, struct lc_err *e)
{
	int rc = check_turn(hs, false, e);
	const uint8_t *in = message.p;
	size_t i;

	if (rc == 0 && (message.n > NOISE_MESSAGE_MAX || message.n < noise_overhead(hs)))
		rc = lc_fail(e, LC_EPEER, 0, "noise: handshake message %u has %zu bytes",
		             hs->message + 1, message.n);
	for (i = 0; rc == 0 && i < TOKENS; i++) {
		enum token t = pattern[hs->message][i];

		rc = read_token(hs, t, in, e);
		in += token_size(t);
	}
	if (rc == 0)
		rc = decrypt_and_hash(hs, span(in, (size_t)(message.p + message.n - in)), payload,
		                      e);
	if (rc != 0)
		noise_end(hs);
	else
		hs->message++;
	return rc;
}

const uint8_t *
noise_hash(const struct noise_handshake *hs)
{
	return hs->h;
}

const uint8_t *
noise_remote(const struct noise_handshake *hs)
{
	return noise_complete(hs) ? hs->rs : NULL;
}

void
noise_split(struct noise_handshake *hs, struct noise_cipher *sending,
            struct noise_cipher *receiving)
{
	uint8_t k1[NOISE_HASH_SIZE], k2[NOISE_HASH_SIZE];
	bool initiator = hs->role == NOISE_INITIATOR;

	assert(noise_complete(hs));
	hkdf(hs->ck, span(NULL, 0), k1, k2);
	memcpy(sending->key, initiator ? k1 : k2, NOISE_KEY_SIZE);
	memcpy(receiving->key, initiator ? k2 : k1, NOISE_KEY_SIZE);
	sending->nonce = 0;
	receiving->nonce = 0;
	sodium_memzero(k1, sizeof k1);
	sodium_memzero(k2, sizeof k2);
	noise_end(hs);
}

void
noise_end(struct noise_handshake *hs)
{
	sodium_memzero(hs, sizeof *hs);
}

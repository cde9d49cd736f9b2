/**
 * noise: Noise_XK_25519_ChaChaPoly_BLAKE2b (Noise Protocol Framework, revision 34).
 *
 * Two sides that have never met: the initiator knows the responder's static key beforehand, the
 * responder learns the initiator's during the handshake, encrypted and only after it has proved
 * that it holds its own.  Three messages, strictly in turn:
 *
 *     initiator                           responder
 *         noise_write ── e, es ──────────> noise_read
 *         noise_read  <───────── e, ee ─── noise_write
 *         noise_write ── s, se ──────────> noise_read
 *         noise_split                      noise_split      one cipher for each direction
 *
 * Every failure is final: the handshake is wiped, and all that follows on it is LC_EINVAL.  Nothing
 * here allocates, reads a clock or touches a socket.  Thread: any; one handshake or cipher is used
 * by one thread at a time.
 *
 * Randomness is libsodium's; a test that needs known ephemeral keys gives libsodium another source.
 */
#ifndef LOCUM_NOISE_H
#define LOCUM_NOISE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

#define NOISE_KEY_SIZE 32u
#define NOISE_TAG_SIZE 16u
#define NOISE_HASH_SIZE 64u
#define NOISE_MESSAGE_MAX 65535u /* of any message, handshake or transport */

/**
 * noise_keypair(secret, public, e):
 * A new random static key pair.
 *
 * Returns  0, or LC_ENOTSUP where libsodium does not start.
 * Secret:  secret is the caller's to wipe.
 */
int noise_keypair(uint8_t secret[NOISE_KEY_SIZE], uint8_t public[NOISE_KEY_SIZE], struct lc_err *e);
/** noise_public(secret, public): the public key that belongs to a secret one. */
void noise_public(const uint8_t secret[NOISE_KEY_SIZE], uint8_t public[NOISE_KEY_SIZE]);

/** A key and the number of the next message under it.  The owner wipes it with noise_forget(). */
struct noise_cipher {
	uint8_t key[NOISE_KEY_SIZE];
	uint64_t nonce;
};

/**
 * noise_seal(c, ad, plain, out, e), noise_open(c, ad, sealed, out, e):
 * Encrypt a message, bound to ad, to plain.n + NOISE_TAG_SIZE bytes at out; or check one and
 * decrypt it to sealed.n - NOISE_TAG_SIZE bytes.  out may be where the input is.  Uses up one
 * nonce.
 *
 * Returns  0; LC_ECORRUPT (noise_open: not what the other side sealed as its next message; out
 * holds zeros or is untouched, the nonce stays); LC_EKEY (all 2^64 - 1 nonces are used up).
 */
int noise_seal(struct noise_cipher *c, struct lc_span ad, struct lc_span plain, uint8_t *out,
               struct lc_err *e);
int noise_open(struct noise_cipher *c, struct lc_span ad, struct lc_span sealed, uint8_t *out,
               struct lc_err *e);
/** noise_rekey(c): REKEY(): the next key, from which this one cannot be told.  The nonce goes on.
 */
void noise_rekey(struct noise_cipher *c);
/** noise_forget(c): wipe. */
void noise_forget(struct noise_cipher *c);

enum noise_role { NOISE_DEAD = 0, NOISE_INITIATOR, NOISE_RESPONDER };

/**
 * For the owner to embed.  He may read role and message, the rest is noise.c's.  Names are those of
 * the specification.
 */
struct noise_handshake {
	enum noise_role role; /* NOISE_DEAD: wiped */
	unsigned message;     /* 0, 1, 2: which comes next; 3: all are through */
	uint8_t s_secret[NOISE_KEY_SIZE], s[NOISE_KEY_SIZE];
	uint8_t e_secret[NOISE_KEY_SIZE], e[NOISE_KEY_SIZE];
	uint8_t rs[NOISE_KEY_SIZE], re[NOISE_KEY_SIZE];
	uint8_t ck[NOISE_HASH_SIZE], h[NOISE_HASH_SIZE];
	struct noise_cipher cipher;
};

/**
 * noise_begin(hs, role, secret, remote, prologue, e):
 * Begin a handshake.  remote is the responder's public key (initiator) or NULL (responder).  Both
 * sides must give the same prologue, or the first message fails.  Copies what it needs.
 *
 * Returns  0, or LC_ENOTSUP where libsodium does not start.
 * Secret:  hs holds keys from now on: noise_split() or noise_end() wipes them.
 */
int noise_begin(struct noise_handshake *hs, enum noise_role role,
                const uint8_t secret[NOISE_KEY_SIZE], const uint8_t *remote,
                struct lc_span prologue, struct lc_err *e);
/** noise_overhead(hs): bytes that the next message has beside its payload; 0 where none is next. */
size_t noise_overhead(const struct noise_handshake *hs);
/** noise_complete(hs): all three messages are through, noise_split() is next. */
bool noise_complete(const struct noise_handshake *hs);
/**
 * noise_write(hs, payload, out, e):
 * Make the next message: noise_overhead() + payload.n bytes at out (not where payload is).  The
 * payload of the first can be replayed and is readable once the responder's key is lost; that of
 * the second goes to whoever asked.  Only the third's is as safe as what follows.
 *
 * Returns  0; LC_EKEY (a key of the other side is no good: of low order); LC_EINVAL (not our turn,
 *          dead, or longer than NOISE_MESSAGE_MAX).  Every failure wipes hs.
 */
int noise_write(struct noise_handshake *hs, struct lc_span payload, uint8_t *out, struct lc_err *e);
/**
 * noise_read(hs, message, payload, e):
 * Check the other side's next message and write its payload, message.n - noise_overhead() bytes, to
 * payload (not where message is).
 *
 * Returns  0; LC_EKEY (the other side does not hold the key, or not the prologue, that it should,
 * the message was changed on its way, or a key is of low order); LC_EPEER (its length cannot be
 *          right); LC_EINVAL (not its turn, or dead).  Every failure wipes hs.
 */
int noise_read(struct noise_handshake *hs, struct lc_span message, uint8_t *payload,
               struct lc_err *e);
/** noise_hash(hs): borrowed, NOISE_HASH_SIZE bytes; unique to the session once it is complete. */
const uint8_t *noise_hash(const struct noise_handshake *hs);
/** noise_remote(hs): borrowed: the other side's static key, proved, or NULL before completion. */
const uint8_t *noise_remote(const struct noise_handshake *hs);
/**
 * noise_split(hs, sending, receiving):
 * The two ciphers of a complete handshake, for this side's view.  Wipes hs.
 */
void noise_split(struct noise_handshake *hs, struct noise_cipher *sending,
                 struct noise_cipher *receiving);
/** noise_end(hs): wipe, at any time; noise_begin() may follow. */
void noise_end(struct noise_handshake *hs);

#endif

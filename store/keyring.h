/**
 * keyring: the keys of a key domain, and how they are kept.
 *
 * A domain has a recovery key pair (X25519, derived from the recovery code), a random master, an id
 * key and numbered data keys.  Master, id key and data keys are each sealed to the recovery public
 * key (crypto_box_seal); those seals are the KEYS record at the start of every segment (FORMAT.md
 * "KEYS"), so a directory of segments plus the code is enough.  Inside each seal a tag shows that
 * it was made by somebody who had the code (master, id key) or the id key (data keys): everybody
 * who has seen a segment knows the public key, and must not be able to plant keys of his own.
 *
 * A host that writes keeps the id key and the data keys, never the master or the seed, in a
 * root-only file, with the seals, which it cannot make again.  A passphrase wrap (Argon2id) of the
 * recovery seed lies in the store's keys/ only.
 *
 * Secret: every key inside lives in sodium_malloc memory and is wiped by keyring_free().
 * Thread: keyring_data_number, _data, _id, _set and _domain may be called from any thread, also
 *         while one other thread rotates or adds; what they lend stays in place until
 *         keyring_free().  Everything else: one thread at a time.
 */
#ifndef LOCUM_KEYRING_H
#define LOCUM_KEYRING_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"

#define KEY_SIZE 32u
#define DOMAIN_ID_SIZE 16u
#define RECOVERY_CODE_MAX 64u /* text with dashes and NUL */

struct keyring;

/**
 * keyring_new(code, out, e):
 * A new domain: random recovery code (160 bits, Crockford base32 in groups of four with a check
 * group, so that a mistyped code is told apart from a wrong one), master, id key, data key 1.
 *
 * Secret: code[RECOVERY_CODE_MAX] must be written to the recovery kit and wiped by the caller.
 */
int keyring_new(char code[RECOVERY_CODE_MAX], struct keyring **out, struct lc_err *e);
/**
 * keyring_open_code(keys, code, out, e):
 * Open the seals of a KEYS record payload with the recovery code.  Lower case, spaces, missing
 * dashes, O for 0 and I or L for 1 are accepted.  A data key that does not open is passed over:
 * what needs it fails with LC_EKEY and its number, the rest can be restored.
 *
 * Returns  0; LC_EINVAL: the code is mistyped (check group); LC_EKEY: it is the code of another
 *          domain; LC_ECORRUPT: malformed, or without a genuine id key and data key.
 */
int keyring_open_code(struct lc_span keys, const char *code, struct keyring **out,
                      struct lc_err *e);
/**
 * keyring_add(k, keys, e):
 * Take up the data keys of one more KEYS record.  Only a keyring that was opened with the code or
 * the passphrase can; that of a host leaves seals alone that it has no key for.
 *
 * Returns  0; LC_EKEY: of another domain; LC_ECORRUPT: malformed; LC_ECONFLICT: two different data
 *          keys of one number; LC_EINVAL: more than 998 data keys.
 */
int keyring_add(struct keyring *k, struct lc_span keys, struct lc_err *e);
/**
 * keyring_save(k, path, e):
 * Write the host's key file, mode 0600, in a directory that is made with 0700 where it is missing.
 *
 * Returns  0; LC_EEXIST: path holds the keys of another domain, or what is no readable key file;
 *          LC_ECONFLICT: it holds a data key that k lacks (somebody else rotated: load it again).
 * Durable: the new file, on return of 0.
 */
int keyring_save(const struct keyring *k, const char *path, struct lc_err *e);
/**
 * keyring_load(path, out, e):
 * Read it.  Returns 0; LC_EACCES where group or others have any right on it or it belongs to
 * somebody else; LC_ENOENT; LC_ECORRUPT; LC_EVERSION.
 */
int keyring_load(const char *path, struct keyring **out, struct lc_err *e);
#define KEYRING_IMAGE_MAX (256u << 10)
/**
 * keyring_image(k, out, e):
 * Replace what out holds by the bytes that the key file would have: id key, data keys and seals,
 * no seed.  keyring_from_image(image, out, e) reads them again: LC_ECORRUPT, LC_EVERSION.
 *
 * Secret: one allocation, which the caller wipes.
 */
int keyring_image(const struct keyring *k, struct lc_buf *out, struct lc_err *e);
int keyring_from_image(struct lc_span image, struct keyring **out, struct lc_err *e);
/**
 * keyring_wrap_passphrase(k, pass, n, out, e):
 * Append an Argon2id wrap of the recovery seed.  Takes most of a second and 256 MiB: not on the
 * loop thread.  LC_EKEY where k is a host's keyring, LC_EINVAL where n is 0.
 */
int keyring_wrap_passphrase(const struct keyring *k, const char *pass, size_t n, struct lc_buf *out,
                            struct lc_err *e);
/**
 * keyring_open_passphrase(keys, wrap, pass, n, out, e):
 * As keyring_open_code() with the passphrase.  LC_EKEY: wrong passphrase, or of another domain.
 * The wrap's cost is bounded (1 GiB, 16 passes) before it is paid.
 */
int keyring_open_passphrase(struct lc_span keys, struct lc_span wrap, const char *pass, size_t n,
                            struct keyring **out, struct lc_err *e);
/** keyring_encode(k, out, e): append the KEYS record payload (FORMAT.md "KEYS"). */
int keyring_encode(const struct keyring *k, struct lc_buf *out, struct lc_err *e);
/** keyring_domain(k): borrowed domain id, DOMAIN_ID_SIZE bytes. */
const uint8_t *keyring_domain(const struct keyring *k);
/** keyring_data_number(k): number of the newest data key (what new chunks are sealed with). */
uint32_t keyring_data_number(const struct keyring *k);
/** keyring_data(k, number): borrowed data key, or NULL. */
const uint8_t *keyring_data(const struct keyring *k, uint32_t number);
/** keyring_id(k): borrowed id key. */
const uint8_t *keyring_id(const struct keyring *k);
/** keyring_set(k): borrowed key of the set hash (derived from the id key). */
const uint8_t *keyring_set(const struct keyring *k);
/** keyring_domain_of(keys, id, e): domain id of a KEYS payload, without any key. */
int keyring_domain_of(struct lc_span keys, uint8_t id[DOMAIN_ID_SIZE], struct lc_err *e);
enum keys_change { KEYS_SAME = 0, KEYS_MORE, KEYS_FEWER };
/**
 * keyring_compare(have, given, change, e):
 * Two KEYS payloads, without any key: whether `given` has the same wraps, further data keys, or
 * lacks some.  Whether a further one is genuine shows only to who can open it.
 *
 * Returns  0; LC_EKEY: of another domain, another master or id key, another seal under a number
 * that both have, or each lacks what the other has; LC_ECORRUPT: malformed.
 */
int keyring_compare(struct lc_span have, struct lc_span given, enum keys_change *change,
                    struct lc_err *e);
/**
 * keyring_union(have, given, out, added, e):
 * Two KEYS payloads of one domain, without any key: append one that has the wraps of both; *added:
 * how many of them only `given` has.
 *
 * Returns  0; LC_EKEY: of another domain, another master or id key, two seals of one number, or too
 *          many; LC_ECORRUPT: malformed.
 */
int keyring_union(struct lc_span have, struct lc_span given, struct lc_buf *out, unsigned *added,
                  struct lc_err *e);
/**
 * keyring_rotate(k, e):
 * Start a new data key; the caller saves the keyring, then writes a KEYS record, then uses it.  Its
 * number is higher than all others, but not the next one: its upper 12 bits count the rotations,
 * the lower 20 are random, so that two writers that rotate at once do not take the same number.
 */
int keyring_rotate(struct keyring *k, struct lc_err *e);
/** keyring_free(k): wipe and free; NULL is fine. */
void keyring_free(struct keyring *k);

#endif

/**
 * recovery: the recovery seed of a domain as a code on paper and under a passphrase.
 *
 * The seed is 160 random bits.  The code is the seed in 32 characters of Crockford's base32 and a
 * check group of four, in groups of four with dashes.  The check is the seed, as a big-endian
 * number, times 2^20 modulo 1048517: any one or two wrong characters and any two swapped ones are
 * found for certain, of anything else one in a million passes.
 *
 * For keyring.c; everybody else uses keyring.h.  Secret: seeds and codes are wiped by the caller.
 */
#ifndef LOCUM_RECOVERY_H
#define LOCUM_RECOVERY_H

#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/keyring.h"

#define RECOVERY_SEED_SIZE 20u

/** recovery_code_write(seed, code): the code of a seed. */
void recovery_code_write(const uint8_t seed[RECOVERY_SEED_SIZE], char code[RECOVERY_CODE_MAX]);
/**
 * recovery_code_read(code, seed, e):
 * Lower case, spaces, any placing of dashes, O for 0 and I or L for 1 are accepted.
 *
 * Returns  0 or LC_EINVAL (mistyped), with a message that repeats nothing of the code.
 */
int recovery_code_read(const char *code, uint8_t seed[RECOVERY_SEED_SIZE], struct lc_err *e);

struct recovery_cost { /* of Argon2id */
	uint32_t passes;
	uint64_t memory;
};

/* What new wraps cost: about half a second. */
#define RECOVERY_COST ((struct recovery_cost){.passes = 3, .memory = 256u << 20})

/**
 * recovery_wrap(seed, domain, pass, n, cost, out, e):
 * Append the seed sealed under a passphrase of n bytes (FORMAT.md "Passphrase wrap").
 *
 * Returns  0; LC_EINVAL (empty passphrase, cost out of bounds); LC_ENOMEM.
 */
int recovery_wrap(const uint8_t seed[RECOVERY_SEED_SIZE], const uint8_t domain[DOMAIN_ID_SIZE],
                  const char *pass, size_t n, struct recovery_cost cost, struct lc_buf *out,
                  struct lc_err *e);
/**
 * recovery_unwrap(wrap, domain, pass, n, seed, e):
 * Open a wrap.  Its cost is refused above 1 GiB and 16 passes, before anything is computed.
 *
 * Returns  0; LC_EKEY (wrong passphrase, or a wrap of another domain); LC_ECORRUPT; LC_EVERSION;
 *          LC_ENOMEM.
 */
int recovery_unwrap(struct lc_span wrap, const uint8_t domain[DOMAIN_ID_SIZE], const char *pass,
                    size_t n, uint8_t seed[RECOVERY_SEED_SIZE], struct lc_err *e);

#endif

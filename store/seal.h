/**
 * seal: a window of plaintext into a CHUNK payload and back, and small sealed blobs.
 *
 * id = BLAKE2b-256(id key, plaintext window).  Encodings: whole (raw, zstd), or a delta against one
 * to four whole chunks.  Sealed with XChaCha20-Poly1305, random nonce; associated data binds
 * version, domain, key number, encoding, raw length, id and base ids (FORMAT.md "CHUNK").  An
 * opened chunk is hashed again: an id always names the plaintext.
 */
#ifndef LOCUM_SEAL_H
#define LOCUM_SEAL_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"
#include "store/base/memory.h"
#include "store/keyring.h"

#define WINDOW_SIZE 65536u
#define CHUNK_ID_SIZE 32u
#define CHUNK_HEAD_SIZE 40u /* id, raw length, number of bases, zeros */
#define SEAL_OVERHEAD 40u   /* nonce and tag */
#define CHUNK_PAYLOAD_MAX (CHUNK_HEAD_SIZE + 4u * CHUNK_ID_SIZE + SEAL_OVERHEAD + WINDOW_SIZE)

#define CHUNK_BASES_MAX 4u

enum chunk_encoding {
	CHUNK_RAW = 0,
	CHUNK_ZSTD = 1,
	CHUNK_RSYNC = 2,  /* a librsync delta against the bases, in a zstd frame */
	CHUNK_PREFIX = 3, /* a zstd frame with the bases as prefix */
};
/** chunk_is_delta(encoding): whether it takes bases to decode it. */
static inline bool
chunk_is_delta(uint8_t encoding)
{
	return encoding == CHUNK_RSYNC || encoding == CHUNK_PREFIX;
}

#define SEAL_LEVEL 2 /* by default */
/* With it: the level's own table of matches is four times as large as a processor's first cache;
 * this one fits, and takes a tenth less time for 0.6% more bytes. */
#define SEAL_TABLE_LOG 13

struct sealer; /* contexts of one thread: zstd both ways, scratch; not shared */

/**
 * sealer_new(k, level, out, e):
 * Borrows the keyring; level is zstd's.  Some 550 KiB at SEAL_LEVEL, taken here; what deltas need
 * on top of that is taken with the first one.
 */
int sealer_new(const struct keyring *k, int level, struct sealer **out, struct lc_err *e);
/** sealer_free(s): wipe and free; NULL is fine. */
void sealer_free(struct sealer *s);

/** seal_id(k, window, id): the id of WINDOW_SIZE bytes.  Thread: any. */
void seal_id(const struct keyring *k, const uint8_t *window, uint8_t id[CHUNK_ID_SIZE]);
/** seal_ids(k, windows, n, ids): of n of them; several at once take a third of the time
 * (idhash.h). */
void seal_ids(const struct keyring *k, const uint8_t *const *windows, size_t n,
              uint8_t (*ids)[CHUNK_ID_SIZE]);
/** seal_sum(encoding, key, payload, sum): a hash over a chunk as it is stored. */
void seal_sum(uint8_t encoding, uint32_t key, struct lc_span payload, uint8_t sum[32]);
/** seal_mix(n, id, out): another id, which nobody can aim at.  No key is in it. */
void seal_mix(uint16_t n, const uint8_t id[CHUNK_ID_SIZE], uint8_t out[CHUNK_ID_SIZE]);
/**
 * seal_chunk(s, window, id, payload, n, encoding, key_number, e):
 * Make a CHUNK payload (at most CHUNK_PAYLOAD_MAX bytes at payload).  Compressed only where that
 * saves at least 3%.  No allocation.  LC_EKEY where the keyring has no data key.
 */
int seal_chunk(struct sealer *s, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE],
               uint8_t *payload, size_t *n, uint8_t *encoding, uint32_t *key_number,
               struct lc_err *e);
/** seal_layer(s, window, id, payload, n, encoding, key_number, e):
 * As seal_chunk(), of a layer (layer.h): some levels higher, as most of it is zeros. */
int seal_layer(struct sealer *s, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE],
               uint8_t *payload, size_t *n, uint8_t *encoding, uint32_t *key_number,
               struct lc_err *e);
/* What a delta is made against: at least one of plain and signature. */
struct chunk_bases {
	size_t n;
	const uint8_t *ids;   /* [n * CHUNK_ID_SIZE] */
	const uint8_t *plain; /* [n * WINDOW_SIZE], or NULL where the bytes are not at hand ... */
	struct lc_span signature; /* ... of all of them, one after the other (delta.h) */
};
/**
 * seal_delta(s, window, id, bases, max, payload, n, encoding, key_number, e):
 * Make a CHUNK payload that is a delta: with zstd where the bases' bytes are at hand, else with
 * librsync.  *n = 0 where it would take over max bytes.
 */
int seal_delta(struct sealer *s, const uint8_t *window, const uint8_t id[CHUNK_ID_SIZE],
               const struct chunk_bases *bases, size_t max, uint8_t *payload, size_t *n,
               uint8_t *encoding, uint32_t *key_number, struct lc_err *e);
/**
 * open_chunk(s, payload, encoding, key_number, window, id_out, e):
 * Parse, authenticate, decode to window[WINDOW_SIZE] and check the id.  No allocation.
 *
 * Returns  0; LC_ECORRUPT (malformed, not authentic, or id differs); LC_EKEY (no such data key);
 *          LC_EVERSION (an encoding that this version does not know); LC_ECONFLICT: it is a delta.
 *          On failure nothing of the content is in window, and id_out is as it was.
 */
int open_chunk(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
               uint8_t *window, uint8_t id_out[CHUNK_ID_SIZE], struct lc_err *e);
/**
 * open_base(s, payload, encoding, key_number, window, e):
 * The same without a look whether the content is what the id names, which is half of the work: for
 * the base of a delta that is opened with it, whose own id shows whether that was right.
 */
int open_base(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
              uint8_t *window, struct lc_err *e);
/**
 * open_delta(s, payload, encoding, key_number, bases, window, id_out, e):
 * The same as open_chunk() for a delta: bases[n * WINDOW_SIZE] are the contents that
 * chunk_payload_bases() names, in that order.  id_out may be NULL: then whoever calls compares the
 * content with its id.
 */
int open_delta(struct sealer *s, struct lc_span payload, uint8_t encoding, uint32_t key_number,
               const uint8_t *bases, uint8_t *window, uint8_t id_out[CHUNK_ID_SIZE],
               struct lc_err *e);
/** chunk_payload_bases(payload, n): the ids of the bases in a payload that chunk_payload_ok();
 * borrowed. */
const uint8_t *chunk_payload_bases(struct lc_span payload, size_t *n);
/** chunk_payload_ok(payload, encoding): whether it has the structure of a payload of that encoding;
 * no key needed. */
bool chunk_payload_ok(struct lc_span payload, uint8_t encoding);
/** chunk_payload_id(payload): borrowed id in a payload, or NULL where it is too short. */
const uint8_t *chunk_payload_id(struct lc_span payload);

/**
 * seal_blob(k, ad, plain, out, e):
 * A small blob (point header, VM name): u32 key number, nonce, ciphertext and tag.  ad is bound,
 * not stored.  Appends to *out; on failure *out is as it was.
 */
int seal_blob(const struct keyring *k, struct lc_span ad, struct lc_span plain, struct lc_buf *out,
              struct lc_err *e);
/** open_blob(k, ad, sealed, out, e): append its plaintext.  LC_ECORRUPT, LC_EKEY, LC_ENOMEM. */
int open_blob(const struct keyring *k, struct lc_span ad, struct lc_span sealed, struct lc_buf *out,
              struct lc_err *e);

#define SEAL_TAG_KEY 16u
/** seal_tag_key(k, key): of the tags of a key domain; from its id key.  Secret: 16 bytes, which the
 * caller wipes. */
void seal_tag_key(const struct keyring *k, uint8_t key[SEAL_TAG_KEY]);
/** seal_tag(key, bytes): 64 bits that tell nothing of the bytes to who has not the key. */
uint64_t seal_tag(const uint8_t key[SEAL_TAG_KEY], struct lc_span bytes);

/**
 * The set hashes over a map: a sum mod 2^256 of a hash of each row (disk id, window, chunk id; the
 * chunk id is all zeros for a row that says zero).
 *
 * With the key it cannot be forged.  Without, it finds faults, not forgers: somebody who may choose
 * ids can make rows that add up to a given sum with some 2^32 work.
 */
struct set_sum {
	uint8_t v[32]; /* little-endian number */
};
/** set_row(key, disk, window, id, out): hash of one row; key is NULL for the keyless sum. */
void set_row(const uint8_t *key, const uint8_t disk[16], uint64_t window,
             const uint8_t id[CHUNK_ID_SIZE], struct set_sum *out);
/** set_add(a, b), set_sub(a, b): a += b, a -= b. */
void set_add(struct set_sum *a, const struct set_sum *b);
void set_sub(struct set_sum *a, const struct set_sum *b);

#endif

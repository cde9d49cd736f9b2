/**
 * keyring_internal: what the files of keyring.h share.  Not for others.
 */
#ifndef LOCUM_KEYRING_INTERNAL_H
#define LOCUM_KEYRING_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/base/bytes.h"
#include "store/keyring.h"
#include "store/recovery.h"

#define BOX_SIZE 112u /* crypto_box_SEALBYTES + a key + its tag */
#define WRAPS_MAX 1000u
#define DATA_MAX (WRAPS_MAX - 2u)
#define WRAP_HEAD 8u
#define WRAP_OTHER_MAX 1024u /* longest wrap of a kind that we do not know */
#define KEYS_HEAD 50u

enum wrap_kind { WRAP_MASTER = 1, WRAP_ID = 2, WRAP_DATA = 3 };

struct wrap {
	uint8_t kind;
	uint32_t number;
	uint8_t box[BOX_SIZE];
};

struct secrets { /* in sodium_malloc memory */
	uint8_t seed[RECOVERY_SEED_SIZE];
	uint8_t box_secret[KEY_SIZE];
	uint8_t auth[KEY_SIZE]; /* of the tags of master and id key; derived from the seed */
	uint8_t master[KEY_SIZE];
	uint8_t id[KEY_SIZE];
	uint8_t set[KEY_SIZE];
	uint8_t data[DATA_MAX][KEY_SIZE]; /* never moved: keyring_data() lends them */
};

struct keyring {
	uint8_t domain[DOMAIN_ID_SIZE];
	uint8_t recovery[KEY_SIZE]; /* public */
	bool has_seed;
	struct secrets *s;
	uint32_t numbers[DATA_MAX];
	atomic_uint ndata; /* raised after the key is in place, for readers on other threads */
	_Atomic uint32_t newest;
	unsigned nwraps;
	struct wrap wraps[WRAPS_MAX]; /* ascending by kind, then number */
};

struct wrap_view { /* borrowed from a KEYS payload */
	uint8_t kind;
	uint32_t number;
	const uint8_t *box;
	uint16_t n;
};

struct keys_view { /* a KEYS payload that is well-formed */
	uint8_t domain[DOMAIN_ID_SIZE];
	uint8_t recovery[KEY_SIZE];
	unsigned nwraps;
	struct lc_rd wraps;
};

/** keyring_alloc(e): an empty one, or NULL. */
struct keyring *keyring_alloc(struct lc_err *e);
/** keyring_keep_wrap(k, kind, number, box): the caller has made sure that there is room. */
void keyring_keep_wrap(struct keyring *k, uint8_t kind, uint32_t number,
                       const uint8_t box[BOX_SIZE]);
/** keyring_keep_data(k, number, key): likewise. */
void keyring_keep_data(struct keyring *k, uint32_t number, const uint8_t key[KEY_SIZE]);
/** keyring_keep_id(k, key): the id key, and what is derived from it. */
void keyring_keep_id(struct keyring *k, const uint8_t key[KEY_SIZE]);
/** keys_parse(keys, v, e): LC_ECORRUPT where it is no KEYS payload; v->wraps is read with
 * wrap_next(), which is true for each of v->nwraps then. */
int keys_parse(struct lc_span keys, struct keys_view *v, struct lc_err *e);
bool wrap_next(struct lc_rd *r, struct wrap_view *w);
/** wrap_step(v, w): the next wrap of a parsed payload, which has one less then; false: none. */
bool wrap_step(struct keys_view *v, struct wrap_view *w);
/** wrap_order(kind, number, kind2, number2): below 0, 0, above 0: as wraps ascend. */
int wrap_order(uint8_t kind_a, uint32_t number_a, uint8_t kind_b, uint32_t number_b);

#endif

/**
 * vector_keyring: the keys that another implementation made (vectors_keys.py), opened.
 */
#ifndef LOCUM_TESTS_VECTOR_KEYRING_H
#define LOCUM_TESTS_VECTOR_KEYRING_H

#include "store/base/memory.h"
#include "store/keyring.h"

/** vector_keyring(): by its code; asserts. */
struct keyring *vector_keyring(void);
/** vector_encode(k, out): its KEYS payload; asserts. */
void vector_encode(const struct keyring *k, struct lc_buf *out);

#endif

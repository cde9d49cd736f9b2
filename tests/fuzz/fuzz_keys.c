/*
 * keys: a KEYS record, a host's key file, a passphrase wrap or a recovery code.  What is taken
 * holds no id key that the domain does not have, and is written again as it was read.
 *
 * The first byte says what the rest is.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/keyring.h"
#include "store/recovery.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/vectors_keys.h"

enum { KEYS_ASIS, KEYS_OF_DOMAIN, FILE_ASIS, FILE_SUMMED, PASSPHRASE, CODE };

static const struct lc_span vector_span = {vector_keys, sizeof vector_keys};

static void
check_keyring(const struct keyring *k)
{
	uint8_t domain[DOMAIN_ID_SIZE];
	struct lc_buf once = {0};
	struct lc_err e = LC_ERR_INIT;

	fuzz_check(keyring_encode(k, &once, &e) == 0);
	fuzz_check(keyring_domain_of((struct lc_span){once.p, once.n}, domain, &e) == 0);
	fuzz_check(memcmp(domain, keyring_domain(k), sizeof domain) == 0);
	fuzz_check(keyring_data_number(k) != 0);
	fuzz_check(keyring_data(k, keyring_data_number(k)) != NULL);
	lc_buf_free(&once);
}

static void
fuzz_keys(struct lc_span keys)
{
	struct keyring *k = NULL;
	struct lc_err e = LC_ERR_INIT;
	uint8_t domain[DOMAIN_ID_SIZE];
	int rc, of;

	of = keyring_domain_of(keys, domain, &e);
	fuzz_check(of == 0 || of == LC_ECORRUPT);
	lc_err_clear(&e);
	rc = keyring_open_code(keys, VECTOR_CODE, &k, &e);
	fuzz_check(rc == e.code && (rc == 0) == (k != NULL));
	fuzz_check(rc == 0 || rc == LC_ECORRUPT || (rc == LC_EKEY && of == 0));
	if (k == NULL)
		return;
	fuzz_check(memcmp(keyring_id(k), vector_id_key, KEY_SIZE) == 0);
	check_keyring(k);
	fuzz_check(keyring_add(k, keys, &e) == 0);
	fuzz_check(keyring_add(k, vector_span, &e) == 0);
	fuzz_check(memcmp(keyring_data(k, 1), vector_data_key, KEY_SIZE) == 0);
	keyring_free(k);
}

static void
fuzz_file(const uint8_t *p, size_t n)
{
	struct keyring *k = NULL;
	struct lc_err e = LC_ERR_INIT;
	char path[64];
	int rc, fd;

	fd = memfd_create("keys", MFD_CLOEXEC);
	fuzz_check(fd >= 0 && fchmod(fd, 0600) == 0);
	fuzz_check(file_pwrite_full(fd, p, n, 0, "keys", &e) == 0);
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	rc = keyring_load(path, &k, &e);
	fuzz_check(rc == e.code && (rc == 0) == (k != NULL));
	fuzz_check(rc == 0 || rc == LC_ECORRUPT || rc == LC_EVERSION);
	if (k != NULL)
		check_keyring(k);
	keyring_free(k);
	(void)close(fd);
}

/* With the length and the checksum that it should have, so that what is behind them is reached. */
static void
fuzz_summed_file(const uint8_t *p, size_t n)
{
	struct lc_buf b = {0};

	if (n < 52)
		return;
	fuzz_check(lc_buf_append(&b, p, n) == 0);
	memcpy(b.p, "LOCUMKEY\1\0", 10);
	lc_put32(b.p + 12, (uint32_t)n);
	(void)crypto_generichash(b.p + n - 32, 32, b.p, n - 32, NULL, 0);
	fuzz_file(b.p, n);
	lc_buf_free(&b);
}

static void
fuzz_passphrase(struct lc_span wrap)
{
	struct keyring *k = NULL;
	struct lc_err e = LC_ERR_INIT;
	int rc;

	/* What is within the bounds may still cost a gigabyte; only the cheap ones are paid for. */
	if (wrap.n >= 24 && lc_get32(wrap.p + 12) <= 16 && lc_get64(wrap.p + 16) <= 1u << 30 &&
	    (lc_get32(wrap.p + 12) > 2 || lc_get64(wrap.p + 16) > 65536))
		return;
	rc = keyring_open_passphrase(vector_span, wrap, "pw", 2, &k, &e);
	fuzz_check(rc == e.code && (rc == 0) == (k != NULL));
	fuzz_check(rc == 0 || rc == LC_ECORRUPT || rc == LC_EVERSION || rc == LC_EKEY);
	if (k != NULL)
		fuzz_check(memcmp(keyring_id(k), vector_id_key, KEY_SIZE) == 0);
	keyring_free(k);
}

static void
fuzz_code(const uint8_t *p, size_t n)
{
	uint8_t seed[RECOVERY_SEED_SIZE], again[RECOVERY_SEED_SIZE];
	char text[256], code[RECOVERY_CODE_MAX];
	struct lc_err e = LC_ERR_INIT;

	if (n >= sizeof text)
		return;
	memcpy(text, p, n);
	text[n] = '\0';
	if (recovery_code_read(text, seed, &e) != 0) {
		fuzz_check(e.code == LC_EINVAL);
		return;
	}
	recovery_code_write(seed, code);
	fuzz_check(recovery_code_read(code, again, &e) == 0);
	fuzz_check(memcmp(seed, again, sizeof seed) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct lc_buf b = {0};

	fuzz_check(sodium_init() >= 0);
	if (n == 0)
		return 0;
	switch (p[0]) {
	case KEYS_ASIS:
		fuzz_keys((struct lc_span){p + 1, n - 1});
		break;
	case KEYS_OF_DOMAIN:
		fuzz_check(lc_buf_append(&b, vector_keys, 48) == 0);
		fuzz_check(lc_buf_append(&b, p + 1, n - 1) == 0);
		fuzz_keys((struct lc_span){b.p, b.n});
		break;
	case FILE_ASIS:
		fuzz_file(p + 1, n - 1);
		break;
	case FILE_SUMMED:
		fuzz_summed_file(p + 1, n - 1);
		break;
	case PASSPHRASE:
		fuzz_passphrase((struct lc_span){p + 1, n - 1});
		break;
	case CODE:
		fuzz_code(p + 1, n - 1);
		break;
	default:
		break;
	}
	lc_buf_free(&b);
	return 0;
}

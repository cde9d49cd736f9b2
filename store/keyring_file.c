/*
 * A keyring without its seed, as bytes: the host's key file, and the same image elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/keyring_internal.h"

#define FILE_VERSION 1u
#define FILE_HEAD 20u /* magic, version, zero, length of the file, length of KEYS */
#define FILE_SUM 32u
#define FILE_MAX 524288u

static const char file_magic[8] = "LOCUMKEY";

static void
file_sum(uint8_t sum[FILE_SUM], const uint8_t *p, size_t n)
{
	(void)crypto_generichash(sum, FILE_SUM, p, n, NULL, 0);
}

/* Fills k from the file's parts behind its head; k is fresh. */
static int
file_decode(struct keyring *k, struct lc_span keys, struct lc_rd *r, struct lc_err *e)
{
	struct keys_view v;
	struct wrap_view w;
	unsigned i, n;
	int rc;

	rc = keys_parse(keys, &v, e);
	if (rc != 0)
		return rc;
	memcpy(k->domain, v.domain, DOMAIN_ID_SIZE);
	memcpy(k->recovery, v.recovery, KEY_SIZE);
	for (i = 0; i < v.nwraps; i++) {
		if (wrap_next(&v.wraps, &w) && w.kind <= WRAP_DATA)
			keyring_keep_wrap(k, w.kind, w.number, w.box);
	}
	lc_rd_copy(r, k->s->id, KEY_SIZE);
	keyring_keep_id(k, k->s->id);
	n = lc_rd16(r);
	for (i = 0; i < n && i < DATA_MAX && lc_rd_ok(r); i++) {
		uint32_t number = lc_rd32(r);
		const uint8_t *key = lc_rd_bytes(r, KEY_SIZE);

		if (key == NULL || number == 0 || keyring_data(k, number) != NULL)
			break;
		keyring_keep_data(k, number, key);
	}
	if (!lc_rd_end(r) || i != n || n == 0)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed keys");
	return 0;
}

static int
file_parse(struct keyring *k, const uint8_t *p, size_t n, struct lc_err *e)
{
	uint8_t sum[FILE_SUM];
	struct lc_span keys;
	struct lc_rd r;

	if (n < FILE_HEAD + FILE_SUM || memcmp(p, file_magic, sizeof file_magic) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "not a Locum key file");
	if (lc_get16(p + 8) != FILE_VERSION) {
		return lc_fail(e, LC_EVERSION, 0, "version %u, this Locum knows %u",
		               lc_get16(p + 8), FILE_VERSION);
	}
	file_sum(sum, p, n - FILE_SUM);
	if (lc_get32(p + 12) != n || memcmp(sum, p + n - FILE_SUM, FILE_SUM) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "cut or damaged");
	r = lc_rd_over(p + FILE_HEAD, n - FILE_HEAD - FILE_SUM);
	keys.n = lc_get32(p + 16);
	keys.p = lc_rd_bytes(&r, keys.n);
	if (keys.p == NULL || lc_get16(p + 10) != 0)
		return lc_fail(e, LC_ECORRUPT, 0, "malformed");
	return file_decode(k, keys, &r, e);
}

static int
file_check_access(const struct stat *st, const char *path, struct lc_err *e)
{
	if (!S_ISREG(st->st_mode))
		return lc_fail(e, LC_EACCES, 0, "key file %s: not a regular file", path);
	if (st->st_uid != geteuid() && st->st_uid != 0) {
		return lc_fail(e, LC_EACCES, 0, "key file %s: belongs to uid %u; chown it to root",
		               path, (unsigned)st->st_uid);
	}
	if ((st->st_mode & 077) != 0) {
		return lc_fail(e, LC_EACCES, 0,
		               "key file %s: mode %04o lets others at it; chmod it to 0600", path,
		               (unsigned)(st->st_mode & 07777));
	}
	if (st->st_size > FILE_MAX)
		return lc_fail(e, LC_ECORRUPT, 0, "key file %s: too long", path);
	return 0;
}

int
keyring_load(const char *path, struct keyring **out, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct keyring *k = NULL;
	uint8_t *p = NULL;
	struct stat st;
	size_t n;
	int fd, rc;

	*out = NULL;
	/* Non-blocking, so that a fifo in its place does not hang us. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return lc_fail_errno(e, "key file %s: open", path);
	if (fstat(fd, &st) != 0) {
		rc = lc_fail_errno(e, "key file %s: stat", path);
		goto out;
	}
	rc = file_check_access(&st, path, e);
	if (rc != 0)
		goto out;
	k = keyring_alloc(e);
	if (k == NULL) {
		rc = LC_ENOMEM;
		goto out;
	}
	n = (size_t)st.st_size;
	p = sodium_malloc(n + 1);
	if (p == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "key file %s: out of locked memory", path);
		goto out;
	}
	rc = file_pread_full(fd, p, n, 0, path, e);
	if (rc == 0 && file_parse(k, p, n, &err) != 0)
		rc = lc_fail(e, err.code, 0, "key file %s: %s", path, err.msg);
out:
	(void)close(fd);
	sodium_free(p);
	if (rc != 0) {
		keyring_free(k);
		return rc;
	}
	*out = k;
	return 0;
}

/* What stands at path may be replaced: it is of our domain and has no key that we lack. */
static int
file_check_old(const struct keyring *k, const char *path, bool *there, struct lc_err *e)
{
	struct keyring *old = NULL;
	struct lc_err err = LC_ERR_INIT;
	unsigned i;
	int rc;

	*there = true;
	rc = keyring_load(path, &old, &err);
	if (rc == LC_ENOENT) {
		*there = false;
		return 0;
	}
	if (old == NULL) {
		return lc_fail(e, LC_EEXIST, 0, "will not replace what cannot be read: %s",
		               err.msg);
	}
	if (memcmp(old->domain, k->domain, DOMAIN_ID_SIZE) != 0) {
		rc = lc_fail(e, LC_EEXIST, 0,
		             "key file %s: holds the keys of another domain; move it away first",
		             path);
	}
	for (i = 0; rc == 0 && i < atomic_load(&old->ndata); i++) {
		if (keyring_data(k, old->numbers[i]) == NULL) {
			rc = lc_fail(e, LC_ECONFLICT, 0,
			             "key file %s: holds data key %u, which would be lost; load it "
			             "again",
			             path, old->numbers[i]);
		}
	}
	keyring_free(old);
	return rc;
}

static int
file_make_dir(const char *path, struct lc_err *e)
{
	char *dir = path_dirname(path);
	int rc;

	if (dir == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "key file %s: out of memory", path);
	rc = dir_make(dir, 0700, e);
	lc_free(dir);
	return rc;
}

/* In sodium_malloc memory, *n bytes; NULL: failed. */
static uint8_t *
image_make(const struct keyring *k, size_t *n, struct lc_err *e)
{
	unsigned i, ndata = atomic_load(&k->ndata);
	struct lc_buf keys = {0};
	uint8_t *p, *to;

	if (keyring_encode(k, &keys, e) != 0)
		return NULL;
	*n = FILE_HEAD + keys.n + KEY_SIZE + 2 + (size_t)ndata * (4 + KEY_SIZE) + FILE_SUM;
	p = sodium_malloc(*n);
	if (p == NULL) {
		(void)lc_fail(e, LC_ENOMEM, 0, "keys: out of locked memory");
		lc_buf_free(&keys);
		return NULL;
	}
	memcpy(p, file_magic, sizeof file_magic);
	lc_put16(p + 8, FILE_VERSION);
	lc_put16(p + 10, 0);
	lc_put32(p + 12, (uint32_t)*n);
	lc_put32(p + 16, (uint32_t)keys.n);
	to = p + FILE_HEAD;
	memcpy(to, keys.p, keys.n);
	to += keys.n;
	memcpy(to, k->s->id, KEY_SIZE);
	to += KEY_SIZE;
	lc_put16(to, (uint16_t)ndata);
	to += 2;
	for (i = 0; i < ndata; i++, to += 4 + KEY_SIZE) {
		lc_put32(to, k->numbers[i]);
		memcpy(to + 4, k->s->data[i], KEY_SIZE);
	}
	file_sum(to, p, (size_t)(to - p));
	lc_buf_free(&keys);
	return p;
}

int
keyring_save(const struct keyring *k, const char *path, struct lc_err *e)
{
	uint8_t *p = NULL;
	bool there;
	size_t n;
	int rc;

	rc = file_check_old(k, path, &there, e);
	if (rc == 0)
		rc = file_make_dir(path, e);
	if (rc != 0)
		return rc;
	p = image_make(k, &n, e);
	if (p == NULL)
		return LC_ENOMEM;
	if (there)
		rc = file_write_atomic(path, p, n, 0600, e);
	else
		rc = file_write_new(path, p, n, 0600, e);
	sodium_free(p);
	return rc;
}

int
keyring_image(const struct keyring *k, struct lc_buf *out, struct lc_err *e)
{
	size_t n;
	uint8_t *p = image_make(k, &n, e);
	int rc = 0;

	if (p == NULL)
		return LC_ENOMEM;
	out->n = 0;
	if (lc_buf_reserve(out, n) != 0 || lc_buf_append(out, p, n) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "keys: out of memory");
	sodium_free(p);
	return rc;
}

int
keyring_from_image(struct lc_span image, struct keyring **out, struct lc_err *e)
{
	struct keyring *k = keyring_alloc(e);
	int rc;

	*out = NULL;
	if (k == NULL)
		return LC_ENOMEM;
	rc = file_parse(k, image.p, image.n, e);
	if (rc != 0) {
		keyring_free(k);
		return rc;
	}
	*out = k;
	return 0;
}

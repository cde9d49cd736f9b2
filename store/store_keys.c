/*
 * The key that opens a store: from the host's key file, the recovery code or the passphrase.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/commit.h"
#include "store/store_internal.h"
#include "store/transfer.h"
#include "store/unlocked.h"

int
store_read_passphrase(const char *path, struct lc_buf *out, struct lc_err *e)
{
	int rc = file_read_all(path, 4096, out, e);

	if (rc != 0) {
		lc_wrap(e, "passphrase");
		return rc;
	}
	while (out->n > 0 && (out->p[out->n - 1] == '\n' || out->p[out->n - 1] == '\r'))
		out->n--;
	if (out->n == 0)
		return lc_fail(e, LC_EINVAL, 0, "passphrase file %s is empty", path);
	return 0;
}

char *
store_key_path(const char *key_dir, const uint8_t domain[16])
{
	char hex[33];

	return lc_asprintf("%s/%s.key", key_dir, lc_hex(hex, domain, 16));
}

/* The text of a passphrase, from wherever it is. */
static int
take_passphrase(const struct store_opts *o, struct lc_buf *pass, struct lc_err *e)
{
	if (o->passphrase == NULL)
		return store_read_passphrase(o->passphrase_file, pass, e);
	return lc_buf_append(pass, o->passphrase, strlen(o->passphrase)) == 0
	           ? 0
	           : lc_fail(e, LC_ENOMEM, 0, "out of memory");
}

static int
open_with(struct store *s, const struct store_opts *o, struct lc_span keys, struct lc_err *e)
{
	struct lc_buf pass = {0}, wrap = {0};
	char *path;
	int rc;

	if (o->recovery_code != NULL)
		return keyring_open_code(keys, o->recovery_code, &s->keyring, e);
	path = path_join(s->dir, STORE_PASSPHRASE_FILE);
	rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                  : file_read_all(path, 4096, &wrap, NULL);
	if (rc != 0 && o->passphrase != NULL)
		rc = lc_fail(e, LC_EKEY, 0,
		             "that is no recovery code, and store %s has no passphrase", s->dir);
	else if (rc != 0)
		rc = lc_fail(e, LC_EKEY, 0,
		             "store %s has no passphrase: use the recovery code of its kit "
		             "(--recovery-code-file)",
		             s->dir);
	rc = rc != 0 ? rc : take_passphrase(o, &pass, e);
	rc = rc != 0 ? rc
	             : keyring_open_passphrase(keys, (struct lc_span){wrap.p, wrap.n},
	                                       (const char *)pass.p, pass.n, &s->keyring, e);
	if (pass.p != NULL)
		explicit_bzero(pass.p, pass.cap);
	lc_buf_free(&pass);
	lc_buf_free(&wrap);
	lc_free(path);
	return rc;
}

/* With the code or the passphrase.  The newest segment whose seals open gives the keyring; the
 * others add data keys that a writer had who did not know of all. */
static int
open_seals(struct store *s, const struct store_opts *o, struct lc_err *e)
{
	struct lc_err err = LC_ERR_INIT;
	struct segment_info *list;
	struct lc_buf keys = {0};
	char hex[33];
	size_t n, i;
	int rc;

	rc = segments_list(s->segments, &list, &n, e);
	if (rc != 0)
		return rc;
	for (i = n; i > 0 && (rc == 0 || rc == LC_ECORRUPT); i--) {
		struct lc_span span;

		keys.n = 0;
		if (segment_keys(s->segments, &list[i - 1], &keys, NULL) != 0)
			continue;
		span = (struct lc_span){keys.p, keys.n};
		lc_err_clear(&err);
		if (s->keyring == NULL)
			rc = open_with(s, o, span, &err);
		else if (keyring_add(s->keyring, span, &err) != 0)
			log_warn("store %s: keys of segment %016" PRIx64 ": %s", s->dir,
			         list[i - 1].no, err.msg);
	}
	lc_free(list);
	lc_buf_free(&keys);
	if (s->keyring != NULL)
		return 0;
	if (rc == LC_EKEY && o->recovery_code != NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s is of key domain %s: %s", s->dir,
		               lc_hex(hex, s->domain, 16), err.msg);
	if (rc != 0)
		return lc_fail(e, (enum lc_code)rc, 0, "%s", err.msg);
	return lc_fail(e, LC_ECORRUPT, 0, "store %s: no segment has readable keys", s->dir);
}

/* The machine's: its key file, else what was unlocked. */
static int
open_machine(struct store *s, const char *key_dir, struct lc_err *e)
{
	char *path = store_key_path(key_dir, s->domain);
	char hex[33];
	int rc;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = keyring_load(path, &s->keyring, e);
	if (rc == 0 && memcmp(keyring_domain(s->keyring), s->domain, 16) != 0) {
		rc = lc_fail(e, LC_EKEY, 0, "key file %s is not of key domain %s", path,
		             lc_hex(hex, s->domain, 16));
	} else if (rc == LC_ENOENT) {
		lc_err_clear(e);
		rc = unlocked_get(s->domain, &s->keyring, e);
	}
	if (rc == LC_ENOENT) {
		lc_err_clear(e);
		rc = lc_fail(e, LC_EKEY, 0,
		             "no key for store %s on this host (%s is not there, nor is it "
		             "unlocked): the recovery code of its kit reads it "
		             "(--recovery-code-file, or locum unlock), and makes the key file "
		             "again (locum key recover)",
		             s->dir, path);
	}
	lc_free(path);
	return rc;
}

int
store_open_keys(struct store *s, const struct store_opts *o, struct lc_err *e)
{
	int rc;

	if (o->no_key)
		return 0;
	if (o->recovery_code != NULL || o->passphrase != NULL || o->passphrase_file != NULL)
		return open_seals(s, o, e);
	if (o->key_image.n == 0 && o->key_dir == NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s: no key given", s->dir);
	if (o->key_image.n == 0)
		return open_machine(s, o->key_dir, e);
	rc = keyring_from_image(o->key_image, &s->keyring, e);
	if (rc == 0 && memcmp(keyring_domain(s->keyring), s->domain, 16) != 0)
		rc = lc_fail(e, LC_EKEY, 0, "the keys given are of another key domain");
	return rc;
}

int
store_unlock(const struct store *s, int64_t for_ns, struct lc_err *e)
{
	if (s->keyring == NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s: no key", s->dir);
	return unlocked_put(s->keyring, for_ns, e);
}

int
store_key_image(const struct store *s, struct lc_buf *out, struct lc_err *e)
{
	if (s->keyring == NULL)
		return lc_fail(e, LC_EKEY, 0, "store %s: no key", s->dir);
	return keyring_image(s->keyring, out, e);
}

int
store_key(const char *dir, const char *key_dir, struct store_key *out, struct lc_err *e)
{
	struct store *s = lc_alloc(sizeof *s);
	struct lc_err err = LC_ERR_INIT;
	struct keyring *k = NULL;
	char *path = NULL, *wrap = path_join(dir, STORE_PASSPHRASE_FILE);
	int rc = 0;

	memset(out, 0, sizeof *out);
	if (s != NULL) {
		s->dir = lc_strdup(dir);
		s->segments_dir = path_join(dir, "segments");
	}
	if (s == NULL || wrap == NULL || s->dir == NULL || s->segments_dir == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc : store_identity_read(s, e);
	path = rc != 0 ? NULL : store_key_path(key_dir, s->domain);
	if (rc == 0 && path == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (rc == 0 && path != NULL && wrap != NULL && s != NULL) {
		(void)lc_hex(out->store, s->id, 16);
		(void)lc_hex(out->domain, s->domain, 16);
		memcpy(out->domain_id, s->domain, 16);
		(void)snprintf(out->file, sizeof out->file, "%s", path);
		out->passphrase = access(wrap, F_OK) == 0;
		out->opens = keyring_load(path, &k, &err) == 0 && k != NULL &&
		             memcmp(keyring_domain(k), s->domain, 16) == 0;
		if (k != NULL)
			out->data_key = keyring_data_number(k);
		if (!out->opens)
			(void)snprintf(out->why, sizeof out->why, "%s",
			               err.code == LC_OK ? "it is of another key domain" : err.msg);
	}
	keyring_free(k);
	lc_free(path);
	lc_free(wrap);
	if (s != NULL) {
		lc_free(s->dir);
		lc_free(s->segments_dir);
	}
	lc_free(s);
	return rc;
}

/* What every segment begins with.  A host without the key copies the newest there is. */
int
transfer_keys(struct store *s, struct lc_buf *keys, struct lc_err *e)
{
	struct segment_info *list;
	size_t n, i;
	int rc;

	if (s->keyring != NULL)
		return keyring_encode(s->keyring, keys, e);
	rc = segments_list(s->segments, &list, &n, e);
	if (rc != 0)
		return rc;
	for (i = n; i > 0 && keys->n == 0; i--)
		(void)segment_keys(s->segments, &list[i - 1], keys, NULL);
	lc_free(list);
	return keys->n > 0
	           ? 0
	           : lc_fail(e, LC_ECORRUPT, 0, "store %s: no segment has readable keys", s->dir);
}

/* Nothing is in it but that the segment which begins with the keys is durable. */
static int
build_nothing(void *arg, struct lc_buf *payload, struct lc_err *e)
{
	(void)arg;
	return commit_start(payload, clock_wall_ns(), e);
}

static int
begin_with(struct store *s, struct lc_span keys, struct lc_err *e)
{
	int rc = segments_rekey(s->segments, keys, e);

	(void)failpoint("store.rekey.sealed");
	return rc != 0 ? rc : store_commit(s, build_nothing, NULL, e);
}

int
transfer_take_keys(struct store *s, struct lc_span keys, enum keys_change *change, struct lc_err *e)
{
	struct lc_buf ours = {0};
	int rc = transfer_keys(s, &ours, e);

	rc = rc != 0 ? rc : keyring_compare((struct lc_span){ours.p, ours.n}, keys, change, e);
	if (rc == 0 && *change == KEYS_MORE && s->writable)
		rc = begin_with(s, keys, e);
	lc_buf_free(&ours);
	return rc;
}

int
transfer_join_keys(struct store *s, struct lc_span keys, unsigned max, unsigned *added,
                   struct lc_err *e)
{
	struct lc_buf ours = {0}, all = {0};
	int rc = transfer_keys(s, &ours, e);

	rc = rc != 0 ? rc : keyring_union((struct lc_span){ours.p, ours.n}, keys, &all, added, e);
	if (rc == 0 && *added > max)
		rc = lc_fail(e, LC_EKEY, 0, "keys: %u data keys that nobody else has", *added);
	if (rc == 0 && *added > 0)
		rc = begin_with(s, (struct lc_span){all.p, all.n}, e);
	lc_buf_free(&ours);
	lc_buf_free(&all);
	return rc;
}

int
store_rotate(struct store *s, const char *key_dir, struct lc_err *e)
{
	char *path = store_key_path(key_dir, s->domain);
	struct lc_buf keys = {0};
	int rc = 0;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	/* Not where the keys are only unlocked: that machine is to hold none. */
	if (s->keyring == NULL || access(path, F_OK) != 0)
		rc = lc_fail(e, LC_EKEY, 0,
		             "only a host that has the store's key file rotates (%s is not there)",
		             path);
	rc = rc != 0 ? rc : keyring_rotate(s->keyring, e);
	rc = rc != 0 ? rc : keyring_save(s->keyring, path, e);
	(void)failpoint("store.rotate.saved");
	rc = rc != 0 ? rc : keyring_encode(s->keyring, &keys, e);
	rc = rc != 0 ? rc : begin_with(s, (struct lc_span){keys.p, keys.n}, e);
	lc_buf_free(&keys);
	lc_free(path);
	return rc;
}

int
store_save_key(struct store *s, const char *key_dir, struct lc_err *e)
{
	char *path = store_key_path(key_dir, s->domain);
	int rc;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = s->keyring == NULL ? lc_fail(e, LC_EKEY, 0, "store %s: no key", s->dir)
	                        : keyring_save(s->keyring, path, e);
	lc_free(path);
	return rc;
}

int
store_set_passphrase(struct store *s, const char *pass, size_t n, struct lc_err *e)
{
	struct lc_buf wrap = {0};
	char *dir = path_join(s->dir, "keys"), *path = path_join(s->dir, STORE_PASSPHRASE_FILE);
	int rc = 0;

	if (dir == NULL || path == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	else if (s->keyring == NULL)
		rc = lc_fail(e, LC_EKEY, 0, "store %s: no key", s->dir);
	rc = rc != 0 ? rc : keyring_wrap_passphrase(s->keyring, pass, n, &wrap, e);
	rc = rc != 0 ? rc : dir_make(dir, 0700, e);
	rc = rc != 0 ? rc : file_write_atomic(path, wrap.p, wrap.n, 0600, e);
	lc_buf_free(&wrap);
	lc_free(dir);
	lc_free(path);
	return rc;
}

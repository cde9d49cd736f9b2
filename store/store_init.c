/*
 * Making a store: recovery kit, host key, first segment, identity file, in that order; so that no
 * store exists whose code was never written.  A failure takes back what was made; a kill leaves a
 * kit that opens nothing and a folder that the next attempt takes over.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/commit.h"
#include "store/kit.h"
#include "store/segment_internal.h"
#include "store/store_internal.h"
#include "store/transfer.h"

#define TORN_MAX (1u << 20) /* the first write of a store is far smaller */

struct held {
	bool keys, more; /* than what init itself puts there */
};

static int
look_at(void *arg, const struct record *r, struct lc_span payload, struct lc_err *e)
{
	struct held *x = arg;

	(void)payload;
	(void)e;
	if (r->type == RECORD_KEYS)
		x->keys = true;
	else if (r->type != RECORD_COMMIT || r->n > 8)
		x->more = true;
	return x->more ? LC_ECANCELED : 0;
}

/* Whether a segment holds more than the torn first write of an attempt that the power ended. */
static bool
holds_something(const char *dir, const struct segment_info *seg)
{
	struct held held = {.more = seg->bytes > TORN_MAX};
	struct segment_scan scan = {.on_record = look_at, .arg = &held};
	struct segment_header h = {0};
	bool begins = false;
	uint8_t raw[SEGMENT_HEADER_SIZE];
	struct segments *s;
	char name[32];
	int fd;

	if (segments_open(dir, h.store_id, h.domain, &s, NULL) != 0)
		return true;
	fd = segment_open_fd(s, seg->no, O_RDONLY, name, NULL);
	if (fd >= 0 && file_pread_full(fd, raw, sizeof raw, 0, name, NULL) == 0)
		begins = segment_header_decode(raw, &h);
	fd_close(&fd);
	segments_close(s);
	if (segments_open(dir, h.store_id, h.domain, &s, NULL) != 0)
		return true;
	if (segment_scan(s, seg, 0, &scan, NULL, NULL) != 0)
		held.more = true; /* of a newer version, or it can't be read */
	segments_close(s);
	return held.more || (begins && held.keys);
}

static bool
has_segment(const char *dir)
{
	static const uint8_t unknown[16];
	struct segment_info *list = NULL;
	struct segments *s;
	bool found;
	size_t n = 0, i;
	int rc;

	if (segments_open(dir, unknown, unknown, &s, NULL) != 0)
		return true;
	rc = segments_list(s, &list, &n, NULL);
	found = rc != 0 && rc != LC_ENOENT; /* none is what there is, or it can't be told */
	for (i = 0; i < n && !found; i++)
		found = holds_something(dir, &list[i]);
	lc_free(list);
	segments_close(s);
	return found;
}

/* A store begins in a folder with nothing in it but what a new filesystem or a killed attempt
 * left. */
static int
check_empty(const char *dir, struct lc_err *e)
{
	static const char *const ours[] = {".",        "..",   "lost+found", "lock",
	                                   "segments", "keys", "index",      "leases"};
	DIR *d = opendir(dir);
	struct dirent *ent;
	int rc = 0;

	if (d == NULL)
		return errno == ENOENT ? 0 : lc_fail_errno(e, "%s", dir);
	if (faccessat(dirfd(d), STORE_IDENTITY_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		rc = lc_fail(e, LC_EEXIST, 0, "%s is a store already", dir);
	while (rc == 0 && (ent = dir_next(d, dir, &rc, e)) != NULL) {
		bool known = false;
		size_t i;

		for (i = 0; i < sizeof ours / sizeof ours[0]; i++)
			known = known || strcmp(ent->d_name, ours[i]) == 0;
		if (!known)
			rc = lc_fail(e, LC_EEXIST, 0,
			             "%s is not empty (%s): a store needs a folder of its own", dir,
			             ent->d_name);
	}
	(void)closedir(d);
	return rc;
}

static int
check_no_segments(const char *dir, struct lc_err *e)
{
	char *path = path_join(dir, "segments");
	int rc = 0;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (has_segment(path))
		rc = lc_fail(
		    e, LC_EEXIST, 0,
		    "%s is a store already (its file `%s` is missing, which does not matter)", dir,
		    STORE_IDENTITY_FILE);
	lc_free(path);
	return rc;
}

static bool
is_within(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return strncmp(path, folder, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* The code must not lie beside what it opens. */
static int
check_kit_place(const char *kit, const char *dir, struct lc_err *e)
{
	char *folder = path_dirname(kit);
	char *of_kit = folder == NULL ? NULL : realpath(folder, NULL);
	char *of_store = NULL;
	int rc = 0;

	if (folder == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	else if (of_kit == NULL)
		rc = lc_fail_errno(e, "recovery kit: %s", folder);
	else if ((of_store = realpath(dir, NULL)) == NULL)
		rc = lc_fail_errno(e, "%s", dir);
	else if (is_within(of_kit, of_store))
		rc = lc_fail(e, LC_EINVAL, 0,
		             "the recovery kit must not lie in the store that it opens: give "
		             "another place with --kit FILE");
	lc_free(folder);
	free(of_kit);
	free(of_store);
	return rc;
}

static int
write_first_segment(const char *dir, const uint8_t id[16], const uint8_t domain[16],
                    struct lc_span keys, struct lc_err *e)
{
	struct record r = {.type = RECORD_COMMIT};
	struct lc_buf commit = {0};
	struct segments *segs = NULL;
	char *path = path_join(dir, "segments");
	int rc;

	rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : dir_make(path, 0700, e);
	rc = rc != 0 ? rc : segments_open(path, id, domain, &segs, e);
	rc = rc != 0 ? rc : segments_resume(segs, keys, 1, e);
	rc = rc != 0 ? rc : commit_start(&commit, clock_wall_ns(), e);
	r.n = (uint32_t)commit.n;
	rc = rc != 0 ? rc : segments_append(segs, &r, commit.p, e);
	rc = rc != 0 ? rc : segments_sync(segs, NULL, e);
	segments_close(segs);
	lc_buf_free(&commit);
	lc_free(path);
	return rc;
}

static int
write_passphrase(const struct store_init_opts *o, const struct keyring *k, struct lc_err *e)
{
	struct lc_buf pass = {0}, wrap = {0};
	char *path = path_join(o->dir, STORE_PASSPHRASE_FILE);
	char *dir = path_join(o->dir, "keys");
	int rc;

	rc = path == NULL || dir == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                                 : dir_make(dir, 0700, e);
	rc = rc != 0 ? rc : store_read_passphrase(o->passphrase_file, &pass, e);
	rc = rc != 0 ? rc : keyring_wrap_passphrase(k, (const char *)pass.p, pass.n, &wrap, e);
	rc = rc != 0 ? rc : file_write_atomic(path, wrap.p, wrap.n, 0600, e);
	if (pass.p != NULL)
		explicit_bzero(pass.p, pass.cap);
	lc_buf_free(&pass);
	lc_buf_free(&wrap);
	lc_free(path);
	lc_free(dir);
	return rc;
}

static void
remove_in(const char *dir, const char *name)
{
	char *path = path_join(dir, name);

	if (path != NULL && unlink(path) != 0)
		dir_remove(path);
	lc_free(path);
}

int
store_identity_write(const char *dir, const uint8_t id[16], const uint8_t domain[16],
                     struct lc_err *e)
{
	char hex_id[33], hex_domain[33], text[160];
	char *path = path_join(dir, STORE_IDENTITY_FILE);
	int rc, n;

	n = snprintf(text, sizeof text, "locum store\nversion 1\nstore %s\ndomain %s\n",
	             lc_hex(hex_id, id, 16), lc_hex(hex_domain, domain, 16));
	rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                  : file_write_atomic(path, text, (size_t)n, 0600, e);
	lc_free(path);
	return rc;
}

struct making {
	const struct store_init_opts *o;
	char *key_path;
	char kit[PATH_MAX];
	char code[RECOVERY_CODE_MAX];
	uint8_t id[16];
	struct keyring *k;
	bool kit_written, key_written;
	bool was_there; /* the folder */
};

static int
make_keys(struct making *m, struct lc_err *e)
{
	char hex_id[33], hex_domain[33];
	struct kit kit = {.code = m->code, .domain = hex_domain, .store = hex_id, .dir = m->o->dir};
	int rc, n;

	rc = keyring_new(m->code, &m->k, e);
	if (rc != 0)
		return rc;
	random_bytes(m->id, sizeof m->id);
	(void)lc_hex(hex_id, m->id, sizeof m->id);
	(void)lc_hex(hex_domain, keyring_domain(m->k), 16);
	n = m->o->kit != NULL
	        ? snprintf(m->kit, sizeof m->kit, "%s", m->o->kit)
	        : snprintf(m->kit, sizeof m->kit, "./locum-recovery-kit-%.8s.txt", hex_id);
	if (n < 0 || (size_t)n >= sizeof m->kit)
		return lc_fail(e, LC_EINVAL, 0, "recovery kit: the path is too long");
	rc = check_kit_place(m->kit, m->o->dir, e);
	rc = rc != 0 ? rc : kit_write(m->kit, &kit, e);
	if (rc != 0)
		return rc;
	m->kit_written = true;
	(void)failpoint("store.init.kit");
	m->key_path = store_key_path(m->o->key_dir, keyring_domain(m->k));
	rc = m->key_path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                         : keyring_save(m->k, m->key_path, e);
	m->key_written = rc == 0;
	return rc;
}

static int
make_files(struct making *m, struct lc_err *e)
{
	const uint8_t *domain = keyring_domain(m->k);
	struct lc_buf keys = {0};
	int rc = 0;

	(void)failpoint("store.init.key");
	if (m->o->passphrase_file != NULL)
		rc = write_passphrase(m->o, m->k, e);
	rc = rc != 0 ? rc : keyring_encode(m->k, &keys, e);
	rc = rc != 0 ? rc
	             : write_first_segment(m->o->dir, m->id, domain,
	                                   (struct lc_span){keys.p, keys.n}, e);
	lc_buf_free(&keys);
	(void)failpoint("store.init.segment");
	return rc != 0 ? rc : store_identity_write(m->o->dir, m->id, domain, e);
}

/* The lock is held until its file is gone. */
static void
take_back(struct making *m)
{
	remove_in(m->o->dir, STORE_IDENTITY_FILE);
	remove_in(m->o->dir, "segments");
	remove_in(m->o->dir, "keys");
	if (m->key_written)
		(void)unlink(m->key_path);
	if (m->kit_written)
		(void)unlink(m->kit);
	remove_in(m->o->dir, "lock");
	if (!m->was_there)
		(void)rmdir(m->o->dir);
}

static void
tell(const struct making *m)
{
	struct store_made *made = m->o->made;

	if (made == NULL)
		return;
	(void)lc_hex(made->id, m->id, 16);
	(void)lc_hex(made->domain, keyring_domain(m->k), 16);
	(void)snprintf(made->kit, sizeof made->kit, "%s", m->kit);
	(void)snprintf(made->key, sizeof made->key, "%s", m->key_path);
}

/* Make sure of the folder, with its lock held: nobody else makes a store there. */
static int
claim_folder(const char *dir, const char *who, int *lock_fd, struct lc_err *e)
{
	char *lock_path = path_join(dir, "lock");
	int rc;

	*lock_fd = -1;
	if (lock_path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = check_empty(dir, e);
	rc = rc != 0 ? rc : check_no_segments(dir, e);
	rc = rc != 0 ? rc : dir_make(dir, 0700, e);
	rc = rc != 0 ? rc : file_lock(lock_path, 0600, who, lock_fd, e);
	rc = rc != 0 ? rc : check_empty(dir, e); /* somebody else's may have been faster */
	rc = rc != 0 ? rc : check_no_segments(dir, e);
	lc_free(lock_path);
	if (rc == 0) {
		remove_in(dir, "segments");
		remove_in(dir, "keys");
		remove_in(dir, "index");
	}
	return rc;
}

int
transfer_make(const char *dir, struct lc_span keys, struct lc_err *e)
{
	uint8_t id[16], domain[DOMAIN_ID_SIZE];
	int lock_fd = -1;
	int rc = keyring_domain_of(keys, domain, e);

	rc = rc != 0 ? rc : claim_folder(dir, "locum", &lock_fd, e);
	if (rc == 0) {
		random_bytes(id, sizeof id);
		rc = write_first_segment(dir, id, domain, keys, e);
		rc = rc != 0 ? rc : store_identity_write(dir, id, domain, e);
		if (rc != 0)
			remove_in(dir, "segments");
	}
	fd_close(&lock_fd);
	return rc;
}

int
store_init(const struct store_init_opts *o, struct lc_err *e)
{
	struct making *m = lc_alloc(sizeof *m);
	int lock_fd = -1, rc;

	if (m == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	m->o = o;
	m->was_there = access(o->dir, F_OK) == 0;
	rc = claim_folder(o->dir, "locum store init", &lock_fd, e);
	if (rc == 0) {
		rc = make_keys(m, e);
		rc = rc != 0 ? rc : make_files(m, e);
		if (rc == 0)
			tell(m);
		else
			take_back(m);
	}
	explicit_bzero(m->code, sizeof m->code);
	keyring_free(m->k);
	lc_free(m->key_path);
	lc_free(m);
	fd_close(&lock_fd);
	return rc;
}

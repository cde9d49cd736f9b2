#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "replicator/limits.h"
#include "replicator/noise.h"
#include "replicator/writers.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/failpoint.h"
#include "store/base/files.h"
#include "store/keyring.h"

#define TOKEN_ID_SIZE ((size_t)8)
#define KEYS_MAX (256u << 10)
#define NUMBER_MAX 65535u /* of a writer, in a store's log */
#define LOCK_PAUSE_MS 5
#define LOCK_WAIT_MS 10000

/* ---- files of writers ---- */

static char *
writer_path(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE])
{
	char hex[65];

	return lc_asprintf("%s/writers/%s", dir, lc_hex(hex, key, CHANNEL_KEY_SIZE));
}

static bool
get_number(const struct config *c, const char *key, int64_t *out)
{
	const char *s = config_get(c, "", "", key);
	uint64_t n;

	if (s == NULL || !config_uint(s, &n) || n > INT64_MAX)
		return false;
	*out = (int64_t)n;
	return true;
}

/* What a host's file had no words for in the beginning. */
static bool
get_sharing(const struct config *c, struct writer_entry *w)
{
	int64_t writer = 0, brought = 0;

	if ((config_get(c, "", "", "writer") != NULL && !get_number(c, "writer", &writer)) ||
	    (config_get(c, "", "", "brought") != NULL && !get_number(c, "brought", &brought)) ||
	    writer > NUMBER_MAX || brought > NUMBER_MAX)
		return false;
	w->writer = (uint16_t)writer;
	w->brought = (unsigned)brought;
	return true;
}

static int
read_writer(const char *path, struct writer_entry *w, char token[2 * TOKEN_ID_SIZE + 1],
            struct lc_err *e)
{
	const char *name, *domain, *store, *used, *revoked;
	struct config *c;
	int rc = config_load(path, &c, e);

	if (rc != 0)
		return rc;
	name = config_get(c, "", "", "name");
	domain = config_get(c, "", "", "domain");
	store = config_get(c, "", "", "store");
	used = config_get(c, "", "", "token");
	revoked = config_get(c, "", "", "revoked");
	if (name == NULL || domain == NULL || store == NULL || used == NULL || revoked == NULL ||
	    !get_sharing(c, w) || !config_bool(revoked, &w->revoked) ||
	    !lc_unhex(w->domain, sizeof w->domain, domain) ||
	    !get_number(c, "paired_ns", &w->paired_ns) || strlen(store) >= sizeof w->store)
		rc = lc_fail(e, LC_ECORRUPT, 0, "%s: something is missing or wrong", path);
	if (rc == 0) {
		(void)snprintf(w->name, sizeof w->name, "%s", name);
		(void)snprintf(w->store, sizeof w->store, "%s", store);
		(void)snprintf(token, 2 * TOKEN_ID_SIZE + 1, "%s", used);
	}
	config_free(c);
	return rc;
}

static int
write_writer(const char *dir, const struct writer_entry *w, const char *token, struct lc_err *e)
{
	char text[640], hex[33];
	char *path = writer_path(dir, w->key), *folder = path_join(dir, "writers");
	int n, rc;

	rc = path == NULL || folder == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                                    : dir_make(folder, 0700, e);
	if (rc == 0) {
		n = snprintf(text, sizeof text,
		             "name = %s\ndomain = %s\nstore = %s\nwriter = %u\nbrought = "
		             "%u\npaired_ns = %" PRId64 "\ntoken = %s\nrevoked = %s\n",
		             w->name, lc_hex(hex, w->domain, 16), w->store, w->writer, w->brought,
		             w->paired_ns, token, w->revoked ? "yes" : "no");
		rc = file_write_atomic(path, text, (size_t)n, 0600, e);
	}
	lc_free(path);
	lc_free(folder);
	return rc;
}

/* LC_ENOENT, without a word: there is none. */
static int
find(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct writer_entry *out,
     char token[2 * TOKEN_ID_SIZE + 1], struct lc_err *e)
{
	char *path = writer_path(dir, key);
	uint8_t copy[CHANNEL_KEY_SIZE]; /* key may lie in *out */
	struct lc_err why = LC_ERR_INIT;
	int rc = 0;

	memcpy(copy, key, sizeof copy);
	memset(out, 0, sizeof *out);
	memcpy(out->key, copy, sizeof copy);
	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (access(path, F_OK) != 0)
		rc = errno == ENOENT ? LC_ENOENT : lc_fail_errno(&why, "%s", path);
	rc = rc != 0 ? rc : read_writer(path, out, token, &why);
	lc_free(path);
	if (rc == LC_EACCES) /* we may not look at it: that is not what was decided about it */
		rc = LC_EIO;
	return rc == 0 || rc == LC_ENOENT ? rc : lc_fail(e, (enum lc_code)rc, 0, "%s", why.msg);
}

int
writers_find(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct writer_entry *out,
             struct lc_err *e)
{
	char token[2 * TOKEN_ID_SIZE + 1], print[FINGERPRINT_MAX];
	int rc = find(dir, key, out, token, e);

	if (rc == LC_ENOENT)
		return lc_fail(e, LC_ENOENT, 0,
		               "host %s is not paired with this replica (locum token, there; locum "
		               "pair, here)",
		               fingerprint(print, key));
	if (rc == 0 && out->revoked)
		return lc_fail(e, LC_EACCES, 0, "host %s was revoked at this replica", out->name);
	return rc;
}

/* Who reads a host's file and writes it anew has the folder meanwhile, from `locum replica revoke`
 * too: a host that is revoked in between would be let in again.  *fd: -1 where there is none. */
static int
lock_writers(const char *dir, int *fd, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * LC_NS_PER_MS};
	int64_t until = clock_mono_ns() + LOCK_WAIT_MS * LC_NS_PER_MS;
	char *folder = path_join(dir, "writers");
	int rc = 0;

	*fd = -1;
	if (folder == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	*fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd < 0 && errno != ENOENT)
		rc = lc_fail_errno(e, "%s", folder);
	while (*fd >= 0 && rc == 0 && flock(*fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			rc = lc_fail_errno(e, "%s: lock", folder);
		else if (clock_mono_ns() > until)
			rc = lc_fail(e, LC_EBUSY, 0, "%s: in use by another process", folder);
		else
			(void)nanosleep(&pause, NULL);
	}
	if (rc != 0)
		fd_close(fd);
	lc_free(folder);
	return rc;
}

static int
by_name(const void *a, const void *b)
{
	const struct writer_entry *x = &((const struct writer_file *)a)->w;
	const struct writer_entry *y = &((const struct writer_file *)b)->w;
	int order = strcmp(x->name, y->name);

	return order != 0 ? order : memcmp(x->key, y->key, sizeof x->key);
}

/* Call on() for each regular name in a folder that is there. */
static int
each_name(const char *dir, const char *sub,
          int (*on)(void *arg, const char *dir, const char *name, struct lc_err *e), void *arg,
          struct lc_err *e)
{
	char *folder = path_join(dir, sub);
	struct dirent *ent;
	int rc = 0;
	DIR *d;

	if (folder == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	d = opendir(folder);
	if (d == NULL && errno != ENOENT)
		rc = lc_fail_errno(e, "%s", folder);
	while (d != NULL && rc == 0 && (ent = dir_next(d, folder, &rc, e)) != NULL) {
		if (ent->d_name[0] != '.')
			rc = on(arg, dir, ent->d_name, e);
	}
	if (d != NULL)
		(void)closedir(d);
	lc_free(folder);
	return rc;
}

static int
list_one(void *arg, const char *dir, const char *name, struct lc_err *e)
{
	struct writer_file f = {.err = LC_ERR_INIT};
	char token[2 * TOKEN_ID_SIZE + 1];
	uint8_t key[CHANNEL_KEY_SIZE];
	int rc;

	if (!lc_unhex(key, sizeof key, name))
		return 0;
	rc = find(dir, key, &f.w, token, &f.err);
	if (rc == LC_ENOENT) /* gone meanwhile */
		return 0;
	if (rc != 0) {
		f.w = (struct writer_entry){.writer = 0};
		memcpy(f.w.key, key, sizeof key);
	}
	if (rc == LC_ENOMEM || lc_buf_append(arg, &f, sizeof f) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	return 0;
}

int
writers_files(const char *dir, struct writer_file **out, size_t *n, struct lc_err *e)
{
	struct lc_buf list = {0};
	int rc = each_name(dir, "writers", list_one, &list, e);

	if (rc != 0)
		lc_buf_free(&list);
	*out = (struct writer_file *)(void *)list.p;
	*n = list.n / sizeof **out;
	if (*n > 0)
		qsort(*out, *n, sizeof **out, by_name);
	return rc;
}

/* Those that can be read; all: fail where one can't. */
static int
list_entries(const char *dir, bool all, struct writer_entry **out, size_t *n, struct lc_err *e)
{
	struct writer_file *files = NULL;
	struct lc_buf list = {0};
	size_t i, nfiles = 0;
	int rc = writers_files(dir, &files, &nfiles, e);

	for (i = 0; rc == 0 && i < nfiles; i++) {
		if (files[i].err.code == LC_OK &&
		    lc_buf_append(&list, &files[i].w, sizeof files[i].w) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
		else if (files[i].err.code != LC_OK && all)
			rc = lc_fail(e, files[i].err.code, 0, "another host's file: %s",
			             files[i].err.msg);
	}
	lc_free(files);
	if (rc != 0)
		lc_buf_free(&list);
	*out = (struct writer_entry *)(void *)list.p;
	*n = list.n / sizeof **out;
	return rc;
}

int
writers_list(const char *dir, struct writer_entry **out, size_t *n, struct lc_err *e)
{
	return list_entries(dir, false, out, n, e);
}

/* Whether a host of which no more than the key is known may have keys in w's store: who shares one
 * and has sent some has left them here. */
static bool
has_sent_keys(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], const struct writer_entry *w)
{
	uint8_t domain[sizeof w->domain];
	struct lc_buf keys = {0};
	bool has = writers_keys(dir, key, &keys, NULL) == 0 &&
	           keyring_domain_of((struct lc_span){keys.p, keys.n}, domain, NULL) == 0 &&
	           memcmp(domain, w->domain, sizeof domain) == 0;

	lc_buf_free(&keys);
	return has;
}

int
writers_share(const char *dir, const struct writer_entry *w, bool *share, struct lc_err *e)
{
	struct writer_file *list = NULL;
	size_t i, n = 0;
	int rc = writers_files(dir, &list, &n, e);

	*share = false;
	for (i = 0; rc == 0 && i < n && !*share; i++) {
		if (list[i].err.code != LC_OK)
			*share = has_sent_keys(dir, list[i].w.key, w);
		else
			*share = strcmp(list[i].w.store, w->store) == 0 &&
			         list[i].w.writer != w->writer;
	}
	lc_free(list);
	return rc;
}

static char *
keys_path(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE])
{
	char hex[65];

	return lc_asprintf("%s/writers/%s.keys", dir, lc_hex(hex, key, CHANNEL_KEY_SIZE));
}

int
writers_keys(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct lc_buf *out,
             struct lc_err *e)
{
	char *path = keys_path(dir, key);
	int rc;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = access(path, F_OK) != 0 ? LC_ENOENT : file_read_all(path, KEYS_MAX, out, e);
	lc_free(path);
	return rc;
}

int
writers_put_keys(const char *dir, struct writer_entry *w, struct lc_span keys, unsigned added,
                 struct lc_err *e)
{
	char *path = keys_path(dir, w->key), token[2 * TOKEN_ID_SIZE + 1];
	struct writer_entry now;
	int rc, fd;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = file_write_atomic(path, keys.p, keys.n, 0600, e);
	lc_free(path);
	if (rc != 0 || added == 0)
		return rc;
	rc = lock_writers(dir, &fd, e);
	rc = rc != 0 ? rc : find(dir, w->key, &now, token, e); /* it may have been revoked */
	(void)failpoint("writers.counting");
	if (rc == 0) {
		w->brought += added;
		now.brought = w->brought;
		rc = write_writer(dir, &now, token, e);
	}
	fd_close(&fd);
	return rc;
}

bool
writers_match(const struct writer_entry *w, const char *what)
{
	char print[FINGERPRINT_MAX], domain[33];
	size_t len = strlen(what);

	if (strcmp(w->name, what) == 0)
		return true;
	return len >= 4 && (strncmp(fingerprint(print, w->key), what, len) == 0 ||
	                    strncmp(lc_hex(domain, w->domain, 16), what, len) == 0);
}

int
writers_pick(const struct writer_entry *list, size_t n, const char *what, size_t *at,
             struct lc_err *e)
{
	size_t i, hits = 0;
	bool live = false;

	for (i = 0; i < n; i++) {
		if (!writers_match(&list[i], what) || (live && list[i].revoked))
			continue;
		hits = live || list[i].revoked ? hits + 1 : 1;
		live = live || !list[i].revoked;
		*at = i;
	}
	if (hits == 0)
		return lc_fail(e, LC_ENOENT, 0,
		               "no host %s is paired here (see: locum replica hosts)", what);
	if (hits > 1)
		return lc_fail(e, LC_EINVAL, 0, "%zu hosts are called %s: give the fingerprint",
		               hits, what);
	return 0;
}

int
writers_revoke(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct lc_err *e)
{
	char token[2 * TOKEN_ID_SIZE + 1];
	struct writer_entry w;
	int fd, rc = lock_writers(dir, &fd, e);

	rc = rc != 0 ? rc : find(dir, key, &w, token, e);
	if (rc == LC_ENOENT)
		(void)lc_fail(e, LC_ENOENT, 0, "no such host is paired with this replica");
	if (rc == 0) {
		w.revoked = true;
		rc = write_writer(dir, &w, token, e);
	}
	fd_close(&fd);
	return rc;
}

/* ---- tokens ---- */

/* verb: what the token does to a host, if that is not NULL. */
static int
make_token(const char *dir, int64_t valid_ns, const char *verb, const uint8_t *host,
           uint8_t secret[32], struct lc_err *e)
{
	uint8_t id[32], ignored[CHANNEL_KEY_SIZE];
	char text[256], hex[65], old[65] = "", name[2 * TOKEN_ID_SIZE + 1];
	char *folder = path_join(dir, "tokens"), *path = NULL;
	int64_t until;
	int n, rc = 0;

	if (__builtin_add_overflow(clock_wall_ns(), valid_ns, &until))
		until = INT64_MAX;
	/* Two key pairs: their secret halves are as random as anything here. */
	rc = noise_keypair(secret, ignored, e);
	rc = rc != 0 ? rc : noise_keypair(id, ignored, e);
	(void)lc_hex(name, id, TOKEN_ID_SIZE);
	if (rc == 0 && folder != NULL)
		path = path_join(folder, name);
	if (rc == 0)
		rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
		                  : dir_make(folder, 0700, e);
	if (rc == 0) {
		n = snprintf(text, sizeof text, "secret = %s\nexpires_ns = %" PRId64 "\n%s%s%s%s",
		             lc_hex(hex, secret, 32), until, host == NULL ? "" : verb,
		             host == NULL ? "" : " = ",
		             host == NULL ? "" : lc_hex(old, host, CHANNEL_KEY_SIZE),
		             host == NULL ? "" : "\n");
		rc = file_write_new(path, text, (size_t)n, 0600, e);
	}
	explicit_bzero(text, sizeof text);
	explicit_bzero(hex, sizeof hex);
	lc_free(folder);
	lc_free(path);
	return rc;
}

int
writers_token(const char *dir, int64_t valid_ns, const uint8_t *replace, uint8_t secret[32],
              struct lc_err *e)
{
	return make_token(dir, valid_ns, "replace", replace, secret, e);
}

int
writers_join_token(const char *dir, int64_t valid_ns, const uint8_t host[CHANNEL_KEY_SIZE],
                   uint8_t secret[32], struct lc_err *e)
{
	return make_token(dir, valid_ns, "join", host, secret, e);
}

struct token_search {
	const uint8_t *secret;
	char id[2 * TOKEN_ID_SIZE + 1]; /* "" until it is found */
	bool used;
	bool replaces, joins;
	uint8_t host[CHANNEL_KEY_SIZE]; /* whom */
};

/* In constant time: how far a guess was right must not show. */
static bool
same_secret(const uint8_t *a, const uint8_t *b)
{
	uint8_t diff = 0;
	size_t i;

	for (i = 0; i < 32; i++)
		diff = (uint8_t)(diff | (a[i] ^ b[i]));
	return diff == 0;
}

static void
take_token(struct token_search *t, const struct config *c, const char *name)
{
	const char *replaced = config_get(c, "", "", "replace");
	const char *joined = config_get(c, "", "", "join");
	const char *host = replaced != NULL ? replaced : joined;

	t->replaces = replaced != NULL;
	t->joins = !t->replaces && joined != NULL;
	if (host == NULL || lc_unhex(t->host, sizeof t->host, host))
		(void)snprintf(t->id, sizeof t->id, "%s", name);
}

static int
look_at_token(void *arg, const char *dir, const char *name, struct lc_err *e)
{
	struct token_search *t = arg;
	char *path = lc_asprintf("%s/tokens/%s", dir, name);
	struct config *c = NULL;
	uint8_t secret[32];
	const char *s;
	int64_t expires;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (strlen(name) == 2 * TOKEN_ID_SIZE && config_load(path, &c, NULL) == 0) {
		s = config_get(c, "", "", "secret");
		if (!get_number(c, "expires_ns", &expires) || expires < clock_wall_ns())
			(void)unlink(path); /* too old */
		else if (s != NULL && lc_unhex(secret, sizeof secret, s) &&
		         same_secret(secret, t->secret))
			take_token(t, c, name);
		explicit_bzero(secret, sizeof secret);
	}
	config_free(c);
	lc_free(path);
	return 0;
}

static int
look_for_use(void *arg, const char *dir, const char *name, struct lc_err *e)
{
	char token[2 * TOKEN_ID_SIZE + 1] = "";
	struct token_search *t = arg;
	uint8_t key[CHANNEL_KEY_SIZE];
	struct writer_entry w;
	int rc;

	if (!lc_unhex(key, sizeof key, name))
		return 0;
	rc = find(dir, key, &w, token, e);
	if (rc == 0)
		t->used = t->used || strcmp(token, t->id) == 0;
	else if (rc != LC_ENOENT)
		lc_wrap(e, "whether the token was used can't be told");
	return rc == LC_ENOENT ? 0 : rc;
}

static void
remove_token(const char *dir, const char *id)
{
	char *folder = path_join(dir, "tokens");
	char *path = folder == NULL ? NULL : path_join(folder, id);

	if (path != NULL && unlink(path) == 0)
		(void)dir_sync(folder, NULL);
	lc_free(folder);
	lc_free(path);
}

/* Nobody else writes there in its place. */
static int
check_store_free(const char *dir, const struct writer_entry *w, const uint8_t *replaced,
                 struct lc_err *e)
{
	struct writer_entry *list = NULL;
	size_t i, n = 0;
	int rc = list_entries(dir, true, &list, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		if (list[i].revoked || strcmp(list[i].store, w->store) != 0 ||
		    list[i].writer != w->writer ||
		    memcmp(list[i].key, w->key, CHANNEL_KEY_SIZE) == 0 ||
		    (replaced != NULL && memcmp(list[i].key, replaced, CHANNEL_KEY_SIZE) == 0))
			continue;
		rc = lc_fail(e, LC_ECONFLICT, 0,
		             "the store here is that of host %s by now (locum token --replace %s, "
		             "there, takes it over)",
		             list[i].name, list[i].name);
	}
	lc_free(list);
	return rc;
}

/* Into w->writer: a number that nobody has or had in that store. */
static int
choose_number(const char *dir, struct writer_entry *w, struct lc_err *e)
{
	struct writer_entry *list = NULL;
	unsigned next = 0;
	size_t i, n = 0;
	int rc = list_entries(dir, true, &list, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		if (strcmp(list[i].store, w->store) == 0 && list[i].writer >= next)
			next = list[i].writer + 1u;
	}
	lc_free(list);
	if (rc == 0 && next > NUMBER_MAX)
		rc = lc_fail(e, LC_ENOTSUP, 0, "too many hosts had that store");
	w->writer = (uint16_t)next;
	return rc;
}

/* Into w->store, writer and domain: those of the host that the token names. */
static int
join_store(const char *dir, struct writer_entry *w, const struct token_search *t, struct lc_err *e)
{
	static const uint8_t none[16];
	struct writer_entry host, before;
	char token[2 * TOKEN_ID_SIZE + 1];
	int rc = find(dir, t->host, &host, token, e);

	if (rc == LC_ENOENT)
		return lc_fail(e, LC_EACCES, 0,
		               "the host whose store the token is for is not known any more");
	if (rc == 0 && memcmp(w->domain, none, sizeof none) != 0 &&
	    memcmp(w->domain, host.domain, sizeof host.domain) != 0)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "the store of host %s is of another key domain than this host's",
		               host.name);
	if (rc != 0)
		return rc;
	memcpy(w->domain, host.domain, sizeof w->domain);
	(void)snprintf(w->store, sizeof w->store, "%s", host.store);
	rc = find(dir, w->key, &before, token, e);
	if (rc == LC_ENOENT)
		return choose_number(dir, w, e);
	if (rc == 0 && strcmp(before.store, w->store) != 0)
		return lc_fail(e, LC_ECONFLICT, 0, "this host has a store of its own here");
	w->writer = before.writer;
	return rc != 0 ? rc : check_store_free(dir, w, NULL, e);
}

/* Who shares that store has VMs there under a number of its own: with another one it would lose
 * them, and its number would be given to the next one that joins, who would have them. */
static int
check_own_place(const char *dir, const struct writer_entry *w, const struct writer_entry *before,
                struct lc_err *e)
{
	char token[2 * TOKEN_ID_SIZE + 1];
	struct writer_entry own;
	int rc = find(dir, w->key, &own, token, e);

	if (rc == LC_ENOENT)
		return 0;
	if (rc == 0 && strcmp(own.store, before->store) == 0 && own.writer != before->writer)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "this host shares that store, with VMs of its own: locum replica "
		               "give, there, lets it go on with those of host %s",
		               before->name);
	return rc;
}

/* Into w->store: of the host that is replaced, else its own of before, else a new one. */
static int
choose_store(const char *dir, struct writer_entry *w, const struct token_search *t,
             struct lc_err *e)
{
	char token[2 * TOKEN_ID_SIZE + 1], key[33], domain[17];
	static const uint8_t none[16];
	const uint8_t *from = t->replaces ? t->host : w->key;
	struct writer_entry before;
	int rc;

	if (t->joins)
		return join_store(dir, w, t, e);
	if (memcmp(w->domain, none, sizeof none) == 0)
		return lc_fail(e, LC_EACCES, 0,
		               "the token is not for joining another host (locum token --join)");
	rc = find(dir, from, &before, token, e);
	if (rc == LC_ENOENT && !t->replaces) {
		w->writer = 0;
		/* So much of the key that nobody makes another one that ends up there. */
		(void)snprintf(w->store, sizeof w->store, "stores/%s-%s",
		               lc_hex(domain, w->domain, 4), lc_hex(key, w->key, 16));
		return 0;
	}
	if (rc == LC_ENOENT)
		return lc_fail(e, LC_EACCES, 0,
		               "the host that the token replaces is not known any more");
	if (rc == 0 && memcmp(before.domain, w->domain, 16) != 0)
		return lc_fail(e, LC_ECONFLICT, 0,
		               "host %s is paired with the store of another key domain",
		               before.name);
	rc = rc != 0 ? rc : check_own_place(dir, w, &before, e);
	if (rc != 0)
		return rc;
	(void)snprintf(w->store, sizeof w->store, "%s", before.store);
	w->writer = before.writer;
	return check_store_free(dir, w, t->replaces ? t->host : NULL, e);
}

/* What holds for the place of a host, not for its key: its limits, and the keys that it is held to.
 * Before the new one is let in, so that it is at no moment without. */
static int
pass_on(const char *dir, const struct writer_entry *w, const uint8_t *from, struct lc_err *e)
{
	char *path = keys_path(dir, w->key);
	struct lc_buf keys = {0};
	struct limits l;
	int rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                      : limits_read(dir, from, &l, e);

	rc = rc != 0 ? rc : limits_write(dir, w->key, &l, e);
	if (rc == 0) {
		rc = writers_keys(dir, from, &keys, e);
		if (rc == 0)
			rc = file_write_atomic(path, keys.p, keys.n, 0600, e);
		else if (rc == LC_ENOENT)
			rc = 0;
	}
	lc_buf_free(&keys);
	lc_free(path);
	if (rc != 0)
		lc_wrap(e, "what holds for the host that is replaced");
	return rc;
}

int
writers_bind(const char *dir, struct writer_entry *w, const uint8_t secret[32], struct lc_err *e)
{
	struct token_search t = {.secret = secret};
	int rc = each_name(dir, "tokens", look_at_token, &t, e);

	if (rc == 0 && t.id[0] != '\0')
		rc = each_name(dir, "writers", look_for_use, &t, e);
	if (rc == 0 && (t.id[0] == '\0' || t.used))
		rc = lc_fail(e, LC_EACCES, 0,
		             "the token is unknown, was used, or is too old: make another one with "
		             "locum token");
	if (rc != 0)
		return rc;
	rc = choose_store(dir, w, &t, e);
	if (rc != 0)
		return rc;
	if (t.replaces && memcmp(t.host, w->key, CHANNEL_KEY_SIZE) != 0) {
		rc = pass_on(dir, w, t.host, e);
		rc = rc != 0 ? rc : writers_revoke(dir, t.host, e);
	}
	(void)failpoint("writers.revoked");
	w->revoked = false;
	w->brought = 0; /* a new token is a new decision */
	w->paired_ns = clock_wall_ns();
	rc = rc != 0 ? rc : write_writer(dir, w, t.id, e);
	(void)failpoint("writers.bound");
	if (rc == 0)
		remove_token(dir, t.id);
	return rc;
}

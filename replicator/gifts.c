#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replicator/gifts.h"
#include "store/base/bytes.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/transfer.h"

int
gifts_put(const char *dir, const uint8_t vm[16], const struct writer_entry *w, struct lc_err *e)
{
	char *folder = path_join(dir, "gifts"), *path = NULL;
	char hex[33], key[65], text[300];
	int n, rc;

	if (folder != NULL)
		path = path_join(folder, lc_hex(hex, vm, 16));
	n = snprintf(text, sizeof text, "host = %s\nstore = %s\nwriter = %u\n",
	             lc_hex(key, w->key, sizeof w->key), w->store, w->writer);
	rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : dir_make(folder, 0700, e);
	rc = rc != 0 ? rc : file_write_atomic(path, text, (size_t)n, 0600, e);
	lc_free(folder);
	lc_free(path);
	return rc;
}

/* Whether what that file says is for that host and its store; or for the one in whose place it is,
 * which had the same number. */
static bool
is_for(const char *path, const struct writer_entry *w)
{
	struct config *c = NULL;
	const char *host, *store, *number;
	uint64_t writer;
	char key[65];
	bool is = false;

	if (config_load(path, &c, NULL) == 0) {
		host = config_get(c, "", "", "host");
		store = config_get(c, "", "", "store");
		number = config_get(c, "", "", "writer");
		is = host != NULL && store != NULL && strcmp(store, w->store) == 0 &&
		     (number != NULL ? config_uint(number, &writer) && writer == w->writer
		                     : strcmp(host, lc_hex(key, w->key, sizeof w->key)) == 0);
	}
	config_free(c);
	return is;
}

static int
take_one(const char *folder, const char *name, const struct writer_entry *w, struct store *s,
         void (*given)(void *arg, const uint8_t vm[16]), void *arg, struct lc_err *e)
{
	char *path = path_join(folder, name);
	uint8_t vm[16];
	int rc = 0;

	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	if (lc_unhex(vm, sizeof vm, name) && is_for(path, w)) {
		rc = transfer_give(s, vm, w->writer, e);
		if (rc == 0)
			log_info("%s: VM %.8s is this host's from now on", w->name, name);
		if (rc == 0 && given != NULL)
			given(arg, vm);
		if (rc == LC_ENOENT) {
			log_warn("%s: VM %.8s was given to it, and is not there", w->name, name);
			lc_err_clear(e);
			rc = 0;
		}
		if (rc == LC_EBUSY) { /* nobody keeps this host out by that; next time, then */
			log_warn("%s: VM %.8s was given to it, and is not yet its own: %s", w->name,
			         name, e->msg);
			lc_err_clear(e);
			lc_free(path);
			return 0;
		}
		if (rc == 0)
			(void)unlink(path); /* where it stays it is given once more */
	}
	lc_free(path);
	return rc;
}

int
gifts_take(const char *dir, const struct writer_entry *w, struct store *s,
           void (*given)(void *arg, const uint8_t vm[16]), void *arg, struct lc_err *e)
{
	char *folder = path_join(dir, "gifts");
	const struct dirent *ent;
	int rc = 0;
	DIR *d;

	if (folder == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	d = opendir(folder);
	if (d == NULL && errno != ENOENT)
		rc = lc_fail_errno(e, "%s", folder);
	while (d != NULL && rc == 0 && (ent = dir_next(d, folder, &rc, e)) != NULL)
		rc = take_one(folder, ent->d_name, w, s, given, arg, e);
	if (d != NULL)
		(void)closedir(d);
	lc_free(folder);
	if (rc != 0)
		lc_wrap(e, "a VM that was given to host %s", w->name);
	return rc;
}

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "replicator/limits.h"
#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#define FILE_MAX 256u

static char *
path_of(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE])
{
	char hex[2 * CHANNEL_KEY_SIZE + 1];

	return lc_asprintf("%s/limits/%s", dir, lc_hex(hex, key, CHANNEL_KEY_SIZE));
}

int
limits_read(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], struct limits *out,
            struct lc_err *e)
{
	char *path = path_of(dir, key), *line, *save = NULL;
	struct lc_err err = LC_ERR_INIT;
	struct lc_buf b = {0};
	int rc;

	*out = (struct limits){.rate = 0};
	if (path == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = file_read_all(path, FILE_MAX, &b, &err);
	rc = rc != 0 ? rc : lc_buf_append(&b, "", 1);
	for (line = rc == 0 ? strtok_r((char *)b.p, "\n", &save) : NULL; line != NULL && rc == 0;
	     line = strtok_r(NULL, "\n", &save)) {
		/* NOLINTBEGIN(cert-err34-c): a number that is too large is a large one */
		if (sscanf(line, "rate %" SCNu64, &out->rate) == 1)
			out->rate_set = true;
		else if (sscanf(line, "max %" SCNu64, &out->max) == 1)
			out->max_set = true;
		else
			rc = lc_fail(&err, LC_ECORRUPT, 0, "%s: not understood: %.40s", path, line);
		/* NOLINTEND(cert-err34-c) */
	}
	if (rc == 0 && !out->rate_set && !out->max_set) /* who sets none leaves no file */
		rc = lc_fail(&err, LC_ECORRUPT, 0, "%s: it is empty", path);
	lc_buf_free(&b);
	lc_free(path);
	if (rc == LC_ENOENT)
		return 0;
	if (rc != 0 && e != NULL)
		*e = err;
	return rc;
}

int
limits_write(const char *dir, const uint8_t key[CHANNEL_KEY_SIZE], const struct limits *l,
             struct lc_err *e)
{
	char *path = path_of(dir, key), *folder = path_join(dir, "limits");
	struct lc_buf b = {0};
	int rc = 0;

	if (path == NULL || folder == NULL) {
		lc_free(path);
		lc_free(folder);
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	if (l->rate_set)
		rc = lc_buf_printf(&b, "rate %" PRIu64 "\n", l->rate);
	if (rc == 0 && l->max_set)
		rc = lc_buf_printf(&b, "max %" PRIu64 "\n", l->max);
	if (rc == LC_ENOMEM)
		(void)lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc : dir_make(folder, 0700, e);
	if (rc == 0 && b.n > 0)
		rc = file_write_atomic(path, b.p, b.n, 0600, e);
	else if (rc == 0 && unlink(path) != 0 && errno != ENOENT)
		rc = lc_fail_errno(e, "%s", path);
	else
		rc = rc != 0 ? rc : dir_sync(folder, e);
	lc_buf_free(&b);
	lc_free(folder);
	lc_free(path);
	return rc;
}

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "store/base/files.h"
#include "store/base/memory.h"
#include "restore/unlock.h"

enum { FILE_MAX = 65536, CODE_DASHES = 7 };

/* The kit has the code among lines of prose: what is made of groups joined by dashes. */
static bool
looks_like_code(const char *line, size_t n)
{
	size_t i, dashes = 0;

	for (i = 0; i < n; i++) {
		if (line[i] == '-')
			dashes++;
		else if (!isalnum((unsigned char)line[i]))
			return false;
	}
	return dashes >= CODE_DASHES;
}

static void
trim(const char **line, size_t *n)
{
	while (*n > 0 && isspace((unsigned char)**line)) {
		(*line)++;
		(*n)--;
	}
	while (*n > 0 && isspace((unsigned char)(*line)[*n - 1]))
		(*n)--;
}

/* What stands behind the label in "Recovery code: ABCD-...". */
static void
skip_label(const char **line, size_t *n)
{
	const char *colon = memrchr(*line, ':', *n);

	if (colon == NULL)
		return;
	*n -= (size_t)(colon + 1 - *line);
	*line = colon + 1;
	trim(line, n);
}

static bool
find_code(const char *text, size_t len, const char **code, size_t *n)
{
	size_t lines = 0;
	const char *only = NULL;
	size_t only_n = 0;

	while (len > 0) {
		const char *nl = memchr(text, '\n', len);
		size_t whole = nl == NULL ? len : (size_t)(nl - text) + 1;
		const char *line = text;
		size_t line_n = whole;

		trim(&line, &line_n);
		skip_label(&line, &line_n);
		if (looks_like_code(line, line_n)) {
			*code = line;
			*n = line_n;
			return true;
		}
		if (line_n > 0) {
			lines++;
			only = line;
			only_n = line_n;
		}
		text += whole;
		len -= whole;
	}
	*code = only;
	*n = only_n;
	return lines == 1;
}

int
unlock_read_code(const char *path, char code[RECOVERY_CODE_MAX], struct lc_err *e)
{
	struct lc_buf b = {0};
	const char *found;
	size_t n;
	int rc = file_read_all(path, FILE_MAX, &b, e);

	if (rc == 0 && !find_code((const char *)b.p, b.n, &found, &n))
		rc = lc_fail(e, LC_EINVAL, 0, "%s: no recovery code in it", path);
	else if (rc == 0 && n >= RECOVERY_CODE_MAX)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: too long for a recovery code", path);
	if (rc == 0) {
		memcpy(code, found, n);
		code[n] = '\0';
	}
	if (b.p != NULL)
		explicit_bzero(b.p, b.cap);
	lc_buf_free(&b);
	return rc;
}

void
unlock_wipe(char code[RECOVERY_CODE_MAX])
{
	explicit_bzero(code, RECOVERY_CODE_MAX);
}

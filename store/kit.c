#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/kit.h"

#define FILE_MAX 65536u
#define CODE_DASHES 7u

int
kit_write(const char *path, const struct kit *k, struct lc_err *e)
{
	char now[32];
	struct lc_buf b = {0};
	int rc;

	rc = lc_buf_printf(
	    &b,
	    "Locum recovery kit\n"
	    "==================\n\n"
	    "Recovery code: %s\n\n"
	    "Key domain:    %s\n"
	    "Store:         %s in %s\n"
	    "Made:          %s\n\n"
	    "This code opens every restore point of the key domain.  With it and the folder\n"
	    "`segments` of any store of the domain, nothing else is needed: not the host, not\n"
	    "its key file, not the catalog.  Without it and without the host's key file, nobody\n"
	    "can open them.  Print it, keep it away from the host and from the store, and\n"
	    "delete this file.\n\n"
	    "To see whether a code that was typed in opens a store:\n\n"
	    "    locum key check --store DIR --recovery-code-file FILE\n\n"
	    "To run or restore a VM on a machine that has no key:\n\n"
	    "    locum points  --store DIR --recovery-code-file FILE\n"
	    "    locum boot VM --store DIR --recovery-code-file FILE\n"
	    "    locum restore VM --store DIR --recovery-code-file FILE --to FOLDER\n",
	    k->code, k->domain, k->store, k->dir, clock_format(now, sizeof now, clock_wall_ns()));
	if (rc != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "recovery kit: out of memory");
	else
		rc = file_write_new(path, b.p, b.n, 0600, e);
	if (b.p != NULL)
		explicit_bzero(b.p, b.cap);
	lc_buf_free(&b);
	return rc;
}

/* The kit has the code among lines of prose: what is made of groups joined by dashes. */
static bool
looks_like_code(struct lc_span line)
{
	size_t i, dashes = 0;

	for (i = 0; i < line.n; i++) {
		if (line.p[i] == '-')
			dashes++;
		else if (!isalnum(line.p[i]))
			return false;
	}
	return dashes >= CODE_DASHES;
}

static struct lc_span
trimmed(struct lc_span s)
{
	while (s.n > 0 && isspace(s.p[0])) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && isspace(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* What stands behind the label in "Recovery code: ABCD-...". */
static struct lc_span
behind_label(struct lc_span s)
{
	const uint8_t *colon = s.n == 0 ? NULL : memrchr(s.p, ':', s.n);
	size_t n;

	if (colon == NULL)
		return s;
	n = (size_t)(colon + 1 - s.p);
	return trimmed((struct lc_span){s.p + n, s.n - n});
}

/* The line that looks like a code, else the only line that there is. */
static bool
find_code(struct lc_span text, struct lc_span *code)
{
	size_t lines = 0;

	while (text.n > 0) {
		const uint8_t *nl = memchr(text.p, '\n', text.n);
		size_t n = nl == NULL ? text.n : (size_t)(nl - text.p) + 1;
		struct lc_span line = behind_label(trimmed((struct lc_span){text.p, n}));

		if (line.n > 0) {
			lines++;
			*code = line;
			if (looks_like_code(line))
				return true;
		}
		text.p += n;
		text.n -= n;
	}
	return lines == 1;
}

int
kit_read_code(const char *path, char code[RECOVERY_CODE_MAX], struct lc_err *e)
{
	struct lc_buf b = {0};
	struct lc_span found = {0};
	int rc = file_read_all(path, FILE_MAX, &b, e);

	if (rc == 0 && !find_code((struct lc_span){b.p, b.n}, &found))
		rc = lc_fail(e, LC_EINVAL, 0, "%s: no recovery code in it", path);
	else if (rc == 0 && found.n >= RECOVERY_CODE_MAX)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: too long for a recovery code", path);
	if (rc == 0 && found.p != NULL) {
		memcpy(code, found.p, found.n);
		code[found.n] = '\0';
	}
	if (b.p != NULL)
		explicit_bzero(b.p, b.cap);
	lc_buf_free(&b);
	return rc;
}

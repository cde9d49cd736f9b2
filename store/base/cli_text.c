#include <stdio.h>
#include <string.h>

#include "store/base/cli.h"

enum { NEAREST_MAX = 64 };

static unsigned
min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Edits (insert, delete, replace, swap two neighbours) that make b of a, both shorter than
 * NEAREST_MAX. */
static unsigned
distance(const char *a, const char *b)
{
	unsigned row[3][NEAREST_MAX + 1]; /* of a[0..i-2], a[0..i-1], a[0..i] */
	size_t n = strlen(b), i, j;

	for (j = 0; j <= n; j++)
		row[1][j] = (unsigned)j;
	for (i = 1; a[i - 1] != '\0'; i++) {
		row[2][0] = (unsigned)i;
		for (j = 1; j <= n; j++) {
			unsigned d = min3(row[1][j] + 1, row[2][j - 1] + 1,
			                  row[1][j - 1] + (a[i - 1] != b[j - 1]));

			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    row[0][j - 2] + 1 < d)
				d = row[0][j - 2] + 1;
			row[2][j] = d;
		}
		memcpy(row[0], row[1], sizeof row[0]);
		memcpy(row[1], row[2], sizeof row[1]);
	}
	return row[1][n];
}

const char *
cli_nearest(const char *word, const char *const *candidates, size_t n)
{
	const char *best = NULL;
	size_t len = strlen(word), i;
	unsigned best_d = 0;

	if (len == 0 || len >= NEAREST_MAX)
		return NULL;
	for (i = 0; i < n; i++) {
		size_t clen = strlen(candidates[i]);
		unsigned d;

		if (clen >= NEAREST_MAX)
			continue;
		d = distance(word, candidates[i]);
		/* A third of the word wrong is a slip, more is another word; an unfinished word is
		 * a slip. */
		if (d > (len < 3 ? 1 : (len + 1) / 3) &&
		    (len < 3 || strncmp(word, candidates[i], len) != 0))
			continue;
		if (best == NULL || d < best_d) {
			best = candidates[i];
			best_d = d;
		}
	}
	return best;
}

/* Bytes of the UTF-8 character at s, or 0 if it is none (cut, overlong, surrogate, too big). */
static size_t
utf8_len(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		return (s[1] & 0xc0) == 0x80 ? 2 : 0;
	if (s[0] >= 0xe0 && s[0] <= 0xef) {
		if ((s[1] & 0xc0) != 0x80 || (s[0] == 0xe0 && s[1] < 0xa0) ||
		    (s[0] == 0xed && s[1] > 0x9f))
			return 0;
		return (s[2] & 0xc0) == 0x80 ? 3 : 0;
	}
	if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		if ((s[1] & 0xc0) != 0x80 || (s[0] == 0xf0 && s[1] < 0x90) ||
		    (s[0] == 0xf4 && s[1] > 0x8f) || (s[2] & 0xc0) != 0x80)
			return 0;
		return (s[3] & 0xc0) == 0x80 ? 4 : 0;
	}
	return 0;
}

/* How many of the bytes at s, of a character of len bytes or none (0), make a control character. */
static size_t
control_len(const unsigned char *s, size_t len)
{
	if (len == 1)
		return *s < 0x20 || *s == 0x7f ? 1 : 0;
	if (len == 2)
		return s[0] == 0xc2 && s[1] < 0xa0 ? 2 : 0;
	return len == 0 && *s >= 0x80 && *s < 0xa0 ? 1 : 0;
}

size_t
cli_tame(char *s, size_t n, const char *kept)
{
	size_t i, len, bad, changed = 0;

	for (i = 0; i < n; i += len) {
		const unsigned char *p = (const unsigned char *)s + i;

		len = utf8_len(p);
		bad = control_len(p, len);
		len = len == 0 || i + len > n ? 1 : len;
		if (bad == 1 && s[i] != '\0' && strchr(kept, s[i]) != NULL)
			continue;
		memset(s + i, '?', bad);
		changed += bad;
	}
	return changed;
}

void
cli_json_string(void *f, const char *s)
{
	FILE *out = f;
	const unsigned char *p;

	if (s == NULL) {
		(void)fputs("null", out);
		return;
	}
	(void)fputc('"', out);
	for (p = (const unsigned char *)s; *p != '\0';) {
		size_t n = utf8_len(p);

		if (n == 0) { /* Names come from guests: still valid JSON. */
			(void)fputs("\\ufffd", out);
			n = 1;
		} else if (*p == '"' || *p == '\\') {
			(void)fprintf(out, "\\%c", *p);
		} else if (*p == '\n') {
			(void)fputs("\\n", out);
		} else if (*p == '\t') {
			(void)fputs("\\t", out);
		} else if (control_len(p, n) > 0) {
			(void)fprintf(out, "\\u%04x", n == 1 ? *p : p[1]);
		} else {
			(void)fwrite(p, 1, n, out);
		}
		p += n;
	}
	(void)fputc('"', out);
}

const char *
cli_word(struct cli_word *w, const char *s)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789@%+=:,./_-";
	size_t n = 0;

	if (*s != '\0' && s[strspn(s, plain)] == '\0')
		return s;
	w->text[n++] = '\'';
	for (const char *p = s; *p != '\0'; p++) {
		if (n + sizeof "'\\''" + 1 > sizeof w->text)
			return s;
		if (*p == '\'')
			n = (size_t)(stpcpy(w->text + n, "'\\''") - w->text);
		else
			w->text[n++] = *p;
	}
	w->text[n++] = '\'';
	w->text[n] = '\0';
	return w->text;
}

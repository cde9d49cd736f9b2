/*
 * Why not libinih, which this file would otherwise wrap: as Debian 12 builds it (version 55), and
 * whatever its run-time options say, it cuts section names after 49 bytes without a word (two VMs
 * would share a section), drops sections without keys, accepts "[a] junk" and an empty key, and
 * says of an error only the line, never what is wrong.  Its options are global variables, and its
 * allocations cannot be made to fail in a test.  What is left to do by hand is small.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/memory.h"

enum { MAX_LINE = 8 << 10, MAX_TEXT = 1 << 20 };

struct config {
	char *origin;
	char *text; /* the copy that was cut up in place; entries point into it */
	struct config_entry *entries;
	size_t n, cap;
};

struct parser {
	struct config *c;
	const char *section, *name;
	bool open;         /* the section has had no key yet, and is not "" */
	unsigned line;     /* of the line being read */
	unsigned sec_line; /* of the section header */
	struct lc_err *e;
};

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static char *
skip_blanks(char *s)
{
	while (is_blank(*s))
		s++;
	return s;
}

static void
trim_end(char *s)
{
	size_t n = strlen(s);

	while (n > 0 && is_blank(s[n - 1]))
		n--;
	s[n] = '\0';
}

static int
complain(const struct parser *p, const char *what)
{
	return lc_fail(p->e, LC_EINVAL, 0, "%s:%u: %s", p->c->origin, p->line, what);
}

static int
add_entry(struct parser *p, unsigned line, const char *key, const char *value)
{
	struct config *c = p->c;

	if (c->n == c->cap) {
		size_t cap = c->cap == 0 ? 32 : 2 * c->cap;
		struct config_entry *more = lc_realloc(c->entries, cap * sizeof *more);

		if (more == NULL)
			return lc_fail(p->e, LC_ENOMEM, 0, "%s: out of memory", c->origin);
		c->entries = more;
		c->cap = cap;
	}
	c->entries[c->n++] = (struct config_entry){
	    .section = p->section, .name = p->name, .key = key, .value = value, .line = line};
	return 0;
}

/* A section ends where another starts or the text does; one without keys is still heard of. */
static int
end_section(struct parser *p)
{
	if (!p->open)
		return 0;
	p->open = false;
	return add_entry(p, p->sec_line, "", "");
}

static int
take_section(struct parser *p, char *s)
{
	char *end = strchr(s, ']');
	char *name;
	int rc;

	if (end == NULL)
		return complain(p, "no ] at the end of the section name");
	if (*skip_blanks(end + 1) != '\0')
		return complain(p, "text after the ] of the section name");
	rc = end_section(p);
	if (rc != 0)
		return rc;
	*end = '\0';
	s = skip_blanks(s + 1);
	trim_end(s);
	if (*s == '\0')
		return complain(p, "empty section name");
	for (name = s; *name != '\0' && !is_blank(*name);)
		name++;
	if (*name != '\0') {
		*name = '\0';
		name = skip_blanks(name + 1);
	}
	p->section = s;
	p->name = name;
	p->sec_line = p->line;
	p->open = true;
	return 0;
}

/* Whether a comment was meant to start inside a value.  Taken as value it would spoil a path
 * silently; cut off as comment it would spoil "a ; b" silently.  So it is refused. */
static bool
has_inline_comment(const char *s)
{
	for (; *s != '\0'; s++) {
		if (is_blank(s[0]) && (s[1] == '#' || s[1] == ';') &&
		    (is_blank(s[2]) || s[2] == '\0'))
			return true;
	}
	return false;
}

static int
take_key(struct parser *p, char *s)
{
	char *value = strchr(s, '=');
	const char *k;

	if (value == NULL)
		return complain(p, "neither [section], nor key = value, nor a comment");
	*value++ = '\0';
	value = skip_blanks(value);
	trim_end(s);
	if (*s == '\0')
		return complain(p, "no key before the =");
	for (k = s; *k != '\0'; k++) {
		if (!isalnum((unsigned char)*k) && strchr("_.-", *k) == NULL)
			return complain(p, "a key is made of letters, digits, '_', '-' and '.'");
	}
	if (has_inline_comment(value))
		return complain(p, "comments stand on lines of their own");
	p->open = false;
	return add_entry(p, p->line, s, value);
}

static int
take_line(struct parser *p, char *s, size_t n)
{
	size_t i;

	if (n > 0 && s[n - 1] == '\r')
		n--;
	if (n > MAX_LINE)
		return complain(p, "line longer than 8192 bytes");
	for (i = 0; i < n; i++) {
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
			return complain(p, "control character");
	}
	s[n] = '\0';
	trim_end(s);
	s = skip_blanks(s);
	if (*s == '\0' || *s == '#' || *s == ';')
		return 0;
	return *s == '[' ? take_section(p, s) : take_key(p, s);
}

static int
take_text(struct parser *p, char *s, size_t n)
{
	static const char bom[] = "\xef\xbb\xbf";
	int rc = 0;

	if (n >= 3 && memcmp(s, bom, 3) == 0) {
		s += 3;
		n -= 3;
	}
	while (rc == 0 && n > 0) {
		char *nl = memchr(s, '\n', n);
		size_t len = nl == NULL ? n : (size_t)(nl - s);
		size_t used = nl == NULL ? n : len + 1;

		p->line++;
		rc = take_line(p, s, len);
		s += used;
		n -= used;
	}
	return rc == 0 ? end_section(p) : rc;
}

int
config_parse(const char *origin, const char *text, size_t n, struct config **out, struct lc_err *e)
{
	struct config *c;
	struct parser p = {.section = "", .name = "", .e = e};
	int rc;

	*out = NULL;
	if (n > MAX_TEXT)
		return lc_fail(e, LC_EINVAL, 0, "%s: longer than %d bytes", origin, MAX_TEXT);
	c = lc_alloc(sizeof *c);
	if (c != NULL) {
		c->origin = lc_strdup(origin);
		c->text = lc_alloc(n + 1);
	}
	if (c == NULL || c->origin == NULL || c->text == NULL) {
		config_free(c);
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", origin);
	}
	if (n > 0)
		memcpy(c->text, text, n);
	p.c = c;
	rc = take_text(&p, c->text, n);
	if (rc != 0) {
		config_free(c);
		return rc;
	}
	*out = c;
	return 0;
}

int
config_load(const char *path, struct config **out, struct lc_err *e)
{
	struct lc_buf text = {0};
	int rc;

	*out = NULL;
	rc = file_read_all(path, MAX_TEXT, &text, e);
	if (rc == 0)
		rc = config_parse(path, (const char *)text.p, text.n, out, e);
	lc_buf_free(&text);
	return rc;
}

void
config_free(struct config *c)
{
	if (c == NULL)
		return;
	lc_free(c->origin);
	lc_free(c->text);
	lc_free(c->entries);
	lc_free(c);
}

const char *
config_origin(const struct config *c)
{
	return c->origin;
}

const struct config_entry *
config_entries(const struct config *c, size_t *n)
{
	*n = c->n;
	return c->entries;
}

const char *
config_get(const struct config *c, const char *section, const char *name, const char *key)
{
	size_t i;

	if (name == NULL)
		name = "";
	for (i = c->n; i-- > 0;) {
		const struct config_entry *t = &c->entries[i];

		if (strcmp(t->key, key) == 0 && *key != '\0' && strcmp(t->section, section) == 0 &&
		    strcmp(t->name, name) == 0)
			return t->value;
	}
	return NULL;
}

static const char *const size_units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

/* The power of 1024 that a unit stands for; -1 if it is none.  "KB" is one to nobody's
 * satisfaction. */
static int
unit_power(const char *s)
{
	int i;

	if (*s == '\0')
		return 0;
	for (i = 0; i <= 4; i++) {
		const char *u = size_units[i];

		if (strcasecmp(s, u) == 0 || (strlen(s) == 1 && strncasecmp(s, u, 1) == 0))
			return i;
	}
	return -1;
}

bool
config_size(const char *s, uint64_t *out)
{
	uint64_t whole = 0, frac = 0, frac_unit = 1;
	unsigned __int128 bytes;
	bool fraction;
	int power;

	if (!isdigit((unsigned char)*s))
		return false;
	for (; isdigit((unsigned char)*s); s++) {
		if (__builtin_mul_overflow(whole, (uint64_t)10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*s - '0'), &whole))
			return false;
	}
	fraction = *s == '.';
	if (fraction) {
		s++;
		if (!isdigit((unsigned char)*s))
			return false;
		for (; isdigit((unsigned char)*s); s++) {
			if (frac_unit == UINT64_C(1000000000)) /* More digits mean nothing. */
				return false;
			frac = 10 * frac + (uint64_t)(*s - '0');
			frac_unit *= 10;
		}
	}
	while (*s == ' ')
		s++;
	power = unit_power(s);
	if (power < 0 || (fraction && power == 0))
		return false;
	bytes = (unsigned __int128)whole << (10 * power);
	bytes += ((unsigned __int128)frac << (10 * power)) / frac_unit;
	if (bytes > UINT64_MAX)
		return false;
	*out = (uint64_t)bytes;
	return true;
}

bool
config_rate(const char *s, uint64_t *out)
{
	static const char *const bits[] = {"bit", "kbit", "Mbit", "Gbit"};
	uint64_t scale = 1, n;
	char text[64], *unit;
	size_t len = strlen(s), i;

	if (len >= sizeof text)
		return false;
	memcpy(text, s, len + 1);
	if (len > 2 && strcmp(text + len - 2, "/s") == 0)
		text[len -= 2] = '\0';
	for (unit = text + len; unit > text && isalpha((unsigned char)unit[-1]); unit--)
		;
	for (i = 0; i < sizeof bits / sizeof bits[0]; i++, scale *= 1000) {
		if (strcasecmp(unit, bits[i]) != 0)
			continue;
		*unit = '\0';
		for (; unit > text && unit[-1] == ' '; unit--)
			unit[-1] = '\0';
		if (!config_uint(text, &n) || __builtin_mul_overflow(n, scale, &n))
			return false;
		*out = n / 8;
		return true;
	}
	return config_size(text, out);
}

bool
config_bool(const char *s, bool *out)
{
	static const char *const words[][2] = {
	    {"yes", "no"}, {"true", "false"}, {"on", "off"}, {"1", "0"}};
	size_t i;

	for (i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (strcasecmp(s, words[i][0]) == 0) {
			*out = true;
			return true;
		}
		if (strcasecmp(s, words[i][1]) == 0) {
			*out = false;
			return true;
		}
	}
	return false;
}

bool
config_uint(const char *s, uint64_t *out)
{
	unsigned long long v;
	char *end;

	if (!isdigit((unsigned char)*s)) /* strtoull() takes blanks and signs. */
		return false;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno != 0 || *end != '\0')
		return false;
	*out = v;
	return true;
}

char *
size_format(char *dst, size_t n, uint64_t bytes)
{
	unsigned unit = 0;
	uint64_t tenths = 0;

	if (bytes < 1024) {
		(void)snprintf(dst, n, "%" PRIu64 " B", bytes);
		return dst;
	}
	/* By the rounded value, so that 1 MiB less one byte is not "1024.0 KiB". */
	do {
		unsigned __int128 one = (unsigned __int128)1 << (10 * ++unit);

		tenths = (uint64_t)(((unsigned __int128)bytes * 10 + one / 2) / one);
	} while (tenths >= 10240 && unit < 6);
	(void)snprintf(dst, n, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10,
	               size_units[unit]);
	return dst;
}

/*
 * config: whatever the text, the parser either names the line that is wrong, or gives entries that,
 * written down again, read the same.
 */
#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "store/base/config.h"
#include "store/base/memory.h"
#include "tests/fuzz/fuzz.h"

static unsigned long
lines_in(const uint8_t *p, size_t n)
{
	unsigned long lines = 1;

	for (size_t i = 0; i < n; i++)
		lines += p[i] == '\n';
	return lines;
}

static void
check_complaint(const struct lc_err *e, unsigned long lines)
{
	unsigned long line;
	char *end;

	fuzz_check(strncmp(e->msg, "fuzz:", 5) == 0);
	if (strstr(e->msg, "longer than 1048576 bytes") != NULL)
		return;
	line = strtoul(e->msg + 5, &end, 10);
	fuzz_check(*end == ':' && end[1] == ' ' && end[2] != '\0');
	fuzz_check(line >= 1 && line <= lines);
}

static void
check_text(const char *s)
{
	size_t n = strlen(s);

	fuzz_check(n == 0 || (!isblank((unsigned char)s[0]) && !isblank((unsigned char)s[n - 1])));
	for (; *s != '\0'; s++)
		fuzz_check((unsigned char)*s >= 0x20 || *s == '\t');
}

static void
check_values(const char *s)
{
	uint64_t size = 0, number = 0;
	char text[32];
	bool b;

	(void)config_bool(s, &b);
	if (config_uint(s, &number)) {
		fuzz_check(config_size(s, &size)); /* A number is a size in bytes. */
		fuzz_check(size == number);
	}
	if (config_size(s, &size))
		fuzz_check(strlen(size_format(text, sizeof text, size)) >= 3);
}

static void
check_entry(const struct config *c, const struct config_entry *t, unsigned long lines)
{
	check_text(t->section);
	check_text(t->name);
	check_text(t->value);
	check_values(t->value);
	fuzz_check(strpbrk(t->section, " \t") == NULL);
	fuzz_check(*t->section != '\0' || (*t->name == '\0' && *t->key != '\0'));
	fuzz_check(*t->key != '\0' || *t->value == '\0');
	for (const char *k = t->key; *k != '\0'; k++)
		fuzz_check(isalnum((unsigned char)*k) || strchr("_.-", *k) != NULL);
	fuzz_check(t->line >= 1 && t->line <= lines);
	fuzz_check((config_get(c, t->section, t->name, t->key) == NULL) == (*t->key == '\0'));
}

static void
write_down(const struct config_entry *t, struct lc_buf *b)
{
	int rc = 0;

	if (*t->section != '\0')
		rc = lc_buf_printf(b, "[%s%s%s]\n", t->section, *t->name == '\0' ? "" : " ",
		                   t->name);
	if (rc == 0 && *t->key != '\0')
		rc = lc_buf_printf(b, "%s=%s\n", t->key, t->value);
	fuzz_check(rc == 0);
}

static void
check_round_trip(const struct config_entry *t, size_t n)
{
	struct lc_err e = LC_ERR_INIT;
	const struct config_entry *u;
	struct lc_buf b = {0};
	struct config *again;
	size_t m, i;

	for (i = 0; i < n && b.n < 1 << 20; i++)
		write_down(&t[i], &b);
	if (b.n > 1 << 20) { /* The sections repeated made it too long. */
		lc_buf_free(&b);
		return;
	}
	fuzz_check(config_parse("again", (const char *)b.p, b.n, &again, &e) == 0);
	u = config_entries(again, &m);
	fuzz_check(m == n);
	for (i = 0; i < n; i++) {
		fuzz_check(strcmp(t[i].section, u[i].section) == 0);
		fuzz_check(strcmp(t[i].name, u[i].name) == 0);
		fuzz_check(strcmp(t[i].key, u[i].key) == 0);
		fuzz_check(strcmp(t[i].value, u[i].value) == 0);
	}
	config_free(again);
	lc_buf_free(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	unsigned long lines = lines_in(p, n);
	struct lc_err e = LC_ERR_INIT;
	const struct config_entry *t;
	struct config *c;
	size_t entries, i;
	int rc = config_parse("fuzz", (const char *)p, n, &c, &e);

	fuzz_check(rc == 0 || rc == LC_EINVAL);
	fuzz_check(e.code == rc);
	if (rc != 0) {
		fuzz_check(c == NULL);
		check_complaint(&e, lines);
		return 0;
	}
	t = config_entries(c, &entries);
	for (i = 0; i < entries; i++) {
		fuzz_check(i == 0 || t[i].line > t[i - 1].line);
		/* config_get() is linear: not on all of a text made of nothing but keys. */
		if (i < 256)
			check_entry(c, &t[i], lines);
	}
	check_round_trip(t, entries);
	config_free(c);
	return 0;
}

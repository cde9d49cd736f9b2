#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/hypervisor/qemutext.h"

static void
add(struct qemutext *j, const char *s)
{
	if (lc_buf_append(&j->text, s, strlen(s)) != 0)
		j->failed = true;
}

static void
add_string(struct qemutext *j, const char *s)
{
	add(j, "\"");
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;
		const char plain[2] = {*s, '\0'};
		char escaped[8];

		(void)snprintf(escaped, sizeof escaped, "\\u%04x", c);
		add(j, c == '"' || c == '\\' || c < 0x20 || c == 0x7f ? escaped : plain);
	}
	add(j, "\"");
}

static void
add_key(struct qemutext *j, const char *key)
{
	add(j, j->text.n == 0 ? "{" : ",");
	add_string(j, key);
	add(j, ":");
}

void
qemutext_put(struct qemutext *j, const char *key, const char *value)
{
	add_key(j, key);
	add_string(j, value);
}

void
qemutext_put_number(struct qemutext *j, const char *key, uint64_t v)
{
	char digits[24];

	(void)snprintf(digits, sizeof digits, "%" PRIu64, v);
	add_key(j, key);
	add(j, digits);
}

void
qemutext_put_bool(struct qemutext *j, const char *key, bool v)
{
	add_key(j, key);
	add(j, v ? "true" : "false");
}

void
qemutext_put_object(struct qemutext *j, const char *key, struct qemutext *inner)
{
	char *text = qemutext_end(inner);

	add_key(j, key);
	if (text == NULL)
		j->failed = true;
	else
		add(j, text);
	lc_free(text);
}

char *
qemutext_end(struct qemutext *j)
{
	char *text;

	add(j, j->text.n == 0 ? "{}" : "}");
	if (lc_buf_append(&j->text, "", 1) != 0)
		j->failed = true;
	if (j->failed) {
		qemutext_drop(j);
		return NULL;
	}
	text = (char *)j->text.p;
	*j = (struct qemutext){0};
	return text;
}

void
qemutext_drop(struct qemutext *j)
{
	lc_buf_free(&j->text);
	j->failed = false;
}

char *
qemutext_commas(const char *s)
{
	char *out = lc_alloc(2 * strlen(s) + 1), *p = out;

	if (out == NULL)
		return NULL;
	for (; *s != '\0'; s++) {
		if (*s == ',')
			*p++ = ',';
		*p++ = *s;
	}
	return out;
}

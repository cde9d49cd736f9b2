#include <string.h>

#include "agent/hypervisor/deftext.h"
#include "agent/hypervisor/imageformat.h"

#define HEXES "0123456789abcdef"
#define TOPOLOGY_MAX 1024u

bool
deftext_is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

/* The first letter is of `first`, the others of `rest`. */
static bool
made_of(const char *s, const char *first, const char *rest)
{
	return deftext_is_one_of(s[0], first) && strspn(s + 1, rest) == strlen(s + 1);
}

bool
deftext_is_name(const char *s)
{
	return made_of(s, DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS "_",
	               DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS "_.-");
}

bool
deftext_is_machine(const char *s)
{
	return made_of(s, DEFTEXT_LOWERS DEFTEXT_DIGITS, DEFTEXT_LOWERS DEFTEXT_DIGITS ".-");
}

bool
deftext_is_cpu(const char *s)
{
	return made_of(s, DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS,
	               DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS "_.-");
}

const char *
deftext_feature(const char *s, bool *on, char name[DEFTEXT_FEATURE_MAX])
{
	size_t n;

	if (*s != '+' && *s != '-')
		return NULL;
	*on = *s++ == '+';
	n = strspn(s, DEFTEXT_LOWERS DEFTEXT_DIGITS "-.");
	if (n == 0 || n >= DEFTEXT_FEATURE_MAX || *s == '-' || *s == '.')
		return NULL;
	memcpy(name, s, n);
	name[n] = '\0';
	s += n;
	if (*s == ',')
		return s[1] == '\0' ? NULL : s + 1;
	return *s == '\0' ? s : NULL;
}

bool
deftext_is_features(const char *s)
{
	char name[DEFTEXT_FEATURE_MAX];
	bool on;

	do {
		s = deftext_feature(s, &on, name);
	} while (s != NULL && *s != '\0');
	return s != NULL;
}

bool
deftext_topology(const char *s, unsigned out[3])
{
	size_t i;

	for (i = 0; i < 3; i++) {
		for (out[i] = 0; deftext_is_one_of(*s, DEFTEXT_DIGITS) && out[i] <= TOPOLOGY_MAX;
		     s++)
			out[i] = 10 * out[i] + (unsigned)(*s - '0');
		if (out[i] == 0 || out[i] > TOPOLOGY_MAX || *s != (i < 2 ? ':' : '\0'))
			return false;
		s++;
	}
	return true;
}

bool
deftext_is_topology(const char *s)
{
	unsigned n[3];

	return deftext_topology(s, n);
}

bool
deftext_is_serial(const char *s)
{
	return made_of(s, DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS,
	               DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS "_.:+-");
}

/* Whether s has the form of `form`, where 'x' stands for a hex digit in lower case. */
static bool
has_form(const char *s, const char *form)
{
	for (; *form != '\0'; s++, form++) {
		if (*form == 'x' ? !deftext_is_one_of(*s, HEXES) : *s != *form)
			return false;
	}
	return *s == '\0';
}

bool
deftext_is_uuid(const char *s)
{
	return has_form(s, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
}

bool
deftext_is_mac(const char *s)
{
	/* The lowest bit of the first byte says multicast, which is no address of a card. */
	return has_form(s, "xx:xx:xx:xx:xx:xx") && deftext_is_one_of(s[1], "02468ace");
}

bool
deftext_is_address(const char *s)
{
	return has_form(s, "xx:xx.x") && deftext_is_one_of(s[3], "01") &&
	       deftext_is_one_of(s[6], "01234567");
}

bool
deftext_is_network(const char *s)
{
	static const char bridge[] = "bridge:";
	size_t n = sizeof bridge - 1;

	if (strncmp(s, bridge, n) == 0)
		return deftext_is_name(s + n) &&
		       strlen(s + n) < 16; /* as long as an interface's may be */
	return deftext_is_name(s);
}

/* Bytes of the UTF-8 sequence at s, 0 if it is none: no overlong forms, no surrogates. */
static size_t
utf8_length(const unsigned char *s)
{
	static const struct {
		unsigned char first, last, low, high; /* of the lead byte; of the second byte */
		size_t n;
	} forms[] = {
	    {0x01, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
	    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
	    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	size_t i, k;

	for (i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		if (s[0] < forms[i].first || s[0] > forms[i].last)
			continue;
		if (forms[i].n > 1 && (s[1] < forms[i].low || s[1] > forms[i].high))
			return 0;
		for (k = 2; k < forms[i].n; k++) {
			if ((s[k] & 0xc0) != 0x80)
				return 0;
		}
		return forms[i].n;
	}
	return 0;
}

/* Text that stands in a line of INI and comes out as it went in (see config.c). */
bool
deftext_is_text(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t n = strlen(s), k;

	if (n == 0 || s[0] == ' ' || s[n - 1] == ' ')
		return false;
	for (; *p != '\0'; p += k) {
		k = utf8_length(p);
		if (k == 0 || *p < 0x20 || *p == 0x7f)
			return false;
		if (p[0] == ' ' && deftext_is_one_of((char)p[1], "#;") &&
		    (p[2] == ' ' || p[2] == '\0'))
			return false;
	}
	return true;
}

bool
deftext_is_path(const char *s)
{
	return s[0] == '/' && deftext_is_text(s);
}

/* Of a part that was left out: stands between brackets, so without them. */
bool
deftext_is_what(const char *s)
{
	size_t n = strlen(s);

	return made_of(s, DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS "/_",
	               DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS " /_.:()+-") &&
	       s[n - 1] != ' ';
}

bool
deftext_is_format(const char *s)
{
	return imageformat_known(s);
}

bool
deftext_is_clock(const char *s)
{
	return strcmp(s, "utc") == 0 || strcmp(s, "localtime") == 0;
}

bool
deftext_is_model(const char *s)
{
	static const char *const models[] = {"virtio", "e1000", "e1000e", "rtl8139"};
	size_t i;

	for (i = 0; i < sizeof models / sizeof models[0]; i++) {
		if (strcmp(s, models[i]) == 0)
			return true;
	}
	return false;
}

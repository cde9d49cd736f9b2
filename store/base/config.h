/**
 * config: INI text into sections and keys, with file and line for every complaint.
 *
 * "[section]" or "[section name]", split at the first blank run; "key = value", where a key is made
 * of letters, digits, '_', '-' and '.', and a value is the rest of the line without outer blanks.
 * Lines that start with "#" or ";" are comments; a "#" or ";" with blanks on both sides within a
 * value is refused, since one half of the readers takes it for a comment and the other does not.
 * No continuation lines, no quotes.  CRLF and a byte order mark are accepted, control characters
 * are not.
 *
 * The same parser reads locum.conf, VM definitions and anything else that is INI here; what keys
 * mean is the caller's.
 */
#ifndef LOCUM_CONFIG_H
#define LOCUM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "store/base/errors.h"

struct config_entry {
	const char *section; /* "vm" of "[vm web01]", "" before the first section */
	const char *name;    /* "web01" of "[vm web01]", "" where there is none */
	const char *key;
	const char *value;
	unsigned line; /* 1-based */
};

struct config; /* a parsed file; entries in file order, keys may repeat */

/**
 * config_parse(origin, text, n, out, e):
 * Parse n bytes of INI (at most 1 MiB, a line at most 8 KiB, no NUL).  `origin` (a path) is
 * used in messages: "locum.conf:12: ...".
 *
 * Returns  0, LC_ENOMEM, or LC_EINVAL for the first line that is wrong.
 */
int config_parse(const char *origin, const char *text, size_t n, struct config **out,
                 struct lc_err *e);
/** config_load(path, out, e): read and parse a file. */
int config_load(const char *path, struct config **out, struct lc_err *e);
void config_free(struct config *c);
/** config_origin(c): the path given at parse time. */
const char *config_origin(const struct config *c);
/** config_entries(c, n): borrowed array of *n entries in file order; section headers without keys
 *  appear as an entry whose key is "" and value "". */
const struct config_entry *config_entries(const struct config *c, size_t *n);
/**
 * config_get(c, section, name, key):
 * The last value of a key, or NULL.
 */
const char *config_get(const struct config *c, const char *section, const char *name,
                       const char *key);

/* Values.  False where the text is no such value. */
/**
 * config_size(s, out):
 * "64 KiB", "20GiB", "512", "1.5 TiB" into bytes.  Units are binary, B to TiB or K, M, G, T, in any
 * case; "KB" is refused, because nobody knows which one is meant.
 */
bool config_size(const char *s, uint64_t *out);
/**
 * config_rate(s, out):
 * "50 MiB/s", "50 MiB" (a second is meant) or "400 Mbit/s" (k, M, G: powers of 1000, as links are
 * sold) into bytes a second.
 */
bool config_rate(const char *s, uint64_t *out);
/** config_bool(s, out): yes/no, true/false, on/off, 1/0. */
bool config_bool(const char *s, bool *out);
/** config_uint(s, out): a decimal number. */
bool config_uint(const char *s, uint64_t *out);
/** size_format(dst, n, bytes): "1.2 GiB"; returns dst. */
char *size_format(char *dst, size_t n, uint64_t bytes);

#endif

/**
 * cli: verbs, options and help from one table, so that --help, the man page
 * test and the parser cannot disagree.
 *
 * A verb may be of two words ("store init").  Options may stand before or after operands, the
 * common ones also before the verb; "--" ends them.  "--name=value", "--name value", "-n value" and
 * "-nvalue" are the same; a flag has no value; names are not abbreviated.
 *
 * Exit status: 0 done, 1 failed, 2 wrong use, 3 partly done.
 */
#ifndef LOCUM_CLI_H
#define LOCUM_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "store/base/errors.h"

enum cli_status { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_PARTLY = 3 };

struct cli_option {
	const char *name; /* long name without dashes; NULL ends the table */
	char letter;      /* short form or 0 */
	const char *arg;  /* "DIR" if it takes a value, NULL for a flag */
	const char *env;  /* environment variable read where the option is not given, or NULL */
	const char *help; /* one line */
	bool many;        /* may be given several times */
};

struct cli_args; /* what was parsed */

struct cli_verb {
	const char *name;     /* "backup", "store init" */
	const char *operands; /* "VM...|--all", for the usage line; "" if none */
	const char *summary;  /* one line, for `locum --help` */
	const char *details; /* paragraphs of --help, ending in one or more examples; may be NULL */
	const struct cli_option *options;     /* besides the common ones; may be NULL */
	int min_operands, max_operands;       /* max < 0: any number */
	int (*run)(const struct cli_args *a); /* returns enum cli_status */
};

/**
 * cli_main(argc, argv, verbs, nverbs):
 * Find the verb (an unknown one gets the nearest suggested), parse, run.  `locum --help` lists the
 * verbs in the order of the table; an element without a name is the heading of a group (its
 * summary), NULL an empty line.  Common to every verb: --config FILE (LOCUM_CONFIG), --store DIR
 * (LOCUM_STORE), --json, --quiet and --verbose (which set the level of log), --help.  Beside verbs:
 * `help [VERB]`, `--version`, and for the lint tests `help-options VERB`, which prints "--name"
 * lines, and `help-options`, which prints the names of the verbs.
 *
 * Returns  the exit status for main().
 */
int cli_main(int argc, char **argv, const struct cli_verb *const *verbs, size_t nverbs);

/*
 * Asking for an option that is not in the verb's table is a bug and asserts: else a slip like
 * "dry_run" for "dry-run" would never be found.
 */
/** cli_get(a, name): value of an option: the last one given, else its environment variable's (if
 *  that is not empty), else NULL. */
const char *cli_get(const struct cli_args *a, const char *name);
/** cli_get_many(a, name, i): i-th value of an option that may be given several times, or NULL. */
const char *cli_get_many(const struct cli_args *a, const char *name, size_t i);
/** cli_has(a, name): whether a flag was given. */
bool cli_has(const struct cli_args *a, const char *name);
/** cli_operand(a, i), cli_operands(a): the words that are no options. */
const char *cli_operand(const struct cli_args *a, size_t i);
size_t cli_operands(const struct cli_args *a);
/** cli_usage(a, fmt, ...): say what is wrong and where help is, on stderr; returns CLI_USAGE. */
int cli_usage(const struct cli_args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** cli_error(e): "locum: <message>" on stderr; returns CLI_FAILED (CLI_USAGE for LC_EINVAL). */
int cli_error(const struct lc_err *e);
/**
 * cli_nearest(word, candidates, n):
 * The candidate with the smallest edit distance, if near enough to be worth suggesting, else NULL.
 */
const char *cli_nearest(const char *word, const char *const *candidates, size_t n);
/**
 * cli_tame(s, n, kept):
 * Names come from guests and other sites: in the n bytes at s, which a NUL follows, every character
 * that tells a terminal to do something becomes '?'s: the controls of ASCII but for those in
 * `kept`, and those from 0x80 on, be they UTF-8 or single bytes.  Returns how many bytes it
 * changed.
 */
size_t cli_tame(char *s, size_t n, const char *kept);
struct cli_word {
	char text[1100];
};
/**
 * cli_word(w, s):
 * s as one word of a command that somebody may type into a shell: s itself where it is that
 * already, else quoted, in *w.  One that does not fit stays as it is.
 */
const char *cli_word(struct cli_word *w, const char *s);
/** cli_json_string(f, s): write s to the FILE f as a JSON string with its quotes. */
void cli_json_string(void *f, const char *s);

#endif

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/cli.h"
#include "store/base/log.h"
#include "store/base/memory.h"
#include "tests/lib/unit.h"

/* ---- a program with some verbs ---- */

static struct {
	unsigned runs;
	int status;       /* to return */
	bool info, debug; /* what log let through */
	char seen[1024];
} verb;

static void
note(const char *name, const char *value)
{
	size_t n = strlen(verb.seen);

	(void)snprintf(verb.seen + n, sizeof verb.seen - n, "%s%s=%s", n == 0 ? "" : " ", name,
	               value == NULL ? "(null)" : value);
}

static int
run_backup(const struct cli_args *a)
{
	size_t i;

	verb.runs++;
	verb.info = log_enabled(LOG_LV_INFO);
	verb.debug = log_enabled(LOG_LV_DEBUG);
	if (cli_has(a, "all"))
		note("all", "yes");
	if (cli_has(a, "json"))
		note("json", "yes");
	if (cli_get(a, "store") != NULL)
		note("store", cli_get(a, "store"));
	if (cli_get(a, "rate") != NULL)
		note("rate", cli_get(a, "rate"));
	for (i = 0; cli_get_many(a, "exclude", i) != NULL; i++)
		note("exclude", cli_get_many(a, "exclude", i));
	for (i = 0; i < cli_operands(a); i++)
		note("op", cli_operand(a, i));
	assert_null(cli_operand(a, i));
	return verb.status;
}

static int
run_usage(const struct cli_args *a)
{
	return cli_usage(a, "%d is no size", 7);
}

static int
run_init(const struct cli_args *a)
{
	(void)printf("made %s\n", cli_operand(a, 0));
	return CLI_DONE;
}

static const struct cli_option backup_options[] = {
    {.name = "all", .letter = 'a', .help = "every VM of the configuration"},
    {.name = "rate", .letter = 'r', .arg = "RATE", .env = "TEST_RATE", .help = "not faster"},
    {.name = "exclude", .arg = "DISK", .help = "leave out", .many = true},
    {.name = NULL},
};
static const struct cli_verb backup = {.name = "backup",
                                       .operands = "VM...|--all",
                                       .summary = "take restore points",
                                       .details = "Takes them.\n\nExample:\n  locum backup --all",
                                       .options = backup_options,
                                       .max_operands = -1,
                                       .run = run_backup};
static const struct cli_verb init = {.name = "store init",
                                     .operands = "DIR",
                                     .summary = "make a store",
                                     .min_operands = 1,
                                     .max_operands = 1,
                                     .run = run_init};
static const struct cli_verb stats = {
    .name = "store stats", .operands = "", .summary = "what it holds", .run = run_usage};
static const struct cli_verb restore = {
    .name = "restore", .operands = "POINT", .summary = "get it back", .run = run_backup};
static const struct cli_verb restore_all = {
    .name = "restore all", .operands = "", .summary = "get all back", .run = run_usage};
static const struct cli_verb heading = {.name = NULL, .summary = "Restore points out"};
static const struct cli_verb *const verbs[] = {&init,    &stats,   NULL,        &backup,
                                               &heading, &restore, &restore_all};

/* ---- running it, its output caught ---- */

static char out[16384], err[16384];

static void
slurp(FILE *f, char *text)
{
	size_t n;

	rewind(f);
	n = fread(text, 1, 16383, f);
	text[n] = '\0';
	assert_int_equal(fclose(f), 0);
}

static int
run(const char *first, ...)
{
	char *argv[32] = {NULL};
	FILE *o = tmpfile(), *e = tmpfile();
	int old_out = dup(1), old_err = dup(2);
	int argc = 1, status;
	va_list ap;

	argv[0] = lc_strdup("locum");
	va_start(ap, first);
	for (const char *s = first; s != NULL; s = va_arg(ap, const char *))
		argv[argc++] = lc_strdup(s);
	va_end(ap);
	verb.runs = 0;
	verb.seen[0] = '\0';
	(void)fflush(NULL);
	assert_true(dup2(fileno(o), 1) == 1 && dup2(fileno(e), 2) == 2);
	status = cli_main(argc, argv, verbs, sizeof verbs / sizeof verbs[0]);
	(void)fflush(NULL);
	(void)dup2(old_out, 1);
	(void)dup2(old_err, 2);
	(void)close(old_out);
	(void)close(old_err);
	slurp(o, out);
	slurp(e, err);
	for (int i = 0; i < argc; i++)
		lc_free(argv[i]);
	log_set_level(LOG_LV_INFO);
	return status;
}

#define RUN(...) run(__VA_ARGS__, NULL)

static int
no_environment(void **state)
{
	(void)state;
	(void)unsetenv("LOCUM_STORE");
	(void)unsetenv("LOCUM_CONFIG");
	(void)unsetenv("TEST_RATE");
	verb.status = CLI_DONE;
	return 0;
}

#define assert_has(text, part)                                    \
	do {                                                      \
		if (strstr(text, part) == NULL)                   \
			fail_msg("no \"%s\" in: %s", part, text); \
	} while (0)

static void
options_stand_anywhere(void **state)
{
	(void)state;
	assert_int_equal(RUN("backup", "web01", "--all", "db", "--store", "/s", "-r", "5"), 0);
	assert_string_equal(verb.seen, "all=yes store=/s rate=5 op=web01 op=db");
	assert_int_equal(RUN("--store=/s", "--json", "backup", "web01"), 0);
	assert_string_equal(verb.seen, "json=yes store=/s op=web01");
	assert_int_equal(RUN("--store", "/s", "backup"), 0);
	assert_string_equal(verb.seen, "store=/s");
	assert_int_equal(RUN("-q", "backup", "-av", "-r5", "x"), 0);
	assert_string_equal(verb.seen, "all=yes rate=5 op=x");
	assert_int_equal(RUN("backup", "-ar", "5"), 0);
	assert_string_equal(verb.seen, "all=yes rate=5");
	assert_int_equal(RUN("backup", "--exclude=a=b"), 0);
	assert_string_equal(verb.seen, "exclude=a=b");
	assert_string_equal(err, "");
}

static void
two_dashes_end_options(void **state)
{
	(void)state;
	assert_int_equal(RUN("backup", "--", "--all", "-r", "--"), 0);
	assert_string_equal(verb.seen, "op=--all op=-r op=--");
	assert_int_equal(RUN("backup", "-"), 0); /* One dash is a word. */
	assert_string_equal(verb.seen, "op=-");
	assert_int_equal(RUN("backup", "backup"), 0); /* An operand named like the verb. */
	assert_string_equal(verb.seen, "op=backup");
}

static void
the_last_or_every_value(void **state)
{
	(void)state;
	assert_int_equal(RUN("backup", "--rate", "1", "--rate=2"), 0);
	assert_string_equal(verb.seen, "rate=2");
	assert_int_equal(RUN("backup", "--exclude", "a", "--exclude", "b"), 0);
	assert_string_equal(verb.seen, "exclude=a exclude=b");
}

static void
the_environment_fills_in(void **state)
{
	(void)state;
	assert_int_equal(setenv("LOCUM_STORE", "/env", 1), 0);
	assert_int_equal(setenv("TEST_RATE", "", 1), 0); /* Empty is as unset. */
	assert_int_equal(RUN("backup"), 0);
	assert_string_equal(verb.seen, "store=/env");
	assert_int_equal(RUN("backup", "--store=/given"), 0);
	assert_string_equal(verb.seen, "store=/given");
}

static void
quiet_and_verbose_set_the_log(void **state)
{
	(void)state;
	assert_int_equal(RUN("backup"), 0);
	assert_true(verb.info && !verb.debug);
	assert_int_equal(RUN("backup", "-q"), 0);
	assert_true(!verb.info && !verb.debug);
	assert_int_equal(RUN("--verbose", "backup"), 0);
	assert_true(verb.info && verb.debug);
}

static void
wrong_use_is_two(void **state)
{
	static const struct {
		const char *words[5], *message;
	} rows[] = {
	    {{NULL}, "locum: which verb?\nTry 'locum --help'.\n"},
	    {{"bakcup", "web01"}, "locum: unknown verb 'bakcup'; did you mean 'backup'?"},
	    {{"zzzzzz"}, "locum: unknown verb 'zzzzzz'\n"},
	    {{"store"}, "locum: 'store' is one of: store init, store stats\n"},
	    {{"store", "--json"}, "locum: 'store' is one of: store init, store stats\n"},
	    {{"store", "intt"}, "locum: unknown verb 'store intt'; did you mean 'store init'?"},
	    {{"stroe", "init"}, "locum: unknown verb 'stroe init'; did you mean 'store init'?"},
	    {{"store", "zzzzzzzz"}, "locum: 'store' is one of: store init, store stats\n"},
	    {{"backup", "--al"},
	     "locum backup: unknown option '--al'; did you mean '--all'?\n"
	     "Try 'locum backup --help'.\n"},
	    {{"backup", "--exlude=x"}, "unknown option '--exlude'; did you mean '--exclude'?"},
	    {{"backup", "--zzzzzzzzzz"}, "locum backup: unknown option '--zzzzzzzzzz'\n"},
	    {{"backup", "-az"}, "locum backup: unknown option '-z'\n"},
	    {{"backup", "--all=yes"}, "locum backup: option '--all' takes no value\n"},
	    {{"backup", "--rate"}, "locum backup: option '--rate' needs a value (RATE)\n"},
	    {{"backup", "-r"}, "locum backup: option '--rate' needs a value (RATE)\n"},
	    {{"backup", "--rate="}, "locum backup: option '--rate' needs a value (RATE), not an"},
	    {{"backup", "--rate", ""},
	     "locum backup: option '--rate' needs a value (RATE), not an"},
	    {{"backup", "--rate", "--all"}, "write '--rate=--all'"},
	    {{"--jsno", "backup"}, "locum: unknown option '--jsno'; did you mean '--json'?\n"},
	    {{"--all", "backup"}, "locum: unknown option '--all'"}, /* not a common one */
	    {{"--verison"}, "locum: unknown option '--verison'; did you mean '--version'?\n"},
	    {{"restore", "al"}, "locum: unknown verb 'restore al'; did you mean 'restore all'?\n"},
	    {{"restore", "zzzzzz"}, "locum restore: one word too many: 'zzzzzz'\n"},
	    {{"store", "init"}, "locum store init: operand missing: locum store init DIR\n"},
	    {{"store", "init", "a", "b"}, "locum store init: one word too many: 'b'\n"},
	    {{"store", "init", ""}, "locum store init: an empty word: locum store init DIR\n"},
	    {{"store", "stats"}, "locum store stats: 7 is no size\n"},
	    {{"help", "bakcup"}, "locum: unknown verb 'bakcup'; did you mean 'backup'?"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const char *const *w = rows[i].words;

		assert_int_equal(
		    run(w[0], w[0] ? w[1] : NULL, w[1] ? w[2] : NULL, w[2] ? w[3] : NULL, NULL),
		    CLI_USAGE);
		assert_has(err, rows[i].message);
		assert_string_equal(out, "");
		assert_int_equal(verb.runs, 0);
	}
}

static void
help_lists_verbs_in_order(void **state)
{
	const char *a, *b, *h, *r;

	(void)state;
	assert_int_equal(RUN("--help"), 0);
	assert_string_equal(err, "");
	a = strstr(out, "  store init       make a store\n");
	b = strstr(out, "\n\n  backup           take restore points\n");
	h = strstr(out, "\nRestore points out:\n");
	r = strstr(out, "  restore          get it back\n");
	assert_true(a != NULL && b != NULL && h != NULL && r != NULL && a < b && b < h && h < r);
	assert_has(out, "--store DIR");
	assert_has(out, "[$LOCUM_STORE]");
	assert_int_equal(RUN("help"), 0);
	assert_has(out, "store init");
	assert_int_equal(RUN("-h"), 0);
	assert_has(out, "store init");
}

static void
help_of_a_verb(void **state)
{
	char first[sizeof out];

	(void)state;
	assert_int_equal(RUN("backup", "--help"), 0);
	assert_has(out, "Usage: locum backup [OPTION]... VM...|--all\n\ntake restore points\n");
	assert_has(out, "\n  locum backup --all\n");
	assert_has(out, "  -a, --all                     every VM of the configuration\n");
	assert_has(out, "      --exclude DISK            leave out (may be repeated)\n");
	assert_has(out, "  -r, --rate RATE               not faster [$TEST_RATE]\n");
	assert_has(out, "  -q, --quiet ");
	assert_int_equal(verb.runs, 0);
	memcpy(first, out, sizeof first);
	assert_int_equal(RUN("help", "backup"), 0);
	assert_string_equal(out, first);
	assert_int_equal(RUN("--help", "backup"), 0);
	assert_string_equal(out, first);
	assert_int_equal(RUN("store", "init", "-h"), 0); /* Though an operand is missing. */
	assert_has(out, "Usage: locum store init [OPTION]... DIR\n");
	assert_int_equal(RUN("help", "store", "init"), 0);
	assert_has(out, "Usage: locum store init [OPTION]... DIR\n");
}

static void
help_of_a_family(void **state)
{
	(void)state;
	assert_int_equal(RUN("store", "--help"), 0);
	assert_string_equal(err, "");
	assert_has(out, "Usage: locum store VERB ");
	assert_has(out, "  store init       make a store\n  store stats ");
	assert_null(strstr(out, "backup"));
	assert_int_equal(RUN("help", "store"), 0);
	assert_has(out, "  store init       make a store\n");
	assert_int_equal(RUN("sto", "--help"), 2);
	assert_int_equal(RUN("store", "--frob"), 2);
}

static void
tables_for_the_lint_tests(void **state)
{
	(void)state;
	assert_int_equal(RUN("help-options", "backup"), 0);
	assert_string_equal(out, "--all\n--rate\n--exclude\n--config\n--store\n--json\n--quiet\n"
	                         "--verbose\n--help\n");
	assert_int_equal(RUN("--help-options", "store", "init"), 0);
	assert_string_equal(out, "--config\n--store\n--json\n--quiet\n--verbose\n--help\n");
	assert_int_equal(RUN("help-options"), 0);
	assert_string_equal(out, "store init\nstore stats\nbackup\nrestore\nrestore all\n");
	assert_int_equal(RUN("--version"), 0);
	assert_string_equal(out, "locum " LOCUM_VERSION "\n");
}

static void
statuses_come_through(void **state)
{
	(void)state;
	verb.status = CLI_PARTLY;
	assert_int_equal(RUN("backup"), CLI_PARTLY);
	verb.status = CLI_FAILED;
	assert_int_equal(RUN("backup"), CLI_FAILED);
}

static void
a_list_cut_by_a_full_disk_is_a_failure(void **state)
{
	FILE *full = fopen("/dev/full", "w");
	char *argv[] = {lc_strdup("locum"), lc_strdup("--help"), NULL};
	FILE *e = tmpfile();
	int old_out = dup(1), old_err = dup(2);
	int rc;

	(void)state;
	assert_non_null(full);
	(void)fflush(NULL);
	assert_true(dup2(fileno(full), 1) == 1 && dup2(fileno(e), 2) == 2);
	rc = cli_main(2, argv, verbs, sizeof verbs / sizeof verbs[0]);
	(void)dup2(old_out, 1);
	(void)dup2(old_err, 2);
	clearerr(stdout);
	(void)close(old_out);
	(void)close(old_err);
	(void)fclose(full);
	slurp(e, err);
	lc_free(argv[0]);
	lc_free(argv[1]);
	assert_int_equal(rc, CLI_FAILED);
	assert_has(err, "locum: the output could not be written\n");
}

static void
no_memory_is_said(void **state)
{
	char a0[] = "locum", a1[] = "backup", a2[] = "--all";
	char *argv[] = {a0, a1, a2, NULL};
	int old_err = dup(2), rc = CLI_FAILED;
	FILE *e = tmpfile();
	long n;

	(void)state;
	assert_true(dup2(fileno(e), 2) == 2);
	for (n = 0; rc != CLI_DONE && n < 50; n++) {
		lc_alloc_fail_after(n);
		rc = cli_main(3, argv, verbs, sizeof verbs / sizeof verbs[0]);
		lc_alloc_fail_after(-1);
		assert_true(rc == CLI_DONE || rc == CLI_FAILED);
	}
	(void)dup2(old_err, 2);
	(void)close(old_err);
	slurp(e, err);
	assert_has(err, "locum: out of memory\n");
	assert_true(n > 1);
	assert_int_equal(rc, CLI_DONE);
}

static void
errors_become_statuses(void **state)
{
	struct lc_err e = LC_ERR_INIT;
	int old_err = dup(2);
	FILE *f = tmpfile();

	(void)state;
	assert_true(dup2(fileno(f), 2) == 2);
	(void)lc_fail(&e, LC_EIO, 0, "disk vda");
	assert_int_equal(cli_error(&e), CLI_FAILED);
	lc_err_clear(&e);
	(void)lc_fail(&e, LC_EINVAL, 0, "no such unit");
	assert_int_equal(cli_error(&e), CLI_USAGE);
	e = (struct lc_err){.code = LC_EKEY};
	assert_int_equal(cli_error(&e), CLI_FAILED);
	assert_int_equal(cli_usage(NULL, "x"), CLI_USAGE);
	(void)dup2(old_err, 2);
	(void)close(old_err);
	slurp(f, err);
	assert_string_equal(err, "locum: disk vda\nlocum: no such unit\n"
	                         "locum: wrong or missing key\nlocum: x\nTry 'locum --help'.\n");
}

static void
nearest_words(void **state)
{
	static const char *const words[] = {"backup", "points", "prune", "scrub", "pair", "copy"};
	static const struct {
		const char *word, *want;
	} rows[] = {
	    {"backup", "backup"}, {"bakup", "backup"}, {"abckup", "backup"}, {"pruen", "prune"},
	    {"point", "points"},  {"scurb", "scrub"},  {"back", "backup"},   {"pait", "pair"},
	    {"restore", NULL},    {"", NULL},          {"zzzz", NULL},       {"p", NULL},
	};
	char longest[100];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const char *got = cli_nearest(rows[i].word, words, 6);

		if (rows[i].want == NULL)
			assert_null(got);
		else if (got == NULL || strcmp(got, rows[i].want) != 0)
			fail_msg("%s: %s", rows[i].word, got == NULL ? "(null)" : got);
	}
	memset(longest, 'a', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	assert_null(cli_nearest(longest, words, 6));
	assert_null(cli_nearest("x", NULL, 0));
}

static void
json_strings_are_always_valid(void **state)
{
	static const struct {
		const char *in, *want;
	} rows[] = {
	    {NULL, "null"},
	    {"", "\"\""},
	    {"a\"b\\c", "\"a\\\"b\\\\c\""},
	    {"\n\t\r\x01\x7f", "\"\\n\\t\\u000d\\u0001\\u007f\""},
	    {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
	     "\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\""},
	    {"\xc2\x9b", "\"\\u009b\""}, /* CSI */
	    {"\xff", "\"\\ufffd\""},
	    {"\xc3", "\"\\ufffd\""},                                  /* cut */
	    {"\xc0\xaf", "\"\\ufffd\\ufffd\""},                       /* overlong */
	    {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},            /* surrogate */
	    {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* too big */
	    {"\xe2\x82", "\"\\ufffd\\ufffd\""},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char text[200] = "";
		FILE *f = fmemopen(text, sizeof text, "w");

		assert_non_null(f);
		cli_json_string(f, rows[i].in);
		assert_int_equal(fclose(f), 0);
		assert_string_equal(text, rows[i].want);
	}
}

static void
nothing_is_said_to_a_terminal(void **state)
{
	static const struct {
		const char *in, *kept, *want;
	} rows[] = {
	    {"web01", "", "web01"},
	    {"\x1b[2J\a\n\x7f", "", "?[2J???"},
	    {"a\nb\tc\r", "\n\t", "a\nb\tc?"},
	    {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xc2\xa0", "",
	     "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xc2\xa0"},
	    {"\xc2\x9b"
	     "31m\xc2\x80",
	     "", "??31m??"},
	    {"\x9b"
	     "31m\xff\xc3",
	     "", "?31m\xff\xc3"},                                 /* no UTF-8 */
	    {"\xc3\x9b\xe2\x82\x9b", "", "\xc3\x9b\xe2\x82\x9b"}, /* of a character */
	    {"\xe2\x82\x1b", "", "\xe2??"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		char text[64];

		(void)snprintf(text, sizeof text, "%s", rows[i].in);
		(void)cli_tame(text, strlen(text), rows[i].kept);
		assert_string_equal(text, rows[i].want);
	}
}

static void
words_for_a_shell(void **state)
{
	static const struct {
		const char *in, *want;
	} rows[] = {
	    {"web01", "web01"},
	    {"/backup/store-1_a.b,c:d=e@f+g%h", "/backup/store-1_a.b,c:d=e@f+g%h"},
	    {"", "''"},
	    {"/my store", "'/my store'"},
	    {"a;b", "'a;b'"},
	    {"$(reboot)", "'$(reboot)'"},
	    {"it's", "'it'\\''s'"},
	    {"~root", "'~root'"},
	    {"a\nb", "'a\nb'"},
	    {"h\xc3\xa9", "'h\xc3\xa9'"},
	    {"qemu+unix:///system?socket=/x", "'qemu+unix:///system?socket=/x'"},
	};
	struct cli_word w;
	char many[sizeof w.text];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
		assert_string_equal(cli_word(&w, rows[i].in), rows[i].want);
	/* As long as fits, and one more. */
	for (i = 0; i < sizeof many; i++) {
		const char *got;

		memset(many, ' ', i);
		many[i] = '\0';
		got = cli_word(&w, many);
		if (got == many)
			break;
		assert_int_equal(strlen(got), i + 2);
	}
	assert_true(i > 1024 && i < sizeof many);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup(f, no_environment)
	    T(options_stand_anywhere),
	    T(two_dashes_end_options),
	    T(the_last_or_every_value),
	    T(the_environment_fills_in),
	    T(quiet_and_verbose_set_the_log),
	    T(wrong_use_is_two),
	    T(help_lists_verbs_in_order),
	    T(help_of_a_verb),
	    T(help_of_a_family),
	    T(tables_for_the_lint_tests),
	    T(statuses_come_through),
	    T(a_list_cut_by_a_full_disk_is_a_failure),
	    T(no_memory_is_said),
	    T(errors_become_statuses),
	    T(nearest_words),
	    T(json_strings_are_always_valid),
	    T(nothing_is_said_to_a_terminal),
	    T(words_for_a_shell),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

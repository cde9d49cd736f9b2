#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "store/base/cli.h"
#include "store/base/log.h"
#include "store/base/memory.h"

struct given { /* an option of the command line */
	const struct cli_option *option;
	const char *value; /* NULL for a flag */
};

struct cli_args {
	const struct cli_verb *verb;
	struct given *given;
	size_t ngiven;
	const char **operands;
	size_t noperands;
	bool help;
};

struct table { /* what cli_main() was called with */
	const struct cli_verb *const *verbs;
	size_t n;
};

static const struct cli_option common[] = {
    {.name = "config", .arg = "FILE", .env = "LOCUM_CONFIG", .help = "read this configuration"},
    {.name = "store", .arg = "DIR", .env = "LOCUM_STORE", .help = "use this store"},
    {.name = "json", .help = "print JSON"},
    {.name = "quiet", .letter = 'q', .help = "say only what is wrong"},
    {.name = "verbose", .letter = 'v', .help = "say more"},
    {.name = "help", .letter = 'h', .help = "print this help"},
    {.name = NULL},
};

static const struct cli_option no_options[] = {{.name = NULL}};

static const struct cli_option *
verb_options(const struct cli_verb *v)
{
	return v == NULL || v->options == NULL ? no_options : v->options;
}

/* ---- tables ---- */

static const struct cli_option *
find_in(const struct cli_option *o, const char *name, size_t n)
{
	for (; o->name != NULL; o++) {
		if (strlen(o->name) == n && strncmp(o->name, name, n) == 0)
			return o;
	}
	return NULL;
}

/* A verb's own option comes first, so that it may give a common one a better help line. */
static const struct cli_option *
find_option(const struct cli_verb *v, const char *name, size_t n)
{
	const struct cli_option *o = find_in(verb_options(v), name, n);

	return o != NULL ? o : find_in(common, name, n);
}

static const struct cli_option *
find_letter(const struct cli_verb *v, char letter)
{
	const struct cli_option *o;

	for (o = verb_options(v); o->name != NULL; o++) {
		if (o->letter == letter)
			return o;
	}
	for (o = common; o->name != NULL; o++) {
		if (o->letter == letter)
			return o;
	}
	return NULL;
}

static bool
is_verb(const struct cli_verb *v)
{
	return v != NULL && v->name != NULL;
}

static const struct cli_verb *
find_verb(const struct table *t, const char *name)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		if (is_verb(t->verbs[i]) && strcmp(t->verbs[i]->name, name) == 0)
			return t->verbs[i];
	}
	return NULL;
}

/* Whether word is the first of some two-word verbs. */
static bool
starts_verb(const struct cli_verb *v, const char *word)
{
	size_t n = strlen(word);

	return is_verb(v) && strncmp(v->name, word, n) == 0 && v->name[n] == ' ';
}

/* ---- nearest words ---- */

static const char *
nearest_verb(const struct table *t, const char *word)
{
	const char **names = lc_alloc_array(t->n, sizeof *names);
	const char *best = NULL;
	size_t i, n = 0;

	if (names == NULL)
		return NULL;
	for (i = 0; i < t->n; i++) {
		if (is_verb(t->verbs[i]))
			names[n++] = t->verbs[i]->name;
	}
	best = cli_nearest(word, names, n);
	lc_free(names);
	return best;
}

static const char *
nearest_option(const struct cli_verb *v, const char *word)
{
	const char *names[64] = {"version"};
	const struct cli_option *o;
	size_t n = v == NULL ? 1 : 0;

	for (o = verb_options(v); o->name != NULL && n < 64; o++)
		names[n++] = o->name;
	for (o = common; o->name != NULL && n < 64; o++)
		names[n++] = o->name;
	return cli_nearest(word, names, n);
}

/* ---- messages ---- */

static void __attribute__((format(printf, 2, 0)))
say_usage(const struct cli_verb *v, const char *fmt, va_list ap)
{
	const char *space = v == NULL ? "" : " ";
	const char *name = v == NULL ? "" : v->name;
	struct lc_buf b = {0};
	char what[1024];

	(void)vsnprintf(what, sizeof what, fmt, ap);
	if (lc_buf_printf(&b, "locum%s%s: %s\nTry 'locum%s%s --help'.\n", space, name, what, space,
	                  name) == 0)
		log_text((const char *)b.p);
	lc_buf_free(&b);
}

static int __attribute__((format(printf, 2, 3)))
usage(const struct cli_verb *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say_usage(v, fmt, ap);
	va_end(ap);
	return CLI_USAGE;
}

int
cli_usage(const struct cli_args *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say_usage(a == NULL ? NULL : a->verb, fmt, ap);
	va_end(ap);
	return CLI_USAGE;
}

int
cli_error(const struct lc_err *e)
{
	char text[sizeof e->msg + 16];

	(void)snprintf(text, sizeof text, "locum: %s\n",
	               e->msg[0] != '\0' ? e->msg : lc_code_text(e->code));
	log_text(text);
	return e->code == LC_EINVAL ? CLI_USAGE : CLI_FAILED;
}

/* ---- help ---- */

static void
print_options(const struct cli_option *o, const struct cli_option *hidden)
{
	for (; o->name != NULL; o++) {
		char left[64];

		if (find_in(hidden, o->name, strlen(o->name)) != NULL)
			continue;
		(void)snprintf(left, sizeof left, "%c%c%c --%s%s%s", o->letter ? '-' : ' ',
		               o->letter ? o->letter : ' ', o->letter ? ',' : ' ', o->name,
		               o->arg == NULL ? "" : " ", o->arg == NULL ? "" : o->arg);
		(void)printf("  %-29s %s%s", left, o->help == NULL ? "" : o->help,
		             o->many ? " (may be repeated)" : "");
		if (o->env != NULL)
			(void)printf(" [$%s]", o->env);
		(void)putchar('\n');
	}
}

static int
print_verb_help(const struct cli_verb *v)
{
	const char *operands = v->operands == NULL ? "" : v->operands;

	(void)printf("Usage: locum %s [OPTION]...%s%s\n\n%s\n", v->name,
	             *operands == '\0' ? "" : " ", operands, v->summary);
	if (v->details != NULL)
		(void)printf("\n%s%s", v->details,
		             v->details[0] != '\0' && v->details[strlen(v->details) - 1] == '\n'
		                 ? ""
		                 : "\n");
	if (verb_options(v)->name != NULL) {
		(void)printf("\nOptions:\n");
		print_options(verb_options(v), no_options);
	}
	(void)printf("\nCommon options:\n");
	print_options(common, verb_options(v));
	return CLI_DONE;
}

static void
print_verb_line(const struct cli_verb *v)
{
	if (v == NULL)
		(void)putchar('\n');
	else if (v->name == NULL)
		(void)printf("\n%s:\n", v->summary);
	else
		(void)printf("  %-16s %s\n", v->name, v->summary);
}

static int
print_help(const struct table *t)
{
	size_t i;

	(void)printf("Usage: locum VERB [OPTION]... [OPERAND]...\n\n"
	             "Restore points of running virtual machines: made, kept, booted.\n");
	if (t->n > 0 && is_verb(t->verbs[0]))
		(void)putchar('\n');
	for (i = 0; i < t->n; i++)
		print_verb_line(t->verbs[i]);
	(void)printf("\nCommon options:\n");
	print_options(common, no_options);
	(void)printf("\n'locum VERB --help' or 'locum help VERB' explains a verb.\n"
	             "Exit status: 0 done, 1 failed, 2 wrong use, 3 partly done.\n");
	return CLI_DONE;
}

/* Help on "store": the verbs that begin with that word.  False where none does. */
static bool
print_family(const struct table *t, const char *word)
{
	size_t i, n = 0;

	for (i = 0; i < t->n; i++) {
		if (!is_verb(t->verbs[i]) || !starts_verb(t->verbs[i], word))
			continue;
		if (n++ == 0)
			(void)printf("Usage: locum %s VERB [OPTION]... [OPERAND]...\n\n", word);
		print_verb_line(t->verbs[i]);
	}
	if (n > 0)
		(void)printf("\n'locum VERB --help' explains a verb.\n");
	return n > 0;
}

static int
print_option_names(const struct cli_verb *v)
{
	const struct cli_option *o;

	for (o = verb_options(v); o->name != NULL; o++)
		(void)printf("--%s\n", o->name);
	for (o = common; o->name != NULL; o++) {
		if (find_in(verb_options(v), o->name, strlen(o->name)) == NULL)
			(void)printf("--%s\n", o->name);
	}
	return CLI_DONE;
}

static int
print_verb_names(const struct table *t)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		if (is_verb(t->verbs[i]))
			(void)printf("%s\n", t->verbs[i]->name);
	}
	return CLI_DONE;
}

/* ---- finding the verb ---- */

static int
unknown_verb(const struct table *t, const char *word, const char *second)
{
	struct lc_buf family = {0}; /* "store init, store rebuild": what starts with word */
	char *both = second == NULL ? NULL : lc_asprintf("%s %s", word, second);
	const char *near = both == NULL ? NULL : nearest_verb(t, both);
	size_t i;
	int rc;

	for (i = 0; i < t->n; i++) {
		if (starts_verb(t->verbs[i], word))
			(void)lc_buf_printf(&family, "%s%s", family.n == 0 ? "" : ", ",
			                    t->verbs[i]->name);
	}
	if (near != NULL && strchr(near, ' ') != NULL) {
		rc = usage(NULL, "unknown verb '%s'; did you mean '%s'?", both, near);
	} else if (family.n > 0) {
		rc = usage(NULL, "'%s' is one of: %s", word, (const char *)family.p);
	} else {
		near = nearest_verb(t, word);
		rc = near == NULL
		         ? usage(NULL, "unknown verb '%s'", word)
		         : usage(NULL, "unknown verb '%s'; did you mean '%s'?", word, near);
	}
	lc_buf_free(&family);
	lc_free(both);
	return rc;
}

/* The verb at argv[i], of one or two words; *used says how many. */
static const struct cli_verb *
verb_at(const struct table *t, int argc, char **argv, int i, int *used)
{
	const struct cli_verb *v = NULL;

	if (i + 1 < argc) {
		char *both = lc_asprintf("%s %s", argv[i], argv[i + 1]);

		if (both != NULL)
			v = find_verb(t, both);
		lc_free(both);
	}
	*used = v == NULL ? 1 : 2;
	return v == NULL ? find_verb(t, argv[i]) : v;
}

/* "key chek": a verb of one word that takes no operand, where one of two words was meant. */
static bool
is_slip(const struct table *t, const struct cli_verb *v, int used, const char *second)
{
	char *both;
	const char *near;

	if (used > 1 || second == NULL || v->max_operands != 0)
		return false;
	both = lc_asprintf("%s %s", v->name, second);
	near = both == NULL ? NULL : nearest_verb(t, both);
	lc_free(both);
	return near != NULL && strchr(near, ' ') != NULL;
}

/* ---- parsing ---- */

struct cursor {
	int argc;
	char **argv;
	int i;           /* the argument being looked at */
	int verb, nverb; /* where the words of the verb are; not operands */
	struct cli_args *a;
};

static void
add_given(struct cli_args *a, const struct cli_option *o, const char *value)
{
	a->given[a->ngiven++] = (struct given){.option = o, .value = value};
	if (strcmp(o->name, "help") == 0)
		a->help = true;
}

static int
take_value(struct cursor *c, const struct cli_option *o, const char *attached)
{
	const char *value = attached;

	if (value == NULL) {
		if (c->i + 1 >= c->argc || c->i + 1 == c->verb)
			return usage(c->a->verb, "option '--%s' needs a value (%s)", o->name,
			             o->arg);
		value = c->argv[++c->i];
		/* Far more often a forgotten value than a name that starts so. */
		if (strncmp(value, "--", 2) == 0)
			return usage(
			    c->a->verb,
			    "option '--%s' needs a value (%s); if it is '%s', write '--%s=%s'",
			    o->name, o->arg, value, o->name, value);
	}
	/* A variable that is not set, most of the time, and then not the default was meant. */
	if (*value == '\0')
		return usage(c->a->verb, "option '--%s' needs a value (%s), not an empty one",
		             o->name, o->arg);
	add_given(c->a, o, value);
	return 0;
}

/* word is as given: "--name", "--name=value", "-x". */
static int
unknown_option(const struct cli_verb *v, const char *word)
{
	char name[64];
	const char *near = NULL;
	int n = (int)strcspn(word, "=");

	if (strncmp(word, "--", 2) == 0) {
		(void)snprintf(name, sizeof name, "%.*s", n - 2, word + 2);
		near = nearest_option(v, name);
	}
	if (near == NULL)
		return usage(v, "unknown option '%.*s'", n, word);
	return usage(v, "unknown option '%.*s'; did you mean '--%s'?", n, word, near);
}

static int
take_long(struct cursor *c)
{
	const char *name = c->argv[c->i] + 2;
	const char *eq = strchr(name, '=');
	size_t n = eq == NULL ? strlen(name) : (size_t)(eq - name);
	const struct cli_option *o = find_option(c->a->verb, name, n);

	if (o == NULL)
		return unknown_option(c->a->verb, c->argv[c->i]);
	if (o->arg != NULL)
		return take_value(c, o, eq == NULL ? NULL : eq + 1);
	if (eq != NULL)
		return usage(c->a->verb, "option '--%s' takes no value", o->name);
	add_given(c->a, o, NULL);
	return 0;
}

static int
take_letters(struct cursor *c)
{
	const char *s;

	for (s = c->argv[c->i] + 1; *s != '\0'; s++) {
		const struct cli_option *o = find_letter(c->a->verb, *s);

		if (o == NULL)
			return usage(c->a->verb, "unknown option '-%c'", *s);
		if (o->arg != NULL)
			return take_value(c, o, s[1] == '\0' ? NULL : s + 1);
		add_given(c->a, o, NULL);
	}
	return 0;
}

static int
parse(struct cursor *c)
{
	bool words_only = false;
	int rc = 0;

	for (c->i = 1; c->i < c->argc && rc == 0; c->i++) {
		const char *s = c->argv[c->i];

		if (c->i >= c->verb && c->i < c->verb + c->nverb)
			continue;
		if (words_only || s[0] != '-' || s[1] == '\0')
			c->a->operands[c->a->noperands++] = s;
		else if (strcmp(s, "--") == 0)
			words_only = true;
		else if (s[1] == '-')
			rc = take_long(c);
		else
			rc = take_letters(c);
	}
	return rc;
}

static int
check_operands(const struct cli_args *a)
{
	const struct cli_verb *v = a->verb;
	const char *operands = v->operands == NULL ? "" : v->operands;
	size_t i = 0;

	if (v->min_operands > 0 && a->noperands < (size_t)v->min_operands)
		return usage(v, "operand missing: locum %s %s", v->name, operands);
	if (v->max_operands >= 0 && a->noperands > (size_t)v->max_operands)
		return usage(v, "one word too many: '%s'", a->operands[(size_t)v->max_operands]);
	while (i < a->noperands && a->operands[i][0] != '\0')
		i++;
	if (i < a->noperands) /* a variable that is not set, likewise */
		return usage(v, "an empty word: locum %s %s", v->name, operands);
	return 0;
}

static int
run_verb(struct cli_args *a)
{
	int rc = check_operands(a);

	if (rc != 0)
		return rc;
	if (cli_has(a, "quiet"))
		log_set_level(LOG_LV_WARN);
	if (cli_has(a, "verbose"))
		log_set_level(LOG_LV_DEBUG);
	return a->verb->run(a);
}

static int
parse_and_run(const struct cli_verb *v, int argc, char **argv, int at, int used)
{
	struct cli_args a = {.verb = v};
	struct cursor c = {.argc = argc, .argv = argv, .verb = at, .nverb = used, .a = &a};
	size_t letters = 0;
	int i, rc;

	/* "-qv" is two options in one argument. */
	for (i = 1; i < argc; i++)
		letters += strlen(argv[i]);
	a.given = lc_alloc_array(letters + 1, sizeof *a.given);
	a.operands = lc_alloc_array((size_t)argc + 1, sizeof *a.operands);
	if (a.given == NULL || a.operands == NULL) {
		log_text("locum: out of memory\n");
		rc = CLI_FAILED;
	} else {
		rc = parse(&c);
		if (rc == 0)
			rc = a.help ? print_verb_help(v) : run_verb(&a);
	}
	lc_free(a.given);
	lc_free(a.operands);
	return rc;
}

static bool
is_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* "help", "help VERB", "help-options", "help-options VERB"; words start at argv[i]. */
static int
help_verb(const struct table *t, int argc, char **argv, int i,
          int (*print)(const struct cli_verb *), int (*print_all)(const struct table *))
{
	const struct cli_verb *v;
	int used;

	if (i >= argc)
		return print_all(t);
	v = verb_at(t, argc, argv, i, &used);
	if (v == NULL && i + 1 >= argc && print == print_verb_help && print_family(t, argv[i]))
		return CLI_DONE;
	if (v == NULL)
		return unknown_verb(t, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
	return print(v);
}

/* What is no verb but answered as one: true, and *rc the exit status.  Words start at argv[i]. */
static bool
answer(const struct table *t, int argc, char **argv, int i, int *rc)
{
	const char *s = argv[i];

	if (strcmp(s, "help") == 0 || is_help(s)) {
		*rc = help_verb(t, argc, argv, i + 1, print_verb_help, print_help);
		return true;
	}
	if (strcmp(s, "help-options") == 0 || strcmp(s, "--help-options") == 0) {
		*rc = help_verb(t, argc, argv, i + 1, print_option_names, print_verb_names);
		return true;
	}
	if (strcmp(s, "--version") == 0 || strcmp(s, "-V") == 0) {
		(void)printf("locum %s\n", LOCUM_VERSION);
		*rc = CLI_DONE;
		return true;
	}
	return false;
}

static int
dispatch(const struct table *t, int argc, char **argv)
{
	const struct cli_option *o;
	const struct cli_verb *v;
	const char *second;
	int i, used, rc;

	/* Options that stand before the verb can only be common ones; their values are no verbs. */
	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		const char *s = argv[i] + 1;

		if (answer(t, argc, argv, i, &rc))
			return rc;
		o = *s == '-' ? find_in(common, s + 1, strcspn(s + 1, "=")) : find_letter(NULL, *s);
		if (o == NULL)
			return unknown_option(NULL, argv[i]);
		if (o->arg != NULL && strchr(s, '=') == NULL)
			i++;
	}
	if (i >= argc)
		return usage(NULL, "which verb?");
	v = verb_at(t, argc, argv, i, &used);
	second = i + 1 < argc && argv[i + 1][0] != '-' ? argv[i + 1] : NULL;
	if (v != NULL && !is_slip(t, v, used, second))
		return parse_and_run(v, argc, argv, i, used);
	if (v == NULL && answer(t, argc, argv, i, &rc))
		return rc;
	if (v == NULL && i + 1 < argc && is_help(argv[i + 1]) && print_family(t, argv[i]))
		return CLI_DONE;
	return unknown_verb(t, argv[i], second);
}

/* Where a standard descriptor is closed the next file to be opened would get its number, and the
 * next message would be written into a store.  Opened the wrong way round, so that using it fails.
 */
static void
hold_descriptors(void)
{
	int fd;

	for (fd = 0; fd < 3; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			(void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
	}
}

int
cli_main(int argc, char **argv, const struct cli_verb *const *verbs, size_t nverbs)
{
	const struct table t = {.verbs = verbs, .n = nverbs};
	int rc;

	hold_descriptors();
	/* Keys, secrets of tokens, contents: none of it belongs into a core dump, whatever the
	 * limits and the core_pattern of this machine are. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	rc = dispatch(&t, argc, argv);

	/* A list that was cut by a full disk is no list. */
	if ((fflush(stdout) != 0 || ferror(stdout)) && rc == CLI_DONE) {
		log_text("locum: the output could not be written\n");
		rc = CLI_FAILED;
	}
	return rc;
}

/* ---- what verbs ask ---- */

/* Asking for an option that the verb's table does not have is our own bug, and one with teeth:
 * a "dry_run" for "dry-run" would never be found. */
static const struct cli_option *
own_option(const struct cli_args *a, const char *name)
{
	const struct cli_option *o = find_option(a->verb, name, strlen(name));

	assert(o != NULL);
	return o;
}

const char *
cli_get(const struct cli_args *a, const char *name)
{
	const struct cli_option *o = own_option(a, name);
	const char *env;
	size_t i;

	for (i = a->ngiven; i-- > 0;) {
		if (a->given[i].option == o)
			return a->given[i].value;
	}
	if (o->env == NULL)
		return NULL;
	env = getenv(o->env); /* NOLINT(concurrency-mt-unsafe): nothing here sets variables */
	return env == NULL || *env == '\0' ? NULL : env;
}

const char *
cli_get_many(const struct cli_args *a, const char *name, size_t i)
{
	const struct cli_option *o = own_option(a, name);
	size_t k;

	for (k = 0; k < a->ngiven; k++) {
		if (a->given[k].option == o && i-- == 0)
			return a->given[k].value;
	}
	return NULL;
}

bool
cli_has(const struct cli_args *a, const char *name)
{
	const struct cli_option *o = own_option(a, name);
	size_t i;

	for (i = 0; i < a->ngiven; i++) {
		if (a->given[i].option == o)
			return true;
	}
	return false;
}

const char *
cli_operand(const struct cli_args *a, size_t i)
{
	return i < a->noperands ? a->operands[i] : NULL;
}

size_t
cli_operands(const struct cli_args *a)
{
	return a->noperands;
}

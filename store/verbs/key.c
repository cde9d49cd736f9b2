#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/verbs.h"
#include "store/verbs/ask.h"
#include "store/verbs/opening.h"

/* ---- key ---- */

static void
print_json(const struct opening *o, const struct store_key *k)
{
	(void)printf("{\n  \"store\": ");
	cli_json_string(stdout, o->settings.store);
	(void)printf(",\n  \"id\": \"%s\",\n  \"domain\": \"%s\",\n  \"key\": ", k->store,
	             k->domain);
	cli_json_string(stdout, k->file[0] == '\0' ? NULL : k->file);
	(void)printf(",\n  \"opens\": %s,\n  \"data_key\": %u,\n  \"passphrase\": %s\n}\n",
	             k->opens ? "true" : "false", k->data_key, k->passphrase ? "true" : "false");
}

static void
print_key(const struct cli_args *a, const struct opening *o, const struct store_key *k)
{
	if (cli_has(a, "json")) {
		print_json(o, k);
		return;
	}
	(void)printf("store       %s (%.16s)\n"
	             "key domain  %s\n",
	             o->settings.store, k->store, k->domain);
	if (k->opens)
		(void)printf("host key    %s (newest data key: %u)\n", k->file, k->data_key);
	else
		(void)printf("host key    none here (%s): %s\n", k->file, k->why);
	(void)printf("passphrase  %s\n", k->passphrase ? "set" : "none");
}

static int
run_key(const struct cli_args *a)
{
	static struct store_key k;
	struct lc_err e = LC_ERR_INIT;
	struct opening o;
	int rc = opening_settings(a, &o, &e);

	rc = rc != 0 ? rc : store_key(o.settings.store, o.settings.key_dir, &k, &e);
	if (rc == 0)
		print_key(a, &o, &k);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

const struct cli_verb verb_key = {
    .name = "key",
    .operands = "",
    .summary = "say which keys a store needs and this host has",
    .details = "Shows the key domain of the store, and whether this host's key file opens it.\n"
	       "No key is ever printed.\n"
	       "\n"
	       "Example:\n"
	       "  locum key --store /var/backups/locum",
    .options = NULL,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_key,
};

/* ---- key check ---- */

static int
count_point(void *arg, struct point *p, struct lc_err *e)
{
	(void)p;
	(void)e;
	(*(size_t *)arg)++;
	return 0;
}

static int
run_check(const struct cli_args *a)
{
	const char *what = cli_get(a, "recovery-code-file") != NULL ? "recovery code"
	                                                            : "passphrase";
	struct lc_err e = LC_ERR_INIT;
	size_t points = 0;
	struct opening o;
	int rc;

	if (cli_get(a, "recovery-code-file") == NULL && cli_get(a, "passphrase-file") == NULL)
		return cli_usage(a, "give --recovery-code-file FILE (/dev/stdin to type it)");
	rc = opening_settings(a, &o, &e);
	rc = rc != 0 ? rc : opening_store(a, &o, STORE_READ, "locum key check", false, &e);
	/* Opens the header of every point, so it proves more than that the code is well formed. */
	rc = rc != 0 ? rc : store_each_point(o.store, NULL, count_point, &points, &e);
	if (rc == 0 && cli_has(a, "json"))
		(void)printf("{\"opens\": true, \"points\": %zu}\n", points);
	else if (rc == 0 && !cli_has(a, "quiet"))
		(void)printf("the %s opens %s, with %zu restore points\n", what, o.settings.store,
		             points);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option check_options[] = {OPENING_OPTIONS, {.name = NULL}};

const struct cli_verb verb_key_check = {
    .name = "key check",
    .operands = "",
    .summary = "see whether a recovery code opens a store",
    .details =
	"Opens the store with a recovery code, typed in or from its kit, and with nothing else,\n"
	"as on the day when this host is gone.  Do it once with the copy that you keep.  A\n"
	"mistyped code is told apart from the code of another store.\n"
	"\n"
	"Examples:\n"
	"  locum key check --recovery-code-file kit.txt\n"
	"  locum key check --recovery-code-file /dev/stdin",
    .options = check_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_check,
};

/* ---- key rotate ---- */

static int
run_rotate(const struct cli_args *a)
{
	static struct store_key k;
	struct lc_err e = LC_ERR_INIT;
	struct opening o;
	int rc = opening_settings(a, &o, &e);

	rc = rc != 0 ? rc : store_key(o.settings.store, o.settings.key_dir, &k, &e);
	if (rc == 0 && !k.opens)
		rc = lc_fail(&e, LC_EKEY, 0,
		             "only a host that has the store's key file rotates: %s", k.why);
	if (rc == 0) {
		struct store_opts so = {.dir = o.settings.store,
		                        .mode = STORE_WRITE,
		                        .who = "locum key rotate",
		                        .key_dir = o.settings.key_dir};

		rc = opening_alone(&o, &so, &o.store, &e);
	}
	rc = rc != 0 ? rc : store_rotate(o.store, o.settings.key_dir, &e);
	rc = rc != 0 ? rc : store_key(o.settings.store, o.settings.key_dir, &k, &e);
	if (rc == 0 && cli_has(a, "json"))
		(void)printf("{\"data_key\": %u}\n", k.data_key);
	else if (rc == 0 && !cli_has(a, "quiet"))
		(void)printf("what is stored from now on is sealed with data key %u (%s); the "
		             "recovery kit stays as it is\n",
		             k.data_key, k.file);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

const struct cli_verb verb_key_rotate = {
    .name = "key rotate",
    .operands = "",
    .summary = "start a new data key",
    .details =
	"From now on this host seals what it stores with a new data key.  What is there stays\n"
	"as it is; the recovery code opens both.  Whoever got at the data keys of before can not\n"
	"read what comes.  Replicas take the new key's seal up when the host connects.  An agent\n"
	"that runs lends the store for that moment, and goes on with the new key.\n"
	"\n"
	"Example:\n"
	"  locum key rotate",
    .options = NULL,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_rotate,
};

/* ---- key recover, key passphrase: with the code or the passphrase ---- */

static int
open_with_secret(const struct cli_args *a, struct opening *o, const char *who, struct lc_err *e)
{
	int rc = opening_settings(a, o, e);

	if (rc != 0)
		return rc;
	if (cli_get(a, "recovery-code-file") == NULL && cli_get(a, "passphrase-file") == NULL)
		return opening_ask(a, o, who, e);
	return opening_store(a, o, STORE_READ, who, false, e);
}

static int
run_recover(const struct cli_args *a)
{
	static struct store_key k;
	struct lc_err e = LC_ERR_INIT;
	struct opening o;
	int rc = open_with_secret(a, &o, "locum key recover", &e);

	rc = rc != 0 ? rc : store_save_key(o.store, o.settings.key_dir, &e);
	rc = rc != 0 ? rc : store_key(o.settings.store, o.settings.key_dir, &k, &e);
	if (rc == 0 && cli_has(a, "json"))
		print_json(&o, &k);
	else if (rc == 0 && !cli_has(a, "quiet"))
		(void)printf("this host has the store's keys again: %s\n", k.file);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option secret_options[] = {OPENING_OPTIONS, {.name = NULL}};

const struct cli_verb verb_key_recover = {
    .name = "key recover",
    .operands = "",
    .summary = "write this host's key file anew, by the recovery code",
    .details =
	"For a host that lost its key file, or was installed anew and has its store back: with\n"
	"the recovery code, typed or from its kit, the key file is written again, with all data\n"
	"keys of the store.  Not at a replica: that is to hold no keys (locum unlock).\n"
	"\n"
	"Example:\n"
	"  locum key recover --recovery-code-file kit.txt",
    .options = secret_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_recover,
};

#define PASSPHRASE_MAX 1024u

/* Twice, as it does not show. */
static int
ask_new(char pass[PASSPHRASE_MAX], struct lc_err *e)
{
	char again[PASSPHRASE_MAX];
	int rc = ask_secret("New passphrase: ", pass, PASSPHRASE_MAX, e);

	rc = rc != 0 ? rc : ask_secret("Once more: ", again, sizeof again, e);
	if (rc == 0 && strcmp(pass, again) != 0)
		rc = lc_fail(e, LC_EINVAL, 0, "they are not the same; nothing was changed");
	explicit_bzero(again, sizeof again);
	return rc;
}

static int
read_new(const char *path, char pass[PASSPHRASE_MAX], struct lc_err *e)
{
	struct lc_buf b = {0};
	int rc = file_read_all(path, PASSPHRASE_MAX - 1, &b, e);
	size_t n = rc == 0 ? b.n : 0;

	while (n > 0 && (b.p[n - 1] == '\n' || b.p[n - 1] == '\r'))
		n--;
	if (rc == 0 && (n == 0 || memchr(b.p, 0, n) != NULL))
		rc = lc_fail(e, LC_EINVAL, 0, "%s: no passphrase in it", path);
	if (rc == 0) {
		memcpy(pass, b.p, n);
		pass[n] = '\0';
	}
	if (b.p != NULL)
		explicit_bzero(b.p, b.cap);
	lc_buf_free(&b);
	return rc;
}

static int
run_passphrase(const struct cli_args *a)
{
	const char *file = cli_get(a, "new-passphrase-file");
	struct lc_err e = LC_ERR_INIT;
	char pass[PASSPHRASE_MAX] = "";
	struct opening o;
	int rc = open_with_secret(a, &o, "locum key passphrase", &e);

	if (rc == 0)
		rc = file != NULL ? read_new(file, pass, &e) : ask_new(pass, &e);
	rc = rc != 0 ? rc : store_set_passphrase(o.store, pass, strlen(pass), &e);
	explicit_bzero(pass, sizeof pass);
	if (rc == 0 && cli_has(a, "json"))
		(void)printf("{\"passphrase\": true}\n");
	else if (rc == 0 && !cli_has(a, "quiet"))
		(void)printf("%s opens with the new passphrase, and no other one\n",
		             o.settings.store);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option passphrase_options[] = {
    OPENING_OPTIONS,
    {.name = "new-passphrase-file",
     .arg = "FILE",
     .help = "the new passphrase is in it (default: asked)"},
    {.name = NULL}};

const struct cli_verb verb_key_passphrase = {
    .name = "key passphrase",
    .operands = "",
    .summary = "let a passphrase open a store, or change it",
    .details =
	"With the recovery code or the passphrase of before.  The passphrase is of this folder\n"
	"alone: copies of it and replicas keep what they had, or none; set it there as well if\n"
	"you want that.  Whoever has the folder can try passphrases, so choose a long one.\n"
	"\n"
	"Examples:\n"
	"  locum key passphrase --recovery-code-file kit.txt\n"
	"  locum key passphrase --passphrase-file old --new-passphrase-file new",
    .options = passphrase_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_passphrase,
};

#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/verbs.h"
#include "store/verbs/opening.h"

/* ---- key ---- */

static void
print_key(const struct cli_args *a, const struct opening *o, const struct store_key *k)
{
	const char *file = k->file[0] == '\0' ? NULL : k->file;

	if (cli_has(a, "json")) {
		(void)printf("{\n  \"store\": ");
		cli_json_string(stdout, o->settings.store);
		(void)printf(",\n  \"id\": \"%s\",\n  \"domain\": \"%s\",\n  \"key\": ", k->store,
		             k->domain);
		cli_json_string(stdout, file);
		(void)printf(",\n  \"opens\": %s,\n  \"data_key\": %u,\n  \"passphrase\": %s\n}\n",
		             k->opens ? "true" : "false", k->data_key,
		             k->passphrase ? "true" : "false");
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
run_check(const struct cli_args *a)
{
	const char *what = cli_get(a, "recovery-code-file") != NULL ? "recovery code"
	                                                            : "passphrase";
	struct lc_err e = LC_ERR_INIT;
	struct point_list list = {0};
	struct opening o;
	int rc;

	if (cli_get(a, "recovery-code-file") == NULL && cli_get(a, "passphrase-file") == NULL)
		return cli_usage(a, "give --recovery-code-file FILE (/dev/stdin to type it)");
	rc = opening_settings(a, &o, &e);
	rc = rc != 0 ? rc : opening_store(a, &o, STORE_READ, "locum key check", false, &e);
	/* Opens the header of every point, so it proves more than that the code is well formed. */
	rc = rc != 0 ? rc : store_points(o.store, NULL, &list, &e);
	if (rc == 0 && cli_has(a, "json"))
		(void)printf("{\"opens\": true, \"points\": %zu}\n", list.n);
	else if (rc == 0 && !cli_has(a, "quiet"))
		(void)printf("the %s opens %s, with %zu restore points\n", what, o.settings.store,
		             list.n);
	point_list_free(&list);
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

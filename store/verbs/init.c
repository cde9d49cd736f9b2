#include <stdio.h>

#include "store/verbs.h"
#include "store/verbs/opening.h"
#include "store/base/cli.h"

static void
json_pair(const char *name, const char *value, const char *end)
{
	(void)printf("  \"%s\": ", name);
	cli_json_string(stdout, value);
	(void)printf("%s\n", end);
}

static void
print_json(const char *dir, const struct store_made *m)
{
	(void)puts("{");
	json_pair("store", dir, ",");
	json_pair("id", m->id, ",");
	json_pair("domain", m->domain, ",");
	json_pair("kit", m->kit, ",");
	json_pair("key", m->key, "");
	(void)puts("}");
}

static void
print_text(const char *dir, const struct store_made *m, bool passphrase)
{
	struct cli_word store, kit;

	(void)printf(
	    "store made: %s (%.16s)\n\n"
	    "recovery kit: %s\n"
	    "    The code in it opens every restore point, on any machine, with nothing but "
	    "the\n"
	    "    store.  There is no other copy, and nobody can make one.  Do this now:\n"
	    "      1. print it, or copy it to where this machine's loss does not reach\n"
	    "      2. check the copy:  locum key check --store %s --recovery-code-file COPY\n"
	    "      3. delete it here:  shred -u %s\n\n"
	    "host key: %s\n"
	    "    Backups and restores on this host open the store with it, unattended.  Only "
	    "its\n"
	    "    owner can read it; it is not needed anywhere else.\n",
	    dir, m->id, m->kit, cli_word(&store, dir), cli_word(&kit, m->kit), m->key);
	if (passphrase)
		(void)puts("passphrase: opens the store too, together with its folder `keys`");
}

static int
run(const struct cli_args *a)
{
	static struct store_made made; /* two long paths */
	struct lc_err e = LC_ERR_INIT;
	struct opening o;
	struct store_init_opts opts = {
	    .kit = cli_get(a, "kit"),
	    .passphrase_file = cli_get(a, "passphrase-file"),
	    .made = &made,
	};
	int rc = opening_settings(a, &o, &e);

	opts.dir = o.settings.store;
	opts.key_dir = o.settings.key_dir;
	rc = rc != 0 ? rc : store_init(&opts, &e);
	if (rc == 0 && cli_has(a, "json"))
		print_json(opts.dir, &made);
	else if (rc == 0 &&
	         (!cli_has(a, "quiet") || opts.kit == NULL)) /* where it is must be told */
		print_text(opts.dir, &made, opts.passphrase_file != NULL);
	opening_done(&o);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option options[] = {
    {.name = "kit", .arg = "FILE", .help = "write the recovery kit there (not into the store)"},
    {.name = "passphrase-file",
     .arg = "FILE",
     .env = "LOCUM_PASSPHRASE_FILE",
     .help = "let the passphrase in it open the store, too"},
    {.name = NULL},
};

const struct cli_verb verb_store_init = {
    .name = "store init",
    .operands = "",
    .summary = "make a store and its recovery kit",
    .details =
	"Makes an empty store with keys of its own.  Three things come of it: the store, the\n"
	"host's key file (so that backups run unattended) and the recovery kit, a page with the\n"
	"code that opens the store when this host is gone.  The kit is written first; keep it\n"
	"away from both.  Without --kit it is ./locum-recovery-kit-<store>.txt.\n"
	"\n"
	"Examples:\n"
	"  locum store init --store /var/backups/locum\n"
	"  locum store init --store /mnt/disk2/locum --kit /media/usb/kit.txt",
    .options = options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run,
};

/**
 * access: what every verb of this room begins with: settings, then the store, with a key.
 */
#ifndef LOCUM_ACCESS_H
#define LOCUM_ACCESS_H

#include "agent/hypervisor/settings.h"
#include "store/base/cli.h"
#include "store/base/errors.h"
#include "store/keyring.h"

struct store;

/* Options by which a verb is told where the key is; entries for its table. */
#define ACCESS_OPTIONS                                                                    \
	{.name = "recovery-code-file",                                                    \
	 .arg = "FILE",                                                                   \
	 .help = "open the store with the recovery code in it (the recovery kit)"},       \
	{                                                                                 \
		.name = "passphrase-file", .arg = "FILE", .env = "LOCUM_PASSPHRASE_FILE", \
		.help = "open the store with the passphrase in it"                        \
	}

struct access {
	struct settings settings;
	struct store *store;
	const char *code_file;       /* borrowed from the arguments, or NULL */
	const char *passphrase_file; /* the same */
};

/**
 * access_open(args, who, out, e):
 * Read the settings and open the store for reading.  LC_EKEY where no key opens it: everything here
 * reads contents.  *out needs access_close() in every case.
 */
int access_open(const struct cli_args *args, const char *who, struct access *out, struct lc_err *e);
void access_close(struct access *a);

#endif

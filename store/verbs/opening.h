/**
 * opening: what every verb that needs a store begins with: settings, then the store.
 */
#ifndef LOCUM_STORE_OPENING_H
#define LOCUM_STORE_OPENING_H

#include <stdbool.h>

#include "agent/hypervisor/settings.h"
#include "store/base/cli.h"
#include "store/base/errors.h"
#include "store/keyring.h"
#include "store/store.h"

/* Options by which a verb is told where the key is; entries for its table. */
#define OPENING_OPTIONS                                                                   \
	{.name = "recovery-code-file",                                                    \
	 .arg = "FILE",                                                                   \
	 .help = "open the store with the recovery code in it (the recovery kit)"},       \
	{                                                                                 \
		.name = "passphrase-file", .arg = "FILE", .env = "LOCUM_PASSPHRASE_FILE", \
		.help = "open the store with the passphrase in it"                        \
	}

struct opening {
	struct settings settings;
	struct store *store; /* NULL until opening_store() */
	/* NULL: it was opened to write, or to read.  Else its owner does what is to be done
	 * (opening_own()), or has lent it. */
	struct visit *owner;
	/* As typed in, where it was: a pipe can't be read again by who opens the store twice. */
	char code[RECOVERY_CODE_MAX];
};

/** opening_settings(a, o, e): read the settings; o needs opening_done() in every case. */
int opening_settings(const struct cli_args *a, struct opening *o, struct lc_err *e);
/**
 * opening_store(a, o, mode, who, blind, e):
 * Open the store that the settings name.  Where `blind` is set, a host without its key opens it all
 * the same, unless the arguments name a code or a passphrase.
 */
int opening_store(const struct cli_args *a, struct opening *o, enum store_mode mode,
                  const char *who, bool blind, struct lc_err *e);
/**
 * opening_read(a, o, who, e):
 * The settings, then the store, to read contents from it.  Where this machine has no key, and the
 * arguments name none, the person at the terminal is asked.  LC_EKEY where no key opens it.  o
 * needs opening_done() in every case.
 */
int opening_read(const struct cli_args *a, struct opening *o, const char *who, struct lc_err *e);
/**
 * opening_ask(a, o, who, e):
 * Open the store that the settings name, to read from it, with what is typed on the terminal:
 * recovery code or passphrase.  LC_ENOTSUP: there is no terminal; LC_EKEY, LC_EINVAL: it was wrong,
 * three times; LC_ECANCELED.
 */
int opening_ask(const struct cli_args *a, struct opening *o, const char *who, struct lc_err *e);
/**
 * opening_own(a, o, who, blind, e):
 * Open the store that the settings name, for opening_drop() and opening_condemn().  Where a daemon
 * has it, it is opened to read, and that one does what is asked for.
 */
int opening_own(const struct cli_args *a, struct opening *o, const char *who, bool blind,
                struct lc_err *e);
int opening_drop(struct opening *o, const uint8_t point[POINT_ID_SIZE], struct lc_err *e);
int opening_condemn(struct opening *o, const struct damage *list, size_t n, uint64_t *condemned,
                    struct lc_err *e);
/**
 * opening_alone(o, so, out, e):
 * Open a store for writing, for this process alone; a daemon that has it lends it until
 * opening_done().  out NULL: make its catalog again.
 */
int opening_alone(struct opening *o, struct store_opts *so, struct store **out, struct lc_err *e);
/** opening_rebuild(a, o, e): make the catalog of that store again, with a key or without. */
int opening_rebuild(const struct cli_args *a, struct opening *o, struct lc_err *e);
void opening_done(struct opening *o);

#endif

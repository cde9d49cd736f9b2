#include <string.h>

#include "store/keyring.h"
#include "store/kit.h"
#include "store/verbs/opening.h"

/* How long a verb waits for another process to leave the store. */
enum { WAIT_MS = 5000 };

int
opening_settings(const struct cli_args *a, struct opening *o, struct lc_err *e)
{
	int rc;

	*o = (struct opening){0};
	rc = settings_load(a, &o->settings, e);
	return rc != 0 ? rc : settings_need_store(&o->settings, e);
}

static int
open_or_rebuild(const struct store_opts *so, struct store **out, struct lc_err *e)
{
	return out == NULL ? store_rebuild(so, e) : store_open(so, out, e);
}

/* out NULL: rebuild. */
static int
with_key(const struct cli_args *a, const struct opening *o, struct store_opts *so, bool blind,
         struct store **out, struct lc_err *e)
{
	char code[RECOVERY_CODE_MAX] = "";
	const char *file = cli_get(a, "recovery-code-file");
	struct lc_err err = LC_ERR_INIT;
	int rc;

	so->dir = o->settings.store;
	so->key_dir = o->settings.key_dir;
	so->wait_ms = WAIT_MS;
	so->passphrase_file = cli_get(a, "passphrase-file");
	if (file != NULL) {
		rc = kit_read_code(file, code, e);
		if (rc != 0)
			return rc;
		so->recovery_code = code;
	}
	rc = open_or_rebuild(so, out, &err);
	if (rc == LC_EKEY && blind && file == NULL && so->passphrase_file == NULL) {
		lc_err_clear(&err);
		so->no_key = true;
		rc = open_or_rebuild(so, out, &err);
	}
	so->recovery_code = NULL;
	explicit_bzero(code, sizeof code);
	so->recovery_code = NULL;
	if (rc != 0 && e != NULL)
		*e = err;
	return rc;
}

int
opening_store(const struct cli_args *a, struct opening *o, enum store_mode mode, const char *who,
              bool blind, struct lc_err *e)
{
	struct store_opts so = {.mode = mode, .who = who};

	return with_key(a, o, &so, blind, &o->store, e);
}

int
opening_read(const struct cli_args *a, struct opening *o, const char *who, struct lc_err *e)
{
	int rc = opening_settings(a, o, e);

	return rc != 0 ? rc : opening_store(a, o, STORE_READ, who, false, e);
}

int
opening_rebuild(const struct cli_args *a, struct opening *o, struct lc_err *e)
{
	struct store_opts so = {.who = "locum store rebuild"};

	return with_key(a, o, &so, true, NULL, e);
}

void
opening_done(struct opening *o)
{
	store_close(o->store);
	settings_done(&o->settings);
	*o = (struct opening){0};
}

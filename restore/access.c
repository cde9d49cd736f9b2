#include "store/store.h"
#include "restore/access.h"
#include "restore/unlock.h"

static int
open_store(struct access *a, const char *who, struct lc_err *e)
{
	char code[RECOVERY_CODE_MAX] = "";
	struct store_opts opts = {
	    .dir = a->settings.store,
	    .mode = STORE_READ,
	    .who = who,
	    .key_dir = a->settings.key_dir,
	    .passphrase_file = a->passphrase_file,
	};
	int rc = 0;

	if (a->code_file != NULL) {
		rc = unlock_read_code(a->code_file, code, e);
		opts.recovery_code = code;
	}
	if (rc == 0)
		rc = store_open(&opts, &a->store, e);
	unlock_wipe(code);
	if (rc == 0 && !store_has_key(a->store))
		rc = lc_fail(e, LC_EKEY, 0,
		             "%s: no key for this store in %s; give --recovery-code-file or "
		             "--passphrase-file",
		             a->settings.store, a->settings.key_dir);
	return rc;
}

int
access_open(const struct cli_args *args, const char *who, struct access *out, struct lc_err *e)
{
	int rc;

	*out = (struct access){0};
	rc = settings_load(args, &out->settings, e);
	if (rc == 0)
		rc = settings_need_store(&out->settings, e);
	out->code_file = cli_get(args, "recovery-code-file");
	out->passphrase_file = cli_get(args, "passphrase-file");
	return rc == 0 ? open_store(out, who, e) : rc;
}

void
access_close(struct access *a)
{
	if (a->store != NULL)
		store_close(a->store);
	settings_done(&a->settings);
	*a = (struct access){0};
}

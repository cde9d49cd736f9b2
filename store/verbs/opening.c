#include <stdio.h>
#include <string.h>

#include "store/desk/visit.h"
#include "store/keyring.h"
#include "store/kit.h"
#include "store/verbs/ask.h"
#include "store/verbs/opening.h"

/* How long a verb waits for another process to leave the store. */
enum { WAIT_MS = 5000, ASK_TIMES = 3, SECRET_MAX = 1024 };

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

int
opening_alone(struct opening *o, struct store_opts *so, struct store **out, struct lc_err *e)
{
	struct lc_err busy = LC_ERR_INIT;
	struct visit_opts vo = {.dir = so->dir, .who = so->who, .busy = &busy};
	int rc;

	so->wait_ms = 0;
	rc = open_or_rebuild(so, out, &busy);
	so->wait_ms = WAIT_MS;
	if (rc != LC_EBUSY) {
		if (rc != 0 && e != NULL)
			*e = busy;
		return rc;
	}
	rc = o->owner != NULL ? 0 : visit_open(&vo, &o->owner, NULL);
	if (rc == 0) {
		rc = visit_lend(o->owner, e);
		if (rc != 0)
			return rc;
	}
	return open_or_rebuild(so, out, e);
}

static void
prepare(const struct cli_args *a, const struct opening *o, struct store_opts *so)
{
	so->dir = o->settings.store;
	so->key_dir = o->settings.key_dir;
	so->passphrase_file = cli_get(a, "passphrase-file");
}

static bool
key_is_named(const struct cli_args *a)
{
	return cli_get(a, "recovery-code-file") != NULL || cli_get(a, "passphrase-file") != NULL;
}

/* out NULL: rebuild, which nobody else does meanwhile. */
static int
open_somehow(struct opening *o, struct store_opts *so, struct store **out, struct lc_err *e)
{
	return out == NULL ? opening_alone(o, so, NULL, e) : store_open(so, out, e);
}

static int
with_key(const struct cli_args *a, struct opening *o, struct store_opts *so, bool blind,
         struct store **out, struct lc_err *e)
{
	const char *file = cli_get(a, "recovery-code-file");
	struct lc_err err = LC_ERR_INIT;
	int rc;

	prepare(a, o, so);
	if (file != NULL && o->code[0] == '\0') {
		rc = kit_read_code(file, o->code, e);
		if (rc != 0)
			return rc;
	}
	so->recovery_code = file == NULL ? NULL : o->code;
	rc = open_somehow(o, so, out, &err);
	if (rc == LC_EKEY && blind && !key_is_named(a)) {
		lc_err_clear(&err);
		so->no_key = true;
		rc = open_somehow(o, so, out, &err);
	}
	so->recovery_code = NULL;
	if (file != NULL && (rc == LC_EINVAL || rc == LC_EKEY))
		lc_wrap(&err, "%s", file);
	if (rc != 0 && e != NULL)
		*e = err;
	return rc;
}

/* What was typed is a code or a passphrase: a code is known by its check group. */
static int
open_with_secret(struct store_opts *so, const char *secret, struct store **out, struct lc_err *e)
{
	struct lc_err as_code = LC_ERR_INIT;
	int rc;

	so->recovery_code = secret;
	rc = store_open(so, out, &as_code);
	so->recovery_code = NULL;
	if (rc != LC_EINVAL) {
		if (rc != 0 && e != NULL)
			*e = as_code;
		return rc;
	}
	so->passphrase = secret;
	rc = store_open(so, out, e);
	so->passphrase = NULL;
	return rc;
}

int
opening_ask(const struct cli_args *a, struct opening *o, const char *who, struct lc_err *e)
{
	struct store_opts so = {.mode = STORE_READ, .who = who, .wait_ms = WAIT_MS};
	char secret[SECRET_MAX];
	char *prompt = lc_asprintf("Recovery code or passphrase of %s: ", o->settings.store);
	struct lc_err err = LC_ERR_INIT;
	int rc, i;

	if (prompt == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	prepare(a, o, &so);
	so.key_dir = NULL;
	for (i = 0; i < ASK_TIMES; i++) {
		if (i > 0)
			ask_tell(err.msg);
		lc_err_clear(&err);
		rc = ask_secret(prompt, secret, sizeof secret, &err);
		if (rc != 0)
			break;
		rc = open_with_secret(&so, secret, &o->store, &err);
		explicit_bzero(secret, sizeof secret);
		if (rc != LC_EKEY && rc != LC_EINVAL)
			break;
	}
	explicit_bzero(secret, sizeof secret);
	lc_free(prompt);
	if (rc != 0 && e != NULL)
		*e = err;
	return rc;
}

int
opening_store(const struct cli_args *a, struct opening *o, enum store_mode mode, const char *who,
              bool blind, struct lc_err *e)
{
	struct store_opts so = {.mode = mode, .who = who, .wait_ms = WAIT_MS};

	return with_key(a, o, &so, blind, &o->store, e);
}

int
opening_read(const struct cli_args *a, struct opening *o, const char *who, struct lc_err *e)
{
	struct lc_err none = LC_ERR_INIT, asked = LC_ERR_INIT;
	int rc = opening_settings(a, o, e);

	if (rc != 0)
		return rc;
	rc = opening_store(a, o, STORE_READ, who, false, &none);
	if (rc == LC_EKEY && !key_is_named(a)) {
		rc = opening_ask(a, o, who, &asked);
		if (rc == LC_ENOTSUP)
			rc = lc_fail(e, LC_EKEY, 0, "%s (%s)", none.msg, asked.msg);
		else if (rc != 0 && e != NULL)
			*e = asked;
	} else if (rc != 0 && e != NULL) {
		*e = none;
	}
	return rc;
}

int
opening_own(const struct cli_args *a, struct opening *o, const char *who, bool blind,
            struct lc_err *e)
{
	struct store_opts so = {.mode = STORE_WRITE, .who = who};
	struct lc_err busy = LC_ERR_INIT;
	struct visit_opts vo = {.dir = o->settings.store, .who = who, .busy = &busy};
	int rc = with_key(a, o, &so, blind, &o->store, &busy);

	if (rc != LC_EBUSY) {
		if (rc != 0 && e != NULL)
			*e = busy;
		return rc;
	}
	rc = visit_open(&vo, &o->owner, NULL);
	return rc == 0 ? opening_store(a, o, STORE_READ, who, blind, e)
	               : opening_store(a, o, STORE_WRITE, who, blind, e);
}

int
opening_drop(struct opening *o, const uint8_t point[POINT_ID_SIZE], struct lc_err *e)
{
	return o->owner != NULL ? visit_drop(o->owner, point, e) : store_drop(o->store, point, e);
}

int
opening_condemn(struct opening *o, const struct damage *list, size_t n, uint64_t *condemned,
                struct lc_err *e)
{
	return o->owner != NULL ? visit_condemn(o->owner, list, n, condemned, e)
	                        : store_condemn(o->store, list, n, condemned, e);
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
	visit_close(o->owner); /* what was lent is given back when it is closed */
	settings_done(&o->settings);
	explicit_bzero(o->code, sizeof o->code);
	*o = (struct opening){0};
}

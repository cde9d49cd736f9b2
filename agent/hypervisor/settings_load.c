/* Which file the settings are read from, and what goes before it. */
#include <stdlib.h>
#include <unistd.h>

#include "agent/hypervisor/settings.h"
#include "store/base/cli.h"
#include "store/base/config.h"
#include "store/base/memory.h"

/* cli_get() knows the variables, too; without a command line they are read here.  An empty one is
 * none. */
static const char *
given(const struct cli_args *args, const char *option, const char *variable)
{
	const char *value = args != NULL ? cli_get(args, option)
	                                 : getenv(variable); /* NOLINT(concurrency-mt-unsafe) */

	return value == NULL || *value == '\0' ? NULL : value;
}

int
settings_load(const struct cli_args *args, struct settings *out, struct lc_err *e)
{
	const char *path = given(args, "config", "LOCUM_CONFIG");
	const char *store = given(args, "store", "LOCUM_STORE");
	struct config *config = NULL;
	int rc = 0;

	*out = (struct settings){0};
	if (path != NULL)
		rc = config_load(path, &config, e);
	else if (access(SETTINGS_DEFAULT_PATH, F_OK) == 0)
		rc = config_load(SETTINGS_DEFAULT_PATH, &config, e);
	if (rc == 0)
		rc = settings_from(config, out, e);
	if (rc == 0 && store != NULL) {
		lc_free(out->store);
		out->store = lc_strdup(store);
		if (out->store == NULL)
			rc = lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
	}
	config_free(config);
	return rc;
}

int
settings_need_store(const struct settings *s, struct lc_err *e)
{
	if (s->store != NULL)
		return 0;
	return lc_fail(e, LC_EINVAL, 0,
	               "no store: give --store DIR, set LOCUM_STORE, or write 'store = DIR' under "
	               "[locum] in %s",
	               s->origin != NULL ? s->origin : SETTINGS_DEFAULT_PATH);
}

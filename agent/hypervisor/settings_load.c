/* Which file the settings are read from, what goes before it, and what follows from where it is. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/settings_load.h"
#include "store/base/cli.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#define PLUGIN_FILE "nbdkit-locum-plugin.so"

/* Keys lie beside the file that names no other folder for them. */
int
settings_default_key_dir(struct settings *s, const struct config *config, struct lc_err *e)
{
	char *dir, *keys = NULL;

	if (config == NULL || config_get(config, "locum", "", "key_dir") != NULL)
		return 0;
	dir = path_dirname(config_origin(config));
	if (dir != NULL)
		keys = path_join(dir, "keys");
	lc_free(dir);
	if (keys == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
	lc_free(s->key_dir);
	s->key_dir = keys;
	return 0;
}

/* Beside the running program (a build), else where installation puts it, else nbdkit knows. */
int
settings_default_plugin(struct settings *s, struct lc_err *e)
{
	static const char *const places[] = {"/" PLUGIN_FILE, "/../lib/locum/" PLUGIN_FILE};
	char exe[PATH_MAX];
	ssize_t n;
	size_t i;

	if (s->plugin != NULL)
		return 0;
	n = readlink("/proc/self/exe", exe, sizeof exe - 1);
	if (n > 0) {
		exe[n] = '\0';
		*strrchr(exe, '/') = '\0'; /* the kernel's answer is absolute */
		for (i = 0; i < sizeof places / sizeof places[0]; i++) {
			char *path = lc_asprintf("%s%s", exe, places[i]);

			if (path == NULL)
				return lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
			if (access(path, R_OK) == 0) {
				s->plugin = path;
				return 0;
			}
			lc_free(path);
		}
	}
	return settings_set_text(&s->plugin, "locum", e);
}

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
	if (rc == 0 && store != NULL)
		rc = settings_set_text(&out->store, store, e);
	config_free(config);
	return rc;
}

int
settings_run_as(const struct settings *s, char **out, struct lc_err *e)
{
	const char *list = s->run_as;
	uint32_t uid, gid;

	*out = NULL;
	if (geteuid() != 0)
		return 0;
	while (*list != '\0') {
		size_t n = strcspn(list, ":");
		char *name = lc_asprintf("%.*s", (int)n, list);

		if (name == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
		if (launch_user(name, &uid, &gid, NULL) == 0) {
			*out = name;
			return 0;
		}
		lc_free(name);
		list += n + (list[n] == ':' ? 1 : 0);
	}
	return lc_fail(e, LC_ENOENT, 0, "run_as: there is no user %s on this host", s->run_as);
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

enum hv_freeze
settings_freeze(const struct settings_vm *vm)
{
	if (vm == NULL)
		return HV_FREEZE_NEVER;
	if (vm->freeze_set)
		return vm->freeze;
	return vm->guest_agent != NULL ? HV_FREEZE_AUTO : HV_FREEZE_NEVER;
}

/**
 * settings_load: what the settings*.c files share.  Private to them.
 */
#ifndef LOCUM_SETTINGS_LOAD_H
#define LOCUM_SETTINGS_LOAD_H

#include "agent/hypervisor/settings.h"

/* settings.c */
/** settings_set_text(field, value, e): an owned text, instead of what was there. */
int settings_set_text(char **field, const char *value, struct lc_err *e);

/* settings_load.c: what no key says */
int settings_default_key_dir(struct settings *s, const struct config *config, struct lc_err *e);
int settings_default_plugin(struct settings *s, struct lc_err *e);

#endif

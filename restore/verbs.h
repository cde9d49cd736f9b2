/**
 * verbs: what this room adds to the command.
 */
#ifndef LOCUM_RESTORE_VERBS_H
#define LOCUM_RESTORE_VERBS_H

#include "store/base/cli.h"

extern const struct cli_verb verb_points;
extern const struct cli_verb verb_restore;
extern const struct cli_verb verb_boot;
extern const struct cli_verb verb_verify;

#endif

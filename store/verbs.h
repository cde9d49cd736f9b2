/**
 * verbs: what this room adds to the command.
 */
#ifndef LOCUM_STORE_VERBS_H
#define LOCUM_STORE_VERBS_H

#include "store/base/cli.h"

extern const struct cli_verb verb_store_init;
extern const struct cli_verb verb_store_rebuild;
extern const struct cli_verb verb_store_stats;
extern const struct cli_verb verb_scrub;
extern const struct cli_verb verb_drop;
extern const struct cli_verb verb_key;
extern const struct cli_verb verb_key_check;
extern const struct cli_verb verb_key_rotate;
extern const struct cli_verb verb_key_recover;
extern const struct cli_verb verb_key_passphrase;

#endif

/** verbs: what the replicator's room adds to the command. */
#ifndef LOCUM_REPLICATOR_VERBS_H
#define LOCUM_REPLICATOR_VERBS_H

#include <stdbool.h>
#include <stdint.h>

struct cli_args;
struct cli_verb;
struct lc_err;
struct peer;

extern const struct cli_verb verb_replica, verb_replica_hosts, verb_replica_revoke, verb_token;
extern const struct cli_verb verb_replica_give, verb_replica_limit;
extern const struct cli_verb verb_pair, verb_copy, verb_recall, verb_unlock, verb_lock;

/**
 * recall_join(a, peer, secret, host, made, e):
 * Pair by the token of that secret as one more host of a domain (locum pair --join), and make an
 * empty store here with the keys that the replica has, opened by the code that the arguments name.
 * *made: it is paired, also where the rest failed.
 */
int recall_join(const struct cli_args *a, const struct peer *peer, const uint8_t *secret,
                const char *host, bool *made, struct lc_err *e);

#endif

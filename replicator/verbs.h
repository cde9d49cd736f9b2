/** verbs: what the replicator's room adds to the command. */
#ifndef LOCUM_REPLICATOR_VERBS_H
#define LOCUM_REPLICATOR_VERBS_H

struct cli_verb;

extern const struct cli_verb verb_replica, verb_replica_hosts, verb_replica_revoke, verb_token;
extern const struct cli_verb verb_pair, verb_copy, verb_recall, verb_unlock, verb_lock;

#endif

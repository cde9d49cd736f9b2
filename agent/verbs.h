/** verbs: what the agent's room adds to the command. */
#ifndef LOCUM_AGENT_VERBS_H
#define LOCUM_AGENT_VERBS_H

struct cli_verb;

extern const struct cli_verb verb_backup, verb_vm_list, verb_vm_start, verb_vm_stop;
extern const struct cli_verb verb_agent, verb_status, verb_doctor, verb_unprotect;

#endif

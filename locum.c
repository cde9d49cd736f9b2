/*
 * locum: the table of verbs.  Each room supplies its own.
 */
#include <malloc.h>
#include <string.h>

#include "agent/hypervisor/relay.h"
#include "agent/verbs.h"
#include "replicator/verbs.h"
#include "restore/verbs.h"
#include "store/base/cli.h"
#include "store/verbs.h"

#define HEAP_KEPT (16 << 20) /* bytes, of each thread */
#define GROUP(title) (&(const struct cli_verb){.summary = (title)})

static const struct cli_verb *const verbs[] = {
    GROUP("Running VMs"),
    &verb_backup,
    &verb_agent,
    &verb_status,
    &verb_doctor,
    &verb_unprotect,
    &verb_vm_list,
    &verb_vm_start,
    &verb_vm_stop,
    GROUP("Restore points"),
    &verb_points,
    &verb_boot,
    &verb_restore,
    &verb_verify,
    &verb_unlock,
    &verb_lock,
    &verb_drop,
    GROUP("Another site"),
    &verb_pair,
    &verb_copy,
    &verb_recall,
    &verb_replica,
    &verb_token,
    &verb_replica_hosts,
    &verb_replica_revoke,
    &verb_replica_limit,
    &verb_replica_give,
    GROUP("Stores and keys"),
    &verb_store_init,
    &verb_store_stats,
    &verb_store_rebuild,
    &verb_scrub,
    &verb_key,
    &verb_key_check,
    &verb_key_rotate,
    &verb_key_recover,
    &verb_key_passphrase,
};

int
main(int argc, char **argv)
{
	/* What is on its way to a replica is a queue of buffers that grows and shrinks all the
	 * time; by default each time it shrinks its pages go back to the kernel, to be cleared
	 * again. */
	(void)mallopt(M_TRIM_THRESHOLD, HEAP_KEPT);
	/* No verb: this program starts itself so. */
	if (argc > 1 && strcmp(argv[1], RELAY_WORD) == 0)
		return relay_main(argc, argv);
	if (argc > 1 && strcmp(argv[1], RELAY_AGENT_WORD) == 0)
		return relay_agent_main(argc, argv);
	return cli_main(argc, argv, verbs, sizeof verbs / sizeof verbs[0]);
}

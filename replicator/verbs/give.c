/*
 * locum replica give: a VM was moved to another host that shares the store.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/hypervisor/settings.h"
#include "replicator/gifts.h"
#include "replicator/verbs.h"
#include "replicator/writers.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/files.h"
#include "store/store.h"

#define DIGITS_MIN 8u

/* The one VM of the store whose id begins so. */
static int
find_vm(const char *dir, const char *digits, uint8_t vm[16], struct lc_err *e)
{
	struct store_opts o = {.dir = dir, .mode = STORE_READ, .no_key = true};
	struct store_vm *list = NULL;
	struct store *s = NULL;
	size_t i, n = 0, hits = 0;
	char hex[33];
	int rc = store_open(&o, &s, e);

	rc = rc != 0 ? rc : store_vms(s, &list, &n, e);
	for (i = 0; rc == 0 && i < n; i++) {
		if (strncasecmp(lc_hex(hex, list[i].id, 16), digits, strlen(digits)) != 0)
			continue;
		memcpy(vm, list[i].id, 16);
		hits++;
	}
	if (rc == 0 && hits != 1)
		rc = lc_fail(e, hits == 0 ? LC_ENOENT : LC_EINVAL, 0,
		             "store %s has %s whose id begins with %s (see: locum points)", dir,
		             hits == 0 ? "no VM" : "several VMs", digits);
	lc_free(list);
	store_close(s);
	return rc;
}

static int
give(const char *dir, const char *digits, const char *host, struct writer_entry *to, uint8_t vm[16],
     struct lc_err *e)
{
	struct writer_entry *list = NULL;
	char *store = NULL;
	size_t n = 0, at = 0;
	int rc = writers_list(dir, &list, &n, e);

	rc = rc != 0 ? rc : writers_pick(list, n, host, &at, e);
	if (rc == 0) {
		*to = list[at];
		store = path_join(dir, to->store);
		rc = store == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
		                   : find_vm(store, digits, vm, e);
	}
	rc = rc != 0 ? rc : gifts_put(dir, vm, to, e);
	lc_free(store);
	lc_free(list);
	return rc;
}

static int
run_give(const struct cli_args *a)
{
	const char *digits = cli_operand(a, 0);
	struct lc_err e = LC_ERR_INIT;
	struct settings settings = {0};
	struct writer_entry to;
	uint8_t vm[16] = {0};
	char hex[33];
	int rc;

	if (strlen(digits) < DIGITS_MIN)
		return cli_usage(a, "%s: give the first %u digits of the VM's id, or more", digits,
		                 DIGITS_MIN);
	rc = settings_load(a, &settings, &e);
	rc = rc != 0 ? rc
	             : give(cli_get(a, "dir") != NULL ? cli_get(a, "dir") : settings.replica_dir,
	                    digits, cli_operand(a, 1), &to, vm, &e);
	if (rc == 0 && cli_has(a, "json")) {
		(void)printf("{\"vm_id\": \"%s\", \"host\": ", lc_hex(hex, vm, sizeof vm));
		cli_json_string(stdout, to.name);
		(void)puts("}");
	} else if (rc == 0 && !cli_has(a, "quiet")) {
		(void)printf("VM %s is host %s's as soon as that connects.  There: stop the agent, "
		             "locum recall, start it.\n",
		             digits, to.name);
	}
	settings_done(&settings);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option options[] = {
    {.name = "dir", .arg = "DIR", .help = "folder of the replica (default: replica_dir)"},
    {.name = NULL}};

const struct cli_verb verb_replica_give = {
    .name = "replica give",
    .operands = "VM HOST",
    .summary = "let another host go on with a VM that was moved to it",
    .details =
	"For hosts that share a store (locum token --join).  VM is the first 8 digits of its\n"
	"id, or more (locum points shows them, without a key too).  From the next connection\n"
	"of HOST on the VM is its own: locum recall there brings the VM's map, and the next\n"
	"backup compares the disks with that and sends what differs.  The host of before is\n"
	"refused for this VM; its other VMs go on.\n"
	"\n"
	"Example:\n"
	"  locum replica give 2709405f host-b",
    .options = options,
    .min_operands = 2,
    .max_operands = 2,
    .run = run_give,
};

/*
 * locum unlock, lock: the keys of a domain, opened once, kept in the kernel for a while.
 *
 * Which store is opened for it does not matter: all stores of a domain have the same keys, and
 * every segment of them carries what the recovery code opens.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/launch.h"
#include "replicator/verbs.h"
#include "replicator/writers.h"
#include "store/base/bytes.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/unlocked.h"
#include "store/verbs/opening.h"

#define FOR_DEFAULT_NS (INT64_C(8) * 3600 * LC_NS_PER_S)
#define FOR_MAX_NS (INT64_C(7) * 24 * 3600 * LC_NS_PER_S)
#define HOSTS_TEXT 300u

struct unlock {
	const struct cli_args *args;
	struct opening opening;
	const char *dir; /* of the replica, or NULL: the settings' store is meant */
	struct writer_entry *hosts;
	size_t nhosts;
	uint8_t domain[16];
	char names[HOSTS_TEXT]; /* of the hosts of that domain */
};

/* ---- which domain ---- */

static int
look_for_hosts(struct unlock *u, struct lc_err *e)
{
	const struct settings *s = &u->opening.settings;
	const char *dir = cli_get(u->args, "dir");

	if (dir == NULL && cli_operands(u->args) == 0 && s->store != NULL)
		return 0;
	u->dir = dir != NULL ? dir : s->replica_dir;
	return writers_list(u->dir, &u->hosts, &u->nhosts, e);
}

static void
add_name(char dst[HOSTS_TEXT], const char *name)
{
	size_t n = strlen(dst);

	(void)snprintf(dst + n, HOSTS_TEXT - n, "%s%s", n == 0 ? "" : ", ", name);
}

/* The one domain of the hosts that match; NULL: all hosts. */
static int
choose_domain(struct unlock *u, const char *what, size_t *at, struct lc_err *e)
{
	char all[HOSTS_TEXT] = "";
	bool found = false, same = true;
	size_t i;

	for (i = 0; i < u->nhosts; i++) {
		if (what != NULL && !writers_match(&u->hosts[i], what))
			continue;
		add_name(all, u->hosts[i].name);
		same = same &&
		       (!found || memcmp(u->hosts[*at].domain, u->hosts[i].domain, 16) == 0);
		*at = found ? *at : i;
		found = true;
	}
	if (!found && what == NULL) {
		return lc_fail(e, LC_ENOENT, 0,
		               "no host is paired with the replica in %s; name a store with "
		               "--store",
		               u->dir);
	}
	if (!found) {
		return lc_fail(e, LC_ENOENT, 0,
		               "no host %s is paired with the replica in %s (see: locum replica "
		               "hosts)",
		               what, u->dir);
	}
	if (!same)
		return lc_fail(e, LC_EINVAL, 0, "several key domains are here: name a host (%s)",
		               all);
	memcpy(u->domain, u->hosts[*at].domain, sizeof u->domain);
	return 0;
}

static void
note_names(struct unlock *u)
{
	size_t i;

	for (i = 0; i < u->nhosts; i++) {
		if (memcmp(u->hosts[i].domain, u->domain, 16) == 0)
			add_name(u->names, u->hosts[i].name);
	}
}

/* Into the settings: the store that is opened for it. */
static int
choose_store(struct unlock *u, struct lc_err *e)
{
	struct settings *s = &u->opening.settings;
	size_t at = 0;
	int rc = look_for_hosts(u, e);

	if (rc != 0 || u->dir == NULL)
		return rc;
	rc = choose_domain(u, cli_operand(u->args, 0), &at, e);
	if (rc != 0)
		return rc;
	note_names(u);
	lc_free(s->store);
	s->store = path_join(u->dir, u->hosts[at].store);
	return s->store == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : 0;
}

static void
done(struct unlock *u)
{
	lc_free(u->hosts);
	opening_done(&u->opening);
}

/* ---- unlock ---- */

/* With what the arguments name, else with what is typed; never with what is here already. */
static int
open_it(struct unlock *u, struct lc_err *e)
{
	const char *code = cli_get(u->args, "recovery-code-file");
	const char *pass = cli_get(u->args, "passphrase-file");
	struct lc_err asked = LC_ERR_INIT;
	int rc;

	if (code != NULL || pass != NULL)
		return opening_store(u->args, &u->opening, STORE_READ, "locum unlock", false, e);
	rc = opening_ask(u->args, &u->opening, "locum unlock", &asked);
	if (rc == LC_ENOTSUP)
		return lc_fail(e, LC_EKEY, 0,
		               "%s: give the recovery code with --recovery-code-file FILE "
		               "(/dev/stdin, /dev/fd/N)",
		               asked.msg);
	if (rc != 0)
		*e = asked;
	return rc;
}

static void
tell(const struct unlock *u, int64_t for_ns)
{
	char hex[33], when[40], age[48];
	int64_t until = clock_wall_ns() + for_ns;

	(void)lc_hex(hex, u->domain, 16);
	if (cli_has(u->args, "json")) {
		(void)printf("{\"domain\": \"%s\", \"until\": \"%s\", \"hosts\": ", hex,
		             clock_format_utc(when, sizeof when, until));
		cli_json_string(stdout, u->names);
		(void)puts("}");
		return;
	}
	if (cli_has(u->args, "quiet"))
		return;
	(void)printf("unlocked for %s, until %s: key domain %.8s%s%s\n",
	             clock_format_duration(age, sizeof age, for_ns),
	             clock_format(when, sizeof when, until), hex, u->names[0] == '\0' ? "" : " of ",
	             u->names);
	(void)puts(
	    "The keys are in this machine's memory until then, until `locum lock`, or until it "
	    "starts again.");
}

static int
unlock(struct unlock *u, int64_t for_ns, struct lc_err *e)
{
	int rc = settings_load(u->args, &u->opening.settings, e);

	rc = rc != 0 ? rc : choose_store(u, e);
	rc = rc != 0 ? rc : open_it(u, e);
	if (rc != 0)
		return rc;
	memcpy(u->domain, store_domain(u->opening.store), sizeof u->domain);
	return store_unlock(u->opening.store, for_ns, e);
}

static int
run_unlock(const struct cli_args *a)
{
	const char *text = cli_get(a, "for");
	int64_t for_ns = FOR_DEFAULT_NS;
	struct lc_err e = LC_ERR_INIT;
	struct unlock u = {.args = a};
	int rc;

	if (text != NULL &&
	    (!clock_parse_duration(text, &for_ns) || for_ns <= 0 || for_ns > FOR_MAX_NS))
		return cli_usage(a, "--for: '%s' is no time such as 30m or 8h, at most 7d", text);
	rc = unlock(&u, for_ns, &e);
	if (rc == 0)
		tell(&u, for_ns);
	done(&u);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

#define DIR_OPTION                                                                     \
	{                                                                              \
		.name = "dir", .arg = "DIR",                                           \
		.help = "folder of the replica (default: replica_dir of the settings)" \
	}

static const struct cli_option unlock_options[] = {
    {.name = "for", .arg = "TIME", .help = "how long (default 8h, at most 7d)"},
    DIR_OPTION,
    OPENING_OPTIONS,
    {.name = NULL}};

const struct cli_verb verb_unlock = {
    .name = "unlock",
    .operands = "[HOST]",
    .summary = "open stores that this machine has no key of, for a while",
    .details =
	"Takes the recovery code or the passphrase once, from the terminal or a file, and keeps\n"
	"the keys that it opens in the memory of this machine: never on disk, for root only,\n"
	"until `locum lock`, a restart, or the end of the time.  Meanwhile `points`, `restore`,\n"
	"`boot`, `verify` and `status` work without asking, and show names.\n"
	"\n"
	"HOST is a host of the replica here: its name, or the beginning of its fingerprint or\n"
	"key domain; all stores of one key domain are opened together.  Without HOST it is the\n"
	"store of --store or of the settings, else the only key domain of the replica.\n"
	"\n"
	"Examples:\n"
	"  locum unlock\n"
	"  locum unlock host-a --for 2h\n"
	"  locum unlock --store /mnt/store --recovery-code-file kit.txt",
    .options = unlock_options,
    .min_operands = 0,
    .max_operands = 1,
    .run = run_unlock,
};

/* ---- lock ---- */

/* A VM that was booted reads its disks through a process that keeps the keys until it is stopped.
 */
static void
tell_booted(const char *run_dir)
{
	DIR *d = opendir(run_dir);
	const struct dirent *ent;
	int rc = 0;

	while (d != NULL && (ent = dir_next(d, run_dir, &rc, NULL)) != NULL) {
		char *vm = ent->d_name[0] == '.' ? NULL : path_join(run_dir, ent->d_name);
		char *nbd = vm == NULL ? NULL : path_join(vm, "nbd");

		if (nbd != NULL && access(nbd, F_OK) == 0 && launch_alive(vm, NULL))
			(void)fprintf(stderr,
			              "locum: %s runs from a restore point and goes on: the server "
			              "of its disks keeps the keys until it is stopped\n",
			              ent->d_name);
		lc_free(nbd);
		lc_free(vm);
	}
	if (d != NULL)
		(void)closedir(d);
}

/* One domain, or NULL: all. */
static int
drop(const struct cli_args *a, const uint8_t *domain, struct lc_err *e)
{
	struct unlocked *list;
	char hex[33];
	size_t i, n, locked = 0;
	int rc = unlocked_list(&list, &n, e);

	for (i = 0; rc == 0 && i < n; i++) {
		if (domain != NULL && memcmp(list[i].domain, domain, 16) != 0)
			continue;
		rc = unlocked_drop(list[i].domain, e);
		locked += rc == 0;
		if (rc == 0 && !cli_has(a, "quiet") && !cli_has(a, "json"))
			(void)printf("locked: key domain %.8s\n", lc_hex(hex, list[i].domain, 16));
	}
	if (rc == 0 && cli_has(a, "json"))
		(void)printf("{\"locked\": %zu}\n", locked);
	else if (rc == 0 && locked == 0 && !cli_has(a, "quiet"))
		(void)puts("nothing was unlocked");
	lc_free(list);
	return rc;
}

static int
run_lock(const struct cli_args *a)
{
	struct lc_err e = LC_ERR_INIT;
	struct unlock u = {.args = a};
	size_t at = 0;
	int rc = settings_load(a, &u.opening.settings, &e);

	if (rc == 0 && cli_operands(a) > 0) {
		rc = look_for_hosts(&u, &e);
		rc = rc != 0 ? rc : choose_domain(&u, cli_operand(a, 0), &at, &e);
	}
	rc = rc != 0 ? rc : drop(a, cli_operands(a) > 0 ? u.domain : NULL, &e);
	if (rc == 0)
		tell_booted(u.opening.settings.run_dir);
	done(&u);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option lock_options[] = {DIR_OPTION, {.name = NULL}};

const struct cli_verb verb_lock = {
    .name = "lock",
    .operands = "[HOST]",
    .summary = "forget what `unlock` opened",
    .details =
	"Forgets the keys of all that was unlocked, or of HOST's key domain.  VMs that were\n"
	"booted go on: what serves their disks has the keys until they are stopped, and is named.\n"
	"\n"
	"Example:\n"
	"  locum lock",
    .options = lock_options,
    .min_operands = 0,
    .max_operands = 1,
    .run = run_lock,
};

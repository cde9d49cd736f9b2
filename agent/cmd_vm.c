/*
 * locum vm list, start, stop.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/discover.h"
#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/settings.h"
#include "agent/hypervisor/vmstate.h"
#include "agent/target.h"
#include "agent/verbs.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"

struct listed {
	const char *name;
	const char *how; /* "locum" started it, or "monitor", or "libvirt" */
	const char *state;
	int pid;
	const char *where; /* monitor socket, folder or URI */
	const char *why;   /* it can't be backed up, or its state can't be told; or NULL */
	bool left_out;     /* the former */
};

struct listing {
	bool json;
	size_t n; /* listed so far */
};

static void
print_vm(const struct listed *v, struct listing *l)
{
	bool first = l->n++ == 0;

	if (!l->json) {
		if (first)
			printf("%-20s %-9s %-8s %s\n", "VM", "STATE", "HOW", "WHERE");
		printf("%-20s %-9s %-8s %s\n", v->name, v->state, v->how,
		       v->why != NULL ? v->why : v->where);
		return;
	}
	printf("%s{\"vm\": ", first ? "" : ",\n ");
	cli_json_string(stdout, v->name);
	printf(", \"state\": \"%s\", \"how\": \"%s\", \"where\": ", v->state, v->how);
	cli_json_string(stdout, v->where);
	if (v->pid > 0)
		printf(", \"pid\": %d", v->pid);
	if (v->why != NULL) {
		printf(", \"%s\": ", v->left_out ? "left_out" : "why");
		cli_json_string(stdout, v->why);
	}
	printf("}");
}

/* With what its monitor says. */
static void
print_asked(struct listed *v, const char *word, const struct lc_err *why, struct listing *l)
{
	v->state = word;
	v->why = why->code == LC_OK ? NULL : why->msg;
	print_vm(v, l);
}

/* Where somebody else's VMs are kept, nothing tells whether one runs: that is not "off". */
static int
check_dir(const char *dir, struct lc_err *e)
{
	return access(dir, X_OK) == 0 || errno != EACCES ? 0 : lc_fail_errno(e, "%s", dir);
}

/* A booted restore point: it has a folder in run_dir, and no section of its own. */
static void
list_started(const struct settings *s, const char *name, struct listing *l)
{
	char *dir = path_join(s->run_dir, name), *writes = launch_writes(s->scratch_dir, name);
	struct listed v = {.name = name, .how = "locum", .where = dir};
	char word[VMSTATE_BYTES];
	struct lc_err why = LC_ERR_INIT;

	if (dir != NULL && launch_alive(dir, &v.pid)) {
		vmstate_launched(dir, word, &why);
		print_asked(&v, word, &why, l);
	} else if (writes != NULL && target_check_boot(s, name, &why) == LC_ENOTSUP) {
		v.state = VMSTATE_OFF;
		v.where = writes;
		print_vm(&v, l);
	}
	lc_free(writes);
	lc_free(dir);
}

static int
list_booted(const struct settings *s, struct listing *l, struct lc_err *e)
{
	DIR *d = opendir(s->run_dir);
	struct dirent *ent;
	int rc = 0;

	if (d == NULL && errno != ENOENT)
		return lc_fail_errno(e, "run_dir %s", s->run_dir);
	while (d != NULL && (ent = dir_next(d, s->run_dir, &rc, e)) != NULL) {
		if (ent->d_name[0] != '.' && settings_vm(s, ent->d_name) == NULL)
			list_started(s, ent->d_name, l);
	}
	if (d != NULL)
		(void)closedir(d);
	return rc;
}

static void
list_left_out(void *arg, const char *domain, const char *state, const char *why)
{
	const struct listed v = {.name = domain,
	                         .how = "libvirt",
	                         .state = state,
	                         .where = "",
	                         .why = why,
	                         .left_out = true};

	print_vm(&v, arg);
}

static void
list_vm(const struct settings *s, const struct settings_vm *sv, struct listing *l)
{
	char *dir = path_join(s->run_dir, sv->name);
	struct listed v = {.name = sv->name, .how = "locum", .where = ""};
	char word[VMSTATE_BYTES] = VMSTATE_OFF;
	struct lc_err why = LC_ERR_INIT;

	v.state = word;
	if (dir != NULL && launch_alive(dir, &v.pid)) {
		v.where = dir;
		vmstate_launched(dir, word, &why);
	} else if (dir != NULL && check_dir(dir, &why) != 0) {
		v.where = dir;
		v.state = VMSTATE_UNKNOWN;
	} else if (sv->qmp != NULL) {
		v.how = "monitor";
		v.where = sv->qmp;
		vmstate_ask(sv->qmp, word, &why);
	} else if (target_domain(s, sv->name) != NULL) {
		v.how = "libvirt";
		v.where = s->libvirt;
		v.state = sv->state[0] != '\0' ? sv->state : "missing";
	}
	print_asked(&v, v.state, &why, l);
	lc_free(dir);
}

static int
run_list(const struct cli_args *a)
{
	struct settings s = {0};
	struct lc_err e = LC_ERR_INIT, asked = LC_ERR_INIT;
	struct listing l = {.json = cli_has(a, "json")};
	size_t i;
	int rc;

	if (settings_load(a, &s, &e) != 0) {
		settings_done(&s);
		return cli_error(&e);
	}
	if (l.json)
		printf("[");
	(void)discover(&s, list_left_out, &l, &asked);
	for (i = 0; i < s.nvms; i++)
		list_vm(&s, &s.vms[i], &l);
	rc = list_booted(&s, &l, &e);
	if (l.json)
		printf("]\n");
	else if (l.n == 0 && rc == 0)
		printf("no VMs: %s has no section [vm NAME]\n",
		       s.origin == NULL ? "the configuration" : s.origin);
	settings_done(&s);
	if (asked.code != LC_OK)
		rc = cli_error(&asked);
	return rc == 0 ? CLI_DONE : e.code != LC_OK ? cli_error(&e) : CLI_FAILED;
}

struct outcome { /* what became of one VM */
	int pid;
	bool was_off;
	char where[PATH_MAX]; /* its folder */
};

static int
start_vm(const struct cli_args *a, const struct settings *s, const char *vm, struct outcome *out,
         struct lc_err *e)
{
	const struct settings_vm *sv = settings_vm(s, vm);
	struct launch_opts o = {
	    .vm = vm, .qemu = s->qemu, .accel = s->accel, .own_paths = true, .sandbox = true};
	char *user = NULL;
	int rc;

	(void)a;
	if (sv == NULL)
		return target_unknown(s, vm, e);
	if (sv->def == NULL)
		return lc_fail(e, LC_ENOENT, 0,
		               "%s: %s does not say what it is (disk, memory ... in [vm %s])", vm,
		               s->origin == NULL ? "locum.conf" : s->origin, vm);
	if (launch_alive(out->where, &out->pid))
		return lc_fail(e, LC_EEXIST, 0, "%s runs already (pid %d)", vm, out->pid);
	rc = definition_check(sv->def, e);
	if (rc != 0) {
		lc_wrap(e, "%s", vm);
		return rc;
	}
	o.dir = out->where;
	rc = dir_make(s->run_dir, 0700, e);
	rc = rc != 0 ? rc : settings_run_as(s, &user, e);
	o.run_as = user;
	rc = rc != 0 ? rc : launch_start(sv->def, &o, &out->pid, e);
	lc_free(user);
	return rc;
}

#define GRACE_MS 30000

static int
stop_vm(const struct cli_args *a, const struct settings *s, const char *vm, struct outcome *out,
        struct lc_err *e)
{
	int64_t grace_ns = GRACE_MS * LC_NS_PER_MS;
	const char *grace = cli_get(a, "grace");

	if (grace != NULL && !clock_parse_duration(grace, &grace_ns))
		return lc_fail(e, LC_EINVAL, 0, "--grace: \"%s\" is no duration (try 30s)", grace);
	out->was_off = !launch_alive(out->where, NULL);
	if (out->was_off && access(out->where, F_OK) != 0)
		return settings_vm(s, vm) == NULL
		           ? target_unknown(s, vm, e)
		           : lc_fail(e, LC_ENOENT, 0, "%s: locum started no VM of that name", vm);
	/* One that is off may have left a server or files behind. */
	return launch_stop(out->where, cli_has(a, "force") ? 0 : grace_ns / LC_NS_PER_MS, e);
}

static void
say(const struct cli_args *a, const char *vm, const struct outcome *x, const struct lc_err *e)
{
	if (cli_has(a, "json")) {
		printf("{\"vm\": ");
		cli_json_string(stdout, vm);
		printf(", \"ok\": %s, \"was_off\": %s, \"pid\": %d, \"where\": ",
		       e->code == LC_OK ? "true" : "false", x->was_off ? "true" : "false", x->pid);
		cli_json_string(stdout, x->where);
		printf(", \"error\": ");
		cli_json_string(stdout, e->code == LC_OK ? NULL : e->msg);
		printf("}");
	} else if (e->code != LC_OK || cli_has(a, "quiet")) {
		return;
	} else if (x->pid > 0) {
		printf("%s: started (pid %d), console in %s/serial.log\n", vm, x->pid, x->where);
	} else {
		printf("%s: %s\n", vm, x->was_off ? "was off already" : "stopped");
	}
	(void)fflush(stdout);
}

static int
for_each(const struct cli_args *a,
         int (*one)(const struct cli_args *a, const struct settings *s, const char *vm,
                    struct outcome *out, struct lc_err *e))
{
	struct settings s = {0};
	struct lc_err e = LC_ERR_INIT;
	size_t i, failed = 0, n = cli_operands(a);
	bool json = cli_has(a, "json");

	if (settings_load(a, &s, &e) != 0) {
		settings_done(&s);
		return cli_error(&e);
	}
	for (i = 0; i < n; i++) {
		const char *vm = cli_operand(a, i);
		struct outcome x = {0};
		int len = snprintf(x.where, sizeof x.where, "%s/%s", s.run_dir, vm);

		lc_err_clear(&e);
		if (len < 0 || (size_t)len >= sizeof x.where)
			(void)lc_fail(&e, LC_EINVAL, 0, "%s: the path of run_dir is too long", vm);
		else if (launch_check_name(vm, &e) == 0 && check_dir(x.where, &e) == 0)
			(void)one(a, &s, vm, &x, &e);
		if (json)
			printf("%s", i == 0 ? "[" : ",\n ");
		say(a, vm, &x, &e);
		if (e.code != LC_OK) {
			failed++;
			(void)cli_error(&e);
		}
	}
	if (json)
		printf("]\n");
	settings_done(&s);
	return failed == 0 ? CLI_DONE : failed < n ? CLI_PARTLY : CLI_FAILED;
}

static int
run_start(const struct cli_args *a)
{
	return for_each(a, start_vm);
}

static int
run_stop(const struct cli_args *a)
{
	return for_each(a, stop_vm);
}

static const struct cli_option no_options[] = {{.name = NULL}};

static const struct cli_option stop_options[] = {
    {.name = "grace", .arg = "TIME", .help = "time for the guest to power off (default 30s)"},
    {.name = "force", .letter = 'f', .help = "do not ask the guest"},
    {.name = NULL},
};

const struct cli_verb verb_vm_list = {
    .name = "vm list",
    .operands = "",
    .summary = "list the VMs of the configuration, of libvirt, and those that locum started",
    .details =
	"HOW says who runs a VM: locum, or somebody else, with a monitor socket for locum, or\n"
	"libvirt, whose domains are VMs where the configuration says `libvirt = URI`.\n"
	"STATE is running, paused, off, or what else QEMU calls it; unknown where the monitor\n"
	"does not tell, with the reason in the place of WHERE.\n"
	"\n"
	"Examples:\n"
	"  locum vm list\n"
	"  locum vm list --json\n",
    .options = no_options,
    .min_operands = 0,
    .max_operands = 0,
    .run = run_list,
};

const struct cli_verb verb_vm_start = {
    .name = "vm start",
    .operands = "VM...",
    .summary = "start VMs that the configuration describes",
    .details = "A VM started like this is backed up without any pause of its guest.  What the\n"
	       "configuration has to say for it: locum.conf(5).\n"
	       "\n"
	       "Example:\n  locum vm start web01\n",
    .options = no_options,
    .min_operands = 1,
    .max_operands = -1,
    .run = run_start,
};

const struct cli_verb verb_vm_stop = {
    .name = "vm stop",
    .operands = "VM...",
    .summary = "stop VMs that locum started or booted",
    .details =
	"Asks the guest to power off and waits; then ends it.  What a booted VM wrote stays in\n"
	"its overlays.\n"
	"\n"
	"Example:\n  locum vm stop web01 --grace 1m\n",
    .options = stop_options,
    .min_operands = 1,
    .max_operands = -1,
    .run = run_stop,
};

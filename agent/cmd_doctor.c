/*
 * locum doctor: what keeps this host's VMs from being protected, and what to do about it.
 */
#include <signal.h>
#include <stdio.h>

#include "agent/checkup.h"
#include "agent/discover.h"
#include "agent/findings.h"
#include "agent/hypervisor/settings.h"
#include "agent/verbs.h"
#include "store/base/cli.h"
#include "store/base/log.h"
#include "store/store.h"

static int
verdict(const struct findings *f)
{
	if (findings_worst(f, false) == FINDING_BAD)
		return CLI_FAILED;
	return findings_worst(f, true) == FINDING_BAD ? CLI_PARTLY : CLI_DONE;
}

/* A domain that can't be a VM of ours. */
static void
on_left_out(void *arg, const char *domain, const char *state, const char *why)
{
	struct finding *x = findings_vm(arg, FINDING_WARN, domain, "no",
	                                "domain of libvirt (%s): %s", state, why);

	finding_advise(x, "virsh domrename it, or give it a section: [vm NAME] with domain = %s",
	               domain);
}

/* The domains of libvirt become VMs of the settings. */
static void
find_domains(struct settings *s, struct findings *f)
{
	struct lc_err e = LC_ERR_INIT;

	if (s->libvirt == NULL)
		return;
	if (discover(s, on_left_out, f, &e) == 0) {
		(void)findings_add(f, FINDING_GOOD, "libvirt",
		                   "%s; domains that are asked something show as tainted "
		                   "(custom-monitor), which is all that is changed of them",
		                   s->libvirt);
	} else {
		finding_advise(findings_add(f, FINDING_BAD, "libvirt", "%s", e.msg),
		               "systemctl start libvirtd, or mend `libvirt` in %s",
		               s->origin == NULL ? SETTINGS_DEFAULT_PATH : s->origin);
	}
}

static int
run_doctor(const struct cli_args *a)
{
	struct settings s = {0};
	struct findings f = {0};
	struct checkup c = {.settings = &s, .findings = &f};
	struct lc_err e = LC_ERR_INIT;
	const char *only[64];
	int status;

	while (c.nonly < cli_operands(a) && c.nonly < sizeof only / sizeof only[0]) {
		only[c.nonly] = cli_operand(a, c.nonly);
		c.nonly++;
	}
	c.only = only;
	(void)signal(SIGPIPE, SIG_IGN); /* NOLINT(cert-err33-c) */
	if (settings_load(a, &s, &e) != 0) {
		struct finding *x = findings_add(&f, FINDING_BAD, "configuration", "%s", e.msg);

		finding_advise(x, "mend that line; locum.conf(5) explains every key");
	} else {
		checkup_host(&c);
		find_domains(&s, &f);
		checkup_vms(&c);
	}
	if (cli_has(a, "json"))
		findings_json(&f);
	else
		findings_print(&f, !cli_has(a, "quiet"));
	status = verdict(&f);
	store_close(c.store);
	findings_free(&f);
	settings_done(&s);
	return status;
}

static const struct cli_option options[] = {{.name = NULL}};

const struct cli_verb verb_doctor = {
    .name = "doctor",
    .operands = "[VM]...",
    .summary = "say what keeps the VMs of this host from being protected, and what to do",
    .details =
	"Looks at this host (privileges, configuration, store, scratch, programs, clock) and at\n"
	"each VM on it, or those named, also those that no configuration names: whether it is\n"
	"protected, could be, or why not.  Below each thing that is not as it should be stands the "
	"one thing to\n"
	"do.  Nothing is changed, and no guest is held up.\n"
	"\n"
	"Lines begin with ok, note (nothing to do), warn (works, and will hurt one day) or bad.\n"
	"With --quiet only the last two are shown.\n"
	"\n"
	"Exit status: 0 nothing is bad, 1 this host is not fit to make or boot restore points,\n"
	"3 some VMs can't be protected as they are.\n"
	"\n"
	"Examples:\n"
	"  locum doctor\n"
	"  locum doctor web01\n"
	"  locum doctor --quiet && echo fine\n"
	"  locum doctor --json",
    .options = options,
    .min_operands = 0,
    .max_operands = 64,
    .run = run_doctor,
};

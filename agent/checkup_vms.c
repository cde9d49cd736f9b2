/*
 * Each VM is asked as a backup would ask it, but under a tag of our own: so what a backup has in it
 * is somebody else's to us, and stays.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "agent/checkup.h"
#include "agent/findings.h"
#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/guestagent.h"
#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/processes.h"
#include "agent/hypervisor/settings.h"
#include "agent/target.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/store.h"

#define TAG "d0c70000"
#define STALE_NS (INT64_C(93600) * LC_NS_PER_S) /* older than a nightly backup, and some */
#define SEEN_MAX 256

struct seen { /* what two VMs must not share */
	char vm[HV_NAME_MAX];
	char uuid[37];
	char monitor[108];
};

struct round {
	struct checkup *c;
	uv_loop_t loop;
	struct process *processes;
	size_t nprocesses;
	struct seen *seen; /* [SEEN_MAX] */
	size_t nseen;
	uint64_t found; /* bit i: only[i] was */
};

struct probe { /* one VM, while it is looked at */
	uv_loop_t *loop;
	struct hv *hv;
	struct lc_err err;
	bool done, closed;
};

static const char *
origin(const struct checkup *c)
{
	return c->settings->origin == NULL ? SETTINGS_DEFAULT_PATH : c->settings->origin;
}

static bool
is_wanted(struct round *r, const char *vm)
{
	size_t i;

	for (i = 0; i < r->c->nonly; i++) {
		if (strcmp(r->c->only[i], vm) == 0) {
			r->found |= UINT64_C(1) << (i % 64);
			return true;
		}
	}
	return r->c->nonly == 0;
}

/* A message without the name of the VM, which stands in front of it. */
static const char *
without_name(const char *msg, const char *name)
{
	size_t n = strlen(name);

	return strncmp(msg, name, n) == 0 && strncmp(msg + n, ": ", 2) == 0 ? msg + n + 2 : msg;
}

/* ---- asking it ---- */

static void
on_prepared(void *arg, const struct lc_err *err)
{
	struct probe *p = arg;

	p->err = *err;
	p->done = true;
	/* Or the loop would go on to wait for another VM that is still open. */
	uv_stop(p->loop);
}

static void
on_closed(void *arg)
{
	struct probe *p = arg;

	p->closed = true;
}

static void
probe_begin(struct round *r, const struct hv_target *t, struct probe *p)
{
	*p = (struct probe){.loop = &r->loop};
	if (hv_open(&r->loop, t, NULL, NULL, &p->hv, &p->err) != 0)
		return;
	if (hv_prepare(p->hv, on_prepared, p, &p->err) != 0)
		return;
	while (!p->done && uv_run(&r->loop, UV_RUN_ONCE) != 0)
		continue;
}

static void
probe_end(struct round *r, struct probe *p)
{
	if (p->hv == NULL)
		return;
	hv_close(p->hv, on_closed, p);
	while (!p->closed && uv_run(&r->loop, UV_RUN_ONCE) != 0)
		continue;
	p->hv = NULL;
}

static struct hv_target
target_of(const struct round *r, const char *vm, const char *monitor, const struct definition *def)
{
	const struct settings *s = r->c->settings;

	return (struct hv_target){.vm = vm,
	                          .qmp = monitor,
	                          .def = def,
	                          .run_dir = s->run_dir,
	                          .scratch_dir = s->scratch_dir,
	                          .tag = TAG,
	                          .connect_timeout_ms = s->connect_timeout_ms,
	                          .command_timeout_ms = s->command_timeout_ms};
}

/* ---- what was found ---- */

static const struct process *
process_of(const struct round *r, const char *monitor)
{
	size_t i;

	for (i = 0; monitor != NULL && i < r->nprocesses; i++) {
		if (strcmp(r->processes[i].monitor, monitor) == 0)
			return &r->processes[i];
	}
	return NULL;
}

static bool
is_excluded(const struct settings_vm *sv, const char *disk)
{
	size_t i;

	for (i = 0; sv != NULL && i < sv->nexcludes; i++) {
		if (strcmp(sv->excludes[i], disk) == 0)
			return true;
	}
	return false;
}

static bool
has_disk(const struct hv_vm *vm, const char *name)
{
	size_t i;

	for (i = 0; i < vm->ndisks; i++) {
		if (strcmp(vm->disks[i].name, name) == 0)
			return true;
	}
	return false;
}

static bool
has_any(const struct settings_vm *sv, const struct hv_vm *vm)
{
	size_t i;

	for (i = 0; i < vm->ndisks; i++) {
		if (!is_excluded(sv, vm->disks[i].name))
			return true;
	}
	return false;
}

/* Where libvirt says where it is, a `disk` in a section would make another VM of it. */
static void
advise_image(const struct round *r, struct finding *x, const char *name, const char *disk)
{
	const char *domain = target_domain(r->c->settings, name);
	struct cli_word uri, word;

	if (domain != NULL) {
		finding_advise(x,
		               "virsh -c %s edit %s, with where the image is now; exclude = %s, in "
		               "[vm %s] of %s, if it may be lost",
		               cli_word(&uri, r->c->settings->libvirt), cli_word(&word, domain),
		               disk, name, origin(r->c));
	} else {
		finding_advise(x,
		               "disk = %s FORMAT FILE, in [vm %s] of %s, with where the "
		               "image is now; exclude = %s, if it may be lost",
		               disk, name, origin(r->c), disk);
	}
}

/* Every disk that would make a backup fail, and the lack of any. */
static size_t
judge_disks(struct round *r, const char *name, const struct settings_vm *sv, const struct hv_vm *vm)
{
	struct findings *f = r->c->findings;
	struct finding *x;
	size_t i, bad = 0;

	for (i = 0; i < vm->ndisks; i++) {
		const struct hv_disk *d = &vm->disks[i];

		if (d->capturable || is_excluded(sv, d->name))
			continue;
		bad++;
		x = findings_vm(f, FINDING_BAD, name, "no", "disk %s: %s", d->name, d->reason);
		if (d->path[0] != '\0' && access(d->path, F_OK) != 0 && errno == ENOENT) {
			advise_image(r, x, name, d->name);
		} else {
			finding_advise(x, "exclude = %s, in [vm %s] of %s, if it may be lost",
			               d->name, name, origin(r->c));
		}
	}
	for (i = 0; sv != NULL && i < sv->nexcludes; i++) {
		if (has_disk(vm, sv->excludes[i]))
			continue;
		x = findings_vm(
		    f, FINDING_WARN, name, "",
		    "disk %s is excluded, and it has none of that name: another one may "
		    "have been meant",
		    sv->excludes[i]);
		finding_advise(x, "remove exclude = %s from [vm %s] of %s", sv->excludes[i], name,
		               origin(r->c));
	}
	if (!has_any(sv, vm)) {
		bad++;
		x = findings_vm(f, sv == NULL ? FINDING_NOTE : FINDING_BAD, name, "no",
		                "it has no disk%s", vm->ndisks == 0 ? "" : " that is not excluded");
		if (sv != NULL)
			finding_advise(x, "%s [vm %s] of %s",
			               vm->ndisks == 0 ? "protect = no, in"
			                               : "remove an exclude = from",
			               name, origin(r->c));
	}
	return bad;
}

/* "running, disks vda 20 GiB, vdb 1 TiB; the guest pauses for milliseconds" */
static void
describe(const struct round *r, const struct settings_vm *sv, const struct hv_vm *vm,
         const char *monitor, struct lc_buf *out)
{
	const struct process *p = process_of(r, monitor);
	char size[32];
	size_t i;

	(void)lc_buf_printf(out, "%s, disk%s", vm->state, vm->ndisks == 1 ? "" : "s");
	for (i = 0; i < vm->ndisks; i++)
		(void)lc_buf_printf(out, "%s %s %s%s", i == 0 ? "" : ",", vm->disks[i].name,
		                    size_format(size, sizeof size, vm->disks[i].size),
		                    is_excluded(sv, vm->disks[i].name) ? " (excluded)" : "");
	if (strcmp(vm->way, "pause") == 0)
		(void)lc_buf_printf(out, "; the guest pauses for milliseconds");
	if (p != NULL)
		(void)lc_buf_printf(out, "; QEMU runs as user %u%s%s", p->uid,
		                    p->label[0] == '\0' ? "" : ", confined as ", p->label);
}

/* A disk of which a copy as a whole is not allowed, or NULL. */
static const char *
not_copied(const struct settings_vm *sv, const struct hv_vm *vm)
{
	size_t i;

	if (sv != NULL && sv->push_full)
		return NULL;
	for (i = 0; i < vm->ndisks; i++) {
		if (vm->disks[i].capturable && vm->disks[i].copied &&
		    !is_excluded(sv, vm->disks[i].name))
			return vm->disks[i].name;
	}
	return NULL;
}

/* `disk` as not_copied() says. */
static void
judge_protection(struct round *r, const char *name, const struct point *newest, const char *what,
                 const char *disk)
{
	struct checkup *c = r->c;
	char age[48];
	struct finding *x;
	int64_t ns;

	if (newest == NULL && c->store == NULL) {
		x = findings_vm(c->findings, FINDING_BAD, name, "no",
		                "could be protected, but the store can't be opened (%s)", what);
		finding_advise(x, "see `store` above");
		return;
	}
	if (newest == NULL && disk != NULL) {
		x = findings_vm(c->findings, FINDING_WARN, name, "ready",
		                "no restore point yet (%s); for the first one QEMU has to copy "
		                "disk %s as a whole, which takes scratch of its size",
		                what, disk);
		finding_advise(x, "push_full = yes, in [vm %s] of %s; then: locum backup %s", name,
		               origin(c), name);
		return;
	}
	if (newest == NULL) {
		x = findings_vm(c->findings, FINDING_WARN, name, "ready",
		                "no restore point yet (%s)", what);
		finding_advise(x, "locum backup %s", name);
		return;
	}
	ns = clock_since(clock_wall_ns(), newest->source_ns);
	(void)clock_format_duration(age, sizeof age, ns < 0 ? 0 : ns);
	if (!c->agent && ns > STALE_NS) {
		x = findings_vm(c->findings, FINDING_WARN, name, "protected",
		                "its newest restore point is %s old (%s)", age, what);
		finding_advise(x, "locum backup %s", name);
	} else {
		(void)findings_vm(c->findings, FINDING_GOOD, name, "protected",
		                  "protected, newest restore point %s old (%s)", age, what);
	}
	if (disk != NULL)
		(void)findings_vm(c->findings, FINDING_NOTE, name, "",
		                  "disk %s has to be copied as a whole where QEMU is started anew; "
		                  "push_full = yes allows it",
		                  disk);
}

/* True: it shares what it must not. */
static bool
judge_sharing(struct round *r, const char *name, const char *uuid, const char *monitor)
{
	struct checkup *c = r->c;
	struct seen *s;
	struct finding *x;
	size_t i;

	for (i = 0; i < r->nseen; i++) {
		s = &r->seen[i];
		if (monitor != NULL && strcmp(s->monitor, monitor) == 0) {
			x = findings_vm(c->findings, FINDING_BAD, name, "no",
			                "its monitor %s is that of VM %s, too: one VM under two "
			                "names",
			                monitor, s->vm);
			finding_advise(x, "remove [vm %s] or [vm %s] from %s", name, s->vm,
			               origin(c));
			return true;
		}
		if (uuid[0] != '\0' && strcmp(s->uuid, uuid) == 0) {
			x = findings_vm(c->findings, FINDING_WARN, name, "",
			                "its UUID %s is that of VM %s, too: one is a clone of the "
			                "other",
			                uuid, s->vm);
			finding_advise(x, "give one of them another UUID (uuidgen)");
			break;
		}
	}
	if (r->nseen < SEEN_MAX) {
		s = &r->seen[r->nseen++];
		(void)snprintf(s->vm, sizeof s->vm, "%s", name);
		(void)snprintf(s->uuid, sizeof s->uuid, "%s", uuid);
		(void)snprintf(s->monitor, sizeof s->monitor, "%s", monitor == NULL ? "" : monitor);
	}
	return false;
}

/* Why it can't be asked. */
static void
judge_failure(struct round *r, const char *name, const char *monitor, const struct lc_err *e)
{
	struct checkup *c = r->c;
	struct finding *x = findings_vm(c->findings, FINDING_BAD, name, "no", "%s",
	                                without_name(e->msg, name));

	switch (e->code) {
	case LC_EBUSY:
	case LC_ETIMEDOUT:
		finding_advise(x,
		               "give locum a monitor of its own: -qmp unix:/run/%s-locum.qmp,"
		               "server=on,wait=off",
		               name);
		break;
	case LC_ENOENT:
	case LC_EPEER:
		finding_advise(
		    x,
		    "start it, or say what it is by `disk =` in [vm %s] of %s, so that it "
		    "can be read while it is off",
		    name, origin(c));
		break;
	case LC_EINVAL:
		finding_advise(x, "qmp = its monitor, in [vm %s] of %s, instead of %s", name,
		               origin(c), monitor == NULL ? "what is there" : monitor);
		break;
	case LC_EACCES:
		finding_advise(x, "run it as root");
		break;
	case LC_ENOTSUP:
		finding_advise(x, "start it with a QEMU of 7.1 or later");
		break;
	default:
		finding_advise(x, "locum backup %s says more", name);
		break;
	}
}

/* By what libvirt says. */
static void
judge_agent(struct round *r, const char *name, enum hv_freeze freeze, enum finding_level level,
            enum hv_agent agent)
{
	struct findings *f = r->c->findings;
	struct finding *x;

	if (agent == HV_AGENT_THERE) {
		(void)findings_vm(f, FINDING_GOOD, name, "", "libvirt sees its guest agent");
	} else if (freeze != HV_FREEZE_OFFERED && agent == HV_AGENT_AWAY) {
		x = findings_vm(f, level, name, "",
		                "its guest can't be frozen: libvirt sees no guest agent in it");
		finding_advise(x, "apt install qemu-guest-agent, in the guest");
	} else if (freeze != HV_FREEZE_OFFERED) {
		x = findings_vm(f, level, name, "",
		                "its guest can't be frozen: no channel to a guest agent");
		finding_advise(x,
		               "virsh edit %s: a channel of type unix to "
		               "org.qemu.guest_agent.0",
		               name);
	}
}

/* Where it is to be frozen: whether a guest agent answers.  What it can do then it only says when
 * it is asked to. */
static void
judge_freeze(struct round *r, const char *name, const struct hv_vm *vm, const char *monitor)
{
	struct checkup *c = r->c;
	enum hv_freeze freeze = target_freeze(c->settings, name);
	enum finding_level level = freeze == HV_FREEZE_REQUIRE ? FINDING_BAD : FINDING_WARN;
	struct lc_err e = LC_ERR_INIT;
	struct finding *x;
	char *socket = NULL;

	if (freeze == HV_FREEZE_NEVER || !vm->running)
		return;
	if (vm->agent != HV_AGENT_UNKNOWN) {
		judge_agent(r, name, freeze, level, vm->agent);
		return;
	}
	if (target_agent(c->settings, name, monitor, &socket, &e) != 0)
		return;
	if (socket == NULL) {
		x = findings_vm(c->findings, level, name, "",
		                "its guest can't be frozen: no channel to a guest agent is known");
		finding_advise(x, "guest_agent = SOCKET, in [vm %s] of %s", name, origin(c));
	} else if (guestagent_ping(socket, c->settings->connect_timeout_ms, &e) != 0) {
		x = findings_vm(c->findings, level, name, "", "its guest can't be frozen: %s",
		                e.msg);
		finding_advise(x, "apt install qemu-guest-agent, in the guest");
	} else {
		(void)findings_vm(c->findings, FINDING_GOOD, name, "", "its guest agent answers");
	}
	lc_free(socket);
}

/* Its guest stands still, and nobody meant it to. */
static void
judge_state(struct round *r, const char *name, const struct hv_vm *vm)
{
	struct finding *x;

	if (strcmp(vm->state, "io-error") == 0) {
		x = findings_vm(
		    r->c->findings, FINDING_WARN, name, "",
		    "QEMU has stopped it, as one of its images can't be written: is there no "
		    "room, or does that disk fail?");
		finding_advise(x,
		               "make room there, then let it go on: virsh resume %s, or cont on "
		               "its monitor",
		               name);
	} else if (strcmp(vm->state, "crashed") == 0) {
		x = findings_vm(r->c->findings, FINDING_WARN, name, "",
		                "its guest has crashed, and stands still");
		finding_advise(x,
		               "see its console, then reset it: virsh reset %s, or system_reset on "
		               "its monitor",
		               name);
	}
}

static void
judge(struct round *r, const char *name, const struct settings_vm *sv, const struct hv_vm *vm,
      const char *monitor, const struct point *newest)
{
	struct lc_buf what = {0};
	const char *uuid = vm->def == NULL ? "" : vm->def->uuid;

	if (judge_sharing(r, name, uuid, monitor))
		return;
	if (judge_disks(r, name, sv, vm) > 0)
		return;
	describe(r, sv, vm, monitor, &what);
	judge_protection(r, name, newest, what.n == 0 ? "" : (const char *)what.p,
	                 not_copied(sv, vm));
	lc_buf_free(&what);
	judge_state(r, name, vm);
	judge_freeze(r, name, vm, monitor);
}

/* ---- VMs of the configuration, and those that we started ---- */

/* What it is where its monitor can't be asked: by the settings, else by its newest point. */
static struct definition *
definition_of(const struct settings_vm *sv, const struct point *newest)
{
	struct definition *def = NULL;

	if (sv != NULL && sv->def != NULL) {
		def = definition_new();
		if (def != NULL)
			*def = *sv->def;
	} else if (newest != NULL && newest->definition != NULL) {
		(void)definition_decode("newest restore point", newest->definition,
		                        strlen(newest->definition), &def, NULL);
	}
	return def;
}

static void
look_at_off(struct round *r, const char *name, const struct settings_vm *sv,
            const struct point *newest, const char *monitor, const struct lc_err *why)
{
	struct definition *def = definition_of(sv, newest);
	struct hv_target t = target_of(r, name, NULL, def);
	struct lc_err booted = LC_ERR_INIT;
	struct probe p;

	if (target_check_boot(r->c->settings, name, &booted) != 0) {
		finding_advise(findings_vm(r->c->findings, FINDING_BAD, name, "no", "%s",
		                           without_name(booted.msg, name)),
		               "locum boot %s --resume", name);
		lc_free(def);
		return;
	}
	if (def == NULL) {
		judge_failure(r, name, monitor, why);
		return;
	}
	probe_begin(r, &t, &p);
	if (p.err.code == LC_OK)
		judge(r, name, sv, hv_vm(p.hv), NULL, newest);
	else
		judge_failure(r, name, NULL, &p.err);
	probe_end(r, &p);
	lc_free(def);
}

/* One that does not run is what libvirt says of it, and nothing else. */
static void
look_at_domain(struct round *r, const char *name, const struct settings_vm *sv,
               const struct point *newest, const struct probe *p, const struct lc_err *why)
{
	const struct definition *told = p->hv == NULL ? NULL : hv_vm(p->hv)->def;
	struct hv_target t = target_of(r, name, NULL, told);
	struct cli_word uri, word;
	struct probe off;

	if (why->code != LC_ENOENT || told == NULL) {
		struct finding *x = findings_vm(r->c->findings, FINDING_BAD, name, "no", "%s",
		                                without_name(why->msg, name));

		finding_advise(x, "see what libvirt says: virsh -c %s dominfo %s",
		               cli_word(&uri, r->c->settings->libvirt), cli_word(&word, name));
		return;
	}
	probe_begin(r, &t, &off);
	if (off.err.code == LC_OK ||
	    (off.err.code == LC_EINVAL && off.hv != NULL && hv_vm(off.hv)->ndisks == 0))
		judge(r, name, sv, hv_vm(off.hv), NULL, newest);
	else
		judge_failure(r, name, NULL, &off.err);
	probe_end(r, &off);
}

static void
look_at(struct round *r, const char *name)
{
	struct checkup *c = r->c;
	const struct settings_vm *sv = settings_vm(c->settings, name);
	const char *domain = target_domain(c->settings, name);
	struct lc_err e = LC_ERR_INIT;
	struct point newest = {.ndisks = 0}, *known = NULL;
	struct probe p = {.done = false};
	struct hv_target t;
	char *monitor = NULL;

	if (c->store != NULL && store_find(c->store, name, &newest, NULL) == 0)
		known = &newest;
	if (target_monitor(c->settings, name, &monitor, &e) == 0 &&
	    (monitor != NULL || domain != NULL)) {
		t = target_of(r, name, monitor, NULL);
		t.libvirt = monitor == NULL ? c->settings->libvirt : NULL;
		t.domain = domain;
		probe_begin(r, &t, &p);
		e = p.err;
	} else if (e.code == LC_OK) {
		(void)lc_fail(&e, LC_ENOENT, 0,
		              "it does not run, and nothing says where its disks "
		              "are");
	}
	if (p.hv != NULL && p.err.code == LC_OK)
		judge(r, name, sv, hv_vm(p.hv), monitor, known);
	else if (monitor == NULL && domain != NULL)
		look_at_domain(r, name, sv, known, &p, &e);
	else if (e.code == LC_ENOENT || e.code == LC_EPEER)
		look_at_off(r, name, sv, known, monitor, &e);
	else
		judge_failure(r, name, monitor, &e);
	probe_end(r, &p);
	point_done(&newest);
	lc_free(monitor);
}

static void
look_at_wanted(struct round *r, const char *name)
{
	const struct settings_vm *sv = settings_vm(r->c->settings, name);

	if (!is_wanted(r, name))
		return;
	if (sv != NULL && sv->left_alone)
		(void)findings_vm(r->c->findings, FINDING_NOTE, name, "no",
		                  "left alone: protect = no, in [vm %s] of %s", name, origin(r->c));
	else
		look_at(r, name);
}

static void
look_at_started(struct round *r)
{
	const struct settings *s = r->c->settings;
	DIR *d = opendir(s->run_dir);
	struct dirent *ent;
	int rc = 0;

	while (d != NULL && (ent = dir_next(d, s->run_dir, &rc, NULL)) != NULL) {
		char *dir = path_join(s->run_dir, ent->d_name);

		if (dir != NULL && ent->d_name[0] != '.' && settings_vm(s, ent->d_name) == NULL &&
		    launch_alive(dir, NULL))
			look_at_wanted(r, ent->d_name);
		lc_free(dir);
	}
	if (d != NULL)
		(void)closedir(d);
}

/* ---- VMs that nobody has named ---- */

/* Whether it was looked at under a name of ours. */
static bool
is_known(const struct round *r, const struct process *p)
{
	const struct settings *s = r->c->settings;
	size_t i;

	for (i = 0; i < s->nvms; i++) {
		if (s->vms[i].qmp != NULL && strcmp(s->vms[i].qmp, p->monitor) == 0)
			return true;
	}
	for (i = 0; p->held && s->libvirt != NULL && i < s->nvms; i++) {
		const char *domain = target_domain(s, s->vms[i].name);

		/* Its domain may be named by UUID. */
		if (domain != NULL &&
		    (strcmp(domain, p->name) == 0 || strcmp(domain, p->uuid) == 0))
			return true;
	}
	return strncmp(p->monitor, s->run_dir, strlen(s->run_dir)) == 0 &&
	       p->monitor[strlen(s->run_dir)] == '/';
}

static void
name_of(const struct process *p, char *dst, size_t n)
{
	if (launch_check_name(p->name, NULL) == 0)
		(void)snprintf(dst, n, "%s", p->name);
	else
		(void)snprintf(dst, n, "pid-%d", p->pid);
}

static void
look_at_stranger(struct round *r, const struct process *p)
{
	struct checkup *c = r->c;
	char name[HV_NAME_MAX];
	struct finding *x;
	struct probe probe;
	struct hv_target t;

	name_of(p, name, sizeof name);
	if (!is_wanted(r, name))
		return;
	if (p->monitor[0] == '\0') {
		x = findings_vm(c->findings, FINDING_WARN, name, "no",
		                p->held
		                    ? "not protected: QEMU (pid %d) has a monitor, but whoever "
		                      "started it holds it"
		                    : "not protected: QEMU (pid %d) has no monitor for programs",
		                p->pid);
		if (p->held && c->settings->libvirt == NULL) {
			finding_advise(
			    x,
			    "libvirt = qemu:///system, in [locum] of %s, if it is a domain "
			    "of libvirt",
			    origin(c));
		} else {
			finding_advise(x,
			               "start it with one more monitor: -qmp "
			               "unix:/run/%s-locum.qmp,server=on,wait=off",
			               name);
		}
		return;
	}
	t = target_of(r, name, p->monitor, NULL);
	probe_begin(r, &t, &probe);
	if (probe.err.code != LC_OK) {
		judge_failure(r, name, p->monitor, &probe.err);
	} else if (!judge_sharing(r, name, hv_vm(probe.hv)->def->uuid, p->monitor) &&
	           judge_disks(r, name, NULL, hv_vm(probe.hv)) == 0) {
		struct lc_buf what = {0};

		describe(r, NULL, hv_vm(probe.hv), p->monitor, &what);
		x = findings_vm(c->findings, FINDING_WARN, name, "possible",
		                "not protected, but it could be (%s)",
		                what.n == 0 ? "" : (const char *)what.p);
		finding_advise(x, "[vm %s]\nqmp = %s\nat the end of %s; then: locum backup %s",
		               p->name[0] == '\0' ? "NAME" : name, p->monitor, origin(c),
		               p->name[0] == '\0' ? "NAME" : name);
		lc_buf_free(&what);
	}
	probe_end(r, &probe);
}

void
checkup_vms(struct checkup *c)
{
	struct round r = {.c = c};
	struct lc_err e = LC_ERR_INIT;
	size_t i;

	r.seen = lc_alloc_array(SEEN_MAX, sizeof *r.seen);
	if (r.seen == NULL || uv_loop_init(&r.loop) != 0) {
		c->findings->lost = true;
		lc_free(r.seen);
		return;
	}
	if (processes_list(c->proc, &r.processes, &r.nprocesses, &e) != 0)
		(void)findings_add(c->findings, FINDING_WARN, "processes", "%s", e.msg);
	for (i = 0; i < c->settings->nvms; i++)
		look_at_wanted(&r, c->settings->vms[i].name);
	look_at_started(&r);
	for (i = 0; i < r.nprocesses; i++) {
		if (!is_known(&r, &r.processes[i]))
			look_at_stranger(&r, &r.processes[i]);
	}
	for (i = 0; i < c->nonly; i++) {
		if ((r.found >> (i % 64) & 1) != 0)
			continue;
		finding_advise(findings_vm(c->findings, FINDING_BAD, c->only[i], "no",
		                           "there is no VM of that name: neither in %s nor running",
		                           origin(c)),
		               "locum doctor, without a name, lists those that there are");
	}
	(void)uv_loop_close(&r.loop);
	lc_free(r.processes);
	lc_free(r.seen);
}

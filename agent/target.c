#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/overlaid.h"
#include "agent/target.h"
#include "store/base/cli.h"
#include "store/base/files.h"
#include "store/base/unixsock.h"

static int
out_of_memory(const char *vm, struct lc_err *e)
{
	return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", vm);
}

const char *
target_domain(const struct settings *s, const char *vm)
{
	const struct settings_vm *sv = settings_vm(s, vm);

	if (s->libvirt == NULL || (sv != NULL && sv->qmp != NULL))
		return NULL;
	if (sv != NULL && sv->domain != NULL)
		return sv->domain;
	/* A definition without disks (a `uuid` that tells it from a clone) is no way to reach it.
	 */
	return sv != NULL && sv->def != NULL && sv->def->ndisks > 0 ? NULL : vm;
}

enum hv_freeze
target_freeze(const struct settings *s, const char *vm)
{
	const struct settings_vm *sv = settings_vm(s, vm);

	if (target_domain(s, vm) != NULL && (sv == NULL || !sv->freeze_set))
		return HV_FREEZE_OFFERED;
	return settings_freeze(sv);
}

int
target_monitor(const struct settings *s, const char *vm, char **out, struct lc_err *e)
{
	const struct settings_vm *sv = settings_vm(s, vm);
	char *dir = path_join(s->run_dir, vm);
	bool ours, named = sv != NULL && sv->qmp != NULL;
	int pid = 0, rc = 0;

	*out = NULL;
	if (dir == NULL)
		return out_of_memory(vm, e);
	ours = launch_alive(dir, &pid);
	if (ours && named && unixsock_listens(sv->qmp)) {
		rc = lc_fail(
		    e, LC_EEXIST, 0,
		    "%s: two VMs of that name run: one behind %s, and one that locum booted "
		    "(pid %d, %s): stop the one that is wrong (locum vm stop %s ends the "
		    "latter)",
		    vm, sv->qmp, pid, dir, vm);
		lc_free(dir);
		return rc;
	}
	if (ours)
		*out = path_join(dir, LAUNCH_MONITOR);
	else if (named)
		*out = lc_strdup(sv->qmp);
	if (*out == NULL && (ours || named))
		rc = out_of_memory(vm, e);
	lc_free(dir);
	return rc;
}

int
target_agent(const struct settings *s, const char *vm, const char *monitor, char **out,
             struct lc_err *e)
{
	const struct settings_vm *sv = settings_vm(s, vm);

	*out = NULL;
	if (monitor == NULL)
		return 0;
	if (sv == NULL || sv->qmp == NULL || strcmp(monitor, sv->qmp) != 0)
		*out = lc_asprintf("%s/%s/%s", s->run_dir, vm, LAUNCH_AGENT);
	else if (sv->guest_agent != NULL)
		*out = lc_strdup(sv->guest_agent);
	else
		return 0;
	return *out == NULL ? out_of_memory(vm, e) : 0;
}

static int
copy_definition(const struct definition *def, struct target *t, const char *vm, struct lc_err *e)
{
	t->def = definition_new();
	if (t->def == NULL)
		return out_of_memory(vm, e);
	*t->def = *def;
	return 0;
}

/* What its newest restore point says it is. */
static int
definition_of_point(struct store *store, const char *vm, struct target *t, struct lc_err *e)
{
	struct point p = {0};
	int rc = store_find(store, vm, &p, e);

	if (rc == 0 && p.definition == NULL)
		rc = lc_fail(e, LC_ENOENT, 0, "%s: its newest point holds no definition", vm);
	else if (rc == 0)
		rc = definition_decode("newest restore point", p.definition, strlen(p.definition),
		                       &t->def, e);
	point_done(&p);
	return rc;
}

int
target_learn(struct target *t, const struct definition *def, struct lc_err *e)
{
	if (def == NULL)
		return 0;
	lc_free(t->def);
	t->learned = true;
	return copy_definition(def, t, t->hv.vm, e);
}

/* What libvirt says is all that there is: its domain may have had disks before, which a point names
 * and which are another VM's by now. */
static int
check_learned(const struct target *t, const struct settings *s, struct lc_err *e)
{
	size_t i;

	for (i = 0; t->learned && i < t->def->ndisks; i++) {
		enum hv_role role = t->def->disks[i].role;

		if (role == HV_ROLE_DISK || role == HV_ROLE_NVRAM)
			return 0;
	}
	if (!t->learned)
		return 0;
	return lc_fail(
	    e, LC_ENOTSUP, 0,
	    "%s: it has no disk to back up; protect = no in [vm %s] of %s leaves it alone",
	    t->hv.vm, t->hv.vm, s->origin == NULL ? "locum.conf" : s->origin);
}

int
target_offline(const struct settings *s, struct store *store, const char *vm, struct target *t,
               struct lc_err *e)
{
	const struct settings_vm *sv = settings_vm(s, vm);
	struct lc_err why = LC_ERR_INIT;
	int rc = 0;

	if (t->hv.libvirt != NULL && !t->learned)
		return lc_fail(e, LC_ENOENT, 0, "%s: libvirt does not say where its disks are", vm);
	if (t->hv.libvirt != NULL && check_learned(t, s, e) != 0)
		return LC_ENOTSUP;
	lc_free(t->qmp);
	t->qmp = NULL;
	t->hv.qmp = t->hv.libvirt = NULL;
	/* One without disks (a `uuid` that tells it from a clone) does not say where they are. */
	if (t->def != NULL && t->def->ndisks == 0) {
		lc_free(t->def);
		t->def = NULL;
	}
	if (t->def == NULL && sv != NULL && sv->def != NULL && sv->def->ndisks > 0) {
		rc = copy_definition(sv->def, t, vm, e);
	} else if (t->def == NULL) {
		rc = definition_of_point(store, vm, t, &why);
		t->hv.def_past = true;
	}
	if (rc == LC_ENOENT && why.code == LC_ENOENT) {
		rc = lc_fail(e, LC_ENOENT, 0,
		             "%s: it does not run, and neither %s nor a restore point says where "
		             "its disks are",
		             vm, s->origin == NULL ? "locum.conf" : s->origin);
	} else if (why.code != LC_OK) {
		rc = lc_fail(e, why.code, 0, "%s", why.msg);
	}
	t->hv.def = t->def;
	return rc;
}

int
target_check_boot(const struct settings *s, const char *vm, struct lc_err *e)
{
	char *dir = launch_writes(s->scratch_dir, vm);
	char *path = dir == NULL ? NULL : path_join(dir, LAUNCH_POINT_FILE);
	const char *point = "a restore point";
	struct lc_buf text = {0};
	int rc = 0, n = (int)strlen(point);

	if (path == NULL) {
		rc = out_of_memory(vm, e);
	} else if (access(path, F_OK) == 0) {
		if (file_read_all(path, 4096, &text, NULL) == 0 && text.p != NULL) {
			point = (const char *)text.p;
			for (n = 0; (size_t)n < text.n && point[n] != '\n'; n++)
				continue;
		}
		rc = lc_fail(e, LC_ENOTSUP, 0,
		             "%s: it is off, and what it wrote since it was booted from %.*s lies "
		             "over that point, in %s: go on with it (locum boot %s --resume) and "
		             "back it up while it runs, or give it up by removing the folder",
		             vm, n, point, dir, vm);
	}
	lc_buf_free(&text);
	lc_free(path);
	lc_free(dir);
	return rc;
}

int
target_check_images(const struct target *t, const struct settings *s, struct store *store,
                    struct lc_err *e)
{
	const char *origin = s->origin == NULL ? "locum.conf" : s->origin, *vm = t->hv.vm;
	struct target past = {.def = NULL};
	size_t i;
	int rc = 0;

	/* What libvirt says is what the domain would be started with. */
	if (t->hv.def_past || t->learned || t->def == NULL ||
	    definition_of_point(store, vm, &past, NULL) != 0)
		return 0;
	for (i = 0; rc == 0 && i < t->def->ndisks; i++) {
		const struct def_disk *d = &t->def->disks[i],
				      *was = definition_disk(past.def, d->name);

		if (was != NULL && was->path[0] != '\0' && overlaid_by(d->path, was->path)) {
			rc = lc_fail(
			    e, LC_ENOTSUP, 0,
			    "%s: disk %s: %s names %s, and at its newest point it ran from "
			    "%s, which stands on it: name that one, or remove it if it is "
			    "merged or given up",
			    vm, d->name, origin, d->path, was->path);
		}
	}
	lc_free(past.def);
	return rc;
}

int
target_unknown(const struct settings *s, const char *vm, struct lc_err *e)
{
	const char *names[64], *near;
	size_t n = 0;

	for (; n < s->nvms && n < sizeof names / sizeof names[0]; n++)
		names[n] = s->vms[n].name;
	near = cli_nearest(vm, names, n);
	return lc_fail(e, LC_ENOENT, 0,
	               "no VM %s: %s has no section [vm %s] and none of that name was started by "
	               "locum%s%s (see: locum vm list)",
	               vm, s->origin == NULL ? "locum.conf" : s->origin, vm,
	               near == NULL ? "" : "; did you mean ", near == NULL ? "" : near);
}

int
target_find(const struct settings *s, struct store *store, const char *vm, struct target *t,
            struct lc_err *e)
{
	const struct settings_vm *sv = settings_vm(s, vm);
	int rc;

	memset(t, 0, sizeof *t);
	if (launch_check_name(vm, e) != 0)
		return LC_EINVAL;
	(void)snprintf(t->tag, sizeof t->tag, "%s", store_tag(store));
	t->run_dir = lc_asprintf("%s/.backup/%s", s->run_dir, vm); /* no VM is called .backup */
	if (t->run_dir == NULL)
		return out_of_memory(vm, e);
	t->hv = (struct hv_target){
	    .vm = vm,
	    .run_dir = t->run_dir,
	    .scratch_dir = s->scratch_dir,
	    .scratch_max = s->scratch_max,
	    .tag = t->tag,
	    .connect_timeout_ms = s->connect_timeout_ms,
	    .command_timeout_ms = s->command_timeout_ms,
	    .copy_timeout_s = (s->copy_timeout_ms + 999) / 1000,
	    .freeze = target_freeze(s, vm),
	    .freeze_timeout_ms = s->freeze_timeout_ms,
	    .by_job = sv != NULL && sv->by_job,
	    .push_full = sv != NULL && sv->push_full,
	};
	rc = target_monitor(s, vm, &t->qmp, e);
	rc = rc != 0 ? rc : target_agent(s, vm, t->qmp, &t->guest_agent, e);
	t->hv.qmp = t->qmp;
	t->hv.guest_agent = t->guest_agent;
	if (rc == 0 && sv != NULL && sv->def != NULL)
		rc = copy_definition(sv->def, t, vm, e);
	t->hv.def = t->def;
	if (rc == 0 && t->qmp == NULL && target_domain(s, vm) != NULL) {
		t->hv.libvirt = s->libvirt;
		t->hv.domain = target_domain(s, vm);
	} else if (rc == 0 && t->qmp == NULL) {
		struct lc_err why = LC_ERR_INIT;

		rc = target_offline(s, store, vm, t, &why);
		if (rc == LC_ENOENT && sv == NULL && target_check_boot(s, vm, e) == 0)
			rc = target_unknown(s, vm, e);
		else if (rc == LC_ENOENT && sv == NULL)
			rc = LC_ENOTSUP;
		else if (rc != 0)
			rc = lc_fail(e, why.code, 0, "%s", why.msg);
	}
	return rc;
}

int
target_make_dirs(struct target *t, const struct settings *s, struct lc_err *e)
{
	int rc = dir_make(t->run_dir, 0700, e);

	t->has_dir = true;
	return rc != 0 ? rc : dir_make(s->scratch_dir, 0700, e);
}

void
target_done(struct target *t)
{
	lc_free(t->qmp);
	lc_free(t->guest_agent);
	if (t->has_dir)
		(void)rmdir(t->run_dir);
	lc_free(t->run_dir);
	lc_free(t->def);
	t->qmp = NULL;
	t->guest_agent = NULL;
	t->run_dir = NULL;
	t->has_dir = false;
	t->def = NULL;
}

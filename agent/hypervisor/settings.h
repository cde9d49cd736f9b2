/**
 * settings: locum.conf, read once by every verb.
 *
 * Section [locum] holds the host's settings, a section [vm NAME] per VM says
 * how that VM is reached (qmp), what is left out (exclude) and, where Locum is
 * to start it, what it is (the keys of a definition).  conf/locum.conf lists
 * every key with its default and unit; a test keeps the two equal.
 *
 * An option on the command line goes before an environment variable, which goes
 * before the file, which goes before the default.  Every complaint names file
 * and line.
 */
#ifndef LOCUM_SETTINGS_H
#define LOCUM_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/hypervisor.h"
#include "store/base/errors.h"

struct cli_args;
struct config;

#define SETTINGS_DEFAULT_PATH "/etc/locum/locum.conf"

struct settings_vm {
	char name[HV_NAME_MAX];
	char *qmp;       /* monitor socket of a VM that somebody else runs, or NULL */
	char *domain;    /* name or UUID at libvirt, or NULL */
	char state[12];  /* of that domain, by discover.h, or "" */
	char **excludes; /* disks left out, excludes[nexcludes] */
	size_t nexcludes;
	char *guest_agent; /* socket of its agent's channel, where somebody else runs it, or NULL */
	bool freeze_set;   /* else settings_freeze() knows */
	enum hv_freeze freeze;
	bool rpo_set;           /* else the host's holds */
	int64_t rpo_ms;         /* 0: the agent leaves it alone */
	bool by_job;            /* snapshot = backup: every disk is copied by a job of QEMU's */
	bool push_full;         /* such a copy may be of a whole disk */
	bool left_alone;        /* protect = no: only where it is named */
	struct definition *def; /* what it is, or NULL where no key says so */
	unsigned line;          /* of its section's first key, for messages */
};

struct settings {     /* all pointers owned; free with settings_done() */
	char *origin; /* the file read, or NULL where there was none */
	char *store;  /* folder, or NULL */
	char *key_dir;
	char *run_dir;
	char *scratch_dir;
	uint64_t scratch_max; /* bytes, 0 = what is free */
	uint64_t workers;     /* threads, 0 = cores + 1 */
	uint64_t jobs;        /* VMs at once */
	int64_t level;        /* zstd */
	uint64_t cache;       /* bytes of decoded windows */
	uint64_t similar_max; /* bytes of the index of pages, 0: none */
	char *qemu;
	char *accel;
	char *run_as;  /* users that QEMUs started here may run as, see settings_run_as() */
	char *libvirt; /* URI of the host's libvirt, or NULL */
	char *nbdkit;
	char *plugin; /* path of nbdkit-locum-plugin.so, or "locum": in nbdkit's own folder */
	int64_t connect_timeout_ms;
	int64_t command_timeout_ms;
	int64_t copy_timeout_ms;
	int64_t freeze_timeout_ms;   /* how long a guest's filesystems may stand still */
	int64_t rpo_ms;              /* how old the newest restore point may get */
	uint64_t spool_max;          /* bytes of the store of a host with replicas, 0: any number */
	char *replica_dir;           /* what `locum replica` keeps */
	char *listen;                /* where it listens */
	uint64_t bandwidth;          /* bytes a second to replicas; 0: no limit */
	char *metrics;               /* where agent and replica serve them, or NULL */
	int64_t replica_patience_ms; /* how long a replica may be away until that is told */
	char *alert;                 /* program that is told what goes wrong, or NULL */
	struct settings_vm *vms;     /* in file order */
	size_t nvms;
};

/**
 * settings_load(args, out, e):
 * The file of --config, else of LOCUM_CONFIG, else SETTINGS_DEFAULT_PATH (which may be absent);
 * --store and LOCUM_STORE go before its `store`.  args may be NULL.
 *
 * Returns   0; LC_ENOENT (a file that was asked for is not there); LC_EINVAL "file:line: ...".
 * Ownership: *out needs settings_done() in every case.
 */
int settings_load(const struct cli_args *args, struct settings *out, struct lc_err *e);
/** settings_from(config, out, e): defaults and what the parsed file says; config may be NULL. */
int settings_from(const struct config *config, struct settings *out, struct lc_err *e);
/** settings_add_vm(s, name, def, out, e): one more VM, as if a section [vm name] with that
 * definition stood in the file; takes def.  *out is its name, s's own. */
int settings_add_vm(struct settings *s, const char *name, struct definition *def, const char **out,
                    struct lc_err *e);
/** settings_done(s): free everything in s. */
void settings_done(struct settings *s);

/** settings_same(a, b): whether they differ in the bandwidth at most, which can change at any time.
 */
bool settings_same(const struct settings *a, const struct settings *b);
/** settings_need_store(s, e): LC_EINVAL, saying where to put it, when no store is known. */
int settings_need_store(const struct settings *s, struct lc_err *e);
/**
 * settings_section(s, name, e):
 * The section of that VM, made if it is not there.  NULL and LC_EINVAL where a VM may not be called
 * so, or LC_ENOMEM.  Pointers to other sections are no longer good after it.
 */
struct settings_vm *settings_section(struct settings *s, const char *name, struct lc_err *e);
/** settings_vm(s, name): section of that VM, or NULL. */
const struct settings_vm *settings_vm(const struct settings *s, const char *name);
/** settings_freeze(vm): whether its guest is frozen: as `freeze` says, else HV_FREEZE_AUTO where
 * `guest_agent` is set.  vm may be NULL. */
enum hv_freeze settings_freeze(const struct settings_vm *vm);
/** settings_goal_ms(s, vm): how old its newest restore point may get; 0: the agent leaves it alone.
 */
static inline int64_t
settings_goal_ms(const struct settings *s, const struct settings_vm *vm)
{
	return vm->left_alone ? 0 : vm->rpo_set ? vm->rpo_ms : s->rpo_ms;
}

/**
 * settings_run_as(s, out, e):
 * The user that a QEMU is to be started as: the first one of run_as that this host has, *out = NULL
 * where we are not root and so can't choose.  lc_free() it.  LC_ENOENT where it has none of them.
 */
int settings_run_as(const struct settings *s, char **out, struct lc_err *e);

/* For the lint test and for help: the keys that are known. */
struct settings_key {
	const char *name;
	const char *fallback; /* text of the default; "" none */
};
/** settings_keys(section, n): borrowed array of the *n keys of section "locum" or "vm". */
const struct settings_key *settings_keys(const char *section, size_t *n);

#endif

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "agent/hypervisor/settings_load.h"

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)
#define RATE_MIN (UINT64_C(16) << 10) /* bytes a second */
#define RPO_MAX_MS (UINT64_C(7) * 24 * 3600 * 1000)
#define FIELDS_MAX 16 /* words in a `disk` or `nic` line */

/* ---- section [locum] ---- */

enum kind {
	KIND_PATH = 1,
	KIND_PROGRAM,
	KIND_ADDRESS,
	KIND_URI,
	KIND_USER,
	KIND_ACCEL,
	KIND_SIZE,
	KIND_COUNT,
	KIND_LEVEL,
	KIND_RATE,
	KIND_MS
};

/* Row i of host_rules says how key i of host_keys is read.  The defaults go through the same
 * parser as the file. */
static const struct settings_key host_keys[] = {
    {"store", ""},
    {"key_dir", "/etc/locum/keys"},
    {"run_dir", "/run/locum"},
    {"scratch_dir", "/var/lib/locum/scratch"},
    {"scratch_max", "0"},
    {"workers", "0"},
    {"jobs", "2"},
    {"level", "2"},
    {"cache", "64 MiB"},
    {"similar_max", "32 MiB"},
    {"qemu", "qemu-system-x86_64"},
    {"accel", "kvm:tcg"},
    {"run_as", "libvirt-qemu:nobody"},
    {"libvirt", ""},
    {"nbdkit", "nbdkit"},
    {"plugin", ""},
    {"connect_timeout", "5s"},
    {"command_timeout", "10s"},
    {"copy_timeout", "5s"},
    {"freeze_timeout", "10s"},
    {"rpo", "1m"},
    {"spool_max", "0"},
    {"replica_dir", "/var/lib/locum/replica"},
    {"listen", "*:7227"},
    {"bandwidth", "0"},
    {"metrics", ""},
    {"alert", ""},
    {"replica_patience", "5s"},
};
#define NHOST (sizeof host_keys / sizeof host_keys[0])

static const struct {
	enum kind kind;
	size_t offset; /* in struct settings */
	uint64_t min, max;
} host_rules[NHOST] = {
    {KIND_PATH, offsetof(struct settings, store), 0, 0},
    {KIND_PATH, offsetof(struct settings, key_dir), 0, 0},
    {KIND_PATH, offsetof(struct settings, run_dir), 0, 0},
    {KIND_PATH, offsetof(struct settings, scratch_dir), 0, 0},
    {KIND_SIZE, offsetof(struct settings, scratch_max), 0, UINT64_MAX},
    {KIND_COUNT, offsetof(struct settings, workers), 0, 64},
    {KIND_COUNT, offsetof(struct settings, jobs), 1, 64},
    {KIND_LEVEL, offsetof(struct settings, level), 0, 0},
    {KIND_SIZE, offsetof(struct settings, cache), MIB, TIB},
    {KIND_SIZE, offsetof(struct settings, similar_max), 0, TIB},
    {KIND_PROGRAM, offsetof(struct settings, qemu), 0, 0},
    {KIND_ACCEL, offsetof(struct settings, accel), 0, 0},
    {KIND_USER, offsetof(struct settings, run_as), 0, 0},
    {KIND_URI, offsetof(struct settings, libvirt), 0, 0},
    {KIND_PROGRAM, offsetof(struct settings, nbdkit), 0, 0},
    {KIND_PATH, offsetof(struct settings, plugin), 0, 0},
    {KIND_MS, offsetof(struct settings, connect_timeout_ms), 10, 600000},
    {KIND_MS, offsetof(struct settings, command_timeout_ms), 10, 600000},
    {KIND_MS, offsetof(struct settings, copy_timeout_ms), 1000, 600000},
    {KIND_MS, offsetof(struct settings, freeze_timeout_ms), 100, 60000},
    {KIND_MS, offsetof(struct settings, rpo_ms), 1000, RPO_MAX_MS},
    {KIND_SIZE, offsetof(struct settings, spool_max), 0, UINT64_MAX},
    {KIND_PATH, offsetof(struct settings, replica_dir), 0, 0},
    {KIND_ADDRESS, offsetof(struct settings, listen), 0, 0},
    {KIND_RATE, offsetof(struct settings, bandwidth), RATE_MIN, 0},
    {KIND_ADDRESS, offsetof(struct settings, metrics), 0, 0},
    {KIND_PATH, offsetof(struct settings, alert), 0, 0},
    {KIND_MS, offsetof(struct settings, replica_patience_ms), 0, 86400000},
};

int
settings_set_text(char **field, const char *value, struct lc_err *e)
{
	char *copy = lc_strdup(value);

	if (copy == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
	lc_free(*field);
	*field = copy;
	return 0;
}

static bool
only_from(const char *s, const char *more)
{
	for (; *s != '\0'; s++) {
		if (!isalnum((unsigned char)*s) && strchr(more, *s) == NULL)
			return false;
	}
	return true;
}

static int
set_number(size_t i, void *field, const char *value, struct lc_err *e)
{
	uint64_t v = 0;
	int64_t ns = 0;
	bool ok;

	if (host_rules[i].kind == KIND_MS) {
		ok = clock_parse_duration(value, &ns);
		v = (uint64_t)(ns / LC_NS_PER_MS);
		if (!ok)
			return lc_fail(e, LC_EINVAL, 0,
			               "%s: '%s' is no time such as 500ms, 5s or 2m",
			               host_keys[i].name, value);
	} else if (host_rules[i].kind == KIND_SIZE) {
		if (!config_size(value, &v))
			return lc_fail(e, LC_EINVAL, 0,
			               "%s: '%s' is no size such as 512 MiB or 20 GiB",
			               host_keys[i].name, value);
	} else if (!config_uint(value, &v)) {
		return lc_fail(e, LC_EINVAL, 0, "%s: '%s' is no number", host_keys[i].name, value);
	}
	if (v < host_rules[i].min || v > host_rules[i].max) {
		char low[32], high[32];

		if (host_rules[i].kind == KIND_SIZE)
			return lc_fail(e, LC_EINVAL, 0, "%s: must be %s to %s", host_keys[i].name,
			               size_format(low, sizeof low, host_rules[i].min),
			               size_format(high, sizeof high, host_rules[i].max));
		return lc_fail(e, LC_EINVAL, 0, "%s: must be %llu to %llu%s", host_keys[i].name,
		               (unsigned long long)host_rules[i].min,
		               (unsigned long long)host_rules[i].max,
		               host_rules[i].kind == KIND_MS ? " ms" : "");
	}
	memcpy(field, &v, sizeof v); /* int64_t fields too: their limits are far below 2^63 */
	return 0;
}

static int
set_level(int64_t *field, const char *value, struct lc_err *e)
{
	char *end;
	long v;

	errno = 0;
	v = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || v < -7 || v > 19)
		return lc_fail(e, LC_EINVAL, 0, "level: '%s' is no zstd level from -7 to 19",
		               value);
	*field = v;
	return 0;
}

static int
set_rate(size_t i, uint64_t *field, const char *value, struct lc_err *e)
{
	char low[32];

	if (!config_rate(value, field))
		return lc_fail(e, LC_EINVAL, 0,
		               "%s: '%s' is no rate such as 50 MiB/s or 400 Mbit/s (0: no limit)",
		               host_keys[i].name, value);
	if (*field > 0 && *field < host_rules[i].min)
		return lc_fail(e, LC_EINVAL, 0, "%s: must be 0 or at least %s/s", host_keys[i].name,
		               size_format(low, sizeof low, host_rules[i].min));
	return 0;
}

static int
set_host(struct settings *s, size_t i, const char *value, struct lc_err *e)
{
	uint8_t *field = (uint8_t *)s + host_rules[i].offset;
	const char *name = host_keys[i].name;

	switch (host_rules[i].kind) {
	case KIND_PATH:
		if (value[0] != '/')
			return lc_fail(e, LC_EINVAL, 0, "%s: '%s' is not an absolute path", name,
			               value);
		return settings_set_text((char **)(void *)field, value, e);
	case KIND_PROGRAM:
		if (value[0] == '\0' || value[0] == '-')
			return lc_fail(e, LC_EINVAL, 0, "%s: '%s' is no program", name, value);
		return settings_set_text((char **)(void *)field, value, e);
	case KIND_ADDRESS:
		if (value[0] == '\0' || !only_from(value, "*.:[]-_%"))
			return lc_fail(e, LC_EINVAL, 0,
			               "%s: '%s' is no address such as 192.0.2.7:7227 or *:7227",
			               name, value);
		return settings_set_text((char **)(void *)field, value, e);
	case KIND_URI:
		if (strchr(value, ':') == NULL || !only_from(value, ":/+?=&@.-_%,~"))
			return lc_fail(e, LC_EINVAL, 0, "%s: '%s' is no URI such as qemu:///system",
			               name, value);
		return settings_set_text((char **)(void *)field, value, e);
	case KIND_USER:
		if (value[0] == '\0' || !only_from(value, ":._-"))
			return lc_fail(e, LC_EINVAL, 0,
			               "%s: '%s' is no list of users such as libvirt-qemu:nobody",
			               name, value);
		return settings_set_text((char **)(void *)field, value, e);
	case KIND_ACCEL:
		if (value[0] == '\0' || !only_from(value, ":"))
			return lc_fail(e, LC_EINVAL, 0,
			               "%s: '%s' is no list of accelerators such as kvm:tcg", name,
			               value);
		return settings_set_text((char **)(void *)field, value, e);
	case KIND_LEVEL:
		return set_level((int64_t *)(void *)field, value, e);
	case KIND_RATE:
		return set_rate(i, (uint64_t *)(void *)field, value, e);
	case KIND_SIZE:
	case KIND_COUNT:
	case KIND_MS:
		return set_number(i, field, value, e);
	}
	return lc_fail(e, LC_EINVAL, 0, "%s: no rule", name);
}

/* ---- sections [vm NAME] ---- */

static const struct settings_key vm_keys[] = {
    {"qmp", ""},          {"domain", ""},      {"exclude", ""},       {"rpo", ""},
    {"snapshot", "auto"}, {"push_full", "no"}, {"machine", "q35"},    {"cpu", "max"},
    {"cpus", "1"},        {"topology", ""},    {"memory", "512 MiB"}, {"uuid", ""},
    {"clock", "utc"},     {"append", ""},      {"firmware", ""},      {"nvram", ""},
    {"kernel", ""},       {"initrd", ""},      {"disk", ""},          {"nic", ""},
    {"guest_agent", ""},  {"freeze", ""},      {"cpu_features", ""},  {"protect", "yes"},
};
#define NVM (sizeof vm_keys / sizeof vm_keys[0])

enum vm_key {
	VM_QMP,
	VM_DOMAIN,
	VM_EXCLUDE,
	VM_RPO,
	VM_SNAPSHOT,
	VM_PUSH_FULL,
	VM_MACHINE,
	VM_CPU,
	VM_CPUS,
	VM_TOPOLOGY,
	VM_MEMORY,
	VM_UUID,
	VM_CLOCK,
	VM_APPEND,
	VM_FIRMWARE,
	VM_NVRAM,
	VM_KERNEL,
	VM_INITRD,
	VM_DISK,
	VM_NIC,
	VM_GUEST_AGENT,
	VM_FREEZE,
	VM_CPU_FEATURES,
	VM_PROTECT,
};

/* Cut text (changed) into words at blanks; "..." keeps blanks.  Returns their number, or -1 where
 * there are too many or a quote is open. */
static int
split_words(char *text, char *words[FIELDS_MAX])
{
	int n = 0;

	for (;;) {
		char end;

		text += strspn(text, " \t\n\v\f\r");
		if (*text == '\0')
			return n;
		if (n == FIELDS_MAX)
			return -1;
		end = *text == '"' ? '"' : ' ';
		if (end == '"')
			text++;
		words[n++] = text;
		while (*text != '\0' &&
		       (end == '"' ? *text != '"' : !isspace((unsigned char)*text)))
			text++;
		if (*text == '\0')
			return end == '"' ? -1 : n;
		*text++ = '\0';
	}
}

/* "NAME FORMAT PATH [key=value...]" and "NAME NETWORK [key=value...]". */
static int
set_device(struct definition *def, const char *section, const char *const *columns, size_t ncolumns,
           const char *value, struct lc_err *e)
{
	char *text = lc_strdup(value), *words[FIELDS_MAX];
	int n, rc = 0;
	size_t i;

	if (text == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
	n = split_words(text, words);
	if (n < 0 || (size_t)n < ncolumns) {
		rc = lc_fail(e, LC_EINVAL, 0,
		             strcmp(section, "disk") == 0
		                 ? "disk: expected NAME FORMAT PATH [KEY=VALUE]..."
		                 : "nic: expected NAME NETWORK [model=MODEL] [mac=MAC]");
		goto out;
	}
	for (i = 1; rc == 0 && i < ncolumns; i++) {
		if (strcmp(columns[i], "path") == 0 && words[i][0] != '/')
			rc = lc_fail(e, LC_EINVAL, 0, "disk %s: '%s' is not an absolute path",
			             words[0], words[i]);
		else
			rc = definition_set(def, section, words[0], columns[i], words[i], e);
	}
	for (; rc == 0 && i < (size_t)n; i++) {
		char *eq = strchr(words[i], '=');

		if (eq == NULL) {
			rc = lc_fail(e, LC_EINVAL, 0, "%s %s: '%s' is not key=value", section,
			             words[0], words[i]);
			break;
		}
		*eq = '\0';
		rc = definition_set(def, section, words[0], words[i], eq + 1, e);
	}
out:
	lc_free(text);
	return rc;
}

/* A file beside the VM (kernel, initrd, firmware variables) is a disk with that role. */
static int
set_role(struct definition *def, const char *role, const char *value, struct lc_err *e)
{
	if (value[0] != '/')
		return lc_fail(e, LC_EINVAL, 0, "%s: '%s' is not an absolute path", role, value);
	if (definition_set(def, "disk", role, "role", role, e) != 0 ||
	    definition_set(def, "disk", role, "format", "raw", e) != 0)
		return e == NULL ? LC_EINVAL : (int)e->code;
	return definition_set(def, "disk", role, "path", value, e);
}

static int
add_exclude(struct settings_vm *vm, const char *value, struct lc_err *e)
{
	char **more = lc_realloc(vm->excludes, (vm->nexcludes + 1) * sizeof *more);

	if (more == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
	vm->excludes = more;
	more[vm->nexcludes] = NULL;
	if (value[0] == '\0')
		return lc_fail(e, LC_EINVAL, 0, "exclude: name a disk");
	if (settings_set_text(&more[vm->nexcludes], value, e) != 0)
		return LC_ENOMEM;
	vm->nexcludes++;
	return 0;
}

/* 0: the agent leaves this VM alone. */
static int
set_rpo(struct settings_vm *vm, const char *value, struct lc_err *e)
{
	int64_t ns;

	if (!clock_parse_duration(value, &ns) || (ns != 0 && ns < LC_NS_PER_S) ||
	    ns / LC_NS_PER_MS > (int64_t)RPO_MAX_MS)
		return lc_fail(e, LC_EINVAL, 0, "rpo: '%s' is no time such as 5s or 15m (0: never)",
		               value);
	vm->rpo_ms = ns / LC_NS_PER_MS;
	vm->rpo_set = true;
	return 0;
}

/* One of two words; true: the second. */
static int
set_choice(bool *field, const char *key, const char *no, const char *yes, const char *value,
           struct lc_err *e)
{
	*field = strcmp(value, yes) == 0;
	if (*field || strcmp(value, no) == 0)
		return 0;
	return lc_fail(e, LC_EINVAL, 0, "%s: '%s' is neither %s nor %s", key, value, no, yes);
}

static int
set_freeze(struct settings_vm *vm, const char *value, struct lc_err *e)
{
	static const char *const words[] = {[HV_FREEZE_NEVER] = "never",
	                                    [HV_FREEZE_AUTO] = "auto",
	                                    [HV_FREEZE_REQUIRE] = "require"};
	size_t i;

	for (i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (strcmp(value, words[i]) == 0) {
			vm->freeze = (enum hv_freeze)i;
			vm->freeze_set = true;
			return 0;
		}
	}
	return lc_fail(e, LC_EINVAL, 0, "freeze: '%s' is none of auto, never, require", value);
}

static int
set_socket(char **field, const char *key, const char *value, struct lc_err *e)
{
	if (value[0] != '/')
		return lc_fail(e, LC_EINVAL, 0, "%s: '%s' is not an absolute path", key, value);
	return settings_set_text(field, value, e);
}

static int
set_vm(struct settings_vm *vm, enum vm_key key, const char *value, struct lc_err *e)
{
	static const char *const disk_columns[] = {"", "format", "path"};
	static const char *const nic_columns[] = {"", "network"};
	const char *name = vm_keys[key].name;

	if (key == VM_QMP)
		return set_socket(&vm->qmp, name, value, e);
	if (key == VM_DOMAIN)
		return settings_set_text(&vm->domain, value, e);
	if (key == VM_GUEST_AGENT)
		return set_socket(&vm->guest_agent, name, value, e);
	if (key == VM_FREEZE)
		return set_freeze(vm, value, e);
	if (key == VM_EXCLUDE)
		return add_exclude(vm, value, e);
	if (key == VM_RPO)
		return set_rpo(vm, value, e);
	if (key == VM_SNAPSHOT)
		return set_choice(&vm->by_job, name, "auto", "backup", value, e);
	if (key == VM_PUSH_FULL)
		return set_choice(&vm->push_full, name, "no", "yes", value, e);
	if (key == VM_PROTECT)
		return set_choice(&vm->left_alone, name, "yes", "no", value, e);
	if (vm->def == NULL) {
		vm->def = definition_new();
		if (vm->def == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
	}
	switch (key) {
	case VM_MACHINE:
		return definition_set(vm->def, "machine", "", "type", value, e);
	case VM_CPU:
	case VM_CPU_FEATURES:
	case VM_CPUS:
	case VM_TOPOLOGY:
	case VM_MEMORY:
	case VM_UUID:
	case VM_CLOCK:
	case VM_APPEND:
	case VM_FIRMWARE:
		return definition_set(vm->def, "machine", "", name, value, e);
	case VM_NVRAM:
	case VM_KERNEL:
	case VM_INITRD:
		return set_role(vm->def, name, value, e);
	case VM_DISK:
		return set_device(vm->def, "disk", disk_columns, 3, value, e);
	case VM_NIC:
		return set_device(vm->def, "nic", nic_columns, 2, value, e);
	case VM_QMP:
	case VM_DOMAIN:
	case VM_EXCLUDE:
	case VM_RPO:
	case VM_GUEST_AGENT:
	case VM_FREEZE:
	case VM_SNAPSHOT:
	case VM_PUSH_FULL:
	case VM_PROTECT:
		break;
	}
	return lc_fail(e, LC_EINVAL, 0, "%s: no rule", name);
}

struct settings_vm *
settings_section(struct settings *s, const char *name, struct lc_err *e)
{
	struct settings_vm *more;
	size_t i;

	for (i = 0; i < s->nvms; i++) {
		if (strcmp(s->vms[i].name, name) == 0)
			return &s->vms[i];
	}
	if (name[0] == '\0' || strlen(name) >= HV_NAME_MAX || name[0] == '-' || name[0] == '.' ||
	    !only_from(name, "._-")) {
		(void)lc_fail(
		    e, LC_EINVAL, 0,
		    "[vm %s]: a VM's name has letters, digits, '.', '_' and '-', at most %d", name,
		    HV_NAME_MAX - 1);
		return NULL;
	}
	more = lc_realloc(s->vms, (s->nvms + 1) * sizeof *more);
	if (more == NULL) {
		(void)lc_fail(e, LC_ENOMEM, 0, "settings: out of memory");
		return NULL;
	}
	s->vms = more;
	more[s->nvms] = (struct settings_vm){0};
	memcpy(more[s->nvms].name, name, strlen(name) + 1); /* the length was checked */
	return &more[s->nvms++];
}

/* ---- the file ---- */

static int
unknown(const char *what, const char *word, const struct settings_key *keys, size_t n,
        struct lc_err *e)
{
	const char *names[NHOST > NVM ? NHOST : NVM];
	const char *near;
	size_t i;

	for (i = 0; i < n; i++)
		names[i] = keys[i].name;
	near = cli_nearest(word, names, n);
	return near == NULL ? lc_fail(e, LC_EINVAL, 0, "unknown %s '%s'", what, word)
	                    : lc_fail(e, LC_EINVAL, 0, "unknown %s '%s'; did you mean '%s'?", what,
	                              word, near);
}

static int
find_key(const struct settings_key *keys, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (strcmp(keys[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

static int
host_entry(struct settings *s, const struct config_entry *x, unsigned first_line[NHOST],
           struct lc_err *e)
{
	int i;

	if (x->name[0] != '\0')
		return lc_fail(e, LC_EINVAL, 0, "[locum] takes no name");
	if (x->key[0] == '\0')
		return 0;
	i = find_key(host_keys, NHOST, x->key);
	if (i < 0)
		return unknown("key in [locum]", x->key, host_keys, NHOST, e);
	if (first_line[i] != 0)
		return lc_fail(e, LC_EINVAL, 0, "%s is set twice (first in line %u)", x->key,
		               first_line[i]);
	first_line[i] = x->line;
	return set_host(s, (size_t)i, x->value, e);
}

static int
vm_entry(struct settings *s, const struct config_entry *entries, size_t at, struct lc_err *e)
{
	const struct config_entry *x = &entries[at];
	struct settings_vm *vm = settings_section(s, x->name, e);
	size_t i;
	int key;

	if (vm == NULL)
		return LC_EINVAL;
	vm->line = vm->line == 0 ? x->line : vm->line;
	if (x->key[0] == '\0')
		return 0;
	key = find_key(vm_keys, NVM, x->key);
	if (key < 0)
		return unknown("key in [vm]", x->key, vm_keys, NVM, e);
	for (i = 0; i < at && key != VM_EXCLUDE && key != VM_DISK && key != VM_NIC; i++) {
		if (strcmp(entries[i].section, "vm") == 0 &&
		    strcmp(entries[i].name, x->name) == 0 && strcmp(entries[i].key, x->key) == 0)
			return lc_fail(e, LC_EINVAL, 0, "%s is set twice (first in line %u)",
			               x->key, entries[i].line);
	}
	return set_vm(vm, (enum vm_key)key, x->value, e);
}

static int
apply(struct settings *s, const struct config *config, struct lc_err *e)
{
	static const struct settings_key sections[] = {{"locum", ""}, {"vm", ""}};
	const struct config_entry *x;
	unsigned first_line[NHOST] = {0};
	struct lc_err inner = LC_ERR_INIT;
	size_t i, n;

	x = config_entries(config, &n);
	for (i = 0; i < n && inner.code == LC_OK; i++) {
		if (strcmp(x[i].section, "locum") == 0)
			(void)host_entry(s, &x[i], first_line, &inner);
		else if (strcmp(x[i].section, "vm") == 0)
			(void)vm_entry(s, x, i, &inner);
		else if (x[i].section[0] == '\0')
			(void)lc_fail(&inner, LC_EINVAL, 0,
			              "'%s' belongs into a section such as [locum]", x[i].key);
		else
			(void)unknown("section", x[i].section, sections, 2, &inner);
	}
	if (inner.code == LC_OK)
		return 0;
	return lc_fail(e, inner.code, 0, "%s:%u: %s", config_origin(config), x[i - 1].line,
	               inner.msg);
}

int
settings_from(const struct config *config, struct settings *out, struct lc_err *e)
{
	size_t i;

	*out = (struct settings){0};
	for (i = 0; i < NHOST; i++) {
		int rc = host_keys[i].fallback[0] == '\0'
		             ? 0
		             : set_host(out, i, host_keys[i].fallback, e);

		if (rc != 0) {
			lc_wrap(e, "default");
			return rc;
		}
	}
	if (config != NULL) {
		if (settings_set_text(&out->origin, config_origin(config), e) != 0)
			return LC_ENOMEM;
		if (apply(out, config, e) != 0)
			return e == NULL ? LC_EINVAL : (int)e->code;
	}
	if (settings_default_key_dir(out, config, e) != 0)
		return LC_ENOMEM;
	return settings_default_plugin(out, e);
}

int
settings_add_vm(struct settings *s, const char *name, struct definition *def, const char **out,
                struct lc_err *e)
{
	struct settings_vm *vm = settings_section(s, name, e);

	if (vm == NULL) {
		lc_free(def);
		return e == NULL ? LC_EINVAL : (int)e->code;
	}
	lc_free(vm->def);
	vm->def = def;
	*out = vm->name;
	return 0;
}

const struct settings_vm *
settings_vm(const struct settings *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->nvms; i++) {
		if (strcmp(s->vms[i].name, name) == 0)
			return &s->vms[i];
	}
	return NULL;
}

const struct settings_key *
settings_keys(const char *section, size_t *n)
{
	if (strcmp(section, "vm") == 0) {
		*n = NVM;
		return vm_keys;
	}
	*n = NHOST;
	return host_keys;
}

static bool
is_text(enum kind kind)
{
	return kind == KIND_PATH || kind == KIND_PROGRAM || kind == KIND_ACCEL ||
	       kind == KIND_USER || kind == KIND_ADDRESS || kind == KIND_URI;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
same_host(const struct settings *a, const struct settings *b, size_t i)
{
	const uint8_t *x = (const uint8_t *)a + host_rules[i].offset;
	const uint8_t *y = (const uint8_t *)b + host_rules[i].offset;

	if (is_text(host_rules[i].kind))
		return same_text(*(char *const *)(const void *)x, *(char *const *)(const void *)y);
	return host_rules[i].kind == KIND_RATE || memcmp(x, y, sizeof(uint64_t)) == 0;
}

static bool
same_definition(const struct definition *a, const struct definition *b)
{
	struct lc_buf x = {0}, y = {0};
	bool same = definition_encode(a, &x, NULL) == 0 && definition_encode(b, &y, NULL) == 0 &&
	            x.n == y.n && memcmp(x.p, y.p, x.n) == 0;

	lc_buf_free(&x);
	lc_buf_free(&y);
	return same;
}

static bool
same_vm(const struct settings_vm *a, const struct settings_vm *b)
{
	size_t i;

	if (strcmp(a->name, b->name) != 0 || !same_text(a->qmp, b->qmp) ||
	    !same_text(a->domain, b->domain) || !same_text(a->guest_agent, b->guest_agent) ||
	    settings_freeze(a) != settings_freeze(b) || a->nexcludes != b->nexcludes ||
	    a->by_job != b->by_job || a->push_full != b->push_full ||
	    a->left_alone != b->left_alone || a->rpo_set != b->rpo_set || a->rpo_ms != b->rpo_ms ||
	    (a->def == NULL) != (b->def == NULL))
		return false;
	for (i = 0; i < a->nexcludes; i++) {
		if (strcmp(a->excludes[i], b->excludes[i]) != 0)
			return false;
	}
	return a->def == NULL || same_definition(a->def, b->def);
}

bool
settings_same(const struct settings *a, const struct settings *b)
{
	size_t i;

	if (a->nvms != b->nvms)
		return false;
	for (i = 0; i < NHOST; i++) {
		if (!same_host(a, b, i))
			return false;
	}
	for (i = 0; i < a->nvms; i++) {
		if (!same_vm(&a->vms[i], &b->vms[i]))
			return false;
	}
	return true;
}

void
settings_done(struct settings *s)
{
	size_t i, j;

	for (i = 0; i < NHOST; i++) {
		char **field = (char **)(void *)((uint8_t *)s + host_rules[i].offset);

		if (is_text(host_rules[i].kind))
			lc_free(*field);
	}
	for (i = 0; i < s->nvms; i++) {
		for (j = 0; j < s->vms[i].nexcludes; j++)
			lc_free(s->vms[i].excludes[j]);
		lc_free(s->vms[i].excludes);
		lc_free(s->vms[i].qmp);
		lc_free(s->vms[i].domain);
		lc_free(s->vms[i].guest_agent);
		lc_free(s->vms[i].def);
	}
	lc_free(s->vms);
	lc_free(s->origin);
	*s = (struct settings){0};
}

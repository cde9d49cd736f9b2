/*
 * One table says what fields there are, where they lie and what they may hold.  Setting, decoding
 * and encoding are loops over it, so that none of them can know a field that the others do not
 * check.
 *
 * Texts are stored with their unused end zeroed: equal definitions are equal bytes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/base/cli.h"
#include "store/base/config.h"

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/deftext.h"

#define MIB (UINT64_C(1) << 20)
#define MEMORY_MAX (UINT64_C(16) << 40)

enum kind {
	TEXT = 0,
	LOWER /* text in lower case */,
	NUMBER,
	POWER /* a number that is 0 or a power of two */,
	BYTES,
	MEMORY,
	WORD /* an enum */
};

struct field {
	const char *key;
	enum kind kind;
	size_t off, size;
	bool (*ok)(const char *s); /* TEXT, LOWER; "" is always fine unless `needed` */
	bool needed;               /* "" is not fine */
	bool trim;                 /* TEXT: blanks at its ends mean nothing */
	uint64_t min, max;         /* NUMBER, POWER, MEMORY */
	const char *const *words;  /* WORD: one per value from 0, ended by NULL */
	bool quiet;                /* WORD: the first of them is not written */
	const char *hint;          /* what is expected */
};

/* ---- the table ---- */

static const char *const roles[] = {"disk", "nvram", "kernel", "initrd", NULL};
static const char *const contents[] = {"stored", "empty", NULL};
static const char *const buses[] = {"virtio", "scsi", "sata", "ide", NULL};

#define AT(type, member) \
	.off = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)

static const char hint_text[] = "one line of UTF-8 without a # or ; between blanks";
static const char hint_path[] =
    "an absolute path in UTF-8, in one line without a # or ; between blanks";
static const char hint_address[] = "a PCI address such as 00:03.0";

static const struct field machine_fields[] = {
    {"type", TEXT, AT(definition, machine), .ok = deftext_is_machine, .needed = true,
     .hint = "a machine type such as pc-q35-7.2"},
    {"cpu", TEXT, AT(definition, cpu), .ok = deftext_is_cpu, .needed = true,
     .hint = "a CPU model such as max"},
    {"cpu_features", TEXT, AT(definition, cpu_features), .ok = deftext_is_features,
     .hint = "features such as +aes,-svm"},
    {"cpus", NUMBER, AT(definition, cpus), .min = 1, .max = DEF_CPUS_MAX,
     .hint = "a number from 1 to 1024"},
    {"topology", TEXT, AT(definition, topology), .ok = deftext_is_topology,
     .hint = "SOCKETS:CORES:THREADS"},
    {"memory", MEMORY, AT(definition, memory), .min = MIB, .max = MEMORY_MAX,
     .hint = "a size in whole MiB, up to 16 TiB, such as 512 MiB"},
    {"uuid", LOWER, AT(definition, uuid), .ok = deftext_is_uuid, .hint = "a UUID"},
    {"clock", TEXT, AT(definition, clock), .ok = deftext_is_clock, .needed = true,
     .hint = "utc or localtime"},
    {"firmware", TEXT, AT(definition, firmware), .ok = deftext_is_path, .hint = hint_path},
    {"append", TEXT, AT(definition, append), .ok = deftext_is_text, .trim = true,
     .hint = hint_text},
    {.key = NULL},
};

static const struct field disk_fields[] = {
    {"content", WORD, AT(def_disk, content), .words = contents, .quiet = true,
     .hint = "stored or empty"},
    {"role", WORD, AT(def_disk, role), .words = roles, .hint = "disk, nvram, kernel or initrd"},
    {"bus", WORD, AT(def_disk, bus), .words = buses, .hint = "virtio, scsi, sata or ide"},
    {"format", TEXT, AT(def_disk, format), .ok = deftext_is_format, .needed = true,
     .hint = "raw or qcow2, vhdx, vmdk or vpc"},
    {"path", TEXT, AT(def_disk, path), .ok = deftext_is_path, .hint = hint_path},
    {"size", BYTES, AT(def_disk, size), .max = INT64_MAX, .hint = "a size such as 20 GiB"},
    {"serial", TEXT, AT(def_disk, serial), .ok = deftext_is_serial,
     .hint = "letters, digits and _.:+-, a letter or digit first"},
    {"address", LOWER, AT(def_disk, address), .ok = deftext_is_address, .hint = hint_address},
    {"boot", NUMBER, AT(def_disk, boot), .max = DEF_BOOT_MAX, .hint = "a number from 0 to 255"},
    {"block", POWER, AT(def_disk, block), .min = DEF_BLOCK_MIN, .max = DEF_BLOCK_MAX,
     .hint = "a power of two from 512 to 32768"},
    {.key = NULL},
};

static const struct field nic_fields[] = {
    {"model", TEXT, AT(def_nic, model), .ok = deftext_is_model, .needed = true,
     .hint = "virtio, e1000, e1000e or rtl8139"},
    {"mac", LOWER, AT(def_nic, mac), .ok = deftext_is_mac,
     .hint = "an address such as 52:54:00:12:34:56"},
    {"network", TEXT, AT(def_nic, network), .ok = deftext_is_network, .needed = true,
     .hint = "user, none, bridge:NAME or a name made of letters, digits and _.-"},
    {"address", LOWER, AT(def_nic, address), .ok = deftext_is_address, .hint = hint_address},
    {.key = NULL},
};

static const struct field left_out_fields[] = {
    {"why", TEXT, AT(def_left_out, why), .ok = deftext_is_text, .needed = true, .hint = hint_text},
    {.key = NULL},
};

struct section {
	const char *name;
	const struct field *fields;
	bool (*ok)(const char *s); /* of the part's name; NULL: the section has none */
	size_t off, count_off;     /* of the array and its count in struct definition */
	size_t size, max;          /* of an element; elements */
	size_t name_size;          /* an element begins with its name */
	const char *hint;
};

static const struct section sections[] = {
    {.name = "machine", .fields = machine_fields},
    {"disk", disk_fields, deftext_is_name, offsetof(struct definition, disks),
     offsetof(struct definition, ndisks), sizeof(struct def_disk), HV_DISKS_MAX, HV_NAME_MAX,
     "letters, digits and _.-"},
    {"nic", nic_fields, deftext_is_name, offsetof(struct definition, nics),
     offsetof(struct definition, nnics), sizeof(struct def_nic), DEF_NICS_MAX, HV_NAME_MAX,
     "letters, digits and _.-"},
    {"left-out", left_out_fields, deftext_is_what, offsetof(struct definition, left_out),
     offsetof(struct definition, nleft_out), sizeof(struct def_left_out), DEF_LEFT_OUT_MAX,
     sizeof(((struct def_left_out *)0)->what), "letters, digits, blanks and /_.:()+-"},
};
enum { NSECTIONS = sizeof sections / sizeof sections[0], MAX_FIELDS = 16 };

/* ---- one field ---- */

/* Whatever the locale says. */
static char
lowered(char c)
{
	static const char uppers[] = DEFTEXT_UPPERS, lowers[] = DEFTEXT_LOWERS;
	const char *at = c == '\0' ? NULL : strchr(uppers, c);

	if (at != NULL)
		c = lowers[at - uppers];
	return c;
}

static void
put_text(char *dst, size_t size, const char *s, bool lower)
{
	size_t i;

	memset(dst, 0, size);
	for (i = 0; i + 1 < size && s[i] != '\0'; i++)
		dst[i] = s[i];
	for (i = 0; lower && dst[i] != '\0'; i++)
		dst[i] = lowered(dst[i]);
}

static bool
set_text(const struct field *f, void *at, const char *value)
{
	char copy[sizeof(((struct definition *)0)->append)];
	size_t n;

	if (f->trim)
		value += strspn(value, " ");
	n = strlen(value);
	while (f->trim && n > 0 && value[n - 1] == ' ')
		n--;
	if (n >= f->size)
		return false;
	put_text(copy, n + 1, value, f->kind == LOWER);
	memset(copy + n, 0, sizeof copy - n);
	if (copy[0] == '\0' ? f->needed : !f->ok(copy))
		return false;
	memcpy(at, copy, f->size);
	return true;
}

static bool
number_ok(const struct field *f, uint64_t v)
{
	if (f->kind == MEMORY && v % MIB != 0)
		return false;
	if (f->kind == POWER && v == 0)
		return true;
	if (f->kind == POWER && (v & (v - 1)) != 0)
		return false;
	return v >= f->min && v <= f->max;
}

static bool
set_number(const struct field *f, void *at, const char *value)
{
	uint32_t v32;
	uint64_t v;

	bool small = f->kind == NUMBER || f->kind == POWER;

	if (!(small ? config_uint(value, &v) : config_size(value, &v)) || !number_ok(f, v))
		return false;
	if (small) {
		v32 = (uint32_t)v;
		memcpy(at, &v32, sizeof v32);
	} else {
		memcpy(at, &v, sizeof v);
	}
	return true;
}

static bool
set_word(const struct field *f, void *at, const char *value)
{
	unsigned i;

	for (i = 0; f->words[i] != NULL; i++) {
		if (strcmp(f->words[i], value) == 0) {
			memcpy(at, &i, sizeof i);
			return true;
		}
	}
	return false;
}

_Static_assert(sizeof(enum hv_role) == sizeof(unsigned) &&
                   sizeof(enum def_bus) == sizeof(unsigned) &&
                   sizeof(enum def_content) == sizeof(unsigned),
               "set_word() and get_number() take enums for unsigned");

static bool
set_field(const struct field *f, void *at, const char *value)
{
	switch (f->kind) {
	case TEXT:
	case LOWER:
		return set_text(f, at, value);
	case NUMBER:
	case POWER:
	case BYTES:
	case MEMORY:
		return set_number(f, at, value);
	case WORD:
		return set_word(f, at, value);
	}
	return false;
}

static uint64_t
get_number(const struct field *f, const void *at)
{
	uint32_t v32;
	uint64_t v;

	if (f->size == sizeof v32) {
		memcpy(&v32, at, sizeof v32);
		return v32;
	}
	memcpy(&v, at, sizeof v);
	return v;
}

/* Append "key = value"; nothing for an empty text or a zero that means nothing, nor where the value
 * is not legal. */
static int
encode_field(const struct field *f, const void *at, struct lc_buf *out, bool *legal)
{
	const char *s = at;
	uint64_t v, nwords = 0;

	switch (f->kind) {
	case TEXT:
	case LOWER:
		*legal = memchr(s, '\0', f->size) != NULL && (*s == '\0' ? !f->needed : f->ok(s));
		if (!*legal || *s == '\0')
			return 0;
		return lc_buf_printf(out, "%s = %s\n", f->key, s);
	case NUMBER:
	case POWER:
	case BYTES:
		v = get_number(f, at);
		*legal = number_ok(f, v);
		return v == 0 ? 0 : lc_buf_printf(out, "%s = %" PRIu64 "\n", f->key, v);
	case MEMORY:
		v = get_number(f, at);
		*legal = number_ok(f, v);
		return lc_buf_printf(out, "%s = %" PRIu64 " MiB\n", f->key, v / MIB);
	case WORD:
		v = get_number(f, at);
		while (nwords <= v && f->words[nwords] != NULL)
			nwords++;
		*legal = v < nwords;
		if (v == 0 && f->quiet)
			return 0;
		return *legal ? lc_buf_printf(out, "%s = %s\n", f->key, f->words[v]) : 0;
	}
	return 0;
}

/* ---- parts: disks, NICs and what was left out ---- */

static void *
part_at(struct definition *d, const struct section *sec, size_t i)
{
	return (char *)d + sec->off + i * sec->size;
}

static size_t
part_count(const struct definition *d, const struct section *sec)
{
	size_t n = 0;

	if (sec->ok != NULL)
		memcpy(&n, (const char *)d + sec->count_off, sizeof n);
	return n;
}

/* What is beyond n is zeroed, so that equal definitions stay equal bytes. */
static void
set_part_count(struct definition *d, const struct section *sec, size_t n)
{
	size_t old = part_count(d, sec);

	if (sec->ok == NULL || n == old)
		return;
	if (n < old)
		memset(part_at(d, sec, n), 0, (old - n) * sec->size);
	memcpy((char *)d + sec->count_off, &n, sizeof n);
}

static void
set_defaults(const struct section *sec, void *part)
{
	struct def_disk *disk = part;
	struct def_nic *nic = part;

	if (sec->fields == disk_fields) {
		put_text(disk->format, sizeof disk->format, "raw", false);
	} else if (sec->fields == nic_fields) {
		put_text(nic->model, sizeof nic->model, "virtio", false);
		put_text(nic->network, sizeof nic->network, "none", false);
	} else {
		put_text(((struct def_left_out *)part)->why,
		         sizeof(((struct def_left_out *)0)->why), "not reproduced", false);
	}
}

/* The part called name, new where there is none yet. */
static int
get_part(struct definition *d, const struct section *sec, const char *name, void **out,
         struct lc_err *e)
{
	size_t i, n = part_count(d, sec);
	char *part;

	if (strlen(name) >= sec->name_size || !sec->ok(name)) {
		return lc_fail(e, LC_EINVAL, 0, "%s: the name has to be made of %s, at most %zu",
		               sec->name, sec->hint, sec->name_size - 1);
	}
	for (i = 0; i < n; i++) {
		*out = part_at(d, sec, i);
		if (strcmp(*out, name) == 0)
			return 0;
	}
	if (n == sec->max)
		return lc_fail(e, LC_EINVAL, 0, "%s %s: more than %zu of them", sec->name, name,
		               sec->max);
	part = part_at(d, sec, n);
	memset(part, 0, sec->size);
	put_text(part, sec->name_size, name, false);
	set_defaults(sec, part);
	set_part_count(d, sec, n + 1);
	*out = part;
	return 0;
}

static const struct section *
find_section(const char *name)
{
	size_t i;

	for (i = 0; i < NSECTIONS; i++) {
		if (strcmp(sections[i].name, name) == 0)
			return &sections[i];
	}
	return NULL;
}

static int
unknown_key(const struct section *sec, const char *key, struct lc_err *e)
{
	const char *keys[MAX_FIELDS], *nearest;
	size_t n = 0;

	while (n < MAX_FIELDS && sec->fields[n].key != NULL) {
		keys[n] = sec->fields[n].key;
		n++;
	}
	nearest = cli_nearest(key, keys, n);
	if (nearest != NULL)
		return lc_fail(e, LC_EINVAL, 0, "%s: no key '%s', did you mean '%s'?", sec->name,
		               key, nearest);
	return lc_fail(e, LC_EINVAL, 0, "%s: no key '%s'", sec->name, key);
}

/* ---- what the header names ---- */

struct definition *
definition_new(void)
{
	struct definition *d = lc_alloc(sizeof *d);

	if (d == NULL)
		return NULL;
	put_text(d->machine, sizeof d->machine, "q35", false);
	put_text(d->cpu, sizeof d->cpu, "max", false);
	put_text(d->clock, sizeof d->clock, "utc", false);
	d->cpus = 1;
	d->memory = 512 * MIB;
	return d;
}

int
definition_set(struct definition *d, const char *section, const char *name, const char *key,
               const char *value, struct lc_err *e)
{
	const struct section *sec = find_section(section);
	const struct field *f;
	void *part = d;
	size_t n;

	if (sec == NULL)
		return lc_fail(e, LC_EINVAL, 0,
		               "no section [%.32s], there are machine, disk, nic and left-out",
		               section);
	for (f = sec->fields; f->key != NULL && strcmp(f->key, key) != 0; f++)
		continue;
	if (*key != '\0' && f->key == NULL)
		return unknown_key(sec, key, e);
	if (sec->ok == NULL && *name != '\0')
		return lc_fail(e, LC_EINVAL, 0, "[%s] has no name", sec->name);
	n = part_count(d, sec);
	if (sec->ok != NULL && get_part(d, sec, name, &part, e) != 0)
		return LC_EINVAL;
	if (*key == '\0' || set_field(f, (char *)part + f->off, value))
		return 0;
	set_part_count(d, sec, n); /* a new part goes away again */
	if ((f->kind == TEXT || f->kind == LOWER) && strlen(value) >= f->size)
		return lc_fail(e, LC_EINVAL, 0, "%s%s%s: %s: longer than %zu bytes", sec->name,
		               *name == '\0' ? "" : " ", name, key, f->size - 1);
	return lc_fail(e, LC_EINVAL, 0, "%s%s%s: %s: '%.64s' is not %s", sec->name,
	               *name == '\0' ? "" : " ", name, key, value, f->hint);
}

int
definition_decode(const char *origin, const char *text, size_t n, struct definition **out,
                  struct lc_err *e)
{
	struct definition *d = NULL;
	const struct config_entry *entries;
	struct config *config;
	size_t i, nentries;
	int rc;

	*out = NULL;
	if (n > DEF_TEXT_MAX)
		return lc_fail(e, LC_EINVAL, 0, "%s: longer than %u bytes", origin, DEF_TEXT_MAX);
	rc = config_parse(origin, text, n, &config, e);
	if (rc != 0)
		return rc;
	d = definition_new();
	if (d == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", origin);
		goto out;
	}
	entries = config_entries(config, &nentries);
	for (i = 0; i < nentries; i++) {
		const struct config_entry *x = &entries[i];
		struct lc_err why = LC_ERR_INIT;

		rc = definition_set(d, x->section, x->name, x->key, x->value, &why);
		if (rc != 0) {
			rc = lc_fail(e, why.code, 0, "%s:%u: %s", origin, x->line, why.msg);
			goto out;
		}
	}
	*out = d;
	d = NULL;
out:
	lc_free(d);
	config_free(config);
	return rc;
}

static int
encode_part(const struct section *sec, const char *name, const void *part, struct lc_buf *out,
            struct lc_err *e)
{
	const struct field *f;
	int rc;

	if (sec->ok == NULL)
		rc = lc_buf_printf(out, "[%s]\n", sec->name);
	else if (memchr(name, '\0', sec->name_size) == NULL || !sec->ok(name))
		return lc_fail(e, LC_EINVAL, 0, "%s: its name is not made of %s", sec->name,
		               sec->hint);
	else
		rc = lc_buf_printf(out, "[%s %s]\n", sec->name, name);
	for (f = sec->fields; rc == 0 && f->key != NULL; f++) {
		const char *at = (const char *)part + f->off;
		bool legal = true;

		rc = encode_field(f, at, out, &legal);
		if (!legal)
			return lc_fail(e, LC_EINVAL, 0, "%s%s%s: %s is not %s", sec->name,
			               *name == '\0' ? "" : " ", name, f->key, f->hint);
	}
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "definition: out of memory");
}

int
definition_encode(const struct definition *d, struct lc_buf *out, struct lc_err *e)
{
	size_t i, k, start = out->n;
	int rc = 0;

	for (i = 0; rc == 0 && i < NSECTIONS; i++) {
		const struct section *sec = &sections[i];

		if (sec->ok == NULL) {
			rc = encode_part(sec, "", d, out, e);
			continue;
		}
		for (k = 0; rc == 0 && k < part_count(d, sec); k++) {
			const char *part = (const char *)d + sec->off + k * sec->size;

			rc = encode_part(sec, part, part, out, e);
		}
	}
	if (rc != 0)
		out->n = start;
	return rc;
}

/* As much of s as fits, with '_' for what may not be there. */
static void
clean(char *dst, size_t size, const char *s, const char *allowed, const char *fallback)
{
	const char other = '_';
	size_t i;

	memset(dst, 0, size);
	while (*s == ' ')
		s++;
	for (i = 0; i + 1 < size && s[i] != '\0'; i++)
		memcpy(dst + i, deftext_is_one_of(s[i], allowed) ? s + i : &other, 1);
	while (i > 0 && dst[i - 1] == ' ')
		dst[--i] = '\0';
	if (i == 0)
		put_text(dst, size, fallback, false);
}

void
definition_leave_out(struct definition *d, const char *what, const char *why)
{
	static const char letters[] = DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS " /_.:()+-,'=";
	struct def_left_out x;
	size_t i;

	clean(x.what, sizeof x.what, what, DEFTEXT_LOWERS DEFTEXT_UPPERS DEFTEXT_DIGITS " /_.:()+-",
	      "something");
	clean(x.why, sizeof x.why, why, letters, "not reproduced");
	if (!deftext_is_what(x.what)) /* only its first letter can be wrong */
		x.what[0] = '_';
	for (i = 0; i < d->nleft_out; i++) {
		if (strcmp(d->left_out[i].what, x.what) == 0)
			return;
	}
	if (d->nleft_out == DEF_LEFT_OUT_MAX) {
		put_text(d->left_out[DEF_LEFT_OUT_MAX - 1].what, sizeof x.what, "others", false);
		put_text(d->left_out[DEF_LEFT_OUT_MAX - 1].why, sizeof x.why,
		         "more than can be listed here", false);
		return;
	}
	d->left_out[d->nleft_out++] = x;
}

const struct def_disk *
definition_disk(const struct definition *d, const char *name)
{
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		if (strcmp(d->disks[i].name, name) == 0)
			return &d->disks[i];
	}
	return NULL;
}

const struct def_disk *
definition_role(const struct definition *d, enum hv_role role)
{
	size_t i;

	for (i = 0; i < d->ndisks; i++) {
		if (d->disks[i].role == role)
			return &d->disks[i];
	}
	return NULL;
}

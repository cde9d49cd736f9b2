#include <string.h>

#include "store/base/files.h"

#include "agent/hypervisor/commandline.h"
#include "agent/hypervisor/definition.h"

#define TEXT_MAX (1u << 20)

static bool
is_qemu(const char *argv0)
{
	const char *base = strrchr(argv0, '/');

	base = base == NULL ? argv0 : base + 1;
	return strncmp(base, "qemu-system-", 12) == 0 || strcmp(base, "qemu-kvm") == 0 ||
	       strcmp(base, "kvm") == 0;
}

struct commandline *
commandline_read(const char *dir)
{
	char *path = path_join(dir, "cmdline");
	struct commandline *c = lc_alloc(sizeof *c);
	size_t at;

	if (path == NULL || c == NULL || file_read_all(path, TEXT_MAX, &c->text, NULL) != 0 ||
	    c->text.n == 0 || lc_buf_append(&c->text, "", 1) != 0 ||
	    !is_qemu((const char *)c->text.p)) {
		commandline_free(c);
		lc_free(path);
		return NULL;
	}
	for (at = 0; at + 1 < c->text.n && c->n < COMMANDLINE_WORDS_MAX;
	     at += strlen((const char *)c->text.p + at) + 1)
		c->at[c->n++] = (const char *)c->text.p + at;
	lc_free(path);
	return c;
}

void
commandline_free(struct commandline *c)
{
	if (c == NULL)
		return;
	lc_buf_free(&c->text);
	lc_free(c);
}

bool
commandline_is(const char *word, const char *option)
{
	if (*word++ != '-')
		return false;
	return strcmp(word + (*word == '-' ? 1 : 0), option) == 0;
}

/* Features of the processor are told by the monitor, but for those that only hypervisors have. */
static const struct {
	const char *option, *with; /* with: in its value; NULL: whatever that is */
	const char *what, *why;
} lost[] = {
    {"smbios", NULL, "SMBIOS",
     "-smbios, such as a serial number: not made again, and a guest may be licensed for it"},
    {"numa", NULL, "NUMA nodes", "-numa: not made again, all memory is one"},
    {"cpu", ",hv", "Hyper-V features", "-cpu with hv-...: not made again, the guest goes without"},
    {"fw_cfg", NULL, "firmware settings", "-fw_cfg: not made again"},
    {"acpitable", NULL, "ACPI tables", "-acpitable: not made again"},
    {"option-rom", NULL, "option ROMs", "-option-rom: not made again"},
    {"global", NULL, "properties of devices", "-global: not made again"},
};

void
commandline_left_out(const struct commandline *c, struct definition *def)
{
	size_t i, k;

	for (k = 0; k < sizeof lost / sizeof lost[0]; k++) {
		for (i = 1; i + 1 < c->n; i++) {
			if (!commandline_is(c->at[i], lost[k].option) ||
			    (lost[k].with != NULL && strstr(c->at[i + 1], lost[k].with) == NULL))
				continue;
			definition_leave_out(def, lost[k].what, lost[k].why);
			break;
		}
	}
}

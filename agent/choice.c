#include <string.h>

#include "agent/choice.h"
#include "agent/discover.h"
#include "agent/hypervisor/settings.h"
#include "agent/import.h"
#include "store/base/cli.h"
#include "store/base/log.h"
#include "store/base/memory.h"

/* The VM whose images are given. */
static int
choose_import(struct choice *c, struct settings *s, const struct cli_args *a)
{
	struct import_opts o = {.vm = cli_operands(a) > 0 ? cli_operand(a, 0) : NULL,
	                        .format = cli_get(a, "image-format")};
	const char **files;
	struct lc_err e = LC_ERR_INIT;
	size_t i;
	int rc;

	while (cli_get_many(a, "image", o.nfiles) != NULL)
		o.nfiles++;
	if (cli_has(a, "all") || cli_operands(a) > 1)
		return cli_usage(a, "--image: give one VM, or none");
	files = lc_alloc_array(o.nfiles, sizeof *files);
	c->vms = lc_alloc_array(1, sizeof *c->vms);
	for (i = 0; files != NULL && i < o.nfiles; i++)
		files[i] = cli_get_many(a, "image", i);
	o.files = files;
	if (files == NULL || c->vms == NULL)
		rc = lc_fail(&e, LC_ENOMEM, 0, "out of memory");
	else
		rc = import_add(s, &o, &c->vms[0], &e);
	lc_free(files);
	c->import = true;
	c->nvms = 1;
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static void
on_left_out(void *arg, const char *domain, const char *state, const char *why)
{
	struct choice *c = arg;

	(void)state;
	log_error("domain %s has no restore points: %s", domain, why);
	c->failed++;
}

/* Once, however often it is named. */
static void
add_vm(struct choice *c, const char *vm)
{
	size_t i;

	for (i = 0; i < c->nvms; i++) {
		if (strcmp(c->vms[i], vm) == 0)
			return;
	}
	c->vms[c->nvms++] = vm;
}

int
choice_make(struct choice *c, struct settings *s, const struct cli_args *a)
{
	bool all = cli_has(a, "all");
	struct lc_err e = LC_ERR_INIT;
	size_t i, n = cli_operands(a);

	if (cli_get_many(a, "image", 0) != NULL)
		return choose_import(c, s, a);
	if (cli_get(a, "image-format") != NULL)
		return cli_usage(a, "--image-format is for --image");
	if (all && cli_operands(a) > 0)
		return cli_usage(a, "give either VMs or --all");
	if (!all && n == 0)
		return cli_usage(a, "which VM? name one or more, or give --all");
	if (all && discover(s, on_left_out, c, &e) != 0) {
		log_error("%s", e.msg); /* the others are backed up */
		c->failed++;
	}
	n = all ? s->nvms : n;
	if (n == 0) {
		log_error("--all: %s names no VM (a section [vm NAME] each)",
		          s->origin == NULL ? "no configuration" : s->origin);
		return CLI_FAILED;
	}
	c->vms = lc_alloc_array(n, sizeof *c->vms);
	if (c->vms == NULL) {
		log_error("out of memory");
		return CLI_FAILED;
	}
	for (i = 0; i < n; i++) {
		if (!all || !s->vms[i].left_alone)
			add_vm(c, all ? s->vms[i].name : cli_operand(a, i));
	}
	if (c->nvms > 0)
		return CLI_DONE;
	log_error("--all: every VM of %s is left alone (protect = no)",
	          s->origin == NULL ? "the configuration" : s->origin);
	return CLI_FAILED;
}

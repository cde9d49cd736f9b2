/*
 * locum unprotect: every trace of ours out of a VM, or out of an image.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "agent/hypervisor/hypervisor.h"
#include "agent/hypervisor/image.h"
#include "agent/hypervisor/imageformat.h"
#include "agent/hypervisor/settings.h"
#include "agent/target.h"
#include "agent/verbs.h"
#include "store/base/cli.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/spawn.h"
#include "store/store.h"

#define PREFIX "locum."
#define TOOL_MS 60000

/* ---- an image that nobody has open ---- */

static int
run_tool(char *const *argv, struct lc_buf *out, const char *path, struct lc_err *e)
{
	struct spawn s = {.argv = argv, .timeout_ms = TOOL_MS};
	struct lc_err why = LC_ERR_INIT;
	int rc = spawn_run(&s, out, NULL, &why);

	return rc == 0 ? 0 : lc_fail(e, (enum lc_code)rc, 0, "%s: %s", path, why.msg);
}

static int
remove_bitmap(char *path, const char *name, struct lc_err *e)
{
	char program[] = "qemu-img", bitmap[] = "bitmap", rm[] = "--remove", as[] = "-f",
	     format[] = "qcow2", end[] = "--", *file = lc_asprintf("file:%s", path),
	     *copy = lc_strdup(name);
	char *argv[] = {program, bitmap, rm, as, format, end, file, copy, NULL};
	int rc;

	if (file == NULL || copy == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	else
		rc = run_tool(argv, NULL, path, e);
	lc_free(file);
	lc_free(copy);
	return rc;
}

/* Ours in a qcow2 image.  What else is in it stays. */
static int
clean_qcow2(char *path, unsigned *removed, struct lc_err *e)
{
	char program[] = "qemu-img", info[] = "info", json[] = "--output=json",
	     *spec = imageformat_spec(path, "qcow2"), *argv[] = {program, info, json, spec, NULL};
	struct lc_buf text = {0};
	json_t *doc = NULL, *x;
	size_t i;
	int rc = spec == NULL ? lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path)
	                      : run_tool(argv, &text, path, e);

	if (rc == 0) {
		doc = json_loadb((const char *)text.p, text.n, 0, NULL);
		if (doc == NULL)
			rc = lc_fail(e, LC_EINVAL, 0, "%s: qemu-img says nothing of it", path);
	}
	x = json_object_get(json_object_get(json_object_get(doc, "format-specific"), "data"),
	                    "bitmaps");
	for (i = 0; rc == 0 && i < json_array_size(x); i++) {
		const char *name = json_string_value(json_object_get(json_array_get(x, i), "name"));

		if (name == NULL || strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
			continue;
		rc = remove_bitmap(path, name, e);
		*removed += rc == 0;
	}
	json_decref(doc);
	lc_buf_free(&text);
	lc_free(spec);
	return rc;
}

/* format NULL: what name and content agree on.  Only qcow2 images can have anything of ours. */
static int
clean_image(const char *path, const char *format, unsigned *removed, struct lc_err *e)
{
	char *copy = path[0] == '/' ? lc_strdup(path) : lc_asprintf("./%s", path);
	int rc = copy == NULL ? lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path) : 0;

	if (rc == 0 && format == NULL)
		rc = imageformat_probe(path, &format, e);
	if (rc == 0)
		rc = image_check_unused(path, e);
	if (rc == 0 && strcmp(format, "qcow2") == 0)
		rc = clean_qcow2(copy, removed, e);
	lc_free(copy);
	return rc;
}

/* ---- a VM ---- */

struct ask {
	uv_loop_t loop;
	struct hv *hv;
	struct lc_err err;
	bool done, closed;
};

static void
on_done(void *arg, const struct lc_err *err)
{
	struct ask *x = arg;

	x->err = *err;
	x->done = true;
}

static void
on_closed(void *arg)
{
	struct ask *x = arg;

	x->closed = true;
}

static int
run_call(struct ask *x, int (*call)(struct hv *, hv_done_cb *, void *, struct lc_err *),
         struct lc_err *e)
{
	x->done = false;
	lc_err_clear(&x->err);
	if (call(x->hv, on_done, x, &x->err) == 0) {
		while (!x->done && uv_run(&x->loop, UV_RUN_ONCE) != 0)
			continue;
	}
	if (x->err.code != LC_OK)
		(void)lc_fail(e, x->err.code, 0, "%s", x->err.msg);
	return (int)x->err.code;
}

/* By its monitor: leftovers first, then all records of changes. */
static int
clean_running(struct target *t, struct lc_err *e)
{
	struct ask *x = lc_alloc(sizeof *x);
	int rc;

	if (x == NULL || uv_loop_init(&x->loop) != 0) {
		lc_free(x);
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", t->hv.vm);
	}
	rc = hv_open(&x->loop, &t->hv, NULL, NULL, &x->hv, e);
	if (rc == 0)
		rc = run_call(x, hv_prepare, e);
	if (rc == 0)
		rc = run_call(x, hv_forget, e);
	if (rc != 0 && x->hv != NULL && hv_vm(x->hv)->def != NULL)
		(void)target_learn(t, hv_vm(x->hv)->def, NULL);
	if (x->hv != NULL) {
		hv_close(x->hv, on_closed, x);
		while (!x->closed && uv_run(&x->loop, UV_RUN_ONCE) != 0)
			continue;
	}
	(void)uv_loop_close(&x->loop);
	lc_free(x);
	return rc;
}

static int
clean_off(const struct target *t, unsigned *removed, struct lc_err *e)
{
	const struct definition *def = t->def;
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && def != NULL && i < def->ndisks; i++) {
		if (def->disks[i].path[0] != '\0' && def->disks[i].role == HV_ROLE_DISK)
			rc = clean_image(def->disks[i].path, def->disks[i].format, removed, e);
	}
	if (rc != 0)
		lc_wrap(e, "%s", t->hv.vm);
	return rc;
}

static int
clean_vm(const struct settings *s, struct store *store, const char *vm, unsigned *removed,
         struct lc_err *e)
{
	struct lc_err why = LC_ERR_INIT;
	struct target t;
	int rc = target_find(s, store, vm, &t, e);

	rc = rc != 0 ? rc : target_make_dirs(&t, s, e);
	if (rc == 0 && (t.hv.qmp != NULL || t.hv.libvirt != NULL)) {
		rc = clean_running(&t, &why);
		if (rc != LC_ENOENT && rc != LC_EPEER)
			(void)lc_fail(e, why.code, 0, "%s", why.msg);
		else /* it is off */
			rc = target_offline(s, store, vm, &t, e);
		/* Nobody but libvirt knows it. */
		if (rc == LC_ENOENT && t.hv.libvirt != NULL) {
			lc_err_clear(e);
			rc = lc_fail(e, why.code, 0, "%s", why.msg);
		}
		if (rc == 0 && t.hv.qmp == NULL && t.hv.libvirt == NULL)
			rc = clean_off(&t, removed, e);
	} else if (rc == 0) {
		rc = clean_off(&t, removed, e);
	}
	target_done(&t);
	return rc;
}

/* ---- */

static void
tell(const struct cli_args *a, const struct settings *s, const char *what, bool vm,
     unsigned removed)
{
	bool named = vm && settings_vm(s, what) != NULL;

	if (cli_has(a, "json")) {
		printf("{\"%s\": ", vm ? "vm" : "image");
		cli_json_string(stdout, what);
		printf(", \"clean\": true, \"removed_from_images\": %u, \"configured\": %s}\n",
		       removed, named ? "true" : "false");
	} else if (!cli_has(a, "quiet")) {
		printf("%s: nothing of locum is in it any more%s\n", what,
		       vm ? "; its restore points stay" : "");
		if (named)
			printf("remove [vm %s] from %s, or the next backup begins anew\n", what,
			       s->origin == NULL ? "locum.conf" : s->origin);
	}
}

static int
run_unprotect(const struct cli_args *a)
{
	const char *image = cli_get(a, "offline"), *format = cli_get(a, "image-format");
	struct settings s = {0};
	struct store *store = NULL;
	struct lc_err e = LC_ERR_INIT;
	struct store_opts o = {.who = "locum unprotect"};
	unsigned removed = 0;
	int rc;

	if ((image != NULL) == (cli_operands(a) > 0))
		return cli_usage(a, "give a VM, or an image by --offline");
	if (format != NULL && !imageformat_known(format))
		return cli_usage(a, "--image-format %s: raw, qcow2, vhdx, vmdk or vpc", format);
	rc = settings_load(a, &s, &e);
	if (rc == 0 && image == NULL)
		rc = settings_need_store(&s, &e);
	o.dir = s.store;
	o.key_dir = s.key_dir;
	if (rc == 0 && image != NULL)
		rc = clean_image(image, format, &removed, &e);
	else if (rc == 0)
		rc = store_open(&o, &store, &e);
	if (rc == 0 && image == NULL)
		rc = clean_vm(&s, store, cli_operand(a, 0), &removed, &e);
	if (rc == 0)
		tell(a, &s, image != NULL ? image : cli_operand(a, 0), image == NULL, removed);
	store_close(store);
	settings_done(&s);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option options[] = {
    {.name = "offline", .arg = "IMAGE", .help = "the image of a VM that is off, instead of a VM"},
    {.name = "image-format",
     .arg = "FORMAT",
     .help = "of that image (default: what name and content agree on)"},
    {.name = NULL},
};

const struct cli_verb verb_unprotect = {
    .name = "unprotect",
    .operands = "VM|--offline IMAGE",
    .summary = "remove every trace of locum from a VM, and keep its restore points",
    .details =
	"Removes what a backup that died may have left in QEMU, and all records of changes:\n"
	"those of every store that protected the VM.  Of a VM that is off, those in its qcow2\n"
	"images.  The guest does not notice.  The VM's restore points stay in the store.\n"
	"\n"
	"Its section has to be removed from the configuration by hand; else the next backup\n"
	"begins anew (it reads the disks as a whole, and stores what is new).\n"
	"\n"
	"Examples:\n"
	"  locum unprotect web01\n"
	"  locum unprotect --offline /images/web01.qcow2",
    .options = options,
    .min_operands = 0,
    .max_operands = 1,
    .run = run_unprotect,
};

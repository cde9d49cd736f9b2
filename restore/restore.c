/*
 * locum restore: disks of a point into image files, and what describes the machine beside them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/imageformat.h"
#include "replicator/remote.h"
#include "store/base/cli.h"
#include "store/base/clock.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/store.h"
#include "store/verbs/opening.h"
#include "restore/describe.h"
#include "restore/domain.h"
#include "restore/export.h"
#include "restore/machine.h"
#include "restore/verbs.h"

struct restore {
	const struct cli_args *args;
	struct opening opening;
	struct remote *remote; /* of a thin store */
	struct point point;
	struct view *view;
	enum format format;
	bool to_dir, made_dir;
	char *dir;                                 /* where to_dir */
	struct export_file files[POINT_DISKS_MAX]; /* paths owned by the array below */
	char *paths[POINT_DISKS_MAX];
	size_t nfiles;
	char *machine;               /* path of the machine's section, or NULL */
	struct domain_wanted domain; /* name NULL: the VM's */
};

/* ---- what goes where ---- */

static int
read_format(struct restore *r, struct lc_err *e)
{
	const char *format = cli_get(r->args, "format");

	if (format != NULL && !format_named(format, &r->format))
		return lc_fail(e, LC_EINVAL, 0,
		               "--format %s: raw, qcow2, vhdx (Hyper-V), vmdk (VMware) or vpc "
		               "(Virtual PC and Server, .vhd)",
		               format);
	return 0;
}

/* A kernel is a file, firmware variables are a raw image, whatever the disks become. */
static enum format
format_of(const struct restore *r, const struct point_disk *d)
{
	return d->role == HV_ROLE_DISK ? r->format : FORMAT_RAW;
}

static int
add_file(struct restore *r, size_t disk, const char *to, struct lc_err *e)
{
	const struct point_disk *d = &r->point.disks[disk];
	enum format format = format_of(r, d);
	const char *suffix = formats[format].suffix;

	if (d->role == HV_ROLE_KERNEL || d->role == HV_ROLE_INITRD)
		suffix = "";
	if (r->to_dir)
		r->paths[r->nfiles] = lc_asprintf("%s/%s-%s%s", r->dir, r->point.vm, d->name,
		                                  suffix);
	else
		r->paths[r->nfiles] = lc_strdup(to);
	if (r->paths[r->nfiles] == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "restore: out of memory");
	r->files[r->nfiles] = (struct export_file){
	    .disk = disk, .path = r->paths[r->nfiles], .format = format};
	r->nfiles++;
	return 0;
}

static int
fail_disk_name(const struct restore *r, const char *want, const char *const *names,
               struct lc_err *e)
{
	struct lc_buf all = {0};
	size_t i;

	for (i = 0; i < r->point.ndisks; i++)
		(void)lc_buf_printf(&all, "%s%s", i == 0 ? "" : ", ", names[i]);
	(void)lc_fail(e, LC_ENOENT, 0, "%s has no disk '%s'; it has %s", r->point.vm, want,
	              all.p == NULL ? "" : (const char *)all.p);
	lc_buf_free(&all);
	return (int)e->code;
}

static int
check_disk_names(const struct restore *r, struct lc_err *e)
{
	const char *names[POINT_DISKS_MAX], *want, *near;
	size_t i, j;

	for (i = 0; i < r->point.ndisks; i++)
		names[i] = r->point.disks[i].name;
	for (i = 0; (want = cli_get_many(r->args, "disk", i)) != NULL; i++) {
		for (j = 0; j < r->point.ndisks && strcmp(names[j], want) != 0; j++)
			;
		if (j < r->point.ndisks)
			continue;
		near = cli_nearest(want, names, r->point.ndisks);
		return near == NULL
		           ? fail_disk_name(r, want, names, e)
		           : lc_fail(e, LC_ENOENT, 0, "%s has no disk '%s'; did you mean '%s'?",
		                     r->point.vm, want, near);
	}
	return 0;
}

static bool
wanted(const struct restore *r, const char *name)
{
	const char *want;
	size_t i;

	for (i = 0; (want = cli_get_many(r->args, "disk", i)) != NULL; i++) {
		if (strcmp(want, name) == 0)
			return true;
	}
	return i == 0;
}

static int
make_dir(struct restore *r, struct lc_err *e)
{
	int rc;

	if (access(r->dir, F_OK) == 0) {
		rc = lc_fail(e, LC_EEXIST, 0,
		             "%s: is there and is no folder; the point has several disks: give a "
		             "folder, or one of them (--disk)",
		             r->dir);
	} else {
		/* A QEMU of libvirt's runs as somebody who has to get to the files in it. */
		rc = dir_make(r->dir, cli_has(r->args, "libvirt") ? 0711 : 0700, e);
	}
	r->made_dir = rc == 0;
	return rc;
}

/* A folder if it is one, ends in '/', or is to hold a whole machine; the only disk of one may be
 * given the name of an image, and one disk that was asked for any name. */
static bool
is_to_dir(const struct restore *r, const char *to, size_t count)
{
	struct stat st;

	if (stat(to, &st) == 0)
		return S_ISDIR(st.st_mode) || count > 1;
	return to[strlen(to) - 1] == '/' || count > 1 || cli_has(r->args, "libvirt") ||
	       (cli_get_many(r->args, "disk", 0) == NULL && imageformat_named(to) == NULL);
}

/* A raw file whose name says qcow2 would mislead whoever opens it next. */
static void
format_by_name(struct restore *r, const char *to)
{
	const char *named = imageformat_named(to);

	if (named != NULL && !cli_has(r->args, "format"))
		(void)format_named(named, &r->format);
}

static int
choose_files(struct restore *r, struct lc_err *e)
{
	const char *to = cli_get(r->args, "to");
	size_t n = strlen(to), i, count = 0;
	struct stat st;
	bool is_dir = stat(to, &st) == 0 && S_ISDIR(st.st_mode);
	int rc = check_disk_names(r, e);

	if (rc != 0)
		return rc;
	for (i = 0; i < r->point.ndisks; i++)
		count += wanted(r, r->point.disks[i].name);
	if (count == 0)
		return lc_fail(e, LC_ENOENT, 0, "%s: the point has no disks", r->point.vm);
	r->to_dir = is_to_dir(r, to, count);
	if (!r->to_dir)
		format_by_name(r, to);
	if (r->to_dir) {
		while (n > 1 && to[n - 1] == '/')
			n--;
		r->dir = lc_asprintf("%.*s", (int)n, to);
		if (r->dir == NULL)
			return lc_fail(e, LC_ENOMEM, 0, "restore: out of memory");
		rc = is_dir ? 0 : make_dir(r, e);
	}
	for (i = 0; rc == 0 && i < r->point.ndisks; i++) {
		if (wanted(r, r->point.disks[i].name))
			rc = add_file(r, i, to, e);
	}
	return rc;
}

/* ---- the machine ---- */

/* Where that file is to be, or nowhere; refused before the work is begun. */
static int
choose_machine(struct restore *r, struct lc_err *e)
{
	if (!r->to_dir || r->point.definition == NULL || r->nfiles != r->point.ndisks ||
	    (r->format != FORMAT_RAW && r->format != FORMAT_QCOW2)) /* others start it elsewhere */
		return 0;
	r->machine = lc_asprintf("%s/%s.conf", r->dir, r->point.vm);
	if (r->machine == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "restore: out of memory");
	if (access(r->machine, F_OK) != 0 || cli_has(r->args, "force"))
		return 0;
	return lc_fail(e, LC_EEXIST, 0, "%s: is there already; --force replaces it", r->machine);
}

/* As a domain; what would be in its way is told before the work is begun. */
static int
choose_domain(struct restore *r, struct lc_err *e)
{
	r->domain = (struct domain_wanted){
	    .settings = &r->opening.settings, .point = &r->point, .name = cli_get(r->args, "name")};
	if (!cli_has(r->args, "libvirt"))
		return 0;
	if (r->machine == NULL)
		return lc_fail(e, LC_EINVAL, 0,
		               "--libvirt needs all disks of a point that says what machine it is "
		               "of, and a folder for them");
	return domain_may(&r->domain, e);
}

/* So that the VM that is started by this file is found, and backed up, as it is by the host's own.
 */
static int
add_host(const struct restore *r, struct lc_buf *out, struct lc_err *e)
{
	const struct settings *s = &r->opening.settings;
	char *store = realpath(s->store, NULL);
	int rc = store == NULL ? lc_fail_errno(e, "%s", s->store) : 0;

	if (rc == 0 &&
	    lc_buf_printf(out,
	                  "[locum]\nstore = %s\nkey_dir = %s\nrun_dir = %s\nscratch_dir = %s\n\n",
	                  store, s->key_dir, s->run_dir, s->scratch_dir) != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "restore: out of memory");
	free(store);
	return rc;
}

/* Beside a whole VM: a section for locum.conf that starts it from the restored files. */
static int
write_machine(struct restore *r, struct lc_err *e)
{
	struct machine_file files[POINT_DISKS_MAX];
	struct lc_buf text = {0};
	char line[256];
	size_t i;
	int rc;

	if (r->machine == NULL)
		return 0;
	for (i = 0; i < r->nfiles; i++) {
		char *path = realpath(r->paths[i], NULL);

		if (path == NULL)
			return lc_fail_errno(e, "%s", r->paths[i]);
		lc_free(r->paths[i]);
		r->files[i].path = r->paths[i] = path;
		files[i] = (struct machine_file){.disk = r->point.disks[r->files[i].disk].name,
		                                 .path = path,
		                                 .format = formats[r->files[i].format].name};
	}
	(void)describe_line(&r->point, line, sizeof line);
	rc = add_host(r, &text, e);
	if (rc == 0)
		rc = machine_section(&r->point, files, r->nfiles, r->dir, line, &text, e);
	if (rc == 0 && cli_has(r->args, "force"))
		rc = file_write_atomic(r->machine, text.p, text.n, 0600, e);
	else if (rc == 0)
		rc = file_write_new(r->machine, text.p, text.n, 0600, e);
	lc_buf_free(&text);
	if (rc == 0 && cli_has(r->args, "libvirt"))
		rc = domain_make(&r->domain, files, r->nfiles, line, e);
	return rc;
}

/* ---- the report ---- */

static void
print_report(const struct restore *r, int64_t took_ns)
{
	char line[256], took[48], size[32], data[32];
	struct cli_word a, b;
	size_t i;

	(void)printf("%s restored in %s\n", describe_line(&r->point, line, sizeof line),
	             clock_format_duration(took, sizeof took, took_ns));
	for (i = 0; i < r->nfiles; i++) {
		const struct point_disk *d = &r->point.disks[r->files[i].disk];

		(void)printf("  %-12s %10s, %10s of it data  %s\n", d->name,
		             size_format(size, sizeof size, d->size),
		             size_format(data, sizeof data, r->files[i].data), r->files[i].path);
	}
	if (cli_has(r->args, "libvirt"))
		(void)printf("defined; start it with: virsh -c %s start %s\n",
		             cli_word(&a, domain_uri(&r->domain)),
		             cli_word(&b, domain_name(&r->domain)));
	else if (r->machine != NULL)
		(void)printf("start it with: locum vm start %s --config %s\n",
		             cli_word(&a, r->point.vm), cli_word(&b, r->machine));
	if (r->point.left_out != NULL && r->point.left_out[0] != '\0')
		(void)printf("not in this point:\n%s\n", r->point.left_out);
}

static void
print_json(const struct restore *r, int64_t took_ns)
{
	size_t i;

	(void)fputs("{\"point\":", stdout);
	describe_json(stdout, &r->point);
	(void)printf(",\"ms\":%" PRId64 ",\"files\":[", took_ns / LC_NS_PER_MS);
	for (i = 0; i < r->nfiles; i++) {
		(void)fputs(i == 0 ? "{\"disk\":" : ",{\"disk\":", stdout);
		cli_json_string(stdout, r->point.disks[r->files[i].disk].name);
		(void)fputs(",\"path\":", stdout);
		cli_json_string(stdout, r->files[i].path);
		(void)printf(",\"format\":\"%s\",\"data_bytes\":%" PRIu64 "}",
		             formats[r->files[i].format].name, r->files[i].data);
	}
	(void)fputs("],\"machine\":", stdout);
	if (r->machine != NULL)
		cli_json_string(stdout, r->machine);
	else
		(void)fputs("null", stdout);
	(void)fputs(",\"domain\":", stdout);
	cli_json_string(stdout, cli_has(r->args, "libvirt") ? domain_name(&r->domain) : NULL);
	(void)puts("}");
}

/* ---- */

static int
restore(struct restore *r, struct lc_err *e)
{
	struct export_opts opts = {.files = r->files, .force = cli_has(r->args, "force")};
	int64_t began = clock_mono_ns();
	struct cli_word w;
	int rc = read_format(r, e);

	if (rc == 0)
		rc = opening_read(r->args, &r->opening, "locum restore", e);
	if (rc == 0)
		rc = remote_attach(r->opening.store, r->opening.settings.key_dir, &r->remote, e);
	if (rc == 0)
		rc = store_find(r->opening.store, cli_operand(r->args, 0), &r->point, e);
	if (rc == 0 && (r->point.flags & POINT_MAP_DAMAGED) != 0)
		rc = lc_fail(e, LC_ECORRUPT, 0,
		             "%s: parts of this point's map are lost, its disks can't be trusted; "
		             "choose another (locum points %s)",
		             cli_operand(r->args, 0), cli_word(&w, r->point.vm));
	if (rc == 0)
		rc = choose_files(r, e);
	if (rc == 0)
		rc = choose_machine(r, e);
	if (rc == 0)
		rc = choose_domain(r, e);
	if (rc == 0)
		rc = store_view(r->opening.store, r->point.id, &r->view, e);
	if (rc != 0)
		return rc;
	opts.nfiles = r->nfiles;
	opts.threads = (unsigned)r->opening.settings.workers;
	opts.label = cli_has(r->args, "quiet") ? NULL : r->point.vm;
	rc = export_run(r->opening.store, r->view, &opts, e);
	if (rc == 0)
		rc = write_machine(r, e);
	if (rc == 0 && cli_has(r->args, "json"))
		print_json(r, clock_mono_ns() - began);
	else if (rc == 0 && !cli_has(r->args, "quiet"))
		print_report(r, clock_mono_ns() - began);
	return rc;
}

static int
run(const struct cli_args *a)
{
	struct lc_err e = LC_ERR_INIT;
	struct restore *r;
	size_t i;
	int rc;

	if (cli_has(a, "name") && !cli_has(a, "libvirt"))
		return cli_usage(a, "--name goes with --libvirt");
	if (cli_get(a, "to") == NULL || *cli_get(a, "to") == '\0')
		return cli_usage(a, "say where to: --to DIR or --to FILE");
	r = lc_alloc(sizeof *r);
	if (r == NULL) {
		(void)lc_fail(&e, LC_ENOMEM, 0, "restore: out of memory");
		return cli_error(&e);
	}
	r->args = a;
	rc = restore(r, &e);
	if (rc != 0 && r->made_dir)
		(void)rmdir(r->dir); /* only if it is empty */
	if (r->view != NULL)
		view_close(r->view);
	remote_free(r->remote);
	point_done(&r->point);
	opening_done(&r->opening);
	for (i = 0; i < r->nfiles; i++)
		lc_free(r->paths[i]);
	lc_free(r->dir);
	lc_free(r->machine);
	lc_free(r);
	return rc == 0 ? CLI_DONE : cli_error(&e);
}

static const struct cli_option options[] = {
    {.name = "to", .arg = "PATH", .help = "folder for the images, or a file: see above"},
    {.name = "format",
     .arg = "FORMAT",
     .help = "raw, qcow2, vhdx, vmdk or vpc (default: as a file is called, or raw)"},
    {.name = "disk", .arg = "NAME", .help = "this disk only", .many = true},
    {.name = "libvirt", .help = "define the VM as a domain of this host's libvirt"},
    {.name = "name", .arg = "NAME", .help = "of that domain (default: the VM's)"},
    {.name = "force", .help = "replace files that are there"},
    OPENING_OPTIONS,
    {.name = NULL},
};

const struct cli_verb verb_restore = {
    .name = "restore",
    .operands = "VM[@POINT]",
    .summary = "write the disks of a restore point to image files",
    .details =
	"Writes every disk of the point (the newest, unless another is named) to a sparse\n"
	"image, each window checked against its id.  The files get their names when all of\n"
	"them are whole and on disk: an interrupted restore leaves none.  Beside a whole VM\n"
	"lies VM.conf, with which `locum vm start` runs it.\n"
	"\n"
	"PATH is a folder, which is made.  It is a file for one --disk, and where the VM has but\n"
	"one and PATH ends as images do (.raw, .img, .qcow2, .vhdx, .vmdk, .vhd).\n"
	"\n"
	"vhdx, vmdk and vpc (.vhd), for Hyper-V, VMware and Virtual PC or Server, are made by\n"
	"qemu-img, and need the room twice while they are made.\n"
	"\n"
	"With --libvirt it is also defined as a domain of the libvirt that the configuration\n"
	"names (else of qemu:///system), and not started.  One that is there is never replaced;\n"
	"under another name it is another machine, with a new UUID and new MAC addresses.\n"
	"\n"
	"A point is written web01, web01@latest, web01@-15m, web01@2026-11-22T05:00 (the newest\n"
	"not after it) or web01@1f2e3d4c (its id).\n"
	"\n"
	"Examples:\n"
	"  locum restore web01 --to /restore\n"
	"  locum restore web01@-15m --to /restore --format qcow2\n"
	"  locum restore web01 --to /restore --format vhdx\n"
	"  locum restore web01 --to /var/lib/libvirt/images/web01 --libvirt\n"
	"  locum restore web01 --disk vda --to /restore/web01.raw --force",
    .options = options,
    .min_operands = 1,
    .max_operands = 1,
    .run = run,
};

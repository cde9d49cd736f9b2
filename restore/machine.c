#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/hypervisor/definition.h"
#include "store/point.h"
#include "restore/machine.h"

static const char *
bus_name(enum def_bus bus)
{
	switch (bus) {
	case DEF_BUS_VIRTIO:
		return "virtio";
	case DEF_BUS_SCSI:
		return "scsi";
	case DEF_BUS_SATA:
		return "sata";
	case DEF_BUS_IDE:
		return "ide";
	}
	return "virtio";
}

static int
add_key(struct lc_buf *out, const char *key, const char *value)
{
	return value[0] == '\0' ? 0 : lc_buf_printf(out, "%s = %s\n", key, value);
}

static int
add_machine(const struct definition *d, struct lc_buf *out)
{
	bool whole = d->memory % (UINT64_C(1) << 20) == 0;
	int rc = add_key(out, "machine", d->machine);

	rc |= add_key(out, "cpu", d->cpu);
	rc |= add_key(out, "cpu_features", d->cpu_features);
	rc |= lc_buf_printf(out, "cpus = %u\n", d->cpus);
	rc |= add_key(out, "topology", d->topology);
	rc |= lc_buf_printf(out, "memory = %llu%s\n",
	                    (unsigned long long)(whole ? d->memory >> 20 : d->memory),
	                    whole ? " MiB" : "");
	rc |= add_key(out, "uuid", d->uuid);
	rc |= add_key(out, "clock", d->clock);
	rc |= add_key(out, "firmware", d->firmware);
	rc |= add_key(out, "append", d->append);
	return rc;
}

static int
add_disk(const struct def_disk *d, const struct machine_file *f, struct lc_buf *out)
{
	int rc = 0;

	switch (d->role) {
	case HV_ROLE_KERNEL:
		return add_key(out, "kernel", f->path);
	case HV_ROLE_INITRD:
		return add_key(out, "initrd", f->path);
	case HV_ROLE_NVRAM:
		return add_key(out, "nvram", f->path);
	case HV_ROLE_DISK:
		break;
	}
	rc |= lc_buf_printf(out, "disk = %s %s \"%s\" bus=%s", d->name, f->format, f->path,
	                    bus_name(d->bus));
	if (d->serial[0] != '\0')
		rc |= lc_buf_printf(out, " serial=%s", d->serial);
	if (d->address[0] != '\0')
		rc |= lc_buf_printf(out, " address=%s", d->address);
	if (d->boot != 0)
		rc |= lc_buf_printf(out, " boot=%u", d->boot);
	if (d->block != 0)
		rc |= lc_buf_printf(out, " block=%u", d->block);
	return rc | lc_buf_printf(out, "\n");
}

static int
add_nic(const struct def_nic *n, struct lc_buf *out)
{
	int rc = lc_buf_printf(out, "nic = %s %s model=%s", n->name,
	                       n->network[0] != '\0' ? n->network : "none", n->model);

	if (n->mac[0] != '\0')
		rc |= lc_buf_printf(out, " mac=%s", n->mac);
	if (n->address[0] != '\0')
		rc |= lc_buf_printf(out, " address=%s", n->address);
	return rc | lc_buf_printf(out, "\n");
}

static const struct machine_file *
file_of(const struct machine_file *files, size_t n, const char *disk)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (strcmp(files[i].disk, disk) == 0)
			return &files[i];
	}
	return NULL;
}

int
machine_definition(const struct point *p, const struct machine_file *files, size_t n,
                   struct definition **out, struct lc_err *e)
{
	struct definition *d;
	size_t i, kept = 0;
	int rc;

	*out = NULL;
	if (p->definition == NULL)
		return lc_fail(e, LC_ENOENT, 0, "%s: the point does not say what machine it is of",
		               p->vm);
	rc = definition_decode("recorded definition", p->definition, strlen(p->definition), &d, e);
	if (rc != 0) {
		lc_wrap(e, "%s", p->vm);
		return rc;
	}
	for (i = 0; i < d->ndisks; i++) {
		const struct machine_file *f = file_of(files, n, d->disks[i].name);

		if (f == NULL)
			continue;
		d->disks[kept] = d->disks[i];
		rc = definition_set(d, "disk", d->disks[kept].name, "path", f->path, e);
		if (rc == 0)
			rc = definition_set(d, "disk", d->disks[kept].name, "format", f->format, e);
		if (rc != 0) {
			lc_free(d);
			lc_wrap(e, "%s", p->vm);
			return rc;
		}
		kept++;
	}
	d->ndisks = kept;
	*out = d;
	return 0;
}

void
machine_drop_unknown(struct definition *d, const char *vm)
{
	size_t i, kept = 0;

	for (i = 0; i < d->ndisks; i++) {
		const struct def_disk *x = &d->disks[i];

		if (x->content == DEF_CONTENT_EMPTY && x->size == 0 && x->role == HV_ROLE_DISK)
			(void)fprintf(stderr, "%s: disk %s is not in the point: without it\n", vm,
			              x->name);
		else
			d->disks[kept++] = *x;
	}
	d->ndisks = kept;
}

int
machine_make_empty(const char *path, uint64_t size, struct lc_err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), rc = 0;

	if (fd < 0)
		return errno == EEXIST ? 0 : lc_fail_errno(e, "%s", path);
	if (ftruncate(fd, (off_t)size) != 0)
		rc = lc_fail_errno(e, "%s", path);
	(void)close(fd);
	return rc;
}

/* One that was excluded from the point, empty. */
static int
add_empty(const struct point *p, const struct def_disk *d, const char *dir, struct lc_buf *out,
          struct lc_err *e)
{
	char *path = lc_asprintf("%s/%s-%s.raw", dir, p->vm, d->name);
	struct machine_file f = {.disk = d->name, .path = path, .format = "raw"};
	int rc = path == NULL ? LC_ENOMEM : machine_make_empty(path, d->size, e);

	if (rc == 0)
		rc = lc_buf_printf(out, "# disk %s is not in the point, an empty one is here\n",
		                   d->name);
	rc = rc != 0 ? rc : add_disk(d, &f, out);
	lc_free(path);
	return rc;
}

static bool
is_empty(const struct def_disk *d)
{
	return d->content == DEF_CONTENT_EMPTY && d->size > 0 && d->role == HV_ROLE_DISK;
}

int
machine_section(const struct point *p, const struct machine_file *files, size_t n, const char *dir,
                const char *comment, struct lc_buf *out, struct lc_err *e)
{
	struct definition *d = NULL;
	size_t i, j;
	int rc = definition_decode("recorded definition", p->definition, strlen(p->definition), &d,
	                           e);

	if (rc != 0) {
		lc_wrap(e, "%s", p->vm);
		return rc;
	}
	rc |= lc_buf_printf(out, "# %s\n[vm %s]\n", comment, p->vm);
	rc |= add_machine(d, out);
	for (i = 0; i < d->ndisks; i++) {
		for (j = 0; j < n && strcmp(files[j].disk, d->disks[i].name) != 0; j++)
			;
		if (j < n)
			rc |= add_disk(&d->disks[i], &files[j], out);
		else if (is_empty(&d->disks[i]))
			rc |= add_empty(p, &d->disks[i], dir, out, e);
		else
			rc |= lc_buf_printf(out, "# disk %s is not in the point\n",
			                    d->disks[i].name);
	}
	for (i = 0; i < d->nnics; i++)
		rc |= add_nic(&d->nics[i], out);
	for (i = 0; i < d->nleft_out; i++)
		rc |= lc_buf_printf(out, "# not reproduced: %s: %s\n", d->left_out[i].what,
		                    d->left_out[i].why);
	lc_free(d);
	if (rc == 0)
		return 0;
	return e != NULL && e->code != LC_OK ? (int)e->code
	                                     : lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", p->vm);
}

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/hypervisor/definition.h"
#include "agent/hypervisor/image.h"
#include "agent/hypervisor/settings.h"
#include "agent/subject.h"
#include "store/base/log.h"

const char *
subject_origin(const struct subject *s)
{
	return s->settings->origin == NULL ? "locum.conf" : s->settings->origin;
}

/* Known of the VM that runs, else what it is said to be. */
static const struct definition *
best(const struct hv_vm *vm, const struct definition *def)
{
	return vm->def != NULL ? vm->def : def;
}

static bool
excluded(const struct subject *s, const char *disk)
{
	const struct settings_vm *sv = settings_vm(s->settings, s->vm);
	size_t i;

	for (i = 0; sv != NULL && i < sv->nexcludes; i++) {
		if (strcmp(sv->excludes[i], disk) == 0)
			return true;
	}
	return false;
}

/* ---- texts ---- */

/* With a note of the disks that a restore has to make empty ones for. */
static int
encode(struct subject *s, const struct definition *def, struct lc_err *e)
{
	struct definition *d = lc_alloc(sizeof *d);
	size_t i;
	int rc;

	if (d == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->vm);
	*d = *def;
	for (i = 0; i < d->ndisks; i++) {
		bool empty = d->disks[i].role == HV_ROLE_DISK && excluded(s, d->disks[i].name);

		d->disks[i].content = empty ? DEF_CONTENT_EMPTY : DEF_CONTENT_STORED;
	}
	rc = definition_encode(d, &s->definition, e);
	lc_free(d);
	return rc;
}

static int
write_down(struct subject *s, const struct hv_vm *vm, const struct definition *def,
           struct lc_err *e)
{
	size_t i;
	int rc = 0;

	s->definition.n = s->left_out.n = 0;
	if (def != NULL) {
		rc = encode(s, def, e);
		rc = rc != 0 ? rc : lc_buf_append(&s->definition, "", 1);
	}
	for (i = 0; rc == 0 && def != NULL && i < def->nleft_out; i++) {
		const char *what = def->left_out[i].what;

		if (strncmp(what, "disk ", 5) != 0 || !excluded(s, what + 5))
			rc = lc_buf_printf(&s->left_out, "%s: %s\n", what, def->left_out[i].why);
	}
	for (i = 0; rc == 0 && i < vm->ndisks; i++) {
		/* Else it has to be excluded, or the take will fail. */
		if (!vm->disks[i].capturable && !excluded(s, vm->disks[i].name))
			rc = lc_buf_printf(&s->left_out, "disk %s: %s\n", vm->disks[i].name,
			                   vm->disks[i].reason);
	}
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->vm);
}

static int
note_excluded(struct subject *s, const struct hv_vm *vm, const char *name)
{
	const struct hv_disk *d = NULL;
	size_t i;
	int rc = lc_buf_printf(&s->left_out, "disk %s: excluded in %s", name, subject_origin(s));

	for (i = 0; i < vm->ndisks; i++) {
		if (strcmp(vm->disks[i].name, name) == 0)
			d = &vm->disks[i];
	}
	if (d != NULL && !d->capturable)
		rc |= lc_buf_printf(&s->left_out, " (%s)", d->reason);
	if (d != NULL && d->size > 0 && d->role == HV_ROLE_DISK)
		rc |= lc_buf_printf(&s->left_out,
		                    "; a restore makes an empty one of %" PRIu64 " bytes", d->size);
	return rc | lc_buf_printf(&s->left_out, "\n");
}

static int
exclude(struct subject *s, struct hv *hv, struct lc_err *e)
{
	const struct settings_vm *sv = settings_vm(s->settings, s->vm);
	size_t i;
	int rc = 0;

	for (i = 0; rc == 0 && sv != NULL && i < sv->nexcludes; i++) {
		/* It may have been unplugged; if it is a slip of the pen, the disk that was meant
		 * is backed up. */
		if (hv_exclude(hv, sv->excludes[i], NULL) != 0)
			log_warn("%s: %s excludes disk %s, but it has none of that name", s->vm,
			         subject_origin(s), sv->excludes[i]);
		else
			rc = note_excluded(s, hv_vm(hv), sv->excludes[i]);
	}
	return rc == 0 ? 0 : lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->vm);
}

static int
check_any(const struct subject *s, const struct hv_vm *vm, struct lc_err *e)
{
	size_t i;

	for (i = 0; i < vm->ndisks; i++) {
		if (!excluded(s, vm->disks[i].name))
			return 0;
	}
	if (vm->ndisks > 0)
		return lc_fail(e, LC_ENOTSUP, 0,
		               "%s: it has no disk to back up: all of them are excluded", s->vm);
	return lc_fail(
	    e, LC_ENOTSUP, 0,
	    "%s: it has no disk to back up; protect = no in [vm %s] of %s leaves it alone", s->vm,
	    s->vm, subject_origin(s));
}

int
subject_describe(struct subject *s, struct hv *hv, const struct definition *def, struct lc_err *e)
{
	const struct hv_vm *vm = hv_vm(hv);
	int rc = check_any(s, vm, e);

	rc = rc != 0 ? rc : write_down(s, vm, best(vm, def), e);
	return rc != 0 ? rc : exclude(s, hv, e);
}

/* ---- disks ---- */

static bool
is_file(const struct def_disk *d)
{
	return d->role == HV_ROLE_KERNEL || d->role == HV_ROLE_INITRD;
}

static int
add_files(struct subject *s, const struct hv_vm *vm, const struct definition *def, struct lc_err *e)
{
	struct stat st;
	size_t i;

	for (i = 0; def != NULL && i < def->ndisks; i++) {
		const struct def_disk *d = &def->disks[i];
		struct subject_disk *x = &s->disks[s->ndisks];

		if (!is_file(d))
			continue;
		if (s->ndisks == HV_DISKS_MAX)
			return lc_fail(e, LC_ENOTSUP, 0, "%s: too many disks", s->vm);
		if (stat(d->path, &st) != 0)
			return lc_fail_errno(e, "%s: %s %s", s->vm, d->name, d->path);
		*x = (struct subject_disk){.size = (uint64_t)st.st_size, .role = (uint8_t)d->role};
		if (def == vm->def && (vm->handed >> d->role & 1) == 0) {
			x->uid = vm->uid;
			x->gid = vm->gid;
		}
		(void)snprintf(x->file, sizeof x->file, "%s", d->path);
		(void)snprintf(x->name, sizeof x->name, "%s", d->name);
		(void)image_stamp(d->path, d->format, x->stamp, sizeof x->stamp, NULL);
		s->ndisks++;
	}
	return 0;
}

/* Of its image, where it is known: of another one it is not told what it stands on. */
static const char *
format_of(const struct definition *def, const char *disk)
{
	const struct def_disk *d = def == NULL ? NULL : definition_disk(def, disk);

	return d == NULL ? "raw" : d->format;
}

int
subject_list(struct subject *s, const struct hv_snapshot *snapshot, struct hv *hv,
             const struct definition *def, struct lc_err *e)
{
	size_t i;

	def = best(hv_vm(hv), def);
	if (s->disks == NULL)
		s->disks = lc_alloc_array(HV_DISKS_MAX, sizeof *s->disks);
	if (s->disks == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", s->vm);
	s->ndisks = 0;
	for (i = 0; i < snapshot->nsources; i++) {
		const struct hv_disk *hd = snapshot->sources[i].disk;
		struct subject_disk *x = &s->disks[s->ndisks++];

		*x = (struct subject_disk){
		    .source = &snapshot->sources[i], .size = hd->size, .role = (uint8_t)hd->role};
		(void)snprintf(x->name, sizeof x->name, "%s", hd->name);
		if (s->offline && image_stamp(hd->path, format_of(def, hd->name), x->stamp,
		                              sizeof x->stamp, NULL) != 0)
			x->stamp[0] = '\0';
	}
	return add_files(s, hv_vm(hv), def, e);
}

/* ---- compared with an earlier point ---- */

static const struct point_disk *
find(const struct point *base, const char *name, uint8_t role)
{
	size_t i;

	for (i = 0; base != NULL && i < base->ndisks; i++) {
		if (strcmp(base->disks[i].name, name) == 0 && base->disks[i].role == role)
			return &base->disks[i];
	}
	return NULL;
}

const struct point_disk *
subject_base(const struct point *base, const struct subject_disk *d)
{
	return find(base, d->name, d->role);
}

bool
subject_same_file(const struct point *base, const struct subject_disk *d)
{
	const struct point_disk *b = subject_base(base, d);

	return b != NULL && b->size == d->size && d->stamp[0] != '\0' &&
	       strcmp(b->stamp, d->stamp) == 0;
}

static bool
looks_same(const struct point_disk *b, const char *path, const char *format)
{
	char stamp[POINT_STAMP_MAX];

	return b != NULL && image_stamp(path, format, stamp, sizeof stamp, NULL) == 0 &&
	       strcmp(b->stamp, stamp) == 0;
}

static bool
same_text(const char *text, const struct lc_buf *b)
{
	return text == NULL ? b->n == 0 : b->n > 0 && strcmp(text, (const char *)b->p) == 0;
}

static bool
same_disk(const struct subject *s, const struct point *base, const struct hv_disk *d,
          const char *format)
{
	const struct point_disk *b = find(base, d->name, (uint8_t)d->role);

	if (!d->capturable || b == NULL)
		return false;
	return s->offline ? looks_same(b, d->path, format) : b->size == d->size;
}

bool
subject_is(const struct subject *s, const struct point *base, struct hv *hv,
           const struct definition *def)
{
	const struct hv_vm *vm = hv_vm(hv);
	size_t i, n = 0;

	def = best(vm, def);
	if (!same_text(base->definition, &s->definition) ||
	    (!s->offline && !same_text(base->left_out, &s->left_out)))
		return false;
	for (i = 0; i < vm->ndisks; i++) {
		if (excluded(s, vm->disks[i].name))
			continue;
		if (!same_disk(s, base, &vm->disks[i], format_of(def, vm->disks[i].name)))
			return false;
		n++;
	}
	for (i = 0; def != NULL && i < def->ndisks; i++) {
		const struct def_disk *d = &def->disks[i];

		if (!is_file(d))
			continue;
		if (!looks_same(find(base, d->name, (uint8_t)d->role), d->path, d->format))
			return false;
		n++;
	}
	return n > 0 && n == base->ndisks;
}

void
subject_done(struct subject *s)
{
	lc_buf_free(&s->definition);
	lc_buf_free(&s->left_out);
	lc_free(s->disks);
	s->disks = NULL;
}

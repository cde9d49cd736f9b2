#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/spawn.h"

#include "agent/hypervisor/imageformat.h"
#include "agent/hypervisor/qemutext.h"

#define INFO_MS 10000
#define VHD_DIFFERENCING 4u
#define QCOW2_DATA_FILE 4u /* incompatible feature: the data is in another file */

static const char raw[] = "raw", qcow2[] = "qcow2", vhdx[] = "vhdx", vmdk[] = "vmdk", vpc[] = "vpc";
static const char vmdk_text[] = "# Disk DescriptorFile";

static const char *const known[] = {raw, qcow2, vhdx, vmdk, vpc};

static const struct {
	const char *suffix, *format;
} suffixes[] = {
    {"raw", raw},    {"img", raw},   {"bin", raw},   {"dd", raw},  {"qcow2", qcow2},
    {"qcow", qcow2}, {"vhdx", vhdx}, {"vmdk", vmdk}, {"vhd", vpc}, {"vpc", vpc},
};

bool
imageformat_known(const char *format)
{
	size_t i;

	for (i = 0; i < sizeof known / sizeof known[0]; i++) {
		if (strcmp(known[i], format) == 0)
			return true;
	}
	return false;
}

bool
imageformat_own(const char *format)
{
	return strcmp(format, raw) == 0 || strcmp(format, qcow2) == 0;
}

static bool
begins(const struct imageformat_bytes *b, const void *magic, size_t n)
{
	return b->nhead >= n && memcmp(b->head, magic, n) == 0;
}

/* The footer of a VHD: its last sector, and where it is no fixed one the first, too. */
static const uint8_t *
vhd_footer(const struct imageformat_bytes *b)
{
	static const char cookie[] = "conectix";

	if (begins(b, cookie, 8) && b->nhead >= IMAGEFORMAT_TAIL)
		return b->head;
	return b->tail != NULL && memcmp(b->tail, cookie, 8) == 0 ? b->tail : NULL;
}

const char *
imageformat_seen(const struct imageformat_bytes *b)
{
	if (begins(b, "QFI\xfb", 4))
		return qcow2;
	if (begins(b, "vhdxfile", 8))
		return vhdx;
	if (begins(b, "KDMV", 4) || begins(b, "COWD", 4) ||
	    begins(b, vmdk_text, sizeof vmdk_text - 1))
		return vmdk;
	return vhd_footer(b) != NULL ? vpc : raw;
}

static uint32_t
get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static const char *
qcow2_danger(const struct imageformat_bytes *b)
{
	if (!begins(b, "QFI\xfb", 4) || b->nhead < 104)
		return "it is no qcow2 image";
	if (get_be32(b->head + 8) != 0 || get_be32(b->head + 12) != 0)
		return "it stands on a backing image; merge the two first (qemu-img convert)";
	if (get_be32(b->head + 4) >= 3 && (get_be32(b->head + 76) & QCOW2_DATA_FILE) != 0)
		return "its data is in another file; make one of the two first (qemu-img convert)";
	return NULL;
}

static const char *
vmdk_danger(const struct imageformat_bytes *b)
{
	static const char parent[] = "parentCID=", hint[] = "parentFileNameHint",
			  none[] = "ffffffff";
	const char *at;

	if (begins(b, vmdk_text, sizeof vmdk_text - 1))
		return "it only names the files that hold the disk; a flat one (web01-flat.vmdk) "
		       "is "
		       "raw: --image-format raw";
	if ((!begins(b, "KDMV", 4) && !begins(b, "COWD", 4)) || b->nhead < 512)
		return "it is no vmdk image";
	if (begins(b, "KDMV", 4) && lc_get64(b->head + 12) == 0)
		return "it only names the files that hold the disk";
	/* Wherever its text is: programs disagree about that.  Without its parent what is there
	 * would be taken for zeros. */
	at = memmem(b->head, b->nhead, parent, sizeof parent - 1);
	if (memmem(b->head, b->nhead, hint, sizeof hint - 1) != NULL ||
	    (at != NULL &&
	     ((size_t)((const uint8_t *)at - b->head) + sizeof parent + sizeof none > b->nhead ||
	      strncasecmp(at + sizeof parent - 1, none, sizeof none - 1) != 0)))
		return "it is a snapshot that stands on another vmdk; consolidate them first";
	return NULL;
}

static const char *
vpc_danger(const struct imageformat_bytes *b)
{
	const uint8_t *footer = vhd_footer(b);

	if (footer == NULL)
		return "it is no vhd image";
	/* QEMU would take what is in the other file for zeros. */
	if (get_be32(footer + 60) == VHD_DIFFERENCING)
		return "it is a difference to another vhd; merge them first";
	return NULL;
}

const char *
imageformat_danger(const char *format, const struct imageformat_bytes *b)
{
	if (strcmp(format, raw) == 0)
		return NULL;
	if (strcmp(format, qcow2) == 0)
		return qcow2_danger(b);
	if (strcmp(format, vhdx) == 0) /* QEMU itself refuses one with a parent */
		return begins(b, "vhdxfile", 8) ? NULL : "it is no vhdx image";
	return strcmp(format, vmdk) == 0 ? vmdk_danger(b) : vpc_danger(b);
}

/* ---- files ---- */

struct looked {
	uint8_t head[IMAGEFORMAT_HEAD], tail[IMAGEFORMAT_TAIL];
	struct imageformat_bytes bytes;
};

static int
look(const char *path, struct looked **out, struct lc_err *e)
{
	struct looked *x = lc_alloc(sizeof *x);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
	struct stat st;
	off_t end;
	ssize_t n = 0;

	*out = NULL;
	if (x == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	} else if (fd == -1 || fstat(fd, &st) == -1) {
		rc = lc_fail_errno(e, "%s", path);
	} else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		rc = lc_fail(e, LC_EINVAL, 0, "%s: neither a file nor a block device", path);
	} else {
		n = pread(fd, x->head, sizeof x->head, 0);
		end = lseek(fd, 0, SEEK_END);
		if (n < 0 || end < 0)
			rc = lc_fail_errno(e, "%s", path);
		else if (end >= (off_t)sizeof x->tail)
			rc = file_pread_full(fd, x->tail, sizeof x->tail,
			                     (uint64_t)end - sizeof x->tail, path, e);
		if (rc == 0)
			x->bytes = (struct imageformat_bytes){
			    .head = x->head,
			    .nhead = (size_t)n,
			    .tail = end >= (off_t)sizeof x->tail ? x->tail : NULL};
	}
	fd_close(&fd);
	if (rc != 0)
		lc_free(x);
	else
		*out = x;
	return rc;
}

const char *
imageformat_named(const char *path)
{
	const char *base = strrchr(path, '/'), *dot = strrchr(base == NULL ? path : base, '.');
	size_t i;

	for (i = 0; dot != NULL && i < sizeof suffixes / sizeof suffixes[0]; i++) {
		if (strcasecmp(dot + 1, suffixes[i].suffix) == 0)
			return suffixes[i].format;
	}
	return NULL;
}

int
imageformat_probe(const char *path, const char **out, struct lc_err *e)
{
	const char *says = imageformat_named(path), *seen;
	struct looked *x;
	int rc = look(path, &x, e);

	if (rc != 0)
		return rc;
	seen = imageformat_seen(&x->bytes);
	lc_free(x);
	if (says != NULL && says == seen) {
		*out = seen;
		return 0;
	}
	if (says == NULL && seen == raw)
		return lc_fail(e, LC_EINVAL, 0,
		               "%s: nothing tells its format: say it, --image-format raw if it is "
		               "the bytes of a disk",
		               path);
	return lc_fail(e, LC_EINVAL, 0,
	               "%s: looks like %s inside%s%s; a guest can make a raw disk look like "
	               "anything, so say what it is: --image-format raw or %s",
	               path, seen, says == NULL ? "" : ", and its name says ",
	               says == NULL ? "" : says, seen == raw ? says : seen);
}

int
imageformat_check(const char *path, const char *format, struct lc_err *e)
{
	struct looked *x;
	const char *why;
	int rc = look(path, &x, e);

	if (rc != 0)
		return rc;
	why = imageformat_danger(format, &x->bytes);
	if (why != NULL)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: %s", path, why);
	lc_free(x);
	return rc;
}

char *
imageformat_spec(const char *path, const char *format)
{
	struct qemutext j = {0}, file = {0};
	struct stat st;
	bool device = stat(path, &st) == 0 && S_ISBLK(st.st_mode);
	char *text, *spec;

	qemutext_put(&file, "driver", device ? "host_device" : "file");
	qemutext_put(&file, "filename", path);
	qemutext_put(&j, "driver", format);
	qemutext_put_bool(&j, "read-only", true);
	qemutext_put_bool(&j, "force-share", true);
	qemutext_put_object(&j, "file", &file);
	text = qemutext_end(&j);
	spec = text == NULL ? NULL : lc_asprintf("json:%s", text);
	lc_free(text);
	return spec;
}

int
imageformat_size(const char *path, const char *format, uint64_t *out, struct lc_err *e)
{
	/* Of the image itself: those of its parts stand further in. */
	static const char key[] = "\n    \"virtual-size\": ";
	char program[] = "qemu-img", info[] = "info", json[] = "--output=json",
	     *spec = imageformat_spec(path, format), *argv[] = {program, info, json, spec, NULL};
	struct spawn s = {.argv = argv, .timeout_ms = INFO_MS};
	struct lc_err why = LC_ERR_INIT;
	struct lc_buf text = {0};
	const char *at = NULL;
	int rc;

	*out = 0;
	if (spec == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	rc = spawn_run(&s, &text, NULL, &why);
	if (rc == 0)
		at = strstr((const char *)text.p, key);
	if (rc != 0)
		rc = lc_fail(e, rc == LC_EIO ? LC_EINVAL : (enum lc_code)rc, 0, "%s: %s", path,
		             why.msg);
	else if (at == NULL)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: qemu-img does not tell its size", path);
	else
		*out = strtoull(at + sizeof key - 1, NULL, 10);
	if (*out > INT64_MAX)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: qemu-img tells a size that can't be", path);
	lc_buf_free(&text);
	lc_free(spec);
	return rc;
}

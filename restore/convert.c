/*
 * qemu-img is given descriptors, as the files have no names yet: a conversion that ends in the
 * middle, whatever ended it, leaves nothing.  Formats are said, never probed.
 *
 * A VMDK has the name of its own file in it, which would be that of a descriptor.
 */
#include <stdio.h>
#include <string.h>

#include "store/base/bytes.h"
#include "store/base/config.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "store/base/spawn.h"
#include "restore/convert.h"

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)

/* A block is what one write of the guest makes longer: small, so that little data makes a small
 * file, but for disks whose table of blocks would grow too large. */
#define VHDX_SMALL_MAX (16 * TIB)

int
convert_check(enum format f, uint64_t size, const char *path, struct lc_err *e)
{
	char a[32], b[32];

	if (size <= formats[f].max)
		return 0;
	return lc_fail(e, LC_ENOTSUP, 0, "%s: a disk of %s; %s takes at most %s%s", path,
	               size_format(a, sizeof a, size), formats[f].name,
	               size_format(b, sizeof b, formats[f].max),
	               f == FORMAT_VPC ? " (vhdx takes more)" : "");
}

uint64_t
convert_room(enum format f, uint64_t size, uint64_t data)
{
	return data + data / 64 + size / MIB * formats[f].per_mib + 8 * MIB;
}

/* ---- the name in a VMDK ---- */

/* In the text of its descriptor: RW 2048 SPARSE "61".  The text gets longer or shorter, what is
 * behind it in its sectors are zeros. */
static int
put_name(char *text, size_t size, const char *name)
{
	static const char key[] = " SPARSE \"";
	char *at = strstr(text, key), *end;
	size_t used = strlen(text), n = strlen(name), old;

	if (at == NULL)
		return -1;
	at += sizeof key - 1;
	end = strchr(at, '"');
	if (end == NULL)
		return -1;
	old = (size_t)(end - at);
	if (used - old + n >= size)
		return -1;
	memmove(at + n, end, used - (size_t)(end - text));
	memcpy(at, name, n);
	if (n < old)
		memset(text + used - old + n, 0, old - n);
	return 0;
}

static int
name_vmdk(int fd, const char *path, struct lc_err *e)
{
	uint8_t head[512];
	const char *name = strrchr(path, '/');
	uint64_t at, size;
	char *text;
	int rc = file_pread_full(fd, head, sizeof head, 0, path, e);

	name = name == NULL ? path : name + 1;
	if (rc != 0)
		return rc;
	at = lc_get64(head + 28) * 512;
	size = lc_get64(head + 36) * 512;
	if (memcmp(head, "KDMV", 4) != 0 || size == 0 || size > MIB)
		return lc_fail(e, LC_EIO, 0, "%s: qemu-img made an unknown kind of vmdk", path);
	if (strpbrk(name, "\"\n") != NULL)
		name = "disk.vmdk";
	text = lc_alloc((size_t)size + 1);
	if (text == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", path);
	rc = file_pread_full(fd, text, (size_t)size, at, path, e);
	if (rc == 0 && put_name(text, (size_t)size, name) != 0)
		rc = lc_fail(e, LC_EIO, 0, "%s: qemu-img made an unknown kind of vmdk", path);
	if (rc == 0)
		rc = file_pwrite_full(fd, text, (size_t)size, at, path, e);
	lc_free(text);
	return rc;
}

/* ---- qemu-img ---- */

int
convert_run(enum format f, uint64_t size, int from, int to, const char *path,
            bool (*stop)(void *arg), void *arg, struct lc_err *e)
{
	char program[] = "qemu-img", convert[] = "convert", quiet[] = "-q", is[] = "-f",
	     qcow2[] = "qcow2", be[] = "-O", name[8], with[] = "-o", options[64], in[64], out[64];
	char *argv[] = {program, convert, quiet, is, qcow2, be, name, with, options, in, out, NULL};
	struct spawn s = {.argv = argv, .fds = {from, to}, .nfds = 2, .stop = stop, .arg = arg};
	struct lc_err why = LC_ERR_INIT;
	int rc;

	(void)snprintf(name, sizeof name, "%s", formats[f].name);
	(void)snprintf(options, sizeof options, "%s",
	               f == FORMAT_VHDX && size > VHDX_SMALL_MAX ? "subformat=dynamic"
	                                                         : formats[f].options);
	(void)snprintf(in, sizeof in, "file:/proc/self/fd/%d", SPAWN_FD_FIRST);
	(void)snprintf(out, sizeof out, "file:/proc/self/fd/%d", SPAWN_FD_FIRST + 1);
	rc = spawn_run(&s, NULL, NULL, &why);
	if (rc == LC_ECANCELED)
		return lc_fail(e, rc, 0, "interrupted; no file was left behind");
	if (rc == LC_ENOENT)
		return lc_fail(e, rc, 0, "%s: %s (install qemu-utils)", path, why.msg);
	if (rc != 0)
		return lc_fail(e, strstr(why.msg, "No space left") != NULL ? LC_ENOSPC : LC_EIO, 0,
		               "%s: %s", path, why.msg);
	return f == FORMAT_VMDK ? name_vmdk(to, path, e) : 0;
}

/**
 * imageformat: what kind of image a file is, and whether it is safe to open as that.
 *
 * The first bytes of a raw disk are the guest's: it can write the header of any format there, one
 * that names a file of this host as its backing image.  So a format is said by somebody, or the
 * name of the file says the same as what is in it; and an image that would have other files opened
 * is refused where it may come from elsewhere.
 */
#ifndef LOCUM_IMAGEFORMAT_H
#define LOCUM_IMAGEFORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/base/errors.h"

#define IMAGEFORMAT_HEAD 65536u /* bytes of the beginning that are looked at ... */
#define IMAGEFORMAT_TAIL 512u   /* ... and of the end */

struct imageformat_bytes { /* of a file */
	const uint8_t *head;
	size_t nhead;
	const uint8_t *tail; /* its last IMAGEFORMAT_TAIL bytes, or NULL where it has fewer */
};

/** imageformat_known(format): one that can be read: raw, qcow2, vhdx, vmdk, vpc. */
bool imageformat_known(const char *format);
/** imageformat_own(format): one that a VM can run from: raw, qcow2. */
bool imageformat_own(const char *format);
/** imageformat_seen(b): what the bytes look like; "raw" where like none. */
const char *imageformat_seen(const struct imageformat_bytes *b);
/** imageformat_named(path): the format that the ending of its name stands for, or NULL. */
const char *imageformat_named(const char *path);
/** imageformat_danger(format, b): why it is not to be opened as that, or NULL. */
const char *imageformat_danger(const char *format, const struct imageformat_bytes *b);

/**
 * imageformat_probe(path, out, e):
 * The format that name and content agree on; static text.  LC_EINVAL where they do not, with what
 * to say instead.
 */
int imageformat_probe(const char *path, const char **out, struct lc_err *e);
/** imageformat_check(path, format, e): LC_EINVAL where imageformat_danger() says so. */
int imageformat_check(const char *path, const char *format, struct lc_err *e);
/**
 * imageformat_spec(path, format):
 * The image for programs of QEMU, read-only and without locks: "json:{...}", so that no path can
 * say more than a name.  Free with lc_free(); NULL: out of memory.
 */
char *imageformat_spec(const char *path, const char *format);
/**
 * imageformat_size(path, format, out, e):
 * Bytes that a guest sees, as qemu-img says; it takes some 20 ms.
 */
int imageformat_size(const char *path, const char *format, uint64_t *out, struct lc_err *e);

#endif

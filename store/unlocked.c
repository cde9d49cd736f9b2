#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/keyctl.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/unlocked.h"

#define PART_MAX 32000u /* the kernel takes 32,767 */
#define HEAD 8u         /* when it ends */
#define PARTS_MAX ((KEYRING_IMAGE_MAX + HEAD) / PART_MAX + 1)
#define PREFIX "locum:"
#define NAME_MAX_ 64u
/* Whoever has our uid may see, read, find, revoke; its possessor also links it.  Nobody else. */
#define RIGHTS 0x3f2f0000u
#define WHERE KEY_SPEC_USER_KEYRING

static const char *
part_name(char dst[NAME_MAX_], const uint8_t domain[DOMAIN_ID_SIZE], unsigned i)
{
	char hex[33];

	(void)snprintf(dst, NAME_MAX_, PREFIX "%s:%u", lc_hex(hex, domain, DOMAIN_ID_SIZE), i);
	return dst;
}

/* What containers say that keep the keyring away from us. */
static bool
refused(int err)
{
	return err == ENOSYS || err == EPERM || err == EACCES || err == EOPNOTSUPP;
}

static int
fail_kernel(const char *what, struct lc_err *e)
{
	int err = errno;

	if (refused(err))
		return lc_fail(e, LC_ENOTSUP, err,
		               "the kernel's keyring can't be used here (a container?): %s", what);
	return lc_fail(e, err == EDQUOT ? LC_ENOSPC : LC_EIO, err, "the kernel's keyring: %s",
	               what);
}

static int64_t
boot_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * LC_NS_PER_S + t.tv_nsec;
}

/* ---- one part ---- */

/* LC_ENOENT: there is none, or no more. */
static int
find_part(const uint8_t domain[DOMAIN_ID_SIZE], unsigned i, long *id)
{
	char name[NAME_MAX_];

	*id = syscall(SYS_keyctl, KEYCTL_SEARCH, WHERE, "user", part_name(name, domain, i), 0);
	return *id < 0 ? LC_ENOENT : 0;
}

/* First of its own process only, so that it dies with us; then, with its end set, for everybody. */
static int
put_part(const uint8_t domain[DOMAIN_ID_SIZE], unsigned i, struct lc_span bytes, unsigned seconds,
         struct lc_err *e)
{
	char name[NAME_MAX_];
	long id = syscall(SYS_add_key, "user", part_name(name, domain, i), bytes.p, bytes.n,
	                  KEY_SPEC_PROCESS_KEYRING);
	int rc = 0;

	if (id < 0)
		return fail_kernel("add", e);
	if (syscall(SYS_keyctl, KEYCTL_SET_TIMEOUT, id, seconds) < 0)
		rc = fail_kernel("set a time", e);
	else if (syscall(SYS_keyctl, KEYCTL_SETPERM, id, RIGHTS) < 0)
		rc = fail_kernel("set rights", e);
	else if (syscall(SYS_keyctl, KEYCTL_LINK, id, WHERE) < 0)
		rc = fail_kernel("link", e);
	(void)syscall(SYS_keyctl, KEYCTL_UNLINK, id, KEY_SPEC_PROCESS_KEYRING);
	return rc;
}

/* Appends; the buffer has room for PART_MAX more. */
static int
get_part(const uint8_t domain[DOMAIN_ID_SIZE], unsigned i, struct lc_buf *b)
{
	long id, n;

	if (find_part(domain, i, &id) != 0)
		return LC_ENOENT;
	n = syscall(SYS_keyctl, KEYCTL_READ, id, b->p + b->n, PART_MAX);
	if (n < 0 || n > (long)PART_MAX)
		return LC_ENOENT;
	b->n += (size_t)n;
	return 0;
}

/* Its content goes at once; then its name. */
static void
forget(long id)
{
	(void)syscall(SYS_keyctl, KEYCTL_REVOKE, id);
	(void)syscall(SYS_keyctl, KEYCTL_UNLINK, id, WHERE);
}

/* ---- all of them ---- */

int
unlocked_drop(const uint8_t domain[DOMAIN_ID_SIZE], struct lc_err *e)
{
	unsigned i;
	long id;

	for (i = 0; i < PARTS_MAX; i++) {
		if (find_part(domain, i, &id) == 0)
			forget(id);
	}
	for (i = 0; i < PARTS_MAX; i++) {
		if (find_part(domain, i, &id) == 0)
			return lc_fail(e, LC_EIO, 0,
			               "the kernel's keyring does not let go of key %ld", id);
	}
	return 0;
}

int
unlocked_put(const struct keyring *k, int64_t for_ns, struct lc_err *e)
{
	unsigned seconds = (unsigned)((for_ns + LC_NS_PER_S - 1) / LC_NS_PER_S), i;
	const uint8_t *domain = keyring_domain(k);
	struct lc_buf image = {0}, all = {0};
	uint8_t head[HEAD];
	size_t at;
	int rc;

	lc_put64(head, (uint64_t)(boot_ns() + for_ns));
	rc = keyring_image(k, &image, e);
	if (rc == 0 &&
	    (lc_buf_reserve(&all, HEAD + image.n) != 0 || lc_buf_append(&all, head, HEAD) != 0 ||
	     lc_buf_append(&all, image.p, image.n) != 0))
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	rc = rc != 0 ? rc : unlocked_drop(domain, e);
	for (at = 0, i = 0; rc == 0 && at < all.n; at += PART_MAX, i++) {
		struct lc_span part = {all.p + at, all.n - at < PART_MAX ? all.n - at : PART_MAX};

		rc = put_part(domain, i, part, seconds, e);
	}
	if (rc != 0)
		(void)unlocked_drop(domain, NULL);
	if (image.p != NULL)
		explicit_bzero(image.p, image.cap);
	if (all.p != NULL)
		explicit_bzero(all.p, all.cap);
	lc_buf_free(&image);
	lc_buf_free(&all);
	return rc;
}

/* All parts, one behind the other.  The caller wipes. */
static int
read_all(const uint8_t domain[DOMAIN_ID_SIZE], struct lc_buf *all, int64_t *left_ns,
         struct lc_err *e)
{
	int64_t end;
	unsigned i;

	if (lc_buf_reserve(all, (size_t)PARTS_MAX * PART_MAX) != 0)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	for (i = 0; i < PARTS_MAX && get_part(domain, i, all) == 0; i++)
		;
	if (all->n < HEAD)
		return lc_fail(e, LC_ENOENT, 0, "not unlocked");
	end = (int64_t)lc_get64(all->p);
	*left_ns = end - boot_ns();
	if (*left_ns > 0)
		return 0;
	(void)unlocked_drop(domain, NULL);
	return lc_fail(e, LC_ENOENT, 0, "not unlocked any more");
}

static void
wipe(struct lc_buf *b)
{
	if (b->p != NULL)
		explicit_bzero(b->p, b->cap);
	lc_buf_free(b);
}

int
unlocked_get(const uint8_t domain[DOMAIN_ID_SIZE], struct keyring **out, struct lc_err *e)
{
	struct lc_buf all = {0};
	struct keyring *k = NULL;
	int64_t left;
	int rc = read_all(domain, &all, &left, e);

	*out = NULL;
	rc = rc != 0 ? rc : keyring_from_image((struct lc_span){all.p + HEAD, all.n - HEAD}, &k, e);
	if (rc == 0 && memcmp(keyring_domain(k), domain, DOMAIN_ID_SIZE) != 0) {
		keyring_free(k);
		k = NULL;
		rc = lc_fail(e, LC_ECORRUPT, 0, "it is of another key domain");
	}
	if (rc == 0)
		*out = k;
	else if (rc != LC_ENOENT)
		lc_wrap(e, "the kernel's keyring");
	wipe(&all);
	return rc;
}

/* The domain of a key that is a first part of ours. */
static bool
first_part(long id, uint8_t domain[DOMAIN_ID_SIZE])
{
	char text[160] = "", hex[33] = "";
	const char *name;
	long n = syscall(SYS_keyctl, KEYCTL_DESCRIBE, id, text, sizeof text - 1);

	/* "type;uid;gid;rights;name" */
	if (n <= 0 || n > (long)sizeof text - 1 || strncmp(text, "user;", 5) != 0)
		return false;
	name = strrchr(text, ';') + 1;
	return strncmp(name, PREFIX, sizeof PREFIX - 1) == 0 &&
	       sscanf(name + sizeof PREFIX - 1, "%32[0-9a-f]", hex) == 1 &&
	       strcmp(name + sizeof PREFIX - 1 + 32, ":0") == 0 &&
	       lc_unhex(domain, DOMAIN_ID_SIZE, hex);
}

/* The numbers of all keys that are there, others' too, i32 each.  The kernel gives all of them or,
 * where they are more than the buffer holds, none. */
static int
read_ids(struct lc_buf *ids, struct lc_err *e)
{
	long got;

	ids->n = 0;
	for (;;) {
		got = syscall(SYS_keyctl, KEYCTL_READ, WHERE, ids->p, ids->cap);
		if (got < 0 && (refused(errno) || errno == ENOKEY))
			return 0;
		if (got < 0)
			return fail_kernel("list", e);
		if ((size_t)got <= ids->cap)
			break;
		if (lc_buf_reserve(ids, (size_t)got) != 0)
			return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	}
	ids->n = (size_t)got;
	return 0;
}

int
unlocked_list(struct unlocked **out, size_t *n, struct lc_err *e)
{
	struct lc_buf list = {0}, ids = {0};
	size_t i;
	int32_t id;
	int rc = read_ids(&ids, e);

	*out = NULL;
	*n = 0;
	for (i = 0; rc == 0 && i + sizeof id <= ids.n; i += sizeof id) {
		struct unlocked u = {.left_ns = 0};
		struct lc_buf all = {0};

		memcpy(&id, ids.p + i, sizeof id);
		if (first_part(id, u.domain) && read_all(u.domain, &all, &u.left_ns, NULL) == 0 &&
		    lc_buf_append(&list, &u, sizeof u) != 0)
			rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
		wipe(&all);
	}
	lc_buf_free(&ids);
	if (rc != 0)
		lc_buf_free(&list);
	*out = (struct unlocked *)(void *)list.p;
	*n = list.n / sizeof **out;
	return rc;
}

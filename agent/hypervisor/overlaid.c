#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/imageformat.h"
#include "agent/hypervisor/overlaid.h"

#define NAME_MAX_QCOW2 1023u /* of a backing image, in the header */
#define CHAIN_MAX 32         /* snapshots on top of each other that are followed */
#define DATA_FILE 4u         /* incompatible feature of version 3 */

static bool
is_image(const struct stat *st)
{
	return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

/* Of a file or device that was seen to be one: nothing else is opened, as that may do something. */
static int
open_image(const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0 || !is_image(&st))
		return -1;
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static uint32_t
be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* What a qcow2 image calls the one that it stands on; false where on none. */
static bool
backing_name(const char *path, char name[NAME_MAX_QCOW2 + 1])
{
	uint8_t h[20];
	int fd = open_image(path);
	bool found = false;
	uint64_t at;
	uint32_t n;

	if (fd >= 0 && pread(fd, h, sizeof h, 0) == (ssize_t)sizeof h &&
	    memcmp(h, "QFI\xfb", 4) == 0) {
		at = (uint64_t)be32(h + 8) << 32 | be32(h + 12);
		n = be32(h + 16);
		found = at > 0 && at < INT64_MAX && n > 0 && n <= NAME_MAX_QCOW2 &&
		        pread(fd, name, n, (off_t)at) == (ssize_t)n;
		name[found ? n : 0] = '\0';
	}
	fd_close(&fd);
	return found;
}

/* The path that such a name means; of a "json:" that names it by a plain one, too. */
static bool
backing_path(const char *image, const char *name, char path[PATH_MAX])
{
	static const char key[] = "\"filename\": \"", file[] = "file:";
	const char *slash = strrchr(image, '/'), *at;
	int n;

	if (strncmp(name, "json:", 5) == 0) {
		at = strstr(name, key);
		if (at == NULL)
			return false;
		at += sizeof key - 1;
		n = snprintf(path, PATH_MAX, "%.*s", (int)strcspn(at, "\""), at);
		return n > 0 && n < PATH_MAX;
	}
	if (strncmp(name, file, sizeof file - 1) == 0)
		name += sizeof file - 1;
	if (name[0] == '/' || slash == NULL)
		n = snprintf(path, PATH_MAX, "%s", name);
	else
		n = snprintf(path, PATH_MAX, "%.*s/%s", (int)(slash - image), image, name);
	return n > 0 && n < PATH_MAX;
}

enum overlaid
overlaid_next(const char *path, char *below)
{
	char name[NAME_MAX_QCOW2 + 1];
	uint8_t h[80];
	int fd = open_image(path);
	bool known = fd >= 0 && pread(fd, h, sizeof h, 0) == (ssize_t)sizeof h;

	fd_close(&fd);
	if (!known)
		return OVERLAID_UNKNOWN;
	if (memcmp(h, "QFI\xfb", 4) != 0)
		return OVERLAID_NOTHING;
	if (be32(h + 4) >= 3 && (be32(h + 76) & DATA_FILE) != 0)
		return OVERLAID_UNKNOWN;
	if (be32(h + 8) == 0 && be32(h + 12) == 0)
		return OVERLAID_NOTHING;
	return backing_name(path, name) && backing_path(path, name, below) ? OVERLAID_IMAGE
	                                                                   : OVERLAID_UNKNOWN;
}

static bool
backing_file(const char *image, const char *name, struct stat *out)
{
	char path[PATH_MAX];

	return backing_path(image, name, path) && stat(path, out) == 0 && is_image(out);
}

static bool
stands_on(const char *image, const struct stat *base)
{
	char name[NAME_MAX_QCOW2 + 1];
	struct stat st;

	return backing_name(image, name) && backing_file(image, name, &st) &&
	       (S_ISBLK(st.st_mode) ? S_ISBLK(base->st_mode) && st.st_rdev == base->st_rdev
	                            : st.st_dev == base->st_dev && st.st_ino == base->st_ino);
}

/* One in the folder that stands on `base`; NULL where there is none, or none to be seen. */
static char *
find_above(const char *folder, const struct stat *base)
{
	/* A device there may do something when it is opened. */
	DIR *d = strcmp(folder, "/dev") == 0 ? NULL : opendir(folder);
	const struct dirent *ent;
	char *found = NULL;
	int rc = 0;

	while (d != NULL && found == NULL && (ent = dir_next(d, folder, &rc, NULL)) != NULL) {
		char *path;

		if (ent->d_type == DT_DIR)
			continue;
		path = path_join(folder, ent->d_name);
		if (path != NULL && stands_on(path, base))
			found = path;
		else
			lc_free(path);
	}
	if (d != NULL)
		(void)closedir(d);
	return found;
}

/* The last of those that stand on each other. */
static char *
find_top(const char *path)
{
	char *top = NULL, *folder = NULL;
	struct stat st;
	int i;

	for (i = 0; i < CHAIN_MAX && stat(top == NULL ? path : top, &st) == 0; i++) {
		char *next;

		lc_free(folder);
		folder = path_dirname(top == NULL ? path : top);
		next = folder == NULL ? NULL : find_above(folder, &st);
		if (next == NULL)
			break;
		lc_free(top);
		top = next;
	}
	lc_free(folder);
	return top;
}

static bool
later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* Merged into the one below, it is not written to any more, and that one is. */
static bool
is_left_behind(const char *path, char name[NAME_MAX_QCOW2 + 1])
{
	struct stat own, below;

	return stat(path, &own) == 0 && S_ISREG(own.st_mode) && backing_name(path, name) &&
	       backing_file(path, name, &below) && S_ISREG(below.st_mode) &&
	       later(&below.st_mtim, &own.st_mtim);
}

int
overlaid_check(const char *path, const char *format, struct lc_err *e)
{
	static const char advice[] = "start the VM and back it up while it runs, or say with "
				     "`disk =` which images it has";
	char name[NAME_MAX_QCOW2 + 1];
	char *top = find_top(path);
	int rc = 0;

	if (top != NULL)
		rc = lc_fail(e, LC_ECONFLICT, 0, "%s is not what it was: %s stands on it; %s", path,
		             top, advice);
	else if (strcmp(format, "qcow2") == 0 && is_left_behind(path, name))
		rc = lc_fail(e, LC_ECONFLICT, 0,
		             "%s is not what it was: %s, which it stands on, is newer; %s", path,
		             name, advice);
	lc_free(top);
	return rc;
}

bool
overlaid_by(const char *path, const char *top)
{
	char at[PATH_MAX], next[PATH_MAX], name[NAME_MAX_QCOW2 + 1];
	struct stat base, st;
	int i, n = snprintf(at, sizeof at, "%s", top);

	if (n <= 0 || (size_t)n >= sizeof at || stat(path, &base) != 0 || stat(top, &st) != 0 ||
	    (S_ISREG(base.st_mode) && later(&base.st_mtim, &st.st_mtim)))
		return false;
	for (i = 0; i < CHAIN_MAX; i++) {
		if (stands_on(at, &base))
			return true;
		if (!backing_name(at, name) || !backing_path(at, name, next))
			return false;
		memcpy(at, next, sizeof at);
	}
	return false;
}

/*
 * churn: see churn.h.
 *
 * All paths are relative to a folder descriptor.  Everything tolerates what a
 * crash in the middle left behind, because the restored guest goes on in the
 * same folder.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "churn.h"
#include "say.h"
#include "seqfmt.h"

#define NDIRS 6U
#define NFILES 8U            /* Per folder. */
#define FILE_MAX_SIZE 131072 /* 48 files of at most 128 KiB: about 3 MiB in use. */
#define STEP_NS 4000000L     /* A pause per operation, so that the guest stays usable. */

static uint64_t
draw(struct churn *c)
{
	return seqfmt_mix(c->rng++);
}

static void
file_name(struct churn *c, char *out, size_t n)
{
	uint64_t r = draw(c);

	(void)snprintf(out, n, "d%u/f%u", (unsigned)(r % NDIRS), (unsigned)(r / NDIRS % NFILES));
}

/* Append up to 16 KiB, starting over when the file has become too long. */
static int
op_append(struct churn *c, int root)
{
	static const size_t sizes[4] = {100, 1000, 4096, 16384};
	uint8_t buf[16384];
	char name[32];
	struct stat st;
	int rc = 0;
	int fd;

	file_name(c, name, sizeof(name));
	fd = openat(root, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0)
		return errno;
	seqfmt_fill(buf, sizeof(buf), draw(c));
	if (fstat(fd, &st) == 0 && st.st_size > FILE_MAX_SIZE && ftruncate(fd, 0) < 0)
		rc = errno;
	if (rc == 0 && write(fd, buf, sizes[draw(c) % 4]) < 0)
		rc = errno;
	if (rc == 0 && draw(c) % 4 == 0 && fsync(fd) < 0)
		rc = errno;
	(void)close(fd);
	return rc;
}

static int
op_rename(struct churn *c, int root)
{
	char from[32], to[32];

	file_name(c, from, sizeof(from));
	file_name(c, to, sizeof(to));
	return renameat(root, from, root, to) < 0 && errno != ENOENT ? errno : 0;
}

static int
op_delete(struct churn *c, int root)
{
	char name[32];

	file_name(c, name, sizeof(name));
	return unlinkat(root, name, 0) < 0 && errno != ENOENT ? errno : 0;
}

/* A folder tree made and removed again: bitmaps, links and directory blocks. */
static int
op_tree(struct churn *c, int root)
{
	static const char *const dirs[] = {"t", "t/a", "t/a/b", "t/c"};
	static const char *const files[] = {"t/x", "t/a/y", "t/a/b/z"};
	size_t i;
	int fd;

	for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		if (mkdirat(root, dirs[i], 0755) < 0 && errno != EEXIST)
			return errno;
	}
	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		fd = openat(root, files[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			return errno;
		(void)close(fd);
	}
	if (draw(c) % 3 == 0)
		return 0; /* Left for the next time. */
	for (i = sizeof(files) / sizeof(files[0]); i-- > 0;) {
		if (unlinkat(root, files[i], 0) < 0)
			return errno;
	}
	for (i = sizeof(dirs) / sizeof(dirs[0]); i-- > 0;) {
		if (unlinkat(root, dirs[i], AT_REMOVEDIR) < 0)
			return errno;
	}
	return 0;
}

static int
one_op(struct churn *c, int root, const char **what)
{
	switch (draw(c) % 8) {
	case 0:
		*what = "rename";
		return op_rename(c, root);
	case 1:
		*what = "delete";
		return op_delete(c, root);
	case 2:
		*what = "tree";
		return op_tree(c, root);
	default:
		*what = "append";
		return op_append(c, root);
	}
}

static int
open_root(const struct churn *c)
{
	char name[16];
	int mnt, root = -1;
	unsigned i;

	mnt = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mnt < 0)
		return -1;
	if (mkdirat(mnt, "churn", 0755) == 0 || errno == EEXIST)
		root = openat(mnt, "churn", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)close(mnt);
	for (i = 0; root >= 0 && i < NDIRS; i++) {
		(void)snprintf(name, sizeof(name), "d%u", i);
		(void)mkdirat(root, name, 0755);
	}
	return root;
}

static void *
churn_main(void *arg)
{
	const struct timespec step = {.tv_nsec = STEP_NS};
	struct churn *c = arg;
	const char *what = "open";
	int root = open_root(c);
	int rc;

	if (root < 0) {
		say("SEQ FS-ERROR op=open errno=%d", errno);
		atomic_fetch_add(&c->errors, 1);
		return NULL;
	}
	while (!atomic_load(&c->stop)) {
		rc = one_op(c, root, &what);
		atomic_fetch_add(&c->ops, 1);
		if (rc != 0) {
			say("SEQ FS-ERROR op=%s errno=%d", what, rc);
			atomic_fetch_add(&c->errors, 1);
			(void)sleep(1); /* A file system gone read-only must not flood the log. */
		}
		(void)nanosleep(&step, NULL);
	}
	(void)close(root);
	return NULL;
}

int
churn_start(struct churn *c)
{
	int rc;

	if (c->running)
		return EALREADY;
	if (c->dir == NULL)
		return ENODEV;
	if (c->dev != NULL) {
		(void)mkdir(c->dir, 0755);
		if (mount(c->dev, c->dir, "ext4", 0, "") < 0)
			return errno;
	}
	atomic_store(&c->stop, false);
	rc = pthread_create(&c->thread, NULL, churn_main, c);
	if (rc == 0)
		c->running = true;
	else if (c->dev != NULL)
		(void)umount(c->dir);
	return rc;
}

int
churn_stop(struct churn *c)
{
	if (!c->running)
		return 0;
	atomic_store(&c->stop, true);
	(void)pthread_join(c->thread, NULL);
	c->running = false;
	if (c->dev != NULL && umount(c->dir) < 0)
		return errno;
	return 0;
}

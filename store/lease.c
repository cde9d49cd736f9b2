/*
 * Who is at a restore point, as files in leases/.
 *
 *     <point>.<random>   a reader: locked as long as it lives
 *     <point>.drop       somebody drops it: locked likewise
 *
 * They are of no use to a dead process: what nobody holds is taken away by whoever meets it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/store_internal.h"

#define BAR ".drop"
#define BAR_TRIES 40
#define BAR_PAUSE_MS 5

/* Whether somebody is dropping the point; what a dead one left is taken away. */
static bool
barred(struct store *s, const char *hex)
{
	char *path = lc_asprintf("%s/leases/%s" BAR, s->dir, hex);
	int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
	bool alive = path == NULL;

	if (fd >= 0) {
		alive = flock(fd, LOCK_EX | LOCK_NB) != 0;
		if (!alive)
			(void)unlink(path);
		fd_close(&fd);
	}
	lc_free(path);
	return alive;
}

int
lease_take(struct store *s, const uint8_t point[16], char **path, int *fd, struct lc_err *e)
{
	char hex[33], tail[17];
	uint8_t rnd[8];
	char *dir = path_join(s->dir, "leases");
	int rc = 0;

	*fd = -1;
	*path = NULL;
	if (dir == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	random_bytes(rnd, sizeof rnd);
	*path = lc_asprintf("%s/%s.%s", dir, lc_hex(hex, point, 16), lc_hex(tail, rnd, sizeof rnd));
	if (*path == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	else if (dir_make(dir, 0700, NULL) != 0)
		log_debug("store %s: no lease, the folder can't be written", s->dir);
	else
		rc = file_lock(*path, 0600, "a reader", fd, NULL);
	/* Where none can be taken (a copy that is read-only, another user's store) it is read
	 * without. */
	lc_free(dir);
	rc = rc == LC_ENOMEM ? rc : 0;
	if (rc == 0 && *fd >= 0 && barred(s, hex)) {
		lease_give(path, fd);
		rc = lc_fail(e, LC_ENOENT, 0, "the restore point is being dropped");
	}
	return rc;
}

int
lease_bar(struct store *s, const uint8_t point[16], char **path, int *fd, struct lc_err *e)
{
	const struct timespec pause = {.tv_nsec = BAR_PAUSE_MS * LC_NS_PER_MS};
	struct lc_err err = LC_ERR_INIT;
	char hex[33];
	char *dir = path_join(s->dir, "leases");
	int rc, tries;

	*fd = -1;
	*path = lc_asprintf("%s/leases/%s" BAR, s->dir, lc_hex(hex, point, 16));
	rc = dir == NULL || *path == NULL ? lc_fail(&err, LC_ENOMEM, 0, "out of memory")
	                                  : dir_make(dir, 0700, &err);
	/* A reader that looks whether it is a dead one's holds it for a moment. */
	for (tries = 0; rc == 0 && tries < BAR_TRIES; tries++) {
		lc_err_clear(&err);
		rc = file_lock(*path, 0600, "a drop", fd, &err);
		if (rc != LC_EBUSY)
			break;
		rc = 0;
		(void)nanosleep(&pause, NULL);
	}
	if (rc == 0 && *fd < 0)
		rc = LC_EBUSY;
	lc_free(dir);
	if (rc != 0) {
		lease_give(path, fd);
		if (e != NULL)
			*e = err;
	}
	return rc;
}

void
lease_give(char **path, int *fd)
{
	if (*fd >= 0 && *path != NULL)
		(void)unlink(*path);
	fd_close(fd);
	lc_free(*path);
	*path = NULL;
}

int
store_leased(struct store *s, const uint8_t point[16], struct lc_err *e)
{
	char hex[33];
	char *dir = path_join(s->dir, "leases");
	struct dirent *ent;
	DIR *d;
	int rc = 0;

	if (dir == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "out of memory");
	(void)lc_hex(hex, point, 16);
	d = opendir(dir);
	lc_free(dir);
	while (d != NULL && rc == 0 &&
	       (ent = readdir(d)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
		int fd;

		if (strncmp(ent->d_name, hex, 32) != 0 || strcmp(ent->d_name + 32, BAR) == 0)
			continue;
		fd = openat(dirfd(d), ent->d_name, O_RDWR | O_CLOEXEC);
		if (fd < 0) {
			if (errno != ENOENT) /* another user's: nobody knows whether it lives */
				rc = lc_fail_errno(e, "lease %s", ent->d_name);
			continue;
		}
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			(void)unlinkat(dirfd(d), ent->d_name, 0); /* its reader is dead */
		else
			rc = lc_fail(e, LC_EBUSY, 0,
			             "restore point %.8s is being read (booted, restored or "
			             "verified): stop that first",
			             hex);
		(void)close(fd);
	}
	if (d != NULL)
		(void)closedir(d);
	return rc;
}

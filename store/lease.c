/*
 * Who is at a restore point, as files in leases/.
 *
 *     <point>.<random>   a reader: locked as long as it lives
 *     <point>.drop       somebody drops it: locked likewise
 *     <point>.keep.<n>   something stands on it that outlives processes, as long as a file is
 * there: its path, a newline, and what to say of it
 *
 * What nobody holds, and what names a file that is gone, is taken away by whoever meets it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/log.h"
#include "store/store_internal.h"

#define BAR ".drop"
#define KEEP ".keep."
#define KEEP_MAX 8192u   /* bytes of such a file */
#define NAMED_MAX 65536u /* bytes of the file that it names */
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
	bool busy;
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
	busy = rc == LC_EBUSY; /* nobody but one who drops this point looks at it */
	rc = rc == LC_ENOMEM ? rc : 0;
	if (rc == 0 && (busy || (*fd >= 0 && barred(s, hex)))) {
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

/* ---- kept ---- */

int
store_keep(struct store *s, const uint8_t point[POINT_ID_SIZE], const char *path, const char *why,
           struct lc_err *e)
{
	char *dir = path_join(s->dir, "leases");
	char *text = lc_asprintf("%s\n%s\n", path, why);
	char hex[33], *name;
	int rc = 0;

	name = lc_asprintf("%s/%s" KEEP "%016" PRIx64, dir == NULL ? "" : dir,
	                   lc_hex(hex, point, 16), XXH3_64bits(path, strlen(path)));
	if (dir == NULL || text == NULL || name == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "out of memory");
	else if (strchr(path, '\n') != NULL || strchr(why, '\n') != NULL)
		rc = lc_fail(e, LC_EINVAL, 0, "%s: can't be kept by that name", path);
	else if (dir_make(dir, 0700, NULL) != 0 || access(dir, W_OK) != 0)
		log_debug("store %s: nothing is kept, the folder can't be written", s->dir);
	else
		rc = file_write_atomic(name, text, strlen(text), 0600, e);
	lc_free(name);
	lc_free(text);
	lc_free(dir);
	return rc;
}

/* Whether the file that is named is there and about this point.  One that can't be read may be. */
static bool
stands(const char *path, const char *hex)
{
	struct lc_buf b = {0};
	int rc = file_read_all(path, NAMED_MAX, &b, NULL);
	bool yes = rc == 0 ? b.n > 0 && memmem(b.p, b.n, hex, 32) != NULL : rc != LC_ENOENT;

	lc_buf_free(&b);
	return yes;
}

/* One keep: 0 where it is over, and then taken away. */
static int
look_at_keep(const char *path, const char *hex, struct lc_err *e)
{
	struct lc_buf b = {0};
	char *why;
	int rc = file_read_all(path, KEEP_MAX, &b, e);

	rc = rc != 0                         ? rc
	     : lc_buf_append(&b, "", 1) != 0 ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
	                                     : 0;
	if (rc == 0) {
		why = strchr((char *)b.p, '\n');
		if (why != NULL)
			*why++ = '\0';
		if (!stands((const char *)b.p, hex))
			(void)unlink(path);
		else
			rc = lc_fail(e, LC_EBUSY, 0, "restore point %.8s is needed: %.*s", hex,
			             why == NULL ? 0 : (int)strcspn(why, "\n"),
			             why == NULL ? "" : why);
	}
	lc_buf_free(&b);
	return rc;
}

/* ---- before a drop ---- */

static int
look_at_reader(int dir, const char *name, const char *hex, struct lc_err *e)
{
	int fd = openat(dir, name, O_RDWR | O_CLOEXEC);
	int rc = 0;

	if (fd < 0) /* another user's: nobody knows whether it lives */
		return errno == ENOENT ? 0 : lc_fail_errno(e, "lease %s", name);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		(void)unlinkat(dir, name, 0); /* its reader is dead */
	} else {
		rc = lc_fail(e, LC_EBUSY, 0,
		             "restore point %.8s is being read (booted, restored, verified or "
		             "sent to a replica): stop that first, or wait for its end",
		             hex);
	}
	(void)close(fd);
	return rc;
}

/* The leases on a point: those of readers, or those that are kept. */
static int
look_at(DIR *d, const char *dir, const char *hex, bool kept, struct lc_err *e)
{
	struct dirent *ent;
	char *path;
	int rc = 0;

	rewinddir(d);
	while (rc == 0 && (ent = dir_next(d, dir, &rc, e)) != NULL) {
		const char *tail = ent->d_name + 32;

		if (strncmp(ent->d_name, hex, 32) != 0 || strcmp(tail, BAR) == 0 ||
		    (strncmp(tail, KEEP, strlen(KEEP)) == 0) != kept)
			continue;
		if (!kept) {
			rc = look_at_reader(dirfd(d), ent->d_name, hex, e);
			continue;
		}
		path = path_join(dir, ent->d_name);
		rc = path == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory")
		                  : look_at_keep(path, hex, e);
		lc_free(path);
	}
	return rc;
}

int
store_leased(struct store *s, const uint8_t point[16], struct lc_err *e)
{
	char hex[33];
	char *dir = path_join(s->dir, "leases");
	DIR *d = dir == NULL ? NULL : opendir(dir);
	int rc = dir == NULL ? lc_fail(e, LC_ENOMEM, 0, "out of memory") : 0;

	if (rc == 0 && d == NULL && errno != ENOENT) /* whether it is leased, nobody knows */
		rc = lc_fail_errno(e, "%s", dir);
	(void)lc_hex(hex, point, 16);
	/* What runs has to be stopped first, whatever it has written. */
	if (d != NULL)
		rc = look_at(d, dir, hex, false, e);
	if (d != NULL && rc == 0)
		rc = look_at(d, dir, hex, true, e);
	if (d != NULL)
		(void)closedir(d);
	lc_free(dir);
	return rc;
}

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/hypervisor/launch.h"
#include "agent/hypervisor/settings.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "restore/place.h"

static char *
images_of(const struct settings *s, const char *name)
{
	return launch_writes(s->scratch_dir, name);
}

int
place_recorded(const struct settings *s, const char *name, char **out, struct lc_err *e)
{
	char *dir = images_of(s, name);
	char *path = dir == NULL ? NULL : path_join(dir, PLACE_POINT_FILE);
	struct lc_buf text = {0};
	int rc;

	if (path == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	else if (access(path, F_OK) != 0 && errno == ENOENT)
		rc = lc_fail(e, LC_ENOENT, 0,
		             "nothing to go on with: no earlier boot of '%s' left its writes in %s",
		             name, dir);
	else
		rc = file_read_all(path, 4096, &text, e);
	if (rc == 0 && text.p == NULL)
		rc = lc_fail(e, LC_ECORRUPT, 0, "%s: empty: nobody knows what lies beside it",
		             path);
	if (rc == 0 && text.p != NULL) {
		const uint8_t *nl = memchr(text.p, '\n', text.n);

		*out = lc_asprintf("%.*s", (int)(nl == NULL ? text.n : (size_t)(nl - text.p)),
		                   (const char *)text.p);
		if (*out == NULL)
			rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	}
	lc_buf_free(&text);
	lc_free(path);
	lc_free(dir);
	return rc;
}

/* The lock is on the folder itself, so that it goes with it.  One that was removed while we came
 * for its lock is not the place any more. */
static int
lock_folder(const char *dir, int *fd, struct lc_err *e)
{
	struct stat have, now;
	int rc;

	for (;;) {
		rc = dir_make(dir, 0700, e);
		if (rc != 0)
			return rc;
		*fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (*fd < 0)
			return lc_fail_errno(e, "%s: open", dir);
		if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
			rc = errno == EWOULDBLOCK
			         ? lc_fail(e, LC_EBUSY, 0, "%s: in use by another locum", dir)
			         : lc_fail_errno(e, "%s: lock", dir);
			fd_close(fd);
			return rc;
		}
		if (fstat(*fd, &have) == 0 && stat(dir, &now) == 0 && have.st_ino == now.st_ino &&
		    have.st_dev == now.st_dev)
			return 0;
		fd_close(fd);
	}
}

static int
check_running(const struct place *p, const char *name, struct lc_err *e)
{
	int pid;

	if (!launch_alive(p->run, &pid))
		return 0;
	return lc_fail(e, LC_EBUSY, 0,
	               "a VM '%s' runs already (pid %d): stop it (locum vm stop %s) or choose "
	               "another name (--name)",
	               name, pid, name);
}

/* What an earlier boot of that name left. */
static int
clear_images(const struct place *p, const char *name, struct lc_err *e)
{
	char *path = path_join(p->images, PLACE_POINT_FILE);
	bool written = path == NULL || access(path, F_OK) == 0 || errno != ENOENT;

	lc_free(path);
	if (!written || p->use == PLACE_DISCARD) {
		dir_remove(p->images);
		return 0;
	}
	if (p->use == PLACE_TEST)
		return lc_fail(e, LC_EEXIST, 0,
		               "%s holds what a VM '%s' wrote: choose another name (--name) for "
		               "the test",
		               p->images, name);
	return lc_fail(e, LC_EEXIST, 0,
	               "%s holds what an earlier boot of '%s' wrote: --resume goes on with it, "
	               "--discard loses it",
	               p->images, name);
}

int
place_take(const struct settings *s, const char *name, enum place_use use, struct place *out,
           struct lc_err *e)
{
	int rc;

	*out = (struct place){.use = use, .lock = -1};
	out->run = path_join(s->run_dir, name);
	out->images = images_of(s, name);
	if (out->run == NULL || out->images == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	rc = check_running(out, name, e);
	rc = rc != 0 ? rc : lock_folder(out->run, &out->lock, e);
	rc = rc != 0 ? rc : check_running(out, name, e); /* since the first look */
	if (rc == 0 && use != PLACE_RESUME)
		rc = clear_images(out, name, e);
	rc = rc != 0 ? rc : dir_make(out->images, 0700, e);
	out->made = rc == 0 && use != PLACE_RESUME;
	return rc;
}

int
place_socket(const struct place *p, char **out, struct lc_err *e)
{
	char *dir = path_join(p->run, "nbd");
	int rc = 0;

	*out = dir == NULL ? NULL : path_join(dir, "s");
	if (*out == NULL) {
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	} else {
		(void)unlink(*out); /* of a server that was killed */
		rc = dir_make(dir, 0711, e);
		rc = rc != 0 ? rc : place_let_user(dir, 0711, e); /* whatever the umask says */
	}
	lc_free(dir);
	return rc;
}

int
place_let_user(const char *path, mode_t mode, struct lc_err *e)
{
	return chmod(path, mode) == 0 ? 0 : lc_fail_errno(e, "%s", path);
}

int
place_record(const struct place *p, const char *spec, struct lc_err *e)
{
	char *path, *text;
	int rc;

	if (p->use == PLACE_TEST || p->use == PLACE_RESUME)
		return 0;
	path = path_join(p->images, PLACE_POINT_FILE);
	text = lc_asprintf("%s\n", spec);
	if (path == NULL || text == NULL)
		rc = lc_fail(e, LC_ENOMEM, 0, "boot: out of memory");
	else
		rc = file_write_atomic(path, text, strlen(text), 0600, e);
	lc_free(path);
	lc_free(text);
	return rc;
}

void
place_leave(struct place *p, bool failed, bool logs)
{
	if (p->made && (failed || p->use == PLACE_TEST))
		dir_remove(p->images);
	if (p->lock >= 0 && !logs)
		dir_remove(p->run);
	fd_close(&p->lock);
	lc_free(p->run);
	lc_free(p->images);
	*p = (struct place){.lock = -1};
}

/* A line each: the disk's name, a tab, the path. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/handed.h"
#include "agent/hypervisor/launch_args.h"

#define HANDED_FILE "files"
#define BYTES_MAX (1u << 20)

int
handed_write(const struct definition *def, const struct launch_opts *opts, struct lc_err *e)
{
	char *file = path_join(opts->dir, HANDED_FILE);
	struct lc_buf text = {0};
	int rc = file == NULL ? LC_ENOMEM : 0;
	size_t i;

	for (i = 0; rc == 0 && i < def->ndisks; i++) {
		const char *path = launch_image_path(def, opts, i);

		if (path != NULL && strchr(path, '\n') == NULL)
			rc = lc_buf_printf(&text, "%s\t%s\n", def->disks[i].name, path);
	}
	if (rc != 0)
		rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", opts->vm);
	else
		rc = file_write_atomic(file, text.p, text.n, 0600, e);
	lc_buf_free(&text);
	lc_free(file);
	return rc;
}

/* Nobody else has written it. */
static bool
is_ours(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
	       (st.st_mode & 022) == 0 && st.st_size < BYTES_MAX;
}

static bool
find_line(FILE *f, const char *disk, char *path, size_t n)
{
	char line[HV_NAME_MAX + PATH_MAX];
	size_t len = strlen(disk);

	while (fgets(line, sizeof line, f) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, disk, len) != 0 || line[len] != '\t')
			continue;
		return (size_t)snprintf(path, n, "%s", line + len + 1) < n;
	}
	return false;
}

bool
handed_find(const char *monitor, const char *disk, char *path, size_t n)
{
	char *dir = monitor == NULL ? NULL : path_dirname(monitor), *file = NULL;
	bool found = false;
	FILE *f = NULL;
	int fd = -1;

	if (dir != NULL)
		file = path_join(dir, HANDED_FILE);
	if (file != NULL)
		fd = open(file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0 && is_ours(fd))
		f = fdopen(fd, "r");
	if (f != NULL) {
		found = find_line(f, disk, path, n);
		(void)fclose(f);
	} else {
		fd_close(&fd);
	}
	lc_free(file);
	lc_free(dir);
	return found;
}

bool
handed_unknown(const char *path)
{
	static const char set[] = "/dev/fdset/", own[] = "/proc/self/fd/";

	return strncmp(path, set, sizeof set - 1) == 0 || strncmp(path, own, sizeof own - 1) == 0;
}

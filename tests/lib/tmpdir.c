#include <stdio.h>
#include <stdlib.h>

#include "store/base/files.h"
#include "tests/lib/unit.h"

char *
tmpdir_new(void)
{
	const char *top = getenv("TMPDIR");
	char *dir = lc_asprintf("%s/locum-test-XXXXXX", top == NULL ? "/tmp" : top);

	if (dir == NULL || mkdtemp(dir) == NULL)
		abort();
	return dir;
}

void
tmpdir_free(char *dir)
{
	dir_remove(dir);
	lc_free(dir);
}

const char *
tmpdir_path(const char *dir, const char *name)
{
	static char buffers[4][4096];
	static unsigned next;
	char *path = buffers[next++ % 4];

	if ((size_t)snprintf(path, sizeof buffers[0], "%s/%s", dir, name) >= sizeof buffers[0])
		abort();
	return path;
}

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/base/cli.h"
#include "store/base/files.h"
#include "store/base/memory.h"

#include "agent/hypervisor/commandline.h"
#include "agent/hypervisor/processes.h"

/* ---- options ---- */

/* The value of `key` in "a=b,key=value,...", with ",," for a comma; "" where it is not there.  NULL
 * as key: what stands in front without any key. */
static void
option(char *dst, size_t n, const char *s, const char *key)
{
	size_t len = key == NULL ? 0 : strlen(key), used = 0;

	*dst = '\0';
	for (;;) {
		const char *end = s;

		while (*end != '\0' && !(end[0] == ',' && end[1] != ','))
			end += end[0] == ',' ? 2 : 1;
		if (key == NULL ? memchr(s, '=', (size_t)(end - s)) == NULL
		                : strncmp(s, key, len) == 0 && s[len] == '=')
			break;
		if (*end == '\0')
			return;
		s = end + 1;
	}
	s += key == NULL ? 0 : len + 1;
	for (; *s != '\0' && used + 1 < n; s++) {
		if (*s == ',' && *++s != ',')
			break;
		dst[used++] = *s;
	}
	dst[used] = '\0';
}

/* Where the monitor on that chardev listens: its -chardev option. */
static void
find_chardev(const struct commandline *w, const char *id, struct process *p)
{
	char value[sizeof p->monitor];
	size_t i;

	for (i = 1; i + 1 < w->n; i++) {
		if (!commandline_is(w->at[i], "chardev"))
			continue;
		option(value, sizeof value, w->at[i + 1], "id");
		if (strcmp(value, id) != 0)
			continue;
		option(value, sizeof value, w->at[i + 1], "path");
		if (*value != '\0' && p->monitor[0] == '\0')
			memcpy(p->monitor, value, sizeof value);
		option(value, sizeof value, w->at[i + 1], "fd");
		p->held = p->held || *value != '\0';
	}
}

static void
read_monitor(const struct commandline *w, size_t i, struct process *p)
{
	static const char unix_socket[] = "unix:";
	const char *value = w->at[i + 1];
	char text[sizeof p->monitor];

	if (commandline_is(w->at[i], "mon")) {
		option(text, sizeof text, value, "mode");
		if (strcmp(text, "control") != 0)
			return;
		option(text, sizeof text, value, "chardev");
		if (*text == '\0')
			option(text, sizeof text, value, NULL);
		find_chardev(w, text, p);
	} else if (strncmp(value, unix_socket, sizeof unix_socket - 1) == 0) {
		option(text, sizeof text, value + sizeof unix_socket - 1, NULL);
		if (p->monitor[0] == '\0')
			memcpy(p->monitor, text, sizeof text);
	} else if (strncmp(value, "chardev:", 8) == 0) {
		find_chardev(w, value + 8, p);
	}
}

static void
read_words(const struct commandline *w, struct process *p)
{
	size_t i, k;

	for (i = 1; i + 1 < w->n; i++) {
		const char *value = w->at[i + 1];

		if (commandline_is(w->at[i], "name")) {
			option(p->name, sizeof p->name, value, "guest");
			if (p->name[0] == '\0')
				option(p->name, sizeof p->name, value, NULL);
		} else if (commandline_is(w->at[i], "uuid")) {
			(void)snprintf(p->uuid, sizeof p->uuid, "%s", value);
			for (k = 0; p->uuid[k] != '\0'; k++)
				p->uuid[k] = (char)tolower((unsigned char)p->uuid[k]);
		} else if (commandline_is(w->at[i], "qmp") ||
		           commandline_is(w->at[i], "qmp-pretty") ||
		           commandline_is(w->at[i], "mon")) {
			read_monitor(w, i, p);
		} else {
			continue;
		}
		i++;
	}
}

/* ---- processes ---- */

static void
make_absolute(const char *dir, struct process *p)
{
	char cwd[4096], *path;
	char *link = path_join(dir, "cwd");
	ssize_t n = link == NULL ? -1 : readlink(link, cwd, sizeof cwd - 1);

	if (p->monitor[0] != '\0' && p->monitor[0] != '/') {
		cwd[n > 0 ? n : 0] = '\0';
		path = n > 0 ? path_join(cwd, p->monitor) : NULL;
		if (path == NULL || strlen(path) >= sizeof p->monitor)
			p->monitor[0] = '\0';
		else
			(void)snprintf(p->monitor, sizeof p->monitor, "%s", path);
		lc_free(path);
	}
	lc_free(link);
}

static void
read_label(const char *dir, struct process *p)
{
	char *path = path_join(dir, "attr/current");
	struct lc_buf text = {0};

	if (path != NULL && file_read_all(path, 4096, &text, NULL) == 0 &&
	    lc_buf_append(&text, "", 1) == 0) {
		char *s = (char *)text.p;

		s[strcspn(s, "\n")] = '\0';
		if (strcmp(s, "unconfined") != 0 && strcmp(s, "kernel") != 0)
			(void)snprintf(p->label, sizeof p->label, "%s", s);
	}
	lc_buf_free(&text);
	lc_free(path);
}

static bool
read_process(const char *dir, struct process *p)
{
	struct commandline *w = NULL;
	struct stat st;

	if (stat(dir, &st) != 0 || (w = commandline_read(dir)) == NULL)
		return false;
	p->uid = st.st_uid;
	read_words(w, p);
	commandline_free(w);
	(void)cli_tame(p->name, strlen(p->name), "");
	/* What is advised by it would be lines of somebody else's. */
	if (cli_tame(p->monitor, strlen(p->monitor), "") > 0)
		p->monitor[0] = '\0';
	make_absolute(dir, p);
	read_label(dir, p);
	return true;
}

static int
by_pid(const void *a, const void *b)
{
	const struct process *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

int
processes_list(const char *proc, struct process **out, size_t *n, struct lc_err *e)
{
	DIR *d;
	struct dirent *ent;
	int rc = 0;

	*out = NULL;
	*n = 0;
	proc = proc == NULL ? "/proc" : proc;
	d = opendir(proc);
	if (d == NULL)
		return lc_fail_errno(e, "%s", proc);
	while (rc == 0 && (ent = dir_next(d, proc, &rc, e)) != NULL) {
		struct process p = {.pid = (int)strtol(ent->d_name, NULL, 10)}, *more;
		char *dir;

		if (p.pid <= 0)
			continue;
		dir = path_join(proc, ent->d_name);
		if (dir != NULL && read_process(dir, &p)) {
			more = lc_realloc(*out, (*n + 1) * sizeof p);
			if (more == NULL)
				rc = lc_fail(e, LC_ENOMEM, 0, "%s: out of memory", proc);
			else
				(*out = more)[(*n)++] = p;
		}
		lc_free(dir);
	}
	(void)closedir(d);
	if (rc != 0) {
		lc_free(*out);
		*out = NULL;
		*n = 0;
	}
	if (*n > 1)
		qsort(*out, *n, sizeof **out, by_pid);
	return rc;
}

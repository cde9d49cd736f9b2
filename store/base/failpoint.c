#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/base/failpoint.h"

enum { MAX_RULES = 16, MAX_SPEC = 1024 };

enum action { ACT_KILL, ACT_EIO, ACT_ENOSPC, ACT_HANG, ACT_STOP };

static const char *const action_names[] = {
    [ACT_KILL] = "kill", [ACT_EIO] = "eio",   [ACT_ENOSPC] = "enospc",
    [ACT_HANG] = "hang", [ACT_STOP] = "stop",
};

struct rule {
	const char *name;
	unsigned long at; /* acts on this hit, 1 = first */
	enum action action;
	atomic_ulong hits;
};

bool failpoint_armed;
static char spec_text[MAX_SPEC]; /* rules point into it */
static struct rule rules[MAX_RULES];
static size_t nrules;
static const char *log_path;

/* A test that names a failpoint wrongly must not pass: the process ends before main(). */
static _Noreturn void
refuse(const char *what, const char *word)
{
	(void)fprintf(stderr, "locum: LOCUM_FAILPOINT: %s: \"%s\" (want name:n:action[,...])\n",
	              what, word);
	_exit(2);
}

static void
parse_rule(char *word)
{
	char *n = strchr(word, ':');
	char *action = n == NULL ? NULL : strchr(n + 1, ':');
	struct rule *r = &rules[nrules];
	char *end;
	size_t i;

	if (nrules == MAX_RULES)
		refuse("too many rules", word);
	if (action == NULL || n == word)
		refuse("not a rule", word);
	*n++ = '\0';
	*action++ = '\0';
	r->name = word;
	errno = 0;
	r->at = strtoul(n, &end, 10);
	if (errno != 0 || *n < '0' || *n > '9' || *end != '\0' || r->at == 0)
		refuse("not a count from 1", n);
	for (i = 0; i < sizeof action_names / sizeof action_names[0]; i++) {
		if (strcmp(action_names[i], action) == 0) {
			r->action = (enum action)i;
			nrules++;
			return;
		}
	}
	refuse("unknown action", action);
}

__attribute__((constructor)) static void
failpoint_init(void)
{
	/* secure_getenv: never obeyed where a set-uid wrapper runs us. */
	const char *spec = secure_getenv("LOCUM_FAILPOINT");
	char *word, *rest = spec_text;

	log_path = secure_getenv("LOCUM_FAILPOINT_LOG");
	if (log_path != NULL && *log_path == '\0')
		log_path = NULL;
	if (spec != NULL) {
		if (strlen(spec) >= sizeof spec_text)
			refuse("too long", spec);
		memcpy(spec_text, spec, strlen(spec) + 1);
		while ((word = strsep(&rest, ",")) != NULL) {
			if (*word != '\0')
				parse_rule(word);
		}
	}
	failpoint_armed = nrules > 0 || log_path != NULL;
}

/* One O_APPEND write a name: whole lines, also from several processes, also right before a kill. */
static void
note_hit(const char *name)
{
	char line[128];
	int n = snprintf(line, sizeof line, "%s\n", name);
	int fd;

	if (n < 0 || (size_t)n >= sizeof line)
		return;
	fd = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)n) != n) {
		(void)fprintf(stderr, "locum: LOCUM_FAILPOINT_LOG: %s: %s\n", log_path,
		              strerrordesc_np(errno));
		_exit(2);
	}
	(void)close(fd);
}

static int
act(enum action action)
{
	switch (action) {
	case ACT_KILL:
		(void)kill(getpid(), SIGKILL);
		break; /* The signal may take a moment to reach this thread: wait for it. */
	case ACT_EIO:
		return EIO;
	case ACT_ENOSPC:
		return ENOSPC;
	case ACT_STOP:
		(void)kill(getpid(), SIGSTOP);
		return 0;
	case ACT_HANG:
		break;
	}
	for (;;)
		(void)pause();
}

int
failpoint_hit(const char *name)
{
	int saved = errno;
	int rc = 0;
	size_t i;

	if (log_path != NULL)
		note_hit(name);
	for (i = 0; i < nrules && rc == 0; i++) {
		struct rule *r = &rules[i];

		if (strcmp(r->name, name) == 0 && atomic_fetch_add(&r->hits, 1) + 1 == r->at)
			rc = act(r->action);
	}
	errno = saved;
	return rc;
}

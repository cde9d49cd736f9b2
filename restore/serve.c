#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libnbd.h>

#include "store/base/clock.h"
#include "store/base/files.h"
#include "store/base/memory.h"
#include "restore/serve.h"

extern char **environ;

enum {
	ARGS_MAX = 20,
	KEYS_FD = 3,    /* the plugin's end of the pipe */
	STEP_MS = 5,    /* between two looks whether it is there */
	STOP_MS = 5000, /* for a polite end */
	LOG_MAX = 1 << 20,
};

#define REPLICA_PATIENCE "60s" /* then the guest gets an error */
#define FIRST_CLIENT "30s"     /* it ends where we died before we were its client */

struct serve {
	pid_t pid; /* 0: gone */
	struct nbd_handle *client;
};

/* ---- the command line ---- */

struct args {
	char *v[ARGS_MAX + 1];
	size_t n;
	bool short_of_memory;
};

static void
add(struct args *a, char *owned)
{
	if (owned == NULL || a->n == ARGS_MAX) {
		a->short_of_memory = true;
		lc_free(owned);
		return;
	}
	a->v[a->n++] = owned;
}

static void
add_key(struct args *a, const char *key, const char *value)
{
	if (value != NULL)
		add(a, lc_asprintf("%s=%s", key, value));
}

static void
make_args(const struct serve_opts *o, struct args *a)
{
	*a = (struct args){0};
	add(a, lc_strdup(o->nbdkit));
	add(a, lc_strdup("--foreground")); /* it is detached by us, so that we hear how it fares */
	add(a, lc_strdup("--readonly"));
	add(a, lc_strdup("--unix"));
	add(a, lc_strdup(o->socket));
	add(a, lc_strdup("--filter=exitlast"));
	add(a, lc_strdup(o->plugin));
	add_key(a, "store", o->store);
	add_key(a, "vm", o->point);
	add(a, lc_asprintf("cache=%" PRIu64, o->cache));
	add(a, lc_asprintf("keys-fd=%d", KEYS_FD));
	add_key(a, "first-client", FIRST_CLIENT);
	add_key(a, "key-dir", o->key_dir);
	add_key(a, "replica-patience", REPLICA_PATIENCE);
	add_key(a, "boot", "true");
}

static void
free_args(struct args *a)
{
	size_t i;

	for (i = 0; i < a->n; i++)
		lc_free(a->v[i]);
}

/* ---- the process ---- */

/* The reading end of a pipe that holds all of it already. */
static int
fill_pipe(struct lc_span keys, int *out, struct lc_err *e)
{
	int ends[2], rc = 0;

	*out = -1;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
		return lc_fail_errno(e, "nbdkit: pipe");
	if (keys.n > PIPE_BUF)
		(void)fcntl(ends[1], F_SETPIPE_SZ, (int)keys.n);
	if (write(ends[1], keys.p, keys.n) != (ssize_t)keys.n)
		rc = lc_fail(e, LC_EIO, 0, "nbdkit: too many keys for a pipe");
	fd_close(&ends[1]);
	if (rc == 0)
		*out = ends[0];
	else
		fd_close(&ends[0]);
	return rc;
}

static int
spawn(const struct serve_opts *o, pid_t *pid, struct lc_err *e)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int keys = -1, rc = fill_pipe(o->keys, &keys, e);
	struct args a;

	if (rc != 0)
		return rc;
	make_args(o, &a);
	(void)posix_spawn_file_actions_init(&files);
	(void)posix_spawnattr_init(&attr);
	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	rc = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	if (rc == 0)
		rc = posix_spawn_file_actions_addopen(&files, 2, o->log,
		                                      O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(&files, 2, 1);
	if (rc == 0) /* where it is that number already, this lets it through, too */
		rc = posix_spawn_file_actions_adddup2(&files, keys, KEYS_FD);
	/* A session of its own: the terminal's Ctrl-C and its end are not for it. */
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setsigdefault(&attr, &all);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
	                                          POSIX_SPAWN_SETSIGDEF);
	if (rc == 0 && a.short_of_memory)
		rc = ENOMEM;
	if (rc == 0)
		rc = posix_spawnp(pid, o->nbdkit, &files, &attr, a.v, environ);
	if (rc != 0)
		(void)lc_fail(e, rc == ENOENT ? LC_ENOENT : LC_EIO, rc, "start %s", o->nbdkit);
	(void)posix_spawn_file_actions_destroy(&files);
	(void)posix_spawnattr_destroy(&attr);
	free_args(&a);
	fd_close(&keys);
	return rc == 0 ? 0 : LC_EIO;
}

/* The last line of its log, for the message. */
static int
fail_with_log(const struct serve_opts *o, const char *what, struct lc_err *e)
{
	struct lc_buf b = {0};
	const char *line = "";
	size_t n = 0;

	if (file_read_all(o->log, LOG_MAX, &b, NULL) == 0 && b.n > 0) {
		const char *text = (const char *)b.p;
		const char *nl;

		n = b.n;
		while (n > 0 && text[n - 1] == '\n')
			n--;
		nl = memrchr(text, '\n', n);
		line = nl == NULL ? text : nl + 1;
		n -= (size_t)(line - text);
	}
	(void)lc_fail(e, LC_EIO, 0, "nbdkit %s: %.*s (see %s)", what, (int)(n > 300 ? 300 : n),
	              n == 0 ? "" : line, o->log);
	lc_buf_free(&b);
	return LC_EIO;
}

/* Become its client, without a word where it is not ready yet. */
static struct nbd_handle *
become_client(const char *path)
{
	struct nbd_handle *h = nbd_create();

	if (h != NULL && nbd_connect_unix(h, path) == 0)
		return h;
	if (h != NULL)
		nbd_close(h);
	return NULL;
}

static int
wait_ready(const struct serve_opts *o, struct serve *s, struct lc_err *e)
{
	int64_t deadline = clock_mono_ns() + o->timeout_ms * LC_NS_PER_MS;

	for (;;) {
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
			s->pid = 0;
			return fail_with_log(o, "ended at once", e);
		}
		if (access(o->socket, F_OK) == 0)
			s->client = become_client(o->socket);
		if (s->client != NULL)
			return 0;
		if (clock_mono_ns() > deadline)
			return fail_with_log(o, "does not answer", e);
		(void)poll(NULL, 0, STEP_MS);
	}
}

int
serve_start(const struct serve_opts *opts, struct serve **out, struct lc_err *e)
{
	struct serve *s;
	int rc;

	if (strlen(opts->socket) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return lc_fail(e, LC_EINVAL, 0,
		               "%s: too long for a socket; choose a shorter run_dir", opts->socket);
	s = lc_alloc(sizeof *s);
	if (s == NULL)
		return lc_fail(e, LC_ENOMEM, 0, "nbdkit: out of memory");
	rc = spawn(opts, &s->pid, e);
	if (rc == 0)
		rc = wait_ready(opts, s, e);
	if (rc != 0) {
		serve_stop(s);
		return rc;
	}
	*out = s;
	return 0;
}

void
serve_release(struct serve *s)
{
	if (s == NULL)
		return;
	if (s->client != NULL)
		nbd_close(s->client);
	lc_free(s);
}

void
serve_stop(struct serve *s)
{
	int64_t deadline = clock_mono_ns() + STOP_MS * LC_NS_PER_MS;

	/* It would wait for us as for any client. */
	if (s != NULL && s->client != NULL) {
		nbd_close(s->client);
		s->client = NULL;
	}
	if (s != NULL && s->pid > 0 && kill(s->pid, SIGTERM) == 0) {
		while (waitpid(s->pid, NULL, WNOHANG) == 0) {
			if (clock_mono_ns() > deadline)
				(void)kill(s->pid, SIGKILL);
			(void)poll(NULL, 0, STEP_MS);
		}
	}
	serve_release(s);
}
